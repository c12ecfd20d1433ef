/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "gateway/beginnings.h"

static struct beginnings *beginnings;

static int set_up(void **state)
{
	(void)state;
	beginnings = beginnings_new();
	return beginnings ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	beginnings_free(beginnings);
	return 0;
}

static void a_flow_has_its_duration_once(void **state)
{
	(void)state;
	beginnings_add(beginnings, 7, 1000);
	beginnings_add(beginnings, 0, 1500);
	assert_int_equal(beginnings_count(beginnings), 2);
	assert_int_equal(beginnings_take(beginnings, 8, 9, 3000), -1);
	assert_int_equal(beginnings_take(beginnings, 7, 9, 3000), 2000);
	assert_int_equal(beginnings_take(beginnings, 7, 9, 3000), -1);
	assert_int_equal(beginnings_take(beginnings, 0, 0, 3000), 1500);
	assert_int_equal(beginnings_count(beginnings), 0);
}

static void it_is_never_negative(void **state)
{
	(void)state;
	beginnings_add(beginnings, 7, 1000);
	assert_int_equal(beginnings_take(beginnings, 7, 9, 900), 0);
}

static void one_packet_lasts_no_time(void **state)
{
	(void)state;
	beginnings_add(beginnings, 7, 1000);
	assert_int_equal(beginnings_take(beginnings, 7, 1, 20000), 0);
}

static void an_id_that_comes_again_is_the_younger_flow(void **state)
{
	(void)state;
	beginnings_add(beginnings, 7, 1000);
	beginnings_look(beginnings, 7, 9, 1001);
	beginnings_add(beginnings, 7, 5000);
	assert_int_equal(beginnings_count(beginnings), 1);
	assert_int_equal(beginnings_take(beginnings, 7, 9, 6000), 1000);
}

static void a_look_without_packets_after_it_counts(void **state)
{
	(void)state;
	beginnings_add(beginnings, 7, 1000);
	beginnings_look(beginnings, 7, 9, 3000);
	beginnings_look(beginnings, 7, 9, 2900);
	beginnings_look(beginnings, 7, 9, 3100);
	assert_int_equal(beginnings_take(beginnings, 7, 9, 60000), 1900);
}

static void a_look_with_packets_after_it_does_not_count(void **state)
{
	(void)state;
	beginnings_add(beginnings, 7, 1000);
	beginnings_look(beginnings, 7, 9, 3000);
	assert_int_equal(beginnings_take(beginnings, 7, 10, 60000), 59000);
	beginnings_add(beginnings, 8, 1000);
	beginnings_look(beginnings, 8, 9, 3000);
	beginnings_look(beginnings, 8, 12, 5000);
	assert_int_equal(beginnings_take(beginnings, 8, 12, 60000), 4000);
}

static void a_look_without_counted_packets_does_not_count(void **state)
{
	(void)state;
	beginnings_add(beginnings, 7, 1000);
	beginnings_look(beginnings, 7, 0, 3000);
	assert_int_equal(beginnings_take(beginnings, 7, 0, 60000), 59000);
}

static void a_look_at_an_unknown_flow_changes_nothing(void **state)
{
	(void)state;
	beginnings_look(beginnings, 7, 9, 3000);
	assert_int_equal(beginnings_count(beginnings), 0);
	assert_int_equal(beginnings_take(beginnings, 7, 9, 4000), -1);
	beginnings_add(beginnings, 7, 1000);
	assert_int_equal(beginnings_take(beginnings, 7, 9, 4000), 3000);
}

/* Times beyond 32 bits, and durations that do not fit into them. */
static void long_flows_are_told_as_they_are(void **state)
{
	uint64_t began = 5000000000, ended = began + 6000000000;

	(void)state;
	beginnings_add(beginnings, 7, began);
	beginnings_look(beginnings, 7, 9, ended);
	assert_int_equal(beginnings_take(beginnings, 7, 9, ended), 6000000000);
}

static void the_oldest_make_room(void **state)
{
	const uint32_t first = 1000, more = 100;

	(void)state;
	for (uint32_t i = 0; i < BEGINNINGS_MAX; i++)
		beginnings_add(beginnings, first + i, i);
	assert_int_equal(beginnings_count(beginnings), BEGINNINGS_MAX);
	assert_int_equal(beginnings_take(beginnings, first + 5, 9, 105), 100); /* a hole in the middle is room, too */
	for (uint32_t i = 0; i < more + 1; i++)
		beginnings_add(beginnings, first + BEGINNINGS_MAX + i, BEGINNINGS_MAX + i);
	assert_int_equal(beginnings_count(beginnings), BEGINNINGS_MAX);
	/* 0 to 100 are gone: 100 made room, and 5 was over. */
	for (uint32_t i = 0; i < BEGINNINGS_MAX + more + 1; i++)
		assert_int_equal(beginnings_take(beginnings, first + i, 9, i + 1), i <= more ? -1 : 1);
	assert_int_equal(beginnings_count(beginnings), 0);
}

/* Against a plain array of what was begun when. */
static void it_is_what_a_plain_list_would_be(void **state)
{
	enum { IDS = 3000 };
	static int64_t began[IDS];
	size_t count = 0;

	(void)state;
	srandom(1);
	for (uint32_t i = 0; i < IDS; i++)
		began[i] = -1;
	for (uint64_t now = 0; now < 300000; now++) {
		uint32_t number = (uint32_t)random() % IDS, id = number * 65536;

		if (random() % 2) {
			count += began[number] < 0;
			began[number] = (int64_t)now;
			beginnings_add(beginnings, id, now);
		} else {
			assert_int_equal(beginnings_take(beginnings, id, 9, now), began[number] < 0 ? -1 : (int64_t)now - began[number]);
			count -= began[number] >= 0;
			began[number] = -1;
		}
		assert_int_equal(beginnings_count(beginnings), count);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_flow_has_its_duration_once, set_up, tear_down),
		cmocka_unit_test_setup_teardown(it_is_never_negative, set_up, tear_down),
		cmocka_unit_test_setup_teardown(one_packet_lasts_no_time, set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_id_that_comes_again_is_the_younger_flow, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_look_without_packets_after_it_counts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_look_with_packets_after_it_does_not_count, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_look_without_counted_packets_does_not_count, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_look_at_an_unknown_flow_changes_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(long_flows_are_told_as_they_are, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_oldest_make_room, set_up, tear_down),
		cmocka_unit_test_setup_teardown(it_is_what_a_plain_list_would_be, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
