/* SPDX-License-Identifier: MIT */
/*
 * Names inside flows.
 *
 * Theory of operation
 *
 * The kernel lets the handshake of an allowed TCP flow pass and sends us, in a queue of its own, what the app sends then, and the datagrams
 * of an allowed UDP flow, until we say that the flow is verified (ruleset_verify.c). A packet that carries nothing passes; others are held
 * until it is known which host the flow asks for (readings.c). Then the policy is asked about that name, on the flow's port.
 *
 * Verified: all that is held goes on. With TCP we then see the server's packets as well, until one says that it has what was read; until
 * then the client cannot say anything else in its place. After that the kernel does not ask again. Of held datagrams only the first can go
 * on as it is: it makes the flow known to conntrack; the others were tracked before that and would be translated otherwise, so they are
 * sent once more (transparent.c).
 *
 * Denied: nothing that is held goes on. The app is refused by the kernel as any other flow (RST, ICMP), the server gets an RST from us.
 *
 * QUIC: later packets with a long header come here too, since a second connection could begin among them. What cannot be the first packet
 * of one passes.
 */
#include "gateway/verify/verify.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <linux/netfilter.h>

#include "gateway/bucket.h"
#include "gateway/gateway.h"
#include "gateway/verify/readings.h"
#include "gateway/verify/transparent.h"

/* How many lines a network has left. */
struct pace {
	uint16_t network;
	struct bucket bucket;
};

/* The kernel's queues, by what is known of the flows whose packets are in them. */
static const struct {
	uint16_t number;
	enum reading_flow known;
	bool split; /* the parts of an unread flow's first packet would not be taken back */
} kinds[] = {
	{RULESET_QUEUE_VERIFY, READING_FLOW_NEW, false},
	{RULESET_QUEUE_BEGUN, READING_FLOW_UNREAD, false},
	{RULESET_QUEUE_AGAIN, READING_FLOW_VERIFIED, true},
};

#define QUEUES (sizeof(kinds) / sizeof(kinds[0]))

struct verify_queue {
	struct verify *verify;
	struct nfqueue *queue; /* owned */
	unsigned int kind;
};

struct verify {
	struct gateway *gateway;
	struct verify_queue queues[QUEUES]; /* by kind */
	struct readings *readings;          /* owned */
	uv_timer_t timer;
	struct pace *paces; /* owned */
	size_t pace_count;
	bool closing;
};

/* What becomes of a flow. */
struct outcome {
	bool passes;
	enum reason reason; /* REASON_NONE: it is as it should be */
	const struct rule *rule;
	struct domain asked; /* length 0: nothing */
};

size_t verify_reading(const struct verify *verify)
{
	return readings_count(verify->readings);
}

static bool may_say(struct verify *verify, uint16_t network)
{
	uint64_t now = gateway_now(verify->gateway);
	struct pace *list;

	for (size_t i = 0; i < verify->pace_count; i++) {
		if (verify->paces[i].network == network)
			return bucket_take(&verify->paces[i].bucket, now, VERIFY_LINES_MS, VERIFY_LINES_BURST);
	}
	list = reallocarray(verify->paces, verify->pace_count + 1, sizeof(*list));
	if (list == NULL)
		return false;
	verify->paces = list;
	list[verify->pace_count++] = (struct pace){.network = network};
	return bucket_take(&list[verify->pace_count - 1].bucket, now, VERIFY_LINES_MS, VERIFY_LINES_BURST);
}

static struct outcome judge_name(const struct network *network, const struct flow *flow, const struct domain *name)
{
	struct name_verdict verdict = policy_judge_name(network, name, time(NULL));
	bool allowed = verdict.allowed && !verdict.audited;
	struct outcome outcome = {.passes = true, .rule = verdict.rule, .asked = *name};

	if (!allowed || !(verdict.specs & policy_specs_on(network, flow->protocol, flow->destination_port))) {
		outcome.passes = false;
		outcome.reason = REASON_SNI_MISMATCH;
	}
	return outcome;
}

static struct outcome judge(const struct network *network, const struct reading *reading)
{
	const struct domain *name;

	switch (reading_result(reading, &name)) {
	case INSPECT_NAME: return judge_name(network, reading_flow(reading), name);
	case INSPECT_NO_NAME:
	case INSPECT_OTHER:
		if (network->without_name_allowed)
			return (struct outcome){.passes = true};
		return (struct outcome){.reason = REASON_NO_NAME};
	case INSPECT_MORE:
	case INSPECT_BROKEN: break;
	}
	return (struct outcome){.reason = REASON_MALFORMED};
}

/* Which name the address was given out for. */
static void find_name(const struct gateway *gateway, const struct network *network, const struct flow *flow, struct denial *denial)
{
	const struct mapping *mapping = mapping_find(gateway->virtuals.table, network->id, &flow->destination);
	const struct lease *lease = lease_find(gateway->leases, network->id, &flow->destination);

	denial->shown = true;
	if (mapping != NULL) {
		denial->name = mapping->name;
		denial->real = mapping->real;
	} else if (lease != NULL && lease->network == network->id) {
		denial->name = lease->name;
	}
}

/* @audited: it passes nevertheless. */
static void say(struct verify *verify, const struct network *network, const struct flow *flow, const struct outcome *outcome, bool audited)
{
	struct gateway *gateway = verify->gateway;
	struct denial denial = {
		.audited = audited, .reason = outcome->reason, .rule = outcome->rule, .has_sni = true, .sni = outcome->asked};

	if (!may_say(verify, network->id)) {
		denials_counted(gateway->denials, network, &flow->source, REASON_REPEATED, 1);
		return;
	}
	find_name(gateway, network, flow, &denial);
	denials_flow(gateway->denials, network, interfaces_of_network(&gateway->interfaces, network->id), flow, &denial,
		     flow->protocol == IPPROTO_TCP ? "reset" : "unreachable");
}

/* A held packet's opening says which queue it is of as well. */
static uint32_t opening_of(const struct verify_queue *from, const struct queued_packet *packet)
{
	return packet->opening * QUEUES + from->kind;
}

static void give_verdict(struct verify *verify, const struct reading_packet *packet, uint32_t mark)
{
	const struct queued_packet queued = {.id = packet->id, .opening = packet->opening / QUEUES, .hook = NF_INET_FORWARD};

	nfqueue_verdict(verify->queues[packet->opening % QUEUES].queue, &queued, mark);
}

/* Of virtual addresses that lead to this one. */
struct search {
	const struct network *network;
	const struct address *real;
	const struct domain *name; /* that one is preferred */
	struct address found;
	bool exact;
};

static bool on_mapping(void *context, const struct mapping *mapping)
{
	struct search *search = context;

	if (mapping->network != search->network->id || !address_equal(&mapping->real, search->real) || search->exact)
		return true;
	search->exact = domain_equal(&mapping->name, search->name);
	search->found = mapping->address;
	return true;
}

/* The flow as the app has it. Where the kernel did not tell, its virtual address is looked up by where it leads. */
static struct flow as_the_app_has_it(const struct verify *verify, const struct network *network, const struct reading *reading)
{
	struct flow flow = *reading_flow(reading);
	struct search search = {.network = network, .real = &flow.destination};

	if (network == NULL || !network->has_virtual_addresses || policy_in_pool(network, &flow.destination))
		return flow;
	(void)reading_result(reading, &search.name);
	mapping_each(verify->gateway->virtuals.table, on_mapping, &search);
	if (search.found.family != 0)
		flow.destination = search.found;
	return flow;
}

static void let_pass(struct verify *verify, const struct flow *flow, struct reading *reading)
{
	const uint32_t mark = reading_has_to_agree(reading) ? RULESET_MARK_SAID : RULESET_MARK_VERIFIED;
	const struct reading_packet *packets;
	size_t count;

	packets = reading_packets(reading, &count);
	for (size_t i = 0; i < count; i++) {
		bool again = i > 0 && flow->protocol == IPPROTO_UDP && !reading_is_verified(reading);

		give_verdict(verify, &packets[i], again ? 0 : mark);
		if (again && !packets[i].several)
			(void)transparent_send(flow, packets[i].content, packets[i].content_size); /* lost like any datagram */
	}
	readings_settle(verify->readings, reading);
}

/* Without it the server waits until it gives up. It takes an RST with the one number that it waits for (RFC 5961 section 3.2). */
static void reset_server(const struct flow *flow, const struct reading *reading)
{
	uint32_t second, first = reading_next(reading, &second);

	(void)transparent_reset(flow, first);
	if (second != first)
		(void)transparent_reset(flow, second);
}

static void refuse(struct verify *verify, const struct flow *flow, struct reading *reading)
{
	const struct reading_packet *packets;
	size_t count;

	packets = reading_packets(reading, &count);
	/* One answer is enough. */
	for (size_t i = 0; i < count; i++)
		give_verdict(verify, &packets[i], i == 0 ? RULESET_MARK_DENY : 0);
	if (flow->protocol == IPPROTO_TCP)
		reset_server(flow, reading);
	readings_refuse(verify->readings, reading, gateway_now(verify->gateway));
}

/* Of a verified flow, a part of a hello that never became whole: sent once more, most likely, and the server has it already. */
static void drop(struct verify *verify, struct reading *reading)
{
	const struct reading_packet *packets;
	size_t count;

	packets = reading_packets(reading, &count);
	for (size_t i = 0; i < count; i++)
		give_verdict(verify, &packets[i], 0);
	readings_end(verify->readings, reading);
}

/* The reading is done, or its time is up. */
static void finish(struct verify *verify, struct reading *reading)
{
	const struct network *network = policy_network(verify->gateway->policy, reading_network(reading));
	const struct flow flow = as_the_app_has_it(verify, network, reading);
	struct outcome outcome = {.passes = true};
	bool only_said = true;

	/* A reload has taken the network, or `verify`, away. */
	if (network != NULL && network->verify != VERIFY_OFF) {
		only_said = network->verify == VERIFY_LOG || policy_is_auditing(network, time(NULL));
		outcome = judge(network, reading);
	}
	if (!outcome.passes)
		say(verify, network, &flow, &outcome, only_said);
	if (!outcome.passes && !only_said) {
		refuse(verify, &flow, reading);
		return;
	}
	if (!reading_is_verified(reading))
		allowed_let_out(verify->gateway->allowed, network, reading_flow(reading), outcome.passes ? &outcome.asked : NULL);
	let_pass(verify, &flow, reading);
}

static uint32_t mark_of(enum reading_step step)
{
	switch (step) {
	case READING_PASS: return RULESET_MARK_VERIFY;
	case READING_AGREED: return RULESET_MARK_VERIFIED;
	case READING_REFUSED: return RULESET_MARK_DENY;
	case READING_FULL: return 0;
	case READING_HOLD:
	case READING_DONE: break;
	}
	return NFQUEUE_HOLD;
}

static uint32_t decide_client(const struct verify_queue *from, const struct queued_packet *packet, const struct reading_origin *origin,
			      const struct network *network, struct flow *flow)
{
	const struct reading_packet held = {.id = packet->id, .opening = opening_of(from, packet), .several = packet->several};
	struct verify *verify = from->verify;
	struct reading *reading;
	enum reading_step step;

	/* Where one datagram ends and the next begins is not known: nothing may be in them that quic_read() would not look at. */
	if (packet->several && flow->protocol == IPPROTO_UDP && !quic_is_all(flow->content, flow->content_size))
		return 0;
	if (packet->has_original)
		flow->destination = packet->original;
	step = readings_take(verify->readings, origin, flow, &held, gateway_now(verify->gateway), &reading);
	if (step == READING_REFUSED)
		denials_counted(verify->gateway->denials, network, &flow->source, REASON_REPEATED, 1);
	if (step == READING_DONE)
		finish(verify, reading);
	return mark_of(step);
}

/* A server's packet, as if it were the client's. */
static uint32_t decide_server(struct verify *verify, const struct queued_packet *packet, const struct reading_origin *origin,
			      const struct flow *flow)
{
	struct flow client = *flow;

	client.source = flow->destination;
	client.source_port = flow->destination_port;
	client.destination = packet->has_original ? packet->original : flow->source;
	client.destination_port = flow->source_port;
	return mark_of(readings_answer(verify->readings, origin, &client, gateway_now(verify->gateway)));
}

static const struct network *network_at(const struct gateway *gateway, unsigned int index)
{
	const struct interface *interface = interfaces_by_index(&gateway->interfaces, index);

	return interface != NULL ? policy_network(gateway->policy, interface->network) : NULL;
}

static uint32_t decide(void *context, const struct queued_packet *packet)
{
	const struct verify_queue *from = context;
	struct gateway *gateway = from->verify->gateway;
	const struct network *client = network_at(gateway, packet->in_interface);
	const struct network *network = client != NULL ? client : network_at(gateway, packet->out_interface);
	struct reading_origin origin = {.connection = packet->mark, .known = kinds[from->kind].known};
	struct flow flow;

	/* Its network has just gone, or it is no packet that could belong to a flow. */
	if (network == NULL || !classify_packet(packet->payload, packet->size, &flow))
		return 0;
	if (network->verify == VERIFY_OFF)
		return client != NULL ? RULESET_MARK_VERIFIED : RULESET_MARK_VERIFY;
	origin.network = network->id;
	return client != NULL ? decide_client(from, packet, &origin, network, &flow) : decide_server(from->verify, packet, &origin, &flow);
}

static void on_tick(uv_timer_t *timer)
{
	struct verify *verify = timer->data;
	struct reading *reading;

	while ((reading = readings_overdue(verify->readings, gateway_now(verify->gateway))) != NULL) {
		if (reading_is_verified(reading))
			drop(verify, reading);
		else
			finish(verify, reading);
	}
}

static void free_verify(uv_handle_t *handle)
{
	struct verify *verify = handle->data;

	readings_free(verify->readings);
	free(verify->paces);
	free(verify);
}

static int open_queues(struct verify *verify)
{
	struct nfqueue_options options = {.copy = NFQUEUE_COPY_WHOLE, .held = READINGS_HELD_ALL_MAX, .original = true, .repeat = true};
	int rc = 0;

	for (unsigned int i = 0; i < QUEUES && rc == 0; i++) {
		struct verify_queue *from = &verify->queues[i];

		*from = (struct verify_queue){.verify = verify, .kind = i};
		options.split = kinds[i].split;
		rc = nfqueue_open(&verify->gateway->loop, kinds[i].number, &options, decide, from, &from->queue);
	}
	return rc;
}

int verify_new(struct gateway *gateway, struct verify **out)
{
	struct verify *verify = calloc(1, sizeof(*verify));
	int rc;

	*out = NULL;
	if (verify == NULL)
		return -ENOMEM;
	verify->gateway = gateway;
	verify->timer.data = verify;
	verify->readings = readings_new();
	rc = verify->readings != NULL ? uv_timer_init(&gateway->loop, &verify->timer) : -ENOMEM;
	if (rc != 0) {
		free_verify((uv_handle_t *)&verify->timer);
		return rc;
	}
	uv_timer_start(&verify->timer, on_tick, VERIFY_TICK_MS, VERIFY_TICK_MS);
	*out = verify;
	return open_queues(verify);
}

void verify_close(struct verify *verify)
{
	if (verify == NULL || verify->closing)
		return;
	verify->closing = true;
	for (unsigned int i = 0; i < QUEUES; i++)
		nfqueue_close(verify->queues[i].queue);
	uv_close((uv_handle_t *)&verify->timer, free_verify);
}
