/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_STATS_H
#define SLUICE_GATEWAY_REPORT_STATS_H

/*
 * Who did what, in numbers: a row for each network, app, name (or address) and port, and sums for each network and reason. Pure data: no
 * clock, no socket, no file (stats_file.h).
 *
 * Bounded: see the limits. The row that was seen longest ago makes room, and what it had is added to its app's row of all other
 * destinations, an app's to its network's row of all other apps: no count is lost.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "gateway/report/decision.h"

#define STATS_APPS_MAX 256  /* apps of a network */
#define STATS_ROWS_MAX 256  /* rows of an app */
#define STATS_ALL_MAX  8192 /* rows of all networks together, those of all others not counted */
#define STATS_RULE_MAX 128  /* octets of FILE:LINE; longer ones are cut */

/* What may be counted. */
struct stats_numbers {
	uint64_t allowed, denied, audited; /* flows, or questions */
	uint64_t open;                     /* flows, at the last look */
	struct traffic traffic;            /* of allowed flows, and of those that audit mode let pass */
	struct traffic ended;              /* the part of it that flows carried which are over */
};

struct stats_row {
	char network[POLICY_NAME_MAX + 1]; /* "": it could not be told whose */
	char app[APPS_NAME_MAX + 1];       /* "": not known */
	struct address source;             /* the last one of that app; family 0 and no app: the row of all other apps */
	struct domain name;                /* length 0: none known */
	struct address destination;        /* the last one; family 0 and no name: the row of all other destinations */
	bool question;                     /* questions that were denied, or answered by audit mode only; no port */
	bool has_port;
	uint16_t port;
	uint8_t protocol;
	struct stats_numbers numbers;
	time_t first_seen, last_seen;
	time_t last_denied;        /* also by audit mode; 0: never */
	enum reason reason;        /* of the last denial */
	char rule[STATS_RULE_MAX]; /* of the last denial; "": none */
};

/* A network as a whole. */
struct stats_network {
	char network[POLICY_NAME_MAX + 1];
	uint64_t inbound;                                     /* flows */
	uint64_t denied[REASON_COUNT], audited[REASON_COUNT]; /* flows, questions, packets */
};

struct stats; /* stats.c */

struct stats *stats_new(void);
void stats_free(struct stats *stats);

/** stats_count() - Take a decision into account. @wall: now. */
void stats_count(struct stats *stats, const struct decision *decision, time_t wall);

/**
 * stats_look_begins() / stats_look_flow() / stats_look_ends() - A look at all open flows: @flow as for an ended one
 *
 * `count` is 0 for a flow that is over and not forgotten yet. A look that does not come to its end counts for nothing.
 */
void stats_look_begins(struct stats *stats, time_t wall);
void stats_look_flow(struct stats *stats, const struct decision *flow);
void stats_look_ends(struct stats *stats);

/** stats_each() - All rows, in no order; @row is valid during the call. */
void stats_each(const struct stats *stats, void (*visit)(void *context, const struct stats_row *row), void *context);

/**
 * stats_each_news() - All rows of a network's allowed flows in which something is new since the last call for it
 * @visit:	@row has only what is new in `allowed` and in `traffic`; NULL: nobody wants to know
 */
void stats_each_news(struct stats *stats, const char *network, void (*visit)(void *context, const struct stats_row *row), void *context);

/** stats_count_rows() - How many rows stats_each() visits. */
size_t stats_count_rows(const struct stats *stats);

/** stats_each_network() - All networks that anything was counted for. */
void stats_each_network(const struct stats *stats, void (*visit)(void *context, const struct stats_network *network), void *context);

/** stats_changes() - A number that is another one whenever something was counted. */
uint64_t stats_changes(const struct stats *stats);

/** stats_restore() / stats_restore_network() - What was counted before, by a process that is gone. Open flows are seen again by looks. */
void stats_restore(struct stats *stats, const struct stats_row *row);
void stats_restore_network(struct stats *stats, const struct stats_network *network);

#endif
