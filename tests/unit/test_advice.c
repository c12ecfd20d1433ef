/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/config.h"
#include "gateway/report/advice.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define WALL         1000000 /* s */

#define POLICY                                                                                                                             \
	"[upstream]\nserver = 45.9.0.53\n"                                                                                                 \
	"[network web]\nsubnet = 10.201.1.0/24\n"                                                                                          \
	"allow = beside.vendor.example:443 ok.vendor.example:443/tcp *.wide.example 45.12.0.0/16:443/tcp\n" /* line 5 */                   \
	"deny = gist.wide.example 45.66.0.0/16 mail.wide.example:25/tcp beside.vendor.example:443\n"        /* line 6 */                   \
	"deny = *.tracker.example\n"                                                                        /* line 7 */                   \
	"[network plain]\nsubnet = 10.201.3.0/24\naddresses = virtual\n"                                                                   \
	"[network shut]\nsubnet = 10.201.4.0/24\nverify = enforce\nverify_ports = 443\n"

/* A denial, as the log has it. */
struct denied {
	const char *network, *name, *address, *port; /* port: "443/tcp"; NULL: a question, or a protocol without ports */
	enum reason reason;
};

struct known {
	const char *network, *name, *address, *through;
};

static struct policy *policy;
static struct lease_table *leases;
static struct domain name;

static struct policy *load(const char *text)
{
	struct config_part part = {.file = (char[]){"p.conf"}, .text = strdup(text), .size = strlen(text)};
	struct config_text whole = {.parts = &part, .count = 1};
	struct config_messages messages = {0};
	struct policy *loaded = config_parse(&whole, &messages);

	for (size_t i = 0; i < messages.count && !loaded; i++)
		print_message("%s\n", messages.list[i].text);
	if (!loaded)
		fail_msg("does not load:\n%s", text);
	config_messages_free(&messages);
	free(part.text);
	return loaded;
}

static void lend(const struct known *known)
{
	struct domain through = {0};
	struct lease lease = {.network = policy_network_by_name(policy, known->network)->id, .shown = 1, .until = 1000};

	assert_true(address_parse(known->address, &lease.address));
	assert_null(domain_parse(known->name, &lease.name));
	if (known->through)
		assert_null(domain_parse(known->through, &through));
	lease.chain = (struct chain){through.wire, through.length};
	assert_int_equal(lease_put(leases, &lease), 0);
}

static struct verdict_target target_of(const struct denied *denied)
{
	struct verdict_target target = {.name = NULL};

	if (denied->name) {
		assert_null(domain_parse(denied->name, &name));
		target.name = &name;
	}
	if (denied->address)
		assert_true(address_parse(denied->address, &target.address));
	if (!denied->port)
		return target;
	target.port = (uint16_t)strtoul(denied->port, NULL, 10);
	target.protocol = strstr(denied->port, "tcp") ? IPPROTO_TCP : strstr(denied->port, "udp") ? IPPROTO_UDP : IPPROTO_GRE;
	return target;
}

static struct advice ask(const struct denied *denied)
{
	struct verdict_target target = target_of(denied);
	struct verdicts verdicts;
	struct advice advice;

	assert_int_equal(verdicts_open(&verdicts, policy, policy_network_by_name(policy, denied->network), leases, WALL), 0);
	advice_give(&verdicts, &target, denied->reason, &advice);
	verdicts_close(&verdicts);
	return advice;
}

/* The policy with a line more at the end of a section, and less the rules of a deny line. */
static struct policy *change(const char *section, const char *line, const char *without)
{
	char heading[64], text[8192];
	const char *at, *next;

	snprintf(heading, sizeof(heading), "[%s]\n", section);
	at = strstr(POLICY, heading);
	assert_non_null(at);
	next = strchr(at + 1, '[');
	snprintf(text, sizeof(text), "%.*s%s\n%s", next ? (int)(next - POLICY) : (int)strlen(POLICY), POLICY, line, next ? next : "");
	if (without) {
		char *found = strstr(text, without);

		assert_non_null(found);
		memmove(found, found + strlen(without), strlen(found + strlen(without)) + 1);
	}
	return load(text);
}

/* What the judge says of the denial under another policy. */
static bool is_allowed(const struct policy *changed, const struct denied *denied, bool by_name)
{
	const struct network *network = policy_network_by_name(changed, denied->network);
	struct verdict_target target = target_of(denied);
	struct name_verdict verdict;
	struct lease lease = {.network = network->id, .address = target.address};

	if (!by_name)
		return policy_judge_address(changed, network, &target.address, target.protocol, target.port).allowed;
	lease.name = *target.name;
	(void)lease_refresh(leases, &lease);
	if (target.address.family &&
	    policy_judge_address(changed, network, &target.address, target.protocol, target.port).reason == REASON_DENIED_BY_RULE)
		return false;
	verdict = policy_judge_chain(network, target.name, &lease.chain, WALL, NULL);
	return verdict.allowed && (!target.port || (verdict.specs & policy_specs_on(network, target.protocol, target.port)) != 0);
}

static void begin(void)
{
	policy_free(policy);
	lease_table_free(leases);
	policy = load(POLICY);
	leases = lease_table_new();
	lend(&(struct known){"web", "evil.example", "45.1.1.1", NULL});
	lend(&(struct known){"web", "ok.vendor.example", "45.1.1.2", "edge.cdn.example"});
	lend(&(struct known){"web", "shop.vendor.example", "45.1.1.3", "x.tracker.example"});
	lend(&(struct known){"web", "inside.vendor.example", "10.0.0.7", NULL});
	lend(&(struct known){"plain", "elsewhere.vendor.example", "45.1.1.4", NULL});
	lend(&(struct known){"web", "named.wide.example", "45.66.0.1", NULL});
	lend(&(struct known){"plain", "virtual.vendor.example", "10.201.3.130", NULL});
	lend(&(struct known){"shut", "known.vendor.example", "45.1.1.2", NULL});
}

/* Tests */

static void a_rule_opens_what_was_denied(void **state)
{
	static const struct {
		struct denied denied;
		const char *line, *opens, *note;
	} table[] = {
		{{"web", "evil.example", NULL, NULL, REASON_NAME_NOT_ALLOWED},
		 "allow = evil.example:443",
		 "web may reach evil.example on TCP and UDP port 443, at any address that its DNS answers show; what else is served at the "
		 "same addresses becomes reachable there as well",
		 "443 is a guess"},
		{{"web", "evil.example", "45.1.1.1", "8443/tcp", REASON_NAME_NOT_ALLOWED},
		 "allow = evil.example:8443/tcp",
		 "on TCP port 8443, at any address",
		 ""},
		{{"web", "ok.vendor.example", "45.1.1.2", "443/udp", REASON_PORT_NOT_ALLOWED},
		 "allow = ok.vendor.example:443/udp",
		 "on UDP port 443",
		 ""},
		{{"web", NULL, "45.1.1.9", "443/udp", REASON_ADDRESS_NOT_ALLOWED},
		 "allow = 45.1.1.9:443/udp",
		 "web may reach 45.1.1.9 on UDP port 443, whatever is served there, without asking for a name",
		 "lacks the line `dns:`"},
		{{"web", NULL, "2a0e:12:1::66", "22/tcp", REASON_ADDRESS_NOT_ALLOWED},
		 "allow = [2a0e:12:1::66]:22/tcp",
		 "2a0e:12:1::66",
		 ""},
		{{"web", NULL, "45.12.0.1", "80/tcp", REASON_PORT_NOT_ALLOWED}, "allow = 45.12.0.1:80/tcp", "", ""},
		{{"web", NULL, "10.0.0.5", "5432/tcp", REASON_SPECIAL_ADDRESS},
		 "allow = 10.0.0.5:5432/tcp",
		 "10.0.0.5, which is private (RFC 1918) space, on TCP port 5432",
		 ""},
		{{"web", NULL, "169.254.169.254", "80/tcp", REASON_SPECIAL_ADDRESS}, "allow = 169.254.169.254:80/tcp", "link-local", ""},
		{{"web", "inside.vendor.example", "10.0.0.7", "443/tcp", REASON_SPECIAL_ADDRESS},
		 "allow = 10.0.0.7:443/tcp",
		 "private (RFC 1918)",
		 "write `private = 10.0.0.7` as well"},
		{{"web", "elsewhere.vendor.example", "45.1.1.4", "443/tcp", REASON_NAME_NOT_ALLOWED},
		 "allow = 45.1.1.4:443/tcp",
		 "without asking for a name",
		 "elsewhere.vendor.example is what another network knows this address by"},
		/* A deny rule took all the ports that the name had, but not this one. */
		{{"web", "beside.vendor.example", NULL, "80/tcp", REASON_DENIED_BY_RULE}, "allow = beside.vendor.example:80/tcp", "", ""},
		{{"plain", "virtual.vendor.example", "10.201.3.130", "443/tcp", REASON_NAME_NOT_ALLOWED},
		 "allow = virtual.vendor.example:443/tcp",
		 "plain may reach virtual.vendor.example",
		 ""},
		/* What the flow asked for itself, at the address of another name. */
		{{"web", "front.vendor.example", "45.1.1.2", "443/tcp", REASON_SNI_MISMATCH},
		 "allow = front.vendor.example:443/tcp",
		 "",
		 ""},
		{{"shut", "front.vendor.example", "45.1.1.2", "443/tcp", REASON_SNI_MISMATCH},
		 "allow = front.vendor.example:443/tcp",
		 "other names at the same addresses stay closed",
		 ""},
		{{"shut", "new.vendor.example", NULL, NULL, REASON_NAME_NOT_ALLOWED},
		 "allow = new.vendor.example:443",
		 "other names at the same addresses stay closed",
		 "443 is a guess"},
		{{"shut", "new.vendor.example", NULL, "8443/tcp", REASON_NAME_NOT_ALLOWED},
		 "allow = new.vendor.example:8443/tcp",
		 "becomes reachable there as well",
		 ""},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		bool by_name = table[i].denied.name && strstr(table[i].line, table[i].denied.name);
		struct policy *changed;
		struct advice advice;

		begin();
		advice = ask(&table[i].denied);
		if (!advice.possible || strcmp(advice.line, table[i].line) != 0 || !strstr(advice.opens, table[i].opens) ||
		    !strstr(advice.note, table[i].note) || advice.change[0])
			fail_msg("row %zu: '%s' opens '%s' note '%s' change '%s' error '%s'", i, advice.line, advice.opens, advice.note,
				 advice.change, advice.error);
		assert_string_equal(advice.line + strlen("allow = "), advice.rule);
		assert_false(is_allowed(policy, &table[i].denied, by_name));
		changed = change(advice.section, advice.line, NULL);
		if (!is_allowed(changed, &table[i].denied, by_name))
			fail_msg("row %zu: '%s' does not allow it", i, advice.line);
		policy_free(changed);
	}
}

static void deny_rules_are_to_be_changed(void **state)
{
	static const struct {
		struct denied denied;
		const char *change, *line, *without;
	} table[] = {
		/* Allowed but for the deny rule. */
		{{"web", "gist.wide.example", NULL, NULL, REASON_DENIED_BY_RULE},
		 "deny = gist.wide.example (p.conf:6)",
		 "",
		 "gist.wide.example "},
		{{"web", "mail.wide.example", NULL, "25/tcp", REASON_DENIED_BY_RULE},
		 "deny = mail.wide.example:25/tcp (p.conf:6)",
		 "",
		 " mail.wide.example:25/tcp"},
		{{"web", "mail.wide.example", NULL, "25/tcp", REASON_PORT_NOT_ALLOWED},
		 "deny = mail.wide.example:25/tcp (p.conf:6)",
		 "",
		 " mail.wide.example:25/tcp"},
		{{"web", "named.wide.example", "45.66.0.1", "443/tcp", REASON_DENIED_BY_RULE},
		 "deny = 45.66.0.0/16 (p.conf:6)",
		 "",
		 " 45.66.0.0/16"},
		/* A rule is needed, too. */
		{{"web", "a.tracker.example", NULL, NULL, REASON_DENIED_BY_RULE},
		 "deny = *.tracker.example (p.conf:7)",
		 "allow = a.tracker.example:443",
		 "deny = *.tracker.example\n"},
		{{"web", NULL, "45.66.0.2", "443/tcp", REASON_DENIED_BY_RULE},
		 "deny = 45.66.0.0/16 (p.conf:6)",
		 "allow = 45.66.0.2:443/tcp",
		 " 45.66.0.0/16"},
		/* What the answer leads through. */
		{{"web", "shop.vendor.example", "45.1.1.3", "443/tcp", REASON_DENIED_BY_RULE},
		 "deny = *.tracker.example (p.conf:7)",
		 "allow = shop.vendor.example:443/tcp",
		 "deny = *.tracker.example\n"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct policy *changed;
		struct advice advice;

		begin();
		advice = ask(&table[i].denied);
		if (!advice.possible || strcmp(advice.change, table[i].change) != 0 || strcmp(advice.line, table[i].line) != 0)
			fail_msg("row %zu: change '%s' line '%s' error '%s'", i, advice.change, advice.line, advice.error);
		assert_true(advice.opens[0]);
		assert_false(is_allowed(policy, &table[i].denied, table[i].denied.name));
		changed = change(advice.section, advice.line, table[i].without);
		if (!is_allowed(changed, &table[i].denied, table[i].denied.name))
			fail_msg("row %zu: it is not allowed afterwards", i);
		policy_free(changed);
		/* Without the change the line alone does not help: the advice did not ask for too much. */
		changed = change(advice.section, advice.line, NULL);
		assert_false(is_allowed(changed, &table[i].denied, table[i].denied.name));
		policy_free(changed);
	}
	begin();
	assert_non_null(strstr(ask(&table[6].denied).note, "leads through x.tracker.example"));
}

static void where_no_rule_helps_it_says_what_does(void **state)
{
	static const struct {
		struct denied denied;
		const char *error;
	} table[] = {
		{{"web", "ok.vendor.example", "45.1.1.2", "443/tcp", REASON_LEASE_EXPIRED}, "raise `grace` or `min_ttl`"},
		{{"web", NULL, "45.1.1.9", NULL, REASON_PROTOCOL_NOT_ALLOWED}, "only TCP and UDP pass"},
		{{"web", NULL, "45.1.1.9", "0/gre", REASON_ADDRESS_NOT_ALLOWED}, "only TCP and UDP pass"},
		{{"web", NULL, "10.201.3.5", "80/tcp", REASON_ISOLATED}, "share an internal network"},
		{{"web", NULL, "45.1.1.9", NULL, REASON_MALFORMED}, "could not be parsed"},
		{{"web", "database", NULL, NULL, REASON_LOCAL_NAME}, "single-label names"},
		{{"web", "odd.vendor.example", NULL, NULL, REASON_UNSUPPORTED}, "does not serve"},
		{{"web", NULL, NULL, NULL, REASON_REPEATED}, "a sum"},
		{{"web", NULL, NULL, NULL, REASON_SPOOFED_SOURCE}, "source address"},
		{{"web", NULL, "224.0.0.251", "5353/udp", REASON_MULTICAST}, "multicast"},
		{{"web", NULL, NULL, NULL, REASON_QUEUE_FULL}, "dropped unseen"},
		{{"web", NULL, "45.1.1.9", "80/tcp", REASON_INVALID}, "belonged to no flow"},
		{{"web", "ok.vendor.example", "45.1.1.2", "443/tcp", REASON_NO_NAME}, "`without_name = allow`"},
		{{"web", "ok.vendor.example", "45.1.1.2", "443/tcp", REASON_SNI_MISMATCH}, "the running policy allows it"},
		{{"web", "bound.vendor.example", NULL, NULL, REASON_REBINDING}, "write `private = PREFIX`"},
		{{"web", NULL, NULL, NULL, REASON_REBINDING}, "write `private = PREFIX`"},
		/* The reason would allow a rule, but there is none. */
		{{"web", "localhost", NULL, NULL, REASON_NAME_NOT_ALLOWED}, "single-label names"},
		{{"web", "1.0.0.10.in-addr.arpa", NULL, NULL, REASON_NAME_NOT_ALLOWED}, "reverse look-ups"},
		{{"web", NULL, "127.0.0.1", "80/tcp", REASON_SPECIAL_ADDRESS}, "never forwarded"},
		{{"web", NULL, "fe80::1", "80/tcp", REASON_SPECIAL_ADDRESS}, "never forwarded"},
		{{"web", NULL, "45.1.1.9", NULL, REASON_ADDRESS_NOT_ALLOWED}, "too little is known"},
		{{"web", NULL, NULL, NULL, REASON_NAME_NOT_ALLOWED}, "too little is known"},
		{{"plain", NULL, "45.1.1.9", "443/tcp", REASON_ADDRESS_NOT_ALLOWED}, "pool only"},
		{{"plain", NULL, "10.201.3.131", "443/tcp", REASON_ADDRESS_NOT_ALLOWED}, "pool only"},
		{{"plain", "other.vendor.example", "45.1.1.2", "443/tcp", REASON_NAME_NOT_ALLOWED}, "pool only"},
		/* The policy has changed since. */
		{{"web", "ok.vendor.example", "45.1.1.2", "443/tcp", REASON_NAME_NOT_ALLOWED}, "the running policy allows it"},
		{{"web", NULL, "45.12.0.1", "443/tcp", REASON_ADDRESS_NOT_ALLOWED}, "the running policy allows it"},
		{{"web", "x.wide.example", NULL, NULL, REASON_NAME_NOT_ALLOWED}, "the running policy allows it"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct advice advice;

		begin();
		advice = ask(&table[i].denied);
		if (advice.possible || !strstr(advice.error, table[i].error))
			fail_msg("row %zu: line '%s', error '%s' instead of '%s'", i, advice.line, advice.error, table[i].error);
	}
}

/* Each reason has a table above; a new one must not be forgotten. */
static void every_reason_has_advice(void **state)
{
	static const enum reason with_rules[] = {REASON_NONE,
						 REASON_NAME_NOT_ALLOWED,
						 REASON_DENIED_BY_RULE,
						 REASON_PORT_NOT_ALLOWED,
						 REASON_ADDRESS_NOT_ALLOWED,
						 REASON_SPECIAL_ADDRESS,
						 REASON_REBINDING,
						 REASON_SNI_MISMATCH};

	(void)state;
	for (int reason = 0; reason < REASON_COUNT; reason++) {
		bool expected = true;

		for (size_t i = 0; i < COUNT(with_rules); i++)
			expected &= (int)with_rules[i] != reason;
		if ((advice_on_reason((enum reason)reason) != NULL) != expected)
			fail_msg("%s", reason_name((enum reason)reason));
	}
}

static void a_private_address_can_be_shown(void **state)
{
	static const struct denied denied = {"web", "inside.wide.example", "10.0.0.7", NULL, REASON_REBINDING};
	struct verdict_target target = target_of(&denied);
	struct policy *changed;
	struct advice advice;

	(void)state;
	begin();
	advice = ask(&denied);
	assert_true(advice.possible);
	assert_string_equal(advice.rule, "");
	assert_string_equal(advice.line, "private = 10.0.0.7");
	assert_false(policy_answer_may_show(policy, policy_network_by_name(policy, "web"), target.name, &target.address));
	changed = change(advice.section, advice.line, NULL);
	assert_true(policy_answer_may_show(changed, policy_network_by_name(changed, "web"), target.name, &target.address));
	policy_free(changed);
}

/* The control command */

static json_t *call(const char *request_text)
{
	json_t *request = json_loads(request_text, 0, NULL), *answer;

	assert_non_null(request);
	begin();
	answer = advice_answer(policy, leases, request);
	json_decref(request);
	assert_non_null(answer);
	return answer;
}

static void the_command_answers(void **state)
{
	json_t *answer = call("{\"command\":\"advise\",\"network\":\"web\",\"name\":\"evil.example\",\"address\":\"45.1.1.1\",\"port\":443,"
			      "\"proto\":\"tcp\",\"reason\":\"name-not-allowed\"}");

	(void)state;
	assert_true(json_is_true(json_object_get(answer, "ok")));
	assert_string_equal(json_string_value(json_object_get(answer, "section")), "network web");
	assert_string_equal(json_string_value(json_object_get(answer, "rule")), "evil.example:443/tcp");
	assert_string_equal(json_string_value(json_object_get(answer, "line")), "allow = evil.example:443/tcp");
	assert_true(json_is_null(json_object_get(answer, "change")));
	json_decref(answer);
	answer = call("{\"network\":\"web\",\"name\":\"gist.wide.example\",\"address\":null,\"port\":null,\"proto\":null,"
		      "\"reason\":\"denied-by-rule\"}");
	assert_true(json_is_true(json_object_get(answer, "ok")));
	assert_true(json_is_null(json_object_get(answer, "rule")));
	assert_true(json_is_null(json_object_get(answer, "line")));
	assert_string_equal(json_string_value(json_object_get(answer, "change")), "deny = gist.wide.example (p.conf:6)");
	json_decref(answer);
}

static void bad_requests_are_refused(void **state)
{
	static const char *const requests[] = {
		"{}",
		"{\"network\":\"web\"}",
		"{\"network\":\"nope\",\"name\":\"a.example\",\"reason\":\"name-not-allowed\"}",
		"{\"network\":7,\"name\":\"a.example\",\"reason\":\"name-not-allowed\"}",
		"{\"network\":\"web\",\"name\":\"a.example\",\"reason\":\"no-such-reason\"}",
		"{\"network\":\"web\",\"name\":\"a..example\",\"reason\":\"name-not-allowed\"}",
		"{\"network\":\"web\",\"name\":\"a;b.example\",\"reason\":\"name-not-allowed\"}",
		"{\"network\":\"web\",\"name\":\"*.example\",\"reason\":\"name-not-allowed\"}",
		"{\"network\":\"web\",\"address\":\"nowhere\",\"port\":443,\"reason\":\"address-not-allowed\"}",
		"{\"network\":\"web\",\"name\":\"a.example\",\"port\":65536,\"proto\":\"tcp\",\"reason\":\"port-not-allowed\"}",
		"{\"network\":\"web\",\"name\":\"a.example\",\"port\":-1,\"proto\":\"tcp\",\"reason\":\"port-not-allowed\"}",
		"{\"network\":\"web\",\"name\":\"a.example\",\"port\":443,\"proto\":\"gre\",\"reason\":\"port-not-allowed\"}",
		"{\"network\":\"web\",\"name\":\"a.example\",\"reason\":\"none-of-these\\n\"}",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(requests); i++) {
		json_t *answer = call(requests[i]);
		const char *error = json_string_value(json_object_get(answer, "error"));

		if (!json_is_false(json_object_get(answer, "ok")) || !error || !*error)
			fail_msg("%s", requests[i]);
		json_decref(answer);
	}
}

static int end(void **state)
{
	(void)state;
	policy_free(policy);
	lease_table_free(leases);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_rule_opens_what_was_denied),
		cmocka_unit_test(deny_rules_are_to_be_changed),
		cmocka_unit_test(where_no_rule_helps_it_says_what_does),
		cmocka_unit_test(every_reason_has_advice),
		cmocka_unit_test(a_private_address_can_be_shown),
		cmocka_unit_test(the_command_answers),
		cmocka_unit_test(bad_requests_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, end);
}
