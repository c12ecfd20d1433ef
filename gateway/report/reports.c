/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: a decision is counted, made a JSON line once, and that line is what is kept and what listeners get. The log on
 * standard output takes the same line when its form is JSON. What was allowed, and nobody listens to, is kept without a line (recent.h).
 */
#include "gateway/report/reports.h"

#include <stdlib.h>
#include <time.h>

#include "gateway/report/stats_file.h"

struct reports {
	uv_loop_t *loop;
	uv_timer_t timer;
	struct log *log;                    /* the caller's */
	struct log *lines;                  /* owned: makes the JSON lines */
	struct stats *stats;                /* owned */
	struct stats_file *file;            /* owned: on the volume */
	struct stats_file *memory;          /* owned: for the next worker */
	struct recent *recent;              /* owned */
	struct notify *notify;              /* the caller's; NULL: none */
	struct reports_listener *listeners; /* list; not owned */
	const struct decision *telling;     /* the decision at hand */
	bool logged;
	bool closing;
};

static void on_line(void *context, const char *line, size_t size)
{
	struct reports *reports = context;
	struct reports_listener *listener, *next;
	bool denied = decision_is_refusal(reports->telling);

	if (reports->logged && log_format(reports->log) == LOG_JSON)
		log_copy(reports->log, line, size);
	recent_add(reports->recent, denied, line, size);
	if (reports->notify)
		notify_decision(reports->notify, reports->telling, line);
	for (listener = reports->listeners; listener; listener = next) {
		next = listener->next;
		listener->line(listener->context, denied, line, size);
	}
}

/* At once. Notifications tell of refusals only. */
static bool is_line_wanted(const struct reports *reports, const struct decision *decision, bool logged)
{
	return decision_is_refusal(decision) || reports->listeners || (logged && log_format(reports->log) == LOG_JSON);
}

void reports_tell(struct reports *reports, const struct decision *decision, bool logged)
{
	struct timespec now;

	/* One moment for all who tell of it: the log, its followers and the last lines. */
	clock_gettime(CLOCK_REALTIME, &now);
	stats_count(reports->stats, decision, now.tv_sec);
	if (logged && log_format(reports->log) == LOG_TEXT) {
		log_set_time(reports->log, &now);
		decision_write(reports->log, decision);
		log_set_time(reports->log, NULL);
	}
	if (!is_line_wanted(reports, decision, logged)) {
		recent_add_later(reports->recent, decision, &now);
		return;
	}
	reports->telling = decision;
	reports->logged = logged;
	log_set_time(reports->lines, &now);
	decision_write(reports->lines, decision);
}

void reports_listen(struct reports *reports, struct reports_listener *listener)
{
	listener->next = reports->listeners;
	listener->previous = &reports->listeners;
	if (listener->next)
		listener->next->previous = &listener->next;
	reports->listeners = listener;
}

void reports_unlisten(struct reports_listener *listener)
{
	if (!listener->previous)
		return;
	*listener->previous = listener->next;
	if (listener->next)
		listener->next->previous = listener->previous;
	listener->next = NULL;
	listener->previous = NULL;
}

void reports_set_notify(struct reports *reports, struct notify *notify)
{
	reports->notify = notify;
}

struct stats *reports_stats(struct reports *reports)
{
	return reports->stats;
}

struct recent *reports_recent(struct reports *reports)
{
	return reports->recent;
}

static void on_timer(uv_timer_t *timer)
{
	struct reports *reports = timer->data;

	recent_write(reports->recent);
	stats_file_write(reports->file, uv_now(reports->loop), false);
	stats_file_write(reports->memory, uv_now(reports->loop), false);
}

static void free_reports(uv_handle_t *handle)
{
	struct reports *reports = handle->data;

	stats_file_free(reports->file);
	stats_file_free(reports->memory);
	stats_free(reports->stats);
	recent_free(reports->recent);
	log_free(reports->lines);
	free(reports);
}

struct reports *reports_new(uv_loop_t *loop, struct log *log, int directory, int memory)
{
	struct reports *reports = calloc(1, sizeof(*reports));

	if (!reports)
		return NULL;
	reports->loop = loop;
	reports->log = log;
	reports->timer.data = reports;
	reports->lines = log_new_lines(on_line, reports, LOG_JSON);
	reports->recent = recent_new(directory, log);
	reports->stats = stats_new();
	reports->file = stats_file_new(directory, -1, reports->stats, log);
	reports->memory = stats_file_new(-1, memory, reports->stats, log);
	if (!reports->lines || !reports->recent || !reports->stats || !reports->file || !reports->memory ||
	    uv_timer_init(loop, &reports->timer) != 0) {
		free_reports((uv_handle_t *)&reports->timer);
		return NULL;
	}
	/* The worker before this one knew more than its file. */
	if (!stats_file_restore(reports->memory))
		(void)stats_file_restore(reports->file);
	uv_timer_start(&reports->timer, on_timer, REPORTS_PERIOD_MS, REPORTS_PERIOD_MS);
	return reports;
}

void reports_close(struct reports *reports)
{
	if (!reports || reports->closing)
		return;
	reports->closing = true;
	recent_write(reports->recent);
	stats_file_write(reports->file, uv_now(reports->loop), true);
	stats_file_write(reports->memory, uv_now(reports->loop), true);
	uv_close((uv_handle_t *)&reports->timer, free_reports);
}
