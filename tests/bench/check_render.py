# SPDX-License-Identifier: MIT
"""Tables, verdicts and chart of the benchmark, from figures that are known (fixture.json)."""

import os
import tempfile
import xml.etree.ElementTree as ElementTree

import figures
import goals
import render

FIXTURE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixture.json")


def check(what, found, expected):
    if found != expected:
        raise SystemExit(f"{what}: {found!r}, not {expected!r}")


def check_contains(what, text, *parts):
    for part in parts:
        if part not in text:
            raise SystemExit(f"{what}: there is no {part!r} in\n{text}")


about, rows = figures.load(FIXTURE)

# Ratios are made round by round: 2, 3 and 2, although the medians are 120 and 50.
check("ratio", rows["cold"].ratio("sluice", "smartdns, with set", "qps"), 2)
check("difference", rows["cold"].difference("sluice", "smartdns, with set", "cpu"), -14)
check("what was not measured", rows["forward"].ratio("haproxy", "masquerade", "udp"), None)
check("numbers", [goals.number(value) for value in (0, 0.123, 12.34, 123.4, 9999, 12345, 1234567)],
      ["0", "0.12", "12.3", "123", "9,999", "12k", "1.23M"])
check("spread", [render.spread(values) for values in ([], [5], [3, 1, 2], [1, 2])], ["-", "5", "2 (1..3)", "1.50 (1..2)"])

# cold: both are reached. first: not a hundred thousand, and none failed. forward: connections 0.96. flood: one denial is missing.
check("verdicts", [(goal.row, goal.reached) for goal in goals.judge(rows)],
      [("cold", True), ("first", None), ("forward", False), ("forward", None), ("flood", False)])
rows["forward"].values["sluice, 10 leases"]["cps"] = [990, 980, 950]
rows["flood"].facts[0][1] = "12,345, 12,345"
rows["first"].values["sluice"]["failed"] = [1]
rows["cold"].values["sluice"]["cpu"] = [8.1, 8.1, 8.1]
check("verdicts", [goal.reached for goal in goals.judge(rows)], [False, False, True, None, True])

# A slower machine: the number is missed. Twice as fast as the peer is not enough, three times is.
rows["cold"].values["dnsmasq, with set"] = {"qps": [10, 10, 10]}
check("verdict", goals.verdict(goals.judge(rows)[0]), "**no**")
peer, rows["cold"].values["smartdns, with set"]["qps"] = rows["cold"].values["smartdns, with set"]["qps"], [10, 10, 10]
check("verdict as a ratio", goals.verdict(goals.judge(rows)[0]), "as a ratio")
rows["cold"].values["smartdns, with set"]["qps"] = peer
del rows["cold"].values["dnsmasq, with set"]

text = render.page(about, rows)
check_contains("page", text, "| sluice | 2.00 | 120k (100k..130k) | 0.37 |", "2.00x smartdns", "- Not measured: dnsdist is not installed.",
               "| haproxy | - | - | 0.60 |", "| smartdns | not installed |", "cold first forward flood", "median of 3 rounds", "12,345 of 12,345 denials counted")
check_contains("page of a busy machine", render.page({**about, "load": 3.2}, rows), "**The machine was not quiet** (load average 3.2")
check("placeholders that are left", [part for part in ("{date}", "{rows}", "{versions}", "None") if part in text], [])

drawing = ElementTree.fromstring(render.chart(rows))
names = [element.text for element in drawing.iter() if element.get("text-anchor") == "end"]
check_contains("chart", names, "sluice", "smartdns, with set", "masquerade", "haproxy", "goal: 110k")
bars = [float(element.get("width")) for element in drawing.iter("{http://www.w3.org/2000/svg}rect") if element.get("x")]
check("longest bar", max(bars), float(render.BARS))
check("shortest bar is there", min(bars) >= 1, True)

with tempfile.TemporaryDirectory() as directory:
    path = os.path.join(directory, "figures.json")
    figures.save(path, about, list(rows.values()))
    again = figures.load(path)
check("saved and loaded", [again[0], [row.as_dict() for row in again[1].values()]], [about, [row.as_dict() for row in rows.values()]])
