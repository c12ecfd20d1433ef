/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_APPS_H
#define SLUICE_GATEWAY_APPS_H

/*
 * Container names for the log: PTR questions to Docker's resolver at 127.0.0.11, only for IPv4 addresses inside the network's own subnet
 * (an IPv6 source is mapped through its neighbour's MAC by the caller): anything else would let an app choose names that Docker forwards
 * upstream; bounded, cached, never waited for by a verdict.
 */

#include <uv.h>

#include "common/address.h"

#define APPS_CACHE_MAX     4096  /* addresses */
#define APPS_CACHE_MS      60000 /* a name is asked again after this */
#define APPS_CACHE_NONE_MS 5000  /* and so is an address without a name */
#define APPS_ASKING_MAX    256   /* questions under way; more: no name */
#define APPS_PAUSE_MS      30000 /* nobody is asked for so long after two questions in a row without an answer */
#define APPS_TIMEOUT_MS    300   /* no answer: no name */
#define APPS_NAME_MAX      64    /* characters, first label of the PTR: container names; longer ones are cut */

struct apps;

/** apps_new() - Return: NULL when out of memory. */
struct apps *apps_new(uv_loop_t *loop);
void apps_close(struct apps *apps);

/*
 * apps_lookup() - The name of a container, now or soon
 * @subnet:	the network's IPv4 subnet; for an address outside it nobody is asked
 * @done:	called exactly once with the name, or "" when there is none: at once when it is cached or nobody can be asked, else within
 *		APPS_TIMEOUT_MS; on apps_close() with ""
 */
typedef void (*apps_done)(void *context, const char *name);
void apps_lookup(struct apps *apps, const struct prefix *subnet, const struct address *address, apps_done done, void *context);

#endif
