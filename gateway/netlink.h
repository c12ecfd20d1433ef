/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_NETLINK_H
#define SLUICE_GATEWAY_NETLINK_H

/*
 * libmnl sockets: one request, its answers, its acknowledgement. Used by everything that talks to the kernel.
 */

#include <libmnl/libmnl.h>
#include <stddef.h>
#include <stdint.h>

struct netlink {
	struct mnl_socket *socket; /* owned */
	uint32_t sequence;
	uint32_t port;
	uint32_t failed; /* sequence number of the message at which the last transaction failed, or 0 */
	void *spare;     /* owned: the buffer of the last batch (nft_batch.c), for the next one; NULL: none */
};

/** netlink_open() - @bus: NETLINK_ROUTE, NETLINK_NETFILTER; @groups: multicast groups or 0. Return: 0 or -errno. */
int netlink_open(struct netlink *netlink, int bus, unsigned int groups);
void netlink_close(struct netlink *netlink);

/** netlink_sequence() - The next sequence number. */
uint32_t netlink_sequence(struct netlink *netlink);

/**
 * netlink_request() - Send one message and read until its acknowledgement or the end of its dump
 * @message:	sequence number and port are filled in here
 * @receive:	called for every data message (mnl_cb_t), may be NULL
 * Return: 0 or -errno as the kernel gave it. -EINTR: the dump was inconsistent (NLM_F_DUMP_INTR), ask again.
 */
int netlink_request(struct netlink *netlink, struct nlmsghdr *message, mnl_cb_t receive, void *context);

/**
 * netlink_transaction() - Send an nf_tables batch and read the acknowledgement of every message that asks for one
 * @batch:	messages with sequence numbers that netlink_sequence() gave, in order
 * @acknowledged: number of messages in the batch with NLM_F_ACK, the last one among them; errors are reported for every message
 * Return: 0 when all were acknowledged without error, else the first -errno (nothing of the batch took effect) with
 *	netlink->failed set. -EPROTO, -ENOBUFS: the acknowledgement is missing.
 */
int netlink_transaction(struct netlink *netlink, const void *batch, size_t size, unsigned int acknowledged);

/** netlink_monitor_read() - Read what has arrived on a multicast socket without blocking. Return: 0, or -ENOBUFS when messages were lost.
 */
int netlink_monitor_read(struct netlink *netlink, mnl_cb_t receive, void *context);

#endif
