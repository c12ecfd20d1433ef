/* SPDX-License-Identifier: MIT */
/*
 * Filters of system calls, from rules to the kernel.
 *
 * Theory of operation: libseccomp makes all of them once, before the supervisor has started anything, and in a child: without memory it
 * crashes, or does not come to an end. They come back as programs of BPF. Supervisor and workers only hand them to the kernel, which takes
 * no memory of the process: a worker that is started while there is none is confined like any other, or does not run.
 *
 * A filter may ask for the process's own id, which nobody knows when it is made: CONFINE_OWN_ID stands for it.
 */
#include "gateway/confine.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/seccomp.h>

#define BUILD_SECONDS 30 /* it takes milliseconds */

static struct sock_fprog programs[CONFINE_STAGES]; /* owned, for the life of the process */
static bool limited;                               /* the first one is in force */

static int write_all(const int *files)
{
	int rc = 0;

	for (unsigned int stage = 0; stage < CONFINE_STAGES && rc == 0; stage++)
		rc = confine_calls_write(stage, files[stage]);
	return rc;
}

static int write_in_a_child(const int *files)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		alarm(BUILD_SECONDS);
		_exit(-write_all(files));
	}
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -ENOMEM;
}

static int read_program(int fd, struct sock_fprog *out)
{
	struct stat status;

	if (fstat(fd, &status) != 0)
		return -errno;
	if (status.st_size == 0 || (size_t)status.st_size > BPF_MAXINSNS * sizeof(*out->filter))
		return -EINVAL;
	out->filter = malloc((size_t)status.st_size);
	if (out->filter == NULL)
		return -ENOMEM;
	out->len = (unsigned short)((size_t)status.st_size / sizeof(*out->filter));
	return pread(fd, out->filter, (size_t)status.st_size, 0) == status.st_size ? 0 : -EIO;
}

int confine_prepare(void)
{
	int files[CONFINE_STAGES], rc = 0;
	unsigned int opened = 0;

	if (!CONFINE_BUILT)
		return -ENOTSUP;
	confine_calls_begin();
	for (; opened < CONFINE_STAGES && rc == 0; opened += rc == 0) {
		files[opened] = memfd_create("sluice-filter", MFD_CLOEXEC);
		rc = files[opened] >= 0 ? 0 : -errno;
	}
	if (rc == 0)
		rc = write_in_a_child(files);
	for (unsigned int i = 0; i < opened; i++) {
		if (rc == 0)
			rc = read_program(files[i], &programs[i]);
		close(files[i]);
	}
	return rc;
}

/* Return: false when the program that needs to does not ask for the id. */
static bool put_own_id(const struct sock_fprog *program, enum confine_stage stage)
{
	bool found = stage == CONFINE_SUPERVISOR;

	for (unsigned int i = 0; i < program->len; i++) {
		if (BPF_CLASS(program->filter[i].code) == BPF_JMP && program->filter[i].k == CONFINE_OWN_ID) {
			program->filter[i].k = (uint32_t)getpid();
			found = true;
		}
	}
	return found;
}

int confine_calls(enum confine_stage stage)
{
	const struct sock_fprog *program = &programs[stage];

	if (!CONFINE_BUILT)
		return -ENOTSUP;
	/* Neither /proc/PID/mem nor ptrace() of the supervisor is open to a worker, which has the same user. */
	if (stage == CONFINE_SUPERVISOR)
		(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (program->filter == NULL || !put_own_id(program, stage))
		return -EINVAL;
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, program) == 0) {
		limited = true;
		return 0;
	}
	/* Once there are filters, nobody may ask whether there are. */
	return limited || confine_calls_possible() ? -errno : -ENOTSUP;
}

bool confine_calls_possible(void)
{
	int before = errno;
	/* With no filter at all the kernel says that the address is bad, or that there is no such operation. */
	bool possible = prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, NULL, 0, 0) != 0 && errno == EFAULT;

	errno = before;
	return possible;
}
