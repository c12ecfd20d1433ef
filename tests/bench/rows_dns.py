# SPDX-License-Identifier: MIT
"""Rows about names: questions per second, CPU time, added latency, and whether what was answered can be reached."""

import time

from benchlab import FORWARDER_CPU, GREETING, UPSTREAM, UPSTREAM_SHORT, cpu_seconds
from contenders import GATEWAY, WITH_SETS, Missing, hand, running
from figures import Row

OUTSTANDING, SOCKETS = 100, 4
CACHED_NAMES = 1000
PEERS_COLD = ("smartdns", "dnsmasq", "unbound", "dnsdist")
STALE_NAMES = 30
STALE_SECONDS = 2  # life of an element of the peers' sets, which stands in for any end of it
SHORT_LIVES = f"min_ttl = 1s\ngrace = {STALE_SECONDS - 1}s\n"


def each(row, options, contenders, measure):
    """Rounds, in each of them all contenders one after the other; a peer that is not there is said once."""
    for number in range(options.rounds):
        for who in contenders:
            try:
                measure(who, number)
            except Missing as missing:
                if str(missing) not in row.notes:
                    row.notes.append(str(missing))
        options.say(f"  {row.key}: round {number + 1} of {options.rounds}")


def label(who):
    """How a table calls a forwarder."""
    return who if who in ("sluice", "no forwarder") else f"{who}, {'with' if who in WITH_SETS else 'no'} set"


def cpu_per_question(pid, before, said):
    return (cpu_seconds(pid) - before) * 1e6 / max(said["good"] + said["bad"], 1)


def count_losses(losses, who, said):
    total = losses.setdefault(label(who), [0, 0, 0])
    for index, key in enumerate(("good", "bad", "lost")):
        total[index] += said[key]


def tell_losses(row, losses):
    for who, (good, bad, lost) in losses.items():
        row.fact(f"{who}: answers, wrong ones, lost ones", f"{good:,}, {bad}, {lost}")


def cold(lab, options):
    """Unique names, 100 outstanding."""
    row = Row("cold", "Cold unique names, 100 outstanding",
              "Each question is for a name that was not asked before, 100 at a time; the forwarder has CPU 1, client and upstream have "
              "CPU 0. Sluice, smartdns and dnsmasq put the address into a "
              "set of the kernel's before they answer. Sluice has policy, validation, journal and log on; peers' caches are off where "
              "that is faster.")
    row.base = label("smartdns")
    row.measure("qps", "answers/s", "")
    row.measure("cpu", "CPU per question", "us", "less")
    row.measure("p99", "p99", "us", "less")
    losses = {}

    def measure(who, number):
        with running(lab, who) as pid:
            before = cpu_seconds(pid)
            said = lab.load("dnsload", "-o", OUTSTANDING, "-k", SOCKETS, "-t", options.seconds, GATEWAY)
            row.add(label(who), qps=said["qps"], cpu=cpu_per_question(pid, before, said), p99=said["p99_us"])
            count_losses(losses, who, said)
            if who == "sluice" and number == 0:
                row.fact("sluice, first round: right answers, addresses then in the kernel's set, SERVFAIL",
                         f"{said['good']:,}, {lab.leased():,}, {lab.metric('sluice_dns_failed_total'):.0f}")

    lab.place(0)
    each(row, options, ("sluice", *PEERS_COLD), measure)
    tell_losses(row, losses)
    return row


def cached(lab, options):
    """1000 names again and again, 100 outstanding."""
    row = Row("cached", "Cached names, 100 outstanding",
              f"{CACHED_NAMES} names again and again, all of them answered once before. On each hit Sluice judges the answer anew, and the lease lasts as "
              "after a new answer. Peers do not touch their sets on a hit. Pinned as above.")
    row.base = label("smartdns")
    row.measure("qps", "answers/s", "")
    row.measure("cpu", "CPU per question", "us", "less")
    row.measure("p99", "p99", "us", "less")
    losses = {}

    def measure(who, _):
        with running(lab, who, cache=True) as pid:
            lab.load("dnsload", "-o", 20, "-m", CACHED_NAMES, "-q", 2 * CACHED_NAMES, GATEWAY)
            before = cpu_seconds(pid)
            said = lab.load("dnsload", "-o", OUTSTANDING, "-k", SOCKETS, "-m", CACHED_NAMES, "-t", options.seconds, GATEWAY)
            row.add(label(who), qps=said["qps"], cpu=cpu_per_question(pid, before, said), p99=said["p99_us"])
            count_losses(losses, who, said)

    lab.place(0)
    each(row, options, ("sluice", *PEERS_COLD), measure)
    tell_losses(row, losses)
    return row


def latency(lab, options):
    """Unique names, one at a time, everything on one CPU."""
    row = Row("latency", "Added latency, cold, 1 outstanding",
              "Unique names, one after the other; client, forwarder and upstream on one CPU, since waking another one costs more than "
              "all of them. Added: over the same question to the upstream itself, "
              "through the same namespaces, in the same round.")
    row.base = label("smartdns")
    row.measure("p50", "p50", "us", "less")
    row.measure("added", "added to p50", "us", "less")
    row.measure("p99", "p99", "us", "less")

    def measure(who, _):
        with running(lab, "routing" if who == "no forwarder" else who):
            server = UPSTREAM if who == "no forwarder" else GATEWAY
            said = lab.load("dnsload", "-t", options.seconds, server, cpu=FORWARDER_CPU)
            row.add(label(who), p50=said["p50_us"], p99=said["p99_us"])
            if who != "no forwarder":
                row.add(label(who), added=said["p50_us"] - row.get("no forwarder", "p50")[-1])

    lab.place(FORWARDER_CPU)
    each(row, options, ("no forwarder", "sluice", *PEERS_COLD), measure)
    return row


def first(lab, options):
    """Resolve, and connect at once."""
    row = Row("first", "First connection after an answer",
              "A new name is asked for, and its address is connected to as soon as the answer is there: half of the names with "
              "everything on one CPU, half with client and forwarder on different ones. "
              "What is refused, or has no answer within 0.9 s, has failed.")
    row.measure("tried", "connections", "")
    row.measure("failed", "failed", "", "less")
    row.measure("p50", "question and connection, one CPU, p50", "us", "less")
    counts = {"sluice": options.firsts, "smartdns": options.firsts // 25, "dnsmasq": options.firsts // 25}
    for who, count in counts.items():
        try:
            with running(lab, who):
                lab.place(FORWARDER_CPU)
                together = lab.load("firstflow", GATEWAY, GREETING, 0, count // 2, cpu=FORWARDER_CPU)
                lab.place(0)
                apart = lab.load("firstflow", GATEWAY, GREETING, 1000000, count - count // 2)
            failed = sum(said[key] for said in (together, apart) for key in ("refused", "timeout", "unanswered"))
            row.add(label(who), tried=count, failed=failed, p50=together["p50_us"])
        except Missing as missing:
            row.notes.append(str(missing))
    return row


def stale(lab, options):
    """Connections to addresses from earlier answers."""
    row = Row("stale", "Connection from a stale cache",
              f"kept: the app uses an address that it was answered {2 * STALE_SECONDS} s before with a TTL of 1 s, without asking again."
              " Asked again: the answer, with a TTL of 60 s, comes from the forwarder's cache, but "
              f"the address was put into the set more than {STALE_SECONDS} s before. Elements of the peers' sets live for "
              f"{STALE_SECONDS} s, which stands in for any time out; peers that never remove an address never close it. "
              "Sluice is measured with its defaults, and with leases that end as early as the peers' elements.")
    row.measure("tried", "connections", "")
    row.measure("kept", "address kept: failed", "", "less")
    row.measure("again", "asked again: failed", "", "less")
    closing = {"rules": hand(timeout=f"{STALE_SECONDS}s")}
    cases = {"sluice": ("sluice", {}), "sluice, leases of 2 s": ("sluice", {"keys": SHORT_LIVES}), "smartdns, with set": ("smartdns", closing),
             "dnsmasq, with set": ("dnsmasq", closing)}
    lab.place(0)
    for title, (who, how) in cases.items():
        try:
            for key, upstream, asked, what in (("kept", UPSTREAM_SHORT, "unasked", "address kept"), ("again", UPSTREAM, "asked", "asked again")):
                failed = after_the_end(lab, who, upstream, asked, how)
                row.add(title, **{key: sum(failed.values())})
                row.values[title]["tried"] = [2 * STALE_NAMES]
                if sum(failed.values()):
                    row.fact(f"{title}, {what}", ", ".join(f"{count} {kind}" for kind, count in failed.items() if count))
        except Missing as missing:
            row.notes.append(str(missing))
        options.say(f"  stale: {title}")
    return row


def after_the_end(lab, who, upstream, asked, how):
    """Return: how many of STALE_NAMES connections failed, by how."""
    with running(lab, who, cache=True, upstream=upstream, **how):
        lab.load("firstflow", GATEWAY, GREETING, 0, STALE_NAMES)
        time.sleep(2 * STALE_SECONDS)
        said = lab.load("firstflow", GATEWAY, GREETING, 0, STALE_NAMES, asked)
    return {key: said[key] for key in ("refused", "timeout", "unanswered")}


ROWS = {"cold": cold, "cached": cached, "latency": latency, "first": first, "stale": stale}
