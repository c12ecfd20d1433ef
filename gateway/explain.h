/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_EXPLAIN_H
#define SLUICE_GATEWAY_EXPLAIN_H

/* Between cmd_explain.c and cmd_explain_last.c. */

#include <jansson.h>
#include <stdbool.h>

#include "common/policy.h"

/* What was denied last. */
struct explain_last {
	const char *path;          /* of the policy, as given; may be NULL */
	const char *network, *app; /* NULL: any. An app may be named by its address */
	bool json;
};

/** explain_last() - Say what was denied last, why, and what to do. Return: exit status. */
int explain_last(const struct explain_last *what);

/** explain_rule() - A rule for JSON output; null for NULL. */
json_t *explain_rule(const struct rule *rule);

#endif
