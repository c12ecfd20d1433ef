/* SPDX-License-Identifier: MIT */
/* `http`: where the page, the metrics and the API are served. What apps could reach is refused here, whatever the kernel's rules say. */

#include "gateway/config_http.h"

#include <string.h>

#include "gateway/config_values.h"

#define OFF "off"

void config_http_set(struct draft *draft, struct section *section, const char *value)
{
	struct http_address http = {.source = draft->here};
	struct config_complaint complaint = {0};
	struct policy *policy = draft->policy;

	if (!section->places[PLACE_HTTP].line && !section->places[PLACE_HTTP_OFF].line)
		policy->http_count = 0; /* the default */
	section->places[strcmp(value, OFF) == 0 ? PLACE_HTTP_OFF : PLACE_HTTP] = draft->here;
	if (section->places[PLACE_HTTP].line && section->places[PLACE_HTTP_OFF].line)
		config_draft_say(draft, CONFIG_ERROR, draft->here, "'http' is either '" OFF "' or a list of addresses, not both");
	else if (strcmp(value, OFF) == 0)
		return;
	else if (!config_value_http(value, &http, &complaint))
		config_draft_say(draft, CONFIG_ERROR, draft->here, "%s", complaint.error);
	else if (policy->http_count == POLICY_HTTP_MAX)
		config_draft_say(draft, CONFIG_ERROR, draft->here, "more than %d addresses", POLICY_HTTP_MAX);
	else
		policy->http[policy->http_count++] = http;
}

/* Both cannot be opened. */
static bool collide(const struct http_address *a, const struct http_address *b)
{
	if (a->address.family != b->address.family || a->port != b->port)
		return false;
	return policy_http_is_wide(a) || policy_http_is_wide(b) || address_equal(&a->address, &b->address);
}

static void check_repeats(struct draft *draft, size_t index)
{
	const struct http_address *http = draft->policy->http;
	char text[2][POLICY_SERVER_MAX];

	for (size_t i = 0; i < index; i++) {
		if (!collide(&http[i], &http[index]))
			continue;
		config_draft_say(draft, CONFIG_ERROR, http[index].source, "%s is served already: %s at %s:%u covers it",
				 policy_http_format(&http[index], text[0]), policy_http_format(&http[i], text[1]), http[i].source.file,
				 http[i].source.line);
		return;
	}
}

static void check_network(struct draft *draft, const struct http_address *http, const struct network *network)
{
	char text[POLICY_SERVER_MAX], port[POLICY_PUBLISH_TEXT_MAX];

	if (prefix_contains(&network->subnet4, &http->address) || prefix_contains(&network->subnet6, &http->address))
		config_draft_say(draft, CONFIG_ERROR, http->source,
				 "%s is in the subnet of [network %s]: its apps may not see the page; write an address of the uplink, or "
				 "0.0.0.0:%u for all of them",
				 policy_http_format(http, text), network->name, http->port);
	for (size_t i = 0; i < network->publish_count; i++) {
		const struct publish *publish = &network->publishes[i];

		if (publish->tcp && publish->ports.first <= http->port && http->port <= publish->ports.last && !policy_http_is_local(http))
			config_draft_say(draft, CONFIG_ERROR, publish->source,
					 "port %s of the uplink leads to a container here, and %s:%u serves the page on it: choose another "
					 "port for one of them",
					 policy_publish_format(publish, port), http->source.file, http->source.line);
	}
}

void config_http_settle(struct draft *draft)
{
	for (size_t i = 0; i < draft->policy->http_count; i++) {
		const struct http_address *http = &draft->policy->http[i];

		check_repeats(draft, i);
		for (size_t j = 0; j < draft->section_count && http->source.line; j++) {
			if (draft->sections[j]->kind == SECTION_NETWORK)
				check_network(draft, http, &draft->sections[j]->network);
		}
	}
}
