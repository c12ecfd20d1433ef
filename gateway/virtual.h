/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_VIRTUAL_H
#define SLUICE_GATEWAY_VIRTUAL_H

/*
 * Virtual addresses at work (common/mapping.h has them as data): answers get them, the kernel's maps and the journal follow, and the real
 * addresses behind them are kept current.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "common/lease.h"
#include "common/mapping.h"
#include "resolver/resolver.h"

#define VIRTUAL_TICK_MS        1000
#define VIRTUAL_REFRESH_MIN_MS 5000  /* a name is asked for again at most so often ... */
#define VIRTUAL_REFRESH_IDLE   16    /* ... and not before this part of the time for which nobody used it has passed once more */
#define VIRTUAL_REFRESH_MAX    512   /* addresses in one tick: of names of many networks whose TTLs are short */
#define VIRTUAL_SAY_MS         60000 /* that a pool is full, or an address cannot be held, is told at most so often */

#define VIRTUAL_SAID_MAX 16 /* pools of which it is known when something was last told */

struct gateway;

/* When something was told about a pool. */
struct virtual_said {
	uint64_t at; /* ms; 0: never */
	uint16_t network;
	uint8_t family;
};

struct virtuals {
	struct mapping_table *table; /* owned */
	uv_timer_t timer;
	struct lease *recycled; /* owned: leases whose address was given to another name; the kernel's sets have them still */
	size_t recycled_count, recycled_capacity;
	struct virtual_said full[VIRTUAL_SAID_MAX], unheld[VIRTUAL_SAID_MAX];
};

/** virtual_open() - Keep real addresses current, on the gateway's loop. Return: 0 or -errno. */
int virtual_open(struct gateway *gateway);
void virtual_close(struct gateway *gateway);

/** virtual_map() - The resolver's `map` (resolver.h). */
int virtual_map(void *context, const struct network *network, const struct shown_answer *shown, struct virtual_addresses *out);

/**
 * virtual_write() - Bring to the kernel and the journal what has changed, before anything is granted that needs it
 * Return: 0 or -errno: no answer may leave.
 */
int virtual_write(struct gateway *gateway);

/**
 * virtual_check() - Could the pools of a policy be held, as far as neighbours that were seen tell?
 *
 * Return: 0; or -EADDRINUSE with @error: a neighbour has an address of a pool that is not held yet.
 */
int virtual_check(struct gateway *gateway, const struct policy *policy, char *error, size_t error_size);

/** virtual_restore() - A mapping from the journal; of one that fits no network of @policy nothing is kept. */
void virtual_restore(struct gateway *gateway, const struct policy *policy, const struct mapping *mapping);

/**
 * virtual_synchronised() - The kernel has just got all mappings that fit @policy, and no others; its name sets are what leases open
 *
 * What does not fit it goes. To be called before anything is mapped again, which a change of the resolver's policy may do.
 */
void virtual_synchronised(struct gateway *gateway, const struct policy *policy);

/** virtual_refresh() - Ask for the names whose real addresses are out of date, where leases are open: at once after a change of policy. */
void virtual_refresh(struct gateway *gateway);

/** virtual_hold() - Answer neighbour discovery for all virtual addresses in use, on interfaces that may be new; what goes wrong is said. */
void virtual_hold(struct gateway *gateway);

/**
 * virtual_shown() - The address that an answer showed when it gave a lease: the lease's own, or where its virtual address leads
 * Return: NULL when the lease is of no use to the network: it has virtual addresses and the lease does not, or the other way round.
 */
const struct address *virtual_shown(const struct gateway *gateway, const struct network *network, const struct lease *lease);

/** virtual_remember() - See to it that a virtual address that stands for a name has a lease, be it ended, so that a flow to it has a name.
 */
void virtual_remember(struct gateway *gateway, const struct network *network, const struct address *address);

/** virtual_answer() - The control command "mapping": {"network": NAME, "address": TEXT} -> name and real address. */
json_t *virtual_answer(const struct gateway *gateway, const json_t *request);

#endif
