# SPDX-License-Identifier: MIT
"""What attacks with packets share: an app that sends what it likes, eyes on all sides of the gateway, and the sum of what it has told."""

import contextlib

from app import talk
from lab import UPSTREAM, VIRTUAL
from namespaces import patience, wait_until
from packets import Sniffer, send_frames

MARK = b"carried by an attacker"
FORMS = ("routed", "virtual")
FAMILIES = ("ipv4", "ipv6")
RECORD = {"ipv4": "A", "ipv6": "AAAA"}
WEB = {"routed": "\n[network web]\nsubnet = 10.201.1.0/24\nsubnet = fdc9:1::/64\n", "virtual": VIRTUAL.format(network="web", number=1)}
RULES = "allow = **.https.example:443 **.any.example\n"
OTHERS = """
[network build]
subnet = 10.201.2.0/24
subnet = fdc9:2::/64
allow = **.build.example:443

[network lan]
subnet = 10.201.3.0/24
"""
COUNTED = ("spoofed_web", "invalid_web", "multicast_web", "refused_web")


def policy_text(form, keys=""):
    return UPSTREAM + WEB[form] + keys + RULES + OTHERS


def allowed(lab, family, suffix="any.example"):
    """An address that web1 may send to, by a name that it has just asked for: always the same, since a pool has few."""
    name = f"attacked.{suffix}"
    lab.names.remove(name)
    lab.names.add(name, A="45.29.0.1" if suffix == "any.example" else "45.29.0.2", AAAA="2a0e:14::1" if suffix == "any.example" else "2a0e:14::2")
    return lab.web1.resolve(name, RECORD[family])[0]


def denied(lab, family):
    """An address that no name stands for; with virtual addresses one of the pool."""
    lab.names.counter += 1
    if getattr(lab, "form", "routed") == "virtual":
        return f"10.201.1.{255 - lab.names.counter % 60}" if family == "ipv4" else f"fdc9:1:0:0:ffff::{lab.names.counter:x}"
    return f"45.31.{lab.names.counter >> 8}.{lab.names.counter & 255}" if family == "ipv4" else f"2a0e:1c::{lab.names.counter:x}"


def send(lab, *packets, app=None, interface="web0", device="eth0", **options):
    """From an app, or another host's `device`, to the gateway's interface."""
    send_frames(app or lab.web1, device, lab.gw.mac(interface), packets, **options)


def honest(lab, app):
    """A flow that is allowed, from the question to the answer."""
    name = "honest.https.example"
    lab.names.remove(name)
    lab.names.add(name, A="45.29.0.3")
    assert app.hello(app.resolve(name)[0])


@contextlib.contextmanager
def nothing_passes(lab):
    """Whatever is sent inside the block comes out nowhere when it has MARK in it; a flow of another network, and new ones beside it, are not hurt."""
    name, address = lab.names.new("build.example")
    assert lab.build1.resolve(name)
    with Sniffer(lab.inet, "up0", frames=True) as uplink, Sniffer(lab.build1, "eth0", frames=True) as other, lab.build1.connect(address, 443) as flow:
        flow.settimeout(patience(5))
        yield
        honest(lab, lab.web1)  # whatever came before it has been judged by then
        assert uplink.carrying(MARK) == []
        assert other.carrying(MARK) == []
        assert talk(flow, "still") == "still"
    assert lab.gateway.healthy()


class Tally:
    """How many packets of web have been refused since, by lines and by counters."""

    def __init__(self, lab):
        self.lab = lab
        lab.gateway.log.settle(0.2)
        lab.gateway.log.mark()
        self.before = lab.counters()

    def lines(self):
        """Lines about single flows."""
        return [line for line in self.lab.gateway.log.lines(event="denied", network="web") if "what" not in line and "qname" not in line]

    def counted(self, *names):
        now = self.lab.counters()
        return sum(now[name] - self.before[name] for name in names or COUNTED)

    def total(self):
        return sum(int(line["count"]) for line in self.lines()) + self.counted()

    def expect(self, sent):
        """So many, and not one more."""
        wait_until(lambda: self.total() >= sent, f"{self.total()} of {sent} packets were told: {self.lines()}")
        self.lab.gateway.log.settle(0.2)
        assert self.total() == sent, f"{self.counted()} counted, and {self.lines()}"
