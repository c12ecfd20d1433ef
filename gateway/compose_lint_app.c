/* SPDX-License-Identifier: MIT */
/*
 * Apps: services on a network behind the gateway, and services that share the network of one. Which ways do they have besides the gateway?
 * Services on other networks are not looked at, except those that use the host's network or the gateway's own.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "gateway/compose_lint_internal.h"

#define SERVICE_MODE     "service:"
#define CONTAINER_MODE   "container:"
#define PUBLISH_PORT_MAX 32  /* octets of "8000-8010/tcp" */
#define PUBLISH_MAX      256 /* octets of the entries that a text proposes */
#define SHARED_STEPS_MAX 16  /* services of which each uses the network of the next */

#define SAY(lint, severity, code, service, ...) lint_say(lint, severity, code, LINT_SERVICE, (service)->name, __VA_ARGS__)

static bool is_behind(const struct lint *lint, const struct compose_service *service)
{
	for (size_t i = 0; i < service->attachment_count && !service->network_mode; i++) {
		if (lint_role(lint, service->attachments[i].network) == LINT_ROLE_BEHIND)
			return true;
	}
	return false;
}

/* `network_mode: service:NAME` -> that service, or NULL. */
static const struct compose_service *shared_with(const struct lint *lint, const struct compose_service *service)
{
	if (!service->network_mode || strncmp(service->network_mode, SERVICE_MODE, strlen(SERVICE_MODE)) != 0)
		return NULL;
	return compose_service(lint->compose, service->network_mode + strlen(SERVICE_MODE));
}

/* Who owns the network that a service uses: itself, or the one at the end of `network_mode: service:`. */
static const struct compose_service *network_owner(const struct lint *lint, const struct compose_service *service)
{
	for (size_t i = 0; i < SHARED_STEPS_MAX; i++) {
		const struct compose_service *next = shared_with(lint, service);

		if (!next)
			break;
		service = next;
	}
	return service;
}

/* The first of its networks that is behind the gateway; an app has one. */
static const struct compose_network *network_behind(const struct lint *lint, const struct compose_service *service)
{
	for (size_t i = 0; i < service->attachment_count; i++) {
		if (lint_role(lint, service->attachments[i].network) == LINT_ROLE_BEHIND)
			return service->attachments[i].network;
	}
	return NULL;
}

/* Names */

static const char *loopback_server(const json_t *dns, char buffer[static COMPOSE_TEXT_MAX])
{
	struct address address;
	size_t count = json_is_array(dns) ? json_array_size(dns) : 1;

	for (size_t i = 0; i < count; i++) {
		const char *text = compose_text(json_is_array(dns) ? json_array_get(dns, i) : dns, buffer);
		bool is_address = text && address_parse(text, &address);

		if (is_address && address.family == AF_INET && address.bytes[0] == 127)
			return text;
		if (is_address && address.family == AF_INET6 && strcmp(text, "::1") == 0)
			return text;
	}
	return NULL;
}

static void check_dns(struct lint *lint, const struct compose_service *app)
{
	const json_t *dns = json_object_get(app->json, "dns");
	char buffer[COMPOSE_TEXT_MAX];
	const char *loopback = loopback_server(dns, buffer);

	if (lint_virtual_dns(lint, app))
		return;
	if (compose_is_empty(dns))
		SAY(lint, LINT_ERROR, LINT_APP_DNS, app,
		    "has no `dns:`: engines from 28 resolve its names through the host, around the gateway; allowed names stay closed, and "
		    "DNS is "
		    "an open way to carry data out");
	else if (loopback)
		SAY(lint, LINT_ERROR, LINT_APP_DNS_LOOPBACK, app,
		    "`dns: %s` is the app's own container, or the host: questions do not come to the gateway", loopback);
	else
		return;
	lint_fix_service(lint, app, "dns: " LINT_DNS "\n");
}

/* Networks */

static void check_other_network(struct lint *lint, const struct compose_service *app, const struct compose_network *network)
{
	const struct compose_network *behind = network_behind(lint, app);

	if (network->external && network != lint->report->uplink) {
		SAY(lint, LINT_WARNING, LINT_APP_SECOND_EXTERNAL, app,
		    "is also on network %s, which is external: unless it is internal the app may leave through it, around the gateway; "
		    "`docker "
		    "network inspect -f '{{.Internal}}'` must say true",
		    network->name);
		return;
	}
	if (network->internal)
		return;
	SAY(lint, LINT_ERROR, LINT_APP_SECOND_WAY_OUT, app,
	    "is also on network %s, which leads out%s: Docker may give the app its default route there, and the gateway sees nothing of it",
	    network->name, network == lint->report->uplink ? " (the gateway's uplink)" : "");
	if (network == lint->report->uplink)
		lint_fix_service(lint, app, "networks: [%s]\n", behind->name);
	else
		lint_fix(lint, "networks:\n  %s:\n    internal: true\n", network->name);
}

static void check_networks(struct lint *lint, const struct compose_service *app)
{
	const struct compose_network *first = network_behind(lint, app);

	for (size_t i = 0; i < app->attachment_count; i++) {
		const struct compose_network *network = app->attachments[i].network;

		if (lint_role(lint, network) != LINT_ROLE_BEHIND) {
			check_other_network(lint, app, network);
		} else if (network != first) {
			SAY(lint, LINT_WARNING, LINT_APP_TWO_NETWORKS, app,
			    "is on two networks behind the gateway, %s and %s: Docker chooses which one, and so which policy, it leaves "
			    "through",
			    first->name, network->name);
			lint_fix_service(lint, app, "networks: [%s]\n", first->name);
		}
	}
}

/* The container's end of a short form, "[[ADDRESS:]PORT:]PORT[/PROTOCOL]". Return: false when it has none. */
static bool read_short_port(const char *text, char out[static PUBLISH_PORT_MAX])
{
	const char *colon = strrchr(text, ':'), *port = colon ? colon + 1 : text;
	size_t digits = strspn(port, "0123456789-"), length = strlen(port);

	if (!digits || length >= PUBLISH_PORT_MAX - sizeof("/tcp") ||
	    (port[digits] && strcasecmp(port + digits, "/tcp") != 0 && strcasecmp(port + digits, "/udp") != 0))
		return false;
	snprintf(out, PUBLISH_PORT_MAX, "%.*s%s", (int)digits, port, strcasecmp(port + digits, "/udp") == 0 ? "/udp" : "/tcp");
	return true;
}

static bool read_port(const json_t *entry, char out[static PUBLISH_PORT_MAX])
{
	const json_t *target = json_object_get(entry, "target");
	const char *protocol = json_string_value(json_object_get(entry, "protocol"));
	char text[PUBLISH_PORT_MAX];

	if (json_is_string(entry))
		return read_short_port(json_string_value(entry), out);
	if (json_is_integer(entry))
		target = entry;
	if (!json_is_integer(target) || (protocol && strlen(protocol) > 4))
		return false;
	snprintf(text, sizeof(text), "%lld%s%s", (long long)json_integer_value(target), protocol ? "/" : "", protocol ? protocol : "");
	return read_short_port(text, out);
}

/* "80/tcp -> app, 443/udp -> app". Return: @out; what does not fit or cannot be read is left out. */
static const char *format_publish(const struct compose_service *app, char *out, size_t size)
{
	const json_t *ports = json_object_get(app->json, "ports");
	char port[PUBLISH_PORT_MAX];
	size_t used = 0;

	out[0] = '\0';
	for (size_t i = 0; i < json_array_size(ports); i++) {
		if (!read_port(json_array_get(ports, i), port) || used + strlen(port) + strlen(app->name) + sizeof(", ->  ") > size)
			continue;
		used += (size_t)snprintf(out + used, size - used, "%s%s -> %s", used ? ", " : "", port, app->name);
	}
	if (!used)
		snprintf(out, size, "PORT -> %s", app->name);
	return out;
}

static void check_ports(struct lint *lint, const struct compose_service *app)
{
	char entries[PUBLISH_MAX];

	if (compose_is_empty(json_object_get(app->json, "ports")))
		return;
	SAY(lint, LINT_ERROR, LINT_APP_PORTS, app,
	    "`ports:` does not work behind the gateway: answers would leave through it. Move the lines to the gateway's service, and write "
	    "into "
	    "the policy's [network] section: publish = %s",
	    format_publish(app, entries, sizeof(entries)));
}

/* Privileges */

/* On a macvlan segment a raw frame reaches nobody but the other apps of that network. */
static bool all_macvlan(const struct lint *lint, const struct compose_service *owner)
{
	for (size_t i = 0; i < owner->attachment_count; i++) {
		const struct compose_network *network = owner->attachments[i].network;

		if (lint_role(lint, network) == LINT_ROLE_BEHIND && (network->external || strcmp(network->driver, "macvlan") != 0))
			return false;
	}
	return true;
}

static void check_capabilities(struct lint *lint, const struct compose_service *app, const struct compose_service *owner)
{
	static const char *const refused[][2] = {
		{"NET_ADMIN", "it can change its routes and addresses, and speak as another app"},
		{"SYS_ADMIN", "it can leave its container"},
		{"SYS_MODULE", "it can leave its container"},
	};
	const json_t *add = json_object_get(app->json, "cap_add");

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		if (lint_holds(app, refused[i][0], false))
			SAY(lint, LINT_ERROR, LINT_APP_CAPABILITY, app, "has the capability %s: %s; take it out of `cap_add`",
			    refused[i][0], refused[i][1]);
	}
	if (!lint_holds(app, "NET_RAW", true))
		return;
	if (compose_capability(add, "NET_RAW") || compose_capability(add, "ALL")) {
		SAY(lint, LINT_ERROR, LINT_APP_NET_RAW, app,
		    "has the capability NET_RAW: it can send frames of its own making, to the host's bridge or as another app; take it out "
		    "of "
		    "`cap_add`");
	} else if (!all_macvlan(lint, owner)) {
		SAY(lint, LINT_ERROR, LINT_APP_NET_RAW, app,
		    "keeps the capability NET_RAW, which Docker gives to every container: it can send frames to the host's bridge, %s",
		    network_behind(lint, owner)->internal ? "and so reach what the host listens on, around the gateway"
							  : "which in the bridge form forwards them around the gateway");
		lint_fix_service(lint, app, "cap_drop: [NET_RAW]\n");
	}
}

static void check_privileges(struct lint *lint, const struct compose_service *app, const struct compose_service *owner)
{
	if (compose_true(json_object_get(app->json, "privileged"))) {
		SAY(lint, LINT_ERROR, LINT_APP_PRIVILEGED, app, "is privileged: it can do what the host can, and no gateway holds it");
		lint_fix_service(lint, app, "privileged: false\n    cap_drop: [NET_RAW]\n");
	} else {
		check_capabilities(lint, app, owner);
	}
	if (lint_docker_socket(app))
		SAY(lint, LINT_ERROR, LINT_APP_DOCKER_SOCKET, app,
		    "mounts the engine's socket, or a folder that holds it: it can start containers on any network; take the mount out");
}

/* network_mode */

static void check_shared(struct lint *lint, const struct compose_service *service, const struct compose_service *owner)
{
	const struct compose_network *behind;
	char dns[ADDRESS_TEXT_MAX];

	if (owner == lint->report->gateway) {
		SAY(lint, LINT_ERROR, LINT_APP_NETWORK_MODE, service,
		    "`network_mode: %s` puts it into the gateway itself: no policy applies to it, and it loses its network whenever the "
		    "gateway is "
		    "recreated; attach it to a network behind the gateway",
		    service->network_mode);
	} else if (is_behind(lint, owner)) {
		behind = network_behind(lint, owner);
		SAY(lint, LINT_WARNING, LINT_APP_NETWORK_MODE, service,
		    "`network_mode: %s`: it loses its network whenever that service is recreated; write these lines instead of it",
		    service->network_mode);
		lint_fix_service(lint, service, "networks: [%s]\n    dns: \"%s\"\n    cap_drop: [NET_RAW]\n", behind->name,
				 lint_dns(lint, behind, dns));
	}
}

static void check_network_mode(struct lint *lint, const struct compose_service *service)
{
	const char *mode = service->network_mode;

	if (strcmp(mode, "host") == 0)
		SAY(lint, LINT_ERROR, LINT_APP_NETWORK_MODE, service,
		    "`network_mode: host`: it uses the host's network, around the gateway; attach it to a network behind the gateway");
	else if (strncmp(mode, CONTAINER_MODE, strlen(CONTAINER_MODE)) == 0)
		SAY(lint, LINT_ERROR, LINT_APP_NETWORK_MODE, service,
		    "`network_mode: %s`: whose network that is cannot be seen here, and it is lost when that container is recreated; "
		    "attach it to a "
		    "network behind the gateway",
		    mode);
	else if (strcmp(mode, "bridge") == 0 && !lint_is_idle(service))
		SAY(lint, LINT_ERROR, LINT_APP_NETWORK_MODE, service,
		    "`network_mode: bridge`: it is on Docker's default bridge and leaves through the host, around the gateway; attach it "
		    "to a network "
		    "behind the gateway");
	else
		check_shared(lint, service, network_owner(lint, service));
}

void lint_apps(struct lint *lint)
{
	for (size_t i = 0; i < lint->compose->service_count; i++) {
		const struct compose_service *service = &lint->compose->services[i], *owner = network_owner(lint, service);

		if (service == lint->report->gateway)
			continue;
		if (service->network_mode)
			check_network_mode(lint, service);
		if (owner == lint->report->gateway || !is_behind(lint, owner))
			continue;
		lint->report->apps[i] = true;
		check_privileges(lint, service, owner);
		/* One that shares an app's network has its names and routes as well. */
		if (service != owner)
			continue;
		check_dns(lint, service);
		check_networks(lint, service);
		check_ports(lint, service);
	}
}
