/* SPDX-License-Identifier: MIT */
/*
 * The resolver as a whole, on loopback: resolver, fake upstream servers and clients in one process and one loop.
 *
 * A fake server finds out from its `mode` what to do with a query. Tests step the loop until what they wait for has happened; a guard
 * timer fails the test when it does not. The files with the limits and the times are included, so that these can be small.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "resolver/listener.h"
#include "resolver/query.h"
#include "resolver/resolver.h"
#include "resolver/upstream.h"

#undef UPSTREAM_RETRY_MS
#undef UPSTREAM_DEADLINE_MS
#undef UPSTREAM_PROBE_MS
#undef UPSTREAM_PLAIN_MS
#undef QUERY_FORWARDED_NETWORK_MAX
#define UPSTREAM_RETRY_MS           100
#define UPSTREAM_DEADLINE_MS        600
#define UPSTREAM_PROBE_MS           300
#define UPSTREAM_PLAIN_MS           400
#define QUERY_FORWARDED_NETWORK_MAX 16
#include "resolver/query_pool.c"
#include "resolver/upstream.c"
#include "resolver/upstream_servers.c"

#define GUARD_MS    8000
#define SERVERS     2
#define ADDRESS     0x5db8d822U /* 93.184.216.34: what servers answer */
#define FORGED      0x08080404U
#define REPLIES_MAX 64
#define HEADER      12
#define ECH_SIZE    4 /* octets of the value */

enum mode {
	ANSWER,
	SILENT,
	REFUSE,     /* SERVFAIL */
	TRUNCATE,   /* TC over UDP, an answer over TCP */
	HALF_OPEN,  /* TC over UDP, and TCP ends at once */
	FORGE,      /* three forged answers before the true one */
	HOLD,       /* keep the last query; release() answers it */
	MANY,       /* 40 addresses */
	ALIAS,      /* a CNAME alone for names that begin with "alias" */
	ALIAS_HOLD, /* the same, and HOLD for other names */
	FOLD,       /* answer in lower case */
	BIND,       /* an HTTPS record with `ech` */
};

struct world;

struct server {
	struct world *world;
	enum mode mode;
	uint16_t port;
	unsigned int asked, asked_tcp;
	uv_poll_t udp;
	int udp_fd, tcp_fd, stream;
	struct sockaddr_in held_from;
	uint8_t held[512];
	size_t held_size;
};

struct reply {
	uint16_t id;
	unsigned int rcode, answers;
	bool truncated;
	uint32_t address; /* of the last A record */
	size_t size;
};

struct world {
	uv_loop_t loop;
	uv_timer_t guard;
	bool timed_out;
	struct policy *policy;
	struct resolver *resolver;
	struct upstream *own; /* of a test without the resolver, or NULL */
	uint16_t port;
	struct server servers[SERVERS];
	int client, stream;
	struct reply replies[REPLIES_MAX];
	unsigned int reply_count;
	uint8_t pending[70000];
	size_t pending_size;
	/* What the host was told. */
	unsigned int grant_calls, granted, asked, denied;
	uint16_t last_asked_network;
	struct address last_asker;
	int grant_error;
	unsigned int grant_fails_for; /* network id + 1 */
	bool reply_before_grant, network6;
	struct grant grants[128];
	struct domain names[128];
	struct domain chain_end; /* of the last grant; length 0: it had no chain */
	struct denied_question last_denied;
	size_t pointers;
	int map_error;
	size_t mapped; /* real addresses that the last map() was given */
	bool map_asked, map_stale;
	uint32_t map_ttl;
};

/* --- messages --- */

static size_t question_end(const uint8_t *wire)
{
	size_t at = HEADER;

	while (wire[at])
		at += 1U + wire[at];
	return at + 5;
}

static uint8_t record_ttl; /* seconds, of all that the servers answer; setup() makes it 60 */

static size_t put_record(uint8_t *out, uint16_t type, uint16_t length)
{
	const uint8_t fixed[] = {0xc0, HEADER, 0, (uint8_t)type, 0, CLASS_IN, 0, 0, 0, record_ttl, (uint8_t)(length >> 8), (uint8_t)length};

	memcpy(out, fixed, sizeof(fixed));
	return sizeof(fixed);
}

static size_t put_address(uint8_t *out, uint32_t address)
{
	uint32_t network_order = htonl(address);
	size_t at = put_record(out, TYPE_A, 4);

	memcpy(out + at, &network_order, 4);
	return at + 4;
}

/* Header and question of the query, as a response. */
static size_t begin_response(const uint8_t *query, uint8_t *out, unsigned int rcode, bool truncated, unsigned int answers)
{
	size_t size = question_end(query);

	memcpy(out, query, size);
	out[2] = (uint8_t)(0x81 | truncated << 1);
	out[3] = (uint8_t)(0x80 | rcode);
	out[6] = 0;
	out[7] = (uint8_t)answers;
	memset(out + 8, 0, 4);
	return size;
}

static size_t response(const struct server *server, const uint8_t *query, uint8_t *out)
{
	static const uint8_t target[] = "\1t\5other\7example";
	static const uint8_t binding[] = {0, 1, 0, 0, 1, 0, 3, 2, 'h', '2', 0, 5, 0, ECH_SIZE, 1, 2, 3, 4};
	size_t size;

	if (server->mode == REFUSE)
		return begin_response(query, out, RCODE_SERVFAIL, false, 0);
	if ((server->mode == ALIAS || server->mode == ALIAS_HOLD) && query[HEADER] == 5) {
		size = begin_response(query, out, 0, false, 1);
		size += put_record(out + size, TYPE_CNAME, sizeof(target));
		memcpy(out + size, target, sizeof(target));
		return size + sizeof(target);
	}
	if (server->mode == BIND) {
		size = begin_response(query, out, 0, false, 1);
		size += put_record(out + size, TYPE_HTTPS, sizeof(binding));
		memcpy(out + size, binding, sizeof(binding));
		return size + sizeof(binding);
	}
	if (server->mode != MANY) {
		size = begin_response(query, out, 0, false, 1);
		return size + put_address(out + size, ADDRESS);
	}
	size = begin_response(query, out, 0, false, 40);
	for (uint32_t i = 0; i < 40; i++)
		size += put_address(out + size, ADDRESS + i);
	return size;
}

/* --- fake servers --- */

static void send_response(const struct server *server, const uint8_t *wire, size_t size, const struct sockaddr_in *to)
{
	assert_int_equal(sendto(server->udp_fd, wire, size, 0, (const struct sockaddr *)to, sizeof(*to)), size);
}

static void forge(const struct server *server, const uint8_t *query, const struct sockaddr_in *to)
{
	uint8_t out[512];
	size_t size = begin_response(query, out, 0, false, 1);

	size += put_address(out + size, FORGED);
	/* From another port, then with another id, then with another letter case. */
	assert_int_equal(sendto(server->world->servers[1].udp_fd, out, size, 0, (const struct sockaddr *)to, sizeof(*to)), size);
	out[0] ^= 1;
	send_response(server, out, size, to);
	out[0] ^= 1;
	out[HEADER + 1] ^= 0x20;
	send_response(server, out, size, to);
	out[HEADER + 1] ^= 0x20;
	out[7] = 9; /* more records than there are */
	send_response(server, out, size, to);
}

static void fold(uint8_t *query)
{
	for (uint8_t *at = query + HEADER; *at; at++) {
		if (*at >= 'A' && *at <= 'Z')
			*at |= 0x20;
	}
}

static void server_udp(uv_poll_t *poll, int status, int events)
{
	struct server *server = poll->data;
	struct sockaddr_in from;
	socklen_t length = sizeof(from);
	uint8_t query[512], out[2048];
	ssize_t size = recvfrom(server->udp_fd, query, sizeof(query), MSG_DONTWAIT, (struct sockaddr *)&from, &length);

	(void)status;
	(void)events;
	if (size < HEADER)
		return;
	server->asked++;
	if (server->mode == HOLD || (server->mode == ALIAS_HOLD && query[HEADER] != 5)) {
		memcpy(server->held, query, (size_t)size);
		server->held_size = (size_t)size;
		server->held_from = from;
		return;
	}
	if (server->mode == SILENT)
		return;
	if (server->mode == FOLD)
		fold(query);
	if (server->mode == FORGE)
		forge(server, query, &from);
	if (server->mode == TRUNCATE || server->mode == HALF_OPEN)
		send_response(server, out, begin_response(query, out, 0, true, 0), &from);
	else
		send_response(server, out, response(server, query, out), &from);
}

static void release(struct server *server)
{
	uint8_t out[2048];

	assert_true(server->held_size);
	send_response(server, out, response(server, server->held, out), &server->held_from);
}

/* Called after each step of the loop: accept, then answer when the query is there. */
static void server_tcp(struct server *server)
{
	uint8_t query[512], out[2048];
	size_t size;

	if (server->stream < 0) {
		server->stream = accept(server->tcp_fd, NULL, NULL);
		if (server->stream < 0)
			return;
		server->asked_tcp++;
	}
	if (server->mode != HALF_OPEN) {
		if (recv(server->stream, query, sizeof(query), MSG_DONTWAIT) <= HEADER)
			return;
		size = response(server, query + 2, out + 2);
		out[0] = (uint8_t)(size >> 8);
		out[1] = (uint8_t)size;
		/* In two pieces, one of them half the length field. */
		assert_int_equal(send(server->stream, out, 1, 0), 1);
		assert_int_equal(send(server->stream, out + 1, size + 1, 0), size + 1);
	}
	close(server->stream);
	server->stream = -1;
}

/* @port: 0: any, which is then returned there. Return: -1 when it is somebody else's. */
static int bound(int type, uint16_t *port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(*port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(sa);
	int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	if (bind(fd, (const struct sockaddr *)&sa, sizeof(sa))) {
		close(fd);
		return -1;
	}
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &length), 0);
	*port = ntohs(sa.sin_port);
	return fd;
}

/* One port for both protocols: what is free for TCP may be some other program's for UDP. */
static void bound_twice(uint16_t *port, int *tcp, int *udp)
{
	for (int i = 0; i < 100; i++) {
		*port = 0;
		*tcp = bound(SOCK_STREAM, port);
		*udp = *tcp < 0 ? -1 : bound(SOCK_DGRAM, port);
		if (*udp >= 0)
			return;
		close(*tcp);
	}
	fail_msg("no port is free");
}

static void server_open(struct world *world, struct server *server)
{
	server->world = world;
	bound_twice(&server->port, &server->tcp_fd, &server->udp_fd);
	assert_int_equal(listen(server->tcp_fd, 16), 0);
	uv_poll_init(&world->loop, &server->udp, server->udp_fd);
	server->udp.data = server;
	server->stream = -1;
	uv_poll_start(&server->udp, UV_READABLE, server_udp);
}

static void server_close(struct server *server)
{
	uv_close((uv_handle_t *)&server->udp, NULL);
	close(server->udp_fd);
	close(server->tcp_fd);
	if (server->stream >= 0)
		close(server->stream);
}

/* --- the host --- */

static bool client_has_reply(const struct world *world)
{
	uint8_t octet;

	return recv(world->client, &octet, 1, MSG_DONTWAIT | MSG_PEEK) >= 0;
}

static void take_chain_end(struct world *world, struct chain chain)
{
	struct domain name;

	world->chain_end.length = 0;
	while (chain_next(&chain, &name))
		world->chain_end = name;
}

static int host_grant(void *context, const struct grant *grants, size_t count)
{
	struct world *world = context;

	world->grant_calls++;
	if (client_has_reply(world))
		world->reply_before_grant = true;
	if (world->grant_error)
		return world->grant_error;
	for (size_t i = 0; i < count; i++) {
		if (grants[i].network + 1U == world->grant_fails_for)
			return -ENOSPC;
	}
	for (size_t i = 0; i < count; i++) {
		assert_true(world->granted < 128);
		world->grants[world->granted] = grants[i];
		world->names[world->granted++] = *grants[i].name;
		take_chain_end(world, grants[i].chain);
	}
	return 0;
}

/* Three virtual addresses, of which two are to be shown. */
static int host_map(void *context, const struct network *network, const struct shown_answer *answer, struct virtual_addresses *out)
{
	struct world *world = context;

	assert_true(network->has_virtual_addresses);
	assert_true(answer->name->length > 0);
	assert_int_equal(answer->reals[0].address.family, AF_INET);
	world->mapped = answer->count;
	world->map_asked = answer->asked;
	world->map_stale = answer->stale;
	world->map_ttl = answer->ttl;
	out->count = 3;
	out->shown = 2;
	for (uint8_t i = 0; i < 3; i++)
		out->list[i] = address_from_bytes(AF_INET, (const uint8_t[]){127, 0, 0, (uint8_t)(130 + i)});
	return world->map_error;
}

static void host_asked(void *context, uint16_t network, const struct address *client)
{
	struct world *world = context;

	world->asked++;
	world->last_asked_network = network;
	world->last_asker = *client;
}

static void host_denied(void *context, const struct denied_question *denied)
{
	struct world *world = context;

	world->denied++;
	world->last_denied = *denied;
}

static struct families host_families(void *context, const struct network *network)
{
	(void)network;
	return (struct families){.ipv4 = true, .ipv6 = ((const struct world *)context)->network6};
}

static size_t host_names(void *context, uint16_t network, const struct address *address, struct domain *out, size_t max)
{
	const struct world *world = context;

	(void)network;
	(void)address;
	assert_true(world->pointers <= max);
	for (size_t i = 0; i < world->pointers; i++)
		assert_null(domain_parse("a.allowed.example", &out[i]));
	return world->pointers;
}

/* --- the world --- */

static struct rule *rule(struct policy *policy, enum rule_action action, const char *pattern)
{
	struct rule made = {.action = action, .kind = RULE_NAME, .ports = ports_all()};
	const char *warning;

	assert_null(pattern_parse(pattern, &made.pattern, &warning));
	made.source.file = policy_string(policy, "test");
	made.text = policy_string(policy, pattern);
	return policy_rule(policy, &made);
}

static void network(struct policy *policy, struct network *out, const char *name)
{
	strcpy(out->name, name);
	assert_true(prefix_parse("127.0.0.0/8", &out->subnet4, NULL));
	assert_true(address_parse("127.0.0.1", &out->gateway4));
	out->default_ports = ports_all();
	out->lifetimes = (struct lifetimes){.min_ttl = 60, .grace = 60, .max_age = 86400, .max_addresses = 64};
	out->rules = calloc(2, sizeof(*out->rules));
	assert_non_null(out->rules);
	out->rules[0] = rule(policy, RULE_ALLOW, "**.allowed.example");
	out->rule_count = 1;
}

static struct policy *policy_make(const struct world *world, const char *denied)
{
	struct policy *policy = policy_new();
	struct upstream_group *group;
	char error[256];
	struct source where;

	assert_non_null(policy);
	policy->networks = calloc(2, sizeof(*policy->networks));
	assert_non_null(policy->networks);
	policy->network_count = 2;
	network(policy, &policy->networks[0], "web");
	network(policy, &policy->networks[1], "jobs");
	if (denied) {
		policy->networks[0].rules[1] = rule(policy, RULE_DENY, denied);
		policy->networks[0].rule_count = 2;
	}
	group = &policy->upstreams[policy->upstream_count - 1];
	for (unsigned int i = 0; i < SERVERS; i++) {
		assert_true(address_parse("127.0.0.1", &group->servers[i].address));
		group->servers[i].port = world->servers[i].port;
	}
	group->server_count = SERVERS;
	assert_int_equal(policy_finish(policy, error, sizeof(error), &where), 0);
	return policy;
}

static struct address loopback(const char *text)
{
	struct address address;

	assert_true(address_parse(text, &address));
	return address;
}

static void on_guard(uv_timer_t *timer)
{
	((struct world *)timer->data)->timed_out = true;
}

static int setup(void **state)
{
	struct world *world = calloc(1, sizeof(*world));
	struct resolver_host host = {.context = world,
				     .grant = host_grant,
				     .map = host_map,
				     .asked = host_asked,
				     .denied = host_denied,
				     .families = host_families,
				     .names = host_names};
	struct address web = loopback("127.0.0.1"), jobs = loopback("127.0.0.2");
	uint16_t any = 0;
	int probe, probe_udp;

	record_ttl = 60;
	assert_non_null(world);
	uv_loop_init(&world->loop);
	uv_timer_init(&world->loop, &world->guard);
	world->guard.data = world;
	for (unsigned int i = 0; i < SERVERS; i++)
		server_open(world, &world->servers[i]);
	world->policy = policy_make(world, NULL);
	bound_twice(&world->port, &probe, &probe_udp); /* a port that is free now */
	close(probe);
	close(probe_udp);
	host.port = world->port;
	world->resolver = resolver_new(&world->loop, world->policy, &host);
	assert_non_null(world->resolver);
	assert_int_equal(resolver_listen(world->resolver, world->policy->networks[0].id, &web), 0);
	assert_int_equal(resolver_listen(world->resolver, world->policy->networks[0].id, &web), 0);
	assert_int_equal(resolver_listen(world->resolver, world->policy->networks[1].id, &jobs), 0);
	world->client = bound(SOCK_DGRAM, &any);
	world->stream = -1;
	*state = world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;

	resolver_close(world->resolver);
	if (world->own)
		upstream_close(world->own);
	for (unsigned int i = 0; i < SERVERS; i++)
		server_close(&world->servers[i]);
	uv_close((uv_handle_t *)&world->guard, NULL);
	uv_run(&world->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&world->loop), 0);
	policy_free(world->policy);
	close(world->client);
	if (world->stream >= 0)
		close(world->stream);
	free(world);
	return 0;
}

/* --- clients --- */

static size_t build_question(const char *text, uint16_t id, uint16_t type, uint8_t out[512])
{
	struct domain name;
	size_t size;

	assert_null(domain_parse(text, &name));
	size = message_build_query(id, &name, type, false, false, NULL, out, 512);
	assert_true(size);
	return size;
}

static void ask_wire(struct world *world, const char *listener, const uint8_t *wire, size_t size)
{
	struct address address = loopback(listener);
	struct sockaddr_storage sa;
	socklen_t length = address_to_sockaddr(&address, world->port, &sa);

	assert_int_equal(sendto(world->client, wire, size, 0, (const struct sockaddr *)&sa, length), size);
}

static void ask_at(struct world *world, const char *listener, const char *name, uint16_t id, uint16_t type)
{
	uint8_t wire[512];

	ask_wire(world, listener, wire, build_question(name, id, type, wire));
}

static void ask(struct world *world, const char *name, uint16_t id)
{
	ask_at(world, "127.0.0.1", name, id, TYPE_A);
}

/* 11 octets; an extended error, which is all that we ever add, makes it 17. */
static size_t opt_size(const uint8_t *wire, size_t size)
{
	const uint8_t *longer = wire + size - 17;

	return longer[0] == 0 && longer[2] == 41 && longer[10] == 6 ? 17 : 11;
}

static void take_reply(struct world *world, const uint8_t *wire, size_t size)
{
	struct reply *reply = &world->replies[world->reply_count++];
	uint32_t address;
	size_t last;

	assert_true(world->reply_count <= REPLIES_MAX && size >= HEADER && wire[2] & 0x80);
	reply->id = message_peek_id(wire);
	reply->rcode = wire[3] & 15;
	reply->truncated = wire[2] & 2;
	reply->answers = wire[7];
	reply->size = size;
	if (reply->answers && !reply->truncated) { /* an OPT follows the last record when there was one in the question */
		last = size - 4 - (wire[11] ? opt_size(wire, size) : 0);
		memcpy(&address, wire + last, 4);
		reply->address = ntohl(address);
	}
}

static void read_stream(struct world *world)
{
	ssize_t size =
		recv(world->stream, world->pending + world->pending_size, sizeof(world->pending) - world->pending_size, MSG_DONTWAIT);
	size_t at = 0, length;

	if (size > 0)
		world->pending_size += (size_t)size;
	while (world->pending_size - at >= 2) {
		length = (size_t)world->pending[at] << 8 | world->pending[at + 1];
		if (world->pending_size - at < 2 + length)
			break;
		take_reply(world, world->pending + at + 2, length);
		at += 2 + length;
	}
	world->pending_size -= at;
	memmove(world->pending, world->pending + at, world->pending_size);
}

static void step(struct world *world)
{
	uint8_t wire[2048];
	ssize_t size;

	uv_run(&world->loop, UV_RUN_NOWAIT);
	for (unsigned int i = 0; i < SERVERS; i++)
		server_tcp(&world->servers[i]);
	while ((size = recv(world->client, wire, sizeof(wire), MSG_DONTWAIT)) > 0)
		take_reply(world, wire, (size_t)size);
	if (world->stream >= 0)
		read_stream(world);
	usleep(500);
}

#define run_until(world, condition)                                                                                                        \
	do {                                                                                                                               \
		(world)->timed_out = false;                                                                                                \
		uv_timer_start(&(world)->guard, on_guard, GUARD_MS, 0);                                                                    \
		while (!(condition) && !(world)->timed_out)                                                                                \
			step(world);                                                                                                       \
		uv_timer_stop(&(world)->guard);                                                                                            \
		assert_true(condition);                                                                                                    \
	} while (0)

static void run_for(struct world *world, unsigned int turns)
{
	for (unsigned int i = 0; i < turns; i++)
		step(world);
}

static void assert_address(const struct reply *reply, uint16_t id)
{
	assert_int_equal(reply->id, id);
	assert_int_equal(reply->rcode, RCODE_NOERROR);
	assert_int_equal(reply->answers, 1);
	assert_int_equal(reply->address, ADDRESS);
}

static void connect_stream(struct world *world)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(world->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	world->stream = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(world->stream >= 0);
	assert_int_equal(connect(world->stream, (const struct sockaddr *)&sa, sizeof(sa)), 0);
}

static size_t frame(const char *name, uint16_t id, uint8_t *out)
{
	uint8_t wire[512];
	size_t size = build_question(name, id, TYPE_A, wire);

	out[0] = (uint8_t)(size >> 8);
	out[1] = (uint8_t)size;
	memcpy(out + 2, wire, size);
	return 2 + size;
}

/* --- tests --- */

static void test_allowed_name_is_granted_before_the_reply(void **state)
{
	struct world *world = *state;
	struct domain name;

	ask(world, "a.allowed.example", 7);
	run_until(world, world->reply_count == 1);
	assert_address(&world->replies[0], 7);
	assert_int_equal(world->granted, 1);
	assert_false(world->reply_before_grant);
	assert_int_equal(world->grants[0].network, world->policy->networks[0].id);
	assert_int_equal(world->grants[0].seconds, 120);
	assert_int_equal(world->grants[0].specs, 1);
	assert_null(domain_parse("a.allowed.example", &name));
	assert_true(domain_equal(&world->names[0], &name));
	assert_int_equal(world->servers[0].asked, 1);
	assert_int_equal(world->denied, 0);
}

static void test_cached_answer_is_granted_again(void **state)
{
	struct world *world = *state;

	ask(world, "a.allowed.example", 1);
	run_until(world, world->reply_count == 1);
	ask_at(world, "127.0.0.2", "a.allowed.example", 2, TYPE_A);
	run_until(world, world->reply_count == 2);
	assert_int_equal(world->servers[0].asked, 1);
	assert_int_equal(world->granted, 2);
	assert_int_equal(world->grants[1].network, world->policy->networks[1].id);
	assert_false(world->reply_before_grant);
	assert_int_equal(resolver_counters(world->resolver)->cached, 1);
}

/* What the cache has is whole; each network is shown what it may see of it. */
static void test_ech_is_removed_from_a_cached_answer(void **state)
{
	struct world *world = *state;

	world->policy->networks[1].verify = VERIFY_ENFORCE;
	world->servers[0].mode = BIND;
	for (uint16_t i = 0; i < 4; i++) {
		ask_at(world, i % 2 ? "127.0.0.2" : "127.0.0.1", "a.allowed.example", i, TYPE_HTTPS);
		run_until(world, world->reply_count == i + 1U);
		assert_int_equal(world->replies[i].answers, 1);
	}
	assert_int_equal(world->servers[0].asked, 1);
	assert_int_equal(resolver_counters(world->resolver)->cached, 3);
	assert_int_equal(world->replies[1].size, world->replies[0].size - 4 - ECH_SIZE);
	assert_int_equal(world->replies[2].size, world->replies[0].size);
	assert_int_equal(world->replies[3].size, world->replies[1].size);
}

static void test_denied_name_never_reaches_an_upstream(void **state)
{
	struct world *world = *state;

	ask(world, "secret.evil.example", 9);
	run_until(world, world->reply_count == 1);
	run_for(world, 20);
	assert_int_equal(world->replies[0].rcode, RCODE_NXDOMAIN);
	assert_int_equal(world->servers[0].asked + world->servers[1].asked, 0);
	assert_int_equal(world->denied, 1);
	assert_int_equal(world->last_denied.reason, REASON_NAME_NOT_ALLOWED);
	assert_int_equal(world->last_denied.protocol, IPPROTO_UDP);
	assert_string_equal(world->last_denied.action, "nxdomain");
	assert_int_equal(world->grant_calls, 0);
	assert_int_equal(world->asked, 1);
	assert_int_equal(world->last_asked_network, world->policy->networks[0].id);
	assert_true(address_equal(&world->last_asker, &world->last_denied.client));
}

static void test_missing_family_is_nodata(void **state)
{
	struct world *world = *state;

	ask_at(world, "127.0.0.1", "a.allowed.example", 4, TYPE_AAAA);
	run_until(world, world->reply_count == 1);
	assert_int_equal(world->replies[0].rcode, RCODE_NOERROR);
	assert_int_equal(world->replies[0].answers, 0);
	assert_int_equal(world->servers[0].asked, 0);
	assert_int_equal(world->denied, 0); /* nothing was refused */
}

static void test_equal_questions_are_joined(void **state)
{
	struct world *world = *state;

	world->servers[0].mode = HOLD;
	ask(world, "a.allowed.example", 1);
	ask(world, "a.allowed.example", 2);
	ask_at(world, "127.0.0.2", "a.allowed.example", 3, TYPE_A);
	run_until(world, resolver_counters(world->resolver)->joined == 2 && world->servers[0].asked == 1);
	release(&world->servers[0]);
	run_until(world, world->reply_count == 3);
	assert_int_equal(world->servers[0].asked, 1);
	assert_int_equal(world->replies[0].id ^ world->replies[1].id ^ world->replies[2].id, 1 ^ 2 ^ 3);
	/* One grant per network: the two questions of the first are the same. */
	assert_int_equal(world->granted, 2);
	assert_int_equal(world->grant_calls, 1);
}

static void test_silent_server_is_left_for_the_next(void **state)
{
	struct world *world = *state;

	world->servers[0].mode = SILENT;
	ask(world, "a.allowed.example", 1);
	run_until(world, world->reply_count == 1);
	assert_address(&world->replies[0], 1);
	assert_int_equal(world->servers[0].asked, 1);
	assert_int_equal(world->servers[1].asked, 1);
	ask(world, "b.allowed.example", 2); /* now the second server comes first */
	run_until(world, world->reply_count == 2);
	assert_int_equal(world->servers[0].asked, 1);
	assert_int_equal(world->servers[1].asked, 2);
}

static void test_revived_server_is_noticed(void **state)
{
	struct world *world = *state;
	char name[] = "a0.allowed.example";

	world->servers[0].mode = SILENT;
	ask(world, "a.allowed.example", 1);
	run_until(world, world->reply_count == 1);
	world->servers[0].mode = ANSWER;
	/* Sooner or later a question is sent to both, and then the first is asked first again. */
	for (unsigned int i = 0; i < 60 && world->servers[0].asked < 2; i++) {
		name[1] = (char)('0' + i % 10);
		name[0] = (char)('b' + i / 10);
		ask(world, name, 2);
		run_until(world, world->reply_count == i + 2);
		run_for(world, 100);
	}
	assert_int_equal(world->servers[0].asked, 2);
	world->servers[1].asked = 0;
	ask(world, "z.allowed.example", 3);
	run_until(world, world->servers[0].asked == 3);
	assert_int_equal(world->servers[1].asked, 0);
}

static void test_refusal_leads_to_the_next_server_at_once(void **state)
{
	struct world *world = *state;

	world->servers[0].mode = REFUSE;
	world->servers[1].mode = HOLD;
	ask(world, "a.allowed.example", 1);
	run_until(world, world->servers[1].asked == 1);
	assert_int_equal(world->servers[0].asked, 1);
	release(&world->servers[1]);
	run_until(world, world->reply_count == 1);
	assert_address(&world->replies[0], 1);
	assert_int_equal(world->servers[1].asked, 1);
}

static void test_refusal_of_all_servers_is_servfail(void **state)
{
	struct world *world = *state;

	world->servers[0].mode = world->servers[1].mode = REFUSE;
	ask(world, "a.allowed.example", 1);
	run_until(world, world->reply_count == 1);
	assert_int_equal(world->replies[0].rcode, RCODE_SERVFAIL);
	assert_int_equal(world->servers[0].asked + world->servers[1].asked, 2);
	assert_int_equal(world->granted, 0);
	assert_int_equal(resolver_counters(world->resolver)->unanswered, 1);
}

static void test_silence_of_all_servers_is_servfail(void **state)
{
	struct world *world = *state;

	world->servers[0].mode = world->servers[1].mode = SILENT;
	ask(world, "a.allowed.example", 1);
	run_until(world, world->reply_count == 1);
	assert_int_equal(world->replies[0].rcode, RCODE_SERVFAIL);
	assert_true(world->servers[0].asked >= 2 && world->servers[1].asked >= 2);
	assert_int_equal(resolver_counters(world->resolver)->unanswered, 1);
	assert_int_equal(resolver_counters(world->resolver)->failed, 1);
}

/* RFC 8767: names that have been asked for go on working while no server answers. */
static void test_answer_past_its_end_serves_when_servers_fail(void **state)
{
	struct world *world = *state;

	record_ttl = 0;
	ask(world, "a.allowed.example", 1);
	run_until(world, world->reply_count == 1);
	world->servers[0].mode = world->servers[1].mode = REFUSE;
	ask(world, "a.allowed.example", 2);
	run_until(world, world->reply_count == 2);
	assert_address(&world->replies[1], 2);
	assert_int_equal(world->granted, 2);
	assert_false(world->reply_before_grant);
	assert_int_equal(resolver_counters(world->resolver)->stale, 1);
	assert_int_equal(resolver_counters(world->resolver)->unanswered, 0);
	/* what nobody has asked for before fails */
	ask(world, "b.allowed.example", 3);
	run_until(world, world->reply_count == 3);
	assert_int_equal(world->replies[2].rcode, RCODE_SERVFAIL);
	/* and policy comes first, as always */
	ask_at(world, "127.0.0.2", "a.elsewhere.example", 4, TYPE_A);
	run_until(world, world->reply_count == 4);
	assert_int_equal(world->replies[3].rcode, RCODE_NXDOMAIN);
}

static void test_nobody_waits_for_servers_that_are_known_to_fail(void **state)
{
	struct world *world = *state;
	unsigned int asked;

	record_ttl = 0;
	ask(world, "a.allowed.example", 1);
	run_until(world, world->reply_count == 1);
	world->servers[0].mode = world->servers[1].mode = SILENT;
	ask(world, "a.allowed.example", 2);
	run_until(world, world->reply_count == 2);
	assert_address(&world->replies[1], 2);
	asked = world->servers[0].asked + world->servers[1].asked;
	for (uint16_t id = 3; id < 13; id++) {
		ask(world, "a.allowed.example", id);
		run_until(world, world->reply_count == id);
		assert_address(&world->replies[id - 1], id);
	}
	assert_int_equal(world->servers[0].asked + world->servers[1].asked, asked);
	assert_int_equal(resolver_counters(world->resolver)->stale, 11);
}

static void test_late_answer_of_the_first_server_counts(void **state)
{
	struct world *world = *state;

	world->servers[0].mode = HOLD;
	world->servers[1].mode = SILENT;
	ask(world, "a.allowed.example", 1);
	run_until(world, world->servers[1].asked == 1);
	release(&world->servers[0]);
	run_until(world, world->reply_count == 1);
	assert_address(&world->replies[0], 1);
}

static void test_truncated_answer_is_asked_for_over_tcp(void **state)
{
	struct world *world = *state;

	world->servers[0].mode = TRUNCATE;
	ask(world, "a.allowed.example", 1);
	run_until(world, world->reply_count == 1);
	assert_address(&world->replies[0], 1);
	assert_int_equal(world->servers[0].asked_tcp, 1);
	assert_int_equal(world->granted, 1);
}

static void test_broken_tcp_leads_to_the_next_server(void **state)
{
	struct world *world = *state;

	world->servers[0].mode = HALF_OPEN;
	ask(world, "a.allowed.example", 1);
	run_until(world, world->reply_count == 1);
	assert_address(&world->replies[0], 1);
	assert_int_equal(world->servers[0].asked, 1);
	assert_int_equal(world->servers[1].asked, 1);
}

static void test_forged_answers_are_ignored(void **state)
{
	struct world *world = *state;

	world->servers[0].mode = FORGE;
	ask(world, "a.allowed.example", 1);
	run_until(world, world->reply_count == 1);
	assert_address(&world->replies[0], 1);
	assert_int_equal(world->granted, 1);
	assert_int_equal(resolver_counters(world->resolver)->ignored, 4);
	run_for(world, 20);
	assert_int_equal(world->reply_count, 1);
}

static void test_server_that_folds_case_is_asked_without_0x20(void **state)
{
	struct world *world = *state;

	world->servers[0].mode = world->servers[1].mode = FOLD;
	ask(world, "a.allowed.example", 1);
	run_until(world, world->reply_count == 1);
	assert_address(&world->replies[0], 1);
	assert_int_equal(world->servers[0].asked, 1);
	assert_int_equal(world->servers[1].asked, 2);
	/* It is remembered for a while ... */
	ask(world, "b.allowed.example", 2);
	run_until(world, world->reply_count == 2);
	assert_int_equal(world->servers[0].asked, 1);
	assert_int_equal(world->servers[1].asked, 3);
	/* ... and then found out again with one query more, not with a second wait. */
	usleep(UPSTREAM_PLAIN_MS * 1000);
	world->servers[0].mode = SILENT;
	run_for(world, 1);
	ask(world, "c.allowed.example", 3);
	run_until(world, world->reply_count == 3);
	assert_int_equal(world->servers[1].asked, 5);
}

static void test_one_answer_in_another_case_does_not_end_0x20(void **state)
{
	struct world *world = *state;

	world->servers[0].mode = FOLD;
	ask(world, "a.allowed.example", 1);
	run_until(world, world->reply_count == 1);
	assert_int_equal(world->servers[0].asked, 1);
	assert_int_equal(world->servers[1].asked, 1);
	world->servers[1].mode = HOLD;
	ask(world, "bbbbbbbbbbbbbbbbbbbbbbbb.allowed.example", 2);
	run_until(world, world->servers[1].held_size);
	bool mixed = false;
	for (unsigned int i = HEADER; i < HEADER + 40; i++)
		mixed |= world->servers[1].held[i] >= 'A' && world->servers[1].held[i] <= 'Z';
	assert_true(mixed);
}

static void test_failed_grant_is_servfail(void **state)
{
	struct world *world = *state;

	world->grant_error = -ENOSPC;
	ask(world, "a.allowed.example", 1);
	run_until(world, world->reply_count == 1);
	assert_int_equal(world->replies[0].rcode, RCODE_SERVFAIL);
	assert_int_equal(world->replies[0].answers, 0);
	assert_int_equal(resolver_counters(world->resolver)->ungranted, 1);
	world->grant_error = 0;
	ask(world, "a.allowed.example", 2);
	run_until(world, world->reply_count == 2);
	assert_address(&world->replies[1], 2);
}

static void test_failed_grant_of_one_network_leaves_others_alone(void **state)
{
	struct world *world = *state;

	world->servers[0].mode = HOLD;
	world->grant_fails_for = world->policy->networks[1].id + 1U;
	ask(world, "a.allowed.example", 1);
	ask_at(world, "127.0.0.2", "a.allowed.example", 2, TYPE_A);
	run_until(world, resolver_counters(world->resolver)->joined == 1 && world->servers[0].asked == 1);
	release(&world->servers[0]);
	run_until(world, world->reply_count == 2);
	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(world->replies[i].rcode, world->replies[i].id == 1 ? RCODE_NOERROR : RCODE_SERVFAIL);
	assert_int_equal(world->granted, 1);
}

static void test_cut_off_reply_grants_nothing(void **state)
{
	struct world *world = *state;
	uint8_t wire[600];
	size_t size = build_question("a.allowed.example", 1, TYPE_A, wire);

	world->servers[0].mode = MANY;
	wire[11] = 0; /* without the OPT of 11 octets: 512 octets */
	ask_wire(world, "127.0.0.1", wire, size - 11);
	run_until(world, world->reply_count == 1);
	assert_true(world->replies[0].truncated);
	assert_true(world->replies[0].size <= 512);
	assert_int_equal(world->grant_calls, 0);
	connect_stream(world);
	size = frame("a.allowed.example", 2, wire);
	assert_int_equal(send(world->stream, wire, size, 0), size);
	run_until(world, world->reply_count == 2);
	assert_int_equal(world->replies[1].answers, 40);
	assert_int_equal(world->granted, 40);
}

static void test_chain_is_chased(void **state)
{
	struct world *world = *state;
	struct domain name;

	world->servers[0].mode = ALIAS;
	ask(world, "alias.allowed.example", 1);
	run_until(world, world->reply_count == 1);
	assert_int_equal(world->servers[0].asked, 2);
	assert_int_equal(world->replies[0].answers, 2);
	assert_int_equal(world->replies[0].address, ADDRESS);
	assert_int_equal(world->granted, 1);
	assert_null(domain_parse("alias.allowed.example", &name));
	assert_true(domain_equal(&world->names[0], &name));
	assert_null(domain_parse("t.other.example", &name));
	assert_true(domain_equal(&world->chain_end, &name));
	ask(world, "direct.allowed.example", 2);
	run_until(world, world->reply_count == 2);
	assert_int_equal(world->granted, 2);
	assert_int_equal(world->chain_end.length, 0);
}

static void assert_virtual_grants(const struct world *world, uint8_t first)
{
	for (uint8_t i = 0; i < 3; i++) {
		const struct address *address = &world->grants[first + i].address;

		assert_int_equal(address->family, AF_INET);
		assert_memory_equal(address->bytes, ((const uint8_t[]){127, 0, 0, (uint8_t)(130 + i)}), 4);
	}
}

static void test_virtual_addresses_are_shown_and_granted(void **state)
{
	struct world *world = *state;

	world->policy->networks[0].has_virtual_addresses = true;
	world->servers[0].mode = MANY;
	ask(world, "a.allowed.example", 1);
	run_until(world, world->reply_count == 1);
	assert_int_equal(world->mapped, 40);
	assert_true(world->map_asked);
	assert_int_equal(world->map_ttl, 60);
	assert_int_equal(world->replies[0].answers, 2);
	assert_int_equal(world->replies[0].address, 0x7f000083U);
	assert_int_equal(world->granted, 3); /* the one that is not shown, too */
	assert_virtual_grants(world, 0);
	/* The other network has real addresses, from the same entry of the cache. */
	ask_at(world, "127.0.0.2", "a.allowed.example", 2, TYPE_A);
	run_until(world, world->reply_count == 2);
	assert_int_equal(world->replies[1].answers, 40);
}

static void test_chain_to_virtual_addresses_is_kept(void **state)
{
	struct world *world = *state;
	struct domain name;

	world->policy->networks[0].has_virtual_addresses = true;
	world->servers[0].mode = ALIAS;
	ask(world, "alias.allowed.example", 1);
	run_until(world, world->reply_count == 1);
	assert_int_equal(world->replies[0].answers, 3);
	assert_int_equal(world->replies[0].address, 0x7f000083U);
	assert_int_equal(world->granted, 3);
	assert_virtual_grants(world, 0);
	assert_null(domain_parse("alias.allowed.example", &name));
	assert_true(domain_equal(&world->names[0], &name));
}

static void test_without_virtual_address_nothing_is_shown(void **state)
{
	struct world *world = *state;

	world->policy->networks[0].has_virtual_addresses = true;
	world->map_error = -ENOSPC;
	ask(world, "a.allowed.example", 1);
	run_until(world, world->reply_count == 1);
	assert_int_equal(world->replies[0].rcode, RCODE_SERVFAIL);
	assert_int_equal(world->replies[0].answers, 0);
	assert_int_equal(world->granted, 0);
	assert_int_equal(resolver_counters(world->resolver)->unmapped, 1);
	assert_int_equal(resolver_counters(world->resolver)->failed, 1);
}

static void test_own_question_maps_without_use(void **state)
{
	struct world *world = *state;
	struct domain name;

	world->policy->networks[0].has_virtual_addresses = true;
	assert_null(domain_parse("a.allowed.example", &name));
	assert_int_equal(resolver_check(world->resolver, world->policy->networks[0].id, &name, TYPE_A, NULL, NULL), 0);
	run_until(world, world->granted == 3);
	assert_false(world->map_asked);
}

static void test_map_is_told_that_an_answer_is_past_its_end(void **state)
{
	struct world *world = *state;

	world->policy->networks[0].has_virtual_addresses = true;
	record_ttl = 0;
	ask(world, "a.allowed.example", 1);
	run_until(world, world->reply_count == 1);
	assert_false(world->map_stale);
	world->servers[0].mode = world->servers[1].mode = REFUSE;
	ask(world, "a.allowed.example", 2);
	run_until(world, world->reply_count == 2);
	assert_true(world->map_stale);
}

static void test_refresh_makes_no_lease_longer(void **state)
{
	struct world *world = *state;
	struct domain name;

	world->policy->networks[0].has_virtual_addresses = true;
	assert_null(domain_parse("a.allowed.example", &name));
	assert_int_equal(resolver_refresh(world->resolver, world->policy->networks[0].id, &name, TYPE_A), 0);
	run_until(world, world->granted == 3);
	assert_false(world->map_asked);
	assert_int_equal(world->grants[0].seconds, 0);
	/* What an app asks for at the same time does. */
	world->servers[0].mode = HOLD;
	assert_null(domain_parse("b.allowed.example", &name));
	assert_int_equal(resolver_refresh(world->resolver, world->policy->networks[0].id, &name, TYPE_A), 0);
	ask(world, "b.allowed.example", 1);
	run_until(world, world->servers[0].held_size);
	release(&world->servers[0]);
	run_until(world, world->reply_count == 1);
	assert_int_equal(world->granted, 6);
	assert_true(world->grants[3].seconds > 0);
}

static void test_pointer_is_answered_from_leases(void **state)
{
	struct world *world = *state;

	world->pointers = 1;
	ask_at(world, "127.0.0.1", "34.216.184.93.in-addr.arpa", 1, TYPE_PTR);
	run_until(world, world->reply_count == 1);
	assert_int_equal(world->replies[0].answers, 1);
	world->pointers = 0;
	ask_at(world, "127.0.0.1", "34.216.184.93.in-addr.arpa", 2, TYPE_PTR);
	run_until(world, world->reply_count == 2);
	assert_int_equal(world->replies[1].rcode, RCODE_NXDOMAIN);
	assert_int_equal(world->denied, 1);
	assert_int_equal(world->servers[0].asked, 0);
}

static void test_any_is_answered_with_one_record(void **state)
{
	struct world *world = *state;

	ask_at(world, "127.0.0.1", "a.allowed.example", 1, TYPE_ANY);
	run_until(world, world->reply_count == 1);
	assert_int_equal(world->replies[0].answers, 1);
	assert_int_equal(world->servers[0].asked, 0);
}

static void test_refused_messages_get_a_code(void **state)
{
	struct world *world = *state;
	uint8_t wire[512];
	size_t size = build_question("a.allowed.example", 5, TYPE_AXFR, wire);

	ask_wire(world, "127.0.0.1", wire, size);
	run_until(world, world->reply_count == 1);
	assert_int_equal(world->replies[0].rcode, RCODE_NOTIMP);
	assert_int_equal(world->last_denied.reason, REASON_UNSUPPORTED);
	size = build_question("a.allowed.example", 6, TYPE_A, wire);
	wire[5] = 2; /* questions */
	ask_wire(world, "127.0.0.1", wire, size);
	run_until(world, world->reply_count == 2);
	assert_int_equal(world->replies[1].rcode, RCODE_FORMERR);
	/* It is a denial, although nobody can say of what. */
	assert_int_equal(world->denied, 2);
	assert_int_equal(world->last_denied.reason, REASON_MALFORMED);
	assert_null(world->last_denied.name);
	assert_string_equal(world->last_denied.action, "formerr");
	wire[2] |= 0x80; /* a response: no answer at all */
	ask_wire(world, "127.0.0.1", wire, size);
	run_until(world, resolver_counters(world->resolver)->invalid == 1);
	size = build_question("a.allowed.example", 7, TYPE_A, wire);
	wire[size - 5] = 1; /* the OPT's version */
	ask_wire(world, "127.0.0.1", wire, size);
	run_until(world, resolver_counters(world->resolver)->badvers == 1);
	assert_int_equal(world->asked, 4); /* who sends such things comes to us all the same */
	assert_int_equal(world->denied, 2);
	assert_int_equal(world->servers[0].asked, 0);
}

static void test_policy_of_the_moment_judges_the_answer(void **state)
{
	struct world *world = *state;
	struct policy *other = policy_make(world, "**.allowed.example");

	policy_inherit_ids(other, world->policy);
	world->servers[0].mode = HOLD;
	ask(world, "a.allowed.example", 1);
	run_until(world, world->servers[0].asked == 1);
	assert_int_equal(resolver_set_policy(world->resolver, other), 0);
	policy_free(world->policy);
	world->policy = other;
	release(&world->servers[0]);
	run_until(world, world->reply_count == 1);
	assert_int_equal(world->replies[0].rcode, RCODE_NXDOMAIN);
	assert_int_equal(world->last_denied.reason, REASON_DENIED_BY_RULE);
	assert_int_equal(world->granted, 0);
}

/* Make a policy the running one. */
static void change_policy(struct world *world, struct policy *other)
{
	assert_int_equal(resolver_set_policy(world->resolver, other), 0);
	policy_free(world->policy);
	world->policy = other;
}

static struct policy *next_policy(const struct world *world, const char *denied)
{
	struct policy *other = policy_make(world, denied);

	policy_inherit_ids(other, world->policy);
	return other;
}

/* Long enough for whatever is in flight to be sent again. */
static void outwait_retries(struct world *world)
{
	uint64_t end = uv_now(&world->loop) + 2 * UPSTREAM_RETRY_MS;

	run_until(world, uv_now(&world->loop) >= end);
}

static unsigned int asked(const struct world *world)
{
	return world->servers[0].asked + world->servers[1].asked;
}

static void test_denied_name_does_not_leave_again(void **state)
{
	struct world *world = *state;

	world->servers[0].mode = world->servers[1].mode = SILENT;
	ask(world, "a.allowed.example", 1);
	run_until(world, asked(world) == 1);
	change_policy(world, next_policy(world, "**.allowed.example"));
	run_for(world, 2);
	assert_int_equal(world->reply_count, 1); /* at once */
	assert_int_equal(world->replies[0].rcode, RCODE_NXDOMAIN);
	assert_int_equal(world->denied, 1);
	assert_int_equal(world->last_denied.reason, REASON_DENIED_BY_RULE);
	outwait_retries(world);
	assert_int_equal(asked(world), 1);
	assert_int_equal(world->reply_count, 1);
}

static void test_denied_name_does_not_leave_over_tcp(void **state)
{
	struct world *world = *state;
	struct pollfd incoming = {.fd = world->servers[0].tcp_fd, .events = POLLIN};

	world->servers[0].mode = TRUNCATE;
	ask(world, "a.allowed.example", 1);
	/* The connection is there, the question has not been written yet. */
	for (unsigned int i = 0; i < 1000 && !poll(&incoming, 1, 1); i++)
		uv_run(&world->loop, UV_RUN_NOWAIT);
	assert_int_equal(incoming.revents, POLLIN);
	change_policy(world, next_policy(world, "**.allowed.example"));
	outwait_retries(world);
	assert_int_equal(world->reply_count, 1);
	assert_int_equal(world->replies[0].rcode, RCODE_NXDOMAIN);
	assert_int_equal(asked(world), 1);
	assert_int_equal(world->servers[0].asked_tcp, 1);
	assert_true(world->servers[0].stream >= 0); /* else it has answered a question */
}

static void test_lookup_goes_on_for_those_that_may_still_ask(void **state)
{
	struct world *world = *state;

	world->servers[0].mode = HOLD;
	world->servers[1].mode = SILENT;
	ask(world, "a.allowed.example", 1);
	ask_at(world, "127.0.0.2", "a.allowed.example", 2, TYPE_A);
	run_until(world, resolver_counters(world->resolver)->joined == 1 && asked(world) == 1);
	change_policy(world, next_policy(world, "**.allowed.example")); /* for the first network */
	run_until(world, world->reply_count == 1);
	assert_int_equal(world->replies[0].id, 1);
	assert_int_equal(world->replies[0].rcode, RCODE_NXDOMAIN);
	release(&world->servers[0]);
	run_until(world, world->reply_count == 2);
	assert_address(&world->replies[1], 2);
	assert_int_equal(world->granted, 1);
	assert_int_equal(resolver_counters(world->resolver)->forwarded, 1);
}

static void test_lookups_of_a_network_that_is_gone_end(void **state)
{
	struct world *world = *state;
	struct policy *other = next_policy(world, NULL);

	world->servers[0].mode = world->servers[1].mode = SILENT;
	ask_at(world, "127.0.0.2", "a.allowed.example", 1, TYPE_A);
	run_until(world, asked(world) == 1);
	other->network_count = 1; /* the second one is still there, for policy_free() */
	change_policy(world, other);
	outwait_retries(world);
	assert_int_equal(asked(world), 1);
	assert_int_equal(world->reply_count, 0);
	assert_int_equal(world->denied, 0);
	other->network_count = 2;
}

static void test_lookups_begin_anew_when_upstreams_change(void **state)
{
	struct world *world = *state;
	struct policy *other = next_policy(world, NULL);
	struct upstream_group *group = &other->upstreams[other->upstream_count - 1];

	world->servers[0].mode = HOLD;
	ask(world, "a.allowed.example", 1);
	run_until(world, world->servers[0].asked == 1);
	group->servers[0].port = world->servers[1].port;
	group->server_count = 1;
	world->servers[1].mode = HOLD;
	change_policy(world, other);
	run_until(world, world->servers[1].asked == 1);
	release(&world->servers[0]); /* one that is not to be asked any more */
	run_for(world, 10);
	assert_int_equal(world->reply_count, 0);
	release(&world->servers[1]);
	run_until(world, world->reply_count == 1);
	assert_address(&world->replies[0], 1);
	outwait_retries(world);
	assert_int_equal(world->servers[0].asked, 1);
}

static void test_denied_target_of_a_chain_does_not_leave_again(void **state)
{
	struct world *world = *state;

	world->servers[0].mode = ALIAS_HOLD;
	world->servers[1].mode = SILENT;
	ask(world, "alias.allowed.example", 1);
	run_until(world, world->servers[0].held_size);
	change_policy(world, next_policy(world, "**.other.example"));
	run_until(world, world->reply_count == 1);
	assert_int_equal(world->replies[0].rcode, RCODE_NXDOMAIN);
	assert_non_null(world->last_denied.by);
	outwait_retries(world);
	assert_int_equal(asked(world), 2);
}

static void test_end_of_audit_is_reported_for_waiting_questions(void **state)
{
	struct world *world = *state;

	world->policy->networks[0].mode = MODE_AUDIT;
	world->servers[0].mode = HOLD;
	ask(world, "a.evil.example", 1);
	run_until(world, world->servers[0].asked == 1);
	assert_int_equal(world->denied, 1);
	assert_true(world->last_denied.audited);
	change_policy(world, next_policy(world, NULL));
	run_until(world, world->reply_count == 1);
	assert_int_equal(world->replies[0].rcode, RCODE_NXDOMAIN);
	assert_int_equal(world->denied, 2);
	assert_false(world->last_denied.audited);
}

/* NULL: it has not come yet. */
static const struct reply *reply_to(const struct world *world, uint16_t id)
{
	for (unsigned int i = 0; i < world->reply_count; i++) {
		if (world->replies[i].id == id)
			return &world->replies[i];
	}
	return NULL;
}

/* One source has three quarters of what its network may have (shares.h). */
static void test_too_many_lookups_of_a_source_are_servfail(void **state)
{
	const unsigned int part = QUERY_FORWARDED_NETWORK_MAX / 4 * SHARES_FACTOR;
	struct world *world = *state;
	char name[] = "a.allowed.example";

	world->servers[0].mode = world->servers[1].mode = SILENT;
	for (uint16_t i = 0; i < part; i++) {
		name[0] = (char)('a' + i);
		ask(world, name, i);
	}
	run_until(world, resolver_counters(world->resolver)->forwarded == part);
	ask(world, "zz.allowed.example", 100);
	run_until(world, world->reply_count >= 1);
	assert_int_equal(world->replies[0].id, 100);
	assert_int_equal(world->replies[0].rcode, RCODE_SERVFAIL);
	assert_int_equal(resolver_counters(world->resolver)->overloaded, 1);
	world->servers[0].mode = world->servers[1].mode = ANSWER;
	/* Another network's. The others' may be asked for once more in the meantime, and have their answers, too. */
	ask_at(world, "127.0.0.2", "zz.allowed.example", 1001, TYPE_A);
	run_until(world, reply_to(world, 1001));
	assert_int_equal(reply_to(world, 1001)->rcode, RCODE_NOERROR);
	assert_int_equal(resolver_counters(world->resolver)->overloaded, 1);
}

static void test_closed_listener_takes_its_questions_along(void **state)
{
	struct world *world = *state;
	struct address web = loopback("127.0.0.1");
	uint8_t wire[512];
	size_t size = frame("b.allowed.example", 2, wire);

	world->servers[0].mode = HOLD;
	ask(world, "a.allowed.example", 1);
	connect_stream(world);
	assert_int_equal(send(world->stream, wire, size, 0), size);
	run_until(world, world->servers[0].asked == 2);
	resolver_unlisten(world->resolver, &web);
	release(&world->servers[0]);
	run_for(world, 50);
	assert_int_equal(world->reply_count, 0);
	assert_int_equal(world->granted, 0);
	/* The address is free again, also for another network. */
	assert_int_equal(resolver_listen(world->resolver, world->policy->networks[1].id, &web), 0);
	world->servers[0].mode = ANSWER;
	ask(world, "c.allowed.example", 3);
	run_until(world, world->reply_count == 1);
	assert_int_equal(world->grants[0].network, world->policy->networks[1].id);
}

static void test_tcp_questions_are_pipelined(void **state)
{
	struct world *world = *state;
	uint8_t wire[2048];
	size_t size = frame("hold.allowed.example", 1, wire);

	/* The first waits for its upstream, the others overtake it; one is denied. */
	world->servers[0].mode = HOLD;
	connect_stream(world);
	assert_int_equal(send(world->stream, wire, size, 0), size);
	run_until(world, world->servers[0].asked == 1);
	size = frame("secret.evil.example", 2, wire);
	size += frame("hold.allowed.example", 3, wire + size);
	size += frame("more.evil.example", 4, wire + size);
	assert_int_equal(send(world->stream, wire, size - 3, 0), size - 3);
	run_until(world, world->reply_count == 1);
	assert_int_equal(world->replies[0].id, 2);
	assert_int_equal(send(world->stream, wire + size - 3, 3, 0), 3);
	run_until(world, world->reply_count == 2);
	assert_int_equal(world->replies[1].id, 4);
	assert_int_equal(world->last_denied.protocol, IPPROTO_TCP);
	/* A client may close its side and still gets its replies. */
	assert_int_equal(shutdown(world->stream, SHUT_WR), 0);
	run_for(world, 10);
	release(&world->servers[0]);
	run_until(world, world->reply_count == 4);
	assert_int_equal(world->replies[2].id + world->replies[3].id, 4);
	run_until(world, recv(world->stream, wire, sizeof(wire), MSG_DONTWAIT) == 0);
}

static void test_tcp_question_flood_is_answered_in_full(void **state)
{
	struct world *world = *state;
	uint8_t wire[8192];
	size_t size = 0;

	/* More than may be in progress at once. */
	for (uint16_t i = 0; i < LISTENER_TCP_PENDING_MAX + 20; i++)
		size += frame("secret.evil.example", i, wire + size);
	connect_stream(world);
	assert_int_equal(send(world->stream, wire, size, 0), size);
	run_until(world, world->reply_count == LISTENER_TCP_PENDING_MAX + 20);
}

static void test_oversized_tcp_question_ends_the_connection(void **state)
{
	struct world *world = *state;
	const uint8_t prefix[] = {0xff, 0xff, 0};
	uint8_t octet;

	connect_stream(world);
	assert_int_equal(send(world->stream, prefix, sizeof(prefix), 0), sizeof(prefix));
	run_until(world, recv(world->stream, &octet, 1, MSG_DONTWAIT) == 0 || errno == ECONNRESET);
}

static void test_tcp_connections_of_one_source_are_limited(void **state)
{
	struct world *world = *state;
	int first, others[LISTENER_TCP_SOURCE_MAX];
	uint8_t octet;

	connect_stream(world);
	first = world->stream;
	run_for(world, 5);
	for (unsigned int i = 0; i < LISTENER_TCP_SOURCE_MAX; i++) {
		connect_stream(world);
		others[i] = world->stream;
		run_for(world, 2);
	}
	world->stream = -1;
	run_until(world, recv(first, &octet, 1, MSG_DONTWAIT) == 0); /* the oldest idle one has made room */
	assert_int_equal(recv(others[LISTENER_TCP_SOURCE_MAX - 1], &octet, 1, MSG_DONTWAIT), -1);
	close(first);
	for (unsigned int i = 0; i < LISTENER_TCP_SOURCE_MAX; i++)
		close(others[i]);
}

static void test_close_with_lookups_in_flight(void **state)
{
	struct world *world = *state;
	uint8_t wire[512];
	size_t size = frame("b.allowed.example", 2, wire);

	world->servers[0].mode = SILENT;
	ask(world, "a.allowed.example", 1);
	connect_stream(world);
	assert_int_equal(send(world->stream, wire, size, 0), size);
	run_until(world, world->servers[0].asked == 2);
	/* teardown closes, and the sanitizers look */
}

/* --- checks --- */

static void count_check(void *context)
{
	++*(unsigned int *)context;
}

static int check(struct world *world, const char *text, unsigned int *done)
{
	struct domain name;

	assert_null(domain_parse(text, &name));
	return resolver_check(world->resolver, world->policy->networks[0].id, &name, TYPE_A, count_check, done);
}

static void test_check_grants_without_a_client(void **state)
{
	struct world *world = *state;
	unsigned int done = 0;

	world->servers[0].mode = MANY;
	assert_int_equal(check(world, "a.allowed.example", &done), 0);
	assert_int_equal(done, 0);
	run_until(world, done == 1);
	assert_int_equal(world->granted, 40);
	assert_int_equal(world->grants[0].network, world->policy->networks[0].id);
	/* It is an ordinary answer: the next one is in the cache. */
	assert_int_equal(check(world, "a.allowed.example", &done), 0);
	assert_int_equal(done, 1);
	run_until(world, done == 2);
	assert_int_equal(world->granted, 80);
	assert_int_equal(world->servers[0].asked, 1);
}

static void test_check_of_a_denied_name_ends_without_a_word(void **state)
{
	struct world *world = *state;
	unsigned int done = 0;

	assert_int_equal(check(world, "other.example", &done), 0);
	run_until(world, done == 1);
	assert_int_equal(world->servers[0].asked, 0);
	assert_int_equal(world->denied, 0);
	assert_int_equal(world->granted, 0);
	assert_int_equal(resolver_check(world->resolver, 99, &world->names[0], TYPE_A, count_check, &done), -ENOENT);
}

static void test_check_joins_the_look_up_of_an_app(void **state)
{
	struct world *world = *state;
	unsigned int done = 0;

	world->servers[0].mode = HOLD;
	ask(world, "a.allowed.example", 1);
	run_until(world, world->servers[0].held_size);
	assert_int_equal(check(world, "a.allowed.example", &done), 0);
	release(&world->servers[0]);
	run_until(world, done == 1 && world->reply_count == 1);
	assert_int_equal(world->servers[0].asked, 1);
}

static void test_check_ends_when_no_server_answers(void **state)
{
	struct world *world = *state;
	unsigned int done = 0;

	world->servers[0].mode = world->servers[1].mode = SILENT;
	assert_int_equal(check(world, "a.allowed.example", &done), 0);
	run_until(world, done == 1);
	assert_int_equal(world->granted, 0);
}

struct lookup_result {
	unsigned int done;
	size_t count;
	struct address first;
};

static void take_lookup(void *context, const struct address *list, size_t count)
{
	struct lookup_result *result = context;

	result->done++;
	result->count = count;
	if (count)
		result->first = list[0];
}

static int look_up(struct world *world, const char *text, struct lookup_result *result)
{
	struct domain name;

	assert_null(domain_parse(text, &name));
	return resolver_lookup(world->resolver, &name, TYPE_A, take_lookup, result);
}

/* No network allows the name: only the gateway asks. */
static void test_own_lookup_knows_no_policy(void **state)
{
	struct world *world = *state;
	struct lookup_result result = {0};

	assert_int_equal(look_up(world, "other.example", &result), 0);
	assert_int_equal(result.done, 0);
	run_until(world, result.done == 1);
	assert_int_equal(result.count, 1);
	assert_memory_equal(result.first.bytes, ((uint8_t[]){93, 184, 216, 34}), 4);
	assert_int_equal(world->granted + world->denied, 0);
	/* The next one is in the cache, and told later all the same. */
	assert_int_equal(look_up(world, "other.example", &result), 0);
	assert_int_equal(result.done, 1);
	run_until(world, result.done == 2);
	assert_int_equal(world->servers[0].asked, 1);
}

static void test_own_lookup_takes_so_many_addresses(void **state)
{
	struct world *world = *state;
	struct lookup_result result = {0};

	world->servers[0].mode = MANY;
	assert_int_equal(look_up(world, "other.example", &result), 0);
	run_until(world, result.done == 1);
	assert_int_equal(result.count, RESOLVER_FOUND_MAX);
}

static void test_own_lookup_follows_a_chain(void **state)
{
	struct world *world = *state;
	struct lookup_result result = {0};

	world->servers[0].mode = ALIAS;
	assert_int_equal(look_up(world, "alias.other.example", &result), 0);
	run_until(world, result.done == 1);
	assert_int_equal(result.count, 1);
	assert_int_equal(world->servers[0].asked, 2);
}

static void test_own_lookup_joins_an_apps_and_the_other_way_round(void **state)
{
	struct world *world = *state;
	struct lookup_result result = {0};

	world->servers[0].mode = HOLD;
	assert_int_equal(look_up(world, "a.allowed.example", &result), 0);
	ask(world, "a.allowed.example", 1);
	run_until(world, world->servers[0].held_size > 0 && world->asked == 1);
	run_for(world, 3);
	release(&world->servers[0]);
	run_until(world, result.done == 1 && world->reply_count == 1);
	assert_int_equal(result.count, 1);
	assert_address(&world->replies[0], 1);
	assert_int_equal(world->servers[0].asked, 1);
}

static void test_own_lookup_ends_when_no_server_answers(void **state)
{
	struct world *world = *state;
	struct lookup_result result = {0};

	world->servers[0].mode = world->servers[1].mode = SILENT;
	assert_int_equal(look_up(world, "other.example", &result), 0);
	run_until(world, result.done == 1);
	assert_int_equal(result.count, 0);
}

static void test_own_lookup_is_cancelled(void **state)
{
	struct world *world = *state;
	struct lookup_result result = {0};

	world->servers[0].mode = HOLD;
	assert_int_equal(look_up(world, "other.example", &result), 0);
	run_until(world, world->servers[0].held_size > 0);
	resolver_lookup_cancel(world->resolver, &result);
	release(&world->servers[0]);
	run_for(world, 10);
	assert_int_equal(result.done, 0);
}

static void test_own_lookups_begin_anew_when_upstreams_change(void **state)
{
	struct world *world = *state;
	struct lookup_result result = {0};
	struct policy *other = next_policy(world, NULL);
	struct upstream_group *group = &other->upstreams[other->upstream_count - 1];

	world->servers[0].mode = SILENT;
	assert_int_equal(look_up(world, "other.example", &result), 0);
	run_until(world, world->servers[0].asked == 1);
	group->servers[0].port = world->servers[1].port;
	group->server_count = 1;
	change_policy(world, other);
	run_until(world, result.done == 1);
	assert_int_equal(result.count, 1);
	assert_int_equal(world->servers[1].asked, 1);
}

static void test_own_lookups_are_limited(void **state)
{
	struct world *world = *state;
	struct lookup_result result = {0};
	unsigned int taken = 0;

	world->servers[0].mode = HOLD;
	for (; taken < 100; taken++) {
		if (look_up(world, "other.example", &result) != 0)
			break;
	}
	assert_int_equal(taken, 16);
	run_until(world, world->servers[0].held_size > 0);
	release(&world->servers[0]);
	run_until(world, result.done == taken);
	assert_int_equal(world->servers[0].asked, 1);
}

static unsigned int checks_ended; /* outlives the test: closing ends them */

static void test_close_ends_checks(void **state)
{
	struct world *world = *state;

	checks_ended = 0;
	world->servers[0].mode = SILENT;
	assert_int_equal(check(world, "a.allowed.example", &checks_ended), 0);
	run_until(world, world->servers[0].asked == 1);
	/* teardown closes */
}

static void test_closing_has_ended_the_check(void **state)
{
	(void)state;
	assert_int_equal(checks_ended, 1);
}

/* --- queries of one turn; of an upstream without a resolver, which is told when the turn ends --- */

/* Upstream groups of an upstream that is the test's own: "" as the world's policy has it, and "lost", whose first server cannot be sent to.
 */
struct turn {
	struct world *world;
	struct upstream *upstream;
	struct upstream_group groups[2];
	struct policy policy;
	unsigned int asked, ended, seen;
	uint16_t ports[64]; /* that queries came from */
};

static void turn_ended(void *context, const struct cache_key *key, struct answer *answer)
{
	struct turn *turn = context;

	(void)key;
	turn->ended += answer != NULL;
	answer_free(answer);
}

static void turn_begin(struct turn *turn, struct world *world)
{
	memset(turn, 0, sizeof(*turn));
	turn->world = world;
	turn->groups[0] = turn->groups[1] = world->policy->upstreams[world->policy->upstream_count - 1];
	strcpy(turn->groups[0].name, "lost");
	/* A broadcast address, and a socket that may not send there. */
	assert_true(address_parse("255.255.255.255", &turn->groups[0].servers[0].address));
	turn->policy.upstreams = turn->groups;
	turn->policy.upstream_count = 2;
	turn->upstream = world->own = upstream_new(&world->loop, turn_ended, NULL, turn);
	assert_non_null(turn->upstream);
	assert_int_equal(upstream_set_groups(turn->upstream, &turn->policy), 0);
}

static struct cache_key turn_ask(struct turn *turn, const char *group)
{
	struct cache_key key;
	struct domain name;
	char text[32];

	snprintf(text, sizeof(text), "n%u.allowed.example", turn->asked++);
	assert_null(domain_parse(text, &name));
	cache_key_init(&key, &name, TYPE_A, false, false, group);
	assert_int_equal(upstream_ask(turn->upstream, &key), 0);
	return key;
}

/* Take what has come to a server. Return: how many. */
static unsigned int turn_take(struct turn *turn, unsigned int server)
{
	struct sockaddr_in from;
	socklen_t length = sizeof(from);
	unsigned int count = 0;
	uint8_t query[512];

	while (recvfrom(turn->world->servers[server].udp_fd, query, sizeof(query), MSG_DONTWAIT, (struct sockaddr *)&from, &length) > 0) {
		assert_true(turn->seen < 64);
		turn->ports[turn->seen++] = from.sin_port;
		count++;
	}
	return count;
}

static void test_queries_of_a_turn_leave_together(void **state)
{
	struct turn turn;

	turn_begin(&turn, *state);
	while (turn.asked < UPSTREAM_BATCH + 8)
		turn_ask(&turn, "");
	assert_int_equal(turn_take(&turn, 0), 0);
	assert_int_equal(turn.upstream->pool4.turn_queries, 8); /* through a second socket */
	upstream_flush(turn.upstream);
	assert_int_equal(turn_take(&turn, 0), UPSTREAM_BATCH + 8);
	assert_int_equal(upstream_counters(turn.upstream)->sent, UPSTREAM_BATCH + 8);
	for (unsigned int i = 0; i < UPSTREAM_BATCH; i++)
		assert_int_equal(turn.ports[i], turn.ports[0]);
	for (unsigned int i = UPSTREAM_BATCH; i < UPSTREAM_BATCH + 8; i++)
		assert_int_equal(turn.ports[i], turn.ports[UPSTREAM_BATCH]);
}

static void test_each_turn_has_a_socket_of_its_own(void **state)
{
	struct turn turn;
	unsigned int changes = 0;

	turn_begin(&turn, *state);
	while (turn.asked < 30) {
		turn_ask(&turn, "");
		upstream_flush(turn.upstream);
		assert_int_equal(turn_take(&turn, 0), 1);
	}
	for (unsigned int i = 1; i < turn.seen; i++)
		changes += turn.ports[i] != turn.ports[i - 1];
	assert_true(changes > 10);
}

static void test_answers_of_a_turn_are_taken(void **state)
{
	struct turn turn;

	turn_begin(&turn, *state);
	while (turn.asked < UPSTREAM_BATCH + 8)
		turn_ask(&turn, "");
	upstream_flush(turn.upstream);
	run_until(turn.world, turn.ended == turn.asked);
	assert_int_equal(upstream_counters(turn.upstream)->sent, turn.asked);
	assert_int_equal(upstream_in_flight(turn.upstream), 0);
}

/* The others of the turn are sent, those before and those after it. */
static void test_query_that_cannot_be_sent_goes_to_the_next_server(void **state)
{
	struct turn turn;

	turn_begin(&turn, *state);
	turn_ask(&turn, "");
	turn_ask(&turn, "lost");
	turn_ask(&turn, "lost");
	turn_ask(&turn, "");
	upstream_flush(turn.upstream);
	assert_int_equal(turn_take(&turn, 0), 2);
	assert_int_equal(turn_take(&turn, 1), 2);
	turn_ask(&turn, "lost"); /* the first server is known to fail */
	assert_ptr_equal(turn.upstream->pool4.queue, turn.upstream->pool4.queue->queue_prev);
	assert_int_equal(turn.upstream->pool4.queue->index, 1);
	upstream_flush(turn.upstream);
	assert_int_equal(turn_take(&turn, 1), 1);
	assert_int_equal(upstream_counters(turn.upstream)->sent, 5);
	assert_int_equal(upstream_in_flight(turn.upstream), 5);
}

static void test_turn_ends_when_nothing_can_be_sent(void **state)
{
	struct turn turn;

	turn_begin(&turn, *state);
	turn.groups[0].server_count = 1;
	assert_int_equal(upstream_set_groups(turn.upstream, &turn.policy), 0);
	turn_ask(&turn, "lost");
	turn_ask(&turn, "lost");
	upstream_flush(turn.upstream);
	assert_null(turn.upstream->pool4.queue);
	assert_null(turn.upstream->tries);
	assert_int_equal(upstream_counters(turn.upstream)->sent, 0);
	assert_int_equal(upstream_in_flight(turn.upstream), 2); /* the network may be back before the deadline */
}

static void test_lookup_that_ends_takes_its_queued_query_along(void **state)
{
	struct cache_key key;
	struct turn turn;

	turn_begin(&turn, *state);
	turn_ask(&turn, "");
	key = turn_ask(&turn, "");
	turn_ask(&turn, "");
	upstream_cancel(turn.upstream, &key);
	upstream_flush(turn.upstream);
	assert_int_equal(turn_take(&turn, 0), 2);
	assert_int_equal(upstream_counters(turn.upstream)->sent, 2);
	turn_ask(&turn, ""); /* teardown() closes it with a query that was not sent */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_allowed_name_is_granted_before_the_reply),
		TEST(test_cached_answer_is_granted_again),
		TEST(test_ech_is_removed_from_a_cached_answer),
		TEST(test_denied_name_never_reaches_an_upstream),
		TEST(test_missing_family_is_nodata),
		TEST(test_equal_questions_are_joined),
		TEST(test_silent_server_is_left_for_the_next),
		TEST(test_revived_server_is_noticed),
		TEST(test_refusal_leads_to_the_next_server_at_once),
		TEST(test_refusal_of_all_servers_is_servfail),
		TEST(test_silence_of_all_servers_is_servfail),
		TEST(test_answer_past_its_end_serves_when_servers_fail),
		TEST(test_nobody_waits_for_servers_that_are_known_to_fail),
		TEST(test_late_answer_of_the_first_server_counts),
		TEST(test_truncated_answer_is_asked_for_over_tcp),
		TEST(test_broken_tcp_leads_to_the_next_server),
		TEST(test_forged_answers_are_ignored),
		TEST(test_server_that_folds_case_is_asked_without_0x20),
		TEST(test_one_answer_in_another_case_does_not_end_0x20),
		TEST(test_failed_grant_is_servfail),
		TEST(test_failed_grant_of_one_network_leaves_others_alone),
		TEST(test_cut_off_reply_grants_nothing),
		TEST(test_chain_is_chased),
		TEST(test_virtual_addresses_are_shown_and_granted),
		TEST(test_chain_to_virtual_addresses_is_kept),
		TEST(test_without_virtual_address_nothing_is_shown),
		TEST(test_own_question_maps_without_use),
		TEST(test_map_is_told_that_an_answer_is_past_its_end),
		TEST(test_refresh_makes_no_lease_longer),
		TEST(test_pointer_is_answered_from_leases),
		TEST(test_any_is_answered_with_one_record),
		TEST(test_refused_messages_get_a_code),
		TEST(test_policy_of_the_moment_judges_the_answer),
		TEST(test_denied_name_does_not_leave_again),
		TEST(test_denied_name_does_not_leave_over_tcp),
		TEST(test_lookup_goes_on_for_those_that_may_still_ask),
		TEST(test_lookups_of_a_network_that_is_gone_end),
		TEST(test_lookups_begin_anew_when_upstreams_change),
		TEST(test_denied_target_of_a_chain_does_not_leave_again),
		TEST(test_end_of_audit_is_reported_for_waiting_questions),
		TEST(test_too_many_lookups_of_a_source_are_servfail),
		TEST(test_closed_listener_takes_its_questions_along),
		TEST(test_tcp_questions_are_pipelined),
		TEST(test_tcp_question_flood_is_answered_in_full),
		TEST(test_oversized_tcp_question_ends_the_connection),
		TEST(test_tcp_connections_of_one_source_are_limited),
		TEST(test_close_with_lookups_in_flight),
		TEST(test_check_grants_without_a_client),
		TEST(test_check_of_a_denied_name_ends_without_a_word),
		TEST(test_check_joins_the_look_up_of_an_app),
		TEST(test_check_ends_when_no_server_answers),
		TEST(test_own_lookup_knows_no_policy),
		TEST(test_own_lookup_takes_so_many_addresses),
		TEST(test_own_lookup_follows_a_chain),
		TEST(test_own_lookup_joins_an_apps_and_the_other_way_round),
		TEST(test_own_lookup_ends_when_no_server_answers),
		TEST(test_own_lookup_is_cancelled),
		TEST(test_own_lookups_begin_anew_when_upstreams_change),
		TEST(test_own_lookups_are_limited),
		TEST(test_close_ends_checks),
		cmocka_unit_test(test_closing_has_ended_the_check),
		TEST(test_queries_of_a_turn_leave_together),
		TEST(test_each_turn_has_a_socket_of_its_own),
		TEST(test_answers_of_a_turn_are_taken),
		TEST(test_query_that_cannot_be_sent_goes_to_the_next_server),
		TEST(test_turn_ends_when_nothing_can_be_sent),
		TEST(test_lookup_that_ends_takes_its_queued_query_along),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
