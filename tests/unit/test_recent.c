/* SPDX-License-Identifier: MIT */
#include "gateway/report/recent.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
	char path[64];
	int directory;
	struct log *log;
	struct recent *recent;
};

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	strcpy(fixture->path, "/tmp/sluice-recent-XXXXXX");
	assert_non_null(mkdtemp(fixture->path));
	fixture->directory = open(fixture->path, O_RDONLY | O_DIRECTORY);
	fixture->log = log_new(STDERR_FILENO, LOG_TEXT);
	fixture->recent = recent_new(fixture->directory, fixture->log);
	assert_non_null(fixture->recent);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	recent_free(fixture->recent);
	(void)unlinkat(fixture->directory, "denials.jsonl", 0);
	(void)unlinkat(fixture->directory, "denials-before.jsonl", 0);
	assert_int_equal(rmdir(fixture->path), 0);
	close(fixture->directory);
	log_free(fixture->log);
	free(fixture);
	return 0;
}

static void add(struct fixture *fixture, bool denied, int number)
{
	char line[64];
	int size = snprintf(line, sizeof(line), "{\"n\":%d}", number);

	recent_add(fixture->recent, denied, line, (size_t)size);
}

/* "1 2 3" */
static void append(void *context, const char *json, size_t size)
{
	char *text = context;
	int number;

	assert_int_equal(strlen(json), size);
	assert_int_equal(sscanf(json, "{\"n\":%d}", &number), 1);
	sprintf(text + strlen(text), "%s%d", text[0] ? " " : "", number);
}

static const char *last(const struct fixture *fixture, size_t max, bool denied_only)
{
	static char text[16384];

	text[0] = '\0';
	recent_each(fixture->recent, max, denied_only, append, text);
	return text;
}

static void both_kinds_come_in_their_order(void **state)
{
	struct fixture *fixture = *state;

	for (int i = 1; i <= 8; i++)
		add(fixture, i % 3 == 0, i);
	assert_string_equal(last(fixture, 100, false), "1 2 3 4 5 6 7 8");
	assert_string_equal(last(fixture, 3, false), "6 7 8");
	assert_string_equal(last(fixture, 100, true), "3 6");
	assert_string_equal(last(fixture, 1, true), "6");
	assert_string_equal(last(fixture, 0, false), "");
}

static void what_is_allowed_pushes_out_no_denial(void **state)
{
	struct fixture *fixture = *state;

	add(fixture, true, 1);
	for (int i = 2; i < 10 * RECENT_DENIED_MAX; i++)
		add(fixture, false, i);
	assert_string_equal(last(fixture, 100, true), "1");
	assert_int_equal(strncmp(last(fixture, 100000, false), "1 9800 9801 ", 12), 0);
}

static void large_lines_are_bounded_together(void **state)
{
	struct fixture *fixture = *state;
	size_t size = RECENT_BYTES_MAX / 10;
	char *line = malloc(size + 1);

	memset(line, ' ', size);
	line[size] = '\0';
	for (int i = 0; i < 50; i++) {
		memcpy(line, "{\"n\":", 5);
		line[5] = (char)('0' + i % 10);
		line[6] = '}';
		recent_add(fixture->recent, true, line, size);
	}
	assert_string_equal(last(fixture, 100, true), "0 1 2 3 4 5 6 7 8 9");
	free(line);
}

static void open_again(struct fixture *fixture)
{
	recent_free(fixture->recent);
	fixture->recent = recent_new(fixture->directory, fixture->log);
	assert_non_null(fixture->recent);
}

static void denials_outlive_the_process(void **state)
{
	struct fixture *fixture = *state;

	add(fixture, true, 1);
	add(fixture, false, 2);
	recent_write(fixture->recent);
	add(fixture, true, 3);
	recent_write(fixture->recent);
	open_again(fixture);
	assert_string_equal(last(fixture, 100, false), "1 3");
	add(fixture, true, 4);
	recent_write(fixture->recent);
	recent_write(fixture->recent);
	open_again(fixture);
	assert_string_equal(last(fixture, 100, false), "1 3 4");
}

static void a_damaged_line_is_left_out(void **state)
{
	struct fixture *fixture = *state;
	int fd;

	add(fixture, true, 1);
	recent_write(fixture->recent);
	fd = openat(fixture->directory, "denials.jsonl", O_WRONLY | O_APPEND);
	assert_int_equal(write(fd, "{\"n\":2\n\x01\xff\n{\"n\":3}\n{\"n\":", 22), 22);
	close(fd);
	open_again(fixture);
	assert_string_equal(last(fixture, 100, false), "1 3");
}

static void files_are_bounded(void **state)
{
	struct fixture *fixture = *state;
	off_t now, before;
	int number = 0;
	const char *text;

	for (int i = 0; i < 400; i++) {
		for (int j = 0; j < 500; j++)
			add(fixture, true, number++);
		recent_write(fixture->recent);
	}
	now = lseek(openat(fixture->directory, "denials.jsonl", O_RDONLY), 0, SEEK_END);
	before = lseek(openat(fixture->directory, "denials-before.jsonl", O_RDONLY), 0, SEEK_END);
	assert_true(now > 0 && before > 0);
	assert_true(now < RECENT_FILE_MAX + 20000 && before < RECENT_FILE_MAX + 20000);
	open_again(fixture);
	text = last(fixture, RECENT_DENIED_MAX, true);
	assert_int_equal(strncmp(text, "199000 199001 ", 14), 0);
}

static void without_a_directory_nothing_is_kept(void **state)
{
	struct fixture *fixture = *state;

	recent_free(fixture->recent);
	fixture->recent = recent_new(-1, fixture->log);
	add(fixture, true, 1);
	recent_write(fixture->recent);
	assert_string_equal(last(fixture, 100, false), "1");
}

int main(void)
{
#define RECENT_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		RECENT_TEST(both_kinds_come_in_their_order),      RECENT_TEST(what_is_allowed_pushes_out_no_denial),
		RECENT_TEST(large_lines_are_bounded_together),    RECENT_TEST(denials_outlive_the_process),
		RECENT_TEST(a_damaged_line_is_left_out),          RECENT_TEST(files_are_bounded),
		RECENT_TEST(without_a_directory_nothing_is_kept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
