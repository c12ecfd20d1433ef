/* SPDX-License-Identifier: MIT */
/* Who is told about, and who is not. Nobody is asked for names of containers: tests/netns/test_dns_path.py has those. */
#include "gateway/dns_path.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define TEXT_MAX (256 * 1024)

struct fixture {
	uv_loop_t loop;
	struct log *log;
	struct apps *apps;
	struct dns_path *path;
	int ends[2];
	size_t size;
	char text[TEXT_MAX];
};

static const struct network web = {
	.id = 1,
	.name = "web",
	.subnet4 = {.address = {.family = AF_INET, .bytes = {10, 201, 1}}, .length = 24},
	.subnet6 = {.address = {.family = AF_INET6, .bytes = {0xfd, 0xc9, 0, 1}}, .length = 64},
};
static const struct network jobs = {
	.id = 2,
	.name = "jobs",
	.subnet6 = {.address = {.family = AF_INET6, .bytes = {0xfd, 0xc9, 0, 2}}, .length = 64},
};
static const struct address app = {.family = AF_INET, .bytes = {10, 201, 1, 5}};
static const struct address neighbour = {.family = AF_INET, .bytes = {10, 201, 1, 6}};
static const struct address app6 = {.family = AF_INET6, .bytes = {0xfd, 0xc9, 0, 1, [15] = 5}};
static const struct address nobody = {0};

static int open_path(struct fixture *fixture, bool restarted)
{
	/* A port at which nobody listens: no container has a name. */
	const struct apps_options options = {.port = 1};

	fixture->apps = apps_new(&fixture->loop, &options);
	fixture->path = dns_path_new(fixture->log, fixture->apps, restarted);
	return fixture->path ? 0 : -1;
}

static int set_up(void **state)
{
	static struct fixture fixture;

	*state = &fixture;
	fixture.size = 0;
	uv_loop_init(&fixture.loop);
	if (pipe(fixture.ends) != 0 || fcntl(fixture.ends[0], F_SETFL, O_NONBLOCK) != 0)
		return -1;
	fixture.log = log_new(fixture.ends[1], LOG_TEXT);
	return open_path(&fixture, false);
}

static void close_path(struct fixture *fixture)
{
	if (!fixture->path)
		return;
	apps_close(fixture->apps);
	dns_path_free(fixture->path);
	fixture->path = NULL;
	uv_run(&fixture->loop, UV_RUN_DEFAULT);
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	close_path(fixture);
	assert_int_equal(uv_loop_close(&fixture->loop), 0);
	log_free(fixture->log);
	close(fixture->ends[0]);
	close(fixture->ends[1]);
	return 0;
}

/* Everything that was written, after what waits has ended. */
static const char *finish(struct fixture *fixture)
{
	close_path(fixture);
	for (ssize_t got = 1; got > 0;) {
		log_flush(fixture->log);
		got = read(fixture->ends[0], fixture->text + fixture->size, TEXT_MAX - 1 - fixture->size);
		fixture->size += got > 0 ? (size_t)got : 0;
	}
	fixture->text[fixture->size] = '\0';
	return fixture->text;
}

static unsigned int count_lines(const char *text)
{
	unsigned int count = 0;

	for (; (text = strchr(text, '\n')) != NULL; text++)
		count++;
	return count;
}

static void test_a_source_that_never_asked_is_told_once(void **state)
{
	struct fixture *fixture = *state;
	const char *text;

	dns_path_stranger(fixture->path, &web, &app, &app);
	dns_path_stranger(fixture->path, &web, &app, &app);
	dns_path_stranger(fixture->path, &web, &app6, &app); /* the same container */
	dns_path_stranger(fixture->path, &web, &neighbour, &neighbour);
	text = finish(fixture);
	assert_int_equal(count_lines(text), 2);
	assert_non_null(strstr(
		text, " event=message level=warning text=\"network web: 10.201.1.5 uses addresses that no answer showed, and has not "
		      "asked this gateway for a name since it started. If it should use names, its service lacks the line `dns: "
		      "192.0.2.53`\"\n"));
	assert_non_null(strstr(text, "network web: 10.201.1.6 "));
}

static void test_who_asked_is_not_told(void **state)
{
	struct fixture *fixture = *state;

	assert_false(dns_path_is_known(fixture->path, web.id, &app6));
	dns_path_asked(fixture->path, web.id, &app6, &app);
	assert_true(dns_path_is_known(fixture->path, web.id, &app6));
	assert_false(dns_path_is_known(fixture->path, jobs.id, &app6));
	dns_path_stranger(fixture->path, &web, &app, &app);
	dns_path_stranger(fixture->path, &web, &app6, &app);
	assert_string_equal(finish(fixture), "");
}

/* How many strangers `health` would tell, once every container's name has been looked for. */
static size_t count_strangers(struct fixture *fixture, const char *source)
{
	json_t *list, *stranger;
	size_t count, index;

	uv_run(&fixture->loop, UV_RUN_DEFAULT);
	list = dns_path_strangers(fixture->path);
	count = json_array_size(list);
	json_array_foreach(list, index, stranger)
	{
		assert_string_equal(json_string_value(json_object_get(stranger, "network")), "web");
		assert_string_equal(json_string_value(json_object_get(stranger, "src")), source);
		assert_true(json_is_null(json_object_get(stranger, "app")));
		assert_string_equal(json_string_value(json_object_get(stranger, "dns")), "192.0.2.53");
	}
	json_decref(list);
	return count;
}

static void test_a_stranger_is_one_until_it_asks(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(count_strangers(fixture, ""), 0);
	dns_path_stranger(fixture->path, &web, &app6, &app);
	dns_path_stranger(fixture->path, &web, &neighbour, &neighbour);
	dns_path_asked(fixture->path, web.id, &neighbour, &neighbour); /* before its line is written */
	assert_int_equal(count_strangers(fixture, "fdc9:1::5"), 1);
	dns_path_asked(fixture->path, jobs.id, &app, &app);
	assert_int_equal(count_strangers(fixture, "fdc9:1::5"), 1);
	dns_path_asked(fixture->path, web.id, &app, &app);
	assert_int_equal(count_strangers(fixture, ""), 0);
}

static void test_asking_in_another_network_does_not_count(void **state)
{
	struct fixture *fixture = *state;

	dns_path_asked(fixture->path, jobs.id, &app, &app);
	dns_path_stranger(fixture->path, &web, &app, &app);
	assert_int_equal(count_lines(finish(fixture)), 1);
}

static void test_a_source_without_a_container_is_not_told(void **state)
{
	struct fixture *fixture = *state;

	dns_path_stranger(fixture->path, &web, &app6, &nobody);
	assert_string_equal(finish(fixture), "");
}

/* Whose container asked is not known: it may be any of the network. */
static void test_nothing_is_told_where_it_is_not_known_who_asked(void **state)
{
	struct fixture *fixture = *state;
	struct address app2 = {.family = AF_INET6, .bytes = {0xfd, 0xc9, 0, 2, [15] = 5}};
	const char *text;

	dns_path_asked(fixture->path, web.id, &app6, &nobody);
	dns_path_stranger(fixture->path, &web, &app, &app);
	dns_path_stranger(fixture->path, &jobs, &app2, &app2);
	text = finish(fixture);
	assert_int_equal(count_lines(text), 1);
	assert_non_null(strstr(text, "network jobs: fdc9:2::5 "));
}

static void test_a_network_without_ipv4_gets_a_server_of_ipv6(void **state)
{
	struct fixture *fixture = *state;
	struct address app2 = {.family = AF_INET6, .bytes = {0xfd, 0xc9, 0, 2, [15] = 5}};

	dns_path_stranger(fixture->path, &jobs, &app2, &app2);
	assert_non_null(strstr(finish(fixture), "`dns: 2001:db8::53`"));
}

static void test_a_worker_that_came_later_does_not_speak_for_the_gateway(void **state)
{
	struct fixture *fixture = *state;

	close_path(fixture);
	assert_int_equal(open_path(fixture, true), 0);
	dns_path_stranger(fixture->path, &web, &app, &app);
	assert_non_null(strstr(finish(fixture), "for a name since its worker was started again. "));
}

static struct address source_number(unsigned int number)
{
	return (struct address){.family = AF_INET, .bytes = {10, 201, (uint8_t)(number >> 8), (uint8_t)number}};
}

static void test_lines_have_an_end(void **state)
{
	struct fixture *fixture = *state;

	for (unsigned int i = 0; i < 2 * DNS_PATH_TOLD_MAX; i++) {
		struct address source = source_number(i);

		dns_path_stranger(fixture->path, &web, &source, &source);
	}
	assert_int_equal(count_lines(finish(fixture)), DNS_PATH_TOLD_MAX);
}

static void test_nothing_is_told_once_the_table_is_full(void **state)
{
	struct fixture *fixture = *state;
	struct address late = source_number(3 * DNS_PATH_ASKERS_MAX);

	for (unsigned int i = 0; i < 2 * DNS_PATH_ASKERS_MAX; i++) {
		struct address source = source_number(i);

		dns_path_asked(fixture->path, web.id, &source, &source);
	}
	assert_false(dns_path_is_known(fixture->path, web.id, &late));
	dns_path_stranger(fixture->path, &web, &late, &late);
	assert_string_equal(finish(fixture), "");
}

int main(void)
{
#define PATH_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		PATH_TEST(test_a_source_that_never_asked_is_told_once),
		PATH_TEST(test_who_asked_is_not_told),
		PATH_TEST(test_a_stranger_is_one_until_it_asks),
		PATH_TEST(test_asking_in_another_network_does_not_count),
		PATH_TEST(test_a_source_without_a_container_is_not_told),
		PATH_TEST(test_nothing_is_told_where_it_is_not_known_who_asked),
		PATH_TEST(test_a_network_without_ipv4_gets_a_server_of_ipv6),
		PATH_TEST(test_a_worker_that_came_later_does_not_speak_for_the_gateway),
		PATH_TEST(test_lines_have_an_end),
		PATH_TEST(test_nothing_is_told_once_the_table_is_full),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
