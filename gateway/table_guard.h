/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_TABLE_GUARD_H
#define SLUICE_GATEWAY_TABLE_GUARD_H

/*
 * What others do to our table: an administrator's `nft flush ruleset`, a firewall program in the same network namespace.
 */

#include <linux/netfilter/nf_tables.h>
#include <stdint.h>
#include <uv.h>

#define TABLE_GUARD_WHO_MAX 32 /* characters of a program's name and process id, with NUL */

struct table_guard;

/**
 * table_guard_open() - Watch the table
 * @port:	of the netlink socket through which we change it ourselves
 * @changed:	called once for each transaction of somebody else that changed the table; @who made it, or NULL: that is not known, since
 *		messages were lost
 * Return: 0 or -errno.
 */
int table_guard_open(uv_loop_t *loop, uint32_t port, void (*changed)(void *context, const char *who), void *context,
		     struct table_guard **out);
/** table_guard_close() - NULL is fine. */
void table_guard_close(struct table_guard *guard);

#endif
