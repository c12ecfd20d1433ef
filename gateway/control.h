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

#endif
