/* SPDX-License-Identifier: MIT */
/*
 * The life of leases on a virtual clock: its rules one by one, then random histories of answers, flows, changes of policy, sweeps and
 * restarts, in which the table must agree with a reference that knows no heap, group or file.
 */
#include "common/lifetime.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/lease.h"

/* journal.c is included, so that its clock is ours. */
static uint64_t virtual_ms;

static int virtual_clock(clockid_t clock, struct timespec *time)
{
	(void)clock;
	*time = (struct timespec){.tv_sec = (time_t)(virtual_ms / 1000), .tv_nsec = (long)(virtual_ms % 1000) * 1000000};
	return 0;
}

#define clock_gettime virtual_clock
#include "gateway/journal.c"
#undef clock_gettime

static void an_answer_gives_at_most_max_age(void **state)
{
	static const struct lifetimes lifetimes = {.min_ttl = 60, .grace = 30, .max_age = 3600};
	static const struct lifetimes wide = {.min_ttl = 0, .grace = UINT32_MAX, .max_age = UINT32_MAX};

	(void)state;
	assert_int_equal(lifetime_seconds(&lifetimes, 0), 90);
	assert_int_equal(lifetime_seconds(&lifetimes, 300), 330);
	assert_int_equal(lifetime_seconds(&lifetimes, 3600), 3600);
	assert_int_equal(lifetime_seconds(&lifetimes, UINT32_MAX), 3600);
	assert_int_equal(lifetime_seconds(&wide, UINT32_MAX), UINT32_MAX);
}

static void a_flow_keeps_a_lease_for_grace_and_no_longer_than_max_age(void **state)
{
	static const struct lifetimes lifetimes = {.min_ttl = 0, .grace = 10, .max_age = 60};

	(void)state;
	assert_int_equal(lifetime_used(&lifetimes, 1000, 15000, 14000, 5000), 14000 + 5000 + 10000);
	assert_int_equal(lifetime_used(&lifetimes, 1000, 40000, 14000, 5000), 40000); /* never shortened */
	assert_int_equal(lifetime_used(&lifetimes, 1000, 55000, 54000, 5000), 61000); /* shown + max_age */
	assert_int_equal(lifetime_used(&lifetimes, 1000, 61000, 60999, 5000), 61000);
	assert_int_equal(lifetime_used(&lifetimes, 1000, 14000, 14000, 5000), 14000); /* ended: only an answer makes another */
}

static void another_max_age_holds_at_once(void **state)
{
	static const struct lifetimes lifetimes = {.min_ttl = 0, .grace = 10, .max_age = 60};

	(void)state;
	assert_int_equal(lifetime_bounded(&lifetimes, 1000, 90000), 61000);
	assert_int_equal(lifetime_bounded(&lifetimes, 1000, 50000), 50000);
}

static void names_in_use_are_asked_again_at_half_of_max_age(void **state)
{
	static const struct lifetimes lifetimes = {.min_ttl = 0, .grace = 10, .max_age = 60};

	(void)state;
	assert_false(lifetime_is_to_recheck(&lifetimes, 1000, 30999));
	assert_true(lifetime_is_to_recheck(&lifetimes, 1000, 31000));
}

static void flows_are_looked_for_before_grace_is_over(void **state)
{
	static const struct {
		struct lifetimes lifetimes;
		uint64_t period;
	} cases[] = {
		{{.grace = 86400, .max_age = 86400}, LIFETIME_PERIOD_MAX_MS},
		{{.grace = 10, .max_age = 86400}, 5000},
		{{.grace = 0, .max_age = 86400}, LIFETIME_PERIOD_MIN_MS},
		{{.grace = 8, .max_age = 8}, 1000},
		{{.grace = UINT32_MAX, .max_age = UINT32_MAX}, LIFETIME_PERIOD_MAX_MS},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(lifetime_period(&cases[i].lifetimes), cases[i].period);
}

/* --- random histories --- */

enum { NETWORKS = 2, ADDRESSES = 3, NAMES = 4, STEPS = 300, HISTORIES = 2000, PERIOD = 1000, SUSPENDED_MS = 77000 };

struct reference {
	bool there, allowed;
	uint64_t shown, end;
	uint64_t written; /* the latest end that is in the journal */
};

struct history {
	struct lease_table *table;
	struct journal journal;
	int files[JOURNAL_FILES];
	struct policy policy;
	struct network networks[NETWORKS];
	struct domain names[NAMES];
	struct address addresses[ADDRESSES];
	struct reference reference[NETWORKS][ADDRESSES][NAMES];
	bool allowed[NETWORKS][NAMES];
	uint64_t now; /* also how long ago the boot was, but for what the suspended machine slept */
};

static unsigned int below(unsigned int limit)
{
	return (unsigned int)rand() % limit;
}

static void random_lifetimes(struct lifetimes *lifetimes)
{
	*lifetimes = (struct lifetimes){.min_ttl = below(5), .grace = below(20), .max_age = 1 + below(40)};
}

static void answer(struct history *h)
{
	unsigned int n = below(NETWORKS), a = below(ADDRESSES), d = below(NAMES), ttl = below(10);
	struct reference *reference = &h->reference[n][a][d];
	const struct lifetimes *l = &h->networks[n].lifetimes;
	struct lease lease = {.address = h->addresses[a], .network = h->networks[n].id, .name = h->names[d], .specs = 1, .shown = h->now};
	uint64_t life = (ttl > l->min_ttl ? ttl : l->min_ttl) + l->grace;

	if (!h->allowed[n][d])
		return;
	lease.until = h->now + lifetime_seconds(l, ttl) * UINT64_C(1000);
	assert_int_equal(lease_put(h->table, &lease), 0);
	assert_int_equal(journal_append(&h->journal, &h->policy, &lease, 1, h->now), 0);
	life = (life < l->max_age ? life : l->max_age) * 1000;
	reference->end = reference->there && reference->end > h->now + life ? reference->end : h->now + life;
	reference->written = reference->written > h->now + life ? reference->written : h->now + life;
	reference->shown = h->now;
	reference->there = reference->allowed = true;
}

struct use {
	struct history *history;
	const struct network *network;
};

static void use_lease(void *context, struct lease *lease)
{
	const struct use *use = context;
	uint64_t until = lifetime_used(&use->network->lifetimes, lease->shown, lease->until, use->history->now, PERIOD);

	if (lease->specs == 0 || until == lease->until)
		return;
	lease->until = until;
	assert_int_equal(journal_append(&use->history->journal, &use->history->policy, lease, 1, use->history->now), 0);
}

static void flow(struct history *h)
{
	unsigned int n = below(NETWORKS), a = below(ADDRESSES);
	struct use use = {.history = h, .network = &h->networks[n]};
	const struct lifetimes *l = &h->networks[n].lifetimes;

	(void)lease_touch(h->table, h->networks[n].id, &h->addresses[a], h->now);
	lease_visit(h->table, h->networks[n].id, &h->addresses[a], use_lease, &use);
	for (unsigned int d = 0; d < NAMES; d++) {
		struct reference *reference = &h->reference[n][a][d];
		uint64_t kept = h->now + PERIOD + l->grace * UINT64_C(1000), last = reference->shown + l->max_age * UINT64_C(1000);

		if (!reference->there || !reference->allowed || reference->end <= h->now)
			continue;
		kept = kept < last ? kept : last;
		if (kept <= reference->end)
			continue;
		reference->end = kept;
		reference->written = kept > reference->written ? kept : reference->written;
	}
}

/* As apply.c does. */
static bool judge(void *context, struct lease *lease)
{
	struct history *h = context;
	unsigned int n = lease->network == h->networks[0].id ? 0 : 1, d = 0;

	while (!domain_equal(&lease->name, &h->names[d]))
		d++;
	lease->until = lifetime_bounded(&h->networks[n].lifetimes, lease->shown, lease->until);
	lease->specs = h->allowed[n][d] ? 1 : 0;
	return true;
}

static void judge_all(struct history *h)
{
	lease_each(h->table, judge, h);
	for (unsigned int n = 0; n < NETWORKS; n++) {
		for (unsigned int a = 0; a < ADDRESSES; a++) {
			for (unsigned int d = 0; d < NAMES; d++) {
				struct reference *reference = &h->reference[n][a][d];
				uint64_t last = reference->shown + h->networks[n].lifetimes.max_age * UINT64_C(1000);

				reference->end = reference->end < last ? reference->end : last;
				reference->allowed = h->allowed[n][d];
			}
		}
	}
}

static void reload(struct history *h)
{
	unsigned int n = below(NETWORKS);

	random_lifetimes(&h->networks[n].lifetimes);
	h->allowed[n][below(NAMES)] = below(2);
	judge_all(h);
}

/* A new worker: nothing is known but the journal, and not that max_age was shorter for a while. */
static void restart(struct history *h)
{
	size_t damaged;

	lease_table_free(h->table);
	h->table = lease_table_new();
	assert_non_null(h->table);
	assert_int_equal(journal_open(&h->journal, h->files), 0);
	assert_true(journal_restore(&h->journal, &h->policy, h->table, h->now, &damaged, NULL, NULL) >= 0);
	assert_int_equal(damaged, 0);
	for (unsigned int n = 0; n < NETWORKS; n++) {
		for (unsigned int a = 0; a < ADDRESSES; a++) {
			for (unsigned int d = 0; d < NAMES; d++)
				h->reference[n][a][d].end = h->reference[n][a][d].written;
		}
	}
	judge_all(h);
}

static void step(struct history *h)
{
	switch (below(20)) {
	case 0: reload(h); break;
	case 1: restart(h); break;
	case 2: lease_sweep(h->table, h->now); break;
	case 3:
	case 4:
	case 5:
	case 6:
	case 7: flow(h); break;
	case 8:
	case 9:
	case 10:
	case 11:
		h->now += below(8000);
		virtual_ms = h->now + SUSPENDED_MS;
		break;
	default: answer(h); break;
	}
}

static void compare(struct history *h)
{
	for (unsigned int n = 0; n < NETWORKS; n++) {
		for (unsigned int a = 0; a < ADDRESSES; a++) {
			uint64_t end = 0;

			for (unsigned int d = 0; d < NAMES; d++) {
				const struct reference *reference = &h->reference[n][a][d];

				if (reference->there && reference->allowed && reference->end > end)
					end = reference->end;
			}
			assert_int_equal(lease_until(h->table, h->networks[n].id, &h->addresses[a], 1), end);
		}
	}
}

static void begin(struct history *h)
{
	memset(h, 0, sizeof(*h));
	h->now = 1000000;
	virtual_ms = h->now + SUSPENDED_MS;
	h->table = lease_table_new();
	assert_non_null(h->table);
	h->policy = (struct policy){.networks = h->networks, .network_count = NETWORKS};
	for (unsigned int i = 0; i < NETWORKS; i++) {
		h->networks[i].id = (uint16_t)(5 + i);
		snprintf(h->networks[i].name, sizeof(h->networks[i].name), "n%u", i);
		random_lifetimes(&h->networks[i].lifetimes);
		for (unsigned int d = 0; d < NAMES; d++)
			h->allowed[i][d] = true;
	}
	for (unsigned int i = 0; i < NAMES; i++) {
		char text[32];

		snprintf(text, sizeof(text), "n%u.example", i);
		assert_null(domain_parse(text, &h->names[i]));
	}
	for (unsigned int i = 0; i < ADDRESSES; i++)
		h->addresses[i] = (struct address){.family = AF_INET, .bytes = {198, 18, 0, (uint8_t)i}};
	for (unsigned int i = 0; i < JOURNAL_FILES; i++)
		assert_true((h->files[i] = memfd_create("journal", MFD_CLOEXEC)) >= 0);
	assert_int_equal(journal_open(&h->journal, h->files), 0);
}

static void the_table_agrees_with_the_reference(void **state)
{
	struct history *h = malloc(sizeof(*h));

	(void)state;
	assert_non_null(h);
	for (unsigned int seed = 1; seed <= HISTORIES; seed++) {
		srand(seed);
		begin(h);
		for (unsigned int i = 0; i < STEPS; i++) {
			step(h);
			compare(h);
		}
		lease_table_free(h->table);
		for (unsigned int i = 0; i < JOURNAL_FILES; i++)
			close(h->files[i]);
	}
	free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_answer_gives_at_most_max_age),
		cmocka_unit_test(a_flow_keeps_a_lease_for_grace_and_no_longer_than_max_age),
		cmocka_unit_test(another_max_age_holds_at_once),
		cmocka_unit_test(names_in_use_are_asked_again_at_half_of_max_age),
		cmocka_unit_test(flows_are_looked_for_before_grace_is_over),
		cmocka_unit_test(the_table_agrees_with_the_reference),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
