/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_BACKLOG_H
#define SLUICE_GATEWAY_REPORT_BACKLOG_H

/*
 * Lines that wait for a reader who may be slow: bounded. What does not fit is counted, and told by a line of its own,
 * {"event":"log-lost","count":N}, as soon as half of the room is free again. Pure data.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct backlog {
	char *bytes;        /* owned */
	size_t room;        /* of bytes */
	size_t start, used; /* what waits */
	const char *before; /* each line, and behind it; static text */
	const char *behind;
	uint64_t lost;
};

/** backlog_open() - @room: octets. Return: 0 or -ENOMEM. */
int backlog_open(struct backlog *backlog, size_t room, const char *before, const char *behind);
void backlog_close(struct backlog *backlog);

/** backlog_add() - A line, which comes in whole or is lost. */
void backlog_add(struct backlog *backlog, const char *line, size_t size);

/** backlog_add_plain() - A text as it is, with nothing before and behind it. Return: false when there is no room for it. */
bool backlog_add_plain(struct backlog *backlog, const char *text);

/** backlog_take() - Move what waits, oldest first. Return: octets, at most @max. */
size_t backlog_take(struct backlog *backlog, char *out, size_t max);

#endif
