/* SPDX-License-Identifier: MIT */
/*
 * Datagrams of a QUIC client. The first octet of the input says what the rest is: datagrams as they are, or the frames of packets, which
 * nobody would hit upon through the encryption. Frames that are sent in packets must be read as they are without.
 */
#include <assert.h>
#include <stdlib.h>

#include "gateway/verify/quic.c"

#include "gateway/verify/inspect.h"
#include "tests/unit/quic_packet.h"

#define FRAMES_MAX 2000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Return: the next part, in memory of its own so that reading beyond its end is noticed. */
static uint8_t *next_part(struct cursor *input, size_t *size)
{
	size_t room, wanted = (size_t)take8(input) << 8;
	const uint8_t *at;
	uint8_t *copy;

	wanted |= take8(input);
	room = (size_t)(input->end - input->at);
	*size = wanted < room ? wanted : room;
	at = take(input, *size);
	copy = malloc(*size ? *size : 1);
	assert(copy);
	if (at)
		memcpy(copy, at, *size);
	return copy;
}

static void check_quic(const struct quic *quic)
{
	assert(quic->id_size <= QUIC_ID_MAX && quic->hello.whole <= quic->hello.end && quic->hello.end <= ASSEMBLY_MAX);
}

static void read_datagrams(struct hello_reader *reader, struct cursor *input)
{
	struct quic quic = {.version = 0}, inspected = {.version = 0};

	while (input->at < input->end) {
		size_t size;
		uint8_t *datagram = next_part(input, &size);
		enum quic_result result = quic_read(&quic, datagram, size);
		struct domain name;

		check_quic(&quic);
		assert(result != QUIC_READ || quic.version);
		assert(inspect_datagram(reader, &inspected, datagram, size, &name) != INSPECT_NAME || result == QUIC_READ);
		free(datagram);
		if (result != QUIC_READ)
			break;
	}
	quic_free(&quic);
	quic_free(&inspected);
}

/* In a packet, and without. Return: could more follow? */
static bool read_both(struct quic *quic, struct assembly *plain, const uint8_t *frames, size_t size)
{
	static const uint8_t id[] = {1, 2, 3, 4, 5, 6, 7, 8};
	struct cursor cursor = {.at = frames, .end = frames + size};
	enum quic_result result = read_frames(&cursor, plain);
	uint8_t packet[FRAMES_MAX + 64];

	assert(quic_read(quic, packet, protect(packet, id, sizeof(id), frames, size)) == result);
	assert(quic->hello.whole == plain->whole && quic->hello.end == plain->end);
	assert(!plain->whole || memcmp(quic->hello.bytes, plain->bytes, plain->whole) == 0);
	check_quic(quic);
	return result == QUIC_READ;
}

static void read_packets(struct cursor *input)
{
	struct quic quic = {.version = 0};
	struct assembly plain = {.bytes = NULL};
	bool more = true;

	while (more && input->at < input->end) {
		size_t size;
		uint8_t *frames = next_part(input, &size);

		more = size <= FRAMES_MAX && read_both(&quic, &plain, frames, size);
		free(frames);
	}
	quic_free(&quic);
	assembly_free(&plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct hello_reader *reader;
	struct cursor input = {.at = data, .end = data + size};

	if (!reader)
		reader = hello_reader_new();
	if (take8(&input) & 1)
		read_packets(&input);
	else
		read_datagrams(reader, &input);
	return 0;
}
