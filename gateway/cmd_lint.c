/* SPDX-License-Identifier: MIT */
/* sluice lint: does this Compose project leave a way around the gateway? The findings are made in compose_lint*.c. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gateway/command.h"
#include "gateway/compose_lint.h"
#include "gateway/config.h"

#define READ_STEP 65536UL /* bytes */

static const char convert_text[] = "python3 -c 'import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)'";

static const char usage_text[] =
	"usage: sluice lint [--json] [--gateway SERVICE] [--uplink NETWORK] [--network NETWORK]...\n"
	"                   [-c FILE_OR_DIR] [FILE]\n"
	"\n"
	"Find ways around the gateway, and what keeps it from working, in a Compose project. FILE, or standard\n"
	"input, is what Compose makes of the project:\n"
	"\n"
	"    docker compose config --format json | sluice lint\n"
	"\n"
	"docker-compose 1.29.2 prints YAML only; Python (package python3-yaml) turns it into JSON:\n"
	"\n"
	"    docker-compose config |\n"
	"      %s |\n"
	"      sluice lint\n"
	"\n"
	"      --gateway SERVICE      the gateway; default: the service with the image `sluice`, SLUICE_CONFIG, or\n"
	"                             a mount at " CONFIG_DEFAULT_PATH "\n"
	"      --uplink NETWORK       the network that leads to the Internet; default: the one called `uplink`, or\n"
	"                             the only one of the gateway's that can be\n"
	"      --network NETWORK      a network behind a gateway of another project (may be repeated)\n"
	"  -c, --config FILE_OR_DIR   the policy to compare with; default: SLUICE_CONFIG of the gateway service\n"
	"  -j, --json                 print JSON\n"
	"  -h, --help                 print this help\n"
	"\n"
	"Each finding says where, what, and which lines to write into the Compose file; docs/lint.md explains all.\n"
	"\n"
	"Exit status: 0 no errors (warnings are allowed), 1 errors, 2 wrong usage, or no Compose project.\n";

static int fail(const char *about, const char *problem)
{
	fprintf(stderr, "sluice lint: %s: %s\n", about, problem);
	return COMMAND_USAGE;
}

/* Reading */

static ssize_t read_some(int fd, char *out, size_t size)
{
	ssize_t got;

	do {
		got = read(fd, out, size);
	} while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : got;
}

/* At most COMPOSE_SIZE_MAX bytes. Return: 0 or -errno; @text is owned by the caller in any case. */
static int read_all(int fd, char **text, size_t *size)
{
	size_t capacity = 0;
	ssize_t got;
	char *larger;

	*text = NULL;
	*size = 0;
	do {
		if (*size == capacity) {
			capacity = capacity ? capacity * 2 : READ_STEP;
			larger = realloc(*text, capacity);
			if (!larger)
				return -ENOMEM;
			*text = larger;
		}
		got = read_some(fd, *text + *size, capacity - *size);
		if (got < 0)
			return (int)got;
		*size += (size_t)got;
		if (*size > COMPOSE_SIZE_MAX)
			return -E2BIG;
	} while (got > 0);
	return 0;
}

static json_t *parse(const char *about, const char *text, size_t size)
{
	json_error_t error;
	json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);

	if (root)
		return root;
	fprintf(stderr,
		"sluice lint: %s: this is not JSON (line %d). Write: docker compose config --format json | sluice lint\n"
		"With docker-compose 1.29.2: docker-compose config | %s | sluice lint\n",
		about, error.line, convert_text);
	return NULL;
}

/* Return: the project's JSON, or NULL; what is wrong has been printed. */
static json_t *load(const char *path)
{
	bool is_stdin = !path || strcmp(path, "-") == 0;
	const char *about = is_stdin ? "standard input" : path;
	int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	json_t *root = NULL;
	char *text = NULL;
	size_t size = 0;
	int error = fd < 0 ? -errno : read_all(fd, &text, &size);

	if (error)
		fail(about, error == -E2BIG ? "larger than 16 MiB: this is no Compose project" : strerror(-error));
	else
		root = parse(about, text, size);
	free(text);
	if (fd >= 0 && !is_stdin)
		close(fd);
	return root;
}

/* Text */

static void print_names(const char *title, const struct compose *compose, const struct lint_report *report, bool apps)
{
	bool any = false;

	for (size_t i = 0; i < compose->service_count; i++) {
		if (report->apps[i] != apps || &compose->services[i] == report->gateway)
			continue;
		printf("%s%s", any ? ", " : title, compose->services[i].name);
		any = true;
	}
	if (any)
		printf("\n");
}

/* What the findings are based on: who is not listed here was not looked at. */
static void print_roles(const struct compose *compose, const struct lint_report *report)
{
	bool any = false;

	printf("gateway: %s", report->gateway ? report->gateway->name : "in another project, or none");
	if (report->uplink)
		printf(", uplink %s", report->uplink->name);
	printf("\n");
	for (size_t i = 0; i < compose->network_count; i++) {
		if (report->roles[i] != LINT_ROLE_BEHIND)
			continue;
		printf("%s%s (%s)", any ? ", " : "networks behind it: ", compose->networks[i].name,
		       compose_lint_form_name(compose_lint_form(&compose->networks[i])));
		any = true;
	}
	if (any)
		printf("\n");
	print_names("apps: ", compose, report, true);
	print_names("not behind it: ", compose, report, false);
}

static void print_lines(const char *lines)
{
	for (const char *line = lines; *line;) {
		size_t length = strcspn(line, "\n");

		printf("    %.*s\n", (int)length, line);
		line += length + (line[length] == '\n');
	}
}

static const char *subject_name(enum lint_subject subject)
{
	switch (subject) {
	case LINT_PROJECT: return "project";
	case LINT_SERVICE: return "service ";
	case LINT_NETWORK: return "network ";
	}
	return "";
}

static void print_finding(const struct lint_finding *finding)
{
	printf("\n%s: %s%s: %s [%s]\n", finding->severity == LINT_ERROR ? "error" : "warning", subject_name(finding->subject),
	       finding->name ? finding->name : "", finding->text, compose_lint_code(finding->code));
	if (finding->fix)
		print_lines(finding->fix);
}

static void print_report(const struct compose *compose, const struct lint_report *report)
{
	print_roles(compose, report);
	for (size_t i = 0; i < report->count; i++)
		print_finding(&report->findings[i]);
	if (report->errors + report->warnings == 0)
		printf("no findings\n");
	else
		printf("\n%zu errors, %zu warnings\n", report->errors, report->warnings);
}

/* JSON. Whatever could not be allocated makes what it belongs to NULL, up to the root: nothing is left out silently. */

static void append(json_t **array, json_t *item)
{
	if (json_array_append_new(*array, item) == 0)
		return;
	json_decref(*array);
	*array = NULL;
}

static json_t *finding_json(const struct lint_finding *finding)
{
	return json_pack("{s:s, s:s, s:s?, s:s?, s:s, s:s?}", "severity", finding->severity == LINT_ERROR ? "error" : "warning", "code",
			 compose_lint_code(finding->code), "service", finding->subject == LINT_SERVICE ? finding->name : NULL, "network",
			 finding->subject == LINT_NETWORK ? finding->name : NULL, "text", finding->text, "fix", finding->fix);
}

static json_t *report_json(const struct compose *compose, const struct lint_report *report)
{
	json_t *findings = json_array(), *networks = json_array(), *apps = json_array();

	for (size_t i = 0; i < report->count; i++)
		append(&findings, finding_json(&report->findings[i]));
	for (size_t i = 0; i < compose->network_count; i++) {
		if (report->roles[i] == LINT_ROLE_BEHIND)
			append(&networks, json_pack("{s:s, s:s}", "name", compose->networks[i].name, "form",
						    compose_lint_form_name(compose_lint_form(&compose->networks[i]))));
	}
	for (size_t i = 0; i < compose->service_count; i++) {
		if (report->apps[i])
			append(&apps, json_string(compose->services[i].name));
	}
	return json_pack("{s:b, s:s?, s:s?, s:o, s:o, s:I, s:I, s:o}", "ok", report->errors == 0, "gateway",
			 report->gateway ? report->gateway->name : NULL, "uplink", report->uplink ? report->uplink->name : NULL, "networks",
			 networks, "apps", apps, "errors", (json_int_t)report->errors, "warnings", (json_int_t)report->warnings, "findings",
			 findings);
}

static bool print_json(const struct compose *compose, const struct lint_report *report)
{
	json_t *root = report_json(compose, report);
	bool good = root && json_dumpf(root, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII) == 0;

	json_decref(root);
	putchar('\n');
	return good;
}

/* The command */

static int report_all(const struct compose *compose, const struct lint_options *options, bool json)
{
	struct lint_report report;
	bool good = true;
	int error = compose_lint(compose, options, &report);

	if (error == -ENOENT)
		return fail("--gateway, --uplink or --network", "the project has nothing of this name");
	if (error)
		return fail("project", strerror(-error));
	if (json)
		good = print_json(compose, &report);
	else
		print_report(compose, &report);
	good &= fflush(stdout) == 0 && !ferror(stdout) && report.errors == 0;
	compose_lint_free(&report);
	return good ? COMMAND_OK : COMMAND_NO;
}

static int lint(const char *path, const struct lint_options *options, bool json)
{
	char error[COMPOSE_ERROR_MAX];
	struct compose compose;
	json_t *root = load(path);
	int status = COMMAND_USAGE;

	if (!root)
		return COMMAND_USAGE;
	if (compose_read(root, &compose, error) == 0) {
		status = report_all(&compose, options, json);
		compose_free(&compose);
	} else {
		fail("this is no Compose project", error);
	}
	json_decref(root);
	return status;
}

/* Return: the policy, or NULL; what is wrong has been printed. */
static struct policy *load_policy(const char *path)
{
	struct config_messages messages = {0};
	struct policy *policy = config_load(path, &messages);

	/* Warnings are for `sluice check`. */
	for (size_t i = 0; i < messages.count && !policy; i++)
		fprintf(stderr, "%s\n", messages.list[i].text);
	if (!policy && !messages.count)
		fprintf(stderr, "sluice lint: out of memory\n");
	config_messages_free(&messages);
	return policy;
}

static int usage(FILE *stream, int status)
{
	fprintf(stream, usage_text, convert_text);
	return status;
}

enum { OPTION_GATEWAY = 256, OPTION_UPLINK, OPTION_NETWORK };

/* Return: -1 to go on, or an exit status. @networks has room for all words of the command line. */
static int read_options(int argc, char **argv, struct lint_options *out, const char **networks, const char **config, bool *json)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'},
						{"config", required_argument, NULL, 'c'},
						{"gateway", required_argument, NULL, OPTION_GATEWAY},
						{"uplink", required_argument, NULL, OPTION_UPLINK},
						{"network", required_argument, NULL, OPTION_NETWORK},
						{"help", no_argument, NULL, 'h'},
						{0}};
	int option;

	optind = 0; /* also makes GNU getopt start again */
	while ((option = getopt_long(argc, argv, "c:jh", options, NULL)) != -1) {
		switch (option) {
		case 'j': *json = true; break;
		case 'c': *config = optarg; break;
		case OPTION_GATEWAY: out->gateway = optarg; break;
		case OPTION_UPLINK: out->uplink = optarg; break;
		case OPTION_NETWORK: networks[out->network_count++] = optarg; break;
		case 'h': return usage(stdout, COMMAND_OK);
		default: return usage(stderr, COMMAND_USAGE);
		}
	}
	out->networks = networks;
	return argc - optind > 1 ? usage(stderr, COMMAND_USAGE) : -1;
}

int cmd_lint(int argc, char **argv)
{
	const char **networks = calloc((size_t)argc + 1, sizeof(*networks)), *config = NULL;
	struct lint_options options = {0};
	struct policy *policy = NULL;
	bool json = false;
	int status = networks ? read_options(argc, argv, &options, networks, &config, &json) : COMMAND_NO;

	if (status < 0 && config) {
		options.policy = policy = load_policy(config);
		status = policy ? -1 : COMMAND_NO;
	}
	if (status < 0)
		status = lint(optind < argc ? argv[optind] : NULL, &options, json);
	policy_free(policy);
	free(networks);
	return status;
}
