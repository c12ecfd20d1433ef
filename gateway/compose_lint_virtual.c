/* SPDX-License-Identifier: MIT */
/*
 * Networks with virtual addresses. Their apps need no route, so a plain `internal: true` network is right; but Docker must leave the pool
 * to the gateway, and apps must ask the gateway under its own address, since nothing leads to any other.
 */
#include <string.h>

#include "gateway/compose_lint_internal.h"

#define OPTION       "com.docker.network.bridge."
#define SUBNET_PARTS 4 /* of which one is proposed for `ip_range` */

static const char *const address_keys[] = {"ipv4_address", "ipv6_address"};
static const int families[] = {AF_INET, AF_INET6};

static const struct prefix *pool_of(const struct network *section, int family)
{
	const struct prefix *pool = family == AF_INET ? &section->pool4 : &section->pool6;

	return pool->address.family ? pool : NULL;
}

static const struct address *gateway_of(const struct network *section, int family)
{
	return family == AF_INET ? &section->gateway4 : &section->gateway6;
}

static bool overlap(const struct prefix *a, const struct prefix *b)
{
	return prefix_covers(a, b) || prefix_covers(b, a);
}

/* A quarter of the subnet that has neither the gateway nor anything of the pool. */
static bool propose_range(const struct prefix *subnet, const struct prefix *pool, const struct address *gateway, struct prefix *out)
{
	unsigned int bits = address_bits(&subnet->address);

	if (subnet->length + 3U > bits || bits - subnet->length > 32)
		return false;
	for (uint32_t i = SUBNET_PARTS; i > 0; i--) {
		struct address first = prefix_host(subnet, (i - 1) << (bits - subnet->length - 2));

		*out = prefix_of(&first, (uint8_t)(subnet->length + 2));
		if (!overlap(out, pool) && !prefix_contains(out, gateway))
			return true;
	}
	return false;
}

static void fix_range(struct lint *lint, const struct compose_network *network, const struct compose_subnet *subnet,
		      const struct network *section)
{
	int family = subnet->subnet.address.family;
	char text[2][ADDRESS_TEXT_MAX];
	struct prefix range;

	/* With several subnets, lines for one of them would replace the others. */
	if (network->subnet_count == 1 && propose_range(&subnet->subnet, pool_of(section, family), gateway_of(section, family), &range))
		lint_fix_network(lint, network, "ipam: {config: [{subnet: \"%s\", ip_range: \"%s\"}]}\n",
				 prefix_format(&subnet->subnet, text[0]), prefix_format(&range, text[1]));
}

/* Docker gives containers any address of the range, or of the subnet when there is none. */
static void check_range(struct lint *lint, const struct compose_network *network, const struct compose_subnet *subnet,
			const struct network *section)
{
	const struct prefix *pool = pool_of(section, subnet->subnet.address.family);
	const struct address *gateway = gateway_of(section, subnet->subnet.address.family);
	bool given = subnet->range.address.family == subnet->subnet.address.family;
	const struct prefix *range = given ? &subnet->range : &subnet->subnet;
	char text[2][ADDRESS_TEXT_MAX];

	if (!pool)
		return;
	if (overlap(range, pool)) {
		lint_say(lint, LINT_ERROR, LINT_NETWORK_IP_RANGE, LINT_NETWORK, network->name,
			 "%s%s: Docker may give a container an address of the pool %s, which the gateway holds; keep it away with "
			 "`ip_range`",
			 given ? "has the `ip_range` " : "has no `ip_range` in ", prefix_format(range, text[0]),
			 prefix_format(pool, text[1]));
		fix_range(lint, network, subnet, section);
	} else if (prefix_contains(range, gateway) && !address_equal(&subnet->gateway, gateway)) {
		lint_say(lint, LINT_WARNING, LINT_NETWORK_IP_RANGE, LINT_NETWORK, network->name,
			 "its `ip_range` %s has the gateway's address %s: after a reboot Docker may give it to an app that starts first",
			 prefix_format(range, text[0]), address_format(gateway, text[1]));
		fix_range(lint, network, subnet, section);
	}
}

/* Docker gives the gateway its address, and apps are told that address. */
static void check_fixed_address(struct lint *lint, const struct compose_network *network, const struct compose_subnet *subnet,
				const struct network *section)
{
	const struct compose_service *service = lint->report->gateway;
	const struct compose_attachment *attachment = service ? compose_attachment(service, network) : NULL;
	int family = subnet->subnet.address.family;
	const struct address *gateway = gateway_of(section, family);
	const char *key = address_keys[family == AF_INET6];
	struct address address;
	char text[ADDRESS_TEXT_MAX];

	/* Docker keeps `gateway:` free, and the gateway takes that address by itself. */
	if (!attachment || !gateway->family || address_equal(&subnet->gateway, gateway) ||
	    (lint_fixed_address(attachment, key, &address) && address_equal(&address, gateway)))
		return;
	address_format(gateway, text);
	lint_say(lint, LINT_ERROR, LINT_GATEWAY_FIXED_ADDRESS, LINT_SERVICE, service->name,
		 "needs the fixed address %s on network %s: it is the gateway in the policy's [network %s] (%s:%u), and apps ask it for "
		 "names",
		 text, network->name, section->name, section->source.file, section->source.line);
	lint_fix_service(lint, service, "networks:\n      %s: {%s: \"%s\"}\n", network->name, key, text);
}

static bool option_is(const struct compose_network *network, const char *name, const char *value)
{
	char buffer[COMPOSE_TEXT_MAX];
	const char *text = compose_map_text(network->options, name, buffer);

	return text && strcmp(text, value) == 0;
}

static void check_host_leg(struct lint *lint, const struct compose_network *network)
{
	if (network->ipv6 && !option_is(network, OPTION "gateway_mode_ipv6", "isolated")) {
		lint_say(lint, LINT_ERROR, LINT_NETWORK_INTERNAL_IPV6, LINT_NETWORK, network->name,
			 "is internal and has IPv6: the host's bridge takes the IPv6 gateway address, apps reach the host there, and with "
			 "engine "
			 "20.10 the Internet; engines from 28 leave the host out of it with these lines, older ones need a network without "
			 "IPv6");
		lint_fix_network(lint, network,
				 "driver_opts:\n"
				 "      " OPTION "gateway_mode_ipv4: isolated\n"
				 "      " OPTION "gateway_mode_ipv6: isolated\n");
	}
	if (option_is(network, OPTION "inhibit_ipv4", "true") || option_is(network, OPTION "gateway_mode_ipv4", "isolated"))
		return;
	lint_say(lint, LINT_WARNING, LINT_NETWORK_INTERNAL_HOST, LINT_NETWORK, network->name,
		 "is internal, but the host has an address on it: apps reach what the host listens on");
	lint_fix_network(lint, network, "driver_opts:\n      " OPTION "inhibit_ipv4: \"true\"\n");
}

void lint_virtual_network(struct lint *lint, const struct compose_network *network, const struct network *section)
{
	for (size_t i = 0; i < network->subnet_count; i++) {
		check_range(lint, network, &network->subnets[i], section);
		if (network->internal)
			check_fixed_address(lint, network, &network->subnets[i], section);
	}
	if (network->internal)
		check_host_leg(lint, network);
}

static bool is_gateway(const struct network *section, const char *text)
{
	struct address address;

	return text && address_parse(text, &address) &&
	       (address_equal(&address, &section->gateway4) || address_equal(&address, &section->gateway6));
}

bool lint_virtual_dns(const json_t *dns, const struct network *section)
{
	char buffer[COMPOSE_TEXT_MAX];

	if (!json_is_array(dns))
		return is_gateway(section, compose_text(dns, buffer));
	for (size_t i = 0; i < json_array_size(dns); i++) {
		if (!is_gateway(section, compose_text(json_array_get(dns, i), buffer)))
			return false;
	}
	return true;
}

void lint_virtual_app(struct lint *lint, const struct compose_service *app, const struct compose_network *network,
		      const struct network *section)
{
	const struct compose_attachment *attachment = compose_attachment(app, network);
	struct address address;
	char text[2][ADDRESS_TEXT_MAX];

	for (size_t i = 0; i < 2; i++) {
		const struct prefix *pool = pool_of(section, families[i]);

		if (!pool || !lint_fixed_address(attachment, address_keys[i], &address) || !prefix_contains(pool, &address))
			continue;
		lint_say(lint, LINT_ERROR, LINT_APP_POOL_ADDRESS, LINT_SERVICE, app->name,
			 "has the address %s on network %s, of the pool %s that the gateway holds: give it one outside of the pool",
			 address_format(&address, text[0]), network->name, prefix_format(pool, text[1]));
	}
}
