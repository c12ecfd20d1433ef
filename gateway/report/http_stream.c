/* SPDX-License-Identifier: MIT */
/*
 * Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html
 *
 * Theory of operation: a decision's line is put into the backlog of each stream. libmicrohttpd takes from there as the client reads; when
 * nothing is left the connection is suspended, and the next line wakes it. A client that does not read fills first the kernel's buffer,
 * then its backlog; then it loses lines and is told how many. One that is gone is noticed by the next sign of life, or when there is no
 * room for another stream.
 */
#include "gateway/report/http_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#define BLOCK 4096 /* octets that are taken at once */

static void wake(struct http_stream *stream)
{
	if (!stream->suspended)
		return;
	stream->suspended = false;
	MHD_resume_connection(stream->connection);
	http_wake(stream->listener);
}

static void on_line(void *context, bool denied, const char *json, size_t size)
{
	struct http_stream *stream = context;

	(void)denied;
	if (stream->ending)
		return;
	backlog_add(&stream->backlog, json, size);
	wake(stream);
}

static ssize_t read_stream(void *context, uint64_t position, char *out, size_t max)
{
	struct http_stream *stream = context;
	size_t taken = backlog_take(&stream->backlog, out, max);

	(void)position;
	if (taken > 0)
		return (ssize_t)taken;
	if (stream->ending)
		return MHD_CONTENT_READER_END_OF_STREAM;
	stream->suspended = true;
	MHD_suspend_connection(stream->connection);
	return 0;
}

static void free_stream(void *context)
{
	struct http_stream *stream = context;

	reports_unlisten(&stream->hears);
	*stream->previous = stream->next;
	if (stream->next != NULL)
		stream->next->previous = stream->previous;
	if (!stream->ending)
		stream->listener->http->stream_count--;
	backlog_close(&stream->backlog);
	free(stream);
}

void http_stream_end(struct http_stream *stream)
{
	if (!stream->ending)
		stream->listener->http->stream_count--;
	stream->ending = true;
	wake(stream);
}

static bool is_gone(const struct http_stream *stream)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(stream->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	char octet;

	return info != NULL && recv(info->connect_fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* A page that is loaded again leaves a stream behind. */
static void end_gone(struct http *http)
{
	for (struct http_stream *stream = http->streams; stream != NULL; stream = stream->next) {
		if (is_gone(stream))
			http_stream_end(stream);
	}
}

static void insert(struct http *http, struct http_stream *stream)
{
	stream->next = http->streams;
	stream->previous = &http->streams;
	if (stream->next != NULL)
		stream->next->previous = &stream->next;
	http->streams = stream;
	http->stream_count++;
}

struct MHD_Response *http_stream_new(struct http_listener *listener, struct MHD_Connection *connection)
{
	struct http *http = listener->http;
	struct http_stream *stream;
	struct MHD_Response *response;

	if (http->stream_count == HTTP_STREAMS_MAX)
		end_gone(http);
	if (http->stream_count == HTTP_STREAMS_MAX || (stream = calloc(1, sizeof(*stream))) == NULL)
		return NULL;
	stream->listener = listener;
	stream->connection = connection;
	stream->hears = (struct reports_listener){.line = on_line, .context = stream};
	insert(http, stream);
	if (backlog_open(&stream->backlog, HTTP_STREAM_BYTES, "data: ", "\n\n") != 0 ||
	    (response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, read_stream, stream, free_stream)) == NULL) {
		free_stream(stream);
		return NULL;
	}
	(void)backlog_add_plain(&stream->backlog, "retry: 3000\n\n");
	MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, HTTP_STREAM_IDLE);
	reports_listen(http->host.reports, &stream->hears);
	return response;
}

void http_stream_keep_alive(struct http *http)
{
	for (struct http_stream *stream = http->streams; stream != NULL; stream = stream->next) {
		if (stream->suspended && backlog_add_plain(&stream->backlog, ":\n\n"))
			wake(stream);
	}
}
