/* SPDX-License-Identifier: MIT */
#include "gateway/repeats.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct domain evil = {.length = 14, .wire = "\4evil\7example"};
static const struct domain other = {.length = 14, .wire = "\4good\7example"};

static struct denied_question question(void)
{
	return (struct denied_question){
		.network = 1,
		.client = {.family = AF_INET, .bytes = {10, 201, 1, 5}},
		.name = &evil,
		.type = 1,
		.reason = REASON_NAME_NOT_ALLOWED,
	};
}

static void test_the_key_is_what_was_asked_by_whom(void **state)
{
	struct denied_question first = question(), again = question();
	uint64_t key = repeats_key(&first);

	(void)state;
	again.client_port = 999;
	assert_true(repeats_key(&again) == key);
	again = question();
	again.network = 2;
	assert_true(repeats_key(&again) != key);
	again = question();
	again.client.bytes[3] = 6;
	assert_true(repeats_key(&again) != key);
	again = question();
	again.name = &other;
	assert_true(repeats_key(&again) != key);
	again = question();
	again.name = NULL;
	assert_true(repeats_key(&again) != key);
	again = question();
	again.type = 28;
	assert_true(repeats_key(&again) != key);
	again = question();
	again.audited = true;
	assert_true(repeats_key(&again) != key);
}

static void test_a_question_is_a_repeat_until_its_time_is_over(void **state)
{
	struct repeats *repeats = repeats_new();

	(void)state;
	assert_false(repeats_contains(repeats, 5, 1000));
	repeats_remember(repeats, 5, 1000);
	assert_true(repeats_contains(repeats, 5, 1000));
	assert_true(repeats_contains(repeats, 5, 1000 + REPEATS_MS - 1));
	assert_false(repeats_contains(repeats, 5, 1000 + REPEATS_MS));
	assert_false(repeats_contains(repeats, 6, 1000));
	repeats_free(repeats);
}

static void test_the_oldest_makes_room(void **state)
{
	struct repeats *repeats = repeats_new();
	uint64_t last = 3 * REPEATS_MAX;

	(void)state;
	for (uint64_t key = 1; key <= last; key++)
		repeats_remember(repeats, key, 1000 + key / 10);
	assert_false(repeats_contains(repeats, 1, 1000 + last / 10));
	for (uint64_t key = last - REPEATS_MAX / 2; key <= last; key++)
		assert_true(repeats_contains(repeats, key, 1000 + last / 10));
	repeats_free(repeats);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_key_is_what_was_asked_by_whom),
		cmocka_unit_test(test_a_question_is_a_repeat_until_its_time_is_over),
		cmocka_unit_test(test_the_oldest_makes_room),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
