/* SPDX-License-Identifier: MIT */
/*
 * Notifications.
 *
 * Theory of operation: a new denial goes into `next`. When the pace allows it, `next` becomes `message` and is tried to be sent: find the
 * server's addresses, open the kernel for them, send, close. Until it has been taken, or given up, further denials collect in the new
 * `next`. So there is at most one request, and memory for two messages, whatever comes. No number is lost: what has no entry is counted in
 * its message, and what was given up in the next one.
 */
#include "gateway/report/notify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/docker.h"
#include "gateway/memory.h"
#include "gateway/report/notify_address.h"
#include "gateway/report/notify_message.h"
#include "gateway/report/notify_pace.h"
#include "gateway/report/notify_sender.h"
#include "gateway/report/notify_table.h"

enum state {
	NOTIFY_IDLE,
	NOTIFY_FINDING, /* where the server is */
	NOTIFY_SENDING,
};

struct notify {
	uv_loop_t *loop;
	struct log *log;
	struct notify_host host;
	const struct policy *policy;    /* NULL: none yet */
	struct notify_address *address; /* owned */
	struct notify_sender *sender;   /* owned */
	struct notify_table *known;     /* owned */
	struct notify_message *next;    /* owned: collects */
	struct notify_message *message; /* owned: is being sent, also between its tries, when it is not empty */
	char *body;                     /* owned: of the request */
	uint64_t number;                /* of `next`; those below have been begun */
	struct notify_pace pace;
	uint64_t collected_at; /* ms: when `next` may become `message` */
	enum state state;
	struct address list[NOTIFY_ADDRESSES_MAX]; /* for which the kernel is open */
	size_t count;
	uint16_t port;
	uint64_t said_at; /* ms: when a failure was said; 0: it works, as far as is known */
	struct notify_counters counters;
	int memory;
	bool changed; /* `known`, since it was kept */
	uv_timer_t timer;
	bool closing;
};

static void on_timer(uv_timer_t *timer);

static uint64_t now_of(const struct notify *notify)
{
	return uv_now(notify->loop);
}

static bool has_target(const struct notify *notify)
{
	return notify->policy && notify->policy->notify.url;
}

/* While there is one: a policy without ends what is under way. */
static const struct notify_target *target_of(const struct notify *notify)
{
	return &notify->policy->notify;
}

static bool is_empty(const struct notify_message *message)
{
	return notify_message_denials(message) == 0;
}

/* Wake when the next request may begin, if there is something to be told. */
static void set_timer(struct notify *notify)
{
	uint64_t now = now_of(notify), next = notify_pace_next(&notify->pace);

	if (notify->closing || notify->state != NOTIFY_IDLE)
		return;
	if (!has_target(notify) || (is_empty(notify->message) && is_empty(notify->next))) {
		uv_timer_stop(&notify->timer);
		return;
	}
	if (is_empty(notify->message) && notify->collected_at > next)
		next = notify->collected_at;
	uv_timer_start(&notify->timer, on_timer, next > now ? next - now : 0, 0);
}

static void save(struct notify *notify)
{
	void *bytes = NULL;
	size_t size = 0;
	int rc;

	if (notify->memory < 0 || !notify->changed)
		return;
	rc = notify_table_save(notify->known, notify->number - (is_empty(notify->message) ? 1 : 2), now_of(notify), &bytes, &size);
	if (rc == 0)
		rc = memory_put(notify->memory, bytes, size);
	if (rc != 0)
		log_say(notify->log, LOG_WARNING, "what has been notified cannot be kept for a restart (%s): it may be told twice",
			strerror(-rc));
	free(bytes);
	notify->changed = false;
}

static void restore(struct notify *notify)
{
	void *bytes;
	size_t size;

	if (notify->memory < 0 || memory_get(notify->memory, &bytes, &size) != 0)
		return;
	notify_table_restore(notify->known, bytes, size, now_of(notify));
	free(bytes);
}

static void say_failure(struct notify *notify, const char *cause, bool dropped)
{
	uint64_t now = now_of(notify);

	if (notify->said_at && now - notify->said_at < NOTIFY_SAY_MS)
		return;
	notify->said_at = now ? now : 1;
	log_say(notify->log, LOG_WARNING, "a notification could not be sent to %s: %s; %s", target_of(notify)->host, cause,
		dropped ? "it was given up, its denials are in the log" : "it is tried again");
}

/* The message has been taken, or given up. */
static void forget_message(struct notify *notify)
{
	notify_pace_done(&notify->pace);
	notify_message_clear(notify->message);
	save(notify);
}

static void give_up(struct notify *notify)
{
	notify->counters.dropped += notify_message_denials(notify->message);
	notify->next->dropped += notify_message_denials(notify->message) + notify->message->dropped;
	forget_message(notify);
}

static void close_kernel(struct notify *notify)
{
	char error[NOTIFY_CAUSE_MAX];

	/* Should this fail, the kernel closes by itself. */
	if (notify->count > 0)
		(void)notify->host.open(notify->host.context, notify->list, notify->count, notify->port, false, error, sizeof(error));
	notify->count = 0;
}

static void stop_try(struct notify *notify)
{
	if (notify->address)
		notify_address_cancel(notify->address);
	if (notify->sender)
		notify_sender_cancel(notify->sender);
	close_kernel(notify);
	free(notify->body);
	notify->body = NULL;
	notify->state = NOTIFY_IDLE;
}

static void try_failed(struct notify *notify, const char *cause)
{
	bool again;

	stop_try(notify);
	notify->counters.failed++;
	again = notify_pace_failed(&notify->pace, now_of(notify));
	say_failure(notify, cause, !again);
	if (!again)
		give_up(notify);
	set_timer(notify);
}

static void on_sent(void *context, bool good, const char *cause)
{
	struct notify *notify = context;

	if (!good) {
		try_failed(notify, cause);
		return;
	}
	stop_try(notify);
	if (notify->said_at)
		log_say(notify->log, LOG_INFO, "notifications reach %s again", target_of(notify)->host);
	notify->said_at = 0;
	notify->counters.sent++;
	notify->counters.suppressed += notify->message->more;
	forget_message(notify);
	set_timer(notify);
}

static void send_message(struct notify *notify)
{
	const struct notify_target *target = target_of(notify);
	struct notify_post post = {.target = target, .addresses = notify->list, .count = notify->count};
	char title[NOTIFY_TITLE_MAX];
	int rc = UV_ENOMEM;

	if (target->format == NOTIFY_NTFY) {
		post.title = notify_message_title(notify->message, title);
		notify->body = notify_message_text(notify->message, NOTIFY_TEXT_MAX_NTFY, false);
	} else {
		notify->body = notify_message_json(notify->message);
	}
	post.body = notify->body;
	if (notify->body)
		rc = notify_sender_send(notify->sender, &post, on_sent, notify);
	if (rc != 0)
		try_failed(notify, strerror(-rc));
	else
		notify->state = NOTIFY_SENDING;
}

static void on_found(void *context, const struct address *list, size_t count, const char *why)
{
	struct notify *notify = context;
	char error[NOTIFY_CAUSE_MAX];
	int rc;

	if (count == 0) {
		try_failed(notify, why);
		return;
	}
	memcpy(notify->list, list, count * sizeof(*list));
	notify->count = count;
	notify->port = target_of(notify)->port;
	rc = notify->host.open(notify->host.context, list, count, notify->port, true, error, sizeof(error));
	if (rc != 0) {
		notify->count = 0;
		try_failed(notify, error);
		return;
	}
	send_message(notify);
}

static void on_timer(uv_timer_t *timer)
{
	struct notify *notify = timer->data;
	struct notify_message *empty = notify->message;

	if (notify->state != NOTIFY_IDLE || !has_target(notify))
		return;
	if (is_empty(notify->message)) {
		notify->message = notify->next;
		notify->next = empty;
		notify->number++;
	}
	notify_pace_begin(&notify->pace, now_of(notify));
	notify->state = NOTIFY_FINDING;
	notify_address_find(notify->address, notify->policy, target_of(notify)->host, on_found, notify);
}

void notify_decision(struct notify *notify, const struct decision *decision, const char *json)
{
	if (notify->closing || !has_target(notify) || decision->kind == DECISION_SUMMARY ||
	    (decision->event != DECISION_DENIED && decision->event != DECISION_AUDIT))
		return;
	notify->changed = true;
	if (!notify_table_see(notify->known, decision, notify->number, now_of(notify)))
		return;
	notify->counters.denials++;
	if (is_empty(notify->next))
		notify->collected_at = now_of(notify) + NOTIFY_COLLECT_MS;
	(void)notify_message_add(notify->next, decision, json);
	if (notify_message_denials(notify->next) == 1)
		set_timer(notify);
}

static bool texts_equal(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool targets_equal(const struct notify_target *a, const struct notify_target *b)
{
	return texts_equal(a->url, b->url) && a->format == b->format && texts_equal(a->token, b->token) && texts_equal(a->ca, b->ca);
}

/* Nobody is to be told any more. */
static void drop_all(struct notify *notify)
{
	notify->counters.dropped += notify_message_denials(notify->message) + notify_message_denials(notify->next);
	notify_message_clear(notify->next);
	notify_table_clear(notify->known);
	notify->changed = true;
	forget_message(notify);
}

void notify_set_policy(struct notify *notify, const struct policy *policy)
{
	static const struct notify_target nobody = {.url = NULL};
	const struct notify_target *old = notify->policy ? &notify->policy->notify : &nobody;
	bool other = !targets_equal(old, &policy->notify);

	notify->policy = policy;
	if (notify->closing || !other)
		return;
	stop_try(notify);
	notify_pace_done(&notify->pace);
	notify->said_at = 0;
	if (!policy->notify.url && old->url)
		drop_all(notify);
	set_timer(notify);
}

const struct notify_counters *notify_counters(const struct notify *notify)
{
	return &notify->counters;
}

static void on_closed(uv_handle_t *handle)
{
	struct notify *notify = handle->data;

	notify_table_free(notify->known);
	notify_message_free(notify->next);
	notify_message_free(notify->message);
	free(notify);
}

void notify_close(struct notify *notify)
{
	if (!notify || notify->closing)
		return;
	save(notify);
	notify->closing = true;
	stop_try(notify);
	notify_address_close(notify->address);
	notify_sender_close(notify->sender);
	uv_close((uv_handle_t *)&notify->timer, on_closed);
}

struct notify *notify_new(uv_loop_t *loop, struct log *log, struct resolver *resolver, int memory, const struct notify_host *host)
{
	struct notify *notify = calloc(1, sizeof(*notify));

	if (!notify)
		return NULL;
	uv_timer_init(loop, &notify->timer);
	notify->timer.data = notify;
	notify->loop = loop;
	notify->log = log;
	notify->host = *host;
	notify->memory = memory;
	notify->number = 1;
	notify->known = notify_table_new();
	notify->next = notify_message_new();
	notify->message = notify_message_new();
	notify->address = notify_address_new(loop, resolver, DOCKER_PORT);
	notify->sender = notify_sender_new(loop);
	if (!notify->known || !notify->next || !notify->message || !notify->address || !notify->sender) {
		notify->memory = -1;
		notify_close(notify);
		return NULL;
	}
	restore(notify);
	return notify;
}
