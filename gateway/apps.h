/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_APPS_H
#define SLUICE_GATEWAY_APPS_H

/*
 * Container names for the log: PTR questions to Docker's resolver at 127.0.0.11, only for IPv4 addresses inside the network's own subnet
 * (an IPv6 source is mapped through its neighbour's MAC by the caller): anything else would let an app choose names that Docker forwards
 * upstream; bounded, cached, never waited for by a verdict.
 *
 * Docker forwards the PTR of an address that no container has, and an app with CAP_NET_RAW can send from any address of its subnet: which
 * addresses it makes us ask about says something. So a question takes a token of its network, unless the address had a name when it was
 * last asked about: a network's containers are few, and they have names.
 */

#include <uv.h>

#include "common/address.h"

#define APPS_CACHE_MAX     4096  /* addresses */
#define APPS_CACHE_MS      60000 /* a name is asked again after this */
#define APPS_CACHE_NONE_MS 5000  /* and so is an address without a name */
#define APPS_ASKING_MAX    256   /* questions under way; more: no name */
#define APPS_NEW_BURST     64    /* questions about addresses without a known name, per network ... */
#define APPS_NEW_MS        3750  /* ... and then one after so many ms, 16 a minute */
#define APPS_NETWORKS_MAX  1024  /* networks whose questions are limited apart; more: no name */
#define APPS_SILENCE_MS    30000 /* nobody is asked for so long after two questions in a row without an answer ... */
#define APPS_REFUSED_MS    5000  /* ... and after the socket failed: nobody listens there, or not at the moment */
#define APPS_TIMEOUT_MS    300   /* no answer: no name */
#define APPS_NAME_MAX      64    /* characters, first label of the PTR: container names; longer ones are cut */

struct apps;

/* Where Docker's resolver is not as it should be: tests. Zero: the constant above. */
struct apps_options {
	uint16_t port;
	uint32_t refused_ms;
};

/** apps_new() - @options: copied. Return: NULL when out of memory. */
struct apps *apps_new(uv_loop_t *loop, const struct apps_options *options);
void apps_close(struct apps *apps);

/*
 * apps_lookup() - The name of a container, now or soon
 * @subnet:	the network's IPv4 subnet; for an address outside it nobody is asked. Tokens are counted by it.
 * @done:	called exactly once with the name, or "" when there is none: at once when it is cached or nobody can be asked, else within
 *		APPS_TIMEOUT_MS; on apps_close() with ""
 */
typedef void (*apps_done)(void *context, const char *name);
void apps_lookup(struct apps *apps, const struct prefix *subnet, const struct address *address, apps_done done, void *context);

/** apps_ready() - What apps_lookup() would call @done with before it returns, valid until the next call; NULL: somebody has to be asked. */
const char *apps_ready(const struct apps *apps, const struct prefix *subnet, const struct address *address);

/** apps_known() - What the name was when it was last asked for, be that long ago; "": it has none; NULL: it is not known. */
const char *apps_known(const struct apps *apps, const struct address *address);

#endif
