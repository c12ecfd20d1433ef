/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_COMMON_LEASE_H
#define SLUICE_COMMON_LEASE_H

/*
 * Leases: "address A is name N, for network W, until T". They say what the kernel's sets hold and which name a denied flow was going
 * to. A lease that has ended is remembered for LEASE_MEMORY_MS, so that a denial can still be named.
 *
 * Times are milliseconds of one monotonic clock that the caller chooses (uv_now()).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/address.h"
#include "common/chain.h"
#include "common/domain.h"

/*
 * How many leases there may be, remembered ones included. An app that may ask for any name below a wildcard can make as many as it likes,
 * and must not take them from other networks: each network may hold LEASE_NETWORK_MAX while there are fewer than LEASE_COUNT_MAX in all,
 * and LEASE_NETWORK_FLOOR always. So four networks can never be in each other's way, others keep enough for ordinary apps whatever those
 * four do, and there are never more than LEASE_COUNT_MAX + POLICY_NETWORKS_MAX * LEASE_NETWORK_FLOOR.
 */
#define LEASE_COUNT_MAX     1000000
#define LEASE_NETWORK_MAX   250000
#define LEASE_NETWORK_FLOOR 2000
#define LEASE_MEMORY_MS     (24 * 3600 * 1000UL) /* how long an ended lease is remembered */
#define LEASE_USE_MS        180000               /* and one of whose address a flow was seen, however long ago it ended */
#define LEASE_VISIT_MAX     8                    /* leases of one address that are looked at for a packet or a flow */

struct lease {
	struct address address;
	uint16_t network;   /* struct network's id */
	bool audited;       /* known by audit mode only: nothing was granted */
	struct domain name; /* the name that was asked for, not the end of its CNAME chain */
	/*
	 * How the latest answer led from it to the address. Not owned: of a lease that the table hands out it is the table's, valid as long
	 * as is said there; of one that lease_put() is given it is the caller's, and the table keeps its own copy.
	 */
	struct chain chain;
	uint64_t specs; /* port specifications granted, bits of network->specs */
	uint64_t shown; /* ms: when an answer last showed the address */
	uint64_t until; /* ms */
};

struct lease_table; /* lease.c */

struct lease_table *lease_table_new(void);
void lease_table_free(struct lease_table *table);
size_t lease_table_count(const struct lease_table *table);

/**
 * lease_put() - Add a lease, or extend the one of the same network, address and name
 *
 * `until` and `shown` are never moved backwards; specs, audited and chain are taken over. When the network may have no more, those of its
 * leases that had ended at the last lease_sweep() make room; a bounded piece of work per call.
 *
 * Return: 0, -ENOSPC when the network may have no more, -ENOMEM; then nothing has changed.
 */
int lease_put(struct lease_table *table, const struct lease *lease);

/* What an answer has brought. */
enum lease_news {
	LEASE_NEW,     /* a lease that was not there */
	LEASE_CHANGED, /* a later end, other specs, another chain */
	LEASE_SAME,    /* nothing but that it was shown once more */
};

/** lease_tell() - lease_put(), and what that has brought: valid when it returns 0. */
int lease_tell(struct lease_table *table, const struct lease *lease, enum lease_news *news);

/** lease_has() - Is there a lease of this network, address and name, be it ended? */
bool lease_has(const struct lease_table *table, uint16_t network, const struct address *address, const struct domain *name);

/**
 * lease_refresh() - Take what the table has of the lease of the same network, address and name
 * Return: false when it has none. The chain is valid until the next change of the table.
 */
bool lease_refresh(const struct lease_table *table, struct lease *lease);

/** lease_remove() - Forget one lease; nothing happens when it is not there. */
void lease_remove(struct lease_table *table, uint16_t network, const struct address *address, const struct domain *name);

/**
 * lease_until() - The latest end of all granted leases of an address on a network that include one of @spec_bits
 * Return: ms, or 0 when there is none.
 */
uint64_t lease_until(const struct lease_table *table, uint16_t network, const struct address *address, uint64_t spec_bits);

/**
 * lease_find() - The lease that best says which name an address was, for a denied flow of @network
 *
 * Live ones of the network first, then ended ones of the network, then those of other networks; among equals the
 * one that ends last.
 *
 * Return: the lease, valid until the next lease_find() or change of the table, or NULL.
 */
const struct lease *lease_find(const struct lease_table *table, uint16_t network, const struct address *address);

/** lease_names() - Names of an address on a network that are live at @now, for PTR; any @max of them. Return: how many were written. */
size_t lease_names(const struct lease_table *table, uint16_t network, const struct address *address, uint64_t now, struct domain *out,
		   size_t max);

/**
 * lease_specs() - What the leases of an address on a network open, or opened before they ended
 * Return: bits of network->specs of all its granted leases.
 */
uint64_t lease_specs(const struct lease_table *table, uint16_t network, const struct address *address);

/**
 * lease_touch() - A flow of a network to an address is there
 *
 * Its leases are remembered for LEASE_USE_MS from now, so that a flow which outlives its lease keeps its name.
 *
 * Return: true when there are leases, and this is the first flow to the address at @now.
 */
bool lease_touch(struct lease_table *table, uint16_t network, const struct address *address, uint64_t now);

/**
 * lease_visit() - Call @visit for leases of an address on a network, live or ended; as lease_each(), but none is removed
 *
 * At most LEASE_VISIT_MAX of them, for an address may have a hundred thousand names: of those that open the same, the one that ends last
 * comes first. The lease's chain is valid during the call.
 */
void lease_visit(struct lease_table *table, uint16_t network, const struct address *address,
		 void (*visit)(void *context, struct lease *lease), void *context);

/**
 * lease_each() - Call @visit for every lease; it may change specs, audited and until of the lease it is given
 *
 * @visit returns false to remove the lease. It gets a copy, valid during the call, and may not touch the table. A lease whose change finds
 * no memory is removed: what it was meant to open stays closed.
 */
void lease_each(struct lease_table *table, bool (*visit)(void *context, struct lease *lease), void *context);
/** lease_each_of() - The same, of one network only. */
void lease_each_of(struct lease_table *table, uint16_t network, bool (*visit)(void *context, struct lease *lease), void *context);

/** lease_sweep() - Forget leases that ended more than LEASE_MEMORY_MS before @now; a bounded piece of work per call. */
void lease_sweep(struct lease_table *table, uint64_t now);

#endif
