/* SPDX-License-Identifier: MIT */
/* Grants that cannot be written, without a kernel: the policy lacks the network of one of them. */
#include "gateway/grants.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct world {
	struct policy policy;
	struct ruleset ruleset;
	struct lease_table *leases;
	struct grants grants;
	struct domain names[2];
};

static int setup(void **state)
{
	struct world *world = calloc(1, sizeof(*world));

	assert_non_null(world);
	world->leases = lease_table_new();
	world->grants = (struct grants){.ruleset = &world->ruleset, .leases = world->leases};
	assert_null(domain_parse("a.example", &world->names[0]));
	assert_null(domain_parse("b.example", &world->names[1]));
	*state = world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;

	grants_free(&world->grants);
	lease_table_free(world->leases);
	free(world);
	return 0;
}

static struct grant grant(const struct world *world, const char *address, unsigned int name)
{
	struct grant made = {.network = 7, .name = &world->names[name], .specs = 1, .seconds = 60};

	assert_true(address_parse(address, &made.address));
	return made;
}

static void test_refused_grants_leave_no_new_leases(void **state)
{
	struct world *world = *state;
	struct grant list[] = {grant(world, "192.0.2.1", 0), grant(world, "192.0.2.1", 1), grant(world, "192.0.2.2", 0),
			       grant(world, "192.0.2.2", 0)};
	struct lease before = {.address = list[0].address, .network = 7, .name = world->names[0], .specs = 1, .until = 5000};

	assert_int_equal(lease_put(world->leases, &before), 0);
	assert_int_equal(grants_write(&world->grants, &world->policy, list, 4, 1000), -ENOENT);
	assert_int_equal(world->grants.failed, 1);
	assert_int_equal(world->grants.error, -ENOENT);
	assert_int_equal(lease_table_count(world->leases), 1);
	assert_true(lease_has(world->leases, 7, &list[0].address, &world->names[0]));
	assert_int_equal(lease_until(world->leases, 7, &list[0].address, 1), 61000);
	assert_int_equal(lease_until(world->leases, 7, &list[2].address, 1), 0);
}

static void test_a_lease_has_the_grants_chain(void **state)
{
	struct world *world = *state;
	struct grant made = grant(world, "192.0.2.1", 0);
	struct lease lease;

	made.chain = (struct chain){world->names[1].wire, world->names[1].length};
	lease = grants_lease(&made, 1000);
	assert_true(chain_equal(&lease.chain, &made.chain));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_refused_grants_leave_no_new_leases, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_lease_has_the_grants_chain, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
