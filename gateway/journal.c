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

#define MAGIC     UINT64_C(0x33656369756c53) /* "Sluice3": another form of the file gets another number */
#define BOOT_ID   "/proc/sys/kernel/random/boot_id"
#define BOOT_SIZE 36

struct header {
	uint64_t magic;
	uint64_t generation;
	char boot[BOOT_SIZE + 4]; /* which boot the times belong to; "" is none */
	uint64_t sum;             /* of what is before it */
};

/*
 * A record: this head, the network's name, the domain's wire form, and the sum of all that. In host byte order: the file stays on its
 * host.
 */
struct head {
	uint16_t size; /* of the whole record */
	uint8_t network_length;
	uint8_t domain_length;
	uint8_t audited;
	struct address address;
	uint64_t shown, until; /* ms, CLOCK_BOOTTIME */
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
	uint8_t bytes[64 * 1024];
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

static void output_record(struct output *output, const struct network *network, const struct lease *lease, const struct moment *moment)
{
	struct head head;
	uint64_t sum;
	size_t begin;

	memset(&head, 0, sizeof(head)); /* the padding too: it goes into a file */
	head.network_length = (uint8_t)strlen(network->name);
	head.domain_length = lease->name.length;
	head.audited = lease->audited;
	head.address = lease->address;
	head.shown = to_boot(moment, lease->shown);
	head.until = to_boot(moment, lease->until);
	head.size = (uint16_t)(sizeof(head) + head.network_length + head.domain_length + sizeof(sum));
	if (output->used + head.size > sizeof(output->bytes))
		output_flush(output);
	begin = output->used;
	output_put(output, &head, sizeof(head));
	output_put(output, network->name, head.network_length);
	output_put(output, lease->name.wire, head.domain_length);
	sum = sum_of(output->bytes + begin, output->used - begin);
	output_put(output, &sum, sizeof(sum));
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

/* Takes one record apart. Return: its size, or 0 when it is damaged. */
static size_t parse_record(const uint8_t *bytes, size_t available, struct head *head, char network[static POLICY_NAME_MAX + 1],
			   struct domain *name)
{
	uint64_t sum;

	if (available < sizeof(*head))
		return 0;
	memcpy(head, bytes, sizeof(*head));
	if (head->network_length > POLICY_NAME_MAX || head->size > available ||
	    head->size != sizeof(*head) + head->network_length + head->domain_length + sizeof(sum))
		return 0;
	memcpy(&sum, bytes + head->size - sizeof(sum), sizeof(sum));
	if (sum != sum_of(bytes, head->size - sizeof(sum)) || (head->address.family != AF_INET && head->address.family != AF_INET6))
		return 0;
	memcpy(network, bytes + sizeof(*head), head->network_length);
	network[head->network_length] = '\0';
	if (domain_from_wire(bytes + sizeof(*head) + head->network_length, head->domain_length, name) != head->domain_length)
		return 0;
	return head->size;
}

/* What restoring needs to know. */
struct restoring {
	const struct policy *policy;
	struct lease_table *leases;
	struct moment moment;
	ssize_t count;
};

static void restore_one(struct restoring *restoring, const struct head *head, const char *network_name, const struct domain *name)
{
	const struct network *network = policy_network_by_name(restoring->policy, network_name);
	struct lease lease = {.address = head->address, .name = *name, .audited = head->audited != 0};

	if (network == NULL || head->until + LEASE_MEMORY_MS <= restoring->moment.boot)
		return;
	lease.network = network->id;
	lease.shown = from_boot(&restoring->moment, head->shown);
	lease.until = from_boot(&restoring->moment, head->until);
	if (lease_put(restoring->leases, &lease) == 0 && lease.until > restoring->moment.now)
		restoring->count++;
}

/* Return: how many of @size bytes were whole records. */
static size_t restore_all(struct restoring *restoring, const uint8_t *bytes, size_t size)
{
	char network[POLICY_NAME_MAX + 1];
	struct domain name;
	struct head head;
	size_t offset = 0, step;

	while ((step = parse_record(bytes + offset, size - offset, &head, network, &name)) > 0) {
		restore_one(restoring, &head, network, &name);
		offset += step;
	}
	return offset;
}

ssize_t journal_restore(struct journal *journal, const struct policy *policy, struct lease_table *leases, uint64_t now, size_t *damaged)
{
	struct restoring restoring = {.policy = policy, .leases = leases, .moment = {.boot = boot_ms(), .now = now}};
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

static struct output *output_new(int file, off_t offset)
{
	struct output *output = malloc(sizeof(*output));

	if (output != NULL) {
		output->file = file;
		output->offset = offset;
		output->used = 0;
		output->rc = 0;
	}
	return output;
}

int journal_append(struct journal *journal, const struct policy *policy, const struct lease *leases, size_t count, uint64_t now)
{
	struct output *output = output_new(journal->files[journal->current], journal->size);
	const struct moment moment = {.boot = boot_ms(), .now = now};
	int rc;

	if (output == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		const struct network *network = policy_network(policy, leases[i].network);

		if (network != NULL)
			output_record(output, network, &leases[i], &moment);
	}
	output_flush(output);
	rc = output->rc;
	if (rc == 0)
		journal->size = output->offset;
	free(output);
	return rc;
}

/* What compacting needs to know. */
struct compacting {
	const struct policy *policy;
	struct output *output;
	struct moment moment;
};

/* Ended ones as well: they are what is known of an app that caches for ever. */
static bool compact_one(void *context, struct lease *lease)
{
	struct compacting *compacting = context;
	const struct network *network = policy_network(compacting->policy, lease->network);

	if (network != NULL)
		output_record(compacting->output, network, lease, &compacting->moment);
	return true;
}

int journal_compact(struct journal *journal, const struct policy *policy, struct lease_table *leases, uint64_t now)
{
	unsigned int other = (journal->current + 1) % JOURNAL_FILES;
	struct compacting compacting = {.policy = policy, .moment = {.boot = boot_ms(), .now = now}};
	int rc;

	if (journal->size < 2 * journal->live_size + JOURNAL_SLACK)
		return 0;
	if (ftruncate(journal->files[other], 0) != 0)
		return -errno;
	compacting.output = output_new(journal->files[other], sizeof(struct header));
	if (compacting.output == NULL)
		return -ENOMEM;
	lease_each(leases, compact_one, &compacting);
	output_flush(compacting.output);
	rc = compacting.output->rc;
	if (rc == 0)
		rc = write_header(journal->files[other], journal->generation + 1);
	if (rc == 0) {
		journal->current = other;
		journal->generation++;
		journal->size = journal->live_size = compacting.output->offset;
	}
	free(compacting.output);
	return rc;
}
