/* SPDX-License-Identifier: MIT */
#include "gateway/verify/inspect.h"

#include <string.h>

#include "gateway/verify/request.h"

static enum inspect_result of_hello(enum hello_result result)
{
	switch (result) {
	case HELLO_MORE: return INSPECT_MORE;
	case HELLO_NAME: return INSPECT_NAME;
	case HELLO_NO_NAME: return INSPECT_NO_NAME;
	case HELLO_BROKEN: break;
	}
	return INSPECT_BROKEN;
}

static enum inspect_result of_request(enum request_result result)
{
	switch (result) {
	case REQUEST_MORE: return INSPECT_MORE;
	case REQUEST_NAME: return INSPECT_NAME;
	case REQUEST_NO_NAME: return INSPECT_NO_NAME;
	case REQUEST_NOT: return INSPECT_OTHER;
	case REQUEST_BROKEN: break;
	}
	return INSPECT_BROKEN;
}

#define PREFACE      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" /* RFC 9113 section 3.4 */
#define PREFACE_SIZE (sizeof(PREFACE) - 1)

/* HTTP/2 in clear: which host it is for comes later, compressed. */
static bool may_be_http2(const uint8_t *bytes, size_t size)
{
	return memcmp(bytes, PREFACE, size < PREFACE_SIZE ? size : PREFACE_SIZE) == 0;
}

enum inspect_result inspect_stream(struct hello_reader *reader, const uint8_t *bytes, size_t size, struct domain *name)
{
	enum inspect_result result;

	if (size == 0)
		return INSPECT_MORE;
	if (may_be_http2(bytes, size))
		return size < PREFACE_SIZE ? INSPECT_MORE : INSPECT_NO_NAME;
	result = hello_may_begin(bytes, size) ? of_hello(hello_read_records(reader, bytes, size, name))
					      : of_request(request_read(bytes, size, name));
	return result == INSPECT_MORE && size >= ASSEMBLY_MAX ? INSPECT_BROKEN : result;
}

enum inspect_result inspect_datagram(struct hello_reader *reader, struct quic *quic, const uint8_t *bytes, size_t size, struct domain *name)
{
	if (!quic_is_initial(bytes, size))
		return quic->version ? INSPECT_BROKEN : INSPECT_OTHER;
	switch (quic_read(quic, bytes, size)) {
	case QUIC_READ: break;
	case QUIC_VERSION: return INSPECT_NO_NAME;
	case QUIC_NOT:
	case QUIC_CONFLICT: return INSPECT_BROKEN;
	}
	return quic->hello.whole ? of_hello(hello_read_message(reader, quic->hello.bytes, quic->hello.whole, name)) : INSPECT_MORE;
}
