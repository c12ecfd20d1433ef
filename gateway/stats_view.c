/* SPDX-License-Identifier: MIT */
#include "gateway/stats_view.h"

#include <stdlib.h>
#include <string.h>

#define TEXT_MAX       640 /* octets of a cell, with NUL */
#define COLUMNS_MAX    12
#define INDENT         2
#define ADDRESSES_FROM 110 /* characters: narrower terminals do not show the addresses of containers */

static const struct {
	const char *name;
	enum stats_view_sort sort;
} sorts[] = {{"denied", STATS_VIEW_DENIED}, {"bytes", STATS_VIEW_BYTES}, {"last", STATS_VIEW_LAST}, {"allowed", STATS_VIEW_ALLOWED}};

bool stats_view_parse_sort(const char *text, enum stats_view_sort *out)
{
	for (size_t i = 0; i < sizeof(sorts) / sizeof(sorts[0]); i++) {
		if (strcmp(text, sorts[i].name) != 0)
			continue;
		*out = sorts[i].sort;
		return true;
	}
	return false;
}

static const char *text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static json_int_t number_of(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static json_int_t bytes_of(const json_t *row)
{
	return number_of(row, "bytes_out") + number_of(row, "bytes_in");
}

/* Which rows, and their order */

struct order {
	enum stats_view_sort sort;
	json_int_t now;
};

static int descending(json_int_t a, json_int_t b)
{
	return (a < b) - (a > b);
}

static int by_key(const json_t *a, const json_t *b, const char *key)
{
	return descending(number_of(a, key), number_of(b, key));
}

/* Was it refused, or let pass by audit mode only, not long ago? */
static bool is_recent(const json_t *row, json_int_t now)
{
	return json_is_integer(json_object_get(row, "last_denied")) && number_of(row, "last_denied") >= now - STATS_VIEW_RECENT;
}

/* 0 comes first. What is known about all others together does not help much. */
static int urgency(const json_t *row, json_int_t now)
{
	if (!text_of(row, "name") && !text_of(row, "dst"))
		return 2;
	if (number_of(row, "denied") > 0 && is_recent(row, now))
		return 0;
	return number_of(row, "audited") > 0 ? 1 : 2;
}

static int by_urgency(const json_t *a, const json_t *b, json_int_t now)
{
	int first = urgency(a, now), second = urgency(b, now);
	int order = first - second;

	if (order == 0 && first < 2)
		order = by_key(a, b, "last_denied");
	return order ? order : descending(bytes_of(a), bytes_of(b));
}

static int compare_rows(const void *a, const void *b, void *context)
{
	const json_t *first = *(json_t *const *)a, *second = *(json_t *const *)b;
	const struct order *order = context;
	int result = 0;

	switch (order->sort) {
	case STATS_VIEW_URGENT: result = by_urgency(first, second, order->now); break;
	case STATS_VIEW_DENIED: result = by_key(first, second, "denied"); break;
	case STATS_VIEW_BYTES: result = descending(bytes_of(first), bytes_of(second)); break;
	case STATS_VIEW_LAST: break;
	case STATS_VIEW_ALLOWED: result = by_key(first, second, "allowed"); break;
	}
	return result ? result : by_key(first, second, "last_seen");
}

static bool is_wanted(const json_t *row, const struct stats_view_choice *choice)
{
	const char *app = text_of(row, "app"), *source = text_of(row, "src");

	return !choice->app || (app && strcmp(app, choice->app) == 0) || (source && strcmp(source, choice->app) == 0);
}

/* Return: the rows of a network that are shown, a new array; NULL: out of memory. */
static json_t *arrange_rows(const json_t *rows, const struct stats_view_choice *choice, json_int_t now, size_t *left_out)
{
	struct order order = {.sort = choice->sort, .now = now};
	json_t **list = calloc(json_array_size(rows) + 1, sizeof(json_t *));
	json_t *arranged = json_array(), *row;
	size_t count = 0, shown, index;

	if (!list || !arranged) {
		free(list);
		json_decref(arranged);
		return NULL;
	}
	json_array_foreach(rows, index, row)
	{
		if (is_wanted(row, choice))
			list[count++] = row;
	}
	qsort_r(list, count, sizeof(json_t *), compare_rows, &order);
	shown = choice->limit && choice->limit < count ? choice->limit : count;
	*left_out = count - shown;
	for (size_t i = 0; i < shown; i++)
		json_array_append(arranged, list[i]);
	free(list);
	return arranged;
}

static bool arrange_network(json_t *networks, json_t *network, const struct stats_view_choice *choice, json_int_t now)
{
	size_t left_out = 0;
	json_t *copy = json_copy(network), *rows = arrange_rows(json_object_get(network, "rows"), choice, now, &left_out);
	bool good = copy && rows && json_object_set(copy, "rows", rows) == 0 && json_array_append(networks, copy) == 0;

	if (good && left_out)
		good = json_object_set_new(copy, "left_out", json_integer((json_int_t)left_out)) == 0;
	json_decref(copy);
	json_decref(rows);
	return good;
}

json_t *stats_view_arrange(const json_t *answer, const struct stats_view_choice *choice)
{
	json_t *arranged = json_pack("{s:b, s:I, s:[]}", "ok", 1, "now", number_of(answer, "now"), "networks");
	json_t *network;
	size_t index;

	json_array_foreach(json_object_get(answer, "networks"), index, network)
	{
		const char *name = text_of(network, "network");

		if (!json_is_object(network) || (choice->network && (!name || strcmp(name, choice->network) != 0)))
			continue;
		if (arrange_network(json_object_get(arranged, "networks"), network, choice, number_of(answer, "now")))
			continue;
		json_decref(arranged);
		return NULL;
	}
	return arranged;
}

/* What is compared with */

static bool same_value(const json_t *a, const json_t *b, const char *key)
{
	const json_t *first = json_object_get(a, key), *second = json_object_get(b, key);

	return json_equal(first, second) || ((!first || json_is_null(first)) && (!second || json_is_null(second)));
}

static bool same_row(const json_t *a, const json_t *b)
{
	bool by_name = text_of(a, "name");

	return same_value(a, b, "app") && (text_of(a, "app") || same_value(a, b, "src")) && same_value(a, b, "name") &&
	       (by_name || same_value(a, b, "dst")) && same_value(a, b, "port") && same_value(a, b, "proto");
}

static const json_t *find_network(const json_t *answer, const json_t *network)
{
	json_t *other;
	size_t index;

	json_array_foreach(json_object_get(answer, "networks"), index, other)
	{
		if (same_value(other, network, "network"))
			return other;
	}
	return NULL;
}

static const json_t *find_row(const json_t *network, const json_t *row)
{
	json_t *other;
	size_t index;

	json_array_foreach(json_object_get(network, "rows"), index, other)
	{
		if (same_row(other, row))
			return other;
	}
	return NULL;
}

/* How much more than before; 0 also when it is less: the gateway was started anew. */
static json_int_t growth(const json_t *row, const json_t *before, const char *key)
{
	json_int_t more = number_of(row, key) - number_of(before, key);

	return more > 0 ? more : 0;
}

/* Cells */

struct view {
	const struct terminal *terminal;
	struct terminal_table *table;
	json_int_t now;
	bool compared;
	double seconds;
	bool audits; /* there is a column for it */
};

static void put_cell(struct view *view, enum terminal_colour colour, const char *text)
{
	terminal_table_cell(view->table, view->terminal, colour, text);
}

static void put_app(struct view *view, const json_t *row)
{
	const char *app = text_of(row, "app"), *source = text_of(row, "src");
	char text[TEXT_MAX];

	if (app && source && (!view->terminal->width || view->terminal->width >= ADDRESSES_FROM))
		snprintf(text, sizeof(text), "%s (%s)", app, source);
	else
		snprintf(text, sizeof(text), "%s", app ? app : source ? source : "(all others)");
	put_cell(view, TERMINAL_PLAIN, text);
}

static void put_destination(struct view *view, const json_t *row)
{
	const char *name = text_of(row, "name"), *address = text_of(row, "dst"), *protocol = text_of(row, "proto");
	bool others = !name && !address;
	char port[TEXT_MAX];

	put_cell(view, others ? TERMINAL_PLAIN : TERMINAL_BOLD, others ? "(all others)" : name ? name : address);
	if (json_is_integer(json_object_get(row, "port")))
		snprintf(port, sizeof(port), "%lld/%s", (long long)number_of(row, "port"), protocol ? protocol : "?");
	else
		snprintf(port, sizeof(port), "%s", protocol ? protocol : "-");
	put_cell(view, TERMINAL_PLAIN, port);
}

/* "12", "12 +3" */
static void put_count(struct view *view, const json_t *row, const json_t *before, const char *key, enum terminal_colour colour)
{
	json_int_t count = number_of(row, key), more = view->compared ? growth(row, before, key) : 0;
	char text[TEXT_MAX];

	if (count == 0)
		put_cell(view, TERMINAL_DIM, "-");
	else if (more == 0 || (!before && more == count))
		put_cell(view, colour, (snprintf(text, sizeof(text), "%lld", (long long)count), text));
	else
		put_cell(view, colour, (snprintf(text, sizeof(text), "%lld +%lld", (long long)count, (long long)more), text));
}

static void put_bytes(struct view *view, json_int_t bytes)
{
	char text[TERMINAL_NUMBER_MAX];

	if (bytes <= 0)
		put_cell(view, TERMINAL_DIM, "-");
	else
		put_cell(view, TERMINAL_PLAIN, terminal_bytes((uint64_t)bytes, text));
}

static json_int_t rate(const struct view *view, const json_t *row, const json_t *before, const char *key)
{
	return before && view->seconds > 0 ? (json_int_t)((double)growth(row, before, key) / view->seconds) : 0;
}

static void put_last(struct view *view, const json_t *row)
{
	const char *reason = text_of(row, "reason");
	bool urgent = is_recent(row, view->now) && number_of(row, "denied") > 0;
	char text[TERMINAL_NUMBER_MAX];

	put_cell(view, TERMINAL_PLAIN, terminal_age(view->now - number_of(row, "last_seen"), text));
	put_cell(view, urgent && reason ? TERMINAL_RED : TERMINAL_DIM, reason ? reason : "");
}

static void put_row(struct view *view, const json_t *row, const json_t *before)
{
	put_app(view, row);
	put_destination(view, row);
	put_count(view, row, before, "allowed", TERMINAL_GREEN);
	put_count(view, row, before, "denied", TERMINAL_RED);
	if (view->audits)
		put_count(view, row, before, "audited", TERMINAL_YELLOW);
	put_bytes(view, number_of(row, "bytes_out"));
	put_bytes(view, number_of(row, "bytes_in"));
	if (view->compared) {
		put_bytes(view, rate(view, row, before, "bytes_out"));
		put_bytes(view, rate(view, row, before, "bytes_in"));
	}
	put_last(view, row);
}

/* Networks */

static void print_head(const json_t *network, const struct terminal *terminal, FILE *stream)
{
	const char *name = text_of(network, "network"), *mode = text_of(network, "mode");
	char text[TEXT_MAX], out[TERMINAL_NUMBER_MAX], in[TERMINAL_NUMBER_MAX];
	bool known = name && name[0];

	terminal_put(terminal, stream, terminal_escape(terminal, known ? name : "(no network)", text, sizeof(text)),
		     (struct terminal_place){.colour = TERMINAL_BOLD});
	if (known && mode) {
		fputs("  ", stream);
		terminal_put(terminal, stream, terminal_escape(terminal, mode, text, sizeof(text)),
			     (struct terminal_place){.colour = strcmp(mode, "audit") == 0 ? TERMINAL_YELLOW : TERMINAL_PLAIN});
	}
	snprintf(text, sizeof(text), "  %lld open, %lld allowed, %lld denied, %lld audited, %s out, %s in",
		 (long long)number_of(network, "open"), (long long)number_of(network, "allowed"), (long long)number_of(network, "denied"),
		 (long long)number_of(network, "audited"), terminal_bytes((uint64_t)number_of(network, "bytes_out"), out),
		 terminal_bytes((uint64_t)number_of(network, "bytes_in"), in));
	fputs(text, stream);
	if (number_of(network, "inbound") > 0)
		fprintf(stream, ", %lld came in", (long long)number_of(network, "inbound"));
	fputc('\n', stream);
}

/* "  name-not-allowed 12, port-not-allowed 3": why things were denied or would have been. */
static void print_reasons(const json_t *network, const struct terminal *terminal, FILE *stream)
{
	json_t *entry;
	size_t index, printed = 0;
	char text[TEXT_MAX];

	json_array_foreach(json_object_get(network, "reasons"), index, entry)
	{
		const char *reason = text_of(entry, "reason");
		json_int_t count = number_of(entry, "denied") + number_of(entry, "audited");

		if (!reason || !count)
			continue;
		fputs(printed++ ? ", " : "  ", stream);
		terminal_put(terminal, stream, terminal_escape(terminal, reason, text, sizeof(text)),
			     (struct terminal_place){.colour = TERMINAL_DIM});
		fprintf(stream, " %lld", (long long)count);
	}
	if (printed)
		fputc('\n', stream);
}

static size_t choose_columns(const struct view *view, struct terminal_column columns[static COLUMNS_MAX])
{
	static const struct {
		struct terminal_column column;
		bool audits, compares;
	} all[] = {
		{{"app", false, 8}, false, false},   {{"destination", false, 14}, false, false},
		{{"port", false, 0}, false, false},  {{"ok", true, 0}, false, false},
		{{"denied", true, 0}, false, false}, {{"audited", true, 0}, true, false},
		{{"out", true, 0}, false, false},    {{"in", true, 0}, false, false},
		{{"out/s", true, 0}, false, true},   {{"in/s", true, 0}, false, true},
		{{"last", true, 0}, false, false},   {{"reason", false, 6}, false, false},
	};
	size_t count = 0;

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if ((!all[i].audits || view->audits) && (!all[i].compares || view->compared))
			columns[count++] = all[i].column;
	}
	return count;
}

static bool print_network(struct view *view, const json_t *network, const json_t *before, FILE *stream)
{
	struct terminal_column columns[COLUMNS_MAX];
	const json_t *rows = json_object_get(network, "rows");
	json_t *row;
	size_t index;
	bool good;

	print_head(network, view->terminal, stream);
	print_reasons(network, view->terminal, stream);
	if (json_array_size(rows) == 0)
		return true;
	view->audits = number_of(network, "audited") > 0;
	view->table = terminal_table_new(columns, choose_columns(view, columns));
	if (!view->table)
		return false;
	json_array_foreach(rows, index, row)
	{
		put_row(view, row, find_row(before, row));
	}
	good = terminal_table_print(view->table, view->terminal, stream, INDENT);
	terminal_table_free(view->table);
	if (number_of(network, "left_out"))
		fprintf(stream, "%*s(%lld more)\n", INDENT, "", (long long)number_of(network, "left_out"));
	return good;
}

bool stats_view_print(const json_t *answer, const json_t *before, double seconds, const struct terminal *terminal, FILE *stream)
{
	struct view view = {.terminal = terminal, .now = number_of(answer, "now"), .compared = before, .seconds = seconds};
	json_t *network;
	size_t index;
	bool good = true;

	json_array_foreach(json_object_get(answer, "networks"), index, network)
	{
		if (index > 0)
			fputc('\n', stream);
		good &= print_network(&view, network, find_network(before, network), stream);
	}
	return good;
}
