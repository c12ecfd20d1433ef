/* SPDX-License-Identifier: MIT */
/*
 * sluice stats [--watch]: who did what, in numbers.
 *
 * Theory of operation: a look is one question to the daemon. --watch looks again and again; on a terminal each look is drawn over the one
 * before, on the alternate screen, which goes when the command ends. The signals that end it, stop it or tell of another window are blocked
 * and taken between two looks, so the terminal is always left as it was.
 */
#include "gateway/command.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "gateway/control.h"
#include "gateway/stats_view.h"
#include "gateway/terminal.h"

#define LOOK_US        200000 /* that a look at all flows may take */
#define WATCH_DEFAULT  2      /* s */
#define WATCH_MAX      86400  /* s */
#define PATIENCE_MS    10000  /* so long a gateway that went away is waited for */
#define ROWS_REPEATED  100    /* of each network, where there is no screen that limits them */
#define ERROR_MAX      512
#define LINES_AROUND   2 /* of the screen: the title, and a blank line */
#define LINES_OF_HEADS 4 /* of each network: head, reasons, titles, what was left out */

#define SCREEN_ENTER "\033[?1049h\033[?25l\033[?7l" /* the alternate screen, without cursor, and long lines are cut */
#define SCREEN_LEAVE "\033[?7h\033[?25h\033[?1049l"
#define SCREEN_HOME  "\033[H"
#define SCREEN_EOL   "\033[K"
#define SCREEN_BELOW "\033[J"

static const char usage_text[] =
	"usage: sluice stats [--watch [SECONDS]] [--network NETWORK] [--app APP] [--sort KEY] [--limit ROWS] [--json]\n"
	"\n"
	"Show what the apps of each network did: flows that were allowed, denied, or let pass by audit mode only, with their\n"
	"destinations and bytes, since the state volume was new, or without one since the gateway was started. What was denied\n"
	"within the last hour comes first, then what audit mode let pass, then the most bytes.\n"
	"\n"
	"  -w, --watch [SECONDS]      look again every 2 (or SECONDS) seconds, and show what has changed, until Ctrl-C\n"
	"  -N, --network NETWORK      only this network\n"
	"  -A, --app APP              only this container, by its name or address\n"
	"  -s, --sort KEY             the most first: denied, bytes, last (seen), allowed\n"
	"  -l, --limit ROWS           at most so many rows of each network\n"
	"  -j, --json                 print JSON; with --watch one line for each look\n"
	"  -h, --help                 print this help\n"
	"\n"
	"Exit status: 0; 1 no gateway answers, or there is no such network; 2 wrong usage.\n";

struct watcher {
	struct stats_view_choice choice;
	struct terminal terminal;
	bool json, watch;
	unsigned int seconds;
	json_t *answer, *before;       /* owned: the last look and the one before it */
	uint64_t looked_at, before_at; /* ms */
	uint64_t failed_at;            /* ms: since then nobody answers; 0: it does */
	char error[ERROR_MAX];
	sigset_t signals;
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* One look */

static json_t *ask(struct watcher *watcher)
{
	json_t *request = json_pack("{s:s, s:s*}", "command", "stats", "network", watcher->choice.network);
	json_t *answer = request ? control_call(control_path(), request, watcher->error, sizeof(watcher->error)) : NULL;
	const char *refusal = json_string_value(json_object_get(answer, "error"));

	json_decref(request);
	if (!request)
		snprintf(watcher->error, sizeof(watcher->error), "out of memory");
	if (!answer)
		return NULL;
	if (json_is_true(json_object_get(answer, "ok")) &&
	    (!watcher->choice.network || json_array_size(json_object_get(answer, "networks"))))
		return answer;
	snprintf(watcher->error, sizeof(watcher->error), "%s", refusal ? refusal : "there is no such network");
	json_decref(answer);
	return NULL;
}

/* Return: false when nobody answers; what was seen before stays. */
static bool look(struct watcher *watcher)
{
	json_t *answer = ask(watcher);

	if (!answer) {
		if (!watcher->failed_at)
			watcher->failed_at = now_ms();
		return false;
	}
	watcher->failed_at = 0;
	json_decref(watcher->before);
	watcher->before = watcher->answer;
	watcher->before_at = watcher->looked_at;
	watcher->answer = answer;
	watcher->looked_at = now_ms();
	return true;
}

/* Return: false when out of memory. */
static bool print_look(const struct watcher *watcher, const struct stats_view_choice *choice, FILE *stream)
{
	json_t *arranged = stats_view_arrange(watcher->answer, choice);
	double seconds = (double)(watcher->looked_at - watcher->before_at) / 1000;
	bool good = arranged;

	if (arranged && watcher->json) {
		good = json_dumpf(arranged, stream, (watcher->watch ? JSON_COMPACT : JSON_INDENT(2)) | JSON_ENSURE_ASCII) == 0;
		fputc('\n', stream);
	} else if (arranged) {
		good = stats_view_print(arranged, watcher->before, seconds, &watcher->terminal, stream);
	}
	json_decref(arranged);
	return good;
}

/* The first question has the gateway look at all flows, so that the second one's answer has what they carried until now. */
static int show_once(struct watcher *watcher)
{
	json_decref(ask(watcher));
	(void)usleep(LOOK_US);
	if (!look(watcher)) {
		fprintf(stderr, "sluice stats: %s\n", watcher->error);
		return COMMAND_NO;
	}
	if (!print_look(watcher, &watcher->choice, stdout)) {
		fprintf(stderr, "sluice stats: out of memory\n");
		return COMMAND_NO;
	}
	return fflush(stdout) == 0 && !ferror(stdout) ? COMMAND_OK : COMMAND_NO;
}

/* Watching */

static const char *clock_text(char out[static 16])
{
	time_t now = time(NULL);
	struct tm parts;

	if (!gmtime_r(&now, &parts) || !strftime(out, 16, "%H:%M:%S UTC", &parts))
		snprintf(out, 16, "?");
	return out;
}

/* So that each network has its share of the screen. */
static size_t rows_that_fit(const struct watcher *watcher)
{
	size_t networks = json_array_size(json_object_get(watcher->answer, "networks"));
	size_t taken = LINES_AROUND + networks * (LINES_OF_HEADS + 1), height = watcher->terminal.height;
	size_t rows = networks && height > taken + networks ? (height - taken) / networks : 1;

	return watcher->choice.limit && watcher->choice.limit < rows ? watcher->choice.limit : rows;
}

/* The title, and below it what was seen last. Return: the text, the caller's; NULL: out of memory. */
static char *compose_frame(const struct watcher *watcher)
{
	struct stats_view_choice choice = watcher->choice;
	char *text = NULL, clock[16], escaped[ERROR_MAX];
	size_t size;
	FILE *stream = open_memstream(&text, &size);
	bool good;

	if (!stream)
		return NULL;
	choice.limit = rows_that_fit(watcher);
	fprintf(stream, "%s, every %u s, Ctrl-C ends", clock_text(clock), watcher->seconds);
	if (watcher->failed_at)
		fprintf(stream, "; %s", terminal_escape(&watcher->terminal, watcher->error, escaped, sizeof(escaped)));
	fputs("\n\n", stream);
	good = print_look(watcher, &choice, stream);
	good &= fclose(stream) == 0;
	if (good)
		return text;
	free(text);
	return NULL;
}

/* Over what is on the screen; the lines that do not fit are left out, so that nothing scrolls. */
static void draw(const struct watcher *watcher)
{
	char *text = compose_frame(watcher), *line = text;
	unsigned int height = watcher->terminal.height ? watcher->terminal.height : 24;

	if (!text)
		return;
	fputs(SCREEN_HOME, stdout);
	for (unsigned int i = 0; i < height && *line; i++) {
		size_t length = strcspn(line, "\n");

		printf("%s%.*s" SCREEN_EOL, i ? "\n" : "", (int)length, line);
		line += length + (line[length] == '\n');
	}
	fputs(SCREEN_BELOW, stdout);
	fflush(stdout);
	free(text);
}

static void print_repeatedly(const struct watcher *watcher)
{
	struct stats_view_choice choice = watcher->choice;
	char clock[16];

	/* Each row is looked for among those of before. */
	if (!choice.limit && !watcher->json)
		choice.limit = ROWS_REPEATED;
	if (!watcher->json)
		printf("--- %s\n", clock_text(clock));
	print_look(watcher, &choice, stdout);
	fflush(stdout);
}

static bool draws(const struct watcher *watcher)
{
	return watcher->terminal.is_terminal && !watcher->json;
}

static void enter_screen(const struct watcher *watcher)
{
	if (draws(watcher))
		fputs(SCREEN_ENTER, stdout);
}

static void leave_screen(const struct watcher *watcher)
{
	if (draws(watcher))
		fputs(SCREEN_LEAVE, stdout);
	fflush(stdout);
}

static void stop_for_a_while(struct watcher *watcher)
{
	leave_screen(watcher);
	raise(SIGSTOP);
	enter_screen(watcher);
	terminal_measure(&watcher->terminal, STDOUT_FILENO);
	draw(watcher);
}

/* Until the next look. Return: false when the command is to end. */
static bool pause_or_end(struct watcher *watcher)
{
	uint64_t end = now_ms() + watcher->seconds * 1000, now;

	while ((now = now_ms()) < end) {
		struct timespec rest = {.tv_sec = (time_t)((end - now) / 1000), .tv_nsec = (long)((end - now) % 1000) * 1000000};
		int number = sigtimedwait(&watcher->signals, NULL, &rest);

		if (number == SIGWINCH) {
			terminal_measure(&watcher->terminal, STDOUT_FILENO);
			if (draws(watcher))
				draw(watcher);
		} else if (number == SIGTSTP) {
			stop_for_a_while(watcher);
		} else if (number > 0) {
			return false;
		}
	}
	return true;
}

static void block_signals(struct watcher *watcher)
{
	static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGWINCH};

	sigemptyset(&watcher->signals);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		sigaddset(&watcher->signals, numbers[i]);
	if (draws(watcher))
		sigaddset(&watcher->signals, SIGTSTP);
	sigprocmask(SIG_BLOCK, &watcher->signals, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* Return: false when the gateway is away for too long. */
static bool look_again(struct watcher *watcher)
{
	if (look(watcher) || now_ms() - watcher->failed_at < PATIENCE_MS) {
		if (draws(watcher))
			draw(watcher);
		else if (!watcher->failed_at)
			print_repeatedly(watcher);
		return true;
	}
	return false;
}

static int watch(struct watcher *watcher)
{
	bool good = true;

	if (!look(watcher)) {
		fprintf(stderr, "sluice stats: %s\n", watcher->error);
		return COMMAND_NO;
	}
	block_signals(watcher);
	enter_screen(watcher);
	if (draws(watcher))
		draw(watcher);
	else
		print_repeatedly(watcher);
	while (good && !ferror(stdout) && pause_or_end(watcher))
		good = look_again(watcher);
	leave_screen(watcher);
	if (!good)
		fprintf(stderr, "sluice stats: %s\n", watcher->error);
	return good ? COMMAND_OK : COMMAND_NO;
}

/* Options */

static bool read_number(const char *text, unsigned long max, unsigned long *out)
{
	char *end;

	if (!text || *text < '0' || *text > '9')
		return false;
	errno = 0;
	*out = strtoul(text, &end, 10);
	return !errno && !*end && *out > 0 && *out <= max;
}

/* The seconds are a word of their own, or stand behind "=". */
static bool read_watch(struct watcher *watcher, char **argv)
{
	unsigned long seconds = WATCH_DEFAULT;

	watcher->watch = true;
	if (optarg && !read_number(optarg, WATCH_MAX, &seconds))
		return false;
	if (!optarg && read_number(argv[optind], WATCH_MAX, &seconds))
		optind++;
	watcher->seconds = (unsigned int)seconds;
	return true;
}

static bool read_limit(struct watcher *watcher)
{
	unsigned long limit = 0;

	if (!read_number(optarg, UINT32_MAX, &limit))
		return false;
	watcher->choice.limit = limit;
	return true;
}

/* Return: false when the value is wrong. */
static bool read_option(struct watcher *watcher, int option, char **argv)
{
	switch (option) {
	case 'w': return read_watch(watcher, argv);
	case 'N': watcher->choice.network = optarg; return true;
	case 'A': watcher->choice.app = optarg; return true;
	case 's': return stats_view_parse_sort(optarg, &watcher->choice.sort);
	case 'l': return read_limit(watcher);
	case 'j': watcher->json = true; return true;
	default: return false;
	}
}

int cmd_stats(int argc, char **argv)
{
	static const struct option options[] = {{"watch", optional_argument, NULL, 'w'}, {"network", required_argument, NULL, 'N'},
						{"app", required_argument, NULL, 'A'},   {"sort", required_argument, NULL, 's'},
						{"limit", required_argument, NULL, 'l'}, {"json", no_argument, NULL, 'j'},
						{"help", no_argument, NULL, 'h'},        {0}};
	struct watcher watcher = {0};
	int option, status;

	optind = 0; /* also makes GNU getopt start again */
	while ((option = getopt_long(argc, argv, "w::N:A:s:l:jh", options, NULL)) != -1) {
		if (option == 'h') {
			fputs(usage_text, stdout);
			return COMMAND_OK;
		}
		if (!read_option(&watcher, option, argv)) {
			fputs(usage_text, stderr);
			return COMMAND_USAGE;
		}
	}
	if (optind != argc) {
		fputs(usage_text, stderr);
		return COMMAND_USAGE;
	}
	terminal_look(&watcher.terminal, STDOUT_FILENO);
	status = watcher.watch ? watch(&watcher) : show_once(&watcher);
	json_decref(watcher.answer);
	json_decref(watcher.before);
	return status;
}
