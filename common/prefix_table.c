/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: of two prefixes, either one covers the other, or they have no address in common. Sorted by first address, the
 * wider one first, every prefix comes behind those that cover it. So all prefixes between the longest one that contains an address and
 * the last one that does not begin behind that address are inside the former: it is found from the latter by going outwards.
 */
#include "common/prefix_table.h"

#include <errno.h>
#include <stdlib.h>

static int compare_rows(const void *left, const void *right)
{
	const struct prefix_row *a = left, *b = right;
	int order = address_compare(&a->prefix.address, &b->prefix.address);

	if (order)
		return order;
	if (a->prefix.length != b->prefix.length)
		return a->prefix.length < b->prefix.length ? -1 : 1;
	return a->index < b->index ? 1 : -1;
}

/* From each row to the one around it. */
static void link_rows(struct prefix_table *table)
{
	for (size_t i = 1; i < table->count; i++) {
		const struct prefix_row *around = &table->rows[i - 1];

		while (around && !prefix_covers(&around->prefix, &table->rows[i].prefix))
			around = around->out;
		table->rows[i].out = around;
	}
}

int prefix_table_build(struct prefix_table *table, const struct prefix *prefixes, size_t count)
{
	struct prefix_table built = {.rows = calloc(count + 1, sizeof(*built.rows))};

	if (!built.rows)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		if (prefixes[i].address.family)
			built.rows[built.count++] = (struct prefix_row){.prefix = prefixes[i], .index = (uint32_t)i};
	}
	qsort(built.rows, built.count, sizeof(*built.rows), compare_rows);
	link_rows(&built);
	prefix_table_free(table);
	*table = built;
	return 0;
}

void prefix_table_free(struct prefix_table *table)
{
	free(table->rows);
	*table = (struct prefix_table){0};
}

/* The last row that does not begin behind an address, or NULL. */
static const struct prefix_row *last_before(const struct prefix_table *table, const struct address *address)
{
	size_t low = 0, high = table->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (address_compare(&table->rows[middle].prefix.address, address) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low ? &table->rows[low - 1] : NULL;
}

const struct prefix_row *prefix_table_find(const struct prefix_table *table, const struct address *address)
{
	const struct prefix_row *row = last_before(table, address);

	while (row && !prefix_contains(&row->prefix, address))
		row = row->out;
	return row;
}
