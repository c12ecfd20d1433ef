/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_CONFIG_H
#define SLUICE_GATEWAY_CONFIG_H

/*
 * Policy text -> struct policy. The only user of inih. docs/sluice.conf.5 describes the language.
 */

#include <stdbool.h>
#include <stddef.h>

#include "common/policy.h"

#define CONFIG_DEFAULT_PATH "/etc/sluice"
#define CONFIG_ENVIRONMENT  "SLUICE_CONFIG"
#define CONFIG_RESOLV_CONF  "/etc/resolv.conf"
#define CONFIG_TEXT_MAX     (16UL * 1024 * 1024) /* bytes of all policy text together */

enum message_severity { CONFIG_WARNING, CONFIG_ERROR };

/* One finding: "FILE:LINE: message". */
struct config_message {
	enum message_severity severity;
	char *text;              /* owned; warnings: "FILE:LINE: warning: message" */
	unsigned int part, line; /* where, for sorting */
	size_t order;            /* the order in which they were found */
};

/* Start with all zero. */
struct config_messages {
	struct config_message *list; /* owned */
	size_t count;
	size_t errors; /* also counts those that could not be kept */
	size_t lost;   /* findings above CONFIG_MESSAGES_MAX, or without memory for their text */
};

void config_messages_free(struct config_messages *messages);

/* The text of a policy, whole: what was read from a file, a directory or the environment. */
struct config_text {
	struct config_part {
		char *file; /* owned; as it is named in messages */
		char *text; /* owned; NUL-terminated */
		size_t size;
	} * parts; /* owned; a directory: its *.conf and *.ini files in order of name */
	size_t count;
	void (*pause)(
		void *context); /* called every while as the text is parsed, so that something else gets its turn; NULL: nothing does */
	void *pause_context;
};

#define CONFIG_PAUSE_LINES 64 /* lines between two calls of `pause`: some 0.2 ms */

/**
 * config_read() - Fetch the text
 * @path:	file or directory; NULL: SLUICE_CONFIG when it is set and not empty, else CONFIG_DEFAULT_PATH
 * Return: 0, or -errno with one error in @messages.
 */
int config_read(const char *path, struct config_text *out, struct config_messages *messages);
void config_text_free(struct config_text *text);

/** config_serialise() / config_deserialise() - One block of bytes, so that the supervisor can keep the last good policy. malloc()ed. 0 or
 * -errno. */
int config_serialise(const struct config_text *text, char **out, size_t *size);
int config_deserialise(const char *bytes, size_t size, struct config_text *out);

/**
 * config_parse() - Text -> finished policy (policy_finish() included)
 * Return: the policy, owned by the caller; NULL when there was any error: all of them are in @messages, in the order of the text.
 */
struct policy *config_parse(const struct config_text *text, struct config_messages *messages);

/** config_load() - config_read() and config_parse(). */
struct policy *config_load(const char *path, struct config_messages *messages);

/** config_is_automatic() - Does any upstream group say `server = auto`? */
bool config_is_automatic(const struct policy *policy);

/**
 * config_resolve_auto() - Fill the servers of upstream groups that say `server = auto`
 * @path:	normally CONFIG_RESOLV_CONF
 *
 * 127.0.0.11 is Docker's own resolver and never taken; then the servers behind it are read from Docker's comment "ExtServers". Other
 * loopback servers are taken only when there is nothing else. Nothing is read when no group is automatic.
 *
 * Return: 0, or -errno with one error in @messages (-ENOENT: no usable server).
 */
int config_resolve_auto(struct policy *policy, const char *path, struct config_messages *messages);

#endif
