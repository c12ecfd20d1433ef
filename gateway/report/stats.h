/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_STATS_H
#define SLUICE_GATEWAY_REPORT_STATS_H

/*
 * Who did what, in numbers: a row for each network, app, name (or address) and port, and sums for each network and reason. Pure data: no
 * clock, no socket.
 *
 * Bounded: a network has at most STATS_APPS_MAX apps, an app at most STATS_ROWS_MAX rows. The row that was seen longest ago makes room, and
 * what it had is added to the app's row without name, the app's to the network's row without app: no count is lost.
 *
 * Bytes of flows that are still open come from looks at all flows (upkeep.h). A row remembers the sum of the last look, and apart from that
 * what ended since: until the next look the larger of both is right or a little too small, and it never goes back (stats.c).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <jansson.h>

#include "gateway/report/decision.h"

#define STATS_APPS_MAX 256 /* of a network */
#define STATS_ROWS_MAX 256 /* of an app */
#define STATS_ALL_MAX  16384 /* rows of all networks together */

/* A row as others see it. */
struct stats_row {
	const char *network;
	const char *app;               /* "": not known */
	struct address source;         /* the last one of that app; family 0: the row of all others */
	const struct domain *name;     /* NULL: no name, see destination; both none: the row of all others */
	struct address destination;    /* flows without name; else the last one */
	bool question;                 /* questions that were denied: no port */
	uint16_t port;                 /* 0: none */
	uint8_t protocol;
	uint64_t allowed, denied, audited; /* flows, or questions */
	uint64_t open;                     /* flows, at the last look */
	struct traffic traffic;
	time_t first_seen, last_seen, last_denied; /* wall clock; 0: never */
	enum reason reason;                        /* of the last denial */
	const char *rule;                          /* of the last denial; "": none */
};

struct stats; /* stats.c */

struct stats *stats_new(void);
void stats_free(struct stats *stats);

/** stats_count() - Take a decision into account. @wall: now. */
void stats_count(struct stats *stats, const struct decision *decision, time_t wall);

/** stats_look_begins() / stats_look_flow() / stats_look_ends() - A look at all open flows: @flow as for an ended one. */
void stats_look_begins(struct stats *stats);
void stats_look_flow(struct stats *stats, const struct decision *flow);
void stats_look_ends(struct stats *stats);

/** stats_each() - Rows of one network, or of all (NULL), in no order. The row is valid during the call. */
void stats_each(const struct stats *stats, const char *network, void (*visit)(void *context, const struct stats_row *row), void *context);

/** stats_total() - Denials (@audited: those that audit mode let pass) of a network ("": not known whose) for one reason. */
uint64_t stats_total(const struct stats *stats, const char *network, bool audited, enum reason reason);

/** stats_json() - docs/control-protocol.md, `stats`: the value of "networks". Return: a new reference, NULL: out of memory. */
json_t *stats_json(const struct stats *stats, const char *network);

#endif
