/* SPDX-License-Identifier: MIT */
/* lease.c is included with a small limit, so that a full table can be seen. */
#include "common/lease.h"

#undef LEASE_COUNT_MAX
#define LEASE_COUNT_MAX 1000
#include "common/lease.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct address addr(const char *text)
{
	struct address address;
	assert_true(address_parse(text, &address));
	return address;
}

static struct domain name(const char *text)
{
	struct domain domain;
	assert_null(domain_parse(text, &domain));
	return domain;
}

static int put(struct lease_table *table, uint16_t network, const char *address, const char *text, uint64_t specs, uint64_t until)
{
	struct lease lease = {.address = addr(address), .network = network, .name = name(text), .specs = specs, .until = until};
	return lease_put(table, &lease);
}

static void assert_name(const struct lease *lease, const char *expected)
{
	char text[DOMAIN_TEXT_MAX];
	assert_non_null(lease);
	assert_string_equal(domain_format(&lease->name, text), expected);
}

static int new_table(void **state)
{
	*state = lease_table_new();
	return *state ? 0 : -1;
}

static int free_table(void **state)
{
	lease_table_free(*state);
	return 0;
}

static void test_until_is_never_moved_back(void **state)
{
	struct lease_table *table = *state;
	struct address a = addr("192.0.2.1");
	assert_int_equal(put(table, 1, "192.0.2.1", "a.example", 1, 5000), 0);
	assert_int_equal(put(table, 1, "192.0.2.1", "a.example", 2, 3000), 0);
	assert_int_equal(lease_table_count(table), 1);
	assert_int_equal(lease_until(table, 1, &a, 2), 5000);
	assert_int_equal(lease_until(table, 1, &a, 1), 0); /* specs are taken over */
	assert_int_equal(put(table, 1, "192.0.2.1", "a.example", 2, 9000), 0);
	assert_int_equal(lease_until(table, 1, &a, 2), 9000);
}

static void test_until_is_per_network_and_spec(void **state)
{
	struct lease_table *table = *state;
	struct address a = addr("2001:db8::1"), other = addr("2001:db8::2");
	put(table, 1, "2001:db8::1", "a.example", 1, 5000);
	put(table, 1, "2001:db8::1", "b.example", 3, 4000);
	put(table, 2, "2001:db8::1", "a.example", 4, 9000);
	assert_int_equal(lease_until(table, 1, &a, 1), 5000);
	assert_int_equal(lease_until(table, 1, &a, 2), 4000);
	assert_int_equal(lease_until(table, 1, &a, 4), 0);
	assert_int_equal(lease_until(table, 3, &a, 1), 0);
	assert_int_equal(lease_until(table, 1, &other, 1), 0);
}

static void test_audited_leases_open_nothing(void **state)
{
	struct lease_table *table = *state;
	struct lease lease = {
		.address = addr("192.0.2.1"), .network = 1, .name = name("a.example"), .specs = 1, .until = 7, .audited = true};
	assert_int_equal(lease_put(table, &lease), 0);
	assert_int_equal(lease_until(table, 1, &lease.address, 1), 0);
	assert_true(lease_find(table, 1, &lease.address)->audited);
	lease.audited = false;
	assert_int_equal(lease_put(table, &lease), 0);
	assert_int_equal(lease_until(table, 1, &lease.address, 1), 7);
}

static void test_find_prefers_own_network_then_latest(void **state)
{
	struct lease_table *table = *state;
	struct address a = addr("192.0.2.1");
	assert_null(lease_find(table, 1, &a));
	put(table, 2, "192.0.2.1", "other.example", 1, 90000);
	put(table, 3, "192.0.2.1", "third.example", 1, 95000);
	assert_name(lease_find(table, 1, &a), "third.example");
	put(table, 1, "192.0.2.1", "ended.example", 1, 10);
	assert_name(lease_find(table, 1, &a), "ended.example");
	put(table, 1, "192.0.2.1", "live.example", 1, 50000);
	assert_name(lease_find(table, 1, &a), "live.example");
	put(table, 1, "192.0.2.1", "ended.example", 1, 60000);
	assert_name(lease_find(table, 1, &a), "ended.example");
}

static void test_names_are_the_live_ones(void **state)
{
	struct lease_table *table = *state;
	struct address a = addr("192.0.2.1");
	struct domain names[2], expected = name("c.example");
	put(table, 1, "192.0.2.1", "a.example", 1, 100);
	put(table, 1, "192.0.2.1", "b.example", 1, 200);
	put(table, 1, "192.0.2.1", "c.example", 1, 300);
	put(table, 2, "192.0.2.1", "d.example", 1, 300);
	assert_int_equal(lease_names(table, 1, &a, 50, names, 2), 2);
	assert_true(domain_equal(&names[0], &expected));
	assert_int_equal(lease_names(table, 1, &a, 200, names, 2), 1);
	assert_int_equal(lease_names(table, 1, &a, 300, names, 2), 0);
}

static bool drop_b_and_turn(void *context, struct lease *lease)
{
	struct domain b = name("b.example");
	++*(int *)context;
	if (domain_equal(&lease->name, &b))
		return false;
	lease->until = 1000 - lease->until;
	lease->specs = 8;
	return true;
}

static void test_each_changes_and_removes(void **state)
{
	struct lease_table *table = *state;
	struct address a = addr("192.0.2.1");
	int visits = 0;
	put(table, 1, "192.0.2.1", "a.example", 1, 100);
	put(table, 1, "192.0.2.1", "b.example", 1, 200);
	put(table, 1, "192.0.2.1", "c.example", 1, 300);
	put(table, 1, "192.0.2.9", "b.example", 1, 300);
	lease_each(table, drop_b_and_turn, &visits);
	assert_int_equal(visits, 4);
	assert_int_equal(lease_table_count(table), 2);
	assert_int_equal(HASH_COUNT(table->places), 1);
	assert_int_equal(HASH_COUNT(table->names), 2);
	assert_name(lease_find(table, 1, &a), "a.example");
	assert_int_equal(lease_until(table, 1, &a, 8), 900);
}

static void test_sweep_forgets_after_the_memory(void **state)
{
	struct lease_table *table = *state;
	struct address a = addr("192.0.2.1");
	put(table, 1, "192.0.2.1", "a.example", 1, 1000);
	put(table, 1, "192.0.2.1", "b.example", 1, 5000);
	put(table, 1, "192.0.2.2", "a.example", 1, 1000);
	lease_sweep(table, 6000);
	lease_sweep(table, LEASE_MEMORY_MS + 1000);
	assert_int_equal(lease_table_count(table), 3);
	lease_sweep(table, LEASE_MEMORY_MS + 1001);
	assert_int_equal(lease_table_count(table), 1);
	assert_name(lease_find(table, 1, &a), "b.example");
	lease_sweep(table, LEASE_MEMORY_MS + 9000);
	assert_int_equal(lease_table_count(table), 0);
	assert_null(table->places);
	assert_null(table->names);
}

static void test_full_table_refuses_but_ended_leases_make_room(void **state)
{
	struct lease_table *table = *state;
	char text[64];
	for (int i = 0; i < LEASE_COUNT_MAX; i++) {
		snprintf(text, sizeof(text), "198.51.%d.%d", i / 250, i % 250);
		assert_int_equal(put(table, 1, text, "a.example", 1, (uint64_t)(100 + i)), 0);
	}
	assert_int_equal(put(table, 1, "192.0.2.1", "a.example", 1, 5000), -ENOSPC);
	assert_int_equal(put(table, 1, "198.51.0.0", "a.example", 1, 7000), 0); /* extending needs no room */
	lease_sweep(table, 102);
	assert_int_equal(put(table, 1, "192.0.2.1", "a.example", 1, 5000), 0);
	assert_int_equal(lease_table_count(table), LEASE_COUNT_MAX);
	struct address gone = addr("198.51.0.1"), kept = addr("198.51.0.2"), added = addr("192.0.2.1");
	assert_null(lease_find(table, 1, &gone));
	assert_non_null(lease_find(table, 1, &kept));
	assert_non_null(lease_find(table, 1, &added));
	assert_int_equal(put(table, 1, "192.0.2.2", "a.example", 1, 5000), -ENOSPC);
}

static void test_many_names_of_one_address(void **state)
{
	struct lease_table *table = *state;
	struct address a = addr("192.0.2.1");
	char text[64];
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 500; i++) {
			snprintf(text, sizeof(text), "n%d.example", i);
			assert_int_equal(put(table, (uint16_t)(i % 3), "192.0.2.1", text, 1, (uint64_t)((i * 7919) % 1000 + round * 1000)),
					 0);
		}
	}
	assert_int_equal(lease_table_count(table), 500);
	const struct place *place = place_find(table, &a);
	for (uint32_t i = 1; i < place->count; i++)
		assert_true(entry_compare(&place->entries[i - 1], &place->entries[i]) <= 0);
	lease_sweep(table, LEASE_MEMORY_MS + 1990);
	assert_in_range(lease_table_count(table), 1, 20);
}

int main(void)
{
#define TABLE_TEST(test) cmocka_unit_test_setup_teardown(test, new_table, free_table)
	const struct CMUnitTest tests[] = {
		TABLE_TEST(test_until_is_never_moved_back),      TABLE_TEST(test_until_is_per_network_and_spec),
		TABLE_TEST(test_audited_leases_open_nothing),    TABLE_TEST(test_find_prefers_own_network_then_latest),
		TABLE_TEST(test_names_are_the_live_ones),        TABLE_TEST(test_each_changes_and_removes),
		TABLE_TEST(test_sweep_forgets_after_the_memory), TABLE_TEST(test_full_table_refuses_but_ended_leases_make_room),
		TABLE_TEST(test_many_names_of_one_address),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
