/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_SUPERVISOR_H
#define SLUICE_GATEWAY_SUPERVISOR_H

/*
 * PID 1 of the container: forks the worker, restarts it in place, passes signals on. When it ended, Docker would destroy the
 * namespace with tables, conntrack and addresses.
 */

#define SUPERVISOR_RESTART_MS_MIN 50	 /* wait before the first restart; doubled with every quick death ... */
#define SUPERVISOR_RESTART_MS_MAX 5000 /* ... up to this; back to the minimum after a minute of life */
#define SUPERVISOR_STOP_MS 8000	 /* SIGKILL after this; Docker waits 10 s */

/* Exit status by which a worker says that starting again cannot help before something is changed by hand (bad policy at first start). */
#define SUPERVISOR_EXIT_GIVE_UP 78 /* EX_CONFIG */

/*
 * The worker's main. @memory: descriptor of a memfd that outlives workers and holds the last good policy (config_serialise()), empty at first.
 * @restarts: how often a worker was started before. Return: exit status.
 */
typedef int (*supervisor_worker)(void *context, int memory, unsigned int restarts);

/** supervisor_run() - Return: exit status of the program: 0 after SIGTERM or SIGINT, 1 when the first worker gave up. */
int supervisor_run(supervisor_worker worker, void *context);

#endif
