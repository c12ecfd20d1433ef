/* SPDX-License-Identifier: MIT */
/* What happens while traffic flows: grants for answers, denials for questions and packets, counters. */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <linux/netfilter.h>

#include "gateway/classify.h"
#include "gateway/gateway.h"
#include "resolver/acceptor.h"

/* A journal that cannot be written costs names and leases only when the worker dies as well: say so now and then, and go on. */
static void journal_say(struct gateway *gateway, int rc)
{
	uint64_t now = gateway_now(gateway);

	if (rc == 0 || (gateway->journal_said_at != 0 && now - gateway->journal_said_at < GATEWAY_JOURNAL_SAY_MS))
		return;
	gateway->journal_said_at = now;
	log_say(gateway->log, LOG_ERROR, "leases cannot be kept for a restart: %s", strerror(-rc));
}

static int write_grants(void *context, const struct grant *grants, size_t count)
{
	struct gateway *gateway = context;
	int rc = virtual_write(gateway);

	if (rc != 0)
		gateway->grants.error = rc;
	else
		rc = grants_write(&gateway->grants, gateway->policy, grants, count, gateway_now(gateway));
	if (rc == 0 && gateway->grants.changed_count > 0)
		traffic_keep(gateway, gateway->grants.changed, gateway->grants.changed_count);
	return rc;
}

void traffic_keep(struct gateway *gateway, const struct lease *leases, size_t count)
{
	journal_say(gateway, journal_append(&gateway->journal, gateway->policy, leases, count, gateway_now(gateway)));
}

void traffic_keep_mappings(struct gateway *gateway, const struct mapping *mappings, size_t count)
{
	journal_say(gateway, journal_append_mappings(&gateway->journal, gateway->policy, mappings, count, gateway_now(gateway)));
}

static void question_came(void *context, uint16_t network, const struct address *client)
{
	struct gateway *gateway = context;

	denials_asked(gateway->denials, gateway->policy, network, client);
}

static void question_denied(void *context, const struct denied_question *question)
{
	struct gateway *gateway = context;
	const struct network *network = policy_network(gateway->policy, question->network);

	if (network != NULL)
		denials_question(gateway->denials, network, interfaces_of_network(&gateway->interfaces, network->id), question);
}

/* A family is of use when the network has it and packets of it find a way out. */
static struct families usable_families(void *context, const struct network *network)
{
	const struct gateway *gateway = context;

	return (struct families){
		.ipv4 = network->subnet4.address.family != 0 && gateway->interfaces.route4,
		.ipv6 = network->subnet6.address.family != 0 && gateway->interfaces.route6,
	};
}

static size_t names_of(void *context, uint16_t network, const struct address *address, struct domain *out, size_t max)
{
	const struct gateway *gateway = context;
	const struct mapping *mapping = mapping_find(gateway->virtuals.table, network, address);

	if (mapping == NULL)
		return lease_names(gateway->leases, network, address, gateway_now(gateway), out, max);
	out[0] = mapping->name;
	return 1;
}

static void say_upstream(void *context, bool trouble, const char *text)
{
	const struct gateway *gateway = context;

	log_say(gateway->log, trouble ? LOG_WARNING : LOG_INFO, "upstream %s", text);
}

struct resolver_host traffic_host(struct gateway *gateway)
{
	return (struct resolver_host){
		.context = gateway,
		.grant = write_grants,
		.map = virtual_map,
		.asked = question_came,
		.denied = question_denied,
		.upstream_says = say_upstream,
		.families = usable_families,
		.names = names_of,
		.port = 53,
		.redirect_port = RULESET_REDIRECT_PORT,
	};
}

static const char *action_of(const struct flow *flow)
{
	if (flow->protocol != IPPROTO_TCP)
		return "unreachable";
	/* RST is never answered with RST. */
	return (flow->tcp_flags & TH_RST) != 0 ? "dropped" : "reset";
}

/* Its lease has ended, and its name may still be asked: the answer may make another. An RST is no flow. */
static bool may_have_chance(const struct denial *denial, const struct flow *flow)
{
	return denial->reason == REASON_LEASE_EXPIRED && (flow->protocol != IPPROTO_TCP || (flow->tcp_flags & TH_RST) == 0);
}

/* Where a virtual address leads; family 0: nowhere. */
static struct address real_address(const struct gateway *gateway, const struct network *network, const struct address *address)
{
	const struct mapping *mapping = mapping_find(gateway->virtuals.table, network->id, address);

	return mapping != NULL ? mapping->real : (struct address){.family = 0};
}

/* @chance: the packet may be held, once. */
static uint32_t decide(struct gateway *gateway, const struct queued_packet *packet, const struct flow *flow, bool parsed, bool chance)
{
	const struct interface *interface = interfaces_by_index(&gateway->interfaces, packet->in_interface);
	const struct network *network = interface != NULL ? policy_network(gateway->policy, interface->network) : NULL;
	bool local = packet->hook == NF_INET_LOCAL_IN;
	struct denial denial;
	bool in_pool;

	/* Its interface or network has just gone. */
	if (network == NULL) {
		denials_counted(gateway->denials, NULL, NULL, REASON_ISOLATED, 1);
		return 0;
	}
	in_pool = parsed && policy_in_pool(network, &flow->destination);
	if (in_pool)
		virtual_remember(gateway, network, &flow->destination);
	denial = classify_judge(gateway->policy, network, gateway->leases, flow, parsed, local, gateway_now(gateway), time(NULL));
	if (denial.reason == REASON_NONE && (packet->hook == NF_INET_PRE_ROUTING || packet->out_interface == gateway->interfaces.uplink))
		return RULESET_MARK_ALLOW;
	if (in_pool)
		denial.real = real_address(gateway, network, &flow->destination);
	if (chance && !local && may_have_chance(&denial, flow) && chances_take(gateway->chances, network, packet, flow))
		return NFQUEUE_HOLD;
	denials_flow(gateway->denials, network, interface, flow, &denial, denial.audited ? "allowed" : action_of(flow));
	return denial.audited ? RULESET_MARK_AUDIT : RULESET_MARK_DENY;
}

uint32_t traffic_decide(void *context, const struct queued_packet *packet)
{
	struct flow flow = {0};
	bool parsed = classify_packet(packet->payload, packet->size, &flow);

	return decide(context, packet, &flow, parsed, true);
}

void traffic_settle(struct gateway *gateway, const struct queued_packet *packet, const struct flow *flow)
{
	nfqueue_verdict(gateway->queue, packet, decide(gateway, packet, flow, true, false));
}

static void each_mapping(void *context, bool (*put)(void *put_context, const struct mapping *mapping), void *put_context)
{
	mapping_each(context, put, put_context);
}

void traffic_compact(struct gateway *gateway)
{
	journal_say(gateway, journal_compact(&gateway->journal, gateway->policy, gateway->leases, gateway_now(gateway), each_mapping,
					     gateway->virtuals.table));
}

static void report_counter(void *context, uint16_t id, const struct address *source, enum reason reason, uint64_t packets)
{
	struct gateway *gateway = context;

	denials_counted(gateway->denials, policy_network(gateway->policy, id), source, reason, packets);
}

/* One line for what has been added to a counter. */
static void say_more(struct gateway *gateway, uint64_t now, uint64_t before, const char *text)
{
	if (now > before)
		log_say(gateway->log, LOG_WARNING, "%" PRIu64 " questions %s", now - before, text);
}

static void say_not_accepted(struct gateway *gateway)
{
	struct acceptor_failures now = acceptor_failures();
	const char *cure = now.error == EMFILE   ? "no file descriptors; raise the container's `ulimits: nofile`"
			   : now.error == ENFILE ? "no file descriptors; raise the host's fs.file-max"
						 : strerror(now.error);

	if (now.count > gateway->said_not_accepted)
		log_say(gateway->log, LOG_WARNING, "new clients of DNS over TCP, of the page or of the control socket wait: %s", cure);
	gateway->said_not_accepted = now.count;
}

/* Questions that got no answer, or SERVFAIL, are no denials: the reasons are here, or in the network behind us. */
static void say_failures(struct gateway *gateway)
{
	const struct resolver_counters *now = resolver_counters(gateway->resolver), *said = &gateway->said;
	char text[160], source[ADDRESS_TEXT_MAX];

	if (!gateway->stopping && gateway_now(gateway) - gateway->said_at < GATEWAY_FAILURES_MS)
		return;
	snprintf(text, sizeof(text), "were answered SERVFAIL: their addresses could not be granted (%s)", strerror(-gateway->grants.error));
	say_more(gateway, now->ungranted, said->ungranted, text);
	say_more(gateway, now->unmapped, said->unmapped, "were answered SERVFAIL: there was no virtual address for their names");
	(void)address_format(&now->overloaded_by, source);
	snprintf(text, sizeof(text), "were answered SERVFAIL: too many in progress, the last one of %s", source);
	say_more(gateway, now->overloaded, said->overloaded, text);
	say_more(gateway, now->unanswered, said->unanswered, "were answered SERVFAIL: no upstream server had an answer");
	say_more(gateway, now->stale, said->stale, "were answered with addresses past their TTL: no upstream server had an answer");
	say_more(gateway, now->dropped, said->dropped, "were not answered: too long, or their app was gone or did not take the answer");
	(void)address_format(&now->crowded_by, source);
	snprintf(text, sizeof(text), "were not answered: they came faster than they could be served, most of them from %s", source);
	say_more(gateway, now->crowded, said->crowded, text);
	say_more(gateway, now->invalid, said->invalid, "were not answered: they were no questions");
	say_not_accepted(gateway);
	gateway->said = *now;
	gateway->said_at = gateway_now(gateway);
}

void traffic_count(struct gateway *gateway)
{
	uint64_t dropped;
	int rc = counters_read(gateway->counters, &gateway->ruleset, gateway->policy, report_counter, gateway);

	if (rc != 0)
		log_say(gateway->log, LOG_WARNING, "the kernel's counters cannot be read: %s", strerror(-rc));
	rc = counters_save(gateway->counters, gateway->start.memories[MEMORY_READINGS]);
	if (rc != 0)
		log_say(gateway->log, LOG_WARNING, "the kernel's counters cannot be kept for a restart: %s", strerror(-rc));
	rc = inbound_count(gateway->inbound, &gateway->ruleset, gateway->stopping);
	if (rc != 0)
		log_say(gateway->log, LOG_WARNING, "inbound flows cannot be counted: %s", strerror(-rc));
	rc = allowed_count(gateway->allowed, &gateway->ruleset, gateway->stopping);
	if (rc != 0)
		log_say(gateway->log, LOG_WARNING, "allowed flows cannot be counted: %s", strerror(-rc));
	say_failures(gateway);
	if (gateway->queue == NULL || nfqueue_dropped(gateway->queue, &dropped) != 0)
		return;
	if (dropped > gateway->queue_dropped)
		denials_counted(gateway->denials, NULL, NULL, REASON_QUEUE_FULL, dropped - gateway->queue_dropped);
	gateway->queue_dropped = dropped;
}
