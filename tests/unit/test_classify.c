/* SPDX-License-Identifier: MIT */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/classify.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define NOW          1000000ULL /* ms of the leases' clock */
#define WALL         1000       /* s of the wall clock */

static struct address address_of(const char *text)
{
	struct address out;
	if (!address_parse(text, &out))
		fail_msg("%s is no address", text);
	return out;
}

/* A packet under construction. */
struct packet {
	uint8_t bytes[512];
	size_t size;
};

static void add(struct packet *packet, const char *hex)
{
	unsigned int byte;
	for (const char *at = hex; *at; at += 2) {
		while (*at == ' ')
			at++;
		assert_int_equal(sscanf(at, "%2x", &byte), 1);
		packet->bytes[packet->size++] = (uint8_t)byte;
	}
}

#define IP4     "4500 0000 0000 4000 40 06 0000 0ac90105 cb007107" /* 10.201.1.5 > 203.0.113.7, TCP, length left open */
#define IP6     "60000000 0000 06 40 fdc90001000000000000000000000005 20010db8000000000000000000000007"
#define TCP_SYN "d431 01bb 00000000 00000000 5002 ffff 0000 0000" /* 54321 > 443 */
#define UDP_443 "d431 01bb 0008 0000"

static struct packet build(const char *ip, const char *rest)
{
	struct packet packet = {.size = 0};
	add(&packet, ip);
	add(&packet, rest);
	return packet;
}

static void test_plain_ipv4(void **state)
{
	(void)state;
	struct flow flow;
	struct packet packet = build(IP4, TCP_SYN);
	assert_true(classify_packet(packet.bytes, packet.size, &flow));
	struct address source = address_of("10.201.1.5"), destination = address_of("203.0.113.7");
	assert_true(address_equal(&flow.source, &source));
	assert_true(address_equal(&flow.destination, &destination));
	assert_int_equal(flow.protocol, IPPROTO_TCP);
	assert_int_equal(flow.source_port, 54321);
	assert_int_equal(flow.destination_port, 443);
	assert_int_equal(flow.tcp_flags, 0x02);
	assert_false(flow.fragment);
}

/* What the transport bytes after a header come to: port -1 for malformed. */
struct parse_case {
	const char *what, *ip, *rest;
	uint8_t protocol;
	int port;
	bool fragment;
};

static const struct parse_case parse_cases[] = {
	{"options", "4700 0000 0000 0000 40 06 0000 0ac90105 cb007107", "01010101 01010100" TCP_SYN, 6, 443, false},
	{"UDP", "4500 001c 0000 0000 40 11 0000 0ac90105 cb007107", UDP_443, 17, 443, false},
	{"bytes behind the total length do not count", "4500 0018 0000 0000 40 11 0000 0ac90105 cb007107", UDP_443, 17, -1, false},
	{"UDP length below its header", "4500 0000 0000 0000 40 11 0000 0ac90105 cb007107", "d431 01bb 0007 0000", 17, -1, false},
	{"later fragment", "4500 0000 0000 2001 40 06 0000 0ac90105 cb007107", "ffff ffff", 6, 0, true},
	{"first fragment", "4500 0000 0000 2000 40 06 0000 0ac90105 cb007107", TCP_SYN, 6, 443, false},
	{"header length below 20", "4400 0000 0000 0000 40 06 0000 0ac90105 cb007107", TCP_SYN, 6, -1, false},
	{"header longer than the packet", "4f00 0000 0000 0000 40 06 0000 0ac90105 cb007107", TCP_SYN, 6, -1, false},
	{"total length below the header", "4500 0010 0000 0000 40 06 0000 0ac90105 cb007107", TCP_SYN, 6, -1, false},
	{"cut TCP header", IP4, "d431 01bb 00000000 00000000 5002 ffff 0000 00", 6, -1, false},
	{"TCP data offset below 5", IP4, "d431 01bb 00000000 00000000 4002 ffff 0000 0000", 6, -1, false},
	{"ICMP echo", "4500 0000 0000 0000 40 01 0000 0ac90105 cb007107", "0800 0000 0000 0000", 1, 0, false},
	{"cut ICMP", "4500 0000 0000 0000 40 01 0000 0ac90105 cb007107", "0800 0000 0000", 1, -1, false},
	{"SCTP", "4500 0000 0000 0000 40 84 0000 0ac90105 cb007107", "d431 01bb 00000000 00000000", 132, 443, false},
	{"protocol without ports", "4500 0000 0000 0000 40 2f 0000 0ac90105 cb007107", "", 47, 0, false},
	{"IPv6", IP6, TCP_SYN, 6, 443, false},
	{"IPv6 payload length", "60000000 0007 11 40 fdc90001000000000000000000000005 20010db8000000000000000000000007", UDP_443, 17, -1,
	 false},
	{"hop-by-hop, routing, destination options",
	 "60000000 0000 00 40 fdc90001000000000000000000000005 20010db8000000000000000000000007",
	 "2b 00 000000000000 3c 01 0000000000000000000000000000 11 00 000000000000" UDP_443, 17, 443, false},
	{"AH", "60000000 0000 33 40 fdc90001000000000000000000000005 20010db8000000000000000000000007",
	 "11 04 0000 00000000 00000000 000000000000000000000000" UDP_443, 17, 443, false},
	{"IPv6 first fragment", "60000000 0000 2c 40 fdc90001000000000000000000000005 20010db8000000000000000000000007",
	 "11 00 0001 00000000" UDP_443, 17, 443, false},
	{"IPv6 later fragment", "60000000 0000 2c 40 fdc90001000000000000000000000005 20010db8000000000000000000000007",
	 "11 00 0008 00000000 ffff", 17, 0, true},
	{"IPv6 later fragment of options", "60000000 0000 2c 40 fdc90001000000000000000000000005 20010db8000000000000000000000007",
	 "00 00 0008 00000000 ffff", 0, 0, true},
	{"extension header longer than the packet", "60000000 0000 00 40 fdc90001000000000000000000000005 20010db8000000000000000000000007",
	 "11 ff 000000000000" UDP_443, 17, -1, false},
	{"no next header", "60000000 0000 3b 40 fdc90001000000000000000000000005 20010db8000000000000000000000007", "", 59, 0, false},
	{"ICMPv6", "60000000 0000 3a 40 fdc90001000000000000000000000005 20010db8000000000000000000000007", "8000 0000 0000 0000", 58, 0,
	 false},
};

static void test_parse_table(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(parse_cases); i++) {
		const struct parse_case *c = &parse_cases[i];
		struct packet packet = build(c->ip, c->rest);
		struct flow flow;
		bool parsed = classify_packet(packet.bytes, packet.size, &flow);
		if (parsed != (c->port >= 0))
			fail_msg("%s: parsed %d", c->what, parsed);
		if (flow.source.family == 0)
			fail_msg("%s: the addresses are missing", c->what);
		if (parsed && (flow.destination_port != c->port || flow.protocol != c->protocol || flow.fragment != c->fragment))
			fail_msg("%s: port %u protocol %u fragment %d", c->what, flow.destination_port, flow.protocol, flow.fragment);
	}
}

static void test_endless_extension_headers(void **state)
{
	(void)state;
	struct flow flow;
	struct packet packet = build("60000000 0000 00 40 fdc90001000000000000000000000005 20010db8000000000000000000000007", "");
	for (int i = 0; i < 50; i++)
		add(&packet, "3c 00 000000000000");
	assert_false(classify_packet(packet.bytes, packet.size, &flow));
}

static void test_every_cut_is_survived(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(parse_cases); i++) {
		struct packet packet = build(parse_cases[i].ip, parse_cases[i].rest);
		for (size_t size = 0; size < packet.size; size++) {
			/* A copy of the exact size: a sanitizer sees reads behind it. */
			uint8_t *copy = malloc(size + !size);
			struct flow flow;
			memcpy(copy, packet.bytes, size);
			bool parsed = classify_packet(copy, size, &flow);
			free(copy);
			if (size < 20)
				assert_false(parsed);
		}
	}
	struct flow flow;
	assert_false(classify_packet((const uint8_t *)"\x55", 1, &flow));
	assert_int_equal(flow.destination.family, 0);
}

/* The policy of the tests below: two networks, one of them with rules. */
static void add_rule(struct policy *policy, struct network *network, enum rule_action action, const char *what, const char *ports)
{
	struct rule *rule = policy_rule(policy, &(struct rule){.action = action});
	const char *warning;
	assert_non_null(rule);
	network->rules[network->rule_count++] = rule;
	rule->text = what;
	rule->source = (struct source){"test", (unsigned int)network->rule_count};
	rule->ports_given = ports != NULL;
	rule->ports = ports_all();
	if (ports)
		assert_null(ports_parse(ports, &rule->ports));
	rule->kind = prefix_parse(what, &rule->prefix, NULL) ? RULE_ADDRESS : RULE_NAME;
	if (rule->kind == RULE_NAME)
		assert_null(pattern_parse(what, &rule->pattern, &warning));
}

enum { LINE_API = 1, LINE_SSH, LINE_GIST, LINE_BLOCK, LINE_SERVER, LINE_DB };

static struct policy *make_policy(enum network_mode mode)
{
	struct policy *policy = policy_new();
	struct source where;
	char error[256] = "";
	assert_non_null(policy);
	policy->networks = calloc(2, sizeof(*policy->networks));
	policy->network_count = 2;
	struct network *web = &policy->networks[0], *other = &policy->networks[1];
	strcpy(web->name, "web");
	strcpy(other->name, "other");
	web->mode = mode;
	web->default_ports = other->default_ports = ports_all();
	assert_true(prefix_parse("10.201.1.0/24", &web->subnet4, NULL));
	assert_true(prefix_parse("10.201.2.0/24", &other->subnet4, NULL));
	assert_true(prefix_parse("fdc9:2::/64", &other->subnet6, NULL));
	web->rules = calloc(8, sizeof(*web->rules));
	add_rule(policy, web, RULE_ALLOW, "api.example.com", "443");
	add_rule(policy, web, RULE_ALLOW, "ssh.example.com", "22/tcp");
	add_rule(policy, web, RULE_DENY, "gist.example.com", NULL);
	add_rule(policy, web, RULE_DENY, "198.51.100.66", NULL);
	add_rule(policy, web, RULE_ALLOW, "198.51.100.0/24", "8443/tcp");
	add_rule(policy, web, RULE_ALLOW, "db.example.com", "5432/tcp");
	web->privates = calloc(1, sizeof(*web->privates));
	assert_true(prefix_parse("192.168.7.0/24", web->privates, NULL));
	web->private_count = 1;
	if (policy_finish(policy, error, sizeof(error), &where) != 0)
		fail_msg("%s", error);
	struct prefix own[2];
	assert_true(prefix_parse("203.0.113.250", &own[0], NULL));
	assert_true(prefix_parse("203.0.113.240/28", &own[1], NULL));
	assert_int_equal(policy_set_own(policy, own, 2), 0);
	return policy;
}

/* A lease of @name with the specs that the policy gives it now. */
static void lease(struct lease_table *leases, const struct policy *policy, size_t network, const char *address, const char *name,
		  uint64_t until, bool audited)
{
	struct lease entry = {.address = address_of(address), .network = policy->networks[network].id, .until = until, .audited = audited};
	assert_null(domain_parse(name, &entry.name));
	entry.specs = policy_judge_name(&policy->networks[network], &entry.name, WALL).specs;
	assert_int_equal(lease_put(leases, &entry), 0);
}

/* An ended lease of @name, an alias of @target. */
static void alias_lease(struct lease_table *leases, const struct policy *policy, const char *address, const char *name, const char *target)
{
	struct lease entry = {.address = address_of(address), .network = policy->networks[0].id, .until = NOW};
	struct domain end;

	assert_null(domain_parse(name, &entry.name));
	assert_null(domain_parse(target, &end));
	entry.chain = (struct chain){end.wire, end.length};
	assert_int_equal(lease_put(leases, &entry), 0);
}

struct judge_case {
	const char *destination;
	uint16_t port;
	uint8_t protocol;
	enum reason reason;
	unsigned int line; /* 0: default */
	const char *name;  /* NULL: not known */
	bool lifted;       /* audit mode lets it pass */
};

static const struct judge_case judge_cases[] = {
	/* nothing known */
	{"8.8.4.4", 443, IPPROTO_TCP, REASON_ADDRESS_NOT_ALLOWED, 0, NULL, true},
	{"8.8.4.4", 443, IPPROTO_UDP, REASON_ADDRESS_NOT_ALLOWED, 0, NULL, true},
	{"8.8.4.4", 0, IPPROTO_ICMP, REASON_PROTOCOL_NOT_ALLOWED, 0, NULL, false},
	{"8.8.4.4", 443, IPPROTO_SCTP, REASON_PROTOCOL_NOT_ALLOWED, 0, NULL, false},
	/* isolation */
	{"10.201.2.9", 443, IPPROTO_TCP, REASON_ISOLATED, 0, NULL, false},
	{"10.201.2.9", 0, IPPROTO_ICMP, REASON_ISOLATED, 0, NULL, false},
	{"fdc9:2::9", 443, IPPROTO_TCP, REASON_ISOLATED, 0, NULL, false},
	{"203.0.113.250", 443, IPPROTO_TCP, REASON_ISOLATED, 0, NULL, false},
	/* special-purpose space and the uplink's subnet */
	{"169.254.169.254", 80, IPPROTO_TCP, REASON_SPECIAL_ADDRESS, 0, NULL, false},
	{"203.0.113.241", 80, IPPROTO_TCP, REASON_SPECIAL_ADDRESS, 0, NULL, false},
	{"192.168.9.9", 80, IPPROTO_TCP, REASON_SPECIAL_ADDRESS, 0, "elsewhere.example.com", false},
	{"192.168.8.8", 80, IPPROTO_TCP, REASON_SPECIAL_ADDRESS, 0, "unlisted.example.com", false},
	{"192.168.7.8", 80, IPPROTO_TCP, REASON_NAME_NOT_ALLOWED, 0, "unlisted.example.com", true},
	/* address rules */
	{"198.51.100.66", 8443, IPPROTO_TCP, REASON_DENIED_BY_RULE, LINE_BLOCK, NULL, false},
	{"198.51.100.9", 443, IPPROTO_TCP, REASON_PORT_NOT_ALLOWED, LINE_SERVER, NULL, true},
	{"198.51.100.9", 8443, IPPROTO_TCP, REASON_NONE, LINE_SERVER, NULL, false},
	/* own leases */
	{"9.9.9.1", 443, IPPROTO_TCP, REASON_NONE, 0, "api.example.com", false},
	{"9.9.9.1", 443, IPPROTO_UDP, REASON_NONE, 0, "api.example.com", false},
	{"9.9.9.1", 80, IPPROTO_TCP, REASON_PORT_NOT_ALLOWED, LINE_API, "api.example.com", true},
	{"9.9.9.1", 0, IPPROTO_ICMP, REASON_PROTOCOL_NOT_ALLOWED, 0, "api.example.com", false},
	{"9.9.9.2", 443, IPPROTO_TCP, REASON_LEASE_EXPIRED, LINE_API, "api.example.com", true},
	{"9.9.9.2", 80, IPPROTO_TCP, REASON_PORT_NOT_ALLOWED, LINE_API, "api.example.com", true},
	{"9.9.9.3", 22, IPPROTO_TCP, REASON_NONE, 0, "api.example.com", false}, /* a second name has this port */
	{"9.9.9.3", 22, IPPROTO_UDP, REASON_PORT_NOT_ALLOWED, LINE_API, "api.example.com", true},
	/* names that are not allowed any more */
	{"9.9.9.4", 443, IPPROTO_TCP, REASON_DENIED_BY_RULE, LINE_GIST, "gist.example.com", false},
	{"9.9.9.5", 443, IPPROTO_TCP, REASON_NAME_NOT_ALLOWED, 0, "gone.example.com", true},
	/* an alias of a name that is denied now, and of one that is merely not allowed */
	{"9.9.9.8", 443, IPPROTO_TCP, REASON_DENIED_BY_RULE, LINE_GIST, "api.example.com", false},
	{"9.9.9.9", 443, IPPROTO_TCP, REASON_LEASE_EXPIRED, LINE_API, "api.example.com", true},
	/* names known from elsewhere */
	{"9.9.9.6", 443, IPPROTO_TCP, REASON_NAME_NOT_ALLOWED, 0, "elsewhere.example.com", true},
	{"9.9.9.7", 443, IPPROTO_TCP, REASON_NAME_NOT_ALLOWED, 0, "unlisted.example.com", true},
};

static struct lease_table *make_leases(const struct policy *policy)
{
	struct lease_table *leases = lease_table_new();
	assert_non_null(leases);
	lease(leases, policy, 0, "9.9.9.1", "api.example.com", NOW + 1, false);
	lease(leases, policy, 0, "9.9.9.2", "api.example.com", NOW, false);
	lease(leases, policy, 0, "9.9.9.3", "api.example.com", NOW + 2000, false);
	lease(leases, policy, 0, "9.9.9.3", "ssh.example.com", NOW + 1000, false);
	lease(leases, policy, 0, "9.9.9.4", "gist.example.com", NOW + 1000, false);
	lease(leases, policy, 0, "9.9.9.5", "gone.example.com", NOW + 1000, false);
	lease(leases, policy, 1, "9.9.9.6", "elsewhere.example.com", NOW + 1000, false);
	lease(leases, policy, 0, "9.9.9.7", "unlisted.example.com", NOW + 1000, true);
	alias_lease(leases, policy, "9.9.9.8", "api.example.com", "gist.example.com");
	alias_lease(leases, policy, "9.9.9.9", "api.example.com", "gone.example.com");
	lease(leases, policy, 1, "192.168.9.9", "elsewhere.example.com", NOW + 1000, false);
	lease(leases, policy, 0, "192.168.8.8", "unlisted.example.com", NOW + 1000, true);
	lease(leases, policy, 0, "192.168.7.8", "unlisted.example.com", NOW + 1000, true);
	return leases;
}

static void check_judgement(const struct policy *policy, const struct lease_table *leases, const struct judge_case *c)
{
	struct flow flow = {.source = address_of("10.201.1.5"),
			    .destination = address_of(c->destination),
			    .protocol = c->protocol,
			    .destination_port = c->port};
	struct denial denial = classify_judge(policy, &policy->networks[0], leases, &flow, true, false, NOW, WALL);
	char name[DOMAIN_TEXT_MAX] = "-";
	unsigned int line = denial.rule ? denial.rule->source.line : 0;
	bool audit = policy->networks[0].mode == MODE_AUDIT;
	if (denial.name.length)
		domain_format(&denial.name, name);
	if (denial.reason != c->reason || line != c->line || strcmp(name, c->name ? c->name : "-") != 0 ||
	    denial.audited != (audit && c->lifted))
		fail_msg("%s port %u protocol %u: %s by line %u, name %s, audited %d", c->destination, c->port, c->protocol,
			 reason_name(denial.reason), line, name, denial.audited);
}

static void test_judge_table(void **state)
{
	(void)state;
	for (int mode = MODE_ENFORCE; mode <= MODE_AUDIT; mode++) {
		struct policy *policy = make_policy((enum network_mode)mode);
		struct lease_table *leases = make_leases(policy);
		for (size_t i = 0; i < COUNT(judge_cases); i++)
			check_judgement(policy, leases, &judge_cases[i]);
		lease_table_free(leases);
		policy_free(policy);
	}
}

static void test_malformed_local_and_fragments(void **state)
{
	(void)state;
	struct policy *policy = make_policy(MODE_AUDIT);
	struct lease_table *leases = make_leases(policy);
	const struct network *web = &policy->networks[0];
	struct flow flow = {.destination = address_of("9.9.9.1"), .protocol = IPPROTO_TCP, .destination_port = 443};
	struct denial denial = classify_judge(policy, web, leases, &flow, false, false, NOW, WALL);
	assert_int_equal(denial.reason, REASON_MALFORMED);
	assert_false(denial.audited);
	denial = classify_judge(policy, web, leases, &flow, true, true, NOW, WALL);
	assert_int_equal(denial.reason, REASON_ISOLATED);
	assert_false(denial.audited);
	flow.fragment = true;
	denial = classify_judge(policy, web, leases, &flow, true, false, NOW, WALL);
	assert_int_equal(denial.reason, REASON_PROTOCOL_NOT_ALLOWED);
	assert_false(denial.audited);
	flow = (struct flow){.protocol = 0};
	denial = classify_judge(policy, web, leases, &flow, false, false, NOW, WALL);
	assert_int_equal(denial.reason, REASON_MALFORMED);
	lease_table_free(leases);
	policy_free(policy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain_ipv4),
		cmocka_unit_test(test_parse_table),
		cmocka_unit_test(test_endless_extension_headers),
		cmocka_unit_test(test_every_cut_is_survived),
		cmocka_unit_test(test_judge_table),
		cmocka_unit_test(test_malformed_local_and_fragments),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
