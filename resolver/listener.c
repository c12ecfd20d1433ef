/* SPDX-License-Identifier: MIT */
/* What UDP and TCP listeners share: binding, and finding the right one for a reply. */

#include "resolver/listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <unistd.h>

#define LISTENER_BUFFER (1024 * 1024) /* octets of socket buffer: a burst of questions while a reload takes 10 ms */

static void listener_buffers(int fd)
{
	const int size = LISTENER_BUFFER;

	/* The FORCE options need NET_ADMIN; without it the kernel's limit has to do. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)))
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)))
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

static int listener_options(int fd, int type, const struct address *address)
{
	const int on = 1;

	/* Connections in TIME_WAIT must not keep a restarted worker from its port. For UDP the option would allow stealing it. */
	if (type == SOCK_STREAM && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)))
		return -errno;
	if (address->family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)))
		return -errno;
	/* Listeners come before their address is claimed: an app that can see the address finds the port open. */
	if (setsockopt(fd, address->family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP,
		       address->family == AF_INET6 ? IPV6_FREEBIND : IP_FREEBIND, &on, sizeof(on)))
		return -errno;
	if (type == SOCK_DGRAM)
		listener_buffers(fd);
	return 0;
}

int listener_bind(int type, const struct address *address, uint16_t port)
{
	struct sockaddr_storage sa;
	socklen_t length = address_to_sockaddr(address, port, &sa);
	int fd, error;

	fd = socket(address->family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	error = listener_options(fd, type, address);
	if (!error && bind(fd, (const struct sockaddr *)&sa, length))
		error = -errno;
	if (error) {
		close(fd);
		return error;
	}
	return fd;
}

bool listener_reply(const struct client *client, const uint8_t *wire, size_t size)
{
	if (!client->listener)
		return false;
	if (client->protocol == IPPROTO_TCP)
		return listener_tcp_reply(client->listener, client, wire, size);
	return listener_udp_reply(client->listener, client, wire, size);
}
