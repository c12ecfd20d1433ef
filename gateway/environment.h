/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_ENVIRONMENT_H
#define SLUICE_GATEWAY_ENVIRONMENT_H

#include "common/log.h"
#include "common/policy.h"

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
