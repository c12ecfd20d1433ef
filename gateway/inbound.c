/* SPDX-License-Identifier: MIT */
/*
 * Flows that came in, in the log.
 *
 * Theory of operation: no such flow waits for us. The kernel counts each one, per network, and conntrack tells of it, unless its message is
 * lost because too many come at once or nobody listens. An event gets its line while the rate of its network allows. How many flows have
 * been told of, one by one or in a sum, is kept for each network (also for the next worker); what the kernel's counter has more is what no
 * line has told. Of that, only what the reading before had found as well goes into a summary: the event of the newest may be on its way. So
 * sums of `count` over all lines are exact, whatever was lost.
 */
#include "gateway/inbound.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/bucket.h"
#include "gateway/flows_watch.h"
#include "gateway/memory.h"
#include "gateway/nft.h"

#define READ_ROUNDS 64 /* of INBOUND_READ_MAX events, before the counters are read */

/* What has been told of one network's flows. Kept for the next worker as it is. */
struct told {
	char network[POLICY_NAME_MAX + 1];
	uint64_t flows; /* of the kernel's counter */
};

struct tally {
	struct told told;
	uint64_t total;   /* the kernel's counter at the last reading */
	uint64_t waiting; /* flows that no line had told of by then */
	struct bucket bucket;
};

struct inbound {
	uv_loop_t *loop;
	struct log *log;
	struct reports *reports;
	const struct openings *openings;
	const struct policy *policy;
	int memory;
	struct flows_watch *watch; /* owned; NULL while nothing is published */
	uv_poll_t *poll;           /* owned by the loop, freed in its close callback */
	struct tally *tallies;     /* owned */
	size_t count;
	bool changed; /* since it was kept */
};

static struct tally *find_tally(struct inbound *inbound, const char *network)
{
	for (size_t i = 0; i < inbound->count; i++) {
		if (strcmp(inbound->tallies[i].told.network, network) == 0)
			return &inbound->tallies[i];
	}
	return NULL;
}

static struct tally *add_tally(struct inbound *inbound, const struct told *told)
{
	struct tally *list = reallocarray(inbound->tallies, inbound->count + 1, sizeof(*list));

	if (!list)
		return NULL;
	inbound->tallies = list;
	list[inbound->count] = (struct tally){.told = *told};
	return &list[inbound->count++];
}

static struct tally *want_tally(struct inbound *inbound, const char *network)
{
	struct tally *tally = find_tally(inbound, network);
	struct told told = {0};

	if (tally)
		return tally;
	snprintf(told.network, sizeof(told.network), "%s", network);
	return add_tally(inbound, &told);
}

static void restore(struct inbound *inbound)
{
	void *bytes = NULL;
	size_t size = 0;
	struct told told;

	if (inbound->memory < 0 || memory_get(inbound->memory, &bytes, &size) != 0)
		return;
	for (size_t at = 0; at + sizeof(told) <= size; at += sizeof(told)) {
		memcpy(&told, (const uint8_t *)bytes + at, sizeof(told));
		told.network[POLICY_NAME_MAX] = '\0';
		(void)add_tally(inbound, &told);
	}
	free(bytes);
}

static void save(struct inbound *inbound)
{
	struct told *list;
	int rc = -ENOMEM;

	if (!inbound->changed || inbound->memory < 0)
		return;
	list = calloc(inbound->count + 1, sizeof(*list));
	for (size_t i = 0; list && i < inbound->count; i++)
		list[i] = inbound->tallies[i].told;
	if (list)
		rc = memory_put(inbound->memory, list, inbound->count * sizeof(*list));
	if (rc != 0)
		log_say(inbound->log, LOG_WARNING, "the count of inbound flows cannot be kept for a restart (%s): they may be told twice",
			strerror(-rc));
	free(list);
	inbound->changed = false;
}

struct inbound *inbound_new(uv_loop_t *loop, struct log *log, struct reports *reports, const struct openings *openings, int memory)
{
	struct inbound *inbound = calloc(1, sizeof(*inbound));

	if (!inbound)
		return NULL;
	*inbound = (struct inbound){.loop = loop, .log = log, .reports = reports, .openings = openings, .memory = memory};
	restore(inbound);
	return inbound;
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
	snprintf(decision.rule, sizeof(decision.rule), "%s:%u", publish->source.file, publish->source.line);
	reports_tell(inbound->reports, &decision, true);
}

static void tell_summary(struct inbound *inbound, const char *network, uint64_t flows)
{
	struct decision decision = start(DECISION_SUMMARY, network, flows);

	decision.what = "flows";
	reports_tell(inbound->reports, &decision, true);
}

/* A flow without opening began just before a reload took that away: the summary tells of it. */
static void on_flow(void *context, const struct tracked_flow *flow)
{
	struct inbound *inbound = context;
	const struct opening *opening =
		openings_find(inbound->openings, flow->flow.protocol, flow->flow.destination_port, &flow->target, flow->target_port);
	const struct network *network = opening ? policy_network(inbound->policy, opening->network) : NULL;
	struct tally *tally = network ? want_tally(inbound, network->name) : NULL;

	if (!tally || !bucket_take(&tally->bucket, uv_now(inbound->loop), INBOUND_LINE_MS, INBOUND_LINE_BURST))
		return;
	tell_flow(inbound, network->name, opening, flow);
	tally->told.flows++;
	inbound->changed = true;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct inbound *inbound = poll->data;

	(void)status;
	(void)events;
	if (poll != inbound->poll)
		return;
	(void)flows_watch_read(inbound->watch, INBOUND_READ_MAX);
	save(inbound);
}

static void free_handle(uv_handle_t *handle)
{
	free(handle);
}

static void close_watch(struct inbound *inbound)
{
	if (inbound->poll) {
		uv_poll_stop(inbound->poll);
		uv_close((uv_handle_t *)inbound->poll, free_handle);
		inbound->poll = NULL;
	}
	flows_watch_close(inbound->watch);
	inbound->watch = NULL;
}

static int open_watch(struct inbound *inbound)
{
	int rc = flows_watch_open(RULESET_MARK_PUBLISH, on_flow, inbound, &inbound->watch);

	if (rc != 0)
		return rc;
	inbound->poll = calloc(1, sizeof(*inbound->poll));
	rc = inbound->poll ? uv_poll_init(inbound->loop, inbound->poll, flows_watch_fd(inbound->watch)) : -ENOMEM;
	if (rc != 0) {
		free(inbound->poll);
		inbound->poll = NULL;
		close_watch(inbound);
		return rc;
	}
	inbound->poll->data = inbound;
	rc = uv_poll_start(inbound->poll, UV_READABLE, on_readable);
	if (rc != 0)
		close_watch(inbound);
	return rc;
}

void inbound_close(struct inbound *inbound)
{
	if (!inbound)
		return;
	close_watch(inbound);
	free(inbound->tallies);
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

/* A network's counter goes with it, and begins anew with another one of its name. */
static void forget_gone(struct inbound *inbound)
{
	for (size_t i = inbound->count; i-- > 0;) {
		if (policy_network_by_name(inbound->policy, inbound->tallies[i].told.network))
			continue;
		inbound->tallies[i] = inbound->tallies[--inbound->count];
		inbound->changed = true;
	}
}

int inbound_set_policy(struct inbound *inbound, const struct policy *policy)
{
	int rc = 0;

	inbound->policy = policy;
	forget_gone(inbound);
	if (publishes(policy) && !inbound->watch)
		rc = open_watch(inbound);
	else if (!publishes(policy) && inbound->watch)
		close_watch(inbound);
	save(inbound);
	return rc;
}

/* Return: how many flows a summary has to tell of now. */
static uint64_t take_untold(struct tally *tally, uint64_t total, bool last)
{
	uint64_t untold, now;

	if (total < tally->total) { /* somebody has made the counter anew */
		tally->told.flows = 0;
		tally->waiting = 0;
	}
	tally->total = total;
	untold = total > tally->told.flows ? total - tally->told.flows : 0;
	now = last || untold < tally->waiting ? untold : tally->waiting;
	tally->told.flows += now;
	tally->waiting = untold - now;
	return now;
}

static void count_network(struct inbound *inbound, const struct nft_objects *counters, const struct network *network, bool last)
{
	char name[RULESET_SET_NAME_MAX];
	const struct nft_object *counter = nft_objects_find(counters, ruleset_inbound_counter(network->name, name));
	struct tally *tally = counter && (counter->packets || network->publish_count) ? want_tally(inbound, network->name) : NULL;
	uint64_t untold = tally ? take_untold(tally, counter->packets, last) : 0;

	if (untold == 0)
		return;
	tell_summary(inbound, network->name, untold);
	inbound->changed = true;
}

int inbound_count(struct inbound *inbound, struct ruleset *ruleset, bool last)
{
	struct nft_objects counters = {0};
	int rc;

	if (!inbound->policy || (!inbound->watch && inbound->count == 0 && !publishes(inbound->policy)))
		return 0;
	for (int i = 0; inbound->watch && i < READ_ROUNDS; i++) {
		if (flows_watch_read(inbound->watch, INBOUND_READ_MAX) < INBOUND_READ_MAX)
			break;
	}
	rc = nft_objects_read(&ruleset->netlink, NFT_TABLE, NFT_OBJECTS_COUNTERS, &counters);
	for (size_t i = 0; rc == 0 && i < inbound->policy->network_count; i++)
		count_network(inbound, &counters, &inbound->policy->networks[i], last);
	nft_objects_free(&counters);
	save(inbound);
	return rc;
}
