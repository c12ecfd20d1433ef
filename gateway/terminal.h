/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_TERMINAL_H
#define SLUICE_GATEWAY_TERMINAL_H

/*
 * What commands print for eyes: columns that are aligned, colours where they are wanted, and numbers in units. Text of others (names, names
 * of containers) never reaches the screen as it is: whatever could move the cursor or turn the direction of text is written as \xNN.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define TERMINAL_NUMBER_MAX 24 /* octets of a number with its unit, with NUL */

enum terminal_colour {
	TERMINAL_PLAIN,
	TERMINAL_BOLD,
	TERMINAL_DIM,
	TERMINAL_RED,
	TERMINAL_GREEN,
	TERMINAL_YELLOW,
	TERMINAL_CYAN,
};

struct terminal {
	bool is_terminal;
	bool colour;                /* it has them, and NO_COLOR does not forbid them */
	bool utf8;                  /* else everything is ASCII */
	unsigned int width, height; /* characters; 0: no limit, it is no terminal */
};

/**
 * terminal_look() - What is at this descriptor? Sets LC_CTYPE.
 *
 * UTF-8: what LC_ALL, LC_CTYPE or LANG say. Inside a container nobody sets them: then a terminal has UTF-8 unless TERM is one that has not.
 */
void terminal_look(struct terminal *terminal, int fd);

/** terminal_measure() - Width and height again: the window may have changed. */
void terminal_measure(struct terminal *terminal, int fd);

/** terminal_escape() - @text as it may be printed; what does not fit is cut between characters. Return: @out. */
char *terminal_escape(const struct terminal *terminal, const char *text, char *out, size_t size);

/** terminal_columns() - How wide an escaped text is on the screen. */
size_t terminal_columns(const char *text);

/* How a text is put. */
struct terminal_place {
	size_t width; /* at least: blanks fill it up */
	size_t limit; /* at most: an ellipsis shows that something is missing; 0: none */
	bool right;   /* blanks come first */
	enum terminal_colour colour;
};

/** terminal_put() - An escaped text. */
void terminal_put(const struct terminal *terminal, FILE *stream, const char *text, struct terminal_place place);

/** terminal_bytes() - "0 B", "1.5 KiB", "12 MiB". Return: @out. */
char *terminal_bytes(uint64_t bytes, char out[static TERMINAL_NUMBER_MAX]);

/** terminal_age() - "3s", "5m", "2h", "3d"; what is in the future is "0s". Return: @out. */
char *terminal_age(int64_t seconds, char out[static TERMINAL_NUMBER_MAX]);

/* A table: all cells first, then it is printed as wide as they need, or as the terminal allows. */
struct terminal_column {
	const char *title;
	bool right;
	unsigned int least; /* characters that a narrow terminal leaves of it; 0: it is never cut */
};

struct terminal_table; /* terminal.c */

/** terminal_table_new() - @columns stay the caller's, and must outlive it. Return: NULL when out of memory. */
struct terminal_table *terminal_table_new(const struct terminal_column *columns, size_t count);
void terminal_table_free(struct terminal_table *table);

/** terminal_table_cell() - The next cell, row by row; @text is escaped and copied, NULL is written as "-". Without memory it is noted for
 * terminal_table_print(). */
void terminal_table_cell(struct terminal_table *table, const struct terminal *terminal, enum terminal_colour colour, const char *text);

/** terminal_table_print() - @indent: blanks before each line. Return: false when it could not be made for want of memory. */
bool terminal_table_print(const struct terminal_table *table, const struct terminal *terminal, FILE *stream, size_t indent);

#endif
