/* SPDX-License-Identifier: MIT */
/*
 * What a client writes into the control socket, in two pieces: through the daemon's server, to the answers that need no kernel. Each client
 * gets one JSON object with "ok", or nothing when its line has no end.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "gateway/control.h"
#include "gateway/report/advice.h"
#include "gateway/report/follow.h"
#include "gateway/report/stats_file.h"
#include "gateway/report/suggest.h"

#define TURNS_MAX 1000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uv_loop_t loop;
static struct control *control;
static struct policy *policy;
static struct lease_table *leases;
static struct reports *reports;
static char path[64];

/* As gateway.c has it. */
static json_t *answer(void *context, const char *command, const json_t *request, struct control_stream *stream)
{
	(void)context;
	if (strcmp(command, "stats") == 0)
		return stats_json(reports_stats(reports), policy, json_string_value(json_object_get(request, "network")), 1);
	if (strcmp(command, "log") == 0)
		return follow_answer(reports, request, stream);
	if (strcmp(command, "suggest") == 0)
		return suggest_answer(policy, reports_stats(reports), leases, request);
	if (strcmp(command, "advise") == 0)
		return advice_answer(policy, leases, request);
	return NULL;
}

static void remove_socket(void)
{
	unlink(path);
}

static void set_up(void)
{
	struct source where;
	char error[256];
	struct log *log = log_new(-1, LOG_TEXT);

	policy = policy_new();
	leases = lease_table_new();
	assert(log && policy && leases);
	policy->networks = calloc(1, sizeof(*policy->networks));
	assert(policy->networks);
	policy->network_count = 1;
	strcpy(policy->networks[0].name, "web");
	assert(policy_finish(policy, error, sizeof(error), &where) == 0);
	assert(uv_loop_init(&loop) == 0);
	reports = reports_new(&loop, log, -1, -1);
	assert(reports);
	snprintf(path, sizeof(path), "/tmp/fuzz-control-%d.sock", (int)getpid());
	atexit(remove_socket);
	assert(control_new(&loop, path, answer, NULL, &control) == 0);
}

static int connect_client(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	strcpy(address.sun_path, path);
	assert(fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0);
	return fd;
}

/* The server may have closed already, having read enough. */
static void write_part(int fd, const uint8_t *data, size_t size)
{
	ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);

	assert(sent >= 0 || errno == EPIPE || errno == ECONNRESET || errno == EAGAIN);
	uv_run(&loop, UV_RUN_NOWAIT);
}

/* All that the server says, until it closes. Return: octets. */
static size_t read_all(int fd, char *out, size_t room)
{
	size_t used = 0;

	for (int turn = 0; turn < TURNS_MAX; turn++) {
		ssize_t more = recv(fd, out + used, room - used, 0);

		if (more == 0 || (more < 0 && errno == ECONNRESET))
			return used;
		assert(more > 0 || errno == EAGAIN);
		used += more > 0 ? (size_t)more : 0;
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	abort();
}

static void check_answer(const char *text, size_t size)
{
	const char *end = memchr(text, '\n', size);
	json_t *object;

	if (size == 0)
		return;
	assert(end);
	object = json_loadb(text, (size_t)(end - text), 0, NULL);
	assert(json_is_boolean(json_object_get(object, "ok")));
	json_decref(object);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char said[CONTROL_STREAM_MAX];
	size_t first;
	int fd;

	if (!control)
		set_up();
	if (size < 2)
		return 0;
	first = (size_t)data[0] < size - 1 ? data[0] : size - 1;
	fd = connect_client();
	write_part(fd, data + 1, first);
	write_part(fd, data + 1 + first, size - 1 - first);
	shutdown(fd, SHUT_WR);
	check_answer(said, read_all(fd, said, sizeof(said)));
	close(fd);
	uv_run(&loop, UV_RUN_NOWAIT);
	return 0;
}
