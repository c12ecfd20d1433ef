/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_RESOLVER_UPSTREAM_INTERNAL_H
#define SLUICE_RESOLVER_UPSTREAM_INTERNAL_H

/* Data shared by upstream*.c, and by nobody else. upstream.c has the theory of operation. */

#include "resolver/upstream.h"

#include "common/hash.h"

#define UPSTREAM_QUERY_MAX    300 /* octets of a query as message_build_query() makes it */
#define UPSTREAM_PREFIX       2   /* octets of length in front of each message on a stream */
#define UPSTREAM_PADDING      128 /* over TLS, queries are multiples of this; RFC 8467 section 4.1 */
#define UPSTREAM_FRAMED_MAX   (UPSTREAM_PREFIX + 3 * UPSTREAM_PADDING)
#define UPSTREAM_TRIES_MAX    (4 * UPSTREAM_LOOKUPS_MAX)
#define UPSTREAM_RANDOM_BLOCK 1024
#define UPSTREAM_BATCH        32 /* queries of one turn through one socket: their answers fit into its buffer, and into one call */

/* One open UDP socket with a random port. Memory goes in its close callback. */
struct upstream_socket {
	uv_poll_t poll;
	struct upstream *upstream;
	struct socket_pool *pool;
	int fd;
	bool closing;
	uint64_t serial; /* never used again, unlike a pointer or a descriptor */
	unsigned int uses, in_flight;
};

struct socket_pool {
	int family;
	unsigned int open;
	struct upstream_socket *sockets[UPSTREAM_SOCKETS]; /* owned; the first `open` */
	struct upstream_socket *turn;                      /* chosen in this turn of the loop; NULL: none yet */
	unsigned int turn_queries;                         /* that it was chosen for */
	struct upstream_try *queue;                        /* tries that upstream_flush() will send */
};

/* Family, port, address, and what tells servers with TLS apart, without padding. */
struct server_key {
	uint8_t octets[3 + 16 + sizeof(const char *)];
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
	struct upstream_server servers[POLICY_SERVERS_MAX]; /* tls_name belongs to `dots` */
	struct upstream_dot *dots[POLICY_SERVERS_MAX];      /* NULL: the server is asked without TLS */
	size_t count;
};

/* Certificate authorities, for all servers that are to be checked by them. */
struct upstream_authorities {
	const char *ca;                       /* PEM, the policy's, valid while the set is made; NULL: the system's */
	struct upstream_tls_context *context; /* owned */
};

/* What one policy says of upstreams. */
struct upstream_set {
	struct upstream_group_servers *groups; /* owned */
	size_t group_count;
	struct upstream_dot **dots; /* owned, both */
	size_t dot_count;
	struct upstream_authorities *authorities; /* owned */
	size_t authority_count;
};

/* A message that comes in on a stream; all zero: none has begun. */
struct upstream_frame {
	uint8_t prefix[UPSTREAM_PREFIX];
	size_t filled; /* octets of prefix and message so far */
	size_t expected;
	uint8_t *wire; /* owned; `expected` octets */
};

struct try_key {
	uint64_t socket; /* serial */
	uint64_t id;
};

/* One query over UDP. Once it is sent it outlives its lookup, until it is answered or too old: see upstream.c. */
struct upstream_try {
	struct try_key key;
	struct lookup *lookup; /* NULL: ended */
	struct upstream_socket *socket;
	struct upstream_server server;
	unsigned int index; /* of the server in its lookup */
	bool plain;         /* without 0x20 */
	bool folded;        /* answered in another letter case */
	bool queued;        /* not sent yet */
	uint64_t sent;      /* ms */
	size_t query_size;
	uint8_t query[UPSTREAM_QUERY_MAX];
	struct upstream_try *prev, *next;               /* all tries, oldest first */
	struct upstream_try *lookup_prev, *lookup_next; /* tries of one lookup */
	struct upstream_try *queue_prev, *queue_next;   /* tries to be sent, of one pool */
	UT_hash_handle hh;
};

struct lookup {
	struct cache_key key;
	const struct upstream_group_servers *group;
	unsigned int current;  /* server asked last */
	unsigned int chances;  /* how many more servers may be gone through for one that a query can be sent to */
	unsigned int refused;  /* bit i: server i said that it will not or cannot answer */
	unsigned int folding;  /* bit i: server i answered in another letter case */
	unsigned int folded;   /* tries that were answered so */
	bool plain;            /* ask without 0x20 from now on */
	uint64_t started, due; /* ms */
	struct upstream_try *tries;
	struct upstream_tcp *tcp;           /* NULL: none */
	unsigned int tcp_index;             /* which server it asks */
	struct dot_question *dots;          /* over TLS; at most one for each server */
	struct lookup *prev, *next;         /* all lookups, oldest first */
	struct lookup *due_prev, *due_next; /* all lookups, next retry first */
	UT_hash_handle hh;
};

struct upstream {
	uv_loop_t *loop;
	uv_timer_t timer;
	upstream_done done;
	upstream_say say; /* may be NULL */
	void *context;
	bool closing;
	unsigned int open_handles;
	struct upstream_counters counters;
	struct upstream_set set;
	struct server_health *health; /* owned */
	struct server_health *latest; /* the one that was looked up last */
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
/** upstream_answered_stream() - Over TCP or TLS; NULL: there is no usable answer. May end the lookup. Owns @answer. */
void upstream_answered_stream(struct lookup *lookup, struct upstream *upstream, unsigned int index, struct answer *answer);
/** upstream_unanswered() - A server could not be asked; @refused: nor can it be later. May end the lookup. */
void upstream_unanswered(struct lookup *lookup, struct upstream *upstream, unsigned int index, bool refused);
/** upstream_give_up() - End all lookups without calling back. */
void upstream_give_up(struct upstream *upstream);

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

/** upstream_sockets_choose() - This turn's random socket of the family, for one query. Return: 0 with @out set, or -errno. */
int upstream_sockets_choose(struct upstream *upstream, int family, struct upstream_socket **out);
/** upstream_sockets_queue() - A try with its socket waits to be sent. */
void upstream_sockets_queue(struct upstream_try *try);
/** upstream_sockets_unqueue() - It was sent, or will not be. */
void upstream_sockets_unqueue(struct upstream_try *try);
/** upstream_sockets_send() - Send the first queued tries. Return: how many were sent, they are still queued; -errno: the first cannot be.
 */
int upstream_sockets_send(const struct socket_pool *pool);
void upstream_sockets_close(struct upstream *upstream);

/* upstream_tcp.c */

/** upstream_tcp_ask() - Ask a server of the lookup over TCP; ends in upstream_answered_stream(). Replaces an earlier attempt. 0 or -errno.
 */
int upstream_tcp_ask(struct upstream *upstream, struct lookup *lookup, unsigned int index);
/** upstream_tcp_abandon() - The lookup has ended. */
void upstream_tcp_abandon(struct upstream_tcp *tcp);
void upstream_tcp_close(struct upstream *upstream);

/* upstream_frame.c */

/** upstream_frame_room() - Where the next octets belong, and how many of them at most. */
void *upstream_frame_room(struct upstream_frame *frame, size_t *size);
/** upstream_frame_filled() - Octets were put there. Return: 1: the message is whole; 0; -EPROTO: it is empty; -ENOMEM. */
int upstream_frame_filled(struct upstream_frame *frame, size_t size);
/** upstream_frame_reset() - Ready for the next message. */
void upstream_frame_reset(struct upstream_frame *frame);
/**
 * upstream_frame_query() - A query with its length in front
 * @block:	make it a multiple of so many octets; 0: leave it as it is
 * Return: the query's size, without the length; 0: it cannot be built.
 */
size_t upstream_frame_query(const struct cache_key *key, uint16_t id, size_t block, uint8_t out[static UPSTREAM_FRAMED_MAX]);

/* upstream_dot.c */

/**
 * upstream_dot_new() - A server with TLS; no connection is made yet
 * @server:	copied
 * @context:	must outlive it
 * Return: to be ended with upstream_dot_close(), or NULL: out of memory.
 */
struct upstream_dot *upstream_dot_new(struct upstream *upstream, const struct upstream_server *server,
				      struct upstream_tls_context *context);
/** upstream_dot_is() - Is it this server, checked by these authorities? */
bool upstream_dot_is(const struct upstream_dot *dot, const struct upstream_server *server, const struct upstream_tls_context *context);
/** upstream_dot_server() - Its address, and a name that is this server's alone. */
const struct upstream_server *upstream_dot_server(const struct upstream_dot *dot);
/** upstream_dot_close() - End its connection and forget what is not answered. */
void upstream_dot_close(struct upstream_dot *dot);
/**
 * upstream_dot_ask() - Ends in upstream_answered_stream() or upstream_unanswered(), never from inside
 * Return: 0, also when the lookup asks there already; -EBUSY or another -errno.
 */
int upstream_dot_ask(struct upstream_dot *dot, struct lookup *lookup, unsigned int index);
/** upstream_dot_abandon() - The lookup has ended. */
void upstream_dot_abandon(struct lookup *lookup);

#endif
