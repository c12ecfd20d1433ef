/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_RESOLVER_UPSTREAM_DOT_H
#define SLUICE_RESOLVER_UPSTREAM_DOT_H

/* Between upstream_dot.c, which has the theory of operation, and upstream_dot_connection.c. */

#include "resolver/upstream_internal.h"
#include "resolver/upstream_tls.h"

#define DOT_SENT_MAX        256   /* questions that a server has not answered yet */
#define DOT_HANDSHAKE_MS    2000  /* from connect() to the end of the handshake */
#define DOT_IDLE_MS         20000 /* without questions */
#define DOT_BACKOFF_MS      500   /* between attempts to connect */
#define DOT_ACKNOWLEDGED_MS 1500  /* octets that the server's kernel does not acknowledge for so long end the connection */
#define DOT_SAY_MS          10000 /* between two complaints about a server */
#define DOT_TEXT_MAX        (POLICY_SERVER_MAX + UPSTREAM_TLS_REASON_MAX + 64)

struct dot_question {
	struct upstream_dot *dot;
	struct lookup *lookup; /* NULL: it has ended */
	unsigned int index;    /* of the server in the lookup */
	uint16_t id;
	bool sent;
	bool again;              /* a connection took it with it before */
	bool lost;               /* that has happened twice */
	unsigned int generation; /* see fail_waiting() */
	size_t size;
	uint8_t wire[UPSTREAM_FRAMED_MAX];
	struct dot_question *prev, *next;               /* of dot->questions */
	struct dot_question *lookup_prev, *lookup_next; /* of lookup->dots */
	UT_hash_handle hh;
};

/* A server. */
struct upstream_dot {
	struct upstream *upstream;
	struct upstream_server server;
	struct upstream_tls_context *context;
	struct upstream_tls_server *tls; /* owned */
	uv_timer_t work;
	bool closing;
	struct dot_connection *connection; /* owned; NULL: none */
	struct dot_question *questions;    /* owned; oldest first: those that were sent, then those that wait */
	struct dot_question *waiting;      /* the first that waits; NULL: none */
	struct dot_question *by_id;        /* all of them */
	unsigned int generation;
	uint64_t retry_at;       /* ms: no connection before */
	char said[DOT_TEXT_MAX]; /* the complaint that stands; "": none */
	uint64_t said_at;        /* ms; 0: never */
	char name[];
};

/* upstream_dot.c: what a connection tells its server */

/** upstream_dot_complain() - Say what is wrong, unless that was said already. */
void upstream_dot_complain(struct upstream_dot *dot, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** upstream_dot_answered() - A message has come; it may belong to one of the questions. */
void upstream_dot_answered(struct upstream_dot *dot, const uint8_t *wire, size_t size);
/** upstream_dot_failed() - No connection could be made; @refused: nor can it be later. dot->connection is NULL. */
void upstream_dot_failed(struct upstream_dot *dot, bool refused);
/** upstream_dot_lost() - A connection has ended; @useless: it was asked, and never answered. dot->connection is NULL. */
void upstream_dot_lost(struct upstream_dot *dot, bool useless);

/* upstream_dot_connection.c */

/** upstream_dot_connection_new() - Begin to connect; sets dot->connection, and may have failed already. Return: 0 or -ENOMEM. */
int upstream_dot_connection_new(struct upstream_dot *dot);
/** upstream_dot_connection_write() - Write what waits, as far as there is room and when it is open. */
void upstream_dot_connection_write(struct dot_connection *connection);
/** upstream_dot_connection_close() - End it without a word; dot->connection is NULL then, and its memory goes in the close callbacks. */
void upstream_dot_connection_close(struct dot_connection *connection);

#endif
