/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_CONFIG_FILE_H
#define SLUICE_GATEWAY_CONFIG_FILE_H

#include <stddef.h>

/**
 * config_file_read() - Read a text file that the policy names
 * @max:	octets
 * @form:	what to write there, for the message about a file that is no text
 * @error:	what is wrong with the file, without its name
 * Return: the text, malloc()ed, or NULL.
 */
char *config_file_read(const char *path, size_t max, const char *form, char *error, size_t error_size);

#endif
