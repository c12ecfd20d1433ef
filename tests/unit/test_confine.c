/* SPDX-License-Identifier: MIT */
/* Each test confines a child of its own: nothing of it can be undone. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/confine.h"

enum { PASSED = 0, FAILED = 1, NOT_POSSIBLE = 77 };

/* Return: wait(2) status. */
static int in_a_child(int (*run)(void))
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		_exit(run());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_POSSIBLE)
		skip();
	return status;
}

static bool passed(int status)
{
	return WIFEXITED(status) && WEXITSTATUS(status) == PASSED;
}

static int confined(enum confine_stage stage)
{
	if (!CONFINE_BUILT || !confine_calls_possible())
		return NOT_POSSIBLE;
	if (confine_prepare() != 0)
		return FAILED;
	for (enum confine_stage at = CONFINE_SUPERVISOR; at <= stage; at++) {
		if (confine_calls(at) != 0)
			return FAILED;
	}
	return PASSED;
}

static int run_refused_call(void)
{
	int rc = confined(CONFINE_LOOP);

	if (rc != PASSED)
		return rc;
	errno = 0;
	if (chmod("/nowhere", 0644) != -1 || errno != ENOSYS)
		return FAILED;
	return getppid() > 0 ? PASSED : FAILED; /* and it goes on */
}

static void a_call_that_is_on_no_list_fails_and_the_process_goes_on(void **state)
{
	(void)state;
	assert_true(passed(in_a_child(run_refused_call)));
}

static int run_attack(void)
{
	static char *const arguments[] = {(char *)(uintptr_t) "true", NULL};
	int rc = confined(CONFINE_SUPERVISOR);

	if (rc != PASSED)
		return rc;
	execv("/bin/true", arguments);
	return FAILED;
}

static void executing_a_program_kills(void **state)
{
	int status = in_a_child(run_attack);

	(void)state;
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}

static int run_abort(void)
{
	struct rlimit none = {0, 0};
	int rc = confined(CONFINE_WORKER);

	if (rc != PASSED)
		return rc;
	setrlimit(RLIMIT_CORE, &none);
	if (confine_calls(CONFINE_LOOP) != 0)
		return FAILED;
	abort();
}

/* What assert(), the stack protector and malloc() end in: the supervisor must see the signal that it was. */
static void abort_still_aborts(void **state)
{
	int status = in_a_child(run_abort);

	(void)state;
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static int run_memory(void)
{
	const size_t sizes[] = {100, 100000, 40000000};
	int rc = confined(CONFINE_LOOP);
	char *block = NULL;

	if (rc != PASSED)
		return rc;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		char *larger = realloc(block, sizes[i]);

		if (larger == NULL)
			return FAILED;
		block = larger;
		memset(block, 1, sizes[i]);
	}
	free(block);
	errno = 0;
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == ENOSYS ? PASSED
															    : FAILED;
}

static void memory_can_be_had_but_not_executed(void **state)
{
	(void)state;
	assert_true(passed(in_a_child(run_memory)));
}

/* glibc 2.41 blocks all signals in fork(): there the signal that a refused call brings kills, as any that is forced and blocked does. */
static bool is_refused(int status)
{
	return passed(status) || (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}

static int run_supervisor(void)
{
	int rc = confined(CONFINE_SUPERVISOR), status;
	pid_t pid;

	if (rc != PASSED)
		return rc;
	pid = fork();
	if (pid == 0)
		_exit(confine_calls(CONFINE_WORKER) == 0 && fork() < 0 ? PASSED : FAILED);
	return pid > 0 && waitpid(pid, &status, 0) == pid && is_refused(status) ? PASSED : FAILED;
}

static void a_supervisor_forks_and_a_worker_does_not(void **state)
{
	(void)state;
	assert_true(passed(in_a_child(run_supervisor)));
}

static char directory[] = "/tmp/test_confine-XXXXXX";

static int write_in(const char *name)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	return fd >= 0 ? close(fd) : -errno;
}

static int run_files(void)
{
	struct confine_files files;
	char path[64];

	if (!CONFINE_BUILT || confine_landlock() < 1)
		return NOT_POSSIBLE;
	if (write_in("outside") != 0 || confine_files_begin(&files) != 0)
		return FAILED;
	snprintf(path, sizeof(path), "%s/state", directory);
	if (mkdir(path, 0700) != 0)
		return FAILED;
	confine_files_allow(&files, path, CONFINE_STATE);
	confine_files_allow(&files, "/nowhere/at/all", CONFINE_READ);
	if (strcmp(confine_files_cure(EACCES), "") != 0 || confine_files_enforce(&files) != 0)
		return FAILED;
	if (write_in("state/mine") != 0 || write_in("outside") != -EACCES || write_in("new") != -EACCES)
		return FAILED;
	return strcmp(confine_files_cure(EACCES), "") != 0 && strcmp(confine_files_cure(ENOENT), "") == 0 ? PASSED : FAILED;
}

static void only_files_that_were_named_are_written(void **state)
{
	char command[64];

	(void)state;
	assert_non_null(mkdtemp(directory));
	assert_true(passed(in_a_child(run_files)));
	snprintf(command, sizeof(command), "rm -r %s", directory);
	assert_int_equal(system(command), 0); // NOLINT(cert-env33-c): a name made above
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_call_that_is_on_no_list_fails_and_the_process_goes_on),
		cmocka_unit_test(executing_a_program_kills),
		cmocka_unit_test(abort_still_aborts),
		cmocka_unit_test(memory_can_be_had_but_not_executed),
		cmocka_unit_test(a_supervisor_forks_and_a_worker_does_not),
		cmocka_unit_test(only_files_that_were_named_are_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
