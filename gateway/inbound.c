/* SPDX-License-Identifier: MIT */
/*
 * Flows that came in, in the log.
 *
 * Theory of operation: an event of conntrack gets its line while the rate of its network allows; what has none is told in a sum (tally.h).
 */
#include "gateway/inbound.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/flows_watch.h"
#include "gateway/nft.h"
#include "gateway/report/tally.h"

#define BUFFER_SIZE (1024 * 1024) /* octets, of the socket */

struct inbound {
	uv_loop_t *loop;
	struct reports *reports;
	const struct openings *openings;
	const struct policy *policy;
	struct flows_watch *watch; /* owned; NULL while nothing is published */
	struct tallies *tallies;   /* owned */
};

struct inbound *inbound_new(uv_loop_t *loop, struct log *log, struct reports *reports, const struct openings *openings, int memory)
{
	struct inbound *inbound = calloc(1, sizeof(*inbound));

	if (!inbound)
		return NULL;
	*inbound = (struct inbound){.loop = loop, .reports = reports, .openings = openings};
	inbound->tallies = tallies_new(log, "inbound flows", memory);
	if (inbound->tallies)
		return inbound;
	free(inbound);
	return NULL;
}

static struct decision start(enum decision_kind kind, const char *network, uint64_t count)
{
	struct decision decision = {.event = DECISION_INBOUND, .kind = kind, .action = "allowed", .count = count};

	snprintf(decision.network, sizeof(decision.network), "%s", network);
	return decision;
}

static void tell_flow(struct inbound *inbound, const char *network, const struct opening *opening, const struct tracked_flow *flow)
{
	const struct publish *publish = opening->publish;
	struct decision decision = start(DECISION_FLOW, network, 1);

	decision.source = flow->flow.source;
	if (publish->name)
		snprintf(decision.app, sizeof(decision.app), "%.*s", APPS_NAME_MAX, publish->name);
	decision.destination = flow->target;
	decision.has_port = true;
	decision.port = flow->target_port;
	decision.published = flow->flow.destination_port;
	decision.protocol = flow->flow.protocol;
	decision_set_rule(&decision, &publish->source);
	reports_tell(inbound->reports, &decision, true);
}

static void tell_summary(struct inbound *inbound, const char *network, uint64_t flows)
{
	struct decision decision = start(DECISION_SUMMARY, network, flows);

	decision.what = "flows";
	reports_tell(inbound->reports, &decision, true);
}

/* A flow without opening began just before a reload took that away: the summary tells of it. */
static void on_flow(void *context, enum flow_event event, const struct tracked_flow *flow, int64_t duration)
{
	struct inbound *inbound = context;
	const struct opening *opening =
		openings_find(inbound->openings, flow->flow.protocol, flow->flow.destination_port, &flow->target, flow->target_port);
	const struct network *network = opening ? policy_network(inbound->policy, opening->network) : NULL;
	struct tally *tally = network ? tallies_want(inbound->tallies, network->name) : NULL;

	(void)event;
	(void)duration;
	if (!tally || !tally_may_tell(tally, uv_now(inbound->loop)))
		return;
	tell_flow(inbound, network->name, opening, flow);
	tallies_told(inbound->tallies, tally, 1);
}

void inbound_close(struct inbound *inbound)
{
	if (!inbound)
		return;
	flows_watch_close(inbound->watch);
	tallies_free(inbound->tallies);
	free(inbound);
}

static bool publishes(const struct policy *policy)
{
	for (size_t i = 0; i < policy->network_count; i++) {
		if (policy->networks[i].publish_count > 0)
			return true;
	}
	return false;
}

int inbound_set_policy(struct inbound *inbound, const struct policy *policy)
{
	static const struct flows_watch_options options = {.marks = {RULESET_MARK_PUBLISH}, .buffer = BUFFER_SIZE};

	inbound->policy = policy;
	tallies_forget_gone(inbound->tallies, policy);
	if (publishes(policy) && !inbound->watch)
		return flows_watch_open(inbound->loop, &options, on_flow, inbound, &inbound->watch);
	if (!publishes(policy)) {
		flows_watch_close(inbound->watch);
		inbound->watch = NULL;
	}
	return 0;
}

static void count_network(struct inbound *inbound, const struct nft_objects *counters, const struct network *network, bool last)
{
	char name[RULESET_SET_NAME_MAX];
	const struct nft_object *counter = nft_objects_find(counters, ruleset_inbound_counter(network->name, name));
	struct tally *tally =
		counter && (counter->packets || network->publish_count) ? tallies_want(inbound->tallies, network->name) : NULL;
	uint64_t untold = tally ? tallies_take_untold(inbound->tallies, tally, counter->packets, last) : 0;

	if (untold > 0)
		tell_summary(inbound, network->name, untold);
}

int inbound_count(struct inbound *inbound, struct ruleset *ruleset, bool last)
{
	struct nft_objects counters = {0};
	int rc;

	if (!inbound->policy || (!inbound->watch && tallies_are_empty(inbound->tallies) && !publishes(inbound->policy)))
		return 0;
	/* What the counter had at the last reading may still be on its way to a line: the next reading tells. */
	if (inbound->watch && !flows_watch_settle(inbound->watch, last) && !last)
		return 0;
	rc = nft_objects_read(&ruleset->netlink, NFT_TABLE, NFT_OBJECTS_COUNTERS, &counters);
	for (size_t i = 0; rc == 0 && i < inbound->policy->network_count; i++)
		count_network(inbound, &counters, &inbound->policy->networks[i], last);
	nft_objects_free(&counters);
	return rc;
}
