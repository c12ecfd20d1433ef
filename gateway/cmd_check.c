/* SPDX-License-Identifier: MIT */
/* sluice check FILE: is this policy good, and what does it mean? */

#include "gateway/command.h"

#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gateway/config.h"

#define DATE_MAX 32 /* octets of a date and its NUL */

static const char usage_text[] = "usage: sluice check [--json] FILE\n"
				 "\n"
				 "Validate a policy: a file, or a directory with *.conf and *.ini files. Errors and warnings go to\n"
				 "stderr as FILE:LINE: message; a good policy is printed as it takes effect.\n"
				 "\n"
				 "  -j, --json   print JSON\n"
				 "  -h, --help   print this help\n"
				 "\n"
				 "Exit status: 0 good, 1 bad, 2 wrong usage.\n";

static const char *action_name(enum rule_action action)
{
	return action == RULE_ALLOW ? "allow" : "deny";
}

static const char *format_name(enum notify_format format)
{
	return format == NOTIFY_NTFY ? "ntfy" : "json";
}

static const char *mode_name(enum network_mode mode)
{
	return mode == MODE_AUDIT ? "audit" : "enforce";
}

static const char *format_date(time_t when, char out[static DATE_MAX])
{
	struct tm parts;

	if (!gmtime_r(&when, &parts) || !strftime(out, DATE_MAX, "%Y-%m-%dT%H:%M:%SZ", &parts))
		out[0] = 0;
	return out;
}

/* Text */

static void print_privates(const struct prefix *privates, size_t count)
{
	char text[ADDRESS_TEXT_MAX];

	if (!count)
		return;
	printf("  private:");
	for (size_t i = 0; i < count; i++)
		printf(" %s", prefix_format(&privates[i], text));
	printf("\n");
}

static void print_upstream(const struct upstream_group *group)
{
	char server[POLICY_SERVER_MAX], pattern[DOMAIN_TEXT_MAX];

	printf("upstream %s\n  server:", group->name[0] ? group->name : "(default)");
	if (group->automatic)
		printf(" auto (from resolv.conf, and followed)");
	for (size_t i = 0; i < group->server_count; i++)
		printf(" %s", policy_server_format(&group->servers[i], server));
	printf("\n");
	if (group->ca_file)
		printf("  ca: %s\n", group->ca_file);
	if (group->match_count)
		printf("  match:");
	for (size_t i = 0; i < group->match_count; i++)
		printf(" %s", pattern_format(&group->matches[i], pattern));
	if (group->match_count)
		printf("\n");
	print_privates(group->privates, group->private_count);
}

static void print_rule(const struct rule *rule)
{
	char ports[PORTS_TEXT_MAX];

	printf("  %-5s %-40s ", action_name(rule->action), rule->text);
	if (ports_is_all(&rule->ports))
		printf("all ports");
	else
		printf("ports %s%s", ports_format(&rule->ports, ports), rule->ports_given ? "" : " (from 'ports =')");
	printf("  %s:%u%s%s%s\n", rule->source.file, rule->source.line, rule->section ? " [" : "", rule->section ? rule->section : "",
	       rule->section ? "]" : "");
}

static void print_publish(const struct publish *publish)
{
	char ports[POLICY_PUBLISH_TEXT_MAX], address[ADDRESS_TEXT_MAX];
	bool brackets = publish->target.family == AF_INET6;

	printf("  publish %s -> %s%s%s:%u", policy_publish_format(publish, ports), brackets ? "[" : "",
	       publish->name ? publish->name : address_format(&publish->target, address), brackets ? "]" : "", publish->target_port);
	if (publish->ports.first != publish->ports.last)
		printf("-%u", publish->ports.last);
	printf("  %s:%u\n", publish->source.file, publish->source.line);
}

static void print_subnet(const struct prefix *subnet, const struct address *gateway)
{
	char text[2][ADDRESS_TEXT_MAX];

	if (subnet->address.family)
		printf("  subnet: %s, gateway %s\n", prefix_format(subnet, text[0]), address_format(gateway, text[1]));
}

static void print_addresses(const struct network *network)
{
	const struct prefix *pools[] = {&network->pool4, &network->pool6};
	char text[ADDRESS_TEXT_MAX];

	if (!network->has_virtual_addresses)
		return;
	printf("  addresses: virtual, pool");
	for (size_t i = 0; i < 2; i++) {
		if (pools[i]->address.family)
			printf(" %s", prefix_format(pools[i], text));
	}
	printf(", per_name %u\n", network->per_name);
}

static void print_mode(const struct network *network)
{
	char date[DATE_MAX];

	printf("  mode: %s", mode_name(network->mode));
	if (network->audit_until)
		printf(" until %s%s", format_date(network->audit_until, date),
		       policy_is_auditing(network, time(NULL)) ? "" : ", which has passed: enforced");
	printf("\n");
}

/* Names whose rule says no ports, without `ports =`: say aloud that this is every port. */
static size_t count_open_rules(const struct network *network)
{
	size_t count = 0;

	for (size_t i = 0; i < network->rule_count; i++) {
		const struct rule *rule = network->rules[i];

		count += rule->kind == RULE_NAME && rule->action == RULE_ALLOW && ports_is_all(&rule->ports);
	}
	return count;
}

static void print_verify(const struct network *network)
{
	bool refuses = network->verify == VERIFY_ENFORCE && !policy_is_auditing(network, time(NULL));
	char ports[PORTS_TEXT_MAX];

	if (network->verify == VERIFY_OFF)
		return;
	printf("  verify: %s, on ports %s, without a name: %s%s\n", policy_verify_name(network->verify),
	       ports_format(&network->verify_ports, ports), network->without_name_allowed ? "allow" : "deny",
	       refuses ? "" : " (what does not fit is told, and passes)");
}

static void print_wildcards(const struct wildcard_limits *limits)
{
	const char *separator = "";

	if (!limits->octets && !limits->labels && !limits->names)
		return;
	printf("  wildcards: ");
	if (limits->octets || limits->labels) {
		printf("stand for at most");
		if (limits->octets)
			printf(" %u octets", limits->octets);
		if (limits->labels)
			printf("%s %u labels", limits->octets ? " in" : "", limits->labels);
		separator = "; ";
	}
	if (limits->names)
		printf("%sat most %u new names a minute below each", separator, limits->names);
	printf("\n");
}

static void print_network(const struct network *network)
{
	const struct lifetimes *lifetimes = &network->lifetimes;
	char ports[PORTS_TEXT_MAX];
	size_t open = count_open_rules(network);

	printf("network %s (%s:%u)\n", network->name, network->source.file, network->source.line);
	print_subnet(&network->subnet4, &network->gateway4);
	print_subnet(&network->subnet6, &network->gateway6);
	print_addresses(network);
	print_mode(network);
	print_verify(network);
	if (network->default_ports_given)
		printf("  ports: %s\n", ports_format(&network->default_ports, ports));
	else
		printf("  ports: all, for names without a port\n");
	printf("  lifetimes: min_ttl %us, grace %us, max_age %us, max_addresses %u\n", lifetimes->min_ttl, lifetimes->grace,
	       lifetimes->max_age, lifetimes->max_addresses);
	print_wildcards(&network->wildcards);
	if (network->max_flows)
		printf("  max_flows: %u\n", network->max_flows);
	if (network->log_allowed != LOG_ALLOWED_OFF)
		printf("  log_allowed: %s\n",
		       network->log_allowed == LOG_ALLOWED_ALL ? "all, a line for each flow" : "summary, sums once a minute");
	if (network->keep_established)
		printf("  keep_established: yes, flows that a reload no longer allows go on\n");
	print_privates(network->privates, network->private_count);
	for (size_t i = 0; i < network->rule_count; i++)
		print_rule(network->rules[i]);
	for (size_t i = 0; i < network->publish_count; i++)
		print_publish(&network->publishes[i]);
	if (!network->rule_count)
		printf("  no rules: %s\n", network->mode == MODE_AUDIT ? "only audit mode lets anything through" : "nothing is allowed");
	if (open)
		printf("  note: %zu name %s every TCP and UDP port; 'ports = 443' would limit %s\n", open,
		       open == 1 ? "rule allows" : "rules allow", open == 1 ? "it" : "them");
}

static void print_http(const struct policy *policy)
{
	char text[POLICY_SERVER_MAX];

	printf("http:%s", policy->http_count ? "" : " off");
	for (size_t i = 0; i < policy->http_count; i++)
		printf(" %s%s", policy_http_format(&policy->http[i], text),
		       policy_http_is_local(&policy->http[i]) ? "" : " (open to the uplink)");
	printf("\n");
}

/* The host only: the rest of the URL may be a secret, and so is the token. */
static void print_notify(const struct notify_target *target)
{
	if (!target->url)
		return;
	printf("notify: %s, port %u, %s, format %s\n", target->host, target->port, target->tls ? "https" : "http",
	       format_name(target->format));
	if (target->token_file)
		printf("  token: from %s\n", target->token_file);
	if (target->ca_file)
		printf("  ca: %s\n", target->ca_file);
}

static void print_policy(const struct policy *policy)
{
	printf("uplink: %s\nlog: %s\nflowtable: %s\n", policy->uplink, policy->log == LOG_JSON ? "json" : "text",
	       policy->flowtable ? "yes" : "no");
	print_http(policy);
	print_notify(&policy->notify);
	for (size_t i = 0; i < policy->upstream_count; i++)
		print_upstream(&policy->upstreams[i]);
	for (size_t i = 0; i < policy->network_count; i++)
		print_network(&policy->networks[i]);
}

/* JSON. Whatever could not be allocated makes what it belongs to NULL, up to the root: nothing is left out silently. */

static void append(json_t **array, json_t *item)
{
	if (json_array_append_new(*array, item) == 0)
		return;
	json_decref(*array);
	*array = NULL;
}

static json_t *prefix_json(const struct prefix *prefix)
{
	char text[ADDRESS_TEXT_MAX];

	return json_string(prefix_format(prefix, text));
}

static json_t *prefixes_json(const struct prefix *prefixes, size_t count)
{
	json_t *array = json_array();

	for (size_t i = 0; i < count; i++)
		append(&array, prefix_json(&prefixes[i]));
	return array;
}

static json_t *upstream_json(const struct upstream_group *group)
{
	json_t *servers = json_array(), *matches = json_array();
	char server[POLICY_SERVER_MAX], pattern[DOMAIN_TEXT_MAX];

	for (size_t i = 0; i < group->server_count; i++)
		append(&servers, json_string(policy_server_format(&group->servers[i], server)));
	for (size_t i = 0; i < group->match_count; i++)
		append(&matches, json_string(pattern_format(&group->matches[i], pattern)));
	return json_pack("{s:s, s:b, s:o, s:s?, s:o, s:o}", "name", group->name, "auto", group->automatic, "servers", servers, "ca",
			 group->ca_file, "match", matches, "private", prefixes_json(group->privates, group->private_count));
}

static json_t *rule_json(const struct rule *rule)
{
	char ports[PORTS_TEXT_MAX];

	return json_pack("{s:s, s:s, s:s, s:b, s:s, s:i, s:s?}", "action", action_name(rule->action), "rule", rule->text, "ports",
			 ports_format(&rule->ports, ports), "ports_given", rule->ports_given, "file", rule->source.file, "line",
			 (int)rule->source.line, "section", rule->section);
}

static json_t *publish_json(const struct publish *publish)
{
	char ports[POLICY_PUBLISH_TEXT_MAX], address[ADDRESS_TEXT_MAX];

	return json_pack("{s:s, s:s, s:b, s:i, s:s, s:i}", "ports", policy_publish_format(publish, ports), "target",
			 publish->name ? publish->name : address_format(&publish->target, address), "by_name", publish->name != NULL,
			 "target_port", publish->target_port, "file", publish->source.file, "line", (int)publish->source.line);
}

static json_t *subnets_json(const struct network *network)
{
	const struct prefix *subnets[] = {&network->subnet4, &network->subnet6};
	const struct address *gateways[] = {&network->gateway4, &network->gateway6};
	char text[2][ADDRESS_TEXT_MAX];
	json_t *array = json_array();

	for (size_t i = 0; i < 2; i++) {
		if (subnets[i]->address.family)
			append(&array, json_pack("{s:s, s:s}", "subnet", prefix_format(subnets[i], text[0]), "gateway",
						 address_format(gateways[i], text[1])));
	}
	return array;
}

static json_t *virtual_json(const struct network *network)
{
	const struct prefix *pools[] = {&network->pool4, &network->pool6};
	json_t *array;

	if (!network->has_virtual_addresses)
		return json_null();
	array = json_array();
	for (size_t i = 0; i < 2; i++) {
		if (pools[i]->address.family)
			append(&array, prefix_json(pools[i]));
	}
	return json_pack("{s:o, s:i}", "pools", array, "per_name", (int)network->per_name);
}

static json_t *verify_json(const struct network *network)
{
	char ports[PORTS_TEXT_MAX];

	return json_pack("{s:s, s:s, s:s}", "mode", policy_verify_name(network->verify), "ports",
			 ports_format(&network->verify_ports, ports), "without_name", network->without_name_allowed ? "allow" : "deny");
}

static const char *log_allowed_name(enum log_allowed log_allowed)
{
	switch (log_allowed) {
	case LOG_ALLOWED_SUMMARY: return "summary";
	case LOG_ALLOWED_ALL: return "all";
	default: return "off";
	}
}

/* 0: no limit. */
static json_t *wildcards_json(const struct wildcard_limits *limits)
{
	return json_pack("{s:i, s:i, s:i}", "octets", (int)limits->octets, "labels", (int)limits->labels, "names", (int)limits->names);
}

static json_t *network_json(const struct network *network)
{
	const struct lifetimes *lifetimes = &network->lifetimes;
	json_t *rules = json_array(), *publishes = json_array();
	char ports[PORTS_TEXT_MAX], date[DATE_MAX];

	for (size_t i = 0; i < network->rule_count; i++)
		append(&rules, rule_json(network->rules[i]));
	for (size_t i = 0; i < network->publish_count; i++)
		append(&publishes, publish_json(&network->publishes[i]));
	return json_pack("{s:s, s:s, s:i, s:o, s:o, s:s, s:o, s:o, s:b, s:s, s:s?, s:s, s:{s:i, s:i, s:i, s:i}, s:o?, s:o, s:o, s:o}",
			 "name", network->name, "file", network->source.file, "line", (int)network->source.line, "subnets",
			 subnets_json(network), "virtual_addresses", virtual_json(network), "mode", mode_name(network->mode), "verify",
			 verify_json(network), "wildcards", wildcards_json(&network->wildcards), "keep_established",
			 network->keep_established, "log_allowed", log_allowed_name(network->log_allowed), "audit_until",
			 network->audit_until ? format_date(network->audit_until, date) : NULL, "ports",
			 ports_format(&network->default_ports, ports), "lifetimes", "min_ttl", (int)lifetimes->min_ttl, "grace",
			 (int)lifetimes->grace, "max_age", (int)lifetimes->max_age, "max_addresses", (int)lifetimes->max_addresses,
			 "max_flows", network->max_flows ? json_integer(network->max_flows) : NULL, "private",
			 prefixes_json(network->privates, network->private_count), "rules", rules, "publish", publishes);
}

static json_t *http_json(const struct policy *policy)
{
	json_t *array = json_array();
	char text[POLICY_SERVER_MAX];

	for (size_t i = 0; i < policy->http_count; i++)
		append(&array, json_string(policy_http_format(&policy->http[i], text)));
	return array;
}

static json_t *notify_json(const struct notify_target *target)
{
	if (!target->url)
		return json_null();
	return json_pack("{s:s, s:i, s:b, s:s, s:s?, s:s?}", "host", target->host, "port", target->port, "tls", target->tls, "format",
			 format_name(target->format), "token_file", target->token_file, "ca", target->ca_file);
}

static json_t *policy_json(const struct policy *policy)
{
	json_t *upstreams = json_array(), *networks = json_array();

	for (size_t i = 0; i < policy->upstream_count; i++)
		append(&upstreams, upstream_json(&policy->upstreams[i]));
	for (size_t i = 0; i < policy->network_count; i++)
		append(&networks, network_json(&policy->networks[i]));
	return json_pack("{s:s, s:s, s:b, s:o, s:o, s:o, s:o}", "uplink", policy->uplink, "log", policy->log == LOG_JSON ? "json" : "text",
			 "flowtable", policy->flowtable, "http", http_json(policy), "notify", notify_json(&policy->notify), "upstreams",
			 upstreams, "networks", networks);
}

static json_t *messages_json(const struct config_messages *messages)
{
	json_t *array = json_array();

	for (size_t i = 0; i < messages->count; i++) {
		bool error = messages->list[i].severity == CONFIG_ERROR;

		append(&array, json_pack("{s:s, s:s}", "severity", error ? "error" : "warning", "text", messages->list[i].text));
	}
	return array;
}

/* Return: false when it could not be built or written. */
static bool dump_json(const struct policy *policy, const struct config_messages *messages)
{
	json_t *root = json_pack("{s:b, s:o, s:o}", "valid", policy != NULL, "messages", messages_json(messages), "policy",
				 policy ? policy_json(policy) : json_null());
	bool good = root && json_dumpf(root, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII) == 0;

	json_decref(root);
	putchar('\n');
	return good;
}

static int check(const char *path, bool json)
{
	struct config_messages messages = {0};
	struct policy *policy = config_load(path, &messages);
	bool good = policy;

	for (size_t i = 0; i < messages.count; i++)
		fprintf(stderr, "%s\n", messages.list[i].text);
	if (!policy && !messages.count)
		fprintf(stderr, "sluice check: out of memory\n");
	if (json)
		good &= dump_json(policy, &messages);
	else if (policy)
		print_policy(policy);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(stderr, "sluice check: cannot write to stdout\n");
		good = false;
	}
	policy_free(policy);
	config_messages_free(&messages);
	return good ? COMMAND_OK : COMMAND_NO;
}

int cmd_check(int argc, char **argv)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
	bool json = false;
	int option;

	optind = 0; /* also makes GNU getopt start again */
	while ((option = getopt_long(argc, argv, "jh", options, NULL)) != -1) {
		switch (option) {
		case 'j': json = true; break;
		case 'h': fputs(usage_text, stdout); return COMMAND_OK;
		default: fputs(usage_text, stderr); return COMMAND_USAGE;
		}
	}
	if (argc - optind != 1) {
		fputs(usage_text, stderr);
		return COMMAND_USAGE;
	}
	return check(argv[optind], json);
}
