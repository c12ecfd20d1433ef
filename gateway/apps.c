/* SPDX-License-Identifier: MIT */
/*
 * Container names from Docker's resolver.
 *
 * Theory of operation
 *
 * One entry per address holds the name and when it is stale. While its question is under way the entry is also in the list `asking`, oldest
 * first, with all who wait for it; one timer ends the oldest. The socket is connected to 127.0.0.11, so only Docker's resolver can answer;
 * id and question are compared as well. Where there is no Docker the kernel refuses or nobody answers: after two in a row nobody is asked
 * for APPS_PAUSE_MS.
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
#include "resolver/message.h"

#define DOCKER_RESOLVER 0x7f00000bU /* 127.0.0.11 */
#define DNS_PORT        53
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
	struct asking *asking; /* owned; NULL: the name is known */
	char name[APPS_NAME_MAX + 1];
};

struct apps {
	uv_loop_t *loop;
	uv_timer_t timer;
	uv_poll_t *poll; /* owned by the loop, freed in its close callback; NULL while there is no socket */
	int fd;
	struct app *cache;  /* owned, hash */
	struct app *asking; /* those of the cache whose question is under way, oldest first */
	unsigned int asking_count, silence;
	uint64_t pause_until;
	bool closing;
};

static void on_deadline(uv_timer_t *timer);

struct apps *apps_new(uv_loop_t *loop)
{
	struct apps *apps = calloc(1, sizeof(*apps));
	if (!apps)
		return NULL;
	apps->loop = loop;
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

static void set_timer(struct apps *apps)
{
	uint64_t now = uv_now(apps->loop);
	if (!apps->asking)
		uv_timer_stop(&apps->timer);
	else
		uv_timer_start(&apps->timer, on_deadline, apps->asking->asking->deadline > now ? apps->asking->asking->deadline - now : 0,
			       0);
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
	char name[sizeof(app->name)];
	DL_DELETE(apps->asking, app);
	apps->asking_count--;
	app->asking = NULL;
	app->stale = uv_now(apps->loop) + keep_ms;
	memcpy(name, app->name, sizeof(name)); /* a waiter may ask for others, and so push this one out of the cache */
	struct waiter *waiter = in_order(asking->waiters);
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
		apps->pause_until = uv_now(apps->loop) + APPS_PAUSE_MS;
	}
}

static void on_deadline(uv_timer_t *timer)
{
	struct apps *apps = timer->data;
	uint64_t now = uv_now(apps->loop);
	while (apps->asking && apps->asking->asking->deadline <= now) {
		note_silence(apps);
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
		if (record->type != TYPE_PTR || domain_from_wire(record->rdata, record->rdata_length, &name) == 0 || name.length <= 1)
			continue;
		size_t size = name.wire[0] < APPS_NAME_MAX ? name.wire[0] : APPS_NAME_MAX;
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
	bool named = read_name(answer, app->name);
	answer_free(answer);
	if (named)
		end_asking(apps, app, APPS_CACHE_MS);
	else
		end_without_name(apps, app);
}

/* Nobody listens at 127.0.0.11: no question under way will be answered. */
static void end_all(struct apps *apps)
{
	while (apps->asking)
		end_without_name(apps, apps->asking);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct apps *apps = poll->data;
	uint8_t wire[MESSAGE_UDP_SIZE];
	(void)events;
	if (poll != apps->poll || status < 0)
		return;
	for (int i = 0; i < APPS_ASKING_MAX; i++) {
		ssize_t size = recv(apps->fd, wire, sizeof(wire), MSG_DONTWAIT);
		if (size >= 0) {
			take_answer(apps, wire, (size_t)size);
		} else if (errno != EINTR) {
			if (errno != EAGAIN && errno != EWOULDBLOCK) {
				note_silence(apps);
				end_all(apps);
			}
			break;
		}
	}
	set_timer(apps);
}

static bool open_socket(struct apps *apps)
{
	struct sockaddr_in docker = {.sin_family = AF_INET, .sin_port = htons(DNS_PORT), .sin_addr.s_addr = htonl(DOCKER_RESOLVER)};
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

/* Send the question. Return: what is kept until it has ended, or NULL. */
static struct asking *ask(struct apps *apps, const struct address *address)
{
	struct domain name;
	struct asking *asking = calloc(1, sizeof(*asking));
	if (!asking)
		return NULL;
	if (open_socket(apps) && pointer_name(address, &name) && getrandom(&asking->id, sizeof(asking->id), 0) == sizeof(asking->id) &&
	    !asked_with(apps, asking->id)) {
		asking->query_size =
			message_build_query(asking->id, &name, TYPE_PTR, false, false, NULL, asking->query, sizeof(asking->query));
		asking->deadline = uv_now(apps->loop) + APPS_TIMEOUT_MS;
		if (asking->query_size > 0 &&
		    send(apps->fd, asking->query, asking->query_size, MSG_NOSIGNAL) == (ssize_t)asking->query_size)
			return asking;
		note_silence(apps);
	}
	free(asking);
	return NULL;
}

/* An entry for the address, perhaps at the cost of the oldest one. NULL: out of memory or all are being asked. */
static struct app *new_app(struct apps *apps, const struct address *address)
{
	if (HASH_COUNT(apps->cache) >= APPS_CACHE_MAX) {
		struct app *oldest = apps->cache;
		while (oldest && oldest->asking)
			oldest = oldest->hh.next;
		if (!oldest)
			return NULL;
		forget(apps, oldest);
	}
	struct app *app = calloc(1, sizeof(*app));
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

/* Begin a question for an address that has no entry. NULL: there is nobody to ask. */
static struct app *begin_asking(struct apps *apps, const struct address *address)
{
	if (apps->closing || apps->asking_count >= APPS_ASKING_MAX || uv_now(apps->loop) < apps->pause_until)
		return NULL;
	struct app *app = new_app(apps, address);
	if (!app)
		return NULL;
	app->asking = ask(apps, address);
	if (!app->asking) {
		forget(apps, app);
		return NULL;
	}
	DL_APPEND(apps->asking, app);
	apps->asking_count++;
	set_timer(apps);
	return app;
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
	if (address->family == AF_INET && prefix_contains(subnet, address)) {
		HASH_FIND(hh, apps->cache, address, sizeof(*address), app);
		if (app && !app->asking && app->stale <= uv_now(apps->loop)) {
			forget(apps, app);
			app = NULL;
		}
		if (!app)
			app = begin_asking(apps, address);
	}
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
	if (!apps || apps->closing)
		return;
	apps->closing = true;
	end_all(apps);
	close_socket(apps);
	HASH_ITER (hh, apps->cache, app, next) {
		forget(apps, app);
	}
	uv_close((uv_handle_t *)&apps->timer, free_apps);
}
