/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: a holder is a name of a network and family, with its mappings in order of their slots. Two hash tables find it, by
 * name, and by virtual address. The holders of a network and family are a list, the one that was unused for longest first, so that the
 * one which has to go is soon found. A pool remembers below which address none is free, and before which time no name is idle, so that a
 * flood of new names does not look through all of it again and again.
 *
 * Whatever needs memory comes first, so that a call that fails has changed nothing: an address gets its entry while it stands for nobody,
 * and attach() and detach(), which give it to a name and take it away, cannot fail.
 */
#include "common/mapping.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "common/hash.h"

struct holder;

/* A virtual address that stands for a name; or for none, and the kernel leads it somewhere still. */
struct entry {
	UT_hash_handle hh;
	struct {
		uint16_t network;
		struct address address;
	} key;
	struct holder *holder; /* NULL: it stands for no name */
	struct mapping mapping;
	bool is_new;  /* since mapping_settle(): nobody was told what it stands for */
	bool changed; /* it is in the table's list of changes */
	struct entry *prev_change, *next_change;
};

struct holder_key {
	uint16_t network;
	uint8_t family;
	struct domain name;
};

struct holder {
	UT_hash_handle hh;
	struct holder_key key;
	struct pool *pool;
	struct holder *prev, *next;                /* of the pool, unused for longest first; prev is NULL while it is not in there */
	struct entry *slots[MAPPING_PER_NAME_MAX]; /* owned; no gaps */
	size_t count;
};

/* What the policy says about the addresses of a pool. Compared byte by byte. */
struct limits {
	struct prefix pool, subnet;
	struct address gateway;
};
static_assert(sizeof(struct limits) == 2 * sizeof(struct prefix) + sizeof(struct address), "struct limits has no padding");

/* Of a network and a family. */
struct pool {
	UT_hash_handle hh;
	struct {
		uint16_t network;
		uint8_t family;
	} key;
	struct holder *holders; /* list */
	struct limits limits;
	uint32_t first_free;  /* no host of the pool's prefix below this number is free */
	uint64_t none_before; /* ms: no holder is idle before this time ... */
	uint64_t idle;        /* ms: ... if this is how long it has to be unused */
};

struct mapping_table {
	struct entry *entries;  /* owned, hash */
	struct holder *holders; /* owned, hash */
	struct pool *pools;     /* owned, hash */
	size_t count;           /* mappings */
	struct entry *changes;  /* list: what the kernel does not have yet */
};

/* --- the table --- */

struct mapping_table *mapping_table_new(void)
{
	return calloc(1, sizeof(struct mapping_table));
}

size_t mapping_table_count(const struct mapping_table *table)
{
	return table->count;
}

static struct entry *find_entry(const struct mapping_table *table, uint16_t network, const struct address *address)
{
	struct entry probe, *entry;

	memset(&probe.key, 0, sizeof(probe.key));
	probe.key.network = network;
	probe.key.address = *address;
	HASH_FIND(hh, table->entries, &probe.key, sizeof(probe.key), entry);
	return entry;
}

static void make_holder_key(struct holder_key *key, uint16_t network, int family, const struct domain *name)
{
	memset(key, 0, sizeof(*key));
	key->network = network;
	key->family = (uint8_t)family;
	key->name.length = name->length;
	memcpy(key->name.wire, name->wire, name->length);
}

static struct holder *find_holder(const struct mapping_table *table, uint16_t network, int family, const struct domain *name)
{
	struct holder_key key;
	struct holder *holder;

	make_holder_key(&key, network, family, name);
	HASH_FIND(hh, table->holders, &key, sizeof(key), holder);
	return holder;
}

static struct pool *get_pool(struct mapping_table *table, uint16_t network, int family)
{
	struct pool probe, *pool;

	memset(&probe.key, 0, sizeof(probe.key));
	probe.key.network = network;
	probe.key.family = (uint8_t)family;
	HASH_FIND(hh, table->pools, &probe.key, sizeof(probe.key), pool);
	if (pool)
		return pool;
	pool = calloc(1, sizeof(*pool));
	if (!pool)
		return NULL;
	pool->key = probe.key;
	HASH_ADD(hh, table->pools, key, sizeof(pool->key), pool);
	if (pool->hh.tbl)
		return pool;
	free(pool);
	return NULL;
}

/* A new one has no mappings, and is in no list before place(). */
static struct holder *get_holder(struct mapping_table *table, uint16_t network, int family, const struct domain *name)
{
	struct holder *holder = find_holder(table, network, family, name);
	struct pool *pool = holder ? NULL : get_pool(table, network, family);

	if (holder || !pool)
		return holder;
	holder = calloc(1, sizeof(*holder));
	if (!holder)
		return NULL;
	make_holder_key(&holder->key, network, family, name);
	holder->pool = pool;
	HASH_ADD(hh, table->holders, key, sizeof(holder->key), holder);
	if (holder->hh.tbl)
		return holder;
	free(holder);
	return NULL;
}

static void remove_if_empty(struct mapping_table *table, struct holder *holder)
{
	if (holder->count)
		return;
	if (holder->prev)
		DL_DELETE(holder->pool->holders, holder);
	HASH_DEL(table->holders, holder);
	free(holder);
}

/* Into the list by its use, behind those of the same time. Use is mostly later than all use before it: it is looked for from the end. */
static void place(struct holder *holder)
{
	struct pool *pool = holder->pool;
	struct holder *after;

	if (holder->prev)
		DL_DELETE(pool->holders, holder);
	after = pool->holders ? pool->holders->prev : NULL; /* the last one */
	while (after && after->slots[0]->mapping.used > holder->slots[0]->mapping.used)
		after = after == pool->holders ? NULL : after->prev;
	if (after)
		DL_APPEND_ELEM(pool->holders, after, holder);
	else
		DL_PREPEND(pool->holders, holder);
}

/* --- entries --- */

/* One that stands for nobody when it is new. */
static struct entry *get_entry(struct mapping_table *table, uint16_t network, const struct address *address)
{
	struct entry *entry = find_entry(table, network, address);

	if (entry)
		return entry;
	entry = calloc(1, sizeof(*entry));
	if (!entry)
		return NULL;
	entry->key.network = network;
	entry->key.address = *address;
	HASH_ADD(hh, table->entries, key, sizeof(entry->key), entry);
	if (entry->hh.tbl)
		return entry;
	free(entry);
	return NULL;
}

/* Is it a change that the kernel and the journal have to be told? */
static void mark(struct mapping_table *table, struct entry *entry)
{
	bool changed = entry->holder && (entry->is_new || !address_equal(&entry->mapping.real, &entry->mapping.written));

	if (changed && !entry->changed)
		DL_APPEND2(table->changes, entry, prev_change, next_change);
	if (!changed && entry->changed)
		DL_DELETE2(table->changes, entry, prev_change, next_change);
	entry->changed = changed;
}

/* Into the holder's next slot. */
static void attach(struct mapping_table *table, struct entry *entry, struct holder *holder)
{
	entry->holder = holder;
	entry->is_new = true;
	entry->mapping = (struct mapping){
		.address = entry->key.address,
		.network = holder->key.network,
		.name = holder->key.name,
		.slot = (uint8_t)holder->count,
		.written = entry->mapping.written,
	};
	holder->slots[holder->count++] = entry;
	holder->pool->none_before = 0;
	table->count++;
	mark(table, entry);
}

/* Out of its holder, which may be left with none. The entry stays. */
static void detach(struct mapping_table *table, struct entry *entry)
{
	struct holder *holder = entry->holder;

	holder->count--;
	for (size_t i = entry->mapping.slot; i < holder->count; i++) {
		holder->slots[i] = holder->slots[i + 1];
		holder->slots[i]->mapping.slot = (uint8_t)i;
	}
	table->count--;
	entry->holder = NULL;
	mark(table, entry);
}

static uint32_t pool_size(const struct prefix *prefix)
{
	unsigned int bits = address_bits(&prefix->address) - prefix->length;

	return bits >= 12 ? MAPPING_POOL_MAX : UINT32_C(1) << bits;
}
static_assert(MAPPING_POOL_MAX == 1 << 12, "a pool of 12 bits is the widest that is used");

/* The address is free. */
static void note_free(struct pool *pool, const struct address *address)
{
	const uint8_t *end = address->bytes + address_size(address);
	uint32_t host = ((uint32_t)end[-2] << 8 | end[-1]) & (pool_size(&pool->limits.pool) - 1);

	if (host < pool->first_free)
		pool->first_free = host;
}

/* What the kernel has for the address is remembered. */
static void remove_entry(struct mapping_table *table, struct entry *entry)
{
	note_free(entry->holder->pool, &entry->key.address);
	detach(table, entry);
	if (entry->mapping.written.family)
		return;
	HASH_DEL(table->entries, entry);
	free(entry);
}

void mapping_table_free(struct mapping_table *table)
{
	struct entry *entry, *next_entry;
	struct holder *holder, *next_holder;
	struct pool *pool, *next_pool;

	if (!table)
		return;
	HASH_ITER (hh, table->entries, entry, next_entry) {
		HASH_DEL(table->entries, entry);
		free(entry);
	}
	HASH_ITER (hh, table->holders, holder, next_holder) {
		HASH_DEL(table->holders, holder);
		free(holder);
	}
	HASH_ITER (hh, table->pools, pool, next_pool) {
		HASH_DEL(table->pools, pool);
		free(pool);
	}
	free(table);
}

/* --- use --- */

static void use(struct holder *holder, uint64_t now)
{
	if (now < holder->slots[0]->mapping.used)
		return;
	for (size_t i = 0; i < holder->count; i++)
		holder->slots[i]->mapping.used = now;
	place(holder);
}

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* Those of a name are used, told and checked together: one that was added is as its fellows, and they as it. */
static void share_times(struct holder *holder)
{
	struct mapping last = {0};

	for (size_t i = 0; i < holder->count; i++) {
		const struct mapping *mapping = &holder->slots[i]->mapping;

		last.used = later(last.used, mapping->used);
		last.told = later(last.told, mapping->told);
		last.checked = later(last.checked, mapping->checked);
	}
	for (size_t i = 0; i < holder->count; i++) {
		struct mapping *mapping = &holder->slots[i]->mapping;

		mapping->used = last.used;
		mapping->told = last.told;
		mapping->checked = last.checked;
	}
}

static struct entry *find_used(const struct mapping_table *table, uint16_t network, const struct address *address)
{
	struct entry *entry = find_entry(table, network, address);

	return entry && entry->holder ? entry : NULL;
}

const struct mapping *mapping_find(const struct mapping_table *table, uint16_t network, const struct address *address)
{
	const struct entry *entry = find_used(table, network, address);

	return entry ? &entry->mapping : NULL;
}

void mapping_touch(struct mapping_table *table, uint16_t network, const struct address *address, uint64_t now)
{
	struct entry *entry = find_used(table, network, address);

	if (entry)
		use(entry->holder, now);
}

void mapping_checked(struct mapping_table *table, uint16_t network, const struct address *address, uint64_t now)
{
	struct entry *entry = find_used(table, network, address);

	if (!entry)
		return;
	entry->mapping.checked = later(entry->mapping.checked, now);
	share_times(entry->holder);
}

/* --- new addresses --- */

static struct limits limits_of(const struct network *network, int family)
{
	if (family == AF_INET)
		return (struct limits){network->pool4, network->subnet4, network->gateway4};
	return (struct limits){network->pool6, network->subnet6, network->gateway6};
}

static bool is_reserved(const struct limits *limits, const struct address *address)
{
	struct address_range subnet = prefix_range(&limits->subnet);

	if (address_equal(address, &limits->gateway))
		return true;
	/* RFC 3021, RFC 6164: a subnet of two addresses has no network, broadcast or anycast address. */
	if (limits->subnet.length + 1U >= address_bits(address))
		return false;
	return address_equal(address, &subnet.first) || (address->family == AF_INET && address_equal(address, &subnet.last));
}

/* Return: false when none is free. */
static bool find_free(const struct mapping_table *table, struct pool *pool, const struct network *network, struct address *out)
{
	struct limits limits = limits_of(network, pool->key.family);
	uint32_t size = pool_size(&limits.pool);

	if (memcmp(&pool->limits, &limits, sizeof(limits)) != 0) {
		pool->limits = limits;
		pool->first_free = 0;
	}
	for (; pool->first_free < size; pool->first_free++) {
		*out = prefix_host(&limits.pool, pool->first_free);
		if (!is_reserved(&limits, out) && !find_used(table, network->id, out))
			return true;
	}
	return false;
}

/* When a holder will have been idle for long enough, if nobody uses it until then. */
static uint64_t idle_at(const struct holder *holder, const struct mapping_answer *answer)
{
	const struct mapping *first = &holder->slots[0]->mapping;

	return later(first->used, first->told) + answer->idle;
}

/* All that it has would go, and the first address be another name's, which has to be one of the pool as it is now. */
static bool all_may_go(const struct holder *holder, const struct mapping_answer *answer)
{
	if (!mapping_pool_has(answer->network, &holder->slots[0]->key.address))
		return false;
	for (size_t i = 0; i < holder->count; i++) {
		if (!answer->may_go(answer->context, &holder->slots[i]->mapping))
			return false;
	}
	return true;
}

/* The list is by use, but a name that was told a long TTL stays for longer than one that was used after it. */
static struct holder *find_idle(struct pool *pool, const struct mapping_answer *answer)
{
	uint64_t earliest = UINT64_MAX;
	struct holder *holder;

	if (answer->now < pool->none_before && answer->idle == pool->idle)
		return NULL;
	DL_FOREACH (pool->holders, holder) {
		uint64_t at = idle_at(holder, answer);

		if (at <= answer->now && all_may_go(holder, answer))
			return holder;
		if (at < earliest)
			earliest = at;
	}
	pool->none_before = earliest == UINT64_MAX ? 0 : earliest;
	pool->idle = answer->idle;
	return NULL;
}

/* All that it has goes. Return: the entry of the first address, which stands for nobody now. */
static struct entry *take_from(struct mapping_table *table, struct holder *holder, const struct mapping_answer *answer)
{
	struct entry *taken = holder->slots[0];

	for (size_t i = 0; i < holder->count; i++)
		answer->gone(answer->context, &holder->slots[i]->mapping);
	for (size_t i = holder->count - 1; i > 0; i--)
		remove_entry(table, holder->slots[i]);
	detach(table, taken);
	remove_if_empty(table, holder);
	return taken;
}

/* One more mapping for a holder. Return: 0, -ENOSPC or -ENOMEM; then nothing has changed. */
static int grow(struct mapping_table *table, struct holder *holder, const struct mapping_answer *answer)
{
	struct holder *idle;
	struct address address;
	struct entry *entry;

	if (find_free(table, holder->pool, answer->network, &address)) {
		entry = get_entry(table, holder->key.network, &address);
		if (!entry)
			return -ENOMEM;
	} else {
		idle = holder->count ? NULL : find_idle(holder->pool, answer);
		if (!idle)
			return -ENOSPC;
		entry = take_from(table, idle, answer);
	}
	attach(table, entry, holder);
	return 0;
}

/* --- real addresses --- */

static bool leads_to(const struct holder *holder, const struct address *real)
{
	for (size_t i = 0; i < holder->count; i++) {
		if (address_equal(&holder->slots[i]->mapping.real, real))
			return true;
	}
	return false;
}

static bool shows(const struct mapping_answer *answer, const struct address *real)
{
	for (size_t i = 0; i < answer->real_count; i++) {
		if (address_equal(&answer->reals[i], real))
			return true;
	}
	return false;
}

/* Which of the answer's addresses no mapping leads to; their number when there is none. */
static size_t find_missing(const struct holder *holder, const struct mapping_answer *answer)
{
	for (size_t i = 0; i < answer->real_count; i++) {
		if (!leads_to(holder, &answer->reals[i]))
			return i;
	}
	return answer->real_count;
}

/* Does a mapping before this one lead to the same address? */
static bool is_double(const struct holder *holder, size_t at)
{
	for (size_t i = 0; i < at; i++) {
		if (address_equal(&holder->slots[i]->mapping.real, &holder->slots[at]->mapping.real))
			return true;
	}
	return false;
}

static void lead_to(struct mapping_table *table, struct holder *holder, const struct mapping_answer *answer)
{
	for (size_t i = 0; i < holder->count; i++) {
		struct entry *entry = holder->slots[i];
		size_t missing = find_missing(holder, answer);
		bool all_led_to = missing == answer->real_count;

		if (shows(answer, &entry->mapping.real) && (all_led_to || !is_double(holder, i)))
			continue;
		entry->mapping.real = answer->reals[all_led_to ? i % answer->real_count : missing];
		mark(table, entry);
	}
}

static size_t distinct(const struct mapping_answer *answer)
{
	size_t count = 0;

	for (size_t i = 0; i < answer->real_count; i++) {
		size_t j = 0;

		while (!address_equal(&answer->reals[j], &answer->reals[i]))
			j++;
		count += j == i;
	}
	return count;
}

static void note_answer(struct holder *holder, const struct mapping_answer *answer)
{
	for (size_t i = 0; i < holder->count; i++) {
		struct mapping *mapping = &holder->slots[i]->mapping;

		mapping->answered = answer->now;
		mapping->ttl = answer->ttl;
		mapping->stale = answer->stale;
		if (answer->asked)
			mapping->told = later(mapping->told, answer->now + (uint64_t)answer->ttl * 1000);
	}
	share_times(holder);
	if (answer->asked)
		use(holder, answer->now);
	else if (!holder->prev)
		place(holder);
}

int mapping_assign(struct mapping_table *table, const struct mapping_answer *answer, const struct mapping *out[static MAPPING_PER_NAME_MAX],
		   size_t *count, size_t *shown)
{
	struct holder *holder = get_holder(table, answer->network->id, answer->reals[0].family, answer->name);
	size_t wanted = distinct(answer), per_name = answer->network->per_name;
	int error = 0;

	*count = *shown = 0;
	if (!holder)
		return -ENOMEM;
	if (wanted > per_name)
		wanted = per_name;
	if (wanted > MAPPING_PER_NAME_MAX)
		wanted = MAPPING_PER_NAME_MAX;
	while (holder->count < wanted && error == 0)
		error = grow(table, holder, answer);
	if (holder->count == 0) {
		remove_if_empty(table, holder);
		return error;
	}
	lead_to(table, holder, answer);
	note_answer(holder, answer);
	for (; *count < holder->count; ++*count)
		out[*count] = &holder->slots[*count]->mapping;
	*shown = wanted < *count ? wanted : *count;
	return 0;
}

/* --- as they are --- */

/* What no mapping can be: it would not be found again, or have no place. */
static bool is_possible(const struct mapping *mapping)
{
	return mapping->slot < MAPPING_PER_NAME_MAX && mapping->name.length && mapping->address.family &&
	       mapping->address.family == mapping->real.family;
}

/*
 * What the holder has in the slot goes; the entry is taken from whoever has it. Return: the slot it is to have now: the holder's own
 * entry leaves a gap, which closes up.
 */
static size_t make_room(struct mapping_table *table, struct holder *holder, struct entry *entry, size_t slot)
{
	struct holder *old = entry->holder;
	struct entry *replaced = slot < holder->count ? holder->slots[slot] : NULL;
	size_t room = old == holder && entry->mapping.slot < slot ? slot - 1 : slot;

	if (replaced && replaced != entry)
		remove_entry(table, replaced);
	if (old)
		detach(table, entry);
	if (old && old != holder)
		remove_if_empty(table, old);
	return room;
}

/* The last one goes to a slot; those from there on move up. */
static void move_last(struct holder *holder, size_t slot)
{
	struct entry *last = holder->slots[holder->count - 1];

	for (size_t i = holder->count - 1; i > slot; i--) {
		holder->slots[i] = holder->slots[i - 1];
		holder->slots[i]->mapping.slot = (uint8_t)i;
	}
	if (slot < holder->count) {
		holder->slots[slot] = last;
		last->mapping.slot = (uint8_t)slot;
	}
}

int mapping_put(struct mapping_table *table, const struct mapping *mapping)
{
	const struct mapping given = *mapping; /* which may be the entry's own */
	struct holder *holder;
	struct entry *entry;
	size_t slot;

	if (!is_possible(mapping))
		return -EINVAL;
	holder = get_holder(table, given.network, given.address.family, &given.name);
	if (!holder)
		return -ENOMEM;
	entry = get_entry(table, given.network, &given.address);
	if (!entry) {
		remove_if_empty(table, holder);
		return -ENOMEM;
	}
	slot = make_room(table, holder, entry, given.slot);
	attach(table, entry, holder);
	entry->mapping.real = given.real;
	entry->mapping.answered = given.answered;
	entry->mapping.used = given.used;
	entry->mapping.told = given.told;
	entry->mapping.checked = given.checked;
	entry->mapping.ttl = given.ttl;
	entry->mapping.stale = given.stale;
	move_last(holder, slot);
	share_times(holder);
	place(holder);
	return 0;
}

bool mapping_pool_has(const struct network *network, const struct address *address)
{
	struct limits limits = limits_of(network, address->family);
	struct address last;

	if (!policy_in_pool(network, address) || is_reserved(&limits, address))
		return false;
	last = prefix_host(&limits.pool, pool_size(&limits.pool) - 1);
	return address_compare(address, &last) <= 0;
}

bool mapping_fits(const struct mapping *mapping, const struct network *network)
{
	return network && mapping->slot < network->per_name && mapping_pool_has(network, &mapping->address);
}

/* Calls for each entry, holders by use and slots in order; entries whose visitor says so are removed. */
static void visit_holder(struct mapping_table *table, struct holder *holder, bool (*visit)(void *context, const struct mapping *mapping),
			 void *context)
{
	bool keep[MAPPING_PER_NAME_MAX];

	for (size_t i = 0; i < holder->count; i++)
		keep[i] = visit(context, &holder->slots[i]->mapping);
	for (size_t i = holder->count; i > 0; i--) {
		if (!keep[i - 1])
			remove_entry(table, holder->slots[i - 1]);
	}
	remove_if_empty(table, holder);
}

void mapping_each(struct mapping_table *table, bool (*visit)(void *context, const struct mapping *mapping), void *context)
{
	struct pool *pool, *next_pool;
	struct holder *holder, *next;

	HASH_ITER (hh, table->pools, pool, next_pool) {
		DL_FOREACH_SAFE (pool->holders, holder, next)
			visit_holder(table, holder, visit, context);
	}
}

void mapping_changes(const struct mapping_table *table, void (*visit)(void *context, const struct mapping *mapping), void *context)
{
	const struct entry *entry;

	DL_FOREACH2(table->changes, entry, next_change)
	visit(context, &entry->mapping);
}

bool mapping_is_settled(const struct mapping_table *table)
{
	return table->changes == NULL;
}

static void settle(struct mapping_table *table, struct entry *entry)
{
	entry->mapping.written = entry->mapping.real;
	entry->is_new = false;
	mark(table, entry);
}

void mapping_settle(struct mapping_table *table)
{
	while (table->changes)
		settle(table, table->changes);
}

void mapping_synchronised(struct mapping_table *table)
{
	struct entry *entry, *next;

	HASH_ITER (hh, table->entries, entry, next) {
		if (entry->holder) {
			settle(table, entry);
			continue;
		}
		HASH_DEL(table->entries, entry);
		free(entry);
	}
}
