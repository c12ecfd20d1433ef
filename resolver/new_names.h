/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_RESOLVER_NEW_NAMES_H
#define SLUICE_RESOLVER_NEW_NAMES_H

/*
 * How many names nobody has asked for before may leave the gateway below a wildcard (`wildcard_names`): what an app could otherwise use
 * to send data, one name after another, to whoever runs the name servers there. Times are milliseconds of uv_now().
 */

#include <stdbool.h>
#include <stdint.h>

#include "common/policy.h"
#include "resolver/message.h"

#define NEW_NAMES_SEEN 8192 /* names that are remembered, of each network: those asked for last */

struct new_names; /* new_names.c */

/** new_names_new() - Return: NULL when out of memory. */
struct new_names *new_names_new(void);
void new_names_free(struct new_names *names);

/**
 * new_names_may_ask() - May this question leave the gateway? If so, it is counted
 * @rule:	the rule of the network that allows its name
 *
 * Free: names that the rule has itself, and questions that were asked lately. A, AAAA, HTTPS and SVCB of one name count once; each
 * further type counts, because its number is a message, too. Return: false also when out of memory.
 */
bool new_names_may_ask(struct new_names *names, const struct network *network, const struct rule *rule, const struct question *question,
		       uint64_t now);

/** new_names_set_policy() - Forget networks that are gone, or have no limit any more. */
void new_names_set_policy(struct new_names *names, const struct policy *policy, uint64_t now);

#endif
