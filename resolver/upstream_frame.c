/* SPDX-License-Identifier: MIT */
/* DNS messages on a stream, TCP or TLS: two octets of length in front of each (RFC 1035 section 4.2.2). */

#include "resolver/upstream_internal.h"

#include <errno.h>
#include <stdlib.h>

void *upstream_frame_room(struct upstream_frame *frame, size_t *size)
{
	if (frame->filled < UPSTREAM_PREFIX) {
		*size = UPSTREAM_PREFIX - frame->filled;
		return frame->prefix + frame->filled;
	}
	*size = UPSTREAM_PREFIX + frame->expected - frame->filled;
	return frame->wire + frame->filled - UPSTREAM_PREFIX;
}

static int prefix_complete(struct upstream_frame *frame)
{
	frame->expected = (size_t)frame->prefix[0] << 8 | frame->prefix[1];
	if (!frame->expected)
		return -EPROTO;
	frame->wire = malloc(frame->expected);
	return frame->wire ? 0 : -ENOMEM;
}

int upstream_frame_filled(struct upstream_frame *frame, size_t size)
{
	frame->filled += size;
	if (frame->filled == UPSTREAM_PREFIX)
		return prefix_complete(frame);
	return frame->filled == UPSTREAM_PREFIX + frame->expected;
}

void upstream_frame_reset(struct upstream_frame *frame)
{
	free(frame->wire);
	*frame = (struct upstream_frame){.wire = NULL};
}

size_t upstream_frame_query(const struct cache_key *key, uint16_t id, size_t block, uint8_t out[static UPSTREAM_FRAMED_MAX])
{
	size_t size = message_build_query(id, &key->name, key->type, key->dnssec_ok, key->checking_disabled, NULL, out + UPSTREAM_PREFIX,
					  UPSTREAM_QUERY_MAX);

	if (size && block)
		size = message_pad_query(out + UPSTREAM_PREFIX, size, block, UPSTREAM_FRAMED_MAX - UPSTREAM_PREFIX);
	out[0] = (uint8_t)(size >> 8);
	out[1] = (uint8_t)size;
	return size;
}
