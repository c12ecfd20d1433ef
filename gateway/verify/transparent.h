/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_VERIFY_TRANSPARENT_H
#define SLUICE_GATEWAY_VERIFY_TRANSPARENT_H

/*
 * Packets sent from an app's address, as part of a flow of the app's: through sockets with IP_TRANSPARENT, which CAP_NET_ADMIN allows
 * (raw sockets would need more). conntrack finds the flow and translates them as it does the app's own.
 */

#include <stddef.h>
#include <stdint.h>

#include "gateway/classify.h"

/** transparent_send() - A datagram of a UDP flow. @flow: destination as the app has it. Return: 0 or -errno. */
int transparent_send(const struct flow *flow, const uint8_t *content, size_t size);

/**
 * transparent_reset() - End a TCP connection at its server: RST, as if the app had sent it
 * @sequence:	what the server expects next
 * Return: 0 or -errno.
 */
int transparent_reset(const struct flow *flow, uint32_t sequence);

#endif
