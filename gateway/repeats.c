/* SPDX-License-Identifier: MIT */
/*
 * Questions that were logged a moment ago.
 *
 * A key belongs to one row of WAYS slots, and takes the place of the row's oldest. Two questions with the same 64-bit key would be taken
 * for repeats of one another: the second is counted then instead of having a line.
 */
#include "gateway/repeats.h"

#include <stdlib.h>
#include <string.h>

#include "common/hash.h"

#define WAYS 8
#define ROWS (REPEATS_MAX / WAYS)

struct slot {
	uint64_t key;
	uint64_t until; /* ms; 0: unused */
};

struct repeats {
	struct slot rows[ROWS][WAYS];
};

/* Hashed as bytes, up to the end of the name. */
struct identity {
	uint8_t half; /* which half of the key it is hashed for */
	uint8_t audited;
	uint16_t network, type, reason;
	struct address client;
	uint8_t name[DOMAIN_WIRE_MAX];
};

struct repeats *repeats_new(void)
{
	return calloc(1, sizeof(struct repeats));
}

void repeats_free(struct repeats *repeats)
{
	free(repeats);
}

uint64_t repeats_key(const struct denied_question *question)
{
	struct identity identity;
	size_t size = offsetof(struct identity, name);
	uint64_t key;

	memset(&identity, 0, sizeof(identity)); /* the padding is hashed, too */
	identity.audited = question->audited;
	identity.network = question->network;
	identity.type = question->type;
	identity.reason = (uint16_t)question->reason;
	identity.client = question->client;
	if (question->name) {
		memcpy(identity.name, question->name->wire, question->name->length);
		size += question->name->length;
	}
	key = hash_bytes(&identity, size);
	identity.half = 1;
	return key << 32 | hash_bytes(&identity, size);
}

bool repeats_contains(const struct repeats *repeats, uint64_t key, uint64_t now)
{
	const struct slot *row = repeats->rows[key % ROWS];

	for (size_t i = 0; i < WAYS; i++) {
		if (row[i].key == key && row[i].until > now)
			return true;
	}
	return false;
}

void repeats_remember(struct repeats *repeats, uint64_t key, uint64_t now)
{
	struct slot *row = repeats->rows[key % ROWS], *oldest = row;

	for (size_t i = 1; i < WAYS; i++) {
		if (row[i].until < oldest->until)
			oldest = &row[i];
	}
	*oldest = (struct slot){.key = key, .until = now + REPEATS_MS};
}
