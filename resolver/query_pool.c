/* SPDX-License-Identifier: MIT */
/*
 * Queries as memory, and the lists that they are in.
 *
 * Theory of operation: queries are made in blocks that are kept, up to QUERIES_MAX; each is either free or `active`. `active` is in the
 * order of arrival, so that the deadline needs to look at its head only. Queries with the same key wait together: one
 * query_wait per look-up, found by key. No network may use up what all share, and no source what its network has (shares.h): a network may
 * have as many questions and look-ups as are still free, a source three times what its network has left. Only what waits is counted by
 * source, as nothing else can pile up.
 */

#include "resolver/query.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define BLOCK_QUERIES 64
#define NETWORK_IDS   (UINT16_MAX + 1)

struct query_block {
	struct query_block *next;
	struct query queries[BLOCK_QUERIES];
};

static_assert(QUERIES_MAX % BLOCK_QUERIES == 0, "the last block would go over the limit");
static_assert(QUERIES_NETWORK_MAX <= UINT16_MAX, "counted in 16 bits");
static_assert(QUERY_FORWARDED_NETWORK_MAX < UPSTREAM_LOOKUPS_MAX, "one network could take all look-ups");

#define TO(state) (1U << (state))

static const unsigned int steps[] = {
	[QUERY_RECEIVED] = TO(QUERY_JUDGED),
	[QUERY_JUDGED] = TO(QUERY_FORWARDED) | TO(QUERY_ANSWERED),
	[QUERY_FORWARDED] = TO(QUERY_JUDGED) | TO(QUERY_ANSWERED),
	[QUERY_ANSWERED] = TO(QUERY_GRANTING),
	[QUERY_GRANTING] = TO(QUERY_REPLIED),
	[QUERY_REPLIED] = 0,
};
static_assert(sizeof(steps) / sizeof(steps[0]) == QUERY_STATE_COUNT, "one row per state");

void query_move(struct query *query, enum query_state state)
{
	assert(steps[query->state] & TO(state));
	query->state = state;
}

int query_pool_open(struct queries *queries)
{
	queries->active_of = calloc(NETWORK_IDS, sizeof(*queries->active_of));
	queries->forwarded_of = calloc(NETWORK_IDS, sizeof(*queries->forwarded_of));
	queries->waiting = calloc(1, sizeof(*queries->waiting));
	queries->started = calloc(1, sizeof(*queries->started));
	return queries->active_of && queries->forwarded_of && queries->waiting && queries->started ? 0 : -ENOMEM;
}

static void pool_grow(struct queries *queries)
{
	struct query_block *block = malloc(sizeof(*block));

	if (!block)
		return;
	block->next = queries->blocks;
	queries->blocks = block;
	for (unsigned int i = 0; i < BLOCK_QUERIES; i++) {
		block->queries[i].next = queries->free;
		queries->free = &block->queries[i];
	}
}

struct query *query_new(struct queries *queries, const struct client *client, const struct question *question)
{
	unsigned int of_network = queries->active_of[client->network];
	struct query *query;

	if (of_network >= QUERIES_NETWORK_MAX || of_network >= QUERIES_MAX - queries->active_count)
		return NULL;
	if (!queries->free)
		pool_grow(queries);
	query = queries->free;
	if (!query)
		return NULL;
	queries->free = query->next;
	memset(query, 0, sizeof(*query));
	query->state = QUERY_RECEIVED;
	query->client = *client;
	query->question = *question;
	query->started = uv_now(queries->loop);
	DL_APPEND(queries->active, query);
	queries->active_count++;
	queries->active_of[client->network]++;
	return query;
}

void query_release(struct queries *queries, struct query *query)
{
	if (query->state == QUERY_ANSWERED)
		DL_DELETE2(queries->ready, query, queue_prev, queue_next);
	query_wait_leave(queries, query);
	if (query->state != QUERY_REPLIED && !query->own) {
		queries->counters->dropped++;
		(void)listener_reply(&query->client, NULL, 0);
	}
	DL_DELETE(queries->active, query);
	queries->active_count--;
	queries->active_of[query->client.network]--;
	answer_free(query->chain);
	free(query->wire);
	free(query->shown);
	free(query->names);
	query->next = queries->free;
	queries->free = query;
	if (query->checked)
		query->checked(query->checked_context);
}

/* May the network have one more look-up under way? @place: of the source that wants it; NULL: the gateway does. */
static bool may_start(const struct queries *queries, uint16_t network, const struct shares_place *place)
{
	unsigned int of_network = queries->forwarded_of[network], all = HASH_COUNT(queries->waits);

	if (all >= UPSTREAM_LOOKUPS_MAX || of_network >= UPSTREAM_LOOKUPS_MAX - all)
		return false;
	return shares_allow(place ? shares_of(queries->started, *place) : 0, of_network, QUERY_FORWARDED_NETWORK_MAX);
}

/* Return: 0, -EBUSY or -ENOMEM. */
static int wait_new(struct queries *queries, uint16_t network, const struct shares_place *place, const struct cache_key *key,
		    struct query_wait **out)
{
	struct query_wait *wait;

	if (!may_start(queries, network, place))
		return -EBUSY;
	wait = malloc(sizeof(*wait)); /* not calloc(): that of older C libraries gives no memory that was just freed */
	if (!wait)
		return -ENOMEM;
	*wait = (struct query_wait){.network = network};
	memcpy(&wait->key, key, sizeof(*key)); /* with its padding: keys are compared as bytes */
	HASH_ADD_BYHASHVALUE(hh, queries->waits, key, sizeof(wait->key), key->hash, wait);
	if (!wait->hh.tbl) {
		free(wait);
		return -ENOMEM;
	}
	queries->forwarded_of[network]++;
	if (place) {
		wait->counted = true;
		wait->place = *place;
		shares_add(queries->started, *place);
	}
	*out = wait;
	return 0;
}

static struct query_wait *wait_find(struct queries *queries, const struct cache_key *key)
{
	struct query_wait *wait;

	HASH_FIND_BYHASHVALUE(hh, queries->waits, key, sizeof(*key), key->hash, wait);
	return wait;
}

static void wait_free(struct queries *queries, struct query_wait *wait)
{
	queries->forwarded_of[wait->network]--;
	if (wait->counted)
		shares_remove(queries->started, wait->place);
	HASH_DEL(queries->waits, wait);
	free(wait);
}

void query_pool_close(struct queries *queries)
{
	struct query_block *block, *next;
	struct query_wait *wait, *next_wait;

	while (queries->active)
		query_release(queries, queries->active);
	HASH_ITER (hh, queries->waits, wait, next_wait)
		wait_free(queries, wait);
	for (block = queries->blocks; block; block = next) {
		next = block->next;
		free(block);
	}
	queries->blocks = NULL;
	queries->free = NULL;
	free(queries->active_of);
	free(queries->forwarded_of);
	free(queries->waiting);
	free(queries->started);
	free(queries->grants);
	queries->active_of = queries->forwarded_of = NULL;
	queries->waiting = queries->started = NULL;
	queries->grants = NULL;
}

int query_wait_join(struct queries *queries, struct query *query, const struct cache_key *key, bool *first)
{
	uint16_t network = query->client.network;
	struct shares_place place = shares_place(network, &query->client.address);
	struct query_wait *wait = wait_find(queries, key);
	int error;

	*first = !wait;
	/* The network's count has this question already, and is below the limit. */
	if (!shares_allow(shares_of(queries->waiting, place), queries->active_of[network] - 1U, QUERIES_NETWORK_MAX))
		return -EBUSY;
	if (!wait) {
		error = wait_new(queries, network, &place, key, &wait);
		if (error)
			return error;
	}
	query->wait = wait;
	query->place = place;
	shares_add(queries->waiting, place);
	DL_APPEND2(wait->queries, query, queue_prev, queue_next);
	query_move(query, QUERY_FORWARDED);
	return 0;
}

int query_wait_begin(struct queries *queries, uint16_t network, const struct cache_key *key)
{
	struct query_wait *wait = wait_find(queries, key);

	return wait ? -EALREADY : wait_new(queries, network, NULL, key, &wait);
}

/* It waits no longer. */
static void wait_over(struct queries *queries, struct query *query)
{
	shares_remove(queries->waiting, query->place);
	query->wait = NULL;
}

void query_wait_leave(struct queries *queries, struct query *query)
{
	if (!query->wait)
		return;
	/* The wait itself stays, also without queries, until its look-up ends or is cancelled: the upstream is still busy with it. */
	DL_DELETE2(query->wait->queries, query, queue_prev, queue_next);
	wait_over(queries, query);
}

struct query *query_wait_end(struct queries *queries, const struct cache_key *key)
{
	struct query_wait *wait = wait_find(queries, key);
	struct query *list, *query;

	if (!wait)
		return NULL;
	list = wait->queries;
	DL_FOREACH2(list, query, queue_next)
	wait_over(queries, query);
	wait_free(queries, wait);
	return list;
}

void query_wait_cancel(struct queries *queries)
{
	struct query_wait *wait, *next;

	HASH_ITER (hh, queries->waits, wait, next) {
		if (wait->queries)
			continue;
		upstream_cancel(queries->upstream, &wait->key);
		wait_free(queries, wait);
	}
}

void query_forget_listener(struct queries *queries, const void *listener)
{
	struct query *query, *next;

	DL_FOREACH_SAFE (queries->active, query, next) {
		if (query->client.listener != listener)
			continue;
		query->client.listener = NULL;
		query_release(queries, query);
	}
	query_wait_cancel(queries);
}
