/* SPDX-License-Identifier: MIT */
/*
 * The segments of a TCP stream, in an order that the input says. It begins with the stream's length and the stream; then come steps of four
 * octets: where in the stream (2), how much (its square root), whether a part of it is changed. A name that is read must be the stream's.
 */
#include <assert.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/verify/readings.h"

#define BASE        (UINT32_MAX - 700) /* numbers go round */
#define STEP_OCTETS 4
#define CHANGED     1

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct reading_origin origin = {.network = 1, .known = READING_FLOW_UNREAD};

struct script {
	const uint8_t *stream, *steps;
	size_t stream_size, steps_size;
};

static struct script read_script(const uint8_t *data, size_t size)
{
	struct script script = {.stream = data + 2, .stream_size = (size_t)(data[0] << 8 | data[1])};

	if (script.stream_size > size - 2)
		script.stream_size = size - 2;
	script.steps = script.stream + script.stream_size;
	script.steps_size = size - 2 - script.stream_size;
	return script;
}

static struct flow packet_at(size_t at, const uint8_t *content, size_t size)
{
	return (struct flow){.source = {.family = AF_INET, .bytes = {10, 201, 1, 5}},
			     .destination = {.family = AF_INET, .bytes = {203, 0, 113, 7}},
			     .protocol = IPPROTO_TCP,
			     .source_port = 40000,
			     .destination_port = 443,
			     .tcp_flags = TH_ACK,
			     .sequence = BASE + (uint32_t)at,
			     .content = content,
			     .content_size = size};
}

static void check(struct hello_reader *reader, const struct script *script, const struct reading *reading, bool changed)
{
	const struct domain *name;
	struct domain expected;
	enum inspect_result result = reading_result(reading, &name);
	size_t packets;
	uint32_t second;

	assert(result != INSPECT_MORE && reading_next(reading, &second) == BASE && second == BASE);
	(void)reading_packets(reading, &packets);
	assert(packets > 0 && packets <= READINGS_HELD_MAX);
	if (changed)
		return;
	/* Segments that do not differ are broken only as the stream is, or where it is longer than what is kept. */
	assert(result == INSPECT_BROKEN || inspect_stream(reader, script->stream, script->stream_size, &expected) == result);
	assert(result != INSPECT_NAME || domain_equal(name, &expected));
}

/* A segment as the steps say it. @changed: which octet of the stream is another; SIZE_MAX: none. Return: to be freed. */
static uint8_t *make_segment(const struct script *script, const uint8_t *step, struct flow *flow, size_t *changed)
{
	size_t offset = script->stream_size ? (size_t)(step[0] << 8 | step[1]) % script->stream_size : 0;
	size_t left = script->stream_size - offset, size = (size_t)(step[2] * step[2]) < left ? (size_t)(step[2] * step[2]) : left;
	uint8_t *copy = malloc(size ? size : 1);

	assert(copy);
	memcpy(copy, script->stream + offset, size);
	*changed = SIZE_MAX;
	if ((step[3] & CHANGED) && size > 0) {
		copy[size / 2] ^= step[3];
		*changed = offset + size / 2;
	}
	*flow = packet_at(offset, copy, size);
	return copy;
}

static void begin(struct readings *readings)
{
	struct flow answer = packet_at(0, NULL, 0);

	answer.tcp_flags = TH_SYN | TH_ACK;
	answer.acknowledged = BASE;
	assert(readings_answer(readings, &origin, &answer, 0) == READING_PASS);
}

/* After the verdict: nothing passes that would make it another stream. */
static void play_on(struct readings *readings, const struct script *script, size_t at, size_t said)
{
	for (; at + STEP_OCTETS <= script->steps_size; at += STEP_OCTETS) {
		struct reading *reading;
		struct flow flow;
		size_t changed;
		uint8_t *copy = make_segment(script, script->steps + at, &flow, &changed);
		enum reading_step step = readings_take(readings, &origin, &flow, &(struct reading_packet){.id = 1}, at, &reading);

		free(copy);
		assert(step == (changed < said ? READING_DONE : READING_PASS));
		if (step == READING_DONE)
			return;
	}
}

static void play(struct readings *readings, struct hello_reader *reader, const struct script *script)
{
	bool differs = false;

	begin(readings);
	for (size_t i = 0; i + STEP_OCTETS <= script->steps_size; i += STEP_OCTETS) {
		struct reading *reading;
		struct flow flow;
		size_t changed;
		uint32_t second;
		uint8_t *copy = make_segment(script, script->steps + i, &flow, &changed);
		enum reading_step step = readings_take(readings, &origin, &flow, &(struct reading_packet){.id = (uint32_t)i}, i, &reading);

		free(copy);
		differs = differs || changed != SIZE_MAX;
		assert((step == READING_PASS) == (flow.content_size == 0));
		if (step == READING_FULL)
			return;
		if (step != READING_DONE)
			continue;
		check(reader, script, reading, differs);
		readings_settle(readings, reading);
		(void)reading_next(reading, &second);
		if (!differs)
			play_on(readings, script, i + STEP_OCTETS, second - BASE);
		return;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct hello_reader *reader;
	struct readings *readings = readings_new();
	struct script script;

	if (!reader)
		reader = hello_reader_new();
	assert(readings);
	if (size >= 2) {
		script = read_script(data, size);
		play(readings, reader, &script);
	}
	readings_free(readings);
	return 0;
}
