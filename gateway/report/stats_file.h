/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_STATS_FILE_H
#define SLUICE_GATEWAY_REPORT_STATS_FILE_H

/*
 * Statistics as JSON: for those who ask, and in the state directory, so that they outlive the container, and in memory, for the next
 * worker.
 */

#include <jansson.h>

#include "common/log.h"
#include "common/policy.h"
#include "gateway/report/stats.h"

#define STATS_FILE_PERIOD_MS   60000 /* how often the file is written, when anything was counted */
#define STATS_MEMORY_PERIOD_MS 1000  /* and what the next worker gets */
#define STATS_FILE_TURN        128   /* rows written in one turn of the loop */

struct stats_file; /* stats_file.c */

/**
 * stats_file_new() - Where statistics are kept
 * @directory:	the state directory, the caller's: they outlive the container
 * @memory:	or a descriptor of memory.h: they outlive the worker
 * Return: NULL when out of memory. With -1 for both nothing is kept.
 */
struct stats_file *stats_file_new(int directory, int memory, struct stats *stats, struct log *log);
void stats_file_free(struct stats_file *file);

/** stats_file_restore() - Read what is kept into the statistics. Return: false: nothing. */
bool stats_file_restore(struct stats_file *file);

/**
 * stats_file_write() - Write what has changed, when it is time, a part in each call
 * @now:	ms of any clock that only goes forward
 * @last:	write all of it now: there will be no other call
 *
 * The rows are copied first, so that what is written is of one moment; what was kept before stays until the new one is whole.
 */
void stats_file_write(struct stats_file *file, uint64_t now, bool last);

/**
 * stats_json() - The answer to the command `stats` (docs/control-protocol.md)
 * @name:	of one network; NULL: all
 * @wall:	now, for audit_until and in the answer
 * Return: a new reference; NULL: out of memory.
 */
json_t *stats_json(const struct stats *stats, const struct policy *policy, const char *name, time_t wall);

#endif
