/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_COMMON_MAPPING_H
#define SLUICE_COMMON_MAPPING_H

/*
 * Virtual addresses: "address V of network W's pool stands for name N, and leads to real address R". A virtual address never stands for two
 * names; a name keeps its virtual addresses until the pool is full and it is the one that was unused for longest.
 *
 * Pure data: no socket, clock or kernel call. Times are milliseconds of the leases' clock (lease.h).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/address.h"
#include "common/domain.h"
#include "common/policy.h"

#define MAPPING_POOL_MAX     4096 /* addresses of a pool that are used: of a wider one the first */
#define MAPPING_PER_NAME_MAX 8    /* virtual addresses of one name and family */

/* `used`, `told` and `checked` are those of the name: all its mappings of a network and family have the same. */
struct mapping {
	struct address address; /* virtual */
	struct address real;    /* of the same family */
	uint16_t network;       /* struct network's id */
	uint8_t slot;           /* its place among the name's virtual addresses of this family: answers have them in this order */
	struct domain name;
	uint64_t answered;      /* ms: when an answer last gave the real addresses */
	uint64_t used;          /* ms: when an app last asked for the name, or a flow to the address was seen */
	uint64_t told;          /* ms: until when an app may keep the addresses by the TTLs it was told */
	uint64_t checked;       /* ms: when the gateway itself last asked for the name */
	uint32_t ttl;           /* seconds, of that answer */
	bool stale;             /* that answer was past its end, or may have been */
	struct address written; /* the real address that the kernel has for the virtual one; family 0: none */
};

struct mapping_table; /* mapping.c */

struct mapping_table *mapping_table_new(void);
void mapping_table_free(struct mapping_table *table);
size_t mapping_table_count(const struct mapping_table *table);

/**
 * mapping_pool_has() - Is this an address that the network's pool gives to names?
 *
 * The pool's addresses up to the MAPPING_POOL_MAX-th, without the subnet's network and broadcast addresses (IPv4), its Subnet-Router
 * anycast address (IPv6, RFC 4291 section 2.6.1) and the gateway's. Subnets of one or two addresses have none of these but the gateway's
 * (RFC 3021, RFC 6164).
 */
bool mapping_pool_has(const struct network *network, const struct address *address);

/* What an answer says about a name, and what is needed to find virtual addresses for it. */
struct mapping_answer {
	const struct network *network; /* with a pool of the family */
	const struct domain *name;
	const struct address *reals; /* in the answer's order; all of one family */
	size_t real_count;           /* at least 1 */
	uint32_t ttl;                /* seconds */
	bool asked;                  /* by an app, not by the gateway itself */
	bool stale;                  /* past its end: no upstream has a better one */
	uint64_t now;
	uint64_t idle; /* ms: after the last use, and the end of all TTLs that were told, a name keeps its addresses for so long */
	/* May the address be taken from its name? Asked for every address of names that are idle; may not touch the table. */
	bool (*may_go)(void *context, const struct mapping *mapping);
	/* It is being taken from its name, for another one or to be free; may not touch the table. */
	void (*gone)(void *context, const struct mapping *mapping);
	void *context;
};

/**
 * mapping_assign() - Map a name's virtual addresses to what an answer shows
 * @out:	receives the name's mappings of this family in order of their slots; valid until the next change of the table
 * @count:	receives how many: all that the name has
 * @shown:	receives how many of them, the first ones, an answer is to show: as many as there are real addresses, at most
 *
 * A name gets as many virtual addresses as the answer has different real ones, at most network->per_name and MAPPING_PER_NAME_MAX, and
 * keeps them when answers get shorter. A mapping keeps its real address while answers have it, unless an earlier slot leads there too and
 * the answer has one that no mapping of the name leads to; else it gets such a one, or any if there is none left. So slots that the answer
 * is too short for lead to current addresses as well, and part again when there are enough.
 *
 * New addresses are the first free ones of the pool in order: not the subnet's network and broadcast addresses (IPv4), not its
 * Subnet-Router anycast address (IPv6, RFC 4291 section 2.6.1), not the gateway's. When none is free, the name's first virtual address is
 * taken from another name of the network and family: of those that are idle and whose every address may go, the one that was unused for
 * longest; all addresses of that name go then. For further virtual addresses none is taken from anybody: without a free address, or memory,
 * the name has fewer.
 *
 * When a reload gives the network another pool, subnet or gateway, the caller removes the mappings that do not fit any more: until then
 * their names keep them, but no other name gets their addresses.
 *
 * Return: 0, -ENOSPC: the pool is full, -ENOMEM; then nothing has changed.
 */
int mapping_assign(struct mapping_table *table, const struct mapping_answer *answer, const struct mapping *out[static MAPPING_PER_NAME_MAX],
		   size_t *count, size_t *shown);

/**
 * mapping_put() - Add a mapping as it is, from a journal; it counts as changed
 *
 * One of the same network, name, family and slot is replaced (a journal's later record holds), one of the same network and address too.
 * `written` is not taken over. Slots that are missing before it close up. Of `used`, `told` and `checked` the name has the latest.
 *
 * That the network could have it is not looked at: see mapping_fits().
 *
 * Return: 0, -EINVAL for what no mapping can be: a slot beyond MAPPING_PER_NAME_MAX, no name, addresses of two families; or -ENOMEM; then
 * nothing has changed.
 */
int mapping_put(struct mapping_table *table, const struct mapping *mapping);

/** mapping_fits() - Could a network have this mapping: has it the address in its pool, and so many for a name? @network: NULL: no. */
bool mapping_fits(const struct mapping *mapping, const struct network *network);

/** mapping_find() - What a virtual address stands for. Return: valid until the next change of the table, or NULL. */
const struct mapping *mapping_find(const struct mapping_table *table, uint16_t network, const struct address *address);

/** mapping_touch() - A flow to a virtual address was seen; nothing happens when it stands for nothing, or was used later than @now. */
void mapping_touch(struct mapping_table *table, uint16_t network, const struct address *address, uint64_t now);

/** mapping_checked() - The gateway has asked for the name. */
void mapping_checked(struct mapping_table *table, uint16_t network, const struct address *address, uint64_t now);

/**
 * mapping_each() - Call @visit for every mapping; it returns false to remove the mapping
 *
 * Those of a name in order of their slots, names of a network and family in order of their last use, longest ago first: put in this order
 * into another table, they are what they were.
 *
 * @visit gets the mapping itself, and may not touch the table.
 */
void mapping_each(struct mapping_table *table, bool (*visit)(void *context, const struct mapping *mapping), void *context);

/**
 * mapping_changes() - Call @visit for every mapping that is new since mapping_settle(), or has another real address than is written
 *
 * An address that was given to another name is a new mapping, wherever it leads. In the order in which they changed; a mapping that was
 * removed meanwhile is not visited. @visit may not touch the table.
 */
void mapping_changes(const struct mapping_table *table, void (*visit)(void *context, const struct mapping *mapping), void *context);

/** mapping_is_settled() - Would mapping_changes() visit nothing? */
bool mapping_is_settled(const struct mapping_table *table);

/** mapping_synchronised() - The kernel has for every address what the table has, and no others: as mapping_settle(), for all. */
void mapping_synchronised(struct mapping_table *table);

/** mapping_settle() - The changes have reached the kernel and the journal: `written` is what is real. */
void mapping_settle(struct mapping_table *table);

#endif
