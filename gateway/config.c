/* SPDX-License-Identifier: MIT */
/*
 * Policy text -> struct policy. The only inih user.
 *
 * Theory of operation: config_lines.c reads and checks the text line by line. What it lets through is handed to inih as plain
 * "[kind name]" and "key = value" lines, through ini_parse_stream(); a continuation line is handed on as the same key once more, and a line
 * that is longer than inih's buffer (200 octets in some builds) as several pieces, which the handler joins again. As each line
 * is fed just before its handler is called, draft->here is always the line that the handler's value comes from, which inih itself would
 * not tell. The handler compares section and key with what was fed: a disagreement rejects the policy.
 *
 * Each value then goes to the setter of its key (the table below, config_rules.c) and config_finish.c does what needs the whole text.
 * Nothing stops at the first error; all findings are collected.
 */

#include "gateway/config.h"

#include <assert.h>
#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/config_draft.h"
#include "gateway/config_finish.h"
#include "gateway/config_http.h"
#include "gateway/config_lines.h"
#include "gateway/config_notify.h"
#include "gateway/config_publish.h"
#include "gateway/config_rules.h"

#define HEADING_MAX (CONFIG_KIND_MAX + 1 + POLICY_NAME_MAX + 1) /* "kind name"; inih cuts at 49 */
#define PIECE_MIN   32                                          /* octets of a value that must fit into inih's line */

enum key_shape {
	KEY_SCALAR, /* one value, given once */
	KEY_SET,    /* several values, given once */
	KEY_LIST,   /* several values, and the key may be repeated; must not be empty */
	KEY_RULES,  /* the same, and empty is only worth a warning */
};

#define IN(kind) (1U << SECTION_##kind)

struct key {
	const char *name;
	unsigned int sections; /* IN() of each kind that has it */
	enum key_shape shape;
	config_setter set;
};

static const struct key keys[] = {
	{"uplink", IN(GATEWAY), KEY_SCALAR, config_rules_uplink},
	{"log", IN(GATEWAY), KEY_SCALAR, config_rules_log},
	{"flowtable", IN(GATEWAY), KEY_SCALAR, config_rules_flowtable},
	{"http", IN(GATEWAY), KEY_SET, config_http_set},
	{"notify", IN(GATEWAY), KEY_SCALAR, config_notify_url},
	{"notify_format", IN(GATEWAY), KEY_SCALAR, config_notify_format},
	{"notify_token_file", IN(GATEWAY), KEY_SCALAR, config_notify_token_file},
	{"notify_ca", IN(GATEWAY), KEY_SCALAR, config_notify_ca},
	{"server", IN(UPSTREAM), KEY_LIST, config_rules_server},
	{"ca", IN(UPSTREAM), KEY_SCALAR, config_rules_ca},
	{"match", IN(UPSTREAM), KEY_LIST, config_rules_match},
	{"private", IN(UPSTREAM) | IN(NETWORK), KEY_RULES, config_rules_private},
	{"subnet", IN(NETWORK), KEY_LIST, config_rules_subnet},
	{"gateway", IN(NETWORK), KEY_LIST, config_rules_gateway},
	{"addresses", IN(NETWORK), KEY_SCALAR, config_rules_addresses},
	{"pool", IN(NETWORK), KEY_LIST, config_rules_pool},
	{"per_name", IN(NETWORK), KEY_SCALAR, config_rules_per_name},
	{"use", IN(NETWORK), KEY_RULES, config_rules_use},
	{"allow", IN(RULES) | IN(NETWORK), KEY_RULES, config_rules_allow},
	{"deny", IN(RULES) | IN(NETWORK), KEY_RULES, config_rules_deny},
	{"publish", IN(NETWORK), KEY_RULES, config_publish_word},
	{"ports", IN(NETWORK), KEY_SET, config_rules_ports},
	{"mode", IN(NETWORK), KEY_SCALAR, config_rules_mode},
	{"audit_until", IN(NETWORK), KEY_SCALAR, config_rules_audit_until},
	{"min_ttl", IN(NETWORK), KEY_SCALAR, config_rules_min_ttl},
	{"grace", IN(NETWORK), KEY_SCALAR, config_rules_grace},
	{"max_age", IN(NETWORK), KEY_SCALAR, config_rules_max_age},
	{"max_addresses", IN(NETWORK), KEY_SCALAR, config_rules_max_addresses},
	{"wildcard_octets", IN(NETWORK), KEY_SCALAR, config_rules_wildcard_octets},
	{"wildcard_labels", IN(NETWORK), KEY_SCALAR, config_rules_wildcard_labels},
	{"wildcard_names", IN(NETWORK), KEY_SCALAR, config_rules_wildcard_names},
	{"max_flows", IN(NETWORK), KEY_SCALAR, config_rules_max_flows},
	{"keep_established", IN(NETWORK), KEY_SCALAR, config_rules_keep_established},
	{"log_allowed", IN(NETWORK), KEY_SCALAR, config_rules_log_allowed},
	{"verify", IN(NETWORK), KEY_SCALAR, config_rules_verify},
	{"verify_ports", IN(NETWORK), KEY_SET, config_rules_verify_ports},
	{"without_name", IN(NETWORK), KEY_SCALAR, config_rules_without_name},
};
#define KEY_COUNT (sizeof(keys) / sizeof(keys[0]))
static_assert(KEY_COUNT <= CONFIG_KEYS_MAX, "struct section has room for every key");

/* One part on its way through inih. */
struct feed {
	struct draft *draft;
	struct config_lines lines;
	struct config_line line;
	char heading[HEADING_MAX];         /* as inih must report it */
	char key_name[CONFIG_KEY_MAX + 1]; /* likewise */
	const struct key *key;             /* NULL: unknown or misplaced, and reported */
	const char *rest;                  /* of the line's value, still to be fed; NULL: the line is done */
	bool space;                        /* a space belongs between the piece fed last and the one before */
	bool next_space;
	bool orphans_reported;
	bool broken; /* inih did not give back what it was fed */
	char *value; /* owned: the line's value, joined again */
	size_t used;
};

static void say_unknown_key(struct draft *draft, const struct section *section, const char *name)
{
	const char *names[KEY_COUNT];
	char hint[CONFIG_HINT_MAX];
	size_t count = 0;

	for (size_t i = 0; i < KEY_COUNT; i++) {
		if (keys[i].sections & (1U << section->kind))
			names[count++] = keys[i].name;
	}
	config_draft_say(draft, CONFIG_ERROR, draft->here, "'%s' is not a key of [%s]%s", name, config_kind_name(section->kind),
			 config_hint(name, names, count, hint));
}

static void say_misplaced_key(struct draft *draft, const struct section *section, const struct key *key)
{
	enum section_kind home = 0;

	while (home + 1 < SECTION_KIND_COUNT && !(key->sections & (1U << home)))
		home++;
	config_draft_say(draft, CONFIG_ERROR, draft->here, "'%s' is not a key of [%s]; it belongs into [%s%s]", key->name,
			 config_kind_name(section->kind), config_kind_name(home), home >= SECTION_RULES ? " NAME" : "");
}

static const struct key *find_key(const char *name)
{
	for (size_t i = 0; i < KEY_COUNT; i++) {
		if (strcmp(keys[i].name, name) == 0)
			return &keys[i];
	}
	return NULL;
}

/* Return: the key, if it may stand here; else NULL after a message. */
static const struct key *open_key(struct draft *draft, const char *name)
{
	struct section *section = draft->section;
	const struct key *key = find_key(name);
	unsigned int *first;

	if (!key) {
		say_unknown_key(draft, section, name);
		return NULL;
	}
	if (!(key->sections & (1U << section->kind))) {
		say_misplaced_key(draft, section, key);
		return NULL;
	}
	first = &section->lines[key - keys];
	if (*first && (key->shape == KEY_SCALAR || key->shape == KEY_SET)) {
		config_draft_say(draft, CONFIG_ERROR, draft->here, "'%s' is given twice; first at %s:%u", name, section->source.file,
				 *first);
		return NULL;
	}
	if (!*first)
		*first = draft->here.line;
	return key;
}

/* A whole line's value has come back from inih: give its words to the key. */
static void take_value(struct feed *feed)
{
	struct draft *draft = feed->draft;
	char *save = NULL;

	if (feed->line.kind == LINE_KEY)
		feed->key = open_key(draft, feed->key_name);
	if (!feed->key)
		return;
	for (char *word = strtok_r(feed->value, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		size_t *items = &draft->section->items[feed->key - keys];

		if (feed->key->shape == KEY_SCALAR && ++*items > 1) {
			if (*items == 2)
				config_draft_say(draft, CONFIG_ERROR, draft->here, "'%s' takes one value; '%.60s' is too much",
						 feed->key->name, word);
			continue;
		}
		if (feed->key->shape != KEY_SCALAR)
			++*items;
		feed->key->set(draft, draft->section, word);
	}
}

static int on_value(void *user, const char *section, const char *name, const char *value)
{
	struct feed *feed = user;
	size_t length = strlen(value);

	if (feed->broken || strcmp(section, feed->heading) != 0 || strcmp(name, feed->key_name) != 0 ||
	    feed->used + 1 + length > CONFIG_LINE_MAX) {
		feed->broken = true;
		return 0;
	}
	if (feed->space)
		feed->value[feed->used++] = ' ';
	memcpy(feed->value + feed->used, value, length + 1);
	feed->used += length;
	feed->space = feed->next_space;
	if (!feed->rest)
		take_value(feed);
	return 1;
}

/* Write the next piece of the line's value as a line for inih. */
static char *feed_piece(struct feed *feed, char *out, size_t size)
{
	size_t name = strlen(feed->key_name), overhead = name + sizeof(" = \n"), left = strlen(feed->rest), length = left;

	if (size < overhead + PIECE_MIN) {
		feed->broken = true;
		return NULL;
	}
	if (length > size - overhead)
		length = size - overhead;
	memcpy(out, feed->key_name, name);
	memcpy(out + name, " = ", 3);
	memcpy(out + name + 3, feed->rest, length);
	out[name + 3 + length] = '\n';
	out[name + 4 + length] = '\0';
	feed->next_space = false;
	if (length < left)
		feed->next_space = feed->rest[length - 1] == ' ' || feed->rest[length] == ' ';
	feed->rest = length < left ? feed->rest + length : NULL;
	return out;
}

static bool begin_section(struct feed *feed)
{
	struct draft *draft = feed->draft;

	draft->section = config_draft_section(draft, feed->line.first, feed->line.second);
	feed->key = NULL;
	feed->orphans_reported = true;
	snprintf(feed->heading, sizeof(feed->heading), "%s%s%s", feed->line.first, feed->line.second[0] ? " " : "", feed->line.second);
	return draft->section;
}

static void begin_value(struct feed *feed)
{
	struct draft *draft = feed->draft;

	if (!draft->section) {
		if (!feed->orphans_reported)
			config_draft_say(draft, CONFIG_ERROR, draft->here, "'%s' stands above the first section heading", feed->line.first);
		feed->orphans_reported = true;
		return;
	}
	if (feed->line.kind == LINE_KEY)
		snprintf(feed->key_name, sizeof(feed->key_name), "%s", feed->line.first);
	feed->rest = feed->line.second;
	feed->used = 0;
	feed->space = false;
}

/* inih's reader, with the meaning of fgets(). */
static char *feed_line(char *out, int size, void *stream)
{
	struct feed *feed = stream;
	struct draft *draft = feed->draft;

	while (!feed->rest && !feed->broken && config_lines_next(&feed->lines, &feed->line)) {
		draft->here.line = feed->line.number;
		if (feed->line.number % CONFIG_PAUSE_LINES == 0)
			config_draft_pause(draft);
		switch (feed->line.kind) {
		case LINE_END: return NULL;
		case LINE_BAD_SECTION:
			draft->section = NULL;
			feed->orphans_reported = true;
			break;
		case LINE_SECTION:
			if (!begin_section(feed))
				break;
			snprintf(out, (size_t)size, "[%s]\n", feed->heading);
			return out;
		case LINE_KEY:
		case LINE_MORE: begin_value(feed); break;
		}
	}
	return feed->rest && !feed->broken ? feed_piece(feed, out, (size_t)size) : NULL;
}

static void parse_part(struct draft *draft, unsigned int index)
{
	struct feed feed = {.draft = draft};
	int status;

	draft->section = NULL;
	draft->here = (struct source){.file = draft->files[index]};
	feed.value = malloc(CONFIG_LINE_MAX + 1);
	if (!config_lines_open(&feed.lines, &draft->text->parts[index], index, draft->messages) || !feed.value) {
		draft->no_memory = true;
		goto out;
	}
	status = ini_parse_stream(feed_line, &feed, on_value, &feed);
	if (status == -2)
		draft->no_memory = true;
	else if (status || feed.broken)
		config_draft_say(draft, CONFIG_ERROR, draft->here,
				 "the INI library read this line in another way than Sluice: please report it");
out:
	config_lines_close(&feed.lines);
	free(feed.value);
}

static void check_empty_keys(struct draft *draft, const struct section *section)
{
	for (size_t i = 0; i < KEY_COUNT; i++) {
		struct source where = {section->source.file, section->lines[i]};

		if (section->lines[i] && !section->items[i])
			config_draft_say(draft, keys[i].shape == KEY_RULES ? CONFIG_WARNING : CONFIG_ERROR, where, "'%s' has no value",
					 keys[i].name);
	}
}

struct policy *config_parse(const struct config_text *text, struct config_messages *messages)
{
	struct draft *draft = config_draft_new(text, messages);
	struct config_position nowhere = {.file = "policy"};
	struct policy *policy = NULL;

	if (!draft) {
		config_messages_add(messages, CONFIG_ERROR, nowhere, "out of memory");
		return NULL;
	}
	for (size_t i = 0; i < text->count && !draft->no_memory; i++)
		parse_part(draft, (unsigned int)i);
	for (size_t i = 0; i < draft->section_count; i++)
		check_empty_keys(draft, draft->sections[i]);
	config_draft_pause(draft);
	if (!draft->no_memory)
		config_finish(draft);
	config_draft_pause(draft);
	if (draft->no_memory)
		config_messages_add(messages, CONFIG_ERROR, nowhere, "out of memory");
	config_messages_sort(messages);
	if (!messages->errors) {
		policy = draft->policy;
		draft->policy = NULL;
	}
	config_draft_free(draft);
	return policy;
}

struct policy *config_load(const char *path, struct config_messages *messages)
{
	struct config_text text = {0};
	struct policy *policy = NULL;

	if (config_read(path, &text, messages) == 0)
		policy = config_parse(&text, messages);
	config_text_free(&text);
	return policy;
}
