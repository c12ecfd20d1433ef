/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_TARGETS_H
#define SLUICE_GATEWAY_TARGETS_H

/*
 * Where the containers are that `publish` names: asked of Docker's resolver at start, after a reload and then every TARGETS_POLL_MS.
 *
 * Only names of the policy are asked for. Of an answer only addresses inside the network's own subnets count: the container may be on other
 * networks as well, and while there is no such container Docker passes the question on to its own upstream servers.
 */

#include <uv.h>

#include "common/log.h"
#include "common/policy.h"
#include "gateway/interfaces.h"
#include "gateway/openings.h"

#define TARGETS_POLL_MS    2000
#define TARGETS_TIMEOUT_MS 10000 /* Docker's upstream servers take some seconds to fail; then Docker does not know the name */
#define TARGETS_SETTLE_MS  10    /* IPv4 and IPv6 answers that come together are one change */
#define TARGETS_MISSING    5     /* answers without an address in a row before a container that never was there is called missing */

struct targets; /* targets.c */

/** targets_changed - An address has changed: openings are other ones than before. */
typedef void (*targets_changed)(void *context);

/* Zero: the constants above, and DOCKER_PORT. */
struct targets_options {
	uint16_t port;
	uint32_t poll_ms, timeout_ms;
};

/**
 * targets_new() - @memory: a descriptor of memory.h: the addresses that the worker before knew, and this one for the next; -1: none
 * Return: NULL when out of memory.
 */
struct targets *targets_new(uv_loop_t *loop, struct log *log, int memory, const struct targets_options *options, targets_changed changed,
			    void *context);
void targets_close(struct targets *targets);

/**
 * targets_openings() - What a policy lets in, as far as containers are known and their networks are there
 * @out:	filled; its entries point into @policy
 * Return: 0 or -ENOMEM.
 */
int targets_openings(const struct targets *targets, const struct policy *policy, const struct interfaces *interfaces, struct openings *out);

/**
 * targets_set_policy() - Follow the names of this policy, which stays valid until the next call; ask for all of them now
 * Return: 0 or -ENOMEM: some are not followed.
 */
int targets_set_policy(struct targets *targets, const struct policy *policy);

#endif
