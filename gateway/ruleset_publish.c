/* SPDX-License-Identifier: MIT */
/*
 * What may come in from the uplink. A packet takes these chains:
 *
 *	uplink_publish	nat: sent to one of the uplink's own addresses? then
 *	published	nat: to a port that leads to a container: its destination becomes the container.
 *	uplink_forward	was its destination changed, to a container and port that are published? else dropped.
 *	inbound_N	the flow is marked and counted, once.
 *
 * The client's address is not changed. Where no container is known there is no rule: the packet ends in input, and is dropped there.
 * The mark is what flows_watch.c hears of, what upkeep.c ends, and by what ICMP errors are judged: the packets that we send to the
 * uplink are the replies here, so an error from there about them goes the way of the client's packets.
 */
#include <netinet/in.h> /* before the kernel's own headers */

#include <linux/netfilter.h>
#include <stdio.h>

#include "gateway/ruleset_internal.h"

const char *ruleset_inbound_counter(const char *network, char out[static RULESET_SET_NAME_MAX])
{
	snprintf(out, RULESET_SET_NAME_MAX, RULESET_INBOUND "_%s", network);
	return out;
}

static void end(struct nft_batch *batch, enum nft_verdict_kind kind, const char *chain)
{
	nft_verdict(batch, kind, chain);
	nft_rule_end(batch);
}

static void match_family(struct nft_batch *batch, const struct opening *opening)
{
	nft_match_meta8(batch, NFT_META_NFPROTO, opening->target.family == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6, true);
}

/* By address: others may be routed to us. Nothing is forwarded for link-local ones. */
static void write_own_addresses(struct ruleset_plan *plan)
{
	static const struct prefix link_local = {{.family = AF_INET6, .bytes = {0xfe, 0x80}}, 10};
	const struct interface *uplink = interfaces_by_index(plan->interfaces, plan->interfaces->uplink);

	for (size_t i = 0; uplink && i < uplink->address_count; i++) {
		if (prefix_contains(&link_local, &uplink->addresses[i].address))
			continue;
		nft_rule_begin(&plan->batch, "uplink_publish");
		nft_match_address(&plan->batch, NFT_FIELD_DESTINATION, &uplink->addresses[i].address, true);
		end(&plan->batch, NFT_VERDICT_GOTO, RULESET_PUBLISHED);
	}
}

void ruleset_publish_nat(struct ruleset_plan *plan)
{
	struct nft_batch *batch = &plan->batch;

	if (plan->openings->count)
		write_own_addresses(plan);
	for (size_t i = 0; i < plan->openings->count; i++) {
		const struct opening *opening = &plan->openings->list[i];
		bool range = opening->ports.first != opening->ports.last;

		nft_rule_begin(batch, RULESET_PUBLISHED);
		match_family(batch, opening);
		nft_match_meta8(batch, NFT_META_L4PROTO, opening->protocol, true);
		nft_match_port(batch, NFT_FIELD_DESTINATION_PORT, opening->ports.first, opening->ports.last);
		nft_destination_nat(batch, &opening->target, range ? 0 : opening->target_port);
		nft_rule_end(batch);
	}
}

/* An app without a route answers nobody but its neighbours: to it, a flow comes from the gateway. */
static void write_source(struct ruleset_plan *plan, const struct network *network, const struct address *gateway)
{
	const struct interface *interface = interfaces_of_network(plan->interfaces, network->id);

	if (!interface || !gateway->family)
		return;
	nft_rule_begin(&plan->batch, "postrouting");
	nft_match_meta32(&plan->batch, NFT_META_OIF, interface->index, true);
	nft_match_meta8(&plan->batch, NFT_META_NFPROTO, gateway->family == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6, true);
	nft_match_ct_mark(&plan->batch, RULESET_MARK_PUBLISH);
	nft_source_nat(&plan->batch, gateway);
	nft_rule_end(&plan->batch);
}

void ruleset_publish_source(struct ruleset_plan *plan, const struct network *network)
{
	write_source(plan, network, &network->gateway4);
	write_source(plan, network, &network->gateway6);
}

void ruleset_publish_forward(struct ruleset_plan *plan)
{
	struct nft_batch *batch = &plan->batch;
	char chain[NFT_NAME_SIZE];

	for (size_t i = 0; i < plan->openings->count; i++) {
		const struct opening *opening = &plan->openings->list[i];
		const struct network *network = policy_network(plan->policy, opening->network);
		const struct interface *interface = interfaces_of_network(plan->interfaces, opening->network);

		if (!network || !interface)
			continue;
		nft_rule_begin(batch, "uplink_forward");
		nft_match_meta32(batch, NFT_META_OIF, interface->index, true);
		nft_match_address(batch, NFT_FIELD_DESTINATION, &opening->target, true);
		nft_match_meta8(batch, NFT_META_L4PROTO, opening->protocol, true);
		nft_match_port(batch, NFT_FIELD_DESTINATION_PORT, opening->target_port,
			       (uint16_t)(opening->target_port + (opening->ports.last - opening->ports.first)));
		nft_match_ct_status(batch, RULESET_STATUS_DNAT);
		end(batch, NFT_VERDICT_GOTO, ruleset_name(RULESET_INBOUND, network, chain));
	}
}

void ruleset_publish_errors(struct ruleset_plan *plan)
{
	struct nft_batch *batch = &plan->batch;

	nft_rule_begin(batch, "uplink_errors");
	nft_match_ct_mark(batch, RULESET_MARK_PUBLISH);
	nft_match_ct_reply(batch, false);
	end(batch, NFT_VERDICT_ACCEPT, NULL);
	nft_rule_begin(batch, "uplink_errors");
	nft_match_ct_mark(batch, RULESET_MARK_PUBLISH);
	nft_count(batch, "uplink_errors");
	end(batch, NFT_VERDICT_DROP, NULL);
}

/* The first rule is for later packets of a flow that has not been answered yet. */
void ruleset_publish_network(struct ruleset_plan *plan, const struct network *network)
{
	struct nft_batch *batch = &plan->batch;
	char name[NFT_NAME_SIZE], crowded[NFT_NAME_SIZE];

	ruleset_name(RULESET_INBOUND, network, name); /* of the chain, and of the counter */
	nft_rule_begin(batch, name);
	nft_match_ct_mark(batch, RULESET_MARK_PUBLISH);
	end(batch, NFT_VERDICT_ACCEPT, NULL);
	nft_rule_begin(batch, name);
	nft_match_protocol_set(batch, ruleset_name(RULESET_CROWDED, network, crowded));
	nft_count(batch, crowded);
	end(batch, NFT_VERDICT_DROP, NULL);
	nft_rule_begin(batch, name);
	nft_count(batch, name);
	nft_set_ct_mark(batch, RULESET_MARK_PUBLISH);
	end(batch, NFT_VERDICT_ACCEPT, NULL);
}
