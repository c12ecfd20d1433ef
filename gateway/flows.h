/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_FLOWS_H
#define SLUICE_GATEWAY_FLOWS_H

/*
 * Flows as conntrack knows them: looking at all of them, and ending some. With flows_watch.h the only user of libnetfilter_conntrack.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "gateway/classify.h"
#include "gateway/report/decision.h"

/* How long conntrack remembers a flow after its last packet: by which of its timeouts. */
enum flow_timeout {
	FLOW_TIMEOUT_OTHER, /* none that could be told from outside */
	FLOW_TIMEOUT_UDP,
	FLOW_TIMEOUT_UDP_STREAM,
	FLOW_TIMEOUT_LAST_ACK,
	FLOW_TIMEOUT_TIME_WAIT,
	FLOW_TIMEOUT_CLOSE,
};
#define FLOW_TIMEOUTS 6

/* One flow of TCP or UDP, in the direction of its first packet. */
struct tracked_flow {
	struct flow flow;
	struct address target; /* where it was brought: who replies */
	uint16_t target_port;
	uint32_t mark;
	uint32_t id;               /* conntrack's own; another flow may have it later */
	struct traffic traffic;    /* zeros where net.netfilter.nf_conntrack_acct is 0 */
	uint64_t started, stopped; /* ms of the wall clock; 0: not known, since net.netfilter.nf_conntrack_timestamp is 0; or not yet */
	enum flow_timeout timeout;
	uint32_t remaining; /* seconds of it that are left */
	bool translated;    /* its destination was changed on the way: a question brought to the forwarder, say */
	bool over;          /* both ends have closed the connection, or one has reset it; conntrack remembers it for a while */
};

struct flows; /* flows.c */

/** flows_new() - Return: NULL when out of memory. */
struct flows *flows_new(uv_loop_t *loop);
/** flows_close() - Without a word to whoever waits for the end of a look. Memory goes when the loop has run the close callback. */
void flows_close(struct flows *flows);

/* Look at one flow. Return: true to end it: its next packet is a new flow then, judged by the rules of that moment. */
typedef bool (*flows_visit)(void *context, const struct tracked_flow *flow);
/* The look is over. @error: 0, or -errno: not all flows were seen, or could be ended. @ended: how many were. */
typedef void (*flows_done)(void *context, int error, size_t ended);

/**
 * flows_look() - Go through all flows, some of them in each turn of the loop
 *
 * conntrack may have a quarter of a million entries: reading them all at once would keep questions waiting. Flows that begin meanwhile may
 * be missed. Those that are to be ended are ended when all have been seen.
 *
 * Return: 0: @done will be called, or -errno: it will not be. -EALREADY: a look is under way.
 */
int flows_look(struct flows *flows, flows_visit visit, flows_done done, void *context);

/** flows_parse() - An entry as its attributes (of a message, or in NFQA_CT). Return: false when it is no flow of TCP or UDP. */
bool flows_parse(const void *attributes, size_t size, struct tracked_flow *out);

/** flows_parse_message() - The same for a message of ctnetlink. */
struct nlmsghdr;
bool flows_parse_message(const struct nlmsghdr *message, struct tracked_flow *out);

#endif
