/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_RESOLVER_CACHE_H
#define SLUICE_RESOLVER_CACHE_H

/*
 * Upstream answers by (name, type, class, DO, CD, upstream group). Policy is applied on every hit, by the caller. Least recently used
 * entries go when the memory limit is reached. Times are milliseconds of uv_now().
 *
 * NXDOMAIN is kept by type as well, not for all types of its name (RFC 2308 section 5 would like that): servers are about that say it for
 * AAAA where there is an A (RFC 4074 section 4.2), and a name that is allowed and works must not be lost to that.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/policy.h"
#include "resolver/message.h"

#define CACHE_BYTES_MAX        (8UL * 1024 * 1024) /* about 20,000 names with one address each */
#define CACHE_TTL_MAX          86400               /* seconds */
#define CACHE_NEGATIVE_TTL_MAX 900                 /* seconds; RFC 2308 section 5 */
#define CACHE_FAILURE_TTL      1                   /* seconds that SERVFAIL of an upstream is remembered; RFC 2308 section 7 */

/*
 * Serving stale data, RFC 8767. An answer with records is kept beyond its TTL, and serves while no upstream has a better one. There is no
 * client response timer: a first look-up that fails has ended in time for everybody who asks (UPSTREAM_DEADLINE_MS).
 */
#define CACHE_STALE_MS (24 * 3600 * 1000UL) /* for so long after its end: the maximum stale timer */
#define CACHE_RECHECK_MS                                                                                                                   \
	5000 /* the failure recheck timer; shorter than the RFC's 30 s, which spares authoritative servers, not forwarders */

/* Compared as bytes; several tables have it, so it brings its hash along. */
struct cache_key {
	unsigned int hash; /* of the rest, but for the octets behind the name */
	uint16_t type, class;
	bool dnssec_ok, checking_disabled;
	char upstream[POLICY_NAME_MAX + 1];
	struct domain name;
};

struct cache; /* cache.c */

/** cache_new() - @bytes_max: memory limit. Return: NULL when out of memory. */
struct cache *cache_new(size_t bytes_max);
void cache_free(struct cache *cache);

/** cache_key_init() - Zero, then fill, so that keys can be compared as bytes. */
void cache_key_init(struct cache_key *key, const struct domain *name, uint16_t type, bool dnssec_ok, bool checking_disabled,
		    const char *upstream);

/**
 * cache_put() - Keep an answer for its TTL: the smallest of its records; SOA minimum for negative answers (none without SOA)
 * Takes ownership of @answer in every case. Truncated answers and rcodes other than NOERROR, NXDOMAIN, SERVFAIL are not kept.
 */
void cache_put(struct cache *cache, const struct cache_key *key, struct answer *answer, uint64_t now);

/**
 * cache_get() - Find a fresh answer
 * @age:	set to the seconds since it was put
 * Return: owned by the cache, valid until the next cache_put() or cache_clear(); NULL when there is none.
 */
const struct answer *cache_get(struct cache *cache, const struct cache_key *key, uint64_t now, uint32_t *age);

/**
 * cache_get_stale() - An answer that is past its end and may serve, because a look-up of @key has just failed; that is remembered
 * Return: as cache_get().
 */
const struct answer *cache_get_stale(struct cache *cache, const struct cache_key *key, uint64_t now);

/**
 * cache_get_failing() - The same for a question that need not wait, because the last look-up of @key failed
 * @recheck:	set once every CACHE_RECHECK_MS: the caller looks the key up again, for the next question
 */
const struct answer *cache_get_failing(struct cache *cache, const struct cache_key *key, uint64_t now, bool *recheck);

/** cache_clear() - Drop everything (upstreams changed). */
void cache_clear(struct cache *cache);
size_t cache_bytes(const struct cache *cache);
size_t cache_count(const struct cache *cache);

#endif
