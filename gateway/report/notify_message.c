/* SPDX-License-Identifier: MIT */
/*
 * What a notification says.
 *
 * Names come from apps. domain_format() leaves nothing in them that a chat would take for a mention, and in the text for chats they stand
 * in backquotes: a link would have some servers fetch a page from that name, which an app could use to tell somebody something.
 */
#include "gateway/report/notify_message.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "resolver/message.h"

#define LINE_MAX_OCTETS (DOMAIN_TEXT_MAX + 512)
#define TAIL_MAX        160 /* octets of the lines about what has no line */

struct notify_message *notify_message_new(void)
{
	return calloc(1, sizeof(struct notify_message));
}

void notify_message_clear(struct notify_message *message)
{
	for (size_t i = 0; i < message->count; i++)
		free(message->entries[i].json);
	memset(message, 0, sizeof(*message));
}

void notify_message_free(struct notify_message *message)
{
	if (message)
		notify_message_clear(message);
	free(message);
}

bool notify_message_add(struct notify_message *message, const struct decision *decision, const char *json)
{
	char *copy = message->count < NOTIFY_ENTRIES_MAX ? strdup(json) : NULL;

	if (!copy) {
		message->more++;
		return false;
	}
	message->entries[message->count++] = (struct notify_entry){.decision = *decision, .json = copy};
	return true;
}

uint64_t notify_message_denials(const struct notify_message *message)
{
	return message->count + message->more;
}

const char *notify_message_title(const struct notify_message *message, char out[static NOTIFY_TITLE_MAX])
{
	uint64_t denials = notify_message_denials(message);

	snprintf(out, NOTIFY_TITLE_MAX, "Sluice: %" PRIu64 " new %s", denials, denials == 1 ? "denial" : "denials");
	return out;
}

/* "evil.example port 443/tcp", "203.0.113.7 gre", "evil.example (A)" */
static void write_what(const struct decision *decision, const char *quote, char out[static LINE_MAX_OCTETS])
{
	const struct domain *subject = decision_subject(decision);
	char name[DOMAIN_TEXT_MAX], protocol[8], type[16];

	if (subject->length)
		domain_format(subject, name);
	else if (decision->destination.family)
		address_format(&decision->destination, name);
	else
		strcpy(name, "-");
	if (decision->kind == DECISION_QUESTION)
		snprintf(out, LINE_MAX_OCTETS, "%s%s%s (DNS %s)", quote, name, quote,
			 subject->length ? message_type_name(decision->type, type) : "question");
	else if (decision->has_port)
		snprintf(out, LINE_MAX_OCTETS, "%s%s%s port %u/%s", quote, name, quote, decision->port,
			 decision_protocol_name(decision->protocol, protocol));
	else
		snprintf(out, LINE_MAX_OCTETS, "%s%s%s %s", quote, name, quote, decision_protocol_name(decision->protocol, protocol));
}

/* "web-1 (network web) -> evil.example port 443/tcp: name-not-allowed" */
static size_t write_line(const struct decision *decision, const char *quote, char out[static LINE_MAX_OCTETS])
{
	char what[LINE_MAX_OCTETS], source[ADDRESS_TEXT_MAX];
	const char *who = decision->app;
	int size;

	if (!*who)
		who = decision->source.family ? address_format(&decision->source, source) : "-";
	write_what(decision, quote, what);
	size = snprintf(out, LINE_MAX_OCTETS, "%s (network %s) -> %s: %s%s\n", who, decision->network[0] ? decision->network : "-", what,
			reason_name(decision->reason), decision->event == DECISION_AUDIT ? ", audit mode let it pass" : "");
	return size < LINE_MAX_OCTETS ? (size_t)size : LINE_MAX_OCTETS - 1;
}

static size_t append(char *out, size_t used, const char *format, ...) __attribute__((format(printf, 3, 4)));
static size_t append(char *out, size_t used, const char *format, ...)
{
	va_list arguments;
	int size;

	va_start(arguments, format);
	size = vsnprintf(out + used, TAIL_MAX / 2, format, arguments);
	va_end(arguments);
	return used + (size_t)size;
}

char *notify_message_text(const struct notify_message *message, size_t max, bool quoted)
{
	char line[LINE_MAX_OCTETS];
	char *out = malloc(max + 1);
	size_t used = 0, shown = 0;
	uint64_t more;

	if (!out)
		return NULL;
	for (; shown < message->count; shown++) {
		size_t size = write_line(&message->entries[shown].decision, quoted ? "`" : "", line);

		if (used + size + TAIL_MAX > max)
			break;
		memcpy(out + used, line, size);
		used += size;
	}
	more = notify_message_denials(message) - shown;
	if (more)
		used = append(out, used, "and %" PRIu64 " more\n", more);
	if (message->dropped)
		used = append(out, used, "%" PRIu64 " earlier ones could not be told\n", message->dropped);
	out[used ? used - 1 : 0] = '\0'; /* without the last newline */
	return out;
}

static json_t *entries_json(const struct notify_message *message)
{
	json_t *list = json_array();

	for (size_t i = 0; i < message->count; i++) {
		if (json_array_append_new(list, json_loads(message->entries[i].json, 0, NULL)) != 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

/*
 * One body for many servers, which pass over keys that they do not know: `text` is what Slack and Mattermost show, `content`
 * what Discord does, `message` what Gotify does. The other keys keep Slack and Discord from fetching links and from calling people.
 */
char *notify_message_json(const struct notify_message *message)
{
	char *text = notify_message_text(message, NOTIFY_TEXT_MAX_JSON, true), *body = NULL;
	char title[NOTIFY_TITLE_MAX], *whole = NULL;
	json_t *object;

	notify_message_title(message, title);
	if (!text || asprintf(&whole, "%s\n%s", title, text) < 0)
		whole = NULL;
	object = whole ? json_pack("{s:s, s:s, s:s, s:s, s:b, s:b, s:i, s:{s:[]}, s:o, s:I, s:I}", "title", title, "text", whole, "content",
				   whole, "message", text, "unfurl_links", 0, "unfurl_media", 0, "flags", 4, "allowed_mentions", "parse",
				   "denials", entries_json(message), "more", (json_int_t)message->more, "dropped",
				   (json_int_t)message->dropped)
		       : NULL;
	if (object)
		body = json_dumps(object, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(object);
	free(text);
	free(whole);
	return body;
}
