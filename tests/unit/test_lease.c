/* SPDX-License-Identifier: MIT */
/* lease.c is included with small limits, so that a full table can be seen. */
#include "common/lease.h"

#undef LEASE_COUNT_MAX
#undef LEASE_NETWORK_MAX
#undef LEASE_NETWORK_FLOOR
#define LEASE_COUNT_MAX     1000
#define LEASE_NETWORK_MAX   600
#define LEASE_NETWORK_FLOOR 50
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

static void test_of_leases_that_end_together_the_one_shown_last_is_found(void **state)
{
	struct lease_table *table = *state;
	struct lease lease = {.address = addr("192.0.2.1"), .network = 1, .specs = 1, .until = 50000};
	static const char *const shown[] = {"a.example", "b.example", "c.example", "a.example", "c.example", "b.example"};

	for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++) {
		lease.name = name(shown[i]);
		lease.shown = i + 1;
		assert_int_equal(lease_put(table, &lease), 0);
		assert_name(lease_find(table, 1, &lease.address), shown[i]);
	}
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
	assert_false(domain_equal(&names[0], &names[1]));
	assert_int_equal(lease_names(table, 1, &a, 200, names, 2), 1);
	assert_true(domain_equal(&names[0], &expected));
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
	assert_int_equal(HASH_COUNT(table->holdings->places), 1);
	assert_name(lease_find(table, 1, &a), "a.example");
	assert_int_equal(lease_until(table, 1, &a, 8), 900);
}

static void test_each_of_one_network(void **state)
{
	struct lease_table *table = *state;
	struct address a = addr("192.0.2.1");
	int visits = 0;
	put(table, 1, "192.0.2.1", "a.example", 1, 100);
	put(table, 2, "192.0.2.1", "a.example", 1, 100);
	put(table, 2, "192.0.2.1", "b.example", 1, 200);
	lease_each_of(table, 2, drop_b_and_turn, &visits);
	assert_int_equal(visits, 2);
	assert_int_equal(lease_table_count(table), 2);
	assert_int_equal(lease_until(table, 1, &a, 1), 100);
	assert_int_equal(lease_until(table, 2, &a, 8), 900);
	lease_each_of(table, 3, drop_b_and_turn, &visits);
	assert_int_equal(visits, 2);
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
	assert_null(table->holdings);
}

/* Give leases that end at 100, 101, ... to @count addresses of a network. */
static void fill(struct lease_table *table, uint16_t network, unsigned int count)
{
	char text[64];
	for (unsigned int i = 0; i < count; i++) {
		snprintf(text, sizeof(text), "198.51.%u.%u", i / 250, i % 250);
		assert_int_equal(put(table, network, text, "a.example", 1, 100 + i), 0);
	}
}

static void test_full_network_is_refused_but_ended_leases_make_room(void **state)
{
	struct lease_table *table = *state;
	struct address gone = addr("198.51.0.1"), kept = addr("198.51.0.2"), added = addr("192.0.2.1");
	fill(table, 1, LEASE_NETWORK_MAX);
	assert_int_equal(put(table, 1, "192.0.2.1", "a.example", 1, 5000), -ENOSPC);
	assert_int_equal(put(table, 1, "198.51.0.0", "a.example", 1, 7000), 0); /* extending needs no room */
	assert_int_equal(lease_table_count(table), LEASE_NETWORK_MAX);
	table->now = 102; /* what lease_sweep() leaves behind when it has not come to the ended ones yet */
	assert_int_equal(put(table, 1, "192.0.2.1", "a.example", 1, 5000), 0);
	assert_int_equal(lease_table_count(table), LEASE_NETWORK_MAX);
	assert_null(lease_find(table, 1, &gone));
	assert_non_null(lease_find(table, 1, &kept));
	assert_non_null(lease_find(table, 1, &added));
	assert_int_equal(put(table, 1, "192.0.2.2", "a.example", 1, 5000), -ENOSPC);
}

static void test_nearly_full_network_forgets_ended_leases_at_once(void **state)
{
	struct lease_table *table = *state;
	fill(table, 1, LEASE_NETWORK_MAX - 10);
	fill(table, 2, 10);
	lease_sweep(table, 105);
	assert_int_equal(lease_table_count(table), LEASE_NETWORK_MAX - 10 - 5 + 10); /* those of the other network are remembered */
}

static void test_full_network_leaves_others_their_room(void **state)
{
	struct lease_table *table = *state;
	fill(table, 1, LEASE_NETWORK_MAX);
	assert_int_equal(put(table, 1, "192.0.2.1", "a.example", 1, 5000), -ENOSPC);
	fill(table, 2, LEASE_COUNT_MAX - LEASE_NETWORK_MAX);
	assert_int_equal(put(table, 2, "192.0.2.1", "a.example", 1, 5000), -ENOSPC);
	/* Also a network that comes late. */
	fill(table, 3, LEASE_NETWORK_FLOOR);
	assert_int_equal(put(table, 3, "192.0.2.1", "a.example", 1, 5000), -ENOSPC);
	assert_int_equal(put(table, 4, "192.0.2.1", "a.example", 1, 5000), 0);
	assert_int_equal(lease_table_count(table), LEASE_COUNT_MAX + LEASE_NETWORK_FLOOR + 1);
	/* When one gives back what it took there is room for others. */
	table->now = UINT64_MAX;
	assert_int_equal(put(table, 2, "192.0.2.1", "a.example", 1, 5000), 0);
	assert_int_equal(lease_table_count(table), LEASE_COUNT_MAX + LEASE_NETWORK_FLOOR + 1 - LEASE_ROOM_FREED + 1);
	assert_int_equal(put(table, 3, "192.0.2.1", "a.example", 1, 5000), 0);
}

static void test_remove_takes_one_lease(void **state)
{
	struct lease_table *table = *state;
	struct address a = addr("192.0.2.1"), other = addr("192.0.2.2");
	struct domain first = name("a.example"), second = name("b.example");
	put(table, 1, "192.0.2.1", "a.example", 1, 500);
	put(table, 1, "192.0.2.1", "b.example", 1, 900);
	put(table, 2, "192.0.2.1", "b.example", 1, 700);
	lease_remove(table, 1, &other, &second);
	lease_remove(table, 3, &a, &second);
	assert_int_equal(lease_table_count(table), 3);
	assert_true(lease_has(table, 1, &a, &second));
	lease_remove(table, 1, &a, &second);
	assert_false(lease_has(table, 1, &a, &second));
	assert_true(lease_has(table, 1, &a, &first));
	assert_true(lease_has(table, 2, &a, &second));
	assert_int_equal(lease_until(table, 1, &a, 1), 500);
	lease_remove(table, 1, &a, &first);
	lease_remove(table, 1, &a, &first);
	lease_remove(table, 2, &a, &second);
	assert_int_equal(lease_table_count(table), 0);
	assert_null(table->holdings);
}

static bool end_audit(void *context, struct lease *lease)
{
	lease->audited = *(bool *)context;
	lease->specs = lease->audited ? 0 : 3;
	return true;
}

static void test_each_changes_audited(void **state)
{
	struct lease_table *table = *state;
	struct address a = addr("192.0.2.1");
	struct lease lease = {.address = a, .network = 1, .name = name("a.example"), .until = 500, .audited = true};
	bool audited = false;
	lease_put(table, &lease);
	put(table, 1, "192.0.2.1", "b.example", 1, 400);
	assert_int_equal(lease_until(table, 1, &a, 3), 400);
	lease_each(table, end_audit, &audited);
	assert_false(lease_find(table, 1, &a)->audited);
	assert_int_equal(lease_until(table, 1, &a, 2), 500);
	audited = true;
	lease_each(table, end_audit, &audited);
	assert_true(lease_find(table, 1, &a)->audited);
	assert_int_equal(lease_until(table, 1, &a, 3), 0);
	assert_int_equal(lease_table_count(table), 2);
}

static void assert_heaps(const struct place *place)
{
	for (const struct group *group = &place->first; group; group = group->next) {
		struct entry *const *heap = group->capacity ? group->heap.many : &group->heap.only;
		for (uint32_t i = 0; i < group->count; i++) {
			assert_ptr_equal(heap[i]->group, group);
			assert_int_equal(heap[i]->position, i);
			assert_true(i == 0 || heap[(i - 1) / 2]->until >= heap[i]->until);
		}
	}
}

#define MODEL_NAMES 200

/* What the table should say, the slow way. */
struct model {
	bool there[MODEL_NAMES];
	uint64_t specs[MODEL_NAMES], until[MODEL_NAMES];
};

static uint64_t model_until(const struct model *model, uint64_t bits)
{
	uint64_t until = 0;
	for (unsigned int i = 0; i < MODEL_NAMES; i++) {
		if (model->there[i] && (model->specs[i] & bits) && model->until[i] > until)
			until = model->until[i];
	}
	return until;
}

static void test_many_names_of_one_address(void **state)
{
	struct lease_table *table = *state;
	static struct model model;
	struct address a = addr("192.0.2.1");
	uint32_t random = 1;
	char text[64];
	for (unsigned int step = 0; step < 5000; step++) {
		random = random * 1664525 + 1013904223;
		unsigned int i = (random >> 8) % MODEL_NAMES;
		uint64_t specs = 1U << (random >> 20) % 3, until = (random >> 10) % 1000 + 1;
		snprintf(text, sizeof(text), "n%u.example", i);
		if (random >> 30) {
			assert_int_equal(put(table, 1, "192.0.2.1", text, specs, until), 0);
			model.until[i] = model.there[i] && model.until[i] > until ? model.until[i] : until;
			model.specs[i] = specs;
			model.there[i] = true;
		} else {
			struct domain domain = name(text);
			lease_remove(table, 1, &a, &domain);
			model.there[i] = false;
		}
		for (uint64_t bits = 1; bits < 8; bits++)
			assert_int_equal(lease_until(table, 1, &a, bits), model_until(&model, bits));
		if (table->holdings)
			assert_heaps(place_find(table->holdings, &a));
	}
	struct domain names[MODEL_NAMES];
	size_t live = 0;
	for (unsigned int i = 0; i < MODEL_NAMES; i++)
		live += model.there[i] && model.until[i] > 700;
	assert_in_range(live, 10, MODEL_NAMES - 10);
	assert_int_equal(lease_names(table, 1, &a, 700, names, MODEL_NAMES), live);
	assert_int_equal(lease_names(table, 1, &a, 700, names, 8), 8);
	lease_sweep(table, LEASE_MEMORY_MS + 990);
	assert_in_range(lease_table_count(table), 0, 20);
}

static void count_visit(void *context, struct lease *lease)
{
	(void)lease;
	++*(unsigned int *)context;
}

static void test_leases_in_use_are_not_forgotten(void **state)
{
	struct lease_table *table = *state;
	struct address used = addr("192.0.2.1"), unused = addr("192.0.2.2");
	put(table, 1, "192.0.2.1", "a.example", 1, 1000);
	put(table, 1, "192.0.2.2", "b.example", 1, 1000);
	assert_true(lease_touch(table, 1, &used, LEASE_MEMORY_MS));
	assert_false(lease_touch(table, 1, &used, LEASE_MEMORY_MS)); /* the second flow of the same look */
	assert_false(lease_touch(table, 2, &used, LEASE_MEMORY_MS));
	lease_sweep(table, LEASE_MEMORY_MS + 2000);
	assert_int_equal(lease_specs(table, 1, &used), 1);
	assert_int_equal(lease_specs(table, 1, &unused), 0);
	assert_int_equal(lease_table_count(table), 1);
	lease_sweep(table, LEASE_MEMORY_MS + LEASE_USE_MS);
	assert_int_equal(lease_table_count(table), 0);
}

static void test_specs_are_those_of_ended_leases_too(void **state)
{
	struct lease_table *table = *state;
	struct address a = addr("192.0.2.1");
	struct lease audited = {.address = a, .network = 1, .name = name("c.example"), .audited = true, .until = 9000};
	put(table, 1, "192.0.2.1", "a.example", 1, 1);
	put(table, 1, "192.0.2.1", "b.example", 4, 9000);
	assert_int_equal(lease_put(table, &audited), 0);
	assert_int_equal(lease_specs(table, 1, &a), 5);
	assert_int_equal(lease_specs(table, 2, &a), 0);
}

static void extend_visit(void *context, struct lease *lease)
{
	(void)context;
	lease->until += 50000;
}

static void test_visit_takes_the_longest_of_every_kind_and_few_in_all(void **state)
{
	struct lease_table *table = *state;
	struct address a = addr("192.0.2.1");
	unsigned int count = 0;
	char text[32];
	for (unsigned int i = 0; i < 100; i++) {
		snprintf(text, sizeof(text), "n%u.example", i);
		put(table, 1, "192.0.2.1", text, 1, 1000 + i);
	}
	put(table, 1, "192.0.2.1", "other.example", 2, 10);
	lease_visit(table, 1, &a, count_visit, &count);
	assert_int_equal(count, LEASE_VISIT_MAX);
	lease_visit(table, 1, &a, extend_visit, NULL);
	assert_int_equal(lease_until(table, 1, &a, 1), 51099);
	assert_int_equal(lease_until(table, 1, &a, 2), 50010);
	lease_visit(table, 2, &a, count_visit, &count);
	assert_int_equal(count, LEASE_VISIT_MAX);
}

static int put_alias(struct lease_table *table, const char *address, const char *text, const char *target)
{
	struct lease lease = {.address = addr(address), .network = 1, .name = name(text), .specs = 1, .until = 1000};
	struct domain end = name(target);
	lease.chain = (struct chain){end.wire, end.length};
	return lease_put(table, &lease);
}

static void assert_chain(const struct lease_table *table, const char *address, const char *text, const char *target)
{
	struct lease lease = {.address = addr(address), .network = 1, .name = name(text)};
	struct domain end = name(target);
	assert_true(lease_refresh(table, &lease));
	assert_true(chain_equal(&lease.chain, &(struct chain){end.wire, end.length}));
	assert_int_equal(lease.until, 1000);
}

static void test_chains_are_kept_once_and_as_long_as_a_lease_has_them(void **state)
{
	struct lease_table *table = *state;
	struct address a = addr("192.0.2.1"), b = addr("192.0.2.2");
	struct domain alias = name("a.example");
	struct lease gone = {.address = b, .network = 1, .name = name("b.example")};
	assert_int_equal(put_alias(table, "192.0.2.1", "a.example", "x.example"), 0);
	assert_int_equal(put_alias(table, "192.0.2.2", "a.example", "x.example"), 0);
	assert_int_equal(chain_store_count(table->chains), 1);
	/* the next answer counts, for its address */
	assert_int_equal(put_alias(table, "192.0.2.1", "a.example", "y.example"), 0);
	assert_chain(table, "192.0.2.1", "a.example", "y.example");
	assert_chain(table, "192.0.2.2", "a.example", "x.example");
	assert_int_equal(chain_store_count(table->chains), 2);
	assert_int_equal(put_alias(table, "192.0.2.2", "a.example", "y.example"), 0);
	assert_int_equal(chain_store_count(table->chains), 1);
	/* one that has no CNAME any more */
	assert_int_equal(put(table, 1, "192.0.2.1", "a.example", 1, 900), 0);
	assert_int_equal(lease_find(table, 1, &a)->chain.length, 0);
	assert_int_equal(chain_store_count(table->chains), 1);
	lease_remove(table, 1, &b, &alias);
	assert_int_equal(chain_store_count(table->chains), 0);
	assert_false(lease_refresh(table, &gone));
}

static void test_leases_that_do_not_fit_leave_no_chain(void **state)
{
	struct lease_table *table = *state;
	fill(table, 1, LEASE_NETWORK_MAX);
	assert_int_equal(put_alias(table, "198.51.100.1", "a.example", "x.example"), -ENOSPC);
	assert_int_equal(chain_store_count(table->chains), 0);
}

int main(void)
{
#define TABLE_TEST(test) cmocka_unit_test_setup_teardown(test, new_table, free_table)
	const struct CMUnitTest tests[] = {
		TABLE_TEST(test_until_is_never_moved_back),
		TABLE_TEST(test_until_is_per_network_and_spec),
		TABLE_TEST(test_audited_leases_open_nothing),
		TABLE_TEST(test_find_prefers_own_network_then_latest),
		TABLE_TEST(test_of_leases_that_end_together_the_one_shown_last_is_found),
		TABLE_TEST(test_names_are_the_live_ones),
		TABLE_TEST(test_each_changes_and_removes),
		TABLE_TEST(test_each_of_one_network),
		TABLE_TEST(test_sweep_forgets_after_the_memory),
		TABLE_TEST(test_full_network_is_refused_but_ended_leases_make_room),
		TABLE_TEST(test_nearly_full_network_forgets_ended_leases_at_once),
		TABLE_TEST(test_full_network_leaves_others_their_room),
		TABLE_TEST(test_remove_takes_one_lease),
		TABLE_TEST(test_each_changes_audited),
		TABLE_TEST(test_many_names_of_one_address),
		TABLE_TEST(test_leases_in_use_are_not_forgotten),
		TABLE_TEST(test_specs_are_those_of_ended_leases_too),
		TABLE_TEST(test_visit_takes_the_longest_of_every_kind_and_few_in_all),
		TABLE_TEST(test_chains_are_kept_once_and_as_long_as_a_lease_has_them),
		TABLE_TEST(test_leases_that_do_not_fit_leave_no_chain),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
