/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_OPENINGS_H
#define SLUICE_GATEWAY_OPENINGS_H

/*
 * What may come in from the uplink: `publish` entries whose containers' addresses are known, one opening for each protocol and family.
 * targets.c makes them from a policy; the kernel's rules, the end of flows and the log go by them.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/policy.h"

struct opening {
	uint16_t network;              /* id */
	uint8_t protocol;              /* IPPROTO_TCP or IPPROTO_UDP */
	struct port_range ports;       /* of the uplink's addresses */
	struct address target;         /* of the container */
	uint16_t target_port;          /* of ports.first */
	const struct publish *publish; /* of the policy that it was made from */
};

struct openings {
	struct opening *list; /* owned */
	size_t count;
};

/** openings_add() - Return: 0 or -ENOMEM. */
int openings_add(struct openings *openings, const struct opening *opening);

/** openings_find() - The opening through which a flow to @port of the uplink leads to @target_port of @target, or NULL. */
const struct opening *openings_find(const struct openings *openings, uint8_t protocol, uint16_t port, const struct address *target,
				    uint16_t target_port);

/** openings_equal() - Do both let in the same? */
bool openings_equal(const struct openings *a, const struct openings *b);

/** openings_free() - Empty afterwards. */
void openings_free(struct openings *openings);

#endif
