/* SPDX-License-Identifier: MIT */
/*
 * Upstreams: choose a server, ask, match the answer, retry.
 *
 * Theory of operation: a lookup is one key that somebody waits for; a try is one query of it that was sent to one server. A try
 * is found by socket and id when a datagram comes, and the datagram counts only if it comes from that server's address and port and
 * repeats the query: id, question, and the random case of its letters. Anything else is ignored and the try goes on waiting, so that a
 * forged packet can neither answer nor end a lookup. A late answer to an earlier try of a lookup is as good as one to the last.
 *
 * Tries are queued, and sent together at the end of the turn of the loop (upstream_sockets.c). One that cannot be sent is the same as a
 * server that cannot be asked: the next one is. A lookup that ends before that takes its queued tries with it.
 *
 * A server with TLS is asked over one connection that stays (upstream_dot.c); all servers of a group have it, or none, so nothing here
 * can lead from an encrypted question to one in clear.
 *
 * When a server has said nothing for UPSTREAM_RETRY_MS the next one is asked (the same one, when it is alone). One that says that it cannot
 * answer (SERVFAIL, REFUSED, ...) makes us ask the next one at once; when all have said so, the lookup ends in SERVFAIL. TC leads to the
 * same question over TCP. UPSTREAM_DEADLINE_MS after its start a lookup ends in any case.
 *
 * Some servers and boxes on the way answer in lower case whatever the question's case was. Two such messages for one lookup lead to the
 * same question without 0x20; a server that answers it is asked so for UPSTREAM_PLAIN_MS. Who forges them has guessed port and id twice by
 * then.
 *
 * One timer serves all: `lookups` is ordered by start, `due` by the next retry (always UPSTREAM_RETRY_MS after it was put at the
 * end), `tries` by when they were sent.
 */

#include "resolver/upstream_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <utlist.h>

#define ID_ATTEMPTS 16 /* random ids on one socket before we give up: at most a few of 65536 are in flight */
#define NO_SERVER   UINT32_MAX

int upstream_random(struct upstream *upstream, void *out, size_t size)
{
	if (upstream->random_left < size) {
		ssize_t got;

		do {
			got = getrandom(upstream->random, sizeof(upstream->random), 0);
		} while (got < 0 && errno == EINTR);
		if (got < (ssize_t)size)
			return got < 0 ? -errno : -EIO;
		upstream->random_left = (size_t)got;
	}
	upstream->random_left -= size;
	memcpy(out, upstream->random + upstream->random_left, size);
	return 0;
}

/* Return: the server to be asked after @from: a healthy one if there is one, never one that refused; NO_SERVER: all have. */
static unsigned int server_after(struct upstream *upstream, const struct lookup *lookup, unsigned int from)
{
	unsigned int fallback = NO_SERVER, count = (unsigned int)lookup->group->count;

	for (unsigned int i = 1; i <= count; i++) {
		unsigned int index = (from + i) % count;

		if (lookup->refused & 1U << index)
			continue;
		if (!upstream_servers_failed(upstream, &lookup->group->servers[index]))
			return index;
		if (fallback == NO_SERVER)
			fallback = index;
	}
	return fallback;
}

/* --- tries --- */

static void try_free(struct upstream *upstream, struct upstream_try *try)
{
	if (try->queued)
		upstream_sockets_unqueue(try);
	HASH_DEL(upstream->by_id, try);
	DL_DELETE(upstream->tries, try);
	if (try->lookup)
		DL_DELETE2(try->lookup->tries, try, lookup_prev, lookup_next);
	try->socket->in_flight--;
	free(try);
}

/* Whatever ids others send, those in the table are ours, and random. */
static unsigned int try_hash(const struct try_key *key)
{
	return (unsigned int)(key->id ^ key->socket * 0x9e3779b1U);
}

/* Find an id that is free on the socket. Return: 0 or -errno. */
static int try_id(struct upstream *upstream, struct upstream_try *try)
{
	for (unsigned int i = 0; i < ID_ATTEMPTS; i++) {
		struct upstream_try *other;
		uint16_t id = 0;
		int error = upstream_random(upstream, &id, sizeof(id));

		if (error)
			return error;
		try->key = (struct try_key){.socket = try->socket->serial, .id = id};
		HASH_FIND_BYHASHVALUE(hh, upstream->by_id, &try->key, sizeof(try->key), try_hash(&try->key), other);
		if (!other)
			return 0;
	}
	return -EBUSY;
}

static int try_build(struct upstream *upstream, struct upstream_try *try, const struct cache_key *key)
{
	uint8_t randomise[(DOMAIN_WIRE_MAX + 7) / 8]; /* a bit for each octet of the name */
	int error = upstream_sockets_choose(upstream, try->server.address.family, &try->socket);

	if (!error)
		error = try_id(upstream, try);
	if (!error)
		error = upstream_random(upstream, randomise, (key->name.length + 7U) / 8);
	if (error)
		return error;
	try->query_size = message_build_query((uint16_t)try->key.id, &key->name, key->type, key->dnssec_ok, key->checking_disabled,
					      try->plain ? NULL : randomise, try->query, sizeof(try->query));
	return try->query_size ? 0 : -EINVAL;
}

/* Make room for another try: the oldest ones go. */
static void tries_trim(struct upstream *upstream)
{
	while (HASH_COUNT(upstream->by_id) >= UPSTREAM_TRIES_MAX)
		try_free(upstream, upstream->tries);
}

/* Ask one server over UDP, with the next flush. Return: 0, or -errno: nothing will be sent. */
static int try_new(struct upstream *upstream, struct lookup *lookup, unsigned int index)
{
	struct upstream_try *try = malloc(sizeof(*try)); /* not calloc(): that of older C libraries gives no memory that was just freed */
	int error;

	if (!try)
		return -ENOMEM;
	*try = (struct upstream_try){.server = lookup->group->servers[index], .index = index, .sent = uv_now(upstream->loop)};
	try->plain = lookup->plain || upstream_servers_plain(upstream, &try->server);
	error = try_build(upstream, try, &lookup->key);
	if (!error) {
		tries_trim(upstream);
		HASH_ADD_BYHASHVALUE(hh, upstream->by_id, key, sizeof(try->key), try_hash(&try->key), try);
		error = try->hh.tbl ? 0 : -ENOMEM;
	}
	if (error) {
		free(try);
		return error;
	}
	try->lookup = lookup;
	try->socket->uses++;
	try->socket->in_flight++;
	DL_APPEND(upstream->tries, try);
	DL_APPEND2(lookup->tries, try, lookup_prev, lookup_next);
	upstream_sockets_queue(try);
	return 0;
}

/* --- the timer --- */

static void on_timer(uv_timer_t *timer);

/* Wake when the next thing is due. A timer that comes too early does no harm, so it is never put off. */
static void timer_arm(struct upstream *upstream)
{
	uint64_t now = uv_now(upstream->loop), next = UINT64_MAX, wait;

	if (upstream->due)
		next = upstream->due->due;
	if (upstream->lookups && upstream->lookups->started + UPSTREAM_DEADLINE_MS < next)
		next = upstream->lookups->started + UPSTREAM_DEADLINE_MS;
	if (upstream->tries && upstream->tries->sent + UPSTREAM_DEADLINE_MS < next)
		next = upstream->tries->sent + UPSTREAM_DEADLINE_MS;
	if (next == UINT64_MAX || upstream->closing)
		return;
	wait = next > now ? next - now : 0;
	if (!uv_is_active((const uv_handle_t *)&upstream->timer) || uv_timer_get_due_in(&upstream->timer) > wait)
		uv_timer_start(&upstream->timer, on_timer, wait, 0);
}

/* --- lookups --- */

static void lookup_retry_later(struct upstream *upstream, struct lookup *lookup)
{
	DL_DELETE2(upstream->due, lookup, due_prev, due_next);
	lookup->due = uv_now(upstream->loop) + UPSTREAM_RETRY_MS;
	DL_APPEND2(upstream->due, lookup, due_prev, due_next);
}

static void lookup_free(struct upstream *upstream, struct lookup *lookup)
{
	struct upstream_try *try, *next;

	HASH_DEL(upstream->by_key, lookup);
	DL_DELETE(upstream->lookups, lookup);
	DL_DELETE2(upstream->due, lookup, due_prev, due_next);
	for (try = lookup->tries; try; try = next) {
		next = try->lookup_next;
		if (try->queued)
			try_free(upstream, try);
		else
			try->lookup = NULL; /* it stays until it is answered or too old */
	}
	if (lookup->tcp)
		upstream_tcp_abandon(lookup->tcp);
	upstream_dot_abandon(lookup);
	free(lookup);
}

static void lookup_end(struct upstream *upstream, struct lookup *lookup, struct answer *answer)
{
	struct cache_key key;

	memcpy(&key, &lookup->key, sizeof(key)); /* with its padding: keys are compared as bytes */
	lookup_free(upstream, lookup);
	upstream->done(upstream->context, &key, answer);
}

/* Return: 0, or -errno: the question is not on its way. */
static int server_ask(struct upstream *upstream, struct lookup *lookup, unsigned int index)
{
	return lookup->group->dots[index] ? upstream_dot_ask(lookup->group->dots[index], lookup, index) : try_new(upstream, lookup, index);
}

/* A query cannot be sent to this server. */
static void server_unreachable(struct upstream *upstream, const struct upstream_server *server, int error)
{
	if (error != -EAGAIN && error != -ENOMEM)
		upstream_servers_failing(upstream, server, UINT64_MAX);
}

/* Go on from server @index while there are chances. */
static void lookup_go_on(struct upstream *upstream, struct lookup *lookup, unsigned int index)
{
	while (lookup->chances && index != NO_SERVER) {
		int error = server_ask(upstream, lookup, index);

		lookup->chances--;
		lookup->current = index;
		if (!error)
			break;
		server_unreachable(upstream, &lookup->group->servers[index], error);
		index = server_after(upstream, lookup, index);
	}
	/* Also when nothing could be sent: the network may be back before the deadline. */
	lookup_retry_later(upstream, lookup);
}

/* Ask server @index, or the next one that a query can be sent to. */
static void lookup_ask(struct upstream *upstream, struct lookup *lookup, unsigned int index)
{
	lookup->chances = (unsigned int)lookup->group->count;
	lookup_go_on(upstream, lookup, index);
}

/* A queued try cannot be sent. */
static void try_unsent(struct upstream *upstream, struct upstream_try *try, int error)
{
	struct lookup *lookup = try->lookup; /* queued tries have one */
	unsigned int index = try->index;

	server_unreachable(upstream, &try->server, error);
	try_free(upstream, try);
	if (index == lookup->current) /* else: it was a probe, or the lookup is elsewhere by now */
		lookup_go_on(upstream, lookup, server_after(upstream, lookup, index));
}

static void pool_flush(struct upstream *upstream, struct socket_pool *pool)
{
	while (pool->queue) {
		int sent = upstream_sockets_send(pool);

		if (sent < 0) /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): try_free() takes a try off its queue */
			try_unsent(upstream, pool->queue, sent);
		for (int i = 0; i < sent; i++) /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): as above */
			upstream_sockets_unqueue(pool->queue);
		upstream->counters.sent += sent > 0 ? (unsigned int)sent : 0;
	}
	pool->turn = NULL;
}

void upstream_flush(struct upstream *upstream)
{
	upstream->pool4.turn = upstream->pool6.turn = NULL;
	if (!upstream->pool4.queue && !upstream->pool6.queue)
		return; /* as mostly */
	/* What cannot be sent in one family may lead to a server of the other. */
	do {
		pool_flush(upstream, &upstream->pool4);
		pool_flush(upstream, &upstream->pool6);
	} while (upstream->pool4.queue);
}

/* Ask one server that failed, and whose time has come, beside the one that was chosen. */
static void lookup_probe(struct upstream *upstream, struct lookup *lookup)
{
	uint64_t now = uv_now(upstream->loop);

	for (unsigned int i = 0; i < lookup->group->count; i++) {
		struct server_health *health = upstream_servers_health(upstream, &lookup->group->servers[i]);

		if (i == lookup->current || !health || !health->failed || health->probe_at > now)
			continue;
		health->probe_at = now + UPSTREAM_PROBE_MS;
		(void)server_ask(upstream, lookup, i); /* when it cannot be sent, the server is still failing */
		return;
	}
}

/* The server at @index will not or cannot answer. */
static void lookup_refused(struct upstream *upstream, struct lookup *lookup, unsigned int index)
{
	unsigned int next;

	lookup->refused |= 1U << index;
	next = server_after(upstream, lookup, index);
	if (next == NO_SERVER)
		lookup_end(upstream, lookup, answer_new(RCODE_SERVFAIL, 0, 0));
	else
		lookup_ask(upstream, lookup, next);
}

/* The server at @index has an answer that is too long for UDP. */
static void lookup_truncated(struct upstream *upstream, struct lookup *lookup, unsigned int index)
{
	int error = 0;

	if (!lookup->tcp || lookup->tcp_index != index) /* else: it said so again, to a later try */
		error = upstream_tcp_ask(upstream, lookup, index);
	/* Too many connections: in a while there may be room. Any other error is as final as a refusal, or we would go round in circles. */
	if (!error || error == -EBUSY)
		lookup_retry_later(upstream, lookup);
	else
		lookup_refused(upstream, lookup, index);
}

/* Take an answer from server @index. Owns @answer. */
static void lookup_answered(struct upstream *upstream, struct lookup *lookup, unsigned int index, struct answer *answer)
{
	if (answer->rcode == RCODE_NOERROR || answer->rcode == RCODE_NXDOMAIN) {
		lookup_end(upstream, lookup, answer);
		return;
	}
	answer_free(answer);
	lookup_refused(upstream, lookup, index);
}

void upstream_unanswered(struct lookup *lookup, struct upstream *upstream, unsigned int index, bool refused)
{
	upstream_servers_failing(upstream, &lookup->group->servers[index], UINT64_MAX);
	if (refused)
		lookup_refused(upstream, lookup, index);
	else
		lookup_ask(upstream, lookup, server_after(upstream, lookup, index));
	timer_arm(upstream);
}

void upstream_answered_stream(struct lookup *lookup, struct upstream *upstream, unsigned int index, struct answer *answer)
{
	if (!answer || answer->truncated) { /* on a stream, TC says nothing */
		answer_free(answer);
		lookup_refused(upstream, lookup, index);
	} else {
		upstream_servers_answered(upstream, &lookup->group->servers[index]);
		lookup_answered(upstream, lookup, index, answer);
	}
	timer_arm(upstream);
}

/* Does a message repeat the question of a query, but for the letters' case? */
static bool repeats_folded(const uint8_t *wire, size_t size, const uint8_t *query, size_t query_size)
{
	struct domain asked, given;
	size_t length = domain_from_wire(query + 12, query_size - 12, &asked);

	return wire[2] & 0x80 && size >= 12 + length + 4 && domain_from_wire(wire + 12, size - 12, &given) == length &&
	       domain_equal(&asked, &given) && !memcmp(wire + 12 + length, query + 12 + length, 4);
}

/*
 * A message from the right server with the right id is no answer. When only the letters' case is wrong it is not used either, but
 * after some of them 0x20 must be what is wrong: the server may be one that does not keep the case.
 */
static void try_mismatched(struct upstream *upstream, struct upstream_try *try, const uint8_t *wire, size_t size)
{
	struct lookup *lookup = try->lookup;
	const struct server_health *health;

	if (!lookup || try->plain || try->folded || !repeats_folded(wire, size, try->query, try->query_size))
		return;
	try->folded = true;
	upstream->counters.folded++;
	lookup->folding |= 1U << try->index;
	lookup->folded++;
	health = upstream_servers_health(upstream, &try->server);
	if (lookup->plain || (lookup->folded < UPSTREAM_FOLDED_MAX && !(health && health->plain_until)))
		return;
	lookup->plain = true;
	lookup_ask(upstream, lookup, try->index);
	timer_arm(upstream);
}

static bool came_from(const struct sockaddr *from, const struct upstream_server *server)
{
	struct address address;
	uint16_t port;

	return address_from_sockaddr(from, &address, &port) && port == server->port && address_equal(&address, &server->address);
}

void upstream_received(struct upstream *upstream, struct upstream_socket *socket, const struct sockaddr *from, const uint8_t *wire,
		       size_t size)
{
	struct try_key key = {.socket = socket->serial};
	struct upstream_try *try = NULL;
	struct lookup *lookup;
	struct answer *answer = NULL;
	unsigned int index;

	if (size >= 12) {
		key.id = message_peek_id(wire);
		HASH_FIND_BYHASHVALUE(hh, upstream->by_id, &key, sizeof(key), try_hash(&key), try);
	}
	if (try && !try->queued && came_from(from, &try->server)) {
		answer = message_parse_answer(wire, size, try->query, try->query_size);
		if (!answer)
			try_mismatched(upstream, try, wire, size);
	}
	if (!answer) {
		upstream->counters.ignored++;
		return;
	}
	upstream_servers_answered(upstream, &try->server);
	lookup = try->lookup;
	index = try->index;
	if (lookup && try->plain && lookup->folding & 1U << index)
		upstream_servers_folds(upstream, &try->server);
	try_free(upstream, try);
	if (!lookup) {
		answer_free(answer);
	} else if (answer->truncated) {
		answer_free(answer);
		lookup_truncated(upstream, lookup, index);
	} else {
		lookup_answered(upstream, lookup, index, answer);
	}
	timer_arm(upstream);
}

/* The server asked last has been silent for too long. */
static void lookup_retry(struct upstream *upstream, struct lookup *lookup)
{
	upstream->counters.timeouts++;
	upstream_servers_failing(upstream, &lookup->group->servers[lookup->current], uv_now(upstream->loop) - UPSTREAM_RETRY_MS);
	lookup_ask(upstream, lookup, server_after(upstream, lookup, lookup->current));
}

static void on_timer(uv_timer_t *timer)
{
	struct upstream *upstream = timer->data;
	uint64_t now = uv_now(upstream->loop);

	if (upstream->closing)
		return;
	while (upstream->lookups && upstream->lookups->started + UPSTREAM_DEADLINE_MS <= now)
		lookup_end(upstream, upstream->lookups, NULL);
	while (upstream->due && upstream->due->due <= now)
		lookup_retry(upstream, upstream->due);
	while (upstream->tries && upstream->tries->sent + UPSTREAM_DEADLINE_MS <= now)
		try_free(upstream, upstream->tries);
	timer_arm(upstream);
}

static struct lookup *lookup_new(struct upstream *upstream, const struct cache_key *key, const struct upstream_group_servers *group)
{
	struct lookup *lookup = malloc(sizeof(*lookup)); /* as in try_new() */

	if (!lookup)
		return NULL;
	*lookup = (struct lookup){.group = group, .started = uv_now(upstream->loop)};
	memcpy(&lookup->key, key, sizeof(*key)); /* with its padding */
	HASH_ADD_BYHASHVALUE(hh, upstream->by_key, key, sizeof(lookup->key), key->hash, lookup);
	if (!lookup->hh.tbl) {
		free(lookup);
		return NULL;
	}
	DL_APPEND(upstream->lookups, lookup);
	DL_APPEND2(upstream->due, lookup, due_prev, due_next);
	return lookup;
}

int upstream_ask(struct upstream *upstream, const struct cache_key *key)
{
	const struct upstream_group_servers *group = upstream_servers_of(upstream, key->upstream);
	struct lookup *lookup;

	HASH_FIND_BYHASHVALUE(hh, upstream->by_key, key, sizeof(*key), key->hash, lookup);
	if (lookup)
		return 0;
	if (upstream->closing)
		return -ECANCELED;
	if (!group || !group->count)
		return -ENOENT;
	if (HASH_COUNT(upstream->by_key) >= UPSTREAM_LOOKUPS_MAX)
		return -EBUSY;
	lookup = lookup_new(upstream, key, group);
	if (!lookup)
		return -ENOMEM;
	/* The first healthy one in the order of the policy; server_after() begins behind its argument. */
	lookup_ask(upstream, lookup, server_after(upstream, lookup, (unsigned int)group->count - 1));
	lookup_probe(upstream, lookup);
	timer_arm(upstream);
	return 0;
}

void upstream_cancel(struct upstream *upstream, const struct cache_key *key)
{
	struct lookup *lookup;

	HASH_FIND_BYHASHVALUE(hh, upstream->by_key, key, sizeof(*key), key->hash, lookup);
	if (lookup)
		lookup_free(upstream, lookup);
}

size_t upstream_in_flight(const struct upstream *upstream)
{
	return HASH_COUNT(upstream->by_key);
}

const struct upstream_counters *upstream_counters(const struct upstream *upstream)
{
	return &upstream->counters;
}

/* --- life --- */

void upstream_give_up(struct upstream *upstream)
{
	while (upstream->lookups)
		lookup_free(upstream, upstream->lookups);
}

void upstream_handle_closed(struct upstream *upstream)
{
	if (!--upstream->open_handles && upstream->closing)
		free(upstream);
}

static void on_timer_closed(uv_handle_t *handle)
{
	upstream_handle_closed(handle->data);
}

struct upstream *upstream_new(uv_loop_t *loop, upstream_done done, upstream_say say, void *context)
{
	struct upstream *upstream = calloc(1, sizeof(*upstream));

	if (!upstream)
		return NULL;
	upstream->loop = loop;
	upstream->done = done;
	upstream->say = say;
	upstream->context = context;
	upstream->pool4.family = AF_INET;
	upstream->pool6.family = AF_INET6;
	uv_timer_init(loop, &upstream->timer);
	upstream->timer.data = upstream;
	upstream->open_handles = 1;
	return upstream;
}

void upstream_close(struct upstream *upstream)
{
	if (upstream->closing)
		return;
	upstream->closing = true;
	upstream_give_up(upstream);
	while (upstream->tries)
		try_free(upstream, upstream->tries);
	upstream_servers_close(upstream);
	upstream_tcp_close(upstream);
	upstream_sockets_close(upstream);
	uv_close((uv_handle_t *)&upstream->timer, on_timer_closed);
}
