/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_RESOLVER_JUDGE_SVCB_H
#define SLUICE_RESOLVER_JUDGE_SVCB_H

#include "resolver/judge.h"

/**
 * judge_svcb() - Decide what of an HTTPS or SVCB record (RFC 9460) a network may see
 * @owner:	name of the record, which the target "." stands for
 * @out:	at least rdata_length octets; receives the RDATA without ipv4hint and ipv6hint
 * @out_length:	set to its octets
 * Return: false when the record must be dropped: malformed, hints are mandatory, or the target or its port is not allowed.
 */
bool judge_svcb(const struct network *network, const struct domain *owner, const struct record *record, time_t now, uint8_t *out,
		size_t *out_length);

#endif
