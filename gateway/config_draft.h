/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_CONFIG_DRAFT_H
#define SLUICE_GATEWAY_CONFIG_DRAFT_H

/*
 * A policy while it is read: sections as they stand in the text, before `use` is followed and sections are compared with one
 * another. Only for gateway/config*.c.
 */

#include "common/policy.h"
#include "gateway/config.h"
#include "gateway/config_messages.h"

#define CONFIG_SECTIONS_MAX 2048      /* sections of all kinds */
#define CONFIG_RULES_MAX    1000000UL /* rules of all networks together, those of `use` counted for each */
#define CONFIG_KEYS_MAX     48        /* rows of the key table in config.c */

/* Defaults of a network; docs/leases.md argues them. */
#define CONFIG_MIN_TTL             60U           /* s */
#define CONFIG_GRACE               (24U * 3600U) /* s: with max_age this keeps every address that was shown reachable for max_age */
#define CONFIG_MAX_AGE             (24U * 3600U) /* s */
#define CONFIG_MAX_ADDRESSES       64U
#define CONFIG_PER_NAME            2U /* an app can try another address; more would use up the pool */
#define CONFIG_MAX_FLOWS_LEAST     16U
#define CONFIG_MAX_FLOWS_LIMIT     16777216U
#define CONFIG_MAX_ADDRESSES_LIMIT 4096U /* more A records do not fit into a DNS message */

enum section_kind { SECTION_GATEWAY, SECTION_UPSTREAM, SECTION_RULES, SECTION_NETWORK, SECTION_KIND_COUNT };

/* Things of which a message wants to name the line, or to know that they were given, be it wrongly. */
enum place {
	PLACE_SUBNET4,
	PLACE_SUBNET6,
	PLACE_GATEWAY4,
	PLACE_GATEWAY6,
	PLACE_ADDRESSES,
	PLACE_POOL4,
	PLACE_POOL6,
	PLACE_POOL,
	PLACE_PER_NAME,
	PLACE_AUDIT_UNTIL,
	PLACE_VERIFY_PORTS,
	PLACE_WITHOUT_NAME,
	PLACE_WILDCARD_OCTETS,
	PLACE_WILDCARD_LABELS,
	PLACE_WILDCARD_NAMES,
	PLACE_SUBNET,
	PLACE_MATCH,
	PLACE_AUTO,
	PLACE_SERVER,
	PLACE_CA,
	PLACE_HTTP,
	PLACE_HTTP_OFF,
	PLACE_NOTIFY,
	PLACE_NOTIFY_FORMAT,
	PLACE_NOTIFY_TOKEN,
	PLACE_NOTIFY_CA,
	PLACE_COUNT
};

struct use {
	const char *name; /* owned by the policy */
	struct source source;
};

/* The rules of a list as networks have them whose `ports` are these. */
struct variant {
	struct variant *next; /* owned */
	struct ports ports;
	struct rule **rules; /* owned array */
};

/* A `publish` entry of which not all words have been read. */
struct publish_words {
	const char *ports; /* owned by the policy; NULL: none */
	bool arrow;
	bool broken; /* what is left of the line is passed over */
	struct source source;
};

struct section {
	enum section_kind kind;
	const char *name; /* owned by the policy; "" when it has none */
	struct source source;
	unsigned int lines[CONFIG_KEYS_MAX]; /* where each key was first given; 0: nowhere */
	size_t items[CONFIG_KEYS_MAX];       /* how many values it had */
	struct source places[PLACE_COUNT];
	bool used;                /* SECTION_RULES: by some network */
	const char *rules_title;  /* owned by the policy: "rules github"; NULL: another kind of section */
	struct variant *variants; /* owned; SECTION_RULES: its rules, with other ports */
	bool addresses_unknown;   /* `addresses` was given, but with no value that there is */
	bool pool_unknown;        /* likewise `pool`: there is no default for a family then */
	bool verify_unknown;      /* likewise `verify` */
	struct use *uses;         /* owned */
	size_t use_count;
	struct source *match_sources; /* owned; parallel to group.matches */
	struct publish_words words;
	struct network network;      /* SECTION_NETWORK; of SECTION_RULES only the rules */
	struct upstream_group group; /* SECTION_UPSTREAM */
};

struct draft {
	const struct config_text *text;
	struct config_messages *messages;
	struct policy *policy;     /* owned; receives the sections at the end */
	const char **files;        /* owned array; the parts' names as the policy keeps them */
	struct section **sections; /* owned */
	size_t section_count;
	size_t rule_count;
	size_t publish_count;
	bool no_memory;
	/* While reading: */
	struct section *section; /* NULL: above the first one, or in a bad one */
	struct source here;
};

/** draft_new() / draft_free() - Return: NULL when out of memory. */
struct draft *config_draft_new(const struct config_text *text, struct config_messages *messages);
void config_draft_free(struct draft *draft);

/** config_draft_pause() - Something else may have its turn. */
void config_draft_pause(const struct draft *draft);

/** config_draft_say() - Add a finding about a place in the text. */
void config_draft_say(struct draft *draft, enum message_severity severity, struct source where, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/**
 * config_draft_grow() - Room for one more element of an array that doubles
 * Return: the array, or NULL (draft->no_memory is set and @array is still valid).
 */
void *config_draft_grow(struct draft *draft, void *array, size_t count, size_t size);

/** config_draft_keep() - policy_string() that notes when memory ran out. */
const char *config_draft_keep(struct draft *draft, const char *text);

/** config_draft_section() - Begin a section at draft->here. Return: NULL after a message or without memory. */
struct section *config_draft_section(struct draft *draft, const char *kind, const char *name);

/** config_draft_find() - Return: the section, or NULL. */
struct section *config_draft_find(const struct draft *draft, enum section_kind kind, const char *name);

/** config_draft_title() - "[network web]". Return: @out. */
const char *config_draft_title(const struct section *section, char out[static POLICY_NAME_MAX + CONFIG_HINT_MAX]);

/** config_kind_name() - "network". */
const char *config_kind_name(enum section_kind kind);

#endif
