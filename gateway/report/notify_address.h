/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_NOTIFY_ADDRESS_H
#define SLUICE_GATEWAY_REPORT_NOTIFY_ADDRESS_H

/*
 * Where the server of notifications is. A container (a name with one label, or one that only Docker knows) is asked of Docker's resolver,
 * any other name of our own upstreams. Only the policy chooses what is asked.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "common/address.h"
#include "common/policy.h"
#include "resolver/resolver.h"

#define NOTIFY_ADDRESSES_MAX     8     /* of both families together */
#define NOTIFY_DOCKER_TIMEOUT_MS 10000 /* Docker's upstream servers take some seconds to fail; then Docker does not know the name */

/**
 * notify_address_check() - May notifications be sent to this address?
 * @why:	what is wrong with it, and what to do
 *
 * Not to the gateway itself, not into a network of apps: there anybody could have taken the address. Other private space is fine.
 */
bool notify_address_check(const struct policy *policy, const struct address *address, char *why, size_t why_size);

struct notify_address; /* notify_address.c */

/**
 * notify_found - A question has been answered
 * @count:	0: there is no address; then @why says so
 */
typedef void (*notify_found)(void *context, const struct address *list, size_t count, const char *why);

/** notify_address_new() - @resolver outlives it. @port: of Docker's resolver, DOCKER_PORT but in tests. Return: NULL: out of memory. */
struct notify_address *notify_address_new(uv_loop_t *loop, struct resolver *resolver, uint16_t port);
void notify_address_close(struct notify_address *address);

/**
 * notify_address_find() - Look a host up; nothing may be under way
 * @host:	a name, or an address
 * @found:	called once, perhaps before this returns, unless cancelled
 */
void notify_address_find(struct notify_address *address, const struct policy *policy, const char *host, notify_found found, void *context);

/** notify_address_cancel() - Forget what is under way. */
void notify_address_cancel(struct notify_address *address);

#endif
