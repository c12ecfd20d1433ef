/* SPDX-License-Identifier: MIT */
/*
 * Base chains, and the chains that belong to no single network.
 *
 * Theory of operation: base chains are created once and never deleted: deleting any of them would drop every packet that waits in a queue.
 * Their policies keep the gateway closed while they are empty. Each sends a packet to its network's chain by one look-up of the interface.
 */
#include <netinet/in.h> /* before the kernel's own headers */

#include <errno.h>
#include <linux/netfilter.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/ruleset_internal.h"

/* Bits of ct state; the kernel's header keeps their order, not these values, public. */
enum { STATE_INVALID = 1, STATE_ESTABLISHED = 2, STATE_RELATED = 4 };

/* The kernel puts packets together between the first two. */
enum {
	PRIORITY_FRAGMENTS = -450,
	PRIORITY_RAW = -300,
	PRIORITY_DNAT = -100,
	PRIORITY_FILTER = 0,
	PRIORITY_VERDICT = 10,
	PRIORITY_SNAT = 100
};

enum { ICMP_UNREACHABLE = 3, ICMP_EXPIRED = 11, ICMP_PARAMETER = 12, ICMP6_UNREACHABLE = 1, ICMP6_PARAMETER = 4 };

static const struct nft_hook hooks[] = {
	{RULESET_FRAGMENTS, "filter", NF_INET_PRE_ROUTING, PRIORITY_FRAGMENTS, false},
	{"guard", "filter", NF_INET_PRE_ROUTING, PRIORITY_RAW, true},
	{"replies", "filter", NF_INET_LOCAL_OUT, PRIORITY_RAW, false},
	{"destinations", "nat", NF_INET_PRE_ROUTING, PRIORITY_DNAT, false},
	{"forward", "filter", NF_INET_FORWARD, PRIORITY_FILTER, true},
	{"input", "filter", NF_INET_LOCAL_IN, PRIORITY_FILTER, true},
	{"output", "filter", NF_INET_LOCAL_OUT, PRIORITY_FILTER, true},
	{"verdict_input", "filter", NF_INET_LOCAL_IN, PRIORITY_VERDICT, false},
	{"postrouting", "nat", NF_INET_POST_ROUTING, PRIORITY_SNAT, false},
};

static const char *const chains[] = {"fragment_sources", "uplink_guard",    "uplink_errors",   "uplink_stray",       "uplink_forward",
				     "uplink_input",     "uplink_publish",  RULESET_PUBLISHED, "upstream_servers",   "verdicts",
				     "verdict_marked",   "verdict_allowed", RULESET_DISCOVERY, RULESET_HOUSEKEEPING, RULESET_ERRORS,
				     RULESET_STRAY,      RULESET_REJECT};
static const char *const counters[] = {"unknown_interface", "housekeeping",   "forward_dropped", "input_dropped",  "output_dropped",
				       "uplink_spoofed",    "uplink_invalid", "uplink_errors",   "uplink_forward", "uplink_input"};

void ruleset_base_create(struct nft_batch *batch)
{
	nft_table_add(batch);
	for (size_t i = 0; i < sizeof(hooks) / sizeof(hooks[0]); i++)
		nft_base_chain_add(batch, &hooks[i]);
}

void ruleset_base_want(struct ruleset_plan *plan)
{
	for (size_t i = 0; i < sizeof(chains) / sizeof(chains[0]); i++)
		ruleset_want_chain(plan, chains[i]);
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
		ruleset_want_counter(plan, counters[i]);
	if (plan->policy->notify.url)
		ruleset_want_chain(plan, RULESET_NOTIFY);
	if (ruleset_verifies(plan->policy))
		ruleset_verify_want(plan);
}

static void end(struct nft_batch *batch, enum nft_verdict_kind kind, const char *chain)
{
	nft_verdict(batch, kind, chain);
	nft_rule_end(batch);
}

/* A rule of nothing but a counter and drop. */
static void drop_counted(struct nft_batch *batch, const char *chain, const char *counter)
{
	nft_rule_begin(batch, chain);
	nft_count(batch, counter);
	end(batch, NFT_VERDICT_DROP, NULL);
}

static unsigned int loopback(const struct ruleset_plan *plan)
{
	for (size_t i = 0; i < plan->interfaces->count; i++)
		if (plan->interfaces->list[i].loopback)
			return plan->interfaces->list[i].index;
	return 1; /* the first interface of every network namespace */
}

/* The rule that sends each network's packets to its chain PREFIX_N. @uplink_chain: for those of the uplink, or NULL. */
static void branch(struct ruleset_plan *plan, const char *chain, uint32_t meta_key, const char *prefix, enum nft_verdict_kind kind,
		   const char *uplink_chain)
{
	const struct interfaces *interfaces = plan->interfaces;
	struct nft_branch *list = calloc(interfaces->count + 1, sizeof(*list));
	const struct network *network;
	size_t count = 0;

	if (!list) {
		nft_batch_fail(&plan->batch, -ENOMEM);
		return;
	}
	for (size_t i = 0; i < interfaces->count; i++) {
		const struct interface *interface = &interfaces->list[i];

		network = interface->network == POLICY_NETWORK_NONE ? NULL : policy_network(plan->policy, interface->network);
		if (!network || interface->loopback || interface->index == interfaces->uplink)
			continue;
		list[count].interface = interface->index;
		list[count].kind = kind;
		ruleset_name(prefix, network, list[count++].chain);
	}
	if (uplink_chain && interfaces->uplink) {
		list[count].interface = interfaces->uplink;
		list[count].kind = NFT_VERDICT_GOTO;
		snprintf(list[count++].chain, NFT_NAME_SIZE, "%s", uplink_chain);
	}
	if (count) {
		nft_rule_begin(&plan->batch, chain);
		nft_branch(&plan->batch, meta_key, list, count);
		nft_rule_end(&plan->batch);
	}
	free(list);
}

static void accept_loopback(struct ruleset_plan *plan, const char *chain, uint32_t meta_key)
{
	nft_rule_begin(&plan->batch, chain);
	nft_match_meta32(&plan->batch, meta_key, loopback(plan), true);
	end(&plan->batch, NFT_VERDICT_ACCEPT, NULL);
}

static void match_state(struct nft_batch *batch, const char *chain, uint32_t states)
{
	nft_rule_begin(batch, chain);
	nft_match_ct_state(batch, states);
}

/* What belongs to a flow, and what never can; what is left is new, or untracked. Nearly all packets end at the first rule. */
static void write_states(struct nft_batch *batch, const char *chain)
{
	match_state(batch, chain, STATE_ESTABLISHED);
	end(batch, NFT_VERDICT_ACCEPT, NULL);
	match_state(batch, chain, STATE_RELATED);
	end(batch, NFT_VERDICT_GOTO, RULESET_ERRORS);
	match_state(batch, chain, STATE_INVALID);
	end(batch, NFT_VERDICT_GOTO, RULESET_STRAY);
}

/*
 * An ICMP error that quotes a packet of a flow is "related" to it, whoever sends it: its own source is not compared with anything. So the
 * flow must have been begun in the network that the error comes from, or lead to it. What comes from the uplink must be about a packet that
 * we sent there: an error about a packet to an app has its way out, not in.
 */
static void write_errors(struct ruleset_plan *plan)
{
	struct nft_batch *batch = &plan->batch;

	branch(plan, RULESET_ERRORS, NFT_META_IIF, "errors", NFT_VERDICT_GOTO, "uplink_errors");
	drop_counted(batch, RULESET_ERRORS, "unknown_interface");
	ruleset_publish_errors(plan);
	nft_rule_begin(batch, "uplink_errors");
	nft_match_ct_reply(batch, true);
	end(batch, NFT_VERDICT_ACCEPT, NULL);
	drop_counted(batch, "uplink_errors", "uplink_errors");
}

/* Never queued, never answered: a packet outside the window must not reset an allowed flow. */
static void write_stray(struct ruleset_plan *plan)
{
	branch(plan, RULESET_STRAY, NFT_META_IIF, "stray", NFT_VERDICT_GOTO, "uplink_stray");
	drop_counted(&plan->batch, RULESET_STRAY, "unknown_interface");
	drop_counted(&plan->batch, "uplink_stray", "uplink_invalid");
}

static void write_guard(struct ruleset_plan *plan)
{
	struct nft_batch *batch = &plan->batch;

	branch(plan, "guard", NFT_META_IIF, "guard", NFT_VERDICT_GOTO, "uplink_guard");
	accept_loopback(plan, "guard", NFT_META_IIF);
	drop_counted(batch, "guard", "unknown_interface");

	/* As in guard_N. */
	nft_rule_begin(batch, "uplink_guard");
	nft_match_options(batch, true);
	nft_count(batch, "uplink_invalid");
	end(batch, NFT_VERDICT_DROP, NULL);
	/* Nobody out there has the address of an app. */
	for (int i = 0; i < 2; i++) {
		struct nft_key key = ruleset_key_source(i == 0 ? AF_INET : AF_INET6);

		nft_rule_begin(batch, "uplink_guard");
		nft_match_outside(batch, i == 0 ? RULESET_INSIDE "4" : RULESET_INSIDE "6", &key);
		end(batch, NFT_VERDICT_ACCEPT, NULL);
	}
	drop_counted(batch, "uplink_guard", "uplink_spoofed");
}

/*
 * What `guard` judges has been put together, and counts as coming from where its last part came from. So each part is judged before that:
 * one of another network would become part of somebody's packet.
 */
static void write_fragments(struct ruleset_plan *plan)
{
	struct nft_batch *batch = &plan->batch;

	for (int i = 0; i < 2; i++) {
		nft_rule_begin(batch, RULESET_FRAGMENTS);
		nft_match_fragment(batch, i == 0 ? AF_INET : AF_INET6);
		end(batch, NFT_VERDICT_GOTO, "fragment_sources");
	}
	branch(plan, "fragment_sources", NFT_META_IIF, RULESET_FRAGMENTS, NFT_VERDICT_GOTO, "uplink_guard");
	accept_loopback(plan, "fragment_sources", NFT_META_IIF);
	drop_counted(batch, "fragment_sources", "unknown_interface");
}

static void accept_icmp_types(struct nft_batch *batch, const char *chain, bool ipv6, uint8_t first, uint8_t last)
{
	nft_rule_begin(batch, chain);
	nft_match_meta8(batch, NFT_META_NFPROTO, ipv6 ? NFPROTO_IPV6 : NFPROTO_IPV4, true);
	nft_match_meta8(batch, NFT_META_L4PROTO, ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP, true);
	nft_match_icmp_type(batch, first, last);
	end(batch, NFT_VERDICT_ACCEPT, NULL);
}

/* MLD queries, reports, done; neighbour solicitation and advertisement; MLDv2 reports. */
static void write_discovery(struct nft_batch *batch)
{
	accept_icmp_types(batch, RULESET_DISCOVERY, true, 130, 132);
	accept_icmp_types(batch, RULESET_DISCOVERY, true, 135, 136);
	accept_icmp_types(batch, RULESET_DISCOVERY, true, 143, 143);
}

static void drop_housekeeping(struct nft_batch *batch, uint8_t nfproto, uint8_t protocol, uint8_t first_type, uint8_t last_type)
{
	nft_rule_begin(batch, RULESET_HOUSEKEEPING);
	nft_match_meta8(batch, NFT_META_NFPROTO, nfproto, true);
	nft_match_meta8(batch, NFT_META_L4PROTO, protocol, true);
	if (protocol == IPPROTO_ICMPV6)
		nft_match_icmp_type(batch, first_type, last_type);
	nft_count(batch, "housekeeping");
	end(batch, NFT_VERDICT_DROP, NULL);
}

/* IGMP; MLD and router solicitations; MLDv2 reports. We route no multicast and advertise no router. */
static void write_housekeeping(struct nft_batch *batch)
{
	drop_housekeeping(batch, NFPROTO_IPV4, IPPROTO_IGMP, 0, 0);
	drop_housekeeping(batch, NFPROTO_IPV6, IPPROTO_ICMPV6, 130, 133);
	drop_housekeeping(batch, NFPROTO_IPV6, IPPROTO_ICMPV6, 143, 143);
}

static void jump_to_discovery(struct nft_batch *batch, const char *chain)
{
	nft_rule_begin(batch, chain);
	nft_match_meta8(batch, NFT_META_NFPROTO, NFPROTO_IPV6, true);
	nft_match_meta8(batch, NFT_META_L4PROTO, IPPROTO_ICMPV6, true);
	end(batch, NFT_VERDICT_JUMP, RULESET_DISCOVERY);
}

/* What comes back from the queue; a mark that is not of these goes on. */
static void jump_to_verdicts(struct nft_batch *batch, const char *chain)
{
	nft_rule_begin(batch, chain);
	nft_match_meta32(batch, NFT_META_MARK, 0, false);
	end(batch, NFT_VERDICT_JUMP, "verdicts");
}

static void write_forward(struct ruleset_plan *plan)
{
	struct nft_batch *batch = &plan->batch;

	ruleset_flowtable_forward(plan, STATE_ESTABLISHED);
	write_states(batch, "forward");
	jump_to_verdicts(batch, "forward");
	branch(plan, "forward", NFT_META_IIF, "net", NFT_VERDICT_GOTO, "uplink_forward");
	drop_counted(batch, "forward", "forward_dropped");
	ruleset_publish_forward(plan);
	drop_counted(batch, "uplink_forward", "uplink_forward");
}

static void accept_http_at(struct nft_batch *batch, const struct address *address, uint16_t port)
{
	nft_rule_begin(batch, "uplink_input");
	nft_match_address(batch, NFT_FIELD_DESTINATION, address, true);
	nft_match_meta8(batch, NFT_META_L4PROTO, IPPROTO_TCP, true);
	nft_match_port(batch, NFT_FIELD_DESTINATION_PORT, port, port);
	end(batch, NFT_VERDICT_ACCEPT, NULL);
}

/* The page and the metrics. By address: with a socket on all of them, a neighbour could ask for those that networks have. */
static void accept_http(struct ruleset_plan *plan)
{
	const struct interface *uplink = interfaces_by_index(plan->interfaces, plan->interfaces->uplink);

	for (size_t i = 0; i < plan->policy->http_count; i++) {
		const struct http_address *http = &plan->policy->http[i];

		if (policy_http_is_local(http))
			continue;
		if (!policy_http_is_wide(http))
			accept_http_at(&plan->batch, &http->address, http->port);
		for (size_t j = 0; policy_http_is_wide(http) && uplink && j < uplink->address_count; j++)
			if (uplink->addresses[j].address.family == http->address.family)
				accept_http_at(&plan->batch, &uplink->addresses[j].address, http->port);
	}
}

/* From the uplink nothing else is answered: after a recreation of the container that would reset live flows. */
static void write_input(struct ruleset_plan *plan)
{
	struct nft_batch *batch = &plan->batch;

	accept_loopback(plan, "input", NFT_META_IIF);
	write_states(batch, "input");
	branch(plan, "input", NFT_META_IIF, "input", NFT_VERDICT_GOTO, "uplink_input");
	drop_counted(batch, "input", "input_dropped");
	jump_to_discovery(batch, "uplink_input");
	accept_http(plan);
	drop_counted(batch, "uplink_input", "uplink_input");
}

/* DNS over TLS needs no UDP. */
static void accept_upstream_server(struct nft_batch *batch, const struct upstream_server *server)
{
	nft_rule_begin(batch, "upstream_servers");
	nft_match_address(batch, NFT_FIELD_DESTINATION, &server->address, true);
	if (server->tls_name)
		nft_match_meta8(batch, NFT_META_L4PROTO, IPPROTO_TCP, true);
	else
		nft_match_protocol_set(batch, RULESET_TRANSPORT);
	nft_match_port(batch, NFT_FIELD_DESTINATION_PORT, server->port, server->port);
	end(batch, NFT_VERDICT_ACCEPT, NULL);
}

static void write_upstream_servers(struct ruleset_plan *plan)
{
	for (size_t i = 0; i < plan->policy->upstream_count; i++) {
		const struct upstream_group *group = &plan->policy->upstreams[i];

		for (size_t j = 0; j < group->server_count; j++) {
			accept_upstream_server(&plan->batch, &group->servers[j]);
		}
	}
}

/* Of notifications, while one is being sent. */
static void write_notify(struct ruleset_plan *plan)
{
	struct nft_batch *batch = &plan->batch;

	for (int i = 0; i < 2 && plan->policy->notify.url && plan->interfaces->uplink; i++) {
		struct nft_key key = ruleset_key_notify(i == 0 ? AF_INET : AF_INET6);

		nft_rule_begin(batch, RULESET_NOTIFY);
		nft_match_meta32(batch, NFT_META_OIF, plan->interfaces->uplink, true);
		nft_match_meta8(batch, NFT_META_L4PROTO, IPPROTO_TCP, true);
		nft_match_set(batch, i == 0 ? RULESET_NOTIFY "4" : RULESET_NOTIFY "6", &key);
		end(batch, NFT_VERDICT_ACCEPT, NULL);
	}
}

static void jump_for_own(struct ruleset_plan *plan, const char *chain)
{
	nft_rule_begin(&plan->batch, "output");
	nft_match_meta32(&plan->batch, NFT_META_SKUID, plan->ruleset->uid, true);
	end(&plan->batch, NFT_VERDICT_JUMP, chain);
}

static void write_output(struct ruleset_plan *plan)
{
	struct nft_batch *batch = &plan->batch;

	branch(plan, "replies", NFT_META_OIF, "replies", NFT_VERDICT_GOTO, NULL);
	accept_loopback(plan, "output", NFT_META_OIF);
	match_state(batch, "output", STATE_ESTABLISHED | STATE_RELATED);
	end(batch, NFT_VERDICT_ACCEPT, NULL);
	if (ruleset_verifies(plan->policy))
		ruleset_verify_output(plan);
	branch(plan, "output", NFT_META_OIF, "output", NFT_VERDICT_JUMP, NULL);
	jump_to_discovery(batch, "output");
	accept_icmp_types(batch, "output", false, ICMP_UNREACHABLE, ICMP_UNREACHABLE);
	accept_icmp_types(batch, "output", false, ICMP_EXPIRED, ICMP_PARAMETER);
	accept_icmp_types(batch, "output", true, ICMP6_UNREACHABLE, ICMP6_PARAMETER);
	jump_for_own(plan, "upstream_servers");
	if (plan->policy->notify.url)
		jump_for_own(plan, RULESET_NOTIFY);
	drop_counted(batch, "output", "output_dropped");
	write_upstream_servers(plan);
	write_notify(plan);
}

static void match_mark(struct nft_batch *batch, const char *chain, uint32_t mark)
{
	nft_rule_begin(batch, chain);
	nft_match_meta32(batch, NFT_META_MARK, mark, true);
}

/*
 * From the queue a packet comes back to `forward`, which it begins anew (NF_REPEAT), so that no further hook is on the way of packets that
 * were never there. To `verdict_input` it comes from there, and from `input`. Only a program in the gateway's own network namespace can
 * give a packet a mark: one that an app's socket has is gone when the packet leaves the app's namespace.
 */
static void write_verdicts(struct ruleset_plan *plan)
{
	struct nft_batch *batch = &plan->batch;

	jump_to_verdicts(batch, "verdict_input");
	match_mark(batch, "verdicts", RULESET_MARK_DENY);
	end(batch, NFT_VERDICT_GOTO, "verdict_marked");
	match_mark(batch, "verdicts", RULESET_MARK_REFUSE);
	end(batch, NFT_VERDICT_GOTO, RULESET_REJECT);
	match_mark(batch, "verdicts", RULESET_MARK_AUDIT);
	nft_set_ct_mark(batch, RULESET_MARK_AUDIT);
	end(batch, NFT_VERDICT_ACCEPT, NULL);
	match_mark(batch, "verdicts", RULESET_MARK_ALLOW);
	end(batch, NFT_VERDICT_GOTO, "verdict_allowed");
	branch(plan, "verdict_allowed", NFT_META_IIF, RULESET_PASS, NFT_VERDICT_GOTO, NULL);
	branch(plan, "verdict_marked", NFT_META_IIF, "marked", NFT_VERDICT_GOTO, NULL);
	/* Its interface has left its network in the meantime. */
	nft_rule_begin(batch, "verdict_marked");
	end(batch, NFT_VERDICT_GOTO, RULESET_REJECT);
}

static void write_reject(struct nft_batch *batch)
{
	nft_rule_begin(batch, RULESET_REJECT);
	nft_match_meta8(batch, NFT_META_L4PROTO, IPPROTO_TCP, true);
	nft_match_tcp_reset(batch);
	end(batch, NFT_VERDICT_DROP, NULL);
	nft_rule_begin(batch, RULESET_REJECT);
	nft_match_meta8(batch, NFT_META_L4PROTO, IPPROTO_TCP, true);
	nft_reject_reset(batch);
	nft_rule_end(batch);
	nft_rule_begin(batch, RULESET_REJECT);
	nft_reject_prohibited(batch);
	nft_rule_end(batch);
}

static void write_nat(struct ruleset_plan *plan)
{
	struct nft_batch *batch = &plan->batch;

	branch(plan, "destinations", NFT_META_IIF, "redirect", NFT_VERDICT_GOTO, "uplink_publish");
	ruleset_publish_nat(plan);
	for (int i = 0; i < 2 && plan->interfaces->uplink; i++) {
		struct nft_key key = ruleset_key_source(i == 0 ? AF_INET : AF_INET6);

		nft_rule_begin(batch, "postrouting");
		nft_match_meta32(batch, NFT_META_OIF, plan->interfaces->uplink, true);
		nft_match_set(batch, i == 0 ? RULESET_INSIDE "4" : RULESET_INSIDE "6", &key);
		nft_masquerade(batch);
		nft_rule_end(batch);
	}
	for (size_t i = 0; i < plan->policy->network_count; i++)
		if (plan->policy->networks[i].has_virtual_addresses)
			ruleset_publish_source(plan, &plan->policy->networks[i]);
}

void ruleset_base_rules(struct ruleset_plan *plan)
{
	write_guard(plan);
	write_fragments(plan);
	write_discovery(&plan->batch);
	write_housekeeping(&plan->batch);
	write_errors(plan);
	write_stray(plan);
	write_forward(plan);
	write_input(plan);
	write_output(plan);
	write_verdicts(plan);
	write_reject(&plan->batch);
	write_nat(plan);
	if (ruleset_verifies(plan->policy))
		ruleset_verify_rules(plan);
}
