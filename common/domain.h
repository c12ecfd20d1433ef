/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_COMMON_DOMAIN_H
#define SLUICE_COMMON_DOMAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DOMAIN_WIRE_MAX  255  /* octets, RFC 1035 section 3.1 */
#define DOMAIN_LABEL_MAX 63   /* octets */
#define DOMAIN_TEXT_MAX  1024 /* every octet escaped as \DDD, dots and NUL */

/*
 * A domain name in uncompressed wire form: length octets, labels, the root label. Letters A-Z are stored in lower
 * case, so two names are equal when their bytes are. The root is one zero octet. Octets behind `length` are zero.
 */
struct domain {
	uint8_t length; /* octets in use, with the root label; 0: no name */
	uint8_t wire[DOMAIN_WIRE_MAX];
};

enum pattern_kind {
	PATTERN_EXACT, /* name: that name and no other */
	PATTERN_BELOW, /* *.name: any depth below it, not the name itself */
	PATTERN_TREE,  /* **.name: both */
	PATTERN_ANY,   /* *: every name */
};

/* What a name rule matches. `base` is the root for PATTERN_ANY. */
struct pattern {
	enum pattern_kind kind;
	struct domain base;
};

/**
 * domain_from_wire() - Take a name from uncompressed wire form, folding case
 * @available:	octets that may be read
 * Return: octets taken, or 0 when it is no valid name.
 */
size_t domain_from_wire(const uint8_t *wire, size_t available, struct domain *out);

/**
 * domain_parse() - Parse the text of a host name as people write it in a policy
 *
 * Lower-cases, drops one trailing dot, turns U-labels into A-labels (IDNA2008 through libidn2). Only letters, digits,
 * hyphens (not first or last) and leading underscores pass. A last label of digits only is refused: it is a mistyped
 * address.
 *
 * Return: NULL, or a static text that says what is wrong ("empty label", "label longer than 63 octets", ...).
 */
const char *domain_parse(const char *text, struct domain *out);

/** domain_format() - Presentation form without the trailing dot, odd octets as \DDD; the root is ".". Return: @out. */
const char *domain_format(const struct domain *domain, char out[static DOMAIN_TEXT_MAX]);

bool domain_equal(const struct domain *a, const struct domain *b);

/** domain_labels() - Number of labels without the root: 2 for "a.example". */
unsigned int domain_labels(const struct domain *domain);

/** domain_parent() - Drop the first label. Return: false when the name is the root. @out may be @domain. */
bool domain_parent(const struct domain *domain, struct domain *out);

/** domain_is_below() - Is @name strictly below @base? Everything but the root is below the root. */
bool domain_is_below(const struct domain *name, const struct domain *base);

/**
 * pattern_parse() - Parse one name pattern of a policy (design: name, *.name, **.name, *)
 * @warning:	set to a static text, or NULL: a wildcard directly on a private public suffix, for example
 * Return: NULL, or a static text that says what is wrong (star elsewhere, wildcard on an ICANN suffix, see
 *	domain_parse()).
 */
const char *pattern_parse(const char *text, struct pattern *out, const char **warning);

/** pattern_format() - The pattern as it is written in a policy. Return: @out. */
const char *pattern_format(const struct pattern *pattern, char out[static DOMAIN_TEXT_MAX]);

/** pattern_matches() - Does the pattern match this name? */
bool pattern_matches(const struct pattern *pattern, const struct domain *name);

/** pattern_overlaps() - Is there a name that both patterns match? */
bool pattern_overlaps(const struct pattern *a, const struct pattern *b);

/**
 * pattern_is_above() - Is @name a strict parent of a name that the pattern can match (so: an empty non-terminal)?
 *
 * Never for PATTERN_ANY: it says nothing about which names exist.
 */
bool pattern_is_above(const struct pattern *pattern, const struct domain *name);

#endif
