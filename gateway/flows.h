/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_FLOWS_H
#define SLUICE_GATEWAY_FLOWS_H

/*
 * Flows as conntrack knows them: ended (flows.c), or heard of when they begin (flows_watch.c). The only users of libnetfilter_conntrack.
 */

#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "common/policy.h"
#include "gateway/openings.h"

/**
 * flows_end_audited() - Remove the conntrack entries of flows that audit mode let in, except from networks in audit mode at @now
 * @mark:	conntrack mark that says so
 *
 * Their next packet is then a new flow, judged by the rules of today.
 *
 * Return: how many were ended, or -errno.
 */
ssize_t flows_end_audited(const struct policy *policy, time_t now, uint32_t mark);

/**
 * flows_end_closed() - Remove the conntrack entries of flows that came in, unless they lead through one of these openings
 * @mark:	conntrack mark of flows that came in
 * Return: how many were ended, or -errno.
 */
ssize_t flows_end_closed(const struct openings *openings, uint32_t mark);

/* A flow that came in. */
struct inbound_flow {
	uint8_t protocol;
	struct address client, target; /* target: the container */
	uint16_t client_port, port;    /* port: of the uplink, where the client sent it */
	uint16_t target_port;
};

struct flows_watch; /* flows_watch.c */

typedef void (*flows_seen)(void *context, const struct inbound_flow *flow);

/**
 * flows_watch_open() - Hear of new flows with this conntrack mark
 *
 * Events are sent while nobody waits for them, and lost when too many have not been read: they are for lines in the log, not for counting.
 * Needs net.netfilter.nf_conntrack_events, which is on by default.
 *
 * Return: 0 or -errno.
 */
int flows_watch_open(uint32_t mark, flows_seen seen, void *context, struct flows_watch **out);
/** flows_watch_fd() - Readable when there is something to read. */
int flows_watch_fd(const struct flows_watch *watch);
/** flows_watch_read() - Call seen() for at most @max events. Return: how many were read. */
unsigned int flows_watch_read(struct flows_watch *watch, unsigned int max);
void flows_watch_close(struct flows_watch *watch);

#endif
