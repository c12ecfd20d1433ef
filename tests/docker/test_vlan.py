# SPDX-License-Identifier: MIT
"""compose/macvlan as it is: each network a VLAN of docker0, which Docker makes. On Debian's own kernel, as others may lack 8021q.

The machine is emulated, and every command of Docker's takes seconds there: what apps do is done by as few of them as possible. Nothing is
removed afterwards, as the machine is thrown away.
"""

import os
import time

import pytest

from engine import Project

pytestmark = pytest.mark.vlan

# The app's image is so small that there is no curl in it: bash connects.
REACH = 'for host; do echo "$host: $(timeout 5 bash -c \'exec 3<>"/dev/tcp/$0/443" && echo hello >&3 && head -n 1 <&3\' "$host" 2>&1)"; done'
FROM_OUTSIDE = "from 45.9.0.2 "  # the engine's host, as the Internet sees it


class Apps:
    """The recipe's containers, by their ids."""

    def __init__(self, project):
        self.project, self.engine = project, project.engine
        self.ids = {service: project.container(service) for service in ("gateway", "carrier", "web-app", "build-app")}

    def reach(self, service, *hosts):
        """What an app sees of each of the hosts. Return: {host: the server's greeting, or errors}."""
        shown = self.engine.docker("exec", self.ids[service], "bash", "-c", REACH, "bash", *hosts).stdout
        parts = {host: shown.partition(f"{host}: ")[2] for host in hosts}
        return {host: part.partition("\n" + after + ": ")[0] for (host, part), after in zip(parts.items(), [*hosts[1:], "the end"])}

    def log(self):
        return self.engine.docker("logs", self.ids["gateway"]).stdout


@pytest.fixture(scope="module")
def apps(engine):
    return Apps(Project(engine, "macvlan").__enter__().up())  # pylint: disable=unnecessary-dunder-call


@pytest.fixture(scope="module")
def neighbour(apps):  # pylint: disable=redefined-outer-name
    """The address of an app on the other VLAN."""
    return apps.engine.inspect(apps.ids["build-app"], "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")


@pytest.fixture(scope="module")
def web(apps, neighbour):  # pylint: disable=redefined-outer-name
    """What web-app reaches."""
    return apps.reach("web-app", "example.com", "github.com", "45.12.1.66", neighbour)


@pytest.fixture(scope="module")
def log(apps, web):  # pylint: disable=redefined-outer-name
    """The gateway's log after that."""
    assert web
    return apps.log().splitlines()


def has_line(log, *words):  # pylint: disable=redefined-outer-name
    return any(all(word in line for word in words) for line in log)


def test_parents_are_vlans_that_docker_made(apps):
    for number in (2150, 2151):
        assert os.path.exists(f"/proc/net/vlan/docker0.{number}"), apps.log()


def test_an_allowed_name_is_reached(web):
    assert web["example.com"].startswith(FROM_OUTSIDE), web


def test_each_network_has_its_own_policy(apps, web, log):
    assert "Name or service not known" in web["github.com"], web
    assert has_line(log, "event=denied", "network=web", "qname=github.com")
    assert apps.reach("build-app", "github.com")["github.com"].startswith(FROM_OUTSIDE)


def test_an_address_without_a_name_is_refused(web, log):
    assert "Connection refused" in web["45.12.1.66"], web
    assert has_line(log, "event=denied", "network=web", "dst=45.12.1.66")


def test_two_vlans_do_not_see_each_other(web, log, neighbour):
    assert neighbour.startswith("10.201.51.")
    assert "Connection refused" in web[neighbour], web
    assert has_line(log, "event=denied", "network=web", f"dst={neighbour}", "reason=isolated")


def test_the_log_names_the_form(log):
    assert has_line(log, "network web: form macvlan") and has_line(log, "network build: form macvlan")


def test_without_its_companion_the_segment_has_no_carrier(apps):
    """What `sluice idle` is for."""
    apps.engine.docker("stop", "-t", "1", apps.ids["carrier"])
    assert not apps.reach("web-app", "example.com")["example.com"].startswith("from ")
    apps.engine.docker("start", apps.ids["carrier"])
    end = time.monotonic() + 60
    while not apps.reach("web-app", "example.com")["example.com"].startswith(FROM_OUTSIDE):
        assert time.monotonic() < end, apps.log()
