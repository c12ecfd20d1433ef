/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_CONFIG_LINES_H
#define SLUICE_GATEWAY_CONFIG_LINES_H

/* The line reader in front of inih. Only for gateway/config*.c. */

#include <stdbool.h>
#include <stddef.h>

#include "gateway/config.h"
#include "gateway/config_messages.h"

#define CONFIG_LINE_MAX (64UL * 1024) /* octets of one line */
#define CONFIG_KEY_MAX  40            /* characters of a key; inih cuts at 49 */
#define CONFIG_KIND_MAX 16            /* characters of the first word of a section heading */

enum config_line_kind {
	LINE_END,         /* of the part */
	LINE_SECTION,     /* first: kind, second: name or "" */
	LINE_BAD_SECTION, /* reported; the keys below it belong nowhere */
	LINE_KEY,         /* first: key, second: value, maybe "" */
	LINE_MORE,        /* second: more of the value of the key before */
};

/* One line that means something. Values have no comment, no comma, and single spaces between their items. */
struct config_line {
	enum config_line_kind kind;
	unsigned int number;
	const char *first, *second; /* valid until the next line is read */
};

struct config_lines {
	const struct config_part *part;
	unsigned int part_index;
	struct config_messages *messages;
	size_t offset;
	unsigned int number;
	enum { OPEN_NOTHING, OPEN_KEY, OPEN_BAD } open; /* what an indented line would continue */
	char *buffer;                                   /* owned: one line */
};

/** config_lines_open() - Read this part from its start. Return: false when out of memory. */
bool config_lines_open(struct config_lines *lines, const struct config_part *part, unsigned int index, struct config_messages *messages);
void config_lines_close(struct config_lines *lines);

/** config_lines_next() - The next line that means something; reports the bad ones before it. Return: false: LINE_END. */
bool config_lines_next(struct config_lines *lines, struct config_line *out);

#endif
