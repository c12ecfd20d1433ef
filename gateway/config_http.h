/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_CONFIG_HTTP_H
#define SLUICE_GATEWAY_CONFIG_HTTP_H

/* The key `http` of [gateway]. Only for gateway/config*.c. */

#include "gateway/config_draft.h"

/** config_http_set() - A config_setter: an address, or "off". */
void config_http_set(struct draft *draft, struct section *section, const char *value);

/** config_http_settle() - What needs the whole text: may one listen on these addresses? */
void config_http_settle(struct draft *draft);

#endif
