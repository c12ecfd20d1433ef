/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_COMMON_HASH_H
#define SLUICE_COMMON_HASH_H

/*
 * uthash as we use it: include this instead of <uthash.h>.
 *
 * Keys come from hostile names and addresses, so the hash is keyed: SipHash-2-4 (libsodium) with the 16 random octets that the kernel
 * gives every program (AT_RANDOM). The key is the same in all files, so a table may be used from several. Being out of memory does not
 * end the process: after HASH_ADD*(), `element->hh.tbl` is NULL when the element could not be added.
 */

#include <sodium/crypto_shorthash.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>

/** hash_bytes() - Keyed hash of any bytes, for tables in memory only: another process gives other values. */
static inline unsigned int hash_bytes(const void *bytes, size_t size)
{
	static const uint8_t *secret; /* asking for it takes as long as a short hash */
	uint8_t hash[crypto_shorthash_BYTES];
	unsigned int folded;

	_Static_assert(crypto_shorthash_KEYBYTES == 16, "AT_RANDOM has 16 octets");
	if (!secret)
		secret = (const uint8_t *)getauxval(AT_RANDOM);
	(void)crypto_shorthash(hash, bytes, size, secret);
	memcpy(&folded, hash, sizeof(folded));
	return folded;
}

#define HASH_FUNCTION(key, size, value) ((value) = hash_bytes((key), (size)))
#define HASH_NONFATAL_OOM               1
#define uthash_nonfatal_oom(element)    ((void)(element))

#include <uthash.h>

#endif
