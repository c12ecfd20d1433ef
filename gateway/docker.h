/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_DOCKER_H
#define SLUICE_GATEWAY_DOCKER_H

/*
 * Questions to Docker's resolver at 127.0.0.11. It answers for containers itself and forwards what it does not know, so whoever asks here
 * must see to it that no app chooses what is asked (apps.h, publish.h).
 */

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "common/domain.h"
#include "resolver/message.h"

#define DOCKER_PORT       53
#define DOCKER_ASKING_MAX 512 /* questions under way */

struct docker; /* docker.c */

enum docker_outcome {
	DOCKER_ANSWERED,
	DOCKER_SILENT, /* no answer in time */
	DOCKER_FAILED, /* nobody listens there, or not at the moment; or docker_close() */
};

/* @answer: what Docker said, of any rcode; valid only during the call; NULL unless DOCKER_ANSWERED. */
typedef void (*docker_done)(void *context, enum docker_outcome outcome, const struct answer *answer);

/** docker_new() - @port: DOCKER_PORT but in tests. Return: NULL when out of memory. */
struct docker *docker_new(uv_loop_t *loop, uint16_t port);

/** docker_close() - Ends all questions with DOCKER_FAILED. Memory goes when the loop has run the close callbacks. */
void docker_close(struct docker *docker);

/**
 * docker_ask() - Ask without waiting
 * @done:	called exactly once when true is returned: within @timeout_ms, never before docker_ask() has returned
 * Return: false when it could not be asked (too many questions, no memory, nobody listens); when nobody listens, all questions under way
 *	have ended with DOCKER_FAILED.
 */
bool docker_ask(struct docker *docker, const struct domain *name, uint16_t type, uint32_t timeout_ms, docker_done done, void *context);

#endif
