/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_TESTS_UNIT_TWO_NETWORKS_H
#define SLUICE_TESTS_UNIT_TWO_NETWORKS_H

/* A policy without rules, for what knows networks by name and id only. */

#include <stdlib.h>
#include <string.h>

#include "common/policy.h"

/* Two networks, "web" with id 7 and "build" with id 9. Return: NULL when out of memory. */
static struct policy *make_two_networks(void)
{
	struct policy *policy = policy_new();

	if (!policy)
		return NULL;
	policy->networks = calloc(2, sizeof(*policy->networks));
	if (!policy->networks) {
		policy_free(policy);
		return NULL;
	}
	policy->network_count = 2;
	strcpy(policy->networks[0].name, "web");
	policy->networks[0].id = 7;
	strcpy(policy->networks[1].name, "build");
	policy->networks[1].id = 9;
	return policy;
}

#endif
