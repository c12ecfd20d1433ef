/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_CONFIG_CA_H
#define SLUICE_GATEWAY_CONFIG_CA_H

#include <stddef.h>

#define CONFIG_CA_MAX (1024UL * 1024) /* octets of a file of certificate authorities; the largest bundles have a quarter of it */

/**
 * config_ca_read() - Read certificate authorities, PEM
 * @error:	what is wrong with the file, without its name
 * Return: the text, malloc()ed; NULL when it cannot be read or holds no certificate.
 */
char *config_ca_read(const char *path, char *error, size_t error_size);

#endif
