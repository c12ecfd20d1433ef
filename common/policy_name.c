/* SPDX-License-Identifier: MIT */
/*
 * The policy's name rules: put into an index when the policy is finished, and judged by it.
 *
 * Theory of operation: policy_finish() puts every name rule of a network into a hash table whose key is the base of its pattern, and marks
 * all parents of what allow rules can match. A question walks from its whole name up to the root, one look-up per label: what it meets is
 * every rule that matches, the most specific first. So the cost depends on the labels of a name and not on the number of rules; names
 * longer than any rule's base start where the longest base could match.
 *
 * Ports: a name may be matched by allow rules with ports P1, P2, ... and by deny rules with ports D1, D2, ...; it then
 * may be reached on every Pi without all Dj. Each such difference must have a kernel set of its own, so they are worked out here: from the
 * ports of every allow rule, the deny rules that overlap it are taken out in every combination. The distinct results are network->specs.
 * The table `minus` remembers the steps, so that judging a name only moves bits.
 */
#include "common/policy.h"
#include "common/policy_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DENY_CLASSES_MAX POLICY_SPECS_MAX           /* distinct ports of one network's deny rules: bits of a uint64_t */
#define LABELS_MAX       127                        /* RFC 1035: 255 octets, two per label at least */
#define GROUPS_MAX       (2 * (LABELS_MAX + 1) + 1) /* two per level, and `*` */
#define MINUS_UNKNOWN    UINT8_MAX                  /* no name can need this difference */
#define MINUS_EMPTY      (UINT8_MAX - 1)            /* nothing is left */

/* Deny rules of one pattern with the same ports. */
struct port_deny {
	struct port_deny *next;  /* owned */
	const struct rule *rule; /* the first of them */
	unsigned int class;
};

/* All rules with the same pattern. */
struct rule_group {
	struct rule_group *next; /* of the same base */
	enum pattern_kind kind;
	uint64_t specs;                /* ports of the allow rules, before deny rules */
	const struct rule *allow;      /* the first one, or NULL */
	const struct rule *deny;       /* the first one without ports, or NULL */
	struct port_deny *port_denies; /* owned; in the order of the rules */
};

/* A base of patterns, or a parent of one. */
struct name_node {
	const uint8_t *wire; /* inside of a rule; NULL: the place is free */
	unsigned int hash;
	uint8_t size; /* octets of `wire` */
	bool parent;  /* strict parent of a name that an allow rule other than `*` can match; then its parents are marked too */
	struct rule_group *groups; /* NULL: only a parent */
};

struct name_index {
	struct name_node *nodes;   /* owned; `room` places, see place_of() */
	size_t count, room;        /* a power of two */
	struct rule_group *groups; /* owned; as many as there are rules for names, each used by one node */
	size_t group_count;
	unsigned int labels_max; /* of all bases */
	struct ports *classes;   /* owned; of deny rules */
	size_t class_count;
	uint8_t (*minus)[POLICY_SPECS_MAX]; /* owned; for each class: index of specs[s] without it */
};

/* What policy_finish() knows while it works on one network. */
struct build {
	struct network *network;
	struct name_index *index;
	const struct rule **port_denies; /* owned; name rules that deny some ports */
	unsigned int *deny_classes;      /* owned; the class of each */
	size_t port_deny_count;
	char *error;
	size_t error_size;
	struct source *where;
};

static void group_free(struct rule_group *group)
{
	struct port_deny *next;

	for (struct port_deny *deny = group->port_denies; deny; deny = next) {
		next = deny->next;
		free(deny);
	}
}

void policy_name_index_free(struct name_index *index)
{
	if (!index)
		return;
	for (size_t i = 0; i < index->group_count; i++)
		group_free(&index->groups[i]);
	free(index->groups);
	free(index->nodes);
	free(index->classes);
	free(index->minus);
	free(index);
}

static int fail_too_big(struct build *build, const struct source *where, const char *subject, const char *problem)
{
	snprintf(build->error, build->error_size, "%s: %s", subject, problem);
	*build->where = *where;
	return -E2BIG;
}

/*
 * The hash of a name grows from its end to its beginning, so that of a name's parents comes with its own. It needs no key: what is in the
 * table was chosen by whoever wrote the policy.
 */
#define SUFFIX_HASH_START 2166136261U

static unsigned int suffix_hash(unsigned int hash, const uint8_t *wire, size_t size)
{
	while (size > 0)
		hash = (hash ^ wire[--size]) * 16777619U; /* FNV-1a */
	return hash;
}

/*
 * Where the node of a name is, or would be: a table with open addressing, of which at least a quarter is free. Networks with the same lists
 * have tables of their own, so these are kept small: one allocation, and 24 octets for a name.
 */
static struct name_node *place_of(const struct name_index *index, const uint8_t *wire, size_t size, unsigned int hash)
{
	size_t at = hash & (index->room - 1);

	for (;; at = (at + 1) & (index->room - 1)) {
		struct name_node *node = &index->nodes[at];

		if (!node->wire || (node->hash == hash && node->size == size && memcmp(node->wire, wire, size) == 0))
			return node;
	}
}

/* Return: false when out of memory; the table is as it was. */
static bool grow_nodes(struct name_index *index, size_t room)
{
	struct name_index grown = {.nodes = calloc(room, sizeof(*grown.nodes)), .room = room};

	if (!grown.nodes)
		return false;
	for (size_t i = 0; i < index->room; i++) {
		const struct name_node *node = &index->nodes[i];

		if (node->wire)
			*place_of(&grown, node->wire, node->size, node->hash) = *node;
	}
	free(index->nodes);
	index->nodes = grown.nodes;
	index->room = room;
	return true;
}

/* The node of a name, until the next call; made when it is missing. Return: NULL when out of memory. */
static struct name_node *node_at(struct name_index *index, const uint8_t *wire, size_t size)
{
	unsigned int hash = suffix_hash(SUFFIX_HASH_START, wire, size);
	struct name_node *node = place_of(index, wire, size, hash);

	if (node->wire)
		return node;
	if (4 * (index->count + 1) > 3 * index->room) {
		if (!grow_nodes(index, 2 * index->room))
			return NULL;
		node = place_of(index, wire, size, hash);
	}
	*node = (struct name_node){.wire = wire, .hash = hash, .size = (uint8_t)size};
	index->count++;
	return node;
}

static struct rule_group *find_group(const struct name_node *node, enum pattern_kind kind)
{
	struct rule_group *group = node->groups;

	while (group && group->kind != kind)
		group = group->next;
	return group;
}

/* The group of a rule's pattern; made when it is missing. Return: NULL when out of memory. */
static struct rule_group *group_of(struct name_index *index, const struct rule *rule)
{
	struct name_node *node = node_at(index, rule->pattern.base.wire, rule->pattern.base.length);
	unsigned int labels = domain_labels(&rule->pattern.base);
	struct rule_group *group = node ? find_group(node, rule->pattern.kind) : NULL;

	if (!node || group)
		return group;
	if (labels > index->labels_max)
		index->labels_max = labels;
	group = &index->groups[index->group_count++];
	*group = (struct rule_group){.next = node->groups, .kind = rule->pattern.kind};
	node->groups = group;
	return group;
}

/* Mark the parents of everything that an allow rule can match. */
static int mark_parents(struct name_index *index, const struct pattern *pattern)
{
	const struct domain *base = &pattern->base;
	size_t at = pattern->kind == PATTERN_EXACT ? 1 + (size_t)base->wire[0] : 0;

	if (pattern->kind == PATTERN_ANY)
		return 0;
	while (at < base->length) {
		struct name_node *node = node_at(index, base->wire + at, base->length - at);

		if (!node)
			return -ENOMEM;
		if (node->parent)
			break;
		node->parent = true;
		at += 1 + (size_t)base->wire[at];
	}
	return 0;
}

/* Does the rule deny every port? Its `ports` may be the network's default, which is meant for allow rules only. */
static bool denies_all_ports(const struct rule *rule)
{
	return !rule->ports_given || ports_is_all(&rule->ports);
}

/* Index of these ports in the network's specifications; added when missing. Return: -1 when there is no room. */
static int spec_of(struct network *network, const struct ports *ports)
{
	for (size_t i = 0; i < network->spec_count; i++)
		if (ports_equal(&network->specs[i], ports))
			return (int)i;
	if (network->spec_count == POLICY_SPECS_MAX)
		return -1;
	network->specs[network->spec_count] = *ports;
	return (int)network->spec_count++;
}

static int fail_specs(struct build *build)
{
	char subject[POLICY_NAME_MAX + 16];

	snprintf(subject, sizeof(subject), "network %s", build->network->name);
	return fail_too_big(build, &build->network->source, subject,
			    "its name rules, less the ports of its deny rules, come to more than 64 different port specifications; "
			    "give more rules the same ports (`ports =` sets one for all), or split the network");
}

/* Fill minus[class][spec]. */
static int take_out(struct build *build, const struct rule *rule, unsigned int class, unsigned int spec)
{
	struct ports rest = build->network->specs[spec];
	int left;

	if (build->index->minus[class][spec] != MINUS_UNKNOWN)
		return 0;
	if (!ports_subtract(&rest, &build->index->classes[class]))
		return fail_too_big(build, &rule->source, rule->text ? rule->text : "rule",
				    "what the deny rules leave of its ports is more than 16 port ranges; write fewer, wider ranges");
	if (ports_is_empty(&rest)) {
		build->index->minus[class][spec] = MINUS_EMPTY;
		return 0;
	}
	left = spec_of(build->network, &rest);
	if (left < 0)
		return fail_specs(build);
	build->index->minus[class][spec] = (uint8_t)left;
	return 0;
}

/* Take every combination of deny classes out of one specification. */
static int take_out_all(struct build *build, const struct rule *rule, uint64_t classes, unsigned int spec)
{
	uint64_t reached = 1ULL << spec, done = 0;
	int err;

	while (reached & ~done) {
		unsigned int next = (unsigned int)__builtin_ctzll(reached & ~done);

		done |= 1ULL << next;
		for (unsigned int class = 0; class < build->index->class_count; class ++) {
			uint8_t left;

			if (!(classes >> class & 1))
				continue;
			err = take_out(build, rule, class, next);
			if (err < 0)
				return err;
			left = build->index->minus[class][next];
			if (left < POLICY_SPECS_MAX)
				reached |= 1ULL << left;
		}
	}
	return 0;
}

/* Classes of the deny rules that some name of this rule's pattern is matched by. */
static uint64_t overlapping_classes(const struct build *build, const struct rule *rule)
{
	uint64_t classes = 0;

	for (size_t i = 0; i < build->port_deny_count; i++) {
		uint64_t bit = 1ULL << build->deny_classes[i];

		if (!(classes & bit) && pattern_overlaps(&build->port_denies[i]->pattern, &rule->pattern))
			classes |= bit;
	}
	return classes;
}

static int index_allow(struct build *build, const struct rule *rule)
{
	struct rule_group *group = group_of(build->index, rule);
	int spec;

	if (!group || mark_parents(build->index, &rule->pattern) < 0)
		return -ENOMEM;
	if (!group->allow)
		group->allow = rule;
	if (ports_is_empty(&rule->ports))
		return 0;
	spec = spec_of(build->network, &rule->ports);
	if (spec < 0)
		return fail_specs(build);
	group->specs |= 1ULL << spec;
	return take_out_all(build, rule, overlapping_classes(build, rule), (unsigned int)spec);
}

/* Add a class to a group's list, at its end, unless it is there. */
static int add_port_deny(struct rule_group *group, const struct rule *rule, unsigned int class)
{
	struct port_deny **end = &group->port_denies;

	for (; *end; end = &(*end)->next)
		if ((*end)->class == class)
			return 0;
	*end = calloc(1, sizeof(**end));
	if (!*end)
		return -ENOMEM;
	(*end)->rule = rule;
	(*end)->class = class;
	return 0;
}

/* Class of a deny rule's ports; there is room for one for each rule. Return: -1: there are too many. */
static int class_of(struct name_index *index, const struct ports *ports)
{
	for (size_t i = 0; i < index->class_count; i++)
		if (ports_equal(&index->classes[i], ports))
			return (int)i;
	if (index->class_count == DENY_CLASSES_MAX)
		return -1;
	index->classes[index->class_count] = *ports;
	return (int)index->class_count++;
}

static int index_deny(struct build *build, const struct rule *rule)
{
	struct rule_group *group = group_of(build->index, rule);
	int class;

	if (!group)
		return -ENOMEM;
	if (denies_all_ports(rule)) {
		if (!group->deny)
			group->deny = rule;
		return 0;
	}
	class = class_of(build->index, &rule->ports);
	if (class < 0)
		return fail_too_big(
			build, &rule->source, rule->text ? rule->text : "rule",
			"the network's deny rules have more than 64 different port specifications; give more of them the same ports");
	build->port_denies[build->port_deny_count] = rule;
	build->deny_classes[build->port_deny_count++] = (unsigned int)class;
	return add_port_deny(group, rule, (unsigned int)class);
}

/* Deny rules first: allow rules need all their classes. */
static int index_names(struct build *build)
{
	const struct network *network = build->network;
	int err;

	for (size_t i = 0; i < network->rule_count; i++) {
		const struct rule *rule = network->rules[i];

		err = rule->kind == RULE_NAME && rule->action == RULE_DENY ? index_deny(build, rule) : 0;
		if (err < 0)
			return err;
	}
	build->index->minus = malloc((build->index->class_count + 1) * sizeof(*build->index->minus));
	if (!build->index->minus)
		return -ENOMEM;
	memset(build->index->minus, MINUS_UNKNOWN, (build->index->class_count + 1) * sizeof(*build->index->minus));
	for (size_t i = 0; i < network->rule_count; i++) {
		const struct rule *rule = network->rules[i];

		err = rule->kind == RULE_NAME && rule->action == RULE_ALLOW ? index_allow(build, rule) : 0;
		if (err < 0)
			return err;
	}
	return 0;
}

static size_t count_port_denies(const struct network *network)
{
	size_t count = 0;

	for (size_t i = 0; i < network->rule_count; i++) {
		const struct rule *rule = network->rules[i];

		count += rule->kind == RULE_NAME && rule->action == RULE_DENY && !denies_all_ports(rule);
	}
	return count;
}

/* Return: NULL when out of memory; with room for all rules of the network. */
static struct name_index *index_new(const struct network *network, size_t port_denies)
{
	struct name_index *index = calloc(1, sizeof(*index));
	size_t room = 8, classes = port_denies < DENY_CLASSES_MAX ? port_denies : DENY_CLASSES_MAX;

	if (!index)
		return NULL;
	while (3 * room < 4 * (network->rule_count + 1))
		room *= 2;
	index->groups = malloc((network->rule_count + 1) * sizeof(*index->groups));
	index->classes = calloc(classes + 1, sizeof(*index->classes));
	if (index->groups && index->classes && grow_nodes(index, room))
		return index;
	policy_name_index_free(index);
	return NULL;
}

int policy_name_finish(struct network *network, char *error, size_t error_size, struct source *where)
{
	struct build build = {.network = network, .error = error, .error_size = error_size, .where = where};
	size_t port_denies = count_port_denies(network);
	int err = -ENOMEM;

	build.index = index_new(network, port_denies);
	build.port_denies = calloc(port_denies + 1, sizeof(*build.port_denies));
	build.deny_classes = calloc(port_denies + 1, sizeof(*build.deny_classes));
	network->index = build.index;
	if (build.index && build.port_denies && build.deny_classes)
		err = index_names(&build);
	free(build.port_denies);
	free(build.deny_classes);
	return err;
}

/* The groups of all rules that match a name, the most specific first. */
struct matches {
	const struct rule_group *groups[GROUPS_MAX];
	size_t count;
	bool parent;       /* an allow rule can match something below the name */
	bool below_denied; /* a deny rule matches everything below the name */
};

static void match_group(struct matches *matches, const struct name_node *node, enum pattern_kind kind)
{
	const struct rule_group *group = find_group(node, kind);

	if (group)
		matches->groups[matches->count++] = group;
}

/* @self: the node is the name itself, not one of its parents. */
static void match_node(struct matches *matches, const struct name_node *node, bool self)
{
	matches->parent |= self && node->parent;
	if (!node->groups)
		return;
	match_group(matches, node, self ? PATTERN_EXACT : PATTERN_BELOW);
	match_group(matches, node, PATTERN_TREE);
	match_group(matches, node, PATTERN_ANY);
	for (const struct rule_group *group = node->groups; group; group = group->next) {
		matches->parent |= group->allow && (group->kind == PATTERN_BELOW || group->kind == PATTERN_TREE);
		matches->below_denied |= group->deny && group->kind != PATTERN_EXACT;
	}
}

static void match_name(const struct name_index *index, const struct domain *name, struct matches *matches)
{
	uint8_t starts[DOMAIN_WIRE_MAX];
	unsigned int hashes[DOMAIN_WIRE_MAX], hash = SUFFIX_HASH_START;
	size_t count = 0, end = name->length, first;

	for (size_t at = 0; at < name->length; at += 1 + (size_t)name->wire[at])
		starts[count++] = (uint8_t)at;
	/* The root is one of them, and no label of its own. */
	first = count > index->labels_max + 1 ? count - index->labels_max - 1 : 0;
	for (size_t i = count; i-- > first; end = starts[i])
		hashes[i] = hash = suffix_hash(hash, name->wire + starts[i], end - starts[i]);
	for (size_t i = first; i < count; i++) {
		const struct name_node *node = place_of(index, name->wire + starts[i], name->length - (size_t)starts[i], hashes[i]);

		if (node->wire)
			match_node(matches, node, i == 0);
	}
}

static const struct rule *first_deny(const struct matches *matches)
{
	for (size_t i = 0; i < matches->count; i++)
		if (matches->groups[i]->deny)
			return matches->groups[i]->deny;
	return NULL;
}

static uint64_t without_class(const struct name_index *index, unsigned int class, uint64_t specs)
{
	uint64_t out = 0;

	for (; specs != 0; specs &= specs - 1) {
		uint8_t left = index->minus[class][__builtin_ctzll(specs)];

		if (left < POLICY_SPECS_MAX)
			out |= 1ULL << left;
	}
	return out;
}

/* Apply the deny rules with ports. Return: the one that took the last port, or NULL. */
static const struct rule *take_denied_ports(const struct name_index *index, const struct matches *matches, uint64_t *specs)
{
	for (size_t i = 0; i < matches->count; i++) {
		for (const struct port_deny *deny = matches->groups[i]->port_denies; deny; deny = deny->next) {
			*specs = without_class(index, deny->class, *specs);
			if (*specs == 0)
				return deny->rule;
		}
	}
	return NULL;
}

/* Fill in everything but audit mode. */
static void judge_matches(const struct name_index *index, const struct matches *matches, struct name_verdict *verdict)
{
	const struct rule *deny = first_deny(matches), *allow = NULL;
	uint64_t specs = 0;

	for (size_t i = 0; i < matches->count; i++) {
		if (!allow)
			allow = matches->groups[i]->allow;
		specs |= matches->groups[i]->specs;
	}
	if (!deny && specs != 0)
		deny = take_denied_ports(index, matches, &specs);
	verdict->rule = deny ? deny : allow;
	verdict->allowed = !deny && specs != 0;
	if (verdict->allowed) {
		verdict->specs = specs;
		verdict->reason = REASON_NONE;
	} else if (deny) {
		verdict->reason = REASON_DENIED_BY_RULE;
	} else {
		verdict->reason = allow ? REASON_PORT_NOT_ALLOWED : REASON_NAME_NOT_ALLOWED;
	}
	verdict->parent = !verdict->allowed && matches->parent && !matches->below_denied;
}

struct name_verdict policy_judge_name(const struct network *network, const struct domain *name, time_t now)
{
	struct name_verdict verdict = {.reason = REASON_NAME_NOT_ALLOWED};
	struct matches matches;

	if (policy_name_is_local(name)) {
		verdict.reason = REASON_LOCAL_NAME;
		return verdict;
	}
	if (!network->index || name->length == 0)
		return verdict;
	matches.count = 0;
	matches.parent = matches.below_denied = false;
	match_name(network->index, name, &matches);
	judge_matches(network->index, &matches, &verdict);
	if (verdict.reason == REASON_NAME_NOT_ALLOWED && policy_is_auditing(network, now)) {
		verdict.allowed = verdict.audited = true;
		verdict.parent = false;
	}
	return verdict;
}

unsigned int policy_wildcard_stands_for(const struct rule *rule, const struct domain *name, unsigned int *octets)
{
	unsigned int labels = domain_labels(name) - domain_labels(&rule->pattern.base);

	*octets = (unsigned int)name->length - rule->pattern.base.length - labels;
	return labels;
}

bool policy_wildcard_is_exceeded(const struct network *network, const struct rule *rule, const struct domain *name)
{
	const struct wildcard_limits *limits = &network->wildcards;
	unsigned int octets, labels;

	if (!limits->octets && !limits->labels)
		return false;
	labels = policy_wildcard_stands_for(rule, name, &octets);
	return (limits->octets && octets > limits->octets) || (limits->labels && labels > limits->labels);
}

static bool is_denied(const struct name_verdict *verdict)
{
	return !verdict->allowed && verdict->reason == REASON_DENIED_BY_RULE;
}

struct name_verdict policy_judge_chain(const struct network *network, const struct domain *name, const struct chain *chain, time_t now,
				       struct domain *by)
{
	const struct name_verdict asked = policy_judge_name(network, name, now);
	struct name_verdict verdict = asked;
	struct domain judged = *name;
	struct chain rest = *chain;

	while (!is_denied(&verdict) && chain_next(&rest, &judged))
		verdict = policy_judge_name(network, &judged, now);
	if (by)
		*by = is_denied(&verdict) ? judged : *name;
	return is_denied(&verdict) ? verdict : asked;
}

/* A name in wire form; the NUL is its root label. */
struct suffix {
	const char *wire;
	size_t size;
};

#define SUFFIX(wire)                                                                                                                       \
	{                                                                                                                                  \
		wire, sizeof(wire)                                                                                                         \
	}

/* Is the name this one, or below it? */
static bool ends_in(const struct domain *name, const struct suffix *suffix)
{
	size_t size = suffix->size, at = 0;

	/* The last letter first: few names have it. */
	if (name->length < size || name->wire[name->length - 2] != (uint8_t)suffix->wire[size - 2] ||
	    memcmp(name->wire + name->length - size, suffix->wire, size) != 0)
		return false;
	while (at + size < name->length)
		at += 1 + (size_t)name->wire[at];
	return at + size == name->length; /* else a label ends in it */
}

bool policy_name_is_local(const struct domain *name)
{
	static const struct suffix suffixes[] = {
		SUFFIX("\011localhost"),          SUFFIX("\005local"),           SUFFIX("\007invalid"), SUFFIX("\005onion"),
		SUFFIX("\006docker\010internal"), SUFFIX("\010resolver\004arpa")};

	if (domain_labels(name) == 1)
		return true;
	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++)
		if (ends_in(name, &suffixes[i]))
			return true;
	return false;
}
