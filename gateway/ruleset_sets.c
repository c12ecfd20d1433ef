/* SPDX-License-Identifier: MIT */
/*
 * The sets of the table and their elements.
 *
 * Theory of operation: the kernel's own list is compared with what should be there, so nothing has to be remembered over a restart of the
 * worker, and only differences are written. Flushing a set would drop allowed traffic for a moment.
 *
 * A set of ranges that differs is replaced as a whole, by a new one of the same name in the same transaction (the rules that used the old
 * one have been deleted by then). Changing it in place would not do: while a transaction is under way, a look-up in a tree of ranges may
 * end at an element that is not valid yet, and miss the old range around it (seen on Linux 6.1). Hash sets do not have this weakness.
 *
 * An element with a timeout may end between our look and the transaction, and a delete of what is not there would undo the whole
 * transaction. So a delete is always preceded by an add.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/ruleset_internal.h"

#define ROUND_MS    20               /* added to timeouts: the kernel counts in its own ticks, and no element may end before its lease */
#define SPEC_DENIED POLICY_SPECS_MAX /* beside the port specifications: addresses of names that a deny rule forbids */
#define MOMENT_MS   60000            /* life of an element that is only added to be deleted */
#define LATE_MS     500 /* an element that ends so much after its lease is written anew; less is the clocks' and the kernel's doing */

static const int families[] = {AF_INET, AF_INET6};

static void fail(struct ruleset_plan *plan, int error)
{
	if (!plan->error)
		plan->error = error;
}

struct nft_key ruleset_key_destination(int family)
{
	return (struct nft_key){family, 1, {NFT_FIELD_DESTINATION}};
}

struct nft_key ruleset_key_source(int family)
{
	return (struct nft_key){family, 1, {NFT_FIELD_SOURCE}};
}

struct nft_key ruleset_key_seen(int family)
{
	return (struct nft_key){family, 4, {NFT_FIELD_SOURCE, NFT_FIELD_DESTINATION, NFT_FIELD_PROTOCOL, NFT_FIELD_DESTINATION_PORT}};
}

/* UDP and TCP have rates of their own. */
struct nft_key ruleset_key_asking(int family)
{
	return (struct nft_key){family, 2, {NFT_FIELD_SOURCE, NFT_FIELD_PROTOCOL}};
}

struct nft_key ruleset_key_notify(int family)
{
	return (struct nft_key){family, 2, {NFT_FIELD_DESTINATION, NFT_FIELD_DESTINATION_PORT}};
}

/* The elements of sorted ranges that do not touch one another, in the order of nft_elements_read(). Return: how many. */
static size_t range_elements(const struct address_range *ranges, size_t count, struct nft_element *out)
{
	size_t used = 0;

	for (size_t i = 0; i < count; i++) {
		struct nft_element behind = nft_element_address(&ranges[i].last);
		bool open = true; /* it reaches to the end of the address space: nothing is behind it */

		for (size_t j = behind.size; j-- > 0 && open;)
			open = ++behind.key[j] == 0;
		behind.end = true;
		out[used++] = nft_element_address(&ranges[i].first);
		if (!open)
			out[used++] = behind;
	}
	return used;
}

static bool same_elements(const struct nft_elements *old, const struct nft_element *new, size_t count)
{
	if (old->count != count)
		return false;
	for (size_t i = 0; i < count; i++)
		if (nft_element_compare(&old->list[i], &new[i]) != 0)
			return false;
	return true;
}

/* Does the kernel have the set with just these elements? */
static bool has_ranges(struct ruleset_plan *plan, const char *name, const struct nft_element *elements, size_t count)
{
	struct nft_elements old = {0};
	int error = 0;
	bool same;

	if (!nft_objects_find(&plan->sets, name))
		return false;
	error = nft_elements_read(&plan->ruleset->netlink, NFT_TABLE, name, &old);
	if (error < 0)
		fail(plan, error);
	same = error == 0 && same_elements(&old, elements, count);
	nft_elements_free(&old);
	return same;
}

/* Make a set hold exactly these ranges; they are sorted and do not touch one another. */
static void write_ranges(struct ruleset_plan *plan, const char *name, int family, const struct address_range *ranges, size_t count)
{
	struct nft_set set = {.name = name, .key = ruleset_key_destination(family), .flags = NFT_SET_INTERVAL};
	struct nft_element *elements = calloc(2 * count + 1, sizeof(*elements));
	size_t element_count;
	bool same;

	if (!elements) {
		fail(plan, -ENOMEM);
		return;
	}
	element_count = range_elements(ranges, count, elements);
	same = has_ranges(plan, name, elements, element_count);
	if (ruleset_want_set(plan, &set) && !same) {
		nft_set_delete(&plan->batch, name);
		nft_set_add(&plan->batch, &set);
	}
	if (!same)
		nft_elements_add(&plan->batch, name, elements, element_count);
	free(elements);
}

/* A set of a whole family from prefixes of both; special-purpose blocks overlap, so do own prefixes. */
static void write_prefixes(struct ruleset_plan *plan, const char *name, int family, const struct prefix *prefixes, size_t count)
{
	struct address_range *ranges = calloc(count + 1, sizeof(*ranges));
	size_t used = 0;

	if (!ranges) {
		fail(plan, -ENOMEM);
		return;
	}
	for (size_t i = 0; i < count; i++)
		if (prefixes[i].address.family == family)
			ranges[used++] = prefix_range(&prefixes[i]);
	used = address_ranges_normalise(ranges, used);
	write_ranges(plan, name, family, ranges, used);
	free(ranges);
}

/* The subnets of all networks, and what audit mode may not open: special-purpose space and the gateway's own prefixes. */
static void write_global_family(struct ruleset_plan *plan, int family)
{
	const struct policy *policy = plan->policy;
	size_t block_count, used = 0;
	const struct prefix *blocks = address_special_blocks(family, &block_count);
	struct prefix *list = calloc(block_count + policy->own_count + policy->network_count + 1, sizeof(*list));

	if (!list) {
		fail(plan, -ENOMEM);
		return;
	}
	for (size_t i = 0; i < policy->network_count; i++)
		if (ruleset_subnet(&policy->networks[i], family))
			list[used++] = *ruleset_subnet(&policy->networks[i], family);
	write_prefixes(plan, family == AF_INET ? RULESET_INSIDE "4" : RULESET_INSIDE "6", family, list, used);
	memcpy(list + used, blocks, block_count * sizeof(*blocks));
	used += block_count;
	for (size_t i = 0; i < policy->own_count; i++)
		list[used++] = policy->own[i];
	write_prefixes(plan, family == AF_INET ? RULESET_SPECIAL "4" : RULESET_SPECIAL "6", family, list, used);
	free(list);
}

/* Their elements come and go with each message, and end by themselves. */
static void want_notify(struct ruleset_plan *plan)
{
	for (size_t f = 0; f < 2 && plan->policy->notify.url; f++) {
		struct nft_set set = {
			.name = families[f] == AF_INET ? RULESET_NOTIFY "4" : RULESET_NOTIFY "6",
			.key = ruleset_key_notify(families[f]),
			.flags = NFT_SET_TIMEOUT,
			.timeout_ms = RULESET_NOTIFY_MS,
		};
		ruleset_want_set(plan, &set);
	}
}

void ruleset_sets_global(struct ruleset_plan *plan)
{
	static const struct nft_element protocols[] = {{.key = {IPPROTO_TCP}, .size = 1}, {.key = {IPPROTO_UDP}, .size = 1}};
	struct nft_set set = {.name = RULESET_TRANSPORT, .key = {0, 1, {NFT_FIELD_PROTOCOL}}};

	ruleset_want_set(plan, &set);
	nft_elements_add(&plan->batch, RULESET_TRANSPORT, protocols, 2);
	want_notify(plan);
	write_global_family(plan, AF_INET);
	write_global_family(plan, AF_INET6);
}

static int compare_leases(const void *a, const void *b)
{
	const struct ruleset_lease *left = a, *right = b;
	int order;

	if (left->network != right->network)
		return left->network < right->network ? -1 : 1;
	if (left->spec != right->spec)
		return left->spec < right->spec ? -1 : 1;
	order = address_compare(&left->address, &right->address);
	if (order)
		return order;
	/* The longest one first: the others of its address are passed over. */
	return left->until > right->until ? -1 : left->until < right->until;
}

static bool collect_one(struct ruleset_plan *plan, const struct lease *lease, uint8_t spec)
{
	size_t wanted = plan->lease_capacity ? plan->lease_capacity * 2 : 256;
	struct ruleset_lease *grown;

	if (plan->lease_count == plan->lease_capacity) {
		grown = realloc(plan->leases, wanted * sizeof(*grown));
		if (!grown)
			return false;
		plan->leases = grown;
		plan->lease_capacity = wanted;
	}
	plan->leases[plan->lease_count++] =
		(struct ruleset_lease){.network = lease->network, .spec = spec, .address = lease->address, .until = lease->until};
	return true;
}

/* Would audit mode let flows to it pass, although a deny rule forbids its name? */
static bool is_denied(const struct ruleset_plan *plan, const struct lease *lease)
{
	const struct network *network = policy_network(plan->policy, lease->network);
	struct name_verdict verdict;

	if (!network || !policy_is_auditing(network, plan->wall))
		return false;
	verdict = policy_judge_chain(network, &lease->name, &lease->chain, plan->wall, NULL);
	return !verdict.allowed && verdict.reason == REASON_DENIED_BY_RULE;
}

static bool collect_lease(void *context, struct lease *lease)
{
	struct ruleset_plan *plan = context;

	if (lease->until <= plan->now)
		return true;
	if (is_denied(plan, lease) && !collect_one(plan, lease, SPEC_DENIED))
		fail(plan, -ENOMEM);
	if (lease->audited)
		return true;
	for (uint8_t spec = 0; spec < POLICY_SPECS_MAX; spec++)
		if (lease->specs >> spec & 1 && !collect_one(plan, lease, spec))
			fail(plan, -ENOMEM);
	return true;
}

/* Once, when the first set is to be compared. */
static void collect(struct ruleset_plan *plan)
{
	if (plan->collected)
		return;
	plan->collected = true;
	lease_each(plan->table, collect_lease, plan);
	if (plan->lease_count)
		qsort(plan->leases, plan->lease_count, sizeof(*plan->leases), compare_leases);
}

/* Index of the first lease that is not before this one. */
static size_t lower_bound(const struct ruleset_plan *plan, const struct ruleset_lease *key)
{
	size_t low = 0, high = plan->lease_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (compare_leases(&plan->leases[middle], key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Write elements (each once) so that their timeout counts from now, whatever the kernel can do. */
static void renew(struct nft_batch *batch, const struct kernel_features *features, const char *set, const struct nft_element *elements,
		  size_t count)
{
	nft_elements_add(batch, set, elements, count);
	if (features->refresh)
		return;
	nft_elements_delete(batch, set, elements, count);
	nft_elements_add(batch, set, elements, count);
}

struct nft_element ruleset_lease_element(const struct address *address, uint64_t until, uint64_t now)
{
	struct nft_element element = nft_element_address(address);

	element.timeout_ms = until - now + ROUND_MS;
	return element;
}

void ruleset_put_leases(const struct ruleset *ruleset, struct nft_batch *batch, const char *set, const struct nft_element *elements,
			size_t count)
{
	renew(batch, &ruleset->features, set, elements, count);
}

void ruleset_close_lease(struct nft_batch *batch, const char *set, const struct address *address)
{
	struct nft_element element = nft_element_address(address);

	element.timeout_ms = MOMENT_MS;
	nft_elements_add(batch, set, &element, 1);
	nft_elements_delete(batch, set, &element, 1);
}

int ruleset_notify(struct ruleset *ruleset, const struct address *addresses, size_t count, uint16_t port, bool open, char *error,
		   size_t error_size)
{
	struct nft_batch batch;

	nft_batch_begin(&batch, &ruleset->netlink, NFT_TABLE);
	for (size_t i = 0; i < count; i++) {
		struct nft_element element = nft_element_port(&addresses[i], port);
		const char *set = addresses[i].family == AF_INET ? RULESET_NOTIFY "4" : RULESET_NOTIFY "6";

		element.timeout_ms = RULESET_NOTIFY_MS;
		nft_elements_add(&batch, set, &element, 1);
		nft_elements_delete(&batch, set, &element, 1);
		if (open)
			nft_elements_add(&batch, set, &element, 1);
	}
	return nft_batch_commit(&batch, error, error_size);
}

static void put_crowded(struct nft_batch *batch, const struct ruleset *ruleset, const char *set, struct nft_element element)
{
	element.timeout_ms = RULESET_CROWDED_MS;
	renew(batch, &ruleset->features, set, &element, 1);
}

int ruleset_crowded(struct ruleset *ruleset, const struct ruleset_crowd *crowd, char *error, size_t error_size)
{
	static const struct nft_element protocols[] = {{.key = {IPPROTO_TCP}, .size = 1}, {.key = {IPPROTO_UDP}, .size = 1}};
	struct nft_batch batch;
	char name[NFT_NAME_SIZE];

	nft_batch_begin(&batch, &ruleset->netlink, NFT_TABLE);
	for (size_t i = 0; i < crowd->count; i++)
		put_crowded(&batch, ruleset, ruleset_set_name(RULESET_CROWDED, crowd->sources[i].family, crowd->network, NULL, name),
			    nft_element_address(&crowd->sources[i]));
	for (size_t i = 0; i < 2 && crowd->all; i++)
		put_crowded(&batch, ruleset, ruleset_name(RULESET_CROWDED, crowd->network, name), protocols[i]);
	return nft_batch_commit(&batch, error, error_size);
}

/* The elements that a name set should have, sorted as the kernel's list. Return: how many. */
static size_t wanted_elements(const struct ruleset_plan *plan, const struct network *network, uint8_t spec, int family, size_t first,
			      size_t last, struct nft_element *out)
{
	const struct address *before = NULL;
	size_t count = 0;

	for (size_t i = first; i < last; i++) {
		const struct ruleset_lease *lease = &plan->leases[i];

		if (lease->network != network->id || lease->spec != spec || lease->address.family != family ||
		    (before && address_equal(before, &lease->address)))
			continue;
		before = &lease->address;
		out[count++] = ruleset_lease_element(&lease->address, lease->until, plan->now);
	}
	return count;
}

static bool ends_otherwise(const struct nft_element *old, const struct nft_element *new)
{
	return old->left_ms + ROUND_MS < new->timeout_ms || old->left_ms > new->timeout_ms + LATE_MS;
}

/*
 * Write the difference of a name set: elements that no lease has go, missing ones and those that end at another time are written. @work:
 * room for all of both lists.
 */
static void write_name_difference(struct ruleset_plan *plan, const char *set, const struct nft_elements *old, const struct nft_element *new,
				  size_t new_count, struct nft_element *work)
{
	struct nft_element *gone = work, *fresh = work + old->count;
	size_t i = 0, j = 0, gone_count = 0, fresh_count = 0;

	while (i < old->count || j < new_count) {
		int order = i == old->count ? 1 : j == new_count ? -1 : nft_element_compare(&old->list[i], &new[j]);

		if (order < 0) {
			gone[gone_count] = old->list[i];
			gone[gone_count].left_ms = 0;
			gone[gone_count++].timeout_ms = MOMENT_MS;
		} else if (order > 0 || ends_otherwise(&old->list[i], &new[j])) {
			fresh[fresh_count++] = new[j];
		}
		i += order <= 0;
		j += order >= 0;
	}
	nft_elements_add(&plan->batch, set, gone, gone_count);
	nft_elements_delete(&plan->batch, set, gone, gone_count);
	renew(&plan->batch, &plan->ruleset->features, set, fresh, fresh_count);
}

/* The elements of one set where leases have changed. */
static void write_places(struct ruleset_plan *plan, const struct network *network, uint8_t spec, int family, const char *name)
{
	for (size_t i = 0; i < plan->places->count; i++) {
		const struct ruleset_place *place = &plan->places->list[i];
		uint64_t until;

		if (place->network != network->id || place->address.family != family || !(place->specs >> spec & 1))
			continue;
		until = lease_until(plan->table, network->id, &place->address, 1ULL << spec);
		if (until > plan->now) {
			struct nft_element element = ruleset_lease_element(&place->address, until, plan->now);

			renew(&plan->batch, &plan->ruleset->features, name, &element, 1);
		} else {
			ruleset_close_lease(&plan->batch, name, &place->address);
		}
	}
}

static void compare_set(struct ruleset_plan *plan, const struct network *network, uint8_t spec, int family, const char *name, bool exists)
{
	struct ruleset_lease key = {.network = network->id, .spec = spec, .until = UINT64_MAX};
	struct nft_elements old = {0};
	struct nft_element *work;
	size_t first, last, count;
	int error = 0;

	collect(plan);
	first = lower_bound(plan, &key);
	key.spec++; /* SPEC_DENIED + 1 fits */
	last = lower_bound(plan, &key);
	if (exists)
		error = nft_elements_read(&plan->ruleset->netlink, NFT_TABLE, name, &old);
	if (error < 0) {
		fail(plan, error);
		return;
	}
	work = calloc(old.count + 2 * (last - first) + 1, sizeof(*work));
	if (work) {
		count = wanted_elements(plan, network, spec, family, first, last, work);
		write_name_difference(plan, name, &old, work, count, work + count);
	} else {
		fail(plan, -ENOMEM);
	}
	free(work);
	nft_elements_free(&old);
}

static void write_leases(struct ruleset_plan *plan, const struct network *network, uint8_t spec, int family, const char *name)
{
	struct nft_set set = {.name = name, .key = ruleset_key_destination(family), .flags = NFT_SET_TIMEOUT};
	bool exists = ruleset_want_set(plan, &set);

	if (exists && plan->places && spec != SPEC_DENIED)
		write_places(plan, network, spec, family, name);
	else
		compare_set(plan, network, spec, family, name, exists);
}

/* Sets that only the packet path writes. */
static void want_dynamic(struct ruleset_plan *plan, const struct network *network, int family)
{
	char name[NFT_NAME_SIZE];
	struct nft_set set = {.name = name, .flags = NFT_SET_EVAL | NFT_SET_TIMEOUT};

	ruleset_set_name("seen", family, network, NULL, name);
	set.key = ruleset_key_seen(family);
	set.timeout_ms = RULESET_SEEN_SECONDS * 1000;
	set.size = RULESET_SEEN_SIZE;
	ruleset_want_set(plan, &set);

	ruleset_set_name("sources", family, network, NULL, name);
	set = (struct nft_set){.name = name, .key = ruleset_key_source(family), .flags = NFT_SET_EVAL, .size = RULESET_SOURCES_SIZE};
	ruleset_want_set(plan, &set);

	ruleset_set_name("busy", family, network, NULL, name);
	set.flags = NFT_SET_EVAL | NFT_SET_TIMEOUT;
	set.timeout_ms = RULESET_SOURCE_SECONDS * 1000;
	ruleset_want_set(plan, &set);

	ruleset_set_name("asking", family, network, NULL, name);
	set.key = ruleset_key_asking(family);
	ruleset_want_set(plan, &set);

	ruleset_set_name(RULESET_CROWDED, family, network, NULL, name);
	set.key = ruleset_key_source(family);
	set.flags = NFT_SET_TIMEOUT;
	set.timeout_ms = RULESET_CROWDED_MS;
	ruleset_want_set(plan, &set);
}

/* Everybody in the network has too many flows: the protocols of new ones that are refused. */
static void want_crowded(struct ruleset_plan *plan, const struct network *network)
{
	char name[NFT_NAME_SIZE];
	const struct nft_set set = {.name = ruleset_name(RULESET_CROWDED, network, name),
				    .key = {0, 1, {NFT_FIELD_PROTOCOL}},
				    .flags = NFT_SET_TIMEOUT,
				    .timeout_ms = RULESET_CROWDED_MS};

	ruleset_want_set(plan, &set);
}

void ruleset_sets_network(struct ruleset_plan *plan, const struct network *network, const struct address_set *addresses, size_t count)
{
	char name[NFT_NAME_SIZE];

	want_crowded(plan, network);
	for (size_t f = 0; f < sizeof(families) / sizeof(families[0]); f++) {
		if (!ruleset_subnet(network, families[f]))
			continue;
		want_dynamic(plan, network, families[f]);
		for (uint8_t spec = 0; spec < network->spec_count; spec++) {
			ruleset_name_set(network, spec, families[f], name);
			write_leases(plan, network, spec, families[f], name);
		}
		if (policy_is_auditing(network, plan->wall))
			write_leases(plan, network, SPEC_DENIED, families[f],
				     ruleset_set_name(RULESET_DENIED, families[f], network, NULL, name));
		for (size_t i = 0; i < count; i++) {
			if (addresses[i].family != families[f])
				continue;
			ruleset_set_name(addresses[i].action == RULE_ALLOW ? "allow" : "deny", families[f], network, &addresses[i].ports,
					 name);
			write_ranges(plan, name, families[f], addresses[i].ranges, addresses[i].range_count);
		}
	}
}
