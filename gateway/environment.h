/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_ENVIRONMENT_H
#define SLUICE_GATEWAY_ENVIRONMENT_H

#include <stdbool.h>
#include <stddef.h>

#include "common/log.h"
#include "common/policy.h"

#define ENVIRONMENT_VALUE_MAX 128 /* bytes of a sysctl's value */

/* A sysctl that the container must be started with. */
struct environment_setting {
	const char *name; /* as in the `sysctls:` section */
	const char *wanted;
	bool needed; /* nothing works without it; else things work worse */
	bool ipv6;   /* only when a network has IPv6 */
	const char *consequence;
};

/** environment_settings() - All of them, also for those who read Compose files. Return: a static array. */
const struct environment_setting *environment_settings(size_t *count);

/** environment_read() - The value of a sysctl in this network namespace. Return: 0 or -errno. */
int environment_read(const char *name, char *out, size_t size);

/** environment_may_open_port() - May port 53 be opened? @name, @value: the sysctl that decides, and what it says. */
bool environment_may_open_port(const char **name, char *value, size_t size);

/** environment_has_ipv6() - Has any network of the policy an IPv6 subnet? */
bool environment_has_ipv6(const struct policy *policy);

/**
 * environment_check() - Verify the sysctls that the container must be started with
 *
 * Each wrong one gets one log line with the text for the `sysctls:` section of the Compose file.
 *
 * Return: 0, or -EINVAL when one that nothing works without (ip_forward, IPv6 forwarding with an IPv6 network, the right to
 *	open port 53) is wrong.
 */
int environment_check(const struct policy *policy, struct log *log);

#endif
