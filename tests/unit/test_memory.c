/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/memory.h"

static int memory;

static int set_up(void **state)
{
	(void)state;
	memory = memfd_create("test-memory", 0);
	return memory >= 0 ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	return close(memory);
}

static void store(const char *file, const char *text)
{
	char name[64], body[256];
	struct config_part part = {.file = name, .text = body, .size = strlen(text)};
	struct config_text all = {.parts = &part, .count = 1};

	strcpy(name, file);
	strcpy(body, text);
	assert_int_equal(memory_put_policy(memory, &all), 0);
}

static void nothing_is_kept_at_first(void **state)
{
	struct config_text text = {0};

	(void)state;
	assert_int_equal(memory_get_policy(memory, &text), -ENOENT);
}

static void what_was_stored_last_comes_back(void **state)
{
	struct config_text text = {0};

	(void)state;
	store("long.conf", "[gateway]\nlog = text\n# a longer text than the next one\n");
	store("b.conf", "[gateway]\n");
	assert_int_equal(memory_get_policy(memory, &text), 0);
	assert_int_equal(text.count, 1);
	assert_string_equal(text.parts[0].file, "b.conf");
	assert_string_equal(text.parts[0].text, "[gateway]\n");
	config_text_free(&text);
}

static void half_a_text_is_nothing(void **state)
{
	struct config_text text = {0};

	(void)state;
	store("a.conf", "[gateway]\nlog = text\n");
	assert_int_equal(ftruncate(memory, 20), 0);
	assert_true(memory_get_policy(memory, &text) < 0);
	assert_int_equal(text.count, 0);
}

static void a_crash_before_the_size_is_written_keeps_nothing(void **state)
{
	struct config_text text = {0};
	uint64_t zero = 0;

	(void)state;
	store("a.conf", "[gateway]\n");
	assert_int_equal(pwrite(memory, &zero, sizeof(zero), 0), sizeof(zero));
	assert_int_equal(memory_get_policy(memory, &text), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(nothing_is_kept_at_first, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_was_stored_last_comes_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(half_a_text_is_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_crash_before_the_size_is_written_keeps_nothing, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
