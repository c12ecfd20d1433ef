/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: a look has a socket of its own, so that nothing of an earlier one can be in it. The dump is read when the loop finds
 * the socket readable, a few datagrams in each turn; the kernel goes on with it when there is room. Flows to be ended are kept and removed
 * when the dump has come to its end, since removing while dumping can make it skip some; those, too, a few in each turn.
 */
#include "gateway/flows.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

#define DUMP_SIZE      32768 /* octets of one datagram of a dump: about a hundred flows */
#define DUMP_TURN      4     /* datagrams per turn of the loop */
#define END_TURN       64    /* flows ended per turn of the loop */
#define REQUEST_SIZE   64
#define NS_PER_MS      1000000
#define RECEIVE_BUFFER (256 * 1024) /* the kernel writes no more of a dump than fits */

struct flows {
	uv_loop_t *loop;
	uv_timer_t timer;           /* the next part of the ending */
	uv_poll_t *poll;            /* owned by the loop, freed in its close callback; NULL while no dump is read */
	struct mnl_socket *socket;  /* owned; NULL while no dump is read */
	struct nfct_handle *handle; /* owned; NULL while nothing is being ended */
	flows_visit visit;
	flows_done done;
	void *context;
	struct nf_conntrack **to_end; /* owned, with its entries */
	size_t to_end_count, to_end_room, ended;
	int error;
	bool looking, closing;
};

struct flows *flows_new(uv_loop_t *loop)
{
	struct flows *flows = calloc(1, sizeof(*flows));

	if (flows == NULL)
		return NULL;
	flows->loop = loop;
	if (uv_timer_init(loop, &flows->timer) != 0) {
		free(flows);
		return NULL;
	}
	flows->timer.data = flows;
	return flows;
}

static void free_handle(uv_handle_t *handle)
{
	free(handle);
}

static void close_socket(struct flows *flows)
{
	if (flows->poll != NULL) {
		uv_poll_stop(flows->poll);
		uv_close((uv_handle_t *)flows->poll, free_handle);
		flows->poll = NULL;
	}
	if (flows->socket != NULL)
		mnl_socket_close(flows->socket);
	flows->socket = NULL;
}

static void forget_to_end(struct flows *flows)
{
	for (size_t i = 0; i < flows->to_end_count; i++)
		nfct_destroy(flows->to_end[i]);
	free(flows->to_end);
	flows->to_end = NULL;
	flows->to_end_count = flows->to_end_room = 0;
	if (flows->handle != NULL)
		nfct_close(flows->handle);
	flows->handle = NULL;
}

static void finish(struct flows *flows)
{
	close_socket(flows);
	forget_to_end(flows);
	flows->looking = false;
	flows->done(flows->context, flows->error, flows->ended);
}

static struct address address_of(const struct nf_conntrack *entry, enum nf_conntrack_attr ipv4, enum nf_conntrack_attr ipv6)
{
	uint8_t family = nfct_get_attr_u8(entry, ATTR_L3PROTO);
	const void *bytes = nfct_get_attr(entry, family == AF_INET ? ipv4 : ipv6);
	struct address none = {0};

	return bytes != NULL ? address_from_bytes(family, bytes) : none;
}

static uint8_t tcp_state(const struct nf_conntrack *entry)
{
	return nfct_attr_is_set(entry, ATTR_TCP_STATE) > 0 ? nfct_get_attr_u8(entry, ATTR_TCP_STATE) : TCP_CONNTRACK_NONE;
}

static uint64_t counter_of(const struct nf_conntrack *entry, enum nf_conntrack_attr attribute)
{
	return nfct_attr_is_set(entry, attribute) > 0 ? nfct_get_attr_u64(entry, attribute) : 0;
}

static enum flow_timeout timeout_of(const struct nf_conntrack *entry)
{
	uint8_t protocol = nfct_get_attr_u8(entry, ATTR_L4PROTO);

	if (protocol == IPPROTO_UDP)
		return nfct_get_attr_u32(entry, ATTR_STATUS) & IPS_ASSURED ? FLOW_TIMEOUT_UDP_STREAM : FLOW_TIMEOUT_UDP;
	switch (tcp_state(entry)) {
	case TCP_CONNTRACK_LAST_ACK: return FLOW_TIMEOUT_LAST_ACK;
	case TCP_CONNTRACK_TIME_WAIT: return FLOW_TIMEOUT_TIME_WAIT;
	case TCP_CONNTRACK_CLOSE: return FLOW_TIMEOUT_CLOSE;
	default: return FLOW_TIMEOUT_OTHER;
	}
}

bool flows_read(const struct nf_conntrack *entry, struct tracked_flow *out)
{
	*out = (struct tracked_flow){
		.flow.source = address_of(entry, ATTR_ORIG_IPV4_SRC, ATTR_ORIG_IPV6_SRC),
		.flow.destination = address_of(entry, ATTR_ORIG_IPV4_DST, ATTR_ORIG_IPV6_DST),
		.flow.protocol = nfct_get_attr_u8(entry, ATTR_L4PROTO),
		.flow.source_port = ntohs(nfct_get_attr_u16(entry, ATTR_PORT_SRC)),
		.flow.destination_port = ntohs(nfct_get_attr_u16(entry, ATTR_PORT_DST)),
		.target = address_of(entry, ATTR_REPL_IPV4_SRC, ATTR_REPL_IPV6_SRC),
		.target_port = ntohs(nfct_get_attr_u16(entry, ATTR_REPL_PORT_SRC)),
		.mark = nfct_attr_is_set(entry, ATTR_MARK) ? nfct_get_attr_u32(entry, ATTR_MARK) : 0,
		.id = nfct_attr_is_set(entry, ATTR_ID) > 0 ? nfct_get_attr_u32(entry, ATTR_ID) : 0,
		.traffic.bytes_out = counter_of(entry, ATTR_ORIG_COUNTER_BYTES),
		.traffic.bytes_in = counter_of(entry, ATTR_REPL_COUNTER_BYTES),
		.traffic.packets_out = counter_of(entry, ATTR_ORIG_COUNTER_PACKETS),
		.traffic.packets_in = counter_of(entry, ATTR_REPL_COUNTER_PACKETS),
		.started = counter_of(entry, ATTR_TIMESTAMP_START) / NS_PER_MS,
		.stopped = counter_of(entry, ATTR_TIMESTAMP_STOP) / NS_PER_MS,
		.timeout = timeout_of(entry),
		.remaining = nfct_get_attr_u32(entry, ATTR_TIMEOUT),
	};
	out->translated = !address_equal(&out->flow.destination, &out->target);
	out->over = out->timeout == FLOW_TIMEOUT_LAST_ACK || out->timeout == FLOW_TIMEOUT_TIME_WAIT || out->timeout == FLOW_TIMEOUT_CLOSE;
	return out->flow.source.family != 0 && (out->flow.protocol == IPPROTO_TCP || out->flow.protocol == IPPROTO_UDP);
}

/* Return: false when there is no memory. */
static bool keep_to_end(struct flows *flows, struct nf_conntrack *entry)
{
	if (flows->to_end_count == flows->to_end_room) {
		size_t room = flows->to_end_room * 2 + 64;
		struct nf_conntrack **list = reallocarray(flows->to_end, room, sizeof(struct nf_conntrack *));

		if (list == NULL)
			return false;
		flows->to_end = list;
		flows->to_end_room = room;
	}
	flows->to_end[flows->to_end_count++] = entry;
	return true;
}

static int on_entry(const struct nlmsghdr *message, void *context)
{
	struct flows *flows = context;
	struct nf_conntrack *entry = nfct_new();
	struct tracked_flow flow;

	if (entry == NULL) {
		flows->error = -ENOMEM;
		return MNL_CB_OK;
	}
	if (nfct_nlmsg_parse(message, entry) == 0 && flows_read(entry, &flow) && flows->visit(flows->context, &flow)) {
		if (keep_to_end(flows, entry))
			return MNL_CB_OK;
		flows->error = -ENOMEM;
	}
	nfct_destroy(entry);
	return MNL_CB_OK;
}

static void on_end_some(uv_timer_t *timer)
{
	struct flows *flows = timer->data;

	if (flows->closing)
		return;
	for (int i = 0; i < END_TURN && flows->to_end_count > 0; i++) {
		struct nf_conntrack *entry = flows->to_end[--flows->to_end_count];

		/* ENOENT: it has ended by itself. */
		if (nfct_query(flows->handle, NFCT_Q_DESTROY, entry) == 0)
			flows->ended++;
		else if (errno != ENOENT)
			flows->error = -errno;
		nfct_destroy(entry);
	}
	if (flows->to_end_count > 0)
		uv_timer_start(timer, on_end_some, 0, 0);
	else
		finish(flows);
}

/* All flows have been seen. */
static void begin_ending(struct flows *flows)
{
	close_socket(flows);
	if (flows->to_end_count > 0) {
		flows->handle = nfct_open(CONNTRACK, 0);
		if (flows->handle == NULL)
			flows->error = -errno;
	}
	if (flows->handle != NULL)
		uv_timer_start(&flows->timer, on_end_some, 0, 0);
	else
		finish(flows);
}

/* One datagram. Return: false when there is nothing more to read now. */
static bool receive(struct flows *flows)
{
	uint8_t buffer[DUMP_SIZE] __attribute__((aligned(8)));
	ssize_t size = recv(mnl_socket_get_fd(flows->socket), buffer, sizeof(buffer), MSG_DONTWAIT);
	int rc;

	if (size < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
		return false;
	rc = size < 0 ? MNL_CB_ERROR : mnl_cb_run(buffer, (size_t)size, 0, mnl_socket_get_portid(flows->socket), on_entry, flows);
	if (rc == MNL_CB_OK)
		return true;
	if (rc == MNL_CB_ERROR)
		flows->error = -errno;
	begin_ending(flows);
	return false;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct flows *flows = poll->data;

	(void)events;
	if (flows->closing || poll != flows->poll)
		return;
	if (status < 0) {
		flows->error = status;
		begin_ending(flows);
		return;
	}
	for (int i = 0; i < DUMP_TURN; i++) {
		if (!receive(flows))
			break;
	}
}

static int request_dump(struct mnl_socket *socket)
{
	char buffer[REQUEST_SIZE] __attribute__((aligned(8)));
	struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
	struct nfgenmsg *fields;

	message->nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET;
	message->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	fields = mnl_nlmsg_put_extra_header(message, sizeof(*fields));
	fields->nfgen_family = AF_UNSPEC;
	fields->version = NFNETLINK_V0;
	return mnl_socket_sendto(socket, message, message->nlmsg_len) < 0 ? -errno : 0;
}

static int open_socket(struct flows *flows)
{
	int size = RECEIVE_BUFFER;

	flows->socket = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (flows->socket == NULL || mnl_socket_bind(flows->socket, 0, MNL_SOCKET_AUTOPID) < 0)
		return -errno;
	(void)setsockopt(mnl_socket_get_fd(flows->socket), SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	return request_dump(flows->socket);
}

static int watch_socket(struct flows *flows)
{
	uv_poll_t *poll = calloc(1, sizeof(*poll));
	int rc;

	if (poll == NULL)
		return -ENOMEM;
	rc = uv_poll_init(flows->loop, poll, mnl_socket_get_fd(flows->socket));
	if (rc != 0) {
		free(poll);
		return rc;
	}
	poll->data = flows;
	flows->poll = poll;
	return uv_poll_start(poll, UV_READABLE, on_readable);
}

int flows_look(struct flows *flows, flows_visit visit, flows_done done, void *context)
{
	int rc;

	if (flows->looking)
		return -EALREADY;
	flows->visit = visit;
	flows->done = done;
	flows->context = context;
	flows->error = 0;
	flows->ended = 0;
	rc = open_socket(flows);
	if (rc == 0)
		rc = watch_socket(flows);
	if (rc != 0)
		close_socket(flows);
	flows->looking = rc == 0;
	return rc;
}

static void free_flows(uv_handle_t *handle)
{
	free(handle->data);
}

void flows_close(struct flows *flows)
{
	if (flows == NULL || flows->closing)
		return;
	flows->closing = true;
	close_socket(flows);
	forget_to_end(flows);
	uv_close((uv_handle_t *)&flows->timer, free_flows);
}
