/* SPDX-License-Identifier: MIT */
/*
 * `notify` and the keys beside it.
 *
 * The URL may hold a secret, as those of webhooks do, and so does the token's file: no message repeats more of them than the host.
 */

#include "gateway/config_notify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/config_ca.h"
#include "gateway/config_file.h"
#include "gateway/config_rules.h"
#include "gateway/config_values.h"
#include "gateway/report/notify_address.h"
#include "gateway/report/notify_url.h"

#define SAY_ERROR(draft, ...) config_draft_say(draft, CONFIG_ERROR, (draft)->here, __VA_ARGS__)

void config_notify_url(struct draft *draft, struct section *section, const char *value)
{
	struct notify_target *target = &draft->policy->notify;
	char error[CONFIG_COMPLAINT_MAX];
	struct notify_url url;

	section->places[PLACE_NOTIFY] = draft->here;
	if (!notify_url_parse(value, &url, error, sizeof(error))) {
		SAY_ERROR(draft, "notify: %s", error);
		return;
	}
	target->url = config_draft_keep(draft, url.text);
	target->host = config_draft_keep(draft, url.host);
	target->port = url.port;
	target->tls = url.tls;
	notify_url_free(&url);
}

void config_notify_format(struct draft *draft, struct section *section, const char *value)
{
	static const char *const names[] = {"json", "ntfy"};
	int format = config_rules_one_of(draft, "notify_format", value, names, 2);

	section->places[PLACE_NOTIFY_FORMAT] = draft->here;
	if (format >= 0)
		draft->policy->notify.format = format ? NOTIFY_NTFY : NOTIFY_JSON;
}

/* Is it a path as a file is named in a policy? Else there is a message. */
static bool check_path(struct draft *draft, const char *path)
{
	if (*path == '/')
		return true;
	SAY_ERROR(draft, "'%.80s': write the whole path of the file, which begins with '/'", path);
	return false;
}

/* Without blanks around it. Return: NULL when it cannot be sent in a header. */
static char *trim_token(char *text)
{
	char *end = text + strlen(text);

	while (end > text && strchr(" \t\r\n", end[-1]))
		*--end = 0;
	text += strspn(text, " \t\r\n");
	for (const char *at = text; *at; at++) {
		if (*at <= ' ' || *at > '~')
			return NULL;
	}
	return *text ? text : NULL;
}

void config_notify_token_file(struct draft *draft, struct section *section, const char *value)
{
	struct notify_target *target = &draft->policy->notify;
	char error[CONFIG_COMPLAINT_MAX];
	char *text, *token;

	section->places[PLACE_NOTIFY_TOKEN] = draft->here;
	if (!check_path(draft, value))
		return;
	text = config_file_read(value, CONFIG_TOKEN_MAX, "the token alone", error, sizeof(error));
	if (!text) {
		SAY_ERROR(draft, "%.300s: %s", value, error);
		return;
	}
	token = trim_token(text);
	if (token) {
		target->token_file = config_draft_keep(draft, value);
		target->token = config_draft_keep(draft, token);
	} else {
		SAY_ERROR(draft, "%.300s: is not a token: one line of letters, digits and signs, without blanks", value);
	}
	free(text);
}

void config_notify_ca(struct draft *draft, struct section *section, const char *value)
{
	struct notify_target *target = &draft->policy->notify;
	char error[CONFIG_COMPLAINT_MAX];
	char *text;

	section->places[PLACE_NOTIFY_CA] = draft->here;
	if (!check_path(draft, value))
		return;
	text = config_ca_read(value, error, sizeof(error));
	if (!text) {
		SAY_ERROR(draft, "%.300s: %s", value, error);
		return;
	}
	target->ca_file = config_draft_keep(draft, value);
	target->ca = config_draft_keep(draft, text);
	free(text);
}

void config_notify_settle(struct draft *draft, const struct section *section)
{
	static const struct {
		enum place place;
		const char *key;
	} keys[] = {{PLACE_NOTIFY_FORMAT, "notify_format"}, {PLACE_NOTIFY_TOKEN, "notify_token_file"}, {PLACE_NOTIFY_CA, "notify_ca"}};
	const struct notify_target *target = &draft->policy->notify;

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]) && !section->places[PLACE_NOTIFY].line; i++) {
		if (section->places[keys[i].place].line)
			config_draft_say(draft, CONFIG_ERROR, section->places[keys[i].place], "'%s' without 'notify': there is no URL",
					 keys[i].key);
	}
	if (!target->url || target->tls)
		return;
	if (target->ca)
		config_draft_say(draft, CONFIG_ERROR, section->places[PLACE_NOTIFY_CA],
				 "'notify_ca' with an http:// URL: messages would be sent in clear; write notify = https://...");
	if (target->token)
		config_draft_say(draft, CONFIG_WARNING, section->places[PLACE_NOTIFY_TOKEN],
				 "the token is sent in clear, because the URL is http://");
}

/* Where `notify` stands. */
static struct source find_place(const struct draft *draft)
{
	for (size_t i = 0; i < draft->section_count; i++) {
		if (draft->sections[i]->places[PLACE_NOTIFY].line)
			return draft->sections[i]->places[PLACE_NOTIFY];
	}
	return draft->here;
}

void config_notify_check(struct draft *draft)
{
	const struct notify_target *target = &draft->policy->notify;
	char why[CONFIG_COMPLAINT_MAX];
	struct address address;

	if (!target->url || !address_parse(target->host, &address))
		return;
	if (!notify_address_check(draft->policy, &address, why, sizeof(why)))
		config_draft_say(draft, CONFIG_ERROR, find_place(draft), "notify: %s", why);
}
