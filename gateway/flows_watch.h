/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_FLOWS_WATCH_H
#define SLUICE_GATEWAY_FLOWS_WATCH_H

/*
 * New flows, as conntrack tells of them. Events are sent while nobody waits for them, and lost when too many have not been read: they are
 * for lines in the log, not for counting. Needs net.netfilter.nf_conntrack_events, which is on by default.
 */

#include <stdint.h>

#include "gateway/flows.h"

struct flows_watch; /* flows_watch.c */

typedef void (*flows_seen)(void *context, const struct tracked_flow *flow);

/** flows_watch_open() - Hear of new flows with this conntrack mark. Return: 0 or -errno. */
int flows_watch_open(uint32_t mark, flows_seen seen, void *context, struct flows_watch **out);
/** flows_watch_fd() - Readable when there is something to read. */
int flows_watch_fd(const struct flows_watch *watch);
/** flows_watch_read() - Call seen() for at most @max events. Return: how many were read. */
unsigned int flows_watch_read(struct flows_watch *watch, unsigned int max);
void flows_watch_close(struct flows_watch *watch);

#endif
