/* SPDX-License-Identifier: MIT */
/* A policy while it is read: sections and their memory. */

#include "gateway/config_draft.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[] = {"gateway", "upstream", "rules", "network"};
static_assert(sizeof(kind_names) / sizeof(kind_names[0]) == SECTION_KIND_COUNT, "one name for each kind of section");

const char *config_kind_name(enum section_kind kind)
{
	return kind_names[kind];
}

struct draft *config_draft_new(const struct config_text *text, struct config_messages *messages)
{
	struct draft *draft = calloc(1, sizeof(*draft));

	if (!draft)
		return NULL;
	draft->text = text;
	draft->messages = messages;
	draft->policy = policy_new();
	draft->files = calloc(text->count + 1, sizeof(*draft->files));
	draft->no_memory = !draft->policy || !draft->files;
	for (size_t i = 0; i < text->count && !draft->no_memory; i++)
		draft->files[i] = config_draft_keep(draft, text->parts[i].file);
	if (!draft->no_memory)
		return draft;
	config_draft_free(draft);
	return NULL;
}

static void free_section(struct section *section)
{
	struct variant *next;

	for (struct variant *variant = section->variants; variant; variant = next) {
		next = variant->next;
		free(variant->rules);
		free(variant);
	}
	free(section->uses);
	free(section->match_sources);
	free(section->network.rules);
	free(section->network.privates);
	free(section->network.publishes);
	free(section->group.matches);
	free(section->group.privates);
	free(section);
}

void config_draft_pause(const struct draft *draft)
{
	if (draft->text->pause)
		draft->text->pause(draft->text->pause_context);
}

void config_draft_free(struct draft *draft)
{
	if (!draft)
		return;
	for (size_t i = 0; i < draft->section_count; i++)
		free_section(draft->sections[i]);
	free(draft->sections);
	free(draft->files);
	policy_free(draft->policy);
	free(draft);
}

static unsigned int part_of(const struct draft *draft, const char *file)
{
	for (size_t i = 0; i < draft->text->count; i++) {
		if (draft->files[i] == file)
			return (unsigned int)i;
	}
	return 0;
}

void config_draft_say(struct draft *draft, enum message_severity severity, struct source where, const char *format, ...)
{
	struct config_position at = {.part = part_of(draft, where.file), .file = where.file, .line = where.line};
	char *text = NULL;
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vasprintf(&text, format, arguments);
	va_end(arguments);
	config_messages_add(draft->messages, severity, at, "%s", length < 0 ? "out of memory" : text);
	if (length >= 0)
		free(text);
}

void *config_draft_grow(struct draft *draft, void *array, size_t count, size_t size)
{
	void *larger;

	if (count & (count - 1))
		return array;
	larger = reallocarray(array, count ? count * 2 : 1, size);
	if (!larger)
		draft->no_memory = true;
	return larger;
}

const char *config_draft_keep(struct draft *draft, const char *text)
{
	const char *kept = policy_string(draft->policy, text);

	if (!kept)
		draft->no_memory = true;
	return kept;
}

struct section *config_draft_find(const struct draft *draft, enum section_kind kind, const char *name)
{
	for (size_t i = 0; i < draft->section_count; i++) {
		struct section *section = draft->sections[i];

		if (section->kind == kind && strcmp(section->name, name) == 0)
			return section;
	}
	return NULL;
}

const char *config_draft_title(const struct section *section, char out[static POLICY_NAME_MAX + CONFIG_HINT_MAX])
{
	snprintf(out, POLICY_NAME_MAX + CONFIG_HINT_MAX, "[%s%s%s]", kind_names[section->kind], section->name[0] ? " " : "", section->name);
	return out;
}

/* The title without brackets: "rules github". */
static const char *bare_title(const struct section *section, char out[static POLICY_NAME_MAX + CONFIG_HINT_MAX])
{
	config_draft_title(section, out);
	out[strlen(out) - 1] = '\0';
	return out + 1;
}

/* Return: SECTION_KIND_COUNT when unknown. */
static enum section_kind kind_of(const char *word)
{
	size_t kind = 0;

	while (kind < SECTION_KIND_COUNT && strcmp(kind_names[kind], word) != 0)
		kind++;
	return (enum section_kind)kind;
}

/* False, after saying why: a section of this kind and name cannot begin here. */
static bool check_heading(struct draft *draft, enum section_kind kind, const char *word, const char *name)
{
	char hint[CONFIG_HINT_MAX], title[POLICY_NAME_MAX + CONFIG_HINT_MAX];
	const struct section *first;

	if (kind == SECTION_KIND_COUNT) {
		config_draft_say(draft, CONFIG_ERROR, draft->here, "unknown section [%s]%s", word,
				 config_hint(word, kind_names, SECTION_KIND_COUNT, hint));
		return false;
	}
	if (kind == SECTION_GATEWAY && name[0]) {
		config_draft_say(draft, CONFIG_ERROR, draft->here, "[gateway] has no name");
		return false;
	}
	if ((kind == SECTION_RULES || kind == SECTION_NETWORK) && !name[0]) {
		config_draft_say(draft, CONFIG_ERROR, draft->here, "[%s] needs a name: [%s NAME]", word, word);
		return false;
	}
	first = config_draft_find(draft, kind, name);
	if (first) {
		config_draft_say(draft, CONFIG_ERROR, draft->here, "%s is given twice; first at %s:%u", config_draft_title(first, title),
				 first->source.file, first->source.line);
		return false;
	}
	if (draft->section_count >= CONFIG_SECTIONS_MAX) {
		config_draft_say(draft, CONFIG_ERROR, draft->here, "more than %d sections", CONFIG_SECTIONS_MAX);
		return false;
	}
	return true;
}

static void set_defaults(struct section *section)
{
	section->network.lifetimes = (struct lifetimes){
		.min_ttl = CONFIG_MIN_TTL, .grace = CONFIG_GRACE, .max_age = CONFIG_MAX_AGE, .max_addresses = CONFIG_MAX_ADDRESSES};
	section->network.source = section->source;
	section->network.default_ports = ports_all();
	section->network.verify_ports = ports_all();
	section->network.per_name = CONFIG_PER_NAME;
	section->group.source = section->source;
	/* The reader has checked the length. */
	snprintf(section->network.name, sizeof(section->network.name), "%s", section->name);
	snprintf(section->group.name, sizeof(section->group.name), "%s", section->name);
}

struct section *config_draft_section(struct draft *draft, const char *kind, const char *name)
{
	enum section_kind known = kind_of(kind);
	char title[POLICY_NAME_MAX + CONFIG_HINT_MAX];
	struct section **sections, *section;

	if (!check_heading(draft, known, kind, name))
		return NULL;
	sections = config_draft_grow(draft, draft->sections, draft->section_count, sizeof(*sections));
	if (!sections)
		return NULL;
	draft->sections = sections;
	section = calloc(1, sizeof(*section));
	if (!section) {
		draft->no_memory = true;
		return NULL;
	}
	section->kind = known;
	section->source = draft->here;
	section->name = config_draft_keep(draft, name);
	if (section->name && known == SECTION_RULES)
		section->rules_title = config_draft_keep(draft, bare_title(section, title));
	if (draft->no_memory) {
		free(section);
		return NULL;
	}
	set_defaults(section);
	draft->sections[draft->section_count++] = section;
	return section;
}
