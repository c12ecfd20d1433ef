/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_RESOLVER_UPSTREAM_H
#define SLUICE_RESOLVER_UPSTREAM_H

/*
 * Asking upstreams: choose a server, send with a fresh id, port and letter case, retry, fail over, take TCP after TC, match the
 * reply. Over TLS where the policy says so. Equal lookups in flight are joined by the caller's key (struct cache_key).
 */

#include <uv.h>

#include "common/policy.h"
#include "resolver/cache.h"
#include "resolver/message.h"

#define UPSTREAM_SOCKETS     256    /* open random-port sockets per family */
#define UPSTREAM_LOOKUPS_MAX 4096   /* lookups in flight; more: SERVFAIL at once */
#define UPSTREAM_RETRY_MS    700    /* first retry, on the next server if there is one */
#define UPSTREAM_DEADLINE_MS 2800   /* SERVFAIL after this; Docker's resolver gives up after 4 s */
#define UPSTREAM_FOLDED_MAX  2      /* tries of a lookup whose answers did not keep the letters' case; then it is asked without 0x20 */
#define UPSTREAM_PLAIN_MS    600000 /* for how long a server that answered only then is asked without 0x20 */
#define UPSTREAM_SOCKET_USES 2048   /* queries after which a socket is replaced by one with another port */

#define UPSTREAM_TCP_MAX  64   /* TCP connections to servers at once */
#define UPSTREAM_PROBE_MS 2000 /* how often a server that did not answer is asked again, beside another one */

struct upstream; /* upstream.c */

struct upstream_counters {
	uint64_t sent;     /* queries over UDP */
	uint64_t tcp;      /* queries over TCP */
	uint64_t tls;      /* queries over TLS */
	uint64_t dots;     /* TLS connections that were made */
	uint64_t resumed;  /* of these: with the session of an earlier one */
	uint64_t timeouts; /* tries without an answer in UPSTREAM_RETRY_MS */
	uint64_t folded;   /* of the ignored ones: answers that would have counted, had they kept the letters' case */
	uint64_t ignored;  /* datagrams that answered nothing we had asked: late, broken or forged */
};

/*
 * upstream_done - A lookup has ended
 * @answer:	owned by the receiver, NULL: no server answered in time or all answers were unusable
 */
typedef void (*upstream_done)(void *context, const struct cache_key *key, struct answer *answer);

/*
 * upstream_say - Something that people should know of a server with TLS, once until it changes
 * @trouble:	false: it is over
 */
typedef void (*upstream_say)(void *context, bool trouble, const char *text);

/**
 * upstream_new() - An upstream without servers
 * @done:	called once per lookup, never from inside upstream_ask()
 * @say:	may be NULL
 * Return: NULL when out of memory.
 */
struct upstream *upstream_new(uv_loop_t *loop, upstream_done done, upstream_say say, void *context);

/** upstream_close() - End all lookups without calling back and close all handles; memory goes when the loop has run their close callbacks.
 */
void upstream_close(struct upstream *upstream);

/**
 * upstream_set_groups() - Take over the servers of a policy (copied)
 *
 * Certificate authorities are loaded here, once for all connections. Lookups in flight are given up, without calling back: the caller
 * begins them anew. Return: 0 or -ENOMEM: nothing has changed.
 */
int upstream_set_groups(struct upstream *upstream, const struct policy *policy);

/**
 * upstream_ask() - Look a key up at the upstream group it names
 *
 * The query leaves with upstream_flush(). When the same key is already in flight nothing is sent: one `done` serves all. Return: 0, -EBUSY
 * (too many lookups), -ENOENT (no such group or no server), or another -errno.
 */
int upstream_ask(struct upstream *upstream, const struct cache_key *key);

/** upstream_cancel() - Give a lookup up, if there is one: nothing more is sent for it, and `done` is not called. */
void upstream_cancel(struct upstream *upstream, const struct cache_key *key);

/** upstream_flush() - Send what is to be asked over UDP: before the loop may wait, or it waits with it. Ends no lookup. */
void upstream_flush(struct upstream *upstream);

/** upstream_receive() - Take what has come over UDP, without waiting for the loop. */
void upstream_receive(struct upstream *upstream);

size_t upstream_in_flight(const struct upstream *upstream);
const struct upstream_counters *upstream_counters(const struct upstream *upstream);

#endif
