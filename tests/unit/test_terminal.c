/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gateway/terminal.h"

#define OUTPUT_MAX 4096

static const struct terminal ascii = {0};
static const struct terminal utf8 = {.utf8 = true};

static void bytes_have_units(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} table[] = {
		{0, "0 B"},
		{1, "1 B"},
		{999, "999 B"},
		{1023, "1023 B"},
		{1024, "1.0 KiB"},
		{1536, "1.5 KiB"},
		{10188, "9.9 KiB"},
		{10189, "10 KiB"},
		{1048063, "1023 KiB"},
		{1048064, "1.0 MiB"},
		{1024 * 1024, "1.0 MiB"},
		{5ULL << 30, "5.0 GiB"},
		{UINT64_MAX, "16 EiB"},
	};
	char out[TERMINAL_NUMBER_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_string_equal(terminal_bytes(table[i].bytes, out), table[i].text);
}

static void ages_have_one_unit(void **state)
{
	static const struct {
		int64_t seconds;
		const char *text;
	} table[] = {
		{INT64_MIN, "0s"}, {-1, "0s"},   {0, "0s"},          {59, "59s"},       {60, "1m"},
		{3599, "59m"},     {3600, "1h"}, {47 * 3600, "47h"}, {48 * 3600, "2d"}, {400 * 86400, "400d"},
	};
	char out[TERMINAL_NUMBER_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_string_equal(terminal_age(table[i].seconds, out), table[i].text);
}

static void what_moves_a_cursor_is_escaped(void **state)
{
	static const struct {
		const char *text, *utf8, *ascii;
	} table[] = {
		{"plain.example", "plain.example", "plain.example"},
		{"a\033[2Jb\r\n\t", "a\\x1b[2Jb\\x0d\\x0a\\x09", "a\\x1b[2Jb\\x0d\\x0a\\x09"},
		{"\x7f", "\\x7f", "\\x7f"},
		{"\xc2\x9b", "\\xc2\\x9b", "\\xc2\\x9b"},               /* CSI as one character */
		{"\xe2\x80\xae", "\\xe2\\x80\\xae", "\\xe2\\x80\\xae"}, /* turns the direction */
		{"\xff\xc3", "\\xff\\xc3", "\\xff\\xc3"},               /* no UTF-8 */
		{"b\u00fccher", "b\u00fccher", "b\\xc3\\xbccher"},
		{"\\x1b", "\\x1b", "\\x1b"}, /* escaped by the daemon: stays so */
	};
	char out[64];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		assert_string_equal(terminal_escape(&utf8, table[i].text, out, sizeof(out)), table[i].utf8);
		assert_string_equal(terminal_escape(&ascii, table[i].text, out, sizeof(out)), table[i].ascii);
	}
	/* What does not fit is left out, never half of a character. */
	assert_string_equal(terminal_escape(&utf8, "ab\u00fc", out, 4), "ab");
	assert_string_equal(terminal_escape(&ascii, "ab\033", out, 6), "ab");
	assert_string_equal(terminal_escape(&ascii, "ab\033", out, 7), "ab\\x1b");
}

static void columns_are_those_of_the_screen(void **state)
{
	(void)state;
	assert_non_null(setlocale(LC_CTYPE, "C.UTF-8"));
	assert_int_equal(terminal_columns(""), 0);
	assert_int_equal(terminal_columns("abc"), 3);
	assert_int_equal(terminal_columns("b\u00fccher"), 6);
	assert_int_equal(terminal_columns("e\u0301"), 1);      /* a combining accent */
	assert_int_equal(terminal_columns("\u6771\u4eac"), 4); /* wide */
	assert_int_equal(terminal_columns("\u2717 \u2026"), 3);
}

static const char *put(const struct terminal *terminal, const char *text, struct terminal_place place)
{
	static char output[OUTPUT_MAX];
	FILE *file = fmemopen(output, sizeof(output), "w");

	assert_non_null(file);
	terminal_put(terminal, file, text, place);
	fclose(file);
	return output;
}

static void a_text_is_put_into_its_place(void **state)
{
	const struct terminal coloured = {.utf8 = true, .colour = true};

	(void)state;
	assert_non_null(setlocale(LC_CTYPE, "C.UTF-8"));
	assert_string_equal(put(&utf8, "ab", (struct terminal_place){.width = 4}), "ab  ");
	assert_string_equal(put(&utf8, "ab", (struct terminal_place){.width = 4, .right = true}), "  ab");
	assert_string_equal(put(&utf8, "abcdef", (struct terminal_place){.width = 4}), "abcdef");
	assert_string_equal(put(&utf8, "abcdef", (struct terminal_place){.width = 4, .limit = 4}), "abc\u2026");
	assert_string_equal(put(&ascii, "abcdef", (struct terminal_place){.width = 4, .limit = 4}), "abc>");
	/* A wide character that does not fit leaves a blank. */
	assert_string_equal(put(&utf8, "\u6771\u4eac", (struct terminal_place){.width = 3, .limit = 3}), "\u6771\u2026");
	assert_string_equal(put(&utf8, "a\u6771\u4eac", (struct terminal_place){.width = 3, .limit = 3}), "a\u2026 ");
	assert_string_equal(put(&utf8, "ab", (struct terminal_place){.colour = TERMINAL_RED}), "ab");
	assert_string_equal(put(&coloured, "ab", (struct terminal_place){.width = 3, .colour = TERMINAL_RED}), "\033[31mab\033[0m ");
	assert_string_equal(put(&coloured, "", (struct terminal_place){.width = 2, .colour = TERMINAL_RED}), "  ");
}

static const struct terminal_column columns[] = {{"name", false, 6}, {"count", true, 0}, {"reason", false, 4}};

static const char *print_table(const struct terminal *terminal, size_t indent)
{
	static const char *const cells[] = {"a-rather-long-name", "7", "why", "b", "1234567", NULL};
	static char output[OUTPUT_MAX];
	struct terminal_table *table = terminal_table_new(columns, 3);
	FILE *file = fmemopen(output, sizeof(output), "w");

	assert_non_null(table);
	assert_non_null(file);
	for (size_t i = 0; i < sizeof(cells) / sizeof(cells[0]); i++)
		terminal_table_cell(table, terminal, TERMINAL_PLAIN, cells[i]);
	assert_true(terminal_table_print(table, terminal, file, indent));
	terminal_table_free(table);
	fclose(file);
	return output;
}

static void tables_are_as_wide_as_they_need_or_may_be(void **state)
{
	struct terminal narrow = {.width = 24};

	(void)state;
	assert_string_equal(print_table(&ascii, 2), "  name                  count  reason\n"
						    "  a-rather-long-name        7  why\n"
						    "  b                   1234567  -\n");
	assert_string_equal(print_table(&narrow, 0), "name       count  reason\n"
						     "a-rath>        7  why\n"
						     "b        1234567  -\n");
	narrow.width = 21;
	assert_string_equal(print_table(&narrow, 0), "name      count  rea>\n"
						     "a-rat>        7  why\n"
						     "b       1234567  -\n");
	/* It becomes no narrower than that: a terminal of ten characters shows what it can. */
	narrow.width = 10;
	assert_string_equal(print_table(&narrow, 0), "name      count  rea>\n"
						     "a-rat>        7  why\n"
						     "b       1234567  -\n");
}

static void set_locale(const char *all, const char *ctype, const char *lang, const char *term)
{
	const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG", "TERM"};
	const char *const values[] = {all, ctype, lang, term};

	for (size_t i = 0; i < 4; i++) {
		if (values[i])
			setenv(names[i], values[i], 1);
		else
			unsetenv(names[i]);
	}
}

/* Standard input of a pipe is no terminal: only what the environment says counts. tests/unit/commands.py has terminals. */
static void a_pipe_has_no_colours_and_no_width(void **state)
{
	struct terminal terminal;
	int ends[2];

	(void)state;
	assert_int_equal(pipe(ends), 0);
	setenv("COLUMNS", "40", 1);
	set_locale(NULL, NULL, NULL, "xterm");
	terminal_look(&terminal, ends[1]);
	assert_false(terminal.is_terminal || terminal.colour || terminal.utf8);
	assert_int_equal(terminal.width, 0);
	set_locale(NULL, NULL, "de_DE.UTF-8", "xterm");
	terminal_look(&terminal, ends[1]);
	assert_true(terminal.utf8);
	set_locale("C", "C.UTF-8", "C.UTF-8", "xterm");
	terminal_look(&terminal, ends[1]);
	assert_false(terminal.utf8);
	set_locale(NULL, "C.utf8", "C", "xterm");
	terminal_look(&terminal, ends[1]);
	assert_true(terminal.utf8);
	close(ends[0]);
	close(ends[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_have_units),
		cmocka_unit_test(ages_have_one_unit),
		cmocka_unit_test(what_moves_a_cursor_is_escaped),
		cmocka_unit_test(columns_are_those_of_the_screen),
		cmocka_unit_test(a_text_is_put_into_its_place),
		cmocka_unit_test(tables_are_as_wide_as_they_need_or_may_be),
		cmocka_unit_test(a_pipe_has_no_colours_and_no_width),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
