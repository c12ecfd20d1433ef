/* SPDX-License-Identifier: MIT */
/*
 * Flows that begin and end, as conntrack tells of them.
 *
 * Theory of operation: a socket of the multicast groups "new" and "destroy", with a filter in the kernel that lets only flows of some marks
 * through. A flow is told of when its first packet has passed all chains, so it has its mark by then. Messages that do not fit into the
 * socket are lost without an error (which libuv would take for the end of the socket).
 *
 * A wake-up costs more than what is done with an event. So after one the socket is left alone for BATCH_MS, and what came meanwhile is
 * taken in one go; as soon as nothing came it is waited for again, and an idle gateway does not wake up.
 *
 * conntrack forgets a flow some time after its last packet, by a timeout that depends on how it ended. So the timeout, as the sysctl has
 * it, less what was left of it, is taken off the duration.
 *
 * Without the kernel's timestamps our own clock says when a flow began (beginnings.h) and when it is over. That is later than the timeout
 * by up to a minute, as conntrack only now and then goes through the flows that nobody uses. What a look has found while a flow waited to
 * be forgotten is exact to a second, which is what conntrack tells the rest of a timeout in.
 */
#include "gateway/flows_watch.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include <libmnl/libmnl.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_compat.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

#include "gateway/beginnings.h"
#include "gateway/environment.h"

#define TIMEOUTS_AGE_S 10    /* sysctls are read again after this */
#define TURN           256   /* events taken in one turn of the loop */
#define BATCH_MS       10    /* from one turn to the next, while events come */
#define DATAGRAMS      32    /* read in one call */
#define DATAGRAM_SIZE  2048  /* octets; an event has a few hundred */
#define ALL            16384 /* more are hardly ever waiting */

/* One event each. */
struct buffers {
	char bytes[DATAGRAMS][DATAGRAM_SIZE] __attribute__((aligned(8)));
};

struct flows_watch {
	struct mnl_socket *socket;     /* owned */
	struct buffers *buffers;       /* owned */
	struct beginnings *beginnings; /* owned; NULL where ends are not wanted */
	uv_poll_t poll;
	uv_timer_t timer; /* the next turn; while it runs the socket is not polled */
	int handles;      /* of the loop's: poll and timer, as far as they are open */
	struct flows_watch_options options;
	flows_seen seen;
	void *context;
	unsigned int read;                /* datagrams, in this turn */
	bool emptied;                     /* nothing was waiting, at some time since flows_watch_settle() */
	time_t timeouts_read;             /* of the monotonic clock; 0: never */
	uint32_t timeouts[FLOW_TIMEOUTS]; /* seconds */
};

static void read_timeouts(struct flows_watch *watch)
{
	static const char *const names[FLOW_TIMEOUTS] = {
		[FLOW_TIMEOUT_UDP] = "udp_timeout",
		[FLOW_TIMEOUT_UDP_STREAM] = "udp_timeout_stream",
		[FLOW_TIMEOUT_LAST_ACK] = "tcp_timeout_last_ack",
		[FLOW_TIMEOUT_TIME_WAIT] = "tcp_timeout_time_wait",
		[FLOW_TIMEOUT_CLOSE] = "tcp_timeout_close",
	};
	char name[64], value[ENVIRONMENT_VALUE_MAX];
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (watch->timeouts_read && now.tv_sec - watch->timeouts_read < TIMEOUTS_AGE_S)
		return;
	watch->timeouts_read = now.tv_sec;
	for (size_t i = 0; i < FLOW_TIMEOUTS; i++) {
		if (!names[i])
			continue;
		snprintf(name, sizeof(name), "net.netfilter.nf_conntrack_%s", names[i]);
		watch->timeouts[i] = environment_read(name, value, sizeof(value)) == 0 ? (uint32_t)strtoul(value, NULL, 10) : 0;
	}
}

/* ms since its last packet, up to a second more than it is. */
static uint64_t idle_of(struct flows_watch *watch, const struct tracked_flow *flow)
{
	read_timeouts(watch);
	return watch->timeouts[flow->timeout] > flow->remaining ? (uint64_t)(watch->timeouts[flow->timeout] - flow->remaining) * 1000 : 0;
}

/* When its last packet came, at the latest, by the loop's clock. */
static uint64_t last_packet(struct flows_watch *watch, const struct tracked_flow *flow)
{
	uint64_t now = uv_now(watch->poll.loop), idle = idle_of(watch, flow), rest = flow->remaining > 0 ? 1000 : 0;

	if (idle < rest)
		return now;
	return idle - rest < now ? now - (idle - rest) : 0;
}

static uint64_t packets_of(const struct tracked_flow *flow)
{
	return flow->traffic.packets_out + flow->traffic.packets_in;
}

static int64_t duration_of(struct flows_watch *watch, const struct tracked_flow *flow)
{
	int64_t duration = beginnings_take(watch->beginnings, flow->id, packets_of(flow), last_packet(watch, flow));
	uint64_t total, idle;

	if (flow->started == 0 || flow->stopped < flow->started)
		return duration;
	total = flow->stopped - flow->started;
	idle = idle_of(watch, flow);
	return (int64_t)(total > idle ? total - idle : 0);
}

void flows_watch_look(struct flows_watch *watch, const struct tracked_flow *flow)
{
	if (watch->beginnings)
		beginnings_look(watch->beginnings, flow->id, packets_of(flow), last_packet(watch, flow));
}

static void tell_end(struct flows_watch *watch, const struct tracked_flow *flow)
{
	watch->seen(watch->context, FLOW_ENDED, flow, watch->beginnings ? duration_of(watch, flow) : -1);
}

static void tell_beginning(struct flows_watch *watch, const struct tracked_flow *flow)
{
	if (watch->beginnings)
		beginnings_add(watch->beginnings, flow->id, uv_now(watch->poll.loop));
	watch->seen(watch->context, FLOW_BEGAN, flow, -1);
}

static bool is_wanted(const struct flows_watch *watch, uint32_t mark)
{
	for (size_t i = 0; i < FLOWS_WATCH_MARKS_MAX && watch->options.marks[i]; i++) {
		if (watch->options.marks[i] == mark)
			return true;
	}
	return false;
}

static void on_message(struct flows_watch *watch, const struct nlmsghdr *message)
{
	const uint16_t begins = NLM_F_CREATE | NLM_F_EXCL;
	uint8_t type = NFNL_MSG_TYPE(message->nlmsg_type);
	struct tracked_flow flow;

	if (NFNL_SUBSYS_ID(message->nlmsg_type) != NFNL_SUBSYS_CTNETLINK || !flows_parse_message(message, &flow))
		return;
	/* The filter has looked at the mark already; a program that is wrong about it would only cost lines. */
	if (!is_wanted(watch, flow.mark))
		return;
	if (type == IPCTNL_MSG_CT_DELETE)
		tell_end(watch, &flow);
	else if (type == IPCTNL_MSG_CT_NEW && (message->nlmsg_flags & begins) == begins)
		tell_beginning(watch, &flow);
}

static int attach_filter(struct flows_watch *watch)
{
	struct nfct_filter *filter = nfct_filter_create();
	int rc;

	if (filter == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < FLOWS_WATCH_MARKS_MAX && watch->options.marks[i]; i++) {
		struct nfct_filter_dump_mark mark = {.val = watch->options.marks[i], .mask = UINT32_MAX};

		nfct_filter_add_attr(filter, NFCT_FILTER_MARK, &mark);
	}
	rc = nfct_filter_attach(mnl_socket_get_fd(watch->socket), filter) < 0 ? -errno : 0;
	nfct_filter_destroy(filter);
	return rc;
}

static int prepare_socket(struct flows_watch *watch)
{
	int fd = mnl_socket_get_fd(watch->socket), on = 1, size = watch->options.buffer;

	/* Beyond the system's limit only with CAP_NET_ADMIN in the first user namespace. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) != 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	if (setsockopt(fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof(on)) != 0)
		return -errno;
	return attach_filter(watch);
}

static int open_socket(struct flows_watch *watch)
{
	bool ends = watch->options.ends;
	unsigned int groups = NF_NETLINK_CONNTRACK_NEW | (ends ? NF_NETLINK_CONNTRACK_DESTROY : 0);
	int rc;

	watch->buffers = malloc(sizeof(*watch->buffers));
	if (ends)
		watch->beginnings = beginnings_new();
	if (watch->buffers == NULL || (ends && watch->beginnings == NULL))
		return -ENOMEM;
	watch->socket = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (watch->socket == NULL)
		return -errno;
	rc = prepare_socket(watch); /* with the filter, before the first event */
	if (rc == 0 && mnl_socket_bind(watch->socket, groups, MNL_SOCKET_AUTOPID) < 0)
		rc = -errno;
	return rc;
}

/* Return: how many datagrams were there, at most @max of them. */
static unsigned int receive(struct flows_watch *watch, unsigned int max)
{
	struct mmsghdr list[DATAGRAMS] = {0};
	struct sockaddr_nl from[DATAGRAMS] = {0};
	struct iovec vectors[DATAGRAMS];
	int got;

	for (size_t i = 0; i < DATAGRAMS; i++) {
		vectors[i] = (struct iovec){.iov_base = watch->buffers->bytes[i], .iov_len = DATAGRAM_SIZE};
		list[i].msg_hdr =
			(struct msghdr){.msg_name = &from[i], .msg_namelen = sizeof(from[i]), .msg_iov = &vectors[i], .msg_iovlen = 1};
	}
	got = recvmmsg(mnl_socket_get_fd(watch->socket), list, max < DATAGRAMS ? max : DATAGRAMS, MSG_DONTWAIT, NULL);
	for (int i = 0; i < got; i++) {
		const struct nlmsghdr *message = vectors[i].iov_base;
		int left = (int)list[i].msg_len;

		if (list[i].msg_hdr.msg_namelen != sizeof(from[i]) || from[i].nl_pid != 0)
			continue; /* not from the kernel */
		for (; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left))
			on_message(watch, message);
	}
	return got > 0 ? (unsigned int)got : 0;
}

static void take(struct flows_watch *watch, unsigned int max)
{
	unsigned int got;

	watch->read = 0;
	do {
		got = receive(watch, max - watch->read);
		watch->read += got;
	} while (got > 0 && watch->read < max);
	watch->emptied |= watch->read < max;
}

bool flows_watch_settle(struct flows_watch *watch, bool all)
{
	bool settled;

	take(watch, all ? ALL : TURN);
	settled = watch->emptied;
	watch->emptied = false;
	return settled;
}

static void on_readable(uv_poll_t *poll, int status, int events);

static void on_turn(uv_timer_t *timer)
{
	struct flows_watch *watch = timer->data;

	take(watch, TURN);
	if (watch->read > 0 || uv_poll_start(&watch->poll, UV_READABLE, on_readable) != 0)
		uv_timer_start(timer, on_turn, watch->read < TURN ? BATCH_MS : 0, 0);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct flows_watch *watch = poll->data;

	(void)status;
	(void)events;
	uv_poll_stop(poll);
	on_turn(&watch->timer);
}

static int open_handles(uv_loop_t *loop, struct flows_watch *watch)
{
	int rc = uv_timer_init(loop, &watch->timer);

	if (rc != 0)
		return rc;
	watch->handles = 1;
	rc = uv_poll_init(loop, &watch->poll, mnl_socket_get_fd(watch->socket));
	if (rc != 0)
		return rc;
	watch->handles = 2;
	return uv_poll_start(&watch->poll, UV_READABLE, on_readable);
}

int flows_watch_open(uv_loop_t *loop, const struct flows_watch_options *options, flows_seen seen, void *context, struct flows_watch **out)
{
	struct flows_watch *watch = calloc(1, sizeof(*watch));
	int rc;

	if (watch == NULL)
		return -ENOMEM;
	*watch = (struct flows_watch){.options = *options, .seen = seen, .context = context, .poll.data = watch, .timer.data = watch};
	rc = open_socket(watch);
	if (rc == 0)
		rc = open_handles(loop, watch);
	if (rc != 0) {
		flows_watch_close(watch);
		return rc;
	}
	*out = watch;
	return 0;
}

static void free_watch(struct flows_watch *watch)
{
	beginnings_free(watch->beginnings);
	free(watch->buffers);
	free(watch);
}

static void on_closed(uv_handle_t *handle)
{
	struct flows_watch *watch = handle->data;

	if (--watch->handles == 0)
		free_watch(watch);
}

void flows_watch_close(struct flows_watch *watch)
{
	if (watch == NULL)
		return;
	if (watch->handles > 1)
		uv_close((uv_handle_t *)&watch->poll, on_closed);
	if (watch->handles > 0)
		uv_close((uv_handle_t *)&watch->timer, on_closed);
	if (watch->socket != NULL)
		mnl_socket_close(watch->socket);
	if (watch->handles == 0)
		free_watch(watch);
}
