/* SPDX-License-Identifier: MIT */
/* Decisions in, rows out; and the file that keeps them. */
#include "gateway/report/stats.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/report/stats_file.h"

static const struct address app = {.family = AF_INET, .bytes = {10, 201, 1, 5}};
static const struct address server = {.family = AF_INET, .bytes = {203, 0, 113, 7}};

static struct decision flow(enum decision_event event, const char *name, uint16_t port)
{
	struct decision decision = {.event = event,
				    .kind = DECISION_FLOW,
				    .network = "web",
				    .source = app,
				    .app = "web-1",
				    .destination = server,
				    .has_port = true,
				    .port = port,
				    .protocol = IPPROTO_TCP,
				    .count = 1};

	if (name)
		assert_null(domain_parse(name, &decision.name));
	if (event == DECISION_DENIED || event == DECISION_AUDIT) {
		decision.reason = REASON_NAME_NOT_ALLOWED;
		strcpy(decision.rule, "default");
	}
	return decision;
}

/* What a walk finds. */
struct found {
	size_t rows, others;
	struct stats_numbers sum;
	struct stats_row row; /* the one with this name and port */
	const char *name;
	uint16_t port;
	bool has;
};

static void on_row(void *context, const struct stats_row *row)
{
	struct found *found = context;
	char text[DOMAIN_TEXT_MAX];

	found->rows++;
	found->others += !row->name.length && !row->destination.family;
	found->sum.allowed += row->numbers.allowed;
	found->sum.denied += row->numbers.denied;
	found->sum.audited += row->numbers.audited;
	found->sum.open += row->numbers.open;
	found->sum.traffic.bytes_out += row->numbers.traffic.bytes_out;
	if (found->name && row->name.length && strcmp(domain_format(&row->name, text), found->name) == 0 && row->port == found->port) {
		found->row = *row;
		found->has = true;
	}
}

static struct found look_for(const struct stats *stats, const char *name, uint16_t port)
{
	struct found found = {.name = name, .port = port};

	stats_each(stats, on_row, &found);
	return found;
}

static void decisions_are_counted_by_app_name_and_port(void **state)
{
	struct stats *stats = stats_new();
	struct decision denied = flow(DECISION_DENIED, "evil.example", 443);
	struct decision allowed = flow(DECISION_ALLOWED, "api.example", 443);
	struct decision audited = flow(DECISION_AUDIT, "evil.example", 80);
	struct found found;

	(void)state;
	denied.count = 3;
	stats_count(stats, &denied, 100);
	denied.count = 1;
	denied.reason = REASON_DENIED_BY_RULE;
	strcpy(denied.rule, "sluice.conf:7");
	stats_count(stats, &denied, 200);
	stats_count(stats, &allowed, 150);
	stats_count(stats, &audited, 160);
	found = look_for(stats, "evil.example", 443);
	assert_true(found.has);
	assert_int_equal(found.rows, 3);
	assert_int_equal(found.row.numbers.denied, 4);
	assert_int_equal(found.row.first_seen, 100);
	assert_int_equal(found.row.last_seen, 200);
	assert_int_equal(found.row.last_denied, 200);
	assert_int_equal(found.row.reason, REASON_DENIED_BY_RULE);
	assert_string_equal(found.row.rule, "sluice.conf:7");
	assert_string_equal(found.row.app, "web-1");
	assert_string_equal(found.row.network, "web");
	assert_true(address_equal(&found.row.source, &app));
	found = look_for(stats, "api.example", 443);
	assert_int_equal(found.row.numbers.allowed, 1);
	assert_int_equal(found.row.last_denied, 0);
	found = look_for(stats, "evil.example", 80);
	assert_int_equal(found.row.numbers.audited, 1);
	stats_free(stats);
}

/* What a flow itself asked for is what its app wants. */
static void a_flow_is_counted_by_the_name_inside_it(void **state)
{
	struct stats *stats = stats_new();
	struct decision inside = flow(DECISION_DENIED, "api.example", 443), nameless = flow(DECISION_DENIED, "api.example", 22);
	struct found found;

	(void)state;
	inside.reason = REASON_SNI_MISMATCH;
	inside.has_sni = true;
	assert_null(domain_parse("front.example", &inside.sni));
	nameless.reason = REASON_NO_NAME;
	nameless.has_sni = true;
	stats_count(stats, &inside, 100);
	stats_count(stats, &nameless, 100);
	found = look_for(stats, "front.example", 443);
	assert_true(found.has);
	assert_int_equal(found.row.reason, REASON_SNI_MISMATCH);
	assert_true(address_equal(&found.row.destination, &server));
	assert_false(look_for(stats, "api.example", 443).has);
	assert_true(look_for(stats, "api.example", 22).has);
	stats_free(stats);
}

static void on_network(void *context, const struct stats_network *network)
{
	*(struct stats_network *)context = *network;
}

static void sums_are_by_reason(void **state)
{
	struct stats *stats = stats_new();
	struct decision summary = {.event = DECISION_DENIED,
				   .kind = DECISION_SUMMARY,
				   .network = "web",
				   .reason = REASON_REPEATED,
				   .what = "packets",
				   .count = 512};
	struct decision denied = flow(DECISION_DENIED, NULL, 443), inbound = flow(DECISION_INBOUND, NULL, 443);
	struct stats_network network;
	struct found found;

	(void)state;
	stats_count(stats, &summary, 1);
	stats_count(stats, &denied, 2);
	stats_count(stats, &inbound, 2);
	stats_each_network(stats, on_network, &network);
	assert_int_equal(network.denied[REASON_REPEATED], 512);
	assert_int_equal(network.denied[REASON_NAME_NOT_ALLOWED], 1);
	assert_int_equal(network.inbound, 1);
	found = look_for(stats, NULL, 0);
	assert_int_equal(found.rows, 2); /* the address without name, and all others */
	assert_int_equal(found.others, 1);
	assert_int_equal(found.sum.denied, 513);
	stats_free(stats);
}

/* The name of a container may come late, and its address may change. */
static void an_app_is_one_by_name_or_address(void **state)
{
	struct stats *stats = stats_new();
	struct decision one = flow(DECISION_DENIED, "evil.example", 443);

	(void)state;
	one.app[0] = '\0';
	stats_count(stats, &one, 1);
	strcpy(one.app, "web-1");
	stats_count(stats, &one, 2);
	one.app[0] = '\0';
	stats_count(stats, &one, 3);
	strcpy(one.app, "web-1");
	one.source.bytes[3] = 6;
	stats_count(stats, &one, 4);
	assert_int_equal(look_for(stats, NULL, 0).rows, 1);
	assert_int_equal(look_for(stats, "evil.example", 443).row.numbers.denied, 4);
	assert_int_equal(look_for(stats, "evil.example", 443).row.source.bytes[3], 6);
	strcpy(one.app, "web-2"); /* the address of before has another container now */
	stats_count(stats, &one, 5);
	assert_int_equal(look_for(stats, NULL, 0).rows, 2);
	stats_free(stats);
}

static void too_many_rows_become_all_others(void **state)
{
	struct stats *stats = stats_new();
	struct decision one = flow(DECISION_DENIED, "evil.example", 0);
	struct found found;

	(void)state;
	for (unsigned int i = 0; i < 10 * STATS_ROWS_MAX; i++) {
		one.port = (uint16_t)(i + 1);
		stats_count(stats, &one, (time_t)i + 1);
	}
	found = look_for(stats, "evil.example", 10 * STATS_ROWS_MAX);
	assert_true(found.has);
	assert_int_equal(found.rows, STATS_ROWS_MAX + 1);
	assert_int_equal(found.sum.denied, 10 * STATS_ROWS_MAX);
	assert_false(look_for(stats, "evil.example", 1).has);
	stats_free(stats);
}

static void too_many_apps_become_all_others(void **state)
{
	struct stats *stats = stats_new();
	struct decision one = flow(DECISION_DENIED, "evil.example", 443);
	struct found found;

	(void)state;
	for (unsigned int i = 0; i < 4 * STATS_APPS_MAX; i++) {
		snprintf(one.app, sizeof(one.app), "app-%u", i);
		one.source.bytes[2] = (uint8_t)(i >> 8);
		one.source.bytes[3] = (uint8_t)i;
		stats_count(stats, &one, (time_t)i + 1);
	}
	found = look_for(stats, NULL, 0);
	assert_int_equal(found.rows, STATS_APPS_MAX + 1);
	assert_int_equal(found.sum.denied, 4 * STATS_APPS_MAX);
	stats_free(stats);
}

/* Whoever makes most of the rows loses them: the quiet app of another network keeps its own. */
static void one_network_pushes_out_only_its_own(void **state)
{
	struct stats *stats = stats_new();
	struct decision quiet = flow(DECISION_ALLOWED, "api.example", 443), loud = flow(DECISION_DENIED, "evil.example", 0);
	struct found found;
	uint64_t count = 0;

	(void)state;
	strcpy(quiet.network, "db");
	stats_count(stats, &quiet, 1);
	for (unsigned int i = 0; i < 2 * STATS_ALL_MAX / STATS_ROWS_MAX; i++) {
		snprintf(loud.app, sizeof(loud.app), "app-%u", i);
		loud.source.bytes[3] = (uint8_t)i;
		for (unsigned int port = 1; port <= STATS_ROWS_MAX; port++, count++) {
			loud.port = (uint16_t)port;
			stats_count(stats, &loud, 2);
		}
	}
	found = look_for(stats, "api.example", 443);
	assert_true(found.has);
	assert_string_equal(found.row.network, "db");
	assert_int_equal(found.sum.denied, count);
	assert_int_equal(found.rows - found.others, STATS_ALL_MAX);
	stats_free(stats);
}

static void carried(struct stats *stats, bool open, uint64_t bytes)
{
	struct decision one = flow(DECISION_ENDED, "api.example", 443);

	one.traffic = (struct traffic){.bytes_out = bytes, .bytes_in = 2 * bytes, .packets_out = 1, .packets_in = 1};
	if (open)
		stats_look_flow(stats, &one);
	else
		stats_count(stats, &one, 5);
}

static uint64_t bytes(const struct stats *stats)
{
	return look_for(stats, NULL, 0).sum.traffic.bytes_out;
}

static void bytes_of_open_and_ended_flows_are_counted_once(void **state)
{
	struct stats *stats = stats_new();

	(void)state;
	stats_look_begins(stats, 5);
	carried(stats, true, 100); /* two flows are open */
	carried(stats, true, 40);
	stats_look_ends(stats);
	assert_int_equal(bytes(stats), 140);
	assert_int_equal(look_for(stats, NULL, 0).sum.open, 2);
	carried(stats, false, 50); /* the second one ends */
	assert_int_equal(bytes(stats), 140);
	carried(stats, false, 120); /* and so does the first one */
	assert_int_equal(bytes(stats), 170);
	stats_look_begins(stats, 5);
	stats_look_ends(stats);
	assert_int_equal(bytes(stats), 170);
	assert_int_equal(look_for(stats, NULL, 0).sum.open, 0);
	stats_free(stats);
}

/* A flow that a look has seen and that ends before the look does. */
static void a_flow_that_ends_during_a_look_is_counted_once(void **state)
{
	struct stats *stats = stats_new();

	(void)state;
	carried(stats, false, 7); /* long before */
	stats_look_begins(stats, 5);
	carried(stats, true, 100);
	carried(stats, false, 110);
	stats_look_ends(stats);
	assert_int_equal(bytes(stats), 7 + 110);
	stats_look_begins(stats, 5);
	stats_look_ends(stats);
	assert_int_equal(bytes(stats), 7 + 110);
	stats_free(stats);
}

/* Random histories: never more than the truth, exact when a look follows, and never less than before. */
static void bytes_never_go_back(void **state)
{
	struct stats *stats = stats_new();
	uint64_t open[8] = {0}, truth = 0, last = 0;

	(void)state;
	srand(4711);
	for (int step = 0; step < 20000; step++) {
		size_t i = (size_t)rand() % 8;
		uint64_t more = (uint64_t)rand() % 1000;

		if (rand() % 10 > 0) { /* a flow goes on, or begins */
			open[i] += more;
			truth += more;
		} else if (open[i] > 0) {
			carried(stats, false, open[i]);
			open[i] = 0;
		}
		if (rand() % 20 == 0) {
			stats_look_begins(stats, 5);
			for (size_t j = 0; j < 8; j++)
				if (open[j] > 0)
					carried(stats, true, open[j]);
			stats_look_ends(stats);
			assert_int_equal(bytes(stats), truth);
		}
		assert_true(bytes(stats) <= truth);
		assert_true(bytes(stats) >= last);
		last = bytes(stats);
	}
	stats_free(stats);
}

static void a_flow_that_is_over_is_not_open(void **state)
{
	struct stats *stats = stats_new();
	struct decision over = flow(DECISION_ENDED, "api.example", 443);

	(void)state;
	over.count = 0;
	over.traffic.bytes_out = 30;
	stats_look_begins(stats, 5);
	stats_look_flow(stats, &over);
	carried(stats, true, 10);
	stats_look_ends(stats);
	assert_int_equal(look_for(stats, NULL, 0).sum.open, 1);
	assert_int_equal(bytes(stats), 40);
	stats_free(stats);
}

static struct found news_of(struct stats *stats, const char *network)
{
	struct found found = {.name = "api.example", .port = 443};

	stats_each_news(stats, network, on_row, &found);
	return found;
}

static void only_what_is_new_is_news(void **state)
{
	struct stats *stats = stats_new();
	struct decision allowed = flow(DECISION_ALLOWED, "api.example", 443), denied = flow(DECISION_DENIED, "evil.example", 443);
	struct found news;

	(void)state;
	assert_int_equal(news_of(stats, "web").rows, 0);
	stats_count(stats, &allowed, 1);
	stats_count(stats, &allowed, 2);
	stats_count(stats, &denied, 2);
	carried(stats, false, 10);
	assert_int_equal(news_of(stats, "build").rows, 0);
	news = news_of(stats, "web");
	assert_int_equal(news.rows, 1);
	assert_string_equal(news.row.app, "web-1");
	assert_int_equal(news.row.numbers.allowed, 2);
	assert_int_equal(news.row.numbers.denied, 0);
	assert_int_equal(news.row.numbers.traffic.bytes_out, 10);
	assert_int_equal(news.row.numbers.traffic.bytes_in, 20);
	assert_int_equal(news_of(stats, "web").rows, 0);
	carried(stats, false, 5);
	news = news_of(stats, "web");
	assert_int_equal(news.row.numbers.allowed, 0);
	assert_int_equal(news.row.numbers.traffic.bytes_out, 5);
	stats_count(stats, &allowed, 3);
	stats_each_news(stats, "web", NULL, NULL); /* nobody wants to know */
	assert_int_equal(news_of(stats, "web").rows, 0);
	stats_free(stats);
}

/* Rows that make room take along what was told of them. */
static void news_are_exact_when_rows_make_room(void **state)
{
	struct stats *stats = stats_new();
	struct decision allowed = flow(DECISION_ALLOWED, "api.example", 0);
	uint64_t count = 0, told = 0;

	(void)state;
	srand(4711);
	for (int i = 0; i < 20000; i++) {
		allowed.port = (uint16_t)(1 + rand() % (2 * STATS_ROWS_MAX));
		snprintf(allowed.app, sizeof(allowed.app), "app-%d", rand() % 3);
		stats_count(stats, &allowed, i + 1);
		count++;
		if (rand() % 50 == 0)
			told += news_of(stats, "web").sum.allowed;
	}
	told += news_of(stats, "web").sum.allowed;
	assert_int_equal(told, count);
	stats_free(stats);
}

/* The file */

static char *directory_path(void)
{
	char *path = strdup("/tmp/sluice-stats-XXXXXX");

	assert_non_null(mkdtemp(path));
	return path;
}

static void remove_directory(char *path, int directory)
{
	(void)unlinkat(directory, "stats.jsonl", 0);
	close(directory);
	assert_int_equal(rmdir(path), 0);
	free(path);
}

static void the_file_brings_everything_back(void **state)
{
	char *path = directory_path();
	int directory = open(path, O_RDONLY | O_DIRECTORY);
	struct log *log = log_new(STDERR_FILENO, LOG_TEXT);
	struct stats *stats = stats_new(), *again = stats_new();
	struct stats_file *file = stats_file_new(directory, -1, stats, log), *other;
	struct decision denied = flow(DECISION_DENIED, "evil.example", 443), question = denied, nameless = flow(DECISION_ALLOWED, NULL, 22);
	struct found found;
	struct stats_network network;

	(void)state;
	question.kind = DECISION_QUESTION;
	question.has_port = false;
	question.destination.family = 0;
	stats_count(stats, &denied, 100);
	stats_count(stats, &question, 110);
	stats_count(stats, &nameless, 120);
	carried(stats, false, 1000);
	stats_file_write(file, 0, true);
	stats_file_free(file);
	other = stats_file_new(directory, -1, again, log);
	assert_true(stats_file_restore(other));
	found = look_for(again, "evil.example", 443);
	assert_int_equal(found.rows, 4);
	assert_int_equal(found.row.numbers.denied, 1);
	assert_int_equal(found.row.first_seen, 100);
	assert_int_equal(found.row.reason, REASON_NAME_NOT_ALLOWED);
	assert_string_equal(found.row.rule, "default");
	assert_string_equal(found.row.app, "web-1");
	assert_int_equal(found.sum.allowed, 1);
	assert_int_equal(found.sum.traffic.bytes_out, 1000);
	assert_int_equal(news_of(again, "web").rows, 0);
	stats_each_network(again, on_network, &network);
	assert_int_equal(network.denied[REASON_NAME_NOT_ALLOWED], 2);
	stats_count(again, &denied, 200); /* the same row goes on */
	stats_count(again, &question, 200);
	assert_int_equal(look_for(again, NULL, 0).rows, 4);
	stats_file_free(other);
	stats_free(stats);
	stats_free(again);
	log_free(log);
	remove_directory(path, directory);
}

/* A worker that dies leaves to the next one what it had counted a second ago. */
/* A flow that is open while the worker dies is seen again by the next one's first look, with all that it has carried. */
static void an_open_flow_is_counted_once_over_a_restart(void **state)
{
	int memory = memfd_create("stats", MFD_CLOEXEC);
	struct log *log = log_new(STDERR_FILENO, LOG_TEXT);
	struct stats *stats = stats_new(), *again = stats_new();
	struct stats_file *file = stats_file_new(-1, memory, stats, log), *other = stats_file_new(-1, memory, again, log);

	(void)state;
	carried(stats, false, 7); /* over */
	stats_look_begins(stats, 5);
	carried(stats, true, 100);
	stats_look_ends(stats);
	assert_int_equal(bytes(stats), 107);
	stats_file_write(file, 1, true);
	assert_true(stats_file_restore(other));
	stats_look_begins(again, 6);
	carried(again, true, 120);
	stats_look_ends(again);
	assert_int_equal(bytes(again), 127);
	carried(again, false, 130);
	assert_int_equal(bytes(again), 137);
	stats_file_free(file);
	stats_file_free(other);
	stats_free(stats);
	stats_free(again);
	log_free(log);
	close(memory);
}

static void the_memory_brings_everything_back(void **state)
{
	int memory = memfd_create("stats", MFD_CLOEXEC);
	struct log *log = log_new(STDERR_FILENO, LOG_TEXT);
	struct stats *stats = stats_new(), *again = stats_new();
	struct stats_file *file = stats_file_new(-1, memory, stats, log), *other = stats_file_new(-1, memory, again, log);
	struct decision denied = flow(DECISION_DENIED, "evil.example", 443);

	(void)state;
	assert_false(stats_file_restore(other));
	stats_count(stats, &denied, 100);
	stats_file_write(file, 1, false);
	stats_count(stats, &denied, 101);
	stats_file_write(file, STATS_MEMORY_PERIOD_MS, false);
	assert_true(stats_file_restore(other));
	assert_int_equal(look_for(again, "evil.example", 443).row.numbers.denied, 1);
	stats_free(again);
	again = stats_new();
	stats_file_free(other);
	other = stats_file_new(-1, memory, again, log);
	stats_file_write(file, STATS_MEMORY_PERIOD_MS + 1, false);
	assert_true(stats_file_restore(other));
	assert_int_equal(look_for(again, "evil.example", 443).row.numbers.denied, 2);
	stats_file_free(file);
	stats_file_free(other);
	stats_free(stats);
	stats_free(again);
	log_free(log);
	close(memory);
}

static void the_file_is_written_in_parts_and_not_too_often(void **state)
{
	char *path = directory_path(), name[PATH_MAX];
	int directory = open(path, O_RDONLY | O_DIRECTORY);
	struct log *log = log_new(STDERR_FILENO, LOG_TEXT);
	struct stats *stats = stats_new();
	struct stats_file *file = stats_file_new(directory, -1, stats, log);
	struct decision one = flow(DECISION_DENIED, "evil.example", 0);

	(void)state;
	snprintf(name, sizeof(name), "%s/stats.jsonl", path);
	stats_file_write(file, 0, false);
	assert_int_not_equal(access(name, F_OK), 0); /* nothing was counted */
	for (one.port = 1; one.port <= STATS_FILE_TURN + 10; one.port++)
		stats_count(stats, &one, 1);
	stats_file_write(file, 1, false);
	assert_int_not_equal(access(name, F_OK), 0);
	stats_file_write(file, 2, false);
	assert_int_equal(access(name, F_OK), 0);
	assert_int_equal(unlink(name), 0);
	stats_count(stats, &one, 2);
	stats_file_write(file, STATS_FILE_PERIOD_MS, false);
	assert_int_not_equal(access(name, F_OK), 0);
	stats_file_write(file, STATS_FILE_PERIOD_MS + 1, false);
	stats_file_write(file, STATS_FILE_PERIOD_MS + 2, false);
	assert_int_equal(access(name, F_OK), 0);
	stats_file_free(file);
	stats_free(stats);
	log_free(log);
	remove_directory(path, directory);
}

static void a_damaged_file_is_read_as_far_as_it_is_good(void **state)
{
	static const char text[] =
		"{\"version\":1}\n"
		"{\"network\":\"web\",\"app\":\"web-1\",\"src\":\"10.201.1.5\",\"name\":\"a.example\",\"port\":443,"
		"\"proto\":\"tcp\",\"denied\":5,\"first_seen\":1,\"new_key\":[1]}\n"
		"{\"network\":\"web\",\"first_seen\":\"yes\",\"port\":-7,\"name\":5,\"denied\":-1,\"src\":\"nonsense\"}\n"
		"{\"network\":\"web\",\"app\":\"web-1\",\"src\":\"10.201.1.5\",\"name\":\"b.exa";
	char *path = directory_path();
	int directory = open(path, O_RDONLY | O_DIRECTORY);
	int fd = openat(directory, "stats.jsonl", O_WRONLY | O_CREAT, 0600);
	struct log *log = log_new(STDERR_FILENO, LOG_TEXT);
	struct stats *stats = stats_new();
	struct stats_file *file;

	(void)state;
	assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
	close(fd);
	file = stats_file_new(directory, -1, stats, log);
	assert_non_null(file);
	assert_true(stats_file_restore(file));
	assert_int_equal(look_for(stats, "a.example", 443).row.numbers.denied, 5);
	assert_int_equal(look_for(stats, NULL, 0).sum.denied, 5);
	stats_file_free(file);
	stats_free(stats);
	log_free(log);
	remove_directory(path, directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decisions_are_counted_by_app_name_and_port),
		cmocka_unit_test(a_flow_is_counted_by_the_name_inside_it),
		cmocka_unit_test(sums_are_by_reason),
		cmocka_unit_test(an_app_is_one_by_name_or_address),
		cmocka_unit_test(too_many_rows_become_all_others),
		cmocka_unit_test(too_many_apps_become_all_others),
		cmocka_unit_test(one_network_pushes_out_only_its_own),
		cmocka_unit_test(bytes_of_open_and_ended_flows_are_counted_once),
		cmocka_unit_test(a_flow_that_ends_during_a_look_is_counted_once),
		cmocka_unit_test(bytes_never_go_back),
		cmocka_unit_test(a_flow_that_is_over_is_not_open),
		cmocka_unit_test(only_what_is_new_is_news),
		cmocka_unit_test(news_are_exact_when_rows_make_room),
		cmocka_unit_test(the_file_brings_everything_back),
		cmocka_unit_test(an_open_flow_is_counted_once_over_a_restart),
		cmocka_unit_test(the_memory_brings_everything_back),
		cmocka_unit_test(the_file_is_written_in_parts_and_not_too_often),
		cmocka_unit_test(a_damaged_file_is_read_as_far_as_it_is_good),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
