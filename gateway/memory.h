/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_MEMORY_H
#define SLUICE_GATEWAY_MEMORY_H

#include "gateway/config.h"

/*
 * The last good policy, kept as text in the supervisor's memfd: a worker that is started again while the files on
 * disk are bad goes on with what was running.
 */

/** memory_store() - Replace what is kept. A crash in the middle leaves nothing kept, never half of it. Return: 0 or -errno. */
int memory_store(int memory, const struct config_text *text);

/** memory_load() - Return: 0, -ENOENT when nothing is kept, or another -errno. */
int memory_load(int memory, struct config_text *out);

#endif
