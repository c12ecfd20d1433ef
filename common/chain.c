/* SPDX-License-Identifier: MIT */
#include "common/chain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"

/* Its key in the hash table is `wire`. */
struct chain_kept {
	UT_hash_handle hh;
	uint32_t users;
	uint16_t length; /* octets */
	uint8_t wire[];
};
_Static_assert(CHAIN_WIRE_MAX <= UINT16_MAX, "any chain's length fits");

struct chain_store {
	struct chain_kept *kept; /* owned, hash */
};

bool chain_next(struct chain *rest, struct domain *out)
{
	size_t taken = domain_from_wire(rest->wire, rest->length, out);

	if (taken == 0)
		return false;
	rest->wire += taken;
	rest->length -= taken;
	return true;
}

bool chain_equal(const struct chain *a, const struct chain *b)
{
	return a->length == b->length && (a->length == 0 || memcmp(a->wire, b->wire, a->length) == 0);
}

bool chain_is_whole(const struct chain *chain)
{
	struct chain rest = *chain;
	struct domain name;

	for (unsigned int i = 0; rest.length > 0; i++) {
		const uint8_t *wire = rest.wire;

		if (i == CHAIN_NAMES_MAX || !chain_next(&rest, &name) || memcmp(wire, name.wire, name.length) != 0)
			return false;
	}
	return true;
}

struct chain_store *chain_store_new(void)
{
	return calloc(1, sizeof(struct chain_store));
}

void chain_store_free(struct chain_store *store)
{
	free(store);
}

size_t chain_store_count(const struct chain_store *store)
{
	return HASH_COUNT(store->kept);
}

static struct chain_kept *add(struct chain_store *store, const struct chain *chain)
{
	struct chain_kept *kept = malloc(sizeof(*kept) + chain->length);

	if (!kept)
		return NULL;
	kept->users = 0;
	kept->length = (uint16_t)chain->length;
	memcpy(kept->wire, chain->wire, chain->length);
	HASH_ADD_KEYPTR(hh, store->kept, kept->wire, kept->length, kept);
	if (!kept->hh.tbl) {
		free(kept);
		return NULL;
	}
	return kept;
}

int chain_keep(struct chain_store *store, const struct chain *chain, struct chain_kept **out)
{
	struct chain_kept *kept;

	*out = NULL;
	if (chain->length == 0)
		return 0;
	HASH_FIND(hh, store->kept, chain->wire, chain->length, kept);
	if (!kept)
		kept = add(store, chain);
	if (!kept)
		return -ENOMEM;
	kept->users++;
	*out = kept;
	return 0;
}

void chain_give_back(struct chain_store *store, struct chain_kept *kept)
{
	if (!kept || --kept->users > 0)
		return;
	HASH_DEL(store->kept, kept);
	free(kept);
}

struct chain chain_of(const struct chain_kept *kept)
{
	return kept ? (struct chain){kept->wire, kept->length} : (struct chain){0};
}
