/* SPDX-License-Identifier: MIT */
/*
 * Do the DNS servers of the policy answer? Those with TLS are for doctor_upstream_tls.c.
 *
 * Theory of operation: each server is asked for the name servers of the root over UDP, from a socket of its own; then all are waited for
 * together. Any answer that belongs to the question will do: a server for one zone only may refuse the root. Where the gateway's table is
 * in force it lets questions of the gateway's own user id pass, which is ours.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "gateway/config.h"
#include "gateway/doctor.h"
#include "resolver/message.h"

#define SERVERS_MAX 64 /* the rest is not asked, which is said */
#define QUERY_MAX   300
#define WAIT_MS     2000

struct probe {
	const struct upstream_group *group;
	const struct upstream_server *server;
	int fd;    /* -1: closed */
	int error; /* -errno: the question could not be sent, or was refused */
	bool answered;
	unsigned int milliseconds;
	uint8_t query[QUERY_MAX];
	size_t query_size;
};

struct round {
	struct probe probes[SERVERS_MAX];
	size_t count;
	uint64_t start; /* ms */
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int send_query(struct probe *probe)
{
	static const struct domain root = {.length = 1};
	struct sockaddr_storage to;
	socklen_t length = address_to_sockaddr(&probe->server->address, probe->server->port, &to);
	uint16_t id;

	if (getrandom(&id, sizeof(id), 0) != (ssize_t)sizeof(id))
		return -EIO;
	probe->query_size = message_build_query(id, &root, TYPE_NS, false, false, NULL, probe->query, sizeof(probe->query));
	if (!probe->query_size)
		return -EINVAL;
	probe->fd = socket(to.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (probe->fd < 0 || connect(probe->fd, (struct sockaddr *)&to, length) != 0 ||
	    send(probe->fd, probe->query, probe->query_size, 0) != (ssize_t)probe->query_size)
		return -errno;
	return 0;
}

static void start_all(struct round *round, const struct policy *policy)
{
	round->start = now_ms();
	for (size_t i = 0; i < policy->upstream_count; i++) {
		const struct upstream_group *group = &policy->upstreams[i];

		for (size_t j = 0; j < group->server_count && round->count < SERVERS_MAX; j++) {
			struct probe *probe = &round->probes[round->count];

			if (group->servers[j].tls_name)
				continue;
			round->count++;
			*probe = (struct probe){.group = group, .server = &group->servers[j], .fd = -1};
			probe->error = send_query(probe);
		}
	}
}

static void receive(struct round *round, struct probe *probe)
{
	uint8_t wire[MESSAGE_UDP_SIZE];
	ssize_t size = recv(probe->fd, wire, sizeof(wire), 0);
	struct answer *answer;

	if (size < 0) {
		/* An ICMP error: nobody listens there, or it cannot be reached. */
		if (errno != EAGAIN && errno != EINTR)
			probe->error = -errno;
		return;
	}
	answer = message_parse_answer(wire, (size_t)size, probe->query, probe->query_size);
	if (!answer)
		return; /* late, broken or forged */
	probe->answered = true;
	probe->milliseconds = (unsigned int)(now_ms() - round->start);
	answer_free(answer);
}

static bool is_open(const struct probe *probe)
{
	return !probe->answered && !probe->error;
}

static void wait_for_all(struct round *round)
{
	struct pollfd descriptors[SERVERS_MAX];
	uint64_t end = round->start + WAIT_MS, now = round->start;
	size_t open = 1;

	for (; open && now < end; now = now_ms()) {
		open = 0;
		for (size_t i = 0; i < round->count; i++) {
			/* A negative descriptor is passed over. */
			descriptors[i] = (struct pollfd){.fd = is_open(&round->probes[i]) ? round->probes[i].fd : -1, .events = POLLIN};
			open += is_open(&round->probes[i]);
		}
		if (!open || poll(descriptors, round->count, (int)(end - now)) < 0)
			continue;
		for (size_t i = 0; i < round->count; i++) {
			if (descriptors[i].revents && is_open(&round->probes[i]))
				receive(round, &round->probes[i]);
		}
	}
}

static bool group_answers(const struct round *round, const struct upstream_group *group)
{
	for (size_t i = 0; i < round->count; i++) {
		if (round->probes[i].group == group && round->probes[i].answered)
			return true;
	}
	return false;
}

static void report(struct doctor *doctor, const struct round *round, const struct probe *probe)
{
	const char *group = probe->group->name[0] ? probe->group->name : "default";
	char address[ADDRESS_TEXT_MAX];

	address_format(&probe->server->address, address);
	if (probe->answered)
		doctor_say(doctor, DOCTOR_OK, "upstream", NULL, "%s port %u (upstream %s) answered in %u ms", address, probe->server->port,
			   group, probe->milliseconds);
	else
		doctor_say(doctor, group_answers(round, probe->group) ? DOCTOR_WARNING : DOCTOR_PROBLEM, "upstream",
			   "is the server up, does the uplink lead there, and does a firewall of the host let UDP port 53 through? Another "
			   "server: "
			   "`server =` under [upstream]",
			   "%s port %u (upstream %s) %s", address, probe->server->port, group,
			   probe->error ? strerror(-probe->error) : "did not answer within 2 s");
}

void doctor_upstream(struct doctor *doctor)
{
	struct round *round = calloc(1, sizeof(*round));

	if (!round) {
		doctor_say(doctor, DOCTOR_PROBLEM, "upstream", NULL, "out of memory");
		return;
	}
	start_all(round, doctor->policy);
	wait_for_all(round);
	for (size_t i = 0; i < round->count; i++)
		report(doctor, round, &round->probes[i]);
	if (round->count == SERVERS_MAX)
		doctor_say(doctor, DOCTOR_OK, "upstream", NULL, "servers behind the first %d were not asked", SERVERS_MAX);
	for (size_t i = 0; i < round->count; i++) {
		if (round->probes[i].fd >= 0)
			close(round->probes[i].fd);
	}
	free(round);
}
