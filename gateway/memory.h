/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_MEMORY_H
#define SLUICE_GATEWAY_MEMORY_H

#include <stddef.h>

#include "gateway/config.h"

/*
 * What outlives a worker: blocks of bytes in memfds that the supervisor holds. The last good policy, as text: a worker that is started
 * again while the files on disk are bad goes on with what was running. And the last readings of the kernel's counters.
 */

/**
 * memory_put() - Replace what is kept; a crash in the middle leaves nothing kept, never half of it
 * Return: 0 or -errno.
 */
int memory_put(int memory, const void *bytes, size_t size);

/**
 * memory_map() / memory_unmap() - What is kept, to be overwritten in place; a crash leaves all that was written before it
 * @size:	as given to memory_put(), not 0; before the next memory_put() it is unmapped
 * @out:	set to the first byte, aligned for any number
 * Return: 0 or -errno.
 */
int memory_map(int memory, size_t size, void **out);
void memory_unmap(void *bytes, size_t size);

/** memory_get() - @bytes: malloc()ed for the caller. Return: 0, -ENOENT when nothing is kept, or another -errno. */
int memory_get(int memory, void **bytes, size_t *size);

/** memory_put_policy() / memory_get_policy() - The same for the text of a policy. */
int memory_put_policy(int memory, const struct config_text *text);
int memory_get_policy(int memory, struct config_text *out);

#endif
