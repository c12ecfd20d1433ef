/* SPDX-License-Identifier: MIT */
/*
 * libmicrohttpd in the worker's loop: no thread, no blocking call.
 *
 * Theory of operation: each address has a daemon of its own, with a socket that is opened here, so that what is wrong with an address has a
 * name; and connections are accepted here (acceptor.h), since a daemon without descriptors for them tries for ever. The loop watches the
 * daemon's epoll descriptor and runs the daemon when that is readable, when one of its time-outs is due, and when a stream has something to
 * send (http_wake()). Requests are answered by http_answer.c, streams of events by http_stream.c.
 */
#include "gateway/report/http_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 16 /* connections that the kernel holds for us */

static void release(struct http *http)
{
	if (http->closed && http->listener_count == 0)
		free(http);
}

static void on_timer(uv_timer_t *timer);

static unsigned int count_connections(const struct http_listener *listener)
{
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(listener->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);

	return info != NULL ? info->num_connections : 0;
}

static void run(struct http_listener *listener)
{
	MHD_UNSIGNED_LONG_LONG ms;

	MHD_run(listener->daemon);
	acceptor_hold(listener->acceptor, count_connections(listener) >= HTTP_CONNECTIONS_MAX);
	if (MHD_get_timeout(listener->daemon, &ms) == MHD_YES)
		uv_timer_start(&listener->timer, on_timer, ms, 0);
	else
		uv_timer_stop(&listener->timer);
}

static void on_timer(uv_timer_t *timer)
{
	struct http_listener *listener = timer->data;

	if (!listener->closing)
		run(listener);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct http_listener *listener = poll->data;

	(void)events;
	if (!listener->closing && status == 0)
		run(listener);
}

void http_wake(struct http_listener *listener)
{
	if (!listener->closing)
		uv_timer_start(&listener->timer, on_timer, 0, 0);
}

static int set_option(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value));
}

/* Return: a descriptor or -errno. */
static int open_socket(const struct http_address *http)
{
	bool ipv6 = http->address.family == AF_INET6;
	struct sockaddr_storage name;
	socklen_t size = address_to_sockaddr(&http->address, http->port, &name);
	int fd = socket(http->address.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), error;

	if (fd < 0)
		return -errno;
	/* Connections inherit the size of the buffer. */
	if (set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1) == 0 && set_option(fd, SOL_SOCKET, SO_SNDBUF, HTTP_SEND_BYTES) == 0 &&
	    (!ipv6 || set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1) == 0) && bind(fd, (struct sockaddr *)&name, size) == 0 &&
	    listen(fd, BACKLOG) == 0)
		return fd;
	error = errno;
	close(fd);
	return -error;
}

static void on_connection(void *context, int fd)
{
	struct http_listener *listener = context;
	struct sockaddr_storage peer;
	socklen_t size = sizeof(peer);

	if (getpeername(fd, (struct sockaddr *)&peer, &size) != 0) {
		close(fd);
		return;
	}
	MHD_add_connection(listener->daemon, fd, (const struct sockaddr *)&peer, size); /* which closes it when it fails */
	run(listener);
}

static struct MHD_Daemon *start_daemon(struct http_listener *listener)
{
	unsigned int flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET;

	if (listener->address.address.family == AF_INET6)
		flags |= MHD_USE_IPv6;
	return MHD_start_daemon(flags, 0, NULL, NULL, http_answer, listener, MHD_OPTION_CONNECTION_LIMIT,
				(unsigned int)HTTP_CONNECTIONS_MAX, MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned int)HTTP_PER_CLIENT_MAX,
				MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_CONNECTION_BYTES, MHD_OPTION_CONNECTION_TIMEOUT,
				HTTP_IDLE_SECONDS, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
}

/* Return: 0 or -errno. */
static int watch(struct http_listener *listener)
{
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(listener->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	int rc = info != NULL ? uv_poll_init(listener->http->loop, &listener->poll, info->epoll_fd) : -EINVAL;

	if (rc != 0)
		return rc;
	uv_timer_init(listener->http->loop, &listener->timer);
	listener->poll.data = listener->timer.data = listener;
	listener->open_handles = 2;
	return uv_poll_start(&listener->poll, UV_READABLE, on_poll);
}

/* Return: 0 or -errno: nothing has been opened. */
static int open_listener(struct http_listener *listener)
{
	int fd = open_socket(&listener->address), rc;

	if (fd < 0)
		return fd;
	rc = acceptor_new(listener->http->loop, fd, on_connection, listener, &listener->acceptor);
	if (rc != 0)
		return rc;
	listener->daemon = start_daemon(listener);
	rc = listener->daemon != NULL ? watch(listener) : -ENOMEM;
	if (rc == 0)
		return 0;
	acceptor_close(listener->acceptor);
	if (listener->daemon != NULL)
		MHD_stop_daemon(listener->daemon);
	listener->daemon = NULL;
	return rc;
}

static void say_opened(struct http_listener *listener, int rc)
{
	struct log *log = listener->http->log;
	char text[POLICY_SERVER_MAX];

	policy_http_format(&listener->address, text);
	if (rc == 0)
		log_say(log, LOG_INFO, "the page and the metrics are at http://%s/%s", text,
			policy_http_is_local(&listener->address) ? ", for this network namespace only" : "");
	else if (rc != listener->said)
		log_say(log, LOG_ERROR, "http: %s cannot be opened: %s; it is tried again when an interface changes", text, strerror(-rc));
	listener->said = rc;
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct http_listener *listener = handle->data;
	struct http *http = listener->http;

	if (--listener->open_handles > 0)
		return;
	free(listener);
	http->listener_count--;
	release(http);
}

/* Streams first: a daemon must not be stopped while a connection is suspended. */
static void close_listener(struct http_listener *listener)
{
	struct http *http = listener->http;

	listener->closing = true;
	for (struct http_stream *stream = http->streams; stream != NULL; stream = stream->next) {
		if (stream->listener == listener)
			http_stream_end(stream);
	}
	if (listener->daemon == NULL) {
		http->listener_count--;
		free(listener);
		return;
	}
	acceptor_close(listener->acceptor);
	uv_close((uv_handle_t *)&listener->poll, on_handle_closed);
	uv_close((uv_handle_t *)&listener->timer, on_handle_closed);
	MHD_stop_daemon(listener->daemon);
	listener->daemon = NULL;
}

static bool same(const struct http_address *a, const struct http_address *b)
{
	return a->port == b->port && address_equal(&a->address, &b->address);
}

static bool is_listed(const struct http_listener *listener, const struct http_address *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (same(&listener->address, &list[i]))
			return true;
	}
	return false;
}

static struct http_listener *find_or_make(struct http *http, const struct http_address *address)
{
	struct http_listener *listener = http->listeners;

	while (listener != NULL && !same(&listener->address, address))
		listener = listener->next;
	if (listener != NULL || (listener = calloc(1, sizeof(*listener))) == NULL)
		return listener;
	listener->http = http;
	listener->address = *address;
	listener->next = http->listeners;
	http->listeners = listener;
	http->listener_count++;
	return listener;
}

void http_listen(struct http *http, const struct http_address *list, size_t count)
{
	struct http_listener **at = &http->listeners, *listener;

	while ((listener = *at) != NULL) {
		if (is_listed(listener, list, count)) {
			at = &listener->next;
			continue;
		}
		*at = listener->next;
		close_listener(listener);
	}
	for (size_t i = 0; i < count; i++) {
		listener = find_or_make(http, &list[i]);
		if (listener != NULL && listener->daemon == NULL)
			say_opened(listener, open_listener(listener));
	}
}

static void on_keep_alive(uv_timer_t *timer)
{
	http_stream_keep_alive(timer->data);
}

struct http *http_new(uv_loop_t *loop, struct log *log, const struct http_host *host)
{
	struct http *http = calloc(1, sizeof(*http));

	if (http == NULL)
		return NULL;
	http->loop = loop;
	http->log = log;
	http->host = *host;
	uv_timer_init(loop, &http->keep_alive);
	http->keep_alive.data = http;
	uv_timer_start(&http->keep_alive, on_keep_alive, HTTP_KEEP_ALIVE_MS, HTTP_KEEP_ALIVE_MS);
	return http;
}

static void on_keep_alive_closed(uv_handle_t *handle)
{
	struct http *http = handle->data;

	http->closed = true;
	release(http);
}

void http_close(struct http *http)
{
	if (http == NULL || http->closing)
		return;
	http->closing = true;
	http_listen(http, NULL, 0);
	uv_close((uv_handle_t *)&http->keep_alive, on_keep_alive_closed);
}
