/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: a look has a socket of its own, so that nothing of an earlier one can be in it. The dump is read when the loop finds
 * the socket readable, a few datagrams in each turn; the kernel goes on with it when there is room. Flows to be ended are kept and removed
 * when the dump has come to its end, since removing while dumping can make it skip some; those, too, a few in each turn.
 */
#include "gateway/flows.h"

#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
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

/* --- an entry, as the attributes in which the kernel tells of it --- */

struct tuple {
	struct address source, destination;
	uint16_t source_port, destination_port;
	uint8_t protocol;
};

/* What an entry says that is not handed out as it is. */
struct entry_state {
	uint32_t status; /* IPS_* */
	uint8_t tcp;     /* TCP_CONNTRACK_* */
};

/*
 * Attributes that are still to be read. Every flow costs two events with some thirty attributes each: walking over them with the functions
 * of libmnl took twice as long.
 */
struct attributes {
	const uint8_t *at;
	size_t left;
};

/* An attribute, with what is in it. */
struct attribute {
	uint16_t type;
	size_t size;
	const uint8_t *bytes;
};

/* Take the first one off the list. Return: false at the end, or when what follows is no attribute. */
static inline bool take(struct attributes *list, struct attribute *out)
{
	struct nlattr header;
	size_t whole;

	if (list->left < sizeof(header))
		return false;
	memcpy(&header, list->at, sizeof(header));
	if (header.nla_len < sizeof(header) || header.nla_len > list->left)
		return false;
	out->type = header.nla_type & NLA_TYPE_MASK;
	out->size = header.nla_len - sizeof(header);
	out->bytes = list->at + sizeof(header);
	whole = NLA_ALIGN((size_t)header.nla_len);
	whole = whole < list->left ? whole : list->left;
	list->at += whole;
	list->left -= whole;
	return true;
}

static inline struct attributes inside(const struct attribute *nest)
{
	return (struct attributes){.at = nest->bytes, .left = nest->size};
}

/* All of them are in network order. Return: 0 for an attribute of another size, too. */
static inline uint64_t number_of(const struct attribute *attribute)
{
	uint16_t two;
	uint32_t four;
	uint64_t eight;

	switch (attribute->size) {
	case sizeof(uint8_t): return attribute->bytes[0];
	case sizeof(two): memcpy(&two, attribute->bytes, sizeof(two)); return be16toh(two);
	case sizeof(four): memcpy(&four, attribute->bytes, sizeof(four)); return be32toh(four);
	case sizeof(eight): memcpy(&eight, attribute->bytes, sizeof(eight)); return be64toh(eight);
	default: return 0;
	}
}

static inline void read_address(const struct attribute *attribute, int family, struct address *out)
{
	if (attribute->size == (family == AF_INET ? sizeof(struct in_addr) : sizeof(struct in6_addr)))
		*out = address_from_bytes(family, attribute->bytes);
}

static void read_addresses(const struct attribute *nest, struct tuple *out)
{
	struct attributes list = inside(nest);
	struct attribute attribute;

	while (take(&list, &attribute)) {
		switch (attribute.type) {
		case CTA_IP_V4_SRC: read_address(&attribute, AF_INET, &out->source); break;
		case CTA_IP_V4_DST: read_address(&attribute, AF_INET, &out->destination); break;
		case CTA_IP_V6_SRC: read_address(&attribute, AF_INET6, &out->source); break;
		case CTA_IP_V6_DST: read_address(&attribute, AF_INET6, &out->destination); break;
		default: break;
		}
	}
}

static void read_protocol(const struct attribute *nest, struct tuple *out)
{
	struct attributes list = inside(nest);
	struct attribute attribute;

	while (take(&list, &attribute)) {
		switch (attribute.type) {
		case CTA_PROTO_NUM: out->protocol = (uint8_t)number_of(&attribute); break;
		case CTA_PROTO_SRC_PORT: out->source_port = (uint16_t)number_of(&attribute); break;
		case CTA_PROTO_DST_PORT: out->destination_port = (uint16_t)number_of(&attribute); break;
		default: break;
		}
	}
}

static void read_tuple(const struct attribute *nest, struct tuple *out)
{
	struct attributes list = inside(nest);
	struct attribute attribute;

	memset(out, 0, sizeof(*out));
	while (take(&list, &attribute)) {
		if (attribute.type == CTA_TUPLE_IP)
			read_addresses(&attribute, out);
		else if (attribute.type == CTA_TUPLE_PROTO)
			read_protocol(&attribute, out);
	}
}

static void read_tcp_state(const struct attribute *nest, struct entry_state *out)
{
	struct attributes outer = inside(nest), inner;
	struct attribute attribute;

	while (take(&outer, &attribute)) {
		if (attribute.type != CTA_PROTOINFO_TCP)
			continue;
		for (inner = inside(&attribute); take(&inner, &attribute);) {
			if (attribute.type == CTA_PROTOINFO_TCP_STATE)
				out->tcp = (uint8_t)number_of(&attribute);
		}
	}
}

static void read_counters(const struct attribute *nest, uint64_t *packets, uint64_t *bytes)
{
	struct attributes list = inside(nest);
	struct attribute attribute;

	while (take(&list, &attribute)) {
		if (attribute.type == CTA_COUNTERS_PACKETS)
			*packets = number_of(&attribute);
		else if (attribute.type == CTA_COUNTERS_BYTES)
			*bytes = number_of(&attribute);
	}
}

static void read_times(const struct attribute *nest, struct tracked_flow *out)
{
	struct attributes list = inside(nest);
	struct attribute attribute;

	while (take(&list, &attribute)) {
		if (attribute.type == CTA_TIMESTAMP_START)
			out->started = number_of(&attribute) / NS_PER_MS;
		else if (attribute.type == CTA_TIMESTAMP_STOP)
			out->stopped = number_of(&attribute) / NS_PER_MS;
	}
}

static void read_original(const struct attribute *nest, struct tracked_flow *out)
{
	struct tuple tuple;

	read_tuple(nest, &tuple);
	out->flow.source = tuple.source;
	out->flow.destination = tuple.destination;
	out->flow.protocol = tuple.protocol;
	out->flow.source_port = tuple.source_port;
	out->flow.destination_port = tuple.destination_port;
}

static void read_reply(const struct attribute *nest, struct tracked_flow *out)
{
	struct tuple tuple;

	read_tuple(nest, &tuple);
	out->target = tuple.source;
	out->target_port = tuple.source_port;
}

static void read_attribute(const struct attribute *attribute, struct tracked_flow *out, struct entry_state *state)
{
	struct traffic *traffic = &out->traffic;

	switch (attribute->type) {
	case CTA_TUPLE_ORIG: read_original(attribute, out); break;
	case CTA_TUPLE_REPLY: read_reply(attribute, out); break;
	case CTA_STATUS: state->status = (uint32_t)number_of(attribute); break;
	case CTA_PROTOINFO: read_tcp_state(attribute, state); break;
	case CTA_TIMEOUT: out->remaining = (uint32_t)number_of(attribute); break;
	case CTA_MARK: out->mark = (uint32_t)number_of(attribute); break;
	case CTA_ID: out->id = (uint32_t)number_of(attribute); break;
	case CTA_COUNTERS_ORIG: read_counters(attribute, &traffic->packets_out, &traffic->bytes_out); break;
	case CTA_COUNTERS_REPLY: read_counters(attribute, &traffic->packets_in, &traffic->bytes_in); break;
	case CTA_TIMESTAMP: read_times(attribute, out); break;
	default: break;
	}
}

static enum flow_timeout timeout_of(uint8_t protocol, const struct entry_state *state)
{
	if (state->status & IPS_OFFLOAD)
		return FLOW_TIMEOUT_OTHER;
	if (protocol == IPPROTO_UDP)
		return state->status & IPS_ASSURED ? FLOW_TIMEOUT_UDP_STREAM : FLOW_TIMEOUT_UDP;
	switch (state->tcp) {
	case TCP_CONNTRACK_LAST_ACK: return FLOW_TIMEOUT_LAST_ACK;
	case TCP_CONNTRACK_TIME_WAIT: return FLOW_TIMEOUT_TIME_WAIT;
	case TCP_CONNTRACK_CLOSE: return FLOW_TIMEOUT_CLOSE;
	default: return FLOW_TIMEOUT_OTHER;
	}
}

bool flows_parse(const void *attributes, size_t size, struct tracked_flow *out)
{
	struct attributes list = {.at = attributes, .left = size};
	struct entry_state state = {.tcp = TCP_CONNTRACK_NONE};
	struct attribute attribute;

	memset(out, 0, sizeof(*out));
	while (take(&list, &attribute))
		read_attribute(&attribute, out, &state);
	out->timeout = timeout_of(out->flow.protocol, &state);
	out->translated = !address_equal(&out->flow.destination, &out->target);
	out->over = out->timeout == FLOW_TIMEOUT_LAST_ACK || out->timeout == FLOW_TIMEOUT_TIME_WAIT || out->timeout == FLOW_TIMEOUT_CLOSE;
	return out->flow.source.family != 0 && out->flow.source.family == out->flow.destination.family &&
	       (out->flow.protocol == IPPROTO_TCP || out->flow.protocol == IPPROTO_UDP);
}

bool flows_parse_message(const struct nlmsghdr *message, struct tracked_flow *out)
{
	size_t header = MNL_ALIGN(sizeof(struct nfgenmsg)), size = mnl_nlmsg_get_payload_len(message);

	return size > header && flows_parse(mnl_nlmsg_get_payload_offset(message, header), size - header, out);
}

/* --- looks --- */

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

/* Return: false when there is no memory. */
static bool end_later(struct flows *flows, const struct nlmsghdr *message)
{
	struct nf_conntrack *entry = nfct_new();

	if (entry == NULL)
		return false;
	if (nfct_nlmsg_parse(message, entry) == 0 && keep_to_end(flows, entry))
		return true;
	nfct_destroy(entry);
	return false;
}

static int on_entry(const struct nlmsghdr *message, void *context)
{
	struct flows *flows = context;
	struct tracked_flow flow;

	if (flows_parse_message(message, &flow) && flows->visit(flows->context, &flow) && !end_later(flows, message))
		flows->error = -ENOMEM;
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
