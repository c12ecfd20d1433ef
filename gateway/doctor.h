/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_DOCTOR_H
#define SLUICE_GATEWAY_DOCTOR_H

/* Between cmd_doctor.c and doctor_*.c: what was found, line by line. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/policy.h"

#define DOCTOR_TEXT_MAX 768 /* octets of a line, with NUL */

enum doctor_status {
	DOCTOR_OK,
	DOCTOR_WARNING, /* works, but worse or not yet */
	DOCTOR_PROBLEM,
};

struct doctor {
	bool json;
	json_t *checks; /* owned; NULL without --json, or without memory */
	size_t problems, warnings;
	const char *path;            /* of the policy, as given; may be NULL */
	const struct policy *policy; /* NULL: it could not be read */
	bool privileged;             /* CAP_NET_ADMIN is there */
	bool daemon;                 /* it answers */
};

/** doctor_say() - One line: @check in a word, what was found, and what to do about it (@cure may be NULL). */
void doctor_say(struct doctor *doctor, enum doctor_status status, const char *check, const char *cure, const char *format, ...)
	__attribute__((format(printf, 5, 6)));

/* doctor_network.c: interfaces, forms, routes, and what the kernel can do. */
void doctor_kernel(struct doctor *doctor);
void doctor_interfaces(struct doctor *doctor);

/* doctor_state.c: the state directory, and the apps that do not ask for names, from the daemon's answer to `health`. */
void doctor_state(struct doctor *doctor);
void doctor_strangers(struct doctor *doctor, const json_t *health);

/* doctor_upstream.c, doctor_upstream_tls.c: one question to each DNS server of the policy. */
void doctor_upstream(struct doctor *doctor);
void doctor_upstream_tls(struct doctor *doctor);

#endif
