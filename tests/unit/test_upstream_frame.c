/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "resolver/upstream_internal.h"

/* Give a stream to a frame in pieces of @step octets at most. Return: how many messages came out; -errno: and then it stopped. */
static int feed(const uint8_t *stream, size_t size, size_t step, char *out)
{
	struct upstream_frame frame = {.wire = NULL};
	int messages = 0;

	for (size_t at = 0; at < size;) {
		size_t room, take;
		uint8_t *where = upstream_frame_room(&frame, &room);
		int state;

		assert_true(room > 0);
		take = room < step ? room : step;
		if (take > size - at)
			take = size - at;
		memcpy(where, stream + at, take);
		at += take;
		state = upstream_frame_filled(&frame, take);
		if (state < 0) {
			upstream_frame_reset(&frame);
			return state;
		}
		if (!state)
			continue;
		messages++;
		memcpy(out, frame.wire, frame.expected);
		out += frame.expected;
		*out++ = '|';
		upstream_frame_reset(&frame);
	}
	*out = 0;
	upstream_frame_reset(&frame);
	return messages;
}

static void messages_come_out_whole_however_they_are_cut(void **state)
{
	static const uint8_t stream[] = "\0\5first\0\1x\0\14second twice";
	char out[64];

	(void)state;
	for (size_t step = 1; step < sizeof(stream); step++) {
		assert_int_equal(feed(stream, sizeof(stream) - 1, step, out), 3);
		assert_string_equal(out, "first|x|second twice|");
	}
}

static void an_empty_message_ends_the_stream(void **state)
{
	static const uint8_t stream[] = "\0\1x\0\0\0\1y";
	char out[16];

	(void)state;
	assert_int_equal(feed(stream, sizeof(stream) - 1, 64, out), -EPROTO);
	assert_memory_equal(out, "x|", 2);
}

static void the_largest_message_fits(void **state)
{
	static uint8_t stream[UPSTREAM_PREFIX + MESSAGE_SIZE_MAX];
	static char out[MESSAGE_SIZE_MAX + 2];

	(void)state;
	stream[0] = stream[1] = 0xff;
	memset(stream + UPSTREAM_PREFIX, 'm', MESSAGE_SIZE_MAX);
	assert_int_equal(feed(stream, sizeof(stream), 1000, out), 1);
	assert_int_equal(strlen(out), MESSAGE_SIZE_MAX + 1);
}

static void queries_are_framed_and_padded(void **state)
{
	uint8_t plain[UPSTREAM_FRAMED_MAX], padded[UPSTREAM_FRAMED_MAX];

	(void)state;
	/* Every length of a name: labels of up to 63 octets, 253 characters at most. */
	for (size_t length = 1; length <= 253; length++) {
		struct cache_key key;
		struct domain name;
		char text[256];
		size_t size, size_padded;

		for (size_t i = 0; i < length; i++)
			text[i] = i % 50 == 49 && i + 1 < length ? '.' : 'a';
		text[length] = 0;
		assert_null(domain_parse(text, &name));
		cache_key_init(&key, &name, TYPE_A, false, false, "");
		size = upstream_frame_query(&key, 0x1234, 0, plain);
		size_padded = upstream_frame_query(&key, 0x1234, UPSTREAM_PADDING, padded);
		assert_int_equal(size, 12 + length + 2 + 4 + 11);
		assert_int_equal(plain[0] << 8 | plain[1], size);
		assert_int_equal(padded[0] << 8 | padded[1], size_padded);
		assert_int_equal(size_padded % UPSTREAM_PADDING, 0);
		assert_true(size_padded >= size + 4 && size_padded < size + 4 + UPSTREAM_PADDING);
		/* Equal up to the length of the OPT's data, which holds the option alone: code 12, its length, zeros. */
		assert_memory_equal(plain + 2, padded + 2, size - 2);
		assert_int_equal(padded[size] << 8 | padded[size + 1], size_padded - size);
		assert_int_equal(padded[size + 2] << 8 | padded[size + 3], 12);
		assert_int_equal(padded[size + 4] << 8 | padded[size + 5], size_padded - size - 4);
		for (size_t i = size + 6; i < size_padded + 2; i++)
			assert_int_equal(padded[i], 0);
	}
}

static void padding_that_does_not_fit_is_refused(void **state)
{
	uint8_t query[128];
	struct domain name;
	size_t size;

	(void)state;
	assert_null(domain_parse("a.example", &name));
	size = message_build_query(1, &name, TYPE_A, false, false, NULL, query, sizeof(query));
	assert_int_equal(message_pad_query(query, size, 128, 127), 0);
	assert_int_equal(message_pad_query(query, size, 128, 128), 128);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_come_out_whole_however_they_are_cut),
		cmocka_unit_test(an_empty_message_ends_the_stream),
		cmocka_unit_test(the_largest_message_fits),
		cmocka_unit_test(queries_are_framed_and_padded),
		cmocka_unit_test(padding_that_does_not_fit_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
