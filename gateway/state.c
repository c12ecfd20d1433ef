/* SPDX-License-Identifier: MIT */
#include "gateway/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static const char *const names[JOURNAL_FILES] = {"leases-0", "leases-1"};

const char *state_path(void)
{
	const char *path = getenv(STATE_ENVIRONMENT);

	return path != NULL && path[0] != '\0' ? path : STATE_PATH;
}

static int open_file(int directory, const char *name)
{
	int file = openat(directory, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	return file >= 0 ? file : -errno;
}

/* What was written by a newer version may be read by it again, and what is damaged may be of interest to somebody. */
static int set_aside(int directory, const char *name, struct log *log)
{
	char aside[64];

	snprintf(aside, sizeof(aside), "%s.aside", name);
	if (renameat(directory, name, directory, aside) != 0)
		return -errno;
	log_say(log, LOG_WARNING, "%s/%s is damaged or of another version: it is now %s, and its leases are not known", state_path(), name,
		aside);
	return open_file(directory, name);
}

/* Return: a descriptor or -errno. */
static int open_journal(int directory, const char *name, struct log *log)
{
	int file = open_file(directory, name);

	if (file < 0 || journal_knows(file))
		return file;
	close(file);
	return set_aside(directory, name, log);
}

static int open_all(int directory, int files[static JOURNAL_FILES], struct log *log)
{
	for (int i = 0; i < JOURNAL_FILES; i++) {
		files[i] = open_journal(directory, names[i], log);
		if (files[i] >= 0)
			continue;
		for (int j = 0; j < i; j++)
			close(files[j]);
		return files[i];
	}
	return 0;
}

/* The lock goes with the last descriptor, so a worker that dies gives it back. */
static int lock(const int files[static JOURNAL_FILES], char *error, size_t error_size)
{
	int rc = flock(files[0], LOCK_EX | LOCK_NB) == 0 ? 0 : -errno;

	if (rc == 0)
		return 0;
	for (int i = 0; i < JOURNAL_FILES; i++)
		close(files[i]);
	snprintf(error, error_size, "%s: %s; give each gateway a volume of its own", state_path(),
		 rc == -EWOULDBLOCK ? "another gateway uses it" : strerror(-rc));
	return rc;
}

int state_open(struct state *state, struct log *log, char *error, size_t error_size)
{
	int directory = open(state_path(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = directory >= 0 ? open_all(directory, state->files, log) : -errno;

	state->directory = -1;
	if (rc != 0)
		snprintf(error, error_size, "%s: %s; mount a volume there that user %u may write", state_path(), strerror(-rc),
			 (unsigned int)geteuid());
	else
		rc = lock(state->files, error, error_size);
	if (rc == 0)
		state->directory = directory;
	else if (directory >= 0)
		close(directory);
	return rc;
}

void state_close(struct state *state)
{
	if (state->directory < 0)
		return;
	close(state->directory);
	for (int i = 0; i < JOURNAL_FILES; i++)
		close(state->files[i]);
	state->directory = -1;
}
