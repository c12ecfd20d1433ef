/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "resolver/cache.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const uint8_t OWNER[] = "\1a\7example";

static struct cache_key key_of(const char *name, uint16_t type)
{
	struct domain domain;
	struct cache_key key;

	assert_null(domain_parse(name, &domain));
	cache_key_init(&key, &domain, type, false, false, "");
	return key;
}

/* An SOA whose last field, MINIMUM, is given; the names in it are the root. */
static void add_soa(struct answer *answer, uint32_t ttl, uint32_t minimum)
{
	uint8_t rdata[22] = {0};

	for (int i = 0; i < 4; i++)
		rdata[18 + i] = (uint8_t)(minimum >> (24 - 8 * i));
	assert_int_equal(answer_add_authority(answer, OWNER + 2, 9, TYPE_SOA, ttl, rdata, sizeof(rdata)), 0);
}

struct lifetime_case {
	const char *what;
	uint16_t rcode;
	bool truncated;
	int cname_ttl, a_ttl, soa_ttl, soa_minimum; /* -1: no such record */
	uint32_t seconds;
};

static const struct lifetime_case lifetimes[] = {
	{"an address", RCODE_NOERROR, false, -1, 60, -1, 0, 60},
	{"the smallest of a chain", RCODE_NOERROR, false, 5, 60, -1, 0, 5},
	{"TTL 0", RCODE_NOERROR, false, -1, 0, -1, 0, 0},
	{"a day at most", RCODE_NOERROR, false, -1, 2000000000, -1, 0, CACHE_TTL_MAX},
	{"truncated", RCODE_NOERROR, true, -1, 60, -1, 0, 0},
	{"an SOA beside an address does not count", RCODE_NOERROR, false, -1, 60, 1, 1, 60},
	{"NODATA, TTL smaller", RCODE_NOERROR, false, -1, -1, 7, 300, 7},
	{"NODATA, MINIMUM smaller", RCODE_NOERROR, false, -1, -1, 300, 7, 7},
	{"NODATA without SOA", RCODE_NOERROR, false, -1, -1, -1, 0, 0},
	{"NODATA at the end of a chain", RCODE_NOERROR, false, 60, -1, 20, 20, 20},
	{"a chain that only ends", RCODE_NOERROR, false, 60, -1, -1, 0, 60},
	{"NXDOMAIN", RCODE_NXDOMAIN, false, -1, -1, 30, 40, 30},
	{"NXDOMAIN without SOA", RCODE_NXDOMAIN, false, -1, -1, -1, 0, 0},
	{"NXDOMAIN at the end of a chain", RCODE_NXDOMAIN, false, 3, -1, 30, 40, 3},
	{"negative, 15 minutes at most", RCODE_NXDOMAIN, false, -1, -1, 86400, 86400, CACHE_NEGATIVE_TTL_MAX},
	{"SERVFAIL", RCODE_SERVFAIL, false, -1, -1, -1, 0, CACHE_FAILURE_TTL},
	{"REFUSED", RCODE_REFUSED, false, -1, -1, 30, 30, 0},
};

static struct answer *answer_of(const struct lifetime_case *from)
{
	struct answer *answer = answer_new(from->rcode, 3, 200);

	assert_non_null(answer);
	answer->truncated = from->truncated;
	if (from->cname_ttl >= 0)
		assert_int_equal(answer_add(answer, OWNER, 11, TYPE_CNAME, (uint32_t)from->cname_ttl, OWNER + 2, 9), 0);
	if (from->a_ttl >= 0)
		assert_int_equal(answer_add(answer, OWNER, 11, TYPE_A, (uint32_t)from->a_ttl, OWNER, 4), 0);
	if (from->soa_ttl >= 0)
		add_soa(answer, (uint32_t)from->soa_ttl, (uint32_t)from->soa_minimum);
	return answer;
}

static void answers_live_as_long_as_their_ttl(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(lifetimes); i++) {
		struct cache *cache = cache_new(100000);
		struct cache_key key = key_of("a.example", TYPE_A);
		uint64_t end = 5000 + lifetimes[i].seconds * 1000ULL;
		uint32_t age = 99;
		bool last, after;

		cache_put(cache, &key, answer_of(&lifetimes[i]), 5000);
		last = lifetimes[i].seconds > 0 && cache_get(cache, &key, end - 1, &age) != NULL;
		if (last)
			assert_int_equal(age, lifetimes[i].seconds - 1);
		after = cache_get(cache, &key, end, &age) != NULL;
		if (last != (lifetimes[i].seconds > 0) || after)
			fail_msg("%s: not kept for %u s", lifetimes[i].what, lifetimes[i].seconds);
		/* what has records may still serve where look-ups fail */
		assert_null(cache_get(cache, &key, end + CACHE_STALE_MS, &age));
		assert_int_equal(cache_count(cache), 0);
		assert_int_equal(cache_bytes(cache), 0);
		cache_free(cache);
	}
}

static struct answer *small_answer(void)
{
	return answer_of(&(struct lifetime_case){"", RCODE_NOERROR, false, -1, 60, -1, 0, 0});
}

static void every_part_of_the_key_counts(void **state)
{
	struct cache *cache = cache_new(100000);
	struct cache_key key = key_of("a.example", TYPE_A), other[5];
	uint32_t age;

	(void)state;
	other[0] = key_of("b.example", TYPE_A);
	other[1] = key_of("a.example", TYPE_AAAA);
	cache_key_init(&other[2], &key.name, TYPE_A, true, false, "");
	cache_key_init(&other[3], &key.name, TYPE_A, false, true, "");
	cache_key_init(&other[4], &key.name, TYPE_A, false, false, "corp");
	cache_put(cache, &key, small_answer(), 0);
	for (size_t i = 0; i < COUNT(other); i++)
		assert_null(cache_get(cache, &other[i], 0, &age));
	assert_non_null(cache_get(cache, &key, 0, &age));
	cache_free(cache);
}

static void a_newer_answer_replaces_an_older_one(void **state)
{
	struct cache *cache = cache_new(100000);
	struct cache_key key = key_of("a.example", TYPE_A);
	struct answer *second;
	size_t bytes;
	uint32_t age;

	(void)state;
	cache_put(cache, &key, small_answer(), 0);
	bytes = cache_bytes(cache);
	second = small_answer();
	cache_put(cache, &key, second, 10000);
	assert_ptr_equal(cache_get(cache, &key, 20500, &age), second);
	assert_int_equal(age, 10);
	assert_int_equal(cache_bytes(cache), bytes);
	assert_int_equal(cache_count(cache), 1);
	cache_free(cache);
}

static void a_failure_does_not_replace_an_answer(void **state)
{
	struct cache *cache = cache_new(100000);
	struct cache_key key = key_of("a.example", TYPE_A);
	uint32_t age;

	(void)state;
	cache_put(cache, &key, small_answer(), 0);
	cache_put(cache, &key, answer_new(RCODE_SERVFAIL, 0, 0), 1000);
	assert_int_equal(cache_get(cache, &key, 2000, &age)->rcode, RCODE_NOERROR);
	cache_put(cache, &key, answer_new(RCODE_SERVFAIL, 0, 0), 60000);
	assert_null(cache_get(cache, &key, 60500, &age));
	assert_int_equal(cache_get_stale(cache, &key, 60500)->rcode, RCODE_NOERROR);
	cache_free(cache);
}

static void an_answer_past_its_end_serves_where_a_look_up_failed(void **state)
{
	struct cache *cache = cache_new(100000);
	struct cache_key key = key_of("a.example", TYPE_A);
	bool recheck;
	uint32_t age;

	(void)state;
	cache_put(cache, &key, small_answer(), 0);
	assert_null(cache_get(cache, &key, 60000, &age));
	assert_null(cache_get_failing(cache, &key, 60000, &recheck)); /* no look-up has failed yet */
	assert_non_null(cache_get_stale(cache, &key, 60000));
	assert_non_null(cache_get_failing(cache, &key, 60001, &recheck));
	assert_false(recheck);
	assert_non_null(cache_get_failing(cache, &key, 60000 + CACHE_RECHECK_MS, &recheck));
	assert_true(recheck);
	assert_non_null(cache_get_failing(cache, &key, 60001 + CACHE_RECHECK_MS, &recheck));
	assert_false(recheck);
	cache_put(cache, &key, small_answer(), 70000);
	assert_non_null(cache_get(cache, &key, 70000, &age));
	assert_null(cache_get_failing(cache, &key, 130000, &recheck)); /* the last one did not fail */
	assert_null(cache_get_stale(cache, &key, 130000 + CACHE_STALE_MS));
	cache_free(cache);
}

static void only_what_was_asked_for_serves_beyond_its_end(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(lifetimes); i++) {
		struct cache *cache = cache_new(100000);
		struct cache_key key = key_of("a.example", TYPE_A);
		const struct lifetime_case *from = &lifetimes[i];
		bool has_records = from->rcode == RCODE_NOERROR && !from->truncated &&
				   (from->a_ttl >= 0 || (from->cname_ttl >= 0 && from->soa_ttl < 0));

		cache_put(cache, &key, answer_of(from), 5000);
		if ((cache_get_stale(cache, &key, 5000 + from->seconds * 1000ULL) != NULL) != has_records)
			fail_msg("%s", from->what);
		cache_free(cache);
	}
}

static struct cache_key numbered_key(int number)
{
	char name[32];

	snprintf(name, sizeof(name), "n%d.example", number);
	return key_of(name, TYPE_A);
}

static void least_recently_used_answers_make_room(void **state)
{
	struct cache *cache = cache_new(100000);
	struct cache_key first = numbered_key(0), second = numbered_key(1), key;
	size_t full;
	uint32_t age;

	(void)state;
	for (int i = 0; i < 5000; i++) {
		key = numbered_key(i);
		cache_put(cache, &key, small_answer(), 0);
		assert_true(cache_bytes(cache) <= 100000);
		assert_non_null(cache_get(cache, &first, 0, &age));
	}
	assert_null(cache_get(cache, &second, 0, &age));
	assert_non_null(cache_get(cache, &key, 0, &age));
	full = cache_count(cache);
	assert_in_range(full, 50, 250);
	cache_clear(cache);
	assert_int_equal(cache_count(cache), 0);
	assert_int_equal(cache_bytes(cache), 0);
	assert_null(cache_get(cache, &first, 0, &age));
	cache_free(cache);
}

static void an_answer_larger_than_the_cache_is_not_kept(void **state)
{
	struct cache *cache = cache_new(2000);
	struct cache_key key = key_of("a.example", TYPE_A), big = key_of("b.example", TYPE_A);
	struct answer *answer = answer_new(RCODE_NOERROR, 1, 4000);
	uint32_t age;

	(void)state;
	cache_put(cache, &key, small_answer(), 0);
	assert_int_equal(answer_add(answer, OWNER, 11, TYPE_A, 60, OWNER, 4), 0);
	cache_put(cache, &big, answer, 0);
	assert_null(cache_get(cache, &big, 0, &age));
	assert_non_null(cache_get(cache, &key, 0, &age));
	cache_free(cache);
	cache_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_live_as_long_as_their_ttl),
		cmocka_unit_test(every_part_of_the_key_counts),
		cmocka_unit_test(a_newer_answer_replaces_an_older_one),
		cmocka_unit_test(a_failure_does_not_replace_an_answer),
		cmocka_unit_test(an_answer_past_its_end_serves_where_a_look_up_failed),
		cmocka_unit_test(only_what_was_asked_for_serves_beyond_its_end),
		cmocka_unit_test(least_recently_used_answers_make_room),
		cmocka_unit_test(an_answer_larger_than_the_cache_is_not_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
