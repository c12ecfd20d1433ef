/* SPDX-License-Identifier: MIT */
/*
 * Numbers of who did what.
 *
 * Theory of operation
 *
 * Three levels of tables: networks, their apps, the rows of an app. An app is known by the name of its container, or else by its address;
 * when the name of an address becomes known, the entry gets it. Apps and rows are also in lists, seen longest ago first. When there are too
 * many, the first of a list is added to the row of all others and goes; when there are too many in all, that happens where most of them
 * are, so that an app which tries all names and ports pushes out no rows but its own.
 *
 * Bytes. A flow tells what it carried when it is over; what open flows have carried is known from looks at all of them. A row keeps
 *
 *	before	what ended before the last look began
 *	since	what ended after that
 *	open	what flows that the look saw had carried
 *
 * A flow that the look saw and that ended since is in `open` and in `since`, where it has at least as much. So before + max(open, since) is
 * never too much; it is too little by what happened since the look; and when the next look moves `since` to `before` it cannot become less.
 */
#include "gateway/report/stats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "common/hash.h"

/* Compared as bytes, as far as the name goes (key_size()): made by make_key(), which zeroes the padding. */
struct row_key {
	struct address destination; /* of rows without name */
	uint16_t port;
	uint8_t protocol;
	bool question, has_port;
	struct domain name;
};

struct entry {
	UT_hash_handle hh; /* in app->rows */
	struct row_key key;
	struct entry *prev, *next; /* in app->oldest */
	struct stats_row row;      /* network, app and source are the app's */
	struct traffic before, since, during, open, looking;
	uint64_t open_count;
	uint64_t look; /* the one that `during`, `looking` and `looking_count` are of */
	uint64_t looking_count;
	uint64_t told; /* allowed flows, to stats_each_news() ... */
	struct traffic told_traffic;
};

struct app {
	char name[APPS_NAME_MAX + 1];
	struct address source;
	struct app *prev, *next; /* in network->oldest */
	struct entry *rows;      /* owned, hash */
	struct entry *oldest;    /* list, seen longest ago first */
	struct entry *others;    /* owned: all other destinations; NULL: none yet */
	size_t count;            /* rows without `others` */
};

struct tally {
	UT_hash_handle hh; /* in stats->networks, by its name */
	struct stats_network sums;
	struct app *oldest; /* owned, list, seen longest ago first */
	struct app *others; /* owned: all other apps; NULL: none yet */
	size_t app_count;
	size_t count; /* rows of all its apps */
};

struct stats {
	struct tally *networks; /* owned, hash; none goes before the end */
	struct tally *latest;   /* that was searched for, or NULL: decisions about one network come in a row */
	size_t count;
	uint64_t look;
	time_t look_wall; /* when it began */
	uint64_t changes;
};

struct stats *stats_new(void)
{
	return calloc(1, sizeof(struct stats));
}

static void free_app(struct app *app)
{
	struct entry *entry, *next;

	if (!app)
		return;
	HASH_ITER (hh, app->rows, entry, next) {
		HASH_DEL(app->rows, entry);
		free(entry);
	}
	free(app->others);
	free(app);
}

void stats_free(struct stats *stats)
{
	struct tally *tally, *next;
	struct app *app, *next_app;

	if (!stats)
		return;
	HASH_ITER (hh, stats->networks, tally, next) {
		HASH_DEL(stats->networks, tally);
		DL_FOREACH_SAFE (tally->oldest, app, next_app)
			free_app(app);
		free_app(tally->others);
		free(tally);
	}
	free(stats);
}

static struct tally *new_network(struct stats *stats, const char *name)
{
	struct tally *tally = calloc(1, sizeof(*tally));

	if (!tally)
		return NULL;
	snprintf(tally->sums.network, sizeof(tally->sums.network), "%s", name);
	HASH_ADD_KEYPTR(hh, stats->networks, tally->sums.network, strlen(tally->sums.network), tally);
	if (tally->hh.tbl)
		return tally;
	free(tally);
	return NULL;
}

static struct tally *find_network(struct stats *stats, const char *name)
{
	struct tally *tally = stats->latest;

	if (tally && strcmp(tally->sums.network, name) == 0)
		return tally;
	HASH_FIND_STR(stats->networks, name, tally);
	if (!tally)
		tally = new_network(stats, name);
	stats->latest = tally;
	return tally;
}

static void take_traffic(struct traffic *from, const struct traffic *less)
{
	from->bytes_out -= less->bytes_out;
	from->bytes_in -= less->bytes_in;
	from->packets_out -= less->packets_out;
	from->packets_in -= less->packets_in;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static struct traffic traffic_of(const struct entry *entry)
{
	struct traffic sum = {
		.bytes_out = larger(entry->open.bytes_out, entry->since.bytes_out),
		.bytes_in = larger(entry->open.bytes_in, entry->since.bytes_in),
		.packets_out = larger(entry->open.packets_out, entry->since.packets_out),
		.packets_in = larger(entry->open.packets_in, entry->since.packets_in),
	};

	decision_add_traffic(&sum, &entry->before);
	return sum;
}

/* The row of all others of an app. Return: NULL when out of memory. */
static struct entry *want_others(struct app *app)
{
	if (!app->others)
		app->others = calloc(1, sizeof(*app->others));
	return app->others;
}

/* Return: false when out of memory; nothing has changed then. */
static bool fold(struct entry *entry, struct app *into)
{
	struct entry *others = want_others(into);
	const struct stats_row *row = &entry->row;

	if (!others)
		return false;
	others->row.numbers.allowed += row->numbers.allowed;
	others->row.numbers.denied += row->numbers.denied;
	others->row.numbers.audited += row->numbers.audited;
	others->told += entry->told;
	decision_add_traffic(&others->told_traffic, &entry->told_traffic);
	/* What is open now is seen again by the next look, or tells when it ends. */
	decision_add_traffic(&others->before, &entry->before);
	decision_add_traffic(&others->before, &entry->since);
	if (!others->row.first_seen || row->first_seen < others->row.first_seen)
		others->row.first_seen = row->first_seen;
	if (row->last_seen > others->row.last_seen)
		others->row.last_seen = row->last_seen;
	if (row->last_denied > others->row.last_denied) {
		others->row.last_denied = row->last_denied;
		others->row.reason = row->reason;
		memcpy(others->row.rule, row->rule, sizeof(others->row.rule));
	}
	return true;
}

/* The app's row that was seen longest ago goes. Return: false when out of memory. */
static bool drop_row(struct stats *stats, struct tally *tally, struct app *app)
{
	struct entry *entry = app->oldest;

	if (!fold(entry, app))
		return false;
	HASH_DEL(app->rows, entry);
	DL_DELETE(app->oldest, entry);
	app->count--;
	tally->count--;
	stats->count--;
	free(entry);
	return true;
}

static struct app *want_other_apps(struct tally *tally)
{
	if (!tally->others)
		tally->others = calloc(1, sizeof(*tally->others));
	return tally->others;
}

/* The network's app that was seen longest ago goes. Return: false when out of memory. */
static bool drop_app(struct stats *stats, struct tally *tally)
{
	struct app *app = tally->oldest, *others = want_other_apps(tally);

	if (!app || !others || !want_others(others))
		return false;
	while (app->oldest)
		if (!drop_row(stats, tally, app))
			return false;
	if (app->others && !fold(app->others, others))
		return false;
	DL_DELETE(tally->oldest, app);
	tally->app_count--;
	free_app(app);
	return true;
}

static bool make_room(struct stats *stats)
{
	struct tally *tally, *next, *most = NULL;
	struct app *app, *largest = NULL;

	HASH_ITER (hh, stats->networks, tally, next) {
		if (!most || tally->count > most->count)
			most = tally;
	}
	if (!most)
		return false;
	DL_FOREACH (most->oldest, app) {
		if (!largest || app->count > largest->count)
			largest = app;
	}
	return largest && largest->oldest && drop_row(stats, most, largest);
}

static struct app *new_app(struct stats *stats, struct tally *tally, const char *name, const struct address *source)
{
	struct app *app;

	if (tally->app_count >= STATS_APPS_MAX && !drop_app(stats, tally))
		return NULL;
	app = calloc(1, sizeof(*app));
	if (!app)
		return NULL;
	snprintf(app->name, sizeof(app->name), "%s", name);
	app->source = *source;
	DL_APPEND(tally->oldest, app);
	tally->app_count++;
	return app;
}

/* By its name, else by its address. An app whose name was not known gets it. */
static struct app *search_app(const struct tally *tally, const char *name, const struct address *source)
{
	struct app *app, *by_address = NULL;

	DL_FOREACH (tally->oldest, app) {
		if (name[0] && strcmp(app->name, name) == 0)
			return app;
		if (address_equal(&app->source, source) && (!name[0] || !app->name[0]))
			by_address = app;
	}
	return by_address;
}

static struct app *find_app(struct stats *stats, struct tally *tally, const char *name, const struct address *source)
{
	/* Mostly the one of before. */
	struct app *app = tally->oldest ? tally->oldest->prev : NULL;

	if (!source->family && !name[0])
		return want_other_apps(tally);
	if (!app || !name[0] || strcmp(app->name, name) != 0)
		app = search_app(tally, name, source);
	if (!app)
		return new_app(stats, tally, name, source);
	if (name[0] && strcmp(app->name, name) != 0)
		snprintf(app->name, sizeof(app->name), "%s", name);
	if (source->family)
		app->source = *source;
	DL_DELETE(tally->oldest, app);
	DL_APPEND(tally->oldest, app);
	return app;
}

/* Which row: what decisions and stored rows have in common. They are large, so nothing is copied to search for one. */
struct place {
	const char *app;
	const struct address *source, *destination;
	const struct domain *name;
	bool question, has_port;
	uint16_t port;
	uint8_t protocol;
};

static size_t key_size(const struct row_key *key)
{
	return offsetof(struct row_key, name.wire) + key->name.length;
}

static void make_key(const struct place *place, struct row_key *out)
{
	memset(out, 0, offsetof(struct row_key, name.wire));
	out->name.length = place->name->length;
	memcpy(out->name.wire, place->name->wire, place->name->length);
	if (!place->name->length)
		out->destination = *place->destination;
	out->port = place->port;
	out->protocol = place->protocol;
	out->question = place->question;
	out->has_port = place->has_port;
}

static struct entry *new_entry(struct stats *stats, struct tally *tally, struct app *app, const struct place *place,
			       const struct row_key *key)
{
	struct entry *entry;

	if (app->count >= STATS_ROWS_MAX ? !drop_row(stats, tally, app) : stats->count >= STATS_ALL_MAX && !make_room(stats))
		return NULL;
	entry = calloc(1, sizeof(*entry));
	if (!entry)
		return NULL;
	memcpy(&entry->key, key, key_size(key));
	HASH_ADD(hh, app->rows, key, key_size(&entry->key), entry);
	if (!entry->hh.tbl) {
		free(entry);
		return NULL;
	}
	entry->row.name = *place->name;
	entry->row.question = place->question;
	entry->row.has_port = place->has_port;
	entry->row.port = place->port;
	entry->row.protocol = place->protocol;
	DL_APPEND(app->oldest, entry);
	app->count++;
	tally->count++;
	stats->count++;
	return entry;
}

/* The entry of a place. Return: NULL when out of memory. */
static struct entry *find_entry(struct stats *stats, struct tally *tally, const struct place *place)
{
	struct app *app = find_app(stats, tally, place->app, place->source);
	struct entry *entry;
	struct row_key key;

	if (!app)
		return NULL;
	if (app == tally->others || (!place->name->length && !place->destination->family && !place->question))
		return want_others(app);
	make_key(place, &key);
	HASH_FIND(hh, app->rows, &key, key_size(&key), entry);
	if (!entry)
		entry = new_entry(stats, tally, app, place, &key);
	if (!entry)
		return NULL;
	if (place->destination->family)
		entry->row.destination = *place->destination;
	DL_DELETE(app->oldest, entry);
	DL_APPEND(app->oldest, entry);
	return entry;
}

static struct place place_of_row(const struct stats_row *row)
{
	return (struct place){.app = row->app,
			      .source = &row->source,
			      .destination = &row->destination,
			      .name = &row->name,
			      .question = row->question,
			      .has_port = row->has_port,
			      .port = row->port,
			      .protocol = row->protocol};
}

/* Which row a decision belongs to. */
static struct place place_of(const struct decision *decision)
{
	bool question = decision->kind == DECISION_QUESTION;

	return (struct place){.app = decision->app,
			      .source = &decision->source,
			      .destination = &decision->destination,
			      .name = decision_subject(decision),
			      .question = question,
			      .has_port = decision->has_port,
			      .port = decision->has_port ? decision->port : 0,
			      .protocol = question ? 0 : decision->protocol};
}

static struct entry *entry_of(struct stats *stats, const struct decision *decision)
{
	struct tally *tally = find_network(stats, decision->network);
	struct place place = place_of(decision);

	return tally ? find_entry(stats, tally, &place) : NULL;
}

static void see(struct stats_row *row, time_t wall)
{
	if (!row->first_seen)
		row->first_seen = wall;
	row->last_seen = wall;
}

static void count_refusal(struct stats_row *row, const struct decision *decision, time_t wall)
{
	if (decision->event == DECISION_AUDIT)
		row->numbers.audited += decision->count;
	else
		row->numbers.denied += decision->count;
	row->last_denied = wall;
	row->reason = decision->reason;
	snprintf(row->rule, sizeof(row->rule), "%.*s", (int)sizeof(row->rule) - 1, decision->rule);
}

/* What the entry keeps of the look that is under way. */
static void begin_look(const struct stats *stats, struct entry *entry)
{
	if (entry->look == stats->look)
		return;
	entry->look = stats->look;
	entry->during = entry->looking = (struct traffic){0};
	entry->looking_count = 0;
}

static void count_ended(const struct stats *stats, struct entry *entry, const struct traffic *traffic)
{
	begin_look(stats, entry);
	decision_add_traffic(&entry->since, traffic);
	decision_add_traffic(&entry->during, traffic);
}

static void count_sums(struct stats *stats, const struct decision *decision)
{
	bool summed = decision->event == DECISION_INBOUND || decision_is_refusal(decision);
	struct tally *tally = summed ? find_network(stats, decision->network) : NULL;

	if (!tally)
		return;
	if (decision->event == DECISION_DENIED)
		tally->sums.denied[decision->reason] += decision->count;
	else if (decision->event == DECISION_AUDIT)
		tally->sums.audited[decision->reason] += decision->count;
	else if (decision->event == DECISION_INBOUND)
		tally->sums.inbound += decision->count;
}

void stats_count(struct stats *stats, const struct decision *decision, time_t wall)
{
	struct entry *entry;

	stats->changes++;
	count_sums(stats, decision);
	if (decision->event == DECISION_INBOUND)
		return;
	entry = entry_of(stats, decision);
	if (!entry)
		return;
	see(&entry->row, wall);
	switch (decision->event) {
	case DECISION_DENIED:
	case DECISION_AUDIT: count_refusal(&entry->row, decision, wall); break;
	case DECISION_ALLOWED: entry->row.numbers.allowed += decision->count; break;
	case DECISION_ENDED: count_ended(stats, entry, &decision->traffic); break;
	case DECISION_INBOUND: break;
	}
}

void stats_look_begins(struct stats *stats, time_t wall)
{
	stats->look++;
	stats->look_wall = wall;
}

void stats_look_flow(struct stats *stats, const struct decision *flow)
{
	struct entry *entry = entry_of(stats, flow);

	if (!entry)
		return;
	see(&entry->row, stats->look_wall);
	begin_look(stats, entry);
	decision_add_traffic(&entry->looking, &flow->traffic);
	entry->looking_count += flow->count;
}

static void end_look(void *context, struct entry *entry)
{
	const struct stats *stats = context;

	begin_look(stats, entry);
	decision_add_traffic(&entry->before, &entry->since);
	take_traffic(&entry->before, &entry->during);
	entry->since = entry->during;
	entry->open = entry->looking;
	entry->open_count = entry->looking_count;
}

static void each_entry(struct app *app, void (*visit)(void *context, struct entry *entry), void *context)
{
	struct entry *entry;

	DL_FOREACH (app->oldest, entry)
		visit(context, entry);
	if (app->others)
		visit(context, app->others);
}

void stats_look_ends(struct stats *stats)
{
	struct tally *tally, *next;
	struct app *app;

	HASH_ITER (hh, stats->networks, tally, next) {
		DL_FOREACH (tally->oldest, app)
			each_entry(app, end_look, stats);
		if (tally->others)
			each_entry(tally->others, end_look, stats);
	}
	stats->changes++;
}

/* Somebody who visits rows. */
struct visitor {
	void (*visit)(void *context, const struct stats_row *row);
	void *context;
	const struct tally *tally;
	const struct app *app;
};

static struct stats_row row_of(const struct visitor *visitor, const struct entry *entry)
{
	struct stats_row row = entry->row;

	memcpy(row.network, visitor->tally->sums.network, sizeof(row.network));
	memcpy(row.app, visitor->app->name, sizeof(row.app));
	row.source = visitor->app->source;
	return row;
}

static void visit_entry(void *context, struct entry *entry)
{
	const struct visitor *visitor = context;
	struct stats_row row = row_of(visitor, entry);

	row.numbers.traffic = traffic_of(entry);
	row.numbers.ended = entry->before;
	decision_add_traffic(&row.numbers.ended, &entry->since);
	row.numbers.open = entry->open_count;
	visitor->visit(visitor->context, &row);
}

static void each_of_network(const struct tally *tally, void (*visit)(void *context, struct entry *entry), struct visitor *visitor)
{
	struct app *app;

	visitor->tally = tally;
	DL_FOREACH (tally->oldest, app) {
		visitor->app = app;
		each_entry(app, visit, visitor);
	}
	visitor->app = tally->others;
	if (tally->others)
		each_entry(tally->others, visit, visitor);
}

void stats_each(const struct stats *stats, void (*visit)(void *context, const struct stats_row *row), void *context)
{
	struct visitor visitor = {.visit = visit, .context = context};
	struct tally *tally, *next;

	HASH_ITER (hh, stats->networks, tally, next)
		each_of_network(tally, visit_entry, &visitor);
}

static uint64_t beyond(uint64_t now, uint64_t told)
{
	return now > told ? now - told : 0;
}

/* What is new since it was told; now it is told. */
static struct stats_numbers take_news(struct entry *entry)
{
	struct traffic now = traffic_of(entry), *told = &entry->told_traffic;
	struct stats_numbers news = {
		.allowed = beyond(entry->row.numbers.allowed, entry->told),
		.traffic.bytes_out = beyond(now.bytes_out, told->bytes_out),
		.traffic.bytes_in = beyond(now.bytes_in, told->bytes_in),
		.traffic.packets_out = beyond(now.packets_out, told->packets_out),
		.traffic.packets_in = beyond(now.packets_in, told->packets_in),
	};

	entry->told += news.allowed;
	decision_add_traffic(told, &news.traffic);
	return news;
}

static void visit_news(void *context, struct entry *entry)
{
	const struct visitor *visitor = context;
	bool allowed = entry->row.numbers.allowed > 0;
	struct stats_row row = row_of(visitor, entry);

	row.numbers = take_news(entry);
	if (visitor->visit && allowed && (row.numbers.allowed || row.numbers.traffic.packets_out || row.numbers.traffic.packets_in))
		visitor->visit(visitor->context, &row);
}

void stats_each_news(struct stats *stats, const char *network, void (*visit)(void *context, const struct stats_row *row), void *context)
{
	struct visitor visitor = {.visit = visit, .context = context};
	struct tally *tally;

	HASH_FIND_STR(stats->networks, network, tally);
	if (tally)
		each_of_network(tally, visit_news, &visitor);
}

static void count_row(void *context, const struct stats_row *row)
{
	(void)row;
	(*(size_t *)context)++;
}

size_t stats_count_rows(const struct stats *stats)
{
	size_t count = 0;

	stats_each(stats, count_row, &count);
	return count;
}

void stats_each_network(const struct stats *stats, void (*visit)(void *context, const struct stats_network *network), void *context)
{
	struct tally *tally, *next;

	HASH_ITER (hh, stats->networks, tally, next)
		visit(context, &tally->sums);
}

uint64_t stats_changes(const struct stats *stats)
{
	return stats->changes;
}

void stats_restore(struct stats *stats, const struct stats_row *row)
{
	struct tally *tally = find_network(stats, row->network);
	struct place place = place_of_row(row);
	struct entry *entry = tally ? find_entry(stats, tally, &place) : NULL;
	struct stats_row *out;

	if (!entry)
		return;
	out = &entry->row;
	out->numbers.allowed += row->numbers.allowed;
	out->numbers.denied += row->numbers.denied;
	out->numbers.audited += row->numbers.audited;
	decision_add_traffic(&entry->before, &row->numbers.ended);
	entry->told += row->numbers.allowed;
	decision_add_traffic(&entry->told_traffic, &row->numbers.traffic);
	out->first_seen = row->first_seen;
	out->last_seen = row->last_seen;
	out->last_denied = row->last_denied;
	out->reason = row->reason;
	memcpy(out->rule, row->rule, sizeof(out->rule));
}

void stats_restore_network(struct stats *stats, const struct stats_network *network)
{
	struct tally *tally = find_network(stats, network->network);

	if (!tally)
		return;
	tally->sums.inbound += network->inbound;
	for (size_t i = 0; i < REASON_COUNT; i++) {
		tally->sums.denied[i] += network->denied[i];
		tally->sums.audited[i] += network->audited[i];
	}
}
