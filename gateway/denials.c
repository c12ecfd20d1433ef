/* SPDX-License-Identifier: MIT */
/*
 * From denials to decisions that are told (report/named.h).
 *
 * Theory of operation
 *
 * Flows are limited by the kernel before they reach us. Questions are not: repeats within REPEATS_MS of a question that has its line, and
 * what is above DENIALS_QUESTIONS_RATE lines per second and network, are counted per source and written as one line each every
 * DENIALS_SUMMARY_MS. When there is no room for one more source, the count goes to a line without source, and when there is no memory at
 * all to a line without network: every denial is counted somewhere.
 */
#include "gateway/denials.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"
#include "gateway/dns_path.h"
#include "gateway/repeats.h"

#define SOURCES_MAX    4096 /* sources with a summary of their own */
#define RATE_FORGET_S  60   /* a network without denied questions for so long needs no entry */
#define WHAT_QUESTIONS "questions"
#define WHAT_PACKETS   "packets"

/* Compared as bytes: made by summary_key(), which zeroes the padding. */
struct summary_key {
	uint16_t network;
	uint8_t audited;
	struct address source;
};

/* Denied questions of one source that got no line of their own. */
struct summary {
	UT_hash_handle hh;
	struct summary_key key;
	struct prefix subnet; /* family 0: no name can be asked for */
	struct address asked; /* the address whose container name is wanted */
	char network[POLICY_NAME_MAX + 1];
	uint64_t count;
};

/* Denied questions of one network in this second. */
struct rate {
	UT_hash_handle hh;
	uint16_t network;
	uint64_t second;
	unsigned int lines;
};

struct denials {
	uv_loop_t *loop;
	struct named *named;
	struct interfaces *interfaces;
	struct repeats *repeats;   /* owned */
	struct dns_path *dns_path; /* owned */
	uv_timer_t timer;
	struct summary *summaries; /* owned, hash */
	struct rate *rates;        /* owned, hash */
	uint64_t unattributed;     /* questions for which there was no memory */
	bool closing;
};

static struct decision start(enum decision_kind kind, bool audited, const char *network, const char *action)
{
	struct decision decision = {.event = audited ? DECISION_AUDIT : DECISION_DENIED, .kind = kind, .count = 1};

	snprintf(decision.network, sizeof(decision.network), "%s", network);
	snprintf(decision.action, sizeof(decision.action), "%s", action);
	return decision;
}

static void set_rule(struct decision *decision, const struct rule *rule)
{
	if (rule)
		decision_set_rule(decision, &rule->source);
	else
		snprintf(decision->rule, sizeof(decision->rule), "default");
}

static bool has_ports(const struct flow *flow)
{
	switch (flow->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_SCTP:
	case IPPROTO_DCCP: return !flow->fragment;
	default: return false;
	}
}

/* The address that stands for the source's container in dns_path.c; family 0: it is not known. */
static struct address find_container(struct denials *denials, const struct network *network, const struct interface *interface,
				     const struct address *source)
{
	return network->subnet4.address.family ? named_asked(denials->named, network, interface, source) : *source;
}

/* Nobody in the network was told of the address: is it because the app's questions do not come to us? */
static void advise(struct denials *denials, const struct network *network, const struct interface *interface, const struct flow *flow,
		   const struct denial *denial)
{
	struct address container;

	if (denial->shown || (denial->reason != REASON_ADDRESS_NOT_ALLOWED && denial->reason != REASON_NAME_NOT_ALLOWED))
		return;
	container = find_container(denials, network, interface, &flow->source);
	dns_path_stranger(denials->dns_path, network, &flow->source, &container);
}

void denials_asked(struct denials *denials, const struct policy *policy, uint16_t id, const struct address *client)
{
	const struct network *network;
	struct address container;

	if (dns_path_is_known(denials->dns_path, id, client))
		return;
	network = policy_network(policy, id);
	if (!network)
		return;
	container = find_container(denials, network, interfaces_of_network(denials->interfaces, id), client);
	dns_path_asked(denials->dns_path, id, client, &container);
}

void denials_flow(struct denials *denials, const struct network *network, const struct interface *interface, const struct flow *flow,
		  const struct denial *denial, const char *action)
{
	struct decision line = start(DECISION_FLOW, denial->audited, network->name, denial->audited ? "allowed" : action);

	line.source = flow->source;
	line.destination = flow->destination;
	line.real = denial->real;
	line.protocol = flow->protocol;
	line.has_port = has_ports(flow);
	line.port = flow->destination_port;
	line.name = denial->name;
	line.has_sni = denial->has_sni;
	line.sni = denial->sni;
	line.reason = denial->reason;
	set_rule(&line, denial->rule);
	named_tell(denials->named, network, interface, &line, true);
	advise(denials, network, interface, flow, denial);
}

static struct rate *new_rate(struct denials *denials, uint16_t network)
{
	struct rate *rate = calloc(1, sizeof(*rate));

	if (!rate)
		return NULL;
	rate->network = network;
	HASH_ADD(hh, denials->rates, network, sizeof(rate->network), rate);
	if (rate->hh.tbl)
		return rate;
	free(rate);
	return NULL;
}

/* May one more denied question of this network have its own line in this second? */
static bool within_rate(struct denials *denials, uint16_t network)
{
	uint64_t second = uv_now(denials->loop) / 1000;
	struct rate *rate;

	HASH_FIND(hh, denials->rates, &network, sizeof(network), rate);
	if (!rate)
		rate = new_rate(denials, network);
	if (!rate)
		return false;
	if (rate->second != second) {
		rate->second = second;
		rate->lines = 0;
	}
	return rate->lines++ < DENIALS_QUESTIONS_RATE;
}

static struct summary_key summary_key(uint16_t network, bool audited, const struct address *source)
{
	struct summary_key key;

	memset(&key, 0, sizeof(key));
	key.network = network;
	key.audited = audited;
	key.source = *source;
	return key;
}

static struct summary *find_summary(const struct denials *denials, const struct summary_key *key)
{
	struct summary *summary;

	HASH_FIND(hh, denials->summaries, key, sizeof(*key), summary);
	return summary;
}

static struct summary *new_summary(struct denials *denials, const struct network *network, const struct summary_key *key)
{
	struct summary *summary = calloc(1, sizeof(*summary));

	if (!summary)
		return NULL;
	summary->key = *key;
	memcpy(summary->network, network->name, sizeof(summary->network));
	HASH_ADD(hh, denials->summaries, key, sizeof(summary->key), summary);
	if (summary->hh.tbl)
		return summary;
	free(summary);
	return NULL;
}

/* The source's own summary, while there is room for one. */
static struct summary *source_summary(struct denials *denials, const struct network *network, const struct interface *interface,
				      const struct summary_key *key)
{
	struct summary *summary = find_summary(denials, key);

	if (summary || HASH_COUNT(denials->summaries) >= SOURCES_MAX)
		return summary;
	summary = new_summary(denials, network, key);
	if (summary) {
		summary->subnet = network->subnet4;
		summary->asked = named_asked(denials->named, network, interface, &key->source);
	}
	return summary;
}

/* Count a question that gets no line of its own. */
static void count_question(struct denials *denials, const struct network *network, const struct interface *interface,
			   const struct denied_question *question)
{
	struct summary_key own = summary_key(network->id, question->audited, &question->client);
	struct summary_key shared = summary_key(network->id, question->audited, &(struct address){0});
	struct summary *summary = source_summary(denials, network, interface, &own);

	if (!summary)
		summary = find_summary(denials, &shared);
	if (!summary)
		summary = new_summary(denials, network, &shared);
	if (summary)
		summary->count++;
	else
		denials->unattributed++;
}

void denials_question(struct denials *denials, const struct network *network, const struct interface *interface,
		      const struct denied_question *question)
{
	uint64_t now = uv_now(denials->loop), key = repeats_key(question);
	struct decision line;

	if (repeats_contains(denials->repeats, key, now) || !within_rate(denials, network->id)) {
		count_question(denials, network, interface, question);
		return;
	}
	repeats_remember(denials->repeats, key, now);
	line = start(DECISION_QUESTION, question->audited, network->name, question->audited ? "allowed" : question->action);
	line.source = question->client;
	if (question->name)
		line.name = *question->name;
	line.type = question->type;
	line.reason = question->reason;
	set_rule(&line, question->rule);
	named_tell(denials->named, network, interface, &line, true);
}

void denials_counted(struct denials *denials, const struct network *network, const struct address *source, enum reason reason,
		     uint64_t packets)
{
	/* Repeats get the answer that their flow got; everything else the kernel drops without one. */
	struct decision line = start(DECISION_SUMMARY, false, network ? network->name : "",
				     reason == REASON_REPEATED || reason == REASON_TOO_MANY_FLOWS ? "rejected" : "dropped");

	line.what = WHAT_PACKETS;
	if (source)
		line.source = *source;
	line.reason = reason;
	line.count = packets;
	named_tell(denials->named, network, network ? interfaces_of_network(denials->interfaces, network->id) : NULL, &line, true);
}

static void write_summary_of(struct denials *denials, const struct summary *summary)
{
	bool audited = summary->key.audited;
	struct decision line = start(DECISION_SUMMARY, audited, summary->network, audited ? "allowed" : "answered");

	line.what = WHAT_QUESTIONS;
	line.source = summary->key.source;
	line.reason = REASON_REPEATED;
	line.count = summary->count;
	named_tell_asked(denials->named, &summary->subnet, &summary->asked, &line, true);
}

static void write_unattributed(struct denials *denials)
{
	struct decision line = start(DECISION_SUMMARY, false, "", "answered");

	line.what = WHAT_QUESTIONS;
	line.reason = REASON_REPEATED;
	line.count = denials->unattributed;
	named_tell(denials->named, NULL, NULL, &line, true);
	denials->unattributed = 0;
}

static void write_summaries(struct denials *denials)
{
	struct summary *summary, *next;

	HASH_ITER (hh, denials->summaries, summary, next) {
		write_summary_of(denials, summary);
		HASH_DEL(denials->summaries, summary);
		free(summary);
	}
	if (denials->unattributed > 0)
		write_unattributed(denials);
}

static void forget_rates(struct denials *denials, uint64_t before)
{
	struct rate *rate, *next;

	HASH_ITER (hh, denials->rates, rate, next) {
		if (rate->second < before) {
			HASH_DEL(denials->rates, rate);
			free(rate);
		}
	}
}

static void on_summary(uv_timer_t *timer)
{
	struct denials *denials = timer->data;
	uint64_t second = uv_now(denials->loop) / 1000;

	if (denials->closing)
		return;
	write_summaries(denials);
	if (second > RATE_FORGET_S)
		forget_rates(denials, second - RATE_FORGET_S);
}

static void free_denials(uv_handle_t *handle)
{
	struct denials *denials = handle->data;

	repeats_free(denials->repeats);
	dns_path_free(denials->dns_path);
	free(denials);
}

struct denials *denials_new(uv_loop_t *loop, struct log *log, struct named *named, struct interfaces *interfaces, bool restarted)
{
	struct denials *denials = calloc(1, sizeof(*denials));

	if (!denials)
		return NULL;
	denials->loop = loop;
	denials->named = named;
	denials->interfaces = interfaces;
	denials->timer.data = denials;
	denials->repeats = repeats_new();
	denials->dns_path = dns_path_new(log, named_apps(named), restarted);
	if (!denials->repeats || !denials->dns_path || uv_timer_init(loop, &denials->timer) != 0) {
		free_denials((uv_handle_t *)&denials->timer);
		return NULL;
	}
	uv_timer_start(&denials->timer, on_summary, DENIALS_SUMMARY_MS, DENIALS_SUMMARY_MS);
	return denials;
}

void denials_close(struct denials *denials)
{
	if (!denials || denials->closing)
		return;
	denials->closing = true;
	write_summaries(denials);
	forget_rates(denials, UINT64_MAX);
	uv_close((uv_handle_t *)&denials->timer, free_denials);
}

json_t *denials_strangers(const struct denials *denials)
{
	return dns_path_strangers(denials->dns_path);
}
