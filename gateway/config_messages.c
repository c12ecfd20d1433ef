/* SPDX-License-Identifier: MIT */
/* Findings about a policy: collected, bounded, sorted into the order of the text. */

#include "gateway/config_messages.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORD_MAX 48 /* longer words are not compared: no key, value or section name is that long */

static bool is_continuation(unsigned char c)
{
	return c >= 0x80 && c <= 0xbf;
}

/* Octets of the valid UTF-8 sequence (RFC 3629) at @s, which ends with NUL; 0: none. */
static size_t utf8_length(const unsigned char *s)
{
	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		return is_continuation(s[1]) ? 2 : 0;
	if (s[0] >= 0xe0 && s[0] <= 0xef) {
		if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f))
			return 0;
		return is_continuation(s[1]) && is_continuation(s[2]) ? 3 : 0;
	}
	if (s[0] < 0xf0 || s[0] > 0xf4 || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return is_continuation(s[1]) && is_continuation(s[2]) && is_continuation(s[3]) ? 4 : 0;
}

/* The text may be printed on a terminal and put into JSON, whatever the policy held. */
static void make_printable(char *text)
{
	unsigned char *c = (unsigned char *)text;

	while (*c) {
		size_t length = utf8_length(c);

		if (length == 0 || iscntrl(*c) || (c[0] == 0xc2 && c[1] < 0xa0)) {
			*c++ = '?';
			continue;
		}
		c += length;
	}
}

static char *__attribute__((format(printf, 3, 0)))
build_text(enum message_severity severity, struct config_position at, const char *format, va_list arguments)
{
	char *message = NULL, *text = NULL;
	const char *label = severity == CONFIG_WARNING ? "warning: " : "";
	int length;

	if (vasprintf(&message, format, arguments) < 0)
		return NULL;
	if (at.line)
		length = asprintf(&text, "%s:%u: %s%s", at.file, at.line, label, message);
	else
		length = asprintf(&text, "%s: %s%s", at.file, label, message);
	free(message);
	if (length < 0)
		return NULL;
	make_printable(text);
	return text;
}

/* Take ownership of @text. False: it was not kept. */
static bool keep(struct config_messages *messages, struct config_message message)
{
	struct config_message *list = messages->list;

	/* The array doubles whenever its count is a power of two. */
	if ((messages->count & (messages->count - 1)) == 0) {
		size_t capacity = messages->count ? messages->count * 2 : 1;

		list = reallocarray(list, capacity, sizeof(*list));
		if (!list)
			return false;
		messages->list = list;
	}
	list[messages->count++] = message;
	return true;
}

void config_messages_add(struct config_messages *messages, enum message_severity severity, struct config_position at, const char *format,
			 ...)
{
	struct config_message message = {.severity = severity, .part = at.part, .line = at.line, .order = messages->count};
	va_list arguments;

	if (severity == CONFIG_ERROR)
		messages->errors++;
	if (messages->count >= CONFIG_MESSAGES_MAX) {
		messages->lost++;
		return;
	}
	va_start(arguments, format);
	message.text = build_text(severity, at, format, arguments);
	va_end(arguments);
	if (!message.text || !keep(messages, message)) {
		free(message.text);
		messages->lost++;
	}
}

static int compare_messages(const void *left, const void *right)
{
	const struct config_message *a = left, *b = right;

	if (a->part != b->part)
		return a->part < b->part ? -1 : 1;
	if (a->line != b->line)
		return a->line < b->line ? -1 : 1;
	return a->order < b->order ? -1 : a->order > b->order;
}

void config_messages_sort(struct config_messages *messages)
{
	struct config_message rest = {.severity = CONFIG_WARNING, .part = UINT32_MAX, .line = UINT32_MAX};

	if (messages->count)
		qsort(messages->list, messages->count, sizeof(*messages->list), compare_messages);
	if (!messages->lost)
		return;
	if (asprintf(&rest.text, "policy: %zu more findings are not shown", messages->lost) < 0)
		return;
	if (keep(messages, rest))
		messages->lost = 0;
	else
		free(rest.text);
}

void config_messages_free(struct config_messages *messages)
{
	for (size_t i = 0; i < messages->count; i++)
		free(messages->list[i].text);
	free(messages->list);
	memset(messages, 0, sizeof(*messages));
}

static size_t smallest(size_t a, size_t b, size_t c)
{
	size_t ab = a < b ? a : b;

	return ab < c ? ab : c;
}

/* Levenshtein's distance without regard to case; both words are shorter than WORD_MAX. */
static size_t edit_distance(const char *a, const char *b)
{
	size_t row[WORD_MAX + 1], width = strlen(b);

	for (size_t j = 0; j <= width; j++)
		row[j] = j;
	for (size_t i = 0; a[i]; i++) {
		size_t diagonal = row[0];

		row[0] = i + 1;
		for (size_t j = 0; j < width; j++) {
			bool same = tolower((unsigned char)a[i]) == tolower((unsigned char)b[j]);
			size_t next = smallest(row[j] + 1, row[j + 1] + 1, diagonal + !same);

			diagonal = row[j + 1];
			row[j + 1] = next;
		}
	}
	return row[width];
}

static const char *nearest(const char *word, const char *const *names, size_t count)
{
	size_t length = strlen(word), best = length < 3 ? 2 : 1 + length / 3;
	const char *found = NULL;

	if (length >= WORD_MAX)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		size_t distance = strlen(names[i]) < WORD_MAX ? edit_distance(word, names[i]) : WORD_MAX;

		if (distance < best || (!found && distance == best && distance < length)) {
			best = distance;
			found = names[i];
		}
	}
	return found;
}

const char *config_hint(const char *word, const char *const *names, size_t count, char out[static CONFIG_HINT_MAX])
{
	const char *found = nearest(word, names, count);
	size_t used;

	out[0] = 0;
	if (found) {
		snprintf(out, CONFIG_HINT_MAX, "; did you mean '%s'?", found);
		return out;
	}
	if (!count)
		return out;
	used = (size_t)snprintf(out, CONFIG_HINT_MAX, "; one of:");
	for (size_t i = 0; i < count; i++) {
		if (used + strlen(names[i]) + sizeof(", ...") >= CONFIG_HINT_MAX) {
			snprintf(out + used, CONFIG_HINT_MAX - used, ", ...");
			break;
		}
		used += (size_t)snprintf(out + used, CONFIG_HINT_MAX - used, "%s %s", i ? "," : "", names[i]);
	}
	return out;
}
