/* SPDX-License-Identifier: MIT */
/*
 * UDP listener: one socket per gateway address.
 *
 * Theory of operation: the socket is watched with uv_poll. Each time it is readable one batch is taken with recvmmsg() and every
 * datagram is handed on; what is left waits for the next turn of the loop, so that no socket starves another. Replies are
 * collected in `out` and leave with one sendmmsg() when the resolver flushes at the end of the turn. The kernel refuses
 * to block: what it does not take is dropped and counted, the client asks again. The socket is not connected, so the kernel gives it no
 * errors of what was sent; should it have one all the same (another process with CAP_NET_ADMIN may set it), watching goes on.
 *
 * Reading is synchronous, so all listeners read into the same buffer.
 */

#include "resolver/listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "resolver/message.h"

#define DATAGRAM_MAX 2048 /* octets of a question; longer datagrams are dropped */

struct out_reply {
	struct sockaddr_storage to;
	socklen_t to_length;
	size_t size;
	uint8_t wire[MESSAGE_UDP_SIZE];
};

struct listener_udp {
	uv_poll_t poll;
	int fd;
	bool closing;
	struct listener_user user;
	unsigned int out_count;
	struct out_reply out[LISTENER_BATCH];
};

static struct {
	struct mmsghdr headers[LISTENER_BATCH];
	struct iovec vectors[LISTENER_BATCH];
	struct sockaddr_storage from[LISTENER_BATCH];
	uint8_t wire[LISTENER_BATCH][DATAGRAM_MAX];
} in;

static void on_readable(uv_poll_t *poll, int status, int events);

static int receive_batch(int fd)
{
	for (unsigned int i = 0; i < LISTENER_BATCH; i++) {
		in.vectors[i] = (struct iovec){.iov_base = in.wire[i], .iov_len = DATAGRAM_MAX};
		in.headers[i].msg_hdr = (struct msghdr){
			.msg_name = &in.from[i],
			.msg_namelen = sizeof(in.from[i]),
			.msg_iov = &in.vectors[i],
			.msg_iovlen = 1,
		};
	}
	return recvmmsg(fd, in.headers, LISTENER_BATCH, MSG_DONTWAIT, NULL);
}

static void hand_on(struct listener_udp *listener, unsigned int i)
{
	struct client client = {.network = listener->user.network, .protocol = IPPROTO_UDP, .listener = listener};
	const struct sockaddr *from = (const struct sockaddr *)&in.from[i];

	if (in.headers[i].msg_hdr.msg_flags & MSG_TRUNC || !address_from_sockaddr(from, &client.address, &client.port)) {
		++*listener->user.dropped;
		return;
	}
	listener->user.receive(listener->user.context, &client, in.wire[i], in.headers[i].msg_len);
}

/* Take the error off the socket and watch it again: libuv has stopped. */
static void watch_again(struct listener_udp *listener)
{
	int error;
	socklen_t length = sizeof(error);

	(void)getsockopt(listener->fd, SOL_SOCKET, SO_ERROR, &error, &length);
	(void)uv_poll_start(&listener->poll, UV_READABLE, on_readable); /* it has been started before, so this does not fail */
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct listener_udp *listener = poll->data;
	int count;

	(void)events;
	if (listener->closing)
		return;
	if (status < 0)
		watch_again(listener);
	count = receive_batch(listener->fd);
	for (int i = 0; i < count && !listener->closing; i++)
		hand_on(listener, (unsigned int)i);
}

int listener_udp_new(uv_loop_t *loop, const struct address *address, uint16_t port, const struct listener_user *user,
		     struct listener_udp **out)
{
	struct listener_udp *listener = calloc(1, sizeof(*listener));
	int error;

	if (!listener)
		return -ENOMEM;
	listener->user = *user;
	listener->fd = listener_bind(SOCK_DGRAM, address, port);
	if (listener->fd < 0) {
		error = listener->fd;
		free(listener);
		return error;
	}
	error = uv_poll_init(loop, &listener->poll, listener->fd);
	if (error) {
		close(listener->fd);
		free(listener);
		return error;
	}
	listener->poll.data = listener;
	error = uv_poll_start(&listener->poll, UV_READABLE, on_readable);
	if (error) {
		listener_udp_close(listener);
		return error;
	}
	*out = listener;
	return 0;
}

bool listener_udp_reply(struct listener_udp *listener, const struct client *client, const uint8_t *wire, size_t size)
{
	struct out_reply *reply;

	if (!size)
		return true;
	if (listener->closing || size > MESSAGE_UDP_SIZE) {
		++*listener->user.dropped;
		return false;
	}
	if (listener->out_count == LISTENER_BATCH)
		listener_udp_flush(listener);
	reply = &listener->out[listener->out_count++];
	reply->to_length = address_to_sockaddr(&client->address, client->port, &reply->to);
	reply->size = size;
	memcpy(reply->wire, wire, size);
	return true;
}

/* Send replies [from, out_count). Return: how many were taken or have to be skipped; 0: the kernel takes no more now. */
static unsigned int send_from(struct listener_udp *listener, unsigned int from)
{
	struct mmsghdr headers[LISTENER_BATCH];
	struct iovec vectors[LISTENER_BATCH];
	unsigned int count = listener->out_count - from;
	int sent;

	for (unsigned int i = 0; i < count; i++) {
		struct out_reply *reply = &listener->out[from + i];

		vectors[i] = (struct iovec){.iov_base = reply->wire, .iov_len = reply->size};
		headers[i] = (struct mmsghdr){
			.msg_hdr = {.msg_name = &reply->to, .msg_namelen = reply->to_length, .msg_iov = &vectors[i], .msg_iovlen = 1}};
	}
	do {
		sent = sendmmsg(listener->fd, headers, count, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	if (sent > 0)
		return (unsigned int)sent;
	if (errno == EAGAIN || errno == ENOBUFS)
		return 0;
	++*listener->user.dropped; /* this client cannot be reached; the others may */
	return 1;
}

void listener_udp_flush(struct listener_udp *listener)
{
	unsigned int done = 0;

	while (done < listener->out_count) {
		unsigned int sent = send_from(listener, done);

		if (!sent) {
			*listener->user.dropped += listener->out_count - done;
			break;
		}
		done += sent;
	}
	listener->out_count = 0;
}

static void on_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void listener_udp_close(struct listener_udp *listener)
{
	if (listener->closing)
		return;
	listener->closing = true;
	uv_close((uv_handle_t *)&listener->poll, on_closed);
	close(listener->fd); /* at once: the address may be wanted for another network; uv_close() has stopped polling */
}
