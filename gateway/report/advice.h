/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_ADVICE_H
#define SLUICE_GATEWAY_REPORT_ADVICE_H

/*
 * Pure: which rule would let something pass that was denied (or that only audit mode let pass), and what that opens; or why no rule can,
 * and what to do instead.
 */

#include <jansson.h>

#include "gateway/report/rule_text.h"
#include "gateway/report/verdict.h"

#define ADVICE_TEXT_MAX 2048 /* octets of a sentence, names of any length included */

struct advice {
	bool possible;                      /* false: see `error`, and nothing else is set */
	char section[POLICY_NAME_MAX + 16]; /* "network web": where the line belongs */
	char rule[RULE_TEXT_MAX];           /* "": no rule is needed, only what the line or the change says */
	char line[RULE_TEXT_MAX + 16];      /* "allow = evil.example:443/tcp"; "": none */
	char opens[ADVICE_TEXT_MAX];        /* what all that opens */
	char change[ADVICE_TEXT_MAX];       /* the deny rules that have to be changed; "": none */
	char note[ADVICE_TEXT_MAX];         /* what else there is to know; "": nothing */
	char error[ADVICE_TEXT_MAX];        /* why there is no rule */
};

/** advice_on_reason() - Why no rule lifts such a denial, and what to do instead. Return: a static text; NULL: a rule may. */
const char *advice_on_reason(enum reason reason);

/** advice_on_reverse() - Why names of reverse look-ups need no rule. */
const char *advice_on_reverse(void);

/** advice_on_address() - Why no rule for this address has an effect on a network, or NULL. */
const char *advice_on_address(const struct network *network, const struct address *address);

/**
 * advice_give() - About one denial
 * @reason:	the one that the decision had
 */
void advice_give(const struct verdicts *verdicts, const struct verdict_target *target, enum reason reason, struct advice *out);

/** advice_answer() - The control command "advise" (docs/control-protocol.md). Return: a new reference. */
json_t *advice_answer(const struct policy *policy, const struct lease_table *leases, const json_t *request);

#endif
