/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_RULESET_H
#define SLUICE_GATEWAY_RULESET_H

/*
 * struct policy + struct interfaces -> the table `inet sluice`: which chains, sets and rules there are. Base chains and sets are
 * created once; ruleset_apply() replaces the rules of all chains in one transaction and changes only the set elements that differ.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/lease.h"
#include "common/log.h"
#include "common/mapping.h"
#include "common/policy.h"
#include "gateway/interfaces.h"
#include "gateway/netlink.h"
#include "gateway/nft.h"
#include "gateway/openings.h"

#define RULESET_QUEUE          53          /* NFQUEUE number */
#define RULESET_QUEUE_VERIFY   54          /* first packets of flows whose name is to be read */
#define RULESET_QUEUE_AGAIN    55          /* of verified flows: what may begin another QUIC connection */
#define RULESET_QUEUE_BEGUN    56          /* later packets of flows whose name is to be read */
#define RULESET_MARK_DENY      0x51d00001U /* verdict marks, packet mark */
#define RULESET_MARK_AUDIT     0x51d00002U /* also the conntrack mark of flows that audit mode let in */
#define RULESET_MARK_ALLOW     0x51d00003U /* a lease was granted between the kernel's look and ours: the packet passes */
#define RULESET_MARK_PUBLISH   0x51d00004U /* conntrack mark of flows that came in to a published port */
#define RULESET_MARK_REFUSE    0x51d00005U /* packet mark: counted as refused, and to be rejected where that is possible */
#define RULESET_MARK_FLOW      0x51d00006U /* conntrack mark of flows that the policy lets out */
#define RULESET_MARK_VERIFIED  0x51d00007U /* packet mark, of the verify queue: it asks for a name that is allowed */
#define RULESET_MARK_AUDITED   0x51d00008U /* packet mark: audit mode let it to a virtual address; the real one is still to be judged */
/*
 * Conntrack marks of flows that a name let out, and whose own name is read: those with these bits are looked at (ruleset_verify.c).
 * Packets in these queues have conntrack's id of their flow as mark. Verdicts of the queues, each of which needs the option `repeat`:
 * MARK_VERIFIED, MARK_SAID, MARK_DENY, 0, and MARK_VERIFY: the packet passes, and the flow stays as it is. With any other one the packet
 * comes once more.
 */
#define RULESET_MARK_READ_BITS 0xfffffff0U
#define RULESET_MARK_VERIFY    0x51d00010U /* the name is still to be read: every packet of the client goes to QUEUE_BEGUN, and SYN+ACK */
#define RULESET_MARK_DATAGRAMS 0x51d00011U /* UDP, verified: what may begin another QUIC connection goes to QUEUE_AGAIN */
#define RULESET_MARK_ENDED     0x51d00012U /* TCP, denied: the client's further packets are refused in the kernel */
#define RULESET_MARK_UNREAD    0x51d00013U /* as MARK_VERIFY, of a flow whose first packet has not passed yet: to QUEUE_VERIFY */
#define RULESET_MARK_SAID      0x51d00014U /* TCP, read; the server does not have it yet: all packets of both go to QUEUE_BEGUN */
#define RULESET_SEEN_SIZE      2048        /* denied flows remembered per network and family */
#define RULESET_SEEN_SECONDS   10          /* for how long a repeat of a denied flow is refused in the kernel without a line of its own */
#define RULESET_SOURCES_SIZE   1024        /* sources with a refusal counter per network and family */
#define RULESET_RATE           500         /* packets per second and network that may go to the queue ... */
#define RULESET_BURST          1000        /* ... with this burst; the rest is refused and counted in the kernel */
#define RULESET_NOTIFY_MS      15000 /* life of an opening for a notification, should nobody close it: longer than one is tried to be sent */
#define RULESET_SET_NAME_MAX   128

/*
 * Questions to other servers are brought to this port of the gateway address, so that their replies are told from those to questions that
 * were addressed to us, which conntrack does not see. Each begins a flow there, and the table of flows is shared by all networks: hence
 * rates for new ones per network. UDP flows last 30 s there, TCP ones up to 120 s.
 */
#define RULESET_REDIRECT_PORT      5300
#define RULESET_REDIRECT_UDP_RATE  2000 /* flows per second ... */
#define RULESET_REDIRECT_UDP_BURST 4000 /* ... with this burst; the rest is dropped and counted as refused */
#define RULESET_REDIRECT_TCP_RATE  200
#define RULESET_REDIRECT_TCP_BURST 400

/* Of each of these rates, and of RULESET_RATE, one source has no more than this part: the others of its network go on. */
#define RULESET_SOURCE_PART(rate) ((rate) / 4 * 3)
#define RULESET_SOURCE_SECONDS    10 /* without a packet: a source's rate is forgotten */

#define RULESET_ECHO_RATE  200 /* new flows of echo requests to the gateway, per second and network */
#define RULESET_ECHO_BURST 400

/* What the running kernel can do; probed in a table of its own at start. */
struct kernel_features {
	bool native_queue; /* `queue` expression; else the NFQUEUE xt target through nft_compat */
	bool strip;        /* a TCP option can be taken out (since 5.18) */
	bool flowtable;    /* established flows can go past the chains, and be ended by deleting their conntrack entry */
	bool refresh;      /* an element's timeout can be renewed in place (since 6.12); else add, delete, add */
};

/** ruleset_is_flow() - Is it the conntrack mark of a flow that the policy has let out? Where its name is to be read: that was done. */
static inline bool ruleset_is_flow(uint32_t mark)
{
	return mark == RULESET_MARK_FLOW || mark == RULESET_MARK_DATAGRAMS;
}

/** ruleset_is_read() - Of a flow that has just begun: is its name read first? Its verdict says whether it is let out. */
static inline bool ruleset_is_read(uint32_t mark)
{
	return (mark & RULESET_MARK_READ_BITS) == RULESET_MARK_VERIFY;
}

/* The rules that the kernel has got from us. */
struct ruleset_applied {
	bool known;
	uint8_t digest[NFT_DIGEST_SIZE];
};

struct ruleset {
	struct netlink netlink; /* NETLINK_NETFILTER */
	struct kernel_features features;
	struct ruleset_applied applied;
	struct log *log; /* not owned; whoever probes the kernel sets it, as ruleset_open() does */
	uid_t uid;       /* of our own upstream questions; set by the caller before ruleset_open() */
	bool spoilt;     /* somebody else changed the table: the next application makes all of it anew, in its one transaction */
};

/**
 * ruleset_open() - Open the socket, probe the kernel (logged), create the closed table when it is not there
 *
 * A table that is there, with its rules, is left as it is: a restarted worker goes on with it. Return: 0 or -errno with @error.
 */
int ruleset_open(struct ruleset *ruleset, struct log *log, char *error, size_t error_size);
/** ruleset_close() - Close the socket. The table stays. */
void ruleset_close(struct ruleset *ruleset);

/* An address of a network, and the port specifications (bits) in whose sets it may have to be written anew. */
struct ruleset_place {
	uint16_t network;
	struct address address;
	uint64_t specs;
};

struct ruleset_places {
	struct ruleset_place *list; /* owned */
	size_t count, room;
};

/**
 * ruleset_apply() - Make the table say what the policy says, in one transaction
 * @openings:	what may come in from the uplink
 * @leases:	live leases, with specs as bits of @policy's network specs: name sets end up with exactly their elements
 * @places:	where leases differ from what the sets have, and the networks' specs are as they were; NULL: the sets are read and compared
 * @mappings:	the networks' maps end up with exactly these
 * @now:	ms, the leases' clock
 *
 * Rules that are as this process has written them last are not written again. What an allowed flow needs is never absent in between. Sets,
 * chains and counters of networks that are gone are removed. Whether a network is in audit mode is decided now: call again when audit_until
 * has come.
 *
 * Return: 0, or -errno with @error; the old rules stay.
 */
int ruleset_apply(struct ruleset *ruleset, const struct policy *policy, const struct interfaces *interfaces,
		  const struct openings *openings, struct lease_table *leases, const struct ruleset_places *places,
		  struct mapping_table *mappings, uint64_t now, char *error, size_t error_size);

/** ruleset_inbound_counter() - Name of the counter of flows that came in to a network's published ports. Return: @out. */
const char *ruleset_inbound_counter(const char *network, char out[static RULESET_SET_NAME_MAX]);

/** ruleset_allowed_counter() - Name of the counter of flows that the policy let out of a network. Return: @out. */
const char *ruleset_allowed_counter(const char *network, char out[static RULESET_SET_NAME_MAX]);

/** ruleset_lease_element() - Element of a name set: the address, until @until and a little longer. Times are ms of one clock. */
struct nft_element ruleset_lease_element(const struct address *address, uint64_t until, uint64_t now);

/**
 * ruleset_put_leases() - Put elements into a name set; their time counts anew
 *
 * No address may be there twice, unless the kernel can renew an element in place.
 */
void ruleset_put_leases(const struct ruleset *ruleset, struct nft_batch *batch, const char *set, const struct nft_element *elements,
			size_t count);

/* Whose new flows are refused, since conntrack's table is for all (room.h). */
struct ruleset_crowd {
	const struct network *network;
	const struct address *sources; /* ... */
	size_t count;
	bool all; /* or everybody in the network */
};

#define RULESET_CROWDED_MS 15000 /* after this it has ended, unless it is said again */

/** ruleset_crowded() - Refuse new flows of these sources, for RULESET_CROWDED_MS. Return: 0 or -errno with @error. */
int ruleset_crowded(struct ruleset *ruleset, const struct ruleset_crowd *crowd, char *error, size_t error_size);

/**
 * ruleset_notify() - Let our own connections to these addresses out, through the uplink, on this TCP port; or close that again
 *
 * Connections that are there go on. The policy that was applied last must have `notify`. Return: 0 or -errno with @error.
 */
int ruleset_notify(struct ruleset *ruleset, const struct address *addresses, size_t count, uint16_t port, bool open, char *error,
		   size_t error_size);

#define RULESET_MAPS 2 /* of a network with virtual addresses, per family */

/**
 * ruleset_put_mapping() - An element of one of the network's maps: written, or moved to another real address; nothing when it is as written
 * @map:	below RULESET_MAPS. All lead to the same addresses. In the moment in which an element moves, a look-up may miss it
 *		(ruleset_sets.c); so one map is asked after the other, and they are changed in transactions of their own, the last one first
 */
void ruleset_put_mapping(struct nft_batch *batch, const struct network *network, unsigned int map, const struct mapping *mapping);
/** ruleset_close_lease() - Take an address out of a name set, whether it is in it or not. */
void ruleset_close_lease(struct nft_batch *batch, const char *set, const struct address *address);

/** ruleset_name_set() - Name of the set of (network, port specification, family): stable over reloads, the same text for the same ports. */
void ruleset_name_set(const struct network *network, unsigned int spec, int family, char out[static RULESET_SET_NAME_MAX]);

#endif
