# SPDX-License-Identifier: MIT
"""An app that uses addresses no answer showed, and never asked us for a name, is told about once: most likely its service lacks `dns:`."""

from lab import POLICY

NOBODY_TOLD = "45.12.1.66"  # of this address, in the shared lab's policy
NOBODY_TOLD6 = "2a0e:12:1::66"
TEXT = "uses addresses that no answer showed"


def advice(log):
    log.settle()
    return [line["text"] for line in log.lines(event="message", level="warning") if TEXT in line["text"]]


def test_an_app_that_never_asked_is_told_about_once_with_the_line_to_add(own_lab):
    own_lab.web1.tcp_result(NOBODY_TOLD)
    own_lab.web1.tcp_result("45.12.1.67")
    own_lab.web1.udp_result("45.12.1.68")
    text, = advice(own_lab.gateway.log)
    assert text.startswith(f"network web: shop_web1_1 (10.201.1.11) {TEXT}, and has not asked this gateway for a name since it started."), text
    assert text.endswith("its service lacks the line `dns: 192.0.2.53`")


def test_the_same_over_ipv6_is_the_same_container(own_lab):
    own_lab.web1.tcp_result("10.201.1.1", 9)  # the gateway meets its IPv4 address
    own_lab.web1.tcp_result(NOBODY_TOLD6)
    own_lab.web1.tcp_result(NOBODY_TOLD)
    text, = advice(own_lab.gateway.log)
    assert text.startswith("network web: shop_web1_1 (fdc9:1::11) "), text


def test_an_app_that_asked_is_not_told_about(own_lab):
    """Whatever it asked for, and whichever family it uses then."""
    own_lab.web1.ask("denied.evil.example")
    own_lab.build1.ask("denied.evil.example", server="fdc9:2::1")
    for app in (own_lab.web1, own_lab.build1):
        assert app.tcp_result(NOBODY_TOLD) == "refused"
        assert app.tcp_result(NOBODY_TOLD6) == "refused"
    own_lab.gateway.log.wait(event="denied", network="build", dst=NOBODY_TOLD6)
    assert advice(own_lab.gateway.log) == []
    # A neighbour that did not ask is another app.
    own_lab.web2.tcp_result(NOBODY_TOLD)
    assert len(advice(own_lab.gateway.log)) == 1


def test_a_refused_port_of_a_name_is_no_sign_of_it(own_lab):
    """Two apps of a network: one asked, the other one uses the address; it may have it from its neighbour."""
    name, address = own_lab.names.new("https.example")
    own_lab.web1.resolve(name)
    assert own_lab.web2.tcp_result(address, 8443) == "refused"
    own_lab.gateway.log.wait(event="denied", dst=address, port=8443)
    assert advice(own_lab.gateway.log) == []


def test_audit_mode_is_told_too(own_lab):
    own_lab.gateway.set_policy(POLICY.replace("[network web]", "[network web]\nmode = audit"))
    own_lab.gateway.log.mark()
    assert own_lab.web1.tcp_result(NOBODY_TOLD) == "open"
    assert len(advice(own_lab.gateway.log)) == 1


def test_a_new_worker_does_not_speak_for_the_one_before(own_lab):
    own_lab.web1.ask("denied.evil.example")
    own_lab.gateway.kill_worker()
    own_lab.gateway.wait_healthy()
    own_lab.web1.tcp_result(NOBODY_TOLD)
    text, = advice(own_lab.gateway.log)
    assert "since its worker was started again" in text
