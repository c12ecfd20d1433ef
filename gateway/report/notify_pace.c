/* SPDX-License-Identifier: MIT */
#include "gateway/report/notify_pace.h"

uint64_t notify_pace_next(const struct notify_pace *pace)
{
	uint64_t next = pace->retry_at;

	if (pace->count > 0) {
		uint64_t after = pace->times[(pace->count - 1) % NOTIFY_PER_HOUR] + NOTIFY_GAP_MS;

		next = after > next ? after : next;
	}
	if (pace->count >= NOTIFY_PER_HOUR) {
		uint64_t after = pace->times[pace->count % NOTIFY_PER_HOUR] + NOTIFY_HOUR_MS;

		next = after > next ? after : next;
	}
	return next;
}

void notify_pace_begin(struct notify_pace *pace, uint64_t now)
{
	pace->times[pace->count++ % NOTIFY_PER_HOUR] = now;
	pace->retry_at = 0;
}

bool notify_pace_failed(struct notify_pace *pace, uint64_t now)
{
	if (++pace->tries >= NOTIFY_TRIES) {
		notify_pace_done(pace);
		return false;
	}
	pace->retry_at = now + (pace->tries == 1 ? NOTIFY_RETRY_MS : NOTIFY_RETRY_MS_2);
	return true;
}

void notify_pace_done(struct notify_pace *pace)
{
	pace->tries = 0;
	pace->retry_at = 0;
}
