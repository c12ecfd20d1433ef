/* SPDX-License-Identifier: MIT */
/* Networks with virtual addresses: an answer shows these, never the real ones that it is about. */
#include "resolver/query.h"

#include <errno.h>
#include <stdlib.h>

/* The TTL of the addresses; they are one set of records (RFC 2181 section 5.2), but a cautious reading takes the shortest. */
static uint32_t shortest_ttl(const struct answer_verdict *verdict)
{
	uint32_t ttl = verdict->shown[0].ttl;

	for (size_t i = 1; i < verdict->shown_count; i++) {
		if (verdict->shown[i].ttl < ttl)
			ttl = verdict->shown[i].ttl;
	}
	return ttl;
}

/* Is it about the addresses: one of them, or their signature, which fits no longer? The records of the chain that leads to them are kept.
 */
static bool is_about_addresses(const struct record *record, uint16_t type)
{
	return record->type == type ||
	       (record->type == TYPE_RRSIG && record->rdata_length > 2 && (record->rdata[0] << 8 | record->rdata[1]) == type);
}

static void add_addresses(struct answer *reply, const struct record *owner, uint16_t type, uint32_t ttl,
			  const struct virtual_addresses *addresses)
{
	for (size_t i = 0; i < addresses->shown; i++)
		answer_add(reply, owner->owner, owner->owner_length, type, ttl, addresses->list[i].bytes,
			   address_size(&addresses->list[i]));
}

/* The reply with other addresses, or NULL. There is room for every record, so adding cannot fail. */
static struct answer *with_addresses(const struct answer *reply, uint16_t type, uint32_t ttl, const struct virtual_addresses *addresses)
{
	size_t records = reply->answer_count + addresses->shown;
	struct answer *new = answer_new(reply->rcode, records, reply->bytes + addresses->shown * (DOMAIN_WIRE_MAX + 16));
	bool added = false;

	for (size_t i = 0; new &&i < reply->answer_count; i++) {
		const struct record *record = &reply->records[i];

		if (!is_about_addresses(record, type)) {
			answer_add(new, record->owner, record->owner_length, record->type, record->ttl, record->rdata,
				   record->rdata_length);
		} else if (!added && record->type == type) {
			add_addresses(new, record, type, ttl, addresses);
			added = true;
		}
	}
	return new;
}

/* All virtual addresses of the name are granted, so that one which is not shown this time stays open as long as the others. */
static struct shown_address *to_grant(const struct virtual_addresses *addresses, uint32_t ttl)
{
	struct shown_address *list = calloc(addresses->count, sizeof(*list));

	for (size_t i = 0; list && i < addresses->count; i++)
		list[i] = (struct shown_address){.address = addresses->list[i], .ttl = ttl};
	return list;
}

int query_map(const struct queries *queries, const struct query *query, const struct network *network, struct answer_verdict *verdict,
	      bool stale)
{
	const struct shown_answer answer = {
		.name = &query->question.name,
		.reals = verdict->shown,
		.count = verdict->shown_count,
		.ttl = shortest_ttl(verdict),
		.asked = !query->own,
		.stale = stale,
	};
	struct virtual_addresses addresses = {.count = 0};
	struct shown_address *shown;
	struct answer *reply;
	int error = queries->host->map(queries->host->context, network, &answer, &addresses);

	if (error)
		return error;
	reply = with_addresses(verdict->reply, query->question.type, answer.ttl, &addresses);
	shown = to_grant(&addresses, answer.ttl);
	if (!reply || !shown) {
		answer_free(reply);
		free(shown);
		return -ENOMEM;
	}
	answer_free(verdict->reply);
	free(verdict->shown);
	verdict->reply = reply;
	verdict->shown = shown;
	verdict->shown_count = addresses.count;
	return 0;
}
