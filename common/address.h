/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_COMMON_ADDRESS_H
#define SLUICE_COMMON_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* Longest text of an address or prefix, "xxxx:...:255.255.255.255/128", with its NUL. */
#define ADDRESS_TEXT_MAX 64

/*
 * An IPv4 or IPv6 address, in network byte order. An IPv4 address uses the first four bytes; the others are
 * zero, so that two addresses may be compared with memcmp() and hashed as plain bytes.
 */
struct address {
	uint8_t family; /* AF_INET, AF_INET6, or 0: no address */
	uint8_t bytes[16];
};

/* A prefix: host bits of `address` are zero. */
struct prefix {
	struct address address;
	uint8_t length; /* bits, 0..32 or 0..128 */
};

/* Inclusive range of addresses of one family. */
struct address_range {
	struct address first, last;
};

/**
 * address_parse() - Parse the text of an IPv4 (four decimal octets) or IPv6 address
 * Return: true, or false when the text is neither; no zone identifiers, no brackets.
 */
bool address_parse(const char *text, struct address *out);

/**
 * prefix_parse() - Parse "ADDRESS/LENGTH"; a plain address is a full-length prefix
 * @host_bits:	set true when bits beyond the length were set; they are cleared in @out (may be NULL)
 * Return: false when the text is no prefix.
 */
bool prefix_parse(const char *text, struct prefix *out, bool *host_bits);

/** address_format() - Write the canonical text (RFC 5952 for IPv6). Return: @out, for use in printf() arguments. */
const char *address_format(const struct address *address, char out[static ADDRESS_TEXT_MAX]);

/** prefix_format() - Write "ADDRESS/LENGTH", or just the address when the length is full. Return: @out. */
const char *prefix_format(const struct prefix *prefix, char out[static ADDRESS_TEXT_MAX]);

/** address_bits() - Return: 32 or 128. */
unsigned int address_bits(const struct address *address);

/** address_size() - Return: 4 or 16, the bytes that a packet carries. */
size_t address_size(const struct address *address);

/** address_equal() - Same family and same bytes. */
bool address_equal(const struct address *a, const struct address *b);

/** address_compare() - Order by family, then by value; for qsort() and bsearch(). */
int address_compare(const struct address *a, const struct address *b);

/** address_from_sockaddr() / address_to_sockaddr() - Convert; the port is in host byte order. Return: sockaddr length. */
bool address_from_sockaddr(const struct sockaddr *sa, struct address *out, uint16_t *port);
socklen_t address_to_sockaddr(const struct address *address, uint16_t port, struct sockaddr_storage *out);

/** address_from_bytes() - Take 4 or 16 bytes as a packet carries them. */
struct address address_from_bytes(int family, const void *bytes);

/** prefix_of() - The prefix of that length around an address; @length at most address_bits(). */
struct prefix prefix_of(const struct address *address, uint8_t length);

/** prefix_equal() - The same address and the same length. */
bool prefix_equal(const struct prefix *a, const struct prefix *b);

/** prefix_contains() - Is the address inside the prefix? False when the families differ. */
bool prefix_contains(const struct prefix *prefix, const struct address *address);

/** prefix_covers() - Is all of @inner inside @outer (equal counts)? */
bool prefix_covers(const struct prefix *outer, const struct prefix *inner);

/** prefix_host() - The n-th address of the prefix (0 = its network address). */
struct address prefix_host(const struct prefix *prefix, uint32_t n);

/** prefix_range() - First and last address of the prefix. */
struct address_range prefix_range(const struct prefix *prefix);

/**
 * address_special() - Name the special-purpose block that an address is in
 *
 * IANA special-purpose registries (RFC 6890 and successors): "this network", private, CGNAT, loopback, link-local (with the
 * clouds' metadata addresses), IETF protocol assignments, documentation, benchmarking, multicast, reserved, broadcast, ULA, site-local,
 * discard; IPv6 addresses that embed an IPv4 address inside such a block: NAT64 (64:ff9b::/96) and 6to4 (2002::/16); and as a whole the
 * embedding forms that have no business in an answer: IPv4-mapped and -compatible, local NAT64 (64:ff9b:1::/48), Teredo (2001::/32). Public
 * cloud metadata addresses outside those blocks (fd00:ec2::254 is ULA anyway; 168.63.129.16; 100.100.100.200 is CGNAT) count as special.
 *
 * Return: a static text such as "private (RFC 1918)", or NULL when the address is ordinary.
 */
const char *address_special(const struct address *address);

/**
 * address_special_blocks() - The blocks behind address_special(), as prefixes, for sets in the kernel
 * @family:	AF_INET or AF_INET6
 * @count:	set to how many
 * Return: a static array. For IPv6 it also holds the embedding prefixes of IPv4 blocks where they are prefixes
 *	(NAT64 well-known, 6to4). An address is in one of them exactly when address_special() names it. Blocks may nest.
 */
const struct prefix *address_special_blocks(int family, size_t *count);

/**
 * address_ranges_normalise() - Sort ranges of one family and merge those that overlap or touch, in place
 * Return: the new count.
 */
size_t address_ranges_normalise(struct address_range *ranges, size_t count);

/**
 * address_ranges_subtract() - Cut the normalised @holes out of the normalised @ranges
 * @out:	receives at most @count + @hole_count ranges; may not overlap the inputs
 * Return: how many ranges are left, normalised.
 */
size_t address_ranges_subtract(const struct address_range *ranges, size_t count, const struct address_range *holes, size_t hole_count,
			       struct address_range *out);

#endif
