# SPDX-License-Identifier: MIT
"""What goes wrong in real Compose files, and how it shows."""

import subprocess
import time

import pytest

from apps import NO_SUCH_HOST, OK, REFUSED, fetch
from engine import IMAGE
from packets import Sniffer
from world import ELSEWHERE4

PLAIN = "    cap_drop: [ALL]\n    cap_add: [NET_ADMIN]                # the one capability it needs, in its own network namespace only\n"


@pytest.mark.matrix
def test_app_without_dns_asks_around_the_gateway(project, world, modern):
    """Engines from 28 on ask the host's name servers from the host; older ones from the container, so that the question comes to us all the same."""
    one = project("quickstart")
    one.edit("docker-compose.yml", ("  dns: 192.0.2.53 ", "  # dns: 192.0.2.53 "))
    one.up()
    since = world.names.count()
    status = fetch(one, "app", "https://example.org/")
    if modern and one.engine.version >= (28,):
        assert world.questions("example.org", since) > 0, "the denied name was asked of the host's name server"
        assert status == REFUSED, "it resolves, but its address is not let through"
        assert not [line for line in one.log_lines() if "qname=" in line]
        advice = one.wait_log("level=warning", "uses addresses that no answer showed")
        assert "network behind: quickstart-app-1 (10.201.1." in advice and "`dns: 192.0.2.53`" in advice
    elif not modern:
        assert world.questions("example.org", since) == 0
        assert status == NO_SUCH_HOST
    with_dns = project("quickstart", "other", UPLINK_SUBNET="10.200.2.0/24", UPLINK_ADDRESS="10.200.2.2")
    with_dns.edit("docker-compose.yml", ("10.201.1.", "10.201.2."))
    with_dns.edit("policy/sluice.conf", ("10.201.1.", "10.201.2."))
    with_dns.up()
    since = world.names.count()
    assert fetch(with_dns, "app", "https://example.org/") == NO_SUCH_HOST
    assert world.questions("example.org", since) == 0
    assert fetch(with_dns, "app", "https://example.com/") == OK


@pytest.mark.matrix
def test_no_new_privileges_is_explained_or_harmless(project):
    """It takes the capability of the file away, unless the engine had given the process the capability before. Which engine does is not ours to
    say; in both cases the gateway does not fail without a word."""
    one = project("quickstart")
    one.edit("docker-compose.yml", (PLAIN, PLAIN + "    security_opt: [no-new-privileges]\n"))
    one.compose("up", "-d", "gateway", check=False)
    line = one.wait_log(" ", seconds=20)
    if "CAP_NET_ADMIN is missing" in line:
        assert "no-new-privileges" in line and 'user: "0"' in line
        one.edit("docker-compose.yml", (PLAIN, PLAIN + '    user: "0"\n'))
    one.up()
    assert fetch(one, "app", "https://example.com/") == OK, one.logs()


def test_no_new_privileges_without_the_capability_is_explained(engine):
    done = engine.docker("run", "--rm", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", IMAGE, check=False)
    assert done.returncode == 1
    assert "no-new-privileges" in done.stdout and 'user: "0"' in done.stdout


@pytest.mark.matrix
def test_user_0_with_no_new_privileges_works(project):
    one = project("quickstart")
    one.edit("docker-compose.yml", (PLAIN, PLAIN + '    security_opt: [no-new-privileges]\n    user: "0"\n'))
    one.up()
    assert fetch(one, "app", "https://example.com/") == OK, one.logs()
    assert fetch(one, "app", "https://example.org/") == NO_SUCH_HOST
    for pid in one.engine.docker("top", one.container("gateway"), "-eo", "pid").stdout.split()[1:]:
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            fields = dict(row.rstrip("\n").split(":\t", 1) for row in file if ":\t" in row)
        assert int(fields["CapEff"], 16) == 1 << 12


def test_missing_net_admin_is_explained(project):
    one = project("quickstart")
    one.edit("docker-compose.yml", (PLAIN, "    cap_drop: [ALL]\n"))
    one.compose("up", "-d", "gateway", check=False)
    assert "cap_add: [NET_ADMIN]" in one.wait_log("CAP_NET_ADMIN is missing")


@pytest.mark.parametrize("name", ["net.ipv4.ip_forward"])
def test_missing_sysctl_is_explained(project, name):
    one = project("quickstart")
    one.edit("docker-compose.yml", (f'      {name}: "1"\n', f'      {name}: "0"\n'))
    one.compose("up", "-d", "gateway", check=False)
    assert f'{name}: \\"1\\"' in one.wait_log(name)


def test_mistake_in_the_policy_is_explained_and_the_old_one_stays(project):
    one = project("quickstart").up()
    one.edit("policy/sluice.conf", ("allow  = example.com:443", "alow   = example.com:443"))
    one.wait_log("sluice.conf:", "allow")
    one.wait_log("the running policy stays")
    assert fetch(one, "app", "https://example.com/") == OK


@pytest.mark.parametrize("recipe", ["quickstart", "internal"])
def test_apps_that_start_before_the_gateway(project, recipe):
    """As after a reboot, where depends_on is of no importance."""
    one = project(recipe)
    one.edit("docker-compose.yml", ("  depends_on: {gateway: {condition: service_healthy}}\n", ""))
    one.compose("up", "-d", "app")
    assert one.curl("app", "https://example.com/", "--max-time", "3")[0] != OK
    one.up()
    start = time.monotonic()
    while fetch(one, "app", "https://example.com/") != OK:
        assert time.monotonic() - start < 5, one.logs()


@pytest.mark.matrix
@pytest.mark.parametrize("recipe", ["quickstart", "internal"])
def test_daemon_restart(project, engine, recipe):
    """Everything comes back by itself, apps and gateway in any order."""
    one = project(recipe).up()
    assert fetch(one, "app", "https://example.com/") == OK
    engine.stop()
    engine.start()
    one.wait_healthy()
    start = time.monotonic()
    while fetch(one, "app", "https://example.com/") != OK:
        assert time.monotonic() - start < 5, one.logs()
    assert fetch(one, "app", "https://example.org/") == NO_SUCH_HOST


def test_two_projects_at_once(project):
    first = project("quickstart").up()
    second = project("per-domain").up()
    assert fetch(first, "app", "https://example.com/") == OK
    assert fetch(second, "github-app", "https://github.com/") == OK
    assert fetch(first, "app", "https://github.com/") == NO_SUCH_HOST


RAW_FRAME = """
import socket, struct, sys
def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
mac, source, destination = sys.argv[1].replace(":", ""), socket.inet_aton(sys.argv[2]), socket.inet_aton(sys.argv[3])
udp = struct.pack("!HHHH", 4444, 9999, 16, 0) + b"raw leak"
head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, source, destination)
head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
for _ in range(5):
    s.send(bytes.fromhex(mac) + s.getsockname()[4] + b"\\x08\\0" + head + udp)
"""


def send_raw_frame(project, service, mac):
    """A frame to a MAC of choice out of an app's interface, made by root of this machine: what an app with NET_RAW could do."""
    container = project.container(service)
    address = project.engine.inspect(container, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
    pid = project.engine.inspect(container, "{{.State.Pid}}")
    subprocess.run(["nsenter", "-t", pid, "-n", "/usr/bin/python3", "-c", RAW_FRAME, mac, address, ELSEWHERE4], check=True)


def mac_of(interface):
    with open(f"/sys/class/net/{interface}/address", encoding="ascii") as file:
        return file.read().strip()


@pytest.mark.matrix
def test_raw_frame_to_the_hosts_bridge_leaves_in_the_bridge_form(project, world):
    """This is why the recipes take NET_RAW from the apps. The day it does not leave any more, the README may say so."""
    one = project("quickstart").up()
    network = one.engine.docker("network", "inspect", "quickstart_behind", "--format", "{{.Id}}").stdout.strip()
    with Sniffer(world.inet, "host0") as wire:
        send_raw_frame(one, "app", mac_of(f"br-{network[:12]}"))
        assert wire.wait(contains=b"raw leak")


@pytest.mark.matrix
def test_raw_frame_to_the_host_is_lost_in_the_macvlan_form(project, world, parents):
    one = project("macvlan", **parents).up()
    with Sniffer(world.inet, "host0") as wire:
        for mac in (mac_of("sluice-web"), mac_of("docker0"), "ff:ff:ff:ff:ff:ff"):
            send_raw_frame(one, "web-app", mac)
        assert not wire.wait(contains=b"raw leak")
    assert fetch(one, "web-app", "https://example.com/") == OK


def test_apps_cannot_make_raw_frames(project):
    """In the bridge form this is what keeps an app from addressing the host's own bridge."""
    one = project("quickstart").up()
    done = one.exec("app", "python3", "-c", "import socket\ntry:\n socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n print('made')\nexcept PermissionError:\n print('refused')")
    assert done.stdout.strip() == "refused"


def test_image_starts_without_a_policy_only_to_say_so(engine):
    done = engine.docker("run", "--rm", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", IMAGE, check=False)
    assert done.returncode == 1
    assert "/etc/sluice" in done.stdout
