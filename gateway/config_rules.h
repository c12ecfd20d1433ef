/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_CONFIG_RULES_H
#define SLUICE_GATEWAY_CONFIG_RULES_H

/*
 * What each key does with one of its values. The section is draft->section, the place draft->here; what is wrong becomes a
 * message. Only for gateway/config*.c.
 */

#include "gateway/config_draft.h"

typedef void (*config_setter)(struct draft *draft, struct section *section, const char *value);

void config_rules_allow(struct draft *draft, struct section *section, const char *value);
void config_rules_deny(struct draft *draft, struct section *section, const char *value);
void config_rules_use(struct draft *draft, struct section *section, const char *value);
void config_rules_ports(struct draft *draft, struct section *section, const char *value);
void config_rules_private(struct draft *draft, struct section *section, const char *value);
void config_rules_ca(struct draft *draft, struct section *section, const char *value);
void config_rules_match(struct draft *draft, struct section *section, const char *value);
void config_rules_server(struct draft *draft, struct section *section, const char *value);
void config_rules_subnet(struct draft *draft, struct section *section, const char *value);
void config_rules_gateway(struct draft *draft, struct section *section, const char *value);
void config_rules_addresses(struct draft *draft, struct section *section, const char *value);
void config_rules_pool(struct draft *draft, struct section *section, const char *value);
void config_rules_per_name(struct draft *draft, struct section *section, const char *value);
void config_rules_mode(struct draft *draft, struct section *section, const char *value);
void config_rules_audit_until(struct draft *draft, struct section *section, const char *value);
void config_rules_uplink(struct draft *draft, struct section *section, const char *value);
void config_rules_flowtable(struct draft *draft, struct section *section, const char *value);
void config_rules_log(struct draft *draft, struct section *section, const char *value);
void config_rules_min_ttl(struct draft *draft, struct section *section, const char *value);
void config_rules_grace(struct draft *draft, struct section *section, const char *value);
void config_rules_max_age(struct draft *draft, struct section *section, const char *value);
void config_rules_max_addresses(struct draft *draft, struct section *section, const char *value);
void config_rules_wildcard_octets(struct draft *draft, struct section *section, const char *value);
void config_rules_wildcard_labels(struct draft *draft, struct section *section, const char *value);
void config_rules_wildcard_names(struct draft *draft, struct section *section, const char *value);
void config_rules_max_flows(struct draft *draft, struct section *section, const char *value);
void config_rules_keep_established(struct draft *draft, struct section *section, const char *value);
void config_rules_log_allowed(struct draft *draft, struct section *section, const char *value);
void config_rules_verify(struct draft *draft, struct section *section, const char *value);
void config_rules_verify_ports(struct draft *draft, struct section *section, const char *value);
void config_rules_without_name(struct draft *draft, struct section *section, const char *value);

/** config_rules_one_of() - Return: the index of @value in @names, or -1 after a message about @key. */
int config_rules_one_of(struct draft *draft, const char *key, const char *value, const char *const *names, size_t count);

/** config_rules_append() - Add a rule of the policy to a section, within CONFIG_RULES_MAX. */
void config_rules_append(struct draft *draft, struct section *section, struct rule *rule);
/** config_rules_keep() - A copy that the policy owns. Return: NULL when out of memory (draft->no_memory is set). */
struct rule *config_rules_keep(struct draft *draft, const struct rule *rule);

#endif
