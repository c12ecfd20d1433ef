/* SPDX-License-Identifier: MIT */
/*
 * Lists of what the kernel's table holds. A dump that a change has overtaken is asked for again from its beginning.
 */
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/nft.h"

#define DUMP_TRIES 10 /* only ourselves and a curious administrator change the table */

struct reading {
	const char *table;
	enum nft_object_kind kind;
	struct nft_objects *objects;
	struct nft_elements *elements;
};

/* Make room for one more entry of a list. */
static bool grow(void **list, size_t *capacity, size_t count, size_t size)
{
	size_t wanted = *capacity ? *capacity * 2 : 64;
	void *grown;

	if (count < *capacity)
		return true;
	grown = realloc(*list, wanted * size);
	if (!grown) {
		errno = ENOMEM;
		return false;
	}
	*list = grown;
	*capacity = wanted;
	return true;
}

/* Attributes as an array by their type; what is too short for its type counts as absent. */
struct attributes {
	const struct nlattr *list[16];
};

static int take_attribute(const struct nlattr *attribute, void *context)
{
	struct attributes *attributes = context;
	uint16_t type = mnl_attr_get_type(attribute);

	if (type < sizeof(attributes->list) / sizeof(attributes->list[0]))
		attributes->list[type] = attribute;
	return MNL_CB_OK;
}

static const char *get_text(const struct attributes *attributes, int type)
{
	const struct nlattr *attribute = attributes->list[type];

	return attribute && mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) >= 0 ? mnl_attr_get_str(attribute) : NULL;
}

static uint32_t get_u32(const struct attributes *attributes, int type)
{
	const struct nlattr *attribute = attributes->list[type];

	return attribute && mnl_attr_get_payload_len(attribute) >= sizeof(uint32_t) ? be32toh(mnl_attr_get_u32(attribute)) : 0;
}

static uint64_t get_u64(const struct attributes *attributes, int type)
{
	const struct nlattr *attribute = attributes->list[type];

	return attribute && mnl_attr_get_payload_len(attribute) >= sizeof(uint64_t) ? be64toh(mnl_attr_get_u64(attribute)) : 0;
}

static struct attributes get_nest(const struct attributes *attributes, int type)
{
	struct attributes inner = {0};

	if (attributes->list[type])
		mnl_attr_parse_nested(attributes->list[type], take_attribute, &inner);
	return inner;
}

/* Name of the object that a message describes, or NULL when it is none that we list. */
static const char *object_name(const struct reading *reading, const struct attributes *attributes)
{
	switch (reading->kind) {
	case NFT_OBJECTS_CHAINS: return attributes->list[NFTA_CHAIN_HOOK] ? NULL : get_text(attributes, NFTA_CHAIN_NAME);
	case NFT_OBJECTS_SETS: return get_u32(attributes, NFTA_SET_FLAGS) & NFT_SET_ANONYMOUS ? NULL : get_text(attributes, NFTA_SET_NAME);
	case NFT_OBJECTS_COUNTERS:
		return get_u32(attributes, NFTA_OBJ_TYPE) == NFT_OBJECT_COUNTER ? get_text(attributes, NFTA_OBJ_NAME) : NULL;
	case NFT_OBJECTS_FLOWTABLES: return get_text(attributes, NFTA_FLOWTABLE_NAME);
	}
	return NULL;
}

static int take_object(const struct nlmsghdr *message, void *context)
{
	struct reading *reading = context;
	struct nft_objects *objects = reading->objects;
	struct attributes attributes = {0}, data;
	const char *table, *name;

	mnl_attr_parse(message, sizeof(struct nfgenmsg), take_attribute, &attributes);
	table = get_text(&attributes, NFTA_CHAIN_TABLE); /* 1 for the others, too */
	name = object_name(reading, &attributes);
	if (!table || strcmp(table, reading->table) != 0 || !name || strlen(name) >= NFT_NAME_SIZE)
		return MNL_CB_OK;
	if (!grow((void **)&objects->list, &objects->capacity, objects->count, sizeof(*objects->list)))
		return MNL_CB_ERROR;
	objects->list[objects->count] = (struct nft_object){0};
	strcpy(objects->list[objects->count].name, name);
	if (reading->kind == NFT_OBJECTS_COUNTERS) {
		data = get_nest(&attributes, NFTA_OBJ_DATA);
		objects->list[objects->count].packets = get_u64(&data, NFTA_COUNTER_PACKETS);
	}
	objects->count++;
	return MNL_CB_OK;
}

/* The counter of an element; a rule gives it one expression, which newer kernels report as a list of one. */
static uint64_t element_packets(const struct attributes *element)
{
	struct attributes expression = get_nest(element, NFTA_SET_ELEM_EXPR), list, data;

	if (!element->list[NFTA_SET_ELEM_EXPR]) {
		list = get_nest(element, NFTA_SET_ELEM_EXPRESSIONS);
		expression = get_nest(&list, NFTA_LIST_ELEM);
	}
	data = get_nest(&expression, NFTA_EXPR_DATA);
	return get_u64(&data, NFTA_COUNTER_PACKETS);
}

/* Where an element of a map of addresses leads; family 0: it is of no such map. */
static struct address element_target(const struct attributes *element)
{
	struct attributes data = get_nest(element, NFTA_SET_ELEM_DATA);
	const struct nlattr *value = data.list[NFTA_DATA_VALUE];
	size_t size = value ? mnl_attr_get_payload_len(value) : 0;

	if (size == 4 || size == 16)
		return address_from_bytes(size == 4 ? AF_INET : AF_INET6, mnl_attr_get_payload(value));
	return (struct address){.family = 0};
}

static int take_element(const struct nlattr *item, void *context)
{
	struct nft_elements *elements = context;
	struct attributes attributes = {0}, key;
	struct nft_element *element;
	const struct nlattr *value;

	mnl_attr_parse_nested(item, take_attribute, &attributes);
	key = get_nest(&attributes, NFTA_SET_ELEM_KEY);
	value = key.list[NFTA_DATA_VALUE];
	if (!value || mnl_attr_get_payload_len(value) > NFT_KEY_MAX)
		return MNL_CB_OK;
	if (!grow((void **)&elements->list, &elements->capacity, elements->count, sizeof(*elements->list)))
		return MNL_CB_ERROR;
	element = &elements->list[elements->count++];
	*element = (struct nft_element){
		.size = (uint8_t)mnl_attr_get_payload_len(value),
		.end = get_u32(&attributes, NFTA_SET_ELEM_FLAGS) & NFT_SET_ELEM_INTERVAL_END,
		.timeout_ms = get_u64(&attributes, NFTA_SET_ELEM_TIMEOUT),
		.left_ms = get_u64(&attributes, NFTA_SET_ELEM_EXPIRATION),
		.packets = element_packets(&attributes),
		.to = element_target(&attributes),
	};
	memcpy(element->key, mnl_attr_get_payload(value), element->size);
	return MNL_CB_OK;
}

static int take_elements(const struct nlmsghdr *message, void *context)
{
	struct reading *reading = context;
	struct attributes attributes = {0};

	mnl_attr_parse(message, sizeof(struct nfgenmsg), take_attribute, &attributes);
	if (!attributes.list[NFTA_SET_ELEM_LIST_ELEMENTS])
		return MNL_CB_OK;
	return mnl_attr_parse_nested(attributes.list[NFTA_SET_ELEM_LIST_ELEMENTS], take_element, reading->elements);
}

/* One dump. @set: whose elements, or NULL. */
static int dump(struct netlink *netlink, uint16_t type, struct reading *reading, const char *set, mnl_cb_t receive)
{
	char buffer[512] __attribute__((aligned(8))); /* two names of 128 */
	struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
	struct nfgenmsg *header;

	message->nlmsg_type = (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type);
	message->nlmsg_flags = NLM_F_DUMP;
	header = mnl_nlmsg_put_extra_header(message, sizeof(*header));
	*header = (struct nfgenmsg){.nfgen_family = NFPROTO_INET, .version = NFNETLINK_V0};
	/* The table's name is attribute 1 of chains, sets, objects and element lists alike. */
	if (type != NFT_MSG_GETCHAIN)
		mnl_attr_put_strz(message, NFTA_SET_TABLE, reading->table);
	if (set)
		mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, set);
	return netlink_request(netlink, message, receive, reading);
}

static int compare_objects(const void *a, const void *b)
{
	return strcmp(((const struct nft_object *)a)->name, ((const struct nft_object *)b)->name);
}

int nft_objects_read(struct netlink *netlink, const char *table, enum nft_object_kind kind, struct nft_objects *out)
{
	static const uint16_t types[] = {[NFT_OBJECTS_CHAINS] = NFT_MSG_GETCHAIN,
					 [NFT_OBJECTS_SETS] = NFT_MSG_GETSET,
					 [NFT_OBJECTS_COUNTERS] = NFT_MSG_GETOBJ,
					 [NFT_OBJECTS_FLOWTABLES] = NFT_MSG_GETFLOWTABLE};
	struct reading reading = {.table = table, .kind = kind, .objects = out};
	int error = -EINTR;

	*out = (struct nft_objects){0};
	for (unsigned int i = 0; i < DUMP_TRIES && error == -EINTR; i++) {
		out->count = 0;
		error = dump(netlink, types[kind], &reading, NULL, take_object);
	}
	if (error == -ENOENT) /* no such table */
		error = 0;
	if (error < 0)
		nft_objects_free(out);
	else if (out->count)
		qsort(out->list, out->count, sizeof(*out->list), compare_objects);
	return error;
}

struct nft_object *nft_objects_find(const struct nft_objects *objects, const char *name)
{
	struct nft_object key = {0};

	if (!objects->count || strlen(name) >= NFT_NAME_SIZE)
		return NULL;
	strcpy(key.name, name);
	return bsearch(&key, objects->list, objects->count, sizeof(key), compare_objects);
}

void nft_objects_free(struct nft_objects *objects)
{
	free(objects->list);
	*objects = (struct nft_objects){0};
}

int nft_element_compare(const void *a, const void *b)
{
	const struct nft_element *left = a, *right = b;
	int order = memcmp(left->key, right->key, NFT_KEY_MAX);

	return order ? order : (int)right->end - (int)left->end;
}

int nft_elements_read(struct netlink *netlink, const char *table, const char *set, struct nft_elements *out)
{
	struct reading reading = {.table = table, .elements = out};
	int error = -EINTR;

	*out = (struct nft_elements){0};
	for (unsigned int i = 0; i < DUMP_TRIES && error == -EINTR; i++) {
		out->count = 0;
		error = dump(netlink, NFT_MSG_GETSETELEM, &reading, set, take_elements);
	}
	if (error < 0)
		nft_elements_free(out);
	else if (out->count)
		qsort(out->list, out->count, sizeof(*out->list), nft_element_compare);
	return error;
}

void nft_elements_free(struct nft_elements *elements)
{
	free(elements->list);
	*elements = (struct nft_elements){0};
}
