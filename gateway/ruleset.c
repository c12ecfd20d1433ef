/* SPDX-License-Identifier: MIT */
/*
 * The table as a whole.
 *
 * Theory of operation: the kernel is asked which chains, sets and counters the table has. One transaction then creates what is missing,
 * deletes the rules of all chains and writes them anew, changes those set elements that differ, and deletes what no network wants any more.
 * The kernel switches from the old rules to the new ones between two packets. Nothing is remembered from one application to the next, so a
 * new worker takes over the table of the one before.
 */
#include "gateway/ruleset.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/ruleset_internal.h"

#define PORTS_PART_MAX 64 /* characters of a port specification in the name of a set; longer ones are hashed */

static_assert(RULESET_SET_NAME_MAX == NFT_NAME_SIZE, "set names have one size");
/* "names4_" or "allow4_", the network, "_", the ports, NUL */
static_assert(7 + POLICY_NAME_MAX + 1 + PORTS_PART_MAX + 1 <= NFT_NAME_SIZE, "set names fit");

int ruleset_open(struct ruleset *ruleset, struct log *log, char *error, size_t error_size)
{
	struct nft_batch batch;
	int result = netlink_open(&ruleset->netlink, NETLINK_NETFILTER, 0);

	if (result < 0) {
		snprintf(error, error_size, "nf_tables: a netlink socket cannot be opened: %s", strerror(-result));
		return result;
	}
	result = ruleset_probe(ruleset, log, error, error_size);
	if (result == 0) {
		nft_batch_begin(&batch, &ruleset->netlink, NFT_TABLE);
		ruleset_base_create(&batch);
		result = nft_batch_commit(&batch, error, error_size);
	}
	if (result < 0)
		ruleset_close(ruleset);
	return result;
}

void ruleset_close(struct ruleset *ruleset)
{
	netlink_close(&ruleset->netlink);
}

const char *ruleset_name(const char *prefix, const struct network *network, char out[static NFT_NAME_SIZE])
{
	snprintf(out, NFT_NAME_SIZE, "%s_%s", prefix, network->name);
	return out;
}

/* A port specification with characters that nft takes in a name. */
static void ports_part(const struct ports *ports, char out[static PORTS_PART_MAX])
{
	/* The same in every process: names need to differ, nobody hostile chooses them. */
	static const uint8_t key[crypto_shorthash_KEYBYTES];
	uint8_t hash[crypto_shorthash_BYTES];
	char text[PORTS_TEXT_MAX];

	ports_format(ports, text);
	if (strlen(text) >= PORTS_PART_MAX) {
		crypto_shorthash(hash, (const uint8_t *)text, strlen(text), key);
		out[0] = 'h';
		sodium_bin2hex(out + 1, PORTS_PART_MAX - 1, hash, sizeof(hash));
		return;
	}
	strcpy(out, text);
	for (char *plus = out; (plus = strchr(plus, '+'));)
		*plus = '.';
}

const char *ruleset_set_name(const char *prefix, int family, const struct network *network, const struct ports *ports,
			     char out[static NFT_NAME_SIZE])
{
	char part[PORTS_PART_MAX] = "";

	if (ports)
		ports_part(ports, part);
	snprintf(out, NFT_NAME_SIZE, "%s%c_%s%s%s", prefix, family == AF_INET ? '4' : '6', network->name, ports ? "_" : "", part);
	return out;
}

void ruleset_name_set(const struct network *network, unsigned int spec, int family, char out[static RULESET_SET_NAME_MAX])
{
	ruleset_set_name("names", family, network, &network->specs[spec], out);
}

const struct prefix *ruleset_subnet(const struct network *network, int family)
{
	const struct prefix *subnet = family == AF_INET ? &network->subnet4 : &network->subnet6;

	return subnet->address.family ? subnet : NULL;
}

const struct prefix *ruleset_pool(const struct network *network, int family)
{
	const struct prefix *pool = family == AF_INET ? &network->pool4 : &network->pool6;

	return network->has_virtual_addresses && pool->address.family ? pool : NULL;
}

const struct address *ruleset_gateway(const struct network *network, int family)
{
	return family == AF_INET ? &network->gateway4 : &network->gateway6;
}

/* Mark an object as wanted. Return: true when the kernel has it. */
static bool want(const struct nft_objects *objects, const char *name)
{
	struct nft_object *object = nft_objects_find(objects, name);

	if (object)
		object->wanted = true;
	return object;
}

void ruleset_want_chain(struct ruleset_plan *plan, const char *name)
{
	if (!want(&plan->chains, name))
		nft_chain_add(&plan->batch, name);
}

void ruleset_want_counter(struct ruleset_plan *plan, const char *name)
{
	if (!want(&plan->counters, name))
		nft_counter_add(&plan->batch, name);
}

bool ruleset_want_set(struct ruleset_plan *plan, const struct nft_set *set)
{
	if (want(&plan->sets, set->name))
		return true;
	nft_set_add(&plan->batch, set);
	return false;
}

static void delete_unwanted(struct nft_batch *batch, const struct nft_objects *objects,
			    void (*delete_object)(struct nft_batch *batch, const char *name))
{
	for (size_t i = 0; i < objects->count; i++)
		if (!objects->list[i].wanted)
			delete_object(batch, objects->list[i].name);
}

static int read_objects(struct ruleset_plan *plan)
{
	struct netlink *netlink = &plan->ruleset->netlink;
	int error = nft_objects_read(netlink, NFT_TABLE, NFT_OBJECTS_CHAINS, &plan->chains);

	if (error == 0)
		error = nft_objects_read(netlink, NFT_TABLE, NFT_OBJECTS_SETS, &plan->sets);
	if (error == 0)
		error = nft_objects_read(netlink, NFT_TABLE, NFT_OBJECTS_COUNTERS, &plan->counters);
	return error;
}

static void write_network(struct ruleset_plan *plan, const struct network *network)
{
	struct address_set *addresses = NULL;
	size_t count = 0;
	int error = policy_address_sets(plan->policy, network, &addresses, &count);

	if (error < 0) {
		plan->error = error;
		return;
	}
	ruleset_sets_network(plan, network, addresses, count);
	if (network->has_virtual_addresses)
		ruleset_virtual_maps(plan, network);
	ruleset_network_rules(plan, network, addresses, count);
	policy_address_sets_free(addresses, count);
}

static void write_table(struct ruleset_plan *plan)
{
	const struct policy *policy = plan->policy;

	ruleset_base_create(&plan->batch);
	ruleset_base_want(plan);
	for (size_t i = 0; i < policy->network_count; i++)
		ruleset_network_want(plan, &policy->networks[i]);
	nft_rules_flush(&plan->batch);
	ruleset_sets_global(plan);
	for (size_t i = 0; i < policy->network_count; i++)
		write_network(plan, &policy->networks[i]);
	ruleset_base_rules(plan);
	delete_unwanted(&plan->batch, &plan->chains, nft_chain_delete);
	delete_unwanted(&plan->batch, &plan->sets, nft_set_delete);
	delete_unwanted(&plan->batch, &plan->counters, nft_counter_delete);
}

int ruleset_apply(struct ruleset *ruleset, const struct policy *policy, const struct interfaces *interfaces,
		  const struct openings *openings, struct lease_table *leases, struct mapping_table *mappings, uint64_t now, char *error,
		  size_t error_size)
{
	struct ruleset_plan plan = {
		.ruleset = ruleset, .policy = policy, .interfaces = interfaces, .openings = openings, .now = now, .wall = time(NULL)};
	int result;

	nft_batch_begin(&plan.batch, &ruleset->netlink, NFT_TABLE);
	plan.error = read_objects(&plan);
	ruleset_sets_collect(&plan, leases);
	ruleset_virtual_collect(&plan, mappings);
	if (plan.error == 0)
		write_table(&plan);
	result = plan.error;
	if (result == 0) {
		result = nft_batch_commit(&plan.batch, error, error_size);
	} else {
		snprintf(error, error_size, "nf_tables: the table cannot be read: %s", strerror(-result));
		nft_batch_free(&plan.batch);
	}
	nft_objects_free(&plan.chains);
	nft_objects_free(&plan.sets);
	nft_objects_free(&plan.counters);
	free(plan.leases);
	free(plan.mappings);
	return result;
}
