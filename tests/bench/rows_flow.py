# SPDX-License-Identifier: MIT
"""Rows about packets: forwarding, allowed flows under a flood of denied ones, and flows whose name is verified."""

import os
import time

from benchlab import DENIED_ADDRESS, DENIED_COUNT, FIRST_ADDRESS, FORWARDER_CPU, GREETING, REQUEST, SINK, pin
from contenders import DROP, GATEWAY, PROXIES, REJECT, add_addresses, hand, running
from figures import Row
from hellos import client_hello
from quic_packets import hello as quic_hello
from rows_dns import each

FEW, MANY = 10, 100000
TARGETS = 10              # addresses that connections go to in turn
FLOOD_RATE = 300000       # packets per second
FLOOD_LEAD = 0.3          # seconds that the flood is there before and after what is measured
SETTLE = 13               # seconds at most until the gateway has told all denials: sums are made every 10
NAME = "n0000001.bench.example"


def measure_forwarding(lab, options, udp=True, target=FIRST_ADDRESS, targets=TARGETS):
    """Packets per second, Gbit/s, connections per second through whatever stands in the gateway's place."""
    found = {}
    lab.place(FORWARDER_CPU)
    if udp:
        before = lab.arrived()
        said = lab.load("udpflood", "-t", options.seconds, target, SINK)
        found["udp"] = (lab.arrived() - before) / said["seconds"]
    found["tcp"] = lab.load("flowload", "-b", "-i", options.hello, "-t", options.seconds, target, REQUEST)["gbit_per_second"]
    said = lab.load("flowload", "-t", options.seconds, "-a", targets, target, GREETING, cpu=FORWARDER_CPU)
    found["cps"] = said["per_second"]
    return found, said["bad"]


def forward(lab, options):
    """Ratios to plain masquerading."""
    row = Row("forward", "Forwarding",
              "UDP: datagrams of 64 octets, counted where they arrive; CPU 0 does the whole path. TCP: one stream, offload on, client "
              "on CPU 0, server on CPU 1. Connections: connect, one octet, reset, one after the other; "
              "client, server and the program on one CPU. The ratio is to a namespace that masquerades and does nothing else. hand-"
              "written: established flows first, one set of addresses, reject. Proxies were "
              "measured with the app connecting to them.")
    row.base = "masquerade"
    row.measure("udp", "UDP 64 B", "packets/s")
    row.measure("tcp", "TCP", "Gbit/s")
    row.measure("cps", "connections", "/s")
    bad = {}
    sizes = [f"{who}, {count} {what}" for count in (FEW, MANY) for who, what in (("sluice", "leases"), ("hand-written", "addresses"))]
    contenders = ["masquerade", *sizes, *PROXIES]

    def measure(who, _):
        kind = who.split(",")[0]
        count = FEW if f" {FEW} " in who else MANY
        with running(lab, kind) as pid:
            if kind == "hand-written":
                add_addresses(lab, count)
            elif kind == "sluice":
                lab.fill(count)
            if pid:
                pin(pid, FORWARDER_CPU)
            proxy = kind in PROXIES
            how = {"udp": False, "target": GATEWAY, "targets": 1} if proxy else {}
            found, failures = measure_forwarding(lab, options, **how)
            row.add(who, **found)
            bad[who] = bad.get(who, 0) + failures
        lab.drain()

    each(row, options, contenders, measure)
    row.fact("connections that failed", ", ".join(f"{who}: {number}" for who, number in bad.items()))
    return row


class Flood:
    """Denied datagrams to ever-new destinations, from CPU 0, while the block lasts at most `seconds`."""

    def __init__(self, lab, seconds):
        self.lab, self.seconds = lab, seconds
        self.said = None

    def __enter__(self):
        self.process = self.lab.start_load("udpflood", "-t", self.seconds, "-r", FLOOD_RATE, "-a", DENIED_COUNT, DENIED_ADDRESS, SINK)
        time.sleep(FLOOD_LEAD)
        return self

    def __exit__(self, *_):
        self.said = self.lab.load_result(self.process)


def flood(lab, options):
    """An allowed flow while another one is denied."""
    row = Row("flood", f"Allowed flow under a denied flood of {FLOOD_RATE // 1000}k packets/s",
              "Datagrams that no rule allows, each to another destination than the one before, come from CPU 0; the allowed flow and "
              "the program have CPU 1. The ratio is to a hand-written ruleset that drops the same flood and says nothing. "
              "Sluice answers it, counts each packet of it and logs within bounds.")
    row.base = "drop"
    row.measure("tcp", "TCP", "Gbit/s")
    row.measure("cps", "connections", "/s")
    row.measure("rate", "flood", "packets/s")
    totals = {"sent": 0, "denied": 0, "lines": 0, "octets": 0, "runs": 0}

    def allowed(who, rate):
        lasts = options.seconds + 2 * FLOOD_LEAD
        run = {"tcp": ("-b", "-i", options.hello, "-t", options.seconds, FIRST_ADDRESS, REQUEST),
               "cps": ("-t", options.seconds, "-a", TARGETS, FIRST_ADDRESS, GREETING)}
        sent = 0
        for key, arguments in run.items():
            value = {"tcp": "gbit_per_second", "cps": "per_second"}[key]
            if not rate:
                row.add(who, **{key: lab.load("flowload", *arguments, cpu=FORWARDER_CPU)[value]})
                continue
            with Flood(lab, lasts) as denied:
                row.add(who, **{key: lab.load("flowload", *arguments, cpu=FORWARDER_CPU)[value]})
            sent += denied.said["sent"]
            if key == "cps":
                row.add(who, rate=denied.said["per_second"])
        return sent

    def measure(who, _):
        lab.place(FORWARDER_CPU)
        kind = who.split(",")[0]
        with running(lab, kind, rules={"drop": hand(DROP), "reject": hand(REJECT)}.get(kind)):
            if kind == "sluice":
                lab.fill(FEW)
            else:
                add_addresses(lab, FEW)
            before = lab.denied() if kind == "sluice" else 0
            sent = allowed(who, "no flood" not in who)
            if kind == "sluice" and sent:
                end = time.monotonic() + SETTLE
                while lab.denied() - before < sent and time.monotonic() < end:
                    time.sleep(0.2)
                text = lab.gateway.log.text()
                found = {"sent": sent, "denied": lab.denied() - before, "lines": text.count("event=denied"), "octets": len(text), "runs": 1}
                for key, value in found.items():
                    totals[key] += value
        lab.drain()

    each(row, options, ("drop", "reject", "sluice", "drop, no flood", "sluice, no flood"), measure)
    row.fact("sluice: packets of the flood that were sent, denials counted", f"{totals['sent']:,}, {totals['denied']:,}")
    row.fact("sluice: lines and octets of log for these",
             f"{totals['lines']:,}, {totals['octets']:,} in {totals['runs']} runs of two floods of {options.seconds + 2 * FLOOD_LEAD:g} s")
    return row


def verify(lab, options):
    """First request and throughput with and without name verification, side by side."""
    row = Row("verify", "Name verification (`verify`)",
              "Two networks behind one gateway, one with `verify = off`, one with `verify = enforce`, asked in turn. First request: TCP"
              " connection, a ClientHello, the first octet of the answer; QUIC: an Initial packet from a new port and the "
              "first reply. TCP: one stream after its ClientHello was read. First requests on one CPU, TCP with client and server on two.")
    row.base = "verify = off"
    row.measure("tls", "TLS, first request p50", "us", "less")
    row.measure("tls99", "p99", "us", "less")
    row.measure("quic", "QUIC, first reply p50", "us", "less")
    row.measure("quic99", "p99", "us", "less")
    row.measure("tcp", "TCP", "Gbit/s")
    initial = os.path.join(lab.directory, "initial")
    with open(initial, "wb") as file:
        file.write(quic_hello(NAME))
    bad = {"verify = off": 0, "verify = enforce": 0}
    sides = {"verify = off": (lab.app, "web"), "verify = enforce": (lab.app2, "checked")}
    with running(lab, "sluice", sections={"checked": "verify = enforce\n"}):
        lab.place(FORWARDER_CPU)
        for network in ("web", "checked"):
            lab.fill(TARGETS, network)

        def measure(who, _):
            host, _network = sides[who]
            flows = ("-n", options.requests, "-a", TARGETS)
            tls = lab.load("flowload", "-i", options.hello, *flows, FIRST_ADDRESS, REQUEST, host=host, cpu=FORWARDER_CPU)
            quic = lab.load("flowload", "-u", "-i", initial, *flows, FIRST_ADDRESS, REQUEST, host=host, cpu=FORWARDER_CPU)
            bulk = lab.load("flowload", "-b", "-i", options.hello, "-t", options.seconds, FIRST_ADDRESS, REQUEST, host=host)
            row.add(who, tls=tls["p50_us"], tls99=tls["p99_us"], quic=quic["p50_us"], quic99=quic["p99_us"], tcp=bulk["gbit_per_second"])
            bad[who] += tls["bad"] + quic["bad"]
            lab.drain()

        each(row, options, list(sides), measure)
    for who, number in bad.items():
        row.fact(f"{who}: first requests that failed, of {2 * options.requests * options.rounds}", number)
    return row


def write_hello(lab):
    path = os.path.join(lab.directory, "client-hello")
    with open(path, "wb") as file:
        file.write(client_hello(NAME))
    return path


ROWS = {"forward": forward, "flood": flood, "verify": verify}
