# SPDX-License-Identifier: MIT
"""Real programs: a browser over HTTP/3, curl, SSH. Allowed ones do not notice the gateway; denied ones are told at once."""

import time

import pytest

from lab import POLICY, SITE4
from packets import Sniffer


@pytest.mark.browser
def test_a_browser_loads_a_page_over_http3(web, web1):
    assert "proto=HTTP/3.0" in web.browse(web1, "https://h3.https.example/")


@pytest.mark.browser
def test_a_browser_falls_back_to_tcp_where_udp_is_denied(lab, web, web1, policy):
    policy(POLICY.replace("**.https.example:443 ", "**.https.example:443/tcp "))
    assert "proto=HTTP/2.0" in web.browse(web1, "https://h3.https.example/", quic=False)


@pytest.mark.browser
def test_a_browser_does_not_reach_a_denied_site(lab, web, web1, log):
    with Sniffer(lab.site, "eth0") as wire:
        assert "proto=" not in web.browse(web1, "https://h3.elsewhere.example/")
        assert [packet for packet in wire.packets() if packet.destination == SITE4] == []
    assert log.wait(event="denied", qname="h3.elsewhere.example")


@pytest.mark.browser
def test_a_browser_of_another_network_does_not_reach_it(lab, web, build1):
    assert "proto=" not in web.browse(build1, "https://h3.https.example/")


@pytest.mark.browser
def test_curl_loads_a_page(web, web1):
    assert web.fetch(web1, "https://h3.https.example/") == (0, "proto=HTTP/2.0")
    assert web.fetch(web1, "http://plain.any.example/") == (0, "plain")


@pytest.mark.browser
def test_curl_of_a_denied_name_fails_at_once(web, web1, slow_machine):
    start = time.monotonic()
    status, _ = web.fetch(web1, "https://h3.elsewhere.example/")
    assert status == 6, "could not resolve host"
    assert time.monotonic() - start < (20 if slow_machine else 2)


@pytest.mark.browser
def test_curl_to_a_denied_address_fails_at_once(web, web1, slow_machine):
    start = time.monotonic()
    status, _ = web.fetch(web1, "https://45.12.1.66/")
    assert status == 7, "could not connect"
    assert time.monotonic() - start < (20 if slow_machine else 2)


def test_ssh_runs_a_command(ssh, names, web1):
    names.add("git.ssh.example", A=SITE4)
    done = ssh.run(web1, "git.ssh.example", "echo through the gateway")
    assert (done.returncode, done.stdout) == (0, "through the gateway\n"), done.stderr


def test_ssh_to_a_denied_name_fails(ssh, names, web1):
    names.add("git.elsewhere.example", A=SITE4)
    done = ssh.run(web1, "git.elsewhere.example", "true")
    assert done.returncode == 255 and "resolve" in done.stderr


def test_a_resolver_library_is_content(names, web1):
    """glibc asks A and AAAA at once; a family that is missing or denied must not spoil the other."""
    name, address, address6 = names.new("https.example", ipv6=True)
    found = web1.run(["getent", "ahosts", name]).stdout
    assert address in found and address6 in found
    only4, address = names.new("https.example")
    assert address in web1.run(["getent", "ahosts", only4]).stdout


def test_a_resolver_library_is_content_without_ipv6(names, lan1):
    name, address, _ = names.new("lan-only.example", ipv6=True)
    found = lan1.run(["getent", "ahosts", name])
    assert found.returncode == 0 and address in found.stdout


def test_a_udp_exchange_passes(names, web1):
    name, address = names.new("ok.example")
    web1.resolve(name)
    with web1.udp(address, 9999) as sock:
        sock.settimeout(10)
        for number in range(200):
            sock.send(b"%d" % number)
            assert sock.recv(100) == b"%d" % number
