/* SPDX-License-Identifier: MIT */
/* Requests, and which protocol is which. TLS and QUIC have tests of their own. */
#include "gateway/verify/inspect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gateway/verify/request.h"

static void requests(void **state)
{
	static const struct {
		const char *text;
		enum request_result result;
		const char *name;
	} cases[] = {
		{"GET / HTTP/1.1\r\nHost: API.example\r\n\r\n", REQUEST_NAME, "api.example"},
		{"GET / HTTP/1.1\r\nUser-Agent: x\r\nhOST:   api.example:8080  \r\nA: b\r\n\r\n", REQUEST_NAME, "api.example"},
		{"POST /x HTTP/1.1\r\nHost: api.example\r\nContent-Length: 5\r\n\r\nhello", REQUEST_NAME, "api.example"},
		{"GET http://api.example/x HTTP/1.1\r\nHost: api.example\r\n\r\n", REQUEST_NAME, "api.example"},
		{"GET http://evil.example/x HTTP/1.1\r\nHost: api.example\r\n\r\n", REQUEST_BROKEN, NULL},
		{"GET http://evil.example/x HTTP/1.0\r\n\r\n", REQUEST_NAME, "evil.example"},
		{"CONNECT evil.example:443 HTTP/1.1\r\nHost: api.example\r\n\r\n", REQUEST_BROKEN, NULL},
		{"CONNECT evil.example:443 HTTP/1.1\r\n\r\n", REQUEST_NAME, "evil.example"},
		{"GET / HTTP/1.1\r\nHost: api.example\r\nHost: evil.example\r\n\r\n", REQUEST_BROKEN, NULL},
		{"GET / HTTP/1.1\r\nHost: api.example\r\nHost: api.example\r\n\r\n", REQUEST_BROKEN, NULL},
		{"GET / HTTP/1.1\r\nHost: api.example, evil.example\r\n\r\n", REQUEST_BROKEN, NULL},
		{"GET / HTTP/1.1\r\nHost: api.example:80x\r\n\r\n", REQUEST_BROKEN, NULL},
		{"GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n", REQUEST_NO_NAME, NULL},
		{"GET / HTTP/1.1\r\nHost: 192.0.2.1:80\r\n\r\n", REQUEST_NO_NAME, NULL},
		{"GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", REQUEST_NO_NAME, NULL},
		{"GET / HTTP/1.1\r\nHost: [2001:db8::1\r\n\r\n", REQUEST_BROKEN, NULL},
		{"GET / HTTP/1.1\r\nHost:\r\n\r\n", REQUEST_NO_NAME, NULL},
		{"GET / HTTP/1.0\r\n\r\n", REQUEST_NO_NAME, NULL},
		{"OPTIONS * HTTP/1.1\r\nHost: api.example\r\n\r\n", REQUEST_NAME, "api.example"},
		{"GET / HTTP/1.1\r\nHostile: x\r\nX-Host: evil.example\r\n\r\n", REQUEST_NO_NAME, NULL},
		{"GET / HTTP/1.1\r\nHost: a_b.example/x\r\n\r\n", REQUEST_BROKEN, NULL},
		/* Blanks that do not belong around a field's name: some servers take them away. */
		{"GET / HTTP/1.1\r\nHost: api.example\r\nHost : evil.example\r\n\r\n", REQUEST_BROKEN, NULL},
		{"GET / HTTP/1.1\r\n Host: evil.example\r\nHost: api.example\r\n\r\n", REQUEST_BROKEN, NULL},
		{"GET / HTTP/1.1\r\nHost\t: evil.example\r\nHost: api.example\r\n\r\n", REQUEST_NOT, NULL},
		{"SSH-2.0-OpenSSH_9.2\r\n", REQUEST_NOT, NULL},
		{"EHLO mail.example\r\n", REQUEST_NOT, NULL},
	};
	char text[DOMAIN_TEXT_MAX];
	struct domain name;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t size = strlen(cases[i].text);

		if (request_read((const uint8_t *)cases[i].text, size, &name) != cases[i].result)
			fail_msg("%s: %d", cases[i].text, request_read((const uint8_t *)cases[i].text, size, &name));
		if (cases[i].name)
			assert_string_equal(domain_format(&name, text), cases[i].name);
	}
}

static void a_request_is_read_when_its_header_is_whole(void **state)
{
	static const char text[] = "GET /a/long/path?x=y HTTP/1.1\r\nUser-Agent: curl\r\nHost: api.example\r\nAccept: */*\r\n\r\n";
	struct domain name;

	(void)state;
	for (size_t cut = 0; cut < sizeof(text) - 1; cut++)
		assert_int_equal(request_read((const uint8_t *)text, cut, &name), REQUEST_MORE);
	assert_int_equal(request_read((const uint8_t *)text, sizeof(text) - 1, &name), REQUEST_NAME);
}

static void protocols_are_told_apart(void **state)
{
	static const struct {
		const char *text;
		size_t size;
		enum inspect_result result;
	} cases[] = {
		{"", 0, INSPECT_MORE},
		{"\x16", 1, INSPECT_MORE},
		{"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", 10, INSPECT_OTHER}, /* a ServerHello: no HTTP either */
		{"GET / HTTP/1.1\r\nHost: api.example\r\n\r\n", 37, INSPECT_NAME},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24, INSPECT_NO_NAME},
		{"PRI * HT", 8, INSPECT_MORE},
		{"P", 1, INSPECT_MORE},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nand more", 32, INSPECT_NO_NAME},
		{"PRI * HTTP/1.1\r\nHost: evil.example\r\n\r\n", 38, INSPECT_OTHER},
		{"SSH-2.0-OpenSSH_9.2\r\n", 21, INSPECT_OTHER},
		{"\x00\x00\x00\x08\x04\xd2\x16\x2f", 8, INSPECT_OTHER}, /* PostgreSQL asks for TLS */
	};
	struct hello_reader *reader = hello_reader_new();
	struct domain name;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(inspect_stream(reader, (const uint8_t *)cases[i].text, cases[i].size, &name), cases[i].result);
	hello_reader_free(reader);
}

static void what_never_ends_is_broken(void **state)
{
	struct hello_reader *reader = hello_reader_new();
	uint8_t *bytes = malloc(ASSEMBLY_MAX);
	struct domain name;
	int size;

	(void)state;
	size = snprintf((char *)bytes, ASSEMBLY_MAX, "GET / HTTP/1.1\r\nA: ");
	memset(bytes + size, 'x', ASSEMBLY_MAX - (size_t)size);
	assert_int_equal(inspect_stream(reader, bytes, ASSEMBLY_MAX - 1, &name), INSPECT_MORE);
	assert_int_equal(inspect_stream(reader, bytes, ASSEMBLY_MAX, &name), INSPECT_BROKEN);
	free(bytes);
	hello_reader_free(reader);
}

static void datagrams(void **state)
{
	static const uint8_t dns[] = {0x12, 0x34, 0x01, 0x00, 0x00, 0x01}, grease[] = {0xca, 0x1a, 0x2a, 0x3a, 0x4a, 0, 0},
			     broken[] = {0xc0, 0, 0, 0, 1, 8};
	struct hello_reader *reader = hello_reader_new();
	struct quic quic = {.version = 0};
	struct domain name;

	(void)state;
	assert_int_equal(inspect_datagram(reader, &quic, dns, sizeof(dns), &name), INSPECT_OTHER);
	assert_int_equal(inspect_datagram(reader, &quic, grease, sizeof(grease), &name), INSPECT_NO_NAME);
	assert_int_equal(inspect_datagram(reader, &quic, broken, sizeof(broken), &name), INSPECT_BROKEN);
	quic_free(&quic);
	hello_reader_free(reader);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests),
		cmocka_unit_test(a_request_is_read_when_its_header_is_whole),
		cmocka_unit_test(protocols_are_told_apart),
		cmocka_unit_test(what_never_ends_is_broken),
		cmocka_unit_test(datagrams),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
