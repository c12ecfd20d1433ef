/* SPDX-License-Identifier: MIT */
/*
 * Landlock. glibc has no functions for it, and the headers of Debian 12 know only a part of it: hence numbers and structs of our own.
 *
 * The rights that a kernel does not know are left out of what is asked for. TCP ports are not limited (ABI 4): upstream servers,
 * notifications and the far ends of flows may have any, so a list of allowed ports would hold all of them; nft's output chain limits where
 * packets go.
 */
#include "gateway/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CREATE_VERSION    1U /* LANDLOCK_CREATE_RULESET_VERSION */
#define RULE_PATH_BENEATH 1

/* LANDLOCK_ACCESS_FS_*, each with the ABI that brought it */
#define WRITE_FILE  (1ULL << 1)
#define READ_FILE   (1ULL << 2)
#define READ_DIR    (1ULL << 3)
#define REMOVE_FILE (1ULL << 5)
#define MAKE_REG    (1ULL << 8)
#define TRUNCATE    (1ULL << 14)       /* 3 */
#define ALL_OF_1    ((1ULL << 13) - 1) /* execute, write, read, make and remove of every kind */
#define REFER       (1ULL << 13)       /* 2: links and renames between directories; always refused with ABI 1 */
#define IOCTL_DEV   (1ULL << 15)       /* 5 */
#define OF_A_FILE   (WRITE_FILE | READ_FILE | TRUNCATE)
#define SCOPES_OF_6 ((1ULL << 0) | (1ULL << 1)) /* abstract sockets, and signals, of processes outside */

/* The kernel's; a shorter one is taken as well. */
struct ruleset {
	uint64_t files;
	uint64_t ports;  /* 4 */
	uint64_t scopes; /* 6 */
};

struct path_beneath {
	uint64_t allowed;
	int32_t parent;
} __attribute__((packed));

/* Of this process, and of what it forks. */
static bool limited;

static int create(const struct ruleset *ruleset, size_t size, unsigned int flags)
{
	long result = syscall(SYS_landlock_create_ruleset, ruleset, size, flags);

	return result >= 0 ? (int)result : -errno;
}

int confine_landlock(void)
{
	return create(NULL, 0, CREATE_VERSION);
}

const char *confine_landlock_missing(int rc)
{
	switch (-rc) {
	case ENOSYS: return "the kernel has no Landlock (it came with Linux 5.13)";
	case EOPNOTSUPP: return "Landlock is switched off in the kernel";
	case EPERM: return "the engine's seccomp profile forbids Landlock";
	default: return strerror(-rc);
	}
}

const char *confine_landlock_cure(int rc)
{
	switch (-rc) {
	case EOPNOTSUPP: return "boot the host with `landlock` in its `lsm=` list";
	case EPERM: return "use an engine whose default seccomp profile allows landlock_create_ruleset: Docker's does from 23.0 on";
	default: return NULL;
	}
}

static uint64_t known_files(int abi)
{
	return ALL_OF_1 | (abi >= 2 ? REFER : 0) | (abi >= 3 ? TRUNCATE : 0) | (abi >= 5 ? IOCTL_DEV : 0);
}

int confine_files_begin(struct confine_files *files)
{
	int abi = CONFINE_BUILT ? confine_landlock() : -ENOTSUP;
	struct ruleset ruleset = {.files = known_files(abi), .scopes = SCOPES_OF_6};

	files->ruleset = -1;
	if (abi < 0)
		return abi;
	files->abi = abi;
	files->ruleset = create(&ruleset, abi >= 6 ? sizeof(ruleset) : sizeof(ruleset.files), 0);
	return files->ruleset >= 0 ? 0 : files->ruleset;
}

static uint64_t rights(const struct confine_files *files, enum confine_access access, bool directory)
{
	static const uint64_t all[] = {
		[CONFINE_READ] = READ_FILE | READ_DIR,
		[CONFINE_STATE] = READ_FILE | READ_DIR | WRITE_FILE | MAKE_REG | REMOVE_FILE | TRUNCATE,
		[CONFINE_REMOVE] = REMOVE_FILE,
	};

	return all[access] & known_files(files->abi) & (directory ? UINT64_MAX : OF_A_FILE);
}

void confine_files_allow(struct confine_files *files, const char *path, enum confine_access access)
{
	struct path_beneath rule = {.parent = open(path, O_PATH | O_CLOEXEC)};
	struct stat status;

	if (rule.parent < 0)
		return;
	if (fstat(rule.parent, &status) == 0) {
		rule.allowed = rights(files, access, S_ISDIR(status.st_mode));
		(void)syscall(SYS_landlock_add_rule, files->ruleset, RULE_PATH_BENEATH, &rule, 0);
	}
	close(rule.parent);
}

/* The directory that holds it. One right below the root would be too much ("/etc", "/run"): then it is @path alone. */
static void allow_directory_of(struct confine_files *files, const char *path)
{
	const char *slash = strrchr(path, '/');
	char directory[PATH_MAX];
	size_t length = slash ? (size_t)(slash - path) : 0;

	if (length == 0 || length >= sizeof(directory) || memchr(path + 1, '/', length - 1) == NULL) {
		confine_files_allow(files, path, CONFINE_READ);
		return;
	}
	memcpy(directory, path, length);
	directory[length] = '\0';
	confine_files_allow(files, directory, CONFINE_READ);
}

void confine_files_allow_around(struct confine_files *files, const char *path)
{
	char real[PATH_MAX];

	if (path[0] == '/')
		allow_directory_of(files, path);
	else
		confine_files_allow(files, path, CONFINE_READ);
	if (realpath(path, real) != NULL && strcmp(real, path) != 0)
		allow_directory_of(files, real);
}

int confine_files_enforce(struct confine_files *files)
{
	int rc = syscall(SYS_landlock_restrict_self, files->ruleset, 0) == 0 ? 0 : -errno;

	close(files->ruleset);
	files->ruleset = -1;
	limited = limited || rc == 0;
	return rc;
}

const char *confine_files_cure(int error)
{
	if (!limited || error != EACCES)
		return "";
	return "; a running gateway reads only beside its policy, below /run/secrets, and where files were that the policy named when it "
	       "started: put the file there, or start the gateway again";
}
