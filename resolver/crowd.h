/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_RESOLVER_CROWD_H
#define SLUICE_RESOLVER_CROWD_H

/*
 * Who crowds a UDP socket, and the filter that keeps them from filling it. Between two turns of the worker a flood can fill a socket's
 * buffer, and then the kernel drops whatever comes, also what others send. So while a socket is crowded it has a filter (classic BPF,
 * SO_ATTACH_FILTER), which lets only a random part of what the heaviest sources send into the buffer.
 */

#include <stdbool.h>
#include <stdint.h>

#include "common/address.h"

#define CROWD_SOURCES    8     /* that are held back at once */
#define CROWD_KEEP_ALL   65536 /* of so many datagrams ... */
#define CROWD_KEEP_LEAST 64    /* ... so many are let through at least */
#define CROWD_TICK_MS    50    /* how often crowd_tick() is to be called */
#define CROWD_ACTIVE     32    /* datagrams in a tick: the source goes on, and is let through more soon when there is time for it */

struct crowd_source {
	struct address address;
	uint32_t keep;      /* of CROWD_KEEP_ALL */
	unsigned int taken; /* datagrams since the last tick */
	bool too_many;      /* since the last tick: not all of them were served */
};

struct crowd {
	int fd;             /* not owned */
	uint32_t drops;     /* as the kernel counts for the socket, when we last looked; wraps */
	unsigned int count; /* of sources; 0: it is not crowded, and has no filter */
	bool changed;       /* the filter is another one now */
	struct crowd_source sources[CROWD_SOURCES];
};

/** crowd_init() - A new UDP socket, IPv4 or IPv6 only, which has to live as long. */
void crowd_init(struct crowd *crowd, int fd);

/**
 * crowd_look() - Ask the kernel about the socket
 * @dropped:	what the kernel has dropped since the last time is added: no room, held back by the filter, or a wrong checksum
 * Return: whether the socket is more than half full.
 */
bool crowd_look(struct crowd *crowd, uint64_t *dropped);

/**
 * crowd_report() - In this turn @taken datagrams of @address were taken out of the socket, and each source was served @each at most
 * @pressed:	there is too much in the socket: who has had all that it may have puts half as much into it from now on
 * @all:	nothing more waited: what was taken is what came since the last turn
 *
 * Twice what is served is let through, so that there is always something to do. Takes effect with crowd_apply().
 */
void crowd_report(struct crowd *crowd, const struct address *address, unsigned int taken, unsigned int each, bool pressed, bool all);

/** crowd_tick() - CROWD_TICK_MS have passed: let more through. Takes effect with crowd_apply(). */
void crowd_tick(struct crowd *crowd);

/** crowd_apply() - Attach, replace or remove the filter, if it has changed. The kernel without memory for it goes on with the old one. */
void crowd_apply(struct crowd *crowd);

#endif
