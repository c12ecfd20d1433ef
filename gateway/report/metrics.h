/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_METRICS_H
#define SLUICE_GATEWAY_REPORT_METRICS_H

/*
 * The worker in numbers, for Prometheus; docs/metrics.md lists them, a public interface. Labels are networks and closed lists only, never
 * names, apps or addresses: how many series there are is bounded by the policy.
 */

#include <stdbool.h>

#include "gateway/gateway.h"

/**
 * metrics_text() - In the text format 0.0.4, or in that of OpenMetrics 1.0
 * @context:	a struct gateway
 * Return: malloc()ed, NULL: out of memory.
 */
char *metrics_text(void *context, bool openmetrics);

#endif
