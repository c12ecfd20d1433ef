/* SPDX-License-Identifier: MIT */
/*
 * One connection to a server with TLS: from connect() over the handshake to its end.
 *
 * Theory of operation: octets are carried between the socket and upstream_tls.c; whatever comes is given there first, and then everything
 * is done that has become possible: go on with the handshake, read messages, write questions that wait. A connection that ends tells its
 * server so (upstream_dot.c), once, after it has let go of it.
 */

#include "resolver/upstream_dot.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER_SIZE 16384 /* octets that are read or written at once */

enum connection_state { CONNECTION_CONNECTING, CONNECTION_HANDSHAKE, CONNECTION_OPEN, CONNECTION_CLOSING };

struct dot_connection {
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

struct write {
	uv_write_t request;
	struct dot_connection *connection;
	uint8_t octets[];
};

static uint8_t buffer[BUFFER_SIZE]; /* for what is used up before the callback that fills it returns */

static void on_timer(uv_timer_t *timer);

static uint64_t now_of(const struct upstream_dot *dot)
{
	return uv_now(dot->upstream->loop);
}

static void on_closed(uv_handle_t *handle)
{
	struct dot_connection *connection = handle->data;
	struct upstream *upstream = connection->upstream;

	if (!--connection->open_handles) {
		upstream_frame_reset(&connection->frame);
		free(connection);
	}
	upstream_handle_closed(upstream);
}

void upstream_dot_connection_close(struct dot_connection *connection)
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
static void connection_failed(struct dot_connection *connection, bool refused)
{
	struct upstream_dot *dot = connection->dot;

	upstream_dot_connection_close(connection);
	upstream_dot_failed(dot, refused);
}

/* A connection that had been made is gone. */
static void connection_lost(struct dot_connection *connection)
{
	struct upstream_dot *dot = connection->dot;
	bool useless = connection->owed && !connection->answered;

	upstream_dot_connection_close(connection);
	upstream_dot_lost(dot, useless);
}

/* Whatever state it was in. */
static void connection_broken(struct dot_connection *connection, int error)
{
	if (connection->state == CONNECTION_OPEN) {
		connection_lost(connection);
		return;
	}
	if (connection->state == CONNECTION_HANDSHAKE)
		upstream_dot_complain(connection->dot, "the TLS handshake failed: %s; is DNS over TLS served on that port?",
				      strerror(-error));
	else
		upstream_dot_complain(connection->dot, "no connection: %s; is TCP port %u open on the way, and is the server up?",
				      strerror(-error), connection->dot->server.port);
	connection_failed(connection, false);
}

static void on_written(uv_write_t *request, int status)
{
	struct write *write = request->data;
	struct dot_connection *connection = write->connection;

	free(write);
	if (status && connection->state != CONNECTION_CLOSING)
		connection_broken(connection, status);
}

static int write_octets(struct dot_connection *connection, const uint8_t *octets, size_t size)
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
static int send_pending(struct dot_connection *connection)
{
	size_t size;
	int error = 0;

	while (!error && (size = upstream_tls_to_send(connection->tls, buffer, sizeof(buffer))))
		error = write_octets(connection, buffer, size);
	return error;
}

/* Wait for the server's next word, or for the end of a pause. */
static void connection_watch(struct dot_connection *connection)
{
	uint64_t now = now_of(connection->dot), end = connection->heard + (connection->owed ? UPSTREAM_DEADLINE_MS : DOT_IDLE_MS);

	uv_timer_start(&connection->timer, on_timer, end > now ? end - now : 0, 0);
}

static int question_write(struct dot_connection *connection, struct dot_question *question)
{
	struct upstream_dot *dot = connection->dot;
	int error = upstream_tls_write(connection->tls, question->wire, UPSTREAM_PREFIX + question->size);

	if (error)
		return error;
	dot->waiting = question->next;
	question->sent = true;
	connection->owed++;
	dot->upstream->counters.tls++;
	return 0;
}

void upstream_dot_connection_write(struct dot_connection *connection)
{
	struct upstream_dot *dot = connection->dot;
	bool paused = !connection->owed;
	int error = 0;

	if (connection->state != CONNECTION_OPEN)
		return;
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

/* A whole message is in the frame. It may lead to more questions, but not to the end of this connection. */
static void take_message(struct dot_connection *connection)
{
	connection->heard = now_of(connection->dot);
	connection->answered = true;
	if (connection->owed)
		connection->owed--;
	upstream_dot_answered(connection->dot, connection->frame.wire, connection->frame.expected);
	upstream_frame_reset(&connection->frame);
}

/* Return: 0 for the time being, or -errno: the connection is at its end. */
static int read_messages(struct dot_connection *connection)
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

static void connection_opened(struct dot_connection *connection)
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
static bool shake_hands(struct dot_connection *connection)
{
	char reason[UPSTREAM_TLS_REASON_MAX];
	int result = upstream_tls_handshake(connection->tls);
	int error = send_pending(connection); /* also the alert that tells the server what we do not like */

	if (result && result != -EAGAIN) {
		upstream_dot_complain(connection->dot, "%s", upstream_tls_reason(connection->tls, reason));
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
static void connection_step(struct dot_connection *connection)
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
		upstream_dot_connection_write(connection);
}

static void on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
	(void)handle;
	(void)suggested;
	*out = uv_buf_init((char *)buffer, sizeof(buffer));
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *from)
{
	struct dot_connection *connection = stream->data;

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
	struct dot_connection *connection = request->data;

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
	struct dot_connection *connection = timer->data;
	uint64_t now = uv_now(timer->loop);

	if (connection->state == CONNECTION_CLOSING)
		return;
	if (connection->state != CONNECTION_OPEN) {
		upstream_dot_complain(connection->dot, "no %s within %d s",
				      connection->state == CONNECTION_HANDSHAKE ? "TLS handshake" : "connection", DOT_HANDSHAKE_MS / 1000);
		connection_failed(connection, false);
	} else if (now - connection->heard < (connection->owed ? UPSTREAM_DEADLINE_MS : DOT_IDLE_MS)) {
		connection_watch(connection);
	} else if (connection->owed) {
		upstream_servers_failing(connection->upstream, &connection->dot->server, connection->heard);
		connection_lost(connection);
	} else {
		upstream_tls_end(connection->tls);
		(void)send_pending(connection); /* a last word: it need not arrive */
		upstream_dot_connection_close(connection);
	}
}

static int connection_start(struct dot_connection *connection)
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

int upstream_dot_connection_new(struct upstream_dot *dot)
{
	struct dot_connection *connection = calloc(1, sizeof(*connection));
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
