/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_DESCRIPTORS_H
#define SLUICE_GATEWAY_DESCRIPTORS_H

#include <uv.h>

/* Two less than a power of two: so libuv's table has just that size. 512 networks listen at 8 sockets each; the rest is for clients. */
#define DESCRIPTORS_MAX 32766

/**
 * descriptors_reserve() - As many descriptors as there may be, DESCRIPTORS_MAX at most: hundreds of sockets for upstreams and, for each
 * network, listeners and TCP connections
 *
 * Whatever libuv needs to watch them is allocated here. Where it has no memory for that later, it aborts.
 *
 * Return: 0 or -errno.
 */
int descriptors_reserve(uv_loop_t *loop);

#endif
