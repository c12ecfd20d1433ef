/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_CONFIG_VIRTUAL_H
#define SLUICE_GATEWAY_CONFIG_VIRTUAL_H

/* `addresses = virtual`: what it asks of a network, and which pools it has when none is given. Only for gateway/config*.c. */

#include "gateway/config_draft.h"

/** config_virtual_settle() - The subnets and gateways are settled, and the rules of `use` are in the section. */
void config_virtual_settle(struct draft *draft, struct section *section);

#endif
