/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_COMMON_PREFIX_TABLE_H
#define SLUICE_COMMON_PREFIX_TABLE_H

/*
 * Many prefixes, and which of them an address is in: the time grows with the logarithm of their number. Built once, then only read.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/address.h"

struct prefix_row {
	struct prefix prefix;
	uint32_t index;               /* in the list that the table was built from */
	const struct prefix_row *out; /* the narrowest other one that covers it, or NULL; of equal ones, that of the next index */
};

struct prefix_table {
	struct prefix_row *rows; /* owned; sorted */
	size_t count;
};

/**
 * prefix_table_build() - Make a table of prefixes of any family and length; those without an address (family 0) are left out
 * @table:	what it had before is released; it stays as it was when there is an error
 * Return: 0 or -ENOMEM.
 */
int prefix_table_build(struct prefix_table *table, const struct prefix *prefixes, size_t count);

/** prefix_table_free() - Release what it has; the table is empty then. */
void prefix_table_free(struct prefix_table *table);

/** prefix_table_find() - The longest prefix that contains an address, or NULL; its `out` is the next one that does, and so on. */
const struct prefix_row *prefix_table_find(const struct prefix_table *table, const struct address *address);

#endif
