/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_VERIFY_READINGS_H
#define SLUICE_GATEWAY_VERIFY_READINGS_H

/*
 * Allowed flows whose name is being read: packets of their client in, until it is known what they ask for. No packet that carries octets
 * passes before. Pure but for the memory: no socket, clock or policy.
 *
 * Bounded: flows, the packets that they hold and the octets that they keep, each in all and of one network. The flow that has held nothing
 * for longest makes room.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/classify.h"
#include "gateway/verify/inspect.h"

#define READINGS_MAX          16384       /* flows; here as below, half of it of one network */
#define READINGS_HELD_ALL_MAX 4096        /* packets of all flows */
#define READINGS_HELD_MAX     24          /* packets of one flow: more than a first congestion window has */
#define READINGS_OCTETS_MAX   (32U << 20) /* of beginnings that are kept to be compared */
#define READINGS_REFUSED_MS   10000       /* how long a UDP flow that was refused is known: its client sends the same again */
#define READINGS_MS           3000        /* a flow that has begun to send says its name within this time */
#define READINGS_AGREED_MS    1000        /* how long a TCP flow that is done is known: packets of it may wait to be looked at */

/* One packet that waits. */
struct reading_packet {
	uint32_t id; /* whatever the caller knows it by */
	uint32_t opening;
	bool several;           /* UDP: may be several datagrams in one */
	const uint8_t *content; /* UDP: owned by the reading; TCP: NULL, since a TCP packet is let go as it is */
	size_t content_size;
};

enum reading_step {
	READING_PASS,    /* it says nothing new: let it go, the flow stays as it is */
	READING_HOLD,    /* kept; more is needed */
	READING_DONE,    /* the packet is kept as well; the result is there */
	READING_AGREED,  /* TCP: the server has what was read, and no packet of the flow need be looked at again */
	READING_REFUSED, /* what was refused before, once more */
	READING_FULL,    /* there is no room, or it must not pass: drop it */
};

struct reading; /* readings.c */
struct readings;

struct readings *readings_new(void);
void readings_free(struct readings *readings);

/* What the kernel knows of the flow that a packet belongs to. */
enum reading_flow {
	READING_FLOW_NEW,      /* it is the flow's first packet */
	READING_FLOW_UNREAD,   /* its name is still to be read, or the server has not taken it yet */
	READING_FLOW_VERIFIED, /* UDP: its name was read; only what could begin another QUIC connection is looked at */
};

struct reading_origin {
	uint16_t network;
	uint32_t connection; /* conntrack's id of a TCP flow: two flows may look alike behind a translation. UDP: ignored */
	enum reading_flow known;
};

/**
 * readings_take() - The next packet of a flow's client
 * @packet:	kept when it is held; its content is taken from @flow
 * @out:	with READING_HOLD and READING_DONE: the reading, valid until it is ended, settled or refused
 *
 * TCP: the client's stream begins where the server says, in its SYN+ACK (readings_answer()). What comes without one that was seen is
 * broken: where a stream begins may not be left to what a client says, since it could name a good host at numbers that the server takes
 * for others.
 */
enum reading_step readings_take(struct readings *readings, const struct reading_origin *origin, const struct flow *flow,
				const struct reading_packet *packet, uint64_t now, struct reading **out);

/**
 * readings_answer() - A packet of a TCP flow's server: READING_PASS, READING_FULL or READING_AGREED
 * @flow:	as if it were the client's, with the ends exchanged
 *
 * A name that was read says nothing about what the server reads, while other octets could take its place: packets can be made to get
 * lost between us and the server, or to be ignored by it. So until it has acknowledged the beginning, that must not change.
 */
enum reading_step readings_answer(struct readings *readings, const struct reading_origin *origin, const struct flow *flow, uint64_t now);

/** reading_result() - Of one that is done: INSPECT_MORE never. @name: valid with INSPECT_NAME. */
enum inspect_result reading_result(const struct reading *reading, const struct domain **name);

/** reading_flow() / reading_network() / reading_packets() - What it is about, and what it holds, in the order in which it came. */
const struct flow *reading_flow(const struct reading *reading);
uint16_t reading_network(const struct reading *reading);
const struct reading_packet *reading_packets(const struct reading *reading, size_t *count);

/**
 * reading_next() - TCP: the sequence number that the server waits for
 * @second:	set to another one that it may be as well; the same where there is none
 */
uint32_t reading_next(const struct reading *reading, uint32_t *second);

/** readings_overdue() - One that holds packets and began before @now - READINGS_MS, to be ended as broken; NULL: none. To be asked often.
 */
struct reading *readings_overdue(struct readings *readings, uint64_t now);

/** reading_is_verified() - What it holds is of a flow that had been let out before. */
bool reading_is_verified(const struct reading *reading);

/** reading_has_to_agree() - TCP: what its client sends is to be looked at until the server has the beginning. */
bool reading_has_to_agree(const struct reading *reading);

/** readings_end() - Its packets have their verdicts. */
void readings_end(struct readings *readings, struct reading *reading);

/**
 * readings_settle() - The same, and what was read may pass: when its client sends the same once more, that passes
 *
 * TCP: and nothing else in its place, until the server has it. For QUIC it is remembered which connection that was, while there is room.
 */
void readings_settle(struct readings *readings, struct reading *reading);

/** readings_refuse() - As readings_settle(), but what comes once more is refused as well. */
void readings_refuse(struct readings *readings, struct reading *reading, uint64_t now);

size_t readings_count(const struct readings *readings);

#endif
