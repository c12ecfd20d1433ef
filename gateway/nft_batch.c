/* SPDX-License-Identifier: MIT */
/*
 * nf_tables batches: the buffer of messages, and all objects but rules.
 *
 * Theory of operation: a batch is one buffer of netlink messages that grows. Messages are built in place, and before each one there is more
 * room than the largest can take, so that building need not check. The buffer of a batch that did not need more than that is kept for the
 * next one, for most are small and come one after the other. Only the last message asks for an acknowledgement: errors are reported
 * for every message anyway. When one fails, its sequence number leads back into the buffer, and so to the name of what was not taken.
 */
#include <netinet/in.h> /* before the kernel's own headers */

#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/nft.h"

#define MESSAGE_ROOM (128 * 1024)       /* bytes: twice what the longest attribute may have */
#define SPARE_SIZE   (2 * MESSAGE_ROOM) /* bytes: of a small batch, kept for the next one; only what it has written takes memory */
#define NAMED_SET    0x80000000U        /* in numbers of sets that are not anonymous */

/* Numbers by which the nft program knows data types; they only matter for how it prints. */
enum { TYPE_IPV4 = 7, TYPE_IPV6 = 8, TYPE_PROTOCOL = 12, TYPE_PORT = 13, TYPE_INTERFACE = 20, TYPE_SHIFT = 6 };
enum { BYTEORDER_NONE = 0, BYTEORDER_HOST = 1, BYTEORDER_NETWORK = 2 };

void nft_batch_fail(struct nft_batch *batch, int error)
{
	if (!batch->error)
		batch->error = error;
}

static void take_spare(struct nft_batch *batch)
{
	batch->buffer = batch->netlink->spare;
	batch->capacity = batch->buffer ? SPARE_SIZE : 0;
	batch->netlink->spare = NULL;
}

/* Another batch that is under way may have left one already. */
static void leave_spare(struct nft_batch *batch)
{
	struct netlink *netlink = batch->netlink;

	if (!batch->buffer || !netlink || netlink->spare || batch->capacity != SPARE_SIZE) {
		free(batch->buffer);
		return;
	}
	netlink->spare = batch->buffer;
}

/* Make room for one more message. Return: where it goes, or NULL. */
static char *reserve(struct nft_batch *batch)
{
	size_t capacity = batch->capacity ? batch->capacity : SPARE_SIZE;
	uint8_t *grown;

	if (batch->error)
		return NULL;
	while (capacity < batch->size + MESSAGE_ROOM)
		capacity *= 2;
	if (capacity > batch->capacity) {
		grown = realloc(batch->buffer, capacity);
		if (!grown) {
			nft_batch_fail(batch, -ENOMEM);
			return NULL;
		}
		/* libmnl leaves what it pads attributes with as it is. */
		if (batch->comparable)
			memset(grown + batch->capacity, 0, capacity - batch->capacity);
		batch->buffer = grown;
		batch->capacity = capacity;
	}
	return (char *)batch->buffer + batch->size;
}

static struct nlmsghdr *put_header(char *room, uint16_t type, uint16_t flags, uint8_t family, uint16_t resource, uint32_t sequence)
{
	struct nlmsghdr *message = mnl_nlmsg_put_header(room);
	struct nfgenmsg *header;

	message->nlmsg_type = type;
	message->nlmsg_flags = NLM_F_REQUEST | flags;
	message->nlmsg_seq = sequence;
	header = mnl_nlmsg_put_extra_header(message, sizeof(*header));
	*header = (struct nfgenmsg){.nfgen_family = family, .version = NFNETLINK_V0, .res_id = htons(resource)};
	return message;
}

struct nlmsghdr *nft_message_begin(struct nft_batch *batch, uint16_t type, uint16_t flags)
{
	char *room = reserve(batch);

	if (!room)
		return NULL;
	return put_header(room, (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type), flags, NFPROTO_INET, 0, netlink_sequence(batch->netlink));
}

void nft_message_end(struct nft_batch *batch, const struct nlmsghdr *message)
{
	batch->last = batch->size;
	batch->size += NLMSG_ALIGN(message->nlmsg_len);
	batch->messages++;
}

/* The first and the last message of a batch. */
static void frame_message(struct nft_batch *batch, uint16_t type)
{
	char *room = reserve(batch);

	if (room)
		batch->size += put_header(room, type, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES, netlink_sequence(batch->netlink))->nlmsg_len;
}

void nft_batch_begin(struct nft_batch *batch, struct netlink *netlink, const char *table)
{
	*batch = (struct nft_batch){.netlink = netlink, .table = table};
	take_spare(batch);
	frame_message(batch, NFNL_MSG_BATCH_BEGIN);
}

void nft_batch_begin_comparable(struct nft_batch *batch, struct netlink *netlink, const char *table)
{
	*batch = (struct nft_batch){.netlink = netlink, .table = table, .comparable = true};
	frame_message(batch, NFNL_MSG_BATCH_BEGIN);
}

void nft_batch_free(struct nft_batch *batch)
{
	nft_rule_drop(batch);
	leave_spare(batch);
	*batch = (struct nft_batch){0};
}

/* What a message was about, for the error text. */
static const char *message_kind(uint16_t type, int *name_attribute)
{
	*name_attribute = NFTA_SET_NAME;
	switch (type & 0xff) {
	case NFT_MSG_NEWRULE:
	case NFT_MSG_DELRULE: *name_attribute = NFTA_RULE_CHAIN; return "rule in chain";
	case NFT_MSG_NEWCHAIN:
	case NFT_MSG_DELCHAIN: *name_attribute = NFTA_CHAIN_NAME; return "chain";
	case NFT_MSG_NEWSET:
	case NFT_MSG_DELSET: return "set";
	case NFT_MSG_NEWSETELEM:
	case NFT_MSG_DELSETELEM: *name_attribute = NFTA_SET_ELEM_LIST_SET; return "element of set";
	case NFT_MSG_NEWOBJ:
	case NFT_MSG_DELOBJ: *name_attribute = NFTA_OBJ_NAME; return "counter";
	case NFT_MSG_NEWFLOWTABLE:
	case NFT_MSG_DELFLOWTABLE: *name_attribute = NFTA_FLOWTABLE_NAME; return "flowtable";
	default: *name_attribute = NFTA_TABLE_NAME; return "table";
	}
}

/* Return: the message's type, NFT_MSG_*, or -1: none of them. */
static int describe_failure(const struct nft_batch *batch, int result, char *error, size_t error_size)
{
	const char *hint = result == -EPERM ? " (the container needs cap_add: [NET_ADMIN])" : "";
	const struct nlmsghdr *message = (const struct nlmsghdr *)batch->buffer;
	struct nlattr *attribute;
	const char *kind, *name = "?";
	int left = (int)batch->size, name_attribute;

	while (mnl_nlmsg_ok(message, left) && message->nlmsg_seq != batch->netlink->failed)
		message = mnl_nlmsg_next(message, &left);
	if (!mnl_nlmsg_ok(message, left) || message->nlmsg_type < NLMSG_MIN_TYPE + 16) {
		snprintf(error, error_size, "nf_tables: %s%s", strerror(-result), hint);
		return -1;
	}
	kind = message_kind(message->nlmsg_type, &name_attribute);
	mnl_attr_for_each(attribute, message, sizeof(struct nfgenmsg))
	{
		if (mnl_attr_get_type(attribute) == name_attribute)
			name = mnl_attr_get_str(attribute);
	}
	snprintf(error, error_size, "nf_tables: %s %s of table inet %s: %s%s", kind, name, batch->table, strerror(-result), hint);
	return NFNL_MSG_TYPE(message->nlmsg_type);
}

int nft_batch_commit(struct nft_batch *batch, char *error, size_t error_size)
{
	int result, refused = -1;

	frame_message(batch, NFNL_MSG_BATCH_END);
	result = batch->error;
	if (result) {
		snprintf(error, error_size, "nf_tables: %s while building a transaction", strerror(-result));
	} else if (batch->messages) {
		((struct nlmsghdr *)(batch->buffer + batch->last))->nlmsg_flags |= NLM_F_ACK;
		result = netlink_transaction(batch->netlink, batch->buffer, batch->size, 1);
		if (result < 0)
			refused = describe_failure(batch, result, error, error_size);
	}
	nft_batch_free(batch);
	batch->refused = refused;
	return result;
}

void nft_table_add(struct nft_batch *batch)
{
	struct nlmsghdr *message = nft_message_begin(batch, NFT_MSG_NEWTABLE, NLM_F_CREATE);

	if (!message)
		return;
	mnl_attr_put_strz(message, NFTA_TABLE_NAME, batch->table);
	mnl_attr_put_u32(message, NFTA_TABLE_FLAGS, 0);
	nft_message_end(batch, message);
}

void nft_table_delete(struct nft_batch *batch)
{
	struct nlmsghdr *message = nft_message_begin(batch, NFT_MSG_DELTABLE, 0);

	if (!message)
		return;
	mnl_attr_put_strz(message, NFTA_TABLE_NAME, batch->table);
	nft_message_end(batch, message);
}

void nft_base_chain_add(struct nft_batch *batch, const struct nft_hook *hook)
{
	struct nlmsghdr *message = nft_message_begin(batch, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
	struct nlattr *nest;

	if (!message)
		return;
	mnl_attr_put_strz(message, NFTA_CHAIN_TABLE, batch->table);
	mnl_attr_put_strz(message, NFTA_CHAIN_NAME, hook->chain);
	nest = mnl_attr_nest_start(message, NFTA_CHAIN_HOOK);
	mnl_attr_put_u32(message, NFTA_HOOK_HOOKNUM, htonl(hook->hook));
	mnl_attr_put_u32(message, NFTA_HOOK_PRIORITY, htonl((uint32_t)hook->priority));
	mnl_attr_nest_end(message, nest);
	mnl_attr_put_u32(message, NFTA_CHAIN_POLICY, htonl(hook->drop ? NF_DROP : NF_ACCEPT));
	mnl_attr_put_strz(message, NFTA_CHAIN_TYPE, hook->type);
	nft_message_end(batch, message);
}

/* Messages that say no more than table and name. */
static void name_message(struct nft_batch *batch, uint16_t type, uint16_t flags, int table_attribute, int name_attribute, const char *name)
{
	struct nlmsghdr *message = nft_message_begin(batch, type, flags);

	if (!message)
		return;
	mnl_attr_put_strz(message, (uint16_t)table_attribute, batch->table);
	mnl_attr_put_strz(message, (uint16_t)name_attribute, name);
	nft_message_end(batch, message);
}

void nft_chain_add(struct nft_batch *batch, const char *chain)
{
	name_message(batch, NFT_MSG_NEWCHAIN, NLM_F_CREATE, NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, chain);
}

void nft_chain_delete(struct nft_batch *batch, const char *chain)
{
	name_message(batch, NFT_MSG_DELCHAIN, 0, NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, chain);
}

static void counter_message(struct nft_batch *batch, uint16_t type, uint16_t flags, const char *counter)
{
	struct nlmsghdr *message = nft_message_begin(batch, type, flags);
	struct nlattr *nest;

	if (!message)
		return;
	mnl_attr_put_strz(message, NFTA_OBJ_TABLE, batch->table);
	mnl_attr_put_strz(message, NFTA_OBJ_NAME, counter);
	mnl_attr_put_u32(message, NFTA_OBJ_TYPE, htonl(NFT_OBJECT_COUNTER));
	if (type == NFT_MSG_NEWOBJ) {
		nest = mnl_attr_nest_start(message, NFTA_OBJ_DATA);
		mnl_attr_nest_end(message, nest);
	}
	nft_message_end(batch, message);
}

void nft_counter_add(struct nft_batch *batch, const char *counter)
{
	counter_message(batch, NFT_MSG_NEWOBJ, NLM_F_CREATE, counter);
}

void nft_counter_delete(struct nft_batch *batch, const char *counter)
{
	counter_message(batch, NFT_MSG_DELOBJ, 0, counter);
}

static void put_devices(struct nlmsghdr *message, const char *const *devices, size_t count)
{
	struct nlattr *nest = mnl_attr_nest_start(message, NFTA_FLOWTABLE_HOOK_DEVS);

	for (size_t i = 0; i < count; i++)
		mnl_attr_put_strz(message, NFTA_DEVICE_NAME, devices[i]);
	mnl_attr_nest_end(message, nest);
}

void nft_flowtable_add(struct nft_batch *batch, const char *name, const char *const *devices, size_t count)
{
	struct nlmsghdr *message = nft_message_begin(batch, NFT_MSG_NEWFLOWTABLE, NLM_F_CREATE);
	struct nlattr *nest;

	if (!message)
		return;
	mnl_attr_put_strz(message, NFTA_FLOWTABLE_TABLE, batch->table);
	mnl_attr_put_strz(message, NFTA_FLOWTABLE_NAME, name);
	mnl_attr_put_u32(message, NFTA_FLOWTABLE_FLAGS, htonl(NFT_FLOWTABLE_COUNTER));
	nest = mnl_attr_nest_start(message, NFTA_FLOWTABLE_HOOK);
	mnl_attr_put_u32(message, NFTA_FLOWTABLE_HOOK_NUM, htonl(NF_NETDEV_INGRESS));
	mnl_attr_put_u32(message, NFTA_FLOWTABLE_HOOK_PRIORITY, htonl(0));
	put_devices(message, devices, count);
	mnl_attr_nest_end(message, nest);
	nft_message_end(batch, message);
}

void nft_flowtable_delete(struct nft_batch *batch, const char *name)
{
	name_message(batch, NFT_MSG_DELFLOWTABLE, 0, NFTA_FLOWTABLE_TABLE, NFTA_FLOWTABLE_NAME, name);
}

void nft_rules_flush(struct nft_batch *batch)
{
	struct nlmsghdr *message = nft_message_begin(batch, NFT_MSG_DELRULE, 0);

	if (!message)
		return;
	mnl_attr_put_strz(message, NFTA_RULE_TABLE, batch->table);
	nft_message_end(batch, message);
}

uint32_t nft_field_size(const struct nft_key *key, enum nft_field field, uint32_t *type)
{
	bool ipv6 = key->family == AF_INET6;

	switch (field) {
	case NFT_FIELD_SOURCE:
	case NFT_FIELD_DESTINATION: *type = ipv6 ? TYPE_IPV6 : TYPE_IPV4; return ipv6 ? 16 : 4;
	case NFT_FIELD_PROTOCOL: *type = TYPE_PROTOCOL; return 1;
	case NFT_FIELD_SOURCE_PORT:
	case NFT_FIELD_DESTINATION_PORT: *type = TYPE_PORT; return 2;
	}
	*type = 0;
	return 0;
}

/* What nft needs to print keys: one entry of type 0 (byte order of the key), length 4. */
static void put_byteorder(struct nlmsghdr *message, uint32_t byteorder)
{
	uint8_t data[6] = {0, sizeof(byteorder)};

	memcpy(data + 2, &byteorder, sizeof(byteorder));
	mnl_attr_put(message, NFTA_SET_USERDATA, sizeof(data), data);
}

static void put_size(struct nlmsghdr *message, uint32_t size)
{
	struct nlattr *nest = mnl_attr_nest_start(message, NFTA_SET_DESC);

	mnl_attr_put_u32(message, NFTA_SET_DESC_SIZE, htonl(size));
	mnl_attr_nest_end(message, nest);
}

void nft_set_add(struct nft_batch *batch, const struct nft_set *set)
{
	struct nlmsghdr *message = nft_message_begin(batch, NFT_MSG_NEWSET, NLM_F_CREATE);
	uint32_t types = 0, type, size = 0, one = 0;

	if (!message)
		return;
	for (size_t i = 0; i < set->key.count; i++) {
		one = nft_field_size(&set->key, set->key.fields[i], &type);
		types = types << TYPE_SHIFT | type;
		size += (one + 3) & ~3U;
	}
	mnl_attr_put_strz(message, NFTA_SET_TABLE, batch->table);
	mnl_attr_put_strz(message, NFTA_SET_NAME, set->name);
	mnl_attr_put_u32(message, NFTA_SET_FLAGS, htonl(set->flags | (set->map ? NFT_SET_MAP : 0)));
	mnl_attr_put_u32(message, NFTA_SET_KEY_TYPE, htonl(types));
	mnl_attr_put_u32(message, NFTA_SET_KEY_LEN, htonl(set->key.count == 1 ? one : size));
	mnl_attr_put_u32(message, NFTA_SET_ID, htonl(NAMED_SET | ++batch->named_set_id));
	if (set->timeout_ms)
		mnl_attr_put_u64(message, NFTA_SET_TIMEOUT, htobe64(set->timeout_ms));
	if (set->size)
		put_size(message, set->size);
	if (set->map) {
		/* From one field to another of its kind. */
		mnl_attr_put_u32(message, NFTA_SET_DATA_TYPE, htonl(types));
		mnl_attr_put_u32(message, NFTA_SET_DATA_LEN, htonl(one));
	}
	put_byteorder(message, set->key.count == 1 ? BYTEORDER_NETWORK : BYTEORDER_NONE);
	nft_message_end(batch, message);
}

void nft_set_delete(struct nft_batch *batch, const char *set)
{
	name_message(batch, NFT_MSG_DELSET, 0, NFTA_SET_TABLE, NFTA_SET_NAME, set);
}

struct nft_element nft_element_address(const struct address *address)
{
	struct nft_element element = {.size = (uint8_t)address_size(address)};

	memcpy(element.key, address->bytes, element.size);
	return element;
}

struct nft_element nft_element_port(const struct address *address, uint16_t port)
{
	struct nft_element element = nft_element_address(address);

	/* Each field of a key begins at a multiple of four octets. */
	element.key[element.size] = (uint8_t)(port >> 8);
	element.key[element.size + 1] = (uint8_t)port;
	element.size += 4;
	return element;
}

struct nft_element nft_element_mapping(const struct address *from, const struct address *to)
{
	struct nft_element element = nft_element_address(from);

	element.to = *to;
	return element;
}

static void put_element(struct nlmsghdr *message, const struct nft_element *element, bool adding)
{
	struct nlattr *item = mnl_attr_nest_start(message, NFTA_LIST_ELEM);
	struct nlattr *key, *data;

	if (element->end)
		mnl_attr_put_u32(message, NFTA_SET_ELEM_FLAGS, htonl(NFT_SET_ELEM_INTERVAL_END));
	key = mnl_attr_nest_start(message, NFTA_SET_ELEM_KEY);
	mnl_attr_put(message, NFTA_DATA_VALUE, element->size, element->key);
	mnl_attr_nest_end(message, key);
	if (adding && element->to.family) {
		data = mnl_attr_nest_start(message, NFTA_SET_ELEM_DATA);
		mnl_attr_put(message, NFTA_DATA_VALUE, address_size(&element->to), element->to.bytes);
		mnl_attr_nest_end(message, data);
	}
	if (adding && element->timeout_ms) {
		mnl_attr_put_u64(message, NFTA_SET_ELEM_TIMEOUT, htobe64(element->timeout_ms));
		/* Without it kernels since 6.12 leave the old end in place when the timeout is the same as before. */
		mnl_attr_put_u64(message, NFTA_SET_ELEM_EXPIRATION, htobe64(element->left_ms ? element->left_ms : element->timeout_ms));
	}
	mnl_attr_nest_end(message, item);
}

static void element_messages(struct nft_batch *batch, uint16_t type, const char *set, const struct nft_element *elements, size_t count)
{
	bool adding = type == NFT_MSG_NEWSETELEM;
	struct nlmsghdr *message;
	struct nlattr *list;

	for (size_t done = 0; done < count; done += NFT_ELEMENTS_PART) {
		message = nft_message_begin(batch, type, adding ? NLM_F_CREATE : 0);
		if (!message)
			return;
		mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, batch->table);
		mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, set);
		list = mnl_attr_nest_start(message, NFTA_SET_ELEM_LIST_ELEMENTS);
		for (size_t i = done; i < count && i < done + NFT_ELEMENTS_PART; i++)
			put_element(message, &elements[i], adding);
		mnl_attr_nest_end(message, list);
		nft_message_end(batch, message);
	}
}

void nft_elements_add(struct nft_batch *batch, const char *set, const struct nft_element *elements, size_t count)
{
	element_messages(batch, NFT_MSG_NEWSETELEM, set, elements, count);
}

void nft_elements_delete(struct nft_batch *batch, const char *set, const struct nft_element *elements, size_t count)
{
	element_messages(batch, NFT_MSG_DELSETELEM, set, elements, count);
}

/* Verdict code as the kernel numbers it. */
uint32_t nft_verdict_code(enum nft_verdict_kind kind)
{
	switch (kind) {
	case NFT_VERDICT_ACCEPT: return NF_ACCEPT;
	case NFT_VERDICT_JUMP: return (uint32_t)NFT_JUMP;
	case NFT_VERDICT_GOTO: return (uint32_t)NFT_GOTO;
	case NFT_VERDICT_DROP: break;
	}
	return NF_DROP;
}

static void map_message(struct nft_batch *batch, size_t count)
{
	struct nlmsghdr *message = nft_message_begin(batch, NFT_MSG_NEWSET, NLM_F_CREATE);

	if (!message)
		return;
	mnl_attr_put_strz(message, NFTA_SET_TABLE, batch->table);
	mnl_attr_put_strz(message, NFTA_SET_NAME, NFT_MAP_NAME);
	mnl_attr_put_u32(message, NFTA_SET_FLAGS, htonl(NFT_SET_ANONYMOUS | NFT_SET_CONSTANT | NFT_SET_MAP));
	mnl_attr_put_u32(message, NFTA_SET_KEY_TYPE, htonl(TYPE_INTERFACE));
	mnl_attr_put_u32(message, NFTA_SET_KEY_LEN, htonl(sizeof(uint32_t)));
	mnl_attr_put_u32(message, NFTA_SET_DATA_TYPE, htonl(NFT_DATA_VERDICT));
	mnl_attr_put_u32(message, NFTA_SET_DATA_LEN, 0);
	mnl_attr_put_u32(message, NFTA_SET_ID, htonl(++batch->set_id));
	put_size(message, (uint32_t)count);
	put_byteorder(message, BYTEORDER_HOST);
	nft_message_end(batch, message);
}

static void put_branch(struct nlmsghdr *message, const struct nft_branch *branch)
{
	struct nlattr *item = mnl_attr_nest_start(message, NFTA_LIST_ELEM);
	struct nlattr *key = mnl_attr_nest_start(message, NFTA_SET_ELEM_KEY), *data, *verdict;

	mnl_attr_put(message, NFTA_DATA_VALUE, sizeof(branch->interface), &branch->interface);
	mnl_attr_nest_end(message, key);
	data = mnl_attr_nest_start(message, NFTA_SET_ELEM_DATA);
	verdict = mnl_attr_nest_start(message, NFTA_DATA_VERDICT);
	mnl_attr_put_u32(message, NFTA_VERDICT_CODE, htonl(nft_verdict_code(branch->kind)));
	if (branch->chain[0])
		mnl_attr_put_strz(message, NFTA_VERDICT_CHAIN, branch->chain);
	mnl_attr_nest_end(message, verdict);
	mnl_attr_nest_end(message, data);
	mnl_attr_nest_end(message, item);
}

void nft_branch_map(struct nft_batch *batch, const struct nft_branch *branches, size_t count)
{
	struct nlmsghdr *message;
	struct nlattr *list;

	map_message(batch, count);
	for (size_t done = 0; done < count; done += NFT_ELEMENTS_PART) {
		message = nft_message_begin(batch, NFT_MSG_NEWSETELEM, NLM_F_CREATE);
		if (!message)
			return;
		mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, batch->table);
		mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, NFT_MAP_NAME);
		mnl_attr_put_u32(message, NFTA_SET_ELEM_LIST_SET_ID, htonl(batch->set_id));
		list = mnl_attr_nest_start(message, NFTA_SET_ELEM_LIST_ELEMENTS);
		for (size_t i = done; i < count && i < done + NFT_ELEMENTS_PART; i++)
			put_branch(message, &branches[i]);
		mnl_attr_nest_end(message, list);
		nft_message_end(batch, message);
	}
}
