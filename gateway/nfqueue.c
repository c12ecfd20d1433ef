/* SPDX-License-Identifier: MIT */
/*
 * The packet queue.
 *
 * Theory of operation
 *
 * A packet is dropped unless we say otherwise: the queue is bound without bypass and without fail-open, so a full queue, a full socket, a
 * verdict that cannot be sent and a dead process all drop. Packets are read when the socket is readable, at most NFQUEUE_TURN per loop turn
 * so that the resolver gets its share; their verdicts are collected and sent together. Verdicts that cannot be sent stay and are tried
 * again after RETRY_MS.
 *
 * A packet may be held: its verdict comes later, out of turn. The verdicts' buffer has room for all that are held, whatever else is in it.
 *
 * Packet ids count up by one, also for packets that did not fit into our socket's buffer: gaps are the packets lost there. The queue itself
 * is longer than what the socket holds, so the socket is what overflows first; that needs no right to read /proc, which shows the queue's
 * own drops to root only.
 *
 * When the socket fails it is closed (the kernel then drops what waits) and opened anew after a pause.
 */
#include "gateway/nfqueue.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnetfilter_queue/libnetfilter_queue.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "gateway/flows.h"

/*
 * Packets per loop turn. Their verdicts make the kernel send as many ICMP errors in one go, and its ICMP socket (one per CPU) has room for
 * about 200 that the other side has not taken yet; up to 6.4 that can take until we give up the CPU. More would be lost (OutErrors).
 */
#define NFQUEUE_TURN        64
#define RECEIVE_BUFFER      (2 * 1024 * 1024) /* bytes of small packets that may wait in the socket; the kernel doubles it */
#define ATTRIBUTES_MAX      8192              /* bytes of one packet message without the packet */
#define CONFIG_MAX          512               /* bytes of one configuration message */
#define VERDICT_MAX         128               /* bytes of one verdict message */
#define RETRY_MS            50                /* verdicts that could not be sent */
#define REOPEN_MS_MIN       100               /* a socket that failed ... */
#define REOPEN_MS_MAX       5000              /* ... with every attempt twice as late */
#define CONFIGURE_TIMEOUT_S 5                 /* the kernel answers at once */
#define PROC_FILE           "/proc/net/netfilter/nfnetlink_queue"

struct nfqueue {
	uv_loop_t *loop;
	uv_timer_t timer;          /* retry of verdicts, reopening */
	uv_poll_t *poll;           /* owned by the loop, freed in its close callback; NULL while there is no socket */
	struct mnl_socket *socket; /* owned */
	uint16_t number;
	struct nfqueue_options options;
	nfqueue_decide decide;
	void *context;
	bool closing, counting;
	uint32_t last_id; /* valid when counting */
	uint64_t lost;    /* ids that never came */
	uint64_t reopen_ms;
	uint32_t sequence; /* of configuration messages */
	uint32_t opening;  /* counts them: ids of different sockets are not compared */
	uint8_t *message;  /* owned: the packet that is being read */
	size_t message_size;
	uint8_t *verdicts; /* owned: each packet that is held has its room */
	size_t verdict_size;
};

static void wait_before_reopening(struct nfqueue *queue);

static size_t verdicts_max(const struct nfqueue *queue)
{
	return ((size_t)NFQUEUE_TURN + queue->options.held) * VERDICT_MAX;
}

/* A packet goes through its chain anew, which sees the mark; that of input has a later one for what comes back. */
static int verdict_of(const struct nfqueue *queue, const struct queued_packet *packet, uint32_t mark)
{
	if (!mark)
		return NF_DROP;
	return queue->options.repeat || packet->hook != NF_INET_LOCAL_IN ? NF_REPEAT : NF_ACCEPT;
}

static void add_verdict(struct nfqueue *queue, const struct queued_packet *packet, uint32_t mark)
{
	uint8_t *end = queue->verdicts + queue->verdict_size;
	struct nlmsghdr *message = nfq_nlmsg_put((char *)end, NFQNL_MSG_VERDICT, queue->number);

	nfq_nlmsg_verdict_put(message, (int)packet->id, verdict_of(queue, packet, mark));
	if (mark)
		nfq_nlmsg_verdict_put_mark(message, mark);
	queue->verdict_size += MNL_ALIGN(message->nlmsg_len);
}

static void count_gap(struct nfqueue *queue, uint32_t id)
{
	if (queue->counting)
		queue->lost += id - queue->last_id - 1;
	queue->counting = true;
	queue->last_id = id;
}

/* Attributes as the kernel sends them; libnetfilter_queue's table has the types, we check what we use for presence and size. */
static bool read_packet(struct nlattr *const attributes[NFQA_MAX + 1], struct queued_packet *out)
{
	const struct nlattr *header = attributes[NFQA_PACKET_HDR], *payload = attributes[NFQA_PAYLOAD];
	const struct nfqnl_msg_packet_hdr *fields;

	memset(out, 0, sizeof(*out));
	if (!header || mnl_attr_get_payload_len(header) < sizeof(struct nfqnl_msg_packet_hdr))
		return false;
	fields = mnl_attr_get_payload(header);
	out->id = ntohl(fields->packet_id);
	out->hook = fields->hook;
	if (attributes[NFQA_IFINDEX_INDEV])
		out->in_interface = ntohl(mnl_attr_get_u32(attributes[NFQA_IFINDEX_INDEV]));
	if (attributes[NFQA_IFINDEX_OUTDEV])
		out->out_interface = ntohl(mnl_attr_get_u32(attributes[NFQA_IFINDEX_OUTDEV]));
	if (attributes[NFQA_MARK])
		out->mark = ntohl(mnl_attr_get_u32(attributes[NFQA_MARK]));
	if (attributes[NFQA_SKB_INFO])
		out->several = ntohl(mnl_attr_get_u32(attributes[NFQA_SKB_INFO])) & NFQA_SKB_GSO;
	out->payload = payload ? mnl_attr_get_payload(payload) : (const uint8_t *)"";
	out->size = payload ? mnl_attr_get_payload_len(payload) : 0;
	return true;
}

/* What conntrack knows of the packet's flow. */
static void read_original(const struct nlattr *conntrack, struct queued_packet *out)
{
	struct tracked_flow tracked;

	if (!conntrack || !flows_parse(mnl_attr_get_payload(conntrack), mnl_attr_get_payload_len(conntrack), &tracked))
		return;
	out->original = tracked.flow.destination;
	out->has_original = true;
}

/* @decide: NULL while the queue is being set up: what comes that early is dropped. */
static void handle_message(struct nfqueue *queue, const struct nlmsghdr *message, nfqueue_decide decide)
{
	struct nlattr *attributes[NFQA_MAX + 1] = {NULL};
	struct queued_packet packet;
	uint32_t mark;

	/* NLMSG_ERROR: a verdict for a packet that is gone, because its interface went down. */
	if (message->nlmsg_type != (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET))
		return;
	if (nfq_nlmsg_parse(message, attributes) < 0 || !read_packet(attributes, &packet))
		return;
	if (queue->options.original)
		read_original(attributes[NFQA_CT], &packet);
	count_gap(queue, packet.id);
	if (!decide)
		queue->lost++;
	packet.opening = queue->opening;
	mark = decide ? decide(queue->context, &packet) : 0;
	if (mark != NFQUEUE_HOLD)
		add_verdict(queue, &packet, mark);
}

static bool has_verdict_room(const struct nfqueue *queue)
{
	return queue->verdict_size + VERDICT_MAX <= NFQUEUE_TURN * VERDICT_MAX;
}

/* Send one configuration message and read its acknowledgement. Return: 0 or -errno. */
static int configure(struct nfqueue *queue, struct nlmsghdr *message)
{
	message->nlmsg_flags |= NLM_F_ACK;
	message->nlmsg_seq = ++queue->sequence;
	if (mnl_socket_sendto(queue->socket, message, message->nlmsg_len) < 0)
		return -errno;
	for (;;) {
		ssize_t size = mnl_socket_recvfrom(queue->socket, queue->message, queue->message_size);
		const struct nlmsghdr *answer = (const struct nlmsghdr *)queue->message;

		if (size < 0 && errno == EINTR)
			continue;
		if (size < 0)
			return -errno;
		if (!mnl_nlmsg_ok(answer, (int)size))
			continue;
		if (answer->nlmsg_type == NLMSG_ERROR && answer->nlmsg_seq == queue->sequence &&
		    mnl_nlmsg_get_payload_len(answer) >= sizeof(struct nlmsgerr))
			return ((const struct nlmsgerr *)mnl_nlmsg_get_payload(answer))->error;
		if (has_verdict_room(queue))
			handle_message(queue, answer, NULL);
	}
}

static int may_configure(struct nfqueue *queue)
{
	char buffer[CONFIG_MAX] __attribute__((aligned(8)));
	struct nlmsghdr *message = nfq_nlmsg_put(buffer, NFQNL_MSG_CONFIG, queue->number);

	/* An obsolete command that does nothing but ask for CAP_NET_ADMIN. */
	nfq_nlmsg_cfg_put_cmd(message, AF_UNSPEC, NFQNL_CFG_CMD_PF_BIND);
	return configure(queue, message);
}

/* One message, so that no packet comes under other parameters. */
static int bind_queue(struct nfqueue *queue)
{
	char buffer[CONFIG_MAX] __attribute__((aligned(8)));
	struct nlmsghdr *message = nfq_nlmsg_put(buffer, NFQNL_MSG_CONFIG, queue->number);
	uint32_t flags = (queue->options.split ? 0 : NFQA_CFG_F_GSO) | (queue->options.original ? NFQA_CFG_F_CONNTRACK : 0);

	nfq_nlmsg_cfg_put_cmd(message, AF_UNSPEC, NFQNL_CFG_CMD_BIND);
	nfq_nlmsg_cfg_put_params(message, NFQNL_COPY_PACKET, (int)queue->options.copy);
	nfq_nlmsg_cfg_put_qmaxlen(message, NFQUEUE_LENGTH);
	/* Large packets come whole (GSO) unless they are to be split; fail-open above all is switched off. */
	mnl_attr_put_u32(message, NFQA_CFG_MASK, htonl(NFQA_CFG_F_GSO | NFQA_CFG_F_FAIL_OPEN | NFQA_CFG_F_CONNTRACK | NFQA_CFG_F_UID_GID));
	mnl_attr_put_u32(message, NFQA_CFG_FLAGS, htonl(flags));
	return configure(queue, message);
}

static int set_options(const struct nfqueue *queue)
{
	int fd = mnl_socket_get_fd(queue->socket), size = RECEIVE_BUFFER, verdicts = (int)verdicts_max(queue), one = 1;
	struct timeval timeout = {.tv_sec = CONFIGURE_TIMEOUT_S};

	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) != 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &verdicts, sizeof(verdicts)) != 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &verdicts, sizeof(verdicts));
	/* Losses are seen as gaps; ENOBUFS would only say so once more. */
	mnl_socket_setsockopt(queue->socket, NETLINK_NO_ENOBUFS, &one, sizeof(one));
	return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) == 0 ? 0 : -errno;
}

static int open_socket(struct nfqueue *queue)
{
	int error;

	queue->socket = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
	if (!queue->socket)
		return -errno;
	queue->opening++;
	queue->counting = false;
	queue->verdict_size = 0;
	if (mnl_socket_bind(queue->socket, 0, MNL_SOCKET_AUTOPID) < 0)
		return -errno;
	error = set_options(queue);
	if (!error)
		error = may_configure(queue);
	if (error)
		return error;
	error = bind_queue(queue);
	/* Without CONFIG_NETFILTER_NETLINK_GLUE_CT nobody can tell: has_original stays false. */
	if (error == -EOPNOTSUPP && queue->options.original) {
		queue->options.original = false;
		error = bind_queue(queue);
	}
	/* We may configure queues, but not this one: it has another owner. */
	return error == -EPERM ? -EBUSY : error;
}

static void free_handle(uv_handle_t *handle)
{
	free(handle);
}

static void close_socket(struct nfqueue *queue)
{
	if (queue->poll) {
		uv_poll_stop(queue->poll);
		uv_close((uv_handle_t *)queue->poll, free_handle);
		queue->poll = NULL;
	}
	if (queue->socket)
		mnl_socket_close(queue->socket);
	queue->socket = NULL;
}

static void on_readable(uv_poll_t *poll, int status, int events);
static void on_retry(uv_timer_t *timer);

/* While verdicts cannot be sent nothing more is read: the packets wait in the kernel. */
static void send_verdicts(struct nfqueue *queue)
{
	if (queue->verdict_size == 0)
		return;
	if (mnl_socket_sendto(queue->socket, queue->verdicts, queue->verdict_size) >= 0) {
		queue->verdict_size = 0;
		return;
	}
	uv_poll_stop(queue->poll);
	uv_timer_start(&queue->timer, on_retry, RETRY_MS, 0);
}

static void on_retry(uv_timer_t *timer)
{
	struct nfqueue *queue = timer->data;

	if (queue->closing || !queue->poll)
		return;
	send_verdicts(queue);
	if (queue->verdict_size == 0)
		uv_poll_start(queue->poll, UV_READABLE, on_readable);
}

/* One datagram. Return: false when there is nothing left to read, with the socket closed if it failed. */
static bool receive(struct nfqueue *queue)
{
	struct sockaddr_nl from = {0};
	socklen_t from_size = sizeof(from);
	const struct nlmsghdr *message = (const struct nlmsghdr *)queue->message;
	ssize_t got = recvfrom(mnl_socket_get_fd(queue->socket), queue->message, queue->message_size, MSG_DONTWAIT,
			       (struct sockaddr *)&from, &from_size);

	if (got < 0) {
		if (errno == EINTR || errno == ENOBUFS)
			return true;
		if (errno != EAGAIN && errno != EWOULDBLOCK)
			wait_before_reopening(queue);
		return false;
	}
	if (from.nl_pid != 0)
		return true;
	for (int left = (int)got; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left))
		handle_message(queue, message, queue->decide);
	return true;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct nfqueue *queue = poll->data;

	(void)events;
	if (queue->closing || poll != queue->poll)
		return;
	if (status < 0) {
		wait_before_reopening(queue);
		return;
	}
	for (int i = 0; i < NFQUEUE_TURN && has_verdict_room(queue); i++) {
		if (!receive(queue))
			break;
	}
	if (queue->socket)
		send_verdicts(queue);
}

void nfqueue_verdict(struct nfqueue *queue, const struct queued_packet *packet, uint32_t mark)
{
	if (queue->closing || !queue->socket || packet->opening != queue->opening)
		return;
	add_verdict(queue, packet, mark);
	send_verdicts(queue);
}

static int watch_socket(struct nfqueue *queue)
{
	uv_poll_t *poll = calloc(1, sizeof(*poll));
	int error;

	if (!poll)
		return -ENOMEM;
	error = uv_poll_init(queue->loop, poll, mnl_socket_get_fd(queue->socket));
	if (error) {
		free(poll);
		return error;
	}
	poll->data = queue;
	queue->poll = poll;
	return uv_poll_start(poll, UV_READABLE, on_readable);
}

static int open_and_watch(struct nfqueue *queue)
{
	int error = open_socket(queue);

	if (!error)
		error = watch_socket(queue);
	if (error)
		close_socket(queue);
	return error;
}

static void on_reopen(uv_timer_t *timer)
{
	struct nfqueue *queue = timer->data;

	if (queue->closing || queue->socket)
		return;
	if (open_and_watch(queue) != 0)
		wait_before_reopening(queue);
	else
		queue->reopen_ms = REOPEN_MS_MIN;
}

static void wait_before_reopening(struct nfqueue *queue)
{
	close_socket(queue);
	uv_timer_start(&queue->timer, on_reopen, queue->reopen_ms, 0);
	queue->reopen_ms = queue->reopen_ms * 2 < REOPEN_MS_MAX ? queue->reopen_ms * 2 : REOPEN_MS_MAX;
}

static void free_queue(struct nfqueue *queue)
{
	free(queue->message);
	free(queue->verdicts);
	free(queue);
}

static void on_closed(uv_handle_t *handle)
{
	free_queue(handle->data);
}

static struct nfqueue *new_queue(const struct nfqueue_options *options)
{
	struct nfqueue *queue = calloc(1, sizeof(*queue));

	assert(options->copy <= NFQUEUE_COPY_WHOLE && options->held <= NFQUEUE_LENGTH / 2);
	if (!queue)
		return NULL;
	queue->options = *options;
	queue->message_size = options->copy + ATTRIBUTES_MAX;
	queue->message = malloc(queue->message_size);
	queue->verdicts = malloc(verdicts_max(queue));
	if (queue->message && queue->verdicts)
		return queue;
	free_queue(queue);
	return NULL;
}

int nfqueue_open(uv_loop_t *loop, uint16_t number, const struct nfqueue_options *options, nfqueue_decide decide, void *context,
		 struct nfqueue **out)
{
	struct nfqueue *queue = new_queue(options);
	int error;

	if (!queue)
		return -ENOMEM;
	queue->loop = loop;
	queue->number = number;
	queue->decide = decide;
	queue->context = context;
	queue->reopen_ms = REOPEN_MS_MIN;
	error = uv_timer_init(loop, &queue->timer);
	if (error) {
		free_queue(queue);
		return error;
	}
	queue->timer.data = queue;
	error = open_and_watch(queue);
	if (error) {
		nfqueue_close(queue);
		return error;
	}
	*out = queue;
	return 0;
}

void nfqueue_close(struct nfqueue *queue)
{
	if (!queue || queue->closing)
		return;
	queue->closing = true;
	close_socket(queue);
	uv_close((uv_handle_t *)&queue->timer, on_closed);
}

/* Packets dropped because the queue itself was full; 0 when we may not read that. */
static uint64_t queue_overflow(uint16_t number)
{
	enum { QUEUE, PORT, WAITING, COPY_MODE, COPY_RANGE, DROPPED, COLUMNS };
	char line[256];
	uint64_t overflow = 0;
	FILE *file = fopen(PROC_FILE, "re");

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file)) {
		uint64_t values[COLUMNS];
		char *at = line;

		for (int i = 0; i < COLUMNS; i++)
			values[i] = strtoull(at, &at, 10);
		if (values[QUEUE] == number)
			overflow = values[DROPPED];
	}
	fclose(file);
	return overflow;
}

int nfqueue_dropped(const struct nfqueue *queue, uint64_t *packets)
{
	*packets = queue->lost + queue_overflow(queue->number);
	return 0;
}
