/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_COMMON_POLICY_H
#define SLUICE_COMMON_POLICY_H

/*
 * The policy as data, and the pure functions that judge names and addresses by it. No socket, clock, log or kernel call: the
 * resolver, the packet classifier, `sluice check` and `sluice explain` all ask here.
 *
 * A policy is built once (gateway/config.c reads the text), finished with policy_finish(), and never changed
 * afterwards, apart from policy_set_own(). A reload builds another one.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "common/address.h"
#include "common/chain.h"
#include "common/domain.h"
#include "common/lifetime.h"
#include "common/ports.h"
#include "common/prefix_table.h"
#include "common/reason.h"

#define POLICY_NAME_MAX         32  /* characters in the name of a network, rules or upstream section */
#define POLICY_NETWORKS_MAX     512 /* networks behind one gateway */
#define POLICY_SPECS_MAX        64  /* distinct port specifications of one network's name rules: bits of a uint64_t */
#define POLICY_SERVERS_MAX      8   /* servers of one upstream section */
#define POLICY_SERVER_MAX       320 /* octets of a server as text: address, port, a host name of 253 characters */
#define POLICY_PUBLISH_MAX      256 /* `publish` entries of all networks together */
#define POLICY_HTTP_MAX         8   /* addresses of `http` */
#define POLICY_HTTP_PORT        9780
#define POLICY_PUBLISH_TEXT_MAX 16 /* "65534-65535/tcp" and its NUL */
#define POLICY_NETWORK_NONE     UINT16_MAX

enum rule_action { RULE_ALLOW, RULE_DENY };
enum rule_kind { RULE_NAME, RULE_ADDRESS };
enum network_mode { MODE_ENFORCE, MODE_AUDIT };
/* What becomes of an allowed flow in which a name is asked for that is not allowed: nobody looks, it is told, it is ended. */
enum network_verify { VERIFY_OFF, VERIFY_LOG, VERIFY_ENFORCE };
enum log_format { LOG_TEXT, LOG_JSON };
/* What the log on standard output tells of flows that were allowed: nothing, sums, or each one. */
enum log_allowed { LOG_ALLOWED_OFF, LOG_ALLOWED_SUMMARY, LOG_ALLOWED_ALL };
enum notify_format { NOTIFY_JSON, NOTIFY_NTFY };

/* Where something was written. */
struct source {
	const char *file; /* owned by the policy; "SLUICE_CONFIG" for the environment variable */
	unsigned int line;
};

struct rule {
	enum rule_action action;
	enum rule_kind kind;
	struct pattern pattern; /* RULE_NAME */
	struct prefix prefix;   /* RULE_ADDRESS */
	struct ports ports;     /* effective: what the rule says, else the network's `ports =` (name rules), else all */
	bool ports_given;       /* the rule itself named ports */
	struct source source;
	const char *text;    /* owned by the policy: the rule as written */
	const char *section; /* owned by the policy: "rules github" when it came through `use`, else NULL */
};

/* One entry of `publish`: ports of the uplink's own addresses that lead to a container of the network. */
struct publish {
	struct port_range ports;
	bool tcp, udp;
	uint16_t target_port;  /* in the container, of ports.first; a range keeps its ports */
	const char *name;      /* owned by the policy: what Docker's resolver is asked for, as written; NULL: the address is given */
	struct domain domain;  /* the name */
	struct address target; /* the address; family 0: there is a name */
	struct source source;
};

struct upstream_server {
	struct address address;
	uint16_t port;
	const char *tls_name; /* owned by the policy: DNS over TLS, with a certificate for this host name; NULL: plain DNS */
};

/* One address of `http`: where the page and the metrics are served. */
struct http_address {
	struct address address; /* all zero: every address of the uplink, and loopback */
	uint16_t port;
	struct source source; /* line 0: the default */
};

/* One [upstream NAME] section; the one without a name is the default and always the last of the array. */
struct upstream_group {
	char name[POLICY_NAME_MAX + 1]; /* "" for the default */
	struct pattern *matches;        /* owned; none for the default */
	size_t match_count;
	struct upstream_server servers[POLICY_SERVERS_MAX];
	size_t server_count;     /* all with TLS, or none */
	bool automatic;          /* `server = auto`: servers come from resolv.conf, filled by gateway/config.c */
	const char *ca_file;     /* owned by the policy: `ca`, as written; NULL: the system's certificate authorities */
	const char *ca;          /* owned by the policy: what was in it, PEM */
	struct prefix *privates; /* owned: ranges that names of this group may point into */
	size_t private_count;
	struct source source;
};

/* Who is told of denials, and how. The texts are owned by the policy. */
struct notify_target {
	const char *url;  /* NULL: nobody. May hold a secret in path and query: never shown, never logged */
	const char *host; /* of the URL: a name with A-labels, or an address without brackets */
	uint16_t port;
	bool tls;
	enum notify_format format;
	const char *token_file, *token; /* NULL: none. The token is a secret as well */
	const char *ca_file, *ca;       /* as in struct upstream_group */
};

/* How much the wildcards of a network's rules stand for; 0: no limit. Names that a rule has exactly are free. */
struct wildcard_limits {
	uint32_t octets; /* of the labels that a wildcard stands for, together */
	uint32_t labels; /* that it stands for */
	uint32_t names;  /* new ones below one wildcard that may leave the gateway in a minute */
};
#define WILDCARD_OCTETS_MAX 253
#define WILDCARD_LABELS_MAX 127
#define WILDCARD_NAMES_MAX  1000000

struct name_index;    /* policy_name.c: from a domain to the rules written for it */
struct address_index; /* policy_address.c: from a prefix to the rules written for it */
struct policy_text;   /* policy.c */
struct policy_rules;  /* policy.c */

struct network {
	uint16_t id; /* stable over reloads for a network of the same name; index into nothing */
	char name[POLICY_NAME_MAX + 1];
	struct prefix subnet4, subnet6; /* family 0 when the network lacks it */
	struct address gateway4, gateway6;
	bool has_virtual_addresses; /* `addresses = virtual`: names are answered with addresses of the pool (mapping.h) */
	struct prefix pool4, pool6; /* inside the subnets; family 0 without virtual addresses or without that family */
	uint32_t per_name;          /* virtual addresses that a name may have, of each family */
	enum network_mode mode;
	time_t audit_until; /* 0: no end */
	struct ports default_ports;
	bool default_ports_given;
	enum network_verify verify;
	struct ports verify_ports; /* which flows to names are verified */
	bool without_name_allowed; /* verified flows that name nothing may pass */
	struct lifetimes lifetimes;
	struct wildcard_limits wildcards;
	uint32_t max_flows; /* in conntrack's table; 0: a share of it (room.h) */
	enum log_allowed log_allowed;
	bool keep_established; /* flows that a reload no longer allows go on */
	struct rule **rules;   /* owned array of the policy's rules; own ones and those of `use`, which others may have as well; in order */
	size_t rule_count;
	struct prefix *privates; /* owned */
	size_t private_count;
	struct publish *publishes; /* owned */
	size_t publish_count;
	struct source source;
	/* Made by policy_finish(): */
	struct ports specs[POLICY_SPECS_MAX]; /* distinct port specifications that names can end up with */
	size_t spec_count;
	struct name_index *index;        /* owned */
	struct address_index *addresses; /* owned */
};

struct policy {
	char uplink[64]; /* "auto", an interface name, or a subnet */
	enum log_format log;
	bool flowtable; /* established flows may go past the chains, where the kernel can do that */
	struct http_address http[POLICY_HTTP_MAX];
	size_t http_count; /* 0: off */
	struct notify_target notify;
	struct network *networks; /* owned; in the order they were read */
	size_t network_count;
	struct upstream_group *upstreams; /* owned; the default is last */
	size_t upstream_count;
	/* Set by policy_set_own(): the gateway's own addresses and the uplink's subnets. No answer and no wide address
	 * rule may point there unless it is named. */
	struct prefix *own; /* owned; sorted, each once */
	size_t own_count;
	struct prefix_table own_table; /* of `own` */
	struct policy_text *texts;     /* owned: file names and rule texts, see policy_string() */
	struct policy_rules *rules;    /* owned: see policy_rule() */
	uint32_t next_id;              /* network ids below this one were given out at some time since the process started */
	/* Made by policy_finish(): */
	struct prefix_table subnets; /* of the network in place `index` / 2 */
	uint16_t *by_id;             /* owned: places of the networks, ordered by their ids */
};

/* What policy_judge_name() says. */
struct name_verdict {
	bool allowed;            /* the question may be asked */
	bool audited;            /* allowed only because the network is in audit mode: nothing may be granted */
	bool parent;             /* not allowed, but a parent of an allowed name: NODATA rather than NXDOMAIN */
	enum reason reason;      /* REASON_NONE when allowed; what enforce would say when audited */
	const struct rule *rule; /* the rule that decided; NULL: the default */
	uint64_t specs;          /* bit i: a flow to this name may use network->specs[i] */
};

/* What policy_judge_address() says about one flow's destination. */
struct address_verdict {
	bool allowed;
	enum reason reason;
	const struct rule *rule;
};

/* One kernel set of address rules: all ranges of one family that one action opens or closes for one port specification. */
struct address_set {
	enum rule_action action;
	int family;
	struct ports ports;
	struct address_range *ranges; /* owned; normalised */
	size_t range_count;
};

/**
 * policy_new() - An empty policy with the defaults
 *
 * It has one upstream group already: the default, automatic, without servers.
 *
 * Return: NULL when out of memory. Owned by the caller.
 */
struct policy *policy_new(void);

/** policy_free() - Release the policy and everything it owns; NULL is fine. */
void policy_free(struct policy *policy);

/**
 * policy_string() - Keep a copy of a text for the life of the policy
 * Return: the copy, owned by the policy, or NULL when out of memory. Equal texts are stored once.
 */
const char *policy_string(struct policy *policy, const char *text);

/**
 * policy_rule() - Keep a copy of a rule for the life of the policy; any number of networks may have it
 * Return: the copy, owned by the policy, or NULL when out of memory.
 */
struct rule *policy_rule(struct policy *policy, const struct rule *rule);

/**
 * policy_finish() - Compute what the judging functions need: port specifications and indexes
 * @error:	receives a text when the policy cannot be used (more than POLICY_SPECS_MAX specifications)
 * @where:	the network's or rule's source, for the message
 * Return: 0, -E2BIG or -ENOMEM.
 *
 * The indexes point into network->rules, which may not change or move afterwards. Moves the default upstream group to the end
 * and gives the networks ids when they have none of their own.
 *
 * Deny rules with ports are taken out of the allow rules' ports here, so that every set of ports which a name may end up
 * with is one of network->specs.
 */
int policy_finish(struct policy *policy, char *error, size_t error_size, struct source *where);

/** policy_finish_slowly() - The same; something else has its turn between two networks. */
int policy_finish_slowly(struct policy *policy, char *error, size_t error_size, struct source *where, void (*pause)(void *context),
			 void *context);

/**
 * policy_inherit_ids() - Give networks the ids that networks of the same name had in @old (may be NULL)
 *
 * New networks get ids that no network had before, so that no lease of a network that is gone counts for another one.
 */
void policy_inherit_ids(struct policy *policy, const struct policy *old);

/**
 * policy_set_own() - Replace the list of own prefixes with a copy, sorted and without what is there twice, and with what embeds public IPv4
 * ones (NAT64's well-known prefix, 6to4)
 * Return: 0 or -ENOMEM.
 */
int policy_set_own(struct policy *policy, const struct prefix *own, size_t count);

/** policy_own() - The narrowest own prefix that an address is in, or NULL. */
const struct prefix *policy_own(const struct policy *policy, const struct address *address);

/** policy_network() / policy_network_by_name() - Return: the network, or NULL. */
const struct network *policy_network(const struct policy *policy, uint16_t id);
const struct network *policy_network_by_name(const struct policy *policy, const char *name);
/** policy_network_by_source() - The network whose subnets an address is in, or NULL. */
const struct network *policy_network_by_source(const struct policy *policy, const struct address *source);

/** policy_upstream_for() - The upstream group with the longest match for a name, else the default. Never NULL. */
const struct upstream_group *policy_upstream_for(const struct policy *policy, const struct domain *name);

/** policy_server_equal() - The same address and port, and the same way of asking. */
bool policy_server_equal(const struct upstream_server *a, const struct upstream_server *b);

/** policy_server_format() - "192.0.2.53:53", "tls://[2001:db8::9]:853#dns.example". Return: @out. */
const char *policy_server_format(const struct upstream_server *server, char out[static POLICY_SERVER_MAX]);

/** policy_http_format() - "127.0.0.1:9780", "[::1]:9780". Return: @out. */
const char *policy_http_format(const struct http_address *http, char out[static POLICY_SERVER_MAX]);

/** policy_http_is_wide() - Does it stand for every address of its family? */
bool policy_http_is_wide(const struct http_address *http);

/** policy_http_is_local() - A loopback address: nobody outside of the gateway's own network namespace reaches it. */
bool policy_http_is_local(const struct http_address *http);

/**
 * policy_judge_name() - May this network ask for this name, and on which ports may it reach it?
 * @now:	wall clock, for audit_until
 *
 * Deny rules without ports win over every allow rule. Local names (see policy_name_is_local()) are denied also in audit mode.
 */
struct name_verdict policy_judge_name(const struct network *network, const struct domain *name, time_t now);

/**
 * policy_judge_chain() - May this network reach what an answer for @name showed, when it led there through @chain?
 * @by:	receives the name that decided: @name, or the one of the chain that a deny rule matches; may be NULL
 *
 * As policy_judge_name(), but deny rules reach every name of the chain. That one of the others is merely not allowed does not matter.
 */
struct name_verdict policy_judge_chain(const struct network *network, const struct domain *name, const struct chain *chain, time_t now,
				       struct domain *by);

/** policy_specs_on() - Which of the network's port specifications have this port? Return: bits of network->specs. */
uint64_t policy_specs_on(const struct network *network, uint8_t protocol, uint16_t port);

/**
 * policy_wildcard_stands_for() - What the wildcard of a rule stands for in a name that the rule matches
 * @octets:	of the labels, together, without the dots
 * Return: how many labels; 0: the rule has the name itself.
 */
unsigned int policy_wildcard_stands_for(const struct rule *rule, const struct domain *name, unsigned int *octets);

/** policy_wildcard_is_exceeded() - Does the rule's wildcard stand for more than the network's limits have it? */
bool policy_wildcard_is_exceeded(const struct network *network, const struct rule *rule, const struct domain *name);

/**
 * policy_name_is_local() - Single-label names, localhost, local, invalid, onion, docker.internal, resolver.arpa: never forwarded
 *
 * Under resolver.arpa clients look for an encrypted resolver beside the one they ask (RFC 9462); the upstream's would lead them past us.
 */
bool policy_name_is_local(const struct domain *name);

/** policy_in_pool() - Is it one of the network's virtual addresses, whether it stands for a name or not? */
bool policy_in_pool(const struct network *network, const struct address *address);

/** policy_is_auditing() - Is the network in audit mode at this time? */
bool policy_is_auditing(const struct network *network, time_t now);

/** policy_verify_name() - "off", "log", "enforce", as in the policy's text. */
const char *policy_verify_name(enum network_verify verify);

/** policy_judge_address() - Do the network's address rules allow this destination? Says nothing about leases. */
struct address_verdict policy_judge_address(const struct policy *policy, const struct network *network, const struct address *address,
					    uint8_t protocol, uint16_t port);

/**
 * policy_answer_may_show() - May an answer for @name show this address to this network? (the rebinding filter)
 *
 * False for special-purpose space and for the gateway's own prefixes, unless `private =` of the network or of the
 * name's upstream group covers the address.
 */
bool policy_answer_may_show(const struct policy *policy, const struct network *network, const struct domain *name,
			    const struct address *address);

/**
 * policy_address_sets() - The network's address rules, normalised for the kernel: deny sets first
 * @out:	receives an array; free with policy_address_sets_free()
 *
 * Special-purpose space and own prefixes are cut out of every allow rule whose prefix is wider than them. The ports
 * of one range may appear in several sets; the kernel takes a deny set before any allow set.
 *
 * Return: 0 or -ENOMEM.
 */
int policy_address_sets(const struct policy *policy, const struct network *network, struct address_set **out, size_t *count);
void policy_address_sets_free(struct address_set *sets, size_t count);

/** policy_publish_format() - The ports and protocols of an entry: "443", "8000-8010/tcp". Return: @out. */
const char *policy_publish_format(const struct publish *publish, char out[static POLICY_PUBLISH_TEXT_MAX]);

#endif
