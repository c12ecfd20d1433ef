/* SPDX-License-Identifier: MIT */
/*
 * Where published containers are.
 *
 * Theory of operation: a target is a name of one network; it has a side for each family, with the address that was found last. A poll asks
 * for each side whose question is not under way. Whatever Docker answers decides: it knows its containers itself, so an answer without an
 * address in the subnet, of any kind, means that the container is not there, and closes. Silence says nothing, and the address stays. Of
 * several addresses the one that is in use stays, else the lowest is taken, since Docker changes their order.
 *
 * A change is told a moment later, together with others that come meanwhile. The addresses are kept for the next worker: ports stay open
 * while it starts.
 */
#include "gateway/targets.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "gateway/docker.h"
#include "gateway/memory.h"

#define TEXT_MAX (2 * ADDRESS_TEXT_MAX + 8)

static const uint16_t types[] = {TYPE_A, TYPE_AAAA};

struct side {
	struct target *target;
	uint16_t type;        /* of the question */
	struct prefix subnet; /* family 0: the network lacks it */
	struct address found; /* family 0: none */
	bool asking;          /* a question is under way */
};

/* What the log has been told about a target. */
enum told { TOLD_NOTHING, TOLD_FOUND, TOLD_MISSING, TOLD_SILENT };

struct target {
	struct target *prev, *next;
	struct targets *targets;
	char network[POLICY_NAME_MAX + 1];
	struct domain domain;
	struct side sides[2];
	unsigned int misses; /* answers without an address, while neither side has one */
	enum told told;
	bool changed; /* since it was told */
	bool wanted;  /* the policy names it; else it goes when no question is under way */
};

/* A target on its way to the next worker. */
struct kept {
	char network[POLICY_NAME_MAX + 1];
	struct domain domain;
	struct address found[2];
};

struct targets {
	uv_loop_t *loop;
	struct log *log;
	struct docker *docker; /* owned */
	const struct policy *policy;
	struct target *list; /* owned */
	struct targets_options options;
	targets_changed changed;
	void *context;
	int memory;
	uv_timer_t poll, settle;
	unsigned int handles; /* that are open */
	bool closing;
};

static struct target *find(const struct targets *targets, const char *network, const struct domain *domain)
{
	struct target *target;

	DL_FOREACH (targets->list, target) {
		if (strcmp(target->network, network) == 0 && domain_equal(&target->domain, domain))
			return target;
	}
	return NULL;
}

static struct target *add(struct targets *targets, const char *network, const struct domain *domain)
{
	struct target *target = calloc(1, sizeof(*target));

	if (!target)
		return NULL;
	target->targets = targets;
	target->domain = *domain;
	snprintf(target->network, sizeof(target->network), "%s", network);
	for (size_t f = 0; f < 2; f++) {
		target->sides[f].target = target;
		target->sides[f].type = types[f];
	}
	DL_APPEND(targets->list, target);
	return target;
}

static void forget(struct targets *targets, struct target *target)
{
	DL_DELETE(targets->list, target);
	free(target);
}

static bool is_asking(const struct target *target)
{
	return target->sides[0].asking || target->sides[1].asking;
}

static bool is_found(const struct target *target)
{
	return target->sides[0].found.family || target->sides[1].found.family;
}

/* Could a container of the network have this address? */
static bool is_inside(const struct policy *policy, const struct prefix *subnet, const struct address *address)
{
	return prefix_contains(subnet, address) && !policy_own(policy, address);
}

/* What the next worker begins with. */
static void restore(struct targets *targets)
{
	void *bytes = NULL;
	size_t size = 0;
	struct kept record;

	if (targets->memory < 0 || memory_get(targets->memory, &bytes, &size) != 0)
		return;
	for (size_t at = 0; at + sizeof(record) <= size; at += sizeof(record)) {
		struct target *target;

		memcpy(&record, (const uint8_t *)bytes + at, sizeof(record));
		record.network[POLICY_NAME_MAX] = '\0';
		target = add(targets, record.network, &record.domain);
		for (size_t f = 0; target && f < 2; f++)
			target->sides[f].found = record.found[f];
		if (target)
			target->told = TOLD_FOUND;
	}
	free(bytes);
}

/* Without it ports are closed while a new worker asks: no reason to do more than to say so. */
static void save(struct targets *targets)
{
	struct kept *records = calloc(POLICY_PUBLISH_MAX, sizeof(*records));
	struct target *target;
	size_t count = 0;
	int rc = -ENOMEM;

	DL_FOREACH (targets->list, target) {
		if (!records || !target->wanted || count == POLICY_PUBLISH_MAX)
			continue;
		memcpy(records[count].network, target->network, sizeof(target->network));
		records[count].domain = target->domain;
		for (size_t f = 0; f < 2; f++)
			records[count].found[f] = target->sides[f].found;
		count++;
	}
	if (records)
		rc = targets->memory < 0 ? 0 : memory_put(targets->memory, records, count * sizeof(*records));
	if (rc != 0)
		log_say(targets->log, LOG_WARNING, "the addresses of published containers cannot be kept for a restart: %s", strerror(-rc));
	free(records);
}

/* "10.201.1.5 and fdc9:1::5". Return: @out. */
static const char *format_found(const struct target *target, char out[static TEXT_MAX])
{
	const struct address *ipv4 = &target->sides[0].found, *ipv6 = &target->sides[1].found;
	char text[2][ADDRESS_TEXT_MAX];

	snprintf(out, TEXT_MAX, "%s%s%s", ipv4->family ? address_format(ipv4, text[0]) : "", ipv4->family && ipv6->family ? " and " : "",
		 ipv6->family ? address_format(ipv6, text[1]) : "");
	return out;
}

static void say_found(struct target *target)
{
	char name[DOMAIN_TEXT_MAX], text[TEXT_MAX];

	domain_format(&target->domain, name);
	if (is_found(target))
		log_say(target->targets->log, LOG_INFO, "network %s: the published container %s is at %s", target->network, name,
			format_found(target, text));
	else
		log_say(target->targets->log, LOG_WARNING,
			"network %s: the published container %s is gone; its ports are closed until it is back", target->network, name);
	target->told = is_found(target) ? TOLD_FOUND : TOLD_MISSING;
}

static void on_settle(uv_timer_t *timer)
{
	struct targets *targets = timer->data;
	struct target *target;

	if (targets->closing)
		return;
	save(targets);
	targets->changed(targets->context);
	/* What the log says is in force. */
	DL_FOREACH (targets->list, target) {
		if (target->changed && target->wanted)
			say_found(target);
		target->changed = false;
	}
}

static const char *subnets_text(const struct target *target, char out[static TEXT_MAX])
{
	const struct prefix *ipv4 = &target->sides[0].subnet, *ipv6 = &target->sides[1].subnet;
	char text[2][ADDRESS_TEXT_MAX];

	snprintf(out, TEXT_MAX, "%s%s%s", ipv4->address.family ? prefix_format(ipv4, text[0]) : "",
		 ipv4->address.family && ipv6->address.family ? " or " : "", ipv6->address.family ? prefix_format(ipv6, text[1]) : "");
	return out;
}

/* Not at once: when everything starts, containers come after the gateway. */
static void say_missing(struct target *target)
{
	char name[DOMAIN_TEXT_MAX], text[TEXT_MAX];

	if (target->told == TOLD_MISSING || target->misses < TARGETS_MISSING)
		return;
	log_say(target->targets->log, LOG_WARNING,
		"network %s: nothing is published for %s: Docker knows no container of this name with an address in %s; start it, attach "
		"it "
		"to this network, or correct the name in the policy",
		target->network, domain_format(&target->domain, name), subnets_text(target, text));
	target->told = TOLD_MISSING;
}

static void say_silent(struct target *target)
{
	char name[DOMAIN_TEXT_MAX], text[TEXT_MAX];

	if (target->told == TOLD_SILENT)
		return;
	domain_format(&target->domain, name);
	if (is_found(target))
		log_say(target->targets->log, LOG_WARNING,
			"network %s: Docker's resolver at 127.0.0.11 does not answer for the published container %s: taken to be at %s "
			"still",
			target->network, name, format_found(target, text));
	else
		log_say(target->targets->log, LOG_WARNING,
			"network %s: Docker's resolver at 127.0.0.11 does not answer for the published container %s: its ports are closed; "
			"is the gateway on a network that Compose made? An address can be published instead of a name",
			target->network, name);
	target->told = TOLD_SILENT;
}

/* Return: the address to use, family 0: none. */
static struct address choose(const struct side *side, const struct answer *answer)
{
	const struct policy *policy = side->target->targets->policy;
	size_t size = side->type == TYPE_A ? 4 : 16;
	struct address best = {0};

	for (size_t i = 0; i < answer->answer_count; i++) {
		struct address address;

		if (answer->records[i].type != side->type || answer->records[i].rdata_length != size)
			continue;
		address = address_from_bytes(side->type == TYPE_A ? AF_INET : AF_INET6, answer->records[i].rdata);
		if (!is_inside(policy, &side->subnet, &address))
			continue;
		if (address_equal(&address, &side->found))
			return address;
		if (!best.family || address_compare(&address, &best) < 0)
			best = address;
	}
	return best;
}

static void take_answer(struct side *side, const struct answer *answer)
{
	struct target *target = side->target;
	struct address found = answer->rcode == RCODE_NOERROR ? choose(side, answer) : (struct address){0};

	if (!address_equal(&found, &side->found)) {
		side->found = found;
		target->changed = true;
		uv_timer_start(&target->targets->settle, on_settle, TARGETS_SETTLE_MS, 0);
	} else if (is_found(target) && target->told == TOLD_SILENT) {
		say_found(target);
	}
	if (is_found(target)) {
		target->misses = 0;
	} else {
		target->misses++;
		say_missing(target);
	}
}

static void on_answer(void *context, enum docker_outcome outcome, const struct answer *answer)
{
	struct side *side = context;
	struct target *target = side->target;

	side->asking = false;
	if (!target->wanted || target->targets->closing) {
		if (!is_asking(target))
			forget(target->targets, target);
		return;
	}
	switch (outcome) {
	case DOCKER_ANSWERED: take_answer(side, answer); break;
	case DOCKER_SILENT:
	case DOCKER_FAILED: say_silent(target); break;
	}
}

static void ask(struct side *side)
{
	struct targets *targets = side->target->targets;

	if (side->asking || !side->subnet.address.family)
		return;
	side->asking = true;
	if (docker_ask(targets->docker, &side->target->domain, side->type, targets->options.timeout_ms, on_answer, side))
		return;
	side->asking = false;
	say_silent(side->target);
}

static void ask_all(struct targets *targets)
{
	struct target *target;

	/* A refusal ends other questions at once, and with them targets that are not wanted any more: never this one. */
	DL_FOREACH (targets->list, target) {
		if (!target->wanted)
			continue;
		ask(&target->sides[0]);
		ask(&target->sides[1]);
	}
}

static void on_poll(uv_timer_t *timer)
{
	struct targets *targets = timer->data;

	if (!targets->closing)
		ask_all(targets);
}

static void open_timer(struct targets *targets, uv_timer_t *timer)
{
	uv_timer_init(targets->loop, timer);
	timer->data = targets;
	targets->handles++;
}

struct targets *targets_new(uv_loop_t *loop, struct log *log, int memory, const struct targets_options *options, targets_changed changed,
			    void *context)
{
	struct targets *targets = calloc(1, sizeof(*targets));

	if (!targets)
		return NULL;
	*targets =
		(struct targets){.loop = loop, .log = log, .memory = memory, .options = *options, .changed = changed, .context = context};
	if (!targets->options.poll_ms)
		targets->options.poll_ms = TARGETS_POLL_MS;
	if (!targets->options.timeout_ms)
		targets->options.timeout_ms = TARGETS_TIMEOUT_MS;
	targets->docker = docker_new(loop, options->port ? options->port : DOCKER_PORT);
	if (!targets->docker) {
		free(targets);
		return NULL;
	}
	open_timer(targets, &targets->poll);
	open_timer(targets, &targets->settle);
	restore(targets);
	return targets;
}

static int add_opening(struct openings *out, const struct network *network, const struct publish *publish, const struct address *target)
{
	struct opening opening = {.network = network->id,
				  .ports = publish->ports,
				  .target = *target,
				  .target_port = publish->target_port,
				  .publish = publish};
	int rc = 0;

	opening.protocol = IPPROTO_TCP;
	if (publish->tcp)
		rc = openings_add(out, &opening);
	opening.protocol = IPPROTO_UDP;
	if (rc == 0 && publish->udp)
		rc = openings_add(out, &opening);
	return rc;
}

/* What was found may be from before a reload that changed the subnet. */
static int add_found(const struct targets *targets, struct openings *out, const struct policy *policy, const struct network *network,
		     const struct publish *publish)
{
	const struct target *target = find(targets, network->name, &publish->domain);
	int rc = 0;

	for (size_t f = 0; target && f < 2 && rc == 0; f++) {
		const struct address *found = &target->sides[f].found;

		if (is_inside(policy, f == 0 ? &network->subnet4 : &network->subnet6, found))
			rc = add_opening(out, network, publish, found);
	}
	return rc;
}

int targets_openings(const struct targets *targets, const struct policy *policy, const struct interfaces *interfaces, struct openings *out)
{
	int rc = 0;

	*out = (struct openings){0};
	for (size_t i = 0; i < policy->network_count; i++) {
		const struct network *network = &policy->networks[i];

		if (!interfaces_of_network(interfaces, network->id))
			continue;
		for (size_t j = 0; j < network->publish_count && rc == 0; j++) {
			const struct publish *publish = &network->publishes[j];

			rc = publish->name ? add_found(targets, out, policy, network, publish)
					   : add_opening(out, network, publish, &publish->target);
		}
	}
	if (rc != 0)
		openings_free(out);
	return rc;
}

/* Return: false when out of memory. */
static bool want(struct targets *targets, const struct network *network, const struct publish *publish)
{
	struct target *target = find(targets, network->name, &publish->domain);

	if (!target)
		target = add(targets, network->name, &publish->domain);
	if (!target)
		return false;
	target->wanted = true;
	target->sides[0].subnet = network->subnet4;
	target->sides[1].subnet = network->subnet6;
	for (size_t f = 0; f < 2; f++) {
		struct side *side = &target->sides[f];

		if (side->found.family && !prefix_contains(&side->subnet, &side->found))
			side->found = (struct address){0};
	}
	return true;
}

int targets_set_policy(struct targets *targets, const struct policy *policy)
{
	struct target *target, *next;
	bool all = true;

	targets->policy = policy;
	DL_FOREACH (targets->list, target)
		target->wanted = false;
	for (size_t i = 0; i < policy->network_count; i++) {
		const struct network *network = &policy->networks[i];

		for (size_t j = 0; j < network->publish_count; j++) {
			if (network->publishes[j].name)
				all = want(targets, network, &network->publishes[j]) && all;
		}
	}
	DL_FOREACH_SAFE (targets->list, target, next) {
		if (!target->wanted && !is_asking(target))
			forget(targets, target);
	}
	save(targets);
	if (targets->list)
		uv_timer_start(&targets->poll, on_poll, targets->options.poll_ms, targets->options.poll_ms);
	else
		uv_timer_stop(&targets->poll);
	ask_all(targets);
	return all ? 0 : -ENOMEM;
}

static void on_closed(uv_handle_t *handle)
{
	struct targets *targets = handle->data;

	if (--targets->handles == 0)
		free(targets);
}

void targets_close(struct targets *targets)
{
	struct target *target, *next;

	if (!targets || targets->closing)
		return;
	targets->closing = true;
	docker_close(targets->docker);
	DL_FOREACH_SAFE (targets->list, target, next)
		forget(targets, target);
	uv_close((uv_handle_t *)&targets->poll, on_closed);
	uv_close((uv_handle_t *)&targets->settle, on_closed);
}
