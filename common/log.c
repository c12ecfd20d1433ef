/* SPDX-License-Identifier: MIT */
/*
 * Log lines, text or JSON, written without ever blocking.
 *
 * Theory of operation
 *
 * A line is built in `line`, key by key, in the order in which they come. A finished line is appended to
 * `pending` and written as far as the descriptor takes it. Whatever goes wrong with the descriptor (a pipe nobody reads, a full disk, a
 * reader that went away) leaves the bytes where they are; they are tried again with the next line and by log_flush(). When `pending` is
 * full, lines are counted and dropped until half of it is free, then one line says how many.
 *
 * A pipe or terminal is shared with other processes, so it may not be made non-blocking: it is opened once more for ourselves. Where that
 * is refused, poll() comes first and no more than PIPE_BUF bytes are written, which a pipe that polls as writable takes.
 *
 * Values may come from an app. What could start a line, end a value or speak to a terminal is written as \xNN; text values that are not
 * plain are quoted.
 */
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE_MAX    32768               /* bytes of one line; a key that does not fit is left out */
#define LOG_VALUE_MAX   4000                /* bytes of one value as given; the rest is cut off */
#define LOG_ESCAPED_MAX (5 * LOG_VALUE_MAX) /* \\xNN for each octet, and one more as JSON */
#define LOG_SAY_MAX     4096

struct log_line {
	struct log *log;
	bool open;
	bool json;
	char escaped[LOG_ESCAPED_MAX]; /* the value at hand */
	char text[LOG_LINE_MAX];
	size_t size;
	time_t second; /* of the latest line ... */
	char time[32]; /* ... as text */
};

struct log {
	int fd;     /* the caller's */
	int own_fd; /* owned: non-blocking twin of fd, or -1 */
	bool socket;
	enum log_format format;
	size_t start, used;                                         /* of pending */
	uint64_t lost;                                              /* not told yet */
	uint64_t lost_all;                                          /* told ones included */
	struct timespec moment;                                     /* see log_set_time(); zeros: none */
	void (*take)(void *context, const char *line, size_t size); /* instead of a descriptor; NULL: there is one */
	void *context;
	char *pending; /* owned: LOG_PENDING_MAX octets; NULL with take() */
	struct log_line line;
};

/* A descriptor for the same pipe or terminal whose O_NONBLOCK is only ours. A file needs none, and would get an offset of its own. */
static int open_twin(int fd, const struct stat *status)
{
	char path[32];

	if (!S_ISFIFO(status->st_mode) && !S_ISCHR(status->st_mode))
		return -1;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

struct log *log_new_lines(void (*take)(void *context, const char *line, size_t size), void *context, enum log_format format)
{
	struct log *log = calloc(1, sizeof(*log));

	if (!log)
		return NULL;
	log->fd = log->own_fd = -1;
	log->take = take;
	log->context = context;
	log->format = format;
	return log;
}

struct log *log_new(int fd, enum log_format format)
{
	struct stat status;
	struct sigaction action;
	struct log *log = calloc(1, sizeof(*log));

	if (!log)
		return NULL;
	log->pending = malloc(LOG_PENDING_MAX);
	if (!log->pending) {
		free(log);
		return NULL;
	}
	log->fd = fd;
	log->own_fd = -1;
	log->format = format;
	if (fstat(fd, &status) == 0) {
		log->socket = S_ISSOCK(status.st_mode);
		log->own_fd = open_twin(fd, &status);
	}
	/* A reader that goes away may not end the program. */
	if (sigaction(SIGPIPE, NULL, &action) == 0 && !(action.sa_flags & SA_SIGINFO) && action.sa_handler == SIG_DFL)
		signal(SIGPIPE, SIG_IGN);
	return log;
}

void log_free(struct log *log)
{
	if (!log)
		return;
	log_flush(log);
	if (log->own_fd >= 0)
		close(log->own_fd);
	free(log->pending);
	free(log);
}

void log_set_format(struct log *log, enum log_format format)
{
	log->format = format;
}

void log_set_time(struct log *log, const struct timespec *moment)
{
	log->moment = moment ? *moment : (struct timespec){0};
}

/* Write without blocking. Return: bytes taken, or a negative number. */
static ssize_t write_some(const struct log *log, const char *bytes, size_t size)
{
	struct pollfd ready = {.fd = log->fd, .events = POLLOUT};

	if (log->socket)
		return send(log->fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (log->own_fd >= 0)
		return write(log->own_fd, bytes, size);
	if (poll(&ready, 1, 0) != 1 || !(ready.revents & POLLOUT))
		return -1;
	return write(log->fd, bytes, size < PIPE_BUF ? size : PIPE_BUF);
}

static void write_pending(struct log *log)
{
	while (log->used > 0) {
		ssize_t taken = write_some(log, log->pending + log->start, log->used);

		if (taken < 0 && errno == EINTR)
			continue;
		if (taken <= 0)
			return;
		log->start += (size_t)taken;
		log->used -= (size_t)taken;
	}
	log->start = 0;
}

static bool append_pending(struct log *log, const char *bytes, size_t size)
{
	if (size > LOG_PENDING_MAX - log->used)
		return false;
	if (log->start + log->used + size > LOG_PENDING_MAX) {
		memmove(log->pending, log->pending + log->start, log->used);
		log->start = 0;
	}
	memcpy(log->pending + log->start + log->used, bytes, size);
	log->used += size;
	return true;
}

/* Length of the UTF-8 sequence at @text that may be shown as it is; 0: the first octet has to be escaped. */
static size_t showable(const unsigned char *text, uint32_t *point)
{
	static const struct {
		unsigned char mask, lead;
		uint32_t least;
	} forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		bool surrogate;

		if ((text[0] & forms[i].mask) != forms[i].lead)
			continue;
		*point = text[0] & (unsigned char)~forms[i].mask;
		for (size_t j = 1; j <= i; j++) {
			if ((text[j] & 0xc0) != 0x80)
				return 0;
			*point = *point << 6 | (text[j] & 0x3f);
		}
		surrogate = *point >= 0xd800 && *point <= 0xdfff;
		return *point < forms[i].least || *point > 0x10ffff || surrogate ? 0 : i + 1;
	}
	return 0;
}

/* Control characters (C0, DEL, C1), and those that reorder or break a line on a screen. */
static bool is_control(uint32_t point)
{
	return point < 0x20 || (point >= 0x7f && point < 0xa0) || point == 0xad || (point >= 0x200b && point <= 0x200f) ||
	       (point >= 0x2028 && point <= 0x202e) || (point >= 0x2060 && point <= 0x206f) || point == 0xfeff ||
	       (point >= 0xfff9 && point <= 0xfffb) || (point >= 0xe0000 && point <= 0xe007f);
}

size_t log_showable(const char *text)
{
	uint32_t point = 0;
	size_t length = showable((const unsigned char *)text, &point);

	return is_control(point) ? 0 : length;
}

/* An octet that stands for itself in both forms, and needs no quotes. */
static bool is_plain(unsigned char octet)
{
	return octet > ' ' && octet < 0x7f && octet != '"' && octet != '\\' && octet != '=';
}

/* Octets that may not be shown, as \xNN. A backslash is one of JSON's own signs. */
static char *escape_octets(const struct log_line *line, const unsigned char *at, size_t count, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < count; i++) {
		if (line->json)
			*out++ = '\\';
		*out++ = '\\';
		*out++ = 'x';
		*out++ = digits[at[i] >> 4];
		*out++ = digits[at[i] & 0xf];
	}
	return out;
}

/* Write @value into line->escaped. @size: set to its length. Return: may the value stand without quotes? */
static bool escape_value(struct log_line *line, const char *value, size_t *size)
{
	const unsigned char *at = (const unsigned char *)value, *end = at + strnlen(value, LOG_VALUE_MAX - 4);
	char *out = line->escaped;
	bool plain = strcmp(value, "-") != 0;

	while (at < end) {
		uint32_t point = 0;
		size_t length;

		if (is_plain(*at)) {
			*out++ = (char)*at++;
			continue;
		}
		plain = false;
		length = showable(at, &point);
		if (length == 0 || is_control(point)) {
			/* All octets of a control character, or the one that is no UTF-8. */
			length = length ? length : 1;
			out = escape_octets(line, at, length, out);
		} else {
			if (point == '"' || point == '\\')
				*out++ = '\\';
			memcpy(out, at, length);
			out += length;
		}
		at += length;
	}
	*size = (size_t)(out - line->escaped);
	return plain;
}

static char *put(char *at, const char *bytes, size_t size)
{
	memcpy(at, bytes, size);
	return at + size;
}

/* Append a key and its value, all or nothing: room is left for what ends the line. */
static void line_append(struct log_line *line, const char *key, const char *value, size_t size, bool quoted)
{
	static const char ends[] = "}\n";
	size_t key_size = strlen(key);
	char *at = line->text + line->size;

	if (line->size + key_size + size + sizeof("\"\":,\"\"") + sizeof(ends) > sizeof(line->text))
		return;
	if (line->json) {
		at = put(at, line->size ? ",\"" : "{\"", 2);
		at = put(put(at, key, key_size), "\":", 2);
	} else {
		at = put(at, " ", line->size ? 1 : 0);
		at = put(put(at, key, key_size), "=", 1);
	}
	at = put(at, "\"", quoted);
	at = put(at, value, size);
	at = put(at, "\"", quoted);
	line->size = (size_t)(at - line->text);
}

static void line_value(struct log_line *line, const char *key, const char *value)
{
	size_t size;
	bool plain;

	if (!value || !value[0]) {
		line_append(line, key, line->json ? "null" : "-", line->json ? 4 : 1, false);
		return;
	}
	plain = escape_value(line, value, &size);
	line_append(line, key, line->escaped, size, line->json || !plain);
}

static void line_time(struct log_line *line)
{
	struct timespec now;
	struct tm utc;
	char *end;

	now = line->log->moment;
	if (!now.tv_sec)
		clock_gettime(CLOCK_REALTIME, &now);
	if (now.tv_sec != line->second || !line->time[0]) {
		gmtime_r(&now.tv_sec, &utc);
		strftime(line->time, sizeof(line->time), "%Y-%m-%dT%H:%M:%S.000Z", &utc);
		line->second = now.tv_sec;
	}
	end = strchr(line->time, 'Z');
	for (long rest = now.tv_nsec / 1000000, i = 1; i <= 3; i++, rest /= 10)
		end[-i] = (char)('0' + rest % 10);
	line_value(line, "ts", line->time);
}

/* Finish the text of the line, with its newline. Return: its size. */
static size_t line_finish(struct log_line *line)
{
	line->open = false;
	if (line->json)
		line->text[line->size++] = '}';
	line->text[line->size++] = '\n';
	return line->size;
}

static struct log_line *line_begin(struct log *log, const char *event)
{
	struct log_line *line = &log->line;

	line->log = log;
	line->open = true;
	line->size = 0;
	line->json = log->format == LOG_JSON;
	line_time(line);
	line_value(line, "event", event);
	return line;
}

/* Say how many lines were lost, once there is room. */
static void report_lost(struct log *log)
{
	struct log_line *line;

	if (log->used > LOG_PENDING_MAX / 2)
		return;
	line = line_begin(log, "log-lost");
	log_number(line, "count", log->lost);
	if (append_pending(log, line->text, line_finish(line)))
		log->lost = 0;
}

void log_flush(struct log *log)
{
	write_pending(log);
	if (log->lost > 0 && !log->line.open) {
		report_lost(log);
		write_pending(log);
	}
}

struct log_line *log_event(struct log *log, const char *event)
{
	struct log_line *line = &log->line;

	assert(!line->open);
	if (log->lost > 0)
		log_flush(log); /* what was lost is told before this line */
	return line_begin(log, event);
}

void log_text(struct log_line *line, const char *key, const char *value)
{
	line_value(line, key, value);
}

void log_number(struct log_line *line, const char *key, uint64_t value)
{
	char text[24], *at = text + sizeof(text);

	if (line->json && value > INT64_MAX)
		value = INT64_MAX; /* more is no integer to many who read JSON */
	do
		*--at = (char)('0' + value % 10);
	while (value /= 10);
	line_append(line, key, at, (size_t)(text + sizeof(text) - at), false);
}

void log_address(struct log_line *line, const char *key, const struct address *address)
{
	char text[ADDRESS_TEXT_MAX];

	line_value(line, key, address && address->family ? address_format(address, text) : NULL);
}

/* @line: with its newline. */
static void take_line(struct log *log, const char *line, size_t size)
{
	if (size == 0 || log->lost > 0 || !append_pending(log, line, size)) {
		log->lost++;
		log->lost_all++;
	}
	log_flush(log);
}

void log_end(struct log_line *line)
{
	struct log *log = line->log;
	size_t size = line_finish(line);

	if (!log->take) {
		take_line(log, line->text, size);
		return;
	}
	line->text[size - 1] = '\0';
	log->take(log->context, line->text, size - 1);
}

enum log_format log_format(const struct log *log)
{
	return log->format;
}

void log_copy(struct log *log, const char *line, size_t size)
{
	char *text = log->line.text;

	assert(!log->line.open && !log->take);
	if (log->lost > 0)
		log_flush(log);
	if (size >= sizeof(log->line.text))
		size = 0;
	memcpy(text, line, size);
	if (size > 0)
		text[size++] = '\n';
	take_line(log, text, size);
}

uint64_t log_lost(const struct log *log)
{
	return log->lost_all;
}

void log_say(struct log *log, enum log_level level, const char *format, ...)
{
	static const char *const names[] = {[LOG_INFO] = "info", [LOG_WARNING] = "warning", [LOG_ERROR] = "error"};
	char text[LOG_SAY_MAX];
	va_list arguments;
	struct log_line *line;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	line = log_event(log, "message");
	log_text(line, "level", names[level]);
	log_text(line, "text", text);
	log_end(line);
}
