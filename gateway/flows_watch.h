/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_FLOWS_WATCH_H
#define SLUICE_GATEWAY_FLOWS_WATCH_H

/*
 * Flows that begin and end, as conntrack tells of them. Events are sent while nobody waits for them, and lost when too many have not been
 * read: whoever needs to know how many flows there were reads a counter. Needs net.netfilter.nf_conntrack_events, which is on by default.
 */

#include <stdint.h>
#include <uv.h>

#include "gateway/flows.h"

#define FLOWS_WATCH_MARKS_MAX 5

struct flows_watch; /* flows_watch.c */

enum flow_event { FLOW_BEGAN, FLOW_ENDED };

/* Which flows somebody wants to hear of. */
struct flows_watch_options {
	uint32_t marks[FLOWS_WATCH_MARKS_MAX]; /* conntrack marks, to the first 0 */
	bool ends;                             /* of their ends, too */
	int buffer;                            /* octets, of the socket; the kernel gives what it may */
};

/*
 * @duration: ms from the first to the last packet of a flow that ended, or -1: not known, as its beginning was not heard of. Of a TCP
 * connection that did not end as one should it goes on until conntrack has forgotten it.
 */
typedef void (*flows_seen)(void *context, enum flow_event event, const struct tracked_flow *flow, int64_t duration);

/** flows_watch_open() - Hear of flows from the loop. Return: 0 or -errno. */
int flows_watch_open(uv_loop_t *loop, const struct flows_watch_options *options, flows_seen seen, void *context, struct flows_watch **out);
/**
 * flows_watch_settle() - Call seen() now for what is there
 * @all:	for all of it, which may take a good part of a second; otherwise for as much as a turn of the loop may take
 * Return: nothing that was there at the call before is waiting any more.
 */
bool flows_watch_settle(struct flows_watch *watch, bool all);
/** flows_watch_look() - A look (flows.h) has come to this flow: its duration will be told better. */
void flows_watch_look(struct flows_watch *watch, const struct tracked_flow *flow);
/** flows_watch_close() - Memory goes when the loop has run the close callback. */
void flows_watch_close(struct flows_watch *watch);

#endif
