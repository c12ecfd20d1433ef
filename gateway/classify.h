/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_CLASSIFY_H
#define SLUICE_GATEWAY_CLASSIFY_H

/*
 * Pure: bytes of a queued packet -> struct flow; struct flow + policy + leases -> why it is denied. Reads hostile bytes; fuzzed.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "common/address.h"
#include "common/lease.h"
#include "common/policy.h"

/* What the first bytes of a packet say about its flow. */
struct flow {
	struct address source, destination;
	uint8_t protocol;     /* IPPROTO_*, after IPv6 extension headers */
	uint16_t source_port; /* host order; 0 when the protocol has none or the packet is a later fragment */
	uint16_t destination_port;
	uint8_t tcp_flags;
	uint8_t icmp_type;
	bool fragment;          /* not the first fragment */
	uint32_t sequence;      /* TCP: of the first octet of the content */
	uint32_t acknowledged;  /* TCP: the next octet that is expected of the other end */
	const uint8_t *content; /* in the packet: what TCP or UDP carries, as far as it was copied; NULL: it has no such part */
	size_t content_size;
};

/* What conntrack tells flows apart by. Compared as bytes: made by flow_key(), which zeroes the padding. */
struct flow_key {
	struct address source, destination;
	uint16_t source_port, destination_port;
	uint8_t protocol;
};

struct flow_key flow_key(const struct flow *flow);

/**
 * classify_packet() - Parse an IPv4 or IPv6 packet as far as it was copied
 * Return: false when it is malformed; addresses are filled in when the IP header itself was whole.
 */
bool classify_packet(const uint8_t *packet, size_t size, struct flow *out);

/* Why a flow is denied, or that audit mode lets it pass. */
struct denial {
	bool audited;
	enum reason reason;
	const struct rule *rule; /* NULL: the default */
	struct domain name;      /* length 0: no name known */
	struct address real;     /* where the virtual address leads; family 0: it is none, or leads nowhere */
	bool has_sni;            /* `verify` decided, by what the flow itself asked for */
	struct domain sni;       /* that; length 0: it named nothing */
	bool shown;              /* an answer showed the destination to this network, now or once */
};

/**
 * classify_judge() - Why does this flow not pass?
 * @network:	where it came from
 * @parsed:	what classify_packet() returned
 * @local:	the packet was for the gateway itself (input hook)
 *
 * The kernel has already found that no rule and no lease lets it pass; this says why, by the same policy functions. Should policy and
 * leases say that it is allowed (the lease was granted between the kernel's look and ours), reason is REASON_NONE and the packet may pass.
 */
struct denial classify_judge(const struct policy *policy, const struct network *network, const struct lease_table *leases,
			     const struct flow *flow, bool parsed, bool local, uint64_t now, time_t wall);

/** classify_audit_lifts() - Audit mode lifts "no rule allows this name, port or address", and that a lease has ended; nothing else. */
bool classify_audit_lifts(enum reason reason);

#endif
