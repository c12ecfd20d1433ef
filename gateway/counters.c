/* SPDX-License-Identifier: MIT */
/*
 * Counters of the kernel, as differences.
 *
 * Theory of operation: the last reading of every counter is kept by its name, that of a source by network and address. What a network's
 * counter of refusals has more than all its sources together came when the set of sources was full, and is reported without one; what was
 * reported that way is a counter of its own here. The sources are read after the counter, so their sum may be ahead of it for one reading.
 *
 * A counter that went backwards was made anew and counts from zero.
 */
#include "gateway/counters.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"
#include "gateway/nft.h"

#define KEY_SIZE (NFT_NAME_SIZE + 16)

struct reading {
	UT_hash_handle hh;
	uint64_t packets;
	uint16_t network;
	char key[KEY_SIZE]; /* name of the counter or set, NUL-padded; then the source's address or zeros */
};

struct counters {
	struct reading *readings; /* owned, hash */
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

static struct reading *find_reading(struct pass *pass, const char *name, uint16_t network, const struct nft_element *source)
{
	struct counters *counters = pass->counters;
	struct reading *reading;
	char key[KEY_SIZE] = {0};

	snprintf(key, NFT_NAME_SIZE, "%s", name);
	if (source)
		memcpy(key + NFT_NAME_SIZE, source->key, source->size < 16 ? source->size : 16);
	HASH_FIND(hh, counters->readings, key, KEY_SIZE, reading);
	if (reading)
		return reading;
	reading = calloc(1, sizeof(*reading));
	if (reading) {
		memcpy(reading->key, key, KEY_SIZE);
		reading->network = network;
		HASH_ADD(hh, counters->readings, key, KEY_SIZE, reading);
	}
	if (reading && !reading->hh.tbl) {
		free(reading);
		reading = NULL;
	}
	if (!reading)
		pass->error = -ENOMEM;
	return reading;
}

/* Take over a total. Return: what is new in it; without memory it stays for the next reading. */
static uint64_t advance(struct pass *pass, const char *name, uint16_t network, const struct nft_element *source, uint64_t total)
{
	struct reading *reading = find_reading(pass, name, network, source);
	uint64_t before;

	if (!reading)
		return 0;
	before = reading->packets;
	reading->packets = total;
	return total < before ? total : total - before;
}

static uint64_t total_of(const struct pass *pass, const char *name)
{
	const struct nft_object *object = nft_objects_find(&pass->objects, name);

	return object ? object->packets : 0;
}

static void report_counter(struct pass *pass, const char *name, uint16_t network, enum reason reason)
{
	uint64_t packets = advance(pass, name, network, NULL, total_of(pass, name));

	if (packets)
		pass->report(pass->context, network, NULL, reason, packets);
}

static void report_named(struct pass *pass, const char *prefix, const struct network *network, enum reason reason)
{
	char name[NFT_NAME_SIZE];

	snprintf(name, sizeof(name), "%s_%s", prefix, network->name);
	report_counter(pass, name, network->id, reason);
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
		packets = advance(pass, set, network->id, &sources.list[i], sources.list[i].packets);
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
	refused = find_reading(pass, name, network->id, NULL);
	rest = find_reading(pass, rest_name, network->id, NULL);
	if (!refused || !rest || refused->packets == total)
		return;
	if (network->subnet4.address.family)
		sources += report_sources(pass, network, AF_INET);
	if (network->subnet6.address.family)
		sources += report_sources(pass, network, AF_INET6);
	if (pass->error < 0)
		return;
	if (total < refused->packets)
		rest->packets = 0;
	refused->packets = total;
	if (total < sources || total - sources <= rest->packets)
		return;
	pass->report(pass->context, network->id, NULL, REASON_REPEATED, total - sources - rest->packets);
	rest->packets = total - sources;
}

/* Networks that are gone would stay for ever. */
static void forget_gone(struct counters *counters, const struct policy *policy)
{
	struct reading *reading, *next;

	HASH_ITER (hh, counters->readings, reading, next) {
		if (reading->network == POLICY_NETWORK_NONE || policy_network(policy, reading->network))
			continue;
		HASH_DEL(counters->readings, reading);
		free(reading);
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
		report_named(&pass, "audited", network, REASON_REPEATED);
		report_refused(&pass, network);
	}
	report_counter(&pass, "uplink_spoofed", POLICY_NETWORK_NONE, REASON_SPOOFED_SOURCE);
	report_counter(&pass, "unknown_interface", POLICY_NETWORK_NONE, REASON_ISOLATED);
	forget_gone(counters, policy);
	nft_objects_free(&pass.objects);
	return pass.error;
}
