/* SPDX-License-Identifier: MIT */
#include "gateway/report/metrics.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "gateway/environment.h"
#include "gateway/report/reports.h"

#define UNKNOWN    "?" /* in place of a network that cannot be told; no network has such a name */
#define LABELS_MAX 160
#define MILLION    1000000

enum kind { GAUGE, COUNTER, INFO };

struct writer {
	FILE *file;
	bool openmetrics;
	const char *name; /* of the family, without _total or _info */
	enum kind kind;
};

static const char *suffix(enum kind kind)
{
	static const char *const suffixes[] = {[GAUGE] = "", [COUNTER] = "_total", [INFO] = "_info"};

	return suffixes[kind];
}

/* Begin a family: its samples follow. The older format takes the samples' name here, and knows no "info". */
static void family(struct writer *writer, const char *name, enum kind kind, const char *help)
{
	static const char *const types[] = {[GAUGE] = "gauge", [COUNTER] = "counter", [INFO] = "info"};
	const char *end = writer->openmetrics ? "" : suffix(kind);
	const char *type = kind == INFO && !writer->openmetrics ? types[GAUGE] : types[kind];

	writer->name = name;
	writer->kind = kind;
	fprintf(writer->file, "# HELP %s%s %s\n# TYPE %s%s %s\n", name, end, help, name, end, type);
}

/* @format: the labels, "network=\"%s\"", or "". Their values are words that need no escapes. */
static void __attribute__((format(printf, 3, 4))) sample(struct writer *writer, uint64_t value, const char *format, ...)
{
	char labels[LABELS_MAX];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(labels, sizeof(labels), format, arguments);
	va_end(arguments);
	fprintf(writer->file, "%s%s%s%s%s %" PRIu64 "\n", writer->name, suffix(writer->kind), labels[0] ? "{" : "", labels,
		labels[0] ? "}" : "", value);
}

static void single(struct writer *writer, const char *name, enum kind kind, const char *help, uint64_t value)
{
	family(writer, name, kind, help);
	sample(writer, value, "%s", "");
}

/* What the statistics say of a network. */
struct totals {
	uint64_t allowed, open;
	struct traffic traffic;
	uint64_t denied[REASON_COUNT], audited[REASON_COUNT];
};

/* Of each network of the policy, and behind those of all that cannot be told. */
struct summing {
	const struct policy *policy;
	struct totals *totals; /* owned */
	size_t last;           /* rows of one network come together */
};

/* Return: where it is counted, NULL: the policy has no such network any more. */
static struct totals *totals_of(struct summing *summing, const char *name)
{
	const struct policy *policy = summing->policy;

	if (name[0] == '\0')
		return &summing->totals[policy->network_count];
	if (summing->last < policy->network_count && strcmp(policy->networks[summing->last].name, name) == 0)
		return &summing->totals[summing->last];
	for (size_t i = 0; i < policy->network_count; i++) {
		if (strcmp(policy->networks[i].name, name) == 0)
			return &summing->totals[summing->last = i];
	}
	return NULL;
}

static void add_row(void *context, const struct stats_row *row)
{
	struct totals *totals = totals_of(context, row->network);

	if (totals == NULL)
		return;
	totals->allowed += row->numbers.allowed;
	totals->open += row->numbers.open;
	totals->traffic.bytes_out += row->numbers.traffic.bytes_out;
	totals->traffic.bytes_in += row->numbers.traffic.bytes_in;
}

static void add_network(void *context, const struct stats_network *network)
{
	struct totals *totals = totals_of(context, network->network);

	if (totals == NULL)
		return;
	memcpy(totals->denied, network->denied, sizeof(totals->denied));
	memcpy(totals->audited, network->audited, sizeof(totals->audited));
}

static void write_flows(struct writer *writer, const struct policy *policy, const struct totals *totals)
{
	family(writer, "sluice_flows_allowed", COUNTER, "Flows that the policy allowed.");
	for (size_t i = 0; i < policy->network_count; i++)
		sample(writer, totals[i].allowed, "network=\"%s\"", policy->networks[i].name);
	family(writer, "sluice_flows_open", GAUGE, "Flows that were open at the last look.");
	for (size_t i = 0; i < policy->network_count; i++)
		sample(writer, totals[i].open, "network=\"%s\"", policy->networks[i].name);
	family(writer, "sluice_bytes", COUNTER, "Octets of IP packets of flows that passed; out: from the app.");
	for (size_t i = 0; i < policy->network_count; i++) {
		sample(writer, totals[i].traffic.bytes_out, "network=\"%s\",direction=\"out\"", policy->networks[i].name);
		sample(writer, totals[i].traffic.bytes_in, "network=\"%s\",direction=\"in\"", policy->networks[i].name);
	}
}

static void write_reasons(struct writer *writer, const char *network, const uint64_t counts[static REASON_COUNT])
{
	for (enum reason reason = REASON_NONE + 1; reason < REASON_COUNT; reason++)
		sample(writer, counts[reason], "network=\"%s\",reason=\"%s\"", network, reason_name(reason));
}

static void write_denials(struct writer *writer, const struct policy *policy, const struct totals *totals)
{
	family(writer, "sluice_denied", COUNTER, "Flows, packets and questions that were refused.");
	for (size_t i = 0; i < policy->network_count; i++)
		write_reasons(writer, policy->networks[i].name, totals[i].denied);
	write_reasons(writer, UNKNOWN, totals[policy->network_count].denied);
	family(writer, "sluice_audited", COUNTER, "Flows and questions that audit mode let through, by the reason to refuse them.");
	for (size_t i = 0; i < policy->network_count; i++)
		write_reasons(writer, policy->networks[i].name, totals[i].audited);
}

static void write_stats(struct writer *writer, const struct gateway *gateway)
{
	const struct stats *stats = reports_stats(gateway->reports);
	struct summing summing = {.policy = gateway->policy};

	summing.totals = calloc(gateway->policy->network_count + 1, sizeof(*summing.totals));
	if (summing.totals == NULL)
		return;
	stats_each(stats, add_row, &summing);
	stats_each_network(stats, add_network, &summing);
	write_flows(writer, gateway->policy, summing.totals);
	write_denials(writer, gateway->policy, summing.totals);
	free(summing.totals);
}

static void write_questions(struct writer *writer, const struct resolver_counters *counters)
{
	uint64_t named = counters->overloaded + counters->unanswered + counters->ungranted + counters->unmapped + counters->limited;

	single(writer, "sluice_dns_questions", COUNTER, "DNS messages that came in.", counters->questions);
	single(writer, "sluice_dns_denied", COUNTER, "Questions that were denied, or let through by audit mode alone.", counters->denied);
	single(writer, "sluice_dns_cached", COUNTER, "Look-ups answered from the cache.", counters->cached);
	single(writer, "sluice_dns_stale", COUNTER, "Look-ups answered past the TTL, because no upstream server had an answer.",
	       counters->stale);
	single(writer, "sluice_dns_forwarded", COUNTER, "Look-ups at an upstream server.", counters->forwarded);
	single(writer, "sluice_dns_joined", COUNTER, "Questions that waited for a look-up which was under way.", counters->joined);
	family(writer, "sluice_dns_failed", COUNTER, "Questions that were answered SERVFAIL.");
	sample(writer, counters->overloaded, "cause=\"overloaded\"");
	sample(writer, counters->unanswered, "cause=\"unanswered\"");
	sample(writer, counters->ungranted, "cause=\"ungranted\"");
	sample(writer, counters->unmapped, "cause=\"unmapped\"");
	sample(writer, counters->limited, "cause=\"limited\"");
	sample(writer, counters->failed > named ? counters->failed - named : 0, "cause=\"other\"");
	single(writer, "sluice_dns_dropped", COUNTER, "Questions without a reply: too long, or the app was gone or too slow.",
	       counters->dropped);
	single(writer, "sluice_dns_crowded", COUNTER,
	       "Questions without a reply: more came than could be served, and their source had sent more than others.", counters->crowded);
	single(writer, "sluice_dns_invalid", COUNTER, "DNS messages without a reply: they were no questions.", counters->invalid);
	single(writer, "sluice_dns_badvers", COUNTER, "Questions of an EDNS version that is not known.", counters->badvers);
	single(writer, "sluice_dns_ignored", COUNTER, "Upstream datagrams that answered nothing: late, broken or forged.",
	       counters->ignored);
	single(writer, "sluice_unmapped", COUNTER, "Questions answered SERVFAIL: no virtual address was free.", counters->unmapped);
}

/* A number under /proc/sys; nothing when it cannot be read. */
static void write_sysctl(struct writer *writer, const char *name, const char *sysctl, const char *help)
{
	char value[ENVIRONMENT_VALUE_MAX];

	if (environment_read(sysctl, value, sizeof(value)) == 0)
		single(writer, name, GAUGE, help, strtoull(value, NULL, 10));
}

static void write_policy(struct writer *writer, const struct gateway *gateway)
{
	const struct policy *policy = gateway->policy;

	single(writer, "sluice_networks", GAUGE, "Networks of the running policy.", policy->network_count);
	family(writer, "sluice_network_auditing", GAUGE,
	       "1: the network is in audit mode, and nothing is refused that no deny rule names.");
	for (size_t i = 0; i < policy->network_count; i++)
		sample(writer, policy_is_auditing(&policy->networks[i], time(NULL)), "network=\"%s\"", policy->networks[i].name);
	single(writer, "sluice_policy_loaded_timestamp_seconds", GAUGE, "When the running policy was taken over.",
	       (uint64_t)gateway->policy_loaded_at);
	single(writer, "sluice_policy_last_reload_successful", GAUGE, "0: the last reload was refused; the policy of before stayed.",
	       !gateway->reload_failed);
	single(writer, "sluice_policy_reload_failures", COUNTER, "Reloads that were refused; the policy of before stayed.",
	       gateway->reload_failures);
}

static void write_tables(struct writer *writer, const struct gateway *gateway)
{
	single(writer, "sluice_leases", GAUGE, "Leases that are remembered, ended ones included.", lease_table_count(gateway->leases));
	single(writer, "sluice_mappings", GAUGE, "Virtual addresses that stand for a name.", mapping_table_count(gateway->virtuals.table));
	single(writer, "sluice_queue_dropped", COUNTER, "Packets that the kernel dropped because the queue was full.",
	       gateway->queue_dropped);
	write_sysctl(writer, "sluice_conntrack_entries", "net.netfilter.nf_conntrack_count", "Flows in the kernel's table.");
	write_sysctl(writer, "sluice_conntrack_limit", "net.netfilter.nf_conntrack_max", "Flows that the kernel's table has room for.");
}

/* Octets that are in memory; 0: not known. */
static uint64_t resident(void)
{
	FILE *file = fopen("/proc/self/statm", "re");
	char line[128] = "", *pages;

	if (file == NULL)
		return 0;
	pages = fgets(line, sizeof(line), file) != NULL ? strchr(line, ' ') : NULL;
	fclose(file);
	return pages != NULL ? strtoull(pages, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static uint64_t open_files(void)
{
	DIR *directory = opendir("/proc/self/fd");
	uint64_t count = 0;

	if (directory == NULL)
		return 0;
	for (const struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory))
		count += entry->d_name[0] != '.';
	closedir(directory);
	return count - 1; /* the directory itself */
}

static void write_process(struct writer *writer, const struct gateway *gateway)
{
	struct rusage usage = {0};
	uint64_t micros;

	getrusage(RUSAGE_SELF, &usage);
	micros = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * MILLION +
		 (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
	family(writer, "process_cpu_seconds", COUNTER, "Time on a processor.");
	fprintf(writer->file, "process_cpu_seconds_total %" PRIu64 ".%06" PRIu64 "\n", micros / MILLION, micros % MILLION);
	single(writer, "process_resident_memory_bytes", GAUGE, "Resident memory of the worker.", resident());
	single(writer, "process_open_fds", GAUGE, "Open files of the worker.", open_files());
	single(writer, "process_start_time_seconds", GAUGE, "When the worker started.", (uint64_t)gateway->started_at);
}

static void write_notify(struct writer *writer, const struct notify_counters *counters)
{
	single(writer, "sluice_notify_sent", COUNTER, "Notifications that were taken.", counters->sent);
	single(writer, "sluice_notify_failed", COUNTER, "Tries to send a notification that failed.", counters->failed);
	single(writer, "sluice_notify_denials", COUNTER, "First denials, told or to be told by notifications.", counters->denials);
	single(writer, "sluice_notify_suppressed", COUNTER, "First denials that a notification told as a number only.",
	       counters->suppressed);
	single(writer, "sluice_notify_dropped", COUNTER, "First denials whose notification could not be sent.", counters->dropped);
}

static void write_all(struct writer *writer, const struct gateway *gateway)
{
	family(writer, "sluice_build", INFO, "The program.");
	sample(writer, 1, "version=\"%s\"", SLUICE_VERSION);
	single(writer, "sluice_healthy", GAUGE, "1: the gateway does its work; /healthz says why not.", gateway_trouble(gateway) == NULL);
	single(writer, "sluice_worker_restarts", COUNTER, "Workers that died and were replaced.", gateway->start.restarts);
	single(writer, "sluice_log_lost", COUNTER, "Lines of the log that nobody took in time.", log_lost(gateway->log));
	write_policy(writer, gateway);
	write_stats(writer, gateway);
	write_questions(writer, resolver_counters(gateway->resolver));
	write_tables(writer, gateway);
	write_notify(writer, notify_counters(gateway->notify));
	write_process(writer, gateway);
	if (writer->openmetrics)
		fputs("# EOF\n", writer->file);
}

char *metrics_text(void *context, bool openmetrics)
{
	struct writer writer = {.openmetrics = openmetrics};
	char *text = NULL;
	size_t size;
	bool bad;

	writer.file = open_memstream(&text, &size);
	if (writer.file == NULL)
		return NULL;
	write_all(&writer, context);
	bad = ferror(writer.file);
	if (fclose(writer.file) == 0 && !bad)
		return text;
	free(text);
	return NULL;
}
