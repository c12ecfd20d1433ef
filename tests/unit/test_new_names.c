/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "resolver/new_names.h"

#define START 5000 /* ms */

/* Two networks with the same rules, and a limit of 10 names. */
enum { EXACT, BELOW, TREE, ANY, RULES };
static const char *const rules[RULES] = {"exact.example", "*.below.example", "**.tree.example", "*"};

static struct policy *policy;
static struct new_names *names;

static int set_up(void **state)
{
	const char *warning;

	(void)state;
	names = new_names_new();
	policy = policy_new();
	assert_non_null(names);
	policy->networks = calloc(2, sizeof(*policy->networks));
	policy->network_count = 2;
	for (size_t i = 0; i < 2; i++) {
		struct network *network = &policy->networks[i];

		snprintf(network->name, sizeof(network->name), "n%zu", i);
		network->id = (uint16_t)(i + 7);
		network->wildcards.names = 10;
		network->rules = calloc(RULES, sizeof(*network->rules));
		for (; network->rule_count < RULES; network->rule_count++) {
			struct rule rule = {.action = RULE_ALLOW};

			assert_null(pattern_parse(rules[network->rule_count], &rule.pattern, &warning));
			network->rules[network->rule_count] = policy_rule(policy, &rule);
			assert_non_null(network->rules[network->rule_count]);
		}
	}
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	new_names_free(names);
	policy_free(policy);
	return 0;
}

static bool may_ask(size_t network, size_t rule, const char *name, uint16_t type, uint64_t now)
{
	struct question question = {.type = type, .class = CLASS_IN};

	assert_null(domain_parse(name, &question.name));
	return new_names_may_ask(names, &policy->networks[network], policy->networks[network].rules[rule], &question, START + now);
}

/* Ask for names that nobody has asked for yet, until one may not leave. Return: how many did. */
static unsigned int spend(size_t network, size_t rule, const char *base, uint64_t now)
{
	static unsigned int serial;
	unsigned int left = 0;
	char name[64];

	do
		snprintf(name, sizeof(name), "n%u.%s", serial++, base);
	while (may_ask(network, rule, name, TYPE_A, now) && left++ < 1000);
	return left;
}

static void a_minute_has_room_for_so_many(void **state)
{
	(void)state;
	assert_int_equal(spend(0, BELOW, "below.example", 0), 10);
	assert_int_equal(spend(0, BELOW, "below.example", 5999), 0);
	assert_int_equal(spend(0, BELOW, "below.example", 6000), 1);
	assert_int_equal(spend(0, BELOW, "below.example", 36000), 5);
	assert_int_equal(spend(0, BELOW, "below.example", 3600000), 10); /* no more for having waited longer */
}

static void each_wildcard_and_network_has_a_bucket_of_its_own(void **state)
{
	(void)state;
	assert_int_equal(spend(0, BELOW, "below.example", 0), 10);
	assert_int_equal(spend(0, TREE, "tree.example", 0), 10);
	assert_int_equal(spend(0, ANY, "example", 0), 10);
	assert_int_equal(spend(1, BELOW, "below.example", 0), 10);
	assert_int_equal(spend(0, BELOW, "below.example", 0), 0);
}

static void what_a_rule_has_itself_is_free(void **state)
{
	(void)state;
	spend(0, TREE, "tree.example", 0);
	assert_true(may_ask(0, TREE, "tree.example", TYPE_A, 0));
	assert_true(may_ask(0, EXACT, "exact.example", TYPE_A, 0));
	assert_int_equal(spend(0, TREE, "tree.example", 0), 0);
}

static void what_was_asked_for_is_free(void **state)
{
	static const uint16_t free_types[] = {TYPE_A, TYPE_AAAA, TYPE_HTTPS, TYPE_SVCB};

	(void)state;
	assert_true(may_ask(0, BELOW, "a.below.example", TYPE_A, 0));
	assert_int_equal(spend(0, BELOW, "below.example", 0), 9);
	for (size_t i = 0; i < sizeof(free_types) / sizeof(free_types[0]); i++)
		assert_true(may_ask(0, BELOW, "a.below.example", free_types[i], 1));
	assert_false(may_ask(0, BELOW, "b.below.example", TYPE_A, 1));
	assert_false(may_ask(0, BELOW, "b.below.example", TYPE_A, 1)); /* what was refused was not asked for */
}

static void the_number_of_a_type_is_a_message_too(void **state)
{
	(void)state;
	for (uint16_t type = 0; type < 10; type++)
		assert_true(may_ask(0, BELOW, "a.below.example", (uint16_t)(65280 + type), 0));
	assert_false(may_ask(0, BELOW, "a.below.example", 65290, 0));
	assert_true(may_ask(0, BELOW, "a.below.example", 65280, 0));
}

static void a_name_in_use_stays_known_while_thousands_pass(void **state)
{
	char name[64];

	(void)state;
	policy->networks[0].wildcards.names = WILDCARD_NAMES_MAX;
	assert_true(may_ask(0, BELOW, "kept.below.example", TYPE_A, 0));
	for (unsigned int i = 0; i < 4 * NEW_NAMES_SEEN; i++) {
		snprintf(name, sizeof(name), "x%u.below.example", i);
		assert_true(may_ask(0, BELOW, name, TYPE_A, 0));
		if (i % 16 == 0)
			assert_true(may_ask(0, BELOW, "kept.below.example", TYPE_A, 0));
	}
	policy->networks[0].wildcards.names = 1;
	assert_false(may_ask(0, BELOW, "last.below.example", TYPE_A, 0));
	assert_true(may_ask(0, BELOW, "kept.below.example", TYPE_A, 0));
}

static void a_reload_gives_nobody_room(void **state)
{
	(void)state;
	assert_true(may_ask(0, BELOW, "a.below.example", TYPE_A, 0));
	assert_int_equal(spend(0, BELOW, "below.example", 0), 9);
	new_names_set_policy(names, policy, START + 10);
	assert_int_equal(spend(0, BELOW, "below.example", 10), 0);
	assert_true(may_ask(0, BELOW, "a.below.example", TYPE_A, 10));
	new_names_set_policy(names, policy, START + 60000); /* the bucket is full, and forgotten */
	assert_int_equal(spend(0, BELOW, "below.example", 60000), 10);
}

static void a_network_that_loses_its_limit_is_forgotten(void **state)
{
	(void)state;
	assert_int_equal(spend(0, BELOW, "below.example", 0), 10);
	assert_int_equal(spend(1, BELOW, "below.example", 0), 10);
	policy->networks[0].wildcards.names = 0;
	policy->networks[1].id = 99;
	new_names_set_policy(names, policy, START);
	policy->networks[0].wildcards.names = 10;
	policy->networks[1].id = 8;
	assert_int_equal(spend(0, BELOW, "below.example", 0), 10);
	assert_int_equal(spend(1, BELOW, "below.example", 0), 10);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_minute_has_room_for_so_many),
		TEST(each_wildcard_and_network_has_a_bucket_of_its_own),
		TEST(what_a_rule_has_itself_is_free),
		TEST(what_was_asked_for_is_free),
		TEST(the_number_of_a_type_is_a_message_too),
		TEST(a_name_in_use_stays_known_while_thousands_pass),
		TEST(a_reload_gives_nobody_room),
		TEST(a_network_that_loses_its_limit_is_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
