/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_COMMON_POLICY_INTERNAL_H
#define SLUICE_COMMON_POLICY_INTERNAL_H

/* What policy.c, policy_name.c and policy_address.c share; nobody else includes this. */

#include "common/hash.h"
#include "common/policy.h"

/**
 * policy_name_finish() - Index the name rules of a network and work out its port specifications; see policy_finish()
 * Return: 0, -E2BIG or -ENOMEM; network->index is to be freed in any case.
 */
int policy_name_finish(struct network *network, char *error, size_t error_size, struct source *where);

/** policy_name_index_free() - Release an index; NULL is fine. */
void policy_name_index_free(struct name_index *index);

/** policy_address_index_new() - Index the address rules of a network. Return: NULL when out of memory. */
struct address_index *policy_address_index_new(const struct network *network);

/** policy_address_index_free() - Release an index; NULL is fine. */
void policy_address_index_free(struct address_index *index);

#endif
