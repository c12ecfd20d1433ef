/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_ALLOWED_H
#define SLUICE_GATEWAY_REPORT_ALLOWED_H

/*
 * Flows that the policy let out: told when they begin, and with what they carried when they are over. So are the ends of flows that audit
 * mode let out; their beginnings are told by denials.h.
 */

#include <stdbool.h>
#include <uv.h>

#include "common/lease.h"
#include "common/log.h"
#include "common/mapping.h"
#include "common/policy.h"
#include "gateway/flows.h"
#include "gateway/interfaces.h"
#include "gateway/report/named.h"
#include "gateway/report/reports.h"
#include "gateway/ruleset.h"

#define ALLOWED_SUMMARY_MS 60000 /* how often `log_allowed = summary` tells */

struct allowed; /* allowed.c */

/* What is needed to tell of a flow; all of it stays the caller's. */
struct allowed_options {
	struct log *log;
	struct reports *reports;
	struct named *named;
	const struct interfaces *interfaces;
	const struct lease_table *leases;
	const struct mapping_table *mappings;
	int heard, logged; /* descriptors of memory.h: how many flows were told of, and how many of them in the log; -1: none */
};

/** allowed_new() - Return: NULL when out of memory. */
struct allowed *allowed_new(uv_loop_t *loop, const struct allowed_options *options);

/**
 * allowed_close() - Afterwards nothing of the options is used any more; named_close() was called before
 *
 * Memory goes when the loop has run the close callbacks.
 */
void allowed_close(struct allowed *allowed);

/** allowed_set_policy() - This is the running policy, until the next call. Return: 0 or -errno: flows are only counted. */
int allowed_set_policy(struct allowed *allowed, const struct policy *policy);

/**
 * allowed_count() - Read the kernel's counters and tell in sums what was not told one by one
 * @last:	there will be no other call, and no flow has its line after it: nothing may be left for it
 *
 * What came since the call before may still get its line, and waits for the next one. Return: 0 or -errno.
 */
int allowed_count(struct allowed *allowed, struct ruleset *ruleset, bool last);

/**
 * allowed_let_out() - A flow of @network (NULL: it has just gone) whose name was read first may go on
 * @flow:	as the app has it, or by where a virtual address leads
 * @name:	that it has asked for, and the policy allows; of length 0 or NULL: none, it is told by the name of the address
 *
 * Once for each flow, when the kernel is told.
 */
void allowed_let_out(struct allowed *allowed, const struct network *network, const struct flow *flow, const struct domain *name);

/** allowed_asked_for() - The name that an open flow was let out for, where `verify` has read it. Return: false: not known. */
bool allowed_asked_for(struct allowed *allowed, const struct network *network, const struct flow *flow, struct domain *name);

/**
 * allowed_see() - A look at all flows (upkeep.h) has come to this one, of @network
 *
 * For the statistics, and for how long it lasted. Other marks are passed over.
 */
void allowed_see(struct allowed *allowed, const struct network *network, const struct tracked_flow *flow);

#endif
