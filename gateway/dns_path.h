/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_DNS_PATH_H
#define SLUICE_GATEWAY_DNS_PATH_H

/*
 * Does an app ask us for names? One that never did and uses addresses that no answer showed has, most likely, no `dns:` in its Compose
 * file: engines from 28 on then ask the host's name servers, from the host, and we never see the question. It is told once per source.
 *
 * What can only be a guess is not said: not about an IPv6 source whose container is not known, and no more once a table is full.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/address.h"
#include "common/log.h"
#include "common/policy.h"
#include "gateway/apps.h"

#define DNS_PATH_ASKERS_MAX 8192 /* sources that asked, all networks together; above it nothing is told any more */
#define DNS_PATH_TOLD_MAX   256  /* sources that a line was written about, since the start of the worker */

struct dns_path; /* dns_path.c */

/**
 * dns_path_new() - @log and @apps stay the caller's and must outlive it
 * @restarted:	questions that came before this worker are not known, and the line says so
 * Return: NULL when out of memory.
 */
struct dns_path *dns_path_new(struct log *log, struct apps *apps, bool restarted);

/** dns_path_free() - After apps_close(), which ends what waits for a container's name. */
void dns_path_free(struct dns_path *path);

/** dns_path_is_known() - Did this source ask before? Called for every question: one hash at most, no memory. */
bool dns_path_is_known(struct dns_path *path, uint16_t network, const struct address *source);

/**
 * dns_path_asked() - A question came from a source that is not known yet
 * @container:	the IPv4 address of the same container, or the source itself in a network without IPv4; family 0: not known
 */
void dns_path_asked(struct dns_path *path, uint16_t network, const struct address *source, const struct address *container);

/**
 * dns_path_stranger() - A flow went to an address that no answer showed to its network: tell it, if its source never asked, once
 * @container:	as above
 */
void dns_path_stranger(struct dns_path *path, const struct network *network, const struct address *source, const struct address *container);

/** dns_path_strangers() - Those that were told about and have not asked since, for `health`. Return: a new array; NULL: out of memory. */
json_t *dns_path_strangers(const struct dns_path *path);

#endif
