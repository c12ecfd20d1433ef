/* SPDX-License-Identifier: MIT */
/*
 * The form of a network, seen from inside the gateway.
 *
 * Theory of operation: the kernel names the kind of each link. A veth is how Docker attaches a container to a bridge, so it shows the
 * bridge form, or a bridge that was not set up as one: whether the host has an address there cannot be seen from here (`sluice lint` sees
 * it in the Compose file).
 */
#include "gateway/form.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>

#define REQUEST_SIZE 256

static const struct {
	const char *name, *kind, *meaning;
	const char *virtual_meaning; /* with virtual addresses: `internal: true` looks like any bridge from here, and is right */
} forms[] = {
	[FORM_BRIDGE] = {"bridge", "veth",
			 "IPv4 only; an app with NET_RAW can get around the gateway through the host's bridge, so every app needs "
			 "cap_drop: [NET_RAW]",
			 "virtual addresses: with `internal: true` apps have no route, and need the gateway's address as `dns:` and "
			 "cap_drop: [NET_RAW]; with IPv6 the network needs `gateway_mode_ipv6: isolated`"},
	[FORM_MACVLAN] = {"macvlan", "macvlan", "apps cannot reach the host; each network needs a parent of its own",
			  "virtual addresses: with `internal: true` apps have no route, need the gateway's address as `dns:`, and cannot "
			  "reach the host"},
	[FORM_UNKNOWN] = {"unknown", NULL, "neither a bridge nor a macvlan network: other ways out are not known",
			  "virtual addresses, but neither a bridge nor a macvlan network: other ways out are not known"},
};
_Static_assert(sizeof(forms) / sizeof(forms[0]) == FORM_UNKNOWN + 1, "one row for each form");

static void read_kind(const struct nlattr *information, struct form_look *look)
{
	struct nlattr *attribute;

	mnl_attr_for_each_nested(attribute, information)
	{
		if (mnl_attr_get_type(attribute) == IFLA_INFO_KIND && mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) == 0)
			snprintf(look->kind, sizeof(look->kind), "%s", mnl_attr_get_str(attribute));
	}
}

static int on_link(const struct nlmsghdr *message, void *context)
{
	struct form_look *look = context;
	struct nlattr *attribute;

	if (message->nlmsg_type != RTM_NEWLINK || mnl_nlmsg_get_payload_len(message) < sizeof(struct ifinfomsg))
		return MNL_CB_OK;
	mnl_attr_for_each(attribute, message, sizeof(struct ifinfomsg))
	{
		if (mnl_attr_get_type(attribute) == IFLA_CARRIER && mnl_attr_get_payload_len(attribute) == sizeof(uint8_t))
			look->carrier = mnl_attr_get_u8(attribute);
		else if (mnl_attr_get_type(attribute) == IFLA_LINKINFO && mnl_attr_validate(attribute, MNL_TYPE_NESTED) == 0)
			read_kind(attribute, look);
	}
	return MNL_CB_OK;
}

int form_look(struct netlink *netlink, unsigned int index, struct form_look *out)
{
	char buffer[REQUEST_SIZE] __attribute__((aligned(8)));
	struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
	struct ifinfomsg *link;
	int error;

	message->nlmsg_type = RTM_GETLINK;
	message->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	link = mnl_nlmsg_put_extra_header(message, sizeof(*link));
	link->ifi_index = (int)index;
	*out = (struct form_look){.form = FORM_UNKNOWN};
	error = netlink_request(netlink, message, on_link, out);
	for (size_t i = 0; i < FORM_UNKNOWN && !error; i++) {
		if (strcmp(out->kind, forms[i].kind) == 0)
			out->form = (enum form)i;
	}
	return error;
}

const char *form_name(enum form form)
{
	return forms[form].name;
}

const char *form_meaning(enum form form, const struct network *network)
{
	return network->has_virtual_addresses ? forms[form].virtual_meaning : forms[form].meaning;
}

bool form_caveat(const struct form_look *look, const struct network *network, char out[static FORM_CAVEAT_MAX])
{
	if (!look->carrier)
		snprintf(out, FORM_CAVEAT_MAX, "no carrier: nothing passes; %s",
			 look->form == FORM_MACVLAN
				 ? "keep the parent up: a companion service with `command: idle`, `network_mode: bridge` and "
				   "`restart: unless-stopped` does so when the parent is a VLAN of docker0"
				 : "is the network's bridge up on the host?");
	else if (look->form == FORM_UNKNOWN)
		snprintf(out, FORM_CAVEAT_MAX,
			 "an interface of kind '%s' is no form that is known to be closed; use a bridge or a macvlan network",
			 look->kind[0] ? look->kind : "unknown");
	else if (look->form == FORM_BRIDGE && network->subnet6.address.family && !network->has_virtual_addresses)
		snprintf(out, FORM_CAVEAT_MAX,
			 "IPv6 on a bridge network: the host's bridge may hold the gateway address itself, and apps then go around us; use "
			 "the "
			 "macvlan form for IPv6, or take the IPv6 subnet out of the Compose file and the policy");
	else
		return false;
	return true;
}

static void log_network(struct interfaces *interfaces, const struct network *network, struct log *log)
{
	const struct interface *interface = interfaces_of_network(interfaces, network->id);
	char caveat[FORM_CAVEAT_MAX];
	struct form_look look;
	int error = interface ? form_look(&interfaces->requests, interface->index, &look) : 0;

	if (!interface)
		return; /* the scan has said so */
	if (error) {
		log_say(log, LOG_WARNING, "network %s: the form of interface %s cannot be seen: %s", network->name, interface->name,
			strerror(-error));
		return;
	}
	log_say(log, LOG_INFO, "network %s: form %s: %s", network->name, form_name(look.form), form_meaning(look.form, network));
	if (form_caveat(&look, network, caveat))
		log_say(log, LOG_WARNING, "network %s: %s", network->name, caveat);
}

void form_log(struct interfaces *interfaces, const struct policy *policy, struct log *log)
{
	for (size_t i = 0; i < policy->network_count; i++)
		log_network(interfaces, &policy->networks[i], log);
}
