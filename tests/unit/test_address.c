/* SPDX-License-Identifier: MIT */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/address.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct address address(const char *text)
{
	struct address out;

	if (!address_parse(text, &out))
		fail_msg("%s is no address", text);
	return out;
}

static struct prefix prefix(const char *text)
{
	struct prefix out;

	if (!prefix_parse(text, &out, NULL))
		fail_msg("%s is no prefix", text);
	return out;
}

static struct address_range range(const char *first, const char *last)
{
	return (struct address_range){address(first), address(last)};
}

static void assert_address(const struct address *actual, const char *expected)
{
	char text[ADDRESS_TEXT_MAX];

	assert_string_equal(address_format(actual, text), expected);
}

static void parses_and_formats_addresses(void **state)
{
	static const struct {
		const char *text, *canonical;
	} good[] = {
		{"10.0.0.5", "10.0.0.5"},
		{"255.255.255.255", "255.255.255.255"},
		{"2001:DB8:0:0:0:0:0:5", "2001:db8::5"},
		{"::", "::"},
		{"::1", "::1"},
		{"2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"},
		{"2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"},
		{"::ffff:1.2.3.4", "::ffff:1.2.3.4"},
	};
	static const char *const bad[] = {"",         "1.2.3",        "1.2.3.4.5", "01.2.3.4", "1.2.3.256", "0x7f.1",  " 1.2.3.4",
					  "1.2.3.4 ", "fe80::1%eth0", "[::1]",     ":::",      "1::2::3",   "12345::", "name"};
	struct address none = {0}, out;

	(void)state;
	for (size_t i = 0; i < COUNT(good); i++) {
		out = address(good[i].text);
		assert_address(&out, good[i].canonical);
	}
	for (size_t i = 0; i < COUNT(bad); i++) {
		if (address_parse(bad[i], &out))
			fail_msg("\"%s\" was accepted", bad[i]);
		assert_true(address_equal(&out, &none));
	}
	assert_address(&none, "none");
}

static void parses_and_formats_prefixes(void **state)
{
	static const struct {
		const char *text, *canonical;
		bool host_bits;
	} good[] = {
		{"0.0.0.0/0", "0.0.0.0/0", false},
		{"10.0.0.5", "10.0.0.5", false},
		{"10.0.0.5/32", "10.0.0.5", false},
		{"10.0.0.5/24", "10.0.0.0/24", true},
		{"10.0.0.128/25", "10.0.0.128/25", false},
		{"10.0.0.129/25", "10.0.0.128/25", true},
		{"128.0.0.0/1", "128.0.0.0/1", false},
		{"255.255.255.255/0", "0.0.0.0/0", true},
		{"::/0", "::/0", false},
		{"2001:db8::/32", "2001:db8::/32", false},
		{"2001:db8::1/128", "2001:db8::1", false},
		{"2001:db8::1/127", "2001:db8::/127", true},
		{"10.0.0.0/31", "10.0.0.0/31", false},
	};
	static const char *const bad[] = {"10.0.0.0/33",
					  "10.0.0.0/",
					  "10.0.0.0/08",
					  "10.0.0.0/-1",
					  "10.0.0.0/+8",
					  "10.0.0.0/8 ",
					  "::/129",
					  "/8",
					  "10.0.0.0/8/8",
					  "x/8",
					  "10.0.0.0/4294967304",
					  "::/0000",
					  "1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111/8"};

	(void)state;
	for (size_t i = 0; i < COUNT(good); i++) {
		struct prefix out;
		bool host_bits;
		char text[ADDRESS_TEXT_MAX];

		assert_true(prefix_parse(good[i].text, &out, &host_bits));
		assert_int_equal(host_bits, good[i].host_bits);
		assert_string_equal(prefix_format(&out, text), good[i].canonical);
	}
	for (size_t i = 0; i < COUNT(bad); i++) {
		struct prefix out;

		if (prefix_parse(bad[i], &out, NULL))
			fail_msg("\"%s\" was accepted", bad[i]);
	}
}

static void contains_at_the_edges(void **state)
{
	static const struct {
		const char *prefix, *inside, *outside;
	} table[] = {
		{"0.0.0.0/0", "255.255.255.255", "::"},
		{"10.0.0.5", "10.0.0.5", "10.0.0.4"},
		{"10.0.0.0/31", "10.0.0.1", "10.0.0.2"},
		{"10.128.0.0/9", "10.255.255.255", "10.127.255.255"},
		{"100.64.0.0/10", "100.127.255.255", "100.128.0.0"},
		{"::/0", "ffff::", "0.0.0.0"},
		{"2001:db8::/33", "2001:db8:7fff::", "2001:db8:8000::"},
		{"fe80::/10", "febf::1", "fec0::"},
		{"::1", "::1", "::"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct prefix p = prefix(table[i].prefix);
		struct address in = address(table[i].inside), out = address(table[i].outside);

		assert_true(prefix_contains(&p, &in));
		assert_false(prefix_contains(&p, &out));
	}
}

static void covers(void **state)
{
	static const struct {
		const char *outer, *inner;
		bool covers;
	} table[] = {
		{"10.0.0.0/8", "10.0.0.0/8", true},  {"10.0.0.0/8", "10.1.0.0/16", true}, {"10.1.0.0/16", "10.0.0.0/8", false},
		{"0.0.0.0/0", "10.0.0.0/8", true},   {"0.0.0.0/0", "::/0", false},        {"::/0", "2001:db8::/32", true},
		{"10.0.0.0/8", "11.0.0.0/8", false},
	};
	struct prefix none = {0};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct prefix outer = prefix(table[i].outer), inner = prefix(table[i].inner);

		assert_int_equal(prefix_covers(&outer, &inner), table[i].covers);
	}
	assert_false(prefix_covers(&none, &none));
}

static void counts_hosts_and_ends(void **state)
{
	static const struct {
		const char *prefix;
		uint32_t n;
		const char *host, *last;
	} table[] = {
		{"10.201.1.0/24", 1, "10.201.1.1", "10.201.1.255"},
		{"10.201.0.0/16", 300, "10.201.1.44", "10.201.255.255"},
		{"0.0.0.0/0", UINT32_MAX, "255.255.255.255", "255.255.255.255"},
		{"255.255.255.255/32", 0, "255.255.255.255", "255.255.255.255"},
		{"fdc9:1::/64", 1, "fdc9:1::1", "fdc9:1::ffff:ffff:ffff:ffff"},
		{"fdc9:1::/64", 65536, "fdc9:1::1:0", "fdc9:1::ffff:ffff:ffff:ffff"},
		{"::/0", 1, "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		{"2001:db8::/33", 0, "2001:db8::", "2001:db8:7fff:ffff:ffff:ffff:ffff:ffff"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct prefix p = prefix(table[i].prefix);
		struct address host = prefix_host(&p, table[i].n);
		struct address_range r = prefix_range(&p);

		assert_address(&host, table[i].host);
		assert_true(address_equal(&r.first, &p.address));
		assert_address(&r.last, table[i].last);
	}
}

static void converts(void **state)
{
	static const char *const texts[] = {"10.0.0.5", "2001:db8::5"};
	struct sockaddr_storage storage;
	struct address none = {0};

	(void)state;
	for (size_t i = 0; i < COUNT(texts); i++) {
		struct address in = address(texts[i]), out;
		uint16_t port = 0;

		assert_int_equal(address_to_sockaddr(&in, 5353, &storage), i ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
		assert_true(address_from_sockaddr((const struct sockaddr *)&storage, &out, &port));
		assert_memory_equal(&in, &out, sizeof(in));
		assert_int_equal(port, 5353);
		out = address_from_bytes(in.family, in.bytes);
		assert_memory_equal(&in, &out, sizeof(in));
	}
	storage.ss_family = AF_UNIX;
	assert_false(address_from_sockaddr((const struct sockaddr *)&storage, &none, NULL));
	assert_int_equal(address_to_sockaddr(&none, 1, &storage), 0);
}

static void names_special_purpose_space(void **state)
{
	static const char *const special[] = {
		"0.0.0.0",
		"::ffff:0:8.8.8.8",
		"200::1",
		"3ff:ffff::1",
		"0.255.255.255",
		"10.0.0.0",
		"10.255.255.255",
		"100.64.0.0",
		"100.127.255.255",
		"100.100.100.200",
		"127.0.0.1",
		"127.255.255.255",
		"168.63.129.16",
		"169.254.0.1",
		"169.254.169.254",
		"172.16.0.0",
		"172.31.255.255",
		"192.0.0.1",
		"192.0.0.170",
		"192.0.2.1",
		"192.88.99.1",
		"192.168.0.0",
		"192.168.255.255",
		"198.18.0.0",
		"198.19.255.255",
		"198.51.100.9",
		"203.0.113.255",
		"224.0.0.1",
		"239.255.255.255",
		"240.0.0.1",
		"255.255.255.255",
		"::",
		"::1",
		"::2",
		"::10.0.0.1",
		"::8.8.8.8",
		"::ffff:10.0.0.1",
		"::ffff:8.8.8.8",
		"64:ff9b::10.0.0.1",
		"64:ff9b::127.0.0.1",
		"64:ff9b::169.254.169.254",
		"64:ff9b::168.63.129.16",
		"64:ff9b::255.255.255.255",
		"64:ff9b:1::",
		"64:ff9b:1::808:808",
		"64:ff9b:1:ffff::1",
		"100::",
		"100::ffff:ffff:ffff:ffff",
		"100:0:0:1::1",
		"2001::1",
		"2001:0:4136:e378:8000:63bf:3fff:fdd2",
		"2001:2::1",
		"2001:10::1",
		"2001:1f:ffff::1",
		"2001:20::1",
		"2001:2f:ffff::1",
		"2001:1ff:ffff::1",
		"2001:db8::1",
		"2001:db8:ffff::1",
		"3fff::1",
		"3fff:fff::1",
		"2002:a00:1::1",
		"2002:7f00:1::",
		"2002:c0a8:101::1",
		"2002:a83f:8110::1",
		"2002:a9fe:a9fe::1",
		"2002:ffff:ffff::",
		"5f00::1",
		"fc00::",
		"fdff:ffff::1",
		"fd00:ec2::254",
		"fe80::1",
		"febf::1",
		"fec0::1",
		"feff::1",
		"ff00::",
		"ff02::1",
		"ffff::1",
	};
	static const char *const ordinary[] = {
		"1.1.1.1",
		"8.8.8.8",
		"9.255.255.255",
		"11.0.0.0",
		"100.63.255.255",
		"100.128.0.0",
		"126.255.255.255",
		"128.0.0.0",
		"168.63.129.15",
		"168.63.129.17",
		"169.253.255.255",
		"169.255.0.0",
		"172.15.255.255",
		"172.32.0.0",
		"192.0.1.0",
		"192.0.3.0",
		"192.88.98.255",
		"192.167.255.255",
		"192.169.0.0",
		"198.17.255.255",
		"198.20.0.0",
		"198.51.99.255",
		"198.51.101.0",
		"203.0.112.255",
		"203.0.114.0",
		"223.255.255.255",
		"1.0.0.0",
		"64:ff9b::8.8.8.8",
		"64:ff9b::9.255.255.255",
		"64:ff9b:2::1",
		"2002:808:808::1",
		"400::1",
		"2001:200::1",
		"2001:4860:4860::8888",
		"2001:db7::1",
		"2001:db9::1",
		"3ffe::1",
		"3fff:1000::1",
		"2606:4700::1111",
		"2a00::1",
		"5eff::1",
		"100:0:0:2::1",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(special); i++) {
		struct address a = address(special[i]);

		if (!address_special(&a))
			fail_msg("%s counts as ordinary", special[i]);
	}
	for (size_t i = 0; i < COUNT(ordinary); i++) {
		struct address a = address(ordinary[i]);

		if (address_special(&a))
			fail_msg("%s counts as %s", ordinary[i], address_special(&a));
	}
}

static void names_the_narrowest_block(void **state)
{
	static const struct {
		const char *address, *text;
	} table[] = {
		{"10.1.2.3", "private (RFC 1918)"},
		{"255.255.255.255", "broadcast (RFC 919)"},
		{"fd00:ec2::254", "cloud metadata (fd00:ec2::254)"},
		{"::1", "loopback (RFC 4291)"},
		{"::ffff:1.2.3.4", "IPv4-mapped (RFC 4291)"},
		{"64:ff9b::10.0.0.1", "NAT64 of private (RFC 1918)"},
		{"2002:a00:1::", "6to4 of private (RFC 1918)"},
		{"2001:20::1", "ORCHIDv2 (RFC 7343)"},
		{"2001:3::1", "IETF protocol assignments (RFC 2928)"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct address a = address(table[i].address);

		assert_string_equal(address_special(&a), table[i].text);
	}
}

/* The blocks are well formed, and both ends of each are special while the kernel's view (the blocks) and ours are the same table. */
static void blocks_are_prefixes_of_their_family(void **state)
{
	static const int families[] = {AF_INET, AF_INET6};

	(void)state;
	for (size_t f = 0; f < COUNT(families); f++) {
		size_t count;
		const struct prefix *blocks = address_special_blocks(families[f], &count);

		assert_true(count > 10);
		for (size_t i = 0; i < count; i++) {
			struct prefix again = prefix_of(&blocks[i].address, blocks[i].length);
			struct address_range r = prefix_range(&blocks[i]);

			assert_int_equal(blocks[i].address.family, families[f]);
			assert_memory_equal(&again, &blocks[i], sizeof(again));
			assert_non_null(address_special(&r.first));
			assert_non_null(address_special(&r.last));
		}
	}
}

static void assert_ranges(const struct address_range *actual, size_t count, const char *expected)
{
	char text[1024] = "";

	for (size_t i = 0; i < count; i++) {
		char first[ADDRESS_TEXT_MAX], last[ADDRESS_TEXT_MAX];
		size_t used = strlen(text);

		snprintf(text + used, sizeof(text) - used, "%s%s-%s", i ? " " : "", address_format(&actual[i].first, first),
			 address_format(&actual[i].last, last));
	}
	assert_string_equal(text, expected);
}

static void normalises_ranges(void **state)
{
	struct address_range touching[] = {range("10.0.1.0", "10.0.1.255"), range("10.0.0.0", "10.0.0.255"), range("10.0.3.0", "10.0.3.0")};
	struct address_range nested[] = {range("10.0.0.0", "10.255.255.255"), range("10.1.0.0", "10.2.0.0"), range("10.0.0.0", "10.0.0.0")};
	struct address_range wrap[] = {range("255.255.255.255", "255.255.255.255"), range("0.0.0.0", "255.255.255.255"),
				       range("0.0.0.0", "0.0.0.0")};
	struct address_range six[] = {range("2001:db8::1:0", "2001:db8::1:5"), range("2001:db8::", "2001:db8::ffff")};
	struct address_range one[] = {range("0.0.0.0", "0.0.0.0"), range("255.255.255.255", "255.255.255.255")};

	(void)state;
	assert_ranges(touching, address_ranges_normalise(touching, 3), "10.0.0.0-10.0.1.255 10.0.3.0-10.0.3.0");
	assert_ranges(nested, address_ranges_normalise(nested, 3), "10.0.0.0-10.255.255.255");
	assert_ranges(wrap, address_ranges_normalise(wrap, 3), "0.0.0.0-255.255.255.255");
	assert_ranges(six, address_ranges_normalise(six, 2), "2001:db8::-2001:db8::1:5");
	assert_ranges(one, address_ranges_normalise(one, 2), "0.0.0.0-0.0.0.0 255.255.255.255-255.255.255.255");
	assert_int_equal(address_ranges_normalise(one, 0), 0);
}

static void subtracts_ranges(void **state)
{
	struct address_range all = range("0.0.0.0", "255.255.255.255"), all6 = range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
	struct address_range ends[] = {range("0.0.0.0", "0.255.255.255"), range("10.0.0.0", "10.255.255.255"),
				       range("224.0.0.0", "255.255.255.255")};
	struct address_range two[] = {range("1.0.0.0", "1.0.0.9"), range("1.0.0.20", "1.0.0.29")};
	struct address_range across = range("1.0.0.5", "1.0.0.24"), inside = range("1.0.0.22", "1.0.0.23"),
			     beside = range("1.0.0.10", "1.0.0.19");
	struct address_range hole6 = range("2001:db8::", "2001:db8::ffff");
	struct address_range out[8];

	(void)state;
	assert_ranges(out, address_ranges_subtract(&all, 1, ends, 3, out), "1.0.0.0-9.255.255.255 11.0.0.0-223.255.255.255");
	assert_ranges(out, address_ranges_subtract(&all, 1, &all, 1, out), "");
	assert_ranges(out, address_ranges_subtract(&all, 1, NULL, 0, out), "0.0.0.0-255.255.255.255");
	assert_ranges(out, address_ranges_subtract(two, 2, &across, 1, out), "1.0.0.0-1.0.0.4 1.0.0.25-1.0.0.29");
	assert_ranges(out, address_ranges_subtract(two, 2, &inside, 1, out), "1.0.0.0-1.0.0.9 1.0.0.20-1.0.0.21 1.0.0.24-1.0.0.29");
	assert_ranges(out, address_ranges_subtract(two, 2, &beside, 1, out), "1.0.0.0-1.0.0.9 1.0.0.20-1.0.0.29");
	assert_ranges(out, address_ranges_subtract(&all6, 1, &hole6, 1, out),
		      "::-2001:db7:ffff:ffff:ffff:ffff:ffff:ffff 2001:db8::1:0-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
}

#define SMALL 40

static bool in_ranges(const struct address_range *ranges, size_t count, const struct address *a)
{
	for (size_t i = 0; i < count; i++)
		if (address_compare(&ranges[i].first, a) <= 0 && address_compare(a, &ranges[i].last) <= 0)
			return true;
	return false;
}

static size_t random_ranges(struct address_range *out, const struct prefix *base)
{
	size_t count = (size_t)rand() % 6;

	for (size_t i = 0; i < count; i++) {
		uint32_t first = (uint32_t)rand() % SMALL, last = first + (uint32_t)rand() % (SMALL - first);

		out[i] = (struct address_range){prefix_host(base, first), prefix_host(base, last)};
	}
	return count;
}

/* Around the end of the address space too, where stepping on wraps. */
static void range_operations_agree_with_single_addresses(void **state)
{
	static const char *const bases[] = {"10.0.0.0/8", "0.0.0.0/8", "255.255.255.216/32", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffd8/128",
					    "::/64"};

	(void)state;
	srand(2);
	for (int round = 0; round < 4000; round++) {
		struct prefix base = prefix(bases[(size_t)round % COUNT(bases)]);
		struct address_range a[6], b[6], raw[6], out[12];
		size_t a_count = random_ranges(a, &base), b_count = random_ranges(b, &base), raw_count = a_count, left;

		memcpy(raw, a, sizeof(a[0]) * a_count);
		a_count = address_ranges_normalise(a, a_count);
		b_count = address_ranges_normalise(b, b_count);
		left = address_ranges_subtract(a, a_count, b, b_count, out);
		assert_true(left <= a_count + b_count);
		for (uint32_t n = 0; n < SMALL; n++) {
			struct address at = prefix_host(&base, n);

			assert_int_equal(in_ranges(raw, raw_count, &at), in_ranges(a, a_count, &at));
			assert_int_equal(in_ranges(out, left, &at), in_ranges(a, a_count, &at) && !in_ranges(b, b_count, &at));
		}
		for (size_t i = 1; i < left; i++)
			assert_true(address_compare(&out[i - 1].last, &out[i].first) < 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parses_and_formats_addresses),
		cmocka_unit_test(parses_and_formats_prefixes),
		cmocka_unit_test(contains_at_the_edges),
		cmocka_unit_test(covers),
		cmocka_unit_test(counts_hosts_and_ends),
		cmocka_unit_test(converts),
		cmocka_unit_test(names_special_purpose_space),
		cmocka_unit_test(names_the_narrowest_block),
		cmocka_unit_test(blocks_are_prefixes_of_their_family),
		cmocka_unit_test(normalises_ranges),
		cmocka_unit_test(subtracts_ranges),
		cmocka_unit_test(range_operations_agree_with_single_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
