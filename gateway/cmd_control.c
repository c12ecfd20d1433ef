/* SPDX-License-Identifier: MIT */
/* The commands that ask the running daemon one thing: health, reload. */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/command.h"
#include "gateway/control.h"

struct call {
	const char *name;
	const char *help;
	void (*print)(const json_t *answer); /* when ok */
};

static int usage(const struct call *call, FILE *stream, int status)
{
	fprintf(stream, "usage: sluice %s [--json]\n\n%s\n", call->name, call->help);
	return status;
}

static void print_messages(const json_t *answer)
{
	size_t index;
	json_t *text;

	json_array_foreach(json_object_get(answer, "messages"), index, text)
	{
		fprintf(stderr, "%s\n", json_string_value(text));
	}
}

static int print_answer(const struct call *call, const json_t *answer, bool as_json)
{
	bool ok = json_is_true(json_object_get(answer, "ok"));

	if (as_json) {
		json_dumpf(answer, stdout, JSON_INDENT(2));
		printf("\n");
		return ok ? COMMAND_OK : COMMAND_NO;
	}
	print_messages(answer);
	if (!ok) {
		const char *text = json_string_value(json_object_get(answer, "error"));

		fprintf(stderr, "sluice %s: %s\n", call->name, text != NULL ? text : "the daemon says no");
		return COMMAND_NO;
	}
	call->print(answer);
	return COMMAND_OK;
}

static int run_call(const struct call *call, int argc, char **argv)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	char error[512];
	bool as_json = false;
	json_t *request, *answer;
	int option, status;

	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (option == 'h')
			return usage(call, stdout, COMMAND_OK);
		if (option != 'j')
			return usage(call, stderr, COMMAND_USAGE);
		as_json = true;
	}
	if (optind != argc)
		return usage(call, stderr, COMMAND_USAGE);
	request = json_pack("{s:s}", "command", call->name);
	answer = control_call(control_path(), request, error, sizeof(error));
	json_decref(request);
	if (answer == NULL) {
		fprintf(stderr, "sluice %s: %s\n", call->name, error);
		return COMMAND_NO;
	}
	status = print_answer(call, answer, as_json);
	json_decref(answer);
	return status;
}

static void print_health(const json_t *answer)
{
	printf("healthy: %lld networks, %lld leases, %lld restarts\n", (long long)json_integer_value(json_object_get(answer, "networks")),
	       (long long)json_integer_value(json_object_get(answer, "leases")),
	       (long long)json_integer_value(json_object_get(answer, "restarts")));
}

static void print_reloaded(const json_t *answer)
{
	printf("reloaded: %lld networks\n", (long long)json_integer_value(json_object_get(answer, "networks")));
}

int cmd_health(int argc, char **argv)
{
	static const struct call call = {"health", "Ask the daemon whether it works; exit status 1 when it does not. For HEALTHCHECK.",
					 print_health};

	return run_call(&call, argc, argv);
}

int cmd_reload(int argc, char **argv)
{
	static const struct call call = {
		"reload", "Read the policy again. When it is bad it is reported, the running one stays, and the exit status is 1.",
		print_reloaded};

	return run_call(&call, argc, argv);
}
