/* SPDX-License-Identifier: MIT */
/*
 * The last decisions.
 *
 * Theory of operation: two rings of lines, each line with the number in which it came, so that both can be told in one order. Denials are
 * appended to a file as they come (recent_write()); when it has grown to RECENT_FILE_MAX it takes the place of the file before it, so there
 * are at most two. At start both are read, the older one first. A line that is damaged is left out.
 *
 * Most lines about what was allowed are pushed out before anybody has seen them. So they are kept as data, and made when they are told.
 */
#include "gateway/report/recent.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#define FILE_NAME   "denials.jsonl"
#define FILE_BEFORE "denials-before.jsonl"

struct late {
	struct timespec moment;
	struct decision decision;
};

struct line {
	char *text;        /* owned; NULL: not made yet */
	struct late *late; /* owned; NULL: made */
	size_t size;
	uint64_t number;
};

struct ring {
	struct line *lines; /* owned, `room` of them */
	size_t room, start, count;
	size_t bytes;
};

struct recent {
	struct log *log;
	int directory; /* the caller's; -1: none */
	int file;      /* owned; -1: not open */
	off_t file_size;
	bool said;
	struct ring denied, allowed;
	struct log *lines;   /* owned: makes late lines */
	struct line *making; /* the one at hand */
	uint64_t number;
	uint64_t written; /* lines of `denied` up to this number are in the file */
};

static struct line *line_at(const struct ring *ring, size_t index)
{
	size_t at = ring->start + index; /* below twice the room; a division takes longer than all else that an allowed flow does here */

	return &ring->lines[at < ring->room ? at : at - ring->room];
}

static void drop_oldest(struct ring *ring)
{
	struct line *line = line_at(ring, 0);

	ring->bytes -= line->size;
	free(line->text);
	free(line->late);
	line->text = NULL;
	line->late = NULL;
	ring->start = ring->start + 1 < ring->room ? ring->start + 1 : 0;
	ring->count--;
}

static void append_line(struct ring *ring, const struct line *line)
{
	while (ring->count == ring->room || (ring->count > 0 && ring->bytes + line->size > RECENT_BYTES_MAX))
		drop_oldest(ring);
	*line_at(ring, ring->count++) = *line;
	ring->bytes += line->size;
}

static void put(struct ring *ring, const char *json, size_t size, uint64_t number)
{
	char *text = size < RECENT_BYTES_MAX ? malloc(size + 1) : NULL;

	if (!text)
		return;
	memcpy(text, json, size);
	text[size] = '\0';
	append_line(ring, &(struct line){.text = text, .size = size, .number = number});
}

static bool ring_open(struct ring *ring, size_t room)
{
	ring->lines = calloc(room, sizeof(*ring->lines));
	ring->room = room;
	return ring->lines != NULL;
}

static void ring_free(struct ring *ring)
{
	while (ring->lines && ring->count > 0)
		drop_oldest(ring);
	free(ring->lines);
}

static bool is_whole(const char *line, size_t size)
{
	json_t *object = json_loadb(line, size, 0, NULL);
	bool whole = json_is_object(object);

	json_decref(object);
	return whole;
}

static void read_file(struct recent *recent, const char *name)
{
	int file = openat(recent->directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	FILE *stream = file >= 0 ? fdopen(file, "r") : NULL;
	char *line = NULL;
	size_t room = 0;
	ssize_t size;

	if (!stream) {
		if (file >= 0)
			close(file);
		return;
	}
	while ((size = getline(&line, &room, stream)) > 0) {
		if (line[size - 1] == '\n')
			size--;
		if (is_whole(line, (size_t)size))
			put(&recent->denied, line, (size_t)size, ++recent->number);
	}
	free(line);
	fclose(stream);
}

static void say_once(struct recent *recent, int rc)
{
	if (!recent->said)
		log_say(recent->log, LOG_WARNING,
			"the last denials cannot be kept in the state directory (%s): a recreated container will not know them",
			strerror(-rc));
	recent->said = true;
}

/* Return: 0 or -errno. */
static int open_file(struct recent *recent)
{
	struct stat status;

	recent->file = openat(recent->directory, FILE_NAME, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (recent->file < 0 || fstat(recent->file, &status) != 0)
		return -errno;
	recent->file_size = status.st_size;
	return 0;
}

/* Begin another file. Return: 0 or -errno. */
static int turn(struct recent *recent)
{
	close(recent->file);
	recent->file = -1;
	if (renameat(recent->directory, FILE_NAME, recent->directory, FILE_BEFORE) != 0)
		return -errno;
	return open_file(recent);
}

static void on_made(void *context, const char *text, size_t size)
{
	const struct recent *recent = context;

	recent->making->text = strndup(text, size);
	recent->making->size = recent->making->text ? size : 0;
}

/* Return: the line, with its text; without one when there is no memory. */
static const struct line *made_line(struct recent *recent, struct ring *ring, size_t index)
{
	struct line *line = line_at(ring, index);

	if (!line->late)
		return line;
	ring->bytes -= line->size;
	recent->making = line;
	log_set_time(recent->lines, &line->late->moment);
	decision_write(recent->lines, &line->late->decision);
	ring->bytes += line->size;
	free(line->late);
	line->late = NULL;
	return line;
}

struct recent *recent_new(int directory, struct log *log)
{
	struct recent *recent = calloc(1, sizeof(*recent));
	int rc;

	if (!recent)
		return NULL;
	recent->log = log;
	recent->directory = directory;
	recent->file = -1;
	recent->lines = log_new_lines(on_made, recent, LOG_JSON);
	if (!recent->lines || !ring_open(&recent->denied, RECENT_DENIED_MAX) || !ring_open(&recent->allowed, RECENT_ALLOWED_MAX)) {
		recent_free(recent);
		return NULL;
	}
	if (directory < 0)
		return recent;
	read_file(recent, FILE_BEFORE);
	read_file(recent, FILE_NAME);
	recent->written = recent->number;
	rc = open_file(recent);
	if (rc != 0)
		say_once(recent, rc);
	return recent;
}

void recent_free(struct recent *recent)
{
	if (!recent)
		return;
	ring_free(&recent->denied);
	ring_free(&recent->allowed);
	log_free(recent->lines);
	if (recent->file >= 0)
		close(recent->file);
	free(recent);
}

void recent_add(struct recent *recent, bool denied, const char *json, size_t size)
{
	put(denied ? &recent->denied : &recent->allowed, json, size, ++recent->number);
}

/* Where one goes, another one has room. */
static struct late *take_late(struct ring *ring)
{
	struct line *oldest = ring->count == ring->room ? line_at(ring, 0) : NULL;
	struct late *late = oldest ? oldest->late : NULL;

	if (!late)
		return malloc(sizeof(*late));
	oldest->late = NULL;
	drop_oldest(ring);
	return late;
}

void recent_add_later(struct recent *recent, const struct decision *decision, const struct timespec *moment)
{
	struct late *late = take_late(&recent->allowed);

	if (!late)
		return;
	late->moment = *moment;
	late->decision = *decision;
	append_line(&recent->allowed, &(struct line){.late = late, .size = sizeof(*late), .number = ++recent->number});
}

/* All or nothing: half a line would spoil the next one. Return: 0 or -errno. */
static int append(struct recent *recent, const char *bytes, size_t size)
{
	ssize_t taken = write(recent->file, bytes, size);
	int rc = taken < 0 ? -errno : -ENOSPC;

	if (taken == (ssize_t)size) {
		recent->file_size += taken;
		return 0;
	}
	if (taken > 0 && ftruncate(recent->file, recent->file_size) != 0)
		recent->file_size += taken;
	return rc;
}

/* Return: the text of all lines that are not in the file, owned by the caller; NULL: none, or no memory. */
static char *collect(const struct recent *recent, size_t *size)
{
	const struct ring *ring = &recent->denied;
	size_t first = ring->count;
	char *text, *at;

	*size = 0;
	while (first > 0 && line_at(ring, first - 1)->number > recent->written)
		*size += line_at(ring, --first)->size + 1;
	text = at = *size > 0 ? malloc(*size) : NULL;
	for (size_t i = first; text && i < ring->count; i++) {
		const struct line *line = line_at(ring, i);

		memcpy(at, line->text, line->size);
		at += line->size;
		*at++ = '\n';
	}
	return text;
}

void recent_write(struct recent *recent)
{
	size_t size;
	char *text = recent->file >= 0 ? collect(recent, &size) : NULL;
	int rc;

	if (!text)
		return;
	rc = recent->file_size > RECENT_FILE_MAX ? turn(recent) : 0;
	if (rc == 0)
		rc = append(recent, text, size);
	/* What could not be written is not tried again: it would come out of order. */
	recent->written = recent->number;
	if (rc != 0)
		say_once(recent, rc);
	else
		recent->said = false;
	free(text);
}

void recent_each(struct recent *recent, size_t max, bool denied_only, void (*line)(void *context, const char *json, size_t size),
		 void *context)
{
	struct ring *denied = &recent->denied, *allowed = &recent->allowed;
	size_t d = denied->count, a = denied_only ? 0 : allowed->count, a_end = a;

	/* Back from the end, to where the last @max begin; then forth. */
	for (size_t left = max; left > 0 && (d > 0 || a > 0); left--) {
		if (a == 0 || (d > 0 && line_at(denied, d - 1)->number > line_at(allowed, a - 1)->number))
			d--;
		else
			a--;
	}
	while (d < denied->count || a < a_end) {
		bool next = a == a_end || (d < denied->count && line_at(denied, d)->number < line_at(allowed, a)->number);
		const struct line *one = next ? line_at(denied, d++) : made_line(recent, allowed, a++);

		if (one->text)
			line(context, one->text, one->size);
	}
}
