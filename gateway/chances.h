/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_CHANCES_H
#define SLUICE_GATEWAY_CHANCES_H

/*
 * The second chance, for apps that cache addresses for ever: the first packet of a flow to an address whose lease has ended, of a name that
 * is still allowed, is held while the name is asked again. When the answer still shows the address there is a lease anew, and it passes.
 */

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "gateway/classify.h"
#include "gateway/nfqueue.h"

#define CHANCES_MAX         NFQUEUE_HELD_MAX /* packets held; more: denied at once */
#define CHANCES_NETWORK_MAX 64               /* of them from one network */
#define CHANCES_MS          1000             /* a packet is held no longer */

struct gateway;
struct chances; /* chances.c */

/** chances_new() - Return: NULL when out of memory. */
struct chances *chances_new(struct gateway *gateway);
/** chances_close() - Held packets get no verdict: they are dropped with the queue. Memory goes when the loop has run the close callback. */
void chances_close(struct chances *chances);

/**
 * chances_take() - Hold a packet that is about to be denied because its lease has ended
 * Return: false: nothing can be asked, or too many are held. When true, traffic_settle() is called for it within CHANCES_MS.
 */
bool chances_take(struct chances *chances, const struct network *network, const struct queued_packet *packet, const struct flow *flow);

#endif
