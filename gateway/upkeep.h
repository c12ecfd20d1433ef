/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_UPKEEP_H
#define SLUICE_GATEWAY_UPKEEP_H

/*
 * Upkeep of leases while apps use them, and of flows when the policy changes. Every while all flows are looked at: leases of addresses that
 * have flows are extended (lifetime.h), their names are asked for again before max_age is over, and after a change of policy flows that are
 * no longer allowed are ended. Flows that came in are ended whenever their port is not open any more.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "common/lease.h"
#include "gateway/flows.h"

#define UPKEEP_EXTEND_MAX  256 /* leases of one transaction */
#define UPKEEP_RECHECK_MAX 64  /* names asked for again in one look; the others are when the next one finds them */

#define UPKEEP_WANTED_MS 2000

struct gateway;

struct upkeep {
	struct flows *flows;                      /* owned */
	uv_timer_t timer;                         /* the next look */
	uint64_t period;                          /* ms between looks */
	uint64_t now;                             /* ms: when the look under way began */
	bool end_wanted;                          /* the policy has changed since the last look began */
	bool openings_wanted;                     /* openings have changed since the last look began */
	bool ending;                              /* the look under way ends what is not allowed */
	size_t rechecks;                          /* of the look under way */
	struct lease extended[UPKEEP_EXTEND_MAX]; /* their chains may not be used: lease_refresh() */
	size_t extended_count;
};

/** upkeep_open() - Begin, on the gateway's loop, as soon as a policy is running. Return: 0 or -errno. */
int upkeep_open(struct gateway *gateway);
void upkeep_close(struct gateway *gateway);

/**
 * upkeep_policy_applied() - The kernel has the rules of the running policy: look as often as it needs
 * @other:	it is another one than before: flows that it does not allow are ended by the next look
 * @openings:	what may come in has changed
 * @now:	look in the next turn of the loop. That takes the kernel some milliseconds, in which questions wait; so not where no lease
 *and no rule for addresses has changed
 */
void upkeep_policy_applied(struct gateway *gateway, bool other, bool openings, bool now);

/** upkeep_look() - Look now, unless a look is under way. */
void upkeep_look(struct gateway *gateway);

/** upkeep_wanted() - Somebody asks what flows carry: look, unless the last look was less than UPKEEP_WANTED_MS ago. */
void upkeep_wanted(struct gateway *gateway);

#endif
