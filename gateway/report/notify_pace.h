/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_NOTIFY_PACE_H
#define SLUICE_GATEWAY_REPORT_NOTIFY_PACE_H

/* How often the server of notifications is written to: pure data, times in ms of any clock that only goes forward. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NOTIFY_GAP_MS     10000   /* between two requests */
#define NOTIFY_HOUR_MS    3600000 /* in any such time ... */
#define NOTIFY_PER_HOUR   30      /* ... at most so many requests */
#define NOTIFY_TRIES      3       /* of one message, then it is given up */
#define NOTIFY_RETRY_MS   10000   /* after the first try; three times as long after the second one */
#define NOTIFY_RETRY_MS_2 30000

/* Start with all zero. */
struct notify_pace {
	uint64_t times[NOTIFY_PER_HOUR]; /* of the last requests, a ring */
	size_t count;                    /* of requests ever */
	uint64_t retry_at;               /* 0: nothing is to be tried again */
	unsigned int tries;              /* of the message that is being sent */
};

/** notify_pace_next() - When the next request may begin. */
uint64_t notify_pace_next(const struct notify_pace *pace);

/** notify_pace_begin() - A request begins. */
void notify_pace_begin(struct notify_pace *pace, uint64_t now);

/** notify_pace_failed() - It has failed. Return: false: that was the last try of its message. */
bool notify_pace_failed(struct notify_pace *pace, uint64_t now);

/** notify_pace_done() - Its message has been taken, or given up. */
void notify_pace_done(struct notify_pace *pace);

#endif
