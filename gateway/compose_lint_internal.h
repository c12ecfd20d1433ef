/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_COMPOSE_LINT_INTERNAL_H
#define SLUICE_GATEWAY_COMPOSE_LINT_INTERNAL_H

/* Between compose_lint*.c and compose_policy.c. */

#include "gateway/compose_lint.h"

#define LINT_DNS "192.0.2.53" /* what `dns:` may be where apps have a route: any address, since all questions come to the gateway */

/* A project being looked at. */
struct lint {
	const struct compose *compose;
	const struct lint_options *options;
	const struct policy *policy; /* NULL: none is known */
	struct policy *own;          /* owned: read from the gateway's environment */
	struct lint_report *report;
};

/** lint_say() - Add a finding. Text from the project may be part of it. */
void lint_say(struct lint *lint, enum lint_severity severity, enum lint_code code, enum lint_subject subject, const char *name,
	      const char *format, ...) __attribute__((format(printf, 6, 7)));

/**
 * lint_fix() - Lines for the finding said last, from the top of the Compose file
 * lint_fix_service(), lint_fix_network() - The same below a service or network; further lines bring their indentation
 *
 * Only names of services and networks and what was parsed may be part of them.
 */
void lint_fix(struct lint *lint, const char *format, ...) __attribute__((format(printf, 2, 3)));
void lint_fix_service(struct lint *lint, const struct compose_service *service, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void lint_fix_network(struct lint *lint, const struct compose_network *network, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/** lint_holds() - Does a container of the service have this capability? @by_default: Docker gives it to every container. */
bool lint_holds(const struct compose_service *service, const char *capability, bool by_default);

/** lint_docker_socket() - Does the service mount the engine's socket? */
bool lint_docker_socket(const struct compose_service *service);

/** lint_is_idle() - A companion with the gateway's image that does nothing. */
bool lint_is_idle(const struct compose_service *service);

enum lint_role lint_role(const struct lint *lint, const struct compose_network *network);

/** lint_subnet() - The first subnet of a family, or NULL. */
const struct compose_subnet *lint_subnet(const struct compose_network *network, int family);

/* compose_lint_gateway.c: who is the gateway, and is its service right? */

/** lint_gateway_find() - Sets report->gateway; says so when it cannot. */
void lint_gateway_find(struct lint *lint);
/** lint_gateway_find_uplink() - Sets report->uplink; says so when it cannot. */
void lint_gateway_find_uplink(struct lint *lint);
void lint_gateway(struct lint *lint);

/* compose_lint_network.c */
void lint_networks(struct lint *lint);

/* compose_lint_app.c: apps, and services that are near the gateway in other ways. Sets report->apps. */
void lint_apps(struct lint *lint);

/* compose_lint_virtual.c: networks with virtual addresses */

/** lint_virtual() - The policy's section for a network when that has virtual addresses, or NULL. */
const struct network *lint_virtual(const struct lint *lint, const struct compose_network *network);

/** lint_has_no_route() - Is it an internal network with virtual addresses? Apps have no route there and need none. */
bool lint_has_no_route(const struct lint *lint, const struct compose_network *network);

/** lint_fix_ranges() - Lines for the finding said last: subnets as in the policy, with an `ip_range` that leaves pool and gateway alone */
void lint_fix_ranges(struct lint *lint, const struct compose_network *network, const struct network *section);

void lint_virtual_networks(struct lint *lint);

/** lint_virtual_dns() - Check an app's `dns:`. Return: false when it is on no network where only the gateway can be asked. */
bool lint_virtual_dns(struct lint *lint, const struct compose_service *app);

/** lint_dns() - What an app on this network may have as `dns:`. Return: @out. */
const char *lint_dns(const struct lint *lint, const struct compose_network *network, char out[static ADDRESS_TEXT_MAX]);

/* compose_policy.c */

/** lint_policy_read() - The policy in the gateway's environment becomes lint->policy; says what is wrong with it. */
void lint_policy_read(struct lint *lint);
/** lint_section() - The policy's section for a network. Return: NULL when there is none, or no policy is known. */
const struct network *lint_section(const struct lint *lint, const struct compose_network *network);
/** lint_policy_compare() - Do policy and project agree about networks? */
void lint_policy_compare(struct lint *lint);

#endif
