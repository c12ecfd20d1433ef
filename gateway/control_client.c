/* SPDX-License-Identifier: MIT */
/* The client's side of the control socket: one answer, or a stream of lines. control.c is the daemon's. */
#include "gateway/control.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define CALL_SECONDS 5
#define READ_SIZE    (64 * 1024)
#define ANSWER_MAX   (64 * 1024 * 1024) /* octets: more than the statistics of all rows there can be */

struct control_reader {
	int fd;           /* owned */
	char *buffer;     /* owned */
	size_t size;      /* of the buffer */
	size_t start;     /* of what was not handed out yet ... */
	size_t used;      /* ... and where it ends */
	size_t looked_at; /* no newline before this place */
};

static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval timeout = {.tv_sec = CALL_SECONDS};
	int fd;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
		int rc = -errno;

		close(fd);
		return rc;
	}
	return fd;
}

static int send_line(int fd, const json_t *request)
{
	char *line = json_dumps(request, JSON_COMPACT);
	size_t size, sent = 0;
	int rc = 0;

	if (line == NULL)
		return -ENOMEM;
	size = strlen(line);
	line[size++] = '\n'; /* in the place of NUL */
	while (rc == 0 && sent < size) {
		ssize_t more = send(fd, line + sent, size - sent, MSG_NOSIGNAL);

		if (more >= 0)
			sent += (size_t)more;
		else if (errno != EINTR)
			rc = -errno;
	}
	free(line);
	return rc;
}

static void explain_failure(int rc, const char *path, char *error, size_t size)
{
	if (rc == -ENOENT || rc == -ECONNREFUSED)
		snprintf(error, size, "%s: no daemon listens there; is `sluice run` up? (%s names another socket)", path,
			 CONTROL_ENVIRONMENT);
	else if (rc == -EAGAIN)
		snprintf(error, size, "%s: the daemon did not answer within %d s", path, CALL_SECONDS);
	else if (rc == -ENODATA)
		snprintf(error, size, "%s: the daemon closed the connection without an answer", path);
	else
		snprintf(error, size, "%s: %s", path, strerror(-rc));
}

/* Room for READ_SIZE more octets and a NUL. What was handed out goes. */
static int make_room(struct control_reader *stream)
{
	size_t wanted = stream->used - stream->start + READ_SIZE + 1;
	char *larger;

	if (stream->start > 0) {
		memmove(stream->buffer, stream->buffer + stream->start, stream->used - stream->start);
		stream->used -= stream->start;
		stream->looked_at -= stream->start;
		stream->start = 0;
	}
	if (wanted <= stream->size)
		return 0;
	if (wanted > ANSWER_MAX)
		return -EMSGSIZE;
	wanted *= 2;
	larger = realloc(stream->buffer, wanted);
	if (larger == NULL)
		return -ENOMEM;
	stream->buffer = larger;
	stream->size = wanted;
	return 0;
}

static bool take_line(struct control_reader *stream, const char **line, size_t *size)
{
	char *end = stream->looked_at < stream->used ? memchr(stream->buffer + stream->looked_at, '\n', stream->used - stream->looked_at)
						     : NULL;

	if (end == NULL) {
		stream->looked_at = stream->used;
		return false;
	}
	*end = '\0';
	*line = stream->buffer + stream->start;
	*size = (size_t)(end - *line);
	stream->start = stream->looked_at = (size_t)(end - stream->buffer) + 1;
	return true;
}

/* @flags: of recv(). Return: 1 or -errno; -EAGAIN: nothing came. */
static int read_line(struct control_reader *stream, int flags, const char **line, size_t *size)
{
	while (!take_line(stream, line, size)) {
		ssize_t more;
		int rc = make_room(stream);

		if (rc != 0)
			return rc;
		more = recv(stream->fd, stream->buffer + stream->used, READ_SIZE, flags);
		if (more == 0)
			return -ENODATA;
		if (more < 0 && errno != EINTR)
			return -errno;
		stream->used += more > 0 ? (size_t)more : 0;
	}
	return 1;
}

/* The first line of the answer. Return: NULL with @error. */
static json_t *read_answer(struct control_reader *stream, const char *path, char *error, size_t error_size)
{
	const char *line;
	size_t size;
	json_t *answer;
	int rc = read_line(stream, 0, &line, &size);

	if (rc < 0) {
		explain_failure(rc, path, error, error_size);
		return NULL;
	}
	answer = json_loadb(line, size, 0, NULL);
	if (answer == NULL)
		snprintf(error, error_size, "%s: the daemon's answer is not understood", path);
	return answer;
}

static struct control_reader *ask(const char *path, const json_t *request, char *error, size_t error_size)
{
	struct control_reader *stream = calloc(1, sizeof(*stream));
	int rc;

	if (stream == NULL) {
		snprintf(error, error_size, "out of memory");
		return NULL;
	}
	stream->fd = connect_to(path);
	rc = stream->fd < 0 ? stream->fd : send_line(stream->fd, request);
	if (rc == 0)
		return stream;
	explain_failure(rc, path, error, error_size);
	control_reader_close(stream);
	return NULL;
}

json_t *control_call(const char *path, json_t *request, char *error, size_t error_size)
{
	struct control_reader *stream = ask(path, request, error, error_size);
	json_t *answer = stream != NULL ? read_answer(stream, path, error, error_size) : NULL;

	control_reader_close(stream);
	return answer;
}

struct control_reader *control_reader_open(const char *path, const json_t *request, char *error, size_t error_size)
{
	struct control_reader *stream = ask(path, request, error, error_size);
	json_t *answer = stream != NULL ? read_answer(stream, path, error, error_size) : NULL;
	const char *refusal = json_string_value(json_object_get(answer, "error"));
	bool ok = json_is_true(json_object_get(answer, "ok"));

	if (answer != NULL && !ok)
		snprintf(error, error_size, "%s", refusal != NULL ? refusal : "the daemon says no");
	json_decref(answer);
	if (ok)
		return stream;
	control_reader_close(stream);
	return NULL;
}

void control_reader_close(struct control_reader *stream)
{
	if (stream == NULL)
		return;
	if (stream->fd >= 0)
		close(stream->fd);
	free(stream->buffer);
	free(stream);
}

int control_reader_fd(const struct control_reader *stream)
{
	return stream->fd;
}

int control_reader_read(struct control_reader *stream, const char **line, size_t *size)
{
	int rc = read_line(stream, MSG_DONTWAIT, line, size);

	return rc == -EAGAIN ? 0 : rc;
}

int control_reader_next(struct control_reader *stream, const char **line, size_t *size)
{
	return read_line(stream, 0, line, size);
}
