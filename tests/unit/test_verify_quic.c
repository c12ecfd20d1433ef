/* SPDX-License-Identifier: MIT */
/* The vectors of RFC 9001 and RFC 9369, appendix A; packets of our own; and what is wrong with packets. */
#include "gateway/verify/quic.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "gateway/verify/hello.h"
#include "quic_packet.h"

#define PACKET_MAX 2048

static size_t read_vector(const char *name, uint8_t *out)
{
	char path[512];
	unsigned int octet;
	size_t size = 0;
	FILE *file;

	snprintf(path, sizeof(path), TEST_DATA "/%s", name);
	file = fopen(path, "r");
	assert_non_null(file);
	while (fscanf(file, "%2x", &octet) == 1)
		out[size++] = (uint8_t)octet;
	fclose(file);
	return size;
}

static enum hello_result name_of(const struct quic *quic, char text[static DOMAIN_TEXT_MAX])
{
	struct hello_reader *reader = hello_reader_new();
	struct domain name;
	enum hello_result result;

	assert_non_null(reader);
	result = hello_read_message(reader, quic->hello.bytes, quic->hello.whole, &name);
	if (result == HELLO_NAME)
		domain_format(&name, text);
	hello_reader_free(reader);
	return result;
}

static void the_examples_of_the_rfcs(void **state)
{
	static const char *const names[] = {"quic-v1-initial.hex", "quic-v2-initial.hex"};
	uint8_t packet[PACKET_MAX];
	char text[DOMAIN_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct quic quic = {.version = 0};
		size_t size = read_vector(names[i], packet);

		assert_int_equal(size, 1200);
		assert_true(quic_is_initial(packet, size));
		assert_int_equal(quic_read(&quic, packet, size), QUIC_READ);
		assert_int_equal(quic.hello.whole, 241);
		assert_int_equal(name_of(&quic, text), HELLO_NAME);
		assert_string_equal(text, "example.com");
		assert_int_equal(quic_read(&quic, packet, size), QUIC_READ); /* sent once more */
		quic_free(&quic);
	}
}

static void the_keys_of_the_rfc(void **state)
{
	static const uint8_t id[] = {0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08};
	static const uint8_t hp[] = {0x9f, 0x50, 0x44, 0x9e, 0x04, 0xa0, 0xe8, 0x10, 0x28, 0x3a, 0x1e, 0x99, 0x33, 0xad, 0xed, 0xd2};
	struct keys keys;

	(void)state;
	assert_true(make_keys(&versions[0], id, sizeof(id), &keys));
	assert_memory_equal(keys.hp, hp, sizeof(hp));
}

static void a_changed_or_cut_packet_is_refused(void **state)
{
	uint8_t packet[PACKET_MAX];
	size_t size = read_vector("quic-v1-initial.hex", packet);

	(void)state;
	for (size_t i = 0; i < size; i++) {
		struct quic quic = {.version = 0};
		enum quic_result result;

		packet[i] ^= 0x01;
		result = quic_read(&quic, packet, size);
		assert_true(result == QUIC_NOT || (result == QUIC_VERSION && i >= 1 && i <= 4));
		assert_int_equal(quic.hello.whole, 0);
		packet[i] ^= 0x01;
		quic_free(&quic);
	}
	for (size_t cut = 0; cut < size; cut++) {
		struct quic quic = {.version = 0};
		uint8_t *copy = malloc(cut + 1); /* so that reading beyond its end is noticed */

		memcpy(copy, packet, cut);
		assert_int_not_equal(quic_read(&quic, copy, cut), QUIC_READ);
		free(copy);
		quic_free(&quic);
	}
}

/* The hello of the RFC, to be sent otherwise. */
static size_t read_hello(uint8_t *out)
{
	uint8_t packet[PACKET_MAX];
	struct quic quic = {.version = 0};
	size_t size = read_vector("quic-v1-initial.hex", packet);

	assert_int_equal(quic_read(&quic, packet, size), QUIC_READ);
	size = quic.hello.whole;
	memcpy(out, quic.hello.bytes, size);
	quic_free(&quic);
	return size;
}

/* As Chrome does it: parts of the hello in any order, with PING and padding between them, in two datagrams. */
static void a_scrambled_hello_is_put_together(void **state)
{
	static const uint8_t id[] = {1, 2, 3, 4, 5, 6, 7, 8};
	static const size_t order[] = {5, 2, 7, 0, 4, 1, 6, 3};
	uint8_t hello[512], frames[1024], packet[PACKET_MAX];
	char text[DOMAIN_TEXT_MAX];
	struct quic quic = {.version = 0};
	size_t size = read_hello(hello), part = size / 8 + 1;

	(void)state;
	for (size_t datagram = 0; datagram < 2; datagram++) {
		size_t used = 0;

		for (size_t i = 4 * datagram; i < 4 * datagram + 4; i++) {
			size_t offset = order[i] * part, length = size - offset < part ? size - offset : part;

			used += crypto_frame(frames + used, offset, hello + offset, length);
			frames[used++] = FRAME_PING;
			memset(frames + used, FRAME_PADDING, 7);
			used += 7;
		}
		assert_int_equal(quic_read(&quic, packet, protect(packet, id, sizeof(id), frames, used)), QUIC_READ);
		if (datagram == 0)
			assert_int_equal(name_of(&quic, text), HELLO_MORE);
	}
	assert_int_equal(quic.hello.whole, size);
	assert_int_equal(name_of(&quic, text), HELLO_NAME);
	assert_string_equal(text, "example.com");
	quic_free(&quic);
}

static void two_versions_of_the_same_octets_are_a_conflict(void **state)
{
	static const uint8_t id[] = {1, 2, 3, 4, 5, 6, 7, 8};
	uint8_t hello[512], frames[1024], packet[PACKET_MAX];
	struct quic quic = {.version = 0};
	size_t size = read_hello(hello);

	(void)state;
	assert_int_equal(quic_read(&quic, packet, protect(packet, id, sizeof(id), frames, crypto_frame(frames, 0, hello, size))),
			 QUIC_READ);
	hello[60] ^= 1;
	assert_int_equal(quic_read(&quic, packet, protect(packet, id, sizeof(id), frames, crypto_frame(frames, 0, hello, size))),
			 QUIC_CONFLICT);
	quic_free(&quic);
}

static void frames_that_do_not_belong_there_are_refused(void **state)
{
	static const uint8_t id[] = {1, 2, 3, 4, 5, 6, 7, 8};
	static const struct {
		uint8_t frames[24];
		enum quic_result result;
	} cases[] = {
		{{FRAME_ACK, 0, 0, 0, 0}, QUIC_READ},
		{{FRAME_ACK, 0, 0, 2, 0, 0, 0, 0, 0}, QUIC_READ},
		{{FRAME_ACK_ECN, 0, 0, 0, 0, 1, 2, 3}, QUIC_READ},
		{{FRAME_ACK, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, QUIC_NOT}, /* more ranges than there are octets */
		{{FRAME_CRYPTO, 0, 0x40, 200}, QUIC_NOT},                                      /* longer than the packet */
		{{FRAME_CRYPTO, 0xc0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 0}, QUIC_CONFLICT},        /* far away */
		{{FRAME_CLOSE, 0, 0, 0}, QUIC_NOT},
		{{0x08, 0, 0}, QUIC_NOT}, /* STREAM */
		{{0x1e}, QUIC_NOT},       /* HANDSHAKE_DONE */
	};
	uint8_t packet[PACKET_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct quic quic = {.version = 0};

		assert_int_equal(quic_read(&quic, packet, protect(packet, id, sizeof(id), cases[i].frames, sizeof(cases[i].frames))),
				 cases[i].result);
		quic_free(&quic);
	}
}

/* The keys of another connection ID are not the ones that the hello was begun with. */
static void another_connection_is_refused(void **state)
{
	static const uint8_t id[] = {1, 2, 3, 4, 5, 6, 7, 8}, other[] = {1, 2, 3, 4, 5, 6, 7, 9};
	static const uint8_t frames[64] = {FRAME_PING};
	uint8_t packet[PACKET_MAX];
	struct quic quic = {.version = 0};

	(void)state;
	assert_int_equal(quic_read(&quic, packet, protect(packet, id, sizeof(id), frames, sizeof(frames))), QUIC_READ);
	assert_int_equal(quic_read(&quic, packet, protect(packet, other, sizeof(other), frames, sizeof(frames))), QUIC_NOT);
	quic_free(&quic);
}

/* Two Initial packets and a short one in one datagram. */
static void coalesced_packets_are_read(void **state)
{
	static const uint8_t id[] = {1, 2, 3, 4, 5, 6, 7, 8};
	uint8_t hello[512], frames[1024], packet[2 * PACKET_MAX];
	struct quic quic = {.version = 0};
	size_t size = read_hello(hello), used;

	(void)state;
	used = protect(packet, id, sizeof(id), frames, crypto_frame(frames, 0, hello, 100));
	used += protect(packet + used, id, sizeof(id), frames, crypto_frame(frames, 100, hello + 100, size - 100));
	memset(packet + used, 0x40, 50);
	assert_int_equal(quic_read(&quic, packet, used + 50), QUIC_READ);
	assert_int_equal(quic.hello.whole, size);
	quic_free(&quic);
}

/* As what the kernel carries as one packet, and what a server might take one by one. */
static void what_hides_behind_another_packet(void **state)
{
	static const uint8_t id[] = {1, 2, 3, 4, 5, 6, 7, 8}, other[] = {1, 2, 3, 4, 5, 6, 7, 9};
	static const uint8_t frames[64] = {FRAME_PING};
	uint8_t packet[PACKET_MAX];
	size_t size = protect(packet, id, sizeof(id), frames, sizeof(frames)), both;
	struct quic quic = {.version = 0};

	(void)state;
	assert_true(quic_may_begin(packet, size) && quic_is_all(packet, size));
	memset(packet + size, 0, 10);
	assert_true(quic_is_all(packet, size + 10));
	both = size + 10 + protect(packet + size + 10, other, sizeof(other), frames, sizeof(frames));
	assert_true(quic_is_all(packet, both));
	assert_int_equal(quic_read(&quic, packet, both), QUIC_NOT); /* another connection */
	quic_free(&quic);
	packet[size - 1] ^= 1; /* the first cannot be read */
	assert_false(quic_may_begin(packet, size));
	both = size + protect(packet + size, other, sizeof(other), frames, sizeof(frames));
	assert_true(quic_may_begin(packet, both));
	packet[size] = 0x40; /* a short header */
	assert_false(quic_may_begin(packet, both));
	assert_false(quic_is_all(packet, both));
}

static void what_is_no_quic_is_told_apart(void **state)
{
	static const uint8_t dns[] = {0x12, 0x34, 0x01, 0x00, 0x00, 0x01}, negotiation[] = {0xc0, 0, 0, 0, 0, 8},
			     grease[] = {0xca, 0x1a, 0x2a, 0x3a, 0x4a, 0, 0}, stun[] = {0x00, 0x01, 0x00, 0x00, 0x21, 0x12};
	struct quic quic = {.version = 0};

	(void)state;
	assert_false(quic_is_initial(dns, sizeof(dns)));
	assert_false(quic_is_initial(stun, sizeof(stun)));
	assert_false(quic_is_initial(negotiation, sizeof(negotiation)));
	assert_true(quic_is_initial(grease, sizeof(grease)));
	assert_int_equal(quic_read(&quic, grease, sizeof(grease)), QUIC_VERSION);
	assert_int_equal(quic_read(&quic, dns, sizeof(dns)), QUIC_NOT);
	assert_int_equal(quic_read(&quic, NULL, 0), QUIC_NOT);
	quic_free(&quic);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_examples_of_the_rfcs),
		cmocka_unit_test(the_keys_of_the_rfc),
		cmocka_unit_test(a_changed_or_cut_packet_is_refused),
		cmocka_unit_test(a_scrambled_hello_is_put_together),
		cmocka_unit_test(two_versions_of_the_same_octets_are_a_conflict),
		cmocka_unit_test(frames_that_do_not_belong_there_are_refused),
		cmocka_unit_test(another_connection_is_refused),
		cmocka_unit_test(coalesced_packets_are_read),
		cmocka_unit_test(what_hides_behind_another_packet),
		cmocka_unit_test(what_is_no_quic_is_told_apart),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
