/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: signals are blocked and taken one by one with sigtimedwait(), so there is no handler and no race. SIGCHLD reaps
 * everything (PID 1 inherits orphans) and notices the worker's end; SIGHUP goes to the worker; SIGTERM and SIGINT stop it, with SIGKILL
 * after SUPERVISOR_STOP_MS. A worker that dies is started again after a wait that grows while workers die young.
 */
#include "gateway/supervisor.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum state {
	WAITING,  /* no worker; one is started at `deadline` */
	RUNNING,  /* a worker runs */
	STOPPING, /* it was asked to stop; it is killed at `deadline` */
	ENDED,
};

struct supervisor {
	supervisor_worker worker;
	void *context;
	struct supervisor_worker_start start;
	enum state state;
	pid_t pid;           /* of the worker; 0: none */
	uint64_t started_at; /* ms */
	uint64_t deadline;   /* ms; see enum state */
	unsigned int wait;   /* ms before the next restart */
	sigset_t signals, original;
	int exit_status;
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void wait_and_restart(struct supervisor *supervisor)
{
	bool steady = now_ms() - supervisor->started_at >= SUPERVISOR_STEADY_MS;

	supervisor->wait = steady || supervisor->wait == 0 ? SUPERVISOR_RESTART_MS_MIN : supervisor->wait * 2;
	if (supervisor->wait > SUPERVISOR_RESTART_MS_MAX)
		supervisor->wait = SUPERVISOR_RESTART_MS_MAX;
	supervisor->deadline = now_ms() + supervisor->wait;
	supervisor->state = WAITING;
}

static void start_worker(struct supervisor *supervisor)
{
	pid_t parent = getpid();
	pid_t pid = fork();

	supervisor->started_at = now_ms();
	if (pid < 0) {
		fprintf(stderr, "sluice: a worker could not be started: %s\n", strerror(errno));
		wait_and_restart(supervisor);
		return;
	}
	if (pid == 0) {
		sigprocmask(SIG_SETMASK, &supervisor->original, NULL);
		/* Never a worker without its supervisor: nobody would restart it or pass signals on. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		exit(supervisor->worker(supervisor->context, &supervisor->start));
	}
	supervisor->pid = pid;
	supervisor->state = RUNNING;
}

static void worker_ended(struct supervisor *supervisor, int status)
{
	supervisor->pid = 0;
	if (supervisor->state == STOPPING) {
		supervisor->state = ENDED;
		return;
	}
	if (supervisor->start.restarts == 0 && WIFEXITED(status) && WEXITSTATUS(status) == SUPERVISOR_EXIT_GIVE_UP) {
		supervisor->exit_status = 1;
		supervisor->state = ENDED;
		return;
	}
	supervisor->start.restarts++;
	supervisor->start.status = status;
	wait_and_restart(supervisor);
}

static void reap(struct supervisor *supervisor)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == supervisor->pid)
			worker_ended(supervisor, status);
	}
}

static void stop(struct supervisor *supervisor)
{
	if (supervisor->pid == 0) {
		supervisor->state = ENDED;
		return;
	}
	kill(supervisor->pid, SIGTERM);
	if (supervisor->state != STOPPING)
		supervisor->deadline = now_ms() + SUPERVISOR_STOP_MS;
	supervisor->state = STOPPING;
}

/* Returns the signal taken, or 0 when the deadline of WAITING or STOPPING has come. */
static int next_signal(const struct supervisor *supervisor)
{
	for (;;) {
		uint64_t now = now_ms();
		uint64_t left = supervisor->deadline > now ? supervisor->deadline - now : 0;
		struct timespec timeout = {.tv_sec = (time_t)(left / 1000), .tv_nsec = (long)(left % 1000) * 1000000};
		int number = sigtimedwait(&supervisor->signals, NULL, supervisor->state == RUNNING ? NULL : &timeout);

		if (number > 0)
			return number;
		if (errno == EAGAIN)
			return 0;
	}
}

static void deadline_reached(struct supervisor *supervisor)
{
	if (supervisor->state == WAITING)
		start_worker(supervisor);
	else if (supervisor->state == STOPPING)
		kill(supervisor->pid, SIGKILL);
}

static void supervise(struct supervisor *supervisor)
{
	while (supervisor->state != ENDED) {
		switch (next_signal(supervisor)) {
		case 0: deadline_reached(supervisor); break;
		case SIGCHLD: reap(supervisor); break;
		case SIGHUP:
			if (supervisor->pid != 0)
				kill(supervisor->pid, SIGHUP);
			break;
		default: stop(supervisor); break;
		}
		/* A worker that ignores SIGTERM is killed once; the next deadline is for its end. */
		if (supervisor->state == STOPPING && now_ms() >= supervisor->deadline)
			supervisor->deadline = now_ms() + 1000;
	}
}

/* The descriptors are closed by the end of the process. */
static int open_memories(struct supervisor_worker_start *start)
{
	static const char *const names[] = {"sluice-policy",  "sluice-uplink",   "sluice-readings", "sluice-targets",
					    "sluice-inbound", "sluice-heard",    "sluice-logged",   "sluice-notify",
					    "sluice-stats",   "sluice-leases-0", "sluice-leases-1"};

	static_assert(sizeof(names) / sizeof(names[0]) == MEMORY_COUNT, "every memory has a name");
	for (unsigned int i = 0; i < MEMORY_COUNT; i++) {
		start->memories[i] = memfd_create(names[i], MFD_CLOEXEC);
		if (start->memories[i] < 0)
			return -1;
	}
	return 0;
}

int supervisor_run(supervisor_worker worker, void *context)
{
	struct supervisor supervisor = {.worker = worker, .context = context, .state = WAITING};

	sigemptyset(&supervisor.signals);
	sigaddset(&supervisor.signals, SIGCHLD);
	sigaddset(&supervisor.signals, SIGHUP);
	sigaddset(&supervisor.signals, SIGTERM);
	sigaddset(&supervisor.signals, SIGINT);
	sigprocmask(SIG_BLOCK, &supervisor.signals, &supervisor.original);
	if (open_memories(&supervisor.start) != 0) {
		fprintf(stderr, "sluice: memory that outlives a worker cannot be had: %s\n", strerror(errno));
		return 1;
	}
	supervise(&supervisor);
	return supervisor.exit_status;
}
