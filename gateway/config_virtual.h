/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_CONFIG_VIRTUAL_H
#define SLUICE_GATEWAY_CONFIG_VIRTUAL_H

/* Networks with `addresses = virtual`. Only for gateway/config*.c. */

#include "gateway/config_draft.h"

/**
 * config_virtual_settle() - What needs the whole section: its pools, and that no rule is for an address
 *
 * Subnets and gateways must be settled, and `use` followed. A pool that was not given is the upper half of its subnet.
 */
void config_virtual_settle(struct draft *draft, struct section *section);

#endif
