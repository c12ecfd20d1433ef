/* SPDX-License-Identifier: MIT */
/* What conntrack tells of a flow, byte by byte. */
#include "gateway/flows.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

#define ROOM 1024

struct entry {
	char bytes[ROOM] __attribute__((aligned(8)));
	struct nlmsghdr *message;
};

static void put_tuple(struct entry *entry, uint16_t type, const char *source, const char *destination, uint16_t from, uint16_t to)
{
	struct nlattr *tuple = mnl_attr_nest_start(entry->message, type), *part = mnl_attr_nest_start(entry->message, CTA_TUPLE_IP);
	bool is_ipv6 = strchr(source, ':') != NULL;
	struct address first, second;

	assert_true(address_parse(source, &first) && address_parse(destination, &second));
	mnl_attr_put(entry->message, is_ipv6 ? CTA_IP_V6_SRC : CTA_IP_V4_SRC, is_ipv6 ? 16 : 4, first.bytes);
	mnl_attr_put(entry->message, is_ipv6 ? CTA_IP_V6_DST : CTA_IP_V4_DST, is_ipv6 ? 16 : 4, second.bytes);
	mnl_attr_nest_end(entry->message, part);
	part = mnl_attr_nest_start(entry->message, CTA_TUPLE_PROTO);
	mnl_attr_put_u8(entry->message, CTA_PROTO_NUM, IPPROTO_TCP);
	mnl_attr_put_u16(entry->message, CTA_PROTO_SRC_PORT, htons(from));
	mnl_attr_put_u16(entry->message, CTA_PROTO_DST_PORT, htons(to));
	mnl_attr_nest_end(entry->message, part);
	mnl_attr_nest_end(entry->message, tuple);
}

static void put_counters(struct entry *entry, uint16_t type, uint64_t packets, uint64_t bytes)
{
	struct nlattr *nest = mnl_attr_nest_start(entry->message, type);

	mnl_attr_put_u64(entry->message, CTA_COUNTERS_PACKETS, htobe64(packets));
	mnl_attr_put_u64(entry->message, CTA_COUNTERS_BYTES, htobe64(bytes));
	mnl_attr_nest_end(entry->message, nest);
}

static void put_state(struct entry *entry, uint8_t state)
{
	struct nlattr *nest = mnl_attr_nest_start(entry->message, CTA_PROTOINFO);
	struct nlattr *tcp = mnl_attr_nest_start(entry->message, CTA_PROTOINFO_TCP);

	mnl_attr_put_u8(entry->message, CTA_PROTOINFO_TCP_STATE, state);
	mnl_attr_nest_end(entry->message, tcp);
	mnl_attr_nest_end(entry->message, nest);
}

static void begin(struct entry *entry)
{
	memset(entry, 0, sizeof(*entry));
	entry->message = mnl_nlmsg_put_header(entry->bytes);
}

static bool parse(const struct entry *entry, struct tracked_flow *out)
{
	return flows_parse(mnl_nlmsg_get_payload(entry->message), mnl_nlmsg_get_payload_len(entry->message), out);
}

static void expect_address(const struct address *address, const char *text)
{
	char found[ADDRESS_TEXT_MAX];

	assert_string_equal(address_format(address, found), text);
}

static void everything_is_read(void **state)
{
	struct tracked_flow flow;
	struct entry entry;

	(void)state;
	begin(&entry);
	put_tuple(&entry, CTA_TUPLE_ORIG, "10.201.1.5", "198.18.0.7", 40000, 443);
	put_tuple(&entry, CTA_TUPLE_REPLY, "203.0.113.9", "192.0.2.1", 8443, 50000);
	mnl_attr_put_u32(entry.message, CTA_MARK, htonl(0x5c10001));
	mnl_attr_put_u32(entry.message, CTA_ID, htonl(77));
	mnl_attr_put_u32(entry.message, CTA_TIMEOUT, htonl(9));
	put_counters(&entry, CTA_COUNTERS_ORIG, 5, 6000000000);
	put_counters(&entry, CTA_COUNTERS_REPLY, 7, 800);
	put_state(&entry, TCP_CONNTRACK_CLOSE);
	assert_true(parse(&entry, &flow));
	expect_address(&flow.flow.source, "10.201.1.5");
	expect_address(&flow.flow.destination, "198.18.0.7");
	expect_address(&flow.target, "203.0.113.9");
	assert_int_equal(flow.flow.source_port, 40000);
	assert_int_equal(flow.flow.destination_port, 443);
	assert_int_equal(flow.target_port, 8443);
	assert_int_equal(flow.mark, 0x5c10001);
	assert_int_equal(flow.id, 77);
	assert_int_equal(flow.remaining, 9);
	assert_int_equal(flow.traffic.packets_out, 5);
	assert_int_equal(flow.traffic.bytes_out, 6000000000);
	assert_int_equal(flow.traffic.packets_in, 7);
	assert_int_equal(flow.traffic.bytes_in, 800);
	assert_int_equal(flow.timeout, FLOW_TIMEOUT_CLOSE);
	assert_true(flow.over && flow.translated);
}

static void what_is_not_there_is_zero(void **state)
{
	struct tracked_flow flow;
	struct entry entry;

	(void)state;
	begin(&entry);
	put_tuple(&entry, CTA_TUPLE_ORIG, "fd00::5", "2001:db8::7", 40000, 443);
	put_tuple(&entry, CTA_TUPLE_REPLY, "2001:db8::7", "fd00::5", 443, 40000);
	assert_true(parse(&entry, &flow));
	expect_address(&flow.flow.destination, "2001:db8::7");
	assert_int_equal(flow.mark, 0);
	assert_int_equal(flow.traffic.bytes_out, 0);
	assert_int_equal(flow.timeout, FLOW_TIMEOUT_OTHER);
	assert_false(flow.over || flow.translated);
}

/* Nothing is read beyond its end; what is no flow is said to be none. */
static void what_is_cut_off_is_no_flow(void **state)
{
	struct tracked_flow flow;
	struct entry entry;

	(void)state;
	begin(&entry);
	put_tuple(&entry, CTA_TUPLE_ORIG, "10.201.1.5", "203.0.113.9", 40000, 443);
	for (size_t size = 0; size < mnl_nlmsg_get_payload_len(entry.message); size++)
		assert_false(flows_parse(mnl_nlmsg_get_payload(entry.message), size, &flow));
	begin(&entry);
	mnl_attr_put_u32(entry.message, CTA_TUPLE_ORIG, 0);
	mnl_attr_put_u16(entry.message, CTA_MARK, htons(7));
	assert_false(parse(&entry, &flow));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_is_read),
		cmocka_unit_test(what_is_not_there_is_zero),
		cmocka_unit_test(what_is_cut_off_is_no_flow),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
