/* SPDX-License-Identifier: MIT */
/*
 * From rows of the statistics to rules.
 *
 * Theory of operation: the rows of a network are gone through twice. Questions first, so that it is known which names the network's own
 * apps asked for: a rule for a name opens an address only for who asks for that name. Then flows: each is judged by the running policy, and
 * becomes a port of its name's rule, or of its address's when no answer showed the address to the network.
 *
 * When several names have one address, a flow to it is told as that of the name that was shown last. So a name for which no flow was told,
 * but whose address had flows, gets the ports of these.
 */
#include "gateway/report/suggest.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"
#include "gateway/classify.h"
#include "gateway/report/advice.h"
#include "gateway/report/suggest_internal.h"
#include "resolver/judge.h"

#define GUESSED_PORT 443
#define WHAT_MAX     (DOMAIN_TEXT_MAX + 32)
#define WHY_MAX      ADVICE_TEXT_MAX

/* A rule that grows. */
struct entry {
	UT_hash_handle hh; /* the key is in `suggestion` */
	struct suggestion suggestion;
	struct ports shared; /* of flows to addresses of this name that were told as those of others */
};

struct collection {
	struct verdicts verdicts;
	struct lease_table *leases; /* NULL: nothing is known */
	struct suggestions *out;
	struct entry *names, *addresses; /* owned, hashes */
	bool denied;
	bool no_memory;
};

/* What is wanted of a row: flows, or questions, that a rule is looked for. */
static uint64_t weight(const struct collection *collection, const struct stats_row *row)
{
	return row->numbers.audited + (collection->denied ? row->numbers.denied : 0);
}

static bool is_wanted(const struct collection *collection, const struct stats_row *row)
{
	return weight(collection, row) > 0 && strcmp(row->network, collection->verdicts.network->name) == 0;
}

static bool has_name(const struct stats_row *row)
{
	return row->name.length > 0;
}

static void skip(struct collection *collection, const char *what, const char *why, uint64_t count)
{
	if (suggest_skip(collection->out, what, why, count) != 0)
		collection->no_memory = true;
}

/* "evil.example", "evil.example:443/tcp", "[2001:db8::5]:443/udp", "other destinations of web-1" */
static const char *describe(const struct stats_row *row, char out[static WHAT_MAX])
{
	char text[DOMAIN_TEXT_MAX] = "", port[16] = "", protocol[8];
	bool is_ipv6 = !has_name(row) && row->destination.family == AF_INET6;

	if (!has_name(row) && !row->destination.family) {
		snprintf(out, WHAT_MAX, "other destinations of %.*s", APPS_NAME_MAX, *row->app ? row->app : "other apps");
		return out;
	}
	if (has_name(row))
		domain_format(&row->name, text);
	else
		address_format(&row->destination, text);
	if (row->has_port && row->port)
		snprintf(port, sizeof(port), ":%u", row->port);
	snprintf(out, WHAT_MAX, "%s%s%s%s%s%s", is_ipv6 ? "[" : "", text, is_ipv6 ? "]" : "", port, row->question ? "" : "/",
		 row->question ? "" : decision_protocol_name(row->protocol, protocol));
	return out;
}

static void skip_row(struct collection *collection, const struct stats_row *row, const char *why)
{
	char what[WHAT_MAX];

	skip(collection, describe(row, what), why, weight(collection, row));
}

static void skip_denied(struct collection *collection, const struct stats_row *row, const struct verdict *verdict)
{
	bool by_chain = has_name(row) && verdict->by.length && !domain_equal(&verdict->by, &row->name);
	char why[WHY_MAX], by[DOMAIN_TEXT_MAX];

	snprintf(why, sizeof(why), "denied by %.200s:%u, deny = %.300s%s%s: change that rule if it should pass",
		 verdict->rule ? verdict->rule->source.file : "", verdict->rule ? verdict->rule->source.line : 0,
		 verdict->rule ? verdict->rule->text : "", by_chain ? ", which its answer leads through: " : "",
		 by_chain ? domain_format(&verdict->by, by) : "");
	skip_row(collection, row, why);
}

/* Special-purpose space: a suggestion that opens it could be somebody's attempt to have it opened. */
static void skip_special(struct collection *collection, const struct stats_row *row)
{
	const char *special = row->destination.family ? address_special(&row->destination) : NULL;
	char why[WHY_MAX], address[ADDRESS_TEXT_MAX];

	if (!row->destination.family) {
		skip_row(collection, row, "its answer pointed into special-purpose space: `private = PREFIX` if it may");
		return;
	}
	snprintf(why, sizeof(why), "%s is %s: if it should pass, %s", address_format(&row->destination, address),
		 special ? special : "in the uplink's own subnet",
		 has_name(row) ? "name it in a rule, or `private =` if answers may show it" : "name it in a rule of its own");
	skip_row(collection, row, why);
}

static void drop_entries(struct entry **table)
{
	struct entry *entry, *next;

	HASH_ITER (hh, *table, entry, next) {
		HASH_DEL(*table, entry);
		suggest_drop(&entry->suggestion);
		free(entry);
	}
}

static struct entry *find_name(const struct collection *collection, const struct domain *name)
{
	struct entry *entry;

	HASH_FIND(hh, collection->names, name->wire, name->length, entry);
	return entry;
}

static struct entry *new_entry(struct collection *collection, struct entry **table, const struct rule *rule, uint64_t count)
{
	struct entry *entry;

	if (HASH_COUNT(collection->names) + HASH_COUNT(collection->addresses) >= SUGGEST_RULES_MAX) {
		collection->out->more_rules += count;
		return NULL;
	}
	entry = calloc(1, sizeof(*entry));
	if (!entry) {
		collection->no_memory = true;
		return NULL;
	}
	entry->suggestion.rule = *rule;
	rule = &entry->suggestion.rule;
	if (rule->kind == RULE_NAME)
		HASH_ADD_KEYPTR(hh, *table, rule->pattern.base.wire, rule->pattern.base.length, entry);
	else
		HASH_ADD_KEYPTR(hh, *table, &rule->prefix.address, sizeof(rule->prefix.address), entry);
	if (entry->hh.tbl)
		return entry;
	free(entry);
	collection->no_memory = true;
	return NULL;
}

/* The name's entry; made when it is missing. Return: NULL when there is no room. */
static struct entry *name_entry(struct collection *collection, const struct domain *name, uint64_t count)
{
	struct rule rule = rule_text_name(name);
	struct entry *entry = find_name(collection, name);

	return entry ? entry : new_entry(collection, &collection->names, &rule, count);
}

static struct entry *address_entry(struct collection *collection, const struct address *address, uint64_t count)
{
	struct rule rule = rule_text_address(address);
	struct entry *entry;

	HASH_FIND(hh, collection->addresses, address, sizeof(*address), entry);
	return entry ? entry : new_entry(collection, &collection->addresses, &rule, count);
}

static void add_app(struct suggestion *suggestion, const struct stats_row *row)
{
	char address[ADDRESS_TEXT_MAX];
	const char *app = *row->app ? row->app : row->source.family ? address_format(&row->source, address) : NULL;

	if (!app)
		return;
	for (size_t i = 0; i < suggestion->app_count; i++) {
		if (strcmp(suggestion->apps[i], app) == 0)
			return;
	}
	if (suggestion->app_count == SUGGEST_APPS_MAX)
		suggestion->more_apps = true;
	else
		snprintf(suggestion->apps[suggestion->app_count++], sizeof(suggestion->apps[0]), "%.*s", APPS_NAME_MAX, app);
}

/* The first names of a chain that are not there yet. */
static void add_chain(struct collection *collection, struct suggestion *suggestion, const struct chain *chain)
{
	struct chain rest = *chain;
	struct domain name;

	if (chain->length && !suggestion->chain)
		suggestion->chain = calloc(SUGGEST_CHAIN_MAX, sizeof(*suggestion->chain));
	if (chain->length && !suggestion->chain)
		collection->no_memory = true;
	while (suggestion->chain && suggestion->chain_count < SUGGEST_CHAIN_MAX && chain_next(&rest, &name)) {
		size_t i = 0;

		while (i < suggestion->chain_count && !domain_equal(&suggestion->chain[i], &name))
			i++;
		if (i == suggestion->chain_count)
			suggestion->chain[suggestion->chain_count++] = name;
	}
}

static struct verdict_target target_of(const struct stats_row *row)
{
	struct verdict_target target = {.name = has_name(row) ? &row->name : NULL};

	if (row->question)
		return target;
	target.address = row->destination;
	target.port = row->port;
	target.protocol = row->protocol;
	return target;
}

/* Questions */

/* Why a question gets no rule, or NULL. */
static const char *find_question_obstacle(const struct stats_row *row)
{
	/* What audit mode let pass was about a rule, whatever came later. */
	const char *useless = row->numbers.audited ? NULL : advice_on_reason(row->reason);

	if (has_name(row) && judge_is_reverse(&row->name))
		return advice_on_reverse();
	return has_name(row) || useless ? useless : advice_on_reason(REASON_MALFORMED);
}

static void take_question(struct collection *collection, const struct stats_row *row)
{
	struct verdict_target target = target_of(row);
	struct verdict verdict = verdict_of_name(&collection->verdicts, &target);
	struct entry *entry;

	if (verdict.reason == REASON_LOCAL_NAME) {
		skip_row(collection, row, advice_on_reason(REASON_LOCAL_NAME));
	} else if (!row->numbers.audited && row->reason == REASON_REBINDING) {
		skip_special(collection, row);
	} else if (verdict.reason == REASON_DENIED_BY_RULE) {
		skip_denied(collection, row, &verdict);
	} else if (!verdict.allowed) {
		entry = name_entry(collection, &row->name, weight(collection, row));
		if (!entry)
			return;
		entry->suggestion.questions += weight(collection, row);
		add_app(&entry->suggestion, row);
	}
}

static void visit_question(void *context, const struct stats_row *row)
{
	struct collection *collection = context;
	const char *obstacle;

	if (!row->question || !is_wanted(collection, row))
		return;
	obstacle = find_question_obstacle(row);
	if (obstacle)
		skip_row(collection, row, obstacle);
	else
		take_question(collection, row);
}

/* Flows */

/* Did the network's own apps ask for the name? Unless it is known that they did not. */
static bool is_asked_for(const struct collection *collection, const struct stats_row *row)
{
	struct verdict_target target = target_of(row);

	return find_name(collection, &row->name) || !verdict_is_foreign(&collection->verdicts, &target);
}

static void add_flow(struct collection *collection, struct entry *entry, const struct stats_row *row)
{
	if (!suggest_add_port(&entry->suggestion.rule.ports, row->protocol, row->port))
		entry->suggestion.note = "with ports between those that were seen: there were too many for a rule";
	entry->suggestion.flows += weight(collection, row);
	add_app(&entry->suggestion, row);
}

/* A flow, and the names that its address has. */
struct sharing {
	struct collection *collection;
	const struct stats_row *row;
};

static void share_port(void *context, struct lease *lease)
{
	const struct sharing *sharing = context;
	struct entry *entry = find_name(sharing->collection, &lease->name);

	if (entry)
		suggest_add_port(&entry->shared, sharing->row->protocol, sharing->row->port);
}

/* A deny rule for the address wins over all rules for names. */
static struct verdict judge_named(const struct collection *collection, const struct stats_row *row)
{
	struct verdict_target target = target_of(row);
	struct verdict address = {.reason = REASON_NONE};

	if (row->destination.family)
		address = verdict_of_address(&collection->verdicts, &target);
	return address.reason == REASON_DENIED_BY_RULE ? address : verdict_of_name(&collection->verdicts, &target);
}

/* The rules let the name pass, but not what its flow was like. */
static bool is_about_flow(enum reason reason)
{
	return reason == REASON_LEASE_EXPIRED || reason == REASON_NO_NAME || reason == REASON_MALFORMED;
}

static void take_named(struct collection *collection, const struct stats_row *row)
{
	struct verdict verdict = judge_named(collection, row);
	struct sharing sharing = {collection, row};
	struct entry *entry = NULL;

	if (collection->leases && row->destination.family)
		lease_visit(collection->leases, collection->verdicts.network->id, &row->destination, share_port, &sharing);
	if (verdict.reason == REASON_LOCAL_NAME)
		skip_row(collection, row, advice_on_reason(REASON_LOCAL_NAME));
	else if (verdict.reason == REASON_DENIED_BY_RULE)
		skip_denied(collection, row, &verdict);
	else if (verdict.allowed && is_about_flow(row->reason))
		skip_row(collection, row, advice_on_reason(row->reason));
	else if (!verdict.allowed)
		entry = name_entry(collection, &row->name, weight(collection, row));
	if (!entry)
		return;
	add_flow(collection, entry, row);
	add_chain(collection, &entry->suggestion, &verdict.chain);
}

static void take_address(struct collection *collection, const struct stats_row *row)
{
	const char *useless = advice_on_address(collection->verdicts.network, &row->destination);
	struct verdict_target target = target_of(row);
	struct verdict verdict = verdict_of_address(&collection->verdicts, &target);
	char text[DOMAIN_TEXT_MAX];
	struct entry *entry;

	if (verdict.allowed)
		return;
	if (verdict.reason == REASON_DENIED_BY_RULE || useless || verdict.reason == REASON_SPECIAL_ADDRESS) {
		if (verdict.reason == REASON_DENIED_BY_RULE)
			skip_denied(collection, row, &verdict);
		else if (useless)
			skip_row(collection, row, useless);
		else
			skip_special(collection, row);
		return;
	}
	entry = address_entry(collection, &row->destination, weight(collection, row));
	if (!entry)
		return;
	add_flow(collection, entry, row);
	if (has_name(row) && !entry->suggestion.known_as)
		entry->suggestion.known_as = strdup(domain_format(&row->name, text));
}

/* Why no rule is looked for, or NULL. */
static const char *find_obstacle(const struct stats_row *row)
{
	if (!has_name(row) && !row->destination.family)
		return "there were too many to keep each: the log has them";
	if (!row->numbers.audited && row->reason != REASON_LEASE_EXPIRED && advice_on_reason(row->reason))
		return advice_on_reason(row->reason);
	if ((row->protocol != IPPROTO_TCP && row->protocol != IPPROTO_UDP) || !row->has_port || !row->port)
		return advice_on_reason(REASON_PROTOCOL_NOT_ALLOWED);
	return NULL;
}

static void visit_flow(void *context, const struct stats_row *row)
{
	struct collection *collection = context;
	const char *obstacle;

	if (row->question || !is_wanted(collection, row))
		return;
	obstacle = find_obstacle(row);
	if (obstacle)
		skip_row(collection, row, obstacle);
	else if (!row->numbers.audited && (row->reason == REASON_SPECIAL_ADDRESS || row->reason == REASON_REBINDING))
		skip_special(collection, row);
	else if (has_name(row) && is_asked_for(collection, row))
		take_named(collection, row);
	else if (row->destination.family)
		take_address(collection, row);
}

/* Names without flows get ports; all become a list. */
static void settle_ports(struct entry *entry)
{
	struct suggestion *suggestion = &entry->suggestion;

	if (!ports_is_empty(&suggestion->rule.ports))
		return;
	if (!ports_is_empty(&entry->shared)) {
		suggestion->rule.ports = entry->shared;
		suggestion->note = "flows to its address were told by another name";
	} else {
		suggestion->rule.ports = rule_text_ports(0, GUESSED_PORT);
		suggestion->is_guess = true;
		suggestion->note = "no flow seen";
	}
}

static void move_entries(struct entry **table, struct suggestions *out)
{
	struct entry *entry, *next;

	HASH_ITER (hh, *table, entry, next) {
		settle_ports(entry);
		HASH_DEL(*table, entry);
		out->rules[out->rule_count++] = entry->suggestion;
		free(entry);
	}
}

static int finish(struct collection *collection)
{
	struct suggestions *out = collection->out;
	size_t count = HASH_COUNT(collection->names) + HASH_COUNT(collection->addresses);

	out->rules = collection->no_memory ? NULL : calloc(count + 1, sizeof(*out->rules));
	if (!out->rules)
		return -ENOMEM;
	move_entries(&collection->names, out);
	move_entries(&collection->addresses, out);
	return suggest_shape(collection->verdicts.network, out);
}

static bool is_section_taken(const struct policy *policy, const char *section)
{
	for (size_t i = 0; i < policy->network_count; i++) {
		const struct network *network = &policy->networks[i];
		const char *last = NULL;

		for (size_t j = 0; j < network->rule_count; j++) {
			const char *title = network->rules[j]->section;

			if (title && title != last && strcmp(title + strlen("rules "), section) == 0)
				return true;
			last = title;
		}
	}
	return false;
}

/* "suggested-web", or "suggested-web-2" when that is in use. Names of networks that are too long are told apart by their number. */
static void name_section(const struct policy *policy, const struct network *network, char out[static POLICY_NAME_MAX + 1])
{
	bool is_long = strlen(network->name) > POLICY_NAME_MAX - strlen("suggested--999");

	for (unsigned int try = 1; try <= 999; try++) {
		char number[8] = "", again[8] = "";

		if (is_long)
			snprintf(number, sizeof(number), "-%u", (unsigned int)(network - policy->networks) % POLICY_NETWORKS_MAX);
		if (try > 1)
			snprintf(again, sizeof(again), "-%u", try);
		snprintf(out, POLICY_NAME_MAX + 1, "suggested-%.*s%s%s", is_long ? 14 : POLICY_NAME_MAX, network->name, number, again);
		if (!is_section_taken(policy, out))
			return;
	}
}

int suggest_make(const struct policy *policy, const struct network *network, struct lease_table *leases, const struct suggest_rows *rows,
		 bool denied, time_t wall, struct suggestions *out)
{
	struct collection collection = {.leases = leases, .out = out, .denied = denied};
	int rc;

	memset(out, 0, sizeof(*out));
	name_section(policy, network, out->section);
	rc = verdicts_open(&collection.verdicts, policy, network, leases, wall);
	if (rc != 0)
		return rc;
	rows->each(rows->context, visit_question, &collection);
	rows->each(rows->context, visit_flow, &collection);
	rc = finish(&collection);
	drop_entries(&collection.names);
	drop_entries(&collection.addresses);
	verdicts_close(&collection.verdicts);
	return rc;
}
