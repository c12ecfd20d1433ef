/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_VERIFY_HELLO_H
#define SLUICE_GATEWAY_VERIFY_HELLO_H

/*
 * The name in a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3). libssl reads it, as a server does: what it refuses, a server
 * would as well.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/domain.h"

enum hello_result {
	HELLO_MORE,    /* what is there is the beginning of one */
	HELLO_NAME,    /* it names a server */
	HELLO_NO_NAME, /* it is whole, and names none */
	HELLO_BROKEN,  /* it is none, or its name is no host name */
};

struct hello_reader; /* hello.c */

/** hello_reader_new() - Return: owned by the caller; NULL: out of memory. */
struct hello_reader *hello_reader_new(void);
void hello_reader_free(struct hello_reader *reader);

/** hello_read_records() - @bytes: a TCP stream from its beginning, TLS records. @name: set with HELLO_NAME. */
enum hello_result hello_read_records(struct hello_reader *reader, const uint8_t *bytes, size_t size, struct domain *name);

/** hello_read_message() - @bytes: a QUIC CRYPTO stream from its beginning: the handshake message without records. */
enum hello_result hello_read_message(struct hello_reader *reader, const uint8_t *bytes, size_t size, struct domain *name);

/** hello_may_begin() - Can these octets be the beginning of TLS? With few of them the answer is yes more often. */
bool hello_may_begin(const uint8_t *bytes, size_t size);

#endif
