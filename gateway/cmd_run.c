/* SPDX-License-Identifier: MIT */
#include <getopt.h>
#include <stdio.h>

#include "gateway/command.h"
#include "gateway/gateway.h"
#include "gateway/privileges.h"
#include "gateway/supervisor.h"

static int usage(FILE *stream, int status)
{
	fprintf(stream,
		"usage: sluice run [-c FILE_OR_DIR]\n\n"
		"Forward DNS, fill the sets, masquerade what is allowed, log and refuse the rest. The policy comes from -c, else from the\n"
		"environment variable %s, else from %s. SIGHUP or a change of the files reloads it; SIGTERM stops.\n\n"
		"  -c, --config FILE_OR_DIR   the policy\n"
		"  -h, --help                 print this help\n",
		CONFIG_ENVIRONMENT, CONFIG_DEFAULT_PATH);
	return status;
}

static int run_worker(void *context, const struct supervisor_worker_start *start)
{
	return gateway_run(context, start);
}

int cmd_run(int argc, char **argv)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	char error[GATEWAY_ERROR_MAX];
	char *path = NULL;
	int option;

	while ((option = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
		if (option == 'h')
			return usage(stdout, COMMAND_OK);
		if (option != 'c')
			return usage(stderr, COMMAND_USAGE);
		path = optarg;
	}
	if (optind != argc)
		return usage(stderr, COMMAND_USAGE);
	if (privileges_drop(error, sizeof(error)) != 0) {
		fprintf(stderr, "sluice run: %s\n", error);
		return COMMAND_NO;
	}
	return supervisor_run(run_worker, path);
}
