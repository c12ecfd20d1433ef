/* SPDX-License-Identifier: MIT */
/*
 * Answers as memory: one block that holds the struct, room for its records, and the octets that they point to. An answer is
 * filled once, front to back, and not changed afterwards.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "resolver/message.h"

struct block {
	struct answer answer; /* first, so that an answer's address is its block's */
	size_t records_max;
	uint8_t *next, *end; /* unused octets */
	struct record records[];
};

struct answer *answer_new(uint16_t rcode, size_t max_records, size_t max_bytes)
{
	size_t records_size;
	size_t size;
	struct block *block;

	if (__builtin_mul_overflow(max_records, sizeof(struct record), &records_size) ||
	    __builtin_add_overflow(sizeof(*block) + max_bytes, records_size, &size) || size < max_bytes)
		return NULL;
	block = malloc(size);
	if (!block)
		return NULL;
	block->answer = (struct answer){.rcode = rcode, .records = block->records, .bytes = size};
	block->records_max = max_records;
	block->next = (uint8_t *)block + sizeof(*block) + records_size;
	block->end = (uint8_t *)block + size;
	return &block->answer;
}

static int block_add(struct block *block, const struct record *record)
{
	size_t count = block->answer.answer_count + block->answer.authority_count;
	struct record *new = &block->records[count];

	if (count >= block->records_max || (size_t)(block->end - block->next) < (size_t)record->owner_length + record->rdata_length)
		return -ENOSPC;
	*new = *record;
	new->owner = block->next;
	memcpy(block->next, record->owner, record->owner_length);
	block->next += record->owner_length;
	new->rdata = block->next;
	if (record->rdata_length > 0)
		memcpy(block->next, record->rdata, record->rdata_length);
	block->next += record->rdata_length;
	return 0;
}

static int add(struct answer *answer, size_t *count, const uint8_t *owner, size_t owner_length, uint16_t type, uint32_t ttl,
	       const uint8_t *rdata, size_t rdata_length)
{
	struct record record = {
		.owner = owner,
		.rdata = rdata,
		.ttl = ttl,
		.type = type,
		.class = CLASS_IN,
		.owner_length = (uint8_t)owner_length,
		.rdata_length = (uint16_t)rdata_length,
	};
	int error;

	if (owner_length > DOMAIN_WIRE_MAX || rdata_length > UINT16_MAX)
		return -ENOSPC;
	error = block_add((struct block *)answer, &record);
	if (error == 0)
		++*count;
	return error;
}

int answer_add(struct answer *answer, const uint8_t *owner, size_t owner_length, uint16_t type, uint32_t ttl, const uint8_t *rdata,
	       size_t rdata_length)
{
	if (answer->authority_count > 0)
		return -ENOSPC;
	return add(answer, &answer->answer_count, owner, owner_length, type, ttl, rdata, rdata_length);
}

int answer_add_authority(struct answer *answer, const uint8_t *owner, size_t owner_length, uint16_t type, uint32_t ttl,
			 const uint8_t *rdata, size_t rdata_length)
{
	return add(answer, &answer->authority_count, owner, owner_length, type, ttl, rdata, rdata_length);
}

uint32_t answer_negative_ttl(const struct record *soa)
{
	const uint8_t *end = soa->rdata + soa->rdata_length;
	uint32_t minimum;

	if (soa->rdata_length < 4)
		return 0;
	minimum = (uint32_t)end[-4] << 24 | (uint32_t)end[-3] << 16 | (uint32_t)end[-2] << 8 | end[-1];
	return soa->ttl < minimum ? soa->ttl : minimum;
}

struct answer *answer_copy(const struct answer *answer)
{
	size_t count = answer->answer_count + answer->authority_count;
	size_t bytes = 0;
	struct answer *copy;

	for (size_t i = 0; i < count; i++)
		bytes += (size_t)answer->records[i].owner_length + answer->records[i].rdata_length;
	copy = answer_new(answer->rcode, count, bytes);
	if (!copy)
		return NULL;
	copy->truncated = answer->truncated;
	for (size_t i = 0; i < count; i++) {
		const struct record *record = &answer->records[i];

		(i < answer->answer_count ? answer_add : answer_add_authority)(copy, record->owner, record->owner_length, record->type,
									       record->ttl, record->rdata, record->rdata_length);
	}
	return copy;
}

void answer_free(struct answer *answer)
{
	free(answer);
}
