/* SPDX-License-Identifier: MIT */
/*
 * TCP listener: RFC 7766.
 *
 * Theory of operation: each connection reads into a buffer that holds one question of the largest size and usually many
 * small ones. Whole questions are handed on until LISTENER_TCP_PENDING_MAX of them wait for a reply; then reading stops, and goes on when
 * a reply has been written. Replies are written in the order in which they come.
 *
 * What a client can cost is bounded: connections per listener and per address, the size of a question, questions in progress,
 * replies not taken. `connections` is ordered by last use; a timer ends those at its head which were idle too long. A byte now
 * and then is no use: only whole questions and replies that were taken count.
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

#define PREFIX   2   /* octets of length in front of each message */
#define BACKLOG  128 /* connections that the kernel holds for us */
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
	size_t filled;
	uint8_t buffer[PREFIX + LISTENER_TCP_QUESTION_MAX];
	struct connection *prev, *next;
	UT_hash_handle hh;
};

struct listener_tcp {
	uv_tcp_t handle;
	uv_timer_t timer;
	struct listener_user user;
	uint64_t serial;
	bool closing;
	bool waiting; /* a connection could not be accepted for want of memory; libuv tells only once */
	unsigned int open_handles;
	unsigned int count;
	struct connection *connections; /* owned; least recently used first */
	struct connection *by_serial;
};

struct reply_write {
	uv_write_t request;
	struct connection *connection;
	size_t size;
	uint8_t bytes[];
};

static void connection_resume(struct connection *connection);

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

static void connection_close(struct connection *connection)
{
	struct listener_tcp *listener = connection->listener;

	if (connection->closing)
		return;
	connection->closing = true;
	HASH_DEL(listener->by_serial, connection);
	DL_DELETE(listener->connections, connection);
	listener->count--;
	uv_close((uv_handle_t *)&connection->handle, on_connection_closed);
}

static void connection_touch(struct connection *connection)
{
	struct listener_tcp *listener = connection->listener;

	connection->used = uv_now(listener->handle.loop);
	DL_DELETE(listener->connections, connection);
	DL_APPEND(listener->connections, connection);
}

/* A question was answered or a reply was taken: is this connection at its end? */
static void connection_settle(struct connection *connection)
{
	if (!connection->closing && connection->ended && !connection->pending && !connection->unsent)
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
	connection_touch(connection);
	listener->user.receive(listener->user.context, &client, wire, size);
}

static size_t message_size(const uint8_t *prefix)
{
	return (size_t)prefix[0] << 8 | prefix[1];
}

/* Hand on every whole question in the buffer, as far as the limit allows. */
static void connection_parse(struct connection *connection)
{
	size_t at = 0;

	connection->parsing = true; /* a reply may come from inside receive() */
	while (!connection->closing && connection->pending < LISTENER_TCP_PENDING_MAX && connection->filled - at >= PREFIX) {
		size_t size = message_size(connection->buffer + at);

		if (size > LISTENER_TCP_QUESTION_MAX) {
			++*connection->listener->user.dropped;
			connection_close(connection);
			break;
		}
		if (connection->filled - at < PREFIX + size)
			break;
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
	connection->used = uv_now(listener->handle.loop);
	DL_APPEND(listener->connections, connection);
	listener->count++;
	return true;
}

static void on_connection(uv_stream_t *server, int status)
{
	struct listener_tcp *listener = server->data;
	struct connection *connection;

	if (listener->closing || status)
		return;
	connection = calloc(1, sizeof(*connection));
	if (!connection || uv_tcp_init(server->loop, &connection->handle)) {
		free(connection);
		listener->waiting = true;
		return;
	}
	connection->handle.data = connection;
	connection->listener = listener;
	listener->open_handles++;
	if (uv_accept(server, (uv_stream_t *)&connection->handle) || !connection_admit(listener, connection)) {
		++*listener->user.dropped;
		connection->closing = true;
		uv_close((uv_handle_t *)&connection->handle, on_connection_closed);
		return;
	}
	uv_tcp_nodelay(&connection->handle, 1);
	connection_resume(connection);
}

static void on_sweep(uv_timer_t *timer)
{
	struct listener_tcp *listener = timer->data;
	uint64_t now = uv_now(timer->loop);

	while (!listener->closing && listener->connections && now - listener->connections->used >= LISTENER_TCP_IDLE_MS)
		connection_close(listener->connections);
	if (!listener->closing && listener->waiting) {
		listener->waiting = false;
		on_connection((uv_stream_t *)&listener->handle, 0);
	}
}

static void on_handle_closed(uv_handle_t *handle)
{
	handle_closed(handle->data);
}

/* Give the bound descriptor to libuv, which closes it from then on. */
static int listener_open(struct listener_tcp *listener, int fd)
{
	int error = uv_tcp_open(&listener->handle, fd);

	if (error) {
		close(fd);
		return error;
	}
	error = uv_listen((uv_stream_t *)&listener->handle, BACKLOG, on_connection);
	if (error)
		return error;
	return uv_timer_start(&listener->timer, on_sweep, SWEEP_MS, SWEEP_MS);
}

int listener_tcp_new(uv_loop_t *loop, const struct address *address, uint16_t port, const struct listener_user *user,
		     struct listener_tcp **out)
{
	struct listener_tcp *listener = calloc(1, sizeof(*listener));
	int fd, error;

	if (!listener)
		return -ENOMEM;
	fd = listener_bind(SOCK_STREAM, address, port);
	if (fd < 0 || uv_tcp_init(loop, &listener->handle)) {
		if (fd >= 0)
			close(fd);
		free(listener);
		return fd < 0 ? fd : -ENOMEM;
	}
	uv_timer_init(loop, &listener->timer);
	listener->user = *user;
	listener->handle.data = listener->timer.data = listener;
	listener->open_handles = 2;
	error = listener_open(listener, fd);
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
	return true;
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
	sent = !size || (connection->unsent + size <= LISTENER_TCP_UNSENT_MAX && connection_write(connection, wire, size));
	if (!sent) {
		++*listener->user.dropped;
		connection_close(connection); /* a slow reader, or no memory: the client must not wait for this reply */
		return false;
	}
	if (!connection->parsing)
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
	uv_close((uv_handle_t *)&listener->handle, on_handle_closed);
	uv_close((uv_handle_t *)&listener->timer, on_handle_closed);
}
