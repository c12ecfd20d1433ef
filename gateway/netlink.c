/* SPDX-License-Identifier: MIT */
/*
 * Netlink sockets.
 *
 * Theory of operation: every request is answered while we wait for it, so a socket has one request under way at most. Answers carry
 * the sequence number of their request; whatever a broken-off dump has left in the socket carries an older one and is skipped. The
 * kernel is the only accepted sender.
 *
 * nf_tables handles a batch inside sendmsg(): when that returns, all acknowledgements and errors already wait in the socket, so they
 * are read without blocking. One error is enough for the kernel to undo the whole batch. The kernel tells them in the order of the
 * messages, and an error of the batch as a whole before them: where the last message is acknowledged, and nothing else was said, there is
 * nothing more to be read.
 */
#include "gateway/netlink.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#define BUFFER_SIZE       32768                /* bytes: the kernel makes the parts of a dump no larger */
#define RECEIVE_BUFFER    (4 * 1024 * 1024)    /* bytes that may wait in a socket */
#define RECEIVE_TIMEOUT_S 5                    /* the kernel answers at once; this only keeps a fault from being a hang */
#define SEND_BUFFER_MAX   (512U * 1024 * 1024) /* bytes of one transaction */

/* The forced variant goes beyond rmem_max and wmem_max and takes CAP_NET_ADMIN; without it the usual limit has to do. */
static int set_buffer(struct netlink *netlink, int forced, int plain, int bytes)
{
	int fd = mnl_socket_get_fd(netlink->socket);

	if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof(bytes)) == 0)
		return 0;
	return setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof(bytes)) == 0 ? 0 : -errno;
}

int netlink_open(struct netlink *netlink, int bus, unsigned int groups)
{
	struct timeval timeout = {.tv_sec = RECEIVE_TIMEOUT_S};
	int one = 1, error;

	*netlink = (struct netlink){.sequence = (uint32_t)time(NULL)};
	netlink->socket = mnl_socket_open2(bus, SOCK_CLOEXEC);
	if (!netlink->socket)
		return -errno;
	if (mnl_socket_bind(netlink->socket, groups, MNL_SOCKET_AUTOPID) < 0) {
		error = -errno;
		netlink_close(netlink);
		return error;
	}
	netlink->port = mnl_socket_get_portid(netlink->socket);
	set_buffer(netlink, SO_RCVBUFFORCE, SO_RCVBUF, RECEIVE_BUFFER);
	/* Acknowledgements without a copy of the request: they stay small. Old kernels only send more. */
	mnl_socket_setsockopt(netlink->socket, NETLINK_CAP_ACK, &one, sizeof(one));
	setsockopt(mnl_socket_get_fd(netlink->socket), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	return 0;
}

void netlink_close(struct netlink *netlink)
{
	if (netlink->socket)
		mnl_socket_close(netlink->socket);
	netlink->socket = NULL;
	free(netlink->spare);
	netlink->spare = NULL;
}

uint32_t netlink_sequence(struct netlink *netlink)
{
	/* Notifications carry 0. */
	if (++netlink->sequence == 0)
		netlink->sequence = 1;
	return netlink->sequence;
}

/* One datagram. Return: bytes, or -errno; datagrams that are not from the kernel are passed over. */
static ssize_t receive_datagram(struct netlink *netlink, void *buffer, size_t size, int flags)
{
	for (;;) {
		struct sockaddr_nl from = {0};
		struct iovec vector = {.iov_base = buffer, .iov_len = size};
		struct msghdr header = {.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &vector, .msg_iovlen = 1};
		ssize_t got = recvmsg(mnl_socket_get_fd(netlink->socket), &header, flags);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (header.msg_flags & MSG_TRUNC)
			return -ENOSPC;
		if (header.msg_namelen == sizeof(from) && from.nl_pid == 0)
			return got;
	}
}

/* Error code of an NLMSG_ERROR or NLMSG_DONE message: 0 or -errno. */
static int message_error(const struct nlmsghdr *message)
{
	size_t size = message->nlmsg_type == NLMSG_ERROR ? sizeof(struct nlmsgerr) : sizeof(int);

	if (mnl_nlmsg_get_payload_len(message) < size)
		return message->nlmsg_type == NLMSG_ERROR ? -EBADMSG : 0;
	return *(const int *)mnl_nlmsg_get_payload(message);
}

/* What is known of a request's answer so far. */
struct answer {
	mnl_cb_t receive;
	void *context;
	uint32_t sequence;
	bool done;
	int error;
};

static void answer_message(struct answer *answer, const struct nlmsghdr *message)
{
	int error;

	if (message->nlmsg_seq != answer->sequence)
		return;
	if ((message->nlmsg_flags & NLM_F_DUMP_INTR) && !answer->error)
		answer->error = -EINTR;
	if (message->nlmsg_type == NLMSG_ERROR || message->nlmsg_type == NLMSG_DONE) {
		error = message_error(message);
		answer->done = true;
		if (error < 0)
			answer->error = error;
	} else if (message->nlmsg_type == NLMSG_OVERRUN) {
		answer->done = true;
		answer->error = -ENOBUFS;
	} else if (message->nlmsg_type >= NLMSG_MIN_TYPE && answer->receive && !answer->error) {
		errno = 0;
		if (answer->receive(message, answer->context) < 0)
			answer->error = errno ? -errno : -EPROTO;
	}
}

int netlink_request(struct netlink *netlink, struct nlmsghdr *message, mnl_cb_t receive, void *context)
{
	struct answer answer = {.receive = receive, .context = context, .sequence = netlink_sequence(netlink)};
	char buffer[BUFFER_SIZE] __attribute__((aligned(8)));

	/* A dump that has begun is not acknowledged apart from its end, so the flag is right for every request. */
	message->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	message->nlmsg_seq = answer.sequence;
	message->nlmsg_pid = netlink->port;
	if (mnl_socket_sendto(netlink->socket, message, message->nlmsg_len) < 0)
		return -errno;
	while (!answer.done) {
		ssize_t got = receive_datagram(netlink, buffer, sizeof(buffer), 0);
		const struct nlmsghdr *part = (const struct nlmsghdr *)buffer;
		int left = (int)got;

		if (got < 0)
			return got == -EAGAIN ? -ETIMEDOUT : (int)got;
		for (; mnl_nlmsg_ok(part, left) && !answer.done; part = mnl_nlmsg_next(part, &left))
			answer_message(&answer, part);
	}
	return answer.error;
}

static int send_batch(struct netlink *netlink, const void *batch, size_t size)
{
	int error;

	if (size > SEND_BUFFER_MAX)
		return -EMSGSIZE;
	if (mnl_socket_sendto(netlink->socket, batch, size) >= 0)
		return 0;
	if (errno != EMSGSIZE)
		return -errno;
	error = set_buffer(netlink, SO_SNDBUFFORCE, SO_SNDBUF, (int)size + 4096);
	if (error < 0)
		return error;
	return mnl_socket_sendto(netlink->socket, batch, size) < 0 ? -errno : 0;
}

/* What the kernel said about a batch. */
struct batch_result {
	uint32_t first; /* sequence number of the batch's first message */
	unsigned int acknowledged;
	int error; /* the first one */
	uint32_t error_sequence;
};

static void batch_message(struct batch_result *result, const struct nlmsghdr *message)
{
	int error;

	/* Older than the batch (modulo 2^32): left over from a request that was given up. */
	if (message->nlmsg_type != NLMSG_ERROR || (int32_t)(message->nlmsg_seq - result->first) < 0)
		return;
	error = message_error(message);
	if (error == 0) {
		result->acknowledged++;
	} else if (result->error == 0) {
		result->error = error;
		result->error_sequence = message->nlmsg_seq;
	}
}

int netlink_transaction(struct netlink *netlink, const void *batch, size_t size, unsigned int acknowledged)
{
	struct batch_result result = {.first = ((const struct nlmsghdr *)batch)->nlmsg_seq};
	char buffer[BUFFER_SIZE] __attribute__((aligned(8)));
	bool lost = false;
	int error;

	netlink->failed = 0;
	error = send_batch(netlink, batch, size);
	if (error < 0)
		return error;
	for (;;) {
		ssize_t got = receive_datagram(netlink, buffer, sizeof(buffer), MSG_DONTWAIT);
		const struct nlmsghdr *message = (const struct nlmsghdr *)buffer;
		int left = (int)got;

		if (got == -EAGAIN)
			break;
		if (got == -ENOBUFS) /* more errors than fit; those before it can still be read */
			lost = true;
		else if (got < 0)
			return (int)got;
		for (; got > 0 && mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left))
			batch_message(&result, message);
		if (result.acknowledged >= acknowledged && !result.error && !lost)
			break;
	}
	netlink->failed = result.error_sequence;
	if (result.error)
		return result.error;
	if (lost)
		return -ENOBUFS;
	return result.acknowledged < acknowledged ? -EPROTO : 0;
}

int netlink_monitor_read(struct netlink *netlink, mnl_cb_t receive, void *context)
{
	char buffer[BUFFER_SIZE] __attribute__((aligned(8)));
	int error = 0;

	for (;;) {
		ssize_t got = receive_datagram(netlink, buffer, sizeof(buffer), MSG_DONTWAIT);
		const struct nlmsghdr *message = (const struct nlmsghdr *)buffer;
		int left = (int)got;

		if (got == -EAGAIN)
			return error;
		if (got == -ENOBUFS)
			error = -ENOBUFS;
		else if (got < 0)
			return (int)got;
		for (; got > 0 && mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left))
			if (message->nlmsg_type >= NLMSG_MIN_TYPE && receive)
				receive(message, context);
	}
}
