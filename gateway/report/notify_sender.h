/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_NOTIFY_SENDER_H
#define SLUICE_GATEWAY_REPORT_NOTIFY_SENDER_H

/* One HTTP request at a time, by libcurl in our loop: it never waits, looks no name up, starts no thread. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "common/address.h"
#include "common/policy.h"

#define NOTIFY_TIMEOUT_MS 10000 /* of a request in all */
#define NOTIFY_CONNECT_MS 6000  /* until there is a connection */
#define NOTIFY_ANSWER_MAX 65536 /* octets of an answer that are read, headers and body; then the status decides */
#define NOTIFY_CAUSE_MAX  384   /* octets of a cause, with NUL */

/* What is sent. Texts are copied, but for the body. */
struct notify_post {
	const struct notify_target *target;
	const struct address *addresses; /* of its host */
	size_t count;
	const char *title; /* ntfy: headers; else NULL */
	const char *body;  /* stays valid until it is done */
};

/** notify_sent - @good: the server has taken it; else @cause, which names no more of the URL than the host. */
typedef void (*notify_sent)(void *context, bool good, const char *cause);

struct notify_sender; /* notify_sender.c */

/** notify_sender_new() - The first one in a process must be made before there is any thread. Return: NULL when out of memory. */
struct notify_sender *notify_sender_new(uv_loop_t *loop);

/** notify_sender_close() - Gives a request up, without calling back. Memory goes when the loop has run the close callbacks. */
void notify_sender_close(struct notify_sender *sender);

/** notify_sender_send() - Nothing may be under way. @sent: called once, never before this returns, unless cancelled. 0 or -errno. */
int notify_sender_send(struct notify_sender *sender, const struct notify_post *post, notify_sent sent, void *context);

/** notify_sender_cancel() - Give the request up. */
void notify_sender_cancel(struct notify_sender *sender);

#endif
