/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/stats_view.h"

#define OUTPUT_MAX 16384
#define NOW        1764181234

struct numbers {
	const char *app, *name;
	int allowed, denied, audited, bytes;
	int seen, refused; /* seconds ago; refused 0: never */
};

static void add_row(json_t *answer, const char *network_name, const struct numbers *numbers)
{
	json_t *network = NULL, *each;
	size_t index;

	json_array_foreach(json_object_get(answer, "networks"), index, each)
	{
		if (strcmp(json_string_value(json_object_get(each, "network")), network_name) == 0)
			network = each;
	}
	if (!network) {
		network = json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:[{s:s, s:i, s:i}], s:[]}", "network", network_name,
				    "mode", "enforce", "allowed", 40, "denied", 7, "audited", 0, "inbound", 0, "open", 2, "bytes_out", 2048,
				    "bytes_in", 3, "reasons", "reason", "name-not-allowed", "denied", 7, "audited", 0, "rows");
		json_array_append_new(json_object_get(answer, "networks"), network);
	}
	json_object_set_new(network, "audited", json_integer(json_integer_value(json_object_get(network, "audited")) + numbers->audited));
	json_array_append_new(json_object_get(network, "rows"),
			      json_pack("{s:s?, s:s?, s:s?, s:s?, s:o, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:o, s:s?}", "app", numbers->app,
					"src", numbers->app ? "10.201.1.5" : NULL, "name", numbers->name, "dst",
					numbers->name ? "203.0.113.7" : NULL, "port", numbers->name ? json_integer(443) : json_null(),
					"proto", "tcp", "allowed", numbers->allowed, "denied", numbers->denied, "audited", numbers->audited,
					"bytes_out", numbers->bytes, "bytes_in", 0, "last_seen", NOW - numbers->seen, "last_denied",
					numbers->refused ? json_integer(NOW - numbers->refused) : json_null(), "reason",
					numbers->refused ? "name-not-allowed" : NULL));
}

static json_t *make_answer(void)
{
	static const struct numbers rows[] = {
		{"a", "much.example", 9, 0, 0, 90000, 50, 0},  {"a", "little.example", 30, 0, 0, 10, 1, 0},
		{"b", "old.example", 0, 50, 0, 0, 9000, 9000}, {"b", "audit.example", 0, 0, 5, 100, 30, 30},
		{"b", "new.example", 0, 2, 0, 0, 100, 100},    {"a", "newest.example", 0, 1, 0, 0, 9, 9},
	};
	json_t *answer = json_pack("{s:b, s:I, s:[]}", "ok", 1, "now", (json_int_t)NOW, "networks");

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		add_row(answer, "web", &rows[i]);
	add_row(answer, "build", &(struct numbers){"c", "c.example", 1, 0, 0, 1, 1, 0});
	return answer;
}

static void all_others_come_last(void **state)
{
	json_t *answer = json_pack("{s:b, s:I, s:[]}", "ok", 1, "now", (json_int_t)NOW, "networks"), *arranged, *rows;

	(void)state;
	add_row(answer, "web", &(struct numbers){"a", NULL, 0, 90, 0, 0, 1, 1});
	add_row(answer, "web", &(struct numbers){"a", "a.example", 0, 1, 0, 0, 50, 50});
	arranged = stats_view_arrange(answer, &(struct stats_view_choice){0});
	rows = json_object_get(json_array_get(json_object_get(arranged, "networks"), 0), "rows");
	assert_true(json_is_null(json_object_get(json_array_get(rows, 1), "name")));
	json_decref(arranged);
	json_decref(answer);
}

/* The names of the rows of the first network, "much little ...". */
static const char *names_of(const json_t *arranged)
{
	static char text[OUTPUT_MAX];
	json_t *row, *network = json_array_get(json_object_get(arranged, "networks"), 0);
	size_t index;

	text[0] = '\0';
	json_array_foreach(json_object_get(network, "rows"), index, row)
	{
		const char *name = json_string_value(json_object_get(row, "name"));

		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%.*s", index ? " " : "", (int)strcspn(name, "."), name);
	}
	return text;
}

static void rows_are_chosen_and_sorted(void **state)
{
	static const struct {
		struct stats_view_choice choice;
		const char *names;
		int left_out;
	} table[] = {
		{{0}, "newest new audit much little old", 0},
		{{.sort = STATS_VIEW_DENIED}, "old new newest little audit much", 0},
		{{.sort = STATS_VIEW_BYTES}, "much audit little newest new old", 0},
		{{.sort = STATS_VIEW_LAST}, "little newest audit much new old", 0},
		{{.sort = STATS_VIEW_ALLOWED}, "little much newest audit new old", 0},
		{{.app = "b"}, "new audit old", 0},
		{{.app = "10.201.1.5", .limit = 2}, "newest new", 4},
		{{.app = "b", .limit = 1}, "new", 2},
		{{.network = "build"}, "c", 0},
		{{.app = "nobody"}, "", 0},
	};
	json_t *answer = make_answer(), *before = json_deep_copy(answer);

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		json_t *arranged = stats_view_arrange(answer, &table[i].choice);
		json_t *network = json_array_get(json_object_get(arranged, "networks"), 0);

		assert_non_null(arranged);
		assert_string_equal(names_of(arranged), table[i].names);
		assert_int_equal(json_integer_value(json_object_get(network, "left_out")), table[i].left_out);
		json_decref(arranged);
	}
	assert_true(json_equal(answer, before));
	json_decref(answer);
	json_decref(before);
}

static void sorts_have_names(void **state)
{
	enum stats_view_sort sort;

	(void)state;
	assert_true(stats_view_parse_sort("bytes", &sort));
	assert_int_equal(sort, STATS_VIEW_BYTES);
	assert_true(stats_view_parse_sort("last", &sort) && sort == STATS_VIEW_LAST);
	assert_true(stats_view_parse_sort("denied", &sort) && sort == STATS_VIEW_DENIED);
	assert_true(stats_view_parse_sort("allowed", &sort) && sort == STATS_VIEW_ALLOWED);
	assert_false(stats_view_parse_sort("", &sort));
	assert_false(stats_view_parse_sort("byte", &sort));
}

static const char *print(const json_t *answer, const json_t *before, const struct terminal *terminal)
{
	static char output[OUTPUT_MAX];
	FILE *file = fmemopen(output, sizeof(output), "w");
	json_t *arranged = stats_view_arrange(answer, &(struct stats_view_choice){.limit = 2});

	assert_non_null(file);
	assert_true(stats_view_print(arranged, before, 2, terminal, file));
	json_decref(arranged);
	fclose(file);
	return output;
}

static void it_is_printed_as_tables(void **state)
{
	const struct terminal ascii = {0};
	json_t *answer = json_pack("{s:b, s:I, s:[]}", "ok", 1, "now", (json_int_t)NOW, "networks");

	(void)state;
	add_row(answer, "web", &(struct numbers){"web-1", "evil.example", 0, 12, 0, 0, 90, 90});
	add_row(answer, "web", &(struct numbers){"web-1", "api.example", 40, 0, 0, 2048, 3, 0});
	add_row(answer, "web", &(struct numbers){NULL, NULL, 1, 0, 0, 1, 7200, 0});
	assert_string_equal(print(answer, NULL, &ascii),
			    "web  enforce  2 open, 40 allowed, 7 denied, 0 audited, 2.0 KiB out, 3 B in\n"
			    "  name-not-allowed 7\n"
			    "  app                 destination   port     ok  denied      out  in  last  reason\n"
			    "  web-1 (10.201.1.5)  evil.example  443/tcp   -      12        -   -    1m  name-not-allowed\n"
			    "  web-1 (10.201.1.5)  api.example   443/tcp  40       -  2.0 KiB   -    3s\n"
			    "  (1 more)\n");
	json_decref(answer);
}

static void audit_has_a_column_where_there_is_audit(void **state)
{
	const struct terminal ascii = {0};
	json_t *answer = make_answer();
	const char *text = print(answer, NULL, &ascii), *second = strstr(text, "\nbuild  enforce");

	(void)state;
	assert_non_null(second);
	assert_non_null(strstr(text, "denied  audited"));
	assert_null(strstr(second, "denied  audited"));
	json_decref(answer);
}

static void changes_since_the_look_before_are_shown(void **state)
{
	const struct terminal ascii = {0};
	json_t *before = json_pack("{s:b, s:I, s:[]}", "ok", 1, "now", (json_int_t)NOW, "networks"), *answer = json_deep_copy(before);

	(void)state;
	add_row(before, "web", &(struct numbers){"web-1", "evil.example", 0, 12, 0, 0, 90, 90});
	add_row(answer, "web", &(struct numbers){"web-1", "evil.example", 0, 15, 0, 0, 1, 1});
	add_row(before, "web", &(struct numbers){"web-1", "api.example", 40, 0, 0, 4096, 3, 0});
	add_row(answer, "web", &(struct numbers){"web-1", "api.example", 40, 0, 0, 8192, 3, 0});
	assert_non_null(strstr(print(answer, before, &ascii), " 15 +3 "));
	assert_non_null(strstr(print(answer, before, &ascii), "  40       -  8.0 KiB   -  2.0 KiB     -    3s"));
	/* The gateway was started anew: nothing grows backwards. */
	assert_null(strstr(print(before, answer, &ascii), "+"));
	assert_non_null(strstr(print(before, answer, &ascii), "  40       -  4.0 KiB   -      -     -    3s"));
	json_decref(answer);
	json_decref(before);
}

static void what_an_app_chose_does_not_reach_the_screen(void **state)
{
	const struct terminal utf8 = {.utf8 = true};
	json_t *answer = json_pack("{s:b, s:I, s:[]}", "ok", 1, "now", (json_int_t)NOW, "networks");

	(void)state;
	add_row(answer, "web",
		&(struct numbers){"a\033[2J\xc2\x9b"
				  "1m\u202eb",
				  "evil\n.example", 0, 12, 0, 0, 90, 90});
	assert_null(strpbrk(print(answer, NULL, &utf8), "\033"));
	assert_null(strstr(print(answer, NULL, &utf8), "\xc2\x9b"));
	assert_null(strstr(print(answer, NULL, &utf8), "\u202e"));
	assert_non_null(strstr(print(answer, NULL, &utf8), "evil\\x0a.example"));
	json_decref(answer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_are_chosen_and_sorted),
		cmocka_unit_test(all_others_come_last),
		cmocka_unit_test(sorts_have_names),
		cmocka_unit_test(it_is_printed_as_tables),
		cmocka_unit_test(audit_has_a_column_where_there_is_audit),
		cmocka_unit_test(changes_since_the_look_before_are_shown),
		cmocka_unit_test(what_an_app_chose_does_not_reach_the_screen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
