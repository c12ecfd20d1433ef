/* SPDX-License-Identifier: MIT */
/* Policy and Compose project side by side: a network is matched by its subnet, as the running gateway does it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/compose_lint_internal.h"
#include "gateway/config.h"

/* The policy */

static void say_messages(struct lint *lint, const struct compose_service *gateway, const struct config_messages *messages)
{
	for (size_t i = 0; i < messages->count; i++) {
		if (messages->list[i].severity == CONFIG_ERROR)
			lint_say(lint, LINT_ERROR, LINT_POLICY_INVALID, LINT_SERVICE, gateway->name, "its policy: %s",
				 messages->list[i].text);
	}
}

void lint_policy_read(struct lint *lint)
{
	char name[] = CONFIG_ENVIRONMENT, buffer[COMPOSE_TEXT_MAX];
	const struct compose_service *gateway = lint->report->gateway;
	const char *text = gateway ? compose_map_text(json_object_get(gateway->json, "environment"), CONFIG_ENVIRONMENT, buffer) : NULL;
	struct config_messages messages = {0};
	struct config_part part = {.file = name, .text = text ? strdup(text) : NULL};
	struct config_text whole = {.parts = &part, .count = 1};

	if (lint->policy || !gateway || !text || !*text) {
		free(part.text);
		return;
	}
	if (!part.text) {
		lint->report->no_memory = true;
		return;
	}
	part.size = strlen(part.text);
	lint->own = config_parse(&whole, &messages);
	lint->policy = lint->own;
	say_messages(lint, gateway, &messages);
	if (!lint->own && !messages.count)
		lint->report->no_memory = true;
	config_messages_free(&messages);
	free(part.text);
}

/* Comparing */

static const struct prefix *policy_subnet(const struct network *network, int family)
{
	const struct prefix *subnet = family == AF_INET ? &network->subnet4 : &network->subnet6;

	return subnet->address.family ? subnet : NULL;
}

static bool is_same(const struct prefix *a, const struct prefix *b)
{
	return a && b && prefix_equal(a, b);
}

/* A network of the project without host bits in its subnet is matched exactly; Docker itself drops the host bits. */
static bool have_same_subnet(const struct network *network, const struct compose_network *other)
{
	for (size_t i = 0; i < other->subnet_count; i++) {
		const struct prefix *subnet = &other->subnets[i].subnet;

		if (is_same(policy_subnet(network, subnet->address.family), subnet))
			return true;
	}
	return false;
}

const struct network *lint_section(const struct lint *lint, const struct compose_network *network)
{
	for (size_t i = 0; lint->policy && i < lint->policy->network_count; i++) {
		if (have_same_subnet(&lint->policy->networks[i], network))
			return &lint->policy->networks[i];
	}
	return lint->policy ? policy_network_by_name(lint->policy, network->name) : NULL;
}

static void say_subnet_missing(struct lint *lint, const struct compose_network *network, const struct network *section,
			       const struct prefix *subnet)
{
	const struct address *gateway = subnet->address.family == AF_INET ? &section->gateway4 : &section->gateway6;
	char text[2][ADDRESS_TEXT_MAX];

	prefix_format(subnet, text[0]);
	lint_say(lint, LINT_ERROR, LINT_POLICY_SUBNET, LINT_NETWORK, network->name,
		 "the policy's [network %s] has the subnet %s (%s:%u), which this network has not: the gateway does not know its apps",
		 section->name, text[0], section->source.file, section->source.line);
	if (section->has_virtual_addresses)
		lint_fix_ranges(lint, network, section);
	else
		lint_fix_network(lint, network, "ipam: {config: [{subnet: \"%s\", gateway: \"%s\"}]}\n", text[0],
				 address_format(gateway, text[1]));
}

static void compare_subnet(struct lint *lint, const struct compose_network *network, const struct network *section, int family)
{
	const struct compose_subnet *subnet = lint_subnet(network, family);
	const struct prefix *wanted = policy_subnet(section, family);
	const struct address *gateway = family == AF_INET ? &section->gateway4 : &section->gateway6;
	char text[3][ADDRESS_TEXT_MAX];

	if (!subnet && !wanted)
		return;
	if (!wanted) {
		lint_say(lint, LINT_ERROR, LINT_POLICY_SUBNET, LINT_NETWORK, network->name,
			 "has the subnet %s, which the policy's [network %s] (%s:%u) does not name; write `subnet = %s` there",
			 prefix_format(&subnet->subnet, text[0]), section->name, section->source.file, section->source.line,
			 prefix_format(&subnet->subnet, text[1]));
	} else if (!subnet || !is_same(&subnet->subnet, wanted)) {
		say_subnet_missing(lint, network, section, wanted);
	} else if (subnet->gateway.family && !lint_has_no_route(lint, network) && !address_equal(&subnet->gateway, gateway)) {
		prefix_format(wanted, text[2]);
		lint_say(lint, LINT_ERROR, LINT_POLICY_GATEWAY, LINT_NETWORK, network->name,
			 "apps take %s for their gateway, but by the policy's [network %s] (%s:%u) it is %s",
			 address_format(&subnet->gateway, text[0]), section->name, section->source.file, section->source.line,
			 address_format(gateway, text[1]));
		lint_fix(lint, "networks:\n  %s:\n    ipam: {config: [{subnet: \"%s\", gateway: \"%s\"}]}\n", network->name, text[2],
			 text[1]);
	}
}

static void compare_network(struct lint *lint, const struct compose_network *network)
{
	const struct network *section = lint_section(lint, network);

	if (!section) {
		lint_say(lint, LINT_ERROR, LINT_POLICY_NO_SECTION, LINT_NETWORK, network->name,
			 "is in no [network] section of the policy: the gateway lets nothing through, or takes it for its uplink");
		return;
	}
	compare_subnet(lint, network, section, AF_INET);
	compare_subnet(lint, network, section, AF_INET6);
}

static bool has_compose_network(const struct lint *lint, const struct network *section)
{
	for (size_t i = 0; i < lint->compose->network_count; i++) {
		const struct compose_network *network = &lint->compose->networks[i];

		if (lint->report->roles[i] != LINT_ROLE_BEHIND)
			continue;
		/* An external one may have any subnet. */
		if (network->external || lint_section(lint, network) == section)
			return true;
	}
	return false;
}

void lint_policy_compare(struct lint *lint)
{
	const struct compose_service *gateway = lint->report->gateway;
	char text[ADDRESS_TEXT_MAX];

	for (size_t i = 0; lint->policy && i < lint->compose->network_count; i++) {
		const struct compose_network *network = &lint->compose->networks[i];

		if (lint->report->roles[i] == LINT_ROLE_BEHIND && !network->external && !network->bad_subnet && network->subnet_count)
			compare_network(lint, network);
	}
	if (!lint->policy || !gateway || gateway->network_mode)
		return;
	for (size_t i = 0; i < lint->policy->network_count; i++) {
		const struct network *section = &lint->policy->networks[i];
		const struct prefix *subnet = section->subnet4.address.family ? &section->subnet4 : &section->subnet6;

		if (!has_compose_network(lint, section))
			lint_say(lint, LINT_WARNING, LINT_POLICY_NO_NETWORK, LINT_SERVICE, gateway->name,
				 "is attached to no network with the subnet %s of the policy's [network %s] (%s:%u); fine if it is "
				 "attached later, "
				 "with `docker network connect`",
				 prefix_format(subnet, text), section->name, section->source.file, section->source.line);
	}
}
