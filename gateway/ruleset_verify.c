/* SPDX-License-Identifier: MIT */
/*
 * Networks with `verify`: flows that a name let out are looked at until it is known which name they themselves ask for.
 *
 *	pass_N		what a name let out, to the ports that are verified: unread_N. (What an address rule lets out: direct_N, which is as
 *			pass_N of other networks.)
 *	unread_N	marked: its name is still to be read.
 *	verify		the hook behind all others of forward. Packets of flows with such a mark; other flows meet this rule alone.
 *	reading		the client's: to a queue. What comes back begins `verify` anew (NF_REPEAT), now with a mark: the verdict.
 *	answering	the server's: TCP's SYN+ACK, and all once something was said.
 *	passing		a verdict: the packet passes, the flow stays as it is.
 *	said		a verdict. TCP: what was read is fine, and the server does not have it yet.
 *	verified	a verdict. TCP is done: the mark becomes that of any allowed flow. UDP is not:
 *	datagrams	over the same ports a client may begin another QUIC connection, and name another host in it.
 *	ended		a verdict: denied. Remembered and refused as what marked_N is about.
 *	counting	counted once, as pass_N does: it is certain now that the flow is let out.
 *
 * Nothing passes unread: not SYN, whose number says where the client's stream begins; no octets in SYN; no ICMP error, which carries some
 * that the sender chose. Other replies pass as those of any flow.
 *
 * TCP Fast Open sends octets with SYN, to servers that have given the client a cookie. The option is taken out of SYN, so that no server
 * gives one, and the client never has to wait until it tries without. Where the kernel cannot do that the SYN is dropped.
 */
#include <netinet/in.h> /* before the kernel's own headers */

#include <linux/netfilter.h>

#include "gateway/ruleset_internal.h"

#define PRIORITY_VERIFY 20 /* behind forward: what comes back from the other queue is verified, too */
#define STATE_RELATED   4  /* bit of ct state */

/*
 * Several datagrams may come as one packet (GSO), and only the first one's content is seen here. All but the last have the same size, and a
 * server takes no connection from a datagram below 1200 octets (RFC 9000 section 14.1): with two such ones or more it has this length.
 */
#define SEVERAL_DATAGRAMS (8 + 2 * 1200)

#define CHAIN_READING   "reading"
#define CHAIN_ANSWERING "answering"
#define CHAIN_SAID      "said"
#define CHAIN_PASSING   "passing"
#define CHAIN_COUNTING  "counting"
#define CHAIN_VERIFIED  "verified"
#define CHAIN_DATAGRAMS "datagrams"
#define CHAIN_ENDED     "ended"
#define PREFIX_UNREAD   "unread"

static const char *const chains[] = {CHAIN_READING, CHAIN_ANSWERING, CHAIN_PASSING,   CHAIN_COUNTING,
				     CHAIN_SAID,    CHAIN_VERIFIED,  CHAIN_DATAGRAMS, CHAIN_ENDED};

bool ruleset_verifies(const struct policy *policy)
{
	for (size_t i = 0; i < policy->network_count; i++)
		if (policy->networks[i].verify != VERIFY_OFF)
			return true;
	return false;
}

void ruleset_verify_create(struct nft_batch *batch)
{
	static const struct nft_hook hook = {RULESET_VERIFY, "filter", NF_INET_FORWARD, PRIORITY_VERIFY, false};

	nft_base_chain_add(batch, &hook);
}

void ruleset_verify_want(struct ruleset_plan *plan)
{
	for (size_t i = 0; i < sizeof(chains) / sizeof(chains[0]); i++)
		ruleset_want_chain(plan, chains[i]);
}

void ruleset_verify_want_network(struct ruleset_plan *plan, const struct network *network)
{
	char name[NFT_NAME_SIZE];

	ruleset_want_chain(plan, ruleset_name(RULESET_DIRECT, network, name));
	ruleset_want_chain(plan, ruleset_name(PREFIX_UNREAD, network, name));
}

/* The first rule is for later packets of a flow that has not been answered yet. */
void ruleset_verify_pass(const struct ruleset_writer *writer)
{
	char unread[NFT_NAME_SIZE];
	const struct ruleset_finding verified = {
		.prefix = RULESET_PASS, .kind = NFT_VERDICT_GOTO, .chain = ruleset_name(PREFIX_UNREAD, writer->network, unread)};

	ruleset_begin(writer, RULESET_PASS);
	nft_match_ct_mark_bits(writer->batch, RULESET_MARK_READ_BITS, RULESET_MARK_VERIFY);
	ruleset_end(writer, NFT_VERDICT_ACCEPT, NULL);
	ruleset_write_ports(writer, &verified, &writer->network->verify_ports, NULL, 0);

	ruleset_begin(writer, PREFIX_UNREAD);
	nft_set_ct_mark(writer->batch, RULESET_MARK_UNREAD);
	ruleset_end(writer, NFT_VERDICT_ACCEPT, NULL);
}

static void end(struct nft_batch *batch, enum nft_verdict_kind kind, const char *chain)
{
	nft_verdict(batch, kind, chain);
	nft_rule_end(batch);
}

static void write_verify(struct nft_batch *batch)
{
	nft_rule_begin(batch, RULESET_VERIFY);
	nft_match_ct_mark_bits(batch, RULESET_MARK_READ_BITS, RULESET_MARK_VERIFY);
	end(batch, NFT_VERDICT_GOTO, CHAIN_READING);
}

/* What comes back from a queue begins anew, with a verdict. */
static void follow_verdict(struct nft_batch *batch, const char *chain, uint32_t mark, const char *to)
{
	nft_rule_begin(batch, chain);
	nft_match_meta32(batch, NFT_META_MARK, mark, true);
	end(batch, NFT_VERDICT_GOTO, to);
}

static void follow_flow(struct nft_batch *batch, uint32_t mark, const char *to)
{
	nft_rule_begin(batch, CHAIN_READING);
	nft_match_ct_mark(batch, mark);
	end(batch, NFT_VERDICT_GOTO, to);
}

static void write_read(struct nft_batch *batch)
{
	nft_rule_begin(batch, CHAIN_READING);
	nft_match_ct_reply(batch, true);
	end(batch, NFT_VERDICT_GOTO, CHAIN_ANSWERING);
	follow_verdict(batch, CHAIN_READING, RULESET_MARK_VERIFIED, CHAIN_VERIFIED);
	follow_verdict(batch, CHAIN_READING, RULESET_MARK_SAID, CHAIN_SAID);
	follow_verdict(batch, CHAIN_READING, RULESET_MARK_DENY, CHAIN_ENDED);
	follow_verdict(batch, CHAIN_READING, RULESET_MARK_VERIFY, CHAIN_PASSING);
	follow_flow(batch, RULESET_MARK_DATAGRAMS, CHAIN_DATAGRAMS);
	follow_flow(batch, RULESET_MARK_ENDED, RULESET_REJECT);
}

/* Ends a rule. The packet says which flow it is of: not every kernel tells the program what conntrack has. */
static void to_queue(struct ruleset_plan *plan, uint16_t number)
{
	nft_copy_ct_id(&plan->batch);
	nft_queue(&plan->batch, number, plan->ruleset->features.native_queue);
	nft_rule_end(&plan->batch);
}

static void write_answering(struct ruleset_plan *plan)
{
	struct nft_batch *batch = &plan->batch;

	nft_rule_begin(batch, CHAIN_ANSWERING);
	nft_match_meta8(batch, NFT_META_L4PROTO, IPPROTO_TCP, false);
	end(batch, NFT_VERDICT_ACCEPT, NULL);
	follow_verdict(batch, CHAIN_ANSWERING, RULESET_MARK_VERIFIED, CHAIN_VERIFIED);
	follow_verdict(batch, CHAIN_ANSWERING, RULESET_MARK_VERIFY, CHAIN_PASSING);
	nft_rule_begin(batch, CHAIN_ANSWERING);
	nft_match_ct_mark(batch, RULESET_MARK_SAID);
	to_queue(plan, RULESET_QUEUE_BEGUN);
	nft_rule_begin(batch, CHAIN_ANSWERING);
	nft_match_ct_mark(batch, RULESET_MARK_VERIFY);
	nft_match_tcp_syn(batch);
	to_queue(plan, RULESET_QUEUE_BEGUN);
	nft_rule_begin(batch, CHAIN_ANSWERING);
	end(batch, NFT_VERDICT_ACCEPT, NULL);
}

static void write_fast_open(struct nft_batch *batch, bool strip)
{
	nft_rule_begin(batch, CHAIN_READING);
	nft_match_meta8(batch, NFT_META_L4PROTO, IPPROTO_TCP, true);
	nft_match_tcp_syn(batch);
	if (strip) {
		nft_strip_tcp_option(batch, RULESET_FAST_OPEN);
		nft_rule_end(batch);
		return;
	}
	nft_match_tcp_option(batch, RULESET_FAST_OPEN);
	end(batch, NFT_VERDICT_DROP, NULL);
}

static void write_reading(struct ruleset_plan *plan)
{
	struct nft_batch *batch = &plan->batch;

	write_read(batch);
	nft_rule_begin(batch, CHAIN_READING);
	nft_match_ct_state(batch, STATE_RELATED);
	end(batch, NFT_VERDICT_GOTO, RULESET_STRAY);
	write_fast_open(batch, plan->ruleset->features.strip);
	nft_rule_begin(batch, CHAIN_READING);
	nft_match_ct_mark(batch, RULESET_MARK_UNREAD);
	to_queue(plan, RULESET_QUEUE_VERIFY);
	nft_rule_begin(batch, CHAIN_READING);
	to_queue(plan, RULESET_QUEUE_BEGUN);
}

static void set_flow_mark(struct nft_batch *batch, const char *chain, uint8_t protocol, uint32_t mark)
{
	nft_rule_begin(batch, chain);
	nft_match_meta8(batch, NFT_META_L4PROTO, protocol, true);
	nft_set_ct_mark(batch, mark);
	nft_rule_end(batch);
}

/* Of the marks that a flow can have here two say that it is not let out yet. */
static void jump_to_counting(struct nft_batch *batch, const char *chain)
{
	static const uint32_t marks[] = {RULESET_MARK_UNREAD, RULESET_MARK_VERIFY};

	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
		nft_rule_begin(batch, chain);
		nft_match_ct_mark(batch, marks[i]);
		end(batch, NFT_VERDICT_JUMP, CHAIN_COUNTING);
	}
}

static void write_counting(struct ruleset_plan *plan)
{
	struct nft_batch *batch = &plan->batch;
	char counter[NFT_NAME_SIZE];

	for (size_t i = 0; i < plan->policy->network_count; i++) {
		const struct network *network = &plan->policy->networks[i];
		const struct interface *interface = interfaces_of_network(plan->interfaces, network->id);

		if (!interface)
			continue;
		nft_rule_begin(batch, CHAIN_COUNTING);
		nft_match_meta32(batch, NFT_META_IIF, interface->index, true);
		nft_count(batch, ruleset_name(RULESET_ALLOWED, network, counter));
		nft_rule_end(batch);
	}
}

/* A denied UDP flow stays to be read: the client may ask for something else over the same ports. */
static void write_followed(struct nft_batch *batch)
{
	nft_rule_begin(batch, CHAIN_PASSING);
	nft_match_ct_mark(batch, RULESET_MARK_UNREAD);
	nft_set_ct_mark(batch, RULESET_MARK_VERIFY);
	nft_rule_end(batch);
	nft_rule_begin(batch, CHAIN_PASSING);
	end(batch, NFT_VERDICT_ACCEPT, NULL);
	jump_to_counting(batch, CHAIN_SAID);
	set_flow_mark(batch, CHAIN_SAID, IPPROTO_TCP, RULESET_MARK_SAID);
	nft_rule_begin(batch, CHAIN_SAID);
	end(batch, NFT_VERDICT_ACCEPT, NULL);
	jump_to_counting(batch, CHAIN_VERIFIED);
	set_flow_mark(batch, CHAIN_VERIFIED, IPPROTO_TCP, RULESET_MARK_FLOW);
	set_flow_mark(batch, CHAIN_VERIFIED, IPPROTO_UDP, RULESET_MARK_DATAGRAMS);
	nft_rule_begin(batch, CHAIN_VERIFIED);
	end(batch, NFT_VERDICT_ACCEPT, NULL);
	set_flow_mark(batch, CHAIN_ENDED, IPPROTO_TCP, RULESET_MARK_ENDED);
	nft_rule_begin(batch, CHAIN_ENDED);
	end(batch, NFT_VERDICT_GOTO, "verdict_marked");
}

/* A queue of its own, which splits what comes as one packet: of a flow that is not confirmed yet the kernel could drop the parts. */
static void write_datagrams(struct ruleset_plan *plan)
{
	struct nft_batch *batch = &plan->batch;

	for (int i = 0; i < 2; i++) {
		nft_rule_begin(batch, CHAIN_DATAGRAMS);
		nft_match_meta8(batch, NFT_META_L4PROTO, IPPROTO_UDP, true);
		if (i == 0)
			nft_match_udp_long_header(batch);
		else
			nft_match_udp_length(batch, SEVERAL_DATAGRAMS);
		to_queue(plan, RULESET_QUEUE_AGAIN);
	}
	nft_rule_begin(batch, CHAIN_DATAGRAMS);
	end(batch, NFT_VERDICT_ACCEPT, NULL);
}

void ruleset_verify_rules(struct ruleset_plan *plan)
{
	write_verify(&plan->batch);
	write_reading(plan);
	write_answering(plan);
	write_counting(plan);
	write_followed(&plan->batch);
	write_datagrams(plan);
}

/* The worker sends an app's datagrams for it while the flow has had no reply, as the app: by the flow they go out as the app's own. */
void ruleset_verify_output(struct ruleset_plan *plan)
{
	struct nft_batch *batch = &plan->batch;

	nft_rule_begin(batch, "output");
	nft_match_meta32(batch, NFT_META_OIF, plan->interfaces->uplink, true);
	nft_match_meta32(batch, NFT_META_SKUID, plan->ruleset->uid, true);
	nft_match_ct_mark_bits(batch, RULESET_MARK_READ_BITS, RULESET_MARK_VERIFY);
	nft_match_ct_reply(batch, false);
	end(batch, NFT_VERDICT_ACCEPT, NULL);
}
