/* SPDX-License-Identifier: MIT */
/* What a client begins a TLS connection with: in records, and as QUIC carries it. What a part of it said, the whole must say. */
#include <assert.h>
#include <string.h>

#include "gateway/verify/hello.h"

#define MESSAGE_MAX 16384 /* octets that fit into one record */

typedef enum hello_result read_function(struct hello_reader *reader, const uint8_t *bytes, size_t size, struct domain *name);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_same(enum hello_result first, const struct domain *name, enum hello_result second, const struct domain *other)
{
	assert(first == second);
	assert(first != HELLO_NAME || (name->length > 1 && domain_equal(name, other)));
}

static void check_parts(struct hello_reader *reader, read_function *read, const uint8_t *bytes, size_t cut, size_t size)
{
	struct domain name, name_of_part;
	enum hello_result part = read(reader, bytes, cut, &name_of_part), whole = read(reader, bytes, size, &name);

	if (part != HELLO_MORE)
		check_same(part, &name_of_part, whole, &name);
}

/* The same message in one record. */
static void check_record(struct hello_reader *reader, const uint8_t *bytes, size_t size)
{
	uint8_t record[5 + MESSAGE_MAX] = {22, 3, 1, (uint8_t)(size >> 8), (uint8_t)size};
	struct domain name, name_in_record;
	enum hello_result result = hello_read_message(reader, bytes, size, &name);

	memcpy(record + 5, bytes, size);
	check_same(result, &name, hello_read_records(reader, record, 5 + size, &name_in_record), &name_in_record);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct hello_reader *reader;
	size_t cut;

	if (!reader)
		reader = hello_reader_new();
	if (size < 2)
		return 0;
	cut = (size_t)(data[0] << 8 | data[1]) % (size - 1);
	data += 2;
	size -= 2;
	check_parts(reader, hello_read_records, data, cut, size);
	check_parts(reader, hello_read_message, data, cut, size);
	assert(size < 6 || hello_may_begin(data, size) ||
	       hello_read_records(reader, data, size, &(struct domain){.length = 0}) == HELLO_BROKEN);
	if (size > 0 && size <= MESSAGE_MAX)
		check_record(reader, data, size);
	return 0;
}
