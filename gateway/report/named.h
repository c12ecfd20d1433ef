/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_NAMED_H
#define SLUICE_GATEWAY_REPORT_NAMED_H

/*
 * Decisions on their way to reports.h: they wait for the name of their container, which Docker's resolver may tell (apps.h: at most
 * APPS_TIMEOUT_MS, often no time at all).
 */

#include <stdbool.h>
#include <uv.h>

#include "gateway/apps.h"
#include "gateway/interfaces.h"
#include "gateway/report/decision.h"
#include "gateway/report/reports.h"

#define NAMED_WAITING_MAX 1024 /* decisions that wait; more are told without the name */
#define NAMED_FLOWS_MAX   512  /* so many of them by named_wait(): allowed flows are many, and leave room for what was denied */

struct named; /* named.c */

/** named_new() - @reports, @interfaces: the caller's. Return: NULL when out of memory. */
struct named *named_new(uv_loop_t *loop, struct reports *reports, struct interfaces *interfaces);

/** named_close() - All that waits is told now; afterwards neither reports nor interfaces are used. */
void named_close(struct named *named);

/** named_asked() - The address that Docker's resolver knows a source by: its own, or its container's IPv4 one. Family 0: there is none. */
struct address named_asked(struct named *named, const struct network *network, const struct interface *interface,
			   const struct address *source);

/**
 * named_tell() - Tell a decision of @network (NULL: it is not known whose), with the name of the container decision->source is
 *
 * @decision is the caller's, and may be filled in. Nothing of it is used after the call.
 */
void named_tell(struct named *named, const struct network *network, const struct interface *interface, struct decision *decision,
		bool logged);

/** named_tell_asked() - The same, where named_asked() was called before: @subnet is the network's, or of family 0. */
void named_tell_asked(struct named *named, const struct prefix *subnet, const struct address *asked, struct decision *decision,
		      bool logged);

/* A decision has the name of its container, if there is one. */
typedef void (*named_ready)(void *context, const struct decision *decision, bool logged);

/** named_wait() - As named_tell(), but @ready tells the decision: called once, at once or later, at the latest by named_close(). */
void named_wait(struct named *named, const struct network *network, const struct interface *interface, struct decision *decision,
		bool logged, named_ready ready, void *context);

/** named_known() - What the name of a source was when Docker was last asked about it; "" when that is not known yet: it is asked then. */
void named_known(struct named *named, const struct network *network, const struct interface *interface, const struct address *source,
		 char out[static APPS_NAME_MAX + 1]);

/** named_apps() - Who asks Docker's resolver. Valid until named_close(). */
struct apps *named_apps(struct named *named);

#endif
