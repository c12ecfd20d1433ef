/* SPDX-License-Identifier: MIT */
/* What a client begins HTTP/1 with. What a part of it said, the whole must say. */
#include <assert.h>

#include "gateway/verify/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct domain name = {.length = 0}, name_of_part = {.length = 0};
	enum request_result part, whole;
	size_t cut;

	if (size < 2)
		return 0;
	cut = (size_t)(data[0] << 8 | data[1]) % (size - 1);
	part = request_read(data + 2, cut, &name_of_part);
	whole = request_read(data + 2, size - 2, &name);
	assert(part == REQUEST_MORE || part == whole);
	assert(whole != REQUEST_NAME || name.length > 0);
	assert(part != REQUEST_NAME || domain_equal(&name, &name_of_part));
	return 0;
}
