/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_RESOLVER_ACCEPTOR_H
#define SLUICE_RESOLVER_ACCEPTOR_H

/*
 * Connections that come in to a listening socket. While there are no descriptors, or no memory of the kernel, for them, they wait in the
 * socket's backlog, and it is tried again every ACCEPTOR_RETRY_MS.
 *
 * libuv's own way is to close who waits, with the help of a spare descriptor, which it opens again afterwards. A worker may not open that
 * file (gateway/confine.h), and without a spare one libuv tries to accept for ever: it never comes back to its loop.
 */

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define ACCEPTOR_TURN     16  /* connections that are accepted in a turn of the loop */
#define ACCEPTOR_RETRY_MS 250 /* there were no descriptors */

struct acceptor;

/* A connection, non-blocking; @fd is the callee's. It may close the acceptor. */
typedef void (*acceptor_take)(void *context, int fd);

/** acceptor_new() - Take connections of @fd, which listens, and is taken over in any case. Return: 0 or -errno. */
int acceptor_new(uv_loop_t *loop, int fd, acceptor_take take, void *context, struct acceptor **out);

/** acceptor_hold() - While @held, who comes waits. */
void acceptor_hold(struct acceptor *acceptor, bool held);

/** acceptor_close() - The socket is closed at once, memory goes when the loop has run the close callbacks. NULL is allowed. */
void acceptor_close(struct acceptor *acceptor);

/* Attempts of all acceptors that failed for want of something. */
struct acceptor_failures {
	uint64_t count;
	int error; /* the last one's errno */
};

/** acceptor_failures() - Since the start of the process. */
struct acceptor_failures acceptor_failures(void);

#endif
