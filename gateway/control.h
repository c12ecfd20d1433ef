/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_CONTROL_H
#define SLUICE_GATEWAY_CONTROL_H

/*
 * The Unix socket behind the client commands. Protocol, version 1 (docs/control-protocol.md): the client sends one line, a JSON object with
 * "command"; the daemon answers with one line, a JSON object with "ok" and, when false, "error"; then it closes, or, where the command says
 * so, sends further lines. jansson reads and writes.
 */

#include <jansson.h>
#include <uv.h>

#define CONTROL_PATH        "/run/sluice/control.sock"
#define CONTROL_ENVIRONMENT "SLUICE_CONTROL" /* another path, for tests and several gateways on a host */
#define CONTROL_LINE_MAX    65536

#define CONTROL_STREAM_MAX (1024 * 1024) /* octets that wait for a client which follows; what does not fit is dropped, and told */

struct control_stream; /* control.c: a client that gets more than the answer */

/*
 * Answer a command. To send more lines than the answer, call control_follow() and keep the stream until its ended() is called.
 * Return: a new reference; NULL: unknown command.
 */
typedef json_t *(*control_handle)(void *context, const char *command, const json_t *request, struct control_stream *stream);

/* What somebody who sends further lines is told. */
struct control_follower {
	void (*begin)(void *context, struct control_stream *stream); /* the answer is on its way: lines may follow */
	void (*ended)(void *context);                                /* called once, whoever ends it; the stream is gone then */
	void *context;
};

/** control_follow() - The connection stays open after the answer. @follower: copied. */
void control_follow(struct control_stream *stream, const struct control_follower *follower);

/**
 * control_send() - A line for a client that follows, without newline; copied
 *
 * What the client does not read is dropped when CONTROL_STREAM_MAX octets wait; as soon as there is room a line
 * {"event":"log-lost","count":N} tells how many.
 */
void control_send(struct control_stream *stream, const char *line, size_t size);

/** control_finish() - No further line follows: the connection is closed when all has been written. */
void control_finish(struct control_stream *stream);

struct control;

/** control_new() - Listen, mode 0600; a stale socket file is replaced. Return: 0 or -errno. */
int control_new(uv_loop_t *loop, const char *path, control_handle handle, void *context, struct control **out);
void control_close(struct control *control);

/** control_path() - SLUICE_CONTROL or CONTROL_PATH. */
const char *control_path(void);

/** control_call() - Client side, blocking, at most five seconds. Return: the answer (new reference), or NULL with @error: one line that
 * says what to do. */
json_t *control_call(const char *path, json_t *request, char *error, size_t error_size);

/* Client side of a command whose answer goes on: after {"ok": true}, one JSON object in each line. */
struct control_reader; /* control_client.c */

/**
 * control_reader_open() - Ask, and wait for the first line of the answer, at most five seconds
 * Return: NULL with @error, one line that says what to do; so too when the daemon says no.
 */
struct control_reader *control_reader_open(const char *path, const json_t *request, char *error, size_t error_size);
void control_reader_close(struct control_reader *stream);

/** control_reader_fd() - To wait for; the stream's own. */
int control_reader_fd(const struct control_reader *stream);

/**
 * control_reader_read() - The next line, without waiting
 * @line:	without newline, NUL behind it, valid until the next call
 * Return: 1; 0: there is none now, poll the descriptor; -ENODATA: the daemon has ended it; another -errno.
 */
int control_reader_read(struct control_reader *stream, const char **line, size_t *size);

/** control_reader_next() - The same, but waits, at most five seconds. Return: never 0; -EAGAIN: nothing came in time. */
int control_reader_next(struct control_reader *stream, const char **line, size_t *size);

#endif
