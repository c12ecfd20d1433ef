/* SPDX-License-Identifier: MIT */
/*
 * The table as a whole.
 *
 * Theory of operation: the kernel is asked which chains, sets and counters the table has. One transaction then creates what is missing,
 * deletes the rules of all chains and writes them anew, changes those set elements that differ, and deletes what no network wants any more.
 * The kernel switches from the old rules to the new ones between two packets. What the kernel has is asked for each time, so a new worker
 * takes over the table of the one before.
 *
 * Writing rules is most of the time of a reload with many networks, and no other transaction, no grant of a lease, gets its turn meanwhile.
 * But rules depend on interfaces, subnets and port specifications, not on names. So a digest of what was written last is kept: where it is
 * the same again, and nobody else has changed the table (table_guard.h), only elements are written.
 *
 * What somebody else has done to the table may be anything: another flag, policy or hook. So then the transaction begins with deleting it.
 * That costs the packets that wait in the queues, and the counters begin at zero.
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
/* "sources4_" is the longest prefix; then the network, "_", the ports, NUL */
static_assert(9 + POLICY_NAME_MAX + 1 + PORTS_PART_MAX + 1 <= NFT_NAME_SIZE, "set names fit");

int ruleset_open(struct ruleset *ruleset, struct log *log, char *error, size_t error_size)
{
	struct nft_batch batch;
	int result = netlink_open(&ruleset->netlink, NETLINK_NETFILTER, 0);

	ruleset->log = log;
	if (result < 0) {
		snprintf(error, error_size, "nf_tables: a netlink socket cannot be opened: %s", strerror(-result));
		return result;
	}
	result = ruleset_probe(ruleset, error, error_size);
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
	/* Without snprintf(): each transaction that grants asks for a name. */
	char *end = stpcpy(stpcpy(stpcpy(out, prefix), family == AF_INET ? "4_" : "6_"), network->name);

	if (ports)
		ports_part(ports, stpcpy(end, "_"));
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
	int error;

	if (plan->ruleset->spoilt)
		return 0; /* it will have nothing */
	error = nft_objects_read(netlink, NFT_TABLE, NFT_OBJECTS_CHAINS, &plan->chains);

	if (error == 0)
		error = nft_objects_read(netlink, NFT_TABLE, NFT_OBJECTS_SETS, &plan->sets);
	if (error == 0)
		error = nft_objects_read(netlink, NFT_TABLE, NFT_OBJECTS_COUNTERS, &plan->counters);
	if (error == 0)
		error = nft_objects_read(netlink, NFT_TABLE, NFT_OBJECTS_FLOWTABLES, &plan->flowtables);
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

	if (plan->ruleset->spoilt) {
		nft_table_add(&plan->batch);
		nft_table_delete(&plan->batch);
	}
	ruleset_base_create(&plan->batch);
	if (ruleset_verifies(policy))
		ruleset_verify_create(&plan->batch);
	ruleset_base_want(plan);
	for (size_t i = 0; i < policy->network_count; i++)
		ruleset_network_want(plan, &policy->networks[i]);
	nft_rules_flush(&plan->batch);
	ruleset_flowtable_write(plan);
	ruleset_sets_global(plan);
	for (size_t i = 0; i < policy->network_count; i++)
		write_network(plan, &policy->networks[i]);
	ruleset_base_rules(plan);
	delete_unwanted(&plan->batch, &plan->chains, nft_chain_delete);
	delete_unwanted(&plan->batch, &plan->sets, nft_set_delete);
	delete_unwanted(&plan->batch, &plan->counters, nft_counter_delete);
}

/* Releases the batch. */
static int commit(struct ruleset_plan *plan, char *error, size_t error_size)
{
	struct ruleset *ruleset = plan->ruleset;
	struct ruleset_applied *applied = &ruleset->applied;
	uint8_t digest[NFT_DIGEST_SIZE];
	int result;

	if (nft_batch_digest(&plan->batch, digest) && applied->known && !ruleset->spoilt &&
	    memcmp(applied->digest, digest, NFT_DIGEST_SIZE) == 0) {
		nft_batch_drop_rules(&plan->batch);
		return nft_batch_commit(&plan->batch, error, error_size);
	}
	applied->known = false;
	result = nft_batch_commit(&plan->batch, error, error_size);
	if (result == 0) {
		memcpy(applied->digest, digest, NFT_DIGEST_SIZE);
		applied->known = true;
	}
	return result;
}

/* Releases what the plan has. */
static int apply(struct ruleset_plan *plan, struct mapping_table *mappings, char *error, size_t error_size)
{
	struct ruleset *ruleset = plan->ruleset;
	int result;

	nft_batch_begin_comparable(&plan->batch, &ruleset->netlink, NFT_TABLE);
	plan->error = read_objects(plan);
	ruleset_virtual_collect(plan, mappings);
	if (plan->error == 0)
		write_table(plan);
	result = plan->error;
	if (result == 0) {
		result = commit(plan, error, error_size);
		ruleset->spoilt &= result != 0;
	} else {
		snprintf(error, error_size, "nf_tables: the table cannot be read: %s", strerror(-result));
		nft_batch_free(&plan->batch);
	}
	nft_objects_free(&plan->chains);
	nft_objects_free(&plan->sets);
	nft_objects_free(&plan->counters);
	nft_objects_free(&plan->flowtables);
	free(plan->leases);
	free(plan->mappings);
	return result;
}

int ruleset_apply(struct ruleset *ruleset, const struct policy *policy, const struct interfaces *interfaces,
		  const struct openings *openings, struct lease_table *leases, const struct ruleset_places *places,
		  struct mapping_table *mappings, uint64_t now, char *error, size_t error_size)
{
	const struct ruleset_plan wanted = {.ruleset = ruleset,
					    .policy = policy,
					    .interfaces = interfaces,
					    .openings = openings,
					    .table = leases,
					    .places = places,
					    .flowtable = policy->flowtable && ruleset->features.flowtable,
					    .now = now,
					    .wall = time(NULL)};
	struct ruleset_plan plan = wanted;
	int result = apply(&plan, mappings, error, error_size);

	if (result == 0 || plan.batch.refused != NFT_MSG_NEWFLOWTABLE)
		return result;
	log_say(ruleset->log, LOG_WARNING, "%s; it is tried again without a flowtable, by which established flows would go a shorter way",
		error);
	plan = wanted;
	plan.flowtable = false;
	return apply(&plan, mappings, error, error_size);
}
