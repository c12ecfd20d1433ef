/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: two detectors, one report. uv_fs_event tells at once where the file system has events; a poll every
 * WATCH_POLL_MS compares a fingerprint (names, sizes, mtimes, inodes of the policy files) where it has none, and covers directories
 * that are replaced as a whole. Both only start a short timer; when that has run without being restarted, the change is reported.
 */
#include "gateway/watch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Sums over the files, so that the order of a directory does not matter. */
struct fingerprint {
	uint64_t files, inodes, sizes, times;
};

struct watch {
	uv_fs_event_t events;
	uv_timer_t poll, settle;
	char *path; /* owned */
	struct fingerprint last;
	void (*changed)(void *context);
	void *context;
	unsigned int open_handles;
	bool closing;
};

static void add_file(struct fingerprint *sum, const struct stat *status)
{
	sum->files++;
	sum->inodes += (uint64_t)status->st_ino;
	sum->sizes += (uint64_t)status->st_size;
	sum->times += (uint64_t)status->st_mtim.tv_sec * 1000000000U + (uint64_t)status->st_mtim.tv_nsec;
}

static void add_directory(struct fingerprint *sum, const char *path)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	struct stat status;

	if (directory == NULL)
		return;
	while ((entry = readdir(directory)) != NULL) {
		if (entry->d_name[0] != '.' && fstatat(dirfd(directory), entry->d_name, &status, 0) == 0)
			add_file(sum, &status);
	}
	closedir(directory);
}

static struct fingerprint take_fingerprint(const char *path)
{
	struct fingerprint sum = {0};
	struct stat status;

	if (stat(path, &status) != 0)
		return sum;
	add_file(&sum, &status);
	if (S_ISDIR(status.st_mode))
		add_directory(&sum, path);
	return sum;
}

static void on_settled(uv_timer_t *timer)
{
	struct watch *watch = timer->data;

	if (watch->closing)
		return;
	watch->last = take_fingerprint(watch->path);
	watch->changed(watch->context);
}

static void begin_settling(struct watch *watch)
{
	if (!watch->closing)
		uv_timer_start(&watch->settle, on_settled, WATCH_SETTLE_MS, 0);
}

static void on_poll(uv_timer_t *timer)
{
	struct watch *watch = timer->data;
	struct fingerprint current = take_fingerprint(watch->path);

	if (memcmp(&current, &watch->last, sizeof(current)) != 0) {
		watch->last = current;
		begin_settling(watch);
	}
}

static void on_event(uv_fs_event_t *events, const char *name, int kinds, int status)
{
	struct watch *watch = events->data;
	struct fingerprint current;

	(void)name;
	(void)kinds;
	if (watch->closing || status != 0)
		return;
	/* Reading a file is an event on some systems; only a difference counts. */
	current = take_fingerprint(watch->path);
	if (memcmp(&current, &watch->last, sizeof(current)) != 0)
		begin_settling(watch);
}

static void on_closed(uv_handle_t *handle)
{
	struct watch *watch = handle->data;

	if (--watch->open_handles > 0)
		return;
	free(watch->path);
	free(watch);
}

int watch_new(uv_loop_t *loop, const char *path, void (*changed)(void *context), void *context, struct watch **out)
{
	struct watch *watch;

	*out = NULL;
	if (path == NULL)
		return 0;
	watch = calloc(1, sizeof(*watch));
	if (watch == NULL || (watch->path = strdup(path)) == NULL) {
		free(watch);
		return -ENOMEM;
	}
	watch->changed = changed;
	watch->context = context;
	watch->last = take_fingerprint(path);
	watch->open_handles = 3;
	uv_fs_event_init(loop, &watch->events);
	uv_timer_init(loop, &watch->poll);
	uv_timer_init(loop, &watch->settle);
	watch->events.data = watch->poll.data = watch->settle.data = watch;
	/* Without events (no inotify watches left, say) the poll still finds every change. */
	(void)uv_fs_event_start(&watch->events, on_event, path, 0);
	uv_timer_start(&watch->poll, on_poll, WATCH_POLL_MS, WATCH_POLL_MS);
	*out = watch;
	return 0;
}

void watch_seen(struct watch *watch)
{
	if (watch == NULL || watch->closing)
		return;
	watch->last = take_fingerprint(watch->path);
	uv_timer_stop(&watch->settle);
}

void watch_close(struct watch *watch)
{
	if (watch == NULL || watch->closing)
		return;
	watch->closing = true;
	uv_close((uv_handle_t *)&watch->events, on_closed);
	uv_close((uv_handle_t *)&watch->poll, on_closed);
	uv_close((uv_handle_t *)&watch->settle, on_closed);
}
