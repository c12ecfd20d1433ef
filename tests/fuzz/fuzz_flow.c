/* SPDX-License-Identifier: MIT */
/* An entry of conntrack, as the kernel tells of it: what is in it an app and its server have chosen. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/flows.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *attributes = malloc(size ? size : 1); /* of its own, so that reading beyond its end is noticed; aligned, as the kernel's */
	struct tracked_flow flow;

	assert(attributes);
	memcpy(attributes, data, size);
	if (flows_parse(attributes, size, &flow))
		assert(flow.flow.source.family != 0 && flow.flow.source.family == flow.flow.destination.family);
	free(attributes);
	return 0;
}
