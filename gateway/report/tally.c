/* SPDX-License-Identifier: MIT */
#include "gateway/report/tally.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/memory.h"

/* A tally on its way to the next worker. */
struct record {
	char network[POLICY_NAME_MAX + 1];
	uint64_t told;
};

struct tallies {
	struct log *log;
	const char *what;
	int memory;
	struct tally *list; /* owned, hash */
	struct record *map; /* the memory: `mapped` records; NULL: not mapped */
	size_t mapped;
	bool moved; /* the memory has other networks, or in other places */
	bool said;  /* that it cannot be kept */
};

struct tally *tallies_want(struct tallies *tallies, const char *network)
{
	struct tally *tally;

	HASH_FIND_STR(tallies->list, network, tally);
	if (tally)
		return tally;
	tally = calloc(1, sizeof(*tally));
	if (!tally)
		return NULL;
	snprintf(tally->network, sizeof(tally->network), "%s", network);
	HASH_ADD_STR(tallies->list, network, tally);
	tallies->moved = true;
	if (tally->hh.tbl)
		return tally;
	free(tally);
	return NULL;
}

static void restore(struct tallies *tallies)
{
	struct tally *tally;
	struct record record;
	void *bytes = NULL;
	size_t size = 0;

	if (tallies->memory < 0 || memory_get(tallies->memory, &bytes, &size) != 0)
		return;
	for (size_t at = 0; at + sizeof(record) <= size; at += sizeof(record)) {
		memcpy(&record, (const uint8_t *)bytes + at, sizeof(record));
		record.network[POLICY_NAME_MAX] = '\0';
		tally = tallies_want(tallies, record.network);
		if (tally)
			tally->told = record.told;
	}
	free(bytes);
}

struct tallies *tallies_new(struct log *log, const char *what, int memory)
{
	struct tallies *tallies = calloc(1, sizeof(*tallies));

	if (!tallies)
		return NULL;
	*tallies = (struct tallies){.log = log, .what = what, .memory = memory};
	restore(tallies);
	return tallies;
}

static void unmap(struct tallies *tallies)
{
	if (tallies->map)
		memory_unmap(tallies->map, tallies->mapped * sizeof(*tallies->map));
	tallies->map = NULL;
}

static int map(struct tallies *tallies, size_t count)
{
	void *bytes;
	int rc = count > 0 ? memory_map(tallies->memory, count * sizeof(*tallies->map), &bytes) : 0;

	if (rc != 0 || count == 0)
		return rc;
	tallies->map = bytes;
	tallies->mapped = count;
	return 0;
}

static void forget(struct tallies *tallies, struct tally *tally)
{
	HASH_DEL(tallies->list, tally);
	free(tally);
}

void tallies_free(struct tallies *tallies)
{
	struct tally *tally, *next;

	if (!tallies)
		return;
	HASH_ITER (hh, tallies->list, tally, next) {
		forget(tallies, tally);
	}
	unmap(tallies);
	free(tallies);
}

bool tallies_are_empty(const struct tallies *tallies)
{
	return HASH_COUNT(tallies->list) == 0;
}

bool tally_may_tell(struct tally *tally, uint64_t now)
{
	return bucket_take(&tally->bucket, now, TALLY_LINE_MS, TALLY_LINE_BURST);
}

static struct record record_of(const struct tally *tally)
{
	struct record record;

	memset(&record, 0, sizeof(record));
	memcpy(record.network, tally->network, sizeof(record.network));
	record.told = tally->told;
	return record;
}

static int save_all(struct tallies *tallies)
{
	struct record *list = calloc(HASH_COUNT(tallies->list) + 1, sizeof(*list));
	size_t count = 0;
	int rc;

	if (!list)
		return -ENOMEM;
	for (struct tally *tally = tallies->list; tally; tally = tally->hh.next) {
		tally->slot = count;
		list[count++] = record_of(tally);
	}
	unmap(tallies);
	rc = memory_put(tallies->memory, list, count * sizeof(*list));
	if (rc == 0)
		rc = map(tallies, count);
	tallies->moved = rc != 0;
	free(list);
	return rc;
}

static void say(struct tallies *tallies, int rc)
{
	if (rc != 0 && !tallies->said)
		log_say(tallies->log, LOG_WARNING, "the count of %s cannot be kept for a restart (%s): they may be told twice",
			tallies->what, strerror(-rc));
	tallies->said = rc != 0;
}

/* In place where that is possible: a worker that dies in the middle must not leave nothing. */
static void save(struct tallies *tallies, const struct tally *tally)
{
	if (tallies->memory < 0)
		return;
	if (tallies->moved)
		say(tallies, save_all(tallies));
	else
		tallies->map[tally->slot].told = tally->told;
}

void tallies_told(struct tallies *tallies, struct tally *tally, uint64_t flows)
{
	tally->told += flows;
	save(tallies, tally);
}

uint64_t tallies_take_untold(struct tallies *tallies, struct tally *tally, uint64_t total, bool last)
{
	uint64_t untold, now;

	if (total < tally->total) { /* somebody has made the counter anew */
		tally->told = 0;
		tally->waiting = 0;
	}
	tally->total = total;
	untold = total > tally->told ? total - tally->told : 0;
	now = last || untold < tally->waiting ? untold : tally->waiting;
	tally->waiting = untold - now;
	if (now > 0)
		tallies_told(tallies, tally, now);
	return now;
}

void tallies_forget_gone(struct tallies *tallies, const struct policy *policy)
{
	struct tally *tally, *next;

	HASH_ITER (hh, tallies->list, tally, next) {
		if (policy_network_by_name(policy, tally->network))
			continue;
		forget(tallies, tally);
		tallies->moved = true;
	}
	if (tallies->moved && tallies->memory >= 0)
		say(tallies, save_all(tallies));
}
