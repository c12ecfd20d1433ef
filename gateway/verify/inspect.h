/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_VERIFY_INSPECT_H
#define SLUICE_GATEWAY_VERIFY_INSPECT_H

/*
 * The name that a flow's first octets ask for, whatever protocol they are of. Pure.
 */

#include <stddef.h>
#include <stdint.h>

#include "gateway/verify/hello.h"
#include "gateway/verify/quic.h"

enum inspect_result {
	INSPECT_MORE,    /* it cannot be told yet */
	INSPECT_NAME,    /* it asks for a name */
	INSPECT_NO_NAME, /* of a protocol that names its host, without one */
	INSPECT_OTHER,   /* of a protocol that names none */
	INSPECT_BROKEN,  /* malformed, or made so that two readers may read two names */
};

/** inspect_stream() - Of TCP. @bytes: the stream from its beginning, as far as it is there. @name: set with INSPECT_NAME. */
enum inspect_result inspect_stream(struct hello_reader *reader, const uint8_t *bytes, size_t size, struct domain *name);

/** inspect_datagram() - Of UDP: the next datagram of the flow. @quic: of this flow, zeroed before the first one. */
enum inspect_result inspect_datagram(struct hello_reader *reader, struct quic *quic, const uint8_t *bytes, size_t size,
				     struct domain *name);

#endif
