/* SPDX-License-Identifier: MIT */
/* Denials in, log lines out of a pipe. Whether anybody answers at 127.0.0.11 makes no difference: named_close() does not wait. */
#include "gateway/denials.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define TEXT_MAX (4 * 1024 * 1024)

struct fixture {
	uv_loop_t loop;
	struct interfaces interfaces;
	struct log *log;
	struct reports *reports;
	struct named *named;
	struct denials *denials;
	int ends[2];
	size_t size;
	char text[TEXT_MAX]; /* what has been read of the log */
};

static const struct network web = {
	.id = 1,
	.name = "web",
	.subnet4 = {.address = {.family = AF_INET, .bytes = {10, 201, 1}}, .length = 24},
	.subnet6 = {.address = {.family = AF_INET6, .bytes = {0xfd, 0xc9, 0, 1}}, .length = 64},
};
static const struct rule rule = {.source = {.file = "sluice.conf", .line = 7}};
static const struct address app = {.family = AF_INET, .bytes = {10, 201, 1, 5}};
static const struct address server = {.family = AF_INET, .bytes = {203, 0, 113, 7}};

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	*state = fixture;
	uv_loop_init(&fixture->loop);
	if (pipe(fixture->ends) != 0 || fcntl(fixture->ends[0], F_SETFL, O_NONBLOCK) != 0 || interfaces_open(&fixture->interfaces) != 0)
		return -1;
	fixture->log = log_new(fixture->ends[1], LOG_TEXT);
	fixture->reports = reports_new(&fixture->loop, fixture->log, -1, -1);
	fixture->named = named_new(&fixture->loop, fixture->reports, &fixture->interfaces);
	fixture->denials = denials_new(&fixture->loop, fixture->log, fixture->named, &fixture->interfaces, false);
	return fixture->denials ? 0 : -1;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	denials_close(fixture->denials);
	named_close(fixture->named);
	reports_close(fixture->reports);
	uv_run(&fixture->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&fixture->loop), 0);
	log_free(fixture->log);
	interfaces_close(&fixture->interfaces);
	close(fixture->ends[0]);
	close(fixture->ends[1]);
	free(fixture);
	return 0;
}

/* Read what the log has for us. */
static void drain(struct fixture *fixture)
{
	for (ssize_t got = 1; got > 0;) {
		log_flush(fixture->log);
		got = read(fixture->ends[0], fixture->text + fixture->size, TEXT_MAX - 1 - fixture->size);
		fixture->size += got > 0 ? (size_t)got : 0;
	}
}

/* Everything that waits is written. Return: all lines without their times. */
static const char *finish(struct fixture *fixture)
{
	char *to = fixture->text;

	denials_close(fixture->denials);
	fixture->denials = NULL;
	named_close(fixture->named);
	fixture->named = NULL;
	drain(fixture);
	for (const char *line = fixture->text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
		const char *event = strchr(line, ' ') + 1;

		memmove(to, event, (size_t)(end + 1 - event));
		to += end + 1 - event;
	}
	*to = '\0';
	return fixture->text;
}

static uint64_t sum_of_counts(const char *text)
{
	uint64_t sum = 0;

	for (const char *at = text; (at = strstr(at, " count=")) != NULL; at++)
		sum += strtoull(at + strlen(" count="), NULL, 10);
	return sum;
}

static unsigned int count_lines(const char *text, const char *with)
{
	unsigned int count = 0;

	for (const char *at = text; (at = strstr(at, with)) != NULL; at++)
		count++;
	return count;
}

static void ask(struct fixture *fixture, struct address client, const char *name, uint16_t type)
{
	struct denied_question question = {
		.network = web.id, .client = client, .type = type, .reason = REASON_NAME_NOT_ALLOWED, .action = "nxdomain"};
	struct domain domain;

	assert_null(domain_parse(name, &domain));
	question.name = &domain;
	denials_question(fixture->denials, &web, NULL, &question);
}

static void test_flows(void **state)
{
	static const struct {
		struct flow flow;
		struct denial denial;
		const char *name, *action, *line;
	} cases[] = {
		{{.protocol = IPPROTO_TCP, .destination_port = 443},
		 {.reason = REASON_NAME_NOT_ALLOWED},
		 "evil.example",
		 "reset",
		 "event=denied network=web src=10.201.1.5 app=- dst=203.0.113.7 port=443 proto=tcp name=evil.example "
		 "reason=name-not-allowed "
		 "rule=default action=reset count=1\n"},
		{{.protocol = IPPROTO_UDP, .destination_port = 53},
		 {.reason = REASON_DENIED_BY_RULE, .rule = &rule},
		 NULL,
		 "unreachable",
		 "event=denied network=web src=10.201.1.5 app=- dst=203.0.113.7 port=53 proto=udp name=- reason=denied-by-rule "
		 "rule=sluice.conf:7 action=unreachable count=1\n"},
		{{.protocol = IPPROTO_TCP, .destination_port = 80},
		 {.reason = REASON_PORT_NOT_ALLOWED, .audited = true},
		 NULL,
		 "reset",
		 "event=audit network=web src=10.201.1.5 app=- dst=203.0.113.7 port=80 proto=tcp name=- reason=port-not-allowed "
		 "rule=default action=allowed count=1\n"},
		{{.protocol = IPPROTO_ICMP},
		 {.reason = REASON_PROTOCOL_NOT_ALLOWED},
		 NULL,
		 "unreachable",
		 "event=denied network=web src=10.201.1.5 app=- dst=203.0.113.7 port=- proto=icmp name=- reason=protocol-not-allowed "
		 "rule=default action=unreachable count=1\n"},
		{{.protocol = 253},
		 {.reason = REASON_PROTOCOL_NOT_ALLOWED},
		 NULL,
		 "unreachable",
		 "event=denied network=web src=10.201.1.5 app=- dst=203.0.113.7 port=- proto=253 name=- reason=protocol-not-allowed "
		 "rule=default action=unreachable count=1\n"},
		{{.protocol = IPPROTO_UDP, .destination_port = 443, .fragment = true},
		 {.reason = REASON_PROTOCOL_NOT_ALLOWED},
		 NULL,
		 "unreachable",
		 "event=denied network=web src=10.201.1.5 app=- dst=203.0.113.7 port=- proto=udp name=- reason=protocol-not-allowed "
		 "rule=default action=unreachable count=1\n"},
	};
	struct fixture *fixture = *state;
	const char *text;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct flow flow = cases[i].flow;
		struct denial denial = cases[i].denial;

		flow.source = app;
		flow.destination = server;
		denial.shown = true; /* no advice about DNS */
		if (cases[i].name)
			assert_null(domain_parse(cases[i].name, &denial.name));
		denials_flow(fixture->denials, &web, NULL, &flow, &denial, cases[i].action);
	}
	text = finish(fixture);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_memory_equal(text, cases[i].line, strlen(cases[i].line));
		text += strlen(cases[i].line);
	}
	assert_string_equal(text, "");
}

/* dns_path.c has the rest. */
static void test_advice_about_dns(void **state)
{
	static const struct {
		enum reason reason;
		bool shown, advised;
	} cases[] = {
		{REASON_ADDRESS_NOT_ALLOWED, false, true}, {REASON_NAME_NOT_ALLOWED, false, true}, {REASON_NAME_NOT_ALLOWED, true, false},
		{REASON_DENIED_BY_RULE, false, false},     {REASON_SPECIAL_ADDRESS, false, false}, {REASON_ISOLATED, false, false},
		{REASON_PORT_NOT_ALLOWED, true, false},    {REASON_LEASE_EXPIRED, true, false},    {REASON_MALFORMED, false, false},
	};
	struct fixture *fixture = *state;
	struct network network = web;
	const struct policy policy = {.networks = &network, .network_count = 1};
	struct address asker = {.family = AF_INET, .bytes = {10, 201, 1, 100}};
	unsigned int advised = 0;
	const char *text;

	denials_asked(fixture->denials, &policy, web.id, &asker);
	denials_asked(fixture->denials, &policy, 99, &asker); /* its network is gone */
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct flow flow = {.source = app, .destination = server, .protocol = IPPROTO_TCP, .destination_port = 443};
		struct denial denial = {.reason = cases[i].reason, .shown = cases[i].shown};

		flow.source.bytes[3] = (uint8_t)(i + 1);
		denials_flow(fixture->denials, &web, NULL, &flow, &denial, "reset");
		flow.source = asker;
		denials_flow(fixture->denials, &web, NULL, &flow, &denial, "reset");
		advised += cases[i].advised;
	}
	text = finish(fixture);
	assert_int_equal(count_lines(text, "event=denied"), 2 * sizeof(cases) / sizeof(cases[0]));
	assert_int_equal(count_lines(text, "event=message"), advised);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char wanted[64];

		snprintf(wanted, sizeof(wanted), "network web: 10.201.1.%zu uses addresses", i + 1);
		assert_int_equal(count_lines(text, wanted), cases[i].advised);
	}
}

static void test_a_flow_without_addresses(void **state)
{
	struct fixture *fixture = *state;
	struct flow flow = {0};
	struct denial denial = {.reason = REASON_MALFORMED};

	denials_flow(fixture->denials, &web, NULL, &flow, &denial, "dropped");
	assert_string_equal(finish(fixture), "event=denied network=web src=- app=- dst=- port=- proto=0 name=- reason=malformed "
					     "rule=default action=dropped count=1\n");
}

static void test_questions(void **state)
{
	struct fixture *fixture = *state;
	struct denied_question question = {.network = 1, .client = app, .reason = REASON_MALFORMED, .action = "formerr"};
	struct domain name;

	denials_question(fixture->denials, &web, NULL, &question);
	assert_null(domain_parse("evil.example", &name));
	question.name = &name;
	question.type = 65;
	question.reason = REASON_DENIED_BY_RULE;
	question.rule = &rule;
	question.action = "nodata";
	denials_question(fixture->denials, &web, NULL, &question);
	question.audited = true;
	question.reason = REASON_NAME_NOT_ALLOWED;
	question.rule = NULL;
	denials_question(fixture->denials, &web, NULL, &question);
	assert_string_equal(
		finish(fixture),
		"event=denied network=web src=10.201.1.5 app=- qname=- qtype=- reason=malformed rule=default action=formerr count=1\n"
		"event=denied network=web src=10.201.1.5 app=- qname=evil.example qtype=HTTPS reason=denied-by-rule rule=sluice.conf:7 "
		"action=nodata count=1\n"
		"event=audit network=web src=10.201.1.5 app=- qname=evil.example qtype=HTTPS reason=name-not-allowed rule=default "
		"action=allowed count=1\n");
}

static void test_counted_packets(void **state)
{
	struct fixture *fixture = *state;
	struct address app6 = {.family = AF_INET6, .bytes = {0xfd, 0xc9, 0, 1, [15] = 5}};

	denials_counted(fixture->denials, NULL, NULL, REASON_QUEUE_FULL, 12);
	denials_counted(fixture->denials, NULL, &server, REASON_SPOOFED_SOURCE, 13);
	denials_counted(fixture->denials, &web, NULL, REASON_REPEATED, 14);
	denials_counted(fixture->denials, &web, &app, REASON_REPEATED, 15);
	denials_counted(fixture->denials, &web, &app6, REASON_MULTICAST, UINT64_C(1) << 40);
	assert_string_equal(finish(fixture),
			    "event=denied network=- src=- app=- what=packets reason=queue-full action=dropped count=12\n"
			    "event=denied network=- src=203.0.113.7 app=- what=packets reason=spoofed-source action=dropped "
			    "count=13\n"
			    "event=denied network=web src=- app=- what=packets reason=repeated action=rejected count=14\n"
			    "event=denied network=web src=fdc9:1::5 app=- what=packets reason=multicast action=dropped "
			    "count=1099511627776\n"
			    "event=denied network=web src=10.201.1.5 app=- what=packets reason=repeated action=rejected "
			    "count=15\n");
}

static void test_a_repeated_question_is_counted(void **state)
{
	struct fixture *fixture = *state;
	const struct address neighbour = {.family = AF_INET, .bytes = {10, 201, 1, 6}};
	const char *text;

	for (int i = 0; i < 20; i++) {
		ask(fixture, app, "evil.example", 1);
		ask(fixture, app, "evil.example", 28);
	}
	ask(fixture, neighbour, "evil.example", 1);
	text = finish(fixture);
	assert_int_equal(count_lines(text, "src=10.201.1.5 app=- qname=evil.example qtype=A "), 1);
	assert_int_equal(count_lines(text, "src=10.201.1.5 app=- qname=evil.example qtype=AAAA "), 1);
	assert_int_equal(count_lines(text, "src=10.201.1.6 app=- qname=evil.example qtype=A "), 1);
	assert_non_null(strstr(text, "src=10.201.1.5 app=- what=questions reason=repeated action=answered count=38\n"));
	assert_int_equal(sum_of_counts(text), 41);
}

static void test_questions_above_the_rate_are_counted(void **state)
{
	struct fixture *fixture = *state;
	const char *text;
	char name[64];

	for (int i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "t%d.evil.example", i);
		ask(fixture, app, name, 1);
	}
	text = finish(fixture);
	assert_int_equal(count_lines(text, "qname="), DENIALS_QUESTIONS_RATE);
	assert_int_equal(sum_of_counts(text), 3000);
}

static void test_more_sources_than_there_is_room_for_are_counted(void **state)
{
	struct fixture *fixture = *state;
	const unsigned int sources = 6000;
	const char *text;

	for (unsigned int i = 0; i < sources; i++) {
		struct address source = {.family = AF_INET6,
					 .bytes = {0xfd, 0xc9, 0, 1, [14] = (uint8_t)(i >> 8), [15] = (uint8_t)(i & 0xff)}};

		ask(fixture, source, "evil.example", 1);
		ask(fixture, source, "evil.example", 1);
		if (i % 100 == 0)
			drain(fixture);
	}
	text = finish(fixture);
	assert_int_equal(sum_of_counts(text), 2 * sources);
	assert_int_equal(count_lines(text, "network=web src=- app=- what=questions"), 1);
}

int main(void)
{
#define DENIALS_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		DENIALS_TEST(test_flows),
		DENIALS_TEST(test_advice_about_dns),
		DENIALS_TEST(test_a_flow_without_addresses),
		DENIALS_TEST(test_questions),
		DENIALS_TEST(test_counted_packets),
		DENIALS_TEST(test_a_repeated_question_is_counted),
		DENIALS_TEST(test_questions_above_the_rate_are_counted),
		DENIALS_TEST(test_more_sources_than_there_is_room_for_are_counted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
