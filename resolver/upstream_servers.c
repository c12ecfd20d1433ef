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

static struct server_key server_key(const struct upstream_server *server)
{
	struct server_key key = {.octets = {server->address.family, (uint8_t)(server->port >> 8), (uint8_t)server->port}};

	memcpy(key.octets + 3, server->address.bytes, sizeof(server->address.bytes));
	return key;
}

struct server_health *upstream_servers_health(struct upstream *upstream, const struct upstream_server *server)
{
	const struct server_key key = server_key(server);
	struct server_health *health;

	HASH_FIND(hh, upstream->health, &key, sizeof(key), health);
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
	for (size_t i = 0; i < upstream->group_count; i++) {
		if (!strcmp(upstream->groups[i].name, name))
			return &upstream->groups[i];
	}
	return NULL;
}

static void health_forget(struct upstream *upstream)
{
	struct server_health *health, *next;

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

int upstream_set_groups(struct upstream *upstream, const struct policy *policy)
{
	struct upstream_group_servers *groups = calloc(policy->upstream_count + 1, sizeof(*groups));

	if (!groups)
		return -ENOMEM;
	health_forget(upstream);
	for (size_t i = 0; i < policy->upstream_count; i++) {
		const struct upstream_group *from = &policy->upstreams[i];

		memcpy(groups[i].name, from->name, sizeof(groups[i].name));
		memcpy(groups[i].servers, from->servers, sizeof(groups[i].servers));
		groups[i].count = from->server_count;
		for (size_t j = 0; j < from->server_count; j++)
			health_remember(upstream, &from->servers[j]);
	}
	free(upstream->groups);
	upstream->groups = groups;
	upstream->group_count = policy->upstream_count;
	return 0;
}

void upstream_servers_close(struct upstream *upstream)
{
	health_forget(upstream);
	free(upstream->groups);
	upstream->groups = NULL;
	upstream->group_count = 0;
}
