/* SPDX-License-Identifier: MIT */
/*
 * From a question to what is done about it.
 *
 * Theory of operation: query_receive() parses a message and asks judge_question() before anything else. Denied names end there. Allowed
 * ones go to the cache, then to the upstream; while a query waits it holds no pointer into the policy, and afterwards the question is
 * judged again, under the policy of that moment. judge_answer() says what the network may see of the answer, and whether a CNAME leads to
 * a further look-up, which goes the same way. query_reply.c does the rest at the end of the loop turn.
 *
 * Where a look-up fails, an answer from the cache serves although it is past its end (RFC 8767).
 *
 * Queries with the same key wait for the same look-up, whichever network they come from; each is judged for its own. When the policy
 * changes all that wait are judged again at once, so that a look-up for a name which is denied now does not go on.
 */

#include "resolver/query.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

#define POINTER_TTL       60   /* seconds; leases come and go */
#define POINTER_NAMES_MAX 8    /* names in the answer to PTR */
#define ANY_TTL           3600 /* seconds */

static void query_look_up(struct queries *queries, struct query *query, const struct domain *name);

static void report(struct queries *queries, const struct client *client, const struct question *question, struct denied_question denied)
{
	denied.network = client->network;
	denied.client = client->address;
	denied.client_port = client->port;
	denied.protocol = client->protocol;
	denied.name = question->name.length ? &question->name : NULL;
	denied.type = question->type;
	queries->counters->denied++;
	queries->host->denied(queries->host->context, &denied);
}

/* One line for a query, however often it is judged; see enum query_logged. */
static void report_once(struct queries *queries, struct query *query, struct denied_question denied)
{
	enum query_logged logged = denied.audited ? LOGGED_AUDIT : LOGGED_DENIAL;

	if (query->own || query->logged >= logged)
		return;
	query->logged = logged;
	report(queries, &query->client, &query->question, denied);
}

static void report_verdict(struct queries *queries, struct query *query, const struct question_verdict *verdict, const char *action)
{
	const struct denied_question denied = {
		.audited = verdict->name.audited,
		.reason = verdict->reason,
		.rule = verdict->rule,
		.action = action,
	};

	report_once(queries, query, denied);
}

/* A message that is no question we serve. */
static void refuse_message(struct queries *queries, const struct client *client, const struct question *question,
			   enum message_status status, const uint8_t *wire, size_t size)
{
	struct denied_question denied = {.reason = REASON_MALFORMED, .action = "formerr"};
	uint8_t out[512];

	if (status == MESSAGE_NOTIMP) {
		denied.reason = REASON_UNSUPPORTED;
		denied.action = "notimp";
	}
	if (status == MESSAGE_BADVERS)
		queries->counters->badvers++;
	else
		report(queries, client, question, denied);
	(void)listener_reply(client, out, message_build_error(wire, size, status, out));
}

/* RFC 8482 section 4.2: one HINFO record instead of everything. */
static void answer_any(struct queries *queries, struct query *query)
{
	static const uint8_t hinfo[] = "\7RFC8482"; /* the literal's NUL is the empty OS string */
	const struct domain *name = &query->question.name;
	struct answer *answer = answer_new(RCODE_NOERROR, 1, DOMAIN_WIRE_MAX + sizeof(hinfo));

	if (!answer || answer_add(answer, name->wire, name->length, TYPE_HINFO, ANY_TTL, hinfo, sizeof(hinfo)))
		query_reply_code(queries, query, RCODE_SERVFAIL, EDE_NONE);
	else
		(void)query_reply_records(queries, query, answer, -1, EDE_NONE);
	answer_free(answer);
}

static int add_pointers(struct answer *answer, const struct domain *owner, const struct domain *names, size_t count)
{
	int error = 0;

	for (size_t i = 0; i < count && !error; i++)
		error = answer_add(answer, owner->wire, owner->length, TYPE_PTR, POINTER_TTL, names[i].wire, names[i].length);
	return error;
}

/* PTR is answered from the leases of the network that asks. */
static void answer_pointer(struct queries *queries, struct query *query, const struct question_verdict *verdict)
{
	struct domain names[POINTER_NAMES_MAX];
	size_t count = queries->host->names(queries->host->context, query->client.network, &verdict->pointer, names, POINTER_NAMES_MAX);
	struct answer *answer;

	if (!count) {
		report_verdict(queries, query, verdict, "nxdomain");
		query_reply_code(queries, query, RCODE_NXDOMAIN, EDE_BLOCKED);
		return;
	}
	answer = answer_new(RCODE_NOERROR, count, 2 * count * DOMAIN_WIRE_MAX);
	if (!answer || add_pointers(answer, &query->question.name, names, count))
		query_reply_code(queries, query, RCODE_SERVFAIL, EDE_NONE);
	else
		(void)query_reply_records(queries, query, answer, -1, EDE_NONE);
	answer_free(answer);
}

static void chase(struct queries *queries, struct query *query, const struct domain *target)
{
	/* A chain that ends in a name which never leaves the gateway has no answer, and asking for it would give that name away. */
	if (++query->chased > QUERY_CHASE_MAX || policy_name_is_local(target))
		query_reply_code(queries, query, RCODE_SERVFAIL, EDE_NONE);
	else
		query_look_up(queries, query, target);
}

static void report_answer(struct queries *queries, struct query *query, const struct answer_verdict *verdict)
{
	struct denied_question denied = {.reason = verdict->reason, .rule = verdict->rule};

	if (!domain_equal(&verdict->denied_name, &query->question.name))
		denied.by = &verdict->denied_name;
	denied.action = verdict->reply && verdict->reply->rcode == RCODE_NXDOMAIN ? "nxdomain" : "nodata";
	report_once(queries, query, denied);
}

/* What the network may see of an answer becomes the reply. Takes `shown` and `names` over when it is to be granted. */
static void reply_verdict(struct queries *queries, struct query *query, const struct network *network, struct answer_verdict *verdict,
			  bool stale)
{
	if (verdict->denied)
		report_answer(queries, query, verdict);
	if (!verdict->reply) {
		query_reply_code(queries, query, RCODE_SERVFAIL, EDE_NONE);
		return;
	}
	if (network->has_virtual_addresses && verdict->shown_count && query_map(queries, query, network, verdict, stale)) {
		queries->counters->unmapped++;
		query_reply_code(queries, query, RCODE_SERVFAIL, EDE_NONE);
		return;
	}
	if (verdict->reply->rcode == RCODE_SERVFAIL)
		queries->counters->failed++;
	if (stale && verdict->ede == EDE_NONE)
		verdict->ede = EDE_STALE_ANSWER;
	if (!query_reply_records(queries, query, verdict->reply, -1, verdict->ede))
		return;
	query->shown = verdict->shown;
	query->shown_count = verdict->shown_count;
	verdict->shown = NULL;
	query->names = verdict->names;
	query->names_length = verdict->names_length;
	verdict->names = NULL;
}

/* An answer is there, from the cache or an upstream; @age: as judge_answer() takes it. It stays the caller's, and may be gone when this
 * returns. */
static void take_answer(struct queries *queries, struct query *query, const struct answer *answer, uint32_t age)
{
	const struct network *network = policy_network(queries->policy, query->client.network);
	struct answer_verdict verdict;

	if (answer->rcode == RCODE_SERVFAIL)
		queries->counters->unanswered++;
	verdict = judge_answer(queries->policy, network, &query->question, answer, query->chain, age, time(NULL));
	answer_free(query->chain);
	query->chain = verdict.chain;
	if (verdict.chase)
		chase(queries, query, &verdict.target);
	else
		reply_verdict(queries, query, network, &verdict, age == JUDGE_STALE);
	answer_free(verdict.reply);
	free(verdict.shown);
	free(verdict.names);
}

static void take_stale(struct queries *queries, struct query *query, const struct answer *answer)
{
	queries->counters->stale++;
	take_answer(queries, query, answer, JUDGE_STALE);
}

/* No server has answered, or there is none. */
static void reply_unanswered(struct queries *queries, struct query *query, const struct cache_key *key)
{
	const struct answer *stale = cache_get_stale(queries->cache, key, uv_now(queries->loop));

	if (stale) {
		take_stale(queries, query, stale);
		return;
	}
	queries->counters->unanswered++;
	query_reply_code(queries, query, RCODE_SERVFAIL, EDE_NO_REACHABLE_AUTHORITY);
}

/*
 * The wildcard rule that lets no further new name out now, or NULL. What the gateway asks by itself, and where a chain leads, is of no
 * app's choosing; and where audit mode lets every name out, limits would hold nobody back.
 */
static const struct rule *find_exhausted(const struct queries *queries, const struct query *query)
{
	const struct network *network = policy_network(queries->policy, query->client.network);
	const struct rule *rule;
	time_t now;

	if (query->own || query->chased || !network || !network->wildcards.names)
		return NULL;
	now = time(NULL);
	if (policy_is_auditing(network, now))
		return NULL;
	rule = policy_judge_name(network, &query->question.name, now).rule;
	return rule && !new_names_may_ask(queries->new_names, network, rule, &query->question, uv_now(queries->loop)) ? rule : NULL;
}

/* The name may be asked for again in a minute, so SERVFAIL: NXDOMAIN would be taken for an answer. */
static void reply_limited(struct queries *queries, struct query *query, const struct rule *rule)
{
	const struct denied_question denied = {.reason = REASON_TOO_MANY_NAMES, .rule = rule, .action = "servfail"};

	queries->counters->limited++;
	report_once(queries, query, denied);
	query_reply_code(queries, query, RCODE_SERVFAIL, EDE_BLOCKED);
}

static void count_overloaded(struct queries *queries, const struct client *client)
{
	queries->counters->overloaded++;
	queries->counters->overloaded_by = client->address;
}

/* Nothing fresh is in the cache: wait for the upstream. */
static void forward(struct queries *queries, struct query *query, const struct cache_key *key)
{
	const struct rule *exhausted = find_exhausted(queries, query);
	bool first;
	int error;

	if (exhausted) {
		reply_limited(queries, query, exhausted);
		return;
	}
	error = query_wait_join(queries, query, key, &first);
	if (!error && !first) {
		queries->counters->joined++;
		return;
	}
	if (!error) {
		error = upstream_ask(queries->upstream, key);
		if (!error) {
			queries->counters->forwarded++;
			return;
		}
		(void)query_wait_end(queries, key); /* the query was the only one */
	}
	if (error == -ENOENT) {
		reply_unanswered(queries, query, key);
		return;
	}
	if (error == -EBUSY)
		count_overloaded(queries, &query->client);
	query_reply_code(queries, query, RCODE_SERVFAIL, EDE_NONE);
}

/* A look-up for the questions that come after this one. */
static void look_up_again(struct queries *queries, uint16_t network, const struct cache_key *key)
{
	if (query_wait_begin(queries, network, key))
		return;
	if (upstream_ask(queries->upstream, key) == 0)
		queries->counters->forwarded++;
	else
		(void)query_wait_end(queries, key);
}

static void query_look_up(struct queries *queries, struct query *query, const struct domain *name)
{
	const struct upstream_group *group = policy_upstream_for(queries->policy, name);
	const struct question *question = &query->question;
	const struct answer *answer;
	struct cache_key key;
	uint32_t age;
	bool recheck;

	cache_key_init(&key, name, question->type, question->dnssec_ok, question->checking_disabled, group->name);
	answer = cache_get(queries->cache, &key, uv_now(queries->loop), &age);
	if (answer) {
		queries->counters->cached++;
		take_answer(queries, query, answer, age);
		return;
	}
	answer = cache_get_failing(queries->cache, &key, uv_now(queries->loop), &recheck);
	if (!answer) {
		forward(queries, query, &key);
		return;
	}
	if (recheck)
		look_up_again(queries, query->client.network, &key);
	take_stale(queries, query, answer);
}

/*
 * Judge a query's question under the policy of now.
 * Return: true when it is to be looked up; false: it is answered or released.
 */
static bool judge(struct queries *queries, struct query *query)
{
	const struct network *network = policy_network(queries->policy, query->client.network);
	struct question_verdict verdict;

	if (!network) {
		query_release(queries, query);
		return false;
	}
	verdict = judge_question(network, &query->question, queries->host->families(queries->host->context, network), time(NULL));
	query_move(query, QUERY_JUDGED);
	query->specs = verdict.name.specs;
	query->audited = verdict.name.audited;
	if (verdict.denied || verdict.name.audited) {
		bool nodata = verdict.step == QUESTION_NODATA;

		report_verdict(queries, query, &verdict, !verdict.denied ? "allowed" : nodata ? "nodata" : "nxdomain");
	}
	switch (verdict.step) {
	case QUESTION_LOOK_UP: return true;
	case QUESTION_DENY: query_reply_code(queries, query, RCODE_NXDOMAIN, EDE_BLOCKED); break;
	case QUESTION_NODATA: query_reply_code(queries, query, RCODE_NOERROR, verdict.denied ? EDE_BLOCKED : EDE_NONE); break;
	case QUESTION_PTR: answer_pointer(queries, query, &verdict); break;
	case QUESTION_ANY: answer_any(queries, query); break;
	}
	return false;
}

void query_receive(void *context, const struct client *client, const uint8_t *wire, size_t size)
{
	struct queries *queries = context;
	struct question question;
	struct query *query;
	enum message_status status = message_parse_question(wire, size, &question);

	queries->counters->questions++;
	queries->host->asked(queries->host->context, client->network, &client->address);
	if (status == MESSAGE_DROP) {
		queries->counters->invalid++;
		(void)listener_reply(client, NULL, 0);
		return;
	}
	if (status != MESSAGE_OK) {
		refuse_message(queries, client, &question, status, wire, size);
		return;
	}
	query = query_new(queries, client, &question);
	if (!query) {
		queries->counters->failed++;
		count_overloaded(queries, client);
		query_reply_at_once(client, &question, RCODE_SERVFAIL);
		return;
	}
	if (judge(queries, query))
		query_look_up(queries, query, &query->question.name);
}

int query_check(struct queries *queries, uint16_t network, const struct domain *name, uint16_t type, bool refreshes, resolver_checked done,
		void *context)
{
	/* Over TCP there is room for every record, so none is left out that should be granted. */
	const struct client client = {.network = network, .protocol = IPPROTO_TCP};
	struct question question = {.type = type, .class = CLASS_IN, .name = *name, .recursion_desired = true};
	struct query *query;

	if (!policy_network(queries->policy, network))
		return -ENOENT;
	memcpy(question.name_as_asked, name->wire, name->length);
	query = query_new(queries, &client, &question);
	if (!query)
		return -EBUSY;
	query->own = true;
	query->refreshes = refreshes;
	query->checked = done;
	query->checked_context = context;
	if (judge(queries, query))
		query_look_up(queries, query, &query->question.name);
	return 0;
}

/* The look-up that a query waited for has ended. */
static void resume(struct queries *queries, struct query *query, const struct cache_key *key, const struct answer *answer)
{
	const struct answer *stale;

	if (!judge(queries, query))
		return;
	if (!answer) {
		reply_unanswered(queries, query, key);
		return;
	}
	stale = answer->rcode == RCODE_SERVFAIL ? cache_get_stale(queries->cache, key, uv_now(queries->loop)) : NULL;
	if (stale)
		take_stale(queries, query, stale);
	else
		take_answer(queries, query, answer, 0);
}

void query_looked_up(void *context, const struct cache_key *key, struct answer *answer)
{
	struct queries *queries = context;
	struct query *query, *next;

	for (query = query_wait_end(queries, key); query; query = next) {
		next = query->queue_next; /* it goes into another list */
		resume(queries, query, key, answer);
	}
	if (answer)
		cache_put(queries->cache, key, answer, uv_now(queries->loop));
}

void query_upstream_says(void *context, bool trouble, const char *text)
{
	const struct queries *queries = context;

	if (queries->host->upstream_says)
		queries->host->upstream_says(queries->host->context, trouble, text);
}

static void leave_all(struct queries *queries)
{
	struct query *query;

	DL_FOREACH (queries->active, query)
		query_wait_leave(queries, query);
	query_wait_cancel(queries);
}

/* As if the query had just come in: what an earlier look-up gave is in the cache, and the chain to it is judged again, too. */
static void judge_again(struct queries *queries, struct query *query)
{
	query_wait_leave(queries, query);
	if (!judge(queries, query))
		return;
	answer_free(query->chain);
	query->chain = NULL;
	query->chased = 0;
	query_look_up(queries, query, &query->question.name);
}

void query_judge_again(struct queries *queries, bool elsewhere)
{
	struct query *query, *next;

	if (elsewhere)
		leave_all(queries);
	DL_FOREACH_SAFE (queries->active, query, next) {
		if (query->state == QUERY_FORWARDED)
			judge_again(queries, query);
	}
	query_wait_cancel(queries);
}

uint64_t query_expire(struct queries *queries)
{
	uint64_t now = uv_now(queries->loop);
	struct query *query, *next;
	struct cache_key key;

	DL_FOREACH_SAFE (queries->active, query, next) {
		if (now - query->started < QUERY_DEADLINE_MS)
			return query->started + QUERY_DEADLINE_MS - now;
		if (query->state != QUERY_FORWARDED)
			continue;                             /* its reply leaves in this turn */
		memcpy(&key, &query->wait->key, sizeof(key)); /* with its padding */
		query_wait_leave(queries, query);
		reply_unanswered(queries, query, &key);
	}
	return 0;
}
