/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_RULESET_INTERNAL_H
#define SLUICE_GATEWAY_RULESET_INTERNAL_H

/*
 * Between the ruleset*.c files: one application of a policy to the table.
 *
 * Names. A network's chains and counters are PREFIX_NETWORK, its sets PREFIX4_NETWORK or PREFIX6_NETWORK, with "_PORTS" behind it where
 * there is one set for each port specification. A network's name may hold '_', so no PREFIX does. What belongs to no network uses none of
 * these prefixes, so that a network may have any name, "uplink" included; and none is a keyword of nft, so that the table can be printed
 * and read back.
 */

#include <time.h>

#include "common/mapping.h"
#include "gateway/nft.h"
#include "gateway/ruleset.h"

#define RULESET_DNS_PORT 53

/* Sets and chains that belong to no network. */
#define RULESET_TRANSPORT    "transport" /* set: the protocols that have ports */
#define RULESET_INSIDE       "inside"    /* sets inside4, inside6: the subnets of all networks */
#define RULESET_SPECIAL      "special"   /* sets special4, special6: what audit mode does not open */
#define RULESET_DISCOVERY    "discovery" /* chain: accepts neighbour discovery and MLD */
#define RULESET_HOUSEKEEPING "housekeeping_drop"
#define RULESET_FRAGMENTS    "fragments"   /* base chain, and prefix of chains: from where parts of packets may come */
#define RULESET_ERRORS       "errors"      /* chain: ICMP errors about a flow */
#define RULESET_STRAY        "stray"       /* chain: packets that belong to no flow and cannot begin one */
#define RULESET_DENIED       "denied"      /* prefix of sets: in audit mode, addresses of names that a deny rule forbids */
#define RULESET_REJECT       "reject_flow" /* chain: refuses a packet, and answers where that is right */
#define RULESET_PUBLISHED    "published"   /* chain: from the ports of the uplink's addresses to containers */
#define RULESET_NOTIFY       "notify"      /* sets notify4, notify6: addresses and ports that a notification is being sent to */
#define RULESET_INBOUND      "inbound"     /* prefix of chains and counters: flows that come in to a network */
#define RULESET_PASS         "pass"        /* prefix of chains: flows that go out */
#define RULESET_DIRECT       "direct"      /* prefix of chains: flows that go out by an address rule, where those to names are verified */
#define RULESET_VERIFY       "verify"      /* base chain: flows whose name is read */
#define RULESET_ALLOWED      "allowed"     /* prefix of counters: the same */

#define RULESET_CROWDED "crowded" /* prefix of chains and counters: new flows of who has too many; and of sets: everybody, or sources */

#define RULESET_FLOWTABLE "fast"

#define RULESET_FAST_OPEN   34   /* kind of a TCP option, RFC 7413 */
#define RULESET_STATUS_DNAT 0x20 /* IPS_DST_NAT of enum ip_conntrack_status */

/* One element that a name set has to hold. */
struct ruleset_lease {
	uint16_t network;
	uint8_t spec;
	struct address address;
	uint64_t until; /* ms */
};

/* One element that a network's maps have to hold. */
struct ruleset_mapping {
	uint16_t network;
	struct address address, real;
};

/* A policy on its way into the table. */
struct ruleset_plan {
	struct ruleset *ruleset;
	const struct policy *policy;
	const struct interfaces *interfaces;
	const struct openings *openings;
	uint64_t now; /* ms, the leases' clock */
	time_t wall;
	struct nft_batch batch;
	bool flowtable;                                        /* the kernel has it, and the policy does not forbid it */
	struct nft_objects chains, sets, counters, flowtables; /* owned: what the kernel has; what the policy wants gets marked */
	struct lease_table *table;
	const struct ruleset_places *places; /* where leases have changed; NULL: anywhere */
	bool collected;                      /* `leases` is there */
	struct ruleset_lease *leases;        /* owned; sorted */
	size_t lease_count, lease_capacity;
	struct ruleset_mapping *mappings; /* owned; sorted */
	size_t mapping_count, mapping_capacity;
	int error; /* first -errno of reading and calculating; that of building is in the batch */
};

/* ruleset.c: see to it that an object is there, and stays. */
void ruleset_want_chain(struct ruleset_plan *plan, const char *name);
void ruleset_want_counter(struct ruleset_plan *plan, const char *name);
/** ruleset_want_set() - Return: true when the kernel has it already. */
bool ruleset_want_set(struct ruleset_plan *plan, const struct nft_set *set);
/** ruleset_name() - PREFIX_NETWORK. Return: @out. */
const char *ruleset_name(const char *prefix, const struct network *network, char out[static NFT_NAME_SIZE]);
/** ruleset_set_name() - PREFIX4_NETWORK or PREFIX6_NETWORK, with "_PORTS" unless @ports is NULL. Return: @out. */
const char *ruleset_set_name(const char *prefix, int family, const struct network *network, const struct ports *ports,
			     char out[static NFT_NAME_SIZE]);
/** ruleset_subnet() - Of one family, or NULL when the network lacks it. */
const struct prefix *ruleset_subnet(const struct network *network, int family);
const struct address *ruleset_gateway(const struct network *network, int family);
/** ruleset_pool() - Of one family, or NULL when the network has no virtual addresses of it. */
const struct prefix *ruleset_pool(const struct network *network, int family);

/* ruleset_probe.c */
int ruleset_probe(struct ruleset *ruleset, char *error, size_t error_size);

/* ruleset_sets.c: sets, and what differs in their elements. */
struct nft_key ruleset_key_destination(int family);
struct nft_key ruleset_key_source(int family);
struct nft_key ruleset_key_seen(int family);
struct nft_key ruleset_key_asking(int family);
struct nft_key ruleset_key_notify(int family);
void ruleset_sets_global(struct ruleset_plan *plan);
void ruleset_sets_network(struct ruleset_plan *plan, const struct network *network, const struct address_set *addresses, size_t count);

/* ruleset_base.c: base chains, and what belongs to no single network. */
void ruleset_base_create(struct nft_batch *batch);
void ruleset_base_want(struct ruleset_plan *plan);
void ruleset_base_rules(struct ruleset_plan *plan);

/* ruleset_network.c: the chains of one network. */
void ruleset_network_want(struct ruleset_plan *plan, const struct network *network);
void ruleset_network_rules(struct ruleset_plan *plan, const struct network *network, const struct address_set *addresses, size_t count);

/* A network whose rules are being written. */
struct ruleset_writer {
	struct nft_batch *batch;
	const struct ruleset_plan *plan;
	const struct network *network;
	char own[NFT_NAME_SIZE], deny[NFT_NAME_SIZE], refuse[NFT_NAME_SIZE], audit[NFT_NAME_SIZE], pass[NFT_NAME_SIZE],
		direct[NFT_NAME_SIZE];
};

/** ruleset_begin() - Begin a rule of the network's chain PREFIX_N. */
void ruleset_begin(const struct ruleset_writer *writer, const char *prefix);
/** ruleset_end() - End it with a verdict. */
void ruleset_end(const struct ruleset_writer *writer, enum nft_verdict_kind kind, const char *chain);
/* Rules that look ports up, and a destination: their chain, and what becomes of a packet that they find. */
struct ruleset_finding {
	const char *prefix; /* of the chain: PREFIX_N */
	enum nft_verdict_kind kind;
	const char *chain;
};

/** ruleset_write_ports() - As few rules as the ports allow. @set: of destinations of the family; NULL: any. */
void ruleset_write_ports(const struct ruleset_writer *writer, const struct ruleset_finding *finding, const struct ports *ports,
			 const char *set, int family);
/** ruleset_write_names() - In PREFIX_N: what becomes of packets to an address of a name set, on the set's ports. */
void ruleset_write_names(const struct ruleset_writer *writer, const char *prefix, enum nft_verdict_kind kind, const char *chain);
/** ruleset_write_limits() - In PREFIX_N: what exceeds the rate or is known as denied goes to @refuse, the rest to the queue. */
void ruleset_write_limits(const struct ruleset_writer *writer, const char *prefix, const char *refuse);
/**
 * ruleset_write_audit_limit() - In PREFIX_N: what exceeds the rate is counted as audited and gets the verdict, the rest is queued
 * @denied:	where packets to addresses of names that a deny rule forbids go first
 */
void ruleset_write_audit_limit(const struct ruleset_writer *writer, const char *prefix, const char *denied, enum nft_verdict_kind kind,
			       const char *chain);
/** ruleset_write_crowded() - In a chain of the network: flows that have no mark yet, of sources that have too many, go to the chain @to, a
 * prefix as well. */
void ruleset_write_crowded(const struct ruleset_writer *writer, const char *prefix, const char *to);
/** ruleset_count_refused() - In PREFIX_N: count the packet as refused, for the network and for its source. */
void ruleset_count_refused(const struct ruleset_writer *writer, const char *prefix);

/* ruleset_virtual.c: networks with virtual addresses. */
void ruleset_virtual_want(struct ruleset_plan *plan, const struct network *network);
/** ruleset_virtual_collect() - All mappings, for ruleset_virtual_maps(). */
void ruleset_virtual_collect(struct ruleset_plan *plan, struct mapping_table *mappings);
/** ruleset_virtual_maps() - What differs in the elements of the network's maps. */
void ruleset_virtual_maps(struct ruleset_plan *plan, const struct network *network);
/** ruleset_virtual_destinations() - Of redirect_N: flows to the pool; and the chains that these go through. */
void ruleset_virtual_destinations(const struct ruleset_writer *writer);
/** ruleset_virtual_forward() - Of net_N. */
void ruleset_virtual_forward(const struct ruleset_writer *writer);
/** ruleset_virtual_denied() - Of input_N: what was denied in prerouting is not judged once more. */
void ruleset_virtual_denied(const struct ruleset_writer *writer);

/* ruleset_verify.c: networks whose flows to names are read. */
bool ruleset_verifies(const struct policy *policy);
/** ruleset_verify_create() - Its base chain, which stays. Only where some network verifies: every forwarded packet goes through it. */
void ruleset_verify_create(struct nft_batch *batch);
void ruleset_verify_want(struct ruleset_plan *plan);
/** ruleset_verify_rules() - Chains that belong to no single network. */
void ruleset_verify_rules(struct ruleset_plan *plan);
void ruleset_verify_want_network(struct ruleset_plan *plan, const struct network *network);
/** ruleset_verify_pass() - Of pass_N: what is to be read; and the chain where that goes. */
void ruleset_verify_pass(const struct ruleset_writer *writer);
/** ruleset_verify_output() - Of output: what the worker sends for an app. */
void ruleset_verify_output(struct ruleset_plan *plan);

/* ruleset_flowtable.c: the short way of established flows. */
/** ruleset_flowtable_write() - Make it anew, or delete it; when no rule refers to it. */
void ruleset_flowtable_write(struct ruleset_plan *plan);
/** ruleset_flowtable_forward() - Of forward: established flows go into it. @established: the bit of ct state. */
void ruleset_flowtable_forward(struct ruleset_plan *plan, uint32_t established);

/* ruleset_publish.c: what may come in. */
void ruleset_publish_nat(struct ruleset_plan *plan);
void ruleset_publish_forward(struct ruleset_plan *plan);
/** ruleset_publish_errors() - Of uplink_errors, before the rules for the apps' own flows. */
void ruleset_publish_errors(struct ruleset_plan *plan);
/** ruleset_publish_source() - Of postrouting: from whom flows into a network without routes come. */
void ruleset_publish_source(struct ruleset_plan *plan, const struct network *network);
void ruleset_publish_network(struct ruleset_plan *plan, const struct network *network);

#endif
