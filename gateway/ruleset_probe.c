/* SPDX-License-Identifier: MIT */
/*
 * What the running kernel can do, tried out in a table of its own. It gets no base chain: deleting one would drop packets that wait
 * in a queue.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "gateway/ruleset_internal.h"

#define PROBE_TABLE     "sluice_probe"
#define PROBE_CHAIN     "probe"
#define PROBE_SET       "probe"
#define PROBE_FLOWTABLE "probe"

/* ms; far enough apart that a slow machine cannot confuse them */
#define PROBE_SHORT_MS 100000
#define PROBE_LONG_MS  900000

/* The table is made and deleted in one transaction, with a rule to be tried: nothing of it is ever seen. */
static void begin_try(struct nft_batch *batch, struct ruleset *ruleset)
{
	nft_batch_begin(batch, &ruleset->netlink, PROBE_TABLE);
	nft_table_add(batch);
	nft_chain_add(batch, PROBE_CHAIN);
	nft_rule_begin(batch, PROBE_CHAIN);
}

static int end_try(struct nft_batch *batch, char *error, size_t error_size)
{
	nft_rule_end(batch);
	nft_table_delete(batch);
	return nft_batch_commit(batch, error, error_size);
}

static int try_queue(struct ruleset *ruleset, bool native, char *error, size_t error_size)
{
	struct nft_batch batch;

	begin_try(&batch, ruleset);
	nft_queue(&batch, RULESET_QUEUE, native);
	return end_try(&batch, error, error_size);
}

static int probe_queue(struct ruleset *ruleset, char *error, size_t error_size)
{
	int result = try_queue(ruleset, true, error, error_size);

	ruleset->features.native_queue = result == 0;
	if (result == 0 || result == -EPERM)
		return result;
	if (try_queue(ruleset, false, error, error_size) < 0) {
		snprintf(error, error_size,
			 "this kernel has neither the nftables queue expression (CONFIG_NFT_QUEUE) nor the NFQUEUE target "
			 "(CONFIG_NETFILTER_XT_TARGET_NFQUEUE, CONFIG_NFT_COMPAT): %s",
			 strerror(-result));
		return -EOPNOTSUPP;
	}
	log_say(ruleset->log, LOG_WARNING,
		"this kernel has no nftables queue expression (CONFIG_NFT_QUEUE): the NFQUEUE target of xtables is used instead");
	return 0;
}

static void delete_probe(struct nft_batch *batch, struct ruleset *ruleset)
{
	nft_batch_begin(batch, &ruleset->netlink, PROBE_TABLE);
	nft_table_add(batch);
	nft_table_delete(batch);
}

/* An element with a short rest of its time, then the same element again with more: was that taken over? */
static int write_element_twice(struct ruleset *ruleset, char *error, size_t error_size)
{
	struct nft_set set = {.name = PROBE_SET, .key = ruleset_key_destination(AF_INET), .flags = NFT_SET_TIMEOUT};
	struct nft_element element = {.key = {192, 0, 2, 1}, .size = 4, .timeout_ms = PROBE_LONG_MS, .left_ms = PROBE_SHORT_MS};
	struct nft_batch batch;
	int result;

	delete_probe(&batch, ruleset); /* of a worker that died here */
	nft_table_add(&batch);
	nft_set_add(&batch, &set);
	nft_elements_add(&batch, PROBE_SET, &element, 1);
	result = nft_batch_commit(&batch, error, error_size);
	if (result < 0)
		return result;
	element.left_ms = 0;
	nft_batch_begin(&batch, &ruleset->netlink, PROBE_TABLE);
	nft_elements_add(&batch, PROBE_SET, &element, 1);
	return nft_batch_commit(&batch, error, error_size);
}

static int probe_refresh(struct ruleset *ruleset, char *error, size_t error_size)
{
	struct nft_elements elements = {0};
	struct nft_batch batch;
	int result = write_element_twice(ruleset, error, error_size);

	if (result < 0)
		return result;
	result = nft_elements_read(&ruleset->netlink, PROBE_TABLE, PROBE_SET, &elements);
	if (result < 0)
		snprintf(error, error_size, "nf_tables: elements cannot be listed: %s", strerror(-result));
	ruleset->features.refresh = elements.count == 1 && elements.list[0].left_ms > PROBE_SHORT_MS;
	nft_elements_free(&elements);
	delete_probe(&batch, ruleset);
	if (result == 0)
		result = nft_batch_commit(&batch, error, error_size);
	else
		nft_batch_free(&batch);
	if (result == 0 && !ruleset->features.refresh)
		log_say(ruleset->log, LOG_WARNING,
			"this kernel cannot renew the timeout of a set element (Linux before 6.12): elements are deleted and added again "
			"in one "
			"transaction");
	return result;
}

/* Before 5.18 the expression needs a register. */
static int probe_strip(struct ruleset *ruleset, char *error, size_t error_size)
{
	struct nft_batch batch;
	int result;

	begin_try(&batch, ruleset);
	nft_strip_tcp_option(&batch, RULESET_FAST_OPEN);
	result = end_try(&batch, error, error_size);
	ruleset->features.strip = result == 0;
	return result == -EPERM ? result : 0;
}

/* Whether a flow in it can be ended is seen when one is to be. */
static int probe_flowtable(struct ruleset *ruleset, char *error, size_t error_size)
{
	static const char *const devices[] = {"lo"};
	struct nft_batch batch;
	int result;

	begin_try(&batch, ruleset);
	nft_flowtable_add(&batch, PROBE_FLOWTABLE, devices, 1);
	nft_flow_add(&batch, PROBE_FLOWTABLE);
	result = end_try(&batch, error, error_size);
	ruleset->features.flowtable = result == 0;
	if (result != 0 && result != -EPERM)
		log_say(ruleset->log, LOG_INFO,
			"this kernel has no flowtable (CONFIG_NF_FLOW_TABLE_INET, CONFIG_NFT_FLOW_OFFLOAD): all packets meet the rules");
	return result == -EPERM ? result : 0;
}

int ruleset_probe(struct ruleset *ruleset, char *error, size_t error_size)
{
	int result = probe_queue(ruleset, error, error_size);

	if (result == 0)
		result = probe_refresh(ruleset, error, error_size);
	if (result == 0)
		result = probe_strip(ruleset, error, error_size);
	if (result == 0)
		result = probe_flowtable(ruleset, error, error_size);
	if (result == 0 && error_size)
		error[0] = '\0'; /* of a try that was expected to fail */
	return result;
}
