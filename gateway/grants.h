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

struct grants {
	struct ruleset *ruleset;
	struct lease_table *leases;
	uint64_t written, failed; /* elements, calls of grants_write() */
	int error;                /* -errno of the latest that failed */
};

/**
 * grants_write() - Remember the leases and put their addresses into the sets, in one transaction
 * @now:	ms, the leases' clock
 *
 * An element lives as long as its longest lease; it is never shortened. Returns only when the kernel has acknowledged.
 * Return: 0, or -errno: nothing was written (leases that were new are forgotten again).
 */
int grants_write(struct grants *grants, const struct policy *policy, const struct grant *list, size_t count, uint64_t now);

#endif
