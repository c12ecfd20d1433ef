/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: a libssl server without a certificate reads from memory. Its callback for the ClientHello, which comes before it
 * looks at anything else, notes the name and ends the handshake. Whether the octets were too few is told by the state in which it waits.
 * What it wants to answer is never sent.
 */
#include "gateway/verify/hello.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/tls1.h>

#define RECORD_HEADER     5     /* octets */
#define RECORD_MAX        16384 /* octets of a record's content */
#define CONTENT_HANDSHAKE 22
#define CLIENT_HELLO      1
#define NAME_LIST_HEADER  2 /* octets: the list's length */
#define NAME_HEADER       3 /* octets: kind and length */
#define KIND_HOST_NAME    0

struct hello_reader {
	SSL_CTX *context; /* owned */
	enum hello_result result;
	struct domain *name; /* the caller's, while reading */
};

static size_t read16(const uint8_t *at)
{
	return (size_t)at[0] << 8 | at[1];
}

/* The only name of the list: RFC 6066 allows one of a kind, and there is one kind. */
static enum hello_result read_name(const uint8_t *list, size_t size, struct domain *out)
{
	char text[DOMAIN_TEXT_MAX];
	size_t length;

	if (size < NAME_LIST_HEADER + NAME_HEADER || read16(list) != size - NAME_LIST_HEADER || list[NAME_LIST_HEADER] != KIND_HOST_NAME)
		return HELLO_BROKEN;
	length = read16(list + NAME_LIST_HEADER + 1);
	if (length != size - NAME_LIST_HEADER - NAME_HEADER || length == 0 || length > DOMAIN_WIRE_MAX)
		return HELLO_BROKEN;
	memcpy(text, list + NAME_LIST_HEADER + NAME_HEADER, length);
	text[length] = '\0';
	if (strlen(text) != length || domain_parse(text, out))
		return HELLO_BROKEN;
	return HELLO_NAME;
}

static int on_hello(SSL *ssl, int *alert, void *context)
{
	struct hello_reader *reader = context;
	const uint8_t *list;
	size_t size;

	(void)alert;
	if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &list, &size) == 1)
		reader->result = read_name(list, size, reader->name);
	else
		reader->result = HELLO_NO_NAME;
	return SSL_CLIENT_HELLO_ERROR; /* that was all we wanted */
}

struct hello_reader *hello_reader_new(void)
{
	struct hello_reader *reader = calloc(1, sizeof(*reader));

	if (!reader)
		return NULL;
	reader->context = SSL_CTX_new(TLS_server_method());
	if (!reader->context) {
		free(reader);
		return NULL;
	}
	SSL_CTX_set_client_hello_cb(reader->context, on_hello, reader);
	return reader;
}

void hello_reader_free(struct hello_reader *reader)
{
	if (!reader)
		return;
	SSL_CTX_free(reader->context);
	free(reader);
}

/* Takes over @in, also when something is wrong. */
static enum hello_result read_from(struct hello_reader *reader, BIO *in, struct domain *name)
{
	SSL *ssl = SSL_new(reader->context);
	BIO *out = BIO_new(BIO_s_null());
	int rc;

	if (!ssl || !in || !out) {
		SSL_free(ssl);
		BIO_free(in);
		BIO_free(out);
		return HELLO_BROKEN;
	}
	BIO_set_mem_eof_return(in, -1); /* "more may come" */
	SSL_set_bio(ssl, in, out);
	reader->result = HELLO_MORE;
	reader->name = name;
	rc = SSL_accept(ssl);
	if (reader->result == HELLO_MORE && SSL_get_error(ssl, rc) != SSL_ERROR_WANT_READ)
		reader->result = HELLO_BROKEN;
	SSL_free(ssl);
	ERR_clear_error();
	return reader->result;
}

enum hello_result hello_read_records(struct hello_reader *reader, const uint8_t *bytes, size_t size, struct domain *name)
{
	/* libssl would also read SSL 2, which has no names. */
	if (!hello_may_begin(bytes, size))
		return HELLO_BROKEN;
	return size == 0 ? HELLO_MORE : read_from(reader, BIO_new_mem_buf(bytes, (int)size), name);
}

enum hello_result hello_read_message(struct hello_reader *reader, const uint8_t *bytes, size_t size, struct domain *name)
{
	BIO *records = BIO_new(BIO_s_mem());

	if (size > 0 && bytes[0] != CLIENT_HELLO) {
		BIO_free(records);
		return HELLO_BROKEN;
	}
	for (size_t at = 0, part; records && at < size; at += part) {
		uint8_t header[RECORD_HEADER];

		part = size - at < RECORD_MAX ? size - at : RECORD_MAX;
		memcpy(header, (const uint8_t[]){CONTENT_HANDSHAKE, 3, 1, (uint8_t)(part >> 8), (uint8_t)part}, sizeof(header));
		BIO_write(records, header, sizeof(header));
		BIO_write(records, bytes + at, (int)part);
	}
	return read_from(reader, records, name);
}

bool hello_may_begin(const uint8_t *bytes, size_t size)
{
	return (size < 1 || bytes[0] == CONTENT_HANDSHAKE) && (size < 2 || bytes[1] == 3) &&
	       (size <= RECORD_HEADER || bytes[RECORD_HEADER] == CLIENT_HELLO);
}
