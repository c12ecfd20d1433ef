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
#include "gateway/report/suggest.h"
#include "gateway/report/verdict.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define WALL         1000000 /* s */
#define TEXT_MAX     (1024 * 1024)
#define ROWS_MAX     6000

#define AUDIT "[network web]\nsubnet = 10.201.1.0/24\nsubnet = fdc9:1::/64\nmode = audit\n"

/* What the statistics would have. */
struct fake {
	const char *app, *name, *destination;
	const char *port; /* "443/tcp"; NULL: a question; "icmp" */
	unsigned int audited, denied;
	enum reason reason;
};

struct fake_lease {
	const char *network, *name, *address, *through;
};

static struct policy *policy;
static struct lease_table *leases;
static struct stats_row rows[ROWS_MAX];
static size_t row_count;
static struct suggestions suggestions;

static struct domain domain_of(const char *text)
{
	struct domain out;
	const char *error = domain_parse(text, &out);

	if (error)
		fail_msg("%s: %s", text, error);
	return out;
}

static struct address address_of(const char *text)
{
	struct address out = {0};

	if (text && !address_parse(text, &out))
		fail_msg("%s is no address", text);
	return out;
}

static struct policy *parse(const char *text, struct config_messages *messages)
{
	struct config_part part = {.file = (char[]){"p.conf"}, .text = strdup(text), .size = strlen(text)};
	struct config_text whole = {.parts = &part, .count = 1};
	struct policy *parsed;

	memset(messages, 0, sizeof(*messages));
	parsed = config_parse(&whole, messages);
	free(part.text);
	return parsed;
}

static struct policy *load(const char *text)
{
	struct config_messages messages;
	struct policy *loaded = parse(text, &messages);

	for (size_t i = 0; i < messages.count; i++) {
		if (messages.list[i].severity == CONFIG_ERROR)
			fail_msg("%s\n%s", messages.list[i].text, text);
	}
	assert_non_null(loaded);
	config_messages_free(&messages);
	return loaded;
}

static void clear(void)
{
	suggest_free(&suggestions);
	policy_free(policy);
	lease_table_free(leases);
	policy = NULL;
	leases = NULL;
	row_count = 0;
}

static void start(const char *text)
{
	clear();
	policy = load(text);
}

static struct stats_row *add_row(const struct domain *name)
{
	struct stats_row *row = &rows[row_count];

	assert_true(row_count < ROWS_MAX);
	memset(row, 0, sizeof(*row));
	strcpy(row->network, "web");
	if (name)
		row->name = *name;
	row_count++;
	return row;
}

static void set_port(struct stats_row *row, const char *port)
{
	char *slash = strchr(port, '/');

	row->protocol = strcmp(port, "icmp") == 0 ? IPPROTO_ICMP : strcmp(slash, "/udp") == 0 ? IPPROTO_UDP : IPPROTO_TCP;
	row->has_port = row->protocol != IPPROTO_ICMP;
	row->port = (uint16_t)strtoul(port, NULL, 10);
}

static void add(const struct fake *fake)
{
	struct domain name = fake->name ? domain_of(fake->name) : (struct domain){0};
	struct stats_row *row = add_row(fake->name ? &name : NULL);

	assert_true(snprintf(row->app, sizeof(row->app), "%s", fake->app ? fake->app : "") < (int)sizeof(row->app));
	row->destination = address_of(fake->destination);
	row->question = !fake->port;
	row->numbers.audited = fake->audited;
	row->numbers.denied = fake->denied;
	row->reason = fake->reason;
	row->last_seen = WALL;
	if (fake->port)
		set_port(row, fake->port);
}

static void lend(const struct fake_lease *fake)
{
	struct domain through = fake->through ? domain_of(fake->through) : (struct domain){0};
	struct lease lease = {.address = address_of(fake->address),
			      .network = policy_network_by_name(policy, fake->network)->id,
			      .audited = true,
			      .name = domain_of(fake->name),
			      .chain = {through.wire, through.length},
			      .shown = 1,
			      .until = 1000};

	if (!leases)
		leases = lease_table_new();
	assert_int_equal(lease_put(leases, &lease), 0);
}

static void each(const void *context, void (*visit)(void *visit_context, const struct stats_row *row), void *visit_context)
{
	(void)context;
	for (size_t i = 0; i < row_count; i++)
		visit(visit_context, &rows[i]);
}

static void make_for(const char *network, bool denied)
{
	const struct suggest_rows source = {each, NULL};

	suggest_free(&suggestions);
	assert_int_equal(suggest_make(policy, policy_network_by_name(policy, network), leases, &source, denied, WALL, &suggestions), 0);
}

static const char *rules_text(void)
{
	static char text[TEXT_MAX];
	size_t used = 0;

	text[0] = 0;
	for (size_t i = 0; i < suggestions.rule_count && used < sizeof(text) - 4096; i++)
		used += (size_t)sprintf(text + used, "%s%s", i ? " " : "", suggestions.rules[i].text);
	return text;
}

static const char *wildcards_text(void)
{
	static char text[TEXT_MAX];
	size_t used = 0;

	text[0] = 0;
	for (size_t i = 0; i < suggestions.wildcard_count; i++)
		used += (size_t)sprintf(text + used, "%s%s", i ? " " : "", suggestions.wildcards[i].text);
	return text;
}

static const struct suggestion *rule_of(const char *text)
{
	for (size_t i = 0; i < suggestions.rule_count; i++) {
		if (strcmp(suggestions.rules[i].text, text) == 0)
			return &suggestions.rules[i];
	}
	fail_msg("no rule %s in: %s", text, rules_text());
	return NULL;
}

static const struct suggest_skipped *skipped_of(const char *what)
{
	for (size_t i = 0; i < suggestions.skipped_count; i++) {
		if (strcmp(suggestions.skipped[i].what, what) == 0)
			return &suggestions.skipped[i];
	}
	for (size_t i = 0; i < suggestions.skipped_count; i++)
		print_message("skipped: %s: %s\n", suggestions.skipped[i].what, suggestions.skipped[i].why);
	fail_msg("%s is not skipped; rules: %s", what, rules_text());
	return NULL;
}

static void expect_skipped(const char *what, const char *why, unsigned int count)
{
	const struct suggest_skipped *skipped = skipped_of(what);

	if (!strstr(skipped->why, why))
		fail_msg("%s: '%s' instead of '%s'", what, skipped->why, why);
	assert_int_equal(skipped->count, count);
}

static void expect(const struct fake *fakes, size_t count, const char *rules)
{
	for (size_t i = 0; i < count; i++)
		add(&fakes[i]);
	make_for("web", false);
	assert_string_equal(rules_text(), rules);
}

/* The policy's text with the suggestions pasted into it, and enforced. */
static struct policy *paste(const char *text, bool wildcards)
{
	char *whole = malloc(TEXT_MAX);
	const char *audit = strstr(text, "mode = audit\n");
	struct policy *pasted;
	size_t used;

	assert_non_null(whole);
	used = (size_t)sprintf(whole, "%.*suse = %s\n%s\n[rules %s]\nallow =\n", (int)(audit - text), text, suggestions.section,
			       audit + strlen("mode = audit\n"), suggestions.section);
	for (size_t i = 0; i < suggestions.rule_count; i++)
		used += (size_t)sprintf(whole + used, "    ; a comment\n    %s\n", suggestions.rules[i].text);
	for (size_t i = 0; wildcards && i < suggestions.wildcard_count; i++)
		used += (size_t)sprintf(whole + used, "    %s\n", suggestions.wildcards[i].text);
	pasted = load(whole);
	free(whole);
	return pasted;
}

/* Every row that is not skipped is allowed by the pasted policy. */
static void expect_all_allowed(const char *text)
{
	struct policy *pasted = paste(text, false);
	struct verdicts verdicts;

	assert_int_equal(verdicts_open(&verdicts, pasted, policy_network_by_name(pasted, "web"), NULL, WALL), 0);
	for (size_t i = 0; i < row_count; i++) {
		const struct stats_row *row = &rows[i];
		struct verdict_target target = {row->name.length ? &row->name : NULL, row->destination, row->port, row->protocol};
		struct verdict verdict = row->name.length ? verdict_of_name(&verdicts, &target) : verdict_of_address(&verdicts, &target);
		char name[DOMAIN_TEXT_MAX];

		if (!verdict.allowed)
			fail_msg("row %zu, %s port %u: %s; rules %s", i, row->name.length ? domain_format(&row->name, name) : "an address",
				 row->port, reason_name(verdict.reason), rules_text());
	}
	verdicts_close(&verdicts);
	policy_free(pasted);
}

/* Tests */

static void a_name_has_one_rule_with_all_its_ports(void **state)
{
	static const struct fake fakes[] = {
		{"web-1", "api.vendor.example", "45.12.0.1", "443/tcp", .audited = 3},
		{"web-2", "api.vendor.example", "45.12.0.2", "443/udp", .audited = 2},
		{"web-1", "api.vendor.example", NULL, NULL, .audited = 4},
		{"web-1", "git.vendor.example", "45.12.0.3", "22/tcp", .audited = 1},
		{"web-1", "git.vendor.example", "45.12.0.3", "443/tcp", .audited = 1},
		{"web-1", "ntp.other.example", "45.12.0.4", "123/udp", .audited = 7},
		{"web-1", "many.other.example", "45.12.0.4", "8001/tcp", .audited = 1},
		{"web-1", "many.other.example", "45.12.0.4", "8000/tcp", .audited = 1},
		{"web-1", "many.other.example", "45.12.0.4", "8002/tcp", .audited = 1},
	};
	const struct suggestion *api;

	(void)state;
	start(AUDIT);
	expect(fakes, COUNT(fakes),
	       "ntp.other.example:123/udp many.other.example:8000-8002/tcp api.vendor.example:443 git.vendor.example:22/tcp+443/tcp");
	api = rule_of("api.vendor.example:443");
	assert_int_equal(api->flows, 5);
	assert_int_equal(api->questions, 4);
	assert_int_equal(api->app_count, 2);
	assert_null(api->note);
	assert_int_equal(suggestions.skipped_count, 0);
	expect_all_allowed(AUDIT);
}

static void a_name_only_asked_for_gets_a_guess(void **state)
{
	static const struct fake fakes[] = {{"web-1", "idle.vendor.example", NULL, NULL, .audited = 2}};

	(void)state;
	start(AUDIT);
	expect(fakes, COUNT(fakes), "idle.vendor.example:443");
	assert_true(rule_of("idle.vendor.example:443")->is_guess);
	assert_string_equal(rule_of("idle.vendor.example:443")->note, "no flow seen");
	expect_all_allowed(AUDIT);
}

static void addresses_without_a_name_get_rules_of_their_own(void **state)
{
	static const struct fake fakes[] = {
		{"web-1", NULL, "45.12.9.9", "443/tcp", .audited = 3},
		{"web-1", NULL, "45.12.9.9", "443/udp", .audited = 1},
		{"web-1", NULL, "45.12.9.9", "8443/tcp", .audited = 1},
		{NULL, NULL, "2a0e:12:1::66", "443/udp", .audited = 1},
		{"web-1", "a.vendor.example", "45.12.9.9", "22/tcp", .audited = 1},
	};

	(void)state;
	start(AUDIT);
	lend(&(struct fake_lease){"web", "a.vendor.example", "45.12.9.9", NULL});
	expect(fakes, COUNT(fakes), "a.vendor.example:22/tcp 45.12.9.9:443+8443/tcp [2a0e:12:1::66]:443/udp");
	expect_all_allowed(AUDIT);
}

static void what_rules_allow_already_is_left_out(void **state)
{
	static const char text[] = AUDIT "allow = api.vendor.example:443 *.cdn.example:80 45.12.0.0/16:443/tcp\n";
	static const struct fake fakes[] = {
		{"web-1", "api.vendor.example", "45.20.0.1", "443/tcp", .audited = 1},
		{"web-1", "api.vendor.example", "45.20.0.1", "8443/tcp", .audited = 1},
		{"web-1", "x.cdn.example", NULL, NULL, .audited = 1},
		{"web-1", "x.cdn.example", "45.20.0.2", "80/udp", .audited = 1},
		{"web-1", NULL, "45.12.0.1", "443/tcp", .audited = 1},
		{"web-1", NULL, "45.12.0.1", "443/udp", .audited = 1},
		{"web-1", NULL, "45.13.0.1", "443/udp", .denied = 5, .reason = REASON_ADDRESS_NOT_ALLOWED},
	};

	(void)state;
	start(text);
	expect(fakes, COUNT(fakes), "api.vendor.example:8443/tcp 45.12.0.1:443/udp");
	make_for("web", true);
	assert_string_equal(rules_text(), "api.vendor.example:8443/tcp 45.12.0.1:443/udp 45.13.0.1:443/udp");
	expect_all_allowed(text);
}

static void only_the_network_that_is_asked_about_counts(void **state)
{
	static const struct fake fakes[] = {{"web-1", "api.vendor.example", "45.20.0.1", "443/tcp", .audited = 1}};

	(void)state;
	start(AUDIT "[network build]\nsubnet = 10.201.2.0/24\nmode = audit\n");
	expect(fakes, 1, "api.vendor.example:443/tcp");
	make_for("build", true);
	assert_int_equal(suggestions.rule_count, 0);
	assert_string_equal(suggestions.section, "suggested-build");
}

static void what_no_rule_lifts_is_skipped_with_the_reason(void **state)
{
	static const struct {
		struct fake row;
		const char *what, *why;
	} table[] = {
		{{"a", NULL, "10.201.2.5", "80/tcp", .denied = 2, .reason = REASON_ISOLATED}, "10.201.2.5:80/tcp", "internal network"},
		{{"a", NULL, "45.1.1.1", "icmp", .denied = 2, .reason = REASON_PROTOCOL_NOT_ALLOWED}, "45.1.1.1/icmp", "only TCP and UDP"},
		{{"a", NULL, "45.1.1.1", "0/tcp", .denied = 2, .reason = REASON_MALFORMED}, "45.1.1.1/tcp", "could not be parsed"},
		{{"a", NULL, "45.1.1.2", "1/tcp", .denied = 2, .reason = REASON_SPOOFED_SOURCE}, "45.1.1.2:1/tcp", "source address"},
		{{"a", NULL, "224.0.0.251", "5353/udp", .denied = 2, .reason = REASON_MULTICAST}, "224.0.0.251:5353/udp", "multicast"},
		{{"a", NULL, "10.0.0.5", "5432/tcp", .denied = 2, .reason = REASON_SPECIAL_ADDRESS},
		 "10.0.0.5:5432/tcp",
		 "10.0.0.5 is private (RFC 1918): if it should pass, name it in a rule of its own"},
		{{"a", "db.corp.example", "10.0.0.6", "5432/tcp", .denied = 2, .reason = REASON_SPECIAL_ADDRESS},
		 "db.corp.example:5432/tcp",
		 "10.0.0.6 is private (RFC 1918): if it should pass, name it in a rule, or `private =`"},
		{{"a", "bound.corp.example", NULL, NULL, .denied = 2, .reason = REASON_REBINDING},
		 "bound.corp.example",
		 "private = PREFIX"},
		{{"a", "gist.denied.example", NULL, NULL, .denied = 2, .reason = REASON_DENIED_BY_RULE},
		 "gist.denied.example",
		 "denied by p.conf:6, deny = *.denied.example: change that rule"},
		{{"a", "gist.denied.example", "45.1.1.3", "443/tcp", .denied = 2, .reason = REASON_DENIED_BY_RULE},
		 "gist.denied.example:443/tcp",
		 "denied by p.conf:6"},
		{{"a", NULL, "45.66.0.1", "443/tcp", .denied = 2, .reason = REASON_DENIED_BY_RULE},
		 "45.66.0.1:443/tcp",
		 "denied by p.conf:6, deny = 45.66.0.0/16"},
		{{"a", "named.vendor.example", "45.66.0.1", "443/tcp", .denied = 2, .reason = REASON_DENIED_BY_RULE},
		 "named.vendor.example:443/tcp",
		 "denied by p.conf:6, deny = 45.66.0.0/16"},
		{{"a", "port.vendor.example", "45.1.1.4", "25/tcp", .denied = 2, .reason = REASON_PORT_NOT_ALLOWED},
		 "port.vendor.example:25/tcp",
		 "denied by p.conf:6, deny = **.vendor.example:25/tcp"},
		{{"a", "database", NULL, NULL, .denied = 2, .reason = REASON_LOCAL_NAME}, "database", "single-label names"},
		{{"a", "1.0.0.10.in-addr.arpa", NULL, NULL, .denied = 2, .reason = REASON_NAME_NOT_ALLOWED},
		 "1.0.0.10.in-addr.arpa",
		 "reverse look-ups"},
		{{"a", "odd.vendor.example", NULL, NULL, .denied = 2, .reason = REASON_UNSUPPORTED},
		 "odd.vendor.example",
		 "does not serve"},
		{{"a", NULL, NULL, NULL, .denied = 2, .reason = REASON_MALFORMED}, "other destinations of a", "could not be parsed"},
		{{"a", "ok.fine.example", "45.1.1.5", "443/tcp", .denied = 2, .reason = REASON_LEASE_EXPIRED},
		 "ok.fine.example:443/tcp",
		 "raise `grace` or `min_ttl`"},
		{{"a", "ok.fine.example", "45.1.1.5", "443/tcp", .denied = 2, .reason = REASON_NO_NAME},
		 "ok.fine.example:443/tcp",
		 "`without_name = allow`"},
		{{"many", NULL, NULL, "443/tcp", .denied = 2, .reason = REASON_ADDRESS_NOT_ALLOWED},
		 "other destinations of many",
		 "too many"},
		{{NULL, NULL, NULL, "443/tcp", .denied = 2, .reason = REASON_ADDRESS_NOT_ALLOWED},
		 "other destinations of other apps",
		 "too many"},
		{{"a", NULL, "127.0.0.1", "80/tcp", .denied = 2, .reason = REASON_ADDRESS_NOT_ALLOWED},
		 "127.0.0.1:80/tcp",
		 "never forwarded"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		start(AUDIT "allow = ok.fine.example:443/tcp\ndeny = *.denied.example 45.66.0.0/16 **.vendor.example:25/tcp\n");
		add(&table[i].row);
		make_for("web", false);
		assert_int_equal(suggestions.rule_count + suggestions.skipped_count, 0);
		make_for("web", true);
		assert_string_equal(rules_text(), "");
		expect_skipped(table[i].what, table[i].why, 2);
	}
}

static void what_audit_passed_is_judged_by_the_policy_of_now(void **state)
{
	static const struct fake fakes[] = {
		{"a", "x.denied.example", "45.1.1.3", "443/tcp", .audited = 2, .reason = REASON_NAME_NOT_ALLOWED},
		{"a", "leads.vendor.example", "45.1.1.4", "443/tcp", .audited = 1, .denied = 4, .reason = REASON_REBINDING},
		{"a", "ok.fine.example", "45.1.1.5", "443/tcp", .audited = 3, .reason = REASON_LEASE_EXPIRED},
	};

	(void)state;
	start(AUDIT "allow = ok.fine.example\ndeny = *.denied.example\n");
	expect(fakes, COUNT(fakes), "leads.vendor.example:443/tcp");
	expect_skipped("x.denied.example:443/tcp", "denied by p.conf:6", 2);
	expect_skipped("ok.fine.example:443/tcp", "older than its lease", 3);
}

/* Rows have the name that the flow asked for. */
static void a_name_inside_a_flow_gets_a_rule(void **state)
{
	static const struct fake fakes[] = {
		{"a", "front.vendor.example", "45.1.1.5", "443/tcp", .audited = 2, .reason = REASON_SNI_MISMATCH},
		{"a", "x.denied.example", "45.1.1.5", "443/udp", .audited = 1, .reason = REASON_SNI_MISMATCH},
		{"a", "ok.fine.example", "45.1.1.5", "443/tcp", .audited = 3, .reason = REASON_NO_NAME},
		{"a", "ok.fine.example", "45.1.1.5", "443/udp", .audited = 4, .reason = REASON_MALFORMED},
	};
	static const struct fake refused = {"a", "other.vendor.example", "45.1.1.5", "443/tcp", .denied = 1, .reason = REASON_SNI_MISMATCH};

	(void)state;
	start(AUDIT "verify = enforce\nallow = ok.fine.example\ndeny = *.denied.example\n");
	lend(&(struct fake_lease){"web", "ok.fine.example", "45.1.1.5", NULL});
	expect(fakes, COUNT(fakes), "front.vendor.example:443/tcp");
	expect_skipped("x.denied.example:443/udp", "denied by p.conf:7", 1);
	expect_skipped("ok.fine.example:443/tcp", "the flow named no host", 3);
	expect_skipped("ok.fine.example:443/udp", "could not be parsed", 4);
	add(&refused);
	make_for("web", true);
	assert_string_equal(rules_text(), "front.vendor.example:443/tcp other.vendor.example:443/tcp");
}

static void a_deny_rule_for_some_ports_leaves_the_others(void **state)
{
	static const char text[] = AUDIT "allow = beside.vendor.example:443\ndeny = beside.vendor.example:443\n";

	(void)state;
	start(text);
	add(&(struct fake){"a", "beside.vendor.example", "45.1.1.3", "80/tcp", .denied = 1, .reason = REASON_DENIED_BY_RULE});
	make_for("web", true);
	assert_string_equal(rules_text(), "beside.vendor.example:80/tcp");
	expect_all_allowed(text);
	add(&(struct fake){"a", "beside.vendor.example", "45.1.1.3", "443/tcp", .denied = 1, .reason = REASON_DENIED_BY_RULE});
	make_for("web", true);
	assert_string_equal(rules_text(), "beside.vendor.example:80/tcp");
	expect_skipped("beside.vendor.example:443/tcp", "denied by p.conf:6", 1);
}

static void a_deny_rule_in_the_chain_is_found(void **state)
{
	static const struct fake fakes[] = {
		{"a", "good.vendor.example", "45.1.1.3", "443/tcp", .audited = 2},
		{"a", "shop.vendor.example", "45.1.1.4", "443/tcp", .audited = 2},
	};
	const struct suggestion *shop;
	char text[DOMAIN_TEXT_MAX];

	(void)state;
	start(AUDIT "deny = *.tracker.example\n");
	lend(&(struct fake_lease){"web", "good.vendor.example", "45.1.1.3", "x.tracker.example"});
	lend(&(struct fake_lease){"web", "shop.vendor.example", "45.1.1.4", "edge.cdn.example"});
	expect(fakes, COUNT(fakes), "shop.vendor.example:443/tcp");
	expect_skipped("good.vendor.example:443/tcp", "which its answer leads through: x.tracker.example", 2);
	shop = rule_of("shop.vendor.example:443/tcp");
	assert_int_equal(shop->chain_count, 1);
	assert_string_equal(domain_format(&shop->chain[0], text), "edge.cdn.example");
}

static void names_that_share_an_address_share_its_ports(void **state)
{
	static const struct fake fakes[] = {
		{"a", "one.vendor.example", NULL, NULL, .audited = 1},
		{"a", "two.vendor.example", NULL, NULL, .audited = 1},
		{"a", "two.vendor.example", "45.1.1.3", "8443/tcp", .audited = 1},
		{"a", "far.vendor.example", NULL, NULL, .audited = 1},
	};

	(void)state;
	start(AUDIT);
	lend(&(struct fake_lease){"web", "one.vendor.example", "45.1.1.3", NULL});
	lend(&(struct fake_lease){"web", "two.vendor.example", "45.1.1.3", NULL});
	lend(&(struct fake_lease){"web", "far.vendor.example", "45.1.1.4", NULL});
	expect(fakes, COUNT(fakes), "one.vendor.example:8443/tcp two.vendor.example:8443/tcp far.vendor.example:443");
	assert_non_null(strstr(rule_of("one.vendor.example:8443/tcp")->note, "by another name"));
}

static void a_name_that_only_another_network_knows_gets_an_address_rule(void **state)
{
	static const struct fake fakes[] = {
		{"a", "build-only.vendor.example", "45.1.1.3", "443/tcp", .audited = 1},
		{"a", "forgotten.vendor.example", "45.1.1.4", "443/tcp", .audited = 1},
		{"a", "asked.vendor.example", "45.1.1.5", "443/tcp", .audited = 1},
		{"a", "asked.vendor.example", NULL, NULL, .audited = 1},
	};

	(void)state;
	start(AUDIT "[network build]\nsubnet = 10.201.2.0/24\n");
	lend(&(struct fake_lease){"build", "build-only.vendor.example", "45.1.1.3", NULL});
	expect(fakes, COUNT(fakes), "asked.vendor.example:443/tcp forgotten.vendor.example:443/tcp 45.1.1.3:443/tcp");
	assert_string_equal(rule_of("45.1.1.3:443/tcp")->known_as, "build-only.vendor.example");
}

static void networks_with_virtual_addresses_get_no_address_rules(void **state)
{
	static const char text[] = AUDIT "addresses = virtual\n";
	static const struct fake fakes[] = {
		{"a", "api.vendor.example", "10.201.1.130", "443/tcp", .audited = 1},
		{"a", NULL, "45.1.1.4", "443/tcp", .audited = 1},
		{"a", "elsewhere.vendor.example", "45.1.1.5", "443/tcp", .audited = 1},
		{"a", NULL, "10.201.1.131", "443/tcp", .denied = 1, .reason = REASON_ADDRESS_NOT_ALLOWED},
	};

	(void)state;
	start(text);
	expect(fakes, COUNT(fakes), "api.vendor.example:443/tcp");
	expect_skipped("45.1.1.4:443/tcp", "pool only", 1);
	expect_skipped("elsewhere.vendor.example:443/tcp", "pool only", 1);
	make_for("web", true);
	expect_skipped("10.201.1.131:443/tcp", "pool only", 1);
	policy_free(paste(text, true));
}

/* Wildcards */

static void add_siblings(const char *parent, size_t count, const char *port)
{
	for (size_t i = 0; i < count; i++) {
		char name[DOMAIN_TEXT_MAX];

		snprintf(name, sizeof(name), "n%zu%s.%s", i, port ? port[0] == '4' ? "" : "p" : "q", parent);
		add(&(struct fake){"a", name, port ? "45.1.1.4" : NULL, port, .audited = 1});
	}
}

static void siblings_may_be_one_wildcard(void **state)
{
	static const struct {
		const char *parent;
		size_t tcp443, tcp80, asked;
		const char *wildcards;
	} table[] = {
		{"cdn.vendor.example", 4, 0, 0, "*.cdn.vendor.example:443/tcp"},
		{"cdn.vendor.example", 3, 0, 0, ""},
		{"cdn.vendor.example", 3, 3, 0, ""},
		{"cdn.vendor.example", 3, 0, 1, "*.cdn.vendor.example:443/tcp"},
		{"cdn.vendor.example", 5, 4, 0, "*.cdn.vendor.example:80/tcp *.cdn.vendor.example:443/tcp"},
		{"cdn.vendor.example", 0, 0, 4, "*.cdn.vendor.example:443"},
		{"vendor.example", 9, 0, 0, "*.vendor.example:443/tcp"},
		{"example", 9, 0, 0, ""}, /* a single label, that no list knows */
		{"com", 9, 0, 0, ""},     /* ICANN suffixes */
		{"co.uk", 9, 0, 0, ""},
		{"ck", 9, 0, 0, ""},        /* below it every name is a suffix */
		{"github.io", 9, 0, 0, ""}, /* private suffixes */
		{"s3.amazonaws.com", 9, 0, 0, ""},
		{"site.github.io", 9, 0, 0, "*.site.github.io:443/tcp"},
		{"shop.co.uk", 9, 0, 0, "*.shop.co.uk:443/tcp"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		start(AUDIT);
		add_siblings(table[i].parent, table[i].tcp443, "443/tcp");
		add_siblings(table[i].parent, table[i].tcp80, "80/tcp");
		add_siblings(table[i].parent, table[i].asked, NULL);
		make_for("web", false);
		if (strcmp(wildcards_text(), table[i].wildcards) != 0)
			fail_msg("row %zu, %s: '%s' instead of '%s'", i, table[i].parent, wildcards_text(), table[i].wildcards);
		assert_int_equal(suggestions.rule_count, table[i].tcp443 + table[i].tcp80 + table[i].asked);
		expect_all_allowed(AUDIT);
		policy_free(paste(AUDIT, true));
	}
}

static void a_wildcard_stands_for_its_names_and_no_others(void **state)
{
	static const struct fake others[] = {
		{"a", "aaa.vendor.example", "45.1.1.4", "443/tcp", .audited = 1},
		{"a", "cdn.vendor.example", "45.1.1.4", "443/tcp", .audited = 1},
		{"a", "zzz.vendor.example", "45.1.1.4", "443/tcp", .audited = 1},
		{"a", "deep.n1.cdn.vendor.example", "45.1.1.4", "443/tcp", .audited = 1},
	};

	(void)state;
	start(AUDIT);
	for (size_t i = 0; i < COUNT(others); i++)
		add(&others[i]);
	add_siblings("cdn.vendor.example", 6, "443/tcp");
	make_for("web", false);
	assert_int_equal(suggestions.wildcard_count, 1);
	assert_int_equal(suggestions.wildcards[0].count, 6);
	assert_int_equal(suggestions.wildcards[0].flows, 6);
	for (size_t i = 0; i < 6; i++) {
		const struct suggestion *rule = &suggestions.rules[suggestions.wildcards[0].first + i];

		assert_true(domain_is_below(&rule->rule.pattern.base, &suggestions.wildcards[0].parent));
		assert_int_equal(domain_labels(&rule->rule.pattern.base), 4);
	}
}

/* Hostile input */

static void names_that_no_policy_can_have_are_skipped(void **state)
{
	static const char *const wires[] = {
		"\010a;b [x]\n\007example", /* what would begin a section */
		"\001*\007example",         "\003a=b\007example",   "\005a.b c\007example",
		"\004-abc\007example",      "\004abc-\007example",  "\004\377\376\375\374\007example",
		"\003www\003123",           "\005xn--a\007example", "\003a_b\007example",
		"\007exampl/\007example",
	};

	(void)state;
	start(AUDIT);
	for (size_t i = 0; i < COUNT(wires); i++) {
		struct domain name;
		struct stats_row *row;

		assert_int_not_equal(domain_from_wire((const uint8_t *)wires[i], strlen(wires[i]) + 1, &name), 0);
		row = add_row(&name);
		row->numbers.audited = 1;
		row->question = i % 2;
		row->protocol = IPPROTO_TCP;
		row->has_port = !row->question;
		row->port = row->question ? 0 : 443;
		row->last_seen = WALL;
	}
	add(&(struct fake){"a", "_service.vendor.example", "45.1.1.1", "443/tcp", .audited = 1});
	make_for("web", false);
	/* Whatever is left can be pasted, and means what was seen. */
	policy_free(paste(AUDIT, true));
	rule_of("_service.vendor.example:443/tcp");
	for (size_t i = 0; i < suggestions.rule_count; i++) {
		char *name = strndup(suggestions.rules[i].text, strcspn(suggestions.rules[i].text, ":"));
		struct domain again = domain_of(name);

		assert_true(domain_equal(&again, &suggestions.rules[i].rule.pattern.base));
		free(name);
	}
	assert_int_equal(suggestions.rule_count + suggestions.skipped_count, COUNT(wires) + 1);
	assert_true(suggestions.skipped_count >= 9);
	for (size_t i = 0; i < suggestions.skipped_count; i++) {
		for (const char *at = suggestions.skipped[i].what; *at; at++)
			assert_true(*at >= ' ' && *at <= '~');
	}
}

/* Bounds */

static void too_many_rules_are_counted(void **state)
{
	(void)state;
	start(AUDIT);
	for (size_t i = 0; i < SUGGEST_RULES_MAX + 500; i++) {
		char name[64];

		snprintf(name, sizeof(name), "n%zu.p%zu.vendor.example", i, i % 7);
		add(&(struct fake){"a", name, "45.1.1.1", "443/tcp", .audited = 2});
	}
	make_for("web", false);
	assert_int_equal(suggestions.rule_count, SUGGEST_RULES_MAX);
	assert_int_equal(suggestions.more_rules, 1000);
	policy_free(paste(AUDIT, true));
}

static void too_much_that_is_skipped_is_counted(void **state)
{
	(void)state;
	start(AUDIT);
	for (size_t i = 0; i < SUGGEST_SKIPPED_MAX + 20; i++) {
		char name[64];

		snprintf(name, sizeof(name), "single%zu", i);
		add(&(struct fake){"a", name, NULL, NULL, .denied = 3, .reason = REASON_LOCAL_NAME});
	}
	make_for("web", true);
	assert_int_equal(suggestions.skipped_count, SUGGEST_SKIPPED_MAX);
	assert_int_equal(suggestions.more_skipped, 60);
}

static void many_apps_are_cut_short(void **state)
{
	static char apps[20][8];

	(void)state;
	start(AUDIT);
	for (size_t i = 0; i < 20; i++) {
		snprintf(apps[i], sizeof(apps[i]), "app-%zu", i);
		add(&(struct fake){apps[i], "api.vendor.example", "45.1.1.1", "443/tcp", .audited = 1});
	}
	make_for("web", false);
	assert_int_equal(suggestions.rules[0].app_count, SUGGEST_APPS_MAX);
	assert_true(suggestions.rules[0].more_apps);
	assert_int_equal(suggestions.rules[0].flows, 20);
}

static void more_ports_than_a_rule_can_have_become_wider_ranges(void **state)
{
	(void)state;
	start(AUDIT);
	for (unsigned int i = 0; i < 200; i++) {
		char port[16];

		snprintf(port, sizeof(port), "%u/%s", 1024 + (i * 7919) % 60000, i % 3 ? "udp" : "tcp");
		add(&(struct fake){"a", "p2p.vendor.example", "45.1.1.1", port, .audited = 1});
	}
	add(&(struct fake){"a", "p2p.vendor.example", "45.1.1.1", "65535/tcp", .audited = 1});
	add(&(struct fake){"a", "p2p.vendor.example", "45.1.1.1", "1/tcp", .audited = 1});
	make_for("web", false);
	assert_int_equal(suggestions.rule_count, 1);
	assert_non_null(strstr(suggestions.rules[0].note, "between those that were seen"));
	expect_all_allowed(AUDIT);
}

/* Sixty-five names and more, each with ports of its own. */
static void add_names_with_ports(size_t count)
{
	for (size_t i = 0; i < count; i++) {
		char name[64], port[16];

		snprintf(name, sizeof(name), "n%zu.vendor.example", i);
		snprintf(port, sizeof(port), "%zu/tcp", 2000 + 2 * i);
		add(&(struct fake){"a", name, "45.1.1.1", port, .audited = 1});
	}
	add(&(struct fake){"a", "www.vendor.example", "45.1.1.1", "443/tcp", .audited = 1});
	add(&(struct fake){"a", "web.vendor.example", "45.1.1.1", "443/tcp", .audited = 1});
}

static void more_port_specifications_than_a_network_can_have_are_made_fewer(void **state)
{
	size_t wider = 0;

	(void)state;
	start(AUDIT);
	add_names_with_ports(300);
	make_for("web", false);
	assert_int_equal(suggestions.rule_count, 302);
	for (size_t i = 0; i < suggestions.rule_count; i++)
		wider += suggestions.rules[i].note != NULL;
	assert_true(wider > 0 && wider < 300);
	assert_null(rule_of("www.vendor.example:443/tcp")->note);
	expect_all_allowed(AUDIT);
	policy_free(paste(AUDIT, true));
}

static char *write_policy(size_t specs, const char *more)
{
	char *text = malloc(65536);
	size_t used = (size_t)sprintf(text, AUDIT "%s", more);

	for (size_t i = 0; i < specs; i++)
		used += (size_t)sprintf(text + used, "allow = own%zu.vendor.example:%zu/udp\n", i, 3000 + 2 * i);
	return text;
}

static void the_network_s_own_port_specifications_count(void **state)
{
	static const struct {
		size_t own;
		const char *more;
		bool fits;
	} table[] = {
		{60, "", true},
		{63, "", true},
		{64, "", false},
		{20, "deny = *.vendor.example:2001/tcp+2003/tcp *.vendor.example:2005/tcp **.example:9/tcp\n", true},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		char *text = write_policy(table[i].own, table[i].more);

		start(text);
		add_names_with_ports(80);
		make_for("web", false);
		policy_free(paste(text, true));
		if (!table[i].fits) {
			assert_int_equal(suggestions.rule_count, 0);
			assert_int_equal(suggestions.skipped_count, 82);
			expect_skipped("www.vendor.example:443/tcp", "64 different port specifications", 1);
		} else {
			assert_int_equal(suggestions.rule_count, 82);
			expect_all_allowed(text);
		}
		free(text);
	}
}

static void sections_have_names_that_are_free(void **state)
{
	static const struct {
		const char *text, *network, *section;
	} table[] = {
		{AUDIT, "web", "suggested-web"},
		{AUDIT "use = suggested-web\n[rules suggested-web]\nallow = a.example:443\n", "web", "suggested-web-2"},
		{AUDIT
		 "use = suggested-web suggested-web-2\n[rules suggested-web]\nallow = a.example:443\n[rules suggested-web-2]\nallow = "
		 "b.example:443\n",
		 "web", "suggested-web-3"},
		{"[network a23456789012345678]\nsubnet = 10.1.0.0/24\n", "a23456789012345678", "suggested-a23456789012345678"},
		{AUDIT "[network a2345678901234567890123456789012]\nsubnet = 10.1.0.0/24\n", "a2345678901234567890123456789012",
		 "suggested-a2345678901234-1"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		start(table[i].text);
		make_for(table[i].network, false);
		assert_string_equal(suggestions.section, table[i].section);
	}
}

static void nothing_gives_nothing(void **state)
{
	(void)state;
	start(AUDIT);
	make_for("web", true);
	assert_int_equal(suggestions.rule_count + suggestions.wildcard_count + suggestions.skipped_count, 0);
}

/* Whatever audit mode saw, the rules pasted allow it. */
static void anything_goes_round(void **state)
{
	static const char *const parents[] = {"vendor.example", "cdn.vendor.example", "co.uk", "github.io", "com", "a.b.c.example"};
	static const unsigned int ports[] = {443, 80, 22, 8443, 123, 5222};
	unsigned int seed = 20261126;

	(void)state;
	for (unsigned int run = 0; run < 200; run++) {
		start(AUDIT "allow = *.cdn.vendor.example:80/tcp a1.vendor.example 45.12.1.0/24:443\ndeny = gone.example\n");
		for (unsigned int i = 0; i < 1 + run; i++) {
			char name[128], address[32], port[16];
			unsigned int kind = (unsigned int)rand_r(&seed) % 4;

			snprintf(name, sizeof(name), "a%u.%s", (unsigned int)rand_r(&seed) % 20,
				 parents[(unsigned int)rand_r(&seed) % COUNT(parents)]);
			snprintf(address, sizeof(address), "45.12.%u.%u", (unsigned int)rand_r(&seed) % 3,
				 1 + (unsigned int)rand_r(&seed) % 9);
			snprintf(port, sizeof(port), "%u/%s", ports[(unsigned int)rand_r(&seed) % COUNT(ports)],
				 rand_r(&seed) % 3 ? "tcp" : "udp");
			if (kind == 0)
				add(&(struct fake){"a", name, NULL, NULL, .audited = 1});
			else
				add(&(struct fake){"a", kind == 1 ? NULL : name, address, port, .audited = 1});
		}
		make_for("web", false);
		assert_int_equal(suggestions.skipped_count, 0);
		expect_all_allowed(AUDIT "allow = *.cdn.vendor.example:80/tcp a1.vendor.example 45.12.1.0/24:443\ndeny = gone.example\n");
	}
}

/* The control command */

static void decide(struct stats *stats, enum decision_event event, const char *name, const char *address, uint16_t port)
{
	struct decision decision = {.event = event,
				    .kind = port ? DECISION_FLOW : DECISION_QUESTION,
				    .network = "web",
				    .source = address_of("10.201.1.11"),
				    .app = "web-1",
				    .destination = address_of(address),
				    .has_port = port,
				    .port = port,
				    .protocol = port ? IPPROTO_TCP : 0,
				    .type = 1,
				    .name = domain_of(name),
				    .reason = REASON_NAME_NOT_ALLOWED,
				    .count = 1};

	stats_count(stats, &decision, WALL);
}

static json_t *call(const struct stats *stats, const char *request_text)
{
	json_t *request = json_loads(request_text, 0, NULL), *answer = suggest_answer(policy, stats, leases, request);

	json_decref(request);
	assert_non_null(answer);
	return answer;
}

static void the_command_answers_from_the_statistics(void **state)
{
	struct stats *stats = stats_new();
	json_t *answer, *network, *rule;

	(void)state;
	start(AUDIT "[network build]\nsubnet = 10.201.2.0/24\n");
	decide(stats, DECISION_AUDIT, "api.vendor.example", NULL, 0);
	decide(stats, DECISION_AUDIT, "api.vendor.example", "45.1.1.1", 443);
	decide(stats, DECISION_AUDIT, "api.vendor.example", "45.1.1.1", 443);
	decide(stats, DECISION_DENIED, "other.vendor.example", NULL, 0);
	answer = call(stats, "{\"network\":\"web\"}");
	assert_true(json_is_true(json_object_get(answer, "ok")));
	assert_int_equal(json_array_size(json_object_get(answer, "networks")), 1);
	network = json_array_get(json_object_get(answer, "networks"), 0);
	assert_string_equal(json_string_value(json_object_get(network, "section")), "suggested-web");
	assert_int_equal(json_array_size(json_object_get(network, "rules")), 1);
	rule = json_array_get(json_object_get(network, "rules"), 0);
	assert_string_equal(json_string_value(json_object_get(rule, "rule")), "api.vendor.example:443/tcp");
	assert_int_equal(json_integer_value(json_object_get(rule, "flows")), 2);
	assert_int_equal(json_integer_value(json_object_get(rule, "questions")), 1);
	assert_string_equal(json_string_value(json_array_get(json_object_get(rule, "apps"), 0)), "web-1");
	json_decref(answer);
	answer = call(stats, "{\"denied\":true}");
	assert_int_equal(json_array_size(json_object_get(answer, "networks")), 2);
	network = json_array_get(json_object_get(answer, "networks"), 0);
	assert_int_equal(json_array_size(json_object_get(network, "rules")), 2);
	json_decref(answer);
	answer = call(stats, "{\"network\":\"nope\"}");
	assert_true(json_is_false(json_object_get(answer, "ok")));
	json_decref(answer);
	stats_free(stats);
}

static int end(void **state)
{
	(void)state;
	clear();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_name_has_one_rule_with_all_its_ports),
		cmocka_unit_test(a_name_only_asked_for_gets_a_guess),
		cmocka_unit_test(addresses_without_a_name_get_rules_of_their_own),
		cmocka_unit_test(what_rules_allow_already_is_left_out),
		cmocka_unit_test(only_the_network_that_is_asked_about_counts),
		cmocka_unit_test(what_no_rule_lifts_is_skipped_with_the_reason),
		cmocka_unit_test(what_audit_passed_is_judged_by_the_policy_of_now),
		cmocka_unit_test(a_name_inside_a_flow_gets_a_rule),
		cmocka_unit_test(a_deny_rule_for_some_ports_leaves_the_others),
		cmocka_unit_test(a_deny_rule_in_the_chain_is_found),
		cmocka_unit_test(names_that_share_an_address_share_its_ports),
		cmocka_unit_test(a_name_that_only_another_network_knows_gets_an_address_rule),
		cmocka_unit_test(networks_with_virtual_addresses_get_no_address_rules),
		cmocka_unit_test(siblings_may_be_one_wildcard),
		cmocka_unit_test(a_wildcard_stands_for_its_names_and_no_others),
		cmocka_unit_test(names_that_no_policy_can_have_are_skipped),
		cmocka_unit_test(too_many_rules_are_counted),
		cmocka_unit_test(too_much_that_is_skipped_is_counted),
		cmocka_unit_test(many_apps_are_cut_short),
		cmocka_unit_test(more_ports_than_a_rule_can_have_become_wider_ranges),
		cmocka_unit_test(more_port_specifications_than_a_network_can_have_are_made_fewer),
		cmocka_unit_test(the_network_s_own_port_specifications_count),
		cmocka_unit_test(sections_have_names_that_are_free),
		cmocka_unit_test(nothing_gives_nothing),
		cmocka_unit_test(anything_goes_round),
		cmocka_unit_test(the_command_answers_from_the_statistics),
	};

	return cmocka_run_group_tests(tests, NULL, end);
}
