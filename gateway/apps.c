/* SPDX-License-Identifier: MIT */
/*
 * Container names from Docker's resolver.
 *
 * Theory of operation
 *
 * One entry per address holds the name and when it is stale. While its question is under way the entry is also in the list `asking`, oldest
 * first, with all who wait for it; one timer ends the oldest. The socket is connected to 127.0.0.11, so only Docker's resolver can answer;
 * id and question are compared as well. Where there is no Docker the kernel refuses, or nobody answers: then nobody is asked for a while.
 * libuv stops watching a socket that has an error, so it is closed, and the next question opens another one.
 *
 * An entry whose name has become stale stays until it is asked about again, because such a question takes no token.
 */
#include "gateway/apps.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utlist.h>

#include "common/hash.h"
#include "gateway/bucket.h"
#include "resolver/message.h"

#define DOCKER_RESOLVER 0x7f00000bU /* 127.0.0.11 */
#define QUERY_MAX       300
#define SILENCE_MAX     2 /* questions in a row without an answer */

struct waiter {
	struct waiter *next;
	apps_done done;
	void *context;
};

/* What exists only while a question is under way. */
struct asking {
	size_t query_size;
	uint16_t id;
	uint64_t deadline;      /* ms of the loop */
	struct waiter *waiters; /* owned; newest first */
	uint8_t query[QUERY_MAX];
};

struct app {
	UT_hash_handle hh;       /* in order of asking: the first is the oldest */
	struct app *prev, *next; /* in apps->asking */
	struct address address;
	uint64_t stale;        /* ms of the loop */
	bool known;            /* it had a name when Docker was last asked about it */
	struct asking *asking; /* owned; NULL: the name is known */
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
	uv_timer_t timer;
	uv_poll_t *poll; /* owned by the loop, freed in its close callback; NULL while there is no socket */
	int fd;
	struct app *cache;    /* owned, hash */
	struct app *asking;   /* those of the cache whose question is under way, oldest first */
	struct quota *quotas; /* owned, hash */
	unsigned int asking_count, silence;
	uint64_t pause_until;
	bool closing;
};

static void on_deadline(uv_timer_t *timer);

struct apps *apps_new(uv_loop_t *loop, const struct apps_options *options)
{
	struct apps *apps = calloc(1, sizeof(*apps));

	if (!apps)
		return NULL;
	apps->loop = loop;
	apps->options = *options;
	if (!apps->options.port)
		apps->options.port = APPS_PORT;
	if (!apps->options.refused_ms)
		apps->options.refused_ms = APPS_REFUSED_MS;
	apps->fd = -1;
	if (uv_timer_init(loop, &apps->timer) != 0) {
		free(apps);
		return NULL;
	}
	apps->timer.data = apps;
	return apps;
}

static void free_handle(uv_handle_t *handle)
{
	free(handle);
}

static void close_socket(struct apps *apps)
{
	if (apps->poll) {
		uv_poll_stop(apps->poll);
		uv_close((uv_handle_t *)apps->poll, free_handle);
		apps->poll = NULL;
	}
	if (apps->fd >= 0)
		close(apps->fd);
	apps->fd = -1;
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

static void set_timer(struct apps *apps)
{
	uint64_t now = uv_now(apps->loop), deadline;

	if (!apps->asking) {
		uv_timer_stop(&apps->timer);
		return;
	}
	deadline = apps->asking->asking->deadline;
	uv_timer_start(&apps->timer, on_deadline, deadline > now ? deadline - now : 0, 0);
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
static void end_asking(struct apps *apps, struct app *app, uint64_t keep_ms)
{
	struct asking *asking = app->asking;
	struct waiter *waiter = in_order(asking->waiters);
	char name[sizeof(app->name)];

	DL_DELETE(apps->asking, app);
	apps->asking_count--;
	app->asking = NULL;
	app->stale = uv_now(apps->loop) + keep_ms;
	memcpy(name, app->name, sizeof(name)); /* a waiter may ask for others, and so push this one out of the cache */
	free(asking);
	for (struct waiter *next; waiter; waiter = next) {
		next = waiter->next;
		waiter->done(waiter->context, name);
		free(waiter);
	}
}

static void end_without_name(struct apps *apps, struct app *app)
{
	app->name[0] = '\0';
	end_asking(apps, app, APPS_CACHE_NONE_MS);
}

/* A question got no answer. */
static void note_silence(struct apps *apps)
{
	if (++apps->silence >= SILENCE_MAX) {
		apps->silence = 0;
		apps->pause_until = uv_now(apps->loop) + APPS_SILENCE_MS;
	}
}

static void on_deadline(uv_timer_t *timer)
{
	struct apps *apps = timer->data;
	uint64_t now = uv_now(apps->loop);

	while (apps->asking && apps->asking->asking->deadline <= now) {
		note_silence(apps);
		apps->asking->known = false;
		end_without_name(apps, apps->asking);
	}
	set_timer(apps);
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

static struct app *asked_with(struct apps *apps, uint16_t id)
{
	struct app *app;

	DL_FOREACH (apps->asking, app) {
		if (app->asking->id == id)
			return app;
	}
	return NULL;
}

static void take_answer(struct apps *apps, const uint8_t *wire, size_t size)
{
	struct app *app = size >= 12 ? asked_with(apps, message_peek_id(wire)) : NULL;
	struct answer *answer = app ? message_parse_answer(wire, size, app->asking->query, app->asking->query_size) : NULL;

	if (!answer)
		return;
	apps->silence = 0;
	app->known = read_name(answer, app->name);
	answer_free(answer);
	if (app->known)
		end_asking(apps, app, APPS_CACHE_MS);
	else
		end_without_name(apps, app);
}

static void end_all(struct apps *apps)
{
	while (apps->asking)
		end_without_name(apps, apps->asking);
}

/* Nobody listens at 127.0.0.11: no question under way will be answered. */
static void socket_failed(struct apps *apps)
{
	apps->silence = 0;
	apps->pause_until = uv_now(apps->loop) + apps->options.refused_ms;
	close_socket(apps);
	end_all(apps);
}

/* Return: false when there is nothing left to read. */
static bool receive(struct apps *apps)
{
	uint8_t wire[MESSAGE_UDP_SIZE];
	ssize_t size = recv(apps->fd, wire, sizeof(wire), MSG_DONTWAIT);

	if (size >= 0) {
		take_answer(apps, wire, (size_t)size);
		return true;
	}
	if (errno == EINTR)
		return true;
	if (errno != EAGAIN && errno != EWOULDBLOCK)
		socket_failed(apps);
	return false;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct apps *apps = poll->data;

	(void)events;
	if (poll != apps->poll)
		return;
	/* The error is ECONNREFUSED; libuv tells of it as EBADF and does not watch the socket any more. */
	if (status < 0)
		socket_failed(apps);
	for (int i = 0; i < APPS_ASKING_MAX && poll == apps->poll; i++) {
		if (!receive(apps))
			break;
	}
	set_timer(apps);
}

static bool open_socket(struct apps *apps)
{
	struct sockaddr_in docker = {
		.sin_family = AF_INET, .sin_port = htons(apps->options.port), .sin_addr.s_addr = htonl(DOCKER_RESOLVER)};

	if (apps->fd >= 0)
		return true;
	apps->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	apps->poll = calloc(1, sizeof(*apps->poll));
	if (apps->fd < 0 || !apps->poll || connect(apps->fd, (const struct sockaddr *)&docker, sizeof(docker)) != 0 ||
	    uv_poll_init(apps->loop, apps->poll, apps->fd) != 0) {
		free(apps->poll);
		apps->poll = NULL;
		close_socket(apps);
		return false;
	}
	apps->poll->data = apps;
	if (uv_poll_start(apps->poll, UV_READABLE, on_readable) == 0)
		return true;
	close_socket(apps);
	return false;
}

/* 5.1.201.10.in-addr.arpa */
static bool pointer_name(const struct address *address, struct domain *out)
{
	char text[64];

	snprintf(text, sizeof(text), "%u.%u.%u.%u.in-addr.arpa", address->bytes[3], address->bytes[2], address->bytes[1],
		 address->bytes[0]);
	return domain_parse(text, out) == NULL;
}

/* A question to be sent. Return: what is kept until it has ended, or NULL. */
static struct asking *new_asking(struct apps *apps, const struct address *address)
{
	struct asking *asking = calloc(1, sizeof(*asking));
	struct domain name;

	if (!asking)
		return NULL;
	if (pointer_name(address, &name) && getrandom(&asking->id, sizeof(asking->id), 0) == sizeof(asking->id) &&
	    !asked_with(apps, asking->id)) {
		asking->query_size =
			message_build_query(asking->id, &name, TYPE_PTR, false, false, NULL, asking->query, sizeof(asking->query));
		asking->deadline = uv_now(apps->loop) + APPS_TIMEOUT_MS;
		if (asking->query_size > 0)
			return asking;
	}
	free(asking);
	return NULL;
}

static bool send_question(struct apps *apps, const struct asking *asking)
{
	return open_socket(apps) && send(apps->fd, asking->query, asking->query_size, MSG_NOSIGNAL) == (ssize_t)asking->query_size;
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
	struct asking *asking;

	if (!app)
		return NULL;
	app->known = known;
	asking = new_asking(apps, address);
	if (!asking)
		return NULL;
	if (!send_question(apps, asking)) {
		free(asking);
		socket_failed(apps); /* it was the refusal of a question before this one; those who are told may forget the entry */
		return NULL;
	}
	app->asking = asking;
	DL_APPEND(apps->asking, app);
	apps->asking_count++;
	set_timer(apps);
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
	LL_PREPEND(app->asking->waiters, waiter);
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

static void free_apps(uv_handle_t *handle)
{
	free(handle->data);
}

void apps_close(struct apps *apps)
{
	struct app *app, *next;
	struct quota *quota, *next_quota;

	if (!apps || apps->closing)
		return;
	apps->closing = true;
	end_all(apps);
	close_socket(apps);
	HASH_ITER (hh, apps->cache, app, next) {
		forget(apps, app);
	}
	HASH_ITER (hh, apps->quotas, quota, next_quota) {
		forget_quota(apps, quota);
	}
	uv_close((uv_handle_t *)&apps->timer, free_apps);
}
