/* SPDX-License-Identifier: MIT */
#include "gateway/journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAGIC UINT64_C(0x31656369756c53) /* "Sluice1" */

struct header {
	uint64_t magic;
	uint64_t generation;
};

/* A record: this head, then the network's name and the domain's wire form. In host byte order: the file stays on its host. */
struct head {
	uint16_t size; /* of the whole record, head included; repeated behind it, so that a torn end is noticed */
	uint8_t network_length;
	uint8_t domain_length;
	uint8_t audited;
	struct address address;
	uint64_t until; /* ms, CLOCK_BOOTTIME */
};

#define RECORD_MAX (sizeof(struct head) + POLICY_NAME_MAX + DOMAIN_WIRE_MAX + sizeof(uint16_t))

/* Records on their way into a file. */
struct output {
	int file;
	off_t offset;
	size_t used;
	int rc;
	uint8_t bytes[64 * 1024];
};

/* Runs while nobody does, and no one sets it. The files do not outlive the boot. */
static uint64_t boot_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
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

static void output_record(struct output *output, const struct network *network, const struct lease *lease, uint64_t until)
{
	struct head head;
	uint16_t size;

	memset(&head, 0, sizeof(head)); /* the padding too: it goes into a file */
	head.network_length = (uint8_t)strlen(network->name);
	head.domain_length = lease->name.length;
	head.audited = lease->audited;
	head.address = lease->address;
	head.until = until;
	size = (uint16_t)(sizeof(head) + head.network_length + head.domain_length + sizeof(size));
	head.size = size;
	if (output->used + size > sizeof(output->bytes))
		output_flush(output);
	output_put(output, &head, sizeof(head));
	output_put(output, network->name, head.network_length);
	output_put(output, lease->name.wire, head.domain_length);
	output_put(output, &size, sizeof(size));
}

static int write_header(int file, uint64_t generation)
{
	struct header header = {.magic = MAGIC, .generation = generation};

	return write_at(file, &header, sizeof(header), 0);
}

/* Return: the generation of a file, 0 when it holds none. */
static uint64_t read_generation(int file)
{
	struct header header;

	if (pread(file, &header, sizeof(header), 0) != (ssize_t)sizeof(header) || header.magic != MAGIC)
		return 0;
	return header.generation;
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
	uint16_t end;

	if (available < sizeof(*head))
		return 0;
	memcpy(head, bytes, sizeof(*head));
	if (head->network_length > POLICY_NAME_MAX || head->size > available ||
	    head->size != sizeof(*head) + head->network_length + head->domain_length + sizeof(end))
		return 0;
	memcpy(&end, bytes + head->size - sizeof(end), sizeof(end));
	if (end != head->size || (head->address.family != AF_INET && head->address.family != AF_INET6))
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
	uint64_t boot, now;
	ssize_t count;
};

static void restore_one(struct restoring *restoring, const struct head *head, const char *network_name, const struct domain *name)
{
	const struct network *network = policy_network_by_name(restoring->policy, network_name);
	struct lease lease = {.address = head->address, .name = *name, .audited = head->audited != 0};

	if (network == NULL || head->until <= restoring->boot)
		return;
	lease.network = network->id;
	lease.until = restoring->now + (head->until - restoring->boot);
	if (lease_put(restoring->leases, &lease) == 0)
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

ssize_t journal_restore(struct journal *journal, const struct policy *policy, struct lease_table *leases, uint64_t now)
{
	struct restoring restoring = {.policy = policy, .leases = leases, .boot = boot_ms(), .now = now};
	size_t size = (size_t)journal->size - sizeof(struct header);
	uint8_t *bytes;

	if (journal->size <= (off_t)sizeof(struct header))
		return 0;
	bytes = malloc(size);
	if (bytes == NULL)
		return -ENOMEM;
	if (pread(journal->files[journal->current], bytes, size, sizeof(struct header)) != (ssize_t)size) {
		free(bytes);
		return -EIO;
	}
	/* The next record goes where the last whole one ends. */
	journal->size = (off_t)(sizeof(struct header) + restore_all(&restoring, bytes, size));
	free(bytes);
	return restoring.count;
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

int journal_append(struct journal *journal, const struct policy *policy, const struct grant *grants, size_t count)
{
	struct output *output = output_new(journal->files[journal->current], journal->size);
	uint64_t boot = boot_ms();
	int rc;

	if (output == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		const struct network *network = policy_network(policy, grants[i].network);
		struct lease lease = {.address = grants[i].address, .name = *grants[i].name, .audited = grants[i].audited};

		if (network != NULL)
			output_record(output, network, &lease, boot + grants[i].seconds * UINT64_C(1000));
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
	uint64_t boot, now;
};

static bool compact_one(void *context, struct lease *lease)
{
	struct compacting *compacting = context;
	const struct network *network = policy_network(compacting->policy, lease->network);

	if (network != NULL && lease->until > compacting->now)
		output_record(compacting->output, network, lease, compacting->boot + (lease->until - compacting->now));
	return true;
}

int journal_compact(struct journal *journal, const struct policy *policy, struct lease_table *leases, uint64_t now)
{
	unsigned int other = (journal->current + 1) % JOURNAL_FILES;
	struct compacting compacting = {.policy = policy, .boot = boot_ms(), .now = now};
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
