/* SPDX-License-Identifier: MIT */
/*
 * The line reader in front of inih.
 *
 * Theory of operation: inih is lenient where that changes the meaning of a policy: an unterminated "[section" puts the keys below it
 * into the section before; names are cut; text after "]" is ignored; an indented line silently continues the key above, even when
 * it is "key = value"; "#" is never a comment inline and ";" is none on continuation lines; "key: value" is a key; long lines are
 * cut in pieces. So every line is checked here first. Each such line is reported with what to write
 * instead and is not passed on. What is passed on is so plain that no version of inih, however it was built, can read it
 * in two ways. One report rejects the policy.
 *
 * A heading that is bad takes the keys below it along (LINE_BAD_SECTION), and a key that is bad its continuation lines, so that one mistake
 * is one message.
 */

#include "gateway/config_lines.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define BLANKS          " \t"
#define NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyz0123456789_-"
#define KEY_CHARACTERS  NAME_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define SHOWN           "60" /* characters of a bad text that a message repeats, as a printf precision */

#define SAY(lines, ...) config_messages_add((lines)->messages, CONFIG_ERROR, position(lines), __VA_ARGS__)

static struct config_position position(const struct config_lines *lines)
{
	return (struct config_position){.part = lines->part_index, .file = lines->part->file, .line = lines->number};
}

bool config_lines_open(struct config_lines *lines, const struct config_part *part, unsigned int index, struct config_messages *messages)
{
	static const char byte_order_mark[] = "\xef\xbb\xbf";

	memset(lines, 0, sizeof(*lines));
	lines->part = part;
	lines->part_index = index;
	lines->messages = messages;
	if (part->size >= 3 && memcmp(part->text, byte_order_mark, 3) == 0)
		lines->offset = 3;
	lines->buffer = malloc(CONFIG_LINE_MAX + 1);
	return lines->buffer;
}

void config_lines_close(struct config_lines *lines)
{
	free(lines->buffer);
	lines->buffer = NULL;
}

/* False, after saying why: the line holds what no text file has. */
static bool check_characters(struct config_lines *lines, const char *line, size_t length)
{
	if (memchr(line, 0, length)) {
		SAY(lines, "a NUL byte: this is not a plain text file (save it as UTF-8)");
		lines->offset = lines->part->size; /* every other line of UTF-16 has them too */
		return false;
	}
	for (size_t i = 0; i < length; i++) {
		if (iscntrl((unsigned char)line[i]) && line[i] != '\t') {
			SAY(lines, "a control character (0x%02x) in column %zu", (unsigned char)line[i], i + 1);
			return false;
		}
	}
	return true;
}

/* Copy the next line into the buffer, without its end. False: reported, skip it. */
static bool fetch(struct config_lines *lines)
{
	const char *line = lines->part->text + lines->offset;
	size_t left = lines->part->size - lines->offset;
	const char *end = memchr(line, '\n', left);
	size_t length = end ? (size_t)(end - line) : left;

	lines->number++;
	lines->offset += end ? length + 1 : length;
	if (length && line[length - 1] == '\r')
		length--;
	if (length > CONFIG_LINE_MAX) {
		SAY(lines, "the line is longer than %lu bytes; use several lines", CONFIG_LINE_MAX);
		return false;
	}
	if (!check_characters(lines, line, length))
		return false;
	memcpy(lines->buffer, line, length);
	lines->buffer[length] = 0;
	return true;
}

/* Cut a comment off. False, after saying why: something that only looks like one. */
static bool cut_comment(struct config_lines *lines, char *line)
{
	char *start = line + strspn(line, BLANKS), *semicolon = strchr(start, ';');

	if (*start == ';' || *start == '#') {
		*start = 0;
		return true;
	}
	if (semicolon && !strchr(BLANKS, semicolon[-1])) {
		SAY(lines, "';' inside a word: write a space before ';' to start a comment");
		return false;
	}
	if (semicolon)
		*semicolon = 0;
	/* Inside a word it may be one of its characters: tls://192.0.2.9#dns.example */
	if (strstr(start, " #") || strstr(start, "\t#")) {
		SAY(lines, "'#' starts a comment only at the start of a line; behind a value write ' ;'");
		return false;
	}
	return true;
}

static char *trim(char *text)
{
	char *end;

	text += strspn(text, BLANKS);
	end = text + strlen(text);
	while (end > text && strchr(BLANKS, end[-1]))
		end--;
	*end = 0;
	return text;
}

/* Items of a list are separated by blanks and commas: make that one space each, in place. */
static char *normalise(char *text)
{
	char *from = text, *to = text;

	while (*from) {
		size_t word = strcspn(from, BLANKS ",");

		if (word && to > text)
			*to++ = ' ';
		memmove(to, from, word);
		to += word;
		from += word;
		from += strspn(from, BLANKS ",");
	}
	*to = 0;
	return text;
}

static bool check_section_name(struct config_lines *lines, const char *name)
{
	if (strlen(name) > POLICY_NAME_MAX) {
		SAY(lines, "the name '%." SHOWN "s' is longer than %d characters", name, POLICY_NAME_MAX);
		return false;
	}
	if (name[strspn(name, NAME_CHARACTERS)]) {
		SAY(lines, "the name '%." SHOWN "s' may hold only a-z, 0-9, '_' and '-'", name);
		return false;
	}
	return true;
}

/* "[kind name]" -> two words. False: reported. */
static bool read_heading(struct config_lines *lines, char *line, struct config_line *out)
{
	char *end = strchr(line, ']'), *save = NULL, *rest;

	if (!end) {
		SAY(lines, "'%." SHOWN "s' has no closing ']'", line);
		return false;
	}
	rest = trim(end + 1);
	if (*rest) {
		SAY(lines, "'%." SHOWN "s' behind ']': a section heading stands alone on its line", rest);
		return false;
	}
	*end = 0;
	out->first = strtok_r(line + 1, BLANKS, &save);
	out->second = strtok_r(NULL, BLANKS, &save);
	if (!out->first) {
		SAY(lines, "empty section heading; write [gateway], [upstream], [upstream NAME], [rules NAME] or [network NAME]");
		return false;
	}
	if (strtok_r(NULL, BLANKS, &save)) {
		SAY(lines, "a section heading has at most two words, as in [network NAME]");
		return false;
	}
	if (!out->second)
		out->second = "";
	if (strlen(out->first) > CONFIG_KIND_MAX) {
		SAY(lines, "unknown section [%." SHOWN "s]; one of: gateway, upstream, rules, network", out->first);
		return false;
	}
	return check_section_name(lines, out->second);
}

static void read_section(struct config_lines *lines, char *line, struct config_line *out)
{
	lines->open = OPEN_NOTHING;
	out->kind = read_heading(lines, line, out) ? LINE_SECTION : LINE_BAD_SECTION;
}

static bool is_key(const char *text)
{
	return *text && !text[strspn(text, KEY_CHARACTERS)];
}

/* Say what is wrong with a line that has no '=', or a ':' before it. */
static void say_no_key(struct config_lines *lines, char *line)
{
	char *colon = strchr(line, ':');

	if (colon) {
		*colon = 0;
		if (is_key(trim(line))) {
			SAY(lines, "write '%." SHOWN "s =', not '%." SHOWN "s:'", trim(line), trim(line));
			return;
		}
		*colon = ':';
	}
	SAY(lines, "expected KEY = VALUE or [SECTION], found '%." SHOWN "s'; lines that continue a list are indented", trim(line));
}

/* Is there a '=' that does not belong to a URL? In the query of one it is at home. */
static bool has_stray_equals(const char *value)
{
	for (const char *word = value + strspn(value, BLANKS ","); *word; word += strspn(word, BLANKS ",")) {
		const char *end = word + strcspn(word, BLANKS ","), *equals = memchr(word, '=', (size_t)(end - word));
		const char *scheme = strstr(word, "://");

		if (equals && (!scheme || scheme > equals))
			return true;
		word = end;
	}
	return false;
}

static bool read_key(struct config_lines *lines, char *line, struct config_line *out)
{
	char *equals = strchr(line, '='), *colon = strchr(line, ':'), *key;

	lines->open = OPEN_BAD;
	if (!equals || (colon && colon < equals)) {
		say_no_key(lines, line);
		return false;
	}
	*equals = 0;
	key = trim(line);
	if (!is_key(key) || strlen(key) > CONFIG_KEY_MAX) {
		SAY(lines, "'%." SHOWN "s' is not a key: expected KEY = VALUE", key);
		return false;
	}
	if (has_stray_equals(equals + 1)) {
		SAY(lines, "a second '=' in the value of '%s': one key for each line", key);
		return false;
	}
	lines->open = OPEN_KEY;
	out->kind = LINE_KEY;
	out->first = key;
	out->second = normalise(equals + 1);
	return true;
}

static bool read_more(struct config_lines *lines, char *line, struct config_line *out)
{
	line = trim(line);
	if (strchr(line, '=')) {
		SAY(lines, "'%." SHOWN "s' is indented, so it would continue the line above: a key starts at the beginning of its line",
		    line);
		lines->open = OPEN_BAD;
		return false;
	}
	/* Only an IPv6 address in brackets begins like this, and that has colons. */
	if (line[0] == '[' && !strchr(line, ':')) {
		SAY(lines, "'%." SHOWN "s' is indented: a section heading starts at the beginning of its line", line);
		out->kind = LINE_BAD_SECTION;
		lines->open = OPEN_NOTHING;
		return true;
	}
	if (lines->open == OPEN_NOTHING)
		SAY(lines, "'%." SHOWN "s' is indented, but there is no key above it to continue", line);
	if (lines->open != OPEN_KEY)
		return false;
	out->kind = LINE_MORE;
	out->second = normalise(line);
	return *out->second;
}

static bool read_line(struct config_lines *lines, struct config_line *out)
{
	char *line = lines->buffer;
	bool indented = strchr(BLANKS, line[0]);

	memset(out, 0, sizeof(*out));
	out->number = lines->number;
	if (!cut_comment(lines, line)) {
		if (line[0] == '[') {
			out->kind = LINE_BAD_SECTION;
			lines->open = OPEN_NOTHING;
			return true;
		}
		if (!indented)
			lines->open = OPEN_BAD;
		return false;
	}
	if (!line[strspn(line, BLANKS)])
		return false;
	if (indented)
		return read_more(lines, line, out);
	if (line[0] != '[')
		return read_key(lines, line, out);
	read_section(lines, line, out);
	return true;
}

bool config_lines_next(struct config_lines *lines, struct config_line *out)
{
	while (lines->offset < lines->part->size) {
		if (!fetch(lines)) {
			lines->open = OPEN_BAD;
			continue;
		}
		if (read_line(lines, out))
			return true;
	}
	memset(out, 0, sizeof(*out));
	out->kind = LINE_END;
	out->number = lines->number;
	return false;
}
