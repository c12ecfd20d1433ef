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

/* Somebody that a line was written about. */
struct stranger {
	struct stranger *next;
	uint16_t id; /* the network's */
	char network[POLICY_NAME_MAX + 1];
	struct address source, container;
	char app[APPS_NAME_MAX + 1];
	char server[ADDRESS_TEXT_MAX];
};

struct dns_path {
	/* One that is in `askers`: who asks has mostly asked the question before, too. */
	struct {
		uint16_t network;
		struct address address;
		bool known;
	} latest;
	struct log *log;
	struct apps *apps;
	const char *since;
	struct source_set askers, told;
	struct stranger *strangers; /* owned; those that have not asked since */
};

/* Hashed as bytes: made by source_hash(), which zeroes the padding. */
struct identity {
	uint16_t network;
	struct address address;
};

/* A line that waits for the container's name. */
struct advice {
	struct dns_path *path;
	struct stranger *stranger; /* owned */
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
	struct stranger *stranger, *next;

	if (!path)
		return;
	for (stranger = path->strangers; stranger; stranger = next) {
		next = stranger->next;
		free(stranger);
	}
	free(path->askers.slots);
	free(path->told.slots);
	free(path);
}

bool dns_path_is_known(struct dns_path *path, uint16_t network, const struct address *source)
{
	if (path->latest.known && path->latest.network == network && address_equal(&path->latest.address, source))
		return true;
	if (!set_contains(&path->askers, source_hash(network, source)))
		return false;
	path->latest.network = network;
	path->latest.address = *source;
	path->latest.known = true;
	return true;
}

/* Whoever has asked is no stranger any more. */
static void forget_stranger(struct dns_path *path, uint16_t network, const struct address *source, const struct address *container)
{
	for (struct stranger **at = &path->strangers; *at;) {
		struct stranger *stranger = *at;

		if (stranger->id != network ||
		    !(address_equal(&stranger->source, source) || address_equal(&stranger->container, container))) {
			at = &stranger->next;
			continue;
		}
		*at = stranger->next;
		free(stranger);
	}
}

void dns_path_asked(struct dns_path *path, uint16_t network, const struct address *source, const struct address *container)
{
	set_add(&path->askers, source_hash(network, source));
	set_add(&path->askers, source_hash(network, container));
	forget_stranger(path, network, source, container);
}

/* The source, its container, or somebody in the network of whom we cannot say which container it is. */
static bool has_asked(struct dns_path *path, uint16_t network, const struct address *source, const struct address *container)
{
	const struct address nobody = {0};

	return dns_path_is_known(path, network, container) || dns_path_is_known(path, network, source) ||
	       dns_path_is_known(path, network, &nobody);
}

static void give_advice(void *context, const char *name)
{
	struct advice *advice = context;
	struct stranger *stranger = advice->stranger;
	char source[ADDRESS_TEXT_MAX];

	address_format(&stranger->source, source);
	log_say(advice->path->log, LOG_WARNING,
		"network %s: %s%s%s%s uses addresses that no answer showed, and has not asked this gateway for a name %s. "
		"If it should use names, its service lacks the line `dns: %s`",
		stranger->network, *name ? name : source, *name ? " (" : "", *name ? source : "", *name ? ")" : "", advice->path->since,
		stranger->server);
	snprintf(stranger->app, sizeof(stranger->app), "%s", name);
	stranger->next = advice->path->strangers;
	advice->path->strangers = stranger;
	/* It may have asked meanwhile. */
	if (has_asked(advice->path, stranger->id, &stranger->source, &stranger->container))
		forget_stranger(advice->path, stranger->id, &stranger->source, &stranger->container);
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
	uint32_t hash = source_hash(network->id, container);
	struct stranger *stranger;
	struct advice *advice;

	if (!container->family || set_is_full(&path->askers) || set_is_full(&path->told) || set_contains(&path->told, hash))
		return;
	if (has_asked(path, network->id, source, container))
		return;
	advice = malloc(sizeof(*advice));
	stranger = calloc(1, sizeof(*stranger));
	if (!advice || !stranger) {
		free(advice);
		free(stranger);
		return;
	}
	set_add(&path->told, hash);
	*stranger = (struct stranger){.id = network->id, .source = *source, .container = *container};
	name_server(network, stranger->server);
	memcpy(stranger->network, network->name, sizeof(stranger->network));
	*advice = (struct advice){.path = path, .stranger = stranger};
	apps_lookup(path->apps, &network->subnet4, container, give_advice, advice);
}

json_t *dns_path_strangers(const struct dns_path *path)
{
	json_t *list = json_array();
	const struct stranger *stranger;

	for (stranger = path->strangers; stranger; stranger = stranger->next) {
		char source[ADDRESS_TEXT_MAX];

		json_array_append_new(list, json_pack("{s:s, s:s, s:s?, s:s}", "network", stranger->network, "src",
						      address_format(&stranger->source, source), "app",
						      stranger->app[0] ? stranger->app : NULL, "dns", stranger->server));
	}
	return list;
}
