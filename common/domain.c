/* SPDX-License-Identifier: MIT */
/*
 * Domain names and the patterns of name rules.
 *
 * Theory of operation: a name is kept in wire form and lower case, so comparing, hashing and walking up to its parents are operations on
 * bytes. Text enters in two ways: from the wire, where any octet is legal in a label, and from a policy, where only
 * host names are.
 */
#include "common/domain.h"

#include <idn2.h>
#include <libpsl.h>
#include <stdio.h>
#include <string.h>

#define HOST_OCTETS     "abcdefghijklmnopqrstuvwxyz0123456789-"
#define TEXT_OCTETS_MAX (4 * DOMAIN_TEXT_MAX) /* octets of a policy's text for one name; U-labels are longer than A-labels */

static uint8_t fold(uint8_t octet)
{
	return octet >= 'A' && octet <= 'Z' ? octet | 0x20 : octet;
}

size_t domain_from_wire(const uint8_t *wire, size_t available, struct domain *out)
{
	size_t at = 0;

	*out = (struct domain){0};
	for (;;) {
		size_t step;

		if (at >= available || wire[at] > DOMAIN_LABEL_MAX)
			return 0;
		step = 1 + (size_t)wire[at];
		if (at + step > available || at + step > DOMAIN_WIRE_MAX)
			return 0;
		if (step == 1)
			break;
		at += step;
	}
	/* A length octet is at most 63, below 'A': folding the whole name leaves them alone. */
	for (size_t i = 0; i <= at; i++)
		out->wire[i] = fold(wire[i]);
	out->length = (uint8_t)(at + 1);
	return at + 1;
}

/* Append one label. Return: NULL or an error text. */
static const char *append_label(struct domain *out, const char *label, size_t size)
{
	if (size == 0)
		return "empty label";
	if (size > DOMAIN_LABEL_MAX)
		return "label longer than 63 octets";
	if (out->length + 1 + size + 1 > DOMAIN_WIRE_MAX)
		return "name longer than 253 octets";
	out->wire[out->length] = (uint8_t)size;
	for (size_t i = 0; i < size; i++)
		out->wire[out->length + 1 + i] = fold((uint8_t)label[i]);
	out->length += (uint8_t)(1 + size);
	return NULL;
}

/* Letters, digits, inner hyphens, leading underscores (RFC 952, 1123, 8552); lower case by now. */
static const char *check_label(const char *label, size_t size)
{
	size_t underscores = 0;

	while (underscores < size && label[underscores] == '_')
		underscores++;
	for (size_t i = underscores; i < size; i++)
		if (!memchr(HOST_OCTETS, fold((uint8_t)label[i]), sizeof(HOST_OCTETS) - 1))
			return "a character other than letters, digits, hyphens and leading underscores";
	if (size > 0 && underscores == size)
		return "label of underscores only";
	if (size > 0 && (label[underscores] == '-' || label[size - 1] == '-'))
		return "label begins or ends with a hyphen";
	return NULL;
}

static bool is_ascii(const char *text, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if ((unsigned char)text[i] >= 0x80)
			return false;
	return true;
}

/* A label with characters outside ASCII. The result of the mapping is checked like any other label: it may hold full stops or stars. */
static const char *append_u_label(struct domain *out, const char *label, size_t size)
{
	uint8_t text[TEXT_OCTETS_MAX];
	uint8_t *a_label = NULL;
	const char *error;
	int code;

	if (size >= sizeof(text))
		return "label longer than 63 octets";
	memcpy(text, label, size);
	text[size] = '\0';
	code = idn2_lookup_u8(text, &a_label, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
	if (code == IDN2_TOO_BIG_LABEL || code == IDN2_TOO_BIG_DOMAIN)
		return "label longer than 63 octets";
	if (code == IDN2_ENCODING_ERROR)
		return "the text is not UTF-8";
	if (code != IDN2_OK)
		return "a character that international names may not have (IDNA 2008)";
	error = check_label((const char *)a_label, strlen((const char *)a_label));
	if (!error)
		error = append_label(out, (const char *)a_label, strlen((const char *)a_label));
	idn2_free(a_label);
	return error;
}

static const char *append_text(struct domain *out, const char *label, size_t size)
{
	const char *error;

	if (!is_ascii(label, size))
		return append_u_label(out, label, size);
	error = check_label(label, size);
	return error ? error : append_label(out, label, size);
}

/* Are all octets of the last label digits? No top-level domain is (RFC 3696): somebody mistyped an address. */
static bool ends_in_number(const struct domain *domain)
{
	size_t last = 0;

	for (size_t at = 0; domain->wire[at] != 0; at += 1 + (size_t)domain->wire[at])
		last = at;
	for (size_t i = 1; i <= domain->wire[last]; i++)
		if (domain->wire[last + i] < '0' || domain->wire[last + i] > '9')
			return false;
	return true;
}

const char *domain_parse(const char *text, struct domain *out)
{
	struct domain name = {0};
	const char *error;

	*out = name;
	if (*text == '\0' || strcmp(text, ".") == 0)
		return "empty name";
	for (;;) {
		size_t size = strcspn(text, ".");

		error = append_text(&name, text, size);
		if (error)
			return error;
		text += size;
		if (*text == '\0' || strcmp(text, ".") == 0)
			break;
		text++;
	}
	name.length++; /* the root label; append_label() left room for it */
	if (ends_in_number(&name))
		return "neither a name nor a valid address: the last label is a number";
	*out = name;
	return NULL;
}

/* Octets that are printed as they are: none that means something to a terminal, a shell or logfmt. */
static bool is_plain(uint8_t octet)
{
	return memchr(HOST_OCTETS "_*/", fold(octet), sizeof(HOST_OCTETS "_*/") - 1) != NULL;
}

const char *domain_format(const struct domain *domain, char out[static DOMAIN_TEXT_MAX])
{
	size_t used = 0;

	out[0] = '\0';
	if (domain->length == 1)
		return strcpy(out, ".");
	for (size_t at = 0; at < domain->length && domain->wire[at] != 0; at += 1 + (size_t)domain->wire[at]) {
		if (at > 0)
			out[used++] = '.';
		for (size_t i = 1; i <= domain->wire[at]; i++) {
			uint8_t octet = domain->wire[at + i];

			if (is_plain(octet))
				out[used++] = (char)octet;
			else
				used += (size_t)snprintf(out + used, DOMAIN_TEXT_MAX - used, "\\%03u", octet);
		}
	}
	out[used] = '\0';
	return out;
}

bool domain_equal(const struct domain *a, const struct domain *b)
{
	return a->length == b->length && memcmp(a->wire, b->wire, a->length) == 0;
}

unsigned int domain_labels(const struct domain *domain)
{
	unsigned int labels = 0;

	for (size_t at = 0; at < domain->length && domain->wire[at] != 0; at += 1 + (size_t)domain->wire[at])
		labels++;
	return labels;
}

bool domain_parent(const struct domain *domain, struct domain *out)
{
	size_t skip = 1 + (size_t)domain->wire[0];
	struct domain parent = {0};

	if (domain->length <= 1)
		return false;
	parent.length = (uint8_t)(domain->length - skip);
	memcpy(parent.wire, domain->wire + skip, parent.length);
	*out = parent;
	return true;
}

bool domain_is_below(const struct domain *name, const struct domain *base)
{
	size_t at = 0;

	if (base->length == 0)
		return false;
	while (at < name->length && name->length - at > base->length)
		at += 1 + (size_t)name->wire[at];
	return at > 0 && name->length - at == base->length && memcmp(name->wire + at, base->wire, base->length) == 0;
}

/* Is this a public suffix of that section of the list, or the place of a rule such as "*.ck", below which every name is one? */
static bool is_suffix(const psl_ctx_t *list, const char *base, int section)
{
	char below[DOMAIN_TEXT_MAX + 16];

	/* Without the list's default rule "*", by which every unknown top-level domain would be a public suffix. */
	section |= PSL_TYPE_NO_STAR_RULE;
	snprintf(below, sizeof(below), "sluice-probe.%s", base);
	return psl_is_public_suffix2(list, base, section) || psl_is_public_suffix2(list, below, section);
}

static const char *check_wildcard(const struct domain *base, const char **warning)
{
	const psl_ctx_t *list = psl_builtin();
	char text[DOMAIN_TEXT_MAX];

	if (!list)
		return "wildcards cannot be checked: libpsl was built without its list";
	domain_format(base, text);
	if (is_suffix(list, text, PSL_TYPE_ICANN))
		return "wildcard directly on a public suffix: it would allow names of everybody";
	if (is_suffix(list, text, PSL_TYPE_PRIVATE))
		*warning = "wildcard directly on a private public suffix: anybody can get a name below it";
	return NULL;
}

const char *pattern_parse(const char *text, struct pattern *out, const char **warning)
{
	struct pattern pattern = {.kind = PATTERN_EXACT};
	const char *error;

	*out = (struct pattern){0};
	*warning = NULL;
	if (strcmp(text, "*") == 0) {
		*out = (struct pattern){.kind = PATTERN_ANY, .base = {.length = 1}};
		return NULL;
	}
	if (strncmp(text, "*.", 2) == 0) {
		pattern.kind = PATTERN_BELOW;
		text += 2;
	} else if (strncmp(text, "**.", 3) == 0) {
		pattern.kind = PATTERN_TREE;
		text += 3;
	}
	if (strchr(text, '*'))
		return "a star may only stand alone or in front, as in *.name or **.name";
	error = domain_parse(text, &pattern.base);
	if (!error && pattern.kind != PATTERN_EXACT)
		error = check_wildcard(&pattern.base, warning);
	if (!error)
		*out = pattern;
	return error;
}

const char *pattern_format(const struct pattern *pattern, char out[static DOMAIN_TEXT_MAX])
{
	char base[DOMAIN_TEXT_MAX];
	const char *star = "";

	switch (pattern->kind) {
	case PATTERN_EXACT: break;
	case PATTERN_BELOW: star = "*."; break;
	case PATTERN_TREE: star = "**."; break;
	case PATTERN_ANY: return strcpy(out, "*");
	}
	domain_format(&pattern->base, base);
	/* A base of odd octets only could need all of DOMAIN_TEXT_MAX; one from a policy is short. */
	snprintf(out, DOMAIN_TEXT_MAX, "%s%.*s", star, DOMAIN_TEXT_MAX - 4, base);
	return out;
}

bool pattern_matches(const struct pattern *pattern, const struct domain *name)
{
	switch (pattern->kind) {
	case PATTERN_EXACT: return domain_equal(&pattern->base, name);
	case PATTERN_BELOW: return domain_is_below(name, &pattern->base);
	case PATTERN_TREE: return domain_equal(&pattern->base, name) || domain_is_below(name, &pattern->base);
	case PATTERN_ANY: return name->length > 0;
	}
	return false;
}

bool pattern_overlaps(const struct pattern *a, const struct pattern *b)
{
	if (a->kind == PATTERN_ANY || b->kind == PATTERN_ANY)
		return true;
	if (a->kind == PATTERN_EXACT)
		return pattern_matches(b, &a->base);
	if (b->kind == PATTERN_EXACT)
		return pattern_matches(a, &b->base);
	/* Two wildcards share the names below the lower of their bases. */
	return domain_equal(&a->base, &b->base) || domain_is_below(&a->base, &b->base) || domain_is_below(&b->base, &a->base);
}

bool pattern_is_above(const struct pattern *pattern, const struct domain *name)
{
	switch (pattern->kind) {
	case PATTERN_EXACT: return domain_is_below(&pattern->base, name);
	case PATTERN_BELOW:
	case PATTERN_TREE:
		return domain_is_below(&pattern->base, name) || domain_equal(&pattern->base, name) || domain_is_below(name, &pattern->base);
	case PATTERN_ANY: return false;
	}
	return false;
}
