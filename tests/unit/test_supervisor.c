/* SPDX-License-Identifier: MIT */
/* supervisor_run() in a child of its own, since it takes over signals and reaps everything. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/supervisor.h"

/* Runs a supervisor with this worker. Return: its exit status. */
static int supervise(supervisor_worker worker)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(supervisor_run(worker, NULL));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void stop_supervisor(void)
{
	kill(getppid(), SIGTERM);
	for (;;)
		pause();
}

static int worker_gives_up(void *context, const struct supervisor_worker_start *start)
{
	(void)context;
	(void)start;
	return SUPERVISOR_EXIT_GIVE_UP;
}

static void a_first_worker_that_gives_up_ends_the_program(void **state)
{
	(void)state;
	assert_int_equal(supervise(worker_gives_up), 1);
}

/* Dies twice in two ways; the third start checks what it is told. A wrong value makes it give up, which only a first worker may: so it
 * exits otherwise. */
static int worker_dies_twice(void *context, const struct supervisor_worker_start *start)
{
	(void)context;
	if (start->restarts == 0)
		raise(SIGKILL);
	if (start->restarts == 1)
		return WIFSIGNALED(start->status) && WTERMSIG(start->status) == SIGKILL ? 7 : 8;
	if (start->restarts == 2 && WIFEXITED(start->status) && WEXITSTATUS(start->status) == 7)
		stop_supervisor();
	return 9; /* again and again: the test's alarm ends it */
}

static void a_worker_that_dies_is_started_again(void **state)
{
	(void)state;
	alarm(20);
	assert_int_equal(supervise(worker_dies_twice), 0);
	alarm(0);
}

static int worker_writes_memory(void *context, const struct supervisor_worker_start *start)
{
	char byte = 0;

	(void)context;
	if (start->restarts == 0)
		return pwrite(start->memories[MEMORY_POLICY], "m", 1, 0) == 1 && pwrite(start->memories[MEMORY_LEASES_1], "l", 1, 0) == 1
			       ? 3
			       : 4;
	if (pread(start->memories[MEMORY_POLICY], &byte, 1, 0) == 1 && byte == 'm' &&
	    pread(start->memories[MEMORY_LEASES_1], &byte, 1, 0) == 1 && byte == 'l')
		stop_supervisor();
	return 5;
}

static void memory_outlives_a_worker(void **state)
{
	(void)state;
	alarm(20);
	assert_int_equal(supervise(worker_writes_memory), 0);
	alarm(0);
}

static volatile sig_atomic_t hung_up;

static void on_hangup(int number)
{
	(void)number;
	hung_up = 1;
}

static int worker_waits_for_hangup(void *context, const struct supervisor_worker_start *start)
{
	sigset_t blocked, original;

	(void)context;
	(void)start;
	signal(SIGHUP, on_hangup);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGHUP);
	sigprocmask(SIG_BLOCK, &blocked, &original);
	kill(getppid(), SIGHUP);
	while (!hung_up)
		sigsuspend(&original);
	stop_supervisor();
	return 1;
}

static void hangup_is_passed_on(void **state)
{
	(void)state;
	alarm(20);
	assert_int_equal(supervise(worker_waits_for_hangup), 0);
	alarm(0);
}

/* Does the worker of a supervisor that was killed go as well? Told by the end of a pipe that only the two hold open. */
static int pipe_ends[2];

static int worker_sleeps(void *context, const struct supervisor_worker_start *start)
{
	(void)context;
	(void)start;
	if (write(pipe_ends[1], "w", 1) != 1)
		return 1;
	for (;;)
		pause();
}

static void a_worker_never_outlives_its_supervisor(void **state)
{
	char byte;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(pipe_ends), 0);
	alarm(20);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(supervisor_run(worker_sleeps, NULL));
	close(pipe_ends[1]);
	assert_int_equal(read(pipe_ends[0], &byte, 1), 1);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(read(pipe_ends[0], &byte, 1), 0);
	close(pipe_ends[0]);
	alarm(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_first_worker_that_gives_up_ends_the_program),
		cmocka_unit_test(a_worker_that_dies_is_started_again),
		cmocka_unit_test(memory_outlives_a_worker),
		cmocka_unit_test(hangup_is_passed_on),
		cmocka_unit_test(a_worker_never_outlives_its_supervisor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
