/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * The name is not in conntrack: a mark has no room for it, and the bits that are free there could count 2048 names at most; each of these
 * numbers would be in use for as long as a flow has it, and a restarted worker would not know what they stand for. Labels need a module
 * that not every kernel has. So a flow that is verified, and only such a one, has an entry here from its verdict to its end.
 *
 * An end that nobody heard of leaves its entry. It goes when another flow begins with the same addresses and ports, or when it is the
 * oldest one and there is no room.
 */
#include "gateway/report/verified.h"

#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "common/hash.h"

struct entry {
	UT_hash_handle hh;
	struct flow_key key;
	struct entry *prev, *next; /* in verified->oldest */
	struct address destination;
	uint8_t length; /* of the name */
	uint8_t wire[];
};

struct verified {
	struct entry *table;  /* owned, hash */
	struct entry *oldest; /* the same, list */
};

struct verified *verified_new(void)
{
	return calloc(1, sizeof(struct verified));
}

static void drop(struct verified *verified, struct entry *entry)
{
	HASH_DEL(verified->table, entry);
	DL_DELETE(verified->oldest, entry);
	free(entry);
}

void verified_free(struct verified *verified)
{
	struct entry *entry, *next;

	if (!verified)
		return;
	HASH_ITER (hh, verified->table, entry, next)
		drop(verified, entry);
	free(verified);
}

static struct entry *find(const struct verified *verified, const struct flow_key *key)
{
	struct entry *entry;

	HASH_FIND(hh, verified->table, key, sizeof(*key), entry);
	return entry;
}

void verified_put(struct verified *verified, const struct flow *flow, const struct verified_flow *known)
{
	const struct domain *name = &known->name;
	struct entry *entry;

	verified_forget(verified, flow);
	if (verified_count(verified) >= VERIFIED_MAX)
		drop(verified, verified->oldest);
	entry = calloc(1, sizeof(*entry) + name->length);
	if (!entry)
		return;
	entry->key = flow_key(flow);
	entry->destination = known->destination;
	entry->length = name->length;
	memcpy(entry->wire, name->wire, name->length);
	HASH_ADD(hh, verified->table, key, sizeof(entry->key), entry);
	if (!entry->hh.tbl) {
		free(entry);
		return;
	}
	DL_APPEND(verified->oldest, entry);
}

bool verified_find(const struct verified *verified, const struct flow *flow, struct verified_flow *out)
{
	const struct flow_key key = flow_key(flow);
	const struct entry *entry = find(verified, &key);

	memset(out, 0, sizeof(*out));
	if (!entry)
		return false;
	out->destination = entry->destination;
	out->name.length = entry->length;
	memcpy(out->name.wire, entry->wire, entry->length);
	return true;
}

void verified_forget(struct verified *verified, const struct flow *flow)
{
	const struct flow_key key = flow_key(flow);
	struct entry *entry = find(verified, &key);

	if (entry)
		drop(verified, entry);
}

size_t verified_count(const struct verified *verified)
{
	return HASH_COUNT(verified->table);
}
