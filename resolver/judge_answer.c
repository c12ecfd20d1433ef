/* SPDX-License-Identifier: MIT */
/*
 * What of an upstream's answer a network may see.
 *
 * Theory of operation. First the chain is walked: from the question's name through CNAMEs, those of earlier answers
 * (`chain`) before those of the answer that has come, whatever their order. Its end decides: records of the wanted type there are
 * sifted (addresses by the rebinding filter, HTTPS and SVCB by judge_svcb()); without them the answer is negative, or, when it
 * just stops at a new name, that name is to be asked for. Then the reply is put together from the records that the walk touched
 * and nothing else, so a record that has no business in an answer is never seen by an app and never granted.
 */
#include <stdlib.h>
#include <string.h>

#include "resolver/judge_svcb.h"

/* One judgement, from start to end. */
struct judging {
	const struct policy *policy;
	const struct network *network;
	const struct question *question;
	const struct answer *answer;
	const struct answer *chain; /* NULL: none */
	uint32_t age;
	time_t now;

	size_t link_count;

	size_t wanted;  /* records of the wanted type at the end of the chain */
	size_t changed; /* of these, changed or dropped: signatures no longer fit */
	size_t dropped; /* of these, not shown */
	size_t unsafe;  /* of these, dropped by the rebinding filter */
	struct answer_verdict verdict;
	struct answer *reply; /* owned; NULL: out of memory */

	/* The walk: names[0] is the question's; links[i], the first link_count, lead from names[i] to names[i + 1]. */
	bool link_is_new[JUDGE_CHAIN_MAX]; /* from `answer`, not from `chain` */
	const struct record *links[JUDGE_CHAIN_MAX];
	struct domain names[JUDGE_CHAIN_MAX + 1];
};

static bool record_is_of(const struct record *record, const struct domain *name, uint16_t type)
{
	return record->class == CLASS_IN && record->type == type && record->owner_length == name->length &&
	       memcmp(record->owner, name->wire, name->length) == 0;
}

static const struct record *find_record(const struct answer *answer, const struct domain *name, uint16_t type)
{
	for (size_t i = 0; answer && i < answer->answer_count; i++) {
		if (record_is_of(&answer->records[i], name, type))
			return &answer->records[i];
	}
	return NULL;
}

static const struct domain *chain_end(const struct judging *judging)
{
	return &judging->names[judging->link_count];
}

static bool was_visited(const struct judging *judging, const struct domain *name)
{
	for (size_t i = 0; i <= judging->link_count; i++) {
		if (domain_equal(&judging->names[i], name))
			return true;
	}
	return false;
}

/* Follows one CNAME from the chain's end. Return: 1 followed, 0 there is none, -1 a loop, too many, or no name in it. */
static int walk_step(struct judging *judging)
{
	const struct domain *from = chain_end(judging);
	const struct record *link = find_record(judging->chain, from, TYPE_CNAME);
	bool new = !link;
	struct domain to;

	if (new)
		link = find_record(judging->answer, from, TYPE_CNAME);
	if (!link)
		return 0;
	if (judging->link_count == JUDGE_CHAIN_MAX || domain_from_wire(link->rdata, link->rdata_length, &to) == 0 ||
	    was_visited(judging, &to))
		return -1;
	judging->links[judging->link_count] = link;
	judging->link_is_new[judging->link_count] = new;
	judging->names[++judging->link_count] = to;
	return 1;
}

static bool walk(struct judging *judging)
{
	int step = 1;

	while (step > 0 && judging->question->type != TYPE_CNAME)
		step = walk_step(judging);
	return step >= 0;
}

/* A reply without records, which ends the judgement. */
static void finish_empty(struct judging *judging, uint16_t rcode, int ede)
{
	answer_free(judging->reply);
	judging->reply = answer_new(rcode, 0, 0);
	judging->verdict.ede = ede;
}

static void deny(struct judging *judging, const struct domain *name, enum reason reason, const struct rule *rule)
{
	judging->verdict.denied = true;
	judging->verdict.denied_name = *name;
	judging->verdict.reason = reason;
	judging->verdict.rule = rule;
}

/* Return: false when out of memory. */
static bool take_names(struct judging *judging)
{
	struct answer_verdict *verdict = &judging->verdict;

	if (judging->link_count == 0)
		return true;
	verdict->names = malloc(judging->link_count * DOMAIN_WIRE_MAX);
	for (size_t i = 1; verdict->names && i <= judging->link_count; i++) {
		memcpy(verdict->names + verdict->names_length, judging->names[i].wire, judging->names[i].length);
		verdict->names_length += judging->names[i].length;
	}
	return verdict->names;
}

static bool chain_is_denied(struct judging *judging)
{
	const struct chain chain = {judging->verdict.names, judging->verdict.names_length};
	struct domain by;
	struct name_verdict verdict;

	/* The name that was asked for has been judged with the question. */
	if (judging->link_count == 0)
		return false;
	verdict = policy_judge_chain(judging->network, &judging->names[0], &chain, judging->now, &by);

	if (verdict.allowed || verdict.reason != REASON_DENIED_BY_RULE)
		return false;
	deny(judging, &by, verdict.reason, verdict.rule);
	return true;
}

static uint32_t reduced_ttl(const struct judging *judging, uint32_t ttl, bool new)
{
	uint32_t age = new ? judging->age : 0;
	uint32_t left = age == JUDGE_STALE ? JUDGE_STALE_TTL : ttl > age ? ttl - age : 0;
	uint32_t lease = lifetime_seconds(&judging->network->lifetimes, left);

	return left < lease ? left : lease;
}

/* The block was made large enough for every record of both answers, so adding cannot fail. */
static void reply_add(struct judging *judging, const struct record *record, bool new)
{
	answer_add(judging->reply, record->owner, record->owner_length, record->type, reduced_ttl(judging, record->ttl, new), record->rdata,
		   record->rdata_length);
}

static bool is_signature_of(const struct record *record, const struct domain *owner, uint16_t type)
{
	return record_is_of(record, owner, TYPE_RRSIG) && record->rdata_length > 2 && (record->rdata[0] << 8 | record->rdata[1]) == type;
}

static void reply_add_signatures(struct judging *judging, const struct answer *from, const struct domain *owner, uint16_t type, bool new)
{
	if (!judging->question->dnssec_ok)
		return;
	for (size_t i = 0; i < from->answer_count; i++) {
		if (is_signature_of(&from->records[i], owner, type))
			reply_add(judging, &from->records[i], new);
	}
}

/* Does this DNAME turn @from into @to (RFC 6672 section 2.2)? */
static bool dname_explains(const struct record *dname, const struct domain *owner, const struct domain *from, const struct domain *to)
{
	size_t prefix = (size_t)from->length - owner->length;

	return domain_is_below(from, owner) && prefix + dname->rdata_length == to->length && memcmp(from->wire, to->wire, prefix) == 0 &&
	       memcmp(dname->rdata, to->wire + prefix, dname->rdata_length) == 0;
}

/* Only clients that asked for DNSSEC have a use for the DNAME behind a CNAME, but others do not mind it. */
static void reply_add_dname(struct judging *judging, const struct answer *from, size_t link, bool new)
{
	for (size_t i = 0; i < from->answer_count; i++) {
		const struct record *record = &from->records[i];
		struct domain owner;

		if (record->type != TYPE_DNAME || record->class != CLASS_IN ||
		    domain_from_wire(record->owner, record->owner_length, &owner) == 0 ||
		    !dname_explains(record, &owner, &judging->names[link], &judging->names[link + 1]))
			continue;
		/* One DNAME may explain several links. */
		if (!find_record(judging->reply, &owner, TYPE_DNAME)) {
			reply_add(judging, record, new);
			reply_add_signatures(judging, from, &owner, TYPE_DNAME, new);
		}
		return;
	}
}

static void reply_add_links(struct judging *judging)
{
	for (size_t i = 0; i < judging->link_count; i++) {
		bool new = judging->link_is_new[i];
		const struct answer *from = new ? judging->answer : judging->chain;

		reply_add_dname(judging, from, i, new);
		reply_add(judging, judging->links[i], new);
		reply_add_signatures(judging, from, &judging->names[i], TYPE_CNAME, new);
	}
}

static bool address_of(const struct record *record, struct address *out)
{
	int family = record->type == TYPE_A ? AF_INET : AF_INET6;

	if (record->rdata_length != (family == AF_INET ? 4 : 16))
		return false;
	*out = address_from_bytes(family, record->rdata);
	return true;
}

/* Return: false when the list could not grow: an address that is not in it may not be shown. */
static bool show(struct answer_verdict *verdict, const struct address *address, uint32_t ttl)
{
	struct shown_address *grown = realloc(verdict->shown, (verdict->shown_count + 1) * sizeof(*grown));

	if (!grown)
		return false;
	verdict->shown = grown;
	grown[verdict->shown_count++] = (struct shown_address){.address = *address, .ttl = ttl};
	return true;
}

static bool sift_address(struct judging *judging, const struct record *record)
{
	struct address address;

	if (!address_of(record, &address))
		return false;
	if (!policy_answer_may_show(judging->policy, judging->network, &judging->question->name, &address)) {
		judging->unsafe++;
		return false;
	}
	if (judging->verdict.shown_count >= judging->network->lifetimes.max_addresses ||
	    !show(&judging->verdict, &address, reduced_ttl(judging, record->ttl, true)))
		return false;
	reply_add(judging, record, true);
	return true;
}

static bool sift_svcb(struct judging *judging, const struct record *record)
{
	uint8_t rdata[UINT16_MAX];
	struct record changed = *record;
	size_t length;

	if (!judge_svcb(judging->network, chain_end(judging), record, judging->now, rdata, &length))
		return false;
	if (length != record->rdata_length)
		judging->changed++;
	changed.rdata = rdata;
	changed.rdata_length = (uint16_t)length;
	reply_add(judging, &changed, true);
	return true;
}

static bool sift_record(struct judging *judging, const struct record *record)
{
	switch (record->type) {
	case TYPE_A:
	case TYPE_AAAA: return sift_address(judging, record);
	case TYPE_SVCB:
	case TYPE_HTTPS: return sift_svcb(judging, record);
	default: reply_add(judging, record, true); return true;
	}
}

static void sift(struct judging *judging)
{
	const struct answer *answer = judging->answer;
	uint16_t type = judging->question->type;

	/* With NXDOMAIN the end of the chain does not exist, whatever else the answer says (RFC 2308 section 2.1). */
	for (size_t i = 0; i < answer->answer_count && answer->rcode == RCODE_NOERROR; i++) {
		if (!record_is_of(&answer->records[i], chain_end(judging), type))
			continue;
		judging->wanted++;
		if (!sift_record(judging, &answer->records[i]))
			judging->dropped++;
	}
	if (judging->wanted > judging->dropped && judging->dropped == 0 && judging->changed == 0)
		reply_add_signatures(judging, answer, chain_end(judging), type, true);
}

static const struct record *find_soa(const struct judging *judging)
{
	const struct answer *answer = judging->answer;

	for (size_t i = answer->answer_count; i < answer->answer_count + answer->authority_count; i++) {
		const struct record *record = &answer->records[i];
		struct domain owner;

		if (record->type != TYPE_SOA || record->class != CLASS_IN ||
		    domain_from_wire(record->owner, record->owner_length, &owner) == 0)
			continue;
		/* A zone that the name is not in says nothing about it. */
		if (domain_equal(&owner, chain_end(judging)) || domain_is_below(chain_end(judging), &owner))
			return record;
	}
	return NULL;
}

/* Who keeps the reply may look at the TTL alone. */
static void reply_add_soa(struct judging *judging, const struct record *soa)
{
	answer_add_authority(judging->reply, soa->owner, soa->owner_length, TYPE_SOA, reduced_ttl(judging, answer_negative_ttl(soa), true),
			     soa->rdata, soa->rdata_length);
}

/* The answer stops at a name that it says nothing about, and that it brought up itself: asking it again could bring something. */
static bool must_chase(const struct judging *judging, const struct record *soa)
{
	return judging->wanted == 0 && judging->answer->rcode == RCODE_NOERROR && !soa && judging->link_count > 0 &&
	       judging->link_is_new[judging->link_count - 1] && !policy_name_is_local(chain_end(judging));
}

static void finish_filtered(struct judging *judging)
{
	if (judging->dropped > 0)
		judging->verdict.ede = EDE_FILTERED;
	if (judging->unsafe > 0 && judging->verdict.shown_count == 0) {
		deny(judging, chain_end(judging), REASON_REBINDING, NULL);
		/* Not even the chain: a reply that ends in a CNAME would send some clients to ask for its target. */
		finish_empty(judging, RCODE_NOERROR, EDE_FILTERED);
	}
}

static void judge_chain(struct judging *judging)
{
	const struct record *soa;

	if (!walk(judging)) {
		finish_empty(judging, RCODE_SERVFAIL, EDE_NONE);
		return;
	}
	if (!take_names(judging)) {
		answer_free(judging->reply);
		judging->reply = NULL;
		return;
	}
	if (chain_is_denied(judging)) {
		finish_empty(judging, RCODE_NXDOMAIN, EDE_BLOCKED);
		return;
	}
	judging->reply->rcode = judging->answer->rcode;
	reply_add_links(judging);
	sift(judging);
	soa = judging->wanted == 0 ? find_soa(judging) : NULL;
	if (must_chase(judging, soa)) {
		judging->verdict.chase = true;
		judging->verdict.target = *chain_end(judging);
		return;
	}
	if (soa)
		reply_add_soa(judging, soa);
	finish_filtered(judging);
}

/* Room for every record that could end up in the reply: all of both answers. */
static struct answer *reply_new(const struct answer *answer, const struct answer *chain)
{
	size_t records = 0, bytes = 0;

	for (const struct answer *from = answer; from; from = from == answer ? chain : NULL) {
		for (size_t i = 0; i < from->answer_count + from->authority_count; i++)
			bytes += (size_t)from->records[i].owner_length + from->records[i].rdata_length;
		records += from->answer_count + from->authority_count;
	}
	return answer_new(RCODE_NOERROR, records, bytes);
}

struct answer_verdict judge_answer(const struct policy *policy, const struct network *network, const struct question *question,
				   const struct answer *answer, const struct answer *chain, uint32_t age, time_t now)
{
	struct judging judging;

	memset(&judging, 0, offsetof(struct judging, link_is_new)); /* the walk has room for more than is often used */
	judging.policy = policy;
	judging.network = network;
	judging.question = question;
	judging.answer = answer;
	judging.chain = chain;
	judging.age = age;
	judging.now = now;
	judging.verdict.ede = EDE_NONE;
	judging.names[0] = question->name;
	judging.reply = reply_new(answer, chain);
	if (judging.reply && !answer->truncated && (answer->rcode == RCODE_NOERROR || answer->rcode == RCODE_NXDOMAIN))
		judge_chain(&judging);
	else if (judging.reply)
		finish_empty(&judging, RCODE_SERVFAIL, EDE_NONE);
	if (judging.verdict.chase)
		judging.verdict.chain = judging.reply;
	else
		judging.verdict.reply = judging.reply;
	return judging.verdict;
}
