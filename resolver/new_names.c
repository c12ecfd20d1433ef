/* SPDX-License-Identifier: MIT */
/*
 * New names below a wildcard, counted.
 *
 * Theory of operation: a bucket of tokens for each wildcard, kept as the time at which it is full again (a full one need not be kept), and
 * for each network a table of hashes of what it asked for lately: sets of a few, the latest first. The hash is keyed, so an app cannot make
 * a name that is taken for another one. Memory: a table for each network that has a limit, a bucket for each rule that was used in the
 * last minute or so.
 */
#include "resolver/new_names.h"

#include <stdlib.h>
#include <string.h>

#include "common/hash.h"

#define WAYS      4
#define SETS      (NEW_NAMES_SEEN / WAYS)
#define WINDOW_US 60000000ULL /* `wildcard_names` is for a minute */

struct bucket {
	struct pattern pattern; /* of the rule: the key, compared as bytes */
	uint64_t full_at;       /* us */
	UT_hash_handle hh;
};

struct counted_network {
	uint16_t id;
	unsigned int seen[SETS][WAYS]; /* 0: free */
	struct bucket *buckets;        /* owned */
	UT_hash_handle hh;
};

struct new_names {
	struct counted_network *networks; /* owned */
};

struct new_names *new_names_new(void)
{
	return calloc(1, sizeof(struct new_names));
}

static void forget_bucket(struct counted_network *counted, struct bucket *bucket)
{
	HASH_DEL(counted->buckets, bucket);
	free(bucket);
}

static void forget_network(struct new_names *names, struct counted_network *counted)
{
	struct bucket *bucket, *next;

	HASH_ITER (hh, counted->buckets, bucket, next)
		forget_bucket(counted, bucket);
	HASH_DEL(names->networks, counted);
	free(counted);
}

void new_names_free(struct new_names *names)
{
	struct counted_network *counted, *next;

	if (!names)
		return;
	HASH_ITER (hh, names->networks, counted, next)
		forget_network(names, counted);
	free(names);
}

static struct counted_network *network_of(struct new_names *names, uint16_t id)
{
	struct counted_network *counted;

	HASH_FIND(hh, names->networks, &id, sizeof(id), counted);
	if (counted)
		return counted;
	counted = calloc(1, sizeof(*counted));
	if (!counted)
		return NULL;
	counted->id = id;
	HASH_ADD(hh, names->networks, id, sizeof(counted->id), counted);
	if (!counted->hh.tbl) {
		free(counted);
		return NULL;
	}
	return counted;
}

static struct bucket *bucket_of(struct counted_network *counted, const struct pattern *pattern)
{
	struct bucket *bucket, *made = calloc(1, sizeof(*made));

	if (!made)
		return NULL;
	made->pattern.kind = pattern->kind; /* member by member: padding stays zero */
	made->pattern.base = pattern->base;
	HASH_FIND(hh, counted->buckets, &made->pattern, sizeof(made->pattern), bucket);
	if (bucket) {
		free(made);
		return bucket;
	}
	HASH_ADD(hh, counted->buckets, pattern, sizeof(made->pattern), made);
	if (!made->hh.tbl) {
		free(made);
		return NULL;
	}
	return made;
}

/* Types that an app asks for together, to open one connection. */
static bool is_address_type(uint16_t type)
{
	return type == TYPE_A || type == TYPE_AAAA || type == TYPE_HTTPS || type == TYPE_SVCB;
}

static unsigned int hash_question(const struct question *question)
{
	struct {
		uint16_t type;
		uint8_t wire[DOMAIN_WIRE_MAX];
	} key = {.type = is_address_type(question->type) ? 0 : question->type};
	unsigned int hash;

	memcpy(key.wire, question->name.wire, question->name.length);
	hash = hash_bytes(&key, offsetof(__typeof__(key), wire) + question->name.length);
	return hash ? hash : 1;
}

/* Put a hash in front of its set, where it may have been already. */
static void put_first(unsigned int *set, unsigned int hash, size_t from)
{
	memmove(set + 1, set, from * sizeof(*set));
	set[0] = hash;
}

static bool was_seen(unsigned int *set, unsigned int hash)
{
	for (size_t i = 0; i < WAYS; i++) {
		if (set[i] == hash) {
			put_first(set, hash, i);
			return true;
		}
	}
	return false;
}

/* Take a token. */
static bool take(struct bucket *bucket, uint32_t per_minute, uint64_t now_us)
{
	uint64_t from = bucket->full_at > now_us ? bucket->full_at : now_us;
	uint64_t full_at = from + WINDOW_US / per_minute;

	if (full_at - now_us > WINDOW_US)
		return false;
	bucket->full_at = full_at;
	return true;
}

bool new_names_may_ask(struct new_names *names, const struct network *network, const struct rule *rule, const struct question *question,
		       uint64_t now)
{
	unsigned int octets, hash, *set;
	struct counted_network *counted;
	struct bucket *bucket;

	if (policy_wildcard_stands_for(rule, &question->name, &octets) == 0)
		return true;
	counted = network_of(names, network->id);
	if (!counted)
		return false;
	hash = hash_question(question);
	set = counted->seen[hash % SETS];
	if (was_seen(set, hash))
		return true;
	bucket = bucket_of(counted, &rule->pattern);
	if (!bucket || !take(bucket, network->wildcards.names, now * 1000))
		return false;
	put_first(set, hash, WAYS - 1);
	return true;
}

static void forget_full_buckets(struct counted_network *counted, uint64_t now_us)
{
	struct bucket *bucket, *next;

	HASH_ITER (hh, counted->buckets, bucket, next) {
		if (bucket->full_at <= now_us)
			forget_bucket(counted, bucket);
	}
}

void new_names_set_policy(struct new_names *names, const struct policy *policy, uint64_t now)
{
	struct counted_network *counted, *next;

	HASH_ITER (hh, names->networks, counted, next) {
		const struct network *network = policy_network(policy, counted->id);

		if (!network || !network->wildcards.names)
			forget_network(names, counted);
		else
			forget_full_buckets(counted, now * 1000);
	}
}
