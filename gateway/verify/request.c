/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: the parser is run over what is there until the header ends. A request can name its host in two places, the target
 * (absolute-form, and CONNECT's authority-form) and the Host field: each that is there must say the same, once, since who reads the request
 * on its way may go by either.
 */
#include "gateway/verify/request.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <http_parser.h>

#define TARGET_MAX 4096 /* octets of a request's target that are kept */
#define FIELD_MAX  16   /* octets of a field's name that are kept: "host" is all we look for */
#define VALUE_MAX  512  /* octets of Host */

struct request {
	char target[TARGET_MAX], field[FIELD_MAX], host[VALUE_MAX];
	size_t target_size, field_size, host_size;
	unsigned int hosts;
	bool in_value, is_host, bad, whole;
};

static void append(char *to, size_t *size, size_t room, const char *at, size_t length, bool *too_long)
{
	if (length >= room - *size) {
		*too_long = true;
		return;
	}
	memcpy(to + *size, at, length);
	*size += length;
	to[*size] = '\0';
}

static int on_url(http_parser *parser, const char *at, size_t length)
{
	struct request *request = parser->data;

	append(request->target, &request->target_size, sizeof(request->target), at, length, &request->bad);
	return 0;
}

static int on_field(http_parser *parser, const char *at, size_t length)
{
	struct request *request = parser->data;
	bool too_long = false;

	if (request->in_value)
		request->field_size = 0;
	request->in_value = false;
	/* RFC 9112 section 5.1: to be refused. The parser takes it for a part of the name, some servers take it away. */
	if (memchr(at, ' ', length))
		request->bad = true;
	append(request->field, &request->field_size, sizeof(request->field), at, length, &too_long);
	if (too_long)
		request->field_size = sizeof(request->field); /* certainly another one */
	return 0;
}

static int on_value(http_parser *parser, const char *at, size_t length)
{
	struct request *request = parser->data;

	if (!request->in_value) {
		request->is_host = request->field_size == strlen("host") && strncasecmp(request->field, "host", request->field_size) == 0;
		request->hosts += request->is_host;
	}
	request->in_value = true;
	if (request->is_host)
		append(request->host, &request->host_size, sizeof(request->host), at, length, &request->bad);
	return 0;
}

static int on_headers(http_parser *parser)
{
	((struct request *)parser->data)->whole = true;
	http_parser_pause(parser, 1);
	return 0;
}

/* Blanks behind a field's value are not part of it, RFC 9112 section 5.1. */
static void cut_blanks(char *value)
{
	size_t size = strlen(value);

	while (size > 0 && (value[size - 1] == ' ' || value[size - 1] == '\t'))
		value[--size] = '\0';
}

/* "api.example:8080": without the port. Return: false when it is no host and port. */
static bool cut_port(char *host)
{
	char *colon = host[0] == '[' ? strchr(host, ']') : strchr(host, ':');

	if (!colon || !colon[host[0] == '[']) {
		return host[0] != '[' || colon;
	}
	if (host[0] == '[')
		*colon++ = '\0';
	if (*colon != ':' || colon[1 + strspn(colon + 1, "0123456789")])
		return false;
	*colon = '\0';
	return true;
}

static enum request_result read_host(char *host, struct domain *name)
{
	/* An address names no host. */
	if (host[0] == '[' || !host[strspn(host, "0123456789.")])
		return REQUEST_NO_NAME;
	return domain_parse(host, name) ? REQUEST_BROKEN : REQUEST_NAME;
}

/* The host that the target has; REQUEST_NO_NAME when it has none. */
static enum request_result read_target(const struct request *request, bool connect, struct domain *name)
{
	struct http_parser_url url;
	char host[VALUE_MAX];

	http_parser_url_init(&url);
	if (http_parser_parse_url(request->target, request->target_size, connect, &url) != 0)
		return REQUEST_BROKEN;
	if (!(url.field_set & 1 << UF_HOST))
		return REQUEST_NO_NAME;
	if (url.field_data[UF_HOST].len >= sizeof(host))
		return REQUEST_BROKEN;
	memcpy(host, request->target + url.field_data[UF_HOST].off, url.field_data[UF_HOST].len);
	host[url.field_data[UF_HOST].len] = '\0';
	return read_host(host, name);
}

static enum request_result judge(struct request *request, bool connect, struct domain *name)
{
	struct domain target = {.length = 0};
	enum request_result in_target = read_target(request, connect, &target), in_host = REQUEST_NO_NAME;

	cut_blanks(request->host);
	if (request->bad || request->hosts > 1 || in_target == REQUEST_BROKEN || !cut_port(request->host))
		return REQUEST_BROKEN;
	if (request->hosts == 1)
		in_host = read_host(request->host, name);
	if (in_host == REQUEST_BROKEN)
		return REQUEST_BROKEN;
	if (in_target == REQUEST_NAME && in_host == REQUEST_NAME && !domain_equal(name, &target))
		return REQUEST_BROKEN;
	if (in_target == REQUEST_NAME)
		*name = target;
	return in_target == REQUEST_NAME ? in_target : in_host;
}

enum request_result request_read(const uint8_t *bytes, size_t size, struct domain *name)
{
	static const http_parser_settings settings = {
		.on_url = on_url, .on_header_field = on_field, .on_header_value = on_value, .on_headers_complete = on_headers};
	struct request request = {.target_size = 0};
	http_parser parser;

	http_parser_init(&parser, HTTP_REQUEST);
	parser.data = &request;
	(void)http_parser_execute(&parser, &settings, (const char *)bytes, size);
	if (request.whole)
		return judge(&request, parser.method == HTTP_CONNECT, name);
	return HTTP_PARSER_ERRNO(&parser) == HPE_OK ? REQUEST_MORE : REQUEST_NOT;
}
