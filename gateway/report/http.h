/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_HTTP_H
#define SLUICE_GATEWAY_REPORT_HTTP_H

/*
 * The page, its data, and the metrics, over HTTP. Read only. docs/http.md lists what there is.
 *
 * Bounded: HTTP_CONNECTIONS_MAX for each address, HTTP_PER_CLIENT_MAX of them from one client; HTTP_STREAMS_MAX streams of events in all,
 * each with HTTP_STREAM_BYTES of lines that wait; HTTP_BODIES_MAX octets of answers on their way. What is above that is refused.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "common/log.h"
#include "common/policy.h"
#include "gateway/report/reports.h"

#define HTTP_CONNECTIONS_MAX  64
#define HTTP_PER_CLIENT_MAX   16
#define HTTP_CONNECTION_BYTES 16384  /* of a request with its headers */
#define HTTP_IDLE_SECONDS     30U    /* without a byte in either direction */
#define HTTP_SEND_BYTES       131072 /* that the kernel takes for a client who does not read */
#define HTTP_STREAMS_MAX      16
#define HTTP_STREAM_BYTES     262144UL
#define HTTP_STREAM_IDLE      60U   /* seconds; for streams */
#define HTTP_KEEP_ALIVE_MS    15000 /* between signs of life on a quiet stream */
#define HTTP_BODIES_MAX       (32UL * 1024 * 1024)
#define HTTP_SHARE            4   /* answers are made in one part of so many of the loop's time ... */
#define HTTP_BURST_MS         250 /* ... and for so long at once after a quiet time */
#define HTTP_LINES            100 /* of /api/log, unless the request says another number */

/* What the listener needs from the process around it. */
struct http_host {
	void *context;
	/* A control_handle (control.h); called for "stats", "advise" and "suggest". */
	json_t *(*answer)(void *context, const char *command, const json_t *request);
	/* Return: malloc()ed; NULL: out of memory. */
	char *(*metrics)(void *context, bool openmetrics);
	/* Why the gateway does not do its work, or NULL. */
	const char *(*trouble)(void *context);
	struct reports *reports;
};

struct http; /* http_internal.h */

/** http_new() - Listens nowhere yet; @host is copied, @log and what is in @host must outlive it. Return: NULL when out of memory. */
struct http *http_new(uv_loop_t *loop, struct log *log, const struct http_host *host);

/**
 * http_listen() - Listen on these addresses and no others
 *
 * What is open and listed stays open, with its connections. What cannot be opened is said, once, and tried again by the next call.
 */
void http_listen(struct http *http, const struct http_address *list, size_t count);

/** http_close() - End all connections; memory goes when the loop has run the close callbacks. NULL is fine. */
void http_close(struct http *http);

#endif
