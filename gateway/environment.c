/* SPDX-License-Identifier: MIT */
/*
 * Sysctls of the container's network namespace. /proc/sys cannot be written inside, so all we can do is say what is missing in the Compose
 * file.
 */
#include "gateway/environment.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DNS_PORT 53

static const struct environment_setting settings[] = {
	{"net.ipv4.ip_forward", "1", true, false, "no packet is forwarded"},
	{"net.ipv6.conf.all.forwarding", "1", true, true, "no IPv6 packet is forwarded"},
	{"net.ipv4.icmp_ratemask", "0", false, false, "apps wait for a timeout on many denied flows instead of failing at once"},
	{"net.ipv6.icmp.ratemask", "0,3-127", false, true, "apps wait for a timeout on many denied IPv6 flows instead of failing at once"},
	{"net.netfilter.nf_conntrack_acct", "1", false, false, "bytes of flows are not counted"},
	{"net.netfilter.nf_conntrack_tcp_be_liberal", "1", false, false,
	 "segments that arrive out of order can stall an allowed connection"},
	{"net.ipv4.conf.all.arp_notify", "1", false, false, "after a recreation apps lose their way for some seconds"},
	{"net.ipv4.conf.default.arp_notify", "1", false, false, "after a recreation apps lose their way for some seconds"},
	{"net.ipv6.conf.all.ndisc_notify", "1", false, true, "after a recreation apps lose their IPv6 way for some seconds"},
	{"net.ipv6.conf.default.ndisc_notify", "1", false, true, "after a recreation apps lose their IPv6 way for some seconds"},
};

const struct environment_setting *environment_settings(size_t *count)
{
	*count = sizeof(settings) / sizeof(settings[0]);
	return settings;
}

/* Read a file of /proc without its last newline. Return: 0 or -errno. */
static int read_value(const char *path, char *out, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t got = read(fd, out, size - 1);
	int error = got < 0 ? -errno : 0;
	close(fd);
	out[got > 0 ? got : 0] = '\0';
	out[strcspn(out, "\n")] = '\0';
	return error;
}

/* "net.ipv4.ip_forward" -> /proc/sys/net/ipv4/ip_forward. Our names have no dots of their own. */
int environment_read(const char *name, char *out, size_t size)
{
	char path[128];
	int length = snprintf(path, sizeof(path), "/proc/sys/%s", name);
	for (int i = 0; i < length; i++) {
		if (path[i] == '.')
			path[i] = '/';
	}
	return read_value(path, out, size);
}

bool environment_has_ipv6(const struct policy *policy)
{
	for (size_t i = 0; i < policy->network_count; i++) {
		if (policy->networks[i].subnet6.address.family)
			return true;
	}
	return false;
}

/* Return: false when nothing works with the value that is there. */
static bool check_setting(const struct environment_setting *setting, bool ipv6, struct log *log)
{
	char value[ENVIRONMENT_VALUE_MAX];
	if (setting->ipv6 && !ipv6)
		return true;
	int error = environment_read(setting->name, value, sizeof(value));
	if (!error && strcmp(value, setting->wanted) == 0)
		return true;
	log_say(log, setting->needed ? LOG_ERROR : LOG_WARNING, "%s is %s: %s; write under `sysctls:` of the gateway service: %s: \"%s\"",
		setting->name, error ? "not readable" : value, setting->consequence, setting->name, setting->wanted);
	return !setting->needed;
}

/* CAP_NET_BIND_SERVICE among the effective capabilities. */
static bool may_bind_low_ports(void)
{
	char line[256];
	unsigned long long effective = 0;
	FILE *file = fopen("/proc/self/status", "re");
	if (!file)
		return false;
	while (fgets(line, sizeof(line), file)) {
		if (strncmp(line, "CapEff:", 7) == 0)
			effective = strtoull(line + 7, NULL, 16);
	}
	fclose(file);
	return effective >> CAP_NET_BIND_SERVICE & 1;
}

bool environment_may_open_port(const char **name, char *value, size_t size)
{
	*name = "net.ipv4.ip_unprivileged_port_start";
	int error = environment_read(*name, value, size);
	if (error)
		snprintf(value, size, "not readable");
	return may_bind_low_ports() || (!error && strtoul(value, NULL, 10) <= DNS_PORT);
}

static bool check_port(struct log *log)
{
	char value[ENVIRONMENT_VALUE_MAX];
	const char *name;
	if (environment_may_open_port(&name, value, sizeof(value)))
		return true;
	log_say(log, LOG_ERROR, "%s is %s: port 53 cannot be opened; write under `sysctls:` of the gateway service: %s: \"0\"", name, value,
		name);
	return false;
}

int environment_check(const struct policy *policy, struct log *log)
{
	bool ipv6 = environment_has_ipv6(policy), usable = true;
	if (ipv6 && access("/proc/sys/net/ipv6", F_OK) != 0) {
		log_say(log, LOG_ERROR,
			"a network has an IPv6 subnet, but the kernel has no IPv6; take the IPv6 `subnet =` out of the policy, or start "
			"the host with IPv6");
		ipv6 = usable = false;
	}
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		usable &= check_setting(&settings[i], ipv6, log);
	usable &= check_port(log);
	return usable ? 0 : -EINVAL;
}
