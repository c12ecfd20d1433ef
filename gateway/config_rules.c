/* SPDX-License-Identifier: MIT */
/* What each key does with one of its values: parse it, store it in the section. */

#include "gateway/config_rules.h"

#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mapping.h"
#include "gateway/config_ca.h"
#include "gateway/config_values.h"

#define SHOWN "80" /* characters of a bad value that a message repeats, as a printf precision */

#define SAY_ERROR(draft, ...)   config_draft_say(draft, CONFIG_ERROR, (draft)->here, __VA_ARGS__)
#define SAY_WARNING(draft, ...) config_draft_say(draft, CONFIG_WARNING, (draft)->here, __VA_ARGS__)

/* Report a complaint. Return: @good. */
static bool report(struct draft *draft, bool good, const struct config_complaint *complaint)
{
	if (!good)
		SAY_ERROR(draft, "%s", complaint->error);
	else if (complaint->warning[0])
		SAY_WARNING(draft, "%s", complaint->warning);
	return good;
}

struct rule *config_rules_keep(struct draft *draft, const struct rule *rule)
{
	struct rule *kept = policy_rule(draft->policy, rule);

	draft->no_memory |= !kept;
	return kept;
}

void config_rules_append(struct draft *draft, struct section *section, struct rule *rule)
{
	struct rule **rules;

	if (draft->rule_count == CONFIG_RULES_MAX) {
		config_draft_say(draft, CONFIG_ERROR, rule->source, "more than %lu rules", CONFIG_RULES_MAX);
		draft->rule_count++; /* say it once */
	}
	if (draft->rule_count > CONFIG_RULES_MAX)
		return;
	rules = config_draft_grow(draft, section->network.rules, section->network.rule_count, sizeof(*rules));
	if (!rules)
		return;
	section->network.rules = rules;
	rules[section->network.rule_count++] = rule;
	draft->rule_count++;
}

static void add_rule(struct draft *draft, struct section *section, enum rule_action action, const char *value)
{
	struct rule rule = {.action = action, .source = draft->here}, *kept;
	struct config_complaint complaint = {0};

	if (!report(draft, config_value_rule(value, &rule, &complaint), &complaint))
		return;
	rule.text = config_draft_keep(draft, value);
	rule.section = section->rules_title;
	kept = rule.text ? config_rules_keep(draft, &rule) : NULL;
	if (kept)
		config_rules_append(draft, section, kept);
}

void config_rules_allow(struct draft *draft, struct section *section, const char *value)
{
	add_rule(draft, section, RULE_ALLOW, value);
}

void config_rules_deny(struct draft *draft, struct section *section, const char *value)
{
	add_rule(draft, section, RULE_DENY, value);
}

/* Whether the section exists is known only at the end of the text. */
void config_rules_use(struct draft *draft, struct section *section, const char *value)
{
	struct use *uses;

	for (size_t i = 0; i < section->use_count; i++) {
		if (strcmp(section->uses[i].name, value) == 0) {
			SAY_WARNING(draft, "'use = %." SHOWN "s' is given twice; first at %s:%u", value, section->uses[i].source.file,
				    section->uses[i].source.line);
			return;
		}
	}
	if (section->use_count >= CONFIG_SECTIONS_MAX) {
		SAY_ERROR(draft, "more than %d 'use' in one network", CONFIG_SECTIONS_MAX);
		return;
	}
	uses = config_draft_grow(draft, section->uses, section->use_count, sizeof(*uses));
	if (!uses)
		return;
	section->uses = uses;
	uses[section->use_count] = (struct use){.name = config_draft_keep(draft, value), .source = draft->here};
	if (uses[section->use_count].name)
		section->use_count++;
}

/* @given: there were ports before; else @list holds the default, which they replace. */
static void add_ports(struct draft *draft, const char *key, struct ports *list, bool *given, const char *value)
{
	struct ports ports;
	const char *error = ports_parse(value, &ports);

	if (error) {
		SAY_ERROR(draft, "'%." SHOWN "s': %s", value, error);
		return;
	}
	if (!*given)
		memset(list, 0, sizeof(*list));
	*given = true;
	if (!ports_add(list, &ports))
		SAY_ERROR(draft, "'%s' needs more than %d ranges for one protocol", key, PORTS_RANGES_MAX);
}

void config_rules_ports(struct draft *draft, struct section *section, const char *value)
{
	add_ports(draft, "ports", &section->network.default_ports, &section->network.default_ports_given, value);
}

static void add_private(struct draft *draft, struct prefix **list, size_t *count, const char *value)
{
	struct config_complaint complaint = {0};
	struct prefix prefix, *larger;

	if (!report(draft, config_value_prefix(value, &prefix, &complaint), &complaint))
		return;
	if (prefix.length == 0)
		SAY_WARNING(draft, "'private = %." SHOWN "s' turns the rebinding filter off: any answer may point anywhere", value);
	larger = config_draft_grow(draft, *list, *count, sizeof(*larger));
	if (!larger)
		return;
	*list = larger;
	larger[(*count)++] = prefix;
}

void config_rules_private(struct draft *draft, struct section *section, const char *value)
{
	if (section->kind == SECTION_NETWORK)
		add_private(draft, &section->network.privates, &section->network.private_count, value);
	else
		add_private(draft, &section->group.privates, &section->group.private_count, value);
}

void config_rules_match(struct draft *draft, struct section *section, const char *value)
{
	struct upstream_group *group = &section->group;
	struct config_complaint complaint = {0};
	struct pattern pattern, *matches;
	struct source *sources;

	section->places[PLACE_MATCH] = draft->here;
	if (!report(draft, config_value_pattern(value, &pattern, &complaint), &complaint))
		return;
	matches = config_draft_grow(draft, group->matches, group->match_count, sizeof(*matches));
	if (!matches)
		return;
	group->matches = matches;
	sources = config_draft_grow(draft, section->match_sources, group->match_count, sizeof(*sources));
	if (!sources)
		return;
	section->match_sources = sources;
	sources[group->match_count] = draft->here;
	matches[group->match_count++] = pattern;
}

static void add_server(struct draft *draft, struct section *section, const char *value)
{
	struct upstream_group *group = &section->group;
	struct config_complaint complaint = {0};
	struct upstream_server server;
	char tls_name[CONFIG_TLS_NAME_MAX];

	section->places[PLACE_SERVER] = draft->here;
	if (!report(draft, config_value_server(value, &server, tls_name, &complaint), &complaint))
		return;
	if (*tls_name) {
		server.tls_name = config_draft_keep(draft, tls_name);
		if (!server.tls_name)
			return;
	}
	for (size_t i = 0; i < group->server_count; i++) {
		if (policy_server_equal(&group->servers[i], &server)) {
			SAY_WARNING(draft, "the server '%." SHOWN "s' is given twice", value);
			return;
		}
	}
	if (group->server_count && !group->servers[0].tls_name != !server.tls_name) {
		SAY_ERROR(draft,
			  "'%." SHOWN "s': one section has either tls:// servers or plain ones: with both, whoever blocks the port of "
			  "the first would get the questions in clear",
			  value);
		return;
	}
	if (group->server_count == POLICY_SERVERS_MAX) {
		SAY_ERROR(draft, "more than %d servers", POLICY_SERVERS_MAX);
		return;
	}
	group->servers[group->server_count++] = server;
}

void config_rules_server(struct draft *draft, struct section *section, const char *value)
{
	static const char *const words[] = {"auto"};
	char hint[CONFIG_HINT_MAX];

	if (strcmp(value, words[0]) == 0) {
		section->group.automatic = true;
		section->places[PLACE_AUTO] = draft->here;
	} else if (!strpbrk(value, ".:")) {
		section->places[PLACE_SERVER] = draft->here;
		SAY_ERROR(draft, "'%." SHOWN "s' is not a server%s", value, config_hint(value, words, 1, hint));
	} else {
		add_server(draft, section, value);
	}
	if (section->group.automatic && section->places[PLACE_SERVER].line)
		SAY_ERROR(draft, "'server' is either 'auto' or a list of addresses, not both");
}

void config_rules_ca(struct draft *draft, struct section *section, const char *value)
{
	char error[CONFIG_COMPLAINT_MAX];
	char *text;

	section->places[PLACE_CA] = draft->here;
	if (*value != '/') {
		SAY_ERROR(draft, "'%." SHOWN "s': write the whole path of the file, which begins with '/'", value);
		return;
	}
	text = config_ca_read(value, error, sizeof(error));
	if (!text) {
		SAY_ERROR(draft, "%.300s: %s", value, error);
		return;
	}
	section->group.ca_file = config_draft_keep(draft, value);
	section->group.ca = config_draft_keep(draft, text);
	free(text);
}

/* The first of a family in this section; else false, after saying where that was. */
static bool take_place(struct draft *draft, struct section *section, enum place place, const char *what)
{
	const struct source *first = &section->places[place];

	if (first->line) {
		SAY_ERROR(draft, "a second %s; first at %s:%u", what, first->file, first->line);
		return false;
	}
	section->places[place] = draft->here;
	return true;
}

void config_rules_subnet(struct draft *draft, struct section *section, const char *value)
{
	struct config_complaint complaint = {0};
	struct prefix subnet;

	section->places[PLACE_SUBNET] = draft->here;
	if (!strchr(value, '/')) {
		SAY_ERROR(draft, "'%." SHOWN "s' is not a subnet such as 10.201.1.0/24", value);
		return;
	}
	if (!report(draft, config_value_prefix(value, &subnet, &complaint), &complaint))
		return;
	if (subnet.address.family == AF_INET) {
		if (subnet.length < 8 || subnet.length > 30)
			SAY_ERROR(draft, "'%." SHOWN "s': an IPv4 subnet has a length from /8 to /30", value);
		else if (take_place(draft, section, PLACE_SUBNET4, "IPv4 subnet"))
			section->network.subnet4 = subnet;
	} else if (subnet.length < 16 || subnet.length > 126) {
		SAY_ERROR(draft, "'%." SHOWN "s': an IPv6 subnet has a length from /16 to /126", value);
	} else if (take_place(draft, section, PLACE_SUBNET6, "IPv6 subnet")) {
		section->network.subnet6 = subnet;
	}
}

void config_rules_gateway(struct draft *draft, struct section *section, const char *value)
{
	struct address address;

	if (!address_parse(value, &address))
		SAY_ERROR(draft, "'%." SHOWN "s' is not an address", value);
	else if (address.family == AF_INET && take_place(draft, section, PLACE_GATEWAY4, "IPv4 gateway"))
		section->network.gateway4 = address;
	else if (address.family == AF_INET6 && take_place(draft, section, PLACE_GATEWAY6, "IPv6 gateway"))
		section->network.gateway6 = address;
}

int config_rules_one_of(struct draft *draft, const char *key, const char *value, const char *const *names, size_t count)
{
	char hint[CONFIG_HINT_MAX];

	for (size_t i = 0; i < count; i++) {
		if (strcmp(value, names[i]) == 0)
			return (int)i;
	}
	SAY_ERROR(draft, "'%." SHOWN "s' is no value of '%s'%s", value, key, config_hint(value, names, count, hint));
	return -1;
}

void config_rules_addresses(struct draft *draft, struct section *section, const char *value)
{
	static const char *const names[] = {"routed", "virtual"};
	int kind = config_rules_one_of(draft, "addresses", value, names, 2);

	section->places[PLACE_ADDRESSES] = draft->here;
	section->addresses_unknown = kind < 0;
	section->network.has_virtual_addresses = kind == 1;
}

void config_rules_pool(struct draft *draft, struct section *section, const char *value)
{
	struct config_complaint complaint = {0};
	bool unknown = section->pool_unknown;
	struct prefix pool;

	if (!section->places[PLACE_POOL].line)
		section->places[PLACE_POOL] = draft->here;
	section->pool_unknown = true;
	if (!strchr(value, '/')) {
		SAY_ERROR(draft, "'%." SHOWN "s' is not a pool such as 10.201.1.128/25", value);
		return;
	}
	if (!report(draft, config_value_prefix(value, &pool, &complaint), &complaint))
		return;
	section->pool_unknown = unknown;
	if (pool.address.family == AF_INET && take_place(draft, section, PLACE_POOL4, "IPv4 pool"))
		section->network.pool4 = pool;
	else if (pool.address.family == AF_INET6 && take_place(draft, section, PLACE_POOL6, "IPv6 pool"))
		section->network.pool6 = pool;
}

void config_rules_per_name(struct draft *draft, struct section *section, const char *value)
{
	struct config_complaint complaint = {0};

	section->places[PLACE_PER_NAME] = draft->here;
	report(draft, config_value_number(value, 1, MAPPING_PER_NAME_MAX, &section->network.per_name, &complaint), &complaint);
}

void config_rules_mode(struct draft *draft, struct section *section, const char *value)
{
	static const char *const names[] = {"enforce", "audit"};
	int mode = config_rules_one_of(draft, "mode", value, names, 2);

	if (mode >= 0)
		section->network.mode = mode ? MODE_AUDIT : MODE_ENFORCE;
}

void config_rules_audit_until(struct draft *draft, struct section *section, const char *value)
{
	struct config_complaint complaint = {0};

	section->places[PLACE_AUDIT_UNTIL] = draft->here;
	report(draft, config_value_date(value, &section->network.audit_until, &complaint), &complaint);
}

void config_rules_keep_established(struct draft *draft, struct section *section, const char *value)
{
	static const char *const names[] = {"no", "yes"};
	int keep = config_rules_one_of(draft, "keep_established", value, names, 2);

	if (keep >= 0)
		section->network.keep_established = keep;
}

void config_rules_log_allowed(struct draft *draft, struct section *section, const char *value)
{
	static const char *const names[] = {"off", "summary", "all"}; /* enum log_allowed */
	int chosen = config_rules_one_of(draft, "log_allowed", value, names, 3);

	if (chosen >= 0)
		section->network.log_allowed = (enum log_allowed)chosen;
}

void config_rules_verify(struct draft *draft, struct section *section, const char *value)
{
	static const char *const names[] = {"off", "log", "enforce"}; /* enum network_verify */
	int chosen = config_rules_one_of(draft, "verify", value, names, 3);

	section->verify_unknown = chosen < 0;
	if (chosen >= 0)
		section->network.verify = (enum network_verify)chosen;
}

void config_rules_verify_ports(struct draft *draft, struct section *section, const char *value)
{
	struct source *place = &section->places[PLACE_VERIFY_PORTS];
	bool given = place->line;

	add_ports(draft, "verify_ports", &section->network.verify_ports, &given, value);
	*place = draft->here;
}

void config_rules_without_name(struct draft *draft, struct section *section, const char *value)
{
	static const char *const names[] = {"deny", "allow"};

	section->places[PLACE_WITHOUT_NAME] = draft->here;
	section->network.without_name_allowed = config_rules_one_of(draft, "without_name", value, names, 2) == 1;
}

static bool is_interface_name(const char *text)
{
	return strlen(text) < IFNAMSIZ && !strpbrk(text, "/:") && strcmp(text, ".") != 0 && strcmp(text, "..") != 0;
}

void config_rules_uplink(struct draft *draft, struct section *section, const char *value)
{
	struct config_complaint complaint = {0};
	struct address address;
	struct prefix prefix;

	(void)section;
	if (address_parse(value, &address)) {
		SAY_ERROR(draft, "'%." SHOWN "s' is an address: write auto, an interface name, or the uplink's subnet with its length",
			  value);
		return;
	}
	if (strchr(value, '/')) {
		if (!report(draft, config_value_prefix(value, &prefix, &complaint), &complaint))
			return;
	} else if (!is_interface_name(value)) {
		SAY_ERROR(draft, "'%." SHOWN "s' is not an uplink: write auto, an interface name, or a subnet", value);
		return;
	}
	snprintf(draft->policy->uplink, sizeof(draft->policy->uplink), "%s", value);
}

void config_rules_log(struct draft *draft, struct section *section, const char *value)
{
	static const char *const names[] = {"text", "json"};
	int format = config_rules_one_of(draft, "log", value, names, 2);

	(void)section;
	if (format >= 0)
		draft->policy->log = format ? LOG_JSON : LOG_TEXT;
}

void config_rules_flowtable(struct draft *draft, struct section *section, const char *value)
{
	static const char *const names[] = {"no", "yes"};
	int use = config_rules_one_of(draft, "flowtable", value, names, 2);

	(void)section;
	if (use >= 0)
		draft->policy->flowtable = use;
}

static void set_seconds(struct draft *draft, const char *value, uint32_t *out)
{
	struct config_complaint complaint = {0};

	report(draft, config_value_seconds(value, out, &complaint), &complaint);
}

void config_rules_min_ttl(struct draft *draft, struct section *section, const char *value)
{
	set_seconds(draft, value, &section->network.lifetimes.min_ttl);
}

void config_rules_grace(struct draft *draft, struct section *section, const char *value)
{
	set_seconds(draft, value, &section->network.lifetimes.grace);
}

void config_rules_max_age(struct draft *draft, struct section *section, const char *value)
{
	uint32_t *max_age = &section->network.lifetimes.max_age;

	set_seconds(draft, value, max_age);
	if (*max_age == 0)
		SAY_ERROR(draft, "'max_age = 0' would end every lease at once: nothing could be reached by name");
}

static void set_number(struct draft *draft, const char *value, uint32_t max, uint32_t *out)
{
	struct config_complaint complaint = {0};

	report(draft, config_value_number(value, 1, max, out, &complaint), &complaint);
}

void config_rules_max_addresses(struct draft *draft, struct section *section, const char *value)
{
	set_number(draft, value, CONFIG_MAX_ADDRESSES_LIMIT, &section->network.lifetimes.max_addresses);
}

void config_rules_wildcard_octets(struct draft *draft, struct section *section, const char *value)
{
	section->places[PLACE_WILDCARD_OCTETS] = draft->here;
	set_number(draft, value, WILDCARD_OCTETS_MAX, &section->network.wildcards.octets);
}

void config_rules_wildcard_labels(struct draft *draft, struct section *section, const char *value)
{
	section->places[PLACE_WILDCARD_LABELS] = draft->here;
	set_number(draft, value, WILDCARD_LABELS_MAX, &section->network.wildcards.labels);
}

void config_rules_wildcard_names(struct draft *draft, struct section *section, const char *value)
{
	section->places[PLACE_WILDCARD_NAMES] = draft->here;
	set_number(draft, value, WILDCARD_NAMES_MAX, &section->network.wildcards.names);
}

void config_rules_max_flows(struct draft *draft, struct section *section, const char *value)
{
	struct config_complaint complaint = {0};
	bool good = config_value_number(value, CONFIG_MAX_FLOWS_LEAST, CONFIG_MAX_FLOWS_LIMIT, &section->network.max_flows, &complaint);

	report(draft, good, &complaint);
}
