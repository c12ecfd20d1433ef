/* SPDX-License-Identifier: MIT */
/*
 * The servers of all groups, and what we know about them.
 *
 * Theory of operation: a server that left a try unanswered, and gave no other answer meanwhile, is not chosen first any more. Every
 * UPSTREAM_PROBE_MS one lookup asks it as well, beside the server of its choice, so that nobody waits for a dead server and a
 * revived one is noticed. That is why tries outlive their lookup: the probe's answer usually comes second.
 */

#include "resolver/upstream_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "resolver/upstream_tls.h"

static struct server_key server_key(const struct upstream_server *server)
{
	struct server_key key = {.octets = {server->address.family, (uint8_t)(server->port >> 8), (uint8_t)server->port}};

	memcpy(key.octets + 3, server->address.bytes, sizeof(server->address.bytes));
	memcpy(key.octets + 3 + sizeof(server->address.bytes), &server->tls_name, sizeof(server->tls_name));
	return key;
}

struct server_health *upstream_servers_health(struct upstream *upstream, const struct upstream_server *server)
{
	const struct server_key key = server_key(server);
	struct server_health *health = upstream->latest;

	if (health && memcmp(&health->key, &key, sizeof(key)) == 0)
		return health;
	HASH_FIND(hh, upstream->health, &key, sizeof(key), health);
	upstream->latest = health;
	return health;
}

bool upstream_servers_failed(struct upstream *upstream, const struct upstream_server *server)
{
	const struct server_health *health = upstream_servers_health(upstream, server);

	return health && health->failed;
}

void upstream_servers_answered(struct upstream *upstream, const struct upstream_server *server)
{
	struct server_health *health = upstream_servers_health(upstream, server);

	if (!health)
		return;
	health->failed = false;
	health->answered = uv_now(upstream->loop);
}

void upstream_servers_failing(struct upstream *upstream, const struct upstream_server *server, uint64_t sent)
{
	struct server_health *health = upstream_servers_health(upstream, server);

	if (!health || health->failed || (health->answered && health->answered >= sent))
		return;
	health->failed = true;
	health->probe_at = uv_now(upstream->loop) + UPSTREAM_PROBE_MS;
}

bool upstream_servers_plain(struct upstream *upstream, const struct upstream_server *server)
{
	const struct server_health *health = upstream_servers_health(upstream, server);

	return health && health->plain_until > uv_now(upstream->loop);
}

void upstream_servers_folds(struct upstream *upstream, const struct upstream_server *server)
{
	struct server_health *health = upstream_servers_health(upstream, server);

	if (health)
		health->plain_until = uv_now(upstream->loop) + UPSTREAM_PLAIN_MS;
}

const struct upstream_group_servers *upstream_servers_of(const struct upstream *upstream, const char *name)
{
	for (size_t i = 0; i < upstream->set.group_count; i++) {
		if (!strcmp(upstream->set.groups[i].name, name))
			return &upstream->set.groups[i];
	}
	return NULL;
}

static void health_forget(struct upstream *upstream)
{
	struct server_health *health, *next;

	upstream->latest = NULL;
	HASH_ITER (hh, upstream->health, health, next) {
		HASH_DEL(upstream->health, health);
		free(health);
	}
}

static void health_remember(struct upstream *upstream, const struct upstream_server *server)
{
	struct server_health *health;

	if (upstream_servers_health(upstream, server))
		return;
	health = calloc(1, sizeof(*health));
	if (!health)
		return; /* without it the server counts as healthy */
	health->key = server_key(server);
	HASH_ADD(hh, upstream->health, key, sizeof(health->key), health);
	if (!health->hh.tbl)
		free(health);
}

/* --- the set of a policy --- */

/* Nothing asks there any more. */
static void set_close(struct upstream_set *set)
{
	for (size_t i = 0; i < set->dot_count; i++)
		upstream_dot_close(set->dots[i]);
	for (size_t i = 0; i < set->authority_count; i++)
		upstream_tls_context_free(set->authorities[i].context);
	free(set->authorities);
	free(set->dots);
	free(set->groups);
	*set = (struct upstream_set){.groups = NULL};
}

/* Return: NULL when out of memory. */
static struct upstream_tls_context *authorities_for(struct upstream_set *set, const char *ca)
{
	struct upstream_authorities *fresh = &set->authorities[set->authority_count];

	for (size_t i = 0; i < set->authority_count; i++) {
		const char *other = set->authorities[i].ca;

		if (ca == other || (ca && other && strcmp(ca, other) == 0))
			return set->authorities[i].context;
	}
	*fresh = (struct upstream_authorities){.ca = ca, .context = upstream_tls_context_new(ca)};
	if (fresh->context)
		set->authority_count++;
	return fresh->context;
}

/* Groups share a server, and so its connection, when they check it in the same way. Return: NULL when out of memory. */
static struct upstream_dot *dot_for(struct upstream *upstream, struct upstream_set *set, const struct upstream_server *server,
				    const char *ca)
{
	struct upstream_tls_context *context = authorities_for(set, ca);
	struct upstream_dot *dot;

	if (!context)
		return NULL;
	for (size_t i = 0; i < set->dot_count; i++) {
		if (upstream_dot_is(set->dots[i], server, context))
			return set->dots[i];
	}
	dot = upstream_dot_new(upstream, server, context);
	if (dot)
		set->dots[set->dot_count++] = dot;
	return dot;
}

static int group_fill(struct upstream *upstream, struct upstream_set *set, const struct upstream_group *from)
{
	struct upstream_group_servers *group = &set->groups[set->group_count++];

	memcpy(group->name, from->name, sizeof(group->name));
	memcpy(group->servers, from->servers, sizeof(group->servers));
	group->count = from->server_count;
	for (size_t i = 0; i < group->count; i++) {
		if (!group->servers[i].tls_name)
			continue;
		group->dots[i] = dot_for(upstream, set, &group->servers[i], from->ca);
		if (!group->dots[i])
			return -ENOMEM;
		group->servers[i] = *upstream_dot_server(group->dots[i]);
	}
	return 0;
}

static int set_build(struct upstream *upstream, struct upstream_set *set, const struct policy *policy)
{
	int error = 0;

	set->groups = calloc(policy->upstream_count + 1, sizeof(*set->groups));
	set->dots = calloc(policy->upstream_count * POLICY_SERVERS_MAX + 1, sizeof(struct upstream_dot *));
	set->authorities = calloc(policy->upstream_count + 1, sizeof(*set->authorities));
	if (!set->groups || !set->dots || !set->authorities)
		return -ENOMEM;
	for (size_t i = 0; i < policy->upstream_count && !error; i++)
		error = group_fill(upstream, set, &policy->upstreams[i]);
	return error;
}

int upstream_set_groups(struct upstream *upstream, const struct policy *policy)
{
	struct upstream_set set = {.groups = NULL};
	int error = set_build(upstream, &set, policy);

	if (error) {
		set_close(&set);
		return error;
	}
	upstream_give_up(upstream);
	health_forget(upstream);
	set_close(&upstream->set);
	upstream->set = set;
	for (size_t i = 0; i < set.group_count; i++) {
		for (size_t j = 0; j < set.groups[i].count; j++)
			health_remember(upstream, &set.groups[i].servers[j]);
	}
	return 0;
}

void upstream_servers_close(struct upstream *upstream)
{
	health_forget(upstream);
	set_close(&upstream->set);
}
