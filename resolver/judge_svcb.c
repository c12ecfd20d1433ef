/* SPDX-License-Identifier: MIT */
/*
 * HTTPS and SVCB records. They tell a client where to go next, so what they say must be something that the network may do:
 * hints are addresses for which nothing was granted and are removed; a record that leads to a name or port that is not
 * allowed would cost the client a failed attempt and is dropped, after which it goes on with A and AAAA.
 *
 * Where the network verifies names, `ech` is removed as well: with it a client would encrypt the name that is to be read. What is left is
 * the record of a server without ECH, with its ALPN, port and target; NODATA would take these away, too. A record that makes `ech`
 * mandatory is for clients that use ECH and nobody else (RFC 9460 section 8), so it is dropped.
 */
#include <netinet/in.h>
#include <string.h>

#include "resolver/judge_svcb.h"

enum {
	KEY_MANDATORY = 0,
	KEY_ALPN = 1,
	KEY_NO_DEFAULT_ALPN = 2,
	KEY_PORT = 3,
	KEY_IPV4HINT = 4,
	KEY_ECH = 5, /* RFC 9848 */
	KEY_IPV6HINT = 6,
	KEY_INVALID = 65535
};

/* One SvcParam, inside the RDATA. */
struct param {
	const uint8_t *start, *value;
	uint16_t key, length;
};

/* The SvcParams of a record, not yet read. */
struct params {
	const uint8_t *at, *end;
	int last_key; /* keys must ascend strictly: RFC 9460 section 2.2 */
	bool without_ech;
};

static uint16_t u16(const uint8_t *bytes)
{
	return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

/* Takes the next one. Return: false when there is none, or (params->at not at the end) when it is malformed. */
static bool params_next(struct params *params, struct param *out)
{
	size_t left = (size_t)(params->end - params->at);

	if (left < 4)
		return false;
	out->start = params->at;
	out->key = u16(params->at);
	out->length = u16(params->at + 2);
	out->value = params->at + 4;
	if (out->length > left - 4 || out->key <= params->last_key || out->key == KEY_INVALID)
		return false;
	params->last_key = out->key;
	params->at = out->value + out->length;
	return true;
}

static bool param_find(struct params params, uint16_t key, struct param *out)
{
	while (params_next(&params, out)) {
		if (out->key == key)
			return true;
	}
	return false;
}

static bool is_removed(const struct params *params, uint16_t key)
{
	return key == KEY_IPV4HINT || key == KEY_IPV6HINT || (key == KEY_ECH && params->without_ech);
}

/* Keys in strictly ascending order, each present, not "mandatory" itself, and none that is removed here. */
static bool mandatory_is_sound(const struct param *param, struct params all)
{
	int last = KEY_MANDATORY;

	if (param->length == 0 || param->length % 2 != 0)
		return false;
	for (size_t i = 0; i < param->length; i += 2) {
		uint16_t key = u16(param->value + i);
		struct param listed;

		if (key <= last || is_removed(&all, key) || !param_find(all, key, &listed))
			return false;
		last = key;
	}
	return true;
}

static bool alpn_is_sound(const struct param *param)
{
	size_t at = 0;

	while (at < param->length && param->value[at] != 0)
		at += 1U + param->value[at];
	return param->length > 0 && at == param->length;
}

static bool param_is_sound(const struct param *param, struct params all)
{
	struct param alpn;

	switch (param->key) {
	case KEY_MANDATORY: return mandatory_is_sound(param, all);
	case KEY_ALPN: return alpn_is_sound(param);
	case KEY_NO_DEFAULT_ALPN: return param->length == 0 && param_find(all, KEY_ALPN, &alpn);
	case KEY_PORT: return param->length == 2;
	case KEY_IPV4HINT: return param->length > 0 && param->length % 4 == 0;
	case KEY_IPV6HINT: return param->length > 0 && param->length % 16 == 0;
	default: return true;
	}
}

static bool params_are_sound(struct params params)
{
	struct params all = params;
	struct param param;

	while (params_next(&params, &param)) {
		if (!param_is_sound(&param, all))
			return false;
	}
	return params.at == params.end;
}

static bool port_is_allowed(const struct network *network, uint64_t specs, uint16_t port)
{
	return (specs & (policy_specs_on(network, IPPROTO_TCP, port) | policy_specs_on(network, IPPROTO_UDP, port))) != 0;
}

static bool target_is_allowed(const struct network *network, const struct domain *target, const struct params *params, time_t now)
{
	struct name_verdict verdict = policy_judge_name(network, target, now);
	struct param port;

	if (!verdict.allowed || verdict.audited)
		return verdict.allowed;
	/* Without the parameter it is the port of the client's scheme, which the record does not decide. */
	return !param_find(*params, KEY_PORT, &port) || port_is_allowed(network, verdict.specs, u16(port.value));
}

static size_t copy_the_rest(struct params params, uint8_t *out)
{
	struct param param;
	size_t size = 0;

	while (params_next(&params, &param)) {
		if (is_removed(&params, param.key))
			continue;
		memcpy(out + size, param.start, 4U + param.length);
		size += 4U + param.length;
	}
	return size;
}

bool judge_svcb(const struct network *network, const struct domain *owner, const struct record *record, time_t now, uint8_t *out,
		size_t *out_length)
{
	struct params params = {.end = record->rdata + record->rdata_length, .last_key = -1, .without_ech = network->verify != VERIFY_OFF};
	struct domain target;
	size_t head, taken;
	bool alias;

	if (record->rdata_length < 3)
		return false;
	taken = domain_from_wire(record->rdata + 2, record->rdata_length - 2U, &target);
	if (taken == 0)
		return false;
	head = 2 + taken;
	alias = u16(record->rdata) == 0;
	memcpy(out, record->rdata, head);
	*out_length = head;
	/* AliasMode: parameters mean nothing and are left out (RFC 9460 section 2.4.2); "." says that there is no service. */
	if (alias)
		return taken == 1 || policy_judge_name(network, &target, now).allowed;
	params.at = record->rdata + head;
	if (!params_are_sound(params) || !target_is_allowed(network, taken == 1 ? owner : &target, &params, now))
		return false;
	*out_length += copy_the_rest(params, out + head);
	return true;
}
