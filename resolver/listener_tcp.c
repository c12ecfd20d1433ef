/* SPDX-License-Identifier: MIT */
/*
 * TCP listener: RFC 7766.
 *
 * Theory of operation: each connection reads into a buffer that holds one question of the largest size and usually many
 * small ones. Whole questions are handed on until LISTENER_TCP_PENDING_MAX of them wait for a reply; then reading stops, and goes on when
 * a reply has been written. Replies are written in the order in which they come.
 *
 * A listener hands on LISTENER_TCP_TURN questions in a turn of the loop, or clients that never stop asking would keep everybody else
 * waiting. Connections with further ones are `queued`, and served in the next turn (`idle`), a few questions each, as long as there are
 * any.
 *
 * What a client can cost is bounded: connections per listener and per address, the size of a question, questions in progress,
 * replies not taken, of one and of all. `connections` is ordered by last use; a timer ends those at its head which were idle too long. A
 * byte now and then is no use: only whole questions and replies that were taken count.
 *
 * A client may close its side after its last question; the connection ends when all replies have been written.
 */

#include "resolver/listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "common/hash.h"
#include "resolver/acceptor.h"
#include "resolver/shares.h"

#define PREFIX   2    /* octets of length in front of each message */
#define BACKLOG  1024 /* connections that the kernel holds for us */
#define SWEEP_MS 1000

struct connection {
	uv_tcp_t handle;
	struct listener_tcp *listener;
	uint64_t serial;
	struct address address;
	uint16_t port;
	uint64_t used; /* ms, uv_now() */
	unsigned int pending;
	size_t unsent; /* octets */
	bool parsing, reading, ended, closing;
	bool queued; /* whole questions in the buffer wait for a turn */
	size_t filled;
	uint8_t buffer[PREFIX + LISTENER_TCP_QUESTION_MAX];
	struct connection *prev, *next;
	struct connection *queue_prev, *queue_next;
	UT_hash_handle hh;
};

struct listener_tcp {
	struct acceptor *acceptor; /* owned */
	uv_timer_t timer;
	uv_idle_t idle; /* active while connections are queued */
	struct listener_user user;
	uint64_t serial;
	bool closing;
	unsigned int open_handles;
	unsigned int count;
	size_t unsent;                  /* octets, of all connections */
	struct connection *connections; /* owned; least recently used first */
	struct connection *by_serial;
	struct connection *queue;
	unsigned int turn_left; /* questions */
};

struct reply_write {
	uv_write_t request;
	struct connection *connection;
	size_t size;
	uint8_t bytes[];
};

static void connection_resume(struct connection *connection);
static void on_turn(uv_idle_t *idle);

static void handle_closed(struct listener_tcp *listener)
{
	if (!--listener->open_handles && listener->closing)
		free(listener);
}

static void on_connection_closed(uv_handle_t *handle)
{
	struct connection *connection = handle->data;

	handle_closed(connection->listener);
	free(connection);
}

static void queue_leave(struct connection *connection)
{
	struct listener_tcp *listener = connection->listener;

	if (!connection->queued)
		return;
	connection->queued = false;
	DL_DELETE2(listener->queue, connection, queue_prev, queue_next);
}

static void queue_join(struct connection *connection)
{
	struct listener_tcp *listener = connection->listener;

	if (connection->queued)
		return;
	connection->queued = true;
	DL_APPEND2(listener->queue, connection, queue_prev, queue_next);
	uv_idle_start(&listener->idle, on_turn); /* which fails without a callback only */
}

static void connection_close(struct connection *connection)
{
	struct listener_tcp *listener = connection->listener;

	if (connection->closing)
		return;
	connection->closing = true;
	queue_leave(connection);
	HASH_DEL(listener->by_serial, connection);
	DL_DELETE(listener->connections, connection);
	listener->count--;
	uv_close((uv_handle_t *)&connection->handle, on_connection_closed);
}

static void connection_touch(struct connection *connection)
{
	struct listener_tcp *listener = connection->listener;

	connection->used = uv_now(listener->timer.loop);
	DL_DELETE(listener->connections, connection);
	DL_APPEND(listener->connections, connection);
}

/* A question was answered or a reply was taken: is this connection at its end? */
static void connection_settle(struct connection *connection)
{
	if (!connection->closing && connection->ended && !connection->queued && !connection->pending && !connection->unsent)
		connection_close(connection);
}

static void hand_on(struct connection *connection, const uint8_t *wire, size_t size)
{
	struct listener_tcp *listener = connection->listener;
	struct client client = {
		.network = listener->user.network,
		.protocol = IPPROTO_TCP,
		.address = connection->address,
		.port = connection->port,
		.listener = listener,
		.connection = connection->serial,
	};

	connection->pending++;
	listener->turn_left--;
	connection_touch(connection);
	listener->user.receive(listener->user.context, &client, wire, size);
}

static size_t message_size(const uint8_t *prefix)
{
	return (size_t)prefix[0] << 8 | prefix[1];
}

/* Is there a whole question in the buffer from @at on? Or one that is too long, which is not waited for. */
static bool is_whole(const struct connection *connection, size_t at)
{
	size_t filled = connection->filled - at, size;

	if (filled < PREFIX)
		return false;
	size = message_size(connection->buffer + at);
	return size > LISTENER_TCP_QUESTION_MAX || filled - PREFIX >= size;
}

/* Hand on whole questions in the buffer, as far as the limits allow. What is left of them has to wait for a turn, or for replies. */
static void connection_parse(struct connection *connection)
{
	const struct listener_tcp *listener = connection->listener;
	unsigned int handed = 0;
	size_t at = 0;

	connection->parsing = true; /* a reply may come from inside receive() */
	while (!connection->closing && connection->pending < LISTENER_TCP_PENDING_MAX && is_whole(connection, at)) {
		size_t size = message_size(connection->buffer + at);

		if (handed++ == LISTENER_TCP_EACH || !listener->turn_left) {
			queue_join(connection);
			break;
		}
		if (size > LISTENER_TCP_QUESTION_MAX) {
			++*connection->listener->user.dropped;
			connection_close(connection);
			break;
		}
		hand_on(connection, connection->buffer + at + PREFIX, size);
		at += PREFIX + size;
	}
	connection->parsing = false;
	connection->filled -= at;
	memmove(connection->buffer, connection->buffer + at, connection->filled);
}

static void on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
	struct connection *connection = handle->data;

	(void)suggested;
	*out = uv_buf_init((char *)connection->buffer + connection->filled,
			   (unsigned int)(sizeof(connection->buffer) - connection->filled));
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
	struct connection *connection = stream->data;

	(void)buffer;
	if (connection->closing || !size)
		return;
	if (size == UV_EOF) {
		connection->ended = true;
		connection->reading = false;
		uv_read_stop(stream);
		connection_settle(connection);
		return;
	}
	if (size < 0) {
		connection_close(connection);
		return;
	}
	connection->filled += (size_t)size;
	connection_resume(connection);
}

/* Take what is in the buffer; read on unless too many questions wait. */
static void connection_resume(struct connection *connection)
{
	bool room;

	connection_parse(connection);
	if (connection->closing || connection->ended)
		return;
	/* Without room in the buffer libuv would see ENOBUFS; it is only full while too many questions wait. */
	room = connection->pending < LISTENER_TCP_PENDING_MAX && connection->filled < sizeof(connection->buffer);
	if (room && !connection->reading && uv_read_start((uv_stream_t *)&connection->handle, on_allocate, on_read)) {
		connection_close(connection);
		return;
	}
	if (!room && connection->reading)
		uv_read_stop((uv_stream_t *)&connection->handle);
	connection->reading = room;
}

/* The next turn of the loop. */
static void on_turn(uv_idle_t *idle)
{
	struct listener_tcp *listener = idle->data;

	listener->turn_left = LISTENER_TCP_TURN;
	while (!listener->closing && listener->queue && listener->turn_left) {
		struct connection *connection = listener->queue;

		queue_leave(connection);
		connection_resume(connection);
		connection_settle(connection);
	}
	if (!listener->queue)
		uv_idle_stop(idle);
}

static unsigned int connections_from(const struct listener_tcp *listener, const struct address *address)
{
	const struct connection *connection;
	unsigned int count = 0;

	DL_FOREACH (listener->connections, connection)
		count += address_equal(&connection->address, address);
	return count;
}

/* Return: the connection that has been idle longest, among those of @address only when it is given. */
static struct connection *oldest_idle(struct listener_tcp *listener, const struct address *address)
{
	struct connection *connection;

	DL_FOREACH (listener->connections, connection) {
		if (connection->pending || connection->unsent || (address && !address_equal(&connection->address, address)))
			continue;
		return connection;
	}
	return NULL;
}

/* Make room for one more connection from @address. Return: false when none of the others is idle. */
static bool make_room(struct listener_tcp *listener, const struct address *address)
{
	struct connection *victim;

	if (connections_from(listener, address) >= LISTENER_TCP_SOURCE_MAX)
		victim = oldest_idle(listener, address);
	else if (listener->count >= LISTENER_TCP_MAX)
		victim = oldest_idle(listener, NULL);
	else
		return true;
	if (victim)
		connection_close(victim);
	return victim;
}

static bool connection_peer(struct connection *connection)
{
	struct sockaddr_storage sa;
	int length = sizeof(sa);

	return !uv_tcp_getpeername(&connection->handle, (struct sockaddr *)&sa, &length) &&
	       address_from_sockaddr((const struct sockaddr *)&sa, &connection->address, &connection->port);
}

/* Add an accepted connection to the tables. Return: false when it has to be closed. */
static bool connection_admit(struct listener_tcp *listener, struct connection *connection)
{
	if (!connection_peer(connection) || !make_room(listener, &connection->address))
		return false;
	connection->serial = ++listener->serial;
	HASH_ADD(hh, listener->by_serial, serial, sizeof(connection->serial), connection);
	if (!connection->hh.tbl)
		return false;
	connection->used = uv_now(listener->timer.loop);
	DL_APPEND(listener->connections, connection);
	listener->count++;
	return true;
}

static void connection_refuse(struct connection *connection)
{
	++*connection->listener->user.dropped;
	connection->closing = true;
	uv_close((uv_handle_t *)&connection->handle, on_connection_closed);
}

static void on_connection(void *context, int fd)
{
	struct listener_tcp *listener = context;
	struct connection *connection = calloc(1, sizeof(*connection));

	if (!connection || uv_tcp_init(listener->timer.loop, &connection->handle)) {
		++*listener->user.dropped;
		free(connection);
		close(fd);
		return;
	}
	connection->handle.data = connection;
	connection->listener = listener;
	listener->open_handles++;
	if (uv_tcp_open(&connection->handle, fd)) {
		close(fd);
		connection_refuse(connection);
	} else if (!connection_admit(listener, connection)) {
		connection_refuse(connection);
	} else {
		uv_tcp_nodelay(&connection->handle, 1);
		connection_resume(connection);
	}
}

static void on_sweep(uv_timer_t *timer)
{
	struct listener_tcp *listener = timer->data;
	uint64_t now = uv_now(timer->loop);

	while (!listener->closing && listener->connections && now - listener->connections->used >= LISTENER_TCP_IDLE_MS)
		connection_close(listener->connections);
}

static void on_handle_closed(uv_handle_t *handle)
{
	handle_closed(handle->data);
}

/* Takes over the bound descriptor. */
static int listener_open(uv_loop_t *loop, struct listener_tcp *listener, int fd)
{
	int error;

	if (listen(fd, BACKLOG)) {
		error = -errno;
		close(fd);
		return error;
	}
	error = acceptor_new(loop, fd, on_connection, listener, &listener->acceptor);
	return error ? error : uv_timer_start(&listener->timer, on_sweep, SWEEP_MS, SWEEP_MS);
}

int listener_tcp_new(uv_loop_t *loop, const struct address *address, uint16_t port, const struct listener_user *user,
		     struct listener_tcp **out)
{
	struct listener_tcp *listener = calloc(1, sizeof(*listener));
	int fd, error;

	if (!listener)
		return -ENOMEM;
	fd = listener_bind(SOCK_STREAM, address, port);
	if (fd < 0) {
		free(listener);
		return fd;
	}
	uv_timer_init(loop, &listener->timer);
	uv_idle_init(loop, &listener->idle);
	listener->user = *user;
	listener->turn_left = LISTENER_TCP_TURN;
	listener->timer.data = listener->idle.data = listener;
	listener->open_handles = 2;
	error = listener_open(loop, listener, fd);
	if (error) {
		listener_tcp_close(listener);
		return error;
	}
	*out = listener;
	return 0;
}

static void on_written(uv_write_t *request, int status)
{
	struct reply_write *write = request->data;
	struct connection *connection = write->connection;

	connection->unsent -= write->size;
	connection->listener->unsent -= write->size;
	free(write);
	if (connection->closing)
		return;
	if (status) {
		connection_close(connection);
		return;
	}
	connection_touch(connection);
	connection_settle(connection);
}

static bool connection_write(struct connection *connection, const uint8_t *wire, size_t size)
{
	struct reply_write *write = malloc(sizeof(*write) + PREFIX + size);
	uv_buf_t buffer;

	if (!write)
		return false;
	write->request.data = write;
	write->connection = connection;
	write->size = PREFIX + size;
	write->bytes[0] = (uint8_t)(size >> 8);
	write->bytes[1] = (uint8_t)size;
	memcpy(write->bytes + PREFIX, wire, size);
	buffer = uv_buf_init((char *)write->bytes, (unsigned int)write->size);
	if (uv_write(&write->request, (uv_stream_t *)&connection->handle, &buffer, 1, on_written)) {
		free(write);
		return false;
	}
	connection->unsent += write->size;
	connection->listener->unsent += write->size;
	return true;
}

/* May so much more wait for the client to take it? Who reads slowly must not take the room of others. */
static bool has_room(const struct connection *connection, size_t size)
{
	size_t own = connection->unsent + size;

	return own <= LISTENER_TCP_UNSENT_MAX &&
	       shares_allow((unsigned int)own, (unsigned int)connection->listener->unsent, LISTENER_TCP_UNSENT_ALL_MAX);
}

bool listener_tcp_reply(struct listener_tcp *listener, const struct client *client, const uint8_t *wire, size_t size)
{
	struct connection *connection;
	bool sent;

	HASH_FIND(hh, listener->by_serial, &client->connection, sizeof(client->connection), connection);
	if (!connection || size > UINT16_MAX) {
		*listener->user.dropped += size > 0;
		return false;
	}
	connection->pending--;
	sent = !size || (has_room(connection, size) && connection_write(connection, wire, size));
	if (!sent) {
		++*listener->user.dropped;
		connection_close(connection); /* a slow reader, or no memory: the client must not wait for this reply */
		return false;
	}
	if (!connection->parsing && !connection->queued)
		connection_resume(connection);
	connection_settle(connection);
	return true;
}

void listener_tcp_close(struct listener_tcp *listener)
{
	struct connection *connection, *next;

	if (listener->closing)
		return;
	listener->closing = true;
	DL_FOREACH_SAFE (listener->connections, connection, next)
		connection_close(connection);
	acceptor_close(listener->acceptor);
	uv_close((uv_handle_t *)&listener->timer, on_handle_closed);
	uv_close((uv_handle_t *)&listener->idle, on_handle_closed);
}
