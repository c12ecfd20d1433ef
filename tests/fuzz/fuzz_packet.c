/* SPDX-License-Identifier: MIT */
/* What an app can send through the queue: parse it, then judge it by an empty policy. */
#include <assert.h>
#include <stdlib.h>

#include "gateway/classify.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct policy policy = {.network_count = 0};
	struct network network = {.id = 1};
	struct lease_table *leases = lease_table_new();
	struct flow flow;
	bool parsed = classify_packet(data, size, &flow);
	struct denial denial = classify_judge(&policy, &network, leases, &flow, parsed, false, 1, 1);

	assert(leases);
	assert(!parsed || (flow.source.family && flow.source.family == flow.destination.family));
	assert(denial.reason > REASON_NONE && denial.reason < REASON_COUNT && !denial.audited);
	assert(parsed || denial.reason == REASON_MALFORMED);
	lease_table_free(leases);
	return 0;
}
