/* SPDX-License-Identifier: MIT */
/*
 * Findings about a Compose project: who is who, and the list itself.
 *
 * Theory of operation: first the gateway service is found, then its policy (which may name the uplink), then the uplink. All other
 * networks of the gateway are behind it, and services on them are apps. compose_lint_*.c then look at one kind of thing each. What cannot
 * be seen in a Compose file (an external network, a network that is attached later) is a warning, never silence.
 *
 * The text of a finding may quote anything from the project, so control characters are taken out of it. Lines to be pasted hold only names
 * with the characters that Compose allows, and values that were parsed.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "gateway/compose_lint_internal.h"

static const char *const codes[] = {
	[LINT_GATEWAY_MISSING] = "gateway-missing",
	[LINT_GATEWAY_AMBIGUOUS] = "gateway-ambiguous",
	[LINT_GATEWAY_NETWORK_MODE] = "gateway-network-mode",
	[LINT_GATEWAY_NO_NETWORK] = "gateway-no-network",
	[LINT_GATEWAY_NET_ADMIN] = "gateway-net-admin",
	[LINT_GATEWAY_PRIVILEGED] = "gateway-privileged",
	[LINT_GATEWAY_CAPABILITIES] = "gateway-capabilities",
	[LINT_GATEWAY_DOCKER_SOCKET] = "gateway-docker-socket",
	[LINT_GATEWAY_SYSCTL] = "gateway-sysctl",
	[LINT_GATEWAY_NO_NEW_PRIVILEGES] = "gateway-no-new-privileges",
	[LINT_GATEWAY_INLINE_CONFIG] = "gateway-inline-config",
	[LINT_GATEWAY_TMPFS] = "gateway-tmpfs",
	[LINT_GATEWAY_WRITABLE_ROOT] = "gateway-writable-root",
	[LINT_GATEWAY_FILE_MOUNT] = "gateway-file-mount",
	[LINT_GATEWAY_ADDRESS] = "gateway-address",
	[LINT_GATEWAY_FIXED_ADDRESS] = "gateway-fixed-address",
	[LINT_GATEWAY_NO_POLICY] = "gateway-no-policy",
	[LINT_GATEWAY_PORTS] = "gateway-ports",
	[LINT_UPLINK_MISSING] = "uplink-missing",
	[LINT_UPLINK_INTERNAL] = "uplink-internal",
	[LINT_UPLINK_ADDRESS] = "uplink-address",
	[LINT_NETWORK_EXTERNAL] = "network-external",
	[LINT_NETWORK_PLAIN] = "network-plain",
	[LINT_NETWORK_MASQUERADE] = "network-masquerade",
	[LINT_NETWORK_BRIDGE_IPV6] = "network-bridge-ipv6",
	[LINT_NETWORK_ICC] = "network-icc",
	[LINT_NETWORK_INTERNAL] = "network-internal",
	[LINT_NETWORK_HOST_ADDRESS] = "network-host-address",
	[LINT_NETWORK_PARENTLESS] = "network-parentless",
	[LINT_NETWORK_SHARED_PARENT] = "network-shared-parent",
	[LINT_NETWORK_OPEN_PARENT] = "network-open-parent",
	[LINT_NETWORK_NO_CARRIER] = "network-no-carrier",
	[LINT_NETWORK_DRIVER] = "network-driver",
	[LINT_NETWORK_BAD_SUBNET] = "network-bad-subnet",
	[LINT_NETWORK_NO_SUBNET] = "network-no-subnet",
	[LINT_NETWORK_NO_GATEWAY] = "network-no-gateway",
	[LINT_NETWORK_OVERLAP] = "network-overlap",
	[LINT_NETWORK_DOCKER_POOL] = "network-docker-pool",
	[LINT_NETWORK_IP_RANGE] = "network-ip-range",
	[LINT_SERVICE_POOL_ADDRESS] = "service-pool-address",
	[LINT_POLICY_INVALID] = "policy-invalid",
	[LINT_POLICY_SUBNET] = "policy-subnet",
	[LINT_POLICY_GATEWAY] = "policy-gateway",
	[LINT_POLICY_NO_SECTION] = "policy-no-section",
	[LINT_POLICY_NO_NETWORK] = "policy-no-network",
	[LINT_APP_DNS] = "app-dns",
	[LINT_APP_DNS_LOOPBACK] = "app-dns-loopback",
	[LINT_APP_DNS_GATEWAY] = "app-dns-gateway",
	[LINT_APP_SECOND_WAY_OUT] = "app-second-way-out",
	[LINT_APP_SECOND_EXTERNAL] = "app-second-external",
	[LINT_APP_TWO_NETWORKS] = "app-two-networks",
	[LINT_APP_PORTS] = "app-ports",
	[LINT_APP_NETWORK_MODE] = "app-network-mode",
	[LINT_APP_NET_RAW] = "app-net-raw",
	[LINT_APP_CAPABILITY] = "app-capability",
	[LINT_APP_PRIVILEGED] = "app-privileged",
	[LINT_APP_DOCKER_SOCKET] = "app-docker-socket",
};
_Static_assert(sizeof(codes) / sizeof(codes[0]) == LINT_CODE_COUNT, "one name for each code");

const char *compose_lint_code(enum lint_code code)
{
	return codes[code];
}

const char *compose_lint_form_name(enum lint_form form)
{
	static const char *const names[] = {
		[LINT_FORM_BRIDGE] = "bridge",     [LINT_FORM_MACVLAN] = "macvlan",    [LINT_FORM_INTERNAL] = "internal",
		[LINT_FORM_EXTERNAL] = "external", [LINT_FORM_PLAIN] = "plain bridge", [LINT_FORM_UNKNOWN] = "unknown",
	};

	_Static_assert(sizeof(names) / sizeof(names[0]) == LINT_FORM_UNKNOWN + 1, "one name for each form");
	return names[form];
}

enum lint_form compose_lint_form(const struct compose_network *network)
{
	if (network->external)
		return LINT_FORM_EXTERNAL;
	if (network->internal)
		return LINT_FORM_INTERNAL;
	if (strcmp(network->driver, "macvlan") == 0)
		return LINT_FORM_MACVLAN;
	if (strcmp(network->driver, "bridge") != 0)
		return LINT_FORM_UNKNOWN;
	return compose_true(json_object_get(network->options, "com.docker.network.bridge.inhibit_ipv4")) ? LINT_FORM_BRIDGE
													 : LINT_FORM_PLAIN;
}

/* The list */

/* C0, DEL and, as they are written in UTF-8, C1: what a terminal would act upon. */
static void make_printable(char *text)
{
	for (unsigned char *at = (unsigned char *)text; *at; at++) {
		if (*at < 0x20 || *at == 0x7f)
			*at = '?';
		else if (at[0] == 0xc2 && at[1] >= 0x80 && at[1] <= 0x9f)
			at[0] = at[1] = '?';
	}
}

static struct lint_finding *new_finding(struct lint_report *report)
{
	struct lint_finding *larger;

	if (report->count == LINT_FINDINGS_MAX)
		return NULL;
	/* At powers of two. */
	if ((report->count & (report->count - 1)) == 0) {
		larger = reallocarray(report->findings, report->count ? report->count * 2 : 1, sizeof(*larger));
		if (!larger) {
			report->no_memory = true;
			return NULL;
		}
		report->findings = larger;
	}
	return &report->findings[report->count];
}

void lint_say(struct lint *lint, enum lint_severity severity, enum lint_code code, enum lint_subject subject, const char *name,
	      const char *format, ...)
{
	struct lint_report *report = lint->report;
	struct lint_finding *finding = new_finding(report);
	va_list arguments;

	report->errors += severity == LINT_ERROR;
	report->warnings += severity == LINT_WARNING;
	if (!finding)
		return;
	*finding = (struct lint_finding){.severity = severity, .code = code, .subject = subject, .name = name};
	va_start(arguments, format);
	if (vasprintf(&finding->text, format, arguments) < 0)
		finding->text = NULL;
	va_end(arguments);
	if (!finding->text) {
		report->no_memory = true;
		return;
	}
	make_printable(finding->text);
	report->count++;
}

/* @section: "services", "networks", or NULL when the lines are whole. */
static void __attribute__((format(printf, 4, 0)))
fix_below(struct lint *lint, const char *section, const char *name, const char *format, va_list arguments)
{
	struct lint_report *report = lint->report;
	char *lines = NULL, *whole = NULL;

	/* When not all findings were kept, the last one is not the one that is meant. */
	if (report->count == 0 || report->count != report->errors + report->warnings)
		return;
	if (vasprintf(&lines, format, arguments) < 0)
		lines = NULL;
	if (lines && section && asprintf(&whole, "%s:\n  %s:\n    %s", section, name, lines) < 0)
		whole = NULL;
	if (section)
		free(lines);
	report->findings[report->count - 1].fix = section ? whole : lines;
	report->no_memory |= !report->findings[report->count - 1].fix;
}

void lint_fix(struct lint *lint, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fix_below(lint, NULL, NULL, format, arguments);
	va_end(arguments);
}

void lint_fix_service(struct lint *lint, const struct compose_service *service, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fix_below(lint, "services", service->name, format, arguments);
	va_end(arguments);
}

void lint_fix_network(struct lint *lint, const struct compose_network *network, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fix_below(lint, "networks", network->name, format, arguments);
	va_end(arguments);
}

/* What several files ask */

bool lint_holds(const struct compose_service *service, const char *capability, bool by_default)
{
	const json_t *add = json_object_get(service->json, "cap_add"), *drop = json_object_get(service->json, "cap_drop");

	/* The order in which the engine decides. */
	if (compose_true(json_object_get(service->json, "privileged")))
		return true;
	if (compose_capability(add, "ALL"))
		return !compose_capability(drop, capability);
	if (compose_capability(add, capability))
		return true;
	return by_default && !compose_capability(drop, capability) && !compose_capability(drop, "ALL");
}

static bool is_docker_socket(void *context, const char *source, const char *target)
{
	static const char *const names[] = {"docker.sock", "containerd.sock", "podman.sock"};

	(void)context;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strstr(source, names[i]) || strstr(target, names[i]))
			return true;
	}
	/* A folder above it. */
	return strcmp(source, "/") == 0 || strcmp(source, "/var") == 0 || strcmp(source, "/var/run") == 0 || strcmp(source, "/run") == 0;
}

bool lint_docker_socket(const struct compose_service *service)
{
	return compose_mount(service, is_docker_socket, NULL);
}

bool lint_is_idle(const struct compose_service *service)
{
	return compose_list_has(json_object_get(service->json, "command"), "idle");
}

enum lint_role lint_role(const struct lint *lint, const struct compose_network *network)
{
	return lint->report->roles[network - lint->compose->networks];
}

const struct compose_subnet *lint_subnet(const struct compose_network *network, int family)
{
	for (size_t i = 0; i < network->subnet_count; i++) {
		if (network->subnets[i].subnet.address.family == family)
			return &network->subnets[i];
	}
	return NULL;
}

/* Who is who */

static int check_options(const struct compose *compose, const struct lint_options *options)
{
	if (options->gateway && !compose_service(compose, options->gateway))
		return -ENOENT;
	if (options->uplink && !compose_network(compose, options->uplink))
		return -ENOENT;
	for (size_t i = 0; i < options->network_count; i++) {
		if (!compose_network(compose, options->networks[i]))
			return -ENOENT;
	}
	return 0;
}

static void assign_roles(struct lint *lint)
{
	const struct lint_options *options = lint->options;
	struct lint_report *report = lint->report;

	for (size_t i = 0; report->gateway && i < report->gateway->attachment_count; i++)
		report->roles[report->gateway->attachments[i].network - lint->compose->networks] = LINT_ROLE_BEHIND;
	for (size_t i = 0; i < options->network_count; i++)
		report->roles[compose_network(lint->compose, options->networks[i]) - lint->compose->networks] = LINT_ROLE_BEHIND;
	if (report->uplink)
		report->roles[report->uplink - lint->compose->networks] = LINT_ROLE_UPLINK;
}

int compose_lint(const struct compose *compose, const struct lint_options *options, struct lint_report *out)
{
	struct lint lint = {.compose = compose, .options = options, .policy = options->policy, .report = out};
	int result = check_options(compose, options);

	memset(out, 0, sizeof(*out));
	if (result)
		return result;
	out->roles = calloc(compose->network_count + 1, sizeof(*out->roles));
	out->apps = calloc(compose->service_count + 1, sizeof(*out->apps));
	if (!out->roles || !out->apps) {
		compose_lint_free(out);
		return -ENOMEM;
	}
	lint_gateway_find(&lint);
	lint_policy_read(&lint);
	lint_gateway_find_uplink(&lint);
	assign_roles(&lint);
	lint_gateway(&lint);
	lint_networks(&lint);
	lint_virtual_networks(&lint);
	lint_policy_compare(&lint);
	lint_apps(&lint);
	policy_free(lint.own);
	if (!out->no_memory)
		return 0;
	compose_lint_free(out);
	return -ENOMEM;
}

void compose_lint_free(struct lint_report *report)
{
	for (size_t i = 0; i < report->count; i++) {
		free(report->findings[i].text);
		free(report->findings[i].fix);
	}
	free(report->findings);
	free(report->roles);
	free(report->apps);
	memset(report, 0, sizeof(*report));
}
