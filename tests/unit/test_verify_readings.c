/* SPDX-License-Identifier: MIT */
/* Packets of clients in, names out, whatever order they come in. */
#include "gateway/verify/readings.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client_hello.h"

#define WEB 1

struct fixture {
	struct readings *readings;
	uint8_t hello[HELLO_MAX];
	size_t size;
	uint32_t id;
};

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	fixture->readings = readings_new();
	assert_non_null(fixture->readings);
	fixture->size = make_hello("api.vendor.example", fixture->hello);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	readings_free(fixture->readings);
	free(fixture);
	return 0;
}

static struct flow tcp(uint16_t port, uint32_t sequence, const uint8_t *content, size_t size)
{
	return (struct flow){.source = {.family = AF_INET, .bytes = {10, 201, 1, 5}},
			     .destination = {.family = AF_INET, .bytes = {203, 0, 113, 7}},
			     .protocol = IPPROTO_TCP,
			     .source_port = port,
			     .destination_port = 443,
			     .tcp_flags = TH_ACK,
			     .sequence = sequence,
			     .content = content,
			     .content_size = size};
}

static enum reading_step take_of(struct fixture *fixture, const struct reading_origin *origin, const struct flow *flow, uint64_t now,
				 struct reading **out)
{
	const struct reading_packet packet = {.id = ++fixture->id};

	return readings_take(fixture->readings, origin, flow, &packet, now, out);
}

static enum reading_step take_known(struct fixture *fixture, const struct flow *flow, enum reading_flow known, uint64_t now,
				    struct reading **out)
{
	return take_of(fixture, &(struct reading_origin){.network = WEB, .known = known}, flow, now, out);
}

static enum reading_step take(struct fixture *fixture, const struct flow *flow, uint64_t now, struct reading **out)
{
	return take_known(fixture, flow, READING_FLOW_UNREAD, now, out);
}

static enum reading_step answer_at(struct fixture *fixture, uint16_t port, uint8_t flags, uint32_t acknowledged, uint64_t now)
{
	struct flow flow = tcp(port, 77, NULL, 0);

	flow.tcp_flags = flags;
	flow.acknowledged = acknowledged;
	return readings_answer(fixture->readings, &(struct reading_origin){.network = WEB, .known = READING_FLOW_UNREAD}, &flow, now);
}

static enum reading_step answer(struct fixture *fixture, uint16_t port, uint8_t flags, uint32_t acknowledged)
{
	return answer_at(fixture, port, flags, acknowledged, 0);
}

static void send_syn(struct fixture *fixture, uint16_t port, uint32_t base)
{
	struct flow syn = tcp(port, base - 1, fixture->hello, 0);
	struct reading *reading;

	syn.tcp_flags = TH_SYN;
	assert_int_equal(take_known(fixture, &syn, READING_FLOW_NEW, 0, &reading), READING_PASS);
}

/* A flow whose client's first octet has this number. */
static void begin(struct fixture *fixture, uint16_t port, uint32_t base)
{
	send_syn(fixture, port, base);
	assert_int_equal(answer(fixture, port, TH_SYN | TH_ACK, base), READING_PASS);
	assert_int_equal(answer(fixture, port, TH_SYN | TH_ACK, base), READING_PASS); /* once more */
}

static void expect_name(const struct reading *reading, size_t packets)
{
	const struct domain *name;
	char text[DOMAIN_TEXT_MAX];
	size_t count;

	assert_int_equal(reading_result(reading, &name), INSPECT_NAME);
	assert_string_equal(domain_format(name, text), "api.vendor.example");
	(void)reading_packets(reading, &count);
	assert_int_equal(count, packets);
}

static void one_segment_is_enough(void **state)
{
	struct fixture *fixture = *state;
	struct flow ack = tcp(40000, 1000, fixture->hello, 0), data = tcp(40000, 1000, fixture->hello, fixture->size);
	struct reading *reading;
	uint32_t second;

	begin(fixture, 40000, 1000);
	assert_int_equal(take(fixture, &ack, 0, &reading), READING_PASS);
	assert_int_equal(take(fixture, &data, 1, &reading), READING_DONE);
	expect_name(reading, 1);
	assert_int_equal(reading_next(reading, &second), 1000);
	assert_int_equal(second, 1000);
	readings_end(fixture->readings, reading);
	assert_int_equal(readings_count(fixture->readings), 0);
}

/* In every order, and with numbers that go round. */
static void three_segments_in_any_order(void **state)
{
	static const size_t orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
	struct fixture *fixture = *state;
	size_t part = fixture->size / 3 + 1;

	for (size_t i = 0; i < 6; i++) {
		uint32_t base = (uint32_t)(0U - part / 2);
		struct reading *reading;

		begin(fixture, (uint16_t)i, base);
		for (size_t j = 0; j < 3; j++) {
			size_t at = orders[i][j] * part, length = fixture->size - at < part ? fixture->size - at : part;
			struct flow data = tcp((uint16_t)i, base + (uint32_t)at, fixture->hello + at, length);

			assert_int_equal(take(fixture, &data, 1, &reading), j < 2 ? READING_HOLD : READING_DONE);
		}
		expect_name(reading, 3);
		readings_end(fixture->readings, reading);
	}
}

/* Whatever the client says. */
static void the_server_says_where_a_stream_begins(void **state)
{
	struct fixture *fixture = *state;
	struct flow hello = tcp(40000, 6000, fixture->hello, fixture->size), syn = tcp(40000, 5999, fixture->hello, 0);
	const struct domain *name;
	struct reading *reading;

	assert_int_equal(take(fixture, &hello, 0, &reading), READING_DONE); /* nobody has said it */
	assert_int_equal(reading_result(reading, &name), INSPECT_BROKEN);
	readings_end(fixture->readings, reading);
	send_syn(fixture, 40000, 6000);
	assert_int_equal(take(fixture, &hello, 0, &reading), READING_DONE); /* the server has not */
	assert_int_equal(reading_result(reading, &name), INSPECT_BROKEN);
	readings_end(fixture->readings, reading);
	begin(fixture, 40000, 1000);
	syn.tcp_flags = TH_SYN;
	assert_int_equal(take(fixture, &syn, 0, &reading), READING_PASS);
	assert_int_equal(answer(fixture, 40000, TH_SYN | TH_ACK, 6000), READING_FULL); /* another number in the same flow */
	assert_int_equal(take(fixture, &hello, 0, &reading), READING_HOLD);            /* at its place in the stream, behind a gap */
	assert_int_equal(take_known(fixture, &syn, READING_FLOW_NEW, 0, &reading), READING_PASS); /* another flow of the same ports */
	assert_int_equal(answer(fixture, 40000, TH_SYN | TH_ACK, 6000), READING_PASS);
	assert_int_equal(take(fixture, &hello, 0, &reading), READING_DONE);
	expect_name(reading, 1);
	syn.content_size = 5; /* octets in SYN */
	assert_int_equal(take_known(fixture, &syn, READING_FLOW_NEW, 0, &reading), READING_FULL);
}

/* The program was started anew in between. */
static void an_answer_to_an_unknown_syn_is_enough(void **state)
{
	struct fixture *fixture = *state;
	struct flow hello = tcp(40000, 1000, fixture->hello, fixture->size);
	struct reading *reading;

	assert_int_equal(answer(fixture, 40000, TH_ACK, 1000), READING_PASS);
	assert_int_equal(readings_count(fixture->readings), 0);
	assert_int_equal(answer(fixture, 40000, TH_SYN | TH_ACK, 1000), READING_PASS);
	assert_int_equal(take(fixture, &hello, 0, &reading), READING_DONE);
	expect_name(reading, 1);
}

/* A translation may make the same of them. */
static void two_connections_that_look_alike_are_two(void **state)
{
	struct fixture *fixture = *state;
	const struct reading_origin other = {.network = WEB, .connection = 1, .known = READING_FLOW_UNREAD};
	struct flow hello = tcp(40000, 1000, fixture->hello, fixture->size);
	struct reading *reading;
	const struct domain *name;

	begin(fixture, 40000, 1000);
	assert_int_equal(take_of(fixture, &other, &hello, 0, &reading), READING_DONE);
	assert_int_equal(reading_result(reading, &name), INSPECT_BROKEN);
	assert_int_equal(take(fixture, &hello, 0, &reading), READING_DONE);
	expect_name(reading, 1);
}

/* What was read may have been lost on its way. */
static void until_the_server_has_it_a_name_must_not_change(void **state)
{
	struct fixture *fixture = *state;
	uint32_t base = 0U - 20, end = base + (uint32_t)fixture->size;
	uint8_t evil[HELLO_MAX];
	struct flow good = tcp(40000, base, fixture->hello, fixture->size), part = tcp(40000, base + 50, fixture->hello + 50, 20);
	struct flow bad = tcp(40000, base, evil, fixture->size), more = tcp(40000, end, evil, 10);
	struct reading *reading;
	const struct domain *name;
	uint32_t second;

	memcpy(evil, fixture->hello, fixture->size);
	evil[fixture->size - 1] ^= 1;
	begin(fixture, 40000, base);
	assert_int_equal(take(fixture, &good, 0, &reading), READING_DONE);
	assert_true(reading_has_to_agree(reading));
	readings_settle(fixture->readings, reading);
	assert_int_equal(take(fixture, &good, 0, &reading), READING_PASS);
	assert_int_equal(take(fixture, &part, 0, &reading), READING_PASS);
	assert_int_equal(take(fixture, &more, 0, &reading), READING_PASS);
	assert_int_equal(answer(fixture, 40000, TH_ACK, base), READING_PASS);
	assert_int_equal(answer(fixture, 40000, TH_ACK, end - 1), READING_PASS);
	assert_int_equal(answer(fixture, 40000, TH_RST, end), READING_PASS); /* its number means nothing */
	assert_int_equal(take(fixture, &bad, 0, &reading), READING_DONE);
	assert_int_equal(reading_result(reading, &name), INSPECT_BROKEN);
	assert_int_equal(reading_next(reading, &second), base);
	assert_int_equal(second, end);
	readings_settle(fixture->readings, reading); /* it was only said */
	part.tcp_flags |= TH_URG;
	assert_int_equal(take(fixture, &part, 0, &reading), READING_DONE);
	readings_settle(fixture->readings, reading);
	assert_int_equal(answer_at(fixture, 40000, TH_ACK, end, 5), READING_AGREED);
	assert_int_equal(take(fixture, &bad, 6, &reading), READING_PASS); /* it waited to be looked at */
	assert_null(readings_overdue(fixture->readings, READINGS_AGREED_MS + 4));
	assert_int_equal(readings_count(fixture->readings), 1);
	assert_null(readings_overdue(fixture->readings, READINGS_AGREED_MS + 5));
	assert_int_equal(readings_count(fixture->readings), 0);
}

static void octets_before_the_beginning_do_not_pass(void **state)
{
	struct fixture *fixture = *state;
	struct flow before = tcp(40000, 999, fixture->hello, 1), hello = tcp(40000, 1000, fixture->hello, fixture->size);
	struct reading *reading;

	begin(fixture, 40000, 1000);
	assert_int_equal(take(fixture, &before, 0, &reading), READING_FULL);
	assert_int_equal(take(fixture, &hello, 0, &reading), READING_DONE);
	expect_name(reading, 1);
	readings_settle(fixture->readings, reading);
	before.content_size = fixture->size;
	assert_int_equal(take(fixture, &before, 0, &reading), READING_FULL);
}

static void urgent_octets_are_broken(void **state)
{
	struct fixture *fixture = *state;
	struct flow hello = tcp(40000, 1000, fixture->hello, fixture->size);
	struct reading *reading;
	const struct domain *name;

	hello.tcp_flags |= TH_URG;
	begin(fixture, 40000, 1000);
	assert_int_equal(take(fixture, &hello, 0, &reading), READING_DONE);
	assert_int_equal(reading_result(reading, &name), INSPECT_BROKEN);
}

/* One packet may be as large as 64 KiB, and need not end with the request. */
static void only_the_beginning_is_kept(void **state)
{
	static const char request[] = "POST / HTTP/1.1\r\nHost: api.vendor.example\r\nContent-Length: 60000\r\n\r\n";
	struct fixture *fixture = *state;
	uint8_t *large = calloc(1, 60000);
	struct flow post = tcp(40000, 1000, large, 60000), rest = tcp(40000, 61000, large, 60000);
	struct reading *reading;

	assert_non_null(large);
	memcpy(large, request, sizeof(request) - 1);
	begin(fixture, 40000, 1000);
	assert_int_equal(take(fixture, &rest, 0, &reading), READING_HOLD);
	assert_int_equal(take(fixture, &post, 0, &reading), READING_DONE);
	expect_name(reading, 2);
	readings_settle(fixture->readings, reading);
	assert_int_equal(take(fixture, &rest, 0, &reading), READING_PASS);
	free(large);
}

static void who_leaves_without_a_word_is_forgotten(void **state)
{
	static const uint8_t ends[] = {TH_FIN | TH_ACK, TH_RST};
	struct fixture *fixture = *state;
	struct reading *reading;

	for (size_t i = 0; i < sizeof(ends); i++) {
		struct flow end = tcp(40000, 1000, fixture->hello, 0);

		begin(fixture, 40000, 1000);
		end.tcp_flags = ends[i];
		assert_int_equal(take(fixture, &end, 0, &reading), READING_PASS);
		assert_int_equal(readings_count(fixture->readings), 0);
	}
}

static void overlapping_segments_that_differ_are_broken(void **state)
{
	struct fixture *fixture = *state;
	struct flow first = tcp(40000, 1000, fixture->hello, 100), second = tcp(40000, 1050, NULL, 100);
	uint8_t other[100];
	const struct domain *name;
	struct reading *reading;

	memcpy(other, fixture->hello + 50, sizeof(other));
	other[20] ^= 1;
	second.content = other;
	begin(fixture, 40000, 1000);
	assert_int_equal(take(fixture, &first, 0, &reading), READING_HOLD);
	assert_int_equal(take(fixture, &second, 0, &reading), READING_DONE);
	assert_int_equal(reading_result(reading, &name), INSPECT_BROKEN);
	readings_end(fixture->readings, reading);
}

/* Sent again while it waits: the same octets. */
static void a_retransmission_changes_nothing(void **state)
{
	struct fixture *fixture = *state;
	struct flow first = tcp(40000, 1000, fixture->hello, 100);
	struct flow rest = tcp(40000, 1100, fixture->hello + 100, fixture->size - 100);
	struct reading *reading;

	begin(fixture, 40000, 1000);
	assert_int_equal(take(fixture, &first, 0, &reading), READING_HOLD);
	assert_int_equal(take(fixture, &first, 0, &reading), READING_HOLD);
	assert_int_equal(take(fixture, &rest, 0, &reading), READING_DONE);
	expect_name(reading, 3);
	readings_end(fixture->readings, reading);
}

static void too_many_segments_of_a_flow_are_dropped(void **state)
{
	struct fixture *fixture = *state;
	struct reading *reading;

	begin(fixture, 40000, 1000);
	for (uint32_t i = 0; i < READINGS_HELD_MAX; i++) {
		struct flow one = tcp(40000, 1000 + i, fixture->hello + i, 1);

		assert_int_equal(take(fixture, &one, 0, &reading), READING_HOLD);
	}
	assert_int_equal(take(fixture, &(struct flow){.protocol = IPPROTO_UDP}, 0, &reading), READING_PASS);
	{
		struct flow one = tcp(40000, 1000 + READINGS_HELD_MAX, fixture->hello + READINGS_HELD_MAX, 1);

		assert_int_equal(take(fixture, &one, 0, &reading), READING_FULL);
	}
	assert_null(readings_overdue(fixture->readings, READINGS_MS - 1));
	assert_non_null(readings_overdue(fixture->readings, READINGS_MS));
}

/* What no server has answered goes first, and nothing that holds packets. */
static void flows_are_bounded(void **state)
{
	struct fixture *fixture = *state;
	struct flow holds = tcp(1, 1000, fixture->hello, 100);
	struct reading *reading, *held;

	begin(fixture, 1, 1000);
	assert_int_equal(take(fixture, &holds, 0, &held), READING_HOLD);
	for (uint32_t i = 0; i < 4 * READINGS_MAX; i++) {
		struct flow syn = tcp((uint16_t)(i + 2), i, fixture->hello, 0);

		syn.tcp_flags = TH_SYN;
		if (syn.source_port != 1)
			assert_int_equal(take_known(fixture, &syn, READING_FLOW_NEW, 0, &reading), READING_PASS);
	}
	assert_int_equal(readings_count(fixture->readings), READINGS_MAX / 2);
	holds = tcp(1, 1100, fixture->hello + 100, fixture->size - 100);
	assert_int_equal(take(fixture, &holds, 0, &reading), READING_DONE);
	assert_ptr_equal(reading, held);
	expect_name(reading, 2);
	readings_end(fixture->readings, reading);
}

/* A server with cookies could have forgotten what it said. */
static void what_was_answered_stays_for_a_while(void **state)
{
	struct fixture *fixture = *state;
	struct flow syn = tcp(60000, 1, fixture->hello, 0);
	struct reading *reading;

	for (uint32_t i = 0; i < READINGS_MAX / 2; i++)
		begin(fixture, (uint16_t)i, 1000);
	syn.tcp_flags = TH_SYN;
	assert_int_equal(take_known(fixture, &syn, READING_FLOW_NEW, 299999, &reading), READING_FULL);
	assert_int_equal(take_known(fixture, &syn, READING_FLOW_NEW, 300000, &reading), READING_PASS);
}

/* However many there are at once. */
static void datagrams_that_were_decided_make_room(void **state)
{
	struct fixture *fixture = *state;
	struct reading *reading;

	for (uint32_t i = 0; i < 2 * READINGS_MAX; i++) {
		struct flow dns = tcp((uint16_t)i, 0, (const uint8_t *)"\x12\x34\x01\x00\x00\x01", 6);

		dns.protocol = IPPROTO_UDP;
		assert_int_equal(take(fixture, &dns, 0, &reading), READING_DONE);
		readings_refuse(fixture->readings, reading, 0);
	}
	assert_int_equal(readings_count(fixture->readings), READINGS_MAX / 2);
}

/* Also in the place of others' flows. */
static void a_network_with_few_flows_has_room(void **state)
{
	struct fixture *fixture = *state;
	struct reading_origin origin = {.known = READING_FLOW_NEW};
	struct reading *reading;

	for (uint16_t network = 1; network <= 3; network++) {
		for (uint32_t i = 0; i < READINGS_MAX / 2; i++) {
			struct flow syn = tcp((uint16_t)i, 999, fixture->hello, 0);

			origin.network = network;
			syn.tcp_flags = TH_SYN;
			if (network < 3 || i < READINGS_MAX / 16)
				assert_int_equal(take_of(fixture, &origin, &syn, 0, &reading), READING_PASS);
			if (network == 3)
				continue;
			syn.tcp_flags = TH_SYN | TH_ACK;
			syn.acknowledged = 1000;
			assert_int_equal(readings_answer(fixture->readings, &origin, &syn, 0), READING_PASS);
		}
	}
	assert_int_equal(readings_count(fixture->readings), READINGS_MAX);
}

static void what_is_held_is_bounded(void **state)
{
	struct fixture *fixture = *state;
	struct reading *reading;
	struct flow one;

	for (uint32_t i = 0; i < READINGS_HELD_ALL_MAX / 2; i++) {
		begin(fixture, (uint16_t)i, 1000);
		one = tcp((uint16_t)i, 1000, fixture->hello, 100);
		assert_int_equal(take(fixture, &one, 0, &reading), READING_HOLD);
	}
	begin(fixture, 60000, 1000);
	one = tcp(60000, 1000, fixture->hello, 100);
	assert_int_equal(take(fixture, &one, 0, &reading), READING_FULL);
	/* Another network has room. */
	one.protocol = IPPROTO_UDP;
	assert_int_equal(take_of(fixture, &(struct reading_origin){.network = WEB + 1, .known = READING_FLOW_NEW}, &one, 0, &reading),
			 READING_DONE);
}

static void what_is_kept_is_bounded(void **state)
{
	struct fixture *fixture = *state;
	static const char request[] = "GET / HTTP/1.1\r\nHost: api.vendor.example\r\nX: ";
	static uint8_t large[16000];
	struct reading *reading;
	size_t kept = 0;

	memset(large, 'x', sizeof(large));
	memcpy(large, request, sizeof(request) - 1);
	memcpy(large + sizeof(large) - 4, "\r\n\r\n", 4);
	for (uint32_t i = 0; i < READINGS_MAX / 2; i++) {
		struct flow one = tcp((uint16_t)i, 1000, large, sizeof(large));

		begin(fixture, (uint16_t)i, 1000);
		if (take(fixture, &one, 0, &reading) == READING_FULL)
			break;
		readings_settle(fixture->readings, reading); /* and no server ever has it */
		kept++;
	}
	assert_int_equal(kept, READINGS_OCTETS_MAX / 2 / 16384);
}

static void datagrams_of_other_protocols_are_done_at_once(void **state)
{
	struct fixture *fixture = *state;
	struct flow dns = tcp(40000, 0, (const uint8_t *)"\x12\x34\x01\x00\x00\x01", 6);
	const struct domain *name;
	const struct reading_packet *packets;
	struct reading *reading;
	size_t count;

	dns.protocol = IPPROTO_UDP;
	assert_int_equal(take(fixture, &dns, 0, &reading), READING_DONE);
	assert_int_equal(reading_result(reading, &name), INSPECT_OTHER);
	packets = reading_packets(reading, &count);
	assert_int_equal(count, 1);
	assert_memory_equal(packets[0].content, "\x12\x34\x01\x00\x00\x01", 6);
	readings_end(fixture->readings, reading);
}

/* The same datagrams once more, after the verdict. */
static void what_was_decided_is_known_for_a_while(void **state)
{
	struct fixture *fixture = *state;
	struct flow dns = tcp(40000, 0, (const uint8_t *)"\x12\x34\x01\x00\x00\x01", 6);
	struct reading *reading;

	dns.protocol = IPPROTO_UDP;
	assert_int_equal(take(fixture, &dns, 0, &reading), READING_DONE);
	readings_refuse(fixture->readings, reading, 0);
	assert_int_equal(take(fixture, &dns, READINGS_REFUSED_MS - 1, &reading), READING_REFUSED);
	assert_int_equal(take(fixture, &dns, READINGS_REFUSED_MS, &reading), READING_DONE);
	readings_settle(fixture->readings, reading);
	assert_int_equal(take(fixture, &dns, READINGS_REFUSED_MS, &reading), READING_DONE);
	readings_end(fixture->readings, reading);
}

int main(void)
{
#define READINGS_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		READINGS_TEST(one_segment_is_enough),
		READINGS_TEST(three_segments_in_any_order),
		READINGS_TEST(the_server_says_where_a_stream_begins),
		READINGS_TEST(an_answer_to_an_unknown_syn_is_enough),
		READINGS_TEST(two_connections_that_look_alike_are_two),
		READINGS_TEST(until_the_server_has_it_a_name_must_not_change),
		READINGS_TEST(octets_before_the_beginning_do_not_pass),
		READINGS_TEST(urgent_octets_are_broken),
		READINGS_TEST(only_the_beginning_is_kept),
		READINGS_TEST(who_leaves_without_a_word_is_forgotten),
		READINGS_TEST(overlapping_segments_that_differ_are_broken),
		READINGS_TEST(a_retransmission_changes_nothing),
		READINGS_TEST(too_many_segments_of_a_flow_are_dropped),
		READINGS_TEST(flows_are_bounded),
		READINGS_TEST(what_was_answered_stays_for_a_while),
		READINGS_TEST(datagrams_that_were_decided_make_room),
		READINGS_TEST(a_network_with_few_flows_has_room),
		READINGS_TEST(what_is_held_is_bounded),
		READINGS_TEST(what_is_kept_is_bounded),
		READINGS_TEST(what_was_decided_is_known_for_a_while),
		READINGS_TEST(datagrams_of_other_protocols_are_done_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
