/* SPDX-License-Identifier: MIT */
/*
 * A fixed trace through the real worker, for callgrind: hot_path POLICY (cold | single | cached | denied | allowed) COUNT
 *
 * Theory of operation: budget.py has made a network namespace in which the gateway, the app and the upstream server are one process, so
 * that nothing depends on who runs when. The worker is opened as gateway_run() does it, but for its timers. Packets come in batches: the
 * app sends BATCH questions over loopback, or a single one, turns of the worker's loop follow until the upstream has heard them, it
 * answers, and turns follow until the app has its replies. Packets of flows are put on the wire of the network's interface; conntrack tells
 * of those that may pass, and of their ends when its table is emptied. measured() is what callgrind counts.
 */
#include "gateway/gateway.c"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define APP        "10.78.1.10"
#define SENDER     "10.78.1.20" /* another app: the kernel takes no packets from its own addresses off a wire */
#define GATEWAY    "10.78.1.1"
#define UPSTREAM   "45.9.0.53"
#define INTERFACE  "net0" /* the network's, in the gateway ... */
#define WIRE       "app0" /* ... and its other end */
#define BATCH      32
#define CACHED     64  /* names of the cached trace */
#define TURNS_MAX  100 /* for one batch; more: something is broken */
#define SETTLE_US  200 /* until the kernel has delivered what was sent */
#define TURN_NS    1000000
#define WARM       64 /* of the trace, before it is counted */
#define MESSAGE    512
#define FIRST_PORT 10000
#define DENIED_NET 0x2d0c0000U /* 45.12.0.0 */
#define LEASED_NET 0x2d140000U /* 45.20.0.0: the first name gets the address behind it, and so on */

struct trace {
	struct gateway *gateway;
	int app, upstream, wire;
	struct sockaddr_ll link;
	uint8_t mac[ETH_ALEN];
	void (*turn)(uv_loop_t *loop);
	unsigned int batch; /* questions under way at once */
};

static void die(const char *what)
{
	fprintf(stderr, "hot_path: %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

/* What libuv and the worker are told: time stands still but for TURN_NS a turn, so that what comes with time is the same in every run. */
static int64_t clock_turned;

int clock_gettime(clockid_t id, struct timespec *out)
{
	static struct timespec begin[CLOCK_TAI + 1];
	int64_t nanoseconds;

	if (id < 0 || id > CLOCK_TAI) {
		errno = EINVAL;
		return -1;
	}
	if (begin[id].tv_sec == 0 && syscall(SYS_clock_gettime, id, &begin[id]) != 0)
		return -1;
	nanoseconds = begin[id].tv_nsec + clock_turned;
	*out = (struct timespec){.tv_sec = begin[id].tv_sec + nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
	return 0;
}

__attribute__((noinline)) static void measured(uv_loop_t *loop)
{
	uv_run(loop, UV_RUN_NOWAIT);
}

static void unmeasured(uv_loop_t *loop)
{
	uv_run(loop, UV_RUN_NOWAIT);
}

static void turn(struct trace *trace)
{
	usleep(SETTLE_US);
	clock_turned += TURN_NS;
	trace->turn(&trace->gateway->loop);
}

static struct sockaddr_in place(const char *address, uint16_t port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(port)};

	inet_pton(AF_INET, address, &sa.sin_addr);
	return sa;
}

static int bound_socket(const char *address, uint16_t port)
{
	struct sockaddr_in sa = place(address, port);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) != 0)
		die(address);
	return fd;
}

static void open_wire(struct trace *trace)
{
	struct ifreq request = {.ifr_name = INTERFACE};

	trace->wire = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_IP));
	if (trace->wire < 0 || ioctl(trace->wire, SIOCGIFHWADDR, &request) != 0)
		die(INTERFACE);
	memcpy(trace->mac, request.ifr_hwaddr.sa_data, ETH_ALEN);
	trace->link =
		(struct sockaddr_ll){.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(WIRE), .sll_protocol = htons(ETH_P_IP)};
	if (bind(trace->wire, (struct sockaddr *)&trace->link, sizeof(trace->link)) != 0)
		die(WIRE);
}

/* --- the forwarder --- */

static size_t question(uint16_t id, unsigned int number, uint8_t out[static MESSAGE])
{
	static const uint8_t header[] = {0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, rest[] = "\3any\7example\0\0\1\0\1";
	size_t size = sizeof(header);

	memcpy(out, header, sizeof(header));
	out[0] = (uint8_t)(id >> 8);
	out[1] = (uint8_t)id;
	size += (size_t)sprintf((char *)out + size, "\7n%06u", number);
	memcpy(out + size, rest, sizeof(rest) - 1);
	return size + sizeof(rest) - 1;
}

static void ask(const struct trace *trace, unsigned int first, unsigned int count, unsigned int names)
{
	struct sockaddr_in to = place(GATEWAY, 53);
	uint8_t message[MESSAGE];

	for (unsigned int i = first; i < first + count; i++) {
		size_t size = question((uint16_t)i, i % names, message);

		if (sendto(trace->app, message, size, 0, (struct sockaddr *)&to, sizeof(to)) != (ssize_t)size)
			die("the question");
	}
}

/* One address, another one for each question. Return: how many were answered. */
static unsigned int answer_waiting(const struct trace *trace)
{
	static uint32_t address = LEASED_NET;
	uint8_t record[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 0, 0, 0, 0}, message[MESSAGE], opt[11];
	unsigned int count = 0;
	struct sockaddr_in from;
	socklen_t length = sizeof(from);
	ssize_t size;

	while ((size = recvfrom(trace->upstream, message, sizeof(message), 0, (struct sockaddr *)&from, &length)) > 0) {
		uint32_t value = htonl(++address);
		size_t end = (size_t)size - sizeof(opt); /* what asks ends with an OPT without options */

		memcpy(opt, message + end, sizeof(opt));
		memcpy(record + 12, &value, sizeof(value));
		message[2] |= 0x80;
		message[3] |= 0x80;
		message[7] = 1;
		memcpy(message + end, record, sizeof(record));
		memcpy(message + end + sizeof(record), opt, sizeof(opt));
		if (sendto(trace->upstream, message, end + sizeof(record) + sizeof(opt), 0, (struct sockaddr *)&from, length) < 0)
			die("the answer");
		count++;
	}
	return count;
}

/* Return: how many have come; one that grants nothing ends the run. */
static unsigned int take_replies(const struct trace *trace)
{
	uint8_t message[MESSAGE];
	unsigned int count = 0;

	while (recv(trace->app, message, sizeof(message), 0) > 0) {
		if ((message[3] & 0xf) != 0 || message[7] != 1) {
			errno = EBADMSG;
			die("a reply");
		}
		count++;
	}
	return count;
}

static void resolve(struct trace *trace, unsigned int first, unsigned int count, unsigned int names)
{
	unsigned int replies = 0;

	ask(trace, first, count, names);
	for (unsigned int i = 0; i < TURNS_MAX && replies < count; i++) {
		turn(trace);
		answer_waiting(trace);
		replies += take_replies(trace);
	}
	if (replies < count) {
		errno = ETIMEDOUT;
		die("the replies");
	}
}

static void resolve_all(struct trace *trace, unsigned int first, unsigned int count, unsigned int names)
{
	for (unsigned int i = 0; i < count; i += trace->batch)
		resolve(trace, first + i, count - i < trace->batch ? count - i : trace->batch, names);
}

/* --- the packet queue --- */

static uint16_t header_sum(const struct iphdr *header)
{
	uint16_t words[sizeof(*header) / 2];
	uint32_t sum = 0;

	memcpy(words, header, sizeof(*header));
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t) ~(sum + (sum >> 16));
}

/* A UDP packet. */
static void send_packet(const struct trace *trace, uint32_t destination, uint16_t source_port)
{
	struct {
		struct ether_header link;
		struct iphdr ip;
		struct udphdr udp;
		uint8_t payload[18];
	} __attribute__((packed)) frame = {.link.ether_type = htons(ETHERTYPE_IP)};
	struct iphdr ip = {.ihl = 5, .version = 4, .ttl = 64, .protocol = IPPROTO_UDP, .daddr = htonl(destination)};

	memcpy(frame.link.ether_dhost, trace->mac, ETH_ALEN);
	ip.tot_len = htons(sizeof(frame) - sizeof(frame.link));
	inet_pton(AF_INET, SENDER, &ip.saddr);
	ip.check = header_sum(&ip);
	memcpy(&frame.ip, &ip, sizeof(ip));
	frame.udp =
		(struct udphdr){.source = htons(source_port), .dest = htons(443), .len = htons(sizeof(frame.udp) + sizeof(frame.payload))};
	if (sendto(trace->wire, &frame, sizeof(frame), 0, (const struct sockaddr *)&trace->link, sizeof(trace->link)) < 0)
		die("the packet");
}

static void add_denied(void *context, const struct stats_network *network)
{
	uint64_t *count = context;

	for (size_t i = 0; i < REASON_COUNT; i++)
		*count += network->denied[i];
}

static uint64_t denied_so_far(const struct trace *trace)
{
	uint64_t count = 0;

	stats_each_network(reports_stats(trace->gateway->reports), add_denied, &count);
	return count;
}

static void deny_all(struct trace *trace, unsigned int first, unsigned int count)
{
	for (unsigned int i = 0; i < count; i += BATCH) {
		for (unsigned int j = i; j < i + BATCH; j++)
			send_packet(trace, DENIED_NET + first + j, FIRST_PORT);
		turn(trace);
	}
	turn(trace);
}

/* --- allowed flows --- */

/* Of one packet each. */
struct flow_counts {
	uint64_t begun, ended;
};

static void add_flows(void *context, const struct stats_row *row)
{
	struct flow_counts *counts = context;

	counts->begun += row->numbers.allowed;
	counts->ended += row->numbers.ended.packets_out;
}

static struct flow_counts flows_so_far(const struct trace *trace)
{
	struct flow_counts counts = {0};

	stats_each(reports_stats(trace->gateway->reports), add_flows, &counts);
	return counts;
}

/* All flows end. */
static void empty_conntrack(void)
{
	struct {
		struct nlmsghdr header;
		struct nfgenmsg fields;
	} request = {.header = {.nlmsg_len = sizeof(request),
				.nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE,
				.nlmsg_flags = NLM_F_REQUEST},
		     .fields = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0}};
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);

	if (fd < 0 || send(fd, &request, sizeof(request), 0) != (ssize_t)sizeof(request))
		die("conntrack");
	close(fd);
}

static void wait_flows(struct trace *trace, uint64_t begun, uint64_t ended)
{
	struct flow_counts counts = flows_so_far(trace);

	for (unsigned int i = 0; i < TURNS_MAX && (counts.begun < begun || counts.ended < ended); i++) {
		turn(trace);
		counts = flows_so_far(trace);
	}
	if (counts.begun != begun || counts.ended != ended) {
		errno = ETIMEDOUT;
		die("the flows");
	}
}

/* From @first, as many as ports last. */
static void allow_all(struct trace *trace, unsigned int first, unsigned int count)
{
	for (unsigned int i = 0; i < count; i += BATCH) {
		for (unsigned int j = first + i; j < first + i + BATCH; j++)
			send_packet(trace, LEASED_NET + 1 + j % CACHED, (uint16_t)(FIRST_PORT + j));
		wait_flows(trace, first + i + BATCH, first + i);
		empty_conntrack();
		wait_flows(trace, first + i + BATCH, first + i + BATCH);
	}
}

/* --- the run --- */

/* What comes with time, as the file of statistics, is no query's and no packet's. */
static void stop_timer(uv_handle_t *handle, void *context)
{
	(void)context;
	if (handle->type == UV_TIMER)
		uv_timer_stop((uv_timer_t *)handle);
}

static void open_worker(struct gateway *gateway, const char *policy)
{
	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < MEMORY_COUNT; i++)
		gateway->start.memories[i] = memfd_create("memory", MFD_CLOEXEC);
	gateway->path = policy;
	gateway->log = log_new(STDOUT_FILENO, LOG_TEXT);
	if (uv_loop_init(&gateway->loop) != 0 || !gateway->log || reserve_descriptors(gateway) != 0 || open_modules(gateway) != 0 ||
	    apply_first(gateway) != 0) {
		log_flush(gateway->log);
		die("the worker");
	}
	uv_walk(&gateway->loop, stop_timer, NULL);
}

static void run(struct trace *trace, const char *row, unsigned int count)
{
	trace->turn = unmeasured;
	trace->batch = BATCH;
	resolve_all(trace, 0, CACHED, CACHED);
	if (strcmp(row, "cold") == 0 || strcmp(row, "single") == 0) {
		resolve_all(trace, CACHED, WARM, UINT32_MAX);
		trace->turn = measured;
		trace->batch = strcmp(row, "single") == 0 ? 1 : BATCH;
		resolve_all(trace, CACHED + WARM, count, UINT32_MAX);
	} else if (strcmp(row, "cached") == 0) {
		resolve_all(trace, 0, WARM, CACHED);
		trace->turn = measured;
		resolve_all(trace, 0, count, CACHED);
	} else if (strcmp(row, "allowed") == 0) {
		allow_all(trace, 0, WARM);
		trace->turn = measured;
		allow_all(trace, WARM, count);
	} else {
		deny_all(trace, 1, WARM);
		trace->turn = measured;
		deny_all(trace, 1 + WARM, count);
	}
}

int main(int argc, char **argv)
{
	struct trace trace = {0};
	unsigned int count;

	if (argc != 4) {
		fprintf(stderr, "usage: hot_path POLICY (cold | single | cached | denied | allowed) COUNT\n");
		return EXIT_FAILURE;
	}
	count = (unsigned int)strtoul(argv[3], NULL, 10);
	trace.gateway = calloc(1, sizeof(*trace.gateway));
	if (!trace.gateway)
		die("memory");
	open_worker(trace.gateway, argv[1]);
	trace.app = bound_socket(APP, 0);
	trace.upstream = bound_socket(UPSTREAM, 53);
	open_wire(&trace);
	run(&trace, argv[2], count);
	if (strcmp(argv[2], "denied") == 0 && denied_so_far(&trace) != WARM + count) {
		fprintf(stderr, "hot_path: %llu packets were denied, %u were sent\n", (unsigned long long)denied_so_far(&trace),
			WARM + count);
		return EXIT_FAILURE;
	}
	/* Files and kernel objects end with the process and its namespace. */
	return EXIT_SUCCESS;
}
