/* SPDX-License-Identifier: MIT */
/*
 * Files that a policy names.
 *
 * They are read with the policy, and their text kept there: the worker needs no file later, a reload reads them again, and two policies
 * differ when what is in them does.
 */

#include "gateway/config_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/confine.h"

/* Return: a regular file, open for reading, or -errno. */
static int open_file(const char *path)
{
	struct stat info;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */

	if (fd < 0)
		return -errno;
	if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode))
		return fd;
	close(fd);
	return -EINVAL;
}

/* Return: octets, at most @room, or -errno. */
static ssize_t read_all(int fd, char *out, size_t room)
{
	size_t used = 0;

	while (used < room) {
		ssize_t got = read(fd, out + used, room - used);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		used += (size_t)got;
	}
	return (ssize_t)used;
}

static char *read_text(int fd, size_t max, const char *form, char *error, size_t error_size)
{
	char *text = malloc(max + 1);
	ssize_t size = text ? read_all(fd, text, max + 1) : -ENOMEM;

	if (size < 0) {
		snprintf(error, error_size, "cannot be read: %s", strerror((int)-size));
	} else if ((size_t)size > max) {
		snprintf(error, error_size, "has more than %zu octets", max);
	} else {
		text[size] = 0;
		if (strlen(text) == (size_t)size)
			return text;
		snprintf(error, error_size, "is not text: write %s", form);
	}
	free(text);
	return NULL;
}

char *config_file_read(const char *path, size_t max, const char *form, char *error, size_t error_size)
{
	int fd = open_file(path);
	char *text;

	if (fd < 0) {
		snprintf(error, error_size, "cannot be read: %s%s", fd == -EINVAL ? "it is not a file" : strerror(-fd),
			 confine_files_cure(-fd));
		return NULL;
	}
	text = read_text(fd, max, form, error, error_size);
	close(fd);
	return text;
}
