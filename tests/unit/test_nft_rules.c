/* SPDX-License-Identifier: MIT */
/* What a batch says about rules, and the batch without them. Nothing is sent. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <malloc.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/nft.h"

struct content {
	const char *comparison; /* an interface that the rule is about, as its first letter */
	bool elements, named_set, other_branch;
	const char *device; /* of a flowtable, which is made anew where the kernel had one */
	bool had_flowtable;
};

static struct netlink netlink;

static struct nft_batch make(const struct content *content)
{
	struct nft_branch branches[] = {{.interface = 1, .kind = NFT_VERDICT_DROP}, {.interface = 2, .kind = NFT_VERDICT_ACCEPT}};
	struct nft_element element = {.key = {192, 0, 2, 1}, .size = 4, .timeout_ms = 1000};
	struct nft_set set = {.name = "names", .key = {AF_INET, 1, {NFT_FIELD_DESTINATION}}, .flags = NFT_SET_TIMEOUT};
	struct nft_batch batch;

	nft_batch_begin_comparable(&batch, &netlink, "table");
	nft_table_add(&batch);
	nft_rules_flush(&batch);
	if (content->had_flowtable)
		nft_flowtable_delete(&batch, "fast");
	if (content->device)
		nft_flowtable_add(&batch, "fast", &content->device, 1);
	if (content->named_set)
		nft_set_add(&batch, &set);
	if (content->elements) {
		nft_elements_add(&batch, "names", &element, 1);
		nft_elements_delete(&batch, "names", &element, 1);
	}
	nft_rule_begin(&batch, "chain");
	nft_match_meta32(&batch, NFT_META_IIF, (uint32_t)content->comparison[0], true);
	nft_verdict(&batch, NFT_VERDICT_ACCEPT, NULL);
	nft_rule_end(&batch);
	branches[1].kind = content->other_branch ? NFT_VERDICT_DROP : NFT_VERDICT_ACCEPT;
	nft_branch_map(&batch, branches, 2);
	assert_int_equal(batch.error, 0);
	return batch;
}

static bool digest_of(const struct content *content, uint8_t digest[static NFT_DIGEST_SIZE])
{
	struct nft_batch batch = make(content);
	bool only = nft_batch_digest(&batch, digest);

	nft_batch_free(&batch);
	return only;
}

static void only_rules_count(void **state)
{
	const struct content plain = {.comparison = "a"}, with_elements = {.comparison = "a", .elements = true},
			     with_set = {.comparison = "a", .named_set = true}, other_rule = {.comparison = "b"},
			     other_branch = {.comparison = "a", .other_branch = true};
	uint8_t first[NFT_DIGEST_SIZE], second[NFT_DIGEST_SIZE];

	(void)state;
	assert_true(digest_of(&plain, first));
	assert_true(digest_of(&plain, second)); /* other sequence numbers */
	assert_memory_equal(first, second, NFT_DIGEST_SIZE);
	assert_true(digest_of(&with_elements, second));
	assert_memory_equal(first, second, NFT_DIGEST_SIZE);
	assert_false(digest_of(&with_set, second)); /* that has to be sent, and the rules are the same all the same */
	assert_memory_equal(first, second, NFT_DIGEST_SIZE);
	assert_true(digest_of(&other_rule, second));
	assert_memory_not_equal(first, second, NFT_DIGEST_SIZE);
	assert_true(digest_of(&other_branch, second));
	assert_memory_not_equal(first, second, NFT_DIGEST_SIZE);
}

/* Whether the kernel had one before says nothing about what is wanted. */
static void a_flowtable_counts_as_a_rule(void **state)
{
	const struct content without = {.comparison = "a"}, with = {.comparison = "a", .device = "eth0"},
			     again = {.comparison = "a", .device = "eth0", .had_flowtable = true},
			     other = {.comparison = "a", .device = "eth1", .had_flowtable = true};
	uint8_t first[NFT_DIGEST_SIZE], second[NFT_DIGEST_SIZE];
	struct nft_batch batch = make(&again);

	(void)state;
	nft_batch_drop_rules(&batch);
	assert_int_equal(batch.messages, 0);
	nft_batch_free(&batch);
	assert_true(digest_of(&without, first));
	assert_true(digest_of(&with, second));
	assert_memory_not_equal(first, second, NFT_DIGEST_SIZE);
	assert_true(digest_of(&again, first));
	assert_memory_equal(first, second, NFT_DIGEST_SIZE);
	assert_true(digest_of(&other, second));
	assert_memory_not_equal(first, second, NFT_DIGEST_SIZE);
}

/* Padding comes from memory that was used for something else. */
static void the_same_rules_are_the_same_octets(void **state)
{
	const struct content plain = {.comparison = "a"};
	uint8_t first[NFT_DIGEST_SIZE], second[NFT_DIGEST_SIZE];

	(void)state;
	digest_of(&plain, first);
	for (int fill = 1; fill < 4; fill++) {
		char *dirt = malloc(256 * 1024);

		assert_non_null(dirt);
		memset(dirt, fill, 256 * 1024);
		mallopt(M_MMAP_THRESHOLD, 1024 * 1024); /* the batch gets what is freed here */
		free(dirt);
		digest_of(&plain, second);
		assert_memory_equal(first, second, NFT_DIGEST_SIZE);
	}
}

static void elements_are_left(void **state)
{
	const struct content content = {.comparison = "a", .elements = true}, plain = {.comparison = "a"};
	struct nft_batch batch = make(&content);
	const struct nlmsghdr *message;
	uint8_t types[8];
	size_t count = 0;
	int left;

	(void)state;
	nft_batch_drop_rules(&batch);
	message = (const struct nlmsghdr *)batch.buffer;
	left = (int)batch.size;
	for (; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
		assert_true(count < sizeof(types));
		types[count++] = (uint8_t)message->nlmsg_type;
	}
	assert_int_equal(count, 3); /* the beginning of the batch, and these two */
	assert_int_equal(types[1], NFT_MSG_NEWSETELEM);
	assert_int_equal(types[2], NFT_MSG_DELSETELEM);
	assert_int_equal(batch.messages, 2);
	assert_int_equal(((const struct nlmsghdr *)(batch.buffer + batch.last))->nlmsg_type & 0xff, NFT_MSG_DELSETELEM);
	nft_batch_free(&batch);
	batch = make(&plain);
	nft_batch_drop_rules(&batch);
	assert_int_equal(batch.messages, 0); /* nothing will be sent */
	nft_batch_free(&batch);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_rules_count),
		cmocka_unit_test(a_flowtable_counts_as_a_rule),
		cmocka_unit_test(the_same_rules_are_the_same_octets),
		cmocka_unit_test(elements_are_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
