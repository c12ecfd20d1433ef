/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_RULE_TEXT_H
#define SLUICE_GATEWAY_REPORT_RULE_TEXT_H

/* Pure: rules as text that the policy's reader takes back. */

#include <stdbool.h>

#include <jansson.h>

#include "common/policy.h"

#define RULE_TEXT_MAX (DOMAIN_TEXT_MAX + PORTS_TEXT_MAX + 8)

/** rule_text_name() / rule_text_address() - A rule for one name, for one address; its ports are to be filled in. */
struct rule rule_text_name(const struct domain *name);
struct rule rule_text_address(const struct address *address);

/** rule_text_ports() - One port. @protocol: IPPROTO_TCP, IPPROTO_UDP, or 0: both. */
struct ports rule_text_ports(uint8_t protocol, uint16_t port);

/**
 * rule_text_format() - "api.example:443/tcp", "192.0.2.5:22+443", "[2001:db8::5]:443/udp"
 * Return: false when the reader would refuse or warn about it, or read something else: the name is none that a policy can have.
 */
bool rule_text_format(const struct rule *rule, char out[static RULE_TEXT_MAX]);

/** rule_text_json() - Text that has a file's name in it, which may be of any octets. Return: a new reference; JSON null for "". */
json_t *rule_text_json(const char *text);

#endif
