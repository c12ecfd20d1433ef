/* SPDX-License-Identifier: MIT */
#include "gateway/room.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct network networks[40];
static const struct policy policy = {.networks = networks, .network_count = 3};
static const struct network *web = &networks[0], *build = &networks[1];
static struct room room;

static struct address host(uint8_t last)
{
	return (struct address){.family = AF_INET, .bytes = {10, 201, 1, last}};
}

static void see(const struct network *network, uint8_t last, unsigned int flows)
{
	struct address source = host(last);

	for (unsigned int i = 0; i < flows; i++)
		room_see(&room, network, last ? &source : NULL);
}

static struct room_finding find(const struct network *network, uint64_t share)
{
	struct room_finding found;

	assert_int_equal(room_find(&room, network, share, &found), 0);
	return found;
}

static void test_the_share_of_a_network(void **state)
{
	struct policy many = policy;

	(void)state;
	/* While there is room nobody is held back: one alone gets three quarters, the next one three quarters of the rest. */
	many.network_count = 40;
	assert_int_equal(room_share(&many, web, 262144, 50000), 3 * (262144 - 50000));
	assert_int_equal(room_share(&many, web, 262144, 196608), 196608);
	assert_int_equal(room_share(&many, web, 262144, 245760), 49152);
	/* What is for everybody, also in a full table; or with more in it than it has room for, after somebody has made it smaller. */
	assert_int_equal(room_share(&policy, web, 262144, 262144), 65536);
	assert_int_equal(room_share(&many, web, 262144, 300000), 4915);
	assert_int_equal(room_share(&policy, web, 1000, 1000), 1024);
	assert_true(room_share(&policy, web, 0, 5) > UINT32_MAX);
	networks[0].max_flows = 77;
	assert_int_equal(room_share(&policy, web, 262144, 5), 77);
	networks[0].max_flows = 0;
}

static void test_only_who_has_most_is_refused(void **state)
{
	struct room_finding found;

	(void)state;
	see(web, 1, 90);
	see(web, 2, 5);
	see(web, 3, 8);
	see(build, 4, 99);
	found = find(web, 100);
	assert_true(found.refused && found.is_new && !found.all);
	assert_int_equal(found.flows, 103);
	assert_int_equal(found.source_count, 1);
	assert_true(address_equal(&found.sources[0], &(struct address){.family = AF_INET, .bytes = {10, 201, 1, 1}}));
	assert_int_equal(found.most, 90);
	free(found.sources);
	assert_false(find(build, 100).refused);
}

static void test_everybody_is_refused_when_that_does_not_help(void **state)
{
	struct room_finding found;

	(void)state;
	for (unsigned int last = 1; last <= 130; last++)
		see(web, (uint8_t)last, 1);
	found = find(web, 100);
	assert_true(found.refused && found.all);
	free(found.sources);
	see(build, 0, 126); /* came in: no source of the network */
	found = find(build, 100);
	assert_true(found.refused && found.all && !found.source_count);
}

static void test_it_is_over_when_there_are_clearly_fewer(void **state)
{
	static const struct {
		unsigned int flows;
		bool refused, is_new;
	} looks[] = {{100, false, false}, {101, true, true}, {95, true, false}, {88, false, true}, {95, false, false}};

	(void)state;
	for (size_t i = 0; i < sizeof(looks) / sizeof(looks[0]); i++) {
		struct room_finding found;

		room_look_begins(&room, 0);
		see(web, 1, looks[i].flows);
		found = find(web, 100);
		assert_int_equal(found.refused, looks[i].refused);
		assert_int_equal(found.is_new, looks[i].is_new);
		free(found.sources);
	}
}

static void test_sources_of_a_look_are_bounded(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < ROOM_SOURCES_MAX + 100; i++) {
		const struct address source = {.family = AF_INET, .bytes = {10, 202, (uint8_t)(i >> 8), (uint8_t)i}};

		room_see(&room, web, &source);
	}
	assert_int_equal(room.sources, ROOM_SOURCES_MAX);
	assert_int_equal(find(web, UINT32_MAX).flows, ROOM_SOURCES_MAX + 100);
}

static int open_room(void **state)
{
	(void)state;
	room = (struct room){0};
	for (unsigned int i = 0; i < sizeof(networks) / sizeof(networks[0]); i++)
		networks[i].id = (uint16_t)(i + 1);
	return 0;
}

static int close_room(void **state)
{
	(void)state;
	room_close(&room);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_the_share_of_a_network, open_room, close_room),
		cmocka_unit_test_setup_teardown(test_only_who_has_most_is_refused, open_room, close_room),
		cmocka_unit_test_setup_teardown(test_everybody_is_refused_when_that_does_not_help, open_room, close_room),
		cmocka_unit_test_setup_teardown(test_it_is_over_when_there_are_clearly_fewer, open_room, close_room),
		cmocka_unit_test_setup_teardown(test_sources_of_a_look_are_bounded, open_room, close_room),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
