/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "resolver/judge.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define NOW          1000000

/* One network that allows and denies a handful of names; `audit` is its twin in audit mode. */
static const char *const allowed[] = {
	"a.example",         "*.wide.example",         "alias.example",       "web.example:443",
	"deep.down.example", "5.2.0.192.in-addr.arpa", "inside.corp.example", "_443._https.a.example",
};
static const char *const denied[] = {"bad.example", "evil.wide.example", "hidden.example"};

static struct policy *policy;
static const struct network *network, *audit, *verifying, *watching;

static struct rule rule_of(enum rule_action action, const char *text)
{
	struct rule rule = {.action = action, .kind = RULE_NAME, .ports = ports_all(), .text = text, .source = {"test", 1}};
	char name[128];
	const char *warning, *colon = strchr(text, ':');

	snprintf(name, sizeof(name), "%.*s", (int)(colon ? colon - text : (long)strlen(text)), text);
	assert_null(pattern_parse(name, &rule.pattern, &warning));
	if (colon) {
		assert_null(ports_parse(colon + 1, &rule.ports));
		rule.ports_given = true;
	}
	return rule;
}

static void add_rule(struct network *out, enum rule_action action, const char *text)
{
	struct rule rule = rule_of(action, text);

	out->rules[out->rule_count] = policy_rule(policy, &rule);
	assert_non_null(out->rules[out->rule_count++]);
}

static void make_network(struct network *out, const char *name, enum network_mode mode)
{
	strcpy(out->name, name);
	out->mode = mode;
	out->lifetimes = (struct lifetimes){.min_ttl = 60, .grace = 60, .max_age = 3600, .max_addresses = 4};
	out->default_ports = ports_all();
	out->rules = calloc(COUNT(allowed) + COUNT(denied), sizeof(*out->rules));
	for (size_t i = 0; i < COUNT(allowed); i++)
		add_rule(out, RULE_ALLOW, allowed[i]);
	for (size_t i = 0; i < COUNT(denied); i++)
		add_rule(out, RULE_DENY, denied[i]);
}

/* The upstream group "corp" serves **.corp.example, which may point into 10.0.0.0/8. */
static void add_corp(void)
{
	struct upstream_group *group;
	const char *warning;

	policy->upstreams = realloc(policy->upstreams, (policy->upstream_count + 1) * sizeof(*policy->upstreams));
	group = &policy->upstreams[policy->upstream_count++];
	*group = (struct upstream_group){.name = "corp", .match_count = 1, .private_count = 1};
	group->matches = calloc(1, sizeof(*group->matches));
	group->privates = calloc(1, sizeof(*group->privates));
	assert_null(pattern_parse("**.corp.example", group->matches, &warning));
	assert_true(prefix_parse("10.0.0.0/8", group->privates, NULL));
}

static int make_policy(void **state)
{
	char error[256];
	struct source where;

	(void)state;
	policy = policy_new();
	policy->networks = calloc(4, sizeof(*policy->networks));
	policy->network_count = 4;
	make_network(&policy->networks[0], "enforced", MODE_ENFORCE);
	make_network(&policy->networks[1], "audited", MODE_AUDIT);
	make_network(&policy->networks[2], "verifying", MODE_ENFORCE);
	policy->networks[2].verify = VERIFY_ENFORCE;
	make_network(&policy->networks[3], "watching", MODE_AUDIT);
	policy->networks[3].verify = VERIFY_LOG;
	add_corp();
	policy_inherit_ids(policy, NULL);
	assert_int_equal(policy_finish(policy, error, sizeof(error), &where), 0);
	network = policy_network_by_name(policy, "enforced");
	audit = policy_network_by_name(policy, "audited");
	verifying = policy_network_by_name(policy, "verifying");
	watching = policy_network_by_name(policy, "watching");
	return 0;
}

static int free_policy(void **state)
{
	(void)state;
	policy_free(policy);
	return 0;
}

static struct domain name_of(const char *text)
{
	struct domain domain = {.length = 1};

	if (strcmp(text, ".") != 0)
		assert_null(domain_parse(text, &domain));
	return domain;
}

static struct question question_of(const char *name, uint16_t type)
{
	struct question question = {.type = type, .class = CLASS_IN, .name = name_of(name), .udp_size = 512};

	memcpy(question.name_as_asked, question.name.wire, question.name.length);
	return question;
}

/* Questions */

static const struct {
	const char *name;
	uint16_t type;
	bool ipv4, ipv6;
	enum question_step step;
	bool denied;
	enum reason reason;
} questions[] = {
	{"a.example", TYPE_A, true, true, QUESTION_LOOK_UP, false, REASON_NONE},
	{"a.example", TYPE_AAAA, true, true, QUESTION_LOOK_UP, false, REASON_NONE},
	{"a.example", TYPE_AAAA, true, false, QUESTION_NODATA, false, REASON_NONE},
	{"a.example", TYPE_A, false, true, QUESTION_NODATA, false, REASON_NONE},
	{"a.example", TYPE_HTTPS, false, false, QUESTION_LOOK_UP, false, REASON_NONE},
	{"a.example", 43, true, true, QUESTION_LOOK_UP, false, REASON_NONE},
	{"a.example", TYPE_PTR, true, true, QUESTION_LOOK_UP, false, REASON_NONE},
	{"a.example", TYPE_ANY, true, true, QUESTION_ANY, false, REASON_NONE},
	{"x.wide.example", TYPE_A, true, true, QUESTION_LOOK_UP, false, REASON_NONE},
	{"other.example", TYPE_A, true, true, QUESTION_DENY, true, REASON_NAME_NOT_ALLOWED},
	{"other.example", TYPE_ANY, true, true, QUESTION_DENY, true, REASON_NAME_NOT_ALLOWED},
	{"other.example", TYPE_AAAA, true, false, QUESTION_DENY, true, REASON_NAME_NOT_ALLOWED},
	{"x.a.example", TYPE_A, true, true, QUESTION_DENY, true, REASON_NAME_NOT_ALLOWED},
	{"bad.example", TYPE_A, true, true, QUESTION_DENY, true, REASON_DENIED_BY_RULE},
	{"evil.wide.example", TYPE_A, true, true, QUESTION_NODATA, true, REASON_DENIED_BY_RULE},
	{"down.example", TYPE_A, true, true, QUESTION_NODATA, true, REASON_NAME_NOT_ALLOWED},
	{"db", TYPE_A, true, true, QUESTION_DENY, true, REASON_LOCAL_NAME},
	{"printer.local", TYPE_A, true, true, QUESTION_DENY, true, REASON_LOCAL_NAME},
	{"1.2.0.192.in-addr.arpa", TYPE_PTR, true, true, QUESTION_PTR, false, REASON_NAME_NOT_ALLOWED},
	{"5.2.0.192.in-addr.arpa", TYPE_PTR, true, true, QUESTION_LOOK_UP, false, REASON_NONE},
	{"7.0.192.in-addr.arpa", TYPE_PTR, true, true, QUESTION_DENY, true, REASON_NAME_NOT_ALLOWED},
	{"1.2.0.192.in-addr.arpa", TYPE_TXT, true, true, QUESTION_DENY, true, REASON_NAME_NOT_ALLOWED},
	{"secret.1.2.0.192.in-addr.arpa", TYPE_PTR, true, true, QUESTION_DENY, true, REASON_NAME_NOT_ALLOWED},
};

static void questions_are_judged(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(questions); i++) {
		struct question question = question_of(questions[i].name, questions[i].type);
		struct families families = {questions[i].ipv4, questions[i].ipv6};
		struct question_verdict verdict = judge_question(network, &question, families, NOW);

		if (verdict.step != questions[i].step || verdict.denied != questions[i].denied || verdict.reason != questions[i].reason)
			fail_msg("%s type %u: step %d denied %d reason %s", questions[i].name, questions[i].type, verdict.step,
				 verdict.denied, reason_name(verdict.reason));
	}
}

static void a_denied_question_names_its_rule(void **state)
{
	struct question question = question_of("bad.example", TYPE_A);
	struct question_verdict verdict = judge_question(network, &question, (struct families){true, true}, NOW);

	(void)state;
	assert_non_null(verdict.rule);
	assert_string_equal(verdict.rule->text, "bad.example");
}

static void audit_lifts_only_missing_rules(void **state)
{
	static const struct {
		const char *name;
		uint16_t type;
		enum question_step step;
		bool audited;
	} cases[] = {
		{"other.example", TYPE_A, QUESTION_LOOK_UP, true},
		{"a.example", TYPE_A, QUESTION_LOOK_UP, false},
		{"bad.example", TYPE_A, QUESTION_DENY, false},
		{"db", TYPE_A, QUESTION_DENY, false},
		{"1.2.0.192.in-addr.arpa", TYPE_PTR, QUESTION_PTR, false},
		{"5.2.0.192.in-addr.arpa", TYPE_PTR, QUESTION_LOOK_UP, false},
		{"1.2.0.192.in-addr.arpa", TYPE_A, QUESTION_DENY, false},
		{"9.0.192.in-addr.arpa", TYPE_PTR, QUESTION_DENY, false},
		{"in-addr.arpa", TYPE_SOA, QUESTION_DENY, false},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct question question = question_of(cases[i].name, cases[i].type);
		struct question_verdict verdict = judge_question(audit, &question, (struct families){true, true}, NOW);

		if (verdict.step != cases[i].step || verdict.name.audited != cases[i].audited)
			fail_msg("%s: step %d audited %d", cases[i].name, verdict.step, verdict.name.audited);
		assert_int_equal(verdict.denied, verdict.step == QUESTION_DENY);
	}
}

static void a_wildcard_stands_for_no_more_than_its_limits(void **state)
{
	static const struct {
		uint32_t octets, labels;
		const char *name;
		bool refused;
	} cases[] = {
		{0, 0, "a.b.c.d.e.f.g.h.wide.example", false},
		{3, 0, "abc.wide.example", false},
		{3, 0, "a.b.c.wide.example", false},
		{3, 0, "a.bcd.wide.example", true},
		{0, 2, "a.b.wide.example", false},
		{0, 2, "a.b.c.wide.example", true},
		{3, 2, "a.b.c.wide.example", true},
		{1, 1, "deep.down.example", false}, /* a rule has the whole name */
		{1, 1, "bad.example", true},
	};
	struct network limited = *network, auditing = *audit;

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct question question = question_of(cases[i].name, TYPE_A);
		struct question_verdict verdict;

		limited.wildcards = auditing.wildcards = (struct wildcard_limits){.octets = cases[i].octets, .labels = cases[i].labels};
		verdict = judge_question(&limited, &question, (struct families){true, true}, NOW);
		if (verdict.denied != cases[i].refused || (verdict.step == QUESTION_DENY) != cases[i].refused)
			fail_msg("%s: step %d reason %s", cases[i].name, verdict.step, reason_name(verdict.reason));
		if (!cases[i].refused || verdict.reason == REASON_DENIED_BY_RULE)
			continue;
		assert_int_equal(verdict.reason, REASON_NAME_TOO_LONG);
		assert_string_equal(verdict.rule->text, "*.wide.example");
		verdict = judge_question(&auditing, &question, (struct families){true, true}, NOW);
		assert_int_equal(verdict.step, QUESTION_LOOK_UP);
	}
}

static void pointer_names(void **state)
{
	static const struct {
		const char *name, *address; /* NULL: none */
	} cases[] = {
		{"1.2.0.192.in-addr.arpa", "192.0.2.1"},
		{"255.255.255.255.in-addr.arpa", "255.255.255.255"},
		{"0.0.0.0.in-addr.arpa", "0.0.0.0"},
		{"256.2.0.192.in-addr.arpa", NULL},
		{"01.2.0.192.in-addr.arpa", NULL},
		{"1000.2.0.192.in-addr.arpa", NULL},
		{"a.2.0.192.in-addr.arpa", NULL},
		{"2.0.192.in-addr.arpa", NULL},
		{"9.1.2.0.192.in-addr.arpa", NULL},
		{"in-addr.arpa", NULL},
		{"1.2.0.192.in-addr.arpa.example", NULL},
		{"1.2.0.192.xin-addr.arpa", NULL},
		{"a.example", NULL},
		{".", NULL},
		{"8.b.d.0.1.0.0.2.ip6.arpa", NULL},
		{"f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "2001:db8::f"},
		{"F.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.D.0.1.0.0.2.IP6.ARPA", "2001:db8::f"},
		{"g.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", NULL},
		{"10.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", NULL},
		{"0.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", NULL},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct domain name = name_of(cases[i].name);
		char text[ADDRESS_TEXT_MAX] = "none";
		struct address address;

		if (judge_pointer_name(&name, &address))
			address_format(&address, text);
		assert_string_equal(text, cases[i].address ? cases[i].address : "none");
	}
}

/*
 * Answers, as text: records separated by ';', each "OWNER TTL TYPE DATA"; "soa OWNER TTL" goes to the authority section. The reply
 * is compared as text too.
 */

static size_t hex_to_bytes(const char *text, uint8_t *out)
{
	size_t size = 0;
	unsigned int octet;

	for (; sscanf(text, "%2x", &octet) == 1; text += 2)
		out[size++] = (uint8_t)octet;
	return size;
}

static const struct {
	const char *name;
	uint16_t type;
} types[] = {
	{"A", TYPE_A},         {"AAAA", TYPE_AAAA},   {"CNAME", TYPE_CNAME}, {"DNAME", TYPE_DNAME}, {"TXT", TYPE_TXT},
	{"HTTPS", TYPE_HTTPS}, {"RRSIG", TYPE_RRSIG}, {"SOA", TYPE_SOA},     {"SVCB", TYPE_SVCB},
};

static uint16_t type_of(const char *name)
{
	for (size_t i = 0; i < COUNT(types); i++) {
		if (strcmp(types[i].name, name) == 0)
			return types[i].type;
	}
	fail_msg("no type %s", name);
	return 0;
}

static size_t rdata_of(uint16_t type, const char *text, uint8_t *out)
{
	struct address address;
	struct domain name;

	if (type == TYPE_A || type == TYPE_AAAA) {
		assert_true(address_parse(text, &address));
		memcpy(out, address.bytes, address_size(&address));
		return address_size(&address);
	}
	if (type == TYPE_CNAME || type == TYPE_DNAME) {
		name = name_of(text);
		memcpy(out, name.wire, name.length);
		return name.length;
	}
	if (type == TYPE_RRSIG) { /* the covered type; the rest does not matter here */
		memset(out, 0, 19);
		out[1] = (uint8_t)type_of(text);
		return 19;
	}
	return hex_to_bytes(text, out);
}

static void add_record(struct answer *answer, char *text)
{
	char owner_text[256], type_text[16], data[512] = "";
	uint8_t rdata[512];
	unsigned int ttl;
	struct domain owner;
	uint16_t type;

	assert_true(sscanf(text, "%255s %u %15s %511s", owner_text, &ttl, type_text, data) >= 3);
	owner = name_of(owner_text);
	type = type_of(type_text);
	if (type == TYPE_SOA) {
		memset(rdata, 0, 22);
		rdata[21] = *data ? (uint8_t)atoi(data) : 255; /* the last octet of MINIMUM */
		assert_int_equal(answer_add_authority(answer, owner.wire, owner.length, type, ttl, rdata, 22), 0);
		return;
	}
	assert_int_equal(answer_add(answer, owner.wire, owner.length, type, ttl, rdata, rdata_of(type, data, rdata)), 0);
}

static struct answer *answer_of(uint16_t rcode, const char *text)
{
	struct answer *answer = answer_new(rcode, 64, 64 * 512);
	char copy[8192], *rest = copy;

	snprintf(copy, sizeof(copy), "%s", text);
	for (char *record = strtok_r(copy, ";", &rest); record; record = strtok_r(NULL, ";", &rest))
		add_record(answer, record);
	return answer;
}

static size_t print_rdata(const struct record *record, char *out, size_t size)
{
	char text[DOMAIN_TEXT_MAX];
	struct address address;
	struct domain name;
	size_t at = 0;

	if (record->type == TYPE_A || record->type == TYPE_AAAA) {
		address = address_from_bytes(record->type == TYPE_A ? AF_INET : AF_INET6, record->rdata);
		return (size_t)snprintf(out, size, "%s", address_format(&address, text));
	}
	if (record->type == TYPE_CNAME || record->type == TYPE_DNAME) {
		domain_from_wire(record->rdata, record->rdata_length, &name);
		return (size_t)snprintf(out, size, "%s", domain_format(&name, text));
	}
	if (record->type == TYPE_RRSIG)
		return (size_t)snprintf(out, size, "%s", message_type_name(record->rdata[1], text));
	for (size_t i = 0; i < record->rdata_length && record->type != TYPE_SOA; i++)
		at += (size_t)snprintf(out + at, size - at, "%02x", record->rdata[i]);
	return at;
}

static const char *answer_text(const struct answer *answer, char *out, size_t size)
{
	size_t at = 0;

	out[0] = '\0';
	for (size_t i = 0; answer && i < answer->answer_count + answer->authority_count; i++) {
		const struct record *record = &answer->records[i];
		char owner_text[DOMAIN_TEXT_MAX], type_text[16];
		struct domain owner;

		domain_from_wire(record->owner, record->owner_length, &owner);
		at += (size_t)snprintf(out + at, size - at, "%s%s %u %s", i ? ";" : "", domain_format(&owner, owner_text), record->ttl,
				       message_type_name(record->type, type_text));
		if (record->type == TYPE_SOA)
			continue;
		at += (size_t)snprintf(out + at, size - at, " ");
		at += print_rdata(record, out + at, size - at);
	}
	return out;
}

static void verdict_free(struct answer_verdict *verdict)
{
	answer_free(verdict->reply);
	answer_free(verdict->chain);
	free(verdict->shown);
	free(verdict->names);
}

/* The names of the chain, each followed by a space. */
static char *names_text(const struct answer_verdict *verdict, char out[static 256])
{
	struct chain rest = {verdict->names, verdict->names_length};
	char text[DOMAIN_TEXT_MAX];
	struct domain name;
	size_t at = 0;

	out[0] = '\0';
	while (chain_next(&rest, &name))
		at += (size_t)snprintf(out + at, 256 - at, "%s ", domain_format(&name, text));
	assert_int_equal(rest.length, 0);
	return out;
}

/* Whatever an answer is, the addresses to be granted are exactly those of the reply, in its order and with its TTLs. */
static void check_shown(const struct answer_verdict *verdict)
{
	size_t shown = 0;

	for (size_t i = 0; verdict->reply && i < verdict->reply->answer_count; i++) {
		const struct record *record = &verdict->reply->records[i];

		if (record->type != TYPE_A && record->type != TYPE_AAAA)
			continue;
		assert_true(shown < verdict->shown_count);
		assert_memory_equal(record->rdata, verdict->shown[shown].address.bytes, record->rdata_length);
		assert_int_equal(record->ttl, verdict->shown[shown++].ttl);
	}
	assert_int_equal(shown, verdict->shown_count);
}

struct answer_case {
	const char *what, *name, *type;
	uint16_t rcode;
	const char *records;
	/* Expected: */
	uint16_t reply_rcode;
	const char *reply;  /* or the chain when `chase` is set */
	const char *chase;  /* target, or NULL */
	enum reason reason; /* REASON_NONE: not denied */
	int ede;
};

static const struct answer_case answers[] = {
	{"an address", "a.example", "A", 0, "a.example 100 A 198.18.7.1;a.example 100 A 9.9.9.9", 0, "a.example 90 A 9.9.9.9", NULL,
	 REASON_NONE, EDE_FILTERED},
	{"two addresses", "a.example", "A", 0, "a.example 100 A 9.9.9.9;a.example 20 A 8.8.8.8", 0,
	 "a.example 90 A 9.9.9.9;a.example 10 A 8.8.8.8", NULL, REASON_NONE, EDE_NONE},
	{"IPv6", "a.example", "AAAA", 0, "a.example 100 AAAA 2600::1", 0, "a.example 90 AAAA 2600::1", NULL, REASON_NONE, EDE_NONE},
	{"an old TTL", "a.example", "A", 0, "a.example 5 A 9.9.9.9", 0, "a.example 0 A 9.9.9.9", NULL, REASON_NONE, EDE_NONE},
	{"a TTL longer than a lease", "a.example", "A", 0, "a.example 100000 A 9.9.9.9", 0, "a.example 3600 A 9.9.9.9", NULL, REASON_NONE,
	 EDE_NONE},
	{"foreign records", "a.example", "A", 0,
	 "b.example 100 A 9.9.9.8;a.example 100 A 9.9.9.9;a.example 100 AAAA 2600::1;a.example 9 TXT 00", 0, "a.example 90 A 9.9.9.9", NULL,
	 REASON_NONE, EDE_NONE},
	{"only foreign records", "a.example", "A", 0, "b.example 100 A 9.9.9.8", 0, "", NULL, REASON_NONE, EDE_NONE},
	{"too many addresses", "a.example", "A", 0,
	 "a.example 100 A 9.9.9.1;a.example 100 A 9.9.9.2;a.example 100 A 9.9.9.3;a.example 100 A 9.9.9.4;a.example 100 A 9.9.9.5", 0,
	 "a.example 90 A 9.9.9.1;a.example 90 A 9.9.9.2;a.example 90 A 9.9.9.3;a.example 90 A 9.9.9.4", NULL, REASON_NONE, EDE_FILTERED},
	{"a text", "a.example", "TXT", 0, "a.example 100 TXT 026869", 0, "a.example 90 TXT 026869", NULL, REASON_NONE, EDE_NONE},

	{"a chain", "alias.example", "A", 0, "alias.example 100 CNAME x.example;x.example 50 CNAME y.example;y.example 40 A 9.9.9.9", 0,
	 "alias.example 90 CNAME x.example;x.example 40 CNAME y.example;y.example 30 A 9.9.9.9", NULL, REASON_NONE, EDE_NONE},
	{"a chain in any order", "alias.example", "A", 0,
	 "y.example 40 A 9.9.9.9;x.example 50 CNAME y.example;alias.example 100 CNAME x.example", 0,
	 "alias.example 90 CNAME x.example;x.example 40 CNAME y.example;y.example 30 A 9.9.9.9", NULL, REASON_NONE, EDE_NONE},
	{"an address in the middle of a chain", "alias.example", "A", 0,
	 "alias.example 100 CNAME x.example;alias.example 100 A 9.9.9.8;x.example 40 A 9.9.9.9", 0,
	 "alias.example 90 CNAME x.example;x.example 30 A 9.9.9.9", NULL, REASON_NONE, EDE_NONE},
	{"a question for the CNAME", "alias.example", "CNAME", 0, "alias.example 100 CNAME x.example;x.example 50 CNAME bad.example", 0,
	 "alias.example 90 CNAME x.example", NULL, REASON_NONE, EDE_NONE},
	{"a DNAME", "x.wide.example", "A", 0,
	 "wide.example 100 DNAME far.example;x.wide.example 100 CNAME x.far.example;x.far.example 60 A 9.9.9.9", 0,
	 "wide.example 90 DNAME far.example;x.wide.example 90 CNAME x.far.example;x.far.example 50 A 9.9.9.9", NULL, REASON_NONE, EDE_NONE},
	{"a DNAME that says something else", "x.wide.example", "A", 0,
	 "wide.example 100 DNAME far.example;x.wide.example 100 CNAME x.near.example;x.near.example 60 A 9.9.9.9", 0,
	 "x.wide.example 90 CNAME x.near.example;x.near.example 50 A 9.9.9.9", NULL, REASON_NONE, EDE_NONE},
	{"a loop", "alias.example", "A", 0, "alias.example 100 CNAME x.example;x.example 100 CNAME alias.example", RCODE_SERVFAIL, "", NULL,
	 REASON_NONE, EDE_NONE},
	{"a loop of one", "alias.example", "A", 0, "alias.example 100 CNAME alias.example", RCODE_SERVFAIL, "", NULL, REASON_NONE,
	 EDE_NONE},
	{"16 links", "alias.example", "A", 0,
	 "alias.example 9 CNAME b.e;b.e 9 CNAME c.e;c.e 9 CNAME d.e;d.e 9 CNAME e.e;e.e 9 CNAME f.e;f.e 9 CNAME g.e;g.e 9 CNAME h.e;h.e 9 "
	 "CNAME i.e;"
	 "i.e 9 CNAME j.e;j.e 9 CNAME k.e;k.e 9 CNAME l.e;l.e 9 CNAME m.e;m.e 9 CNAME n.e;n.e 9 CNAME o.e;o.e 9 CNAME p.e;p.e 9 CNAME "
	 "q.e;q.e 9 A 9.9.9.9",
	 0,
	 "alias.example 0 CNAME b.e;b.e 0 CNAME c.e;c.e 0 CNAME d.e;d.e 0 CNAME e.e;e.e 0 CNAME f.e;f.e 0 CNAME g.e;g.e 0 CNAME h.e;h.e 0 "
	 "CNAME i.e;"
	 "i.e 0 CNAME j.e;j.e 0 CNAME k.e;k.e 0 CNAME l.e;l.e 0 CNAME m.e;m.e 0 CNAME n.e;n.e 0 CNAME o.e;o.e 0 CNAME p.e;p.e 0 CNAME "
	 "q.e;q.e 0 A 9.9.9.9",
	 NULL, REASON_NONE, EDE_NONE},
	{"17 links", "alias.example", "A", 0,
	 "alias.example 9 CNAME b.e;b.e 9 CNAME c.e;c.e 9 CNAME d.e;d.e 9 CNAME e.e;e.e 9 CNAME f.e;f.e 9 CNAME g.e;g.e 9 CNAME h.e;h.e 9 "
	 "CNAME i.e;"
	 "i.e 9 CNAME j.e;j.e 9 CNAME k.e;k.e 9 CNAME l.e;l.e 9 CNAME m.e;m.e 9 CNAME n.e;n.e 9 CNAME o.e;o.e 9 CNAME p.e;p.e 9 CNAME q.e;"
	 "q.e 9 CNAME r.e;r.e 9 A 9.9.9.9",
	 RCODE_SERVFAIL, "", NULL, REASON_NONE, EDE_NONE},

	{"a denied name at the end", "alias.example", "A", 0, "alias.example 100 CNAME bad.example;bad.example 100 A 9.9.9.9",
	 RCODE_NXDOMAIN, "", NULL, REASON_DENIED_BY_RULE, EDE_BLOCKED},
	{"a denied name in the middle", "alias.example", "A", 0,
	 "alias.example 100 CNAME bad.example;bad.example 100 CNAME x.example;x.example 100 A 9.9.9.9", RCODE_NXDOMAIN, "", NULL,
	 REASON_DENIED_BY_RULE, EDE_BLOCKED},
	{"a denied name that would be chased", "alias.example", "A", 0, "alias.example 100 CNAME bad.example", RCODE_NXDOMAIN, "", NULL,
	 REASON_DENIED_BY_RULE, EDE_BLOCKED},

	{"rebinding", "a.example", "A", 0, "a.example 100 A 10.0.0.1;a.example 100 A 127.0.0.1;. 9 SOA", 0, "", NULL, REASON_REBINDING,
	 EDE_FILTERED},
	{"rebinding through a chain", "alias.example", "A", 0, "alias.example 100 CNAME x.corp.example;x.corp.example 100 A 10.0.0.1", 0,
	 "", NULL, REASON_REBINDING, EDE_FILTERED},
	{"rebinding, IPv4-mapped", "a.example", "AAAA", 0, "a.example 100 AAAA ::ffff:9.9.9.9", 0, "", NULL, REASON_REBINDING,
	 EDE_FILTERED},
	{"a private address where it may be", "inside.corp.example", "A", 0, "inside.corp.example 100 A 10.0.0.1", 0,
	 "inside.corp.example 90 A 10.0.0.1", NULL, REASON_NONE, EDE_NONE},

	{"no data", "a.example", "A", 0, "example 100 SOA", 0, "example 90 SOA", NULL, REASON_NONE, EDE_NONE},
	{"no data, for less time than the SOA's own TTL", "a.example", "A", 0, "example 100 SOA 30", 0, "example 20 SOA", NULL, REASON_NONE,
	 EDE_NONE},
	{"no data, an SOA of another zone", "a.example", "A", 0, "b.example 100 SOA", 0, "", NULL, REASON_NONE, EDE_NONE},
	{"no such name", "a.example", "A", RCODE_NXDOMAIN, "example 100 SOA", RCODE_NXDOMAIN, "example 90 SOA", NULL, REASON_NONE,
	 EDE_NONE},
	{"no such name, but an address", "a.example", "A", RCODE_NXDOMAIN, "a.example 100 A 9.9.9.9", RCODE_NXDOMAIN, "", NULL, REASON_NONE,
	 EDE_NONE},
	{"no such name at the end", "alias.example", "A", RCODE_NXDOMAIN, "alias.example 100 CNAME x.example;example 100 SOA",
	 RCODE_NXDOMAIN, "alias.example 90 CNAME x.example;example 90 SOA", NULL, REASON_NONE, EDE_NONE},
	{"no data at the end", "alias.example", "A", 0, "alias.example 100 CNAME x.example;example 100 SOA", 0,
	 "alias.example 90 CNAME x.example;example 90 SOA", NULL, REASON_NONE, EDE_NONE},
	{"an SOA beside an address", "a.example", "A", 0, "a.example 100 A 9.9.9.9;example 100 SOA", 0, "a.example 90 A 9.9.9.9", NULL,
	 REASON_NONE, EDE_NONE},
	{"nothing at all", "a.example", "A", 0, "", 0, "", NULL, REASON_NONE, EDE_NONE},
	{"refused", "a.example", "A", RCODE_REFUSED, "", RCODE_SERVFAIL, "", NULL, REASON_NONE, EDE_NONE},
	{"failed", "a.example", "A", RCODE_SERVFAIL, "a.example 100 A 9.9.9.9", RCODE_SERVFAIL, "", NULL, REASON_NONE, EDE_NONE},

	{"to be chased", "alias.example", "A", 0, "alias.example 100 CNAME x.example", 0, "alias.example 90 CNAME x.example", "x.example",
	 REASON_NONE, EDE_NONE},
	{"to be chased further", "alias.example", "A", 0, "alias.example 100 CNAME x.example;x.example 5 CNAME y.example", 0,
	 "alias.example 90 CNAME x.example;x.example 0 CNAME y.example", "y.example", REASON_NONE, EDE_NONE},
	{"a local name is not chased", "alias.example", "A", 0, "alias.example 100 CNAME db", 0, "alias.example 90 CNAME db", NULL,
	 REASON_NONE, EDE_NONE},

	/* HTTPS: priority, target, then parameters; 00 is the target ".". */
	{"HTTPS", "a.example", "HTTPS", 0, "a.example 100 HTTPS 00010000010003026832", 0, "a.example 90 HTTPS 00010000010003026832", NULL,
	 REASON_NONE, EDE_NONE},
	{"hints", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 000100"
	 "0001000302683200040004090909090006001026000000000000000000000000000001"
	 "00070000",
	 0,
	 "a.example 90 HTTPS 000100"
	 "00010003026832"
	 "00070000",
	 NULL, REASON_NONE, EDE_NONE},
	{"mandatory port", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 000100"
	 "000000020003"
	 "0003000201bb",
	 0,
	 "a.example 90 HTTPS 000100"
	 "000000020003"
	 "0003000201bb",
	 NULL, REASON_NONE, EDE_NONE},
	{"mandatory hint", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 000100"
	 "000000020004"
	 "0004000409090909",
	 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"mandatory, missing", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 000100"
	 "000000020003",
	 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"mandatory mandatory", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 000100"
	 "000000020000",
	 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"mandatory, descending", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 000100"
	 "0000000400030001"
	 "00010003026832"
	 "0003000201bb",
	 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"keys descending", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 000100"
	 "0003000201bb"
	 "00010003026832",
	 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"a key twice", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 000100"
	 "0003000201bb"
	 "0003000201bb",
	 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"a parameter beyond the end", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 000100"
	 "0003000301bb",
	 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"an octet behind", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 000100"
	 "0003000201bb00",
	 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"a port of one octet", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 000100"
	 "00030001bb",
	 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"a hint of three octets", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 000100"
	 "00040003090909",
	 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"an empty alpn", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 000100"
	 "00010000",
	 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"no-default-alpn without alpn", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 000100"
	 "00020000",
	 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"the invalid key", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 000100"
	 "ffff0000",
	 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"no target", "a.example", "HTTPS", 0, "a.example 100 HTTPS 0001", 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"half a target", "a.example", "HTTPS", 0, "a.example 100 HTTPS 00010161", 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"an allowed target", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 0001"
	 "03776562076578616d706c6500",
	 0,
	 "a.example 90 HTTPS 0001"
	 "03776562076578616d706c6500",
	 NULL, REASON_NONE, EDE_NONE},
	{"a target that is not allowed", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 0001"
	 "01780765786d706c65310000;a.example 100 HTTPS 000200",
	 0, "a.example 90 HTTPS 000200", NULL, REASON_NONE, EDE_FILTERED},
	{"port 443 of the target", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 0001"
	 "03776562076578616d706c6500"
	 "0003000201bb",
	 0,
	 "a.example 90 HTTPS 0001"
	 "03776562076578616d706c6500"
	 "0003000201bb",
	 NULL, REASON_NONE, EDE_NONE},
	{"another port of the target", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 0001"
	 "03776562076578616d706c6500"
	 "00030002 1f90",
	 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"another port of the owner", "web.example", "HTTPS", 0,
	 "web.example 100 HTTPS 000100"
	 "000300021f90",
	 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"the owner behind a CNAME is not allowed", "alias.example", "HTTPS", 0,
	 "alias.example 100 CNAME x.example;x.example 100 HTTPS 000100", 0, "alias.example 90 CNAME x.example", NULL, REASON_NONE,
	 EDE_FILTERED},
	{"alias of nothing", "a.example", "HTTPS", 0, "a.example 100 HTTPS 000000", 0, "a.example 90 HTTPS 000000", NULL, REASON_NONE,
	 EDE_NONE},
	{"alias loses parameters", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 0000"
	 "03776562076578616d706c6500"
	 "0004000409090909",
	 0,
	 "a.example 90 HTTPS 0000"
	 "03776562076578616d706c6500",
	 NULL, REASON_NONE, EDE_NONE},
	{"alias of a name that is not allowed", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 0000"
	 "01780765786d706c653100",
	 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"signatures without DO", "a.example", "A", 0, "a.example 100 A 9.9.9.9;a.example 100 RRSIG A", 0, "a.example 90 A 9.9.9.9", NULL,
	 REASON_NONE, EDE_NONE},
};

static void check_answer(const struct answer_case *expected, const struct network *of, bool dnssec_ok, const struct answer *chain)
{
	struct question question = question_of(expected->name, type_of(expected->type));
	struct answer *answer = answer_of(expected->rcode, expected->records);
	struct domain target = name_of(expected->chase ? expected->chase : ".");
	struct answer_verdict verdict;
	char text[8192];

	question.dnssec_ok = dnssec_ok;
	verdict = judge_answer(policy, of, &question, answer, chain, 10, NOW);
	answer_text(expected->chase ? verdict.chain : verdict.reply, text, sizeof(text));
	if (strcmp(text, expected->reply) != 0)
		fail_msg("%s: \"%s\" instead of \"%s\"", expected->what, text, expected->reply);
	if (verdict.chase != (expected->chase != NULL) || verdict.denied != (expected->reason != REASON_NONE) ||
	    verdict.reason != expected->reason || verdict.ede != expected->ede)
		fail_msg("%s: chase %d, denied %d, reason %d, ede %d", expected->what, verdict.chase, verdict.denied, verdict.reason,
			 verdict.ede);
	if (expected->chase) {
		assert_null(verdict.reply);
		assert_true(domain_equal(&verdict.target, &target));
	} else {
		assert_non_null(verdict.reply);
		assert_null(verdict.chain);
		assert_int_equal(verdict.reply->rcode, expected->reply_rcode);
	}
	check_shown(&verdict);
	verdict_free(&verdict);
	answer_free(answer);
}

static void answers_are_judged(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(answers); i++)
		check_answer(&answers[i], network, false, NULL);
}

static void signatures_with_do(void **state)
{
	static const struct answer_case cases[] = {
		{"kept", "a.example", "A", 0, "a.example 100 A 9.9.9.9;a.example 100 RRSIG A;a.example 100 RRSIG TXT;b.example 100 RRSIG A",
		 0, "a.example 90 A 9.9.9.9;a.example 90 RRSIG A", NULL, REASON_NONE, EDE_NONE},
		{"of a set that was changed", "a.example", "A", 0, "a.example 100 A 9.9.9.9;a.example 100 A 10.0.0.1;a.example 100 RRSIG A",
		 0, "a.example 90 A 9.9.9.9", NULL, REASON_NONE, EDE_FILTERED},
		{"of HTTPS without hints", "a.example", "HTTPS", 0,
		 "a.example 100 HTTPS 000100"
		 "0004000409090909"
		 ";a.example 100 RRSIG HTTPS",
		 0, "a.example 90 HTTPS 000100", NULL, REASON_NONE, EDE_NONE},
		{"of a chain", "alias.example", "A", 0,
		 "alias.example 100 CNAME x.example;alias.example 100 RRSIG CNAME;x.example 100 RRSIG A;x.example 100 A 9.9.9.9", 0,
		 "alias.example 90 CNAME x.example;alias.example 90 RRSIG CNAME;x.example 90 A 9.9.9.9;x.example 90 RRSIG A", NULL,
		 REASON_NONE, EDE_NONE},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		check_answer(&cases[i], network, true, NULL);
}

/* Key 5. A server without ECH has the record that is left. */
static const struct answer_case with_ech[] = {
	{"ech alone", "a.example", "HTTPS", 0, "a.example 100 HTTPS 00010000050004deadbeef", 0, "a.example 90 HTTPS 000100", NULL,
	 REASON_NONE, EDE_NONE},
	{"ech of no octets", "a.example", "HTTPS", 0, "a.example 100 HTTPS 00010000050000", 0, "a.example 90 HTTPS 000100", NULL,
	 REASON_NONE, EDE_NONE},
	{"ech between the others", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 000100"
	 "0001000302683200040004090909090005000411223344000600102600000000000000000000000000000100070000",
	 0,
	 "a.example 90 HTTPS 000100"
	 "0001000302683200070000",
	 NULL, REASON_NONE, EDE_NONE},
	{"SVCB", "_443._https.a.example", "SVCB", 0,
	 "_443._https.a.example 100 SVCB 0001"
	 "03776562076578616d706c6500"
	 "0003000201bb"
	 "00050004deadbeef",
	 0,
	 "_443._https.a.example 90 SVCB 0001"
	 "03776562076578616d706c6500"
	 "0003000201bb",
	 NULL, REASON_NONE, EDE_NONE},
	{"others are mandatory", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 000100"
	 "00000002000100010003026832"
	 "00050004deadbeef",
	 0,
	 "a.example 90 HTTPS 000100"
	 "00000002000100010003026832",
	 NULL, REASON_NONE, EDE_NONE},
	{"ech is mandatory", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 000100"
	 "000000020005"
	 "00050004deadbeef",
	 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"ech is mandatory among others", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 000100"
	 "0000000400010005"
	 "00010003026832"
	 "00050004deadbeef"
	 ";a.example 100 HTTPS 00020000010003026832",
	 0, "a.example 90 HTTPS 00020000010003026832", NULL, REASON_NONE, EDE_FILTERED},
	{"ech is mandatory, and missing", "a.example", "HTTPS", 0, "a.example 100 HTTPS 000100000000020005", 0, "", NULL, REASON_NONE,
	 EDE_FILTERED},
	{"ech twice", "a.example", "HTTPS", 0, "a.example 100 HTTPS 0001000005000101000500010a", 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"ech beyond the end", "a.example", "HTTPS", 0, "a.example 100 HTTPS 00010000050004dead", 0, "", NULL, REASON_NONE, EDE_FILTERED},
	{"an alias", "a.example", "HTTPS", 0,
	 "a.example 100 HTTPS 0000"
	 "03776562076578616d706c6500"
	 "00050004deadbeef",
	 0,
	 "a.example 90 HTTPS 0000"
	 "03776562076578616d706c6500",
	 NULL, REASON_NONE, EDE_NONE},
	{"no signature fits", "a.example", "HTTPS", 0, "a.example 100 HTTPS 00010000050004deadbeef;a.example 100 RRSIG HTTPS", 0,
	 "a.example 90 HTTPS 000100", NULL, REASON_NONE, EDE_NONE},
};

static void ech_is_removed_where_names_are_verified(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(with_ech); i++) {
		check_answer(&with_ech[i], verifying, true, NULL);
		check_answer(&with_ech[i], watching, false, NULL);
	}
}

static void ech_stays_where_they_are_not(void **state)
{
	static const struct answer_case cases[] = {
		{"ech", "a.example", "HTTPS", 0, "a.example 100 HTTPS 00010000050004deadbeef;a.example 100 RRSIG HTTPS", 0,
		 "a.example 90 HTTPS 00010000050004deadbeef;a.example 90 RRSIG HTTPS", NULL, REASON_NONE, EDE_NONE},
		{"ech is mandatory", "a.example", "HTTPS", 0, "a.example 100 HTTPS 00010000000002000500050004deadbeef", 0,
		 "a.example 90 HTTPS 00010000000002000500050004deadbeef", NULL, REASON_NONE, EDE_NONE},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		check_answer(&cases[i], network, true, NULL);
		check_answer(&cases[i], audit, true, NULL);
	}
}

static void a_chain_goes_on_after_a_chase(void **state)
{
	static const char *const found = "alias.example 90 CNAME x.example";
	static const struct answer_case cases[] = {
		{"the address", "alias.example", "A", 0, "x.example 100 A 9.9.9.9", 0,
		 "alias.example 90 CNAME x.example;x.example 90 A 9.9.9.9", NULL, REASON_NONE, EDE_NONE},
		{"nothing: not asked for again", "alias.example", "A", 0, "", 0, "alias.example 90 CNAME x.example", NULL, REASON_NONE,
		 EDE_NONE},
		{"no such name", "alias.example", "A", RCODE_NXDOMAIN, "example 100 SOA", RCODE_NXDOMAIN,
		 "alias.example 90 CNAME x.example;example 90 SOA", NULL, REASON_NONE, EDE_NONE},
		{"another name", "alias.example", "A", 0, "x.example 100 CNAME y.example", 0,
		 "alias.example 90 CNAME x.example;x.example 90 CNAME y.example", "y.example", REASON_NONE, EDE_NONE},
		{"a denied name", "alias.example", "A", 0, "x.example 100 CNAME hidden.example", RCODE_NXDOMAIN, "", NULL,
		 REASON_DENIED_BY_RULE, EDE_BLOCKED},
		{"back to the start", "alias.example", "A", 0, "x.example 100 CNAME alias.example", RCODE_SERVFAIL, "", NULL, REASON_NONE,
		 EDE_NONE},
		{"a private address", "alias.example", "A", 0, "x.example 100 A 10.0.0.1", 0, "", NULL, REASON_REBINDING, EDE_FILTERED},
		{"failed", "alias.example", "A", RCODE_SERVFAIL, "", RCODE_SERVFAIL, "", NULL, REASON_NONE, EDE_NONE},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct answer *chain = answer_of(RCODE_NOERROR, found);

		check_answer(&cases[i], network, false, chain);
		answer_free(chain);
	}
}

/* A lease remembers them. Those of earlier look-ups are among them. */
static void the_names_of_the_chain_are_told(void **state)
{
	static const struct {
		const char *chain, *records, *names;
	} cases[] = {
		{NULL, "alias.example 100 A 9.9.9.9", ""},
		{NULL, "alias.example 100 CNAME x.example;x.example 50 CNAME y.example;y.example 40 A 9.9.9.9", "x.example y.example "},
		{"alias.example 90 CNAME x.example", "x.example 100 A 9.9.9.9", "x.example "},
		{"alias.example 90 CNAME x.example", "x.example 50 CNAME y.example;y.example 40 A 9.9.9.9", "x.example y.example "},
	};
	struct question question = question_of("alias.example", TYPE_A);
	char text[256];

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct answer *chain = cases[i].chain ? answer_of(RCODE_NOERROR, cases[i].chain) : NULL;
		struct answer *answer = answer_of(RCODE_NOERROR, cases[i].records);
		struct answer_verdict verdict = judge_answer(policy, network, &question, answer, chain, 10, NOW);

		assert_int_equal(verdict.shown_count, 1);
		assert_string_equal(names_text(&verdict, text), cases[i].names);
		verdict_free(&verdict);
		answer_free(answer);
		answer_free(chain);
	}
}

static void audit_still_filters_answers(void **state)
{
	static const struct answer_case cases[] = {
		{"a name without a rule", "other.example", "A", 0, "other.example 100 A 9.9.9.9", 0, "other.example 90 A 9.9.9.9", NULL,
		 REASON_NONE, EDE_NONE},
		{"rebinding", "other.example", "A", 0, "other.example 100 A 10.0.0.1", 0, "", NULL, REASON_REBINDING, EDE_FILTERED},
		{"deny", "other.example", "A", 0, "other.example 100 CNAME bad.example", RCODE_NXDOMAIN, "", NULL, REASON_DENIED_BY_RULE,
		 EDE_BLOCKED},
		{"HTTPS to a name without a rule", "other.example", "HTTPS", 0,
		 "other.example 100 HTTPS 000100"
		 "000300021f90",
		 0,
		 "other.example 90 HTTPS 000100"
		 "000300021f90",
		 NULL, REASON_NONE, EDE_NONE},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		check_answer(&cases[i], audit, false, NULL);
}

static void a_denied_answer_names_rule_and_name(void **state)
{
	struct question question = question_of("alias.example", TYPE_A);
	struct answer *answer = answer_of(RCODE_NOERROR, "alias.example 100 CNAME bad.example");
	struct answer_verdict verdict = judge_answer(policy, network, &question, answer, NULL, 0, NOW);
	char text[DOMAIN_TEXT_MAX];

	(void)state;
	assert_string_equal(domain_format(&verdict.denied_name, text), "bad.example");
	assert_string_equal(verdict.rule->text, "bad.example");
	verdict_free(&verdict);
	answer_free(answer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(questions_are_judged),
		cmocka_unit_test(a_denied_question_names_its_rule),
		cmocka_unit_test(audit_lifts_only_missing_rules),
		cmocka_unit_test(a_wildcard_stands_for_no_more_than_its_limits),
		cmocka_unit_test(pointer_names),
		cmocka_unit_test(answers_are_judged),
		cmocka_unit_test(signatures_with_do),
		cmocka_unit_test(the_names_of_the_chain_are_told),
		cmocka_unit_test(ech_is_removed_where_names_are_verified),
		cmocka_unit_test(ech_stays_where_they_are_not),
		cmocka_unit_test(a_chain_goes_on_after_a_chase),
		cmocka_unit_test(audit_still_filters_answers),
		cmocka_unit_test(a_denied_answer_names_rule_and_name),
	};

	return cmocka_run_group_tests(tests, make_policy, free_policy);
}
