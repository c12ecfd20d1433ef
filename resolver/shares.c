/* SPDX-License-Identifier: MIT */
#include "resolver/shares.h"

#include <assert.h>

#include "common/hash.h"

static_assert(SHARES_ROWS * 12 <= 32 && SHARES_SLOTS == 1 << 12, "a hash of 32 bits has no more places in it");

struct shares_place shares_place(uint16_t network, const struct address *source)
{
	struct shares_place place;
	uint8_t key[sizeof(network) + sizeof(source->bytes)];
	unsigned int hash;

	memcpy(key, &network, sizeof(network));
	memcpy(key + sizeof(network), source->bytes, sizeof(source->bytes)); /* those of IPv4 end with zeros */
	hash = hash_bytes(key, sizeof(key));
	for (unsigned int row = 0; row < SHARES_ROWS; row++, hash >>= 12)
		place.slots[row] = hash % SHARES_SLOTS;
	return place;
}

void shares_add(struct shares *shares, struct shares_place place)
{
	for (unsigned int row = 0; row < SHARES_ROWS; row++)
		shares->counts[row][place.slots[row]]++;
}

void shares_remove(struct shares *shares, struct shares_place place)
{
	for (unsigned int row = 0; row < SHARES_ROWS; row++) {
		assert(shares->counts[row][place.slots[row]] > 0);
		shares->counts[row][place.slots[row]]--;
	}
}

unsigned int shares_of(const struct shares *shares, struct shares_place place)
{
	unsigned int least = UINT16_MAX;

	for (unsigned int row = 0; row < SHARES_ROWS; row++)
		if (shares->counts[row][place.slots[row]] < least)
			least = shares->counts[row][place.slots[row]];
	return least;
}
