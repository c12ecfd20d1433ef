/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_RESOLVER_RESOLVER_H
#define SLUICE_RESOLVER_RESOLVER_H

/*
 * The DNS forwarder as a whole: listeners, queries, cache, upstreams. It knows neither nftables nor conntrack: what it
 * needs from the process around it comes in through struct resolver_host.
 *
 * Data flow: listener -> message -> judge_question -> cache or upstream -> judge_answer -> grant (one call for all answers that
 * are ready in a loop turn) -> reply.
 */

#include <uv.h>

#include "common/lease.h"
#include "common/mapping.h"
#include "common/policy.h"
#include "resolver/judge.h"

/* One address to be granted before an answer leaves. */
struct grant {
	uint16_t network;
	bool audited; /* remember the name, open nothing */
	struct address address;
	const struct domain *name; /* valid during the call */
	struct chain chain;        /* how the answer led from the name to the address; valid during the call */
	uint64_t specs;
	uint32_t seconds; /* life of the lease */
};

struct denied_question {
	uint16_t network;
	bool audited; /* it was let through by audit mode */
	struct address client;
	uint16_t client_port;
	uint8_t protocol;          /* IPPROTO_UDP or IPPROTO_TCP */
	const struct domain *name; /* NULL: the question could not be parsed; then the type means nothing either */
	uint16_t type;
	enum reason reason;
	const struct rule *rule; /* NULL: the default */
	const struct domain *by; /* the name of the CNAME chain that decided; NULL: the question's own */
	const char *action;      /* "nxdomain", "nodata", "servfail", "formerr", "notimp"; "allowed" when audited */
};

/* What an answer shows to a network that has virtual addresses. */
struct shown_answer {
	const struct domain *name;
	const struct shown_address *reals; /* at least one, all of a family */
	size_t count;
	uint32_t ttl; /* seconds */
	bool asked;   /* by an app */
	bool stale;   /* past its end: no upstream has a better one */
};

/* Virtual addresses of a name, in their order. */
struct virtual_addresses {
	struct address list[MAPPING_PER_NAME_MAX];
	size_t count;
	size_t shown; /* the first ones are to be shown */
};

struct resolver_host {
	void *context;
	uint16_t port;          /* to listen on; 0: 53 */
	uint16_t redirect_port; /* a second one, for questions that were addressed to other servers; 0: none */
	/* Write all grants into the kernel and wait for its acknowledgement. Return: 0, or -errno: none of the replies may leave. */
	int (*grant)(void *context, const struct grant *grants, size_t count);
	/* A message came in, whatever becomes of it. Called for each one, so it has to be quick. */
	void (*asked)(void *context, uint16_t network, const struct address *client);
	/*
	 * Map a name's virtual addresses to the real ones that an answer shows to a network which has such addresses.
	 * Return: 0, or -errno: the answer may not leave. -ENOSPC: the pool is full.
	 */
	int (*map)(void *context, const struct network *network, const struct shown_answer *answer, struct virtual_addresses *out);
	/* Log a denied question. */
	void (*denied)(void *context, const struct denied_question *denied);
	/* Families that apps of the network can use now. */
	struct families (*families)(void *context, const struct network *network);
	/* Log what is wrong with an upstream server, or (not @trouble) that it works again. May be NULL. */
	void (*upstream_says)(void *context, bool trouble, const char *text);
	/* Live names of an address, for PTR. Return: how many were written. */
	size_t (*names)(void *context, uint16_t network, const struct address *address, struct domain *out, size_t max);
};

struct resolver_counters {
	uint64_t questions;  /* messages that came in */
	uint64_t denied;     /* given to resolver_host.denied */
	uint64_t badvers;    /* EDNS version other than 0: answered with the version we speak, which is no denial */
	uint64_t cached;     /* answered from the cache, per look-up */
	uint64_t stale;      /* answered from the cache although past its end, because no upstream had an answer */
	uint64_t forwarded;  /* look-ups at an upstream */
	uint64_t joined;     /* questions that waited for a look-up which was under way, counted again after a change of policy */
	uint64_t failed;     /* SERVFAIL in all, for one of the next five reasons or another one (out of memory, a chain that never ends) */
	uint64_t overloaded; /* too many questions or look-ups in progress, in all or of one network */
	uint64_t unanswered; /* no server answered in time, or all said that they cannot */
	uint64_t ungranted;  /* resolver_host.grant failed */
	uint64_t unmapped;   /* no virtual address was to be had */
	uint64_t limited;    /* too many new names below a wildcard; they are among `denied`, too */
	struct address overloaded_by; /* whose question was the last one of these */
	uint64_t dropped; /* no reply: the question was too long, or the client was gone or too slow, or the kernel did not take it */
	uint64_t crowded; /* no reply: more came than could be served, and their source had sent more than others */
	struct address crowded_by; /* who had sent most, the last time */
	uint64_t invalid;          /* no reply: shorter than a header, or no question but a response */
	uint64_t ignored;          /* upstream datagrams that answered nothing we had asked: late, broken or forged */
};

struct resolver; /* resolver.c */

/** resolver_new() - @policy stays the caller's and must outlive the resolver or be replaced first; @host is copied. NULL: no memory. */
struct resolver *resolver_new(uv_loop_t *loop, const struct policy *policy, const struct resolver_host *host);

/**
 * resolver_serve() - A turn of the loop for questions over UDP, in the middle of something that takes long
 *
 * Not from within a callback of the resolver, and not while what grants mean is being changed.
 */
void resolver_serve(struct resolver *resolver);

/** resolver_flush() - Grant for and send what is ready now: before anything changes what its grants mean. */
void resolver_flush(struct resolver *resolver);

/**
 * resolver_set_policy() - Judge by another policy from now on, after resolver_flush(); the old one must still be there
 *
 * Listeners of networks that are gone are closed; the cache is kept unless upstreams differ. Questions that wait for an upstream are judged
 * again, as if they had just come in: those that are denied now are answered in this turn of the loop, and look-ups that nobody waits for
 * any more are cancelled, so that no further packet carries their names. Return: 0 or -ENOMEM: the old policy stays.
 */
int resolver_set_policy(struct resolver *resolver, const struct policy *policy);

/**
 * resolver_listen() - Open UDP and TCP, on both ports, on exactly this address for a network; nothing happens when it is open
 * Return: 0 or -errno of bind().
 */
int resolver_listen(struct resolver *resolver, uint16_t network, const struct address *address);

/** resolver_unlisten() - Close the listeners of an address. */
void resolver_unlisten(struct resolver *resolver, const struct address *address);

/* A check has ended. */
typedef void (*resolver_checked)(void *context);

/**
 * resolver_check() - Ask for a name as if an app of the network had: what the answer shows is granted, nothing is logged
 * @type:	TYPE_A or TYPE_AAAA (message.h)
 * @done:	called once, and not before this has returned: the grants are written, or there is nothing to grant. May be NULL
 * Return: 0, -ENOENT: there is no such network, or -EBUSY: too many questions are in progress; then @done is not called.
 */
int resolver_check(struct resolver *resolver, uint16_t network, const struct domain *name, uint16_t type, resolver_checked done,
		   void *context);

#define RESOLVER_FOUND_MAX 8 /* addresses that a look-up hands on */

/* A look-up has ended; @count: 0 when there is no address, or no answer. */
typedef void (*resolver_found)(void *context, const struct address *list, size_t count);

/**
 * resolver_lookup() - Look a name up for the gateway's own use: no network, no policy, nothing granted, nothing logged
 * @type:	TYPE_A or TYPE_AAAA (message.h)
 * @found:	called once, within QUERY_DEADLINE_MS (query.h) and not before this has returned, unless cancelled
 *
 * Only the policy may choose such a name: an app could have us tell an upstream something. Return: 0, -EBUSY, -ENOENT: there is no server,
 * or another -errno; then @found is not called.
 */
int resolver_lookup(struct resolver *resolver, const struct domain *name, uint16_t type, resolver_found found, void *context);

/** resolver_lookup_cancel() - Forget look-ups with this context: @found is not called for them. */
void resolver_lookup_cancel(struct resolver *resolver, const void *context);

/**
 * resolver_refresh() - Ask for a name so that its virtual addresses lead to current real ones: as resolver_check(), but leases last no
 * longer by what the answer shows
 */
int resolver_refresh(struct resolver *resolver, uint16_t network, const struct domain *name, uint16_t type);

const struct resolver_counters *resolver_counters(const struct resolver *resolver);

/** resolver_close() - Stop and release everything; memory goes when the loop has run the close callbacks. */
void resolver_close(struct resolver *resolver);

#endif
