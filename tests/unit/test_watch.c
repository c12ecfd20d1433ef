/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/watch.h"

/* A directory with one policy file, watched; ends the loop at the first report, or when `patience` has run out. */
struct fixture {
	char directory[32];
	char file[64];
	uv_loop_t loop;
	uv_timer_t patience, act;
	struct watch *watch;
	unsigned int reports;
	void (*action)(struct fixture *fixture);
};

static void put(const char *path, const char *text)
{
	FILE *stream = fopen(path, "w");

	assert_non_null(stream);
	fputs(text, stream);
	assert_int_equal(fclose(stream), 0);
}

static void on_changed(void *context)
{
	struct fixture *fixture = context;

	fixture->reports++;
	uv_stop(&fixture->loop);
}

static void on_patience(uv_timer_t *timer)
{
	uv_stop(timer->loop);
}

static void on_act(uv_timer_t *timer)
{
	struct fixture *fixture = timer->data;

	fixture->action(fixture);
}

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	strcpy(fixture->directory, "/tmp/sluice-watch-XXXXXX");
	assert_non_null(mkdtemp(fixture->directory));
	snprintf(fixture->file, sizeof(fixture->file), "%s/policy.conf", fixture->directory);
	put(fixture->file, "one\n");
	uv_loop_init(&fixture->loop);
	uv_timer_init(&fixture->loop, &fixture->patience);
	uv_timer_init(&fixture->loop, &fixture->act);
	fixture->act.data = fixture;
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;
	char command[128];

	watch_close(fixture->watch);
	uv_close((uv_handle_t *)&fixture->patience, NULL);
	uv_close((uv_handle_t *)&fixture->act, NULL);
	uv_run(&fixture->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&fixture->loop), 0);
	snprintf(command, sizeof(command), "rm -r %s", fixture->directory);
	assert_int_equal(system(command), 0);
	free(fixture);
	return 0;
}

/* Return: how many reports came until the first one or for @patience ms. */
static unsigned int watch_while(struct fixture *fixture, const char *path, void (*action)(struct fixture *fixture), uint64_t patience)
{
	fixture->action = action;
	assert_int_equal(watch_new(&fixture->loop, path, on_changed, fixture, &fixture->watch), 0);
	uv_timer_start(&fixture->act, on_act, 20, 0);
	uv_timer_start(&fixture->patience, on_patience, patience, 0);
	uv_run(&fixture->loop, UV_RUN_DEFAULT);
	return fixture->reports;
}

static void write_in_place(struct fixture *fixture)
{
	put(fixture->file, "two, longer\n");
}

static void replace(struct fixture *fixture)
{
	char other[80];

	snprintf(other, sizeof(other), "%s.new", fixture->file);
	put(other, "one\n");
	assert_int_equal(rename(other, fixture->file), 0);
}

static void add_another(struct fixture *fixture)
{
	char other[80];

	snprintf(other, sizeof(other), "%s/more.conf", fixture->directory);
	put(other, "more\n");
}

static void only_read(struct fixture *fixture)
{
	char byte;
	int fd = open(fixture->file, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(read(fd, &byte, 1), 1);
	close(fd);
}

static void a_file_written_in_place_is_reported(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(watch_while(fixture, fixture->directory, write_in_place, 10000), 1);
}

static void a_file_replaced_by_an_editor_is_reported(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(watch_while(fixture, fixture->directory, replace, 10000), 1);
}

static void a_single_file_that_is_replaced_is_reported(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(watch_while(fixture, fixture->file, replace, 10000), 1);
}

static void a_file_that_is_added_is_reported(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(watch_while(fixture, fixture->directory, add_another, 10000), 1);
}

static void reading_is_not_a_change(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(watch_while(fixture, fixture->directory, only_read, 600), 0);
}

static void write_and_read(struct fixture *fixture)
{
	write_in_place(fixture);
	watch_seen(fixture->watch);
}

static void what_was_read_in_the_meantime_is_not_reported(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(watch_while(fixture, fixture->directory, write_and_read, 2500), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_file_written_in_place_is_reported, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_file_replaced_by_an_editor_is_reported, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_single_file_that_is_replaced_is_reported, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_file_that_is_added_is_reported, set_up, tear_down),
		cmocka_unit_test_setup_teardown(reading_is_not_a_change, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_was_read_in_the_meantime_is_not_reported, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
