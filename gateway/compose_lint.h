/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_COMPOSE_LINT_H
#define SLUICE_GATEWAY_COMPOSE_LINT_H

/*
 * Ways around the gateway, and what keeps it from working, as a Compose project shows them. Pure. docs/lint.md describes every finding:
 * their codes are a public interface, append only.
 */

#include <stdbool.h>
#include <stddef.h>

#include "common/policy.h"
#include "gateway/compose.h"

#define LINT_FINDINGS_MAX 4096 /* kept; the rest is counted */

enum lint_severity { LINT_WARNING, LINT_ERROR };
enum lint_subject { LINT_PROJECT, LINT_SERVICE, LINT_NETWORK };

enum lint_code {
	LINT_GATEWAY_MISSING,
	LINT_GATEWAY_AMBIGUOUS,
	LINT_GATEWAY_NETWORK_MODE,
	LINT_GATEWAY_NO_NETWORK,
	LINT_GATEWAY_NET_ADMIN,
	LINT_GATEWAY_PRIVILEGED,
	LINT_GATEWAY_CAPABILITIES,
	LINT_GATEWAY_DOCKER_SOCKET,
	LINT_GATEWAY_SYSCTL,
	LINT_GATEWAY_NO_NEW_PRIVILEGES,
	LINT_GATEWAY_INLINE_CONFIG,
	LINT_GATEWAY_TMPFS,
	LINT_GATEWAY_WRITABLE_ROOT,
	LINT_GATEWAY_FILE_MOUNT,
	LINT_GATEWAY_ADDRESS,
	LINT_GATEWAY_FIXED_ADDRESS,
	LINT_GATEWAY_NO_POLICY,
	LINT_GATEWAY_PORTS,
	LINT_UPLINK_MISSING,
	LINT_UPLINK_INTERNAL,
	LINT_UPLINK_ADDRESS,
	LINT_NETWORK_EXTERNAL,
	LINT_NETWORK_PLAIN,
	LINT_NETWORK_MASQUERADE,
	LINT_NETWORK_BRIDGE_IPV6,
	LINT_NETWORK_ICC,
	LINT_NETWORK_INTERNAL,
	LINT_NETWORK_HOST_ADDRESS,
	LINT_NETWORK_PARENTLESS,
	LINT_NETWORK_SHARED_PARENT,
	LINT_NETWORK_OPEN_PARENT,
	LINT_NETWORK_NO_CARRIER,
	LINT_NETWORK_DRIVER,
	LINT_NETWORK_BAD_SUBNET,
	LINT_NETWORK_NO_SUBNET,
	LINT_NETWORK_NO_GATEWAY,
	LINT_NETWORK_OVERLAP,
	LINT_NETWORK_DOCKER_POOL,
	LINT_NETWORK_IP_RANGE,
	LINT_SERVICE_POOL_ADDRESS,
	LINT_POLICY_INVALID,
	LINT_POLICY_SUBNET,
	LINT_POLICY_GATEWAY,
	LINT_POLICY_NO_SECTION,
	LINT_POLICY_NO_NETWORK,
	LINT_APP_DNS,
	LINT_APP_DNS_LOOPBACK,
	LINT_APP_DNS_GATEWAY,
	LINT_APP_SECOND_WAY_OUT,
	LINT_APP_SECOND_EXTERNAL,
	LINT_APP_TWO_NETWORKS,
	LINT_APP_PORTS,
	LINT_APP_NETWORK_MODE,
	LINT_APP_NET_RAW,
	LINT_APP_CAPABILITY,
	LINT_APP_PRIVILEGED,
	LINT_APP_DOCKER_SOCKET,
	LINT_CODE_COUNT,
};

/* What a network is to the gateway, as the project shows it. */
enum lint_role { LINT_ROLE_OTHER, LINT_ROLE_UPLINK, LINT_ROLE_BEHIND };
enum lint_form { LINT_FORM_BRIDGE, LINT_FORM_MACVLAN, LINT_FORM_INTERNAL, LINT_FORM_EXTERNAL, LINT_FORM_PLAIN, LINT_FORM_UNKNOWN };

struct lint_finding {
	enum lint_severity severity;
	enum lint_code code;
	enum lint_subject subject;
	const char *name; /* of the service or network, in the project; NULL for the project */
	char *text;       /* owned; one line */
	char *fix;        /* owned; lines for the Compose file, or NULL */
};

/* What is known better than it can be seen. */
struct lint_options {
	const char *gateway;         /* service; NULL: look for it */
	const char *uplink;          /* network; NULL: look for it */
	const char *const *networks; /* behind a gateway that may be in another project */
	size_t network_count;
	const struct policy *policy; /* NULL: what SLUICE_CONFIG of the gateway service says */
};

/* Names belong to the project. */
struct lint_report {
	struct lint_finding *findings;  /* owned */
	size_t count, errors, warnings; /* count: those kept */
	const struct compose_service *gateway;
	const struct compose_network *uplink;
	enum lint_role *roles; /* owned; of compose->networks */
	bool *apps;            /* owned; of compose->services */
	bool no_memory;        /* something is missing */
};

/** compose_lint() - Return: 0, -ENOMEM, or -ENOENT when an option names what the project does not have. */
int compose_lint(const struct compose *compose, const struct lint_options *options, struct lint_report *out);
void compose_lint_free(struct lint_report *report);

/** compose_lint_code() - The stable name of a finding, "app-dns". */
const char *compose_lint_code(enum lint_code code);

/** compose_lint_form() / compose_lint_form_name() - The form that a network is written in. */
enum lint_form compose_lint_form(const struct compose_network *network);
const char *compose_lint_form_name(enum lint_form form);

#endif
