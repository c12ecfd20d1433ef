/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_TESTS_CLIENT_HELLO_H
#define SLUICE_TESTS_CLIENT_HELLO_H

/* Hellos to read, by libssl's own client. */

#include <openssl/ssl.h>

#define HELLO_MAX 4096

/* What a client sends first. @name: NULL: without a name. */
static size_t make_hello(const char *name, uint8_t *out)
{
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	SSL *ssl = SSL_new(context);
	BIO *in = BIO_new(BIO_s_mem()), *sent = BIO_new(BIO_s_mem());
	int size;

	SSL_set_bio(ssl, in, sent);
	if (name)
		SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
			 (void *)(uintptr_t)name); /* its macro casts const away */
	SSL_connect(ssl);
	size = BIO_read(sent, out, HELLO_MAX);
	assert_true(size > 0);
	SSL_free(ssl);
	SSL_CTX_free(context);
	return (size_t)size;
}

#endif
