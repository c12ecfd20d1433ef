/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_RESOLVER_MESSAGE_WIRE_H
#define SLUICE_RESOLVER_MESSAGE_WIRE_H

/* The header of a DNS message (RFC 1035 section 4.1.1): for message*.c only. */

#include <stdint.h>

#define MESSAGE_HEADER_SIZE 12 /* octets */

/* Bits of the header's third and fourth octet. */
enum {
	MESSAGE_QR = 0x80,
	MESSAGE_OPCODE = 0x78,
	MESSAGE_TC = 0x02,
	MESSAGE_RD = 0x01,
	MESSAGE_RA = 0x80,
	MESSAGE_CD = 0x10,
	MESSAGE_RCODE = 0x0f,
};

struct message_counts {
	unsigned int question, answer, authority, additional;
};

static inline uint16_t wire_u16(const uint8_t *wire)
{
	return (uint16_t)(wire[0] << 8 | wire[1]);
}

static inline void wire_put_u16(uint8_t *wire, uint16_t value)
{
	wire[0] = (uint8_t)(value >> 8);
	wire[1] = (uint8_t)value;
}

/* wire_counts() - The section counts of a message of at least MESSAGE_HEADER_SIZE octets. */
static inline struct message_counts wire_counts(const uint8_t *wire)
{
	return (struct message_counts){wire_u16(wire + 4), wire_u16(wire + 6), wire_u16(wire + 8), wire_u16(wire + 10)};
}

#endif
