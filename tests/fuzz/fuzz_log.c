/* SPDX-License-Identifier: MIT */
/* Lines of the log as `sluice log` prints them: apps and servers have chosen what is in them, and nothing of it may act upon a terminal. */
#include <assert.h>
#include <locale.h>
#include <stdlib.h>

#include "gateway/log_view.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const char *text, size_t size)
{
	for (size_t i = 0; i < size; i++)
		assert(((unsigned char)text[i] >= 0x20 && text[i] != 0x7f) || text[i] == '\n');
}

static void print(const json_t *line, bool utf8)
{
	struct terminal terminal = {.utf8 = utf8, .width = 80};
	struct log_view_columns columns = {0};
	char *text = NULL;
	size_t size = 0;
	FILE *stream = open_memstream(&text, &size);

	assert(stream);
	log_view_measure(&columns, &terminal, line);
	log_view_print(&columns, &terminal, stream, line);
	fclose(stream);
	check(text, size);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct log_view_filter filter = {.denied = true};
	json_t *line = json_loadb((const char *)data, size, 0, NULL);

	if (!line)
		return 0;
	setlocale(LC_CTYPE, "C.UTF-8");
	(void)log_view_passes(&filter, line);
	print(line, false);
	print(line, true);
	json_decref(line);
	return 0;
}
