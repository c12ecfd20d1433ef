/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: the reason of the denial only tells apart what rules can lift. What to write follows from what the running policy
 * says now, and from whether the app was told the address in an answer: a rule for a name opens an address only after an answer for that
 * name has shown it.
 */
#include "gateway/report/advice.h"

#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "resolver/judge.h"

#define GUESSED_PORT 443
#define DENIES_SHOWN 4 /* deny rules that are named */

const char *advice_on_reason(enum reason reason)
{
	switch (reason) {
	case REASON_NONE:
	case REASON_NAME_NOT_ALLOWED:
	case REASON_DENIED_BY_RULE:
	case REASON_PORT_NOT_ALLOWED:
	case REASON_ADDRESS_NOT_ALLOWED:
	case REASON_SPECIAL_ADDRESS:
	case REASON_REBINDING:
	case REASON_SNI_MISMATCH:
	case REASON_COUNT: return NULL;
	case REASON_LEASE_EXPIRED:
		return "the name is allowed, but the app uses an address from an answer older than its lease: the app should ask again, or "
		       "raise `grace` or `min_ttl` of the network";
	case REASON_PROTOCOL_NOT_ALLOWED:
		return "only TCP and UDP pass, whatever the rules say; ICMP echo does not, either: test with a connection";
	case REASON_ISOLATED:
		return "networks are kept apart from each other and from the gateway, whatever the rules say: let the two services share "
		       "an "
		       "internal network";
	case REASON_MALFORMED: return "it could not be parsed: no rule is about that";
	case REASON_LOCAL_NAME:
		return "single-label names and local suffixes are never sent to an upstream: let the two services share a network, where "
		       "Docker answers for their names, or use the whole name";
	case REASON_UNSUPPORTED: return "the forwarder does not serve this kind of question, and apps do without";
	case REASON_REPEATED:
		return "this is a sum of repeats, or of what came above the rate: look for advice on a denial with a line of its own";
	case REASON_SPOOFED_SOURCE:
		return "its source address does not belong to the network: look at the container's addresses and routes";
	case REASON_MULTICAST: return "multicast and broadcast do not pass, whatever the rules say";
	case REASON_QUEUE_FULL: return "more came at once than could be looked at, and it was dropped unseen: the app should try again";
	case REASON_INVALID: return "the packet belonged to no flow and could not begin one; a few now and then are normal";
	case REASON_NAME_TOO_LONG:
		return "the wildcard that allows the name would stand for more than `wildcard_octets` or `wildcard_labels` of the network "
		       "have "
		       "it: raise them, or write a rule for the name itself";
	case REASON_TOO_MANY_NAMES:
		return "more new names below the wildcard were asked for in a minute than `wildcard_names` of the network has it: raise "
		       "it, or "
		       "write rules for the names themselves";
	case REASON_TOO_MANY_FLOWS:
		return "the network has as many flows as it may (`max_flows`), and this app has more than the others: let it close "
		       "connections, or "
		       "raise `max_flows` or the host's net.netfilter.nf_conntrack_max";
	case REASON_NO_NAME:
		return "the flow named no host, and the network verifies names: `without_name = allow` lets such flows pass, or "
		       "`verify_ports` leaves their port out";
	}
	return "the reason is not known";
}

const char *advice_on_reverse(void)
{
	return "reverse look-ups are answered from what the network was shown, and others are not forwarded; apps do without";
}

/* No packet to these is ever forwarded: the kernel's routing refuses it before any rule. */
static bool cannot_be_forwarded(const struct address *address)
{
	static const char *const blocks[] = {"0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "::/127", "fe80::/10", "ff00::/8"};
	struct prefix prefix;

	for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
		if (prefix_parse(blocks[i], &prefix, NULL) && prefix_contains(&prefix, address))
			return true;
	}
	return false;
}

const char *advice_on_address(const struct network *network, const struct address *address)
{
	if (network->has_virtual_addresses)
		return "apps of this network reach addresses of its pool only, each of which stands for a name: let the app use the name, "
		       "and "
		       "allow that";
	return cannot_be_forwarded(address) ? "packets to this address are never forwarded, whatever the rules say" : NULL;
}

static bool __attribute__((format(printf, 2, 3))) refuse(struct advice *advice, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(advice->error, sizeof(advice->error), format, arguments);
	va_end(arguments);
	advice->possible = false;
	return false;
}

/* "TCP port 443", "TCP and UDP port 443" */
static const char *format_port(const struct verdict_target *target, char out[static 32])
{
	const char *protocol = target->protocol == IPPROTO_TCP ? "TCP" : target->protocol == IPPROTO_UDP ? "UDP" : "TCP and UDP";

	snprintf(out, 32, "%s port %u", protocol, target->port);
	return out;
}

static bool has_transport(const struct verdict_target *target)
{
	return target->protocol == 0 || target->protocol == IPPROTO_TCP || target->protocol == IPPROTO_UDP;
}

/* Fill in rule and line. Return: false, with the error, when no rule can be written. */
static bool write_rule(struct rule *rule, const struct verdict_target *target, struct advice *advice)
{
	rule->ports = rule_text_ports(target->protocol, target->port);
	if (!rule_text_format(rule, advice->rule))
		return refuse(advice,
			      "no rule can be written for this name: a policy cannot have names like it, or its rules have no effect");
	snprintf(advice->line, sizeof(advice->line), "allow = %s", advice->rule);
	return true;
}

/* Must a flow to the target, whatever its protocol, name it? */
static bool is_verified(const struct network *network, const struct verdict_target *target)
{
	bool tcp = target->protocol == IPPROTO_UDP || ports_contains(&network->verify_ports, IPPROTO_TCP, target->port);
	bool udp = target->protocol == IPPROTO_TCP || ports_contains(&network->verify_ports, IPPROTO_UDP, target->port);

	return network->verify == VERIFY_ENFORCE && tcp && udp;
}

static bool advise_name(const struct verdicts *verdicts, struct verdict_target *target, struct advice *advice)
{
	struct rule rule = rule_text_name(target->name);
	char name[DOMAIN_TEXT_MAX], port[32];

	if (!target->port) {
		target->port = GUESSED_PORT;
		target->protocol = 0;
		snprintf(advice->note, sizeof(advice->note),
			 "a question does not tell the port: %d is a guess, TCP for HTTPS and UDP for HTTP/3", GUESSED_PORT);
	}
	if (!write_rule(&rule, target, advice))
		return false;
	snprintf(advice->opens, sizeof(advice->opens), "%s may reach %s on %s, at any address that its DNS answers show; %s",
		 verdicts->network->name, domain_format(target->name, name), format_port(target, port),
		 is_verified(verdicts->network, target)
			 ? "other names at the same addresses stay closed, as far as a flow's first octets tell them (`verify`)"
			 : "what else is served at the same addresses becomes reachable there as well");
	return true;
}

static void note_address(const struct verdicts *verdicts, const struct verdict_target *target, struct advice *advice)
{
	const char *dns = "if it should use names, its service lacks the line `dns:` (docs/log-format.md)";
	char name[DOMAIN_TEXT_MAX], address[ADDRESS_TEXT_MAX];

	if (target->name && !verdict_is_foreign(verdicts, target))
		snprintf(advice->note, sizeof(advice->note),
			 "to reach it by its name, %s, write `private = %s` as well: otherwise answers that show it are filtered",
			 domain_format(target->name, name), address_format(&target->address, address));
	else if (target->name)
		snprintf(advice->note, sizeof(advice->note),
			 "%s is what another network knows this address by, no answer showed it to %s: a rule for the name would not help "
			 "until the app asks for it; %s",
			 domain_format(target->name, name), verdicts->network->name, dns);
	else
		snprintf(advice->note, sizeof(advice->note), "no answer showed this address to %s: the app has it from elsewhere; %s",
			 verdicts->network->name, dns);
}

static bool advise_address(const struct verdicts *verdicts, const struct verdict_target *target, struct advice *advice)
{
	const char *special = address_special(&target->address);
	const char *useless = advice_on_address(verdicts->network, &target->address);
	char address[ADDRESS_TEXT_MAX], port[32];
	struct rule rule;

	if (!target->address.family || !target->port)
		return refuse(advice, "too little is known to write a rule: its address and port are needed");
	if (useless)
		return refuse(advice, "%s", useless);
	rule = rule_text_address(&target->address);
	if (!write_rule(&rule, target, advice))
		return false;
	snprintf(advice->opens, sizeof(advice->opens),
		 "%s may reach %s%s%s%s on %s, whatever is served there, without asking for a name; the address may be somebody else's one "
		 "day, and the rule stays",
		 verdicts->network->name, address_format(&target->address, address), special ? ", which is " : "", special ? special : "",
		 special ? " space," : "", format_port(target, port));
	note_address(verdicts, target, advice);
	return true;
}

/* The rebinding filter took the address out of the answer: a rule for the name alone would change nothing. */
static bool advise_private(const struct verdicts *verdicts, const struct verdict_target *target, struct advice *advice)
{
	const char *special = target->address.family ? address_special(&target->address) : NULL;
	char address[ADDRESS_TEXT_MAX];

	if (!special)
		return refuse(
			advice,
			"an answer for the name pointed into private or other special-purpose space: if it may, write `private = PREFIX` "
			"with that address or its network into [network %s], or into the name's upstream section",
			verdicts->network->name);
	address_format(&target->address, address);
	snprintf(advice->line, sizeof(advice->line), "private = %s", address);
	snprintf(advice->opens, sizeof(advice->opens),
		 "answers for any name that %s may ask for may show %s, which is %s space, and open it on that name's ports",
		 verdicts->network->name, address, special);
	return true;
}

/* Does this deny rule match the target, or a name of its chain? */
static bool stands_in_the_way(const struct rule *rule, const struct verdict_target *target, const struct verdict *verdict)
{
	bool covers = !rule->ports_given || !target->port || ports_contains(&rule->ports, target->protocol, target->port);

	if (rule->action != RULE_DENY)
		return false;
	if (rule->kind == RULE_ADDRESS)
		return covers && target->address.family && prefix_contains(&rule->prefix, &target->address);
	if (!target->name)
		return false;
	return (covers && pattern_matches(&rule->pattern, target->name)) ||
	       (!rule->ports_given && pattern_matches(&rule->pattern, &verdict->by));
}

static void list_denies(const struct verdicts *verdicts, const struct verdict_target *target, const struct verdict *verdict,
			struct advice *advice)
{
	size_t used = 0, found = 0;

	for (size_t i = 0; i < verdicts->network->rule_count; i++) {
		const struct rule *rule = verdicts->network->rules[i];

		if (!stands_in_the_way(rule, target, verdict) || found++ >= DENIES_SHOWN || used >= sizeof(advice->change))
			continue;
		used += (size_t)snprintf(advice->change + used, sizeof(advice->change) - used, "%sdeny = %.255s (%.200s:%u)",
					 found > 1 ? ", " : "", rule->text, rule->source.file, rule->source.line);
	}
	if (found > DENIES_SHOWN && used < sizeof(advice->change))
		snprintf(advice->change + used, sizeof(advice->change) - used, " and %zu more", found - DENIES_SHOWN);
}

/* Would it pass if no deny rule were there? */
static bool is_allowed_otherwise(const struct verdicts *verdicts, const struct verdict_target *target)
{
	for (size_t i = 0; i < verdicts->network->rule_count; i++) {
		const struct rule *rule = verdicts->network->rules[i];
		bool matches = rule->kind == RULE_NAME ? target->name && pattern_matches(&rule->pattern, target->name)
						       : prefix_contains(&rule->prefix, &target->address);

		if (rule->action == RULE_ALLOW && matches &&
		    (!target->port || ports_contains(&rule->ports, target->protocol, target->port)))
			return true;
	}
	return false;
}

/* No allow rule wins over a deny rule. */
static bool advise_change(const struct verdicts *verdicts, struct verdict_target *target, const struct verdict *verdict,
			  struct advice *advice)
{
	char by[DOMAIN_TEXT_MAX];

	list_denies(verdicts, target, verdict, advice);
	if (target->name && !domain_equal(&verdict->by, target->name))
		snprintf(advice->note, sizeof(advice->note), "the answer leads through %s, which is denied",
			 domain_format(&verdict->by, by));
	if (is_allowed_otherwise(verdicts, target)) {
		snprintf(advice->opens, sizeof(advice->opens), "everything that the deny rule now keeps from %s and that other rules allow",
			 verdicts->network->name);
		return true;
	}
	return target->name ? advise_name(verdicts, target, advice) : advise_address(verdicts, target, advice);
}

/* A name that an answer showed decides, else the address rules alone. */
static bool is_about_name(const struct verdicts *verdicts, const struct verdict_target *target, enum reason reason)
{
	if (!target->name || reason == REASON_ADDRESS_NOT_ALLOWED || reason == REASON_SPECIAL_ADDRESS)
		return false;
	return !verdict_is_foreign(verdicts, target);
}

static bool is_denied_address(const struct verdicts *verdicts, const struct verdict_target *target)
{
	return target->address.family && target->port && verdict_of_address(verdicts, target).reason == REASON_DENIED_BY_RULE;
}

static bool advise_by_name(const struct verdicts *verdicts, struct verdict_target *target, enum reason reason, struct advice *advice)
{
	struct verdict verdict = verdict_of_name(verdicts, target);

	if (verdict.reason == REASON_LOCAL_NAME)
		return refuse(advice, "%s", advice_on_reason(REASON_LOCAL_NAME));
	if (reason == REASON_REBINDING)
		return advise_private(verdicts, target, advice);
	if (verdict.reason == REASON_DENIED_BY_RULE || is_denied_address(verdicts, target))
		return advise_change(verdicts, target, &verdict, advice);
	if (verdict.allowed)
		return refuse(advice, "the running policy allows it");
	return advise_name(verdicts, target, advice);
}

static bool advise_by_address(const struct verdicts *verdicts, struct verdict_target *target, struct advice *advice)
{
	struct verdict verdict = {.reason = REASON_NONE};

	if (target->address.family && target->port)
		verdict = verdict_of_address(verdicts, target);
	if (verdict.reason == REASON_DENIED_BY_RULE) {
		target->name = NULL;
		return advise_change(verdicts, target, &verdict, advice);
	}
	if (verdict.allowed)
		return refuse(advice, "the running policy allows it");
	return advise_address(verdicts, target, advice);
}

void advice_give(const struct verdicts *verdicts, const struct verdict_target *target, enum reason reason, struct advice *out)
{
	const char *useless = advice_on_reason(has_transport(target) ? reason : REASON_PROTOCOL_NOT_ALLOWED);
	struct verdict_target wanted = *target;

	memset(out, 0, sizeof(*out));
	snprintf(out->section, sizeof(out->section), "network %s", verdicts->network->name);
	if (useless)
		refuse(out, "%s", useless);
	else if (target->name && !target->address.family && judge_is_reverse(target->name))
		refuse(out, "%s", advice_on_reverse());
	else if (reason == REASON_REBINDING && !target->name)
		out->possible = advise_private(verdicts, &wanted, out);
	else if (is_about_name(verdicts, target, reason))
		out->possible = advise_by_name(verdicts, &wanted, reason, out);
	else
		out->possible = advise_by_address(verdicts, &wanted, out);
}

/* The control command */

/* What the client said; NULL for what it may leave out. */
struct request {
	struct domain name;
	struct verdict_target target;
	enum reason reason;
};

static bool read_reason(const char *text, enum reason *out)
{
	for (int i = 0; i < REASON_COUNT; i++) {
		if (text && strcmp(text, reason_name((enum reason)i)) == 0) {
			*out = (enum reason)i;
			return true;
		}
	}
	return false;
}

/* 0: it was not said. */
static uint8_t read_protocol(const char *text)
{
	if (!text)
		return 0;
	return strcmp(text, "tcp") == 0 ? IPPROTO_TCP : strcmp(text, "udp") == 0 ? IPPROTO_UDP : IPPROTO_RAW;
}

/* Return: NULL, or what is wrong. */
static const char *read_request(const json_t *json, struct request *out)
{
	const char *name = json_string_value(json_object_get(json, "name"));
	const char *address = json_string_value(json_object_get(json, "address"));
	json_int_t port = json_integer_value(json_object_get(json, "port"));

	if (!read_reason(json_string_value(json_object_get(json, "reason")), &out->reason))
		return "\"advise\" needs a reason as in the log";
	if (name && domain_parse(name, &out->name))
		return "no rule can be written for this name: a policy cannot have names like it";
	if (address && !address_parse(address, &out->target.address))
		return "\"address\" is no address";
	if (port < 0 || port > UINT16_MAX)
		return "\"port\" is no port";
	out->target.protocol = read_protocol(json_string_value(json_object_get(json, "proto")));
	out->target.port = (uint16_t)port;
	out->target.name = name ? &out->name : NULL;
	return NULL;
}

static const char *or_null(const char *text)
{
	return text[0] ? text : NULL;
}

static json_t *refusal(const char *text)
{
	return json_pack("{s:b, s:s}", "ok", 0, "error", text);
}

static json_t *advice_json(const struct advice *advice)
{
	if (!advice->possible)
		return refusal(advice->error);
	return json_pack("{s:b, s:s, s:s?, s:s?, s:s, s:o, s:s?}", "ok", 1, "section", advice->section, "rule", or_null(advice->rule),
			 "line", or_null(advice->line), "opens", advice->opens, "change", rule_text_json(advice->change), "note",
			 or_null(advice->note));
}

json_t *advice_answer(const struct policy *policy, const struct lease_table *leases, const json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "network"));
	const struct network *network = name ? policy_network_by_name(policy, name) : NULL;
	struct request read = {.reason = REASON_NONE};
	const char *error = network ? read_request(request, &read) : "\"advise\" needs the name of a network of the running policy";
	struct verdicts verdicts;
	struct advice advice;

	if (error)
		return refusal(error);
	if (verdicts_open(&verdicts, policy, network, leases, time(NULL)) != 0)
		return refusal("out of memory");
	advice_give(&verdicts, &read.target, read.reason, &advice);
	verdicts_close(&verdicts);
	return advice_json(&advice);
}
