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
#include "tests/unit/two_networks.h"

struct fixture {
	int files[JOURNAL_FILES];
	struct journal journal;
	struct policy *policy;
	size_t damaged; /* octets, at the last restart */
};

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	for (unsigned int i = 0; i < JOURNAL_FILES; i++)
		fixture->files[i] = memfd_create("test-journal", 0);
	fixture->policy = make_two_networks();
	assert_non_null(fixture->policy);
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

/* The wire forms of names, one behind the other. */
static struct chain make_chain(uint8_t out[static CHAIN_WIRE_MAX], const char *const *names, size_t count)
{
	struct chain chain = {out, 0};
	struct domain name;

	for (size_t i = 0; i < count; i++) {
		assert_null(domain_parse(names[i], &name));
		memcpy(out + chain.length, name.wire, name.length);
		chain.length += name.length;
	}
	return chain;
}

static void append_alias(struct fixture *fixture, const struct chain *chain)
{
	struct lease lease = {.network = 7, .specs = 1, .shown = 1000, .until = 61000, .chain = *chain};

	assert_true(address_parse("198.18.0.1", &lease.address));
	assert_null(domain_parse("alias.example", &lease.name));
	assert_int_equal(journal_append(&fixture->journal, fixture->policy, &lease, 1, 1000), 0);
}

static void assert_chain(struct lease_table *leases, const struct chain *chain)
{
	struct address address;

	assert_true(address_parse("198.18.0.1", &address));
	assert_true(chain_equal(&lease_find(leases, 7, &address)->chain, chain));
}

static void chains_come_back(void **state)
{
	static const char *const names[] = {"x.example", "long-name-of-a-service.region.provider.example", "y.example"};
	struct fixture *fixture = *state;
	uint8_t wire[CHAIN_WIRE_MAX];
	struct chain chain = make_chain(wire, names, 3);
	struct lease_table *leases;

	append_alias(fixture, &chain);
	append(fixture, 7, "198.18.0.2", "a.example", 60);
	leases = restart(fixture, 2);
	assert_chain(leases, &chain);
	assert_lease(leases, 7, "198.18.0.2", "a.example");
	/* A later record holds. */
	append_alias(fixture, &(struct chain){0});
	lease_table_free(leases);
	leases = restart(fixture, 3);
	assert_chain(leases, &(struct chain){0});
	lease_table_free(leases);
}

/* What judges by a chain that is cut off would let a denied name pass: such a record is damaged, although its sum is right. */
static void a_chain_that_is_not_whole_is_damage(void **state)
{
	static const char *const names[] = {"a.example", "b.example", "c.example", "d.example", "e.example", "f.example",
					    "g.example", "h.example", "i.example", "j.example", "k.example", "l.example",
					    "m.example", "n.example", "o.example", "p.example", "q.example"};
	struct fixture *fixture = *state;
	uint8_t wire[CHAIN_WIRE_MAX];
	struct chain chain = make_chain(wire, names, CHAIN_NAMES_MAX + 1);

	append_alias(fixture, &chain);
	lease_table_free(restart(fixture, 0));
	assert_true(fixture->damaged > chain.length);
	chain.length -= 11; /* as many as there may be */
	append_alias(fixture, &chain);
	lease_table_free(restart(fixture, 1));
	assert_int_equal(fixture->damaged, 0);
	chain.length--;
	append_alias(fixture, &chain);
	lease_table_free(restart(fixture, 1));
	assert_true(fixture->damaged > chain.length);
	wire[1] = 'A';
	chain.length++;
	append_alias(fixture, &chain);
	lease_table_free(restart(fixture, 1));
	assert_true(fixture->damaged > chain.length);
}

/* --- mappings --- */

static struct mapping make_mapping(uint16_t network, const char *address, const char *real, const char *name)
{
	struct mapping mapping = {.network = network, .slot = 3, .answered = 900, .used = 950, .ttl = 300};

	assert_true(address_parse(address, &mapping.address));
	assert_true(address_parse(real, &mapping.real));
	assert_null(domain_parse(name, &mapping.name));
	return mapping;
}

struct mappings {
	struct mapping list[8];
	size_t count;
};

static void take_mapping(void *context, const struct mapping *mapping)
{
	struct mappings *mappings = context;

	assert_true(mappings->count < 8);
	mappings->list[mappings->count++] = *mapping;
}

static void each_mapping(void *context, bool (*put)(void *put_context, const struct mapping *mapping), void *put_context)
{
	const struct mappings *mappings = context;

	for (size_t i = 0; i < mappings->count; i++)
		assert_true(put(put_context, &mappings->list[i]));
}

static void append_mapping(struct fixture *fixture, const struct mapping *mapping)
{
	assert_int_equal(journal_append_mappings(&fixture->journal, fixture->policy, mapping, 1, 1000), 0);
}

/* As restart(), at a later moment of the leases' clock. */
static struct mappings restart_mappings(struct fixture *fixture, ssize_t expected)
{
	struct lease_table *leases = lease_table_new();
	struct mappings mappings = {0};

	assert_int_equal(journal_open(&fixture->journal, fixture->files), 0);
	assert_int_equal(journal_restore(&fixture->journal, fixture->policy, leases, 501000, &fixture->damaged, take_mapping, &mappings),
			 expected);
	lease_table_free(leases);
	return mappings;
}

/* The clocks have gone on by some milliseconds since the record was written. */
static void assert_mapping(const struct mapping *mapping, const struct mapping *expected, uint64_t later)
{
	assert_int_equal(mapping->network, expected->network);
	assert_true(address_equal(&mapping->address, &expected->address));
	assert_true(address_equal(&mapping->real, &expected->real));
	assert_true(domain_equal(&mapping->name, &expected->name));
	assert_int_equal(mapping->slot, expected->slot);
	assert_int_equal(mapping->ttl, expected->ttl);
	assert_in_range(mapping->answered, later > 10000 ? later - 10000 : 0, later + expected->answered);
	assert_int_equal(mapping->used - mapping->answered, expected->used - expected->answered);
}

static void mappings_come_back_in_order(void **state)
{
	struct fixture *fixture = *state;
	const struct mapping first = make_mapping(7, "10.201.1.9", "198.18.0.1", "a.example"),
			     second = make_mapping(9, "fdc9::9", "2001:db8::1", "b.example"),
			     third = make_mapping(7, "10.201.1.9", "198.18.0.2", "a.example");
	struct mappings mappings;

	append_mapping(fixture, &first);
	append(fixture, 7, "198.18.0.1", "a.example", 60);
	append_mapping(fixture, &second);
	append_mapping(fixture, &third);
	mappings = restart_mappings(fixture, 1);
	assert_int_equal(mappings.count, 3);
	assert_mapping(&mappings.list[0], &first, 500000);
	assert_mapping(&mappings.list[1], &second, 500000);
	assert_mapping(&mappings.list[2], &third, 500000);
	/* who does not ask for them gets the leases */
	lease_table_free(restart(fixture, 1));
	fixture->policy->network_count = 1;
	mappings = restart_mappings(fixture, 1);
	assert_int_equal(mappings.count, 2);
	fixture->policy->network_count = 2;
}

static void a_damaged_mapping_ends_the_reading(void **state)
{
	struct fixture *fixture = *state;
	const struct mapping mapping = make_mapping(7, "10.201.1.9", "198.18.0.1", "a.example");
	struct mapping odd = mapping;
	off_t begin, end;

	append_mapping(fixture, &mapping);
	begin = fixture->journal.size;
	append_mapping(fixture, &mapping);
	end = fixture->journal.size;
	for (off_t offset = begin; offset < end; offset++) {
		damage(fixture, offset, 1U << offset % 8);
		assert_int_equal(restart_mappings(fixture, 0).count, 1);
		assert_int_equal(fixture->damaged, end - begin);
		append_mapping(fixture, &mapping);
	}
	odd.slot = MAPPING_PER_NAME_MAX;
	append_mapping(fixture, &odd);
	assert_int_equal(restart_mappings(fixture, 0).count, 2);
	odd = mapping;
	assert_true(address_parse("2001:db8::1", &odd.real));
	append_mapping(fixture, &odd);
	assert_int_equal(restart_mappings(fixture, 0).count, 2);
	assert_int_equal(fixture->damaged, end - begin);
}

static void compacting_keeps_mappings_and_chains(void **state)
{
	static const char *const names[] = {"x.example", "y.example"};
	struct fixture *fixture = *state;
	uint8_t wire[CHAIN_WIRE_MAX];
	struct chain chain = make_chain(wire, names, 2);
	struct mappings mappings = {.count = 2};
	struct lease_table *leases;
	ssize_t size;

	mappings.list[0] = make_mapping(7, "10.201.1.9", "198.18.0.1", "a.example");
	mappings.list[1] = make_mapping(9, "10.201.2.9", "198.18.0.2", "b.example");
	append_alias(fixture, &chain);
	leases = restart(fixture, 1);
	while (fixture->journal.size < 2 * JOURNAL_SLACK)
		append_mapping(fixture, &mappings.list[0]);
	assert_int_equal(journal_compact(&fixture->journal, fixture->policy, leases, 1000, each_mapping, &mappings), 0);
	lease_table_free(leases);
	size = fixture->journal.size;
	assert_true(size < 1000);
	leases = restart(fixture, 1);
	assert_chain(leases, &chain);
	lease_table_free(leases);
	mappings = restart_mappings(fixture, 1);
	assert_int_equal(mappings.count, 2);
	assert_int_equal(mappings.list[1].network, 9);
	assert_int_equal(fixture->damaged, 0);
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
		cmocka_unit_test_setup_teardown(chains_come_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_chain_that_is_not_whole_is_damage, set_up, tear_down),
		cmocka_unit_test_setup_teardown(mappings_come_back_in_order, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_damaged_mapping_ends_the_reading, set_up, tear_down),
		cmocka_unit_test_setup_teardown(compacting_keeps_mappings_and_chains, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
