/* SPDX-License-Identifier: MIT */
/* Statistics as another worker, or another version, has left them: read, told as the answer to `stats`, written, read again. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "gateway/memory.h"
#include "gateway/report/stats_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int memory, written;
static struct policy *policy;
static struct log *log_;

static void set_up(void)
{
	memory = memfd_create("fuzz-stats", MFD_CLOEXEC);
	written = memfd_create("fuzz-stats-written", MFD_CLOEXEC);
	policy = policy_new();
	log_ = log_new(-1, LOG_TEXT);
	assert(memory >= 0 && written >= 0 && policy && log_);
}

static void tell(const struct stats *stats)
{
	json_t *answer = stats_json(stats, policy, NULL, 1);
	char *text;

	assert(answer && json_is_true(json_object_get(answer, "ok")));
	text = json_dumps(answer, JSON_COMPACT);
	assert(text);
	free(text);
	json_decref(answer);
}

static struct stats *read_from(int descriptor)
{
	struct stats *stats = stats_new();
	struct stats_file *file = stats_file_new(-1, descriptor, stats, log_);

	assert(stats && file);
	(void)stats_file_restore(file);
	stats_file_free(file);
	return stats;
}

static void write_to(int descriptor, struct stats *stats)
{
	struct stats_file *file = stats_file_new(-1, descriptor, stats, log_);

	assert(file);
	stats_file_write(file, STATS_MEMORY_PERIOD_MS, true);
	stats_file_free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stats *stats, *again;

	if (!policy)
		set_up();
	assert(memory_put(memory, data, size) == 0 && ftruncate(written, 0) == 0);
	stats = read_from(memory);
	tell(stats);
	write_to(written, stats);
	again = read_from(written);
	assert(stats_changes(stats) == 0 || stats_count_rows(again) == stats_count_rows(stats));
	stats_free(stats);
	stats_free(again);
	return 0;
}
