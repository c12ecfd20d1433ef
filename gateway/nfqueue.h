/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_NFQUEUE_H
#define SLUICE_GATEWAY_NFQUEUE_H

/*
 * The packet queue: packets in, verdicts out. The only user of libnetfilter_queue. Fail closed: no bypass, no fail-open.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "common/address.h"

#define NFQUEUE_COPY_BYTES 160   /* of each packet: IPv6 header, some extension headers, TCP header */
#define NFQUEUE_COPY_WHOLE 65531 /* the largest that fits into one attribute */
#define NFQUEUE_LENGTH     16384 /* packets that may wait in the kernel: more than our socket holds, see nfqueue.c */
#define NFQUEUE_HELD_MAX   256   /* packets whose verdict may come later, of the queue of what is denied */
#define NFQUEUE_HOLD       UINT32_MAX

struct queued_packet {
	uint32_t id;
	uint32_t opening;                         /* which opening of the socket the id belongs to */
	uint8_t hook;                             /* NF_INET_FORWARD, NF_INET_LOCAL_IN, or NF_INET_PRE_ROUTING */
	unsigned int in_interface, out_interface; /* ifindex; out is known in the forward hook only, else 0 */
	const uint8_t *payload;
	size_t size;   /* bytes copied */
	bool several;  /* UDP: may be several datagrams behind one header, which the kernel carries as one (GSO) */
	uint32_t mark; /* of the packet */
	bool has_original;
	struct address original; /* where its flow was sent to first, before any translation: the virtual address, where there is one */
};

/*
 * Decide about one packet. Return: the mark to accept it with (the same base chain sees it once more, and must not queue it again; in input
 * a later one does), 0 to drop it silently, or NFQUEUE_HOLD: nfqueue_verdict() will be called for it, and for no more
 * than options.held packets at a time.
 */
typedef uint32_t (*nfqueue_decide)(void *context, const struct queued_packet *packet);

struct nfqueue; /* nfqueue.c */

struct nfqueue_options {
	uint32_t copy; /* octets of each packet, up to NFQUEUE_COPY_WHOLE */
	uint32_t held; /* packets whose verdict may come later, up to NFQUEUE_LENGTH / 2; the kernel keeps each whole, up to 64 KiB */
	bool original; /* look up queued_packet.original, where the kernel can (CONFIG_NETFILTER_NETLINK_GLUE_CT) */
	bool split;    /* what the kernel carries as one packet (GSO) comes as the packets that will be on the wire */
	bool repeat;   /* packets that are accepted go through their chain once more, which sees the mark, in every hook */
};

/**
 * nfqueue_open() - Bind the queue and watch it on the loop
 *
 * Packets are copied into one buffer, one after the other. Return: 0 with @out set, or -errno (-EBUSY: somebody else has the queue).
 */
int nfqueue_open(uv_loop_t *loop, uint16_t number, const struct nfqueue_options *options, nfqueue_decide decide, void *context,
		 struct nfqueue **out);
/** nfqueue_close() - Unbind; packets that still wait are dropped by the kernel. Memory goes when the loop has run the close callback. */
void nfqueue_close(struct nfqueue *queue);

/** nfqueue_verdict() - The mark for a packet that was held, as nfqueue_decide returns it. A packet that is gone by now does not matter. */
void nfqueue_verdict(struct nfqueue *queue, const struct queued_packet *packet, uint32_t mark);

/**
 * nfqueue_dropped() - Packets that the kernel dropped because the queue or its socket was full, since nfqueue_open()
 *
 * Exact for the socket, which overflows first; what it lost last shows when the next packet comes. Drops of the queue itself are only seen
 * by a process that may read /proc/net/netfilter/nfnetlink_queue.
 *
 * Return: 0.
 */
int nfqueue_dropped(const struct nfqueue *queue, uint64_t *packets);

#endif
