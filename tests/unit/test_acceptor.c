/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "resolver/acceptor.h"

#define CLIENTS 3

static uv_loop_t loop;
static struct acceptor *acceptor;
static struct sockaddr_in name;
static unsigned int taken, held_after;

static void take(void *context, int fd)
{
	(void)context;
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	close(fd);
	if (++taken == held_after)
		acceptor_hold(acceptor, true);
}

static int set_up(void **state)
{
	socklen_t size = sizeof(name);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	(void)state;
	taken = held_after = 0;
	name = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
	assert_int_equal(listen(fd, CLIENTS), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &size), 0);
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(acceptor_new(&loop, fd, take, NULL, &acceptor), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	acceptor_close(acceptor);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	return 0;
}

static void make_clients(int *clients)
{
	for (unsigned int i = 0; i < CLIENTS; i++) {
		clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(clients[i], (struct sockaddr *)&name, sizeof(name)), 0);
	}
}

static void close_clients(const int *clients)
{
	for (unsigned int i = 0; i < CLIENTS; i++)
		close(clients[i]);
}

/* The loop has nothing else to do: each turn waits until something happens. */
static void run_until(unsigned int count)
{
	while (taken < count)
		uv_run(&loop, UV_RUN_ONCE);
}

static void all_who_come_are_taken(void **state)
{
	int clients[CLIENTS];

	(void)state;
	make_clients(clients);
	run_until(CLIENTS);
	close_clients(clients);
	assert_int_equal(acceptor_failures().count, 0);
}

static void who_comes_while_it_is_held_waits(void **state)
{
	int clients[CLIENTS];

	(void)state;
	held_after = 1;
	make_clients(clients);
	run_until(1);
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(taken, 1);
	acceptor_hold(acceptor, false);
	run_until(CLIENTS);
	close_clients(clients);
}

/* Each turn ends with the timer: were the socket looked at all the time, there would be thousands of attempts. */
static void without_descriptors_who_comes_waits_and_nothing_spins(void **state)
{
	const uint64_t before = acceptor_failures().count;
	struct rlimit limit, none;
	int clients[CLIENTS];

	(void)state;
	make_clients(clients);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = limit;
	none.rlim_cur = (rlim_t)clients[CLIENTS - 1] + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	for (unsigned int turn = 0; turn < 4; turn++)
		uv_run(&loop, UV_RUN_ONCE);
	assert_int_equal(taken, 0);
	assert_in_range(acceptor_failures().count - before, 1, 4);
	assert_int_equal(acceptor_failures().error, EMFILE);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	run_until(CLIENTS);
	close_clients(clients);
}

static void it_may_be_closed_while_somebody_waits(void **state)
{
	int clients[CLIENTS];

	(void)state;
	acceptor_hold(acceptor, true);
	make_clients(clients);
	close_clients(clients);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(all_who_come_are_taken, set_up, tear_down),
		cmocka_unit_test_setup_teardown(who_comes_while_it_is_held_waits, set_up, tear_down),
		cmocka_unit_test_setup_teardown(without_descriptors_who_comes_waits_and_nothing_spins, set_up, tear_down),
		cmocka_unit_test_setup_teardown(it_may_be_closed_while_somebody_waits, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
