/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_COMPOSE_H
#define SLUICE_GATEWAY_COMPOSE_H

/*
 * What a Compose project says, as `docker compose config --format json` prints it. The short forms of the YAML (lists instead of maps, a
 * text instead of a list) are read as well, so that converted YAML of docker-compose 1.29.2 will do. Pure: JSON in, data out.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/address.h"

#define COMPOSE_SIZE_MAX    (16UL * 1024 * 1024) /* bytes of JSON */
#define COMPOSE_SUBNETS_MAX 8                    /* of one network; the rest is not looked at, and Docker takes no more than two */
#define COMPOSE_COUNT_MAX   4096                 /* services, networks, networks of one service */
#define COMPOSE_TEXT_MAX    64                   /* octets of a number or truth value as text, with NUL */
#define COMPOSE_ERROR_MAX   256                  /* octets */

struct compose_subnet {
	struct prefix subnet;
	struct address gateway; /* family 0: none is given */
	struct prefix range;    /* `ip_range`; family 0: none is given */
};

struct compose_network {
	const char *name;   /* the key */
	const char *driver; /* "bridge" when none is given */
	const json_t *options;
	bool external, internal;
	bool ipv6; /* enable_ipv6, or an IPv6 subnet */
	struct compose_subnet subnets[COMPOSE_SUBNETS_MAX];
	size_t subnet_count;
	bool bad_subnet; /* something about one could not be read */
};

struct compose_attachment {
	const struct compose_network *network;
	const json_t *json; /* may be null */
};

struct compose_service {
	const char *name;
	const json_t *json;
	const char *image, *network_mode;       /* NULL: none */
	struct compose_attachment *attachments; /* owned */
	size_t attachment_count;
};

/* Texts belong to the JSON, which must live as long. */
struct compose {
	struct compose_network *networks; /* owned */
	size_t network_count;
	struct compose_service *services; /* owned */
	size_t service_count;
	const json_t *configs; /* of the project; NULL: none */
};

/**
 * compose_read() - Read a project
 * @error:	receives one line when this is no Compose project
 * Return: 0, -EINVAL or -ENOMEM.
 */
int compose_read(json_t *root, struct compose *out, char error[static COMPOSE_ERROR_MAX]);
void compose_free(struct compose *compose);

/** compose_network() / compose_service() - By name. Return: NULL when there is none. */
const struct compose_network *compose_network(const struct compose *compose, const char *name);
const struct compose_service *compose_service(const struct compose *compose, const char *name);

/** compose_attachment() - Return: how the service is attached to the network, or NULL. */
const struct compose_attachment *compose_attachment(const struct compose_service *service, const struct compose_network *network);

/** compose_address() - `ipv4_address` or `ipv6_address` (@key) of an attachment, which may be NULL. Return: false when there is none. */
bool compose_address(const struct compose_attachment *attachment, const char *key, struct address *out);

/** compose_text() - A text, a number or a truth value as text. @buffer: for the latter two. Return: NULL for anything else. */
const char *compose_text(const json_t *value, char buffer[static COMPOSE_TEXT_MAX]);

/** compose_true() - true, or a text that means it. */
bool compose_true(const json_t *value);

/** compose_is_empty() - null, absent, an empty text, list or map. */
bool compose_is_empty(const json_t *value);

/** compose_list_has() - Does a list, or the one text in its place, hold this text (in any case of letters)? */
bool compose_list_has(const json_t *list, const char *text);

/** compose_map_text() - The value of a key in a map, or in a list of "KEY=VALUE". Return: NULL when there is none, or it has no value. */
const char *compose_map_text(const json_t *map, const char *key, char buffer[static COMPOSE_TEXT_MAX]);

/** compose_capability() - Does a list of capabilities hold this one, written with or without CAP_? @name: "NET_RAW". */
bool compose_capability(const json_t *list, const char *name);

/** compose_mount() - Call @visit with source and target of each entry of `volumes:` until it returns true. Return: whether it did. */
bool compose_mount(const struct compose_service *service, bool (*visit)(void *context, const char *source, const char *target),
		   void *context);

#endif
