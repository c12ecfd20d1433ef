/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_CONTROL_H
#define SLUICE_GATEWAY_CONTROL_H

/*
 * The Unix socket behind the client commands. Protocol, version 1 (docs/control-protocol.md): the client sends one line, a JSON object with
 * "command"; the daemon answers with one line, a JSON object with "ok" and, when false, "error"; then it closes. jansson reads and writes.
 */

#include <jansson.h>
#include <uv.h>

#define CONTROL_PATH        "/run/sluice/control.sock"
#define CONTROL_ENVIRONMENT "SLUICE_CONTROL" /* another path, for tests and several gateways on a host */
#define CONTROL_LINE_MAX    65536

/* Answer a command. Return: a new reference; NULL: unknown command. */
typedef json_t *(*control_handle)(void *context, const char *command, const json_t *request);

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
