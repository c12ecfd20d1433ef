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

#include "gateway/log_view.h"

#define OUTPUT_MAX 8192

#define FLOW                                                                                                                               \
	"{\"ts\":\"2026-11-22T03:40:01.123Z\",\"event\":\"denied\",\"network\":\"web\",\"src\":\"10.201.1.5\",\"app\":\"web-1\","          \
	"\"dst\":\"203.0.113.7\",\"port\":443,\"proto\":\"tcp\",\"name\":\"evil.example\",\"reason\":\"name-not-allowed\","                \
	"\"rule\":\"default\",\"action\":\"reset\",\"count\":1}"
#define QUESTION                                                                                                                           \
	"{\"ts\":\"2026-11-22T03:40:02.000Z\",\"event\":\"audit\",\"network\":\"build\",\"src\":\"10.201.2.5\",\"app\":null,"              \
	"\"qname\":\"Deep.Sub.Evil.example\",\"qtype\":\"A\",\"reason\":\"name-not-allowed\",\"rule\":\"/etc/sluice/sluice.conf:3\","      \
	"\"action\":\"allowed\",\"count\":1}"
#define SUMMARY                                                                                                                            \
	"{\"ts\":\"2026-11-23T00:00:00.000Z\",\"event\":\"denied\",\"network\":\"web\",\"src\":null,\"app\":null,\"what\":\"packets\","    \
	"\"reason\":\"repeated\",\"action\":\"rejected\",\"count\":512}"
#define ENDED                                                                                                                              \
	"{\"ts\":\"2026-11-23T00:00:01.000Z\",\"event\":\"ended\",\"network\":\"web\",\"src\":\"fdc9:1::5\",\"app\":\"web-1\","            \
	"\"dst\":\"2001:db8::7\",\"port\":443,\"proto\":\"udp\",\"name\":null,\"action\":\"allowed\",\"count\":1,\"bytes_out\":1536,"      \
	"\"bytes_in\":0,\"duration\":2150}"
#define INBOUND                                                                                                                            \
	"{\"ts\":\"2026-11-23T00:00:02.000Z\",\"event\":\"inbound\",\"network\":\"web\",\"src\":\"198.51.100.7\",\"app\":\"proxy\","       \
	"\"dst\":\"10.201.1.5\",\"port\":8443,\"proto\":\"tcp\",\"published\":443,\"rule\":\"a.conf:9\",\"action\":\"allowed\","           \
	"\"count\":1}"
#define PING                                                                                                                               \
	"{\"ts\":\"2026-11-23T00:00:03.000Z\",\"event\":\"denied\",\"network\":null,\"src\":\"10.201.1.5\",\"app\":\"web-1\","             \
	"\"dst\":\"203.0.113.7\",\"port\":null,\"proto\":\"icmp\",\"name\":null,\"reason\":\"protocol-not-allowed\",\"rule\":\"default\"," \
	"\"action\":\"unreachable\",\"count\":1}"
#define FLOWS                                                                                                                              \
	"{\"ts\":\"2026-11-23T00:00:04.000Z\",\"event\":\"allowed\",\"network\":\"web\",\"src\":\"10.201.1.5\",\"app\":\"web-1\","         \
	"\"what\":\"flows\",\"dst\":\"203.0.113.7\",\"port\":443,\"proto\":\"tcp\",\"name\":\"api.example\",\"action\":\"allowed\","       \
	"\"count\":12,\"bytes_out\":2048,\"bytes_in\":1}"
#define INSIDE                                                                                                                             \
	"{\"ts\":\"2026-11-22T03:40:03.000Z\",\"event\":\"denied\",\"network\":\"web\",\"src\":\"10.201.1.5\",\"app\":\"web-1\","          \
	"\"dst\":\"203.0.113.9\",\"port\":443,\"proto\":\"tcp\",\"name\":\"api.example\",\"sni\":\"front.example\","                       \
	"\"reason\":\"sni-mismatch\",\"rule\":\"default\",\"action\":\"reset\",\"count\":1}"
#define NAMELESS                                                                                                                           \
	"{\"ts\":\"2026-11-22T03:40:04.000Z\",\"event\":\"denied\",\"network\":\"web\",\"src\":\"10.201.1.5\",\"app\":\"web-1\","          \
	"\"dst\":\"203.0.113.9\",\"port\":22,\"proto\":\"tcp\",\"name\":\"api.example\",\"sni\":null,\"reason\":\"no-name\","              \
	"\"rule\":\"default\",\"action\":\"reset\",\"count\":1}"
#define LOST "{\"event\":\"log-lost\",\"count\":3}"

static json_t *load(const char *text)
{
	json_t *line = json_loads(text, 0, NULL);

	assert_non_null(line);
	return line;
}

static bool passes(const struct log_view_filter *filter, const char *text)
{
	json_t *line = load(text);
	bool result = log_view_passes(filter, line);

	json_decref(line);
	return result;
}

/* Which of the lines above pass, as letters. */
static const char *those_that_pass(const struct log_view_filter *filter)
{
	static const struct {
		char letter;
		const char *line;
	} lines[] = {{'F', FLOW}, {'Q', QUESTION}, {'S', SUMMARY}, {'E', ENDED}, {'I', INBOUND}, {'P', PING}, {'L', LOST}};
	static char letters[8];
	size_t count = 0;

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		if (passes(filter, lines[i].line))
			letters[count++] = lines[i].letter;
	}
	letters[count] = '\0';
	return letters;
}

static void filters_choose_lines(void **state)
{
	static const struct {
		struct log_view_filter filter;
		const char *letters;
	} table[] = {
		{{0}, "FQSEIPL"},
		{{.denied = true}, "FSPL"},
		{{.audit = true}, "QL"},
		{{.allowed = true}, "EIL"},
		{{.denied = true, .audit = true}, "FQSPL"},
		{{.network = "web"}, "FSEIL"},
		{{.network = "we"}, "L"},
		{{.app = "web-1"}, "FEPL"},
		{{.app = "10.201.1.5"}, "FPL"},
		{{.app = "10.201.2.5"}, "QL"},
		{{.denied = true, .network = "web", .app = "web-1"}, "FL"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_string_equal(those_that_pass(&table[i].filter), table[i].letters);
	assert_true(log_view_passes_all(&table[0].filter));
	for (size_t i = 1; i < sizeof(table) / sizeof(table[0]); i++)
		assert_false(log_view_passes_all(&table[i].filter));
}

static void names_and_addresses_choose_lines(void **state)
{
	static const struct {
		const char *name, *letters; /* NULL: it is refused */
	} table[] = {
		{"evil.example", "FL"},
		{"EVIL.Example.", "FL"},
		{"*.evil.example", "QL"},
		{"**.evil.example", "FQL"},
		{"*.example", "FQL"},
		{"other.example", "L"},
		{"203.0.113.7", "FPL"},
		{"203.0.113.0/24", "FPL"},
		{"2001:db8::/32", "EL"},
		{"192.0.2.1", "L"},
		{"a..b", NULL},
		{"ev*l.example", NULL},
		{"", NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct log_view_filter filter = {0};
		const char *error = log_view_parse_name(&filter, table[i].name);

		if (!error != (table[i].letters != NULL))
			fail_msg("%s: %s", table[i].name, error ? error : "accepted");
		if (table[i].letters)
			assert_string_equal(those_that_pass(&filter), table[i].letters);
		assert_false(!error && log_view_passes_all(&filter));
	}
}

static void both_names_of_a_flow_choose_its_line(void **state)
{
	static const char *const fitting[] = {"front.example", "api.example", "203.0.113.9"};
	struct log_view_filter filter = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(fitting) / sizeof(fitting[0]); i++) {
		filter = (struct log_view_filter){0};
		assert_null(log_view_parse_name(&filter, fitting[i]));
		assert_true(passes(&filter, INSIDE));
	}
	assert_null(log_view_parse_name(&filter, "other.example"));
	assert_false(passes(&filter, INSIDE));
}

static const char *print(const struct terminal *terminal, struct log_view_columns *widths, const char *text)
{
	static char output[OUTPUT_MAX];
	FILE *file = fmemopen(output, sizeof(output), "w");
	json_t *line = load(text);

	assert_non_null(file);
	log_view_print(widths, terminal, file, line);
	json_decref(line);
	fclose(file);
	return output;
}

static void a_line_says_what_happened(void **state)
{
	static const struct {
		const char *line, *text;
	} table[] = {
		{FLOW, "2026-11-22 (UTC)\n03:40:01.123 x denied   web  web-1 > evil.example:443/tcp  name-not-allowed  default\n"},
		{QUESTION, "2026-11-22 (UTC)\n03:40:02.000 ~ audit    build  10.201.2.5 ? Deep.Sub.Evil.example A  name-not-allowed  "
			   "/etc/sluice/sluice.conf:3\n"},
		{SUMMARY, "2026-11-23 (UTC)\n00:00:00.000 x denied   web  (several) = 512 packets  repeated\n"},
		{ENDED, "2026-11-23 (UTC)\n00:00:01.000 - ended    web  web-1 > [2001:db8::7]:443/udp  1.5 KiB out, 0 B in, 2.1 s\n"},
		{INBOUND, "2026-11-23 (UTC)\n00:00:02.000 < inbound  web  proxy < 198.51.100.7  port 443, led to 10.201.1.5:8443/tcp  "
			  "a.conf:9\n"},
		{FLOWS, "2026-11-23 (UTC)\n00:00:04.000 + allowed  web  web-1 > api.example:443/tcp (12 flows)  2.0 KiB out, 1 B in\n"},
		{PING, "2026-11-23 (UTC)\n00:00:03.000 x denied   -  web-1 > 203.0.113.7/icmp  protocol-not-allowed  default\n"},
		{INSIDE, "2026-11-22 (UTC)\n03:40:03.000 x denied   web  web-1 > front.example:443/tcp  sni-mismatch  default\n"},
		{NAMELESS, "2026-11-22 (UTC)\n03:40:04.000 x denied   web  web-1 > api.example:22/tcp  no-name  default\n"},
		{LOST, "(3 lines are missing: they came faster than they were read)\n"},
	};
	const struct terminal ascii = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct log_view_columns widths = {0};

		assert_string_equal(print(&ascii, &widths, table[i].line), table[i].text);
	}
}

static void columns_stay_and_the_date_is_told_once(void **state)
{
	const struct terminal utf8 = {.utf8 = true};
	struct log_view_columns widths = {0};
	json_t *wide = load(QUESTION);

	(void)state;
	log_view_measure(&widths, &utf8, wide);
	json_decref(wide);
	assert_string_equal(print(&utf8, &widths, FLOW), "2026-11-22 (UTC)\n03:40:01.123 \u2717 denied   web    web-1      \u2192 "
							 "evil.example:443/tcp     name-not-allowed  default\n");
	assert_string_equal(print(&utf8, &widths, QUESTION), "03:40:02.000 ~ audit    build  10.201.2.5 ? Deep.Sub.Evil.example A  "
							     "name-not-allowed  /etc/sluice/sluice.conf:3\n");
	assert_non_null(strstr(print(&utf8, &widths, SUMMARY), "2026-11-23 (UTC)\n"));
}

static void what_an_app_chose_does_not_reach_the_screen(void **state)
{
	static const char *const keys[] = {"app", "network", "name", "reason", "rule", "event", "ts", "proto"};
	const struct terminal terminals[] = {{0}, {.utf8 = true}};

	(void)state;
	for (size_t i = 0; i < 2 * sizeof(keys) / sizeof(keys[0]); i++) {
		struct log_view_columns widths = {0};
		json_t *line = load(FLOW);
		const char *output;
		char *text;

		json_object_set_new(line, keys[i / 2],
				    json_string("a\033[2J\xc2\x9b"
						"1m\u202eb\nc"));
		text = json_dumps(line, 0);
		output = print(&terminals[i % 2], &widths, text);
		assert_null(strchr(output, '\033'));
		assert_null(strstr(output, "\xc2\x9b"));
		assert_null(strstr(output, "\u202e"));
		assert_null(strstr(output, "b\nc"));
		free(text);
		json_decref(line);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(filters_choose_lines),
		cmocka_unit_test(names_and_addresses_choose_lines),
		cmocka_unit_test(both_names_of_a_flow_choose_its_line),
		cmocka_unit_test(a_line_says_what_happened),
		cmocka_unit_test(columns_stay_and_the_date_is_told_once),
		cmocka_unit_test(what_an_app_chose_does_not_reach_the_screen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
