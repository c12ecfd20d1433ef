/* SPDX-License-Identifier: MIT */
/* The control command "suggest". */
#include "gateway/report/suggest.h"

#include <string.h>

static json_t *apps_json(const struct suggestion *suggestion)
{
	json_t *list = json_array();

	for (size_t i = 0; i < suggestion->app_count; i++)
		json_array_append_new(list, json_string(suggestion->apps[i]));
	return list;
}

static json_t *chain_json(const struct suggestion *suggestion)
{
	char text[DOMAIN_TEXT_MAX];
	json_t *list = json_array();

	for (size_t i = 0; i < suggestion->chain_count; i++)
		json_array_append_new(list, json_string(domain_format(&suggestion->chain[i], text)));
	return list;
}

static json_t *rule_json(const struct suggestion *suggestion)
{
	const struct rule *rule = &suggestion->rule;
	bool is_name = rule->kind == RULE_NAME;
	char name[DOMAIN_TEXT_MAX], address[ADDRESS_TEXT_MAX], ports[PORTS_TEXT_MAX];

	return json_pack("{s:s, s:s?, s:s?, s:s, s:I, s:I, s:o, s:b, s:o, s:s?, s:s?}", "rule", suggestion->text, "name",
			 is_name ? domain_format(&rule->pattern.base, name) : NULL, "address",
			 is_name ? NULL : address_format(&rule->prefix.address, address), "ports", ports_format(&rule->ports, ports),
			 "flows", (json_int_t)suggestion->flows, "questions", (json_int_t)suggestion->questions, "apps",
			 apps_json(suggestion), "more_apps", suggestion->more_apps, "chain", chain_json(suggestion), "note",
			 suggestion->note, "known_as", suggestion->known_as);
}

static json_t *wildcard_json(const struct suggestions *suggestions, const struct suggest_wildcard *wildcard)
{
	char text[DOMAIN_TEXT_MAX];
	json_t *names = json_array();

	for (size_t i = 0; i < wildcard->count; i++)
		json_array_append_new(names, json_string(domain_format(&suggestions->rules[wildcard->first + i].rule.pattern.base, text)));
	return json_pack("{s:s, s:s, s:o, s:I}", "rule", wildcard->text, "parent", domain_format(&wildcard->parent, text), "names", names,
			 "flows", (json_int_t)wildcard->flows);
}

static json_t *skipped_json(const struct suggest_skipped *skipped)
{
	return json_pack("{s:o, s:o, s:I}", "what", rule_text_json(skipped->what), "why", rule_text_json(skipped->why), "count",
			 (json_int_t)skipped->count);
}

static json_t *suggestions_json(const struct network *network, const struct suggestions *suggestions, time_t wall)
{
	json_t *rules = json_array(), *wildcards = json_array(), *skipped = json_array();

	for (size_t i = 0; i < suggestions->rule_count; i++)
		json_array_append_new(rules, rule_json(&suggestions->rules[i]));
	for (size_t i = 0; i < suggestions->wildcard_count; i++)
		json_array_append_new(wildcards, wildcard_json(suggestions, &suggestions->wildcards[i]));
	for (size_t i = 0; i < suggestions->skipped_count; i++)
		json_array_append_new(skipped, skipped_json(&suggestions->skipped[i]));
	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:I, s:I}", "network", network->name, "mode",
			 policy_is_auditing(network, wall) ? "audit" : "enforce", "section", suggestions->section, "rules", rules,
			 "wildcards", wildcards, "skipped", skipped, "more_rules", (json_int_t)suggestions->more_rules, "more_skipped",
			 (json_int_t)suggestions->more_skipped);
}

static void each_row(const void *context, void (*visit)(void *visit_context, const struct stats_row *row), void *visit_context)
{
	stats_each(context, visit, visit_context);
}

static json_t *refusal(const char *text)
{
	return json_pack("{s:b, s:s}", "ok", 0, "error", text);
}

json_t *suggest_answer(const struct policy *policy, const struct stats *stats, struct lease_table *leases, const json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "network"));
	bool denied = json_is_true(json_object_get(request, "denied"));
	const struct suggest_rows rows = {each_row, stats};
	json_t *networks = json_array();
	time_t wall = time(NULL);
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < policy->network_count; i++) {
		const struct network *network = &policy->networks[i];
		struct suggestions suggestions;

		if (name && strcmp(name, network->name) != 0)
			continue;
		rc = suggest_make(policy, network, leases, &rows, denied, wall, &suggestions);
		if (rc == 0)
			json_array_append_new(networks, suggestions_json(network, &suggestions, wall));
		suggest_free(&suggestions);
	}
	if (rc == 0 && (!name || json_array_size(networks) > 0))
		return json_pack("{s:b, s:o}", "ok", 1, "networks", networks);
	json_decref(networks);
	return refusal(rc == 0 ? "the running policy has no such network" : "out of memory");
}
