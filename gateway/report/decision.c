/* SPDX-License-Identifier: MIT */
#include "gateway/report/decision.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "resolver/message.h"

static const char *const event_names[] = {
	[DECISION_DENIED] = "denied", [DECISION_AUDIT] = "audit",     [DECISION_ALLOWED] = "allowed",
	[DECISION_ENDED] = "ended",   [DECISION_INBOUND] = "inbound",
};
_Static_assert(sizeof(event_names) / sizeof(event_names[0]) == DECISION_EVENTS, "one name for each event");

const char *decision_event_name(enum decision_event event)
{
	return event_names[event];
}

const struct domain *decision_subject(const struct decision *decision)
{
	return decision->has_sni && decision->sni.length ? &decision->sni : &decision->name;
}

const char *decision_protocol_name(uint8_t protocol, char out[static 8])
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

/* Most decisions have a rule, and printf() takes long: a good part of what an allowed flow costs. */
void decision_set_rule(struct decision *decision, const struct source *source)
{
	char digits[12];
	size_t first = sizeof(digits), room, length;
	unsigned int line = source->line;

	do
		digits[--first] = (char)('0' + line % 10);
	while ((line /= 10) > 0);
	digits[--first] = ':';
	room = sizeof(decision->rule) - 1 - (sizeof(digits) - first);
	length = strnlen(source->file, room);
	memcpy(decision->rule, source->file, length);
	memcpy(decision->rule + length, digits + first, sizeof(digits) - first);
	decision->rule[length + sizeof(digits) - first] = '\0';
}

bool decision_is_refusal(const struct decision *decision)
{
	return decision->event == DECISION_DENIED || decision->event == DECISION_AUDIT;
}

void decision_add_traffic(struct traffic *to, const struct traffic *more)
{
	to->bytes_out += more->bytes_out;
	to->bytes_in += more->bytes_in;
	to->packets_out += more->packets_out;
	to->packets_in += more->packets_in;
}

static void write_traffic(struct log_line *out, const struct traffic *traffic)
{
	log_number(out, "bytes_out", traffic->bytes_out);
	log_number(out, "bytes_in", traffic->bytes_in);
	log_number(out, "packets_out", traffic->packets_out);
	log_number(out, "packets_in", traffic->packets_in);
}

static void write_destination(struct log_line *out, const struct decision *decision)
{
	char text[DOMAIN_TEXT_MAX], protocol[8];

	log_address(out, "dst", &decision->destination);
	if (decision->has_port)
		log_number(out, "port", decision->port);
	else
		log_text(out, "port", NULL);
	log_text(out, "proto", decision_protocol_name(decision->protocol, protocol));
	if (decision->event == DECISION_INBOUND) {
		log_number(out, "published", decision->published);
		return;
	}
	log_text(out, "name", decision->name.length ? domain_format(&decision->name, text) : NULL);
	if (decision->real.family)
		log_address(out, "real", &decision->real);
	if (decision->has_sni)
		log_text(out, "sni", decision->sni.length ? domain_format(&decision->sni, text) : NULL);
}

static void write_flow(struct log_line *out, const struct decision *decision)
{
	write_destination(out, decision);
	if (decision_is_refusal(decision))
		log_text(out, "reason", reason_name(decision->reason));
	log_text(out, "rule", decision->rule);
	if (decision->event != DECISION_ENDED)
		return;
	write_traffic(out, &decision->traffic);
	if (decision->has_duration)
		log_number(out, "duration", decision->duration);
	else
		log_text(out, "duration", NULL);
}

static void write_question(struct log_line *out, const struct decision *decision)
{
	char text[DOMAIN_TEXT_MAX], type[16];

	log_text(out, "qname", decision->name.length ? domain_format(&decision->name, text) : NULL);
	log_text(out, "qtype", decision->name.length ? message_type_name(decision->type, type) : NULL);
	log_text(out, "reason", reason_name(decision->reason));
	log_text(out, "rule", decision->rule);
}

static void write_summary(struct log_line *out, const struct decision *decision)
{
	log_text(out, "what", decision->what);
	if (decision_is_refusal(decision))
		log_text(out, "reason", reason_name(decision->reason));
	if (decision->destination.family || decision->name.length)
		write_destination(out, decision);
	if (decision->has_traffic)
		write_traffic(out, &decision->traffic);
}

void decision_write(struct log *log, const struct decision *decision)
{
	struct log_line *out = log_event(log, decision_event_name(decision->event));

	log_text(out, "network", decision->network);
	log_address(out, "src", &decision->source);
	log_text(out, "app", decision->app);
	switch (decision->kind) {
	case DECISION_FLOW: write_flow(out, decision); break;
	case DECISION_QUESTION: write_question(out, decision); break;
	case DECISION_SUMMARY: write_summary(out, decision); break;
	}
	log_text(out, "action", decision->action);
	log_number(out, "count", decision->count);
	log_end(out);
}
