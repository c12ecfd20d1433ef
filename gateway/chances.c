/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: each packet that is held has a place, and a check (resolver_check()) for every name that the address had. The packet
 * is settled when the last of its checks has ended or its time is up, whichever comes first: then it is judged once more, and by that time
 * the lease is there or is not. A check may outlive its packet; it knows which packet it was for by the packet's serial number.
 *
 * Questions for the same name are one look-up, and answers are cached, so many packets to one address cost upstream servers little.
 */
#include "gateway/chances.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gateway/gateway.h"

/* A packet that is held; free when serial is 0. */
struct held {
	uint64_t serial;
	uint64_t deadline; /* ms */
	uint16_t network;
	unsigned int checks;         /* that have not ended */
	struct queued_packet packet; /* without its bytes */
	struct flow flow;
};

struct chances {
	struct gateway *gateway;
	uv_timer_t timer; /* the earliest deadline */
	struct held held[CHANCES_MAX];
	size_t count;
	uint64_t serial;
	bool closing;
};

/* The context of one resolver_check(): released when it ends. */
struct check {
	struct chances *chances;
	size_t at;
	uint64_t serial;
};

/* The names of a packet's address. */
struct asking {
	struct chances *chances;
	const struct network *network;
	struct held *held;
};

static void on_deadline(uv_timer_t *timer);

struct chances *chances_new(struct gateway *gateway)
{
	struct chances *chances = calloc(1, sizeof(*chances));

	if (chances == NULL)
		return NULL;
	chances->gateway = gateway;
	if (uv_timer_init(&gateway->loop, &chances->timer) != 0) {
		free(chances);
		return NULL;
	}
	chances->timer.data = chances;
	return chances;
}

static void settle(struct chances *chances, struct held *held)
{
	const struct held settled = *held;

	held->serial = 0;
	chances->count--;
	traffic_settle(chances->gateway, &settled.packet, &settled.flow);
}

static void on_checked(void *context)
{
	struct check *check = context;
	struct chances *chances = check->chances;
	struct held *held = &chances->held[check->at];
	bool last = !chances->closing && held->serial == check->serial && --held->checks == 0;

	free(check);
	if (last)
		settle(chances, held);
}

static void set_timer(struct chances *chances)
{
	uint64_t now = gateway_now(chances->gateway), first = UINT64_MAX;

	for (size_t i = 0; i < CHANCES_MAX; i++) {
		if (chances->held[i].serial != 0 && chances->held[i].deadline < first)
			first = chances->held[i].deadline;
	}
	if (first != UINT64_MAX)
		uv_timer_start(&chances->timer, on_deadline, first > now ? first - now : 0, 0);
}

static void on_deadline(uv_timer_t *timer)
{
	struct chances *chances = timer->data;
	uint64_t now = gateway_now(chances->gateway);

	if (chances->closing)
		return;
	for (size_t i = 0; i < CHANCES_MAX; i++) {
		if (chances->held[i].serial != 0 && chances->held[i].deadline <= now)
			settle(chances, &chances->held[i]);
	}
	set_timer(chances);
}

static void ask(const struct asking *asking, const struct lease *lease)
{
	struct chances *chances = asking->chances;
	struct held *held = asking->held;
	uint16_t type = lease->address.family == AF_INET ? TYPE_A : TYPE_AAAA;
	struct check *check = malloc(sizeof(*check));

	if (check == NULL)
		return;
	*check = (struct check){.chances = chances, .at = (size_t)(held - chances->held), .serial = held->serial};
	mapping_touch(chances->gateway->virtuals.table, lease->network, &lease->address, gateway_now(chances->gateway));
	if (resolver_check(chances->gateway->resolver, lease->network, &lease->name, type, on_checked, check) == 0)
		held->checks++;
	else
		free(check);
}

/* Names that are allowed on the flow's port. */
static void ask_for_name(void *context, struct lease *lease)
{
	const struct asking *asking = context;
	const struct network *network = asking->network;
	const struct flow *flow = &asking->held->flow;
	struct name_verdict verdict = policy_judge_chain(network, &lease->name, &lease->chain, time(NULL), NULL);

	if (!verdict.allowed || verdict.audited)
		return;
	if (verdict.specs & policy_specs_on(network, flow->protocol, flow->destination_port))
		ask(asking, lease);
}

/* A free place, unless there are too many. */
static struct held *find_place(struct chances *chances, uint16_t network)
{
	struct held *place = NULL;
	size_t of_network = 0;

	for (size_t i = 0; i < CHANCES_MAX; i++) {
		if (chances->held[i].serial == 0)
			place = &chances->held[i];
		else if (chances->held[i].network == network)
			of_network++;
	}
	return of_network < CHANCES_NETWORK_MAX ? place : NULL;
}

bool chances_take(struct chances *chances, const struct network *network, const struct queued_packet *packet, const struct flow *flow)
{
	struct held *held = chances->closing ? NULL : find_place(chances, network->id);
	struct asking asking = {.chances = chances, .network = network, .held = held};

	if (held == NULL)
		return false;
	*held = (struct held){
		.serial = ++chances->serial,
		.deadline = gateway_now(chances->gateway) + CHANCES_MS,
		.network = network->id,
		.packet = *packet,
		.flow = *flow,
	};
	held->packet.payload = NULL;
	held->packet.size = 0;
	lease_visit(chances->gateway->leases, network->id, &flow->destination, ask_for_name, &asking);
	if (held->checks == 0) {
		held->serial = 0;
		return false;
	}
	if (chances->count++ == 0)
		set_timer(chances);
	return true;
}

static void free_chances(uv_handle_t *handle)
{
	free(handle->data);
}

void chances_close(struct chances *chances)
{
	if (chances == NULL || chances->closing)
		return;
	chances->closing = true;
	uv_close((uv_handle_t *)&chances->timer, free_chances);
}
