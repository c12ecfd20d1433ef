/* SPDX-License-Identifier: MIT */
/*
 * sluice explain --last: what was denied last, in words.
 *
 * Theory of operation: the running gateway tells what it denied last (`log`), and which rule would allow it and what that opens (`advise`).
 * What a reason means is here, in the words of docs/log-format.md. The policy is read only to show the text of the rule that decided:
 * without it the rule's file and line are shown.
 */
#include "gateway/explain.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/reason.h"
#include "gateway/command.h"
#include "gateway/config.h"
#include "gateway/control.h"
#include "gateway/log_view.h"
#include "gateway/report/decision.h"
#include "gateway/report/recent.h"
#include "gateway/terminal.h"

#define ERROR_MAX 512
#define TEXT_MAX  1100 /* octets of an escaped value */

/* Reasons of flows and questions that have a line of their own. */
static const struct {
	enum reason reason;
	const char *meaning;
} meanings[] = {
	{REASON_NAME_NOT_ALLOWED, "no rule of the network allows this name"},
	{REASON_DENIED_BY_RULE, "a deny rule matches"},
	{REASON_PORT_NOT_ALLOWED, "the name or address is allowed, but not this port or protocol of it"},
	{REASON_ADDRESS_NOT_ALLOWED,
	 "no rule allows this address, and no answer ever showed it: the app uses an address of its own, or asks "
	 "another name server than this gateway (has its service `dns:`?)"},
	{REASON_LEASE_EXPIRED, "the name is still allowed, but the app uses an address of an answer that is too old: it should ask again "
			       "(`grace` and `min_ttl` give it more time)"},
	{REASON_PROTOCOL_NOT_ALLOWED, "this is neither TCP nor UDP, and nothing else passes; ICMP echo (ping) does not either"},
	{REASON_SPECIAL_ADDRESS,
	 "the address is private, link-local or otherwise special, or in the uplink's own subnet, and no rule names it"},
	{REASON_ISOLATED, "the destination is another network, or the gateway itself"},
	{REASON_MALFORMED, "it could not be parsed"},
	{REASON_REBINDING, "an answer pointed an allowed name to a private or otherwise special address (`private =` allows that)"},
	{REASON_LOCAL_NAME, "single-label names, and names under suffixes for local use, never leave the gateway"},
	{REASON_UNSUPPORTED, "the gateway does not serve this type, class or kind of question"},
	{REASON_SNI_MISMATCH,
	 "inside the flow the app asked for another name (`sni`), which the network may not reach on this port (`verify`)"},
	{REASON_NAME_TOO_LONG, "a rule allows the name by a wildcard, which would stand for more than `wildcard_octets` or "
			       "`wildcard_labels` have it"},
	{REASON_TOO_MANY_NAMES, "a rule allows the name by a wildcard, and there were more new names below it in a minute than "
				"`wildcard_names` has it"},
	{REASON_NO_NAME, "the flow named no host, and the network verifies names (`without_name = allow` lets such flows pass)"},
};

static const char *meaning_of(const char *reason)
{
	for (size_t i = 0; reason && i < sizeof(meanings) / sizeof(meanings[0]); i++) {
		if (strcmp(reason, reason_name(meanings[i].reason)) == 0)
			return meanings[i].meaning;
	}
	return NULL;
}

/* The line */

static bool is_event(const json_t *line, const char *event)
{
	const char *value = log_view_value(line, "event");

	return value && strcmp(value, event) == 0;
}

/* The newest of what was denied; when nothing was, the newest of what audit mode let pass. Sums have no destination. */
static void choose(json_t **chosen, json_t *line, const struct log_view_filter *filter)
{
	bool better = is_event(line, "denied") || (is_event(line, "audit") && !(*chosen && is_event(*chosen, "denied")));

	if (!better || log_view_value(line, "what") || !log_view_passes(filter, line))
		return;
	json_decref(*chosen);
	*chosen = json_incref(line);
}

/* Return: the line, the caller's; NULL with @error. */
static json_t *find_last(const struct explain_last *what, char error[static ERROR_MAX])
{
	const struct log_view_filter filter = {.denied = true, .audit = true, .network = what->network, .app = what->app};
	json_t *request =
		json_pack("{s:s, s:I, s:b, s:b}", "command", "log", "lines", (json_int_t)RECENT_DENIED_MAX, "denied", 1, "follow", 0);
	struct control_reader *stream = request ? control_reader_open(control_path(), request, error, ERROR_MAX) : NULL;
	json_t *chosen = NULL;
	const char *text;
	size_t size;
	int rc = 0;

	while (stream && (rc = control_reader_next(stream, &text, &size)) > 0) {
		json_t *line = json_loadb(text, size, 0, NULL);

		if (json_is_object(line))
			choose(&chosen, line, &filter);
		json_decref(line);
	}
	if (!request)
		snprintf(error, ERROR_MAX, "out of memory");
	else if (stream && rc != -ENODATA)
		snprintf(error, ERROR_MAX, "the daemon's answer broke off: %s", strerror(-rc));
	else if (stream && !chosen)
		snprintf(error, ERROR_MAX, "the running gateway remembers nothing that was denied%s",
			 what->network || what->app ? " and fits" : "");
	control_reader_close(stream);
	json_decref(request);
	return chosen;
}

/* The rule */

/* Return: the rule with this FILE:LINE that the network of the line has. */
static const struct rule *find_rule(const struct policy *policy, const json_t *line)
{
	const char *network_name = log_view_value(line, "network"), *source = log_view_value(line, "rule");
	const struct network *network = policy && network_name ? policy_network_by_name(policy, network_name) : NULL;

	for (size_t i = 0; source && network && i < network->rule_count; i++) {
		const struct rule *rule = network->rules[i];
		char text[DECISION_RULE_MAX];

		snprintf(text, sizeof(text), "%s:%u", rule->source.file, rule->source.line);
		if (strcmp(text, source) == 0)
			return rule;
	}
	return NULL;
}

/* Advice */

static void copy_value(json_t *request, const char *key, const json_t *line, const char *from)
{
	const json_t *value = json_object_get(line, from);

	json_object_set_new(request, key, value ? json_deep_copy(value) : json_null());
}

/* Return: the daemon's answer, the caller's; NULL with @error. */
static json_t *ask_advice(const json_t *line, char error[static ERROR_MAX])
{
	json_t *request = json_pack("{s:s}", "command", "advise"), *answer;

	copy_value(request, "network", line, "network");
	copy_value(request, "name", line, log_view_value(line, "sni") ? "sni" : log_view_value(line, "qname") ? "qname" : "name");
	copy_value(request, "address", line, "dst");
	copy_value(request, "port", line, "port");
	copy_value(request, "proto", line, "proto");
	copy_value(request, "reason", line, "reason");
	snprintf(error, ERROR_MAX, "out of memory");
	answer = request ? control_call(control_path(), request, error, ERROR_MAX) : NULL;
	json_decref(request);
	return answer;
}

/* Printing */

struct printer {
	struct terminal terminal;
	const json_t *line, *advice;
	const struct rule *rule;
	const char *error; /* why there is no advice */
};

static void put(const struct printer *printer, const char *text, enum terminal_colour colour)
{
	char escaped[TEXT_MAX];

	terminal_put(&printer->terminal, stdout, terminal_escape(&printer->terminal, text, escaped, sizeof(escaped)),
		     (struct terminal_place){.colour = colour});
}

static void put_value(const struct printer *printer, const char *before, const char *text, const char *after)
{
	fputs(before, stdout);
	put(printer, text ? text : "?", TERMINAL_PLAIN);
	fputs(after, stdout);
}

static void print_when(const struct printer *printer)
{
	const char *text = log_view_value(printer->line, "ts");
	struct tm parts = {0};
	char age[TERMINAL_NUMBER_MAX];

	if (!text || !strptime(text, "%Y-%m-%dT%H:%M:%S", &parts))
		return;
	put_value(printer, ", ", text, "");
	printf(" (%s ago)", terminal_age(time(NULL) - timegm(&parts), age));
}

static void print_what(const struct printer *printer)
{
	const json_t *line = printer->line;
	const char *app = log_view_value(line, "app"), *address = log_view_value(line, "dst"), *name = log_view_value(line, "name");
	bool denied = is_event(line, "denied");
	char target[LOG_VIEW_TARGET_MAX];

	put(printer, log_view_target(line, target), TERMINAL_BOLD);
	fputs(": ", stdout);
	put(printer, denied ? "denied" : "let pass by audit mode only", denied ? TERMINAL_RED : TERMINAL_YELLOW);
	print_when(printer);
	putchar('\n');
	put_value(printer, "from: network ", log_view_value(line, "network"), ", ");
	if (app)
		put_value(printer, "app ", app, " ");
	put_value(printer, app ? "(" : "", log_view_value(line, "src"), app ? ")\n" : "\n");
	if (!address || !name)
		return;
	put_value(printer, "address: ", address, "");
	if (log_view_value(line, "sni"))
		put_value(printer, ", which the app knows as ", name, "");
	putchar('\n');
}

static void print_why(const struct printer *printer)
{
	const char *reason = log_view_value(printer->line, "reason"), *source = log_view_value(printer->line, "rule");
	const char *meaning = meaning_of(reason);
	const struct rule *rule = printer->rule;

	put_value(printer, "reason: ", reason, "");
	printf("%s%s\n", meaning ? ": " : "", meaning ? meaning : "");
	if (!source || strcmp(source, "default") == 0) {
		printf("rule: none%s\n", source ? ", the default denies" : "");
		return;
	}
	fputs("rule: ", stdout);
	if (rule)
		put_value(printer, rule->action == RULE_ALLOW ? "allow = " : "deny = ", rule->text, " ");
	put_value(printer, rule ? "(" : "", source, rule ? ")\n" : "\n");
}

static void print_advice(const struct printer *printer)
{
	const char *refusal = log_view_value(printer->advice, "error"), *opens = log_view_value(printer->advice, "opens");
	const char *change = log_view_value(printer->advice, "change"), *line = log_view_value(printer->advice, "line");
	const char *note = log_view_value(printer->advice, "note");

	if (!json_is_true(json_object_get(printer->advice, "ok"))) {
		put_value(printer, "to allow it: ", refusal ? refusal : printer->error, "\n");
		return;
	}
	if (line) {
		put_value(printer, "to allow it, write under [", log_view_value(printer->advice, "section"), "]:\n\n    ");
		put(printer, line, TERMINAL_GREEN);
		fputs("\n\n", stdout);
	}
	if (change)
		put_value(printer, line ? "and change what denies it: " : "to allow it, change what denies it: ", change, "\n");
	if (opens)
		put_value(printer, "that opens: ", opens, "\n");
	if (note)
		put_value(printer, "note: ", note, "\n");
}

static bool print_json(const struct printer *printer)
{
	const char *meaning = meaning_of(log_view_value(printer->line, "reason"));
	json_t *root = json_pack("{s:O, s:s?, s:o, s:O?}", "decision", printer->line, "meaning", meaning, "rule",
				 explain_rule(printer->rule), "advice", printer->advice);
	bool good = root && json_dumpf(root, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII) == 0;

	putchar('\n');
	json_decref(root);
	return good;
}

int explain_last(const struct explain_last *what)
{
	char error[ERROR_MAX] = "";
	struct config_messages messages = {0};
	json_t *line = find_last(what, error), *advice = line ? ask_advice(line, error) : NULL;
	struct policy *policy = line ? config_load(what->path, &messages) : NULL;
	struct printer printer = {.line = line, .advice = advice, .error = error, .rule = find_rule(policy, line)};
	bool good = line != NULL;

	terminal_look(&printer.terminal, STDOUT_FILENO);
	if (!line) {
		fprintf(stderr, "sluice explain: %s\n", error);
	} else if (what->json) {
		good = print_json(&printer);
	} else {
		print_what(&printer);
		print_why(&printer);
		print_advice(&printer);
	}
	good &= fflush(stdout) == 0;
	policy_free(policy);
	config_messages_free(&messages);
	json_decref(advice);
	json_decref(line);
	return good ? COMMAND_OK : COMMAND_NO;
}
