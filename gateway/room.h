/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_ROOM_H
#define SLUICE_GATEWAY_ROOM_H

/*
 * Room in conntrack's table, which is one for all networks: none may fill it for the others, and in a network no source for its neighbours.
 *
 * Each look at all flows (upkeep.h) counts them per network and source. A network that has more than its share has new flows of those
 * sources refused that have more than an equal part of it; and of everybody, should it have too many even without the source that has most
 * (one that changes its address). Flows that are there go on.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/log.h"
#include "common/policy.h"
#include "gateway/ruleset.h"

#define ROOM_SOURCES_MAX 4096 /* sources that are counted in one look, all networks together; those of others count for the network */
#define ROOM_LOOK_MS     5000 /* from one look to the next, while flows are refused; less than RULESET_CROWDED_MS */

struct room_entry;

struct room {
	struct room_entry *entries; /* owned, hash: of networks, and of sources while a look is under way */
	unsigned int sources;
	unsigned int refusing; /* networks */
	uint64_t count;        /* flows in the table when the last look began, or less if there have been fewer since */
	uint64_t step;         /* with so many more the next look is due; 0: no look yet */
	uint64_t looked_at;    /* ms */
};

/**
 * room_share() - How many flows a network may have
 * @max:	flows that the table has room for; 0: it is not known
 * @taken:	flows in it now
 *
 * What the policy says; or SHARES_FACTOR (resolver/shares.h) times what is free, so that none is held back while there is room, and at
 * least an equal part of three quarters of the table.
 */
uint64_t room_share(const struct policy *policy, const struct network *network, uint64_t max, uint64_t taken);

/** room_is_due() - Have so many flows begun that it is time to look, or is somebody refused who may have fewer by now? @now: ms. */
bool room_is_due(struct room *room, uint64_t now);

/** room_look_begins(), room_see() - One flow of a network; @source: NULL when it came in. @now: ms. */
void room_look_begins(struct room *room, uint64_t now);
void room_see(struct room *room, const struct network *network, const struct address *source);

/* Of a network: what a look has found. */
struct room_finding {
	const struct network *network;
	uint64_t share;
	uint64_t flows;
	struct address *sources; /* owned by who asked: those that have more than their part, the one with most first */
	size_t source_count;
	uint64_t most; /* flows of the first one */
	bool refused;  /* new flows of these are to be refused */
	bool all;      /* and those of everybody */
	bool is_new;   /* it was not so before the look, or is not any more */
};

/** room_find() - What a look has found about a network; @share: as room_share(). Return: 0 or -ENOMEM. */
int room_find(struct room *room, const struct network *network, uint64_t share, struct room_finding *out);

/** room_look_ends() - All flows have been seen: refuse, or say that it is over. */
void room_look_ends(struct room *room, const struct policy *policy, struct ruleset *ruleset, struct log *log);

void room_close(struct room *room);

#endif
