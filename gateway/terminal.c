/* SPDX-License-Identifier: MIT */
/* Columns, colours and units for the commands. */
#include "gateway/terminal.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#include "common/log.h"

#define WIDTH_DEFAULT 80
#define CELL_MAX      1100 /* octets: the longest name with each octet escaped, with NUL */
#define GAP           2    /* blanks between columns */

static const char *const colours[] = {
	[TERMINAL_PLAIN] = "",         [TERMINAL_BOLD] = "\033[1m",    [TERMINAL_DIM] = "\033[2m",   [TERMINAL_RED] = "\033[31m",
	[TERMINAL_GREEN] = "\033[32m", [TERMINAL_YELLOW] = "\033[33m", [TERMINAL_CYAN] = "\033[36m",
};

/* The terminal */

static const char *environment(const char *name)
{
	const char *value = getenv(name);

	return value && value[0] ? value : NULL;
}

static bool terminal_is(const char *name)
{
	const char *type = environment("TERM");

	return type && strcmp(type, name) == 0;
}

static bool speaks_utf8(bool is_terminal)
{
	static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *value = environment(names[i]);

		if (value)
			return strcasestr(value, "utf-8") || strcasestr(value, "utf8");
	}
	return is_terminal && environment("TERM") && !terminal_is("dumb") && !terminal_is("linux");
}

void terminal_measure(struct terminal *terminal, int fd)
{
	const char *columns = environment("COLUMNS");
	struct winsize size = {0};

	terminal->width = terminal->height = 0;
	if (!terminal->is_terminal)
		return;
	if (ioctl(fd, TIOCGWINSZ, &size) == 0) {
		terminal->width = size.ws_col;
		terminal->height = size.ws_row;
	}
	if (!terminal->width && columns)
		terminal->width = (unsigned int)strtoul(columns, NULL, 10);
	if (!terminal->width)
		terminal->width = WIDTH_DEFAULT;
}

void terminal_look(struct terminal *terminal, int fd)
{
	*terminal = (struct terminal){.is_terminal = isatty(fd)};
	terminal->colour = terminal->is_terminal && environment("TERM") && !terminal_is("dumb") && !environment("NO_COLOR");
	terminal->utf8 = speaks_utf8(terminal->is_terminal);
	/* For wcwidth(). Where the C library's locales are not installed each character counts as one column. */
	if (terminal->utf8 && !setlocale(LC_CTYPE, "C.UTF-8"))
		setlocale(LC_CTYPE, "");
	terminal_measure(terminal, fd);
}

/* Text */

char *terminal_escape(const struct terminal *terminal, const char *text, char *out, size_t size)
{
	size_t used = 0;

	while (*text) {
		size_t length = log_showable(text);
		char escaped[8] = "";

		if (length == 0 || (length > 1 && !terminal->utf8))
			length = (size_t)snprintf(escaped, sizeof(escaped), "\\x%02x", (unsigned char)*text);
		if (used + length >= size)
			break;
		memcpy(out + used, escaped[0] ? escaped : text, length);
		used += length;
		text += escaped[0] ? 1 : length;
	}
	out[used] = '\0';
	return out;
}

/* The character at @text, which is escaped already. Return: its octets. */
static size_t next_character(const char *text, size_t *columns)
{
	static const unsigned char masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
	size_t length = log_showable(text);
	wchar_t point;
	int width;

	*columns = 1;
	if (length <= 1)
		return 1;
	point = (wchar_t)((unsigned char)text[0] & masks[length]);
	for (size_t i = 1; i < length; i++)
		point = point << 6 | ((unsigned char)text[i] & 0x3f);
	width = wcwidth(point);
	if (width >= 0)
		*columns = (size_t)width;
	return length;
}

size_t terminal_columns(const char *text)
{
	size_t sum = 0, columns;

	while (*text) {
		text += next_character(text, &columns);
		sum += columns;
	}
	return sum;
}

/* Return: the octets of @text that fit into so many columns. */
static size_t octets_within(const char *text, size_t limit, size_t *used)
{
	const char *at = text;

	*used = 0;
	while (*at) {
		size_t columns, length = next_character(at, &columns);

		if (*used + columns > limit)
			break;
		*used += columns;
		at += length;
	}
	return (size_t)(at - text);
}

static void put_blanks(FILE *stream, size_t count)
{
	fprintf(stream, "%*s", (int)count, "");
}

void terminal_put(const struct terminal *terminal, FILE *stream, const char *text, struct terminal_place place)
{
	const char *ellipsis = "";
	size_t columns = terminal_columns(text), octets = strlen(text), blanks;
	bool coloured = terminal->colour && place.colour != TERMINAL_PLAIN && text[0];

	if (place.limit && columns > place.limit) {
		octets = octets_within(text, place.limit - 1, &columns);
		ellipsis = terminal->utf8 ? "\u2026" : ">";
		columns++;
	}
	blanks = place.width > columns ? place.width - columns : 0;
	if (place.right)
		put_blanks(stream, blanks);
	fprintf(stream, "%s%.*s%s%s", coloured ? colours[place.colour] : "", (int)octets, text, ellipsis, coloured ? "\033[0m" : "");
	if (!place.right)
		put_blanks(stream, blanks);
}

/* Numbers */

char *terminal_bytes(uint64_t bytes, char out[static TERMINAL_NUMBER_MAX])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	size_t unit = 0;

	/* 1023.5 would be printed as 1024. */
	for (; value >= 1023.5 && unit + 1 < sizeof(units) / sizeof(units[0]); unit++)
		value /= 1024;
	snprintf(out, TERMINAL_NUMBER_MAX, unit && value < 9.95 ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return out;
}

char *terminal_age(int64_t seconds, char out[static TERMINAL_NUMBER_MAX])
{
	static const struct {
		int64_t until, unit;
		char letter;
	} steps[] = {{60, 1, 's'}, {3600, 60, 'm'}, {48 * 3600L, 3600, 'h'}, {INT64_MAX, 24 * 3600L, 'd'}};
	size_t step = 0;

	if (seconds < 0)
		seconds = 0;
	while (seconds >= steps[step].until && step + 1 < sizeof(steps) / sizeof(steps[0]))
		step++;
	snprintf(out, TERMINAL_NUMBER_MAX, "%lld%c", (long long)(seconds / steps[step].unit), steps[step].letter);
	return out;
}

/* Tables */

struct cell {
	char *text; /* owned, escaped */
	size_t columns;
	enum terminal_colour colour;
};

struct terminal_table {
	const struct terminal_column *columns;
	size_t count;       /* of columns */
	struct cell *cells; /* owned */
	size_t used, size;
	bool failed; /* for want of memory */
};

struct terminal_table *terminal_table_new(const struct terminal_column *columns, size_t count)
{
	struct terminal_table *table = calloc(1, sizeof(*table));

	if (!table)
		return NULL;
	table->columns = columns;
	table->count = count;
	return table;
}

void terminal_table_free(struct terminal_table *table)
{
	if (!table)
		return;
	for (size_t i = 0; i < table->used; i++)
		free(table->cells[i].text);
	free(table->cells);
	free(table);
}

static bool make_room(struct terminal_table *table)
{
	size_t size = table->size ? 2 * table->size : 8 * table->count;
	struct cell *larger;

	if (table->used < table->size)
		return true;
	larger = reallocarray(table->cells, size, sizeof(*larger));
	if (!larger)
		return false;
	table->cells = larger;
	table->size = size;
	return true;
}

void terminal_table_cell(struct terminal_table *table, const struct terminal *terminal, enum terminal_colour colour, const char *text)
{
	char escaped[CELL_MAX], *copy;

	copy = strdup(terminal_escape(terminal, text ? text : "-", escaped, sizeof(escaped)));
	if (!copy || !make_room(table)) {
		free(copy);
		table->failed = true;
		return;
	}
	table->cells[table->used++] = (struct cell){.text = copy, .columns = terminal_columns(copy), .colour = colour};
}

/* As wide as the widest cell. Return: the sum, with the gaps. */
static size_t widths_wanted(const struct terminal_table *table, size_t *widths)
{
	size_t sum = GAP * (table->count - 1);

	for (size_t i = 0; i < table->count; i++)
		widths[i] = terminal_columns(table->columns[i].title);
	for (size_t i = 0; i < table->used; i++) {
		if (table->cells[i].columns > widths[i % table->count])
			widths[i % table->count] = table->cells[i].columns;
	}
	for (size_t i = 0; i < table->count; i++)
		sum += widths[i];
	return sum;
}

/* Take from the column that is farthest above its least width, one by one, until the line fits or nothing more can go. */
static void make_narrower(const struct terminal_table *table, size_t *widths, size_t sum, size_t limit)
{
	while (sum > limit) {
		size_t most = 0, chosen = table->count;

		for (size_t i = 0; i < table->count; i++) {
			size_t least = table->columns[i].least;

			if (least && widths[i] > least && widths[i] - least > most) {
				most = widths[i] - least;
				chosen = i;
			}
		}
		if (chosen == table->count)
			return;
		widths[chosen]--;
		sum--;
	}
}

static void print_cell(const struct terminal_table *table, const struct terminal *terminal, FILE *stream, size_t column, size_t width,
		       const struct cell *cell)
{
	bool last = column + 1 == table->count;
	bool right = table->columns[column].right;

	/* No blanks at the end of a line. */
	if (column > 0 && !(last && !right && !cell->text[0]))
		put_blanks(stream, GAP);
	terminal_put(terminal, stream, cell->text,
		     (struct terminal_place){.width = last && !right ? 0 : width, .limit = width, .right = right, .colour = cell->colour});
	if (last)
		fputc('\n', stream);
}

bool terminal_table_print(const struct terminal_table *table, const struct terminal *terminal, FILE *stream, size_t indent)
{
	size_t *widths = calloc(table->count, sizeof(*widths));
	size_t sum;

	if (!widths || table->failed) {
		free(widths);
		return false;
	}
	sum = widths_wanted(table, widths);
	if (terminal->width)
		make_narrower(table, widths, sum + indent, terminal->width);
	for (size_t i = 0; i < table->count; i++) {
		struct cell title = {.text = (char[64]){0}, .colour = TERMINAL_DIM};

		if (i == 0)
			put_blanks(stream, indent);
		snprintf(title.text, 64, "%s", table->columns[i].title);
		print_cell(table, terminal, stream, i, widths[i], &title);
	}
	for (size_t i = 0; i < table->used; i++) {
		if (i % table->count == 0)
			put_blanks(stream, indent);
		print_cell(table, terminal, stream, i % table->count, widths[i % table->count], &table->cells[i]);
	}
	free(widths);
	return true;
}
