/* SPDX-License-Identifier: MIT */
/*
 * Grants: leases first, then one transaction with an element for each address, port specification and grant.
 *
 * Theory of operation: the table of leases knows the latest end of all leases of an address, so it is asked for the timeout once all grants
 * are in it; no element is ever shortened. When the kernel refuses, the answers stay unsent and leases that were new are forgotten; one
 * that was only extended keeps its later end, which the next reload would write: it is a true answer for an allowed name.
 *
 * A name that is asked for over and over would move the end of its leases by microseconds, each time with a transaction and a record in the
 * journal. So what answers give ends as if they came at the end of their tick: only the first one of a tick has something to write. After a
 * failure all of that tick is written, because the table may have what the kernel has not.
 */
#include "gateway/grants.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/nft.h"

#define COLLECTED_MAX 32 /* each is compared with those that are there */

void grants_free(struct grants *grants)
{
	free(grants->changed);
	free(grants->made);
	grants->changed = NULL;
	grants->made = NULL;
	grants->changed_count = grants->changed_max = 0;
}

/* Return: false when out of memory. */
static bool reserve(struct grants *grants, size_t count)
{
	struct lease *changed;
	bool *made;

	if (count <= grants->changed_max)
		return true;
	changed = reallocarray(grants->changed, count, sizeof(*changed));
	if (changed)
		grants->changed = changed;
	made = reallocarray(grants->made, count, sizeof(*made));
	if (made)
		grants->made = made;
	if (!changed || !made)
		return false;
	grants->changed_max = count;
	return true;
}

static void forget_made(struct grants *grants)
{
	for (size_t i = 0; i < grants->changed_count; i++) {
		const struct lease *lease = &grants->changed[i];

		if (grants->made[i])
			lease_remove(grants->leases, lease->network, &lease->address, &lease->name);
	}
	grants->changed_count = 0;
}

static uint64_t end_of_tick(uint64_t now)
{
	return (now + GRANTS_TICK_MS - 1) / GRANTS_TICK_MS * GRANTS_TICK_MS;
}

static void doubt(struct grants *grants, uint64_t now)
{
	grants->doubted = end_of_tick(now);
	grants->unsure = true;
}

struct lease grants_lease(const struct grant *grant, uint64_t now)
{
	return (struct lease){
		.address = grant->address,
		.network = grant->network,
		.audited = grant->audited,
		.name = *grant->name,
		.chain = grant->chain,
		.specs = grant->audited ? 0 : grant->specs,
		.shown = now,
		.until = grant->seconds ? end_of_tick(now) + (uint64_t)grant->seconds * 1000 : now,
	};
}

/* There is room for it. */
static int remember(struct grants *grants, const struct policy *policy, const struct grant *grant, uint64_t now)
{
	struct lease *lease = &grants->changed[grants->changed_count];
	enum lease_news news;
	int error;

	*lease = grants_lease(grant, now);
	error = lease_tell(grants->leases, lease, &news);
	if (error || (news == LEASE_SAME && end_of_tick(now) != grants->doubted))
		return error;
	grants->made[grants->changed_count++] = news == LEASE_NEW;
	return policy_network(policy, lease->network) ? 0 : -ENOENT;
}

/* Elements of one set, which go into one message. */
struct collected {
	const struct grants *grants;
	struct nft_batch *batch;
	const struct network *network;
	unsigned int spec;
	int family;
	size_t count;
	struct nft_element *list; /* COLLECTED_MAX */
};

static void put_collected(struct collected *collected)
{
	char set[RULESET_SET_NAME_MAX];

	if (collected->count == 0)
		return;
	ruleset_name_set(collected->network, collected->spec, collected->family, set);
	ruleset_put_leases(collected->grants->ruleset, collected->batch, set, collected->list, collected->count);
	collected->count = 0;
}

static bool is_collected(const struct collected *collected, const struct nft_element *element)
{
	for (size_t i = 0; i < collected->count; i++) {
		if (memcmp(collected->list[i].key, element->key, element->size) == 0)
			return true;
	}
	return false;
}

static void collect(struct collected *collected, const struct network *network, unsigned int spec, const struct lease *lease,
		    uint64_t until, uint64_t now)
{
	struct nft_element element = ruleset_lease_element(&lease->address, until, now);

	if (collected->network != network || collected->spec != spec || collected->family != lease->address.family ||
	    collected->count == COLLECTED_MAX || is_collected(collected, &element))
		put_collected(collected);
	collected->network = network;
	collected->spec = spec;
	collected->family = lease->address.family;
	collected->list[collected->count++] = element;
}

/* Return: elements. */
static uint64_t collect_lease(struct collected *collected, const struct network *network, const struct lease *lease, uint64_t now)
{
	const struct prefix *subnet = lease->address.family == AF_INET ? &network->subnet4 : &network->subnet6;
	uint64_t until, count = 0;

	/* No sets for a family that the network lacks. */
	if (!subnet->address.family || lease->audited)
		return 0;
	for (uint64_t specs = lease->specs; specs; specs &= specs - 1) {
		unsigned int spec = (unsigned int)__builtin_ctzll(specs);

		until = spec < network->spec_count ? lease_until(collected->grants->leases, network->id, &lease->address, 1ULL << spec) : 0;
		if (until <= now)
			continue;
		collect(collected, network, spec, lease, until, now);
		count++;
	}
	return count;
}

/* Leases of networks that are gone are passed over. Return: 0 or -errno. */
static int write_elements(struct grants *grants, const struct policy *policy, const struct lease *leases, size_t count, uint64_t now)
{
	struct nft_batch batch;
	struct nft_element list[COLLECTED_MAX];
	struct collected collected = {.grants = grants, .batch = &batch, .list = list};
	uint64_t elements = 0;
	char text[256];
	int error;

	nft_batch_begin(&batch, &grants->ruleset->netlink, NFT_TABLE);
	for (size_t i = 0; i < count; i++) {
		const struct network *network = policy_network(policy, leases[i].network);

		if (network)
			elements += collect_lease(&collected, network, &leases[i], now);
	}
	put_collected(&collected);
	error = nft_batch_commit(&batch, text, sizeof(text));
	if (error == 0)
		grants->written += elements;
	else
		doubt(grants, now);
	return error;
}

int grants_extend(struct grants *grants, const struct policy *policy, const struct lease *leases, size_t count, uint64_t now)
{
	return write_elements(grants, policy, leases, count, now);
}

int grants_write(struct grants *grants, const struct policy *policy, const struct grant *list, size_t count, uint64_t now)
{
	int error = reserve(grants, count) ? 0 : -ENOMEM;

	grants->changed_count = 0;
	for (size_t i = 0; i < count && error == 0; i++)
		error = remember(grants, policy, &list[i], now);
	if (error == 0 && grants->changed_count > 0)
		error = write_elements(grants, policy, grants->changed, grants->changed_count, now);
	if (error < 0) {
		grants->failed++;
		grants->error = error;
		doubt(grants, now);
		forget_made(grants);
	}
	return error;
}
