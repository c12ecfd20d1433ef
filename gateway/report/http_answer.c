/* SPDX-License-Identifier: MIT */
/*
 * What a request is answered. Each path is a row of the table below; the data comes from the process around us (struct http_host), in the
 * form that the control socket has it. Nothing here changes anything.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/report/http_internal.h"
#include "gateway/report/page.h"

#define TYPE_TEXT        "text/plain; charset=utf-8"
#define TYPE_JSON        "application/json"
#define TYPE_EVENTS      "text/event-stream"
#define TYPE_METRICS     "text/plain; version=0.0.4; charset=utf-8"
#define TYPE_OPENMETRICS "application/openmetrics-text; version=1.0.0; charset=utf-8"

/* A request that is being answered. */
struct request {
	struct http_listener *listener;
	struct MHD_Connection *connection;
	const char *path;
	bool head; /* the headers alone are wanted */
};

struct body {
	struct http *http;
	char *bytes; /* owned */
	size_t size;
};

static const char *const security_headers[][2] = {
	{"Content-Security-Policy",
	 "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri "
	 "'none'; form-action 'none'; frame-ancestors 'none'"},
	{"X-Content-Type-Options", "nosniff"},
	{"X-Frame-Options", "DENY"},
	{"Referrer-Policy", "no-referrer"},
	{"Cross-Origin-Resource-Policy", "same-origin"},
	{"Cache-Control", "no-store"},
};

/* Takes over @response. */
static enum MHD_Result send_response(const struct request *request, unsigned int status, const char *type, struct MHD_Response *response)
{
	enum MHD_Result result;

	if (response == NULL)
		return MHD_NO; /* the connection is closed */
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	for (size_t i = 0; i < sizeof(security_headers) / sizeof(security_headers[0]); i++)
		MHD_add_response_header(response, security_headers[i][0], security_headers[i][1]);
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	if (status == MHD_HTTP_SERVICE_UNAVAILABLE)
		MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, "3");
	result = MHD_queue_response(request->connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static void free_body(void *context)
{
	struct body *body = context;

	body->http->body_bytes -= body->size;
	free(body->bytes);
	free(body);
}

static enum MHD_Result send_text(const struct request *request, unsigned int status, const char *text)
{
	return send_response(request, status, TYPE_TEXT,
			     MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY));
}

/* Takes over @text, malloc()ed; NULL: there was no memory for it. */
static enum MHD_Result send_body(const struct request *request, const char *type, char *text)
{
	struct http *http = request->listener->http;
	size_t size = text != NULL ? strlen(text) : 0;
	struct body *body = text != NULL && http->body_bytes + size <= HTTP_BODIES_MAX ? malloc(sizeof(*body)) : NULL;
	struct MHD_Response *response;

	if (body == NULL) {
		free(text);
		return send_text(request, MHD_HTTP_SERVICE_UNAVAILABLE, "too much to do at once\n");
	}
	*body = (struct body){.http = http, .bytes = text, .size = size};
	http->body_bytes += size;
	response = MHD_create_response_from_buffer_with_free_callback_cls(size, text, free_body, body);
	if (response == NULL)
		free_body(body);
	return send_response(request, MHD_HTTP_OK, type, response);
}

/* Takes over the reference. */
static enum MHD_Result send_json(const struct request *request, json_t *json)
{
	char *text = json != NULL ? json_dumps(json, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;

	json_decref(json);
	return send_body(request, TYPE_JSON, text);
}

static const char *argument(const struct request *request, const char *name)
{
	const char *value = MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);

	return value != NULL && value[0] != '\0' ? value : NULL;
}

/* Return: false when it is given and no number from 1 to @last. */
static bool number_argument(const struct request *request, const char *name, long last, long *value)
{
	const char *text = argument(request, name);
	char *end;

	if (text == NULL)
		return true;
	*value = strtol(text, &end, 10);
	return *end == '\0' && *value >= 1 && *value <= last;
}

static bool flag_argument(const struct request *request, const char *name)
{
	const char *text = argument(request, name);

	return text != NULL && (strcmp(text, "1") == 0 || strcmp(text, "true") == 0);
}

/* Ask what the control socket is asked. Takes over the reference to @question. */
static enum MHD_Result send_answer(const struct request *request, const char *command, json_t *question)
{
	const struct http_host *host = &request->listener->http->host;
	json_t *answer;

	if (question == NULL)
		return send_text(request, MHD_HTTP_BAD_REQUEST, "the arguments are no UTF-8\n");
	answer = host->answer(host->context, command, question);
	json_decref(question);
	if (answer == NULL)
		return send_text(request, MHD_HTTP_NOT_FOUND, "there is no such command\n");
	return send_json(request, answer);
}

static enum MHD_Result send_file(const struct request *request)
{
	const struct page_file *file = page_find(request->path);

	return send_response(request, MHD_HTTP_OK, file->type,
			     MHD_create_response_from_buffer(file->size, (void *)(uintptr_t)file->bytes, MHD_RESPMEM_PERSISTENT));
}

static enum MHD_Result send_stats(const struct request *request)
{
	return send_answer(request, "stats", json_pack("{s:s, s:s*}", "command", "stats", "network", argument(request, "network")));
}

static enum MHD_Result send_suggest(const struct request *request)
{
	return send_answer(request, "suggest",
			   json_pack("{s:s, s:b, s:s*}", "command", "suggest", "denied", flag_argument(request, "denied"), "network",
				     argument(request, "network")));
}

static enum MHD_Result send_advise(const struct request *request)
{
	json_t *question;
	long port = 0;

	if (!number_argument(request, "port", UINT16_MAX, &port))
		return send_text(request, MHD_HTTP_BAD_REQUEST, "port: a number from 1 to 65535\n");
	question = json_pack("{s:s, s:s?, s:s?, s:s?, s:s?, s:s?}", "command", "advise", "network", argument(request, "network"), "name",
			     argument(request, "name"), "address", argument(request, "address"), "proto", argument(request, "proto"),
			     "reason", argument(request, "reason"));
	if (question != NULL)
		json_object_set_new(question, "port", port != 0 ? json_integer(port) : json_null());
	return send_answer(request, "advise", question);
}

static void add_line(void *context, const char *json, size_t size)
{
	FILE *file = context;

	fputs(ftell(file) > 1 ? ",\n" : "", file);
	fwrite(json, 1, size, file);
}

/* As text: the lines are JSON already. */
static enum MHD_Result send_log(const struct request *request)
{
	long lines = HTTP_LINES;
	char *text = NULL;
	size_t size;
	FILE *file;
	bool bad;

	if (!number_argument(request, "lines", RECENT_DENIED_MAX + RECENT_ALLOWED_MAX, &lines))
		return send_text(request, MHD_HTTP_BAD_REQUEST, "lines: a number from 1 to 1200\n");
	file = open_memstream(&text, &size);
	if (file == NULL)
		return send_body(request, TYPE_JSON, NULL);
	fputc('[', file);
	recent_each(reports_recent(request->listener->http->host.reports), (size_t)lines, flag_argument(request, "denied"), add_line, file);
	fputs("]\n", file);
	bad = ferror(file);
	if (fclose(file) != 0 || bad) {
		free(text);
		text = NULL;
	}
	return send_body(request, TYPE_JSON, text);
}

static enum MHD_Result send_events(const struct request *request)
{
	struct MHD_Response *response;

	if (request->head)
		return send_response(request, MHD_HTTP_OK, TYPE_EVENTS, MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT));
	response = http_stream_new(request->listener, request->connection);
	if (response == NULL)
		return send_text(request, MHD_HTTP_SERVICE_UNAVAILABLE, "too many streams of events are open\n");
	return send_response(request, MHD_HTTP_OK, TYPE_EVENTS, response);
}

static enum MHD_Result send_metrics(const struct request *request)
{
	const struct http_host *host = &request->listener->http->host;
	const char *accept = MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT);
	bool openmetrics = accept != NULL && strstr(accept, "application/openmetrics-text") != NULL;

	return send_body(request, openmetrics ? TYPE_OPENMETRICS : TYPE_METRICS, host->metrics(host->context, openmetrics));
}

static enum MHD_Result send_health(const struct request *request)
{
	const struct http_host *host = &request->listener->http->host;
	const char *trouble = host->trouble(host->context);
	char text[512];

	snprintf(text, sizeof(text), "%s\n", trouble != NULL ? trouble : "ok");
	return send_text(request, trouble != NULL ? MHD_HTTP_SERVICE_UNAVAILABLE : MHD_HTTP_OK, text);
}

static const struct {
	const char *path;
	enum MHD_Result (*send)(const struct request *request);
	bool any_host; /* nothing of it is of use to a page of somebody else */
	bool costly;   /* made for each request, from tables that may be large */
} routes[] = {
	{"/", send_file, false, false},
	{"/page.css", send_file, false, false},
	{"/page.js", send_file, false, false},
	{"/api/stats", send_stats, false, true},
	{"/api/log", send_log, false, true},
	{"/api/advise", send_advise, false, true},
	{"/api/suggest", send_suggest, false, true},
	{"/api/events", send_events, false, false},
	{"/metrics", send_metrics, true, true},
	{"/healthz", send_health, true, false},
};

static enum MHD_Result send_costly(const struct request *request, enum MHD_Result (*make)(const struct request *request))
{
	struct http_budget *budget = &request->listener->http->budget;
	uint64_t began = uv_hrtime();
	enum MHD_Result result;

	if (!http_budget_left(budget, began))
		return send_text(request, MHD_HTTP_SERVICE_UNAVAILABLE, "too many requests\n");
	result = make(request);
	http_budget_spend(budget, uv_hrtime() - began);
	return result;
}

static enum MHD_Result route(const struct request *request)
{
	const char *host = MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);

	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
		if (strcmp(routes[i].path, request->path) != 0)
			continue;
		if (!routes[i].any_host && (host == NULL || !http_host_is_local(host)))
			return send_text(
				request, MHD_HTTP_FORBIDDEN,
				"the page is shown under an address, under localhost or a name without a dot only (DNS rebinding)\n");
		return routes[i].costly ? send_costly(request, routes[i].send) : routes[i].send(request);
	}
	return send_text(request, MHD_HTTP_NOT_FOUND, "not found\n");
}

static bool has_body(struct MHD_Connection *connection)
{
	const char *size = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);

	return (size != NULL && strcmp(size, "0") != 0) ||
	       MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_TRANSFER_ENCODING) != NULL;
}

/* Called twice: an answer to the first call, when there are only the headers, ends the connection. */
enum MHD_Result http_answer(void *context, struct MHD_Connection *connection, const char *url, const char *method, const char *version,
			    const char *upload, size_t *upload_size, void **state)
{
	struct request request = {
		.listener = context, .connection = connection, .path = url, .head = strcmp(method, MHD_HTTP_METHOD_HEAD) == 0};

	(void)version;
	(void)upload;
	(void)upload_size;
	if (!request.head && strcmp(method, MHD_HTTP_METHOD_GET) != 0)
		return send_text(&request, MHD_HTTP_METHOD_NOT_ALLOWED, "this only tells: GET and HEAD\n");
	if (has_body(connection))
		return send_text(&request, MHD_HTTP_CONTENT_TOO_LARGE, "a request has no body here\n");
	if (*state == NULL) {
		*state = context;
		return MHD_YES;
	}
	return route(&request);
}
