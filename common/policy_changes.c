/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: what judges a lease, but for the rules for names, is compared field by field. Of the rules, those that both policies
 * have at the beginning and at the end of their lists are passed over; what is left in the middle has changed. A rule that only moves
 * counts as changed, which costs a little time and is right.
 */
#include "common/policy_changes.h"

#include <string.h>

static bool prefixes_equal(const struct prefix *a, size_t a_count, const struct prefix *b, size_t b_count)
{
	return a_count == b_count && (a_count == 0 || memcmp(a, b, a_count * sizeof(*a)) == 0);
}

static bool patterns_equal(const struct pattern *a, const struct pattern *b)
{
	return a->kind == b->kind && domain_equal(&a->base, &b->base);
}

/* Which answers they may give. */
static bool groups_equal(const struct upstream_group *a, const struct upstream_group *b)
{
	if (a->match_count != b->match_count || !prefixes_equal(a->privates, a->private_count, b->privates, b->private_count))
		return false;
	for (size_t i = 0; i < a->match_count; i++) {
		if (!patterns_equal(&a->matches[i], &b->matches[i]))
			return false;
	}
	return true;
}

static bool specs_equal(const struct network *a, const struct network *b)
{
	if (a->spec_count != b->spec_count)
		return false;
	for (size_t i = 0; i < a->spec_count; i++) {
		if (!ports_equal(&a->specs[i], &b->specs[i]))
			return false;
	}
	return true;
}

/* Networks with virtual addresses have more to be compared, and those in audit mode leases that no rule allows. */
static bool networks_comparable(const struct network *a, const struct network *b)
{
	return a->id == b->id && strcmp(a->name, b->name) == 0 && prefixes_equal(&a->subnet4, 1, &b->subnet4, 1) &&
	       prefixes_equal(&a->subnet6, 1, &b->subnet6, 1) && !a->has_virtual_addresses && !b->has_virtual_addresses &&
	       a->mode == MODE_ENFORCE && b->mode == MODE_ENFORCE && a->lifetimes.min_ttl == b->lifetimes.min_ttl &&
	       a->lifetimes.grace == b->lifetimes.grace && a->lifetimes.max_age == b->lifetimes.max_age &&
	       prefixes_equal(a->privates, a->private_count, b->privates, b->private_count) && specs_equal(a, b);
}

static bool policies_comparable(const struct policy *a, const struct policy *b)
{
	if (a->network_count != b->network_count || a->upstream_count != b->upstream_count ||
	    !prefixes_equal(a->own, a->own_count, b->own, b->own_count))
		return false;
	for (size_t i = 0; i < a->upstream_count; i++) {
		if (!groups_equal(&a->upstreams[i], &b->upstreams[i]))
			return false;
	}
	for (size_t i = 0; i < a->network_count; i++) {
		if (!networks_comparable(&a->networks[i], &b->networks[i]))
			return false;
	}
	return true;
}

static bool rules_equal(const struct rule *a, const struct rule *b)
{
	if (a->action != b->action || a->kind != b->kind || !ports_equal(&a->ports, &b->ports))
		return false;
	return a->kind == RULE_NAME ? patterns_equal(&a->pattern, &b->pattern) : prefixes_equal(&a->prefix, 1, &b->prefix, 1);
}

/* Return: false when there is no room. */
static bool take_rules(struct policy_changes *changes, const struct network *network, size_t first, size_t last)
{
	for (size_t i = first; i < last; i++) {
		/* Where names are read, flows are judged by rules for names as well. */
		changes->flows |= network->rules[i]->kind == RULE_ADDRESS || network->verify != VERIFY_OFF;
		if (network->rules[i]->kind != RULE_NAME)
			continue;
		if (changes->count == POLICY_CHANGES_MAX)
			return false;
		changes->rules[changes->count].network = network->id;
		changes->rules[changes->count++].rule = network->rules[i];
	}
	return true;
}

/* What a flow's fate depends on, beside rules and leases. */
static bool flows_comparable(const struct network *a, const struct network *b)
{
	return a->verify == b->verify && ports_equal(&a->verify_ports, &b->verify_ports) &&
	       a->without_name_allowed == b->without_name_allowed && a->keep_established == b->keep_established;
}

static bool take_network(struct policy_changes *changes, const struct network *a, const struct network *b)
{
	size_t first = 0, last_a = a->rule_count, last_b = b->rule_count;

	while (first < last_a && first < last_b && rules_equal(a->rules[first], b->rules[first]))
		first++;
	while (last_a > first && last_b > first && rules_equal(a->rules[last_a - 1], b->rules[last_b - 1])) {
		last_a--;
		last_b--;
	}
	changes->flows |= !flows_comparable(a, b);
	return take_rules(changes, a, first, last_a) && take_rules(changes, b, first, last_b);
}

bool policy_changes(const struct policy *old, const struct policy *new, struct policy_changes *out)
{
	out->count = 0;
	out->flows = false;
	if (!policies_comparable(old, new))
		return false;
	for (size_t i = 0; i < old->network_count; i++) {
		if (!take_network(out, &old->networks[i], &new->networks[i]))
			return false;
	}
	return true;
}

static bool matches(const struct policy_changes *changes, uint16_t network, const struct domain *name)
{
	for (size_t i = 0; i < changes->count; i++) {
		if (changes->rules[i].network == network && pattern_matches(&changes->rules[i].rule->pattern, name))
			return true;
	}
	return false;
}

bool policy_changes_name(const struct policy_changes *changes, uint16_t network, const struct domain *name, const struct chain *chain)
{
	struct chain rest = *chain;
	struct domain link;

	if (matches(changes, network, name))
		return true;
	while (changes->count > 0 && chain_next(&rest, &link)) {
		if (matches(changes, network, &link))
			return true;
	}
	return false;
}
