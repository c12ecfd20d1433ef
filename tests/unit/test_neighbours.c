/* SPDX-License-Identifier: MIT */
/* How often the kernel is asked; tests/netns/test_log.py has the names. */
#include "gateway/neighbours.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#define LOOPBACK 1 /* every network namespace's interface 1, which has no neighbours with a MAC */

struct fixture {
	struct netlink netlink;
	struct neighbours *neighbours;
};

static int set_up(void **state)
{
	static struct fixture fixture;

	*state = &fixture;
	fixture.neighbours = neighbours_new(&fixture.netlink);
	return netlink_open(&fixture.netlink, NETLINK_ROUTE, 0);
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	neighbours_free(fixture->neighbours);
	netlink_close(&fixture->netlink);
	return 0;
}

static struct address address6(unsigned int number)
{
	return (struct address){.family = AF_INET6, .bytes = {0xfd, 0xc9, 0, 1, [14] = (uint8_t)(number >> 8), (uint8_t)number}};
}

/* Random sources: each is new, none has a neighbour. */
static void test_a_flood_of_sources_has_the_tables_read_rarely(void **state)
{
	struct fixture *fixture = *state;
	const uint64_t seconds = 10;
	struct address out;

	for (uint64_t now = 1000; now < 1000 + seconds * 1000; now++) {
		struct address source = address6((unsigned int)now);

		assert_false(neighbours_find4(fixture->neighbours, LOOPBACK, &source, now, &out));
	}
	assert_true(neighbours_readings(fixture->neighbours) >= 2);
	assert_true(neighbours_readings(fixture->neighbours) <= seconds * 1000 / NEIGHBOURS_AGAIN_MS);
}

static void test_a_flood_on_many_interfaces_costs_no_more(void **state)
{
	struct fixture *fixture = *state;
	const uint64_t seconds = 10;
	struct address out;

	for (uint64_t now = 1000; now < 1000 + seconds * 1000; now++) {
		struct address source = address6((unsigned int)now);

		assert_false(neighbours_find4(fixture->neighbours, 1000 + (unsigned int)now % 500, &source, now, &out));
	}
	assert_true(neighbours_readings(fixture->neighbours) >= 10);
	assert_true(neighbours_readings(fixture->neighbours) <= seconds * 1000 / NEIGHBOURS_READ_MS + NEIGHBOURS_READ_BURST);
}

int main(void)
{
#define NEIGHBOURS_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		NEIGHBOURS_TEST(test_a_flood_of_sources_has_the_tables_read_rarely),
		NEIGHBOURS_TEST(test_a_flood_on_many_interfaces_costs_no_more),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
