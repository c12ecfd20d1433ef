/* SPDX-License-Identifier: MIT */
/*
 * Questions to Docker's resolver.
 *
 * Theory of operation: the socket is connected to 127.0.0.11, so only Docker's resolver can answer; id and question are compared as well.
 * Questions under way are in a list in the order of their deadlines, with one timer for the first. Where there is no Docker the kernel
 * refuses: all questions end then. libuv stops watching a socket that has an error, so it is closed, and the next question opens another.
 */
#include "gateway/docker.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utlist.h>

#define DOCKER_RESOLVER 0x7f00000bU /* 127.0.0.11 */
#define QUERY_MAX       300
#define READS_MAX       256 /* answers taken in one turn of the loop */
#define ID_TRIES        8   /* random ids, until one is unused */

struct asking {
	struct asking *prev, *next;
	docker_done done;
	void *context;
	uint64_t deadline; /* ms of the loop */
	size_t query_size;
	uint16_t id;
	uint8_t query[QUERY_MAX];
};

struct docker {
	uv_loop_t *loop;
	uv_timer_t timer;
	uv_poll_t *poll; /* owned by the loop, freed in its close callback; NULL while there is no socket */
	int fd;
	uint16_t port;
	struct asking *asking; /* owned, list: the first deadline first */
	unsigned int count;
	bool closing;
};

static void on_deadline(uv_timer_t *timer);

struct docker *docker_new(uv_loop_t *loop, uint16_t port)
{
	struct docker *docker = calloc(1, sizeof(*docker));

	if (!docker)
		return NULL;
	docker->loop = loop;
	docker->port = port;
	docker->fd = -1;
	if (uv_timer_init(loop, &docker->timer) != 0) {
		free(docker);
		return NULL;
	}
	docker->timer.data = docker;
	return docker;
}

static void free_handle(uv_handle_t *handle)
{
	free(handle);
}

static void close_socket(struct docker *docker)
{
	if (docker->poll) {
		uv_poll_stop(docker->poll);
		uv_close((uv_handle_t *)docker->poll, free_handle);
		docker->poll = NULL;
	}
	if (docker->fd >= 0)
		close(docker->fd);
	docker->fd = -1;
}

static void set_timer(struct docker *docker)
{
	uint64_t now = uv_now(docker->loop), deadline;

	if (docker->closing)
		return;
	if (!docker->asking) {
		uv_timer_stop(&docker->timer);
		return;
	}
	deadline = docker->asking->deadline;
	uv_timer_start(&docker->timer, on_deadline, deadline > now ? deadline - now : 0, 0);
}

static void end_asking(struct docker *docker, struct asking *asking, enum docker_outcome outcome, const struct answer *answer)
{
	DL_DELETE(docker->asking, asking);
	docker->count--;
	asking->done(asking->context, outcome, answer);
	free(asking);
}

static void on_deadline(uv_timer_t *timer)
{
	struct docker *docker = timer->data;
	uint64_t now = uv_now(docker->loop);

	while (docker->asking && docker->asking->deadline <= now)
		end_asking(docker, docker->asking, DOCKER_SILENT, NULL);
	set_timer(docker);
}

static struct asking *asked_with(struct docker *docker, uint16_t id)
{
	struct asking *asking;

	DL_FOREACH (docker->asking, asking) {
		if (asking->id == id)
			return asking;
	}
	return NULL;
}

static void take_answer(struct docker *docker, const uint8_t *wire, size_t size)
{
	struct asking *asking = size >= 12 ? asked_with(docker, message_peek_id(wire)) : NULL;
	struct answer *answer = asking ? message_parse_answer(wire, size, asking->query, asking->query_size) : NULL;

	if (!answer)
		return;
	end_asking(docker, asking, DOCKER_ANSWERED, answer);
	answer_free(answer);
}

/* Only those that are under way now: whoever is told may ask again, and that question ends by itself. */
static void socket_failed(struct docker *docker)
{
	struct asking *ended = docker->asking, *asking, *next;

	close_socket(docker);
	docker->asking = NULL;
	docker->count = 0;
	DL_FOREACH_SAFE (ended, asking, next) {
		asking->done(asking->context, DOCKER_FAILED, NULL);
		free(asking);
	}
}

/* Return: false when there is nothing left to read. */
static bool receive(struct docker *docker)
{
	uint8_t wire[MESSAGE_UDP_SIZE];
	ssize_t size = recv(docker->fd, wire, sizeof(wire), MSG_DONTWAIT);

	if (size >= 0) {
		take_answer(docker, wire, (size_t)size);
		return true;
	}
	if (errno == EINTR)
		return true;
	if (errno != EAGAIN && errno != EWOULDBLOCK)
		socket_failed(docker);
	return false;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct docker *docker = poll->data;

	(void)events;
	if (poll != docker->poll)
		return;
	/* The error is ECONNREFUSED; libuv tells of it as EBADF and does not watch the socket any more. */
	if (status < 0)
		socket_failed(docker);
	for (int i = 0; i < READS_MAX && poll == docker->poll; i++) {
		if (!receive(docker))
			break;
	}
	set_timer(docker);
}

static bool open_socket(struct docker *docker)
{
	struct sockaddr_in resolver = {.sin_family = AF_INET, .sin_port = htons(docker->port), .sin_addr.s_addr = htonl(DOCKER_RESOLVER)};

	if (docker->fd >= 0)
		return true;
	docker->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	docker->poll = calloc(1, sizeof(*docker->poll));
	if (docker->fd < 0 || !docker->poll || connect(docker->fd, (const struct sockaddr *)&resolver, sizeof(resolver)) != 0 ||
	    uv_poll_init(docker->loop, docker->poll, docker->fd) != 0) {
		free(docker->poll);
		docker->poll = NULL;
		close_socket(docker);
		return false;
	}
	docker->poll->data = docker;
	if (uv_poll_start(docker->poll, UV_READABLE, on_readable) == 0)
		return true;
	close_socket(docker);
	return false;
}

/* Return: false when there was none to be had. */
static bool take_id(struct docker *docker, uint16_t *id)
{
	for (int i = 0; i < ID_TRIES; i++) {
		if (getrandom(id, sizeof(*id), 0) == sizeof(*id) && !asked_with(docker, *id))
			return true;
	}
	return false;
}

/* A question to be sent, or NULL. */
static struct asking *new_asking(struct docker *docker, const struct domain *name, uint16_t type)
{
	struct asking *asking = calloc(1, sizeof(*asking));

	if (!asking)
		return NULL;
	if (take_id(docker, &asking->id)) {
		asking->query_size = message_build_query(asking->id, name, type, false, false, NULL, asking->query, sizeof(asking->query));
		if (asking->query_size > 0)
			return asking;
	}
	free(asking);
	return NULL;
}

static bool send_question(struct docker *docker, const struct asking *asking)
{
	return open_socket(docker) && send(docker->fd, asking->query, asking->query_size, MSG_NOSIGNAL) == (ssize_t)asking->query_size;
}

static int compare_deadlines(const struct asking *a, const struct asking *b)
{
	return a->deadline < b->deadline ? -1 : a->deadline > b->deadline;
}

bool docker_ask(struct docker *docker, const struct domain *name, uint16_t type, uint32_t timeout_ms, docker_done done, void *context)
{
	struct asking *asking;

	if (docker->closing || docker->count >= DOCKER_ASKING_MAX)
		return false;
	asking = new_asking(docker, name, type);
	if (!asking)
		return false;
	if (!send_question(docker, asking)) {
		free(asking);
		socket_failed(docker); /* it was the refusal of a question before this one */
		return false;
	}
	asking->done = done;
	asking->context = context;
	asking->deadline = uv_now(docker->loop) + timeout_ms;
	DL_INSERT_INORDER(docker->asking, asking, compare_deadlines);
	docker->count++;
	set_timer(docker);
	return true;
}

static void free_docker(uv_handle_t *handle)
{
	free(handle->data);
}

void docker_close(struct docker *docker)
{
	if (!docker || docker->closing)
		return;
	docker->closing = true;
	socket_failed(docker);
	uv_close((uv_handle_t *)&docker->timer, free_docker);
}
