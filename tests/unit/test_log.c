/* SPDX-License-Identifier: MIT */
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static int ends[2]; /* reading and writing end of the pipe that a test logs to */

static int open_pipe(void **state)
{
	(void)state;
	if (pipe(ends) != 0)
		return -1;
	return fcntl(ends[0], F_SETFL, O_NONBLOCK);
}

static int close_pipe(void **state)
{
	(void)state;
	close(ends[1]);
	if (ends[0] >= 0)
		close(ends[0]);
	return 0;
}

/* What is in the pipe now, as a string. */
static const char *drain(void)
{
	static char text[200000];
	ssize_t size = read(ends[0], text, sizeof(text) - 1);
	text[size > 0 ? size : 0] = '\0';
	return text;
}

/* The line without its time, which is checked for its shape. */
static const char *after_time(const char *line)
{
	static const char shape[] = "ts=dddd-dd-ddTdd:dd:dd.dddZ ";
	for (size_t i = 0; i < sizeof(shape) - 1; i++)
		assert_true(shape[i] == 'd' ? line[i] >= '0' && line[i] <= '9' : line[i] == shape[i]);
	return line + sizeof(shape) - 1;
}

static void write_denial(struct log *log, const char *name)
{
	struct address source;
	assert_true(address_parse("10.201.1.5", &source));
	struct log_line *line = log_event(log, "denied");
	log_text(line, "network", "web");
	log_address(line, "src", &source);
	log_text(line, "app", NULL);
	log_number(line, "port", 443);
	log_text(line, "name", name);
	log_address(line, "dst", &(struct address){0});
	log_end(line);
}

static void test_text_line(void **state)
{
	(void)state;
	struct log *log = log_new(ends[1], LOG_TEXT);
	write_denial(log, "evil.example");
	assert_string_equal(after_time(drain()), "event=denied network=web src=10.201.1.5 app=- port=443 name=evil.example dst=-\n");
	log_free(log);
}

static void test_json_line_has_the_same_keys_in_order(void **state)
{
	(void)state;
	struct log *log = log_new(ends[1], LOG_JSON);
	write_denial(log, "evil.example");
	const char *line = drain();
	assert_memory_equal(line, "{\"ts\":\"2", 8);
	assert_string_equal(strstr(line, ",\"event\""), ",\"event\":\"denied\",\"network\":\"web\",\"src\":\"10.201.1.5\",\"app\":null,"
							"\"port\":443,\"name\":\"evil.example\",\"dst\":null}\n");
	log_free(log);
}

static void test_hostile_values(void **state)
{
	static const struct {
		const char *value, *text, *json;
	} cases[] = {
		{"plain", "plain", "plain"},
		{"two words", "\"two words\"", "two words"},
		{"a=b", "\"a=b\"", "a=b"},
		{"-", "\"-\"", "-"},
		{"say \"hi\"", "\"say \\\"hi\\\"\"", "say \"hi\""},
		{"back\\slash", "\"back\\\\slash\"", "back\\slash"},
		{"a\nts=forged", "\"a\\x0ats=forged\"", "a\\x0ats=forged"},
		{"\x1b[31m", "\"\\x1b[31m\"", "\\x1b[31m"},
		{"\x7f", "\"\\x7f\"", "\\x7f"},
		{"\xc2\x9b", "\"\\xc2\\x9b\"", "\\xc2\\x9b"},               /* C1 CSI */
		{"\xe2\x80\xae", "\"\\xe2\\x80\\xae\"", "\\xe2\\x80\\xae"}, /* right-to-left override */
		{"\xc3\xa4", "\"\xc3\xa4\"", "\xc3\xa4"},
		{"\xf0\x9f\x98\x80", "\"\xf0\x9f\x98\x80\"", "\xf0\x9f\x98\x80"},
		{"\xc0\x80", "\"\\xc0\\x80\"", "\\xc0\\x80"},               /* overlong */
		{"\xed\xa0\x80", "\"\\xed\\xa0\\x80\"", "\\xed\\xa0\\x80"}, /* surrogate */
		{"\xf4\x90\x80\x80", "\"\\xf4\\x90\\x80\\x80\"", "\\xf4\\x90\\x80\\x80"},
		{"cut\xe2\x82", "\"cut\\xe2\\x82\"", "cut\\xe2\\x82"},
		{"\xff", "\"\\xff\"", "\\xff"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char expected[256];
		struct log *log = log_new(ends[1], LOG_TEXT);
		struct log_line *line = log_event(log, "x");
		log_text(line, "v", cases[i].value);
		log_end(line);
		snprintf(expected, sizeof(expected), "event=x v=%s\n", cases[i].text);
		assert_string_equal(after_time(drain()), expected);
		log_set_format(log, LOG_JSON);
		line = log_event(log, "x");
		log_text(line, "v", cases[i].value);
		log_end(line);
		json_t *object = json_loads(drain(), 0, NULL);
		assert_string_equal(json_string_value(json_object_get(object, "v")), cases[i].json);
		json_decref(object);
		log_free(log);
	}
}

static void test_long_values_are_cut(void **state)
{
	static char value[100000];
	(void)state;
	struct log *log = log_new(ends[1], LOG_TEXT);
	memset(value, '\n', sizeof(value) - 1);
	for (int format = LOG_TEXT; format <= LOG_JSON; format++) {
		log_set_format(log, (enum log_format)format);
		struct log_line *line = log_event(log, "x");
		log_text(line, "v", value);
		log_text(line, "after", "yes");
		log_end(line);
		const char *text = drain();
		assert_non_null(strstr(text, "after"));
		assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
	}
	log_free(log);
}

static void test_message(void **state)
{
	(void)state;
	struct log *log = log_new(ends[1], LOG_TEXT);
	log_say(log, LOG_WARNING, "%s is %d", "it", 5);
	assert_string_equal(after_time(drain()), "event=message level=warning text=\"it is 5\"\n");
	log_free(log);
}

static unsigned long long log_until_full(struct log *log)
{
	char value[1000];
	memset(value, 'v', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	for (int i = 0; i < 3000; i++) {
		struct log_line *line = log_event(log, "full");
		log_number(line, "i", (uint64_t)i);
		log_text(line, "v", value);
		log_end(line);
	}
	return 3000;
}

/* Count whole lines and the number that event=log-lost tells; every line must begin with its time. */
static void count_lines(const char *text, unsigned long long *lines, unsigned long long *lost)
{
	static char carry[400000];
	strcat(carry, text);
	char *at = carry;
	for (char *end; (end = strchr(at, '\n')); at = end + 1) {
		*end = '\0';
		const char *rest = after_time(at);
		if (strncmp(rest, "event=log-lost count=", 21) == 0)
			*lost += strtoull(rest + 21, NULL, 10);
		else
			++*lines;
	}
	memmove(carry, at, strlen(at) + 1);
}

/* The test ends: so nothing blocked, although nobody read. */
static void test_full_pipe_does_not_block_and_losses_are_told(void **state)
{
	(void)state;
	unsigned long long lines = 0, lost = 0;
	struct log *log = log_new(ends[1], LOG_TEXT);
	unsigned long long written = log_until_full(log);
	for (int i = 0; i < 100; i++) {
		count_lines(drain(), &lines, &lost);
		log_flush(log);
	}
	assert_true(lost > 0);
	assert_int_equal(lines + lost, written);
	lines = 0;
	log_say(log, LOG_INFO, "on again");
	count_lines(drain(), &lines, &lost);
	assert_int_equal(lines, 1);
	log_free(log);
}

static void test_reader_that_went_away_is_no_death(void **state)
{
	(void)state;
	struct log *log = log_new(ends[1], LOG_TEXT);
	close(ends[0]);
	ends[0] = -1;
	log_say(log, LOG_INFO, "nobody hears this");
	log_flush(log);
	log_free(log);
}

/* A limit on the file's size stands in for a full disk. */
static void test_what_a_full_disk_refused_is_tried_again(void **state)
{
	(void)state;
	char path[] = "/tmp/test_log_XXXXXX", text[200] = "";
	struct rlimit before, none;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	none = before;
	none.rlim_cur = 10;
	int fd = mkstemp(path);
	unlink(path);
	struct log *log = log_new(fd, LOG_TEXT);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	log_say(log, LOG_INFO, "one");
	log_say(log, LOG_INFO, "two");
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(pread(fd, text, sizeof(text) - 1, 0), 10);
	log_flush(log);
	assert_true(pread(fd, text, sizeof(text) - 1, 0) > 0);
	after_time(text);
	assert_non_null(strstr(text, "text=one\nts="));
	assert_non_null(strstr(text, "text=two\n"));
	log_free(log);
	close(fd);
}

static void test_socket_does_not_block(void **state)
{
	(void)state;
	int pair[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	struct log *log = log_new(pair[0], LOG_TEXT);
	log_until_full(log);
	log_free(log);
	close(pair[0]);
	close(pair[1]);
}

static void test_file_is_appended_where_it_stands(void **state)
{
	(void)state;
	char path[] = "/tmp/test_log_XXXXXX", text[200] = "";
	int fd = mkstemp(path);
	unlink(path);
	assert_int_equal(write(fd, "before\n", 7), 7);
	struct log *log = log_new(fd, LOG_TEXT);
	log_say(log, LOG_INFO, "after");
	log_free(log);
	assert_true(pread(fd, text, sizeof(text) - 1, 0) > 0);
	assert_memory_equal(text, "before\nts=", 10);
	close(fd);
}

int main(void)
{
#define PIPE_TEST(test) cmocka_unit_test_setup_teardown(test, open_pipe, close_pipe)
	const struct CMUnitTest tests[] = {
		PIPE_TEST(test_text_line),
		PIPE_TEST(test_json_line_has_the_same_keys_in_order),
		PIPE_TEST(test_hostile_values),
		PIPE_TEST(test_long_values_are_cut),
		PIPE_TEST(test_message),
		PIPE_TEST(test_full_pipe_does_not_block_and_losses_are_told),
		PIPE_TEST(test_reader_that_went_away_is_no_death),
		cmocka_unit_test(test_what_a_full_disk_refused_is_tried_again),
		PIPE_TEST(test_socket_does_not_block),
		cmocka_unit_test(test_file_is_appended_where_it_stands),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
