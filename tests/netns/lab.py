# SPDX-License-Identifier: MIT
"""A small world in network namespaces: an Internet, a gateway, three networks with apps.

    site --- inet --- gw === sw --- web1 web2   network web    10.201.1.0/24  fdc9:1::/64
                                +-- build1      network build  10.201.2.0/24  fdc9:2::/64
                                +-- lan1        network lan    10.201.3.0/24  (no IPv6)

`inet` has the name servers (internet.py) on 45.9.0.53 and .54 (.55: a company's own; .56: nobody) and plain TCP and UDP servers (servers.py) that
answer on every address of 45.12.0.0/15 up to 45.63.255.255 and 2a0e:10::/28. `site` is a web and SSH server behind a narrow link. `sw` holds one bridge per network.
As with Docker, the gateway's interfaces have an address of their own (.2) and the apps' default route points at the first one (.1), which the gateway has
to claim. No address here is special-purpose, and none exists outside the namespaces.

A network may be `internal`, as Docker's networks with `internal: true`: its apps have no default route and ask the gateway's own address (.2), and the
bridge drops every packet that comes from or goes to an address outside of the subnet.

Every lab has a prefix of its own, so any number can run at once. Leaving the `with` block removes everything, also after Ctrl-C; what a killed run left
behind is removed by the next one.
"""

import atexit
import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time

import dns.message

from app import App, Host
from gateway import Gateway
from namespaces import Failed, patience

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
LABS = "/run/sluice-lab"
PYTHON = "/usr/bin/python3"

GATEWAY_UPLINK4, GATEWAY_UPLINK6 = "45.9.0.2", "2a0e:9::2"
DNS, DNS_SECOND, DNS_CORP, DNS_NOBODY = "45.9.0.53", "45.9.0.54", "45.9.0.55", "45.9.0.56"
DNS6 = "2a0e:9::53"
SITE4, SITE6 = "45.12.3.2", "2a0e:12:3::2"
SITE_MTU = 1400
TCP_PORTS = (22, 80, 443, 444, 5432, 8443)
BANNER_PORT = 25
UDP_PORTS = (123, 443, 444, 3478, 9999)
NETWORKS = {"web": 1, "build": 2, "lan": 3}
NETWORKS_IPV4_ONLY = ("lan",)
APPS = {"web1": ("web", 11), "web2": ("web", 12), "build1": ("build", 11), "lan1": ("lan", 11)}

# As the Compose recipes declare them.
GATEWAY_SYSCTLS = {
    "net__ipv4__ip_forward": 1, "net__ipv6__conf__all__forwarding": 1, "net__ipv4__icmp_ratemask": 0, "net__ipv6__icmp__ratemask": "0,3-127",
    "net__netfilter__nf_conntrack_acct": 1, "net__netfilter__nf_conntrack_tcp_be_liberal": 1,
    "net__ipv4__conf__all__arp_notify": 1, "net__ipv4__conf__default__arp_notify": 1, "net__ipv6__conf__all__ndisc_notify": 1, "net__ipv6__conf__default__ndisc_notify": 1,
    "net__ipv4__ip_unprivileged_port_start": 0,
}

UPSTREAM = f"""\
[gateway]
uplink = auto

[upstream]
server = {DNS}
"""

# A section of an internal network, to be followed by its other keys and rules.
VIRTUAL = """
[network {network}]
subnet = 10.201.{number}.0/24
subnet = fdc9:{number}::/64
gateway = 10.201.{number}.2
gateway = fdc9:{number}::2
addresses = virtual
"""

# What most tests run under. Names under NAME.example have the ports that NAME says; tests make up names below them.
POLICY = UPSTREAM + """
[network web]
subnet = 10.201.1.0/24
subnet = fdc9:1::/64
allow  = **.fresh.example:443 **.https.example:443 **.tcp.example:443/tcp **.any.example
allow  = **.ssh.example:22 **.ok.example:443+80+9999 shared.example:443 a.b.parent.example:443
allow  = 45.40.0.0/16:443 [2a0e:1b::/32]:443
deny   = **.bad.ok.example 45.40.66.0/24

[network build]
subnet = 10.201.2.0/24
subnet = fdc9:2::/64
allow  = **.build.example:443 shared.example:443 **.both.example:443

[network lan]
subnet = 10.201.3.0/24
allow  = **.lan-only.example:443 **.ok.example:443
"""


def binary():
    return os.path.abspath(os.environ.get("SLUICE_BINARY") or os.path.join(ROOT, "build", "gateway", "sluice"))


def remove_leftovers():
    """Labs whose process is gone: their directory's lock is free."""
    for prefix in os.listdir(LABS):
        directory = os.path.join(LABS, prefix)
        with contextlib.suppress(OSError), open(os.path.join(directory, "lock"), "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_traces(prefix)


def remove_traces(prefix):
    """Processes, namespaces and files of one lab."""
    listed = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    names = [name for name in listed if name.startswith(prefix)]
    for name in names:
        pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout.split()
        for pid in pids:
            if int(pid) != os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL, check=False)
    for path in os.listdir("/etc/netns") if os.path.isdir("/etc/netns") else []:
        if path.startswith(prefix):
            shutil.rmtree(os.path.join("/etc/netns", path), ignore_errors=True)
    shutil.rmtree(os.path.join(LABS, prefix), ignore_errors=True)


class Names:
    """The control side of internet.py: which names exist, how servers behave, what they were asked."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(patience(20))
        self.socket.connect(path)
        self.file = self.socket.makefile("rw", encoding="ascii")
        self.counter = 0

    def call(self, **request):
        self.file.write(json.dumps(request) + "\n")
        self.file.flush()
        answer = json.loads(self.file.readline())
        if "error" in answer:
            raise Failed(f"name server: {answer['error']}")
        return answer

    def add(self, name, ttl=60, **records):
        """add("a.example", A="45.30.0.1", AAAA=["2a0e:13::1"])"""
        for kind, data in records.items():
            self.call(op="add", name=name, type=kind, data=[data] if isinstance(data, str) else data, ttl=ttl)

    def remove(self, name):
        self.call(op="remove", name=name)

    def new(self, suffix, ttl=60, ipv6=False):
        """A name under `suffix` that nobody has used, with an address that nobody has used. Return: name, address (and IPv6 address)."""
        self.counter += 1
        name = f"t{self.counter}.{suffix}"
        address, address6 = f"45.30.{self.counter >> 8}.{self.counter & 255}", f"2a0e:13::{self.counter:x}"
        if not ipv6:
            self.add(name, ttl, A=address)
            return name, address
        self.add(name, ttl, A=address, AAAA=address6)
        return name, address, address6

    def address(self):
        """An address that no name points to."""
        self.counter += 1
        return f"45.31.{self.counter >> 8}.{self.counter & 255}"

    def behave(self, name, **how):
        """delay, drop, rcode, tc, answer, authority, additional, forged, chase, servers, transports, types, times: see internet.py."""
        self.call(op="behave", name=name, how=how)

    def rotate(self, name, kind, **how):
        """first, count, show, ttls, period: see internet.py's Rotation."""
        self.call(op="rotate", name=name, type=kind, how=how)

    def handouts(self, since=0):
        """[(time, name that was asked for, addresses, ttl)]: what rotations have answered, from number `since` on."""
        return [tuple(row) for row in self.call(op="handouts", since=since)["handouts"]]

    def server(self, address, mode):
        self.call(op="server", address=address, mode=mode)

    def tls(self, address, mode="up", certificate=None, version=None):
        """(Re)start DNS over TLS on an address, with a (certificate, key) pair of files; modes: internet.py, and "off"."""
        cert, key = certificate or (None, None)
        self.call(op="tls", address=address, mode=mode, cert=cert, key=key, version=version)

    def tls_drop(self, address):
        """Cut all connections to it, without a word of TLS."""
        self.call(op="tls_drop", address=address)

    def tls_connections(self, address):
        """[{name, alpn, version, resumed, questions, at_once}] since it was started."""
        return self.call(op="tls_connections", address=address)["connections"]

    def reset(self):
        self.call(op="reset")

    def count(self):
        """How many questions have come in, at all servers."""
        return self.call(op="count")["count"]

    def queries(self, since=0):
        """[{time, server, transport, client, port, wire}] from number `since` on."""
        keys = ("time", "server", "transport", "client", "port", "wire")
        rows = [dict(zip(keys, row)) for row in self.call(op="queries", since=since)["queries"]]
        for row in rows:
            row["wire"] = bytes.fromhex(row["wire"])
        return rows

    def asked_of_docker(self):
        """The names that the gateway has asked Docker's resolver for."""
        wires = self.call(op="docker")["queries"]
        return [dns.message.from_wire(bytes.fromhex(wire)).question[0].name.to_text() for wire in wires]

    def close(self):
        self.file.close()
        self.socket.close()


class Lab:
    """The world. `gateway=False` leaves the gateway's namespace empty, for stand_in() or rules of a test's own.

    `apps`: names from APPS; or, for another world with `networks` like NETWORKS, a table like it. `internal`: names of networks.
    """

    def __init__(self, policy=POLICY, gateway=True, apps=None, networks=None, internal=()):
        self.policy, self.with_gateway, self.internal = policy, gateway, internal
        self.networks = NETWORKS if networks is None else networks
        apps = APPS if apps is None else apps
        self.app_names = apps if isinstance(apps, dict) else {name: APPS[name] for name in apps}
        self.namespaces = []
        self.names = None
        self.attacked = False  # system calls are meant to be refused

    def __enter__(self):
        os.makedirs(LABS, mode=0o755, exist_ok=True)
        with open(LABS + ".lock", "ab") as all_labs:  # nobody sweeps while a directory is there and its lock not yet taken
            fcntl.flock(all_labs, fcntl.LOCK_EX)
            remove_leftovers()
            self.prefix = f"s{secrets.token_hex(2)}-"
            self.directory = os.path.join(LABS, self.prefix)
            os.mkdir(self.directory, 0o755)
            self.lock = open(os.path.join(self.directory, "lock"), "ab")  # pylint: disable=consider-using-with
            fcntl.flock(self.lock, fcntl.LOCK_EX)
        atexit.register(self.close)
        try:
            self.build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        refused = [] if self.attacked else [line for line in self.gateway.log.text().splitlines() if "is not on the list" in line]
        self.close()
        if refused:
            raise Failed(f"gateway/confine_calls.c lacks what the gateway needs: {refused}")

    def close(self):
        atexit.unregister(self.close)
        if self.names:
            self.names.close()
            self.names = None
        for namespace in reversed(self.namespaces):
            namespace.close()
        self.namespaces = []
        if not self.lock.closed:
            remove_traces(self.prefix)
            self.lock.close()

    # --- the topology ---

    def build(self):
        self.apps = {}
        self.inet, self.site, self.sw, self.gw = (self.add(Host(self.prefix, short)) for short in ("inet", "site", "sw", "gw"))
        for short, (network, host) in self.app_names.items():
            number = self.networks[network]
            ipv6 = None if network in NETWORKS_IPV4_ONLY else f"fdc9:{number}::{host}"
            app = self.add(App(self.prefix, short, network, f"10.201.{number}.{host}", ipv6))
            if network in self.internal:
                app.resolver = f"10.201.{number}.2"
            self.apps[short] = app
            setattr(self, short, app)
        for namespace in self.namespaces:
            namespace.sysctl(net__ipv6__conf__default__accept_dad=0, net__ipv6__conf__all__accept_dad=0, net__ipv6__conf__all__accept_ra=0)
            namespace.ip("link set lo up\n")
            self.resolv_conf(namespace, f"nameserver {namespace.resolver}\n")
        self.build_switch()
        self.build_gateway()
        self.build_internet()
        for app in self.apps.values():
            self.build_app(app)
        self.isolate()
        self.start_servers()
        self.gateway = Gateway(self.gw, binary(), self.directory)
        if self.with_gateway:
            if not os.access(self.gateway.binary, os.X_OK):
                raise Failed(f"there is no program to test at {self.gateway.binary}: build it, or set SLUICE_BINARY")
            self.gateway.start(self.policy)

    def add(self, namespace):
        self.namespaces.append(namespace)
        return namespace

    @staticmethod
    def resolv_conf(namespace, text):
        """What programs started in the namespace read as /etc/resolv.conf."""
        directory = os.path.join("/etc/netns", namespace.name)
        os.makedirs(directory, exist_ok=True)
        for name, content in (("resolv.conf", text), ("nsswitch.conf", "hosts: files dns\npasswd: files\ngroup: files\n")):
            with open(os.path.join(directory, name), "w", encoding="ascii") as file:
                file.write(content)

    def build_switch(self):
        self.sw.sysctl(net__ipv6__conf__all__disable_ipv6=1, net__ipv6__conf__default__disable_ipv6=1)
        self.sw.ip("".join(f"link add {network} type bridge mcast_snooping 0\nlink set {network} up\n" for network in self.networks))

    def plug(self, namespace, interface, network):
        """A cable from an interface to a network's bridge."""
        port = f"{namespace.short}-{network}"
        namespace.ip(f"link add {interface} type veth peer name {port} netns {self.sw.name}\n")
        self.sw.ip(f"link set {port} master {network} up\n")

    def build_gateway(self):
        self.gw.sysctl(**GATEWAY_SYSCTLS)
        for network, number in self.networks.items():
            self.plug(self.gw, f"{network}0", network)
            self.gw.ip(f"addr add 10.201.{number}.2/24 dev {network}0\n")
            if network not in NETWORKS_IPV4_ONLY:
                self.gw.ip(f"addr add fdc9:{number}::2/64 dev {network}0 nodad\n")
            self.gw.ip(f"link set {network}0 up\n")

    def build_internet(self):
        self.inet.sysctl(net__ipv4__ip_forward=1, net__ipv6__conf__all__forwarding=1, net__ipv6__ip_nonlocal_bind=1, net__ipv4__icmp_ratemask=0)
        servers = "".join(f"addr add {address}/24 dev up0\n" for address in ("45.9.0.1", DNS, DNS_SECOND, DNS_CORP, DNS_NOBODY))
        self.inet.ip(f"link add up0 type veth peer name up0 netns {self.gw.name}\n{servers}addr add 2a0e:9::1/64 dev up0 nodad\n"
                     f"addr add {DNS6}/64 dev up0 nodad\nlink set up0 up\n"
                     "route add local 45.12.0.0/14 dev lo\nroute add local 45.16.0.0/12 dev lo\nroute add local 45.32.0.0/11 dev lo\n"
                     "route add local 2a0e:10::/28 dev lo\n"
                     f"link add site0 mtu {SITE_MTU} type veth peer name eth0 mtu {SITE_MTU} netns {self.site.name}\n"
                     "addr add 45.12.3.1/24 dev site0\naddr add 2a0e:12:3::1/64 dev site0 nodad\nlink set site0 up\n"
                     "route add 45.12.3.0/24 dev site0 table local\nroute add 2a0e:12:3::/64 dev site0 table local\n")
        self.site.ip(f"addr add {SITE4}/24 dev eth0\naddr add {SITE6}/64 dev eth0 nodad\nlink set eth0 up\n"
                     "route add default via 45.12.3.1\nroute add default via 2a0e:12:3::1\n")
        self.gw.ip(f"addr add {GATEWAY_UPLINK4}/24 dev up0\naddr add {GATEWAY_UPLINK6}/64 dev up0 nodad\nlink set up0 up\n"
                   "route add default via 45.9.0.1\nroute add default via 2a0e:9::1\n")

    def build_app(self, app):
        self.plug(app, "eth0", app.network)
        number = self.networks[app.network]
        app.ip(f"addr add {app.ipv4}/24 dev eth0\nlink set eth0 up\n")
        if app.ipv6:
            app.ip(f"addr add {app.ipv6}/64 dev eth0 nodad\n")
        if app.network not in self.internal:
            app.ip(f"route add default via 10.201.{number}.1\n" + (f"route add default via fdc9:{number}::1\n" if app.ipv6 else ""))

    def isolate(self):
        """What Docker's rules (and br_netfilter) do on internal networks. ARP passes, and what IPv6 needs on any link."""
        for network in self.internal:
            number = self.networks[network]
            ports = ", ".join(f'"{namespace.short}-{network}"' for namespace in (self.gw, *self.apps.values())
                              if namespace is self.gw or namespace.network == network)
            ipv6 = f"{{ fdc9:{number}::/64, fe80::/10, ff02::/16, :: }}"
            self.sw.nft(f"""
                table bridge internal_{network} {{
                    chain forward {{
                        type filter hook forward priority 0; policy accept;
                        iifname != {{ {ports} }} accept
                        ip saddr != 10.201.{number}.0/24 drop
                        ip daddr != 10.201.{number}.0/24 drop
                        ip6 saddr != {ipv6} drop
                        ip6 daddr != {ipv6} drop
                    }}
                }}
            """)

    def counters(self):
        """{name: packets} of the gateway's table."""
        listed = self.gw.nft_list("counters", "table", "inet", "sluice")
        return {name: int(packets) for name, packets in re.findall(r"counter (\S+) {\s+packets (\d+)", listed)}

    def release_addresses(self):
        """The gateway's networks have only the addresses that the engine gives a new container."""
        for network, number in self.networks.items():
            interface = f"{network}0"
            keep = (f"10.201.{number}.2/24", f"fdc9:{number}::2/64")
            listed = self.gw.run(["ip", "-o", "address", "show", "dev", interface, "scope", "global"], check=True).stdout.splitlines()
            gone = [line.split()[3] for line in listed if line.split()[3] not in keep]
            self.gw.ip("".join(f"address delete {address} dev {interface}\n" for address in gone))
            routes = self.gw.run(["ip", "route", "show", "table", "local", "dev", interface, "type", "local"], check=True).stdout.splitlines()
            held = [line.split()[1 if line.startswith("local ") else 0] for line in routes]
            self.gw.ip("".join(f"route delete local {prefix} dev {interface} table local\n" for prefix in held if "/" in prefix))

    # --- servers ---

    def start_servers(self):
        path = os.path.join(self.directory, "names.sock")
        listen = [DNS, DNS_SECOND, DNS_CORP, DNS6, f"127.0.0.11@{self.gw.name}"]
        log = open(os.path.join(self.directory, "servers.log"), "ab")  # pylint: disable=consider-using-with
        with log:
            self.inet.start([PYTHON, os.path.join(HERE, "internet.py"), "--control", path,
                             *(word for address in listen for word in ("--listen", address))], stdout=log, stderr=log)
            plain = self.inet.start([PYTHON, os.path.join(HERE, "servers.py"), "--tcp", *map(str, TCP_PORTS), "--udp", *map(str, UDP_PORTS),
                                     "--banner", str(BANNER_PORT)], stdout=subprocess.PIPE, stderr=log, text=True)
        if plain.stdout.readline() != "ready\n":
            raise Failed("servers.py did not start: " + self.servers_log())
        end = time.monotonic() + patience(20)
        while not self.names:
            try:
                self.names = Names(path)
            except OSError:
                if time.monotonic() > end:
                    raise Failed("internet.py did not start: " + self.servers_log()) from None
                time.sleep(0.02)
        self.add_names()

    def servers_log(self):
        with open(os.path.join(self.directory, "servers.log"), encoding="utf-8") as file:
            return file.read()

    def add_names(self):
        """Names that are always there; container names as Docker's resolver (127.0.0.11 in the gateway) tells them."""
        self.names.add("shared.example", A="45.12.1.10", AAAA="2a0e:12:1::10")
        self.names.add("a.b.parent.example", A="45.12.1.11")
        self.names.add("blocked.example", A="45.12.1.66", AAAA="2a0e:12:1::66")
        for app in self.apps.values():
            reverse = ".".join(reversed(app.ipv4.split("."))) + ".in-addr.arpa"
            self.names.add(reverse, PTR=f"shop_{app.short}_1.shop_{app.network}.")

    # --- in place of the gateway ---

    def stand_in(self, rules=""):
        """Plain masquerading without any policy: shows that the lab works, and what a test would see if nothing were denied."""
        for network, number in self.networks.items():
            self.gw.ip(f"addr add 10.201.{number}.1/24 dev {network}0\n")
            if network not in NETWORKS_IPV4_ONLY:
                self.gw.ip(f"addr add fdc9:{number}::1/64 dev {network}0 nodad\n")
        self.gw.nft(f"""
            table inet stand_in {{
                chain pre {{
                    type nat hook prerouting priority dstnat;
                    iifname != "up0" meta nfproto ipv4 meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {DNS}
                    iifname != "up0" meta nfproto ipv6 meta l4proto {{ tcp, udp }} th dport 53 dnat ip6 to {DNS6}
                }}
                chain post {{
                    type nat hook postrouting priority srcnat;
                    oifname "up0" masquerade
                }}
                {rules}
            }}
        """)


@contextlib.contextmanager
def ended_by_signals():
    """SIGTERM and SIGHUP leave the block like Ctrl-C does, so that its lab is removed."""
    def leave(number, _):
        sys.exit(128 + number)
    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
