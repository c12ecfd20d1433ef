/* SPDX-License-Identifier: MIT */
/* What the kernel can do, and which interface is which network. Everything is read; nothing that stays is changed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "gateway/doctor.h"
#include "gateway/environment.h"
#include "gateway/form.h"
#include "gateway/gateway.h"
#include "gateway/interfaces.h"
#include "gateway/nft.h"
#include "gateway/ruleset_internal.h"

/* What the modules would log is said here in other words. */
static struct log *open_silent_log(int *fd)
{
	*fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	return *fd >= 0 ? log_new(*fd, LOG_TEXT) : NULL;
}

static void close_silent_log(struct log *log, int fd)
{
	if (log)
		log_free(log);
	if (fd >= 0)
		close(fd);
}

/* The kernel */

static void report_features(struct doctor *doctor, const struct kernel_features *features)
{
	doctor_say(doctor, DOCTOR_OK, "kernel", NULL,
		   "packets are queued by %s, timeouts of set elements are renewed %s, established flows %s",
		   features->native_queue ? "the queue expression" : "the xtables target NFQUEUE (this kernel has no CONFIG_NFT_QUEUE)",
		   features->refresh ? "in place" : "by delete and add (before Linux 6.12)",
		   features->flowtable ? "can go through a flowtable" : "meet the rules packet by packet (no CONFIG_NFT_FLOW_OFFLOAD)");
}

/* The closed table is the last thing that may be missing: without it packets would be forwarded freely. */
static void report_table(struct doctor *doctor, struct netlink *netlink)
{
	struct nft_objects chains = {0};
	int error = nft_objects_read(netlink, NFT_TABLE, NFT_OBJECTS_CHAINS, &chains);

	if (error)
		doctor_say(doctor, DOCTOR_PROBLEM, "table", NULL, "the table inet " NFT_TABLE " cannot be read: %s", strerror(-error));
	else if (chains.count)
		doctor_say(doctor, DOCTOR_OK, "table", NULL, "inet " NFT_TABLE " is in force");
	else
		doctor_say(doctor, doctor->daemon ? DOCTOR_PROBLEM : DOCTOR_WARNING, "table",
			   doctor->daemon ? "something has removed it: restart the gateway" : NULL,
			   "there is no table inet " NFT_TABLE "%s", doctor->daemon ? "" : " yet; `sluice run` makes it");
	nft_objects_free(&chains);
}

/* Return: false when the kernel does not tell. */
static bool read_number(const char *name, unsigned long *out)
{
	char text[ENVIRONMENT_VALUE_MAX];

	if (environment_read(name, text, sizeof(text)) != 0 || text[0] < '0' || text[0] > '9')
		return false;
	*out = strtoul(text, NULL, 10);
	return true;
}

/* All networks share the table of flows. */
static void report_conntrack(struct doctor *doctor)
{
	unsigned long count, max, events;

	if (read_number("net.netfilter.nf_conntrack_count", &count) && read_number("net.netfilter.nf_conntrack_max", &max)) {
		bool full = max > 0 && count > max / 5 * 4;

		doctor_say(doctor, full ? DOCTOR_WARNING : DOCTOR_OK, "conntrack",
			   full ? "new flows are dropped when it is full: which app has so many, says `sluice stats`; the limit is "
				  "net.netfilter.nf_conntrack_max of the host"
				: NULL,
			   "%lu of at most %lu flows", count, max);
	}
	if (read_number("net.netfilter.nf_conntrack_events", &events) && events == 0)
		doctor_say(doctor, DOCTOR_WARNING, "conntrack",
			   "write under `sysctls:` of the gateway service: net.netfilter.nf_conntrack_events: \"1\"",
			   "net.netfilter.nf_conntrack_events is 0: flows that come in are told in sums only");
}

void doctor_kernel(struct doctor *doctor)
{
	struct ruleset ruleset = {.uid = geteuid()};
	char error[GATEWAY_ERROR_MAX];
	int fd, result = netlink_open(&ruleset.netlink, NETLINK_NETFILTER, 0);
	struct log *log = open_silent_log(&fd);

	ruleset.log = log;
	snprintf(error, sizeof(error), "nf_tables cannot be reached: %s", strerror(result ? -result : ENOMEM));
	if (!result && log)
		result = ruleset_probe(&ruleset, error, sizeof(error));
	else if (!result)
		result = -ENOMEM;
	if (result) {
		doctor_say(doctor, DOCTOR_PROBLEM, "kernel",
			   "the host's kernel needs nf_tables and NFQUEUE: modprobe nf_tables nft_queue nfnetlink_queue nft_compat "
			   "xt_NFQUEUE on the host",
			   "%s", error);
	} else {
		report_features(doctor, &ruleset.features);
		report_table(doctor, &ruleset.netlink);
		report_conntrack(doctor);
	}
	netlink_close(&ruleset.netlink);
	close_silent_log(log, fd);
}

/* Interfaces */

static bool holds(const struct interface *interface, const struct address *address)
{
	for (size_t i = 0; i < interface->address_count; i++) {
		if (address_equal(&interface->addresses[i].address, address))
			return true;
	}
	return false;
}

static void report_claim(struct doctor *doctor, const struct network *network, const struct interface *interface)
{
	const struct address *gateways[] = {&network->gateway4, &network->gateway6};
	char text[ADDRESS_TEXT_MAX];

	for (size_t i = 0; i < 2; i++) {
		if (gateways[i]->family && !holds(interface, gateways[i]) && doctor->daemon)
			doctor_say(doctor, DOCTOR_PROBLEM, "network", "something has removed it: `sluice reload` adds it again",
				   "%s: interface %s has not the gateway address %s", network->name, interface->name,
				   address_format(gateways[i], text));
	}
}

static void report_network(struct doctor *doctor, struct interfaces *interfaces, const struct network *network)
{
	const struct interface *interface = interfaces_of_network(interfaces, network->id);
	char caveat[FORM_CAVEAT_MAX];
	struct form_look look;
	int error;

	if (!interface) {
		doctor_say(doctor, DOCTOR_PROBLEM, "network", "attach the gateway to that network, or correct `subnet =` in the policy",
			   "%s: no interface has an address in its subnet", network->name);
		return;
	}
	error = form_look(&interfaces->requests, interface->index, &look);
	if (error) {
		doctor_say(doctor, DOCTOR_PROBLEM, "network", NULL, "%s: interface %s cannot be looked at: %s", network->name,
			   interface->name, strerror(-error));
		return;
	}
	doctor_say(doctor, DOCTOR_OK, "network", NULL, "%s: interface %s, form %s: %s", network->name, interface->name,
		   form_name(look.form), form_meaning(look.form, network));
	if (form_caveat(&look, network, caveat))
		doctor_say(doctor, DOCTOR_WARNING, "form", NULL, "network %s: %s", network->name, caveat);
	report_claim(doctor, network, interface);
}

static void report_uplink(struct doctor *doctor, const struct interfaces *interfaces)
{
	bool route = interfaces->route4 || interfaces->route6;

	if (!interfaces->uplink)
		doctor_say(doctor, DOCTOR_PROBLEM, "uplink", "attach the gateway to a network that leads to the Internet", "there is none");
	else if (route)
		doctor_say(doctor, DOCTOR_OK, "uplink", NULL, "interface %s, with a default route for %s", interfaces->choice.name,
			   !interfaces->route6   ? "IPv4"
			   : !interfaces->route4 ? "IPv6"
						 : "IPv4 and IPv6");
	else
		doctor_say(doctor, doctor->daemon ? DOCTOR_PROBLEM : DOCTOR_WARNING, "uplink",
			   doctor->daemon ? "is the uplink network `internal`? It must lead to the Internet" : NULL,
			   "interface %s: no default route leaves through it%s", interfaces->choice.name,
			   doctor->daemon ? "" : " yet; `sluice run` moves the one that Docker made");
}

void doctor_interfaces(struct doctor *doctor)
{
	struct interfaces interfaces;
	char error[GATEWAY_ERROR_MAX];
	int fd, result = interfaces_open(&interfaces);
	struct log *log = open_silent_log(&fd);

	snprintf(error, sizeof(error), "rtnetlink cannot be opened: %s", strerror(result ? -result : ENOMEM));
	if (!result && log)
		result = interfaces_scan(&interfaces, doctor->policy, log, error, sizeof(error));
	else if (!result)
		result = -ENOMEM;
	if (result) {
		doctor_say(doctor, DOCTOR_PROBLEM, "interfaces", NULL, "%s", error);
	} else {
		report_uplink(doctor, &interfaces);
		for (size_t i = 0; i < doctor->policy->network_count; i++)
			report_network(doctor, &interfaces, &doctor->policy->networks[i]);
	}
	if (interfaces.requests.socket)
		interfaces_close(&interfaces);
	close_silent_log(log, fd);
}
