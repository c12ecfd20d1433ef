/* SPDX-License-Identifier: MIT */
/*
 * System calls: which ones, and what becomes of others. confine_filters.c puts it in force.
 *
 * Theory of operation: one table, of names; each with the last stage that has it. A stage's filter is put on top of those before, and the
 * kernel takes the strictest answer. Names that this architecture or this libseccomp does not have are passed over.
 *
 * What is on no list fails, and the program goes on: a call that was forgotten here, or that a newer library tries first, must not end a
 * worker that carries allowed traffic. The kernel raises SIGSYS (SECCOMP_RET_TRAP), whose handler names the call on standard error, once,
 * and makes it return ENOSYS; a handler that somebody has replaced changes nothing, the call is not made. What only an attacker asks for
 * kills the process: it has been taken over, and a new worker knows the leases.
 *
 * The supervisor is not replaced by a program of its own, so nobody here ever needs execve.
 */
#include "gateway/confine.h"

#include <errno.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <ucontext.h>
#include <unistd.h>

#include <linux/netlink.h>
#include <linux/sched.h>

#define CALLS_MAX 512 /* numbers that are named */

/* Where the handler knows the register of a result. Elsewhere calls just fail. */
#if defined(__x86_64__)
#define RESULT_OF(context) ((context)->uc_mcontext.gregs[REG_RAX])
#elif defined(__aarch64__)
#define RESULT_OF(context) ((context)->uc_mcontext.regs[0])
#endif

struct call {
	const char *name;
	enum confine_stage until;
};

/* Allowed whatever their arguments are. */
static const struct call calls[] = {
	/* The supervisor: workers, their memory, its own waiting. The child that fork() makes is still under this list. */
	{"kill", CONFINE_SUPERVISOR},
	{"memfd_create", CONFINE_SUPERVISOR},
	{"prctl", CONFINE_SUPERVISOR},
	{"rseq", CONFINE_SUPERVISOR},
	{"rt_sigtimedwait", CONFINE_SUPERVISOR},
	{"rt_sigtimedwait_time64", CONFINE_SUPERVISOR},
	{"set_robust_list", CONFINE_SUPERVISOR},
	{"wait4", CONFINE_SUPERVISOR},

	/* A worker's start: the next stages, the limit of descriptors, the mode of the control socket. */
	{"getcwd", CONFINE_WORKER},
	{"inotify_init1", CONFINE_WORKER},
	{"landlock_add_rule", CONFINE_WORKER},
	{"landlock_create_ruleset", CONFINE_WORKER},
	{"landlock_restrict_self", CONFINE_WORKER},
	{"prlimit64", CONFINE_WORKER},
	{"seccomp", CONFINE_WORKER},
	{"setrlimit", CONFINE_WORKER},
	{"umask", CONFINE_WORKER},

	/* The loop, and what libuv, libcurl, libmicrohttpd and OpenSSL do in it. */
	{"epoll_create1", CONFINE_LOOP},
	{"epoll_ctl", CONFINE_LOOP},
	{"epoll_pwait", CONFINE_LOOP},
	{"epoll_pwait2", CONFINE_LOOP},
	{"epoll_wait", CONFINE_LOOP},
	{"eventfd2", CONFINE_LOOP},
	{"pipe", CONFINE_LOOP},
	{"pipe2", CONFINE_LOOP},
	{"poll", CONFINE_LOOP},
	{"ppoll", CONFINE_LOOP},
	{"ppoll_time64", CONFINE_LOOP},
	{"pselect6", CONFINE_LOOP},
	{"pselect6_time64", CONFINE_LOOP},
	{"select", CONFINE_LOOP},

	/* Sockets; socket() and ioctl() have lists of their own below. */
	{"accept", CONFINE_LOOP},
	{"accept4", CONFINE_LOOP},
	{"bind", CONFINE_LOOP},
	{"connect", CONFINE_LOOP},
	{"getpeername", CONFINE_LOOP},
	{"getsockname", CONFINE_LOOP},
	{"getsockopt", CONFINE_LOOP},
	{"listen", CONFINE_LOOP},
	{"recv", CONFINE_LOOP},
	{"recvfrom", CONFINE_LOOP},
	{"recvmmsg", CONFINE_LOOP},
	{"recvmmsg_time64", CONFINE_LOOP},
	{"recvmsg", CONFINE_LOOP},
	{"send", CONFINE_LOOP},
	{"sendmmsg", CONFINE_LOOP},
	{"sendmsg", CONFINE_LOOP},
	{"sendto", CONFINE_LOOP},
	{"setsockopt", CONFINE_LOOP},
	{"shutdown", CONFINE_LOOP},

	/* Files: policy, journal, statistics, /proc. Landlock says which. */
	{"_llseek", CONFINE_LOOP},
	{"access", CONFINE_LOOP},
	{"close", CONFINE_LOOP},
	{"dup", CONFINE_LOOP},
	{"faccessat", CONFINE_LOOP},
	{"faccessat2", CONFINE_LOOP},
	{"fcntl", CONFINE_LOOP},
	{"fcntl64", CONFINE_LOOP},
	{"fdatasync", CONFINE_LOOP},
	{"flock", CONFINE_LOOP},
	{"fstat", CONFINE_LOOP},
	{"fstat64", CONFINE_LOOP},
	{"fstatat64", CONFINE_LOOP},
	{"fstatfs", CONFINE_LOOP},
	{"fstatfs64", CONFINE_LOOP},
	{"fsync", CONFINE_LOOP},
	{"ftruncate", CONFINE_LOOP},
	{"ftruncate64", CONFINE_LOOP},
	{"getdents64", CONFINE_LOOP},
	{"inotify_add_watch", CONFINE_LOOP},
	{"inotify_rm_watch", CONFINE_LOOP},
	{"lseek", CONFINE_LOOP},
	{"lstat", CONFINE_LOOP},
	{"lstat64", CONFINE_LOOP},
	{"newfstatat", CONFINE_LOOP},
	{"open", CONFINE_LOOP},
	{"openat", CONFINE_LOOP},
	{"pread64", CONFINE_LOOP},
	{"preadv", CONFINE_LOOP},
	{"pwrite64", CONFINE_LOOP},
	{"pwritev", CONFINE_LOOP},
	{"read", CONFINE_LOOP},
	{"readlink", CONFINE_LOOP},
	{"readlinkat", CONFINE_LOOP},
	{"readv", CONFINE_LOOP},
	{"rename", CONFINE_LOOP},
	{"renameat", CONFINE_LOOP},
	{"renameat2", CONFINE_LOOP},
	{"stat", CONFINE_LOOP},
	{"stat64", CONFINE_LOOP},
	{"statfs", CONFINE_LOOP},
	{"statfs64", CONFINE_LOOP},
	{"statx", CONFINE_LOOP},
	{"unlink", CONFINE_LOOP},
	{"unlinkat", CONFINE_LOOP},
	{"write", CONFINE_LOOP},
	{"writev", CONFINE_LOOP},

	/* Memory, locks, signals to itself. */
	{"alarm", CONFINE_LOOP},
	{"brk", CONFINE_LOOP},
	{"futex", CONFINE_LOOP},
	{"futex_time64", CONFINE_LOOP},
	{"madvise", CONFINE_LOOP},
	{"mremap", CONFINE_LOOP},
	{"munmap", CONFINE_LOOP},
	{"restart_syscall", CONFINE_LOOP},
	{"rt_sigaction", CONFINE_LOOP},
	{"rt_sigprocmask", CONFINE_LOOP},
	{"rt_sigreturn", CONFINE_LOOP},
	{"sched_getaffinity", CONFINE_LOOP},
	{"sched_yield", CONFINE_LOOP},
	{"setitimer", CONFINE_LOOP}, /* alarm(), where it is no call */
	{"sigreturn", CONFINE_LOOP},

	/* Clocks, where the vDSO has to ask the kernel; and who and where we are. */
	{"clock_getres", CONFINE_LOOP},
	{"clock_getres_time64", CONFINE_LOOP},
	{"clock_gettime", CONFINE_LOOP},
	{"clock_gettime64", CONFINE_LOOP},
	{"clock_nanosleep", CONFINE_LOOP},
	{"clock_nanosleep_time64", CONFINE_LOOP},
	{"getcpu", CONFINE_LOOP},
	{"getegid", CONFINE_LOOP},
	{"getegid32", CONFINE_LOOP},
	{"geteuid", CONFINE_LOOP},
	{"geteuid32", CONFINE_LOOP},
	{"getgid", CONFINE_LOOP},
	{"getgid32", CONFINE_LOOP},
	{"getpid", CONFINE_LOOP},
	{"getppid", CONFINE_LOOP},
	{"getrandom", CONFINE_LOOP},
	{"getrlimit", CONFINE_LOOP},
	{"getrusage", CONFINE_LOOP},
	{"gettid", CONFINE_LOOP},
	{"gettimeofday", CONFINE_LOOP},
	{"getuid", CONFINE_LOOP},
	{"getuid32", CONFINE_LOOP},
	{"nanosleep", CONFINE_LOOP},
	{"sysinfo", CONFINE_LOOP},
	{"time", CONFINE_LOOP},
	{"ugetrlimit", CONFINE_LOOP},
	{"uname", CONFINE_LOOP},

	{"exit", CONFINE_LOOP},
	{"exit_group", CONFINE_LOOP},
};

/* Fail without a word: libraries ask, and know what to do without. */
static const char *const probes[] = {
	"io_uring_setup", /* libuv; what is done through it is not seen by a filter */
	"clone3",         /* glibc; its flags are in memory, where a filter cannot read them. clone() follows */
};

/* Nothing in the program or its libraries makes these calls. */
static const char *const attacks[] = {
	"execve",
	"execveat",
	"ptrace",
	"process_vm_readv",
	"process_vm_writev",
	"pidfd_getfd",
	"mount",
	"umount2",
	"pivot_root",
	"chroot",
	"open_tree",
	"move_mount",
	"fsopen",
	"fsmount",
	"fsconfig",
	"fspick",
	"mount_setattr",
	"open_by_handle_at",
	"setns",
	"unshare",
	"init_module",
	"finit_module",
	"delete_module",
	"kexec_load",
	"kexec_file_load",
	"bpf",
	"perf_event_open",
	"userfaultfd",
	"keyctl",
	"add_key",
	"request_key",
	"reboot",
	"swapon",
	"swapoff",
	"iopl",
	"ioperm",
	"sethostname",
	"setdomainname",
	"settimeofday",
	"clock_settime",
	"clock_settime64",
	"capset",
	"setuid",
	"setgid",
	"setresuid",
	"setresgid",
	"setgroups",
	"personality",
};

static char *call_names[CALLS_MAX]; /* owned, for the life of the process: the handler may not allocate */
static bool told[CALLS_MAX];
static bool can_tell; /* on_refused() hears of refused calls */

static int number_of(const char *name)
{
	return seccomp_syscall_resolve_name(name);
}

/* SCMP_A0() and its like leave fields out, of which clang warns. */
static struct scmp_arg_cmp equal(unsigned int argument, scmp_datum_t value)
{
	return (struct scmp_arg_cmp){.arg = argument, .op = SCMP_CMP_EQ, .datum_a = value};
}

static struct scmp_arg_cmp masked(unsigned int argument, scmp_datum_t mask, scmp_datum_t value)
{
	return (struct scmp_arg_cmp){.arg = argument, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value};
}

static int add_table(scmp_filter_ctx filter, enum confine_stage stage)
{
	int rc = 0;

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]) && rc == 0; i++) {
		int number = number_of(calls[i].name);

		if (calls[i].until >= stage && number >= 0)
			rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);
	}
	return rc;
}

static int add_names(scmp_filter_ctx filter, uint32_t action, const char *const *names, size_t count)
{
	int rc = 0;

	for (size_t i = 0; i < count && rc == 0; i++) {
		int number = number_of(names[i]);

		if (number >= 0)
			rc = seccomp_rule_add(filter, action, number, 0);
	}
	return rc;
}

/* Types other than these two need CAP_NET_RAW, or are of no use here. */
static int add_internet_sockets(scmp_filter_ctx filter)
{
	static const int families[] = {AF_INET, AF_INET6}, types[] = {SOCK_STREAM, SOCK_DGRAM};
	int rc = 0;

	for (size_t i = 0; i < 4 && rc == 0; i++)
		rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2, equal(0, (scmp_datum_t)families[i / 2]),
				      masked(1, 0xf, (scmp_datum_t)types[i % 2]));
	return rc;
}

/* The control socket is made at the start; libcurl and libmicrohttpd wake themselves up through pairs. */
static int add_sockets(scmp_filter_ctx filter, enum confine_stage stage)
{
	static const int protocols[] = {NETLINK_NETFILTER, NETLINK_ROUTE};
	int rc = add_internet_sockets(filter);

	for (size_t i = 0; i < sizeof(protocols) / sizeof(protocols[0]) && rc == 0; i++)
		rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2, equal(0, AF_NETLINK),
				      equal(2, (scmp_datum_t)protocols[i]));
	if (rc == 0)
		rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socketpair), 1, equal(0, AF_UNIX));
	if (rc == 0 && stage < CONFINE_LOOP)
		rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, equal(0, AF_UNIX));
	return rc;
}

/* TCGETS: whether standard output is a terminal, by stdio. */
static int add_ioctls(scmp_filter_ctx filter)
{
	static const unsigned int requests[] = {FIONBIO, FIONREAD, FIOCLEX, TCGETS};
	int rc = 0;

	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]) && rc == 0; i++)
		rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, equal(1, requests[i]));
	return rc;
}

/* In the loop no page becomes executable: all libraries are there, and bound. */
static int add_mappings(scmp_filter_ctx filter, enum confine_stage stage)
{
	const struct scmp_arg_cmp plain = masked(2, PROT_EXEC, 0);
	const char *const names[] = {"mmap", "mmap2", "mprotect"};
	int rc = 0;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && rc == 0; i++) {
		int number = number_of(names[i]);

		if (number >= 0)
			rc = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, stage == CONFINE_LOOP, &plain);
	}
	return rc;
}

/* fork() without new namespaces, for the supervisor; abort() for all; the size of the descriptor table for whoever asks. */
static int add_processes(scmp_filter_ctx filter, enum confine_stage stage)
{
	const scmp_datum_t namespaces =
		CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_VM;
	int rc;

	if (stage == CONFINE_SUPERVISOR) {
		rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, masked(0, namespaces, 0));
		return rc != 0 ? rc : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 0);
	}
	rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, equal(0, CONFINE_OWN_ID));
	if (rc == 0)
		rc = seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, SCMP_SYS(kill), 0);
	if (rc == 0 && stage == CONFINE_LOOP)
		rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1, equal(2, 0));
	return rc;
}

static int add_rules(scmp_filter_ctx filter, enum confine_stage stage)
{
	int rc = add_table(filter, stage);

	if (rc == 0)
		rc = add_names(filter, SCMP_ACT_ERRNO(ENOSYS), probes, sizeof(probes) / sizeof(probes[0]));
	if (rc == 0)
		rc = add_names(filter, SCMP_ACT_KILL_PROCESS, attacks, sizeof(attacks) / sizeof(attacks[0]));
	if (rc == 0)
		rc = add_sockets(filter, stage);
	if (rc == 0)
		rc = add_ioctls(filter);
	if (rc == 0)
		rc = add_mappings(filter, stage);
	return rc == 0 ? add_processes(filter, stage) : rc;
}

#ifdef RESULT_OF
static void say_refused(int number)
{
	static const char before[] = "sluice: the system call ", after[] = " is not on the list and was refused\n";
	const char *name = call_names[number] ? call_names[number] : "of an unknown number";
	char line[sizeof(before) + sizeof(after) + 64];
	size_t size = strnlen(name, 64);

	memcpy(line, before, sizeof(before) - 1);
	memcpy(line + sizeof(before) - 1, name, size);
	memcpy(line + sizeof(before) - 1 + size, after, sizeof(after) - 1);
	if (write(STDERR_FILENO, line, sizeof(before) - 1 + size + sizeof(after) - 1) < 0)
		return; /* nobody reads it */
}

static void on_refused(int signal_number, siginfo_t *info, void *context)
{
	int before = errno;
	ucontext_t *registers = context;
	int number = info->si_syscall;

	(void)signal_number;
	if (number >= 0 && number < CALLS_MAX && !told[number]) {
		told[number] = true;
		say_refused(number);
	}
	RESULT_OF(registers) = -ENOSYS;
	errno = before;
}

void confine_calls_begin(void)
{
	struct sigaction action = {.sa_sigaction = on_refused, .sa_flags = SA_SIGINFO | SA_NODEFER};

	for (int i = 0; i < CALLS_MAX && call_names[i] == NULL; i++)
		call_names[i] = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, i);
	can_tell = sigaction(SIGSYS, &action, NULL) == 0;
}
#else
void confine_calls_begin(void)
{
}
#endif

int confine_calls_write(enum confine_stage stage, int fd)
{
	scmp_filter_ctx filter = seccomp_init(can_tell ? SCMP_ACT_TRAP : SCMP_ACT_ERRNO(ENOSYS));
	int rc;

	if (filter == NULL)
		return -ENOMEM;
	rc = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (rc == 0)
		rc = add_rules(filter, stage);
	if (rc == 0)
		rc = seccomp_export_bpf(filter, fd);
	seccomp_release(filter);
	return rc;
}
