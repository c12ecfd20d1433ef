/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_RESOLVER_UPSTREAM_INTERNAL_H
#define SLUICE_RESOLVER_UPSTREAM_INTERNAL_H

/* Data shared by upstream*.c, and by nobody else. upstream.c has the theory of operation. */

#include "resolver/upstream.h"

#include "common/hash.h"

#define UPSTREAM_QUERY_MAX    300 /* octets of a query as message_build_query() makes it */
#define UPSTREAM_TRIES_MAX    (4 * UPSTREAM_LOOKUPS_MAX)
#define UPSTREAM_RANDOM_BLOCK 1024

/* One open UDP socket with a random port. Memory goes in its close callback. */
struct upstream_socket {
	uv_poll_t poll;
	struct upstream *upstream;
	int fd;
	bool closing;
	uint64_t serial; /* never used again, unlike a pointer or a descriptor */
	unsigned int uses, in_flight;
};

struct socket_pool {
	int family;
	unsigned int open;
	struct upstream_socket *sockets[UPSTREAM_SOCKETS]; /* owned; the first `open` */
};

/* Family, port and address without padding. */
struct server_key {
	uint8_t octets[3 + 16];
};

/* What we know about a server, whichever groups it is in. */
struct server_health {
	struct server_key key;
	bool failed;          /* it left a try unanswered, and has not answered since */
	uint64_t answered;    /* ms */
	uint64_t probe_at;    /* ms; when failed: ask it again, beside another one */
	uint64_t plain_until; /* ms; it does not keep the letters' case; 0: it was never seen not to */
	UT_hash_handle hh;
};

struct upstream_group_servers {
	char name[POLICY_NAME_MAX + 1];
	struct upstream_server servers[POLICY_SERVERS_MAX];
	size_t count;
};

struct try_key {
	uint64_t socket; /* serial */
	uint64_t id;
};

/* One query that was sent over UDP. It outlives its lookup, until it is answered or too old: see upstream.c. */
struct upstream_try {
	struct try_key key;
	struct lookup *lookup; /* NULL: ended */
	struct upstream_socket *socket;
	struct upstream_server server;
	unsigned int index; /* of the server in its lookup */
	bool plain;         /* without 0x20 */
	bool folded;        /* answered in another letter case */
	uint64_t sent;      /* ms */
	size_t query_size;
	uint8_t query[UPSTREAM_QUERY_MAX];
	struct upstream_try *prev, *next;               /* all tries, oldest first */
	struct upstream_try *lookup_prev, *lookup_next; /* tries of one lookup */
	UT_hash_handle hh;
};

struct lookup {
	struct cache_key key;
	struct upstream_server servers[POLICY_SERVERS_MAX];
	unsigned int server_count;
	unsigned int current;  /* server asked last */
	unsigned int refused;  /* bit i: server i said that it will not or cannot answer */
	unsigned int folding;  /* bit i: server i answered in another letter case */
	unsigned int folded;   /* tries that were answered so */
	bool plain;            /* ask without 0x20 from now on */
	uint64_t started, due; /* ms */
	struct upstream_try *tries;
	struct upstream_tcp *tcp;           /* NULL: none */
	unsigned int tcp_index;             /* which server it asks */
	struct lookup *prev, *next;         /* all lookups, oldest first */
	struct lookup *due_prev, *due_next; /* all lookups, next retry first */
	UT_hash_handle hh;
};

struct upstream {
	uv_loop_t *loop;
	uv_timer_t timer;
	upstream_done done;
	void *context;
	bool closing;
	unsigned int open_handles;
	struct upstream_counters counters;
	struct upstream_group_servers *groups; /* owned */
	size_t group_count;
	struct server_health *health; /* owned */
	struct socket_pool pool4, pool6;
	uint64_t serial;
	struct lookup *by_key, *lookups, *due; /* owned; three views of the same */
	struct upstream_try *by_id, *tries;    /* owned; two views of the same */
	struct upstream_tcp *tcp;              /* owned */
	unsigned int tcp_count;
	size_t random_left;
	uint8_t random[UPSTREAM_RANDOM_BLOCK];
};

/* upstream.c */
int upstream_random(struct upstream *upstream, void *out, size_t size);
void upstream_handle_closed(struct upstream *upstream);
void upstream_received(struct upstream *upstream, struct upstream_socket *socket, const struct sockaddr *from, const uint8_t *wire,
		       size_t size);
void upstream_answered_tcp(struct lookup *lookup, struct upstream *upstream, unsigned int index, struct answer *answer);

/* upstream_servers.c */

/** upstream_servers_health() - Return: NULL for a server that no group has any more. */
struct server_health *upstream_servers_health(struct upstream *upstream, const struct upstream_server *server);
bool upstream_servers_failed(struct upstream *upstream, const struct upstream_server *server);
void upstream_servers_answered(struct upstream *upstream, const struct upstream_server *server);
/** upstream_servers_failing() - A query that was sent at @sent was not answered; UINT64_MAX: it could not be sent. */
void upstream_servers_failing(struct upstream *upstream, const struct upstream_server *server, uint64_t sent);
/** upstream_servers_plain() - Is the server to be asked without 0x20 now? */
bool upstream_servers_plain(struct upstream *upstream, const struct upstream_server *server);
/** upstream_servers_folds() - The server answered only without 0x20. */
void upstream_servers_folds(struct upstream *upstream, const struct upstream_server *server);
/** upstream_servers_of() - The servers of a group, or NULL. */
const struct upstream_group_servers *upstream_servers_of(const struct upstream *upstream, const char *name);
void upstream_servers_close(struct upstream *upstream);

/* upstream_sockets.c */

/** upstream_sockets_choose() - A random socket of the family, for one query. Return: 0 with @out set, or -errno. */
int upstream_sockets_choose(struct upstream *upstream, int family, struct upstream_socket **out);
void upstream_sockets_close(struct upstream *upstream);

/* upstream_tcp.c */

/** upstream_tcp_ask() - Ask a server of the lookup over TCP; ends in upstream_answered_tcp(). Replaces an earlier attempt. 0 or -errno. */
int upstream_tcp_ask(struct upstream *upstream, struct lookup *lookup, unsigned int index);
/** upstream_tcp_abandon() - The lookup has ended. */
void upstream_tcp_abandon(struct upstream_tcp *tcp);
void upstream_tcp_close(struct upstream *upstream);

#endif
