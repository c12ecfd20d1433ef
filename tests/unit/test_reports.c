/* SPDX-License-Identifier: MIT */
/* From a decision to everything that is made of it. */
#include "gateway/report/reports.h"

#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#define DECISIONS_VARIABLE "SLUICE_TEST_DECISIONS" /* how many the test of memory tells */
#define DECISIONS          60000

struct fixture {
	uv_loop_t loop;
	int ends[2];
	struct log *log;
	struct reports *reports;
};

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	uv_loop_init(&fixture->loop);
	assert_int_equal(pipe(fixture->ends), 0);
	assert_int_equal(fcntl(fixture->ends[0], F_SETFL, O_NONBLOCK), 0);
	fixture->log = log_new(fixture->ends[1], LOG_TEXT);
	fixture->reports = reports_new(&fixture->loop, fixture->log, -1, -1);
	assert_non_null(fixture->reports);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	reports_close(fixture->reports);
	uv_run(&fixture->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&fixture->loop), 0);
	log_free(fixture->log);
	close(fixture->ends[0]);
	close(fixture->ends[1]);
	free(fixture);
	return 0;
}

static struct decision denial(const char *name)
{
	struct decision decision = {
		.event = DECISION_DENIED,
		.kind = DECISION_FLOW,
		.network = "web",
		.source = {.family = AF_INET, .bytes = {10, 201, 1, 5}},
		.app = "web-1",
		.destination = {.family = AF_INET, .bytes = {203, 0, 113, 7}},
		.has_port = true,
		.port = 443,
		.protocol = IPPROTO_TCP,
		.reason = REASON_NAME_NOT_ALLOWED,
		.rule = "default",
		.action = "reset",
		.count = 1,
	};

	assert_null(domain_parse(name, &decision.name));
	return decision;
}

static size_t read_log(struct fixture *fixture, char *out, size_t size)
{
	ssize_t got;

	log_flush(fixture->log);
	got = read(fixture->ends[0], out, size - 1);
	out[got > 0 ? got : 0] = '\0';
	return got > 0 ? (size_t)got : 0;
}

/* What a listener hears. */
struct heard {
	unsigned int lines, denied;
	char last[2048];
};

static void on_line(void *context, bool denied, const char *json, size_t size)
{
	struct heard *heard = context;

	heard->lines++;
	heard->denied += denied;
	assert_int_equal(strlen(json), size);
	snprintf(heard->last, sizeof(heard->last), "%s", json);
}

static void a_denial_reaches_all(void **state)
{
	struct fixture *fixture = *state;
	struct decision decision = denial("evil.example");
	struct heard first = {0}, second = {0};
	struct reports_listener one = {.line = on_line, .context = &first}, other = {.line = on_line, .context = &second};
	char text[4096];
	json_t *object;

	reports_listen(fixture->reports, &one);
	reports_listen(fixture->reports, &other);
	reports_tell(fixture->reports, &decision, true);
	reports_unlisten(&one);
	reports_unlisten(&one);
	reports_tell(fixture->reports, &decision, false);
	reports_unlisten(&other);
	assert_int_equal(first.lines, 1);
	assert_int_equal(second.lines, 2);
	assert_int_equal(second.denied, 2);
	object = json_loads(second.last, 0, NULL);
	assert_string_equal(json_string_value(json_object_get(object, "event")), "denied");
	assert_string_equal(json_string_value(json_object_get(object, "name")), "evil.example");
	assert_int_equal(json_integer_value(json_object_get(object, "port")), 443);
	json_decref(object);
	read_log(fixture, text, sizeof(text));
	assert_non_null(strstr(text,
			       " event=denied network=web src=10.201.1.5 app=web-1 dst=203.0.113.7 port=443 proto=tcp name=evil.example "
			       "reason=name-not-allowed rule=default action=reset count=1\n"));
	assert_null(strstr(strchr(text, '\n'), "event=denied")); /* the second one was not to be logged */
	assert_int_equal(stats_count_rows(reports_stats(fixture->reports)), 1);
}

static void a_line_has_what_the_flow_itself_asked_for(void **state)
{
	static const struct {
		const char *name, *real, *sni; /* NULL: none */
		bool has_sni;
		enum reason reason;
		const char *text, *json;
	} table[] = {
		{"api.example", NULL, "front.example", true, REASON_SNI_MISMATCH,
		 " proto=tcp name=api.example sni=front.example reason=sni-mismatch rule=default action=reset count=1\n",
		 ",\"name\":\"api.example\",\"sni\":\"front.example\",\"reason\":\"sni-mismatch\","},
		{"api.example", "198.51.100.7", "front.example", true, REASON_SNI_MISMATCH,
		 " name=api.example real=198.51.100.7 sni=front.example reason=sni-mismatch ",
		 ",\"real\":\"198.51.100.7\",\"sni\":\"front.example\","},
		{"api.example", NULL, NULL, true, REASON_NO_NAME, " name=api.example sni=- reason=no-name ",
		 ",\"name\":\"api.example\",\"sni\":null,\"reason\":\"no-name\","},
		{"api.example", NULL, NULL, false, REASON_NAME_NOT_ALLOWED, " name=api.example reason=name-not-allowed ",
		 ",\"name\":\"api.example\",\"reason\":\"name-not-allowed\","},
	};
	struct fixture *fixture = *state;
	struct heard heard = {0};
	struct reports_listener listener = {.line = on_line, .context = &heard};
	char text[4096];

	reports_listen(fixture->reports, &listener);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct decision decision = denial(table[i].name);

		decision.reason = table[i].reason;
		decision.has_sni = table[i].has_sni;
		if (table[i].real)
			assert_true(address_parse(table[i].real, &decision.real));
		if (table[i].sni)
			assert_null(domain_parse(table[i].sni, &decision.sni));
		reports_tell(fixture->reports, &decision, true);
		read_log(fixture, text, sizeof(text));
		if (!strstr(text, table[i].text) || !strstr(heard.last, table[i].json))
			fail_msg("%s\n%s", text, heard.last);
	}
	reports_unlisten(&listener);
}

static void the_json_log_has_the_line_that_listeners_get(void **state)
{
	struct fixture *fixture = *state;
	struct decision decision = denial("evil.example");
	struct heard heard = {0};
	struct reports_listener listener = {.line = on_line, .context = &heard};
	char text[4096];

	log_set_format(fixture->log, LOG_JSON);
	reports_listen(fixture->reports, &listener);
	reports_tell(fixture->reports, &decision, true);
	reports_unlisten(&listener);
	read_log(fixture, text, sizeof(text));
	strcat(heard.last, "\n");
	assert_string_equal(text, heard.last);
}

static void an_ended_flow_says_what_it_carried(void **state)
{
	struct fixture *fixture = *state;
	struct decision decision = denial("api.example");
	char text[4096];

	decision.event = DECISION_ENDED;
	decision.traffic = (struct traffic){.bytes_out = 1200, .bytes_in = 34567, .packets_out = 8, .packets_in = 30};
	decision.duration = 1250;
	strcpy(decision.action, "allowed");
	reports_tell(fixture->reports, &decision, true);
	decision.has_duration = true;
	reports_tell(fixture->reports, &decision, true);
	read_log(fixture, text, sizeof(text));
	assert_non_null(strstr(text,
			       " event=ended network=web src=10.201.1.5 app=web-1 dst=203.0.113.7 port=443 proto=tcp name=api.example "
			       "rule=default bytes_out=1200 bytes_in=34567 packets_out=8 packets_in=30 duration=- action=allowed "
			       "count=1\n"));
	assert_non_null(strstr(text, " duration=1250 action=allowed count=1\n"));
}

static void seen_row(void *context, const struct stats_row *row)
{
	char text[DOMAIN_TEXT_MAX];

	assert_string_equal(domain_format(&row->name, text), "git.example");
	assert_int_equal(row->numbers.allowed, 1);
	assert_int_equal(row->numbers.traffic.bytes_in, 34567);
	(*(unsigned int *)context)++;
}

static void a_verified_flow_has_one_name_everywhere(void **state)
{
	struct fixture *fixture = *state;
	struct decision decision = denial("git.example");
	unsigned int rows = 0;
	char text[4096];

	decision.event = DECISION_ALLOWED;
	decision.has_sni = true;
	decision.sni = decision.name;
	strcpy(decision.action, "allowed");
	reports_tell(fixture->reports, &decision, true);
	decision.event = DECISION_ENDED;
	decision.traffic = (struct traffic){.bytes_in = 34567};
	reports_tell(fixture->reports, &decision, true);
	read_log(fixture, text, sizeof(text));
	assert_non_null(strstr(text,
			       " event=allowed network=web src=10.201.1.5 app=web-1 dst=203.0.113.7 port=443 proto=tcp name=git.example "
			       "sni=git.example rule=default action=allowed count=1\n"));
	assert_non_null(strstr(text, " name=git.example sni=git.example rule=default bytes_out=0 bytes_in=34567 "));
	stats_each(reports_stats(fixture->reports), seen_row, &rows);
	assert_int_equal(rows, 1);
}

static void keep_line(void *context, const char *json, size_t size)
{
	char *text = context;

	assert_int_equal(strlen(json), size);
	snprintf(text + strlen(text), 2048, "%s\n", json);
}

/* Its line is made when somebody looks, and is the one that a listener would have got. */
static void what_nobody_listened_to_is_told_later(void **state)
{
	const struct timespec moment = {.tv_nsec = 20 * 1000 * 1000};
	struct fixture *fixture = *state;
	struct decision decision = denial("git.example");
	struct heard heard = {0};
	struct reports_listener listener = {.line = on_line, .context = &heard};
	char text[8192] = "", again[8192] = "", *second;

	decision.event = DECISION_ALLOWED;
	strcpy(decision.action, "allowed");
	reports_tell(fixture->reports, &decision, false);
	reports_listen(fixture->reports, &listener);
	reports_tell(fixture->reports, &decision, false);
	reports_unlisten(&listener);
	nanosleep(&moment, NULL);
	recent_each(reports_recent(fixture->reports), 10, false, keep_line, text);
	recent_each(reports_recent(fixture->reports), 10, false, keep_line, again);
	assert_string_equal(text, again);
	second = strchr(text, '\n') + 1;
	assert_int_equal(strncmp(second, heard.last, strlen(heard.last)), 0);
	/* Told before the other one, though made after it; but for that they are the same. */
	assert_true(strncmp(text, second, strcspn(text, ",")) <= 0);
	assert_int_equal(strncmp(strchr(text, ','), strchr(second, ','), strlen(strchr(second, ','))), 0);
}

/* A hundred apps, ever-new names: what is kept has an end. */
static void memory_is_bounded(void **state)
{
	const char *text = getenv(DECISIONS_VARIABLE);
	unsigned long decisions = text ? strtoul(text, NULL, 10) : DECISIONS;
	struct fixture *fixture = *state;
	size_t half = 0, end;
	char name[64];

	for (unsigned long i = 0; i < decisions; i++) {
		struct decision decision;

		snprintf(name, sizeof(name), "n%lu.evil.example", i);
		decision = denial(name);
		snprintf(decision.app, sizeof(decision.app), "app-%lu", i % 100);
		decision.source.bytes[3] = (uint8_t)(i % 100);
		reports_tell(fixture->reports, &decision, false);
		if (i == decisions / 2)
			half = mallinfo2().uordblks;
	}
	end = mallinfo2().uordblks;
	print_message("%lu denials: %zu octets in use after half of them, %zu after all\n", decisions, half, end);
	assert_true(end <= half + half / 10); /* the sanitizers have an allocator of their own: 0 and 0 */
}

/* The line stays when the file's name does not fit. */
static void a_rule_is_its_file_and_line(void **state)
{
	char file[2 * DECISION_RULE_MAX], cut[DECISION_RULE_MAX];
	struct source source = {.file = "policy.conf", .line = 4294967295U};
	struct decision decision = denial("evil.example");

	(void)state;
	decision_set_rule(&decision, &source);
	assert_string_equal(decision.rule, "policy.conf:4294967295");
	source.line = 0;
	decision_set_rule(&decision, &source);
	assert_string_equal(decision.rule, "policy.conf:0");
	memset(file, 'a', sizeof(file) - 1);
	file[sizeof(file) - 1] = '\0';
	memset(cut, 'a', sizeof(cut));
	memcpy(cut + sizeof(cut) - sizeof(":70"), ":70", sizeof(":70"));
	source = (struct source){.file = file, .line = 70};
	decision_set_rule(&decision, &source);
	assert_string_equal(decision.rule, cut);
}

int main(void)
{
#define REPORTS_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		REPORTS_TEST(a_line_has_what_the_flow_itself_asked_for),    REPORTS_TEST(a_denial_reaches_all),
		REPORTS_TEST(the_json_log_has_the_line_that_listeners_get), REPORTS_TEST(an_ended_flow_says_what_it_carried),
		REPORTS_TEST(a_verified_flow_has_one_name_everywhere),      REPORTS_TEST(memory_is_bounded),
		REPORTS_TEST(what_nobody_listened_to_is_told_later),        cmocka_unit_test(a_rule_is_its_file_and_line),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
