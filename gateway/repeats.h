/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPEATS_H
#define SLUICE_GATEWAY_REPEATS_H

/*
 * Denied questions that have a line of their own in the log already: what the set `seen` is for flows. A table of fixed size; nothing is
 * allocated for a question.
 */

#include <stdbool.h>
#include <stdint.h>

#include "resolver/resolver.h"

#define REPEATS_MS  10000 /* a question counts as a repeat for so long after the first */
#define REPEATS_MAX 4096  /* questions that are remembered; the oldest make room, and then have a line again */

struct repeats; /* repeats.c */

/** repeats_new() - Return: NULL when out of memory. */
struct repeats *repeats_new(void);
void repeats_free(struct repeats *repeats);

/** repeats_key() - What makes two questions equal: network, source, name, type, and what was decided. Keyed: nobody outside can aim at it.
 */
uint64_t repeats_key(const struct denied_question *question);

/** repeats_contains() - Was it remembered less than REPEATS_MS ago? @now: ms. */
bool repeats_contains(const struct repeats *repeats, uint64_t key, uint64_t now);

/** repeats_remember() - The question got its line at @now. */
void repeats_remember(struct repeats *repeats, uint64_t key, uint64_t now);

#endif
