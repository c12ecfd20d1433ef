/* SPDX-License-Identifier: MIT */
/*
 * Addresses, prefixes and ranges as values, and what the IANA special-purpose registries say about them.
 *
 * Theory of operation: address_special() and address_special_blocks() read the same tables, so the kernel's sets and the judging of
 * single addresses cannot differ. IPv6 forms that carry an IPv4 address and may be routed as such (NAT64 well-known
 * prefix, 6to4) are special where the IPv4 address is: their prefixes are made from the IPv4 table at compile time.
 * All other embedding forms (mapped, translated, compatible, Teredo, local NAT64) are special as a whole.
 */
#include "common/address.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* X(first to fourth octet, prefix length, text). The first entry that contains an address names it. */
#define BLOCKS4(X)                                                                                                                         \
	X(0, 0, 0, 0, 8, "this network (RFC 791)")                                                                                         \
	X(10, 0, 0, 0, 8, "private (RFC 1918)")                                                                                            \
	X(100, 64, 0, 0, 10, "carrier-grade NAT (RFC 6598)")                                                                               \
	X(127, 0, 0, 0, 8, "loopback (RFC 1122)")                                                                                          \
	X(168, 63, 129, 16, 32, "cloud metadata (168.63.129.16)")                                                                          \
	X(169, 254, 0, 0, 16, "link-local (RFC 3927)")                                                                                     \
	X(172, 16, 0, 0, 12, "private (RFC 1918)")                                                                                         \
	X(192, 0, 0, 0, 24, "IETF protocol assignments (RFC 6890)")                                                                        \
	X(192, 0, 2, 0, 24, "documentation (RFC 5737)")                                                                                    \
	X(192, 88, 99, 0, 24, "6to4 relay anycast (RFC 7526)")                                                                             \
	X(192, 168, 0, 0, 16, "private (RFC 1918)")                                                                                        \
	X(198, 18, 0, 0, 15, "benchmarking (RFC 2544)")                                                                                    \
	X(198, 51, 100, 0, 24, "documentation (RFC 5737)")                                                                                 \
	X(203, 0, 113, 0, 24, "documentation (RFC 5737)")                                                                                  \
	X(224, 0, 0, 0, 4, "multicast (RFC 5771)")                                                                                         \
	X(255, 255, 255, 255, 32, "broadcast (RFC 919)")                                                                                   \
	X(240, 0, 0, 0, 4, "reserved (RFC 1112)")

/* X(first to fourth group, eighth group, prefix length, text); groups five to seven are zero. */
#define BLOCKS6(X)                                                                                                                         \
	X(0, 0, 0, 0, 0, 128, "unspecified (RFC 4291)")                                                                                    \
	X(0, 0, 0, 0, 1, 128, "loopback (RFC 4291)")                                                                                       \
	X(0, 0, 0, 0, 0, 96, "IPv4-compatible (RFC 4291)")                                                                                 \
	X(0x64, 0xff9b, 1, 0, 0, 48, "local-use NAT64 (RFC 8215)")                                                                         \
	X(0x100, 0, 0, 0, 0, 64, "discard-only (RFC 6666)")                                                                                \
	X(0x100, 0, 0, 1, 0, 64, "dummy prefix (RFC 9780)")                                                                                \
	X(0x200, 0, 0, 0, 0, 7, "reserved, and used by overlays (RFC 4048)")                                                               \
	X(0x2001, 0, 0, 0, 0, 32, "Teredo (RFC 4380)")                                                                                     \
	X(0x2001, 2, 0, 0, 0, 48, "benchmarking (RFC 5180)")                                                                               \
	X(0x2001, 0x10, 0, 0, 0, 28, "ORCHID (RFC 4843)")                                                                                  \
	X(0x2001, 0x20, 0, 0, 0, 28, "ORCHIDv2 (RFC 7343)")                                                                                \
	X(0x2001, 0, 0, 0, 0, 23, "IETF protocol assignments (RFC 2928)")                                                                  \
	X(0x2001, 0xdb8, 0, 0, 0, 32, "documentation (RFC 3849)")                                                                          \
	X(0x3fff, 0, 0, 0, 0, 20, "documentation (RFC 9637)")                                                                              \
	X(0x5f00, 0, 0, 0, 0, 16, "segment routing (RFC 9602)")                                                                            \
	X(0xfd00, 0xec2, 0, 0, 0x254, 128, "cloud metadata (fd00:ec2::254)")                                                               \
	X(0xfc00, 0, 0, 0, 0, 7, "unique local (RFC 4193)")                                                                                \
	X(0xfe80, 0, 0, 0, 0, 10, "link-local (RFC 4291)")                                                                                 \
	X(0xfec0, 0, 0, 0, 0, 10, "site-local (RFC 3879)")                                                                                 \
	X(0xff00, 0, 0, 0, 0, 8, "multicast (RFC 4291)")

#define PREFIX4(a, b, c, d, length, text)        {{AF_INET, {a, b, c, d}}, length},
#define TEXT(a, b, c, d, length, text)           text,
#define GROUP(g)                                 (uint8_t)((g) >> 8), (uint8_t)((g)&0xff)
#define PREFIX6(a, b, c, d, h, length, text)     {{AF_INET6, {GROUP(a), GROUP(b), GROUP(c), GROUP(d), 0, 0, 0, 0, 0, 0, GROUP(h)}}, length},
#define TEXT6(a, b, c, d, h, length, text)       text,
#define NAT64(a, b, c, d, length, text)          {{AF_INET6, {0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d}}, 96 + (length)},
#define NAT64_TEXT(a, b, c, d, length, text)     "NAT64 of " text,
#define SIXTOFOUR(a, b, c, d, length, text)      {{AF_INET6, {0x20, 0x02, a, b, c, d}}, 16 + (length)},
#define SIXTOFOUR_TEXT(a, b, c, d, length, text) "6to4 of " text,
#define TRANSLATED                               {{AF_INET6, {0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}}, 96},
#define MAPPED                                   {{AF_INET6, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}}, 96},

static const struct prefix blocks4[] = {BLOCKS4(PREFIX4)};
static const char *const texts4[] = {BLOCKS4(TEXT)};
static const struct prefix blocks6[] = {BLOCKS6(PREFIX6) MAPPED TRANSLATED BLOCKS4(NAT64) BLOCKS4(SIXTOFOUR)};
static const char *const texts6[] = {BLOCKS6(TEXT6) "IPv4-mapped (RFC 4291)", "IPv4-translated (RFC 2765)",
				     BLOCKS4(NAT64_TEXT) BLOCKS4(SIXTOFOUR_TEXT)};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
static_assert(COUNT(blocks4) == COUNT(texts4), "every IPv4 block has a text");
static_assert(COUNT(blocks6) == COUNT(texts6), "every IPv6 block has a text");
/* Prefixes and addresses are compared, hashed and used as keys byte by byte. */
static_assert(sizeof(struct prefix) == 18, "struct prefix has no padding");

bool address_parse(const char *text, struct address *out)
{
	*out = (struct address){0};
	if (inet_pton(AF_INET, text, out->bytes) == 1) {
		out->family = AF_INET;
		return true;
	}
	*out = (struct address){0};
	if (inet_pton(AF_INET6, text, out->bytes) == 1) {
		out->family = AF_INET6;
		return true;
	}
	*out = (struct address){0};
	return false;
}

/* Decimal digits without a leading zero, at most @max. */
static bool parse_length(const char *text, unsigned int max, uint8_t *out)
{
	size_t digits = strspn(text, "0123456789");
	unsigned long value;

	if (digits == 0 || digits > 3 || text[digits] != '\0' || (digits > 1 && text[0] == '0'))
		return false;
	value = strtoul(text, NULL, 10);
	if (value > max)
		return false;
	*out = (uint8_t)value;
	return true;
}

/* Clear the bits beyond @length. Return: whether any was set. */
static bool clear_host_bits(struct address *address, unsigned int length)
{
	bool any = false;

	for (unsigned int i = 0; i < address_size(address); i++) {
		unsigned int kept = length > 8 * i ? length - 8 * i : 0;
		uint8_t mask = kept >= 8 ? 0xff : (uint8_t)(0xff00U >> kept);

		any |= (address->bytes[i] & (uint8_t)~mask) != 0;
		address->bytes[i] &= mask;
	}
	return any;
}

bool prefix_parse(const char *text, struct prefix *out, bool *host_bits)
{
	const char *slash = strchr(text, '/');
	size_t size = slash ? (size_t)(slash - text) : strlen(text);
	char copy[ADDRESS_TEXT_MAX];
	bool extra;

	*out = (struct prefix){0};
	if (host_bits)
		*host_bits = false;
	if (size >= sizeof(copy))
		return false;
	memcpy(copy, text, size);
	copy[size] = '\0';
	if (!address_parse(copy, &out->address))
		return false;
	out->length = (uint8_t)address_bits(&out->address);
	if (slash && !parse_length(slash + 1, address_bits(&out->address), &out->length)) {
		*out = (struct prefix){0};
		return false;
	}
	extra = clear_host_bits(&out->address, out->length);
	if (host_bits)
		*host_bits = extra;
	return true;
}

/* As inet_ntop() does it, which takes thirty times as long. */
static void format_ipv4(const uint8_t bytes[static 4], char *out)
{
	for (unsigned int i = 0; i < 4; i++) {
		if (bytes[i] >= 100)
			*out++ = (char)('0' + bytes[i] / 100);
		if (bytes[i] >= 10)
			*out++ = (char)('0' + bytes[i] / 10 % 10);
		*out++ = (char)('0' + bytes[i] % 10);
		*out++ = i < 3 ? '.' : '\0';
	}
}

const char *address_format(const struct address *address, char out[static ADDRESS_TEXT_MAX])
{
	if (address->family == AF_INET)
		format_ipv4(address->bytes, out);
	else if (address->family == 0 || !inet_ntop(address->family, address->bytes, out, ADDRESS_TEXT_MAX))
		strcpy(out, "none");
	return out;
}

const char *prefix_format(const struct prefix *prefix, char out[static ADDRESS_TEXT_MAX])
{
	size_t used;

	address_format(&prefix->address, out);
	used = strlen(out);
	if (prefix->address.family != 0 && prefix->length != address_bits(&prefix->address))
		snprintf(out + used, ADDRESS_TEXT_MAX - used, "/%u", prefix->length);
	return out;
}

unsigned int address_bits(const struct address *address)
{
	return address->family == AF_INET ? 32 : 128;
}

size_t address_size(const struct address *address)
{
	return address->family == AF_INET ? 4 : 16;
}

bool address_equal(const struct address *a, const struct address *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

int address_compare(const struct address *a, const struct address *b)
{
	if (a->family != b->family)
		return a->family < b->family ? -1 : 1;
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

bool address_from_sockaddr(const struct sockaddr *sa, struct address *out, uint16_t *port)
{
	struct sockaddr_in in;
	struct sockaddr_in6 in6;

	*out = (struct address){0};
	switch (sa->sa_family) {
	case AF_INET:
		memcpy(&in, sa, sizeof(in));
		*out = address_from_bytes(AF_INET, &in.sin_addr);
		if (port)
			*port = ntohs(in.sin_port);
		return true;
	case AF_INET6:
		memcpy(&in6, sa, sizeof(in6));
		*out = address_from_bytes(AF_INET6, &in6.sin6_addr);
		if (port)
			*port = ntohs(in6.sin6_port);
		return true;
	default: return false;
	}
}

socklen_t address_to_sockaddr(const struct address *address, uint16_t port, struct sockaddr_storage *out)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

	memset(out, 0, sizeof(*out));
	if (address->family == AF_INET) {
		memcpy(&in.sin_addr, address->bytes, 4);
		memcpy(out, &in, sizeof(in));
		return sizeof(in);
	}
	if (address->family == AF_INET6) {
		memcpy(&in6.sin6_addr, address->bytes, 16);
		memcpy(out, &in6, sizeof(in6));
		return sizeof(in6);
	}
	return 0;
}

struct address address_from_bytes(int family, const void *bytes)
{
	struct address out = {.family = (uint8_t)family};

	memcpy(out.bytes, bytes, address_size(&out));
	return out;
}

struct prefix prefix_of(const struct address *address, uint8_t length)
{
	struct prefix out = {*address, length};

	clear_host_bits(&out.address, length);
	return out;
}

bool prefix_equal(const struct prefix *a, const struct prefix *b)
{
	return a->length == b->length && address_equal(&a->address, &b->address);
}

bool prefix_contains(const struct prefix *prefix, const struct address *address)
{
	unsigned int whole = prefix->length / 8;
	unsigned int rest = prefix->length % 8;

	if (address->family == 0 || prefix->address.family != address->family)
		return false;
	/* Most of the many prefixes that an address is compared with end here. */
	if (whole > 0 && prefix->address.bytes[0] != address->bytes[0])
		return false;
	if (memcmp(prefix->address.bytes, address->bytes, whole) != 0)
		return false;
	return rest == 0 || ((prefix->address.bytes[whole] ^ address->bytes[whole]) >> (8 - rest)) == 0;
}

bool prefix_covers(const struct prefix *outer, const struct prefix *inner)
{
	return inner->length >= outer->length && prefix_contains(outer, &inner->address);
}

struct address prefix_host(const struct prefix *prefix, uint32_t n)
{
	struct address out = prefix->address;
	uint64_t carry = n;

	for (size_t i = address_size(&out); i-- > 0 && carry != 0;) {
		carry += out.bytes[i];
		out.bytes[i] = (uint8_t)carry;
		carry >>= 8;
	}
	return out;
}

struct address_range prefix_range(const struct prefix *prefix)
{
	struct address_range out = {prefix->address, prefix->address};

	for (unsigned int i = 0; i < address_size(&out.last); i++) {
		unsigned int kept = prefix->length > 8 * i ? prefix->length - 8 * i : 0;

		if (kept < 8)
			out.last.bytes[i] |= (uint8_t)(0xffU >> kept);
	}
	return out;
}

const char *address_special(const struct address *address)
{
	size_t count;
	const struct prefix *blocks = address_special_blocks(address->family, &count);
	const char *const *texts = address->family == AF_INET ? texts4 : texts6;

	for (size_t i = 0; i < count; i++) {
		if (blocks[i].length >= 8 && blocks[i].address.bytes[0] != address->bytes[0])
			continue; /* as most; this loop is on the way of every answer */
		if (prefix_contains(&blocks[i], address))
			return texts[i];
	}
	return NULL;
}

const struct prefix *address_special_blocks(int family, size_t *count)
{
	if (family == AF_INET) {
		*count = COUNT(blocks4);
		return blocks4;
	}
	*count = family == AF_INET6 ? COUNT(blocks6) : 0;
	return blocks6;
}

/* Step to the next address. Return: false when there is none; @address is unchanged then. */
static bool step_up(struct address *address)
{
	struct prefix one = {*address, 0};
	struct address next = prefix_host(&one, 1);

	if (address_compare(&next, address) <= 0)
		return false;
	*address = next;
	return true;
}

/* The address before one that is not the lowest. */
static struct address step_down(struct address address)
{
	for (size_t i = address_size(&address); i-- > 0;)
		if (address.bytes[i]-- != 0)
			break;
	return address;
}

static int compare_ranges(const void *a, const void *b)
{
	const struct address_range *left = a, *right = b;
	int order = address_compare(&left->first, &right->first);

	return order ? order : address_compare(&left->last, &right->last);
}

/* Does @next begin inside @range or right behind it? Both sorted: @next does not begin before @range. */
static bool touches(const struct address_range *range, const struct address_range *next)
{
	struct address behind = range->last;

	if (range->first.family != next->first.family)
		return false;
	return !step_up(&behind) || address_compare(&next->first, &behind) <= 0;
}

size_t address_ranges_normalise(struct address_range *ranges, size_t count)
{
	size_t kept = 0;

	if (count == 0)
		return 0;
	qsort(ranges, count, sizeof(*ranges), compare_ranges);
	for (size_t i = 1; i < count; i++) {
		if (!touches(&ranges[kept], &ranges[i]))
			ranges[++kept] = ranges[i];
		else if (address_compare(&ranges[i].last, &ranges[kept].last) > 0)
			ranges[kept].last = ranges[i].last;
	}
	return kept + 1;
}

/* Cut holes out of one range. @hole: index of the first one that may matter, moved past those that end before the range does. */
static size_t subtract_from(struct address_range range, const struct address_range *holes, size_t hole_count, size_t *hole,
			    struct address_range *out)
{
	size_t count = 0;

	while (*hole < hole_count && address_compare(&holes[*hole].last, &range.first) < 0)
		(*hole)++;
	for (; *hole < hole_count && address_compare(&holes[*hole].first, &range.last) <= 0; (*hole)++) {
		const struct address_range *cut = &holes[*hole];

		if (address_compare(&cut->first, &range.first) > 0)
			out[count++] = (struct address_range){range.first, step_down(cut->first)};
		if (address_compare(&cut->last, &range.last) >= 0)
			return count;
		range.first = cut->last;
		step_up(&range.first);
	}
	out[count++] = range;
	return count;
}

size_t address_ranges_subtract(const struct address_range *ranges, size_t count, const struct address_range *holes, size_t hole_count,
			       struct address_range *out)
{
	size_t hole = 0, left = 0;

	for (size_t i = 0; i < count; i++)
		left += subtract_from(ranges[i], holes, hole_count, &hole, out + left);
	return left;
}
