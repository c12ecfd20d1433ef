/* SPDX-License-Identifier: MIT */
/*
 * The policy's address rules: one destination judged for the log and for `sluice explain`, and all rules as sets for the kernel.
 *
 * Theory of operation: both views go through rule_reaches() and rule_holes(), which cut the same way. Special-purpose
 * space is reached only by a rule whose prefix lies inside a special-purpose block; an own prefix (the gateway's addresses, the uplink's
 * subnets) only by a rule whose prefix lies inside it. Deny rules are not cut.
 *
 * Judging looks a destination up once for every prefix length that the rules use, the longest first, so that it does
 * not depend on the number of rules.
 */
#include "common/policy.h"
#include "common/policy_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH_MAX 128 /* bits of the longest prefix */

struct rule_link {
	struct rule_link *next; /* owned */
	const struct rule *rule;
};

/* All address rules with the same prefix, in their order. */
struct prefix_node {
	UT_hash_handle hh;
	struct prefix prefix;
	struct rule_link *rules; /* owned */
};

struct address_index {
	struct prefix_node *nodes;
	bool lengths4[LENGTH_MAX + 1], lengths6[LENGTH_MAX + 1]; /* lengths that occur */
};

static const bool *lengths_of(const struct address_index *index, int family)
{
	return family == AF_INET ? index->lengths4 : index->lengths6;
}

static struct prefix_node *node_at(struct address_index *index, const struct prefix *prefix)
{
	struct prefix_node *node;

	HASH_FIND(hh, index->nodes, prefix, sizeof(*prefix), node);
	if (node)
		return node;
	node = calloc(1, sizeof(*node));
	if (!node)
		return NULL;
	node->prefix = *prefix;
	HASH_ADD(hh, index->nodes, prefix, sizeof(node->prefix), node);
	if (!node->hh.tbl) {
		free(node);
		return NULL;
	}
	(prefix->address.family == AF_INET ? index->lengths4 : index->lengths6)[prefix->length] = true;
	return node;
}

static int add_rule(struct address_index *index, const struct rule *rule)
{
	struct prefix_node *node = node_at(index, &rule->prefix);
	struct rule_link *link = calloc(1, sizeof(*link));

	if (!node || !link) {
		free(link);
		return -ENOMEM;
	}
	*link = (struct rule_link){node->rules, rule};
	node->rules = link;
	return 0;
}

struct address_index *policy_address_index_new(const struct network *network)
{
	struct address_index *index = calloc(1, sizeof(*index));

	if (!index)
		return NULL;
	/* Links are put in front: from the last rule to the first, so that they end up in order. */
	for (size_t i = network->rule_count; i-- > 0;) {
		const struct rule *rule = network->rules[i];

		if (rule->kind == RULE_ADDRESS && add_rule(index, rule) < 0) {
			policy_address_index_free(index);
			return NULL;
		}
	}
	return index;
}

static void prefix_node_free(struct prefix_node *node)
{
	struct rule_link *next;

	for (struct rule_link *link = node->rules; link; link = next) {
		next = link->next;
		free(link);
	}
	free(node);
}

void policy_address_index_free(struct address_index *index)
{
	struct prefix_node *node, *next;

	if (!index)
		return;
	HASH_ITER (hh, index->nodes, node, next) {
		HASH_DEL(index->nodes, node);
		prefix_node_free(node);
	}
	free(index);
}

/* Does the prefix lie inside a special-purpose block? */
static bool names_special(const struct prefix *prefix)
{
	size_t count;
	const struct prefix *blocks = address_special_blocks(prefix->address.family, &count);

	for (size_t i = 0; i < count; i++)
		if (prefix_covers(&blocks[i], prefix))
			return true;
	return false;
}

/* Is this own prefix cut out of an allow rule? */
static bool is_own_hole(const struct prefix *own, const struct prefix *rule)
{
	return prefix_covers(rule, own) && !prefix_covers(own, rule);
}

/* Does an allow rule whose prefix contains @address reach it, special-purpose and own prefixes considered? */
static bool rule_reaches(const struct policy *policy, const struct prefix *rule, const struct address *address)
{
	if (address_special(address) && !names_special(rule))
		return false;
	for (const struct prefix_row *own = prefix_table_find(&policy->own_table, address); own; own = own->out)
		if (is_own_hole(&own->prefix, rule))
			return false;
	return true;
}

/* Ports that a rule opens or closes. A deny rule without ports closes all of them. */
static struct ports effective_ports(const struct rule *rule)
{
	return rule->action == RULE_DENY && !rule->ports_given ? ports_all() : rule->ports;
}

/* A destination, and the most specific rules found for it so far. */
struct search {
	const struct policy *policy;
	const struct address *address;
	uint8_t protocol;
	uint16_t port;
	const struct rule *deny, *allow;
	const struct rule *other_port; /* allows the address, not this port */
};

static void search_node(struct search *search, const struct prefix_node *node)
{
	bool reaches = rule_reaches(search->policy, &node->prefix, search->address);

	for (const struct rule_link *link = node->rules; link; link = link->next) {
		const struct rule *rule = link->rule;
		bool covers = ports_contains(&rule->ports, search->protocol, search->port);
		const struct rule **found = NULL;

		switch (rule->action) {
		case RULE_DENY:
			/* Without ports also for what has none. */
			found = covers || !rule->ports_given ? &search->deny : NULL;
			break;
		case RULE_ALLOW:
			if (reaches)
				found = covers ? &search->allow : &search->other_port;
			break;
		}
		if (found && !*found)
			*found = rule;
	}
}

static void search_index(struct search *search, const struct address_index *index)
{
	const bool *lengths = lengths_of(index, search->address->family);

	for (unsigned int length = address_bits(search->address) + 1; length-- > 0;) {
		struct prefix key;
		struct prefix_node *node;

		if (!lengths[length])
			continue;
		key = prefix_of(search->address, (uint8_t)length);
		HASH_FIND(hh, index->nodes, &key, sizeof(key), node);
		if (node)
			search_node(search, node);
	}
}

struct address_verdict policy_judge_address(const struct policy *policy, const struct network *network, const struct address *address,
					    uint8_t protocol, uint16_t port)
{
	struct search search = {.policy = policy, .address = address, .protocol = protocol, .port = port};

	if (network->addresses)
		search_index(&search, network->addresses);
	if (search.deny)
		return (struct address_verdict){.reason = REASON_DENIED_BY_RULE, .rule = search.deny};
	if (search.allow)
		return (struct address_verdict){.allowed = true, .reason = REASON_NONE, .rule = search.allow};
	if (search.other_port) {
		bool has_ports = protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;

		return (struct address_verdict){.reason = has_ports ? REASON_PORT_NOT_ALLOWED : REASON_PROTOCOL_NOT_ALLOWED,
						.rule = search.other_port};
	}
	if (address_special(address) || policy_own(policy, address))
		return (struct address_verdict){.reason = REASON_SPECIAL_ADDRESS};
	return (struct address_verdict){.reason = REASON_ADDRESS_NOT_ALLOWED};
}

static bool any_contains(const struct prefix *list, size_t count, const struct address *address)
{
	for (size_t i = 0; i < count; i++)
		if (prefix_contains(&list[i], address))
			return true;
	return false;
}

bool policy_answer_may_show(const struct policy *policy, const struct network *network, const struct domain *name,
			    const struct address *address)
{
	const struct upstream_group *group;

	if (address->family == 0)
		return false;
	if (!address_special(address) && !policy_own(policy, address))
		return true;
	if (any_contains(network->privates, network->private_count, address))
		return true;
	group = policy_upstream_for(policy, name);
	return any_contains(group->privates, group->private_count, address);
}

/* Work space of policy_address_sets(). */
struct sets {
	const struct policy *policy;
	struct address_set *list; /* owned until it is handed over */
	size_t count, room;
	struct address_range *holes; /* owned; room for all blocks of one family and all own prefixes */
	struct address_range *left;  /* owned; room for one range more */
};

/* The set that a rule belongs to; made when it is missing. Return: NULL when out of memory. */
static struct address_set *set_of(struct sets *sets, const struct rule *rule)
{
	struct ports ports = effective_ports(rule);
	int family = rule->prefix.address.family;

	for (size_t i = 0; i < sets->count; i++) {
		struct address_set *set = &sets->list[i];

		if (set->action == rule->action && set->family == family && ports_equal(&set->ports, &ports))
			return set;
	}
	if (sets->count == sets->room) {
		size_t room = sets->room ? 2 * sets->room : 8;
		struct address_set *grown = realloc(sets->list, room * sizeof(*grown));

		if (!grown)
			return NULL;
		sets->list = grown;
		sets->room = room;
	}
	sets->list[sets->count] = (struct address_set){.action = rule->action, .family = family, .ports = ports};
	return &sets->list[sets->count++];
}

/* The parts of an allow rule's prefix that it does not reach, normalised. */
static size_t rule_holes(struct sets *sets, const struct prefix *rule)
{
	const struct policy *policy = sets->policy;
	size_t block_count, count = 0;
	const struct prefix *blocks = address_special_blocks(rule->address.family, &block_count);

	if (!names_special(rule))
		for (size_t i = 0; i < block_count; i++)
			if (prefix_covers(rule, &blocks[i]))
				sets->holes[count++] = prefix_range(&blocks[i]);
	for (size_t i = 0; i < policy->own_count; i++)
		if (is_own_hole(&policy->own[i], rule))
			sets->holes[count++] = prefix_range(&policy->own[i]);
	return address_ranges_normalise(sets->holes, count);
}

/* Append ranges; the array has room for a power of two. */
static int append_ranges(struct address_set *set, const struct address_range *ranges, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if ((set->range_count & (set->range_count - 1)) == 0) {
			size_t room = set->range_count ? 2 * set->range_count : 1;
			struct address_range *grown = realloc(set->ranges, room * sizeof(*grown));

			if (!grown)
				return -ENOMEM;
			set->ranges = grown;
		}
		set->ranges[set->range_count++] = ranges[i];
	}
	return 0;
}

static int add_to_sets(struct sets *sets, const struct rule *rule)
{
	struct address_range range = prefix_range(&rule->prefix);
	struct address_set *set;
	size_t holes, count;

	if (rule->action == RULE_ALLOW && ports_is_empty(&rule->ports))
		return 0;
	holes = rule->action == RULE_ALLOW ? rule_holes(sets, &rule->prefix) : 0;
	count = address_ranges_subtract(&range, 1, sets->holes, holes, sets->left);
	if (count == 0)
		return 0;
	set = set_of(sets, rule);
	return set ? append_ranges(set, sets->left, count) : -ENOMEM;
}

static int add_all_to_sets(struct sets *sets, const struct network *network, enum rule_action action)
{
	for (size_t i = 0; i < network->rule_count; i++) {
		const struct rule *rule = network->rules[i];
		int err = rule->kind == RULE_ADDRESS && rule->action == action ? add_to_sets(sets, rule) : 0;

		if (err < 0)
			return err;
	}
	return 0;
}

int policy_address_sets(const struct policy *policy, const struct network *network, struct address_set **out, size_t *count)
{
	struct sets sets = {.policy = policy};
	size_t blocks4, blocks6, room;
	int err = -ENOMEM;

	address_special_blocks(AF_INET, &blocks4);
	address_special_blocks(AF_INET6, &blocks6);
	room = (blocks4 > blocks6 ? blocks4 : blocks6) + policy->own_count;
	sets.holes = calloc(room, sizeof(*sets.holes));
	sets.left = calloc(room + 1, sizeof(*sets.left));
	if (sets.holes && sets.left)
		err = add_all_to_sets(&sets, network, RULE_DENY);
	if (err == 0)
		err = add_all_to_sets(&sets, network, RULE_ALLOW);
	free(sets.holes);
	free(sets.left);
	if (err < 0) {
		policy_address_sets_free(sets.list, sets.count);
		return err;
	}
	for (size_t i = 0; i < sets.count; i++)
		sets.list[i].range_count = address_ranges_normalise(sets.list[i].ranges, sets.list[i].range_count);
	*out = sets.list;
	*count = sets.count;
	return 0;
}

void policy_address_sets_free(struct address_set *sets, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(sets[i].ranges);
	free(sets);
}
