/* SPDX-License-Identifier: MIT */
/* The gateway service of a Compose project: which one it is, which network is its uplink, and what it needs to do its work. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "gateway/compose_lint_internal.h"
#include "gateway/config.h"
#include "gateway/control.h"
#include "gateway/environment.h"

#define RUN_DIRECTORY "/run/sluice"
#define IMAGE_NAME    "sluice"
#define UPLINK_NAME   "uplink"
#define NAMES_MAX     256 /* octets of a list of names in a finding */

#define SAY(lint, severity, code, ...) lint_say(lint, severity, code, LINT_SERVICE, (lint)->report->gateway->name, __VA_ARGS__)

/* Which one */

/* "registry.example/team/sluice:1.0@sha256:..." -> is "sluice" the last part? */
static bool has_our_image(const struct compose_service *service)
{
	const char *slash = service->image ? strrchr(service->image, '/') : NULL;
	const char *name = slash ? slash + 1 : service->image;

	return name && strcspn(name, ":@") == strlen(IMAGE_NAME) && strncmp(name, IMAGE_NAME, strlen(IMAGE_NAME)) == 0;
}

static bool is_policy_mount(void *context, const char *source, const char *target)
{
	(void)context;
	(void)source;
	return strcmp(target, CONFIG_DEFAULT_PATH) == 0 || strncmp(target, CONFIG_DEFAULT_PATH "/", strlen(CONFIG_DEFAULT_PATH "/")) == 0;
}

static bool has_policy_text(const struct compose_service *service)
{
	char buffer[COMPOSE_TEXT_MAX];
	const char *text = compose_map_text(json_object_get(service->json, "environment"), CONFIG_ENVIRONMENT, buffer);

	return text && *text;
}

static bool looks_like_gateway(const struct compose_service *service)
{
	if (lint_is_idle(service))
		return false;
	return has_our_image(service) || has_policy_text(service) || compose_mount(service, is_policy_mount, NULL);
}

static void append_name(char *list, size_t size, const char *name)
{
	size_t used = strlen(list);

	snprintf(list + used, size - used, "%s%s", used ? ", " : "", name);
}

void lint_gateway_find(struct lint *lint)
{
	const struct compose *compose = lint->compose;
	const struct compose_service *found = NULL;
	char names[NAMES_MAX] = "";
	size_t count = 0;

	if (lint->options->gateway) {
		lint->report->gateway = compose_service(compose, lint->options->gateway);
		return;
	}
	for (size_t i = 0; i < compose->service_count; i++) {
		if (!looks_like_gateway(&compose->services[i]))
			continue;
		found = &compose->services[i];
		append_name(names, sizeof(names), found->name);
		count++;
	}
	if (count == 1)
		lint->report->gateway = found;
	else if (count > 1)
		lint_say(lint, LINT_ERROR, LINT_GATEWAY_AMBIGUOUS, LINT_PROJECT, NULL,
			 "several services look like the gateway (%s); name the one that is meant: sluice lint --gateway SERVICE", names);
	else if (!lint->options->network_count)
		lint_say(lint, LINT_ERROR, LINT_GATEWAY_MISSING, LINT_PROJECT, NULL,
			 "no service looks like the gateway (image sluice, SLUICE_CONFIG, or a mount at /etc/sluice); name it with "
			 "--gateway "
			 "SERVICE, or, when it is in another project, name the networks behind it with --network NETWORK");
}

/* The uplink */

static bool is_in_policy(const struct policy *policy, const struct compose_network *network)
{
	for (size_t i = 0; i < policy->network_count; i++) {
		const struct prefix *subnets[] = {&policy->networks[i].subnet4, &policy->networks[i].subnet6};

		for (size_t j = 0; j < network->subnet_count; j++) {
			const struct prefix *own = &network->subnets[j].subnet, *other = subnets[own->address.family == AF_INET6];

			if (other->address.family && (prefix_covers(other, own) || prefix_covers(own, other)))
				return true;
		}
	}
	return false;
}

static bool may_be_uplink(const struct lint *lint, const struct compose_network *network)
{
	if (lint->policy && is_in_policy(lint->policy, network))
		return false;
	for (size_t i = 0; i < lint->options->network_count; i++) {
		if (strcmp(lint->options->networks[i], network->name) == 0)
			return false;
	}
	return compose_lint_form(network) == LINT_FORM_PLAIN || compose_lint_form(network) == LINT_FORM_EXTERNAL;
}

/* `uplink = SUBNET` in the policy. */
static bool is_named_by_policy(const struct lint *lint, const struct compose_network *network)
{
	struct prefix subnet;

	if (!lint->policy || !prefix_parse(lint->policy->uplink, &subnet, NULL))
		return false;
	for (size_t i = 0; i < network->subnet_count; i++) {
		if (prefix_covers(&network->subnets[i].subnet, &subnet) || prefix_covers(&subnet, &network->subnets[i].subnet))
			return true;
	}
	return false;
}

/* The one of the gateway's networks that is called so, or is named by the policy, or is the only one that can be. */
static const struct compose_network *choose_uplink(const struct lint *lint)
{
	const struct compose_service *gateway = lint->report->gateway;
	const struct compose_network *found = NULL;
	size_t count = 0;

	for (size_t i = 0; i < gateway->attachment_count; i++) {
		if (is_named_by_policy(lint, gateway->attachments[i].network))
			return gateway->attachments[i].network;
	}
	for (size_t i = 0; i < gateway->attachment_count; i++) {
		const struct compose_network *network = gateway->attachments[i].network;

		if (strcmp(network->name, UPLINK_NAME) == 0)
			return network;
		if (!may_be_uplink(lint, network))
			continue;
		found = network;
		count++;
	}
	return count == 1 ? found : NULL;
}

void lint_gateway_find_uplink(struct lint *lint)
{
	const struct compose_service *gateway = lint->report->gateway;
	char names[NAMES_MAX] = "";

	if (lint->options->uplink)
		lint->report->uplink = compose_network(lint->compose, lint->options->uplink);
	else if (gateway && !gateway->network_mode)
		lint->report->uplink = choose_uplink(lint);
	if (!gateway || gateway->network_mode)
		return;
	for (size_t i = 0; i < gateway->attachment_count; i++)
		append_name(names, sizeof(names), gateway->attachments[i].network->name);
	if (!lint->report->uplink) {
		SAY(lint, LINT_ERROR, LINT_UPLINK_MISSING,
		    "of its networks (%s) it is not clear which one leads to the Internet; call that one 'uplink', or name it: sluice lint "
		    "--uplink NETWORK",
		    names);
	} else if (!compose_attachment(gateway, lint->report->uplink)) {
		SAY(lint, LINT_ERROR, LINT_UPLINK_MISSING, "is not attached to network %s, its uplink: it cannot reach the Internet",
		    lint->report->uplink->name);
		lint_fix_service(lint, lint->report->gateway, "networks:\n      %s: {}\n", lint->report->uplink->name);
	}
}

/* What it needs */

static void check_network_mode(struct lint *lint)
{
	const char *mode = lint->report->gateway->network_mode;

	SAY(lint, LINT_ERROR, LINT_GATEWAY_NETWORK_MODE,
	    "`network_mode: %s`: the gateway needs networks of its own, the uplink and those behind it; take the line out and list them "
	    "under "
	    "`networks`",
	    mode);
}

static void check_capabilities(struct lint *lint)
{
	const struct compose_service *gateway = lint->report->gateway;
	const json_t *add = json_object_get(gateway->json, "cap_add");
	size_t listed = json_is_array(add) ? json_array_size(add) : !compose_is_empty(add);

	if (compose_true(json_object_get(gateway->json, "privileged"))) {
		SAY(lint, LINT_ERROR, LINT_GATEWAY_PRIVILEGED,
		    "is privileged: whoever breaks into it owns the host; it needs the capability NET_ADMIN and nothing else");
		lint_fix_service(lint, lint->report->gateway, "privileged: false\n    cap_drop: [ALL]\n    cap_add: [NET_ADMIN]\n");
		return;
	}
	if (!lint_holds(gateway, "NET_ADMIN", false)) {
		SAY(lint, LINT_ERROR, LINT_GATEWAY_NET_ADMIN, "has not the capability NET_ADMIN: it cannot start");
		lint_fix_service(lint, lint->report->gateway, "cap_drop: [ALL]\n    cap_add: [NET_ADMIN]\n");
	} else if (listed > 1 || compose_capability(add, "ALL") || !compose_capability(json_object_get(gateway->json, "cap_drop"), "ALL")) {
		SAY(lint, LINT_WARNING, LINT_GATEWAY_CAPABILITIES, "has more capabilities than the one it needs");
		lint_fix_service(lint, lint->report->gateway, "cap_drop: [ALL]\n    cap_add: [NET_ADMIN]\n");
	}
}

static bool has_ipv6_behind(const struct lint *lint)
{
	for (size_t i = 0; i < lint->compose->network_count; i++) {
		if (lint->report->roles[i] == LINT_ROLE_BEHIND && lint->compose->networks[i].ipv6)
			return true;
	}
	return lint->policy && environment_has_ipv6(lint->policy);
}

static void check_sysctls(struct lint *lint)
{
	const json_t *sysctls = json_object_get(lint->report->gateway->json, "sysctls");
	char buffer[COMPOSE_TEXT_MAX];
	bool ipv6 = has_ipv6_behind(lint);
	size_t count;
	const struct environment_setting *settings = environment_settings(&count);

	for (size_t i = 0; i < count; i++) {
		const char *value = compose_map_text(sysctls, settings[i].name, buffer);

		if ((settings[i].ipv6 && !ipv6) || (value && strcmp(value, settings[i].wanted) == 0))
			continue;
		SAY(lint, settings[i].needed ? LINT_ERROR : LINT_WARNING, LINT_GATEWAY_SYSCTL, "sysctl %s is %s%s: %s", settings[i].name,
		    value ? "set to " : "not set", value ? value : "", settings[i].consequence);
		lint_fix_service(lint, lint->report->gateway, "sysctls:\n      %s: \"%s\"\n", settings[i].name, settings[i].wanted);
	}
}

static bool is_root(const json_t *user)
{
	char buffer[COMPOSE_TEXT_MAX];
	const char *text = compose_text(user, buffer);
	size_t length = text ? strcspn(text, ":") : 0;

	return (length == 1 && text[0] == '0') || (length == strlen("root") && strncmp(text, "root", length) == 0);
}

static void check_no_new_privileges(struct lint *lint)
{
	const struct compose_service *gateway = lint->report->gateway;
	const json_t *options = json_object_get(gateway->json, "security_opt");

	if (is_root(json_object_get(gateway->json, "user")) ||
	    !(compose_list_has(options, "no-new-privileges") || compose_list_has(options, "no-new-privileges:true") ||
	      compose_list_has(options, "no-new-privileges=true")))
		return;
	SAY(lint, LINT_ERROR, LINT_GATEWAY_NO_NEW_PRIVILEGES,
	    "`no-new-privileges` disables the capability of the program when its user is not root: it cannot start; take the option out "
	    "(the "
	    "program sets it by itself after its start), or run it as root with NET_ADMIN only");
	lint_fix_service(lint, lint->report->gateway, "user: \"0\"\n    cap_drop: [ALL]\n    cap_add: [NET_ADMIN]\n");
}

/* `path[:options]` of the tmpfs list. */
static bool has_tmpfs(const json_t *list)
{
	static const char *const places[] = {RUN_DIRECTORY, "/run", "/var/run"};
	char buffer[COMPOSE_TEXT_MAX];
	size_t count = json_is_array(list) ? json_array_size(list) : 1;

	for (size_t i = 0; i < count; i++) {
		const char *path = compose_text(json_is_array(list) ? json_array_get(list, i) : list, buffer);
		size_t length = path ? strcspn(path, ":") : 0;

		while (length > 1 && path[length - 1] == '/')
			length--;
		for (size_t j = 0; j < sizeof(places) / sizeof(places[0]) && path; j++) {
			if (length == strlen(places[j]) && strncmp(path, places[j], length) == 0)
				return true;
		}
	}
	return false;
}

static bool is_run_mount(void *context, const char *source, const char *target)
{
	(void)context;
	(void)source;
	return strcmp(target, RUN_DIRECTORY) == 0 || strcmp(target, RUN_DIRECTORY "/") == 0 || strcmp(target, "/run") == 0;
}

/* Does the service use a config whose content is not a file? Compose refuses that for a read-only service. */
static bool uses_inline_config(const struct lint *lint)
{
	const json_t *used, *config;
	size_t index;

	json_array_foreach(json_object_get(lint->report->gateway->json, "configs"), index, used)
	{
		const char *name = json_string_value(json_is_object(used) ? json_object_get(used, "source") : used);

		config = name ? json_object_get(lint->compose->configs, name) : NULL;
		if (!compose_is_empty(json_object_get(config, "content")) || !compose_is_empty(json_object_get(config, "environment")))
			return true;
	}
	return false;
}

static void check_files(struct lint *lint)
{
	const struct compose_service *gateway = lint->report->gateway;
	bool read_only = compose_true(json_object_get(gateway->json, "read_only"));

	if (!read_only) {
		SAY(lint, LINT_WARNING, LINT_GATEWAY_WRITABLE_ROOT, "its root file system can be written");
		lint_fix_service(lint, lint->report->gateway, "read_only: true\n    tmpfs: [\"" RUN_DIRECTORY ":size=1m,mode=1777\"]\n");
		return;
	}
	if (uses_inline_config(lint)) {
		SAY(lint, LINT_ERROR, LINT_GATEWAY_INLINE_CONFIG,
		    "`configs` with inline content is refused for a `read_only` service, and docker-compose 1.29.2 does not know it; write "
		    "the policy into the environment instead, or mount a directory at " CONFIG_DEFAULT_PATH);
		lint_fix_service(lint, lint->report->gateway,
				 "environment:\n      " CONFIG_ENVIRONMENT ": |\n        [network NAME]\n        subnet = SUBNET\n");
	}
	if (!has_tmpfs(json_object_get(gateway->json, "tmpfs")) && !compose_mount(gateway, is_run_mount, NULL)) {
		SAY(lint, LINT_ERROR, LINT_GATEWAY_TMPFS,
		    "is `read_only` without a tmpfs at " RUN_DIRECTORY ": the control socket cannot be made");
		lint_fix_service(lint, lint->report->gateway, "tmpfs: [\"" RUN_DIRECTORY ":size=1m,mode=1777\"]\n");
	}
}

static bool is_file_mount(void *context, const char *source, const char *target)
{
	const char *dot = strrchr(target, '.');

	(void)context;
	(void)source;
	return is_policy_mount(NULL, source, target) && dot && (strcmp(dot, ".conf") == 0 || strcmp(dot, ".ini") == 0);
}

static void check_policy_source(struct lint *lint)
{
	const struct compose_service *gateway = lint->report->gateway;

	if (compose_mount(gateway, is_file_mount, NULL)) {
		SAY(lint, LINT_WARNING, LINT_GATEWAY_FILE_MOUNT,
		    "mounts its policy as a single file: an editor that saves by renaming leaves the container with the old one; mount the "
		    "directory");
		lint_fix_service(lint, lint->report->gateway, "volumes: [\"./policy:" CONFIG_DEFAULT_PATH ":ro\"]\n");
	}
	if (!has_policy_text(gateway) && !compose_mount(gateway, is_policy_mount, NULL) &&
	    compose_is_empty(json_object_get(gateway->json, "configs")) && !lint->options->policy) {
		SAY(lint, LINT_WARNING, LINT_GATEWAY_NO_POLICY,
		    "has neither " CONFIG_ENVIRONMENT " nor a mount at " CONFIG_DEFAULT_PATH ": without a policy it does not start");
		lint_fix_service(lint, lint->report->gateway,
				 "environment:\n      " CONFIG_ENVIRONMENT ": |\n        [network NAME]\n        subnet = SUBNET\n");
	}
}

/* The addresses that Compose gives it. */

static void check_uplink(struct lint *lint)
{
	const struct compose_network *uplink = lint->report->uplink;
	const struct compose_attachment *attachment;
	const struct compose_subnet *subnet;
	struct address address;
	char text[ADDRESS_TEXT_MAX];

	if (!uplink || !(attachment = compose_attachment(lint->report->gateway, uplink)))
		return;
	if (uplink->internal) {
		lint_say(lint, LINT_ERROR, LINT_UPLINK_INTERNAL, LINT_NETWORK, uplink->name,
			 "is the gateway's uplink and `internal`: nothing can leave through it; take `internal: true` out");
		lint_fix(lint, "networks:\n  %s:\n    internal: false\n", uplink->name);
	}
	if (compose_address(attachment, "ipv4_address", &address) || compose_address(attachment, "ipv6_address", &address))
		return;
	SAY(lint, LINT_WARNING, LINT_UPLINK_ADDRESS,
	    "has no fixed address on its uplink %s: when it is recreated with another one, every flow ends", uplink->name);
	subnet = lint_subnet(uplink, AF_INET);
	address = subnet ? prefix_host(&subnet->subnet, 2) : (struct address){.family = AF_INET, .bytes = {10, 201, 0, 2}};
	address_format(&address, text);
	lint_fix_service(lint, lint->report->gateway, "networks:\n      %s: {ipv4_address: %s}\n%s%s%s", uplink->name, text,
			 subnet || uplink->external ? "" : "networks:\n  ", subnet || uplink->external ? "" : uplink->name,
			 subnet || uplink->external ? "" : ":\n    ipam: {config: [{subnet: 10.201.0.0/24}]}\n");
}

/* Docker keeps `gateway:` for itself, and the gateway takes it on its own. */
static void check_addresses(struct lint *lint)
{
	const struct compose_service *gateway = lint->report->gateway;
	static const char *const keys[] = {"ipv4_address", "ipv6_address"};
	struct address address;
	char text[ADDRESS_TEXT_MAX];

	for (size_t i = 0; i < gateway->attachment_count; i++) {
		const struct compose_attachment *attachment = &gateway->attachments[i];

		/* Without a route no `gateway:` is needed at all, lint_virtual_networks(). */
		if (lint_role(lint, attachment->network) != LINT_ROLE_BEHIND || lint_has_no_route(lint, attachment->network))
			continue;
		for (size_t j = 0; j < 2; j++) {
			const struct compose_subnet *subnet = lint_subnet(attachment->network, j == 0 ? AF_INET : AF_INET6);

			if (!subnet || !compose_address(attachment, keys[j], &address) || !address_equal(&address, &subnet->gateway))
				continue;
			SAY(lint, LINT_ERROR, LINT_GATEWAY_ADDRESS,
			    "asks Docker for %s on network %s: Docker keeps the address under `gateway:` for itself and refuses; the "
			    "gateway "
			    "adds it by itself, so take `%s` out",
			    address_format(&address, text), attachment->network->name, keys[j]);
		}
	}
}

/* Docker leads published ports to the network that it takes the default route from: the first by name, unless `gw_priority` says otherwise.
 */
static void check_ports(struct lint *lint)
{
	const struct compose_service *gateway = lint->report->gateway;
	const struct compose_network *uplink = lint->report->uplink;
	const struct compose_attachment *attachment = uplink ? compose_attachment(gateway, uplink) : NULL;

	if (!attachment || compose_is_empty(json_object_get(gateway->json, "ports")) || json_object_get(attachment->json, "gw_priority"))
		return;
	for (size_t i = 0; i < gateway->attachment_count; i++) {
		const struct compose_network *network = gateway->attachments[i].network;

		if (lint_role(lint, network) != LINT_ROLE_BEHIND || network->external || strcmp(network->name, uplink->name) >= 0)
			continue;
		SAY(lint, LINT_ERROR, LINT_GATEWAY_PORTS,
		    "publishes ports, and Docker leads them to the first of its networks by name: that is %s, not the uplink %s, and "
		    "nothing "
		    "arrives; give the uplink a name that sorts first, or (Engine 28 and later) a `gw_priority`",
		    network->name, uplink->name);
		return;
	}
}

static bool has_network_behind(const struct lint *lint)
{
	for (size_t i = 0; i < lint->compose->network_count; i++) {
		if (lint->report->roles[i] == LINT_ROLE_BEHIND)
			return true;
	}
	return false;
}

void lint_gateway(struct lint *lint)
{
	const struct compose_service *gateway = lint->report->gateway;

	if (!gateway)
		return;
	if (gateway->network_mode)
		check_network_mode(lint);
	else if (!has_network_behind(lint))
		SAY(lint, LINT_ERROR, LINT_GATEWAY_NO_NETWORK,
		    "is attached to no network besides its uplink: no app is behind it; `sluice init` prints a file that shows how");
	check_capabilities(lint);
	if (lint_docker_socket(gateway))
		SAY(lint, LINT_ERROR, LINT_GATEWAY_DOCKER_SOCKET,
		    "mounts the engine's socket, or a folder that holds it: whoever breaks into it owns the host; it needs no such mount");
	check_sysctls(lint);
	check_no_new_privileges(lint);
	check_files(lint);
	check_policy_source(lint);
	check_uplink(lint);
	check_addresses(lint);
	check_ports(lint);
}
