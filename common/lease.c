/* SPDX-License-Identifier: MIT */
/*
 * The table of leases.
 *
 * Theory of operation
 *
 * Two hash tables: address -> place, and name -> one shared copy of the name. A place holds the leases of its address in one array,
 * ordered by network, then by end, latest first. So "which name was this" and "until when" look at the first fitting entry of a
 * network, and the same array answers for other networks. Names are stored once and counted: with the array it keeps a lease of an
 * address and a name of its own under 300 bytes, others at about 40.
 *
 * The callers see struct lease, built in `scratch`.
 */
#include "common/lease.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"

#define LEASE_SWEEP_ENTRIES 4096 /* leases looked at per lease_sweep() */
#define LEASE_ROOM_ENTRIES  2048 /* leases looked at to make room in a full table ... */
#define LEASE_ROOM_FREED    64   /* ... until so many are gone */

/* A name, shared by all leases of it. */
struct shared_name {
	UT_hash_handle hh;
	uint32_t users;
	uint8_t length;
	uint8_t wire[];
};

struct entry {
	struct shared_name *name;
	uint64_t specs;
	uint64_t until;
	uint16_t network;
	bool audited;
};

/* All leases of one address. */
struct place {
	UT_hash_handle hh;
	struct entry *entries; /* owned */
	uint32_t count, capacity;
	struct address address;
};

struct lease_table {
	struct place *places;      /* owned, hash */
	struct shared_name *names; /* owned, hash */
	struct place *cursor;      /* where the next sweep goes on; NULL: at the beginning */
	struct lease *scratch;     /* owned: what lease_find() returns */
	uint64_t now;              /* latest time heard of, to tell ended leases when the table is full */
	size_t count;
};

struct lease_table *lease_table_new(void)
{
	struct lease_table *table = calloc(1, sizeof(*table));
	if (!table)
		return NULL;
	table->scratch = calloc(1, sizeof(*table->scratch));
	if (!table->scratch) {
		free(table);
		return NULL;
	}
	return table;
}

static struct shared_name *name_find(const struct lease_table *table, const struct domain *name)
{
	struct shared_name *found;
	HASH_FIND(hh, table->names, name->wire, name->length, found);
	return found;
}

/* One more user of the shared copy. NULL: out of memory. */
static struct shared_name *name_take(struct lease_table *table, const struct domain *name)
{
	struct shared_name *shared = name_find(table, name);
	if (!shared) {
		shared = calloc(1, sizeof(*shared) + name->length);
		if (!shared)
			return NULL;
		shared->length = name->length;
		memcpy(shared->wire, name->wire, name->length);
		HASH_ADD_KEYPTR(hh, table->names, shared->wire, shared->length, shared);
		if (!shared->hh.tbl) {
			free(shared);
			return NULL;
		}
	}
	shared->users++;
	return shared;
}

static void name_release(struct lease_table *table, struct shared_name *shared)
{
	if (--shared->users > 0)
		return;
	HASH_DEL(table->names, shared);
	free(shared);
}

static struct place *place_find(const struct lease_table *table, const struct address *address)
{
	struct place *place;
	HASH_FIND(hh, table->places, address, sizeof(*address), place);
	return place;
}

static void place_delete(struct lease_table *table, struct place *place)
{
	if (table->cursor == place)
		table->cursor = place->hh.next;
	HASH_DEL(table->places, place);
	free(place->entries);
	free(place);
}

static struct place *place_get(struct lease_table *table, const struct address *address)
{
	struct place *place = place_find(table, address);
	if (place)
		return place;
	place = calloc(1, sizeof(*place));
	if (!place)
		return NULL;
	place->address = *address;
	HASH_ADD(hh, table->places, address, sizeof(place->address), place);
	if (!place->hh.tbl) {
		free(place);
		return NULL;
	}
	return place;
}

void lease_table_free(struct lease_table *table)
{
	struct place *place, *next;

	if (!table)
		return;
	HASH_ITER (hh, table->places, place, next) {
		for (uint32_t i = 0; i < place->count; i++)
			name_release(table, place->entries[i].name);
		place_delete(table, place);
	}
	free(table->scratch);
	free(table);
}

size_t lease_table_count(const struct lease_table *table)
{
	return table->count;
}

/* Order of a place's entries: by network, then by end, latest first. */
static int entry_compare(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	if (x->network != y->network)
		return x->network < y->network ? -1 : 1;
	return x->until > y->until ? -1 : x->until < y->until;
}

/* Index of the first entry that does not come before @key. */
static uint32_t entry_position(const struct place *place, const struct entry *key)
{
	uint32_t low = 0, high = place->count;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (entry_compare(&place->entries[middle], key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static uint32_t network_begin(const struct place *place, uint16_t network)
{
	return entry_position(place, &(struct entry){.network = network, .until = UINT64_MAX});
}

static void entry_take_out(struct place *place, uint32_t index)
{
	place->count--;
	memmove(&place->entries[index], &place->entries[index + 1], (place->count - index) * sizeof(place->entries[0]));
}

/* The caller has made sure of room. */
static void entry_put_in(struct place *place, const struct entry *entry)
{
	uint32_t index = entry_position(place, entry);
	memmove(&place->entries[index + 1], &place->entries[index], (place->count - index) * sizeof(place->entries[0]));
	place->entries[index] = *entry;
	place->count++;
}

static bool place_resize(struct place *place, uint32_t capacity)
{
	struct entry *entries = reallocarray(place->entries, capacity, sizeof(*entries));
	if (!entries)
		return false;
	place->entries = entries;
	place->capacity = capacity;
	return true;
}

/* After entries were removed: give memory back, and the place itself when it is empty. */
static void place_shrink(struct lease_table *table, struct place *place)
{
	if (place->count == 0)
		place_delete(table, place);
	else if (place->capacity >= 8 && place->count <= place->capacity / 4)
		place_resize(place, place->capacity / 2);
}

/* Remove what ended before @limit. Return: how many. */
static size_t place_forget(struct lease_table *table, struct place *place, uint64_t limit)
{
	uint32_t kept = 0, before = place->count;
	for (uint32_t i = 0; i < before; i++) {
		if (place->entries[i].until < limit)
			name_release(table, place->entries[i].name);
		else
			place->entries[kept++] = place->entries[i];
	}
	place->count = kept;
	table->count -= before - kept;
	if (kept < before)
		place_shrink(table, place);
	return before - kept;
}

/* Walk on from the cursor: at most @entries leases, once round at most, until @enough were forgotten. */
static size_t table_forget(struct lease_table *table, uint64_t limit, size_t entries, size_t enough)
{
	size_t forgotten = 0, places = HASH_COUNT(table->places);
	for (size_t seen = 0; places > 0 && seen < entries && forgotten < enough; places--) {
		struct place *place = table->cursor ? table->cursor : table->places;
		table->cursor = place->hh.next;
		seen += place->count;
		forgotten += place_forget(table, place, limit);
	}
	return forgotten;
}

static bool table_has_room(struct lease_table *table)
{
	if (table->count < LEASE_COUNT_MAX)
		return true;
	/* Remembered leases only serve the log: they go before a new one is refused. */
	return table_forget(table, table->now, LEASE_ROOM_ENTRIES, LEASE_ROOM_FREED) > 0;
}

static int lease_add(struct lease_table *table, const struct lease *lease)
{
	/* Before the place is looked up: making room may remove it. */
	if (!table_has_room(table))
		return -ENOSPC;
	struct place *place = place_get(table, &lease->address);
	if (!place)
		return -ENOMEM;
	struct entry entry = {
		.specs = lease->specs,
		.until = lease->until,
		.network = lease->network,
		.audited = lease->audited,
	};
	bool room = place->count < place->capacity || place_resize(place, place->capacity ? place->capacity * 2 : 1);
	entry.name = room ? name_take(table, &lease->name) : NULL;
	if (!entry.name) {
		place_shrink(table, place);
		return -ENOMEM;
	}
	entry_put_in(place, &entry);
	table->count++;
	return 0;
}

/* The entry of a network and a name, or NULL. */
static struct entry *entry_find(struct place *place, uint16_t network, const struct shared_name *name)
{
	for (uint32_t i = network_begin(place, network); i < place->count && place->entries[i].network == network; i++) {
		if (place->entries[i].name == name)
			return &place->entries[i];
	}
	return NULL;
}

int lease_put(struct lease_table *table, const struct lease *lease)
{
	struct shared_name *name = name_find(table, &lease->name);
	struct place *place = name ? place_find(table, &lease->address) : NULL;
	struct entry *entry = place ? entry_find(place, lease->network, name) : NULL;
	if (!entry)
		return lease_add(table, lease);

	struct entry changed = *entry;
	changed.specs = lease->specs;
	changed.audited = lease->audited;
	if (lease->until > changed.until)
		changed.until = lease->until;
	entry_take_out(place, (uint32_t)(entry - place->entries));
	entry_put_in(place, &changed);
	return 0;
}

uint64_t lease_until(const struct lease_table *table, uint16_t network, const struct address *address, uint64_t spec_bit)
{
	const struct place *place = place_find(table, address);
	if (!place)
		return 0;
	for (uint32_t i = network_begin(place, network); i < place->count && place->entries[i].network == network; i++) {
		const struct entry *entry = &place->entries[i];
		if (!entry->audited && (entry->specs & spec_bit))
			return entry->until;
	}
	return 0;
}

static void name_copy(const struct shared_name *shared, struct domain *out)
{
	memset(out, 0, sizeof(*out));
	out->length = shared->length;
	memcpy(out->wire, shared->wire, shared->length);
}

static void lease_fill(const struct place *place, const struct entry *entry, struct lease *out)
{
	out->address = place->address;
	out->network = entry->network;
	out->audited = entry->audited;
	out->specs = entry->specs;
	out->until = entry->until;
	name_copy(entry->name, &out->name);
}

const struct lease *lease_find(const struct lease_table *table, uint16_t network, const struct address *address)
{
	const struct place *place = place_find(table, address);
	if (!place)
		return NULL;
	uint32_t first = network_begin(place, network);
	const struct entry *best = NULL;
	if (first < place->count && place->entries[first].network == network) {
		best = &place->entries[first];
	} else {
		for (uint32_t i = 0; i < place->count; i++) {
			if (!best || place->entries[i].until > best->until)
				best = &place->entries[i];
		}
	}
	if (!best)
		return NULL;
	lease_fill(place, best, table->scratch);
	return table->scratch;
}

size_t lease_names(const struct lease_table *table, uint16_t network, const struct address *address, uint64_t now, struct domain *out,
		   size_t max)
{
	const struct place *place = place_find(table, address);
	size_t count = 0;
	if (!place)
		return 0;
	for (uint32_t i = network_begin(place, network); i < place->count && count < max; i++) {
		const struct entry *entry = &place->entries[i];
		if (entry->network != network || entry->until <= now)
			break;
		name_copy(entry->name, &out[count++]);
	}
	return count;
}

/* Let @visit see all entries of a place and take its changes over. */
static void place_visit(struct lease_table *table, struct place *place, bool (*visit)(void *context, struct lease *lease), void *context)
{
	uint32_t kept = 0, before = place->count;
	bool moved = false;
	for (uint32_t i = 0; i < before; i++) {
		struct entry entry = place->entries[i];
		struct lease lease;
		lease_fill(place, &entry, &lease);
		if (!visit(context, &lease)) {
			name_release(table, entry.name);
			continue;
		}
		moved |= lease.until != entry.until;
		entry.specs = lease.specs;
		entry.until = lease.until;
		place->entries[kept++] = entry;
	}
	place->count = kept;
	table->count -= before - kept;
	if (moved && kept > 1)
		qsort(place->entries, kept, sizeof(place->entries[0]), entry_compare);
	if (kept < before)
		place_shrink(table, place);
}

void lease_each(struct lease_table *table, bool (*visit)(void *context, struct lease *lease), void *context)
{
	struct place *place, *next;
	HASH_ITER (hh, table->places, place, next) {
		place_visit(table, place, visit, context);
	}
}

void lease_sweep(struct lease_table *table, uint64_t now)
{
	table->now = now;
	if (now > LEASE_MEMORY_MS)
		table_forget(table, now - LEASE_MEMORY_MS, LEASE_SWEEP_ENTRIES, SIZE_MAX);
}
