/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_VERIFY_VERIFY_H
#define SLUICE_GATEWAY_VERIFY_VERIFY_H

/*
 * `verify`: the first octets that an app sends in an allowed flow must name a host that its network may reach (docs/verify.md).
 */

#include "gateway/nfqueue.h"

#define VERIFY_LINES_MS    20  /* a line about a flow that is ended every so many ms, per network ... */
#define VERIFY_LINES_BURST 100 /* ... and so many at once; further ones are counted */
#define VERIFY_TICK_MS     100 /* how often flows that take too long are looked for */

struct gateway;
struct verify; /* verify.c */

/** verify_new() - Bind the queue of flows whose name is to be read. Return: 0 with @out set, or -errno. */
int verify_new(struct gateway *gateway, struct verify **out);

/** verify_close() - What is held is dropped. Memory goes when the loop has run the close callbacks. NULL is fine. */
void verify_close(struct verify *verify);

/** verify_reading() - How many flows are being read. */
size_t verify_reading(const struct verify *verify);

#endif
