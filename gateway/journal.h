/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_JOURNAL_H
#define SLUICE_GATEWAY_JOURNAL_H

/*
 * Leases and mappings that outlive the process: every one is appended before its answer leaves; a worker that is started again reads them
 * back. On a volume (state.h) they outlive the container as well. They do not outlive the boot: the apps begin anew then, and so does the
 * clock.
 *
 * Two files take turns. Records are appended to the current one; when it has grown to twice what it held, all leases and mappings are
 * written to the other one, whose header then gets the next generation number: a crash at any moment leaves one complete file. Appending is
 * a write(2) without fsync: what was written survives the process; after a power loss the apps start anew as well. (Not mmap: on a full
 * file system a store would be a SIGBUS, a write is an error.)
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/lease.h"
#include "common/mapping.h"
#include "common/policy.h"

#define JOURNAL_FILES 2
#define JOURNAL_SLACK (1024 * 1024) /* bytes of dead records that are always tolerated */

struct journal {
	int files[JOURNAL_FILES]; /* not owned */
	unsigned int current;     /* index into files */
	uint64_t generation;
	off_t size;      /* of the current file */
	off_t live_size; /* of the current file when it was last written whole */
	bool outdated;   /* set by the caller: it has what was removed since, and is to be written anew however small it is */
};

/** journal_knows() - Is the file empty, or a journal of this version? If not, it has to be set aside: it is going to be overwritten. */
bool journal_knows(int file);

/** journal_open() - Find the current file; with none of this boot, begin. @files stay the caller's. Return: 0 or -errno. */
int journal_open(struct journal *journal, const int files[static JOURNAL_FILES]);

/**
 * journal_restore() - Put the leases into the table that are still remembered; those of networks that @policy does not have are left out
 * @now:	ms, the leases' clock; as late as can be, for it is taken together with the time of now on the journal's clock
 * @damaged:	receives how many octets at the end were no whole records; they are gone
 * @mapped:	called for each mapping in the order of the file, so that the last one of an address or a slot holds; those of networks
 *		that @policy does not have are left out. May be NULL
 * Return: how many leases that have not ended, or -errno. A damaged record ends the reading; what came before it counts.
 */
ssize_t journal_restore(struct journal *journal, const struct policy *policy, struct lease_table *leases, uint64_t now, size_t *damaged,
			void (*mapped)(void *context, const struct mapping *mapping), void *context);

/** journal_append() - Write leases that are new or were extended; @now: ms, the leases' clock. Return: 0 or -errno. */
int journal_append(struct journal *journal, const struct policy *policy, const struct lease *leases, size_t count, uint64_t now);

/** journal_append_mappings() - As journal_append(), mappings that are new or have changed. */
int journal_append_mappings(struct journal *journal, const struct policy *policy, const struct mapping *mappings, size_t count,
			    uint64_t now);

/* Calls @put(@put_context, ...) for every mapping there is; it always returns true (as mapping_each() wants it, to keep the mapping). */
typedef void (*journal_each_mapping)(void *context, bool (*put)(void *put_context, const struct mapping *mapping), void *put_context);

/**
 * journal_compact() - Write all leases and mappings to the other file when the current one has grown enough; else nothing
 * @now:	ms, the leases' clock
 * @each_mapping:	called once, with @context, when there is something to be written; NULL: there are no mappings
 * Return: 0 or -errno; the current file stays then.
 */
int journal_compact(struct journal *journal, const struct policy *policy, struct lease_table *leases, uint64_t now,
		    journal_each_mapping each_mapping, void *context);

#endif
