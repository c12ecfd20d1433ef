/* SPDX-License-Identifier: MIT */
#include "resolver/acceptor.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct acceptor {
	uv_poll_t poll;
	uv_timer_t retry;
	unsigned int open_handles; /* these two */
	int fd;                    /* owned */
	acceptor_take take;
	void *context;
	bool held, closing;
};

static struct acceptor_failures failures;

static void on_readable(uv_poll_t *poll, int status, int events);

static void listen_again(struct acceptor *acceptor)
{
	if (!acceptor->closing && !acceptor->held)
		uv_poll_start(&acceptor->poll, UV_READABLE, on_readable);
}

static void on_retry(uv_timer_t *timer)
{
	listen_again(timer->data);
}

static void fail(struct acceptor *acceptor, int error)
{
	failures.count++;
	failures.error = error;
	uv_poll_stop(&acceptor->poll);
	uv_timer_start(&acceptor->retry, on_retry, ACCEPTOR_RETRY_MS, 0);
}

/* Of one connection alone, or of none. */
static bool is_passing(int error)
{
	return error == EAGAIN || error == EINTR || error == ECONNABORTED;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct acceptor *acceptor = poll->data;

	(void)events;
	if (status != 0) {
		fail(acceptor, -status);
		return;
	}
	for (int i = 0; i < ACCEPTOR_TURN && !acceptor->closing && !acceptor->held; i++) {
		int fd = accept4(acceptor->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			acceptor->take(acceptor->context, fd);
			continue;
		}
		if (!is_passing(errno))
			fail(acceptor, errno);
		return;
	}
}

int acceptor_new(uv_loop_t *loop, int fd, acceptor_take take, void *context, struct acceptor **out)
{
	struct acceptor *acceptor = calloc(1, sizeof(*acceptor));
	int rc = acceptor ? uv_poll_init(loop, &acceptor->poll, fd) : -ENOMEM;

	if (rc) {
		close(fd);
		free(acceptor);
		return rc;
	}
	uv_timer_init(loop, &acceptor->retry);
	acceptor->poll.data = acceptor->retry.data = acceptor;
	acceptor->open_handles = 2;
	acceptor->fd = fd;
	acceptor->take = take;
	acceptor->context = context;
	listen_again(acceptor);
	*out = acceptor;
	return 0;
}

void acceptor_hold(struct acceptor *acceptor, bool held)
{
	if (acceptor->held == held)
		return;
	acceptor->held = held;
	if (held)
		uv_poll_stop(&acceptor->poll);
	else
		listen_again(acceptor);
}

static void on_closed(uv_handle_t *handle)
{
	struct acceptor *acceptor = handle->data;

	if (--acceptor->open_handles == 0)
		free(acceptor);
}

void acceptor_close(struct acceptor *acceptor)
{
	if (!acceptor || acceptor->closing)
		return;
	acceptor->closing = true;
	uv_close((uv_handle_t *)&acceptor->poll, on_closed);
	uv_close((uv_handle_t *)&acceptor->retry, on_closed);
	close(acceptor->fd);
}

struct acceptor_failures acceptor_failures(void)
{
	return failures;
}
