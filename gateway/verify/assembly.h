/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_VERIFY_ASSEMBLY_H
#define SLUICE_GATEWAY_VERIFY_ASSEMBLY_H

/*
 * The beginning of a stream, put together from parts that come in any order, overlap or come twice: TCP segments, QUIC CRYPTO frames.
 * Pure.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ASSEMBLY_MAX 16384 /* octets of a stream that are kept */

struct assembly {
	uint8_t *bytes;  /* owned: `capacity` octets, when there is any */
	uint8_t *have;   /* in the same memory: one bit for each of them */
	size_t capacity; /* grows up to ASSEMBLY_MAX */
	size_t whole;    /* octets from the beginning that are there without a gap */
	size_t end;      /* behind the last octet that is there */
};

enum assembly_result {
	ASSEMBLY_ADDED,    /* something new, or nothing */
	ASSEMBLY_CONFLICT, /* octets that were there differ: two readers of the stream may read different things */
	ASSEMBLY_TOO_LONG, /* it reaches beyond ASSEMBLY_MAX */
	ASSEMBLY_NO_MEMORY,
};

/** assembly_add() - @offset: of the part's first octet in the stream. After anything but ASSEMBLY_ADDED the assembly is of no use. */
enum assembly_result assembly_add(struct assembly *assembly, uint64_t offset, const uint8_t *bytes, size_t size);

/** assembly_has() - Is the octet at @at, which is before the end, there? */
bool assembly_has(const struct assembly *assembly, size_t at);

/** assembly_agrees() - Are these octets, as far as they lie in what is whole, the same? What lies behind it does not matter. */
bool assembly_agrees(const struct assembly *assembly, size_t offset, const uint8_t *bytes, size_t size);

/** assembly_free() - Empty afterwards. */
void assembly_free(struct assembly *assembly);

#endif
