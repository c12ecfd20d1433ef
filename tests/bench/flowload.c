/* SPDX-License-Identifier: MIT */
/*
 * bench-flowload [-u] [-b] [-i FILE] [-t SECONDS] [-n FLOWS] [-a ADDRESSES] ADDRESS PORT
 *
 * Flows one after the other, for so long or so many, to ADDRESS and those behind it in turn: connect, send what is in FILE, wait for the
 * first octet, reset. -u: a datagram from a new port and the first reply. -b: one flow, on which after that first octet as much is sent as
 * goes.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench.h"

#define FIRST_MS     900 /* less than a retransmission takes */
#define REQUEST_MAX  4096
#define BLOCK        131072
#define ENOUGH_FLOWS 1e18

static uint8_t request[REQUEST_MAX];
static size_t request_size;

static void read_request(const char *path)
{
	FILE *file = fopen(path, "rb");

	if (!file)
		bench_die(path);
	request_size = fread(request, 1, sizeof(request), file);
	fclose(file);
}

/* Return: a socket whose first octet has come, or -1. */
static int open_flow(const struct sockaddr_in *to, int type)
{
	int fd = bench_socket(type);
	struct timeval patience = {.tv_sec = 0, .tv_usec = FIRST_MS * 1000};
	uint8_t answer[2048];

	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) == 0 &&
	    (request_size == 0 || send(fd, request, request_size, MSG_NOSIGNAL) > 0) &&
	    recv(fd, answer, type == SOCK_STREAM ? 1 : sizeof(answer), 0) > 0)
		return fd;
	bench_reset(fd);
	return -1;
}

static void many(struct sockaddr_in to, int type, double seconds, double flows, uint32_t addresses)
{
	struct bench_latencies latencies = {0};
	uint32_t base = ntohl(to.sin_addr.s_addr);
	uint64_t start = bench_now(), end = start + (uint64_t)(seconds * (double)BENCH_SECOND), good = 0, bad = 0, now;

	while ((now = bench_now()) < end && (double)(good + bad) < flows) {
		int fd;

		to.sin_addr.s_addr = htonl(base + (uint32_t)((good + bad) % addresses));
		fd = open_flow(&to, type);
		if (fd < 0) {
			bad++;
			continue;
		}
		bench_note(&latencies, bench_now() - now);
		good++;
		bench_reset(fd);
	}
	printf("{\"per_second\": %.1f, \"good\": %lu, \"bad\": %lu, ", (double)good * 1e9 / (double)(now - start), good, bad);
	bench_print(&latencies);
	puts("}");
}

static void bulk(const struct sockaddr_in *to, double seconds)
{
	static uint8_t block[BLOCK];
	struct timeval patience = {.tv_sec = 5};
	int fd = open_flow(to, SOCK_STREAM);
	uint64_t start = bench_now(), taken = 0;

	if (fd < 0) {
		puts("{\"gbit_per_second\": null}");
		return;
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	while ((double)(bench_now() - start) < seconds * 1e9) {
		if (send(fd, block, sizeof(block), MSG_NOSIGNAL) < 0)
			break;
	}
	shutdown(fd, SHUT_WR);
	if (recv(fd, &taken, sizeof(taken), MSG_WAITALL) != sizeof(taken)) /* what the server has taken */
		taken = 0;
	printf("{\"gbit_per_second\": %.4f}\n", (double)taken * 8 / (double)(bench_now() - start));
	bench_reset(fd);
}

int main(int argc, char **argv)
{
	double seconds = 3600, flows = ENOUGH_FLOWS;
	uint32_t addresses = 1;
	int type = SOCK_STREAM, is_bulk = 0;
	struct sockaddr_in to;

	for (int option; (option = getopt(argc, argv, "ubi:t:n:a:")) != -1;) {
		switch (option) {
		case 'u': type = SOCK_DGRAM; break;
		case 'b': is_bulk = 1; break;
		case 'i': read_request(optarg); break;
		case 't': seconds = bench_number(optarg); break;
		case 'n': flows = bench_number(optarg); break;
		case 'a': addresses = (uint32_t)bench_number(optarg); break;
		default: return 2;
		}
	}
	if (optind + 2 != argc || addresses == 0)
		bench_die("usage: bench-flowload [OPTION...] ADDRESS PORT");
	to = bench_address(argv[optind], (uint16_t)bench_number(argv[optind + 1]));
	if (is_bulk)
		bulk(&to, seconds);
	else
		many(to, type, seconds, flows, addresses);
	return 0;
}
