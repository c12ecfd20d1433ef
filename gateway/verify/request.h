/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_VERIFY_REQUEST_H
#define SLUICE_GATEWAY_VERIFY_REQUEST_H

/*
 * The host that an HTTP/1 request in clear is for (RFC 9112 section 3). http-parser reads it.
 */

#include <stddef.h>
#include <stdint.h>

#include "common/domain.h"

enum request_result {
	REQUEST_MORE,    /* what is there is the beginning of a request */
	REQUEST_NAME,    /* it names a host */
	REQUEST_NO_NAME, /* its header is whole, and names none, or an address */
	REQUEST_BROKEN,  /* it names more than one, or what is no host name */
	REQUEST_NOT,     /* it is no HTTP/1 */
};

/** request_read() - @bytes: a TCP stream from its beginning. @name: set with REQUEST_NAME. */
enum request_result request_read(const uint8_t *bytes, size_t size, struct domain *name);

#endif
