/* SPDX-License-Identifier: MIT */
/*
 * bench-dnsload SERVER [-n SERVERS] [-o OUTSTANDING] [-k SOCKETS] [-t SECONDS] [-q QUESTIONS] [-f FIRST] [-m NAMES] [-w FILE]
 *
 * Asks for names FIRST, FIRST + 1, ... of NAMES in a circle, with so many questions under way, for so long or so often.
 * Each answer is compared with what it must be. -n: servers at SERVER, SERVER + 256, ... (one in each /24), name by name.
 * -w: writes when each answered question was sent, and how long it took, as two uint64_t (ns), to a file.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench.h"

#define IDS         65536
#define BATCH       32
#define SIZE        1500
#define SOCKETS_MAX 512
#define LOST_NS     (2 * BENCH_SECOND)

struct asked {
	uint64_t sent; /* 0: this id is free */
	uint32_t number;
};

struct load {
	struct pollfd sockets[SOCKETS_MAX];
	nfds_t socket_count;
	nfds_t turn; /* the next socket to send through */
	struct asked asked[IDS];
	uint16_t next_id;
	uint32_t first, names;
	uint64_t question_count, question_max;
	unsigned int outstanding, under_way;
	uint64_t good, bad, lost;
	struct bench_latencies latencies;
	FILE *trace;
};

static void open_sockets(struct load *load, const char *server, unsigned int servers, unsigned int per_server)
{
	struct sockaddr_in address = bench_address(server, BENCH_DNS_PORT);
	uint32_t base = ntohl(address.sin_addr.s_addr);

	for (unsigned int i = 0; i < servers * per_server && i < SOCKETS_MAX; i++) {
		int fd = bench_socket(SOCK_DGRAM | SOCK_NONBLOCK);

		address.sin_addr.s_addr = htonl(base + i % servers * 256);
		if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
			bench_die("connect");
		load->sockets[load->socket_count++] = (struct pollfd){.fd = fd, .events = POLLIN};
	}
}

/* Sends as many questions as may be under way, the same number through each socket in turn. */
static void send_questions(struct load *load)
{
	static uint8_t buffers[BATCH][64];
	struct mmsghdr messages[BATCH] = {0};
	struct iovec parts[BATCH];
	uint16_t ids[BATCH];
	unsigned int count = 0;
	int sent;

	while (count < BATCH && load->under_way + count < load->outstanding && load->question_count + count < load->question_max) {
		uint32_t number = load->first + (uint32_t)((load->question_count + count) % load->names);

		while (load->asked[load->next_id].sent)
			load->next_id++;
		ids[count] = load->next_id;
		load->asked[load->next_id] = (struct asked){.sent = bench_now(), .number = number};
		parts[count] =
			(struct iovec){.iov_base = buffers[count], .iov_len = bench_question(buffers[count], load->next_id++, number)};
		messages[count].msg_hdr.msg_iov = &parts[count];
		messages[count++].msg_hdr.msg_iovlen = 1;
		if (load->socket_count > BATCH)
			break; /* many servers: a question for each */
	}
	if (count == 0)
		return;
	sent = sendmmsg(load->sockets[load->turn].fd, messages, count, 0);
	load->turn = (load->turn + 1) % load->socket_count;
	for (unsigned int i = sent > 0 ? (unsigned int)sent : 0; i < count; i++)
		load->asked[ids[i]].sent = 0;
	if (sent > 0) {
		load->question_count += (unsigned int)sent;
		load->under_way += (unsigned int)sent;
	}
}

static void take_answer(struct load *load, const uint8_t *message, size_t length)
{
	struct asked *asked;
	uint64_t took;

	if (length < 12)
		return;
	asked = &load->asked[message[0] << 8 | message[1]];
	if (!asked->sent)
		return;
	took = bench_now() - asked->sent;
	bench_note(&load->latencies, took);
	if (load->trace) {
		uint64_t row[2] = {asked->sent, took};

		fwrite(row, sizeof(row), 1, load->trace);
	}
	if (bench_answer_fits(message, length, asked->number))
		load->good++;
	else
		load->bad++;
	asked->sent = 0;
	load->under_way--;
}

static void receive(struct load *load, int fd)
{
	static uint8_t buffers[BATCH][SIZE];
	struct mmsghdr messages[BATCH] = {0};
	struct iovec parts[BATCH];
	int got;

	for (int i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){.iov_base = buffers[i], .iov_len = SIZE};
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	got = recvmmsg(fd, messages, load->outstanding > 1 ? BATCH : 1, 0, NULL);
	for (int i = 0; i < got; i++)
		take_answer(load, buffers[i], messages[i].msg_len);
}

/* Questions without an answer for LOST_NS. */
static void give_up(struct load *load, uint64_t now)
{
	for (unsigned int id = 0; id < IDS; id++) {
		if (load->asked[id].sent && now - load->asked[id].sent > LOST_NS) {
			load->asked[id].sent = 0;
			load->under_way--;
			load->lost++;
		}
	}
}

/* Return: ns that it took. */
static uint64_t run(struct load *load, double seconds)
{
	uint64_t start = bench_now(), end = start + (uint64_t)(seconds * (double)BENCH_SECOND), looked = start, last = start;

	for (;;) {
		uint64_t now = bench_now();
		int over = now >= end || load->question_count >= load->question_max;

		if (over && load->under_way == 0)
			break;
		for (unsigned int before = ~0U; !over && load->under_way != before;) {
			before = load->under_way;
			send_questions(load);
		}
		if (poll(load->sockets, load->socket_count, 100) > 0) {
			for (nfds_t i = 0; i < load->socket_count; i++) {
				if (load->sockets[i].revents)
					receive(load, load->sockets[i].fd);
			}
			last = now;
		}
		if (now - looked > BENCH_SECOND / 5) {
			give_up(load, bench_now());
			looked = now;
		}
	}
	return (last < end ? last : end) - start;
}

int main(int argc, char **argv)
{
	static struct load load = {.outstanding = 1, .names = BENCH_NAMES_MAX, .question_max = UINT64_MAX};
	unsigned int servers = 1, sockets = 1;
	double seconds = 3600;
	uint64_t took;

	for (int option; (option = getopt(argc, argv, "n:o:k:t:q:f:m:w:")) != -1;) {
		switch (option) {
		case 'n': servers = (unsigned int)bench_number(optarg); break;
		case 'o': load.outstanding = (unsigned int)bench_number(optarg); break;
		case 'k': sockets = (unsigned int)bench_number(optarg); break;
		case 't': seconds = bench_number(optarg); break;
		case 'q': load.question_max = (uint64_t)bench_number(optarg); break;
		case 'f': load.first = (uint32_t)bench_number(optarg); break;
		case 'm': load.names = (uint32_t)bench_number(optarg); break;
		case 'w': load.trace = fopen(optarg, "wb"); break;
		default: return 2;
		}
	}
	if (optind + 1 != argc || load.outstanding >= IDS || load.names == 0)
		bench_die("usage: bench-dnsload SERVER [OPTION...]");
	open_sockets(&load, argv[optind], servers, sockets);
	took = run(&load, seconds);
	if (load.trace)
		fclose(load.trace);
	printf("{\"qps\": %.1f, \"good\": %lu, \"bad\": %lu, \"lost\": %lu, ",
	       (double)(load.good + load.bad) * 1e9 / (double)(took ? took : 1), load.good, load.bad, load.lost);
	bench_print(&load.latencies);
	puts("}");
	return 0;
}
