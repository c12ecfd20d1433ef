/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_INBOUND_H
#define SLUICE_GATEWAY_INBOUND_H

/*
 * Flows that came in to published ports, in the log: a line each, and a sum of what has none.
 */

#include <uv.h>

#include "common/log.h"
#include "common/policy.h"
#include "gateway/openings.h"
#include "gateway/report/reports.h"
#include "gateway/ruleset.h"

struct inbound; /* inbound.c */

/**
 * inbound_new() - @memory: a descriptor of memory.h: what the worker before has told, and this one for the next; -1: none
 * @openings:	what is open at each moment; stays the caller's
 * Return: NULL when out of memory.
 */
struct inbound *inbound_new(uv_loop_t *loop, struct log *log, struct reports *reports, const struct openings *openings, int memory);

/** inbound_close() - Afterwards log and reports are not used any more. Memory goes when the loop has run the close callbacks. */
void inbound_close(struct inbound *inbound);

/**
 * inbound_set_policy() - This is the running policy, until the next call; events are asked for while it publishes anything
 * Return: 0 or -errno: flows are only counted.
 */
int inbound_set_policy(struct inbound *inbound, const struct policy *policy);

/**
 * inbound_count() - Read the kernel's counters and write a summary of what has no line
 * @last:	there will be no other call: nothing may be left for it
 *
 * What came since the call before may still get its line, and waits for the next one. Return: 0 or -errno.
 */
int inbound_count(struct inbound *inbound, struct ruleset *ruleset, bool last);

#endif
