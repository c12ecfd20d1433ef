/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_DECISION_H
#define SLUICE_GATEWAY_REPORT_DECISION_H

/*
 * A decision about a flow or a question, or about several, as data: what the log, the statistics, the page and the notifications are made
 * of. docs/log-format.md lists what becomes of each field. Nothing in it points into the policy, which a reload may replace.
 */

#include <stdbool.h>
#include <stdint.h>

#include "common/address.h"
#include "common/domain.h"
#include "common/log.h"
#include "common/policy.h"
#include "common/reason.h"
#include "gateway/apps.h"

#define DECISION_RULE_MAX   512 /* octets of FILE:LINE */
#define DECISION_ACTION_MAX 24

enum decision_event {
	DECISION_DENIED,  /* refused */
	DECISION_AUDIT,   /* audit mode let it pass */
	DECISION_ALLOWED, /* a flow that the policy allows has begun */
	DECISION_ENDED,   /* a flow that had been allowed, also by audit mode, is over */
	DECISION_INBOUND, /* a flow came in to a published port */
};
#define DECISION_EVENTS 5

enum decision_kind {
	DECISION_FLOW,
	DECISION_QUESTION, /* denied and audit only */
	DECISION_SUMMARY,  /* several that have no line of their own */
};

/* What a flow has carried until now, or to its end. */
struct traffic {
	uint64_t bytes_out, bytes_in; /* of whole IP packets; out: from who began the flow */
	uint64_t packets_out, packets_in;
};

struct decision {
	enum decision_event event;
	enum decision_kind kind;
	char network[POLICY_NAME_MAX + 1]; /* "": it cannot be told */
	struct address source;             /* family 0: several, or not known */
	char app[APPS_NAME_MAX + 1];       /* "": not known */
	struct address destination;        /* flows; family 0: not known */
	struct address real;               /* where a virtual address leads; family 0: it is none, or leads nowhere */
	bool has_port;                     /* flows: the protocol has ports, and they are known */
	uint16_t port;
	uint16_t published;           /* inbound flows: the port of the uplink */
	uint8_t protocol;             /* flows: IPPROTO_* */
	uint16_t type;                /* questions */
	struct domain name;           /* length 0: none known */
	bool has_sni;                 /* flows: `verify` decided, by what the flow itself asked for */
	struct domain sni;            /* that; length 0: it named nothing */
	enum reason reason;           /* denied and audit */
	char rule[DECISION_RULE_MAX]; /* "": none to be told */
	const char *what;             /* summaries: "packets", "questions" or "flows" */
	char action[DECISION_ACTION_MAX];
	uint64_t count;
	struct traffic traffic; /* ended flows */
	bool has_traffic;       /* summaries of flows: `traffic` is what they carried */
	bool has_duration;
	uint64_t duration; /* ms; ended flows */
};

/** decision_event_name() - "denied", as in the log. */
const char *decision_event_name(enum decision_event event);

/** decision_subject() - The name that the decision is about: what a flow itself asked for, when `verify` read that; length 0: none known.
 */
const struct domain *decision_subject(const struct decision *decision);

/** decision_protocol_name() - "tcp", "gre", "143". Return: @out or static text. */
const char *decision_protocol_name(uint8_t protocol, char out[static 8]);

/** decision_set_rule() - FILE:LINE of what decided; a file's name that is too long is cut. */
void decision_set_rule(struct decision *decision, const struct source *source);

/** decision_is_refusal() - Is it about what was refused, or would have been but for audit mode? */
bool decision_is_refusal(const struct decision *decision);

/** decision_add_traffic() - Add what another flow has carried. */
void decision_add_traffic(struct traffic *to, const struct traffic *more);

/** decision_write() - As a line of the log. */
void decision_write(struct log *log, const struct decision *decision);

#endif
