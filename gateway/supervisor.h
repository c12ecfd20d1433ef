/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_SUPERVISOR_H
#define SLUICE_GATEWAY_SUPERVISOR_H

/*
 * PID 1 of the container: forks the worker, restarts it in place, passes signals on. If it ended, Docker would destroy the
 * namespace with tables, conntrack and addresses.
 */

#define SUPERVISOR_RESTART_MS_MIN 50    /* wait before a restart; doubled with every quick death ... */
#define SUPERVISOR_RESTART_MS_MAX 5000  /* ... up to this ... */
#define SUPERVISOR_STEADY_MS      60000 /* ... and back to the minimum after this much life */
#define SUPERVISOR_STOP_MS        8000  /* a worker that has not stopped by then is killed; Docker waits 10 s */

/* Exit status by which the first worker says that starting again cannot help before something is changed by hand. */
#define SUPERVISOR_EXIT_GIVE_UP 78 /* EX_CONFIG */

/* Memory that outlives workers: one memfd each, empty at first. */
enum supervisor_memory {
	MEMORY_POLICY,   /* the last good policy, as text (memory.h) */
	MEMORY_UPLINK,   /* struct uplink_choice (memory.h) */
	MEMORY_READINGS, /* the last readings of the kernel's counters (memory.h) */
	MEMORY_TARGETS,  /* addresses of published containers (targets.c) */
	MEMORY_INBOUND,  /* how many flows that came in have been told (inbound.c) */
	MEMORY_HEARD,    /* how many allowed flows have been told (report/allowed.c) ... */
	MEMORY_LOGGED,   /* ... and in the log */
	MEMORY_NOTIFY,   /* what has been notified (notify.h) */
	MEMORY_STATS,    /* statistics (report/stats_file.h) */
	MEMORY_LEASES_0, /* the journal's two files (journal.h) */
	MEMORY_LEASES_1,
	MEMORY_COUNT,
};

/* What a worker is told. */
struct supervisor_worker_start {
	int memories[MEMORY_COUNT];
	unsigned int restarts; /* how often a worker was started before */
	int status;            /* wait(2) status of the one before, when restarts > 0 */
};

/* The worker's main. Return: its exit status. */
typedef int (*supervisor_worker)(void *context, const struct supervisor_worker_start *start);

/** supervisor_run() - Return: exit status of the program: 0 after SIGTERM or SIGINT, 1 when the first worker gave up or nothing could be
 * forked. */
int supervisor_run(supervisor_worker worker, void *context);

#endif
