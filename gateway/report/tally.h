/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_TALLY_H
#define SLUICE_GATEWAY_REPORT_TALLY_H

/*
 * How many of the flows that the kernel has counted were told of, for each network. No flow waits for us: the kernel counts each one, and
 * conntrack tells of it, unless its message is lost because too many come at once or nobody listens. What the kernel's counter has more
 * than was told, one by one or in a sum, is told in a sum. So sums of `count` are exact, whatever was lost.
 */

#include <stdbool.h>
#include <stdint.h>

#include "common/hash.h"
#include "common/log.h"
#include "common/policy.h"
#include "gateway/bucket.h"

#define TALLY_LINE_MS    20  /* a line every so many ms, per network ... */
#define TALLY_LINE_BURST 100 /* ... and so many at once; the rest goes into a summary */

/* Of one network. */
struct tally {
	UT_hash_handle hh;
	char network[POLICY_NAME_MAX + 1];
	uint64_t told;        /* flows of the kernel's counter */
	uint64_t total;       /* the kernel's counter at the last reading */
	uint64_t waiting;     /* flows that nobody had been told of by then */
	struct bucket bucket; /* of lines */
	size_t slot;          /* tally.c: its place in the memory */
};

struct tallies; /* tally.c */

/**
 * tallies_new() - @what: "inbound flows"; static text
 * @memory:	a descriptor of memory.h: what the worker before has told, and this one for the next; -1: none
 * Return: NULL when out of memory.
 */
struct tallies *tallies_new(struct log *log, const char *what, int memory);
void tallies_free(struct tallies *tallies);
bool tallies_are_empty(const struct tallies *tallies);

/** tallies_want() - The tally of a network; it begins at 0. Return: valid until tallies_forget_gone(), or NULL when out of memory. */
struct tally *tallies_want(struct tallies *tallies, const char *network);

/** tally_may_tell() - May one more flow have its line at @now (ms)? */
bool tally_may_tell(struct tally *tally, uint64_t now);

/** tallies_told() - Somebody was told of @flows more. That is kept for the next worker at once; what goes wrong is said. */
void tallies_told(struct tallies *tallies, struct tally *tally, uint64_t flows);

/**
 * tallies_take_untold() - How many flows a summary has to tell of now; they count as told
 * @total:	the kernel's counter
 * @last:	there will be no other call: nothing may be left for it
 *
 * Only what the reading before had found as well: the newest may still get their lines.
 */
uint64_t tallies_take_untold(struct tallies *tallies, struct tally *tally, uint64_t total, bool last);

/** tallies_forget_gone() - A network's counter goes with it, and begins anew with another one of its name. */
void tallies_forget_gone(struct tallies *tallies, const struct policy *policy);

#endif
