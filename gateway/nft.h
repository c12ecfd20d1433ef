/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_NFT_H
#define SLUICE_GATEWAY_NFT_H

/*
 * nf_tables in our words: a batch under construction and its objects (nft_batch.c), one function per expression that our rules use (nft.c,
 * the only user of libnftnl), what a batch need not say again (nft_rules.c), and lists of what the kernel has (nft_read.c). ruleset.c says
 * which rules there are.
 *
 * Building never fails on the spot: the first error stays in batch->error, everything after it does nothing, and
 * nft_batch_commit() returns it.
 *
 *	struct nft_batch batch;
 *
 *	nft_batch_begin(&batch, netlink, NFT_TABLE);
 *	nft_rule_begin(&batch, "forward");
 *	nft_match_ct_state(&batch, NFT_CT_STATE_BIT(IP_CT_ESTABLISHED));
 *	nft_verdict(&batch, NFT_VERDICT_ACCEPT, NULL);
 *	nft_rule_end(&batch);
 *	error = nft_batch_commit(&batch, text, sizeof(text));
 */

#include <linux/netfilter/nf_tables.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/address.h"
#include "gateway/netlink.h"

#define NFT_TABLE         "sluice" /* family inet */
#define NFT_NAME_SIZE     128      /* names of chains, sets and counters, with NUL */
#define NFT_FIELDS_MAX    4        /* fields of one key */
#define NFT_KEY_MAX       40       /* octets: two IPv6 addresses, protocol, port */
#define NFT_ELEMENTS_PART 256      /* elements per message: an attribute holds 64 KiB; even, so that ranges stay whole */

struct nftnl_rule;

struct nft_batch {
	struct netlink *netlink;
	const char *table;
	uint8_t *buffer; /* owned */
	size_t size, capacity;
	size_t last;             /* offset of the last message */
	unsigned int messages;   /* without the frame around them */
	uint32_t set_id;         /* of the last anonymous set */
	uint32_t named_set_id;   /* of the last other one; apart, so that rules do not depend on which sets are new */
	bool comparable;         /* messages that say the same are the same octets */
	struct nftnl_rule *rule; /* owned; between nft_rule_begin() and nft_rule_end() */
	int error;               /* first -errno */
	int refused;             /* after the commit: NFT_MSG_* of the message that the kernel did not take, or -1 */
};

void nft_batch_begin(struct nft_batch *batch, struct netlink *netlink, const char *table);
/** nft_batch_begin_comparable() - The same, for nft_batch_digest(); its buffer is zeroed, which takes longer than a small batch. */
void nft_batch_begin_comparable(struct nft_batch *batch, struct netlink *netlink, const char *table);
/**
 * nft_batch_commit() - Send the batch and wait for its acknowledgement; releases it in any case
 * @error:	receives one line that names the object the kernel did not take
 * Return: 0, or -errno: nothing took effect. A batch without messages is not sent.
 */
int nft_batch_commit(struct nft_batch *batch, char *error, size_t error_size);
/** nft_batch_free() - Give a batch up. */
void nft_batch_free(struct nft_batch *batch);

#define NFT_DIGEST_SIZE 32

/**
 * nft_batch_digest() - What a batch that writes all rules of a table says about rules, as a number
 * Return: nothing but elements is in it beside these; false: named chains, sets or counters are made or deleted as well.
 */
bool nft_batch_digest(const struct nft_batch *batch, uint8_t digest[static NFT_DIGEST_SIZE]);
/** nft_batch_drop_rules() - Leave rules and base chains out: the kernel has them. Only before the commit. */
void nft_batch_drop_rules(struct nft_batch *batch);

/* Objects. What is there already is left as it is; deleting what is not there fails the batch. */
/** nft_table_add() - One that is there and dormant is woken up. */
void nft_table_add(struct nft_batch *batch);
void nft_table_delete(struct nft_batch *batch);

struct nft_hook {
	const char *chain, *type; /* "filter", "nat" */
	uint32_t hook;            /* NF_INET_* */
	int32_t priority;
	bool drop; /* policy */
};
void nft_base_chain_add(struct nft_batch *batch, const struct nft_hook *hook);
void nft_chain_add(struct nft_batch *batch, const char *chain);
void nft_chain_delete(struct nft_batch *batch, const char *chain);
void nft_counter_add(struct nft_batch *batch, const char *counter);
void nft_counter_delete(struct nft_batch *batch, const char *counter);
/** nft_rules_flush() - Delete the rules of all chains of the table. */
void nft_rules_flush(struct nft_batch *batch);

/**
 * nft_flowtable_add() - Where packets of its flows that come in by these interfaces go past all chains; conntrack counts them. Linux 5.8.
 * @devices:	names; one that is not there fails the batch
 */
void nft_flowtable_add(struct nft_batch *batch, const char *name, const char *const *devices, size_t count);
void nft_flowtable_delete(struct nft_batch *batch, const char *name);

/* What a key is made of, in the order of the packet's match. */
enum nft_field { NFT_FIELD_SOURCE, NFT_FIELD_DESTINATION, NFT_FIELD_PROTOCOL, NFT_FIELD_SOURCE_PORT, NFT_FIELD_DESTINATION_PORT };

struct nft_key {
	int family; /* AF_INET or AF_INET6; 0 when no field is an address */
	size_t count;
	enum nft_field fields[NFT_FIELDS_MAX];
};

struct nft_set {
	const char *name;
	struct nft_key key;
	uint32_t flags;      /* NFT_SET_INTERVAL, NFT_SET_TIMEOUT, NFT_SET_EVAL */
	uint64_t timeout_ms; /* default of its elements, or 0 */
	uint32_t size;       /* elements, or 0: no limit */
	bool map;            /* from an address to another one of its family */
};
void nft_set_add(struct nft_batch *batch, const struct nft_set *set);
void nft_set_delete(struct nft_batch *batch, const char *set);

struct nft_element {
	uint8_t key[NFT_KEY_MAX];
	uint8_t size;        /* octets of the key */
	bool end;            /* of a range: the first address behind it */
	uint64_t timeout_ms; /* its life in all; 0: the set's */
	uint64_t left_ms;    /* what is left of it; adding: 0 means all */
	uint64_t packets;    /* reading: its counter */
	struct address to;   /* of a map: where the key leads */
};

/** nft_element_address() - The element of a set whose key is one address. */
struct nft_element nft_element_address(const struct address *address);
/** nft_element_port() - The element of a set whose key is an address and a port. */
struct nft_element nft_element_port(const struct address *address, uint16_t port);
/** nft_element_mapping() - The element of a map that leads from one address to another. */
struct nft_element nft_element_mapping(const struct address *from, const struct address *to);
/**
 * nft_elements_add() - Add elements, or renew the timeout of those that are there (kernel_features.refresh says whether that works)
 * nft_elements_delete() - Remove elements; one that is not there fails the batch
 */
void nft_elements_add(struct nft_batch *batch, const char *set, const struct nft_element *elements, size_t count);
void nft_elements_delete(struct nft_batch *batch, const char *set, const struct nft_element *elements, size_t count);

/* One rule: begin, matches, statements, end. */
void nft_rule_begin(struct nft_batch *batch, const char *chain);
void nft_rule_end(struct nft_batch *batch);

/* Matches. */
void nft_match_meta32(struct nft_batch *batch, uint32_t meta_key, uint32_t value, bool equal); /* NFT_META_IIF, OIF, MARK, SKUID */
void nft_match_meta8(struct nft_batch *batch, uint32_t meta_key, uint8_t value, bool equal);   /* NFT_META_NFPROTO, L4PROTO, PKTTYPE */
void nft_match_protocol_set(struct nft_batch *batch, const char *set);
void nft_match_prefix(struct nft_batch *batch, enum nft_field side, const struct prefix *prefix, bool equal);
/** nft_match_more_prefix() - The same; the rule must have matched the family. */
void nft_match_more_prefix(struct nft_batch *batch, enum nft_field side, const struct prefix *prefix, bool equal);
void nft_match_address(struct nft_batch *batch, enum nft_field side, const struct address *address, bool equal);
/** nft_match_port() - Inclusive range of ports; the rule must have matched a protocol that has some. */
void nft_match_port(struct nft_batch *batch, enum nft_field side, uint16_t first, uint16_t last);
/** nft_match_icmp_type() - Inclusive range of types; the rule must have matched the protocol. */
void nft_match_icmp_type(struct nft_batch *batch, uint8_t first, uint8_t last);
void nft_match_tcp_reset(struct nft_batch *batch);
/** nft_match_tcp_syn() - The SYN flag, whatever other flags there are. */
void nft_match_tcp_syn(struct nft_batch *batch);
/** nft_match_tcp_option() - A packet that has the option. The rule must have matched TCP. */
void nft_match_tcp_option(struct nft_batch *batch, uint8_t kind);
/** nft_match_options() - An IPv4 packet whose header has options, or has none. */
void nft_match_options(struct nft_batch *batch, bool some);
/** nft_match_fragment() - A part of a packet of the family; where the kernel has put packets together, there are none any more. */
void nft_match_fragment(struct nft_batch *batch, int family);
/** nft_match_udp_long_header() - The first bit of the content is set: a QUIC packet that may begin a connection (RFC 8999 section 5.1). */
void nft_match_udp_long_header(struct nft_batch *batch);
/** nft_match_udp_length() - At least this many octets, with the header. */
void nft_match_udp_length(struct nft_batch *batch, uint16_t least);
void nft_match_ct_state(struct nft_batch *batch, uint32_t states);
void nft_match_ct_mark(struct nft_batch *batch, uint32_t mark_value);
/** nft_match_ct_mark_bits() - Of the mark, those bits that are set in @bits. */
void nft_match_ct_mark_bits(struct nft_batch *batch, uint32_t bits, uint32_t mark_value);
/** nft_match_ct_status() - Any of these bits of enum ip_conntrack_status. */
void nft_match_ct_status(struct nft_batch *batch, uint32_t bits);
/** nft_match_ct_reply() - A packet in the direction of the flow's replies, or not. An ICMP error goes the other way than what it is about.
 */
void nft_match_ct_reply(struct nft_batch *batch, bool reply);
/** nft_match_ct_source() - Who began the flow: the source of its first packet, before any translation. */
void nft_match_ct_source(struct nft_batch *batch, const struct prefix *prefix);
/** nft_match_ct_replier() - To whom the flow led: the source of its replies, before any translation. */
void nft_match_ct_replier(struct nft_batch *batch, const struct prefix *prefix);
/** nft_match_set() - Look a key up in a named set. */
void nft_match_set(struct nft_batch *batch, const char *set, const struct nft_key *key);
/** nft_match_outside() - A key that is not in a named set. */
void nft_match_outside(struct nft_batch *batch, const char *set, const struct nft_key *key);
/** nft_limit_over() - Matches what exceeds the rate. */
void nft_limit_over(struct nft_batch *batch, uint64_t per_second, uint32_t burst);

/* Statements. */
void nft_count(struct nft_batch *batch, const char *counter);
/** nft_remember() - Add the key to a set from the packet path, or renew it; the rule ends here when the set is full. */
void nft_remember(struct nft_batch *batch, const char *set, const struct nft_key *key, uint64_t timeout_ms);
/** nft_limit_key_over() - Matches what exceeds a rate that each key has for itself; nothing that finds the set full. */
void nft_limit_key_over(struct nft_batch *batch, const char *set, const struct nft_key *key, uint64_t per_second, uint32_t burst);
/** nft_count_key() - The same for a set without timeout, each element with a counter of its packets. */
void nft_count_key(struct nft_batch *batch, const char *set, const struct nft_key *key);
/** nft_strip_tcp_option() - Put padding in the place of an option (kernel_features.strip says whether that works). */
void nft_strip_tcp_option(struct nft_batch *batch, uint8_t kind);
void nft_notrack(struct nft_batch *batch);
void nft_set_mark(struct nft_batch *batch, uint32_t mark_value);
void nft_set_ct_mark(struct nft_batch *batch, uint32_t mark_value);
/** nft_copy_ct_id() - The packet gets the id that conntrack has for its flow as its mark. Linux 5.2. */
void nft_copy_ct_id(struct nft_batch *batch);
/** nft_destination_nat() - @port: 0: the port stays. */
void nft_destination_nat(struct nft_batch *batch, const struct address *address, uint16_t port);
/** nft_destination_nat_map() - To where a map leads from the packet's destination; the rule does not match when it leads nowhere. */
void nft_destination_nat_map(struct nft_batch *batch, const char *map, int family);
void nft_source_nat(struct nft_batch *batch, const struct address *address);
void nft_masquerade(struct nft_batch *batch);
/** nft_match_ct_packets_over() - Packets of the flow in its first packet's direction, with net.netfilter.nf_conntrack_acct = 1; else none.
 */
void nft_match_ct_packets_over(struct nft_batch *batch, uint64_t packets);
/** nft_flow_add() - Put the packet's flow into a flowtable. The rule ends here when it is there already, or cannot be. */
void nft_flow_add(struct nft_batch *batch, const char *flowtable);
/** nft_queue() - To user space, without bypass. @native: by the `queue` expression, else by the xt target NFQUEUE. */
void nft_queue(struct nft_batch *batch, uint16_t number, bool native);
void nft_reject_reset(struct nft_batch *batch);
void nft_reject_prohibited(struct nft_batch *batch);

enum nft_verdict_kind { NFT_VERDICT_ACCEPT, NFT_VERDICT_DROP, NFT_VERDICT_JUMP, NFT_VERDICT_GOTO };
/** nft_verdict() - @chain: where to jump or go to, else NULL. */
void nft_verdict(struct nft_batch *batch, enum nft_verdict_kind kind, const char *chain);

struct nft_branch {
	uint32_t interface; /* ifindex */
	enum nft_verdict_kind kind;
	char chain[NFT_NAME_SIZE];
};
/** nft_branch() - Verdict map by interface. @meta_key: NFT_META_IIF or NFT_META_OIF. */
void nft_branch(struct nft_batch *batch, uint32_t meta_key, const struct nft_branch *branches, size_t count);

/* What the kernel has, sorted by name; anonymous sets and base chains are left out. */
enum nft_object_kind { NFT_OBJECTS_CHAINS, NFT_OBJECTS_SETS, NFT_OBJECTS_COUNTERS, NFT_OBJECTS_FLOWTABLES };

struct nft_object {
	char name[NFT_NAME_SIZE];
	uint64_t packets; /* counters */
	bool wanted;      /* for the caller */
};

struct nft_objects {
	struct nft_object *list; /* owned */
	size_t count, capacity;
};

/** nft_objects_read() - List objects of a table; a table that is not there has none. Return: 0 or -errno. */
int nft_objects_read(struct netlink *netlink, const char *table, enum nft_object_kind kind, struct nft_objects *out);
struct nft_object *nft_objects_find(const struct nft_objects *objects, const char *name);
void nft_objects_free(struct nft_objects *objects);

struct nft_elements {
	struct nft_element *list; /* owned */
	size_t count, capacity;
};

/** nft_elements_read() - List the elements of a set, sorted by key, ends before beginnings. Return: 0 or -errno. */
int nft_elements_read(struct netlink *netlink, const char *table, const char *set, struct nft_elements *out);
/** nft_element_compare() - The order of nft_elements_read(); for qsort() and bsearch(). */
int nft_element_compare(const void *a, const void *b);
void nft_elements_free(struct nft_elements *elements);

/* Between nft.c and nft_batch.c. */
#define NFT_MAP_NAME "__map%d" /* the kernel fills in the number */
void nft_batch_fail(struct nft_batch *batch, int error);
void nft_rule_drop(struct nft_batch *batch);
/** nft_message_begin() - Return: where the message's attributes go, with room for all of them, or NULL after an error. */
struct nlmsghdr *nft_message_begin(struct nft_batch *batch, uint16_t type, uint16_t flags);
void nft_message_end(struct nft_batch *batch, const struct nlmsghdr *message);
/** nft_field_size() - Return: octets of a field; @type: the number by which nft knows it. */
uint32_t nft_field_size(const struct nft_key *key, enum nft_field field, uint32_t *type);
uint32_t nft_verdict_code(enum nft_verdict_kind kind);
/** nft_branch_map() - The anonymous map of a branch; its number is batch->set_id afterwards. */
void nft_branch_map(struct nft_batch *batch, const struct nft_branch *branches, size_t count);

#endif
