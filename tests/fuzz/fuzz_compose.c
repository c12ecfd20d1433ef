/* SPDX-License-Identifier: MIT */
/* JSON of a Compose project: whatever it holds, it is linted or refused, and what is printed cannot act upon a terminal. */

#include <stdint.h>
#include <stdlib.h>

#include "gateway/compose_lint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_report(const struct lint_report *report)
{
	size_t errors = 0;

	for (size_t i = 0; i < report->count; i++) {
		errors += report->findings[i].severity == LINT_ERROR;
		for (const char *at = report->findings[i].text; *at; at++) {
			if ((unsigned char)*at < 0x20 || *at == 0x7f)
				abort();
		}
	}
	if (report->errors < errors || report->count > report->errors + report->warnings)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct lint_options options;
	char error[COMPOSE_ERROR_MAX];
	struct lint_report report;
	struct compose compose;
	json_t *root = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);

	if (root && compose_read(root, &compose, error) == 0) {
		if (compose_lint(&compose, &options, &report) == 0) {
			check_report(&report);
			compose_lint_free(&report);
		}
		compose_free(&compose);
	}
	json_decref(root);
	return 0;
}
