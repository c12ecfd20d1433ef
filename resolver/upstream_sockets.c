/* SPDX-License-Identifier: MIT */
/*
 * The pool of UDP sockets with random ports, one per family.
 *
 * Theory of operation: sockets are opened as they are needed, POOL_STEP per choice until there are UPSTREAM_SOCKETS. Queries leave through
 * a random one of them, so that who forges an answer has to guess port and id. After UPSTREAM_SOCKET_USES queries a socket is not chosen
 * any more; once nothing is in flight on it another one with a new port takes its place. Sockets are not connected: one serves all servers,
 * and a reply's source is compared in upstream.c.
 *
 * The socket is chosen once for the queries of a turn of the loop, UPSTREAM_BATCH at most, and anew in the next one: they leave in one
 * sendmmsg(), and their answers come to one place, where one recvmmsg() takes them. That they share a port does not help who forges: there
 * are as many pairs of port and id to be hit as if each had a port of its own, and a hit counts only for the one query whose name and
 * letter case it repeats, too. Equal questions are joined, so that no name has many queries. Nor can he find the port out with a query of
 * his own in the same turn: apps do not see it, and a name server of his hears from the upstream server, not from us.
 */

#include "resolver/upstream_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#define POOL_STEP     16
#define PORT_FIRST    1024
#define PORT_ATTEMPTS 8    /* random ports before the kernel chooses one */
#define READ_SIZE     4096 /* octets; we ask for MESSAGE_UDP_SIZE */

static struct {
	struct mmsghdr headers[UPSTREAM_BATCH];
	struct iovec vectors[UPSTREAM_BATCH];
	struct sockaddr_storage from[UPSTREAM_BATCH];
	uint8_t wire[UPSTREAM_BATCH][READ_SIZE];
} in;

static void on_readable(uv_poll_t *poll, int status, int events);

/* Take the error off the socket and watch it again: libuv has stopped. An unconnected one has none unless somebody else sets it. */
static void watch_again(struct upstream_socket *socket)
{
	int error;
	socklen_t length = sizeof(error);

	(void)getsockopt(socket->fd, SOL_SOCKET, SO_ERROR, &error, &length);
	(void)uv_poll_start(&socket->poll, UV_READABLE, on_readable); /* it has been started before, so this does not fail */
}

static void prepare(unsigned int i)
{
	in.vectors[i] = (struct iovec){.iov_base = in.wire[i], .iov_len = READ_SIZE};
	in.headers[i].msg_hdr = (struct msghdr){
		.msg_name = &in.from[i],
		.msg_namelen = sizeof(in.from[i]),
		.msg_iov = &in.vectors[i],
		.msg_iovlen = 1,
	};
}

/* The kernel writes into the headers that it uses: only these are made anew, for mostly one datagram waits. */
static int receive_batch(int fd)
{
	static int used = UPSTREAM_BATCH;
	int count;

	for (int i = 0; i < used; i++)
		prepare((unsigned int)i);
	count = recvmmsg(fd, in.headers, UPSTREAM_BATCH, MSG_DONTWAIT, NULL);
	used = count > 0 ? count : 1;
	return count;
}

static void receive(struct upstream_socket *socket)
{
	int count = receive_batch(socket->fd);

	/* An answer may end a lookup, and that may lead to a new query, which may replace this socket. */
	for (int i = 0; i < count && !socket->closing; i++) {
		if (in.headers[i].msg_hdr.msg_flags & MSG_TRUNC)
			socket->upstream->counters.ignored++;
		else
			upstream_received(socket->upstream, socket, (const struct sockaddr *)&in.from[i], in.wire[i],
					  in.headers[i].msg_len);
	}
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct upstream_socket *socket = poll->data;

	(void)events;
	if (socket->closing)
		return;
	if (status < 0)
		watch_again(socket);
	receive(socket);
}

static void pool_receive(struct socket_pool *pool)
{
	for (unsigned int i = 0; i < pool->open; i++) {
		if (pool->sockets[i]->in_flight > 0)
			receive(pool->sockets[i]);
	}
}

void upstream_receive(struct upstream *upstream)
{
	pool_receive(&upstream->pool4);
	pool_receive(&upstream->pool6);
}

static int bind_port(int fd, int family, uint16_t port)
{
	struct sockaddr_storage sa;
	struct address any = {.family = (uint8_t)family};
	socklen_t length = address_to_sockaddr(&any, port, &sa);

	return bind(fd, (const struct sockaddr *)&sa, length) ? -errno : 0;
}

static int bind_random(struct upstream *upstream, int fd, int family)
{
	for (unsigned int i = 0; i < PORT_ATTEMPTS; i++) {
		uint16_t port;
		int error = upstream_random(upstream, &port, sizeof(port));

		if (error)
			return error;
		if (port < PORT_FIRST)
			continue;
		error = bind_port(fd, family, port);
		if (error != -EADDRINUSE && error != -EACCES)
			return error;
	}
	return bind_port(fd, family, 0);
}

static int open_descriptor(struct upstream *upstream, int family)
{
	const int on = 1;
	int fd, error = 0;

	fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)))
		error = -errno;
	if (!error)
		error = bind_random(upstream, fd, family);
	if (error) {
		close(fd);
		return error;
	}
	return fd;
}

static void on_closed(uv_handle_t *handle)
{
	struct upstream_socket *socket = handle->data;

	upstream_handle_closed(socket->upstream);
	free(socket);
}

static void socket_close(struct upstream_socket *socket)
{
	socket->closing = true;
	uv_close((uv_handle_t *)&socket->poll, on_closed);
	close(socket->fd);
}

static int socket_open(struct upstream *upstream, struct socket_pool *pool, struct upstream_socket **out)
{
	struct upstream_socket *socket = calloc(1, sizeof(*socket));
	int error;

	if (!socket)
		return -ENOMEM;
	socket->fd = open_descriptor(upstream, pool->family);
	error = socket->fd < 0 ? socket->fd : uv_poll_init(upstream->loop, &socket->poll, socket->fd);
	if (error) {
		if (socket->fd >= 0)
			close(socket->fd);
		free(socket);
		return error;
	}
	socket->upstream = upstream;
	socket->pool = pool;
	socket->poll.data = socket;
	socket->serial = ++upstream->serial;
	upstream->open_handles++;
	error = uv_poll_start(&socket->poll, UV_READABLE, on_readable);
	if (error) {
		socket_close(socket);
		return error;
	}
	*out = socket;
	return 0;
}

/* Open some more sockets. Return: 0 when there is at least one. */
static int pool_grow(struct upstream *upstream, struct socket_pool *pool)
{
	for (unsigned int i = 0; i < POOL_STEP && pool->open < UPSTREAM_SOCKETS; i++) {
		int error = socket_open(upstream, pool, &pool->sockets[pool->open]);

		if (error)
			return pool->open ? 0 : error;
		pool->open++;
	}
	return 0;
}

/* Replace a socket that has been used enough. It stays when no other can be opened: a known port is better than no answer. */
static void pool_renew(struct upstream *upstream, struct socket_pool *pool, unsigned int slot)
{
	struct upstream_socket *fresh;

	if (socket_open(upstream, pool, &fresh))
		return;
	socket_close(pool->sockets[slot]);
	pool->sockets[slot] = fresh;
}

/* Return: 0 with @out set to a random socket, or -errno. */
static int pool_choose(struct upstream *upstream, struct socket_pool *pool, struct upstream_socket **out)
{
	uint32_t random;
	int error = pool_grow(upstream, pool);

	if (!error)
		error = upstream_random(upstream, &random, sizeof(random));
	if (error)
		return error;
	for (unsigned int i = 0; i < pool->open; i++) {
		unsigned int slot = (random + i) % pool->open;

		if (pool->sockets[slot]->uses >= UPSTREAM_SOCKET_USES && !pool->sockets[slot]->in_flight)
			pool_renew(upstream, pool, slot);
		*out = pool->sockets[slot];
		if ((*out)->uses < UPSTREAM_SOCKET_USES)
			return 0;
	}
	return 0; /* all of them are used up and busy: the last one looked at has to serve */
}

int upstream_sockets_choose(struct upstream *upstream, int family, struct upstream_socket **out)
{
	struct socket_pool *pool = family == AF_INET6 ? &upstream->pool6 : &upstream->pool4;

	if (!pool->turn || pool->turn_queries >= UPSTREAM_BATCH || pool->turn->uses >= UPSTREAM_SOCKET_USES) {
		int error = pool_choose(upstream, pool, &pool->turn);

		if (error)
			return error;
		pool->turn_queries = 0;
	}
	pool->turn_queries++;
	*out = pool->turn;
	return 0;
}

void upstream_sockets_queue(struct upstream_try *try)
{
	try->queued = true;
	DL_APPEND2(try->socket->pool->queue, try, queue_prev, queue_next);
}

void upstream_sockets_unqueue(struct upstream_try *try)
{
	try->queued = false;
	DL_DELETE2(try->socket->pool->queue, try, queue_prev, queue_next);
}

int upstream_sockets_send(const struct socket_pool *pool)
{
	struct mmsghdr headers[UPSTREAM_BATCH];
	struct iovec vectors[UPSTREAM_BATCH];
	struct sockaddr_storage to[UPSTREAM_BATCH];
	const struct upstream_socket *socket = pool->queue->socket;
	unsigned int count = 0;
	int sent;

	for (struct upstream_try *try = pool->queue; try && try->socket == socket && count < UPSTREAM_BATCH; try = try->queue_next) {
		socklen_t length = address_to_sockaddr(&try->server.address, try->server.port, &to[count]);

		vectors[count] = (struct iovec){.iov_base = try->query, .iov_len = try->query_size};
		headers[count] = (struct mmsghdr){
			.msg_hdr = {.msg_name = &to[count], .msg_namelen = length, .msg_iov = &vectors[count], .msg_iovlen = 1}};
		count++;
	}
	sent = sendmmsg(socket->fd, headers, count, MSG_DONTWAIT | MSG_NOSIGNAL);
	return sent < 0 ? -errno : sent;
}

static void pool_close(struct socket_pool *pool)
{
	for (unsigned int i = 0; i < pool->open; i++)
		socket_close(pool->sockets[i]);
	pool->open = 0;
	pool->turn = NULL;
}

void upstream_sockets_close(struct upstream *upstream)
{
	pool_close(&upstream->pool4);
	pool_close(&upstream->pool6);
}
