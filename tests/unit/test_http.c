/* SPDX-License-Identifier: MIT */
#include "gateway/report/http_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define MS 1000000ULL

static void hosts_that_nobody_else_can_point_at_us(void **state)
{
	static const char *const good[] = {"127.0.0.1",      "127.0.0.1:9780", "10.0.0.1:1", "[::1]",     "[::1]:9780", "[2001:db8::1]:80",
					   "localhost:9780", "LOCALHOST",      "gateway",    "my-host_1", "gateway:"};
	static const char *const bad[] = {"",
					  ":9780",
					  "evil.example",
					  "evil.example:9780",
					  "localhost.",
					  "localhost.evil.example",
					  "127.0.0.1.evil.example",
					  "127.0.0.1:9780.evil.example",
					  "::1",
					  "[::1",
					  "[::1]x",
					  "[127.0.0.1]",
					  "[localhost]",
					  "[]",
					  "local host",
					  "localhost@evil",
					  "localhost:97x",
					  "localhost/..",
					  "a123456789012345678901234567890123456789012345678901234567890123456789"};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		if (!http_host_is_local(good[i]))
			fail_msg("'%s' is refused", good[i]);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (http_host_is_local(bad[i]))
			fail_msg("'%s' is let in", bad[i]);
	}
}

static void answers_take_a_part_of_the_time(void **state)
{
	struct http_budget budget = {0};
	uint64_t now = 5000 * MS;

	(void)state;
	assert_true(http_budget_left(&budget, now));
	http_budget_spend(&budget, 249 * MS);
	assert_true(http_budget_left(&budget, now));
	http_budget_spend(&budget, 101 * MS);
	assert_false(http_budget_left(&budget, now));
	assert_false(http_budget_left(&budget, now + 100ULL * HTTP_SHARE * MS));
	assert_true(http_budget_left(&budget, now + 101ULL * HTTP_SHARE * MS));
	/* A long quiet time earns no more than the burst. */
	now += 1000000 * MS;
	assert_true(http_budget_left(&budget, now));
	http_budget_spend(&budget, 250 * MS);
	assert_false(http_budget_left(&budget, now));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hosts_that_nobody_else_can_point_at_us),
		cmocka_unit_test(answers_take_a_part_of_the_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
