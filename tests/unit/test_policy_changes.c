/* SPDX-License-Identifier: MIT */
/* Which leases a new policy may judge otherwise. */
#include "common/policy_changes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gateway/config.h"

#define NETWORK "[upstream]\nserver = 192.0.2.53\n\n[network web]\nsubnet = 10.1.0.0/24\n"
#define RULES   "allow = a.example:443 **.b.example:443 c.example:443\n"

static struct policy *parse(const char *text)
{
	char *copy = strdup(text), *file = strdup("test");
	struct config_part part = {.file = file, .text = copy, .size = strlen(text)};
	struct config_text whole = {.parts = &part, .count = 1};
	struct config_messages messages = {0};
	struct policy *policy = config_parse(&whole, &messages);

	if (messages.errors)
		fail_msg("%s", messages.list[0].text);
	config_messages_free(&messages);
	free(copy);
	free(file);
	return policy;
}

/* Return: may leases differ by more than some names? */
static bool compare(const char *before, const char *after, const char *name, const char *link, bool *changed)
{
	struct policy *old = parse(before), *new = parse(after);
	struct policy_changes changes;
	struct domain domain, end;
	struct chain chain = {0};
	bool comparable;

	policy_inherit_ids(new, old);
	comparable = policy_changes(old, new, &changes);
	assert_null(domain_parse(name, &domain));
	if (link) {
		assert_null(domain_parse(link, &end));
		chain = (struct chain){end.wire, end.length};
	}
	*changed = comparable && policy_changes_name(&changes, new->networks[0].id, &domain, &chain);
	policy_free(old);
	policy_free(new);
	return comparable;
}

static void test_names_of_rules_that_differ(void **state)
{
	static const struct {
		const char *after, *name, *link;
		bool changed;
	} rows[] = {
		{NETWORK RULES, "a.example", NULL, false},
		{NETWORK RULES "allow = d.example:443\n", "a.example", NULL, false},
		{NETWORK RULES "allow = d.example:443\n", "d.example", NULL, true},
		{NETWORK "allow = d.example:443\n" RULES, "a.example", NULL, false},
		{NETWORK "allow = d.example:443\n" RULES, "d.example", NULL, true},
		{NETWORK "allow = a.example:443 c.example:443\n", "x.b.example", NULL, true},
		{NETWORK "allow = a.example:443 c.example:443\n", "c.example", NULL, false},
		{NETWORK "allow = a.example:443 *.b.example:443 c.example:443\n", "b.example", NULL, true},
		{NETWORK RULES "deny = cdn.example\n", "a.example", NULL, false},
		{NETWORK RULES "deny = cdn.example\n", "a.example", "cdn.example", true},
		{NETWORK RULES "deny = cdn.example\n", "a.example", "other.example", false},
		{NETWORK RULES "deny = a.example:443\n", "a.example", NULL, true},
		{NETWORK RULES "allow = 198.18.0.0/15:443\n", "a.example", NULL, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		bool changed, comparable = compare(NETWORK RULES, rows[i].after, rows[i].name, rows[i].link, &changed);

		if (!comparable || changed != rows[i].changed)
			fail_msg("row %zu: comparable %d, changed %d", i, comparable, changed);
	}
}

static void test_what_else_leases_depend_on(void **state)
{
	static const char *const rows[] = {
		NETWORK "ports = 80\n" RULES "allow = e.example\n", /* another port specification */
		NETWORK "max_age = 5m\n" RULES,
		NETWORK "mode = audit\n" RULES,
		NETWORK "private = 10.9.0.0/16\n" RULES,
		NETWORK RULES "[network other]\nsubnet = 10.2.0.0/24\n",
		"[upstream]\nserver = 192.0.2.53\nprivate = 10.9.0.0/16\n\n[network web]\nsubnet = 10.1.0.0/24\n" RULES,
		"[upstream]\nserver = 192.0.2.53\n\n[network web]\nsubnet = 10.3.0.0/24\n" RULES,
		"[upstream]\nserver = 192.0.2.53\n\n[network web]\nsubnet = 10.1.0.0/24\naddresses = virtual\n" RULES,
		"[upstream corp]\nmatch = **.corp.example\nserver = 192.0.2.9\n\n" NETWORK RULES,
	};
	bool changed;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (compare(NETWORK RULES, rows[i], "a.example", NULL, &changed))
			fail_msg("row %zu passes for a change of rules only", i);
	}
}

static void test_what_else_flows_depend_on(void **state)
{
	static const struct {
		const char *before, *after;
		bool flows;
	} rows[] = {
		{NETWORK RULES, NETWORK RULES, false},
		{NETWORK RULES, NETWORK "allow = a.example:443\n", false},
		{NETWORK RULES, NETWORK RULES "allow = 198.18.0.0/15:443\n", true},
		{NETWORK RULES "deny = 198.18.0.1\n", NETWORK RULES, true},
		{NETWORK RULES "deny = 198.18.0.1\n", NETWORK RULES "deny = 198.18.0.1\nallow = d.example:443\n", false},
		{NETWORK RULES, NETWORK RULES "keep_established = yes\n", true},
		{NETWORK RULES, NETWORK RULES "verify = enforce\n", true},
		{NETWORK RULES "verify = enforce\n", NETWORK RULES "verify = enforce\n", false},
		{NETWORK RULES "verify = enforce\n", NETWORK "verify = enforce\nallow = a.example:443\n", true},
		{NETWORK RULES "verify = enforce\n", NETWORK RULES "verify = enforce\nverify_ports = 443\n", true},
		{NETWORK RULES "verify = enforce\n", NETWORK RULES "verify = enforce\nwithout_name = allow\n", true},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct policy *old = parse(rows[i].before), *new = parse(rows[i].after);
		struct policy_changes changes;

		policy_inherit_ids(new, old);
		assert_true(policy_changes(old, new, &changes));
		if (changes.flows != rows[i].flows)
			fail_msg("row %zu", i);
		policy_free(old);
		policy_free(new);
	}
}

static void test_too_many_rules(void **state)
{
	char text[8192] = NETWORK RULES;
	size_t used = strlen(text);
	bool changed;

	(void)state;
	for (unsigned int i = 0; i <= POLICY_CHANGES_MAX; i++) {
		used += (size_t)snprintf(text + used, sizeof(text) - used, "allow = n%u.example:443\n", i);
		assert_int_equal(compare(NETWORK RULES, text, "n0.example", NULL, &changed), i < POLICY_CHANGES_MAX);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_of_rules_that_differ),
		cmocka_unit_test(test_what_else_leases_depend_on),
		cmocka_unit_test(test_what_else_flows_depend_on),
		cmocka_unit_test(test_too_many_rules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
