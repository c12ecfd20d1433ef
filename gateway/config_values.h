/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_CONFIG_VALUES_H
#define SLUICE_GATEWAY_CONFIG_VALUES_H

/*
 * Pure parsers of single values of the policy language: text in, value or complaint out. For gateway/config*.c, and for
 * gateway/report/rule_text.c, which writes rules.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "common/policy.h"

#define CONFIG_COMPLAINT_MAX 384                  /* octets, with NUL */
#define CONFIG_SECONDS_MAX   (366U * 24U * 3600U) /* longest duration */
#define CONFIG_SERVER_PORT   53
#define CONFIG_TLS_PORT      853 /* RFC 7858 section 3.1 */
#define CONFIG_TLS_NAME_MAX  254 /* octets of a host name, with NUL */

/* What is wrong with a value. The texts are complete: they quote the value and say what to write. */
struct config_complaint {
	char error[CONFIG_COMPLAINT_MAX];
	char warning[CONFIG_COMPLAINT_MAX]; /* "" when there is none */
};

/** config_value_seconds() - "90", "90s", "5m", "2h", "1d". Return: false with complaint->error. All of these do so. */
bool config_value_seconds(const char *text, uint32_t *out, struct config_complaint *complaint);

/** config_value_number() - A decimal number in @first..@last. */
bool config_value_number(const char *text, uint32_t first, uint32_t last, uint32_t *out, struct config_complaint *complaint);

/** config_value_date() - "YYYY-MM-DD" or "YYYY-MM-DDTHH:MM[:SS]Z", UTC. */
bool config_value_date(const char *text, time_t *out, struct config_complaint *complaint);

/** config_value_prefix() - "ADDRESS/LENGTH" or an address, without host bits. */
bool config_value_prefix(const char *text, struct prefix *out, struct config_complaint *complaint);

/**
 * config_value_server() - "ADDRESS", "V4:PORT" or "[V6]:PORT" of an upstream server, or "tls://" before and "#NAME" behind that
 * @tls_name:	receives the name, in lower case and as A-labels; "" for plain DNS. @out does not point there.
 *
 * Docker's own resolver is refused.
 */
bool config_value_server(const char *text, struct upstream_server *out, char tls_name[static CONFIG_TLS_NAME_MAX],
			 struct config_complaint *complaint);

/** config_value_http() - "V4:PORT" or "[V6]:PORT" to listen on; out->source is left alone. */
bool config_value_http(const char *text, struct http_address *out, struct config_complaint *complaint);

/** config_value_pattern() - A name pattern without ports. */
bool config_value_pattern(const char *text, struct pattern *out, struct config_complaint *complaint);

/**
 * config_value_rule() - One rule: NAME[:PORTS], V4[/LENGTH][:PORTS] or [V6[/LENGTH]][:PORTS]
 * @out:	kind, pattern or prefix, ports and ports_given are set; ports is all ports when none are given
 */
bool config_value_rule(const char *text, struct rule *out, struct config_complaint *complaint);

#endif
