/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: how many flows the table has is read every tick, which costs next to nothing; a look at all of them is due when a
 * quarter of the smallest share has been added. So a network has at most half of its share more than that before it is noticed, whatever it
 * does, and some of what is free then is left; and a gateway where little happens never looks for this. What is refused is written into
 * sets whose elements end by themselves, so nobody stays locked out when the worker is gone.
 *
 * The alternative, `ct count` of nf_tables, walks a list of all of a network's flows for each new one: measured at 100,000 flows, that
 * makes a new flow sixty times dearer, for everybody.
 */
#include "gateway/room.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"
#include "gateway/environment.h"
#include "resolver/shares.h"

#define SHARE_LEAST 1024 /* whatever the table's size is */
#define STEP_LEAST  4

/* Compared as bytes: made by make_key(), which zeroes the padding. */
struct room_key {
	uint16_t network;
	struct address source; /* family 0: the network itself */
};

struct room_entry {
	UT_hash_handle hh;
	struct room_key key;
	uint64_t flows;
	uint64_t sources; /* of a network: how many have flows */
	bool refused;     /* of a network: since an earlier look */
};

static bool read_number(const char *name, uint64_t *out)
{
	char text[ENVIRONMENT_VALUE_MAX];

	if (environment_read(name, text, sizeof(text)) != 0)
		return false;
	*out = strtoull(text, NULL, 10);
	return true;
}

uint64_t room_share(const struct policy *policy, const struct network *network, uint64_t max, uint64_t taken)
{
	uint64_t free = max > taken ? max - taken : 0, share, equal;

	if (network->max_flows)
		return network->max_flows;
	if (!max)
		return UINT64_MAX / 4; /* no limit */
	share = SHARES_FACTOR * free;
	equal = max / 4 * 3 / policy->network_count;
	if (share < equal)
		share = equal;
	return share < SHARE_LEAST ? SHARE_LEAST : share;
}

bool room_is_due(struct room *room, uint64_t now)
{
	uint64_t count;

	if (!room->step || !read_number("net.netfilter.nf_conntrack_count", &count))
		return false;
	if (count < room->count)
		room->count = count;
	return count - room->count >= room->step || (room->refusing && now - room->looked_at >= ROOM_LOOK_MS);
}

static struct room_key make_key(uint16_t network, const struct address *source)
{
	struct room_key key;

	memset(&key, 0, sizeof(key));
	key.network = network;
	if (source)
		key.source = *source;
	return key;
}

static struct room_entry *find(const struct room *room, const struct room_key *key)
{
	struct room_entry *entry;

	HASH_FIND(hh, room->entries, key, sizeof(*key), entry);
	return entry;
}

static struct room_entry *add(struct room *room, const struct room_key *key)
{
	struct room_entry *entry = calloc(1, sizeof(*entry));

	if (!entry)
		return NULL;
	entry->key = *key;
	HASH_ADD(hh, room->entries, key, sizeof(entry->key), entry);
	if (entry->hh.tbl)
		return entry;
	free(entry);
	return NULL;
}

static void forget(struct room *room, struct room_entry *entry)
{
	HASH_DEL(room->entries, entry);
	free(entry);
}

/* Networks stay, as it is remembered who is refused. */
static void forget_counts(struct room *room)
{
	struct room_entry *entry, *next;

	HASH_ITER (hh, room->entries, entry, next) {
		entry->flows = entry->sources = 0;
		if (entry->key.source.family)
			forget(room, entry);
	}
	room->sources = 0;
}

void room_look_begins(struct room *room, uint64_t now)
{
	forget_counts(room);
	room->looked_at = now;
	if (!read_number("net.netfilter.nf_conntrack_count", &room->count))
		room->count = 0;
}

static void see_source(struct room *room, struct room_entry *network, const struct address *source)
{
	struct room_key key = make_key(network->key.network, source);
	struct room_entry *entry = find(room, &key);

	if (!entry && room->sources < ROOM_SOURCES_MAX) {
		entry = add(room, &key);
		room->sources += entry != NULL;
		network->sources += entry != NULL;
	}
	if (entry)
		entry->flows++;
}

void room_see(struct room *room, const struct network *network, const struct address *source)
{
	struct room_key key = make_key(network->id, NULL);
	struct room_entry *entry = find(room, &key);

	if (!entry)
		entry = add(room, &key);
	if (!entry)
		return;
	entry->flows++;
	if (source)
		see_source(room, entry, source);
}

/* Sources with more than @part flows. */
static void list_sources(const struct room *room, uint64_t part, struct room_finding *out)
{
	struct room_entry *entry, *next;

	HASH_ITER (hh, room->entries, entry, next) {
		if (entry->key.network != out->network->id || !entry->key.source.family || entry->flows <= part)
			continue;
		out->sources[out->source_count] = entry->key.source;
		if (entry->flows > out->most) {
			out->most = entry->flows;
			out->sources[out->source_count] = out->sources[0];
			out->sources[0] = entry->key.source;
		}
		out->source_count++;
	}
}

int room_find(struct room *room, const struct network *network, uint64_t share, struct room_finding *out)
{
	struct room_key key = make_key(network->id, NULL);
	struct room_entry *entry = find(room, &key);
	uint64_t limit;

	*out = (struct room_finding){.network = network, .share = share};
	if (!entry)
		return 0;
	limit = entry->refused ? share - share / 8 : share; /* it is not over at the first flow that ends */
	out->flows = entry->flows;
	out->refused = entry->flows > limit;
	out->is_new = out->refused != entry->refused;
	if (out->refused && entry->sources) {
		out->sources = calloc(entry->sources, sizeof(*out->sources));
		if (!out->sources)
			return -ENOMEM;
		list_sources(room, limit / entry->sources, out);
	}
	out->all = entry->flows - out->most > share + share / 4;
	entry->refused = out->refused;
	return 0;
}

static void say(struct log *log, const struct room_finding *found)
{
	char text[ADDRESS_TEXT_MAX] = "";

	if (!found->refused) {
		log_say(log, LOG_INFO, "network %s: %" PRIu64 " flows: new ones pass again", found->network->name, found->flows);
		return;
	}
	if (found->source_count)
		address_format(&found->sources[0], text);
	log_say(log, LOG_WARNING,
		"network %s: %" PRIu64 " flows, more than its share of %" PRIu64 " (`max_flows`): new ones are refused of %zu sources that "
		"have most%s%s",
		found->network->name, found->flows, found->share, found->source_count, *text ? ", first of all " : "", text);
}

static void refuse(struct ruleset *ruleset, struct log *log, const struct room_finding *found)
{
	const struct ruleset_crowd crowd = {
		.network = found->network, .sources = found->sources, .count = found->source_count, .all = found->all};
	char error[512];

	if (ruleset_crowded(ruleset, &crowd, error, sizeof(error)) != 0)
		log_say(log, LOG_ERROR, "network %s: new flows cannot be refused: %s; it is tried again in %d s", found->network->name,
			error, ROOM_LOOK_MS / 1000);
}

/* Networks that are gone. */
static void forget_gone(struct room *room, const struct policy *policy)
{
	struct room_entry *entry, *next;

	HASH_ITER (hh, room->entries, entry, next)
		if (!policy_network(policy, entry->key.network))
			forget(room, entry);
}

void room_look_ends(struct room *room, const struct policy *policy, struct ruleset *ruleset, struct log *log)
{
	uint64_t max = 0, least = UINT64_MAX;

	(void)read_number("net.netfilter.nf_conntrack_max", &max);
	forget_gone(room, policy);
	room->refusing = 0;
	for (size_t i = 0; i < policy->network_count; i++) {
		const struct network *network = &policy->networks[i];
		uint64_t share = room_share(policy, network, max, room->count);
		struct room_finding found;

		if (share < least)
			least = share;
		if (room_find(room, network, share, &found) != 0)
			continue;
		if (found.is_new)
			say(log, &found);
		if (found.refused)
			refuse(ruleset, log, &found);
		room->refusing += found.refused;
		free(found.sources);
	}
	room->step = least / 4 > STEP_LEAST ? least / 4 : STEP_LEAST;
	forget_counts(room);
}

void room_close(struct room *room)
{
	struct room_entry *entry, *next;

	HASH_ITER (hh, room->entries, entry, next)
		forget(room, entry);
}
