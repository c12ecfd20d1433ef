/* SPDX-License-Identifier: MIT */
/*
 * `server = auto`: upstream servers from resolv.conf.
 *
 * Docker writes its own resolver, 127.0.0.11, into a container's resolv.conf. Asking it could return names of containers on other networks
 * or send our question back to us, so it is never taken; the servers behind it are in a comment:
 * "# ExtServers: [192.0.2.53 host(9.9.9.9)]". host(...) are servers that Docker would ask from the host's namespace; we ask
 * them from ours. A loopback address in that comment is the host's and cannot be reached from here.
 */

#include "gateway/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/config_messages.h"
#include "gateway/config_values.h"

#define DOCKER_COMMENT  "ExtServers:"
#define DOCKER_RESOLVER "127.0.0.11"
#define SEPARATORS      " \t\r\n"

struct found {
	struct upstream_server real[POLICY_SERVERS_MAX], loopback[POLICY_SERVERS_MAX], docker[POLICY_SERVERS_MAX];
	size_t real_count, loopback_count, docker_count;
};

static bool is_loopback(const struct address *address)
{
	static const uint8_t loopback6[16] = {[15] = 1};

	if (address->family == AF_INET)
		return address->bytes[0] == 127;
	return memcmp(address->bytes, loopback6, sizeof(loopback6)) == 0;
}

static void keep(struct upstream_server *list, size_t *count, const struct upstream_server *server)
{
	for (size_t i = 0; i < *count; i++) {
		if (address_equal(&list[i].address, &server->address))
			return;
	}
	/* resolv.conf's own limit is 3: what is above ours is not missed. */
	if (*count < POLICY_SERVERS_MAX)
		list[(*count)++] = *server;
}

/* Zone identifiers ("fe80::1%eth0") are not understood: such a server is passed over. */
static void take_nameserver(struct found *found, const char *text)
{
	struct upstream_server server = {.port = CONFIG_SERVER_PORT};

	if (strcmp(text, DOCKER_RESOLVER) == 0 || !address_parse(text, &server.address))
		return;
	if (is_loopback(&server.address))
		keep(found->loopback, &found->loopback_count, &server);
	else
		keep(found->real, &found->real_count, &server);
}

static void take_docker_server(struct found *found, char *word)
{
	struct upstream_server server = {.port = CONFIG_SERVER_PORT};

	if (strncmp(word, "host(", 5) == 0)
		word += 5;
	word[strcspn(word, ")")] = 0;
	if (address_parse(word, &server.address) && !is_loopback(&server.address))
		keep(found->docker, &found->docker_count, &server);
}

static void read_comment(struct found *found, char *comment)
{
	char *list = strstr(comment, DOCKER_COMMENT), *save = NULL;

	if (!list)
		return;
	list += strlen(DOCKER_COMMENT);
	for (char *word = strtok_r(list, SEPARATORS "[],", &save); word; word = strtok_r(NULL, SEPARATORS "[],", &save))
		take_docker_server(found, word);
}

static void read_line(struct found *found, char *line)
{
	char *save = NULL, *word;

	if (line[0] == '#' || line[0] == ';') {
		read_comment(found, line);
		return;
	}
	word = strtok_r(line, SEPARATORS, &save);
	if (!word || strcmp(word, "nameserver") != 0)
		return;
	word = strtok_r(NULL, SEPARATORS, &save);
	if (word)
		take_nameserver(found, word);
}

static int read_resolv_conf(const char *path, struct found *found)
{
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t capacity = 0;
	int status = 0;

	if (!file)
		return -errno;
	while (getline(&line, &capacity, file) >= 0)
		read_line(found, line);
	if (ferror(file))
		status = -EIO;
	free(line);
	fclose(file);
	return status;
}

bool config_is_automatic(const struct policy *policy)
{
	for (size_t i = 0; i < policy->upstream_count; i++) {
		if (policy->upstreams[i].automatic)
			return true;
	}
	return false;
}

static void fill(struct policy *policy, const struct upstream_server *servers, size_t count)
{
	for (size_t i = 0; i < policy->upstream_count; i++) {
		struct upstream_group *group = &policy->upstreams[i];

		if (!group->automatic)
			continue;
		memcpy(group->servers, servers, count * sizeof(*servers));
		group->server_count = count;
	}
}

int config_resolve_auto(struct policy *policy, const char *path, struct config_messages *messages)
{
	struct config_position at = {.file = path};
	struct found found = {0};
	int status;

	if (!config_is_automatic(policy))
		return 0;
	status = read_resolv_conf(path, &found);
	if (status) {
		config_messages_add(messages, CONFIG_ERROR, at, "%s; write 'server = ADDRESS' into [upstream]", strerror(-status));
		return status;
	}
	if (found.real_count)
		fill(policy, found.real, found.real_count);
	else if (found.docker_count)
		fill(policy, found.docker, found.docker_count);
	else if (found.loopback_count)
		fill(policy, found.loopback, found.loopback_count);
	else {
		config_messages_add(messages, CONFIG_ERROR, at,
				    "'server = auto' finds no usable name server here (Docker's own, " DOCKER_RESOLVER
				    ", is never used); write 'server = ADDRESS' into [upstream]");
		return -ENOENT;
	}
	return 0;
}
