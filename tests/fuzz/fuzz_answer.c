/* SPDX-License-Identifier: MIT */
/*
 * What an upstream can send. The input is: two octets of type, a name in wire form, six octets of section counts, one with TC, one with
 * the rcode, then the records. The rest of the header and the question are put in front here, so that mutations meet the records.
 * Parse it, judge it by a small policy, build the reply, and parse that again.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "resolver/judge.h"

#define COUNTS_SIZE 8  /* octets of the input in front of the records */
#define OPT_SIZE    11 /* octets at the end of our queries */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct policy *policy;

static void add_rule(struct network *network, enum rule_action action, const char *pattern)
{
	struct rule rule = {.action = action, .kind = RULE_NAME, .ports = ports_all(), .text = pattern, .source = {"fuzz", 1}};
	const char *warning;

	assert(!pattern_parse(pattern, &rule.pattern, &warning));
	network->rules[network->rule_count] = policy_rule(policy, &rule);
	assert(network->rules[network->rule_count++]);
}

static void make_policy(void)
{
	struct network *network = calloc(1, sizeof(*network));
	struct source where;
	char error[256];

	policy = policy_new();
	assert(policy && network);
	policy->networks = network;
	policy->network_count = 1;
	strcpy(network->name, "net");
	network->lifetimes = (struct lifetimes){.min_ttl = 60, .grace = 60, .max_age = 3600, .max_addresses = 8};
	network->rules = calloc(3, sizeof(*network->rules));
	assert(network->rules);
	add_rule(network, RULE_ALLOW, "**.example");
	add_rule(network, RULE_ALLOW, "*.allowed.test");
	add_rule(network, RULE_DENY, "bad.example");
	assert(policy_finish(policy, error, sizeof(error), &where) == 0);
}

/* Every address of the reply is one that was granted, and one that may be shown. */
static void check_reply(const struct question *question, const struct answer_verdict *verdict)
{
	static uint8_t out[MESSAGE_SIZE_MAX];
	size_t shown = 0;

	for (size_t i = 0; i < verdict->reply->answer_count; i++) {
		const struct record *record = &verdict->reply->records[i];

		if (record->type != TYPE_A && record->type != TYPE_AAAA)
			continue;
		assert(shown < verdict->shown_count);
		assert(memcmp(record->rdata, verdict->shown[shown].address.bytes, record->rdata_length) == 0);
		assert(!address_special(&verdict->shown[shown++].address));
	}
	assert(shown == verdict->shown_count);
	assert(message_build_reply(question, verdict->reply, -1, verdict->ede, sizeof(out), NULL, out) > 0);
	assert(message_build_reply(question, verdict->reply, -1, verdict->ede, 512, NULL, out) <= 512);
}

static void judge(const struct question *question, const struct answer *answer, const struct answer *chain, int depth)
{
	struct answer_verdict verdict = judge_answer(policy, &policy->networks[0], question, answer, chain, 1, 0);

	if (verdict.reply)
		check_reply(question, &verdict);
	/* The same answer again: its chain was walked to the end, so there is nothing more to chase. */
	assert(!verdict.chase || depth == 0);
	if (verdict.chase)
		judge(question, answer, verdict.chain, depth + 1);
	answer_free(verdict.reply);
	answer_free(verdict.chain);
	free(verdict.shown);
	free(verdict.names);
}

/* What our reply says must be what the answer it was built from says. */
static void check_round_trip(const struct question *question, const struct answer *answer, const uint8_t *query, size_t query_size)
{
	static uint8_t out[MESSAGE_SIZE_MAX];
	bool truncated;
	size_t size = message_build_reply(question, answer, -1, EDE_NONE, sizeof(out), &truncated, out);
	struct answer *again = message_parse_answer(out, size, query, query_size);

	assert(again && again->truncated == truncated);
	if (!truncated)
		assert(again->answer_count == answer->answer_count && again->authority_count == answer->authority_count);
	for (size_t i = 0; !truncated && i < answer->answer_count + answer->authority_count; i++) {
		const struct record *a = &answer->records[i], *b = &again->records[i];

		assert(a->owner_length == b->owner_length && memcmp(a->owner, b->owner, a->owner_length) == 0);
		assert(a->type == b->type && a->rdata_length == b->rdata_length && memcmp(a->rdata, b->rdata, a->rdata_length) == 0);
	}
	answer_free(again);
}

static void take_and_judge(const struct question *question, const uint8_t *wire, size_t size, const uint8_t *query, size_t query_size)
{
	struct answer *answer = message_parse_answer(wire, size, query, query_size);

	if (!answer)
		return;
	judge(question, answer, NULL, 0);
	check_round_trip(question, answer, query, query_size);
	answer_free(answer);
}

static void respond(const struct question *question, const uint8_t *data, size_t size)
{
	uint8_t query[300];
	size_t query_size = message_build_query(question->id, &question->name, question->type, true, false, NULL, query, sizeof(query));
	size_t head = query_size - OPT_SIZE;
	uint8_t *wire = malloc(head + size - COUNTS_SIZE);

	assert(wire);
	memcpy(wire, query, head);
	memcpy(wire + 6, data, 6);
	wire[2] = 0x81 | (data[6] & 0x02);
	wire[3] = data[7];
	memcpy(wire + head, data + COUNTS_SIZE, size - COUNTS_SIZE);
	take_and_judge(question, wire, head + size - COUNTS_SIZE, query, query_size);
	free(wire);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct question question = {.id = 0x1234, .class = CLASS_IN, .edns = true, .dnssec_ok = true, .udp_size = 1232};
	size_t taken;

	if (!policy)
		make_policy();
	if (size < 3)
		return 0;
	question.type = (uint16_t)(data[0] << 8 | data[1]);
	taken = domain_from_wire(data + 2, size - 2, &question.name);
	if (taken == 0 || size - 2 - taken < COUNTS_SIZE)
		return 0;
	memcpy(question.name_as_asked, question.name.wire, taken);
	respond(&question, data + 2 + taken, size - 2 - taken);
	return 0;
}
