/* SPDX-License-Identifier: MIT */
/*
 * sluice doctor: does this container have what the gateway needs? Runs inside it, beside the daemon or without one.
 *
 * Theory of operation: privileges are dropped first, exactly as the daemon does it: the error for a missing capability is then the daemon's
 * own, and questions to upstream servers carry the user id that the daemon's table lets pass. Checks that need the policy are left out when
 * it cannot be read.
 */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "gateway/command.h"
#include "gateway/config.h"
#include "gateway/confine.h"
#include "gateway/control.h"
#include "gateway/doctor.h"
#include "gateway/environment.h"
#include "gateway/gateway.h"
#include "gateway/privileges.h"

#define OLDEST_NOW 1704067200 /* 2024-01-01: a clock before that was never set */

static const char usage_text[] =
	"usage: sluice doctor [-c FILE_OR_DIR] [--json]\n"
	"\n"
	"Check the container from inside: capability, confinement, sysctls, kernel, interfaces and the form of each network, default\n"
	"route, DNS servers, policy, daemon, state volume, table of flows, apps that do not ask the gateway for names, clock.\n"
	"Each problem comes with what to do about it.\n"
	"\n"
	"    docker compose exec gateway sluice doctor\n"
	"\n"
	"  -c, --config FILE_OR_DIR   the policy; default: SLUICE_CONFIG, else " CONFIG_DEFAULT_PATH "\n"
	"  -j, --json                 print JSON\n"
	"  -h, --help                 print this help\n"
	"\n"
	"Exit status: 0 no problem (warnings are allowed), 1 problems, 2 wrong usage.\n";

static const char *const status_names[] = {[DOCTOR_OK] = "ok", [DOCTOR_WARNING] = "warning", [DOCTOR_PROBLEM] = "problem"};

static void add_json(struct doctor *doctor, enum doctor_status status, const char *check, const char *cure, const char *text)
{
	json_t *line = json_pack("{s:s, s:s, s:s, s:s?}", "check", check, "status", status_names[status], "text", text, "cure", cure);

	if (json_array_append_new(doctor->checks, line) == 0)
		return;
	json_decref(doctor->checks);
	doctor->checks = NULL; /* dump() then says so */
}

void doctor_say(struct doctor *doctor, enum doctor_status status, const char *check, const char *cure, const char *format, ...)
{
	char text[DOCTOR_TEXT_MAX];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	doctor->problems += status == DOCTOR_PROBLEM;
	doctor->warnings += status == DOCTOR_WARNING;
	if (doctor->json) {
		add_json(doctor, status, check, cure, text);
		return;
	}
	printf("%-8s %s: %s\n", status_names[status], check, text);
	if (cure)
		printf("         -> %s\n", cure);
}

/* Checks that need no policy */

static void check_privileges(struct doctor *doctor)
{
	char error[GATEWAY_ERROR_MAX];

	doctor->privileged = privileges_drop(error, sizeof(error)) == 0;
	if (doctor->privileged)
		doctor_say(doctor, DOCTOR_OK, "privileges", NULL, "CAP_NET_ADMIN, user %u", (unsigned int)geteuid());
	else
		doctor_say(doctor, DOCTOR_PROBLEM, "privileges", NULL, "%s", error);
}

/* What the kernel gives the daemon to confine itself with; its own log says what it has made of it. */
static void check_confinement(struct doctor *doctor)
{
	int abi = confine_landlock();

	if (!CONFINE_BUILT)
		doctor_say(doctor, DOCTOR_WARNING, "confinement", NULL, "this build has sanitizers and does not confine itself");
	else if (confine_calls_possible())
		doctor_say(doctor, DOCTOR_OK, "confinement", NULL, "system calls are limited (seccomp)");
	else
		doctor_say(doctor, DOCTOR_WARNING, "confinement", "a kernel with CONFIG_SECCOMP_FILTER has them",
			   "system calls are not limited: no seccomp filters");
	if (CONFINE_BUILT && abi > 0)
		doctor_say(doctor, DOCTOR_OK, "confinement", NULL, "files are limited (Landlock, ABI %d)", abi);
	else if (CONFINE_BUILT)
		doctor_say(doctor, DOCTOR_WARNING, "confinement", confine_landlock_cure(abi), "files are not limited: %s",
			   confine_landlock_missing(abi));
}

static void check_clock(struct doctor *doctor)
{
	time_t now = time(NULL);
	struct tm parts;
	char text[32] = "?";

	if (gmtime_r(&now, &parts))
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
	if (now >= OLDEST_NOW)
		doctor_say(doctor, DOCTOR_OK, "clock", NULL, "%s", text);
	else
		doctor_say(doctor, DOCTOR_PROBLEM, "clock", "set the host's clock: `audit_until` and the log depend on it", "it says %s",
			   text);
}

static void check_daemon(struct doctor *doctor)
{
	char error[GATEWAY_ERROR_MAX];
	json_t *request = json_pack("{s:s}", "command", "health"), *answer = NULL;
	const char *trouble;
	struct stat info;
	bool socket = stat(control_path(), &info) == 0;

	if (request && socket)
		answer = control_call(control_path(), request, error, sizeof(error));
	trouble = json_string_value(json_object_get(answer, "error"));
	doctor->daemon = answer && json_is_true(json_object_get(answer, "ok"));
	if (doctor->daemon)
		doctor_say(doctor, DOCTOR_OK, "daemon", NULL, "healthy: %lld leases, %lld restarts",
			   (long long)json_integer_value(json_object_get(answer, "leases")),
			   (long long)json_integer_value(json_object_get(answer, "restarts")));
	else if (!socket)
		doctor_say(doctor, DOCTOR_WARNING, "daemon", NULL, "none runs here: there is no %s", control_path());
	else
		doctor_say(doctor, DOCTOR_PROBLEM, "daemon", "its log says why: docker compose logs gateway", "%s",
			   trouble  ? trouble
			   : answer ? "it says that it does not work"
				    : error);
	doctor_strangers(doctor, answer);
	json_decref(answer);
	json_decref(request);
}

/* Only where a daemon has yet to make its socket. */
static void check_socket_directory(struct doctor *doctor)
{
	const char *slash = strrchr(control_path(), '/');
	char directory[512];

	if (doctor->daemon || !slash || slash == control_path() || (size_t)(slash - control_path()) >= sizeof(directory))
		return;
	memcpy(directory, control_path(), (size_t)(slash - control_path()));
	directory[slash - control_path()] = '\0';
	if (access(directory, W_OK | X_OK) == 0)
		doctor_say(doctor, DOCTOR_OK, "files", NULL, "%s can be written", directory);
	else
		doctor_say(doctor, DOCTOR_PROBLEM, "files",
			   "the control socket is made there; add to the gateway service: tmpfs: [\"/run/sluice:size=1m,mode=1777\"]",
			   "%s: %s", directory, strerror(errno));
}

/* The policy, and checks that depend on it */

/* Return: owned by the caller; NULL when it cannot be read, which has been said. */
static struct policy *check_policy(struct doctor *doctor)
{
	struct config_messages messages = {0};
	struct policy *policy = config_load(doctor->path, &messages);
	size_t rules = 0;
	bool servers = policy && config_resolve_auto(policy, CONFIG_RESOLV_CONF, &messages) == 0;

	for (size_t i = 0; i < messages.count; i++)
		doctor_say(doctor, messages.list[i].severity == CONFIG_ERROR ? DOCTOR_PROBLEM : DOCTOR_WARNING, "policy", NULL, "%s",
			   messages.list[i].text);
	if (!policy && !messages.count)
		doctor_say(doctor, DOCTOR_PROBLEM, "policy", NULL, "out of memory");
	for (size_t i = 0; policy && i < policy->network_count; i++)
		rules += policy->networks[i].rule_count;
	if (policy && servers)
		doctor_say(doctor, DOCTOR_OK, "policy", NULL, "%zu networks, %zu rules", policy->network_count, rules);
	config_messages_free(&messages);
	return policy;
}

static void check_setting(struct doctor *doctor, const struct environment_setting *setting)
{
	char value[ENVIRONMENT_VALUE_MAX], cure[DOCTOR_TEXT_MAX];
	int error = environment_read(setting->name, value, sizeof(value));

	if (!error && strcmp(value, setting->wanted) == 0) {
		doctor_say(doctor, DOCTOR_OK, "sysctl", NULL, "%s is %s", setting->name, value);
		return;
	}
	snprintf(cure, sizeof(cure), "write under `sysctls:` of the gateway service: %s: \"%s\"", setting->name, setting->wanted);
	doctor_say(doctor, setting->needed ? DOCTOR_PROBLEM : DOCTOR_WARNING, "sysctl", cure, "%s is %s: %s", setting->name,
		   error ? "not readable" : value, setting->consequence);
}

static void check_sysctls(struct doctor *doctor)
{
	char value[ENVIRONMENT_VALUE_MAX], cure[DOCTOR_TEXT_MAX];
	bool ipv6 = doctor->policy && environment_has_ipv6(doctor->policy);
	const char *name;
	size_t count;
	const struct environment_setting *settings = environment_settings(&count);

	for (size_t i = 0; i < count; i++) {
		if (ipv6 || !settings[i].ipv6)
			check_setting(doctor, &settings[i]);
	}
	if (!environment_may_open_port(&name, value, sizeof(value))) {
		snprintf(cure, sizeof(cure), "write under `sysctls:` of the gateway service: %s: \"0\"", name);
		doctor_say(doctor, DOCTOR_PROBLEM, "sysctl", cure, "%s is %s: port 53 cannot be opened", name, value);
	}
}

/* Printing */

static bool dump(const struct doctor *doctor)
{
	json_t *root = json_pack("{s:b, s:I, s:I, s:O}", "ok", doctor->problems == 0, "problems", (json_int_t)doctor->problems, "warnings",
				 (json_int_t)doctor->warnings, "checks", doctor->checks);
	bool good = root && json_dumpf(root, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII) == 0;

	json_decref(root);
	putchar('\n');
	return good;
}

static bool finish(struct doctor *doctor)
{
	bool good = true;

	if (doctor->json)
		good = doctor->checks && dump(doctor);
	else
		printf("%zu problems, %zu warnings\n", doctor->problems, doctor->warnings);
	if (!good)
		fprintf(stderr, "sluice doctor: out of memory\n");
	json_decref(doctor->checks);
	return fflush(stdout) == 0 && !ferror(stdout) && good && doctor->problems == 0;
}

static int examine(const char *path, bool json)
{
	struct doctor doctor = {.json = json, .checks = json ? json_array() : NULL, .path = path};
	struct policy *policy;

	check_privileges(&doctor);
	check_confinement(&doctor);
	check_clock(&doctor);
	check_daemon(&doctor);
	check_socket_directory(&doctor);
	doctor_state(&doctor);
	policy = check_policy(&doctor);
	doctor.policy = policy;
	check_sysctls(&doctor);
	if (doctor.privileged)
		doctor_kernel(&doctor);
	if (policy) {
		doctor_interfaces(&doctor);
		doctor_upstream(&doctor);
		doctor_upstream_tls(&doctor);
	}
	policy_free(policy);
	return finish(&doctor) ? COMMAND_OK : COMMAND_NO;
}

int cmd_doctor(int argc, char **argv)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'}, {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
	const char *path = NULL;
	bool json = false;
	int option;

	optind = 0; /* also makes GNU getopt start again */
	while ((option = getopt_long(argc, argv, "c:jh", options, NULL)) != -1) {
		switch (option) {
		case 'c': path = optarg; break;
		case 'j': json = true; break;
		case 'h': fputs(usage_text, stdout); return COMMAND_OK;
		default: fputs(usage_text, stderr); return COMMAND_USAGE;
		}
	}
	if (optind != argc) {
		fputs(usage_text, stderr);
		return COMMAND_USAGE;
	}
	return examine(path, json);
}
