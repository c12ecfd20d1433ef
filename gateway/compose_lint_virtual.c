/* SPDX-License-Identifier: MIT */
/* Networks with virtual addresses: does Docker leave the pool alone, and do gateway, apps and policy name the same address? */
#include <stdio.h>
#include <string.h>

#include "gateway/compose_lint_internal.h"

#define PROPOSAL_BITS 4   /* a proposed ip_range is at most so many bits longer than the subnet */
#define LINES_MAX     512 /* octets of proposed lines */

#define SAY_SERVICE(lint, code, service, ...) lint_say(lint, LINT_ERROR, code, LINT_SERVICE, (service)->name, __VA_ARGS__)

static const int families[] = {AF_INET, AF_INET6};
static const char *const address_keys[] = {"ipv4_address", "ipv6_address"};
#define FAMILY_COUNT (sizeof(families) / sizeof(families[0]))

static const struct prefix *subnet_of(const struct network *section, int family)
{
	return family == AF_INET ? &section->subnet4 : &section->subnet6;
}

static const struct prefix *pool_of(const struct network *section, int family)
{
	return family == AF_INET ? &section->pool4 : &section->pool6;
}

static const struct address *gateway_of(const struct network *section, int family)
{
	return family == AF_INET ? &section->gateway4 : &section->gateway6;
}

/* IPv4, unless the network has none. */
static size_t first_family(const struct network *section)
{
	return section->gateway4.family ? 0 : 1;
}

const struct network *lint_virtual(const struct lint *lint, const struct compose_network *network)
{
	const struct network *section = lint_section(lint, network);

	return section && section->has_virtual_addresses ? section : NULL;
}

bool lint_has_no_route(const struct lint *lint, const struct compose_network *network)
{
	return network->internal && !network->external && lint_virtual(lint, network);
}

static bool overlap(const struct prefix *a, const struct prefix *b)
{
	return prefix_covers(a, b) || prefix_covers(b, a);
}

/* Lines to write */

/* The largest part of the subnet that holds neither an address of the pool nor the gateway's. */
static bool find_range(const struct network *section, int family, struct prefix *out)
{
	const struct prefix *subnet = subnet_of(section, family);
	unsigned int bits = address_bits(&subnet->address);

	for (unsigned int more = 1; more <= PROPOSAL_BITS && subnet->length + more < bits; more++) {
		*out = prefix_of(&subnet->address, (uint8_t)(subnet->length + more));
		for (unsigned int i = 0; i < 1U << more; i++) {
			struct address_range range = prefix_range(out);
			struct prefix last = {range.last, (uint8_t)bits};

			if (!overlap(out, pool_of(section, family)) && !prefix_contains(out, gateway_of(section, family)))
				return true;
			out->address = prefix_host(&last, 1);
		}
	}
	return false;
}

void lint_fix_ranges(struct lint *lint, const struct compose_network *network, const struct network *section)
{
	char lines[LINES_MAX] = "", text[3][ADDRESS_TEXT_MAX];
	bool with_gateway = !network->internal;
	struct prefix range;
	size_t used = 0;

	for (size_t i = 0; i < FAMILY_COUNT; i++) {
		if (!subnet_of(section, families[i])->address.family)
			continue;
		if (!find_range(section, families[i], &range))
			return;
		prefix_format(subnet_of(section, families[i]), text[0]);
		prefix_format(&range, text[1]);
		address_format(gateway_of(section, families[i]), text[2]);
		used += (size_t)snprintf(lines + used, sizeof(lines) - used, "%s{subnet: \"%s\", ip_range: \"%s\"%s%s%s}", used ? ", " : "",
					 text[0], text[1], with_gateway ? ", gateway: \"" : "", with_gateway ? text[2] : "",
					 with_gateway ? "\"" : "");
	}
	lint_fix_network(lint, network, "ipam: {config: [%s]}\n", lines);
}

/* "{ipv4_address: "10.201.1.2"}" */
static const char *format_addresses(const struct network *section, char out[static LINES_MAX])
{
	char text[ADDRESS_TEXT_MAX];
	size_t used = 0;

	for (size_t i = 0; i < FAMILY_COUNT; i++) {
		if (gateway_of(section, families[i])->family)
			used += (size_t)snprintf(out + used, LINES_MAX - used, "%s%s: \"%s\"", used ? ", " : "{", address_keys[i],
						 address_format(gateway_of(section, families[i]), text));
	}
	snprintf(out + used, LINES_MAX - used, "}");
	return out;
}

/* The network */

/* Why Docker's choice of addresses goes wrong, or NULL. */
static const char *find_fault(const struct lint *lint, const struct compose_network *network, const struct compose_subnet *subnet,
			      const struct network *section)
{
	int family = subnet->subnet.address.family;
	const struct prefix *range = &subnet->range;

	if (!range->address.family)
		return "is not given: Docker may give a container an address of the pool, which stands for a name";
	if (!prefix_covers(&subnet->subnet, range))
		return "is not inside the subnet";
	if (overlap(range, pool_of(section, family)))
		return "overlaps the pool: Docker may give a container an address of it, which stands for a name";
	if (lint_has_no_route(lint, network) && prefix_contains(range, gateway_of(section, family)))
		return "has the gateway's address in it: Docker may give it to another container";
	return NULL;
}

static void check_ranges(struct lint *lint, const struct compose_network *network, const struct network *section)
{
	char subnet_text[ADDRESS_TEXT_MAX], pool_text[ADDRESS_TEXT_MAX];

	for (size_t i = 0; i < FAMILY_COUNT; i++) {
		const struct compose_subnet *subnet = lint_subnet(network, families[i]);
		const struct prefix *pool = pool_of(section, families[i]);
		const char *fault;

		/* That the subnets differ is said elsewhere. */
		if (!subnet || !pool->address.family || !prefix_covers(&subnet->subnet, pool))
			continue;
		fault = find_fault(lint, network, subnet, section);
		if (!fault)
			continue;
		lint_say(lint, LINT_ERROR, LINT_NETWORK_IP_RANGE, LINT_NETWORK, network->name,
			 "`ip_range` of %s %s; the pool is %s, by the policy's [network %s] (%s:%u)",
			 prefix_format(&subnet->subnet, subnet_text), fault, prefix_format(pool, pool_text), section->name,
			 section->source.file, section->source.line);
		lint_fix_ranges(lint, network, section);
	}
}

/* Services on it */

static void check_pool_addresses(struct lint *lint, const struct compose_service *service, const struct compose_attachment *attachment,
				 const struct network *section)
{
	char text[2][ADDRESS_TEXT_MAX];
	struct address address;

	for (size_t i = 0; i < FAMILY_COUNT; i++) {
		if (!compose_address(attachment, address_keys[i], &address) || !prefix_contains(pool_of(section, families[i]), &address))
			continue;
		SAY_SERVICE(
			lint, LINT_SERVICE_POOL_ADDRESS, service,
			"`%s: %s` on network %s is in the pool of virtual addresses, %s: it may stand for a name; take the line out, or an "
			"address outside of the pool",
			address_keys[i], address_format(&address, text[0]), attachment->network->name,
			prefix_format(pool_of(section, families[i]), text[1]));
	}
}

static void check_reserved(struct lint *lint, const struct compose_network *network, const struct network *section, int family)
{
	const struct compose_subnet *subnet = lint_subnet(network, family);
	char text[ADDRESS_TEXT_MAX];

	if (!subnet || !address_equal(&subnet->gateway, gateway_of(section, family)))
		return;
	SAY_SERVICE(lint, LINT_GATEWAY_ADDRESS, lint->report->gateway,
		    "its address on network %s is %s, and Docker keeps what stands under `gateway:` for itself and refuses it to "
		    "containers; apps "
		    "without a route need no `gateway:`, so take it out of `ipam`",
		    network->name, address_format(&subnet->gateway, text));
	lint_fix_ranges(lint, network, section);
}

/* Apps without a route reach the gateway's own address only: it may not be another one tomorrow. */
static void check_gateway(struct lint *lint, const struct compose_attachment *attachment, const struct network *section)
{
	char text[2][ADDRESS_TEXT_MAX], lines[LINES_MAX];
	const struct compose_network *network = attachment->network;

	for (size_t i = 0; i < FAMILY_COUNT; i++) {
		const struct address *wanted = gateway_of(section, families[i]);
		struct address address = {0};
		bool given = compose_address(attachment, address_keys[i], &address);

		if (!wanted->family)
			continue;
		check_reserved(lint, network, section, families[i]);
		if (given && address_equal(&address, wanted))
			continue;
		address_format(wanted, text[0]);
		SAY_SERVICE(
			lint, LINT_GATEWAY_FIXED_ADDRESS, lint->report->gateway,
			"`%s` on network %s is %s, but by the policy's [network %s] (%s:%u) the gateway is %s, where apps without a route "
			"look for it; write that, or `gateway =` there",
			address_keys[i], network->name, given ? address_format(&address, text[1]) : "not given", section->name,
			section->source.file, section->source.line, text[0]);
		lint_fix_service(lint, lint->report->gateway, "networks:\n      %s: %s\n", network->name, format_addresses(section, lines));
	}
}

static void check_services(struct lint *lint, const struct compose_network *network, const struct network *section)
{
	for (size_t i = 0; i < lint->compose->service_count; i++) {
		const struct compose_service *service = &lint->compose->services[i];
		const struct compose_attachment *attachment = compose_attachment(service, network);

		if (!attachment)
			continue;
		check_pool_addresses(lint, service, attachment, section);
		if (service == lint->report->gateway && lint_has_no_route(lint, network))
			check_gateway(lint, attachment, section);
	}
}

void lint_virtual_networks(struct lint *lint)
{
	for (size_t i = 0; i < lint->compose->network_count; i++) {
		const struct compose_network *network = &lint->compose->networks[i];
		const struct network *section = lint->report->roles[i] == LINT_ROLE_BEHIND ? lint_virtual(lint, network) : NULL;

		if (!section)
			continue;
		check_ranges(lint, network, section);
		check_services(lint, network, section);
	}
}

/* Apps */

/* One from which no other server can be reached, as far as can be seen. */
static bool needs_gateway_dns(const struct lint *lint, const struct compose_network *network)
{
	return lint_role(lint, network) == LINT_ROLE_BEHIND && (network->internal || network->external) && lint_virtual(lint, network);
}

static bool is_gateway(const struct lint *lint, const struct compose_service *app, const char *text)
{
	struct address address;

	for (size_t i = 0; text && address_parse(text, &address) && i < app->attachment_count; i++) {
		const struct compose_network *network = app->attachments[i].network;

		if (needs_gateway_dns(lint, network) && address_equal(&address, gateway_of(lint_virtual(lint, network), address.family)))
			return true;
	}
	return false;
}

static bool is_right_dns(const struct lint *lint, const struct compose_service *app)
{
	const json_t *dns = json_object_get(app->json, "dns");
	size_t count = json_is_array(dns) ? json_array_size(dns) : 1;
	char buffer[COMPOSE_TEXT_MAX];
	bool right = count > 0;

	for (size_t i = 0; i < count; i++)
		right &= is_gateway(lint, app, compose_text(json_is_array(dns) ? json_array_get(dns, i) : dns, buffer));
	return right;
}

static void say_dns(struct lint *lint, const struct compose_service *app, const struct compose_network *network)
{
	const struct compose_service *gateway = lint->report->gateway;
	const struct network *section = lint_virtual(lint, network);
	size_t family = first_family(section);
	char text[ADDRESS_TEXT_MAX], lines[LINES_MAX];

	address_format(gateway_of(section, families[family]), text);
	SAY_SERVICE(lint, LINT_APP_DNS_GATEWAY, app,
		    "`dns:` %s, but from network %s no server can be reached but the gateway's own address there, %s; three lines name "
		    "it: this "
		    "one, `%s` of the gateway service, and `gateway = %s` in the policy's [network %s]",
		    compose_is_empty(json_object_get(app->json, "dns")) ? "is not given" : "names another server", network->name, text,
		    address_keys[family], text, section->name);
	if (gateway)
		lint_fix(lint, "services:\n  %s:\n    dns: \"%s\"\n  %s:\n    networks:\n      %s: %s\n", app->name, text, gateway->name,
			 network->name, format_addresses(section, lines));
	else
		lint_fix_service(lint, app, "dns: \"%s\"\n", text);
}

bool lint_virtual_dns(struct lint *lint, const struct compose_service *app)
{
	for (size_t i = 0; i < app->attachment_count; i++) {
		if (!needs_gateway_dns(lint, app->attachments[i].network))
			continue;
		if (!is_right_dns(lint, app))
			say_dns(lint, app, app->attachments[i].network);
		return true;
	}
	return false;
}

const char *lint_dns(const struct lint *lint, const struct compose_network *network, char out[static ADDRESS_TEXT_MAX])
{
	const struct network *section = needs_gateway_dns(lint, network) ? lint_virtual(lint, network) : NULL;

	if (section)
		return address_format(gateway_of(section, families[first_family(section)]), out);
	return strcpy(out, LINT_DNS);
}
