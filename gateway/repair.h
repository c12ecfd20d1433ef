/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPAIR_H
#define SLUICE_GATEWAY_REPAIR_H

/*
 * The table is made anew when somebody else has changed it (table_guard.h).
 */

#include <stdint.h>

#include "gateway/table_guard.h"

#define REPAIR_MS     100   /* the table is made anew at most so often */
#define REPAIR_SAY_MS 10000 /* that is told at most so often */

struct gateway;

struct repair {
	struct table_guard *guard;     /* owned */
	char who[TABLE_GUARD_WHO_MAX]; /* changed it last */
	uint64_t at;                   /* ms: the last repair, or try */
	uint64_t said_at;              /* ms */
	unsigned int untold;           /* repairs */
};

/** repair_open() - Before the policy is applied first, so that no change is missed. Return: 0 or -errno. */
int repair_open(struct gateway *gateway);
void repair_close(struct gateway *gateway);
/** repair_tick() - What had to wait. Call it about four times a second. */
void repair_tick(struct gateway *gateway);

#endif
