/* SPDX-License-Identifier: MIT */
/*
 * TLS over memory, by OpenSSL.
 *
 * Theory of operation: a connection has two memory BIOs; upstream_dot.c and the doctor carry octets between them and a socket. Verification
 * is the library's: the chain up to a trusted authority, validity, and the name among the certificate's subjectAltNames; the common name is
 * not looked at. The handshake counts as done only when the verification's result says so, also for a resumed session.
 *
 * A server's latest session is kept and offered to it at the next connection, for SESSION_SECONDS at most: who holds a ticket is not asked
 * for a certificate again. Early data is not used: it could be replayed.
 */

#include "resolver/upstream_tls.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#define SESSION_SECONDS 3600
#define CIPHERS_TLS12   "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20" /* forward secrecy and AEAD only, RFC 9325 */

struct upstream_tls_context {
	SSL_CTX *ssl; /* owned */
};

struct upstream_tls_server {
	struct upstream_tls_context *context;
	SSL_SESSION *session; /* owned; NULL: none */
	char name[];
};

struct upstream_tls {
	struct upstream_tls_server *server;
	SSL *ssl;              /* owned, and with it both BIOs */
	BIO *in, *out;         /* from and to the server */
	long verified;         /* X509_V_*, of the failed handshake */
	unsigned long failure; /* the library's error code of the failed handshake; 0: it has none */
};

/* --- certificate authorities --- */

/* Nobody is asked for a passphrase. */
static int no_passphrase(char *out, int size, int writing, void *context)
{
	(void)out;
	(void)size;
	(void)writing;
	(void)context;
	return -1;
}

/* Return: how many certificates were added to the store (may be NULL), or -EINVAL, -ENOMEM. */
static int add_certificates(const char *pem, X509_STORE *store)
{
	size_t size = strlen(pem);
	BIO *bio = size <= INT_MAX ? BIO_new_mem_buf(pem, (int)size) : NULL;
	X509 *certificate;
	int count = 0;

	if (!bio)
		return -ENOMEM;
	ERR_clear_error();
	while ((certificate = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL))) {
		bool added = !store || X509_STORE_add_cert(store, certificate) == 1;

		X509_free(certificate);
		count++;
		if (!added) {
			BIO_free(bio);
			return -ENOMEM;
		}
	}
	BIO_free(bio);
	/* Behind the last certificate it finds no further one: all other errors are of one that is damaged. */
	if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
		count = -EINVAL;
	ERR_clear_error();
	return count;
}

int upstream_tls_check_roots(const char *pem, char *error, size_t error_size)
{
	int count = add_certificates(pem, NULL);

	if (count > 0)
		return 0;
	if (count == -ENOMEM)
		snprintf(error, error_size, "out of memory");
	else if (count < 0)
		snprintf(error, error_size, "holds a certificate that cannot be read");
	else
		snprintf(error, error_size, "holds no certificate: PEM is expected, '-----BEGIN CERTIFICATE-----'");
	return count == -ENOMEM ? -ENOMEM : -EINVAL;
}

static int on_session(SSL *ssl, SSL_SESSION *session)
{
	struct upstream_tls *tls = SSL_get_app_data(ssl);

	SSL_SESSION_free(tls->server->session);
	tls->server->session = session;
	return 1; /* it is ours now */
}

static bool load_roots(SSL_CTX *ssl, const char *pem)
{
	if (!pem)
		return SSL_CTX_set_default_verify_paths(ssl) == 1;
	/* What the policy names is trusted as it is, also when it is not the root of its chain. */
	X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ssl), X509_V_FLAG_PARTIAL_CHAIN);
	return add_certificates(pem, SSL_CTX_get_cert_store(ssl)) > 0;
}

static bool configure(SSL_CTX *ssl, const char *pem)
{
	static const unsigned char protocols[] = "\3dot"; /* ALPN, RFC 7858 by IANA's registry */

	SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION);
	SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(ssl, on_session);
	return SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION) == 1 && SSL_CTX_set_cipher_list(ssl, CIPHERS_TLS12) == 1 &&
	       SSL_CTX_set_alpn_protos(ssl, protocols, sizeof(protocols) - 1) == 0 && load_roots(ssl, pem);
}

struct upstream_tls_context *upstream_tls_context_new(const char *pem)
{
	struct upstream_tls_context *context = calloc(1, sizeof(*context));

	if (!context)
		return NULL;
	context->ssl = SSL_CTX_new(TLS_client_method());
	if (context->ssl && configure(context->ssl, pem))
		return context;
	ERR_clear_error();
	upstream_tls_context_free(context);
	return NULL;
}

void upstream_tls_context_free(struct upstream_tls_context *context)
{
	if (!context)
		return;
	SSL_CTX_free(context->ssl);
	free(context);
}

/* --- servers and connections --- */

struct upstream_tls_server *upstream_tls_server_new(struct upstream_tls_context *context, const char *name)
{
	size_t size = strlen(name) + 1;
	struct upstream_tls_server *server = calloc(1, sizeof(*server) + size);

	if (!server)
		return NULL;
	server->context = context;
	memcpy(server->name, name, size);
	return server;
}

void upstream_tls_server_free(struct upstream_tls_server *server)
{
	if (!server)
		return;
	SSL_SESSION_free(server->session);
	free(server);
}

static void offer_session(const struct upstream_tls *tls)
{
	SSL_SESSION *session = tls->server->session;

	if (session && time(NULL) - (time_t)SSL_SESSION_get_time(session) < SESSION_SECONDS)
		(void)SSL_set_session(tls->ssl, session); /* without it the handshake is a full one */
}

static bool prepare(struct upstream_tls *tls)
{
	char *name = tls->server->name; /* not const: SSL_set_tlsext_host_name() is an old macro */

	SSL_set_app_data(tls->ssl, tls);
	SSL_set_connect_state(tls->ssl);
	SSL_set_hostflags(tls->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
	if (SSL_set1_host(tls->ssl, name) != 1 || SSL_set_tlsext_host_name(tls->ssl, name) != 1)
		return false;
	offer_session(tls);
	return true;
}

struct upstream_tls *upstream_tls_new(struct upstream_tls_server *server)
{
	struct upstream_tls *tls = calloc(1, sizeof(*tls));

	if (!tls)
		return NULL;
	tls->server = server;
	tls->ssl = SSL_new(server->context->ssl);
	tls->in = BIO_new(BIO_s_mem());
	tls->out = BIO_new(BIO_s_mem());
	if (tls->ssl && tls->in && tls->out) {
		SSL_set_bio(tls->ssl, tls->in, tls->out);
		if (prepare(tls))
			return tls;
	} else {
		BIO_free(tls->in);
		BIO_free(tls->out);
	}
	SSL_free(tls->ssl);
	free(tls);
	return NULL;
}

void upstream_tls_free(struct upstream_tls *tls)
{
	if (!tls)
		return;
	/* Otherwise the library takes the session for a bad one: servers often end a connection without a word. */
	if (SSL_is_init_finished(tls->ssl))
		SSL_set_shutdown(tls->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(tls->ssl);
	free(tls);
}

/* --- octets --- */

int upstream_tls_received(struct upstream_tls *tls, const void *octets, size_t size)
{
	size_t written;

	return BIO_write_ex(tls->in, octets, size, &written) == 1 && written == size ? 0 : -ENOMEM;
}

size_t upstream_tls_to_send(struct upstream_tls *tls, void *out, size_t size)
{
	size_t taken;

	return BIO_read_ex(tls->out, out, size, &taken) == 1 ? taken : 0;
}

static bool wants_more(const struct upstream_tls *tls, int result)
{
	return SSL_get_error(tls->ssl, result) == SSL_ERROR_WANT_READ;
}

int upstream_tls_handshake(struct upstream_tls *tls)
{
	int result;

	ERR_clear_error();
	result = SSL_do_handshake(tls->ssl);
	if (result != 1 && wants_more(tls, result))
		return -EAGAIN;
	tls->verified = SSL_get_verify_result(tls->ssl);
	tls->failure = ERR_peek_error();
	ERR_clear_error();
	if (tls->verified != X509_V_OK)
		return -EKEYREJECTED;
	return result == 1 ? 0 : -EPROTO;
}

bool upstream_tls_resumed(const struct upstream_tls *tls)
{
	return SSL_session_reused(tls->ssl) == 1;
}

ssize_t upstream_tls_read(struct upstream_tls *tls, void *out, size_t size)
{
	size_t got;
	int result, error;

	ERR_clear_error();
	result = SSL_read_ex(tls->ssl, out, size, &got);
	if (result == 1)
		return (ssize_t)got;
	error = SSL_get_error(tls->ssl, result);
	ERR_clear_error();
	if (error == SSL_ERROR_ZERO_RETURN)
		return 0;
	return error == SSL_ERROR_WANT_READ ? -EAGAIN : -EPROTO;
}

int upstream_tls_write(struct upstream_tls *tls, const void *octets, size_t size)
{
	size_t written;
	int result;

	ERR_clear_error();
	result = SSL_write_ex(tls->ssl, octets, size, &written);
	ERR_clear_error();
	return result == 1 && written == size ? 0 : -EPROTO; /* memory takes everything at once */
}

void upstream_tls_end(struct upstream_tls *tls)
{
	if (SSL_is_init_finished(tls->ssl))
		(void)SSL_shutdown(tls->ssl);
	ERR_clear_error();
}

/* What to do about a certificate that is not accepted. */
static const char *certificate_cure(long verified)
{
	switch (verified) {
	case X509_V_ERR_HOSTNAME_MISMATCH: return "write the name that it is for behind '#'";
	case X509_V_ERR_CERT_HAS_EXPIRED:
	case X509_V_ERR_CERT_NOT_YET_VALID: return "it has to be renewed, unless the clock here is wrong";
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: return "if its authority is your own, write `ca = FILE` under [upstream]";
	default: return "somebody may be in between, or the server is set up wrongly";
	}
}

const char *upstream_tls_reason(const struct upstream_tls *tls, char out[static UPSTREAM_TLS_REASON_MAX])
{
	const char *text = tls->failure ? ERR_reason_error_string(tls->failure) : NULL;

	if (tls->verified != X509_V_OK)
		snprintf(out, UPSTREAM_TLS_REASON_MAX, "its certificate is not accepted: %s; %s",
			 X509_verify_cert_error_string(tls->verified), certificate_cure(tls->verified));
	else
		snprintf(out, UPSTREAM_TLS_REASON_MAX, "the TLS handshake failed: %s; is DNS over TLS served on that port?",
			 text ? text : "the server ended it");
	return out;
}
