/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/state.h"

struct fixture {
	char path[64];
	struct log *log;
	int output[2];
	struct state state;
	char error[256];
};

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	strcpy(fixture->path, "/tmp/sluice-state-XXXXXX");
	assert_non_null(mkdtemp(fixture->path));
	assert_int_equal(setenv(STATE_ENVIRONMENT, fixture->path, 1), 0);
	assert_int_equal(pipe(fixture->output), 0);
	fixture->log = log_new(fixture->output[1], LOG_TEXT);
	assert_non_null(fixture->log);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	static const char *const names[] = {"leases-0", "leases-1", "leases-0.aside", "leases-1.aside"};
	struct fixture *fixture = *state;
	char path[128];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", fixture->path, names[i]);
		unlink(path);
	}
	assert_int_equal(rmdir(fixture->path), 0);
	log_free(fixture->log);
	close(fixture->output[0]);
	close(fixture->output[1]);
	free(fixture);
	return 0;
}

static int open_state(struct fixture *fixture)
{
	return state_open(&fixture->state, fixture->log, fixture->error, sizeof(fixture->error));
}

static void close_state(struct fixture *fixture)
{
	state_close(&fixture->state);
}

static void files_are_made_for_us_alone(void **state)
{
	struct fixture *fixture = *state;
	struct stat status;

	assert_int_equal(open_state(fixture), 0);
	assert_int_equal(fstat(fixture->state.files[1], &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	close_state(fixture);
}

static void a_second_gateway_is_refused(void **state)
{
	struct fixture *fixture = *state;
	struct state first;

	assert_int_equal(open_state(fixture), 0);
	first = fixture->state;
	assert_int_not_equal(open_state(fixture), 0);
	assert_int_equal(fixture->state.directory, -1);
	assert_non_null(strstr(fixture->error, "another gateway uses it; give each gateway a volume of its own"));
	fixture->state = first;
	close_state(fixture);
	assert_int_equal(open_state(fixture), 0);
	close_state(fixture);
}

static void a_file_of_another_version_is_set_aside(void **state)
{
	struct fixture *fixture = *state;
	char path[128], content[8] = {0};
	FILE *file;

	snprintf(path, sizeof(path), "%s/leases-1", fixture->path);
	file = fopen(path, "w");
	assert_non_null(file);
	for (int i = 0; i < 1000; i++)
		fputs("newer", file);
	fclose(file);
	assert_int_equal(open_state(fixture), 0);
	assert_int_equal(lseek(fixture->state.files[1], 0, SEEK_END), 0);
	close_state(fixture);
	strcat(path, ".aside");
	file = fopen(path, "r");
	assert_non_null(file);
	assert_int_equal(fread(content, 1, 5, file), 5);
	assert_string_equal(content, "newer");
	fclose(file);
}

static void a_missing_directory_is_an_error_with_its_cure(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(setenv(STATE_ENVIRONMENT, "/nonexistent/sluice", 1), 0);
	assert_int_not_equal(open_state(fixture), 0);
	state_close(&fixture->state);
	assert_non_null(strstr(fixture->error, "/nonexistent/sluice: No such file or directory; mount a volume there"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(files_are_made_for_us_alone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_second_gateway_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_file_of_another_version_is_set_aside, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_missing_directory_is_an_error_with_its_cure, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
