/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <sodium/crypto_shorthash.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/journal.h"

struct fixture {
	int files[JOURNAL_FILES];
	struct journal journal;
	struct policy *policy;
	size_t damaged; /* octets, at the last restart */
};

/* Two networks, "web" with id 7 and "build" with id 9. */
static struct policy *make_policy(void)
{
	struct policy *policy = policy_new();

	assert_non_null(policy);
	policy->networks = calloc(2, sizeof(*policy->networks));
	assert_non_null(policy->networks);
	policy->network_count = 2;
	strcpy(policy->networks[0].name, "web");
	policy->networks[0].id = 7;
	strcpy(policy->networks[1].name, "build");
	policy->networks[1].id = 9;
	return policy;
}

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	for (unsigned int i = 0; i < JOURNAL_FILES; i++)
		fixture->files[i] = memfd_create("test-journal", 0);
	fixture->policy = make_policy();
	assert_int_equal(journal_open(&fixture->journal, fixture->files), 0);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	for (unsigned int i = 0; i < JOURNAL_FILES; i++)
		close(fixture->files[i]);
	policy_free(fixture->policy);
	free(fixture);
	return 0;
}

static void write_sum(int file, uint8_t *header, size_t size)
{
	static const uint8_t key[crypto_shorthash_KEYBYTES];
	uint8_t sum[crypto_shorthash_BYTES];

	crypto_shorthash(sum, header, size, key);
	assert_int_equal(pwrite(file, header, size, 0), size);
	assert_int_equal(pwrite(file, sum, sizeof(sum), (off_t)size), sizeof(sum));
}

static void append(struct fixture *fixture, uint16_t network, const char *address, const char *name, uint32_t seconds)
{
	struct lease lease = {.network = network, .specs = 1, .shown = 1000, .until = 1000 + seconds * 1000};

	assert_true(address_parse(address, &lease.address));
	assert_null(domain_parse(name, &lease.name));
	assert_int_equal(journal_append(&fixture->journal, fixture->policy, &lease, 1, 1000), 0);
}

/* What a worker that is started again finds. */
static struct lease_table *restart(struct fixture *fixture, ssize_t expected)
{
	struct lease_table *leases = lease_table_new();

	assert_non_null(leases);
	assert_int_equal(journal_open(&fixture->journal, fixture->files), 0);
	assert_int_equal(journal_restore(&fixture->journal, fixture->policy, leases, 1000, &fixture->damaged, NULL, NULL), expected);
	return leases;
}

static void assert_lease(struct lease_table *leases, uint16_t network, const char *address, const char *name)
{
	char text[DOMAIN_TEXT_MAX];
	struct address key;
	const struct lease *lease;

	assert_true(address_parse(address, &key));
	lease = lease_find(leases, network, &key);
	assert_non_null(lease);
	assert_int_equal(lease->network, network);
	assert_string_equal(domain_format(&lease->name, text), name);
}

static void empty_journal_restores_nothing(void **state)
{
	lease_table_free(restart(*state, 0));
}

static void leases_come_back(void **state)
{
	struct fixture *fixture = *state;
	struct lease_table *leases;

	append(fixture, 7, "198.18.0.1", "a.example", 60);
	append(fixture, 9, "2001:db8::1", "b.example", 60);
	leases = restart(fixture, 2);
	assert_lease(leases, 7, "198.18.0.1", "a.example");
	assert_lease(leases, 9, "2001:db8::1", "b.example");
	lease_table_free(leases);
}

static void time_goes_on_while_nobody_runs(void **state)
{
	struct fixture *fixture = *state;
	struct lease_table *leases;
	struct address key;
	uint64_t until;

	append(fixture, 7, "198.18.0.1", "a.example", 60);
	append(fixture, 7, "198.18.0.2", "ended.example", 0);
	leases = restart(fixture, 1);
	assert_true(address_parse("198.18.0.1", &key));
	until = lease_find(leases, 7, &key)->until;
	assert_in_range(until, 1000 + 50000, 1000 + 60000);
	assert_in_range(lease_find(leases, 7, &key)->shown, 0, 1000);
	/* What an app may have cached for ever is still known by name. */
	assert_lease(leases, 7, "198.18.0.2", "ended.example");
	lease_table_free(leases);
}

static void networks_that_are_gone_are_left_out(void **state)
{
	struct fixture *fixture = *state;

	append(fixture, 7, "198.18.0.1", "a.example", 60);
	append(fixture, 9, "198.18.0.2", "b.example", 60);
	fixture->policy->network_count = 1;
	lease_table_free(restart(fixture, 1));
	fixture->policy->network_count = 2;
}

/* A network keeps its leases by name: ids may differ between workers. */
static void ids_may_change(void **state)
{
	struct fixture *fixture = *state;
	struct lease_table *leases;

	append(fixture, 7, "198.18.0.1", "a.example", 60);
	fixture->policy->networks[0].id = 12;
	leases = restart(fixture, 1);
	assert_lease(leases, 12, "198.18.0.1", "a.example");
	lease_table_free(leases);
}

static void torn_end_costs_only_the_last_record(void **state)
{
	struct fixture *fixture = *state;
	struct lease_table *leases;

	append(fixture, 7, "198.18.0.1", "a.example", 60);
	append(fixture, 7, "198.18.0.2", "b.example", 60);
	assert_int_equal(ftruncate(fixture->files[fixture->journal.current], fixture->journal.size - 3), 0);
	lease_table_free(restart(fixture, 1));
	/* and the next record overwrites the torn one */
	append(fixture, 7, "198.18.0.3", "c.example", 60);
	leases = restart(fixture, 2);
	assert_lease(leases, 7, "198.18.0.3", "c.example");
	lease_table_free(leases);
}

static void garbage_is_never_trusted(void **state)
{
	struct fixture *fixture = *state;
	uint8_t garbage[256];

	append(fixture, 7, "198.18.0.1", "a.example", 60);
	for (unsigned int value = 0; value < 256; value++) {
		memset(garbage, (int)value, sizeof(garbage));
		assert_int_equal(pwrite(fixture->files[fixture->journal.current], garbage, sizeof(garbage), fixture->journal.size),
				 sizeof(garbage));
		lease_table_free(restart(fixture, 1));
	}
}

/* Adds @bits to one octet of the current file. */
static void damage(struct fixture *fixture, off_t offset, uint8_t bits)
{
	int file = fixture->files[fixture->journal.current];
	uint8_t octet;

	assert_int_equal(pread(file, &octet, 1, offset), 1);
	octet ^= bits;
	assert_int_equal(pwrite(file, &octet, 1, offset), 1);
}

/* An address that is read wrong would be open to an app. */
static void a_flipped_bit_is_never_trusted(void **state)
{
	struct fixture *fixture = *state;
	off_t begin, end;

	append(fixture, 7, "198.18.0.1", "a.example", 60);
	begin = fixture->journal.size;
	append(fixture, 7, "198.18.0.2", "b.example", 60);
	end = fixture->journal.size;
	for (off_t offset = begin; offset < end; offset++) {
		damage(fixture, offset, 1U << offset % 8);
		lease_table_free(restart(fixture, 1));
		assert_int_equal(fixture->damaged, end - begin);
		assert_int_equal(fixture->journal.size, begin);
		append(fixture, 7, "198.18.0.2", "b.example", 60);
	}
	lease_table_free(restart(fixture, 2));
	assert_int_equal(fixture->damaged, 0);
}

static void leases_of_another_boot_are_not_known(void **state)
{
	struct fixture *fixture = *state;
	uint8_t header[16 + 40];

	append(fixture, 7, "198.18.0.1", "a.example", 60);
	assert_true(journal_knows(fixture->files[0]));
	assert_int_equal(pread(fixture->files[0], header, sizeof(header), 0), sizeof(header));
	assert_memory_equal(header, "Sluice4", 8);
	/* the header of the same file under another boot, with a sum that is right */
	memset(header + 16, '0', 36);
	write_sum(fixture->files[0], header, sizeof(header));
	assert_true(journal_knows(fixture->files[0]));
	lease_table_free(restart(fixture, 0));
	append(fixture, 7, "198.18.0.1", "a.example", 60);
	lease_table_free(restart(fixture, 1));
}

static void another_version_is_not_known(void **state)
{
	struct fixture *fixture = *state;

	assert_true(journal_knows(fixture->files[0]));
	damage(fixture, 6, '3' ^ '4');
	assert_false(journal_knows(fixture->files[0]));
	damage(fixture, 6, '3' ^ '4');
	assert_true(journal_knows(fixture->files[0]));
	damage(fixture, 8, 1); /* the generation */
	assert_false(journal_knows(fixture->files[0]));
}

static void compacting_keeps_what_lives(void **state)
{
	struct fixture *fixture = *state;
	struct lease_table *leases;
	unsigned int before = fixture->journal.current;

	while (fixture->journal.size < 2 * JOURNAL_SLACK)
		append(fixture, 7, "198.18.0.1", "a.example", 60);
	append(fixture, 9, "198.18.0.2", "b.example", 60);
	leases = lease_table_new();
	assert_true(journal_restore(&fixture->journal, fixture->policy, leases, 1000, &fixture->damaged, NULL, NULL) > 2);
	assert_int_equal(journal_compact(&fixture->journal, fixture->policy, leases, 1000, NULL, NULL), 0);
	lease_table_free(leases);
	assert_int_not_equal(fixture->journal.current, before);
	assert_true(fixture->journal.size < 1000);
	leases = restart(fixture, 2);
	assert_lease(leases, 7, "198.18.0.1", "a.example");
	assert_lease(leases, 9, "198.18.0.2", "b.example");
	lease_table_free(leases);
}

static void small_journals_are_not_compacted(void **state)
{
	struct fixture *fixture = *state;
	struct lease_table *leases = lease_table_new();
	unsigned int before = fixture->journal.current;

	append(fixture, 7, "198.18.0.1", "a.example", 60);
	assert_int_equal(journal_compact(&fixture->journal, fixture->policy, leases, 1000, NULL, NULL), 0);
	assert_int_equal(fixture->journal.current, before);
	lease_table_free(leases);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(empty_journal_restores_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(leases_come_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(time_goes_on_while_nobody_runs, set_up, tear_down),
		cmocka_unit_test_setup_teardown(networks_that_are_gone_are_left_out, set_up, tear_down),
		cmocka_unit_test_setup_teardown(ids_may_change, set_up, tear_down),
		cmocka_unit_test_setup_teardown(torn_end_costs_only_the_last_record, set_up, tear_down),
		cmocka_unit_test_setup_teardown(garbage_is_never_trusted, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_flipped_bit_is_never_trusted, set_up, tear_down),
		cmocka_unit_test_setup_teardown(leases_of_another_boot_are_not_known, set_up, tear_down),
		cmocka_unit_test_setup_teardown(another_version_is_not_known, set_up, tear_down),
		cmocka_unit_test_setup_teardown(compacting_keeps_what_lives, set_up, tear_down),
		cmocka_unit_test_setup_teardown(small_journals_are_not_compacted, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
