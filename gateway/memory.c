/* SPDX-License-Identifier: MIT */
#include "gateway/memory.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* The descriptor holds a uint64_t with the size, then that many bytes; the size is written last. */
#define CONTENT_OFFSET ((off_t)sizeof(uint64_t))
#define SIZE_LIMIT     (2 * CONFIG_TEXT_MAX)

static int write_all(int fd, const char *bytes, size_t size, off_t offset)
{
	while (size > 0) {
		ssize_t written = pwrite(fd, bytes, size, offset);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return written < 0 ? -errno : -EIO;
		bytes += written;
		offset += written;
		size -= (size_t)written;
	}
	return 0;
}

static int read_all(int fd, char *bytes, size_t size, off_t offset)
{
	while (size > 0) {
		ssize_t taken = pread(fd, bytes, size, offset);

		if (taken < 0 && errno == EINTR)
			continue;
		if (taken <= 0)
			return taken < 0 ? -errno : -ENODATA;
		bytes += taken;
		offset += taken;
		size -= (size_t)taken;
	}
	return 0;
}

int memory_put(int memory, const void *bytes, size_t size)
{
	uint64_t stored = size;
	int rc = ftruncate(memory, 0) == 0 ? write_all(memory, bytes, size, CONTENT_OFFSET) : -errno;

	return rc == 0 ? write_all(memory, (const char *)&stored, sizeof(stored), 0) : rc;
}

int memory_map(int memory, size_t size, void **out)
{
	char *map = mmap(NULL, size + CONTENT_OFFSET, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);

	if (map == MAP_FAILED)
		return -errno;
	*out = map + CONTENT_OFFSET;
	return 0;
}

void memory_unmap(void *bytes, size_t size)
{
	munmap((char *)bytes - CONTENT_OFFSET, size + CONTENT_OFFSET);
}

int memory_get(int memory, void **bytes, size_t *size)
{
	uint64_t stored = 0;
	int rc = read_all(memory, (char *)&stored, sizeof(stored), 0);

	if (rc == -ENODATA || (rc == 0 && stored == 0))
		return -ENOENT;
	if (rc != 0)
		return rc;
	if (stored > SIZE_LIMIT)
		return -EFBIG;
	*size = stored;
	*bytes = malloc(stored);
	if (*bytes == NULL)
		return -ENOMEM;
	rc = read_all(memory, *bytes, stored, CONTENT_OFFSET);
	if (rc != 0)
		free(*bytes);
	return rc;
}

int memory_put_policy(int memory, const struct config_text *text)
{
	char *bytes;
	size_t size;
	int rc = config_serialise(text, &bytes, &size);

	if (rc != 0)
		return rc;
	rc = memory_put(memory, bytes, size);
	free(bytes);
	return rc;
}

int memory_get_policy(int memory, struct config_text *out)
{
	void *bytes;
	size_t size;
	int rc = memory_get(memory, &bytes, &size);

	if (rc != 0)
		return rc;
	rc = config_deserialise(bytes, size, out);
	free(bytes);
	return rc;
}
