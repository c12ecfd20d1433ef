/* SPDX-License-Identifier: MIT */
/*
 * Do the servers of the policy that are asked over TLS answer?
 *
 * Theory of operation: the resolver's own upstream.c asks them, in a loop of its own, so that what works here works there. Each server is
 * a group of its own, and each group is asked for the name servers of the root. What the upstream has to say about a server is the reason
 * when there is no answer. A server that refuses the root has answered: it may be one for one zone only.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "gateway/doctor.h"
#include "resolver/upstream.h"

#define SERVERS_MAX 64 /* the rest is not asked, which is said */
#define SAID_MAX    1024

struct probe {
	const struct upstream_group *group;
	const struct upstream_server *server;
	bool ended, answered;
	unsigned int milliseconds;
	char said[SAID_MAX]; /* "": nothing */
};

struct round {
	uv_loop_t loop;
	struct upstream *upstream;
	struct policy policy; /* one group for each probe, named by its number */
	struct probe probes[SERVERS_MAX];
	size_t count, open;
	bool more;
	uint64_t start; /* ms */
};

static void on_done(void *context, const struct cache_key *key, struct answer *answer)
{
	struct round *round = context;
	struct probe *probe = &round->probes[strtoul(key->upstream, NULL, 10)];

	/* SERVFAIL is also what upstream.c says when no server can be asked; then it has said why. */
	probe->answered = answer && !probe->said[0];
	probe->ended = true;
	probe->milliseconds = (unsigned int)(uv_now(&round->loop) - round->start);
	answer_free(answer);
	if (!--round->open)
		uv_stop(&round->loop);
}

/* @text begins with the server. */
static void on_say(void *context, bool trouble, const char *text)
{
	struct round *round = context;
	char server[POLICY_SERVER_MAX];

	for (size_t i = 0; trouble && i < round->count; i++) {
		size_t length = strlen(policy_server_format(round->probes[i].server, server));

		if (strncmp(text, server, length) == 0 && strncmp(text + length, ": ", 2) == 0)
			snprintf(round->probes[i].said, SAID_MAX, "%s", text + length + 2);
	}
}

static void add_probe(struct round *round, const struct upstream_group *group, const struct upstream_server *server)
{
	struct upstream_group *own = &round->policy.upstreams[round->count];

	if (round->count == SERVERS_MAX) {
		round->more = true;
		return;
	}
	snprintf(own->name, sizeof(own->name), "%zu", round->count);
	own->servers[0] = *server;
	own->server_count = 1;
	own->ca = group->ca;
	round->probes[round->count++] = (struct probe){.group = group, .server = server};
}

static void collect(struct round *round, const struct policy *policy)
{
	for (size_t i = 0; i < policy->upstream_count; i++) {
		const struct upstream_group *group = &policy->upstreams[i];

		for (size_t j = 0; j < group->server_count; j++) {
			if (group->servers[j].tls_name)
				add_probe(round, group, &group->servers[j]);
		}
	}
	round->policy.upstream_count = round->count;
}

static void ask_all(struct round *round)
{
	static const struct domain root = {.length = 1};
	struct cache_key key;

	uv_update_time(&round->loop);
	round->start = uv_now(&round->loop);
	for (size_t i = 0; i < round->count; i++) {
		cache_key_init(&key, &root, TYPE_NS, false, false, round->policy.upstreams[i].name);
		round->open += upstream_ask(round->upstream, &key) == 0;
	}
	if (round->open)
		uv_run(&round->loop, UV_RUN_DEFAULT);
}

static void report(struct doctor *doctor, const struct round *round, const struct probe *probe)
{
	const char *group = probe->group->name[0] ? probe->group->name : "default";
	char server[POLICY_SERVER_MAX];
	bool others = false;

	for (size_t i = 0; i < round->count; i++)
		others |= round->probes[i].group == probe->group && round->probes[i].answered;
	policy_server_format(probe->server, server);
	if (probe->answered)
		doctor_say(doctor, DOCTOR_OK, "upstream", NULL, "%s (upstream %s) answered in %u ms, handshake included", server, group,
			   probe->milliseconds);
	else
		doctor_say(doctor, others ? DOCTOR_WARNING : DOCTOR_PROBLEM, "upstream",
			   probe->said[0] ? NULL : "is the server up, and does the uplink lead there?", "%s (upstream %s): %s", server,
			   group, probe->said[0] ? probe->said : "no answer within 3 s");
}

static bool run(struct round *round, const struct policy *policy)
{
	round->policy.upstreams = calloc(SERVERS_MAX + 1, sizeof(*round->policy.upstreams));
	if (!round->policy.upstreams)
		return false;
	collect(round, policy);
	if (!round->count)
		return true;
	round->upstream = upstream_new(&round->loop, on_done, on_say, round);
	if (!round->upstream)
		return false;
	if (upstream_set_groups(round->upstream, &round->policy) != 0) {
		upstream_close(round->upstream);
		return false;
	}
	ask_all(round);
	upstream_close(round->upstream);
	return true;
}

void doctor_upstream_tls(struct doctor *doctor)
{
	struct round *round = calloc(1, sizeof(*round));
	bool good = round && uv_loop_init(&round->loop) == 0;

	if (good) {
		good = run(round, doctor->policy);
		uv_run(&round->loop, UV_RUN_DEFAULT); /* the close callbacks */
		uv_loop_close(&round->loop);
	}
	if (!good)
		doctor_say(doctor, DOCTOR_PROBLEM, "upstream", NULL, "out of memory");
	for (size_t i = 0; good && i < round->count; i++)
		report(doctor, round, &round->probes[i]);
	if (good && round->more)
		doctor_say(doctor, DOCTOR_OK, "upstream", NULL, "servers with TLS behind the first %d were not asked", SERVERS_MAX);
	if (round)
		free(round->policy.upstreams);
	free(round);
}
