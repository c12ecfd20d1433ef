/* SPDX-License-Identifier: MIT */
/*
 * From collected rules to a list that loads.
 *
 * Theory of operation: the list is tried with the network's own rules, by the function that finishes a policy. When there are too many
 * different port specifications, the rarest are made one, which has the ports of all of them, until it fits: so the rules open more than
 * what was seen, and say so, but none is lost.
 */
#include "gateway/report/suggest_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"

#define WIDER_NOTE "with ports of other names: a network's rules may have 64 different port specifications"

/* Ports */

static unsigned int distance(const struct port_range *range, uint16_t port)
{
	return port < range->first ? (unsigned int)range->first - port : (unsigned int)port - range->last;
}

/* From the nearest range to the port. */
static struct port_range bridge(const struct port_range *list, size_t count, uint16_t port)
{
	const struct port_range *nearest = &list[0];

	for (size_t i = 1; i < count; i++) {
		if (distance(&list[i], port) < distance(nearest, port))
			nearest = &list[i];
	}
	return port < nearest->first ? (struct port_range){port, nearest->first} : (struct port_range){nearest->last, port};
}

bool suggest_add_port(struct ports *ports, uint8_t protocol, uint16_t port)
{
	struct ports one = rule_text_ports(protocol, port);

	if (ports_contains(ports, protocol, port) || ports_add(ports, &one))
		return true;
	if (protocol == IPPROTO_TCP)
		one.tcp[0] = bridge(ports->tcp, ports->tcp_count, port);
	else
		one.udp[0] = bridge(ports->udp, ports->udp_count, port);
	ports_add(ports, &one);
	return false;
}

static void add_ranges(struct ports *into, uint8_t protocol, const struct port_range *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct ports range = {0};

		suggest_add_port(into, protocol, list[i].first);
		suggest_add_port(into, protocol, list[i].last);
		if (protocol == IPPROTO_TCP)
			range.tcp[range.tcp_count++] = list[i];
		else
			range.udp[range.udp_count++] = list[i];
		/* Both ends are in: what is between them cannot need more ranges than there are. */
		ports_add(into, &range);
	}
}

/* The union, or what is a little more when that has too many ranges. */
static void add_ports(struct ports *into, const struct ports *other)
{
	add_ranges(into, IPPROTO_TCP, other->tcp, other->tcp_count);
	add_ranges(into, IPPROTO_UDP, other->udp, other->udp_count);
}

/* What was skipped */

int suggest_skip(struct suggestions *suggestions, const char *what, const char *why, uint64_t count)
{
	struct suggest_skipped *list = suggestions->skipped;
	size_t used = suggestions->skipped_count;

	for (size_t i = 0; i < used; i++) {
		if (strcmp(list[i].what, what) == 0 && strcmp(list[i].why, why) == 0) {
			list[i].count += count;
			return 0;
		}
	}
	if (used == SUGGEST_SKIPPED_MAX) {
		suggestions->more_skipped += count;
		return 0;
	}
	if (!list)
		list = suggestions->skipped = calloc(SUGGEST_SKIPPED_MAX, sizeof(*list));
	if (!list)
		return -ENOMEM;
	list[used] = (struct suggest_skipped){.what = strdup(what), .why = strdup(why), .count = count};
	suggestions->skipped_count++;
	return list[used].what && list[used].why ? 0 : -ENOMEM;
}

void suggest_drop(struct suggestion *suggestion)
{
	free(suggestion->text);
	free(suggestion->chain);
	free(suggestion->known_as);
}

void suggest_free(struct suggestions *suggestions)
{
	for (size_t i = 0; i < suggestions->rule_count; i++)
		suggest_drop(&suggestions->rules[i]);
	for (size_t i = 0; i < suggestions->wildcard_count; i++)
		free(suggestions->wildcards[i].text);
	for (size_t i = 0; i < suggestions->skipped_count; i++) {
		free(suggestions->skipped[i].what);
		free(suggestions->skipped[i].why);
	}
	free(suggestions->rules);
	free(suggestions->wildcards);
	free(suggestions->skipped);
	memset(suggestions, 0, sizeof(*suggestions));
}

/* Order */

/* By labels from the right (RFC 4034, 6.1), so that siblings are neighbours. */
static int compare_domains(const struct domain *a, const struct domain *b)
{
	size_t starts[2][DOMAIN_WIRE_MAX / 2 + 1], counts[2] = {0};
	const struct domain *names[] = {a, b};

	for (int i = 0; i < 2; i++) {
		for (size_t at = 0; at < names[i]->length && names[i]->wire[at]; at += 1 + (size_t)names[i]->wire[at])
			starts[i][counts[i]++] = at;
	}
	while (counts[0] && counts[1]) {
		const uint8_t *left = a->wire + starts[0][--counts[0]], *right = b->wire + starts[1][--counts[1]];
		size_t shorter = left[0] < right[0] ? left[0] : right[0];
		int order = memcmp(left + 1, right + 1, shorter);

		if (order || left[0] != right[0])
			return order ? order : (int)left[0] - (int)right[0];
	}
	return (int)counts[0] - (int)counts[1];
}

static int compare_parents(const struct domain *a, const struct domain *b)
{
	struct domain left = *a, right = *b;

	(void)domain_parent(a, &left);
	(void)domain_parent(b, &right);
	return compare_domains(&left, &right);
}

/* Names of the same parent together, of these the ones with the same ports, those whose ports are a guess last. */
static int compare_suggestions(const void *left, const void *right)
{
	const struct suggestion *a = left, *b = right;
	int order;

	if (a->rule.kind != b->rule.kind)
		return a->rule.kind == RULE_NAME ? -1 : 1;
	if (a->rule.kind == RULE_ADDRESS)
		return address_compare(&a->rule.prefix.address, &b->rule.prefix.address);
	order = compare_parents(&a->rule.pattern.base, &b->rule.pattern.base);
	if (!order)
		order = (int)a->is_guess - (int)b->is_guess;
	if (!order)
		order = memcmp(&a->rule.ports, &b->rule.ports, sizeof(a->rule.ports));
	return order ? order : compare_domains(&a->rule.pattern.base, &b->rule.pattern.base);
}

/* Texts */

static int write_texts(struct suggestions *suggestions)
{
	char text[RULE_TEXT_MAX];

	for (size_t i = 0; i < suggestions->rule_count; i++) {
		struct suggestion *suggestion = &suggestions->rules[i];

		(void)rule_text_format(&suggestion->rule, text);
		free(suggestion->text);
		suggestion->text = strdup(text);
		if (!suggestion->text)
			return -ENOMEM;
	}
	return 0;
}

/* Move a rule to what is skipped. */
static int refuse(struct suggestions *suggestions, size_t at, const char *why)
{
	struct suggestion *suggestion = &suggestions->rules[at];
	char text[RULE_TEXT_MAX];
	int rc;

	(void)rule_text_format(&suggestion->rule, text);
	rc = suggest_skip(suggestions, text, why, suggestion->flows + suggestion->questions);
	suggest_drop(suggestion);
	suggestions->rules[at] = suggestions->rules[--suggestions->rule_count];
	return rc;
}

/* Names that apps may ask for, but that no policy can have. */
static int refuse_unwritable(struct suggestions *suggestions)
{
	char text[RULE_TEXT_MAX];
	int rc = 0;

	for (size_t i = suggestions->rule_count; rc == 0 && i-- > 0;) {
		if (!rule_text_format(&suggestions->rules[i].rule, text))
			rc = refuse(suggestions, i, "a policy cannot have names like this one");
	}
	return rc;
}

/* Port specifications */

static bool add_rule(struct policy *policy, struct network *network, const struct rule *rule)
{
	struct rule *kept = policy_rule(policy, rule);

	if (kept)
		network->rules[network->rule_count++] = kept;
	return kept;
}

/* Do the network's rules and these load together? Return: 0, -E2BIG or -ENOMEM. */
static int try_out(const struct network *network, const struct suggestions *suggestions)
{
	size_t count = network->rule_count + suggestions->rule_count + suggestions->wildcard_count;
	struct policy *policy = policy_new();
	struct network *copy = policy ? calloc(1, sizeof(*copy)) : NULL;
	struct source where;
	char error[512];
	int rc = -ENOMEM;

	if (copy) {
		*copy = (struct network){.subnet4 = network->subnet4, .subnet6 = network->subnet6, .source = network->source};
		policy->networks = copy;
		policy->network_count = 1;
		copy->rules = calloc(count + 1, sizeof(*copy->rules));
	}
	if (copy && copy->rules) {
		rc = 0;
		for (size_t i = 0; i < network->rule_count; i++)
			copy->rules[copy->rule_count++] = network->rules[i];
		for (size_t i = 0; i < suggestions->rule_count; i++)
			rc = add_rule(policy, copy, &suggestions->rules[i].rule) ? rc : -ENOMEM;
		for (size_t i = 0; i < suggestions->wildcard_count; i++)
			rc = add_rule(policy, copy, &suggestions->wildcards[i].rule) ? rc : -ENOMEM;
		rc = rc ? rc : policy_finish(policy, error, sizeof(error), &where);
	}
	policy_free(policy);
	return rc;
}

/* How often each port specification occurs. */
struct usage {
	UT_hash_handle hh;
	const struct ports *ports;
	size_t count;
	bool kept;
};

static int compare_usage(const struct usage *a, const struct usage *b)
{
	if (a->count != b->count)
		return a->count > b->count ? -1 : 1;
	return memcmp(a->ports, b->ports, sizeof(*a->ports));
}

/* @list: room for one of each rule. */
static struct usage *count_usage(const struct suggestions *suggestions, struct usage *list)
{
	struct usage *table = NULL, *found;
	size_t used = 0;

	for (size_t i = 0; i < suggestions->rule_count; i++) {
		const struct rule *rule = &suggestions->rules[i].rule;

		if (rule->kind != RULE_NAME)
			continue;
		HASH_FIND(hh, table, &rule->ports, sizeof(rule->ports), found);
		if (!found) {
			found = &list[used++];
			found->ports = &rule->ports;
			HASH_ADD_KEYPTR(hh, table, found->ports, sizeof(*found->ports), found);
		}
		found->count++;
	}
	HASH_SORT(table, compare_usage);
	return table;
}

static bool is_kept(struct usage *table, const struct ports *ports)
{
	struct usage *found;

	HASH_FIND(hh, table, ports, sizeof(*ports), found);
	return found && found->kept;
}

/* Keep the @budget - 1 specifications that occur most, and make all others one. */
static int make_fewer(struct suggestions *suggestions, size_t budget)
{
	struct usage *list = calloc(suggestions->rule_count + 1, sizeof(*list)), *table, *usage;
	bool *others = calloc(suggestions->rule_count + 1, sizeof(*others));
	struct ports sum = {0};
	int rc = -ENOMEM;

	if (list && others) {
		table = count_usage(suggestions, list);
		for (usage = table; usage && budget > 1; usage = usage->hh.next, budget--)
			usage->kept = true;
		for (size_t i = 0; i < suggestions->rule_count; i++) {
			const struct rule *rule = &suggestions->rules[i].rule;

			others[i] = rule->kind == RULE_NAME && !is_kept(table, &rule->ports);
			if (others[i])
				add_ports(&sum, &rule->ports);
		}
		HASH_CLEAR(hh, table); /* its keys are about to change */
		for (size_t i = 0; i < suggestions->rule_count; i++) {
			struct suggestion *suggestion = &suggestions->rules[i];

			if (!others[i] || ports_equal(&suggestion->rule.ports, &sum))
				continue;
			suggestion->rule.ports = sum;
			suggestion->note = WIDER_NOTE;
		}
		rc = 0;
	}
	free(list);
	free(others);
	return rc;
}

static bool has_spec(const struct network *network, const struct ports *ports)
{
	for (size_t i = 0; i < network->spec_count; i++) {
		if (ports_equal(&network->specs[i], ports))
			return true;
	}
	return false;
}

/* @unless_known: but those whose port specification the network has already. */
static int refuse_names(const struct network *network, struct suggestions *suggestions, bool unless_known)
{
	int rc = 0;

	for (size_t i = suggestions->rule_count; rc == 0 && i-- > 0;) {
		const struct rule *rule = &suggestions->rules[i].rule;

		if (rule->kind == RULE_NAME && !(unless_known && has_spec(network, &rule->ports)))
			rc = refuse(suggestions, i,
				    "the network's rules have all their 64 different port specifications already: give more of them the "
				    "same ports");
	}
	return rc;
}

/* There is no room for a single one more. @before: the rules as they were. */
static int give_up(const struct network *network, struct suggestions *suggestions, const struct suggestion *before)
{
	int rc;

	for (size_t i = 0; i < suggestions->rule_count; i++) {
		suggestions->rules[i].rule.ports = before[i].rule.ports;
		suggestions->rules[i].note = before[i].note;
	}
	rc = refuse_names(network, suggestions, true);
	if (rc == 0)
		rc = try_out(network, suggestions);
	return rc == -E2BIG ? refuse_names(network, suggestions, false) : rc;
}

static int fit(const struct network *network, struct suggestions *suggestions)
{
	int rc = try_out(network, suggestions);
	struct suggestion *before;

	if (rc != -E2BIG)
		return rc;
	before = calloc(suggestions->rule_count, sizeof(*before));
	if (!before)
		return -ENOMEM;
	memcpy(before, suggestions->rules, suggestions->rule_count * sizeof(*before));
	for (size_t budget = POLICY_SPECS_MAX; rc == -E2BIG && budget > 0; budget /= 2) {
		rc = make_fewer(suggestions, budget);
		if (rc == 0)
			rc = try_out(network, suggestions);
	}
	if (rc == -E2BIG)
		rc = give_up(network, suggestions, before);
	free(before);
	return rc;
}

/* Wildcards */

/* Never where others can get names: the parent has two labels at least, and the policy's reader has nothing to say against it. */
static bool make_pattern(const struct domain *name, const struct ports *ports, struct suggest_wildcard *out)
{
	char text[RULE_TEXT_MAX];

	if (!domain_parent(name, &out->parent) || domain_labels(&out->parent) < 2)
		return false;
	out->rule = rule_text_name(&out->parent);
	out->rule.pattern.kind = PATTERN_BELOW;
	out->rule.ports = *ports;
	return rule_text_format(&out->rule, text);
}

/* May both stand behind one wildcard? Ports that are a guess follow the others. */
static bool belong_together(const struct suggestion *first, const struct suggestion *other)
{
	return other->rule.kind == RULE_NAME && compare_parents(&first->rule.pattern.base, &other->rule.pattern.base) == 0 &&
	       (other->is_guess || ports_equal(&first->rule.ports, &other->rule.ports));
}

static size_t count_siblings(const struct suggestions *suggestions, size_t first)
{
	size_t count = 1;

	while (first + count < suggestions->rule_count && belong_together(&suggestions->rules[first], &suggestions->rules[first + count]))
		count++;
	return count;
}

static int add_wildcard(struct suggestions *suggestions, size_t first, size_t count)
{
	const struct suggestion *rules = &suggestions->rules[first];
	struct suggest_wildcard wildcard = {.first = first, .count = count};
	char text[RULE_TEXT_MAX];

	if (!make_pattern(&rules->rule.pattern.base, &rules->rule.ports, &wildcard))
		return 0;
	for (size_t i = 0; i < count; i++)
		wildcard.flows += rules[i].flows;
	(void)rule_text_format(&wildcard.rule, text);
	wildcard.text = strdup(text);
	suggestions->wildcards[suggestions->wildcard_count++] = wildcard;
	return wildcard.text ? 0 : -ENOMEM;
}

static int find_wildcards(struct suggestions *suggestions)
{
	size_t count;
	int rc = 0;

	suggestions->wildcards = calloc(suggestions->rule_count / SUGGEST_SIBLINGS + 1, sizeof(*suggestions->wildcards));
	if (!suggestions->wildcards)
		return -ENOMEM;
	for (size_t i = 0; rc == 0 && i < suggestions->rule_count; i += count) {
		count = suggestions->rules[i].rule.kind == RULE_NAME ? count_siblings(suggestions, i) : 1;
		if (count >= SUGGEST_SIBLINGS)
			rc = add_wildcard(suggestions, i, count);
	}
	return rc;
}

/* Deny rules with ports may make specifications of a wildcard that they did not make of the names. */
static int drop_wildcards_that_do_not_fit(const struct network *network, struct suggestions *suggestions)
{
	int rc = suggestions->wildcard_count ? try_out(network, suggestions) : 0;

	if (rc != -E2BIG)
		return rc;
	while (suggestions->wildcard_count)
		free(suggestions->wildcards[--suggestions->wildcard_count].text);
	return 0;
}

int suggest_shape(const struct network *network, struct suggestions *suggestions)
{
	int rc = refuse_unwritable(suggestions);

	if (rc == 0 && suggestions->rule_count > 0)
		rc = fit(network, suggestions);
	if (rc != 0)
		return rc;
	qsort(suggestions->rules, suggestions->rule_count, sizeof(*suggestions->rules), compare_suggestions);
	rc = write_texts(suggestions);
	if (rc == 0)
		rc = find_wildcards(suggestions);
	return rc == 0 ? drop_wildcards_that_do_not_fit(network, suggestions) : rc;
}
