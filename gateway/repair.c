/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: a table that is gone lets everything through, so it is made anew at once, whatever was changed, in one transaction.
 * Somebody who changes it over and over costs a transaction every REPAIR_MS. One that the kernel refuses is tried again with everything
 * else that is due (gateway.h: apply_due).
 */
#include "gateway/repair.h"

#include <stdio.h>

#include "gateway/gateway.h"

static void say(struct gateway *gateway)
{
	struct repair *repair = &gateway->repair;
	uint64_t now = gateway_now(gateway);
	char times[32] = "";

	repair->untold++;
	if (repair->said_at != 0 && now - repair->said_at < REPAIR_SAY_MS)
		return;
	if (repair->untold > 1)
		snprintf(times, sizeof(times), ", %u times", repair->untold);
	log_say(gateway->log, LOG_ERROR,
		"the table inet " NFT_TABLE
		" was changed by another program%s (%s), and %s: in between, flows may have passed that no rule "
		"allows; keep other firewall programs out of the gateway's container",
		times, repair->who, gateway->apply_due ? "cannot be made anew yet" : "was made anew");
	repair->said_at = now;
	repair->untold = 0;
}

static void make_anew(struct gateway *gateway)
{
	gateway->repair.at = gateway_now(gateway);
	gateway_apply_again(gateway);
	if (!gateway->apply_due)
		upkeep_policy_applied(gateway, true, false, true); /* flows that passed in between are ended */
	say(gateway);
}

static void on_changed(void *context, const char *who)
{
	struct gateway *gateway = context;

	gateway->ruleset.spoilt = true;
	snprintf(gateway->repair.who, sizeof(gateway->repair.who), "%s", who != NULL ? who : "name unknown");
	if (gateway_now(gateway) - gateway->repair.at >= REPAIR_MS)
		make_anew(gateway);
}

void repair_tick(struct gateway *gateway)
{
	if (gateway->ruleset.spoilt && !gateway->apply_due)
		make_anew(gateway);
}

int repair_open(struct gateway *gateway)
{
	return table_guard_open(&gateway->loop, gateway->ruleset.netlink.port, on_changed, gateway, &gateway->repair.guard);
}

void repair_close(struct gateway *gateway)
{
	table_guard_close(gateway->repair.guard);
	gateway->repair.guard = NULL;
}
