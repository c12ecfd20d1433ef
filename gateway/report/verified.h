/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_VERIFIED_H
#define SLUICE_GATEWAY_REPORT_VERIFIED_H

/*
 * What is known of open flows whose names `verify` reads, by their addresses and ports: conntrack tells of a flow's beginning and end by
 * nothing else. One table for each network, so that nobody else's flows can push a network's own ones out.
 *
 * It dies with the worker. Flows that it knew are told by the name of their address's lease then, as those without `verify` are.
 */

#include <stdbool.h>
#include <stddef.h>

#include "common/domain.h"
#include "gateway/classify.h"

#define VERIFIED_MAX 16384 /* flows of a table; beyond that the one that was put there first is forgotten */

struct verified; /* verified.c */

/** verified_new() - Return: NULL when out of memory. */
struct verified *verified_new(void);
void verified_free(struct verified *verified);

/* What is known of a flow. */
struct verified_flow {
	struct domain name;         /* that it has asked for, and may; length 0: none */
	struct address destination; /* as the app has it; family 0: not known */
};

/** verified_put() - Know this of a flow, whatever was known of one with its addresses and ports. No memory: it is not kept. */
void verified_put(struct verified *verified, const struct flow *flow, const struct verified_flow *known);

/** verified_find() - Return: false, and @out all zero: nothing is known. */
bool verified_find(const struct verified *verified, const struct flow *flow, struct verified_flow *out);

/** verified_forget() - Nothing happens when the flow is not known. */
void verified_forget(struct verified *verified, const struct flow *flow);

/** verified_count() - How many flows are known. */
size_t verified_count(const struct verified *verified);

#endif
