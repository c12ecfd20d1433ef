/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/config.h"

#define NET "[network web]\nsubnet = 10.1.0.0/24\n" /* the smallest good policy: 2 lines */

#define VIRTUAL "addresses = virtual\n"

static struct policy *parse_bytes(const char *text, size_t size, struct config_messages *messages)
{
	struct config_part part = {.file = (char[]){"p.conf"}, .size = size};
	struct config_text whole = {.parts = &part, .count = 1};
	struct policy *policy;

	memset(messages, 0, sizeof(*messages));
	/* Exactly as long as it is, so that the sanitizer sees reads behind it. */
	part.text = malloc(size + 1);
	assert_non_null(part.text);
	memcpy(part.text, text, size);
	part.text[size] = 0;
	policy = config_parse(&whole, messages);
	free(part.text);
	return policy;
}

static struct policy *parse(const char *text, struct config_messages *messages)
{
	return parse_bytes(text, strlen(text), messages);
}

/* A policy that must load without any message. */
static struct policy *load_clean(const char *text)
{
	struct config_messages messages;
	struct policy *policy = parse(text, &messages);

	if (!policy || messages.count)
		fail_msg("not clean: %s\n%s", messages.count ? messages.list[0].text : "(no message)", text);
	config_messages_free(&messages);
	return policy;
}

static void expect_prefix(const struct config_messages *messages, size_t index, const char *prefix, const char *text)
{
	if (index >= messages->count)
		fail_msg("message %zu of %zu is missing: '%s' in\n%s", index, messages->count, prefix, text);
	if (strncmp(messages->list[index].text, prefix, strlen(prefix)) != 0)
		fail_msg("got  '%s'\nwant '%s'\nin\n%s", messages->list[index].text, prefix, text);
}

struct finding {
	const char *text;
	const char *message; /* how the only message begins */
};

static void expect_refused(const struct finding *findings, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct config_messages messages;
		struct policy *policy = parse(findings[i].text, &messages);

		expect_prefix(&messages, 0, findings[i].message, findings[i].text);
		if (policy || messages.errors != 1 || messages.count != 1)
			fail_msg("%zu messages, %zu errors; the last '%s' in\n%s", messages.count, messages.errors,
				 messages.list[messages.count - 1].text, findings[i].text);
		config_messages_free(&messages);
	}
}

#define REFUSED(table) expect_refused(table, sizeof(table) / sizeof((table)[0]))

static void traps_of_inih_are_refused(void **state)
{
	static const struct finding table[] = {
		{"[network web\nsubnet = 10.1.0.0/24\n" NET, "p.conf:1: '[network web' has no closing ']'"},
		{NET "[rules abcdefghijklmnopqrstuvwxyz0123456]\n",
		 "p.conf:3: the name 'abcdefghijklmnopqrstuvwxyz0123456' is longer than 32 characters"},
		{NET "[rules Web]\n", "p.conf:3: the name 'Web' may hold only"},
		{NET "[rules a b]\n", "p.conf:3: a section heading has at most two words"},
		{NET "[]\n", "p.conf:3: empty section heading"},
		{NET "[rules x] allow = a.example\n", "p.conf:3: 'allow = a.example' behind ']'"},
		{NET "allow =\n  a.example\n  deny = b.example\n", "p.conf:5: 'deny = b.example' is indented"},
		{NET "allow = a.example\n  [rules x]\n", "p.conf:4: '[rules x]' is indented"},
		{"[network web]\n  allow.example\nsubnet = 10.1.0.0/24\n", "p.conf:2: 'allow.example' is indented, but there is no key"},
		{NET "allow = a.example # why\n", "p.conf:3: '#' starts a comment only at the start of a line"},
		{NET "allow = a.example\n  b.example # why\n", "p.conf:4: '#' starts a comment only"},
		{NET "allow = a.example;why\n", "p.conf:3: ';' inside a word"},
		{NET "allow: a.example\n", "p.conf:3: write 'allow =', not 'allow:'"},
		{NET "allow : a.example:443 = 5\n", "p.conf:3: write 'allow =', not 'allow:'"},
		{NET "allow = a.example deny = b.example\n", "p.conf:3: a second '=' in the value of 'allow'"},
		{NET "a.example:443\n", "p.conf:3: expected KEY = VALUE or [SECTION], found 'a.example:443'"},
		{NET "= a.example\n", "p.conf:3: '' is not a key"},
		{NET "allow = a\001.example\n", "p.conf:3: a control character (0x01) in column 10"},
		{NET "allow = a.example\rdeny = b.example\n", "p.conf:3: a control character (0x0d) in column 18"},
		{"subnet = 10.1.0.0/24\n" NET, "p.conf:1: 'subnet' stands above the first section heading"},
		{NET "[network web]\nsubnet = 10.2.0.0/24\n", "p.conf:3: [network web] is given twice; first at p.conf:1"},
		{NET "[gateway x]\n", "p.conf:3: [gateway] has no name"},
		{NET "[rules]\n", "p.conf:3: [rules] needs a name"},
		{NET "[netwrok db]\nsubnet = 10.2.0.0/24\n", "p.conf:3: unknown section [netwrok]; did you mean 'network'?"},
	};

	(void)state;
	REFUSED(table);
}

static void harmless_forms_are_accepted(void **state)
{
	static const char *const texts[] = {
		NET,
		"\xef\xbb\xbf" NET,
		"[network web]\r\nsubnet = 10.1.0.0/24\r\nallow =\r\n  a.example\r\n\r\n  b.example\r\n",
		"[ network   web ] ; a comment; with = and # and [x]\nsubnet=10.1.0.0/24 ; another\n",
		"# a comment\n ; indented\n\t# too\n" NET "allow = a.example,b.example , c.example,\n",
		NET "allow =\n  a.example ; why\n\n# comment\n\tb.example, c.example\n  ; comment\ndeny = d.example",
		NET "ports = 443,80/tcp\n  8000-8100\n",
		"[network web]\nsubnet = 10.1.0.0/24, fd00:1::/64\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		policy_free(load_clean(texts[i]));
}

static void keys_and_values_are_checked(void **state)
{
	static const struct finding table[] = {
		{NET "alow = a.example\n", "p.conf:3: 'alow' is not a key of [network]; did you mean 'allow'?"},
		{NET "Mode = audit\n", "p.conf:3: 'Mode' is not a key of [network]; did you mean 'mode'?"},
		{NET "xyzzyxyzzy = 1\n", "p.conf:3: 'xyzzyxyzzy' is not a key of [network]; one of: private, subnet"},
		{NET "server = 192.0.2.1\n", "p.conf:3: 'server' is not a key of [network]; it belongs into [upstream]"},
		{"[gateway]\nallow = a.example\n" NET, "p.conf:2: 'allow' is not a key of [gateway]; it belongs into [rules NAME]"},
		{NET "mode = audti\n", "p.conf:3: 'audti' is no value of 'mode'; did you mean 'audit'?"},
		{NET "mode = audit\nmode = enforce\n", "p.conf:4: 'mode' is given twice; first at p.conf:3"},
		{NET "ports = 443\nports = 80\n", "p.conf:4: 'ports' is given twice; first at p.conf:3"},
		{NET "mode = audit enforce\n", "p.conf:3: 'mode' takes one value; 'enforce' is too much"},
		{NET "mode =\n", "p.conf:3: 'mode' has no value"},
		{NET "ports =\n", "p.conf:3: 'ports' has no value"},
		{NET "ports = 70000\n", "p.conf:3: '70000': "},
		{"[gateway]\nlog = jsn\n" NET, "p.conf:2: 'jsn' is no value of 'log'; did you mean 'json'?"},
		{"[gateway]\nuplink = 10.0.0.5\n" NET, "p.conf:2: '10.0.0.5' is an address"},
		{"[gateway]\nuplink = 10.0.0.5/8\n" NET, "p.conf:2: '10.0.0.5/8' has bits set behind its length: write 10.0.0.0/8"},
		{"[gateway]\nuplink = averylonginterface\n" NET, "p.conf:2: 'averylonginterface' is not an uplink"},
		{NET "min_ttl = 5x\n", "p.conf:3: '5x' is not a duration"},
		{NET "grace = 99999999999999999999\n", "p.conf:3: '99999999999999999999' is not a duration"},
		{NET "grace = 367d\n", "p.conf:3: '367d' is not a duration"},
		{NET "grace = -1\n", "p.conf:3: '-1' is not a duration"},
		{NET "max_age = 0\n", "p.conf:3: 'max_age = 0' would end every lease"},
		{NET "max_addresses = 0\n", "p.conf:3: '0' is not a number from 1 to 4096"},
		{NET "wildcard_octets = 254\nallow = *.a.example\n", "p.conf:3: '254' is not a number from 1 to 253"},
		{NET "wildcard_labels = 0\nallow = *.a.example\n", "p.conf:3: '0' is not a number from 1 to 127"},
		{NET "wildcard_names = 60/minute\nallow = *.a.example\n", "p.conf:3: '60/minute' is not a number from 1 to 1000000"},
		{NET "wildcard_names = 60\nwildcard_names = 70\nallow = *.a.example\n",
		 "p.conf:4: 'wildcard_names' is given twice; first at p.conf:3"},
		{NET "max_flows = 15\n", "p.conf:3: '15' is not a number from 16 to 16777216"},
		{NET "log_allowed = yes\n", "p.conf:3: 'yes' is no value of 'log_allowed'"},
		{NET "keep_established = true\n", "p.conf:3: 'true' is no value of 'keep_established'"},
		{"[gateway]\nflowtable = auto\n" NET, "p.conf:2: 'auto' is no value of 'flowtable'"},
		{NET "verify = enforced\n", "p.conf:3: 'enforced' is no value of 'verify'; did you mean 'enforce'?"},
		{NET "verify = yes\n", "p.conf:3: 'yes' is no value of 'verify'; one of: off, log, enforce"},
		{NET "verify = log enforce\n", "p.conf:3: 'verify' takes one value; 'enforce' is too much"},
		{NET "verify =\n", "p.conf:3: 'verify' has no value"},
		{"[gateway]\nverify = log\n" NET, "p.conf:2: 'verify' is not a key of [gateway]; it belongs into [network NAME]"},
		{NET "[rules x]\nverify = log\n[network y]\nsubnet = 10.2.0.0/24\nuse = x\n",
		 "p.conf:4: 'verify' is not a key of [rules]; it belongs into [network NAME]"},
		/* Nothing is said about the others when it is `verify` that is wrong. */
		{NET "verify = enfroce\nverify_ports = 443\nwithout_name = allow\n",
		 "p.conf:3: 'enfroce' is no value of 'verify'; did you mean 'enforce'?"},
		{NET "verify = log\nverify_ports = 70000\n", "p.conf:4: '70000': "},
		{NET "verify = log\nverify_ports = 443\nverify_ports = 80\n", "p.conf:5: 'verify_ports' is given twice; first at p.conf:4"},
		{NET "verify = log\nverify_ports =\n", "p.conf:4: 'verify_ports' has no value"},
		{NET "verify = log\nverify_ports = 1 3 5 7 9 11 13 15 17 19 21 23 25 27 29 31 33\n",
		 "p.conf:4: 'verify_ports' needs more than 16 ranges for one protocol"},
		{NET "verify = log\nwithout_name = alow\n", "p.conf:4: 'alow' is no value of 'without_name'; did you mean 'allow'?"},
		{NET "verify_port = 443\n", "p.conf:3: 'verify_port' is not a key of [network]; did you mean 'verify_ports'?"},
		{NET "max_addresses = 5000\n", "p.conf:3: '5000' is not a number from 1 to 4096"},
		{NET "audit_until = 2099-01-01\n", "p.conf:3: 'audit_until' without 'mode = audit'"},
		{NET "mode = audit\naudit_until = 2099-02-30\n", "p.conf:4: '2099-02-30' is not a date"},
		{NET "mode = audit\naudit_until = 2099-1-1\n", "p.conf:4: '2099-1-1' is not a date"},
		{NET "mode = audit\naudit_until = 2099-01-01T24:00Z\n", "p.conf:4: '2099-01-01T24:00Z' is not a date"},
		{NET "mode = audit\naudit_until = 2099-01-01T10:00\n", "p.conf:4: '2099-01-01T10:00' is not a date"},
		{NET "private = 10.0.0.1/8\n", "p.conf:3: '10.0.0.1/8' has bits set behind its length: write 10.0.0.0/8"},
		{NET "private = web.example\n", "p.conf:3: 'web.example' is not an address prefix"},
	};

	(void)state;
	REFUSED(table);
}

static void rules_are_checked(void **state)
{
	static const struct finding table[] = {
		{NET "allow = a.example:22,443\n", "p.conf:3: '443' is a port without a name: join ports with '+'"},
		{NET "allow = a.example:22, 443/tcp\n", "p.conf:3: '443/tcp' is a port without a name"},
		{NET "allow = a.example:22 8000-8100\n", "p.conf:3: '8000-8100' is a port without a name"},
		{NET "allow = a.example:\n", "p.conf:3: 'a.example:': no port behind ':'"},
		{NET "allow = :443\n", "p.conf:3: ':443': no name before ':'"},
		{NET "allow = a.example:https\n", "p.conf:3: 'a.example:https': "},
		{NET "allow = a.example:443:80\n", "p.conf:3: 'a.example:443:80': "},
		{NET "allow = a.example:0\n", "p.conf:3: 'a.example:0': "},
		{NET "allow = a.example:443/quic\n", "p.conf:3: 'a.example:443/quic': "},
		{NET "allow = https://a.example/\n", "p.conf:3: 'https://a.example/' is a URL"},
		{NET "allow = a.example/tcp\n", "p.conf:3: 'a.example/tcp': a name has no '/'"},
		{NET "allow = 10.0.0.1/8:443\n", "p.conf:3: '10.0.0.1/8' has bits set behind its length: write 10.0.0.0/8"},
		{NET "allow = [2001:db8::1/32]\n", "p.conf:3: '2001:db8::1/32' has bits set behind its length: write 2001:db8::/32"},
		{NET "allow = 10.0.0.256\n", "p.conf:3: '10.0.0.256' is not an address prefix"},
		{NET "allow = 10.0.0.1-10.0.0.9\n", "p.conf:3: '10.0.0.1-10.0.0.9' is neither an IPv4 address nor a name"},
		{NET "allow = 2001:db8::5\n", "p.conf:3: '2001:db8::5': write IPv6 addresses in brackets: [2001:db8::5]"},
		{NET "allow = [2001:db8::5\n", "p.conf:3: '[2001:db8::5' has no closing ']'"},
		{NET "allow = [2001:db8::]/32\n", "p.conf:3: '[2001:db8::]/32': the length goes inside"},
		{NET "allow = [2001:db8::5]443\n", "p.conf:3: '[2001:db8::5]443': only ':PORTS' may follow"},
		{NET "allow = [10.0.0.5]:443\n", "p.conf:3: '[10.0.0.5]:443': brackets are for IPv6"},
		{NET "allow = a..example\n", "p.conf:3: 'a..example': "},
		{NET "allow = a.*.example\n", "p.conf:3: 'a.*.example': "},
		{NET "allow = *.com\n", "p.conf:3: '*.com': "},
		{NET "allow = **.co.uk\n", "p.conf:3: '**.co.uk': "},
		{NET "allow = a_b.exa$mple\n", "p.conf:3: 'a_b.exa$mple': "},
		{NET "use = githb\n[rules github]\nallow = a.example\n[network b]\nsubnet = 10.2.0.0/24\nuse = github\n",
		 "p.conf:3: there is no [rules githb]; did you mean 'github'?"},
		{NET "use = github\n", "p.conf:3: there is no [rules github]"},
	};

	(void)state;
	REFUSED(table);
}

/* The target of an entry as text: "app:443", "10.1.0.5:80". */
static void format_entry(const struct publish *publish, char *out, size_t size)
{
	char ports[POLICY_PUBLISH_TEXT_MAX], address[ADDRESS_TEXT_MAX];

	snprintf(out, size, "%s -> %s:%u", policy_publish_format(publish, ports),
		 publish->name ? publish->name : address_format(&publish->target, address), publish->target_port);
}

static void publish_entries_are_read(void **state)
{
	static const struct {
		const char *text;
		const char *want; /* the entries, each followed by a newline */
	} table[] = {
		{"publish = 443/tcp+udp -> app:443\n", "443 -> app:443\n"},
		{"publish = 443 -> app\n", "443 -> app:443\n"},
		{"publish = 443->app:8443\n", "443 -> app:8443\n"},
		{"publish = 443-> app:8443\n", "443 -> app:8443\n"},
		{"publish = 443 ->app:8443\n", "443 -> app:8443\n"},
		{"publish = 443/udp+tcp -> app\n", "443 -> app:443\n"},
		{"publish = 443/tcp -> app, 443/udp -> other\n", "443/tcp -> app:443\n443/udp -> other:443\n"},
		{"publish =\n  80/tcp -> app ; why\n  443 -> app\npublish = 53/udp -> shop_dns.1:5353\n",
		 "80/tcp -> app:80\n443 -> app:443\n53/udp -> shop_dns.1:5353\n"},
		{"publish = 80->a 81->b\n", "80 -> a:80\n81 -> b:81\n"},
		{"publish = 8000-8010/tcp -> My-App\n", "8000-8010/tcp -> My-App:8000\n"},
		{"publish = 1 -> 10.1.0.5\n", "1 -> 10.1.0.5:1\n"},
		{"publish = 65535/tcp -> 10.1.0.5:80\n", "65535/tcp -> 10.1.0.5:80\n"},
		{"publish = 443 -> [fd00:1::5]:8443\nsubnet = fd00:1::/64\n", "443 -> fd00:1::5:8443\n"},
		{"publish = 443 -> [fd00:1::5]\nsubnet = fd00:1::/64\n", "443 -> fd00:1::5:443\n"},
	};
	char text[256], got[256], entry[128];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct policy *policy;

		snprintf(text, sizeof(text), NET "%s", table[i].text);
		policy = load_clean(text);
		got[0] = '\0';
		for (size_t j = 0; j < policy->networks[0].publish_count; j++) {
			format_entry(&policy->networks[0].publishes[j], entry, sizeof(entry));
			strcat(strcat(got, entry), "\n");
		}
		assert_string_equal(got, table[i].want);
		policy_free(policy);
	}
}

static void publish_entries_are_checked(void **state)
{
	static const struct finding table[] = {
		{NET "publish = 443\n",
		 "p.conf:3: '443' has no '-> CONTAINER' behind it: write PORT -> CONTAINER:PORT, as in 443 -> app:8443"},
		{NET "publish = 443 app\n", "p.conf:3: '443' has no '-> CONTAINER' behind it"},
		{NET "publish = 443:443\n", "p.conf:3: '443:443' has no '-> CONTAINER' behind it"},
		{NET "publish =\n  443\n  80 -> app\n", "p.conf:4: '443' has no '-> CONTAINER' behind it"},
		{NET "publish = 443 ->\n", "p.conf:3: '443 ->' leads nowhere"},
		{NET "publish = 443 ->\n  app\n", "p.conf:3: '443 ->' leads nowhere"},
		{NET "publish = -> app\n", "p.conf:3: '->' has no port in front of it"},
		{NET "publish = 443 -> -> app\n", "p.conf:3: '->' has no port in front of it"},
		{NET "publish = 443->->app\n", "p.conf:3: '->' has no port in front of it"},
		{NET "publish = 0 -> app\n", "p.conf:3: '0' is not a port to publish: write 443, 443/tcp"},
		{NET "publish = 65536 -> app\n", "p.conf:3: '65536' is not a port to publish"},
		{NET "publish = 443/sctp -> app\n", "p.conf:3: '443/sctp' is not a port to publish"},
		{NET "publish = https -> app\n", "p.conf:3: 'https' is not a port to publish"},
		{NET "publish = 80+443 -> app\n", "p.conf:3: '80+443': one port or range for each entry"},
		{NET "publish = 90-80 -> app\n", "p.conf:3: '90-80': the range ends before it begins"},
		{NET "publish = 80-90 -> app:80\n", "p.conf:3: 'app:80': a range keeps its ports: leave ':80' out"},
		{NET "publish = 443 -> app:0\n", "p.conf:3: 'app:0': one port is expected behind ':'"},
		{NET "publish = 443 -> app:\n", "p.conf:3: 'app:': one port is expected behind ':'"},
		{NET "publish = 443 -> app:443/tcp\n",
		 "p.conf:3: 'app:443/tcp': one port is expected behind ':', as in app:8443; protocols belong to the port in front of '->'"},
		{NET "publish = 443 -> :443\n", "p.conf:3: '' is neither a container's name nor an address"},
		{NET "publish = 443 -> 8443\n", "p.conf:3: '8443' is neither a container's name nor an address"},
		{NET "publish = 443 -> 10.1.0\n", "p.conf:3: '10.1.0' is neither a container's name nor an address"},
		{NET "publish = 443 -> a..b\n", "p.conf:3: 'a..b' is neither a container's name nor an address"},
		{NET "publish = 443 -> *.app\n", "p.conf:3: '*.app' is neither a container's name nor an address"},
		{NET "publish = 443 -> aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n",
		 "p.conf:3: 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' is neither a container's name"},
		{NET "subnet = fd00:1::/64\npublish = 443 -> fd00:1::5\n", "p.conf:4: 'fd00:1::5': write IPv6 addresses in brackets"},
		{NET "publish = 443 -> [10.1.0.5]\n", "p.conf:3: '[10.1.0.5]': brackets are for IPv6 addresses only"},
		{NET "publish = 443 -> [fd00:1::5\n", "p.conf:3: '[fd00:1::5': an address in brackets is expected"},
		{NET "publish = 443 -> [fd00:1::5]443\n", "p.conf:3: '[fd00:1::5]443': an address in brackets is expected"},
		{NET "publish = 443 -> [app]:443\n", "p.conf:3: 'app' is neither a container's name nor an address"},
		{NET "publish = 443 -> 10.2.0.5\n",
		 "p.conf:3: 10.2.0.5 is not in the network's subnet: publish a container of [network web], by its name or its address"},
		{NET "publish = 443 -> [fd00:1::5]\n", "p.conf:3: fd00:1::5 is not in the network's subnet"},
		{NET "publish = 443 -> 10.1.0.1\n", "p.conf:3: 10.1.0.1 is the gateway itself"},
		{NET "publish = 443 -> 10.1.0.0\n", "p.conf:3: 10.1.0.0 is not the address of a host"},
		{NET "publish = 443 -> 10.1.0.255\n", "p.conf:3: 10.1.0.255 is not the address of a host"},
		{NET "publish = 443/tcp -> a\npublish = 443 -> b\n",
		 "p.conf:4: port 443 of the uplink is published twice; first as 443/tcp in [network web] at p.conf:3"},
		{NET "publish = 440-450/udp -> a\n[network db]\nsubnet = 10.2.0.0/24\npublish = 443/udp -> b\n",
		 "p.conf:6: port 443/udp of the uplink is published twice; first as 440-450/udp in [network web] at p.conf:3"},
		{"[rules x]\npublish = 443 -> app\n" NET "use = x\n",
		 "p.conf:2: 'publish' is not a key of [rules]; it belongs into [network NAME]"},
	};
	char *text = malloc(32768);
	size_t used = 0;

	(void)state;
	REFUSED(table);
	used += (size_t)sprintf(text, NET "publish =\n");
	for (unsigned int i = 0; i <= POLICY_PUBLISH_MAX; i++)
		used += (size_t)sprintf(text + used, "  %u -> app\n", 1000 + i);
	REFUSED(((const struct finding[]){{text, "p.conf:260: more than 256 'publish' entries"}}));
	free(text);
}

static void addresses_of_the_page_are_read(void **state)
{
	static const struct {
		const char *text, *want[3];
	} table[] = {
		{"", {"127.0.0.1:9780"}},
		{"[gateway]\nhttp = off\n", {NULL}},
		{"[gateway]\nhttp = 0.0.0.0:80 [::]:80\n", {"0.0.0.0:80", "[::]:80"}},
		{"[gateway]\nhttp = 127.0.0.1:9780\n    [::1]:9780, 172.30.0.2:8080\n",
		 {"127.0.0.1:9780", "[::1]:9780", "172.30.0.2:8080"}},
	};
	char text[POLICY_SERVER_MAX], whole[256];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct policy *policy;
		size_t count = 0;

		snprintf(whole, sizeof(whole), "%s%s", table[i].text, NET);
		policy = load_clean(whole);
		while (count < 3 && table[i].want[count])
			count++;
		assert_int_equal(policy->http_count, count);
		for (size_t j = 0; j < count; j++)
			assert_string_equal(policy_http_format(&policy->http[j], text), table[i].want[j]);
		policy_free(policy);
	}
}

static void addresses_of_the_page_are_checked(void **state)
{
	static const struct finding table[] = {
		{"[gateway]\nhttp = on\n" NET, "p.conf:2: 'on' is not ADDRESS:PORT: write 127.0.0.1:9780, [::1]:9780, 0.0.0.0:9780"},
		{"[gateway]\nhttp = :9780\n" NET, "p.conf:2: ':9780' is not ADDRESS:PORT"},
		{"[gateway]\nhttp = localhost:9780\n" NET, "p.conf:2: 'localhost:9780' is not ADDRESS:PORT"},
		{"[gateway]\nhttp = 0.0.0.0:70000\n" NET, "p.conf:2: '0.0.0.0:70000' is not ADDRESS:PORT"},
		{"[gateway]\nhttp = 0.0.0.0:0\n" NET, "p.conf:2: '0.0.0.0:0' is not ADDRESS:PORT"},
		{"[gateway]\nhttp = 0.0.0.0\n" NET, "p.conf:2: '0.0.0.0' has no port: write 0.0.0.0:9780"},
		{"[gateway]\nhttp = ::1\n" NET, "p.conf:2: '::1' has no port: write [::1]:9780"},
		{"[gateway]\nhttp = [::1]\n" NET, "p.conf:2: '[::1]' has no port: write [::1]:9780"},
		{"[gateway]\nhttp = 0.0.0.0:53\n" NET, "p.conf:2: '0.0.0.0:53': the gateway answers DNS on port 53"},
		{"[gateway]\nhttp = 127.0.0.1:5300\n" NET, "p.conf:2: '127.0.0.1:5300': the gateway answers DNS on port 5300"},
		{"[gateway]\nhttp = 224.0.0.1:80\n" NET, "p.conf:2: '224.0.0.1:80': no single host has this address"},
		{"[gateway]\nhttp = off 127.0.0.1:80\n" NET, "p.conf:2: 'http' is either 'off' or a list of addresses, not both"},
		{"[gateway]\nhttp = 127.0.0.1:80\n off\n" NET, "p.conf:3: 'http' is either 'off' or a list of addresses, not both"},
		{"[gateway]\nhttp = 127.0.0.1:80\nhttp = 127.0.0.1:81\n" NET, "p.conf:3: 'http' is given twice; first at p.conf:2"},
		{"[gateway]\nhttp = 127.0.0.1:80\n 0.0.0.0:80\n" NET,
		 "p.conf:3: 0.0.0.0:80 is served already: 127.0.0.1:80 at p.conf:2 covers it"},
		{"[gateway]\nhttp = 10.0.0.1:1 10.0.0.1:2 10.0.0.1:3 10.0.0.1:4 10.0.0.1:5 10.0.0.1:6 10.0.0.1:7 10.0.0.1:8 "
		 "10.0.0.1:9\n" NET,
		 "p.conf:2: more than 8 addresses"},
		{"[gateway]\nhttp = 10.1.0.1:9780\n" NET,
		 "p.conf:2: 10.1.0.1:9780 is in the subnet of [network web]: its apps may not see"},
		{"[gateway]\nhttp = 10.1.0.2:9780\n" NET, "p.conf:2: 10.1.0.2:9780 is in the subnet of [network web]"},
		{"[gateway]\nhttp = [fd00::1]:9780\n[network web]\nsubnet = 10.201.1.0/24 fd00::/64\n",
		 "p.conf:2: [fd00::1]:9780 is in the subnet of [network web]"},
		{"[gateway]\nhttp = 0.0.0.0:443\n" NET "publish = 400-500/tcp -> app\n",
		 "p.conf:5: port 400-500/tcp of the uplink leads to a container here, and p.conf:2 serves the page on it"},
		{NET "http = off\n", "p.conf:3: 'http' is not a key of [network]; it belongs into [gateway]"},
	};
	(void)state;
	expect_refused(table, sizeof(table) / sizeof(table[0]));
	policy_free(load_clean("[gateway]\nhttp = 0.0.0.0:443\n" NET "publish = 443/udp -> app:443\n"));
	policy_free(load_clean("[gateway]\nhttp = 127.0.0.1:443\n" NET "publish = 443 -> app:443\n"));
}

static void networks_are_checked(void **state)
{
	static const struct finding table[] = {
		{"", "p.conf: there is no [network NAME] section"},
		{"[gateway]\nlog = text\n", "p.conf: there is no [network NAME] section"},
		{"[network web]\nallow = a.example\n", "p.conf:1: [network web] has no 'subnet'"},
		{"[network web]\nsubnet = 10.1.0.5/24\n", "p.conf:2: '10.1.0.5/24' has bits set behind its length: write 10.1.0.0/24"},
		{"[network web]\nsubnet = 10.1.0.0\n", "p.conf:2: '10.1.0.0' is not a subnet"},
		{"[network web]\nsubnet = 10.1.0.0/32\n", "p.conf:2: '10.1.0.0/32': an IPv4 subnet has a length"},
		{NET "subnet = 10.2.0.0/24\n", "p.conf:3: a second IPv4 subnet; first at p.conf:2"},
		{NET "gateway = 10.2.0.1\n", "p.conf:3: the gateway 10.2.0.1 is not in the subnet 10.1.0.0/24"},
		{NET "gateway = 10.1.0.0\n", "p.conf:3: 10.1.0.0 is the address of the subnet"},
		{NET "gateway = 10.1.0.255\n", "p.conf:3: 10.1.0.255 is the broadcast address"},
		{NET "gateway = fd00::1\n", "p.conf:3: the gateway fd00::1 has no subnet of its family"},
		{NET "gateway = 10.1.0.2 10.1.0.3\n", "p.conf:3: a second IPv4 gateway; first at p.conf:3"},
		{NET "gateway = host\n", "p.conf:3: 'host' is not an address"},
		{NET "[network db]\nsubnet = 10.0.0.0/8\n",
		 "p.conf:4: the subnet 10.0.0.0/8 overlaps 10.1.0.0/24 of [network web] at p.conf:2"},
		{NET "subnet = fd00:1::/64\n[network db]\nsubnet = fd00:1::/64\n",
		 "p.conf:5: the subnet fd00:1::/64 overlaps fd00:1::/64 of [network web] at p.conf:3"},
	};

	(void)state;
	REFUSED(table);
}

/* Sections of a network with virtual addresses, and what they mean: "POOL4 POOL6 PER_NAME". */
static void pools_of_virtual_addresses_are_read(void **state)
{
	static const struct {
		const char *text, *want;
	} table[] = {
		{NET, "none none 2"},
		{NET "addresses = routed\nallow = 192.0.2.1\n", "none none 2"},
		{NET VIRTUAL, "10.1.0.128/25 none 2"},
		{NET VIRTUAL "private = 10.0.0.0/8\npublish = 443 -> 10.1.0.5\nallow = *\n", "10.1.0.128/25 none 2"},
		{NET VIRTUAL "subnet = fd00:1::/64\n", "10.1.0.128/25 fd00:1:0:0:8000::/65 2"},
		{NET VIRTUAL "subnet = fd00:1::/64\npool = fd00:1::8:0/112\nper_name = 8\n", "10.1.0.128/25 fd00:1::8:0/112 8"},
		{NET VIRTUAL "subnet = fd00:1::/64\npool = 10.1.0.64/26\npool = fd00:1::8:0/112\nper_name = 1\n",
		 "10.1.0.64/26 fd00:1::8:0/112 1"},
		{NET VIRTUAL "pool = 10.1.0.254/32\n", "10.1.0.254 none 2"},
		{NET VIRTUAL "gateway = 10.1.0.254\npool = 10.1.0.0/25\n", "10.1.0.0/25 none 2"},
		{"[network web]\nsubnet = 10.1.0.0/29\n" VIRTUAL, "10.1.0.4/30 none 2"},
		{"[network web]\nsubnet = fd00:1::/125\n" VIRTUAL, "none fd00:1::4/126 2"},
		{"[network web]\n" VIRTUAL "pool = 10.1.0.128/26\nsubnet = 10.1.0.0/24\n", "10.1.0.128/26 none 2"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct policy *policy = load_clean(table[i].text);
		const struct network *web = &policy->networks[0];
		char got[256], pool4[ADDRESS_TEXT_MAX], pool6[ADDRESS_TEXT_MAX];

		snprintf(got, sizeof(got), "%s %s %u", prefix_format(&web->pool4, pool4), prefix_format(&web->pool6, pool6), web->per_name);
		assert_string_equal(got, table[i].want);
		assert_int_equal(web->has_virtual_addresses, strstr(table[i].text, VIRTUAL) != NULL);
		policy_free(policy);
	}
}

static void pools_of_virtual_addresses_are_checked(void **state)
{
	static const struct finding table[] = {
		{NET "pool = 10.1.0.128/25\n", "p.conf:3: 'pool' without 'addresses = virtual': write that as well, or leave 'pool' out"},
		{NET "per_name = 3\n", "p.conf:3: 'per_name' without 'addresses = virtual': write that as well"},
		{NET "addresses = routed\nper_name = 3\n", "p.conf:4: 'per_name' without 'addresses = virtual'"},
		{NET "addresses = virtaul\npool = 10.1.0.128/25\n",
		 "p.conf:3: 'virtaul' is no value of 'addresses'; did you mean 'virtual'?"},
		{NET VIRTUAL "addresses = routed\n", "p.conf:4: 'addresses' is given twice; first at p.conf:3"},
		{NET VIRTUAL "per_name = 0\n", "p.conf:4: '0' is not a number from 1 to 8"},
		{NET VIRTUAL "per_name = 9\n", "p.conf:4: '9' is not a number from 1 to 8"},
		{NET VIRTUAL "pool =\n", "p.conf:4: 'pool' has no value"},
		{NET VIRTUAL "pool = upper\n", "p.conf:4: 'upper' is not a pool such as 10.201.1.128/25"},
		{NET VIRTUAL "pool = 10.1.0.200\n", "p.conf:4: '10.1.0.200' is not a pool such as"},
		{NET VIRTUAL "gateway = 10.1.0.254\npool = 10.1.0.1/25\n",
		 "p.conf:5: '10.1.0.1/25' has bits set behind its length: write 10.1.0.0/25"},
		{NET VIRTUAL "pool = 10.1.0.64/26 10.1.0.128/26\n", "p.conf:4: a second IPv4 pool; first at p.conf:4"},
		{NET VIRTUAL "subnet = fd00:1::/64\npool = fd00:1::8:0/112\npool = fd00:1::9:0/112\n",
		 "p.conf:6: a second IPv6 pool; first at p.conf:5"},
		{NET VIRTUAL "pool = 10.2.0.128/25\n",
		 "p.conf:4: the pool 10.2.0.128/25 is not inside the network's subnet: write pool = 10.1.0.128/25"},
		{NET VIRTUAL "pool = 10.0.0.0/8\n", "p.conf:4: the pool 10.0.0.0/8 is not inside the network's subnet"},
		{NET VIRTUAL "pool = 10.1.0.0/24\n",
		 "p.conf:4: the pool 10.1.0.0/24 is the whole subnet, and apps need addresses of their own: write pool = 10.1.0.128/25"},
		{NET VIRTUAL "pool = 10.1.0.0/25\n",
		 "p.conf:4: the pool 10.1.0.0/25 has the gateway's own address in it: write pool = 10.1.0.128/25"},
		{NET VIRTUAL "gateway = 10.1.0.254\n", "p.conf:2: the pool 10.1.0.128/25, the upper half of the subnet, has the gateway's "
						       "own address in it: write pool = 10.1.0.0/25"},
		{NET VIRTUAL "pool = 10.1.0.255/32\n", "p.conf:4: the pool 10.1.0.255 has no address that can be used"},
		{NET VIRTUAL "pool = 10.1.0.0/32\n", "p.conf:4: the pool 10.1.0.0 has no address that can be used"},
		{NET VIRTUAL "pool = fd00:1::8:0/112\n",
		 "p.conf:4: the pool fd00:1::8:0/112 has no subnet of its family: add that subnet, or leave this pool out"},
		{"[network web]\nsubnet = 10.1.0.0/30\n" VIRTUAL,
		 "p.conf:2: the subnet 10.1.0.0/30 is too small for virtual addresses: beside its upper half, the pool, there is no usable "
		 "address for an app; it has to be /29 or larger"},
		{NET VIRTUAL "subnet = fd00:1::/126\n", "p.conf:4: the subnet fd00:1::/126 is too small for virtual addresses"},
		{NET VIRTUAL "publish = 443 -> 10.1.0.200\n",
		 "p.conf:4: 10.1.0.200 is in the pool of virtual addresses: publish a container"},
		{NET VIRTUAL "allow = 192.0.2.1:443\n",
		 "p.conf:4: '192.0.2.1:443': address rules cannot work with 'addresses = virtual' (p.conf:3): the apps of [network web] "
		 "only ever see "
		 "addresses of its pool, each of which stands for a name; write a rule for the name, or 'addresses = routed'"},
		{NET "deny = [2001:db8::/32]\n" VIRTUAL,
		 "p.conf:3: '[2001:db8::/32]': address rules cannot work with 'addresses = virtual' (p.conf:4)"},
		{"[rules x]\nallow = a.example\n  10.0.0.0/8\n" NET VIRTUAL "use = x\n[network db]\nsubnet = 10.2.0.0/24\nuse = x\n",
		 "p.conf:3: '10.0.0.0/8': address rules cannot work with 'addresses = virtual' (p.conf:6): the apps of [network web] only"},
		{"[rules x]\naddresses = virtual\n" NET "use = x\n", "p.conf:2: 'addresses' is not a key of [rules]"},
	};

	(void)state;
	REFUSED(table);
}

/* What a network wants verified: "VERIFY PORTS WITHOUT_NAME". */
static void what_is_to_be_verified_is_read(void **state)
{
	static const struct {
		const char *text, *want;
	} table[] = {
		{NET, "off all deny"},
		{NET "verify = off\n", "off all deny"},
		{NET "verify = log\n", "log all deny"},
		{NET "verify = enforce\n", "enforce all deny"},
		{NET "verify_ports = 443 80/tcp\nverify = enforce\n", "enforce 80/tcp+443 deny"},
		{NET "verify = enforce\nverify_ports = 443\n  8443/udp\nwithout_name = allow\n", "enforce 443+8443/udp allow"},
		{NET "verify = enforce\nwithout_name = deny\nmode = audit\n", "enforce all deny"},
		/* The ports of rules are another matter. */
		{NET "verify = enforce\nports = 22\nallow = a.example\n", "enforce all deny"},
		{NET VIRTUAL "verify = enforce\nverify_ports = 443\n", "enforce 443 deny"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct policy *policy = load_clean(table[i].text);
		const struct network *web = &policy->networks[0];
		char got[PORTS_TEXT_MAX + 32], ports[PORTS_TEXT_MAX];

		snprintf(got, sizeof(got), "%s %s %s", policy_verify_name(web->verify), ports_format(&web->verify_ports, ports),
			 web->without_name_allowed ? "allow" : "deny");
		assert_string_equal(got, table[i].want);
		policy_free(policy);
	}
}

static void each_network_is_verified_as_it_says(void **state)
{
	struct policy *policy = load_clean(NET "verify = enforce\nverify_ports = 443\nwithout_name = allow\n"
					       "[network db]\nsubnet = 10.2.0.0/24\n");
	const struct network *db = policy_network_by_name(policy, "db");

	(void)state;
	assert_int_equal(policy_network_by_name(policy, "web")->verify, VERIFY_ENFORCE);
	assert_int_equal(db->verify, VERIFY_OFF);
	assert_true(ports_is_all(&db->verify_ports));
	assert_false(db->without_name_allowed);
	policy_free(policy);
}

static void upstreams_are_checked(void **state)
{
	static const struct finding table[] = {
		{NET "[upstream]\nserver = 127.0.0.11\n", "p.conf:4: 127.0.0.11 is Docker's own resolver"},
		{NET "[upstream]\nserver = 127.0.0.11:53\n", "p.conf:4: 127.0.0.11 is Docker's own resolver"},
		{NET "[upstream]\nserver = 0.0.0.0\n", "p.conf:4: '0.0.0.0' cannot be the address of a server"},
		{NET "[upstream]\nserver = dns.example\n", "p.conf:4: 'dns.example' is not a server"},
		{NET "[upstream]\nserver = atuo\n", "p.conf:4: 'atuo' is not a server; did you mean 'auto'?"},
		{NET "[upstream]\nserver = 192.0.2.1:0\n", "p.conf:4: '192.0.2.1:0' is not a server"},
		{NET "[upstream]\nserver = 192.0.2.1:65536\n", "p.conf:4: '192.0.2.1:65536' is not a server"},
		{NET "[upstream]\nserver = [192.0.2.1]:53\n", "p.conf:4: '[192.0.2.1]:53' is not a server"},
		{NET "[upstream]\nserver = tls://192.0.2.9\n",
		 "p.conf:4: 'tls://192.0.2.9' lacks the name that the server's certificate is for"},
		{NET "[upstream]\nserver = tls://192.0.2.9#\n", "p.conf:4: 'tls://192.0.2.9#' lacks the name"},
		{NET "[upstream]\nserver = tls://dns.example#dns.example\n",
		 "p.conf:4: 'tls://dns.example#dns.example' is not a server: write tls://"},
		{NET "[upstream]\nserver = tls://192.0.2.9#192.0.2.9\n",
		 "p.conf:4: 'tls://192.0.2.9#192.0.2.9': behind '#' stands a host name, the one"},
		{NET "[upstream]\nserver = tls://192.0.2.9#dns..example\n",
		 "p.conf:4: 'tls://192.0.2.9#dns..example': behind '#' stands a host name: empty label"},
		{NET "[upstream]\nserver = tls://192.0.2.9#a/b\n",
		 "p.conf:4: 'tls://192.0.2.9#a/b': behind '#' stands a host name: a character"},
		{NET "[upstream]\nserver = tls://192.0.2.9:0#dns.example\n", "p.conf:4: 'tls://192.0.2.9:0#dns.example' is not a server"},
		{NET "[upstream]\nserver = tls://127.0.0.11#dns.example\n", "p.conf:4: 127.0.0.11 is Docker's own resolver"},
		{NET "[upstream]\nserver = https://192.0.2.9/dns-query\n",
		 "p.conf:4: 'https://192.0.2.9/dns-query' is not a server: there are plain ones"},
		{NET "[upstream]\nserver = TLS://192.0.2.9#dns.example\n",
		 "p.conf:4: 'TLS://192.0.2.9#dns.example' is not a server: there are plain ones"},
		{NET "[upstream]\nserver = 192.0.2.9#dns.example\n",
		 "p.conf:4: '192.0.2.9#dns.example' is not a server: a name behind '#' is for DNS over TLS"},
		{NET "[upstream]\nserver = tls://192.0.2.9 #dns.example\n", "p.conf:4: '#' starts a comment only at the start of a line"},
		{NET "[upstream]\nserver = tls://192.0.2.9#dns.example # why\n",
		 "p.conf:4: '#' starts a comment only at the start of a line"},
		{NET "[upstream]\nserver = tls://192.0.2.9#dns.example 192.0.2.1\n",
		 "p.conf:4: '192.0.2.1': one section has either tls:// servers or plain ones"},
		{NET "[upstream]\nserver = 192.0.2.1\nserver = tls://192.0.2.9#dns.example\n",
		 "p.conf:5: 'tls://192.0.2.9#dns.example': one section has either"},
		{NET "[upstream]\nserver = auto tls://192.0.2.9#dns.example\n", "p.conf:4: 'server' is either 'auto' or a list"},
		{NET "[upstream]\nserver = tls://192.0.2.9#dns.example\nca = ca.pem\n", "p.conf:5: 'ca.pem': write the whole path"},
		{NET "[upstream]\nserver = tls://192.0.2.9#dns.example\nca = /nowhere/ca.pem\n",
		 "p.conf:5: /nowhere/ca.pem: cannot be read: No such file or directory"},
		{NET "[upstream]\nserver = tls://192.0.2.9#dns.example\nca = /etc\n", "p.conf:5: /etc: cannot be read: it is not a file"},
		{NET "[upstream]\nserver = tls://192.0.2.9#dns.example\nca = /etc/passwd\n", "p.conf:5: /etc/passwd: holds no certificate"},
		{NET "[upstream]\nserver = tls://192.0.2.9#dns.example\nca = " TEST_DATA "/broken.pem\n",
		 "p.conf:5: " TEST_DATA "/broken.pem: holds a certificate that cannot be read"},
		{NET "[upstream]\nserver = tls://192.0.2.9#dns.example\nca = /dev/null\n",
		 "p.conf:5: /dev/null: cannot be read: it is not a file"},
		{NET "[upstream]\nserver = 192.0.2.9\nca = " TEST_DATA "/ca.pem\n", "p.conf:5: 'ca' without a tls:// server"},
		{NET "[upstream]\nca = " TEST_DATA "/ca.pem\n", "p.conf:4: 'ca' without a tls:// server"},
		{NET "[upstream]\nserver = auto 192.0.2.1\n", "p.conf:4: 'server' is either 'auto' or a list"},
		{NET "[upstream]\nserver = 1.0.0.1 1.0.0.2 1.0.0.3 1.0.0.4 1.0.0.5 1.0.0.6 1.0.0.7 1.0.0.8 1.0.0.9\n",
		 "p.conf:4: more than 8 servers"},
		{NET "[upstream]\nserver = auto\nmatch = **.corp.example\n", "p.conf:5: 'match' belongs into an [upstream NAME]"},
		{NET "[upstream corp]\nserver = 192.0.2.1\n", "p.conf:3: [upstream corp] has no 'match'"},
		{NET "[upstream corp]\nmatch = a.example\n", "p.conf:3: [upstream corp] has no 'server'"},
		{NET "[upstream corp]\nserver = 192.0.2.1\nmatch = a.example:443\n", "p.conf:5: 'a.example:443': a name without a port"},
		{NET "[upstream a]\nserver = 192.0.2.1\nmatch = **.x.example\n[upstream b]\nserver = 192.0.2.2\nmatch = **.X.example.\n",
		 "p.conf:8: 'match = **.x.example' is already in [upstream a], at p.conf:5"},
	};

	(void)state;
	REFUSED(table);
}

static void warnings_do_not_refuse(void **state)
{
	static const struct finding table[] = {
		{NET "allow = a.example\nallow = b.example A.example.\n",
		 "p.conf:4: warning: 'A.example.' is already in [network web], at p.conf:3"},
		{NET "mode = audit\naudit_until = 2001-01-01\n", "p.conf:4: warning: 'audit_until' has passed"},
		{NET "deny =\n", "p.conf:3: warning: 'deny' has no value"},
		{NET "[rules x]\nallow = a.example\n", "p.conf:3: warning: no network says 'use = x'"},
		{NET "allow = printer\n", "p.conf:3: warning: 'printer': local names"},
		{NET "private = 0.0.0.0/0\n", "p.conf:3: warning: 'private = 0.0.0.0/0' turns the rebinding filter off"},
		{NET "use = x x\n[rules x]\nallow = a.example\n", "p.conf:3: warning: 'use = x' is given twice; first at p.conf:3"},
		{NET "[upstream]\nserver = 192.0.2.9:853\n",
		 "p.conf:4: warning: '192.0.2.9:853' is asked in clear, on the port of DNS over TLS"},
		{NET "[upstream]\nserver = tls://192.0.2.9#a.example tls://192.0.2.9:853#A.example\n",
		 "p.conf:4: warning: the server 'tls://192.0.2.9:853#A.example' is given twice"},
		{NET "allow = *.github.io\n", "p.conf:3: warning: '*.github.io': "},
		{NET "wildcard_octets = 63\nallow = a.example\ndeny = *.example.net\n",
		 "p.conf:3: warning: 'wildcard_octets' has no effect: no rule of [network web] allows names by a wildcard"},
		{NET "wildcard_names = 63\n", "p.conf:3: warning: 'wildcard_names' has no effect"},
		{NET "verify_ports = 443\n",
		 "p.conf:3: warning: 'verify_ports' has no effect without 'verify': write 'verify = enforce' (or "
		 "'log') as well"},
		{NET "without_name = allow\nverify = off\n", "p.conf:3: warning: 'without_name' has no effect without 'verify'"},
		{NET "verify = off\nwithout_name = deny\n", "p.conf:4: warning: 'without_name' has no effect without 'verify'"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct config_messages messages;
		struct policy *policy = parse(table[i].text, &messages);

		expect_prefix(&messages, 0, table[i].message, table[i].text);
		assert_non_null(policy);
		assert_int_equal(messages.errors, 0);
		assert_int_equal(messages.count, 1);
		policy_free(policy);
		config_messages_free(&messages);
	}
}

static void all_errors_are_reported_in_the_order_of_the_text(void **state)
{
	const char *text = "[network web]\n"
			   "gateway = 10.9.0.1\n" /* found only at the end */
			   "subnet = 10.1.0.0/24\n"
			   "alow = x\n"
			   "allow =\n"
			   "  good.example\n"
			   "  bad..example\n"
			   "  443\n"
			   "mode = audti\n"
			   "[network\n"
			   "keys = below belong nowhere\n"
			   "  nor = this\n"
			   "[network db]\n";
	static const char *const want[] = {
		"p.conf:2: the gateway", "p.conf:4: 'alow'",      "p.conf:7: 'bad..example'", "p.conf:8: '443'",
		"p.conf:9: 'audti'",     "p.conf:10: '[network'", "p.conf:12: 'nor = this'",  "p.conf:13: [network db] has no"};
	struct config_messages messages;

	(void)state;
	assert_null(parse(text, &messages));
	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++)
		expect_prefix(&messages, i, want[i], text);
	assert_int_equal(messages.count, sizeof(want) / sizeof(want[0]));
	config_messages_free(&messages);
}

static const struct rule *find_rule(const struct network *network, const char *text)
{
	for (size_t i = 0; i < network->rule_count; i++) {
		if (strcmp(network->rules[i]->text, text) == 0)
			return network->rules[i];
	}
	fail_msg("no rule '%s'", text);
	return NULL;
}

static void expect_ports(const struct rule *rule, const char *want)
{
	char text[PORTS_TEXT_MAX];

	assert_string_equal(ports_format(&rule->ports, text), want);
}

static void servers_are_asked_in_clear_or_over_tls(void **state)
{
	static const struct {
		const char *text, *meaning;
	} table[] = {
		{"192.0.2.53", "192.0.2.53:53"},
		{"192.0.2.53:5353", "192.0.2.53:5353"},
		{"2001:db8::53", "[2001:db8::53]:53"},
		{"[2001:db8::53]", "[2001:db8::53]:53"},
		{"[2001:db8::53]:5353", "[2001:db8::53]:5353"},
		{"tls://192.0.2.9#dns.example", "tls://192.0.2.9:853#dns.example"},
		{"tls://192.0.2.9:8853#dns.example", "tls://192.0.2.9:8853#dns.example"},
		{"tls://[2001:db8::9]#dns.example", "tls://[2001:db8::9]:853#dns.example"},
		{"tls://[2001:db8::9]:53#dns.example", "tls://[2001:db8::9]:53#dns.example"},
		{"tls://2001:db8::9#dns.example", "tls://[2001:db8::9]:853#dns.example"},
		{"tls://192.0.2.9#DNS.Example.", "tls://192.0.2.9:853#dns.example"},
		{"tls://192.0.2.9#b\303\274cher.example", "tls://192.0.2.9:853#xn--bcher-kva.example"},
		{"tls://192.0.2.9#resolver", "tls://192.0.2.9:853#resolver"},
	};
	char text[256], server[POLICY_SERVER_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct policy *policy;

		snprintf(text, sizeof(text), NET "[upstream]\nserver = %s\n", table[i].text);
		policy = load_clean(text);
		assert_int_equal(policy->upstreams[0].server_count, 1);
		assert_string_equal(policy_server_format(&policy->upstreams[0].servers[0], server), table[i].meaning);
		policy_free(policy);
	}
}

static void one_address_may_be_two_servers_with_tls(void **state)
{
	struct policy *policy = load_clean(NET "[upstream]\nserver = tls://192.0.2.9#a.example tls://192.0.2.9#b.example\n");

	(void)state;
	assert_int_equal(policy->upstreams[0].server_count, 2);
	assert_string_equal(policy->upstreams[0].servers[1].tls_name, "b.example");
	policy_free(policy);
}

static void certificate_authorities_are_read_with_the_policy(void **state)
{
	struct policy *policy = load_clean(NET "[upstream]\nserver = tls://192.0.2.9#dns.example\nca = " TEST_DATA "/ca.pem\n");

	(void)state;
	assert_string_equal(policy->upstreams[0].ca_file, TEST_DATA "/ca.pem");
	assert_non_null(strstr(policy->upstreams[0].ca, "-----BEGIN CERTIFICATE-----"));
	policy_free(policy);
}

static void a_whole_policy_is_read(void **state)
{
	struct policy *policy = load_clean("[gateway]\n"
					   "uplink = 172.30.0.0/16\n"
					   "log = json\n"
					   "flowtable = no\n"
					   "[upstream]\n"
					   "server = 192.0.2.53 [2001:db8::53]:5353, 2001:db8::54\n"
					   "[upstream corp]\n"
					   "match = **.corp.example\n"
					   "server = 10.0.0.53:5300\n"
					   "private = 10.0.0.0/8 fd00::/8\n"
					   "[rules forge]\n"
					   "allow = forge.example:22+443 cdn.forge.example\n"
					   "deny = gist.forge.example\n"
					   "[network web]\n"
					   "subnet = 10.201.1.0/24\n"
					   "subnet = fd00:201:1::/64\n"
					   "gateway = 10.201.1.9\n"
					   "use = forge\n"
					   "allow = api.example *.wild.example [2001:db8::5]:443/udp 192.0.2.0/24:80 192.0.2.7\n"
					   "ports = 443 80/tcp\n"
					   "mode = audit\n"
					   "audit_until = 2099-12-31T23:59:30Z\n"
					   "private = 10.7.0.0/16\n"
					   "min_ttl = 90\ngrace = 5m\nmax_age = 2h\nmax_addresses = 8\n"
					   "wildcard_octets = 100\nwildcard_labels = 9\nwildcard_names = 60\n"
					   "max_flows = 5000\n"
					   "keep_established = yes\nlog_allowed = all\n");
	const struct network *web = policy_network_by_name(policy, "web");
	char text[ADDRESS_TEXT_MAX];

	(void)state;
	assert_string_equal(policy->uplink, "172.30.0.0/16");
	assert_int_equal(policy->log, LOG_JSON);
	assert_false(policy->flowtable);
	assert_int_equal(policy->upstream_count, 2);
	assert_string_equal(policy->upstreams[0].name, "corp");
	assert_int_equal(policy->upstreams[0].servers[0].port, 5300);
	assert_int_equal(policy->upstreams[0].private_count, 2);
	assert_int_equal(policy->upstreams[1].server_count, 3);
	assert_int_equal(policy->upstreams[1].servers[1].port, 5353);
	assert_int_equal(policy->upstreams[1].servers[2].port, 53);
	assert_false(policy->upstreams[1].automatic);
	assert_non_null(web);
	assert_string_equal(address_format(&web->gateway4, text), "10.201.1.9");
	assert_string_equal(address_format(&web->gateway6, text), "fd00:201:1::1");
	assert_int_equal(web->mode, MODE_AUDIT);
	assert_true(web->audit_until == 4102444770);
	assert_int_equal(web->lifetimes.min_ttl, 90);
	assert_int_equal(web->lifetimes.grace, 300);
	assert_int_equal(web->lifetimes.max_age, 7200);
	assert_int_equal(web->lifetimes.max_addresses, 8);
	assert_int_equal(web->wildcards.octets, 100);
	assert_int_equal(web->wildcards.labels, 9);
	assert_int_equal(web->wildcards.names, 60);
	assert_int_equal(web->max_flows, 5000);
	assert_true(web->keep_established);
	assert_int_equal(web->log_allowed, LOG_ALLOWED_ALL);
	assert_int_equal(web->private_count, 1);
	assert_int_equal(web->rule_count, 8);
	expect_ports(find_rule(web, "forge.example:22+443"), "22+443");
	expect_ports(find_rule(web, "cdn.forge.example"), "80/tcp+443");
	expect_ports(find_rule(web, "gist.forge.example"), "all");
	expect_ports(find_rule(web, "192.0.2.7"), "all");
	assert_string_equal(find_rule(web, "cdn.forge.example")->section, "rules forge");
	assert_int_equal(find_rule(web, "cdn.forge.example")->source.line, 12);
	assert_null(find_rule(web, "api.example")->section);
	assert_string_equal(find_rule(web, "api.example")->source.file, "p.conf");
	policy_free(policy);
}

static void a_missing_upstream_means_auto(void **state)
{
	struct policy *policy = load_clean(NET);

	(void)state;
	assert_int_equal(policy->upstream_count, 1);
	assert_int_equal(policy->networks[0].log_allowed, LOG_ALLOWED_OFF);
	assert_int_equal(policy->networks[0].wildcards.names, 0);
	assert_true(policy->upstreams[0].automatic);
	assert_string_equal(policy->upstreams[0].name, "");
	policy_free(policy);
}

/* inih's buffer has 200 octets: rules and lines above that arrive whole, with the right line. */
static void long_lines_and_names_arrive_whole(void **state)
{
	char label[64], name[260], *text, *end;
	struct policy *policy;
	const struct network *web;

	(void)state;
	memset(label, 'a', 63);
	label[63] = 0;
	snprintf(name, sizeof(name), "%s.%s.%s.%.50s.example", label, label, label, label);
	text = malloc(60000);
	end = text + sprintf(text, NET "allow = ");
	for (unsigned int i = 0; i < 2000; i++)
		end += sprintf(end, "n%u.example:%u ", i, 1 + i % 40);
	sprintf(end, "\n  %s:443\n  last.example\n", name);
	policy = load_clean(text);
	web = policy_network_by_name(policy, "web");
	assert_int_equal(web->rule_count, 2002);
	for (unsigned int i = 0; i < 2000; i++) {
		char want[64];

		snprintf(want, sizeof(want), "n%u.example:%u", i, 1 + i % 40);
		assert_string_equal(web->rules[i]->text, want);
		assert_int_equal(web->rules[i]->source.line, 3);
	}
	assert_int_equal(strlen(web->rules[2000]->text), strlen(name) + 4);
	assert_int_equal(web->rules[2000]->source.line, 4);
	assert_int_equal(web->rules[2001]->source.line, 5);
	policy_free(policy);
	free(text);
}

static void lines_over_the_limit_and_binary_are_refused(void **state)
{
	static const char utf16[] = "\xff\xfe[\0n\0]\0\n\0x\0\n";
	struct config_messages messages;
	char *text = malloc(70000);

	(void)state;
	strcpy(text, NET "allow = ");
	memset(text + strlen(NET "allow = "), 'a', 66000);
	strcpy(text + 66000, "\n  more.example\n");
	assert_null(parse(text, &messages));
	expect_prefix(&messages, 0, "p.conf:3: the line is longer than 65536 bytes", "(long)");
	config_messages_free(&messages);
	free(text);
	assert_null(parse_bytes(utf16, sizeof(utf16) - 1, &messages));
	expect_prefix(&messages, 0, "p.conf: there is no [network NAME]", "(UTF-16)");
	expect_prefix(&messages, 1, "p.conf:1: a NUL byte", "(UTF-16)");
	assert_int_equal(messages.count, 2);
	config_messages_free(&messages);
}

static void messages_are_printable(void **state)
{
	struct config_messages messages;

	(void)state;
	assert_null(parse(NET "allow = b\xffr.example b\xc3\xb6.exa\xc2\x9b[mple/\n", &messages));
	assert_true(messages.count >= 2);
	for (size_t i = 0; i < messages.count; i++) {
		assert_null(strchr(messages.list[i].text, '\xff'));
		assert_null(strstr(messages.list[i].text, "\xc2\x9b"));
	}
	assert_non_null(strstr(messages.list[1].text, "b\xc3\xb6.exa??[mple"));
	config_messages_free(&messages);
}

static void too_many_messages_are_counted(void **state)
{
	struct config_messages messages;
	char *text = malloc(100000), *end = text;

	(void)state;
	end += sprintf(end, NET "allow =\n");
	for (unsigned int i = 0; i < 5000; i++)
		end += sprintf(end, "  443\n");
	assert_null(parse(text, &messages));
	assert_int_equal(messages.errors, 5000);
	assert_int_equal(messages.count, 1001);
	assert_string_equal(messages.list[1000].text, "policy: 4000 more findings are not shown");
	config_messages_free(&messages);
	free(text);
}

static void put_file(const char *directory, const char *name, const char *text)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void remove_directory(const char *directory, const char *const *names, size_t count)
{
	char path[256];

	for (size_t i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
		unlink(path);
	}
	snprintf(path, sizeof(path), "%s/sub.conf", directory);
	rmdir(path);
	assert_int_equal(rmdir(directory), 0);
}

static void a_directory_is_read_in_the_order_of_names(void **state)
{
	static const char *const names[] = {"20-b.conf", "10-a.ini", "20-b.conf~", ".hidden.conf", "notes.txt", "20-b.conf.bak"};
	char directory[] = "/tmp/sluice-test-XXXXXX", want[128], sub[64];
	struct config_messages messages = {0};
	struct config_text text;

	(void)state;
	assert_non_null(mkdtemp(directory));
	assert_int_equal(config_read(directory, &text, &messages), -ENOENT);
	assert_int_equal(messages.errors, 1);
	config_messages_free(&messages);
	for (size_t i = 0; i < 6; i++)
		put_file(directory, names[i], i < 2 ? NET "alow = x\n" : "broken");
	snprintf(sub, sizeof(sub), "%s/sub.conf", directory);
	assert_int_equal(mkdir(sub, 0700), 0);
	assert_int_equal(config_read(directory, &text, &messages), 0);
	assert_int_equal(text.count, 2);
	assert_non_null(strstr(text.parts[0].file, "/10-a.ini"));
	assert_null(config_parse(&text, &messages));
	snprintf(want, sizeof(want), "%s/10-a.ini:3: 'alow'", directory);
	expect_prefix(&messages, 0, want, "(directory)");
	snprintf(want, sizeof(want), "%s/20-b.conf:1: [network web] is given twice; first at %s/10-a.ini:1", directory, directory);
	expect_prefix(&messages, 1, want, "(directory)");
	config_messages_free(&messages);
	config_text_free(&text);
	remove_directory(directory, names, 6);
}

static void the_environment_is_read(void **state)
{
	struct config_messages messages = {0};
	struct config_text text;

	(void)state;
	setenv(CONFIG_ENVIRONMENT, NET "alow = x\n", 1);
	assert_int_equal(config_read(NULL, &text, &messages), 0);
	assert_null(config_parse(&text, &messages));
	expect_prefix(&messages, 0, "SLUICE_CONFIG:3: 'alow'", "(environment)");
	unsetenv(CONFIG_ENVIRONMENT);
	config_messages_free(&messages);
	config_text_free(&text);
	assert_int_equal(config_read("/nowhere/at/all.conf", &text, &messages), -ENOENT);
	expect_prefix(&messages, 0, "/nowhere/at/all.conf: No such file", "(missing)");
	config_messages_free(&messages);
}

static void a_text_survives_as_a_block(void **state)
{
	struct config_part parts[] = {{.file = (char[]){"a.conf"}, .text = (char[]){"x\0y"}, .size = 3},
				      {.file = (char[]){"b.conf"}, .text = (char[]){""}, .size = 0}};
	struct config_text text = {.parts = parts, .count = 2}, again;
	char *block, *copy;
	size_t size;

	(void)state;
	assert_int_equal(config_serialise(&text, &block, &size), 0);
	assert_int_equal(config_deserialise(block, size, &again), 0);
	assert_int_equal(again.count, 2);
	assert_string_equal(again.parts[0].file, "a.conf");
	assert_int_equal(again.parts[0].size, 3);
	assert_memory_equal(again.parts[0].text, "x\0y", 4);
	assert_string_equal(again.parts[1].file, "b.conf");
	config_text_free(&again);
	/* Every truncation, and every changed octet: refused or read, never anything else. */
	for (size_t cut = 0; cut < size; cut++) {
		copy = malloc(cut ? cut : 1);
		memcpy(copy, block, cut);
		assert_int_equal(config_deserialise(copy, cut, &again), -EINVAL);
		free(copy);
		block[cut] = (char)~block[cut];
		if (config_deserialise(block, size, &again) == 0)
			config_text_free(&again);
		block[cut] = (char)~block[cut];
	}
	free(block);
}

static void automatic_servers_come_from_resolv_conf(void **state)
{
	static const struct {
		const char *text, *servers; /* NULL: error */
	} table[] = {
		{"nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch a.example\n", "192.0.2.1 2001:db8::1"},
		{"nameserver 127.0.0.11\n# ExtServers: [192.0.2.2 host(9.9.9.9) host(127.0.0.53)]\n", "192.0.2.2 9.9.9.9"},
		{"# ExtServers: [host(192.0.2.2)]\nnameserver 192.0.2.1\n", "192.0.2.1"},
		{"nameserver 127.0.0.53\nnameserver 192.0.2.1\n", "192.0.2.1"},
		{"nameserver 127.0.0.53\n", "127.0.0.53"},
		{"nameserver fe80::1%eth0\nnameserver nonsense\nnameserver\n;x\n", NULL},
		{"nameserver 127.0.0.11\n# ExtServers: [host(127.0.0.53)]\n", NULL},
		{"", NULL},
	};
	char directory[] = "/tmp/sluice-test-XXXXXX", path[64];
	static const char *const names[] = {"resolv.conf"};

	(void)state;
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/resolv.conf", directory);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct policy *policy = load_clean(NET);
		const struct upstream_group *group = &policy->upstreams[0];
		struct config_messages messages = {0};
		char got[256] = "", text[ADDRESS_TEXT_MAX];

		put_file(directory, "resolv.conf", table[i].text);
		assert_int_equal(config_resolve_auto(policy, path, &messages), table[i].servers ? 0 : -ENOENT);
		assert_int_equal(messages.errors, table[i].servers ? 0 : 1);
		for (size_t j = 0; j < group->server_count; j++) {
			assert_int_equal(group->servers[j].port, 53);
			strcat(strcat(got, j ? " " : ""), address_format(&group->servers[j].address, text));
		}
		assert_string_equal(got, table[i].servers ? table[i].servers : "");
		config_messages_free(&messages);
		policy_free(policy);
	}
	remove_directory(directory, names, 1);
}

static void resolv_conf_is_not_read_without_need(void **state)
{
	struct policy *policy = load_clean(NET "[upstream]\nserver = 192.0.2.1\n");
	struct config_messages messages = {0};

	(void)state;
	assert_int_equal(config_resolve_auto(policy, "/nowhere/resolv.conf", &messages), 0);
	policy_free(policy);
	policy = load_clean(NET);
	assert_int_equal(config_resolve_auto(policy, "/nowhere/resolv.conf", &messages), -ENOENT);
	assert_int_equal(messages.errors, 1);
	config_messages_free(&messages);
	policy_free(policy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(traps_of_inih_are_refused),
		cmocka_unit_test(harmless_forms_are_accepted),
		cmocka_unit_test(keys_and_values_are_checked),
		cmocka_unit_test(rules_are_checked),
		cmocka_unit_test(publish_entries_are_read),
		cmocka_unit_test(publish_entries_are_checked),
		cmocka_unit_test(addresses_of_the_page_are_read),
		cmocka_unit_test(addresses_of_the_page_are_checked),
		cmocka_unit_test(networks_are_checked),
		cmocka_unit_test(pools_of_virtual_addresses_are_read),
		cmocka_unit_test(pools_of_virtual_addresses_are_checked),
		cmocka_unit_test(what_is_to_be_verified_is_read),
		cmocka_unit_test(each_network_is_verified_as_it_says),
		cmocka_unit_test(upstreams_are_checked),
		cmocka_unit_test(warnings_do_not_refuse),
		cmocka_unit_test(all_errors_are_reported_in_the_order_of_the_text),
		cmocka_unit_test(a_whole_policy_is_read),
		cmocka_unit_test(a_missing_upstream_means_auto),
		cmocka_unit_test(long_lines_and_names_arrive_whole),
		cmocka_unit_test(lines_over_the_limit_and_binary_are_refused),
		cmocka_unit_test(messages_are_printable),
		cmocka_unit_test(too_many_messages_are_counted),
		cmocka_unit_test(a_directory_is_read_in_the_order_of_names),
		cmocka_unit_test(the_environment_is_read),
		cmocka_unit_test(a_text_survives_as_a_block),
		cmocka_unit_test(automatic_servers_come_from_resolv_conf),
		cmocka_unit_test(servers_are_asked_in_clear_or_over_tls),
		cmocka_unit_test(one_address_may_be_two_servers_with_tls),
		cmocka_unit_test(certificate_authorities_are_read_with_the_policy),
		cmocka_unit_test(resolv_conf_is_not_read_without_need),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
