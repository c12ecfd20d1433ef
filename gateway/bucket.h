/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_BUCKET_H
#define SLUICE_GATEWAY_BUCKET_H

/*
 * A token bucket in one number: something may happen once every @interval ms, and @burst times at once after a quiet time. A zeroed bucket
 * is full.
 */

#include <stdbool.h>
#include <stdint.h>

struct bucket {
	uint64_t full; /* ms: when all tokens are there again */
};

/** bucket_take() - Take a token. @now: ms of any clock that only goes forward. Return: false when there is none. */
static inline bool bucket_take(struct bucket *bucket, uint64_t now, uint64_t interval, unsigned int burst)
{
	uint64_t full = bucket->full > now ? bucket->full : now;

	if (full - now > interval * (burst - 1))
		return false;
	bucket->full = full + interval;
	return true;
}

/** bucket_is_full() - A bucket that says the same as a new one. */
static inline bool bucket_is_full(const struct bucket *bucket, uint64_t now)
{
	return bucket->full <= now;
}

#endif
