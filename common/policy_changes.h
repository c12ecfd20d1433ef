/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_COMMON_POLICY_CHANGES_H
#define SLUICE_COMMON_POLICY_CHANGES_H

/*
 * What a new policy means for the leases of the old one: pure. Usually some rules for names come or go, and only the leases of names that
 * these match have to be judged anew.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/chain.h"
#include "common/policy.h"

#define POLICY_CHANGES_MAX 64 /* rules */

struct policy_changes {
	struct {
		uint16_t network;
		const struct rule *rule; /* of the old policy or of the new one */
	} rules[POLICY_CHANGES_MAX];
	size_t count;
	bool flows; /* there is more by which flows are judged otherwise, although no lease is */
};

/**
 * policy_changes() - Rules for names that only one of two policies has
 *
 * Both have their ids (policy_inherit_ids()) and their own prefixes. Return: false when leases can differ by more than these rules, or when
 * there are too many of them: then all leases have to be judged.
 */
bool policy_changes(const struct policy *old, const struct policy *new, struct policy_changes *out);

/** policy_changes_name() - May a lease of this network, name and chain be judged otherwise now? */
bool policy_changes_name(const struct policy_changes *changes, uint16_t network, const struct domain *name, const struct chain *chain);

#endif
