/* SPDX-License-Identifier: MIT */
#include "gateway/verify/assembly.h"

#include <stdlib.h>
#include <string.h>

#define BITS         8
#define CAPACITY_MIN 2048 /* octets: most hellos */

bool assembly_has(const struct assembly *assembly, size_t at)
{
	return assembly->have[at / BITS] >> at % BITS & 1;
}

/* Room for @size octets, and a bit for each. */
static bool make_room(struct assembly *assembly, size_t size)
{
	size_t capacity = assembly->capacity ? assembly->capacity : CAPACITY_MIN;
	uint8_t *bytes;

	if (size <= assembly->capacity)
		return true;
	while (capacity < size)
		capacity *= 2;
	bytes = calloc(1, capacity + capacity / BITS);
	if (!bytes)
		return false;
	if (assembly->bytes) {
		memcpy(bytes, assembly->bytes, assembly->capacity);
		memcpy(bytes + capacity, assembly->have, assembly->capacity / BITS);
		free(assembly->bytes);
	}
	assembly->bytes = bytes;
	assembly->have = bytes + capacity;
	assembly->capacity = capacity;
	return true;
}

enum assembly_result assembly_add(struct assembly *assembly, uint64_t offset, const uint8_t *bytes, size_t size)
{
	if (size == 0)
		return ASSEMBLY_ADDED;
	if (offset > ASSEMBLY_MAX || size > ASSEMBLY_MAX - (size_t)offset)
		return ASSEMBLY_TOO_LONG;
	if (!make_room(assembly, (size_t)offset + size))
		return ASSEMBLY_NO_MEMORY;
	for (size_t i = 0; i < size; i++) {
		size_t at = (size_t)offset + i;

		if (assembly_has(assembly, at) && assembly->bytes[at] != bytes[i])
			return ASSEMBLY_CONFLICT;
		assembly->bytes[at] = bytes[i];
		assembly->have[at / BITS] |= (uint8_t)(1U << at % BITS);
	}
	if ((size_t)offset + size > assembly->end)
		assembly->end = (size_t)offset + size;
	while (assembly->whole < assembly->end && assembly_has(assembly, assembly->whole))
		assembly->whole++;
	return ASSEMBLY_ADDED;
}

bool assembly_agrees(const struct assembly *assembly, size_t offset, const uint8_t *bytes, size_t size)
{
	size_t left = offset < assembly->whole ? assembly->whole - offset : 0;

	return left == 0 || memcmp(assembly->bytes + offset, bytes, size < left ? size : left) == 0;
}

void assembly_free(struct assembly *assembly)
{
	free(assembly->bytes); /* `have` is part of it */
	*assembly = (struct assembly){.bytes = NULL};
}
