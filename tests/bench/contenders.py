# SPDX-License-Identifier: MIT
"""Who stands in the gateway's place: Sluice, and what people use or write instead. Each is used as `with running(lab, NAME): ...`."""

import contextlib
import os
import shutil
import subprocess
import time

from benchlab import FIRST_ADDRESS, FORWARDER_CPU, GREETING, NETWORKS, REQUEST, SINK, UPSTREAM, pin, wait_answer
from namespaces import Failed, stop

PORTS = f"{SINK} {REQUEST} {GREETING}"
GATEWAY = "10.201.1.1"
DENIED_NAMES = 1000

# name -> Debian package and the program in it
PACKAGES = {"dnsmasq": ("dnsmasq-base", "dnsmasq"), "smartdns": ("smartdns", "smartdns"), "unbound": ("unbound", "unbound"),
            "dnsdist": ("dnsdist", "dnsdist"), "haproxy": ("haproxy", "haproxy"), "socat": ("socat", "socat")}


class Missing(Exception):
    """Its package is not installed."""


def program(name):
    package, command = PACKAGES[name.split(" ")[0]]
    path = shutil.which(command, path="/usr/bin:/usr/sbin")
    if not path:
        raise Missing(f"{package} is not installed")
    return path


# --- rules ---

MASQUERADE = """
table inet hand {
    chain post {
        type nat hook postrouting priority srcnat; policy accept;
        oifname "up0" masquerade
    }
}
"""

# What a careful person writes: established flows first, one set of addresses, one set of ports.
HAND = MASQUERADE + f"""
table inet hand {{
    set names {{
        type ipv4_addr
        flags timeout
        timeout TIMEOUT
        size 2000000
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "up0" drop
        ip daddr @names meta l4proto {{ tcp, udp }} th dport {{ {', '.join(PORTS.split())} }} accept
        DENY
    }}
}}
"""
REJECT, DROP = "counter reject with icmp type admin-prohibited", "counter drop"


def hand(deny=REJECT, timeout="10m"):
    return HAND.replace("DENY", deny).replace("TIMEOUT", timeout)


def add_addresses(lab, count):
    """The first `count` addresses of names into the hand-written set."""
    first = [int(part) for part in FIRST_ADDRESS.split(".")]
    texts = [f"{first[0]}.{first[1] + (i >> 16)}.{i >> 8 & 255}.{i & 255}" for i in range(count)]
    lab.gw.nft(f"add element inet hand names {{ {', '.join(texts)} }}\n")


# --- forwarders ---

def dnsmasq(lab, cache, upstream, sets):
    return [program("dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", f"--server={upstream}",
            f"--listen-address={GATEWAY}", "--bind-interfaces", "--user=root", "--pid-file=", "--dns-forward-max=2000",
            f"--cache-size={10000 if cache else 0}", *(["--nftset=/bench.example/4#inet#hand#names"] if sets else [])]


def smartdns(lab, cache, upstream, sets):
    config = f"""\
bind {GATEWAY}:53
server {upstream}
speed-check-mode none
cache-size {10000 if cache else 0}
cache-persist no
prefetch-domain no
dualstack-ip-selection no
log-level fatal
log-file {lab.directory}/smartdns.log
""" + ("nftset /bench.example/#4:inet#hand#names\n" if sets else "")
    return [program("smartdns"), "-f", "-x", "-c", write(lab, "smartdns.conf", config), "-p", "-"]


def unbound(lab, _cache, upstream, _sets):
    config = f"""\
server:
  interface: {GATEWAY}
  do-daemonize: no
  chroot: ""
  username: ""
  directory: "{lab.directory}"
  pidfile: ""
  use-syslog: no
  num-threads: 1
  module-config: "iterator"
  access-control: 0.0.0.0/0 allow
  do-ip6: no
  outgoing-range: 4096
  num-queries-per-thread: 2048
  so-rcvbuf: 4m
remote-control:
  control-enable: no
forward-zone:
  name: "."
  forward-addr: {upstream}
"""
    return [program("unbound"), "-d", "-c", write(lab, "unbound.conf", config)]


def dnsdist(lab, cache, upstream, _sets):
    config = f"setLocal('{GATEWAY}:53')\nnewServer({{address='{upstream}',healthCheckMode='up',sockets=1}})\nsetACL('0.0.0.0/0')\n"
    if cache:
        config += "cache = newPacketCache(20000)\ngetPool(''):setCache(cache)\n"
    return [program("dnsdist"), "--supervised", "--disable-syslog", "-C", write(lab, "dnsdist.conf", config)]


FORWARDERS = {"dnsmasq": dnsmasq, "smartdns": smartdns, "unbound": unbound, "dnsdist": dnsdist}
WITH_SETS = ("dnsmasq", "smartdns")


def write(lab, name, text):
    path = os.path.join(lab.directory, name)
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    return path


# --- proxies: one listener for each port, to one server ---

def haproxy(lab):
    parts = ["global\n  maxconn 4000\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 2s\n  timeout client 30s\n  timeout server 30s\n"]
    for port in (GREETING, REQUEST):
        parts.append(f"listen p{port}\n  bind {GATEWAY}:{port}\n  server s {FIRST_ADDRESS}:{port}\n")
    return [[program("haproxy"), "-db", "-f", write(lab, "haproxy.cfg", "".join(parts))]]


def socat(_lab):
    return [[program("socat"), f"TCP-LISTEN:{port},bind={GATEWAY},reuseaddr,fork,backlog=1000", f"TCP:{FIRST_ADDRESS}:{port}"]
            for port in (GREETING, REQUEST)]


PROXIES = {"haproxy": haproxy, "socat": socat}


# --- Sluice ---

def policy(upstream=UPSTREAM, rules=0, keys="", sections=None):
    """The default configuration with a name rule for the lab's names and a list of denied names; `rules`: so many more names in each network.

    `sections`: network -> further keys of its section.
    """
    denied = "\n".join(f"    d{i}.denied.example" for i in range(DENIED_NAMES))
    named = "\n".join(f"    r{i}.rules.example" for i in range(rules))
    text = f"[gateway]\nuplink = auto\n\n[upstream]\nserver = {upstream}\n\n[rules lists]\ndeny =\n{denied}\n"
    for network, number in NETWORKS.items():
        text += f"\n[network {network}]\nsubnet = 10.201.{number}.0/24\nuse = lists\nports = {PORTS}\nallow = *.bench.example\n{named}\n"
        text += keys + (sections or {}).get(network, "")
    return text


# --- one of them at work ---

@contextlib.contextmanager
def running(lab, name, cache=False, upstream=UPSTREAM, rules=None, sets=True, **options):
    """`rules`: of those that are not Sluice, default: hand(). `options`: of policy(). Yields the process id, None when there is none."""
    lab.clear()
    started = []
    try:
        if name.startswith("sluice"):
            text = options.pop("text", None) or policy(upstream, **options)
            lab.start_sluice(text)
            wait_answer(lab)
            pid = lab.gateway.process.pid
        else:
            lab.hold_addresses()
            kind = name.split(" ")[0]
            lab.gw.nft(rules or {"routing": "", "masquerade": MASQUERADE}.get(kind, MASQUERADE if kind in PROXIES else hand()))
            commands = []
            if kind in FORWARDERS:
                commands = [FORWARDERS[kind](lab, cache, upstream, sets)]
            elif kind in PROXIES:
                commands = PROXIES[kind](lab)
            with open(os.path.join(lab.directory, f"{kind}.out"), "ab") as log:
                started = [lab.gw.start(argv, stdout=log, stderr=subprocess.STDOUT) for argv in commands]
            pid = started[0].pid if started else None
            if kind in FORWARDERS:
                wait_answer(lab)
            elif kind in PROXIES:
                time.sleep(0.5)
            for process in started:
                if process.poll() is not None:
                    raise Failed(f"{name} ended with status {process.returncode}; see {kind}.out")
                pin(process.pid, FORWARDER_CPU)
        if pid:
            pin(pid, FORWARDER_CPU)
        yield pid
    finally:
        for process in started:
            stop(process)
            lab.gw.processes.remove(process)
        lab.gateway.stop()
