/* SPDX-License-Identifier: MIT */
/*
 * JSON of a Compose project -> networks and services.
 *
 * Theory of operation: names of services and networks must have the characters that Compose allows, because findings quote them in lines
 * that are to be pasted. Everything else is taken as it is; what has an unexpected type counts as not given, so a setting that protects is
 * then reported as missing.
 */
#include "gateway/compose.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define NAME_MAX_LENGTH 128 /* octets of a service's or network's name */
#define DEFAULT_NETWORK "default"

const char *compose_text(const json_t *value, char buffer[static COMPOSE_TEXT_MAX])
{
	switch (value ? json_typeof(value) : JSON_NULL) {
	case JSON_STRING: return json_string_value(value);
	case JSON_INTEGER: snprintf(buffer, COMPOSE_TEXT_MAX, "%lld", (long long)json_integer_value(value)); return buffer;
	case JSON_REAL: snprintf(buffer, COMPOSE_TEXT_MAX, "%g", json_real_value(value)); return buffer;
	case JSON_TRUE: return "true";
	case JSON_FALSE: return "false";
	case JSON_OBJECT:
	case JSON_ARRAY:
	case JSON_NULL: break;
	}
	return NULL;
}

bool compose_true(const json_t *value)
{
	static const char *const words[] = {"true", "1", "yes", "on", "y", "t"};
	char buffer[COMPOSE_TEXT_MAX];
	const char *text = compose_text(value, buffer);

	for (size_t i = 0; text && i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcasecmp(text, words[i]) == 0)
			return true;
	}
	return false;
}

bool compose_is_empty(const json_t *value)
{
	if (json_is_object(value))
		return json_object_size(value) == 0;
	if (json_is_array(value))
		return json_array_size(value) == 0;
	return !value || json_is_null(value) || (json_is_string(value) && json_string_length(value) == 0);
}

/* The n-th text of a list, or of the one text in its place. Return: NULL behind the end; "" for what is no text. */
static const char *list_text(const json_t *list, size_t n, char buffer[static COMPOSE_TEXT_MAX])
{
	const char *text;

	if (json_is_array(list)) {
		if (n >= json_array_size(list))
			return NULL;
		text = compose_text(json_array_get(list, n), buffer);
		return text ? text : "";
	}
	return n == 0 ? compose_text(list, buffer) : NULL;
}

bool compose_list_has(const json_t *list, const char *text)
{
	char buffer[COMPOSE_TEXT_MAX];
	const char *item;

	for (size_t i = 0; (item = list_text(list, i, buffer)); i++) {
		if (strcasecmp(item, text) == 0)
			return true;
	}
	return false;
}

const char *compose_map_text(const json_t *map, const char *key, char buffer[static COMPOSE_TEXT_MAX])
{
	size_t length = strlen(key);
	const char *item;

	if (json_is_object(map))
		return compose_text(json_object_get(map, key), buffer);
	for (size_t i = 0; (item = list_text(map, i, buffer)); i++) {
		if (strncmp(item, key, length) == 0 && item[length] == '=')
			return item + length + 1;
	}
	return NULL;
}

bool compose_capability(const json_t *list, const char *name)
{
	char with_prefix[COMPOSE_TEXT_MAX];

	snprintf(with_prefix, sizeof(with_prefix), "CAP_%s", name);
	return compose_list_has(list, name) || compose_list_has(list, with_prefix);
}

bool compose_address(const struct compose_attachment *attachment, const char *key, struct address *out)
{
	const char *text = attachment ? json_string_value(json_object_get(attachment->json, key)) : NULL;

	return text && address_parse(text, out);
}

/* "SOURCE:TARGET[:MODE]", or a target alone. */
static bool visit_short(const char *text, bool (*visit)(void *context, const char *source, const char *target), void *context)
{
	char *copy = strdup(text), *target, *end;
	bool done;

	if (!copy)
		return false;
	target = strchr(copy, ':');
	if (target)
		*target++ = 0;
	end = target ? strchr(target, ':') : NULL;
	if (end)
		*end = 0;
	done = visit(context, target ? copy : "", target ? target : copy);
	free(copy);
	return done;
}

bool compose_mount(const struct compose_service *service, bool (*visit)(void *context, const char *source, const char *target),
		   void *context)
{
	const json_t *volumes = json_object_get(service->json, "volumes"), *volume;
	const char *source, *target;
	size_t index;

	json_array_foreach(volumes, index, volume)
	{
		if (json_is_string(volume)) {
			if (visit_short(json_string_value(volume), visit, context))
				return true;
			continue;
		}
		source = json_string_value(json_object_get(volume, "source"));
		target = json_string_value(json_object_get(volume, "target"));
		if (visit(context, source ? source : "", target ? target : ""))
			return true;
	}
	return false;
}

/* Networks */

static int refuse(char error[static COMPOSE_ERROR_MAX], const char *what, const char *name)
{
	/* Names that were not checked yet are not repeated. */
	snprintf(error, COMPOSE_ERROR_MAX, "%s%s%s", name ? name : "", name ? ": " : "", what);
	return -EINVAL;
}

static bool is_name(const char *name)
{
	size_t length = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

	return length && !name[length] && length <= NAME_MAX_LENGTH;
}

static void read_subnet(const json_t *json, struct compose_network *network)
{
	struct compose_subnet subnet = {0};
	const char *text = json_string_value(json_object_get(json, "subnet")),
		   *gateway = json_string_value(json_object_get(json, "gateway")),
		   *range = json_string_value(json_object_get(json, "ip_range"));

	if (!text)
		return;
	if (network->subnet_count == COMPOSE_SUBNETS_MAX || !prefix_parse(text, &subnet.subnet, NULL) ||
	    (gateway && !address_parse(gateway, &subnet.gateway)) || (range && !prefix_parse(range, &subnet.range, NULL))) {
		network->bad_subnet = true;
		return;
	}
	network->ipv6 |= subnet.subnet.address.family == AF_INET6;
	network->subnets[network->subnet_count++] = subnet;
}

static void add_network(struct compose *compose, const char *name, const json_t *json)
{
	struct compose_network *network = &compose->networks[compose->network_count++];
	const json_t *external = json_object_get(json, "external"), *subnet;
	const char *driver = json_string_value(json_object_get(json, "driver"));
	size_t index;

	*network = (struct compose_network){.name = name, .options = json_object_get(json, "driver_opts")};
	network->driver = driver && *driver ? driver : "bridge";
	network->external = json_is_object(external) || compose_true(external);
	network->internal = compose_true(json_object_get(json, "internal"));
	network->ipv6 = compose_true(json_object_get(json, "enable_ipv6"));
	json_array_foreach(json_object_get(json_object_get(json, "ipam"), "config"), index, subnet)
	{
		read_subnet(subnet, network);
	}
}

static int read_networks(json_t *networks, struct compose *out, char error[static COMPOSE_ERROR_MAX])
{
	bool has_default = false;
	const char *name;
	json_t *value;

	if (!compose_is_empty(networks) && !json_is_object(networks))
		return refuse(error, "`networks` is not a map", NULL);
	if (json_object_size(networks) > COMPOSE_COUNT_MAX)
		return refuse(error, "too many networks", NULL);
	out->networks = calloc(json_object_size(networks) + 1, sizeof(*out->networks));
	if (!out->networks)
		return -ENOMEM;
	json_object_foreach(networks, name, value)
	{
		if (!is_name(name))
			return refuse(error, "a network has a name that Compose does not allow", NULL);
		add_network(out, name, value);
		has_default |= strcmp(name, DEFAULT_NETWORK) == 0;
	}
	/* Services without `networks` are on this one, whether it is declared or not. */
	if (!has_default)
		add_network(out, DEFAULT_NETWORK, NULL);
	return 0;
}

/* Services */

static int attach(const struct compose *compose, struct compose_service *service, const char *network, const json_t *json,
		  char error[static COMPOSE_ERROR_MAX])
{
	struct compose_attachment attachment = {.network = compose_network(compose, network), .json = json};

	if (!attachment.network)
		return refuse(error, "is attached to a network that is not declared under `networks`", service->name);
	service->attachments[service->attachment_count++] = attachment;
	return 0;
}

static int attach_all(const struct compose *compose, struct compose_service *service, json_t *networks,
		      char error[static COMPOSE_ERROR_MAX])
{
	const char *name;
	json_t *value;
	size_t index;
	int result = 0;

	if (compose_is_empty(networks))
		return service->network_mode ? 0 : attach(compose, service, DEFAULT_NETWORK, NULL, error);
	if (!json_is_object(networks) && !json_is_array(networks))
		return refuse(error, "`networks` is neither a map nor a list", service->name);
	json_object_foreach(networks, name, value)
	{
		if (!result)
			result = attach(compose, service, name, value, error);
	}
	json_array_foreach(networks, index, value)
	{
		name = json_string_value(value);
		if (!result)
			result = attach(compose, service, name ? name : "", NULL, error);
	}
	return result;
}

static int read_service(const struct compose *compose, const char *name, json_t *json, struct compose_service *service,
			char error[static COMPOSE_ERROR_MAX])
{
	json_t *networks = json_object_get(json, "networks");

	if (!is_name(name))
		return refuse(error, "a service has a name that Compose does not allow", NULL);
	if (!json_is_object(json))
		return refuse(error, "is not a map", name);
	if (json_array_size(networks) > COMPOSE_COUNT_MAX)
		return refuse(error, "has too many networks", name);
	service->name = name;
	service->json = json;
	service->image = json_string_value(json_object_get(json, "image"));
	service->network_mode = json_string_value(json_object_get(json, "network_mode"));
	if (service->network_mode && !*service->network_mode)
		service->network_mode = NULL;
	service->attachments = calloc(json_object_size(networks) + json_array_size(networks) + 1, sizeof(*service->attachments));
	return service->attachments ? attach_all(compose, service, networks, error) : -ENOMEM;
}

static int read_services(json_t *services, struct compose *out, char error[static COMPOSE_ERROR_MAX])
{
	const char *name;
	json_t *value;
	int result = 0;

	if (!json_is_object(services))
		return refuse(error, "there is no `services` map", NULL);
	if (json_object_size(services) > COMPOSE_COUNT_MAX)
		return refuse(error, "too many services", NULL);
	out->services = calloc(json_object_size(services) + 1, sizeof(*out->services));
	if (!out->services)
		return -ENOMEM;
	json_object_foreach(services, name, value)
	{
		if (!result)
			result = read_service(out, name, value, &out->services[out->service_count++], error);
	}
	return result;
}

int compose_read(json_t *root, struct compose *out, char error[static COMPOSE_ERROR_MAX])
{
	int result;

	*out = (struct compose){.configs = json_object_get(root, "configs")};
	snprintf(error, COMPOSE_ERROR_MAX, "out of memory");
	result = read_networks(json_object_get(root, "networks"), out, error);
	if (!result)
		result = read_services(json_object_get(root, "services"), out, error);
	if (result)
		compose_free(out);
	return result;
}

void compose_free(struct compose *compose)
{
	for (size_t i = 0; i < compose->service_count; i++)
		free(compose->services[i].attachments);
	free(compose->services);
	free(compose->networks);
	memset(compose, 0, sizeof(*compose));
}

const struct compose_network *compose_network(const struct compose *compose, const char *name)
{
	for (size_t i = 0; i < compose->network_count; i++) {
		if (strcmp(compose->networks[i].name, name) == 0)
			return &compose->networks[i];
	}
	return NULL;
}

const struct compose_service *compose_service(const struct compose *compose, const char *name)
{
	for (size_t i = 0; i < compose->service_count; i++) {
		if (strcmp(compose->services[i].name, name) == 0)
			return &compose->services[i];
	}
	return NULL;
}

const struct compose_attachment *compose_attachment(const struct compose_service *service, const struct compose_network *network)
{
	for (size_t i = 0; i < service->attachment_count; i++) {
		if (service->attachments[i].network == network)
			return &service->attachments[i];
	}
	return NULL;
}
