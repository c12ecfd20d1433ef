/* SPDX-License-Identifier: MIT */
/*
 * Networks with virtual addresses. A flow from an app to an address of the pool takes these chains, all of which see its first packet only:
 *
 *	redirect_N	nat: what goes to the pool is sent to
 *	pool_N		by the name sets, as in net_N of other networks: to map_N; what is left goes to the next one, or is audited.
 *	pooldeny_N	above the rate, or known from before, poolrefuse_N; else the queue.
 *	poolrefuse_N	counted, and marked: it goes on to the gateway itself, where it is rejected (before Linux 5.9 it cannot be here).
 *	poolcrowded_N	the same, in audit mode, of whoever has too many flows (room.h). Others of these come to pass_N.
 *	map_N		the virtual address becomes the real one, by one of two maps.
 *
 * A packet that comes back from the queue begins redirect_N anew (NF_REPEAT), now with a mark: a verdict that lets it go on would lead past
 * the rest of the nat hook. What is denied goes on to the gateway itself, and is rejected there (verdict_input). A new IPv6 address takes
 *the kernel a moment to make local; until then what is denied is on its way out, and is rejected there (`forward`).
 *
 * In net_N everything goes to pass_N whose destination map_N has changed: nothing else in the table changes a destination on this way.
 */
#include <netinet/in.h> /* before the kernel's own headers */

#include <errno.h>
#include <linux/netfilter.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/ruleset_internal.h"

#define CROWDED "poolcrowded"

static const int families[] = {AF_INET, AF_INET6};
static const char *const chain_prefixes[] = {"pool", "pooldeny", "poolrefuse", CROWDED, "map"};
static const char *const map_prefixes[RULESET_MAPS] = {"virtual", "again"};

static const char *map_name(const struct network *network, unsigned int map, int family, char out[static NFT_NAME_SIZE])
{
	return ruleset_set_name(map_prefixes[map], family, network, NULL, out);
}

void ruleset_virtual_want(struct ruleset_plan *plan, const struct network *network)
{
	char name[NFT_NAME_SIZE];

	for (size_t i = 0; i < sizeof(chain_prefixes) / sizeof(chain_prefixes[0]); i++)
		ruleset_want_chain(plan, ruleset_name(chain_prefixes[i], network, name));
}

/* What may pass gets another mark: in `forward` its real address is judged, where these marks would say that it was. */
static void write_marks(const struct ruleset_writer *writer, const char *map)
{
	static const uint32_t passing[][2] = {{RULESET_MARK_ALLOW, 0}, {RULESET_MARK_AUDIT, RULESET_MARK_AUDITED}};

	ruleset_begin(writer, "pool");
	nft_match_meta32(writer->batch, NFT_META_MARK, RULESET_MARK_DENY, true);
	ruleset_end(writer, NFT_VERDICT_ACCEPT, NULL);
	for (size_t i = 0; i < sizeof(passing) / sizeof(passing[0]); i++) {
		ruleset_begin(writer, "pool");
		nft_match_meta32(writer->batch, NFT_META_MARK, passing[i][0], true);
		nft_set_mark(writer->batch, passing[i][1]);
		ruleset_end(writer, NFT_VERDICT_GOTO, map);
	}
}

/* It cannot be rejected in this hook. */
static void write_refuse(const struct ruleset_writer *writer, const char *prefix)
{
	ruleset_begin(writer, prefix);
	nft_set_mark(writer->batch, RULESET_MARK_REFUSE);
	ruleset_end(writer, NFT_VERDICT_ACCEPT, NULL);
}

static void write_audit(const struct ruleset_writer *writer, const char *deny, const char *map)
{
	char counter[NFT_NAME_SIZE];

	ruleset_write_crowded(writer, "pool", CROWDED);
	ruleset_write_audit_limit(writer, "pool", deny, NFT_VERDICT_GOTO, map);
	ruleset_begin(writer, CROWDED);
	nft_count(writer->batch, ruleset_name(RULESET_CROWDED, writer->network, counter));
	nft_rule_end(writer->batch);
	write_refuse(writer, CROWDED);
}

static void write_pool(const struct ruleset_writer *writer)
{
	char map[NFT_NAME_SIZE], deny[NFT_NAME_SIZE], refuse[NFT_NAME_SIZE];

	ruleset_name("map", writer->network, map);
	ruleset_name("pooldeny", writer->network, deny);
	ruleset_name("poolrefuse", writer->network, refuse);
	write_marks(writer, map);
	ruleset_write_names(writer, "pool", NFT_VERDICT_GOTO, map);
	if (policy_is_auditing(writer->network, writer->plan->wall))
		write_audit(writer, deny, map);
	ruleset_begin(writer, "pool");
	ruleset_end(writer, NFT_VERDICT_GOTO, deny);

	ruleset_write_limits(writer, "pooldeny", refuse);
	ruleset_count_refused(writer, "poolrefuse");
	write_refuse(writer, "poolrefuse");
}

static void write_map(const struct ruleset_writer *writer, int family)
{
	char name[NFT_NAME_SIZE];

	for (unsigned int map = 0; map < RULESET_MAPS; map++) {
		ruleset_begin(writer, "map");
		nft_destination_nat_map(writer->batch, map_name(writer->network, map, family, name), family);
		nft_rule_end(writer->batch);
	}
}

void ruleset_virtual_destinations(const struct ruleset_writer *writer)
{
	char pool[NFT_NAME_SIZE];

	for (size_t f = 0; f < 2; f++) {
		if (!ruleset_pool(writer->network, families[f]))
			continue;
		ruleset_begin(writer, "redirect");
		nft_match_prefix(writer->batch, NFT_FIELD_DESTINATION, ruleset_pool(writer->network, families[f]), true);
		ruleset_end(writer, NFT_VERDICT_GOTO, ruleset_name("pool", writer->network, pool));
		write_map(writer, families[f]);
	}
	write_pool(writer);
}

void ruleset_virtual_forward(const struct ruleset_writer *writer)
{
	ruleset_begin(writer, "net");
	nft_match_ct_status(writer->batch, RULESET_STATUS_DNAT);
	ruleset_end(writer, NFT_VERDICT_GOTO, writer->pass);
}

void ruleset_virtual_denied(const struct ruleset_writer *writer)
{
	static const uint32_t rejected[] = {RULESET_MARK_DENY, RULESET_MARK_REFUSE};

	for (size_t i = 0; i < sizeof(rejected) / sizeof(rejected[0]); i++) {
		ruleset_begin(writer, "input");
		nft_match_meta32(writer->batch, NFT_META_MARK, rejected[i], true);
		ruleset_end(writer, NFT_VERDICT_ACCEPT, NULL); /* to verdict_input */
	}
}

static int compare_mappings(const void *a, const void *b)
{
	const struct ruleset_mapping *left = a, *right = b;

	if (left->network != right->network)
		return left->network < right->network ? -1 : 1;
	return address_compare(&left->address, &right->address);
}

static bool collect(void *context, const struct mapping *mapping)
{
	struct ruleset_plan *plan = context;
	size_t wanted = plan->mapping_capacity ? plan->mapping_capacity * 2 : 256;
	struct ruleset_mapping *grown;

	if (!mapping_fits(mapping, policy_network(plan->policy, mapping->network)))
		return true;
	if (plan->mapping_count == plan->mapping_capacity) {
		grown = realloc(plan->mappings, wanted * sizeof(*grown));
		if (!grown) {
			plan->error = -ENOMEM;
			return true;
		}
		plan->mappings = grown;
		plan->mapping_capacity = wanted;
	}
	plan->mappings[plan->mapping_count++] =
		(struct ruleset_mapping){.network = mapping->network, .address = mapping->address, .real = mapping->real};
	return true;
}

void ruleset_virtual_collect(struct ruleset_plan *plan, struct mapping_table *mappings)
{
	mapping_each(mappings, collect, plan);
	if (plan->mapping_count)
		qsort(plan->mappings, plan->mapping_count, sizeof(*plan->mappings), compare_mappings);
}

/* The elements that a map should have, sorted as the kernel's list. Return: how many. */
static size_t wanted_elements(const struct ruleset_plan *plan, const struct network *network, int family, struct nft_element *out)
{
	size_t count = 0;

	for (size_t i = 0; i < plan->mapping_count; i++) {
		const struct ruleset_mapping *mapping = &plan->mappings[i];

		if (mapping->network == network->id && mapping->address.family == family)
			out[count++] = nft_element_mapping(&mapping->address, &mapping->real);
	}
	return count;
}

/* Elements that lead elsewhere go and come again; nothing else of the map is touched. */
static void write_difference(struct nft_batch *batch, const char *name, const struct nft_elements *old, const struct nft_element *new,
			     size_t new_count)
{
	size_t i = 0, j = 0;

	while (i < old->count || j < new_count) {
		int order = i == old->count ? 1 : j == new_count ? -1 : nft_element_compare(&old->list[i], &new[j]);
		bool same = order == 0 && address_equal(&old->list[i].to, &new[j].to);

		if (order <= 0 && !same)
			nft_elements_delete(batch, name, &old->list[i], 1);
		if (order >= 0 && !same)
			nft_elements_add(batch, name, &new[j], 1);
		i += order <= 0;
		j += order >= 0;
	}
}

static void write_elements(struct ruleset_plan *plan, const struct network *network, unsigned int map, int family)
{
	char name[NFT_NAME_SIZE];
	struct nft_set set = {.name = map_name(network, map, family, name), .key = ruleset_key_destination(family), .map = true};
	struct nft_element *new = calloc(plan->mapping_count + 1, sizeof(*new));
	struct nft_elements old = {0};
	int error = new ? 0 : -ENOMEM;

	if (ruleset_want_set(plan, &set) && error == 0)
		error = nft_elements_read(&plan->ruleset->netlink, NFT_TABLE, name, &old);
	if (error == 0)
		write_difference(&plan->batch, name, &old, new, wanted_elements(plan, network, family, new));
	else if (plan->error == 0)
		plan->error = error;
	nft_elements_free(&old);
	free(new);
}

void ruleset_virtual_maps(struct ruleset_plan *plan, const struct network *network)
{
	for (size_t f = 0; f < 2; f++)
		for (unsigned int map = 0; map < RULESET_MAPS && ruleset_pool(network, families[f]); map++)
			write_elements(plan, network, map, families[f]);
}

void ruleset_put_mapping(struct nft_batch *batch, const struct network *network, unsigned int map, const struct mapping *mapping)
{
	struct nft_element element = nft_element_mapping(&mapping->address, &mapping->real);
	char name[NFT_NAME_SIZE];

	if (address_equal(&mapping->real, &mapping->written))
		return;
	map_name(network, map, mapping->address.family, name);
	if (mapping->written.family)
		nft_elements_delete(batch, name, &element, 1);
	nft_elements_add(batch, name, &element, 1);
}
