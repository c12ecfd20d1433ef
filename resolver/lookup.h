/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_RESOLVER_LOOKUP_H
#define SLUICE_RESOLVER_LOOKUP_H

/*
 * Look-ups of the gateway itself: addresses of a name, without a network, its policy, or a grant. Used by resolver.c, which owns struct
 * lookups; resolver.h says what the functions mean.
 */

#include "resolver/query.h"

#define LOOKUPS_MAX      16 /* under way */
#define LOOKUP_CHASE_MAX 8  /* further questions that CNAMEs lead to */

struct lookup_own; /* lookup.c */

struct lookups {
	const struct queries *queries; /* whose cache and upstream are used */
	struct lookup_own *list;       /* owned; the first deadline first */
	unsigned int count;
	uv_timer_t timer;
};

/** lookups_open() / lookups_close() - One handle, with this data for its close callback. Look-ups under way are forgotten by closing. */
void lookups_open(struct lookups *lookups, uv_loop_t *loop, const struct queries *queries, void *data);
void lookups_close(struct lookups *lookups, uv_close_cb closed);

int lookups_ask(struct lookups *lookups, const struct domain *name, uint16_t type, resolver_found found, void *context);
void lookups_cancel(struct lookups *lookups, const void *context);

/** lookups_answered() - An upstream has answered, or not (NULL). @answer stays the caller's. */
void lookups_answered(struct lookups *lookups, const struct cache_key *key, const struct answer *answer);

/** lookups_again() - The upstreams are other ones: begin anew. */
void lookups_again(struct lookups *lookups);

#endif
