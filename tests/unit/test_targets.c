/* SPDX-License-Identifier: MIT */
/* Where published containers are, with a stand-in for Docker's resolver on 127.0.0.11 and a port of its own. */
#include "gateway/targets.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/config.h"
#include "resolver/message.h"

#define POLL_MS    15
#define TIMEOUT_MS 40
#define FOUND_MAX  1024
#define BIND_TRIES 1000

#define POLICY                                                                                                                             \
	"[network web]\nsubnet = 10.1.0.0/24 fd00:1::/64\npublish = 443/tcp -> app:8443, 53/udp -> other, 80/tcp -> 10.1.0.9\n"            \
	"[network db]\nsubnet = 10.2.0.0/24\npublish = 5432 -> app\n"

struct fixture {
	uv_loop_t loop;
	uv_poll_t poll;
	struct log *log;
	struct targets *targets;
	struct policy *policy;
	struct interface list[2];
	struct interfaces interfaces;
	int fd, memory; /* fd: of the stand-in */
	uint16_t port;
	bool listening, silent, forge;
	unsigned int asked, changed, strangers;
	uint16_t rcode;
	const char *app; /* addresses of the container "app", separated by spaces; "other" does not exist */
};

static bool answer_address(struct answer *answer, const struct question *question, const char *text)
{
	struct address address;

	assert_true(address_parse(text, &address));
	if ((question->type == TYPE_A) != (address.family == AF_INET))
		return true;
	return answer_add(answer, question->name.wire, question->name.length, question->type, 600, address.bytes, address_size(&address)) ==
	       0;
}

static size_t answer_question(struct fixture *fixture, const uint8_t *wire, size_t size, uint8_t *out)
{
	char name[DOMAIN_TEXT_MAX], copy[256], *save = NULL;
	struct question question;
	struct answer *answer;

	assert_int_equal(message_parse_question(wire, size, &question), MESSAGE_OK);
	assert_true(question.type == TYPE_A || question.type == TYPE_AAAA);
	domain_format(&question.name, name);
	fixture->strangers += strcmp(name, "app") != 0 && strcmp(name, "other") != 0;
	answer = answer_new(strcmp(name, "app") == 0 ? fixture->rcode : RCODE_NXDOMAIN, 8, 1024);
	snprintf(copy, sizeof(copy), "%s", strcmp(name, "app") == 0 && fixture->rcode == RCODE_NOERROR ? fixture->app : "");
	for (char *text = strtok_r(copy, " ", &save); text; text = strtok_r(NULL, " ", &save))
		assert_true(answer_address(answer, &question, text));
	size = message_build_reply(&question, answer, -1, EDE_NONE, 512, NULL, out);
	answer_free(answer);
	if (fixture->forge)
		out[0] ^= 0xff; /* the id */
	return size;
}

static void on_question(uv_poll_t *poll, int status, int events)
{
	struct fixture *fixture = poll->data;
	struct sockaddr_in from;
	socklen_t from_size = sizeof(from);
	uint8_t wire[512], reply[512];
	ssize_t size;

	(void)events;
	assert_int_equal(status, 0);
	while ((size = recvfrom(fixture->fd, wire, sizeof(wire), MSG_DONTWAIT, (struct sockaddr *)&from, &from_size)) > 0) {
		fixture->asked++;
		if (!fixture->silent)
			sendto(fixture->fd, reply, answer_question(fixture, wire, (size_t)size, reply), 0, (const struct sockaddr *)&from,
			       from_size);
	}
}

static void open_resolver(struct fixture *fixture)
{
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(fixture->port), .sin_addr.s_addr = htonl(0x7f00000b)};
	socklen_t size = sizeof(here);

	fixture->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	/* Back on the same port, which a socket of another test may have got in between. */
	for (int i = 0; i < BIND_TRIES && bind(fixture->fd, (const struct sockaddr *)&here, sizeof(here)) != 0; i++)
		usleep(10000);
	assert_int_equal(getsockname(fixture->fd, (struct sockaddr *)&here, &size), 0);
	assert_true(here.sin_addr.s_addr == htonl(0x7f00000b) && here.sin_port != 0);
	fixture->port = ntohs(here.sin_port);
	uv_poll_init(&fixture->loop, &fixture->poll, fixture->fd);
	fixture->poll.data = fixture;
	uv_poll_start(&fixture->poll, UV_READABLE, on_question);
	fixture->listening = true;
}

static void close_resolver(struct fixture *fixture)
{
	uv_close((uv_handle_t *)&fixture->poll, NULL);
	uv_run(&fixture->loop, UV_RUN_NOWAIT);
	close(fixture->fd);
	fixture->listening = false;
}

static struct policy *read_policy(const char *text)
{
	struct config_part part = {.file = (char[]){"p.conf"}, .text = strdup(text), .size = strlen(text)};
	struct config_text whole = {.parts = &part, .count = 1};
	struct config_messages messages = {0};
	struct policy *policy = config_parse(&whole, &messages);

	if (!policy)
		fail_msg("%s", messages.list[0].text);
	config_messages_free(&messages);
	free(part.text);
	return policy;
}

static void on_changed(void *context)
{
	((struct fixture *)context)->changed++;
}

static void begin(struct fixture *fixture)
{
	struct targets_options options = {.port = fixture->port, .poll_ms = POLL_MS, .timeout_ms = TIMEOUT_MS};

	fixture->targets = targets_new(&fixture->loop, fixture->log, fixture->memory, &options, on_changed, fixture);
	assert_non_null(fixture->targets);
}

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	uv_loop_init(&fixture->loop);
	fixture->log = log_new(STDERR_FILENO, LOG_TEXT);
	fixture->memory = memfd_create("test", MFD_CLOEXEC);
	fixture->policy = read_policy(POLICY);
	fixture->app = "";
	for (uint16_t i = 0; i < 2; i++)
		fixture->list[i] = (struct interface){.index = i + 2U, .network = fixture->policy->networks[i].id};
	fixture->interfaces = (struct interfaces){.list = fixture->list, .count = 2};
	open_resolver(fixture);
	begin(fixture);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	targets_close(fixture->targets);
	if (fixture->listening)
		close_resolver(fixture);
	uv_run(&fixture->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&fixture->loop), 0);
	assert_int_equal(fixture->strangers, 0);
	policy_free(fixture->policy);
	log_free(fixture->log);
	close(fixture->memory);
	free(fixture);
	return 0;
}

static void on_timer(uv_timer_t *timer)
{
	*(bool *)timer->data = true;
}

/* Let the loop run for so long. */
static void pass(struct fixture *fixture, uint64_t ms)
{
	uv_timer_t timer;
	bool over = false;

	uv_timer_init(&fixture->loop, &timer);
	timer.data = &over;
	uv_timer_start(&timer, on_timer, ms, 0);
	while (!over)
		uv_run(&fixture->loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&fixture->loop, UV_RUN_NOWAIT);
}

/* What is open for a policy, as text: "web tcp 443 10.1.0.5:8443; ". */
static const char *openings_text(struct fixture *fixture)
{
	static char text[FOUND_MAX];
	struct openings openings;
	size_t used = 0;

	assert_int_equal(targets_openings(fixture->targets, fixture->policy, &fixture->interfaces, &openings), 0);
	text[0] = '\0';
	for (size_t i = 0; i < openings.count; i++) {
		const struct opening *opening = &openings.list[i];
		char address[ADDRESS_TEXT_MAX];

		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s %s %u %s:%u; ",
					 policy_network(fixture->policy, opening->network)->name,
					 opening->protocol == IPPROTO_TCP ? "tcp" : "udp", opening->ports.first,
					 address_format(&opening->target, address), opening->target_port);
		assert_ptr_not_equal(opening->publish, NULL);
	}
	openings_free(&openings);
	return text;
}

/* Wait until this is open. */
static void expect(struct fixture *fixture, const char *wanted)
{
	for (int i = 0; i < 500 && strcmp(openings_text(fixture), wanted) != 0; i++)
		pass(fixture, 5);
	assert_string_equal(openings_text(fixture), wanted);
}

#define LITERAL "web tcp 80 10.1.0.9:80; "

static void test_addresses_are_found_in_each_network_and_family(void **state)
{
	struct fixture *fixture = *state;

	assert_string_equal(openings_text(fixture), LITERAL);
	fixture->app = "10.1.0.5 10.2.0.5 fd00:1::5 172.16.0.5 fd00:2::5";
	assert_int_equal(targets_set_policy(fixture->targets, fixture->policy), 0);
	expect(fixture,
	       "web tcp 443 10.1.0.5:8443; web tcp 443 fd00:1::5:8443; " LITERAL "db tcp 5432 10.2.0.5:5432; db udp 5432 10.2.0.5:5432; ");
	pass(fixture, 2 * TARGETS_SETTLE_MS);
	assert_true(fixture->changed > 0);
}

static void test_nothing_is_changed_while_addresses_stay(void **state)
{
	struct fixture *fixture = *state;
	unsigned int changed;

	fixture->app = "10.1.0.5";
	targets_set_policy(fixture->targets, fixture->policy);
	expect(fixture, "web tcp 443 10.1.0.5:8443; " LITERAL);
	pass(fixture, 2 * TARGETS_SETTLE_MS);
	changed = fixture->changed;
	fixture->app = "10.1.0.3 10.1.0.5"; /* another one beside it, and a lower one */
	fixture->asked = 0;
	pass(fixture, 10 * POLL_MS);
	assert_true(fixture->asked > 4);
	assert_int_equal(fixture->changed, changed);
	expect(fixture, "web tcp 443 10.1.0.5:8443; " LITERAL);
	fixture->app = "10.1.0.4 10.1.0.3";
	expect(fixture, "web tcp 443 10.1.0.3:8443; " LITERAL);
	pass(fixture, 2 * TARGETS_SETTLE_MS);
	assert_int_equal(fixture->changed, changed + 1);
}

static void test_any_answer_without_an_address_closes(void **state)
{
	static const uint16_t rcodes[] = {RCODE_NXDOMAIN, RCODE_NOERROR, RCODE_SERVFAIL, RCODE_REFUSED};
	struct fixture *fixture = *state;

	targets_set_policy(fixture->targets, fixture->policy);
	for (size_t i = 0; i < sizeof(rcodes) / sizeof(rcodes[0]); i++) {
		fixture->rcode = RCODE_NOERROR;
		fixture->app = "10.1.0.5";
		expect(fixture, "web tcp 443 10.1.0.5:8443; " LITERAL);
		fixture->rcode = rcodes[i];
		fixture->app = "10.3.0.5";
		expect(fixture, LITERAL);
	}
}

static void test_silence_and_what_is_no_answer_keep_an_address(void **state)
{
	struct fixture *fixture = *state;

	fixture->app = "10.1.0.5";
	targets_set_policy(fixture->targets, fixture->policy);
	expect(fixture, "web tcp 443 10.1.0.5:8443; " LITERAL);
	fixture->silent = true;
	pass(fixture, 3 * TIMEOUT_MS);
	expect(fixture, "web tcp 443 10.1.0.5:8443; " LITERAL);
	fixture->silent = false;
	fixture->forge = true;
	fixture->app = "10.1.0.6";
	pass(fixture, 3 * TIMEOUT_MS);
	expect(fixture, "web tcp 443 10.1.0.5:8443; " LITERAL);
	close_resolver(fixture);
	pass(fixture, 3 * TIMEOUT_MS);
	expect(fixture, "web tcp 443 10.1.0.5:8443; " LITERAL);
	fixture->forge = false;
	open_resolver(fixture);
	expect(fixture, "web tcp 443 10.1.0.6:8443; " LITERAL);
}

/* Own addresses: the gateway container may have the name, too. */
static void test_the_gateways_own_addresses_do_not_count(void **state)
{
	struct fixture *fixture = *state;
	const struct prefix own = {.address = {.family = AF_INET, .bytes = {10, 1, 0, 2}}, .length = 32};

	assert_int_equal(policy_set_own(fixture->policy, &own, 1), 0);
	fixture->app = "10.1.0.2 10.1.0.7";
	targets_set_policy(fixture->targets, fixture->policy);
	expect(fixture, "web tcp 443 10.1.0.7:8443; " LITERAL);
}

static void test_a_network_that_is_away_is_closed(void **state)
{
	struct fixture *fixture = *state;

	fixture->app = "10.1.0.5 10.2.0.5";
	targets_set_policy(fixture->targets, fixture->policy);
	expect(fixture, "web tcp 443 10.1.0.5:8443; " LITERAL "db tcp 5432 10.2.0.5:5432; db udp 5432 10.2.0.5:5432; ");
	fixture->interfaces.count = 1;
	expect(fixture, "web tcp 443 10.1.0.5:8443; " LITERAL);
	fixture->interfaces.count = 0;
	expect(fixture, "");
}

static void test_the_next_worker_knows_the_addresses(void **state)
{
	struct fixture *fixture = *state;

	fixture->app = "10.1.0.5 fd00:1::5";
	targets_set_policy(fixture->targets, fixture->policy);
	expect(fixture, "web tcp 443 10.1.0.5:8443; web tcp 443 fd00:1::5:8443; " LITERAL);
	pass(fixture, 2 * TARGETS_SETTLE_MS);
	targets_close(fixture->targets);
	fixture->silent = true;
	begin(fixture);
	assert_string_equal(openings_text(fixture), "web tcp 443 10.1.0.5:8443; web tcp 443 fd00:1::5:8443; " LITERAL);
	targets_set_policy(fixture->targets, fixture->policy);
	pass(fixture, 2 * TIMEOUT_MS);
	assert_string_equal(openings_text(fixture), "web tcp 443 10.1.0.5:8443; web tcp 443 fd00:1::5:8443; " LITERAL);
}

/* While questions about its names are under way. */
static void test_a_policy_is_replaced(void **state)
{
	static const char text[] =
		"[network web]\nsubnet = 10.1.0.0/30 fd00:1::/64\npublish = 443/tcp -> app:444\n[network db]\nsubnet = 10.2.0.0/24\n";
	struct fixture *fixture = *state;
	struct policy *before = fixture->policy;
	unsigned int asked;

	fixture->app = "10.1.0.5 fd00:1::5";
	targets_set_policy(fixture->targets, fixture->policy);
	expect(fixture, "web tcp 443 10.1.0.5:8443; web tcp 443 fd00:1::5:8443; " LITERAL);
	fixture->silent = true;
	pass(fixture, 2 * POLL_MS);
	fixture->policy = read_policy(text);
	policy_inherit_ids(fixture->policy, before);
	assert_string_equal(openings_text(fixture), "web tcp 443 fd00:1::5:444; "); /* 10.1.0.5 is outside now */
	targets_set_policy(fixture->targets, fixture->policy);
	policy_free(before);
	pass(fixture, 2 * TIMEOUT_MS);
	assert_string_equal(openings_text(fixture), "web tcp 443 fd00:1::5:444; ");
	before = fixture->policy;
	fixture->policy = read_policy("[network web]\nsubnet = 10.1.0.0/24\n[network db]\nsubnet = 10.2.0.0/24\n");
	targets_set_policy(fixture->targets, fixture->policy);
	policy_free(before);
	asked = fixture->asked;
	pass(fixture, 2 * TIMEOUT_MS);
	assert_string_equal(openings_text(fixture), "");
	assert_true(fixture->asked <= asked + 2); /* those that were sent before */
}

static void test_closing_ends_all_questions(void **state)
{
	struct fixture *fixture = *state;

	fixture->silent = true;
	targets_set_policy(fixture->targets, fixture->policy);
	pass(fixture, 5);
	targets_close(fixture->targets);
	pass(fixture, 2 * TIMEOUT_MS);
	begin(fixture);
	assert_int_equal(fixture->changed, 0);
}

int main(void)
{
#define TARGETS_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TARGETS_TEST(test_addresses_are_found_in_each_network_and_family),
		TARGETS_TEST(test_nothing_is_changed_while_addresses_stay),
		TARGETS_TEST(test_any_answer_without_an_address_closes),
		TARGETS_TEST(test_silence_and_what_is_no_answer_keep_an_address),
		TARGETS_TEST(test_the_gateways_own_addresses_do_not_count),
		TARGETS_TEST(test_a_network_that_is_away_is_closed),
		TARGETS_TEST(test_the_next_worker_knows_the_addresses),
		TARGETS_TEST(test_a_policy_is_replaced),
		TARGETS_TEST(test_closing_ends_all_questions),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
