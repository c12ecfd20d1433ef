/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_NOTIFY_MESSAGE_H
#define SLUICE_GATEWAY_REPORT_NOTIFY_MESSAGE_H

/* Notifications as data, and what is sent. Pure: no clock, no socket. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/report/decision.h"

#define NOTIFY_ENTRIES_MAX   50   /* denials that a message names; further ones are a number */
#define NOTIFY_TEXT_MAX_JSON 1900 /* octets of the text; Discord takes 2000 characters */
#define NOTIFY_TEXT_MAX_NTFY 3900 /* ntfy makes an attachment of what has more than 4096 */
#define NOTIFY_TITLE_MAX     80

struct notify_entry {
	struct decision decision;
	char *json; /* owned */
};

struct notify_message {
	struct notify_entry entries[NOTIFY_ENTRIES_MAX];
	size_t count;
	uint64_t more;    /* denials that have no entry */
	uint64_t dropped; /* earlier ones, of messages that could not be sent */
};

/** notify_message_new() / notify_message_free() - Return: NULL when out of memory. */
struct notify_message *notify_message_new(void);
void notify_message_free(struct notify_message *message);

/** notify_message_clear() - Nothing is in it any more. */
void notify_message_clear(struct notify_message *message);

/** notify_message_add() - @json: the decision as an object, copied. Return: false: there is no room, it is counted as one more. */
bool notify_message_add(struct notify_message *message, const struct decision *decision, const char *json);

/** notify_message_denials() - How many it is about, without those that were dropped. */
uint64_t notify_message_denials(const struct notify_message *message);

/** notify_message_title() - "Sluice: 3 new denials". Return: @out. */
const char *notify_message_title(const struct notify_message *message, char out[static NOTIFY_TITLE_MAX]);

/**
 * notify_message_text() - A line for each denial, as many as fit into @max octets (NUL not counted), then how many more there are
 * @quoted:	names in backquotes, so that a chat makes no links of them and fetches nothing from there
 * Return: malloc()ed, or NULL: out of memory.
 */
char *notify_message_text(const struct notify_message *message, size_t max, bool quoted);

/** notify_message_json() - The body for a webhook. Return: malloc()ed, or NULL: out of memory. */
char *notify_message_json(const struct notify_message *message);

#endif
