/* SPDX-License-Identifier: MIT */
#include "gateway/config_virtual.h"

/* Of one family. */
struct family {
	const struct prefix *subnet;
	const struct address *gateway;
	struct prefix *pool;
	enum place place;
	const char *name;
};

static void check_pool(struct draft *draft, const struct section *section, const struct family *family)
{
	const struct source *where = &section->places[family->place];
	char pool[ADDRESS_TEXT_MAX], text[ADDRESS_TEXT_MAX];

	prefix_format(family->pool, pool);
	if (!family->subnet->address.family)
		config_draft_say(draft, CONFIG_ERROR, *where, "the pool %s has no subnet of its family", pool);
	else if (!prefix_covers(family->subnet, family->pool))
		config_draft_say(draft, CONFIG_ERROR, *where,
				 "the pool %s is not in the subnet %s: an app without a route reaches its own subnet only", pool,
				 prefix_format(family->subnet, text));
	else if (family->pool->length == family->subnet->length)
		config_draft_say(draft, CONFIG_ERROR, *where, "the pool %s is the whole subnet: apps and the gateway need addresses, too",
				 pool);
	else if (prefix_contains(family->pool, family->gateway))
		config_draft_say(
			draft, CONFIG_ERROR, *where,
			"the gateway %s is in the pool %s: give it an address outside of it, with 'gateway =' and 'ipv4_address:' in "
			"the Compose file",
			address_format(family->gateway, text), pool);
}

static bool is_upper_half(const struct family *family, struct prefix *out)
{
	struct address_range range = prefix_range(family->subnet);

	*out = prefix_of(&range.last, (uint8_t)(family->subnet->length + 1));
	return !prefix_contains(out, family->gateway);
}

static void settle_pool(struct draft *draft, struct section *section, const struct family *family)
{
	char text[ADDRESS_TEXT_MAX];

	if (section->places[family->place].line) {
		/* One that is none has been told. */
		if (family->pool->address.family)
			check_pool(draft, section, family);
		return;
	}
	if (!family->subnet->address.family)
		return;
	if (!is_upper_half(family, family->pool))
		config_draft_say(
			draft, CONFIG_ERROR, section->source,
			"the gateway %s of [network %s] is in the upper half of its subnet, which is the %s pool unless 'pool =' says "
			"otherwise: write 'pool =', or give the gateway an address of the lower half",
			address_format(family->gateway, text), section->network.name, family->name);
}

/* An app without a route cannot even send a packet to such an address. */
static void refuse_address_rules(struct draft *draft, const struct section *section)
{
	for (size_t i = 0; i < section->network.rule_count; i++) {
		const struct rule *rule = &section->network.rules[i];

		if (rule->kind == RULE_ADDRESS)
			config_draft_say(
				draft, CONFIG_ERROR, rule->source,
				"'%.80s' is an address, and [network %s] has 'addresses = virtual': its apps see virtual addresses only, "
				"so no rule can be about real ones; write a name, or 'addresses = routed'",
				rule->text, section->network.name);
	}
}

static void refuse_without_virtual(struct draft *draft, const struct section *section)
{
	static const struct {
		enum place place;
		const char *key;
	} keys[] = {{PLACE_POOL4, "pool"}, {PLACE_POOL6, "pool"}, {PLACE_PER_NAME, "per_name"}};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const struct source *where = &section->places[keys[i].place];

		if (where->line)
			config_draft_say(draft, CONFIG_ERROR, *where, "'%s' without 'addresses = virtual'", keys[i].key);
	}
}

void config_virtual_settle(struct draft *draft, struct section *section)
{
	struct network *network = &section->network;
	const struct family ipv4 = {&network->subnet4, &network->gateway4, &network->pool4, PLACE_POOL4, "IPv4"};
	const struct family ipv6 = {&network->subnet6, &network->gateway6, &network->pool6, PLACE_POOL6, "IPv6"};

	if (!network->has_virtual_addresses) {
		refuse_without_virtual(draft, section);
		return;
	}
	settle_pool(draft, section, &ipv4);
	settle_pool(draft, section, &ipv6);
	refuse_address_rules(draft, section);
	if (!section->places[PLACE_PER_NAME].line)
		network->per_name = CONFIG_PER_NAME;
}
