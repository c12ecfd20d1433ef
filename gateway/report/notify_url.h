/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_NOTIFY_URL_H
#define SLUICE_GATEWAY_REPORT_NOTIFY_URL_H

/* The URL that notifications are sent to, as libcurl reads it. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NOTIFY_URL_MAX  2048 /* octets */
#define NOTIFY_HOST_MAX 254  /* octets of a host name, with NUL */

struct notify_url {
	char *text; /* owned */
	char host[NOTIFY_HOST_MAX];
	uint16_t port;
	bool tls;
};

/**
 * notify_url_parse() - Read an http:// or https:// URL
 * @out:	text with the host in lower case and as A-labels; host without an IPv6 address's brackets. Free with notify_url_free()
 * @error:	what is wrong and what to write, without a secret: it names no more of the URL than its host
 * Return: false when it cannot be used.
 */
bool notify_url_parse(const char *text, struct notify_url *out, char *error, size_t error_size);
void notify_url_free(struct notify_url *url);

#endif
