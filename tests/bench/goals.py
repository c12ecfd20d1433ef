# SPDX-License-Identifier: MIT
"""What we aim at, and what of it was reached: pure, from figures."""

import collections
import re

OFF, ENFORCE = "verify = off", "verify = enforce"
SMARTDNS, DNSMASQ = "smartdns, with set", "dnsmasq, with set"
LARGE_RULES = "10,000 rules"

# what: of the row. value, ratio: texts. reached: None when it was not measured. as_ratio: where the goal is a number of the machine on which
# it was set, and a peer was measured there with it: is the same ratio to that peer reached here?
Goal = collections.namedtuple("Goal", "row what ratio value goal reached as_ratio", defaults=[None])


def number(value):
    """A number for people: three digits that count."""
    if value is None:
        return "-"
    if abs(value) >= 10000:
        return f"{value / 1000:,.0f}k" if abs(value) < 1e6 else f"{value / 1e6:,.2f}M"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def at_least(value, limit):
    return None if value is None else value >= limit


def at_most(value, limit):
    return None if value is None else value <= limit


def both(*conditions):
    return None if None in conditions else all(conditions)


def times(value, other):
    return f"{value:.2f}x {other}" if value is not None else "-"


def cold(row):
    qps, cpu = row.median("sluice", "qps"), row.median("sluice", "cpu")
    return [Goal(row.key, "cold unique names, 100 outstanding", times(row.ratio("sluice", SMARTDNS, "qps"), "smartdns"),
                 f"{number(qps)} answers/s, {number(cpu)} us CPU",
                 ">= 110k answers/s (2.4x smartdns, 9x dnsmasq), <= 8 us CPU", both(at_least(qps, 110000), at_most(cpu, 8)),
                 both(at_least(row.ratio("sluice", SMARTDNS, "qps"), 2.4), at_least(row.ratio("sluice", DNSMASQ, "qps"), 9)))]


def cached(row):
    qps = row.median("sluice", "qps")
    return [Goal(row.key, "cached names, leases kept", times(row.ratio("sluice", SMARTDNS, "qps"), "smartdns, which keeps none"),
                 f"{number(qps)} answers/s", ">= 250k answers/s (1.28x smartdns)", at_least(qps, 250000),
                 at_least(row.ratio("sluice", SMARTDNS, "qps"), 1.28))]


def latency(row):
    added = row.median("sluice", "added")
    return [Goal(row.key, "added latency, cold, 1 outstanding", times(row.ratio("sluice", SMARTDNS, "added"), "smartdns"),
                 f"{number(added)} us", "<= 14 us (0.7x smartdns)", at_most(added, 14),
                 at_most(row.ratio("sluice", SMARTDNS, "added"), 0.7))]


def first(row):
    tried, failed = row.median("sluice", "tried"), row.median("sluice", "failed")
    if tried is None:
        return []
    reached = None if not failed and tried < 100000 else not failed
    return [Goal(row.key, "first connection after an answer", "-", f"{failed:,.0f} of {tried:,.0f} failed", "0 of 100,000", reached)]


def stale(row):
    failed = [row.median(who, key) for who in ("sluice", "sluice, leases of 2 s") for key in ("kept", "again")]
    peers = [row.median(who, key) for who in (SMARTDNS, DNSMASQ) for key in ("kept", "again")]
    if None in failed:
        return []
    total = sum(failed)
    return [Goal(row.key, "connection from a stale cache", f"peers: {sum(value or 0 for value in peers):.0f} failed",
                 f"{total:.0f} failed", "0 failed", at_most(total, 0))]


def forward(row):
    goals = []
    for count in ("10", "100000"):
        who = f"sluice, {count} leases"
        ratios = {key: row.ratio(who, row.base, key) for key in ("udp", "tcp", "cps")}
        if None in ratios.values():
            continue
        text = " / ".join(f"{value:.2f}" for value in ratios.values())
        goals.append(Goal(row.key, f"forwarding UDP 64 B / TCP / connections, {int(count):,} leases", f"{text} of masquerading",
                          " / ".join(number(row.median(who, key)) for key in ratios), ">= 0.97 each",
                          both(*(at_least(value, 0.97) for value in ratios.values()))))
    goals.append(Goal(row.key, "the same with a flowtable", "-", "unverified: the kernel here has none", "> 1.2", None))
    return goals


def flood(row):
    tcp, cps = row.ratio("sluice", row.base, "tcp"), row.ratio("sluice", row.base, "cps")
    if tcp is None or cps is None:
        return []
    counted = next((value for what, value in row.facts if "denials counted" in what), "0, 1")
    sent, denied = (int(re.sub(r"\D", "", part)) for part in counted.split(", "))
    return [Goal(row.key, "allowed flow under a denied flood, TCP / connections", f"{tcp:.2f} / {cps:.2f} of dropping",
                 f"{denied:,} of {sent:,} denials counted", ">= 0.95 / 0.95, each denial counted",
                 both(at_least(tcp, 0.95), at_least(cps, 0.95), sent == denied))]


def memory(row):
    none, many = row.median("sluice", "leases0"), row.median("sluice", "leases100000")
    return [Goal(row.key, "resident memory, 0 / 100,000 leases", times(row.ratio("sluice", SMARTDNS, "leases0"), "smartdns"),
                 f"{number(none)} / {number(many)} MB", "<= 8 / <= 40 MB", both(at_most(none, 8), at_most(many, 40)))]


def start(row):
    took = row.median(LARGE_RULES, "start")
    return [Goal(row.key, "start to healthy, 10,000 rules", "-", f"{number(took)} ms", "<= 150 ms", at_most(took, 150))]


def reload(row):
    took, p99 = row.median(LARGE_RULES, "reload"), row.median(LARGE_RULES, "p99")
    return [Goal(row.key, "reload of 10,000 rules, one changed", "-", f"{number(took)} ms, questions p99 {number(p99)} ms",
                 "<= 50 ms, p99 < 5 ms", both(at_most(took, 50), at_most(p99, 5)))]


def verify(row):
    tls, quic, tcp = row.difference(ENFORCE, OFF, "tls"), row.difference(ENFORCE, OFF, "quic"), row.ratio(ENFORCE, OFF, "tcp")
    if None in (tls, quic, tcp):
        return []
    return [Goal(row.key, "name verification: first request TLS / QUIC; TCP after it", f"TCP {tcp:.2f} of off",
                 f"{tls:+.0f} / {quic:+.0f} us", "none set", None)]


def scale(row):
    titles = {"qps": "cold answers/s", "udp": "UDP", "tcp": "TCP", "cps": "connections"}
    ratios = {title: row.ratio("large", "small", key) for key, title in titles.items()}
    if None in ratios.values():
        return []
    began, reloaded, resident = (number(row.median("large", key)) for key in ("start", "reload", "memory"))
    return [Goal(row.key, "250 networks, 10,000 rules, 100,000 leases, 50,000 flows",
                 ", ".join(f"{title} {value:.2f}" for title, value in ratios.items()) + " of small",
                 f"start {began} ms, reload {reloaded} ms, {resident} MB", "none set", None)]


JUDGES = {"cold": cold, "cached": cached, "latency": latency, "first": first, "stale": stale, "forward": forward, "flood": flood,
          "memory": memory, "start": start, "reload": reload, "verify": verify, "scale": scale}


def judge(rows):
    """All goals of the rows that were measured, in their order."""
    return [goal for key, judge_row in JUDGES.items() if key in rows for goal in judge_row(rows[key])]


def verdict(goal):
    if goal.reached is False and goal.as_ratio:
        return "as a ratio"
    return {True: "yes", False: "**no**", None: "-"}[goal.reached]
