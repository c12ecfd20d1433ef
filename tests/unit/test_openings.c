/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <netinet/in.h>

#include "gateway/openings.h"

static const struct address target = {.family = AF_INET, .bytes = {10, 201, 1, 5}}, other = {.family = AF_INET, .bytes = {10, 201, 1, 6}};

static struct openings example(void)
{
	struct openings openings = {0};
	const struct opening list[] = {
		{.network = 1, .protocol = IPPROTO_TCP, .ports = {443, 443}, .target = target, .target_port = 8443},
		{.network = 1, .protocol = IPPROTO_UDP, .ports = {7000, 7010}, .target = target, .target_port = 7000},
	};

	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
		assert_int_equal(openings_add(&openings, &list[i]), 0);
	return openings;
}

static void a_flow_leads_through_the_opening_that_says_all_of_it(void **state)
{
	static const struct {
		uint8_t protocol;
		uint16_t port;
		const struct address *target;
		uint16_t target_port;
		int found; /* index, or -1 */
	} table[] = {
		{IPPROTO_TCP, 443, &target, 8443, 0},   {IPPROTO_UDP, 443, &target, 8443, -1},   {IPPROTO_TCP, 444, &target, 8443, -1},
		{IPPROTO_TCP, 443, &target, 443, -1},   {IPPROTO_TCP, 443, &other, 8443, -1},    {IPPROTO_UDP, 7000, &target, 7000, 1},
		{IPPROTO_UDP, 7010, &target, 7010, 1},  {IPPROTO_UDP, 7010, &target, 7009, -1},  {IPPROTO_UDP, 6999, &target, 6999, -1},
		{IPPROTO_UDP, 7011, &target, 7011, -1}, {IPPROTO_ICMP, 7000, &target, 7000, -1},
	};
	struct openings openings = example();

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		const struct opening *found =
			openings_find(&openings, table[i].protocol, table[i].port, table[i].target, table[i].target_port);

		assert_ptr_equal(found, table[i].found < 0 ? NULL : &openings.list[table[i].found]);
	}
	openings_free(&openings);
	assert_null(openings_find(&openings, IPPROTO_TCP, 443, &target, 8443));
}

static void each_part_of_an_opening_makes_a_difference(void **state)
{
	struct openings one = example(), two = example();
	struct opening *last = &two.list[1];
	const struct opening before = *last;

	(void)state;
	last->publish = (const struct publish *)&before; /* where it was written makes none */
	assert_true(openings_equal(&one, &two));
	last->network++;
	assert_false(openings_equal(&one, &two));
	*last = before;
	last->protocol = IPPROTO_TCP;
	assert_false(openings_equal(&one, &two));
	*last = before;
	last->ports.first--;
	assert_false(openings_equal(&one, &two));
	*last = before;
	last->ports.last++;
	assert_false(openings_equal(&one, &two));
	*last = before;
	last->target = other;
	assert_false(openings_equal(&one, &two));
	*last = before;
	last->target_port++;
	assert_false(openings_equal(&one, &two));
	*last = before;
	two.count--;
	assert_false(openings_equal(&one, &two));
	openings_free(&one);
	openings_free(&two);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_flow_leads_through_the_opening_that_says_all_of_it),
		cmocka_unit_test(each_part_of_an_opening_makes_a_difference),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
