/* SPDX-License-Identifier: MIT */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/ports.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct ports parse(const char *text)
{
	struct ports ports;
	const char *error = ports_parse(text, &ports);

	if (error)
		fail_msg("%s: %s", text, error);
	return ports;
}

static void assert_format(const struct ports *ports, const char *expected)
{
	char text[PORTS_TEXT_MAX];

	assert_string_equal(ports_format(ports, text), expected);
}

static void parses_and_formats_canonically(void **state)
{
	static const struct {
		const char *text, *canonical;
	} table[] = {
		{"443", "443"},
		{"443/udp", "443/udp"},
		{"22+443", "22+443"},
		{"443+22", "22+443"},
		{"8000-8100/tcp", "8000-8100/tcp"},
		{"443+80/tcp", "80/tcp+443"},
		{"443/tcp+443/udp", "443"},
		{"1-10+5-20", "1-20"},
		{"1-10+11-20", "1-20"},
		{"1-100/tcp+50/udp", "1-49/tcp+50+51-100/tcp"},
		{"1-10/tcp+5-20/udp", "1-4/tcp+5-10+11-20/udp"},
		{"all", "all"},
		{"0-65535", "all"},
		{"0-65535/tcp", "0-65535/tcp"},
		{"1-65535", "1-65535"},
		{"65535", "65535"},
		{"0-0", "0-0"},
		{"1+2+3+4+5+6+7+8+9+10+11+12+13+14+15+16+17", "1-17"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct ports ports = parse(table[i].text), again;

		assert_format(&ports, table[i].canonical);
		again = parse(table[i].canonical);
		assert_true(ports_equal(&ports, &again));
		assert_memory_equal(&ports, &again, sizeof(ports));
	}
}

static void refuses_what_is_no_specification(void **state)
{
	static const char *const table[] = {
		"",        "+",          "443+",  "+443",  "443++80", "443/",        "443/sctp",
		"443/TCP", "/tcp",       "65536", "99999", "100000",  "-1",          "443-",
		"-443",    "20-10",      "0443",  "0",     "00",      "0/tcp",       "44 3",
		" 443",    "443 ",       "4x",    "x",     "443,80",  "443/tcp/udp", "all+1",
		"*",       "4294967739", "none",  "1-2-3", "443/tc",  "443/tcpp",    "1+3+5+7+9+11+13+15+17+19+21+23+25+27+29+31+33",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct ports ports;

		if (!ports_parse(table[i], &ports))
			fail_msg("\"%s\" was accepted", table[i]);
		assert_true(ports_is_empty(&ports));
	}
}

static void subtracts(void **state)
{
	static const struct {
		const char *from, *other, *rest;
	} table[] = {
		{"all", "25", "0-24+26-65535"},
		{"all", "all", "none"},
		{"443", "443/udp", "443/tcp"},
		{"1-10", "0-65535", "none"},
		{"1-10", "11-20", "1-10"},
		{"1-10", "1", "2-10"},
		{"1-10", "10", "1-9"},
		{"1-10", "3+5+7-8", "1-2+4+6+9-10"},
		{"1-10+20-30", "5-25", "1-4+26-30"},
		{"all", "65535", "0-65534"},
		{"all", "1-65535", "0-0"},
		{"all", "0-65535/udp", "0-65535/tcp"},
		{"80/tcp", "80/udp", "80/tcp"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct ports from = parse(table[i].from), other = parse(table[i].other);

		assert_true(ports_subtract(&from, &other));
		assert_format(&from, table[i].rest);
		if (!ports_is_empty(&from)) {
			char text[PORTS_TEXT_MAX];
			struct ports again = parse(ports_format(&from, text));

			assert_true(ports_equal(&from, &again));
		}
	}
}

static void reports_too_many_ranges_and_changes_nothing(void **state)
{
	struct ports odd = parse("1+3+5+7+9+11+13+15+17+19+21+23+25+27+29+31"), one = parse("41"), before = odd, all = ports_all();

	(void)state;
	assert_false(ports_add(&odd, &one));
	assert_true(ports_equal(&odd, &before));
	assert_false(ports_subtract(&all, &odd));
	assert_true(ports_is_all(&all));
	one = parse("2");
	assert_true(ports_add(&odd, &one));
}

static void contains_and_overlaps(void **state)
{
	struct ports web = parse("80/tcp+443"), all = ports_all(), none = {0}, udp = parse("80/udp"), edge = parse("443-500/tcp");

	(void)state;
	assert_true(ports_contains(&web, IPPROTO_TCP, 80));
	assert_false(ports_contains(&web, IPPROTO_UDP, 80));
	assert_true(ports_contains(&web, IPPROTO_UDP, 443));
	assert_false(ports_contains(&web, IPPROTO_TCP, 81));
	assert_false(ports_contains(&all, IPPROTO_ICMP, 0));
	assert_false(ports_contains(&all, IPPROTO_SCTP, 443));
	assert_true(ports_contains(&all, IPPROTO_TCP, 0));
	assert_true(ports_contains(&all, IPPROTO_UDP, 65535));
	assert_false(ports_overlap(&web, &udp));
	assert_true(ports_overlap(&web, &edge));
	assert_false(ports_overlap(&web, &none));
	assert_true(ports_overlap(&all, &udp));
}

static struct ports random_ports(void)
{
	struct ports out = {0};

	for (int i = rand() % 8; i > 0; i--) {
		uint16_t first = (uint16_t)(rand() % 24), last = (uint16_t)(first + rand() % 4);
		struct ports one = {.tcp_count = 1, .tcp = {{first, last}}};

		if (rand() % 2)
			one = (struct ports){.udp_count = 1, .udp = {{first, last}}};
		assert_true(ports_add(&out, &one));
	}
	return out;
}

/* Every operation against the same question asked port by port. */
static void operations_agree_with_single_ports(void **state)
{
	(void)state;
	srand(1);
	for (int round = 0; round < 3000; round++) {
		struct ports a = random_ports(), b = random_ports(), sum = a, rest = a, again;
		char text[PORTS_TEXT_MAX];
		bool overlap = false;

		assert_true(ports_add(&sum, &b));
		assert_true(ports_subtract(&rest, &b));
		for (unsigned int i = 0; i < 64; i++) {
			uint8_t protocol = i % 2 ? IPPROTO_TCP : IPPROTO_UDP;
			uint16_t port = (uint16_t)(i / 2);
			bool in_a = ports_contains(&a, protocol, port), in_b = ports_contains(&b, protocol, port);

			assert_int_equal(ports_contains(&sum, protocol, port), in_a || in_b);
			assert_int_equal(ports_contains(&rest, protocol, port), in_a && !in_b);
			overlap |= in_a && in_b;
		}
		assert_int_equal(ports_overlap(&a, &b), overlap);
		assert_int_equal(ports_overlap(&b, &a), overlap);
		if (ports_is_empty(&sum))
			continue;
		again = parse(ports_format(&sum, text));
		assert_true(ports_equal(&sum, &again));
	}
}

/* The longest text there is must fit: 16 TCP and 16 UDP ranges that overlap like the tiles of a roof. */
static void the_longest_text_fits(void **state)
{
	struct ports ports = {0}, again;
	char text[PORTS_TEXT_MAX];

	(void)state;
	for (uint16_t i = 0; i < PORTS_RANGES_MAX; i++) {
		uint16_t first = (uint16_t)(10000 + 100 * i);

		ports.tcp[ports.tcp_count++] = (struct port_range){first, (uint16_t)(first + 59)};
		ports.udp[ports.udp_count++] = (struct port_range){(uint16_t)(first + 50), (uint16_t)(first + 109)};
	}
	ports.udp[PORTS_RANGES_MAX - 1].last = 65535;
	again = parse(ports_format(&ports, text));
	assert_true(strlen(text) > 800);
	assert_true(ports_equal(&ports, &again));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parses_and_formats_canonically),
		cmocka_unit_test(refuses_what_is_no_specification),
		cmocka_unit_test(subtracts),
		cmocka_unit_test(reports_too_many_ranges_and_changes_nothing),
		cmocka_unit_test(contains_and_overlaps),
		cmocka_unit_test(operations_agree_with_single_ports),
		cmocka_unit_test(the_longest_text_fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
