/* SPDX-License-Identifier: MIT */
#include "gateway/report/backlog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ROOM 200

static void add(struct backlog *backlog, const char *line)
{
	backlog_add(backlog, line, strlen(line));
}

static void expect(struct backlog *backlog, size_t max, const char *want)
{
	char out[ROOM + 1];
	size_t size = backlog_take(backlog, out, max);

	out[size] = '\0';
	assert_string_equal(out, want);
}

static void lines_come_out_in_their_order_and_form(void **state)
{
	struct backlog backlog;

	(void)state;
	assert_int_equal(backlog_open(&backlog, ROOM, "data: ", "\n\n"), 0);
	expect(&backlog, ROOM, "");
	assert_true(backlog_add_plain(&backlog, "retry: 3000\n\n"));
	add(&backlog, "{\"a\":1}");
	add(&backlog, "{\"a\":2}");
	expect(&backlog, 10, "retry: 300");
	expect(&backlog, ROOM, "0\n\ndata: {\"a\":1}\n\ndata: {\"a\":2}\n\n");
	expect(&backlog, ROOM, "");
	backlog_close(&backlog);
}

static void what_does_not_fit_is_lost_whole_and_told(void **state)
{
	struct backlog backlog;
	char line[61], out[ROOM];

	(void)state;
	memset(line, 'x', sizeof(line) - 1);
	line[sizeof(line) - 1] = '\0';
	assert_int_equal(backlog_open(&backlog, ROOM, "", "\n"), 0);
	for (int i = 0; i < 8; i++)
		add(&backlog, line); /* three fit */
	assert_int_equal(backlog.used, 3 * 61);
	assert_int_equal(backlog.lost, 5);
	/* A short one would fit, but is not told before what was lost. */
	add(&backlog, "y");
	assert_int_equal(backlog.lost, 6);
	assert_false(backlog_add_plain(&backlog, "012345678901234567"));
	assert_int_equal(backlog_take(&backlog, out, 61), 61);
	add(&backlog, "y"); /* still more than half full */
	assert_int_equal(backlog.lost, 7);
	assert_int_equal(backlog_take(&backlog, out, 61), 61);
	add(&backlog, "z");
	assert_int_equal(backlog.lost, 0);
	assert_int_equal(backlog_take(&backlog, out, 61), 61);
	expect(&backlog, ROOM, "{\"event\":\"log-lost\",\"count\":7}\nz\n");
	backlog_close(&backlog);
}

static void a_loss_is_told_also_when_nothing_comes_after_it(void **state)
{
	struct backlog backlog;
	char line[ROOM + 1];

	(void)state;
	memset(line, 'x', ROOM);
	line[ROOM] = '\0';
	assert_int_equal(backlog_open(&backlog, ROOM, "", "\n"), 0);
	add(&backlog, line); /* with its newline it is one octet too long */
	expect(&backlog, ROOM, "{\"event\":\"log-lost\",\"count\":1}\n");
	line[ROOM - 1] = '\0';
	add(&backlog, line);
	assert_int_equal(backlog.used, ROOM);
	backlog_close(&backlog);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_come_out_in_their_order_and_form),
		cmocka_unit_test(what_does_not_fit_is_lost_whole_and_told),
		cmocka_unit_test(a_loss_is_told_also_when_nothing_comes_after_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
