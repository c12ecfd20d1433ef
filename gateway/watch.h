/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_WATCH_H
#define SLUICE_GATEWAY_WATCH_H

#include <uv.h>

#define WATCH_POLL_MS   2000 /* mtime poll, for file systems without events (bind mounts over network or VM file shares) */
#define WATCH_SETTLE_MS 200  /* quiet time before a change is reported: editors write in several steps */

struct watch;

/** watch_new() - Watch a file or directory by events and by polling; @changed is called after things have settled. NULL path:
 * nothing to watch. */
int watch_new(uv_loop_t *loop, const char *path, void (*changed)(void *context), void *context, struct watch **out);
/** watch_seen() - What is there now is about to be read: no report for it. NULL is fine. */
void watch_seen(struct watch *watch);
void watch_close(struct watch *watch);

#endif
