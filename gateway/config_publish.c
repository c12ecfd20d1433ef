/* SPDX-License-Identifier: MIT */
/* The entries of `publish`: read, and compared with one another. */

#include "gateway/config_publish.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/config_values.h"

#define ARROW      "->"
#define DIGITS     "0123456789"
#define NAME_CHARS DIGITS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-"
#define SHOWN      "80" /* characters of a bad word that a message repeats, as a printf precision */

#define SAY_ERROR(draft, ...) config_draft_say(draft, CONFIG_ERROR, (draft)->here, __VA_ARGS__)

/* A port at the start of @text. Return: what is behind it, or NULL. */
static const char *take_port(const char *text, uint16_t *out)
{
	size_t length = strspn(text, DIGITS);
	unsigned long value = length && length <= 5 ? strtoul(text, NULL, 10) : 0;

	if (value == 0 || value > UINT16_MAX)
		return NULL;
	*out = (uint16_t)value;
	return text + length;
}

static bool parse_protocols(const char *text, struct publish *out)
{
	out->tcp = !*text || strcmp(text, "/tcp") == 0 || strcmp(text, "/tcp+udp") == 0 || strcmp(text, "/udp+tcp") == 0;
	out->udp = !*text || strcmp(text, "/udp") == 0 || strcmp(text, "/tcp+udp") == 0 || strcmp(text, "/udp+tcp") == 0;
	return out->tcp || out->udp;
}

/* "443", "443/tcp", "443/tcp+udp", "8000-8010/udp" */
static bool parse_ports(struct draft *draft, const char *text, struct publish *out)
{
	const char *rest = take_port(text, &out->ports.first);

	out->ports.last = out->ports.first;
	if (rest && *rest == '-')
		rest = take_port(rest + 1, &out->ports.last);
	if (rest && *rest == '+') {
		SAY_ERROR(draft, "'%." SHOWN "s': one port or range for each entry; give the others entries of their own", text);
		return false;
	}
	if (!rest || !parse_protocols(rest, out)) {
		SAY_ERROR(draft, "'%." SHOWN "s' is not a port to publish: write 443, 443/tcp, 443/udp, 443/tcp+udp or 8000-8010/tcp",
			  text);
		return false;
	}
	if (out->ports.last < out->ports.first) {
		SAY_ERROR(draft, "'%." SHOWN "s': the range ends before it begins", text);
		return false;
	}
	return true;
}

/*
 * What Docker's resolver knows: names of containers and services, aliases. Not domain_parse(), since these may have underscores, and end
 * in numbers. Return: false when it cannot be such a name.
 */
static bool parse_name(const char *text, struct domain *out)
{
	uint8_t wire[DOMAIN_WIRE_MAX] = {0};
	size_t used = 0;

	for (;;) {
		size_t length = strspn(text, NAME_CHARS);

		if (length == 0 || length > DOMAIN_LABEL_MAX || used + 1 + length + 1 > sizeof(wire))
			return false;
		wire[used++] = (uint8_t)length;
		memcpy(wire + used, text, length);
		used += length;
		text += length;
		if (!*text)
			break;
		if (*text++ != '.')
			return false;
	}
	return domain_from_wire(wire, used + 1, out) > 0;
}

static bool parse_host(struct draft *draft, const char *text, bool bracketed, struct publish *out)
{
	if (address_parse(text, &out->target)) {
		if (bracketed == (out->target.family == AF_INET6))
			return true;
		SAY_ERROR(draft,
			  bracketed ? "'[%." SHOWN "s]': brackets are for IPv6 addresses only"
				    : "'%." SHOWN "s': write IPv6 addresses in brackets",
			  text);
		return false;
	}
	out->target.family = 0;
	if (bracketed || !text[strspn(text, DIGITS ".")] || !parse_name(text, &out->domain)) {
		SAY_ERROR(draft,
			  "'%." SHOWN "s' is neither a container's name nor an address: write app, app:8443, 10.201.1.5:8443 or "
			  "[fd00:201:1::5]:8443",
			  text);
		return false;
	}
	out->name = config_draft_keep(draft, text);
	return out->name;
}

static bool parse_target_port(struct draft *draft, const char *whole, const char *text, struct publish *out)
{
	const char *rest = take_port(text, &out->target_port);

	if (!rest || *rest) {
		SAY_ERROR(draft,
			  "'%." SHOWN
			  "s': one port is expected behind ':', as in app:8443; protocols belong to the port in front of '" ARROW "'",
			  whole);
		return false;
	}
	if (out->ports.first == out->ports.last)
		return true;
	SAY_ERROR(draft, "'%." SHOWN "s': a range keeps its ports: leave ':%u' out", whole, out->target_port);
	return false;
}

/* "app", "app:8443", "10.201.1.5:8443", "[fd00:201:1::5]"; @text is changed. */
static bool split_target(struct draft *draft, const char *whole, char *text, struct publish *out)
{
	bool bracketed = text[0] == '[';
	char *end = bracketed ? strchr(text, ']') : strrchr(text, ':');
	char *port = end;

	if (bracketed) {
		if (!end || (end[1] && end[1] != ':')) {
			SAY_ERROR(draft, "'%." SHOWN "s': an address in brackets is expected, and perhaps a port: [fd00:201:1::5]:8443",
				  whole);
			return false;
		}
		*end = '\0';
		port = end[1] ? end + 1 : NULL;
	} else if (end && strchr(text, ':') != end) {
		port = NULL; /* an IPv6 address without brackets */
	}
	if (port)
		*port++ = '\0';
	out->target_port = out->ports.first;
	if (!parse_host(draft, text + bracketed, bracketed, out))
		return false;
	return !port || parse_target_port(draft, whole, port, out);
}

static bool parse_target(struct draft *draft, const char *text, struct publish *out)
{
	char *copy = strdup(text);
	bool good;

	if (!copy) {
		draft->no_memory = true;
		return false;
	}
	good = split_target(draft, text, copy, out);
	free(copy);
	return good;
}

static void append(struct draft *draft, struct section *section, const struct publish *publish)
{
	struct network *network = &section->network;
	struct publish *list;

	if (draft->publish_count == POLICY_PUBLISH_MAX)
		SAY_ERROR(draft, "more than %d 'publish' entries", POLICY_PUBLISH_MAX);
	if (++draft->publish_count > POLICY_PUBLISH_MAX)
		return;
	list = config_draft_grow(draft, network->publishes, network->publish_count, sizeof(*list));
	if (!list)
		return;
	network->publishes = list;
	list[network->publish_count++] = *publish;
}

static void add_entry(struct draft *draft, struct section *section, const char *ports, const char *target)
{
	struct publish publish = {.source = draft->here};

	if (parse_ports(draft, ports, &publish) && parse_target(draft, target, &publish))
		append(draft, section, &publish);
}

static void say_unfinished(struct draft *draft, const struct publish_words *words)
{
	config_draft_say(draft, CONFIG_ERROR, words->source,
			 words->arrow ? "'%." SHOWN "s " ARROW "' leads nowhere: write PORT " ARROW " CONTAINER:PORT, as in 443 " ARROW
					" app:8443, on one line"
				      : "'%." SHOWN "s' has no '" ARROW " CONTAINER' behind it: write PORT " ARROW
					" CONTAINER:PORT, as in 443 " ARROW " app:8443, on one line",
			 words->ports);
}

/* A word that is no arrow. */
static void take_word(struct draft *draft, struct section *section, const char *word)
{
	struct publish_words *words = &section->words;

	if (!words->ports) {
		words->ports = config_draft_keep(draft, word);
		words->arrow = false;
	} else if (words->arrow) {
		add_entry(draft, section, words->ports, word);
		words->ports = NULL;
	} else {
		say_unfinished(draft, words);
		words->broken = true;
	}
}

static void take_arrow(struct draft *draft, struct section *section)
{
	struct publish_words *words = &section->words;

	if (words->ports && !words->arrow) {
		words->arrow = true;
		return;
	}
	SAY_ERROR(draft, "'" ARROW "' has no port in front of it: write PORT " ARROW " CONTAINER:PORT, as in 443 " ARROW " app:8443");
	words->broken = true;
}

/* The words of another line begin another entry. */
static void begin_line(struct draft *draft, struct publish_words *words)
{
	struct publish_words next = {.source = draft->here};

	if (words->source.line == draft->here.line && words->source.file == draft->here.file)
		return;
	if (words->ports && !words->broken) {
		say_unfinished(draft, words);
		next.broken = words->arrow; /* the missing end may be on this line: one fault, one message */
	}
	*words = next;
}

void config_publish_word(struct draft *draft, struct section *section, const char *value)
{
	char *copy = strdup(value), *rest = copy, *arrow;

	if (!copy) {
		draft->no_memory = true;
		return;
	}
	begin_line(draft, &section->words);
	while (*rest && !section->words.broken) {
		arrow = strstr(rest, ARROW);
		if (arrow == rest) {
			take_arrow(draft, section);
			rest += strlen(ARROW);
			continue;
		}
		if (arrow)
			*arrow = '\0';
		take_word(draft, section, rest);
		rest += strlen(rest);
		if (arrow) {
			*arrow = ARROW[0];
			rest = arrow;
		}
	}
	free(copy);
}

/* Why a container cannot have this address, or NULL. */
static const char *find_fault(const struct network *network, const struct address *address)
{
	bool ipv4 = address->family == AF_INET;
	const struct prefix *subnet = ipv4 ? &network->subnet4 : &network->subnet6;
	const struct address *gateway = ipv4 ? &network->gateway4 : &network->gateway6;
	const struct prefix *pool = ipv4 ? &network->pool4 : &network->pool6;
	struct address_range range;

	if (!prefix_contains(subnet, address))
		return "is not in the network's subnet";
	range = prefix_range(subnet);
	if (address_equal(address, gateway))
		return "is the gateway itself";
	if (address_equal(address, &range.first) || (ipv4 && address_equal(address, &range.last)))
		return "is not the address of a host";
	if (network->has_virtual_addresses && prefix_contains(pool, address))
		return "is in the pool of virtual addresses";
	return NULL;
}

void config_publish_settle(struct draft *draft, struct section *section)
{
	const struct network *network = &section->network;
	char text[ADDRESS_TEXT_MAX];

	if (section->words.ports && !section->words.broken)
		say_unfinished(draft, &section->words);
	for (size_t i = 0; i < network->publish_count; i++) {
		const struct publish *publish = &network->publishes[i];
		const char *fault = publish->name ? NULL : find_fault(network, &publish->target);

		if (fault)
			config_draft_say(draft, CONFIG_ERROR, publish->source,
					 "%s %s: publish a container of [network %s], by its name or its address",
					 address_format(&publish->target, text), fault, network->name);
	}
}

static bool overlap(const struct publish *a, const struct publish *b)
{
	return ((a->tcp && b->tcp) || (a->udp && b->udp)) && a->ports.first <= b->ports.last && b->ports.first <= a->ports.last;
}

/* Return: true when that was said; once for each entry. */
static bool compare_with(struct draft *draft, const struct publish *publish, const struct section *section, size_t count)
{
	char text[2][POLICY_PUBLISH_TEXT_MAX], title[POLICY_NAME_MAX + CONFIG_HINT_MAX];

	for (size_t i = 0; i < count; i++) {
		const struct publish *first = &section->network.publishes[i];

		if (!overlap(publish, first))
			continue;
		config_draft_say(draft, CONFIG_ERROR, publish->source,
				 "port %s of the uplink is published twice; first as %s in %s at %s:%u",
				 policy_publish_format(publish, text[0]), policy_publish_format(first, text[1]),
				 config_draft_title(section, title), first->source.file, first->source.line);
		return true;
	}
	return false;
}

void config_publish_compare(struct draft *draft)
{
	for (size_t s = 0; s < draft->section_count; s++) {
		const struct section *section = draft->sections[s];

		for (size_t i = 0; i < section->network.publish_count; i++) {
			const struct publish *publish = &section->network.publishes[i];
			bool said = false;

			for (size_t before = 0; before < s && !said; before++)
				said = compare_with(draft, publish, draft->sections[before],
						    draft->sections[before]->network.publish_count);
			if (!said)
				compare_with(draft, publish, section, i);
		}
	}
}
