/* SPDX-License-Identifier: MIT */
#include "gateway/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium/crypto_shorthash.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAGIC     UINT64_C(0x34656369756c53) /* "Sluice4": another form of the file gets another number */
#define BOOT_ID   "/proc/sys/kernel/random/boot_id"
#define BOOT_SIZE 36

struct header {
	uint64_t magic;
	uint64_t generation;
	char boot[BOOT_SIZE + 4]; /* which boot the times belong to; "" is none */
	uint64_t sum;             /* of what is before it */
};

enum kind { KIND_LEASE = 1, KIND_MAPPING = 2 };

/*
 * A record: this head, the body of its kind, the network's name, the domain's wire form, of a lease its CNAME chain, and the sum of all
 * that. In host byte order: the file stays on its host.
 */
struct head {
	uint16_t size; /* of the whole record */
	uint8_t kind;  /* enum kind */
	uint8_t network_length;
	uint8_t domain_length;
};

/* Times are ms, CLOCK_BOOTTIME. */
struct lease_body {
	uint64_t shown, until;
	struct address address;
	uint16_t chain_length; /* octets */
	uint8_t audited;
};

struct mapping_body {
	uint64_t answered, used;
	struct address address, real;
	uint32_t ttl;
	uint8_t slot;
};

/* A record that is being written or was read. */
struct record {
	enum kind kind;
	union {
		struct lease_body lease;
		struct mapping_body mapping;
	} body;
	char network[POLICY_NAME_MAX + 1];
	struct domain domain;
	struct chain chain; /* of a lease; not owned */
};

/* One moment on two clocks, ms: CLOCK_BOOTTIME, and the leases' clock, which begins with the boot as well, or later. */
struct moment {
	uint64_t boot, now;
};

/* Records on their way into a file. */
struct output {
	int file;
	off_t offset;
	size_t used;
	int rc;
	uint8_t bytes[32 * 1024];
};

/* Against damage, not against an attacker: who can write the file can write another sum as well. */
static uint64_t sum_of(const void *bytes, size_t size)
{
	static const uint8_t key[crypto_shorthash_KEYBYTES];
	uint8_t hash[crypto_shorthash_BYTES];
	uint64_t sum;

	_Static_assert(sizeof(sum) == sizeof(hash), "the whole hash");
	(void)crypto_shorthash(hash, bytes, size, key);
	memcpy(&sum, hash, sizeof(sum));
	return sum;
}

/* Where the kernel does not say which boot this is, no file is trusted that was there before. */
static void read_boot_id(char out[static BOOT_SIZE + 4])
{
	int file = open(BOOT_ID, O_RDONLY | O_CLOEXEC);

	memset(out, 0, BOOT_SIZE + 4);
	if (file >= 0 && read(file, out, BOOT_SIZE) != BOOT_SIZE)
		memset(out, 0, BOOT_SIZE);
	if (file >= 0)
		close(file);
}

/* Runs while nobody does, and no one sets it. It begins anew with every boot, as the apps do. */
static uint64_t boot_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t to_boot(const struct moment *moment, uint64_t time)
{
	return moment->boot + time - moment->now;
}

/* Times before the leases' clock began are its beginning. */
static uint64_t from_boot(const struct moment *moment, uint64_t time)
{
	uint64_t before = moment->boot - moment->now;

	return time > before ? time - before : 0;
}

static int write_at(int file, const void *bytes, size_t size, off_t offset)
{
	ssize_t written;

	do
		written = pwrite(file, bytes, size, offset);
	while (written < 0 && errno == EINTR);
	if (written < 0)
		return -errno;
	return (size_t)written == size ? 0 : -ENOSPC;
}

static void output_flush(struct output *output)
{
	if (output->rc == 0 && output->used > 0)
		output->rc = write_at(output->file, output->bytes, output->used, output->offset);
	if (output->rc == 0)
		output->offset += (off_t)output->used;
	output->used = 0;
}

static void output_put(struct output *output, const void *bytes, size_t size)
{
	memcpy(output->bytes + output->used, bytes, size);
	output->used += size;
}

/* Of the body. Return: 0 when there is no such kind. */
static size_t body_size(unsigned int kind)
{
	switch (kind) {
	case KIND_LEASE: return sizeof(struct lease_body);
	case KIND_MAPPING: return sizeof(struct mapping_body);
	default: return 0;
	}
}

static size_t record_size(const struct head *head, size_t chain_length)
{
	return sizeof(*head) + body_size(head->kind) + head->network_length + head->domain_length + chain_length + sizeof(uint64_t);
}

static void output_record(struct output *output, const struct record *record)
{
	struct head head;
	uint64_t sum;
	size_t begin;

	_Static_assert(sizeof(head) + sizeof(record->body) + POLICY_NAME_MAX + DOMAIN_WIRE_MAX + CHAIN_WIRE_MAX + sizeof(sum) <
				       sizeof(output->bytes) &&
			       sizeof(output->bytes) < UINT16_MAX,
		       "any record fits into the output, and its size into the head");
	memset(&head, 0, sizeof(head)); /* the padding too: it goes into a file */
	head.kind = (uint8_t)record->kind;
	head.network_length = (uint8_t)strlen(record->network);
	head.domain_length = record->domain.length;
	head.size = (uint16_t)record_size(&head, record->chain.length);
	if (output->used + head.size > sizeof(output->bytes))
		output_flush(output);
	begin = output->used;
	output_put(output, &head, sizeof(head));
	output_put(output, &record->body, body_size(head.kind));
	output_put(output, record->network, head.network_length);
	output_put(output, record->domain.wire, head.domain_length);
	if (record->chain.length > 0)
		output_put(output, record->chain.wire, record->chain.length);
	sum = sum_of(output->bytes + begin, output->used - begin);
	output_put(output, &sum, sizeof(sum));
}

/* What compacting or appending needs to know. */
struct writing {
	const struct policy *policy;
	struct output *output;
	struct moment moment;
};

/* A record without its body, all of it zero: the padding too. Return: false when the policy has no such network. */
static bool begin_record(const struct writing *writing, enum kind kind, uint16_t network_id, const struct domain *domain,
			 struct record *out)
{
	const struct network *network = policy_network(writing->policy, network_id);

	if (network == NULL)
		return false;
	memset(out, 0, sizeof(*out));
	out->kind = kind;
	out->domain = *domain;
	memcpy(out->network, network->name, sizeof(out->network));
	return true;
}

static void write_lease(const struct writing *writing, const struct lease *lease)
{
	struct record record;

	if (!begin_record(writing, KIND_LEASE, lease->network, &lease->name, &record))
		return;
	record.body.lease.address = lease->address;
	record.body.lease.audited = lease->audited;
	record.body.lease.shown = to_boot(&writing->moment, lease->shown);
	record.body.lease.until = to_boot(&writing->moment, lease->until);
	record.body.lease.chain_length = (uint16_t)lease->chain.length;
	record.chain = lease->chain;
	output_record(writing->output, &record);
}

static void write_mapping(const struct writing *writing, const struct mapping *mapping)
{
	struct record record;

	if (!begin_record(writing, KIND_MAPPING, mapping->network, &mapping->name, &record))
		return;
	record.body.mapping.address = mapping->address;
	record.body.mapping.real = mapping->real;
	record.body.mapping.slot = mapping->slot;
	record.body.mapping.ttl = mapping->ttl;
	record.body.mapping.answered = to_boot(&writing->moment, mapping->answered);
	record.body.mapping.used = to_boot(&writing->moment, mapping->used);
	output_record(writing->output, &record);
}

static int write_header(int file, uint64_t generation)
{
	struct header header = {.magic = MAGIC, .generation = generation};

	read_boot_id(header.boot);
	header.sum = sum_of(&header, offsetof(struct header, sum));
	return write_at(file, &header, sizeof(header), 0);
}

static bool read_header(int file, struct header *header)
{
	return pread(file, header, sizeof(*header), 0) == (ssize_t)sizeof(*header) && header->magic == MAGIC &&
	       header->sum == sum_of(header, offsetof(struct header, sum));
}

/* Return: the generation of a file, 0 when it holds none of this boot. */
static uint64_t read_generation(int file)
{
	char boot[BOOT_SIZE + 4];
	struct header header;

	read_boot_id(boot);
	if (!read_header(file, &header) || boot[0] == '\0' || memcmp(boot, header.boot, sizeof(boot)) != 0)
		return 0;
	return header.generation;
}

bool journal_knows(int file)
{
	struct header header;
	struct stat status;

	/* A header that is being written for the first time may be torn; a file without one has nothing to lose. */
	return fstat(file, &status) == 0 && (status.st_size < (off_t)sizeof(header) || read_header(file, &header));
}

int journal_open(struct journal *journal, const int files[static JOURNAL_FILES])
{
	uint64_t generations[JOURNAL_FILES];
	struct stat status;
	int rc = 0;

	*journal = (struct journal){0};
	for (unsigned int i = 0; i < JOURNAL_FILES; i++) {
		journal->files[i] = files[i];
		generations[i] = read_generation(files[i]);
	}
	journal->current = generations[1] > generations[0] ? 1 : 0;
	journal->generation = generations[journal->current];
	if (journal->generation == 0) {
		journal->generation = 1;
		rc = ftruncate(files[0], 0) == 0 ? write_header(files[0], 1) : -errno;
	}
	if (rc == 0 && fstat(files[journal->current], &status) != 0)
		rc = -errno;
	if (rc == 0)
		journal->size = journal->live_size = status.st_size;
	return rc;
}

static bool is_address(const struct address *address)
{
	return address->family == AF_INET || address->family == AF_INET6;
}

/* Is the body, which was read with a sum that is right, one that we could have written? */
static bool body_is_valid(const struct record *record)
{
	const struct mapping_body *mapping = &record->body.mapping;

	if (record->kind == KIND_LEASE)
		return is_address(&record->body.lease.address) && chain_is_whole(&record->chain);
	return is_address(&mapping->address) && mapping->real.family == mapping->address.family && mapping->slot < MAPPING_PER_NAME_MAX;
}

/* The head and the sum. Return: the record's size, or 0 when it is damaged. */
static size_t check_record(const uint8_t *bytes, size_t available, struct head *head)
{
	uint64_t sum;

	if (available < sizeof(*head))
		return 0;
	memcpy(head, bytes, sizeof(*head));
	if (head->size > available || body_size(head->kind) == 0 || head->network_length > POLICY_NAME_MAX ||
	    head->size < record_size(head, 0))
		return 0;
	memcpy(&sum, bytes + head->size - sizeof(sum), sizeof(sum));
	return sum == sum_of(bytes, head->size - sizeof(sum)) ? head->size : 0;
}

/* Takes one record apart; its chain stays in @bytes. Return: its size, or 0 when it is damaged. */
static size_t parse_record(const uint8_t *bytes, size_t available, struct record *out)
{
	struct head head;
	size_t chain_length;

	if (check_record(bytes, available, &head) == 0)
		return 0;
	*out = (struct record){.kind = head.kind};
	bytes += sizeof(head);
	memcpy(&out->body, bytes, body_size(head.kind));
	bytes += body_size(head.kind);
	memcpy(out->network, bytes, head.network_length);
	bytes += head.network_length;
	if (domain_from_wire(bytes, head.domain_length, &out->domain) != head.domain_length)
		return 0;
	chain_length = head.kind == KIND_LEASE ? out->body.lease.chain_length : 0;
	out->chain = (struct chain){bytes + head.domain_length, chain_length};
	return head.size == record_size(&head, chain_length) && body_is_valid(out) ? head.size : 0;
}

/* What restoring needs to know. */
struct restoring {
	const struct policy *policy;
	struct lease_table *leases;
	struct moment moment;
	ssize_t count;
	void (*mapped)(void *context, const struct mapping *mapping);
	void *context;
};

static void restore_lease(struct restoring *restoring, uint16_t network, const struct record *record)
{
	const struct lease_body *body = &record->body.lease;
	const struct lease lease = {
		.address = body->address,
		.network = network,
		.audited = body->audited != 0,
		.name = record->domain,
		.chain = record->chain,
		.shown = from_boot(&restoring->moment, body->shown),
		.until = from_boot(&restoring->moment, body->until),
	};

	if (body->until + LEASE_MEMORY_MS <= restoring->moment.boot)
		return;
	if (lease_put(restoring->leases, &lease) == 0 && lease.until > restoring->moment.now)
		restoring->count++;
}

static void restore_mapping(const struct restoring *restoring, uint16_t network, const struct record *record)
{
	const struct mapping_body *body = &record->body.mapping;
	const struct mapping mapping = {
		.address = body->address,
		.real = body->real,
		.network = network,
		.slot = body->slot,
		.name = record->domain,
		.answered = from_boot(&restoring->moment, body->answered),
		.used = from_boot(&restoring->moment, body->used),
		.ttl = body->ttl,
	};

	if (restoring->mapped != NULL)
		restoring->mapped(restoring->context, &mapping);
}

/* Return: how many of @size bytes were whole records. */
static size_t restore_all(struct restoring *restoring, const uint8_t *bytes, size_t size)
{
	struct record record;
	size_t offset = 0, step;

	while ((step = parse_record(bytes + offset, size - offset, &record)) > 0) {
		const struct network *network = policy_network_by_name(restoring->policy, record.network);

		if (network != NULL && record.kind == KIND_LEASE)
			restore_lease(restoring, network->id, &record);
		else if (network != NULL)
			restore_mapping(restoring, network->id, &record);
		offset += step;
	}
	return offset;
}

ssize_t journal_restore(struct journal *journal, const struct policy *policy, struct lease_table *leases, uint64_t now, size_t *damaged,
			void (*mapped)(void *context, const struct mapping *mapping), void *context)
{
	struct restoring restoring = {
		.policy = policy,
		.leases = leases,
		.moment = {.boot = boot_ms(), .now = now},
		.mapped = mapped,
		.context = context,
	};
	size_t size = (size_t)journal->size - sizeof(struct header);
	uint8_t *bytes;

	*damaged = 0;
	if (journal->size <= (off_t)sizeof(struct header))
		return 0;
	bytes = malloc(size);
	if (bytes == NULL)
		return -ENOMEM;
	if (pread(journal->files[journal->current], bytes, size, sizeof(struct header)) != (ssize_t)size) {
		free(bytes);
		return -EIO;
	}
	/* The next record goes where the last whole one ends, and nothing is left behind it. */
	*damaged = size - restore_all(&restoring, bytes, size);
	journal->size -= (off_t)*damaged;
	free(bytes);
	return *damaged == 0 || ftruncate(journal->files[journal->current], journal->size) == 0 ? restoring.count : -errno;
}

static void begin_writing(struct writing *writing, const struct policy *policy, int file, off_t offset, uint64_t now)
{
	static struct output output; /* writing ends before anything else is written */

	output.file = file;
	output.offset = offset;
	output.used = 0;
	output.rc = 0;
	*writing = (struct writing){.policy = policy, .output = &output, .moment = {.boot = boot_ms(), .now = now}};
}

/* What was written behind the current file's end belongs to it now, if all of it was. */
static int finish_append(struct journal *journal, struct writing *writing)
{
	output_flush(writing->output);
	if (writing->output->rc == 0)
		journal->size = writing->output->offset;
	return writing->output->rc;
}

int journal_append(struct journal *journal, const struct policy *policy, const struct lease *leases, size_t count, uint64_t now)
{
	struct writing writing;

	begin_writing(&writing, policy, journal->files[journal->current], journal->size, now);
	for (size_t i = 0; i < count; i++)
		write_lease(&writing, &leases[i]);
	return finish_append(journal, &writing);
}

int journal_append_mappings(struct journal *journal, const struct policy *policy, const struct mapping *mappings, size_t count,
			    uint64_t now)
{
	struct writing writing;

	begin_writing(&writing, policy, journal->files[journal->current], journal->size, now);
	for (size_t i = 0; i < count; i++)
		write_mapping(&writing, &mappings[i]);
	return finish_append(journal, &writing);
}

/* Ended ones as well: they are what is known of an app that caches for ever. */
static bool compact_lease(void *context, struct lease *lease)
{
	write_lease(context, lease);
	return true;
}

static bool compact_mapping(void *context, const struct mapping *mapping)
{
	write_mapping(context, mapping);
	return true;
}

/* Without a header nothing of it counts. */
static int finish_compact(struct journal *journal, unsigned int other, struct writing *writing)
{
	int rc;

	output_flush(writing->output);
	rc = writing->output->rc;
	if (rc == 0)
		rc = write_header(journal->files[other], journal->generation + 1);
	if (rc == 0) {
		journal->current = other;
		journal->generation++;
		journal->size = journal->live_size = writing->output->offset;
		journal->outdated = false;
	}
	return rc;
}

int journal_compact(struct journal *journal, const struct policy *policy, struct lease_table *leases, uint64_t now,
		    journal_each_mapping each_mapping, void *context)
{
	unsigned int other = (journal->current + 1) % JOURNAL_FILES;
	struct writing writing;

	if (!journal->outdated && journal->size < 2 * journal->live_size + JOURNAL_SLACK)
		return 0;
	if (ftruncate(journal->files[other], 0) != 0)
		return -errno;
	begin_writing(&writing, policy, journal->files[other], sizeof(struct header), now);
	lease_each(leases, compact_lease, &writing);
	if (each_mapping != NULL)
		each_mapping(context, compact_mapping, &writing);
	return finish_compact(journal, other, &writing);
}
