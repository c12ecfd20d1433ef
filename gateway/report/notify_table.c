/* SPDX-License-Identifier: MIT */
/*
 * What has been notified.
 *
 * Theory of operation: a hash by key, which uthash keeps in the order of addition as well; what is seen again goes to the end, so the first
 * one is the one to be forgotten.
 */
#include "gateway/report/notify_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"

#define KEY_MAX (POLICY_NAME_MAX + 1 + APPS_NAME_MAX + 1 + DOMAIN_WIRE_MAX + 1)

/* Octets: the network, NUL, the app or the source, NUL, the name or the destination. */
struct known_key {
	uint16_t size;
	uint8_t bytes[KEY_MAX];
};

struct known {
	UT_hash_handle hh;
	uint64_t seen;    /* ms */
	uint64_t message; /* that tells it; 0: one of the worker before */
	uint16_t size;
	uint8_t key[];
};

/* Of an entry on its way to the next worker; its key follows. */
struct kept {
	uint64_t age; /* ms */
	uint16_t size;
};

struct notify_table {
	struct known *list; /* owned, hash */
};

_Static_assert(APPS_NAME_MAX >= sizeof(struct address), "a source fits where an app does");

struct notify_table *notify_table_new(void)
{
	return calloc(1, sizeof(struct notify_table));
}

static void forget(struct notify_table *table, struct known *known)
{
	HASH_DEL(table->list, known);
	free(known);
}

void notify_table_clear(struct notify_table *table)
{
	struct known *known, *next;

	HASH_ITER (hh, table->list, known, next)
		forget(table, known);
}

void notify_table_free(struct notify_table *table)
{
	if (!table)
		return;
	notify_table_clear(table);
	free(table);
}

static void put(struct known_key *key, const void *bytes, size_t size)
{
	memcpy(key->bytes + key->size, bytes, size);
	key->size = (uint16_t)(key->size + size);
}

static void put_address(struct known_key *key, const struct address *address)
{
	if (address->family)
		put(key, address->bytes, address_size(address));
}

static void make_key(const struct decision *decision, struct known_key *key)
{
	const struct domain *subject = decision_subject(decision);

	key->size = 0;
	put(key, decision->network, strnlen(decision->network, POLICY_NAME_MAX));
	put(key, "", 1);
	if (decision->app[0])
		put(key, decision->app, strnlen(decision->app, APPS_NAME_MAX));
	else
		put_address(key, &decision->source);
	put(key, "", 1);
	if (subject->length)
		put(key, subject->wire, subject->length);
	else
		put_address(key, &decision->destination);
}

static struct known *add(struct notify_table *table, const uint8_t *key, uint16_t size, uint64_t message, uint64_t seen)
{
	struct known *known;

	if (HASH_COUNT(table->list) >= NOTIFY_KNOWN_MAX)
		forget(table, table->list);
	known = calloc(1, sizeof(*known) + size);
	if (!known)
		return NULL;
	known->seen = seen;
	known->message = message;
	known->size = size;
	memcpy(known->key, key, size);
	HASH_ADD_KEYPTR(hh, table->list, known->key, size, known);
	if (known->hh.tbl)
		return known;
	free(known);
	return NULL;
}

bool notify_table_see(struct notify_table *table, const struct decision *decision, uint64_t message, uint64_t now)
{
	struct known *known;
	struct known_key key;
	bool is_new;

	make_key(decision, &key);
	HASH_FIND(hh, table->list, key.bytes, key.size, known);
	is_new = !known || now - known->seen >= NOTIFY_KNOWN_MS;
	if (known) {
		/* To the end of the order. */
		HASH_DEL(table->list, known);
		known->seen = now;
		if (is_new)
			known->message = message;
		HASH_ADD_KEYPTR(hh, table->list, known->key, known->size, known);
		if (!known->hh.tbl)
			free(known);
	} else {
		(void)add(table, key.bytes, key.size, message, now);
	}
	return is_new;
}

size_t notify_table_count(const struct notify_table *table)
{
	return HASH_COUNT(table->list);
}

int notify_table_save(const struct notify_table *table, uint64_t message, uint64_t now, void **bytes, size_t *size)
{
	const struct known *known;
	uint8_t *out;
	size_t used = 0;

	for (known = table->list; known; known = known->hh.next)
		used += sizeof(struct kept) + known->size;
	out = malloc(used + 1);
	if (!out)
		return -ENOMEM;
	used = 0;
	for (known = table->list; known; known = known->hh.next) {
		struct kept kept;

		if (known->message > message)
			continue;
		memset(&kept, 0, sizeof(kept));
		kept.age = now - known->seen;
		kept.size = known->size;
		memcpy(out + used, &kept, sizeof(kept));
		memcpy(out + used + sizeof(kept), known->key, known->size);
		used += sizeof(kept) + known->size;
	}
	*bytes = out;
	*size = used;
	return 0;
}

void notify_table_restore(struct notify_table *table, const void *bytes, size_t size, uint64_t now)
{
	const uint8_t *in = bytes;
	struct known *known;
	struct kept kept;

	for (size_t at = 0; size - at >= sizeof(kept); at += kept.size) {
		memcpy(&kept, in + at, sizeof(kept));
		at += sizeof(kept);
		if (kept.size > KEY_MAX || kept.size > size - at)
			return;
		HASH_FIND(hh, table->list, in + at, kept.size, known);
		/* The clock may be younger than the entry: ages are kept by letting it wrap. */
		if (!known)
			(void)add(table, in + at, kept.size, 0, now - kept.age);
	}
}
