/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_RESOLVER_MESSAGE_H
#define SLUICE_RESOLVER_MESSAGE_H

/*
 * DNS messages: wire bytes <-> struct question and struct answer. The only user of ldns. Everything that comes in is hostile;
 * nothing here judges, keeps state or does I/O.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/domain.h"

#define MESSAGE_SIZE_MAX       65535
#define MESSAGE_UDP_SIZE       1232 /* octets we advertise and never exceed over UDP (DNS flag day 2020) */
#define MESSAGE_UDP_SIZE_PLAIN 512  /* without EDNS, RFC 1035 */

/* Numbers of the IANA DNS registries that the resolver speaks about; ldns stays inside message.c. */
enum {
	TYPE_A = 1,
	TYPE_NS = 2,
	TYPE_CNAME = 5,
	TYPE_SOA = 6,
	TYPE_PTR = 12,
	TYPE_HINFO = 13,
	TYPE_MX = 15,
	TYPE_TXT = 16,
	TYPE_AAAA = 28,
	TYPE_SRV = 33,
	TYPE_DNAME = 39,
	TYPE_OPT = 41,
	TYPE_RRSIG = 46,
	TYPE_SVCB = 64,
	TYPE_HTTPS = 65,
	TYPE_IXFR = 251,
	TYPE_AXFR = 252,
	TYPE_ANY = 255,
};
enum { CLASS_IN = 1 };
enum {
	RCODE_NOERROR = 0,
	RCODE_FORMERR = 1,
	RCODE_SERVFAIL = 2,
	RCODE_NXDOMAIN = 3,
	RCODE_NOTIMP = 4,
	RCODE_REFUSED = 5,
	RCODE_BADVERS = 16
};
/* Extended DNS errors, RFC 8914. EDE_NONE: do not add one. */
enum { EDE_NONE = -1, EDE_STALE_ANSWER = 3, EDE_BLOCKED = 15, EDE_FILTERED = 17, EDE_NO_REACHABLE_AUTHORITY = 22, EDE_NETWORK_ERROR = 23 };

/* One question as it came from an app. */
struct question {
	uint16_t id;
	uint16_t type, class;
	struct domain name;                     /* folded to lower case: for judging and keys */
	uint8_t name_as_asked[DOMAIN_WIRE_MAX]; /* same length, the client's case: for the reply */
	bool recursion_desired, checking_disabled;
	bool edns, dnssec_ok;
	uint16_t udp_size; /* octets of a UDP reply the client takes; at least 512 */
};

enum message_status {
	MESSAGE_OK,
	MESSAGE_DROP,    /* no reply at all: shorter than a header, or a response */
	MESSAGE_FORMERR, /* reply with the header's id and this code */
	MESSAGE_NOTIMP,
	MESSAGE_BADVERS,
};

/* One record. Memory belongs to the answer it is in. */
struct record {
	const uint8_t *owner; /* wire form, lower case */
	const uint8_t *rdata; /* uncompressed; names inside RDATA of the types of RFC 1035, DNAME, SRV, SVCB, HTTPS in lower case */
	uint32_t ttl;         /* seconds */
	uint16_t type, class;
	uint16_t rdata_length;
	uint8_t owner_length;
};

/* A response as far as we use it: answer and authority sections; additional records are never taken over. */
struct answer {
	uint16_t rcode; /* with EDNS's upper bits */
	bool truncated;
	size_t answer_count;    /* records[0 .. answer_count) */
	size_t authority_count; /* then the authority section */
	struct record *records;
	size_t bytes; /* memory the whole answer takes, for the cache's limit */
};

/**
 * message_parse_question() - Parse what an app sent
 * @out:	filled as far as possible: id always (unless MESSAGE_DROP), name and type for NOTIMP when there were some
 *
 * FORMERR: broken wire, not exactly one question, records in answer or authority sections, two OPTs. NOTIMP: opcode other than QUERY, class
 * other than IN, AXFR, IXFR. BADVERS: EDNS version other than 0. Additional records other than OPT (TSIG, SIG(0)): FORMERR.
 */
enum message_status message_parse_question(const uint8_t *wire, size_t size, struct question *out);

/**
 * message_build_query() - Question to an upstream: RD set, our OPT (MESSAGE_UDP_SIZE, DO as given, no ECS), no other options
 * @randomise:	when not NULL, 32 octets of randomness that choose the case of letters (0x20)
 * @out:	at least 300 octets
 * Return: size, or 0.
 */
size_t message_build_query(uint16_t id, const struct domain *name, uint16_t type, bool dnssec_ok, bool checking_disabled,
			   const uint8_t *randomise, uint8_t *out, size_t out_size);

/**
 * message_pad_query() - Make a query of message_build_query() a multiple of @block octets long (EDNS padding, RFC 7830 and 8467)
 * Return: size, or 0 when @out_size is too small.
 */
size_t message_pad_query(uint8_t *query, size_t size, size_t block, size_t out_size);

/**
 * message_parse_answer() - Parse what an upstream sent
 * @query:	the query as sent: id, opcode, question count, type, class and the name's exact case must be repeated
 * Return: the answer, owned by the caller (answer_free()), or NULL when it is broken or does not belong to the query.
 */
struct answer *message_parse_answer(const uint8_t *wire, size_t size, const uint8_t *query, size_t query_size);

/** message_peek_id() - Return: the id of a message of at least 12 octets. */
uint16_t message_peek_id(const uint8_t *wire);

/**
 * message_build_reply() - The reply to an app
 * @answer:	records to send, or NULL for none; its rcode is sent unless @rcode says otherwise
 * @rcode:	-1: the answer's
 * @ede:	EDE_NONE or an extended error; only sent when the question had an OPT
 * @limit:	octets; a reply that does not fit is sent with TC and without records
 * @truncated:	set when that happened (may be NULL)
 * @out:	at least @limit octets
 *
 * QR and RA set, RD and CD repeated, AA and AD clear, the question in the client's own case, OPT only when asked with one.
 * Owner names are compressed.
 *
 * Return: size, or 0 when out of memory.
 */
size_t message_build_reply(const struct question *question, const struct answer *answer, int rcode, int ede, size_t limit, bool *truncated,
			   uint8_t *out);

/** message_build_error() - A reply for a message that message_parse_question() refused: header, the code, no records. Return: size. */
size_t message_build_error(const uint8_t *wire, size_t size, enum message_status status, uint8_t out[static 512]);

/** message_type_name() - "A", "HTTPS", "TYPE1234". Return: @out. */
const char *message_type_name(uint16_t type, char out[static 16]);

/**
 * answer_new() - An answer of our own making (answer_add() fills it)
 * Return: owned by the caller, or NULL.
 */
struct answer *answer_new(uint16_t rcode, size_t max_records, size_t max_bytes);

/**
 * answer_add() - Append a copy of a record to the answer section; only before any authority record
 * Return: 0 or -ENOSPC.
 */
int answer_add(struct answer *answer, const uint8_t *owner, size_t owner_length, uint16_t type, uint32_t ttl, const uint8_t *rdata,
	       size_t rdata_length);

/** answer_add_authority() - The same for the authority section. */
int answer_add_authority(struct answer *answer, const uint8_t *owner, size_t owner_length, uint16_t type, uint32_t ttl,
			 const uint8_t *rdata, size_t rdata_length);

/** answer_negative_ttl() - How long an SOA lets "there is none" be kept: its TTL or its last field, MINIMUM (RFC 2308 section 5). Seconds.
 */
uint32_t answer_negative_ttl(const struct record *soa);

/** answer_copy() - A copy that takes no more memory than it needs. Return: owned by the caller, or NULL. */
struct answer *answer_copy(const struct answer *answer);
void answer_free(struct answer *answer);

#endif
