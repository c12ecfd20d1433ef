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

/* One flow of TCP or UDP, in the direction of its first packet. */
struct tracked_flow {
	struct flow flow;
	struct address target; /* where it was brought: who replies */
	uint16_t target_port;
	uint32_t mark;
	bool translated; /* its destination was changed on the way: a question brought to the forwarder, say */
	bool over;       /* both ends have closed the connection, or one has reset it; conntrack remembers it for a while */
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

/** flows_read() - Between flows*.c: an entry as conntrack tells it. Return: false when it is no flow of TCP or UDP. */
struct nf_conntrack;
bool flows_read(const struct nf_conntrack *entry, struct tracked_flow *out);

#endif
