/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_NOTIFY_TABLE_H
#define SLUICE_GATEWAY_REPORT_NOTIFY_TABLE_H

/*
 * What has been notified: who was denied what. Pure data. Bounded: the entry that was seen longest ago makes room.
 *
 * An entry is a network, an app (or a source, when its name is not known) and a name (or a destination, when no name is known).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/report/decision.h"

#define NOTIFY_KNOWN_MAX 4096
#define NOTIFY_KNOWN_MS  (24 * 3600 * 1000ULL) /* what was not seen for so long is new again */

struct notify_table; /* notify_table.c */

/** notify_table_new() - Return: NULL when out of memory. */
struct notify_table *notify_table_new(void);
void notify_table_free(struct notify_table *table);

/**
 * notify_table_see() - @now: ms
 * @message:	number of the message that tells it when it is new; numbers grow, from 1
 * Return: true when it is new; from now on it is not.
 */
bool notify_table_see(struct notify_table *table, const struct decision *decision, uint64_t message, uint64_t now);

size_t notify_table_count(const struct notify_table *table);

/** notify_table_clear() - Everything is new again. */
void notify_table_clear(struct notify_table *table);

/**
 * notify_table_save() - What the next worker needs to know
 * @message:	the last one that has been sent: what later ones tell is left out, and told again
 * @bytes:	malloc()ed for the caller
 * Return: 0 or -ENOMEM.
 */
int notify_table_save(const struct notify_table *table, uint64_t message, uint64_t now, void **bytes, size_t *size);

/** notify_table_restore() - Add what another table saved, as seen so long before @now; broken bytes are passed over. */
void notify_table_restore(struct notify_table *table, const void *bytes, size_t size, uint64_t now);

#endif
