/* SPDX-License-Identifier: MIT */
/* mapping.c is included so that its allocations can be made to fail. */
#include <stdlib.h>

static unsigned int allocations_left = ~0U;

static void *try_calloc(size_t count, size_t size)
{
	if (allocations_left == 0)
		return NULL;
	allocations_left--;
	return calloc(count, size);
}

#define calloc(count, size) try_calloc((count), (size))
#define uthash_malloc(size) try_calloc(1, (size))
#include "common/mapping.c"
#undef calloc

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define IDLE      60000 /* ms */
#define TEXT_MAX  4096
#define REALS_MAX 16

static struct address addr(const char *text)
{
	struct address address;
	assert_true(address_parse(text, &address));
	return address;
}

static struct prefix prefix(const char *text)
{
	struct prefix out;
	assert_true(prefix_parse(text, &out, NULL));
	return out;
}

static struct domain name(const char *text)
{
	struct domain domain;
	assert_null(domain_parse(text, &domain));
	return domain;
}

static struct network network_of(const char *subnet, const char *gateway, const char *pool)
{
	struct network network = {.id = 1, .has_virtual_addresses = true, .per_name = 2};
	struct prefix inside = prefix(subnet);
	if (inside.address.family == AF_INET) {
		network.subnet4 = inside;
		network.gateway4 = addr(gateway);
		network.pool4 = prefix(pool);
	} else {
		network.subnet6 = inside;
		network.gateway6 = addr(gateway);
		network.pool6 = prefix(pool);
	}
	return network;
}

/* A pool of four addresses, none of them reserved. */
static struct network four(void)
{
	return network_of("10.0.0.0/24", "10.0.0.1", "10.0.0.128/30");
}

/* --- what the host is asked and told --- */

struct host {
	struct mapping_table *table;
	char kept[256]; /* " a.example b.example ": may not go; "*": nobody may */
	unsigned int asked;
	uint32_t ttl;        /* seconds, of answers */
	bool stale;          /* answers are past their end */
	uint64_t idle;       /* ms */
	char gone[TEXT_MAX]; /* "ADDRESS=NAME " for each */
};

static void append(char out[static TEXT_MAX], const char *text)
{
	size_t length = strlen(out);
	assert_true(length + strlen(text) < TEXT_MAX);
	strcpy(out + length, text);
}

static bool may_go(void *context, const struct mapping *mapping)
{
	struct host *host = context;
	char text[DOMAIN_TEXT_MAX], word[DOMAIN_TEXT_MAX + 2];
	host->asked++;
	snprintf(word, sizeof(word), " %s ", domain_format(&mapping->name, text));
	return strcmp(host->kept, "*") != 0 && !strstr(host->kept, word);
}

static void gone(void *context, const struct mapping *mapping)
{
	struct host *host = context;
	char address[ADDRESS_TEXT_MAX], text[DOMAIN_TEXT_MAX], word[DOMAIN_TEXT_MAX + ADDRESS_TEXT_MAX + 2];
	snprintf(word, sizeof(word), "%s=%s ", address_format(&mapping->address, address), domain_format(&mapping->name, text));
	append(host->gone, word);
}

static int new_host(void **state)
{
	struct host *host = calloc(1, sizeof(*host));
	if (!host)
		return -1;
	host->table = mapping_table_new();
	host->idle = IDLE;
	*state = host;
	return host->table ? 0 : -1;
}

static int free_host(void **state)
{
	struct host *host = *state;
	mapping_table_free(host->table);
	free(host);
	return 0;
}

/* --- questions and what comes of them --- */

static size_t parse_reals(const char *text, struct address out[static REALS_MAX])
{
	char copy[TEXT_MAX], *rest = copy, *word;
	size_t count = 0;
	snprintf(copy, sizeof(copy), "%s", text);
	while ((word = strsep(&rest, " "))) {
		assert_true(count < REALS_MAX);
		out[count++] = addr(word);
	}
	return count;
}

static void append_mapping(char out[static TEXT_MAX], const struct mapping *mapping)
{
	char address[ADDRESS_TEXT_MAX], real[ADDRESS_TEXT_MAX], word[2 * ADDRESS_TEXT_MAX + 2];
	snprintf(word, sizeof(word), "%s>%s ", address_format(&mapping->address, address), address_format(&mapping->real, real));
	append(out, word);
}

/* "VIRTUAL>REAL " for each mapping of the name, with "| " before those that are not shown; or the error. */
static const char *assign(struct host *host, const struct network *network, const char *text, const char *reals, uint64_t now, bool asked)
{
	static char out[TEXT_MAX];
	struct address addresses[REALS_MAX];
	struct domain domain = name(text);
	struct mapping_answer answer = {.network = network,
					.name = &domain,
					.reals = addresses,
					.real_count = parse_reals(reals, addresses),
					.ttl = host->ttl,
					.asked = asked,
					.stale = host->stale,
					.now = now,
					.idle = host->idle,
					.may_go = may_go,
					.gone = gone,
					.context = host};
	const struct mapping *mappings[MAPPING_PER_NAME_MAX];
	size_t count, shown;
	int error = mapping_assign(host->table, &answer, mappings, &count, &shown);
	if (error)
		return error == -ENOSPC ? "ENOSPC" : error == -ENOMEM ? "ENOMEM" : "another error";
	out[0] = '\0';
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(mappings[i]->slot, i);
		assert_ptr_equal(mapping_find(host->table, network->id, &mappings[i]->address), mappings[i]);
		assert_true(domain_equal(&mappings[i]->name, &domain));
		assert_int_equal(mappings[i]->network, network->id);
		assert_int_equal(mappings[i]->answered, now);
		assert_int_equal(mappings[i]->ttl, host->ttl);
		assert_int_equal(mappings[i]->stale, host->stale);
		if (i == shown)
			append(out, "| ");
		append_mapping(out, mappings[i]);
	}
	return out;
}

static const char *ask(struct host *host, const struct network *network, const char *text, const char *reals, uint64_t now)
{
	return assign(host, network, text, reals, now, true);
}

/* Take all that is left of the pool, each name one address. Return: how many. */
static unsigned int fill(struct host *host, const struct network *network, const char *real, uint64_t now)
{
	char text[32];
	for (unsigned int i = 0;; i++) {
		snprintf(text, sizeof(text), "fill%u.example", i);
		if (strcmp(ask(host, network, text, real, now), "ENOSPC") == 0)
			return i;
	}
}

static bool is_taken(const struct host *host, const char *text)
{
	struct address address = addr(text);
	return mapping_find(host->table, 1, &address) != NULL;
}

/* --- names and their addresses --- */

static void test_order_of_the_answer_changes_nothing(void **state)
{
	struct network network = four();
	const char *expected = "10.0.0.128>192.0.2.1 10.0.0.129>192.0.2.2 10.0.0.130>192.0.2.3 ";
	network.per_name = 3;
	assert_string_equal(ask(*state, &network, "a.example", "192.0.2.1 192.0.2.2 192.0.2.3", 1), expected);
	assert_string_equal(ask(*state, &network, "a.example", "192.0.2.3 192.0.2.1 192.0.2.2", 2), expected);
	assert_string_equal(ask(*state, &network, "a.example", "192.0.2.2 192.0.2.3 192.0.2.1", 3), expected);
}

static void test_as_many_as_real_ones_and_per_name_at_most(void **state)
{
	struct host *host = *state;
	struct network network = four();
	const char *nine = "192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5 192.0.2.6 192.0.2.7 192.0.2.8 192.0.2.9";
	assert_string_equal(ask(host, &network, "a.example", "192.0.2.1", 1), "10.0.0.128>192.0.2.1 ");
	assert_string_equal(ask(host, &network, "a.example", nine, 2), "10.0.0.128>192.0.2.1 10.0.0.129>192.0.2.2 ");
	network.pool4 = prefix("10.0.0.128/25");
	network.per_name = 100;
	ask(host, &network, "a.example", nine, 3);
	assert_int_equal(mapping_table_count(host->table), MAPPING_PER_NAME_MAX);
	network.per_name = 1;
	ask(host, &network, "b.example", nine, 4);
	assert_int_equal(mapping_table_count(host->table), MAPPING_PER_NAME_MAX + 1);
}

static void test_real_that_stays_keeps_its_slot(void **state)
{
	struct network network = four();
	network.per_name = 3;
	ask(*state, &network, "a.example", "192.0.2.1 192.0.2.2 192.0.2.3", 1);
	assert_string_equal(ask(*state, &network, "a.example", "192.0.2.8 192.0.2.3 192.0.2.9 192.0.2.1", 2),
			    "10.0.0.128>192.0.2.1 10.0.0.129>192.0.2.8 10.0.0.130>192.0.2.3 ");
	assert_string_equal(ask(*state, &network, "a.example", "192.0.2.7 192.0.2.6 192.0.2.5", 3),
			    "10.0.0.128>192.0.2.7 10.0.0.129>192.0.2.6 10.0.0.130>192.0.2.5 ");
}

static void test_slots_left_over_lead_to_current_addresses(void **state)
{
	struct network network = four();
	network.per_name = 3;
	ask(*state, &network, "a.example", "192.0.2.1 192.0.2.2 192.0.2.3", 1);
	assert_string_equal(ask(*state, &network, "a.example", "192.0.2.2", 2),
			    "10.0.0.128>192.0.2.2 | 10.0.0.129>192.0.2.2 10.0.0.130>192.0.2.2 ");
	/* They part again. */
	assert_string_equal(ask(*state, &network, "a.example", "192.0.2.1 192.0.2.2", 3),
			    "10.0.0.128>192.0.2.2 10.0.0.129>192.0.2.1 | 10.0.0.130>192.0.2.2 ");
	/* The answer in another order moves none of them. */
	assert_string_equal(ask(*state, &network, "a.example", "192.0.2.2 192.0.2.1", 3),
			    "10.0.0.128>192.0.2.2 10.0.0.129>192.0.2.1 | 10.0.0.130>192.0.2.2 ");
	assert_string_equal(ask(*state, &network, "a.example", "192.0.2.4 192.0.2.1 192.0.2.2", 4),
			    "10.0.0.128>192.0.2.2 10.0.0.129>192.0.2.1 10.0.0.130>192.0.2.4 ");
}

static void test_repeated_reals_are_harmless(void **state)
{
	struct network network = four();
	assert_string_equal(ask(*state, &network, "a.example", "192.0.2.1 192.0.2.1", 1), "10.0.0.128>192.0.2.1 ");
	assert_string_equal(ask(*state, &network, "a.example", "192.0.2.1 192.0.2.1", 2), "10.0.0.128>192.0.2.1 ");
}

static void test_networks_and_families_are_independent(void **state)
{
	struct host *host = *state;
	struct network one = four(), two = four(), six = network_of("fd00::/64", "fd00::1", "fd00::80/127");
	struct address virtual = addr("10.0.0.128");
	two.id = 2;
	one.subnet6 = six.subnet6;
	one.gateway6 = six.gateway6;
	one.pool6 = six.pool6;
	assert_string_equal(ask(host, &one, "a.example", "192.0.2.1", 1), "10.0.0.128>192.0.2.1 ");
	assert_string_equal(ask(host, &one, "a.example", "2001:db8::1", 1), "fd00::80>2001:db8::1 ");
	assert_string_equal(ask(host, &two, "b.example", "192.0.2.2", 1), "10.0.0.128>192.0.2.2 ");
	assert_string_equal(ask(host, &one, "a.example", "192.0.2.3", 1), "10.0.0.128>192.0.2.3 ");
	assert_string_equal(ask(host, &one, "a.example", "2001:db8::1", 1), "fd00::80>2001:db8::1 ");
	/* What one is full of is the other's own matter, and so is who goes. */
	assert_int_equal(fill(host, &one, "192.0.2.9", 1 + IDLE), 4);
	assert_string_equal(host->gone, "10.0.0.128=a.example ");
	assert_string_equal(ask(host, &one, "a.example", "2001:db8::1", 2), "fd00::80>2001:db8::1 ");
	assert_string_equal(ask(host, &two, "c.example", "192.0.2.3", 2), "10.0.0.129>192.0.2.3 ");
	mapping_touch(host->table, 2, &virtual, 99999);
	assert_int_equal(mapping_find(host->table, 1, &virtual)->used, 1 + IDLE);
	assert_int_equal(mapping_find(host->table, 2, &virtual)->used, 99999);
	assert_null(mapping_find(host->table, 3, &virtual));
}

/* --- which addresses --- */

struct pool_case {
	const char *subnet, *gateway, *pool;
	unsigned int usable;
	const char *out; /* words: addresses that are not given to names */
	const char *in;  /* words: addresses that are */
};

static const struct pool_case pool_cases[] = {
	{"10.0.0.0/24", "10.0.0.1", "10.0.0.128/25", 127, "10.0.0.255 10.0.0.127", "10.0.0.128 10.0.0.254"},
	{"10.0.0.0/24", "10.0.0.130", "10.0.0.128/25", 126, "10.0.0.130 10.0.0.255", "10.0.0.129 10.0.0.131"},
	{"10.0.0.0/24", "10.0.0.1", "10.0.0.0/24", 253, "10.0.0.0 10.0.0.1 10.0.0.255", "10.0.0.2 10.0.0.128"},
	/* The pool's own first and last addresses are ordinary ones. */
	{"10.0.0.0/16", "10.0.0.1", "10.0.128.0/24", 256, "10.0.127.255 10.0.129.0", "10.0.128.0 10.0.128.255"},
	{"10.0.0.0/24", "10.0.0.1", "10.0.0.200/31", 2, "10.0.0.199 10.0.0.202", "10.0.0.200 10.0.0.201"},
	{"10.0.0.0/24", "10.0.0.1", "10.0.0.254/31", 1, "10.0.0.255", "10.0.0.254"},
	{"10.0.0.0/24", "10.0.0.1", "10.0.0.7/32", 1, "10.0.0.6 10.0.0.8", "10.0.0.7"},
	{"10.0.0.0/24", "10.0.0.1", "10.0.0.1/32", 0, "10.0.0.1", ""},
	{"10.0.0.0/31", "10.0.0.1", "10.0.0.0/31", 1, "10.0.0.1", "10.0.0.0"},
	{"10.0.0.0/30", "10.0.0.1", "10.0.0.2/31", 1, "10.0.0.3", "10.0.0.2"},
	{"255.255.255.0/24", "255.255.255.1", "255.255.255.128/25", 127, "255.255.255.255", "255.255.255.254"},
	/* The top of all addresses. */
	{"255.255.255.254/31", "255.255.255.254", "255.255.255.255/32", 1, "255.255.255.254", "255.255.255.255"},
	{"10.0.0.0/8", "10.0.0.1", "10.128.0.0/9", 4096, "10.128.16.0 10.255.255.254", "10.128.0.0 10.128.15.255"},
	{"10.0.0.0/8", "10.0.0.1", "10.0.0.0/8", 4094, "10.0.0.0 10.0.0.1 10.0.16.0", "10.0.0.2 10.0.15.255"},
	{"0.0.0.0/0", "10.0.0.1", "0.0.0.0/0", 4095, "0.0.0.0 0.0.16.0 10.0.0.1", "0.0.0.1 0.0.15.255"},
	{"fd00::/64", "fd00::1", "fd00::/64", 4094, "fd00:: fd00::1 fd00::1000", "fd00::2 fd00::fff"},
	{"fd00::/64", "fd00::1", "fd00::8000:0:0:0/65", 4096, "fd00::8000:0:0:1000 fd00::ffff:ffff:ffff:ffff",
	 "fd00::8000:0:0:0 fd00::8000:0:0:fff"},
	{"fd00::/120", "fd00::1", "fd00::80/121", 128, "fd00::7f fd00::100", "fd00::80 fd00::ff"},
	{"fd00::/127", "fd00::1", "fd00::/127", 1, "fd00::1", "fd00::"},
	{"fd00::/64", "fd00::1", "fd00::7/128", 1, "fd00::8", "fd00::7"},
	{"::/0", "fd00::1", "::/0", 4095, ":: ::1000", "::1 ::fff"},
};

static void check_words(const struct host *host, const struct network *network, const char *words, bool expected)
{
	char copy[TEXT_MAX], *rest = copy, *word;
	snprintf(copy, sizeof(copy), "%s", words);
	while ((word = strsep(&rest, " "))) {
		struct address address;
		if (!*word)
			continue;
		address = addr(word);
		assert_int_equal(mapping_pool_has(network, &address), expected);
		assert_int_equal(is_taken(host, word), expected);
	}
}

static bool check_in_pool(void *context, const struct mapping *mapping)
{
	assert_true(mapping_pool_has(context, &mapping->address));
	return true;
}

static void test_addresses_of_pools(void **state)
{
	struct host *host = *state;
	for (size_t i = 0; i < sizeof(pool_cases) / sizeof(pool_cases[0]); i++) {
		const struct pool_case *pool = &pool_cases[i];
		struct network network = network_of(pool->subnet, pool->gateway, pool->pool);
		mapping_table_free(host->table);
		host->table = mapping_table_new();
		assert_non_null(host->table);
		assert_int_equal(fill(host, &network, network.pool4.address.family ? "192.0.2.1" : "2001:db8::1", 1), pool->usable);
		assert_int_equal(mapping_table_count(host->table), pool->usable);
		check_words(host, &network, pool->out, false);
		check_words(host, &network, pool->in, true);
		mapping_each(host->table, check_in_pool, &network);
	}
}

static void test_other_family_is_not_in_the_pool(void **state)
{
	struct network network = four();
	struct address six = addr("fd00::1"), none = {0};
	(void)state;
	assert_false(mapping_pool_has(&network, &six));
	assert_false(mapping_pool_has(&network, &none));
}

static bool drop_word(void *context, const struct mapping *mapping)
{
	char text[ADDRESS_TEXT_MAX], word[ADDRESS_TEXT_MAX + 2];
	snprintf(word, sizeof(word), " %s ", address_format(&mapping->address, text));
	return !strstr(context, word);
}

static void drop(struct host *host, const char *words)
{
	char copy[TEXT_MAX];
	snprintf(copy, sizeof(copy), " %s ", words);
	mapping_each(host->table, drop_word, copy);
}

static void test_first_free_address_is_taken(void **state)
{
	struct host *host = *state;
	struct network network = four();
	assert_int_equal(fill(host, &network, "192.0.2.1", 1), 4);
	drop(host, "10.0.0.129 10.0.0.130");
	assert_string_equal(ask(host, &network, "a.example", "192.0.2.1 192.0.2.2", 2), "10.0.0.129>192.0.2.1 10.0.0.130>192.0.2.2 ");
	drop(host, "10.0.0.131");
	drop(host, "10.0.0.128");
	assert_string_equal(ask(host, &network, "b.example", "192.0.2.1", 2), "10.0.0.128>192.0.2.1 ");
	assert_string_equal(ask(host, &network, "c.example", "192.0.2.1", 2), "10.0.0.131>192.0.2.1 ");
}

static void test_reload_with_other_addresses(void **state)
{
	struct host *host = *state;
	struct network network = four();
	assert_int_equal(fill(host, &network, "192.0.2.1", 1), 4);
	network.gateway4 = addr("10.0.0.129");
	network.pool4 = prefix("10.0.0.128/29");
	drop(host, "10.0.0.129");
	assert_string_equal(ask(host, &network, "a.example", "192.0.2.1", 2), "10.0.0.132>192.0.2.1 ");
	network.gateway4 = addr("10.0.0.1");
	assert_string_equal(ask(host, &network, "b.example", "192.0.2.1", 2), "10.0.0.129>192.0.2.1 ");
	/* Names keep what the caller leaves them; what is not the pool's is given to nobody. */
	network.pool4 = prefix("10.0.0.132/32");
	host->gone[0] = '\0';
	assert_string_equal(ask(host, &network, "b.example", "192.0.2.1", 3), "10.0.0.129>192.0.2.1 ");
	assert_string_equal(ask(host, &network, "c.example", "192.0.2.1", 3 + IDLE), "10.0.0.132>192.0.2.1 ");
	assert_string_equal(host->gone, "10.0.0.132=a.example ");
	drop(host, "10.0.0.128"); /* is free now, but not the pool's */
	assert_string_equal(ask(host, &network, "e.example", "192.0.2.1", 4), "ENOSPC");
	network.pool4 = prefix("10.0.0.192/31");
	assert_string_equal(ask(host, &network, "d.example", "192.0.2.1 192.0.2.2", 4), "10.0.0.192>192.0.2.1 10.0.0.193>192.0.2.2 ");
}

/* --- a full pool --- */

static void test_unused_for_longest_goes_with_all_its_addresses(void **state)
{
	struct host *host = *state;
	struct network network = four();
	struct address first;
	ask(host, &network, "a.example", "192.0.2.1 192.0.2.2", 10);
	ask(host, &network, "b.example", "192.0.2.1 192.0.2.2", 20);
	mapping_settle(host->table);
	assert_string_equal(ask(host, &network, "c.example", "192.0.2.3", 10 + IDLE), "10.0.0.128>192.0.2.3 ");
	assert_string_equal(host->gone, "10.0.0.128=a.example 10.0.0.129=a.example ");
	assert_false(is_taken(host, "10.0.0.129"));
	first = addr("10.0.0.128");
	assert_int_equal(mapping_find(host->table, 1, &first)->used, 10 + IDLE);
	/* The one that went is a new name now. */
	assert_string_equal(ask(host, &network, "a.example", "192.0.2.1 192.0.2.2", 11 + IDLE), "10.0.0.129>192.0.2.1 ");
	assert_int_equal(mapping_table_count(host->table), 4);
}

static void test_use_of_any_address_keeps_the_name(void **state)
{
	struct host *host = *state;
	struct network network = four();
	struct address second = addr("10.0.0.129");
	ask(host, &network, "a.example", "192.0.2.1 192.0.2.2", 10);
	ask(host, &network, "b.example", "192.0.2.1", 20);
	ask(host, &network, "c.example", "192.0.2.1", 30);
	mapping_touch(host->table, 1, &second, 25);
	ask(host, &network, "d.example", "192.0.2.1", 100 + IDLE);
	assert_string_equal(host->gone, "10.0.0.130=b.example ");
	ask(host, &network, "e.example", "192.0.2.1", 100 + IDLE);
	assert_string_equal(host->gone, "10.0.0.130=b.example 10.0.0.128=a.example 10.0.0.129=a.example ");
}

static void test_only_idle_names_go(void **state)
{
	struct host *host = *state;
	struct network network = four();
	ask(host, &network, "a.example", "192.0.2.1 192.0.2.2", 10);
	ask(host, &network, "b.example", "192.0.2.1 192.0.2.2", 20);
	mapping_settle(host->table);
	assert_string_equal(ask(host, &network, "c.example", "192.0.2.3", 9 + IDLE), "ENOSPC");
	assert_int_equal(host->asked, 0);
	assert_string_equal(host->gone, "");
	assert_int_equal(mapping_table_count(host->table), 4);
	assert_string_equal(ask(host, &network, "a.example", "192.0.2.1 192.0.2.2", 9 + IDLE),
			    "10.0.0.128>192.0.2.1 10.0.0.129>192.0.2.2 ");
	/* Now b is the one that was unused for longest. */
	assert_string_equal(ask(host, &network, "c.example", "192.0.2.3", 20 + IDLE), "10.0.0.130>192.0.2.3 ");
}

static void test_only_names_that_may_go_do(void **state)
{
	struct host *host = *state;
	struct network network = four();
	uint64_t now = 1000 + IDLE;
	ask(host, &network, "a.example", "192.0.2.1 192.0.2.2", 10);
	ask(host, &network, "b.example", "192.0.2.1", 20);
	ask(host, &network, "c.example", "192.0.2.1", 30);
	strcpy(host->kept, "*");
	assert_string_equal(ask(host, &network, "d.example", "192.0.2.1", now), "ENOSPC");
	assert_string_equal(host->gone, "");
	assert_int_equal(mapping_table_count(host->table), 4);
	strcpy(host->kept, " a.example b.example ");
	now += 1000;
	assert_string_equal(ask(host, &network, "d.example", "192.0.2.1", now), "10.0.0.131>192.0.2.1 ");
	assert_string_equal(host->gone, "10.0.0.131=c.example ");
}

static bool only_first_may_go(void *context, const struct mapping *mapping)
{
	(void)context;
	return mapping->slot == 0;
}

static void test_every_address_of_the_name_must_be_free_to_go(void **state)
{
	struct host *host = *state;
	struct network network = four();
	struct domain domain = name("z.example");
	struct address real = addr("192.0.2.1");
	struct mapping_answer answer = {.network = &network,
					.name = &domain,
					.reals = &real,
					.real_count = 1,
					.now = 99 + IDLE,
					.idle = IDLE,
					.may_go = only_first_may_go,
					.gone = gone,
					.context = host};
	const struct mapping *out[MAPPING_PER_NAME_MAX];
	size_t count, shown;
	ask(host, &network, "a.example", "192.0.2.1 192.0.2.2", 10);
	ask(host, &network, "b.example", "192.0.2.1 192.0.2.2", 20);
	assert_int_equal(mapping_assign(host->table, &answer, out, &count, &shown), -ENOSPC);
	assert_int_equal(mapping_table_count(host->table), 4);
}

static void test_further_addresses_are_taken_from_nobody(void **state)
{
	struct host *host = *state;
	struct network network = four();
	ask(host, &network, "a.example", "192.0.2.1 192.0.2.2", 10);
	ask(host, &network, "b.example", "192.0.2.1", 20);
	ask(host, &network, "c.example", "192.0.2.1", 30);
	assert_string_equal(ask(host, &network, "c.example", "192.0.2.1 192.0.2.2", 99 + IDLE), "10.0.0.131>192.0.2.1 ");
	assert_string_equal(host->gone, "");
	/* Those that are free by then are taken. */
	assert_string_equal(ask(host, &network, "d.example", "192.0.2.1 192.0.2.2", 99 + IDLE),
			    "10.0.0.128>192.0.2.1 10.0.0.129>192.0.2.2 ");
	drop(host, "10.0.0.130");
	assert_string_equal(ask(host, &network, "c.example", "192.0.2.2 192.0.2.1", 99 + IDLE),
			    "10.0.0.131>192.0.2.1 10.0.0.130>192.0.2.2 ");
}

/* --- times --- */

static void test_used_is_when_it_was_asked_for_or_a_flow_was_seen(void **state)
{
	struct host *host = *state;
	struct network network = four();
	struct address first = addr("10.0.0.128"), second = addr("10.0.0.129"), nobody = addr("10.0.0.130");
	const struct mapping *mapping;
	assign(host, &network, "a.example", "192.0.2.1", 10, false);
	mapping = mapping_find(host->table, 1, &first);
	assert_int_equal(mapping->used, 0);
	assert_int_equal(mapping->answered, 10);
	ask(host, &network, "a.example", "192.0.2.1", 20);
	assert_int_equal(mapping->used, 20);
	assign(host, &network, "a.example", "192.0.2.1 192.0.2.2", 30, false);
	assert_int_equal(mapping_find(host->table, 1, &first)->used, 20);
	assert_int_equal(mapping_find(host->table, 1, &second)->used, 20);
	mapping_touch(host->table, 1, &second, 40);
	mapping_touch(host->table, 1, &nobody, 40);
	assert_int_equal(mapping_find(host->table, 1, &first)->used, 40);
	assert_int_equal(mapping_find(host->table, 1, &second)->used, 40);
	mapping_touch(host->table, 1, &second, 35);
	assert_int_equal(mapping_find(host->table, 1, &second)->used, 40);
	assert_int_equal(mapping_find(host->table, 1, &second)->answered, 30);
	ask(host, &network, "a.example", "192.0.2.1", 50);
	assert_int_equal(mapping_find(host->table, 1, &second)->used, 50);
	assert_int_equal(mapping_table_count(host->table), 2);
}

static void test_never_used_goes_first(void **state)
{
	struct host *host = *state;
	struct network network = network_of("10.0.0.0/24", "10.0.0.1", "10.0.0.200/31");
	ask(host, &network, "a.example", "192.0.2.1", 10);
	assign(host, &network, "b.example", "192.0.2.1", 20, false);
	assert_string_equal(ask(host, &network, "c.example", "192.0.2.1", IDLE - 1), "ENOSPC");
	assert_string_equal(ask(host, &network, "c.example", "192.0.2.1", 10 + IDLE), "10.0.0.201>192.0.2.1 ");
	assert_string_equal(ask(host, &network, "d.example", "192.0.2.1", 10 + IDLE), "10.0.0.200>192.0.2.1 ");
}

/* Neither use nor the TTLs it was told have ended for long enough. */
static void test_name_is_kept_for_the_ttls_that_apps_were_told(void **state)
{
	struct host *host = *state;
	struct network network = network_of("10.0.0.0/24", "10.0.0.1", "10.0.0.200/31");
	struct address first = addr("10.0.0.200"), second = addr("10.0.0.201");
	host->ttl = 100;
	ask(host, &network, "a.example", "192.0.2.1", 10);
	assert_int_equal(mapping_find(host->table, 1, &first)->told, 100010);
	/* Neither a shorter TTL, nor what only the gateway was told, nor a flow moves it. */
	host->ttl = 5;
	ask(host, &network, "a.example", "192.0.2.1", 20);
	assert_int_equal(mapping_find(host->table, 1, &first)->told, 100010);
	host->ttl = 1000;
	assign(host, &network, "a.example", "192.0.2.1 192.0.2.2", 30, false);
	mapping_touch(host->table, 1, &first, 40);
	assert_int_equal(mapping_find(host->table, 1, &first)->told, 100010);
	assert_int_equal(mapping_find(host->table, 1, &second)->told, 100010);
	drop(host, "10.0.0.201");
	host->ttl = 0;
	assert_string_equal(ask(host, &network, "b.example", "192.0.2.1", 50), "10.0.0.201>192.0.2.1 ");
	/* b was used after a, but is the one that goes. */
	assert_string_equal(ask(host, &network, "c.example", "192.0.2.1", 49 + IDLE), "ENOSPC");
	assert_string_equal(ask(host, &network, "c.example", "192.0.2.1", 50 + IDLE), "10.0.0.201>192.0.2.1 ");
	mapping_touch(host->table, 1, &second, 100010 + IDLE);
	assert_string_equal(ask(host, &network, "d.example", "192.0.2.1", 100009 + IDLE), "ENOSPC");
	assert_int_equal(host->asked, 1);
	assert_string_equal(ask(host, &network, "d.example", "192.0.2.1", 100010 + IDLE), "10.0.0.200>192.0.2.1 ");
	assert_string_equal(host->gone, "10.0.0.201=b.example 10.0.0.200=a.example ");
}

static void test_what_was_found_of_a_full_pool_does_not_outlast_it(void **state)
{
	struct host *host = *state;
	struct network network = network_of("10.0.0.0/24", "10.0.0.1", "10.0.0.200/31");
	ask(host, &network, "a.example", "192.0.2.1", 2 * IDLE);
	ask(host, &network, "b.example", "192.0.2.1", 2 * IDLE + 1);
	assert_string_equal(ask(host, &network, "c.example", "192.0.2.1", 2 * IDLE + 2), "ENOSPC");
	/* One that was never used takes the place of another. */
	drop(host, "10.0.0.200");
	assign(host, &network, "d.example", "192.0.2.1", 2 * IDLE + 2, false);
	assert_string_equal(ask(host, &network, "c.example", "192.0.2.1", 2 * IDLE + 2), "10.0.0.200>192.0.2.1 ");
	assert_string_equal(ask(host, &network, "e.example", "192.0.2.1", 2 * IDLE + 2), "ENOSPC");
	/* The policy says a shorter time. */
	host->idle = 1;
	assert_string_equal(ask(host, &network, "e.example", "192.0.2.1", 2 * IDLE + 2), "10.0.0.201>192.0.2.1 ");
}

static void test_late_look_at_flows_changes_no_order(void **state)
{
	struct host *host = *state;
	struct network network = network_of("10.0.0.0/24", "10.0.0.1", "10.0.0.200/31");
	struct address first = addr("10.0.0.200");
	ask(host, &network, "a.example", "192.0.2.1", 10);
	ask(host, &network, "b.example", "192.0.2.1", 30);
	mapping_touch(host->table, 1, &first, 20);
	assert_int_equal(mapping_find(host->table, 1, &first)->used, 20);
	assert_string_equal(ask(host, &network, "c.example", "192.0.2.1", 30 + IDLE), "10.0.0.200>192.0.2.1 ");
}

static void test_stale_is_what_the_latest_answer_was(void **state)
{
	struct host *host = *state;
	struct network network = four();

	host->stale = true;
	assert_string_equal(ask(host, &network, "a.example", "192.0.2.1", 10), "10.0.0.128>192.0.2.1 ");
	host->stale = false;
	assert_string_equal(ask(host, &network, "a.example", "192.0.2.1", 20), "10.0.0.128>192.0.2.1 ");
}

static void test_checked_is_when_the_gateway_asked(void **state)
{
	struct host *host = *state;
	struct network network = four();
	struct address first = addr("10.0.0.128"), second = addr("10.0.0.129"), nobody = addr("10.0.0.131");
	const struct mapping *mapping;
	ask(host, &network, "a.example", "192.0.2.1", 10);
	mapping = mapping_find(host->table, 1, &first);
	assert_int_equal(mapping->checked, 0);
	mapping_checked(host->table, 1, &first, 20);
	mapping_checked(host->table, 1, &nobody, 20);
	assert_int_equal(mapping->checked, 20);
	assert_int_equal(mapping->answered, 10);
	assert_int_equal(mapping->used, 10);
	ask(host, &network, "a.example", "192.0.2.1 192.0.2.2", 30);
	assert_int_equal(mapping_find(host->table, 1, &second)->checked, 20);
	mapping_checked(host->table, 1, &second, 40);
	assert_int_equal(mapping->checked, 40);
	mapping_checked(host->table, 1, &second, 35);
	assert_int_equal(mapping->checked, 40);
	/* An address that goes to another name was checked for that one never. */
	drop(host, "10.0.0.128 10.0.0.129");
	ask(host, &network, "b.example", "192.0.2.1", 50);
	assert_int_equal(mapping_find(host->table, 1, &first)->checked, 0);
}

/* --- changes --- */

static void add_change(void *context, const struct mapping *mapping)
{
	append_mapping(context, mapping);
}

static const char *changes(struct host *host)
{
	static char out[TEXT_MAX];
	out[0] = '\0';
	mapping_changes(host->table, add_change, out);
	return out;
}

static void test_changes_are_what_is_new_or_leads_elsewhere(void **state)
{
	struct host *host = *state;
	struct network network = four();
	struct address first = addr("10.0.0.128");
	assert_string_equal(changes(host), "");
	ask(host, &network, "a.example", "192.0.2.1 192.0.2.2", 10);
	assert_string_equal(changes(host), "10.0.0.128>192.0.2.1 10.0.0.129>192.0.2.2 ");
	ask(host, &network, "a.example", "192.0.2.1 192.0.2.2", 11);
	assert_string_equal(changes(host), "10.0.0.128>192.0.2.1 10.0.0.129>192.0.2.2 ");
	mapping_settle(host->table);
	assert_string_equal(changes(host), "");
	ask(host, &network, "a.example", "192.0.2.2 192.0.2.1", 20);
	mapping_touch(host->table, 1, &first, 21);
	assert_string_equal(changes(host), "");
	ask(host, &network, "a.example", "192.0.2.9 192.0.2.1", 22);
	assert_string_equal(changes(host), "10.0.0.129>192.0.2.9 ");
	drop(host, "10.0.0.129");
	assert_string_equal(changes(host), "");
	ask(host, &network, "a.example", "192.0.2.9 192.0.2.1", 23);
	assert_string_equal(changes(host), "10.0.0.129>192.0.2.9 ");
}

static void test_address_that_goes_to_another_name_has_changed(void **state)
{
	struct host *host = *state;
	struct network network = network_of("10.0.0.0/24", "10.0.0.1", "10.0.0.200/31");
	ask(host, &network, "a.example", "192.0.2.1 192.0.2.2", 10);
	mapping_settle(host->table);
	ask(host, &network, "b.example", "192.0.2.1", 10 + IDLE); /* the same real address */
	assert_string_equal(changes(host), "10.0.0.200>192.0.2.1 ");
	mapping_settle(host->table);
	assert_string_equal(ask(host, &network, "c.example", "192.0.2.1", 11 + IDLE), "10.0.0.201>192.0.2.1 ");
	assert_string_equal(changes(host), "10.0.0.201>192.0.2.1 ");
}

static void test_change_that_is_taken_back_is_none(void **state)
{
	struct host *host = *state;
	struct network network = four();
	ask(host, &network, "a.example", "192.0.2.1", 10);
	ask(host, &network, "b.example", "192.0.2.2", 10);
	assert_false(mapping_is_settled(host->table));
	mapping_settle(host->table);
	assert_true(mapping_is_settled(host->table));
	ask(host, &network, "b.example", "192.0.2.8", 20);
	ask(host, &network, "a.example", "192.0.2.9", 20);
	assert_string_equal(changes(host), "10.0.0.129>192.0.2.8 10.0.0.128>192.0.2.9 ");
	ask(host, &network, "b.example", "192.0.2.2", 30);
	assert_string_equal(changes(host), "10.0.0.128>192.0.2.9 ");
	ask(host, &network, "a.example", "192.0.2.1", 30);
	assert_true(mapping_is_settled(host->table));
	/* A new one stays new. */
	ask(host, &network, "c.example", "192.0.2.3", 40);
	ask(host, &network, "c.example", "192.0.2.4", 40);
	ask(host, &network, "c.example", "192.0.2.3", 40);
	assert_string_equal(changes(host), "10.0.0.130>192.0.2.3 ");
	drop(host, "10.0.0.130");
	assert_true(mapping_is_settled(host->table));
}

/* The real address that the kernel has for it, "-" for none. */
static const char *written(const struct host *host, const char *text)
{
	static char out[ADDRESS_TEXT_MAX];
	struct address address = addr(text);
	const struct mapping *mapping = mapping_find(host->table, 1, &address);
	assert_non_null(mapping);
	return mapping->written.family ? address_format(&mapping->written, out) : "-";
}

static void test_written_is_what_the_kernel_has_for_the_address(void **state)
{
	struct host *host = *state;
	struct network network = network_of("10.0.0.0/24", "10.0.0.1", "10.0.0.200/31");
	ask(host, &network, "a.example", "192.0.2.1 192.0.2.2", 10);
	assert_string_equal(written(host, "10.0.0.200"), "-");
	mapping_settle(host->table);
	assert_string_equal(written(host, "10.0.0.200"), "192.0.2.1");
	ask(host, &network, "a.example", "192.0.2.3 192.0.2.2", 20);
	assert_string_equal(written(host, "10.0.0.200"), "192.0.2.1");
	/* It goes to another name, which never led there; the other address stands for nobody for a while. */
	assert_string_equal(ask(host, &network, "b.example", "192.0.2.4", 20 + IDLE), "10.0.0.200>192.0.2.4 ");
	assert_string_equal(written(host, "10.0.0.200"), "192.0.2.1");
	assert_false(is_taken(host, "10.0.0.201"));
	mapping_settle(host->table);
	assert_string_equal(written(host, "10.0.0.200"), "192.0.2.4");
	ask(host, &network, "c.example", "192.0.2.5", 21 + IDLE);
	assert_string_equal(written(host, "10.0.0.201"), "192.0.2.2");
	assert_string_equal(changes(host), "10.0.0.201>192.0.2.5 ");
}

static void test_synchronised_kernel_has_nothing_else(void **state)
{
	struct host *host = *state;
	struct network network = four();
	ask(host, &network, "a.example", "192.0.2.1 192.0.2.2", 10);
	mapping_settle(host->table);
	ask(host, &network, "b.example", "192.0.2.3", 10);
	ask(host, &network, "a.example", "192.0.2.1 192.0.2.9", 20);
	drop(host, "10.0.0.128");
	assert_int_equal(mapping_table_count(host->table), 2);
	mapping_synchronised(host->table);
	assert_int_equal(mapping_table_count(host->table), 2);
	assert_true(mapping_is_settled(host->table));
	assert_string_equal(changes(host), "");
	assert_string_equal(written(host, "10.0.0.129"), "192.0.2.9");
	assert_string_equal(written(host, "10.0.0.130"), "192.0.2.3");
	/* The first address is not known any more. */
	ask(host, &network, "c.example", "192.0.2.1", 30);
	assert_string_equal(written(host, "10.0.0.128"), "-");
	assert_string_equal(changes(host), "10.0.0.128>192.0.2.1 ");
}

/* --- from a journal --- */

static int put(struct host *host, const char *address, const char *real, const char *text, uint8_t slot, uint64_t used)
{
	struct mapping mapping = {.address = addr(address),
				  .real = addr(real),
				  .network = 1,
				  .slot = slot,
				  .name = name(text),
				  .answered = 7,
				  .used = used,
				  .told = used + 5,
				  .checked = used + 3,
				  .written = addr(real),
				  .ttl = 300,
				  .stale = true};
	return mapping_put(host->table, &mapping);
}

static void test_put_is_as_it_was(void **state)
{
	struct host *host = *state;
	struct network network = four();
	struct address address = addr("10.0.0.131");
	struct domain domain = name("a.example");
	const struct mapping *mapping;
	assert_int_equal(put(host, "10.0.0.131", "192.0.2.1", "a.example", 1, 9), 0);
	mapping = mapping_find(host->table, 1, &address);
	assert_non_null(mapping);
	assert_true(domain_equal(&mapping->name, &domain));
	assert_int_equal(mapping->slot, 0); /* there is none before it */
	assert_int_equal(mapping->network, 1);
	assert_int_equal(mapping->answered, 7);
	assert_int_equal(mapping->used, 9);
	assert_int_equal(mapping->told, 14);
	assert_int_equal(mapping->checked, 12);
	assert_int_equal(mapping->ttl, 300);
	assert_true(mapping->stale);
	assert_string_equal(written(host, "10.0.0.131"), "-");
	assert_string_equal(changes(host), "10.0.0.131>192.0.2.1 ");
	assert_string_equal(ask(host, &network, "a.example", "192.0.2.1 192.0.2.2", 10), "10.0.0.131>192.0.2.1 10.0.0.128>192.0.2.2 ");
	/* Once more: it is a change, and the kernel has what it had. */
	mapping_settle(host->table);
	assert_int_equal(put(host, "10.0.0.131", "192.0.2.1", "a.example", 0, 9), 0);
	assert_string_equal(changes(host), "10.0.0.131>192.0.2.1 ");
	assert_int_equal(put(host, "10.0.0.131", "192.0.2.3", "b.example", 0, 9), 0);
	assert_string_equal(written(host, "10.0.0.131"), "192.0.2.1");
}

/* "VIRTUAL>REAL " of the name, by slots. */
static const char *slots(const struct host *host, const char *text)
{
	static char out[TEXT_MAX];
	struct domain domain = name(text);
	const struct holder *holder = find_holder(host->table, 1, AF_INET, &domain);
	out[0] = '\0';
	for (size_t i = 0; holder && i < holder->count; i++) {
		assert_int_equal(holder->slots[i]->mapping.slot, i);
		append_mapping(out, &holder->slots[i]->mapping);
	}
	return out;
}

static void put_three(struct host *host)
{
	mapping_table_free(host->table);
	host->table = mapping_table_new();
	assert_non_null(host->table);
	put(host, "10.0.0.128", "192.0.2.1", "a.example", 0, 1);
	put(host, "10.0.0.129", "192.0.2.2", "a.example", 1, 1);
	put(host, "10.0.0.130", "192.0.2.3", "a.example", 2, 1);
}

static void test_put_of_its_own_address_in_another_slot(void **state)
{
	struct host *host = *state;
	put_three(host);
	/* It leaves a gap, and one has to go for it: the third one stays. */
	put(host, "10.0.0.128", "192.0.2.9", "a.example", 1, 1);
	assert_string_equal(slots(host, "a.example"), "10.0.0.128>192.0.2.9 10.0.0.130>192.0.2.3 ");
	put_three(host);
	put(host, "10.0.0.128", "192.0.2.9", "a.example", 2, 1);
	assert_string_equal(slots(host, "a.example"), "10.0.0.129>192.0.2.2 10.0.0.128>192.0.2.9 ");
	put_three(host);
	put(host, "10.0.0.130", "192.0.2.9", "a.example", 0, 1);
	assert_string_equal(slots(host, "a.example"), "10.0.0.130>192.0.2.9 10.0.0.129>192.0.2.2 ");
	put_three(host);
	put(host, "10.0.0.129", "192.0.2.9", "a.example", 7, 1);
	assert_string_equal(slots(host, "a.example"), "10.0.0.128>192.0.2.1 10.0.0.130>192.0.2.3 10.0.0.129>192.0.2.9 ");
}

static void test_put_gives_the_name_the_latest_times(void **state)
{
	struct host *host = *state;
	struct address first = addr("10.0.0.128"), second = addr("10.0.0.129");
	put(host, "10.0.0.128", "192.0.2.1", "a.example", 0, 10);
	put(host, "10.0.0.129", "192.0.2.2", "a.example", 1, 20);
	assert_int_equal(mapping_find(host->table, 1, &first)->used, 20);
	assert_int_equal(mapping_find(host->table, 1, &first)->told, 25);
	assert_int_equal(mapping_find(host->table, 1, &first)->checked, 23);
	put(host, "10.0.0.128", "192.0.2.1", "a.example", 0, 15);
	assert_int_equal(mapping_find(host->table, 1, &first)->used, 20);
	assert_int_equal(mapping_find(host->table, 1, &second)->used, 20);
}

static void test_put_replaces_same_slot_and_same_address(void **state)
{
	struct host *host = *state;
	assert_int_equal(put(host, "10.0.0.128", "192.0.2.1", "a.example", 0, 1), 0);
	assert_int_equal(put(host, "10.0.0.129", "192.0.2.1", "a.example", 0, 1), 0);
	assert_string_equal(changes(host), "10.0.0.129>192.0.2.1 ");
	assert_false(is_taken(host, "10.0.0.128"));
	mapping_settle(host->table);
	assert_int_equal(put(host, "10.0.0.129", "192.0.2.1", "b.example", 3, 1), 0);
	assert_string_equal(changes(host), "10.0.0.129>192.0.2.1 ");
	assert_int_equal(mapping_table_count(host->table), 1);
	/* Both at once. */
	assert_int_equal(put(host, "10.0.0.130", "192.0.2.1", "a.example", 0, 1), 0);
	assert_int_equal(put(host, "10.0.0.130", "192.0.2.2", "b.example", 0, 1), 0);
	assert_false(is_taken(host, "10.0.0.129"));
	assert_int_equal(mapping_table_count(host->table), 1);
	/* Another slot of the same name; then its own mapping once more. */
	struct address address = addr("10.0.0.130");
	assert_int_equal(put(host, "10.0.0.130", "192.0.2.2", "b.example", 3, 1), 0);
	assert_int_equal(mapping_put(host->table, mapping_find(host->table, 1, &address)), 0);
	assert_int_equal(mapping_find(host->table, 1, &address)->slot, 0);
	assert_int_equal(mapping_table_count(host->table), 1);
}

static void test_put_refuses_what_no_mapping_can_be(void **state)
{
	struct host *host = *state;
	struct mapping nameless = {.address = addr("10.0.0.128"), .real = addr("192.0.2.1"), .network = 1};
	struct mapping nowhere = {.real = addr("192.0.2.1"), .network = 1, .name = name("a.example")};
	assert_int_equal(put(host, "10.0.0.128", "192.0.2.1", "a.example", MAPPING_PER_NAME_MAX, 1), -EINVAL);
	assert_int_equal(put(host, "10.0.0.128", "2001:db8::1", "a.example", 0, 1), -EINVAL);
	assert_int_equal(mapping_put(host->table, &nameless), -EINVAL);
	assert_int_equal(mapping_put(host->table, &nowhere), -EINVAL);
	assert_int_equal(mapping_table_count(host->table), 0);
}

static void test_put_in_any_order_keeps_who_goes_first(void **state)
{
	struct host *host = *state;
	struct network network = four();
	put(host, "10.0.0.128", "192.0.2.1", "a.example", 0, 30);
	put(host, "10.0.0.129", "192.0.2.1", "b.example", 0, 10);
	put(host, "10.0.0.130", "192.0.2.1", "c.example", 0, 40);
	put(host, "10.0.0.131", "192.0.2.1", "b.example", 1, 20);
	assert_string_equal(ask(host, &network, "d.example", "192.0.2.1", 99 + IDLE), "10.0.0.129>192.0.2.1 ");
	assert_string_equal(host->gone, "10.0.0.129=b.example 10.0.0.131=b.example ");
	ask(host, &network, "e.example", "192.0.2.1", 99 + IDLE);
	assert_string_equal(ask(host, &network, "f.example", "192.0.2.1", 99 + IDLE), "10.0.0.128>192.0.2.1 ");
}

static bool dump_visit(void *context, const struct mapping *mapping)
{
	char text[DOMAIN_TEXT_MAX], word[DOMAIN_TEXT_MAX + 96];
	append_mapping(context, mapping);
	snprintf(word, sizeof(word), "%s/%u/%u/%llu ", domain_format(&mapping->name, text), mapping->network, mapping->slot,
		 (unsigned long long)mapping->used);
	append(context, word);
	return true;
}

/* Nothing is left over from a call that failed. */
static void check_none_empty(const struct mapping_table *table)
{
	for (const struct holder *holder = table->holders; holder; holder = holder->hh.next) {
		assert_true(holder->count > 0);
		assert_non_null(holder->prev);
	}
	for (const struct entry *entry = table->entries; entry; entry = entry->hh.next)
		assert_true(entry->holder || entry->mapping.written.family);
}

static void dump(struct mapping_table *table, char out[static TEXT_MAX])
{
	check_none_empty(table);
	out[0] = '\0';
	mapping_each(table, dump_visit, out);
}

static bool put_visit(void *context, const struct mapping *mapping)
{
	assert_int_equal(mapping_put(context, mapping), 0);
	return true;
}

static void test_each_is_in_order_of_use_and_slots(void **state)
{
	struct host *host = *state;
	struct network network = four(), other = four();
	struct mapping_table *restored = mapping_table_new();
	struct address address = addr("10.0.0.128");
	char before[TEXT_MAX], after[TEXT_MAX];
	assert_non_null(restored);
	other.id = 2;
	ask(host, &network, "a.example", "192.0.2.1", 10);
	ask(host, &network, "b.example", "192.0.2.2 192.0.2.1", 20);
	ask(host, &other, "c.example", "192.0.2.3", 20);
	ask(host, &network, "d.example", "192.0.2.4", 20);
	mapping_touch(host->table, 1, &address, 30);
	dump(host->table, before);
	assert_string_equal(before, "10.0.0.129>192.0.2.2 b.example/1/0/20 10.0.0.130>192.0.2.1 b.example/1/1/20 "
				    "10.0.0.131>192.0.2.4 d.example/1/0/20 10.0.0.128>192.0.2.1 a.example/1/0/30 "
				    "10.0.0.128>192.0.2.3 c.example/2/0/20 ");
	mapping_each(host->table, put_visit, restored);
	dump(restored, after);
	assert_string_equal(after, before);
	mapping_table_free(restored);
}

static void test_fits_what_the_network_can_have(void **state)
{
	struct host *host = *state;
	struct network network = four();
	struct address second = addr("10.0.0.129");
	const struct mapping *mapping;
	ask(host, &network, "a.example", "192.0.2.1 192.0.2.2", 10);
	mapping = mapping_find(host->table, 1, &second);
	assert_true(mapping_fits(mapping, &network));
	assert_false(mapping_fits(mapping, NULL));
	network.per_name = 1;
	assert_false(mapping_fits(mapping, &network));
	network.per_name = 2;
	network.pool4 = prefix("10.0.0.130/31");
	assert_false(mapping_fits(mapping, &network));
	network = four();
	network.gateway4 = second;
	assert_false(mapping_fits(mapping, &network));
	network = four();
	network.has_virtual_addresses = false;
	assert_false(mapping_fits(mapping, &network));
}

static bool count_visit(void *context, const struct mapping *mapping)
{
	(void)mapping;
	++*(unsigned int *)context;
	return true;
}

static void test_each_visits_all_and_removes(void **state)
{
	struct host *host = *state;
	struct network network = four(), other = four(), six = network_of("fd00::/64", "fd00::1", "fd00::80/127");
	unsigned int visited = 0;
	other.id = 2;
	ask(host, &network, "a.example", "192.0.2.1 192.0.2.2", 10);
	ask(host, &network, "b.example", "192.0.2.1 192.0.2.2", 20);
	ask(host, &other, "a.example", "192.0.2.1", 20);
	ask(host, &six, "a.example", "2001:db8::1", 20);
	mapping_each(host->table, count_visit, &visited);
	assert_int_equal(visited, 6);
	drop(host, "10.0.0.128 10.0.0.130 10.0.0.131 fd00::80");
	assert_int_equal(mapping_table_count(host->table), 1); /* 10.0.0.128 in both networks */
	assert_string_equal(ask(host, &network, "a.example", "192.0.2.7", 30), "10.0.0.129>192.0.2.7 ");
	drop(host, "10.0.0.129");
	assert_int_equal(mapping_table_count(host->table), 0);
	visited = 0;
	mapping_each(host->table, count_visit, &visited);
	assert_int_equal(visited, 0);
}

/* --- without memory --- */

static void set_up_full(struct host *host, const struct network *network)
{
	mapping_table_free(host->table);
	host->table = mapping_table_new();
	assert_non_null(host->table);
	host->gone[0] = '\0';
	ask(host, network, "a.example", "192.0.2.1 192.0.2.2", 10);
	ask(host, network, "b.example", "192.0.2.1 192.0.2.2", 20);
	mapping_settle(host->table);
}

/* Let the first allocation fail, then the second, and so on, until none does. Return: how many calls failed. */
static unsigned int failures(struct host *host, const struct network *network, const char *text, const char *reals, const char *expected)
{
	char before[TEXT_MAX], after[TEXT_MAX];
	for (unsigned int allowed = 0;; allowed++) {
		const char *result;
		dump(host->table, before);
		allocations_left = allowed;
		result = ask(host, network, text, reals, 99 + IDLE);
		allocations_left = ~0U;
		if (strcmp(result, "ENOMEM") != 0) {
			assert_string_equal(result, expected);
			return allowed;
		}
		dump(host->table, after);
		assert_string_equal(after, before);
		assert_string_equal(host->gone, "");
		assert_string_equal(changes(host), "");
	}
}

static void test_without_memory_nothing_changes(void **state)
{
	struct host *host = *state;
	struct network network = four();
	/* The further address finds no memory either: the name has one. */
	assert_in_range(failures(host, &network, "a.example", "192.0.2.1 192.0.2.2", "10.0.0.128>192.0.2.1 "), 3, 20);
	assert_string_equal(ask(host, &network, "a.example", "192.0.2.1 192.0.2.2", 1), "10.0.0.128>192.0.2.1 10.0.0.129>192.0.2.2 ");
	set_up_full(host, &network);
	assert_in_range(failures(host, &network, "c.example", "192.0.2.3", "10.0.0.128>192.0.2.3 "), 1, 20);
	assert_string_equal(host->gone, "10.0.0.128=a.example 10.0.0.129=a.example ");
}

/* As failures(). */
static unsigned int put_failures(struct host *host, const char *address)
{
	char before[TEXT_MAX], after[TEXT_MAX];
	for (unsigned int allowed = 0;; allowed++) {
		int error;
		dump(host->table, before);
		allocations_left = allowed;
		error = put(host, address, "192.0.2.9", "c.example", 0, 5);
		allocations_left = ~0U;
		dump(host->table, after);
		if (error == 0) {
			assert_string_not_equal(after, before);
			return allowed;
		}
		assert_int_equal(error, -ENOMEM);
		assert_string_equal(after, before);
	}
}

static void test_put_without_memory_changes_nothing(void **state)
{
	struct host *host = *state;
	struct network network = four();
	assert_in_range(put_failures(host, "10.0.0.131"), 3, 20);
	set_up_full(host, &network);
	assert_in_range(put_failures(host, "10.0.0.128"), 1, 20);
}

/* --- a slow table that says what must hold --- */

#define MODEL_NETWORKS  2
#define MODEL_POOLS     (2 * MODEL_NETWORKS) /* one per network and family */
#define MODEL_NAMES     10
#define MODEL_REALS     6
#define MODEL_POOL      8 /* addresses at most that a pool has */
#define MODEL_HISTORIES 3000
#define MODEL_STEPS     60

struct model_mapping {
	struct address address, real;
	bool is_new;       /* since it was settled */
	unsigned int step; /* in which it changed; 0: it has not */
};

struct model_name {
	struct model_mapping slots[MAPPING_PER_NAME_MAX + 1];
	size_t count;
	uint64_t used, told, checked;
	bool kept; /* may not go */
};

struct model {
	struct mapping_table *table;
	struct network networks[MODEL_NETWORKS];
	struct model_name names[MODEL_POOLS][MODEL_NAMES];
	struct address free[MODEL_POOLS][MODEL_POOL];    /* all that can be had, in order */
	struct address written[MODEL_POOLS][MODEL_POOL]; /* what the kernel has for each of them */
	size_t size[MODEL_POOLS];
	uint64_t now, idle;
	unsigned int victim;          /* the name whose mappings went in this call, or MODEL_NAMES */
	unsigned int step, last_step; /* of the last change that was visited */
	unsigned int random;
	unsigned int recycled, refusals, partial, failures; /* so that histories without them are noticed */
};

static unsigned int choose(struct model *model, unsigned int count)
{
	model->random = model->random * 1664525 + 1013904223;
	return (model->random >> 8) % count;
}

static struct domain model_domain(unsigned int index)
{
	char text[32];
	snprintf(text, sizeof(text), "n%u.example", index);
	return name(text);
}

static unsigned int model_index(const struct domain *domain)
{
	return (unsigned int)(domain->wire[2] - '0');
}

static unsigned int model_pool(uint16_t network, const struct address *address)
{
	return 2U * (network - 1U) + (address->family == AF_INET6);
}

/* What the model has for a mapping of the table. */
static struct model_mapping *model_twin(struct model *model, const struct mapping *mapping)
{
	struct model_name *entry = &model->names[model_pool(mapping->network, &mapping->address)][model_index(&mapping->name)];
	assert_true(mapping->slot < entry->count);
	assert_true(address_equal(&entry->slots[mapping->slot].address, &mapping->address));
	assert_true(address_equal(&entry->slots[mapping->slot].real, &mapping->real));
	return &entry->slots[mapping->slot];
}

/* The name that an address stands for, and in which slot; NULL: none. */
static struct model_name *model_at(struct model *model, unsigned int pool, const struct address *address, size_t *slot)
{
	for (unsigned int n = 0; n < MODEL_NAMES; n++) {
		for (*slot = 0; *slot < model->names[pool][n].count; ++*slot) {
			if (address_equal(&model->names[pool][n].slots[*slot].address, address))
				return &model->names[pool][n];
		}
	}
	return NULL;
}

static struct address *model_written(struct model *model, unsigned int pool, const struct address *address)
{
	size_t i = 0;
	while (!address_equal(&model->free[pool][i], address)) {
		i++;
		assert_true(i < model->size[pool]);
	}
	return &model->written[pool][i];
}

static void model_remove(struct model_name *entry, size_t slot)
{
	entry->count--;
	memmove(&entry->slots[slot], &entry->slots[slot + 1], (entry->count - slot) * sizeof(entry->slots[0]));
	if (entry->count == 0)
		*entry = (struct model_name){.kept = entry->kept};
}

/* The first free address, looked for from the beginning. */
static const struct address *model_free(struct model *model, unsigned int pool)
{
	size_t slot;
	for (size_t i = 0; i < model->size[pool]; i++) {
		if (!model_at(model, pool, &model->free[pool][i], &slot))
			return &model->free[pool][i];
	}
	return NULL;
}

static bool model_is_idle(const struct model *model, const struct model_name *entry)
{
	return entry->used + model->idle <= model->now && entry->told + model->idle <= model->now;
}

static bool model_may_go(void *context, const struct mapping *mapping)
{
	struct model *model = context;
	struct model_name *entry = &model->names[model_pool(mapping->network, &mapping->address)][model_index(&mapping->name)];
	(void)model_twin(model, mapping);
	assert_true(model_is_idle(model, entry));
	model->refusals += entry->kept;
	return !entry->kept;
}

/* It must be what the model has; the model forgets it when the call is over. */
static void model_gone(void *context, const struct mapping *mapping)
{
	struct model *model = context;
	unsigned int index = model_index(&mapping->name);
	(void)model_twin(model, mapping);
	assert_true(model->victim == MODEL_NAMES || model->victim == index);
	model->victim = index;
}

static bool model_could_go(const struct model *model, const struct model_name *entry)
{
	return entry->count && model_is_idle(model, entry) && !entry->kept;
}

/* The name that went was idle, may go, and no other that could go was unused for longer. */
static void model_check_victim(struct model *model, unsigned int pool)
{
	const struct model_name *victim = &model->names[pool][model->victim];
	assert_null(model_free(model, pool));
	assert_true(model_could_go(model, victim));
	for (unsigned int n = 0; n < MODEL_NAMES; n++) {
		if (model_could_go(model, &model->names[pool][n]))
			assert_true(model->names[pool][n].used >= victim->used);
	}
	model->recycled++;
}

static void model_check_full(struct model *model, unsigned int pool)
{
	assert_null(model_free(model, pool));
	for (unsigned int n = 0; n < MODEL_NAMES; n++)
		assert_false(model_could_go(model, &model->names[pool][n]));
}

static bool is_among(const struct address *reals, size_t count, const struct address *real)
{
	for (size_t i = 0; i < count; i++) {
		if (address_equal(&reals[i], real))
			return true;
	}
	return false;
}

static size_t distinct_among(const struct address *reals, size_t count)
{
	size_t different = 0;
	for (size_t i = 0; i < count; i++)
		different += !is_among(reals, i, &reals[i]);
	return different;
}

/*
 * Real addresses: current ones, as different as can be. A slot keeps its own, unless an earlier one led there and the answer had one that
 * none led to.
 */
static void model_check_reals(const struct model_name *before, const struct mapping_answer *answer, const struct mapping *const *out,
			      size_t count)
{
	struct address now[MAPPING_PER_NAME_MAX], then[MAPPING_PER_NAME_MAX];
	size_t different = distinct_among(answer->reals, answer->real_count);
	bool all_led_to = true;
	for (size_t i = 0; i < count; i++)
		now[i] = out[i]->real;
	for (size_t i = 0; i < before->count; i++)
		then[i] = before->slots[i].real;
	for (size_t i = 0; i < answer->real_count; i++)
		all_led_to &= is_among(then, before->count, &answer->reals[i]);
	assert_int_equal(distinct_among(now, count), different < count ? different : count);
	for (size_t i = 0; i < count; i++) {
		assert_true(is_among(answer->reals, answer->real_count, &now[i]));
		if (i < before->count && is_among(answer->reals, answer->real_count, &then[i]) &&
		    (all_led_to || !is_among(then, i, &then[i])))
			assert_true(address_equal(&then[i], &now[i]));
	}
}

static void model_mark(struct model *model, unsigned int pool, struct model_mapping *mapping)
{
	bool changed = mapping->is_new || !address_equal(&mapping->real, model_written(model, pool, &mapping->address));
	if (!changed)
		mapping->step = 0;
	else if (mapping->step == 0)
		mapping->step = model->step;
}

/* Take over what the table says about a name, once it was found to be right. */
static void model_take(struct model *model, unsigned int pool, const struct mapping_answer *answer, const struct mapping *const *out,
		       size_t count)
{
	struct model_name *entry = &model->names[pool][model_index(answer->name)];
	for (size_t i = 0; i < count; i++) {
		struct model_mapping *mapping = &entry->slots[i];
		if (i >= entry->count) {
			const struct address *expected = model_free(model, pool);
			size_t slot;
			assert_non_null(expected);
			assert_true(model->victim != MODEL_NAMES || address_equal(expected, &out[i]->address));
			assert_null(model_at(model, pool, &out[i]->address, &slot));
			*mapping = (struct model_mapping){.address = out[i]->address, .is_new = true};
			entry->count++;
		}
		assert_true(address_equal(&mapping->address, &out[i]->address));
		mapping->real = out[i]->real;
		model_mark(model, pool, mapping);
		assert_int_equal(out[i]->answered, model->now);
		assert_int_equal(out[i]->ttl, answer->ttl);
	}
	if (!answer->asked)
		return;
	entry->used = later(entry->used, model->now);
	entry->told = later(entry->told, model->now + (uint64_t)answer->ttl * 1000);
}

static void model_check_answer(struct model *model, unsigned int pool, const struct mapping_answer *answer,
			       const struct mapping *const *out, size_t count, size_t shown)
{
	struct model_name *entry = &model->names[pool][model_index(answer->name)];
	size_t had = entry->count, wanted = distinct_among(answer->reals, answer->real_count);
	if (answer->network->per_name < wanted)
		wanted = answer->network->per_name;
	if (model->victim != MODEL_NAMES) {
		struct model_name *victim = &model->names[pool][model->victim];
		assert_int_equal(had, 0);
		model_check_victim(model, pool);
		assert_true(address_equal(&victim->slots[0].address, &out[0]->address));
		while (victim->count)
			model_remove(victim, 0);
	}
	model_check_reals(entry, answer, out, count);
	model_take(model, pool, answer, out, count);
	assert_int_equal(entry->count, count);
	assert_true(count >= 1);
	if (count < wanted) {
		assert_true(!model_free(model, pool) || allocations_left == 0);
		model->partial++;
	} else {
		assert_int_equal(count, had > wanted ? had : wanted);
	}
	assert_int_equal(shown, count < wanted ? count : wanted);
}

static struct address model_real(unsigned int pool, unsigned int index)
{
	struct prefix base = prefix(pool % 2 ? "2001:db8::/32" : "192.0.2.0/24");
	return prefix_host(&base, index % MODEL_REALS);
}

/* Now and then there is little memory. */
static void model_limit(struct model *model)
{
	if (choose(model, 16) == 0)
		allocations_left = choose(model, 5);
}

static void model_assign(struct model *model)
{
	unsigned int pool = choose(model, MODEL_POOLS), first = choose(model, MODEL_REALS), gap = 1 + choose(model, 5);
	struct domain domain = model_domain(choose(model, MODEL_NAMES));
	struct address reals[MODEL_REALS];
	struct mapping_answer answer = {.network = &model->networks[pool / 2],
					.name = &domain,
					.reals = reals,
					.ttl = choose(model, 3),
					.real_count = 1 + choose(model, 4),
					.asked = choose(model, 4) != 0,
					.now = model->now,
					.idle = model->idle,
					.may_go = model_may_go,
					.gone = model_gone,
					.context = model};
	const struct mapping *out[MAPPING_PER_NAME_MAX];
	size_t count, shown;
	int error;
	/* With some gaps there are repeated ones. */
	for (unsigned int i = 0; i < answer.real_count; i++)
		reals[i] = model_real(pool, first + gap * i);
	model->victim = MODEL_NAMES;
	model_limit(model);
	error = mapping_assign(model->table, &answer, out, &count, &shown);
	if (error == 0) {
		model_check_answer(model, pool, &answer, out, count, shown);
	} else {
		assert_int_equal(model->victim, MODEL_NAMES);
		assert_int_equal(model->names[pool][model_index(&domain)].count, 0);
		if (error == -ENOSPC)
			model_check_full(model, pool);
		else
			assert_true(error == -ENOMEM && allocations_left == 0);
		model->failures += error == -ENOMEM;
	}
	allocations_left = ~0U;
}

static void model_use(struct model *model)
{
	unsigned int pool = choose(model, MODEL_POOLS);
	const struct address *address = &model->free[pool][choose(model, (unsigned int)model->size[pool])];
	size_t slot;
	struct model_name *entry = model_at(model, pool, address, &slot);
	uint64_t late = choose(model, 3) ? 0 : choose(model, 1000), when = model->now > late ? model->now - late : 0;
	bool is_flow = choose(model, 3) != 0;
	if (is_flow)
		mapping_touch(model->table, model->networks[pool / 2].id, address, when);
	else
		mapping_checked(model->table, model->networks[pool / 2].id, address, when);
	if (entry && is_flow)
		entry->used = later(entry->used, when);
	else if (entry)
		entry->checked = later(entry->checked, when);
}

/* As it should be after a mapping was put: what it replaces goes, then gaps close up. */
static void model_replace(struct model *model, unsigned int pool, const struct mapping *given)
{
	struct model_name *entry = &model->names[pool][model_index(&given->name)], before = *entry;
	struct model_mapping new = {.address = given->address, .real = given->real, .is_new = true, .step = model->step};
	size_t slot;
	struct model_name *old = model_at(model, pool, &given->address, &slot);
	if (old && old != entry)
		model_remove(old, slot);
	entry->count = 0;
	for (size_t i = 0; i < MAPPING_PER_NAME_MAX; i++) {
		if (i == given->slot)
			entry->slots[entry->count++] = new;
		else if (i < before.count && !address_equal(&before.slots[i].address, &given->address))
			entry->slots[entry->count++] = before.slots[i];
	}
	if (entry->count == 1)
		entry->used = entry->told = entry->checked = 0;
	entry->used = later(entry->used, given->used);
	entry->told = later(entry->told, given->told);
	entry->checked = later(entry->checked, given->checked);
}

static void model_put(struct model *model)
{
	unsigned int pool = choose(model, MODEL_POOLS), index = choose(model, MODEL_NAMES);
	unsigned int slot = choose(model, choose(model, 2) ? 3 : MAPPING_PER_NAME_MAX), past = (unsigned int)model->now;
	struct mapping mapping = {.address = model->free[pool][choose(model, (unsigned int)model->size[pool])],
				  .real = model_real(pool, choose(model, MODEL_REALS)),
				  .network = model->networks[pool / 2].id,
				  .slot = (uint8_t)slot,
				  .name = model_domain(index),
				  .used = choose(model, past),
				  .told = choose(model, past),
				  .checked = choose(model, past)};
	int error;
	model_limit(model);
	error = mapping_put(model->table, &mapping);
	if (error == 0)
		model_replace(model, pool, &mapping);
	else
		assert_true(error == -ENOMEM && allocations_left == 0);
	model->failures += error != 0;
	allocations_left = ~0U;
}

struct model_visit {
	struct model *model;
	struct mapping removed[MODEL_POOLS * MODEL_POOL];
	size_t removed_count;
	struct mapping last; /* that was visited */
};

/* Slots and uses in order; about a quarter of them is removed. */
static bool model_visit(void *context, const struct mapping *mapping)
{
	struct model_visit *visit = context;
	const struct mapping *last = &visit->last;
	(void)model_twin(visit->model, mapping);
	if (last->address.family && domain_equal(&last->name, &mapping->name) && last->network == mapping->network &&
	    last->address.family == mapping->address.family)
		assert_int_equal(mapping->slot, last->slot + 1);
	else
		assert_int_equal(mapping->slot, 0);
	if (last->address.family == mapping->address.family && last->network == mapping->network)
		assert_true(mapping->used >= last->used);
	visit->last = *mapping;
	if (choose(visit->model, 4) != 0)
		return true;
	visit->removed[visit->removed_count++] = *mapping;
	return false;
}

static void model_each(struct model *model)
{
	struct model_visit visit = {.model = model};
	mapping_each(model->table, model_visit, &visit);
	for (size_t i = 0; i < visit.removed_count; i++) {
		unsigned int pool = model_pool(visit.removed[i].network, &visit.removed[i].address);
		size_t slot;
		struct model_name *entry = model_at(model, pool, &visit.removed[i].address, &slot);
		assert_non_null(entry);
		model_remove(entry, slot);
	}
}

static void model_change(void *context, const struct mapping *mapping)
{
	struct model *model = context;
	struct model_mapping *expected = model_twin(model, mapping);
	assert_int_not_equal(expected->step, 0);
	assert_true(expected->step >= model->last_step);
	model->last_step = expected->step;
	expected->step = 0;
}

/* Every change is visited once, in order: none is left, and a second visit of one would find it without. */
static void model_settle(struct model *model)
{
	bool synchronised = choose(model, 4) == 0;
	model->last_step = 0;
	mapping_changes(model->table, model_change, model);
	if (synchronised)
		mapping_synchronised(model->table);
	else
		mapping_settle(model->table);
	for (unsigned int pool = 0; pool < MODEL_POOLS; pool++) {
		for (size_t i = 0; i < model->size[pool]; i++) {
			size_t slot;
			struct model_name *entry = model_at(model, pool, &model->free[pool][i], &slot);
			if (entry) {
				assert_int_equal(entry->slots[slot].step, 0);
				entry->slots[slot].is_new = false;
				model->written[pool][i] = entry->slots[slot].real;
			} else if (synchronised) {
				model->written[pool][i] = (struct address){0};
			}
		}
	}
}

static void model_compare_name(struct model *model, unsigned int pool, unsigned int index)
{
	const struct model_name *expected = &model->names[pool][index];
	for (size_t i = 0; i < expected->count; i++) {
		const struct address *address = &expected->slots[i].address;
		const struct mapping *mapping = mapping_find(model->table, model->networks[pool / 2].id, address);
		assert_non_null(mapping);
		assert_int_equal(model_index(&mapping->name), index);
		assert_ptr_equal(model_twin(model, mapping), &expected->slots[i]);
		assert_int_equal(mapping->used, expected->used);
		assert_int_equal(mapping->told, expected->told);
		assert_int_equal(mapping->checked, expected->checked);
		assert_true(address_equal(&mapping->written, model_written(model, pool, address)));
	}
}

/* The table has what the model has, and no more. */
static void model_compare(struct model *model)
{
	size_t total = 0, changed = 0;
	for (unsigned int i = 0; i < MODEL_POOLS * MODEL_NAMES; i++) {
		const struct model_name *entry = &model->names[i / MODEL_NAMES][i % MODEL_NAMES];
		model_compare_name(model, i / MODEL_NAMES, i % MODEL_NAMES);
		total += entry->count;
		for (size_t s = 0; s < entry->count; s++)
			changed += entry->slots[s].step != 0;
	}
	assert_int_equal(mapping_table_count(model->table), total);
	assert_int_equal(mapping_is_settled(model->table), changed == 0);
	check_none_empty(model->table);
}

static void model_step(struct model *model)
{
	unsigned int kind = choose(model, 100), pool = choose(model, MODEL_POOLS), index = choose(model, MODEL_NAMES);
	model->now += choose(model, 3) ? choose(model, 700) : 0;
	model->step++;
	if (kind < 70)
		model_assign(model);
	else if (kind < 80)
		model_use(model);
	else if (kind < 84)
		model->names[pool][index].kept = !model->names[pool][index].kept;
	else if (kind < 85)
		model->idle = choose(model, 3) * 1500;
	else if (kind < 92)
		model_put(model);
	else if (kind < 94)
		model_each(model);
	else
		model_settle(model);
}

/* Small pools of different sizes, some with reserved addresses in them. */
static void model_networks(struct model *model)
{
	static const char *const pools4[] = {"10.0.0.0/29", "10.0.0.8/29", "10.0.0.250/31", "10.0.0.252/30", "10.0.0.16/30"};
	static const char *const pools6[] = {"fd00::/125", "fd00::/126", "fd00::80/127", "fd00::8/125"};
	for (unsigned int n = 0; n < MODEL_NETWORKS; n++) {
		struct network *network = &model->networks[n];
		struct network six = network_of("fd00::/64", "fd00::1", pools6[choose(model, 4)]);
		*network = network_of("10.0.0.0/24", "10.0.0.1", pools4[choose(model, 5)]);
		network->subnet6 = six.subnet6;
		network->gateway6 = six.gateway6;
		network->pool6 = six.pool6;
		network->id = (uint16_t)(n + 1);
		network->per_name = 1 + choose(model, 4);
	}
}

/* Written in another way than mapping.c does it: which of the pool's addresses can be had. */
static void model_addresses(struct model *model, unsigned int pool)
{
	const struct network *network = &model->networks[pool / 2];
	const struct prefix *range = pool % 2 ? &network->pool6 : &network->pool4;
	struct address never[] = {addr("10.0.0.0"), addr("10.0.0.1"), addr("10.0.0.255"), addr("fd00::"), addr("fd00::1")};
	for (uint32_t i = 0; i < 1U << (address_bits(&range->address) - range->length); i++) {
		struct address address = prefix_host(range, i);
		if (!is_among(never, sizeof(never) / sizeof(never[0]), &address))
			model->free[pool][model->size[pool]++] = address;
	}
	assert_in_range(model->size[pool], 1, MODEL_POOL);
}

/* What a journal keeps of a table gives the same one. */
static void model_restore(struct model *model)
{
	struct mapping_table *restored = mapping_table_new();
	char before[TEXT_MAX], after[TEXT_MAX];
	assert_non_null(restored);
	mapping_each(model->table, put_visit, restored);
	dump(model->table, before);
	dump(restored, after);
	assert_string_equal(after, before);
	mapping_table_free(restored);
}

static void test_random_histories(void **state)
{
	struct model *model = calloc(1, sizeof(*model));
	unsigned int recycled = 0, refusals = 0, partial = 0, failed = 0;
	(void)state;
	assert_non_null(model);
	for (unsigned int history = 0; history < MODEL_HISTORIES; history++) {
		memset(model, 0, sizeof(*model));
		model->random = history;
		model->now = 1;
		model->idle = choose(model, 3) * 1500;
		model->table = mapping_table_new();
		assert_non_null(model->table);
		model_networks(model);
		for (unsigned int pool = 0; pool < MODEL_POOLS; pool++)
			model_addresses(model, pool);
		for (unsigned int step = 0; step < MODEL_STEPS; step++) {
			model_step(model);
			model_compare(model);
		}
		model_restore(model);
		mapping_table_free(model->table);
		recycled += model->recycled;
		refusals += model->refusals;
		partial += model->partial;
		failed += model->failures;
	}
	free(model);
	/* The histories are about what they are meant to be about. */
	assert_in_range(recycled, MODEL_HISTORIES, UINT32_MAX);
	assert_in_range(refusals, MODEL_HISTORIES / 2, UINT32_MAX);
	assert_in_range(partial, MODEL_HISTORIES, UINT32_MAX);
	assert_in_range(failed, MODEL_HISTORIES / 2, UINT32_MAX);
}

int main(void)
{
#define TABLE_TEST(test) cmocka_unit_test_setup_teardown(test, new_host, free_host)
	const struct CMUnitTest tests[] = {
		TABLE_TEST(test_order_of_the_answer_changes_nothing),
		TABLE_TEST(test_as_many_as_real_ones_and_per_name_at_most),
		TABLE_TEST(test_real_that_stays_keeps_its_slot),
		TABLE_TEST(test_slots_left_over_lead_to_current_addresses),
		TABLE_TEST(test_repeated_reals_are_harmless),
		TABLE_TEST(test_networks_and_families_are_independent),
		TABLE_TEST(test_addresses_of_pools),
		TABLE_TEST(test_other_family_is_not_in_the_pool),
		TABLE_TEST(test_first_free_address_is_taken),
		TABLE_TEST(test_reload_with_other_addresses),
		TABLE_TEST(test_unused_for_longest_goes_with_all_its_addresses),
		TABLE_TEST(test_use_of_any_address_keeps_the_name),
		TABLE_TEST(test_only_idle_names_go),
		TABLE_TEST(test_only_names_that_may_go_do),
		TABLE_TEST(test_every_address_of_the_name_must_be_free_to_go),
		TABLE_TEST(test_further_addresses_are_taken_from_nobody),
		TABLE_TEST(test_used_is_when_it_was_asked_for_or_a_flow_was_seen),
		TABLE_TEST(test_never_used_goes_first),
		TABLE_TEST(test_name_is_kept_for_the_ttls_that_apps_were_told),
		TABLE_TEST(test_what_was_found_of_a_full_pool_does_not_outlast_it),
		TABLE_TEST(test_late_look_at_flows_changes_no_order),
		TABLE_TEST(test_stale_is_what_the_latest_answer_was),
		TABLE_TEST(test_checked_is_when_the_gateway_asked),
		TABLE_TEST(test_changes_are_what_is_new_or_leads_elsewhere),
		TABLE_TEST(test_address_that_goes_to_another_name_has_changed),
		TABLE_TEST(test_change_that_is_taken_back_is_none),
		TABLE_TEST(test_written_is_what_the_kernel_has_for_the_address),
		TABLE_TEST(test_synchronised_kernel_has_nothing_else),
		TABLE_TEST(test_put_is_as_it_was),
		TABLE_TEST(test_put_replaces_same_slot_and_same_address),
		TABLE_TEST(test_put_of_its_own_address_in_another_slot),
		TABLE_TEST(test_put_gives_the_name_the_latest_times),
		TABLE_TEST(test_put_refuses_what_no_mapping_can_be),
		TABLE_TEST(test_put_in_any_order_keeps_who_goes_first),
		TABLE_TEST(test_each_is_in_order_of_use_and_slots),
		TABLE_TEST(test_each_visits_all_and_removes),
		TABLE_TEST(test_fits_what_the_network_can_have),
		TABLE_TEST(test_without_memory_nothing_changes),
		TABLE_TEST(test_put_without_memory_changes_nothing),
		cmocka_unit_test(test_random_histories),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
