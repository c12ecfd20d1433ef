# SPDX-License-Identifier: MIT
"""What is outside the engine: a small Internet in network namespaces of its own (docker-facts: a container of the same host would not do).

    site --- inet --- (this namespace: the engine, its bridges and its firewall rules) === containers

The name servers and plain servers are those of tests/netns; the site speaks HTTP/1, 2 and 3 under a certificate that the apps' image
trusts, and SSH, and has a git repository. Nothing here exists outside of the namespaces that `run` made.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
NETNS = os.path.join(os.path.dirname(HERE), "netns")
sys.path.insert(0, NETNS)

from app import Host  # pylint: disable=wrong-import-position
from lab import Names  # pylint: disable=wrong-import-position
from namespaces import Failed, command, stop  # pylint: disable=wrong-import-position
from sites import Ssh, wait_for_port  # pylint: disable=wrong-import-position

PYTHON = "/usr/bin/python3"
CACHE = os.environ["SLUICE_DOCKER_CACHE"]
HOST4, HOST6 = "45.9.0.2", "2a0e:9::2"  # the engine's host, as the Internet sees it
DNS, PROXY = "45.9.0.53", "45.9.0.80"
PUBLIC_DNS = ("9.9.9.9", "149.112.112.112")  # the recipes' upstream servers
PROXY_PORT = 3128
SITE4, SITE6 = "45.12.3.2", "2a0e:12:3::2"
PLAIN4 = "45.12.1.80"
ELSEWHERE4 = "45.12.1.66"  # plain servers answer on every address of 45.12.0.0/15 and above
OUTSIDE_FD = 9

# Names that the recipes use. Whatever they are in the real world: here they lead to the site.
NAMES = ("example.com", "www.example.com", "example.org", "example.net", "github.com", "quic.nginx.org", "api.anthropic.com", "api.vendor.example",
         "telemetry.vendor.example", "gemini.google.com", "accounts.google.com", "packages.example", "files.packages.example")

CADDYFILE = """{{
	admin off
	auto_https disable_redirects
	storage file_system {directory}
	log {{
		output discard
	}}
}}
https:// {{
	tls {directory}/cert.pem {directory}/key.pem
	handle /repository.git/* {{
		root * {directory}
		file_server
	}}
	respond "{{http.request.host}} over {{http.request.proto}}
"
}}
http:// {{
	respond "{{http.request.host}} over {{http.request.proto}}
"
}}
"""


class World:
    """The Internet. A context manager; `names` changes what the name servers say (tests/netns/lab.py).

    A plain one has no site: its names lead to the plain servers."""

    def __init__(self, plain=False):
        self.plain = plain

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        self.directory = self.stack.enter_context(tempfile.TemporaryDirectory(dir="/run", prefix="world-"))
        self.names = None
        try:
            self.inet = self.add("inet")
            self.site = self.add("site")
            self.connect()
            self.start_servers()
            if not self.plain:
                self.make_repository()
                self.start_site()
                self.ssh = Ssh(self)
            self.start_proxy()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_):
        self.stack.close()

    def add(self, short):
        namespace = Host("", short)
        self.stack.callback(namespace.close)
        namespace.sysctl(net__ipv6__conf__default__accept_dad=0, net__ipv6__conf__all__accept_dad=0, net__ipv4__ip_forward=1,
                         net__ipv6__conf__all__forwarding=1, net__ipv6__ip_nonlocal_bind=1, net__ipv4__icmp_ratemask=0)
        namespace.ip("link set lo up\n")
        return namespace

    def connect(self):
        command(["ip", "link", "add", "internet", "type", "veth", "peer", "name", "host0", "netns", self.inet.name])
        command(["ip", "-batch", "-"], input=f"addr add {HOST4}/24 dev internet\naddr add {HOST6}/64 dev internet nodad\nlink set internet up\n"
                "route add default via 45.9.0.1\nroute add default via 2a0e:9::1\n")
        self.inet.ip(f"addr add 45.9.0.1/24 dev host0\naddr add {DNS}/24 dev host0\naddr add {PROXY}/24 dev host0\n"
                     "addr add 2a0e:9::1/64 dev host0 nodad\naddr add 2a0e:9::53/64 dev host0 nodad\nlink set host0 up\n"
                     "route add local 45.12.0.0/14 dev lo\nroute add local 45.16.0.0/12 dev lo\nroute add local 45.32.0.0/11 dev lo\n"
                     "route add local 2a0e:10::/28 dev lo\n" + "".join(f"addr add {address}/32 dev lo\n" for address in PUBLIC_DNS) +
                     f"link add site0 type veth peer name eth0 netns {self.site.name}\n"
                     "addr add 45.12.3.1/24 dev site0\naddr add 2a0e:12:3::1/64 dev site0 nodad\nlink set site0 up\n"
                     "route add 45.12.3.0/24 dev site0 table local\nroute add 2a0e:12:3::/64 dev site0 table local\n")
        self.site.ip(f"addr add {SITE4}/24 dev eth0\naddr add {SITE6}/64 dev eth0 nodad\nlink set eth0 up\n"
                     "route add default via 45.12.3.1\nroute add default via 2a0e:12:3::1\n")

    def log(self, name):
        return self.stack.enter_context(open(os.path.join(self.directory, name + ".log"), "ab"))

    def start_servers(self):
        path = os.path.join(self.directory, "names.sock")
        log = self.log("servers")
        self.inet.start([PYTHON, os.path.join(NETNS, "internet.py"), "--control", path,
                         *(word for address in (DNS, *PUBLIC_DNS, "2a0e:9::53") for word in ("--listen", address))], stdout=log, stderr=log)
        plain = self.inet.start([PYTHON, os.path.join(NETNS, "servers.py"), "--tcp", "22", "443", "5432", "8443", "--udp", "123", "443", "9999"],
                                stdout=subprocess.PIPE, stderr=log, text=True)
        if plain.stdout.readline() != "ready\n":
            raise Failed("servers.py did not start")
        end = time.monotonic() + 30
        while not self.names:
            try:
                self.names = Names(path)
            except OSError:
                if time.monotonic() > end:
                    raise Failed("internet.py did not start") from None
                time.sleep(0.02)
        self.stack.callback(self.names.close)
        for name in NAMES:
            self.names.add(name, **({"A": PLAIN4} if self.plain else {"A": SITE4, "AAAA": SITE6}))
        self.names.add("elsewhere.example", A=ELSEWHERE4)
        self.names.add("time.example", A="45.12.1.23")

    def make_repository(self):
        """What `git clone` finds, over SSH and (in the form that needs no program on the server) over HTTPS."""
        work, self.repository = (os.path.join(self.directory, name) for name in ("work", "repository.git"))
        command(["git", "init", "--quiet", work])
        command(["git", "-C", work, "-c", "user.name=tests", "-c", "user.email=tests@example.com", "commit", "--quiet", "--allow-empty", "-m", "first"])
        command(["git", "clone", "--quiet", "--bare", work, self.repository])
        command(["git", "-C", self.repository, "update-server-info"])

    def start_site(self):
        key, request, certificate = (os.path.join(self.directory, name) for name in ("key.pem", "request.pem", "cert.pem"))
        command(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=site", "-keyout", key, "-out", request])
        with open(request + ".ext", "w", encoding="ascii") as file:
            file.write("subjectAltName=" + ",".join(f"DNS:{name}" for name in NAMES))
        command(["openssl", "x509", "-req", "-in", request, "-CA", f"{CACHE}/ca.pem", "-CAkey", f"{CACHE}/ca.key", "-CAcreateserial",
                 "-CAserial", request + ".serial", "-days", "30", "-extfile", request + ".ext", "-out", certificate])
        with open(os.path.join(self.directory, "Caddyfile"), "w", encoding="ascii") as file:
            file.write(CADDYFILE.format(directory=self.directory))
        log = self.log("site")
        self.site.start(["caddy", "run", "--config", os.path.join(self.directory, "Caddyfile"), "--adapter", "caddyfile"], stdout=log, stderr=log,
                        env={**os.environ, "HOME": self.directory})
        wait_for_port(self.site, SITE4, 443)

    def start_proxy(self):
        """Builds reach the Debian archive at http://PROXY:PROXY_PORT."""
        if "SLUICE_DOCKER_MIRROR" not in os.environ:
            return
        host = os.environ["SLUICE_DOCKER_MIRROR"].split("/")[2]
        listener = self.inet.socket()
        with listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((PROXY, PROXY_PORT))
            listener.listen(64)
            resolv = "/run/host-resolv.conf"
            log = self.log("proxy")
            process = subprocess.Popen(["unshare", "--mount", "sh", "-c", f'[ ! -e {resolv} ] || mount --bind {resolv} /etc/resolv.conf; exec "$@"', "sh",
                                        PYTHON, os.path.join(HERE, "proxy.py"), str(listener.fileno()), str(OUTSIDE_FD), host, "security.debian.org"],
                                       pass_fds=(listener.fileno(), OUTSIDE_FD), stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": NETNS})
            self.stack.callback(stop, process)

    def questions(self, name, since=0):
        """How many questions for a name came in at the name servers since number `since`."""
        wire = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        return sum(wire in query["wire"].lower() for query in self.names.queries(since))
