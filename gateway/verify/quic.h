/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_VERIFY_QUIC_H
#define SLUICE_GATEWAY_VERIFY_QUIC_H

/*
 * A client's first QUIC packets (RFC 9000, RFC 9001, version 2: RFC 9369): their keys come from the connection ID that they carry, so
 * anyone on the way can read them. libcrypto decrypts.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/verify/assembly.h"

#define QUIC_ID_MAX 20 /* octets of a connection ID, RFC 9000 section 17.2 */

enum quic_result {
	QUIC_READ,     /* its CRYPTO frames are in the assembly; there may have been none */
	QUIC_VERSION,  /* a version that we do not know: the keys cannot be had */
	QUIC_NOT,      /* the datagram is not what a client begins with, or was changed on its way */
	QUIC_CONFLICT, /* as ASSEMBLY_CONFLICT, or as ASSEMBLY_TOO_LONG */
};

/* What is known of a connection that begins. */
struct quic {
	uint32_t version;        /* 0: nothing yet */
	uint8_t id[QUIC_ID_MAX]; /* the client's first choice for the server's; the keys are made from it */
	size_t id_size;
	bool opened;           /* an Initial packet has been decrypted */
	struct assembly hello; /* the CRYPTO stream */
};

/** quic_is_initial() - Does the datagram begin with a long header and a version other than 0, as a client's first does? */
bool quic_is_initial(const uint8_t *datagram, size_t size);

/** quic_read() - Take a datagram's Initial packets; what is coalesced behind them is left alone. */
enum quic_result quic_read(struct quic *quic, const uint8_t *datagram, size_t size);

/** quic_is_of() - Is the datagram's first packet one that a client sends to the same connection ID, in the same version? */
bool quic_is_of(const struct quic *quic, const uint8_t *datagram, size_t size);

/**
 * quic_may_begin() - Could a server take the datagram for the beginning of a connection?
 *
 * When it has no Initial packet that the keys of its own connection ID open, no server could. A version that we do not know may.
 */
bool quic_may_begin(const uint8_t *datagram, size_t size);

/** quic_is_all() - Are there nothing but packets with a long header, of versions that we know, and zeros behind them? */
bool quic_is_all(const uint8_t *datagram, size_t size);

/** quic_free() - Empty afterwards. */
void quic_free(struct quic *quic);

#endif
