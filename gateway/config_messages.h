/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_CONFIG_MESSAGES_H
#define SLUICE_GATEWAY_CONFIG_MESSAGES_H

/* Collecting what is wrong with a policy, and hints for words that were mistyped. Only for gateway/config*.c. */

#include <stddef.h>

#include "gateway/config.h"

#define CONFIG_MESSAGES_MAX 1000 /* findings that are kept; the rest is counted */
#define CONFIG_HINT_MAX     256  /* octets of a hint, with its NUL */

/* Where a finding is: `part` orders the files, line 0 means the file as a whole. */
struct config_position {
	unsigned int part;
	const char *file;
	unsigned int line;
};

/**
 * config_messages_add() - Add one finding
 *
 * Control characters and broken UTF-8 are replaced, so that the text may go to a terminal. An error is counted even when there
 * is no memory for its text.
 */
void config_messages_add(struct config_messages *messages, enum message_severity severity, struct config_position at, const char *format,
			 ...) __attribute__((format(printf, 4, 5)));

/** config_messages_sort() - Bring findings into the order of the text; say how many were not kept. */
void config_messages_sort(struct config_messages *messages);

/**
 * config_hint() - What to write instead of an unknown word
 *
 * "; did you mean 'allow'?" when one of the names is near, else "; one of: ..." with as many as fit.
 *
 * Return: @out; empty when there are no names.
 */
const char *config_hint(const char *word, const char *const *names, size_t count, char out[static CONFIG_HINT_MAX]);

#endif
