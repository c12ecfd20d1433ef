/* SPDX-License-Identifier: MIT */
#include "gateway/report/verdict.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool is_port_deny(const struct rule *rule)
{
	return rule->kind == RULE_NAME && rule->action == RULE_DENY && rule->ports_given;
}

int verdicts_open(struct verdicts *verdicts, const struct policy *policy, const struct network *network, const struct lease_table *leases,
		  time_t wall)
{
	size_t count = 0;

	*verdicts = (struct verdicts){.policy = policy, .network = network, .leases = leases, .wall = wall};
	for (size_t i = 0; i < network->rule_count; i++)
		count += is_port_deny(network->rules[i]);
	verdicts->port_denies = calloc(count + 1, sizeof(*verdicts->port_denies));
	if (!verdicts->port_denies)
		return -ENOMEM;
	for (size_t i = 0; i < network->rule_count; i++) {
		if (is_port_deny(network->rules[i]))
			verdicts->port_denies[verdicts->port_deny_count++] = network->rules[i];
	}
	return 0;
}

void verdicts_close(struct verdicts *verdicts)
{
	free(verdicts->port_denies);
	verdicts->port_denies = NULL;
}

/* The lease that an answer for the target's name made. Return: false when none is known. */
static bool find_lease(const struct verdicts *verdicts, const struct verdict_target *target, struct lease *out)
{
	memset(out, 0, sizeof(*out));
	if (!verdicts->leases || !target->address.family)
		return false;
	out->network = verdicts->network->id;
	out->address = target->address;
	out->name = *target->name;
	return lease_refresh(verdicts->leases, out);
}

bool verdict_is_foreign(const struct verdicts *verdicts, const struct verdict_target *target)
{
	const struct lease *lease;

	if (!target->address.family)
		return false;
	/* Apps are shown addresses of the pool only, and these stand for names of their own network. */
	if (verdicts->network->has_virtual_addresses || !verdicts->leases)
		return verdicts->network->has_virtual_addresses && !policy_in_pool(verdicts->network, &target->address);
	lease = lease_find(verdicts->leases, verdicts->network->id, &target->address);
	return lease && lease->network != verdicts->network->id;
}

/* Deny rules with ports are about the name that was asked for, and do not reach those of its chain. */
static const struct rule *find_port_deny(const struct verdicts *verdicts, const struct verdict_target *target)
{
	for (size_t i = 0; i < verdicts->port_deny_count; i++) {
		const struct rule *rule = verdicts->port_denies[i];

		if (ports_contains(&rule->ports, target->protocol, target->port) && pattern_matches(&rule->pattern, target->name))
			return rule;
	}
	return NULL;
}

static bool covers_port(const struct verdicts *verdicts, const struct verdict_target *target, uint64_t specs)
{
	return (specs & policy_specs_on(verdicts->network, target->protocol, target->port)) != 0;
}

/* What is known of the port makes the verdict about the name more precise. */
static void judge_port(const struct verdicts *verdicts, const struct verdict_target *target, const struct name_verdict *name,
		       struct verdict *verdict)
{
	bool denied = name->reason == REASON_DENIED_BY_RULE;
	bool by_ports = denied && name->rule && name->rule->ports_given && domain_equal(&verdict->by, target->name);
	/* The deny rule took all the ports that were left, but not this one. */
	bool beside = by_ports && !ports_contains(&name->rule->ports, target->protocol, target->port);
	bool uncovered = name->allowed && !name->audited && !covers_port(verdicts, target, name->specs);
	const struct rule *deny = !denied || by_ports ? find_port_deny(verdicts, target) : NULL;

	if (deny) {
		verdict->reason = REASON_DENIED_BY_RULE;
		verdict->rule = deny;
	} else if (beside || uncovered) {
		verdict->reason = REASON_PORT_NOT_ALLOWED;
	}
}

struct verdict verdict_of_name(const struct verdicts *verdicts, const struct verdict_target *target)
{
	struct verdict verdict = {.reason = REASON_NONE};
	struct name_verdict name;
	struct lease lease;

	(void)find_lease(verdicts, target, &lease);
	verdict.chain = lease.chain;
	name = policy_judge_chain(verdicts->network, target->name, &lease.chain, verdicts->wall, &verdict.by);
	verdict.reason = name.reason;
	verdict.rule = name.rule;
	if (target->port)
		judge_port(verdicts, target, &name, &verdict);
	verdict.allowed = verdict.reason == REASON_NONE;
	return verdict;
}

struct verdict verdict_of_address(const struct verdicts *verdicts, const struct verdict_target *target)
{
	struct address_verdict address =
		policy_judge_address(verdicts->policy, verdicts->network, &target->address, target->protocol, target->port);

	return (struct verdict){.allowed = address.allowed, .reason = address.reason, .rule = address.rule};
}
