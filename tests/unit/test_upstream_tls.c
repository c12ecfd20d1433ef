/* SPDX-License-Identifier: MIT */
/*
 * TLS as a machine of octets: a server of OpenSSL's own on the other side, without any socket. Certificates are made here, so that each
 * test says what its server shows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "resolver/upstream_tls.h"

#define NAME      "ns.dns.example"
#define DAY       86400L
#define TURNS_MAX 50

/* What a certificate says. */
struct shown {
	const char *common_name;
	const char *alternative; /* subjectAltName, in OpenSSL's words; NULL: none */
	long from, until;        /* days from now */
	bool foreign;            /* issued by an authority that nobody knows */
};

struct side {
	SSL_CTX *context;
	SSL *ssl;
	BIO *in, *out;
};

struct world {
	EVP_PKEY *key; /* everybody's: what is tested is what certificates say */
	X509 *authority, *foreign;
	char *pem; /* of the authority */
	struct side server;
	struct upstream_tls_context *context;
	struct upstream_tls_server *known;
	struct upstream_tls *tls;
};

/* --- certificates --- */

static void add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX context;
	X509_EXTENSION *extension;

	X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	assert_non_null(extension);
	assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
	X509_EXTENSION_free(extension);
}

static X509 *make(EVP_PKEY *key, X509 *issuer, const struct shown *shown)
{
	static long serial;
	X509 *made = X509_new();
	X509_NAME *name = X509_get_subject_name(made);

	assert_non_null(made);
	X509_set_version(made, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(made), ++serial);
	X509_gmtime_adj(X509_getm_notBefore(made), shown->from * DAY);
	X509_gmtime_adj(X509_getm_notAfter(made), shown->until * DAY);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)shown->common_name, -1, -1, 0);
	X509_set_issuer_name(made, issuer ? X509_get_subject_name(issuer) : name);
	X509_set_pubkey(made, key);
	add_extension(made, issuer ? issuer : made, NID_basic_constraints, issuer ? "CA:FALSE" : "critical,CA:TRUE");
	if (shown->alternative)
		add_extension(made, issuer ? issuer : made, NID_subject_alt_name, shown->alternative);
	assert_true(X509_sign(made, key, EVP_sha256()) > 0);
	return made;
}

static char *pem_of(X509 *certificate)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *data, *text;
	long size;

	assert_int_equal(PEM_write_bio_X509(bio, certificate), 1);
	size = BIO_get_mem_data(bio, &data);
	text = strndup(data, (size_t)size);
	BIO_free(bio);
	assert_non_null(text);
	return text;
}

/* --- the server --- */

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_size, const unsigned char *in, unsigned int in_size,
			   void *context)
{
	(void)ssl;
	(void)context;
	assert_int_equal(in_size, 4);
	assert_memory_equal(in, "\3dot", 4);
	*out = in + 1;
	*out_size = 3;
	return SSL_TLSEXT_ERR_OK;
}

static void server_set_up(struct world *world, const struct shown *shown, int version)
{
	X509 *certificate = make(world->key, shown->foreign ? world->foreign : world->authority, shown);

	SSL_CTX_free(world->server.context);
	world->server.context = SSL_CTX_new(TLS_server_method());
	assert_non_null(world->server.context);
	assert_int_equal(SSL_CTX_use_certificate(world->server.context, certificate), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(world->server.context, world->key), 1);
	SSL_CTX_set_alpn_select_cb(world->server.context, choose_protocol, NULL);
	if (version) {
		SSL_CTX_set_security_level(world->server.context, 0);
		SSL_CTX_set_min_proto_version(world->server.context, version);
		SSL_CTX_set_max_proto_version(world->server.context, version);
	}
	X509_free(certificate);
}

static void connect_both(struct world *world)
{
	upstream_tls_free(world->tls);
	SSL_free(world->server.ssl);
	world->server.ssl = SSL_new(world->server.context);
	world->server.in = BIO_new(BIO_s_mem());
	world->server.out = BIO_new(BIO_s_mem());
	SSL_set_bio(world->server.ssl, world->server.in, world->server.out);
	SSL_set_accept_state(world->server.ssl);
	world->tls = upstream_tls_new(world->known);
	assert_non_null(world->tls);
}

/* Carry octets both ways, @step at a time. Return: whether there were any. */
static bool carry(struct world *world, size_t step)
{
	uint8_t octets[4096];
	size_t size, got;
	bool any = false;

	while ((size = upstream_tls_to_send(world->tls, octets, step))) {
		assert_int_equal(BIO_write(world->server.in, octets, (int)size), size);
		any = true;
	}
	while (BIO_read_ex(world->server.out, octets, step, &got)) {
		assert_int_equal(upstream_tls_received(world->tls, octets, got), 0);
		any = true;
	}
	return any;
}

static int shake_hands(struct world *world, size_t step)
{
	int result = -EAGAIN;

	for (int turn = 0; turn < TURNS_MAX && result == -EAGAIN; turn++) {
		result = upstream_tls_handshake(world->tls);
		carry(world, step);
		SSL_do_handshake(world->server.ssl);
		ERR_clear_error();
		carry(world, step);
	}
	return result;
}

/* --- the world --- */

static int setup(void **state)
{
	const struct shown authority = {.common_name = "Unit test CA", .until = 2}, foreign = {.common_name = "Foreign CA", .until = 2};
	struct world *world = calloc(1, sizeof(*world));

	assert_non_null(world);
	world->key = EVP_EC_gen("P-256");
	assert_non_null(world->key);
	world->authority = make(world->key, NULL, &authority);
	world->foreign = make(world->key, NULL, &foreign);
	world->pem = pem_of(world->authority);
	world->context = upstream_tls_context_new(world->pem);
	assert_non_null(world->context);
	world->known = upstream_tls_server_new(world->context, NAME);
	assert_non_null(world->known);
	*state = world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;

	upstream_tls_free(world->tls);
	upstream_tls_server_free(world->known);
	upstream_tls_context_free(world->context);
	SSL_free(world->server.ssl);
	SSL_CTX_free(world->server.context);
	X509_free(world->authority);
	X509_free(world->foreign);
	EVP_PKEY_free(world->key);
	free(world->pem);
	free(world);
	return 0;
}

/* --- tests --- */

static void only_the_right_certificate_is_accepted(void **state)
{
	static const struct {
		struct shown shown;
		int result;
		const char *reason; /* part of it */
	} table[] = {
		{{NAME, "DNS:" NAME, -1, 1, false}, 0, NULL},
		{{"anything", "DNS:other.example,DNS:" NAME, -1, 1, false}, 0, NULL},
		{{"anything", "DNS:*.dns.example", -1, 1, false}, 0, NULL},
		{{"anything", "DNS:NS.Dns.Example", -1, 1, false}, 0, NULL},
		{{NAME, NULL, -1, 1, false}, -EKEYREJECTED, "hostname mismatch"}, /* the common name does not count */
		{{NAME, "DNS:other.example", -1, 1, false}, -EKEYREJECTED, "write the name that it is for behind '#'"},
		{{NAME, "DNS:n*.dns.example", -1, 1, false}, -EKEYREJECTED, "hostname mismatch"},
		{{NAME, "DNS:*.example", -1, 1, false}, -EKEYREJECTED, "hostname mismatch"},
		{{NAME, "DNS:*.ns.dns.example", -1, 1, false}, -EKEYREJECTED, "hostname mismatch"},
		{{NAME, "IP:192.0.2.9", -1, 1, false}, -EKEYREJECTED, "hostname mismatch"},
		{{NAME, "DNS:" NAME, -3, -1, false}, -EKEYREJECTED, "certificate has expired"},
		{{NAME, "DNS:" NAME, 1, 3, false}, -EKEYREJECTED, "not yet valid"},
		{{NAME, "DNS:" NAME, -1, 1, true}, -EKEYREJECTED, "ca = FILE"},
	};
	struct world *world = *state;
	char reason[UPSTREAM_TLS_REASON_MAX], text[64];

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		server_set_up(world, &table[i].shown, 0);
		connect_both(world);
		assert_int_equal(shake_hands(world, 4096), table[i].result);
		if (!table[i].reason)
			continue;
		assert_non_null(strstr(upstream_tls_reason(world->tls, reason), table[i].reason));
		assert_true(SSL_read(world->server.ssl, text, sizeof(text)) <= 0); /* the server has been told */
	}
}

static const struct shown right = {NAME, "DNS:" NAME, -1, 1, false};

static void versions_below_1_2_are_refused(void **state)
{
	static const struct {
		int version, result;
	} table[] = {{TLS1_1_VERSION, -EPROTO}, {TLS1_2_VERSION, 0}, {TLS1_3_VERSION, 0}};
	struct world *world = *state;
	char reason[UPSTREAM_TLS_REASON_MAX];

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		server_set_up(world, &right, table[i].version);
		connect_both(world);
		assert_int_equal(shake_hands(world, 4096), table[i].result);
		if (table[i].result)
			assert_non_null(strstr(upstream_tls_reason(world->tls, reason), "the TLS handshake failed: "));
	}
}

static void the_server_is_told_its_name_and_the_protocol(void **state)
{
	struct world *world = *state;
	const unsigned char *protocol;
	unsigned int size;

	server_set_up(world, &right, 0);
	connect_both(world);
	assert_int_equal(shake_hands(world, 1), 0); /* octet by octet */
	assert_string_equal(SSL_get_servername(world->server.ssl, TLSEXT_NAMETYPE_host_name), NAME);
	SSL_get0_alpn_selected(world->server.ssl, &protocol, &size);
	assert_int_equal(size, 3);
	assert_memory_equal(protocol, "dot", 3);
}

static void octets_pass_both_ways(void **state)
{
	static uint8_t sent[100000], got[sizeof(sent)];
	struct world *world = *state;
	size_t filled = 0, written;
	ssize_t size;

	server_set_up(world, &right, 0);
	connect_both(world);
	assert_int_equal(shake_hands(world, 4096), 0);
	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = (uint8_t)(i * 7 + (i >> 8));
	assert_int_equal(upstream_tls_write(world->tls, sent, 300), 0);
	carry(world, 4096);
	assert_int_equal(SSL_read(world->server.ssl, got, 4096), 300);
	assert_memory_equal(got, sent, 300);
	assert_int_equal(upstream_tls_read(world->tls, got, sizeof(got)), -EAGAIN);
	assert_int_equal(SSL_write_ex(world->server.ssl, sent, sizeof(sent), &written), 1);
	carry(world, 4096);
	while ((size = upstream_tls_read(world->tls, got + filled, 999)) > 0)
		filled += (size_t)size;
	assert_int_equal(size, -EAGAIN);
	assert_int_equal(filled, sizeof(sent));
	assert_memory_equal(got, sent, sizeof(sent));
	SSL_shutdown(world->server.ssl);
	carry(world, 4096);
	assert_int_equal(upstream_tls_read(world->tls, got, sizeof(got)), 0);
}

static void our_end_is_told_to_the_server(void **state)
{
	struct world *world = *state;
	uint8_t octet;

	server_set_up(world, &right, 0);
	connect_both(world);
	assert_int_equal(shake_hands(world, 4096), 0);
	upstream_tls_end(world->tls);
	carry(world, 4096);
	assert_int_equal(SSL_get_error(world->server.ssl, SSL_read(world->server.ssl, &octet, 1)), SSL_ERROR_ZERO_RETURN);
}

static void sessions_are_resumed(void **state)
{
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
	struct world *world = *state;
	uint8_t octet;

	for (size_t i = 0; i < 2; i++) {
		server_set_up(world, &right, versions[i]);
		for (int turn = 0; turn < 3; turn++) {
			connect_both(world);
			assert_int_equal(shake_hands(world, 4096), 0);
			assert_int_equal(upstream_tls_resumed(world->tls), turn > 0);
			carry(world, 4096);
			/* In TLS 1.3 tickets come behind the handshake. The connection ends without a word, as many do. */
			assert_int_equal(upstream_tls_read(world->tls, &octet, 1), -EAGAIN);
		}
	}
}

static void a_server_with_new_keys_is_asked_for_its_certificate_again(void **state)
{
	static const struct shown wrong = {NAME, "DNS:other.example", -1, 1, false};
	struct world *world = *state;
	uint8_t octet;

	server_set_up(world, &right, 0);
	connect_both(world);
	assert_int_equal(shake_hands(world, 4096), 0);
	assert_int_equal(upstream_tls_read(world->tls, &octet, 1), -EAGAIN);
	server_set_up(world, &wrong, 0);
	connect_both(world);
	assert_int_equal(shake_hands(world, 4096), -EKEYREJECTED);
}

static void noise_is_no_handshake(void **state)
{
	static const char *const noise[] = {"HTTP/1.1 400 Bad Request\r\n\r\n", "\0\14not TLS at all", "\x16\x03\x03\xff\xff\x02"};
	struct world *world = *state;
	uint8_t octets[256];

	for (size_t i = 0; i < sizeof(noise) / sizeof(noise[0]); i++) {
		server_set_up(world, &right, 0);
		connect_both(world);
		assert_int_equal(upstream_tls_handshake(world->tls), -EAGAIN);
		memset(octets, 'n', sizeof(octets));
		memcpy(octets, noise[i], i == 1 ? 17 : strlen(noise[i]));
		assert_int_equal(upstream_tls_received(world->tls, octets, sizeof(octets)), 0);
		assert_int_equal(upstream_tls_handshake(world->tls), -EPROTO);
	}
}

static void a_record_that_was_changed_on_the_way_ends_the_connection(void **state)
{
	struct world *world = *state;
	uint8_t octets[512];
	size_t size;

	server_set_up(world, &right, 0);
	connect_both(world);
	assert_int_equal(shake_hands(world, 4096), 0);
	assert_int_equal(upstream_tls_read(world->tls, octets, sizeof(octets)), -EAGAIN);
	assert_int_equal(SSL_write(world->server.ssl, "answer", 6), 6);
	assert_int_equal(BIO_read_ex(world->server.out, octets, sizeof(octets), &size), 1);
	octets[size - 1] ^= 1;
	assert_int_equal(upstream_tls_received(world->tls, octets, size), 0);
	assert_int_equal(upstream_tls_read(world->tls, octets, sizeof(octets)), -EPROTO);
}

static void authorities_are_checked(void **state)
{
	struct world *world = *state;
	char error[256] = "", *two, *broken, *behind;

	assert_int_equal(upstream_tls_check_roots(world->pem, error, sizeof(error)), 0);
	assert_true(asprintf(&two, "# a comment\n%s\nmore text\n%s\n", world->pem, world->pem) > 0);
	assert_int_equal(upstream_tls_check_roots(two, error, sizeof(error)), 0);
	assert_int_equal(upstream_tls_check_roots("", error, sizeof(error)), -EINVAL);
	assert_non_null(strstr(error, "holds no certificate"));
	broken = strdup(world->pem);
	assert_non_null(broken);
	memset(strchr(broken, '\n') + 10, '!', 20);
	assert_int_equal(upstream_tls_check_roots(broken, error, sizeof(error)), -EINVAL);
	assert_non_null(strstr(error, "cannot be read"));
	assert_true(asprintf(&behind, "%s%s", world->pem, broken) > 0);
	assert_int_equal(upstream_tls_check_roots(behind, error, sizeof(error)), -EINVAL);
	assert_null(upstream_tls_context_new(""));
	assert_null(upstream_tls_context_new(behind));
	free(two);
	free(broken);
	free(behind);
}

/* What the image relies on: without `ca`, the library's own place for certificates counts, which here is a variable. */
static void the_systems_authorities_count_without_ca(void **state)
{
	struct world *world = *state;
	char path[] = "/tmp/sluice-roots-XXXXXX";
	int fd = mkstemp(path);
	FILE *file = fdopen(fd, "w");

	assert_non_null(file);
	assert_true(fputs(world->pem, file) >= 0);
	assert_int_equal(fclose(file), 0);
	setenv("SSL_CERT_FILE", path, 1);
	upstream_tls_server_free(world->known);
	upstream_tls_context_free(world->context);
	world->context = upstream_tls_context_new(NULL);
	assert_non_null(world->context);
	unsetenv("SSL_CERT_FILE");
	remove(path);
	world->known = upstream_tls_server_new(world->context, NAME);
	server_set_up(world, &right, 0);
	connect_both(world);
	assert_int_equal(shake_hands(world, 4096), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(only_the_right_certificate_is_accepted),
		TEST(versions_below_1_2_are_refused),
		TEST(the_server_is_told_its_name_and_the_protocol),
		TEST(octets_pass_both_ways),
		TEST(our_end_is_told_to_the_server),
		TEST(sessions_are_resumed),
		TEST(a_server_with_new_keys_is_asked_for_its_certificate_again),
		TEST(noise_is_no_handshake),
		TEST(a_record_that_was_changed_on_the_way_ends_the_connection),
		TEST(authorities_are_checked),
		TEST(the_systems_authorities_count_without_ca),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
