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

int main(void)
{
#define REPORTS_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		REPORTS_TEST(a_denial_reaches_all),
		REPORTS_TEST(the_json_log_has_the_line_that_listeners_get),
		REPORTS_TEST(an_ended_flow_says_what_it_carried),
		REPORTS_TEST(memory_is_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
