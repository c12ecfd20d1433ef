/* SPDX-License-Identifier: MIT */
#include "gateway/report/notify_url.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/address.h"
#include "common/domain.h"

#define FORM "write http://HOST/PATH or https://HOST/PATH"

/* A part of the URL, malloc()ed, or NULL when it has none. */
static char *get(CURLU *url, CURLUPart part, unsigned int flags)
{
	char *text, *copy;

	if (curl_url_get(url, part, &text, flags) != CURLUE_OK)
		return NULL;
	copy = strdup(text);
	curl_free(text);
	return copy;
}

static bool has(CURLU *url, CURLUPart part)
{
	char *text = get(url, part, 0);
	bool there = text;

	free(text);
	return there;
}

static bool fail(char *error, size_t error_size, const char *text)
{
	snprintf(error, error_size, "%s", text);
	return false;
}

static bool check_scheme(CURLU *url, struct notify_url *out, char *error, size_t error_size)
{
	char *scheme = get(url, CURLUPART_SCHEME, 0);
	bool good = scheme && (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0);

	out->tls = good && scheme[4] == 's';
	free(scheme);
	return good || fail(error, error_size, "this is not a URL with http:// or https://; " FORM);
}

/* "[2001:db8::5]" */
static bool take_ipv6(const char *host, struct notify_url *out, char *error, size_t error_size)
{
	struct address address;
	char text[ADDRESS_TEXT_MAX];

	snprintf(text, sizeof(text), "%.*s", (int)strcspn(host + 1, "]"), host + 1);
	if (!address_parse(text, &address))
		return fail(error, error_size, "the address in brackets is not an IPv6 address; " FORM);
	address_format(&address, out->host);
	return true;
}

static bool take_name(CURLU *url, const char *host, struct notify_url *out, char *error, size_t error_size)
{
	char text[DOMAIN_TEXT_MAX];
	struct domain domain;
	const char *wrong = domain_parse(host, &domain);

	if (!wrong && strlen(domain_format(&domain, text)) >= sizeof(out->host))
		wrong = "too long";
	if (wrong) {
		snprintf(error, error_size, "the host '%.80s' is not a name: %s", host, wrong);
		return false;
	}
	if (strcmp(text, "localhost") == 0 || (domain_labels(&domain) > 1 && strcmp(strrchr(text, '.'), ".localhost") == 0))
		return fail(error, error_size, "the host localhost is the gateway's own container; write the name of the server's one");
	memcpy(out->host, text, strlen(text) + 1);
	if (curl_url_set(url, CURLUPART_HOST, text, 0) != CURLUE_OK)
		return fail(error, error_size, "the host cannot be used; " FORM);
	return true;
}

static bool take_host(CURLU *url, struct notify_url *out, char *error, size_t error_size)
{
	char *host = get(url, CURLUPART_HOST, 0);
	struct address address;
	bool good;

	if (!host)
		return fail(error, error_size, "the URL has no host; " FORM);
	if (has(url, CURLUPART_ZONEID)) {
		good = fail(error, error_size, "an address with a zone cannot be used; " FORM);
	} else if (host[0] == '[') {
		good = take_ipv6(host, out, error, error_size);
	} else if (address_parse(host, &address)) {
		address_format(&address, out->host);
		good = true;
	} else {
		good = take_name(url, host, out, error, error_size);
	}
	free(host);
	return good;
}

static bool take_port(CURLU *url, struct notify_url *out, char *error, size_t error_size)
{
	char *port = get(url, CURLUPART_PORT, CURLU_DEFAULT_PORT);
	unsigned long number = port ? strtoul(port, NULL, 10) : 0;

	free(port);
	if (number == 0 || number > UINT16_MAX)
		return fail(error, error_size, "the port is not one from 1 to 65535");
	out->port = (uint16_t)number;
	return true;
}

static bool take_all(CURLU *url, const char *text, struct notify_url *out, char *error, size_t error_size)
{
	if (strlen(text) > NOTIFY_URL_MAX)
		return fail(error, error_size, "the URL has more than 2048 characters");
	if (!strstr(text, "://") || curl_url_set(url, CURLUPART_URL, text, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK)
		return fail(error, error_size, "this is not a URL; " FORM);
	if (has(url, CURLUPART_USER) || has(url, CURLUPART_PASSWORD))
		return fail(error, error_size,
			    "the URL has a user or a password; put a token into a file instead and write notify_token_file = PATH");
	if (has(url, CURLUPART_FRAGMENT))
		return fail(error, error_size, "the URL has a '#': what is behind it would not be sent; write %23 when it belongs there");
	if (!check_scheme(url, out, error, error_size) || !take_host(url, out, error, error_size) ||
	    !take_port(url, out, error, error_size))
		return false;
	out->text = get(url, CURLUPART_URL, 0);
	return out->text || fail(error, error_size, "out of memory");
}

bool notify_url_parse(const char *text, struct notify_url *out, char *error, size_t error_size)
{
	CURLU *url = curl_url();
	bool good;

	*out = (struct notify_url){0};
	if (!url)
		return fail(error, error_size, "out of memory");
	good = take_all(url, text, out, error, error_size);
	curl_url_cleanup(url);
	return good;
}

void notify_url_free(struct notify_url *url)
{
	free(url->text);
	url->text = NULL;
}
