/* SPDX-License-Identifier: MIT */
/*
 * Flows that begin and end, as conntrack tells of them.
 *
 * Theory of operation: a socket of the multicast groups "new" and "destroy", with a filter in the kernel that lets only flows of some marks
 * through. A flow is told of when its first packet has passed all chains, so it has its mark by then. Messages that do not fit into the
 * socket are lost without an error (which libuv would take for the end of the socket).
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
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include <libnetfilter_conntrack/libnetfilter_conntrack.h>

#include "gateway/beginnings.h"
#include "gateway/environment.h"

#define TIMEOUTS_AGE_S 10    /* sysctls are read again after this */
#define TURN           256   /* events taken in one turn of the loop */
#define ALL            16384 /* more are hardly ever waiting */

struct flows_watch {
	struct nfct_handle *handle;    /* owned */
	struct beginnings *beginnings; /* owned; NULL where ends are not wanted */
	uv_poll_t poll;
	bool polling;
	struct flows_watch_options options;
	flows_seen seen;
	void *context;
	unsigned int read, max;
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

static void tell(struct flows_watch *watch, enum nf_conntrack_msg_type type, const struct tracked_flow *flow)
{
	if (type != NFCT_T_NEW) {
		watch->seen(watch->context, FLOW_ENDED, flow, duration_of(watch, flow));
		return;
	}
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

static int on_event(enum nf_conntrack_msg_type type, struct nf_conntrack *entry, void *context)
{
	struct flows_watch *watch = context;
	struct tracked_flow flow;

	/* The filter has looked at the mark already; a program that is wrong about it would only cost lines. */
	if (flows_read(entry, &flow) && is_wanted(watch, flow.mark))
		tell(watch, type, &flow);
	return ++watch->read < watch->max ? NFCT_CB_CONTINUE : NFCT_CB_STOP;
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
	rc = nfct_filter_attach(nfct_fd(watch->handle), filter) < 0 ? -errno : 0;
	nfct_filter_destroy(filter);
	return rc;
}

static int prepare_socket(struct flows_watch *watch)
{
	int fd = nfct_fd(watch->handle), on = 1, size = watch->options.buffer;

	/* Beyond the system's limit only with CAP_NET_ADMIN in the first user namespace. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) != 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	if (setsockopt(fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof(on)) != 0 ||
	    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
		return -errno;
	return attach_filter(watch);
}

static int open_socket(struct flows_watch *watch)
{
	bool ends = watch->options.ends;
	unsigned int groups = NF_NETLINK_CONNTRACK_NEW | (ends ? NF_NETLINK_CONNTRACK_DESTROY : 0);
	int types = NFCT_T_NEW | (ends ? NFCT_T_DESTROY : 0), rc;

	if (ends) {
		watch->beginnings = beginnings_new();
		if (watch->beginnings == NULL)
			return -ENOMEM;
	}
	watch->handle = nfct_open(CONNTRACK, groups);
	if (watch->handle == NULL)
		return -errno;
	rc = prepare_socket(watch);
	if (rc == 0 && nfct_callback_register(watch->handle, (enum nf_conntrack_msg_type)types, on_event, watch) < 0)
		rc = -errno;
	return rc;
}

static void take(struct flows_watch *watch, unsigned int max)
{
	watch->read = 0;
	watch->max = max;
	(void)nfct_catch(watch->handle); /* ends with EAGAIN, or at the last that was wanted */
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

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct flows_watch *watch = poll->data;

	(void)status;
	(void)events;
	take(watch, TURN);
}

int flows_watch_open(uv_loop_t *loop, const struct flows_watch_options *options, flows_seen seen, void *context, struct flows_watch **out)
{
	struct flows_watch *watch = calloc(1, sizeof(*watch));
	int rc;

	if (watch == NULL)
		return -ENOMEM;
	*watch = (struct flows_watch){.options = *options, .seen = seen, .context = context, .poll.data = watch};
	rc = open_socket(watch);
	if (rc == 0)
		rc = uv_poll_init(loop, &watch->poll, nfct_fd(watch->handle));
	if (rc == 0) {
		watch->polling = true;
		rc = uv_poll_start(&watch->poll, UV_READABLE, on_readable);
	}
	if (rc != 0) {
		flows_watch_close(watch);
		return rc;
	}
	*out = watch;
	return 0;
}

static void free_watch(uv_handle_t *handle)
{
	struct flows_watch *watch = handle->data;

	beginnings_free(watch->beginnings);
	free(watch);
}

void flows_watch_close(struct flows_watch *watch)
{
	if (watch == NULL)
		return;
	if (watch->polling)
		uv_close((uv_handle_t *)&watch->poll, free_watch);
	if (watch->handle != NULL)
		nfct_close(watch->handle);
	if (!watch->polling)
		free_watch((uv_handle_t *)&watch->poll);
}
