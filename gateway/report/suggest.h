/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_SUGGEST_H
#define SLUICE_GATEWAY_REPORT_SUGGEST_H

/*
 * Pure: rules for what audit mode let pass (and, when asked for, for what was denied), from the rows of the statistics. What the running
 * policy allows already is left out; what no rule can allow is listed with the reason.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <jansson.h>

#include "common/lease.h"
#include "gateway/report/rule_text.h"
#include "gateway/report/stats.h"

#define SUGGEST_RULES_MAX   4096 /* of one network; what is above is counted */
#define SUGGEST_SKIPPED_MAX 256
#define SUGGEST_APPS_MAX    8 /* that are named with a rule */
#define SUGGEST_CHAIN_MAX   4 /* names of a CNAME chain that are named with a rule */
#define SUGGEST_SIBLINGS    4 /* names with the same parent and ports for which a wildcard is proposed */

/* One rule, and where it comes from. */
struct suggestion {
	struct rule rule;                               /* RULE_NAME for one name, or RULE_ADDRESS for one address */
	char *text;                                     /* owned: the rule as a policy has it */
	uint64_t flows, questions;                      /* that it would have allowed */
	char apps[SUGGEST_APPS_MAX][APPS_NAME_MAX + 1]; /* or the source address, when an app's name is not known */
	size_t app_count;
	bool more_apps;       /* there are others */
	struct domain *chain; /* owned: where an answer for the name led through */
	size_t chain_count;
	const char *note; /* static; NULL: none */
	bool is_guess;    /* its ports: there was no flow */
	char *known_as;   /* owned: addresses: what another network knows it by; NULL: nothing */
};

/* A pattern that could stand for several of the rules. */
struct suggest_wildcard {
	struct rule rule;
	char *text; /* owned */
	struct domain parent;
	size_t first, count; /* the rules are neighbours in the list */
	uint64_t flows;
};

struct suggest_skipped {
	char *what, *why; /* owned */
	uint64_t count;   /* flows and questions */
};

struct suggestions {
	char section[POLICY_NAME_MAX + 1]; /* a name for a [rules] section that no network uses yet */
	struct suggestion *rules;          /* owned; names first, those with the same parent together */
	size_t rule_count;
	struct suggest_wildcard *wildcards; /* owned; in the order of the rules */
	size_t wildcard_count;
	struct suggest_skipped *skipped; /* owned */
	size_t skipped_count;
	uint64_t more_rules, more_skipped; /* flows and questions for which there was no room */
};

/* Where rows come from: stats_each(), but for tests. Rows, of any networks, are asked for twice, and must not change in between. */
struct suggest_rows {
	void (*each)(const void *context, void (*visit)(void *visit_context, const struct stats_row *row), void *visit_context);
	const void *context;
};

/**
 * suggest_make() - Suggest rules for one network
 * @leases:	NULL: nothing is known
 * @denied:	also for what was denied
 * Return: 0 or -ENOMEM; free with suggest_free() in any case.
 *
 * The network's rules and those suggested, wildcards included, load together: port specifications are made fewer when there would be too
 * many.
 */
int suggest_make(const struct policy *policy, const struct network *network, struct lease_table *leases, const struct suggest_rows *rows,
		 bool denied, time_t wall, struct suggestions *out);
void suggest_free(struct suggestions *suggestions);

/** suggest_answer() - The control command "suggest" (docs/control-protocol.md). Return: a new reference. */
json_t *suggest_answer(const struct policy *policy, const struct stats *stats, struct lease_table *leases, const json_t *request);

#endif
