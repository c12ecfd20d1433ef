/* SPDX-License-Identifier: MIT */
/*
 * From decisions to log lines.
 *
 * Theory of operation
 *
 * A decision is copied into a struct denial_line, which waits for the name of the container (apps.c: at most APPS_TIMEOUT_MS, often no time
 * at all) and is then written; when DENIALS_WAITING_MAX lines wait, further ones are written without a name. Nothing points into the
 * policy, which a reload may replace.
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
#include "gateway/neighbours.h"
#include "gateway/repeats.h"

#define SOURCES_MAX    4096 /* sources with a summary of their own */
#define RATE_FORGET_S  60   /* a network without denied questions for so long needs no entry */
#define RULE_TEXT_MAX  512  /* bytes of FILE:LINE */
#define ACTION_MAX     24
#define WHAT_QUESTIONS "questions"
#define WHAT_PACKETS   "packets"

enum line_kind { LINE_FLOW, LINE_QUESTION, LINE_SUMMARY };

/* One line on its way to the log. */
struct denial_line {
	struct denials *denials;
	enum line_kind kind;
	bool audited;
	char network[POLICY_NAME_MAX + 1];
	struct address source, destination;
	struct address real; /* LINE_FLOW: family 0: none */
	bool has_port;
	uint16_t port;
	uint8_t protocol;
	uint16_t type;      /* LINE_QUESTION */
	struct domain name; /* length 0: none known */
	enum reason reason;
	char rule[RULE_TEXT_MAX];
	const char *what; /* LINE_SUMMARY: static text */
	char action[ACTION_MAX];
	uint64_t count;
};

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
	struct log *log;
	struct interfaces *interfaces;
	struct apps *apps;             /* owned */
	struct neighbours *neighbours; /* owned */
	struct repeats *repeats;       /* owned */
	struct dns_path *dns_path;     /* owned */
	uv_timer_t timer;
	struct summary *summaries; /* owned, hash */
	struct rate *rates;        /* owned, hash */
	size_t waiting;
	uint64_t unattributed; /* questions for which there was no memory */
	bool closing;
};

static const char *protocol_name(uint8_t protocol, char out[static 8])
{
	static const struct {
		uint8_t protocol;
		const char *name;
	} names[] = {
		{IPPROTO_TCP, "tcp"},         {IPPROTO_UDP, "udp"},   {IPPROTO_ICMP, "icmp"}, {IPPROTO_ICMPV6, "icmpv6"},
		{IPPROTO_SCTP, "sctp"},       {IPPROTO_DCCP, "dccp"}, {IPPROTO_GRE, "gre"},   {IPPROTO_ESP, "esp"},
		{IPPROTO_AH, "ah"},           {IPPROTO_IGMP, "igmp"}, {IPPROTO_IPIP, "ipip"}, {IPPROTO_IPV6, "ipv6"},
		{IPPROTO_UDPLITE, "udplite"},
	};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (names[i].protocol == protocol)
			return names[i].name;
	}
	snprintf(out, 8, "%u", protocol);
	return out;
}

static void write_flow(struct log_line *out, const struct denial_line *line)
{
	char text[DOMAIN_TEXT_MAX], protocol[8];

	log_address(out, "dst", &line->destination);
	if (line->has_port)
		log_number(out, "port", line->port);
	else
		log_text(out, "port", NULL);
	log_text(out, "proto", protocol_name(line->protocol, protocol));
	log_text(out, "name", line->name.length ? domain_format(&line->name, text) : NULL);
	if (line->real.family)
		log_address(out, "real", &line->real);
	log_text(out, "reason", reason_name(line->reason));
	log_text(out, "rule", line->rule);
}

static void write_question(struct log_line *out, const struct denial_line *line)
{
	char text[DOMAIN_TEXT_MAX], type[16];

	log_text(out, "qname", line->name.length ? domain_format(&line->name, text) : NULL);
	log_text(out, "qtype", line->name.length ? message_type_name(line->type, type) : NULL);
	log_text(out, "reason", reason_name(line->reason));
	log_text(out, "rule", line->rule);
}

static void write_summary(struct log_line *out, const struct denial_line *line)
{
	log_text(out, "what", line->what);
	log_text(out, "reason", reason_name(line->reason));
}

static void write_line(const struct denial_line *line, const char *app)
{
	struct log_line *out = log_event(line->denials->log, line->audited ? "audit" : "denied");

	log_text(out, "network", line->network);
	log_address(out, "src", &line->source);
	log_text(out, "app", app);
	switch (line->kind) {
	case LINE_FLOW: write_flow(out, line); break;
	case LINE_QUESTION: write_question(out, line); break;
	case LINE_SUMMARY: write_summary(out, line); break;
	}
	log_text(out, "action", line->action);
	log_number(out, "count", line->count);
	log_end(out);
}

static void on_app(void *context, const char *name)
{
	struct denial_line *line = context;

	write_line(line, name);
	line->denials->waiting--;
	free(line);
}

/* Write the line, as soon as it is known which container @asked is. */
static void submit(const struct denial_line *line, const struct prefix *subnet, const struct address *asked)
{
	struct denials *denials = line->denials;
	struct denial_line *waiting = NULL;

	if (asked->family && denials->waiting < DENIALS_WAITING_MAX)
		waiting = malloc(sizeof(*waiting));
	if (!waiting) {
		write_line(line, "");
		return;
	}
	*waiting = *line;
	denials->waiting++;
	apps_lookup(denials->apps, subnet, asked, on_app, waiting);
}

/* The address that Docker's resolver knows the source by; family 0: there is none. */
static struct address find_asked(struct denials *denials, const struct network *network, const struct interface *interface,
				 const struct address *source)
{
	struct address asked = {0};

	if (!network || !network->subnet4.address.family)
		return asked;
	if (source->family == AF_INET)
		asked = *source;
	else if (source->family == AF_INET6 && interface)
		(void)neighbours_find4(denials->neighbours, interface->index, source, uv_now(denials->loop), &asked);
	if (!prefix_contains(&network->subnet4, &asked))
		asked.family = 0;
	return asked;
}

static void submit_for(struct denials *denials, const struct network *network, const struct interface *interface,
		       const struct denial_line *line)
{
	/* No neighbour table is read for a line that cannot wait anyway. */
	struct address asked = {0};

	if (denials->waiting < DENIALS_WAITING_MAX)
		asked = find_asked(denials, network, interface, &line->source);
	submit(line, network ? &network->subnet4 : &(struct prefix){0}, &asked);
}

static struct denial_line start_line(struct denials *denials, enum line_kind kind, const char *network, const char *action)
{
	struct denial_line line = {.denials = denials, .kind = kind, .count = 1};

	snprintf(line.network, sizeof(line.network), "%s", network);
	snprintf(line.action, sizeof(line.action), "%s", action);
	return line;
}

static void set_rule(struct denial_line *line, const struct rule *rule)
{
	if (rule)
		snprintf(line->rule, sizeof(line->rule), "%s:%u", rule->source.file, rule->source.line);
	else
		snprintf(line->rule, sizeof(line->rule), "default");
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
	return network->subnet4.address.family ? find_asked(denials, network, interface, source) : *source;
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
	struct denial_line line = start_line(denials, LINE_FLOW, network->name, denial->audited ? "allowed" : action);

	line.audited = denial->audited;
	line.source = flow->source;
	line.destination = flow->destination;
	line.real = denial->real;
	line.protocol = flow->protocol;
	line.has_port = has_ports(flow);
	line.port = flow->destination_port;
	line.name = denial->name;
	line.reason = denial->reason;
	set_rule(&line, denial->rule);
	submit_for(denials, network, interface, &line);
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
		summary->asked = find_asked(denials, network, interface, &key->source);
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
	struct denial_line line;

	if (repeats_contains(denials->repeats, key, now) || !within_rate(denials, network->id)) {
		count_question(denials, network, interface, question);
		return;
	}
	repeats_remember(denials->repeats, key, now);
	line = start_line(denials, LINE_QUESTION, network->name, question->audited ? "allowed" : question->action);
	line.audited = question->audited;
	line.source = question->client;
	if (question->name)
		line.name = *question->name;
	line.type = question->type;
	line.reason = question->reason;
	set_rule(&line, question->rule);
	submit_for(denials, network, interface, &line);
}

void denials_counted(struct denials *denials, const struct network *network, const struct address *source, enum reason reason,
		     uint64_t packets)
{
	/* Repeats get the answer that their flow got; everything else the kernel drops without one. */
	struct denial_line line =
		start_line(denials, LINE_SUMMARY, network ? network->name : "", reason == REASON_REPEATED ? "rejected" : "dropped");

	line.what = WHAT_PACKETS;
	if (source)
		line.source = *source;
	line.reason = reason;
	line.count = packets;
	submit_for(denials, network, network ? interfaces_of_network(denials->interfaces, network->id) : NULL, &line);
}

static void write_summary_of(struct denials *denials, const struct summary *summary)
{
	bool audited = summary->key.audited;
	struct denial_line line = start_line(denials, LINE_SUMMARY, summary->network, audited ? "allowed" : "answered");

	line.audited = audited;
	line.what = WHAT_QUESTIONS;
	line.source = summary->key.source;
	line.reason = REASON_REPEATED;
	line.count = summary->count;
	submit(&line, &summary->subnet, &summary->asked);
}

static void write_unattributed(struct denials *denials)
{
	struct denial_line line = start_line(denials, LINE_SUMMARY, "", "answered");

	line.what = WHAT_QUESTIONS;
	line.reason = REASON_REPEATED;
	line.count = denials->unattributed;
	write_line(&line, "");
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

	neighbours_free(denials->neighbours);
	repeats_free(denials->repeats);
	dns_path_free(denials->dns_path);
	free(denials);
}

struct denials *denials_new(uv_loop_t *loop, struct log *log, struct interfaces *interfaces, bool restarted)
{
	const struct apps_options options = {0};
	struct denials *denials = calloc(1, sizeof(*denials));

	if (!denials)
		return NULL;
	denials->loop = loop;
	denials->log = log;
	denials->interfaces = interfaces;
	denials->timer.data = denials;
	denials->apps = apps_new(loop, &options);
	denials->neighbours = neighbours_new(&interfaces->requests);
	denials->repeats = repeats_new();
	denials->dns_path = dns_path_new(log, denials->apps, restarted);
	if (!denials->apps || !denials->neighbours || !denials->repeats || !denials->dns_path ||
	    uv_timer_init(loop, &denials->timer) != 0) {
		apps_close(denials->apps);
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
	/* All that waits is written now; apps_close() calls back for every line. */
	write_summaries(denials);
	apps_close(denials->apps);
	forget_rates(denials, UINT64_MAX);
	uv_close((uv_handle_t *)&denials->timer, free_denials);
}
