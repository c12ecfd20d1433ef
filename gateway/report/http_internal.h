/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_HTTP_INTERNAL_H
#define SLUICE_GATEWAY_REPORT_HTTP_INTERNAL_H

/* Between the http*.c files. */

#include <microhttpd.h>

#include "gateway/report/backlog.h"
#include "gateway/report/http.h"
#include "resolver/acceptor.h"

/* A client that wants every decision from now on. */
struct http_stream {
	struct http_listener *listener;
	struct MHD_Connection *connection;
	struct reports_listener hears;
	struct backlog backlog;
	bool suspended; /* libmicrohttpd waits for http_stream_wake() */
	bool ending;
	struct http_stream *next, **previous; /* in http->streams */
};

/* One address, open or not. */
struct http_listener {
	struct http *http;
	struct http_address address;
	struct MHD_Daemon *daemon; /* owned; NULL: not open */
	struct acceptor *acceptor; /* owned; as long as the daemon */
	uv_poll_t poll;            /* on the daemon's epoll descriptor; these two: while it is open */
	uv_timer_t timer;
	unsigned int open_handles;
	int said; /* -errno that was told; 0: none */
	bool closing;
	struct http_listener *next; /* in http->listeners */
};

/* How long answers may be made while questions and packets wait. A zeroed one is full. */
struct http_budget {
	uint64_t spent, at; /* nanoseconds */
};

struct http {
	uv_loop_t *loop;
	struct log *log;
	struct http_host host;
	struct http_listener *listeners; /* list, owned */
	size_t listener_count;           /* those included whose handles are being closed */
	struct http_stream *streams;     /* list */
	size_t stream_count;             /* those that end not included */
	size_t body_bytes;               /* of answers on their way */
	struct http_budget budget;
	uv_timer_t keep_alive;
	bool closing, closed;
};

/** http_host_is_local() - May a page be shown under this Host header? An address, localhost, or a name without a dot: no name that somebody
 * else's DNS server could point at us (DNS rebinding). */
bool http_host_is_local(const char *host);

/** http_budget_left() - Is there any? @now: nanoseconds of a clock that only goes forward. */
bool http_budget_left(struct http_budget *budget, uint64_t now);
void http_budget_spend(struct http_budget *budget, uint64_t nanoseconds);

/** http_answer() - The MHD_AccessHandlerCallback. @context: a struct http_listener. */
enum MHD_Result http_answer(void *context, struct MHD_Connection *connection, const char *url, const char *method, const char *version,
			    const char *upload, size_t *upload_size, void **state);

/** http_wake() - Let the listener's daemon look at its connections soon. */
void http_wake(struct http_listener *listener);

/** http_stream_new() - Return: the response that the stream's events make up and that owns the stream, or NULL: there are too many. */
struct MHD_Response *http_stream_new(struct http_listener *listener, struct MHD_Connection *connection);

/** http_stream_end() - The end comes when the client has read what waits for it. */
void http_stream_end(struct http_stream *stream);

/** http_stream_keep_alive() - A sign of life to those that have nothing to read. */
void http_stream_keep_alive(struct http *http);

#endif
