/* SPDX-License-Identifier: MIT */
/* What an app can send: parse it, then build every kind of reply to it. */
#include <assert.h>
#include <stdlib.h>

#include "resolver/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_reply(const struct question *question, const struct answer *answer, size_t limit)
{
	uint8_t *out = malloc(limit);
	bool truncated;
	size_t size;

	assert(out);
	size = message_build_reply(question, answer, -1, EDE_BLOCKED, limit, &truncated, out);
	assert(size >= 12 && size <= limit);
	assert(message_peek_id(out) == question->id);
	free(out);
}

static void check_question(const struct question *question)
{
	struct answer *answer = answer_new(RCODE_NOERROR, 2, 3 * DOMAIN_WIRE_MAX + 4);
	uint8_t query[300];
	size_t size;

	assert(answer && question->name.length > 0 && question->udp_size >= 512);
	assert(answer_add(answer, question->name.wire, question->name.length, TYPE_CNAME, 1, question->name.wire, question->name.length) ==
	       0);
	assert(answer_add(answer, question->name.wire, question->name.length, TYPE_A, 1, (const uint8_t *)"1234", 4) == 0);
	check_reply(question, answer, 512);
	check_reply(question, answer, question->udp_size);
	check_reply(question, NULL, 512);
	size = message_build_query(1, &question->name, question->type, question->dnssec_ok, false, NULL, query, sizeof(query));
	assert(size > 0 && size <= sizeof(query));
	answer_free(answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct question question;
	enum message_status status = message_parse_question(data, size, &question);
	uint8_t out[512];
	size_t reply = message_build_error(data, size, status, out);

	assert((reply > 0) == (status != MESSAGE_OK && status != MESSAGE_DROP));
	if (status == MESSAGE_OK)
		check_question(&question);
	return 0;
}
