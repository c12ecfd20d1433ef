/* SPDX-License-Identifier: MIT */
/*
 * DNS over TLS (RFC 7858): one connection to each server, which all questions share.
 *
 * Theory of operation: a question waits in `waiting` until the connection is open, and then, written, in `sent` until the server
 * answers; answers come in any order and are matched by id and question (RFC 7766 section 6.2.1.1). At most DOT_SENT_MAX are with the
 * server, more wait here. What was asked in one turn of the loop is written together, in the next one, by on_work(); so nothing ends from
 * inside upstream_dot_ask().
 *
 * The connection is made when there is a question, and closed after DOT_IDLE_MS without any, or when the server closes it. Questions that a
 * connection took with it are asked once more on the next one. When a connection cannot be made, all questions go back to upstream.c, which
 * asks another server; the next attempt is made DOT_BACKOFF_MS later at the earliest. A question that waits longer than UPSTREAM_RETRY_MS,
 * for a handshake that stalls, say, is taken to another server by upstream.c meanwhile: no lookup waits for DOT_HANDSHAKE_MS.
 *
 * A path that has gone silent is noticed by the kernel (DOT_ACKNOWLEDGED_MS), a server that has by the lack of any answer in
 * UPSTREAM_DEADLINE_MS. What is wrong is said once until it changes. Nothing here ever asks in clear.
 */

#include "resolver/upstream_internal.h"

#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "resolver/upstream_tls.h"

#define DOT_SENT_MAX        256   /* questions that a server has not answered yet */
#define DOT_HANDSHAKE_MS    2000  /* from connect() to the end of the handshake */
#define DOT_IDLE_MS         20000 /* without questions */
#define DOT_BACKOFF_MS      500   /* between attempts to connect */
#define DOT_ACKNOWLEDGED_MS 1500  /* octets that the server's kernel does not acknowledge for so long end the connection */
#define DOT_SAY_MS          10000 /* between two complaints about a server */
#define ID_ATTEMPTS         16
#define BUFFER_SIZE         16384 /* octets that are read or written at once */
#define TEXT_MAX            (POLICY_SERVER_MAX + UPSTREAM_TLS_REASON_MAX + 64)

struct dot_question {
	struct upstream_dot *dot;
	struct lookup *lookup; /* NULL: it has ended */
	unsigned int index;    /* of the server in the lookup */
	uint16_t id;
	bool sent;
	bool again;              /* a connection took it with it before */
	unsigned int generation; /* see fail_waiting() */
	size_t size;
	uint8_t wire[UPSTREAM_FRAMED_MAX];
	struct dot_question *prev, *next;               /* of dot->waiting or dot->sent, oldest first */
	struct dot_question *lookup_prev, *lookup_next; /* of lookup->dots */
	UT_hash_handle hh;
};

enum connection_state { CONNECTION_CONNECTING, CONNECTION_HANDSHAKE, CONNECTION_OPEN, CONNECTION_CLOSING };

struct connection {
	uv_tcp_t handle;
	uv_timer_t timer; /* the handshake's end; then idleness, or silence */
	uv_connect_t connect;
	struct upstream *upstream;
	struct upstream_dot *dot; /* it may be gone when this is closing */
	struct upstream_tls *tls; /* owned; NULL: closing */
	enum connection_state state;
	unsigned int open_handles;
	unsigned int owed; /* answers that the server owes us, also to questions that nobody waits for any more */
	bool answered;     /* it has been of use */
	uint64_t heard;    /* ms: the last message, or when the first question was written after a pause */
	struct upstream_frame frame;
};

struct upstream_dot {
	struct upstream *upstream;
	struct upstream_server server;
	struct upstream_tls_context *context;
	struct upstream_tls_server *tls; /* owned */
	uv_timer_t work;
	bool closing;
	struct connection *connection;               /* owned; NULL: none */
	struct dot_question *waiting, *sent, *by_id; /* owned */
	unsigned int generation;
	uint64_t retry_at;   /* ms: no connection before */
	char said[TEXT_MAX]; /* the complaint that stands; "": none */
	uint64_t said_at;    /* ms; 0: never */
	char name[];
};

struct write {
	uv_write_t request;
	struct connection *connection;
	uint8_t octets[];
};

static uint8_t buffer[BUFFER_SIZE]; /* for what is used up before the callback that fills it returns */

static void on_work(uv_timer_t *timer);
static void on_timer(uv_timer_t *timer);

static uint64_t now_of(const struct upstream_dot *dot)
{
	return uv_now(dot->upstream->loop);
}

/* See to the questions that wait, in the next turn of the loop or after @wait ms. */
static void work_later(struct upstream_dot *dot, uint64_t wait)
{
	if (!dot->closing && (!uv_is_active((const uv_handle_t *)&dot->work) || uv_timer_get_due_in(&dot->work) > wait))
		uv_timer_start(&dot->work, on_work, wait, 0);
}

/* --- what people are told --- */

static void say(const struct upstream_dot *dot, bool trouble, const char *text)
{
	if (dot->upstream->say)
		dot->upstream->say(dot->upstream->context, trouble, text);
}

static void __attribute__((format(printf, 2, 3))) complain(struct upstream_dot *dot, const char *format, ...)
{
	char server[POLICY_SERVER_MAX], reason[UPSTREAM_TLS_REASON_MAX + 32], text[TEXT_MAX];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(reason, sizeof(reason), format, arguments);
	va_end(arguments);
	snprintf(text, sizeof(text), "%s: %s", policy_server_format(&dot->server, server), reason);
	if (!strcmp(text, dot->said) || (dot->said_at && now_of(dot) - dot->said_at < DOT_SAY_MS))
		return;
	memcpy(dot->said, text, sizeof(text));
	dot->said_at = now_of(dot);
	say(dot, true, text);
}

static void complain_no_more(struct upstream_dot *dot)
{
	char server[POLICY_SERVER_MAX], text[TEXT_MAX];

	if (!dot->said[0])
		return;
	dot->said[0] = 0;
	snprintf(text, sizeof(text), "%s: answers again", policy_server_format(&dot->server, server));
	say(dot, false, text);
}

/* --- questions --- */

static void question_free(struct dot_question *question)
{
	struct upstream_dot *dot = question->dot;

	HASH_DEL(dot->by_id, question);
	if (question->sent)
		DL_DELETE(dot->sent, question);
	else
		DL_DELETE(dot->waiting, question);
	if (question->lookup)
		DL_DELETE2(question->lookup->dots, question, lookup_prev, lookup_next);
	free(question);
}

/*
 * The last question that waits for a connection stays without its lookup: it is what shows that the server is back, after other servers
 * have answered the lookup.
 */
static bool is_probe(const struct dot_question *question)
{
	return !question->sent && question->dot->waiting == question && !question->next;
}

void upstream_dot_abandon(struct lookup *lookup)
{
	while (lookup->dots) {
		struct dot_question *question = lookup->dots;

		if (is_probe(question)) {
			DL_DELETE2(lookup->dots, question, lookup_prev, lookup_next);
			question->lookup = NULL;
		} else {
			question_free(question);
		}
	}
}

static struct dot_question *question_find(const struct upstream_dot *dot, uint16_t id)
{
	struct dot_question *question;

	HASH_FIND(hh, dot->by_id, &id, sizeof(id), question);
	return question;
}

static int question_id(const struct upstream_dot *dot, uint16_t *out)
{
	for (unsigned int i = 0; i < ID_ATTEMPTS; i++) {
		int error = upstream_random(dot->upstream, out, sizeof(*out));

		if (error)
			return error;
		if (!question_find(dot, *out))
			return 0;
	}
	return -EBUSY;
}

int upstream_dot_ask(struct upstream_dot *dot, struct lookup *lookup, unsigned int index)
{
	struct dot_question *question;
	int error;

	for (question = lookup->dots; question; question = question->lookup_next) {
		if (question->dot == dot)
			return 0;
	}
	question = calloc(1, sizeof(*question));
	if (!question)
		return -ENOMEM;
	error = question_id(dot, &question->id);
	if (!error) {
		question->size = upstream_frame_query(&lookup->key, question->id, UPSTREAM_PADDING, question->wire);
		error = question->size ? 0 : -EINVAL;
	}
	if (!error) {
		HASH_ADD(hh, dot->by_id, id, sizeof(question->id), question);
		error = question->hh.tbl ? 0 : -ENOMEM;
	}
	if (error) {
		free(question);
		return error;
	}
	question->dot = dot;
	question->lookup = lookup;
	question->index = index;
	question->generation = dot->generation;
	DL_APPEND(dot->waiting, question);
	DL_APPEND2(lookup->dots, question, lookup_prev, lookup_next);
	work_later(dot, 0);
	return 0;
}

static void question_fail(struct dot_question *question, bool refused)
{
	struct upstream *upstream = question->dot->upstream;
	struct lookup *lookup = question->lookup;
	unsigned int index = question->index;

	question_free(question);
	if (lookup)
		upstream_unanswered(lookup, upstream, index, refused);
}

/* All that wait now: what is asked meanwhile, because of that, is of the next generation, behind them. */
static void fail_waiting(struct upstream_dot *dot, bool refused)
{
	dot->generation++;
	while (dot->waiting && dot->waiting->generation != dot->generation)
		question_fail(dot->waiting, refused);
}

static struct dot_question *question_lost_twice(const struct upstream_dot *dot)
{
	struct dot_question *question;

	DL_FOREACH (dot->sent, question) {
		if (question->again)
			return question;
	}
	return NULL;
}

/* The connection is gone: what it had goes to the front of what waits, unless that has happened to it before. */
static void requeue_sent(struct upstream_dot *dot)
{
	struct dot_question *question;

	while ((question = question_lost_twice(dot)))
		question_fail(question, false);
	while (dot->sent) {
		question = dot->sent->prev; /* the last one */
		DL_DELETE(dot->sent, question);
		DL_PREPEND(dot->waiting, question);
		question->sent = false;
		question->again = true;
	}
}

/* --- the connection --- */

static void on_closed(uv_handle_t *handle)
{
	struct connection *connection = handle->data;

	struct upstream *upstream = connection->upstream;

	if (!--connection->open_handles) {
		upstream_frame_reset(&connection->frame);
		free(connection);
	}
	upstream_handle_closed(upstream);
}

static void connection_close(struct connection *connection)
{
	if (connection->state == CONNECTION_CLOSING)
		return;
	connection->state = CONNECTION_CLOSING;
	connection->dot->connection = NULL;
	upstream_tls_free(connection->tls);
	connection->tls = NULL;
	uv_close((uv_handle_t *)&connection->handle, on_closed);
	uv_close((uv_handle_t *)&connection->timer, on_closed);
}

/* No connection could be made. @refused: it would be the same the next time. */
static void connection_failed(struct connection *connection, bool refused)
{
	struct upstream_dot *dot = connection->dot;

	connection_close(connection);
	dot->retry_at = now_of(dot) + DOT_BACKOFF_MS;
	fail_waiting(dot, refused);
}

/* A connection that had been made is gone. */
static void connection_lost(struct connection *connection)
{
	struct upstream_dot *dot = connection->dot;

	if (connection->owed && !connection->answered) {
		complain(dot, "it ends connections without an answer; does it serve DNS over TLS on that port?");
		dot->retry_at = now_of(dot) + DOT_BACKOFF_MS;
	}
	connection_close(connection);
	requeue_sent(dot);
	if (dot->waiting)
		work_later(dot, 0);
}

/* Whatever state it was in. */
static void connection_broken(struct connection *connection, int error)
{
	if (connection->state == CONNECTION_OPEN) {
		connection_lost(connection);
		return;
	}
	if (connection->state == CONNECTION_HANDSHAKE)
		complain(connection->dot, "the TLS handshake failed: %s; is DNS over TLS served on that port?", strerror(-error));
	else
		complain(connection->dot, "no connection: %s; is TCP port %u open on the way, and is the server up?", strerror(-error),
			 connection->dot->server.port);
	connection_failed(connection, false);
}

static void on_written(uv_write_t *request, int status)
{
	struct write *write = request->data;
	struct connection *connection = write->connection;

	free(write);
	if (status && connection->state != CONNECTION_CLOSING)
		connection_broken(connection, status);
}

static int write_octets(struct connection *connection, const uint8_t *octets, size_t size)
{
	struct write *write = malloc(sizeof(*write) + size);
	uv_buf_t out;
	int error;

	if (!write)
		return -ENOMEM;
	write->request.data = write;
	write->connection = connection;
	memcpy(write->octets, octets, size);
	out = uv_buf_init((char *)write->octets, (unsigned int)size);
	error = uv_write(&write->request, (uv_stream_t *)&connection->handle, &out, 1, on_written);
	if (error)
		free(write);
	return error;
}

/* What TLS has to send. Return: 0 or -errno. */
static int send_pending(struct connection *connection)
{
	size_t size;
	int error = 0;

	while (!error && (size = upstream_tls_to_send(connection->tls, buffer, sizeof(buffer))))
		error = write_octets(connection, buffer, size);
	return error;
}

/* Wait for the server's next word, or for the end of a pause. */
static void connection_watch(struct connection *connection)
{
	uint64_t now = now_of(connection->dot), end = connection->heard + (connection->owed ? UPSTREAM_DEADLINE_MS : DOT_IDLE_MS);

	uv_timer_start(&connection->timer, on_timer, end > now ? end - now : 0, 0);
}

static int question_write(struct connection *connection, struct dot_question *question)
{
	struct upstream_dot *dot = connection->dot;
	int error = upstream_tls_write(connection->tls, question->wire, UPSTREAM_PREFIX + question->size);

	if (error)
		return error;
	DL_DELETE(dot->waiting, question);
	DL_APPEND(dot->sent, question);
	question->sent = true;
	connection->owed++;
	dot->upstream->counters.tls++;
	return 0;
}

/* Write what waits, as far as there is room. */
static void connection_write(struct connection *connection)
{
	struct upstream_dot *dot = connection->dot;
	bool paused = !connection->owed;
	int error = 0;

	while (!error && dot->waiting && connection->owed < DOT_SENT_MAX)
		error = question_write(connection, dot->waiting);
	if (!error)
		error = send_pending(connection);
	if (error) {
		connection_lost(connection);
		return;
	}
	if (paused && connection->owed) {
		connection->heard = now_of(dot);
		connection_watch(connection);
	}
}

/* A whole message is in the frame. */
static void take_message(struct connection *connection)
{
	struct upstream_dot *dot = connection->dot;
	const struct upstream_frame *frame = &connection->frame;
	struct dot_question *question = frame->expected >= 12 ? question_find(dot, message_peek_id(frame->wire)) : NULL;
	struct answer *answer = NULL;
	struct lookup *lookup;
	unsigned int index;

	if (question && !question->sent)
		question = NULL;
	if (question)
		answer = message_parse_answer(frame->wire, frame->expected, question->wire + UPSTREAM_PREFIX, question->size);
	upstream_frame_reset(&connection->frame);
	connection->heard = now_of(dot);
	connection->answered = true;
	if (connection->owed)
		connection->owed--;
	upstream_servers_answered(dot->upstream, &dot->server);
	complain_no_more(dot);
	if (!question) { /* late: nobody waits for it any more */
		dot->upstream->counters.ignored++;
		return;
	}
	lookup = question->lookup;
	index = question->index;
	question_free(question);
	if (lookup)
		upstream_answered_stream(lookup, dot->upstream, index, answer);
	else
		answer_free(answer);
}

/* Return: 0 for the time being, or -errno: the connection is at its end. */
static int read_messages(struct connection *connection)
{
	while (connection->state == CONNECTION_OPEN) {
		size_t size;
		void *room = upstream_frame_room(&connection->frame, &size);
		ssize_t got = upstream_tls_read(connection->tls, room, size);
		int state;

		if (got == -EAGAIN)
			return 0;
		if (got <= 0)
			return got ? (int)got : -ECONNRESET;
		state = upstream_frame_filled(&connection->frame, (size_t)got);
		if (state < 0)
			return state;
		if (state > 0)
			take_message(connection);
	}
	return 0;
}

static void connection_opened(struct connection *connection)
{
	struct upstream_dot *dot = connection->dot;

	connection->state = CONNECTION_OPEN;
	connection->heard = now_of(dot);
	dot->retry_at = 0;
	dot->upstream->counters.dots++;
	if (upstream_tls_resumed(connection->tls))
		dot->upstream->counters.resumed++;
	connection_watch(connection);
}

/* Return: true when the connection is open. */
static bool shake_hands(struct connection *connection)
{
	char reason[UPSTREAM_TLS_REASON_MAX];
	int result = upstream_tls_handshake(connection->tls);
	int error = send_pending(connection); /* also the alert that tells the server what we do not like */

	if (result && result != -EAGAIN) {
		complain(connection->dot, "%s", upstream_tls_reason(connection->tls, reason));
		connection_failed(connection, true);
		return false;
	}
	if (error) {
		connection_broken(connection, error);
		return false;
	}
	if (!result)
		connection_opened(connection);
	return !result;
}

/* Something has come, or the connection was made. */
static void connection_step(struct connection *connection)
{
	int error;

	if (connection->state == CONNECTION_HANDSHAKE && !shake_hands(connection))
		return;
	error = read_messages(connection);
	if (connection->state != CONNECTION_OPEN)
		return;
	if (error)
		connection_lost(connection);
	else
		connection_write(connection);
}

static void on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
	(void)handle;
	(void)suggested;
	*out = uv_buf_init((char *)buffer, sizeof(buffer));
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *from)
{
	struct connection *connection = stream->data;

	if (connection->state == CONNECTION_CLOSING || !size)
		return;
	if (size > 0)
		size = upstream_tls_received(connection->tls, from->base, (size_t)size);
	if (size < 0)
		connection_broken(connection, size == UV_EOF ? -ECONNRESET : (int)size);
	else
		connection_step(connection);
}

static void on_connected(uv_connect_t *request, int status)
{
	struct connection *connection = request->data;

	if (connection->state == CONNECTION_CLOSING)
		return;
	if (!status)
		status = uv_read_start((uv_stream_t *)&connection->handle, on_allocate, on_read);
	if (status) {
		connection_broken(connection, status);
		return;
	}
	connection->state = CONNECTION_HANDSHAKE;
	connection_step(connection);
}

/* Too long without anything. */
static void on_timer(uv_timer_t *timer)
{
	struct connection *connection = timer->data;
	uint64_t now = uv_now(timer->loop);

	if (connection->state == CONNECTION_CLOSING)
		return;
	if (connection->state != CONNECTION_OPEN) {
		complain(connection->dot, "no %s within %d s", connection->state == CONNECTION_HANDSHAKE ? "TLS handshake" : "connection",
			 DOT_HANDSHAKE_MS / 1000);
		connection_failed(connection, false);
	} else if (now - connection->heard < (connection->owed ? UPSTREAM_DEADLINE_MS : DOT_IDLE_MS)) {
		connection_watch(connection);
	} else if (connection->owed) {
		upstream_servers_failing(connection->upstream, &connection->dot->server, connection->heard);
		connection_lost(connection);
	} else {
		upstream_tls_end(connection->tls);
		(void)send_pending(connection); /* a last word: it need not arrive */
		connection_close(connection);
	}
}

static int connection_start(struct connection *connection)
{
	const unsigned int acknowledged = DOT_ACKNOWLEDGED_MS;
	struct sockaddr_storage sa;
	uv_os_fd_t fd;
	int error;

	address_to_sockaddr(&connection->dot->server.address, connection->dot->server.port, &sa);
	error = uv_fileno((const uv_handle_t *)&connection->handle, &fd);
	if (!error)
		error = setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &acknowledged, sizeof(acknowledged)) ? -errno : 0;
	if (!error)
		error = uv_tcp_nodelay(&connection->handle, 1);
	if (!error)
		error = uv_tcp_connect(&connection->connect, &connection->handle, (const struct sockaddr *)&sa, on_connected);
	return error;
}

static int connection_new(struct upstream_dot *dot)
{
	struct connection *connection = calloc(1, sizeof(*connection));
	int error;

	if (!connection)
		return -ENOMEM;
	connection->tls = upstream_tls_new(dot->tls);
	error = connection->tls ? uv_tcp_init_ex(dot->upstream->loop, &connection->handle, dot->server.address.family) : -ENOMEM;
	if (error) {
		upstream_tls_free(connection->tls);
		free(connection);
		return error;
	}
	uv_timer_init(dot->upstream->loop, &connection->timer);
	connection->handle.data = connection->timer.data = connection->connect.data = connection;
	connection->upstream = dot->upstream;
	connection->dot = dot;
	connection->open_handles = 2;
	dot->upstream->open_handles += 2;
	dot->connection = connection;
	uv_timer_start(&connection->timer, on_timer, DOT_HANDSHAKE_MS, 0);
	error = connection_start(connection);
	if (error)
		connection_broken(connection, error);
	return 0;
}

/* --- servers --- */

/* Questions wait. */
static void on_work(uv_timer_t *timer)
{
	struct upstream_dot *dot = timer->data;
	uint64_t now = now_of(dot);

	if (dot->closing || !dot->waiting)
		return;
	if (dot->connection) {
		if (dot->connection->state == CONNECTION_OPEN)
			connection_write(dot->connection);
		return;
	}
	if (dot->retry_at > now) {
		work_later(dot, dot->retry_at - now);
	} else if (connection_new(dot)) {
		dot->retry_at = now + DOT_BACKOFF_MS;
		fail_waiting(dot, false);
	}
}

static void on_dot_closed(uv_handle_t *handle)
{
	struct upstream_dot *dot = handle->data;

	upstream_handle_closed(dot->upstream);
	free(dot);
}

struct upstream_dot *upstream_dot_new(struct upstream *upstream, const struct upstream_server *server, struct upstream_tls_context *context)
{
	size_t size = strlen(server->tls_name) + 1;
	struct upstream_dot *dot = calloc(1, sizeof(*dot) + size);

	if (!dot)
		return NULL;
	dot->tls = upstream_tls_server_new(context, server->tls_name);
	if (!dot->tls) {
		free(dot);
		return NULL;
	}
	memcpy(dot->name, server->tls_name, size);
	dot->server = *server;
	dot->server.tls_name = dot->name;
	dot->context = context;
	dot->upstream = upstream;
	uv_timer_init(upstream->loop, &dot->work);
	dot->work.data = dot;
	upstream->open_handles++;
	return dot;
}

bool upstream_dot_is(const struct upstream_dot *dot, const struct upstream_server *server, const struct upstream_tls_context *context)
{
	return dot->context == context && policy_server_equal(&dot->server, server);
}

const struct upstream_server *upstream_dot_server(const struct upstream_dot *dot)
{
	return &dot->server;
}

void upstream_dot_close(struct upstream_dot *dot)
{
	dot->closing = true;
	while (dot->waiting) {
		assert(!dot->waiting->lookup); /* all others went with their lookups */
		question_free(dot->waiting);
	}
	while (dot->sent) {
		assert(!dot->sent->lookup);
		question_free(dot->sent);
	}
	if (dot->connection)
		connection_close(dot->connection);
	upstream_tls_server_free(dot->tls);
	dot->tls = NULL;
	uv_close((uv_handle_t *)&dot->work, on_dot_closed);
}
