/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_COMMON_PORTS_H
#define SLUICE_COMMON_PORTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PORTS_RANGES_MAX 16   /* ranges per protocol in one port specification */
#define PORTS_TEXT_MAX   1024 /* 63 runs of "65534-65535/tcp+" and the NUL */

struct port_range {
	uint16_t first, last; /* inclusive, host byte order */
};

/*
 * A port specification: which TCP and which UDP ports. Normalised: ranges are sorted, do not overlap and do not
 * touch; unused entries are zero, so that equal specifications are equal bytes.
 */
struct ports {
	uint8_t tcp_count, udp_count;
	struct port_range tcp[PORTS_RANGES_MAX];
	struct port_range udp[PORTS_RANGES_MAX];
};

/** ports_all() - Every TCP and UDP port. */
struct ports ports_all(void);

/**
 * ports_parse() - Parse what follows the colon of a rule: "443", "443/udp", "22+443", "8000-8100/tcp", "443+80/tcp"
 *
 * A protocol after one item belongs to that item; without it the item means TCP and UDP.
 *
 * Return: NULL, or a static text that says what is wrong.
 */
const char *ports_parse(const char *text, struct ports *out);

/** ports_add() - Make @into the union of both. Return: false when it needs more ranges than PORTS_RANGES_MAX. */
bool ports_add(struct ports *into, const struct ports *other);

/** ports_subtract() - Take @other's ports out of @from. Return: false when it needs more than PORTS_RANGES_MAX. */
bool ports_subtract(struct ports *from, const struct ports *other);

bool ports_contains(const struct ports *ports, uint8_t protocol, uint16_t port);
bool ports_overlap(const struct ports *a, const struct ports *b);
bool ports_equal(const struct ports *a, const struct ports *b);
bool ports_is_empty(const struct ports *ports);
bool ports_is_all(const struct ports *ports);

/**
 * ports_format() - Canonical text that ports_parse() takes back: "443", "80/tcp+443", "all"
 * Return: @out. "none" when empty. The same specification always gives the same text.
 */
const char *ports_format(const struct ports *ports, char out[static PORTS_TEXT_MAX]);

#endif
