/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_CONFIG_FINISH_H
#define SLUICE_GATEWAY_CONFIG_FINISH_H

#include "gateway/config_draft.h"

/**
 * config_finish() - Check sections against one another and move them into draft->policy
 *
 * Follows `use`, fills defaults (gateway addresses, ports, the default upstream), looks for overlaps and repetitions and
 * calls policy_finish(). What is wrong becomes a message.
 */
void config_finish(struct draft *draft);

#endif
