#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""No false drops, no wrong passes: many apps use a gateway to which everything happens that can happen.

    soak.py [SECONDS] [--form routed|virtual|mixed] [--seed NUMBER] [--apps PER_NETWORK] [--speed FACTOR]

Prints one summary; exit status 1 when a flow was dropped that should have passed, or passed that should not have. README.md says what is
compared with what.
"""

import argparse
import asyncio
import calendar
import collections
import os
import random
import re
import resource
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "netns"))

# pylint: disable=wrong-import-position
from chaos import Chaos
from clients import UDP_TIMEOUT, Clients
from gateway import NotHealthy
from lab import Lab, ended_by_signals
from model import Model
from policies import NETWORKS, ZONES, first_policy, pool, virtual_networks
from namespaces import SLOW, Failed

APPS, SPEED = (1, 0.3) if SLOW else (4, 1.0)  # apps per network; 2: clients do twice as much
# A host has one neighbour table for all its namespaces, of 1024 entries, and an app has an entry there for every virtual address that it uses.
APPS_VIRTUAL = 2
NEIGHBOURS = "/proc/net/stat/arp_cache"
FORMS = ("routed", "virtual", "mixed")
FAULTS_SHOWN = 20
AROUND = 2.5         # seconds of events and log lines shown around a fault
LOG_LINES_SHOWN = 30
# conntrack's, of flows that have ended: they keep leases, too.
TIMEOUTS = ("udp_timeout", "udp_timeout_stream", *(f"tcp_timeout_{state}" for state in ("fin_wait", "close_wait", "last_ack", "time_wait", "close")))
CALM = 60            # seconds at most without a kill, now and then, with virtual addresses
QUIET = 4            # seconds without chaos at the start
ORDINARY_DEATH = 9


class Soak:
    """One run."""

    def __init__(self, seconds, seed=None, apps_per_network=APPS, speed=SPEED, say=print, until=None, form="routed"):
        """`until`: a kind of fault; the run ends with the first one. `form`: of addresses; `mixed`: some networks have virtual ones."""
        seed = random.SystemRandom().randrange(1 << 31) if seed is None else seed
        self.seconds, self.seed, self.speed, self.say, self.until = seconds, seed, speed, say, until
        self.random = random.Random(seed)
        self.virtual = sorted(virtual_networks(self.random, form))
        self.model = Model(first_policy(self.random, self.virtual))
        self.apps = {f"{network}{i}": (network, 10 + i) for network in NETWORKS
                     for i in range(min(apps_per_network, APPS_VIRTUAL) if network in self.virtual else apps_per_network)}
        self.problems = []     # other than flows: the gateway did not come back, a worker crashed
        self.log_at_fault = {}  # fault -> gateway log around it
        self.elements = {}     # suspect -> lines of the gateway's table
        self.lab = None

    # --- the world ---

    def run(self):
        """Return: True when all went well."""
        self.say(f"soak: {self.seconds:g} s, seed {self.seed}, {len(self.apps)} apps in {len(NETWORKS)} networks; "
                 f"virtual addresses: {', '.join(self.virtual) or 'none'}")
        raise_file_limit()
        with Lab(policy=self.model.policies[0][2].text(), gateway=False, apps=self.apps, networks=NETWORKS, internal=self.virtual) as self.lab:
            self.prepare()
            neighbours_lost = full_tables()
            try:
                asyncio.run(self.soak())
            except (AssertionError, NotHealthy, Failed) as error:
                self.problems.append(str(error))
            self.look_for_crashes()
            if full_tables() > neighbours_lost:
                self.problems.append("the host's neighbour table was full (net.ipv4.neigh.default.gc_thresh3): packets were lost before they came to the gateway")
            self.say(self.summary())
            self.say(self.faults())
        return self.went_well()

    def prepare(self):
        lab = self.lab
        for zone in ZONES:
            for host in zone.hosts():
                if zone.alias:
                    lab.names.add(host, 2, CNAME=f"{host.split('.')[0]}.{zone.alias}.")
                    continue
                for kind, family in (("A", 4), ("AAAA", 6)):
                    lab.names.rotate(host, kind, first=str(pool(zone.pool, family)), count=zone.count, show=zone.show, ttls=zone.ttls,
                                     period=zone.period)
        lab.gw.sysctl(**{f"net__netfilter__nf_conntrack_{key}": UDP_TIMEOUT for key in TIMEOUTS})
        lab.gateway.start(lab.policy)

    async def soak(self):
        self.model.on_suspect = self.look_at_table
        self.clients = Clients(self.model, list(self.lab.apps.values()), random.Random(self.seed + 1), self.speed)
        chaos = Chaos(self.lab, self.model, self.clients, random.Random(self.seed + 2),
                      min(CALM, self.seconds / 3) if self.virtual else 0)
        end = time.monotonic() + self.seconds
        self.clients.start()
        watcher = asyncio.create_task(self.watch())
        await asyncio.sleep(QUIET)
        work = asyncio.create_task(chaos.run(end))
        # An exception in any client is an error of the soak's own, and ends it.
        while not work.done() and not self.model.counts[self.until]:
            done = [task for task in self.clients.tasks if task.done()]
            self.clients.tasks.difference_update(done)
            for task in done:
                task.result()
            await asyncio.wait([work], timeout=0.5)
        if work.done():
            work.result()
        await self.end_all({work, watcher, *self.clients.tasks})
        self.settle(everything=True)

    @staticmethod
    async def end_all(tasks):
        """Asked once is not enough: wait_for() can lose a cancellation when what it waits for comes in the same moment."""
        while tasks:
            for task in tasks:
                task.cancel()
            _, tasks = await asyncio.wait(tasks, timeout=0.2)

    async def watch(self):
        """Decide about flows that look wrong, while the log lines about them are at hand."""
        while True:
            await asyncio.sleep(2)
            self.settle()

    def settle(self, everything=False):
        self.model.handed_out(self.lab.names.handouts(self.model.counts["handouts"]))
        self.model.settle(everything)
        for fault in self.model.faults[:FAULTS_SHOWN]:
            if id(fault) not in self.log_at_fault:
                self.say(f"{fault.kind}: {fault.why}: {fault.flow.text()}")
                self.log_at_fault[id(fault)] = self.log_around(fault)

    def look_at_table(self, flow):
        late = time.monotonic() - flow.end
        listed = self.lab.gw.run(["nft", "list", "table", "inet", "sluice"]).stdout
        table_set, lines = "", [f"{late:.3f} s after the flow"]
        for line in listed.splitlines():
            table_set = line.strip() if line.startswith(("\tset ", "\tmap ")) else table_set
            lines += [f"{table_set} {one}" for one in re.findall(re.escape(flow.address) + r" [^,}]*", line)]
        if self.model.is_virtual(flow.network):
            lines += self.lab.gateway.sluice("explain", "-c", self.lab.gateway.policy_directory, flow.network, flow.address).stdout.splitlines()[:1]
        self.elements[id(flow)] = lines

    # --- what came out ---

    def log_around(self, fault):
        """Lines of the gateway's log about the address, and what it said of itself."""
        wall = time.time() - time.monotonic()
        lines = []
        for line in self.lab.gateway.log.text().splitlines()[-20000:]:
            at = re.match(r"ts=(\S+?)Z ", line)
            if not at:
                lines.append(line)  # a crash
                continue
            moment = seconds_of(at.group(1)) - wall
            if abs(moment - fault.flow.start) < AROUND and (fault.flow.address in line or "event=message" in line):
                lines.append(line)
        return lines[-LOG_LINES_SHOWN:]

    def look_for_crashes(self):
        deaths = collections.Counter(re.findall(r"the worker (?:died of signal|ended with status) (\d+)", self.lab.gateway.log.text()))
        if any(int(number) != ORDINARY_DEATH for number in deaths) or deaths[str(ORDINARY_DEATH)] > self.model.counts["kills"]:
            self.problems.append(f"the worker ended by itself: {dict(deaths)} with {self.model.counts['kills']} kills\n{self.lab.gateway.log.tail()}")

    def went_well(self):
        return not self.problems and not self.model.faults

    def summary(self):
        counts = self.model.counts
        by_client = sorted((key.removeprefix("flows by "), number) for key, number in counts.items() if key.startswith("flows by "))
        keys = ("questions", "answers", "answers that deny", "servfail", "unanswered", "flows opened", "flows refused", "flows unanswered",
                "flows that had to pass", "flows that had to be refused", "flows that could go either way", "second chances taken", "further exchanges",
                "flows whose server was checked", "questions to a full pool",
                "established flows ended", "flows during a recreation", "reloads",
                "refused reloads", "kills", "recreations", "upstream failures")
        lines = [f"  {key:30} {counts[key]}" for key in keys]
        lines.append("  flows by client: " + ", ".join(f"{client} {number}" for client, number in by_client))
        lines.append(f"  false drops {counts['false drop']}, wrong passes {counts['wrong pass']}, seed {self.seed}")
        return "\n".join(lines)

    def faults(self):
        parts = [self.fault_text(fault) for fault in self.model.faults[:FAULTS_SHOWN]]
        if len(self.model.faults) > FAULTS_SHOWN:
            parts.append(f"... and {len(self.model.faults) - FAULTS_SHOWN} more")
        return "\n".join(parts + [f"problem: {problem}" for problem in self.problems])

    def fault_text(self, fault):
        flow = fault.flow
        lines = [f"{fault.kind}: {fault.why}", f"  {flow.text()}", "  the address on this network:"]
        lines += [f"    {line}" for line in fault.known]
        lines += [f"    the gateway soon after: {line}" for line in self.elements.get(id(flow), [])]
        lines.append("  meanwhile:")
        lines += [f"    {at:.3f} {text}" for at, text in self.model.events if flow.start - 4 * AROUND < at < flow.end + AROUND]
        lines.append("  the gateway's log:")
        lines += [f"    {line}" for line in self.log_at_fault.get(id(fault), [])]
        return "\n".join(lines)


def seconds_of(text):
    """Of a log line's time stamp."""
    whole, _, fraction = text.partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float("0." + (fraction or "0"))


def full_tables():
    """How often there was no room for a neighbour; 0 when only the host can know."""
    try:
        with open(NEIGHBOURS, encoding="ascii") as file:
            names, *processors = [line.split() for line in file]
    except FileNotFoundError:
        return 0
    return sum(int(row[names.index("table_fulls")], 16) for row in processors)


def raise_file_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", nargs="?", type=float, default=60)
    parser.add_argument("--form", choices=FORMS, default="mixed", help="of addresses; mixed: some networks, by the seed, have virtual ones")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--apps", type=int, default=APPS, help="per network")
    parser.add_argument("--speed", type=float, default=SPEED, help="2: clients do twice as much")
    options = parser.parse_args()
    with ended_by_signals():
        sys.exit(0 if Soak(options.seconds, options.seed, options.apps, options.speed, form=options.form).run() else 1)


if __name__ == "__main__":
    main()
