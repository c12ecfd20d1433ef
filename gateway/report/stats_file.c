/* SPDX-License-Identifier: MIT */
/*
 * Statistics as JSON.
 *
 * Theory of operation: the file is JSON lines: one with the form's version, one for each network, one for each row. All rows are copied
 * (there are at most some ten thousand), then written a part in each call to a second file, which takes the place of the first when it is
 * whole; or to memory, which is put away when it is whole. Keys that a reader does not know are ignored, and what it misses counts as 0. A
 * line that is damaged is left out.
 */
#include "gateway/report/stats_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gateway/memory.h"

#define FILE_NAME    "stats.jsonl"
#define FILE_NEW     "stats.jsonl.new"
#define FILE_VERSION 1
#define QUESTION     "dns" /* `proto` of rows that are questions */

struct stats_file {
	struct stats *stats; /* the caller's */
	struct log *log;
	int directory;          /* the caller's; -1: none */
	int memory;             /* the caller's; -1: none */
	uint64_t seen;          /* stats_changes() of what is written */
	uint64_t due;           /* ms: not written before */
	FILE *out;              /* owned; NULL: nothing is being written */
	struct stats_row *rows; /* owned: the copy that is being written */
	size_t count, next;
	char *text; /* owned by `out`, then by us: what goes into the memory */
	size_t text_size;
	bool said;
};

static json_t *address_json(const struct address *address)
{
	char text[ADDRESS_TEXT_MAX];

	return address->family ? json_string(address_format(address, text)) : json_null();
}

static json_t *text_json(const char *text)
{
	return text[0] ? json_string(text) : json_null();
}

static json_t *name_json(const struct domain *name)
{
	char text[DOMAIN_TEXT_MAX];

	return name->length ? json_string(domain_format(name, text)) : json_null();
}

static json_t *time_json(time_t time)
{
	return time ? json_integer(time) : json_null();
}

static json_t *protocol_json(const struct stats_row *row)
{
	char text[8];

	if (row->question)
		return json_string(QUESTION);
	return row->protocol ? json_string(decision_protocol_name(row->protocol, text)) : json_null();
}

/* @traffic: all of it, or, to be kept, the part of it that does not come back with the next look. */
static json_t *row_json(const struct stats_row *row, const struct traffic *traffic)
{
	const struct stats_numbers *numbers = &row->numbers;
	bool refused = row->last_denied != 0;

	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "app",
			 text_json(row->app), "src", address_json(&row->source), "name", name_json(&row->name), "dst",
			 address_json(&row->destination), "port", row->has_port ? json_integer(row->port) : json_null(), "proto",
			 protocol_json(row), "allowed", (json_int_t)numbers->allowed, "denied", (json_int_t)numbers->denied, "audited",
			 (json_int_t)numbers->audited, "open", (json_int_t)numbers->open, "bytes_out", (json_int_t)traffic->bytes_out,
			 "bytes_in", (json_int_t)traffic->bytes_in, "packets_out", (json_int_t)traffic->packets_out, "packets_in",
			 (json_int_t)traffic->packets_in, "first_seen", time_json(row->first_seen), "last_seen", time_json(row->last_seen),
			 "last_denied", time_json(row->last_denied), "reason",
			 refused ? json_string(reason_name(row->reason)) : json_null(), "rule", text_json(row->rule));
}

static json_t *reasons_json(const struct stats_network *network)
{
	json_t *list = json_array();

	for (int reason = REASON_NONE + 1; reason < REASON_COUNT; reason++) {
		uint64_t denied = network->denied[reason], audited = network->audited[reason];

		if (denied || audited)
			json_array_append_new(list, json_pack("{s:s, s:I, s:I}", "reason", reason_name((enum reason)reason), "denied",
							      (json_int_t)denied, "audited", (json_int_t)audited));
	}
	return list;
}

/* Reading */

static uint64_t number_of(const json_t *object, const char *key)
{
	json_int_t value = json_integer_value(json_object_get(object, key));

	return value > 0 ? (uint64_t)value : 0;
}

static enum reason reason_of(const json_t *object)
{
	const char *text = json_string_value(json_object_get(object, "reason"));

	for (int reason = REASON_NONE + 1; text && reason < REASON_COUNT; reason++) {
		if (strcmp(text, reason_name((enum reason)reason)) == 0)
			return (enum reason)reason;
	}
	return REASON_NONE;
}

static void read_address(const json_t *object, const char *key, struct address *out)
{
	const char *text = json_string_value(json_object_get(object, key));

	if (!text || !address_parse(text, out))
		out->family = 0;
}

static void read_text(const json_t *object, const char *key, char *out, size_t size)
{
	const char *text = json_string_value(json_object_get(object, key));

	snprintf(out, size, "%s", text ? text : "");
}

static void read_protocol(const json_t *object, struct stats_row *out)
{
	const char *text = json_string_value(json_object_get(object, "proto"));
	char name[8];

	out->question = text && strcmp(text, QUESTION) == 0;
	for (unsigned int protocol = 1; text && !out->question && protocol <= UINT8_MAX; protocol++) {
		if (strcmp(text, decision_protocol_name((uint8_t)protocol, name)) == 0)
			out->protocol = (uint8_t)protocol;
	}
}

static void read_numbers(const json_t *object, struct stats_numbers *out)
{
	*out = (struct stats_numbers){
		.allowed = number_of(object, "allowed"),
		.denied = number_of(object, "denied"),
		.audited = number_of(object, "audited"),
		.ended = {.bytes_out = number_of(object, "bytes_out"),
			  .bytes_in = number_of(object, "bytes_in"),
			  .packets_out = number_of(object, "packets_out"),
			  .packets_in = number_of(object, "packets_in")},
	};
}

static void read_row(struct stats *stats, const json_t *object)
{
	const json_t *port = json_object_get(object, "port");
	const char *name = json_string_value(json_object_get(object, "name"));
	struct stats_row row = {.first_seen = (time_t)number_of(object, "first_seen"),
				.last_seen = (time_t)number_of(object, "last_seen"),
				.last_denied = (time_t)number_of(object, "last_denied"),
				.reason = reason_of(object)};

	read_text(object, "network", row.network, sizeof(row.network));
	read_text(object, "app", row.app, sizeof(row.app));
	read_text(object, "rule", row.rule, sizeof(row.rule));
	read_address(object, "src", &row.source);
	read_address(object, "dst", &row.destination);
	read_protocol(object, &row);
	read_numbers(object, &row.numbers);
	row.has_port = json_is_integer(port) && json_integer_value(port) >= 0 && json_integer_value(port) <= UINT16_MAX;
	row.port = row.has_port ? (uint16_t)json_integer_value(port) : 0;
	if (name && domain_parse(name, &row.name))
		row.name.length = 0; /* an odd one, which no app could have meant: it joins all others */
	stats_restore(stats, &row);
}

static void read_network(struct stats *stats, const json_t *object)
{
	struct stats_network network = {.inbound = number_of(object, "inbound")};
	size_t index;
	json_t *one;

	read_text(object, "network", network.network, sizeof(network.network));
	json_array_foreach(json_object_get(object, "reasons"), index, one)
	{
		network.denied[reason_of(one)] += number_of(one, "denied");
		network.audited[reason_of(one)] += number_of(one, "audited");
	}
	stats_restore_network(stats, &network);
}

static void read_line(struct stats *stats, const json_t *object)
{
	if (json_object_get(object, "reasons"))
		read_network(stats, object);
	else if (json_object_get(object, "first_seen"))
		read_row(stats, object);
}

/* Return: false when the file is of another version. */
static bool read_stream(struct stats *stats, FILE *stream)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t size;
	bool known = true;

	while (known && (size = getline(&line, &room, stream)) > 0) {
		json_t *object = json_loadb(line, (size_t)size, 0, NULL);
		const json_t *version = json_object_get(object, "version");

		known = !version || json_integer_value(version) == FILE_VERSION;
		if (known)
			read_line(stats, object);
		json_decref(object);
	}
	free(line);
	return known;
}

static FILE *open_file(const struct stats_file *file)
{
	int fd = openat(file->directory, FILE_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	FILE *stream = fd >= 0 ? fdopen(fd, "r") : NULL;

	if (!stream && fd >= 0)
		close(fd);
	return stream;
}

bool stats_file_restore(struct stats_file *file)
{
	void *bytes = NULL;
	size_t size = 0;
	FILE *stream = NULL;

	if (file->directory >= 0)
		stream = open_file(file);
	else if (file->memory >= 0 && memory_get(file->memory, &bytes, &size) == 0 && size > 0)
		stream = fmemopen(bytes, size, "r");
	if (stream && !read_stream(file->stats, stream))
		log_say(file->log, LOG_WARNING, FILE_NAME " in the state directory is of another version: statistics begin anew");
	if (stream)
		fclose(stream);
	free(bytes);
	file->seen = stats_changes(file->stats);
	return stream != NULL;
}

struct stats_file *stats_file_new(int directory, int memory, struct stats *stats, struct log *log)
{
	struct stats_file *file = calloc(1, sizeof(*file));

	if (file)
		*file = (struct stats_file){.stats = stats, .log = log, .directory = directory, .memory = memory};
	return file;
}

static void close_out(struct stats_file *file)
{
	if (file->out)
		fclose(file->out);
	file->out = NULL;
	free(file->text);
	file->text = NULL;
	free(file->rows);
	file->rows = NULL;
	file->count = file->next = 0;
}

void stats_file_free(struct stats_file *file)
{
	if (!file)
		return;
	close_out(file);
	free(file);
}

/* Writing */

/* Takes the reference. */
static void write_json(FILE *out, json_t *object)
{
	if (object) {
		(void)json_dumpf(object, out, JSON_COMPACT);
		(void)putc('\n', out);
	}
	json_decref(object);
}

static void write_network(void *context, const struct stats_network *network)
{
	write_json(context, json_pack("{s:s, s:I, s:o}", "network", network->network, "inbound", (json_int_t)network->inbound, "reasons",
				      reasons_json(network)));
}

static void copy_row(void *context, const struct stats_row *row)
{
	struct stats_file *file = context;

	file->rows[file->count++] = *row;
}

static void say_failure(struct stats_file *file, int rc)
{
	close_out(file);
	if (file->directory >= 0)
		(void)unlinkat(file->directory, FILE_NEW, 0);
	if (!file->said)
		log_say(file->log, LOG_WARNING, "statistics cannot be kept%s (%s): they begin anew with %s",
			file->directory >= 0 ? " in the state directory" : "", strerror(-rc),
			file->directory >= 0 ? "a recreated container" : "another worker");
	file->said = true;
}

static FILE *open_new(struct stats_file *file)
{
	int fd;
	FILE *out;

	if (file->directory < 0)
		return open_memstream(&file->text, &file->text_size);
	fd = openat(file->directory, FILE_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	out = fd >= 0 ? fdopen(fd, "w") : NULL;
	if (!out && fd >= 0)
		close(fd);
	return out;
}

/* Return: 0 or -errno. */
static int begin(struct stats_file *file)
{
	errno = 0;
	file->out = open_new(file);
	if (!file->out)
		return errno ? -errno : -ENOMEM;
	file->rows = calloc(stats_count_rows(file->stats) + 1, sizeof(*file->rows));
	if (!file->rows)
		return -ENOMEM;
	file->seen = stats_changes(file->stats);
	stats_each(file->stats, copy_row, file);
	write_json(file->out, json_pack("{s:i}", "version", FILE_VERSION));
	stats_each_network(file->stats, write_network, file->out);
	return 0;
}

static void write_row(struct stats_file *file, const struct stats_row *row)
{
	json_t *object = row_json(row, &row->numbers.ended);

	json_object_set_new(object, "network", json_string(row->network));
	write_json(file->out, object);
}

/* Return: 0 or -errno. */
static int put_away(struct stats_file *file)
{
	if (file->directory < 0)
		return memory_put(file->memory, file->text, file->text_size);
	return renameat(file->directory, FILE_NEW, file->directory, FILE_NAME) == 0 ? 0 : -errno;
}

static int finish(struct stats_file *file)
{
	int rc = ferror(file->out) ? -EIO : 0;

	errno = 0;
	if (fclose(file->out) != 0)
		rc = errno ? -errno : -EIO;
	file->out = NULL;
	if (rc == 0)
		rc = put_away(file);
	if (rc == 0)
		file->said = false;
	close_out(file);
	return rc;
}

void stats_file_write(struct stats_file *file, uint64_t now, bool last)
{
	size_t end;
	int rc = 0;

	if (file->directory < 0 && file->memory < 0)
		return;
	if (last)
		close_out(file); /* what was begun is of an earlier moment */
	if (!file->out) {
		if (stats_changes(file->stats) == file->seen || (now < file->due && !last))
			return;
		file->due = now + (file->directory < 0 ? STATS_MEMORY_PERIOD_MS : STATS_FILE_PERIOD_MS);
		rc = begin(file);
	}
	end = last || file->count - file->next < STATS_FILE_TURN ? file->count : file->next + STATS_FILE_TURN;
	while (rc == 0 && file->next < end)
		write_row(file, &file->rows[file->next++]);
	if (rc == 0 && file->next == file->count)
		rc = finish(file);
	if (rc != 0)
		say_failure(file, rc);
}

/* The answer to `stats` */

struct answer {
	json_t *networks; /* the list */
	const char *name; /* NULL: all */
	json_t *network;  /* the one at hand, borrowed */
};

static json_t *find_network(const struct answer *answer, const char *name)
{
	size_t index;
	json_t *one;

	json_array_foreach(answer->networks, index, one)
	{
		if (strcmp(json_string_value(json_object_get(one, "network")), name) == 0)
			return one;
	}
	return NULL;
}

static json_t *new_network(const char *name, const char *mode)
{
	return json_pack("{s:s, s:s?, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:[], s:[]}", "network", name, "mode", mode, "allowed",
			 (json_int_t)0, "denied", (json_int_t)0, "audited", (json_int_t)0, "inbound", (json_int_t)0, "open", (json_int_t)0,
			 "bytes_out", (json_int_t)0, "bytes_in", (json_int_t)0, "reasons", "rows");
}

static void add_number(json_t *object, const char *key, uint64_t more)
{
	json_object_set_new(object, key, json_integer(json_integer_value(json_object_get(object, key)) + (json_int_t)more));
}

static void answer_network(void *context, const struct stats_network *sums)
{
	struct answer *answer = context;
	json_t *network;
	uint64_t denied = 0, audited = 0;

	if (answer->name && strcmp(answer->name, sums->network) != 0)
		return;
	network = find_network(answer, sums->network);
	if (!network) { /* gone from the policy, or nobody's */
		network = new_network(sums->network, NULL);
		json_array_append_new(answer->networks, network);
	}
	for (size_t i = 0; i < REASON_COUNT; i++) {
		denied += sums->denied[i];
		audited += sums->audited[i];
	}
	add_number(network, "denied", denied);
	add_number(network, "audited", audited);
	add_number(network, "inbound", sums->inbound);
	json_object_set_new(network, "reasons", reasons_json(sums));
}

static void answer_row(void *context, const struct stats_row *row)
{
	struct answer *answer = context;
	const struct stats_numbers *numbers = &row->numbers;

	/* Rows of a network come one behind the other. */
	if (!answer->network || strcmp(json_string_value(json_object_get(answer->network, "network")), row->network) != 0)
		answer->network = find_network(answer, row->network);
	if (!answer->network)
		return;
	add_number(answer->network, "allowed", numbers->allowed);
	add_number(answer->network, "open", numbers->open);
	add_number(answer->network, "bytes_out", numbers->traffic.bytes_out);
	add_number(answer->network, "bytes_in", numbers->traffic.bytes_in);
	json_array_append_new(json_object_get(answer->network, "rows"), row_json(row, &numbers->traffic));
}

json_t *stats_json(const struct stats *stats, const struct policy *policy, const char *name, time_t wall)
{
	struct answer answer = {.networks = json_array(), .name = name};

	for (size_t i = 0; i < policy->network_count; i++) {
		const struct network *network = &policy->networks[i];

		if (!name || strcmp(name, network->name) == 0)
			json_array_append_new(answer.networks,
					      new_network(network->name, policy_is_auditing(network, wall) ? "audit" : "enforce"));
	}
	stats_each_network(stats, answer_network, &answer);
	stats_each(stats, answer_row, &answer);
	return json_pack("{s:b, s:I, s:o}", "ok", 1, "now", (json_int_t)wall, "networks", answer.networks);
}
