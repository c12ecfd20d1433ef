/* SPDX-License-Identifier: MIT */
#include "gateway/log_view.h"

#include <string.h>

#define NETWORK_MAX 16 /* characters that a column grows to; longer texts stick out */
#define WHO_MAX     28
#define TARGET_MAX  48
#define FIELD_MAX   1100 /* octets of an escaped value */

/* How an event is marked. */
struct mark {
	const char *event;
	const char *utf8, *ascii;
	enum terminal_colour colour;
};

static const struct mark marks[] = {
	{"denied", "\u2717", "x", TERMINAL_RED}, {"audit", "~", "~", TERMINAL_YELLOW},      {"allowed", "\u2713", "+", TERMINAL_GREEN},
	{"ended", "\u25a0", "-", TERMINAL_DIM},  {"inbound", "\u2190", "<", TERMINAL_CYAN},
};
static const struct mark other = {"", " ", " ", TERMINAL_PLAIN};

const char *log_view_value(const json_t *line, const char *key)
{
	return json_string_value(json_object_get(line, key));
}

static long long number(const json_t *line, const char *key)
{
	return (long long)json_integer_value(json_object_get(line, key));
}

static bool event_is(const json_t *line, const char *event)
{
	const char *value = log_view_value(line, "event");

	return value && strcmp(value, event) == 0;
}

/* Filters */

const char *log_view_parse_name(struct log_view_filter *filter, const char *text)
{
	static const struct {
		const char *start;
		enum pattern_kind kind;
	} wildcards[] = {{"**.", PATTERN_TREE}, {"*.", PATTERN_BELOW}};

	if (prefix_parse(text, &filter->prefix, NULL))
		return NULL;
	memset(&filter->prefix, 0, sizeof(filter->prefix));
	filter->has_pattern = true;
	filter->pattern.kind = PATTERN_EXACT;
	for (size_t i = 0; i < sizeof(wildcards) / sizeof(wildcards[0]); i++) {
		size_t length = strlen(wildcards[i].start);

		if (strncmp(text, wildcards[i].start, length) != 0)
			continue;
		filter->pattern.kind = wildcards[i].kind;
		text += length;
	}
	return domain_parse(text, &filter->pattern.base);
}

bool log_view_passes_all(const struct log_view_filter *filter)
{
	return !filter->denied && !filter->audit && !filter->allowed && !filter->network && !filter->app && !filter->has_pattern &&
	       !filter->prefix.address.family;
}

static bool event_passes(const struct log_view_filter *filter, const json_t *line)
{
	if (!filter->denied && !filter->audit && !filter->allowed)
		return true;
	return (filter->denied && event_is(line, "denied")) || (filter->audit && event_is(line, "audit")) ||
	       (filter->allowed && (event_is(line, "allowed") || event_is(line, "ended") || event_is(line, "inbound")));
}

static bool value_is(const json_t *line, const char *key, const char *wanted)
{
	const char *value = log_view_value(line, key);

	return value && strcmp(value, wanted) == 0;
}

static bool name_matches(const struct log_view_filter *filter, const json_t *line, const char *key)
{
	const char *value = log_view_value(line, key);
	struct domain name;

	return value && !domain_parse(value, &name) && pattern_matches(&filter->pattern, &name);
}

static bool address_matches(const struct log_view_filter *filter, const json_t *line, const char *key)
{
	const char *value = log_view_value(line, key);
	struct address address;

	return value && address_parse(value, &address) && prefix_contains(&filter->prefix, &address);
}

bool log_view_passes(const struct log_view_filter *filter, const json_t *line)
{
	if (event_is(line, "log-lost"))
		return true;
	if (!event_passes(filter, line) || (filter->network && !value_is(line, "network", filter->network)))
		return false;
	if (filter->app && !value_is(line, "app", filter->app) && !value_is(line, "src", filter->app))
		return false;
	if (filter->has_pattern)
		return name_matches(filter, line, "name") || name_matches(filter, line, "qname") || name_matches(filter, line, "sni");
	return !filter->prefix.address.family || address_matches(filter, line, "dst") || address_matches(filter, line, "real");
}

/* Parts of a line */

static const char *flow_target(const json_t *line, char out[static LOG_VIEW_TARGET_MAX])
{
	const char *sni = log_view_value(line, "sni"), *name = sni ? sni : log_view_value(line, "name");
	const char *address = log_view_value(line, "dst"), *protocol = log_view_value(line, "proto");
	bool brackets = !name && address && strchr(address, ':') && json_is_integer(json_object_get(line, "port"));
	int used = snprintf(out, LOG_VIEW_TARGET_MAX, "%s%s%s", brackets ? "[" : "",
			    name      ? name
			    : address ? address
				      : "?",
			    brackets ? "]" : "");

	if (used > 0 && used < LOG_VIEW_TARGET_MAX && json_is_integer(json_object_get(line, "port")))
		used += snprintf(out + used, (size_t)(LOG_VIEW_TARGET_MAX - used), ":%lld", number(line, "port"));
	if (used > 0 && used < LOG_VIEW_TARGET_MAX && protocol)
		snprintf(out + used, (size_t)(LOG_VIEW_TARGET_MAX - used), "/%s", protocol);
	return out;
}

/* A sum that knows no destination. */
static bool is_bare_sum(const json_t *line)
{
	return log_view_value(line, "what") && !log_view_value(line, "name") && !log_view_value(line, "dst");
}

/* "512 packets", "1 flow" */
static int put_count(const json_t *line, char *out, size_t size)
{
	const char *what = log_view_value(line, "what");
	size_t length = strlen(what);

	if (number(line, "count") == 1 && length > 0)
		length--;
	return snprintf(out, size, "%lld %.*s", number(line, "count"), (int)length, what);
}

const char *log_view_target(const json_t *line, char out[static LOG_VIEW_TARGET_MAX])
{
	const char *name = log_view_value(line, "qname"), *type = log_view_value(line, "qtype"), *source = log_view_value(line, "src");
	char count[64];

	if (is_bare_sum(line)) {
		put_count(line, out, LOG_VIEW_TARGET_MAX);
	} else if (log_view_value(line, "what")) {
		put_count(line, count, sizeof(count));
		flow_target(line, out);
		snprintf(out + strlen(out), LOG_VIEW_TARGET_MAX - strlen(out), " (%s)", count);
	} else if (event_is(line, "inbound")) {
		snprintf(out, LOG_VIEW_TARGET_MAX, "%s", source ? source : "?");
	} else if (json_object_get(line, "qtype") || json_object_get(line, "qname")) {
		snprintf(out, LOG_VIEW_TARGET_MAX, "%s %s", name ? name : "?", type ? type : "");
	} else {
		flow_target(line, out);
	}
	return out;
}

static const char *who(const json_t *line)
{
	const char *app = log_view_value(line, "app"), *source = log_view_value(line, "src");

	return app ? app : source ? source : log_view_value(line, "what") ? "(several)" : "-";
}

static const struct mark *mark_of(const json_t *line)
{
	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
		if (event_is(line, marks[i].event))
			return &marks[i];
	}
	return &other;
}

/* A flow goes somewhere, a question asks, a sum does neither. */
static const char *arrow(const struct terminal *terminal, const json_t *line)
{
	if (is_bare_sum(line))
		return terminal->utf8 ? "\u2211" : "=";
	if (event_is(line, "inbound"))
		return terminal->utf8 ? "\u2190" : "<";
	if (json_object_get(line, "qtype") || json_object_get(line, "qname"))
		return "?";
	return terminal->utf8 ? "\u2192" : ">";
}

/* Printing */

static void put(const struct terminal *terminal, FILE *stream, const char *text, size_t width, enum terminal_colour colour)
{
	char escaped[FIELD_MAX];

	terminal_put(terminal, stream, terminal_escape(terminal, text, escaped, sizeof(escaped)),
		     (struct terminal_place){.width = width, .colour = colour});
}

static void widen(size_t *width, size_t limit, const struct terminal *terminal, const char *text)
{
	char escaped[FIELD_MAX];
	size_t columns = terminal_columns(terminal_escape(terminal, text, escaped, sizeof(escaped)));

	if (columns > limit)
		columns = limit;
	if (columns > *width)
		*width = columns;
}

void log_view_measure(struct log_view_columns *columns, const struct terminal *terminal, const json_t *line)
{
	const char *network = log_view_value(line, "network");
	char target[LOG_VIEW_TARGET_MAX];

	widen(&columns->network, NETWORK_MAX, terminal, network ? network : "-");
	widen(&columns->who, WHO_MAX, terminal, who(line));
	widen(&columns->target, TARGET_MAX, terminal, log_view_target(line, target));
}

static void print_time(struct log_view_columns *columns, const struct terminal *terminal, FILE *stream, const json_t *line)
{
	const char *time = log_view_value(line, "ts");
	char text[13] = "--:--:--.---";

	/* 2026-11-22T03:40:01.123Z */
	if (time && strlen(time) == 24 && time[10] == 'T') {
		if (strncmp(columns->date, time, 10) != 0) {
			snprintf(columns->date, sizeof(columns->date), "%.10s", time);
			put(terminal, stream, columns->date, 0, TERMINAL_BOLD);
			put(terminal, stream, " (UTC)", 0, TERMINAL_DIM);
			fputc('\n', stream);
		}
		snprintf(text, sizeof(text), "%.12s", time + 11);
	}
	put(terminal, stream, text, 0, TERMINAL_DIM);
}

static void print_traffic(FILE *stream, const json_t *line)
{
	char out[TERMINAL_NUMBER_MAX], in[TERMINAL_NUMBER_MAX];

	if (!json_is_integer(json_object_get(line, "bytes_out")))
		return;
	fprintf(stream, "  %s out, %s in", terminal_bytes((uint64_t)number(line, "bytes_out"), out),
		terminal_bytes((uint64_t)number(line, "bytes_in"), in));
	if (json_is_integer(json_object_get(line, "duration")))
		fprintf(stream, ", %.1f s", (double)number(line, "duration") / 1000);
}

static void print_inbound(const struct terminal *terminal, FILE *stream, const json_t *line)
{
	char target[LOG_VIEW_TARGET_MAX];

	if (!event_is(line, "inbound") || log_view_value(line, "what"))
		return;
	fprintf(stream, "  port %lld, led to ", number(line, "published"));
	put(terminal, stream, flow_target(line, target), 0, TERMINAL_PLAIN);
}

static bool has_details(const json_t *line)
{
	return log_view_value(line, "reason") || log_view_value(line, "rule") || json_is_integer(json_object_get(line, "bytes_out")) ||
	       event_is(line, "inbound");
}

static void print_details(const struct terminal *terminal, FILE *stream, const json_t *line)
{
	const char *reason = log_view_value(line, "reason"), *rule = log_view_value(line, "rule");

	if (reason) {
		fputs("  ", stream);
		put(terminal, stream, reason, 0, TERMINAL_PLAIN);
	}
	print_inbound(terminal, stream, line);
	print_traffic(stream, line);
	if (rule) {
		fputs("  ", stream);
		put(terminal, stream, rule, 0, TERMINAL_DIM);
	}
	fputc('\n', stream);
}

void log_view_print(struct log_view_columns *columns, const struct terminal *terminal, FILE *stream, const json_t *line)
{
	const char *network = log_view_value(line, "network"), *event = log_view_value(line, "event");
	const struct mark *mark = mark_of(line);
	char target[LOG_VIEW_TARGET_MAX];

	if (event_is(line, "log-lost")) {
		fprintf(stream, "(%lld lines are missing: they came faster than they were read)\n", number(line, "count"));
		return;
	}
	log_view_measure(columns, terminal, line);
	log_view_target(line, target);
	print_time(columns, terminal, stream, line);
	fputc(' ', stream);
	put(terminal, stream, terminal->utf8 ? mark->utf8 : mark->ascii, 0, mark->colour);
	fputc(' ', stream);
	put(terminal, stream, event ? event : "?", strlen("allowed"), mark->colour);
	fputs("  ", stream);
	put(terminal, stream, network ? network : "-", columns->network, TERMINAL_PLAIN);
	fputs("  ", stream);
	put(terminal, stream, who(line), columns->who, TERMINAL_PLAIN);
	fprintf(stream, " %s ", arrow(terminal, line));
	put(terminal, stream, target, has_details(line) ? columns->target : 0, TERMINAL_BOLD);
	print_details(terminal, stream, line);
}
