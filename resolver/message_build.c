/* SPDX-License-Identifier: MIT */
/*
 * Putting DNS messages together: queries for upstreams, replies for apps.
 *
 * Theory of operation. Replies are written straight into the caller's buffer, without allocation: records are in wire form already,
 * only names are compressed, against the question's name (which so keeps the client's letter case) and the names written
 * before. Writing beyond the limit sets `full` and does nothing; then the reply is written again without records and with TC.
 */
#include <stdio.h>
#include <string.h>

#include "resolver/message.h"
#include "resolver/message_wire.h"

#define NAMES_MAX   64     /* labels of a reply that later names may point to */
#define POINTER_MAX 0x3fff /* highest offset that a compression pointer can name */
#define OPT_SIZE    11     /* octets of an OPT without options */
#define OPTION_EDE  15     /* RFC 8914 */
#define OPTION_PAD  12     /* RFC 7830 */

struct writer {
	uint8_t *out;
	size_t at, limit;
	bool full;
	uint16_t names[NAMES_MAX]; /* offsets of labels in out */
	unsigned int name_count;
};

static void write_bytes(struct writer *writer, const void *bytes, size_t length)
{
	if (writer->full || length > writer->limit - writer->at) {
		writer->full = true;
		return;
	}
	memcpy(writer->out + writer->at, bytes, length);
	writer->at += length;
}

static void write_u16(struct writer *writer, uint16_t value)
{
	uint8_t bytes[2];

	wire_put_u16(bytes, value);
	write_bytes(writer, bytes, sizeof(bytes));
}

static void write_u32(struct writer *writer, uint32_t value)
{
	write_u16(writer, (uint16_t)(value >> 16));
	write_u16(writer, (uint16_t)value);
}

static uint8_t fold(uint8_t octet)
{
	return octet >= 'A' && octet <= 'Z' ? octet | 0x20 : octet;
}

static bool labels_equal(const uint8_t *a, const uint8_t *b)
{
	if (*a != *b)
		return false;
	if (memcmp(a, b, 1U + *a) == 0)
		return true;
	for (unsigned int i = 1; i <= *a; i++) {
		if (fold(a[i]) != fold(b[i]))
			return false;
	}
	return true;
}

/* Is the name written at this offset the same as @name? Pointers in our own output lead strictly backwards to whole names. */
static bool written_name_equals(const struct writer *writer, size_t offset, const uint8_t *name)
{
	for (;;) {
		while ((writer->out[offset] & 0xc0) == 0xc0)
			offset = wire_u16(writer->out + offset) & POINTER_MAX;
		if (!labels_equal(writer->out + offset, name))
			return false;
		if (*name == 0)
			return true;
		offset += 1U + *name;
		name += 1 + *name;
	}
}

/* Writes a name in wire form. Its labels become targets only when all of it has been written: half a name must not be read. */
static void write_name(struct writer *writer, const uint8_t *name)
{
	uint16_t fresh[DOMAIN_WIRE_MAX / 2 + 1];
	unsigned int fresh_count = 0;
	bool pointed = false;

	for (; *name != 0 && !pointed; name += 1 + *name) {
		for (unsigned int i = 0; i < writer->name_count && !pointed; i++) {
			if (!written_name_equals(writer, writer->names[i], name))
				continue;
			write_u16(writer, (uint16_t)(0xc000 | writer->names[i]));
			pointed = true;
		}
		if (pointed)
			break;
		fresh[fresh_count++] = (uint16_t)writer->at;
		write_bytes(writer, name, 1U + *name);
	}
	if (!pointed)
		write_bytes(writer, "", 1);
	for (unsigned int i = 0; i < fresh_count && !writer->full && writer->name_count < NAMES_MAX; i++) {
		if (fresh[i] <= POINTER_MAX)
			writer->names[writer->name_count++] = fresh[i];
	}
}

/* Types whose RDATA may hold compressed names (RFC 3597 section 4): so many octets, then so many names. */
static const struct {
	uint16_t type;
	uint8_t before, names;
} compressible[] = {{TYPE_NS, 0, 1}, {TYPE_CNAME, 0, 1}, {TYPE_SOA, 0, 2}, {TYPE_PTR, 0, 1}, {TYPE_MX, 2, 1}};

/* Writes the part of the RDATA that may be compressed. Return: octets of RDATA taken; 0 also when it is not what the type says. */
static size_t write_compressible(struct writer *writer, const struct record *record, size_t before, unsigned int names)
{
	struct domain name[2];
	size_t taken = before;

	for (unsigned int i = 0; i < names; i++) {
		size_t length =
			taken < record->rdata_length ? domain_from_wire(record->rdata + taken, record->rdata_length - taken, &name[i]) : 0;

		if (length == 0)
			return 0;
		taken += length;
	}
	write_bytes(writer, record->rdata, before);
	for (unsigned int i = 0; i < names; i++)
		write_name(writer, name[i].wire);
	return taken;
}

static void write_rdata(struct writer *writer, const struct record *record)
{
	size_t start = writer->at + 2;
	size_t taken = 0;

	write_u16(writer, 0);
	for (size_t i = 0; i < sizeof(compressible) / sizeof(compressible[0]); i++) {
		if (compressible[i].type == record->type)
			taken = write_compressible(writer, record, compressible[i].before, compressible[i].names);
	}
	write_bytes(writer, record->rdata + taken, record->rdata_length - taken);
	if (!writer->full)
		wire_put_u16(writer->out + start - 2, (uint16_t)(writer->at - start));
}

static void write_record(struct writer *writer, const struct record *record)
{
	write_name(writer, record->owner);
	write_u16(writer, record->type);
	write_u16(writer, record->class);
	write_u32(writer, record->ttl);
	write_rdata(writer, record);
}

static void write_question(struct writer *writer, const struct question *question)
{
	write_name(writer, question->name_as_asked);
	write_u16(writer, question->type);
	write_u16(writer, question->class);
}

static void write_opt(struct writer *writer, bool dnssec_ok, int rcode, int ede)
{
	write_bytes(writer, "", 1);
	write_u16(writer, TYPE_OPT);
	write_u16(writer, MESSAGE_UDP_SIZE);
	write_u32(writer, (uint32_t)(rcode >> 4) << 24 | (dnssec_ok ? 0x8000 : 0));
	if (ede == EDE_NONE) {
		write_u16(writer, 0);
		return;
	}
	write_u16(writer, 6);
	write_u16(writer, OPTION_EDE);
	write_u16(writer, 2);
	write_u16(writer, (uint16_t)ede);
}

static void write_header(struct writer *writer, uint16_t id, uint8_t bits2, uint8_t bits3, const struct message_counts *counts)
{
	write_u16(writer, id);
	write_bytes(writer, &bits2, 1);
	write_bytes(writer, &bits3, 1);
	write_u16(writer, (uint16_t)counts->question);
	write_u16(writer, (uint16_t)counts->answer);
	write_u16(writer, (uint16_t)counts->authority);
	write_u16(writer, (uint16_t)counts->additional);
}

/* Letters of the name in random case, one bit of @random each (0x20: draft-vixie-dnsext-dns0x20). */
static void randomise_case(uint8_t *wire, size_t length, const uint8_t *random)
{
	for (size_t i = 0; i < length; i++) {
		/* Length octets are at most 63, so they are never taken for letters. */
		if (wire[i] >= 'a' && wire[i] <= 'z' && (random[i / 8] >> (i % 8) & 1))
			wire[i] &= (uint8_t)~0x20;
	}
}

size_t message_build_query(uint16_t id, const struct domain *name, uint16_t type, bool dnssec_ok, bool checking_disabled,
			   const uint8_t *randomise, uint8_t *out, size_t out_size)
{
	struct writer writer = {.out = out, .limit = out_size};
	struct message_counts counts = {.question = 1, .additional = 1};

	write_header(&writer, id, MESSAGE_RD, checking_disabled ? MESSAGE_CD : 0, &counts);
	write_bytes(&writer, name->wire, name->length);
	if (randomise && !writer.full)
		randomise_case(out + MESSAGE_HEADER_SIZE, name->length, randomise);
	write_u16(&writer, type);
	write_u16(&writer, CLASS_IN);
	write_opt(&writer, dnssec_ok, 0, EDE_NONE);
	return writer.full ? 0 : writer.at;
}

/* The OPT is the last record, and it has no options: its length is the last field. */
size_t message_pad_query(uint8_t *query, size_t size, size_t block, size_t out_size)
{
	struct writer writer = {.out = query, .at = size, .limit = out_size};
	size_t padded = (size + 4 + block - 1) / block * block;

	if (padded > out_size)
		return 0;
	wire_put_u16(query + size - 2, (uint16_t)(padded - size));
	write_u16(&writer, OPTION_PAD);
	write_u16(&writer, (uint16_t)(padded - size - 4));
	memset(query + writer.at, 0, padded - writer.at);
	return padded;
}

/* Without @answer, or when @truncated: no records. Return: size, 0: it does not fit. */
static size_t build(const struct question *question, const struct answer *answer, int rcode, int ede, bool truncated, size_t limit,
		    uint8_t *out)
{
	struct writer writer = {.out = out, .limit = limit};
	struct message_counts counts = {.question = 1, .additional = question->edns ? 1 : 0};
	uint8_t bits2 = MESSAGE_QR | (question->recursion_desired ? MESSAGE_RD : 0) | (truncated ? MESSAGE_TC : 0);
	uint8_t bits3 = MESSAGE_RA | (question->checking_disabled ? MESSAGE_CD : 0) | (rcode & MESSAGE_RCODE);

	if (answer && !truncated) {
		counts.answer = (unsigned int)answer->answer_count;
		counts.authority = (unsigned int)answer->authority_count;
	}
	write_header(&writer, question->id, bits2, bits3, &counts);
	write_question(&writer, question);
	for (size_t i = 0; i < counts.answer + counts.authority && !writer.full; i++)
		write_record(&writer, &answer->records[i]);
	if (question->edns)
		write_opt(&writer, question->dnssec_ok, rcode, ede);
	return writer.full ? 0 : writer.at;
}

size_t message_build_reply(const struct question *question, const struct answer *answer, int rcode, int ede, size_t limit, bool *truncated,
			   uint8_t *out)
{
	size_t size;

	if (truncated)
		*truncated = false;
	if (rcode < 0)
		rcode = answer ? answer->rcode : RCODE_SERVFAIL;
	/* The upper bits of an extended code have no place without an OPT. */
	if (rcode > MESSAGE_RCODE && !question->edns)
		rcode = RCODE_SERVFAIL;
	size = build(question, answer, rcode, ede, false, limit, out);
	if (size > 0)
		return size;
	if (truncated)
		*truncated = true;
	return build(question, NULL, rcode, ede, true, limit, out);
}

static int status_rcode(enum message_status status)
{
	switch (status) {
	case MESSAGE_OK:
	case MESSAGE_DROP: return -1;
	case MESSAGE_FORMERR: return RCODE_FORMERR;
	case MESSAGE_NOTIMP: return RCODE_NOTIMP;
	case MESSAGE_BADVERS: return RCODE_BADVERS;
	}
	return -1;
}

size_t message_build_error(const uint8_t *wire, size_t size, enum message_status status, uint8_t out[static 512])
{
	int rcode = status_rcode(status);
	struct question question;
	size_t reply_size;

	if (rcode < 0 || message_parse_question(wire, size, &question) == MESSAGE_DROP)
		return 0;
	if (question.name.length > 0) {
		reply_size = build(&question, NULL, rcode, EDE_NONE, false, MESSAGE_UDP_SIZE_PLAIN, out);
	} else {
		struct writer writer = {.out = out, .limit = MESSAGE_UDP_SIZE_PLAIN};

		write_header(&writer, question.id, MESSAGE_QR | (question.recursion_desired ? MESSAGE_RD : 0),
			     (uint8_t)(MESSAGE_RA | rcode), &(struct message_counts){0});
		reply_size = writer.at;
	}
	out[2] |= wire[2] & MESSAGE_OPCODE;
	return reply_size;
}

static const struct {
	uint16_t type;
	const char *name;
} type_names[] = {
	{TYPE_A, "A"},         {TYPE_NS, "NS"},       {TYPE_CNAME, "CNAME"}, {TYPE_SOA, "SOA"},  {TYPE_PTR, "PTR"}, {TYPE_HINFO, "HINFO"},
	{TYPE_MX, "MX"},       {TYPE_TXT, "TXT"},     {TYPE_AAAA, "AAAA"},   {29, "LOC"},        {TYPE_SRV, "SRV"}, {35, "NAPTR"},
	{37, "CERT"},          {TYPE_DNAME, "DNAME"}, {TYPE_OPT, "OPT"},     {43, "DS"},         {44, "SSHFP"},     {TYPE_RRSIG, "RRSIG"},
	{47, "NSEC"},          {48, "DNSKEY"},        {50, "NSEC3"},         {51, "NSEC3PARAM"}, {52, "TLSA"},      {53, "SMIMEA"},
	{59, "CDS"},           {60, "CDNSKEY"},       {61, "OPENPGPKEY"},    {62, "CSYNC"},      {63, "ZONEMD"},    {TYPE_SVCB, "SVCB"},
	{TYPE_HTTPS, "HTTPS"}, {99, "SPF"},           {108, "EUI48"},        {109, "EUI64"},     {249, "TKEY"},     {250, "TSIG"},
	{TYPE_IXFR, "IXFR"},   {TYPE_AXFR, "AXFR"},   {TYPE_ANY, "ANY"},     {256, "URI"},       {257, "CAA"},
};

const char *message_type_name(uint16_t type, char out[static 16])
{
	for (size_t i = 0; i < sizeof(type_names) / sizeof(type_names[0]); i++) {
		if (type_names[i].type == type) {
			snprintf(out, 16, "%s", type_names[i].name);
			return out;
		}
	}
	snprintf(out, 16, "TYPE%u", type); /* RFC 3597 section 5 */
	return out;
}
