/* SPDX-License-Identifier: MIT */
/*
 * The whole program, with code in it that an attacker could have brought: linked from the same library as `sluice`, never installed.
 *
 * SIGUSR1 with a number (sigqueue) runs that step wherever it arrives, in the worker or the supervisor, in the middle of what the process
 * was doing: code execution, without its cause. The handler is inherited by workers. Each step prints one line on standard error, "attack
 * STEP: ERRNAME" or "attack STEP: DONE"; a step that kills the process prints nothing. tests/netns/test_confine.py knows the numbers.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* The program's own main(), under another name. */
int sluice_main(int argc, char **argv);
#define main sluice_main
#include "gateway/main.c"
#undef main

/* From the environment: files that the test has made, of the user that the program becomes. */
static const char *own_file, *policy_file, *state_file;

static long open_for(const char *path, int flags)
{
	int fd = path != NULL ? open(path, flags | O_CLOEXEC, 0600) : -1;

	if (fd >= 0)
		close(fd);
	return fd;
}

static long read_shadow(void)
{
	return open_for("/etc/shadow", O_RDONLY);
}

static long read_own_file(void)
{
	return open_for(own_file, O_RDONLY);
}

static long write_own_file(void)
{
	return open_for(own_file, O_WRONLY | O_TRUNC);
}

static long make_a_file(void)
{
	return open_for("/tmp/sluice-attack", O_WRONLY | O_CREAT);
}

static long write_policy(void)
{
	return open_for(policy_file, O_WRONLY);
}

static long read_policy(void)
{
	return open_for(policy_file, O_RDONLY);
}

static long write_state(void)
{
	return open_for(state_file, O_WRONLY | O_CREAT);
}

static long read_supervisor_memory(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/mem", getppid());
	return open_for(path, O_RDWR);
}

static long change_mode(void)
{
	return chmod(policy_file, 0666);
}

static long execute_shell(void)
{
	static char *const arguments[] = {(char *)(uintptr_t) "sh", NULL};

	return execv("/bin/sh", arguments);
}

static long trace_supervisor(void)
{
	return ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
}

static long mount_something(void)
{
	return mount("none", "/mnt", "tmpfs", 0, NULL);
}

static long load_module(void)
{
	return syscall(SYS_init_module, "", 0, "");
}

static long load_bpf(void)
{
	union bpf_attr attributes = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};

	return syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof(attributes));
}

static long raw_socket(void)
{
	return socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
}

static long packet_socket(void)
{
	return socket(AF_PACKET, SOCK_RAW, 0);
}

static long local_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0);
}

static long new_user_namespace(void)
{
	return unshare(CLONE_NEWUSER);
}

static long enter_namespace(void)
{
	return setns(0, CLONE_NEWNET);
}

static long kill_supervisor(void)
{
	return kill(getppid(), SIGKILL);
}

/* Another call than kill(), which is not on the list of attacks but on no other either. */
static long signal_supervisor(void)
{
	return syscall(SYS_tgkill, getppid(), getppid(), SIGKILL);
}

static long new_process(void)
{
	long pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);

	if (pid == 0)
		_exit(0);
	return pid;
}

static long executable_memory(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return page == MAP_FAILED ? -1 : 0;
}

static long allow_more(void)
{
	return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static long raise_limit(void)
{
	struct rlimit limit = {.rlim_cur = 0, .rlim_max = 0};

	return setrlimit(RLIMIT_CORE, &limit);
}

static long change_user(void)
{
	return setuid(0);
}

/* What is left: the gateway's own table. */
static long netlink_socket(void)
{
	return socket(AF_NETLINK, SOCK_RAW, 12 /* NETLINK_NETFILTER */);
}

static const struct step {
	const char *name;
	long (*run)(void);
} steps[] = {
	{"read-shadow", read_shadow},
	{"read-own-file", read_own_file},
	{"write-own-file", write_own_file},
	{"make-a-file", make_a_file},
	{"write-policy", write_policy},
	{"read-policy", read_policy},
	{"write-state", write_state},
	{"read-supervisor-memory", read_supervisor_memory},
	{"change-mode", change_mode},
	{"execute-shell", execute_shell},
	{"trace-supervisor", trace_supervisor},
	{"mount", mount_something},
	{"load-module", load_module},
	{"load-bpf", load_bpf},
	{"raw-socket", raw_socket},
	{"packet-socket", packet_socket},
	{"local-socket", local_socket},
	{"new-user-namespace", new_user_namespace},
	{"enter-namespace", enter_namespace},
	{"kill-supervisor", kill_supervisor},
	{"signal-supervisor", signal_supervisor},
	{"new-process", new_process},
	{"executable-memory", executable_memory},
	{"allow-more", allow_more},
	{"raise-limit", raise_limit},
	{"change-user", change_user},
	{"netlink-socket", netlink_socket},
};

/* In the middle of anything: only what a handler may do, but for snprintf(), which allocates nothing here. */
static void on_attack(int number, siginfo_t *info, void *context)
{
	int step = info->si_value.sival_int, before = errno;
	char line[128];
	int size;
	long result;

	(void)number;
	(void)context;
	if (step < 0 || (size_t)step >= sizeof(steps) / sizeof(steps[0]))
		return;
	result = steps[step].run();
	size = snprintf(line, sizeof(line), "attack %s: %s\n", steps[step].name, result >= 0 ? "DONE" : strerrorname_np(errno));
	if (size > 0 && write(STDERR_FILENO, line, (size_t)size) < 0)
		_exit(1);
	errno = before;
}

static int list_steps(void)
{
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		puts(steps[i].name);
	return 0;
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_sigaction = on_attack, .sa_flags = SA_SIGINFO | SA_RESTART};

	own_file = getenv("ATTACK_OWN_FILE");
	policy_file = getenv("ATTACK_POLICY_FILE");
	state_file = getenv("ATTACK_STATE_FILE");
	if (argc == 2 && strcmp(argv[1], "steps") == 0)
		return list_steps();
	sigaction(SIGUSR1, &action, NULL);
	return sluice_main(argc, argv);
}
