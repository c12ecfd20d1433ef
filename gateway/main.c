/* SPDX-License-Identifier: MIT */
/* The command line: one word, one command. */
#include <stdio.h>
#include <string.h>

#include "gateway/command.h"

static const struct command commands[] = {
	{"run", "[-c FILE_OR_DIR]", "the gateway: forward DNS, fill the sets, log and refuse the rest", cmd_run},
	{"check", "[--json] FILE_OR_DIR", "validate a policy and print what it means", cmd_check},
	{"explain", "[-c FILE_OR_DIR] [--json] NETWORK NAME_OR_ADDRESS[:PORT[/PROTO]] | --last [--network NETWORK] [--app APP]",
	 "allowed or denied, and by which rule; or what was denied last", cmd_explain},
	{"init", "NETWORK NAME...", "print a Compose file to start from", cmd_init},
	{"lint", "[--json] [--gateway SERVICE] [--uplink NETWORK] [--network NETWORK]... [-c FILE_OR_DIR] [FILE]",
	 "find ways around the gateway in `docker compose config --format json`", cmd_lint},
	{"doctor", "[-c FILE_OR_DIR] [--json]", "check the gateway's container from inside, and name the cures", cmd_doctor},
	{"idle", "", "do nothing, for ever: keeps the parent of a macvlan network up", cmd_idle},
	{"log", "[-f] [-n LINES] [--denied] [--audit] [--allowed] [--network NETWORK] [--app APP] [--name NAME] [--json]",
	 "what the running gateway decided last, and what it decides from now on", cmd_log},
	{"stats", "[--watch [SECONDS]] [--network NETWORK] [--app APP] [--sort KEY] [--limit ROWS] [--json]",
	 "what each app did, in numbers", cmd_stats},
	{"suggest", "[--denied] [--wildcards] [--json] [NETWORK]", "rules to paste, from what audit mode let pass", cmd_suggest},
	{"reload", "[--json]", "make the running gateway read its policy again", cmd_reload},
	{"health", "[--json]", "ask the running gateway whether it works", cmd_health},
};

static int usage(FILE *stream, int status)
{
	fprintf(stream, "usage: sluice COMMAND [...]\n\n");
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		fprintf(stream, "  %-8s %s\n", commands[i].name, commands[i].summary);
	fprintf(stream, "\n`sluice COMMAND --help` says more; sluice(8) and sluice.conf(5) say all.\n");
	return status;
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return usage(stderr, COMMAND_USAGE);
	if (strcmp(argv[1], "--version") == 0) {
		printf("sluice %s\n", SLUICE_VERSION);
		return COMMAND_OK;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0)
		return usage(stdout, COMMAND_OK);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argc - 1, argv + 1);
	}
	fprintf(stderr, "sluice: no command `%s`\n\n", argv[1]);
	return usage(stderr, COMMAND_USAGE);
}
