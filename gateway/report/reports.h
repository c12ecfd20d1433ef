/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_REPORTS_H
#define SLUICE_GATEWAY_REPORT_REPORTS_H

/*
 * Where decisions go: whoever decides calls reports_tell(), once, and everything that people see is made from that: the log on standard
 * output, the statistics (stats.h), the last decisions (recent.h), the lines of those who listen now (`sluice log -f`, the page), the
 * notifications.
 */

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "common/log.h"
#include "gateway/report/decision.h"
#include "gateway/report/notify.h"
#include "gateway/report/recent.h"
#include "gateway/report/stats.h"

#define REPORTS_PERIOD_MS 250 /* how often files are written, when there is something to be written */

struct reports; /* reports.c */

/* Somebody who wants every decision from now on. */
struct reports_listener {
	/* @denied: also by audit mode. @json: one object, without newline, NUL behind it; valid during the call. */
	void (*line)(void *context, bool denied, const char *json, size_t size);
	void *context;
	struct reports_listener *next, **previous; /* between reports_listen() and reports_unlisten(): not the listener's */
};

/**
 * reports_new() - @log stays the caller's; @directory: the state directory, -1: nothing outlives the container
 * @memory:	a descriptor of memory.h: what the worker before has counted, and this one for the next; -1: none
 * Return: NULL when out of memory.
 */
struct reports *reports_new(uv_loop_t *loop, struct log *log, int directory, int memory);

/** reports_close() - Write what is to be kept, then close; no listener may be left. Memory goes when the loop has run the close callbacks.
 */
void reports_close(struct reports *reports);

/** reports_tell() - There is a decision. @logged: it has a line in the log on standard output; it reaches all others in any case. */
void reports_tell(struct reports *reports, const struct decision *decision, bool logged);

/** reports_listen() / reports_unlisten() - @listener stays the caller's. Unlistening twice, or without listening, is fine. */
void reports_listen(struct reports *reports, struct reports_listener *listener);
void reports_unlisten(struct reports_listener *listener);

/** reports_set_notify() - Whom to tell as well. @notify stays the caller's, who may close it before, but not let its memory go. */
void reports_set_notify(struct reports *reports, struct notify *notify);

struct stats *reports_stats(struct reports *reports);
struct recent *reports_recent(struct reports *reports);

#endif
