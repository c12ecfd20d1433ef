/* SPDX-License-Identifier: MIT */
#include "gateway/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

/* Return: the highest descriptor that there may be, or -errno. */
static int raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return -errno;
	limit.rlim_cur = limit.rlim_max < DESCRIPTORS_MAX ? limit.rlim_max : DESCRIPTORS_MAX;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		return -errno;
	return (int)limit.rlim_cur - 1;
}

/* Return: a descriptor with this number, or -errno. */
static int open_as(int number)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), high, error;

	if (fd < 0)
		return -errno;
	high = fcntl(fd, F_DUPFD_CLOEXEC, number);
	error = errno;
	close(fd);
	return high >= 0 ? high : -error;
}

static void on_event(uv_poll_t *poll, int status, int events)
{
	(void)poll;
	(void)status;
	(void)events;
}

static void on_closed(uv_handle_t *handle)
{
	free(handle);
}

/* The table reaches as far as the highest descriptor that was ever watched. */
static int watch_once(uv_loop_t *loop, int fd)
{
	uv_poll_t *poll = malloc(sizeof(*poll));
	void *probe = malloc(((size_t)fd + 3) * sizeof(void *)); /* libuv aborts when it cannot have as much */
	int rc = poll != NULL && probe != NULL ? uv_poll_init(loop, poll, fd) : -ENOMEM;

	free(probe);
	if (rc != 0) {
		free(poll);
		return rc;
	}
	rc = uv_poll_start(poll, UV_READABLE, on_event);
	uv_close((uv_handle_t *)poll, on_closed);
	return rc;
}

int descriptors_reserve(uv_loop_t *loop)
{
	int highest = raise_limit();
	int fd = highest < 0 ? highest : open_as(highest), rc;

	if (fd < 0)
		return fd;
	rc = watch_once(loop, fd);
	close(fd);
	return rc;
}
