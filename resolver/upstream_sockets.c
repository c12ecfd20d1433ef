/* SPDX-License-Identifier: MIT */
/*
 * The pool of UDP sockets with random ports, one per family.
 *
 * Theory of operation: sockets are opened as they are needed, POOL_STEP per query until there are UPSTREAM_SOCKETS. A query leaves through
 * a random one of them, so that who forges an answer has to guess port and id. After UPSTREAM_SOCKET_USES queries a socket is not chosen
 * any more; once nothing is in flight on it another one with a new port takes its place. Sockets are not connected: one serves all servers,
 * and a reply's source is compared in upstream.c.
 */

#include "resolver/upstream_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POOL_STEP     16
#define PORT_FIRST    1024
#define PORT_ATTEMPTS 8    /* random ports before the kernel chooses one */
#define READ_BATCH    16   /* datagrams taken from a socket in one turn of the loop */
#define READ_SIZE     4096 /* octets; we ask for MESSAGE_UDP_SIZE */

static struct {
	struct mmsghdr headers[READ_BATCH];
	struct iovec vectors[READ_BATCH];
	struct sockaddr_storage from[READ_BATCH];
	uint8_t wire[READ_BATCH][READ_SIZE];
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

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct upstream_socket *socket = poll->data;
	int count;

	(void)events;
	if (socket->closing)
		return;
	if (status < 0)
		watch_again(socket);
	for (unsigned int i = 0; i < READ_BATCH; i++) {
		in.vectors[i] = (struct iovec){.iov_base = in.wire[i], .iov_len = READ_SIZE};
		in.headers[i].msg_hdr = (struct msghdr){
			.msg_name = &in.from[i],
			.msg_namelen = sizeof(in.from[i]),
			.msg_iov = &in.vectors[i],
			.msg_iovlen = 1,
		};
	}
	count = recvmmsg(socket->fd, in.headers, READ_BATCH, MSG_DONTWAIT, NULL);
	/* An answer may end a lookup, and that may lead to a new query, which may replace this socket. */
	for (int i = 0; i < count && !socket->closing; i++) {
		if (in.headers[i].msg_hdr.msg_flags & MSG_TRUNC)
			socket->upstream->counters.ignored++;
		else
			upstream_received(socket->upstream, socket, (const struct sockaddr *)&in.from[i], in.wire[i],
					  in.headers[i].msg_len);
	}
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

static int socket_open(struct upstream *upstream, int family, struct upstream_socket **out)
{
	struct upstream_socket *socket = calloc(1, sizeof(*socket));
	int error;

	if (!socket)
		return -ENOMEM;
	socket->fd = open_descriptor(upstream, family);
	error = socket->fd < 0 ? socket->fd : uv_poll_init(upstream->loop, &socket->poll, socket->fd);
	if (error) {
		if (socket->fd >= 0)
			close(socket->fd);
		free(socket);
		return error;
	}
	socket->upstream = upstream;
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
		int error = socket_open(upstream, pool->family, &pool->sockets[pool->open]);

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

	if (socket_open(upstream, pool->family, &fresh))
		return;
	socket_close(pool->sockets[slot]);
	pool->sockets[slot] = fresh;
}

int upstream_sockets_choose(struct upstream *upstream, int family, struct upstream_socket **out)
{
	struct socket_pool *pool = family == AF_INET6 ? &upstream->pool6 : &upstream->pool4;
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

static void pool_close(struct socket_pool *pool)
{
	for (unsigned int i = 0; i < pool->open; i++)
		socket_close(pool->sockets[i]);
	pool->open = 0;
}

void upstream_sockets_close(struct upstream *upstream)
{
	pool_close(&upstream->pool4);
	pool_close(&upstream->pool6);
}
