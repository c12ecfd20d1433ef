/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: a datagram is sent from a socket that is bound to the app's address and port. It is not connected: replies that come
 * while it is there would be taken for its own (early demultiplexing), and the app would miss them. For the RST a socket is made to believe
 * that it is the app's end of the connection (TCP_REPAIR: nothing is sent for that), and then closed without lingering. Linux 3.5.
 */
#include "gateway/verify/transparent.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define REPAIR_ON           1
#define REPAIR_OFF_NO_PROBE (-1) /* TCP_REPAIR_OFF_NO_WP, Linux 4.19 */
#define SEND_QUEUE          2    /* TCP_SEND_QUEUE */

static socklen_t set_address(const struct address *address, uint16_t port, struct sockaddr_storage *out)
{
	struct sockaddr_in *ipv4 = (struct sockaddr_in *)out;
	struct sockaddr_in6 *ipv6 = (struct sockaddr_in6 *)out;

	memset(out, 0, sizeof(*out));
	out->ss_family = (sa_family_t)address->family;
	if (address->family == AF_INET) {
		memcpy(&ipv4->sin_addr, address->bytes, sizeof(ipv4->sin_addr));
		ipv4->sin_port = htons(port);
		return sizeof(*ipv4);
	}
	memcpy(&ipv6->sin6_addr, address->bytes, sizeof(ipv6->sin6_addr));
	ipv6->sin6_port = htons(port);
	return sizeof(*ipv6);
}

static int set_option(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) == 0 ? 0 : -errno;
}

/* A socket that may have the app's address. Return: it, or -errno. */
static int open_socket(const struct flow *flow, int type)
{
	bool ipv4 = flow->source.family == AF_INET;
	int fd = socket(flow->source.family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int rc;

	if (fd < 0)
		return -errno;
	rc = ipv4 ? set_option(fd, IPPROTO_IP, IP_TRANSPARENT, 1) : set_option(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, 1);
	if (rc == 0)
		rc = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (rc == 0)
		return fd;
	close(fd);
	return rc;
}

/* Return: 0 or -errno. */
static int take_source(int fd, const struct flow *flow)
{
	struct sockaddr_storage address;
	socklen_t size = set_address(&flow->source, flow->source_port, &address);

	return bind(fd, (struct sockaddr *)&address, size) == 0 ? 0 : -errno;
}

static int take_ends(int fd, const struct flow *flow)
{
	struct sockaddr_storage address;
	socklen_t size = set_address(&flow->destination, flow->destination_port, &address);
	int rc = take_source(fd, flow);

	if (rc == 0 && connect(fd, (struct sockaddr *)&address, size) != 0)
		rc = -errno;
	return rc;
}

int transparent_send(const struct flow *flow, const uint8_t *content, size_t size)
{
	struct sockaddr_storage address;
	socklen_t address_size = set_address(&flow->destination, flow->destination_port, &address);
	int fd = open_socket(flow, SOCK_DGRAM);
	int rc = fd < 0 ? fd : take_source(fd, flow);

	if (rc == 0 && sendto(fd, content, size, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address, address_size) < 0)
		rc = -errno;
	if (fd >= 0)
		close(fd);
	return rc;
}

int transparent_reset(const struct flow *flow, uint32_t sequence)
{
	const struct linger at_once = {.l_onoff = 1};
	int fd = open_socket(flow, SOCK_STREAM);
	int rc = fd < 0 ? fd : set_option(fd, IPPROTO_TCP, TCP_REPAIR, REPAIR_ON);

	if (rc == 0)
		rc = set_option(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, SEND_QUEUE);
	if (rc == 0)
		rc = set_option(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, (int)sequence);
	if (rc == 0)
		rc = take_ends(fd, flow);
	if (rc == 0)
		rc = set_option(fd, IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF_NO_PROBE);
	if (rc == 0 && setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)) != 0)
		rc = -errno;
	if (fd >= 0)
		close(fd); /* here it is sent; with an error before it nothing is */
	return rc;
}
