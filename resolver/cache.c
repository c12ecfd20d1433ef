/* SPDX-License-Identifier: MIT */
/*
 * The cache of upstream answers.
 *
 * Theory of operation. One table, and one list in the order of use, newest first. An entry owns its answer; it goes when its
 * time has run out and somebody asks for it, when a newer answer takes its place, or from the old end of the list when memory gets
 * short. Everything that an entry costs is counted, so that names which an app invents cannot cost more than the limit.
 *
 * An answer is fresh until `ends`, and after that it may serve until `stale_ends` where a look-up fails.
 */
#include "common/hash.h"

#include <stdlib.h>
#include <utlist.h>

#include "resolver/cache.h"

/* malloc()'s own octets for an entry and its answer, and the entry's share of the table's buckets, rounded up. */
#define ENTRY_OVERHEAD 96

struct entry {
	struct answer *answer; /* owned */
	uint64_t put_at, ends; /* ms */
	uint64_t stale_ends;   /* ms; `ends` when it never serves beyond that */
	uint64_t recheck_at;   /* ms: the last look-up failed, and the next one is due then; 0: it did not fail */
	size_t bytes;
	struct entry *prev, *next; /* cache->used */
	UT_hash_handle hh;
	uint8_t key[]; /* a struct cache_key without the octets behind its name */
};

struct cache {
	struct entry *entries; /* owned */
	struct entry *used;    /* the same entries, newest use first */
	size_t bytes, bytes_max, count;
};

struct cache *cache_new(size_t bytes_max)
{
	struct cache *cache = calloc(1, sizeof(*cache));

	if (cache)
		cache->bytes_max = bytes_max;
	return cache;
}

static void entry_remove(struct cache *cache, struct entry *entry)
{
	HASH_DEL(cache->entries, entry);
	DL_DELETE(cache->used, entry);
	cache->bytes -= entry->bytes;
	cache->count--;
	answer_free(entry->answer);
	free(entry);
}

void cache_clear(struct cache *cache)
{
	while (cache->used)
		entry_remove(cache, cache->used);
}

void cache_free(struct cache *cache)
{
	if (!cache)
		return;
	cache_clear(cache);
	free(cache);
}

void cache_key_init(struct cache_key *key, const struct domain *name, uint16_t type, bool dnssec_ok, bool checking_disabled,
		    const char *upstream)
{
	memset(key, 0, sizeof(*key));
	key->name.length = name->length;
	memcpy(key->name.wire, name->wire, name->length);
	key->type = type;
	key->class = CLASS_IN;
	key->dnssec_ok = dnssec_ok;
	key->checking_disabled = checking_disabled;
	strncpy(key->upstream, upstream, POLICY_NAME_MAX);
	key->hash = hash_bytes(&key->type, offsetof(struct cache_key, name.wire) + key->name.length - offsetof(struct cache_key, type));
}

static size_t key_size(const struct cache_key *key)
{
	return offsetof(struct cache_key, name.wire) + key->name.length;
}

static uint32_t minimum(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* Return: 0 without an SOA. */
static uint32_t negative_ttl(const struct answer *answer)
{
	for (size_t i = answer->answer_count; i < answer->answer_count + answer->authority_count; i++) {
		if (answer->records[i].type == TYPE_SOA)
			return answer_negative_ttl(&answer->records[i]);
	}
	return 0;
}

static bool has_soa(const struct answer *answer)
{
	for (size_t i = answer->answer_count; i < answer->answer_count + answer->authority_count; i++) {
		if (answer->records[i].type == TYPE_SOA)
			return true;
	}
	return false;
}

/* Smallest TTL of the answer section; sets @found when a record of the wanted type is there. */
static uint32_t smallest_ttl(const struct answer *answer, uint16_t type, bool *found)
{
	uint32_t ttl = CACHE_TTL_MAX;

	*found = false;
	for (size_t i = 0; i < answer->answer_count; i++) {
		ttl = minimum(ttl, answer->records[i].ttl);
		if (answer->records[i].type == type)
			*found = true;
	}
	return ttl;
}

/* Seconds that an answer is fresh; 0: never. @useful: set when it may serve longer, because it has what was asked for. */
static uint32_t lifetime(const struct answer *answer, uint16_t type, bool *useful)
{
	uint32_t negative = minimum(negative_ttl(answer), CACHE_NEGATIVE_TTL_MAX);
	uint32_t ttl;
	bool found;

	*useful = false;
	if (answer->truncated)
		return 0;
	if (answer->rcode == RCODE_SERVFAIL)
		return CACHE_FAILURE_TTL;
	if (answer->rcode != RCODE_NOERROR && answer->rcode != RCODE_NXDOMAIN)
		return 0;
	ttl = smallest_ttl(answer, type, &found);
	if (answer->rcode == RCODE_NXDOMAIN || answer->answer_count == 0)
		return minimum(ttl, negative);
	/* A chain that ends in nothing: as negative as its SOA says; without one, only the CNAMEs are known. */
	*useful = found || !has_soa(answer);
	return *useful ? ttl : minimum(ttl, negative);
}

static struct entry *find(const struct cache *cache, const struct cache_key *key)
{
	struct entry *entry;

	HASH_FIND_BYHASHVALUE(hh, cache->entries, key, key_size(key), key->hash, entry);
	return entry;
}

static void make_room(struct cache *cache, size_t bytes)
{
	while (cache->used && cache->bytes + bytes > cache->bytes_max)
		entry_remove(cache, cache->used->prev);
}

/* Return: false when out of memory; then the entry is not in the table. */
static bool entry_insert(struct cache *cache, struct entry *entry, const struct cache_key *key)
{
	HASH_ADD_KEYPTR_BYHASHVALUE(hh, cache->entries, entry->key, key_size(key), key->hash, entry);
	if (!entry->hh.tbl)
		return false;
	DL_PREPEND(cache->used, entry);
	cache->bytes += entry->bytes;
	cache->count++;
	return true;
}

void cache_put(struct cache *cache, const struct cache_key *key, struct answer *answer, uint64_t now)
{
	bool useful;
	uint32_t seconds = lifetime(answer, key->type, &useful);
	size_t bytes = sizeof(struct entry) + key_size(key) + answer->bytes + ENTRY_OVERHEAD;
	struct entry *old = find(cache, key);
	struct entry *entry = NULL;
	bool keep = seconds > 0 || useful;

	/* The failure of an upstream does not take away what is known. */
	if (old && answer->rcode == RCODE_SERVFAIL && old->stale_ends > now)
		keep = false;
	else if (old)
		entry_remove(cache, old);
	if (keep && bytes <= cache->bytes_max)
		entry = calloc(1, sizeof(*entry) + key_size(key));
	if (!entry) {
		answer_free(answer);
		return;
	}
	make_room(cache, bytes);
	memcpy(entry->key, key, key_size(key));
	entry->answer = answer;
	entry->put_at = now;
	entry->ends = now + seconds * 1000ULL;
	entry->stale_ends = entry->ends + (useful ? CACHE_STALE_MS : 0);
	entry->bytes = bytes;
	if (!entry_insert(cache, entry, key)) {
		answer_free(answer);
		free(entry);
	}
}

/* Return: NULL when nothing is known of the key that could be used any more. */
static struct entry *get(struct cache *cache, const struct cache_key *key, uint64_t now)
{
	struct entry *entry = find(cache, key);

	if (!entry)
		return NULL;
	if (entry->stale_ends <= now) {
		entry_remove(cache, entry);
		return NULL;
	}
	DL_DELETE(cache->used, entry);
	DL_PREPEND(cache->used, entry);
	return entry;
}

const struct answer *cache_get(struct cache *cache, const struct cache_key *key, uint64_t now, uint32_t *age)
{
	struct entry *entry = get(cache, key, now);

	if (!entry || entry->ends <= now)
		return NULL;
	*age = now > entry->put_at ? (uint32_t)((now - entry->put_at) / 1000) : 0;
	return entry->answer;
}

const struct answer *cache_get_stale(struct cache *cache, const struct cache_key *key, uint64_t now)
{
	struct entry *entry = get(cache, key, now);

	if (!entry)
		return NULL;
	entry->recheck_at = now + CACHE_RECHECK_MS;
	return entry->answer;
}

const struct answer *cache_get_failing(struct cache *cache, const struct cache_key *key, uint64_t now, bool *recheck)
{
	struct entry *entry = get(cache, key, now);

	if (!entry || !entry->recheck_at)
		return NULL;
	*recheck = entry->recheck_at <= now;
	if (*recheck)
		entry->recheck_at = now + CACHE_RECHECK_MS;
	return entry->answer;
}

size_t cache_bytes(const struct cache *cache)
{
	return cache->bytes;
}

size_t cache_count(const struct cache *cache)
{
	return cache->count;
}
