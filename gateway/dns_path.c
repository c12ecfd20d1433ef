/* SPDX-License-Identifier: MIT */
/*
 * Which sources asked for names.
 *
 * Theory of operation
 *
 * Two sets of fixed size: sources that asked, and containers that a line was written about. Both hold 32-bit keyed hashes of (network,
 * address) and never forget; two sources with the same hash cost a line that could have been written, never a false one. A container asks
 * from its IPv4 address and may use IPv6 for its flows, or the other way round: so a source that asked is noted together with its
 * container's IPv4 address, and a flow is looked for under both. Where that address is not known, the network is noted as one of which
 * nothing can be said (its address of family 0).
 */
#include "gateway/dns_path.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"

#define ANY_SERVER4 "192.0.2.53"
#define ANY_SERVER6 "2001:db8::53"

/* Open addressing, at most half full; 0: unused. */
struct source_set {
	size_t max, count;
	uint32_t *slots; /* owned; 2 * max of them */
};

struct dns_path {
	struct log *log;
	struct apps *apps;
	const char *since;
	struct source_set askers, told;
};

/* Hashed as bytes: made by source_hash(), which zeroes the padding. */
struct identity {
	uint16_t network;
	struct address address;
};

/* A line that waits for the container's name. */
struct advice {
	struct dns_path *path;
	char network[POLICY_NAME_MAX + 1];
	struct address source;
	char server[ADDRESS_TEXT_MAX];
};

static uint32_t source_hash(uint16_t network, const struct address *address)
{
	struct identity identity;
	uint32_t hash;

	memset(&identity, 0, sizeof(identity));
	identity.network = network;
	identity.address = *address;
	hash = hash_bytes(&identity, sizeof(identity));
	return hash ? hash : 1;
}

/* The slot that has the hash, or the one where it belongs. */
static uint32_t *find_slot(const struct source_set *set, uint32_t hash)
{
	size_t at = hash % (2 * set->max);

	while (set->slots[at] && set->slots[at] != hash)
		at = (at + 1) % (2 * set->max);
	return &set->slots[at];
}

static bool set_contains(const struct source_set *set, uint32_t hash)
{
	return *find_slot(set, hash) != 0;
}

static bool set_is_full(const struct source_set *set)
{
	return set->count == set->max;
}

static void set_add(struct source_set *set, uint32_t hash)
{
	uint32_t *slot = find_slot(set, hash);

	if (*slot || set_is_full(set))
		return;
	*slot = hash;
	set->count++;
}

static bool set_open(struct source_set *set, size_t max)
{
	set->max = max;
	set->slots = calloc(2 * max, sizeof(set->slots[0]));
	return set->slots != NULL;
}

struct dns_path *dns_path_new(struct log *log, struct apps *apps, bool restarted)
{
	struct dns_path *path = calloc(1, sizeof(*path));

	if (!path)
		return NULL;
	path->log = log;
	path->apps = apps;
	path->since = restarted ? "since its worker was started again" : "since it started";
	if (set_open(&path->askers, DNS_PATH_ASKERS_MAX) && set_open(&path->told, DNS_PATH_TOLD_MAX))
		return path;
	dns_path_free(path);
	return NULL;
}

void dns_path_free(struct dns_path *path)
{
	if (!path)
		return;
	free(path->askers.slots);
	free(path->told.slots);
	free(path);
}

bool dns_path_is_known(const struct dns_path *path, uint16_t network, const struct address *source)
{
	return set_contains(&path->askers, source_hash(network, source));
}

void dns_path_asked(struct dns_path *path, uint16_t network, const struct address *source, const struct address *container)
{
	set_add(&path->askers, source_hash(network, source));
	set_add(&path->askers, source_hash(network, container));
}

static void give_advice(void *context, const char *name)
{
	struct advice *advice = context;
	char source[ADDRESS_TEXT_MAX];

	address_format(&advice->source, source);
	log_say(advice->path->log, LOG_WARNING,
		"network %s: %s%s%s%s uses addresses that no answer showed, and has not asked this gateway for a name %s. "
		"If it should use names, its service lacks the line `dns: %s`",
		advice->network, *name ? name : source, *name ? " (" : "", *name ? source : "", *name ? ")" : "", advice->path->since,
		advice->server);
	free(advice);
}

/* Where every question comes to us, any server will do; an app without a route has to name our own address. */
static void name_server(const struct network *network, char out[static ADDRESS_TEXT_MAX])
{
	bool ipv4 = network->subnet4.address.family != 0;

	if (network->has_virtual_addresses)
		address_format(ipv4 ? &network->gateway4 : &network->gateway6, out);
	else
		snprintf(out, ADDRESS_TEXT_MAX, "%s", ipv4 ? ANY_SERVER4 : ANY_SERVER6);
}

void dns_path_stranger(struct dns_path *path, const struct network *network, const struct address *source, const struct address *container)
{
	const struct address nobody = {0};
	uint32_t hash = source_hash(network->id, container);
	struct advice *advice;

	if (!container->family || set_is_full(&path->askers) || set_is_full(&path->told) || set_contains(&path->told, hash))
		return;
	if (set_contains(&path->askers, hash) || dns_path_is_known(path, network->id, source) ||
	    dns_path_is_known(path, network->id, &nobody))
		return;
	advice = malloc(sizeof(*advice));
	if (!advice)
		return;
	set_add(&path->told, hash);
	*advice = (struct advice){.path = path, .source = *source};
	name_server(network, advice->server);
	memcpy(advice->network, network->name, sizeof(advice->network));
	apps_lookup(path->apps, &network->subnet4, container, give_advice, advice);
}
