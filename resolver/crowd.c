/* SPDX-License-Identifier: MIT */
/*
 * Who crowds a UDP socket.
 *
 * Theory of operation: for each source that is held back there is a part of its datagrams that the filter keeps, at random. A turn that
 * shows that too much of a source comes lowers it at once; so the next turns find about twice as much of the source as they serve. Ticks
 * raise it: by half when nothing of the source was dropped after it had been taken, for then the filter holds back what there is time for,
 * and otherwise slowly, doubled in a second, for a source that is silent now may come back. A source whose part is the whole is forgotten.
 *
 * A filter is replaced as a whole (SO_ATTACH_FILTER), and no datagram sees none in between.
 */

#include "resolver/crowd.h"

#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>

#define SOURCE_AT_IPV4 12 /* octets into the header */
#define SOURCE_AT_IPV6 8
#define WORDS_MAX      4                   /* of an address */
#define PER_SOURCE     (2 * WORDS_MAX + 5) /* instructions at most */

struct program {
	struct sock_filter code[CROWD_SOURCES * PER_SOURCE + 1];
	unsigned short length;
};

void crowd_init(struct crowd *crowd, int fd)
{
	*crowd = (struct crowd){.fd = fd};
}

bool crowd_look(struct crowd *crowd, uint64_t *dropped)
{
	uint32_t memory[SK_MEMINFO_VARS];
	socklen_t length = sizeof(memory);

	if (getsockopt(crowd->fd, SOL_SOCKET, SO_MEMINFO, memory, &length) || length < sizeof(memory))
		return false;
	*dropped += memory[SK_MEMINFO_DROPS] - crowd->drops;
	crowd->drops = memory[SK_MEMINFO_DROPS];
	return memory[SK_MEMINFO_RMEM_ALLOC] > memory[SK_MEMINFO_RCVBUF] / 2;
}

static struct crowd_source *find_source(struct crowd *crowd, const struct address *address)
{
	for (unsigned int i = 0; i < crowd->count; i++) {
		if (address_equal(&crowd->sources[i].address, address))
			return &crowd->sources[i];
	}
	return NULL;
}

/* When all places are taken the one that is held back least makes room, unless that is much. */
static struct crowd_source *add_source(struct crowd *crowd, const struct address *address)
{
	struct crowd_source *source = &crowd->sources[0];

	if (crowd->count < CROWD_SOURCES) {
		source = &crowd->sources[crowd->count++];
	} else {
		for (unsigned int i = 1; i < CROWD_SOURCES; i++) {
			if (crowd->sources[i].keep > source->keep)
				source = &crowd->sources[i];
		}
		if (source->keep < CROWD_KEEP_ALL / 2)
			return NULL;
	}
	*source = (struct crowd_source){.address = *address, .keep = CROWD_KEEP_ALL};
	return source;
}

/* Let @part of @whole datagrams through, of those that come through now. */
static void lower(struct crowd *crowd, struct crowd_source *source, unsigned int part, unsigned int whole)
{
	uint64_t keep = (uint64_t)source->keep * part / whole;

	source->keep = keep < CROWD_KEEP_LEAST ? CROWD_KEEP_LEAST : (uint32_t)keep;
	crowd->changed = true;
}

void crowd_report(struct crowd *crowd, const struct address *address, unsigned int taken, unsigned int each, bool pressed, bool all)
{
	bool crowds = pressed ? taken >= each : all && taken / 2 > each;
	struct crowd_source *source = find_source(crowd, address);

	if (!source && crowds)
		source = add_source(crowd, address);
	if (!source)
		return;
	source->taken += taken;
	source->too_many |= crowds || taken > each;
	if (!crowds)
		return;
	if (pressed && taken / 4 < each)
		lower(crowd, source, 1, 2);
	else
		lower(crowd, source, 2 * each, taken);
}

void crowd_tick(struct crowd *crowd)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < crowd->count; i++) {
		struct crowd_source source = crowd->sources[i];

		if (!source.too_many && source.taken >= CROWD_ACTIVE)
			source.keep += source.keep / 2;
		else if (!source.too_many)
			source.keep += source.keep / 28; /* 1.0357 to the 20th is 2 */
		crowd->changed |= source.keep != crowd->sources[i].keep;
		source.taken = 0;
		source.too_many = false;
		if (source.keep < CROWD_KEEP_ALL)
			crowd->sources[kept++] = source;
	}
	crowd->count = kept;
}

static void put(struct program *program, uint16_t code, uint8_t if_true, uint8_t if_false, uint32_t k)
{
	program->code[program->length++] = (struct sock_filter){.code = code, .jt = if_true, .jf = if_false, .k = k};
}

/* A datagram of this source: all of it or nothing. One of another: what follows. */
static void put_source(struct program *program, const struct crowd_source *source)
{
	const bool ipv6 = source->address.family == AF_INET6;
	const uint32_t at = (uint32_t)SKF_NET_OFF + (ipv6 ? SOURCE_AT_IPV6 : SOURCE_AT_IPV4);
	const unsigned int words = ipv6 ? WORDS_MAX : 1, size = 2 * words + 5;

	for (unsigned int i = 0; i < words; i++) {
		uint32_t word;

		memcpy(&word, source->address.bytes + i * sizeof(word), sizeof(word));
		put(program, BPF_LD | BPF_W | BPF_ABS, 0, 0, at + i * (uint32_t)sizeof(word));
		put(program, BPF_JMP | BPF_JEQ | BPF_K, 0, (uint8_t)(size - 2 * (i + 1)), ntohl(word));
	}
	put(program, BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)(SKF_AD_OFF + SKF_AD_RANDOM));
	put(program, BPF_ALU | BPF_AND | BPF_K, 0, 0, CROWD_KEEP_ALL - 1);
	put(program, BPF_JMP | BPF_JGE | BPF_K, 0, 1, source->keep);
	put(program, BPF_RET | BPF_K, 0, 0, 0);
	put(program, BPF_RET | BPF_K, 0, 0, UINT32_MAX);
}

void crowd_apply(struct crowd *crowd)
{
	struct program program = {.length = 0};
	struct sock_fprog filter = {.filter = program.code};
	const int none = 0;

	if (!crowd->changed)
		return;
	crowd->changed = false;
	if (!crowd->count) {
		(void)setsockopt(crowd->fd, SOL_SOCKET, SO_DETACH_FILTER, &none, sizeof(none));
		return;
	}
	for (unsigned int i = 0; i < crowd->count; i++)
		put_source(&program, &crowd->sources[i]);
	put(&program, BPF_RET | BPF_K, 0, 0, UINT32_MAX);
	filter.len = program.length;
	(void)setsockopt(crowd->fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter));
}
