/* SPDX-License-Identifier: MIT */
/*
 * Default routes: do they leave through the uplink, and making them do so. Docker attaches the container's default route to any of its
 * networks, often to one of ours, whose gateway is ourselves.
 */
#include "gateway/interfaces.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define REQUEST_SIZE  256
#define ROUTES_MAX    64 /* default routes of one family that are looked at */
#define DUMP_ATTEMPTS 5  /* a dump that was disturbed by a change is asked for again */

/* A default route of the main table. */
struct route {
	unsigned int interface; /* 0: several next hops, none of them on the uplink */
	bool on_uplink;         /* it, or one of its next hops */
	bool several;           /* next hops */
	uint32_t metric;
	struct address gateway; /* family 0: none */
};

struct routes {
	unsigned int uplink;
	uint8_t family;
	struct route list[ROUTES_MAX];
	size_t count;
};

/* Is one of the next hops on the uplink? */
static bool hops_use_uplink(const struct nlattr *attribute, unsigned int uplink)
{
	const uint8_t *at = mnl_attr_get_payload(attribute);
	size_t left = mnl_attr_get_payload_len(attribute);
	while (left >= sizeof(struct rtnexthop)) {
		struct rtnexthop hop;
		memcpy(&hop, at, sizeof(hop));
		if (hop.rtnh_len < sizeof(hop) || hop.rtnh_len > left)
			return false;
		if ((unsigned int)hop.rtnh_ifindex == uplink)
			return true;
		size_t step = RTNH_ALIGN(hop.rtnh_len);
		if (step >= left)
			return false;
		at += step;
		left -= step;
	}
	return false;
}

static void read_attribute(const struct routes *routes, const struct nlattr *attribute, struct route *route, uint32_t *table)
{
	size_t size = mnl_attr_get_payload_len(attribute);
	switch (mnl_attr_get_type(attribute)) {
	case RTA_TABLE:
		if (size == sizeof(uint32_t))
			*table = mnl_attr_get_u32(attribute);
		break;
	case RTA_OIF:
		if (size == sizeof(uint32_t))
			route->interface = mnl_attr_get_u32(attribute);
		break;
	case RTA_PRIORITY:
		if (size == sizeof(uint32_t))
			route->metric = mnl_attr_get_u32(attribute);
		break;
	case RTA_GATEWAY:
		if (size == (routes->family == AF_INET ? 4 : 16))
			route->gateway = address_from_bytes(routes->family, mnl_attr_get_payload(attribute));
		break;
	case RTA_MULTIPATH:
		route->several = true;
		route->on_uplink = hops_use_uplink(attribute, routes->uplink);
		break;
	default: break;
	}
}

static int on_route(const struct nlmsghdr *message, void *context)
{
	struct routes *routes = context;
	const struct rtmsg *fields = mnl_nlmsg_get_payload(message);
	struct nlattr *attribute;
	struct route route = {0};
	if (message->nlmsg_type != RTM_NEWROUTE || mnl_nlmsg_get_payload_len(message) < sizeof(*fields) ||
	    fields->rtm_family != routes->family || fields->rtm_dst_len != 0 || fields->rtm_type != RTN_UNICAST ||
	    routes->count == ROUTES_MAX)
		return MNL_CB_OK;
	uint32_t table = fields->rtm_table;
	mnl_attr_for_each(attribute, message, sizeof(*fields))
	{
		read_attribute(routes, attribute, &route, &table);
	}
	if (table != RT_TABLE_MAIN)
		return MNL_CB_OK;
	if (!route.several)
		route.on_uplink = routes->uplink != 0 && route.interface == routes->uplink;
	routes->list[routes->count++] = route;
	return MNL_CB_OK;
}

static int read_routes(struct interfaces *interfaces, uint8_t family, struct routes *routes)
{
	int error = -EINTR;
	for (int i = 0; i < DUMP_ATTEMPTS && error == -EINTR; i++) {
		char buffer[REQUEST_SIZE] __attribute__((aligned(8)));
		struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
		message->nlmsg_type = RTM_GETROUTE;
		message->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
		struct rtmsg *fields = mnl_nlmsg_put_extra_header(message, sizeof(*fields));
		fields->rtm_family = family;
		memset(routes, 0, sizeof(*routes));
		routes->family = family;
		routes->uplink = interfaces->uplink;
		error = netlink_request(&interfaces->requests, message, on_route, routes);
	}
	/* A kernel without IPv6 has no such routes. */
	return family == AF_INET6 && (error == -EAFNOSUPPORT || error == -EOPNOTSUPP) ? 0 : error;
}

static bool any_on_uplink(const struct routes *routes)
{
	for (size_t i = 0; i < routes->count; i++) {
		if (routes->list[i].on_uplink)
			return true;
	}
	return false;
}

int interfaces_find_routes(struct interfaces *interfaces)
{
	struct routes routes;
	int error = read_routes(interfaces, AF_INET, &routes);
	if (error)
		return error;
	interfaces->route4 = any_on_uplink(&routes);
	error = read_routes(interfaces, AF_INET6, &routes);
	if (error)
		return error;
	interfaces->route6 = any_on_uplink(&routes);
	return 0;
}

/* RTM_NEWROUTE or RTM_DELROUTE of a default route in the main table. */
static int change_route(struct interfaces *interfaces, uint16_t type, uint8_t family, const struct route *route)
{
	char buffer[REQUEST_SIZE] __attribute__((aligned(8)));
	struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
	bool add = type == RTM_NEWROUTE;
	message->nlmsg_type = type;
	message->nlmsg_flags = add ? NLM_F_CREATE : 0;
	struct rtmsg *fields = mnl_nlmsg_put_extra_header(message, sizeof(*fields));
	fields->rtm_family = family;
	fields->rtm_table = RT_TABLE_MAIN;
	fields->rtm_protocol = add ? RTPROT_STATIC : RTPROT_UNSPEC;
	fields->rtm_scope = add ? RT_SCOPE_UNIVERSE : RT_SCOPE_NOWHERE; /* when deleting: any */
	fields->rtm_type = add ? RTN_UNICAST : RTN_UNSPEC;
	if (route->interface)
		mnl_attr_put_u32(message, RTA_OIF, route->interface);
	if (route->gateway.family && !route->several)
		mnl_attr_put(message, RTA_GATEWAY, address_size(&route->gateway), route->gateway.bytes);
	if (route->metric)
		mnl_attr_put_u32(message, RTA_PRIORITY, route->metric);
	return netlink_request(&interfaces->requests, message, NULL, NULL);
}

/* Default routes that leave through any other interface go. Return: 0 or -errno of the first that could not be removed. */
static int remove_others(struct interfaces *interfaces, const struct routes *routes, struct log *log)
{
	const char *family = routes->family == AF_INET ? "IPv4" : "IPv6";
	int first = 0;
	for (size_t i = 0; i < routes->count; i++) {
		const struct route *route = &routes->list[i];
		const struct interface *interface = interfaces_by_index(interfaces, route->interface);
		if (route->on_uplink)
			continue;
		int error = change_route(interfaces, RTM_DELROUTE, routes->family, route);
		if (error == -ESRCH)
			continue;
		if (!error)
			log_say(log, LOG_INFO, "the %s default route through %s was removed: it does not lead to the uplink", family,
				interface ? interface->name : "several interfaces");
		else if (!first)
			first = error;
	}
	return first;
}

static bool is_own(const struct interface *interface, const struct address *address)
{
	for (size_t i = 0; i < interface->address_count; i++) {
		if (address_equal(&interface->addresses[i].address, address))
			return true;
	}
	return false;
}

/* The first host address of the uplink's subnet is where Docker's bridge is. Return: false when there is none to try. */
static bool guess_gateway(const struct interface *uplink, uint8_t family, struct address *out)
{
	for (size_t i = 0; i < uplink->address_count; i++) {
		const struct prefix *address = &uplink->addresses[i];
		if (address->address.family != family || address->length >= address_bits(&address->address) - 1)
			continue;
		struct prefix subnet = interfaces_subnet(address);
		*out = prefix_host(&subnet, 1);
		if (!is_own(uplink, out))
			return true;
	}
	return false;
}

static int repair_family(struct interfaces *interfaces, const struct interface *uplink, uint8_t family, struct log *log)
{
	char text[ADDRESS_TEXT_MAX];
	struct routes routes;
	int error = read_routes(interfaces, family, &routes);
	if (error)
		return error;
	bool right = any_on_uplink(&routes);
	error = remove_others(interfaces, &routes, log);
	struct route route = {.interface = uplink->index};
	if (error || right || !guess_gateway(uplink, family, &route.gateway))
		return error;
	error = change_route(interfaces, RTM_NEWROUTE, family, &route);
	if (!error || error == -EEXIST)
		log_say(log, LOG_INFO, "the %s default route now leaves through %s by %s", family == AF_INET ? "IPv4" : "IPv6",
			uplink->name, address_format(&route.gateway, text));
	return error == -EEXIST ? 0 : error;
}

int interfaces_repair_route(struct interfaces *interfaces, const struct policy *policy, struct log *log, char *error, size_t error_size)
{
	const struct interface *uplink = interfaces_by_index(interfaces, interfaces->uplink);
	(void)policy;
	if (!uplink)
		return 0; /* the scan has said so */
	int rc = repair_family(interfaces, uplink, AF_INET, log);
	if (!rc)
		rc = repair_family(interfaces, uplink, AF_INET6, log);
	if (!rc)
		rc = interfaces_find_routes(interfaces);
	if (rc) {
		snprintf(error, error_size, "the default route cannot be moved to the uplink, interface %s: %s", uplink->name,
			 strerror(-rc));
		return rc;
	}
	if (!interfaces->route4 && !interfaces->route6)
		log_say(log, LOG_WARNING, "no default route leaves through the uplink, interface %s: nothing can reach the Internet",
			uplink->name);
	return 0;
}
