/* SPDX-License-Identifier: MIT */
/*
 * The end of a query: build the reply, grant what it shows, send it.
 *
 * Theory of operation: a reply is built as soon as the answer is judged, so that it is known whether it fits: one that is cut off grants
 * nothing. It waits in `ready`. At the end of the loop turn all of them go through in chunks: one transaction of about QUERY_GRANTS_MAX
 * grants, which the kernel has acknowledged when it returns, then the replies. When a transaction fails, each query of it is
 * tried alone, so that one network's full set does not fail another network's questions; those that still fail get SERVFAIL.
 */

#include "resolver/query.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define CHUNK_QUERIES_MAX 256 /* replies without grants do not wait for ever for those with some */

static uint8_t scratch[MESSAGE_SIZE_MAX];

static size_t reply_limit(const struct client *client, const struct question *question)
{
	if (client->protocol == IPPROTO_TCP)
		return MESSAGE_SIZE_MAX;
	if (!question->edns || question->udp_size <= MESSAGE_UDP_SIZE_PLAIN)
		return MESSAGE_UDP_SIZE_PLAIN;
	return question->udp_size < MESSAGE_UDP_SIZE ? question->udp_size : MESSAGE_UDP_SIZE;
}

/* Build the reply into the query. Return: false when there is no memory: query->wire_size is 0 and nothing will be sent. */
static bool reply_build(struct query *query, const struct answer *answer, int rcode, int ede, bool *truncated)
{
	size_t limit = reply_limit(&query->client, &query->question), size;

	free(query->wire);
	query->wire = NULL;
	query->wire_size = 0;
	*truncated = false;
	size = message_build_reply(&query->question, answer, rcode, ede, limit, truncated, scratch);
	if (!size)
		return false;
	query->wire = malloc(size);
	if (!query->wire)
		return false;
	memcpy(query->wire, scratch, size);
	query->wire_size = size;
	return true;
}

static void reply_ready(struct queries *queries, struct query *query)
{
	query_move(query, QUERY_ANSWERED);
	DL_APPEND2(queries->ready, query, queue_prev, queue_next);
}

void query_reply_code(struct queries *queries, struct query *query, int rcode, int ede)
{
	bool truncated;

	if (rcode == RCODE_SERVFAIL)
		queries->counters->failed++;
	(void)reply_build(query, NULL, rcode, ede, &truncated);
	reply_ready(queries, query);
}

bool query_reply_records(struct queries *queries, struct query *query, const struct answer *answer, int rcode, int ede)
{
	bool truncated;

	if (!reply_build(query, answer, rcode, ede, &truncated)) {
		query_reply_code(queries, query, RCODE_SERVFAIL, EDE_NONE);
		return false;
	}
	reply_ready(queries, query);
	return !truncated;
}

void query_reply_at_once(const struct client *client, const struct question *question, int rcode)
{
	size_t size = message_build_reply(question, NULL, rcode, EDE_NONE, reply_limit(client, question), NULL, scratch);

	(void)listener_reply(client, scratch, size);
}

static bool grants_room(struct queries *queries, size_t wanted)
{
	struct grant *more;

	if (wanted <= queries->grants_max)
		return true;
	more = reallocarray(queries->grants, wanted, sizeof(*more));
	if (!more)
		return false;
	queries->grants = more;
	queries->grants_max = wanted;
	return true;
}

static bool grant_same(const struct grant *a, const struct grant *b)
{
	return a->network == b->network && address_equal(&a->address, &b->address) && a->specs == b->specs && a->audited == b->audited &&
	       domain_equal(a->name, b->name) && chain_equal(&a->chain, &b->chain);
}

/*
 * Add a grant, unless a joined question has the same one already. Joined questions come one after the other, so it is among the latest
 * @near. Return: the new count.
 */
static size_t grants_add(struct grant *grants, size_t count, const struct grant *grant, size_t near)
{
	for (size_t i = count > near ? count - near : 0; i < count; i++) {
		if (!grant_same(&grants[i], grant))
			continue;
		if (grants[i].seconds < grant->seconds)
			grants[i].seconds = grant->seconds;
		return count;
	}
	grants[count] = *grant;
	return count + 1;
}

/* Add what a query's reply shows. Return: the new count. */
static size_t grants_of(struct queries *queries, const struct query *query, size_t count)
{
	const struct network *network = policy_network(queries->policy, query->client.network);

	for (size_t i = 0; network && i < query->shown_count; i++) {
		const struct grant grant = {
			.network = network->id,
			.audited = query->audited,
			.address = query->shown[i].address,
			.name = &query->question.name,
			.chain = {query->names, query->names_length},
			.specs = query->specs,
			.seconds = query->refreshes ? 0 : lifetime_seconds(&network->lifetimes, query->shown[i].ttl),
		};

		count = grants_add(queries->grants, count, &grant, query->shown_count);
	}
	return count;
}

/* Take queries off `ready`, up to a transaction's worth. Return: list by queue_next, in state GRANTING. */
static struct query *chunk_take(struct queries *queries)
{
	struct query *chunk = NULL, *query;
	size_t grants = 0;

	for (unsigned int i = 0; queries->ready && i < CHUNK_QUERIES_MAX; i++) {
		query = queries->ready;
		if (grants && grants + query->shown_count > QUERY_GRANTS_MAX)
			break;
		if (!policy_network(queries->policy, query->client.network)) {
			query_release(queries, query);
			continue;
		}
		grants += query->shown_count;
		DL_DELETE2(queries->ready, query, queue_prev, queue_next);
		DL_APPEND2(chunk, query, queue_prev, queue_next);
		query_move(query, QUERY_GRANTING);
	}
	return chunk;
}

static void grant_failed(struct queries *queries, struct query *query)
{
	bool truncated;

	queries->counters->failed++;
	queries->counters->ungranted++;
	(void)reply_build(query, NULL, RCODE_SERVFAIL, EDE_NONE, &truncated);
}

/* Grant for one query alone. */
static void grant_one(struct queries *queries, struct query *query)
{
	int error = -ENOMEM;

	if (!query->shown_count)
		return;
	if (grants_room(queries, query->shown_count))
		error = queries->host->grant(queries->host->context, queries->grants, grants_of(queries, query, 0));
	if (error)
		grant_failed(queries, query);
}

static void chunk_grant(struct queries *queries, struct query *chunk)
{
	struct query *query;
	size_t count = 0, wanted = 0;
	int error = -ENOMEM;

	DL_FOREACH2(chunk, query, queue_next)
	wanted += query->shown_count;
	if (!wanted)
		return;
	if (grants_room(queries, wanted)) {
		DL_FOREACH2(chunk, query, queue_next)
		count = grants_of(queries, query, count);
		error = queries->host->grant(queries->host->context, queries->grants, count);
	}
	if (!error)
		return;
	DL_FOREACH2(chunk, query, queue_next)
	grant_one(queries, query);
}

static void chunk_send(struct queries *queries, struct query *chunk)
{
	struct query *query, *next;

	for (query = chunk; query; query = next) {
		next = query->queue_next;
		if (query->wire_size) {
			(void)listener_reply(&query->client, query->wire, query->wire_size);
			query_move(query, QUERY_REPLIED);
		}
		query_release(queries, query);
	}
}

void query_reply_all(struct queries *queries)
{
	/* Replies over TCP may bring up further questions of the same connection: those that are answered at once are served here, too. */
	while (queries->ready) {
		struct query *chunk = chunk_take(queries);

		chunk_grant(queries, chunk);
		chunk_send(queries, chunk);
	}
}
