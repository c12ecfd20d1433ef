/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_COMMON_CHAIN_H
#define SLUICE_COMMON_CHAIN_H

/*
 * CNAME chains: the names that an answer led through to an address, after the one that was asked for, in this order; the last one has the
 * address. Many addresses share a chain, so who keeps many of them keeps each content once (struct chain_store).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/domain.h"

#define CHAIN_NAMES_MAX 16 /* names */
#define CHAIN_WIRE_MAX  (CHAIN_NAMES_MAX * DOMAIN_WIRE_MAX)

/* A chain that somebody else owns: wire forms as struct domain has them, one behind the other. */
struct chain {
	const uint8_t *wire;
	size_t length; /* octets; 0: no CNAME */
};

struct chain_store; /* chain.c */
struct chain_kept;  /* chain.c: one that a store keeps */

/** chain_next() - Take the first name off the chain. Return: false at its end; @out is no name then. */
bool chain_next(struct chain *rest, struct domain *out);

bool chain_equal(const struct chain *a, const struct chain *b);

/** chain_is_whole() - Is it made of at most CHAIN_NAMES_MAX whole names in lower case? For octets that come from a file. */
bool chain_is_whole(const struct chain *chain);

/** chain_store_new() - Return: owned by the caller, NULL: no memory. */
struct chain_store *chain_store_new(void);

/** chain_store_free() - All chains have been given back; NULL is fine. */
void chain_store_free(struct chain_store *store);

/** chain_store_count() - Return: how many different chains are kept. */
size_t chain_store_count(const struct chain_store *store);

/**
 * chain_keep() - Keep a copy of a chain, to be given back with chain_give_back(); one of the same content is shared
 * @out:	receives it; NULL for a chain without names
 * Return: 0 or -ENOMEM.
 */
int chain_keep(struct chain_store *store, const struct chain *chain, struct chain_kept **out);

/** chain_give_back() - What chain_keep() has given is not needed any more; NULL is fine. */
void chain_give_back(struct chain_store *store, struct chain_kept *kept);

/** chain_of() - Return: what is kept, valid until it is given back; NULL is the chain without names. */
struct chain chain_of(const struct chain_kept *kept);

#endif
