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
 *
 * A flow whose name is read first (`verify`) is let out by the verdict. The kernel counts it then, and it is told of then, since conntrack
 * tells of it sooner than its name is known; one that was denied, or never said a name, is not told of at all. Names that were verified are
 * kept until the flow is over (verified.h).
 *
 * Not every kernel tells with a packet which virtual address its app has used. Then verdict and conntrack's message know half of the flow
 * each: what comes first waits for the other, under the real address, which both know.
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
#include "gateway/report/verified.h"

#define BUFFER_SIZE (8 * 1024 * 1024) /* octets, of the socket: some ten thousand events */

/* One network. */
struct stream {
	UT_hash_handle hh;
	char network[POLICY_NAME_MAX + 1];
	enum log_allowed log_allowed;
	struct tally *heard, *logged;
	struct verified *names;  /* owned: of open flows that were verified, by their addresses as the app has them */
	struct verified *halves; /* owned: flows to virtual addresses, by where they lead */
	struct bucket ends;      /* of lines for flows that are over */
	uint64_t ended;          /* flows that are over and had no line ... */
	struct traffic traffic;  /* ... and what they carried */
};

struct allowed {
	uv_loop_t *loop;
	uv_timer_t timer;
	struct allowed_options options;
	const struct policy *policy;
	struct flows_watch *watch;      /* owned; NULL: events cannot be had */
	struct tallies *heard, *logged; /* owned */
	struct stream *streams;         /* owned, hash */
	struct stream *latest;          /* that was searched for, or NULL: events of one network come in a row */
	bool last;                      /* the last sums have been told */
	bool closing;
};

static void start(struct decision *decision, enum decision_event event, enum decision_kind kind, const char *network, uint64_t count)
{
	static const char action[] = "allowed";

	memset(decision, 0, sizeof(*decision));
	decision->event = event;
	decision->kind = kind;
	decision->count = count;
	memcpy(decision->action, action, sizeof(action));
	memcpy(decision->network, network, strnlen(network, POLICY_NAME_MAX));
	if (kind == DECISION_SUMMARY)
		decision->what = "flows";
}

/* --- what is known about a flow --- */

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
			decision_set_rule(decision, &name.rule->source);
			return;
		}
	}
	if (policy_in_pool(network, &flow->destination))
		return;
	address = policy_judge_address(allowed->policy, network, &flow->destination, flow->protocol, flow->destination_port);
	if (address.allowed)
		decision_set_rule(decision, &address.rule->source);
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

/* By the name of the lease, or of the virtual address. @ruled: with the rule, which takes a while. */
static void set_leased_name(const struct allowed *allowed, const struct network *network, const struct tracked_flow *flow, bool ruled,
			    struct decision *decision)
{
	const struct lease *lease = find_lease(allowed, network, &flow->flow.destination);

	find_name(allowed, network, &flow->flow.destination, lease, &decision->name);
	if (ruled && ruleset_is_flow(flow->mark))
		find_rule(allowed, network, &flow->flow, lease, decision);
}

/* decision->sni is the name; what allows it may have changed since. */
static void set_verified_name(const struct network *network, const struct tracked_flow *flow, bool ruled, struct decision *decision)
{
	struct name_verdict verdict;

	decision->name = decision->sni;
	if (!ruled)
		return;
	verdict = policy_judge_name(network, &decision->name, time(NULL));
	if (verdict.allowed && !verdict.audited &&
	    (verdict.specs & policy_specs_on(network, flow->flow.protocol, flow->flow.destination_port)))
		decision_set_rule(decision, &verdict.rule->source);
}

/* All but the names of the app and of the destination, and the rule. */
static void describe(struct decision *decision, enum decision_event event, const struct network *network, const struct stream *stream,
		     const struct tracked_flow *flow)
{
	struct verified_flow known;

	start(decision, event, DECISION_FLOW, network->name, 1);
	if (stream && verified_count(stream->names) > 0 && verified_find(stream->names, &flow->flow, &known)) {
		decision->has_sni = true;
		decision->sni = known.name;
	}
	decision->source = flow->flow.source;
	decision->destination = flow->flow.destination;
	if (policy_in_pool(network, &flow->flow.destination) && flow->translated)
		decision->real = flow->target;
	decision->has_port = true;
	decision->port = flow->flow.destination_port;
	decision->protocol = flow->flow.protocol;
	if (event == DECISION_ENDED)
		decision->traffic = flow->traffic;
}

static void set_name(const struct allowed *allowed, const struct network *network, const struct tracked_flow *flow, bool ruled,
		     struct decision *decision)
{
	if (decision->has_sni)
		set_verified_name(network, flow, ruled, decision);
	else
		set_leased_name(allowed, network, flow, ruled, decision);
}

/* --- events --- */

static struct stream *find_stream(struct allowed *allowed, const char *network)
{
	struct stream *stream = allowed->latest;

	if (stream && strcmp(stream->network, network) == 0)
		return stream;
	HASH_FIND_STR(allowed->streams, network, stream);
	allowed->latest = stream;
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

/* Has the policy let it out? One whose name was not read yet when its network's `verify` was turned off goes on as well. */
static bool is_let_out(const struct network *network, uint32_t mark)
{
	return ruleset_is_flow(mark) || (mark == RULESET_MARK_VERIFY && network->verify == VERIFY_OFF);
}

static void begin(struct allowed *allowed, const struct network *network, struct stream *stream, const struct tracked_flow *flow)
{
	struct decision decision;

	describe(&decision, DECISION_ALLOWED, network, stream, flow);
	set_name(allowed, network, flow, true, &decision);
	named_wait(allowed->options.named, network, interfaces_of_network(allowed->options.interfaces, network->id), &decision,
		   begin_logged(allowed, stream), tell, allowed);
}

static void end(struct allowed *allowed, const struct network *network, struct stream *stream, const struct tracked_flow *flow,
		int64_t duration)
{
	struct decision decision;

	describe(&decision, DECISION_ENDED, network, stream, flow);
	set_name(allowed, network, flow, true, &decision);
	decision.has_duration = duration >= 0;
	decision.duration = duration >= 0 ? (uint64_t)duration : 0;
	named_wait(allowed->options.named, network, interfaces_of_network(allowed->options.interfaces, network->id), &decision,
		   end_logged(allowed, stream, &flow->traffic), tell, allowed);
}

/* @name: of length 0: none was verified. */
static void let_out(struct allowed *allowed, const struct network *network, struct stream *stream, const struct tracked_flow *flow,
		    const struct domain *name)
{
	const struct verified_flow known = {.name = *name};

	if (name->length > 0)
		verified_put(stream->names, &flow->flow, &known);
	else
		verified_forget(stream->names, &flow->flow);
	begin(allowed, network, stream, flow);
}

/* The flow by where it leads. */
static struct flow by_target(const struct tracked_flow *flow)
{
	struct flow real = flow->flow;

	real.destination = flow->target;
	real.destination_port = flow->target_port;
	return real;
}

/* Conntrack tells of a flow whose name is read. */
static void begin_half(struct allowed *allowed, const struct network *network, struct stream *stream, const struct tracked_flow *flow)
{
	const struct flow real = by_target(flow);
	struct verified_flow half = {.destination = flow->flow.destination}, known;
	bool verdict_came;

	if (!flow->translated)
		return;
	verdict_came = verified_find(stream->halves, &real, &known) && known.destination.family == 0;
	verified_forget(stream->halves, &real);
	if (flow->mark == RULESET_MARK_VERIFY)
		verified_put(stream->halves, &real, &half);
	else if (verdict_came)
		let_out(allowed, network, stream, flow, &known.name);
}

static void forget_flow(struct stream *stream, const struct tracked_flow *flow)
{
	struct flow real;

	if (verified_count(stream->names) > 0)
		verified_forget(stream->names, &flow->flow);
	if (verified_count(stream->halves) == 0)
		return;
	real = by_target(flow);
	verified_forget(stream->halves, &real);
}

static void on_began(struct allowed *allowed, const struct network *network, struct stream *stream, const struct tracked_flow *flow)
{
	if (ruleset_is_read(flow->mark)) {
		begin_half(allowed, network, stream, flow);
		return;
	}
	forget_flow(stream, flow); /* the end of another one was not heard of */
	if (ruleset_is_flow(flow->mark))
		begin(allowed, network, stream, flow);
}

/* A flow of a network that has just gone is nobody's. */
static void on_flow(void *context, enum flow_event event, const struct tracked_flow *flow, int64_t duration)
{
	struct allowed *allowed = context;
	const struct network *network = policy_network_by_source(allowed->policy, &flow->flow.source);
	struct stream *stream = network ? find_stream(allowed, network->name) : NULL;

	if (!stream)
		return;
	if (event == FLOW_BEGAN) {
		on_began(allowed, network, stream, flow);
		return;
	}
	if (is_let_out(network, flow->mark) || flow->mark == RULESET_MARK_AUDIT)
		end(allowed, network, stream, flow, duration);
	forget_flow(stream, flow);
}

/* The verdict knows where a flow leads. */
static void verdict_half(struct allowed *allowed, const struct network *network, struct stream *stream, const struct flow *flow,
			 const struct domain *name)
{
	struct tracked_flow tracked = {.flow = *flow, .target = flow->destination, .mark = RULESET_MARK_FLOW, .translated = true};
	const struct verified_flow half = {.name = *name};
	struct verified_flow known;

	if (verified_find(stream->halves, flow, &known) && known.destination.family != 0) {
		verified_forget(stream->halves, flow);
		tracked.flow.destination = known.destination;
		let_out(allowed, network, stream, &tracked, name);
	} else {
		verified_put(stream->halves, flow, &half);
	}
}

void allowed_let_out(struct allowed *allowed, const struct network *network, const struct flow *flow, const struct domain *name)
{
	static const struct domain none = {0};
	struct stream *stream = network ? find_stream(allowed, network->name) : NULL;
	struct tracked_flow tracked = {.flow = *flow, .mark = RULESET_MARK_FLOW};
	const struct mapping *mapping;

	if (!stream)
		return;
	/* What conntrack has told of before counts first: the end of another flow with the same addresses and ports, or this one's SYN. */
	if (allowed->watch)
		(void)flows_watch_settle(allowed->watch, false);
	if (!name)
		name = &none;
	if (network->has_virtual_addresses && !policy_in_pool(network, &flow->destination)) {
		verdict_half(allowed, network, stream, flow, name);
		return;
	}
	mapping = mapping_find(allowed->options.mappings, network->id, &flow->destination);
	if (mapping) {
		tracked.translated = true;
		tracked.target = mapping->real;
	}
	let_out(allowed, network, stream, &tracked, name);
}

bool allowed_asked_for(struct allowed *allowed, const struct network *network, const struct flow *flow, struct domain *name)
{
	const struct stream *stream = find_stream(allowed, network->name);
	struct verified_flow known;
	bool found = stream && verified_find(stream->names, flow, &known);

	if (found)
		*name = known.name;
	return found;
}

void allowed_see(struct allowed *allowed, const struct network *network, const struct tracked_flow *flow)
{
	const struct stream *stream = find_stream(allowed, network->name);
	struct decision decision;

	if (!is_let_out(network, flow->mark) && flow->mark != RULESET_MARK_AUDIT)
		return;
	if (allowed->watch)
		flows_watch_look(allowed->watch, flow);
	describe(&decision, DECISION_ENDED, network, stream, flow);
	set_name(allowed, network, flow, false, &decision);
	decision.count = flow->over ? 0 : 1;
	named_known(allowed->options.named, network, interfaces_of_network(allowed->options.interfaces, network->id), &decision.source,
		    decision.app);
	stats_look_flow(reports_stats(allowed->options.reports), &decision);
}

/* --- sums --- */

/* In the log only: reports.h has heard of these flows. */
static void log_sum(const struct allowed *allowed, const struct stream *stream, uint64_t flows)
{
	struct decision decision;

	start(&decision, DECISION_ALLOWED, DECISION_SUMMARY, stream->network, flows);
	decision_write(allowed->options.log, &decision);
	tallies_told(allowed->logged, stream->logged, flows);
}

static void log_ended(const struct allowed *allowed, struct stream *stream)
{
	struct decision decision;

	if (stream->ended == 0)
		return;
	start(&decision, DECISION_ENDED, DECISION_SUMMARY, stream->network, stream->ended);
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
	struct decision decision;

	start(&decision, DECISION_ALLOWED, DECISION_SUMMARY, row->network, row->numbers.allowed);
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
	struct decision decision;

	start(&decision, DECISION_ALLOWED, DECISION_SUMMARY, stream->network, lost);
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
	allowed->latest = NULL;
	verified_free(stream->names);
	verified_free(stream->halves);
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
	stream->names = verified_new();
	stream->halves = verified_new();
	if (stream->heard && stream->logged && stream->names && stream->halves) {
		HASH_ADD_STR(allowed->streams, network, stream);
		if (stream->hh.tbl)
			return 0;
	}
	verified_free(stream->names);
	verified_free(stream->halves);
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
		.marks = {RULESET_MARK_FLOW, RULESET_MARK_AUDIT, RULESET_MARK_VERIFY, RULESET_MARK_DATAGRAMS, RULESET_MARK_ENDED},
		.ends = true,
		.buffer = BUFFER_SIZE};
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
