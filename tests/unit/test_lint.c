/* SPDX-License-Identifier: MIT */
/*
 * compose_lint.c by data: every file of data/lint is a project, or what is different from the project that its "x-base" names (JSON merge
 * patch, RFC 7396); "x-findings" lists what is to be found, as "SEVERITY CODE NAME", and "x-options" what the command line says, "x-text"
 * what one of the texts has in it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/compose_lint.h"

#define DATA         TEST_DATA "/lint/"
#define FINDINGS_MAX 64
#define LINE_MAX     256
#define DOCUMENT_MAX 65536

static void merge(json_t *into, json_t *patch)
{
	const char *key;
	json_t *value, *old;

	json_object_foreach(patch, key, value)
	{
		old = json_object_get(into, key);
		if (json_is_null(value) && old)
			json_object_del(into, key);
		else if (json_is_object(value) && json_is_object(old))
			merge(old, value);
		else
			json_object_set_new(into, key, json_deep_copy(value));
	}
}

static json_t *load(const char *name)
{
	char path[512];
	json_error_t error;
	json_t *file, *base;
	const char *base_name;

	snprintf(path, sizeof(path), DATA "%s.json", name);
	file = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
	if (!file)
		fail_msg("%s:%d: %s", path, error.line, error.text);
	base_name = json_string_value(json_object_get(file, "x-base"));
	if (!base_name)
		return file;
	base = load(base_name);
	merge(base, file);
	json_decref(file);
	return base;
}

static struct lint_options read_options(const json_t *json, const char *networks[static FINDINGS_MAX])
{
	struct lint_options options = {
		.gateway = json_string_value(json_object_get(json, "gateway")),
		.uplink = json_string_value(json_object_get(json, "uplink")),
		.networks = networks,
	};
	const json_t *list = json_object_get(json, "networks");

	for (; options.network_count < json_array_size(list); options.network_count++)
		networks[options.network_count] = json_string_value(json_array_get(list, options.network_count));
	return options;
}

static const char *describe(const struct lint_finding *finding, char out[static LINE_MAX])
{
	snprintf(out, LINE_MAX, "%s %s %s", finding->severity == LINT_ERROR ? "error" : "warning", compose_lint_code(finding->code),
		 finding->name ? finding->name : "-");
	return out;
}

static int compare_lines(const void *a, const void *b)
{
	return strcmp(a, b);
}

static void check_texts(const char *file, const struct lint_finding *finding)
{
	for (const unsigned char *at = (const unsigned char *)finding->text; *at; at++) {
		if (*at < 0x20 || *at == 0x7f || (at[0] == 0xc2 && at[1] <= 0x9f))
			fail_msg("%s: a control character in: %s", file, finding->text);
	}
	if (finding->fix && (strncmp(finding->fix, "services:\n", 10) != 0 && strncmp(finding->fix, "networks:\n", 10) != 0))
		fail_msg("%s: not from the top of a Compose file: %s", file, finding->fix);
}

static void check_report(const char *file, const struct lint_report *report, const json_t *wanted)
{
	char lines[2][FINDINGS_MAX][LINE_MAX];
	size_t count = json_array_size(wanted);

	assert_true(report->count <= FINDINGS_MAX && count <= FINDINGS_MAX);
	for (size_t i = 0; i < report->count; i++) {
		describe(&report->findings[i], lines[0][i]);
		check_texts(file, &report->findings[i]);
	}
	for (size_t i = 0; i < count; i++)
		snprintf(lines[1][i], LINE_MAX, "%s", json_string_value(json_array_get(wanted, i)));
	qsort(lines[0], report->count, LINE_MAX, compare_lines);
	qsort(lines[1], count, LINE_MAX, compare_lines);
	for (size_t i = 0; i < report->count || i < count; i++) {
		const char *found = i < report->count ? lines[0][i] : "nothing", *expected = i < count ? lines[1][i] : "nothing";

		if (strcmp(found, expected) != 0)
			fail_msg("%s: found %s, expected %s", file, found, expected);
	}
	assert_int_equal(report->errors + report->warnings, count);
}

/* "x-text": some finding says this. */
static void check_text(const char *file, const struct lint_report *report, const char *wanted)
{
	for (size_t i = 0; wanted && i < report->count; i++) {
		if (strstr(report->findings[i].text, wanted))
			return;
	}
	if (wanted)
		fail_msg("%s: no finding says: %s", file, wanted);
}

/* Lint one file; note which codes it raised. */
static void check_file(const char *name, bool seen[static LINT_CODE_COUNT])
{
	const char *networks[FINDINGS_MAX];
	char error[COMPOSE_ERROR_MAX];
	struct lint_report report;
	struct compose compose;
	json_t *root = load(name);
	struct lint_options options = read_options(json_object_get(root, "x-options"), networks);

	if (compose_read(root, &compose, error) != 0)
		fail_msg("%s: %s", name, error);
	assert_int_equal(compose_lint(&compose, &options, &report), 0);
	check_report(name, &report, json_object_get(root, "x-findings"));
	check_text(name, &report, json_string_value(json_object_get(root, "x-text")));
	for (size_t i = 0; i < report.count; i++)
		seen[report.findings[i].code] = true;
	compose_lint_free(&report);
	compose_free(&compose);
	json_decref(root);
}

static void every_project_has_its_findings(void **state)
{
	bool seen[LINT_CODE_COUNT] = {false};
	DIR *directory = opendir(DATA);
	struct dirent *entry;
	size_t files = 0;

	(void)state;
	assert_non_null(directory);
	while ((entry = readdir(directory))) {
		char *dot = strrchr(entry->d_name, '.');

		if (!dot || strcmp(dot, ".json") != 0)
			continue;
		*dot = 0;
		check_file(entry->d_name, seen);
		files++;
	}
	closedir(directory);
	assert_true(files > LINT_CODE_COUNT);
	for (size_t i = 0; i < LINT_CODE_COUNT; i++) {
		if (!seen[i])
			fail_msg("no file raises %s", compose_lint_code((enum lint_code)i));
	}
}

static void every_finding_is_documented(void **state)
{
	FILE *file = fopen(TEST_DATA "/../../../docs/lint.md", "r");
	char *text = calloc(1, DOCUMENT_MAX), row[LINE_MAX];

	(void)state;
	assert_non_null(file);
	assert_non_null(text);
	assert_true(fread(text, 1, DOCUMENT_MAX - 1, file) < DOCUMENT_MAX - 1);
	fclose(file);
	for (size_t i = 0; i < LINT_CODE_COUNT; i++) {
		snprintf(row, sizeof(row), "\n| `%s` | ", compose_lint_code((enum lint_code)i));
		if (!strstr(text, row))
			fail_msg("docs/lint.md does not describe %s", compose_lint_code((enum lint_code)i));
	}
	free(text);
}

static void what_is_no_project_is_refused(void **state)
{
	static const char *const texts[] = {
		"{}",
		"[]",
		"{\"services\": []}",
		"{\"services\": {\"a b\": {}}}",
		"{\"services\": {\"\\u001b[2J\": {}}}",
		"{\"services\": {\"a\": null}}",
		"{\"services\": {\"a\": {\"networks\": \"web\"}}}",
		"{\"services\": {\"a\": {\"networks\": [\"web\"]}}}",
		"{\"services\": {\"a\": {\"networks\": [7]}}}",
		"{\"services\": {}, \"networks\": []  , \"x\": 1, \"networks2\": {}, \"services2\": 1}",
		"{\"services\": {}, \"networks\": [1]}",
		"{\"services\": {}, \"networks\": {\"a\\nb\": {}}}",
	};
	char error[COMPOSE_ERROR_MAX];
	struct compose compose;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		json_t *root = json_loads(texts[i], 0, NULL);
		/* An empty list of networks is as good as none. */
		int wanted = strstr(texts[i], "networks2") ? 0 : -EINVAL;

		assert_non_null(root);
		if (compose_read(root, &compose, error) != wanted)
			fail_msg("%s: %s", texts[i], error);
		compose_free(&compose);
		json_decref(root);
	}
}

/* Settings of a type that Compose does not print: nothing may break, and what protects counts as not given. */
static void odd_types_are_not_trusted(void **state)
{
	static const char *const keys[] = {"image",   "network_mode", "cap_add",    "cap_drop",     "dns",   "environment",
					   "sysctls", "volumes",      "ports",      "security_opt", "tmpfs", "user",
					   "configs", "command",      "privileged", "read_only"};
	static const char *const values[] = {"[]",          "{}",       "7", "7.5", "true", "\"\"", "[null, {}, []]", "[{\"source\": 7}]",
					     "{\"a\": []}", "\"x:y:z\""};
	char error[COMPOSE_ERROR_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]) * sizeof(values) / sizeof(values[0]); i++) {
		struct lint_options options = {.gateway = "gateway"};
		struct lint_report report;
		struct compose compose;
		json_t *root = load("clean"), *services = json_object_get(root, "services");
		json_t *value = json_loads(values[i % (sizeof(values) / sizeof(values[0]))], JSON_DECODE_ANY, NULL);
		const char *key = keys[i / (sizeof(values) / sizeof(values[0]))];

		assert_non_null(value);
		json_object_set(json_object_get(services, "gateway"), key, value);
		json_object_set_new(json_object_get(services, "app"), key, value);
		assert_int_equal(compose_read(root, &compose, error), 0);
		assert_int_equal(compose_lint(&compose, &options, &report), 0);
		if (strcmp(key, "cap_drop") == 0 || strcmp(key, "sysctls") == 0)
			assert_true(report.errors > 0);
		compose_lint_free(&report);
		compose_free(&compose);
		json_decref(root);
	}
}

static void options_must_name_what_is_there(void **state)
{
	const char *network = "none";
	const struct lint_options options[] = {{.gateway = "none"}, {.uplink = "none"}, {.networks = &network, .network_count = 1}};
	char error[COMPOSE_ERROR_MAX];
	struct lint_report report;
	struct compose compose;
	json_t *root = load("clean");

	(void)state;
	assert_int_equal(compose_read(root, &compose, error), 0);
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		assert_int_equal(compose_lint(&compose, &options[i], &report), -ENOENT);
	compose_free(&compose);
	json_decref(root);
}

static void a_flood_of_findings_is_counted(void **state)
{
	char name[32], error[COMPOSE_ERROR_MAX];
	struct lint_options options = {0};
	struct lint_report report;
	struct compose compose;
	json_t *root = load("clean"), *services = json_object_get(root, "services");

	(void)state;
	for (unsigned int i = 0; i < 4000; i++) {
		snprintf(name, sizeof(name), "app%u", i);
		json_object_set_new(services, name, json_pack("{s:{s:n}, s:[i]}", "networks", "web", "ports", 80));
	}
	assert_int_equal(compose_read(root, &compose, error), 0);
	assert_int_equal(compose_lint(&compose, &options, &report), 0);
	assert_int_equal(report.count, LINT_FINDINGS_MAX);
	assert_int_equal(report.errors, 3 * 4000);
	compose_lint_free(&report);
	compose_free(&compose);
	json_decref(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_project_has_its_findings),  cmocka_unit_test(every_finding_is_documented),
		cmocka_unit_test(what_is_no_project_is_refused),   cmocka_unit_test(odd_types_are_not_trusted),
		cmocka_unit_test(options_must_name_what_is_there), cmocka_unit_test(a_flood_of_findings_is_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
