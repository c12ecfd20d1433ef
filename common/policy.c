/* SPDX-License-Identifier: MIT */
/*
 * The policy as an object: its memory, its networks and their ids, upstream groups. Names are judged in policy_name.c,
 * addresses in policy_address.c.
 */
#include "common/policy.h"
#include "common/policy_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct policy_text {
	UT_hash_handle hh;
	char text[];
};

#define BLOCK_RULES 32

/* Rules, in blocks, since they may not move. */
struct policy_rules {
	struct policy_rules *next; /* owned */
	size_t count;
	struct rule list[BLOCK_RULES];
};

/* Append the default upstream group. Return: 0 or -ENOMEM. */
static int add_default_upstream(struct policy *policy)
{
	struct upstream_group *grown = realloc(policy->upstreams, (policy->upstream_count + 1) * sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	policy->upstreams = grown;
	grown[policy->upstream_count++] = (struct upstream_group){.automatic = true};
	return 0;
}

struct policy *policy_new(void)
{
	struct policy *policy = calloc(1, sizeof(*policy));

	if (!policy)
		return NULL;
	strcpy(policy->uplink, "auto");
	policy->log = LOG_TEXT;
	policy->flowtable = true;
	policy->http[policy->http_count++] = (struct http_address){{.family = AF_INET, .bytes = {127, 0, 0, 1}}, .port = POLICY_HTTP_PORT};
	if (add_default_upstream(policy) < 0) {
		policy_free(policy);
		return NULL;
	}
	return policy;
}

/* Undo policy_finish() for one network. */
static void network_unfinish(struct network *network)
{
	policy_name_index_free(network->index);
	network->index = NULL;
	policy_address_index_free(network->addresses);
	network->addresses = NULL;
	memset(network->specs, 0, sizeof(network->specs));
	network->spec_count = 0;
}

static void upstream_group_free(struct upstream_group *group)
{
	free(group->matches);
	free(group->privates);
}

void policy_free(struct policy *policy)
{
	struct policy_text *text, *next;
	struct policy_rules *rules, *more;

	if (!policy)
		return;
	for (rules = policy->rules; rules; rules = more) {
		more = rules->next;
		free(rules);
	}
	for (size_t i = 0; i < policy->network_count; i++) {
		network_unfinish(&policy->networks[i]);
		free(policy->networks[i].rules);
		free(policy->networks[i].privates);
		free(policy->networks[i].publishes);
	}
	for (size_t i = 0; i < policy->upstream_count; i++)
		upstream_group_free(&policy->upstreams[i]);
	HASH_ITER (hh, policy->texts, text, next) {
		HASH_DEL(policy->texts, text);
		free(text);
	}
	free(policy->networks);
	free(policy->upstreams);
	free(policy->own);
	free(policy->by_id);
	prefix_table_free(&policy->own_table);
	prefix_table_free(&policy->subnets);
	free(policy);
}

const char *policy_string(struct policy *policy, const char *text)
{
	size_t size = strlen(text);
	struct policy_text *kept;

	HASH_FIND(hh, policy->texts, text, size, kept);
	if (kept)
		return kept->text;
	kept = calloc(1, sizeof(*kept) + size + 1);
	if (!kept)
		return NULL;
	memcpy(kept->text, text, size + 1);
	HASH_ADD_KEYPTR(hh, policy->texts, kept->text, size, kept);
	if (!kept->hh.tbl) {
		free(kept);
		return NULL;
	}
	return kept->text;
}

/*
 * A list of own prefixes with room for more, and the IPv6 forms in which a router beyond the uplink may be led back to the public IPv4
 * ones. (For special-purpose space address_special() knows these forms.) Return: how many there are now.
 */
static size_t add_embedded(struct prefix *list, size_t count)
{
	static const struct prefix forms[] = {{{AF_INET6, {0, 0x64, 0xff, 0x9b}}, 96}, {{AF_INET6, {0x20, 0x02}}, 16}}; /* NAT64, 6to4 */
	size_t used = count;

	for (size_t i = 0; i < count; i++) {
		if (list[i].address.family != AF_INET || address_special(&list[i].address))
			continue;
		for (size_t j = 0; j < sizeof(forms) / sizeof(forms[0]); j++) {
			list[used] = forms[j];
			memcpy(list[used].address.bytes + forms[j].length / 8, list[i].address.bytes, 4);
			list[used++].length = (uint8_t)(forms[j].length + list[i].length);
		}
	}
	return used;
}

struct rule *policy_rule(struct policy *policy, const struct rule *rule)
{
	struct policy_rules *block = policy->rules;

	if (!block || block->count == BLOCK_RULES) {
		block = malloc(sizeof(*block));
		if (!block)
			return NULL;
		block->next = policy->rules;
		block->count = 0;
		policy->rules = block;
	}
	block->list[block->count] = *rule;
	return &block->list[block->count++];
}

/* The gateway's addresses are told twice: by the interface once it has them, and by the policy. */
int policy_set_own(struct policy *policy, const struct prefix *own, size_t count)
{
	struct prefix_table table = {0};
	struct prefix *copy = calloc(3 * count + 1, sizeof(*copy));
	size_t kept = 0;

	if (copy && count)
		memcpy(copy, own, count * sizeof(*copy));
	if (!copy || prefix_table_build(&table, copy, add_embedded(copy, count)) < 0) {
		free(copy);
		return -ENOMEM;
	}
	for (size_t i = 0; i < table.count; i++) {
		if (kept == 0 || !prefix_equal(&copy[kept - 1], &table.rows[i].prefix))
			copy[kept++] = table.rows[i].prefix;
	}
	free(policy->own);
	prefix_table_free(&policy->own_table);
	policy->own = copy;
	policy->own_count = kept;
	policy->own_table = table;
	return 0;
}

const struct prefix *policy_own(const struct policy *policy, const struct address *address)
{
	const struct prefix_row *row = prefix_table_find(&policy->own_table, address);

	return row ? &row->prefix : NULL;
}

/* While a policy is being made, its networks are in no order. */
static const struct network *find_network(const struct policy *policy, uint16_t id)
{
	for (size_t i = 0; i < policy->network_count; i++)
		if (policy->networks[i].id == id)
			return &policy->networks[i];
	return NULL;
}

const struct network *policy_network(const struct policy *policy, uint16_t id)
{
	size_t low = 0, high = policy->network_count;

	/* Until networks come and go over reloads, the id is the place. */
	if (id < policy->network_count && policy->networks[id].id == id)
		return &policy->networks[id];
	if (!policy->by_id)
		return find_network(policy, id);
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct network *network = &policy->networks[policy->by_id[middle]];

		if (network->id == id)
			return network;
		if (network->id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

static int compare_ids(const void *left, const void *right, void *networks)
{
	const uint16_t *a = left, *b = right;
	const struct network *list = networks;

	return (int)list[*a].id - (int)list[*b].id;
}

/* Only when it was made room for. */
static void order_ids(struct policy *policy)
{
	for (size_t i = 0; policy->by_id && i < policy->network_count; i++)
		policy->by_id[i] = (uint16_t)i;
	if (policy->by_id)
		qsort_r(policy->by_id, policy->network_count, sizeof(*policy->by_id), compare_ids, policy->networks);
}

const struct network *policy_network_by_name(const struct policy *policy, const char *name)
{
	for (size_t i = 0; i < policy->network_count; i++)
		if (strcmp(policy->networks[i].name, name) == 0)
			return &policy->networks[i];
	return NULL;
}

const struct network *policy_network_by_source(const struct policy *policy, const struct address *source)
{
	const struct prefix_row *row = prefix_table_find(&policy->subnets, source);

	return row ? &policy->networks[row->index / 2] : NULL;
}

/* The lowest id that neither policy uses; for a process that lived through more networks than there are ids. */
static uint16_t unused_id(const struct policy *policy, const struct policy *old)
{
	for (uint16_t id = 0; id < POLICY_NETWORK_NONE; id++)
		if (!find_network(old, id) && !find_network(policy, id))
			return id;
	return POLICY_NETWORK_NONE;
}

static uint32_t next_id(const struct policy *policy)
{
	uint32_t next = policy->next_id;

	for (size_t i = 0; i < policy->network_count; i++)
		if (policy->networks[i].id >= next && policy->networks[i].id != POLICY_NETWORK_NONE)
			next = policy->networks[i].id + 1U;
	return next;
}

void policy_inherit_ids(struct policy *policy, const struct policy *old)
{
	policy->next_id = old ? next_id(old) : 0;
	for (size_t i = 0; i < policy->network_count; i++) {
		const struct network *same = old ? policy_network_by_name(old, policy->networks[i].name) : NULL;

		policy->networks[i].id = same ? same->id : POLICY_NETWORK_NONE;
	}
	for (size_t i = 0; i < policy->network_count; i++) {
		struct network *network = &policy->networks[i];

		if (network->id != POLICY_NETWORK_NONE)
			continue;
		if (policy->next_id < POLICY_NETWORK_NONE)
			network->id = (uint16_t)policy->next_id++;
		else
			network->id = unused_id(policy, old ? old : policy);
	}
	order_ids(policy);
}

const char *policy_publish_format(const struct publish *publish, char out[static POLICY_PUBLISH_TEXT_MAX])
{
	const char *protocol = publish->tcp && publish->udp ? "" : publish->tcp ? "/tcp" : "/udp";

	if (publish->ports.first == publish->ports.last)
		snprintf(out, POLICY_PUBLISH_TEXT_MAX, "%u%s", publish->ports.first, protocol);
	else
		snprintf(out, POLICY_PUBLISH_TEXT_MAX, "%u-%u%s", publish->ports.first, publish->ports.last, protocol);
	return out;
}

uint64_t policy_specs_on(const struct network *network, uint8_t protocol, uint16_t port)
{
	uint64_t specs = 0;

	for (size_t i = 0; i < network->spec_count; i++) {
		if (ports_contains(&network->specs[i], protocol, port))
			specs |= UINT64_C(1) << i;
	}
	return specs;
}

bool policy_in_pool(const struct network *network, const struct address *address)
{
	return network->has_virtual_addresses && (prefix_contains(&network->pool4, address) || prefix_contains(&network->pool6, address));
}

const char *policy_verify_name(enum network_verify verify)
{
	static const char *const names[] = {[VERIFY_OFF] = "off", [VERIFY_LOG] = "log", [VERIFY_ENFORCE] = "enforce"};

	return names[verify];
}

bool policy_is_auditing(const struct network *network, time_t now)
{
	return network->mode == MODE_AUDIT && (network->audit_until == 0 || now < network->audit_until);
}

bool policy_server_equal(const struct upstream_server *a, const struct upstream_server *b)
{
	if (a->port != b->port || !address_equal(&a->address, &b->address) || !a->tls_name != !b->tls_name)
		return false;
	return !a->tls_name || strcmp(a->tls_name, b->tls_name) == 0;
}

const char *policy_server_format(const struct upstream_server *server, char out[static POLICY_SERVER_MAX])
{
	char address[ADDRESS_TEXT_MAX];
	bool ipv6 = server->address.family == AF_INET6;

	snprintf(out, POLICY_SERVER_MAX, "%s%s%s%s:%u%s%s", server->tls_name ? "tls://" : "", ipv6 ? "[" : "",
		 address_format(&server->address, address), ipv6 ? "]" : "", server->port, server->tls_name ? "#" : "",
		 server->tls_name ? server->tls_name : "");
	return out;
}

const char *policy_http_format(const struct http_address *http, char out[static POLICY_SERVER_MAX])
{
	const struct upstream_server place = {.address = http->address, .port = http->port};

	return policy_server_format(&place, out);
}

bool policy_http_is_wide(const struct http_address *http)
{
	static const uint8_t zero[sizeof(http->address.bytes)];

	return memcmp(http->address.bytes, zero, sizeof(zero)) == 0;
}

bool policy_http_is_local(const struct http_address *http)
{
	static const struct prefix loopback4 = {{.family = AF_INET, .bytes = {127}}, 8};
	static const struct prefix loopback6 = {{.family = AF_INET6, .bytes = {[15] = 1}}, 128};

	return prefix_contains(&loopback4, &http->address) || prefix_contains(&loopback6, &http->address);
}

/* More labels win; among patterns with the same base, the one that matches fewer names. */
static unsigned int specificity(const struct pattern *pattern)
{
	return domain_labels(&pattern->base) * (PATTERN_ANY + 1) + (PATTERN_ANY - pattern->kind);
}

const struct upstream_group *policy_upstream_for(const struct policy *policy, const struct domain *name)
{
	const struct upstream_group *best = NULL;
	unsigned int best_rank = 0;

	assert(policy->upstream_count > 0);
	for (size_t i = 0; i < policy->upstream_count; i++) {
		const struct upstream_group *group = &policy->upstreams[i];

		for (size_t j = 0; j < group->match_count; j++) {
			unsigned int rank = specificity(&group->matches[j]);

			if ((!best || rank > best_rank) && pattern_matches(&group->matches[j], name)) {
				best = group;
				best_rank = rank;
			}
		}
	}
	return best ? best : &policy->upstreams[policy->upstream_count - 1];
}

static int network_finish(struct network *network, char *error, size_t error_size, struct source *where)
{
	int err;

	network_unfinish(network);
	network->addresses = policy_address_index_new(network);
	err = network->addresses ? policy_name_finish(network, error, error_size, where) : -ENOMEM;
	if (err < 0)
		network_unfinish(network);
	return err;
}

/* Keep the last default group only, and make it the last of all. */
static int order_upstreams(struct policy *policy)
{
	struct upstream_group last = {0};
	bool found = false;
	size_t kept = 0;

	for (size_t i = 0; i < policy->upstream_count; i++) {
		if (policy->upstreams[i].name[0] != '\0') {
			policy->upstreams[kept++] = policy->upstreams[i];
			continue;
		}
		upstream_group_free(&last);
		last = policy->upstreams[i];
		found = true;
	}
	policy->upstream_count = kept;
	if (!found)
		return add_default_upstream(policy);
	policy->upstreams[policy->upstream_count++] = last;
	return 0;
}

static bool ids_are_distinct(const struct policy *policy)
{
	for (size_t i = 0; i < policy->network_count; i++)
		for (size_t j = 0; j < i; j++)
			if (policy->networks[i].id == policy->networks[j].id)
				return false;
	return true;
}

/* Make what networks are found by. */
static int index_networks(struct policy *policy)
{
	struct prefix *subnets = calloc(2 * policy->network_count + 1, sizeof(*subnets));
	int err = subnets ? 0 : -ENOMEM;

	for (size_t i = 0; subnets && i < policy->network_count; i++) {
		subnets[2 * i] = policy->networks[i].subnet4;
		subnets[2 * i + 1] = policy->networks[i].subnet6;
	}
	if (!err)
		err = prefix_table_build(&policy->subnets, subnets, 2 * policy->network_count);
	free(subnets);
	free(policy->by_id);
	policy->by_id = calloc(policy->network_count + 1, sizeof(*policy->by_id));
	order_ids(policy);
	return policy->by_id ? err : -ENOMEM;
}

int policy_finish_slowly(struct policy *policy, char *error, size_t error_size, struct source *where, void (*pause)(void *context),
			 void *context)
{
	int err = order_upstreams(policy);

	if (!ids_are_distinct(policy))
		policy_inherit_ids(policy, NULL);
	if (err == 0)
		err = index_networks(policy);
	for (size_t i = 0; err == 0 && i < policy->network_count; i++) {
		err = network_finish(&policy->networks[i], error, error_size, where);
		pause(context);
	}
	if (err == -ENOMEM) {
		snprintf(error, error_size, "out of memory");
		*where = (struct source){0};
	}
	return err;
}

static void no_pause(void *context)
{
	(void)context;
}

int policy_finish(struct policy *policy, char *error, size_t error_size, struct source *where)
{
	return policy_finish_slowly(policy, error, error_size, where, no_pause, NULL);
}
