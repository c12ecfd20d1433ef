/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_FOLLOW_H
#define SLUICE_GATEWAY_REPORT_FOLLOW_H

/*
 * The command `log` of the control protocol: the last decisions, and those that come.
 */

#include <jansson.h>

#include "gateway/control.h"
#include "gateway/report/reports.h"

#define FOLLOW_LINES_MAX (RECENT_DENIED_MAX + RECENT_ALLOWED_MAX)

/** follow_answer() - A control_handle's part for `log`. Return: a new reference, NULL when out of memory. */
json_t *follow_answer(struct reports *reports, const json_t *request, struct control_stream *stream);

#endif
