/* SPDX-License-Identifier: MIT */
/*
 * Taking DNS messages apart.
 *
 * Theory of operation. Sections are counted and walked here, by a cursor that cannot leave the message, before ldns sees a
 * record. What an app may send is so little (a header, one name, one OPT) that nothing else is needed for a question: any octet
 * that has no place in it is FORMERR. Of an upstream's response, the answer and authority sections are taken over record by
 * record: ldns checks and decompresses the RDATA, and the result is accepted only when ldns stopped exactly where the record
 * ends and the shape is the one of its type (see shapes[]). Additional records are walked but never looked into, apart
 * from OPT. One thing that is wrong makes the whole response unusable: it is then as if it had not come.
 *
 * An answer is one block of memory: the struct, its records, and the octets that these point to.
 */
#include "resolver/message.h"

/* Behind our own headers: without stdbool.h in front, ldns makes `bool` a signed char, in which "flags & 0x8000" is false. */
#include <ldns/ldns.h>
#include <stdlib.h>
#include <string.h>

#include "resolver/message_wire.h"

#define RECORDS_MAX   1024 /* records of the answer and authority sections of one response; bounds the work for one */
#define JUMPS_MAX     128  /* compression pointers on the way through one name; no name has more labels */
#define ODD_NAMES_MAX 64   /* records of a response with names in RDATA whose place is not in shapes[]: NAPTR, NSEC and rarer types */

/* A position in a message. `bad` is set by the first read beyond the end; later ones do nothing and give zeros. */
struct cursor {
	const uint8_t *wire;
	size_t size, at;
	bool bad;
};

/* What stands in front of a record's RDATA. `at` is the offset of the record itself. */
struct record_head {
	size_t at, rdata_at;
	bool root_owner;
	uint16_t type, class, rdata_length;
	uint32_t ttl;
};

static bool cursor_skip(struct cursor *cursor, size_t octets)
{
	if (cursor->bad || octets > cursor->size - cursor->at) {
		cursor->bad = true;
		return false;
	}
	cursor->at += octets;
	return true;
}

static uint16_t cursor_u16(struct cursor *cursor)
{
	if (!cursor_skip(cursor, 2))
		return 0;
	return wire_u16(cursor->wire + cursor->at - 2);
}

static uint32_t cursor_u32(struct cursor *cursor)
{
	uint32_t high = cursor_u16(cursor);

	return high << 16 | cursor_u16(cursor);
}

/* Walks over a name that may end in a compression pointer; the pointer is not followed. */
static void cursor_skip_name(struct cursor *cursor)
{
	while (!cursor->bad && cursor->at < cursor->size) {
		uint8_t length = cursor->wire[cursor->at];

		if (length == 0) {
			cursor_skip(cursor, 1);
			return;
		}
		if ((length & 0xc0) == 0xc0) {
			cursor_skip(cursor, 2);
			return;
		}
		if (length > DOMAIN_LABEL_MAX)
			break;
		cursor_skip(cursor, 1 + (size_t)length);
	}
	cursor->bad = true;
}

static struct record_head cursor_record(struct cursor *cursor)
{
	struct record_head head = {.at = cursor->at};

	cursor_skip_name(cursor);
	head.root_owner = !cursor->bad && cursor->wire[head.at] == 0;
	head.type = cursor_u16(cursor);
	head.class = cursor_u16(cursor);
	head.ttl = cursor_u32(cursor);
	head.rdata_length = cursor_u16(cursor);
	head.rdata_at = cursor->at;
	cursor_skip(cursor, head.rdata_length);
	return head;
}

uint16_t message_peek_id(const uint8_t *wire)
{
	return wire_u16(wire);
}

/* EDNS options must fill the OPT's RDATA exactly; what they say is not looked at. */
static bool options_are_sound(const uint8_t *rdata, size_t length)
{
	struct cursor cursor = {.wire = rdata, .size = length};

	while (!cursor.bad && cursor.at < length) {
		cursor_u16(&cursor);
		cursor_skip(&cursor, cursor_u16(&cursor));
	}
	return !cursor.bad;
}

static enum message_status parse_question_opt(struct cursor *cursor, struct question *out)
{
	struct record_head opt = cursor_record(cursor);

	if (cursor->bad || opt.type != TYPE_OPT || !opt.root_owner)
		return MESSAGE_FORMERR;
	out->edns = true;
	out->dnssec_ok = opt.ttl & 0x8000;
	out->udp_size = opt.class > MESSAGE_UDP_SIZE_PLAIN ? opt.class : MESSAGE_UDP_SIZE_PLAIN;
	if ((opt.ttl >> 16 & 0xff) != 0)
		return MESSAGE_BADVERS;
	return options_are_sound(cursor->wire + opt.rdata_at, opt.rdata_length) ? MESSAGE_OK : MESSAGE_FORMERR;
}

/* The question section: one name, uncompressed, because there is nothing in front of it that it could point to. */
static bool parse_question_name(struct cursor *cursor, struct question *out)
{
	size_t length = domain_from_wire(cursor->wire + cursor->at, cursor->size - cursor->at, &out->name);

	if (length == 0) {
		out->name.length = 0;
		return false;
	}
	memcpy(out->name_as_asked, cursor->wire + cursor->at, length);
	cursor_skip(cursor, length);
	out->type = cursor_u16(cursor);
	out->class = cursor_u16(cursor);
	if (cursor->bad)
		out->name.length = 0;
	return !cursor->bad;
}

/* Types that stand for something else than records of a name: OPT, and RFC 6895's Q and meta types apart from ANY. */
static bool type_is_served(uint16_t type)
{
	return type != 0 && type != TYPE_OPT && (type < 128 || type > 254);
}

static enum message_status parse_question_rest(struct cursor *cursor, const struct message_counts *counts, struct question *out)
{
	enum message_status status = MESSAGE_OK;

	if (type_is_served(out->type) && (counts->answer != 0 || counts->authority != 0))
		return MESSAGE_FORMERR;
	if (!type_is_served(out->type) || out->class != CLASS_IN)
		return MESSAGE_NOTIMP;
	if (counts->additional > 1)
		return MESSAGE_FORMERR;
	if (counts->additional == 1)
		status = parse_question_opt(cursor, out);
	if (status == MESSAGE_OK && cursor->at != cursor->size)
		return MESSAGE_FORMERR;
	return status;
}

enum message_status message_parse_question(const uint8_t *wire, size_t size, struct question *out)
{
	struct cursor cursor = {.wire = wire, .size = size, .at = MESSAGE_HEADER_SIZE};
	struct message_counts counts;
	bool other_opcode;

	memset(out, 0, sizeof(*out));
	out->udp_size = MESSAGE_UDP_SIZE_PLAIN;
	if (size < MESSAGE_HEADER_SIZE || (wire[2] & MESSAGE_QR))
		return MESSAGE_DROP;
	out->id = wire_u16(wire);
	out->recursion_desired = wire[2] & MESSAGE_RD;
	out->checking_disabled = wire[3] & MESSAGE_CD;
	other_opcode = wire[2] & MESSAGE_OPCODE;
	counts = wire_counts(wire);
	if (counts.question != 1 || !parse_question_name(&cursor, out))
		return other_opcode ? MESSAGE_NOTIMP : MESSAGE_FORMERR;
	if (other_opcode)
		return MESSAGE_NOTIMP;
	return parse_question_rest(&cursor, &counts, out);
}

/* What RDATA of a type must look like: so many octets, then names, then so many octets (-1: any number). */
static const struct shape {
	uint16_t type;
	uint8_t before, names;
	int after;
	bool fold; /* names are stored in lower case */
} shapes[] = {
	{TYPE_A, 4, 0, 0, false},     {TYPE_AAAA, 16, 0, 0, false},   {TYPE_NS, 0, 1, 0, true},    {3 /* MD */, 0, 1, 0, true},
	{4 /* MF */, 0, 1, 0, true},  {TYPE_CNAME, 0, 1, 0, true},    {TYPE_SOA, 0, 2, 20, true},  {7 /* MB */, 0, 1, 0, true},
	{8 /* MG */, 0, 1, 0, true},  {9 /* MR */, 0, 1, 0, true},    {TYPE_PTR, 0, 1, 0, true},   {14 /* MINFO */, 0, 2, 0, true},
	{TYPE_MX, 2, 1, 0, true},     {TYPE_SRV, 6, 1, 0, true},      {TYPE_DNAME, 0, 1, 0, true}, {TYPE_SVCB, 2, 1, -1, true},
	{TYPE_HTTPS, 2, 1, -1, true}, {TYPE_RRSIG, 18, 1, -1, false},
};

static bool shape_apply(const struct shape *shape, uint8_t *rdata, size_t length)
{
	size_t at = shape->before;

	if (length < at)
		return false;
	for (unsigned int i = 0; i < shape->names; i++) {
		struct domain name;
		size_t taken = domain_from_wire(rdata + at, length - at, &name);

		if (taken == 0)
			return false;
		if (shape->fold)
			memcpy(rdata + at, name.wire, taken);
		at += taken;
	}
	return shape->after < 0 || length - at == (size_t)shape->after;
}

static const struct shape *shape_of(uint16_t type)
{
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		if (shapes[i].type == type)
			return &shapes[i];
	}
	return NULL;
}

/*
 * ldns follows up to 65535 pointers for one name; a response full of names at the end of long chains of pointers would hold
 * the loop up for most of a second. Return: octets that the name takes where it stands, 0: it is broken or jumps too often.
 */
static size_t name_extent(const uint8_t *wire, size_t size, size_t at)
{
	size_t start = at, extent = 0, octets = 0;

	for (unsigned int jumps = 0; at < size && octets < DOMAIN_WIRE_MAX && jumps <= JUMPS_MAX;) {
		uint8_t length = wire[at];

		if (length == 0)
			return extent ? extent : at + 1 - start;
		if (length <= DOMAIN_LABEL_MAX) {
			octets += 1U + length;
			at += 1U + length;
			continue;
		}
		if (length < 0xc0 || size - at < 2)
			return 0;
		if (extent == 0)
			extent = at + 2 - start;
		at = wire_u16(wire + at) & 0x3fff;
		jumps++;
	}
	return 0;
}

#define FIELDS_MAX 16 /* more than any type has; ldns calls a field that repeats without end a maximum of UINT_MAX */

/* Does ldns look for names in the RDATA of this type? */
static bool type_has_names(uint16_t type)
{
	const ldns_rr_descriptor *descriptor = ldns_rr_descript(type);

	for (size_t i = 0; descriptor && i < ldns_rr_descriptor_maximum(descriptor) && i < FIELDS_MAX; i++) {
		if (ldns_rr_descriptor_field_type(descriptor, i) == LDNS_RDF_TYPE_DNAME)
			return true;
	}
	return false;
}

/* Are the names of a record, in the message, ones that ldns may be asked to follow? @odd counts those in places unknown here. */
static bool names_are_short(const struct cursor *cursor, const struct record_head *head, unsigned int *odd)
{
	const struct shape *shape = shape_of(head->type);
	size_t at = head->rdata_at + (shape ? shape->before : 0U);

	if (name_extent(cursor->wire, cursor->at, head->at) == 0)
		return false;
	for (unsigned int i = 0; shape && i < shape->names; i++) {
		size_t extent = name_extent(cursor->wire, cursor->at, at);

		if (extent == 0)
			return false;
		at += extent;
	}
	return shape || !type_has_names(head->type) || ++*odd <= ODD_NAMES_MAX;
}

/* Writes the RDATA of a record that ldns has parsed, uncompressed. Return: octets, or -1. */
static int rdata_take(const ldns_rr *rr, uint8_t *out, size_t size)
{
	size_t at = 0;

	for (size_t i = 0; i < ldns_rr_rd_count(rr); i++) {
		const ldns_rdf *field = ldns_rr_rdf(rr, i);
		size_t length = field ? ldns_rdf_size(field) : 0;

		if (!field || (length > 0 && !ldns_rdf_data(field)) || length > size - at)
			return -1;
		if (length > 0)
			memcpy(out + at, ldns_rdf_data(field), length);
		at += length;
	}
	return (int)at;
}

/* A response while it is being taken over. */
struct taking {
	struct cursor cursor;
	struct answer *answer;
	unsigned int odd;                /* see names_are_short() */
	uint8_t rdata[MESSAGE_SIZE_MAX]; /* of one record */
};

static bool take_parsed(struct taking *taking, const struct record_head *head, const ldns_rr *rr, bool authority)
{
	const ldns_rdf *owner = ldns_rr_owner(rr);
	int length = rdata_take(rr, taking->rdata, sizeof(taking->rdata));
	const struct shape *shape = shape_of(head->type);
	/* RFC 2181 section 8: a TTL with the highest bit set is zero. */
	uint32_t ttl = head->ttl > INT32_MAX ? 0 : head->ttl;
	struct domain name;

	if (length < 0 || !owner || !ldns_rdf_data(owner) || domain_from_wire(ldns_rdf_data(owner), ldns_rdf_size(owner), &name) == 0)
		return false;
	if (shape && !shape_apply(shape, taking->rdata, (size_t)length))
		return false;
	return (authority ? answer_add_authority : answer_add)(taking->answer, name.wire, name.length, head->type, ttl, taking->rdata,
							       (size_t)length) == 0;
}

/* Follows the pointers of a name that name_extent() has walked through. */
static bool name_expand(const uint8_t *wire, size_t at, struct domain *out)
{
	uint8_t name[DOMAIN_WIRE_MAX + 1];
	size_t octets = 0;

	while (wire[at] != 0) {
		size_t label = 1U + wire[at];

		if (wire[at] > DOMAIN_LABEL_MAX) {
			at = wire_u16(wire + at) & 0x3fff;
			continue;
		}
		if (label > DOMAIN_WIRE_MAX - octets)
			return false;
		memcpy(name + octets, wire + at, label);
		octets += label;
		at += label;
	}
	name[octets++] = 0;
	return domain_from_wire(name, octets, out) == octets;
}

/*
 * Addresses are most of what comes, and nothing in their RDATA needs ldns, which makes five blocks of memory for such a record: a tenth of
 * all instructions of a cold query.
 */
static bool take_address(struct taking *taking, const struct record_head *head, bool authority)
{
	uint32_t ttl = head->ttl > INT32_MAX ? 0 : head->ttl; /* as in take_parsed() */
	struct domain owner;

	if (head->rdata_length != (head->type == TYPE_A ? 4 : 16) || !name_expand(taking->cursor.wire, head->at, &owner))
		return false;
	return (authority ? answer_add_authority : answer_add)(taking->answer, owner.wire, owner.length, head->type, ttl,
							       taking->cursor.wire + head->rdata_at, head->rdata_length) == 0;
}

static bool take_record(struct taking *taking, bool authority)
{
	struct record_head head = cursor_record(&taking->cursor);
	size_t at = head.at;
	ldns_rr *rr = NULL;
	bool taken;

	if (taking->cursor.bad || !type_is_served(head.type) || head.type == TYPE_ANY)
		return false;
	/* Nothing but IN is ever asked for; ldns would also read other classes' RDATA as if it were IN's. */
	if (head.class != CLASS_IN)
		return true;
	if (!names_are_short(&taking->cursor, &head, &taking->odd))
		return false;
	if (head.type == TYPE_A || head.type == TYPE_AAAA)
		return take_address(taking, &head, authority);
	if (ldns_wire2rr(&rr, taking->cursor.wire, taking->cursor.at, &at, authority ? LDNS_SECTION_AUTHORITY : LDNS_SECTION_ANSWER) !=
		    LDNS_STATUS_OK ||
	    !rr)
		return false;
	taken = at == taking->cursor.at && take_parsed(taking, &head, rr, authority);
	ldns_rr_free(rr);
	return taken;
}

static bool take_opt(struct cursor *cursor, unsigned int count, struct answer *answer)
{
	bool seen = false;

	for (unsigned int i = 0; i < count; i++) {
		struct record_head head = cursor_record(cursor);

		if (cursor->bad)
			return false;
		if (head.type != TYPE_OPT)
			continue;
		if (seen || !head.root_owner)
			return false;
		seen = true;
		answer->rcode |= (uint16_t)(head.ttl >> 24 << 4);
	}
	return true;
}

static bool take_sections(struct taking *taking, const struct message_counts *counts)
{
	for (unsigned int i = 0; i < counts->answer; i++) {
		if (!take_record(taking, false))
			return false;
	}
	for (unsigned int i = 0; i < counts->authority; i++) {
		if (!take_record(taking, true))
			return false;
	}
	return take_opt(&taking->cursor, counts->additional, taking->answer);
}

/* Does the response repeat the query's question, letter for letter? Return: octets of the question section, or 0. */
static size_t match_question(const uint8_t *wire, size_t size, const uint8_t *query, size_t query_size)
{
	struct domain name;
	size_t length;

	if (size < MESSAGE_HEADER_SIZE || query_size < MESSAGE_HEADER_SIZE || memcmp(wire, query, 2) != 0)
		return 0;
	if (!(wire[2] & MESSAGE_QR) || (wire[2] & MESSAGE_OPCODE) || wire_counts(wire).question != 1)
		return 0;
	length = domain_from_wire(query + MESSAGE_HEADER_SIZE, query_size - MESSAGE_HEADER_SIZE, &name);
	if (length == 0)
		return 0;
	length += 4;
	if (MESSAGE_HEADER_SIZE + length > query_size || MESSAGE_HEADER_SIZE + length > size)
		return 0;
	return memcmp(wire + MESSAGE_HEADER_SIZE, query + MESSAGE_HEADER_SIZE, length) == 0 ? length : 0;
}

/*
 * How many octets the records of a response can take once they are out of the message. Compressed names become up to 255
 * octets each: an owner, and at most two in the RDATA of any type.
 */
static size_t taken_bytes_max(size_t size, size_t records)
{
	return size + records * 3 * DOMAIN_WIRE_MAX;
}

static struct answer *take_response(const uint8_t *wire, size_t size, size_t at, const struct message_counts *counts)
{
	size_t records = (size_t)counts->answer + counts->authority;
	static struct taking room; /* too large to be made for every response */
	struct taking *taking = &room;
	struct answer *tight = NULL;

	taking->cursor = (struct cursor){.wire = wire, .size = size, .at = at};
	taking->odd = 0;
	taking->answer = answer_new(wire[3] & MESSAGE_RCODE, records, taken_bytes_max(size, records));
	/* A copy, because what is kept in the cache should take no more than it needs. */
	if (taking->answer && take_sections(taking, counts))
		tight = answer_copy(taking->answer);
	answer_free(taking->answer);
	return tight;
}

struct answer *message_parse_answer(const uint8_t *wire, size_t size, const uint8_t *query, size_t query_size)
{
	size_t question = match_question(wire, size, query, query_size);
	struct message_counts counts;
	struct answer *answer;

	if (question == 0)
		return NULL;
	counts = wire_counts(wire);
	if (wire[2] & MESSAGE_TC) {
		/* Servers cut these anywhere; nothing of them is used. */
		answer = answer_new(wire[3] & MESSAGE_RCODE, 0, 0);
		if (answer)
			answer->truncated = true;
		return answer;
	}
	if (counts.answer + counts.authority > RECORDS_MAX)
		return NULL;
	return take_response(wire, size, MESSAGE_HEADER_SIZE + question, &counts);
}
