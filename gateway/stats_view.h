/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_STATS_VIEW_H
#define SLUICE_GATEWAY_STATS_VIEW_H

/* The daemon's statistics (docs/control-protocol.md, `stats`): which rows are shown, in which order, and what they look like. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "gateway/terminal.h"

#define STATS_VIEW_RECENT 3600 /* s: what was denied since then comes first */

enum stats_view_sort {
	STATS_VIEW_URGENT, /* what was denied recently, then what audit mode let pass, then bytes */
	STATS_VIEW_DENIED,
	STATS_VIEW_BYTES,
	STATS_VIEW_LAST,
	STATS_VIEW_ALLOWED,
};

struct stats_view_choice {
	const char *network, *app; /* NULL: any. An app may be named by its address */
	enum stats_view_sort sort;
	size_t limit; /* rows of each network; 0: all */
};

/** stats_view_parse_sort() - "denied", "bytes", "last", "allowed". Return: false when it is none of them. */
bool stats_view_parse_sort(const char *text, enum stats_view_sort *out);

/**
 * stats_view_arrange() - The answer with just those rows, in that order; a network that had more gets "left_out": how many
 * Return: a new reference, @answer is as before; NULL when out of memory.
 */
json_t *stats_view_arrange(const json_t *answer, const struct stats_view_choice *choice);

/**
 * stats_view_print() - An arranged answer, for people
 * @before:	an answer of some time ago, not arranged; NULL: there is nothing to compare with
 * @seconds:	between both
 * Return: false when out of memory.
 */
bool stats_view_print(const json_t *answer, const json_t *before, double seconds, const struct terminal *terminal, FILE *stream);

#endif
