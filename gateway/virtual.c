/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: an answer's real addresses are mapped as soon as it is judged, in the table only. Before the answers of a loop turn
 * are granted, virtual_write() brings what has changed to the kernel. The order of its transactions matters:
 *
 *	1. an address that another name had is taken out of the name sets which that name had opened;
 *	2. the second map of each network gets what is new, then the first one (ruleset_put_mapping());
 *	3. the journal gets it; and then the address is granted, by grants.c.
 *
 * So an address is open only while it leads to where its name of now leads.
 *
 * A name whose addresses are in use is asked for again when its TTL has run out, so that a flow to a virtual address, however long the app
 * has kept that, leads to a current real one. The longer nobody uses them, the seldomer: a name that was used an hour ago every four
 * minutes. That goes on for as long as a lease is open, and makes none last longer. When all have ended the name is left alone, and the
 * next flow waits until it was asked for again (chances.h). So is a name while it is denied; a reload that opens its leases again asks.
 */
#include "gateway/virtual.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/lifetime.h"
#include "gateway/gateway.h"
#include "gateway/neighbours.h"
#include "gateway/nft.h"

static void on_tick(uv_timer_t *timer);

int virtual_open(struct gateway *gateway)
{
	int rc = uv_timer_init(&gateway->loop, &gateway->virtuals.timer);

	if (rc != 0)
		return rc;
	gateway->virtuals.timer.data = gateway;
	return uv_timer_start(&gateway->virtuals.timer, on_tick, VIRTUAL_TICK_MS, VIRTUAL_TICK_MS);
}

void virtual_close(struct gateway *gateway)
{
	if (gateway->virtuals.timer.data != NULL)
		uv_close((uv_handle_t *)&gateway->virtuals.timer, NULL);
	free(gateway->virtuals.recycled);
}

/* Time without use after which an address may go: an app may be a little late, and flows are only looked for now and then. */
static uint64_t idle_time(const struct gateway *gateway, const struct network *network)
{
	return (uint64_t)network->lifetimes.min_ttl * 1000 + 2 * gateway->upkeep.period;
}

/* There has to be room for its lease: nothing that is open may be forgotten. */
static bool may_go(void *context, const struct mapping *mapping)
{
	struct virtuals *virtuals = &((struct gateway *)context)->virtuals;
	size_t wanted = virtuals->recycled_capacity * 2 + 2 * MAPPING_PER_NAME_MAX;
	struct lease *grown;

	(void)mapping;
	if (virtuals->recycled_capacity - virtuals->recycled_count >= MAPPING_PER_NAME_MAX)
		return true;
	grown = reallocarray(virtuals->recycled, wanted, sizeof(*grown));
	if (grown == NULL)
		return false;
	virtuals->recycled = grown;
	virtuals->recycled_capacity = wanted;
	return true;
}

static void on_gone(void *context, const struct mapping *mapping)
{
	struct gateway *gateway = context;
	struct virtuals *virtuals = &gateway->virtuals;

	virtuals->recycled[virtuals->recycled_count++] = (struct lease){
		.address = mapping->address,
		.network = mapping->network,
		.specs = lease_specs(gateway->leases, mapping->network, &mapping->address),
	};
	lease_remove(gateway->leases, mapping->network, &mapping->address, &mapping->name);
}

/* May it be told again, or for the first time? Then it is noted in the place of what was told longest ago. */
static bool may_say(struct virtual_said said[static VIRTUAL_SAID_MAX], uint16_t network, uint8_t family, uint64_t now)
{
	struct virtual_said *place = &said[0];

	for (size_t i = 0; i < VIRTUAL_SAID_MAX; i++) {
		if (said[i].at != 0 && said[i].network == network && said[i].family == family && now - said[i].at < VIRTUAL_SAY_MS)
			return false;
		if (said[i].at < place->at)
			place = &said[i];
	}
	*place = (struct virtual_said){.at = now, .network = network, .family = family};
	return true;
}

static void say_full(struct gateway *gateway, const struct network *network, int family)
{
	const struct prefix *pool = family == AF_INET ? &network->pool4 : &network->pool6;
	char text[ADDRESS_TEXT_MAX];

	if (!may_say(gateway->virtuals.full, network->id, pool->address.family, gateway_now(gateway)))
		return;
	log_say(gateway->log, LOG_ERROR,
		"network %s: the pool %s is full of names in use: questions for further names are answered SERVFAIL; a wider `pool`, or a "
		"smaller `per_name` (now %u), makes room",
		network->name, prefix_format(pool, text), network->per_name);
}

int virtual_map(void *context, const struct network *network, const struct shown_answer *shown, struct virtual_addresses *out)
{
	struct gateway *gateway = context;
	const struct mapping *mappings[MAPPING_PER_NAME_MAX];
	struct address *list = calloc(shown->count, sizeof(*list));
	struct mapping_answer answer = {
		.network = network,
		.name = shown->name,
		.reals = list,
		.real_count = shown->count,
		.ttl = shown->ttl,
		.asked = shown->asked,
		.stale = shown->stale,
		.now = gateway_now(gateway),
		.idle = idle_time(gateway, network),
		.may_go = may_go,
		.gone = on_gone,
		.context = gateway,
	};
	int rc = list != NULL ? 0 : -ENOMEM;

	for (size_t i = 0; i < shown->count && rc == 0; i++)
		list[i] = shown->reals[i].address;
	if (rc == 0)
		rc = mapping_assign(gateway->virtuals.table, &answer, mappings, &out->count, &out->shown);
	if (rc == -ENOSPC)
		say_full(gateway, network, list[0].family);
	for (size_t i = 0; i < out->count && rc == 0; i++)
		out->list[i] = mappings[i]->address;
	free(list);
	return rc;
}

/* Changes on their way. */
struct writing {
	struct gateway *gateway;
	struct nft_batch *batch;
	unsigned int map;
	struct mapping *list; /* for the journal */
	size_t count, capacity;
	int rc;
};

static int close_recycled(struct gateway *gateway)
{
	struct virtuals *virtuals = &gateway->virtuals;
	struct nft_batch batch;
	char set[RULESET_SET_NAME_MAX], text[256];
	int rc;

	if (virtuals->recycled_count == 0)
		return 0;
	nft_batch_begin(&batch, &gateway->ruleset.netlink, NFT_TABLE);
	for (size_t i = 0; i < virtuals->recycled_count; i++) {
		const struct lease *lease = &virtuals->recycled[i];
		const struct network *network = policy_network(gateway->policy, lease->network);

		for (unsigned int spec = 0; network != NULL && spec < network->spec_count; spec++) {
			if (!(lease->specs >> spec & 1))
				continue;
			ruleset_name_set(network, spec, lease->address.family, set);
			ruleset_close_lease(&batch, set, &lease->address);
		}
	}
	rc = nft_batch_commit(&batch, text, sizeof(text));
	if (rc == 0)
		virtuals->recycled_count = 0;
	return rc;
}

static void write_mapping(void *context, const struct mapping *mapping)
{
	struct writing *writing = context;
	const struct network *network = policy_network(writing->gateway->policy, mapping->network);

	if (network != NULL)
		ruleset_put_mapping(writing->batch, network, writing->map, mapping);
}

static int write_map(struct gateway *gateway, unsigned int map)
{
	struct nft_batch batch;
	struct writing writing = {.gateway = gateway, .batch = &batch, .map = map};
	char text[256];

	nft_batch_begin(&batch, &gateway->ruleset.netlink, NFT_TABLE);
	mapping_changes(gateway->virtuals.table, write_mapping, &writing);
	return nft_batch_commit(&batch, text, sizeof(text));
}

/* An app that cannot find it has another family, or another network has: no reason to answer nothing. */
static int hold(struct gateway *gateway, const struct mapping *mapping)
{
	const struct network *network = policy_network(gateway->policy, mapping->network);
	int rc = interfaces_hold_address(&gateway->interfaces, mapping->network, &mapping->address);
	char text[ADDRESS_TEXT_MAX];

	if (rc == 0 || !may_say(gateway->virtuals.unheld, mapping->network, mapping->address.family, gateway_now(gateway)))
		return rc;
	log_say(gateway->log, LOG_ERROR,
		"network %s: the virtual address %s cannot be added to the interface: %s (is IPv6 enabled on the network: enable_ipv6: "
		"true?)",
		network != NULL ? network->name : "-", address_format(&mapping->address, text), strerror(-rc));
	return rc;
}

static void hold_and_list(void *context, const struct mapping *mapping)
{
	struct writing *writing = context;
	struct mapping *grown;
	size_t wanted = writing->capacity * 2 + 16;

	if (mapping->written.family == 0)
		(void)hold(writing->gateway, mapping);
	if (writing->count == writing->capacity) {
		grown = reallocarray(writing->list, wanted, sizeof(*grown));
		if (grown == NULL) {
			writing->rc = -ENOMEM;
			return;
		}
		writing->list = grown;
		writing->capacity = wanted;
	}
	writing->list[writing->count++] = *mapping;
}

static int hold_and_keep(struct gateway *gateway)
{
	struct writing writing = {.gateway = gateway};

	mapping_changes(gateway->virtuals.table, hold_and_list, &writing);
	if (writing.rc == 0)
		traffic_keep_mappings(gateway, writing.list, writing.count);
	free(writing.list);
	return writing.rc;
}

int virtual_write(struct gateway *gateway)
{
	int rc;

	if (mapping_is_settled(gateway->virtuals.table) && gateway->virtuals.recycled_count == 0)
		return 0;
	rc = close_recycled(gateway);
	for (unsigned int map = RULESET_MAPS; map > 0 && rc == 0; map--)
		rc = write_map(gateway, map - 1);
	if (rc == 0)
		rc = hold_and_keep(gateway);
	if (rc == 0) {
		mapping_settle(gateway->virtuals.table);
		return 0;
	}
	/* Which of it the kernel has is found out then; the journal is written whole. */
	gateway->apply_due = true;
	gateway->journal.outdated = true;
	return rc;
}

static int check_pool(struct gateway *gateway, const struct network *network, const struct prefix *pool, const struct prefix *held,
		      char *error, size_t error_size)
{
	const struct interface *interface = interfaces_of_network(&gateway->interfaces, network->id);
	char address[ADDRESS_TEXT_MAX], text[ADDRESS_TEXT_MAX];
	struct address neighbour;

	if (interface == NULL || pool->address.family == 0 || (held != NULL && prefix_equal(pool, held)) ||
	    !neighbours_in(&gateway->interfaces.requests, interface->index, pool, &neighbour))
		return 0;
	snprintf(error, error_size,
		 "network %s: %s, an address of the pool %s, belongs to a container: keep Docker from giving these out, with 'ip_range:' "
		 "of the network in the Compose file, or write another 'pool ='",
		 network->name, address_format(&neighbour, address), prefix_format(pool, text));
	return -EADDRINUSE;
}

int virtual_check(struct gateway *gateway, const struct policy *policy, char *error, size_t error_size)
{
	int rc = 0;

	/* The worker before has held them: what neighbours say by now, they may have made up. */
	if (gateway->policy == NULL && gateway->start.restarts > 0)
		return 0;
	for (size_t i = 0; i < policy->network_count && rc == 0; i++) {
		const struct network *network = &policy->networks[i];
		const struct network *old = gateway->policy != NULL ? policy_network(gateway->policy, network->id) : NULL;

		if (!network->has_virtual_addresses)
			continue;
		rc = check_pool(gateway, network, &network->pool4, old != NULL ? &old->pool4 : NULL, error, error_size);
		if (rc == 0)
			rc = check_pool(gateway, network, &network->pool6, old != NULL ? &old->pool6 : NULL, error, error_size);
	}
	return rc;
}

/*
 * The journal has it as it was when it last changed, and apps may have asked for the name, been told its TTL and begun flows until a moment
 * ago. So it counts as used now, and keeps its address for as long as if it were.
 */
void virtual_restore(struct gateway *gateway, const struct policy *policy, const struct mapping *mapping)
{
	uint32_t ttl = mapping->ttl > JUDGE_STALE_TTL ? mapping->ttl : JUDGE_STALE_TTL;
	struct mapping restored = *mapping;

	restored.used = gateway_now(gateway);
	restored.told = restored.used + (uint64_t)ttl * 1000;
	restored.stale = true; /* as far as is known */
	if (mapping_fits(mapping, policy_network(policy, mapping->network)) && mapping_put(gateway->virtuals.table, &restored) != 0)
		log_say(gateway->log, LOG_ERROR, "out of memory: a virtual address of before is not known any more");
}

static bool hold_again(void *context, const struct mapping *mapping)
{
	(void)hold(context, mapping);
	return true;
}

void virtual_hold(struct gateway *gateway)
{
	mapping_each(gateway->virtuals.table, hold_again, gateway);
}

static void release_pools(struct gateway *gateway, const struct policy *old, const struct policy *policy)
{
	for (size_t i = 0; old != NULL && i < old->network_count; i++) {
		const struct network *network = policy_network(policy, old->networks[i].id);

		if (!old->networks[i].has_virtual_addresses)
			continue;
		if (network == NULL || !prefix_equal(&network->pool4, &old->networks[i].pool4))
			(void)interfaces_release_pool(&gateway->interfaces, &old->networks[i]);
	}
}

/* A change of policy under way. */
struct change {
	struct gateway *gateway;
	const struct policy *policy;
};

/* What goes must not come back from the journal. */
static bool fits(void *context, const struct mapping *mapping)
{
	const struct change *change = context;
	bool kept = mapping_fits(mapping, policy_network(change->policy, mapping->network));

	if (kept)
		return true;
	change->gateway->journal.outdated = true;
	/* An address that cannot be removed answers neighbours, and leads nowhere. */
	(void)interfaces_release_address(&change->gateway->interfaces, mapping->network, &mapping->address);
	return false;
}

void virtual_synchronised(struct gateway *gateway, const struct policy *policy)
{
	struct change change = {.gateway = gateway, .policy = policy};

	release_pools(gateway, gateway->policy, policy);
	mapping_each(gateway->virtuals.table, fits, &change);
	/* Changes that no grant has brought to the journal. */
	gateway->journal.outdated |= !mapping_is_settled(gateway->virtuals.table);
	mapping_synchronised(gateway->virtuals.table);
	gateway->virtuals.recycled_count = 0;
}

const struct address *virtual_shown(const struct gateway *gateway, const struct network *network, const struct lease *lease)
{
	const struct mapping *mapping;

	if (!network->has_virtual_addresses)
		return &lease->address;
	mapping = mapping_find(gateway->virtuals.table, network->id, &lease->address);
	return mapping != NULL && domain_equal(&mapping->name, &lease->name) && policy_in_pool(network, &lease->address) ? &mapping->real
															 : NULL;
}

void virtual_remember(struct gateway *gateway, const struct network *network, const struct address *address)
{
	const struct mapping *mapping = mapping_find(gateway->virtuals.table, network->id, address);
	struct lease lease;

	if (mapping == NULL || lease_has(gateway->leases, network->id, address, &mapping->name))
		return;
	lease = (struct lease){.address = *address, .network = network->id, .name = mapping->name, .shown = mapping->answered};
	lease.until = mapping->answered;
	(void)lease_put(gateway->leases, &lease); /* without it the denial has no name, and the name no second chance */
}

/* May a flow to the address pass? In audit mode one does without a lease too; such an address is followed for the life of a lease. */
static bool is_open(const struct gateway *gateway, const struct mapping *mapping, uint64_t now)
{
	const struct network *network = policy_network(gateway->policy, mapping->network);
	struct lease lease = {.address = mapping->address, .network = mapping->network, .name = mapping->name};

	if (network == NULL || !lease_refresh(gateway->leases, &lease))
		return false;
	if (lease.audited)
		return now - mapping->used < (uint64_t)lifetime_seconds(&network->lifetimes, mapping->ttl) * 1000;
	return lease.specs != 0 && lease.until > now;
}

/* Is it time to ask for the name again? */
static bool is_due(const struct gateway *gateway, const struct mapping *mapping, uint64_t now)
{
	uint64_t idle = now - mapping->used;
	uint64_t last = mapping->checked > mapping->answered ? mapping->checked : mapping->answered;
	uint64_t wait = mapping->stale ? 0 : (uint64_t)mapping->ttl * 1000;

	if (wait < VIRTUAL_REFRESH_MIN_MS)
		wait = VIRTUAL_REFRESH_MIN_MS;
	if (wait < idle / VIRTUAL_REFRESH_IDLE)
		wait = idle / VIRTUAL_REFRESH_IDLE;
	return now - last >= wait && is_open(gateway, mapping, now);
}

/* Addresses that are due, in one tick. */
struct due {
	struct gateway *gateway;
	struct {
		uint16_t network;
		struct address address;
	} list[VIRTUAL_REFRESH_MAX];
	size_t count;
};

static bool find_due(void *context, const struct mapping *mapping)
{
	struct due *due = context;

	/* Any of the name's addresses may be the one that a flow keeps open. */
	if (due->count < VIRTUAL_REFRESH_MAX && is_due(due->gateway, mapping, gateway_now(due->gateway))) {
		due->list[due->count].network = mapping->network;
		due->list[due->count++].address = mapping->address;
	}
	return true;
}

static void refresh(struct gateway *gateway, uint16_t network, const struct address *address)
{
	/* An answer from the cache to a name before may have changed the table, or this name was asked for with another address of it. */
	const struct mapping *mapping = mapping_find(gateway->virtuals.table, network, address);
	uint16_t type = address->family == AF_INET ? TYPE_A : TYPE_AAAA;
	struct domain name;

	if (mapping == NULL || !is_due(gateway, mapping, gateway_now(gateway)))
		return;
	name = mapping->name;
	/* Too many questions in progress: the next tick asks. */
	if (resolver_refresh(gateway->resolver, network, &name, type) == 0)
		mapping_checked(gateway->virtuals.table, network, address, gateway_now(gateway));
}

void virtual_refresh(struct gateway *gateway)
{
	struct due due = {.gateway = gateway};

	mapping_each(gateway->virtuals.table, find_due, &due);
	for (size_t i = 0; i < due.count; i++)
		refresh(gateway, due.list[i].network, &due.list[i].address);
}

static void on_tick(uv_timer_t *timer)
{
	virtual_refresh(timer->data);
}

json_t *virtual_answer(const struct gateway *gateway, const json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "network"));
	const char *text = json_string_value(json_object_get(request, "address"));
	const struct network *network = name != NULL ? policy_network_by_name(gateway->policy, name) : NULL;
	const struct mapping *mapping;
	struct address address;
	char domain[DOMAIN_TEXT_MAX], real[ADDRESS_TEXT_MAX];

	if (network == NULL || text == NULL || !address_parse(text, &address))
		return json_pack("{s:b, s:s}", "ok", 0, "error", "\"mapping\" needs the name of a network and an address");
	mapping = mapping_find(gateway->virtuals.table, network->id, &address);
	if (mapping == NULL)
		return json_pack("{s:b, s:s}", "ok", 0, "error", "the address stands for no name now");
	return json_pack("{s:b, s:s, s:s, s:s, s:s}", "ok", 1, "network", network->name, "address", text, "name",
			 domain_format(&mapping->name, domain), "real", address_format(&mapping->real, real));
}
