/* SPDX-License-Identifier: MIT */
#include "resolver/shares.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define MAX 1024U

static struct shares shares;

static struct shares_place place(uint8_t host)
{
	const struct address address = {.family = AF_INET, .bytes = {10, 201, 1, host}};

	return shares_place(7, &address);
}

/* As much as a source can get. Return: how much that is. */
static unsigned int take_all(uint8_t host, unsigned int *taken)
{
	unsigned int own = 0;

	while (shares_allow(shares_of(&shares, place(host)), *taken, MAX)) {
		shares_add(&shares, place(host));
		++*taken;
		own++;
	}
	return own;
}

static void test_something_is_left_for_who_comes_last(void **state)
{
	unsigned int taken = 0, first, second;

	(void)state;
	first = take_all(1, &taken);
	assert_int_equal(first, MAX / 4 * 3);
	second = take_all(2, &taken);
	assert_in_range(second, MAX / 4 * 3 / 4 - 1, MAX / 4 * 3 / 4 + 1);
	assert_true(take_all(3, &taken) > 0);
	assert_true(taken < MAX);
}

static void test_what_is_given_back_can_be_had_again(void **state)
{
	unsigned int taken = 0, own;

	(void)state;
	own = take_all(1, &taken);
	for (unsigned int i = 0; i < own; i++)
		shares_remove(&shares, place(1));
	assert_int_equal(shares_of(&shares, place(1)), 0);
	taken = 0;
	assert_int_equal(take_all(1, &taken), own);
}

static void test_nothing_is_allowed_when_all_is_taken(void **state)
{
	(void)state;
	assert_true(shares_allow(0, MAX - 1, MAX));
	assert_false(shares_allow(0, MAX, MAX));
	assert_false(shares_allow(0, MAX + 1, MAX));
}

/* One source has more than fits into its neighbours' counts: others are believed to have nothing. */
static void test_sources_are_told_apart(void **state)
{
	unsigned int taken = 0, wrong = 0;
	const struct address same = {.family = AF_INET, .bytes = {10, 201, 1, 1}};

	(void)state;
	take_all(1, &taken);
	for (unsigned int host = 2; host < 250; host++)
		wrong += shares_of(&shares, place((uint8_t)host)) > 0;
	assert_true(wrong <= 1); /* by chance, one in 16 million */
	assert_int_equal(shares_of(&shares, shares_place(8, &same)), 0);
}

static int empty(void **state)
{
	(void)state;
	shares = (struct shares){0};
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_something_is_left_for_who_comes_last, empty),
		cmocka_unit_test_setup(test_what_is_given_back_can_be_had_again, empty),
		cmocka_unit_test_setup(test_nothing_is_allowed_when_all_is_taken, empty),
		cmocka_unit_test_setup(test_sources_are_told_apart, empty),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
