/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_RESOLVER_JUDGE_H
#define SLUICE_RESOLVER_JUDGE_H

/*
 * Judging questions and answers: pure. Policy, families and records go in; what to do comes out. No socket, clock or log.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "common/address.h"
#include "common/policy.h"
#include "resolver/message.h"

#define JUDGE_CHAIN_MAX CHAIN_NAMES_MAX /* CNAMEs and DNAMEs followed in one answer, and from one answer to the next */

/* What to do with a question. */
enum question_step {
	QUESTION_LOOK_UP, /* cache, then upstream */
	QUESTION_DENY,    /* NXDOMAIN at once, EDE Blocked; logged */
	QUESTION_NODATA,  /* NOERROR without records: parent of an allowed name (logged as denied), or a missing family (not logged) */
	QUESTION_PTR,     /* answer from leases (judge does not know them); address is set. NXDOMAIN when there is none */
	QUESTION_ANY,     /* RFC 8482: one synthesized HINFO */
};

struct question_verdict {
	enum question_step step;
	bool denied; /* to be logged as a denial, with reason and rule */
	enum reason reason;
	const struct rule *rule;
	struct name_verdict name;
	struct address pointer; /* QUESTION_PTR */
};

/* Families that an app on the network can use: subnet on the network, and a route out of the uplink. */
struct families {
	bool ipv4, ipv6;
};

/** judge_question() - The first step for every question: policy before anything else. */
struct question_verdict judge_question(const struct network *network, const struct question *question, struct families families,
				       time_t now);

#define JUDGE_STALE     UINT32_MAX /* an age */
#define JUDGE_STALE_TTL 30         /* seconds; RFC 8767 section 4 */

/* An address that an allowed answer showed. */
struct shown_address {
	struct address address;
	uint32_t ttl;
};

/* What an answer comes to for one network. */
struct answer_verdict {
	struct answer *reply; /* owned by the caller: the records that the network may see; NULL when chase is set or out of memory */
	int ede;              /* EDE_NONE, EDE_FILTERED when records were taken out, EDE_BLOCKED when a deny rule matched */
	bool chase;           /* the chain ends in a name without the wanted records: ask for `target` and judge again */
	struct domain target; /* of the chase */
	struct answer *chain; /* owned by the caller; with chase: the chain so far, @chain of the next judge_answer(); else NULL */
	bool denied;          /* a deny rule matched a name of the chain, or every address was taken out by the rebinding filter */
	enum reason reason;
	const struct rule *rule;
	struct domain denied_name;   /* which name of the chain */
	struct shown_address *shown; /* owned by the caller (free()): to be granted before the reply leaves */
	size_t shown_count;
	uint8_t *names; /* owned by the caller (free()): of the chain after the question's, as struct chain has them; NULL: none */
	size_t names_length;
};

/**
 * judge_answer() - Decide what of an upstream's (or cached) answer a network may see
 * @chain:	`chain` of the verdict whose chase led here: its records are put in front (NULL when nothing was chased)
 * @age:	seconds since the upstream gave @answer; subtracted from its TTLs (those of @chain were reduced before). JUDGE_STALE: it is
 *		past its end and serves for want of a better one; its TTLs are JUDGE_STALE_TTL
 *
 * - Records must be of the question's name or its CNAME/DNAME chain, others are dropped; loops and more than JUDGE_CHAIN_MAX
 *   steps: SERVFAIL.
 * - `deny` applies to every name of the chain: denied, NXDOMAIN.
 * - A and AAAA records that policy_answer_may_show() refuses are dropped (with RRSIGs of that set); none left: NODATA, denied,
 *   REASON_REBINDING.
 * - At most lifetimes.max_addresses addresses are shown; `shown` lists exactly those that the reply carries.
 * - TTLs are clamped to lifetime_seconds().
 * - HTTPS and SVCB: ipv4hint and ipv6hint (keys 4, 6) are removed; a record that lists them as mandatory, whose target is not
 *   allowed for the network, or whose port no specification of the target covers, is dropped.
 * - NXDOMAIN and NODATA keep the authority SOA (negative caching by the app), unless records were taken out.
 */
struct answer_verdict judge_answer(const struct policy *policy, const struct network *network, const struct question *question,
				   const struct answer *answer, const struct answer *chain, uint32_t age, time_t now);

/** judge_pointer_name() - Address of a name under in-addr.arpa or ip6.arpa. Return: false when it is no complete one. */
bool judge_pointer_name(const struct domain *name, struct address *out);

/** judge_is_reverse() - Is the name in-addr.arpa, ip6.arpa, or below? Such questions are not forwarded unless a rule says so. */
bool judge_is_reverse(const struct domain *name);

#endif
