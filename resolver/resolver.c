/* SPDX-License-Identifier: MIT */
/*
 * The forwarder as a whole: who listens where, which policy is in force, and the turn of the loop.
 *
 * Theory of operation: everything that becomes ready in a turn of the loop is granted, replied to and sent together: after polling
 * (uv_check) what packets have brought about, and before polling (uv_prepare) what timers have, so that nothing ready waits through a poll.
 */

#include "resolver/resolver.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"
#include "resolver/lookup.h"
#include "resolver/query.h"

#define DNS_PORT 53

/* The two listeners of one port. */
struct door {
	struct listener_udp *udp; /* owned */
	struct listener_tcp *tcp; /* owned */
};

/* The ports of one gateway address. */
struct place {
	struct address address;
	uint16_t network;
	struct door doors[2];
	size_t door_count;
	UT_hash_handle hh;
};

struct resolver {
	struct resolver_host host;
	struct resolver_counters counters;
	struct queries queries;
	struct lookups lookups;
	struct place *places;  /* owned; by address */
	struct pollfd *polled; /* owned; room for `polled_room` doors */
	size_t polled_room;
	uv_prepare_t prepare;
	uv_check_t check;
	uv_timer_t timer; /* the queries' deadline */
	bool closing;
	unsigned int open_handles;
};

static void on_deadline(uv_timer_t *timer)
{
	struct resolver *resolver = timer->data;
	uint64_t wait;

	if (resolver->closing)
		return;
	wait = query_expire(&resolver->queries);
	if (wait)
		uv_timer_start(timer, on_deadline, wait, 0);
}

static void send_ready(struct resolver *resolver)
{
	upstream_flush(resolver->queries.upstream); /* first: servers work while we grant */
	query_reply_all(&resolver->queries);
	upstream_flush(resolver->queries.upstream); /* replies over TCP may have made room for further questions */
	listener_udp_flush();
}

static void end_of_turn(struct resolver *resolver)
{
	if (resolver->closing)
		return;
	send_ready(resolver);
	resolver->counters.ignored = upstream_counters(resolver->queries.upstream)->ignored;
	if (resolver->queries.active && !uv_is_active((const uv_handle_t *)&resolver->timer))
		uv_timer_start(&resolver->timer, on_deadline, QUERY_DEADLINE_MS, 0);
}

static void on_prepare(uv_prepare_t *prepare)
{
	end_of_turn(prepare->data);
}

static void on_check(uv_check_t *check)
{
	end_of_turn(check->data);
}

/* Everything but the handles of its own. */
static void queries_close(struct resolver *resolver)
{
	query_pool_close(&resolver->queries);
	if (resolver->queries.upstream)
		upstream_close(resolver->queries.upstream);
	if (resolver->queries.cache)
		cache_free(resolver->queries.cache);
	new_names_free(resolver->queries.new_names);
	resolver->queries.upstream = NULL;
	resolver->queries.cache = NULL;
	resolver->queries.new_names = NULL;
}

/* upstream_done */
static void on_looked_up(void *context, const struct cache_key *key, struct answer *answer)
{
	struct resolver *resolver = context;

	lookups_answered(&resolver->lookups, key, answer);
	query_looked_up(&resolver->queries, key, answer);
}

/* upstream_say */
static void on_upstream_says(void *context, bool trouble, const char *text)
{
	struct resolver *resolver = context;

	query_upstream_says(&resolver->queries, trouble, text);
}

static int queries_open(struct resolver *resolver, uv_loop_t *loop, const struct policy *policy)
{
	struct queries *queries = &resolver->queries;
	int error;

	queries->loop = loop;
	queries->policy = policy;
	queries->host = &resolver->host;
	queries->counters = &resolver->counters;
	queries->cache = cache_new(CACHE_BYTES_MAX);
	queries->new_names = new_names_new();
	queries->upstream = upstream_new(loop, on_looked_up, on_upstream_says, resolver);
	error = query_pool_open(queries);
	if (!queries->cache || !queries->new_names || !queries->upstream || error)
		return -ENOMEM;
	return upstream_set_groups(queries->upstream, policy);
}

struct resolver *resolver_new(uv_loop_t *loop, const struct policy *policy, const struct resolver_host *host)
{
	struct resolver *resolver = calloc(1, sizeof(*resolver));

	if (!resolver)
		return NULL;
	resolver->host = *host;
	if (!resolver->host.port)
		resolver->host.port = DNS_PORT;
	if (queries_open(resolver, loop, policy)) {
		queries_close(resolver);
		free(resolver);
		return NULL;
	}
	uv_prepare_init(loop, &resolver->prepare);
	uv_check_init(loop, &resolver->check);
	uv_timer_init(loop, &resolver->timer);
	resolver->prepare.data = resolver->check.data = resolver->timer.data = resolver;
	lookups_open(&resolver->lookups, loop, &resolver->queries, resolver);
	resolver->open_handles = 4;
	uv_prepare_start(&resolver->prepare, on_prepare);
	uv_check_start(&resolver->check, on_check);
	return resolver;
}

static struct place *place_find(struct resolver *resolver, const struct address *address)
{
	struct place *place;

	HASH_FIND(hh, resolver->places, address, sizeof(*address), place);
	return place;
}

static void door_close(struct resolver *resolver, const struct door *door)
{
	query_forget_listener(&resolver->queries, door->udp);
	query_forget_listener(&resolver->queries, door->tcp);
	listener_udp_close(door->udp);
	listener_tcp_close(door->tcp);
}

static int door_open(struct resolver *resolver, const struct place *place, uint16_t port, struct door *door)
{
	const struct listener_user user = {
		.network = place->network,
		.receive = query_receive,
		.context = &resolver->queries,
		.dropped = &resolver->counters.dropped,
		.crowded = &resolver->counters.crowded,
		.crowded_by = &resolver->counters.crowded_by,
	};
	uv_loop_t *loop = resolver->queries.loop;
	int error = listener_udp_new(loop, &place->address, port, &user, &door->udp);

	if (error)
		return error;
	error = listener_tcp_new(loop, &place->address, port, &user, &door->tcp);
	if (error)
		listener_udp_close(door->udp);
	return error;
}

/* It is in no list. */
static void place_free(struct resolver *resolver, struct place *place)
{
	for (size_t i = 0; i < place->door_count; i++)
		door_close(resolver, &place->doors[i]);
	free(place);
}

static int place_open(struct resolver *resolver, struct place *place)
{
	const uint16_t ports[] = {resolver->host.port, resolver->host.redirect_port};

	for (size_t i = 0; i < sizeof(ports) / sizeof(ports[0]) && ports[i]; i++) {
		int error = door_open(resolver, place, ports[i], &place->doors[i]);

		if (error)
			return error;
		place->door_count++;
	}
	return 0;
}

static void place_close(struct resolver *resolver, struct place *place)
{
	HASH_DEL(resolver->places, place);
	place_free(resolver, place);
}

int resolver_listen(struct resolver *resolver, uint16_t network, const struct address *address)
{
	struct place *place = place_find(resolver, address);
	int error;

	if (place && place->network == network)
		return 0;
	if (place)
		place_close(resolver, place);
	place = calloc(1, sizeof(*place));
	if (!place)
		return -ENOMEM;
	place->network = network;
	place->address = *address;
	error = place_open(resolver, place);
	if (!error) {
		HASH_ADD(hh, resolver->places, address, sizeof(place->address), place);
		error = place->hh.tbl ? 0 : -ENOMEM;
	}
	if (error)
		place_free(resolver, place);
	return error;
}

void resolver_unlisten(struct resolver *resolver, const struct address *address)
{
	struct place *place = place_find(resolver, address);

	if (place)
		place_close(resolver, place);
}

static bool prefixes_equal(const struct prefix *a, const struct prefix *b, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (a[i].length != b[i].length || !address_equal(&a[i].address, &b[i].address))
			return false;
	}
	return true;
}

static bool groups_equal(const struct upstream_group *a, const struct upstream_group *b)
{
	if (strcmp(a->name, b->name) || a->server_count != b->server_count || a->private_count != b->private_count)
		return false;
	for (size_t i = 0; i < a->server_count; i++) {
		if (!policy_server_equal(&a->servers[i], &b->servers[i]))
			return false;
	}
	if (!a->ca != !b->ca || (a->ca && strcmp(a->ca, b->ca) != 0))
		return false;
	return prefixes_equal(a->privates, b->privates, a->private_count);
}

/* `match` is not compared: it chooses the group, and the group's name is part of the key. */
static bool upstreams_equal(const struct policy *a, const struct policy *b)
{
	if (a->upstream_count != b->upstream_count)
		return false;
	for (size_t i = 0; i < a->upstream_count; i++) {
		if (!groups_equal(&a->upstreams[i], &b->upstreams[i]))
			return false;
	}
	return true;
}

/* Ask for all doors at once which have something: there may be hundreds. Return: has one of them? */
static bool poll_doors(struct resolver *resolver)
{
	size_t room = HASH_COUNT(resolver->places) * (sizeof(resolver->places->doors) / sizeof(resolver->places->doors[0])), count = 0;
	struct place *place, *next;

	if (room > resolver->polled_room) {
		struct pollfd *grown = realloc(resolver->polled, room * sizeof(*grown));

		if (!grown)
			return false;
		resolver->polled = grown;
		resolver->polled_room = room;
	}
	HASH_ITER (hh, resolver->places, place, next) {
		for (size_t i = 0; i < place->door_count; i++)
			resolver->polled[count++] = (struct pollfd){.fd = listener_udp_fd(place->doors[i].udp), .events = POLLIN};
	}
	return count > 0 && poll(resolver->polled, count, 0) > 0;
}

/* In the order of poll_doors(); nobody opens or closes doors meanwhile. */
static void receive_polled(struct resolver *resolver)
{
	const struct pollfd *polled = resolver->polled;
	struct place *place, *next;

	HASH_ITER (hh, resolver->places, place, next) {
		for (size_t i = 0; i < place->door_count; i++, polled++) {
			if (polled->revents)
				listener_udp_receive(place->doors[i].udp);
		}
	}
}

void resolver_serve(struct resolver *resolver)
{
	uv_update_time(resolver->queries.loop);
	if (poll_doors(resolver))
		receive_polled(resolver);
	upstream_receive(resolver->queries.upstream);
	send_ready(resolver);
}

void resolver_flush(struct resolver *resolver)
{
	send_ready(resolver);
}

int resolver_set_policy(struct resolver *resolver, const struct policy *policy)
{
	struct queries *queries = &resolver->queries;
	struct place *place, *next;
	bool elsewhere = !upstreams_equal(queries->policy, policy);
	int error;

	if (elsewhere) {
		error = upstream_set_groups(queries->upstream, policy);
		if (error)
			return error;
		cache_clear(queries->cache);
	}
	queries->policy = policy;
	new_names_set_policy(queries->new_names, policy, uv_now(queries->loop));
	HASH_ITER (hh, resolver->places, place, next) {
		if (!policy_network(policy, place->network))
			place_close(resolver, place);
	}
	query_judge_again(queries, elsewhere);
	if (elsewhere)
		lookups_again(&resolver->lookups);
	return 0;
}

int resolver_check(struct resolver *resolver, uint16_t network, const struct domain *name, uint16_t type, resolver_checked done,
		   void *context)
{
	return query_check(&resolver->queries, network, name, type, false, done, context);
}

int resolver_refresh(struct resolver *resolver, uint16_t network, const struct domain *name, uint16_t type)
{
	return query_check(&resolver->queries, network, name, type, true, NULL, NULL);
}

int resolver_lookup(struct resolver *resolver, const struct domain *name, uint16_t type, resolver_found found, void *context)
{
	return resolver->closing ? -ECANCELED : lookups_ask(&resolver->lookups, name, type, found, context);
}

void resolver_lookup_cancel(struct resolver *resolver, const void *context)
{
	lookups_cancel(&resolver->lookups, context);
}

const struct resolver_counters *resolver_counters(const struct resolver *resolver)
{
	return &resolver->counters;
}

static void on_closed(uv_handle_t *handle)
{
	struct resolver *resolver = handle->data;

	if (!--resolver->open_handles)
		free(resolver);
}

void resolver_close(struct resolver *resolver)
{
	struct place *place, *next;

	if (resolver->closing)
		return;
	resolver->closing = true;
	HASH_ITER (hh, resolver->places, place, next) {
		place_close(resolver, place);
	}
	free(resolver->polled);
	resolver->polled = NULL;
	resolver->polled_room = 0;
	queries_close(resolver);
	lookups_close(&resolver->lookups, on_closed);
	uv_close((uv_handle_t *)&resolver->prepare, on_closed);
	uv_close((uv_handle_t *)&resolver->check, on_closed);
	uv_close((uv_handle_t *)&resolver->timer, on_closed);
}
