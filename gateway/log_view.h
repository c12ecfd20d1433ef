/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_LOG_VIEW_H
#define SLUICE_GATEWAY_LOG_VIEW_H

/* Lines of the log as the daemon tells them (docs/log-format.md, as JSON): which of them are wanted, and what they look like on a screen.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "common/address.h"
#include "common/domain.h"
#include "gateway/terminal.h"

#define LOG_VIEW_TARGET_MAX 1200 /* octets of a destination, with NUL */

struct log_view_filter {
	bool denied, audit, allowed; /* none of them: all events */
	const char *network, *app;   /* NULL: any. An app may be named by its address */
	bool has_pattern;            /* only names that match, or ... */
	struct pattern pattern;
	struct prefix prefix; /* ... addresses in here; family 0: not asked for */
};

/** log_view_parse_name() - The value of --name: a pattern as in a policy, an address or a prefix. Return: NULL, or what is wrong with it.
 */
const char *log_view_parse_name(struct log_view_filter *filter, const char *text);

/** log_view_passes_all() - Does every line pass? */
bool log_view_passes_all(const struct log_view_filter *filter);

/** log_view_passes() - Lines about the log itself (log-lost) always do. */
bool log_view_passes(const struct log_view_filter *filter, const json_t *line);

/** log_view_value() - A text of a line; NULL: it has none. */
const char *log_view_value(const json_t *line, const char *key);

/**
 * log_view_target() - What was asked for: "evil.example:443/tcp", "[2001:db8::5]:53/udp", "evil.example A", "512 packets"
 * Return: @out, not escaped.
 */
const char *log_view_target(const json_t *line, char out[static LOG_VIEW_TARGET_MAX]);

/* How wide the columns have become. All zero at first. */
struct log_view_columns {
	size_t network, who, target;
	char date[11]; /* of the line before */
};

/** log_view_measure() - Make the columns wide enough for a line that will be printed. */
void log_view_measure(struct log_view_columns *columns, const struct terminal *terminal, const json_t *line);

/** log_view_print() - One line; a line with the date comes before it when that has changed, and is not the one in @columns. */
void log_view_print(struct log_view_columns *columns, const struct terminal *terminal, FILE *stream, const json_t *line);

#endif
