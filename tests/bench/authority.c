/* SPDX-License-Identifier: MIT */
/*
 * bench-authority ADDRESS TTL - the name server that all forwarders ask
 *
 * It makes its answers up (bench.h), so it has any number of names and costs less than a real one: the forwarder is what is measured.
 * A is answered with one address, everything else with no data. What has an OPT record gets one.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "bench.h"

#define BATCH  64
#define SIZE   512
#define HEADER 12

static const uint8_t opt[] = {0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0};

/* Return: the number in a name of ours, BENCH_NAMES_MAX for any other. */
static uint32_t number_of(const uint8_t *label)
{
	uint32_t number = 0;

	if (label[0] != BENCH_NAME_DIGITS + 1 || tolower(label[1]) != 'n')
		return BENCH_NAMES_MAX;
	for (int i = 2; i < BENCH_NAME_DIGITS + 2; i++) {
		if (!isdigit(label[i]))
			return BENCH_NAMES_MAX;
		number = number * 10 + label[i] - '0';
	}
	return number < BENCH_NAMES_MAX ? number : BENCH_NAMES_MAX;
}

static size_t write_address(uint8_t *out, uint32_t number, uint32_t ttl)
{
	const uint8_t front[] = {0xc0, HEADER, 0, 1, 0, 1};
	uint32_t address = htonl(BENCH_ADDRESS_FIRST + number), life = htonl(ttl);

	memcpy(out, front, sizeof(front));
	memcpy(out + 6, &life, 4);
	out[10] = 0;
	out[11] = 4;
	memcpy(out + 12, &address, 4);
	return 16;
}

/* Turns a question into its answer, in place. Return: octets, 0: it is no question. */
static size_t answer(uint8_t *message, size_t length, uint32_t ttl)
{
	size_t at = HEADER;
	uint32_t number;
	int has_opt;

	if (length < HEADER + 5 + BENCH_NAME_DIGITS || (message[2] & 0x80) || message[5] != 1)
		return 0;
	while (at < length && message[at] != 0 && message[at] < 64)
		at += message[at] + 1U;
	at += 5;
	if (at > length || at > SIZE - 64)
		return 0;
	number = number_of(message + HEADER);
	has_opt = message[11] != 0;
	message[2] = (uint8_t)(0x84 | (message[2] & 1));
	message[3] = 0;
	memset(message + 6, 0, 6);
	if (number < BENCH_NAMES_MAX && message[at - 4] == 0 && message[at - 3] == 1) {
		message[7] = 1;
		at += write_address(message + at, number, ttl);
	}
	if (has_opt) {
		message[11] = 1;
		memcpy(message + at, opt, sizeof(opt));
		at += sizeof(opt);
	}
	return at;
}

int main(int argc, char **argv)
{
	static uint8_t buffers[BATCH][SIZE];
	static struct mmsghdr messages[BATCH];
	static struct iovec parts[BATCH];
	static struct sockaddr_in clients[BATCH];
	struct sockaddr_in own;
	int fd;

	if (argc != 3)
		bench_die("usage: bench-authority ADDRESS TTL");
	own = bench_address(argv[1], BENCH_DNS_PORT);
	fd = bench_socket(SOCK_DGRAM);
	if (bind(fd, (struct sockaddr *)&own, sizeof(own)) != 0)
		bench_die("bind");
	puts("ready");
	fflush(stdout);
	for (;;) {
		int got, ready = 0;

		for (int i = 0; i < BATCH; i++) {
			parts[i] = (struct iovec){.iov_base = buffers[i], .iov_len = SIZE};
			messages[i].msg_hdr = (struct msghdr){
				.msg_name = &clients[i], .msg_namelen = sizeof(clients[i]), .msg_iov = &parts[i], .msg_iovlen = 1};
		}
		got = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL);
		for (int i = 0; i < got; i++) {
			size_t length = answer(buffers[i], messages[i].msg_len, (uint32_t)bench_number(argv[2]));

			if (length == 0)
				continue;
			parts[i].iov_len = length;
			messages[ready++].msg_hdr = messages[i].msg_hdr;
		}
		for (int sent = 0, done; sent < ready; sent += done) {
			done = sendmmsg(fd, messages + sent, (unsigned int)(ready - sent), 0);
			if (done <= 0)
				done = 1; /* an ICMP error of a forwarder that is gone */
		}
	}
}
