/* SPDX-License-Identifier: MIT */
/*
 * New flows, as conntrack tells of them.
 *
 * Theory of operation: a socket of the multicast group "new", with a filter in the kernel that lets only flows of one mark through. A flow
 * is told of when its first packet has passed all chains, so it has its mark by then. Messages that do not fit into the socket are lost
 * without an error (which libuv would take for the end of the socket); whoever needs to know how many there were reads a counter.
 */
#include "gateway/flows_watch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <libnetfilter_conntrack/libnetfilter_conntrack.h>

#define BUFFER_SIZE (1024 * 1024) /* octets, of the socket; the kernel gives what it may */

struct flows_watch {
	struct nfct_handle *handle; /* owned */
	uint32_t mark;
	flows_seen seen;
	void *context;
	unsigned int read, max;
};

static int on_event(enum nf_conntrack_msg_type type, struct nf_conntrack *entry, void *context)
{
	struct flows_watch *watch = context;
	struct tracked_flow flow;

	/* The filter has looked at the mark already; a program that is wrong about it would only cost lines. */
	if (type == NFCT_T_NEW && flows_read(entry, &flow) && flow.mark == watch->mark)
		watch->seen(watch->context, &flow);
	return ++watch->read < watch->max ? NFCT_CB_CONTINUE : NFCT_CB_STOP;
}

static int attach_filter(struct flows_watch *watch)
{
	struct nfct_filter_dump_mark mark = {.val = watch->mark, .mask = UINT32_MAX};
	struct nfct_filter *filter = nfct_filter_create();
	int rc;

	if (filter == NULL)
		return -ENOMEM;
	nfct_filter_add_attr(filter, NFCT_FILTER_MARK, &mark);
	rc = nfct_filter_attach(nfct_fd(watch->handle), filter) < 0 ? -errno : 0;
	nfct_filter_destroy(filter);
	return rc;
}

static int prepare_socket(struct flows_watch *watch)
{
	int fd = nfct_fd(watch->handle), on = 1, size = BUFFER_SIZE;

	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	if (setsockopt(fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof(on)) != 0 ||
	    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
		return -errno;
	return attach_filter(watch);
}

int flows_watch_open(uint32_t mark, flows_seen seen, void *context, struct flows_watch **out)
{
	struct flows_watch *watch = calloc(1, sizeof(*watch));
	int rc;

	if (watch == NULL)
		return -ENOMEM;
	*watch = (struct flows_watch){.mark = mark, .seen = seen, .context = context};
	watch->handle = nfct_open(CONNTRACK, NF_NETLINK_CONNTRACK_NEW);
	rc = watch->handle != NULL ? prepare_socket(watch) : -errno;
	if (rc == 0 && nfct_callback_register(watch->handle, NFCT_T_NEW, on_event, watch) < 0)
		rc = -errno;
	if (rc != 0) {
		flows_watch_close(watch);
		return rc;
	}
	*out = watch;
	return 0;
}

int flows_watch_fd(const struct flows_watch *watch)
{
	return nfct_fd(watch->handle);
}

unsigned int flows_watch_read(struct flows_watch *watch, unsigned int max)
{
	watch->read = 0;
	watch->max = max;
	(void)nfct_catch(watch->handle); /* ends with EAGAIN, or at the last that was wanted */
	return watch->read;
}

void flows_watch_close(struct flows_watch *watch)
{
	if (watch == NULL)
		return;
	if (watch->handle != NULL)
		nfct_close(watch->handle);
	free(watch);
}
