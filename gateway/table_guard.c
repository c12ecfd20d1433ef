/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: a socket of the multicast group of nf_tables. Every message says through which socket its transaction came, so a
 * filter in the kernel takes our own away, and grants cost no wake-up. A transaction's messages are followed by one with the number of the
 * new generation and the program that made it: with it the change is reported, once, if a message before it was about our table.
 */
#include "gateway/table_guard.h"

#include <netinet/in.h> /* before the kernel's own headers */

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "gateway/netlink.h"
#include "gateway/nft.h"

struct table_guard {
	struct netlink netlink;
	uv_poll_t poll; /* open while `watching` */
	bool watching;
	bool touched; /* by the transaction whose messages are being read */
	void (*changed)(void *context, const char *who);
	void *context;
};

/* NFTA_TABLE_NAME; in messages about what is in a table the same number is the table's name. */
static bool is_about_us(const struct nlmsghdr *message)
{
	const struct nfgenmsg *header = mnl_nlmsg_get_payload(message);
	struct nlattr *attribute;

	if (header->nfgen_family != NFPROTO_INET)
		return false;
	mnl_attr_for_each(attribute, message, sizeof(*header))
	{
		if (mnl_attr_get_type(attribute) == NFTA_TABLE_NAME)
			return mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) >= 0 &&
			       strcmp(mnl_attr_get_str(attribute), NFT_TABLE) == 0;
	}
	return false;
}

static void format_who(const struct nlmsghdr *message, char out[static TABLE_GUARD_WHO_MAX])
{
	struct nlattr *attribute;
	const char *name = "?";
	uint32_t pid = 0;

	mnl_attr_for_each(attribute, message, sizeof(struct nfgenmsg))
	{
		if (mnl_attr_get_type(attribute) == NFTA_GEN_PROC_PID && mnl_attr_validate(attribute, MNL_TYPE_U32) >= 0)
			pid = ntohl(mnl_attr_get_u32(attribute));
		if (mnl_attr_get_type(attribute) == NFTA_GEN_PROC_NAME && mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) >= 0)
			name = mnl_attr_get_str(attribute);
	}
	snprintf(out, TABLE_GUARD_WHO_MAX, "%.15s, process %u", name, pid);
}

static int on_message(const struct nlmsghdr *message, void *context)
{
	struct table_guard *guard = context;
	char who[TABLE_GUARD_WHO_MAX];

	if (NFNL_SUBSYS_ID(message->nlmsg_type) != NFNL_SUBSYS_NFTABLES || mnl_nlmsg_get_payload_len(message) < sizeof(struct nfgenmsg))
		return MNL_CB_OK;
	if (NFNL_MSG_TYPE(message->nlmsg_type) != NFT_MSG_NEWGEN) {
		guard->touched |= is_about_us(message);
		return MNL_CB_OK;
	}
	if (guard->touched) {
		guard->touched = false;
		format_who(message, who);
		guard->changed(guard->context, who);
	}
	return MNL_CB_OK;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct table_guard *guard = poll->data;
	int rc = netlink_monitor_read(&guard->netlink, on_message, guard);

	(void)events;
	/* An overflow of the socket is an error to libuv, which then stops watching. */
	if (status != 0)
		uv_poll_start(poll, UV_READABLE, on_readable);
	if (rc != 0) {
		guard->touched = false;
		guard->changed(guard->context, NULL);
	}
}

/* Not what comes from one port: a filter reads numbers as the network orders them, and netlink writes them as the host does. */
static int leave_out(const struct netlink *netlink, uint32_t port)
{
	struct sock_filter program[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct nlmsghdr, nlmsg_pid)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(port), 0, 1),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	struct sock_fprog filter = {.len = sizeof(program) / sizeof(program[0]), .filter = program};

	return setsockopt(mnl_socket_get_fd(netlink->socket), SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) == 0 ? 0 : -errno;
}

static int watch(uv_loop_t *loop, struct table_guard *guard, uint32_t port)
{
	int rc = netlink_open(&guard->netlink, NETLINK_NETFILTER, 1U << (NFNLGRP_NFTABLES - 1));

	if (rc == 0)
		rc = leave_out(&guard->netlink, port);
	if (rc == 0)
		rc = uv_poll_init(loop, &guard->poll, mnl_socket_get_fd(guard->netlink.socket));
	guard->watching = rc == 0;
	return rc == 0 ? uv_poll_start(&guard->poll, UV_READABLE, on_readable) : rc;
}

int table_guard_open(uv_loop_t *loop, uint32_t port, void (*changed)(void *context, const char *who), void *context,
		     struct table_guard **out)
{
	struct table_guard *guard = calloc(1, sizeof(*guard));
	int rc;

	if (guard == NULL)
		return -ENOMEM;
	guard->poll.data = guard;
	guard->changed = changed;
	guard->context = context;
	rc = watch(loop, guard, port);
	if (rc != 0)
		table_guard_close(guard);
	else
		*out = guard;
	return rc;
}

static void on_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void table_guard_close(struct table_guard *guard)
{
	if (guard == NULL)
		return;
	if (guard->watching)
		uv_close((uv_handle_t *)&guard->poll, on_closed);
	netlink_close(&guard->netlink);
	if (!guard->watching)
		free(guard);
}
