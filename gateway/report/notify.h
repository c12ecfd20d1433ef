/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_NOTIFY_H
#define SLUICE_GATEWAY_REPORT_NOTIFY_H

/*
 * Notifications: what is denied for the first time, an app and a name, is told to a server of the policy's choice (`notify`), several at a
 * time, seldom (notify_pace.h), and never so that anything waits for it. docs/notifications.md describes what is sent.
 */

#include <stdint.h>
#include <uv.h>

#include "common/log.h"
#include "common/policy.h"
#include "gateway/report/decision.h"
#include "resolver/resolver.h"

#define NOTIFY_COLLECT_MS 2000   /* from the first new denial to its message, for those that come with it */
#define NOTIFY_SAY_MS     600000 /* a failure is said at most so often */

/* What is needed from the process around it. */
struct notify_host {
	void *context;
	/* Let our connections to these addresses out, or close that again. Return: 0, or -errno with @error. */
	int (*open)(void *context, const struct address *list, size_t count, uint16_t port, bool open, char *error, size_t error_size);
};

struct notify_counters {
	uint64_t sent;       /* messages that were taken */
	uint64_t failed;     /* tries that failed */
	uint64_t denials;    /* new ones, in all: told, waiting to be told, or dropped */
	uint64_t suppressed; /* of these: told as a number only */
	uint64_t dropped;    /* of these: their message could not be sent */
};

struct notify; /* notify.c */

/**
 * notify_new() - Nothing is sent before notify_set_policy()
 * @resolver:	outlives it
 * @memory:	a descriptor of memory.h: what the worker before has told, and this one for the next; -1: none
 * Return: NULL when out of memory.
 */
struct notify *notify_new(uv_loop_t *loop, struct log *log, struct resolver *resolver, int memory, const struct notify_host *host);

/** notify_close() - What waits is not sent. Memory goes when the loop has run the close callbacks. */
void notify_close(struct notify *notify);

/** notify_set_policy() - @policy is in force, and stays valid until the next call. A message under way to another URL is begun anew. */
void notify_set_policy(struct notify *notify, const struct policy *policy);

/**
 * notify_decision() - Take a decision into account. Only denials (and what audit mode let pass) of flows and questions count
 * @json:	the decision as a JSON object; copied
 */
void notify_decision(struct notify *notify, const struct decision *decision, const char *json);

const struct notify_counters *notify_counters(const struct notify *notify);

#endif
