/* SPDX-License-Identifier: MIT */
/*
 * sluice explain NETWORK NAME_OR_ADDRESS[:PORT[/PROTO]]: would this be allowed, and which rule says so?
 *
 * Theory of operation: everything is decided by policy_judge_name() and policy_judge_address(), which the data plane asks too. They are
 * turned into a map of all TCP and UDP ports, from which both the answer and the list of open ports are read. Only which
 * rule is shown for a port is looked for here, because a name may be allowed by several rules with different ports.
 *
 * What was denied last is told by cmd_explain_last.c.
 *
 * Which name a virtual address stands for is no matter of the policy: the running gateway is asked, and then the name is judged.
 */

#include "gateway/command.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gateway/classify.h"
#include "gateway/config.h"
#include "gateway/control.h"
#include "gateway/explain.h"

#define PORT_COUNT    65536
#define PORT_LIST_MAX 4096 /* octets of the printed list of ports */
#define ERROR_MAX     512  /* octets of an error line */

enum { TCP, UDP, PROTOCOL_COUNT };

static const uint8_t protocol_numbers[PROTOCOL_COUNT] = {IPPROTO_TCP, IPPROTO_UDP};
static const char *const protocol_names[PROTOCOL_COUNT] = {"tcp", "udp"};

static const char usage_text[] = "usage: sluice explain [-c FILE_OR_DIR] [--json] NETWORK NAME_OR_ADDRESS[:PORT[/PROTO]]\n"
				 "       sluice explain --last [-c FILE_OR_DIR] [--network NETWORK] [--app APP] [--json]\n"
				 "\n"
				 "Say whether apps of a network may reach a name or an address, and which rule decides. IPv6\n"
				 "addresses with a port are written in brackets: [2001:db8::5]:443/udp. Which name a virtual address\n"
				 "stands for is asked of the running gateway.\n"
				 "\n"
				 "With --last: say what the running gateway denied last, why, by which rule, which line would allow\n"
				 "it, and what that would open.\n"
				 "\n"
				 "  -c, --config FILE_OR_DIR   the policy; default: SLUICE_CONFIG, else " CONFIG_DEFAULT_PATH "\n"
				 "  -l, --last                 what was denied last; when nothing was, what audit mode let pass\n"
				 "  -N, --network NETWORK      with --last: only in this network\n"
				 "  -A, --app APP              with --last: only of this container, by its name or address\n"
				 "  -j, --json                 print JSON\n"
				 "  -h, --help                 print this help\n"
				 "\n"
				 "Exit status: 0 allowed (without a port: on some port), 1 denied or a bad policy, 2 wrong usage.\n"
				 "With --last: 0 something was denied, 1 nothing was or no gateway answers, 2 wrong usage.\n";

/* What is asked. */
struct target {
	const char *text; /* as given */
	bool is_name;
	struct domain name;
	struct address address;
	struct address real; /* family 0: `address` is no virtual one. Else `address` stands for `name`, and leads there */
	bool port_given;
	uint16_t port;
	bool wanted[PROTOCOL_COUNT];
};

/* What is answered. */
struct finding {
	bool open[PROTOCOL_COUNT][PORT_COUNT];
	bool allowed;       /* what was asked */
	bool audited;       /* only because of audit mode */
	enum reason reason; /* why it is denied, or would be without audit mode */
	const struct rule *rule;
	const char *special;                   /* the block that an address is in, or NULL */
	const struct upstream_group *upstream; /* for names */
};

/* Parsing the target */

static bool parse_port(const char *text, struct target *target)
{
	char *end;
	unsigned long port;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	port = strtoul(text, &end, 10);
	if (errno || port > UINT16_MAX)
		return false;
	target->port = (uint16_t)port;
	target->port_given = true;
	if (!*end)
		return true;
	for (size_t i = 0; i < PROTOCOL_COUNT; i++)
		target->wanted[i] = *end == '/' && strcmp(end + 1, protocol_names[i]) == 0;
	return target->wanted[TCP] || target->wanted[UDP];
}

/* Cut ":PORT[/PROTO]" off @text and the brackets of an IPv6 address. Return: where the host begins, or NULL. */
static char *split_port(char *text, struct target *target)
{
	char *colon = strchr(text, ':'), *end;

	if (text[0] == '[') {
		end = strchr(text, ']');
		if (!end || (end[1] && (end[1] != ':' || !parse_port(end + 2, target))))
			return NULL;
		*end = 0;
		return text + 1;
	}
	/* Two colons and no brackets: an IPv6 address without a port. */
	if (!colon || colon != strrchr(text, ':'))
		return text;
	*colon = 0;
	return parse_port(colon + 1, target) ? text : NULL;
}

static const char *parse_host(const char *host, struct target *target)
{
	if (address_parse(host, &target->address))
		return NULL;
	target->is_name = true;
	return domain_parse(host, &target->name);
}

/* Return: NULL, or what is wrong. */
static const char *parse_target(const char *text, struct target *target)
{
	char *copy = strdup(text), *host;
	const char *error;

	memset(target, 0, sizeof(*target));
	target->text = text;
	target->wanted[TCP] = target->wanted[UDP] = true;
	if (!copy)
		return "out of memory";
	host = split_port(copy, target);
	error = host ? parse_host(host, target) : "expected NAME_OR_ADDRESS[:PORT[/tcp|/udp]], IPv6 addresses with a port in brackets";
	free(copy);
	return error;
}

/* Virtual addresses */

static bool is_virtual(const struct network *network, const struct address *address)
{
	return network->has_virtual_addresses && (prefix_contains(&network->pool4, address) || prefix_contains(&network->pool6, address));
}

/* Return: whether the answer is one. */
static bool read_mapping(const json_t *answer, struct target *target)
{
	const char *name = json_string_value(json_object_get(answer, "name")), *real = json_string_value(json_object_get(answer, "real"));

	return name && real && !domain_parse(name, &target->name) && address_parse(real, &target->real);
}

/* The name that a virtual address stands for becomes what is asked. Return: false with @error. */
static bool resolve_virtual(const struct network *network, struct target *target, char error[static ERROR_MAX])
{
	char text[ADDRESS_TEXT_MAX];
	json_t *request = json_pack("{s:s, s:s, s:s}", "command", "mapping", "network", network->name, "address",
				    address_format(&target->address, text));
	json_t *answer = request ? control_call(control_path(), request, error, ERROR_MAX) : NULL;
	const char *refusal = json_string_value(json_object_get(answer, "error"));
	bool ok = json_is_true(json_object_get(answer, "ok"));

	if (!request)
		snprintf(error, ERROR_MAX, "out of memory");
	else if (answer && !ok)
		snprintf(error, ERROR_MAX, "%s", refusal ? refusal : "the daemon says no");
	else if (answer && !read_mapping(answer, target))
		snprintf(error, ERROR_MAX, "the daemon's answer is not understood");
	else
		target->is_name = answer;
	json_decref(answer);
	json_decref(request);
	return target->is_name;
}

/* Judging */

static void open_ports(bool *open, const struct port_range *ranges, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		for (unsigned int port = ranges[i].first; port <= ranges[i].last; port++)
			open[port] = true;
	}
}

/*
 * Choose the port that the answer is about: the first of those asked that is open, else the first of those asked.
 * Return: whether it is open.
 */
static bool pick_port(const struct finding *finding, const struct target *target, size_t *protocol, unsigned int *port)
{
	unsigned int first = target->port_given ? target->port : 0, last = target->port_given ? target->port : PORT_COUNT - 1;

	for (*protocol = 0; *protocol < PROTOCOL_COUNT; ++*protocol) {
		for (*port = first; target->wanted[*protocol] && *port <= last; ++*port) {
			if (finding->open[*protocol][*port])
				return true;
		}
	}
	*protocol = target->wanted[TCP] ? TCP : UDP;
	*port = first;
	return false;
}

/* The first rule of this action that matches the name and this port. */
static const struct rule *find_name_rule(const struct network *network, const struct domain *name, enum rule_action action,
					 uint8_t protocol, uint16_t port)
{
	for (size_t i = 0; i < network->rule_count; i++) {
		const struct rule *rule = network->rules[i];

		if (rule->kind == RULE_NAME && rule->action == action && pattern_matches(&rule->pattern, name) &&
		    ports_contains(&rule->ports, protocol, port))
			return rule;
	}
	return NULL;
}

/* The name is allowed on some ports; say what that means for those that were asked. */
static void settle_name_ports(const struct network *network, const struct target *target, struct finding *finding)
{
	const struct rule *rule;
	unsigned int port;
	size_t protocol;

	finding->allowed = pick_port(finding, target, &protocol, &port);
	rule = find_name_rule(network, &target->name, finding->allowed ? RULE_ALLOW : RULE_DENY, protocol_numbers[protocol],
			      (uint16_t)port);
	if (!finding->allowed)
		finding->reason = rule ? REASON_DENIED_BY_RULE : REASON_PORT_NOT_ALLOWED;
	if (rule)
		finding->rule = rule;
}

/* A matter of asking for the name: the forwarder refuses that. */
static bool is_too_long(const struct network *network, const struct target *target, const struct rule *rule)
{
	return rule && policy_wildcard_is_exceeded(network, rule, &target->name) && !policy_is_auditing(network, time(NULL));
}

static void judge_name(const struct policy *policy, const struct network *network, const struct target *target, struct finding *finding)
{
	struct name_verdict verdict = policy_judge_name(network, &target->name, time(NULL));

	finding->reason = verdict.reason;
	finding->rule = verdict.rule;
	finding->upstream = policy_upstream_for(policy, &target->name);
	if (!verdict.allowed || verdict.audited)
		return;
	if (is_too_long(network, target, verdict.rule)) {
		finding->reason = REASON_NAME_TOO_LONG;
		return;
	}
	for (size_t i = 0; i < network->spec_count; i++) {
		if (!(verdict.specs >> i & 1))
			continue;
		open_ports(finding->open[TCP], network->specs[i].tcp, network->specs[i].tcp_count);
		open_ports(finding->open[UDP], network->specs[i].udp, network->specs[i].udp_count);
	}
	settle_name_ports(network, target, finding);
}

static void mark_edges(bool *edges, const struct port_range *ranges, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		edges[ranges[i].first] = true;
		if (ranges[i].last < PORT_COUNT - 1)
			edges[ranges[i].last + 1] = true;
	}
}

/* Ports at which the verdict for an address may change: only these need be judged. */
static void find_edges(const struct network *network, const struct target *target, bool edges[static PORT_COUNT])
{
	memset(edges, 0, PORT_COUNT * sizeof(*edges));
	edges[0] = true;
	if (target->port_given)
		edges[target->port] = true;
	for (size_t i = 0; i < network->rule_count; i++) {
		const struct rule *rule = network->rules[i];

		if (rule->kind != RULE_ADDRESS || !prefix_contains(&rule->prefix, &target->address))
			continue;
		mark_edges(edges, rule->ports.tcp, rule->ports.tcp_count);
		mark_edges(edges, rule->ports.udp, rule->ports.udp_count);
	}
}

static void judge_address(const struct policy *policy, const struct network *network, const struct target *target, struct finding *finding)
{
	static bool edges[PORT_COUNT];
	struct address_verdict verdict = {0};
	unsigned int port;
	size_t protocol;

	find_edges(network, target, edges);
	for (protocol = 0; protocol < PROTOCOL_COUNT; protocol++) {
		for (port = 0; port < PORT_COUNT; port++) {
			if (edges[port])
				verdict =
					policy_judge_address(policy, network, &target->address, protocol_numbers[protocol], (uint16_t)port);
			finding->open[protocol][port] = verdict.allowed;
		}
	}
	finding->special = address_special(&target->address);
	finding->allowed = pick_port(finding, target, &protocol, &port);
	verdict = policy_judge_address(policy, network, &target->address, protocol_numbers[protocol], (uint16_t)port);
	finding->reason = verdict.reason;
	finding->rule = verdict.rule;
}

/*
 * Another network, or an address that the gateway takes? The data plane lets no rule reach these: what is forwarded goes to the
 * uplink only.
 */
static bool is_isolated(const struct policy *policy, const struct network *network, const struct address *address)
{
	for (size_t i = 0; i < policy->network_count; i++) {
		const struct network *other = &policy->networks[i];

		if (address_equal(address, &other->gateway4) || address_equal(address, &other->gateway6))
			return true;
		if (other != network && (prefix_contains(&other->subnet4, address) || prefix_contains(&other->subnet6, address)))
			return true;
	}
	return false;
}

static void judge(const struct policy *policy, const struct network *network, const struct target *target, struct finding *finding)
{
	memset(finding, 0, sizeof(*finding));
	if (target->is_name)
		judge_name(policy, network, target, finding);
	else if (is_isolated(policy, network, &target->address))
		finding->reason = REASON_ISOLATED;
	else
		judge_address(policy, network, target, finding);
	/* Where names have virtual addresses there is no way to any other address, whatever the mode. */
	if (network->has_virtual_addresses && !target->is_name)
		return;
	if (!finding->allowed && classify_audit_lifts(finding->reason) && policy_is_auditing(network, time(NULL)))
		finding->allowed = finding->audited = true;
}

/* Printing */

/* "443 8000-8100", "all", "none". */
static const char *format_ports(const bool open[static PORT_COUNT], char out[static PORT_LIST_MAX])
{
	size_t used = 0;

	out[0] = 0;
	for (unsigned int first = 0; first < PORT_COUNT; first++) {
		unsigned int last = first;

		if (!open[first])
			continue;
		while (last + 1 < PORT_COUNT && open[last + 1])
			last++;
		/* Port 0 does not exist: 1-65535 is all as well. */
		if (first <= 1 && last == PORT_COUNT - 1)
			return strcpy(out, "all");
		if (used + sizeof(" 65535-65535 ...") > PORT_LIST_MAX) {
			strcpy(out + used, " ...");
			return out;
		}
		used += (size_t)sprintf(out + used, first == last ? "%s%u" : "%s%u-%u", used ? " " : "", first, last);
		first = last;
	}
	return used ? out : strcpy(out, "none");
}

static void print_rule(const struct finding *finding)
{
	const struct rule *rule = finding->rule;
	bool by_rule = finding->allowed && !finding->audited;

	if (finding->reason == REASON_ISOLATED || finding->reason == REASON_LOCAL_NAME) {
		printf("rule: none, this is denied always\n");
		return;
	}
	if (!rule) {
		printf("rule: none, the default denies\n");
		return;
	}
	/* An allow rule that does not cover what was asked is the one to be changed. */
	printf("rule: %s%s = %s (%s:%u%s%s%s)\n", !by_rule && rule->action == RULE_ALLOW ? "none; the nearest is " : "",
	       rule->action == RULE_ALLOW ? "allow" : "deny", rule->text, rule->source.file, rule->source.line, rule->section ? ", [" : "",
	       rule->section ? rule->section : "", rule->section ? "]" : "");
}

static void print_virtual(const struct target *target)
{
	char address[ADDRESS_TEXT_MAX], real[ADDRESS_TEXT_MAX], name[DOMAIN_TEXT_MAX];

	if (target->real.family)
		printf("%s stands for %s, now leads to %s\n", address_format(&target->address, address), domain_format(&target->name, name),
		       address_format(&target->real, real));
}

/* What `verify` does to the flows that were asked about: VERIFY_OFF when nobody reads what they name. */
static enum network_verify find_verify(const struct network *network, const struct target *target, const struct finding *finding)
{
	unsigned int first = target->port_given ? target->port : 0, last = target->port_given ? target->port : PORT_COUNT - 1;

	/* What audit mode or a rule for the address lets pass is not read. */
	if (network->verify == VERIFY_OFF || !target->is_name || !finding->allowed)
		return VERIFY_OFF;
	for (size_t i = 0; i < PROTOCOL_COUNT; i++) {
		for (unsigned int port = first; target->wanted[i] && port <= last; port++) {
			if (finding->open[i][port] && ports_contains(&network->verify_ports, protocol_numbers[i], (uint16_t)port))
				return policy_is_auditing(network, time(NULL)) ? VERIFY_LOG : network->verify;
		}
	}
	return VERIFY_OFF;
}

static void print_verify(const struct network *network, enum network_verify verify)
{
	char ports[PORTS_TEXT_MAX];

	if (verify == VERIFY_OFF)
		return;
	printf("verify: the flow itself must name it as well%s, or another name that may be reached on its port; what does not %s",
	       network->without_name_allowed ? ", or none" : "", verify == VERIFY_ENFORCE ? "is refused" : "is told, and passes");
	if (!ports_is_all(&network->verify_ports))
		printf(" (only on ports %s)", ports_format(&network->verify_ports, ports));
	printf("\n");
}

/* What the wildcard that allows the name may stand for, and how often for something new. */
static void print_wildcard(const struct network *network, const struct target *target, const struct finding *finding)
{
	const struct wildcard_limits *limits = &network->wildcards;
	unsigned int octets, labels;

	if (!target->is_name || !finding->rule || finding->rule->action != RULE_ALLOW ||
	    (!limits->octets && !limits->labels && !limits->names))
		return;
	labels = policy_wildcard_stands_for(finding->rule, &target->name, &octets);
	if (labels == 0)
		return;
	printf("wildcard: it stands for %u %s in %u %s here", octets, octets == 1 ? "octet" : "octets", labels,
	       labels == 1 ? "label" : "labels");
	if (limits->octets)
		printf("; at most %u octets (wildcard_octets)", limits->octets);
	if (limits->labels)
		printf("; at most %u labels (wildcard_labels)", limits->labels);
	if (limits->names)
		printf("; at most %u new names a minute (wildcard_names)", limits->names);
	printf("\n");
}

static void print_note(const struct network *network, const struct target *target, const struct finding *finding)
{
	if (target->is_name || finding->allowed || finding->reason == REASON_ISOLATED)
		return;
	printf(network->has_virtual_addresses
		       ? "note: apps of this network reach addresses of its pool only, and each of them stands for a name\n"
		       : "note: an allowed name that resolves to this address may open it too\n");
}

static void print_finding(const struct network *network, const struct target *target, const struct finding *finding)
{
	char ports[PORT_LIST_MAX];

	print_virtual(target);
	printf("%s: %s from network %s", target->text, finding->allowed ? "allowed" : "denied", network->name);
	if (finding->audited)
		printf(", only by audit mode (enforce would deny: %s)", reason_name(finding->reason));
	else if (!finding->allowed)
		printf(", reason %s", reason_name(finding->reason));
	printf("\n");
	print_rule(finding);
	for (size_t i = 0; i < PROTOCOL_COUNT; i++)
		printf("%s ports%s: %s\n", protocol_names[i], finding->audited ? " by rules" : "", format_ports(finding->open[i], ports));
	if (finding->upstream && finding->allowed)
		printf("upstream: %s\n", finding->upstream->name[0] ? finding->upstream->name : "(default)");
	if (finding->special)
		printf("address: %s; only a rule that names this space allows it\n", finding->special);
	print_verify(network, find_verify(network, target, finding));
	print_wildcard(network, target, finding);
	print_note(network, target, finding);
}

json_t *explain_rule(const struct rule *rule)
{
	if (!rule)
		return json_null();
	return json_pack("{s:s, s:s, s:s, s:i, s:s?}", "action", rule->action == RULE_ALLOW ? "allow" : "deny", "rule", rule->text, "file",
			 rule->source.file, "line", (int)rule->source.line, "section", rule->section);
}

static bool print_json(const struct network *network, const struct target *target, const struct finding *finding)
{
	char tcp[PORT_LIST_MAX], udp[PORT_LIST_MAX];
	bool denies = !finding->allowed || finding->audited;
	const char *upstream = finding->upstream && finding->allowed ? finding->upstream->name : NULL;
	char name[DOMAIN_TEXT_MAX], real[ADDRESS_TEXT_MAX];
	bool is_virtual_address = target->real.family;
	enum network_verify verify = find_verify(network, target, finding);
	json_t *root = json_pack("{s:s, s:s, s:b, s:b, s:s?, s:o, s:s, s:s, s:s?, s:s?, s:s?, s:s?, s:s?}", "target", target->text,
				 "network", network->name, "allowed", finding->allowed, "audited", finding->audited, "reason",
				 denies ? reason_name(finding->reason) : NULL, "rule", explain_rule(finding->rule), "tcp",
				 format_ports(finding->open[TCP], tcp), "udp", format_ports(finding->open[UDP], udp), "upstream", upstream,
				 "special", finding->special, "stands_for", is_virtual_address ? domain_format(&target->name, name) : NULL,
				 "real", is_virtual_address ? address_format(&target->real, real) : NULL, "verify",
				 verify == VERIFY_OFF ? NULL : policy_verify_name(verify));
	bool good = root && json_dumpf(root, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII) == 0;

	json_decref(root);
	putchar('\n');
	return good;
}

static int usage_error(const char *about, const char *problem)
{
	fprintf(stderr, "sluice explain: %s: %s\n", about, problem);
	return COMMAND_USAGE;
}

static int unknown_network(const struct policy *policy, const char *name)
{
	fprintf(stderr, "sluice explain: there is no network '%s'; the policy has:", name);
	for (size_t i = 0; i < policy->network_count; i++)
		fprintf(stderr, " %s", policy->networks[i].name);
	fprintf(stderr, "\n");
	return COMMAND_USAGE;
}

static int explain_target(const struct policy *policy, const struct network *network, struct target *target, bool json)
{
	char error[ERROR_MAX], text[ADDRESS_TEXT_MAX];
	struct finding *finding = malloc(sizeof(*finding));
	bool good = true;

	if (!finding) {
		fprintf(stderr, "sluice explain: out of memory\n");
		return COMMAND_NO;
	}
	if (!target->is_name && is_virtual(network, &target->address) && !resolve_virtual(network, target, error)) {
		fprintf(stderr,
			"sluice explain: %s is a virtual address, and only the running gateway knows which name it stands for: %s\n",
			address_format(&target->address, text), error);
		free(finding);
		return COMMAND_NO;
	}
	judge(policy, network, target, finding);
	if (json)
		good = print_json(network, target, finding);
	else
		print_finding(network, target, finding);
	good &= finding->allowed && fflush(stdout) == 0;
	free(finding);
	return good ? COMMAND_OK : COMMAND_NO;
}

static int explain(const char *path, const char *network_name, const char *text, bool json)
{
	struct config_messages messages = {0};
	const struct network *network;
	struct policy *policy;
	struct target target;
	const char *error = parse_target(text, &target);
	int status = COMMAND_NO;

	if (error)
		return usage_error(text, error);
	policy = config_load(path, &messages);
	/* Warnings are for `sluice check`. */
	for (size_t i = 0; i < messages.count && !policy; i++)
		fprintf(stderr, "%s\n", messages.list[i].text);
	if (policy) {
		network = policy_network_by_name(policy, network_name);
		status = network ? explain_target(policy, network, &target, json) : unknown_network(policy, network_name);
	}
	policy_free(policy);
	config_messages_free(&messages);
	return status;
}

int cmd_explain(int argc, char **argv)
{
	static const struct option options[] = {{"config", required_argument, NULL, 'c'},
						{"last", no_argument, NULL, 'l'},
						{"network", required_argument, NULL, 'N'},
						{"app", required_argument, NULL, 'A'},
						{"json", no_argument, NULL, 'j'},
						{"help", no_argument, NULL, 'h'},
						{0}};
	struct explain_last what = {0};
	bool last = false;
	int option;

	optind = 0; /* also makes GNU getopt start again */
	while ((option = getopt_long(argc, argv, "c:lN:A:jh", options, NULL)) != -1) {
		switch (option) {
		case 'c': what.path = optarg; break;
		case 'l': last = true; break;
		case 'N': what.network = optarg; break;
		case 'A': what.app = optarg; break;
		case 'j': what.json = true; break;
		case 'h': fputs(usage_text, stdout); return COMMAND_OK;
		default: fputs(usage_text, stderr); return COMMAND_USAGE;
		}
	}
	if (argc - optind != (last ? 0 : 2) || (!last && (what.network || what.app))) {
		fputs(usage_text, stderr);
		return COMMAND_USAGE;
	}
	return last ? explain_last(&what) : explain(what.path, argv[optind], argv[optind + 1], what.json);
}
