/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_CONFINE_H
#define SLUICE_GATEWAY_CONFINE_H

/*
 * What the program gives up, and when: each stage as early as what comes after it allows. None can be undone.
 *
 *	privileges_drop()	supervisor, first of all: one capability, another user, no_new_privs (privileges.h). Everybody inherits it.
 *	confine_prepare()	makes all filters, in a child that ends with that.
 *	CONFINE_SUPERVISOR	before the first worker: neither supervisor nor worker execute a program, mount, trace or load code into
 *				the kernel. Its list holds what a worker needs too, since a worker inherits it.
 *	CONFINE_WORKER		a worker's first act, before it reads a file: state files may have been written by a worker that was
 *				taken over. No new process, no signal to another one.
 *	confine_worker_files()	before the loop, that is before a packet, a question or an answer is read; the policy has been read
 *				by then and says which files it names.
 *	CONFINE_LOOP		with it: nothing is made executable any more, no mode, limit or rule is changed.
 *
 * A build with sanitizers is not confined: their runtime maps executable pages, makes threads and runs a symbolizer. CONFINE_BUILT says so.
 */

#include <stdbool.h>
#include <stddef.h>

#ifndef __has_feature /* clang's; gcc has macros instead */
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define CONFINE_BUILT 0
#else
#define CONFINE_BUILT 1
#endif

struct gateway;

/* In order: a system call that is allowed in one of them is allowed in those before. */
enum confine_stage { CONFINE_SUPERVISOR, CONFINE_WORKER, CONFINE_LOOP };
#define CONFINE_STAGES 3

/** confine_prepare() - Make the filters of all stages, before the first of them. Return: 0 or -errno; -ENOTSUP: this build has sanitizers.
 */
int confine_prepare(void);

/**
 * confine_calls() - From now on only the system calls of this stage
 *
 * Others fail with ENOSYS, as on a kernel that does not have them, and are named once on standard error; those that only an attacker
 * makes kill the process.
 *
 * Return: 0 or -errno; -ENOTSUP: the kernel has no filters, or this build has sanitizers.
 */
int confine_calls(enum confine_stage stage);

/* Between confine_calls.c and confine_filters.c. */
#define CONFINE_OWN_ID 0x53C0FFEEU /* in a filter: the id of the process that puts it in force; no process has such an id */

/** confine_calls_begin() - What refused calls need: in the process that forks all others. */
void confine_calls_begin(void);

/** confine_calls_write() - Write the filter of a stage to @fd. Without memory it may crash or hang (libseccomp). Return: 0 or -errno. */
int confine_calls_write(enum confine_stage stage, int fd);

/** confine_calls_possible() - Has the kernel seccomp filters? */
bool confine_calls_possible(void);

/** confine_landlock() - Return: the ABI of the kernel's Landlock, 1 and more, or -errno: it has none, or it is switched off, or an engine
 * forbids it. */
int confine_landlock(void);

/** confine_landlock_missing() / confine_landlock_cure() - What a negative result of confine_landlock() means, and what to do; the cure may
 * be NULL. */
const char *confine_landlock_missing(int rc);
const char *confine_landlock_cure(int rc);

/* A set of files that is being made, for one process. */
struct confine_files {
	int ruleset; /* owned, until it is enforced */
	int abi;
};

enum confine_access {
	CONFINE_READ,   /* read files and list directories */
	CONFINE_STATE,  /* make, write, rename and remove files as well */
	CONFINE_REMOVE, /* remove files, and nothing else */
};

/** confine_files_begin() - Return: 0, or -errno as confine_landlock(). */
int confine_files_begin(struct confine_files *files);

/** confine_files_allow() - A file, or a directory with all below; one that is not there is passed over. */
void confine_files_allow(struct confine_files *files, const char *path, enum confine_access access);

/** confine_files_allow_around() - Reading in the directory that holds @path, so that a file which is replaced is found again; and where a
 * link leads. */
void confine_files_allow_around(struct confine_files *files, const char *path);

/** confine_files_enforce() - No other file is opened, made, renamed or removed from now on, and none executed. Return: 0 or -errno. */
int confine_files_enforce(struct confine_files *files);

/** confine_files_cure() - What to add to the message about a file that could not be opened; "" when confinement is not the cause. */
const char *confine_files_cure(int error);

/** confine_worker_start() - CONFINE_WORKER; what the kernel lacks is logged. Return: 0; or -errno, logged, and the worker may not go on. */
int confine_worker_start(const struct gateway *gateway);

/** confine_worker_loop() - The files of the running policy, then CONFINE_LOOP; one line in the log says what is in force. Return: as above.
 */
int confine_worker_loop(const struct gateway *gateway);

#endif
