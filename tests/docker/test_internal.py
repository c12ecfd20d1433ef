# SPDX-License-Identifier: MIT
"""compose/internal as it is, on the engine of this run: apps on an `internal: true` network, names with virtual addresses."""

import ipaddress
import json
import os
import re
import subprocess

import pytest

from apps import AGAIN, NO_SUCH_HOST, OK, REFUSED, UDP_ECHO, blocks, fetch, h3get
from engine import ROOT, TREE, Failed, Project
from sites import browse, spki_of
from world import ELSEWHERE4, HOST4

pytestmark = pytest.mark.matrix

GATEWAY = "10.201.80.2"
POOL, POOL6 = ipaddress.ip_network("10.201.80.128/25"), ipaddress.ip_network("fdc9:80:0:0:8000::/65")
README = os.path.join(ROOT, "compose", "internal", "README.md")
# Besides the recipe, on the same engine.
OTHER = {"WEB_SUBNET": "10.201.81.0/24", "WEB_GATEWAY": "10.201.81.2", "WEB_RANGE": "10.201.81.64/26", "UPLINK_SUBNET": "10.200.81.0/24",
         "UPLINK_ADDRESS": "10.200.81.2"}


@pytest.fixture(scope="module")
def internal(engine):
    with Project(engine, "internal") as one:
        one.up()
        yield one


def lookup(project, service, name, database="ahostsv4"):
    """The addresses of a name, as an app's C library sees them."""
    lines = project.exec(service, "getent", database, name).stdout.splitlines()
    return sorted({line.split()[0] for line in lines})


def host_addresses(project, network="web"):
    """Addresses of the host's bridge."""
    ident = project.engine.docker("network", "inspect", "--format", "{{.Id}}", f"{project.name}_{network}").stdout.strip()
    found = json.loads(subprocess.run(["ip", "-json", "address", "show", "dev", f"br-{ident[:12]}"], capture_output=True, check=True).stdout)
    return [address["local"] for address in found[0]["addr_info"]]


def test_bridges_pass_packets_to_the_hosts_firewall():
    """Docker's rules for internal networks apply to what passes a bridge only then; hosts differ."""
    for tool in ("iptables", "ip6tables"):
        with open(f"/proc/sys/net/bridge/bridge-nf-call-{tool}", encoding="ascii") as file:
            assert file.read().strip() == "1"


def test_the_app_has_no_way_out(internal):
    routes = internal.exec("app", "ip", "route").stdout
    if internal.engine.modern:
        assert "default" not in routes
    else:
        nobody = re.search(r"default via (\S+)", routes)[1]  # old engines write one that leads nowhere
        assert internal.exec("app", "ping", "-c", "1", "-W", "1", nobody).returncode != 0
    status, text, _ = internal.curl("app", f"https://{ELSEWHERE4}/")
    assert status == REFUSED and ("unreachable" in text or "No route" in text or "Could not connect" in text), text
    assert internal.exec("app", "ip", "-6", "route").stdout.count("default") == 0


def test_the_app_cannot_make_frames(internal):
    """With raw sockets it could speak to the host's bridge, which has a link-local IPv6 address."""
    done = internal.python("app", "import socket\ntry:\n socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\nexcept PermissionError as e:\n print('no', e)\n")
    assert done.stdout.startswith("no "), done.stdout


def test_the_host_has_no_address_in_the_network(internal):
    assert [address for address in host_addresses(internal) if ":" not in address] == []


def test_allowed_names_work(internal):
    assert internal.curl("app", "https://example.com/")[:2] == (OK, "example.com over HTTP/2.0"), internal.logs()
    assert internal.python("quic-app", h3get(), "quic.nginx.org").stdout.strip() == "quic.nginx.org over HTTP/3.0", internal.logs()
    assert "SSH-2.0" in internal.curl("app", "telnet://github.com:22", "--max-time", "2")[1]


def test_answers_are_of_the_pool(internal):
    addresses = lookup(internal, "app", "example.com")
    assert addresses and all(ipaddress.ip_address(address) in POOL for address in addresses)
    assert lookup(internal, "app", "example.com", "ahostsv6") in ([], [f"::ffff:{address}" for address in addresses])
    assert "example.com" in internal.exec("app", "getent", "hosts", addresses[0]).stdout, "PTR"


def test_one_address_is_one_name(internal):
    """github.com and example.com have the same address out there, and port 22 is open at it."""
    web, git = lookup(internal, "app", "example.com")[0], lookup(internal, "app", "github.com")[0]
    assert web != git
    status, text, seconds = internal.curl("app", f"telnet://{web}:22", "--max-time", "2")
    assert status == REFUSED and seconds < 2, text
    internal.wait_log("event=denied", "network=web", f"dst={web}", "port=22", "name=example.com", "reason=port-not-allowed")
    assert "SSH-2.0" in internal.curl("app", f"telnet://{git}:22", "--max-time", "2")[1]


def test_denied_name_is_no_such_host_and_asked_of_nobody(internal, world):
    since = world.names.count()
    status, text, _ = internal.curl("app", "https://example.org/")
    assert status == NO_SUCH_HOST, text
    assert world.questions("example.org", since) == 0
    line = internal.wait_log("event=denied", "network=web", "qname=example.org", "reason=name-not-allowed")
    assert re.search(r"app=internal[-_]app[-_]1 ", line), line


@pytest.mark.parametrize("options", [[], ["--dns", "192.0.2.53"]], ids=["without dns", "another address"])
def test_app_with_a_wrong_dns_resolves_nothing(internal, world, options):
    since = world.names.count()
    done = internal.engine.docker("run", "--rm", "--network", "internal_web", *options, "curlimages/curl:8.11.1", "curl", "-sS", "--max-time", "15",
                                  "https://example.com/", check=False)
    assert done.returncode == NO_SUCH_HOST, done.stdout
    assert world.questions("example.com", since) == 0, "nor does the question get out"


def test_address_of_the_pool_without_a_name_is_refused_and_logged(internal):
    status, text, _ = internal.curl("app", "https://10.201.80.250/", "--max-time", "2")
    assert status == REFUSED, text
    internal.wait_log("event=denied", "network=web", "dst=10.201.80.250", "port=443", "proto=tcp")
    done = internal.python("app", UDP_ECHO, "10.201.80.250", "9999")
    assert "No route to host" in done.stdout, done.stdout
    internal.wait_log("event=denied", "network=web", "dst=10.201.80.250", "port=9999", "proto=udp")


def test_the_gateway_itself_is_closed_but_for_dns(internal):
    assert internal.curl("app", f"http://{GATEWAY}/", "--max-time", "2")[0] == REFUSED
    internal.wait_log("event=denied", "network=web", f"dst={GATEWAY}")


def test_chromium_uses_http3(internal, world):
    """The browser of this machine, in the network of the app's container and with its resolver."""
    app = internal.container("app")
    resolver = TREE + internal.engine.inspect(app, "{{.ResolvConfPath}}")
    pid = internal.engine.inspect(app, "{{.State.Pid}}")

    def run(argv, timeout, env):
        enter = ["nsenter", "-t", pid, "-n", "unshare", "--mount", "sh", "-ec", 'mount --bind "$1" /etc/resolv.conf; shift; exec "$@"', "sh", resolver]
        return subprocess.run([*enter, *argv], capture_output=True, text=True, timeout=timeout, env=env, check=False)

    spki = spki_of(os.path.join(world.directory, "key.pem"))
    assert "example.com over HTTP/3.0" in browse(run, "https://example.com/", spki, world.directory), internal.logs()
    assert "HTTP/" not in browse(run, "https://example.org/", spki, world.directory)


def test_doctor_finds_nothing(internal):
    done = internal.compose("exec", "-T", "gateway", "sluice", "doctor", check=False)
    assert done.returncode == 0, done.stdout
    assert "internal" in done.stdout


def lint(one):
    """What `sluice lint` prints, when there is no error."""
    done = one.engine.docker("run", "--rm", "-i", "sluice", "lint", input=one.compose("config", "--format", "json").stdout, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.modern  # Compose 1.29 prints no JSON
def test_lint_finds_nothing(internal):
    assert "no findings" in lint(internal)


def address_stays(internal, change):
    """The app keeps an address, and never stops trying it while the gateway is away. Return: what it had to wait when the gateway was healthy."""
    kept = lookup(internal, "app", "example.com")
    app = internal.container("app")
    started = internal.engine.inspect(app, "{{.State.StartedAt}}")
    change()
    trying = internal.engine.popen(["docker", "exec", "-i", app, "python3", "-", kept[0], "443", "example.com"], AGAIN)
    internal.wait_healthy()
    try:
        printed, _ = trying.communicate(timeout=60)
    finally:
        trying.kill()
    assert len(printed.split()) == 2, printed + internal.logs()
    assert internal.engine.inspect(app, "{{.State.StartedAt}}") == started, "the app was not to be restarted"
    status, page, _ = internal.curl("app", "https://example.com/", "--resolve", f"example.com:443:{kept[0]}")
    assert (status, page) == (OK, "example.com over HTTP/2.0"), internal.logs()
    assert lookup(internal, "app", "example.com") == kept


def test_cached_address_works_with_a_recreated_gateway(internal):
    old = internal.container("gateway")
    address_stays(internal, lambda: internal.compose("up", "-d", "--force-recreate", "--no-deps", "gateway"))
    assert internal.container("gateway") != old


def test_cached_address_works_after_the_gateway_was_killed(internal):
    address_stays(internal, lambda: internal.engine.docker("kill", internal.container("gateway")) and
                  internal.engine.docker("start", internal.container("gateway")))


def test_gateway_log_has_no_errors(internal):
    bad = [line for line in internal.log_lines() if re.search(r"level=(error|warning)", line) and "this kernel" not in line]
    assert bad == []


def test_containers_get_no_address_of_the_pool(project):
    """Docker has addresses for two or three apps here, and rather gives none than one of the pool."""
    one = project("internal", "small", **{**OTHER, "WEB_RANGE": "10.201.81.64/30"})
    with pytest.raises(Failed, match="no available IP"):
        one.compose("up", "-d", "--scale", "app=5")
    containers = json.loads(one.engine.docker("network", "inspect", "--format", "{{json .Containers}}", "small_web").stdout)
    given = {ipaddress.ip_interface(container["IPv4Address"]).ip for container in containers.values()} - {ipaddress.ip_address(OTHER["WEB_GATEWAY"])}
    assert given and all(address in ipaddress.ip_network("10.201.81.64/30") for address in given), given


def test_published_port_leads_into_the_network(project, world):
    """The app has no route back to the visitor, and answers all the same."""
    one = project("internal", "published", **OTHER)
    one.edit("docker-compose.yml", ("    environment:\n", '    ports: ["8443:8443/tcp"]\n    environment:\n'),
             ("        allow     =", "        publish   = 8443/tcp -> app:8080\n        allow     ="),
             ("  app:                                  #", "  app:\n    command: [infinity]\n    #"))
    one.up()
    one.engine.docker("exec", "-d", one.container("app"), "python3", "-m", "http.server", "8080", "--directory", "/usr/share")
    done = world.inet.run(["curl", "-sS", "--retry", "20", "--retry-delay", "1", "--retry-all-errors", "--max-time", "5", f"http://{HOST4}:8443/"], timeout=60)
    assert "Directory listing" in done.stdout, done.stderr + one.logs()
    one.wait_log("event=inbound", "src=45.9.0.1", "port=8080", "proto=tcp", "action=allowed")
    assert fetch(one, "app", "https://example.com/") == OK, one.logs()


@pytest.mark.modern  # engines before 28 give the IPv6 gateway address to the host's bridge
def test_ipv6_as_the_readme_says(project):
    compose, policy = [text.replace("10.201.80.", "10.201.81.").replace("10.200.80.", "10.200.81.") for text in blocks(README) if "fdc9:80::2" in text]
    one = project("internal", "six", **OTHER)
    with open(os.path.join(one.directory, "docker-compose.override.yml"), "w", encoding="utf-8") as file:
        file.write(compose)
    lines = dict(line.split(" = ", 1) for line in policy.splitlines())
    assert sorted(key.strip() for key in lines) == ["gateway", "subnet"]
    one.edit("docker-compose.yml", ("subnet    = ${WEB_SUBNET:-10.201.80.0/24}", policy.splitlines()[0]),
             ("gateway   = ${WEB_GATEWAY:-10.201.80.2}", policy.splitlines()[1]))
    one.up()
    assert "no findings" in lint(one)
    assert host_addresses(one) == []
    address, = lookup(one, "app", "example.com", "ahostsv6")
    assert ipaddress.ip_address(address) in POOL6, one.logs()
    status, page, _ = one.curl("app", "https://example.com/", "-6")
    assert (status, page) == (OK, "example.com over HTTP/2.0"), one.logs()
    assert one.python("quic-app", h3get(), "quic.nginx.org", lookup(one, "quic-app", "quic.nginx.org", "ahostsv6")[0]).stdout.strip() == \
        "quic.nginx.org over HTTP/3.0", one.logs()
    assert one.curl("app", "https://[2a0e:12:1::66]/")[0] == REFUSED
    assert one.curl("app", f"https://[{address}]:22/")[0] == REFUSED
    one.wait_log("event=denied", "network=web", f"dst={address}", "port=22")
    assert fetch(one, "app", "https://example.com/") == OK
