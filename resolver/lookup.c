/* SPDX-License-Identifier: MIT */
/*
 * Look-ups of the gateway itself.
 *
 * Theory of operation: a look-up shares the cache and the upstreams with the apps' questions, but not their limits, and no policy is asked.
 * Whatever becomes of its question (an app's question for the same name may have it cancelled), it ends at its deadline. Whoever asks is
 * told from the timer or from the upstream's answer, so never while still asking.
 */
#include "resolver/lookup.h"

#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

struct lookup_own {
	struct lookup_own *prev, *next;
	struct lookups *lookups;
	struct cache_key key;
	struct domain name; /* where the chain has led to */
	unsigned int chased;
	uint64_t deadline; /* ms of the loop; it ends then, with what was found */
	struct address list[RESOLVER_FOUND_MAX];
	size_t count;
	resolver_found found;
	void *context;
};

static void on_timer(uv_timer_t *timer);

static uint64_t now_of(const struct lookups *lookups)
{
	return uv_now(lookups->queries->loop);
}

static void set_timer(struct lookups *lookups)
{
	uint64_t now = now_of(lookups);

	if (!lookups->list)
		uv_timer_stop(&lookups->timer);
	else
		uv_timer_start(&lookups->timer, on_timer, lookups->list->deadline > now ? lookups->list->deadline - now : 0, 0);
}

static void forget(struct lookups *lookups, struct lookup_own *lookup)
{
	DL_DELETE(lookups->list, lookup);
	lookups->count--;
	free(lookup);
}

static int compare_deadlines(const struct lookup_own *a, const struct lookup_own *b)
{
	return a->deadline < b->deadline ? -1 : a->deadline > b->deadline;
}

/* It ends in the next turn of the loop. */
static void end(struct lookup_own *lookup)
{
	struct lookups *lookups = lookup->lookups;

	lookup->deadline = 0;
	DL_DELETE(lookups->list, lookup);
	DL_INSERT_INORDER(lookups->list, lookup, compare_deadlines);
	set_timer(lookups);
}

static void on_timer(uv_timer_t *timer)
{
	struct lookups *lookups = (struct lookups *)((char *)timer - offsetof(struct lookups, timer));
	struct lookup_own *lookup;

	while ((lookup = lookups->list) && lookup->deadline <= now_of(lookups)) {
		struct lookup_own ended = *lookup;

		forget(lookups, lookup);
		ended.found(ended.context, ended.list, ended.count);
	}
	set_timer(lookups);
}

static bool is_of(const struct record *record, const struct domain *name, uint16_t type)
{
	return record->class == CLASS_IN && record->type == type && record->owner_length == name->length &&
	       memcmp(record->owner, name->wire, name->length) == 0;
}

/* Take the addresses of the name that the chain has led to. */
static void collect(struct lookup_own *lookup, const struct answer *answer)
{
	size_t size = lookup->key.type == TYPE_A ? 4 : 16;

	for (size_t i = 0; i < answer->answer_count && lookup->count < RESOLVER_FOUND_MAX; i++) {
		const struct record *record = &answer->records[i];

		if (is_of(record, &lookup->name, lookup->key.type) && record->rdata_length == size)
			lookup->list[lookup->count++] = address_from_bytes(size == 4 ? AF_INET : AF_INET6, record->rdata);
	}
}

/* Follow one CNAME. Return: false when there is none. */
static bool follow(struct lookup_own *lookup, const struct answer *answer)
{
	for (size_t i = 0; i < answer->answer_count; i++) {
		const struct record *record = &answer->records[i];

		if (is_of(record, &lookup->name, TYPE_CNAME))
			return domain_from_wire(record->rdata, record->rdata_length, &lookup->name) > 0;
	}
	return false;
}

/* Return: true when the chain has led to a name that is to be asked for. */
static bool take(struct lookup_own *lookup, const struct answer *answer)
{
	bool moved = false;

	collect(lookup, answer);
	for (int i = 0; i < LOOKUP_CHASE_MAX && lookup->count == 0 && follow(lookup, answer); i++) {
		moved = true;
		collect(lookup, answer);
	}
	return moved && lookup->count == 0 && answer->rcode == RCODE_NOERROR && lookup->chased++ < LOOKUP_CHASE_MAX &&
	       !policy_name_is_local(&lookup->name);
}

/* Ask for the name that the chain has led to. Return: 0, also when it has ended; or -errno: nobody can be asked. */
static int ask(struct lookup_own *lookup)
{
	const struct queries *queries = lookup->lookups->queries;
	const struct answer *answer;
	uint32_t age;

	for (;;) {
		cache_key_init(&lookup->key, &lookup->name, lookup->key.type, false, false,
			       policy_upstream_for(queries->policy, &lookup->name)->name);
		answer = cache_get(queries->cache, &lookup->key, now_of(lookup->lookups), &age);
		if (!answer)
			return upstream_ask(queries->upstream, &lookup->key);
		if (!take(lookup, answer)) {
			end(lookup);
			return 0;
		}
	}
}

static void go_on(struct lookup_own *lookup)
{
	if (ask(lookup) != 0)
		end(lookup);
}

int lookups_ask(struct lookups *lookups, const struct domain *name, uint16_t type, resolver_found found, void *context)
{
	struct lookup_own *lookup;
	int rc;

	if (lookups->count >= LOOKUPS_MAX)
		return -EBUSY;
	lookup = calloc(1, sizeof(*lookup));
	if (!lookup)
		return -ENOMEM;
	lookup->lookups = lookups;
	lookup->key.type = type;
	lookup->name = *name;
	lookup->found = found;
	lookup->context = context;
	lookup->deadline = now_of(lookups) + QUERY_DEADLINE_MS;
	DL_INSERT_INORDER(lookups->list, lookup, compare_deadlines);
	lookups->count++;
	rc = ask(lookup);
	if (rc != 0)
		forget(lookups, lookup);
	set_timer(lookups);
	return rc;
}

void lookups_cancel(struct lookups *lookups, const void *context)
{
	struct lookup_own *lookup, *next;

	DL_FOREACH_SAFE (lookups->list, lookup, next) {
		if (lookup->context == context)
			forget(lookups, lookup);
	}
}

/* Keys are made with their padding zeroed, to be compared as bytes. */
static bool keys_equal(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct cache_key)) == 0;
}

void lookups_answered(struct lookups *lookups, const struct cache_key *key, const struct answer *answer)
{
	struct lookup_own *lookup, *next;

	DL_FOREACH_SAFE (lookups->list, lookup, next) {
		if (lookup->deadline == 0 || !keys_equal(&lookup->key, key))
			continue;
		if (answer && take(lookup, answer))
			go_on(lookup);
		else
			end(lookup);
	}
}

void lookups_again(struct lookups *lookups)
{
	struct lookup_own *lookup, *next;

	DL_FOREACH_SAFE (lookups->list, lookup, next) {
		if (lookup->deadline != 0)
			go_on(lookup);
	}
}

void lookups_open(struct lookups *lookups, uv_loop_t *loop, const struct queries *queries, void *data)
{
	lookups->queries = queries;
	uv_timer_init(loop, &lookups->timer);
	lookups->timer.data = data;
}

void lookups_close(struct lookups *lookups, uv_close_cb closed)
{
	while (lookups->list)
		forget(lookups, lookups->list);
	uv_close((uv_handle_t *)&lookups->timer, closed);
}
