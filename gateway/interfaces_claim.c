/* SPDX-License-Identifier: MIT */
/*
 * Taking the gateway addresses of the networks. Docker reserves `gateway:` and can give it to no container, so we add it to the interface
 * ourselves; the address that Docker gave stays. A MAC made from the gateway address keeps apps' neighbour entries true when the container
 * is recreated. It is set first: a change of the MAC makes the kernel forget what IPv6 knew on the link.
 *
 * Apps that looked for the gateway while it was away wait for an answer to their last ARP request, and lose what they wanted to send when
 * none comes. So new addresses are announced, and by the kernel, since frames of our own would need NET_RAW: with arp_notify and
 * ndisc_notify it announces every address of a link whose MAC is set, also to what it was.
 */
#include "gateway/interfaces.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define REQUEST_SIZE 256

/* 02: locally administered, 53: ours, then the IPv4 gateway address, or the four quarters of the IPv6 one folded into one. */
static void gateway_mac(const struct network *network, uint8_t mac[static 6])
{
	mac[0] = 0x02;
	mac[1] = 0x53;
	if (network->gateway4.family) {
		memcpy(mac + 2, network->gateway4.bytes, 4);
		return;
	}
	memset(mac + 2, 0, 4);
	for (size_t i = 0; i < sizeof(network->gateway6.bytes); i++)
		mac[2 + i % 4] ^= network->gateway6.bytes[i];
}

static int set_mac(struct interfaces *interfaces, const struct interface *interface, const uint8_t mac[static 6])
{
	char buffer[REQUEST_SIZE] __attribute__((aligned(8)));
	struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
	message->nlmsg_type = RTM_NEWLINK;
	struct ifinfomsg *link = mnl_nlmsg_put_extra_header(message, sizeof(*link));
	link->ifi_index = (int)interface->index;
	mnl_attr_put(message, IFLA_ADDRESS, 6, mac);
	return netlink_request(&interfaces->requests, message, NULL, NULL);
}

/* Not having it costs apps seconds after a recreation, nothing else. */
static void claim_mac(struct interfaces *interfaces, struct interface *interface, const struct network *network, struct log *log)
{
	uint8_t mac[6];
	gateway_mac(network, mac);
	if (memcmp(mac, interface->mac, sizeof(mac)) == 0)
		return;
	int error = set_mac(interfaces, interface, mac);
	if (error)
		log_say(log, LOG_WARNING,
			"network %s: the MAC of %s cannot be set (%s): after a recreation apps lose their way for some seconds",
			network->name, interface->name, strerror(-error));
	else
		memcpy(interface->mac, mac, sizeof(mac));
}

static bool has_address(const struct interface *interface, const struct address *address)
{
	for (size_t i = 0; i < interface->address_count; i++) {
		if (address_equal(&interface->addresses[i].address, address))
			return true;
	}
	return false;
}

/* @type: RTM_NEWADDR or RTM_DELADDR. */
static int change_address(struct interfaces *interfaces, uint16_t type, const struct interface *interface, const struct prefix *address,
			  bool is_virtual)
{
	static const struct ifa_cacheinfo deprecated = {.ifa_prefered = 0, .ifa_valid = UINT32_MAX};
	char buffer[REQUEST_SIZE] __attribute__((aligned(8)));
	struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
	message->nlmsg_type = type;
	if (type == RTM_NEWADDR)
		message->nlmsg_flags = NLM_F_CREATE | NLM_F_REPLACE;
	struct ifaddrmsg *fields = mnl_nlmsg_put_extra_header(message, sizeof(*fields));
	fields->ifa_family = address->address.family;
	fields->ifa_prefixlen = address->length;
	fields->ifa_index = interface->index;
	/* Without NODAD the address is tentative for a second or two, and replies from it are lost. */
	if (address->address.family == AF_INET6)
		fields->ifa_flags = IFA_F_NODAD;
	mnl_attr_put(message, IFA_LOCAL, address_size(&address->address), address->address.bytes);
	mnl_attr_put(message, IFA_ADDRESS, address_size(&address->address), address->address.bytes);
	/* Deprecated (RFC 4862 section 5.5.4): nothing of our own is sent from it. And a scan knows it by that. */
	if (is_virtual)
		mnl_attr_put(message, IFA_CACHEINFO, sizeof(deprecated), &deprecated);
	return netlink_request(&interfaces->requests, message, NULL, NULL);
}

/* @added: set to true when the address was not there before. */
static int claim_address(struct interfaces *interfaces, struct interface *interface, const struct network *network,
			 const struct address *gateway, const struct prefix *subnet, bool *added, char *error, size_t error_size)
{
	char text[ADDRESS_TEXT_MAX];
	struct prefix address = {.address = *gateway, .length = subnet->length};
	if (!gateway->family || has_address(interface, gateway))
		return 0;
	int rc = change_address(interfaces, RTM_NEWADDR, interface, &address, false);
	if (rc) {
		snprintf(error, error_size, "network %s: the gateway address %s cannot be added to %s: %s%s", network->name,
			 address_format(gateway, text), interface->name, strerror(-rc),
			 gateway->family == AF_INET6 ? " (is IPv6 enabled on the network: enable_ipv6: true?)" : "");
		return rc;
	}
	interface_add_address(interface, &address);
	*added = true;
	return 0;
}

/* @type: RTM_NEWROUTE or RTM_DELROUTE of a pool: all of it is local, so the kernel answers ARP for it. */
static int change_pool_route(struct interfaces *interfaces, uint16_t type, const struct interface *interface, const struct prefix *pool)
{
	char buffer[REQUEST_SIZE] __attribute__((aligned(8)));
	struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);

	message->nlmsg_type = type;
	message->nlmsg_flags = type == RTM_NEWROUTE ? NLM_F_CREATE | NLM_F_REPLACE : 0;
	struct rtmsg *fields = mnl_nlmsg_put_extra_header(message, sizeof(*fields));
	fields->rtm_family = pool->address.family;
	fields->rtm_dst_len = pool->length;
	fields->rtm_table = RT_TABLE_LOCAL;
	fields->rtm_protocol = RTPROT_STATIC;
	fields->rtm_scope = RT_SCOPE_HOST;
	fields->rtm_type = RTN_LOCAL;
	mnl_attr_put(message, RTA_DST, address_size(&pool->address), pool->address.bytes);
	mnl_attr_put_u32(message, RTA_OIF, interface->index);
	return netlink_request(&interfaces->requests, message, NULL, NULL);
}

/* IPv6 answers for addresses only (interfaces_hold_address()). */
static int claim_pool(struct interfaces *interfaces, const struct interface *interface, const struct network *network, char *error,
		      size_t error_size)
{
	char text[ADDRESS_TEXT_MAX];
	int rc;

	if (!network->has_virtual_addresses || !network->pool4.address.family)
		return 0;
	rc = change_pool_route(interfaces, RTM_NEWROUTE, interface, &network->pool4);
	if (rc != 0)
		snprintf(error, error_size, "network %s: the pool %s cannot be held on %s: %s", network->name,
			 prefix_format(&network->pool4, text), interface->name, strerror(-rc));
	return rc;
}

int interfaces_release_pool(struct interfaces *interfaces, const struct network *network)
{
	const struct interface *interface = interfaces_of_network(interfaces, network->id);

	if (!interface || !network->has_virtual_addresses || !network->pool4.address.family)
		return 0;
	return change_pool_route(interfaces, RTM_DELROUTE, interface, &network->pool4);
}

static int change_virtual_address(struct interfaces *interfaces, uint16_t type, uint16_t network, const struct address *address)
{
	const struct interface *interface = interfaces_of_network(interfaces, network);
	const struct prefix whole = {.address = *address, .length = (uint8_t)address_bits(address)};

	if (!interface || address->family != AF_INET6)
		return 0;
	return change_address(interfaces, type, interface, &whole, true);
}

int interfaces_hold_address(struct interfaces *interfaces, uint16_t network, const struct address *address)
{
	return change_virtual_address(interfaces, RTM_NEWADDR, network, address);
}

int interfaces_release_address(struct interfaces *interfaces, uint16_t network, const struct address *address)
{
	return change_virtual_address(interfaces, RTM_DELADDR, network, address);
}

static int claim_network(struct interfaces *interfaces, struct interface *interface, const struct network *network, struct log *log,
			 char *error, size_t error_size)
{
	bool added = false;
	int rc;

	claim_mac(interfaces, interface, network, log);
	rc = claim_address(interfaces, interface, network, &network->gateway4, &network->subnet4, &added, error, error_size);
	if (rc == 0)
		rc = claim_address(interfaces, interface, network, &network->gateway6, &network->subnet6, &added, error, error_size);
	if (rc == 0)
		rc = claim_pool(interfaces, interface, network, error, error_size);
	/* Without it apps find the way a second later; a MAC that cannot be set has been told. */
	if (added)
		(void)set_mac(interfaces, interface, interface->mac);
	return rc;
}

int interfaces_claim(struct interfaces *interfaces, const struct policy *policy, struct log *log, char *error, size_t error_size)
{
	int first = 0;
	for (size_t i = 0; i < interfaces->count; i++) {
		struct interface *interface = &interfaces->list[i];
		const struct network *network = policy_network(policy, interface->network);
		char text[256];
		if (!network)
			continue;
		int rc = claim_network(interfaces, interface, network, log, text, sizeof(text));
		/* The other networks get theirs all the same. */
		if (rc && !first) {
			snprintf(error, error_size, "%s", text);
			first = rc;
		}
	}
	return first;
}

static int release(struct interfaces *interfaces, struct interface *interface, size_t at)
{
	int rc = change_address(interfaces, RTM_DELADDR, interface, &interface->addresses[at], false);

	if (rc != 0)
		return rc;
	interface->address_count--;
	for (; at < interface->address_count; at++)
		interface->addresses[at] = interface->addresses[at + 1];
	memset(&interface->addresses[at], 0, sizeof(interface->addresses[at])); /* lists are compared byte by byte */
	return 0;
}

int interfaces_release(struct interfaces *interfaces, const struct address *gateway)
{
	for (size_t i = 0; i < interfaces->count; i++) {
		for (size_t j = 0; j < interfaces->list[i].address_count; j++) {
			if (address_equal(&interfaces->list[i].addresses[j].address, gateway))
				return release(interfaces, &interfaces->list[i], j);
		}
	}
	return 0;
}
