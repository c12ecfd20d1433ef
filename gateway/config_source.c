/* SPDX-License-Identifier: MIT */
/*
 * Where policy text comes from: a file, the *.conf and *.ini files of a directory, or the environment; and the block of bytes as which
 * the supervisor keeps it.
 */

#include "gateway/config.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/config_messages.h"

#define READ_STEP     65536UL     /* bytes */
#define PARTS_MAX     4096        /* files of one directory */
#define FILE_NAME_MAX 8192UL      /* octets of a part's name in a block */
#define BLOCK_MAGIC   "SLUICE1\n" /* 8 octets at the start of a block */

static int fail(struct config_messages *messages, const char *file, int error, const char *what)
{
	struct config_position at = {.file = file};

	config_messages_add(messages, CONFIG_ERROR, at, "%s", what ? what : strerror(-error));
	return error;
}

void config_text_free(struct config_text *text)
{
	for (size_t i = 0; i < text->count; i++) {
		free(text->parts[i].file);
		free(text->parts[i].text);
	}
	free(text->parts);
	memset(text, 0, sizeof(*text));
}

/* Take ownership of @text, also on failure; @file is copied. */
static int add_part(struct config_text *out, const char *file, char *text, size_t size)
{
	struct config_part *parts = reallocarray(out->parts, out->count + 1, sizeof(*parts));
	char *name = strdup(file);

	if (parts)
		out->parts = parts;
	if (!parts || !name) {
		free(text);
		free(name);
		return -ENOMEM;
	}
	parts[out->count++] = (struct config_part){.file = name, .text = text, .size = size};
	return 0;
}

/* Read to the end; @limit bytes and no more. */
static int read_descriptor(int fd, size_t limit, char **text, size_t *size)
{
	char *buffer = NULL;
	size_t used = 0, capacity = 0;

	for (;;) {
		ssize_t got;

		if (used + 1 >= capacity) {
			char *larger = realloc(buffer, capacity ? capacity * 2 : READ_STEP);

			if (!larger)
				goto no_memory;
			buffer = larger;
			capacity = capacity ? capacity * 2 : READ_STEP;
		}
		got = read(fd, buffer + used, capacity - used - 1);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 || used + (size_t)got > limit) {
			int error = got < 0 ? -errno : -E2BIG;

			free(buffer);
			return error;
		}
		if (got == 0)
			break;
		used += (size_t)got;
	}
	buffer[used] = 0;
	*text = buffer;
	*size = used;
	return 0;
no_memory:
	free(buffer);
	return -ENOMEM;
}

static size_t total_size(const struct config_text *text)
{
	size_t total = 0;

	for (size_t i = 0; i < text->count; i++)
		total += text->parts[i].size;
	return total;
}

static int add_file(struct config_text *out, const char *name, int fd, struct config_messages *messages)
{
	char *text = NULL, message[128];
	size_t size = 0;
	int status = read_descriptor(fd, CONFIG_TEXT_MAX - total_size(out), &text, &size);

	if (status == 0)
		status = add_part(out, name, text, size);
	if (status == -E2BIG) {
		snprintf(message, sizeof(message), "a policy may have %lu bytes in all; this is more", CONFIG_TEXT_MAX);
		return fail(messages, name, status, message);
	}
	return status ? fail(messages, name, status, NULL) : 0;
}

/* Editors leave "x.conf~", "#x.conf#" and ".x.conf.swp" behind: only plain names with the right ending count. */
static int is_policy_name(const struct dirent *entry)
{
	const char *dot = strrchr(entry->d_name, '.');

	if (entry->d_name[0] == '.' || !dot)
		return 0;
	return strcmp(dot, ".conf") == 0 || strcmp(dot, ".ini") == 0;
}

/* alphasort() would depend on the locale. */
static int compare_entries(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int add_entry(struct config_text *out, int directory, const char *path, const char *entry, struct config_messages *messages)
{
	char name[PATH_MAX];
	struct stat info;
	int fd, status = 0;
	size_t length = strlen(path);

	if (snprintf(name, sizeof(name), "%s%s%s", path, length && path[length - 1] == '/' ? "" : "/", entry) >= (int)sizeof(name))
		return fail(messages, path, -ENAMETOOLONG, NULL);
	/* O_NONBLOCK: opening a FIFO that somebody put here must not hang. */
	fd = openat(directory, entry, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return fail(messages, name, -errno, NULL);
	if (fstat(fd, &info) < 0)
		status = fail(messages, name, -errno, NULL);
	else if (S_ISREG(info.st_mode))
		status = add_file(out, name, fd, messages);
	close(fd);
	return status;
}

static int add_directory(struct config_text *out, const char *path, int directory, struct config_messages *messages)
{
	struct dirent **entries;
	int count = scandirat(directory, ".", &entries, is_policy_name, compare_entries), status = 0;

	if (count < 0)
		return fail(messages, path, -errno, NULL);
	if (count > PARTS_MAX)
		status = fail(messages, path, -E2BIG, "too many files");
	for (int i = 0; i < count; i++) {
		if (status == 0)
			status = add_entry(out, directory, path, entries[i]->d_name, messages);
		free(entries[i]);
	}
	free(entries);
	if (status == 0 && out->count == 0)
		return fail(messages, path, -ENOENT, "the directory holds no policy: no file in it ends in .conf or .ini");
	return status;
}

static int read_path(const char *path, struct config_text *out, struct config_messages *messages)
{
	struct stat info;
	int fd = open(path, O_RDONLY | O_CLOEXEC), status;

	if (fd < 0)
		return fail(messages, path, -errno, NULL);
	if (fstat(fd, &info) < 0)
		status = fail(messages, path, -errno, NULL);
	else if (S_ISDIR(info.st_mode))
		status = add_directory(out, path, fd, messages);
	else
		status = add_file(out, path, fd, messages);
	close(fd);
	return status;
}

static int read_environment(const char *value, struct config_text *out, struct config_messages *messages)
{
	char *copy;

	if (strlen(value) > CONFIG_TEXT_MAX)
		return fail(messages, CONFIG_ENVIRONMENT, -E2BIG, NULL);
	copy = strdup(value);
	if (!copy || add_part(out, CONFIG_ENVIRONMENT, copy, strlen(value)) < 0)
		return fail(messages, CONFIG_ENVIRONMENT, -ENOMEM, NULL);
	return 0;
}

int config_read(const char *path, struct config_text *out, struct config_messages *messages)
{
	const char *environment = getenv(CONFIG_ENVIRONMENT);
	int status;

	memset(out, 0, sizeof(*out));
	if (!path && environment && *environment)
		status = read_environment(environment, out, messages);
	else
		status = read_path(path ? path : CONFIG_DEFAULT_PATH, out, messages);
	if (status)
		config_text_free(out);
	return status;
}

/*
 * A block: the magic, the number of parts, then for each part its name and its text, each with its length before it. Numbers
 * are 32 bits, little-endian.
 */

static char *put_number(char *to, size_t number)
{
	uint32_t wire = htole32((uint32_t)number);

	memcpy(to, &wire, sizeof(wire));
	return to + sizeof(wire);
}

static char *put_bytes(char *to, const char *bytes, size_t size)
{
	to = put_number(to, size);
	memcpy(to, bytes, size);
	return to + size;
}

int config_serialise(const struct config_text *text, char **out, size_t *size)
{
	size_t total = strlen(BLOCK_MAGIC) + sizeof(uint32_t);
	char *to;

	if (total_size(text) > CONFIG_TEXT_MAX)
		return -E2BIG;
	for (size_t i = 0; i < text->count; i++)
		total += 2 * sizeof(uint32_t) + strlen(text->parts[i].file) + text->parts[i].size;
	*out = malloc(total);
	if (!*out)
		return -ENOMEM;
	*size = total;
	memcpy(*out, BLOCK_MAGIC, strlen(BLOCK_MAGIC));
	to = put_number(*out + strlen(BLOCK_MAGIC), text->count);
	for (size_t i = 0; i < text->count; i++) {
		to = put_bytes(to, text->parts[i].file, strlen(text->parts[i].file));
		to = put_bytes(to, text->parts[i].text, text->parts[i].size);
	}
	return 0;
}

struct block {
	const char *at;
	size_t left;
};

static bool get_number(struct block *block, uint32_t *out)
{
	if (block->left < sizeof(*out))
		return false;
	memcpy(out, block->at, sizeof(*out));
	*out = le32toh(*out);
	block->at += sizeof(*out);
	block->left -= sizeof(*out);
	return true;
}

/* A NUL-terminated copy. Return: 0, -EINVAL or -ENOMEM. */
static int get_bytes(struct block *block, size_t limit, char **out, size_t *size)
{
	uint32_t length;

	if (!get_number(block, &length) || length > block->left || length > limit)
		return -EINVAL;
	*out = malloc(length + 1UL);
	if (!*out)
		return -ENOMEM;
	memcpy(*out, block->at, length);
	(*out)[length] = 0;
	*size = length;
	block->at += length;
	block->left -= length;
	return 0;
}

static int get_part(struct block *block, struct config_text *out)
{
	char *name = NULL, *text = NULL;
	size_t name_size, size;
	int status = get_bytes(block, FILE_NAME_MAX, &name, &name_size);

	if (status == 0 && (name_size == 0 || strlen(name) != name_size))
		status = -EINVAL;
	if (status == 0)
		status = get_bytes(block, CONFIG_TEXT_MAX - total_size(out), &text, &size);
	if (status == 0)
		status = add_part(out, name, text, size);
	free(name);
	return status;
}

int config_deserialise(const char *bytes, size_t size, struct config_text *out)
{
	struct block block = {bytes, size};
	uint32_t count;
	int status = 0;

	memset(out, 0, sizeof(*out));
	if (size < strlen(BLOCK_MAGIC) || memcmp(bytes, BLOCK_MAGIC, strlen(BLOCK_MAGIC)) != 0)
		return -EINVAL;
	block.at += strlen(BLOCK_MAGIC);
	block.left -= strlen(BLOCK_MAGIC);
	if (!get_number(&block, &count) || count > PARTS_MAX)
		return -EINVAL;
	for (uint32_t i = 0; i < count && status == 0; i++)
		status = get_part(&block, out);
	if (status == 0 && block.left)
		status = -EINVAL;
	if (status)
		config_text_free(out);
	return status;
}
