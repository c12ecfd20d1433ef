/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_FLOWS_H
#define SLUICE_GATEWAY_FLOWS_H

/*
 * Flows as conntrack knows them. The only user of libnetfilter_conntrack.
 */

#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "common/policy.h"

/**
 * flows_end_audited() - Remove the conntrack entries of flows that audit mode let in, except from networks in audit mode at @now
 * @mark:	conntrack mark that says so
 *
 * Their next packet is then a new flow, judged by the rules of today.
 *
 * Return: how many were ended, or -errno.
 */
ssize_t flows_end_audited(const struct policy *policy, time_t now, uint32_t mark);

#endif
