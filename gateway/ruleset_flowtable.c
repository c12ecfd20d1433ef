/* SPDX-License-Identifier: MIT */
/*
 * The flowtable: packets of established flows of TCP and UDP go from interface to interface, past all chains and past most of conntrack.
 *
 * Theory of operation: `forward` puts a flow that has had some packets into it. From then on the kernel finds its packets, by interface,
 * addresses and ports, before any base chain. What it does not take goes the slow way, through all rules: parts of packets, IP options and
 * extension headers, a last hop limit, packets that are too long, FIN and RST, ICMP. A flow without packets for 30 s is conntrack's alone
 * again. conntrack's counters stay exact (NFT_FLOWTABLE_COUNTER); how long a flow has been idle is not known while it is in the flowtable.
 *
 * Only flows with MARK_FLOW are put into it: nothing is left to be judged of them. Those whose name is to be read, or read again, and those
 * that audit mode let out or that came in, are not.
 *
 * It is made anew whenever rules are: which interfaces it has depends on the same things. Flows then go the slow way for one packet. An
 * interface that has gone since interfaces were looked at fails the transaction, so ruleset_apply() tries again without a flowtable; the
 * kernel's message about that interface leads to the next application.
 *
 * To end a flow is to delete its conntrack entry: from then on its packets find nothing in the flowtable. Kernels that refuse to delete it
 * (before Linux 6.4, but for later releases of stable lines) are told by the attempt; then no flowtable is used (upkeep.c).
 */
#include "gateway/ruleset_internal.h"

#define PACKETS_BEFORE 8   /* of who began it: one that is shorter is not worth its place */
#define DEVICES_MAX    255 /* NFT_NETDEVICE_MAX, less one; what comes in by others goes the slow way */

static bool is_used(const struct ruleset_plan *plan)
{
	return plan->flowtable && plan->interfaces->uplink != 0;
}

void ruleset_flowtable_write(struct ruleset_plan *plan)
{
	const struct interfaces *interfaces = plan->interfaces;
	const char *devices[DEVICES_MAX];
	size_t count = 0;

	if (nft_objects_find(&plan->flowtables, RULESET_FLOWTABLE))
		nft_flowtable_delete(&plan->batch, RULESET_FLOWTABLE);
	if (!is_used(plan))
		return;
	for (size_t i = 0; i < interfaces->count && count < DEVICES_MAX; i++) {
		const struct interface *interface = &interfaces->list[i];

		if (interface->index == interfaces->uplink || (interface->network != POLICY_NETWORK_NONE && !interface->loopback))
			devices[count++] = interface->name;
	}
	nft_flowtable_add(&plan->batch, RULESET_FLOWTABLE, devices, count);
}

void ruleset_flowtable_forward(struct ruleset_plan *plan, uint32_t established)
{
	struct nft_batch *batch = &plan->batch;

	if (!is_used(plan))
		return;
	nft_rule_begin(batch, "forward");
	nft_match_ct_state(batch, established);
	nft_match_ct_mark(batch, RULESET_MARK_FLOW);
	nft_match_ct_packets_over(batch, PACKETS_BEFORE);
	nft_flow_add(batch, RULESET_FLOWTABLE);
	nft_verdict(batch, NFT_VERDICT_ACCEPT, NULL);
	nft_rule_end(batch);
}
