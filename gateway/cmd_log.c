/* SPDX-License-Identifier: MIT */
/*
 * sluice log [-f]: the last decisions of the running gateway, and those that come from now on.
 *
 * Theory of operation: what is there is read first, filtered here, and the last LINES of it are printed. To follow, the daemon is asked
 * again, for all that it remembers and what comes; what was seen already is passed over by its time (struct position). So nothing is
 * missing or told twice between the two, nor when the daemon's worker is started again and the connection has to be made anew.
 */
#include "gateway/command.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "gateway/control.h"
#include "gateway/log_view.h"
#include "gateway/report/recent.h"
#include "gateway/terminal.h"

#define ALL_LINES        (RECENT_DENIED_MAX + RECENT_ALLOWED_MAX)
#define LINES_DEFAULT    100
#define LINES_FOLLOWING  10
#define RECONNECT_MS     10000 /* so long a gateway that went away is waited for */
#define RECONNECT_TRY_MS 200
#define ERROR_MAX        512

static const char usage_text[] =
	"usage: sluice log [-f] [-n LINES] [--denied] [--audit] [--allowed] [--network NETWORK] [--app APP] [--name NAME] [--json]\n"
	"\n"
	"Show the last decisions of the running gateway, one line each: what was denied, what audit mode let pass, what was\n"
	"allowed and has ended (whatever `log_allowed` says, which is about standard output). Times are UTC.\n"
	"\n"
	"  -f, --follow               go on with what comes, until Ctrl-C\n"
	"  -n, --lines LINES          so many of the last lines; default: 100, with -f 10\n"
	"  -d, --denied               only what was denied\n"
	"  -u, --audit                only what audit mode let pass; these three may be combined\n"
	"  -a, --allowed              only what was allowed, has ended, or came in to a published port\n"
	"  -N, --network NETWORK      only this network\n"
	"  -A, --app APP              only this container, by its name or address\n"
	"  -s, --name NAME            only this name; *.NAME: all below it; **.NAME: both; also an address or a prefix\n"
	"  -j, --json                 the lines as JSON objects (see docs/log-format.md)\n"
	"  -h, --help                 print this help\n"
	"\n"
	"Exit status: 0; 1 no gateway answers, or it went away; 2 wrong usage.\n";

/* Where we are in what the daemon tells: everything before `time` was seen, and `same` lines of that very time. */
struct position {
	char time[32]; /* "": at the beginning */
	size_t same;
	size_t passed;   /* of those, how many the connection has told again */
	size_t catch_up; /* lines that may still be old ones */
};

struct viewer {
	struct log_view_filter filter;
	struct terminal terminal;
	struct log_view_columns columns;
	struct position position;
	bool json, follow;
	size_t lines;
	int signals;   /* signalfd() of what ends us; -1: none */
	char **kept;   /* owned: a ring of the last `lines` of what is there */
	size_t stored; /* lines that were put there, also those that others have replaced */
};

/* One line */

static void print_json(const char *text, const json_t *line)
{
	/* The daemon has escaped what moves cursors; what has not is not passed on either. */
	for (const char *at = text; *at; at += log_showable(at)) {
		if (log_showable(at) == 0) {
			json_dumpf(line, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
			putchar('\n');
			return;
		}
	}
	puts(text);
}

static void print_line(struct viewer *viewer, const char *text, const json_t *line)
{
	if (viewer->json)
		print_json(text, line);
	else
		log_view_print(&viewer->columns, &viewer->terminal, stdout, line);
}

/* Was this line seen before? It will have been, from now on. */
static bool pass_over(struct position *position, const json_t *line)
{
	const char *time = log_view_value(line, "ts");
	int order = time ? strcmp(time, position->time) : 1;

	if (position->catch_up > 0) {
		position->catch_up--;
		if (order < 0 || (order == 0 && position->passed++ < position->same))
			return true;
	}
	if (!time)
		return false;
	if (order != 0) {
		/* A clock that was set back does not make new lines old. */
		snprintf(position->time, sizeof(position->time), "%s", time);
		position->same = 0;
		position->catch_up = 0;
	}
	position->same++;
	return false;
}

/* Return: the line, when it is wanted and new; the caller's. */
static json_t *read_line(struct viewer *viewer, const char *text, size_t size)
{
	json_t *line = json_loadb(text, size, 0, NULL);

	if (json_is_object(line) && !pass_over(&viewer->position, line) && log_view_passes(&viewer->filter, line))
		return line;
	json_decref(line);
	return NULL;
}

/* The connection */

static struct control_reader *connect_daemon(struct viewer *viewer, bool follow, char error[static ERROR_MAX])
{
	const struct log_view_filter *filter = &viewer->filter;
	bool denied = (filter->denied || filter->audit) && !filter->allowed;
	/* To go on from there, all of what is there has to be known. */
	bool all = viewer->follow || !log_view_passes_all(filter);
	size_t lines = all ? ALL_LINES : viewer->lines ? viewer->lines : 1;
	json_t *request =
		json_pack("{s:s, s:I, s:b, s:b}", "command", "log", "lines", (json_int_t)lines, "denied", denied, "follow", follow);
	struct control_reader *stream = NULL;

	if (request)
		stream = control_reader_open(control_path(), request, error, ERROR_MAX);
	else
		snprintf(error, ERROR_MAX, "out of memory");
	json_decref(request);
	viewer->position.passed = 0;
	viewer->position.catch_up = viewer->position.time[0] ? ALL_LINES : 0;
	return stream;
}

/* Ctrl-C, or nobody reads what we write. */
static bool is_over(const struct pollfd *signals, const struct pollfd *output)
{
	return signals->revents || (output->revents & (POLLERR | POLLHUP | POLLNVAL));
}

/*
 * Wait until the daemon says something.
 * @stream:	may be NULL: just wait
 * Return: 1 when it did, 0 when the time is over, -ECANCELED when we are to end.
 */
static int wait_for(const struct viewer *viewer, const struct control_reader *stream, int milliseconds)
{
	struct pollfd waits[] = {{.fd = viewer->signals, .events = POLLIN},
				 {.fd = STDOUT_FILENO},
				 {.fd = stream ? control_reader_fd(stream) : -1, .events = POLLIN}};
	int rc;

	fflush(stdout);
	if (ferror(stdout))
		return -ECANCELED;
	do {
		rc = poll(waits, sizeof(waits) / sizeof(waits[0]), milliseconds);
	} while (rc < 0 && errno == EINTR);
	if (rc > 0 && is_over(&waits[0], &waits[1]))
		return -ECANCELED;
	return waits[2].revents != 0;
}

/* What is there */

/* Return: false without memory. */
static bool keep(struct viewer *viewer, const char *text)
{
	char **place = &viewer->kept[viewer->stored++ % viewer->lines];

	free(*place);
	*place = strdup(text);
	return *place != NULL;
}

/* Return: 0 at the end of what is there, else -errno. */
static int collect(struct viewer *viewer, struct control_reader *stream)
{
	const char *text;
	size_t size;
	int rc;

	while ((rc = control_reader_next(stream, &text, &size)) > 0) {
		json_t *line = read_line(viewer, text, size);
		bool good = !line || !viewer->lines || keep(viewer, text);

		json_decref(line);
		if (!good)
			return -ENOMEM;
	}
	return rc == -ENODATA ? 0 : rc;
}

static void each_kept(struct viewer *viewer, void (*visit)(struct viewer *viewer, const char *text, const json_t *line))
{
	size_t count = viewer->stored < viewer->lines ? viewer->stored : viewer->lines;

	for (size_t i = viewer->stored - count; i < viewer->stored; i++) {
		const char *text = viewer->kept[i % viewer->lines];
		json_t *line = json_loads(text, 0, NULL);

		visit(viewer, text, line);
		json_decref(line);
	}
}

static void measure(struct viewer *viewer, const char *text, const json_t *line)
{
	(void)text;
	log_view_measure(&viewer->columns, &viewer->terminal, line);
}

static int show_recent(struct viewer *viewer, char error[static ERROR_MAX])
{
	struct control_reader *stream = connect_daemon(viewer, false, error);
	int rc;

	if (!stream)
		return -EIO;
	rc = collect(viewer, stream);
	control_reader_close(stream);
	if (rc == 0) {
		each_kept(viewer, measure);
		each_kept(viewer, print_line);
	} else {
		snprintf(error, ERROR_MAX, "the daemon's answer broke off: %s", strerror(-rc));
	}
	return rc;
}

/* What comes */

/* Return: -errno; -ECANCELED when we are to end. */
static int follow_connection(struct viewer *viewer, struct control_reader *stream)
{
	const char *text;
	size_t size;
	int rc;

	while ((rc = control_reader_read(stream, &text, &size)) >= 0) {
		json_t *line = rc > 0 ? read_line(viewer, text, size) : NULL;

		if (line)
			print_line(viewer, text, line);
		json_decref(line);
		if (rc == 0 && (rc = wait_for(viewer, stream, -1)) < 0)
			break;
	}
	return rc;
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* A worker that is started again is away for a moment. Return: NULL with @error, or without one when we are to end. */
static struct control_reader *reconnect(struct viewer *viewer, char error[static ERROR_MAX])
{
	uint64_t end = now_ms() + RECONNECT_MS;
	struct control_reader *stream = NULL;

	fprintf(stderr, "sluice log: the gateway has closed the connection; trying again for %d s\n", RECONNECT_MS / 1000);
	do {
		if (wait_for(viewer, NULL, RECONNECT_TRY_MS) < 0) {
			error[0] = '\0';
			return NULL;
		}
		stream = connect_daemon(viewer, true, error);
	} while (!stream && now_ms() < end);
	if (stream)
		fprintf(stderr, "sluice log: connected again\n");
	return stream;
}

static int follow(struct viewer *viewer, char error[static ERROR_MAX])
{
	struct control_reader *stream = connect_daemon(viewer, true, error);
	int rc = 0;

	while (stream) {
		rc = follow_connection(viewer, stream);
		control_reader_close(stream);
		if (rc == -ECANCELED)
			return 0;
		stream = reconnect(viewer, error);
	}
	return error[0] ? -EIO : 0;
}

/* Ctrl-C and its like end the command between two lines, with status 0. */
static int open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

static int view(struct viewer *viewer)
{
	char error[ERROR_MAX] = "";
	int rc;

	viewer->kept = calloc(viewer->lines + 1, sizeof(*viewer->kept));
	if (!viewer->kept) {
		fprintf(stderr, "sluice log: out of memory\n");
		return COMMAND_NO;
	}
	viewer->signals = open_signals();
	terminal_look(&viewer->terminal, STDOUT_FILENO);
	rc = show_recent(viewer, error);
	if (rc == 0 && viewer->follow)
		rc = follow(viewer, error);
	if (rc != 0 && rc != -ECANCELED)
		fprintf(stderr, "sluice log: %s\n", error);
	for (size_t i = 0; i < viewer->lines; i++)
		free(viewer->kept[i]);
	free(viewer->kept);
	close(viewer->signals);
	fflush(stdout);
	return rc == 0 || rc == -ECANCELED ? COMMAND_OK : COMMAND_NO;
}

/* Options */

static bool read_lines(const char *text, size_t *lines)
{
	char *end;
	unsigned long value;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || *end)
		return false;
	*lines = value < ALL_LINES ? value : ALL_LINES;
	return true;
}

static bool read_value(struct viewer *viewer, int option, const char *value)
{
	const char *problem = NULL;

	switch (option) {
	case 'N': viewer->filter.network = value; break;
	case 'A': viewer->filter.app = value; break;
	case 's': problem = log_view_parse_name(&viewer->filter, value); break;
	case 'n': problem = read_lines(value, &viewer->lines) ? NULL : "a number of lines is expected"; break;
	default: return false;
	}
	if (problem)
		fprintf(stderr, "sluice log: %s: %s\n", value, problem);
	return !problem;
}

static bool read_option(struct viewer *viewer, int option, const char *value)
{
	switch (option) {
	case 'f': viewer->follow = true; break;
	case 'd': viewer->filter.denied = true; break;
	case 'u': viewer->filter.audit = true; break;
	case 'a': viewer->filter.allowed = true; break;
	case 'j': viewer->json = true; break;
	default: return read_value(viewer, option, value);
	}
	return true;
}

int cmd_log(int argc, char **argv)
{
	static const struct option options[] = {{"follow", no_argument, NULL, 'f'},
						{"lines", required_argument, NULL, 'n'},
						{"denied", no_argument, NULL, 'd'},
						{"audit", no_argument, NULL, 'u'},
						{"allowed", no_argument, NULL, 'a'},
						{"network", required_argument, NULL, 'N'},
						{"app", required_argument, NULL, 'A'},
						{"name", required_argument, NULL, 's'},
						{"json", no_argument, NULL, 'j'},
						{"help", no_argument, NULL, 'h'},
						{0}};
	struct viewer viewer = {.lines = SIZE_MAX, .signals = -1};
	int option;

	optind = 0; /* also makes GNU getopt start again */
	while ((option = getopt_long(argc, argv, "fn:duaN:A:s:jh", options, NULL)) != -1) {
		if (option == 'h') {
			fputs(usage_text, stdout);
			return COMMAND_OK;
		}
		if (option == '?' || !read_option(&viewer, option, optarg)) {
			if (option == '?')
				fputs(usage_text, stderr);
			return COMMAND_USAGE;
		}
	}
	if (optind != argc) {
		fputs(usage_text, stderr);
		return COMMAND_USAGE;
	}
	if (viewer.lines == SIZE_MAX)
		viewer.lines = viewer.follow ? LINES_FOLLOWING : LINES_DEFAULT;
	return view(&viewer);
}
