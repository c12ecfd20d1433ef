/* SPDX-License-Identifier: MIT */
#include "common/reason.h"

#include <assert.h>
#include <stddef.h>

static const char *const names[] = {
	[REASON_NONE] = "none",
	[REASON_NAME_NOT_ALLOWED] = "name-not-allowed",
	[REASON_DENIED_BY_RULE] = "denied-by-rule",
	[REASON_PORT_NOT_ALLOWED] = "port-not-allowed",
	[REASON_ADDRESS_NOT_ALLOWED] = "address-not-allowed",
	[REASON_LEASE_EXPIRED] = "lease-expired",
	[REASON_PROTOCOL_NOT_ALLOWED] = "protocol-not-allowed",
	[REASON_SPECIAL_ADDRESS] = "special-address",
	[REASON_ISOLATED] = "isolated",
	[REASON_MALFORMED] = "malformed",
	[REASON_REBINDING] = "rebinding",
	[REASON_LOCAL_NAME] = "local-name",
	[REASON_UNSUPPORTED] = "unsupported",
	[REASON_REPEATED] = "repeated",
	[REASON_SPOOFED_SOURCE] = "spoofed-source",
	[REASON_MULTICAST] = "multicast",
	[REASON_QUEUE_FULL] = "queue-full",
	[REASON_INVALID] = "invalid-state",
	[REASON_SNI_MISMATCH] = "sni-mismatch",
	[REASON_NO_NAME] = "no-name",
	[REASON_NAME_TOO_LONG] = "name-too-long",
	[REASON_TOO_MANY_NAMES] = "too-many-names",
	[REASON_TOO_MANY_FLOWS] = "too-many-flows",
};
static_assert(sizeof(names) / sizeof(names[0]) == REASON_COUNT, "every reason has a name");

const char *reason_name(enum reason reason)
{
	if ((size_t)reason >= REASON_COUNT)
		return "unknown";
	return names[reason];
}
