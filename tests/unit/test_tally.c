/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/report/tally.h"

static int memory;

static int set_up(void **state)
{
	(void)state;
	memory = memfd_create("test-tally", 0);
	return memory >= 0 ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	return close(memory);
}

static struct tallies *open_tallies(int descriptor)
{
	struct tallies *tallies = tallies_new(NULL, "flows", descriptor);

	assert_non_null(tallies);
	return tallies;
}

static struct tally *want(struct tallies *tallies, const char *network)
{
	struct tally *tally = tallies_want(tallies, network);

	assert_non_null(tally);
	return tally;
}

static void what_was_told_is_not_told_again(void **state)
{
	struct tallies *tallies = open_tallies(-1);
	struct tally *web = want(tallies, "web");

	(void)state;
	tallies_told(tallies, web, 7);
	assert_int_equal(tallies_take_untold(tallies, web, 7, true), 0);
	assert_int_equal(tallies_take_untold(tallies, web, 10, true), 3);
	assert_int_equal(tallies_take_untold(tallies, web, 10, true), 0);
	tallies_free(tallies);
}

static void the_newest_may_still_get_their_lines(void **state)
{
	struct tallies *tallies = open_tallies(-1);
	struct tally *web = want(tallies, "web");

	(void)state;
	assert_int_equal(tallies_take_untold(tallies, web, 5, false), 0);
	tallies_told(tallies, web, 2);
	/* Of the 5 of then, 3 have no line; 4 more have come since. */
	assert_int_equal(tallies_take_untold(tallies, web, 9, false), 5);
	assert_int_equal(tallies_take_untold(tallies, web, 9, false), 2);
	assert_int_equal(tallies_take_untold(tallies, web, 9, false), 0);
	tallies_free(tallies);
}

static void sums_are_exact_whatever_is_lost(void **state)
{
	struct tallies *tallies = open_tallies(-1);
	struct tally *web = want(tallies, "web");
	uint64_t kernel = 0, told = 0;

	(void)state;
	srandom(1);
	for (int i = 0; i < 2000; i++) {
		uint64_t lines, came = (uint64_t)random() % 50;

		kernel += came;
		lines = came ? (uint64_t)random() % came : 0;
		tallies_told(tallies, web, lines);
		told += lines;
		if (random() % 3 == 0)
			told += tallies_take_untold(tallies, web, kernel, false);
		assert_true(told <= kernel);
	}
	told += tallies_take_untold(tallies, web, kernel, true);
	assert_int_equal(told, kernel);
	tallies_free(tallies);
}

static void a_counter_that_was_made_anew_counts_from_zero(void **state)
{
	struct tallies *tallies = open_tallies(-1);
	struct tally *web = want(tallies, "web");

	(void)state;
	assert_int_equal(tallies_take_untold(tallies, web, 100, true), 100);
	assert_int_equal(tallies_take_untold(tallies, web, 4, true), 4);
	tallies_free(tallies);
}

static void the_next_worker_knows_what_was_told(void **state)
{
	struct tallies *tallies = open_tallies(memory);

	(void)state;
	tallies_told(tallies, want(tallies, "web"), 5);
	tallies_told(tallies, want(tallies, "build"), 6);
	tallies_told(tallies, want(tallies, "web"), 1);
	tallies_free(tallies); /* nothing is written at the end: a worker may be killed */
	tallies = open_tallies(memory);
	assert_int_equal(want(tallies, "web")->told, 6);
	assert_int_equal(want(tallies, "build")->told, 6);
	tallies_told(tallies, want(tallies, "build"), 1);
	tallies_free(tallies);
	tallies = open_tallies(memory);
	assert_int_equal(want(tallies, "web")->told, 6);
	assert_int_equal(want(tallies, "build")->told, 7);
	tallies_free(tallies);
}

static void a_network_that_is_gone_begins_anew(void **state)
{
	struct network network = {.name = "web"};
	struct policy policy = {.networks = &network, .network_count = 1};
	struct tallies *tallies = open_tallies(memory);

	(void)state;
	tallies_told(tallies, want(tallies, "web"), 5);
	tallies_told(tallies, want(tallies, "build"), 6);
	tallies_forget_gone(tallies, &policy);
	tallies_free(tallies);
	tallies = open_tallies(memory);
	assert_int_equal(want(tallies, "web")->told, 5);
	assert_int_equal(want(tallies, "build")->told, 0);
	tallies_free(tallies);
}

static void lines_are_limited(void **state)
{
	struct tally tally = {.told = 0};
	unsigned int lines = 0;

	(void)state;
	for (unsigned int i = 0; i < 10 * TALLY_LINE_BURST; i++)
		lines += tally_may_tell(&tally, 1000);
	assert_int_equal(lines, TALLY_LINE_BURST);
	assert_false(tally_may_tell(&tally, 1000 + TALLY_LINE_MS - 1));
	assert_true(tally_may_tell(&tally, 1000 + TALLY_LINE_MS));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_told_is_not_told_again),
		cmocka_unit_test(the_newest_may_still_get_their_lines),
		cmocka_unit_test(sums_are_exact_whatever_is_lost),
		cmocka_unit_test(a_counter_that_was_made_anew_counts_from_zero),
		cmocka_unit_test_setup_teardown(the_next_worker_knows_what_was_told, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_network_that_is_gone_begins_anew, set_up, tear_down),
		cmocka_unit_test(lines_are_limited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
