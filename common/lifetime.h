/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_COMMON_LIFETIME_H
#define SLUICE_COMMON_LIFETIME_H

/*
 * When a lease ends: the state machine of docs/leases.md as pure functions. Whoever makes, extends or bounds a lease asks here.
 *
 * Times are milliseconds of the leases' clock (lease.h).
 */

#include <stdbool.h>
#include <stdint.h>

#define LIFETIME_PERIOD_MIN_MS 500   /* flows are looked for at most so often ... */
#define LIFETIME_PERIOD_MAX_MS 60000 /* ... and at least */

/* Seconds. docs/leases.md argues the defaults. */
struct lifetimes {
	uint32_t min_ttl;
	uint32_t grace;
	uint32_t max_age;
	uint32_t max_addresses; /* addresses of one type that an answer may show */
};

/** lifetime_seconds() - How long a lease lasts that an answer with this TTL gives: min(max(TTL, min_ttl) + grace, max_age). */
uint32_t lifetime_seconds(const struct lifetimes *lifetimes, uint32_t ttl);

/**
 * lifetime_used() - The end of a lease of whose address a flow was seen
 * @shown:	when an answer last showed the address
 * @until:	the end as it is
 * @period:	ms until flows are looked for again
 *
 * `grace` counts from the end of the flow, and that is some time before the next look; never later than max_age after @shown. A lease that
 * has ended stays so: only an answer makes one.
 *
 * Return: the end, never before @until.
 */
uint64_t lifetime_used(const struct lifetimes *lifetimes, uint64_t shown, uint64_t until, uint64_t now, uint64_t period);

/** lifetime_bounded() - The end of a lease under lifetimes that are not those it was made with: max_age holds at once. */
uint64_t lifetime_bounded(const struct lifetimes *lifetimes, uint64_t shown, uint64_t until);

/** lifetime_is_to_recheck() - Is the name of a lease in use to be asked for again, because half of its max_age has gone by? */
bool lifetime_is_to_recheck(const struct lifetimes *lifetimes, uint64_t shown, uint64_t now);

/** lifetime_period() - How often flows are to be looked for, so that no lease in use ends between two looks. Return: ms. */
uint64_t lifetime_period(const struct lifetimes *lifetimes);

#endif
