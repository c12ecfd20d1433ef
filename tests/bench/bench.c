/* SPDX-License-Identifier: MIT */
#include "bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEADER        12 /* octets of a DNS message */
#define BUFFER        (8 << 20)
#define RECORD        10 /* octets between a record's name and its data */
#define LATENCIES_MIN 65536

uint64_t bench_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * BENCH_SECOND + (uint64_t)now.tv_nsec;
}

void bench_die(const char *what)
{
	if (errno)
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
	else
		fprintf(stderr, "%s\n", what);
	exit(1);
}

double bench_number(const char *text)
{
	char *end;
	double value = strtod(text, &end);

	errno = 0;
	if (end == text || *end || value < 0)
		bench_die("not a number");
	return value;
}

struct sockaddr_in bench_address(const char *text, uint16_t port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};

	errno = 0;
	if (inet_pton(AF_INET, text, &address.sin_addr) != 1)
		bench_die("not an IPv4 address");
	return address;
}

int bench_socket(int type)
{
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0), size = BUFFER;

	if (fd < 0)
		bench_die("socket");
	if ((type & SOCK_DGRAM) == SOCK_DGRAM) {
		setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
		setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	}
	return fd;
}

void bench_reset(int fd)
{
	struct linger at_once = {.l_onoff = 1, .l_linger = 0};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(fd);
}

size_t bench_question(uint8_t *out, uint16_t id, uint32_t number)
{
	static const uint8_t header[HEADER] = {0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0};
	static const uint8_t tail[] = "\5bench\7example\0\0\1\0\1"; /* A, IN; the string's own NUL is not sent */
	uint8_t *at = out + HEADER;

	memcpy(out, header, HEADER);
	out[0] = (uint8_t)(id >> 8);
	out[1] = (uint8_t)id;
	*at++ = BENCH_NAME_DIGITS + 1;
	*at++ = 'n';
	for (int i = BENCH_NAME_DIGITS - 1; i >= 0; i--, number /= 10)
		at[i] = (uint8_t)('0' + number % 10);
	at += BENCH_NAME_DIGITS;
	memcpy(at, tail, sizeof(tail) - 1);
	return (size_t)(at - out) + sizeof(tail) - 1;
}

/* Return: octets of the name at `at`, 0 when it does not end. */
static size_t skip_name(const uint8_t *message, size_t length, size_t at)
{
	for (size_t start = at; at < length; at += message[at] + 1U) {
		if (message[at] >= 0xc0)
			return at + 2 - start;
		if (message[at] == 0)
			return at + 1 - start;
	}
	return 0;
}

int bench_answer_fits(const uint8_t *message, size_t length, uint32_t number)
{
	static const uint8_t type_a[4] = {0, 1, 0, 1}, four[2] = {0, 4};
	uint32_t address = htonl(BENCH_ADDRESS_FIRST + number);
	size_t at = HEADER, name;

	if (length < HEADER || (message[3] & 15) != 0 || (message[6] == 0 && message[7] == 0))
		return 0;
	name = skip_name(message, length, at);
	at += name + 4;
	if (name == 0 || at >= length)
		return 0;
	name = skip_name(message, length, at);
	at += name;
	if (name == 0 || at + RECORD + 4 > length)
		return 0;
	return memcmp(message + at, type_a, 4) == 0 && memcmp(message + at + 8, four, 2) == 0 &&
	       memcmp(message + at + RECORD, &address, 4) == 0;
}

void bench_note(struct bench_latencies *latencies, uint64_t ns)
{
	if (latencies->count == latencies->size) {
		latencies->size = latencies->size ? 2 * latencies->size : LATENCIES_MIN;
		latencies->values = realloc(latencies->values, latencies->size * sizeof(*latencies->values));
		if (!latencies->values)
			bench_die("latencies");
	}
	latencies->values[latencies->count++] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

static int compare(const void *one, const void *other)
{
	uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;

	return (a > b) - (a < b);
}

void bench_print(struct bench_latencies *latencies)
{
	size_t count = latencies->count;

	if (count == 0) {
		printf("\"p50_us\": null, \"p99_us\": null, \"max_us\": null");
		return;
	}
	qsort(latencies->values, count, sizeof(*latencies->values), compare);
	printf("\"p50_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f", latencies->values[count / 2] / 1e3,
	       latencies->values[count * 99 / 100] / 1e3, latencies->values[count - 1] / 1e3);
}
