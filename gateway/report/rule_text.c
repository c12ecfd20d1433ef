/* SPDX-License-Identifier: MIT */
#include "gateway/report/rule_text.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/config_values.h"

struct rule rule_text_name(const struct domain *name)
{
	return (struct rule){
		.action = RULE_ALLOW, .kind = RULE_NAME, .pattern = {.kind = PATTERN_EXACT, .base = *name}, .ports_given = true};
}

struct rule rule_text_address(const struct address *address)
{
	return (struct rule){.action = RULE_ALLOW,
			     .kind = RULE_ADDRESS,
			     .prefix = prefix_of(address, (uint8_t)address_bits(address)),
			     .ports_given = true};
}

struct ports rule_text_ports(uint8_t protocol, uint16_t port)
{
	struct ports ports = {0};

	if (protocol != IPPROTO_UDP)
		ports.tcp[ports.tcp_count++] = (struct port_range){port, port};
	if (protocol != IPPROTO_TCP)
		ports.udp[ports.udp_count++] = (struct port_range){port, port};
	return ports;
}

static bool same_target(const struct rule *a, const struct rule *b)
{
	if (a->kind != b->kind)
		return false;
	if (a->kind == RULE_ADDRESS)
		return prefix_equal(&a->prefix, &b->prefix);
	return a->pattern.kind == b->pattern.kind && domain_equal(&a->pattern.base, &b->pattern.base);
}

bool rule_text_format(const struct rule *rule, char out[static RULE_TEXT_MAX])
{
	char target[DOMAIN_TEXT_MAX], ports[PORTS_TEXT_MAX];
	struct config_complaint complaint = {0};
	struct rule read = {0};
	bool ipv6 = rule->kind == RULE_ADDRESS && rule->prefix.address.family == AF_INET6;

	if (rule->kind == RULE_NAME)
		pattern_format(&rule->pattern, target);
	else
		prefix_format(&rule->prefix, target);
	snprintf(out, RULE_TEXT_MAX, "%s%s%s:%s", ipv6 ? "[" : "", target, ipv6 ? "]" : "", ports_format(&rule->ports, ports));
	return config_value_rule(out, &read, &complaint) && complaint.warning[0] == '\0' && same_target(rule, &read) &&
	       ports_equal(&rule->ports, &read.ports);
}

json_t *rule_text_json(const char *text)
{
	json_t *json = text[0] ? json_string(text) : json_null();
	char *copy = json ? NULL : strdup(text);

	if (!copy)
		return json;
	for (char *at = copy; *at; at++) {
		if (*at < ' ' || *at > '~')
			*at = '?';
	}
	json = json_string(copy);
	free(copy);
	return json;
}
