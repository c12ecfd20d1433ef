/* SPDX-License-Identifier: MIT */
/*
 * bench-firstflow SERVER PORT FIRST COUNT [asked | unasked] - ask for a name, connect to its address at once
 *
 * Does so for names FIRST to FIRST + COUNT - 1, one after the other, and counts what became of the connections. `unasked`: without asking,
 * as an app that knows the address from before.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench.h"

#define CONNECT_MS 900 /* less than the first retransmission of a SYN: a lost one is a failure */
#define ANSWER_MS  3000

/* Return: 0 no answer, or not the right one. */
static int resolve(int fd, uint32_t number)
{
	uint8_t message[1500];
	uint16_t id = (uint16_t)number;
	struct pollfd wait = {.fd = fd, .events = POLLIN};
	size_t length = bench_question(message, id, number);

	if (send(fd, message, length, 0) < 0)
		return 0;
	while (poll(&wait, 1, ANSWER_MS) > 0) {
		ssize_t got = recv(fd, message, sizeof(message), 0);

		if (got < 0)
			return 0;
		if (got > 2 && (message[0] << 8 | message[1]) == id)
			return bench_answer_fits(message, (size_t)got, number);
	}
	return 0;
}

/* Return: 0 connected, or an errno. */
static int connect_to(uint32_t number, uint16_t port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(BENCH_ADDRESS_FIRST + number)};
	int fd = bench_socket(SOCK_STREAM | SOCK_NONBLOCK), error = 0;
	struct pollfd wait = {.fd = fd, .events = POLLOUT};
	socklen_t size = sizeof(error);

	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0)
		error = errno;
	if (error == EINPROGRESS) {
		if (poll(&wait, 1, CONNECT_MS) > 0)
			getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
		else
			error = ETIMEDOUT;
	}
	bench_reset(fd);
	return error;
}

int main(int argc, char **argv)
{
	struct bench_latencies latencies = {0};
	uint64_t connected = 0, refused = 0, unanswered = 0, silent = 0;
	struct sockaddr_in server;
	uint32_t first, count;
	int fd, unasked = argc == 6 && strcmp(argv[5], "unasked") == 0;

	if (argc < 5 || argc > 6)
		bench_die("usage: bench-firstflow SERVER PORT FIRST COUNT [asked | unasked]");
	server = bench_address(argv[1], BENCH_DNS_PORT);
	first = (uint32_t)bench_number(argv[3]);
	count = (uint32_t)bench_number(argv[4]);
	fd = bench_socket(SOCK_DGRAM);
	if (connect(fd, (struct sockaddr *)&server, sizeof(server)) != 0)
		bench_die("connect");
	for (uint32_t number = first; number < first + count; number++) {
		uint64_t start = bench_now();
		int error;

		if (!unasked && !resolve(fd, number)) {
			unanswered++;
			continue;
		}
		error = connect_to(number, (uint16_t)bench_number(argv[2]));
		if (error == 0) {
			connected++;
			bench_note(&latencies, bench_now() - start);
		} else if (error == ETIMEDOUT) {
			silent++;
		} else {
			refused++;
		}
	}
	printf("{\"connected\": %lu, \"refused\": %lu, \"timeout\": %lu, \"unanswered\": %lu, ", connected, refused, silent, unanswered);
	bench_print(&latencies);
	puts("}");
	return 0;
}
