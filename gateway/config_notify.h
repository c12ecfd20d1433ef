/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_CONFIG_NOTIFY_H
#define SLUICE_GATEWAY_CONFIG_NOTIFY_H

/* `notify` and the keys beside it. Only for gateway/config*.c. */

#include "gateway/config_draft.h"

#define CONFIG_TOKEN_MAX 4096UL /* octets of a token's file */

/* config_setters */
void config_notify_url(struct draft *draft, struct section *section, const char *value);
void config_notify_format(struct draft *draft, struct section *section, const char *value);
void config_notify_token_file(struct draft *draft, struct section *section, const char *value);
void config_notify_ca(struct draft *draft, struct section *section, const char *value);

/** config_notify_settle() - What needs the whole section: keys that mean nothing without another one. */
void config_notify_settle(struct draft *draft, const struct section *section);

/** config_notify_check() - What needs the finished policy: an address of the URL must not be one where apps are. */
void config_notify_check(struct draft *draft);

#endif
