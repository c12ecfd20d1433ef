/* SPDX-License-Identifier: MIT */
/* Policy text: whatever it holds, it is read or refused with a message, and read in the same way after it was stored as a block. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config_part part = {.file = (char[]){"fuzz.conf"}, .size = size};
	struct config_text text = {.parts = &part, .count = 1}, block;
	struct config_messages messages = {0};
	struct policy *policy;

	part.text = malloc(size + 1);
	if (!part.text)
		return 0;
	memcpy(part.text, data, size);
	part.text[size] = 0;
	policy = config_parse(&text, &messages);
	if ((policy == NULL) != (messages.errors > 0))
		abort();
	policy_free(policy);
	config_messages_free(&messages);
	free(part.text);
	/* The same bytes as a block that the supervisor kept. */
	if (config_deserialise((const char *)data, size, &block) == 0) {
		policy_free(config_parse(&block, &messages));
		config_messages_free(&messages);
		config_text_free(&block);
	}
	return 0;
}
