/* SPDX-License-Identifier: MIT */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <stdlib.h>
#include <string.h>

#include "common/domain.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define A10          "aaaaaaaaaa"
#define A63          A10 A10 A10 A10 A10 A10 "aaa"
#define A61          A10 A10 A10 A10 A10 A10 "a"

static struct domain parse(const char *text)
{
	struct domain domain;
	const char *error;

	if (strcmp(text, ".") == 0)
		return (struct domain){.length = 1};
	error = domain_parse(text, &domain);
	if (error)
		fail_msg("%s: %s", text, error);
	return domain;
}

static struct pattern pattern(const char *text)
{
	struct pattern out;
	const char *warning, *error = pattern_parse(text, &out, &warning);

	if (error)
		fail_msg("%s: %s", text, error);
	return out;
}

static void parses_host_names(void **state)
{
	static const struct {
		const char *text, *expected;
	} table[] = {
		{"example.com", "example.com"},
		{"Example.COM.", "example.com"},
		{"a-b.example", "a-b.example"},
		{"1.example", "1.example"},
		{"_dmarc.example", "_dmarc.example"},
		{"_443._tcp.example", "_443._tcp.example"},
		{"__a.example", "__a.example"},
		{"localhost", "localhost"},
		{"b\xc3\xbc"
		 "cher.example",
		 "xn--bcher-kva.example"},
		{"B\xc3\x9c"
		 "CHER.Example",
		 "xn--bcher-kva.example"},
		{"_dmarc.b\xc3\xbc"
		 "cher.example",
		 "_dmarc.xn--bcher-kva.example"},
		{"fa\xc3\x9f.example", "xn--fa-hia.example"}, /* nontransitional: sharp s stays itself */
		{"xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"\xe4\xbe\x8b\xe3\x81\x88.\xe3\x83\x86\xe3\x82\xb9\xe3\x83\x88", "xn--r8jz45g.xn--zckzah"},
		{A63 ".example", A63 ".example"},
		{A63 "." A63 "." A63 "." A61, A63 "." A63 "." A63 "." A61},
		{"a--b.example", "a--b.example"},
		{"0x7f.example", "0x7f.example"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct domain domain = parse(table[i].text), again;
		char text[DOMAIN_TEXT_MAX];

		assert_string_equal(domain_format(&domain, text), table[i].expected);
		assert_int_equal(domain_from_wire(domain.wire, domain.length, &again), domain.length);
		assert_memory_equal(&domain, &again, sizeof(domain));
	}
}

static void refuses_what_is_no_host_name(void **state)
{
	static const char *const table[] = {
		"",
		".",
		"..",
		".example",
		"a..example",
		"example..",
		"-a.example",
		"a-.example",
		"_-a.example",
		"a_b.example",
		"a_.example",
		"_.example",
		"a b.example",
		"a/b.example",
		"a:443",
		"*.example",
		"a.*.example",
		"ex\\.ample",
		"a\001.example",
		"\xff\xfe.example",     /* not UTF-8 */
		"\xef\xbc\x8a.example", /* fullwidth star: maps to "*" */
		"a\xe3\x80\x82"
		"b.example",                                    /* ideographic full stop: maps to "." */
		"\xc2\xad.example",                             /* soft hyphen alone: maps to nothing */
		"\xe2\x80\x8d.example",                         /* zero width joiner */
		"\xf0\x9f\x92\xa9\xcc\x80\xe2\x80\x8e.example", /* left-to-right mark */
		A63 "a.example",
		A63 "." A63 "." A63 "." A61 "a",
		"10.0.0.256",
		"1.2.3",
		"443",
		"a.example.1",
		"\xc2\xbd.1",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct domain domain;

		if (!domain_parse(table[i], &domain))
			fail_msg("\"%s\" (%zu) was accepted", table[i], i);
		assert_int_equal(domain.length, 0);
	}
}

static void reads_wire_names(void **state)
{
	static const uint8_t mixed[] = "\003WwW\007ExAmPlE";
	static const struct {
		const char *wire;
		size_t size, taken;
		const char *text;
	} table[] = {
		{"\0", 1, 1, "."},
		{"\001a\0xyz", 6, 3, "a"},
		{"\003a.b\0", 5, 5, "a\\046b"},
		{"\004\377\\ \n\0", 6, 6, "\\255\\092\\032\\010"},
		{"", 0, 0, NULL},
		{"\001", 1, 0, NULL},
		{"\001a", 2, 0, NULL},
		{"\005abc\0", 5, 0, NULL},
		{"\300\014", 2, 0, NULL},
		{"\100aaaa", 5, 0, NULL},
	};
	struct domain domain;
	char text[DOMAIN_TEXT_MAX];

	(void)state;
	assert_int_equal(domain_from_wire(mixed, sizeof(mixed), &domain), sizeof(mixed));
	assert_string_equal(domain_format(&domain, text), "www.example");
	for (size_t i = 0; i < COUNT(table); i++) {
		assert_int_equal(domain_from_wire((const uint8_t *)table[i].wire, table[i].size, &domain), table[i].taken);
		if (table[i].taken)
			assert_string_equal(domain_format(&domain, text), table[i].text);
	}
}

/* 255 octets pass, 256 do not, and the longest text fits. */
static void holds_the_limits_of_wire_names(void **state)
{
	uint8_t wire[300];
	struct domain domain;
	char text[DOMAIN_TEXT_MAX];

	(void)state;
	memset(wire, 0xee, sizeof(wire));
	wire[0] = wire[64] = wire[128] = 63;
	wire[192] = 61;
	wire[254] = 0;
	assert_int_equal(domain_from_wire(wire, sizeof(wire), &domain), 255);
	assert_int_equal(strlen(domain_format(&domain, text)), 4 * 250 + 3);
	assert_int_equal(domain_labels(&domain), 4);
	wire[192] = 62;
	wire[255] = 0;
	assert_int_equal(domain_from_wire(wire, sizeof(wire), &domain), 0);
}

static void walks_up(void **state)
{
	struct domain name = parse("a.b.example"), other = parse("xa.b.example");

	(void)state;
	assert_int_equal(domain_labels(&name), 3);
	assert_false(domain_equal(&name, &other));
	assert_true(domain_parent(&name, &name));
	assert_true(domain_parent(&other, &other));
	assert_true(domain_equal(&name, &other));
	assert_memory_equal(&name, &other, sizeof(name));
	assert_true(domain_parent(&name, &name));
	assert_true(domain_parent(&name, &name));
	assert_int_equal(domain_labels(&name), 0);
	assert_false(domain_parent(&name, &name));
}

static void knows_what_is_below(void **state)
{
	static const struct {
		const char *name, *base;
		bool below;
	} table[] = {
		{"a.example", "example", true},
		{"a.b.example", "example", true},
		{"example", "example", false},
		{"aexample", "example", false},
		{"example", "a.example", false},
		{"a.example", ".", true},
		{".", ".", false},
		{".", "example", false},
		{"b.a.example", "a.example", true},
		{"ba.example", "a.example", false},
	};
	/* A label whose text holds the wire form of the base is not below it. */
	struct domain tricky, base = parse("com");

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct domain name = parse(table[i].name), above = parse(table[i].base);

		assert_int_equal(domain_is_below(&name, &above), table[i].below);
	}
	assert_int_equal(domain_from_wire((const uint8_t *)"\006ab\003com", 8, &tricky), 8);
	assert_false(domain_is_below(&tricky, &base));
}

static void parses_patterns(void **state)
{
	static const struct {
		const char *text;
		enum pattern_kind kind;
		const char *canonical;
		bool warned;
	} table[] = {
		{"github.com", PATTERN_EXACT, "github.com", false},
		{"*.github.com.", PATTERN_BELOW, "*.github.com", false},
		{"**.GitHub.com", PATTERN_TREE, "**.github.com", false},
		{"*", PATTERN_ANY, "*", false},
		{"com", PATTERN_EXACT, "com", false},
		{"co.uk", PATTERN_EXACT, "co.uk", false},
		{"*.test", PATTERN_BELOW, "*.test", false},
		{"**.example", PATTERN_TREE, "**.example", false},
		{"*.internal", PATTERN_BELOW, "*.internal", false},
		{"**.corp.example", PATTERN_TREE, "**.corp.example", false},
		{"*.github.io", PATTERN_BELOW, "*.github.io", true},
		{"**.github.io", PATTERN_TREE, "**.github.io", true},
		{"*.x.github.io", PATTERN_BELOW, "*.x.github.io", false},
		{"*.example.co.uk", PATTERN_BELOW, "*.example.co.uk", false},
		{"*.www.ck", PATTERN_BELOW, "*.www.ck", false}, /* an exception of *.ck */
		{"*.a.foo.ck", PATTERN_BELOW, "*.a.foo.ck", false},
		{"*.city.kawasaki.jp", PATTERN_BELOW, "*.city.kawasaki.jp", false},
		{"**.10.in-addr.arpa", PATTERN_TREE, "**.10.in-addr.arpa", false},
		{"*._tcp.example.com", PATTERN_BELOW, "*._tcp.example.com", false},
		{"*.b\xc3\xbc"
		 "cher.example",
		 PATTERN_BELOW, "*.xn--bcher-kva.example", false},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct pattern out;
		const char *warning = "unset", *error = pattern_parse(table[i].text, &out, &warning);
		char text[DOMAIN_TEXT_MAX];

		if (error)
			fail_msg("%s: %s", table[i].text, error);
		assert_int_equal(out.kind, table[i].kind);
		assert_string_equal(pattern_format(&out, text), table[i].canonical);
		assert_int_equal(warning != NULL, table[i].warned);
	}
}

static void refuses_patterns(void **state)
{
	static const char *const table[] = {
		"",
		"**",
		"*.",
		"**.",
		"***.example",
		"*.*",
		"*.*.example",
		"a.*.example",
		"a*.example",
		"*a.example",
		"example.*",
		"*.com",
		"**.com",
		"*.co.uk",
		"**.co.uk",
		"*.COM.",
		"*.ck",
		"*.foo.ck",
		"*.uk",
		"*.kawasaki.jp",
		"*.foo.kawasaki.jp",
		"*.xn--p1ai",
		"*.\xd1\x80\xd1\x84",
		".*.example",
		"* .example",
		"**.example..",
		"*..example",
		"*.\xef\xbd\x83om",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct pattern out;
		const char *warning;

		if (!pattern_parse(table[i], &out, &warning))
			fail_msg("\"%s\" was accepted", table[i]);
	}
}

static void matches_as_documented(void **state)
{
	static const struct {
		const char *pattern, *name;
		bool matches;
	} table[] = {
		{"github.com", "github.com", true},
		{"github.com", "a.github.com", false},
		{"*.github.com", "github.com", false},
		{"*.github.com", "a.github.com", true},
		{"*.github.com", "a.b.github.com", true},
		{"*.github.com", "agithub.com", false},
		{"**.github.com", "github.com", true},
		{"**.github.com", "a.b.github.com", true},
		{"**.github.com", "com", false},
		{"*", "anything.example", true},
		{"*", "x", true},
		{"*", ".", true},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct pattern left = pattern(table[i].pattern);
		struct domain name = parse(table[i].name);

		assert_int_equal(pattern_matches(&left, &name), table[i].matches);
	}
}

/* All names of up to four labels over a two-letter alphabet, and all patterns whose base has up to two. */
static const char *const small_patterns[] = {
	"*", "a", "b", "a.a", "b.a", "a.b", "*.a", "*.b", "*.a.a", "*.b.a", "*.a.b", "**.a", "**.b", "**.a.a", "**.b.a", "**.a.b",
};

static size_t small_names(struct domain *out)
{
	size_t count = 0;

	for (unsigned int labels = 0; labels <= 4; labels++) {
		for (unsigned int bits = 0; bits < 1U << labels; bits++) {
			struct domain *name = &out[count++];

			*name = (struct domain){.length = (uint8_t)(2 * labels + 1)};
			for (unsigned int i = 0; i < labels; i++) {
				name->wire[2 * i] = 1;
				name->wire[2 * i + 1] = bits >> i & 1 ? 'b' : 'a';
			}
		}
	}
	return count;
}

static void overlap_and_above_agree_with_brute_force(void **state)
{
	static struct domain names[31];
	size_t count = small_names(names);

	(void)state;
	assert_int_equal(count, COUNT(names));
	for (size_t i = 0; i < COUNT(small_patterns); i++) {
		struct pattern left = pattern(small_patterns[i]);

		for (size_t j = 0; j < COUNT(small_patterns); j++) {
			struct pattern right = pattern(small_patterns[j]);
			bool expected = false;

			for (size_t n = 0; n < count; n++)
				expected |= pattern_matches(&left, &names[n]) && pattern_matches(&right, &names[n]);
			if (pattern_overlaps(&left, &right) != expected || pattern_overlaps(&right, &left) != expected)
				fail_msg("%s and %s", small_patterns[i], small_patterns[j]);
		}
		/* Names of three labels at most, so that there are names below them. */
		for (size_t n = 0; n < count && domain_labels(&names[n]) <= 3; n++) {
			bool expected = false;

			for (size_t m = 0; m < count; m++)
				expected |= pattern_matches(&left, &names[m]) && domain_is_below(&names[m], &names[n]);
			assert_int_equal(pattern_is_above(&left, &names[n]), expected && left.kind != PATTERN_ANY);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parses_host_names),
		cmocka_unit_test(refuses_what_is_no_host_name),
		cmocka_unit_test(reads_wire_names),
		cmocka_unit_test(holds_the_limits_of_wire_names),
		cmocka_unit_test(walks_up),
		cmocka_unit_test(knows_what_is_below),
		cmocka_unit_test(parses_patterns),
		cmocka_unit_test(refuses_patterns),
		cmocka_unit_test(matches_as_documented),
		cmocka_unit_test(overlap_and_above_agree_with_brute_force),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
