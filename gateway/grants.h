/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_GRANTS_H
#define SLUICE_GATEWAY_GRANTS_H

/*
 * Grants: leases -> elements of the kernel's name sets, acknowledged. The only writer of name sets while no reload runs.
 */

#include "common/lease.h"
#include "common/policy.h"
#include "gateway/ruleset.h"
#include "resolver/resolver.h"

#define GRANTS_TICK_MS 250 /* leases last as if their answers came at the end of the tick that these fall into */

struct grants {
	struct ruleset *ruleset;
	struct lease_table *leases;
	uint64_t written, failed; /* elements, calls of grants_write() */
	int error;                /* -errno of the latest that failed */
	uint64_t doubted;         /* ms: the end of the tick in which something failed: the kernel may lack what the table has */
	bool unsure;              /* since the sets were compared with the leases, something failed */
	struct lease *changed;    /* owned: what the latest grants_write() has changed; their chains are the grants' */
	bool *made;               /* owned: of these, the leases that are new */
	size_t changed_count, changed_max;
};

void grants_free(struct grants *grants);

/** grants_lease() - The lease that a grant gives; its chain is the grant's. */
struct lease grants_lease(const struct grant *grant, uint64_t now);

/**
 * grants_extend() - Put the addresses of leases, whose end in the table has moved, into the sets anew, in one transaction
 * Return: 0 or -errno.
 */
int grants_extend(struct grants *grants, const struct policy *policy, const struct lease *leases, size_t count, uint64_t now);

/**
 * grants_write() - Remember the leases and put their addresses into the sets, in one transaction
 * @now:	ms, the leases' clock
 *
 * An element lives as long as its longest lease; it is never shortened. Returns only when the kernel has acknowledged. What the table has
 * already, the kernel has as well, and is not written: grants->changed tells what was.
 * Return: 0, or -errno: nothing was written (leases that were new are forgotten again).
 */
int grants_write(struct grants *grants, const struct policy *policy, const struct grant *list, size_t count, uint64_t now);

#endif
