/* SPDX-License-Identifier: MIT */
/*
 * Making a policy the running one: at start, on reload, and when interfaces or the time of day change what it means.
 *
 * Order: interfaces are matched, leases judged by the new policy, the kernel's table replaced in one transaction; only then addresses are
 * claimed and questions judged by it. When anything up to the transaction fails, leases and interfaces go back to the running policy and
 * nothing has changed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/policy_changes.h"
#include "gateway/environment.h"
#include "gateway/gateway.h"
#include "gateway/memory.h"

#define PLACES_MAX 1024 /* with more changes than these it is faster to compare whole sets */

struct judging {
	const struct gateway *gateway;
	const struct policy *policy;
	time_t wall;
	struct policy_changes changes;
	bool everything;              /* `changes` does not say all */
	struct ruleset_places places; /* what has changed; unless everything is judged */
};

static void note_place(struct judging *judging, const struct lease *lease, uint64_t specs)
{
	struct ruleset_places *places = &judging->places;

	if (places->count == PLACES_MAX || !places->list) {
		judging->everything = true; /* the sets have to be compared */
		return;
	}
	places->list[places->count++] = (struct ruleset_place){lease->network, lease->address, specs};
}

/* What a lease may still open under a policy: nothing, when its name or address is no longer allowed, or a name of its chain is denied. */
static void judge_anew(const struct judging *judging, struct lease *lease)
{
	const struct network *network = policy_network(judging->policy, lease->network);
	const struct address *shown = network != NULL ? virtual_shown(judging->gateway, network, lease) : NULL;
	struct name_verdict verdict;

	/* Whatever is closed is kept: it names denials, and the policy may yet be refused by the kernel. */
	lease->specs = 0;
	if (network == NULL)
		return;
	lease->until = lifetime_bounded(&network->lifetimes, lease->shown, lease->until);
	verdict = policy_judge_chain(network, &lease->name, &lease->chain, judging->wall, NULL);
	if (!verdict.allowed || shown == NULL || !policy_answer_may_show(judging->policy, network, &lease->name, shown))
		return;
	lease->audited = verdict.audited;
	if (!verdict.audited)
		lease->specs = verdict.specs;
}

static bool judge_lease(void *context, struct lease *lease)
{
	struct judging *judging = context;
	struct lease before = {.specs = lease->specs, .audited = lease->audited, .until = lease->until};

	judge_anew(judging, lease);
	if (!judging->everything && (lease->specs != before.specs || lease->audited != before.audited || lease->until != before.until))
		note_place(judging, lease, lease->specs | before.specs);
	return true;
}

static bool judge_if_changed(void *context, struct lease *lease)
{
	struct judging *judging = context;

	if (policy_changes_name(&judging->changes, lease->network, &lease->name, &lease->chain))
		judge_lease(judging, lease);
	return true;
}

/*
 * The leases, and so the sets, are as the running policy wants them, unless something failed; where the new one differs in some rules only,
 * leases of other names stay as they are.
 */
static void judge_leases(struct gateway *gateway, struct judging *judging)
{
	const struct policy *running = gateway->policy;
	const struct policy_changes *changes = &judging->changes;
	bool settled =
		running != NULL && running != judging->policy && !gateway->apply_due && !gateway->grants.unsure && !gateway->ruleset.spoilt;

	judging->everything = !settled || !policy_changes(running, judging->policy, &judging->changes);
	if (judging->everything) {
		lease_each(gateway->leases, judge_lease, judging);
		return;
	}
	if (changes->count == 0)
		return;
	judging->places.list = calloc(PLACES_MAX, sizeof(*judging->places.list));
	for (size_t i = 0; i < changes->count; i++) {
		/* Rules of one network are together. */
		if (i == 0 || changes->rules[i].network != changes->rules[i - 1].network)
			lease_each_of(gateway->leases, changes->rules[i].network, judge_if_changed, judging);
	}
}

static bool network_is_there(void *context, struct lease *lease)
{
	return policy_network(context, lease->network) != NULL;
}

/* Leases of networks that are gone. */
static void forget_leases(struct gateway *gateway, const struct policy *old, struct policy *policy)
{
	bool all = true;

	for (size_t i = 0; old != NULL && i < old->network_count; i++)
		all = all && policy_network(policy, old->networks[i].id) != NULL;
	if (old == NULL || !all)
		lease_each(gateway->leases, network_is_there, policy);
}

struct restoring {
	struct gateway *gateway;
	const struct policy *policy;
};

static void restore_mapping(void *context, const struct mapping *mapping)
{
	const struct restoring *restoring = context;

	virtual_restore(restoring->gateway, restoring->policy, mapping);
}

/* Leases of the worker before, and mappings; once, as soon as a policy says which networks there are. */
static void restore_leases(struct gateway *gateway, const struct policy *policy)
{
	struct restoring restoring = {.gateway = gateway, .policy = policy};
	size_t damaged;
	ssize_t count;

	if (gateway->restored)
		return;
	gateway->restored = true;
	/* The loop's time may be that of the start: two clocks are read together here. */
	uv_update_time(&gateway->loop);
	count = journal_restore(&gateway->journal, policy, gateway->leases, gateway_now(gateway), &damaged, restore_mapping, &restoring);
	if (damaged > 0)
		log_say(gateway->log, LOG_WARNING, "the journal of leases was damaged: its last %zu octets are not used", damaged);
	if (count < 0)
		log_say(gateway->log, LOG_ERROR, "the leases of the worker before cannot be read: %s", strerror((int)-count));
	else if (count > 0)
		log_say(gateway->log, LOG_INFO, "%zd leases restored", count);
}

/* Own prefixes: what the interfaces have, and the gateway addresses that are about to be claimed. */
static int set_own_prefixes(struct gateway *gateway, struct policy *policy)
{
	size_t room = INTERFACES_MAX + 2 * policy->network_count;
	struct prefix *own = calloc(room, sizeof(*own));
	size_t count;
	int rc;

	if (own == NULL)
		return -ENOMEM;
	count = interfaces_own_prefixes(&gateway->interfaces, own, INTERFACES_MAX);
	for (size_t i = 0; i < policy->network_count; i++) {
		const struct network *network = &policy->networks[i];

		if (network->gateway4.family != 0)
			own[count++] = (struct prefix){network->gateway4, 32};
		if (network->gateway6.family != 0)
			own[count++] = (struct prefix){network->gateway6, 128};
	}
	rc = policy_set_own(policy, own, count);
	free(own);
	return rc;
}

static int listen_on(struct gateway *gateway, const struct network *network, const struct address *address, char *error, size_t error_size)
{
	char text[ADDRESS_TEXT_MAX];
	int rc;

	if (address->family == 0)
		return 0;
	rc = resolver_listen(gateway->resolver, network->id, address);
	if (rc != 0)
		snprintf(error, error_size, "port 53 of %s (network %s) cannot be opened: %s", address_format(address, text), network->name,
			 strerror(-rc));
	return rc;
}

static int listen_everywhere(struct gateway *gateway, const struct policy *policy, char *error, size_t error_size)
{
	int rc = 0;

	for (size_t i = 0; i < policy->network_count && rc == 0; i++) {
		rc = listen_on(gateway, &policy->networks[i], &policy->networks[i].gateway4, error, error_size);
		if (rc == 0)
			rc = listen_on(gateway, &policy->networks[i], &policy->networks[i].gateway6, error, error_size);
	}
	return rc;
}

/*
 * Interfaces and kernel; nothing else is touched, so a failure leaves the running policy as it was. @flows: set when some flow may be
 * allowed no longer.
 */
static int apply_to_kernel(struct gateway *gateway, struct policy *policy, struct openings *openings, bool *flows, char *error,
			   size_t error_size)
{
	struct judging judging = {.gateway = gateway, .policy = policy, .wall = time(NULL)};
	int rc = interfaces_scan(&gateway->interfaces, policy, gateway->log, error, error_size);

	if (rc != 0)
		return rc;
	rc = virtual_check(gateway, policy, error, error_size);
	if (rc != 0)
		return rc;
	rc = set_own_prefixes(gateway, policy);
	if (rc == 0)
		rc = targets_openings(gateway->targets, policy, &gateway->interfaces, openings);
	if (rc != 0) {
		snprintf(error, error_size, "out of memory");
		return rc;
	}
	restore_leases(gateway, policy);
	judge_leases(gateway, &judging);
	rc = ruleset_apply(&gateway->ruleset, policy, &gateway->interfaces, openings, gateway->leases,
			   judging.everything ? NULL : &judging.places, gateway->virtuals.table, gateway_now(gateway), error, error_size);
	*flows = judging.everything || judging.changes.flows || judging.places.count > 0;
	free(judging.places.list);
	if (rc == 0 && judging.everything)
		gateway->grants.unsure = false;
	if (rc != 0)
		openings_free(openings);
	else
		virtual_synchronised(gateway, policy);
	return rc;
}

/* What the kernel has got. The list becomes ours. Return: true when another one than before. */
static bool take_openings(struct gateway *gateway, struct openings *openings)
{
	bool other = !openings_equal(&gateway->openings, openings);

	openings_free(&gateway->openings);
	gateway->openings = *openings;
	return other;
}

/*
 * Listeners first, so that an app which can see the address finds the port open. Nothing is scanned here: a change that somebody else made
 * since the kernel's table was written would be taken for known, and never be applied.
 */
static int apply_to_interfaces(struct gateway *gateway, const struct policy *policy, char *error, size_t error_size)
{
	int rc = listen_everywhere(gateway, policy, error, error_size);

	/* Before the gateway's addresses, whose claim announces all that the interface has. */
	virtual_hold(gateway);
	if (rc == 0)
		rc = interfaces_claim(&gateway->interfaces, policy, gateway->log, error, error_size);
	if (rc == 0)
		rc = interfaces_repair_route(&gateway->interfaces, policy, gateway->log, error, error_size);
	return rc;
}

/* The kernel may have the new rules already: it gets the running policy's again. */
static void go_back(struct gateway *gateway)
{
	struct openings openings = {0};
	char error[GATEWAY_ERROR_MAX];
	bool flows;

	if (gateway->policy == NULL)
		return;
	if (apply_to_kernel(gateway, gateway->policy, &openings, &flows, error, sizeof(error)) == 0) {
		(void)take_openings(gateway, &openings); /* as before: flows were not looked at meanwhile */
		(void)apply_to_interfaces(gateway, gateway->policy, error, sizeof(error));
		return;
	}
	log_say(gateway->log, LOG_ERROR, "the running policy cannot be put back: %s; it is tried again every second", error);
	gateway->apply_due = true;
	gateway->applied_at = gateway_now(gateway);
}

static bool is_gateway(const struct policy *policy, const struct address *address)
{
	for (size_t i = 0; i < policy->network_count; i++) {
		if (address_equal(&policy->networks[i].gateway4, address) || address_equal(&policy->networks[i].gateway6, address))
			return true;
	}
	return false;
}

static void release_address(struct gateway *gateway, const struct policy *policy, const struct address *address)
{
	char text[ADDRESS_TEXT_MAX];
	int rc;

	if (address->family == 0 || is_gateway(policy, address))
		return;
	resolver_unlisten(gateway->resolver, address);
	rc = interfaces_release(&gateway->interfaces, address);
	if (rc != 0)
		log_say(gateway->log, LOG_WARNING, "the address %s, which no network has any more, cannot be given back: %s",
			address_format(address, text), strerror(-rc));
}

/* Gateway addresses of the old policy that the new one does not have. */
static void release_addresses(struct gateway *gateway, const struct policy *old, const struct policy *policy)
{
	for (size_t i = 0; old != NULL && i < old->network_count; i++) {
		release_address(gateway, policy, &old->networks[i].gateway4);
		release_address(gateway, policy, &old->networks[i].gateway6);
	}
}

/* For a worker that starts while the uplink is away, or after a reload has set another interface free. */
static void remember_uplink(struct gateway *gateway)
{
	int rc = memory_put(gateway->start.memories[MEMORY_UPLINK], &gateway->interfaces.choice, sizeof(gateway->interfaces.choice));

	if (rc != 0)
		log_say(gateway->log, LOG_WARNING, "the choice of the uplink cannot be kept for a restart: %s", strerror(-rc));
}

/* Everything that can fail before the new policy is the running one. */
static int switch_policy(struct gateway *gateway, struct policy *policy, struct openings *openings, bool *flows, char *error,
			 size_t error_size)
{
	int rc = apply_to_kernel(gateway, policy, openings, flows, error, error_size);

	if (rc != 0)
		return rc;
	rc = resolver_set_policy(gateway->resolver, policy);
	if (rc != 0) {
		snprintf(error, error_size, "the forwarder cannot take over the policy: %s", strerror(-rc));
		openings_free(openings);
	}
	return rc;
}

/* What nothing that passes depends on; the policy is in force. */
static void follow_policy(struct gateway *gateway)
{
	int rc = targets_set_policy(gateway->targets, gateway->policy);

	if (rc != 0)
		log_say(gateway->log, LOG_ERROR, "some published containers cannot be followed: %s", strerror(-rc));
	notify_set_policy(gateway->notify, gateway->policy);
	rc = inbound_set_policy(gateway->inbound, gateway->policy);
	if (rc != 0)
		log_say(gateway->log, LOG_ERROR, "inbound flows are counted, but not told one by one: conntrack events cannot be had: %s",
			strerror(-rc));
	rc = allowed_set_policy(gateway->allowed, gateway->policy);
	if (rc != 0)
		log_say(gateway->log, LOG_ERROR, "allowed flows are counted, but not told one by one: conntrack events cannot be had: %s",
			strerror(-rc));
}

/* Takes ownership of @policy; it may be the running one. */
static int apply_policy(struct gateway *gateway, struct policy *policy, char *error, size_t error_size)
{
	struct policy *old = gateway->policy;
	struct openings openings = {0};
	bool opened, flows;
	int rc;

	/* What is ready was judged by the old policy: its grants mean the old policy's port specifications. */
	resolver_flush(gateway->resolver);
	if (policy != old)
		policy_inherit_ids(policy, old);
	rc = switch_policy(gateway, policy, &openings, &flows, error, error_size);
	if (rc != 0) {
		if (policy != old) {
			go_back(gateway);
			policy_free(policy);
		}
		return rc;
	}
	gateway->policy = policy;
	gateway->apply_due = false;
	opened = take_openings(gateway, &openings);
	if (policy != old) {
		forget_leases(gateway, old, policy);
		gateway->policy_loaded_at = time(NULL);
		release_addresses(gateway, old, policy);
		follow_policy(gateway);
		resolver_serve(gateway->resolver);
		policy_free(old);
		resolver_serve(gateway->resolver);
	}
	remember_uplink(gateway);
	log_set_format(gateway->log, policy->log);
	upkeep_policy_applied(gateway, policy != old, opened, flows || opened);
	if (policy != old && old != NULL)
		virtual_refresh(gateway);
	rc = apply_to_interfaces(gateway, policy, error, error_size);
	http_listen(gateway->http, policy->http, policy->http_count);
	if (rc == 0 || old == NULL)
		return rc;
	/* The policy is in force; one network lacks something. */
	log_say(gateway->log, LOG_ERROR, "%s", error);
	return 0;
}

static int apply_parsed(struct gateway *gateway, const struct config_text *text, struct config_messages *messages, char *error,
			size_t error_size)
{
	struct policy *policy = config_parse(text, messages);

	if (policy == NULL || config_resolve_auto(policy, CONFIG_RESOLV_CONF, messages) != 0) {
		policy_free(policy);
		snprintf(error, error_size, "the policy has errors");
		return -EINVAL;
	}
	if (environment_check(policy, gateway->log) != 0) {
		policy_free(policy);
		snprintf(error, error_size, "the container's sysctls do not fit the policy");
		return -EINVAL;
	}
	return apply_policy(gateway, policy, error, error_size);
}

/* Of struct config_text: questions are answered by the running policy while another one is read. */
static void serve(void *context)
{
	struct gateway *gateway = context;

	resolver_serve(gateway->resolver);
}

int apply_text(struct gateway *gateway, struct config_messages *messages, char *error, size_t error_size)
{
	struct config_text text = {0};
	int rc = config_read(gateway->path, &text, messages);

	if (rc != 0) {
		snprintf(error, error_size, "the policy cannot be read");
		return rc;
	}
	text.pause = serve;
	text.pause_context = gateway;
	rc = apply_parsed(gateway, &text, messages, error, error_size);
	if (rc == 0) {
		rc = memory_put_policy(gateway->start.memories[MEMORY_POLICY], &text);
		if (rc != 0)
			log_say(gateway->log, LOG_WARNING, "the policy cannot be kept for a restart: %s", strerror(-rc));
		rc = 0;
	}
	config_text_free(&text);
	return rc;
}

int apply_last_good(struct gateway *gateway, struct config_messages *messages, char *error, size_t error_size)
{
	struct config_text text = {0};
	int rc = memory_get_policy(gateway->start.memories[MEMORY_POLICY], &text);

	if (rc != 0) {
		snprintf(error, error_size, "no earlier policy is kept: %s", strerror(-rc));
		return rc;
	}
	rc = apply_parsed(gateway, &text, messages, error, error_size);
	config_text_free(&text);
	return rc;
}

/* What a scan found, to be compared with another one. */
struct found {
	struct interface *list; /* owned */
	size_t count;
	unsigned int uplink;
	bool route4, route6;
};

static bool take_found(const struct interfaces *interfaces, struct found *out)
{
	*out = (struct found){
		.count = interfaces->count, .uplink = interfaces->uplink, .route4 = interfaces->route4, .route6 = interfaces->route6};
	out->list = calloc(interfaces->count + 1, sizeof(*out->list));
	if (out->list != NULL)
		memcpy(out->list, interfaces->list, interfaces->count * sizeof(*out->list));
	return out->list != NULL;
}

static bool found_again(const struct found *found, const struct interfaces *interfaces)
{
	return found->count == interfaces->count && found->uplink == interfaces->uplink && found->route4 == interfaces->route4 &&
	       found->route6 == interfaces->route6 && memcmp(found->list, interfaces->list, found->count * sizeof(*found->list)) == 0;
}

int apply_if_changed(struct gateway *gateway, char *error, size_t error_size)
{
	struct found before;
	bool same = false;

	/* Without memory to compare, applying is right as well. */
	if (take_found(&gateway->interfaces, &before)) {
		int rc = interfaces_scan(&gateway->interfaces, gateway->policy, gateway->log, error, error_size);

		same = rc == 0 && found_again(&before, &gateway->interfaces);
		free(before.list);
	}
	return same ? 0 : apply_again(gateway, error, error_size);
}

int apply_again(struct gateway *gateway, char *error, size_t error_size)
{
	return apply_policy(gateway, gateway->policy, error, error_size);
}
