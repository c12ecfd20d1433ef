/* SPDX-License-Identifier: MIT */
/* Container names, with a stand-in for Docker's resolver on 127.0.0.11 and a port of its own. */
#include "gateway/apps.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "resolver/message.h"

#define REFUSED_MS 50
#define NAMES_MAX  1024
#define BIND_TRIES 1000

struct fixture {
	uv_loop_t loop;
	uv_poll_t poll;
	struct apps *apps;
	int fd; /* of the stand-in */
	uint16_t port;
	bool listening, silent, nameless;
	unsigned int asked;
	unsigned int told;
	char names[NAMES_MAX][APPS_NAME_MAX + 1];
};

static const struct prefix subnet = {.address = {.family = AF_INET, .bytes = {10, 201, 0, 0}}, .length = 16};
static const struct prefix other_subnet = {.address = {.family = AF_INET, .bytes = {10, 202, 0, 0}}, .length = 16};

static struct address host(unsigned int network, unsigned int number)
{
	return (struct address){.family = AF_INET, .bytes = {10, (uint8_t)network, (uint8_t)(number >> 8), (uint8_t)number}};
}

/* app-4-3-2-1.web. */
static size_t answer_question(const struct fixture *fixture, const uint8_t *wire, size_t size, uint8_t *out)
{
	struct question question;
	struct answer *answer;
	char text[DOMAIN_TEXT_MAX], octets[32];
	struct domain name;

	assert_int_equal(message_parse_question(wire, size, &question), MESSAGE_OK);
	assert_int_equal(question.type, TYPE_PTR);
	domain_format(&question.name, text);
	snprintf(octets, sizeof(octets), "%.*s", (int)(strstr(text, ".in-addr.arpa") - text), text);
	for (char *at = octets; *at; at++)
		*at = *at == '.' ? '-' : *at;
	snprintf(text, sizeof(text), "app-%s.web", octets);
	assert_null(domain_parse(text, &name));
	answer = answer_new(fixture->nameless ? RCODE_NXDOMAIN : RCODE_NOERROR, 1, 512);
	if (!fixture->nameless)
		answer_add(answer, question.name.wire, question.name.length, TYPE_PTR, 600, name.wire, name.length);
	size = message_build_reply(&question, answer, -1, EDE_NONE, 512, NULL, out);
	answer_free(answer);
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
		if (fixture->silent)
			continue;
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

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	struct apps_options options = {.refused_ms = REFUSED_MS};

	uv_loop_init(&fixture->loop);
	open_resolver(fixture);
	options.port = fixture->port;
	fixture->apps = apps_new(&fixture->loop, &options);
	*state = fixture;
	return fixture->apps ? 0 : -1;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	apps_close(fixture->apps);
	if (fixture->listening)
		close_resolver(fixture);
	uv_run(&fixture->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&fixture->loop), 0);
	free(fixture);
	return 0;
}

static void on_name(void *context, const char *name)
{
	struct fixture *fixture = context;

	assert_true(fixture->told < NAMES_MAX);
	strcpy(fixture->names[fixture->told++], name);
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

/* Look up without waiting. */
static void begin(struct fixture *fixture, const struct prefix *network, struct address address)
{
	apps_lookup(fixture->apps, network, &address, on_name, fixture);
}

/* Look up and wait. Return: the name. */
static const char *name_of(struct fixture *fixture, const struct prefix *network, struct address address)
{
	unsigned int before = fixture->told;

	begin(fixture, network, address);
	while (fixture->told == before)
		uv_run(&fixture->loop, UV_RUN_ONCE);
	assert_int_equal(fixture->told, before + 1);
	return fixture->names[before];
}

static void test_a_name_is_asked_for_once(void **state)
{
	struct fixture *fixture = *state;

	assert_string_equal(name_of(fixture, &subnet, host(201, 5)), "app-5-0-201-10");
	assert_string_equal(name_of(fixture, &subnet, host(201, 5)), "app-5-0-201-10");
	assert_int_equal(fixture->asked, 1);
}

static void test_what_is_known_is_known_at_once(void **state)
{
	struct fixture *fixture = *state;
	struct address address = host(201, 5), other = host(201, 6);

	assert_null(apps_known(fixture->apps, &address));
	begin(fixture, &subnet, address);
	assert_null(apps_known(fixture->apps, &address));
	pass(fixture, 50);
	assert_string_equal(apps_known(fixture->apps, &address), "app-5-0-201-10");
	assert_null(apps_known(fixture->apps, &other));
	assert_int_equal(fixture->asked, 1);
}

static void test_all_who_wait_are_told(void **state)
{
	struct fixture *fixture = *state;

	for (int i = 0; i < 3; i++)
		begin(fixture, &subnet, host(201, 5));
	assert_int_equal(fixture->told, 0);
	pass(fixture, 50);
	assert_int_equal(fixture->told, 3);
	for (int i = 0; i < 3; i++)
		assert_string_equal(fixture->names[i], "app-5-0-201-10");
	assert_int_equal(fixture->asked, 1);
}

static void test_nobody_is_asked_about_addresses_outside_the_subnet(void **state)
{
	struct fixture *fixture = *state;
	struct address address6;

	assert_true(address_parse("fdc9:1::5", &address6));
	assert_string_equal(name_of(fixture, &subnet, host(202, 5)), "");
	assert_string_equal(name_of(fixture, &subnet, address6), "");
	pass(fixture, 20);
	assert_int_equal(fixture->asked, 0);
}

static void test_silence_ends_without_a_name_and_then_nobody_is_asked(void **state)
{
	struct fixture *fixture = *state;

	fixture->silent = true;
	assert_string_equal(name_of(fixture, &subnet, host(201, 5)), "");
	assert_string_equal(name_of(fixture, &subnet, host(201, 6)), "");
	assert_string_equal(name_of(fixture, &subnet, host(201, 7)), "");
	assert_int_equal(fixture->asked, 2);
}

/* libuv stops watching a socket whose question was refused. */
static void test_names_come_back_after_a_refusal(void **state)
{
	struct fixture *fixture = *state;

	close_resolver(fixture);
	for (unsigned int round = 0; round < 3; round++) {
		assert_string_equal(name_of(fixture, &subnet, host(201, 5)), "");
		pass(fixture, REFUSED_MS + 20);
	}
	open_resolver(fixture);
	assert_string_equal(name_of(fixture, &subnet, host(201, 6)), "app-6-0-201-10");
}

static void test_all_who_wait_are_told_of_a_refusal_at_once(void **state)
{
	struct fixture *fixture = *state;

	close_resolver(fixture);
	for (unsigned int i = 0; i < 5; i++)
		begin(fixture, &subnet, host(201, i));
	pass(fixture, 30);
	assert_int_equal(fixture->told, 5);
	for (unsigned int i = 0; i < 5; i++)
		assert_string_equal(fixture->names[i], "");
	begin(fixture, &subnet, host(201, 9));
	assert_int_equal(fixture->told, 6); /* at once: nobody is asked now */
}

/* Docker forwards what it does not know, so the addresses that we ask about are a way out for an app that makes them up. */
static void test_few_new_addresses_of_a_network_are_asked_about(void **state)
{
	struct fixture *fixture = *state;

	fixture->nameless = true;
	for (unsigned int i = 0; i < 500; i++)
		begin(fixture, &subnet, host(201, i));
	pass(fixture, 50);
	assert_int_equal(fixture->told, 500);
	assert_int_equal(fixture->asked, APPS_NEW_BURST);
	fixture->nameless = false;
	assert_string_equal(name_of(fixture, &subnet, host(201, 700)), "");
	assert_string_equal(name_of(fixture, &other_subnet, host(202, 1)), "app-1-0-202-10"); /* another network has tokens of its own */
}

static void test_closing_tells_all_who_wait(void **state)
{
	struct fixture *fixture = *state;
	struct apps_options options = {.port = fixture->port};

	begin(fixture, &subnet, host(201, 5));
	begin(fixture, &subnet, host(201, 6));
	apps_close(fixture->apps);
	assert_int_equal(fixture->told, 2);
	assert_string_equal(fixture->names[0], "");
	fixture->apps = apps_new(&fixture->loop, &options);
}

int main(void)
{
#define APPS_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		APPS_TEST(test_a_name_is_asked_for_once),
		APPS_TEST(test_what_is_known_is_known_at_once),
		APPS_TEST(test_all_who_wait_are_told),
		APPS_TEST(test_nobody_is_asked_about_addresses_outside_the_subnet),
		APPS_TEST(test_silence_ends_without_a_name_and_then_nobody_is_asked),
		APPS_TEST(test_names_come_back_after_a_refusal),
		APPS_TEST(test_all_who_wait_are_told_of_a_refusal_at_once),
		APPS_TEST(test_few_new_addresses_of_a_network_are_asked_about),
		APPS_TEST(test_closing_tells_all_who_wait),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
