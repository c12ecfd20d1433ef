/* SPDX-License-Identifier: MIT */
/*
 * The journal of leases and mappings, as another worker may have left it. The first octet of the input says what the rest is: a whole file,
 * or records, each with two octets of size in front, which get the sums that nobody would hit upon. What was read is written anew, and that
 * must be read whole.
 */
#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "gateway/journal.c"
#include "tests/unit/two_networks.h"

#define NOW 1000 /* ms, the leases' clock */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Behind what is in the file. */
static void put(int file, const void *bytes, size_t size)
{
	off_t end = lseek(file, 0, SEEK_END);

	assert(pwrite(file, bytes, size, end) == (ssize_t)size);
}

static void put_record(int file, const uint8_t *bytes, size_t size)
{
	uint8_t record[UINT16_MAX + 1];
	uint16_t whole = (uint16_t)(size + sizeof(uint64_t));
	uint64_t sum;

	if (size < sizeof(struct head) || size + sizeof(sum) > UINT16_MAX)
		return;
	memcpy(record, bytes, size);
	memcpy(record + offsetof(struct head, size), &whole, sizeof(whole));
	sum = sum_of(record, size);
	memcpy(record + size, &sum, sizeof(sum));
	put(file, record, whole);
}

static void put_records(int file, const uint8_t *data, size_t size)
{
	while (size >= 2) {
		size_t step = (size_t)data[0] | (size_t)data[1] << 8;

		data += 2;
		size -= 2;
		step = step < size ? step : size;
		put_record(file, data, step);
		data += step;
		size -= step;
	}
}

static void on_mapping(void *context, const struct mapping *mapping)
{
	size_t *count = context;

	assert(mapping->network == 7 || mapping->network == 9);
	assert(mapping->real.family == mapping->address.family && mapping->slot < MAPPING_PER_NAME_MAX);
	(*count)++;
}

static ssize_t restore(const int files[static JOURNAL_FILES], const struct policy *policy, struct lease_table *leases, size_t *damaged,
		       struct journal *journal)
{
	size_t mappings = 0;

	assert(journal_open(journal, files) == 0);
	return journal_restore(journal, policy, leases, NOW, damaged, on_mapping, &mappings);
}

/* Read it, write it anew, read that. */
static void turn_over(const int files[static JOURNAL_FILES], const struct policy *policy)
{
	struct lease_table *leases = lease_table_new(), *again = lease_table_new();
	struct journal journal;
	size_t damaged;

	assert(leases && again);
	assert(restore(files, policy, leases, &damaged, &journal) >= 0);
	journal.outdated = true;
	assert(journal_compact(&journal, policy, leases, NOW, NULL, NULL) == 0);
	assert(restore(files, policy, again, &damaged, &journal) >= 0 && damaged == 0);
	assert(lease_table_count(again) <= lease_table_count(leases));
	lease_table_free(leases);
	lease_table_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct policy *policy;
	static int files[JOURNAL_FILES];
	struct journal journal;

	if (!policy) {
		policy = make_two_networks();
		assert(policy);
		for (unsigned int i = 0; i < JOURNAL_FILES; i++)
			files[i] = memfd_create("fuzz-journal", MFD_CLOEXEC);
	}
	if (size == 0)
		return 0;
	for (unsigned int i = 0; i < JOURNAL_FILES; i++)
		assert(ftruncate(files[i], 0) == 0);
	if (data[0] & 1) {
		put(files[0], data + 1, size - 1);
		(void)journal_knows(files[0]);
	} else {
		assert(journal_open(&journal, files) == 0);
		put_records(files[journal.current], data + 1, size - 1);
	}
	turn_over(files, policy);
	return 0;
}
