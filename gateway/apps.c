/* SPDX-License-Identifier: MIT */
/*
 * Container names from Docker's resolver.
 *
 * Theory of operation
 *
 * One entry per address holds the name and when it is stale, and, while its question is under way (docker.c), all who wait for it. Where
 * there is no Docker the kernel refuses, or nobody answers: then nobody is asked for a while.
 *
 * An entry whose name has become stale stays until it is asked about again, because such a question takes no token.
 */
#include "gateway/apps.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "common/hash.h"
#include "gateway/bucket.h"
#include "gateway/docker.h"

#define SILENCE_MAX 2 /* questions in a row without an answer */

struct waiter {
	struct waiter *next;
	apps_done done;
	void *context;
};

struct app {
	UT_hash_handle hh; /* in order of asking: the first is the oldest */
	struct apps *apps;
	struct address address;
	uint64_t stale;         /* ms of the loop */
	bool known;             /* it had a name when Docker was last asked about it */
	bool asking;            /* its question is under way */
	struct waiter *waiters; /* owned; newest first */
	char name[APPS_NAME_MAX + 1];
};

/* The tokens of one network. */
struct quota {
	UT_hash_handle hh;
	struct prefix subnet;
	struct bucket bucket;
};

struct apps {
	uv_loop_t *loop;
	struct apps_options options;
	struct docker *docker; /* owned */
	struct app *cache;     /* owned, hash */
	struct quota *quotas;  /* owned, hash */
	unsigned int asking_count, silence;
	uint64_t pause_until;
	bool closing;
};

struct apps *apps_new(uv_loop_t *loop, const struct apps_options *options)
{
	struct apps *apps = calloc(1, sizeof(*apps));

	if (!apps)
		return NULL;
	apps->loop = loop;
	apps->options = *options;
	if (!apps->options.refused_ms)
		apps->options.refused_ms = APPS_REFUSED_MS;
	apps->docker = docker_new(loop, options->port ? options->port : DOCKER_PORT);
	if (apps->docker)
		return apps;
	free(apps);
	return NULL;
}

static void forget(struct apps *apps, struct app *app)
{
	HASH_DEL(apps->cache, app);
	free(app);
}

static void forget_quota(struct apps *apps, struct quota *quota)
{
	HASH_DEL(apps->quotas, quota);
	free(quota);
}

/* The newest comes first in the list. Return: the list turned round. */
static struct waiter *in_order(struct waiter *newest)
{
	struct waiter *turned = NULL;

	for (struct waiter *next; newest; newest = next) {
		next = newest->next;
		newest->next = turned;
		turned = newest;
	}
	return turned;
}

/* The question has ended, app->name is what came of it. Those who waited are told. */
static void end_asking(struct app *app, uint64_t keep_ms)
{
	struct waiter *waiter = in_order(app->waiters);
	char name[sizeof(app->name)];

	app->apps->asking_count--;
	app->asking = false;
	app->waiters = NULL;
	app->stale = uv_now(app->apps->loop) + keep_ms;
	memcpy(name, app->name, sizeof(name)); /* a waiter may ask for others, and so push this one out of the cache */
	for (struct waiter *next; waiter; waiter = next) {
		next = waiter->next;
		waiter->done(waiter->context, name);
		free(waiter);
	}
}

static void end_without_name(struct app *app)
{
	app->name[0] = '\0';
	end_asking(app, APPS_CACHE_NONE_MS);
}

/* A question got no answer. */
static void note_silence(struct apps *apps)
{
	if (++apps->silence >= SILENCE_MAX) {
		apps->silence = 0;
		apps->pause_until = uv_now(apps->loop) + APPS_SILENCE_MS;
	}
}

/* Nobody listens at 127.0.0.11. */
static void note_refusal(struct apps *apps)
{
	apps->silence = 0;
	apps->pause_until = uv_now(apps->loop) + apps->options.refused_ms;
}

/* The first label of the answer's PTR record. Return: false when there is none. */
static bool read_name(const struct answer *answer, char out[static APPS_NAME_MAX + 1])
{
	for (size_t i = 0; i < answer->answer_count; i++) {
		const struct record *record = &answer->records[i];
		struct domain name;
		size_t size;

		if (record->type != TYPE_PTR || domain_from_wire(record->rdata, record->rdata_length, &name) == 0 || name.length <= 1)
			continue;
		size = name.wire[0] < APPS_NAME_MAX ? name.wire[0] : APPS_NAME_MAX;
		for (size_t j = 0; j < size; j++)
			out[j] = name.wire[1 + j] > ' ' && name.wire[1 + j] < 0x7f ? (char)name.wire[1 + j] : '?';
		out[size] = '\0';
		return true;
	}
	return false;
}

static void on_answer(void *context, enum docker_outcome outcome, const struct answer *answer)
{
	struct app *app = context;

	switch (outcome) {
	case DOCKER_ANSWERED:
		app->apps->silence = 0;
		app->known = read_name(answer, app->name);
		if (app->known) {
			end_asking(app, APPS_CACHE_MS);
			return;
		}
		break;
	case DOCKER_SILENT:
		note_silence(app->apps);
		app->known = false;
		break;
	case DOCKER_FAILED: note_refusal(app->apps); break;
	}
	end_without_name(app);
}

/* 5.1.201.10.in-addr.arpa */
static bool pointer_name(const struct address *address, struct domain *out)
{
	char text[64];

	snprintf(text, sizeof(text), "%u.%u.%u.%u.in-addr.arpa", address->bytes[3], address->bytes[2], address->bytes[1],
		 address->bytes[0]);
	return domain_parse(text, out) == NULL;
}

/* Room for one more network: quotas that say nothing are given up. */
static bool make_room(struct apps *apps)
{
	struct quota *quota, *next;

	if (HASH_COUNT(apps->quotas) < APPS_NETWORKS_MAX)
		return true;
	HASH_ITER (hh, apps->quotas, quota, next) {
		if (bucket_is_full(&quota->bucket, uv_now(apps->loop)))
			forget_quota(apps, quota);
	}
	return HASH_COUNT(apps->quotas) < APPS_NETWORKS_MAX;
}

static struct quota *new_quota(struct apps *apps, const struct prefix *subnet)
{
	struct quota *quota = make_room(apps) ? calloc(1, sizeof(*quota)) : NULL;

	if (!quota)
		return NULL;
	quota->subnet = *subnet;
	HASH_ADD(hh, apps->quotas, subnet, sizeof(quota->subnet), quota);
	if (quota->hh.tbl)
		return quota;
	free(quota);
	return NULL;
}

static bool take_token(struct apps *apps, const struct prefix *subnet)
{
	struct quota *quota;

	HASH_FIND(hh, apps->quotas, subnet, sizeof(*subnet), quota);
	if (!quota)
		quota = new_quota(apps, subnet);
	return quota && bucket_take(&quota->bucket, uv_now(apps->loop), APPS_NEW_MS, APPS_NEW_BURST);
}

/* An entry for the address, perhaps at the cost of the oldest one. NULL: out of memory or all are being asked. */
static struct app *new_app(struct apps *apps, const struct address *address)
{
	struct app *oldest = apps->cache, *app;

	if (HASH_COUNT(apps->cache) >= APPS_CACHE_MAX) {
		while (oldest && oldest->asking)
			oldest = oldest->hh.next;
		if (!oldest)
			return NULL;
		forget(apps, oldest);
	}
	app = calloc(1, sizeof(*app));
	if (!app)
		return NULL;
	app->apps = apps;
	app->address = *address;
	HASH_ADD(hh, apps->cache, address, sizeof(app->address), app);
	if (!app->hh.tbl) {
		free(app);
		return NULL;
	}
	return app;
}

static bool may_ask(const struct apps *apps)
{
	return !apps->closing && apps->asking_count < APPS_ASKING_MAX && uv_now(apps->loop) >= apps->pause_until;
}

/* Begin a question. @known: it takes no token. NULL: there is nobody to ask. */
static struct app *begin_asking(struct apps *apps, const struct prefix *subnet, const struct address *address, bool known)
{
	struct app *app = known || take_token(apps, subnet) ? new_app(apps, address) : NULL;
	struct domain name;

	if (!app)
		return NULL;
	app->known = known;
	if (!pointer_name(address, &name))
		return NULL;
	app->asking = true; /* if nobody listens, those who are told of it must not push it out of the cache */
	if (!docker_ask(apps->docker, &name, TYPE_PTR, APPS_TIMEOUT_MS, on_answer, app)) {
		app->asking = false;
		note_refusal(apps);
		return NULL;
	}
	apps->asking_count++;
	return app;
}

/* The entry of an address: being asked about or not stale. NULL: nothing is known, and nobody can be asked. */
static struct app *find_app(struct apps *apps, const struct prefix *subnet, const struct address *address)
{
	struct app *app;
	bool known;

	HASH_FIND(hh, apps->cache, address, sizeof(*address), app);
	if (app && (app->asking || app->stale > uv_now(apps->loop)))
		return app;
	if (!may_ask(apps))
		return NULL;
	known = app && app->known;
	if (app)
		forget(apps, app);
	return begin_asking(apps, subnet, address, known);
}

static bool add_waiter(struct app *app, apps_done done, void *context)
{
	struct waiter *waiter = calloc(1, sizeof(*waiter));

	if (!waiter)
		return false;
	waiter->done = done;
	waiter->context = context;
	LL_PREPEND(app->waiters, waiter);
	return true;
}

void apps_lookup(struct apps *apps, const struct prefix *subnet, const struct address *address, apps_done done, void *context)
{
	struct app *app = NULL;

	if (address->family == AF_INET && prefix_contains(subnet, address))
		app = find_app(apps, subnet, address);
	if (!app || !app->asking || !add_waiter(app, done, context))
		done(context, app && !app->asking ? app->name : "");
}

const char *apps_ready(const struct apps *apps, const struct prefix *subnet, const struct address *address)
{
	struct app *app;

	if (address->family != AF_INET || !prefix_contains(subnet, address))
		return "";
	HASH_FIND(hh, apps->cache, address, sizeof(*address), app);
	if (app && app->asking)
		return NULL;
	if (app && app->stale > uv_now(apps->loop))
		return app->name;
	return may_ask(apps) ? NULL : "";
}

const char *apps_known(const struct apps *apps, const struct address *address)
{
	struct app *app;

	HASH_FIND(hh, apps->cache, address, sizeof(*address), app);
	return app && !app->asking && (app->name[0] || app->stale > uv_now(apps->loop)) ? app->name : NULL;
}

void apps_close(struct apps *apps)
{
	struct app *app, *next;
	struct quota *quota, *next_quota;

	if (!apps || apps->closing)
		return;
	apps->closing = true;
	docker_close(apps->docker); /* all who wait are told */
	HASH_ITER (hh, apps->cache, app, next) {
		forget(apps, app);
	}
	HASH_ITER (hh, apps->quotas, quota, next_quota) {
		forget_quota(apps, quota);
	}
	free(apps);
}
