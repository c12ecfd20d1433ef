/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_COMMON_LOG_H
#define SLUICE_COMMON_LOG_H

/*
 * Log lines: logfmt or JSON, one line each, UTC. docs/log-format.md lists the events and keys: a public interface.
 *
 * Writing never blocks the loop: what the descriptor does not take at once waits in a bounded buffer
 * (LOG_PENDING_MAX); lines that do not fit are counted and reported in a line of their own (event=log-lost count=N)
 * as soon as there is room. log_flush() is called by a timer and at the end.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "common/address.h"
#include "common/policy.h" /* enum log_format */

#define LOG_PENDING_MAX (1024 * 1024) /* bytes */

enum log_level { LOG_INFO, LOG_WARNING, LOG_ERROR };

struct log;      /* log.c */
struct log_line; /* log.c: a line being written */

/** log_new() - A log that writes to @fd, which stays the caller's. SIGPIPE is ignored from then on. Return: NULL when out of memory. */
struct log *log_new(int fd, enum log_format format);

/** log_new_lines() - A log that hands each finished line to @take, without its newline and with a NUL behind it. NULL when out of memory.
 */
struct log *log_new_lines(void (*take)(void *context, const char *line, size_t size), void *context, enum log_format format);

void log_free(struct log *log);
void log_set_format(struct log *log, enum log_format format);
void log_flush(struct log *log);

/** log_set_time() - Lines that are begun from now on tell of that moment (CLOCK_REALTIME); NULL: of the one in which they are begun. */
void log_set_time(struct log *log, const struct timespec *moment);

/** log_event() - Begin a line. Return: the line, to be passed to log_*() and ended with log_end(); never NULL. One at a time per log. */
struct log_line *log_event(struct log *log, const char *event);
/** log_text() - Add a key. A NULL or empty value is written as "-" (text) or null (JSON). Values are quoted and escaped as needed. */
void log_text(struct log_line *line, const char *key, const char *value);
void log_number(struct log_line *line, const char *key, uint64_t value);
void log_address(struct log_line *line, const char *key, const struct address *address);
void log_end(struct log_line *line);

/** log_format() - In which form the log's lines are. */
enum log_format log_format(const struct log *log);

/** log_copy() - Write a line that another log has made, without its newline. */
void log_copy(struct log *log, const char *line, size_t size);

/** log_lost() - How many lines were lost, those included that a line has told of. */
uint64_t log_lost(const struct log *log);

/** log_showable() - Octets of the character at @text when it may be written to a screen as it is; 0: its first octet must be escaped. */
size_t log_showable(const char *text);

/** log_say() - One line of the program's own: ts=... event=message level=warning text="...". */
void log_say(struct log *log, enum log_level level, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
