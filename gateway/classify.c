/* SPDX-License-Identifier: MIT */
/*
 * Packets that the kernel did not let pass: what they are, and why.
 *
 * Both functions are pure. Packets are hostile and may be cut short by the copy length of the queue: `left` always holds what may still be
 * read.
 */
#include "gateway/classify.h"

#include <netinet/in.h>
#include <string.h>

#define IPV6_EXTENSIONS_MAX 8 /* headers between the IPv6 header and the transport */
#define TCP_FLAGS_OFFSET    13

/* The rest of a packet while it is taken apart. */
struct cursor {
	const uint8_t *at;
	size_t left;
};

struct flow_key flow_key(const struct flow *flow)
{
	struct flow_key key;

	memset(&key, 0, sizeof(key));
	key.source = flow->source;
	key.destination = flow->destination;
	key.source_port = flow->source_port;
	key.destination_port = flow->destination_port;
	key.protocol = flow->protocol;
	return key;
}

static uint16_t get16(const uint8_t *bytes)
{
	return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

static bool skip(struct cursor *cursor, size_t size)
{
	if (size > cursor->left)
		return false;
	cursor->at += size;
	cursor->left -= size;
	return true;
}

/* Do not read beyond what the IP header says; 0 means that the packet is too large for the field (jumbogram, BIG TCP). */
static void limit(struct cursor *cursor, size_t size)
{
	if (size > 0 && size < cursor->left)
		cursor->left = size;
}

static bool parse_ports(const struct cursor *cursor, size_t header, struct flow *out)
{
	if (cursor->left < header)
		return false;
	out->source_port = get16(cursor->at);
	out->destination_port = get16(cursor->at + 2);
	return true;
}

static uint32_t get32(const uint8_t *bytes)
{
	return (uint32_t)get16(bytes) << 16 | get16(bytes + 2);
}

/* @end: octets from the header's first one to the end of what it covers. */
static void set_content(const struct cursor *cursor, size_t header, size_t end, struct flow *out)
{
	if (header > cursor->left || header > end)
		return;
	out->content = cursor->at + header;
	out->content_size = (end < cursor->left ? end : cursor->left) - header;
}

static bool parse_tcp(const struct cursor *cursor, struct flow *out)
{
	size_t header;

	if (!parse_ports(cursor, 20, out))
		return false;
	out->tcp_flags = cursor->at[TCP_FLAGS_OFFSET];
	out->sequence = get32(cursor->at + 4);
	out->acknowledged = get32(cursor->at + 8);
	header = (size_t)(cursor->at[12] >> 4) * 4;
	set_content(cursor, header, SIZE_MAX, out);
	return header >= 20;
}

static bool parse_udp(const struct cursor *cursor, struct flow *out)
{
	uint16_t length;

	if (!parse_ports(cursor, 8, out))
		return false;
	length = get16(cursor->at + 4);
	set_content(cursor, 8, length ? length : SIZE_MAX, out);
	return length == 0 || length >= 8;
}

static bool parse_icmp(const struct cursor *cursor, struct flow *out)
{
	if (cursor->left < 8)
		return false;
	out->icmp_type = cursor->at[0];
	return true;
}

static bool parse_transport(const struct cursor *cursor, struct flow *out)
{
	if (out->fragment)
		return true;
	switch (out->protocol) {
	case IPPROTO_TCP: return parse_tcp(cursor, out);
	case IPPROTO_UDP: return parse_udp(cursor, out);
	case IPPROTO_UDPLITE: return parse_ports(cursor, 8, out);
	case IPPROTO_SCTP:
	case IPPROTO_DCCP: return parse_ports(cursor, 12, out);
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6: return parse_icmp(cursor, out);
	default: return true; /* others have no ports that we know */
	}
}

/* RFC 791 */
static bool parse_ipv4(struct cursor *cursor, struct flow *out)
{
	const uint8_t *ip = cursor->at;
	size_t header, total;

	if (cursor->left < 20)
		return false;
	out->source = address_from_bytes(AF_INET, ip + 12);
	out->destination = address_from_bytes(AF_INET, ip + 16);
	out->protocol = ip[9];
	out->fragment = (get16(ip + 6) & 0x1fff) != 0;
	header = (size_t)(ip[0] & 0xf) * 4;
	total = get16(ip + 2);
	if (header < 20 || (total > 0 && total < header))
		return false;
	limit(cursor, total);
	return skip(cursor, header) && parse_transport(cursor, out);
}

/*
 * Step over one extension header (RFC 8200 section 4, RFC 4302). Return: true when @out->protocol names the next thing to look at.
 */
static bool skip_extension(struct cursor *cursor, struct flow *out)
{
	size_t size;

	if (cursor->left < 8)
		return false;
	if (out->protocol == IPPROTO_FRAGMENT) {
		size = 8;
		out->fragment = (get16(cursor->at + 2) & 0xfff8) != 0;
	} else if (out->protocol == IPPROTO_AH) {
		size = ((size_t)cursor->at[1] + 2) * 4;
	} else {
		size = ((size_t)cursor->at[1] + 1) * 8;
	}
	out->protocol = cursor->at[0];
	return skip(cursor, size);
}

static bool is_extension(uint8_t protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING || protocol == IPPROTO_DSTOPTS || protocol == IPPROTO_FRAGMENT ||
	       protocol == IPPROTO_AH;
}

/* RFC 8200 */
static bool parse_ipv6(struct cursor *cursor, struct flow *out)
{
	const uint8_t *ip = cursor->at;
	size_t payload;

	if (cursor->left < 40)
		return false;
	out->source = address_from_bytes(AF_INET6, ip + 8);
	out->destination = address_from_bytes(AF_INET6, ip + 24);
	out->protocol = ip[6];
	payload = get16(ip + 4);
	skip(cursor, 40);
	limit(cursor, payload);
	for (unsigned int i = 0; is_extension(out->protocol) && !out->fragment; i++) {
		if (i == IPV6_EXTENSIONS_MAX || !skip_extension(cursor, out))
			return false;
	}
	return parse_transport(cursor, out);
}

bool classify_packet(const uint8_t *packet, size_t size, struct flow *out)
{
	struct cursor cursor = {.at = packet, .left = size};

	memset(out, 0, sizeof(*out));
	if (size == 0)
		return false;
	if (packet[0] >> 4 == 4)
		return parse_ipv4(&cursor, out);
	if (packet[0] >> 4 == 6)
		return parse_ipv6(&cursor, out);
	return false;
}

/* What is known when a flow is judged. */
struct judgement {
	const struct policy *policy;
	const struct network *network;
	const struct lease_table *leases;
	const struct flow *flow;
	const struct lease *lease; /* what best names the destination, or NULL */
	uint64_t now;
	time_t wall;
};

static bool is_full_length(const struct prefix *prefix)
{
	return prefix->length == address_bits(&prefix->address);
}

/* Another network, or one of the gateway's own addresses. */
static bool is_isolated(const struct judgement *j)
{
	const struct network *other = policy_network_by_source(j->policy, &j->flow->destination);
	const struct prefix *own = policy_own(j->policy, &j->flow->destination);

	return (other && other->id != j->network->id) || (own && is_full_length(own));
}

static bool has_transport(const struct flow *flow)
{
	return (flow->protocol == IPPROTO_TCP || flow->protocol == IPPROTO_UDP) && !flow->fragment;
}

/* Do @specs, bits of the network's port specifications, cover the flow's port? */
static bool specs_cover(const struct judgement *j, uint64_t specs)
{
	return (specs & policy_specs_on(j->network, j->flow->protocol, j->flow->destination_port)) != 0;
}

/* Does any live lease of the network allow the flow? Not only the one that names it best: another name may have other ports. */
static bool is_leased(const struct judgement *j)
{
	uint64_t covering = policy_specs_on(j->network, j->flow->protocol, j->flow->destination_port);

	return covering != 0 && lease_until(j->leases, j->network->id, &j->flow->destination, covering) > j->now;
}

static void decide(struct denial *denial, enum reason reason, const struct rule *rule)
{
	denial->reason = reason;
	denial->rule = rule;
}

/* The answer that gave the lease could show the address; by the policy of today it might not. */
static bool may_be_shown(const struct judgement *j)
{
	if (j->network->has_virtual_addresses)
		return policy_in_pool(j->network, &j->flow->destination);
	return policy_answer_may_show(j->policy, j->network, &j->lease->name, &j->flow->destination);
}

/*
 * The destination is, or was, a lease of this network that does not open the flow. That its name is allowed is no reason to let it pass:
 * what is open was decided when the lease was granted, and again at each reload.
 */
static void judge_own_lease(const struct judgement *j, enum reason address_reason, struct denial *denial)
{
	struct name_verdict name = policy_judge_chain(j->network, &j->lease->name, &j->lease->chain, j->wall, NULL);
	bool allowed = name.allowed && !name.audited;

	if ((allowed || address_reason == REASON_SPECIAL_ADDRESS) && !may_be_shown(j))
		decide(denial, address_reason, NULL);
	else if (!allowed)
		decide(denial, name.reason, name.rule);
	else if (!specs_cover(j, name.specs))
		decide(denial, REASON_PORT_NOT_ALLOWED, name.rule);
	else
		decide(denial, REASON_LEASE_EXPIRED, name.rule);
}

/* No lease of this network: the address rules decide. A name known from elsewhere makes "no rule" more precise. */
static void judge_by_address(const struct judgement *j, const struct address_verdict *address, struct denial *denial)
{
	bool named = j->lease && address->reason == REASON_ADDRESS_NOT_ALLOWED;

	decide(denial, named ? REASON_NAME_NOT_ALLOWED : address->reason, address->rule);
}

/* No address rule is about virtual addresses. */
static struct address_verdict judge_address(const struct judgement *j)
{
	if (policy_in_pool(j->network, &j->flow->destination))
		return (struct address_verdict){.reason = REASON_ADDRESS_NOT_ALLOWED};
	return policy_judge_address(j->policy, j->network, &j->flow->destination, j->flow->protocol, j->flow->destination_port);
}

static void judge_flow(const struct judgement *j, bool parsed, bool local, struct denial *denial)
{
	struct address_verdict address;

	if (!parsed) {
		decide(denial, REASON_MALFORMED, NULL);
		return;
	}
	if ((local && !policy_in_pool(j->network, &j->flow->destination)) || is_isolated(j)) {
		decide(denial, REASON_ISOLATED, NULL);
		return;
	}
	if (!has_transport(j->flow)) {
		decide(denial, REASON_PROTOCOL_NOT_ALLOWED, NULL);
		return;
	}
	address = judge_address(j);
	if (address.allowed || address.reason == REASON_DENIED_BY_RULE)
		decide(denial, address.allowed ? REASON_NONE : REASON_DENIED_BY_RULE, address.rule);
	else if (is_leased(j))
		decide(denial, REASON_NONE, NULL);
	else if (j->lease && j->lease->network == j->network->id)
		judge_own_lease(j, address.reason, denial);
	else
		judge_by_address(j, &address, denial);
}

bool classify_audit_lifts(enum reason reason)
{
	return reason == REASON_NAME_NOT_ALLOWED || reason == REASON_ADDRESS_NOT_ALLOWED || reason == REASON_PORT_NOT_ALLOWED ||
	       reason == REASON_LEASE_EXPIRED;
}

struct denial classify_judge(const struct policy *policy, const struct network *network, const struct lease_table *leases,
			     const struct flow *flow, bool parsed, bool local, uint64_t now, time_t wall)
{
	struct denial denial = {.reason = REASON_NONE};
	struct judgement j = {.policy = policy, .network = network, .leases = leases, .flow = flow, .now = now, .wall = wall};

	if (flow->destination.family)
		j.lease = lease_find(leases, network->id, &flow->destination);
	if (j.lease) {
		denial.name = j.lease->name;
		denial.shown = j.lease->network == network->id;
	}
	judge_flow(&j, parsed, local, &denial);
	denial.audited = classify_audit_lifts(denial.reason) && policy_is_auditing(network, wall);
	/* A virtual address that stands for no name leads nowhere. */
	if (!j.lease && policy_in_pool(network, &flow->destination))
		denial.audited = false;
	return denial;
}
