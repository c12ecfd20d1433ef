/* SPDX-License-Identifier: MIT */
#include "resolver/listener.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static unsigned int received;

static void on_message(void *context, const struct client *client, const uint8_t *wire, size_t size)
{
	(void)context;
	(void)client;
	assert_int_equal(size, 5);
	assert_memory_equal(wire, "hello", 5);
	received++;
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

static void say_hello(uint16_t port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	assert_int_equal(sendto(fd, "hello", 5, 0, (const struct sockaddr *)&to, sizeof(to)), 5);
	close(fd);
}

/* libuv stops watching a socket with an error. */
static void test_an_error_of_the_socket_does_not_end_listening(void **state)
{
	uint64_t dropped = 0;
	struct listener_user user = {.network = 1, .receive = on_message, .dropped = &dropped};
	struct address address = {.family = AF_INET, .bytes = {127, 0, 0, 1}};
	uint16_t port = ntohs(free_port().sin_port);
	struct listener_udp *listener;
	uv_loop_t loop;

	(void)state;
	uv_loop_init(&loop);
	assert_int_equal(listener_udp_new(&loop, &address, port, &user, &listener), 0);
	for (unsigned int round = 1; round <= 3; round++) {
		give_error(find_descriptor(port));
		uv_run(&loop, UV_RUN_NOWAIT);
		say_hello(port);
		uv_run(&loop, UV_RUN_ONCE);
		assert_int_equal(received, round);
	}
	listener_udp_close(listener);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_error_of_the_socket_does_not_end_listening),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
