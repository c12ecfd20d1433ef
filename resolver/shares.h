/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_RESOLVER_SHARES_H
#define SLUICE_RESOLVER_SHARES_H

/*
 * Who has how much of what all share: no source, and no network, can take all of it, however it asks, and none is held back while there
 * is room.
 *
 * The rule: one more is for whoever has less than SHARES_FACTOR times what is free. So a source that is alone gets three quarters, the next
 * one three quarters of the rest, and something is always left for who comes last.
 *
 * Sources are counted in a table of fixed size, twice each, at places that a keyed hash chooses; the smaller count is believed. Others at
 * both of a source's places would be needed to hold it back.
 */

#include <stdbool.h>
#include <stdint.h>

#include "common/address.h"

#define SHARES_SLOTS  4096
#define SHARES_ROWS   2
#define SHARES_FACTOR 3

struct shares {
	uint16_t counts[SHARES_ROWS][SHARES_SLOTS];
};

/* Where a source is counted. */
struct shares_place {
	uint16_t slots[SHARES_ROWS];
};

/** shares_place() - The same for the same network and address, as long as the process lives. */
struct shares_place shares_place(uint16_t network, const struct address *source);

void shares_add(struct shares *shares, struct shares_place place);
/** shares_remove() - What was added before. */
void shares_remove(struct shares *shares, struct shares_place place);
/** shares_of() - How much a source has, or more. */
unsigned int shares_of(const struct shares *shares, struct shares_place place);

/** shares_allow() - May a source that has @own get one more of @max, of which @taken are in use? */
static inline bool shares_allow(unsigned int own, unsigned int taken, unsigned int max)
{
	return taken < max && own < SHARES_FACTOR * (max - taken);
}

#endif
