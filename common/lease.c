/* SPDX-License-Identifier: MIT */
/*
 * The table of leases.
 *
 * Theory of operation
 *
 * Each network has two hash tables of its own: address -> place, and (place, name) -> entry; an entry is a lease. Apps choose names and
 * addresses, also a hundred thousand names for one address, so nothing that a question or a packet leads to may walk through the leases of
 * a place. What is asked there is "which ends last": therefore the entries of a place are kept in groups with the same port specifications,
 * each group in a heap with the latest end on top. How many groups there can be is the policy's choice, not the apps'.
 *
 * lease_sweep() goes through one network after the other, a bounded number of entries per call, from where it stopped before.
 *
 * A lease of an address and a name of its own takes 325 bytes when the name has 31 octets. Its CNAME chain takes nothing more when another
 * lease has the same one, for chains are kept once (chain.h); else 120 bytes, with one name. The callers see struct lease, built in
 * `scratch`.
 */
#include "common/lease.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"

#define LEASE_SWEEP_ENTRIES 4096 /* leases looked at per lease_sweep() */
#define LEASE_ROOM_ENTRIES  2048 /* leases looked at to make room for a network that has too many ... */
#define LEASE_ROOM_FREED    64   /* ... until so many are gone */
#define HEAP_FIRST          4    /* entries, of the first heap that needs an array */

struct group;

/* One lease. Its key in the hash table is `place` and `wire`, which follows it. */
struct entry {
	UT_hash_handle hh;
	uint64_t until, shown;
	struct group *group;
	struct chain_kept *chain; /* the store's; NULL: none */
	uint32_t position;        /* in the group's heap */
	uint8_t length;           /* of the name, octets */
	struct place *place;
	uint8_t wire[];
};
static_assert(offsetof(struct entry, wire) == offsetof(struct entry, place) + sizeof(struct place *), "place and wire are one key");

/* Leases of one place that open the same. */
struct group {
	struct group *next; /* of the place */
	uint64_t specs;
	union {
		struct entry *only;  /* capacity 0 */
		struct entry **many; /* owned */
	} heap;                      /* latest end first */
	uint32_t count, capacity;
	bool audited;
};

/* All leases of one address on one network. */
struct place {
	UT_hash_handle hh;
	struct group first; /* those behind it are owned; any of them may be empty */
	uint64_t used;      /* ms: when a flow to it was last seen; 0: never */
	struct address address;
	uint16_t network;
};

/* All leases of one network. */
struct holding {
	UT_hash_handle hh;
	uint16_t network;
	struct place *places;  /* owned, hash */
	struct entry *entries; /* owned, hash */
	struct entry *cursor;  /* where the next sweep goes on; NULL: at the beginning */
};

struct lease_table {
	struct holding *holdings;   /* owned, hash; none is empty between calls */
	struct holding *cursor;     /* the one that the next sweep begins with; NULL: the first */
	struct chain_store *chains; /* owned */
	struct lease *scratch;      /* owned: what lease_find() returns */
	uint64_t now;               /* latest time heard of, to tell ended leases when there is no room */
	size_t count;
};

struct lease_table *lease_table_new(void)
{
	struct lease_table *table = calloc(1, sizeof(*table));
	if (!table)
		return NULL;
	table->scratch = calloc(1, sizeof(*table->scratch));
	table->chains = chain_store_new();
	if (!table->scratch || !table->chains) {
		lease_table_free(table);
		return NULL;
	}
	return table;
}

size_t lease_table_count(const struct lease_table *table)
{
	return table->count;
}

/* --- heaps --- */

static struct entry **heap_of(struct group *group)
{
	return group->capacity ? group->heap.many : &group->heap.only;
}

static struct entry *heap_top(const struct group *group)
{
	if (!group->count)
		return NULL;
	return group->capacity ? group->heap.many[0] : group->heap.only;
}

static void heap_set(struct group *group, uint32_t position, struct entry *entry)
{
	heap_of(group)[position] = entry;
	entry->position = position;
}

/* Of two that end at the same time the one that an answer showed later speaks for the address. */
static bool ends_later(const struct entry *a, const struct entry *b)
{
	return a->until != b->until ? a->until > b->until : a->shown > b->shown;
}

static void heap_up(struct entry *entry)
{
	struct group *group = entry->group;
	struct entry **heap = heap_of(group);
	uint32_t position = entry->position;

	while (position > 0 && ends_later(entry, heap[(position - 1) / 2])) {
		heap_set(group, position, heap[(position - 1) / 2]);
		position = (position - 1) / 2;
	}
	heap_set(group, position, entry);
}

static void heap_down(struct entry *entry)
{
	struct group *group = entry->group;
	struct entry **heap = heap_of(group);
	uint32_t position = entry->position, child;

	while ((child = 2 * position + 1) < group->count) {
		if (child + 1 < group->count && ends_later(heap[child + 1], heap[child]))
			child++;
		if (!ends_later(heap[child], entry))
			break;
		heap_set(group, position, heap[child]);
		position = child;
	}
	heap_set(group, position, entry);
}

/* Make room for one more. Return: false when there is no memory. */
static bool heap_reserve(struct group *group)
{
	uint32_t capacity = group->capacity ? 2 * group->capacity : HEAP_FIRST;
	struct entry **grown;

	if (group->count < (group->capacity ? group->capacity : 1))
		return true;
	grown = reallocarray(group->capacity ? group->heap.many : NULL, capacity, sizeof(*grown));
	if (!grown)
		return false;
	if (!group->capacity)
		grown[0] = group->heap.only;
	group->heap.many = grown;
	group->capacity = capacity;
	return true;
}

/* The caller has made sure of room. */
static void heap_add(struct group *group, struct entry *entry)
{
	entry->group = group;
	heap_set(group, group->count++, entry);
	heap_up(entry);
}

static void heap_shrink(struct group *group)
{
	struct entry **shrunk;

	if (group->capacity <= HEAP_FIRST || group->count > group->capacity / 4)
		return;
	shrunk = reallocarray(group->heap.many, group->capacity / 2, sizeof(*shrunk));
	if (!shrunk)
		return;
	group->heap.many = shrunk;
	group->capacity /= 2;
}

static void heap_take_out(struct entry *entry)
{
	struct group *group = entry->group;
	struct entry *last = heap_of(group)[--group->count];

	if (last != entry) {
		heap_set(group, entry->position, last);
		heap_up(last);
		heap_down(last);
	}
	heap_shrink(group);
}

/* --- places --- */

static unsigned int place_hash(const struct address *address)
{
	return hash_bytes(address, sizeof(*address));
}

static struct place *place_find_hashed(const struct holding *holding, const struct address *address, unsigned int hash)
{
	struct place *place;

	HASH_FIND_BYHASHVALUE(hh, holding->places, address, sizeof(*address), hash, place);
	return place;
}

static struct place *place_find(const struct holding *holding, const struct address *address)
{
	return place_find_hashed(holding, address, place_hash(address));
}

static struct place *place_get(struct holding *holding, const struct address *address)
{
	unsigned int hash = place_hash(address);
	struct place *place = place_find_hashed(holding, address, hash);

	if (place)
		return place;
	place = calloc(1, sizeof(*place));
	if (!place)
		return NULL;
	place->address = *address;
	place->network = holding->network;
	HASH_ADD_BYHASHVALUE(hh, holding->places, address, sizeof(place->address), hash, place);
	if (!place->hh.tbl) {
		free(place);
		return NULL;
	}
	return place;
}

/* Release the place when no lease of it is left. */
static void place_settle(struct holding *holding, struct place *place)
{
	struct group *group, *next;

	for (group = &place->first; group; group = group->next) {
		if (group->count)
			return;
	}
	HASH_DEL(holding->places, place);
	for (group = &place->first; group; group = next) {
		next = group->next;
		if (group->capacity)
			free(group->heap.many);
		if (group != &place->first)
			free(group);
	}
	free(place);
}

static struct group *group_find(struct place *place, uint64_t specs, bool audited)
{
	for (struct group *group = &place->first; group; group = group->next) {
		if (group->count && group->specs == specs && group->audited == audited)
			return group;
	}
	return NULL;
}

/* A group without leases. NULL: no memory. */
static struct group *group_empty(struct place *place)
{
	struct group *last = &place->first;

	while (last->count && last->next)
		last = last->next;
	if (!last->count)
		return last;
	last->next = calloc(1, sizeof(*last));
	return last->next;
}

/* The place's group that opens this, with room for one more. NULL: no memory. */
static struct group *group_get(struct place *place, uint64_t specs, bool audited)
{
	struct group *group = group_find(place, specs, audited);

	if (group)
		return heap_reserve(group) ? group : NULL;
	group = group_empty(place);
	if (!group)
		return NULL;
	group->specs = specs;
	group->audited = audited;
	return group;
}

/* --- holdings --- */

/* Networks are the policy's, so their hash needs no key. */
static unsigned int network_hash(uint16_t network)
{
	return network * 0x9e3779b1U >> 16;
}

static struct holding *holding_find(const struct lease_table *table, uint16_t network)
{
	struct holding *holding;

	HASH_FIND_BYHASHVALUE(hh, table->holdings, &network, sizeof(network), network_hash(network), holding);
	return holding;
}

static struct holding *holding_get(struct lease_table *table, uint16_t network)
{
	struct holding *holding = holding_find(table, network);

	if (holding)
		return holding;
	holding = calloc(1, sizeof(*holding));
	if (!holding)
		return NULL;
	holding->network = network;
	HASH_ADD_BYHASHVALUE(hh, table->holdings, network, sizeof(holding->network), network_hash(network), holding);
	if (!holding->hh.tbl) {
		free(holding);
		return NULL;
	}
	return holding;
}

/* Release the holding when it is empty. */
static void holding_settle(struct lease_table *table, struct holding *holding)
{
	if (holding->entries)
		return;
	if (table->cursor == holding)
		table->cursor = holding->hh.next;
	HASH_DEL(table->holdings, holding);
	free(holding);
}

/* --- entries --- */

static struct entry *entry_find(const struct holding *holding, struct place *place, const struct domain *name)
{
	uint8_t key[sizeof(place) + DOMAIN_WIRE_MAX];
	struct entry *entry;

	memcpy(key, &place, sizeof(place));
	memcpy(key + sizeof(place), name->wire, name->length);
	HASH_FIND(hh, holding->entries, key, sizeof(place) + name->length, entry);
	return entry;
}

/* The caller settles the holding. */
static void entry_remove(struct lease_table *table, struct holding *holding, struct entry *entry)
{
	if (holding->cursor == entry)
		holding->cursor = entry->hh.next;
	HASH_DEL(holding->entries, entry);
	heap_take_out(entry);
	place_settle(holding, entry->place);
	chain_give_back(table->chains, entry->chain);
	free(entry);
	table->count--;
}

/* Put the entry into the group that opens this. Return: 0, or -ENOMEM: nothing has changed. */
static int entry_regroup(struct entry *entry, uint64_t specs, bool audited)
{
	struct group *group = entry->group;

	if (group->specs == specs && group->audited == audited)
		return 0;
	if (group->count == 1 && !group_find(entry->place, specs, audited)) {
		group->specs = specs;
		group->audited = audited;
		return 0;
	}
	group = group_get(entry->place, specs, audited);
	if (!group)
		return -ENOMEM;
	heap_take_out(entry);
	heap_add(group, entry);
	return 0;
}

/* Return: 0, or -ENOMEM: nothing has changed. */
static int entry_change(struct entry *entry, uint64_t specs, bool audited, uint64_t until)
{
	int error = entry_regroup(entry, specs, audited);

	if (error)
		return error;
	entry->until = until;
	heap_up(entry);
	heap_down(entry);
	return 0;
}

/* Takes @chain over when there is memory. */
static struct entry *entry_new(struct holding *holding, struct place *place, const struct lease *lease, struct chain_kept *chain)
{
	struct group *group = group_get(place, lease->specs, lease->audited);
	struct entry *entry = group ? calloc(1, sizeof(*entry) + lease->name.length) : NULL;

	if (!entry)
		return NULL;
	entry->place = place;
	entry->shown = lease->shown;
	entry->until = lease->until;
	entry->chain = chain;
	entry->length = lease->name.length;
	memcpy(entry->wire, lease->name.wire, lease->name.length);
	HASH_ADD_KEYPTR(hh, holding->entries, &entry->place, sizeof(entry->place) + entry->length, entry);
	if (!entry->hh.tbl) {
		free(entry);
		return NULL;
	}
	heap_add(group, entry);
	return entry;
}

void lease_table_free(struct lease_table *table)
{
	struct holding *holding, *next;

	if (!table)
		return;
	HASH_ITER (hh, table->holdings, holding, next) {
		while (holding->entries)
			entry_remove(table, holding, holding->entries);
		holding_settle(table, holding);
	}
	chain_store_free(table->chains);
	free(table->scratch);
	free(table);
}

/* --- room --- */

static bool is_in_use(const struct lease_table *table, const struct place *place)
{
	return place->used != 0 && table->now < place->used + LEASE_USE_MS;
}

/* Walk on from the cursor: @entries leases at most, once round at most, until @enough that ended before @limit are forgotten. */
static void holding_forget(struct lease_table *table, struct holding *holding, uint64_t limit, size_t entries, size_t enough)
{
	size_t left = HASH_COUNT(holding->entries);

	if (left > entries)
		left = entries;
	for (; left && enough; left--) {
		struct entry *entry = holding->cursor ? holding->cursor : holding->entries;

		holding->cursor = entry->hh.next;
		if (entry->until >= limit || is_in_use(table, entry->place))
			continue;
		entry_remove(table, holding, entry);
		enough--;
	}
}

static bool holding_may_grow(const struct lease_table *table, const struct holding *holding)
{
	size_t count = HASH_COUNT(holding->entries);

	return count < (table->count < LEASE_COUNT_MAX ? LEASE_NETWORK_MAX : LEASE_NETWORK_FLOOR);
}

static bool holding_has_room(struct lease_table *table, struct holding *holding)
{
	if (holding_may_grow(table, holding))
		return true;
	/* Remembered leases only serve the log: they go before a new one is refused. */
	holding_forget(table, holding, table->now, LEASE_ROOM_ENTRIES, LEASE_ROOM_FREED);
	return holding_may_grow(table, holding);
}

/* Takes @chain over when it returns 0. */
static int lease_add(struct lease_table *table, struct holding *holding, const struct lease *lease, struct chain_kept *chain)
{
	struct place *place;

	/* Before the place is looked up: making room may remove it. */
	if (!holding_has_room(table, holding))
		return -ENOSPC;
	place = place_get(holding, &lease->address);
	if (!place)
		return -ENOMEM;
	if (!entry_new(holding, place, lease, chain)) {
		place_settle(holding, place);
		return -ENOMEM;
	}
	table->count++;
	return 0;
}

/* What a new answer says of a lease. As lease_add(). */
static int lease_renew(struct lease_table *table, struct entry *entry, const struct lease *lease, struct chain_kept *chain)
{
	int error;

	if (lease->shown > entry->shown)
		entry->shown = lease->shown;
	error = entry_change(entry, lease->specs, lease->audited, lease->until > entry->until ? lease->until : entry->until);
	if (error)
		return error;
	chain_give_back(table->chains, entry->chain);
	entry->chain = chain;
	return 0;
}

static bool says_nothing_new(const struct entry *entry, const struct lease *lease, const struct chain_kept *chain)
{
	return entry->group->specs == lease->specs && entry->group->audited == lease->audited && entry->chain == chain &&
	       lease->until <= entry->until;
}

int lease_put(struct lease_table *table, const struct lease *lease)
{
	enum lease_news news;

	return lease_tell(table, lease, &news);
}

int lease_tell(struct lease_table *table, const struct lease *lease, enum lease_news *news)
{
	struct holding *holding = holding_get(table, lease->network);
	struct chain_kept *chain;
	struct place *place;
	struct entry *entry;
	int error;

	if (!holding)
		return -ENOMEM;
	place = place_find(holding, &lease->address);
	entry = place ? entry_find(holding, place, &lease->name) : NULL;
	error = chain_keep(table->chains, &lease->chain, &chain);
	*news = !entry ? LEASE_NEW : error || !says_nothing_new(entry, lease, chain) ? LEASE_CHANGED : LEASE_SAME;
	if (!error) {
		error = entry ? lease_renew(table, entry, lease, chain) : lease_add(table, holding, lease, chain);
		if (error)
			chain_give_back(table->chains, chain);
	}
	holding_settle(table, holding);
	return error;
}

static struct entry *entry_of(const struct lease_table *table, uint16_t network, const struct address *address, const struct domain *name)
{
	const struct holding *holding = holding_find(table, network);
	struct place *place = holding ? place_find(holding, address) : NULL;

	return place ? entry_find(holding, place, name) : NULL;
}

bool lease_has(const struct lease_table *table, uint16_t network, const struct address *address, const struct domain *name)
{
	return entry_of(table, network, address, name);
}

void lease_remove(struct lease_table *table, uint16_t network, const struct address *address, const struct domain *name)
{
	struct entry *entry = entry_of(table, network, address, name);
	struct holding *holding = holding_find(table, network);

	if (!entry)
		return;
	entry_remove(table, holding, entry);
	holding_settle(table, holding);
}

/* --- questions --- */

static const struct place *place_of(const struct lease_table *table, uint16_t network, const struct address *address)
{
	const struct holding *holding = holding_find(table, network);

	return holding ? place_find(holding, address) : NULL;
}

uint64_t lease_until(const struct lease_table *table, uint16_t network, const struct address *address, uint64_t spec_bits)
{
	const struct place *place = place_of(table, network, address);
	uint64_t until = 0;

	for (const struct group *group = place ? &place->first : NULL; group; group = group->next) {
		const struct entry *top = heap_top(group);

		if (top && !group->audited && (group->specs & spec_bits) && top->until > until)
			until = top->until;
	}
	return until;
}

uint64_t lease_specs(const struct lease_table *table, uint16_t network, const struct address *address)
{
	const struct place *place = place_of(table, network, address);
	uint64_t specs = 0;

	for (const struct group *group = place ? &place->first : NULL; group; group = group->next) {
		if (group->count && !group->audited)
			specs |= group->specs;
	}
	return specs;
}

bool lease_touch(struct lease_table *table, uint16_t network, const struct address *address, uint64_t now)
{
	const struct holding *holding = holding_find(table, network);
	struct place *place = holding ? place_find(holding, address) : NULL;
	bool first = place && place->used != now;

	if (place)
		place->used = now;
	return first;
}

static void name_copy(const struct entry *entry, struct domain *out)
{
	memset(out, 0, sizeof(*out));
	out->length = entry->length;
	memcpy(out->wire, entry->wire, entry->length);
}

static void lease_fill(const struct entry *entry, struct lease *out)
{
	out->address = entry->place->address;
	out->network = entry->place->network;
	out->audited = entry->group->audited;
	out->specs = entry->group->specs;
	out->shown = entry->shown;
	out->until = entry->until;
	out->chain = chain_of(entry->chain);
	name_copy(entry, &out->name);
}

bool lease_refresh(const struct lease_table *table, struct lease *lease)
{
	const struct entry *entry = entry_of(table, lease->network, &lease->address, &lease->name);

	if (entry)
		lease_fill(entry, lease);
	return entry;
}

/* The lease of a place that ends last, or @best when that one does. */
static const struct entry *latest_of(const struct place *place, const struct entry *best)
{
	for (const struct group *group = place ? &place->first : NULL; group; group = group->next) {
		const struct entry *top = heap_top(group);

		if (top && (!best || ends_later(top, best)))
			best = top;
	}
	return best;
}

const struct lease *lease_find(const struct lease_table *table, uint16_t network, const struct address *address)
{
	const struct entry *best = latest_of(place_of(table, network, address), NULL);
	const struct holding *holding, *next;

	if (!best) {
		HASH_ITER (hh, table->holdings, holding, next)
			best = latest_of(place_find(holding, address), best);
	}
	if (!best)
		return NULL;
	lease_fill(best, table->scratch);
	return table->scratch;
}

/* Copy names of the heap at and below a position. Below an ended lease there are only ended ones, so this is quick. */
static size_t names_below(struct group *group, uint32_t position, uint64_t now, struct domain *out, size_t max)
{
	size_t count = 1;

	if (!max || position >= group->count || heap_of(group)[position]->until <= now)
		return 0;
	name_copy(heap_of(group)[position], out);
	count += names_below(group, 2 * position + 1, now, out + count, max - count);
	return count + names_below(group, 2 * position + 2, now, out + count, max - count);
}

size_t lease_names(const struct lease_table *table, uint16_t network, const struct address *address, uint64_t now, struct domain *out,
		   size_t max)
{
	const struct holding *holding = holding_find(table, network);
	struct place *place = holding ? place_find(holding, address) : NULL;
	size_t count = 0;

	for (struct group *group = place ? &place->first : NULL; group; group = group->next)
		count += names_below(group, 0, now, out + count, max - count);
	return count;
}

/* --- some or all of them --- */

/* The entries at the top of every group's heap, then those below, up to LEASE_VISIT_MAX. Return: how many. */
static size_t choose(struct place *place, struct entry *out[static LEASE_VISIT_MAX])
{
	size_t count = 0;
	bool more = true;

	for (uint32_t position = 0; more; position++) {
		more = false;
		for (struct group *group = &place->first; group && count < LEASE_VISIT_MAX; group = group->next) {
			if (position >= group->count)
				continue;
			out[count++] = heap_of(group)[position];
			more = true;
		}
	}
	return count;
}

void lease_visit(struct lease_table *table, uint16_t network, const struct address *address,
		 void (*visit)(void *context, struct lease *lease), void *context)
{
	const struct holding *holding = holding_find(table, network);
	struct place *place = holding ? place_find(holding, address) : NULL;
	struct entry *chosen[LEASE_VISIT_MAX];
	size_t count = place ? choose(place, chosen) : 0;
	struct lease lease;

	for (size_t i = 0; i < count; i++) {
		lease_fill(chosen[i], &lease);
		visit(context, &lease);
		/* Without memory it stays as it was. */
		(void)entry_change(chosen[i], lease.specs, lease.audited, lease.until);
	}
}

/* Return: false when the lease is to be removed. */
static bool entry_visit(struct entry *entry, bool (*visit)(void *context, struct lease *lease), void *context)
{
	struct lease lease;

	lease_fill(entry, &lease);
	return visit(context, &lease) && entry_change(entry, lease.specs, lease.audited, lease.until) == 0;
}

static void visit_holding(struct lease_table *table, struct holding *holding, bool (*visit)(void *context, struct lease *lease),
			  void *context)
{
	struct entry *entry, *next;

	HASH_ITER (hh, holding->entries, entry, next) {
		if (!entry_visit(entry, visit, context))
			entry_remove(table, holding, entry);
	}
	holding_settle(table, holding);
}

void lease_each(struct lease_table *table, bool (*visit)(void *context, struct lease *lease), void *context)
{
	struct holding *holding, *next;

	HASH_ITER (hh, table->holdings, holding, next) {
		visit_holding(table, holding, visit, context);
	}
}

void lease_each_of(struct lease_table *table, uint16_t network, bool (*visit)(void *context, struct lease *lease), void *context)
{
	struct holding *holding = holding_find(table, network);

	if (holding)
		visit_holding(table, holding, visit, context);
}

/* When it gets tight, ended leases are not remembered at all. */
static bool holding_is_tight(const struct lease_table *table, const struct holding *holding)
{
	return HASH_COUNT(holding->entries) >= LEASE_NETWORK_MAX / 4 * 3 || table->count >= LEASE_COUNT_MAX / 4 * 3;
}

void lease_sweep(struct lease_table *table, uint64_t now)
{
	uint64_t remembered = now > LEASE_MEMORY_MS ? now - LEASE_MEMORY_MS : 0;
	size_t left = LEASE_SWEEP_ENTRIES;

	table->now = now;
	for (unsigned int i = HASH_COUNT(table->holdings); i && left; i--) {
		struct holding *holding = table->cursor ? table->cursor : table->holdings;
		size_t count = HASH_COUNT(holding->entries);

		table->cursor = holding->hh.next;
		holding_forget(table, holding, holding_is_tight(table, holding) ? now : remembered, left, SIZE_MAX);
		holding_settle(table, holding);
		left -= count < left ? count : left;
	}
}
