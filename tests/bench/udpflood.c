/* SPDX-License-Identifier: MIT */
/*
 * bench-udpflood [-a ADDRESSES] [-k SOCKETS] [-s SIZE] [-t SECONDS] [-n PACKETS] [-r PER-SECOND] ADDRESS PORT
 *
 * Datagrams to ADDRESS and those behind it in turn, through so many sockets, as fast as it goes or at a rate. It sends into the lab only:
 * its addresses are those of a namespace that no other one has a route to.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#define BATCH       32
#define PAYLOAD_MAX 1400
#define SOCKETS_MAX 1024
#define PAUSE_NS    50000

struct flood {
	struct sockaddr_in to;
	uint32_t addresses;
	int sockets[SOCKETS_MAX];
	unsigned int socket_count, size;
	double seconds, packets, rate;
};

/* Return: packets sent. Each address is used with every socket before the next round of addresses begins. */
static int send_batch(const struct flood *flood, uint64_t sent)
{
	static uint8_t payload[PAYLOAD_MAX];
	struct mmsghdr messages[BATCH] = {0};
	struct sockaddr_in to[BATCH];
	struct iovec part = {.iov_base = payload, .iov_len = flood->size};
	uint32_t base = ntohl(flood->to.sin_addr.s_addr);
	unsigned int through = (unsigned int)(sent / BATCH % flood->socket_count);
	uint64_t round = flood->addresses > BATCH ? sent / ((uint64_t)BATCH * flood->socket_count) * BATCH : 0;

	if (flood->socket_count == 1)
		round = sent;
	for (uint32_t i = 0; i < BATCH; i++) {
		to[i] = flood->to;
		to[i].sin_addr.s_addr = htonl(base + (uint32_t)((round + i) % flood->addresses));
		messages[i].msg_hdr = (struct msghdr){.msg_name = &to[i], .msg_namelen = sizeof(to[i]), .msg_iov = &part, .msg_iovlen = 1};
	}
	return sendmmsg(flood->sockets[through], messages, BATCH, 0);
}

static void run(const struct flood *flood)
{
	uint64_t start = bench_now(), sent = 0, refused = 0, now;

	while ((double)((now = bench_now()) - start) < flood->seconds * 1e9 && (double)sent < flood->packets) {
		int done;

		if (flood->rate > 0 && (double)sent > (double)(now - start) / 1e9 * flood->rate) {
			nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
			continue;
		}
		done = send_batch(flood, sent);
		if (done > 0)
			sent += (unsigned int)done;
		else
			refused++;
	}
	printf("{\"sent\": %lu, \"per_second\": %.1f, \"refused\": %lu, \"seconds\": %.4f}\n", sent,
	       (double)sent * 1e9 / (double)(now - start), refused, (double)(now - start) / 1e9);
}

int main(int argc, char **argv)
{
	static struct flood flood = {.addresses = 1, .socket_count = 1, .size = 64, .seconds = 3600, .packets = 1e18};

	for (int option; (option = getopt(argc, argv, "a:k:s:t:n:r:")) != -1;) {
		switch (option) {
		case 'a': flood.addresses = (uint32_t)bench_number(optarg); break;
		case 'k': flood.socket_count = (unsigned int)bench_number(optarg); break;
		case 's': flood.size = (unsigned int)bench_number(optarg); break;
		case 't': flood.seconds = bench_number(optarg); break;
		case 'n': flood.packets = bench_number(optarg); break;
		case 'r': flood.rate = bench_number(optarg); break;
		default: return 2;
		}
	}
	if (optind + 2 != argc || flood.addresses == 0 || flood.socket_count == 0 || flood.socket_count > SOCKETS_MAX ||
	    flood.size > PAYLOAD_MAX)
		bench_die("usage: bench-udpflood [OPTION...] ADDRESS PORT");
	flood.to = bench_address(argv[optind], (uint16_t)bench_number(argv[optind + 1]));
	for (unsigned int i = 0; i < flood.socket_count; i++)
		flood.sockets[i] = bench_socket(SOCK_DGRAM);
	run(&flood);
	return 0;
}
