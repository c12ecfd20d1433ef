/* SPDX-License-Identifier: MIT */
/* Checks that need the whole text, and the move from sections to the policy. */

#include "gateway/config_finish.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/config_http.h"
#include "gateway/config_notify.h"
#include "gateway/config_publish.h"
#include "gateway/config_rules.h"
#include "gateway/config_virtual.h"

#define TITLE_MAX (POLICY_NAME_MAX + CONFIG_HINT_MAX)

/* Networks */

static bool is_broadcast(const struct prefix *subnet, const struct address *address)
{
	struct address_range range = prefix_range(subnet);

	return address->family == AF_INET && address_equal(address, &range.last);
}

/* The gateway address of one family: the one given, which must fit, else the first host. */
static void settle_gateway(struct draft *draft, struct section *section, const struct prefix *subnet, struct address *gateway,
			   enum place place)
{
	const struct source *where = &section->places[place];
	char text[ADDRESS_TEXT_MAX], subnet_text[ADDRESS_TEXT_MAX];

	if (!gateway->family) {
		if (subnet->address.family)
			*gateway = prefix_host(subnet, 1);
		return;
	}
	address_format(gateway, text);
	if (!subnet->address.family) {
		config_draft_say(draft, CONFIG_ERROR, *where, "the gateway %s has no subnet of its family", text);
		return;
	}
	prefix_format(subnet, subnet_text);
	if (!prefix_contains(subnet, gateway))
		config_draft_say(draft, CONFIG_ERROR, *where, "the gateway %s is not in the subnet %s", text, subnet_text);
	else if (address_equal(gateway, &subnet->address))
		config_draft_say(draft, CONFIG_ERROR, *where, "%s is the address of the subnet %s itself, not of a host", text,
				 subnet_text);
	else if (is_broadcast(subnet, gateway))
		config_draft_say(draft, CONFIG_ERROR, *where, "%s is the broadcast address of the subnet %s", text, subnet_text);
}

static void settle_audit(struct draft *draft, struct section *section)
{
	const struct source *where = &section->places[PLACE_AUDIT_UNTIL];

	if (!where->line)
		return;
	if (section->network.mode != MODE_AUDIT)
		config_draft_say(draft, CONFIG_ERROR, *where, "'audit_until' without 'mode = audit'");
	else if (section->network.audit_until && section->network.audit_until <= time(NULL))
		config_draft_say(draft, CONFIG_WARNING, *where, "'audit_until' has passed: the network is enforced");
}

static void settle_verify(struct draft *draft, const struct section *section)
{
	static const struct {
		enum place place;
		const char *key;
	} keys[] = {{PLACE_VERIFY_PORTS, "verify_ports"}, {PLACE_WITHOUT_NAME, "without_name"}};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]) && section->network.verify == VERIFY_OFF && !section->verify_unknown; i++) {
		if (section->places[keys[i].place].line)
			config_draft_say(draft, CONFIG_WARNING, section->places[keys[i].place],
					 "'%s' has no effect without 'verify': write 'verify = enforce' (or 'log') as well", keys[i].key);
	}
}

static bool has_wildcard(const struct network *network)
{
	for (size_t i = 0; i < network->rule_count; i++) {
		const struct rule *rule = network->rules[i];

		if (rule->action == RULE_ALLOW && rule->kind == RULE_NAME && rule->pattern.kind != PATTERN_EXACT)
			return true;
	}
	return false;
}

/* After `use` has been followed. */
static void settle_wildcards(struct draft *draft, const struct section *section)
{
	static const struct {
		enum place place;
		const char *key;
	} keys[] = {{PLACE_WILDCARD_OCTETS, "wildcard_octets"},
		    {PLACE_WILDCARD_LABELS, "wildcard_labels"},
		    {PLACE_WILDCARD_NAMES, "wildcard_names"}};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]) && !has_wildcard(&section->network); i++) {
		if (section->places[keys[i].place].line)
			config_draft_say(draft, CONFIG_WARNING, section->places[keys[i].place],
					 "'%s' has no effect: no rule of [network %s] allows names by a wildcard", keys[i].key,
					 section->network.name);
	}
}

static void say_unknown_use(struct draft *draft, const struct use *use)
{
	const char *names[CONFIG_SECTIONS_MAX];
	char hint[CONFIG_HINT_MAX];
	size_t count = 0;

	for (size_t i = 0; i < draft->section_count; i++) {
		if (draft->sections[i]->kind == SECTION_RULES)
			names[count++] = draft->sections[i]->name;
	}
	config_draft_say(draft, CONFIG_ERROR, use->source, "there is no [rules %.80s]%s", use->name,
			 config_hint(use->name, names, count, hint));
}

/* Deny rules keep all ports: `ports =` must not make a denial smaller than what it says. */
static bool has_default_ports(const struct rule *rule)
{
	return rule->kind == RULE_NAME && rule->action == RULE_ALLOW && !rule->ports_given;
}

/* The network's own rules; nobody else has them. */
static void apply_default_ports(struct network *network)
{
	for (size_t i = 0; network->default_ports_given && i < network->rule_count; i++) {
		if (has_default_ports(network->rules[i]))
			network->rules[i]->ports = network->default_ports;
	}
}

/* Rules of a list with other ports: copies of those that it makes a difference for. */
static struct variant *make_variant(struct draft *draft, const struct section *list, const struct ports *ports)
{
	struct variant *variant = calloc(1, sizeof(*variant));

	if (variant)
		variant->rules = calloc(list->network.rule_count + 1, sizeof(struct rule *));
	if (!variant || !variant->rules) {
		draft->no_memory = true;
		free(variant);
		return NULL;
	}
	variant->ports = *ports;
	for (size_t i = 0; i < list->network.rule_count && !draft->no_memory; i++) {
		struct rule copy = *list->network.rules[i];

		copy.ports = *ports;
		variant->rules[i] = has_default_ports(&copy) ? config_rules_keep(draft, &copy) : list->network.rules[i];
	}
	return variant;
}

/* The rules of a list as this network has them. Networks with the same ports share them. Return: NULL when out of memory. */
static struct rule **rules_for(struct draft *draft, struct section *list, const struct network *network)
{
	struct variant *variant = list->variants;

	if (!network->default_ports_given)
		return list->network.rules;
	while (variant && !ports_equal(&variant->ports, &network->default_ports))
		variant = variant->next;
	if (variant)
		return variant->rules;
	variant = make_variant(draft, list, &network->default_ports);
	if (!variant)
		return NULL;
	variant->next = list->variants;
	list->variants = variant;
	return variant->rules;
}

static void follow_use(struct draft *draft, struct section *section, const struct use *use)
{
	struct section *list = config_draft_find(draft, SECTION_RULES, use->name);
	struct rule **rules;

	if (!list) {
		say_unknown_use(draft, use);
		return;
	}
	list->used = true;
	rules = rules_for(draft, list, &section->network);
	for (size_t i = 0; rules && i < list->network.rule_count && !draft->no_memory; i++)
		config_rules_append(draft, section, rules[i]);
}

static int compare_patterns(const struct pattern *a, const struct pattern *b)
{
	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	if (a->base.length != b->base.length)
		return a->base.length < b->base.length ? -1 : 1;
	return memcmp(a->base.wire, b->base.wire, a->base.length);
}

static int compare_prefixes(const struct prefix *a, const struct prefix *b)
{
	int order = address_compare(&a->address, &b->address);

	return order ? order : (int)a->length - (int)b->length;
}

/* Equal: the rules say the same. */
static int compare_meaning(const struct rule *a, const struct rule *b)
{
	int order;

	if (a->action != b->action)
		return a->action < b->action ? -1 : 1;
	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	order = a->kind == RULE_NAME ? compare_patterns(&a->pattern, &b->pattern) : compare_prefixes(&a->prefix, &b->prefix);
	if (order)
		return order;
	return memcmp(&a->ports, &b->ports, sizeof(a->ports));
}

/* Places in a network's list: equal rules stay in the order of reading. */
static int compare_rules(const void *left, const void *right)
{
	struct rule **const *a = left, **const *b = right;
	int order = compare_meaning(**a, **b);

	return order ? order : (*a < *b ? -1 : *a > *b);
}

static void warn_repeated_rules(struct draft *draft, const struct network *network)
{
	struct rule ***sorted;

	if (network->rule_count < 2)
		return;
	sorted = calloc(network->rule_count, sizeof(*sorted));
	if (!sorted) {
		draft->no_memory = true;
		return;
	}
	for (size_t i = 0; i < network->rule_count; i++)
		sorted[i] = &network->rules[i];
	qsort(sorted, network->rule_count, sizeof(*sorted), compare_rules);
	for (size_t i = 1; i < network->rule_count; i++) {
		const struct rule *first = *sorted[i - 1], *again = *sorted[i];

		if (compare_meaning(first, again) == 0)
			config_draft_say(draft, CONFIG_WARNING, again->source, "'%.80s' is already in [network %s], at %s:%u", again->text,
					 network->name, first->source.file, first->source.line);
	}
	free(sorted);
}

static void settle_network(struct draft *draft, struct section *section)
{
	struct network *network = &section->network;

	if (!section->places[PLACE_SUBNET].line)
		config_draft_say(draft, CONFIG_ERROR, section->source, "[network %s] has no 'subnet'", network->name);
	settle_gateway(draft, section, &network->subnet4, &network->gateway4, PLACE_GATEWAY4);
	settle_gateway(draft, section, &network->subnet6, &network->gateway6, PLACE_GATEWAY6);
	settle_audit(draft, section);
	settle_verify(draft, section);
	apply_default_ports(network);
	for (size_t i = 0; i < section->use_count; i++)
		follow_use(draft, section, &section->uses[i]);
	settle_wildcards(draft, section);
	config_virtual_settle(draft, section);
	config_publish_settle(draft, section);
	warn_repeated_rules(draft, network);
}

static void check_overlap(struct draft *draft, const struct section *first, const struct section *second, enum place place)
{
	const struct prefix *a = place == PLACE_SUBNET4 ? &first->network.subnet4 : &first->network.subnet6;
	const struct prefix *b = place == PLACE_SUBNET4 ? &second->network.subnet4 : &second->network.subnet6;
	const struct source *where = &first->places[place];
	char text[2][ADDRESS_TEXT_MAX];

	if (!a->address.family || !b->address.family || (!prefix_covers(a, b) && !prefix_covers(b, a)))
		return;
	config_draft_say(draft, CONFIG_ERROR, second->places[place], "the subnet %s overlaps %s of [network %s] at %s:%u",
			 prefix_format(b, text[0]), prefix_format(a, text[1]), first->network.name, where->file, where->line);
}

static void check_overlaps(struct draft *draft)
{
	for (size_t i = 0; i < draft->section_count; i++) {
		if (draft->sections[i]->kind != SECTION_NETWORK)
			continue;
		for (size_t j = 0; j < i; j++) {
			if (draft->sections[j]->kind != SECTION_NETWORK)
				continue;
			check_overlap(draft, draft->sections[j], draft->sections[i], PLACE_SUBNET4);
			check_overlap(draft, draft->sections[j], draft->sections[i], PLACE_SUBNET6);
		}
	}
}

/* Upstreams */

static void settle_upstream(struct draft *draft, struct section *section)
{
	struct upstream_group *group = &section->group;
	bool named = section->name[0];

	if (!group->server_count && !group->automatic) {
		if (named && !section->places[PLACE_SERVER].line)
			config_draft_say(draft, CONFIG_ERROR, section->source, "[upstream %s] has no 'server'", section->name);
		group->automatic = true;
	}
	if (section->places[PLACE_CA].line && (!group->server_count || !group->servers[0].tls_name))
		config_draft_say(draft, CONFIG_ERROR, section->places[PLACE_CA],
				 "'ca' without a tls:// server: questions would be sent in clear; write server = tls://ADDRESS#NAME");
	if (named && !section->places[PLACE_MATCH].line)
		config_draft_say(draft, CONFIG_ERROR, section->source, "[upstream %s] has no 'match': no name would ever be asked there",
				 section->name);
	if (!named && group->match_count)
		config_draft_say(draft, CONFIG_ERROR, section->match_sources[0],
				 "'match' belongs into an [upstream NAME]: [upstream] is for all other names");
}

struct match {
	const struct pattern *pattern;
	const struct section *section;
	struct source source;
};

static int compare_matches(const void *left, const void *right)
{
	const struct match *a = left, *b = right;
	int order = compare_patterns(a->pattern, b->pattern);

	/* Pattern arrays of sections lie anywhere: order equal ones by where they were written. */
	if (!order && a->section == b->section)
		return a->pattern < b->pattern ? -1 : a->pattern > b->pattern;
	return order ? order : (a->section->source.line < b->section->source.line ? -1 : 1);
}

static size_t collect_matches(const struct draft *draft, struct match *out)
{
	size_t count = 0;

	for (size_t i = 0; i < draft->section_count; i++) {
		const struct section *section = draft->sections[i];

		for (size_t j = 0; j < section->group.match_count; j++, count++) {
			if (out)
				out[count] = (struct match){&section->group.matches[j], section, section->match_sources[j]};
		}
	}
	return count;
}

/* One name may belong to one upstream only. */
static void check_matches(struct draft *draft)
{
	size_t count = collect_matches(draft, NULL);
	struct match *matches = calloc(count + 1, sizeof(*matches));

	if (!matches) {
		draft->no_memory = true;
		return;
	}
	collect_matches(draft, matches);
	qsort(matches, count, sizeof(*matches), compare_matches);
	for (size_t i = 1; i < count; i++) {
		const struct match *first = &matches[i - 1], *again = &matches[i];
		char text[DOMAIN_TEXT_MAX], title[TITLE_MAX];

		if (compare_patterns(first->pattern, again->pattern) != 0)
			continue;
		config_draft_say(draft, first->section == again->section ? CONFIG_WARNING : CONFIG_ERROR, again->source,
				 "'match = %.300s' is already in %s, at %s:%u", pattern_format(again->pattern, text),
				 config_draft_title(first->section, title), first->source.file, first->source.line);
	}
	free(matches);
}

/* The move into the policy: what was moved is not the section's any more. */

static void move_network(struct policy *policy, struct section *section)
{
	struct network *network = &policy->networks[policy->network_count];

	*network = section->network;
	network->id = (uint16_t)policy->network_count++;
	section->network.rules = NULL;
	section->network.privates = NULL;
	section->network.publishes = NULL;
}

static void move_upstream(struct policy *policy, struct section *section)
{
	policy->upstreams[policy->upstream_count++] = section->group;
	section->group.matches = NULL;
	section->group.privates = NULL;
}

static size_t count_kind(const struct draft *draft, enum section_kind kind)
{
	size_t count = 0;

	for (size_t i = 0; i < draft->section_count; i++)
		count += draft->sections[i]->kind == kind;
	return count;
}

static void release_upstreams(struct policy *policy)
{
	for (size_t i = 0; i < policy->upstream_count; i++) {
		free(policy->upstreams[i].matches);
		free(policy->upstreams[i].privates);
	}
	free(policy->upstreams);
	policy->upstreams = NULL;
	policy->upstream_count = 0;
}

static void move_upstreams(struct draft *draft)
{
	struct section *standard = config_draft_find(draft, SECTION_UPSTREAM, "");
	struct policy *policy = draft->policy;

	release_upstreams(policy);
	policy->upstreams = calloc(count_kind(draft, SECTION_UPSTREAM) + 1, sizeof(*policy->upstreams));
	if (!policy->upstreams) {
		draft->no_memory = true;
		return;
	}
	for (size_t i = 0; i < draft->section_count; i++) {
		if (draft->sections[i]->kind == SECTION_UPSTREAM && draft->sections[i] != standard)
			move_upstream(policy, draft->sections[i]);
	}
	if (standard)
		move_upstream(policy, standard);
	else
		policy->upstreams[policy->upstream_count++] = (struct upstream_group){.automatic = true, .source = {draft->files[0], 0}};
}

static void move_networks(struct draft *draft)
{
	struct policy *policy = draft->policy;
	size_t count = count_kind(draft, SECTION_NETWORK);

	free(policy->networks);
	policy->network_count = 0;
	policy->networks = calloc(count ? count : 1, sizeof(*policy->networks));
	if (!policy->networks) {
		draft->no_memory = true;
		return;
	}
	for (size_t i = 0; i < draft->section_count; i++) {
		if (draft->sections[i]->kind == SECTION_NETWORK)
			move_network(policy, draft->sections[i]);
	}
}

static void pause_draft(void *draft)
{
	config_draft_pause(draft);
}

static void complete_policy(struct draft *draft)
{
	char error[CONFIG_HINT_MAX] = "";
	struct source where = {0};
	int status;

	move_upstreams(draft);
	move_networks(draft);
	if (draft->no_memory)
		return;
	status = policy_finish_slowly(draft->policy, error, sizeof(error), &where, pause_draft, draft);
	if (status == -ENOMEM)
		draft->no_memory = true;
	else if (status)
		config_draft_say(draft, CONFIG_ERROR, where.file ? where : (struct source){.file = draft->files[0]}, "%s", error);
}

static void check_networks(struct draft *draft)
{
	size_t count = count_kind(draft, SECTION_NETWORK);
	struct source start = {draft->files[0] ? draft->files[0] : "policy", 0};

	if (!count)
		config_draft_say(draft, CONFIG_ERROR, start, "there is no [network NAME] section: nothing would be let through");
	if (count > POLICY_NETWORKS_MAX)
		config_draft_say(draft, CONFIG_ERROR, start, "more than %d networks", POLICY_NETWORKS_MAX);
	check_overlaps(draft);
}

static void warn_unused(struct draft *draft)
{
	for (size_t i = 0; i < draft->section_count; i++) {
		const struct section *section = draft->sections[i];

		if (section->kind == SECTION_RULES && !section->used)
			config_draft_say(draft, CONFIG_WARNING, section->source, "no network says 'use = %s'", section->name);
	}
}

void config_finish(struct draft *draft)
{
	for (size_t i = 0; i < draft->section_count; i++) {
		if (draft->sections[i]->kind == SECTION_NETWORK)
			settle_network(draft, draft->sections[i]);
		else if (draft->sections[i]->kind == SECTION_UPSTREAM)
			settle_upstream(draft, draft->sections[i]);
		else if (draft->sections[i]->kind == SECTION_GATEWAY)
			config_notify_settle(draft, draft->sections[i]);
		config_draft_pause(draft);
	}
	check_networks(draft);
	config_publish_compare(draft);
	config_http_settle(draft);
	check_matches(draft);
	warn_unused(draft);
	config_draft_pause(draft);
	if (!draft->messages->errors && !draft->no_memory)
		complete_policy(draft);
	if (!draft->messages->errors && !draft->no_memory)
		config_notify_check(draft);
}
