/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_COUNTERS_H
#define SLUICE_GATEWAY_COUNTERS_H

/*
 * What the kernel refused or dropped on its own: named counters, and per network the counter of every source. Read by a timer; each reading
 * reports only what came since the last one.
 *
 * REASON_REPEATED stands for all that did not go through the queue: refused above the rate or as a repeat, and, in audit mode, let in above
 * the rate (without a source). REASON_ISOLATED: from an interface that is neither a network nor the uplink. What comes uninvited from the
 * uplink, and what the gateway itself may not send, is no app's denial: it has counters in the table, but is not reported.
 */

#include "common/log.h"
#include "common/policy.h"
#include "gateway/ruleset.h"

struct counters; /* counters.c: the last readings */

struct counters *counters_new(void);
void counters_free(struct counters *counters);

/*
 * One difference since the last reading. @network: POLICY_NETWORK_NONE for the uplink's side; @source: NULL when it is not attributed to
 * one.
 */
typedef void (*counters_report)(void *context, uint16_t network, const struct address *source, enum reason reason, uint64_t packets);

/**
 * counters_read() - Read all counters and report the differences
 *
 * The first reading after start reports what came while we were away.
 *
 * Return: 0 or -errno.
 */
int counters_read(struct counters *counters, struct ruleset *ruleset, const struct policy *policy, counters_report report, void *context);

/**
 * counters_save() - Keep the readings for the worker after this one, if they have changed since
 * @memory:	a descriptor of memory.h
 * Return: 0 or -errno.
 */
int counters_save(struct counters *counters, int memory);

/**
 * counters_restore() - Take over the readings of the worker before; for counters without any
 *
 * The table of the kernel outlives workers, and what one has reported is not to be reported by the next. Return: 0 or -errno; damaged
 * readings are not taken over, which reports packets again rather than not at all.
 */
int counters_restore(struct counters *counters, int memory);

#endif
