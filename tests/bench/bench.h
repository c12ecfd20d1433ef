/* SPDX-License-Identifier: MIT */
/*
 * What the load generators share: the clock, options, latencies, and the names that they ask for.
 *
 * The lab has a name for each number: n0000042.bench.example, whose address is 45.32.0.0 + 42. So a generator knows what
 * the answer must be, and the address of a name that it has not asked for.
 */
#ifndef SLUICE_TESTS_BENCH_H
#define SLUICE_TESTS_BENCH_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_ADDRESS_FIRST 0x2d200000U /* 45.32.0.0 */
#define BENCH_NAMES_MAX     2000000U
#define BENCH_NAME_DIGITS   7
#define BENCH_DNS_PORT      53
#define BENCH_SECOND        1000000000UL /* ns */

struct bench_latencies {
	uint32_t *values; /* owned; ns */
	size_t count, size;
};

/* bench_now() - Return: ns since some moment, which is the same for all programs. */
uint64_t bench_now(void);

/* bench_die() - ends the program with the reason; errno is part of it when it is not 0. */
void bench_die(const char *what) __attribute__((noreturn));

/* bench_number() - an option's value; ends the program when it is none. */
double bench_number(const char *text);

/* bench_address() - "192.0.2.1" and a port in host order. */
struct sockaddr_in bench_address(const char *text, uint16_t port);

/* bench_socket() - a socket with large buffers; ends the program when there is none. `type`: with SOCK_NONBLOCK, if wanted. */
int bench_socket(int type);

/* bench_reset() - closes a TCP socket with a reset, which leaves nothing behind in either host. */
void bench_reset(int fd);

/* bench_question() - writes the question for the address of name `number`. Return: octets, always the same; `out` has room for 64. */
size_t bench_question(uint8_t *out, uint16_t id, uint32_t number);

/* bench_answer_fits() - Is it an answer with the address of name `number` and nothing in front of that? */
int bench_answer_fits(const uint8_t *message, size_t length, uint32_t number);

/* bench_note() - keeps one latency. */
void bench_note(struct bench_latencies *latencies, uint64_t ns);

/* bench_print() - prints `"p50_us": 1.0, "p99_us": 2.0, "max_us": 3.0`, null without any. Sorts. */
void bench_print(struct bench_latencies *latencies);

#endif
