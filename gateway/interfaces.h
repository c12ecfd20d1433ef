/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_INTERFACES_H
#define SLUICE_GATEWAY_INTERFACES_H

/*
 * Which interface is which network, through rtnetlink. An interface belongs to the network in whose subnet it has an address. The uplink is
 * the one interface that is in no network; with `uplink = auto` that is decided once, at the first scan. docs: docker-forms in
 * docs/architecture.md say what Docker does here.
 */

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/log.h"
#include "common/policy.h"
#include "gateway/netlink.h"

#define INTERFACES_MAX          1024
#define INTERFACE_ADDRESSES_MAX 16

struct interface {
	unsigned int index; /* ifindex */
	char name[IFNAMSIZ];
	uint16_t network; /* id, or POLICY_NETWORK_NONE: uplink, loopback, or not ours */
	bool up, loopback;
	uint8_t mac[6];
	struct prefix addresses[INTERFACE_ADDRESSES_MAX]; /* host bits kept; sorted, as the kernel's order is not always the same */
	size_t address_count;
};

/* Which interface is the uplink, so that it is still known when it is away, after a reload, and in the next worker. */
struct uplink_choice {
	char name[IFNAMSIZ];           /* the interface when it was last there; "" before the first scan */
	char subnet[ADDRESS_TEXT_MAX]; /* what `uplink = auto` chose, once: a subnet, since Docker may name the interface anew; "" before */
};

struct interfaces {
	struct netlink requests; /* NETLINK_ROUTE */
	struct netlink monitor;  /* NETLINK_ROUTE with groups: link, addresses, routes */
	struct interface *list;  /* owned */
	size_t count;
	struct uplink_choice choice;
	unsigned int uplink;                   /* ifindex, 0: not there now */
	bool uplink_away;                      /* it is known and not there, and that was logged */
	bool route4, route6;                   /* a default route leaves through the uplink */
	uint16_t missing[POLICY_NETWORKS_MAX]; /* networks whose interface is not there, as it was logged */
	size_t missing_count;
};

int interfaces_open(struct interfaces *interfaces);
void interfaces_close(struct interfaces *interfaces);

/**
 * interfaces_scan() - Read links, addresses and routes; match networks; find the uplink
 * @error:	receives one line that says what is wrong and what to do: no uplink, several candidates (listed), a network without
 *		interface (only a warning in the log: it may be attached later), two networks on one interface
 * Return: 0 or -errno.
 */
int interfaces_scan(struct interfaces *interfaces, const struct policy *policy, struct log *log, char *error, size_t error_size);

/** interface_add_address() - Return: false when there is no room. */
bool interface_add_address(struct interface *interface, const struct prefix *address);

/**
 * interfaces_claim() - Give each network's interface its gateway addresses (IPv6 with IFA_F_NODAD) and a MAC made from the gateway
 *	address, so that apps' neighbour entries stay true when the container is recreated
 *
 * The list then has what was given, so that a later scan finds the same again. Return: 0 or -errno of the first failure, with @error.
 */
int interfaces_claim(struct interfaces *interfaces, const struct policy *policy, struct log *log, char *error, size_t error_size);

/** interfaces_release() - Give back a gateway address that no network has any more; nothing happens when it is not there. The
 * list then lacks it. 0 or -errno. */
int interfaces_release(struct interfaces *interfaces, const struct address *gateway);

/**
 * interfaces_hold_address() - Answer neighbour discovery for a virtual address; interfaces_claim() does what ARP needs for all of the pool
 *
 * Nothing happens for IPv4, or when the network's interface is not there. Return: 0 or -errno.
 */
int interfaces_hold_address(struct interfaces *interfaces, uint16_t network, const struct address *address);
/** interfaces_release_address() - The opposite. Return: 0 or -errno. */
int interfaces_release_address(struct interfaces *interfaces, uint16_t network, const struct address *address);
/** interfaces_release_pool() - Give back the pool of a network that has none any more. Return: 0 or -errno. */
int interfaces_release_pool(struct interfaces *interfaces, const struct network *network);

/** interfaces_repair_route() - Make the default routes leave through the uplink (docker attaches them to any network). 0 or -errno. */
int interfaces_repair_route(struct interfaces *interfaces, const struct policy *policy, struct log *log, char *error, size_t error_size);

/** interfaces_find_routes() - The part of interfaces_scan() that sets route4 and route6. 0 or -errno. */
int interfaces_find_routes(struct interfaces *interfaces);

/** interfaces_own_prefixes() - The gateway's own addresses (full length) and the uplink's subnets. Return: how many were written. */
size_t interfaces_own_prefixes(const struct interfaces *interfaces, struct prefix *out, size_t max);

/** interfaces_subnet() - An interface's address without its host bits. */
struct prefix interfaces_subnet(const struct prefix *address);

const struct interface *interfaces_by_index(const struct interfaces *interfaces, unsigned int index);
const struct interface *interfaces_of_network(const struct interfaces *interfaces, uint16_t network);

/** interfaces_changed() - Read the monitor. Return: true when something was said that calls for another scan. */
bool interfaces_changed(struct interfaces *interfaces);

#endif
