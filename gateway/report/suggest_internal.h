/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_SUGGEST_INTERNAL_H
#define SLUICE_GATEWAY_REPORT_SUGGEST_INTERNAL_H

/* What suggest.c and suggest_shape.c share; nobody else includes this. */

#include "gateway/report/suggest.h"

/** suggest_skip() - List something that gets no rule; the same text twice is one entry. Return: 0 or -ENOMEM. */
int suggest_skip(struct suggestions *suggestions, const char *what, const char *why, uint64_t count);

/** suggest_drop() - Release what a suggestion owns. */
void suggest_drop(struct suggestion *suggestion);

/** suggest_add_port() - One port more. Return: false when there are too many ranges, so that the nearest one was widened up to it. */
bool suggest_add_port(struct ports *ports, uint8_t protocol, uint16_t port);

/**
 * suggest_shape() - Make the collected rules a list: texts, order, no more port specifications than the network may have, wildcards
 * Return: 0 or -ENOMEM.
 */
int suggest_shape(const struct network *network, struct suggestions *suggestions);

#endif
