/* SPDX-License-Identifier: MIT */
/*
 * sluice idle: nothing, for ever. A macvlan segment on a VLAN of a bridge has no carrier while the bridge has no port; a companion
 * container on that bridge gives it one.
 */
#include <cap-ng.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "gateway/command.h"

static const char usage_text[] = "usage: sluice idle\n"
				 "\n"
				 "Do nothing until SIGTERM or SIGINT: the companion service that keeps a parent interface up, for the\n"
				 "macvlan form. It needs no capability.\n"
				 "\n"
				 "  -h, --help   print this help\n";

/* What it does not need it does not keep. The image's binary may come with a capability. */
static void drop_everything(void)
{
	capng_clear(CAPNG_SELECT_BOTH);
	if (capng_apply(CAPNG_SELECT_CAPS) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		fprintf(stderr, "sluice idle: privileges that are not needed could not be dropped\n");
}

/* Signals are blocked and waited for: PID 1 gets no default action, and this needs neither a handler nor the processor. */
static int wait_for_the_end(void)
{
	sigset_t signals;
	int number;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &signals, NULL) != 0) {
		fprintf(stderr, "sluice idle: %s\n", strerror(errno));
		return COMMAND_NO;
	}
	for (;;) {
		number = sigwaitinfo(&signals, NULL);
		if (number == SIGTERM || number == SIGINT)
			return COMMAND_OK;
		/* PID 1 inherits orphans, of `docker exec` for example. */
		while (number == SIGCHLD && waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
}

int cmd_idle(int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {0}};
	int option;

	optind = 0; /* also makes GNU getopt start again */
	option = getopt_long(argc, argv, "h", options, NULL);
	if (option == 'h') {
		fputs(usage_text, stdout);
		return COMMAND_OK;
	}
	if (option != -1 || optind != argc) {
		fputs(usage_text, stderr);
		return COMMAND_USAGE;
	}
	drop_everything();
	return wait_for_the_end();
}
