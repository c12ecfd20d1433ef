/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_CONFIG_PUBLISH_H
#define SLUICE_GATEWAY_CONFIG_PUBLISH_H

/*
 * `publish = PORT[-PORT][/PROTOCOLS] -> TARGET[:PORT]`: the one key whose entries have several words. Only for gateway/config*.c.
 */

#include "gateway/config_draft.h"

/** config_publish_word() - A config_setter: takes one word of an entry; an entry stands on one line, with or without spaces around "->". */
void config_publish_word(struct draft *draft, struct section *section, const char *value);

/** config_publish_settle() - What needs the whole section: an entry without its end, addresses that are not in the subnet. */
void config_publish_settle(struct draft *draft, struct section *section);

/** config_publish_compare() - What needs all networks: a port of the uplink leads to one place only. */
void config_publish_compare(struct draft *draft);

#endif
