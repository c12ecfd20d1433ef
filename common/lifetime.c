/* SPDX-License-Identifier: MIT */
#include "common/lifetime.h"

uint32_t lifetime_seconds(const struct lifetimes *lifetimes, uint32_t ttl)
{
	uint64_t seconds = (uint64_t)(ttl > lifetimes->min_ttl ? ttl : lifetimes->min_ttl) + lifetimes->grace;

	return seconds < lifetimes->max_age ? (uint32_t)seconds : lifetimes->max_age;
}

static uint64_t limit(const struct lifetimes *lifetimes, uint64_t shown)
{
	return shown + lifetimes->max_age * UINT64_C(1000);
}

uint64_t lifetime_used(const struct lifetimes *lifetimes, uint64_t shown, uint64_t until, uint64_t now, uint64_t period)
{
	uint64_t last = limit(lifetimes, shown), kept = now + period + lifetimes->grace * UINT64_C(1000);

	if (until <= now)
		return until;
	if (kept > last)
		kept = last;
	return kept > until ? kept : until;
}

uint64_t lifetime_bounded(const struct lifetimes *lifetimes, uint64_t shown, uint64_t until)
{
	uint64_t last = limit(lifetimes, shown);

	return until < last ? until : last;
}

bool lifetime_is_to_recheck(const struct lifetimes *lifetimes, uint64_t shown, uint64_t now)
{
	return now >= shown + lifetimes->max_age * UINT64_C(500);
}

uint64_t lifetime_period(const struct lifetimes *lifetimes)
{
	/* A shorter grace ends leases in use between two looks; for the others there is max_age, and the new answer before it. */
	uint64_t period = lifetimes->grace < lifetimes->max_age ? lifetimes->grace * UINT64_C(500) : UINT64_MAX;

	if (period > lifetimes->max_age * UINT64_C(125))
		period = lifetimes->max_age * UINT64_C(125);
	if (period < LIFETIME_PERIOD_MIN_MS)
		return LIFETIME_PERIOD_MIN_MS;
	return period < LIFETIME_PERIOD_MAX_MS ? period : LIFETIME_PERIOD_MAX_MS;
}
