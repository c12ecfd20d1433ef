/* SPDX-License-Identifier: MIT */
/* The networks behind the gateway: are they written in a form that brings all traffic to it, and nowhere else? */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "gateway/compose_lint_internal.h"

#define OPTION         "com.docker.network.bridge."
#define DEFAULT_BRIDGE "docker0"
#define VLAN_PROPOSAL  2101U /* the first; what other projects on the host use cannot be seen */

#define SAY(lint, severity, code, network, ...) lint_say(lint, severity, code, LINT_NETWORK, (network)->name, __VA_ARGS__)

/* What Docker gives to networks that ask for no subnet, from its documentation of default-address-pools. */
static const struct prefix docker_pools[] = {
	{{AF_INET, {172, 17}}, 16}, {{AF_INET, {172, 18}}, 16}, {{AF_INET, {172, 19}}, 16},  {{AF_INET, {172, 20}}, 14},
	{{AF_INET, {172, 24}}, 14}, {{AF_INET, {172, 28}}, 14}, {{AF_INET, {192, 168}}, 16},
};

#define FIX_INHIBIT "    driver_opts:\n      " OPTION "inhibit_ipv4: \"true\"\n"

static const char *option(const struct compose_network *network, const char *name, char buffer[static COMPOSE_TEXT_MAX])
{
	return compose_map_text(network->options, name, buffer);
}

static bool means_false(const char *text)
{
	static const char *const words[] = {"false", "0", "f"};

	for (size_t i = 0; text && i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcasecmp(text, words[i]) == 0)
			return true;
	}
	return false;
}

static void fix_bridge(struct lint *lint, const struct compose_network *network)
{
	lint_fix_network(lint, network,
			 "driver: bridge\n"
			 "    driver_opts:\n"
			 "      " OPTION "inhibit_ipv4: \"true\"\n"
			 "      " OPTION "enable_ip_masquerade: \"false\"\n");
}

/* Bridge */

static void check_icc(struct lint *lint, const struct compose_network *network)
{
	char buffer[COMPOSE_TEXT_MAX];

	if (!means_false(option(network, OPTION "enable_icc", buffer)))
		return;
	SAY(lint, LINT_WARNING, LINT_NETWORK_ICC, network,
	    "`enable_icc: false` keeps containers from one another, and so apps from the gateway");
	lint_fix_network(lint, network, "driver_opts:\n      " OPTION "enable_icc: \"true\"\n");
}

static void check_bridge(struct lint *lint, const struct compose_network *network, bool inhibited)
{
	char buffer[COMPOSE_TEXT_MAX];

	if (!inhibited) {
		SAY(lint, LINT_ERROR, LINT_NETWORK_PLAIN, network,
		    "is an ordinary bridge: the host holds the gateway address, and apps leave through the host, around the gateway");
		if (lint_virtual(lint, network))
			lint_fix_network(lint, network, "internal: true\n" FIX_INHIBIT);
		else
			fix_bridge(lint, network);
	} else if (!means_false(option(network, OPTION "enable_ip_masquerade", buffer))) {
		SAY(lint, LINT_ERROR, LINT_NETWORK_MASQUERADE, network,
		    "the host masquerades this bridge: what an app sends to the host's MAC address leaves it, around the gateway");
		fix_bridge(lint, network);
	}
	if (network->ipv6) {
		SAY(lint, LINT_ERROR, LINT_NETWORK_BRIDGE_IPV6, network,
		    "has IPv6 in the bridge form: the host's bridge takes the IPv6 gateway address itself, and apps leave through the "
		    "host; take "
		    "IPv6 out of this network, or use the macvlan form");
		lint_fix_network(lint, network, "enable_ipv6: false\n");
	}
	check_icc(lint, network);
}

/* Macvlan */

static bool is_same_parent(const struct compose_network *a, const char *parent, const struct compose_network *b)
{
	char buffer[COMPOSE_TEXT_MAX];
	const char *other = option(b, "parent", buffer);

	return a != b && other && (strcmp(b->driver, "macvlan") == 0 || strcmp(b->driver, "ipvlan") == 0) && strcmp(parent, other) == 0;
}

/* A VLAN of the default bridge that no other network of the project has, nor gets proposed. */
static void fix_parent(struct lint *lint, const struct compose_network *network)
{
	unsigned int vlan = VLAN_PROPOSAL + (unsigned int)(network - lint->compose->networks);
	char parent[64];
	size_t i = 0;

	snprintf(parent, sizeof(parent), DEFAULT_BRIDGE ".%u", vlan);
	while (i < lint->compose->network_count) {
		if (is_same_parent(network, parent, &lint->compose->networks[i++])) {
			snprintf(parent, sizeof(parent), DEFAULT_BRIDGE ".%u", ++vlan);
			i = 0;
		}
	}
	lint_fix_network(lint, network, "driver_opts: {parent: %s}\n", parent);
}

static void check_shared_parent(struct lint *lint, const struct compose_network *network, const char *parent)
{
	for (size_t i = 0; i < lint->compose->network_count; i++) {
		const struct compose_network *other = &lint->compose->networks[i];

		if (!is_same_parent(network, parent, other))
			continue;
		SAY(lint, LINT_ERROR, LINT_NETWORK_SHARED_PARENT, network,
		    "has the same parent as network %s, %s: both are one segment, and their apps reach one another around the gateway; "
		    "give each "
		    "network a VLAN id of its own",
		    other->name, parent);
		fix_parent(lint, network);
		return;
	}
}

static bool begins_with(const char *text, const char *start)
{
	return strncmp(text, start, strlen(start)) == 0;
}

static bool has_bridge_companion(const struct lint *lint)
{
	for (size_t i = 0; i < lint->compose->service_count; i++) {
		const struct compose_service *service = &lint->compose->services[i];

		if (service->network_mode && strcmp(service->network_mode, "bridge") == 0)
			return true;
	}
	return false;
}

static void check_parent(struct lint *lint, const struct compose_network *network, const char *parent)
{
	static const char *const outward[] = {"eth", "en", "wl", "bond", "team", "ib", "ppp", "wwan", "br-", "vmbr", "virbr", "lan", "wan"};

	check_shared_parent(lint, network, parent);
	for (size_t i = 0; i < sizeof(outward) / sizeof(outward[0]); i++) {
		if (!begins_with(parent, outward[i]))
			continue;
		SAY(lint, LINT_WARNING, LINT_NETWORK_OPEN_PARENT, network,
		    "its parent %s may lead out of the host: apps then reach whatever is on that wire, around the gateway; use a VLAN of "
		    "an "
		    "interface that leads nowhere",
		    parent);
		fix_parent(lint, network);
		break;
	}
	if (begins_with(parent, DEFAULT_BRIDGE ".") && !has_bridge_companion(lint)) {
		SAY(lint, LINT_WARNING, LINT_NETWORK_NO_CARRIER, network,
		    "its parent %s has no carrier while no container is on the default bridge, and then nothing passes; a companion keeps "
		    "it up",
		    parent);
		lint_fix(lint,
			 "services:\n  carrier:\n    image: sluice\n    command: idle\n    network_mode: bridge\n    cap_drop: [ALL]\n"
			 "    read_only: true\n    restart: unless-stopped\n    healthcheck: {disable: true}\n");
	}
}

static void check_macvlan(struct lint *lint, const struct compose_network *network)
{
	char buffer[COMPOSE_TEXT_MAX];
	const char *parent = option(network, "parent", buffer);

	if (parent && *parent) {
		check_parent(lint, network, parent);
		return;
	}
	SAY(lint, LINT_ERROR, LINT_NETWORK_PARENTLESS, network,
	    "is a macvlan network without a parent: engines from 26 treat it as internal and give apps no route; name a parent, one VLAN "
	    "id per "
	    "network and host");
	fix_parent(lint, network);
}

/* Internal */

static void say_internal(struct lint *lint, const struct compose_network *network)
{
	const struct network *section = lint_section(lint, network);

	SAY(lint, LINT_ERROR, LINT_NETWORK_INTERNAL, network,
	    "is `internal`: Docker gives apps no route to the gateway, or drops what they send; write `addresses = virtual` into the "
	    "policy's "
	    "[network %s]%s, or use the bridge form",
	    section ? section->name : network->name, lint->policy ? "" : " (if it is there, name the policy: sluice lint -c FILE_OR_DIR)");
	lint_fix_network(lint, network,
			 "internal: false\n"
			 "    driver: bridge\n"
			 "    driver_opts:\n"
			 "      " OPTION "inhibit_ipv4: \"true\"\n"
			 "      " OPTION "enable_ip_masquerade: \"false\"\n");
}

static bool is_isolated(const struct compose_network *network, const char *name)
{
	char buffer[COMPOSE_TEXT_MAX];
	const char *mode = option(network, name, buffer);

	return mode && strcmp(mode, "isolated") == 0;
}

/* Nothing is forwarded from there, but the host itself may have an address. */
static void check_internal_bridge(struct lint *lint, const struct compose_network *network)
{
	if (!compose_true(json_object_get(network->options, OPTION "inhibit_ipv4")) && !is_isolated(network, OPTION "gateway_mode_ipv4")) {
		SAY(lint, LINT_WARNING, LINT_NETWORK_HOST_ADDRESS, network,
		    "the host has an address on it: apps reach what the host listens on, around the gateway");
		lint_fix_network(lint, network, "driver: bridge\n" FIX_INHIBIT);
	}
	if (network->ipv6 && !is_isolated(network, OPTION "gateway_mode_ipv6")) {
		SAY(lint, LINT_ERROR, LINT_NETWORK_BRIDGE_IPV6, network,
		    "the host's bridge takes the IPv6 gateway address itself: apps reach what the host listens on, and old engines even "
		    "forward "
		    "what they send; take IPv6 out of this network, or, on engines from 28, write these lines");
		lint_fix_network(lint, network,
				 "driver_opts:\n      " OPTION "gateway_mode_ipv4: isolated\n      " OPTION
				 "gateway_mode_ipv6: isolated\n");
	}
	check_icc(lint, network);
}

static void say_driver(struct lint *lint, const struct compose_network *network)
{
	SAY(lint, LINT_ERROR, LINT_NETWORK_DRIVER, network,
	    "driver %s: no form of it is known in which apps cannot go around the gateway; use the bridge or the macvlan form",
	    network->driver);
	fix_bridge(lint, network);
}

static void check_internal(struct lint *lint, const struct compose_network *network)
{
	if (!lint_virtual(lint, network))
		say_internal(lint, network);
	else if (strcmp(network->driver, "bridge") == 0)
		check_internal_bridge(lint, network);
	else if (strcmp(network->driver, "macvlan") != 0)
		say_driver(lint, network);
}

static void check_form(struct lint *lint, const struct compose_network *network)
{
	switch (compose_lint_form(network)) {
	case LINT_FORM_BRIDGE: check_bridge(lint, network, true); break;
	case LINT_FORM_PLAIN: check_bridge(lint, network, false); break;
	case LINT_FORM_MACVLAN: check_macvlan(lint, network); break;
	case LINT_FORM_INTERNAL: check_internal(lint, network); break;
	case LINT_FORM_EXTERNAL:
		SAY(lint, LINT_WARNING, LINT_NETWORK_EXTERNAL, network,
		    "is external: its form cannot be seen here; lint the project that declares it, or compare `docker network inspect` "
		    "with what "
		    "`sluice init` prints");
		break;
	case LINT_FORM_UNKNOWN: say_driver(lint, network); break;
	}
}

/* Subnets */

static void check_gateway_address(struct lint *lint, const struct compose_network *network, const struct compose_subnet *subnet)
{
	char text[2][ADDRESS_TEXT_MAX];
	struct address first = prefix_host(&subnet->subnet, 1);

	if (subnet->gateway.family)
		return;
	prefix_format(&subnet->subnet, text[0]);
	SAY(lint, LINT_ERROR, LINT_NETWORK_NO_GATEWAY, network,
	    "`ipam` names no gateway for %s: what apps take for their default route is then up to Docker", text[0]);
	lint_fix_network(lint, network, "ipam: {config: [{subnet: \"%s\", gateway: \"%s\"}]}\n", text[0], address_format(&first, text[1]));
}

static void check_pool(struct lint *lint, const struct compose_network *network, const struct compose_subnet *subnet)
{
	char text[ADDRESS_TEXT_MAX];

	for (size_t i = 0; i < sizeof(docker_pools) / sizeof(docker_pools[0]); i++) {
		if (!prefix_covers(&docker_pools[i], &subnet->subnet) && !prefix_covers(&subnet->subnet, &docker_pools[i]))
			continue;
		SAY(lint, LINT_WARNING, LINT_NETWORK_DOCKER_POOL, network,
		    "%s is in the range from which Docker takes subnets for other networks: on another day or host it is taken already; "
		    "choose one "
		    "outside 172.17-31.0.0 and 192.168.0.0",
		    prefix_format(&subnet->subnet, text));
		return;
	}
}

static bool overlap(const struct compose_network *a, const struct compose_network *b)
{
	for (size_t i = 0; i < a->subnet_count; i++) {
		for (size_t j = 0; j < b->subnet_count; j++) {
			if (prefix_covers(&a->subnets[i].subnet, &b->subnets[j].subnet) ||
			    prefix_covers(&b->subnets[j].subnet, &a->subnets[i].subnet))
				return true;
		}
	}
	return false;
}

/* A subnet that no network of the project has; several networks without one get different ones. */
static void fix_subnet(struct lint *lint, const struct compose_network *network)
{
	struct compose_network proposal = {.subnet_count = 1};
	struct prefix *subnet = &proposal.subnets[0].subnet;
	size_t i = 0;

	*subnet = (struct prefix){{AF_INET, {10, 201, (uint8_t)(1 + (network - lint->compose->networks) % 128)}}, 24};
	while (i < lint->compose->network_count) {
		if (overlap(&proposal, &lint->compose->networks[i++])) {
			subnet->address.bytes[2]++;
			i = subnet->address.bytes[2] ? 0 : lint->compose->network_count;
		}
	}
	lint_fix_network(lint, network, "ipam: {config: [{subnet: \"10.201.%u.0/24\", gateway: \"10.201.%u.1\"}]}\n",
			 subnet->address.bytes[2], subnet->address.bytes[2]);
}

static void check_subnets(struct lint *lint, const struct compose_network *network, enum lint_role role)
{
	if (network->bad_subnet)
		SAY(lint, LINT_ERROR, LINT_NETWORK_BAD_SUBNET, network,
		    "`ipam` has a subnet, `ip_range` or gateway that is no subnet or address");
	else if (role == LINT_ROLE_BEHIND && !lint_subnet(network, AF_INET) && !lint_subnet(network, AF_INET6)) {
		SAY(lint, LINT_ERROR, LINT_NETWORK_NO_SUBNET, network,
		    "has no subnet: Docker chooses one, which is not that of the policy");
		if (lint_virtual(lint, network))
			lint_fix_ranges(lint, network, lint_virtual(lint, network));
		else
			fix_subnet(lint, network);
	}
	for (size_t i = 0; i < network->subnet_count; i++) {
		if (role == LINT_ROLE_BEHIND && !lint_has_no_route(lint, network))
			check_gateway_address(lint, network, &network->subnets[i]);
		check_pool(lint, network, &network->subnets[i]);
	}
}

static void check_overlap(struct lint *lint, size_t index)
{
	const struct compose_network *network = &lint->compose->networks[index];

	for (size_t i = 0; i < lint->compose->network_count; i++) {
		const struct compose_network *other = &lint->compose->networks[i];

		/* Two networks behind the gateway are compared once. */
		if (i == index || (i < index && lint->report->roles[i] == LINT_ROLE_BEHIND) || !overlap(network, other))
			continue;
		SAY(lint, LINT_ERROR, LINT_NETWORK_OVERLAP, network, "its subnet overlaps with that of network %s; Docker refuses that",
		    other->name);
	}
}

void lint_networks(struct lint *lint)
{
	for (size_t i = 0; i < lint->compose->network_count; i++) {
		const struct compose_network *network = &lint->compose->networks[i];
		enum lint_role role = lint->report->roles[i];

		if (role == LINT_ROLE_BEHIND)
			check_form(lint, network);
		if (role != LINT_ROLE_OTHER && !network->external)
			check_subnets(lint, network, role);
		if (role == LINT_ROLE_BEHIND)
			check_overlap(lint, i);
	}
}
