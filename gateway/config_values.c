/* SPDX-License-Identifier: MIT */
/* Pure parsers of single values of the policy language. */

#include "gateway/config_values.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/ruleset.h"

#define DIGITS     "0123456789"
#define TLS_SCHEME "tls://"
#define SHOWN      "80" /* characters of a bad value that a complaint repeats, as a printf precision */

static bool __attribute__((format(printf, 2, 3))) refuse(struct config_complaint *complaint, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(complaint->error, sizeof(complaint->error), format, arguments);
	va_end(arguments);
	return false;
}

/* Decimal digits at the start of @text. Return: how many characters, 0 when none or above @last. */
static size_t take_number(const char *text, uint32_t last, uint32_t *out)
{
	size_t length = strspn(text, DIGITS);
	uint64_t value = 0;

	for (size_t i = 0; i < length; i++) {
		value = value * 10 + (uint64_t)(text[i] - '0');
		if (value > last)
			return 0;
	}
	*out = (uint32_t)value;
	return length;
}

bool config_value_number(const char *text, uint32_t first, uint32_t last, uint32_t *out, struct config_complaint *complaint)
{
	size_t length = take_number(text, last, out);

	if (!length || text[length] || *out < first)
		return refuse(complaint, "'%." SHOWN "s' is not a number from %u to %u", text, first, last);
	return true;
}

bool config_value_seconds(const char *text, uint32_t *out, struct config_complaint *complaint)
{
	static const struct {
		const char *unit;
		uint32_t seconds;
	} units[] = {{"", 1}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
	uint32_t number;
	size_t length = take_number(text, CONFIG_SECONDS_MAX, &number);

	for (size_t i = 0; length && i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(text + length, units[i].unit) != 0)
			continue;
		if (number > CONFIG_SECONDS_MAX / units[i].seconds)
			break;
		*out = number * units[i].seconds;
		return true;
	}
	return refuse(complaint, "'%." SHOWN "s' is not a duration: write seconds, or 90s, 5m, 2h, 1d; at most 366d", text);
}

/* Does @text have the shape of @shape, where 0 stands for a digit? */
static bool has_shape(const char *text, const char *shape)
{
	for (; *shape; text++, shape++) {
		if (*shape == '0' ? !isdigit((unsigned char)*text) : *text != *shape)
			return false;
	}
	return !*text;
}

bool config_value_date(const char *text, time_t *out, struct config_complaint *complaint)
{
	static const char *const formats[][2] = {
		{"0000-00-00", "%Y-%m-%d"}, {"0000-00-00T00:00Z", "%Y-%m-%dT%H:%MZ"}, {"0000-00-00T00:00:00Z", "%Y-%m-%dT%H:%M:%SZ"}};

	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		struct tm given = {0}, normal;
		const char *end;

		if (!has_shape(text, formats[i][0]))
			continue;
		end = strptime(text, formats[i][1], &given);
		if (!end || *end)
			break;
		normal = given;
		*out = timegm(&normal);
		/* timegm() moves 30 February to March. */
		if (normal.tm_mday != given.tm_mday || normal.tm_mon != given.tm_mon || normal.tm_sec != given.tm_sec)
			break;
		return true;
	}
	return refuse(complaint, "'%." SHOWN "s' is not a date: write YYYY-MM-DD or YYYY-MM-DDTHH:MMZ (UTC)", text);
}

bool config_value_prefix(const char *text, struct prefix *out, struct config_complaint *complaint)
{
	char right[ADDRESS_TEXT_MAX];
	bool host_bits = false;

	if (!prefix_parse(text, out, &host_bits))
		return refuse(complaint, "'%." SHOWN "s' is not an address prefix such as 10.0.0.0/8 or fd00::/8", text);
	if (host_bits)
		return refuse(complaint, "'%." SHOWN "s' has bits set behind its length: write %s", text, prefix_format(out, right));
	return true;
}

/* "[X]Y" -> X and Y. False: @text is not like that. */
static bool split_brackets(char *text, char **inside, char **behind)
{
	char *end = text[0] == '[' ? strchr(text, ']') : NULL;

	if (!end)
		return false;
	*end = 0;
	*inside = text + 1;
	*behind = end + 1;
	return true;
}

static bool parse_server_port(const char *text, uint16_t *out)
{
	uint32_t port;
	size_t length = take_number(text, UINT16_MAX, &port);

	if (!length || text[length] || !port)
		return false;
	*out = (uint16_t)port;
	return true;
}

/* @text is changed. out->port is the default. */
static bool split_server(char *text, struct upstream_server *out)
{
	char *inside = text, *behind = NULL, *colon = strchr(text, ':');

	if (split_brackets(text, &inside, &behind)) {
		if (*behind && *behind++ != ':')
			return false;
		if (behind[-1] == ':' && !parse_server_port(behind, &out->port))
			return false;
		return address_parse(inside, &out->address) && out->address.family == AF_INET6;
	}
	/* More than one colon: an IPv6 address without brackets, so without a port. */
	if (colon && colon == strrchr(text, ':')) {
		*colon = 0;
		if (!parse_server_port(colon + 1, &out->port))
			return false;
	}
	return address_parse(text, &out->address);
}

static bool is_multicast(const struct address *address)
{
	return address->family == AF_INET ? address->bytes[0] >= 224 : address->bytes[0] == 0xff;
}

static bool refuse_server_address(const char *text, const struct address *address, struct config_complaint *complaint)
{
	static const uint8_t docker[] = {127, 0, 0, 11}, zero[16];

	if (address->family == AF_INET && memcmp(address->bytes, docker, sizeof(docker)) == 0)
		return refuse(complaint,
			      "127.0.0.11 is Docker's own resolver, which may answer with names of other networks or send the question "
			      "back: name a real server, or 'auto'");
	if (is_multicast(address) || memcmp(address->bytes, zero, address_size(address)) == 0)
		return refuse(complaint, "'%." SHOWN "s' cannot be the address of a server", text);
	return true;
}

/* The name that the certificate must be for (RFC 8310: the authentication domain name). */
static bool take_tls_name(const char *text, const char *name, char out[static CONFIG_TLS_NAME_MAX], struct config_complaint *complaint)
{
	char formatted[DOMAIN_TEXT_MAX];
	struct address address;
	struct domain domain;
	const char *error;

	if (!name || !*name)
		return refuse(complaint,
			      "'%." SHOWN "s' lacks the name that the server's certificate is for: write it behind the address, as in "
			      "tls://192.0.2.9#dns.example",
			      text);
	if (address_parse(name, &address))
		return refuse(complaint, "'%." SHOWN "s': behind '#' stands a host name, the one in the server's certificate, no address",
			      text);
	error = domain_parse(name, &domain);
	if (error)
		return refuse(complaint, "'%." SHOWN "s': behind '#' stands a host name: %s", text, error);
	/* Host names need no escapes, so they fit. */
	snprintf(out, CONFIG_TLS_NAME_MAX, "%.*s", CONFIG_TLS_NAME_MAX - 1, domain_format(&domain, formatted));
	return true;
}

static bool is_tls(const char *text)
{
	return strncmp(text, TLS_SCHEME, strlen(TLS_SCHEME)) == 0;
}

static bool refuse_server(const char *text, struct config_complaint *complaint)
{
	if (is_tls(text))
		return refuse(complaint,
			      "'%." SHOWN "s' is not a server: write tls://192.0.2.9#dns.example or tls://[2001:db8::9]:853#dns.example",
			      text);
	if (strstr(text, "://"))
		return refuse(complaint,
			      "'%." SHOWN "s' is not a server: there are plain ones, 192.0.2.53, and tls://192.0.2.9#dns.example", text);
	if (strchr(text, '#'))
		return refuse(complaint,
			      "'%." SHOWN "s' is not a server: a name behind '#' is for DNS over TLS, as in tls://192.0.2.9#dns.example",
			      text);
	return refuse(complaint,
		      "'%." SHOWN "s' is not a server: write auto, 192.0.2.53, 192.0.2.53:5353, [2001:db8::53]:5353 or "
		      "tls://192.0.2.9#dns.example",
		      text);
}

bool config_value_server(const char *text, struct upstream_server *out, char tls_name[static CONFIG_TLS_NAME_MAX],
			 struct config_complaint *complaint)
{
	const char *place = is_tls(text) ? text + strlen(TLS_SCHEME) : text, *name = is_tls(text) ? strchr(text, '#') : NULL;
	size_t length = name ? (size_t)(name - place) : strlen(place);
	char copy[ADDRESS_TEXT_MAX + 8];

	*tls_name = 0;
	*out = (struct upstream_server){.port = is_tls(text) ? CONFIG_TLS_PORT : CONFIG_SERVER_PORT};
	if (length >= sizeof(copy))
		return refuse_server(text, complaint);
	memcpy(copy, place, length);
	copy[length] = 0;
	if (!split_server(copy, out))
		return refuse_server(text, complaint);
	if (is_tls(text) && !take_tls_name(text, name ? name + 1 : NULL, tls_name, complaint))
		return false;
	if (!is_tls(text) && out->port == CONFIG_TLS_PORT)
		snprintf(complaint->warning, sizeof(complaint->warning),
			 "'%." SHOWN "s' is asked in clear, on the port of DNS over TLS: did you mean tls://%." SHOWN "s#NAME?", text,
			 text);
	return refuse_server_address(text, &out->address, complaint);
}

bool config_value_http(const char *text, struct http_address *out, struct config_complaint *complaint)
{
	struct upstream_server place = {.port = 0};
	char copy[ADDRESS_TEXT_MAX + 8];

	if (strlen(text) >= sizeof(copy) || !split_server(strcpy(copy, text), &place))
		return refuse(complaint,
			      "'%." SHOWN
			      "s' is not ADDRESS:PORT: write 127.0.0.1:%u, [::1]:%u, 0.0.0.0:%u for every address of the uplink, "
			      "or off",
			      text, POLICY_HTTP_PORT, POLICY_HTTP_PORT, POLICY_HTTP_PORT);
	if (!place.port)
		return refuse(complaint, "'%." SHOWN "s' has no port: write %s%s%s:%u", text, strchr(text, ':') && *text != '[' ? "[" : "",
			      text, strchr(text, ':') && *text != '[' ? "]" : "", POLICY_HTTP_PORT);
	if (place.port == CONFIG_SERVER_PORT || place.port == RULESET_REDIRECT_PORT)
		return refuse(complaint, "'%." SHOWN "s': the gateway answers DNS on port %u: choose another one, such as %u", text,
			      place.port, POLICY_HTTP_PORT);
	if (is_multicast(&place.address))
		return refuse(complaint, "'%." SHOWN "s': no single host has this address: write one of the uplink's own", text);
	out->address = place.address;
	out->port = place.port;
	return true;
}

static const char *last_label(const char *name)
{
	const char *end = name + strlen(name), *start;

	if (end > name && end[-1] == '.')
		end--;
	for (start = end; start > name && start[-1] != '.'; start--)
		;
	return start;
}

/* No top-level domain is a number: such a name is an address that was mistyped. */
static bool ends_in_number(const char *name)
{
	const char *label = last_label(name);
	size_t digits = strspn(label, DIGITS);

	return digits && (!label[digits] || strcmp(label + digits, ".") == 0);
}

bool config_value_pattern(const char *text, struct pattern *out, struct config_complaint *complaint)
{
	const char *warning = NULL, *error;

	if (strchr(text, '/'))
		return refuse(complaint,
			      "'%." SHOWN "s': a name has no '/'; write the host name alone, a protocol behind the port (name:443/tcp)",
			      text);
	if (strchr(text, ':'))
		return refuse(complaint, "'%." SHOWN "s': a name without a port is expected here", text);
	if (ends_in_number(text))
		return refuse(complaint, "'%." SHOWN "s' is neither an IPv4 address nor a name: no name ends in a number", text);
	error = pattern_parse(text, out, &warning);
	if (error)
		return refuse(complaint, "'%." SHOWN "s': %s", text, error);
	if (warning)
		snprintf(complaint->warning, sizeof(complaint->warning), "'%." SHOWN "s': %s", text, warning);
	else if (out->kind == PATTERN_EXACT && policy_name_is_local(&out->base))
		snprintf(complaint->warning, sizeof(complaint->warning),
			 "'%." SHOWN "s': local names like this are never sent to an upstream, so the rule has no effect", text);
	return true;
}

/* Somebody wrote "a:22,443": a comma ends the rule. */
static bool looks_like_ports(const char *text)
{
	size_t length = strspn(text, DIGITS "+-");

	if (!length || !isdigit((unsigned char)text[0]))
		return false;
	return !text[length] || strcmp(text + length, "/tcp") == 0 || strcmp(text + length, "/udp") == 0;
}

static bool parse_rule_ports(const char *whole, const char *text, struct rule *out, struct config_complaint *complaint)
{
	const char *error;

	out->ports_given = true;
	if (!*text)
		return refuse(complaint, "'%." SHOWN "s': no port behind ':'", whole);
	if (text[0] == '/' && text[1] == '/')
		return refuse(complaint, "'%." SHOWN "s' is a URL: write the host name alone, with its port if you like (name:443)", whole);
	error = ports_parse(text, &out->ports);
	if (error)
		return refuse(complaint, "'%." SHOWN "s': %s", whole, error);
	if (ports_is_empty(&out->ports))
		return refuse(complaint, "'%." SHOWN "s': no port", whole);
	return true;
}

static bool parse_bracketed(const char *whole, char *text, struct rule *out, struct config_complaint *complaint)
{
	char *inside, *behind;

	if (!split_brackets(text, &inside, &behind))
		return refuse(complaint, "'%." SHOWN "s' has no closing ']'", whole);
	if (*behind == '/')
		return refuse(complaint, "'%." SHOWN "s': the length goes inside the brackets, as in [2001:db8::/32]:443", whole);
	out->kind = RULE_ADDRESS;
	if (!strchr(inside, ':'))
		return refuse(complaint, "'%." SHOWN "s': brackets are for IPv6 addresses only", whole);
	if (!config_value_prefix(inside, &out->prefix, complaint))
		return false;
	if (!*behind)
		return true;
	if (*behind != ':')
		return refuse(complaint, "'%." SHOWN "s': only ':PORTS' may follow the ']'", whole);
	return parse_rule_ports(whole, behind + 1, out, complaint);
}

static bool parse_plain(const char *whole, char *text, struct rule *out, struct config_complaint *complaint)
{
	char *colon = strchr(text, ':');

	if (colon)
		*colon = 0;
	/* The port first: "https://name" must be called a URL, not a bad name. */
	if (colon && !parse_rule_ports(whole, colon + 1, out, complaint))
		return false;
	if (*text && !text[strspn(text, DIGITS "./")]) {
		out->kind = RULE_ADDRESS;
		if (!config_value_prefix(text, &out->prefix, complaint))
			return false;
		return true;
	}
	out->kind = RULE_NAME;
	if (!*text)
		return refuse(complaint, "'%." SHOWN "s': no name before ':'", whole);
	return config_value_pattern(text, &out->pattern, complaint);
}

/* An IPv6 address without brackets would make its last group and a port look alike. */
static bool is_bare_ipv6(const char *text)
{
	struct prefix prefix;
	const char *colon = strchr(text, ':');

	return colon && strchr(colon + 1, ':') && prefix_parse(text, &prefix, NULL);
}

bool config_value_rule(const char *text, struct rule *out, struct config_complaint *complaint)
{
	char *copy;
	bool good;

	out->ports = ports_all();
	out->ports_given = false;
	if (looks_like_ports(text))
		return refuse(complaint, "'%." SHOWN "s' is a port without a name: join ports with '+', as in name:22+443", text);
	if (is_bare_ipv6(text))
		return refuse(complaint, "'%." SHOWN "s': write IPv6 addresses in brackets: [%." SHOWN "s]", text, text);
	copy = strdup(text);
	if (!copy)
		return refuse(complaint, "out of memory");
	good = copy[0] == '[' ? parse_bracketed(text, copy, out, complaint) : parse_plain(text, copy, out, complaint);
	free(copy);
	return good;
}
