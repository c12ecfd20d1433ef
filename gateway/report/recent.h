/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_RECENT_H
#define SLUICE_GATEWAY_REPORT_RECENT_H

/*
 * The last decisions, as JSON lines: what was denied (or let through by audit mode), and apart from it what was allowed, so that much of
 * the one does not push out the other. On the state volume the denials outlive the container, whose log Docker throws away.
 */

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include "common/log.h"
#include "gateway/report/decision.h"

#define RECENT_DENIED_MAX  1000          /* lines */
#define RECENT_ALLOWED_MAX 200           /* lines */
#define RECENT_BYTES_MAX   (1024 * 1024) /* of all lines of one kind; the oldest go first */
#define RECENT_FILE_MAX    (512 * 1024)  /* octets of a file; then the next line begins another one, and the one before that goes */

struct recent; /* recent.c */

/** recent_new() - @directory: where the files are, the caller's; -1: nowhere. What is there is read. Return: NULL when out of memory. */
struct recent *recent_new(int directory, struct log *log);
void recent_free(struct recent *recent);

/** recent_add() - @json: one object, without newline; copied. */
void recent_add(struct recent *recent, bool denied, const char *json, size_t size);

/** recent_add_later() - @decision is no refusal; it is copied, and becomes a line, of @moment (CLOCK_REALTIME), when somebody wants it. */
void recent_add_later(struct recent *recent, const struct decision *decision, const struct timespec *moment);

/** recent_write() - Append what is new to the file; what goes wrong is said once. Called by a timer, and at the end. */
void recent_write(struct recent *recent);

/** recent_each() - The last @max lines (or fewer) of both kinds, in the order they came; with @denied_only just those. */
void recent_each(struct recent *recent, size_t max, bool denied_only, void (*line)(void *context, const char *json, size_t size),
		 void *context);

#endif
