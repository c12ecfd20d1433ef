/* SPDX-License-Identifier: MIT */
#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>

#include "gateway/command.h"
#include "gateway/confine.h"
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

#define LARGE (64 * 1024)  /* octets: nothing that is taken and given back for each answer is as large */
#define SPARE (512 * 1024) /* octets at the end of the heap that are kept: giving them back takes a system call */

/*
 * Large blocks stay mappings of their own: tables of which most is never used take no memory then. Left to itself malloc() takes them from
 * the heap as soon as one large block has been freed, and writes zeros over all of a table.
 */
static void keep_memory_small(void)
{
	(void)mallopt(M_MMAP_THRESHOLD, LARGE);
	(void)mallopt(M_TRIM_THRESHOLD, SPARE);
}

static int run_worker(void *context, const struct supervisor_worker_start *start)
{
	return gateway_run(context, start);
}

/* Return: 0 also where the kernel cannot; or -errno, said. */
static int confine(void)
{
	int rc = confine_prepare();

	if (rc == 0)
		rc = confine_calls(CONFINE_SUPERVISOR);
	if (rc == -ENOTSUP) {
		if (CONFINE_BUILT)
			fprintf(stderr, "sluice run: system calls are not limited: the kernel has no filters for them\n");
		return 0;
	}
	if (rc != 0)
		fprintf(stderr, "sluice run: system calls cannot be limited: %s; it does not run without\n", strerror(-rc));
	return rc;
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
	keep_memory_small();
	if (privileges_drop(error, sizeof(error)) != 0) {
		fprintf(stderr, "sluice run: %s\n", error);
		return COMMAND_NO;
	}
	return confine() == 0 ? supervisor_run(run_worker, path) : COMMAND_NO;
}
