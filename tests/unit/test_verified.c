/* SPDX-License-Identifier: MIT */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gateway/report/verified.h"

static struct verified *verified;

static int set_up(void **state)
{
	(void)state;
	verified = verified_new();
	return verified ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	verified_free(verified);
	return 0;
}

static struct flow flow_from(uint32_t number)
{
	return (struct flow){
		.source = {.family = AF_INET, .bytes = {10, 201, (uint8_t)(number >> 16), 5}},
		.destination = {.family = AF_INET, .bytes = {203, 0, 113, 7}},
		.protocol = IPPROTO_TCP,
		.source_port = (uint16_t)number,
		.destination_port = 443,
	};
}

static void put(const struct flow *flow, const char *text)
{
	struct verified_flow known = {.destination = {.family = AF_INET, .bytes = {10, 201, 1, flow->source_port & 255}}};

	assert_null(domain_parse(text, &known.name));
	verified_put(verified, flow, &known);
}

/* "": not known. */
static void check(const struct flow *flow, const char *wanted)
{
	char text[DOMAIN_TEXT_MAX] = "";
	struct domain parsed = {0};
	struct verified_flow known;

	memset(&known, 0xff, sizeof(known));
	assert_int_equal(verified_find(verified, flow, &known), *wanted != '\0');
	if (known.name.length > 0)
		domain_format(&known.name, text);
	assert_string_equal(text, wanted);
	assert_int_equal(known.destination.family, *wanted ? AF_INET : 0);
	assert_int_equal(known.destination.bytes[3], *wanted ? flow->source_port & 255 : 0);
	/* Names are keys of tables: octets behind them are zero. */
	if (*wanted)
		assert_null(domain_parse(wanted, &parsed));
	assert_memory_equal(&known.name, &parsed, sizeof(parsed));
}

static void a_name_is_known_until_the_flow_is_over(void **state)
{
	const struct flow one = flow_from(40000), two = flow_from(40001);

	(void)state;
	check(&one, "");
	put(&one, "api.example");
	put(&two, "git.vendor.example");
	check(&one, "api.example");
	check(&two, "git.vendor.example");
	verified_forget(verified, &one);
	verified_forget(verified, &one);
	check(&one, "");
	check(&two, "git.vendor.example");
	assert_int_equal(verified_count(verified), 1);
}

static void the_half_of_a_flow_has_no_name(void **state)
{
	const struct verified_flow half = {.destination = {.family = AF_INET6, .bytes = {0xfd, 0xc9}}};
	const struct flow flow = flow_from(40000);
	struct verified_flow known;

	(void)state;
	verified_put(verified, &flow, &half);
	assert_true(verified_find(verified, &flow, &known));
	assert_int_equal(known.name.length, 0);
	assert_memory_equal(&known.destination, &half.destination, sizeof(half.destination));
}

static void another_flow_of_the_same_ports_has_its_own_name(void **state)
{
	const struct flow flow = flow_from(40000);

	(void)state;
	put(&flow, "a.longer.name.example");
	put(&flow, "api.example");
	check(&flow, "api.example");
	assert_int_equal(verified_count(verified), 1);
}

static void all_that_conntrack_tells_flows_apart_by_counts(void **state)
{
	const struct flow flow = flow_from(40000);
	struct flow others[5] = {flow, flow, flow, flow, flow};

	(void)state;
	others[0].source.bytes[3]++;
	others[1].destination.bytes[3]++;
	others[2].source_port++;
	others[3].destination_port++;
	others[4].protocol = IPPROTO_UDP;
	put(&flow, "api.example");
	for (size_t i = 0; i < 5; i++)
		check(&others[i], "");
}

static void what_else_a_packet_says_does_not(void **state)
{
	struct flow flow = flow_from(40000);

	(void)state;
	put(&flow, "api.example");
	flow.sequence = 7;
	flow.tcp_flags = 24;
	flow.content = (const uint8_t *)"x";
	flow.content_size = 1;
	check(&flow, "api.example");
}

static void the_oldest_makes_room(void **state)
{
	const struct flow first = flow_from(0), second = flow_from(1), third = flow_from(2), last = flow_from(VERIFIED_MAX);

	(void)state;
	for (uint32_t i = 0; i < VERIFIED_MAX; i++) {
		const struct flow flow = flow_from(i);

		put(&flow, "api.example");
	}
	put(&first, "again.example"); /* it is the youngest now */
	assert_int_equal(verified_count(verified), VERIFIED_MAX);
	put(&last, "last.example");
	assert_int_equal(verified_count(verified), VERIFIED_MAX);
	check(&first, "again.example");
	check(&second, "");
	check(&third, "api.example");
	check(&last, "last.example");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_name_is_known_until_the_flow_is_over, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_half_of_a_flow_has_no_name, set_up, tear_down),
		cmocka_unit_test_setup_teardown(another_flow_of_the_same_ports_has_its_own_name, set_up, tear_down),
		cmocka_unit_test_setup_teardown(all_that_conntrack_tells_flows_apart_by_counts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_else_a_packet_says_does_not, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_oldest_makes_room, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
