/* SPDX-License-Identifier: MIT */
/*
 * The daemon's side; the client's is control_client.c.
 *
 * Theory of operation: one connection is one request. The server reads until the first newline (at most CONTROL_LINE_MAX octets), calls the
 * handler, writes the answer and closes. Connections are few and local; with more than CONTROL_CONNECTIONS_MAX the oldest is closed,
 * and so is one that has not been answered after CONTROL_IDLE_MS.
 *
 * A connection that is followed stays: each line is a write of its own, libuv keeps what the client does not take yet. Such a client is
 * never the oldest while there are others, so that one who watches is not thrown out by one who asks.
 */
#include "gateway/control.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "resolver/acceptor.h"

#define CONTROL_CONNECTIONS_MAX 16
#define CONTROL_IDLE_MS         5000
#define CONTROL_BACKLOG         16

struct control {
	uv_loop_t *loop;
	struct acceptor *acceptor; /* owned */
	control_handle handle;
	void *context;
	struct connection *connections; /* list */
	unsigned int count;
	char *path; /* owned */
};

/* A client that follows. Part of its connection. */
struct control_stream {
	struct control_follower follower;
	bool follows;
	bool finished; /* to be closed when nothing waits */
	uint64_t lost; /* lines, not told yet */
};

struct connection {
	uv_pipe_t pipe;
	uv_timer_t idle;
	struct control *control;
	struct connection *next, **previous; /* in control->connections */
	struct control_stream stream;
	size_t size; /* octets of the request so far */
	unsigned int open_handles;
	bool answered; /* what else the client sends is ignored; when it ends, so does what follows */
	bool closing;
	char request[CONTROL_LINE_MAX];
};

const char *control_path(void)
{
	const char *path = getenv(CONTROL_ENVIRONMENT);

	return path != NULL && path[0] != '\0' ? path : CONTROL_PATH;
}

static void on_connection_closed(uv_handle_t *handle)
{
	struct connection *connection = handle->data;

	if (--connection->open_handles == 0)
		free(connection);
}

static void connection_close(struct connection *connection)
{
	if (connection->closing)
		return;
	connection->closing = true;
	*connection->previous = connection->next;
	if (connection->next != NULL)
		connection->next->previous = connection->previous;
	connection->control->count--;
	if (connection->stream.follows)
		connection->stream.follower.ended(connection->stream.follower.context);
	uv_close((uv_handle_t *)&connection->pipe, on_connection_closed);
	uv_close((uv_handle_t *)&connection->idle, on_connection_closed);
}

static void on_idle(uv_timer_t *timer)
{
	connection_close(timer->data);
}

/* One line on its way. */
struct writing {
	uv_write_t write;
	struct connection *connection;
	char *text; /* owned */
};

static void tell_lost(struct connection *connection);

static bool is_done(const struct connection *connection)
{
	return uv_stream_get_write_queue_size((const uv_stream_t *)&connection->pipe) == 0 &&
	       (!connection->stream.follows || connection->stream.finished);
}

static void on_written(uv_write_t *write, int status)
{
	struct writing *writing = write->data;
	struct connection *connection = writing->connection;

	free(writing->text);
	free(writing);
	if (connection->closing)
		return;
	if (status == 0)
		tell_lost(connection);
	if (status != 0 || is_done(connection))
		connection_close(connection);
}

/* Not at once: whoever sends is not told in the middle of it that the stream is gone. */
static void close_soon(struct connection *connection)
{
	uv_timer_start(&connection->idle, on_idle, 0, 0);
}

/* Takes over @text, with its newline. */
static void write_text(struct connection *connection, char *text, size_t size)
{
	struct writing *writing = text != NULL ? malloc(sizeof(*writing)) : NULL;
	uv_buf_t buffer = uv_buf_init(text, (unsigned int)size);

	if (writing == NULL) {
		free(text);
		close_soon(connection);
		return;
	}
	*writing = (struct writing){.connection = connection, .text = text};
	writing->write.data = writing;
	if (uv_write(&writing->write, (uv_stream_t *)&connection->pipe, &buffer, 1, on_written) == 0)
		return;
	free(text);
	free(writing);
	close_soon(connection);
}

static char *with_newline(const char *line, size_t size)
{
	char *text = malloc(size + 1);

	if (text == NULL)
		return NULL;
	memcpy(text, line, size);
	text[size] = '\n';
	return text;
}

static void write_line(struct connection *connection, const char *line, size_t size)
{
	write_text(connection, with_newline(line, size), size + 1);
}

/* Takes over the reference to @answer. */
static void send_answer(struct connection *connection, json_t *answer)
{
	char *text = json_dumps(answer, JSON_COMPACT);

	json_decref(answer);
	if (text == NULL) {
		close_soon(connection);
		return;
	}
	write_line(connection, text, strlen(text));
	free(text);
}

static struct connection *connection_of(struct control_stream *stream)
{
	return (struct connection *)((char *)stream - offsetof(struct connection, stream));
}

void control_follow(struct control_stream *stream, const struct control_follower *follower)
{
	stream->follower = *follower;
	stream->follows = true;
}

static bool has_room(const struct connection *connection, size_t size)
{
	return uv_stream_get_write_queue_size((const uv_stream_t *)&connection->pipe) + size < CONTROL_STREAM_MAX;
}

/* Once half of the room is there again. */
static void tell_lost(struct connection *connection)
{
	char line[64];
	int size;

	if (connection->stream.lost == 0 || !has_room(connection, CONTROL_STREAM_MAX / 2))
		return;
	size = snprintf(line, sizeof(line), "{\"event\":\"log-lost\",\"count\":%llu}", (unsigned long long)connection->stream.lost);
	connection->stream.lost = 0;
	write_line(connection, line, (size_t)size);
}

void control_send(struct control_stream *stream, const char *line, size_t size)
{
	struct connection *connection = connection_of(stream);

	if (connection->closing)
		return;
	if (stream->lost > 0 || !has_room(connection, size))
		stream->lost++;
	else
		write_line(connection, line, size);
}

void control_finish(struct control_stream *stream)
{
	stream->finished = true;
}

static json_t *refusal(const char *text)
{
	return json_pack("{s:b, s:s}", "ok", 0, "error", text);
}

static void answer_request(struct connection *connection, size_t size)
{
	const struct control *control = connection->control;
	json_t *request = json_loadb(connection->request, size, 0, NULL);
	const char *command = json_string_value(json_object_get(request, "command"));
	json_t *answer = NULL;

	connection->answered = true;
	if (command != NULL)
		answer = control->handle(control->context, command, request, &connection->stream);
	if (answer == NULL)
		answer = refusal(command != NULL ? "unknown command: the client and the daemon are of different versions"
						 : "the request is not a JSON object with \"command\"");
	json_decref(request);
	if (connection->stream.follows)
		uv_timer_stop(&connection->idle);
	else
		uv_read_stop((uv_stream_t *)&connection->pipe);
	send_answer(connection, answer);
	if (connection->stream.follows && !connection->closing)
		connection->stream.follower.begin(connection->stream.follower.context, &connection->stream);
}

static void on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
	struct connection *connection = handle->data;

	(void)suggested;
	if (connection->answered)
		connection->size = 0;
	*buffer = uv_buf_init(connection->request + connection->size, (unsigned int)(sizeof(connection->request) - connection->size));
}

static void on_read(uv_stream_t *stream, ssize_t taken, const uv_buf_t *buffer)
{
	struct connection *connection = stream->data;
	const char *end;

	(void)buffer;
	if (connection->closing || taken == 0)
		return;
	if (taken < 0) { /* also UV_ENOBUFS: the line is too long */
		connection_close(connection);
		return;
	}
	if (connection->answered)
		return;
	connection->size += (size_t)taken;
	end = memchr(connection->request, '\n', connection->size);
	if (end != NULL)
		answer_request(connection, (size_t)(end - connection->request));
}

/* Silent clients may not lock out others. */
static void close_oldest(struct control *control)
{
	struct connection *oldest = NULL;

	for (struct connection *one = control->connections; one != NULL; one = one->next) {
		if (oldest == NULL || oldest->stream.follows || !one->stream.follows)
			oldest = one;
	}
	if (oldest != NULL)
		connection_close(oldest);
}

static void on_connection(void *context, int fd)
{
	struct control *control = context;
	struct connection *connection = calloc(1, sizeof(*connection));

	if (connection == NULL) {
		close(fd);
		return;
	}
	connection->control = control;
	connection->open_handles = 2;
	uv_pipe_init(control->loop, &connection->pipe, 0);
	uv_timer_init(control->loop, &connection->idle);
	connection->pipe.data = connection->idle.data = connection;
	connection->next = control->connections;
	connection->previous = &control->connections;
	if (connection->next != NULL)
		connection->next->previous = &connection->next;
	control->connections = connection;
	control->count++;
	uv_timer_start(&connection->idle, on_idle, CONTROL_IDLE_MS, 0);
	if (control->count > CONTROL_CONNECTIONS_MAX)
		close_oldest(control);
	if (uv_pipe_open(&connection->pipe, fd) != 0) {
		close(fd);
		connection_close(connection);
	} else if (uv_read_start((uv_stream_t *)&connection->pipe, on_allocate, on_read) != 0) {
		connection_close(connection);
	}
}

/* A socket file is left behind when the process is killed; anything else at that path is not ours to remove. */
static void remove_stale(const char *path)
{
	struct stat status;

	if (lstat(path, &status) == 0 && S_ISSOCK(status.st_mode))
		unlink(path);
}

static void release(struct control *control)
{
	free(control->path);
	free(control);
}

/* Return: a socket that listens, or -errno. */
static int open_socket(const char *path)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	int fd, error;
	mode_t mask;

	if (strlen(path) >= sizeof(name.sun_path))
		return -ENAMETOOLONG;
	strcpy(name.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	remove_stale(path);
	mask = umask(0177);
	error = bind(fd, (const struct sockaddr *)&name, sizeof(name)) == 0 && listen(fd, CONTROL_BACKLOG) == 0 ? 0 : -errno;
	umask(mask);
	if (error == 0)
		return fd;
	close(fd);
	return error;
}

int control_new(uv_loop_t *loop, const char *path, control_handle handle, void *context, struct control **out)
{
	struct control *control = calloc(1, sizeof(*control));
	int rc;

	*out = NULL;
	if (control == NULL)
		return -ENOMEM;
	control->loop = loop;
	control->handle = handle;
	control->context = context;
	control->path = strdup(path);
	rc = control->path != NULL ? open_socket(path) : -ENOMEM;
	if (rc >= 0)
		rc = acceptor_new(loop, rc, on_connection, control, &control->acceptor);
	if (rc != 0) {
		release(control);
		return rc;
	}
	*out = control;
	return 0;
}

void control_close(struct control *control)
{
	if (control == NULL)
		return;
	while (control->connections != NULL)
		connection_close(control->connections);
	acceptor_close(control->acceptor);
	unlink(control->path);
	release(control);
}
