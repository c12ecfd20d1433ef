/* SPDX-License-Identifier: MIT */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/policy.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define NOW          1000000

/* A rule as a test writes it; NULL ports: none given. */
struct line {
	enum rule_action action;
	const char *what;
	const char *ports;
};

static struct domain name_of(const char *text)
{
	struct domain out;
	const char *error;

	if (strcmp(text, ".") == 0)
		return (struct domain){.length = 1};
	error = domain_parse(text, &out);
	if (error)
		fail_msg("%s: %s", text, error);
	return out;
}

static struct address address_of(const char *text)
{
	struct address out;

	if (!address_parse(text, &out))
		fail_msg("%s is no address", text);
	return out;
}

static struct prefix prefix_from(const char *text)
{
	struct prefix out;

	if (!prefix_parse(text, &out, NULL))
		fail_msg("%s is no prefix", text);
	return out;
}

static struct ports ports_of(const char *text)
{
	struct ports out;
	const char *error = ports_parse(text, &out);

	if (error)
		fail_msg("%s: %s", text, error);
	return out;
}

/* Rules as gateway/config.c makes them: a name rule without ports gets the network's. */
static struct rule make_rule(const struct line *line, const struct ports *default_ports, unsigned int number)
{
	struct rule rule = {.action = line->action, .text = line->what, .source = {"test", number}};
	const char *warning;

	if (prefix_parse(line->what, &rule.prefix, NULL))
		rule.kind = RULE_ADDRESS;
	else if (pattern_parse(line->what, &rule.pattern, &warning))
		fail_msg("%s is no rule", line->what);
	rule.ports_given = line->ports != NULL;
	if (line->ports)
		rule.ports = ports_of(line->ports);
	else
		rule.ports = rule.kind == RULE_NAME ? *default_ports : ports_all();
	return rule;
}

static struct policy *unfinished(const struct line *lines, size_t count, const char *default_ports)
{
	struct policy *policy = policy_new();
	struct network *network;

	assert_non_null(policy);
	policy->networks = calloc(1, sizeof(*policy->networks));
	assert_non_null(policy->networks);
	policy->network_count = 1;
	network = &policy->networks[0];
	strcpy(network->name, "web");
	network->source = (struct source){"test", 99};
	network->default_ports = default_ports ? ports_of(default_ports) : ports_all();
	network->rules = calloc(count + 1, sizeof(*network->rules));
	assert_non_null(network->rules);
	for (size_t i = 0; i < count; i++) {
		struct rule rule = make_rule(&lines[i], &network->default_ports, (unsigned int)i + 1);

		network->rules[i] = policy_rule(policy, &rule);
		assert_non_null(network->rules[i]);
	}
	network->rule_count = count;
	return policy;
}

static struct policy *finished(const struct line *lines, size_t count, const char *default_ports)
{
	struct policy *policy = unfinished(lines, count, default_ports);
	struct source where;
	char error[512] = "";

	if (policy_finish(policy, error, sizeof(error), &where) != 0)
		fail_msg("%s", error);
	return policy;
}

static struct name_verdict judge(const struct policy *policy, const char *text)
{
	struct domain name = name_of(text);

	return policy_judge_name(&policy->networks[0], &name, NOW);
}

/* All ports that a verdict's specifications open. */
static struct ports reachable(const struct network *network, uint64_t specs)
{
	struct ports sum = {0};

	for (size_t i = 0; i < POLICY_SPECS_MAX; i++) {
		if (!(specs >> i & 1))
			continue;
		assert_true(i < network->spec_count);
		assert_true(ports_add(&sum, &network->specs[i]));
	}
	return sum;
}

struct name_case {
	const char *name;
	enum reason reason;
	unsigned int rule; /* line number, 0: the default */
	const char *ports;
	bool parent;
};

static void check_names(const struct policy *policy, const struct name_case *cases, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct name_verdict verdict = judge(policy, cases[i].name);
		struct ports ports = reachable(&policy->networks[0], verdict.specs);
		char text[PORTS_TEXT_MAX];

		if (verdict.reason != cases[i].reason)
			fail_msg("%s: %s", cases[i].name, reason_name(verdict.reason));
		if ((verdict.rule ? verdict.rule->source.line : 0) != cases[i].rule)
			fail_msg("%s: rule %u", cases[i].name, verdict.rule ? verdict.rule->source.line : 0);
		assert_int_equal(verdict.allowed, cases[i].reason == REASON_NONE);
		assert_false(verdict.audited);
		assert_string_equal(ports_format(&ports, text), cases[i].ports ? cases[i].ports : "none");
		if (verdict.parent != cases[i].parent)
			fail_msg("%s: parent is %d", cases[i].name, verdict.parent);
	}
}

static void judges_names(void **state)
{
	static const struct line lines[] = {
		{RULE_ALLOW, "github.com", "22+443"},         /* 1 */
		{RULE_ALLOW, "*.cdn.vendor.example", "443"},  /* 2 */
		{RULE_ALLOW, "**.tree.example", NULL},        /* 3 */
		{RULE_DENY, "gist.tree.example", NULL},       /* 4 */
		{RULE_DENY, "**.bad.tree.example", NULL},     /* 5 */
		{RULE_ALLOW, "api.tree.example", "8443/tcp"}, /* 6 */
		{RULE_ALLOW, "github.com", "80"},             /* 7 */
		{RULE_ALLOW, "good.bad.tree.example", NULL},  /* 8 */
	};
	static const struct name_case cases[] = {
		{"github.com", REASON_NONE, 1, "22+80+443", false},
		{"a.github.com", REASON_NAME_NOT_ALLOWED, 0, NULL, false},
		{"com", REASON_LOCAL_NAME, 0, NULL, false},
		{"cdn.vendor.example", REASON_NAME_NOT_ALLOWED, 0, NULL, true},
		{"vendor.example", REASON_NAME_NOT_ALLOWED, 0, NULL, true},
		{"other.example", REASON_NAME_NOT_ALLOWED, 0, NULL, false},
		{"x.cdn.vendor.example", REASON_NONE, 2, "443", false},
		{"x.y.cdn.vendor.example", REASON_NONE, 2, "443", false},
		{"xcdn.vendor.example", REASON_NAME_NOT_ALLOWED, 0, NULL, false},
		{"tree.example", REASON_NONE, 3, "all", false},
		{"x.tree.example", REASON_NONE, 3, "all", false},
		{"gist.tree.example", REASON_DENIED_BY_RULE, 4, NULL, true}, /* below it names are allowed */
		{"x.gist.tree.example", REASON_NONE, 3, "all", false},
		{"bad.tree.example", REASON_DENIED_BY_RULE, 5, NULL, false},
		{"good.bad.tree.example", REASON_DENIED_BY_RULE, 5, NULL, false},
		{"api.tree.example", REASON_NONE, 6, "all", false},
		{".", REASON_NAME_NOT_ALLOWED, 0, NULL, true},
	};
	struct policy *policy = finished(lines, COUNT(lines), NULL);

	(void)state;
	check_names(policy, cases, COUNT(cases));
	policy_free(policy);
}

static void star_matches_all_but_makes_no_parents(void **state)
{
	static const struct line lines[] = {
		{RULE_ALLOW, "*", "443"},              /* 1 */
		{RULE_DENY, "evil.example", NULL},     /* 2 */
		{RULE_DENY, "**.worse.example", NULL}, /* 3 */
		{RULE_ALLOW, "a.example", NULL},       /* 4: the network's ports */
	};
	static const struct name_case cases[] = {
		{"anything.test", REASON_NONE, 1, "443", false},
		{"evil.example", REASON_DENIED_BY_RULE, 2, NULL, false},
		{"x.worse.example", REASON_DENIED_BY_RULE, 3, NULL, false},
		{"a.example", REASON_NONE, 4, "80/tcp+443", false},
		{"localhost", REASON_LOCAL_NAME, 0, NULL, false},
	};
	struct policy *policy = finished(lines, COUNT(lines), "80/tcp+443");

	(void)state;
	check_names(policy, cases, COUNT(cases));
	policy_free(policy);
}

/* A deny rule without ports closes all, also where `ports =` gives the allow rules fewer. */
static void deny_rules_ignore_default_ports(void **state)
{
	static const struct line lines[] = {{RULE_ALLOW, "**.a.example", "all"}, {RULE_DENY, "x.a.example", NULL}};
	static const struct name_case cases[] = {{"x.a.example", REASON_DENIED_BY_RULE, 2, NULL, true}};
	struct policy *policy = finished(lines, COUNT(lines), "443");

	(void)state;
	check_names(policy, cases, COUNT(cases));
	policy_free(policy);
}

static void port_denies_are_taken_out(void **state)
{
	static const struct line lines[] = {
		{RULE_ALLOW, "**.a.example", NULL},       /* 1 */
		{RULE_ALLOW, "mail.a.example", "25+443"}, /* 2 */
		{RULE_DENY, "*", "25/tcp"},               /* 3 */
		{RULE_DENY, "*.b.a.example", "443"},      /* 4 */
		{RULE_ALLOW, "only.c.example", "443"},    /* 5 */
		{RULE_DENY, "only.c.example", "400-500"}, /* 6 */
		{RULE_DENY, "other.example", "1-65535"},  /* 7: overlaps no allow rule */
		{RULE_ALLOW, "smtp.c.example", "25"},     /* 8 */
		{RULE_ALLOW, "two.c.example", "80+443"},  /* 9 */
		{RULE_DENY, "two.c.example", "80"},       /* 10 */
		{RULE_DENY, "**.c.example", "443"},       /* 11 */
	};
	static const struct name_case cases[] = {
		{"a.example", REASON_NONE, 1, "0-24+25/udp+26-65535", false},
		{"x.b.a.example", REASON_NONE, 1, "0-24+25/udp+26-442+444-65535", false},
		{"b.a.example", REASON_NONE, 1, "0-24+25/udp+26-65535", false},
		{"mail.a.example", REASON_NONE, 2, "0-24+25/udp+26-65535", false},
		{"only.c.example", REASON_DENIED_BY_RULE, 6, NULL, false},
		{"smtp.c.example", REASON_NONE, 8, "25/udp", false},
		{"two.c.example", REASON_DENIED_BY_RULE, 11, NULL, false},
		{"other.example", REASON_NAME_NOT_ALLOWED, 0, NULL, false},
	};
	struct policy *policy = finished(lines, COUNT(lines), NULL);

	(void)state;
	check_names(policy, cases, COUNT(cases));
	policy_free(policy);
}

/* all, all-25, all-443, all-25-443, and nothing twice. */
static void specs_are_the_closure_without_duplicates(void **state)
{
	static const struct line lines[] = {
		{RULE_ALLOW, "**.a.example", NULL}, {RULE_ALLOW, "**.b.example", NULL}, {RULE_DENY, "x.a.example", "25"},
		{RULE_DENY, "*.b.example", "25"},   {RULE_DENY, "*.a.example", "443"},  {RULE_ALLOW, "c.example", "443"},
		{RULE_ALLOW, "d.example", "25"},    {RULE_DENY, "d.example", "25"},
	};
	static const char *const expected[] = {"all", "0-24+26-65535", "0-442+444-65535", "0-24+26-442+444-65535", "443", "25"};
	struct policy *policy = finished(lines, COUNT(lines), NULL);
	const struct network *network = &policy->networks[0];

	(void)state;
	assert_int_equal(network->spec_count, COUNT(expected));
	for (size_t i = 0; i < COUNT(expected); i++) {
		struct ports ports = ports_of(expected[i]);
		size_t found = 0;

		for (size_t j = 0; j < network->spec_count; j++)
			found += ports_equal(&network->specs[j], &ports);
		assert_int_equal(found, 1);
	}
	policy_free(policy);
}

/* Finishing @count rules, made by @line, must fail with -E2BIG and name what is wrong. */
static void assert_too_big(const struct line *lines, size_t count, unsigned int where_line, const char *expected)
{
	struct policy *policy = unfinished(lines, count, NULL);
	struct source where = {0};
	char error[512] = "";
	struct name_verdict verdict;

	assert_int_equal(policy_finish(policy, error, sizeof(error), &where), -E2BIG);
	assert_int_equal(where.line, where_line);
	if (!strstr(error, expected))
		fail_msg("%s", error);
	/* What was not finished allows nothing. */
	verdict = judge(policy, "n1.example");
	assert_false(verdict.allowed);
	policy_free(policy);
}

static void too_many_specs_are_refused(void **state)
{
	static char names[POLICY_SPECS_MAX + 1][32], ports[POLICY_SPECS_MAX + 1][8];
	static struct line lines[POLICY_SPECS_MAX + 2];
	static const struct line star = {RULE_ALLOW, "*", NULL};
	struct policy *policy;

	(void)state;
	for (size_t i = 0; i < COUNT(names); i++) {
		snprintf(names[i], sizeof(names[i]), "n%zu.example", i);
		snprintf(ports[i], sizeof(ports[i]), "%zu", i + 1);
		lines[i] = (struct line){RULE_ALLOW, names[i], ports[i]};
	}
	policy = finished(lines, POLICY_SPECS_MAX, NULL);
	assert_int_equal(policy->networks[0].spec_count, POLICY_SPECS_MAX);
	assert_int_equal(judge(policy, "n63.example").specs, 1ULL << 63);
	policy_free(policy);
	assert_too_big(lines, POLICY_SPECS_MAX + 1, 99, "network web");

	for (size_t i = 0; i < COUNT(names); i++)
		lines[i].action = RULE_DENY;
	assert_too_big(lines, POLICY_SPECS_MAX + 1, POLICY_SPECS_MAX + 1, names[POLICY_SPECS_MAX]);
	lines[7] = star; /* seven denies overlap it: 128 combinations */
	assert_too_big(lines, 8, 99, "64 different port specifications");
	/* A result of more ranges than a specification holds. */
	lines[0].ports = "1+3+5+7+9+11+13+15+17+19+21+23+25+27+29+31";
	lines[1] = star;
	assert_too_big(lines, 2, 2, "16 port ranges");
}

static void audit_lifts_only_names_without_a_rule(void **state)
{
	static const struct line lines[] = {{RULE_ALLOW, "a.b.example", "443"},
					    {RULE_DENY, "evil.example", NULL},
					    {RULE_ALLOW, "p.example", "25"},
					    {RULE_DENY, "p.example", "25"}};
	struct policy *policy = finished(lines, COUNT(lines), NULL);
	struct network *network = &policy->networks[0];
	struct name_verdict verdict;

	(void)state;
	network->mode = MODE_AUDIT;
	verdict = judge(policy, "b.example");
	assert_true(verdict.allowed && verdict.audited);
	assert_false(verdict.parent);
	assert_int_equal(verdict.reason, REASON_NAME_NOT_ALLOWED);
	assert_null(verdict.rule);
	assert_int_equal(verdict.specs, 0);
	verdict = judge(policy, "a.b.example");
	assert_true(verdict.allowed && !verdict.audited && verdict.specs != 0);
	verdict = judge(policy, "evil.example");
	assert_true(!verdict.allowed && !verdict.audited && verdict.reason == REASON_DENIED_BY_RULE);
	verdict = judge(policy, "p.example");
	assert_true(!verdict.allowed && !verdict.audited && verdict.reason == REASON_DENIED_BY_RULE);
	verdict = judge(policy, "printer.local");
	assert_true(!verdict.allowed && !verdict.audited && verdict.reason == REASON_LOCAL_NAME);

	network->audit_until = NOW + 1;
	assert_true(judge(policy, "b.example").audited);
	network->audit_until = NOW;
	verdict = judge(policy, "b.example");
	assert_true(!verdict.allowed && !verdict.audited && verdict.parent);
	policy_free(policy);
}

static void knows_local_names(void **state)
{
	static const char *const local[] = {"db",
					    "localhost",
					    "a.localhost",
					    "printer.local",
					    "local",
					    "x.invalid",
					    "abc.onion",
					    "a.b.onion",
					    "host.docker.internal",
					    "docker.internal",
					    "a.b.docker.internal",
					    "resolver.arpa",
					    "_dns.resolver.arpa"};
	static const char *const global[] = {"a.internal",      "xdocker.internal", "local.example",  "onion.example",
					     "a.local.example", "xlocal.example",   "xresolver.arpa", "."};

	(void)state;
	for (size_t i = 0; i < COUNT(local); i++) {
		struct domain name = name_of(local[i]);

		if (!policy_name_is_local(&name))
			fail_msg("%s", local[i]);
	}
	for (size_t i = 0; i < COUNT(global); i++) {
		struct domain name = name_of(global[i]);

		if (policy_name_is_local(&name))
			fail_msg("%s", global[i]);
	}
}

static const char *const patterns[] = {"*",       "a.x", "*.a.x",  "**.a.x", "b.a.x", "*.b.a.x", "**.b.a.x",
				       "a.b.a.x", "b.x", "**.b.x", "*.b.x",  "c.b.x", "**.x",    "*.x"};
static const char *const port_texts[] = {NULL, "1", "2", "1+2", "3/tcp", "1-3/udp", "0-65535"};
static const char *const questions[] = {"a.x",   "b.a.x", "c.a.x",   "a.b.a.x", "c.b.a.x", "d.c.b.a.x", "b.x",
					"c.b.x", "d.b.x", "d.d.b.x", "c.x",     "d.c.x",   "a.y",       "y.x.a.y"};

/* Judge by trying every rule: slow and plain. */
static void expect(const struct network *network, const struct domain *name, bool *denied, struct ports *ports)
{
	struct ports taken = {0};

	*denied = false;
	*ports = (struct ports){0};
	for (size_t i = 0; i < network->rule_count; i++) {
		const struct rule *rule = network->rules[i];

		if (!pattern_matches(&rule->pattern, name))
			continue;
		if (rule->action == RULE_ALLOW)
			assert_true(ports_add(ports, &rule->ports));
		else if (!rule->ports_given)
			*denied = true;
		else
			assert_true(ports_add(&taken, &rule->ports));
	}
	assert_true(ports_subtract(ports, &taken));
}

static bool expect_parent(const struct network *network, const struct domain *name)
{
	for (size_t i = 0; i < network->rule_count; i++)
		if (network->rules[i]->action == RULE_ALLOW && pattern_is_above(&network->rules[i]->pattern, name))
			return true;
	return false;
}

static void index_agrees_with_trying_every_rule(void **state)
{
	(void)state;
	srand(3);
	for (int round = 0; round < 3000; round++) {
		struct line lines[8];
		size_t count = 1 + (size_t)rand() % COUNT(lines);
		struct policy *policy;
		bool any_full_deny = false;

		for (size_t i = 0; i < count; i++) {
			lines[i] = (struct line){rand() % 3 ? RULE_ALLOW : RULE_DENY, patterns[(size_t)rand() % COUNT(patterns)],
						 port_texts[(size_t)rand() % COUNT(port_texts)]};
			any_full_deny |= lines[i].action == RULE_DENY && (!lines[i].ports || strcmp(lines[i].ports, "0-65535") == 0);
		}
		policy = finished(lines, count, NULL);
		for (size_t i = 0; i < COUNT(questions); i++) {
			struct domain name = name_of(questions[i]);
			struct name_verdict verdict = policy_judge_name(&policy->networks[0], &name, NOW);
			struct ports expected, actual = reachable(&policy->networks[0], verdict.specs);
			bool denied;

			expect(&policy->networks[0], &name, &denied, &expected);
			assert_int_equal(verdict.allowed, !denied && !ports_is_empty(&expected));
			if (verdict.allowed)
				assert_true(ports_equal(&expected, &actual));
			else if (!any_full_deny)
				assert_int_equal(verdict.parent, expect_parent(&policy->networks[0], &name));
			assert_true(verdict.reason != REASON_NONE || verdict.allowed);
		}
		policy_free(policy);
	}
}

static void ten_thousand_rules(void **state)
{
	enum { RULES = 10000 };
	static char names[RULES][40];
	struct line *lines = calloc(RULES, sizeof(*lines));
	struct policy *policy;

	(void)state;
	assert_non_null(lines);
	for (size_t i = 0; i < RULES; i++) {
		snprintf(names[i], sizeof(names[i]), "%sh%zu.zone%zu.example", i % 3 == 1 ? "*." : i % 3 == 2 ? "**." : "", i, i % 100);
		lines[i] = (struct line){i % 50 == 49 ? RULE_DENY : RULE_ALLOW, names[i], i % 7 ? "443" : NULL};
	}
	policy = finished(lines, RULES, "80+443");
	for (unsigned int i = 0; i < RULES; i++) {
		char text[64];
		struct name_verdict verdict;

		snprintf(text, sizeof(text), "%sh%u.zone%u.example", i % 3 == 1 ? "www." : "", i, i % 100);
		verdict = judge(policy, text);
		if (i % 50 == 49)
			/* Denied with ports 443 only, or wholly; no allow rule has the same name. */
			assert_false(verdict.allowed);
		else
			assert_true(verdict.allowed && verdict.rule->source.line == i + 1);
		snprintf(text, sizeof(text), "h%u.zone%u.example", i, (i + 1) % 100);
		assert_false(judge(policy, text).allowed);
	}
	assert_true(judge(policy, "zone5.example").parent);
	assert_true(judge(policy, "a.b.c.d.e.f.g.h.i.j.k.l.h2.zone2.example").allowed);
	policy_free(policy);
	free(lines);
}

static void hostile_names_of_the_greatest_depth(void **state)
{
	static const struct line lines[] = {{RULE_ALLOW, "**.a.a.a", NULL}, {RULE_DENY, "*", "25"}};
	struct policy *policy = finished(lines, COUNT(lines), NULL);
	struct domain name = {.length = 255}, empty = {0};
	struct name_verdict verdict;

	(void)state;
	for (size_t i = 0; i < 254; i += 2) {
		name.wire[i] = 1;
		name.wire[i + 1] = 'a';
	}
	verdict = policy_judge_name(&policy->networks[0], &name, NOW);
	assert_true(verdict.allowed);
	policy->networks[0].mode = MODE_AUDIT;
	verdict = policy_judge_name(&policy->networks[0], &empty, NOW);
	assert_false(verdict.allowed);
	policy_free(policy);
}

static void deny_rules_reach_the_names_of_a_chain(void **state)
{
	static const struct line lines[] = {
		{RULE_ALLOW, "**.a.example", "443"}, {RULE_DENY, "bad.example", NULL}, {RULE_DENY, "x.a.example", NULL}};
	static const struct {
		const char *name, *chain[2], *by; /* by: who decides */
		enum reason reason;
		unsigned int line;
	} cases[] = {
		{"a.example", {NULL}, "a.example", REASON_NONE, 1},
		{"a.example", {"y.example", "z.example"}, "a.example", REASON_NONE, 1}, /* not allowed, but not denied */
		{"a.example", {"y.example", "bad.example"}, "bad.example", REASON_DENIED_BY_RULE, 2},
		{"a.example", {"bad.example", "y.example"}, "bad.example", REASON_DENIED_BY_RULE, 2},
		{"a.example", {"x.a.example", "bad.example"}, "x.a.example", REASON_DENIED_BY_RULE, 3},
		{"x.a.example", {"bad.example"}, "x.a.example", REASON_DENIED_BY_RULE, 3},
		{"y.example", {"a.example"}, "y.example", REASON_NAME_NOT_ALLOWED, 0}, /* the name that is asked for has to be allowed */
	};
	struct policy *policy = finished(lines, COUNT(lines), NULL);

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct domain name = name_of(cases[i].name), expected = name_of(cases[i].by), by;
		uint8_t wire[2 * DOMAIN_WIRE_MAX];
		struct chain chain = {wire, 0};
		struct name_verdict verdict;

		for (size_t j = 0; j < 2 && cases[i].chain[j]; j++) {
			struct domain link = name_of(cases[i].chain[j]);

			memcpy(wire + chain.length, link.wire, link.length);
			chain.length += link.length;
		}
		verdict = policy_judge_chain(&policy->networks[0], &name, &chain, NOW, &by);
		assert_int_equal(verdict.reason, cases[i].reason);
		assert_int_equal(verdict.allowed, cases[i].reason == REASON_NONE);
		assert_int_equal(verdict.rule ? verdict.rule->source.line : 0, cases[i].line);
		assert_int_equal(verdict.specs != 0, verdict.allowed);
		assert_true(domain_equal(&by, &expected));
	}
	policy_free(policy);
}

/* Addresses */

struct address_case {
	const char *address;
	uint8_t protocol;
	uint16_t port;
	enum reason reason;
	unsigned int rule;
};

static void check_addresses(const struct policy *policy, const struct address_case *cases, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct address address = address_of(cases[i].address);
		struct address_verdict verdict =
			policy_judge_address(policy, &policy->networks[0], &address, cases[i].protocol, cases[i].port);

		if (verdict.reason != cases[i].reason || (verdict.rule ? verdict.rule->source.line : 0) != cases[i].rule)
			fail_msg("%s:%u: %s, rule %u", cases[i].address, cases[i].port, reason_name(verdict.reason),
				 verdict.rule ? verdict.rule->source.line : 0);
		assert_int_equal(verdict.allowed, cases[i].reason == REASON_NONE);
	}
}

static void judges_addresses(void **state)
{
	static const struct line lines[] = {
		{RULE_ALLOW, "0.0.0.0/0", "443"},          /* 1 */
		{RULE_ALLOW, "10.0.0.5", "5432/tcp"},      /* 2 */
		{RULE_ALLOW, "10.1.0.0/16", NULL},         /* 3 */
		{RULE_DENY, "10.1.2.0/24", NULL},          /* 4 */
		{RULE_DENY, "8.8.8.8", "443/udp"},         /* 5 */
		{RULE_ALLOW, "8.8.8.0/24", "53"},          /* 6 */
		{RULE_ALLOW, "10.1.2.3", NULL},            /* 7 */
		{RULE_ALLOW, "::/0", NULL},                /* 8 */
		{RULE_ALLOW, "fd12::/16", "80"},           /* 9 */
		{RULE_ALLOW, "9.9.9.0/29", "22"},          /* 10: half of the uplink's subnet */
		{RULE_ALLOW, "9.9.8.0/22", "25"},          /* 11: wider than it */
		{RULE_ALLOW, "10.9.0.0/16", NULL},         /* 12: private, and wider than an own prefix */
		{RULE_ALLOW, "::ffff:10.0.0.0/104", "80"}, /* 13 */
	};
	static const struct prefix none = {0};
	struct prefix own[] = {prefix_from("9.9.9.0/28"), prefix_from("9.9.9.2"), prefix_from("10.9.1.0/24"), prefix_from("2a00:1::/64"),
			       none};
	static const struct address_case cases[] = {
		{"1.1.1.1", IPPROTO_TCP, 443, REASON_NONE, 1},
		{"1.1.1.1", IPPROTO_UDP, 443, REASON_NONE, 1},
		{"1.1.1.1", IPPROTO_TCP, 80, REASON_PORT_NOT_ALLOWED, 1},
		{"1.1.1.1", IPPROTO_ICMP, 0, REASON_PROTOCOL_NOT_ALLOWED, 1},
		{"8.8.8.8", IPPROTO_TCP, 443, REASON_NONE, 1},
		{"8.8.8.8", IPPROTO_UDP, 443, REASON_DENIED_BY_RULE, 5},
		{"8.8.8.8", IPPROTO_UDP, 53, REASON_NONE, 6},
		{"8.8.8.8", IPPROTO_TCP, 22, REASON_PORT_NOT_ALLOWED, 6},
		{"10.0.0.5", IPPROTO_TCP, 5432, REASON_NONE, 2},
		{"10.0.0.5", IPPROTO_UDP, 5432, REASON_PORT_NOT_ALLOWED, 2},
		{"10.0.0.5", IPPROTO_TCP, 443, REASON_PORT_NOT_ALLOWED, 2}, /* 0.0.0.0/0 does not reach it */
		{"10.0.0.6", IPPROTO_TCP, 443, REASON_SPECIAL_ADDRESS, 0},
		{"127.0.0.1", IPPROTO_TCP, 443, REASON_SPECIAL_ADDRESS, 0},
		{"169.254.169.254", IPPROTO_TCP, 443, REASON_SPECIAL_ADDRESS, 0},
		{"255.255.255.255", IPPROTO_UDP, 443, REASON_SPECIAL_ADDRESS, 0},
		{"10.1.0.1", IPPROTO_TCP, 1, REASON_NONE, 3},
		{"10.1.2.3", IPPROTO_TCP, 1, REASON_DENIED_BY_RULE, 4},
		{"10.1.2.3", IPPROTO_ICMP, 0, REASON_DENIED_BY_RULE, 4},
		{"2606:4700::1", IPPROTO_TCP, 1, REASON_NONE, 8},
		{"fd12::1", IPPROTO_TCP, 80, REASON_NONE, 9},
		{"fd13::1", IPPROTO_TCP, 80, REASON_SPECIAL_ADDRESS, 0},
		{"::ffff:8.8.8.8", IPPROTO_TCP, 80, REASON_SPECIAL_ADDRESS, 0},
		{"::ffff:10.0.0.9", IPPROTO_TCP, 80, REASON_NONE, 13},
		{"64:ff9b::10.0.0.1", IPPROTO_TCP, 80, REASON_SPECIAL_ADDRESS, 0},
		{"64:ff9b::8.8.8.8", IPPROTO_TCP, 80, REASON_NONE, 8},
		{"2a00:1::1", IPPROTO_TCP, 80, REASON_SPECIAL_ADDRESS, 0},
		{"2a00:1:0:1::1", IPPROTO_TCP, 80, REASON_NONE, 8},
		{"9.9.9.1", IPPROTO_TCP, 443, REASON_PORT_NOT_ALLOWED, 10},
		{"9.9.9.1", IPPROTO_TCP, 22, REASON_NONE, 10},
		{"9.9.9.2", IPPROTO_TCP, 22, REASON_SPECIAL_ADDRESS, 0}, /* the gateway itself is not named */
		{"9.9.9.9", IPPROTO_TCP, 25, REASON_SPECIAL_ADDRESS, 0},
		{"9.9.9.16", IPPROTO_TCP, 25, REASON_NONE, 11},
		{"10.9.0.1", IPPROTO_TCP, 1, REASON_NONE, 12},
		{"10.9.1.1", IPPROTO_TCP, 1, REASON_SPECIAL_ADDRESS, 0},
	};
	struct policy *policy = finished(lines, COUNT(lines), NULL);
	struct address_case nothing = {"1.1.1.1", IPPROTO_TCP, 443, REASON_ADDRESS_NOT_ALLOWED, 0};

	(void)state;
	assert_int_equal(policy_set_own(policy, own, COUNT(own)), 0);
	check_addresses(policy, cases, COUNT(cases));
	policy_free(policy);
	policy = finished(lines, 0, NULL);
	check_addresses(policy, &nothing, 1);
	policy_free(policy);
}

/* The same list whatever its order is, and what is there twice: a reload compares it. */
static void own_prefixes_are_sorted_and_there_once(void **state)
{
	const struct prefix own[] = {prefix_from("198.51.100.1"), prefix_from("192.0.2.0/24"), prefix_from("198.51.100.1"),
				     prefix_from("192.0.2.7"), prefix_from("2001:db8::/64")};
	const struct prefix again[] = {own[4], own[3], own[0], own[1]};
	struct policy *policy = finished(NULL, 0, NULL), *other = finished(NULL, 0, NULL);
	struct address inside = address_of("192.0.2.7"), beside = address_of("192.0.2.8"), outside = address_of("192.0.3.0");

	(void)state;
	assert_int_equal(policy_set_own(policy, own, COUNT(own)), 0);
	assert_int_equal(policy_set_own(other, again, COUNT(again)), 0);
	assert_int_equal(policy->own_count, 4);
	assert_int_equal(other->own_count, 4);
	for (size_t i = 0; i < 4; i++)
		assert_true(prefix_equal(&policy->own[i], &other->own[i]));
	assert_int_equal(policy_own(policy, &inside)->length, 32);
	assert_int_equal(policy_own(policy, &beside)->length, 24);
	assert_null(policy_own(policy, &outside));
	policy_free(policy);
	policy_free(other);
}

static struct policy *networks_of(const char *const *names, size_t count)
{
	struct policy *policy = policy_new();
	struct source where;
	char error[512];

	assert_non_null(policy);
	policy->networks = calloc(count, sizeof(*policy->networks));
	assert_non_null(policy->networks);
	policy->network_count = count;
	for (size_t i = 0; i < count; i++) {
		char subnet[32];

		strcpy(policy->networks[i].name, names[i]);
		snprintf(subnet, sizeof(subnet), "10.%c.0.0/16", names[i][0] - 'a' + '0');
		policy->networks[i].subnet4 = prefix_from(subnet);
		policy->networks[i].id = (uint16_t)i;
	}
	assert_int_equal(policy_finish(policy, error, sizeof(error), &where), 0);
	return policy;
}

/* Over reloads ids are no longer places. */
static void networks_are_found_by_id_and_by_source(void **state)
{
	static const char *const before[] = {"a", "b", "c", "d"}, *const after[] = {"e", "d", "b", "f"};
	static const uint16_t ids[] = {4, 3, 1, 5};
	struct policy *old = networks_of(before, 4), *new = networks_of(after, 4);
	struct address c = address_of("10.2.0.1"), d = address_of("10.3.255.255");

	(void)state;
	policy_inherit_ids(old, NULL);
	policy_inherit_ids(new, old);
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(new->networks[i].id, ids[i]);
		assert_ptr_equal(policy_network(new, ids[i]), &new->networks[i]);
	}
	assert_null(policy_network(new, 0));
	assert_null(policy_network(new, 2));
	assert_null(policy_network(new, 6));
	assert_null(policy_network(new, POLICY_NETWORK_NONE));
	assert_ptr_equal(policy_network_by_source(new, &d), &new->networks[1]);
	assert_null(policy_network_by_source(new, &c));
	assert_ptr_equal(policy_network_by_source(old, &c), &old->networks[2]);
	policy_free(old);
	policy_free(new);
}

/* What the kernel does with the sets: deny sets first, then allow sets. */
static bool kernel_allows(const struct address_set *sets, size_t count, const struct address *address, uint8_t protocol, uint16_t port)
{
	for (size_t i = 0; i < count; i++) {
		if (sets[i].family != address->family || !ports_contains(&sets[i].ports, protocol, port))
			continue;
		for (size_t j = 0; j < sets[i].range_count; j++)
			if (address_compare(&sets[i].ranges[j].first, address) <= 0 &&
			    address_compare(address, &sets[i].ranges[j].last) <= 0)
				return sets[i].action == RULE_ALLOW;
	}
	return false;
}

static void check_sets_are_well_formed(const struct address_set *sets, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		assert_true(sets[i].range_count > 0);
		assert_true(i == 0 || sets[i].action >= sets[i - 1].action || sets[i].action == sets[0].action ||
			    sets[i].action == RULE_ALLOW);
		for (size_t j = 0; j < i; j++)
			assert_false(sets[i].action == sets[j].action && sets[i].family == sets[j].family &&
				     ports_equal(&sets[i].ports, &sets[j].ports));
		for (size_t j = 0; j < sets[i].range_count; j++) {
			const struct address_range *range = &sets[i].ranges[j];

			assert_int_equal(range->first.family, sets[i].family);
			assert_true(address_compare(&range->first, &range->last) <= 0);
			assert_true(j == 0 || address_compare(&range[-1].last, &range->first) < 0);
		}
	}
}

static const char *const rule_prefixes[] = {
	"0.0.0.0/0",          "8.0.0.0/6", "10.0.0.0/8", "10.0.0.0/9",    "10.1.0.0/16", "10.1.2.3",        "9.9.9.0/28",
	"9.9.9.8/29",         "9.9.9.9",   "8.8.8.8",    "128.0.0.0/1",   "224.0.0.0/3", "255.255.255.255", "::/0",
	"2000::/3",           "fc00::/6",  "fd00::/8",   "fd12::/64",     "2a00:1::/64", "2a00::/16",       "64:ff9b::/96",
	"64:ff9b::a00:0/104", "2002::/16", "ff02::1",    "::ffff:0:0/96", "2001::/16",   "2001:db8::/32",
};
static const char *const probes[] = {
	"0.0.0.0",
	"1.1.1.1",
	"8.8.8.8",
	"9.9.9.0",
	"9.9.9.2",
	"9.9.9.8",
	"9.9.9.9",
	"9.9.9.15",
	"9.9.9.16",
	"10.0.0.0",
	"10.1.2.3",
	"10.1.255.255",
	"10.128.0.0",
	"11.255.255.255",
	"127.255.255.255",
	"128.0.0.0",
	"192.168.1.1",
	"223.255.255.255",
	"224.0.0.0",
	"255.255.255.254",
	"255.255.255.255",
	"::",
	"::1",
	"::ffff:1.1.1.1",
	"64:ff9b::1.1.1.1",
	"64:ff9b::10.1.1.1",
	"2001::1",
	"2001:db8::1",
	"2001:4860::1",
	"2002:a00:1::1",
	"2002:808:808::",
	"2a00:1::1",
	"2a00:1:0:1::",
	"2606::1",
	"fc00::1",
	"fd12::1",
	"fe80::1",
	"ff02::1",
	"fbff::1",
	"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
};

/* The kernel's sets and `sluice explain` must not differ. */
static void sets_agree_with_judging(void **state)
{
	static const char *const port_choice[] = {NULL, "443", "53/udp", "443/tcp+53"};
	struct prefix own[] = {prefix_from("9.9.9.0/28"), prefix_from("9.9.9.2"), prefix_from("10.1.0.0/20"), prefix_from("2a00:1::/64")};

	(void)state;
	srand(4);
	for (int round = 0; round < 2000; round++) {
		struct line lines[6];
		size_t count = 1 + (size_t)rand() % COUNT(lines), set_count;
		struct policy *policy;
		struct address_set *sets;

		for (size_t i = 0; i < count; i++)
			lines[i] = (struct line){rand() % 4 ? RULE_ALLOW : RULE_DENY, rule_prefixes[(size_t)rand() % COUNT(rule_prefixes)],
						 port_choice[(size_t)rand() % COUNT(port_choice)]};
		policy = finished(lines, count, NULL);
		assert_int_equal(policy_set_own(policy, own, COUNT(own)), 0);
		assert_int_equal(policy_address_sets(policy, &policy->networks[0], &sets, &set_count), 0);
		check_sets_are_well_formed(sets, set_count);
		for (size_t i = 0; i < COUNT(probes); i++) {
			struct address address = address_of(probes[i]);

			for (int flow = 0; flow < 4; flow++) {
				uint8_t protocol = flow & 1 ? IPPROTO_TCP : IPPROTO_UDP;
				uint16_t port = flow & 2 ? 443 : 53;
				bool judged = policy_judge_address(policy, &policy->networks[0], &address, protocol, port).allowed;

				if (kernel_allows(sets, set_count, &address, protocol, port) != judged)
					fail_msg("%s:%u: judged %d", probes[i], port, judged);
			}
		}
		policy_address_sets_free(sets, set_count);
		policy_free(policy);
	}
}

static void deny_sets_come_first_and_ranges_are_merged(void **state)
{
	static const struct line lines[] = {
		{RULE_ALLOW, "1.0.0.0/24", "443"}, {RULE_ALLOW, "1.0.1.0/24", "443"}, {RULE_ALLOW, "1.0.0.128/25", "443"},
		{RULE_DENY, "1.0.0.7", NULL},      {RULE_DENY, "10.0.0.0/8", NULL},   {RULE_ALLOW, "2a00::/16", "443"},
		{RULE_ALLOW, "a.example", NULL},
	};
	struct policy *policy = finished(lines, COUNT(lines), "80");
	struct address_set *sets;
	size_t count;

	(void)state;
	assert_int_equal(policy_address_sets(policy, &policy->networks[0], &sets, &count), 0);
	assert_int_equal(count, 3);
	assert_int_equal(sets[0].action, RULE_DENY);
	assert_true(ports_is_all(&sets[0].ports));
	assert_int_equal(sets[0].range_count, 2);
	assert_int_equal(sets[1].action, RULE_ALLOW);
	assert_int_equal(sets[1].range_count, 1);
	assert_int_equal(sets[2].family, AF_INET6);
	policy_address_sets_free(sets, count);
	policy_free(policy);

	policy = finished(lines, 0, NULL);
	assert_int_equal(policy_address_sets(policy, &policy->networks[0], &sets, &count), 0);
	assert_int_equal(count, 0);
	policy_address_sets_free(sets, count);
	policy_free(policy);
}

/* Upstreams, ids, the rest */

static struct upstream_group *add_upstream(struct policy *policy, const char *name, const char *match, const char *private)
{
	struct upstream_group *grown = realloc(policy->upstreams, (policy->upstream_count + 1) * sizeof(*grown)), *group;
	const char *warning;

	assert_non_null(grown);
	policy->upstreams = grown;
	group = &grown[policy->upstream_count++];
	*group = (struct upstream_group){0};
	strcpy(group->name, name);
	if (match) {
		group->matches = calloc(1, sizeof(*group->matches));
		assert_non_null(group->matches);
		assert_null(pattern_parse(match, &group->matches[0], &warning));
		group->match_count = 1;
	}
	if (private) {
		group->privates = calloc(1, sizeof(*group->privates));
		assert_non_null(group->privates);
		group->privates[0] = prefix_from(private);
		group->private_count = 1;
	}
	return group;
}

static struct policy *with_upstreams(void)
{
	struct policy *policy = unfinished(NULL, 0, NULL);
	struct source where;
	char error[64];

	add_upstream(policy, "corp", "**.corp.example", "10.0.0.0/8");
	add_upstream(policy, "lab", "*.lab.corp.example", "fd12::/16");
	add_upstream(policy, "one", "x.lab.corp.example", NULL);
	assert_int_equal(policy_finish(policy, error, sizeof(error), &where), 0);
	return policy;
}

static void chooses_the_upstream_with_the_longest_match(void **state)
{
	static const struct {
		const char *name, *group;
	} table[] = {{"corp.example", "corp"},      {"a.corp.example", "corp"},    {"lab.corp.example", "corp"},
		     {"a.lab.corp.example", "lab"}, {"x.lab.corp.example", "one"}, {"y.x.lab.corp.example", "lab"},
		     {"example.com", ""},           {"xcorp.example", ""}};
	struct policy *policy = with_upstreams();

	(void)state;
	assert_int_equal(policy->upstream_count, 4);
	assert_string_equal(policy->upstreams[3].name, "");
	for (size_t i = 0; i < COUNT(table); i++) {
		struct domain name = name_of(table[i].name);

		assert_string_equal(policy_upstream_for(policy, &name)->name, table[i].group);
	}
	policy_free(policy);
}

static void filters_rebinding(void **state)
{
	static const struct {
		const char *name, *address;
		bool shown;
	} table[] = {
		{"a.example", "1.1.1.1", true},
		{"a.example", "10.0.0.1", false},
		{"a.corp.example", "10.0.0.1", true},
		{"a.corp.example", "192.168.0.1", false},
		{"a.lab.corp.example", "10.0.0.1", false},
		{"a.lab.corp.example", "fd12::1", true},
		{"a.example", "9.9.9.3", false},
		{"a.example", "172.16.5.5", true},
		{"a.example", "::ffff:172.16.5.5", false},
		{"a.corp.example", "64:ff9b::10.0.0.1", false},
		{"a.example", "::ffff:1.1.1.1", false},
		{"a.example", "2606::1", true},
		{"a.example", "64:ff9b::1.1.1.1", true},
		{"a.example", "64:ff9b::9.9.9.3", false},
		{"a.example", "64:ff9b::9.9.9.16", true},
		{"a.example", "2002:909:903::1", false},
		{"a.example", "2002:909:910::1", true},
	};
	struct policy *policy = with_upstreams();
	struct prefix own[] = {prefix_from("9.9.9.0/28")};
	struct address none = {0};

	(void)state;
	policy->networks[0].privates = calloc(1, sizeof(struct prefix));
	assert_non_null(policy->networks[0].privates);
	policy->networks[0].privates[0] = prefix_from("172.16.5.0/24");
	policy->networks[0].private_count = 1;
	assert_int_equal(policy_set_own(policy, own, 1), 0);
	for (size_t i = 0; i < COUNT(table); i++) {
		struct domain name = name_of(table[i].name);
		struct address address = address_of(table[i].address);

		if (policy_answer_may_show(policy, &policy->networks[0], &name, &address) != table[i].shown)
			fail_msg("%s for %s", table[i].address, table[i].name);
		assert_false(policy_answer_may_show(policy, &policy->networks[0], &name, &none));
	}
	policy_free(policy);
}

static struct policy *with_networks(const char *const *names, size_t count, const struct policy *old)
{
	struct policy *policy = policy_new();

	assert_non_null(policy);
	policy->networks = calloc(count, sizeof(*policy->networks));
	assert_non_null(policy->networks);
	policy->network_count = count;
	for (size_t i = 0; i < count; i++)
		strcpy(policy->networks[i].name, names[i]);
	policy_inherit_ids(policy, old);
	return policy;
}

static void ids_survive_and_are_not_reused(void **state)
{
	struct policy *first = with_networks((const char *const[]){"a", "b", "c"}, 3, NULL);
	struct policy *second = with_networks((const char *const[]){"c", "a"}, 2, first);
	struct policy *third = with_networks((const char *const[]){"d", "a", "b"}, 3, second);

	(void)state;
	assert_int_equal(policy_network_by_name(first, "c")->id, 2);
	assert_int_equal(policy_network_by_name(second, "c")->id, 2);
	assert_int_equal(policy_network_by_name(second, "a")->id, 0);
	assert_int_equal(policy_network_by_name(third, "a")->id, 0);
	/* c was removed and b came back: neither d nor b gets an id that leases of c or of the old b may have. */
	assert_int_equal(policy_network_by_name(third, "d")->id, 3);
	assert_int_equal(policy_network_by_name(third, "b")->id, 4);
	assert_ptr_equal(policy_network(third, 4), policy_network_by_name(third, "b"));
	assert_null(policy_network(third, 2));
	assert_null(policy_network(third, POLICY_NETWORK_NONE));
	assert_null(policy_network_by_name(third, "x"));
	policy_free(first);
	policy_free(second);
	policy_free(third);
}

static void ids_start_again_when_all_were_given_out(void **state)
{
	struct policy *old = with_networks((const char *const[]){"a", "b"}, 2, NULL), *policy;

	(void)state;
	old->next_id = POLICY_NETWORK_NONE;
	policy = with_networks((const char *const[]){"b", "c", "d"}, 3, old);
	assert_int_equal(policy_network_by_name(policy, "b")->id, 1);
	assert_int_equal(policy_network_by_name(policy, "c")->id, 2);
	assert_int_equal(policy_network_by_name(policy, "d")->id, 3);
	policy_free(old);
	policy_free(policy);
}

static void keeps_equal_texts_once(void **state)
{
	struct policy *policy = policy_new();
	char text[] = "sluice.conf";
	const char *kept;

	(void)state;
	assert_non_null(policy);
	kept = policy_string(policy, text);
	assert_string_equal(kept, text);
	assert_ptr_not_equal(kept, text);
	assert_ptr_equal(policy_string(policy, "sluice.conf"), kept);
	assert_string_equal(policy_string(policy, ""), "");
	policy_free(policy);
	policy_free(NULL);
}

static void every_reason_has_a_name_of_its_own(void **state)
{
	(void)state;
	for (int i = 0; i < REASON_COUNT; i++) {
		assert_non_null(reason_name((enum reason)i));
		for (int j = 0; j < i; j++)
			assert_string_not_equal(reason_name((enum reason)i), reason_name((enum reason)j));
	}
	assert_string_equal(reason_name(REASON_COUNT), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(judges_names),
		cmocka_unit_test(star_matches_all_but_makes_no_parents),
		cmocka_unit_test(deny_rules_ignore_default_ports),
		cmocka_unit_test(port_denies_are_taken_out),
		cmocka_unit_test(specs_are_the_closure_without_duplicates),
		cmocka_unit_test(too_many_specs_are_refused),
		cmocka_unit_test(audit_lifts_only_names_without_a_rule),
		cmocka_unit_test(knows_local_names),
		cmocka_unit_test(index_agrees_with_trying_every_rule),
		cmocka_unit_test(ten_thousand_rules),
		cmocka_unit_test(hostile_names_of_the_greatest_depth),
		cmocka_unit_test(deny_rules_reach_the_names_of_a_chain),
		cmocka_unit_test(judges_addresses),
		cmocka_unit_test(sets_agree_with_judging),
		cmocka_unit_test(deny_sets_come_first_and_ranges_are_merged),
		cmocka_unit_test(chooses_the_upstream_with_the_longest_match),
		cmocka_unit_test(filters_rebinding),
		cmocka_unit_test(ids_survive_and_are_not_reused),
		cmocka_unit_test(ids_start_again_when_all_were_given_out),
		cmocka_unit_test(keeps_equal_texts_once),
		cmocka_unit_test(every_reason_has_a_name_of_its_own),
		cmocka_unit_test(own_prefixes_are_sorted_and_there_once),
		cmocka_unit_test(networks_are_found_by_id_and_by_source),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
