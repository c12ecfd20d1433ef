/* SPDX-License-Identifier: MIT */
/*
 * Flows that the policy let out.
 *
 * Theory of operation
 *
 * No such flow waits for us. The kernel counts each one, per network, and conntrack tells of its beginning and of its end. Every event that
 * reaches us is told to reports.h as soon as its app's name is known; one that is lost is told there in a sum without app (tally.h:
 *`heard`).
 *
 * What the log gets is up to the network's `log_allowed`, and counted apart (`logged`):
 *
 *	all		a line for each event while the rate allows. What the kernel's counter has more is told in a sum.
 *	summary		once a minute a line for each row of the statistics, with what is new in it. What was heard and is in no row
 *			(a worker before us had it) is told in a line without app.
 *	off		nothing. `logged` goes along with `heard`, so that nothing of before is told when it is turned on.
 *
 * So sums of `count` over all lines of a network are what the kernel has counted while it was not off, whatever was lost.
 */
#include "gateway/report/allowed.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/hash.h"
#include "gateway/flows_watch.h"
#include "gateway/nft.h"
#include "gateway/report/tally.h"

#define BUFFER_SIZE (8 * 1024 * 1024) /* octets, of the socket: some ten thousand events */

/* One network. */
struct stream {
	UT_hash_handle hh;
	char network[POLICY_NAME_MAX + 1];
	enum log_allowed log_allowed;
	struct tally *heard, *logged;
	struct bucket ends;     /* of lines for flows that are over */
	uint64_t ended;         /* flows that are over and had no line ... */
	struct traffic traffic; /* ... and what they carried */
};

struct allowed {
	uv_loop_t *loop;
	uv_timer_t timer;
	struct allowed_options options;
	const struct policy *policy;
	struct flows_watch *watch;      /* owned; NULL: events cannot be had */
	struct tallies *heard, *logged; /* owned */
	struct stream *streams;         /* owned, hash */
	bool last;                      /* the last sums have been told */
	bool closing;
};

static struct decision start(enum decision_event event, enum decision_kind kind, const char *network, uint64_t count)
{
	struct decision decision = {.event = event, .kind = kind, .action = "allowed", .count = count};

	snprintf(decision.network, sizeof(decision.network), "%s", network);
	if (kind == DECISION_SUMMARY)
		decision.what = "flows";
	return decision;
}

/* --- what is known about a flow --- */

static void set_rule(struct decision *decision, const struct rule *rule)
{
	if (rule)
		snprintf(decision->rule, sizeof(decision->rule), "%s:%u", rule->source.file, rule->source.line);
}

/* The rule that lets the flow out: by its name, or else by its address. */
static void find_rule(const struct allowed *allowed, const struct network *network, const struct flow *flow, const struct lease *lease,
		      struct decision *decision)
{
	uint64_t covering = policy_specs_on(network, flow->protocol, flow->destination_port);
	struct address_verdict address;
	struct name_verdict name;

	if (lease) {
		name = policy_judge_chain(network, &lease->name, &lease->chain, time(NULL), NULL);
		if (name.allowed && !name.audited && (name.specs & covering) != 0) {
			set_rule(decision, name.rule);
			return;
		}
	}
	if (policy_in_pool(network, &flow->destination))
		return;
	address = policy_judge_address(allowed->policy, network, &flow->destination, flow->protocol, flow->destination_port);
	if (address.allowed)
		set_rule(decision, address.rule);
}

/* The network's own; valid until the next search. */
static const struct lease *find_lease(const struct allowed *allowed, const struct network *network, const struct address *address)
{
	const struct lease *lease = lease_find(allowed->options.leases, network->id, address);

	return lease && lease->network == network->id ? lease : NULL;
}

static void find_name(const struct allowed *allowed, const struct network *network, const struct address *address,
		      const struct lease *lease, struct domain *out)
{
	const struct mapping *mapping = lease ? NULL : mapping_find(allowed->options.mappings, network->id, address);

	if (lease)
		*out = lease->name;
	else if (mapping)
		*out = mapping->name;
}

/* All but the name of the app. @ruled: with the rule, which takes a while. */
static struct decision describe(const struct allowed *allowed, enum decision_event event, const struct network *network,
				const struct tracked_flow *flow, bool ruled)
{
	const struct lease *lease = find_lease(allowed, network, &flow->flow.destination);
	struct decision decision = start(event, DECISION_FLOW, network->name, 1);

	decision.source = flow->flow.source;
	decision.destination = flow->flow.destination;
	if (policy_in_pool(network, &flow->flow.destination) && flow->translated)
		decision.real = flow->target;
	decision.has_port = true;
	decision.port = flow->flow.destination_port;
	decision.protocol = flow->flow.protocol;
	find_name(allowed, network, &flow->flow.destination, lease, &decision.name);
	if (event == DECISION_ENDED)
		decision.traffic = flow->traffic;
	if (ruled && flow->mark == RULESET_MARK_FLOW)
		find_rule(allowed, network, &flow->flow, lease, &decision);
	return decision;
}

/* --- events --- */

static struct stream *find_stream(const struct allowed *allowed, const char *network)
{
	struct stream *stream;

	HASH_FIND_STR(allowed->streams, network, stream);
	return stream;
}

/* Now it has its name. */
static void tell(void *context, const struct decision *decision, bool logged)
{
	struct allowed *allowed = context;
	struct stream *stream = find_stream(allowed, decision->network);

	if (decision->event == DECISION_ALLOWED && allowed->last)
		return; /* the last sums have it */
	if (decision->event != DECISION_ALLOWED || !stream) {
		reports_tell(allowed->options.reports, decision, logged);
		return;
	}
	reports_tell(allowed->options.reports, decision, false);
	tallies_told(allowed->heard, stream->heard, 1);
	if (!logged)
		return;
	/* One after the other: a worker that dies in between leaves a line that is told once more, in a sum. */
	decision_write(allowed->options.log, decision);
	tallies_told(allowed->logged, stream->logged, 1);
}

static bool begin_logged(const struct allowed *allowed, struct stream *stream)
{
	return stream->log_allowed == LOG_ALLOWED_ALL && tally_may_tell(stream->logged, uv_now(allowed->loop));
}

/* What has no line goes into a sum. */
static bool end_logged(const struct allowed *allowed, struct stream *stream, const struct traffic *traffic)
{
	if (stream->log_allowed != LOG_ALLOWED_ALL)
		return false;
	if (bucket_take(&stream->ends, uv_now(allowed->loop), TALLY_LINE_MS, TALLY_LINE_BURST))
		return true;
	stream->ended++;
	decision_add_traffic(&stream->traffic, traffic);
	return false;
}

/* A flow of a network that has just gone is nobody's. */
static void on_flow(void *context, enum flow_event event, const struct tracked_flow *flow, int64_t duration)
{
	struct allowed *allowed = context;
	const struct network *network = policy_network_by_source(allowed->policy, &flow->flow.source);
	struct stream *stream = network ? find_stream(allowed, network->name) : NULL;
	struct decision decision;
	bool logged;

	if (!stream || (event == FLOW_BEGAN && flow->mark != RULESET_MARK_FLOW))
		return;
	decision = describe(allowed, event == FLOW_BEGAN ? DECISION_ALLOWED : DECISION_ENDED, network, flow, true);
	decision.has_duration = duration >= 0;
	decision.duration = duration >= 0 ? (uint64_t)duration : 0;
	logged = event == FLOW_BEGAN ? begin_logged(allowed, stream) : end_logged(allowed, stream, &flow->traffic);
	named_wait(allowed->options.named, network, interfaces_of_network(allowed->options.interfaces, network->id), &decision, logged,
		   tell, allowed);
}

void allowed_see(struct allowed *allowed, const struct network *network, const struct tracked_flow *flow)
{
	struct decision decision;

	if (flow->mark != RULESET_MARK_FLOW && flow->mark != RULESET_MARK_AUDIT)
		return;
	if (allowed->watch)
		flows_watch_look(allowed->watch, flow);
	decision = describe(allowed, DECISION_ENDED, network, flow, false);
	decision.count = flow->over ? 0 : 1;
	named_known(allowed->options.named, network, interfaces_of_network(allowed->options.interfaces, network->id), &decision.source,
		    decision.app);
	stats_look_flow(reports_stats(allowed->options.reports), &decision);
}

/* --- sums --- */

/* In the log only: reports.h has heard of these flows. */
static void log_sum(const struct allowed *allowed, const struct stream *stream, uint64_t flows)
{
	struct decision decision = start(DECISION_ALLOWED, DECISION_SUMMARY, stream->network, flows);

	decision_write(allowed->options.log, &decision);
	tallies_told(allowed->logged, stream->logged, flows);
}

static void log_ended(const struct allowed *allowed, struct stream *stream)
{
	struct decision decision = start(DECISION_ENDED, DECISION_SUMMARY, stream->network, stream->ended);

	if (stream->ended == 0)
		return;
	decision.has_traffic = true;
	decision.traffic = stream->traffic;
	decision_write(allowed->options.log, &decision);
	stream->ended = 0;
	stream->traffic = (struct traffic){0};
}

struct row_context {
	struct allowed *allowed;
	struct stream *stream;
};

static void log_row(void *context, const struct stats_row *row)
{
	const struct row_context *at = context;
	struct decision decision = start(DECISION_ALLOWED, DECISION_SUMMARY, row->network, row->numbers.allowed);

	decision.source = row->source;
	memcpy(decision.app, row->app, sizeof(decision.app));
	decision.destination = row->destination;
	decision.name = row->name;
	decision.has_port = row->has_port;
	decision.port = row->port;
	decision.protocol = row->protocol;
	decision.has_traffic = true;
	decision.traffic = row->numbers.traffic;
	decision_write(at->allowed->options.log, &decision);
	tallies_told(at->allowed->logged, at->stream->logged, decision.count);
}

/* What was heard and is in no line: nobody knows any more whose it was. */
static void log_rest(const struct allowed *allowed, const struct stream *stream)
{
	if (stream->heard->told > stream->logged->told)
		log_sum(allowed, stream, stream->heard->told - stream->logged->told);
}

static void log_rows(struct allowed *allowed, struct stream *stream)
{
	struct row_context context = {.allowed = allowed, .stream = stream};

	stats_each_news(reports_stats(allowed->options.reports), stream->network, log_row, &context);
	log_rest(allowed, stream);
}

static void on_timer(uv_timer_t *timer)
{
	struct allowed *allowed = timer->data;
	struct stream *stream, *next;

	HASH_ITER (hh, allowed->streams, stream, next) {
		if (stream->log_allowed == LOG_ALLOWED_SUMMARY)
			log_rows(allowed, stream);
	}
}

/* Nobody is told of what comes now. */
static void pass_over(const struct allowed *allowed, const struct stream *stream)
{
	if (stream->heard->told > stream->logged->told)
		tallies_told(allowed->logged, stream->logged, stream->heard->told - stream->logged->told);
}

static void count_network(struct allowed *allowed, struct stream *stream, uint64_t total, bool last)
{
	uint64_t lost = tallies_take_untold(allowed->heard, stream->heard, total, last), untold;
	struct decision decision = start(DECISION_ALLOWED, DECISION_SUMMARY, stream->network, lost);

	if (lost > 0)
		reports_tell(allowed->options.reports, &decision, false);
	switch (stream->log_allowed) {
	case LOG_ALLOWED_OFF: pass_over(allowed, stream); break;
	case LOG_ALLOWED_SUMMARY:
		if (last)
			log_rows(allowed, stream);
		break;
	case LOG_ALLOWED_ALL:
		untold = tallies_take_untold(allowed->logged, stream->logged, total, last);
		decision.count = untold;
		if (untold > 0)
			decision_write(allowed->options.log, &decision);
		break;
	}
	log_ended(allowed, stream);
}

int allowed_count(struct allowed *allowed, struct ruleset *ruleset, bool last)
{
	struct nft_objects counters = {0};
	char name[RULESET_SET_NAME_MAX];
	struct stream *stream, *next;
	int rc;

	/* What the counter had at the last reading may still be on its way to a line: the next reading tells. */
	if (allowed->watch && !flows_watch_settle(allowed->watch, last) && !last)
		return 0;
	rc = nft_objects_read(&ruleset->netlink, NFT_TABLE, NFT_OBJECTS_COUNTERS, &counters);
	HASH_ITER (hh, allowed->streams, stream, next) {
		const struct nft_object *counter = nft_objects_find(&counters, ruleset_allowed_counter(stream->network, name));

		if (rc == 0 && counter)
			count_network(allowed, stream, counter->packets, last);
	}
	nft_objects_free(&counters);
	allowed->last = last;
	return rc;
}

/* --- which networks there are --- */

static void forget(struct allowed *allowed, struct stream *stream)
{
	HASH_DEL(allowed->streams, stream);
	free(stream);
}

static void forget_gone(struct allowed *allowed)
{
	struct stream *stream, *next;

	HASH_ITER (hh, allowed->streams, stream, next) {
		if (!policy_network_by_name(allowed->policy, stream->network))
			forget(allowed, stream);
	}
	tallies_forget_gone(allowed->heard, allowed->policy);
	tallies_forget_gone(allowed->logged, allowed->policy);
}

/* Return: 0 or -ENOMEM. */
static int add_stream(struct allowed *allowed, const struct network *network)
{
	struct stream *stream = calloc(1, sizeof(*stream));

	if (!stream)
		return -ENOMEM;
	snprintf(stream->network, sizeof(stream->network), "%s", network->name);
	stream->log_allowed = network->log_allowed;
	stream->heard = tallies_want(allowed->heard, network->name);
	stream->logged = tallies_want(allowed->logged, network->name);
	if (stream->heard && stream->logged) {
		HASH_ADD_STR(allowed->streams, network, stream);
		if (stream->hh.tbl)
			return 0;
	}
	free(stream);
	return -ENOMEM;
}

static void set_log_allowed(struct allowed *allowed, struct stream *stream, enum log_allowed wanted)
{
	if (stream->log_allowed == wanted)
		return;
	if (stream->log_allowed == LOG_ALLOWED_OFF)
		pass_over(allowed, stream);
	/* What is in the rows by now has been told, or log_rest() tells it. */
	if (wanted == LOG_ALLOWED_SUMMARY)
		stats_each_news(reports_stats(allowed->options.reports), stream->network, NULL, NULL);
	stream->log_allowed = wanted;
}

int allowed_set_policy(struct allowed *allowed, const struct policy *policy)
{
	static const struct flows_watch_options options = {
		.marks = {RULESET_MARK_FLOW, RULESET_MARK_AUDIT}, .ends = true, .buffer = BUFFER_SIZE};
	int rc = 0;

	allowed->policy = policy;
	forget_gone(allowed);
	for (size_t i = 0; i < policy->network_count; i++) {
		struct stream *stream = find_stream(allowed, policy->networks[i].name);

		if (stream)
			set_log_allowed(allowed, stream, policy->networks[i].log_allowed);
		else if (rc == 0)
			rc = add_stream(allowed, &policy->networks[i]);
	}
	if (rc == 0 && !allowed->watch)
		rc = flows_watch_open(allowed->loop, &options, on_flow, allowed, &allowed->watch);
	return rc;
}

static void free_allowed(uv_handle_t *handle)
{
	struct allowed *allowed = handle->data;
	struct stream *stream, *next;

	HASH_ITER (hh, allowed->streams, stream, next) {
		forget(allowed, stream);
	}
	tallies_free(allowed->heard);
	tallies_free(allowed->logged);
	free(allowed);
}

struct allowed *allowed_new(uv_loop_t *loop, const struct allowed_options *options)
{
	struct allowed *allowed = calloc(1, sizeof(*allowed));

	if (!allowed)
		return NULL;
	*allowed = (struct allowed){.loop = loop, .options = *options, .timer.data = allowed};
	allowed->heard = tallies_new(options->log, "allowed flows", options->heard);
	allowed->logged = tallies_new(options->log, "allowed flows in the log", options->logged);
	if (!allowed->heard || !allowed->logged || uv_timer_init(loop, &allowed->timer) != 0) {
		free_allowed((uv_handle_t *)&allowed->timer);
		return NULL;
	}
	uv_timer_start(&allowed->timer, on_timer, ALLOWED_SUMMARY_MS, ALLOWED_SUMMARY_MS);
	return allowed;
}

void allowed_close(struct allowed *allowed)
{
	if (!allowed || allowed->closing)
		return;
	allowed->closing = true;
	flows_watch_close(allowed->watch);
	allowed->watch = NULL;
	uv_close((uv_handle_t *)&allowed->timer, free_allowed);
}
