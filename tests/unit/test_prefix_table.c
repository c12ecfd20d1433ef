/* SPDX-License-Identifier: MIT */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <stdlib.h>
#include <string.h>

#include "common/prefix_table.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MOST         60 /* prefixes in a random table */

static struct prefix prefix_of_text(const char *text)
{
	struct prefix prefix;

	assert_true(prefix_parse(text, &prefix, NULL));
	return prefix;
}

static struct prefix_table table_of(const char *const *texts, size_t count)
{
	struct prefix_table table = {0};
	struct prefix *prefixes = calloc(count + 1, sizeof(*prefixes));

	assert_non_null(prefixes);
	for (size_t i = 0; i < count; i++)
		prefixes[i] = prefix_of_text(texts[i]);
	assert_int_equal(prefix_table_build(&table, prefixes, count), 0);
	free(prefixes);
	return table;
}

/* What an address is in, as indexes, the narrowest first: "2 0 ". */
static void assert_found(const struct prefix_table *table, const char *text, const char *expected)
{
	struct address address;
	char found[64] = "";

	assert_true(address_parse(text, &address));
	for (const struct prefix_row *row = prefix_table_find(table, &address); row; row = row->out) {
		char index[] = {(char)('0' + row->index), ' ', '\0'};

		assert_in_range(row->index, 0, 9);
		strcat(found, index);
	}
	assert_string_equal(found, expected);
}

static void finds_all_that_contain_an_address(void **state)
{
	static const char *const texts[] = {"10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "0.0.0.0/0",  "255.255.255.255/32",
					    "::/0",       "fd00::/8",    "fd00::1/128", "10.2.0.0/16"};
	struct prefix_table table = table_of(texts, COUNT(texts));

	(void)state;
	assert_found(&table, "10.1.2.3", "2 1 0 3 ");
	assert_found(&table, "10.1.2.4", "1 0 3 ");
	assert_found(&table, "10.1.255.255", "1 0 3 ");
	assert_found(&table, "10.2.0.0", "8 0 3 ");
	assert_found(&table, "10.3.0.0", "0 3 ");
	assert_found(&table, "9.255.255.255", "3 ");
	assert_found(&table, "0.0.0.0", "3 ");
	assert_found(&table, "255.255.255.255", "4 3 ");
	assert_found(&table, "255.255.255.254", "3 ");
	assert_found(&table, "fd00::1", "7 6 5 ");
	assert_found(&table, "fd00::2", "6 5 ");
	assert_found(&table, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "5 ");
	prefix_table_free(&table);
}

static void families_are_apart(void **state)
{
	static const char *const only4[] = {"0.0.0.0/0"}, *const only6[] = {"::/0"};
	struct prefix_table table4 = table_of(only4, 1), table6 = table_of(only6, 1);

	(void)state;
	assert_found(&table4, "192.0.2.1", "0 ");
	assert_found(&table4, "::", "");
	assert_found(&table4, "2001:db8::1", "");
	assert_found(&table6, "2001:db8::1", "0 ");
	assert_found(&table6, "0.0.0.0", "");
	prefix_table_free(&table4);
	prefix_table_free(&table6);
}

static void equal_prefixes_are_all_found(void **state)
{
	static const char *const texts[] = {"10.0.0.0/8", "10.0.0.0/8", "10.0.0.0/24", "10.0.0.0/8"};
	struct prefix_table table = table_of(texts, COUNT(texts));

	(void)state;
	assert_found(&table, "10.0.0.1", "2 0 1 3 ");
	assert_found(&table, "10.9.0.1", "0 1 3 ");
	prefix_table_free(&table);
}

static void may_be_empty_and_is_replaced_as_a_whole(void **state)
{
	struct prefix prefixes[] = {prefix_of_text("10.0.0.0/8"), {.length = 0}};
	struct prefix_table table = {0};

	(void)state;
	assert_found(&table, "10.0.0.1", "");
	assert_int_equal(prefix_table_build(&table, NULL, 0), 0);
	assert_found(&table, "10.0.0.1", "");
	assert_int_equal(prefix_table_build(&table, prefixes, 2), 0);
	assert_int_equal(table.count, 1);
	assert_found(&table, "10.0.0.1", "0 ");
	assert_int_equal(prefix_table_build(&table, &prefixes[1], 1), 0);
	assert_found(&table, "10.0.0.1", "");
	prefix_table_free(&table);
}

/* Near one another, so that they overlap often: few bits differ, at the beginning and at the end of an address. */
static struct address random_address(int family)
{
	uint8_t bytes[16] = {0};
	size_t size = family == AF_INET ? 4 : 16;

	bytes[0] = (uint8_t)(rand() % 3 ? 10 : rand() % 256);
	bytes[1] = (uint8_t)(rand() % 4);
	bytes[size - 1] = (uint8_t)(rand() % 8 ? rand() % 4 : rand() % 256);
	if (rand() % 50 == 0)
		memset(bytes, rand() % 2 ? 0xff : 0, sizeof(bytes));
	return address_from_bytes(family, bytes);
}

static struct prefix random_prefix(void)
{
	struct address address = random_address(rand() % 2 ? AF_INET : AF_INET6);
	unsigned int bits = address_bits(&address), chosen[] = {0, 1, 8, 9, 16, bits - 8, bits - 1, bits};

	return prefix_of(&address, (uint8_t)(rand() % 3 ? chosen[(size_t)rand() % COUNT(chosen)] : (unsigned int)rand() % (bits + 1)));
}

/* What is found must be everything that contains the address, each once, the narrowest first. */
static void assert_as_plain_loop(const struct prefix_table *table, const struct prefix *prefixes, size_t count,
				 const struct address *address)
{
	size_t expected = 0, found = 0;
	const struct prefix_row *before = NULL;

	for (size_t i = 0; i < count; i++)
		expected += prefix_contains(&prefixes[i], address);
	for (const struct prefix_row *row = prefix_table_find(table, address); row; row = row->out) {
		assert_true(row->index < count);
		assert_true(prefix_equal(&row->prefix, &prefixes[row->index]));
		assert_true(prefix_contains(&row->prefix, address));
		if (before) {
			assert_true(row->prefix.length <= before->prefix.length);
			assert_true(row->prefix.length < before->prefix.length || row->index > before->index);
		}
		before = row;
		found++;
	}
	assert_int_equal(found, expected);
}

static void agrees_with_the_plain_loop(void **state)
{
	(void)state;
	srand(5);
	for (int round = 0; round < 2000; round++) {
		struct prefix prefixes[MOST];
		size_t count = (size_t)rand() % (MOST + 1);
		struct prefix_table table = {0};

		for (size_t i = 0; i < count; i++)
			prefixes[i] = random_prefix();
		assert_int_equal(prefix_table_build(&table, prefixes, count), 0);
		assert_int_equal(table.count, count);
		for (size_t i = 0; i < 50; i++) {
			struct address address = random_address(i % 2 ? AF_INET : AF_INET6);

			assert_as_plain_loop(&table, prefixes, count, &address);
		}
		/* Their ends. */
		for (size_t i = 0; i < count; i++) {
			struct address_range range = prefix_range(&prefixes[i]);

			assert_as_plain_loop(&table, prefixes, count, &range.first);
			assert_as_plain_loop(&table, prefixes, count, &range.last);
		}
		prefix_table_free(&table);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_all_that_contain_an_address), cmocka_unit_test(families_are_apart),
		cmocka_unit_test(equal_prefixes_are_all_found),      cmocka_unit_test(may_be_empty_and_is_replaced_as_a_whole),
		cmocka_unit_test(agrees_with_the_plain_loop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
