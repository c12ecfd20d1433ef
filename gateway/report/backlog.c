/* SPDX-License-Identifier: MIT */
#include "gateway/report/backlog.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int backlog_open(struct backlog *backlog, size_t room, const char *before, const char *behind)
{
	*backlog = (struct backlog){.bytes = malloc(room), .room = room, .before = before, .behind = behind};
	return backlog->bytes != NULL ? 0 : -ENOMEM;
}

void backlog_close(struct backlog *backlog)
{
	free(backlog->bytes);
	*backlog = (struct backlog){0};
}

static void append(struct backlog *backlog, const char *bytes, size_t size)
{
	memcpy(backlog->bytes + backlog->start + backlog->used, bytes, size);
	backlog->used += size;
}

/* Return: false when there is no room for so much. */
static bool make_room(struct backlog *backlog, size_t size)
{
	if (size > backlog->room - backlog->used)
		return false;
	if (backlog->start + backlog->used + size > backlog->room) {
		memmove(backlog->bytes, backlog->bytes + backlog->start, backlog->used);
		backlog->start = 0;
	}
	return true;
}

static bool add_line(struct backlog *backlog, const char *line, size_t size)
{
	size_t before = strlen(backlog->before), behind = strlen(backlog->behind);

	if (!make_room(backlog, before + size + behind))
		return false;
	append(backlog, backlog->before, before);
	append(backlog, line, size);
	append(backlog, backlog->behind, behind);
	return true;
}

/* What was lost is told before anything that came later. */
static void tell_lost(struct backlog *backlog)
{
	char line[64];
	int size;

	if (backlog->lost == 0 || backlog->used > backlog->room / 2)
		return;
	size = snprintf(line, sizeof(line), "{\"event\":\"log-lost\",\"count\":%" PRIu64 "}", backlog->lost);
	if (add_line(backlog, line, (size_t)size))
		backlog->lost = 0;
}

void backlog_add(struct backlog *backlog, const char *line, size_t size)
{
	tell_lost(backlog);
	if (backlog->lost > 0 || !add_line(backlog, line, size))
		backlog->lost++;
}

bool backlog_add_plain(struct backlog *backlog, const char *text)
{
	size_t size = strlen(text);

	if (!make_room(backlog, size))
		return false;
	append(backlog, text, size);
	return true;
}

size_t backlog_take(struct backlog *backlog, char *out, size_t max)
{
	size_t size;

	tell_lost(backlog);
	size = backlog->used < max ? backlog->used : max;
	memcpy(out, backlog->bytes + backlog->start, size);
	backlog->start += size;
	backlog->used -= size;
	if (backlog->used == 0)
		backlog->start = 0;
	return size;
}
