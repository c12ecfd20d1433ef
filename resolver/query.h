/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_RESOLVER_QUERY_H
#define SLUICE_RESOLVER_QUERY_H

/*
 * Queries: one struct query for every question, from the listener to the reply. Used by resolver.c, which owns struct queries.
 *
 * query.c is the flow, query_pool.c the memory and the lists, query_reply.c grants and replies.
 */

#include "common/hash.h"
#include "resolver/cache.h"
#include "resolver/judge.h"
#include "resolver/listener.h"
#include "resolver/new_names.h"
#include "resolver/resolver.h"
#include "resolver/shares.h"
#include "resolver/upstream.h"

#define QUERIES_MAX                 16384 /* questions in progress; more: SERVFAIL at once. A network: no more than are free; a source: shares.h */
#define QUERIES_NETWORK_MAX         8192 /* of them from one network */
#define QUERY_FORWARDED_NETWORK_MAX 2048 /* look-ups that one network's questions may have started; likewise */
#define QUERY_CHASE_MAX             8    /* further look-ups that CNAMEs lead to */
#define QUERY_DEADLINE_MS           3000 /* SERVFAIL after this; longer than UPSTREAM_DEADLINE_MS, so that it only ends chases */
#define QUERY_GRANTS_MAX            64   /* grants in one transaction, unless one answer alone has more */

/*
 * The life of a query. query_move() is the only way from one state to the next.
 *
 *	RECEIVED -> JUDGED -> ANSWERED -> GRANTING -> REPLIED
 *	             |  ^       ^
 *	             v  |       |
 *	           FORWARDED ---+
 *
 * A query can be released, without a reply, in any state: its network or its listener is gone.
 */
enum query_state {
	QUERY_RECEIVED,  /* parsed; nothing is decided */
	QUERY_JUDGED,    /* the policy has spoken; again after each wait, because it may be another one by then */
	QUERY_FORWARDED, /* waits for an upstream; holds no pointer into the policy */
	QUERY_ANSWERED,  /* the reply is built and waits, with its grants, for the end of the loop turn */
	QUERY_GRANTING,  /* its grants, if any, are being written */
	QUERY_REPLIED,   /* given to the listener: at its end */
	QUERY_STATE_COUNT,
};

/* What was reported of a query: it gets one line, unless audit mode let it through and a change of policy denies it. */
enum query_logged { LOGGED_NOTHING, LOGGED_AUDIT, LOGGED_DENIAL };

struct query_wait;

struct query {
	enum query_state state;
	struct client client;
	struct question question;
	uint64_t started;    /* ms */
	unsigned int chased; /* look-ups after the first */
	enum query_logged logged;
	bool own;                 /* asked by the gateway itself: it has no client, and nothing is logged */
	bool refreshes;           /* own: leases last no longer by the answer */
	resolver_checked checked; /* own: whom to tell of its end, or NULL */
	void *checked_context;
	struct answer *chain;      /* owned: what earlier look-ups of a chase gave */
	struct query_wait *wait;   /* FORWARDED: the look-up it waits for ... */
	struct shares_place place; /* ... and where that is counted */
	/* ANSWERED: */
	uint8_t *wire; /* owned: the reply */
	size_t wire_size;
	struct shown_address *shown; /* owned: to be granted before the reply leaves */
	size_t shown_count;
	uint8_t *names; /* owned: of the CNAME chain that led to them, as struct answer_verdict has them */
	size_t names_length;
	bool audited;
	uint64_t specs;
	struct query *prev, *next;             /* all queries in progress, oldest first; or the free ones */
	struct query *queue_prev, *queue_next; /* those that wait for the same look-up, or the ready ones */
};

/* One look-up and the queries that wait for it. */
struct query_wait {
	struct cache_key key;
	uint16_t network;          /* whose question started it ... */
	bool counted;              /* ... and it was one of an app, */
	struct shares_place place; /* of this one */
	struct query *queries;
	UT_hash_handle hh;
};

struct query_block; /* query_pool.c: memory for many */

struct queries {
	uv_loop_t *loop;
	const struct policy *policy;
	const struct resolver_host *host;
	struct resolver_counters *counters;
	struct cache *cache;
	struct upstream *upstream;
	struct new_names *new_names; /* owned */
	struct query_block *blocks;  /* owned */
	struct query *free;
	struct query *active;     /* oldest first */
	struct query *ready;      /* ANSWERED, in the order they became so */
	struct query_wait *waits; /* owned; by key */
	unsigned int active_count;
	uint16_t *active_of, *forwarded_of; /* owned; by network id */
	struct shares *waiting, *started;   /* owned; sources' questions that wait, and the look-ups they started */
	struct grant *grants;               /* owned; room for grants_max */
	size_t grants_max;
};

/* query.c */

/** query_receive() - A message has come in (listener_receive; @context: struct queries). */
void query_receive(void *context, const struct client *client, const uint8_t *wire, size_t size);
/** query_check() - A question of the gateway itself, as resolver_check(); @refreshes: as resolver_refresh(). */
int query_check(struct queries *queries, uint16_t network, const struct domain *name, uint16_t type, bool refreshes, resolver_checked done,
		void *context);
/** query_looked_up() - A look-up has ended (upstream_done; @context: struct queries). Owns @answer. */
void query_looked_up(void *context, const struct cache_key *key, struct answer *answer);
/** query_upstream_says() - There is something to be said about a server (upstream_say; @context: struct queries). */
void query_upstream_says(void *context, bool trouble, const char *text);
/**
 * query_judge_again() - The policy has changed: judge all queries that wait for an upstream again
 * @elsewhere:	upstreams differ too: look-ups are not waited for any longer, but begin anew
 */
void query_judge_again(struct queries *queries, bool elsewhere);
/** query_expire() - SERVFAIL for what waits longer than QUERY_DEADLINE_MS. Return: ms until the next one may be due, 0: none waits. */
uint64_t query_expire(struct queries *queries);

/* query_pool.c */

int query_pool_open(struct queries *queries);
/** query_pool_close() - Release all memory; clients get no reply. */
void query_pool_close(struct queries *queries);
/** query_new() - A query in state RECEIVED. Return: NULL when there are too many. */
struct query *query_new(struct queries *queries, const struct client *client, const struct question *question);
/** query_release() - The end of a query in any state; its client gets no reply unless it had one. */
void query_release(struct queries *queries, struct query *query);
/** query_move() - Change the state; a step that the picture above does not have ends the process. */
void query_move(struct query *query, enum query_state state);
/**
 * query_wait_join() - Let a JUDGED query wait for the look-up of a key: FORWARDED
 * @first:	set when nobody waited for it before: it has to be started
 * Return: 0, -EBUSY: its source or network has too many, -ENOMEM.
 */
int query_wait_join(struct queries *queries, struct query *query, const struct cache_key *key, bool *first);
/**
 * query_wait_begin() - A look-up that nobody waits for yet, to be started: it can be joined, and cancelled
 * @network:	whose question led to it
 * Return: 0, -EALREADY: one is under way, -EBUSY or -ENOMEM as above.
 */
int query_wait_begin(struct queries *queries, uint16_t network, const struct cache_key *key);
/** query_wait_leave() - Take a query out of the look-up it waits for, if any. The look-up goes on. */
void query_wait_leave(struct queries *queries, struct query *query);
/** query_wait_end() - A look-up has ended. Return: the queries that waited (list by queue_next), no longer waiting. */
struct query *query_wait_end(struct queries *queries, const struct cache_key *key);
/** query_wait_cancel() - Cancel all look-ups that no query waits for. */
void query_wait_cancel(struct queries *queries);
/** query_forget_listener() - Release all queries of a listener that is being closed, and cancel their look-ups. */
void query_forget_listener(struct queries *queries, const void *listener);

/* query_map.c */

/**
 * query_map() - What an answer shows to a network with virtual addresses becomes virtual: the records of its reply, and what is granted
 * @stale:	the answer is past its end
 * Return: 0; or -errno: it may not be shown.
 */
int query_map(const struct queries *queries, const struct query *query, const struct network *network, struct answer_verdict *verdict,
	      bool stale);

/* query_reply.c */

/** query_reply_code() - The reply is a code without records: ANSWERED. */
void query_reply_code(struct queries *queries, struct query *query, int rcode, int ede);
/** query_reply_records() - The reply is @answer (not taken over): ANSWERED. Return: false when it is cut off: nothing may be granted. */
bool query_reply_records(struct queries *queries, struct query *query, const struct answer *answer, int rcode, int ede);
/** query_reply_at_once() - A code for a question that got no query. */
void query_reply_at_once(const struct client *client, const struct question *question, int rcode);
/** query_reply_all() - Grant for all ready queries, then reply to them. */
void query_reply_all(struct queries *queries);

#endif
