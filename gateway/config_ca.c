/* SPDX-License-Identifier: MIT */
/* `ca = FILE`: certificate authorities for DNS over TLS; `notify_ca = FILE`: for notifications. */

#include "gateway/config_ca.h"

#include <stdlib.h>

#include "gateway/config_file.h"
#include "resolver/upstream_tls.h"

char *config_ca_read(const char *path, char *error, size_t error_size)
{
	char *text = config_file_read(path, CONFIG_CA_MAX, "certificates in PEM form, '-----BEGIN CERTIFICATE-----'", error, error_size);

	if (!text || upstream_tls_check_roots(text, error, error_size) == 0)
		return text;
	free(text);
	return NULL;
}
