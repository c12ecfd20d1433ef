/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_COMMON_REASON_H
#define SLUICE_COMMON_REASON_H

/*
 * Why a flow or a question was denied: a closed list, documented in docs/log-format.md, a public interface.
 * Append only.
 */
enum reason {
	REASON_NONE,                 /* not denied */
	REASON_NAME_NOT_ALLOWED,     /* no rule of the network allows this name */
	REASON_DENIED_BY_RULE,       /* a deny rule matched */
	REASON_PORT_NOT_ALLOWED,     /* the name or address is allowed, this port or protocol of it is not */
	REASON_ADDRESS_NOT_ALLOWED,  /* no rule allows the address and no name is known for it */
	REASON_LEASE_EXPIRED,        /* the address was a lease of a name that is still allowed, but the lease has ended */
	REASON_PROTOCOL_NOT_ALLOWED, /* neither TCP nor UDP */
	REASON_SPECIAL_ADDRESS,      /* special-purpose space that no rule names */
	REASON_ISOLATED,             /* another network, or the gateway itself */
	REASON_MALFORMED,            /* the packet or question could not be parsed */
	REASON_REBINDING,            /* the answer pointed an allowed name into special-purpose space */
	REASON_LOCAL_NAME,           /* a single-label name or a suffix that never leaves the gateway */
	REASON_UNSUPPORTED,          /* a question type, class or opcode that the forwarder does not serve */
	REASON_REPEATED,             /* refused in the kernel: above the log rate, or a repeat of a denied flow; see count= */
	REASON_SPOOFED_SOURCE,       /* the source address does not belong to the network; see count= */
	REASON_MULTICAST,            /* multicast or broadcast, which is dropped without an answer; see count= */
	REASON_QUEUE_FULL,           /* dropped by the kernel because the queue was full; see count= */
	REASON_INVALID,              /* the packet belongs to no flow and cannot begin one; dropped without an answer; see count= */
	REASON_SNI_MISMATCH,         /* `verify`: inside the flow another name is asked for, which the network may not reach there */
	REASON_NO_NAME,              /* `verify`: the flow names no host, and `without_name` does not let it pass */
	REASON_NAME_TOO_LONG,        /* `wildcard_octets`, `wildcard_labels`: a wildcard would stand for more than that */
	REASON_TOO_MANY_NAMES,       /* `wildcard_names`: more new names below a wildcard than may leave in a minute */
	REASON_TOO_MANY_FLOWS,       /* the network has its share of conntrack's table, and the source more than the others; see count= */
	REASON_COUNT,
};

/** reason_name() - The stable text of a reason, "name-not-allowed". */
const char *reason_name(enum reason reason);

#endif
