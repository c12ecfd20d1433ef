/* SPDX-License-Identifier: MIT */
/*
 * UDP listener: one socket per gateway address.
 *
 * Theory of operation: the socket is watched with uv_poll. Each time it is readable one batch is taken with recvmmsg() and every
 * datagram is handed on; what is left waits for the next turn of the loop, so that no socket starves another. Replies are
 * collected in `outgoing` and leave with one sendmmsg() per listener when the resolver flushes at the end of the turn. The kernel refuses
 * to block: what it does not take is dropped and counted, the client asks again. The socket is not connected, so the kernel gives it no
 * errors of what was sent; should it have one all the same (another process with CAP_NET_ADMIN may set it), watching goes on.
 *
 * Under pressure, when more datagrams wait in the socket than half of what it holds, the kernel would soon drop whatever comes, and what
 * waits is mostly that of who sends most. Then many batches are taken at once, and LISTENER_PRESSED_SERVED datagrams of them are served, in
 * turns: one of each source, a second one of each, and so on. The rest is dropped and counted (`crowded`). No reply is sent for what is
 * dropped: it would cost what dropping saves.
 *
 * That is fair among what has been taken, but a turn takes time, more of it while others have the CPU, and a flood fills the socket in some
 * hundredths of a second. So the sources that send most are held back in the kernel as well (crowd.h), from the first turn under pressure
 * until they have stopped; in that time all that is taken is served in turns, and what the kernel drops is counted with the rest. So an app
 * that floods loses its own questions, and those of others only in the moment before it is noticed. One that is alone is served as fast as
 * before. Nothing is asked of the kernel in quiet: a full batch is what makes us look, or a datagram that is too long, since few of those
 * fill the socket.
 *
 * Reading is synchronous, and no reply outlives the turn, so all listeners have one buffer for either: with hundreds of networks, one
 * for each would be most of the memory, and looking for those with replies most of a turn.
 */

#include "resolver/listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/hash.h"
#include "resolver/crowd.h"
#include "resolver/message.h"

#define DATAGRAM_MAX    2048 /* octets of a question; longer datagrams are dropped */
#define PRESSED_SOURCES 1024 /* sources that have a turn, a power of two; what is of others with the same hash shares it */

struct out_reply {
	struct listener_udp *listener; /* NULL: it was closed, or the reply has left */
	struct sockaddr_storage to;
	socklen_t to_length;
	size_t size;
	uint8_t wire[MESSAGE_UDP_SIZE];
};

struct listener_udp {
	uv_poll_t poll;
	uv_timer_t timer; /* active while the socket is crowded */
	unsigned int open_handles;
	int fd;
	bool closing;
	bool too_long; /* of the last batch a datagram was: few of those fill the socket */
	struct crowd crowd;
	struct listener_user user;
};

/* One batch needs the first LISTENER_BATCH of each; pages that are never used take no memory. */
static struct {
	struct mmsghdr headers[LISTENER_PRESSED_MAX];
	struct iovec vectors[LISTENER_PRESSED_MAX];
	struct sockaddr_storage from[LISTENER_PRESSED_MAX];
	uint8_t wire[LISTENER_PRESSED_MAX][DATAGRAM_MAX];
} in;

static struct {
	unsigned int count;
	struct out_reply replies[LISTENER_BATCH];
} outgoing;

/* Turns under pressure. */
static struct {
	uint16_t taken[PRESSED_SOURCES];            /* datagrams of each source so far */
	uint16_t turn[LISTENER_PRESSED_MAX];        /* of each datagram: which of its source's it is */
	unsigned int of_turn[LISTENER_PRESSED_MAX]; /* how many datagrams are the so-manieth of their source */
} pressed;

static void on_readable(uv_poll_t *poll, int status, int events);

static void prepare(unsigned int i)
{
	in.vectors[i] = (struct iovec){.iov_base = in.wire[i], .iov_len = DATAGRAM_MAX};
	in.headers[i].msg_hdr = (struct msghdr){
		.msg_name = &in.from[i],
		.msg_namelen = sizeof(in.from[i]),
		.msg_iov = &in.vectors[i],
		.msg_iovlen = 1,
	};
}

/* The kernel writes into the headers that it uses: only these are made anew, for most batches are small. */
static int receive_batch(int fd)
{
	static int used = LISTENER_BATCH;
	int count;

	for (int i = 0; i < used; i++)
		prepare((unsigned int)i);
	count = recvmmsg(fd, in.headers, LISTENER_BATCH, MSG_DONTWAIT, NULL);
	used = count > 0 ? count : 1;
	return count;
}

/* Behind a full batch. Return: how many there are with it. */
static unsigned int receive_more(int fd)
{
	int count;

	for (unsigned int i = LISTENER_BATCH; i < LISTENER_PRESSED_MAX; i++)
		prepare(i);
	count = recvmmsg(fd, in.headers + LISTENER_BATCH, LISTENER_PRESSED_MAX - LISTENER_BATCH, MSG_DONTWAIT, NULL);
	return LISTENER_BATCH + (count > 0 ? (unsigned int)count : 0);
}

static void hand_on(struct listener_udp *listener, unsigned int i)
{
	struct client client = {.network = listener->user.network, .protocol = IPPROTO_UDP, .listener = listener};
	const struct sockaddr *from = (const struct sockaddr *)&in.from[i];

	if (in.headers[i].msg_hdr.msg_flags & MSG_TRUNC || !address_from_sockaddr(from, &client.address, &client.port)) {
		listener->too_long = true;
		++*listener->user.dropped;
		return;
	}
	listener->user.receive(listener->user.context, &client, in.wire[i], in.headers[i].msg_len);
}

static struct address source_of(unsigned int i)
{
	struct address address = {0};
	uint16_t port;

	(void)address_from_sockaddr((const struct sockaddr *)&in.from[i], &address, &port);
	return address;
}

static unsigned int source_slot(const struct address *address)
{
	return hash_bytes(address->bytes, sizeof(address->bytes)) % PRESSED_SOURCES;
}

/* Number the datagrams of each source. Return: in how many turns LISTENER_PRESSED_SERVED have had theirs, or all. */
static unsigned int count_turns(const struct listener_udp *listener, unsigned int count)
{
	unsigned int turns = 0, served = 0, most = 0;

	memset(pressed.taken, 0, sizeof(pressed.taken));
	memset(pressed.of_turn, 0, sizeof(pressed.of_turn));
	for (unsigned int i = 0; i < count; i++) {
		const struct address source = source_of(i);

		pressed.turn[i] = pressed.taken[source_slot(&source)]++;
		pressed.of_turn[pressed.turn[i]]++;
		if (pressed.turn[i] >= pressed.turn[most])
			most = i;
	}
	while (served < count && served < LISTENER_PRESSED_SERVED)
		served += pressed.of_turn[turns++];
	if (served < count)
		*listener->user.crowded_by = source_of(most);
	return turns;
}

static void on_tick(uv_timer_t *timer)
{
	struct listener_udp *listener = timer->data;

	(void)crowd_look(&listener->crowd, listener->user.crowded);
	crowd_tick(&listener->crowd);
	crowd_apply(&listener->crowd);
	if (!listener->crowd.count)
		uv_timer_stop(timer);
}

/* Before the questions are served: while they are, the socket must not fill. */
static void hold_back(struct listener_udp *listener, unsigned int count, unsigned int turns, bool is_pressed)
{
	struct crowd *crowd = &listener->crowd;

	for (unsigned int i = 0; i < count; i++) {
		const struct address source = source_of(i);

		if (pressed.turn[i] == 0) /* once for each source */
			crowd_report(crowd, &source, pressed.taken[source_slot(&source)], turns, is_pressed, count < LISTENER_PRESSED_MAX);
	}
	crowd_apply(crowd);
	if (crowd->count && !uv_is_active((const uv_handle_t *)&listener->timer))
		(void)uv_timer_start(&listener->timer, on_tick, CROWD_TICK_MS, CROWD_TICK_MS); /* which fails without a callback only */
}

/* A batch has been taken, @count datagrams, and the socket is crowded. */
static void serve_in_turns(struct listener_udp *listener, unsigned int count, bool is_pressed)
{
	unsigned int turns;

	if (count == LISTENER_BATCH)
		count = receive_more(listener->fd);
	turns = count_turns(listener, count);
	hold_back(listener, count, turns, is_pressed);
	for (unsigned int i = 0; i < count && !listener->closing; i++) {
		if (pressed.turn[i] < turns)
			hand_on(listener, i);
		else
			++*listener->user.crowded;
	}
}

/* Is there too much in the socket? Asked only when there is reason to think so, since it is a system call. */
static bool is_pressed(struct listener_udp *listener)
{
	uint64_t dropped = 0;
	bool full = crowd_look(&listener->crowd, &dropped), too_long = listener->too_long;

	*listener->user.crowded += dropped;
	listener->too_long = false;
	return full || (too_long && dropped);
}

/* Take the error off the socket and watch it again: libuv has stopped. */
static void watch_again(struct listener_udp *listener)
{
	int error;
	socklen_t length = sizeof(error);

	(void)getsockopt(listener->fd, SOL_SOCKET, SO_ERROR, &error, &length);
	(void)uv_poll_start(&listener->poll, UV_READABLE, on_readable); /* it has been started before, so this does not fail */
}

int listener_udp_fd(const struct listener_udp *listener)
{
	return listener->fd;
}

void listener_udp_receive(struct listener_udp *listener)
{
	int count = listener->closing ? 0 : receive_batch(listener->fd);

	if (count > 0 && (count == LISTENER_BATCH || listener->crowd.count || listener->too_long)) {
		bool full = is_pressed(listener);

		if (full || listener->crowd.count) {
			serve_in_turns(listener, (unsigned int)count, full);
			return;
		}
	}
	for (int i = 0; i < count && !listener->closing; i++)
		hand_on(listener, (unsigned int)i);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct listener_udp *listener = poll->data;

	(void)events;
	if (status < 0 && !listener->closing)
		watch_again(listener);
	listener_udp_receive(listener);
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
	crowd_init(&listener->crowd, listener->fd);
	error = uv_poll_init(loop, &listener->poll, listener->fd);
	if (error) {
		close(listener->fd);
		free(listener);
		return error;
	}
	uv_timer_init(loop, &listener->timer);
	listener->open_handles = 2;
	listener->poll.data = listener->timer.data = listener;
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
	if (outgoing.count == LISTENER_BATCH)
		listener_udp_flush();
	reply = &outgoing.replies[outgoing.count++];
	reply->listener = listener;
	reply->to_length = address_to_sockaddr(&client->address, client->port, &reply->to);
	reply->size = size;
	memcpy(reply->wire, wire, size);
	return true;
}

/* Take the replies of one listener out of [from, outgoing.count). Return: how many. */
static unsigned int take_replies(const struct listener_udp *listener, unsigned int from, struct mmsghdr *headers, struct iovec *vectors)
{
	unsigned int count = 0;

	for (unsigned int i = from; i < outgoing.count; i++) {
		struct out_reply *reply = &outgoing.replies[i];

		if (reply->listener != listener)
			continue;
		reply->listener = NULL;
		vectors[count] = (struct iovec){.iov_base = reply->wire, .iov_len = reply->size};
		headers[count] = (struct mmsghdr){
			.msg_hdr = {.msg_name = &reply->to, .msg_namelen = reply->to_length, .msg_iov = &vectors[count], .msg_iovlen = 1}};
		count++;
	}
	return count;
}

/* Return: how many were taken or have to be skipped; 0: the kernel takes no more now. */
static unsigned int send_some(struct listener_udp *listener, struct mmsghdr *headers, unsigned int count)
{
	int sent;

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

/* All replies of one listener, of which the first is at @from. */
static void flush_one(struct listener_udp *listener, unsigned int from)
{
	struct mmsghdr headers[LISTENER_BATCH];
	struct iovec vectors[LISTENER_BATCH];
	unsigned int count = take_replies(listener, from, headers, vectors), done = 0;

	while (done < count) {
		unsigned int sent = send_some(listener, headers + done, count - done);

		if (!sent) {
			*listener->user.dropped += count - done;
			break;
		}
		done += sent;
	}
}

void listener_udp_flush(void)
{
	for (unsigned int i = 0; i < outgoing.count; i++) {
		if (outgoing.replies[i].listener)
			flush_one(outgoing.replies[i].listener, i);
	}
	outgoing.count = 0;
}

static void on_closed(uv_handle_t *handle)
{
	struct listener_udp *listener = handle->data;

	if (!--listener->open_handles)
		free(listener);
}

void listener_udp_close(struct listener_udp *listener)
{
	if (listener->closing)
		return;
	listener->closing = true;
	for (unsigned int i = 0; i < outgoing.count; i++) {
		if (outgoing.replies[i].listener == listener)
			outgoing.replies[i].listener = NULL;
	}
	if (listener->crowd.count)
		(void)crowd_look(&listener->crowd, listener->user.crowded);
	uv_close((uv_handle_t *)&listener->timer, on_closed);
	uv_close((uv_handle_t *)&listener->poll, on_closed);
	close(listener->fd); /* at once: the address may be wanted for another network; uv_close() has stopped polling */
}
