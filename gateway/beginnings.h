/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_BEGINNINGS_H
#define SLUICE_GATEWAY_BEGINNINGS_H

/*
 * When flows began, by conntrack's id: how long they lasted is known at their end without the kernel's own timestamps. A table of fixed
 * size (2.25 MiB, of which nothing is in memory before it is used); nothing is allocated for a flow.
 *
 * Conntrack forgets a flow late: after a timeout, and then when it comes to it. So a look at a flow while it waits there is kept as well:
 * a flow that had no packet since was over by then. All times are ms of one clock.
 */

#include <stddef.h>
#include <stdint.h>

#define BEGINNINGS_MAX 65536 /* flows that are remembered; the oldest make room, and then nobody knows how long they lasted */

struct beginnings; /* beginnings.c */

/** beginnings_new() - Return: NULL when out of memory. */
struct beginnings *beginnings_new(void);
void beginnings_free(struct beginnings *beginnings);

/** beginnings_add() - A flow begins. An older one of the same id is forgotten: nobody has heard of its end. */
void beginnings_add(struct beginnings *beginnings, uint32_t id, uint64_t now);

/**
 * beginnings_look() - A flow is still there; nothing happens when it is not known
 * @packets:	that it has had; 0: they are not counted, and the look is of no use
 * @last:	when the last of them came, at the latest
 */
void beginnings_look(struct beginnings *beginnings, uint32_t id, uint64_t packets, uint64_t last);

/**
 * beginnings_take() - A flow is over; it is forgotten
 * @packets, @last:	as above, all in all
 *
 * Return: how long it lasted, from its first packet to its last one, or -1: not known.
 */
int64_t beginnings_take(struct beginnings *beginnings, uint32_t id, uint64_t packets, uint64_t last);

/** beginnings_count() - How many flows are remembered. */
size_t beginnings_count(const struct beginnings *beginnings);

#endif
