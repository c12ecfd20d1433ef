# SPDX-License-Identifier: MIT
"""The benchmark's world: apps, a gateway's place, an Internet, each a namespace, joined by nothing but veth pairs.

    app  (10.201.1.11) --- web0     gw    up0 (45.9.0.2) --- inet: name servers 45.9.0.53 (TTL 60 s) and .54 (TTL 1 s),
    app2 (10.201.2.11) --- checked0                                 TCP and UDP servers on every address of 45.16.0.0/12 and 45.32.0.0/11

What stands in gw changes from measurement to measurement (contenders.py). A lab may have more networks, which all are interfaces of `app`.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "netns"))

# pylint: disable=wrong-import-position
import dns.message

from app import Host
from gateway import UID, Gateway
from lab import GATEWAY_SYSCTLS, GATEWAY_UPLINK4, Lab, binary
from namespaces import Failed, children, command, patience

UPSTREAM, UPSTREAM_SHORT = "45.9.0.53", "45.9.0.54"  # answers with a TTL of 60 s, and of 1 s
FIRST_ADDRESS, DENIED_ADDRESS, DENIED_COUNT = "45.32.0.0", "45.16.0.0", 1 << 20
GREETING, REQUEST, SINK = 7001, 443, 9  # ports: the server speaks first, the client does, datagrams are counted and dropped
NETWORKS = {"web": 1, "checked": 2}
FORWARDER_CPU, CLIENT_CPU = 1, 0
CONNTRACK = {"net__netfilter__nf_conntrack_tcp_timeout_close": 1, "net__netfilter__nf_conntrack_tcp_timeout_time_wait": 1,
             "net__netfilter__nf_conntrack_udp_timeout": 120}
DRAIN_SECONDS = 1.2  # until flows that were reset are out of the table


def tool(name):
    return os.path.join(os.path.dirname(os.path.dirname(binary())), "tests", "bench", f"bench-{name}")


def processes(pid):
    """A process and those below it."""
    found = [pid]
    for child in children(pid):
        found += processes(child)
    return found


def pin(pid, cpu):
    """A process, with its threads and children, to one CPU."""
    for one in processes(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for thread in os.listdir(f"/proc/{one}/task"):
                os.sched_setaffinity(int(thread), {cpu})


def cpu_seconds(pid):
    """CPU time of a process and those below it, user and system, as the scheduler counts it."""
    total = 0
    for one in processes(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for thread in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{thread}/schedstat", encoding="ascii") as file:
                    total += int(file.read().split()[0])
    return total / 1e9


def memory_of(pid):
    """Return: resident memory of one process, and what of it no other process shares, in kB."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        rows = {line.split(":")[0]: int(line.split()[1]) for line in file if line.endswith("kB\n")}
    return rows["Rss"], rows["Private_Clean"] + rows["Private_Dirty"]


def resident_megabytes(pid):
    """Resident memory of a process and those below it. What they share counts once: the largest one has it all."""
    sizes = sorted((memory_of(one) for one in processes(pid)), reverse=True)
    return (sizes[0][0] + sum(private for _, private in sizes[1:])) / 1024


class BenchLab(Lab):
    """`networks`: name -> number, 10.201.NUMBER.0/24; numbers above 255 are 10.202 and so on. `apps`: network -> namespace's short name."""

    def __init__(self, networks=None, apps=None):
        super().__init__(gateway=False, apps={}, networks=networks or NETWORKS)
        self.app_of = apps or {"web": "app", "checked": "app2"}

    # --- the topology ---

    def build(self):
        self.gw, self.inet = self.add(Host(self.prefix, "gw")), self.add(Host(self.prefix, "inet"))
        self.hosts = {short: self.add(Host(self.prefix, short)) for short in sorted(set(self.app_of.values()))}
        self.app, self.app2 = self.hosts["app"], self.hosts.get("app2")
        for namespace in self.namespaces:
            namespace.sysctl(net__ipv6__conf__all__disable_ipv6=1, net__ipv6__conf__default__disable_ipv6=1)
            namespace.ip("link set lo up\n")
        self.gw.sysctl(**{key: value for key, value in GATEWAY_SYSCTLS.items() if "ipv6" not in key}, **CONNTRACK)
        self.resolv_conf(self.gw, f"nameserver {UPSTREAM}\n")
        self.build_networks()
        self.build_internet()
        self.start_servers()
        self.gateway = Gateway(self.gw, binary(), self.directory)

    def build_networks(self):
        for host in self.hosts.values():
            host.sysctl(net__ipv4__ip_local_port_range="10000 65000")
        for network, number in self.networks.items():
            host, interface = self.hosts[self.app_of.get(network, "app")], f"eth{number}"
            host.ip(f"link add {interface} type veth peer name {network}0 netns {self.gw.name}\n"
                    f"addr add {self.prefix_of(network)}.11/24 dev {interface}\nlink set {interface} up\n")
            self.gw.ip(f"addr add {self.prefix_of(network)}.2/24 dev {network}0\nlink set {network}0 up\n")
        for short, host in self.hosts.items():
            network = next(name for name in self.networks if self.app_of.get(name, "app") == short)
            host.ip(f"route add default via {self.gateway_of(network)}\n")

    def prefix_of(self, network):
        return f"10.201.{self.networks[network]}"

    def gateway_of(self, network):
        return f"{self.prefix_of(network)}.1"

    def build_internet(self):
        self.inet.ip(f"link add up0 type veth peer name up0 netns {self.gw.name}\naddr add 45.9.0.1/24 dev up0\n"
                     f"addr add {UPSTREAM}/24 dev up0\naddr add {UPSTREAM_SHORT}/24 dev up0\nlink set up0 up\n"
                     "route add local 45.16.0.0/12 dev lo\nroute add local 45.32.0.0/11 dev lo\nroute add 10.201.0.0/16 via 45.9.0.2\n")
        self.gw.ip(f"addr add {GATEWAY_UPLINK4}/24 dev up0\nlink set up0 up\nroute add default via 45.9.0.1\n")
        self.inet.nft(f"table inet sink {{\n counter arrived {{ }}\n chain arrivals {{\n type filter hook prerouting priority raw; policy accept;\n"
                      f" udp dport {SINK} counter name arrived drop\n }}\n}}\n")

    def start_servers(self):
        self.authority = self.serve("authority", UPSTREAM, "60")
        self.serve("authority", UPSTREAM_SHORT, "1")
        self.server = self.serve("flowserver", str(GREETING), str(REQUEST))

    def serve(self, name, *arguments):
        process = self.inet.start([tool(name), *arguments], stdout=subprocess.PIPE, text=True)
        if process.stdout.readline() != "ready\n":
            raise Failed(f"{name} did not start")
        return process

    # --- what stands in the gateway's place ---

    def clear(self):
        """Nothing is left of what stood there: rules, flows, addresses, neighbours, state."""
        self.gateway.stop()
        self.gw.nft("flush ruleset\n")
        self.gw.run(["conntrack", "-F"], check=False)
        for network in self.networks:
            self.gw.run(["ip", "address", "delete", f"{self.gateway_of(network)}/24", "dev", f"{network}0"], check=False)
        shutil.rmtree(self.gateway.state)
        os.mkdir(self.gateway.state)
        os.chown(self.gateway.state, UID, UID)
        with open(self.gateway.log_path, "wb"):
            pass
        self.forget_neighbours()

    def forget_neighbours(self):
        for namespace in self.namespaces:
            namespace.ip("neigh flush all\n")

    def hold_addresses(self):
        """Whoever stands there has the gateway's addresses, which Sluice takes by itself."""
        self.gw.ip("".join(f"addr add {self.gateway_of(network)}/24 dev {network}0\n" for network in self.networks))

    # --- measuring ---

    def load(self, name, *arguments, host=None, cpu=CLIENT_CPU):
        """Run a load generator in an app. Return: what it says, as dict."""
        argv = self.load_argv(name, cpu, arguments)
        done = (host or self.app).run(argv, timeout=120)
        if done.returncode != 0:
            raise Failed(f"{' '.join(argv)}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def start_load(self, name, *arguments, host=None, cpu=CLIENT_CPU):
        """The same in the background; load_result() waits for it."""
        return (host or self.app).start(self.load_argv(name, cpu, arguments), stdout=subprocess.PIPE, text=True)

    def load_result(self, process):
        text = process.communicate()[0]
        if process.returncode != 0:
            raise Failed(f"a load generator ended with status {process.returncode}")
        for host in self.hosts.values():
            if process in host.processes:
                host.processes.remove(process)
        return json.loads(text)

    @staticmethod
    def load_argv(name, cpu, arguments):
        return ["taskset", "-c", str(cpu), tool(name), *map(str, arguments)]

    def place(self, servers):
        """Put the Internet's servers on a CPU."""
        for process in (self.authority, self.server):
            pin(process.pid, servers)

    def arrived(self):
        """Datagrams that came to the sink so far."""
        listed = json.loads(command(self.inet.argv(["nft", "-j", "list", "counters"])))
        return sum(item["counter"]["packets"] for item in listed["nftables"] if "counter" in item)

    def fill(self, count, network="web", first=0):
        """Have names 0 to count - 1 asked for. Return: the load generator's figures."""
        host = self.hosts[self.app_of.get(network, "app")]
        said = self.load("dnsload", "-o", 100, "-k", 4, "-f", first, "-q", count, self.gateway_of(network), host=host)
        if said["good"] != count:
            raise Failed(f"of {count} names {said['good']} were answered rightly, {said['bad']} wrongly, {said['lost']} not")
        return said

    def drain(self):
        """Wait until no flow of before is under way."""
        time.sleep(DRAIN_SECONDS)

    # --- Sluice ---

    def control(self, **request):
        """Ask the running gateway. Raises OSError while there is none."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(self.gateway.control)
            sock.sendall(json.dumps(request).encode() + b"\n")
            with sock.makefile("rb") as file:
                return json.loads(file.readline())

    def metric(self, name):
        """Sum of all series of a metric."""
        with self.gw.socket() as sock:
            sock.settimeout(10)
            sock.connect(("127.0.0.1", 9780))
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            text = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
        rows = [line for line in text.splitlines() if line.split("{")[0].split(" ")[0] == name]
        if not rows:
            raise Failed(f"no metric {name}")
        return sum(float(line.split()[-1]) for line in rows)

    def denied(self):
        """Everything that was denied so far, as the gateway tells it."""
        return sum(network["denied"] for network in self.control(command="stats")["networks"])

    def start_sluice(self, policy):
        """Return: seconds until it was healthy."""
        self.gateway.write_policy(policy)
        start = time.monotonic()
        self.gateway.start(wait=False)
        while True:
            with contextlib.suppress(OSError, ValueError):
                if self.control(command="health")["ok"]:
                    break
            if self.gateway.process.poll() is not None or time.monotonic() - start > 60:
                raise Failed(f"the gateway did not become healthy; its log:\n{self.gateway.log.tail(10)}")
            time.sleep(0.0005)
        took = time.monotonic() - start
        self.forget_neighbours()
        return took

    def leased(self, network="web"):
        """Addresses in the kernel's sets of a network's names."""
        listed = self.gw.nft_list("sets", "inet")
        count, ours = 0, False
        for line in listed.splitlines():
            if line.startswith("\tset "):
                ours = line.startswith(f"\tset names4_{network}_")
            elif ours:
                count += line.count("expires")
        return count


def wait_answer(lab):
    """Until whoever stands in the gateway's place answers questions."""
    query = dns.message.make_query("n1999999.bench.example", "A", use_edns=False)
    end = time.monotonic() + patience(20)
    while True:
        with lab.app.socket(kind=socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.settimeout(0.1)
            sock.connect((lab.gateway_of("web"), 53))
            sock.send(query.to_wire())
            if dns.message.from_wire(sock.recv(512)).answer:
                return
        if time.monotonic() > end:
            raise Failed("no DNS answer")
        time.sleep(0.02)
