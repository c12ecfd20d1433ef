/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_VERDICT_H
#define SLUICE_GATEWAY_REPORT_VERDICT_H

/*
 * Pure: what the running policy says about something that was denied, or that audit mode let pass, some time ago. By the functions that the
 * data plane asks, but without audit mode; for who gives advice about rules.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "common/lease.h"
#include "common/policy.h"

/* Of one network. */
struct verdicts {
	const struct policy *policy;
	const struct network *network;
	const struct lease_table *leases; /* NULL: nothing is known */
	time_t wall;
	const struct rule **port_denies; /* owned: deny rules for names that name ports */
	size_t port_deny_count;
};

/* A destination. Valid as long as what it was made from. */
struct verdict_target {
	const struct domain *name; /* NULL: none */
	struct address address;    /* family 0: none */
	uint16_t port;             /* 0: not known, or none */
	uint8_t protocol;          /* 0: not known */
};

struct verdict {
	bool allowed;            /* without a port: on some port */
	enum reason reason;      /* REASON_NONE when allowed */
	const struct rule *rule; /* the rule that decided; NULL: the default */
	struct domain by;        /* names: which name the rule is about: the target's, or one of the CNAME chain */
	struct chain chain;      /* names: how an answer led to the address; valid until the lease table changes */
};

/** verdicts_open() - Return: 0 or -ENOMEM. The pointers stay the caller's. */
int verdicts_open(struct verdicts *verdicts, const struct policy *policy, const struct network *network, const struct lease_table *leases,
		  time_t wall);
void verdicts_close(struct verdicts *verdicts);

/**
 * verdict_is_foreign() - Is the address known by an answer to another network only?
 *
 * Then the target's name is that network's: a rule for it would open nothing here, where nobody asked for it.
 */
bool verdict_is_foreign(const struct verdicts *verdicts, const struct verdict_target *target);

/** verdict_of_name() - @target->name is given. A deny rule for some ports counts when the port is known. */
struct verdict verdict_of_name(const struct verdicts *verdicts, const struct verdict_target *target);

/** verdict_of_address() - Whatever names the address has: address rules alone. @target has an address, a protocol and a port. */
struct verdict verdict_of_address(const struct verdicts *verdicts, const struct verdict_target *target);

#endif
