/* SPDX-License-Identifier: MIT */
#include "resolver/listener.h"

#include <linux/filter.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define FLOODER 1 /* 127.0.0.1 */
#define SMALL   65536
#define ROOM    212992 /* what may be set without a privilege */

static unsigned int received, received_from[256]; /* by the last octet of the source */
static uint64_t dropped, crowded;
static struct address crowded_by;

static void on_message(void *context, const struct client *client, const uint8_t *wire, size_t size)
{
	(void)context;
	assert_int_equal(size, 5);
	assert_memory_equal(wire, "hello", 5);
	received++;
	received_from[client->address.bytes[3]]++;
}

/* The descriptor that is bound to this port. */
static int find_descriptor(uint16_t port)
{
	for (int fd = 3; fd < 256; fd++) {
		struct sockaddr_in name = {0};
		socklen_t size = sizeof(name);

		if (getsockname(fd, (struct sockaddr *)&name, &size) == 0 && name.sin_family == AF_INET && ntohs(name.sin_port) == port)
			return fd;
	}
	fail_msg("no descriptor has port %u", port);
	return -1;
}

/* A port of 127.0.0.1 that nobody has. */
static struct sockaddr_in free_port(void)
{
	struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(name);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	assert_int_equal(bind(fd, (const struct sockaddr *)&name, sizeof(name)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &size), 0);
	close(fd);
	return name;
}

/* ECONNREFUSED, as for a connected socket. */
static void give_error(int fd)
{
	struct sockaddr_in nobody = free_port();
	const struct sockaddr none = {.sa_family = AF_UNSPEC};

	assert_int_equal(connect(fd, (const struct sockaddr *)&nobody, sizeof(nobody)), 0);
	assert_int_equal(send(fd, "x", 1, 0), 1);
	assert_int_equal(connect(fd, &none, sizeof(none)), 0);
}

/* From 127.0.0.@host. */
static void say_hello(uint16_t port, uint8_t host, unsigned int count)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000000U | host)};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	assert_int_equal(bind(fd, (const struct sockaddr *)&from, sizeof(from)), 0);
	for (unsigned int i = 0; i < count; i++)
		assert_int_equal(sendto(fd, "hello", 5, 0, (const struct sockaddr *)&to, sizeof(to)), 5);
	close(fd);
}

static struct listener_udp *open_listener(uv_loop_t *loop, uint16_t *port)
{
	const struct listener_user user = {
		.network = 1, .receive = on_message, .dropped = &dropped, .crowded = &crowded, .crowded_by = &crowded_by};
	const struct address address = {.family = AF_INET, .bytes = {127, 0, 0, 1}};
	struct listener_udp *listener;

	received = 0;
	crowded = 0;
	memset(received_from, 0, sizeof(received_from));
	*port = ntohs(free_port().sin_port);
	uv_loop_init(loop);
	assert_int_equal(listener_udp_new(loop, &address, *port, &user, &listener), 0);
	return listener;
}

static void close_listener(uv_loop_t *loop, struct listener_udp *listener)
{
	listener_udp_close(listener);
	uv_run(loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(loop), 0);
}

/* With a small socket buffer what waits in it fills it, however fast the test is. */
static void set_buffer(uint16_t port, int size)
{
	assert_int_equal(setsockopt(find_descriptor(port), SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)), 0);
}

static bool has_filter(uint16_t port)
{
	struct sock_filter *none = NULL;
	socklen_t length = 0;

	assert_int_equal(getsockopt(find_descriptor(port), SOL_SOCKET, SO_GET_FILTER, none, &length), 0);
	return length > 0;
}

static void test_who_floods_does_not_take_the_turns_of_others(void **state)
{
	struct listener_udp *listener;
	uint16_t port;
	uv_loop_t loop;

	(void)state;
	listener = open_listener(&loop, &port);
	say_hello(port, FLOODER, 900);
	say_hello(port, 2, 3);
	say_hello(port, 3, 1);
	set_buffer(port, SMALL); /* what waits stays, and is more than half of what there is room for */
	listener_udp_receive(listener);
	assert_int_equal(received_from[2], 3);
	assert_int_equal(received_from[3], 1);
	assert_in_range(received_from[FLOODER], LISTENER_PRESSED_SERVED - 4, LISTENER_PRESSED_SERVED);
	assert_int_equal(received + crowded, 904);
	assert_int_equal(crowded_by.bytes[3], FLOODER);
	close_listener(&loop, listener);
}

/* While the worker does not come to take anything, the kernel has to drop what comes after a flood. */
static void test_who_floods_does_not_fill_the_socket_between_two_turns(void **state)
{
	unsigned int sent = 0;
	struct listener_udp *listener;
	uint16_t port;
	uv_loop_t loop;

	(void)state;
	listener = open_listener(&loop, &port);
	for (unsigned int i = 0; i < 4; i++, sent += 400) {
		set_buffer(port, ROOM);
		say_hello(port, FLOODER, 400);
		set_buffer(port, SMALL);
		listener_udp_receive(listener);
	}
	set_buffer(port, ROOM);
	say_hello(port, FLOODER, 1000); /* more than there is room for */
	say_hello(port, 2, 5);
	for (unsigned int i = 0; i < 100; i++)
		listener_udp_receive(listener);
	assert_int_equal(received_from[2], 5);
	assert_in_range(received_from[FLOODER], LISTENER_PRESSED_SERVED + LISTENER_BATCH, sent);
	close_listener(&loop, listener); /* what the kernel dropped is counted now, if it was not before */
	assert_int_equal(received + crowded, sent + 1000 + 5);
}

static void test_who_has_flooded_is_not_held_back_for_ever(void **state)
{
	struct listener_udp *listener;
	uint16_t port;
	uv_loop_t loop;

	(void)state;
	listener = open_listener(&loop, &port);
	say_hello(port, FLOODER, 400);
	set_buffer(port, SMALL);
	listener_udp_receive(listener);
	set_buffer(port, ROOM);
	assert_true(has_filter(port));
	say_hello(port, FLOODER, 200);
	for (unsigned int i = 0; i < 100; i++)
		listener_udp_receive(listener);
	assert_in_range(received, LISTENER_PRESSED_SERVED + 1, LISTENER_PRESSED_SERVED + 199);
	while (has_filter(port))
		uv_run(&loop, UV_RUN_ONCE);
	received = 0;
	say_hello(port, FLOODER, 200);
	for (unsigned int i = 0; i < 100; i++)
		listener_udp_receive(listener);
	assert_int_equal(received, 200);
	close_listener(&loop, listener);
}

static void test_nothing_is_dropped_while_there_is_room(void **state)
{
	struct listener_udp *listener;
	uint16_t port;
	uv_loop_t loop;

	(void)state;
	listener = open_listener(&loop, &port);
	say_hello(port, FLOODER, 2 * LISTENER_BATCH);
	say_hello(port, 2, 1);
	listener_udp_receive(listener);
	assert_int_equal(received, LISTENER_BATCH);
	listener_udp_receive(listener);
	listener_udp_receive(listener);
	assert_int_equal(received, 2 * LISTENER_BATCH + 1);
	assert_int_equal(crowded, 0);
	close_listener(&loop, listener);
}

/* libuv stops watching a socket with an error. */
static void test_an_error_of_the_socket_does_not_end_listening(void **state)
{
	struct listener_udp *listener;
	uint16_t port;
	uv_loop_t loop;

	(void)state;
	listener = open_listener(&loop, &port);
	for (unsigned int round = 1; round <= 3; round++) {
		give_error(find_descriptor(port));
		uv_run(&loop, UV_RUN_NOWAIT);
		say_hello(port, FLOODER, 1);
		uv_run(&loop, UV_RUN_ONCE);
		assert_int_equal(received, round);
	}
	close_listener(&loop, listener);
}

static int client_socket(struct client *client)
{
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(own);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	assert_int_equal(bind(fd, (const struct sockaddr *)&own, sizeof(own)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&own, &length), 0);
	*client = (struct client){.protocol = IPPROTO_UDP};
	assert_true(address_from_sockaddr((const struct sockaddr *)&own, &client->address, &client->port));
	return fd;
}

/* What has come from each of two ports must be numbered from 0, without a gap. */
static void count_replies(int fd, const uint16_t *ports, unsigned int *counts)
{
	struct sockaddr_in from;
	socklen_t length = sizeof(from);
	uint8_t number;

	counts[0] = counts[1] = 0;
	while (recvfrom(fd, &number, 1, 0, (struct sockaddr *)&from, &length) == 1) {
		unsigned int which = ntohs(from.sin_port) == ports[1];

		assert_int_equal(ntohs(from.sin_port), ports[which]);
		assert_int_equal(number, counts[which]++);
	}
}

/* They have one buffer: each reply must leave by its own socket, in order, and those of a listener that is closed not at all. */
static void test_listeners_share_a_buffer(void **state)
{
	uint64_t lost = 0;
	struct listener_user user = {.network = 1, .receive = on_message, .dropped = &lost};
	struct address address = {.family = AF_INET, .bytes = {127, 0, 0, 1}};
	struct listener_udp *listeners[2];
	unsigned int counts[2];
	struct client client;
	uint16_t ports[2];
	uv_loop_t loop;
	int fd = client_socket(&client);

	(void)state;
	uv_loop_init(&loop);
	for (unsigned int i = 0; i < 2; i++) {
		ports[i] = ntohs(free_port().sin_port);
		assert_int_equal(listener_udp_new(&loop, &address, ports[i], &user, &listeners[i]), 0);
	}
	for (uint8_t i = 0; i < LISTENER_BATCH; i++) {
		assert_true(listener_udp_reply(listeners[0], &client, &i, 1));
		assert_true(listener_udp_reply(listeners[1], &client, &i, 1));
	}
	listener_udp_flush();
	count_replies(fd, ports, counts);
	assert_int_equal(counts[0], LISTENER_BATCH);
	assert_int_equal(counts[1], LISTENER_BATCH);
	for (uint8_t i = 0; i < 3; i++) {
		assert_true(listener_udp_reply(listeners[0], &client, &i, 1));
		assert_true(listener_udp_reply(listeners[1], &client, &i, 1));
	}
	listener_udp_close(listeners[1]);
	uv_run(&loop, UV_RUN_NOWAIT);
	listener_udp_flush();
	count_replies(fd, ports, counts);
	assert_int_equal(counts[0], 3);
	assert_int_equal(counts[1], 0);
	assert_int_equal(lost, 0);
	listener_udp_close(listeners[0]);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_floods_does_not_take_the_turns_of_others),
		cmocka_unit_test(test_who_floods_does_not_fill_the_socket_between_two_turns),
		cmocka_unit_test(test_who_has_flooded_is_not_held_back_for_ever),
		cmocka_unit_test(test_nothing_is_dropped_while_there_is_room),
		cmocka_unit_test(test_an_error_of_the_socket_does_not_end_listening),
		cmocka_unit_test(test_listeners_share_a_buffer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
