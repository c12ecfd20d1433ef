/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_GATEWAY_H
#define SLUICE_GATEWAY_GATEWAY_H

/*
 * The worker: struct gateway owns the loop, the policy and every module. gateway.c opens, runs and closes it; apply.c makes a policy the
 * running one; traffic.c is what the resolver and the packet queue call.
 */

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "common/lease.h"
#include "common/log.h"
#include "common/policy.h"
#include "gateway/chances.h"
#include "gateway/config.h"
#include "gateway/control.h"
#include "gateway/counters.h"
#include "gateway/denials.h"
#include "gateway/grants.h"
#include "gateway/inbound.h"
#include "gateway/interfaces.h"
#include "gateway/journal.h"
#include "gateway/nfqueue.h"
#include "gateway/repair.h"
#include "gateway/report/allowed.h"
#include "gateway/report/http.h"
#include "gateway/report/named.h"
#include "gateway/report/notify.h"
#include "gateway/report/reports.h"
#include "gateway/room.h"
#include "gateway/ruleset.h"
#include "gateway/state.h"
#include "gateway/supervisor.h"
#include "gateway/targets.h"
#include "gateway/upkeep.h"
#include "gateway/verify/verify.h"
#include "gateway/virtual.h"
#include "gateway/watch.h"
#include "resolver/resolver.h"

#define GATEWAY_TICK_MS           250     /* log flush, lease sweep, end of audit_until */
#define GATEWAY_COUNTERS_MS       5000    /* kernel counters are read */
#define GATEWAY_FAILURES_MS       10000   /* questions that failed are told as a sum at most so often */
#define GATEWAY_RESCAN_MS         100     /* quiet time after an interface change */
#define GATEWAY_AUDIT_REMINDER_MS 3600000 /* "DNS exfiltration is open" */
#define GATEWAY_RETRY_MS          1000
#define GATEWAY_JOURNAL_SAY_MS    60000 /* a journal that cannot be written is told at most so often */
#define GATEWAY_ERROR_MAX         512   /* bytes of an error line */

struct gateway {
	const char *path; /* policy file or directory as given; NULL: SLUICE_CONFIG or the default */
	struct supervisor_worker_start start;
	uv_loop_t loop;
	struct log *log;       /* owned */
	struct policy *policy; /* owned: the running one; NULL before the first apply */
	struct interfaces interfaces;
	struct ruleset ruleset;
	struct lease_table *leases; /* owned */
	struct journal journal;
	uint64_t journal_said_at; /* ms: when it was last told that it cannot be written */
	struct state state;
	bool restored; /* the journal's leases are in the table */
	struct grants grants;
	struct resolver *resolver; /* owned */
	struct reports *reports;   /* owned */
	struct named *named;       /* owned */
	struct denials *denials;   /* owned */
	struct counters *counters; /* owned */
	struct nfqueue *queue;     /* owned */
	struct verify *verify;     /* owned */
	struct targets *targets;   /* owned */
	struct inbound *inbound;   /* owned */
	struct allowed *allowed;   /* owned */
	struct notify *notify;     /* owned */
	struct openings openings;  /* owned: of the running policy, as the kernel has them */
	struct control *control;   /* owned */
	struct watch *watch;       /* owned: the policy's */
	struct watch *resolv;      /* owned: resolv.conf's */
	struct chances *chances;   /* owned */
	struct http *http;         /* owned */
	struct upkeep upkeep;
	struct room room;
	struct virtuals virtuals;
	struct repair repair;
	uv_poll_t monitor; /* interfaces.monitor */
	uv_timer_t tick, read_counters, rescan, audit_reminder;
	uv_signal_t on_terminate, on_interrupt, on_hangup;
	uint64_t said_not_accepted;    /* attempts (acceptor.h) that the log has been told of */
	struct resolver_counters said; /* what the log has been told of them ... */
	uint64_t said_at;              /* ... and when, ms */
	uint64_t queue_dropped;        /* packets, at the last reading */
	bool apply_due;                /* the kernel could not be given the running policy: tried again every GATEWAY_RETRY_MS */
	uint64_t applied_at;           /* ms: the last try */
	time_t started_at;             /* wall clock */
	time_t policy_loaded_at;       /* wall clock: when the running policy became that */
	uint64_t reload_failures;
	bool reload_failed; /* the last one */
	bool running;       /* the handles above are open */
	bool stopping;
};

/** gateway_run() - A worker from start to stop. Return: exit status (supervisor.h). */
int gateway_run(const char *path, const struct supervisor_worker_start *start);

/** gateway_now() - The clock of leases and timers: uv_now() of the worker's loop, ms. */
uint64_t gateway_now(const struct gateway *gateway);

/** gateway_apply_again() - Make the running policy fit what is there now; a failure is said, and tried again every GATEWAY_RETRY_MS. */
void gateway_apply_again(struct gateway *gateway);

/** gateway_trouble() - Why the gateway does not do its work, or NULL. */
const char *gateway_trouble(const struct gateway *gateway);

/**
 * apply_text() - Read the policy and make it the running one
 * @messages:	everything there is to say about the text
 * Return: 0, or -errno with @error: the running policy stays.
 */
int apply_text(struct gateway *gateway, struct config_messages *messages, char *error, size_t error_size);

/** apply_last_good() - Make the policy from the supervisor's memory the running one; what it names is read again. As apply_text(). */
int apply_last_good(struct gateway *gateway, struct config_messages *messages, char *error, size_t error_size);

/** apply_again() - Make the running policy fit the interfaces and the time of now. Return: 0 or -errno with @error. */
int apply_again(struct gateway *gateway, char *error, size_t error_size);

/** apply_if_changed() - The same, but only when interfaces or routes differ from what was applied last. */
int apply_if_changed(struct gateway *gateway, char *error, size_t error_size);

/** traffic_host() - What the resolver needs from us. */
struct resolver_host traffic_host(struct gateway *gateway);

/** traffic_decide() - An nfqueue_decide: why a queued packet is denied, its log line, its verdict. */
uint32_t traffic_decide(void *context, const struct queued_packet *packet);

/** traffic_settle() - The same for a packet that was held (chances.h), for good. */
void traffic_settle(struct gateway *gateway, const struct queued_packet *packet, const struct flow *flow);

/** traffic_keep() - Write leases to the journal; what goes wrong is said. */
void traffic_keep(struct gateway *gateway, const struct lease *leases, size_t count);

/** traffic_keep_mappings() - The same for mappings. */
void traffic_keep_mappings(struct gateway *gateway, const struct mapping *mappings, size_t count);

/** traffic_compact() - Keep the journal small. */
void traffic_compact(struct gateway *gateway);

/** traffic_count() - Read what the kernel refused on its own and pass it on to the log. */
void traffic_count(struct gateway *gateway);

#endif
