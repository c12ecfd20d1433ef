/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_DENIALS_H
#define SLUICE_GATEWAY_DENIALS_H

/*
 * From a denial to the decision that is told: one for each denied flow or question, and summaries for what is above the rate. No denial is
 * uncounted.
 */

#include <jansson.h>
#include <uv.h>

#include "common/log.h"
#include "common/policy.h"
#include "gateway/classify.h"
#include "gateway/interfaces.h"
#include "gateway/report/named.h"
#include "resolver/resolver.h"

#define DENIALS_QUESTIONS_RATE 50    /* lines per second and network for denied questions; the rest goes into summaries */
#define DENIALS_SUMMARY_MS     10000 /* how often summaries are written */

struct denials; /* denials.c */

/**
 * denials_new() - @log, @named, @interfaces: the caller's; @restarted: another worker was there before (dns_path.h)
 * Return: NULL when out of memory.
 */
struct denials *denials_new(uv_loop_t *loop, struct log *log, struct named *named, struct interfaces *interfaces, bool restarted);
/**
 * denials_close() - Tell all summaries, then close; before named_close()
 *
 * Afterwards nothing of the caller's is used any more. Memory goes when the loop has run the close callbacks.
 */
void denials_close(struct denials *denials);

/** denials_flow() - A flow was denied (or let in by audit mode). @network's name is copied. */
void denials_flow(struct denials *denials, const struct network *network, const struct interface *interface, const struct flow *flow,
		  const struct denial *denial, const char *action);

/** denials_asked() - A question came in, whatever becomes of it: who asks us needs no advice about DNS (dns_path.h). */
void denials_asked(struct denials *denials, const struct policy *policy, uint16_t id, const struct address *client);

/** denials_question() - A question was denied. */
void denials_question(struct denials *denials, const struct network *network, const struct interface *interface,
		      const struct denied_question *question);

/** denials_counted() - The kernel refused packets on its own (counters.h). @network, @source: NULL when it is not known whose they were. */
void denials_counted(struct denials *denials, const struct network *network, const struct address *source, enum reason reason,
		     uint64_t packets);

/** denials_strangers() - dns_path_strangers(). */
json_t *denials_strangers(const struct denials *denials);

#endif
