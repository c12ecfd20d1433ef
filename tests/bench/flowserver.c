/* SPDX-License-Identifier: MIT */
/*
 * bench-flowserver GREETING-PORT REQUEST-PORT - the server of bench-flowload and bench-firstflow
 *
 * On every address. TCP: on the first port it speaks first, with one octet; on the other one it answers what comes first with one octet.
 * When the client ends the stream it is told how many octets came. UDP, on the second port: 64 octets for each datagram.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench.h"

#define BACKLOG   4096
#define EVENTS    64
#define REPLY     64
#define BLOCK     262144
#define FILES_MAX 65536

/* A connection by its descriptor. */
static struct {
	uint64_t octets;
	int answered;
} connections[FILES_MAX];

static int events, greeting, requests, datagrams;

static void watch(int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

	if (epoll_ctl(events, EPOLL_CTL_ADD, fd, &event) != 0)
		bench_die("epoll_ctl");
}

static int listen_on(int type, uint16_t port)
{
	struct sockaddr_in own = bench_address("0.0.0.0", port);
	int fd = bench_socket(type | SOCK_NONBLOCK), yes = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &yes, sizeof(yes));
	if (bind(fd, (struct sockaddr *)&own, sizeof(own)) != 0 || (type == SOCK_STREAM && listen(fd, BACKLOG) != 0))
		bench_die("bind");
	watch(fd);
	return fd;
}

static void speak(int fd)
{
	connections[fd].answered = 1;
	if (send(fd, "!", 1, MSG_NOSIGNAL) < 0)
		return; /* reset already: the next look at it ends it */
}

static void take_connections(int listener)
{
	for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
		if (fd >= FILES_MAX) {
			close(fd);
			continue;
		}
		memset(&connections[fd], 0, sizeof(connections[fd]));
		if (listener == greeting)
			speak(fd);
		watch(fd);
	}
}

static void read_connection(int fd)
{
	static uint8_t block[BLOCK];
	ssize_t got = recv(fd, block, sizeof(block), 0);

	if (got > 0) {
		connections[fd].octets += (uint64_t)got;
		if (!connections[fd].answered)
			speak(fd);
		return;
	}
	if (got < 0 && errno == EAGAIN)
		return;
	if (got == 0 && send(fd, &connections[fd].octets, sizeof(connections[fd].octets), MSG_NOSIGNAL) > 0)
		close(fd);
	else
		bench_reset(fd);
}

/* Replies come from the address that was written to: the control message goes back as it came. */
static void answer_datagrams(void)
{
	uint8_t data[2048], control[64];
	struct sockaddr_in client;
	struct iovec part = {.iov_base = data, .iov_len = sizeof(data)};
	struct msghdr message = {.msg_name = &client,
				 .msg_namelen = sizeof(client),
				 .msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control)};

	while (recvmsg(datagrams, &message, 0) > 0) {
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);

		if (header && header->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo info;

			memcpy(&info, CMSG_DATA(header), sizeof(info));
			info.ipi_spec_dst = info.ipi_addr;
			info.ipi_ifindex = 0;
			memcpy(CMSG_DATA(header), &info, sizeof(info));
		}
		part.iov_len = REPLY;
		if (sendmsg(datagrams, &message, 0) < 0)
			errno = 0; /* the client has closed its port */
		part.iov_len = sizeof(data);
		message.msg_controllen = sizeof(control);
	}
}

int main(int argc, char **argv)
{
	struct rlimit files = {.rlim_cur = FILES_MAX, .rlim_max = FILES_MAX};

	if (argc != 3)
		bench_die("usage: bench-flowserver GREETING-PORT REQUEST-PORT");
	setrlimit(RLIMIT_NOFILE, &files);
	events = epoll_create1(EPOLL_CLOEXEC);
	greeting = listen_on(SOCK_STREAM, (uint16_t)bench_number(argv[1]));
	requests = listen_on(SOCK_STREAM, (uint16_t)bench_number(argv[2]));
	datagrams = listen_on(SOCK_DGRAM, (uint16_t)bench_number(argv[2]));
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct epoll_event ready[EVENTS];
		int count = epoll_wait(events, ready, EVENTS, -1);

		for (int i = 0; i < count; i++) {
			int fd = ready[i].data.fd;

			if (fd == greeting || fd == requests)
				take_connections(fd);
			else if (fd == datagrams)
				answer_datagrams();
			else
				read_connection(fd);
		}
	}
}
