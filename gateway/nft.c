/* SPDX-License-Identifier: MIT */
/*
 * nf_tables rules, one function per expression. The only user of libnftnl.
 *
 * Theory of operation: values stand in register 1 while they are compared, the fields of a key in the 32-bit registers from there on, each
 * field beginning in a register of its own: the layout that the nft program uses and can print. Every match of an address first matches its
 * family, since the table serves both.
 */
#include "gateway/nft.h"

#include <netinet/in.h> /* before the kernel's own headers */

#include <assert.h>
#include <errno.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_tuple_common.h>
#include <linux/netfilter/xt_NFQUEUE.h>
#include <stdlib.h>
#include <string.h>

#define TCP_SYN              2 /* bit of the flags octet */
#define TCP_RESET            4
#define QUIC_LONG            0x80 /* bit of the first octet */
#define UDP_HEADER_SIZE      8
#define IPV4_HEADER_WORDS    5      /* of 32 bits, without options */
#define IPV4_FRAGMENT_OFFSET 6      /* of flags and fragment offset in the header */
#define IPV4_FRAGMENT_BITS   0x3fff /* "more fragments", and the offset */

void nft_rule_begin(struct nft_batch *batch, const char *chain)
{
	assert(!batch->rule);
	if (batch->error)
		return;
	batch->rule = nftnl_rule_alloc();
	if (!batch->rule) {
		nft_batch_fail(batch, -ENOMEM);
		return;
	}
	if (nftnl_rule_set_str(batch->rule, NFTNL_RULE_TABLE, batch->table) < 0 ||
	    nftnl_rule_set_str(batch->rule, NFTNL_RULE_CHAIN, chain) < 0)
		nft_batch_fail(batch, -ENOMEM);
}

void nft_rule_end(struct nft_batch *batch)
{
	struct nlmsghdr *message = nft_message_begin(batch, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);

	if (message && batch->rule) {
		nftnl_rule_nlmsg_build_payload(message, batch->rule);
		nft_message_end(batch, message);
	}
	nft_rule_drop(batch);
}

void nft_rule_drop(struct nft_batch *batch)
{
	if (batch->rule)
		nftnl_rule_free(batch->rule);
	batch->rule = NULL;
}

/* A new expression at the end of the rule. Return: NULL after an error. */
static struct nftnl_expr *add_expression(struct nft_batch *batch, const char *name)
{
	struct nftnl_expr *expression;

	if (batch->error || !batch->rule)
		return NULL;
	expression = nftnl_expr_alloc(name);
	if (!expression) {
		nft_batch_fail(batch, -ENOMEM);
		return NULL;
	}
	nftnl_rule_add_expr(batch->rule, expression);
	return expression;
}

/* The library keeps a copy. */
static void set_text(struct nft_batch *batch, struct nftnl_expr *expression, uint16_t attribute, const char *text)
{
	if (nftnl_expr_set_str(expression, attribute, text) < 0)
		nft_batch_fail(batch, -ENOMEM);
}

static void load_meta(struct nft_batch *batch, uint32_t key, uint32_t reg)
{
	struct nftnl_expr *expression = add_expression(batch, "meta");

	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_META_DREG, reg);
}

static void load_payload(struct nft_batch *batch, uint32_t base, uint32_t offset, uint32_t size, uint32_t reg)
{
	struct nftnl_expr *expression = add_expression(batch, "payload");

	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_PAYLOAD_BASE, base);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_PAYLOAD_LEN, size);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_PAYLOAD_DREG, reg);
}

static struct nftnl_expr *load_ct(struct nft_batch *batch, uint32_t key)
{
	struct nftnl_expr *expression = add_expression(batch, "ct");

	if (!expression)
		return NULL;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_CT_KEY, key);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_CT_DREG, NFT_REG_1);
	return expression;
}

static void compare(struct nft_batch *batch, uint32_t operation, const void *value, uint32_t size)
{
	struct nftnl_expr *expression = add_expression(batch, "cmp");

	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_CMP_OP, operation);
	nftnl_expr_set(expression, NFTNL_EXPR_CMP_DATA, value, size);
}

static void compare_range(struct nft_batch *batch, const void *first, const void *last, uint32_t size)
{
	if (memcmp(first, last, size) == 0) {
		compare(batch, NFT_CMP_EQ, first, size);
		return;
	}
	compare(batch, NFT_CMP_GTE, first, size);
	compare(batch, NFT_CMP_LTE, last, size);
}

static void mask(struct nft_batch *batch, const void *bits, uint32_t size)
{
	static const uint8_t zero[16];
	struct nftnl_expr *expression = add_expression(batch, "bitwise");

	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_BITWISE_SREG, NFT_REG_1);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_BITWISE_DREG, NFT_REG_1);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_BITWISE_LEN, size);
	nftnl_expr_set(expression, NFTNL_EXPR_BITWISE_MASK, bits, size);
	nftnl_expr_set(expression, NFTNL_EXPR_BITWISE_XOR, zero, size);
}

static struct nftnl_expr *look_up(struct nft_batch *batch, const char *set)
{
	struct nftnl_expr *expression = add_expression(batch, "lookup");

	if (!expression)
		return NULL;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
	set_text(batch, expression, NFTNL_EXPR_LOOKUP_SET, set);
	return expression;
}

static void load_bytes(struct nft_batch *batch, const void *bytes, uint32_t size, uint32_t reg)
{
	struct nftnl_expr *expression = add_expression(batch, "immediate");

	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_IMM_DREG, reg);
	nftnl_expr_set(expression, NFTNL_EXPR_IMM_DATA, bytes, size);
}

void nft_match_meta32(struct nft_batch *batch, uint32_t meta_key, uint32_t value, bool equal)
{
	load_meta(batch, meta_key, NFT_REG_1);
	compare(batch, equal ? NFT_CMP_EQ : NFT_CMP_NEQ, &value, sizeof(value));
}

void nft_match_meta8(struct nft_batch *batch, uint32_t meta_key, uint8_t value, bool equal)
{
	load_meta(batch, meta_key, NFT_REG_1);
	compare(batch, equal ? NFT_CMP_EQ : NFT_CMP_NEQ, &value, sizeof(value));
}

void nft_match_protocol_set(struct nft_batch *batch, const char *set)
{
	load_meta(batch, NFT_META_L4PROTO, NFT_REG_1);
	look_up(batch, set);
}

static void match_family(struct nft_batch *batch, int family)
{
	nft_match_meta8(batch, NFT_META_NFPROTO, family == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6, true);
}

static void load_address(struct nft_batch *batch, int family, enum nft_field side, uint32_t reg)
{
	uint32_t size = family == AF_INET ? 4 : 16;
	uint32_t offset = (family == AF_INET ? 12U : 8U) + (side == NFT_FIELD_DESTINATION ? size : 0);

	load_payload(batch, NFT_PAYLOAD_NETWORK_HEADER, offset, size, reg);
}

/* Compare the address in register 1. */
static void compare_prefix(struct nft_batch *batch, const struct prefix *prefix, bool equal)
{
	uint32_t size = (uint32_t)address_size(&prefix->address);
	uint8_t bits[16] = {0};

	for (unsigned int i = 0; i < prefix->length; i++)
		bits[i / 8] |= (uint8_t)(0x80 >> i % 8);
	if (prefix->length < size * 8)
		mask(batch, bits, size);
	compare(batch, equal ? NFT_CMP_EQ : NFT_CMP_NEQ, prefix->address.bytes, size);
}

void nft_match_prefix(struct nft_batch *batch, enum nft_field side, const struct prefix *prefix, bool equal)
{
	match_family(batch, prefix->address.family);
	nft_match_more_prefix(batch, side, prefix, equal);
}

void nft_match_more_prefix(struct nft_batch *batch, enum nft_field side, const struct prefix *prefix, bool equal)
{
	load_address(batch, prefix->address.family, side, NFT_REG_1);
	compare_prefix(batch, prefix, equal);
}

void nft_match_address(struct nft_batch *batch, enum nft_field side, const struct address *address, bool equal)
{
	struct prefix prefix = {.address = *address, .length = (uint8_t)address_bits(address)};

	nft_match_prefix(batch, side, &prefix, equal);
}

void nft_match_port(struct nft_batch *batch, enum nft_field side, uint16_t first, uint16_t last)
{
	uint16_t from = htons(first), to = htons(last);

	load_payload(batch, NFT_PAYLOAD_TRANSPORT_HEADER, side == NFT_FIELD_DESTINATION_PORT ? 2 : 0, 2, NFT_REG_1);
	compare_range(batch, &from, &to, sizeof(from));
}

void nft_match_icmp_type(struct nft_batch *batch, uint8_t first, uint8_t last)
{
	load_payload(batch, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, NFT_REG_1);
	compare_range(batch, &first, &last, sizeof(first));
}

/* One octet behind the header of the network layer has this bit set. */
static void match_transport_bit(struct nft_batch *batch, uint32_t offset, uint8_t bit)
{
	static const uint8_t none = 0;

	load_payload(batch, NFT_PAYLOAD_TRANSPORT_HEADER, offset, 1, NFT_REG_1);
	mask(batch, &bit, sizeof(bit));
	compare(batch, NFT_CMP_NEQ, &none, sizeof(none));
}

void nft_match_tcp_reset(struct nft_batch *batch)
{
	match_transport_bit(batch, 13, TCP_RESET);
}

void nft_match_tcp_syn(struct nft_batch *batch)
{
	match_transport_bit(batch, 13, TCP_SYN);
}

void nft_match_udp_long_header(struct nft_batch *batch)
{
	match_transport_bit(batch, UDP_HEADER_SIZE, QUIC_LONG);
}

void nft_match_udp_length(struct nft_batch *batch, uint16_t least)
{
	uint16_t size = htons(least);

	load_payload(batch, NFT_PAYLOAD_TRANSPORT_HEADER, 4, 2, NFT_REG_1);
	compare(batch, NFT_CMP_GTE, &size, sizeof(size));
}

/* @operation: NFT_EXTHDR_OP_TCPOPT or _IPV6. */
static struct nftnl_expr *use_option(struct nft_batch *batch, uint32_t operation, uint8_t kind)
{
	struct nftnl_expr *expression = add_expression(batch, "exthdr");

	if (!expression)
		return NULL;
	nftnl_expr_set_u8(expression, NFTNL_EXPR_EXTHDR_TYPE, kind);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_EXTHDR_OP, operation);
	return expression;
}

static void match_option(struct nft_batch *batch, uint32_t operation, uint8_t kind)
{
	static const uint8_t present = 1;
	struct nftnl_expr *expression = use_option(batch, operation, kind);

	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_EXTHDR_OFFSET, 0);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_EXTHDR_LEN, 1);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_EXTHDR_FLAGS, NFT_EXTHDR_F_PRESENT);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_EXTHDR_DREG, NFT_REG_1);
	compare(batch, NFT_CMP_EQ, &present, sizeof(present));
}

void nft_match_tcp_option(struct nft_batch *batch, uint8_t kind)
{
	match_option(batch, NFT_EXTHDR_OP_TCPOPT, kind);
}

void nft_strip_tcp_option(struct nft_batch *batch, uint8_t kind)
{
	use_option(batch, NFT_EXTHDR_OP_TCPOPT, kind);
}

void nft_match_options(struct nft_batch *batch, bool some)
{
	static const uint8_t bits = 0x0f, words = IPV4_HEADER_WORDS;

	nft_match_meta8(batch, NFT_META_NFPROTO, NFPROTO_IPV4, true);
	load_payload(batch, NFT_PAYLOAD_NETWORK_HEADER, 0, sizeof(bits), NFT_REG_1);
	mask(batch, &bits, sizeof(bits));
	compare(batch, some ? NFT_CMP_NEQ : NFT_CMP_EQ, &words, sizeof(words));
}

void nft_match_fragment(struct nft_batch *batch, int family)
{
	static const uint16_t none = 0;
	uint16_t bits = htons(IPV4_FRAGMENT_BITS);

	nft_match_meta8(batch, NFT_META_NFPROTO, family == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6, true);
	if (family == AF_INET6) {
		match_option(batch, NFT_EXTHDR_OP_IPV6, IPPROTO_FRAGMENT);
		return;
	}
	load_payload(batch, NFT_PAYLOAD_NETWORK_HEADER, IPV4_FRAGMENT_OFFSET, sizeof(bits), NFT_REG_1);
	mask(batch, &bits, sizeof(bits));
	compare(batch, NFT_CMP_NEQ, &none, sizeof(none));
}

void nft_match_ct_state(struct nft_batch *batch, uint32_t states)
{
	static const uint32_t none = 0;

	load_ct(batch, NFT_CT_STATE);
	mask(batch, &states, sizeof(states));
	compare(batch, NFT_CMP_NEQ, &none, sizeof(none));
}

void nft_match_ct_mark(struct nft_batch *batch, uint32_t mark_value)
{
	load_ct(batch, NFT_CT_MARK);
	compare(batch, NFT_CMP_EQ, &mark_value, sizeof(mark_value));
}

void nft_match_ct_mark_bits(struct nft_batch *batch, uint32_t bits, uint32_t mark_value)
{
	load_ct(batch, NFT_CT_MARK);
	mask(batch, &bits, sizeof(bits));
	compare(batch, NFT_CMP_EQ, &mark_value, sizeof(mark_value));
}

void nft_match_ct_status(struct nft_batch *batch, uint32_t bits)
{
	static const uint32_t none = 0;

	load_ct(batch, NFT_CT_STATUS);
	mask(batch, &bits, sizeof(bits));
	compare(batch, NFT_CMP_NEQ, &none, sizeof(none));
}

void nft_match_ct_reply(struct nft_batch *batch, bool reply)
{
	uint8_t direction = reply ? IP_CT_DIR_REPLY : IP_CT_DIR_ORIGINAL;

	load_ct(batch, NFT_CT_DIRECTION);
	compare(batch, NFT_CMP_EQ, &direction, sizeof(direction));
}

/* The source of the flow's packets in one direction. */
static void match_ct_source(struct nft_batch *batch, const struct prefix *prefix, uint8_t direction)
{
	struct nftnl_expr *expression = load_ct(batch, prefix->address.family == AF_INET ? NFT_CT_SRC_IP : NFT_CT_SRC_IP6);

	if (!expression)
		return;
	nftnl_expr_set_u8(expression, NFTNL_EXPR_CT_DIR, direction);
	compare_prefix(batch, prefix, true);
}

void nft_match_ct_source(struct nft_batch *batch, const struct prefix *prefix)
{
	match_ct_source(batch, prefix, IP_CT_DIR_ORIGINAL);
}

void nft_match_ct_replier(struct nft_batch *batch, const struct prefix *prefix)
{
	match_ct_source(batch, prefix, IP_CT_DIR_REPLY);
}

static void load_key(struct nft_batch *batch, const struct nft_key *key)
{
	uint32_t word = 0, type, reg;

	assert(key->count <= NFT_FIELDS_MAX);
	if (key->family)
		match_family(batch, key->family);
	for (size_t i = 0; i < key->count; i++) {
		reg = word ? NFT_REG32_00 + word : NFT_REG_1;
		switch (key->fields[i]) {
		case NFT_FIELD_SOURCE:
		case NFT_FIELD_DESTINATION: load_address(batch, key->family, key->fields[i], reg); break;
		case NFT_FIELD_PROTOCOL: load_meta(batch, NFT_META_L4PROTO, reg); break;
		case NFT_FIELD_SOURCE_PORT: load_payload(batch, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2, reg); break;
		case NFT_FIELD_DESTINATION_PORT: load_payload(batch, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, reg); break;
		}
		word += (nft_field_size(key, key->fields[i], &type) + 3) / 4;
	}
}

void nft_match_set(struct nft_batch *batch, const char *set, const struct nft_key *key)
{
	load_key(batch, key);
	look_up(batch, set);
}

void nft_match_outside(struct nft_batch *batch, const char *set, const struct nft_key *key)
{
	struct nftnl_expr *expression;

	load_key(batch, key);
	expression = look_up(batch, set);
	if (expression)
		nftnl_expr_set_u32(expression, NFTNL_EXPR_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
}

static void set_limit_over(struct nftnl_expr *expression, uint64_t per_second, uint32_t burst)
{
	nftnl_expr_set_u64(expression, NFTNL_EXPR_LIMIT_RATE, per_second);
	nftnl_expr_set_u64(expression, NFTNL_EXPR_LIMIT_UNIT, 1);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_LIMIT_BURST, burst);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_LIMIT_TYPE, NFT_LIMIT_PKTS);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_LIMIT_FLAGS, NFT_LIMIT_F_INV);
}

void nft_count(struct nft_batch *batch, const char *counter)
{
	struct nftnl_expr *expression = add_expression(batch, "objref");

	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER);
	set_text(batch, expression, NFTNL_EXPR_OBJREF_IMM_NAME, counter);
}

void nft_limit_over(struct nft_batch *batch, uint64_t per_second, uint32_t burst)
{
	struct nftnl_expr *expression = add_expression(batch, "limit");

	if (expression)
		set_limit_over(expression, per_second, burst);
}

static struct nftnl_expr *update_set(struct nft_batch *batch, const char *set, const struct nft_key *key)
{
	struct nftnl_expr *expression;

	load_key(batch, key);
	expression = add_expression(batch, "dynset");
	if (!expression)
		return NULL;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_DYNSET_SREG_KEY, NFT_REG_1);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_DYNSET_OP, NFT_DYNSET_OP_UPDATE);
	set_text(batch, expression, NFTNL_EXPR_DYNSET_SET_NAME, set);
	return expression;
}

void nft_remember(struct nft_batch *batch, const char *set, const struct nft_key *key, uint64_t timeout_ms)
{
	struct nftnl_expr *expression = update_set(batch, set, key);

	if (expression)
		nftnl_expr_set_u64(expression, NFTNL_EXPR_DYNSET_TIMEOUT, timeout_ms);
}

/* What each element of the set has for itself. Return: NULL after an error. */
static struct nftnl_expr *add_to_elements(struct nft_batch *batch, struct nftnl_expr *update, const char *name)
{
	struct nftnl_expr *own;

	if (!update)
		return NULL;
	own = nftnl_expr_alloc(name);
	if (!own) {
		nft_batch_fail(batch, -ENOMEM);
		return NULL;
	}
	nftnl_expr_add_expr(update, NFTNL_EXPR_DYNSET_EXPRESSIONS, own);
	return own;
}

void nft_count_key(struct nft_batch *batch, const char *set, const struct nft_key *key)
{
	(void)add_to_elements(batch, update_set(batch, set, key), "counter");
}

void nft_limit_key_over(struct nft_batch *batch, const char *set, const struct nft_key *key, uint64_t per_second, uint32_t burst)
{
	struct nftnl_expr *limit = add_to_elements(batch, update_set(batch, set, key), "limit");

	if (limit)
		set_limit_over(limit, per_second, burst);
}

void nft_notrack(struct nft_batch *batch)
{
	add_expression(batch, "notrack");
}

/* To what register 1 has. */
static void set_mark(struct nft_batch *batch)
{
	struct nftnl_expr *expression = add_expression(batch, "meta");

	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_META_KEY, NFT_META_MARK);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_META_SREG, NFT_REG_1);
}

void nft_set_mark(struct nft_batch *batch, uint32_t mark_value)
{
	load_bytes(batch, &mark_value, sizeof(mark_value), NFT_REG_1);
	set_mark(batch);
}

void nft_set_ct_mark(struct nft_batch *batch, uint32_t mark_value)
{
	struct nftnl_expr *expression;

	load_bytes(batch, &mark_value, sizeof(mark_value), NFT_REG_1);
	expression = add_expression(batch, "ct");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_CT_KEY, NFT_CT_MARK);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_CT_SREG, NFT_REG_1);
}

void nft_copy_ct_id(struct nft_batch *batch)
{
	load_ct(batch, NFT_CT_ID);
	set_mark(batch);
}

/* The address is in register 1, the port, if there is one, in register 2. @type: NFT_NAT_DNAT or NFT_NAT_SNAT. */
static void translate(struct nft_batch *batch, uint32_t type, int family, bool with_port)
{
	struct nftnl_expr *expression = add_expression(batch, "nat");

	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_NAT_TYPE, type);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_NAT_FAMILY, family == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_NAT_REG_ADDR_MIN, NFT_REG_1);
	if (with_port)
		nftnl_expr_set_u32(expression, NFTNL_EXPR_NAT_REG_PROTO_MIN, NFT_REG_2);
}

void nft_destination_nat(struct nft_batch *batch, const struct address *address, uint16_t port)
{
	uint16_t wire_port = htons(port);

	load_bytes(batch, address->bytes, (uint32_t)address_size(address), NFT_REG_1);
	if (port)
		load_bytes(batch, &wire_port, sizeof(wire_port), NFT_REG_2);
	translate(batch, NFT_NAT_DNAT, address->family, port != 0);
}

void nft_destination_nat_map(struct nft_batch *batch, const char *map, int family)
{
	const struct nft_key destination = {family, 1, {NFT_FIELD_DESTINATION}};
	struct nftnl_expr *expression;

	load_key(batch, &destination);
	expression = look_up(batch, map);
	if (expression)
		nftnl_expr_set_u32(expression, NFTNL_EXPR_LOOKUP_DREG, NFT_REG_1);
	translate(batch, NFT_NAT_DNAT, family, false);
}

void nft_source_nat(struct nft_batch *batch, const struct address *address)
{
	load_bytes(batch, address->bytes, (uint32_t)address_size(address), NFT_REG_1);
	translate(batch, NFT_NAT_SNAT, address->family, false);
}

void nft_masquerade(struct nft_batch *batch)
{
	add_expression(batch, "masq");
}

/* The xt target as iptables would ask for it; its data is a whole number of 8-byte words. */
static void queue_target(struct nft_batch *batch, uint16_t number)
{
	struct nftnl_expr *expression = add_expression(batch, "target");
	struct xt_NFQ_info_v3 info = {.queuenum = number, .queues_total = 1};
	uint32_t size = (sizeof(info) + 7) & ~7U;
	void *data;

	if (!expression)
		return;
	data = calloc(1, size); /* the expression owns and frees it */
	if (!data) {
		nft_batch_fail(batch, -ENOMEM);
		return;
	}
	memcpy(data, &info, sizeof(info));
	set_text(batch, expression, NFTNL_EXPR_TG_NAME, "NFQUEUE");
	nftnl_expr_set_u32(expression, NFTNL_EXPR_TG_REV, 3);
	nftnl_expr_set(expression, NFTNL_EXPR_TG_INFO, data, size);
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the expression has taken data over */
}

/* Numbers of conntrack are in the order of the host; only what is in that of the network compares by size. */
void nft_match_ct_packets_over(struct nft_batch *batch, uint64_t packets)
{
	struct nftnl_expr *load = load_ct(batch, NFT_CT_PKTS), *swap = add_expression(batch, "byteorder");
	uint64_t wire = htobe64(packets);

	if (!load || !swap)
		return;
	nftnl_expr_set_u8(load, NFTNL_EXPR_CT_DIR, IP_CT_DIR_ORIGINAL);
	nftnl_expr_set_u32(swap, NFTNL_EXPR_BYTEORDER_SREG, NFT_REG_1);
	nftnl_expr_set_u32(swap, NFTNL_EXPR_BYTEORDER_DREG, NFT_REG_1);
	nftnl_expr_set_u32(swap, NFTNL_EXPR_BYTEORDER_OP, NFT_BYTEORDER_HTON);
	nftnl_expr_set_u32(swap, NFTNL_EXPR_BYTEORDER_LEN, sizeof(wire));
	nftnl_expr_set_u32(swap, NFTNL_EXPR_BYTEORDER_SIZE, sizeof(wire));
	compare(batch, NFT_CMP_GT, &wire, sizeof(wire));
}

void nft_flow_add(struct nft_batch *batch, const char *flowtable)
{
	struct nftnl_expr *expression = add_expression(batch, "flow_offload");

	if (expression)
		nftnl_expr_set_str(expression, NFTNL_EXPR_FLOW_TABLE_NAME, flowtable);
}

void nft_queue(struct nft_batch *batch, uint16_t number, bool native)
{
	struct nftnl_expr *expression;

	if (!native) {
		queue_target(batch, number);
		return;
	}
	expression = add_expression(batch, "queue");
	if (!expression)
		return;
	nftnl_expr_set_u16(expression, NFTNL_EXPR_QUEUE_NUM, number);
	nftnl_expr_set_u16(expression, NFTNL_EXPR_QUEUE_TOTAL, 1);
	nftnl_expr_set_u16(expression, NFTNL_EXPR_QUEUE_FLAGS, 0);
}

static void reject(struct nft_batch *batch, uint32_t type, uint8_t code)
{
	struct nftnl_expr *expression = add_expression(batch, "reject");

	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_REJECT_TYPE, type);
	nftnl_expr_set_u8(expression, NFTNL_EXPR_REJECT_CODE, code);
}

void nft_reject_reset(struct nft_batch *batch)
{
	reject(batch, NFT_REJECT_TCP_RST, 0);
}

void nft_reject_prohibited(struct nft_batch *batch)
{
	reject(batch, NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
}

void nft_verdict(struct nft_batch *batch, enum nft_verdict_kind kind, const char *chain)
{
	struct nftnl_expr *expression = add_expression(batch, "immediate");

	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_IMM_VERDICT, nft_verdict_code(kind));
	if (chain)
		set_text(batch, expression, NFTNL_EXPR_IMM_CHAIN, chain);
}

void nft_branch(struct nft_batch *batch, uint32_t meta_key, const struct nft_branch *branches, size_t count)
{
	struct nftnl_expr *expression;

	nft_branch_map(batch, branches, count);
	load_meta(batch, meta_key, NFT_REG_1);
	expression = add_expression(batch, "lookup");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_LOOKUP_DREG, NFT_REG_VERDICT);
	set_text(batch, expression, NFTNL_EXPR_LOOKUP_SET, NFT_MAP_NAME);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_LOOKUP_SET_ID, batch->set_id);
}
