/* SPDX-License-Identifier: MIT */
/*
 * Batches whose rules the kernel has already: what is in a batch, told from its messages, and the batch without what need not be said.
 *
 * Theory of operation: a batch that writes all rules of a table anew begins with their deletion. Rules, and the anonymous maps that belong
 * to them, are hashed as they are in the messages, but for the sequence numbers. Base chains, the flowtable and the table are named in each
 * batch.
 */
#include <netinet/in.h> /* before the kernel's own headers */

#include <linux/netfilter/nfnetlink.h>
#include <sodium.h>
#include <string.h>

#include "gateway/nft.h"

/* PART_BEFORE: as rules, but not compared: it depends on what the kernel had. */
enum message_part { PART_FRAME, PART_RULES, PART_BEFORE, PART_ELEMENTS, PART_OBJECTS };

static const struct nlattr *attribute_of(const struct nlmsghdr *message, int type)
{
	struct nlattr *attribute;

	mnl_attr_for_each(attribute, message, sizeof(struct nfgenmsg))
	{
		if (mnl_attr_get_type(attribute) == type)
			return attribute;
	}
	return NULL;
}

static bool is_anonymous(const struct nlmsghdr *message)
{
	const struct nlattr *name = attribute_of(message, NFTA_SET_NAME); /* as NFTA_SET_ELEM_LIST_SET */

	return name && strcmp(mnl_attr_get_str(name), NFT_MAP_NAME) == 0;
}

static enum message_part part_of(const struct nlmsghdr *message)
{
	if (message->nlmsg_type < NLMSG_MIN_TYPE + 16)
		return PART_FRAME;
	switch (message->nlmsg_type & 0xff) {
	case NFT_MSG_NEWRULE:
	case NFT_MSG_DELRULE:
	case NFT_MSG_NEWFLOWTABLE:
	case NFT_MSG_NEWTABLE: return PART_RULES;
	case NFT_MSG_DELFLOWTABLE: return PART_BEFORE;
	case NFT_MSG_NEWCHAIN: return attribute_of(message, NFTA_CHAIN_HOOK) ? PART_RULES : PART_OBJECTS;
	case NFT_MSG_NEWSET: return is_anonymous(message) ? PART_RULES : PART_OBJECTS;
	case NFT_MSG_NEWSETELEM: return is_anonymous(message) ? PART_RULES : PART_ELEMENTS;
	case NFT_MSG_DELSETELEM: return PART_ELEMENTS;
	default: return PART_OBJECTS;
	}
}

bool nft_batch_digest(const struct nft_batch *batch, uint8_t digest[static NFT_DIGEST_SIZE])
{
	const struct nlmsghdr *message = (const struct nlmsghdr *)batch->buffer;
	int left = (int)batch->size;
	crypto_generichash_state state;
	bool objects = false;

	crypto_generichash_init(&state, NULL, 0, NFT_DIGEST_SIZE);
	for (; !batch->error && mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
		enum message_part part = part_of(message);

		objects |= part == PART_OBJECTS;
		if (part != PART_RULES)
			continue;
		crypto_generichash_update(&state, (const uint8_t *)&message->nlmsg_len, sizeof(message->nlmsg_len));
		crypto_generichash_update(&state, (const uint8_t *)&message->nlmsg_type, sizeof(message->nlmsg_type));
		crypto_generichash_update(&state, mnl_nlmsg_get_payload(message), mnl_nlmsg_get_payload_len(message));
	}
	crypto_generichash_final(&state, digest, NFT_DIGEST_SIZE);
	return !objects;
}

void nft_batch_drop_rules(struct nft_batch *batch)
{
	const struct nlmsghdr *message = (const struct nlmsghdr *)batch->buffer, *next;
	int left = (int)batch->size;
	size_t used = 0;

	batch->messages = 0;
	for (; !batch->error && mnl_nlmsg_ok(message, left); message = next) {
		size_t size = NLMSG_ALIGN(message->nlmsg_len);
		enum message_part part = part_of(message);

		next = mnl_nlmsg_next(message, &left);
		if (part == PART_RULES || part == PART_BEFORE)
			continue;
		if (part != PART_FRAME) {
			batch->last = used;
			batch->messages++;
		}
		memmove(batch->buffer + used, message, size);
		used += size;
	}
	batch->size = used;
}
