/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * TCP: SYN begins a reading, SYN+ACK says where the client's stream begins: with the octet that the server waits for. A server has one such
 * number; a SYN+ACK with another one would make us read other octets than it does, and is dropped. Segments are put behind that beginning
 * in any order. When it has been read, and may pass, its octets stay here, and each further segment must agree with them, until the server
 * has acknowledged all of them. After that nothing can take their place.
 *
 * UDP: datagrams are read one after the other, since each is whole. What was read of a QUIC connection stays, for what comes again.
 *
 * A reading is in one list at a time, in the order in which it came there: those that hold packets in one list of all networks (so who is
 * overdue is at its head), TCP flows that are done in another, and the others in two lists of their network, from which they go when there
 * is no room.
 */
#include "gateway/verify/readings.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "common/hash.h"

#define HALF(most) ((most) / 2)

/*
 * How long a flow that the server has answered is kept at least. A server with SYN cookies remembers nothing of it, and could give another
 * number for the same flow meanwhile, and go by the first one: Linux takes a cookie back for two minutes.
 */
#define ANSWERED_MS 300000
#define FEW         (READINGS_MAX / 16) /* a network with fewer flows than this takes room from one that has more */

/* Compared as bytes: made by reading_key(), which zeroes the padding. */
struct reading_key {
	struct flow_key flow;
	uint32_t connection;
	uint16_t network;
};

/* What a network has. */
struct share {
	UT_hash_handle hh;
	uint16_t network;
	size_t flows, held;
	uint32_t octets;
	struct reading *spare; /* list: TCP that no server has answered yet, UDP that was decided; what comes again is read again */
	struct reading *idle;  /* list: others that hold nothing */
};

enum reading_state {
	STATE_READ,    /* its octets are being read */
	STATE_SAID,    /* TCP: they may pass, and are to stay as they are until the server has them */
	STATE_AGREED,  /* TCP: it has them */
	STATE_SETTLED, /* UDP */
	STATE_REFUSED, /* UDP */
};

struct reading {
	UT_hash_handle hh;
	struct reading_key key;
	struct share *share;
	struct reading *prev, *next;
	struct reading **list; /* the one that it is in */
	uint64_t since;        /* ms: it is in that list */
	struct flow flow;      /* of the first packet; its content is gone */
	enum reading_state state;
	bool verified; /* the flow was before */
	bool has_base;
	uint32_t base;                  /* TCP: the number of the client's first octet; without has_base, of one that came */
	struct assembly stream;         /* TCP */
	struct quic quic;               /* UDP */
	uint32_t octets;                /* that these two take */
	struct reading_packet *packets; /* owned: READINGS_HELD_MAX, or NULL */
	size_t count;
	enum inspect_result result;
	struct domain name;
};

struct readings {
	struct reading *table;   /* owned, hash */
	struct share *shares;    /* owned, hash by network */
	struct reading *holding; /* list: they hold packets */
	struct reading *agreed;  /* list */
	size_t held;             /* packets of all of them */
	uint32_t octets;
	struct hello_reader *reader;
};

struct readings *readings_new(void)
{
	struct readings *readings = calloc(1, sizeof(*readings));

	if (!readings)
		return NULL;
	readings->reader = hello_reader_new();
	if (readings->reader)
		return readings;
	free(readings);
	return NULL;
}

static void move(struct reading *reading, struct reading **list, uint64_t now)
{
	if (reading->list)
		DL_DELETE(*reading->list, reading);
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what has made room is in no list any more */
	DL_APPEND(*list, reading);
	reading->list = list;
	reading->since = now;
}

static void count_octets(struct readings *readings, struct reading *reading)
{
	uint32_t octets = (uint32_t)(reading->stream.capacity + reading->quic.hello.capacity);

	readings->octets += octets - reading->octets;
	reading->share->octets += octets - reading->octets;
	reading->octets = octets;
}

static void forget_packets(struct readings *readings, struct reading *reading)
{
	readings->held -= reading->count;
	reading->share->held -= reading->count;
	for (size_t i = 0; i < reading->count; i++)
		free((void *)(uintptr_t)reading->packets[i].content);
	free(reading->packets);
	reading->packets = NULL;
	reading->count = 0;
}

static void forget_octets(struct readings *readings, struct reading *reading)
{
	assembly_free(&reading->stream);
	assembly_free(&reading->quic.hello);
	count_octets(readings, reading);
}

void readings_end(struct readings *readings, struct reading *reading)
{
	HASH_DEL(readings->table, reading);
	DL_DELETE(*reading->list, reading);
	forget_packets(readings, reading);
	forget_octets(readings, reading);
	quic_free(&reading->quic);
	reading->share->flows--;
	free(reading);
}

bool reading_has_to_agree(const struct reading *reading)
{
	return reading->flow.protocol == IPPROTO_TCP && reading->has_base;
}

void readings_settle(struct readings *readings, struct reading *reading)
{
	bool tcp = reading_has_to_agree(reading);

	if (!tcp && reading->quic.version == 0) {
		readings_end(readings, reading);
		return;
	}
	forget_packets(readings, reading);
	reading->state = tcp ? STATE_SAID : STATE_SETTLED;
	move(reading, tcp ? &reading->share->idle : &reading->share->spare, reading->since);
}

void readings_refuse(struct readings *readings, struct reading *reading, uint64_t now)
{
	if (reading->flow.protocol != IPPROTO_UDP) {
		readings_end(readings, reading);
		return;
	}
	forget_packets(readings, reading);
	forget_octets(readings, reading);
	reading->state = STATE_REFUSED;
	move(reading, &reading->share->spare, now);
}

void readings_free(struct readings *readings)
{
	struct reading *reading, *next;
	struct share *share, *following;

	if (!readings)
		return;
	HASH_ITER (hh, readings->table, reading, next)
		readings_end(readings, reading);
	HASH_ITER (hh, readings->shares, share, following) {
		HASH_DEL(readings->shares, share);
		free(share);
	}
	hello_reader_free(readings->reader);
	free(readings);
}

size_t readings_count(const struct readings *readings)
{
	return HASH_COUNT(readings->table);
}

static struct reading_key reading_key(const struct reading_origin *origin, const struct flow *flow)
{
	const struct flow_key of_flow = flow_key(flow);
	struct reading_key key;

	memset(&key, 0, sizeof(key));
	memcpy(&key.flow, &of_flow, sizeof(of_flow)); /* with its padding, which is compared */
	key.connection = flow->protocol == IPPROTO_TCP ? origin->connection : 0;
	key.network = origin->network;
	return key;
}

static struct share *share_of(struct readings *readings, uint16_t network)
{
	struct share *share;

	HASH_FIND(hh, readings->shares, &network, sizeof(network), share);
	if (share)
		return share;
	share = calloc(1, sizeof(*share));
	if (!share)
		return NULL;
	share->network = network;
	HASH_ADD(hh, readings->shares, network, sizeof(share->network), share);
	if (share->hh.tbl)
		return share;
	free(share);
	return NULL;
}

static struct share *largest(struct readings *readings)
{
	struct share *share, *next, *found = readings->shares;

	HASH_ITER (hh, readings->shares, share, next) {
		if (share->flows > found->flows)
			found = share;
	}
	return found;
}

/* One whose end costs nobody anything, or at least nobody who still waits. */
static struct reading *dispensable(struct share *share, uint64_t now, bool any)
{
	if (share->spare)
		return share->spare;
	return share->idle && (any || now - share->idle->since >= ANSWERED_MS) ? share->idle : NULL;
}

/* Is there room for one more, if need be in the place of another? */
static bool make_room(struct readings *readings, struct share *share, uint64_t now)
{
	struct reading *idle = NULL;

	if (share->flows < HALF(READINGS_MAX) && HASH_COUNT(readings->table) < READINGS_MAX)
		return true;
	idle = dispensable(share, now, false);
	if (!idle && share->flows < FEW)
		idle = dispensable(largest(readings), now, true);
	if (idle)
		readings_end(readings, idle);
	return idle != NULL;
}

static struct reading *new_reading(struct readings *readings, const struct reading_origin *origin, const struct flow *flow, uint64_t now)
{
	struct share *share = share_of(readings, origin->network);
	struct reading *reading = share && make_room(readings, share, now) ? calloc(1, sizeof(*reading)) : NULL;

	if (!reading)
		return NULL;
	reading->key = reading_key(origin, flow);
	HASH_ADD(hh, readings->table, key, sizeof(reading->key), reading);
	if (!reading->hh.tbl) {
		free(reading);
		return NULL;
	}
	reading->flow = *flow;
	reading->flow.content = NULL;
	reading->flow.content_size = 0;
	reading->base = flow->sequence;
	reading->share = share;
	share->flows++;
	move(reading, &share->idle, now);
	return reading;
}

static struct reading *find(struct readings *readings, const struct reading_origin *origin, const struct flow *flow)
{
	struct reading_key key = reading_key(origin, flow);
	struct reading *reading;

	HASH_FIND(hh, readings->table, &key, sizeof(key), reading);
	return reading;
}

/* --- TCP --- */

static enum inspect_result of_assembly(enum assembly_result result)
{
	return result == ASSEMBLY_ADDED ? INSPECT_MORE : INSPECT_BROKEN;
}

/* Where the segment is in the stream. Sequence numbers go round (RFC 9293 section 3.4). */
static int32_t offset_of(const struct reading *reading, const struct flow *flow)
{
	return (int32_t)(flow->sequence - reading->base);
}

/* What lies behind the part that is kept cannot be of interest any more. */
static enum inspect_result read_segment(struct readings *readings, struct reading *reading, const struct flow *flow)
{
	enum inspect_result result = INSPECT_BROKEN;
	size_t at = (size_t)offset_of(reading, flow), left = at < ASSEMBLY_MAX ? ASSEMBLY_MAX - at : 0;

	if (reading->has_base && !(flow->tcp_flags & TH_URG))
		result = left == 0 ? INSPECT_MORE
				   : of_assembly(assembly_add(&reading->stream, at, flow->content,
							      flow->content_size < left ? flow->content_size : left));
	count_octets(readings, reading);
	return result == INSPECT_MORE ? inspect_stream(readings->reader, reading->stream.bytes, reading->stream.whole, &reading->name)
				      : result;
}

/* Octets that are urgent are not read at their place by everybody (RFC 6093 section 3.1), so they are nothing that one could agree with. */
static bool agrees(const struct reading *reading, const struct flow *flow)
{
	return !(flow->tcp_flags & TH_URG) &&
	       assembly_agrees(&reading->stream, (size_t)offset_of(reading, flow), flow->content, flow->content_size);
}

/* A first SYN begins anew. Which number it has does not matter: the server will say. */
static enum reading_step take_syn(struct readings *readings, const struct reading_origin *origin, const struct flow *flow, uint64_t now)
{
	struct reading *reading = find(readings, origin, flow);

	if (flow->content_size > 0)
		return READING_FULL; /* the client sends its octets again, behind the handshake */
	if (reading && origin->known == READING_FLOW_NEW) {
		readings_end(readings, reading);
		reading = NULL;
	}
	if (reading)
		return READING_PASS;
	reading = new_reading(readings, origin, flow, now);
	if (!reading)
		return READING_FULL;
	move(reading, &reading->share->spare, now);
	return READING_PASS;
}

static enum reading_step take_syn_ack(struct readings *readings, struct reading *reading, const struct reading_origin *origin,
				      const struct flow *flow, uint64_t now)
{
	if (!reading)
		reading = new_reading(readings, origin, flow, now);
	if (!reading)
		return READING_FULL;
	if (reading->has_base)
		return reading->base == flow->acknowledged ? READING_PASS : READING_FULL;
	reading->has_base = true;
	reading->base = flow->acknowledged;
	move(reading, &reading->share->idle, now);
	return READING_PASS;
}

enum reading_step readings_answer(struct readings *readings, const struct reading_origin *origin, const struct flow *flow, uint64_t now)
{
	struct reading *reading = find(readings, origin, flow);

	if (flow->tcp_flags & TH_SYN)
		return take_syn_ack(readings, reading, origin, flow, now);
	if (!reading || reading->state != STATE_SAID || !(flow->tcp_flags & TH_ACK) ||
	    (int32_t)(flow->acknowledged - reading->base) < (int32_t)reading->stream.whole)
		return READING_PASS;
	forget_octets(readings, reading);
	reading->state = STATE_AGREED;
	move(reading, &readings->agreed, now);
	return READING_AGREED;
}

/* What need not be held. READING_HOLD: what must. */
static enum reading_step recall_stream(const struct reading *reading, const struct flow *flow)
{
	if (!reading)
		return READING_HOLD;
	if (reading->state == STATE_AGREED)
		return READING_PASS;
	/* The server has what is there before the beginning: SYN. No octet is in its place; some clients send one to see who is alive. */
	if (reading->has_base && offset_of(reading, flow) < 0)
		return READING_FULL;
	return reading->state == STATE_SAID && agrees(reading, flow) ? READING_PASS : READING_HOLD;
}

/* --- UDP --- */

static bool is_settled(const struct reading *reading)
{
	return reading->state == STATE_SETTLED || reading->state == STATE_REFUSED;
}

/* What was decided about the datagram's connection before; READING_HOLD: nothing. */
static enum reading_step recall_datagram(struct readings *readings, struct reading *reading, const struct flow *flow,
					 enum reading_flow known, uint64_t now)
{
	bool same = false;
	enum quic_result result;

	if (reading && is_settled(reading))
		same = reading->quic.version ? quic_is_of(&reading->quic, flow->content, flow->content_size)
					     : !quic_is_initial(flow->content, flow->content_size);
	if (same && reading->state == STATE_REFUSED && now - reading->since < READINGS_REFUSED_MS)
		return READING_REFUSED;
	if (same && reading->state == STATE_SETTLED) {
		result = quic_read(&reading->quic, flow->content, flow->content_size);
		count_octets(readings, reading);
		if (result == QUIC_READ)
			return READING_PASS;
	}
	return known == READING_FLOW_VERIFIED && !quic_may_begin(flow->content, flow->content_size) ? READING_PASS : READING_HOLD;
}

/* --- both --- */

static bool may_hold(const struct readings *readings, const struct reading *reading)
{
	return reading->count < READINGS_HELD_MAX && readings->held < READINGS_HELD_ALL_MAX &&
	       reading->share->held < HALF(READINGS_HELD_ALL_MAX) && readings->octets < READINGS_OCTETS_MAX &&
	       reading->share->octets < HALF(READINGS_OCTETS_MAX);
}

/* Return: false when there is no room for it. */
static bool hold(struct readings *readings, struct reading *reading, const struct flow *flow, const struct reading_packet *packet)
{
	struct reading_packet held = *packet;
	uint8_t *copy = NULL;

	if (!may_hold(readings, reading))
		return false;
	if (!reading->packets)
		reading->packets = calloc(READINGS_HELD_MAX, sizeof(*reading->packets));
	held.content = NULL;
	held.content_size = 0;
	if (flow->protocol == IPPROTO_UDP) {
		copy = malloc(flow->content_size);
		if (copy)
			memcpy(copy, flow->content, flow->content_size);
		held.content = copy;
		held.content_size = flow->content_size;
	}
	if (!reading->packets || (flow->protocol == IPPROTO_UDP && !copy)) {
		free(copy);
		return false;
	}
	reading->packets[reading->count++] = held;
	readings->held++;
	reading->share->held++;
	return true;
}

static enum reading_step recall(struct readings *readings, struct reading *reading, const struct reading_origin *origin,
				const struct flow *flow, uint64_t now)
{
	return flow->protocol == IPPROTO_TCP ? recall_stream(reading, flow) : recall_datagram(readings, reading, flow, origin->known, now);
}

static enum inspect_result read_packet(struct readings *readings, struct reading *reading, const struct flow *flow)
{
	enum inspect_result result;

	if (reading->state == STATE_SAID)
		return INSPECT_BROKEN; /* it does not agree */
	if (flow->protocol == IPPROTO_TCP)
		return read_segment(readings, reading, flow);
	result = inspect_datagram(readings->reader, &reading->quic, flow->content, flow->content_size, &reading->name);
	count_octets(readings, reading);
	return result;
}

/* An end of the client's is the end of the reading: what comes after it would be broken. */
static enum reading_step take_empty(struct readings *readings, const struct reading_origin *origin, const struct flow *flow)
{
	struct reading *reading = flow->tcp_flags & (TH_RST | TH_FIN) ? find(readings, origin, flow) : NULL;

	if (reading && reading->state == STATE_READ && reading->count == 0)
		readings_end(readings, reading);
	return READING_PASS;
}

enum reading_step readings_take(struct readings *readings, const struct reading_origin *origin, const struct flow *flow,
				const struct reading_packet *packet, uint64_t now, struct reading **out)
{
	enum reading_step before;
	struct reading *reading;

	if (flow->protocol == IPPROTO_TCP && (flow->tcp_flags & TH_SYN))
		return take_syn(readings, origin, flow, now);
	if (!flow->content || flow->content_size == 0)
		return take_empty(readings, origin, flow);
	reading = find(readings, origin, flow);
	before = recall(readings, reading, origin, flow, now);
	if (before != READING_HOLD)
		return before;
	if (reading && is_settled(reading)) { /* another connection */
		readings_end(readings, reading);
		reading = NULL;
	}
	if (!reading)
		reading = new_reading(readings, origin, flow, now);
	if (!reading || !hold(readings, reading, flow, packet))
		return READING_FULL;
	if (reading->count == 1)
		move(reading, &readings->holding, now);
	reading->verified = origin->known == READING_FLOW_VERIFIED || reading->state == STATE_SAID;
	reading->result = read_packet(readings, reading, flow);
	*out = reading;
	return reading->result == INSPECT_MORE ? READING_HOLD : READING_DONE;
}

enum inspect_result reading_result(const struct reading *reading, const struct domain **name)
{
	*name = &reading->name;
	return reading->result;
}

const struct flow *reading_flow(const struct reading *reading)
{
	return &reading->flow;
}

bool reading_is_verified(const struct reading *reading)
{
	return reading->verified;
}

uint16_t reading_network(const struct reading *reading)
{
	return reading->key.network;
}

const struct reading_packet *reading_packets(const struct reading *reading, size_t *count)
{
	*count = reading->count;
	return reading->packets;
}

uint32_t reading_next(const struct reading *reading, uint32_t *second)
{
	*second = reading->base + (reading->state == STATE_SAID ? (uint32_t)reading->stream.whole : 0);
	return reading->base;
}

struct reading *readings_overdue(struct readings *readings, uint64_t now)
{
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): readings_end() takes it out of its list */
	while (readings->agreed && now - readings->agreed->since >= READINGS_AGREED_MS)
		readings_end(readings, readings->agreed);
	return readings->holding && now - readings->holding->since >= READINGS_MS ? readings->holding : NULL;
}
