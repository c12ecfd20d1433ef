/* SPDX-License-Identifier: MIT */
/*
 * Counters of the kernel, as differences.
 *
 * Theory of operation: the last reading of every counter is kept by its name, that of a source by network and address. What a network's
 * counter of refusals has more than all its sources together came when the set of sources was full, and is reported without one; what was
 * reported that way is a counter of its own here. The sources are read after the counter, so their sum may be ahead of it for one reading.
 *
 * A counter that went backwards was made anew and counts from zero.
 *
 * The readings outlive the worker as a list of struct record, with all that a restart does not change: names, not numbers, of networks.
 */
#include "gateway/counters.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"
#include "gateway/memory.h"
#include "gateway/nft.h"

#define KEY_SIZE (NFT_NAME_SIZE + 16)

struct reading {
	UT_hash_handle hh;
	uint64_t packets;
	char network[POLICY_NAME_MAX + 1]; /* "": of none */
	char key[KEY_SIZE];                /* name of the counter or set, NUL-padded; then the source's address or zeros */
};

/* A reading on its way to the next worker: this, then the name of the counter or set without its padding. */
struct record {
	uint64_t packets;
	char network[POLICY_NAME_MAX + 1];
	uint8_t source[16];
	uint8_t name_size;
};

struct counters {
	struct reading *readings; /* owned, hash */
	bool changed;             /* since they were saved */
};

/* One counters_read(). */
struct pass {
	struct counters *counters;
	struct ruleset *ruleset;
	struct nft_objects objects;
	counters_report report;
	void *context;
	int error;
};

struct counters *counters_new(void)
{
	return calloc(1, sizeof(struct counters));
}

void counters_free(struct counters *counters)
{
	struct reading *reading, *next;

	if (!counters)
		return;
	HASH_ITER (hh, counters->readings, reading, next) {
		HASH_DEL(counters->readings, reading);
		free(reading);
	}
	free(counters);
}

static struct reading *new_reading(struct counters *counters, const char key[static KEY_SIZE], const char *network)
{
	struct reading *reading = calloc(1, sizeof(*reading));

	if (!reading)
		return NULL;
	memcpy(reading->key, key, KEY_SIZE);
	snprintf(reading->network, sizeof(reading->network), "%s", network);
	HASH_ADD(hh, counters->readings, key, KEY_SIZE, reading);
	if (reading->hh.tbl)
		return reading;
	free(reading);
	return NULL;
}

/* @network: NULL for the counters of none. */
static struct reading *find_reading(struct pass *pass, const char *name, const struct network *network, const struct nft_element *source)
{
	struct counters *counters = pass->counters;
	struct reading *reading;
	char key[KEY_SIZE] = {0};

	snprintf(key, NFT_NAME_SIZE, "%s", name);
	if (source)
		memcpy(key + NFT_NAME_SIZE, source->key, source->size < 16 ? source->size : 16);
	HASH_FIND(hh, counters->readings, key, KEY_SIZE, reading);
	if (!reading)
		reading = new_reading(counters, key, network ? network->name : "");
	if (!reading)
		pass->error = -ENOMEM;
	return reading;
}

static void set_packets(struct pass *pass, struct reading *reading, uint64_t packets)
{
	pass->counters->changed |= reading->packets != packets;
	reading->packets = packets;
}

/* Take over a total. Return: what is new in it; without memory it stays for the next reading. */
static uint64_t advance(struct pass *pass, const char *name, const struct network *network, const struct nft_element *source,
			uint64_t total)
{
	struct reading *reading = find_reading(pass, name, network, source);
	uint64_t before;

	if (!reading)
		return 0;
	before = reading->packets;
	set_packets(pass, reading, total);
	return total < before ? total : total - before;
}

static uint64_t total_of(const struct pass *pass, const char *name)
{
	const struct nft_object *object = nft_objects_find(&pass->objects, name);

	return object ? object->packets : 0;
}

static void report_counter(struct pass *pass, const char *name, const struct network *network, enum reason reason)
{
	uint64_t packets = advance(pass, name, network, NULL, total_of(pass, name));

	if (packets)
		pass->report(pass->context, network ? network->id : POLICY_NETWORK_NONE, NULL, reason, packets);
}

static void report_named(struct pass *pass, const char *prefix, const struct network *network, enum reason reason)
{
	char name[NFT_NAME_SIZE];

	snprintf(name, sizeof(name), "%s_%s", prefix, network->name);
	report_counter(pass, name, network, reason);
}

/* Report the sources of one family. Return: the sum of their totals. */
static uint64_t report_sources(struct pass *pass, const struct network *network, int family)
{
	struct nft_elements sources;
	struct address address;
	uint64_t sum = 0, packets;
	char set[NFT_NAME_SIZE];
	int error;

	snprintf(set, sizeof(set), "sources%c_%s", family == AF_INET ? '4' : '6', network->name);
	error = nft_elements_read(&pass->ruleset->netlink, NFT_TABLE, set, &sources);
	if (error < 0) {
		if (error != -ENOENT)
			pass->error = error;
		return 0;
	}
	for (size_t i = 0; i < sources.count; i++) {
		sum += sources.list[i].packets;
		packets = advance(pass, set, network, &sources.list[i], sources.list[i].packets);
		address = address_from_bytes(family, sources.list[i].key);
		if (packets)
			pass->report(pass->context, network->id, &address, REASON_REPEATED, packets);
	}
	nft_elements_free(&sources);
	return sum;
}

static void report_refused(struct pass *pass, const struct network *network)
{
	char name[NFT_NAME_SIZE], rest_name[NFT_NAME_SIZE];
	struct reading *refused, *rest;
	uint64_t total, sources = 0;

	snprintf(name, sizeof(name), "refused_%s", network->name);
	snprintf(rest_name, sizeof(rest_name), "rest %s", network->name); /* no counter of the kernel has a blank */
	total = total_of(pass, name);
	refused = find_reading(pass, name, network, NULL);
	rest = find_reading(pass, rest_name, network, NULL);
	if (!refused || !rest || refused->packets == total)
		return;
	if (network->subnet4.address.family)
		sources += report_sources(pass, network, AF_INET);
	if (network->subnet6.address.family)
		sources += report_sources(pass, network, AF_INET6);
	if (pass->error < 0)
		return;
	if (total < refused->packets)
		set_packets(pass, rest, 0);
	set_packets(pass, refused, total);
	if (total < sources || total - sources <= rest->packets)
		return;
	pass->report(pass->context, network->id, NULL, REASON_REPEATED, total - sources - rest->packets);
	set_packets(pass, rest, total - sources);
}

/* Networks that are gone would stay for ever. */
static void forget_gone(struct counters *counters, const struct policy *policy)
{
	struct reading *reading, *next;

	HASH_ITER (hh, counters->readings, reading, next) {
		if (!reading->network[0] || policy_network_by_name(policy, reading->network))
			continue;
		HASH_DEL(counters->readings, reading);
		free(reading);
		counters->changed = true;
	}
}

int counters_read(struct counters *counters, struct ruleset *ruleset, const struct policy *policy, counters_report report, void *context)
{
	struct pass pass = {.counters = counters, .ruleset = ruleset, .report = report, .context = context};

	pass.error = nft_objects_read(&ruleset->netlink, NFT_TABLE, NFT_OBJECTS_COUNTERS, &pass.objects);
	if (pass.error < 0)
		return pass.error;
	for (size_t i = 0; i < policy->network_count; i++) {
		const struct network *network = &policy->networks[i];

		report_named(&pass, "spoofed", network, REASON_SPOOFED_SOURCE);
		report_named(&pass, "multicast", network, REASON_MULTICAST);
		report_named(&pass, "invalid", network, REASON_INVALID);
		report_named(&pass, "crowded", network, REASON_TOO_MANY_FLOWS);
		report_named(&pass, "audited", network, REASON_REPEATED);
		report_refused(&pass, network);
	}
	report_counter(&pass, "uplink_spoofed", NULL, REASON_SPOOFED_SOURCE);
	report_counter(&pass, "unknown_interface", NULL, REASON_ISOLATED);
	report_counter(&pass, "forward_dropped", NULL, REASON_ISOLATED);
	report_counter(&pass, "input_dropped", NULL, REASON_ISOLATED);
	forget_gone(counters, policy);
	nft_objects_free(&pass.objects);
	return pass.error;
}

/* Readings as bytes. Return: their size; with @out NULL nothing is written. */
static size_t serialise(const struct counters *counters, uint8_t *out)
{
	const struct reading *reading;
	size_t size = 0;

	for (reading = counters->readings; reading; reading = reading->hh.next) {
		struct record record = {.packets = reading->packets, .name_size = (uint8_t)strnlen(reading->key, NFT_NAME_SIZE)};

		memcpy(record.network, reading->network, sizeof(record.network));
		memcpy(record.source, reading->key + NFT_NAME_SIZE, sizeof(record.source));
		if (out) {
			memcpy(out + size, &record, sizeof(record));
			memcpy(out + size + sizeof(record), reading->key, record.name_size);
		}
		size += sizeof(record) + record.name_size;
	}
	return size;
}

int counters_save(struct counters *counters, int memory)
{
	size_t size = serialise(counters, NULL);
	uint8_t *bytes;
	int rc;

	if (!counters->changed)
		return 0;
	bytes = malloc(size + 1);
	if (!bytes)
		return -ENOMEM;
	serialise(counters, bytes);
	rc = memory_put(memory, bytes, size);
	free(bytes);
	counters->changed = rc != 0;
	return rc;
}

/* Return: the size of the record at @bytes, or -errno. */
static ssize_t restore_one(struct counters *counters, const uint8_t *bytes, size_t size)
{
	struct record record;
	struct reading *reading;
	char key[KEY_SIZE] = {0};

	if (size < sizeof(record))
		return -EBADMSG;
	memcpy(&record, bytes, sizeof(record));
	record.network[POLICY_NAME_MAX] = '\0';
	if (record.name_size >= NFT_NAME_SIZE || record.name_size > size - sizeof(record))
		return -EBADMSG;
	memcpy(key, bytes + sizeof(record), record.name_size);
	memcpy(key + NFT_NAME_SIZE, record.source, sizeof(record.source));
	HASH_FIND(hh, counters->readings, key, KEY_SIZE, reading);
	if (!reading)
		reading = new_reading(counters, key, record.network);
	if (!reading)
		return -ENOMEM;
	reading->packets = record.packets;
	return (ssize_t)(sizeof(record) + record.name_size);
}

int counters_restore(struct counters *counters, int memory)
{
	void *bytes;
	size_t size, at = 0;
	ssize_t step = 0;
	int rc = memory_get(memory, &bytes, &size);

	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	while (at < size && step >= 0) {
		step = restore_one(counters, (const uint8_t *)bytes + at, size - at);
		at += step > 0 ? (size_t)step : 0;
	}
	free(bytes);
	return step < 0 ? (int)step : 0;
}
