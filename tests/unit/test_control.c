/* SPDX-License-Identifier: MIT */
/* Client and daemon in two processes, as in real life. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/control.h"

static char path[64];
static pid_t daemon_pid;

#define FLOOD_LINES 20000 /* of FLOOD_SIZE octets: more than may wait */
#define FLOOD_SIZE  1000

static struct control_stream *flooded; /* the daemon's */

static void send_count(void *context, struct control_stream *stream)
{
	(void)context;
	control_send(stream, "{\"n\":1}", 7);
	control_send(stream, "{\"n\":2}", 7);
	control_finish(stream);
}

static void send_flood(void *context, struct control_stream *stream)
{
	char line[FLOOD_SIZE + 1];

	(void)context;
	flooded = stream;
	memset(line, 'x', FLOOD_SIZE);
	for (int i = 0; i < FLOOD_LINES; i++)
		control_send(stream, line, FLOOD_SIZE);
}

static void ended(void *context)
{
	(void)context;
	flooded = NULL;
}

static json_t *handle(void *context, const char *command, const json_t *request, struct control_stream *stream)
{
	static const struct control_follower count = {.begin = send_count, .ended = ended};
	static const struct control_follower flood = {.begin = send_flood, .ended = ended};

	(void)context;
	if (strcmp(command, "flooded") == 0)
		return json_pack("{s:b, s:b}", "ok", 1, "flooded", flooded != NULL);
	if (strcmp(command, "count") == 0 || strcmp(command, "flood") == 0) {
		control_follow(stream, strcmp(command, "count") == 0 ? &count : &flood);
		return json_pack("{s:b}", "ok", 1);
	}
	if (strcmp(command, "echo") != 0)
		return NULL;
	return json_pack("{s:b, s:O}", "ok", 1, "text", json_object_get(request, "text"));
}

static void run_daemon(int ready)
{
	uv_loop_t loop;
	struct control *control;

	signal(SIGPIPE, SIG_IGN);
	uv_loop_init(&loop);
	if (control_new(&loop, path, handle, NULL, &control) != 0 || write(ready, "r", 1) != 1)
		_exit(1);
	uv_run(&loop, UV_RUN_DEFAULT);
	_exit(0);
}

static int set_up(void **state)
{
	int ends[2];
	char byte;

	(void)state;
	snprintf(path, sizeof(path), "/tmp/sluice-control-%d.sock", getpid());
	assert_int_equal(pipe(ends), 0);
	daemon_pid = fork();
	assert_true(daemon_pid >= 0);
	if (daemon_pid == 0)
		run_daemon(ends[1]);
	close(ends[1]);
	assert_int_equal(read(ends[0], &byte, 1), 1);
	close(ends[0]);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	kill(daemon_pid, SIGKILL);
	waitpid(daemon_pid, NULL, 0);
	unlink(path);
	return 0;
}

static json_t *call(const char *command, const char *text)
{
	char error[256] = "";
	json_t *request = json_pack("{s:s, s:s}", "command", command, "text", text);
	json_t *answer = control_call(path, request, error, sizeof(error));

	json_decref(request);
	if (answer == NULL)
		fail_msg("%s", error);
	return answer;
}

static void a_command_is_answered(void **state)
{
	json_t *answer = call("echo", "hello");

	(void)state;
	assert_true(json_is_true(json_object_get(answer, "ok")));
	assert_string_equal(json_string_value(json_object_get(answer, "text")), "hello");
	json_decref(answer);
}

static void an_unknown_command_is_refused(void **state)
{
	json_t *answer = call("nonsense", "");

	(void)state;
	assert_true(json_is_false(json_object_get(answer, "ok")));
	assert_non_null(strstr(json_string_value(json_object_get(answer, "error")), "unknown command"));
	json_decref(answer);
}

static int raw_connect(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(address.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void garbage_is_refused_and_the_daemon_lives(void **state)
{
	char answer[256] = "";
	int fd = raw_connect();

	(void)state;
	assert_int_equal(write(fd, "{]\x00\xff garbage\n", 13), 13);
	assert_true(read(fd, answer, sizeof(answer) - 1) > 0);
	assert_non_null(strstr(answer, "\"ok\":false"));
	close(fd);
	a_command_is_answered(state);
}

static void a_line_that_never_ends_is_cut_off(void **state)
{
	char block[4096];
	int fd = raw_connect();
	ssize_t sent = 0;

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	memset(block, 'x', sizeof(block));
	for (int i = 0; i < 1000 && sent >= 0; i++)
		sent = send(fd, block, sizeof(block), 0);
	assert_true(sent < 0);
	close(fd);
	a_command_is_answered(state);
}

static void many_silent_clients_do_not_lock_out_others_for_good(void **state)
{
	int fds[40];

	for (int i = 0; i < 40; i++)
		fds[i] = raw_connect();
	for (int i = 0; i < 40; i++)
		close(fds[i]);
	a_command_is_answered(state);
}

static void only_the_owner_may_connect(void **state)
{
	struct stat status;

	(void)state;
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
}

static int ask(const char *line)
{
	int fd = raw_connect();

	assert_int_equal(write(fd, line, strlen(line)), strlen(line));
	return fd;
}

static void lines_follow_the_answer(void **state)
{
	char text[256] = "";
	size_t size = 0;
	int fd = ask("{\"command\":\"count\"}\n");

	(void)state;
	for (ssize_t got = 1; got > 0; size += (size_t)got) {
		got = read(fd, text + size, sizeof(text) - 1 - size);
		assert_true(got >= 0);
	}
	assert_string_equal(text, "{\"ok\":true}\n{\"n\":1}\n{\"n\":2}\n");
	close(fd);
}

static bool is_flooded(void)
{
	char error[256];
	json_t *request = json_pack("{s:s}", "command", "flooded");
	json_t *answer = control_call(path, request, error, sizeof(error));
	bool is;

	assert_non_null(answer);
	is = json_is_true(json_object_get(answer, "flooded"));
	json_decref(answer);
	json_decref(request);
	return is;
}

/* The daemon keeps CONTROL_STREAM_MAX and no more; whoever reads in the end is told how many lines are missing. */
static void a_client_that_does_not_read_loses_lines_and_is_told(void **state)
{
	FILE *stream = fdopen(ask("{\"command\":\"flood\"}\n"), "r");
	unsigned long long lost = 0, lines = 0;
	char line[FLOOD_SIZE + 64];

	(void)state;
	assert_non_null(stream);
	assert_true(is_flooded()); /* and others are answered meanwhile */
	assert_non_null(fgets(line, sizeof(line), stream));
	while (lost == 0 && fgets(line, sizeof(line), stream)) {
		if (sscanf(line, "{\"event\":\"log-lost\",\"count\":%llu}", &lost) != 1)
			lines++;
	}
	assert_int_equal(lines + lost, FLOOD_LINES);
	assert_true(lines * FLOOD_SIZE < 2 * CONTROL_STREAM_MAX);
	fclose(stream);
	for (int i = 0; i < 100 && is_flooded(); i++)
		usleep(20000);
	assert_false(is_flooded()); /* the daemon has noticed that the client is gone */
}

static void one_who_follows_outlives_many_who_ask(void **state)
{
	int follower = ask("{\"command\":\"flood\"}\n"), others[40];
	char byte;

	(void)state;
	assert_int_equal(read(follower, &byte, 1), 1);
	for (size_t i = 0; i < 40; i++)
		others[i] = raw_connect();
	assert_true(is_flooded());
	for (size_t i = 0; i < 40; i++)
		close(others[i]);
	close(follower);
}

static void nobody_listens(void **state)
{
	char error[256] = "";
	json_t *request = json_pack("{s:s}", "command", "echo");

	(void)state;
	assert_null(control_call("/tmp/sluice-no-such-socket", request, error, sizeof(error)));
	assert_non_null(strstr(error, "no daemon listens there"));
	json_decref(request);
}

/* A file that is no socket is not ours to remove. */
static void another_file_at_the_path_stays(void **state)
{
	struct control *control;
	uv_loop_t loop;
	char other[80];
	FILE *stream;

	(void)state;
	snprintf(other, sizeof(other), "%s.file", path);
	stream = fopen(other, "w");
	assert_non_null(stream);
	fclose(stream);
	uv_loop_init(&loop);
	assert_true(control_new(&loop, other, handle, NULL, &control) < 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	assert_int_equal(access(other, F_OK), 0);
	unlink(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_command_is_answered, set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_unknown_command_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(garbage_is_refused_and_the_daemon_lives, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_line_that_never_ends_is_cut_off, set_up, tear_down),
		cmocka_unit_test_setup_teardown(many_silent_clients_do_not_lock_out_others_for_good, set_up, tear_down),
		cmocka_unit_test_setup_teardown(only_the_owner_may_connect, set_up, tear_down),
		cmocka_unit_test_setup_teardown(lines_follow_the_answer, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_client_that_does_not_read_loses_lines_and_is_told, set_up, tear_down),
		cmocka_unit_test_setup_teardown(one_who_follows_outlives_many_who_ask, set_up, tear_down),
		cmocka_unit_test(nobody_listens),
		cmocka_unit_test(another_file_at_the_path_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
