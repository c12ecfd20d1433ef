/* SPDX-License-Identifier: MIT */
/*
 * Grants: leases first, then one transaction with an element for each address, port specification and grant.
 *
 * Theory of operation: the table of leases knows the latest end of all leases of an address, so it is asked for the timeout once all grants
 * are in it; no element is ever shortened. When the kernel refuses, the answers stay unsent and leases that were new are forgotten; one
 * that was only extended keeps its later end, which the next reload would write: it is a true answer for an allowed name.
 */
#include "gateway/grants.h"

#include <errno.h>
#include <stdlib.h>

#include "gateway/nft.h"

/* Leases that the list at hand has made. */
struct news {
	const struct grant **list; /* owned */
	size_t count;
};

static void forget_news(struct grants *grants, const struct news *news)
{
	for (size_t i = 0; i < news->count; i++)
		lease_remove(grants->leases, news->list[i]->network, &news->list[i]->address, news->list[i]->name);
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
		.until = now + (uint64_t)grant->seconds * 1000,
	};
}

static int remember(struct grants *grants, const struct grant *grant, uint64_t now, struct news *news)
{
	struct lease lease = grants_lease(grant, now);
	bool known = lease_has(grants->leases, lease.network, &lease.address, &lease.name);
	int error = lease_put(grants->leases, &lease);

	if (error == 0 && !known)
		news->list[news->count++] = grant;
	return error;
}

/* Return: elements in the batch. */
static uint64_t put_elements(struct grants *grants, const struct network *network, const struct address *address, uint64_t specs,
			     uint64_t now, struct nft_batch *batch)
{
	const struct prefix *subnet = address->family == AF_INET ? &network->subnet4 : &network->subnet6;
	char set[RULESET_SET_NAME_MAX];
	uint64_t until, count = 0;

	/* No sets for a family that the network lacks. */
	if (!subnet->address.family)
		return 0;
	for (unsigned int spec = 0; spec < network->spec_count; spec++) {
		if (!(specs >> spec & 1))
			continue;
		until = lease_until(grants->leases, network->id, address, UINT64_C(1) << spec);
		if (until <= now)
			continue;
		ruleset_name_set(network, spec, address->family, set);
		ruleset_put_lease(grants->ruleset, batch, set, address, until, now);
		count++;
	}
	return count;
}

static int write_elements(struct grants *grants, const struct policy *policy, const struct grant *list, size_t count, uint64_t now)
{
	const struct network *network = NULL;
	struct nft_batch batch;
	uint64_t elements = 0;
	char text[256];
	int error;

	nft_batch_begin(&batch, &grants->ruleset->netlink, NFT_TABLE);
	for (size_t i = 0; i < count; i++) {
		if (!network || network->id != list[i].network)
			network = policy_network(policy, list[i].network);
		if (!network) {
			nft_batch_free(&batch);
			return -ENOENT;
		}
		if (!list[i].audited)
			elements += put_elements(grants, network, &list[i].address, list[i].specs, now, &batch);
	}
	error = nft_batch_commit(&batch, text, sizeof(text));
	if (error == 0)
		grants->written += elements;
	return error;
}

int grants_extend(struct grants *grants, const struct policy *policy, const struct lease *leases, size_t count, uint64_t now)
{
	struct nft_batch batch;
	char text[256];

	nft_batch_begin(&batch, &grants->ruleset->netlink, NFT_TABLE);
	for (size_t i = 0; i < count; i++) {
		const struct network *network = policy_network(policy, leases[i].network);

		if (network)
			grants->written += put_elements(grants, network, &leases[i].address, leases[i].specs, now, &batch);
	}
	return nft_batch_commit(&batch, text, sizeof(text));
}

int grants_write(struct grants *grants, const struct policy *policy, const struct grant *list, size_t count, uint64_t now)
{
	struct news news = {.list = calloc(count + 1, sizeof(*news.list))};
	int error = news.list ? 0 : -ENOMEM;

	for (size_t i = 0; i < count && error == 0; i++)
		error = remember(grants, &list[i], now, &news);
	if (error == 0)
		error = write_elements(grants, policy, list, count, now);
	if (error < 0) {
		grants->failed++;
		grants->error = error;
		forget_news(grants, &news);
	}
	free(news.list);
	return error;
}
