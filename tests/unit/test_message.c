/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "resolver/message.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Octets as text: pairs of hexadecimal digits; a letter behind ' stands for itself; blanks are for reading. */
struct wire {
	uint8_t bytes[MESSAGE_SIZE_MAX];
	size_t size;
};

static int digit(char c)
{
	return c <= '9' ? c - '0' : c - 'a' + 10;
}

static void wire_add(struct wire *wire, const char *text)
{
	for (; *text; text++) {
		if (*text == ' ')
			continue;
		if (*text == '\'') {
			wire->bytes[wire->size++] = (uint8_t) * ++text;
			continue;
		}
		wire->bytes[wire->size++] = (uint8_t)(digit(text[0]) << 4 | digit(text[1]));
		text++;
	}
}

static struct wire *wire_of(const char *text)
{
	struct wire *wire = calloc(1, sizeof(*wire));

	assert_non_null(wire);
	wire_add(wire, text);
	return wire;
}

/* The parser gets a block of exactly the message's size, so that a sanitizer sees a read beyond it. */
static enum message_status parse_question(const char *text, struct question *out)
{
	struct wire *wire = wire_of(text);
	uint8_t *exact = malloc(wire->size ? wire->size : 1);
	enum message_status status;

	memcpy(exact, wire->bytes, wire->size);
	status = message_parse_question(exact, wire->size, out);
	free(exact);
	free(wire);
	return status;
}

#define HEAD     "1234 0100 0001 0000 0000 0000 "
#define HEAD_OPT "1234 0100 0001 0000 0000 0001 "
#define NAME     "03 'w'W'w 07 'E'x'a'm'p'l'e 00 "
#define QUESTION NAME "0001 0001 "
#define OPT      "00 0029 04d0 00 00 8000 0000 "

static const struct {
	const char *what, *wire;
	enum message_status status;
} questions[] = {
	{"plain", HEAD QUESTION, MESSAGE_OK},
	{"with OPT", HEAD_OPT QUESTION OPT, MESSAGE_OK},
	{"with an option", HEAD_OPT QUESTION "00 0029 04d0 00 00 0000 000c 000a 0008 0102030405060708", MESSAGE_OK},
	{"the root", HEAD "00 0002 0001", MESSAGE_OK},
	{"nothing", "", MESSAGE_DROP},
	{"half a header", "1234 0100 0001", MESSAGE_DROP},
	{"a response", "1234 8100 0001 0000 0000 0000" QUESTION, MESSAGE_DROP},
	{"header only", HEAD, MESSAGE_FORMERR},
	{"no question", "1234 0100 0000 0000 0000 0000", MESSAGE_FORMERR},
	{"two questions", "1234 0100 0002 0000 0000 0000" QUESTION QUESTION, MESSAGE_FORMERR},
	{"65535 questions", "1234 0100 ffff 0000 0000 0000" QUESTION, MESSAGE_FORMERR},
	{"answer record", "1234 0100 0001 0001 0000 0000" QUESTION "c00c 0001 0001 00000000 0004 01020304", MESSAGE_FORMERR},
	{"authority record", "1234 0100 0001 0000 0001 0000" QUESTION "c00c 0001 0001 00000000 0004 01020304", MESSAGE_FORMERR},
	{"trailing octet", HEAD QUESTION "00", MESSAGE_FORMERR},
	{"trailing octet after OPT", HEAD_OPT QUESTION OPT "00", MESSAGE_FORMERR},
	{"two OPTs", "1234 0100 0001 0000 0000 0002" QUESTION OPT OPT, MESSAGE_FORMERR},
	{"OPT missing", HEAD_OPT QUESTION, MESSAGE_FORMERR},
	{"OPT cut", HEAD_OPT QUESTION "00 0029 04d0 00 00 8000 00", MESSAGE_FORMERR},
	{"OPT with a name", HEAD_OPT QUESTION "01 'a 00 0029 04d0 00 00 8000 0000", MESSAGE_FORMERR},
	{"option longer than the OPT", HEAD_OPT QUESTION "00 0029 04d0 00 00 0000 0004 000a 0008", MESSAGE_FORMERR},
	{"half an option", HEAD_OPT QUESTION "00 0029 04d0 00 00 0000 0003 000a 00", MESSAGE_FORMERR},
	{"RDATA longer than the message", HEAD_OPT QUESTION "00 0029 04d0 00 00 0000 ffff", MESSAGE_FORMERR},
	{"TSIG", HEAD_OPT QUESTION "00 00fa 00ff 00000000 0000", MESSAGE_FORMERR},
	{"EDNS version 1", HEAD_OPT QUESTION "00 0029 04d0 00 01 0000 0000", MESSAGE_BADVERS},
	{"compressed name", HEAD "c00c 0001 0001", MESSAGE_FORMERR},
	{"name cut", HEAD "03 'w'w", MESSAGE_FORMERR},
	{"name without root", HEAD "03 'w'w'w", MESSAGE_FORMERR},
	{"type cut", HEAD NAME "00", MESSAGE_FORMERR},
	{"label type 01", HEAD "41 00 00 0001 0001", MESSAGE_FORMERR},
	{"class CH", HEAD NAME "0010 0003", MESSAGE_NOTIMP},
	{"class ANY", HEAD NAME "0001 00ff", MESSAGE_NOTIMP},
	{"AXFR", HEAD NAME "00fc 0001", MESSAGE_NOTIMP},
	{"IXFR with its SOA", "1234 0100 0001 0000 0001 0000" NAME "00fb 0001 c00c", MESSAGE_NOTIMP},
	{"type 0", HEAD NAME "0000 0001", MESSAGE_NOTIMP},
	{"type OPT", HEAD NAME "0029 0001", MESSAGE_NOTIMP},
	{"type TSIG", HEAD NAME "00fa 0001", MESSAGE_NOTIMP},
	{"type ANY", HEAD NAME "00ff 0001", MESSAGE_OK},
	{"UPDATE", "1234 2800 0001 0000 0001 0000" NAME "0006 0001", MESSAGE_NOTIMP},
	{"NOTIFY", "1234 2000 0001 0000 0000 0000" QUESTION, MESSAGE_NOTIMP},
	{"STATUS without a question", "1234 1000 0000 0000 0000 0000", MESSAGE_NOTIMP},
};

static void question_statuses(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(questions); i++) {
		struct question question;
		enum message_status status = parse_question(questions[i].wire, &question);

		if (status != questions[i].status)
			fail_msg("%s: status %d instead of %d", questions[i].what, status, questions[i].status);
		if (status != MESSAGE_DROP)
			assert_int_equal(question.id, 0x1234);
	}
}

static void question_fields(void **state)
{
	char text[DOMAIN_TEXT_MAX];
	struct question question;

	(void)state;
	assert_int_equal(parse_question("1234 0110 0001 0000 0000 0001" NAME "001c 0001" OPT, &question), MESSAGE_OK);
	assert_string_equal(domain_format(&question.name, text), "www.example");
	assert_memory_equal(question.name_as_asked, "\3wWw\7Example", 13);
	assert_int_equal(question.type, TYPE_AAAA);
	assert_int_equal(question.class, CLASS_IN);
	assert_true(question.recursion_desired && question.checking_disabled && question.edns && question.dnssec_ok);
	assert_int_equal(question.udp_size, 1232);
	assert_int_equal(parse_question("1234 0000 0001 0000 0000 0001" QUESTION "00 0029 0010 00 00 0000 0000", &question), MESSAGE_OK);
	assert_false(question.recursion_desired || question.checking_disabled || question.dnssec_ok);
	assert_int_equal(question.udp_size, 512);
}

static void every_prefix_of_a_question_is_refused(void **state)
{
	struct wire *wire = wire_of(HEAD_OPT QUESTION OPT);

	(void)state;
	for (size_t size = 0; size < wire->size; size++) {
		uint8_t *exact = malloc(size ? size : 1);
		struct question question;

		memcpy(exact, wire->bytes, size);
		assert_int_equal(message_parse_question(exact, size, &question), size < 12 ? MESSAGE_DROP : MESSAGE_FORMERR);
		free(exact);
	}
	free(wire);
}

static void query_to_an_upstream(void **state)
{
	struct wire *expected = wire_of("abcd 0110 0001 0000 0000 0001 01 'a 07 'e'x'a'm'p'l'e 00 0041 0001 00 0029 04d0 00 00 8000 0000");
	uint8_t random[32], out[300];
	struct domain name;
	size_t size;

	(void)state;
	assert_null(domain_parse("a.example", &name));
	size = message_build_query(0xabcd, &name, TYPE_HTTPS, true, true, NULL, out, sizeof(out));
	assert_int_equal(size, expected->size);
	assert_memory_equal(out, expected->bytes, size);
	memset(random, 0xff, sizeof(random));
	assert_int_equal(message_build_query(0xabcd, &name, TYPE_HTTPS, true, true, random, out, sizeof(out)), size);
	assert_memory_equal(out + 12, "\1A\7EXAMPLE", 11);
	assert_int_equal(message_build_query(0xabcd, &name, TYPE_HTTPS, true, true, NULL, out, size - 1), 0);
	free(expected);
}

#define QUERY "1234 0100 0001 0000 0000 0001" QUESTION OPT

static struct answer *parse_answer(const char *text)
{
	struct wire *query = wire_of(QUERY), *wire = wire_of(text);
	uint8_t *exact = malloc(wire->size ? wire->size : 1);
	struct answer *answer;

	memcpy(exact, wire->bytes, wire->size);
	answer = message_parse_answer(exact, wire->size, query->bytes, query->size);
	free(exact);
	free(wire);
	free(query);
	return answer;
}

#define RESPONSE(an, ns, ar) "1234 8180 0001 " an ns ar QUESTION
#define A_RECORD             "c00c 0001 0001 0000003c 0004 01020304 "
#define SOA_RECORD           "c010 0006 0001 0000003c 0020 02'N'S c010 04'r'o'o't c010 00000001 00000002 00000003 00000004 00000005 "

static const struct {
	const char *what, *wire;
	int records; /* -1: refused */
} answers[] = {
	{"empty", RESPONSE("0000", "0000", "0000"), 0},
	{"A", RESPONSE("0001", "0000", "0000") A_RECORD, 1},
	{"A and OPT", RESPONSE("0001", "0000", "0001") A_RECORD OPT, 1},
	{"negative", RESPONSE("0000", "0001", "0000") SOA_RECORD, 1},
	{"additional records are not taken", RESPONSE("0001", "0000", "0001") A_RECORD A_RECORD, 1},
	{"another class is not taken", RESPONSE("0001", "0000", "0000") "c00c 0001 0003 00000000 0004 01020304", 0},
	{"octets behind", RESPONSE("0001", "0000", "0000") A_RECORD "00", 1},
	{"unknown type", RESPONSE("0001", "0000", "0000") "c00c ff01 0001 00000000 0003 c00c00", 1},
	{"empty TXT-like unknown type", RESPONSE("0001", "0000", "0000") "c00c ff01 0001 00000000 0000", 1},
	{"another id", "1235 8180 0001 0000 0000 0000" QUESTION, -1},
	{"a question", "1234 0100 0001 0000 0000 0000" QUESTION, -1},
	{"another opcode", "1234 a180 0001 0000 0000 0000" QUESTION, -1},
	{"another case", "1234 8180 0001 0000 0000 0000 03 'w'w'w 07 'E'x'a'm'p'l'e 00 0001 0001", -1},
	{"another type", "1234 8180 0001 0000 0000 0000" NAME "001c 0001", -1},
	{"another class asked", "1234 8180 0001 0000 0000 0000" NAME "0001 0003", -1},
	{"no question", "1234 8180 0000 0000 0000 0000", -1},
	{"question missing", "1234 8180 0001 0000 0000 0000", -1},
	{"two questions", "1234 8180 0002 0000 0000 0000" QUESTION QUESTION, -1},
	{"record missing", RESPONSE("0002", "0000", "0000") A_RECORD, -1},
	{"additional missing", RESPONSE("0001", "0000", "0001") A_RECORD, -1},
	{"more records than are taken", RESPONSE("ffff", "0000", "0000") A_RECORD, -1},
	{"A of 3 octets", RESPONSE("0001", "0000", "0000") "c00c 0001 0001 0000003c 0003 010203", -1},
	{"A of 5 octets", RESPONSE("0001", "0000", "0000") "c00c 0001 0001 0000003c 0005 0102030405", -1},
	{"A of none", RESPONSE("0001", "0000", "0000") "c00c 0001 0001 0000003c 0000", -1},
	{"CNAME of none", RESPONSE("0001", "0000", "0000") "c00c 0005 0001 0000003c 0000", -1},
	{"CNAME beyond its RDATA", RESPONSE("0001", "0000", "0000") "c00c 0005 0001 0000003c 0001 01'a00", -1},
	{"CNAME with octets behind", RESPONSE("0001", "0000", "0000") "c00c 0005 0001 0000003c 0003 c00c 00", -1},
	{"SOA cut", RESPONSE("0000", "0001", "0000") "c00c 0006 0001 0000003c 0008 c00c c00c 00000000", -1},
	{"pointer to itself", RESPONSE("0001", "0000", "0000") "c01d 0001 0001 0000003c 0004 01020304", -1},
	{"pointer out of the message", RESPONSE("0001", "0000", "0000") "ffff 0001 0001 0000003c 0004 01020304", -1},
	{"OPT among the answers", RESPONSE("0001", "0000", "0000") OPT, -1},
	{"type ANY among the answers", RESPONSE("0001", "0000", "0000") "c00c 00ff 0001 00000000 0000", -1},
	{"two OPTs", RESPONSE("0000", "0000", "0002") OPT OPT, -1},
};

static void answer_shapes(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(answers); i++) {
		struct answer *answer = parse_answer(answers[i].wire);
		int records = answer ? (int)(answer->answer_count + answer->authority_count) : -1;

		if (records != answers[i].records)
			fail_msg("%s: %d records instead of %d", answers[i].what, records, answers[i].records);
		answer_free(answer);
	}
}

static void answer_records_are_unfolded_and_folded(void **state)
{
	struct answer *answer = parse_answer(RESPONSE("0002", "0001", "0000") "c00c 0005 0001 ffffffff 0004 01'T c010" A_RECORD SOA_RECORD);

	(void)state;
	assert_non_null(answer);
	assert_int_equal(answer->answer_count, 2);
	assert_int_equal(answer->authority_count, 1);
	assert_int_equal(answer->records[0].ttl, 0);
	assert_int_equal(answer->records[0].owner_length, 13);
	assert_memory_equal(answer->records[0].owner, "\3www\7example", 13);
	assert_int_equal(answer->records[0].rdata_length, 11);
	assert_memory_equal(answer->records[0].rdata, "\1t\7example", 11);
	assert_memory_equal(answer->records[1].rdata, "\1\2\3\4", 4);
	assert_int_equal(answer->records[2].rdata_length, 12 + 14 + 20);
	assert_memory_equal(answer->records[2].rdata, "\2ns\7example\0\4root\7example", 26);
	answer_free(answer);
}

static void answer_of_https(void **state)
{
	struct answer *answer = parse_answer(RESPONSE("0001", "0000", "0000") "c00c 0041 0001 0000003c 000c 0001 01'T00 0003 0002 01bb 00");

	(void)state;
	/* A stray octet behind the parameters is judge's to refuse. */
	assert_non_null(answer);
	assert_int_equal(answer->records[0].rdata_length, 12);
	assert_memory_equal(answer->records[0].rdata, "\0\1\1t\0\0\3\0\2\1\273\0", 12);
	answer_free(answer);
}

/* @jumps pointers, one to the next, in the RDATA of an unknown type; then an A record whose owner is the last of them. */
static struct answer *parse_pointers(unsigned int jumps)
{
	struct wire *query = wire_of(QUERY), *wire = wire_of(RESPONSE("0002", "0000", "0000") "00 ff01 0001 00000000 ");
	size_t previous = 12;
	struct answer *answer;
	char text[64];

	snprintf(text, sizeof(text), "%04x", 2 * jumps);
	wire_add(wire, text);
	for (unsigned int i = 0; i < jumps; i++) {
		snprintf(text, sizeof(text), "%04zx", 0xc000 | previous);
		previous = wire->size;
		wire_add(wire, text);
	}
	snprintf(text, sizeof(text), "%04zx 0001 0001 00000000 0004 01020304", 0xc000 | previous);
	wire_add(wire, text);
	answer = message_parse_answer(wire->bytes, wire->size, query->bytes, query->size);
	free(wire);
	free(query);
	return answer;
}

static void long_chains_of_pointers_are_refused(void **state)
{
	struct answer *answer = parse_pointers(30);

	(void)state;
	assert_non_null(answer);
	assert_memory_equal(answer->records[1].owner, "\3www\7example", 13);
	answer_free(answer);
	assert_null(parse_pointers(200));
	assert_null(parse_pointers(8000));
}

static void answer_truncated_or_with_an_extended_code(void **state)
{
	struct answer *answer = parse_answer("1234 8380 0001 0005 0000 0000" QUESTION "c00c 00");

	(void)state;
	assert_non_null(answer);
	assert_true(answer->truncated);
	assert_int_equal(answer->answer_count, 0);
	answer_free(answer);
	answer = parse_answer(RESPONSE("0000", "0000", "0001") "00 0029 04d0 01 00 0000 0000");
	assert_non_null(answer);
	assert_int_equal(answer->rcode, RCODE_BADVERS);
	answer_free(answer);
}

static void answer_full(void **state)
{
	struct answer *answer = answer_new(RCODE_NOERROR, 2, 3 + 4 + 2);
	const uint8_t owner[] = "\1a";

	(void)state;
	assert_int_equal(answer_add(answer, owner, 3, TYPE_A, 1, (const uint8_t *)"1234", 4), 0);
	assert_int_not_equal(answer_add(answer, owner, 3, TYPE_A, 1, (const uint8_t *)"1234", 4), 0);
	assert_int_equal(answer_add_authority(answer, owner + 2, 1, TYPE_A, 1, (const uint8_t *)"1", 1), 0);
	assert_int_not_equal(answer_add_authority(answer, owner + 2, 1, TYPE_A, 1, NULL, 0), 0);
	assert_int_equal(answer->answer_count + answer->authority_count, 2);
	answer_free(answer);
	assert_null(answer_new(0, SIZE_MAX / 2, 1));
	assert_null(answer_new(0, 1, SIZE_MAX - 8));
}

/* Builds the reply to a question given as text and compares it with the expected octets. */
static void expect_reply(const char *asked, const struct answer *answer, int rcode, int ede, size_t limit, bool cut, const char *expected)
{
	struct wire *wire = wire_of(expected);
	uint8_t *out = malloc(limit);
	struct question question;
	bool truncated = !cut;
	size_t size;

	assert_int_equal(parse_question(asked, &question), MESSAGE_OK);
	size = message_build_reply(&question, answer, rcode, ede, limit, &truncated, out);
	assert_int_equal(truncated, cut);
	assert_int_equal(size, wire->size);
	assert_memory_equal(out, wire->bytes, size);
	free(out);
	free(wire);
}

static void reply_compresses_and_keeps_the_clients_case(void **state)
{
	struct answer *answer = parse_answer(RESPONSE("0002", "0000", "0000") "c00c 0005 0001 00000001 0004 01'T c010"
									      "01't c010 0001 0001 00000002 0004 01020304");

	(void)state;
	assert_non_null(answer);
	expect_reply("1234 0110 0001 0000 0000 0000" QUESTION, answer, -1, EDE_BLOCKED, 512, false,
		     "1234 8190 0001 0002 0000 0000" QUESTION "c00c 0005 0001 00000001 0004 01't c010"
		     "c029 0001 0001 00000002 0004 01020304");
	answer_free(answer);
}

static void reply_without_records(void **state)
{
	(void)state;
	expect_reply(HEAD QUESTION, NULL, RCODE_NXDOMAIN, EDE_BLOCKED, 512, false, "1234 8183 0001 0000 0000 0000" QUESTION);
	expect_reply("1234 0000 0001 0000 0000 0001" QUESTION OPT, NULL, RCODE_NXDOMAIN, EDE_BLOCKED, 512, false,
		     "1234 8083 0001 0000 0000 0001" QUESTION "00 0029 04d0 00 00 8000 0006 000f 0002 000f");
	expect_reply(HEAD_OPT QUESTION OPT, NULL, RCODE_NOERROR, EDE_NONE, 512, false, "1234 8180 0001 0000 0000 0001" QUESTION OPT);
	expect_reply(HEAD QUESTION, NULL, -1, EDE_NONE, 512, false, "1234 8182 0001 0000 0000 0000" QUESTION);
}

static void reply_that_just_fits(void **state)
{
	struct answer *answer = answer_new(RCODE_NOERROR, 40, 40 * 17);
	struct question question;
	uint8_t out[MESSAGE_SIZE_MAX];
	size_t size;

	(void)state;
	assert_int_equal(parse_question(HEAD_OPT QUESTION OPT, &question), MESSAGE_OK);
	for (int i = 0; i < 40; i++)
		assert_int_equal(answer_add(answer, question.name.wire, question.name.length, TYPE_A, 1, (const uint8_t *)"1234", 4), 0);
	size = message_build_reply(&question, answer, -1, EDE_NONE, sizeof(out), NULL, out);
	assert_int_equal(size, 12 + 17 + 40 * 16 + 11);
	assert_int_equal(message_build_reply(&question, answer, -1, EDE_NONE, size, NULL, out), size);
	answer_free(answer);
}

static void reply_that_is_cut(void **state)
{
	struct answer *answer = answer_new(RCODE_NOERROR, 40, 40 * 17);

	(void)state;
	for (int i = 0; i < 40; i++)
		assert_int_equal(answer_add(answer, (const uint8_t *)"\3www\7example", 13, TYPE_A, 1, (const uint8_t *)"1234", 4), 0);
	expect_reply(HEAD_OPT QUESTION OPT, answer, -1, EDE_NONE, 12 + 17 + 40 * 16 + 10, true,
		     "1234 8380 0001 0000 0000 0001" QUESTION OPT);
	answer_free(answer);
}

static void reply_can_be_parsed_again(void **state)
{
	/* Many names, so that compression has all to do that it can; what comes back must be what went in. */
	struct answer *answer = answer_new(RCODE_NOERROR, 300, 300 * 64), *again;
	struct wire *query = wire_of(QUERY);
	uint8_t owner[] = "\2xx\3www\7example", out[MESSAGE_SIZE_MAX];
	struct question question;
	size_t size;

	(void)state;
	assert_int_equal(message_parse_question(query->bytes, query->size, &question), MESSAGE_OK);
	for (int i = 0; i < 300; i++) {
		owner[1] = (uint8_t)('a' + i / 26);
		owner[2] = (uint8_t)('a' + i % 26);
		assert_int_equal(answer_add(answer, owner, 16, i % 2 ? TYPE_CNAME : TYPE_PTR, 7, owner + i % 3 / 2 * 3, 16 - i % 3 / 2 * 3),
				 0);
	}
	size = message_build_reply(&question, answer, -1, EDE_NONE, sizeof(out), NULL, out);
	again = message_parse_answer(out, size, query->bytes, query->size);
	assert_non_null(again);
	assert_int_equal(again->answer_count, 300);
	for (int i = 0; i < 300; i++) {
		assert_memory_equal(again->records[i].owner, answer->records[i].owner, 16);
		assert_int_equal(again->records[i].rdata_length, answer->records[i].rdata_length);
		assert_memory_equal(again->records[i].rdata, answer->records[i].rdata, answer->records[i].rdata_length);
	}
	answer_free(again);
	answer_free(answer);
	free(query);
}

static const struct {
	const char *wire;
	enum message_status status;
	const char *reply;
} errors[] = {
	{HEAD "03", MESSAGE_FORMERR, "1234 8181 0000 0000 0000 0000"},
	{HEAD QUESTION "00", MESSAGE_FORMERR, "1234 8181 0001 0000 0000 0000" QUESTION},
	{"1234 2000 0001 0000 0000 0000" QUESTION, MESSAGE_NOTIMP, "1234 a084 0001 0000 0000 0000" QUESTION},
	{HEAD_OPT QUESTION "00 0029 04d0 00 01 0000 0000", MESSAGE_BADVERS,
	 "1234 8180 0001 0000 0000 0001" QUESTION "00 0029 04d0 01 00 0000 0000"},
	{"1234", MESSAGE_DROP, ""},
	{"1234 8100 0001 0000 0000 0000" QUESTION, MESSAGE_FORMERR, ""},
};

static void error_replies(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(errors); i++) {
		struct wire *wire = wire_of(errors[i].wire), *expected = wire_of(errors[i].reply);
		uint8_t out[512];
		size_t size = message_build_error(wire->bytes, wire->size, errors[i].status, out);

		assert_int_equal(size, expected->size);
		assert_memory_equal(out, expected->bytes, size);
		free(wire);
		free(expected);
	}
}

static void type_names(void **state)
{
	char text[16];

	(void)state;
	assert_string_equal(message_type_name(TYPE_HTTPS, text), "HTTPS");
	assert_string_equal(message_type_name(65535, text), "TYPE65535");
	assert_int_equal(message_peek_id((const uint8_t *)"\x12\x34"), 0x1234);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(question_statuses),
		cmocka_unit_test(question_fields),
		cmocka_unit_test(every_prefix_of_a_question_is_refused),
		cmocka_unit_test(query_to_an_upstream),
		cmocka_unit_test(answer_shapes),
		cmocka_unit_test(answer_records_are_unfolded_and_folded),
		cmocka_unit_test(answer_of_https),
		cmocka_unit_test(long_chains_of_pointers_are_refused),
		cmocka_unit_test(answer_truncated_or_with_an_extended_code),
		cmocka_unit_test(answer_full),
		cmocka_unit_test(reply_compresses_and_keeps_the_clients_case),
		cmocka_unit_test(reply_without_records),
		cmocka_unit_test(reply_that_just_fits),
		cmocka_unit_test(reply_that_is_cut),
		cmocka_unit_test(reply_can_be_parsed_again),
		cmocka_unit_test(error_replies),
		cmocka_unit_test(type_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
