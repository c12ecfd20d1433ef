/* SPDX-License-Identifier: MIT */
/* sluice init: what is accepted, and what the file says. compose_files.py reads the file as Compose does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gateway/command.h"

#define OUTPUT_MAX 16384
#define WORDS_MAX  10

/* Run `sluice init` with these words; its stdout goes to @output, its stderr to @errors. */
static int run(const char *const *words, char output[static OUTPUT_MAX], char errors[static OUTPUT_MAX])
{
	FILE *files[2] = {tmpfile(), tmpfile()};
	char *argv[WORDS_MAX + 2] = {strdup("init")}, *texts[2] = {output, errors};
	int argc = 1, status, saved[2] = {dup(1), dup(2)};

	assert_non_null(files[0]);
	assert_non_null(files[1]);
	for (; words[argc - 1]; argc++)
		argv[argc] = strdup(words[argc - 1]);
	fflush(NULL);
	for (int i = 0; i < 2; i++)
		dup2(fileno(files[i]), i + 1);
	status = cmd_init(argc, argv);
	fflush(stdout);
	fflush(stderr);
	for (int i = 0; i < 2; i++) {
		size_t size;

		dup2(saved[i], i + 1);
		close(saved[i]);
		rewind(files[i]);
		size = fread(texts[i], 1, OUTPUT_MAX - 1, files[i]);
		texts[i][size] = 0;
		fclose(files[i]);
	}
	while (argc--)
		free(argv[argc]);
	return status;
}

static void the_file_holds_what_was_asked_for(void **state)
{
	static const char *const words[] = {"web", "api.vendor.example:443", "*.cdn.example", "192.0.2.10:5432/tcp", NULL};
	static const char *const lines[] = {
		"\n        [network web]\n",
		"\n        subnet = ${SLUICE_WEB_PREFIX:-10.201.1}.0/24\n",
		"\n        ports  = 443 80/tcp",
		"\n            api.vendor.example:443\n            *.cdn.example\n            192.0.2.10:5432/tcp\n",
		"\n  networks: [web]\n  dns: 192.0.2.53",
		"\n  cap_drop: [NET_RAW]\n",
		"\n  app:\n    <<: *behind\n    image: ",
		"\n      net.ipv4.ip_forward: \"1\"\n",
		"\n  web:\n    driver: bridge\n",
		"gateway: \"${SLUICE_WEB_PREFIX:-10.201.1}.1\"",
	};
	char output[OUTPUT_MAX], errors[OUTPUT_MAX];

	(void)state;
	assert_int_equal(run(words, output, errors), COMMAND_OK);
	assert_string_equal(errors, "");
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		if (!strstr(output, lines[i]))
			fail_msg("not in the file: %s", lines[i]);
	}
	assert_null(strstr(output, "ipv6"));
}

static void default_ports_only_where_a_name_lacks_them(void **state)
{
	static const char *const words[] = {"web", "api.vendor.example:443/tcp", "192.0.2.10", NULL};
	char output[OUTPUT_MAX], errors[OUTPUT_MAX];

	(void)state;
	assert_int_equal(run(words, output, errors), COMMAND_OK);
	assert_null(strstr(output, "ports "));
}

static void words_that_yaml_would_not_take_are_quoted(void **state)
{
	static const char *const names[] = {"no", "1e3", "-x", "_x", "123"};
	char output[OUTPUT_MAX], errors[OUTPUT_MAX], line[64];

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *words[] = {"--", names[i], "a.example:443", NULL};

		assert_int_equal(run(words, output, errors), COMMAND_OK);
		snprintf(line, sizeof(line), "\n  \"%s\":\n    driver: bridge\n", names[i]);
		assert_non_null(strstr(output, line));
		snprintf(line, sizeof(line), "\n  networks: [\"%s\"]\n", names[i]);
		assert_non_null(strstr(output, line));
	}
}

static void what_is_not_valid_is_refused_with_the_reason(void **state)
{
	static const struct {
		const char *words[4], *says;
	} table[] = {
		{{NULL}, "usage:"},
		{{"web", NULL}, "usage:"},
		{{"--nonsense", "web", "a.example", NULL}, "usage:"},
		{{"Web", "a.example", NULL}, "a NETWORK has"},
		{{"", "a.example", NULL}, "a NETWORK has"},
		{{"web]", "a.example", NULL}, "a NETWORK has"},
		{{"a23456789012345678901234567890123", "a.example", NULL}, "a NETWORK has"},
		{{"uplink", "a.example", NULL}, "choose another"},
		{{"web", "*.com", NULL}, "*.com: "},
		{{"web", "a..example", NULL}, "empty label"},
		{{"web", "a.example:22,443", NULL}, "each NAME is one rule"},
		{{"web", "", NULL}, "each NAME is one rule"},
		{{"web", "a.example\ndeny = b.example", NULL}, "each NAME is one rule"},
		{{"web", "a.example ; x", NULL}, "each NAME is one rule"},
		{{"web", "${HOME}.example", NULL}, "each NAME is one rule"},
		{{"web", "a.example:99999", NULL}, "a.example:99999"},
		{{"web", "[2001:db8::5]:443x", NULL}, "443x"},
		{{"web", "10.0.0.5/8", NULL}, "10.0.0.0/8"},
		{{"web", "good.example", "443", NULL}, "443"},
	};
	char output[OUTPUT_MAX], errors[OUTPUT_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		int status = run(table[i].words, output, errors);

		if (status != COMMAND_USAGE || output[0] || !strstr(errors, table[i].says) || strstr(errors, "init:3"))
			fail_msg("%s %s: status %d, says: %s", table[i].words[0], table[i].words[1], status, errors);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_file_holds_what_was_asked_for),
		cmocka_unit_test(default_ports_only_where_a_name_lacks_them),
		cmocka_unit_test(words_that_yaml_would_not_take_are_quoted),
		cmocka_unit_test(what_is_not_valid_is_refused_with_the_reason),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
