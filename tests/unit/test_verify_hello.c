/* SPDX-License-Identifier: MIT */
/* Hellos that libssl's own client makes, whole, cut at every octet, and changed. */
#include "gateway/verify/hello.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client_hello.h"
#include "gateway/verify/assembly.h"

static struct hello_reader *reader;

static int set_up(void **state)
{
	(void)state;
	reader = hello_reader_new();
	return reader ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	hello_reader_free(reader);
	return 0;
}

static void expect(const uint8_t *bytes, size_t size, enum hello_result result, const char *name)
{
	char text[DOMAIN_TEXT_MAX];
	struct domain domain;

	assert_int_equal(hello_read_records(reader, bytes, size, &domain), result);
	if (name)
		assert_string_equal(domain_format(&domain, text), name);
}

static void a_name_is_read_when_the_hello_is_whole(void **state)
{
	uint8_t bytes[HELLO_MAX];
	size_t size = make_hello("API.Vendor.example", bytes);

	(void)state;
	for (size_t cut = 0; cut < size; cut++) {
		uint8_t *copy = malloc(cut + 1);

		memcpy(copy, bytes, cut);
		expect(copy, cut, HELLO_MORE, NULL);
		free(copy);
	}
	expect(bytes, size, HELLO_NAME, "api.vendor.example");
	memset(bytes + size, 0xff, 100); /* early data, say */
	expect(bytes, size + 100, HELLO_NAME, "api.vendor.example");
}

static void a_hello_without_a_name(void **state)
{
	uint8_t bytes[HELLO_MAX];

	(void)state;
	expect(bytes, make_hello(NULL, bytes), HELLO_NO_NAME, NULL);
}

/* A record for each octet. */
static void a_hello_in_many_records(void **state)
{
	uint8_t bytes[HELLO_MAX], split[6 * HELLO_MAX];
	size_t size = make_hello("api.vendor.example", bytes), used = 0;

	(void)state;
	for (size_t i = 5; i < size; i++) {
		memcpy(split + used, (const uint8_t[]){22, 3, 1, 0, 1, bytes[i]}, 6);
		used += 6;
	}
	expect(split, used - 6, HELLO_MORE, NULL);
	expect(split, used, HELLO_NAME, "api.vendor.example");
}

static void names_that_are_no_host_names(void **state)
{
	static const char *const names[] = {"192.0.2.1", "-bad.example", "bad..example", "a b.example", "x.example/", "[::1]"};
	uint8_t bytes[HELLO_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		expect(bytes, make_hello(names[i], bytes), HELLO_BROKEN, NULL);
}

/* A NUL inside: two readers may see different names. */
static void a_name_with_a_nul(void **state)
{
	uint8_t bytes[HELLO_MAX], *at;
	size_t size = make_hello("good.example", bytes);

	(void)state;
	at = memmem(bytes, size, "good.example", 12);
	assert_non_null(at);
	at[4] = '\0';
	expect(bytes, size, HELLO_BROKEN, NULL);
}

static void what_is_no_hello_is_refused(void **state)
{
	static const char *const texts[] = {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n",
					    "\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", "\x80\x2e\x01\x00\x02",
					    "\x15\x03\x01\x00\x02\x02\x28"};
	static const size_t sizes[] = {27, 21, 10, 5, 7};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		expect((const uint8_t *)texts[i], sizes[i], HELLO_BROKEN, NULL);
	}
}

/* Any octet changed: never a crash, and never another name unless the change is in the name itself. */
static void a_changed_hello(void **state)
{
	uint8_t bytes[HELLO_MAX];
	size_t size = make_hello("api.vendor.example", bytes), other = 0;
	const uint8_t *at = memmem(bytes, size, "api.vendor.example", 18);

	(void)state;
	assert_non_null(at);
	for (size_t i = 0; i < size; i++) {
		for (unsigned int flip = 1; flip < 256; flip <<= 1) {
			char text[DOMAIN_TEXT_MAX];
			struct domain name;

			bytes[i] ^= (uint8_t)flip;
			if (hello_read_records(reader, bytes, size, &name) == HELLO_NAME &&
			    strcmp(domain_format(&name, text), "api.vendor.example") != 0) {
				assert_true(bytes + i >= at && bytes + i < at + 18);
				other++;
			}
			bytes[i] ^= (uint8_t)flip;
		}
	}
	assert_true(other > 0);
}

static void parts_are_put_together(void **state)
{
	static const uint8_t text[] = "abcdefghij";
	struct assembly assembly = {.bytes = NULL};

	(void)state;
	assert_int_equal(assembly_add(&assembly, 5, text + 5, 5), ASSEMBLY_ADDED);
	assert_int_equal(assembly.whole, 0);
	assert_int_equal(assembly_add(&assembly, 0, text, 3), ASSEMBLY_ADDED);
	assert_int_equal(assembly.whole, 3);
	assert_int_equal(assembly_add(&assembly, 2, text + 2, 4), ASSEMBLY_ADDED);
	assert_int_equal(assembly.whole, 10);
	assert_memory_equal(assembly.bytes, text, 10);
	assert_int_equal(assembly_add(&assembly, 4, (const uint8_t *)"X", 1), ASSEMBLY_CONFLICT);
	assert_int_equal(assembly_add(&assembly, ASSEMBLY_MAX - 1, text, 1), ASSEMBLY_ADDED);
	assert_int_equal(assembly_add(&assembly, ASSEMBLY_MAX, text, 1), ASSEMBLY_TOO_LONG);
	assert_int_equal(assembly_add(&assembly, UINT64_MAX, text, 1), ASSEMBLY_TOO_LONG);
	assert_int_equal(assembly_add(&assembly, UINT64_MAX, text, 0), ASSEMBLY_ADDED);
	assembly_free(&assembly);
}

int main(void)
{
#define HELLO_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		HELLO_TEST(a_name_is_read_when_the_hello_is_whole),
		HELLO_TEST(a_hello_without_a_name),
		HELLO_TEST(a_hello_in_many_records),
		HELLO_TEST(names_that_are_no_host_names),
		HELLO_TEST(a_name_with_a_nul),
		HELLO_TEST(what_is_no_hello_is_refused),
		HELLO_TEST(a_changed_hello),
		cmocka_unit_test(parts_are_put_together),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
