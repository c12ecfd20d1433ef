/* SPDX-License-Identifier: MIT */
/*
 * The first step for a question. Policy comes before everything else: what it does not allow ends here, so that no
 * packet with the name can reach an upstream.
 */
#include <string.h>

#include "resolver/judge.h"

static const uint8_t ARPA4[] = "\7in-addr\4arpa"; /* with the root label that the literal's NUL is */
static const uint8_t ARPA6[] = "\3ip6\4arpa";

/* Labels in front of a suffix, in the order they are written. Return: how many, or -1: the name is not under it. */
static int labels_before(const struct domain *name, const uint8_t *suffix, size_t suffix_length, const uint8_t **labels, int max)
{
	const uint8_t *end = name->wire + name->length;
	const uint8_t *at = name->wire;
	int count = 0;

	while ((size_t)(end - at) > suffix_length) {
		if (count < max)
			labels[count] = at;
		count++;
		at += 1 + *at;
	}
	if ((size_t)(end - at) != suffix_length || memcmp(at, suffix, suffix_length) != 0)
		return -1;
	return count;
}

/* "0" to "255" without leading zeros. */
static bool octet_of_label(const uint8_t *label, uint8_t *out)
{
	unsigned int value = 0;

	if (label[0] < 1 || label[0] > 3 || (label[0] > 1 && label[1] == '0'))
		return false;
	for (unsigned int i = 1; i <= label[0]; i++) {
		if (label[i] < '0' || label[i] > '9')
			return false;
		value = value * 10 + (label[i] - '0');
	}
	*out = (uint8_t)value;
	return value <= 255;
}

static int nibble_of_label(const uint8_t *label)
{
	if (label[0] != 1)
		return -1;
	if (label[1] >= '0' && label[1] <= '9')
		return label[1] - '0';
	return label[1] >= 'a' && label[1] <= 'f' ? label[1] - 'a' + 10 : -1;
}

static bool pointer_ipv4(const uint8_t *const *labels, struct address *out)
{
	uint8_t bytes[4];

	for (int i = 0; i < 4; i++) {
		if (!octet_of_label(labels[3 - i], &bytes[i]))
			return false;
	}
	*out = address_from_bytes(AF_INET, bytes);
	return true;
}

static bool pointer_ipv6(const uint8_t *const *labels, struct address *out)
{
	uint8_t bytes[16];

	for (int i = 0; i < 16; i++) {
		int high = nibble_of_label(labels[31 - 2 * i]);
		int low = nibble_of_label(labels[30 - 2 * i]);

		if (high < 0 || low < 0)
			return false;
		bytes[i] = (uint8_t)(high << 4 | low);
	}
	*out = address_from_bytes(AF_INET6, bytes);
	return true;
}

bool judge_pointer_name(const struct domain *name, struct address *out)
{
	const uint8_t *labels[32];

	if (labels_before(name, ARPA4, sizeof(ARPA4), labels, 4) == 4)
		return pointer_ipv4(labels, out);
	if (labels_before(name, ARPA6, sizeof(ARPA6), labels, 32) == 32)
		return pointer_ipv6(labels, out);
	return false;
}

bool judge_is_reverse(const struct domain *name)
{
	return labels_before(name, ARPA4, sizeof(ARPA4), NULL, 0) >= 0 || labels_before(name, ARPA6, sizeof(ARPA6), NULL, 0) >= 0;
}

/*
 * Names of the reverse trees are never forwarded unless a rule says so: audit mode does not count, because these questions
 * tell an upstream about addresses inside. PTR is answered from leases instead.
 */
static void judge_reverse(struct question_verdict *verdict, const struct question *question)
{
	if (verdict->name.reason == REASON_DENIED_BY_RULE)
		return;
	if (question->type == TYPE_PTR && judge_pointer_name(&question->name, &verdict->pointer)) {
		verdict->step = QUESTION_PTR;
		verdict->denied = false;
	}
}

static struct question_verdict judge_refused(struct question_verdict verdict, const struct question *question)
{
	verdict.denied = true;
	verdict.step = verdict.name.parent ? QUESTION_NODATA : QUESTION_DENY;
	if (judge_is_reverse(&question->name))
		judge_reverse(&verdict, question);
	return verdict;
}

/* Where audit mode lets every name out, limits would hold nobody back. */
static bool is_too_long(const struct network *network, const struct question_verdict *verdict, const struct question *question, time_t now)
{
	return verdict->rule && policy_wildcard_is_exceeded(network, verdict->rule, &question->name) && !policy_is_auditing(network, now);
}

struct question_verdict judge_question(const struct network *network, const struct question *question, struct families families, time_t now)
{
	struct question_verdict verdict = {.step = QUESTION_LOOK_UP, .name = policy_judge_name(network, &question->name, now)};

	verdict.reason = verdict.name.reason;
	verdict.rule = verdict.name.rule;
	if (verdict.name.audited && judge_is_reverse(&question->name))
		verdict.name.allowed = verdict.name.audited = false;
	if (!verdict.name.allowed)
		return judge_refused(verdict, question);
	if (is_too_long(network, &verdict, question, now)) {
		verdict.step = QUESTION_DENY;
		verdict.denied = true;
		verdict.reason = REASON_NAME_TOO_LONG;
		return verdict;
	}
	if (question->type == TYPE_ANY)
		verdict.step = QUESTION_ANY;
	if ((question->type == TYPE_A && !families.ipv4) || (question->type == TYPE_AAAA && !families.ipv6))
		verdict.step = QUESTION_NODATA;
	return verdict;
}
