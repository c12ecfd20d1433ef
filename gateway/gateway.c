/* SPDX-License-Identifier: MIT */
/*
 * The worker from start to stop.
 *
 * Start order (design: nothing opens before the table is closed): table, leases, queue, listeners, addresses; then it is healthy. On
 * stop the table stays: leased addresses remain reachable while their leases last, everything else is dropped, since nobody reads
 * the queue.
 */
#include "gateway/gateway.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "gateway/confine.h"
#include "gateway/descriptors.h"
#include "gateway/form.h"
#include "gateway/memory.h"
#include "gateway/report/advice.h"
#include "gateway/report/follow.h"
#include "gateway/report/metrics.h"
#include "gateway/report/stats_file.h"
#include "gateway/report/suggest.h"

uint64_t gateway_now(const struct gateway *gateway)
{
	return uv_now(&gateway->loop);
}

static void say_messages(struct gateway *gateway, const struct config_messages *messages)
{
	for (size_t i = 0; i < messages->count; i++)
		log_say(gateway->log, messages->list[i].severity == CONFIG_ERROR ? LOG_ERROR : LOG_WARNING, "%s", messages->list[i].text);
}

static void remind_of_audit(struct gateway *gateway)
{
	for (size_t i = 0; i < gateway->policy->network_count; i++) {
		const struct network *network = &gateway->policy->networks[i];

		if (policy_is_auditing(network, time(NULL)))
			log_say(gateway->log, LOG_WARNING,
				"network %s is in audit mode: flows that no rule allows pass, and DNS exfiltration is open", network->name);
	}
}

/* Return: 0 or -errno; all that is to be said has been logged. */
static int reload(struct gateway *gateway, struct config_messages *messages, char *error, size_t error_size)
{
	int rc;

	watch_seen(gateway->watch);
	rc = apply_text(gateway, messages, error, error_size);
	say_messages(gateway, messages);
	gateway->reload_failed = rc != 0;
	if (rc != 0) {
		gateway->reload_failures++;
		log_say(gateway->log, LOG_ERROR, "reload refused: %s; the running policy stays", error);
		return rc;
	}
	log_say(gateway->log, LOG_INFO, "reloaded: %zu networks", gateway->policy->network_count);
	remind_of_audit(gateway);
	return 0;
}

static void reload_quietly(void *context)
{
	struct config_messages messages = {0};
	char error[GATEWAY_ERROR_MAX];

	(void)reload(context, &messages, error, sizeof(error));
	config_messages_free(&messages);
}

/* "192.0.2.53:53 192.0.2.54:53": of the first group that takes them from resolv.conf. */
static const char *format_automatic(const struct policy *policy, char out[static POLICY_SERVERS_MAX * POLICY_SERVER_MAX])
{
	char server[POLICY_SERVER_MAX];
	size_t used = 0;

	out[0] = '\0';
	for (size_t i = 0; i < policy->upstream_count && used == 0; i++) {
		const struct upstream_group *group = &policy->upstreams[i];

		for (size_t j = 0; group->automatic && j < group->server_count; j++)
			used += (size_t)sprintf(out + used, "%s%s", j > 0 ? " " : "", policy_server_format(&group->servers[j], server));
	}
	return out;
}

/* `server = auto` is followed. The policy stays the running one, whatever is on disk by now. */
static void follow_resolv_conf(void *context)
{
	char before[POLICY_SERVERS_MAX * POLICY_SERVER_MAX], after[POLICY_SERVERS_MAX * POLICY_SERVER_MAX];
	struct gateway *gateway = context;
	struct config_messages messages = {0};
	char error[GATEWAY_ERROR_MAX];
	int rc;

	if (!config_is_automatic(gateway->policy))
		return;
	format_automatic(gateway->policy, before);
	rc = apply_last_good(gateway, &messages, error, sizeof(error));
	for (size_t i = 0; i < messages.count; i++) {
		if (messages.list[i].severity == CONFIG_ERROR)
			log_say(gateway->log, LOG_ERROR, "%s", messages.list[i].text);
	}
	config_messages_free(&messages);
	format_automatic(gateway->policy, after);
	if (rc != 0)
		log_say(gateway->log, LOG_ERROR, "resolv.conf has changed, but: %s; the servers of before stay: %s", error, after);
	else if (strcmp(before, after) != 0)
		log_say(gateway->log, LOG_INFO, "resolv.conf has changed: the upstream servers are now %s", after);
}

static json_t *answer_reload(struct gateway *gateway)
{
	struct config_messages messages = {0};
	char error[GATEWAY_ERROR_MAX];
	json_t *list = json_array();
	json_t *answer;

	if (reload(gateway, &messages, error, sizeof(error)) == 0)
		answer = json_pack("{s:b, s:I}", "ok", 1, "networks", (json_int_t)gateway->policy->network_count);
	else
		answer = json_pack("{s:b, s:s}", "ok", 0, "error", error);
	for (size_t i = 0; i < messages.count; i++)
		json_array_append_new(list, json_string(messages.list[i].text));
	json_object_set_new(answer, "messages", list);
	config_messages_free(&messages);
	return answer;
}

const char *gateway_trouble(const struct gateway *gateway)
{
	if (gateway->apply_due)
		return "the kernel does not have the rules of the running policy; the log says why";
	if (gateway->interfaces.uplink == 0)
		return "the uplink is away: nothing can leave";
	return NULL;
}

static json_t *answer_health(const struct gateway *gateway)
{
	const char *trouble = gateway_trouble(gateway);
	json_t *answer =
		json_pack("{s:b, s:s, s:I, s:I, s:I, s:I, s:I}", "ok", trouble == NULL, "version", SLUICE_VERSION, "networks",
			  (json_int_t)gateway->policy->network_count, "leases", (json_int_t)lease_table_count(gateway->leases), "restarts",
			  (json_int_t)gateway->start.restarts, "mappings", (json_int_t)mapping_table_count(gateway->virtuals.table),
			  "unmapped", (json_int_t)resolver_counters(gateway->resolver)->unmapped);

	json_object_set_new(answer, "strangers", denials_strangers(gateway->denials));
	if (trouble != NULL)
		json_object_set_new(answer, "error", json_string(trouble));
	return answer;
}

static json_t *answer_stats(struct gateway *gateway, const json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "network"));

	upkeep_wanted(gateway); /* for whoever asks again */
	return stats_json(reports_stats(gateway->reports), gateway->policy, name, time(NULL));
}

static json_t *answer_command(void *context, const char *command, const json_t *request, struct control_stream *stream)
{
	struct gateway *gateway = context;

	if (strcmp(command, "health") == 0)
		return answer_health(gateway);
	if (strcmp(command, "reload") == 0)
		return answer_reload(gateway);
	if (strcmp(command, "stats") == 0)
		return answer_stats(gateway, request);
	if (strcmp(command, "log") == 0)
		return follow_answer(gateway->reports, request, stream);
	if (strcmp(command, "suggest") == 0)
		return suggest_answer(gateway->policy, reports_stats(gateway->reports), gateway->leases, request);
	if (strcmp(command, "advise") == 0)
		return advice_answer(gateway->policy, gateway->leases, request);
	if (strcmp(command, "mapping") == 0)
		return virtual_answer(gateway, request);
	return NULL;
}

/* Of a struct http_host: what only tells. */
static json_t *answer_page(void *context, const char *command, const json_t *request)
{
	static const char *const commands[] = {"stats", "advise", "suggest"};

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(command, commands[i]) == 0)
			return answer_command(context, command, request, NULL);
	}
	return NULL;
}

static const char *find_trouble(void *context)
{
	return gateway_trouble(context);
}

/* @due: it had failed before, and that was said. */
static void say_applied(struct gateway *gateway, bool due, int rc, const char *error)
{
	if (rc != 0 && !due)
		log_say(gateway->log, LOG_ERROR, "%s; the rules of before stay, and it is tried again every second", error);
	if (rc == 0 && due)
		log_say(gateway->log, LOG_INFO, "the kernel has the rules of the running policy again");
	gateway->apply_due = rc != 0;
	gateway->applied_at = gateway_now(gateway);
}

void gateway_apply_again(struct gateway *gateway)
{
	bool due = gateway->apply_due;
	char error[GATEWAY_ERROR_MAX];
	int rc = apply_again(gateway, error, sizeof(error));

	say_applied(gateway, due, rc, error);
}

/* A published container has another address. */
static void on_targets(void *context)
{
	struct gateway *gateway = context;

	if (gateway->policy != NULL && !gateway->stopping)
		gateway_apply_again(gateway);
}

/* audit_until has come: the rules are made for enforce from now on. */
static void end_audit_in_time(struct gateway *gateway)
{
	time_t wall = time(NULL);

	for (size_t i = 0; i < gateway->policy->network_count; i++) {
		struct network *network = &gateway->policy->networks[i];

		if (network->mode != MODE_AUDIT || policy_is_auditing(network, wall))
			continue;
		network->mode = MODE_ENFORCE;
		log_say(gateway->log, LOG_INFO, "network %s: audit_until has come, the policy is enforced from now on", network->name);
		gateway_apply_again(gateway);
	}
}

static void on_tick(uv_timer_t *timer)
{
	struct gateway *gateway = timer->data;

	repair_tick(gateway);
	end_audit_in_time(gateway);
	if (gateway->apply_due && gateway_now(gateway) - gateway->applied_at >= GATEWAY_RETRY_MS)
		gateway_apply_again(gateway);
	lease_sweep(gateway->leases, gateway_now(gateway));
	traffic_compact(gateway);
	if (room_is_due(&gateway->room, gateway_now(gateway)))
		upkeep_look(gateway);
	log_flush(gateway->log);
}

static void on_read_counters(uv_timer_t *timer)
{
	traffic_count(timer->data);
}

static void on_audit_reminder(uv_timer_t *timer)
{
	remind_of_audit(timer->data);
}

static void on_rescan(uv_timer_t *timer)
{
	struct gateway *gateway = timer->data;
	bool due = gateway->apply_due;
	char error[GATEWAY_ERROR_MAX];
	int rc = apply_if_changed(gateway, error, sizeof(error));

	say_applied(gateway, due, rc, error);
}

static void on_monitor(uv_poll_t *poll, int status, int events)
{
	struct gateway *gateway = poll->data;
	bool changed = interfaces_changed(&gateway->interfaces);

	(void)events;
	/* An overflow of the socket is an error to libuv, which then stops watching. */
	if (status != 0)
		uv_poll_start(poll, UV_READABLE, on_monitor);
	if (status != 0 || changed)
		uv_timer_start(&gateway->rescan, on_rescan, GATEWAY_RESCAN_MS, 0);
}

static void on_signal(uv_signal_t *handle, int number)
{
	struct gateway *gateway = handle->data;

	if (number == SIGHUP) {
		reload_quietly(gateway);
		return;
	}
	gateway->stopping = true;
	uv_stop(&gateway->loop);
}

static int fail(struct gateway *gateway, const char *what, int rc)
{
	log_say(gateway->log, LOG_ERROR, "%s: %s", what, strerror(-rc));
	return rc;
}

/* The uplink that the worker before had. */
static void recall_uplink(struct gateway *gateway)
{
	void *bytes;
	size_t size;

	if (memory_get(gateway->start.memories[MEMORY_UPLINK], &bytes, &size) != 0)
		return;
	if (size == sizeof(gateway->interfaces.choice))
		memcpy(&gateway->interfaces.choice, bytes, size);
	free(bytes);
}

/* On the volume, or else in memory that the supervisor holds. */
static int open_journal(struct gateway *gateway)
{
	const int *memories = &gateway->start.memories[MEMORY_LEASES_0];

	return journal_open(&gateway->journal, gateway->state.directory >= 0 ? gateway->state.files : memories);
}

static void open_state(struct gateway *gateway)
{
	char error[GATEWAY_ERROR_MAX];
	int rc = state_open(&gateway->state, gateway->log, error, sizeof(error));

	if (rc != 0 && gateway->start.restarts == 0)
		log_say(gateway->log, LOG_INFO, "leases are kept in memory, a recreated container will not know them: %s", error);
}

/* Leases and mappings are there. Return: false when out of memory. */
static bool open_reports(struct gateway *gateway)
{
	struct allowed_options options;

	gateway->reports = reports_new(&gateway->loop, gateway->log, gateway->state.directory, gateway->start.memories[MEMORY_STATS]);
	if (gateway->reports == NULL)
		return false;
	gateway->named = named_new(&gateway->loop, gateway->reports, &gateway->interfaces);
	if (gateway->named == NULL)
		return false;
	options = (struct allowed_options){
		.log = gateway->log,
		.reports = gateway->reports,
		.named = gateway->named,
		.interfaces = &gateway->interfaces,
		.leases = gateway->leases,
		.mappings = gateway->virtuals.table,
		.heard = gateway->start.memories[MEMORY_HEARD],
		.logged = gateway->start.memories[MEMORY_LOGGED],
	};
	gateway->allowed = allowed_new(&gateway->loop, &options);
	return gateway->allowed != NULL;
}

static struct http *open_page(struct gateway *gateway)
{
	const struct http_host host = {
		.context = gateway,
		.answer = answer_page,
		.metrics = metrics_text,
		.trouble = find_trouble,
		.reports = gateway->reports,
	};

	return http_new(&gateway->loop, gateway->log, &host);
}

/* Of struct notify_host. */
static int open_for_notify(void *context, const struct address *list, size_t count, uint16_t port, bool open, char *error,
			   size_t error_size)
{
	struct gateway *gateway = context;

	return ruleset_notify(&gateway->ruleset, list, count, port, open, error, error_size);
}

/* The resolver and the reports are there. Return: false when out of memory. */
static bool open_notify(struct gateway *gateway)
{
	const struct notify_host host = {.context = gateway, .open = open_for_notify};

	gateway->notify = notify_new(&gateway->loop, gateway->log, gateway->resolver, gateway->start.memories[MEMORY_NOTIFY], &host);
	reports_set_notify(gateway->reports, gateway->notify);
	return gateway->notify != NULL;
}

/* Return: 0 or -errno, logged. */
static int reserve_descriptors(struct gateway *gateway)
{
	int rc = descriptors_reserve(&gateway->loop);

	return rc == 0 ? 0 : fail(gateway, "descriptors cannot be reserved", rc);
}

/* Return: 0 or -errno, logged. */
static int open_modules(struct gateway *gateway)
{
	static const struct policy nothing = {.upstreams = NULL};
	static const struct targets_options docker = {0};
	static const struct nfqueue_options queue_options = {.copy = NFQUEUE_COPY_BYTES, .held = NFQUEUE_HELD_MAX};
	struct resolver_host host = traffic_host(gateway);
	char error[GATEWAY_ERROR_MAX];
	int rc;

	open_state(gateway);
	rc = interfaces_open(&gateway->interfaces);
	if (rc != 0)
		return fail(gateway, "rtnetlink cannot be opened", rc);
	recall_uplink(gateway);
	gateway->ruleset.uid = geteuid();
	rc = ruleset_open(&gateway->ruleset, gateway->log, error, sizeof(error));
	if (rc != 0) {
		log_say(gateway->log, LOG_ERROR, "%s", error);
		return rc;
	}
	rc = repair_open(gateway);
	if (rc != 0)
		return fail(gateway, "changes of the table by others cannot be watched", rc);
	gateway->leases = lease_table_new();
	gateway->virtuals.table = mapping_table_new();
	gateway->counters = counters_new();
	if (!open_reports(gateway))
		return fail(gateway, "start", UV_ENOMEM);
	gateway->denials = denials_new(&gateway->loop, gateway->log, gateway->named, &gateway->interfaces, gateway->start.restarts > 0);
	gateway->chances = chances_new(gateway);
	gateway->resolver = resolver_new(&gateway->loop, &nothing, &host);
	gateway->targets = targets_new(&gateway->loop, gateway->log, gateway->start.memories[MEMORY_TARGETS], &docker, on_targets, gateway);
	gateway->inbound =
		inbound_new(&gateway->loop, gateway->log, gateway->reports, &gateway->openings, gateway->start.memories[MEMORY_INBOUND]);
	gateway->http = open_page(gateway);
	if (gateway->leases == NULL || gateway->virtuals.table == NULL || gateway->counters == NULL || gateway->denials == NULL ||
	    gateway->resolver == NULL || gateway->chances == NULL || gateway->targets == NULL || gateway->inbound == NULL ||
	    gateway->http == NULL || !open_notify(gateway))
		return fail(gateway, "start", UV_ENOMEM);
	rc = counters_restore(gateway->counters, gateway->start.memories[MEMORY_READINGS]);
	if (rc != 0)
		log_say(gateway->log, LOG_WARNING, "the last readings of the kernel's counters are lost (%s): packets may be told twice",
			strerror(-rc));
	rc = open_journal(gateway);
	if (rc != 0)
		return fail(gateway, "the leases of the worker before cannot be read", rc);
	gateway->grants = (struct grants){.ruleset = &gateway->ruleset, .leases = gateway->leases};
	rc = nfqueue_open(&gateway->loop, RULESET_QUEUE, &queue_options, traffic_decide, gateway, &gateway->queue);
	if (rc == 0)
		rc = verify_new(gateway, &gateway->verify);
	return rc == 0 ? 0 : fail(gateway, "the packet queue cannot be opened", rc);
}

/* The policy on disk, or, after a crash, the last good one. Return: 0 or -errno, logged. */
static int apply_first(struct gateway *gateway)
{
	struct config_messages messages = {0};
	char error[GATEWAY_ERROR_MAX];
	int rc = apply_text(gateway, &messages, error, sizeof(error));

	say_messages(gateway, &messages);
	config_messages_free(&messages);
	if (rc == 0)
		return 0;
	log_say(gateway->log, LOG_ERROR, "%s", error);
	if (gateway->start.restarts == 0)
		return rc;
	rc = apply_last_good(gateway, &messages, error, sizeof(error));
	config_messages_free(&messages);
	if (rc == 0)
		log_say(gateway->log, LOG_WARNING, "the last good policy is running");
	else
		log_say(gateway->log, LOG_ERROR, "%s", error);
	return rc;
}

static void start_timer(struct gateway *gateway, uv_timer_t *timer, uv_timer_cb callback, uint64_t period)
{
	uv_timer_init(&gateway->loop, timer);
	timer->data = gateway;
	if (callback != NULL)
		uv_timer_start(timer, callback, period, period);
}

static void start_signal(struct gateway *gateway, uv_signal_t *handle, int number)
{
	uv_signal_init(&gateway->loop, handle);
	handle->data = gateway;
	uv_signal_start(handle, on_signal, number);
}

/* A policy from the environment cannot change while we run. */
static const char *watched_path(const char *path)
{
	const char *text = getenv(CONFIG_ENVIRONMENT);

	if (path != NULL)
		return path;
	return text != NULL && text[0] != '\0' ? NULL : CONFIG_DEFAULT_PATH;
}

/* Return: 0 or -errno, logged. */
static int open_handles(struct gateway *gateway)
{
	int rc = control_new(&gateway->loop, control_path(), answer_command, gateway, &gateway->control);

	if (rc != 0) {
		log_say(gateway->log, LOG_ERROR, "%s: the control socket cannot be made: %s; with a read-only root, mount a tmpfs there",
			control_path(), strerror(-rc));
		return rc;
	}
	rc = uv_poll_init(&gateway->loop, &gateway->monitor, mnl_socket_get_fd(gateway->interfaces.monitor.socket));
	if (rc != 0)
		return fail(gateway, "interface changes cannot be watched", rc);
	rc = upkeep_open(gateway);
	if (rc != 0)
		return fail(gateway, "flows cannot be looked at", rc);
	rc = virtual_open(gateway);
	if (rc != 0)
		return fail(gateway, "virtual addresses cannot be kept current", rc);
	gateway->running = true;
	gateway->monitor.data = gateway;
	uv_poll_start(&gateway->monitor, UV_READABLE, on_monitor);
	start_timer(gateway, &gateway->tick, on_tick, GATEWAY_TICK_MS);
	start_timer(gateway, &gateway->read_counters, on_read_counters, GATEWAY_COUNTERS_MS);
	start_timer(gateway, &gateway->audit_reminder, on_audit_reminder, GATEWAY_AUDIT_REMINDER_MS);
	start_timer(gateway, &gateway->rescan, NULL, 0);
	start_signal(gateway, &gateway->on_terminate, SIGTERM);
	start_signal(gateway, &gateway->on_interrupt, SIGINT);
	start_signal(gateway, &gateway->on_hangup, SIGHUP);
	rc = watch_new(&gateway->loop, watched_path(gateway->path), reload_quietly, gateway, &gateway->watch);
	return rc == 0 ? watch_new(&gateway->loop, CONFIG_RESOLV_CONF, follow_resolv_conf, gateway, &gateway->resolv) : rc;
}

static void close_handles(struct gateway *gateway)
{
	uv_handle_t *handles[] = {
		(uv_handle_t *)&gateway->monitor,        (uv_handle_t *)&gateway->tick,      (uv_handle_t *)&gateway->read_counters,
		(uv_handle_t *)&gateway->audit_reminder, (uv_handle_t *)&gateway->rescan,    (uv_handle_t *)&gateway->on_terminate,
		(uv_handle_t *)&gateway->on_interrupt,   (uv_handle_t *)&gateway->on_hangup,
	};

	if (!gateway->running)
		return;
	gateway->running = false;
	for (size_t i = 0; i < sizeof(handles) / sizeof(handles[0]); i++)
		uv_close(handles[i], NULL);
}

static void close_modules(struct gateway *gateway)
{
	control_close(gateway->control);
	http_close(gateway->http);
	watch_close(gateway->watch);
	watch_close(gateway->resolv);
	repair_close(gateway);
	upkeep_close(gateway);
	virtual_close(gateway);
	chances_close(gateway->chances);
	if (gateway->queue != NULL)
		nfqueue_close(gateway->queue);
	verify_close(gateway->verify);
	notify_close(gateway->notify);
	if (gateway->resolver != NULL)
		resolver_close(gateway->resolver);
	if (gateway->denials != NULL)
		denials_close(gateway->denials);
	named_close(gateway->named);
	targets_close(gateway->targets);
	inbound_close(gateway->inbound);
	allowed_close(gateway->allowed);
	reports_close(gateway->reports);
	close_handles(gateway);
	uv_run(&gateway->loop, UV_RUN_DEFAULT); /* the close callbacks */
	uv_loop_close(&gateway->loop);
	counters_free(gateway->counters);
	ruleset_close(&gateway->ruleset);
	interfaces_close(&gateway->interfaces);
	grants_free(&gateway->grants);
	lease_table_free(gateway->leases);
	mapping_table_free(gateway->virtuals.table);
	state_close(&gateway->state);
	openings_free(&gateway->openings);
	policy_free(gateway->policy);
	log_flush(gateway->log);
	log_free(gateway->log);
}

static void say_started(struct gateway *gateway)
{
	int status = gateway->start.status;

	if (gateway->start.restarts > 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
		log_say(gateway->log, LOG_ERROR,
			"the worker was killed for a system call that nothing in it makes: it had been taken over; it was started again "
			"(restart %u)",
			gateway->start.restarts);
	else if (gateway->start.restarts > 0 && WIFSIGNALED(status))
		log_say(gateway->log, LOG_ERROR, "the worker died of signal %d and was started again (restart %u)", WTERMSIG(status),
			gateway->start.restarts);
	else if (gateway->start.restarts > 0)
		log_say(gateway->log, LOG_ERROR, "the worker ended with status %d and was started again (restart %u)", WEXITSTATUS(status),
			gateway->start.restarts);
	log_say(gateway->log, LOG_INFO, "sluice %s starts", SLUICE_VERSION);
}

static void say_ready(struct gateway *gateway)
{
	for (size_t i = 0; i < gateway->policy->network_count; i++) {
		const struct network *network = &gateway->policy->networks[i];
		const struct interface *interface = interfaces_of_network(&gateway->interfaces, network->id);

		log_say(gateway->log, LOG_INFO, "network %s: interface %s, %zu rules, mode %s", network->name,
			interface != NULL ? interface->name : "not there yet", network->rule_count,
			policy_is_auditing(network, time(NULL)) ? "audit" : "enforce");
	}
	form_log(&gateway->interfaces, gateway->policy, gateway->log);
	log_say(gateway->log, LOG_INFO, "ready: %zu networks, uplink %s", gateway->policy->network_count, gateway->interfaces.choice.name);
	remind_of_audit(gateway);
}

int gateway_run(const char *path, const struct supervisor_worker_start *start)
{
	struct gateway *gateway = calloc(1, sizeof(*gateway));
	int rc;

	signal(SIGPIPE, SIG_IGN);
	if (gateway == NULL || uv_loop_init(&gateway->loop) != 0 || (gateway->log = log_new(STDOUT_FILENO, LOG_TEXT)) == NULL) {
		fprintf(stderr, "sluice: out of memory\n");
		free(gateway);
		return EXIT_FAILURE;
	}
	gateway->state.directory = -1; /* not open */
	rc = confine_worker_start(gateway);
	gateway->path = path;
	gateway->start = *start;
	gateway->started_at = time(NULL);
	say_started(gateway);
	if (rc == 0)
		rc = reserve_descriptors(gateway);
	if (rc == 0)
		rc = open_modules(gateway);
	if (rc == 0)
		rc = apply_first(gateway);
	if (rc == 0)
		rc = open_handles(gateway);
	if (rc == 0)
		rc = confine_worker_loop(gateway);
	if (rc == 0) {
		say_ready(gateway);
		uv_run(&gateway->loop, UV_RUN_DEFAULT);
		traffic_count(gateway);
		log_say(gateway->log, LOG_INFO, "stopping; the table stays closed");
	}
	close_modules(gateway);
	free(gateway);
	return rc == 0 ? EXIT_SUCCESS : SUPERVISOR_EXIT_GIVE_UP;
}
