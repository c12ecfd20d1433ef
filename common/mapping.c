/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: a holder is a name of a network and family, with its mappings in order of their slots. Two hash tables find it, by
 * name, and by virtual address. The holders of a network and family are a list, the one that was unused for longest first, so that the
 * one which has to go is soon found. A pool remembers below which address none is free, and before which time no name is idle, so that a
 * flood of new names does not look through all of it again and again.
 */
#include "common/mapping.h"

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
	struct holder *prev, *next;                /* of the pool, unused for longest first */
	struct entry *slots[MAPPING_PER_NAME_MAX]; /* owned; no gaps */
	size_t count;
};

/* Of a network and a family. */
struct pool {
	UT_hash_handle hh;
	struct {
		uint16_t network;
		uint8_t family;
	} key;
	struct holder *holders; /* list */
	uint32_t first_free;    /* no host of the prefix below this number is free ... */
	struct prefix prefix;   /* ... of this prefix, with this gateway */
	struct address gateway;
	uint64_t none_before; /* ms: no holder is idle before this time ... */
	uint64_t idle;        /* ... when names are idle after so long */
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
	if (!holder->hh.tbl) {
		free(holder);
		return NULL;
	}
	DL_APPEND(pool->holders, holder);
	return holder;
}

static void remove_holder(struct mapping_table *table, struct holder *holder)
{
	DL_DELETE(holder->pool->holders, holder);
	HASH_DEL(table->holders, holder);
	free(holder);
}

static void mark(struct mapping_table *table, struct entry *entry, bool changed)
{
	if (changed && !entry->changed)
		DL_APPEND2(table->changes, entry, prev_change, next_change);
	if (!changed && entry->changed)
		DL_DELETE2(table->changes, entry, prev_change, next_change);
	entry->changed = changed;
}

/* Take an entry out of its holder, which may be left with none. What the kernel has for the address is remembered. */
static void remove_entry(struct mapping_table *table, struct entry *entry)
{
	struct holder *holder = entry->holder;
	size_t at = 0;

	while (holder->slots[at] != entry)
		at++;
	holder->count--;
	for (; at < holder->count; at++) {
		holder->slots[at] = holder->slots[at + 1];
		holder->slots[at]->mapping.slot = (uint8_t)at;
	}
	mark(table, entry, false);
	table->count--;
	holder->pool->first_free = 0;
	holder->pool->none_before = 0;
	entry->holder = NULL;
	if (entry->mapping.written.family)
		return;
	HASH_DEL(table->entries, entry);
	free(entry);
}

static struct entry *new_entry(struct mapping_table *table, uint16_t network, const struct address *address)
{
	struct entry *entry = calloc(1, sizeof(*entry));

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

/* In the holder's next slot. Return: NULL when out of memory. */
static struct entry *add_entry(struct mapping_table *table, struct holder *holder, const struct address *address)
{
	struct entry *entry = find_entry(table, holder->key.network, address);

	if (!entry)
		entry = new_entry(table, holder->key.network, address);
	if (!entry)
		return NULL;
	entry->holder = holder;
	entry->mapping = (struct mapping){
		.address = *address,
		.network = holder->key.network,
		.name = holder->key.name,
		.slot = (uint8_t)holder->count,
		.written = entry->mapping.written,
	};
	holder->slots[holder->count++] = entry;
	table->count++;
	mark(table, entry, true);
	return entry;
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
	DL_DELETE(holder->pool->holders, holder);
	DL_APPEND(holder->pool->holders, holder);
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

	for (size_t i = 0; entry && i < entry->holder->count; i++)
		entry->holder->slots[i]->mapping.checked = now;
}

/* --- new addresses --- */

static bool is_reserved(const struct network *network, const struct address *address)
{
	const struct prefix *subnet = address->family == AF_INET ? &network->subnet4 : &network->subnet6;
	struct address_range range = prefix_range(subnet);

	if (address_equal(address, address->family == AF_INET ? &network->gateway4 : &network->gateway6))
		return true;
	/* RFC 3021: a /31 has no network and broadcast address. */
	if (subnet->length + 1U >= address_bits(address))
		return false;
	return address_equal(address, &range.first) || (address->family == AF_INET && address_equal(address, &range.last));
}

static uint32_t pool_size(const struct prefix *prefix)
{
	unsigned int bits = address_bits(&prefix->address) - prefix->length;

	return bits >= 12 ? MAPPING_POOL_MAX : UINT32_C(1) << bits;
}
_Static_assert(MAPPING_POOL_MAX == 1 << 12, "a pool of 12 bits is the widest that is used");

/* Return: false when none is free. */
static bool find_free(const struct mapping_table *table, struct pool *pool, const struct network *network, struct address *out)
{
	const struct prefix *prefix = pool->key.family == AF_INET ? &network->pool4 : &network->pool6;
	const struct address *gateway = pool->key.family == AF_INET ? &network->gateway4 : &network->gateway6;
	uint32_t size = pool_size(prefix);

	if (!address_equal(&pool->prefix.address, &prefix->address) || pool->prefix.length != prefix->length ||
	    !address_equal(&pool->gateway, gateway)) {
		pool->prefix = *prefix;
		pool->gateway = *gateway;
		pool->first_free = 0;
	}
	for (; pool->first_free < size; pool->first_free++) {
		*out = prefix_host(prefix, pool->first_free);
		if (!is_reserved(network, out) && !find_used(table, network->id, out))
			return true;
	}
	return false;
}

/* When a holder will have been idle for long enough, if nobody uses it until then. */
static uint64_t idle_at(const struct holder *holder, const struct mapping_answer *answer)
{
	const struct mapping *first = &holder->slots[0]->mapping;

	return (first->told > first->used ? first->told : first->used) + answer->idle;
}

/* The list is by use, but a name that was told a long TTL stays for longer than one that was used after it. */
static struct holder *find_idle(struct pool *pool, const struct mapping_answer *answer)
{
	uint64_t earliest = UINT64_MAX;
	struct holder *holder;

	if (answer->now < pool->none_before && answer->idle == pool->idle)
		return NULL;
	DL_FOREACH (pool->holders, holder) {
		uint64_t at = holder->count ? idle_at(holder, answer) : UINT64_MAX;

		if (at <= answer->now && answer->may_go(answer->context, &holder->slots[0]->mapping))
			return holder;
		if (at < earliest)
			earliest = at;
	}
	pool->none_before = earliest == UINT64_MAX ? 0 : earliest;
	pool->idle = answer->idle;
	return NULL;
}

/* All that it has goes. Return: the first address. */
static struct address take_from(struct mapping_table *table, struct holder *holder, const struct mapping_answer *answer)
{
	struct address taken = holder->slots[0]->key.address;

	for (size_t i = 0; i < holder->count; i++)
		answer->gone(answer->context, &holder->slots[i]->mapping);
	while (holder->count)
		remove_entry(table, holder->slots[holder->count - 1]);
	remove_holder(table, holder);
	return taken;
}

/* One more mapping for a holder. Return: 0, -ENOSPC or -ENOMEM. */
static int grow(struct mapping_table *table, struct holder *holder, const struct mapping_answer *answer)
{
	struct address address;

	if (!find_free(table, holder->pool, answer->network, &address)) {
		struct holder *idle = holder->count ? NULL : find_idle(holder->pool, answer);

		if (!idle)
			return -ENOSPC;
		address = take_from(table, idle, answer);
	}
	return add_entry(table, holder, &address) ? 0 : -ENOMEM;
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

/* One of the answer's addresses that no mapping leads to; if there is none, any, in turn. */
static const struct address *choose_real(const struct holder *holder, const struct mapping_answer *answer, size_t turn)
{
	for (size_t i = 0; i < answer->real_count; i++) {
		if (!leads_to(holder, &answer->reals[i]))
			return &answer->reals[i];
	}
	return &answer->reals[turn % answer->real_count];
}

/* Does a mapping before this one lead to the same address although there would be another one? */
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

		if (shows(answer, &entry->mapping.real) && !is_double(holder, i))
			continue;
		entry->mapping.real = *choose_real(holder, answer, i);
		mark(table, entry, !address_equal(&entry->mapping.real, &entry->mapping.written));
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
		uint64_t told = answer->now + (uint64_t)answer->ttl * 1000;

		/* A new one is as its fellows. */
		mapping->used = holder->slots[0]->mapping.used;
		mapping->told = holder->slots[0]->mapping.told;
		mapping->checked = holder->slots[0]->mapping.checked;
		mapping->answered = answer->now;
		mapping->ttl = answer->ttl;
		if (answer->asked && told > mapping->told)
			mapping->told = told;
	}
	if (answer->asked)
		use(holder, answer->now);
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
		remove_holder(table, holder);
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

/* Into the list by its use: whoever keeps mappings elsewhere has them in about this order. */
static void sort_in(struct holder *holder)
{
	struct pool *pool = holder->pool;
	struct holder *after;

	DL_DELETE(pool->holders, holder);
	after = pool->holders ? pool->holders->prev : NULL; /* the last one */
	while (after && after->slots[0]->mapping.used > holder->slots[0]->mapping.used)
		after = after == pool->holders ? NULL : after->prev;
	if (after)
		DL_APPEND_ELEM(pool->holders, after, holder);
	else
		DL_PREPEND(pool->holders, holder);
}

/* Whatever the address stood for, and whatever the holder had in the slot, is gone. */
static void make_room(struct mapping_table *table, struct holder *holder, const struct mapping *mapping)
{
	struct entry *entry = find_used(table, mapping->network, &mapping->address);
	struct holder *other = entry ? entry->holder : NULL;

	if (entry)
		remove_entry(table, entry);
	if (other && other != holder && other->count == 0)
		remove_holder(table, other);
	if (mapping->slot < holder->count)
		remove_entry(table, holder->slots[mapping->slot]);
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
	struct holder *holder = get_holder(table, mapping->network, mapping->address.family, &mapping->name);
	struct address written;
	struct entry *entry;

	if (!holder)
		return -ENOMEM;
	make_room(table, holder, mapping);
	entry = holder->count < MAPPING_PER_NAME_MAX ? add_entry(table, holder, &mapping->address) : NULL;
	if (!entry) {
		if (holder->count == 0)
			remove_holder(table, holder);
		return -ENOMEM;
	}
	written = entry->mapping.written;
	entry->mapping = *mapping;
	entry->mapping.slot = (uint8_t)(holder->count - 1);
	entry->mapping.written = written;
	move_last(holder, mapping->slot);
	sort_in(holder);
	return 0;
}

bool mapping_pool_has(const struct network *network, const struct address *address)
{
	const struct prefix *prefix = address->family == AF_INET ? &network->pool4 : &network->pool6;
	struct address last;

	if (!policy_in_pool(network, address) || is_reserved(network, address))
		return false;
	last = prefix_host(prefix, pool_size(prefix) - 1);
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
	if (holder->count == 0)
		remove_holder(table, holder);
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
	mark(table, entry, false);
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
