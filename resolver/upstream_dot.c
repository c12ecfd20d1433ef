/* SPDX-License-Identifier: MIT */
/*
 * DNS over TLS (RFC 7858): one connection to each server, which all questions share.
 *
 * Theory of operation: a question waits until the connection is open (upstream_dot_connection.c), and then, written, until the server
 * answers; answers come in any order and are matched by id and question (RFC 7766 section 6.2.1.1). At most DOT_SENT_MAX are with the
 * server, more wait here. What was asked in one turn of the loop is written together, in the next one, by on_work(); so nothing ends from
 * inside upstream_dot_ask().
 *
 * The connection is made when there is a question, and closed after DOT_IDLE_MS without any, or when the server closes it. Questions that a
 * connection took with it are asked once more on the next one. When a connection cannot be made, all questions go back to upstream.c, which
 * asks another server; the next attempt is made DOT_BACKOFF_MS later at the earliest. A question that waits longer than UPSTREAM_RETRY_MS,
 * for a handshake that stalls, say, is taken to another server by upstream.c meanwhile: no lookup waits for DOT_HANDSHAKE_MS.
 *
 * A path that has gone silent is noticed by the kernel (DOT_ACKNOWLEDGED_MS), a server that has by the lack of any answer in
 * UPSTREAM_DEADLINE_MS. What is wrong is said once until it changes. Nothing here ever asks in clear.
 */

#include "resolver/upstream_dot.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define ID_ATTEMPTS 16

static void on_work(uv_timer_t *timer);

static uint64_t now_of(const struct upstream_dot *dot)
{
	return uv_now(dot->upstream->loop);
}

/* See to the questions that wait, in the next turn of the loop or after @wait ms. */
static void work_later(struct upstream_dot *dot, uint64_t wait)
{
	if (!dot->closing && (!uv_is_active((const uv_handle_t *)&dot->work) || uv_timer_get_due_in(&dot->work) > wait))
		uv_timer_start(&dot->work, on_work, wait, 0);
}

/* --- what people are told --- */

static void say(const struct upstream_dot *dot, bool trouble, const char *text)
{
	if (dot->upstream->say)
		dot->upstream->say(dot->upstream->context, trouble, text);
}

void upstream_dot_complain(struct upstream_dot *dot, const char *format, ...)
{
	char server[POLICY_SERVER_MAX], reason[UPSTREAM_TLS_REASON_MAX + 32], text[DOT_TEXT_MAX];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(reason, sizeof(reason), format, arguments);
	va_end(arguments);
	snprintf(text, sizeof(text), "%s: %s", policy_server_format(&dot->server, server), reason);
	if (!strcmp(text, dot->said) || (dot->said_at && now_of(dot) - dot->said_at < DOT_SAY_MS))
		return;
	memcpy(dot->said, text, sizeof(text));
	dot->said_at = now_of(dot);
	say(dot, true, text);
}

static void complain_no_more(struct upstream_dot *dot)
{
	char server[POLICY_SERVER_MAX], text[DOT_TEXT_MAX];

	if (!dot->said[0])
		return;
	dot->said[0] = 0;
	snprintf(text, sizeof(text), "%s: answers again", policy_server_format(&dot->server, server));
	say(dot, false, text);
}

/* --- questions --- */

/* No lookup has it any more. */
static void question_free(struct upstream_dot *dot, struct dot_question *question)
{
	if (dot->waiting == question)
		dot->waiting = question->next;
	HASH_DEL(dot->by_id, question);
	DL_DELETE(dot->questions, question);
	free(question);
}

/*
 * The last question that waits for a connection stays without its lookup: it is what shows that the server is back, after other servers
 * have answered the lookup.
 */
static bool is_probe(const struct dot_question *question)
{
	return question->dot->waiting == question && !question->next;
}

void upstream_dot_abandon(struct lookup *lookup)
{
	while (lookup->dots) {
		struct dot_question *question = lookup->dots;

		DL_DELETE2(lookup->dots, question, lookup_prev, lookup_next);
		question->lookup = NULL;
		if (!is_probe(question))
			question_free(question->dot, question);
	}
}

/* Return: the lookup, which has to be told what has become of its question; NULL: it has ended. */
static struct lookup *question_end(struct upstream_dot *dot, struct dot_question *question)
{
	struct lookup *lookup = question->lookup;

	if (lookup)
		DL_DELETE2(lookup->dots, question, lookup_prev, lookup_next);
	question_free(dot, question);
	return lookup;
}

static struct dot_question *question_find(const struct upstream_dot *dot, uint16_t id)
{
	struct dot_question *question;

	HASH_FIND(hh, dot->by_id, &id, sizeof(id), question);
	return question;
}

static int question_id(const struct upstream_dot *dot, uint16_t *out)
{
	for (unsigned int i = 0; i < ID_ATTEMPTS; i++) {
		int error = upstream_random(dot->upstream, out, sizeof(*out));

		if (error)
			return error;
		if (!question_find(dot, *out))
			return 0;
	}
	return -EBUSY;
}

int upstream_dot_ask(struct upstream_dot *dot, struct lookup *lookup, unsigned int index)
{
	struct dot_question *question;
	int error;

	for (question = lookup->dots; question; question = question->lookup_next) {
		if (question->dot == dot)
			return 0;
	}
	question = calloc(1, sizeof(*question));
	if (!question)
		return -ENOMEM;
	error = question_id(dot, &question->id);
	if (!error) {
		question->size = upstream_frame_query(&lookup->key, question->id, UPSTREAM_PADDING, question->wire);
		error = question->size ? 0 : -EINVAL;
	}
	if (!error) {
		HASH_ADD(hh, dot->by_id, id, sizeof(question->id), question);
		error = question->hh.tbl ? 0 : -ENOMEM;
	}
	if (error) {
		free(question);
		return error;
	}
	question->dot = dot;
	question->lookup = lookup;
	question->index = index;
	question->generation = dot->generation;
	DL_APPEND(dot->questions, question);
	if (!dot->waiting)
		dot->waiting = question;
	DL_APPEND2(lookup->dots, question, lookup_prev, lookup_next);
	work_later(dot, 0);
	return 0;
}

void upstream_dot_answered(struct upstream_dot *dot, const uint8_t *wire, size_t size)
{
	struct dot_question *question = size >= 12 ? question_find(dot, message_peek_id(wire)) : NULL;
	struct answer *answer;
	struct lookup *lookup;
	unsigned int index;

	upstream_servers_answered(dot->upstream, &dot->server);
	complain_no_more(dot);
	if (!question || !question->sent) { /* late: nobody waits for it any more */
		dot->upstream->counters.ignored++;
		return;
	}
	answer = message_parse_answer(wire, size, question->wire + UPSTREAM_PREFIX, question->size);
	index = question->index;
	lookup = question_end(dot, question);
	if (lookup)
		upstream_answered_stream(lookup, dot->upstream, index, answer);
	else
		answer_free(answer);
}

static void question_fail(struct upstream_dot *dot, struct dot_question *question, bool refused)
{
	unsigned int index = question->index;
	struct lookup *lookup = question_end(dot, question);

	if (lookup)
		upstream_unanswered(lookup, dot->upstream, index, refused);
}

/* All that wait now: what is asked meanwhile, because of that, is of the next generation, behind them. */
static void fail_waiting(struct upstream_dot *dot, bool refused)
{
	dot->generation++;
	while (dot->waiting && dot->waiting->generation != dot->generation)
		question_fail(dot, dot->waiting, refused);
}

void upstream_dot_failed(struct upstream_dot *dot, bool refused)
{
	dot->retry_at = now_of(dot) + DOT_BACKOFF_MS;
	fail_waiting(dot, refused);
}

static struct dot_question *question_lost(const struct upstream_dot *dot)
{
	struct dot_question *question;

	DL_FOREACH (dot->questions, question) {
		if (question->lost)
			return question;
	}
	return NULL;
}

/* What the connection had waits again, before the others; but once only. */
static void requeue_sent(struct upstream_dot *dot)
{
	struct dot_question *question;

	DL_FOREACH (dot->questions, question) {
		if (!question->sent)
			break;
		question->sent = false;
		question->lost = question->again;
		question->again = true;
	}
	dot->waiting = dot->questions;
	while ((question = question_lost(dot)))
		question_fail(dot, question, false);
}

void upstream_dot_lost(struct upstream_dot *dot, bool useless)
{
	if (useless) {
		upstream_dot_complain(dot, "it ends connections without an answer; does it serve DNS over TLS on that port?");
		dot->retry_at = now_of(dot) + DOT_BACKOFF_MS;
	}
	requeue_sent(dot);
	if (dot->waiting)
		work_later(dot, 0);
}

/* --- servers --- */

/* Questions wait. */
static void on_work(uv_timer_t *timer)
{
	struct upstream_dot *dot = timer->data;
	uint64_t now = now_of(dot);

	if (dot->closing || !dot->waiting)
		return;
	if (dot->connection)
		upstream_dot_connection_write(dot->connection);
	else if (dot->retry_at > now)
		work_later(dot, dot->retry_at - now);
	else if (upstream_dot_connection_new(dot))
		upstream_dot_failed(dot, false);
}

static void on_dot_closed(uv_handle_t *handle)
{
	struct upstream_dot *dot = handle->data;

	upstream_handle_closed(dot->upstream);
	free(dot);
}

struct upstream_dot *upstream_dot_new(struct upstream *upstream, const struct upstream_server *server, struct upstream_tls_context *context)
{
	size_t size = strlen(server->tls_name) + 1;
	struct upstream_dot *dot = calloc(1, sizeof(*dot) + size);

	if (!dot)
		return NULL;
	dot->tls = upstream_tls_server_new(context, server->tls_name);
	if (!dot->tls) {
		free(dot);
		return NULL;
	}
	memcpy(dot->name, server->tls_name, size);
	dot->server = *server;
	dot->server.tls_name = dot->name;
	dot->context = context;
	dot->upstream = upstream;
	uv_timer_init(upstream->loop, &dot->work);
	dot->work.data = dot;
	upstream->open_handles++;
	return dot;
}

bool upstream_dot_is(const struct upstream_dot *dot, const struct upstream_server *server, const struct upstream_tls_context *context)
{
	return dot->context == context && policy_server_equal(&dot->server, server);
}

const struct upstream_server *upstream_dot_server(const struct upstream_dot *dot)
{
	return &dot->server;
}

void upstream_dot_close(struct upstream_dot *dot)
{
	dot->closing = true;
	while (dot->questions) {
		assert(!dot->questions->lookup); /* all others went with their lookups */
		question_free(dot, dot->questions);
	}
	if (dot->connection)
		upstream_dot_connection_close(dot->connection);
	upstream_tls_server_free(dot->tls);
	dot->tls = NULL;
	uv_close((uv_handle_t *)&dot->work, on_dot_closed);
}
