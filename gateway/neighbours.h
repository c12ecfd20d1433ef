/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_NEIGHBOURS_H
#define SLUICE_GATEWAY_NEIGHBOURS_H

/*
 * From an IPv6 neighbour to the IPv4 address with the same MAC, for the log. The kernel's neighbour tables are read through rtnetlink,
 * which blocks: so an interface is read as a whole and rarely, however many addresses are looked up.
 */

#include <stdbool.h>
#include <stdint.h>

#include "common/address.h"
#include "gateway/netlink.h"

#define NEIGHBOURS_FRESH_MS   5000    /* what was read is believed for so long */
#define NEIGHBOURS_AGAIN_MS   500     /* an address that is missing does not have the interface read again before this */
#define NEIGHBOURS_READ_MS    250     /* between two readings on average, all interfaces together ... */
#define NEIGHBOURS_READ_BURST 4       /* ... with this burst; above it there is no answer */
#define NEIGHBOURS_MAX        1024    /* neighbours of one family that are taken from a reading; the others are not known */
#define NEIGHBOURS_THERE_MS   3600000 /* a neighbour that was heard of so long ago may still be there */
#define NEIGHBOURS_LINKS_MAX  32      /* readings that are kept: more than can be made while one of them is fresh */

struct neighbours; /* neighbours.c */

/** neighbours_new() - @netlink: NETLINK_ROUTE, stays the caller's. Return: NULL when out of memory. */
struct neighbours *neighbours_new(struct netlink *netlink);
void neighbours_free(struct neighbours *neighbours);

/**
 * neighbours_find4() - The IPv4 address with the same MAC as an IPv6 neighbour
 * @index:	interface
 * @now:	ms
 * Return: false when there is none, or when it may not be looked for now.
 */
bool neighbours_find4(struct neighbours *neighbours, unsigned int index, const struct address *address6, uint64_t now, struct address *out);

/**
 * neighbours_in() - Is there a neighbour with an address of a prefix, one that was there in the last NEIGHBOURS_THERE_MS?
 * @netlink:	NETLINK_ROUTE
 * @out:	receives one of these addresses
 */
bool neighbours_in(struct netlink *netlink, unsigned int index, const struct prefix *prefix, struct address *out);

/** neighbours_readings() - How often an interface has been read. */
uint64_t neighbours_readings(const struct neighbours *neighbours);

#endif
