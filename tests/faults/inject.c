/* SPDX-License-Identifier: MIT */
/*
 * Faults for tests: preloaded into `sluice run`, it makes calls fail while the program runs.
 *
 * Theory of operation: SLUICE_FAULTS names a file that is mapped before anything is confined; a test changes it from outside. It holds a
 * struct page, whose layout tests/netns/faults.py has as well. Only the worker, which is forked from the process that was started, has
 * faults. A netlink socket is known by what was sent into it last, or by its bus when it only listens.
 *
 * To be interposed a call has to go through the C library's public name. What the library does inside (fopen()'s open, for one) does not;
 * all that allocates does.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PAGE_FILE "SLUICE_FAULTS"
#define PROGRAM   "sluice"
#define FDS_MAX   4096 /* descriptors whose sort is known */

enum fault {
	FAULT_MEMORY,
	FAULT_NFT_SEND,   /* questions */
	FAULT_NFT_COMMIT, /* transactions */
	FAULT_NFT_RECEIVE,
	FAULT_QUEUE_SEND,
	FAULT_QUEUE_RECEIVE,
	FAULT_FLOWS_SEND, /* conntrack's list */
	FAULT_FLOWS_RECEIVE,
	FAULT_EVENTS_RECEIVE, /* conntrack's events */
	FAULT_TABLE_RECEIVE,  /* nf_tables' events */
	FAULT_ROUTE_SEND,
	FAULT_ROUTE_RECEIVE,
	FAULT_MONITOR_RECEIVE, /* rtnetlink's events */
	FAULT_SOCKET,
	FAULT_ACCEPT,
	FAULT_OPEN,
	FAULT_WRITE,  /* to files that have a name */
	FAULT_MEMFD,  /* to those that have none */
	FAULT_OUTPUT, /* to standard output */
	FAULT_SYNC,
	FAULT_RENAME,
	FAULT_TRUNCATE,
	FAULT_CONFINE, /* memory for libseccomp, which may crash of it */
	FAULT_FILTER,  /* the kernel takes no filter of system calls */
	FAULT_LANDLOCK,
	FAULT_LOOP, /* memory for libuv, which may abort of it */
	FAULTS,
};

/* Calls number @after + 1 to @after + @times since @error was set fail with it; @times below 0: all from there on. */
struct slot {
	int32_t error; /* 0: none */
	int32_t after, times;
	uint32_t calls, hits;
};

struct page {
	int64_t wall_ns;   /* added to CLOCK_REALTIME */
	int64_t uptime_ns; /* added to CLOCK_MONOTONIC and its like */
	struct slot slots[FAULTS];
};

/* NOLINTBEGIN(cert-dcl51-cpp,readability-inconsistent-declaration-parameter-name): the C library's own names, and ours for what they take
 */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);

static struct page *page;
/* Where libraries are whose memory has a fault of its own. */
static struct library {
	const char *name;
	enum fault fault;
	uintptr_t first, end;
} libraries[] = {{.name = "/libseccomp.so", .fault = FAULT_CONFINE}, {.name = "/libuv.so", .fault = FAULT_LOOP}};
#define LIBRARIES (sizeof(libraries) / sizeof(libraries[0]))
static pid_t supervisor;

/* 1 + the subsystem of nfnetlink, or one of these; 0: no netlink. */
enum { SORT_ROUTE = 1000, SORT_ROUTE_EVENTS, SORT_NETFILTER, SORT_TABLE_EVENTS };
static uint16_t sorts[FDS_MAX];

static void set_range(struct library *library, const struct dl_phdr_info *info)
{
	library->first = info->dlpi_addr;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		uintptr_t end = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;

		if (info->dlpi_phdr[i].p_type == PT_LOAD && end > library->end)
			library->end = end;
	}
}

static int find_libraries(struct dl_phdr_info *info, size_t size, void *context)
{
	(void)size;
	(void)context;
	for (size_t i = 0; i < LIBRARIES; i++) {
		if (strstr(info->dlpi_name, libraries[i].name) != NULL)
			set_range(&libraries[i], info);
	}
	return 0;
}

__attribute__((constructor)) static void open_page(void)
{
	const char *path = getenv(PAGE_FILE);
	int fd;

	if (path == NULL || strcmp(program_invocation_short_name, PROGRAM) != 0)
		return;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		abort();
	page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		abort();
	close(fd);
	supervisor = getpid();
	dl_iterate_phdr(find_libraries, NULL);
}

/* Return: true when this call is to fail; errno says with what. */
static bool fails(enum fault fault)
{
	struct slot *slot;
	int32_t error;
	uint32_t calls;

	if (page == NULL)
		return false;
	slot = &page->slots[fault];
	error = __atomic_load_n(&slot->error, __ATOMIC_ACQUIRE);
	if (error == 0 || getpid() == supervisor)
		return false;
	calls = __atomic_fetch_add(&slot->calls, 1, __ATOMIC_RELAXED);
	if (calls < (uint32_t)slot->after || (slot->times >= 0 && calls >= (uint32_t)(slot->after + slot->times)))
		return false;
	__atomic_fetch_add(&slot->hits, 1, __ATOMIC_RELAXED);
	errno = error;
	return true;
}

#define NEXT(name) ((__typeof__(&(name)))(uintptr_t)dlsym(RTLD_NEXT, #name))
#define REAL(name)                                                                                                                         \
	({                                                                                                                                 \
		static __typeof__(&(name)) real;                                                                                           \
		if (real == NULL)                                                                                                          \
			real = NEXT(name);                                                                                                 \
		real;                                                                                                                      \
	})

/* --- memory --- */

static bool memory_fails(const void *caller)
{
	for (size_t i = 0; i < LIBRARIES; i++) {
		if ((uintptr_t)caller >= libraries[i].first && (uintptr_t)caller < libraries[i].end)
			return fails(libraries[i].fault);
	}
	return fails(FAULT_MEMORY);
}

void *malloc(size_t size)
{
	return memory_fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	return memory_fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
	return size > 0 && memory_fails(__builtin_return_address(0)) ? NULL : __libc_realloc(old, size);
}

/* --- netlink --- */

static uint16_t sort_of(int fd)
{
	return fd >= 0 && fd < FDS_MAX ? sorts[fd] : 0;
}

static void set_sort(int fd, uint16_t sort)
{
	if (fd >= 0 && fd < FDS_MAX)
		sorts[fd] = sort;
}

static bool send_fails(int fd, const void *bytes, size_t size)
{
	const struct nlmsghdr *message = bytes;
	uint16_t type;

	if (sort_of(fd) == 0 || size < sizeof(*message))
		return false;
	if (sort_of(fd) == SORT_ROUTE)
		return fails(FAULT_ROUTE_SEND);
	type = message->nlmsg_type;
	set_sort(fd, (uint16_t)(1 + (type == NFNL_MSG_BATCH_BEGIN ? NFNL_SUBSYS_NFTABLES : NFNL_SUBSYS_ID(type))));
	if (type == NFNL_MSG_BATCH_BEGIN)
		return fails(FAULT_NFT_COMMIT);
	switch (NFNL_SUBSYS_ID(type)) {
	case NFNL_SUBSYS_NFTABLES: return fails(FAULT_NFT_SEND);
	case NFNL_SUBSYS_QUEUE: return fails(FAULT_QUEUE_SEND);
	case NFNL_SUBSYS_CTNETLINK: return fails(FAULT_FLOWS_SEND);
	}
	return false;
}

static bool receive_fails(int fd)
{
	switch (sort_of(fd)) {
	case SORT_ROUTE: return fails(FAULT_ROUTE_RECEIVE);
	case SORT_ROUTE_EVENTS: return fails(FAULT_MONITOR_RECEIVE);
	case SORT_NETFILTER: return fails(FAULT_EVENTS_RECEIVE);
	case SORT_TABLE_EVENTS: return fails(FAULT_TABLE_RECEIVE);
	case 1 + NFNL_SUBSYS_NFTABLES: return fails(FAULT_NFT_RECEIVE);
	case 1 + NFNL_SUBSYS_QUEUE: return fails(FAULT_QUEUE_RECEIVE);
	case 1 + NFNL_SUBSYS_CTNETLINK: return fails(FAULT_FLOWS_RECEIVE);
	}
	return false;
}

int socket(int domain, int type, int protocol)
{
	int fd = fails(FAULT_SOCKET) ? -1 : REAL(socket)(domain, type, protocol);

	set_sort(fd, domain != AF_NETLINK ? 0 : protocol == NETLINK_ROUTE ? SORT_ROUTE : SORT_NETFILTER);
	return fd;
}

int bind(int fd, const struct sockaddr *address, socklen_t size)
{
	uint32_t groups = sort_of(fd) != 0 ? ((const struct sockaddr_nl *)(const void *)address)->nl_groups : 0;

	if (sort_of(fd) == SORT_ROUTE && groups != 0)
		set_sort(fd, SORT_ROUTE_EVENTS);
	if (sort_of(fd) == SORT_NETFILTER && groups == 1U << (NFNLGRP_NFTABLES - 1))
		set_sort(fd, SORT_TABLE_EVENTS);
	return REAL(bind)(fd, address, size);
}

int close(int fd)
{
	set_sort(fd, 0);
	return REAL(close)(fd);
}

ssize_t sendto(int fd, const void *bytes, size_t size, int flags, const struct sockaddr *to, socklen_t to_size)
{
	return send_fails(fd, bytes, size) ? -1 : REAL(sendto)(fd, bytes, size, flags, to, to_size);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	const struct iovec *first = message->msg_iov;

	return message->msg_iovlen > 0 && send_fails(fd, first->iov_base, first->iov_len) ? -1 : REAL(sendmsg)(fd, message, flags);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	return receive_fails(fd) ? -1 : REAL(recvmsg)(fd, message, flags);
}

ssize_t recvfrom(int fd, void *restrict bytes, size_t size, int flags, struct sockaddr *restrict from, socklen_t *restrict from_size)
{
	return receive_fails(fd) ? -1 : REAL(recvfrom)(fd, bytes, size, flags, from, from_size);
}

ssize_t recv(int fd, void *bytes, size_t size, int flags)
{
	return receive_fails(fd) ? -1 : REAL(recv)(fd, bytes, size, flags);
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags, struct timespec *timeout)
{
	return receive_fails(fd) ? -1 : REAL(recvmmsg)(fd, messages, count, flags, timeout);
}

/* --- descriptors --- */

int accept4(int fd, struct sockaddr *restrict address, socklen_t *restrict size, int flags)
{
	return fails(FAULT_ACCEPT) ? -1 : REAL(accept4)(fd, address, size, flags);
}

int accept(int fd, struct sockaddr *restrict address, socklen_t *restrict size)
{
	return fails(FAULT_ACCEPT) ? -1 : REAL(accept)(fd, address, size);
}

static mode_t mode_of(int flags, va_list arguments)
{
	return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

int openat(int directory, const char *path, int flags, ...)
{
	va_list arguments;
	mode_t mode;

	va_start(arguments, flags);
	mode = mode_of(flags, arguments);
	va_end(arguments);
	return fails(FAULT_OPEN) ? -1 : REAL(openat)(directory, path, flags, mode);
}

int open(const char *path, int flags, ...)
{
	va_list arguments;
	mode_t mode;

	va_start(arguments, flags);
	mode = mode_of(flags, arguments);
	va_end(arguments);
	return fails(FAULT_OPEN) ? -1 : REAL(open)(path, flags, mode);
}

/* --- files --- */

static bool write_fails(int fd)
{
	struct stat status;

	if (page == NULL || getpid() == supervisor)
		return false;
	if (fd == STDOUT_FILENO)
		return fails(FAULT_OUTPUT);
	if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode))
		return false;
	return fails(status.st_nlink > 0 ? FAULT_WRITE : FAULT_MEMFD);
}

ssize_t write(int fd, const void *bytes, size_t size)
{
	return write_fails(fd) ? -1 : REAL(write)(fd, bytes, size);
}

ssize_t writev(int fd, const struct iovec *vectors, int count)
{
	return write_fails(fd) ? -1 : REAL(writev)(fd, vectors, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
	return write_fails(fd) ? -1 : REAL(pwrite)(fd, bytes, size, offset);
}

int fsync(int fd)
{
	return fails(FAULT_SYNC) ? -1 : REAL(fsync)(fd);
}

int fdatasync(int fd)
{
	return fails(FAULT_SYNC) ? -1 : REAL(fdatasync)(fd);
}

int ftruncate(int fd, off_t size)
{
	return fails(FAULT_TRUNCATE) ? -1 : REAL(ftruncate)(fd, size);
}

int rename(const char *from, const char *to)
{
	return fails(FAULT_RENAME) ? -1 : REAL(rename)(from, to);
}

int renameat(int from_directory, const char *from, int to_directory, const char *to)
{
	return fails(FAULT_RENAME) ? -1 : REAL(renameat)(from_directory, from, to_directory, to);
}

/* --- what has no function of its own --- */

long syscall(long number, ...)
{
	va_list arguments;
	long given[6];

	va_start(arguments, number);
	for (int i = 0; i < 6; i++)
		given[i] = va_arg(arguments, long);
	va_end(arguments);
	if ((number == SYS_seccomp && fails(FAULT_FILTER)) || (number == SYS_landlock_create_ruleset && fails(FAULT_LANDLOCK)))
		return -1;
	return REAL(syscall)(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}

/* --- clocks --- */

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int rc = REAL(clock_gettime)(clock, now);
	int64_t total, offset = 0;

	if (rc != 0 || page == NULL)
		return rc;
	if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
		offset = __atomic_load_n(&page->wall_ns, __ATOMIC_RELAXED);
	else if (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE || clock == CLOCK_BOOTTIME)
		offset = __atomic_load_n(&page->uptime_ns, __ATOMIC_RELAXED);
	total = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + offset;
	now->tv_sec = (time_t)(total / 1000000000);
	now->tv_nsec = (long)(total % 1000000000);
	return 0;
}

time_t time(time_t *out)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (out != NULL)
		*out = now.tv_sec;
	return now.tv_sec;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone)
{
	struct timespec now;

	(void)zone;
	clock_gettime(CLOCK_REALTIME, &now);
	*out = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
	return 0;
}
/* NOLINTEND(cert-dcl51-cpp,readability-inconsistent-declaration-parameter-name) */
