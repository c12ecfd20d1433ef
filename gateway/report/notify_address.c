/* SPDX-License-Identifier: MIT */
/*
 * Where the server of notifications is.
 *
 * Theory of operation: a look-up is one question for each family, at Docker's resolver or at our upstreams. When both have ended the
 * addresses that may be used are handed on. Docker's questions cannot be cancelled: `round` tells a late answer from one that is wanted.
 */
#include "gateway/report/notify_address.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/docker.h"

#define WHY_MAX 384

static const uint16_t types[] = {TYPE_A, TYPE_AAAA};

/* A question at our upstreams. */
struct side {
	struct notify_address *address;
	bool asking;
};

/* A question at Docker's resolver. */
struct container {
	struct notify_address *address;
	uint16_t type;
	unsigned int round;
};

struct notify_address {
	struct resolver *resolver;
	struct docker *docker; /* owned */
	const struct policy *policy;
	struct side sides[2];
	unsigned int round;   /* of look-ups */
	unsigned int waiting; /* for answers of this round */
	struct address list[NOTIFY_ADDRESSES_MAX];
	size_t count;
	bool by_docker, silent; /* silent: no answer, at least for one family */
	char why[WHY_MAX];      /* about an address that may not be used; "" none */
	notify_found found;     /* NULL: nothing is under way */
	void *context;
};

struct notify_address *notify_address_new(uv_loop_t *loop, struct resolver *resolver, uint16_t port)
{
	struct notify_address *address = calloc(1, sizeof(*address));

	if (!address)
		return NULL;
	address->resolver = resolver;
	address->docker = docker_new(loop, port);
	if (!address->docker) {
		free(address);
		return NULL;
	}
	for (size_t i = 0; i < 2; i++)
		address->sides[i].address = address;
	return address;
}

static bool is_reachable(const struct address *address)
{
	bool multicast = address->family == AF_INET ? address->bytes[0] >= 224 : address->bytes[0] == 0xff;
	bool link_local = address->family == AF_INET ? address->bytes[0] == 169 && address->bytes[1] == 254
						     : address->bytes[0] == 0xfe && (address->bytes[1] & 0xc0) == 0x80;
	static const uint8_t zeros[15];
	bool own = address->family == AF_INET ? address->bytes[0] == 127 || address->bytes[0] == 0
					      : memcmp(address->bytes, zeros, sizeof(zeros)) == 0 && address->bytes[15] <= 1;

	return !multicast && !link_local && !own;
}

bool notify_address_check(const struct policy *policy, const struct address *address, char *why, size_t why_size)
{
	char text[ADDRESS_TEXT_MAX];

	address_format(address, text);
	if (!is_reachable(address)) {
		snprintf(why, why_size, "%s is not the address of another host; write the server's own", text);
		return false;
	}
	for (size_t i = 0; i < policy->network_count; i++) {
		const struct network *network = &policy->networks[i];
		const struct prefix *subnet = address->family == AF_INET ? &network->subnet4 : &network->subnet6;

		if (!subnet->address.family || !prefix_contains(subnet, address))
			continue;
		snprintf(why, why_size,
			 "%s is inside of [network %s], where an app could take its place; attach the server to the uplink's network", text,
			 network->name);
		return false;
	}
	return true;
}

static const char *explain(struct notify_address *address)
{
	if (address->why[0])
		return address->why;
	snprintf(address->why, sizeof(address->why), "%s %s", address->by_docker ? "Docker's resolver at 127.0.0.11" : "the upstreams",
		 address->silent ? "did not answer for the name" : "know no address of the name");
	if (address->by_docker && !address->silent)
		snprintf(address->why, sizeof(address->why), "Docker knows no container of this name on a network of the gateway");
	return address->why;
}

/* Have all questions ended? */
static void finish(struct notify_address *address)
{
	notify_found found = address->found;

	if (!found || address->waiting > 0)
		return;
	address->found = NULL;
	found(address->context, address->list, address->count, address->count ? NULL : explain(address));
}

static void take(struct notify_address *address, const struct address *one)
{
	char why[WHY_MAX];

	if (!notify_address_check(address->policy, one, why, sizeof(why)))
		memcpy(address->why, why, sizeof(why));
	else if (address->count < NOTIFY_ADDRESSES_MAX)
		address->list[address->count++] = *one;
}

static void on_lookup(void *context, const struct address *list, size_t count)
{
	struct side *side = context;

	side->asking = false;
	side->address->waiting--;
	for (size_t i = 0; i < count; i++)
		take(side->address, &list[i]);
	finish(side->address);
}

static void take_answer(struct notify_address *address, uint16_t type, const struct answer *answer)
{
	size_t size = type == TYPE_A ? 4 : 16;

	for (size_t i = 0; i < answer->answer_count; i++) {
		struct address one;

		if (answer->records[i].type != type || answer->records[i].rdata_length != size)
			continue;
		one = address_from_bytes(type == TYPE_A ? AF_INET : AF_INET6, answer->records[i].rdata);
		take(address, &one);
	}
}

static void on_docker(void *context, enum docker_outcome outcome, const struct answer *answer)
{
	struct container *container = context;
	struct notify_address *address = container->address;
	bool late = container->round != address->round;
	uint16_t type = container->type;

	free(container);
	if (late)
		return;
	address->waiting--;
	if (outcome == DOCKER_ANSWERED)
		take_answer(address, type, answer);
	else
		address->silent = true;
	finish(address);
}

static bool ask_docker(struct notify_address *address, const struct domain *name, uint16_t type)
{
	struct container *container = malloc(sizeof(*container));

	if (!container)
		return false;
	*container = (struct container){.address = address, .type = type, .round = address->round};
	if (docker_ask(address->docker, name, type, NOTIFY_DOCKER_TIMEOUT_MS, on_docker, container))
		return true;
	free(container);
	return false;
}

static bool ask_upstream(struct side *side, const struct domain *name, uint16_t type)
{
	side->asking = resolver_lookup(side->address->resolver, name, type, on_lookup, side) == 0;
	return side->asking;
}

static void ask(struct notify_address *address, const struct domain *name)
{
	address->by_docker = policy_name_is_local(name);
	address->waiting = 1; /* the other question may end while this one is being asked */
	for (size_t i = 0; i < 2; i++) {
		address->waiting++;
		if (address->by_docker ? ask_docker(address, name, types[i]) : ask_upstream(&address->sides[i], name, types[i]))
			continue;
		address->waiting--;
		address->silent = true;
	}
	address->waiting--;
}

void notify_address_find(struct notify_address *address, const struct policy *policy, const char *host, notify_found found, void *context)
{
	struct address literal;
	struct domain name;

	address->policy = policy;
	address->found = found;
	address->context = context;
	address->round++;
	address->waiting = 0;
	address->count = 0;
	address->why[0] = '\0';
	address->silent = false;
	if (address_parse(host, &literal))
		take(address, &literal);
	else if (!domain_parse(host, &name))
		ask(address, &name);
	finish(address);
}

void notify_address_cancel(struct notify_address *address)
{
	address->found = NULL;
	address->round++;
	for (size_t i = 0; i < 2; i++) {
		if (address->sides[i].asking)
			resolver_lookup_cancel(address->resolver, &address->sides[i]);
		address->sides[i].asking = false;
	}
}

void notify_address_close(struct notify_address *address)
{
	if (!address)
		return;
	notify_address_cancel(address);
	docker_close(address->docker); /* its questions end now */
	free(address);
}
