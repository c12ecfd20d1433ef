/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gateway/command.h"
#include "gateway/config.h"
#include "gateway/control.h"

#define OUTPUT_MAX 16384

static const char policy_text[] = "[network web]\n"
				  "subnet = 10.201.1.0/24\n"
				  "allow = a.example:22/tcp *.a.example a.example:443 0.0.0.0/0:443\n" /* line 3 */
				  "  10.0.0.0/8:5432/tcp [2606:4700::/32]:443/udp\n"
				  "deny = 203.0.113.0/24 b.a.example:443 198.41.0.4:443/udp\n" /* line 5 */
				  "[network box]\n"
				  "subnet = 10.201.2.0/24\n"
				  "mode = audit\n"
				  "allow = a.example:443/tcp\n" /* line 9 */
				  "deny = evil.example\n"
				  "[upstream corp]\n"
				  "match = **.corp.a.example\n"
				  "server = 192.0.2.53\n"
				  "[network plain]\n"
				  "subnet = 10.201.3.0/24 fd00:3::/64\n"
				  "addresses = virtual\n"
				  "mode = audit\n"
				  "allow = a.example:443/tcp\n" /* line 18 */
				  "deny = evil.example\n"
				  "[network shut]\n"
				  "subnet = 10.201.4.0/24\n"
				  "verify = enforce\n"
				  "verify_ports = 443 80/tcp\n"
				  "allow = a.example:22+443 192.41.0.4:443\n"
				  "[network told]\n"
				  "subnet = 10.201.5.0/24\n"
				  "verify = enforce\n"
				  "without_name = allow\n"
				  "mode = audit\n"
				  "allow = a.example:443\n"
				  "[network short]\n"
				  "subnet = 10.201.6.0/24\n"
				  "wildcard_octets = 5\n"
				  "wildcard_names = 60\n"
				  "allow = **.a.example:443 long.name.a.example\n";

static char errors[OUTPUT_MAX]; /* what the last command wrote to stderr */

static void read_back(FILE *file, char output[static OUTPUT_MAX])
{
	size_t size;

	rewind(file);
	size = fread(output, 1, OUTPUT_MAX - 1, file);
	output[size] = 0;
	fclose(file);
}

/* Run a command; its stdout goes to @output, its stderr to errors. */
static int run(int (*command)(int, char **), const char *const *words, char output[static OUTPUT_MAX])
{
	char *argv[10];
	FILE *file = tmpfile(), *error_file = tmpfile();
	int argc = 0, status, saved_out, saved_err;

	assert_non_null(file);
	assert_non_null(error_file);
	for (; words[argc]; argc++)
		argv[argc] = strdup(words[argc]);
	argv[argc] = NULL;
	fflush(stdout);
	saved_out = dup(1);
	saved_err = dup(2);
	dup2(fileno(file), 1);
	dup2(fileno(error_file), 2);
	status = command(argc, argv);
	fflush(stdout);
	fflush(stderr);
	dup2(saved_out, 1);
	dup2(saved_err, 2);
	close(saved_out);
	close(saved_err);
	read_back(file, output);
	read_back(error_file, errors);
	while (argc--)
		free(argv[argc]);
	return status;
}

static void verdicts_are_those_of_the_policy(void **state)
{
	static const struct {
		const char *network, *target;
		int status;
		const char *says;
	} table[] = {
		{"web", "a.example", 0, "tcp ports: 22 443\nudp ports: 443\n"},
		{"web", "A.Example.:443/udp", 0, "rule: allow = a.example:443 (SLUICE_CONFIG:3)"},
		{"web", "a.example:22/tcp", 0, "rule: allow = a.example:22/tcp (SLUICE_CONFIG:3)"},
		{"web", "a.example:22/udp", 1, "denied from network web, reason port-not-allowed\nrule: none; the nearest is allow"},
		{"web", "x.a.example", 0, "tcp ports: all\nudp ports: all\n"},
		{"web", "x.corp.a.example", 0, "upstream: corp\n"},
		{"web", "b.a.example", 0, "tcp ports: 0-442 444-65535\n"},
		{"web", "b.a.example:443", 1, "reason denied-by-rule\nrule: deny = b.a.example:443 (SLUICE_CONFIG:5)"},
		{"web", "other.example", 1, "reason name-not-allowed\nrule: none, the default denies"},
		{"web", "localhost", 1, "reason local-name\nrule: none, this is denied always"},
		{"web", "198.41.0.4", 0, "tcp ports: 443\nudp ports: none\n"},
		{"web", "198.41.0.4:443/udp", 1, "rule: deny = 198.41.0.4:443/udp"},
		{"web", "203.0.113.9:443", 1, "rule: deny = 203.0.113.0/24"},
		{"web", "10.9.9.9:5432", 0, "rule: allow = 10.0.0.0/8:5432/tcp (SLUICE_CONFIG:4)"},
		{"web", "10.9.9.9:443", 1, "address: private"},
		{"web", "10.201.2.5:5432", 1, "reason isolated"},
		{"web", "10.201.1.1:5432", 1, "reason isolated"},
		{"web", "2606:4700::1", 0, "tcp ports: none\nudp ports: 443\n"},
		{"web", "[2606:4700::1]:443/udp", 0, "rule: allow = [2606:4700::/32]:443/udp"},
		{"web", "[2606:4700::1]:443/tcp", 1, "reason port-not-allowed"},
		{"short", "a.example", 0, "tcp ports: 443\n"},
		{"short", "ab.cd.a.example", 0,
		 "wildcard: it stands for 4 octets in 2 labels here; at most 5 octets (wildcard_octets); at most 60 new names a minute "
		 "(wildcard_names)\n"},
		{"short", "longer.a.example", 1,
		 "denied from network short, reason name-too-long\nrule: none; the nearest is allow = **.a.example:443"},
		{"short", "long.name.a.example", 0, "tcp ports: all\n"},
		{"box", "a.example:443/tcp", 0, "a.example:443/tcp: allowed from network box\n"},
		{"box", "a.example:80", 0, "only by audit mode (enforce would deny: port-not-allowed)"},
		{"box", "other.example", 0, "only by audit mode (enforce would deny: name-not-allowed)"},
		{"box", "192.41.0.4:53", 0, "only by audit mode (enforce would deny: address-not-allowed)"},
		{"box", "evil.example", 1, "reason denied-by-rule"},
		{"box", "10.0.0.1", 1, "reason special-address"},
		{"plain", "a.example:443/tcp", 0, "a.example:443/tcp: allowed from network plain\n"},
		{"plain", "other.example", 0, "only by audit mode"},
		{"plain", "192.41.0.4:53", 1, "note: apps of this network reach addresses of its pool only"},
		{"plain", "10.201.3.5", 1, "reason special-address"},
		{"plain", "10.201.3.1", 1, "reason isolated"},
		{"nope", "a.example", 2, ""},
		{"web", "a.example:", 2, ""},
		{"web", "a.example:99999", 2, ""},
		{"web", "a.example:443/quic", 2, ""},
		{"web", "a..example", 2, ""},
		{"web", "[::1", 2, ""},
		{"web", "[::1]443", 2, ""},
	};
	char output[OUTPUT_MAX];

	(void)state;
	setenv(CONFIG_ENVIRONMENT, policy_text, 1);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		const char *words[] = {"explain", table[i].network, table[i].target, NULL};
		int status = run(cmd_explain, words, output);

		if (status != table[i].status || !strstr(output, table[i].says))
			fail_msg("%s %s: status %d, want %d with '%s'; got\n%s", table[i].network, table[i].target, status, table[i].status,
				 table[i].says, output);
	}
	unsetenv(CONFIG_ENVIRONMENT);
}

static void it_says_where_a_flow_must_name_its_host(void **state)
{
	static const struct {
		const char *network, *target, *says, *json; /* NULL: nothing */
	} table[] = {
		{"web", "a.example", NULL, NULL},
		{"shut", "a.example",
		 "\nverify: the flow itself must name it as well, or another name that may be reached on its port; what does not is "
		 "refused (only on ports 80/tcp+443)\n",
		 "enforce"},
		{"shut", "a.example:443/udp", "what does not is refused", "enforce"},
		{"shut", "a.example:22", NULL, NULL},
		{"shut", "a.example:80", NULL, NULL}, /* it is denied there */
		{"shut", "192.41.0.4:443", NULL, NULL},
		{"told", "a.example",
		 "\nverify: the flow itself must name it as well, or none, or another name that may be reached on its port; what does not "
		 "is told, and passes\n",
		 "log"},
		{"told", "other.example", NULL, NULL}, /* audit mode alone lets it pass */
	};
	char output[OUTPUT_MAX];

	(void)state;
	setenv(CONFIG_ENVIRONMENT, policy_text, 1);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		const char *words[] = {"explain", table[i].network, table[i].target, "--json", NULL};
		const char *json;
		json_t *root;

		run(cmd_explain, words, output);
		root = json_loads(output, 0, NULL);
		json = json_string_value(json_object_get(root, "verify"));
		assert_non_null(json_object_get(root, "verify"));
		if (!json != !table[i].json || (json && strcmp(json, table[i].json) != 0))
			fail_msg("%s %s: %s", table[i].network, table[i].target, output);
		json_decref(root);
		words[3] = NULL;
		run(cmd_explain, words, output);
		if (table[i].says ? !strstr(output, table[i].says) : strstr(output, "verify") != NULL)
			fail_msg("%s %s: %s", table[i].network, table[i].target, output);
	}
	unsetenv(CONFIG_ENVIRONMENT);
}

static void json_says_the_same(void **state)
{
	static const char *const words[] = {"explain", "--json", "box", "a.example:80", NULL};
	char output[OUTPUT_MAX];
	json_t *root;

	(void)state;
	setenv(CONFIG_ENVIRONMENT, policy_text, 1);
	assert_int_equal(run(cmd_explain, words, output), 0);
	unsetenv(CONFIG_ENVIRONMENT);
	root = json_loads(output, 0, NULL);
	assert_non_null(root);
	assert_true(json_is_true(json_object_get(root, "allowed")));
	assert_true(json_is_true(json_object_get(root, "audited")));
	assert_string_equal(json_string_value(json_object_get(root, "reason")), "port-not-allowed");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(root, "rule"), "line")), 9);
	assert_string_equal(json_string_value(json_object_get(root, "tcp")), "443");
	json_decref(root);
}

static json_t *answer_mapping(void *context, const char *command, const json_t *request, struct control_stream *stream)
{
	static const char *const table[][3] = {
		{"10.201.3.130", "a.example", "198.51.100.7"},
		{"10.201.3.131", "evil.example", "198.51.100.8"},
		{"fd00:3:0:0:8000::1", "a.example", "2001:db8::7"},
		{"10.201.3.132", "a..example", "198.51.100.9"},
	};
	const char *network = json_string_value(json_object_get(request, "network"));
	const char *text = json_string_value(json_object_get(request, "address"));

	(void)context;
	(void)stream;
	if (strcmp(command, "mapping") != 0 || !network || strcmp(network, "plain") != 0 || !text)
		return NULL;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct address address, asked;

		if (address_parse(table[i][0], &address) && address_parse(text, &asked) && address_equal(&address, &asked))
			return json_pack("{s:b, s:s, s:s, s:s}", "ok", 1, "name", table[i][1], "real", table[i][2], "network", network);
	}
	return json_pack("{s:b, s:s}", "ok", 0, "error", "the address stands for no name now");
}

/* Start a gateway that knows mappings and nothing else. */
static pid_t start_daemon(const char *path)
{
	struct control *control;
	uv_loop_t loop;
	int ends[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ends), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails does not stop it */
		uv_loop_init(&loop);
		if (control_new(&loop, path, answer_mapping, NULL, &control) != 0 || write(ends[1], "r", 1) != 1)
			_exit(1);
		uv_run(&loop, UV_RUN_DEFAULT);
		_exit(0);
	}
	close(ends[1]);
	assert_int_equal(read(ends[0], &byte, 1), 1);
	close(ends[0]);
	return pid;
}

static void expect_virtual(const char *target, int status, const char *says, const char *complains)
{
	const char *words[] = {"explain", "plain", target, NULL};
	char output[OUTPUT_MAX];
	int got = run(cmd_explain, words, output);

	if (got != status || !strstr(output, says) || !strstr(errors, complains))
		fail_msg("%s: status %d; got\n%s%s", target, got, output, errors);
	/* One line, or none. */
	assert_true(!*errors || strchr(errors, '\n') == errors + strlen(errors) - 1);
}

static void the_gateway_says_what_a_virtual_address_stands_for(void **state)
{
	static const char *const words[] = {"explain", "--json", "plain", "10.201.3.130:443/tcp", NULL};
	char path[64], output[OUTPUT_MAX];
	json_t *root;
	pid_t pid;

	(void)state;
	snprintf(path, sizeof(path), "/tmp/sluice-explain-%d.sock", getpid());
	setenv(CONFIG_ENVIRONMENT, policy_text, 1);
	setenv(CONTROL_ENVIRONMENT, path, 1);
	pid = start_daemon(path);
	expect_virtual("10.201.3.130", 0, "10.201.3.130 stands for a.example, now leads to 198.51.100.7\n10.201.3.130: allowed", "");
	expect_virtual("10.201.3.130:443/tcp", 0, "rule: allow = a.example:443/tcp (SLUICE_CONFIG:18)", "");
	expect_virtual("10.201.3.130:80", 0, "only by audit mode (enforce would deny: port-not-allowed)", "");
	expect_virtual("10.201.3.131", 1, "stands for evil.example, now leads to 198.51.100.8\n10.201.3.131: denied", "");
	expect_virtual("[fd00:3:0:0:8000::1]:443/tcp", 0, "fd00:3::8000:0:0:1 stands for a.example, now leads to 2001:db8::7\n", "");
	expect_virtual("10.201.3.132", 1, "", "answer is not understood");
	expect_virtual("10.201.3.133", 1, "",
		       "10.201.3.133 is a virtual address, and only the running gateway knows which name it stands for: the "
		       "address stands for no name now");
	assert_int_equal(run(cmd_explain, words, output), 0);
	root = json_loads(output, 0, NULL);
	assert_non_null(root);
	assert_string_equal(json_string_value(json_object_get(root, "stands_for")), "a.example");
	assert_string_equal(json_string_value(json_object_get(root, "real")), "198.51.100.7");
	json_decref(root);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	unlink(path);
	expect_virtual("10.201.3.130", 1, "", "10.201.3.130 is a virtual address, and only the running gateway knows");
	unsetenv(CONTROL_ENVIRONMENT);
	unsetenv(CONFIG_ENVIRONMENT);
}

static void wrong_usage_is_status_2(void **state)
{
	static const char *const table[][4] = {{"x"}, {"x", "--nope"}, {"x", "a", "b", "c"}};
	static const char *const help[] = {"x", "--help", NULL};
	char output[OUTPUT_MAX];

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		const char *words[] = {table[i][0], table[i][1], table[i][2], table[i][3], NULL};

		assert_int_equal(run(cmd_explain, words, output), 2);
		assert_int_equal(run(cmd_check, words, output), 2);
		assert_string_equal(output, "");
	}
	assert_int_equal(run(cmd_explain, help, output), 0);
	assert_int_equal(run(cmd_check, help, output), 0);
	assert_non_null(strstr(output, "usage: sluice check"));
}

static void check_prints_what_takes_effect(void **state)
{
	char path[] = "/tmp/sluice-test-XXXXXX", output[OUTPUT_MAX];
	const char *text_words[] = {"check", path, NULL}, *json_words[] = {"check", path, "--json", NULL};
	int fd = mkstemp(path);
	json_t *root, *policy, *network;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, policy_text, strlen(policy_text)), strlen(policy_text));
	assert_int_equal(run(cmd_check, text_words, output), 0);
	assert_non_null(strstr(output, "subnet: 10.201.1.0/24, gateway 10.201.1.1\n"));
	assert_non_null(strstr(output, "1 name rule allows every TCP and UDP port"));
	assert_int_equal(run(cmd_check, json_words, output), 0);
	root = json_loads(output, 0, NULL);
	policy = json_object_get(root, "policy");
	network = json_array_get(json_object_get(policy, "networks"), 0);
	assert_int_equal(json_array_size(json_object_get(network, "rules")), 9);
	assert_int_equal(json_array_size(json_object_get(policy, "upstreams")), 2);
	json_decref(root);
	assert_int_equal(write(fd, "alow = x\n", 9), 9);
	assert_int_equal(run(cmd_check, text_words, output), 1);
	assert_string_equal(output, "");
	assert_int_equal(run(cmd_check, json_words, output), 1);
	root = json_loads(output, 0, NULL);
	assert_true(json_is_false(json_object_get(root, "valid")));
	assert_int_equal(json_array_size(json_object_get(root, "messages")), 1);
	json_decref(root);
	close(fd);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(verdicts_are_those_of_the_policy),
		cmocka_unit_test(it_says_where_a_flow_must_name_its_host),
		cmocka_unit_test(json_says_the_same),
		cmocka_unit_test(the_gateway_says_what_a_virtual_address_stands_for),
		cmocka_unit_test(wrong_usage_is_status_2),
		cmocka_unit_test(check_prints_what_takes_effect),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
