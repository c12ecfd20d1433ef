/* SPDX-License-Identifier: MIT */
/*
 * sluice init NETWORK NAME...: a Compose file to start from, in the bridge form.
 *
 * Theory of operation: every NAME is first read alone, by the parser of policies, so that what is printed about it is about that name. Then
 * the policy is put together and read as a whole, with the default subnet in the place of its variable. Only a policy without errors is
 * printed.
 *
 * Names are what a policy takes, so none can hold a character that means something to YAML, to Compose's interpolation or to a terminal.
 */
#include <ctype.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/command.h"
#include "gateway/config.h"
#include "gateway/environment.h"

#define PART_NAME      "init" /* as messages would name the policy text; taken off again */
#define PREFIX_UPLINK  "10.201.0"
#define PREFIX_NETWORK "10.201.1"
#define VARIABLE_MAX   (POLICY_NAME_MAX + 16)

static const char usage_text[] =
	"usage: sluice init NETWORK NAME...\n"
	"\n"
	"Print a Compose file with a gateway and a network behind it, from which apps reach these names and nothing\n"
	"else. A NAME is a rule as in sluice.conf(5): api.vendor.example:443, '*.vendor.example', 192.0.2.10:5432/tcp.\n"
	"The bridge form: IPv4, every kernel, Compose 1.29.2 and v2.\n"
	"\n"
	"  -h, --help   print this help\n"
	"\n"
	"Example: sluice init web api.vendor.example:443 > docker-compose.yml\n"
	"\n"
	"Exit status: 0 printed, 2 a NETWORK or NAME is not valid.\n";

struct request {
	const char *network;
	char *const *names;
	size_t name_count;
	bool any_without_port;
	char key[POLICY_NAME_MAX + 3]; /* the network's name as YAML takes it */
	char variable[VARIABLE_MAX];   /* SLUICE_WEB_PREFIX */
};

/* Messages without "init:LINE: ", which says nothing to somebody who typed a command. */
static void print_messages(const char *about, const struct config_messages *messages)
{
	for (size_t i = 0; i < messages->count; i++) {
		const char *text = messages->list[i].text, *behind = strstr(text, ": ");

		fprintf(stderr, "sluice init: %s: %s\n", about,
			strncmp(text, PART_NAME ":", strlen(PART_NAME ":")) == 0 && behind ? behind + 2 : text);
	}
}

/* Return: the policy, or NULL; messages have been printed. */
static struct policy *read_policy(const char *about, char *text)
{
	char part_name[] = PART_NAME;
	struct config_part part = {.file = part_name, .text = text, .size = strlen(text)};
	struct config_text whole = {.parts = &part, .count = 1};
	struct config_messages messages = {0};
	struct policy *policy = config_parse(&whole, &messages);

	print_messages(about, &messages);
	if (!policy && !messages.count)
		fprintf(stderr, "sluice init: out of memory\n");
	config_messages_free(&messages);
	return policy;
}

/* What separates or ends values in a policy cannot be part of one. */
static bool is_one_value(const char *name)
{
	for (const char *at = name; *at; at++) {
		if (iscntrl((unsigned char)*at) || strchr(" ,;#$=\"'`\\", *at))
			return false;
	}
	return *name;
}

static bool take_name(struct request *request, const char *name)
{
	struct policy *policy;
	char *text = NULL;

	if (!is_one_value(name)) {
		fprintf(stderr, "sluice init: each NAME is one rule, without spaces, commas or quotes, such as api.vendor.example:443\n");
		return false;
	}
	if (asprintf(&text, "[network init]\nsubnet = " PREFIX_NETWORK ".0/24\nallow = %s\n", name) < 0) {
		fprintf(stderr, "sluice init: out of memory\n");
		return false;
	}
	policy = read_policy(name, text);
	free(text);
	if (policy)
		request->any_without_port |= policy->networks[0].rules[0]->kind == RULE_NAME && !policy->networks[0].rules[0]->ports_given;
	policy_free(policy);
	return policy;
}

/* Some plain words are no texts in YAML: numbers, and the many ways to say yes. */
static bool is_plain_in_yaml(const char *name)
{
	static const char *const others[] = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"};

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		if (strcmp(name, others[i]) == 0)
			return false;
	}
	return name[0] >= 'a' && name[0] <= 'z';
}

/* [a-z0-9_-]{1,32}, and not what the file calls its way out. */
static bool take_network(struct request *request, const char *name)
{
	size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-");

	if (!length || name[length] || length > POLICY_NAME_MAX) {
		fprintf(stderr, "sluice init: a NETWORK has 1 to %d of a-z 0-9 _ -, such as web\n", POLICY_NAME_MAX);
		return false;
	}
	if (strcmp(name, "uplink") == 0) {
		fprintf(stderr, "sluice init: the file calls the network that leads to the Internet 'uplink'; choose another NETWORK\n");
		return false;
	}
	request->network = name;
	snprintf(request->key, sizeof(request->key), is_plain_in_yaml(name) ? "%s" : "\"%s\"", name);
	snprintf(request->variable, sizeof(request->variable), "SLUICE_%s_PREFIX", name);
	for (char *at = request->variable; *at; at++)
		*at = *at == '-' ? '_' : (char)toupper((unsigned char)*at);
	return true;
}

/* @prefix: of the subnet, three numbers; @indent: before every line. */
static void write_policy(FILE *out, const struct request *request, const char *prefix, const char *indent)
{
	fprintf(out, "%s[network %s]\n%ssubnet = %s.0/24\n", indent, request->network, indent, prefix);
	if (request->any_without_port)
		fprintf(out, "%sports  = 443 80/tcp        ; for names without a port: HTTPS, HTTP/3, HTTP\n", indent);
	fprintf(out, "%sallow  =\n", indent);
	for (size_t i = 0; i < request->name_count; i++)
		fprintf(out, "%s    %s\n", indent, request->names[i]);
	fprintf(out,
		"%s; To find out what an app needs, let everything pass for a day and read the log:\n"
		"%s; mode = audit\n",
		indent, indent);
}

static bool policy_is_good(const struct request *request)
{
	struct policy *policy;
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (out)
		write_policy(out, request, PREFIX_NETWORK, "");
	if (!out || fclose(out) != 0) {
		fprintf(stderr, "sluice init: out of memory\n");
		return false;
	}
	policy = read_policy("the policy", text);
	free(text);
	policy_free(policy);
	return policy;
}

static const char head_text[] =
	"#\n"
	"#     docker compose up -d\n"
	"#     docker compose logs -f gateway     what was refused, and why\n"
	"#\n"
	"# Every subnet is a /24 outside Docker's own pools. If one is taken already, write its first three numbers into .env:\n"
	"#\n";

static const char anchors_text[] =
	"x-logging: &logging\n"
	"  driver: json-file\n"
	"  options: {max-size: 10m, max-file: \"5\"}\n"
	"\n"
	"# What makes a service an app behind the gateway. Nothing here may be left out:\n"
	"# without `dns:` names are resolved around the gateway; with NET_RAW an app can send frames around it.\n"
	"x-behind: &behind\n"
	"  networks: [%s]\n"
	"  dns: 192.0.2.53            # any address: questions to port 53 all come to the gateway\n"
	"  cap_drop: [NET_RAW]\n"
	"  depends_on: {gateway: {condition: service_healthy}}\n"
	"  restart: unless-stopped\n"
	"  logging: *logging\n"
	"\n"
	"services:\n"
	"  # Three lines make an app: its name, `<<: *behind`, its image.\n"
	"  app:\n"
	"    <<: *behind\n"
	"    image: ${APP_IMAGE:-busybox}\n"
	"    command: sleep 1000000000  # your image has a command of its own: take this line out\n"
	"\n";

static const char gateway_text[] =
	"  gateway:\n"
	"    image: ${SLUICE_IMAGE:-sluice}\n"
	"    cap_drop: [ALL]\n"
	"    cap_add: [NET_ADMIN]\n"
	"    read_only: true\n"
	"    tmpfs: [\"/run/sluice:size=1m,mode=1777\"]\n"
	"    volumes: [\"state:/var/lib/sluice\"]  # addresses that apps may have cached\n"
	"    restart: unless-stopped\n"
	"    logging: *logging\n"
	"    networks:\n"
	"      uplink: {ipv4_address: \"${SLUICE_UPLINK_PREFIX:-" PREFIX_UPLINK "}.2\"}  # fixed: flows survive a recreation\n"
	"      %s: {}\n"
	"    sysctls:\n";

static void write_sysctls(FILE *out)
{
	size_t count;
	const struct environment_setting *settings = environment_settings(&count);

	/* A container does not start on a host without IPv6 when it asks for IPv6 settings. */
	for (size_t i = 0; i < count; i++) {
		if (!settings[i].ipv6)
			fprintf(out, "      %s: \"%s\"\n", settings[i].name, settings[i].wanted);
	}
}

static void write_networks(FILE *out, const struct request *request)
{
	fprintf(out,
		"\n"
		"volumes:\n"
		"  state: {}\n"
		"\n"
		"networks:\n"
		"  uplink:\n"
		"    ipam: {config: [{subnet: \"${SLUICE_UPLINK_PREFIX:-" PREFIX_UPLINK "}.0/24\"}]}\n"
		"  # The first host address is the gateway's; the host itself takes no address on this bridge and masquerades nothing.\n"
		"  %s:\n"
		"    driver: bridge\n"
		"    driver_opts:\n"
		"      com.docker.network.bridge.inhibit_ipv4: \"true\"\n"
		"      com.docker.network.bridge.enable_ip_masquerade: \"false\"\n"
		"    ipam: {config: [{subnet: \"${%s:-" PREFIX_NETWORK "}.0/24\", gateway: \"${%s:-" PREFIX_NETWORK "}.1\"}]}\n",
		request->key, request->variable, request->variable);
}

static void write_file(FILE *out, const struct request *request)
{
	char prefix[VARIABLE_MAX + sizeof("${:-" PREFIX_NETWORK "}")];

	fprintf(out, "# An egress gateway, and behind it network %s, whose apps reach the names under SLUICE_CONFIG and nothing else.\n",
		request->network);
	fputs(head_text, out);
	fprintf(out, "#     SLUICE_UPLINK_PREFIX=" PREFIX_UPLINK "\n#     %s=" PREFIX_NETWORK "\n\n", request->variable);
	fprintf(out, anchors_text, request->key);
	fprintf(out, gateway_text, request->key);
	write_sysctls(out);
	fputs("    environment:\n      SLUICE_CONFIG: |\n", out);
	snprintf(prefix, sizeof(prefix), "${%s:-" PREFIX_NETWORK "}", request->variable);
	write_policy(out, request, prefix, "        ");
	write_networks(out, request);
}

static int init(char *const *words, size_t count)
{
	struct request request = {.names = words + 1, .name_count = count - 1};
	bool good = take_network(&request, words[0]);

	for (size_t i = 0; i < request.name_count; i++)
		good &= take_name(&request, request.names[i]);
	if (!good || !policy_is_good(&request))
		return COMMAND_USAGE;
	write_file(stdout, &request);
	if (fflush(stdout) == 0 && !ferror(stdout))
		return COMMAND_OK;
	fprintf(stderr, "sluice init: cannot write to stdout\n");
	return COMMAND_NO;
}

int cmd_init(int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {0}};
	int option;

	optind = 0; /* also makes GNU getopt start again */
	option = getopt_long(argc, argv, "h", options, NULL);
	if (option == 'h') {
		fputs(usage_text, stdout);
		return COMMAND_OK;
	}
	if (option != -1 || argc - optind < 2) {
		fputs(usage_text, stderr);
		return COMMAND_USAGE;
	}
	return init(argv + optind, (size_t)(argc - optind));
}
