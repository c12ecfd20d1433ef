/* SPDX-License-Identifier: MIT */
/* Networks with `addresses = virtual`: their pools, and what cannot be together with them. */

#include "gateway/config_virtual.h"

#define HOST_BITS_MIN 3 /* of a subnet: half of it for the pool, and in the other half the gateway and an app */

/* One family of a network. */
struct half {
	const struct prefix *subnet;
	const struct address *gateway;
	struct prefix *pool;
	struct source subnet_place, pool_place; /* line 0: it was not given */
	bool pool_unknown;
};

static struct prefix lower_half(const struct prefix *subnet)
{
	return prefix_of(&subnet->address, (uint8_t)(subnet->length + 1));
}

static struct prefix upper_half(const struct prefix *subnet)
{
	struct address_range range = prefix_range(subnet);

	return prefix_of(&range.last, (uint8_t)(subnet->length + 1));
}

/* Is there nothing in the pool but the subnet's own address (in IPv6: its Subnet-Router anycast address) or its broadcast address? */
static bool is_useless(const struct half *half)
{
	struct address_range range = prefix_range(half->subnet);
	const struct address *address = &half->pool->address;

	if (half->pool->length < address_bits(address))
		return false;
	return address_equal(address, &range.first) || (address->family == AF_INET && address_equal(address, &range.last));
}

/* Why these cannot be the virtual addresses, or NULL. */
static const char *find_fault(const struct half *half)
{
	if (prefix_covers(half->pool, half->subnet) && half->pool->length == half->subnet->length)
		return "is the whole subnet, and apps need addresses of their own";
	if (!prefix_covers(half->subnet, half->pool))
		return "is not inside the network's subnet";
	if (prefix_contains(half->pool, half->gateway))
		return "has the gateway's own address in it";
	if (is_useless(half))
		return "has no address that can be used, only the subnet's own or its broadcast address";
	return NULL;
}

static void check_pool(struct draft *draft, const struct half *half)
{
	const struct source *where = half->pool_place.line ? &half->pool_place : &half->subnet_place;
	struct prefix upper = upper_half(half->subnet), lower = lower_half(half->subnet);
	const struct prefix *better = prefix_contains(&upper, half->gateway) ? &lower : &upper;
	char pool[ADDRESS_TEXT_MAX], right[ADDRESS_TEXT_MAX];
	const char *fault = find_fault(half);

	if (fault)
		config_draft_say(draft, CONFIG_ERROR, *where, "the pool %s%s %s: write pool = %s", prefix_format(half->pool, pool),
				 half->pool_place.line ? "" : ", the upper half of the subnet,", fault, prefix_format(better, right));
}

/* One family: the pool that was given, which must fit, else the upper half of the subnet. */
static void settle_pool(struct draft *draft, const struct half *half)
{
	unsigned int bits = address_bits(&half->subnet->address);
	char text[ADDRESS_TEXT_MAX];

	if (!half->subnet->address.family) {
		if (half->pool->address.family)
			config_draft_say(draft, CONFIG_ERROR, half->pool_place,
					 "the pool %s has no subnet of its family: add that subnet, or leave this pool out",
					 prefix_format(half->pool, text));
		return;
	}
	if (bits - half->subnet->length < HOST_BITS_MIN) {
		config_draft_say(draft, CONFIG_ERROR, half->subnet_place,
				 "the subnet %s is too small for virtual addresses: beside its upper half, the pool, there is no usable "
				 "address for an app; it has to be /%u or larger",
				 prefix_format(half->subnet, text), bits - HOST_BITS_MIN);
		return;
	}
	if (!half->pool->address.family && !half->pool_unknown)
		*half->pool = upper_half(half->subnet);
	if (half->pool->address.family)
		check_pool(draft, half);
}

static void refuse_address_rules(struct draft *draft, const struct section *section)
{
	const struct network *network = &section->network;
	const struct source *where = &section->places[PLACE_ADDRESSES];

	for (size_t i = 0; i < network->rule_count; i++) {
		const struct rule *rule = network->rules[i];

		if (rule->kind == RULE_ADDRESS)
			config_draft_say(draft, CONFIG_ERROR, rule->source,
					 "'%.80s': address rules cannot work with 'addresses = virtual' (%s:%u): the apps of [network %s] "
					 "only ever see addresses of its pool, each of which stands for a name; write a rule for the name, "
					 "or 'addresses = routed'",
					 rule->text, where->file, where->line, network->name);
	}
}

static void refuse_alone(struct draft *draft, const struct section *section, enum place place, const char *key)
{
	if (section->places[place].line)
		config_draft_say(draft, CONFIG_ERROR, section->places[place],
				 "'%s' without 'addresses = virtual': write that as well, or leave '%s' out", key, key);
}

void config_virtual_settle(struct draft *draft, struct section *section)
{
	struct network *network = &section->network;
	struct half half4 = {
		&network->subnet4,    &network->gateway4, &network->pool4, section->places[PLACE_SUBNET4], section->places[PLACE_POOL4],
		section->pool_unknown};
	struct half half6 = {
		&network->subnet6,    &network->gateway6, &network->pool6, section->places[PLACE_SUBNET6], section->places[PLACE_POOL6],
		section->pool_unknown};

	if (section->addresses_unknown)
		return;
	if (!network->has_virtual_addresses) {
		refuse_alone(draft, section, PLACE_POOL, "pool");
		refuse_alone(draft, section, PLACE_PER_NAME, "per_name");
		return;
	}
	settle_pool(draft, &half4);
	settle_pool(draft, &half6);
	refuse_address_rules(draft, section);
}
