/* SPDX-License-Identifier: MIT */
/*
 * The chains of one network. A packet from an app takes them in this order:
 *
 *	fragments_N	before packets are put together from fragments: the source of each part must belong to the network.
 *	own_N		for both of these: nobody in the network has an address of the gateway's.
 *	guard_N		raw: the source must belong to the network. Questions to the gateway stay out of conntrack.
 *	redirect_N	nat: questions to any other server are brought to the gateway, to a port of their own; what exceeds the rate of
 *			new ones goes to excess_N.
 *	errors_N	forward and input: an ICMP error must be about a flow of the network.
 *	stray_N		forward and input: what belongs to no flow and cannot begin one is counted and dropped.
 *	net_N		forward: address rules, name sets: pass_N; what is left goes to audit_N or deny_N.
 *	pass_N		the flow is marked and counted, once.
 *	input_N		input: DNS, echo, discovery; what is left goes to deny_N.
 *	deny_N		multicast is dropped; above the rate, or known from before, refuse_N; else the queue.
 *	refuse_N	counted in the kernel, per source, and refused.
 *	excess_N	the same, without an answer.
 *	crowded_N	of whoever has too many flows (room.h): counted, and refused.
 *	marked_N	came back from the queue as denied: remembered in seen, and refused. What came back as allowed goes to pass_N.
 *	replies_N	raw output: replies to questions that conntrack has not seen stay out of it.
 *	output_N	output: these replies.
 *
 * A network with virtual addresses has further ones (ruleset_virtual.c), as has one that verifies names (ruleset_verify.c).
 *
 * inbound_N (ruleset_publish.c) takes packets that come from the uplink.
 */
#include <netinet/in.h> /* before the kernel's own headers */

#include <linux/netfilter.h>
#include <stdio.h>
#include <string.h>

#include "gateway/ruleset_internal.h"

#define ICMP_ECHO_REQUEST 8
#define ICMP6_ECHO        128
#define PKTTYPE_HOST      0 /* PACKET_HOST: addressed to us alone */

static const int families[] = {AF_INET, AF_INET6};

static const char *const chain_prefixes[] = {
	RULESET_FRAGMENTS, "own",    "guard",  "redirect", "errors",  "stray",  "net",           "input",      "deny",
	"audit",           "refuse", "excess", "marked",   "replies", "output", RULESET_INBOUND, RULESET_PASS, RULESET_CROWDED};
static const char *const counter_prefixes[] = {"spoofed", "multicast",     "invalid",       "refused",
					       "audited", RULESET_INBOUND, RULESET_ALLOWED, RULESET_CROWDED};

const char *ruleset_allowed_counter(const char *network, char out[static RULESET_SET_NAME_MAX])
{
	snprintf(out, RULESET_SET_NAME_MAX, RULESET_ALLOWED "_%s", network);
	return out;
}

void ruleset_network_want(struct ruleset_plan *plan, const struct network *network)
{
	char name[NFT_NAME_SIZE];

	for (size_t i = 0; i < sizeof(chain_prefixes) / sizeof(chain_prefixes[0]); i++)
		ruleset_want_chain(plan, ruleset_name(chain_prefixes[i], network, name));
	for (size_t i = 0; i < sizeof(counter_prefixes) / sizeof(counter_prefixes[0]); i++)
		ruleset_want_counter(plan, ruleset_name(counter_prefixes[i], network, name));
	if (network->has_virtual_addresses)
		ruleset_virtual_want(plan, network);
	if (network->verify != VERIFY_OFF)
		ruleset_verify_want_network(plan, network);
}

void ruleset_begin(const struct ruleset_writer *writer, const char *prefix)
{
	char name[NFT_NAME_SIZE];

	nft_rule_begin(writer->batch, ruleset_name(prefix, writer->network, name));
}

void ruleset_end(const struct ruleset_writer *writer, enum nft_verdict_kind kind, const char *chain)
{
	nft_verdict(writer->batch, kind, chain);
	nft_rule_end(writer->batch);
}

/* End a rule by counting and dropping. */
static void end_counted(const struct ruleset_writer *writer, const char *counter_prefix)
{
	char name[NFT_NAME_SIZE];

	nft_count(writer->batch, ruleset_name(counter_prefix, writer->network, name));
	ruleset_end(writer, NFT_VERDICT_DROP, NULL);
}

static void match_from_subnet(const struct ruleset_writer *writer, int family)
{
	nft_match_prefix(writer->batch, NFT_FIELD_SOURCE, ruleset_subnet(writer->network, family), true);
}

static void match_to_gateway(const struct ruleset_writer *writer, int family)
{
	nft_match_address(writer->batch, NFT_FIELD_DESTINATION, ruleset_gateway(writer->network, family), true);
}

static void match_dns(const struct ruleset_writer *writer, enum nft_field side)
{
	nft_match_protocol_set(writer->batch, RULESET_TRANSPORT);
	nft_match_port(writer->batch, side, RULESET_DNS_PORT, RULESET_DNS_PORT);
}

/* Nobody but the gateway uses the gateway's addresses; for IPv6 the kernel itself would not mind. */
static void guard_own_address(const struct ruleset_writer *writer, const struct address *own)
{
	ruleset_begin(writer, "own");
	nft_match_address(writer->batch, NFT_FIELD_SOURCE, own, true);
	end_counted(writer, "spoofed");
}

/* Of the rule that is being written, which has matched the family. */
static void match_not_address(const struct ruleset_writer *writer, const struct address *own)
{
	struct prefix prefix = {.address = *own, .length = (uint8_t)address_bits(own)};

	if (prefix_contains(ruleset_subnet(writer->network, own->family), own)) /* the rule has matched the subnet, too */
		nft_match_more_prefix(writer->batch, NFT_FIELD_SOURCE, &prefix, false);
}

/* All addresses of the gateway in the network. */
static void each_own_address(const struct ruleset_writer *writer, int family,
			     void (*take)(const struct ruleset_writer *writer, const struct address *own))
{
	const struct interfaces *interfaces = writer->plan->interfaces;

	take(writer, ruleset_gateway(writer->network, family));
	for (size_t i = 0; i < interfaces->count; i++) {
		const struct interface *interface = &interfaces->list[i];

		if (interface->network != writer->network->id)
			continue;
		for (size_t j = 0; j < interface->address_count; j++) {
			const struct address *own = &interface->addresses[j].address;

			if (own->family == family && !address_equal(own, ruleset_gateway(writer->network, family)))
				take(writer, own);
		}
	}
}

/* Nobody but the gateway has addresses of the pool. */
static void guard_pool(const struct ruleset_writer *writer, int family)
{
	const struct prefix *pool = ruleset_pool(writer->network, family);

	if (!pool)
		return;
	ruleset_begin(writer, "own");
	nft_match_prefix(writer->batch, NFT_FIELD_SOURCE, pool, true);
	end_counted(writer, "spoofed");
}

static const struct prefix *groups(int family)
{
	static const struct prefix ipv4 = {{.family = AF_INET, .bytes = {224}}, 4}, ipv6 = {{.family = AF_INET6, .bytes = {0xff}}, 8};

	return family == AF_INET ? &ipv4 : &ipv6;
}

/* IGMP, MLD and router solicitations, which every kernel sends unasked: dropped, and no denial of anything that an app did. */
static void guard_housekeeping(const struct ruleset_writer *writer, const struct prefix *source)
{
	ruleset_begin(writer, "guard");
	nft_match_prefix(writer->batch, NFT_FIELD_SOURCE, source, true);
	nft_match_prefix(writer->batch, NFT_FIELD_DESTINATION, groups(source->address.family), true);
	ruleset_end(writer, NFT_VERDICT_JUMP, RULESET_HOUSEKEEPING);
}

/* Neighbour discovery comes from link-local addresses, and from :: before an app has one. Without IPv6 there is nobody to discover. */
static void guard_discovery(const struct ruleset_writer *writer, const struct prefix *source)
{
	bool ipv6 = ruleset_subnet(writer->network, AF_INET6) != NULL;

	ruleset_begin(writer, "guard");
	nft_match_prefix(writer->batch, NFT_FIELD_SOURCE, source, true);
	nft_match_meta8(writer->batch, NFT_META_L4PROTO, IPPROTO_ICMPV6, true);
	if (ipv6) {
		ruleset_end(writer, NFT_VERDICT_JUMP, RULESET_DISCOVERY);
		return;
	}
	nft_match_prefix(writer->batch, NFT_FIELD_DESTINATION, groups(AF_INET6), true);
	nft_count(writer->batch, "housekeeping");
	ruleset_end(writer, NFT_VERDICT_DROP, NULL);
}

/* What comes from no address of the subnet and is not spoofed: hosts without an address, and link-local ones. */
static void guard_unaddressed(const struct ruleset_writer *writer)
{
	static const struct prefix none4 = {{.family = AF_INET}, 32}, none6 = {{.family = AF_INET6}, 128},
				   link_local = {{.family = AF_INET6, .bytes = {0xfe, 0x80}}, 10};

	guard_housekeeping(writer, &none4);
	guard_housekeeping(writer, &none6);
	guard_housekeeping(writer, &link_local);
	guard_discovery(writer, &none6);
	guard_discovery(writer, &link_local);
}

/*
 * Dropped here rather than in deny_N: packets to groups that the gateway has not joined do not come that far, also when their frame was
 * addressed to us alone.
 */
static void guard_multicast(const struct ruleset_writer *writer, int family)
{
	guard_housekeeping(writer, ruleset_subnet(writer->network, family));
	if (family == AF_INET6) {
		ruleset_begin(writer, "guard");
		nft_match_prefix(writer->batch, NFT_FIELD_DESTINATION, groups(family), true);
		match_from_subnet(writer, family);
		nft_match_meta8(writer->batch, NFT_META_L4PROTO, IPPROTO_ICMPV6, true);
		ruleset_end(writer, NFT_VERDICT_JUMP, RULESET_DISCOVERY);
	}
	ruleset_begin(writer, "guard");
	nft_match_prefix(writer->batch, NFT_FIELD_DESTINATION, groups(family), true);
	match_from_subnet(writer, family);
	end_counted(writer, "multicast");
	ruleset_begin(writer, "guard");
	nft_match_meta8(writer->batch, NFT_META_PKTTYPE, PKTTYPE_HOST, false);
	if (family == AF_INET6)
		nft_match_meta8(writer->batch, NFT_META_L4PROTO, IPPROTO_ICMPV6, false);
	match_from_subnet(writer, family);
	end_counted(writer, "multicast");
}

/*
 * First, since it ends the way of nearly all packets: what comes from the subnet, and is no matter of any other rule of the chain. None of
 * those finds a packet that this one lets pass.
 */
static void guard_ordinary(const struct ruleset_writer *writer, int family)
{
	const struct address *gateway = ruleset_gateway(writer->network, family);
	const struct prefix to_gateway = {.address = *gateway, .length = (uint8_t)address_bits(gateway)};

	ruleset_begin(writer, "guard");
	match_from_subnet(writer, family);
	each_own_address(writer, family, match_not_address);
	if (ruleset_pool(writer->network, family))
		nft_match_more_prefix(writer->batch, NFT_FIELD_SOURCE, ruleset_pool(writer->network, family), false);
	nft_match_more_prefix(writer->batch, NFT_FIELD_DESTINATION, groups(family), false);
	nft_match_more_prefix(writer->batch, NFT_FIELD_DESTINATION, &to_gateway, false);
	nft_match_meta8(writer->batch, NFT_META_PKTTYPE, PKTTYPE_HOST, true);
	if (family == AF_INET)
		nft_match_options(writer->batch, false);
	else
		nft_match_meta8(writer->batch, NFT_META_L4PROTO, IPPROTO_AH, false);
	ruleset_end(writer, NFT_VERDICT_ACCEPT, NULL);
}

/*
 * Where the host lets source routes in, the kernel sends a packet on to an address that no rule has seen, and our own ICMP errors back
 * along a route of the sender's choice. Nothing ordinary has options, but IGMP, which is gone by now.
 *
 * In IPv6 AH is an extension header for conntrack and a protocol for nf_tables: what is behind it would be part of a flow whose later rules
 * do not see its ports.
 */
static void guard_options(const struct ruleset_writer *writer)
{
	ruleset_begin(writer, "guard");
	nft_match_options(writer->batch, true);
	end_counted(writer, "invalid");
	ruleset_begin(writer, "guard");
	nft_match_meta8(writer->batch, NFT_META_NFPROTO, NFPROTO_IPV6, true);
	nft_match_meta8(writer->batch, NFT_META_L4PROTO, IPPROTO_AH, true);
	end_counted(writer, "invalid");
}

static void guard_subnet(const struct ruleset_writer *writer, int family)
{
	ruleset_begin(writer, "guard");
	match_to_gateway(writer, family);
	match_from_subnet(writer, family);
	match_dns(writer, NFT_FIELD_DESTINATION_PORT);
	nft_notrack(writer->batch);
	ruleset_end(writer, NFT_VERDICT_ACCEPT, NULL);
	ruleset_begin(writer, "guard");
	match_from_subnet(writer, family);
	ruleset_end(writer, NFT_VERDICT_ACCEPT, NULL);
}

static void write_own(const struct ruleset_writer *writer)
{
	for (size_t f = 0; f < 2; f++) {
		if (ruleset_subnet(writer->network, families[f]))
			each_own_address(writer, families[f], guard_own_address);
		guard_pool(writer, families[f]);
	}
}

/* Link-local ones have none: neighbour discovery is not fragmented (RFC 6980), and nothing else from there is heard. */
static void write_fragments(const struct ruleset_writer *writer)
{
	ruleset_begin(writer, RULESET_FRAGMENTS);
	ruleset_end(writer, NFT_VERDICT_JUMP, writer->own);
	for (size_t f = 0; f < 2; f++) {
		if (!ruleset_subnet(writer->network, families[f]))
			continue;
		ruleset_begin(writer, RULESET_FRAGMENTS);
		match_from_subnet(writer, families[f]);
		ruleset_end(writer, NFT_VERDICT_ACCEPT, NULL);
	}
	ruleset_begin(writer, RULESET_FRAGMENTS);
	end_counted(writer, "spoofed");
}

static void write_guard(const struct ruleset_writer *writer)
{
	for (size_t f = 0; f < 2; f++)
		if (ruleset_subnet(writer->network, families[f]))
			guard_ordinary(writer, families[f]);
	ruleset_begin(writer, "guard");
	ruleset_end(writer, NFT_VERDICT_JUMP, writer->own);
	for (size_t f = 0; f < 2; f++)
		if (ruleset_subnet(writer->network, families[f]))
			guard_multicast(writer, families[f]);
	guard_options(writer);
	for (size_t f = 0; f < 2; f++)
		if (ruleset_subnet(writer->network, families[f]))
			guard_subnet(writer, families[f]);
	guard_unaddressed(writer);
	ruleset_begin(writer, "guard");
	end_counted(writer, "spoofed");
}

/* By protocol, since nft reads a rule back only when it names the protocol whose port it changes. */
static void redirect_protocol(const struct ruleset_writer *writer, int family, uint8_t protocol)
{
	ruleset_begin(writer, "redirect");
	nft_match_meta8(writer->batch, NFT_META_NFPROTO, family == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6, true);
	nft_match_meta8(writer->batch, NFT_META_L4PROTO, protocol, true);
	nft_match_port(writer->batch, NFT_FIELD_DESTINATION_PORT, RULESET_DNS_PORT, RULESET_DNS_PORT);
	nft_destination_nat(writer->batch, ruleset_gateway(writer->network, family), RULESET_REDIRECT_PORT);
	nft_rule_end(writer->batch);
}

/*
 * Of the rule that is being written: what exceeds a source's part of the rate. When a network has more sources than fit into the set, its
 * own rate is all there is for those that do not.
 */
static void limit_sources(const struct ruleset_writer *writer, const char *set_prefix, const struct nft_key *key, uint64_t rate,
			  uint32_t burst)
{
	char set[NFT_NAME_SIZE];

	nft_limit_key_over(writer->batch, ruleset_set_name(set_prefix, key->family, writer->network, NULL, set), key,
			   RULESET_SOURCE_PART(rate), RULESET_SOURCE_PART(burst));
}

static void limit_redirected(const struct ruleset_writer *writer, uint8_t protocol, uint64_t rate, uint32_t burst)
{
	char excess[NFT_NAME_SIZE];

	for (size_t f = 0; f < 2; f++) {
		struct nft_key key = ruleset_key_asking(families[f]);

		if (!ruleset_subnet(writer->network, families[f]))
			continue;
		ruleset_begin(writer, "redirect");
		nft_match_meta8(writer->batch, NFT_META_L4PROTO, protocol, true);
		nft_match_port(writer->batch, NFT_FIELD_DESTINATION_PORT, RULESET_DNS_PORT, RULESET_DNS_PORT);
		limit_sources(writer, "asking", &key, rate, burst);
		ruleset_end(writer, NFT_VERDICT_GOTO, ruleset_name("excess", writer->network, excess));
	}
	ruleset_begin(writer, "redirect");
	nft_match_meta8(writer->batch, NFT_META_L4PROTO, protocol, true);
	nft_match_port(writer->batch, NFT_FIELD_DESTINATION_PORT, RULESET_DNS_PORT, RULESET_DNS_PORT);
	nft_limit_over(writer->batch, rate, burst);
	ruleset_end(writer, NFT_VERDICT_GOTO, ruleset_name("excess", writer->network, excess));
}

/* A nat chain sees the first packet of each flow. */
static void write_redirect(const struct ruleset_writer *writer)
{
	limit_redirected(writer, IPPROTO_UDP, RULESET_REDIRECT_UDP_RATE, RULESET_REDIRECT_UDP_BURST);
	limit_redirected(writer, IPPROTO_TCP, RULESET_REDIRECT_TCP_RATE, RULESET_REDIRECT_TCP_BURST);
	for (size_t f = 0; f < 2; f++) {
		if (!ruleset_subnet(writer->network, families[f]))
			continue;
		redirect_protocol(writer, families[f], IPPROTO_UDP);
		redirect_protocol(writer, families[f], IPPROTO_TCP);
	}
	if (writer->network->has_virtual_addresses)
		ruleset_virtual_destinations(writer);
}

static void write_replies(const struct ruleset_writer *writer)
{
	for (size_t f = 0; f < 2; f++) {
		if (!ruleset_subnet(writer->network, families[f]))
			continue;
		ruleset_begin(writer, "replies");
		nft_match_address(writer->batch, NFT_FIELD_SOURCE, ruleset_gateway(writer->network, families[f]), true);
		match_dns(writer, NFT_FIELD_SOURCE_PORT);
		nft_notrack(writer->batch);
		ruleset_end(writer, NFT_VERDICT_ACCEPT, NULL);

		ruleset_begin(writer, "output");
		nft_match_address(writer->batch, NFT_FIELD_SOURCE, ruleset_gateway(writer->network, families[f]), true);
		match_dns(writer, NFT_FIELD_SOURCE_PORT);
		ruleset_end(writer, NFT_VERDICT_ACCEPT, NULL);
	}
}

/* The flow that an error is about was begun in the network, or came in to a published port of it. */
static void write_errors(const struct ruleset_writer *writer)
{
	for (size_t f = 0; f < 2; f++) {
		if (!ruleset_subnet(writer->network, families[f]))
			continue;
		ruleset_begin(writer, "errors");
		nft_match_ct_source(writer->batch, ruleset_subnet(writer->network, families[f]));
		ruleset_end(writer, NFT_VERDICT_ACCEPT, NULL);
		ruleset_begin(writer, "errors");
		nft_match_ct_mark(writer->batch, RULESET_MARK_PUBLISH);
		nft_match_ct_replier(writer->batch, ruleset_subnet(writer->network, families[f]));
		ruleset_end(writer, NFT_VERDICT_ACCEPT, NULL);
	}
	ruleset_begin(writer, "errors");
	end_counted(writer, "spoofed");
	ruleset_begin(writer, "stray");
	end_counted(writer, "invalid");
}

/* One such rule: protocol, ports and a set of destinations decide. @protocol: 0 for TCP and UDP. */
static void write_port_rule(const struct ruleset_writer *writer, const struct ruleset_finding *finding, uint8_t protocol,
			    struct port_range range, const char *set, int family)
{
	struct nft_key key = ruleset_key_destination(family);

	ruleset_begin(writer, finding->prefix);
	if (protocol)
		nft_match_meta8(writer->batch, NFT_META_L4PROTO, protocol, true);
	else
		nft_match_protocol_set(writer->batch, RULESET_TRANSPORT);
	if (range.first != 0 || range.last != UINT16_MAX)
		nft_match_port(writer->batch, NFT_FIELD_DESTINATION_PORT, range.first, range.last);
	if (set)
		nft_match_set(writer->batch, set, &key);
	ruleset_end(writer, finding->kind, finding->chain);
}

static bool has_range(const struct port_range *ranges, size_t count, struct port_range range)
{
	for (size_t i = 0; i < count; i++)
		if (ranges[i].first == range.first && ranges[i].last == range.last)
			return true;
	return false;
}

/* A range of both protocols is one rule. */
void ruleset_write_ports(const struct ruleset_writer *writer, const struct ruleset_finding *finding, const struct ports *ports,
			 const char *set, int family)
{
	for (size_t i = 0; i < ports->tcp_count; i++) {
		uint8_t protocol = has_range(ports->udp, ports->udp_count, ports->tcp[i]) ? 0 : IPPROTO_TCP;

		write_port_rule(writer, finding, protocol, ports->tcp[i], set, family);
	}
	for (size_t i = 0; i < ports->udp_count; i++)
		if (!has_range(ports->tcp, ports->tcp_count, ports->udp[i]))
			write_port_rule(writer, finding, IPPROTO_UDP, ports->udp[i], set, family);
}

static void write_addresses(const struct ruleset_writer *writer, enum rule_action action, const struct address_set *addresses, size_t count)
{
	const struct ruleset_finding allowed = {.prefix = "net", .kind = NFT_VERDICT_GOTO, .chain = writer->direct};
	const struct ruleset_finding denied = {.prefix = "net", .kind = NFT_VERDICT_GOTO, .chain = writer->deny};
	bool allow = action == RULE_ALLOW;
	char set[NFT_NAME_SIZE];

	for (size_t i = 0; i < count; i++) {
		if (addresses[i].action != action || !ruleset_subnet(writer->network, addresses[i].family))
			continue;
		ruleset_set_name(allow ? "allow" : "deny", addresses[i].family, writer->network, &addresses[i].ports, set);
		ruleset_write_ports(writer, allow ? &allowed : &denied, &addresses[i].ports, set, addresses[i].family);
	}
}

void ruleset_write_names(const struct ruleset_writer *writer, const char *prefix, enum nft_verdict_kind kind, const char *chain)
{
	const struct ruleset_finding found = {.prefix = prefix, .kind = kind, .chain = chain};
	char set[NFT_NAME_SIZE];

	for (size_t f = 0; f < 2; f++) {
		if (!ruleset_subnet(writer->network, families[f]))
			continue;
		for (unsigned int spec = 0; spec < writer->network->spec_count; spec++) {
			ruleset_name_set(writer->network, spec, families[f], set);
			ruleset_write_ports(writer, &found, &writer->network->specs[spec], set, families[f]);
		}
	}
}

void ruleset_write_audit_limit(const struct ruleset_writer *writer, const char *prefix, const char *denied, enum nft_verdict_kind kind,
			       const char *chain)
{
	char counter[NFT_NAME_SIZE], set[NFT_NAME_SIZE];

	/* Above the rate nobody looks at the name. */
	for (size_t f = 0; f < 2; f++) {
		struct nft_key key = ruleset_key_destination(families[f]);

		if (!ruleset_subnet(writer->network, families[f]))
			continue;
		ruleset_begin(writer, prefix);
		nft_match_set(writer->batch, ruleset_set_name(RULESET_DENIED, families[f], writer->network, NULL, set), &key);
		ruleset_end(writer, NFT_VERDICT_GOTO, denied);
	}
	ruleset_begin(writer, prefix);
	nft_limit_over(writer->batch, RULESET_RATE, RULESET_BURST);
	nft_count(writer->batch, ruleset_name("audited", writer->network, counter));
	nft_set_ct_mark(writer->batch, RULESET_MARK_AUDIT);
	ruleset_end(writer, kind, chain);
	ruleset_begin(writer, prefix);
	nft_queue(writer->batch, RULESET_QUEUE, writer->plan->ruleset->features.native_queue);
	nft_rule_end(writer->batch);
}

/* Audit mode lifts "no rule allows it" for TCP and UDP, and nothing else. */
static void write_audit(const struct ruleset_writer *writer)
{
	for (size_t f = 0; f < 2; f++) {
		struct nft_key key = ruleset_key_destination(families[f]);

		if (!ruleset_subnet(writer->network, families[f]))
			continue;
		ruleset_begin(writer, "net");
		nft_match_set(writer->batch, families[f] == AF_INET ? RULESET_SPECIAL "4" : RULESET_SPECIAL "6", &key);
		ruleset_end(writer, NFT_VERDICT_GOTO, writer->deny);
	}
	ruleset_begin(writer, "net");
	nft_match_protocol_set(writer->batch, RULESET_TRANSPORT);
	ruleset_end(writer, NFT_VERDICT_GOTO, writer->audit);

	/* Later packets of a flow that has not been answered yet. */
	ruleset_begin(writer, "audit");
	nft_match_ct_mark(writer->batch, RULESET_MARK_AUDIT);
	ruleset_end(writer, NFT_VERDICT_ACCEPT, NULL);
	ruleset_write_crowded(writer, "audit", RULESET_CROWDED);
	ruleset_write_audit_limit(writer, "audit", writer->deny, NFT_VERDICT_ACCEPT, NULL);
}

static void write_net(const struct ruleset_writer *writer, const struct address_set *addresses, size_t count)
{
	/* No uplink: no interface has index 0, so nothing passes. */
	ruleset_begin(writer, "net");
	nft_match_meta32(writer->batch, NFT_META_OIF, writer->plan->interfaces->uplink, false);
	ruleset_end(writer, NFT_VERDICT_GOTO, writer->deny);
	write_addresses(writer, RULE_DENY, addresses, count);
	write_addresses(writer, RULE_ALLOW, addresses, count);
	if (writer->network->has_virtual_addresses)
		ruleset_virtual_forward(writer);
	else
		ruleset_write_names(writer, "net", NFT_VERDICT_GOTO, writer->pass);
	if (!writer->network->has_virtual_addresses && policy_is_auditing(writer->network, writer->plan->wall))
		write_audit(writer);
	ruleset_begin(writer, "net");
	ruleset_end(writer, NFT_VERDICT_GOTO, writer->deny);
}

/*
 * The first two rules are for later packets of a flow that has not been answered yet; the third for what came back from the queue in
 * prerouting, and may go where it leads: audit mode lets it pass.
 */
static void write_known(const struct ruleset_writer *writer, const char *prefix)
{
	static const uint32_t known[] = {RULESET_MARK_FLOW, RULESET_MARK_AUDIT};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		ruleset_begin(writer, prefix);
		nft_match_ct_mark(writer->batch, known[i]);
		ruleset_end(writer, NFT_VERDICT_ACCEPT, NULL);
	}
	if (writer->network->has_virtual_addresses) {
		ruleset_begin(writer, prefix);
		nft_match_meta32(writer->batch, NFT_META_MARK, RULESET_MARK_AUDITED, true);
		nft_set_ct_mark(writer->batch, RULESET_MARK_AUDIT);
		ruleset_end(writer, NFT_VERDICT_ACCEPT, NULL);
	}
}

static void write_flow(const struct ruleset_writer *writer, const char *prefix)
{
	char counter[NFT_NAME_SIZE];

	ruleset_begin(writer, prefix);
	nft_count(writer->batch, ruleset_name(RULESET_ALLOWED, writer->network, counter));
	nft_set_ct_mark(writer->batch, RULESET_MARK_FLOW);
	ruleset_end(writer, NFT_VERDICT_ACCEPT, NULL);
}

void ruleset_write_crowded(const struct ruleset_writer *writer, const char *prefix, const char *to)
{
	char crowded[NFT_NAME_SIZE], set[NFT_NAME_SIZE], chain[NFT_NAME_SIZE];

	ruleset_name(RULESET_CROWDED, writer->network, crowded);
	ruleset_name(to, writer->network, chain);
	ruleset_begin(writer, prefix);
	nft_match_ct_mark(writer->batch, 0);
	nft_match_protocol_set(writer->batch, crowded);
	ruleset_end(writer, NFT_VERDICT_GOTO, chain);
	for (size_t f = 0; f < 2; f++) {
		struct nft_key key = ruleset_key_source(families[f]);

		if (!ruleset_subnet(writer->network, families[f]))
			continue;
		ruleset_begin(writer, prefix);
		nft_match_ct_mark(writer->batch, 0);
		nft_match_set(writer->batch, ruleset_set_name(RULESET_CROWDED, families[f], writer->network, NULL, set), &key);
		ruleset_end(writer, NFT_VERDICT_GOTO, chain);
	}
}

static void write_crowded(const struct ruleset_writer *writer)
{
	char counter[NFT_NAME_SIZE];

	ruleset_begin(writer, RULESET_CROWDED);
	nft_count(writer->batch, ruleset_name(RULESET_CROWDED, writer->network, counter));
	ruleset_end(writer, NFT_VERDICT_GOTO, RULESET_REJECT);
}

static void write_pass(const struct ruleset_writer *writer)
{
	write_known(writer, RULESET_PASS);
	ruleset_write_crowded(writer, RULESET_PASS, RULESET_CROWDED);
	if (writer->network->verify != VERIFY_OFF) {
		ruleset_verify_pass(writer);
		write_known(writer, RULESET_DIRECT);
		ruleset_write_crowded(writer, RULESET_DIRECT, RULESET_CROWDED);
		write_flow(writer, RULESET_DIRECT);
	}
	write_flow(writer, RULESET_PASS);
}

/* Begins a rule. */
static void match_echo(const struct ruleset_writer *writer, int family)
{
	uint8_t type = family == AF_INET ? ICMP_ECHO_REQUEST : ICMP6_ECHO;

	ruleset_begin(writer, "input");
	match_to_gateway(writer, family);
	nft_match_meta8(writer->batch, NFT_META_L4PROTO, family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6, true);
	nft_match_icmp_type(writer->batch, type, type);
}

/* Each identifier begins a flow, which conntrack keeps for 30 s. */
static void accept_echo(const struct ruleset_writer *writer, int family)
{
	char excess[NFT_NAME_SIZE];

	match_echo(writer, family);
	nft_limit_over(writer->batch, RULESET_ECHO_RATE, RULESET_ECHO_BURST);
	ruleset_end(writer, NFT_VERDICT_GOTO, ruleset_name("excess", writer->network, excess));
	match_echo(writer, family);
	ruleset_end(writer, NFT_VERDICT_ACCEPT, NULL);
}

/* Nobody may address the second port: only what came there by translation. */
static void accept_redirected(const struct ruleset_writer *writer, int family)
{
	ruleset_begin(writer, "input");
	match_to_gateway(writer, family);
	nft_match_protocol_set(writer->batch, RULESET_TRANSPORT);
	nft_match_port(writer->batch, NFT_FIELD_DESTINATION_PORT, RULESET_REDIRECT_PORT, RULESET_REDIRECT_PORT);
	nft_match_ct_status(writer->batch, RULESET_STATUS_DNAT);
	ruleset_end(writer, NFT_VERDICT_ACCEPT, NULL);
}

static void write_input(const struct ruleset_writer *writer)
{
	for (size_t f = 0; f < 2; f++) {
		if (!ruleset_subnet(writer->network, families[f]))
			continue;
		ruleset_begin(writer, "input");
		match_to_gateway(writer, families[f]);
		match_dns(writer, NFT_FIELD_DESTINATION_PORT);
		ruleset_end(writer, NFT_VERDICT_ACCEPT, NULL);
		accept_redirected(writer, families[f]);
		accept_echo(writer, families[f]);
	}
	if (ruleset_subnet(writer->network, AF_INET6)) {
		ruleset_begin(writer, "input");
		nft_match_meta8(writer->batch, NFT_META_NFPROTO, NFPROTO_IPV6, true);
		nft_match_meta8(writer->batch, NFT_META_L4PROTO, IPPROTO_ICMPV6, true);
		ruleset_end(writer, NFT_VERDICT_JUMP, RULESET_DISCOVERY);
	}
	if (writer->network->has_virtual_addresses)
		ruleset_virtual_denied(writer);
	ruleset_begin(writer, "input");
	ruleset_end(writer, NFT_VERDICT_GOTO, writer->deny);
}

/* Multicast and broadcast get no answer, also when their frame was addressed to us alone. */
static void drop_multicast(const struct ruleset_writer *writer)
{
	static const struct prefix groups[] = {
		{{.family = AF_INET, .bytes = {224}}, 4},
		{{.family = AF_INET, .bytes = {255, 255, 255, 255}}, 32},
		{{.family = AF_INET6, .bytes = {0xff}}, 8},
	};

	ruleset_begin(writer, "deny");
	nft_match_meta8(writer->batch, NFT_META_PKTTYPE, PKTTYPE_HOST, false);
	end_counted(writer, "multicast");
	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
		ruleset_begin(writer, "deny");
		nft_match_prefix(writer->batch, NFT_FIELD_DESTINATION, &groups[i], true);
		end_counted(writer, "multicast");
	}
}

void ruleset_write_limits(const struct ruleset_writer *writer, const char *prefix, const char *refuse)
{
	char set[NFT_NAME_SIZE];

	for (size_t f = 0; f < 2; f++) {
		struct nft_key key = ruleset_key_source(families[f]);

		if (!ruleset_subnet(writer->network, families[f]))
			continue;
		ruleset_begin(writer, prefix);
		limit_sources(writer, "busy", &key, RULESET_RATE, RULESET_BURST);
		ruleset_end(writer, NFT_VERDICT_GOTO, refuse);
	}
	ruleset_begin(writer, prefix);
	nft_limit_over(writer->batch, RULESET_RATE, RULESET_BURST);
	ruleset_end(writer, NFT_VERDICT_GOTO, refuse);
	for (size_t f = 0; f < 2; f++) {
		struct nft_key key = ruleset_key_seen(families[f]);

		if (!ruleset_subnet(writer->network, families[f]))
			continue;
		ruleset_begin(writer, prefix);
		nft_match_protocol_set(writer->batch, RULESET_TRANSPORT);
		nft_match_set(writer->batch, ruleset_set_name("seen", families[f], writer->network, NULL, set), &key);
		ruleset_end(writer, NFT_VERDICT_GOTO, refuse);
	}
	ruleset_begin(writer, prefix);
	nft_queue(writer->batch, RULESET_QUEUE, writer->plan->ruleset->features.native_queue);
	nft_rule_end(writer->batch);
}

static void write_deny(const struct ruleset_writer *writer)
{
	drop_multicast(writer);
	ruleset_write_limits(writer, "deny", writer->refuse);
}

void ruleset_count_refused(const struct ruleset_writer *writer, const char *prefix)
{
	char name[NFT_NAME_SIZE];

	ruleset_begin(writer, prefix);
	nft_count(writer->batch, ruleset_name("refused", writer->network, name));
	nft_rule_end(writer->batch);
	for (size_t f = 0; f < 2; f++) {
		struct nft_key key = ruleset_key_source(families[f]);

		if (!ruleset_subnet(writer->network, families[f]))
			continue;
		ruleset_begin(writer, prefix);
		nft_count_key(writer->batch, ruleset_set_name("sources", families[f], writer->network, NULL, name), &key);
		nft_rule_end(writer->batch);
	}
}

static void write_refuse(const struct ruleset_writer *writer)
{
	ruleset_count_refused(writer, "refuse");
	ruleset_begin(writer, "refuse");
	ruleset_end(writer, NFT_VERDICT_GOTO, RULESET_REJECT);
	ruleset_count_refused(writer, "excess");
	ruleset_begin(writer, "excess");
	ruleset_end(writer, NFT_VERDICT_DROP, NULL);
}

static void write_marked(const struct ruleset_writer *writer)
{
	char set[NFT_NAME_SIZE];

	for (size_t f = 0; f < 2; f++) {
		struct nft_key key = ruleset_key_seen(families[f]);

		if (!ruleset_subnet(writer->network, families[f]))
			continue;
		ruleset_begin(writer, "marked");
		nft_match_protocol_set(writer->batch, RULESET_TRANSPORT);
		nft_remember(writer->batch, ruleset_set_name("seen", families[f], writer->network, NULL, set), &key,
			     RULESET_SEEN_SECONDS * 1000);
		nft_rule_end(writer->batch);
	}
	ruleset_begin(writer, "marked");
	ruleset_end(writer, NFT_VERDICT_GOTO, RULESET_REJECT);
}

void ruleset_network_rules(struct ruleset_plan *plan, const struct network *network, const struct address_set *addresses, size_t count)
{
	struct ruleset_writer writer = {.batch = &plan->batch, .plan = plan, .network = network};

	ruleset_name("own", network, writer.own);
	ruleset_name("deny", network, writer.deny);
	ruleset_name("refuse", network, writer.refuse);
	ruleset_name("audit", network, writer.audit);
	ruleset_name(RULESET_PASS, network, writer.pass);
	ruleset_name(network->verify == VERIFY_OFF ? RULESET_PASS : RULESET_DIRECT, network, writer.direct);
	write_own(&writer);
	write_fragments(&writer);
	write_guard(&writer);
	write_redirect(&writer);
	write_replies(&writer);
	write_errors(&writer);
	write_net(&writer, addresses, count);
	write_pass(&writer);
	write_input(&writer);
	write_deny(&writer);
	write_refuse(&writer);
	write_crowded(&writer);
	write_marked(&writer);
	ruleset_publish_network(plan, network);
}
