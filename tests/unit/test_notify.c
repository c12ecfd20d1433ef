/* SPDX-License-Identifier: MIT */
/* Notifications without a network: what is new, how often, what is said, and the whole with a server that is never reached. */
#include "gateway/report/notify.h"

#include <inttypes.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "gateway/config.h"
#include "gateway/report/notify_address.h"
#include "gateway/report/notify_message.h"
#include "gateway/report/notify_pace.h"
#include "gateway/report/notify_table.h"
#include "gateway/report/notify_url.h"
#include "resolver/message.h"

#define HOUR 3600000ULL
#define NET  "[network web]\nsubnet = 10.1.0.0/24 fd00:1::/64\n"

static struct decision question(const char *app, const char *name)
{
	struct decision decision = {.event = DECISION_DENIED, .kind = DECISION_QUESTION, .type = TYPE_A, .count = 1};

	strcpy(decision.network, "web");
	snprintf(decision.app, sizeof(decision.app), "%s", app);
	assert_true(address_parse("10.1.0.5", &decision.source));
	assert_null(domain_parse(name, &decision.name));
	decision.reason = REASON_NAME_NOT_ALLOWED;
	return decision;
}

static struct decision flow(const char *app, const char *destination)
{
	struct decision decision = {.event = DECISION_DENIED, .kind = DECISION_FLOW, .protocol = IPPROTO_TCP, .count = 1};

	strcpy(decision.network, "web");
	snprintf(decision.app, sizeof(decision.app), "%s", app);
	assert_true(address_parse("10.1.0.5", &decision.source));
	assert_true(address_parse(destination, &decision.destination));
	decision.has_port = true;
	decision.port = 443;
	decision.reason = REASON_ADDRESS_NOT_ALLOWED;
	return decision;
}

/* The table */

static bool see(struct notify_table *table, struct decision decision, uint64_t now)
{
	return notify_table_see(table, &decision, 1, now);
}

static void test_a_denial_is_new_once(void **state)
{
	struct notify_table *table = notify_table_new();
	struct decision other = question("web-1", "evil.example"), named = flow("web-1", "192.0.2.1");

	(void)state;
	assert_true(see(table, question("web-1", "evil.example"), 1));
	assert_false(see(table, question("web-1", "evil.example"), 2));
	assert_true(see(table, question("web-2", "evil.example"), 3));
	assert_true(see(table, question("web-1", "other.example"), 4));
	strcpy(other.network, "build");
	assert_true(see(table, other, 5));
	/* The flow to an address of the name is the same denial, on whatever port. */
	named.name = question("", "evil.example").name;
	assert_false(see(table, named, 6));
	assert_true(see(table, flow("web-1", "192.0.2.1"), 7));
	assert_true(see(table, flow("web-1", "192.0.2.2"), 8));
	assert_false(see(table, flow("web-1", "192.0.2.1"), 9));
	/* What a flow itself asked for, with whatever address, as well. */
	named.name = question("", "front.example").name;
	named.has_sni = true;
	named.sni = question("", "evil.example").name;
	assert_false(see(table, named, 9));
	/* Without the app's name its address counts. */
	assert_true(see(table, flow("", "192.0.2.1"), 10));
	assert_false(see(table, flow("", "192.0.2.1"), 11));
	notify_table_clear(table);
	assert_true(see(table, question("web-1", "evil.example"), 12));
	notify_table_free(table);
}

static void test_what_was_not_seen_for_a_day_is_new_again(void **state)
{
	struct notify_table *table = notify_table_new();

	(void)state;
	assert_true(see(table, question("a", "evil.example"), 1000));
	assert_false(see(table, question("a", "evil.example"), 1000 + 23 * HOUR));
	assert_false(see(table, question("a", "evil.example"), 1000 + 46 * HOUR));
	assert_true(see(table, question("a", "evil.example"), 1000 + 70 * HOUR));
	notify_table_free(table);
}

static void test_the_table_forgets_what_was_seen_longest_ago(void **state)
{
	struct notify_table *table = notify_table_new();
	char name[32];

	(void)state;
	for (unsigned int i = 0; i < NOTIFY_KNOWN_MAX; i++) {
		snprintf(name, sizeof(name), "n%u.example", i);
		assert_true(see(table, question("a", name), i));
	}
	assert_false(see(table, question("a", "n0.example"), 5000));
	for (unsigned int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "m%u.example", i);
		assert_true(see(table, question("a", name), 6000));
	}
	assert_int_equal(notify_table_count(table), NOTIFY_KNOWN_MAX);
	assert_false(see(table, question("a", "n0.example"), 7000));
	assert_false(see(table, question("a", "n101.example"), 7000));
	assert_true(see(table, question("a", "n100.example"), 7000));
	notify_table_free(table);
}

static void test_the_next_worker_knows_what_was_sent(void **state)
{
	struct notify_table *table = notify_table_new(), *next = notify_table_new();
	struct decision sent = question("a", "sent.example"), waits = question("a", "waits.example");
	void *bytes;
	size_t size;

	(void)state;
	assert_true(notify_table_see(table, &sent, 1, 10 * HOUR));
	assert_true(notify_table_see(table, &waits, 2, 10 * HOUR));
	assert_int_equal(notify_table_save(table, 1, 11 * HOUR, &bytes, &size), 0);
	/* Its clock may have begun anew. */
	notify_table_restore(next, bytes, size, 500);
	assert_int_equal(notify_table_count(next), 1);
	assert_false(notify_table_see(next, &sent, 1, 600));
	assert_true(notify_table_see(next, &waits, 1, 600));
	notify_table_clear(next);
	notify_table_restore(next, bytes, size, 500);
	assert_true(notify_table_see(next, &sent, 1, 500 + 23 * HOUR)); /* 24 hours after it was seen */
	/* Every cut, and a size that cannot be. */
	for (size_t cut = 0; cut < size; cut++) {
		uint8_t *copy = malloc(cut ? cut : 1);

		memcpy(copy, bytes, cut);
		notify_table_clear(next);
		notify_table_restore(next, copy, cut, 500);
		assert_int_equal(notify_table_count(next), 0);
		free(copy);
	}
	memset(bytes, 0xff, size);
	notify_table_restore(next, bytes, size, 500);
	assert_int_equal(notify_table_count(next), 0);
	free(bytes);
	notify_table_free(table);
	notify_table_free(next);
}

/* The pace */

static void test_requests_keep_their_distance(void **state)
{
	struct notify_pace pace = {0};
	uint64_t now = 5;

	(void)state;
	assert_int_equal(notify_pace_next(&pace), 0);
	for (unsigned int i = 0; i < NOTIFY_PER_HOUR; i++) {
		notify_pace_begin(&pace, now);
		notify_pace_done(&pace);
		if (i + 1 < NOTIFY_PER_HOUR)
			assert_int_equal(notify_pace_next(&pace), now + NOTIFY_GAP_MS);
		now += NOTIFY_GAP_MS;
	}
	assert_int_equal(notify_pace_next(&pace), 5 + NOTIFY_HOUR_MS);
	notify_pace_begin(&pace, 5 + NOTIFY_HOUR_MS);
	assert_int_equal(notify_pace_next(&pace), 5 + NOTIFY_HOUR_MS + NOTIFY_GAP_MS);
}

static void test_a_message_has_three_tries(void **state)
{
	struct notify_pace pace = {0};

	(void)state;
	notify_pace_begin(&pace, 1000);
	assert_true(notify_pace_failed(&pace, 9000));
	assert_int_equal(notify_pace_next(&pace), 9000 + NOTIFY_RETRY_MS);
	notify_pace_begin(&pace, 19000);
	assert_true(notify_pace_failed(&pace, 20000));
	assert_int_equal(notify_pace_next(&pace), 20000 + NOTIFY_RETRY_MS_2);
	notify_pace_begin(&pace, 50000);
	assert_false(notify_pace_failed(&pace, 50001));
	assert_int_equal(notify_pace_next(&pace), 50000 + NOTIFY_GAP_MS);
	notify_pace_begin(&pace, 60000);
	assert_true(notify_pace_failed(&pace, 60001)); /* the next message has three again */
}

/* What is said */

static void test_the_text_has_a_line_for_each(void **state)
{
	struct notify_message *message = notify_message_new();
	struct decision first = question("web-1", "evil.example"), second = flow("", "192.0.2.1"), third = flow("web-2", "192.0.2.2");
	char title[NOTIFY_TITLE_MAX], *text;

	(void)state;
	third.event = DECISION_AUDIT;
	third.has_port = false;
	third.protocol = IPPROTO_GRE;
	assert_true(notify_message_add(message, &first, "{\"n\":1}"));
	assert_string_equal(notify_message_title(message, title), "Sluice: 1 new denial");
	assert_true(notify_message_add(message, &second, "{\"n\":2}"));
	assert_true(notify_message_add(message, &third, "{\"n\":3}"));
	assert_string_equal(notify_message_title(message, title), "Sluice: 3 new denials");
	text = notify_message_text(message, NOTIFY_TEXT_MAX_NTFY, false);
	assert_string_equal(text, "web-1 (network web) -> evil.example (DNS A): name-not-allowed\n"
				  "10.1.0.5 (network web) -> 192.0.2.1 port 443/tcp: address-not-allowed\n"
				  "web-2 (network web) -> 192.0.2.2 gre: address-not-allowed, audit mode let it pass");
	free(text);
	text = notify_message_text(message, NOTIFY_TEXT_MAX_JSON, true);
	assert_non_null(strstr(text, "-> `evil.example` (DNS A)"));
	free(text);
	notify_message_free(message);
}

static void test_the_text_has_the_name_inside_a_flow(void **state)
{
	struct notify_message *message = notify_message_new();
	struct decision inside = flow("web-1", "192.0.2.1"), nameless = flow("web-1", "192.0.2.1");
	char *text;

	(void)state;
	inside.name = nameless.name = question("", "api.example").name;
	inside.reason = REASON_SNI_MISMATCH;
	inside.has_sni = nameless.has_sni = true;
	inside.sni = question("", "front.example").name;
	nameless.reason = REASON_NO_NAME;
	assert_true(notify_message_add(message, &inside, "{\"n\":1}"));
	assert_true(notify_message_add(message, &nameless, "{\"n\":2}"));
	text = notify_message_text(message, NOTIFY_TEXT_MAX_NTFY, false);
	assert_string_equal(text, "web-1 (network web) -> front.example port 443/tcp: sni-mismatch\n"
				  "web-1 (network web) -> api.example port 443/tcp: no-name");
	free(text);
	notify_message_free(message);
}

static void test_what_has_no_room_is_counted(void **state)
{
	struct notify_message *message = notify_message_new();
	struct decision decision = question("web-1", "a-rather-long-name-that-fills-the-text.evil.example");
	char *text, *at;
	unsigned int lines = 0, more = 0;

	(void)state;
	for (unsigned int i = 0; i < NOTIFY_ENTRIES_MAX; i++)
		assert_true(notify_message_add(message, &decision, "{}"));
	assert_false(notify_message_add(message, &decision, "{}"));
	assert_false(notify_message_add(message, &decision, "{}"));
	message->dropped = 7;
	assert_int_equal(notify_message_denials(message), NOTIFY_ENTRIES_MAX + 2);
	text = notify_message_text(message, NOTIFY_TEXT_MAX_JSON, true);
	assert_true(strlen(text) <= NOTIFY_TEXT_MAX_JSON);
	for (at = text; (at = strstr(at, "->")); at++)
		lines++;
	assert_true(lines > 5);
	assert_int_equal(sscanf(strstr(text, "\nand "), "\nand %u more\n", &more), 1);
	assert_int_equal(lines + more, NOTIFY_ENTRIES_MAX + 2);
	assert_non_null(strstr(text, "\n7 earlier ones could not be told"));
	free(text);
	notify_message_free(message);
}

static void test_the_body_fits_many_servers(void **state)
{
	struct notify_message *message = notify_message_new();
	struct decision decision = question("web-1", "evil.example");
	json_t *root, *denials;
	char *body;

	(void)state;
	memcpy(decision.name.wire, "\4\"<@&\7example", sizeof("\4\"<@&\7example"));
	decision.name.length = sizeof("\4\"<@&\7example");
	notify_message_add(message, &decision, "{\"event\":\"denied\",\"network\":\"web\"}");
	message->more = 4;
	message->dropped = 2;
	body = notify_message_json(message);
	root = json_loads(body, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(root);
	denials = json_object_get(root, "denials");
	assert_int_equal(json_array_size(denials), 1);
	assert_string_equal(json_string_value(json_object_get(json_array_get(denials, 0), "network")), "web");
	assert_int_equal(json_integer_value(json_object_get(root, "more")), 4);
	assert_int_equal(json_integer_value(json_object_get(root, "dropped")), 2);
	assert_string_equal(json_string_value(json_object_get(root, "title")), "Sluice: 5 new denials");
	assert_string_equal(json_string_value(json_object_get(root, "text")), json_string_value(json_object_get(root, "content")));
	assert_null(strpbrk(json_string_value(json_object_get(root, "text")), "<@&\""));
	assert_true(strlen(json_string_value(json_object_get(root, "content"))) < 2000);
	json_decref(root);
	free(body);
	notify_message_free(message);
}

/* The URL, and what else the policy says */

static const struct {
	const char *text, *host, *url; /* host NULL: refused */
	uint16_t port;
	bool tls;
	const char *error;
} urls[] = {
	{"https://ntfy.sh/topic", "ntfy.sh", "https://ntfy.sh/topic", 443, true, NULL},
	{"http://ntfy/topic", "ntfy", "http://ntfy/topic", 80, false, NULL},
	{"http://192.0.2.9:8080/a?b=c&d=e", "192.0.2.9", "http://192.0.2.9:8080/a?b=c&d=e", 8080, false, NULL},
	{"https://[2001:db8::9]:8443", "2001:db8::9", "https://[2001:db8::9]:8443/", 8443, true, NULL},
	{"HTTPS://B\303\274cher.Example./x", "xn--bcher-kva.example", "https://xn--bcher-kva.example/x", 443, true, NULL},
	{"ntfy.sh/topic", NULL, NULL, 0, false, "write http://HOST/PATH"},
	{"ftp://ntfy.sh/secret", NULL, NULL, 0, false, "http:// or https://"},
	{"https://", NULL, NULL, 0, false, "not a URL"},
	{"https://me:secret@ntfy.sh/x", NULL, NULL, 0, false, "notify_token_file"},
	{"https://secret@ntfy.sh/x", NULL, NULL, 0, false, "notify_token_file"},
	{"https://ntfy.sh/secret#x", NULL, NULL, 0, false, "%23"},
	{"http://localhost:9780/secret", NULL, NULL, 0, false, "the gateway's own container"},
	{"http://a.localhost/secret", NULL, NULL, 0, false, "the gateway's own container"},
	{"http://[fe80::1%25eth0]/secret", NULL, NULL, 0, false, "zone"},
	{"http://under_score/secret", NULL, NULL, 0, false, "'under_score' is not a name"},
	{"http://ntfy.sh:0/secret", NULL, NULL, 0, false, "port"},
	{"http://ntfy.sh:70000/secret", NULL, NULL, 0, false, "not a URL"},
};

static void test_urls(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
		struct notify_url url;
		char error[384] = "";
		bool good = notify_url_parse(urls[i].text, &url, error, sizeof(error));

		if (good != (urls[i].host != NULL) || (urls[i].error && !strstr(error, urls[i].error)))
			fail_msg("%s: %s", urls[i].text, error);
		assert_null(strstr(error, "secret"));
		if (good) {
			assert_string_equal(url.host, urls[i].host);
			assert_string_equal(url.text, urls[i].url);
			assert_int_equal(url.port, urls[i].port);
			assert_int_equal(url.tls, urls[i].tls);
		}
		notify_url_free(&url);
	}
}

static struct policy *parse(const char *text, char *error, size_t error_size)
{
	struct config_part part = {.file = strdup("test"), .text = strdup(text), .size = strlen(text)};
	struct config_text whole = {.parts = &part, .count = 1};
	struct config_messages messages = {0};
	struct policy *policy = config_parse(&whole, &messages);

	snprintf(error, error_size, "%s", messages.count ? messages.list[0].text : "");
	config_messages_free(&messages);
	free(part.file);
	free(part.text);
	return policy;
}

static const char *write_file(const char *text, char path[static 64])
{
	FILE *file;
	int fd;

	strcpy(path, "/tmp/sluice-test-notify-XXXXXX");
	fd = mkstemp(path);
	file = fdopen(fd, "w");
	fputs(text, file);
	fclose(file);
	return path;
}

static void test_the_policy_holds_what_it_names(void **state)
{
	char text[512], error[512], path[64];
	struct policy *policy;

	(void)state;
	snprintf(text, sizeof(text), "[gateway]\nnotify = https://ntfy.sh/t\nnotify_format = ntfy\nnotify_token_file = %s\n" NET,
		 write_file(" tk_1234 \n", path));
	policy = parse(text, error, sizeof(error));
	unlink(path);
	assert_non_null(policy);
	assert_string_equal(policy->notify.token, "tk_1234");
	assert_int_equal(policy->notify.format, NOTIFY_NTFY);
	assert_true(policy->notify.tls);
	policy_free(policy);
	policy = parse(NET, error, sizeof(error));
	assert_null(policy->notify.url);
	policy_free(policy);
}

static const struct {
	const char *lines, *error;
} wrong[] = {
	{"notify_format = ntfy\n", "test:2: 'notify_format' without 'notify'"},
	{"notify_token_file = /dev/null\n", "test:2: /dev/null: cannot be read: it is not a file"},
	{"notify_token_file = token\n", "test:2: 'token': write the whole path"},
	{"notify = http://ntfy/t\nnotify_format = text\n", "test:3: 'text' is no value of 'notify_format'; one of: json, ntfy"},
	{"notify = http://10.1.0.7/t\n", "test:2: notify: 10.1.0.7 is inside of [network web]"},
	{"notify = http://[fd00:1::7]/t\n", "test:2: notify: fd00:1::7 is inside of [network web]"},
	{"notify = http://127.0.0.1/t\n", "test:2: notify: 127.0.0.1 is not the address of another host"},
	{"notify = http://169.254.169.254/t\n", "test:2: notify: 169.254.169.254 is not the address of another host"},
	{"notify = http://224.0.0.1/t\n", "test:2: notify: 224.0.0.1 is not the address of another host"},
	{"notify = x y\n", "test:2: notify: this is not a URL"},
	{"notify = http://a/b notify_format = ntfy\n", "test:2: a second '='"},
};

static void test_policies_that_are_refused(void **state)
{
	char text[512], error[512];

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		snprintf(text, sizeof(text), "[gateway]\n%s" NET, wrong[i].lines);
		assert_null(parse(text, error, sizeof(error)));
		if (strncmp(error, wrong[i].error, strlen(wrong[i].error)) != 0)
			fail_msg("%s: %s", wrong[i].lines, error);
	}
}

/* Whatever is in the token's file, no message repeats it. */
static void test_a_bad_token_is_not_repeated(void **state)
{
	char text[512], error[512], path[64];

	(void)state;
	snprintf(text, sizeof(text), "[gateway]\nnotify = https://ntfy.sh/t\nnotify_token_file = %s\n" NET,
		 write_file("secret one\nsecret two\n", path));
	assert_null(parse(text, error, sizeof(error)));
	unlink(path);
	assert_non_null(strstr(error, "is not a token"));
	assert_null(strstr(error, "secret"));
}

/* The whole, with a kernel that does not open */

struct world {
	uv_loop_t loop;
	struct log *log;
	int fd, memory;
	struct policy *policy;
	struct resolver *resolver;
	struct notify *notify;
	unsigned int opened;
};

static int refuse(void *context, const struct address *list, size_t count, uint16_t port, bool open, char *error, size_t error_size)
{
	struct world *world = context;
	char text[ADDRESS_TEXT_MAX];

	assert_true(open);
	assert_int_equal(count, 1);
	assert_string_equal(address_format(list, text), "192.0.2.9");
	assert_int_equal(port, 8080);
	world->opened++;
	snprintf(error, error_size, "the kernel says no");
	return -EPERM;
}

static void open_world(struct world *world)
{
	static const struct policy nothing = {.upstreams = NULL};
	const struct resolver_host resolver_host = {.context = NULL};
	const struct notify_host host = {.context = world, .open = refuse};
	char error[512];

	memset(world, 0, sizeof(*world));
	assert_int_equal(uv_loop_init(&world->loop), 0);
	world->fd = memfd_create("log", MFD_CLOEXEC);
	world->memory = memfd_create("memory", MFD_CLOEXEC);
	world->log = log_new(world->fd, LOG_TEXT);
	world->resolver = resolver_new(&world->loop, &nothing, &resolver_host);
	world->policy = parse("[gateway]\nnotify = http://192.0.2.9:8080/secret\n" NET, error, sizeof(error));
	world->notify = notify_new(&world->loop, world->log, world->resolver, world->memory, &host);
	assert_non_null(world->notify);
}

static void close_world(struct world *world)
{
	notify_close(world->notify);
	resolver_close(world->resolver);
	uv_run(&world->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&world->loop), 0);
	log_free(world->log);
	policy_free(world->policy);
	close(world->fd);
	close(world->memory);
}

static void run_for(struct world *world, uint64_t ms)
{
	uint64_t end;

	uv_update_time(&world->loop);
	end = uv_now(&world->loop) + ms;
	while (uv_now(&world->loop) < end) { /* nothing may be there that would wake it */
		uv_run(&world->loop, UV_RUN_NOWAIT);
		usleep(5000);
	}
}

static void tell(struct world *world, struct decision decision)
{
	notify_decision(world->notify, &decision, "{}");
}

static void test_without_a_url_nobody_is_told(void **state)
{
	struct world world;

	(void)state;
	open_world(&world);
	tell(&world, question("a", "evil.example"));
	assert_int_equal(notify_counters(world.notify)->denials, 0);
	close_world(&world);
}

static void test_only_denials_with_a_line_of_their_own_count(void **state)
{
	struct decision summary = question("a", "s.example"), allowed = flow("a", "192.0.2.1"), audited = flow("a", "192.0.2.2");
	struct world world;

	(void)state;
	summary.kind = DECISION_SUMMARY;
	allowed.event = DECISION_ALLOWED;
	audited.event = DECISION_AUDIT;
	open_world(&world);
	notify_set_policy(world.notify, world.policy);
	tell(&world, summary);
	tell(&world, allowed);
	assert_int_equal(notify_counters(world.notify)->denials, 0);
	tell(&world, audited);
	tell(&world, audited);
	assert_int_equal(notify_counters(world.notify)->denials, 1);
	close_world(&world);
}

static void test_a_failure_is_said_without_the_path(void **state)
{
	char text[4096] = "";
	struct world world;

	(void)state;
	open_world(&world);
	notify_set_policy(world.notify, world.policy);
	tell(&world, question("a", "evil.example"));
	while (world.opened == 0)
		uv_run(&world.loop, UV_RUN_ONCE);
	assert_int_equal(notify_counters(world.notify)->failed, 1);
	assert_int_equal(notify_counters(world.notify)->dropped, 0);
	log_flush(world.log);
	assert_true(pread(world.fd, text, sizeof(text) - 1, 0) > 0);
	assert_non_null(strstr(text, "a notification could not be sent to 192.0.2.9: the kernel says no; it is tried again"));
	assert_null(strstr(text, "secret"));
	close_world(&world);
}

static void test_turning_it_off_drops_what_waits(void **state)
{
	struct policy *without;
	struct world world;
	char error[512];

	(void)state;
	open_world(&world);
	notify_set_policy(world.notify, world.policy);
	tell(&world, question("a", "evil.example"));
	tell(&world, question("a", "other.example"));
	without = parse(NET, error, sizeof(error));
	notify_set_policy(world.notify, without);
	policy_free(world.policy);
	world.policy = without;
	assert_int_equal(notify_counters(world.notify)->dropped, 2);
	run_for(&world, NOTIFY_COLLECT_MS + 100);
	assert_int_equal(world.opened, 0);
	close_world(&world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_denial_is_new_once),
		cmocka_unit_test(test_what_was_not_seen_for_a_day_is_new_again),
		cmocka_unit_test(test_the_table_forgets_what_was_seen_longest_ago),
		cmocka_unit_test(test_the_next_worker_knows_what_was_sent),
		cmocka_unit_test(test_requests_keep_their_distance),
		cmocka_unit_test(test_a_message_has_three_tries),
		cmocka_unit_test(test_the_text_has_a_line_for_each),
		cmocka_unit_test(test_the_text_has_the_name_inside_a_flow),
		cmocka_unit_test(test_what_has_no_room_is_counted),
		cmocka_unit_test(test_the_body_fits_many_servers),
		cmocka_unit_test(test_urls),
		cmocka_unit_test(test_the_policy_holds_what_it_names),
		cmocka_unit_test(test_policies_that_are_refused),
		cmocka_unit_test(test_a_bad_token_is_not_repeated),
		cmocka_unit_test(test_without_a_url_nobody_is_told),
		cmocka_unit_test(test_only_denials_with_a_line_of_their_own_count),
		cmocka_unit_test(test_a_failure_is_said_without_the_path),
		cmocka_unit_test(test_turning_it_off_drops_what_waits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
