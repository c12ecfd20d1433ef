/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_STATE_H
#define SLUICE_GATEWAY_STATE_H

/*
 * The state directory, a volume in Docker: what a recreated container knows of the one before. It holds the two files of the journal
 * (journal.h), leases-0 and leases-1, and what people are shown (report/).
 */

#include "common/log.h"
#include "gateway/journal.h"

#define STATE_PATH        "/var/lib/sluice"
#define STATE_ENVIRONMENT "SLUICE_STATE" /* another directory */

/** state_path() - SLUICE_STATE or STATE_PATH. */
const char *state_path(void);

struct state {
	int directory; /* -1: there is none, and no files */
	int files[JOURNAL_FILES];
};

/**
 * state_open() - Open the state directory, and the journal's files in it
 *
 * Whoever has them open has them alone. A file that is damaged or of another version is renamed to NAME.aside, and said.
 *
 * Return: 0, state_close() closes it; or -errno with @error, one line that says what to do; then there is no state directory, and the
 * journal is kept in memory.
 */
int state_open(struct state *state, struct log *log, char *error, size_t error_size);

/** state_close() - Nothing happens when it is not open. */
void state_close(struct state *state);

#endif
