/* SPDX-License-Identifier: MIT */
#include "gateway/openings.h"

#include <errno.h>
#include <stdlib.h>

int openings_add(struct openings *openings, const struct opening *opening)
{
	struct opening *list = reallocarray(openings->list, openings->count + 1, sizeof(*list));

	if (!list)
		return -ENOMEM;
	openings->list = list;
	list[openings->count++] = *opening;
	return 0;
}

const struct opening *openings_find(const struct openings *openings, uint8_t protocol, uint16_t port, const struct address *target,
				    uint16_t target_port)
{
	for (size_t i = 0; i < openings->count; i++) {
		const struct opening *opening = &openings->list[i];

		if (opening->protocol == protocol && port >= opening->ports.first && port <= opening->ports.last &&
		    target_port == opening->target_port + (port - opening->ports.first) && address_equal(&opening->target, target))
			return opening;
	}
	return NULL;
}

static bool opening_equal(const struct opening *a, const struct opening *b)
{
	return a->network == b->network && a->protocol == b->protocol && a->ports.first == b->ports.first &&
	       a->ports.last == b->ports.last && a->target_port == b->target_port && address_equal(&a->target, &b->target);
}

bool openings_equal(const struct openings *a, const struct openings *b)
{
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++) {
		if (!opening_equal(&a->list[i], &b->list[i]))
			return false;
	}
	return true;
}

void openings_free(struct openings *openings)
{
	free(openings->list);
	*openings = (struct openings){0};
}
