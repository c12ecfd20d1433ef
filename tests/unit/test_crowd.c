/* SPDX-License-Identifier: MIT */
#include "resolver/crowd.h"

#include <linux/filter.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define SENT       800 /* datagrams; the socket has room for them */
#define IN_SECONDS (1000 / CROWD_TICK_MS)

static const struct address flooder = {.family = AF_INET, .bytes = {127, 0, 0, 2}}, other = {.family = AF_INET, .bytes = {127, 0, 0, 3}};

static struct sockaddr_storage at_port_of(int fd, const struct address *address)
{
	struct sockaddr_storage own, to;
	socklen_t length = sizeof(own);
	struct address bound;
	uint16_t port;

	assert_int_equal(getsockname(fd, (struct sockaddr *)&own, &length), 0);
	assert_true(address_from_sockaddr((const struct sockaddr *)&own, &bound, &port));
	(void)address_to_sockaddr(address, port, &to);
	return to;
}

/* A socket at the loopback address, at a port that nobody has. */
static void open_socket(struct crowd *crowd, int family)
{
	const struct address loopback = {.family = (uint8_t)family,
					 .bytes = {family == AF_INET ? 127 : 0, 0, 0, family == AF_INET, [15] = family == AF_INET6}};
	const int size = 1024 * 1024;
	struct sockaddr_storage sa;
	socklen_t length = address_to_sockaddr(&loopback, 0, &sa);
	int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)))
		assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)), 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)&sa, length), 0);
	crowd_init(crowd, fd);
}

static unsigned int take_all(int fd)
{
	unsigned int count = 0;
	char octet;

	while (recv(fd, &octet, 1, 0) == 1)
		count++;
	return count;
}

/* Return: how many of @count datagrams have come into the socket, which is emptied meanwhile. */
static unsigned int send_from(const struct crowd *crowd, const struct address *from, unsigned int count)
{
	const struct address loopback = {.family = AF_INET, .bytes = {127, 0, 0, 1}};
	const struct sockaddr_storage to = at_port_of(crowd->fd, from->family == AF_INET ? &loopback : from);
	struct sockaddr_storage own;
	socklen_t length = address_to_sockaddr(from, 0, &own);
	int fd = socket(from->family, SOCK_DGRAM, 0);
	unsigned int arrived = 0;

	assert_int_equal(bind(fd, (const struct sockaddr *)&own, length), 0);
	for (unsigned int i = 1; i <= count; i++) {
		assert_int_equal(sendto(fd, "x", 1, 0, (const struct sockaddr *)&to, length), 1);
		if (i % 64 == 0 || i == count)
			arrived += take_all(crowd->fd);
	}
	close(fd);
	return arrived;
}

/* Twice 32 of 512: one of eight is kept. */
static void hold_back(struct crowd *crowd, const struct address *address)
{
	crowd_report(crowd, address, 512, 32, false, true);
	crowd_apply(crowd);
}

static bool has_filter(const struct crowd *crowd)
{
	struct sock_filter *none = NULL;
	socklen_t length = 0;

	assert_int_equal(getsockopt(crowd->fd, SOL_SOCKET, SO_GET_FILTER, none, &length), 0);
	return length > 0;
}

static void test_only_who_sends_too_much_is_held_back_and_it_is_counted(void **state)
{
	struct crowd crowd;
	uint64_t dropped = 0;
	unsigned int arrived;

	(void)state;
	open_socket(&crowd, AF_INET);
	crowd_report(&crowd, &other, 3, 32, true, true);
	hold_back(&crowd, &flooder);
	assert_true(has_filter(&crowd));
	assert_int_equal(send_from(&crowd, &other, SENT), SENT);
	arrived = send_from(&crowd, &flooder, SENT);
	assert_in_range(arrived, SENT / 8 / 2, SENT / 8 * 2); /* five times the standard deviation, and more */
	assert_false(crowd_look(&crowd, &dropped));
	assert_int_equal(dropped, SENT - arrived);
	close(crowd.fd);
}

static void test_the_same_over_ipv6(void **state)
{
	/* Loopback has one address only: it passes while others are held back, whose first words are the same. */
	struct address loopback = {.family = AF_INET6, .bytes = {[15] = 1}}, neighbour = {.family = AF_INET6, .bytes = {[15] = 2}};
	struct crowd crowd;

	(void)state;
	open_socket(&crowd, AF_INET6);
	for (; neighbour.bytes[15] < 1 + CROWD_SOURCES; neighbour.bytes[15]++)
		hold_back(&crowd, &neighbour);
	assert_int_equal(send_from(&crowd, &loopback, SENT), SENT);
	hold_back(&crowd, &loopback);
	assert_in_range(send_from(&crowd, &loopback, SENT), SENT / 8 / 2, SENT / 8 * 2);
	close(crowd.fd);
}

static void test_every_place_holds_back(void **state)
{
	struct address source = flooder;
	struct crowd crowd;

	(void)state;
	open_socket(&crowd, AF_INET);
	for (unsigned int i = 0; i < CROWD_SOURCES; i++, source.bytes[3]++)
		hold_back(&crowd, &source);
	hold_back(&crowd, &source); /* no place is left */
	assert_int_equal(send_from(&crowd, &source, SENT), SENT);
	source.bytes[3]--;
	assert_in_range(send_from(&crowd, &source, SENT), SENT / 8 / 2, SENT / 8 * 2);
	assert_in_range(send_from(&crowd, &flooder, SENT), SENT / 8 / 2, SENT / 8 * 2);
	close(crowd.fd);
}

static unsigned int tick_until_over(struct crowd *crowd, unsigned int taken)
{
	unsigned int ticks = 0;

	while (crowd->count) {
		crowd_report(crowd, &flooder, taken, taken, false, true);
		crowd_tick(crowd);
		crowd_apply(crowd);
		ticks++;
		assert_in_range(ticks, 1, 100 * IN_SECONDS);
	}
	return ticks;
}

static void test_who_goes_on_has_more_soon_and_who_is_silent_later(void **state)
{
	struct crowd crowd;

	(void)state;
	open_socket(&crowd, AF_INET);
	hold_back(&crowd, &flooder);
	assert_in_range(tick_until_over(&crowd, 0), 3 * IN_SECONDS - 3, 3 * IN_SECONDS + 3); /* three times doubled */
	assert_false(has_filter(&crowd));
	hold_back(&crowd, &flooder);
	assert_in_range(tick_until_over(&crowd, 100), 2, IN_SECONDS / 2);
	assert_int_equal(send_from(&crowd, &flooder, SENT), SENT);
	close(crowd.fd);
}

/* It has as much as it can be served: neither more nor less. */
static void test_a_flood_that_is_held_back_enough_stays_so(void **state)
{
	struct crowd crowd;
	uint32_t keep;

	(void)state;
	open_socket(&crowd, AF_INET);
	hold_back(&crowd, &flooder);
	keep = crowd.sources[0].keep;
	for (unsigned int i = 0; i < 10; i++) {
		crowd_report(&crowd, &flooder, 300, 200, false, true);
		crowd_tick(&crowd);
		assert_int_equal(crowd.sources[0].keep, keep);
	}
	assert_false(crowd.changed);
	crowd_report(&crowd, &flooder, 200, 200, true, false); /* not enough, after all */
	assert_int_equal(crowd.sources[0].keep, keep / 2);
	for (unsigned int i = 0; i < 30; i++)
		crowd_report(&crowd, &flooder, 1000, 10, true, false);
	assert_int_equal(crowd.sources[0].keep, CROWD_KEEP_LEAST);
	close(crowd.fd);
}

static void test_the_kernels_count_may_wrap(void **state)
{
	struct crowd crowd;
	uint64_t dropped = 0;

	(void)state;
	open_socket(&crowd, AF_INET);
	crowd.drops = UINT32_MAX - 9;
	(void)crowd_look(&crowd, &dropped);
	assert_int_equal(dropped, 10);
	(void)crowd_look(&crowd, &dropped);
	assert_int_equal(dropped, 10);
	close(crowd.fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_only_who_sends_too_much_is_held_back_and_it_is_counted),
		cmocka_unit_test(test_the_same_over_ipv6),
		cmocka_unit_test(test_every_place_holds_back),
		cmocka_unit_test(test_who_goes_on_has_more_soon_and_who_is_silent_later),
		cmocka_unit_test(test_a_flood_that_is_held_back_enough_stays_so),
		cmocka_unit_test(test_the_kernels_count_may_wrap),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
