/* SPDX-License-Identifier: MIT */
/*
 * Slots are numbered from 1, so that zeroed memory is an empty table. One that is in use is in a chain of its bucket, and in a ring by age
 * that begins and ends at slot 0. Slots that were used before are taken first, so a small table stays small.
 *
 * The kernel makes ids by a keyed hash, or on old kernels from addresses of its memory: nobody outside can aim at a bucket.
 */
#include "gateway/beginnings.h"

#include <stdlib.h>

#define NEVER UINT32_MAX

struct slot {
	uint32_t id;
	uint32_t chain; /* the next one of the bucket, or of the spare ones; 0: none */
	uint32_t older, younger;
	uint64_t began;
	uint32_t lasted;  /* ms, as the looks know it; NEVER: no look yet, or too long to be told */
	uint32_t packets; /* by then; its lower bits, which is enough to see that there were others since */
};

struct beginnings {
	uint32_t spare;   /* slots that were used before; 0: none */
	uint32_t touched; /* slots 1 to this one have been used */
	size_t count;
	uint32_t buckets[BEGINNINGS_MAX];
	struct slot slots[BEGINNINGS_MAX + 1];
};

struct beginnings *beginnings_new(void)
{
	return calloc(1, sizeof(struct beginnings));
}

void beginnings_free(struct beginnings *beginnings)
{
	free(beginnings);
}

size_t beginnings_count(const struct beginnings *beginnings)
{
	return beginnings->count;
}

/* Return: what leads to the slot of @id, or the 0 at the end of its chain. */
static uint32_t *find(struct beginnings *beginnings, uint32_t id)
{
	uint32_t *link = &beginnings->buckets[id * 2654435761U / (UINT32_MAX / BEGINNINGS_MAX + 1)];

	while (*link != 0 && beginnings->slots[*link].id != id)
		link = &beginnings->slots[*link].chain;
	return link;
}

static void forget(struct beginnings *beginnings, uint32_t *link)
{
	uint32_t number = *link;
	struct slot *slot = &beginnings->slots[number];

	*link = slot->chain;
	beginnings->slots[slot->older].younger = slot->younger;
	beginnings->slots[slot->younger].older = slot->older;
	slot->chain = beginnings->spare;
	beginnings->spare = number;
	beginnings->count--;
}

static uint32_t take_slot(struct beginnings *beginnings)
{
	uint32_t number = beginnings->spare;

	if (number == 0)
		return ++beginnings->touched;
	beginnings->spare = beginnings->slots[number].chain;
	return number;
}

void beginnings_add(struct beginnings *beginnings, uint32_t id, uint64_t now)
{
	struct slot *ring = &beginnings->slots[0];
	uint32_t *link = find(beginnings, id), number;

	if (*link != 0)
		forget(beginnings, link);
	else if (beginnings->count == BEGINNINGS_MAX)
		forget(beginnings, find(beginnings, beginnings->slots[ring->younger].id));
	number = take_slot(beginnings);
	link = find(beginnings, id);
	beginnings->slots[number] = (struct slot){.id = id, .older = ring->older, .began = now, .lasted = NEVER};
	beginnings->slots[ring->older].younger = number;
	ring->older = number;
	*link = number;
	beginnings->count++;
}

static uint64_t lasted(const struct slot *slot, uint64_t last)
{
	return last > slot->began ? last - slot->began : 0;
}

void beginnings_look(struct beginnings *beginnings, uint32_t id, uint64_t packets, uint64_t last)
{
	struct slot *slot = &beginnings->slots[*find(beginnings, id)];
	uint64_t now_lasted;

	if (slot == &beginnings->slots[0] || packets == 0)
		return;
	now_lasted = lasted(slot, last);
	if (slot->packets != (uint32_t)packets)
		slot->lasted = NEVER;
	slot->packets = (uint32_t)packets;
	if (now_lasted < slot->lasted)
		slot->lasted = (uint32_t)now_lasted;
}

int64_t beginnings_take(struct beginnings *beginnings, uint32_t id, uint64_t packets, uint64_t last)
{
	uint32_t *link = find(beginnings, id);
	const struct slot *slot = &beginnings->slots[*link];
	uint64_t duration;

	if (*link == 0)
		return -1;
	duration = packets == 1 ? 0 : lasted(slot, last);
	if (slot->lasted != NEVER && slot->packets == (uint32_t)packets && slot->lasted < duration)
		duration = slot->lasted;
	forget(beginnings, link);
	return (int64_t)duration;
}
