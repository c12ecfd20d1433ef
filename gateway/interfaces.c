/* SPDX-License-Identifier: MIT */
/*
 * Which interface is which network, and which is the uplink.
 *
 * Theory of operation
 *
 * A scan reads all links and addresses into a new list, matches every interface with the network in whose subnet it has an address, and
 * finds the uplink. Only when all of that is sound does the new list take the place of the old one. Nothing is remembered between scans but
 * the choice of the uplink (a reload must not move the uplink: when a network is removed, its interface is closed, not taken for a way out)
 * and which networks were reported as missing.
 *
 * What changes the kernel is in interfaces_claim.c and interfaces_route.c.
 */
#include "gateway/interfaces.h"

#include <errno.h>
#include <linux/if_arp.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define DUMP_ATTEMPTS 5 /* a dump that was disturbed by a change is asked for again */
#define REQUEST_SIZE  256

/* A list being built. */
struct scan {
	struct interface *list;
	size_t count;
	bool overflow;
};

int interfaces_open(struct interfaces *interfaces)
{
	memset(interfaces, 0, sizeof(*interfaces));
	int error = netlink_open(&interfaces->requests, NETLINK_ROUTE, 0);
	if (error)
		return error;
	error = netlink_open(&interfaces->monitor, NETLINK_ROUTE,
			     RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE);
	if (error)
		netlink_close(&interfaces->requests);
	return error;
}

void interfaces_close(struct interfaces *interfaces)
{
	netlink_close(&interfaces->requests);
	netlink_close(&interfaces->monitor);
	free(interfaces->list);
	interfaces->list = NULL;
	interfaces->count = 0;
}

static struct interface *scan_find(const struct scan *scan, unsigned int index)
{
	for (size_t i = 0; i < scan->count; i++) {
		if (scan->list[i].index == index)
			return &scan->list[i];
	}
	return NULL;
}

static int on_link(const struct nlmsghdr *message, void *context)
{
	struct scan *scan = context;
	const struct ifinfomsg *link = mnl_nlmsg_get_payload(message);
	struct nlattr *attribute;
	if (message->nlmsg_type != RTM_NEWLINK || mnl_nlmsg_get_payload_len(message) < sizeof(*link))
		return MNL_CB_OK;
	if (scan->count == INTERFACES_MAX) {
		scan->overflow = true;
		return MNL_CB_OK;
	}
	struct interface *interface = &scan->list[scan->count++];
	memset(interface, 0, sizeof(*interface));
	interface->index = (unsigned int)link->ifi_index;
	interface->network = POLICY_NETWORK_NONE;
	interface->up = link->ifi_flags & IFF_UP;
	interface->loopback = link->ifi_flags & IFF_LOOPBACK;
	mnl_attr_for_each(attribute, message, sizeof(*link))
	{
		size_t size = mnl_attr_get_payload_len(attribute);
		if (mnl_attr_get_type(attribute) == IFLA_IFNAME && mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) == 0)
			snprintf(interface->name, sizeof(interface->name), "%s", mnl_attr_get_str(attribute));
		else if (mnl_attr_get_type(attribute) == IFLA_ADDRESS && size == sizeof(interface->mac))
			memcpy(interface->mac, mnl_attr_get_payload(attribute), size);
	}
	return MNL_CB_OK;
}

/* The address bytes of IFA_LOCAL, else of IFA_ADDRESS: on a point-to-point link the latter is the other end. */
static const struct nlattr *local_attribute(const struct nlmsghdr *message)
{
	struct nlattr *attribute;
	const struct nlattr *found = NULL;
	mnl_attr_for_each(attribute, message, sizeof(struct ifaddrmsg))
	{
		if (mnl_attr_get_type(attribute) == IFA_LOCAL)
			return attribute;
		if (mnl_attr_get_type(attribute) == IFA_ADDRESS)
			found = attribute;
	}
	return found;
}

static bool is_link_local(const struct address *address)
{
	return address->family == AF_INET6 && address->bytes[0] == 0xfe && (address->bytes[1] & 0xc0) == 0x80;
}

/* IPv4 before IPv6, then by their bytes. */
static int compare_prefixes(const struct prefix *a, const struct prefix *b)
{
	int order = (a->address.family > b->address.family) - (a->address.family < b->address.family);

	if (order == 0)
		order = memcmp(a->address.bytes, b->address.bytes, sizeof(a->address.bytes));
	return order != 0 ? order : a->length - b->length;
}

bool interface_add_address(struct interface *interface, const struct prefix *address)
{
	size_t at = interface->address_count;

	if (at == INTERFACE_ADDRESSES_MAX)
		return false;
	for (; at > 0 && compare_prefixes(&interface->addresses[at - 1], address) > 0; at--)
		interface->addresses[at] = interface->addresses[at - 1];
	interface->addresses[at] = *address;
	interface->address_count++;
	return true;
}

/* Virtual addresses come and go with names, and are no addresses of the gateway (interfaces_hold_address()). */
static bool is_virtual(const struct ifaddrmsg *fields)
{
	return fields->ifa_family == AF_INET6 && fields->ifa_prefixlen == 128 && (fields->ifa_flags & IFA_F_DEPRECATED) != 0;
}

static int on_address(const struct nlmsghdr *message, void *context)
{
	struct scan *scan = context;
	const struct ifaddrmsg *fields = mnl_nlmsg_get_payload(message);
	if (message->nlmsg_type != RTM_NEWADDR || mnl_nlmsg_get_payload_len(message) < sizeof(*fields))
		return MNL_CB_OK;
	struct interface *interface = scan_find(scan, fields->ifa_index);
	const struct nlattr *local = local_attribute(message);
	size_t size = fields->ifa_family == AF_INET ? 4 : 16;
	if (!interface || !local || (fields->ifa_family != AF_INET && fields->ifa_family != AF_INET6) ||
	    mnl_attr_get_payload_len(local) != size)
		return MNL_CB_OK;
	struct prefix address = {.address = address_from_bytes(fields->ifa_family, mnl_attr_get_payload(local)),
				 .length = fields->ifa_prefixlen};
	if (is_link_local(&address.address) || is_virtual(fields))
		return MNL_CB_OK;
	if (!interface_add_address(interface, &address))
		scan->overflow = true;
	return MNL_CB_OK;
}

/* One dump of links or addresses into the list. */
static int dump(struct netlink *netlink, uint16_t type, size_t header, mnl_cb_t receive, void *context)
{
	char buffer[REQUEST_SIZE] __attribute__((aligned(8)));
	struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
	message->nlmsg_type = type;
	message->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	mnl_nlmsg_put_extra_header(message, header); /* zero: every family */
	return netlink_request(netlink, message, receive, context);
}

static int read_kernel(struct interfaces *interfaces, struct scan *scan)
{
	int error = -EINTR;
	for (int i = 0; i < DUMP_ATTEMPTS && error == -EINTR; i++) {
		scan->count = 0;
		scan->overflow = false;
		error = dump(&interfaces->requests, RTM_GETLINK, sizeof(struct ifinfomsg), on_link, scan);
		if (!error)
			error = dump(&interfaces->requests, RTM_GETADDR, sizeof(struct ifaddrmsg), on_address, scan);
	}
	return error;
}

static bool in_network(const struct network *network, const struct interface *interface)
{
	for (size_t i = 0; i < interface->address_count; i++) {
		const struct address *address = &interface->addresses[i].address;
		if (prefix_contains(&network->subnet4, address) || prefix_contains(&network->subnet6, address))
			return true;
	}
	return false;
}

/* Find the network's interface in the list. Return: 0, or -EINVAL with @error when it is not one interface of one network. */
static int match_network(const struct policy *policy, const struct network *network, struct scan *scan, char *error, size_t error_size)
{
	const struct interface *found = NULL;
	for (size_t i = 0; i < scan->count; i++) {
		struct interface *interface = &scan->list[i];
		if (interface->loopback || !in_network(network, interface))
			continue;
		if (found) {
			snprintf(error, error_size,
				 "network %s: two interfaces, %s and %s, have an address in its subnet; a network is one interface: detach "
				 "one, or "
				 "correct `subnet =`",
				 network->name, found->name, interface->name);
			return -EINVAL;
		}
		if (interface->network != POLICY_NETWORK_NONE) {
			const struct network *other = policy_network(policy, interface->network);
			snprintf(error, error_size,
				 "interface %s has addresses in the subnets of two networks, %s and %s; each network needs an interface of "
				 "its own",
				 interface->name, other ? other->name : "-", network->name);
			return -EINVAL;
		}
		interface->network = network->id;
		found = interface;
	}
	return 0;
}

static bool may_be_uplink(const struct interface *interface)
{
	return !interface->loopback && interface->up && interface->network == POLICY_NETWORK_NONE && interface->address_count > 0;
}

/* "eth0 (172.18.0.2/16), eth2 (10.5.0.2/24)" */
static void list_candidates(const struct scan *scan, char *out, size_t size)
{
	size_t used = 0;
	out[0] = '\0';
	for (size_t i = 0; i < scan->count; i++) {
		char text[ADDRESS_TEXT_MAX];
		if (!may_be_uplink(&scan->list[i]))
			continue;
		int length = snprintf(out + used, size - used, "%s%s (%s)", used ? ", " : "", scan->list[i].name,
				      prefix_format(&scan->list[i].addresses[0], text));
		if (length < 0 || (size_t)length >= size - used)
			return;
		used += (size_t)length;
	}
	if (used == 0)
		snprintf(out, size, "none");
}

/* `uplink = auto`, undecided: exactly one candidate. */
static const struct interface *choose_uplink(const struct scan *scan, char *error, size_t error_size)
{
	const struct interface *found = NULL;
	size_t candidates = 0;
	char list[512];
	for (size_t i = 0; i < scan->count; i++) {
		if (may_be_uplink(&scan->list[i])) {
			found = &scan->list[i];
			candidates++;
		}
	}
	if (candidates == 1)
		return found;
	list_candidates(scan, list, sizeof(list));
	if (candidates == 0)
		snprintf(error, error_size,
			 "uplink = auto: every interface is in a network; attach the gateway to a network that leads to the Internet and "
			 "has no [network] section");
	else
		snprintf(error, error_size,
			 "uplink = auto: several interfaces are in no network: %s; write `uplink = INTERFACE` or `uplink = SUBNET` under "
			 "[gateway]",
			 list);
	return NULL;
}

/* The interface that `uplink =` names, or that was chosen before. */
static const struct interface *named_uplink(const struct scan *scan, const char *name)
{
	struct prefix subnet;
	bool by_subnet = prefix_parse(name, &subnet, NULL);
	for (size_t i = 0; i < scan->count; i++) {
		const struct interface *interface = &scan->list[i];
		if (!by_subnet && strcmp(interface->name, name) == 0)
			return interface;
		for (size_t j = 0; by_subnet && !interface->loopback && j < interface->address_count; j++) {
			if (prefix_contains(&subnet, &interface->addresses[j].address))
				return interface;
		}
	}
	return NULL;
}

static void say_no_uplink(const struct policy *policy, const struct scan *scan, char *error, size_t error_size)
{
	char list[512];
	list_candidates(scan, list, sizeof(list));
	snprintf(error, error_size, "uplink = %s: there is no such interface; interfaces that are in no network: %s", policy->uplink, list);
}

/* What `uplink = auto` means from now on. Every interface has a link-local address: it says nothing. */
static void remember_choice(struct uplink_choice *choice, const struct interface *uplink)
{
	static const struct prefix link_local = {{.family = AF_INET6, .bytes = {0xfe, 0x80}}, 10};

	for (size_t i = 0; i < uplink->address_count && choice->subnet[0] == '\0'; i++) {
		struct prefix subnet = interfaces_subnet(&uplink->addresses[i]);

		if (!prefix_contains(&link_local, &subnet.address))
			prefix_format(&subnet, choice->subnet);
	}
}

/* Return: the interface, or NULL; then @error says why, unless the one that was there before is merely away. */
static const struct interface *look_for_uplink(const struct interfaces *interfaces, const struct policy *policy, const struct scan *scan,
					       char *error, size_t error_size)
{
	bool automatic = strcmp(policy->uplink, "auto") == 0;
	const struct interface *uplink;

	if (automatic && interfaces->choice.subnet[0] == '\0')
		return choose_uplink(scan, error, error_size);
	uplink = named_uplink(scan, automatic ? interfaces->choice.subnet : policy->uplink);
	if (!uplink)
		say_no_uplink(policy, scan, error, error_size);
	return uplink;
}

static int refuse_uplink(const struct interface *uplink, const struct policy *policy, char *error, size_t error_size)
{
	const struct network *network = policy_network(policy, uplink->network);

	if (uplink->network == POLICY_NETWORK_NONE && !uplink->loopback)
		return 0;
	snprintf(error, error_size, "the uplink, interface %s, %s%s; the uplink must be in no network", uplink->name,
		 network ? "is in the subnet of network " : "is the loopback interface", network ? network->name : "");
	return -EINVAL;
}

/* It may come back, and until then nothing can leave. */
static int uplink_is_away(struct interfaces *interfaces, struct log *log)
{
	if (!interfaces->uplink_away)
		log_say(log, LOG_WARNING, "the uplink, interface %s, is gone: nothing can leave until it is back", interfaces->choice.name);
	interfaces->uplink_away = true;
	interfaces->uplink = 0;
	return 0;
}

static int find_uplink(struct interfaces *interfaces, const struct policy *policy, const struct scan *scan, struct log *log, char *error,
		       size_t error_size)
{
	struct uplink_choice *choice = &interfaces->choice;
	bool decided = choice->name[0] != '\0';
	const struct interface *uplink = look_for_uplink(interfaces, policy, scan, error, error_size);
	int rc;

	if (!uplink && decided && !named_uplink(scan, choice->subnet[0] ? choice->subnet : choice->name))
		return uplink_is_away(interfaces, log);
	if (!uplink)
		return -ENODEV;
	rc = refuse_uplink(uplink, policy, error, error_size);
	if (rc != 0)
		return rc;
	if (interfaces->uplink_away)
		log_say(log, LOG_INFO, "the uplink, interface %s, is back", uplink->name);
	if (strcmp(policy->uplink, "auto") == 0)
		remember_choice(choice, uplink);
	snprintf(choice->name, sizeof(choice->name), "%s", uplink->name);
	interfaces->uplink = uplink->index;
	interfaces->uplink_away = false;
	return 0;
}

static bool was_missing(const struct interfaces *interfaces, uint16_t network)
{
	for (size_t i = 0; i < interfaces->missing_count; i++) {
		if (interfaces->missing[i] == network)
			return true;
	}
	return false;
}

/* Say once when a network's interface is not there, and when it has come. */
static void report_missing(struct interfaces *interfaces, const struct policy *policy, struct log *log)
{
	uint16_t missing[POLICY_NETWORKS_MAX];
	size_t count = 0;
	for (size_t i = 0; i < policy->network_count && i < POLICY_NETWORKS_MAX; i++) {
		const struct network *network = &policy->networks[i];
		const struct interface *interface = interfaces_of_network(interfaces, network->id);
		bool before = was_missing(interfaces, network->id);
		if (interface && before)
			log_say(log, LOG_INFO, "network %s: attached as interface %s", network->name, interface->name);
		if (!interface && !before)
			log_say(log, LOG_WARNING,
				"network %s: no interface has an address in its subnet; attach the gateway to that network, or correct "
				"`subnet =`",
				network->name);
		if (!interface)
			missing[count++] = network->id;
	}
	memcpy(interfaces->missing, missing, count * sizeof(missing[0]));
	interfaces->missing_count = count;
}

int interfaces_scan(struct interfaces *interfaces, const struct policy *policy, struct log *log, char *error, size_t error_size)
{
	struct scan scan = {.list = calloc(INTERFACES_MAX, sizeof(*scan.list))};
	int rc = scan.list ? read_kernel(interfaces, &scan) : -ENOMEM;
	snprintf(error, error_size, "the interfaces cannot be read: %s", strerror(-rc));
	for (size_t i = 0; i < policy->network_count && rc == 0; i++)
		rc = match_network(policy, &policy->networks[i], &scan, error, error_size);
	if (rc == 0)
		rc = find_uplink(interfaces, policy, &scan, log, error, error_size);
	if (rc != 0) {
		free(scan.list);
		return rc;
	}
	if (scan.overflow)
		log_say(log, LOG_WARNING, "more than %d interfaces, or more than %d addresses on one: the others are not seen",
			INTERFACES_MAX, INTERFACE_ADDRESSES_MAX);
	free(interfaces->list);
	interfaces->list = scan.list;
	interfaces->count = scan.count;
	report_missing(interfaces, policy, log);
	rc = interfaces_find_routes(interfaces);
	if (rc != 0)
		snprintf(error, error_size, "the routes cannot be read: %s", strerror(-rc));
	return rc;
}

struct prefix interfaces_subnet(const struct prefix *address)
{
	struct prefix subnet = *address;
	size_t whole = subnet.length / 8;
	for (size_t i = whole; i < sizeof(subnet.address.bytes); i++)
		subnet.address.bytes[i] &= i == whole ? (uint8_t)(0xff00 >> subnet.length % 8) : 0;
	return subnet;
}

size_t interfaces_own_prefixes(const struct interfaces *interfaces, struct prefix *out, size_t max)
{
	size_t count = 0;
	for (size_t i = 0; i < interfaces->count; i++) {
		const struct interface *interface = &interfaces->list[i];
		for (size_t j = 0; j < interface->address_count && !interface->loopback; j++) {
			const struct prefix *address = &interface->addresses[j];
			if (count < max)
				out[count++] =
					(struct prefix){.address = address->address, .length = (uint8_t)address_bits(&address->address)};
			if (interface->index == interfaces->uplink && count < max)
				out[count++] = interfaces_subnet(address);
		}
	}
	return count;
}

const struct interface *interfaces_by_index(const struct interfaces *interfaces, unsigned int index)
{
	for (size_t i = 0; i < interfaces->count && index != 0; i++) {
		if (interfaces->list[i].index == index)
			return &interfaces->list[i];
	}
	return NULL;
}

const struct interface *interfaces_of_network(const struct interfaces *interfaces, uint16_t network)
{
	for (size_t i = 0; i < interfaces->count && network != POLICY_NETWORK_NONE; i++) {
		if (interfaces->list[i].network == network)
			return &interfaces->list[i];
	}
	return NULL;
}

static int on_change(const struct nlmsghdr *message, void *context)
{
	switch (message->nlmsg_type) {
	case RTM_NEWLINK:
	case RTM_DELLINK:
	case RTM_NEWADDR:
	case RTM_DELADDR:
	case RTM_NEWROUTE:
	case RTM_DELROUTE: *(bool *)context = true; break;
	default: break;
	}
	return MNL_CB_OK;
}

bool interfaces_changed(struct interfaces *interfaces)
{
	bool changed = false;
	/* Messages were lost: something has changed. */
	return netlink_monitor_read(&interfaces->monitor, on_change, &changed) != 0 || changed;
}
