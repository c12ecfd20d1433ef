/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_PRIVILEGES_H
#define SLUICE_GATEWAY_PRIVILEGES_H

#include <stddef.h>

#define PRIVILEGES_USER 65532 /* uid and gid when started as root with CAP_SETUID */

/**
 * privileges_drop() - Keep CAP_NET_ADMIN and nothing else, become a non-root user where possible, set no_new_privs
 * @error:	one line: what is missing and what to write into the Compose file
 *
 * Called by the supervisor before it forks its first worker: inherited by all. Return: 0 or -errno.
 */
int privileges_drop(char *error, size_t error_size);

#endif
