/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: conntrack's own list is the truth about which addresses are in use; a look at it (flows.c) is spread over turns of
 * the loop. The first flow to an address of a network that a look finds speaks for all of them.
 *
 * Leases are extended in the table at once and in the kernel when UPKEEP_EXTEND_MAX have come together or the look is over. Should the
 * kernel not take them, the next look finds the same flows.
 */
#include "gateway/upkeep.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "common/lifetime.h"
#include "gateway/gateway.h"

/* The flow that a look is at. */
struct sight {
	struct gateway *gateway;
	const struct network *network;
};

#define OFFLOAD_ENDS_MS 200 /* by then the kernel has taken a flowtable that was deleted apart */

static void look(struct gateway *gateway);
static void on_time(uv_timer_t *timer);

/* Leases may have gone since, or be others after a change of policy: what the table has now is what counts. */
static void refresh_extended(struct gateway *gateway)
{
	struct upkeep *upkeep = &gateway->upkeep;
	size_t kept = 0;

	for (size_t i = 0; i < upkeep->extended_count; i++) {
		if (lease_refresh(gateway->leases, &upkeep->extended[i]))
			upkeep->extended[kept++] = upkeep->extended[i];
	}
	upkeep->extended_count = kept;
}

static void write_extended(struct gateway *gateway)
{
	struct upkeep *upkeep = &gateway->upkeep;
	int rc;

	refresh_extended(gateway);
	if (upkeep->extended_count == 0)
		return;
	rc = grants_extend(&gateway->grants, gateway->policy, upkeep->extended, upkeep->extended_count, gateway_now(gateway));
	if (rc != 0)
		log_say(gateway->log, LOG_ERROR, "leases in use cannot be extended: %s; it is tried again in %" PRIu64 " s", strerror(-rc),
			(upkeep->period + 999) / 1000);
	else
		traffic_keep(gateway, upkeep->extended, upkeep->extended_count);
	upkeep->extended_count = 0;
}

/* As an app would ask: an answer that still shows the address is the best reason for its lease. */
static void recheck(struct gateway *gateway, const struct lease *lease)
{
	uint16_t type = lease->address.family == AF_INET ? TYPE_A : TYPE_AAAA;

	if (gateway->upkeep.rechecks >= UPKEEP_RECHECK_MAX)
		return;
	/* Too many questions in progress: the next look asks. */
	if (resolver_check(gateway->resolver, lease->network, &lease->name, type, NULL, NULL) == 0)
		gateway->upkeep.rechecks++;
}

static void keep_lease(void *context, struct lease *lease)
{
	const struct sight *sight = context;
	struct upkeep *upkeep = &sight->gateway->upkeep;
	const struct lifetimes *lifetimes = &sight->network->lifetimes;
	uint64_t until = lifetime_used(lifetimes, lease->shown, lease->until, upkeep->now, upkeep->period);

	if (lease->specs == 0 || lease->until <= upkeep->now)
		return;
	if (lifetime_is_to_recheck(lifetimes, lease->shown, upkeep->now))
		recheck(sight->gateway, lease);
	if (until == lease->until)
		return;
	lease->until = until;
	upkeep->extended[upkeep->extended_count++] = *lease;
}

static void keep_leases(struct gateway *gateway, const struct network *network, const struct address *address)
{
	struct sight sight = {.gateway = gateway, .network = network};

	if (!lease_touch(gateway->leases, network->id, address, gateway->upkeep.now))
		return;
	if (gateway->upkeep.extended_count + LEASE_VISIT_MAX > UPKEEP_EXTEND_MAX)
		write_extended(gateway);
	lease_visit(gateway->leases, network->id, address, keep_lease, &sight);
}

/* Do leases, live or ended, cover the flow's port? A flow outlives its lease; what ends it is a policy that does not allow the name. */
static bool is_of_allowed_name(const struct gateway *gateway, const struct network *network, const struct flow *flow)
{
	uint64_t specs = lease_specs(gateway->leases, network->id, &flow->destination);

	return (specs & policy_specs_on(network, flow->protocol, flow->destination_port)) != 0;
}

static bool is_denied_address(const struct gateway *gateway, const struct network *network, const struct flow *flow)
{
	struct address_verdict verdict =
		policy_judge_address(gateway->policy, network, &flow->destination, flow->protocol, flow->destination_port);

	return verdict.reason == REASON_DENIED_BY_RULE;
}

/* Where the name is read that a flow asks for, that one has to be allowed as well. */
static bool asks_for_what_is_denied(const struct gateway *gateway, const struct network *network, const struct flow *flow)
{
	struct name_verdict verdict;
	struct domain name;

	if (network->verify != VERIFY_ENFORCE || policy_is_auditing(network, time(NULL)) ||
	    !allowed_asked_for(gateway->allowed, network, flow, &name))
		return false;
	verdict = policy_judge_name(network, &name, time(NULL));
	return !verdict.allowed || !(verdict.specs & policy_specs_on(network, flow->protocol, flow->destination_port));
}

/* A question to another server, which was brought to us. */
static bool is_question(const struct network *network, const struct tracked_flow *flow)
{
	return flow->translated && !policy_in_pool(network, &flow->flow.destination);
}

static bool is_to_end(const struct gateway *gateway, const struct network *network, const struct tracked_flow *flow)
{
	time_t wall = time(NULL);
	struct denial denial;

	if (flow->mark == RULESET_MARK_AUDIT)
		return !policy_is_auditing(network, wall);
	if (!gateway->upkeep.ending || network->keep_established)
		return false;
	if (is_question(network, flow))
		return false;
	if (asks_for_what_is_denied(gateway, network, &flow->flow))
		return true;
	/* A deny rule for the address closes it whatever its names are. */
	if (is_of_allowed_name(gateway, network, &flow->flow) && !is_denied_address(gateway, network, &flow->flow))
		return false;
	denial = classify_judge(gateway->policy, network, gateway->leases, &flow->flow, true, false, gateway->upkeep.now, wall);
	return denial.reason != REASON_NONE && !denial.audited;
}

/* Does it not lead through what is open now? Whatever changed: the policy, the container, its network. */
static bool is_closed(const struct gateway *gateway, const struct tracked_flow *flow)
{
	return !openings_find(&gateway->openings, flow->flow.protocol, flow->flow.destination_port, &flow->target, flow->target_port);
}

static bool visit(void *context, const struct tracked_flow *flow)
{
	struct gateway *gateway = context;
	const struct network *network = policy_network_by_source(gateway->policy, &flow->flow.source);

	if (flow->mark == RULESET_MARK_PUBLISH) {
		network = policy_network_by_source(gateway->policy, &flow->target);
		if (network != NULL)
			room_see(&gateway->room, network, NULL);
		return is_closed(gateway, flow);
	}
	/* Flows of the gateway itself; those of a network that is gone cannot send any more. */
	if (network == NULL)
		return false;
	if (!is_question(network, flow)) /* those have rates of their own, and end soon */
		room_see(&gateway->room, network, &flow->flow.source);
	allowed_see(gateway->allowed, network, flow);
	if (!flow->over) {
		keep_leases(gateway, network, &flow->flow.destination);
		mapping_touch(gateway->virtuals.table, network->id, &flow->flow.destination, gateway->upkeep.now);
	}
	return is_to_end(gateway, network, flow);
}

/*
 * A kernel that does not delete the entries of flows that are in a flowtable. Without one they are conntrack's alone again, as soon as the
 * kernel has got round to it.
 */
static void give_up_flowtable(struct gateway *gateway)
{
	log_say(gateway->log, LOG_WARNING,
		"this kernel does not end a flow that is in a flowtable (Linux before 6.4): no flowtable is used from now on");
	gateway->ruleset.features.flowtable = false;
	gateway_apply_again(gateway);
	uv_timer_start(&gateway->upkeep.timer, on_time, OFFLOAD_ENDS_MS, gateway->upkeep.period);
}

static void on_seen(void *context, int error, size_t ended)
{
	struct gateway *gateway = context;

	write_extended(gateway);
	if (error == 0) {
		stats_look_ends(reports_stats(gateway->reports));
		room_look_ends(&gateway->room, gateway->policy, &gateway->ruleset, gateway->log);
	} else if (error == -EBUSY && gateway->ruleset.features.flowtable) {
		give_up_flowtable(gateway);
	} else {
		log_say(gateway->log, LOG_ERROR, "not all flows could be looked at or ended: %s", strerror(-error));
	}
	if (ended > 0)
		log_say(gateway->log, LOG_INFO, "%zu flows that are not allowed any more were ended", ended);
	gateway->upkeep.end_wanted |= error != 0 && gateway->upkeep.ending;
	if ((gateway->upkeep.end_wanted || gateway->upkeep.openings_wanted) && error == 0)
		look(gateway);
}

static void look(struct gateway *gateway)
{
	struct upkeep *upkeep = &gateway->upkeep;
	int rc = flows_look(upkeep->flows, visit, on_seen, gateway);

	if (rc == -EALREADY)
		return; /* on_seen() begins another one when there is need */
	if (rc != 0) {
		log_say(gateway->log, LOG_ERROR, "flows cannot be looked at: %s; it is tried again in %" PRIu64 " s", strerror(-rc),
			(upkeep->period + 999) / 1000);
		return;
	}
	room_look_begins(&gateway->room, gateway_now(gateway));
	stats_look_begins(reports_stats(gateway->reports), time(NULL));
	upkeep->now = gateway_now(gateway);
	upkeep->ending = upkeep->end_wanted;
	upkeep->end_wanted = false;
	upkeep->openings_wanted = false;
	upkeep->rechecks = 0;
}

static void on_time(uv_timer_t *timer)
{
	look(timer->data);
}

/* @now: the first look is in the next turn of the loop. */
static void set_period(struct gateway *gateway, bool now)
{
	uint64_t period = LIFETIME_PERIOD_MAX_MS;

	for (size_t i = 0; i < gateway->policy->network_count; i++) {
		uint64_t wanted = lifetime_period(&gateway->policy->networks[i].lifetimes);

		if (wanted < period)
			period = wanted;
	}
	/* Reloads that come often must not put off looks. */
	if (!now && period == gateway->upkeep.period)
		return;
	gateway->upkeep.period = period;
	uv_timer_start(&gateway->upkeep.timer, on_time, now ? 0 : period, period);
}

void upkeep_policy_applied(struct gateway *gateway, bool other, bool openings, bool now)
{
	if (gateway->upkeep.flows == NULL)
		return; /* not open yet */
	gateway->upkeep.end_wanted |= other;
	gateway->upkeep.openings_wanted |= openings;
	set_period(gateway, now);
}

void upkeep_look(struct gateway *gateway)
{
	if (gateway->upkeep.flows != NULL)
		look(gateway);
}

void upkeep_wanted(struct gateway *gateway)
{
	if (gateway->upkeep.flows != NULL && gateway_now(gateway) - gateway->upkeep.now >= UPKEEP_WANTED_MS)
		look(gateway);
}

int upkeep_open(struct gateway *gateway)
{
	struct upkeep *upkeep = &gateway->upkeep;
	int rc = uv_timer_init(&gateway->loop, &upkeep->timer);

	if (rc != 0)
		return rc;
	upkeep->timer.data = gateway;
	upkeep->flows = flows_new(&gateway->loop);
	if (upkeep->flows == NULL) {
		uv_close((uv_handle_t *)&upkeep->timer, NULL);
		return UV_ENOMEM;
	}
	/* Nothing but what audit mode let in is ended: a worker whose journal is lost cannot tell which names flows belong to. */
	upkeep_policy_applied(gateway, false, false, true);
	return 0;
}

void upkeep_close(struct gateway *gateway)
{
	struct upkeep *upkeep = &gateway->upkeep;

	if (upkeep->flows == NULL)
		return;
	flows_close(upkeep->flows);
	upkeep->flows = NULL;
	room_close(&gateway->room);
	uv_close((uv_handle_t *)&upkeep->timer, NULL);
}
