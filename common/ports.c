/* SPDX-License-Identifier: MIT */
/*
 * Port specifications: sets of TCP and UDP ports as sorted lists of ranges.
 *
 * Unions and differences are made in a list of twice the size, normalised, and taken over only when they fit: a
 * specification that cannot be represented is reported and never cut short.
 */
#include "common/ports.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCRATCH_MAX (2 * PORTS_RANGES_MAX)
#define TOO_MANY    "more than 16 port ranges"

struct ports ports_all(void)
{
	return (struct ports){.tcp_count = 1, .udp_count = 1, .tcp = {{0, UINT16_MAX}}, .udp = {{0, UINT16_MAX}}};
}

static int compare_ranges(const void *a, const void *b)
{
	const struct port_range *left = a, *right = b;

	return (int)left->first - (int)right->first;
}

static size_t normalise(struct port_range *list, size_t count)
{
	size_t kept = 0;

	if (count == 0)
		return 0;
	qsort(list, count, sizeof(*list), compare_ranges);
	for (size_t i = 1; i < count; i++) {
		if ((unsigned int)list[i].first > (unsigned int)list[kept].last + 1)
			list[++kept] = list[i];
		else if (list[i].last > list[kept].last)
			list[kept].last = list[i].last;
	}
	return kept + 1;
}

/* Take a scratch list over into a specification. */
static bool store(const struct port_range *list, size_t count, struct port_range out[static PORTS_RANGES_MAX], uint8_t *out_count)
{
	if (count > PORTS_RANGES_MAX)
		return false;
	memset(out, 0, PORTS_RANGES_MAX * sizeof(*out));
	memcpy(out, list, count * sizeof(*list));
	*out_count = (uint8_t)count;
	return true;
}

static bool add_list(struct port_range *into, uint8_t *into_count, const struct port_range *other, uint8_t other_count)
{
	struct port_range scratch[SCRATCH_MAX];

	memcpy(scratch, into, *into_count * sizeof(*into));
	memcpy(scratch + *into_count, other, other_count * sizeof(*other));
	return store(scratch, normalise(scratch, (size_t)*into_count + other_count), into, into_count);
}

bool ports_add(struct ports *into, const struct ports *other)
{
	struct ports sum = *into;

	if (!add_list(sum.tcp, &sum.tcp_count, other->tcp, other->tcp_count))
		return false;
	if (!add_list(sum.udp, &sum.udp_count, other->udp, other->udp_count))
		return false;
	*into = sum;
	return true;
}

/* Cut normalised @other out of normalised @from. Return: entries of @out, at most from_count + other_count. */
static size_t cut_list(const struct port_range *from, size_t from_count, const struct port_range *other, size_t other_count,
		       struct port_range out[static SCRATCH_MAX])
{
	size_t count = 0;

	for (size_t i = 0; i < from_count; i++) {
		/* Wider than a port, so that it can stand behind port 65535. */
		unsigned int first = from[i].first, last = from[i].last;

		for (size_t j = 0; j < other_count && first <= last; j++) {
			if (other[j].last < first || other[j].first > last)
				continue;
			if (other[j].first > first)
				out[count++] = (struct port_range){(uint16_t)first, (uint16_t)(other[j].first - 1)};
			first = (unsigned int)other[j].last + 1;
		}
		if (first <= last)
			out[count++] = (struct port_range){(uint16_t)first, (uint16_t)last};
	}
	return count;
}

static bool subtract_list(struct port_range *from, uint8_t *from_count, const struct port_range *other, uint8_t other_count)
{
	struct port_range scratch[SCRATCH_MAX];

	return store(scratch, cut_list(from, *from_count, other, other_count, scratch), from, from_count);
}

bool ports_subtract(struct ports *from, const struct ports *other)
{
	struct ports rest = *from;

	if (!subtract_list(rest.tcp, &rest.tcp_count, other->tcp, other->tcp_count))
		return false;
	if (!subtract_list(rest.udp, &rest.udp_count, other->udp, other->udp_count))
		return false;
	*from = rest;
	return true;
}

/* One decimal number without leading zeros. Return: where it ends, or NULL. */
static const char *parse_port(const char *text, uint16_t *out)
{
	size_t digits = strspn(text, "0123456789");
	unsigned long value;

	if (digits == 0 || digits > 5 || (digits > 1 && text[0] == '0'))
		return NULL;
	value = strtoul(text, NULL, 10);
	if (value > UINT16_MAX)
		return NULL;
	*out = (uint16_t)value;
	return text + digits;
}

/* "443", "8000-8100" and what follows them, up to a "/", "+" or the end. Return: an error text or NULL. */
static const char *parse_range(const char **text, struct port_range *out)
{
	const char *rest;

	if (**text == '\0' || **text == '+' || **text == '/')
		return "a port is missing";
	rest = parse_port(*text, &out->first);
	if (!rest)
		return "a port is not a number from 1 to 65535";
	out->last = out->first;
	if (*rest == '-') {
		rest = parse_port(rest + 1, &out->last);
		if (!rest)
			return "a port is not a number from 1 to 65535";
		if (out->last < out->first)
			return "the first port of a range is higher than the last";
	} else if (out->first == 0) {
		return "a port is not a number from 1 to 65535";
	}
	*text = rest;
	return NULL;
}

/* "/tcp", "/udp" or nothing, up to a "+" or the end. Return: an error text or NULL. */
static const char *parse_protocol(const char **text, bool *tcp, bool *udp)
{
	size_t size = strcspn(*text, "+");

	*tcp = size == 0 || (size == 4 && memcmp(*text, "/tcp", 4) == 0);
	*udp = size == 0 || (size == 4 && memcmp(*text, "/udp", 4) == 0);
	if (!*tcp && !*udp)
		return **text == '/' ? "the protocol is neither tcp nor udp" : "a port is not a number from 1 to 65535";
	*text += size;
	return NULL;
}

static const char *parse_item(const char **text, struct ports *sum)
{
	struct port_range range = {0};
	struct ports item = {0};
	bool tcp, udp;
	const char *error = parse_range(text, &range);

	if (!error)
		error = parse_protocol(text, &tcp, &udp);
	if (error)
		return error;
	if (tcp)
		item.tcp[item.tcp_count++] = range;
	if (udp)
		item.udp[item.udp_count++] = range;
	return ports_add(sum, &item) ? NULL : TOO_MANY;
}

const char *ports_parse(const char *text, struct ports *out)
{
	struct ports sum = {0};
	const char *error;

	*out = sum;
	if (strcmp(text, "all") == 0) {
		*out = ports_all();
		return NULL;
	}
	for (;;) {
		error = parse_item(&text, &sum);
		if (error)
			return error;
		if (*text == '\0')
			break;
		text++; /* the "+" */
	}
	*out = sum;
	return NULL;
}

static bool list_contains(const struct port_range *list, uint8_t count, uint16_t port)
{
	for (size_t i = 0; i < count; i++)
		if (list[i].first <= port && port <= list[i].last)
			return true;
	return false;
}

bool ports_contains(const struct ports *ports, uint8_t protocol, uint16_t port)
{
	if (protocol == IPPROTO_TCP)
		return list_contains(ports->tcp, ports->tcp_count, port);
	if (protocol == IPPROTO_UDP)
		return list_contains(ports->udp, ports->udp_count, port);
	return false;
}

static bool lists_overlap(const struct port_range *a, uint8_t a_count, const struct port_range *b, uint8_t b_count)
{
	for (size_t i = 0; i < a_count; i++)
		for (size_t j = 0; j < b_count; j++)
			if (a[i].first <= b[j].last && b[j].first <= a[i].last)
				return true;
	return false;
}

bool ports_overlap(const struct ports *a, const struct ports *b)
{
	return lists_overlap(a->tcp, a->tcp_count, b->tcp, b->tcp_count) || lists_overlap(a->udp, a->udp_count, b->udp, b->udp_count);
}

bool ports_equal(const struct ports *a, const struct ports *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

bool ports_is_empty(const struct ports *ports)
{
	return ports->tcp_count == 0 && ports->udp_count == 0;
}

bool ports_is_all(const struct ports *ports)
{
	struct ports all = ports_all();

	return ports_equal(ports, &all);
}

/* A run of ports that are in the same protocols, and its suffix. */
struct run {
	struct port_range range;
	const char *suffix;
};

static int compare_runs(const void *a, const void *b)
{
	const struct run *left = a, *right = b;

	return (int)left->range.first - (int)right->range.first;
}

static size_t add_runs(struct run *runs, size_t count, const struct port_range *list, size_t list_count, const char *suffix)
{
	for (size_t i = 0; i < list_count; i++)
		runs[count++] = (struct run){list[i], suffix};
	return count;
}

/* Split into runs of both protocols, TCP only and UDP only, in order of port. Return: how many. */
static size_t split_runs(const struct ports *ports, struct run runs[static 3 * SCRATCH_MAX])
{
	struct port_range tcp[SCRATCH_MAX], udp[SCRATCH_MAX], both[SCRATCH_MAX];
	size_t tcp_count = cut_list(ports->tcp, ports->tcp_count, ports->udp, ports->udp_count, tcp);
	size_t udp_count = cut_list(ports->udp, ports->udp_count, ports->tcp, ports->tcp_count, udp);
	size_t both_count = cut_list(ports->tcp, ports->tcp_count, tcp, tcp_count, both);
	size_t count = add_runs(runs, 0, both, both_count, "");

	count = add_runs(runs, count, tcp, tcp_count, "/tcp");
	count = add_runs(runs, count, udp, udp_count, "/udp");
	qsort(runs, count, sizeof(*runs), compare_runs);
	return count;
}

const char *ports_format(const struct ports *ports, char out[static PORTS_TEXT_MAX])
{
	struct run runs[3 * SCRATCH_MAX];
	size_t used = 0, count;

	if (ports_is_empty(ports))
		return strcpy(out, "none");
	if (ports_is_all(ports))
		return strcpy(out, "all");
	count = split_runs(ports, runs);
	for (size_t i = 0; i < count; i++) {
		struct port_range range = runs[i].range;
		const char *plus = i ? "+" : "";

		/* Port 0 alone is written as a range: a rule that says ":0" is a mistake and refused. */
		if (range.first == range.last && range.first != 0)
			used += (size_t)snprintf(out + used, PORTS_TEXT_MAX - used, "%s%u%s", plus, range.first, runs[i].suffix);
		else
			used += (size_t)snprintf(out + used, PORTS_TEXT_MAX - used, "%s%u-%u%s", plus, range.first, range.last,
						 runs[i].suffix);
	}
	return out;
}
