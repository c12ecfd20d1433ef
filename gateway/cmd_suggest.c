/* SPDX-License-Identifier: MIT */
/*
 * sluice suggest [NETWORK]: rules for what audit mode let pass, as a section of a policy.
 *
 * Everything that is no rule is a comment on a line of its own, so that the output can be pasted, or redirected into a file of the policy's
 * directory, as it is.
 */
#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/command.h"
#include "gateway/control.h"

#define NAMES_SHOWN 8 /* of a wildcard */
#define INDENT      "    "

static const char usage_text[] = "usage: sluice suggest [--denied] [--wildcards] [--json] [NETWORK]\n"
				 "\n"
				 "Print rules for what audit mode let pass and no rule of the running policy allows: a [rules] section to\n"
				 "paste, or to put into a file of its own beside the policy, and the `use` line that belongs to it.\n"
				 "\n"
				 "  -d, --denied      also for what was denied\n"
				 "  -w, --wildcards   one *.PARENT rule in place of four or more names below the same parent\n"
				 "  -j, --json        print JSON\n"
				 "  -h, --help        print this help\n";

struct options {
	const char *network; /* NULL: all */
	bool denied, wildcards, json;
};

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static long long number_of(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

/* A line of the policy has no control characters, in comments either. */
static void print_plain(const char *text)
{
	for (; *text; text++)
		putchar((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text);
}

static const char *plural(long long count)
{
	return count == 1 ? "" : "s";
}

/* "web-1, web-2 and others" */
static void print_list(const json_t *list, size_t max, bool more)
{
	size_t count = json_array_size(list);

	for (size_t i = 0; i < count && i < max; i++) {
		printf("%s", i > 0 ? ", " : "");
		print_plain(json_string_value(json_array_get(list, i)));
	}
	if (more || count > max)
		printf(" and others");
}

static void print_comment(const json_t *rule)
{
	const json_t *apps = json_object_get(rule, "apps"), *chain = json_object_get(rule, "chain");
	long long flows = number_of(rule, "flows"), questions = number_of(rule, "questions");

	printf(INDENT "; ");
	print_list(apps, json_array_size(apps), json_is_true(json_object_get(rule, "more_apps")));
	printf("%s", json_array_size(apps) > 0 ? ": " : "");
	if (flows > 0 || questions == 0)
		printf("%lld flow%s%s", flows, plural(flows), questions > 0 ? ", " : "");
	if (questions > 0)
		printf("%lld question%s", questions, plural(questions));
	if (json_array_size(chain) > 0) {
		printf("; leads through ");
		print_list(chain, json_array_size(chain), false);
	}
	if (*text_of(rule, "known_as"))
		printf("; another network knows it as %s, no answer showed it here", text_of(rule, "known_as"));
	if (*text_of(rule, "note"))
		printf("; %s", text_of(rule, "note"));
	printf("\n");
}

static bool has_name(const json_t *wildcard, const char *name)
{
	size_t index;
	json_t *other;

	json_array_foreach(json_object_get(wildcard, "names"), index, other)
	{
		if (strcmp(json_string_value(other), name) == 0)
			return true;
	}
	return false;
}

/* Rules come in the order of the wildcards, and names with a wildcard are neighbours. Return: the wildcard of this rule, or NULL. */
static const json_t *find_wildcard(const json_t *wildcards, size_t *at, const json_t *rule)
{
	const char *name = text_of(rule, "name");

	for (size_t i = *at; i < *at + 2 && i < json_array_size(wildcards); i++) {
		if (has_name(json_array_get(wildcards, i), name)) {
			*at = i;
			return json_array_get(wildcards, i);
		}
	}
	return NULL;
}

static void print_wildcard(const json_t *wildcard, bool as_rule)
{
	const json_t *names = json_object_get(wildcard, "names");
	long long flows = number_of(wildcard, "flows");

	if (!as_rule) {
		printf(INDENT "; the next %zu could be one rule: %s\n", json_array_size(names), text_of(wildcard, "rule"));
		return;
	}
	printf(INDENT "; %lld flow%s to %zu names: ", flows, plural(flows), json_array_size(names));
	print_list(names, NAMES_SHOWN, false);
	printf("\n" INDENT "%s\n", text_of(wildcard, "rule"));
}

static void print_rules(const json_t *network, bool wildcards)
{
	const json_t *list = json_object_get(network, "wildcards"), *wildcard, *last = NULL;
	size_t index, at = 0;
	json_t *rule;

	json_array_foreach(json_object_get(network, "rules"), index, rule)
	{
		wildcard = find_wildcard(list, &at, rule);
		if (wildcard && wildcard != last)
			print_wildcard(wildcard, wildcards);
		last = wildcard;
		if (wildcard && wildcards)
			continue;
		print_comment(rule);
		printf(INDENT "%s\n", text_of(rule, "rule"));
	}
}

static void print_skipped(const json_t *network)
{
	const json_t *list = json_object_get(network, "skipped");
	long long more = number_of(network, "more_skipped");
	size_t index;
	json_t *skipped;

	if (json_array_size(list) > 0)
		printf("; No rules for:\n");
	json_array_foreach(list, index, skipped)
	{
		printf(";   ");
		print_plain(text_of(skipped, "what"));
		printf(" (%lld): ", number_of(skipped, "count"));
		print_plain(text_of(skipped, "why"));
		printf("\n");
	}
	if (more > 0)
		printf(";   and %lld more flows and questions\n", more);
}

static bool is_audit(const json_t *network)
{
	return strcmp(text_of(network, "mode"), "audit") == 0;
}

static void print_nothing(const json_t *network, bool denied)
{
	printf("; Nothing to suggest: %s.\n", denied              ? "nothing was seen that a rule would have to allow"
					      : is_audit(network) ? "all that audit mode let pass is allowed by rules, or nothing came"
								  : "audit mode let nothing pass; --denied looks at what was denied, too");
}

static void print_network(const json_t *network, const struct options *options)
{
	const char *name = text_of(network, "network"), *section = text_of(network, "section");
	long long more = number_of(network, "more_rules");

	printf("; Network %s (mode = %s).\n", name, text_of(network, "mode"));
	if (json_array_size(json_object_get(network, "rules")) == 0) {
		print_nothing(network, options->denied);
		print_skipped(network);
		return;
	}
	printf("; Read the rules, delete what should not pass, and write into [network %s]:\n;   use = %s\n", name, section);
	if (is_audit(network))
		printf("; When nothing more comes that should pass, end audit mode: mode = enforce\n");
	print_skipped(network);
	if (more > 0)
		printf("; There were %lld more flows and questions than there is room for: use these rules, then ask again.\n", more);
	printf("[rules %s]\nallow =\n", section);
	print_rules(network, options->wildcards);
}

static int print_answer(const json_t *answer, const struct options *options)
{
	bool ok = json_is_true(json_object_get(answer, "ok"));
	size_t index;
	json_t *network;

	if (options->json) {
		json_dumpf(answer, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
		printf("\n");
	} else if (!ok) {
		fprintf(stderr, "sluice suggest: %s\n", *text_of(answer, "error") ? text_of(answer, "error") : "the daemon says no");
	} else {
		json_array_foreach(json_object_get(answer, "networks"), index, network)
		{
			printf("%s", index > 0 ? "\n" : "");
			print_network(network, options);
		}
	}
	return ok && fflush(stdout) == 0 ? COMMAND_OK : COMMAND_NO;
}

static int suggest(const struct options *options)
{
	char error[512] = "out of memory";
	json_t *request = json_pack("{s:s, s:s*, s:b}", "command", "suggest", "network", options->network, "denied", options->denied);
	json_t *answer = request ? control_call(control_path(), request, error, sizeof(error)) : NULL;
	int status = COMMAND_NO;

	json_decref(request);
	if (answer)
		status = print_answer(answer, options);
	else
		fprintf(stderr, "sluice suggest: %s\n", error);
	json_decref(answer);
	return status;
}

int cmd_suggest(int argc, char **argv)
{
	static const struct option long_options[] = {{"denied", no_argument, NULL, 'd'},
						     {"wildcards", no_argument, NULL, 'w'},
						     {"json", no_argument, NULL, 'j'},
						     {"help", no_argument, NULL, 'h'},
						     {0}};
	struct options options = {.network = NULL};
	int option;

	optind = 0; /* also makes GNU getopt start again */
	while ((option = getopt_long(argc, argv, "dwjh", long_options, NULL)) != -1) {
		switch (option) {
		case 'd': options.denied = true; break;
		case 'w': options.wildcards = true; break;
		case 'j': options.json = true; break;
		case 'h': fputs(usage_text, stdout); return COMMAND_OK;
		default: fputs(usage_text, stderr); return COMMAND_USAGE;
		}
	}
	if (argc - optind > 1) {
		fputs(usage_text, stderr);
		return COMMAND_USAGE;
	}
	options.network = argv[optind];
	return suggest(&options);
}
