# SPDX-License-Identifier: MIT
"""What happens to the gateway during a soak: reloads, refused reloads, kill -9, recreations, upstream failures, in random order."""

import asyncio
import concurrent.futures
import contextlib
import subprocess
import time

from lab import DNS, DNS_SECOND
from namespaces import patience
from policies import next_policy, refused_text

# A deck that is shuffled again when it is empty, so that everything happens in a short run, too.
DECK = ["reload"] * 6 + ["refused reload"] + ["kill"] * 2 + ["longer outage", "kill during a reload", "upstream failure", "upstream failure",
                                             "one server fails", "recreation", "reload by watching"]
KILLING = ("kill", "longer outage", "kill during a reload", "recreation", "refused reload")
GAP = """table inet gap {{
	chain everything {{
		type filter hook prerouting priority -500; policy accept;
		iifname {{ {interfaces} }} drop
	}}
}}
"""


class Chaos:
    """Runs commands in one thread of its own that lives as long as the run: programs started from it end with it."""

    def __init__(self, lab, model, clients, random, calm=0):
        """`calm`: seconds without a kill at the start of every other deck. A new worker takes all names as used just now, so that full pools stay
        as they are for half a minute."""
        self.calm, self.calm_until = calm, 0
        self.lab, self.model, self.clients, self.random = lab, model, clients, random
        self.gateway = lab.gateway
        self.policy = model.policies[-1][2]
        self.thread = concurrent.futures.ThreadPoolExecutor(1)
        self.loop = asyncio.get_running_loop()
        self.repair_at = None  # when the name servers work again

    def work(self, function, *arguments):
        return self.loop.run_in_executor(self.thread, function, *arguments)

    async def run(self, end):
        """Until `end`, or an exception: the gateway did not come back, or refused a good policy."""
        deck, decks = [], 0
        while time.monotonic() < end:
            if not deck:
                deck = list(DECK)
                self.random.shuffle(deck)
                self.calm_until = time.monotonic() + (self.calm if decks % 2 == 0 else 0)
                decks += 1
            await asyncio.sleep(self.random.uniform(0.3, 3))
            await self.repair(False)
            what = deck.pop()
            if what in KILLING and time.monotonic() < self.calm_until:
                deck.insert(self.random.randrange(len(deck) + 1), what)
                continue
            if end - time.monotonic() > 6:
                await getattr(self, what.replace(" ", "_"))()
        await self.repair(True)

    # --- reloads ---

    async def reload(self):
        before, self.policy = self.policy, next_policy(self.random, self.policy)
        self.clients.barrage(12, 0.4)
        await asyncio.sleep(0.05)
        self.begin(before, "reload")
        await self.work(self.gateway.set_policy, self.policy.text())
        self.finish(before)

    def begin(self, before, how):
        self.model.counts["reloads"] += 1
        self.model.event(f"{how} begins: policy {self.policy.number}, {self.policy.ballast} rules more; " + "; ".join(self.policy.differences(before)))
        self.model.policy_begins(self.policy)

    def finish(self, before):
        self.model.policy_rules()
        self.model.event(f"policy {self.policy.number} is in force")
        self.clients.probe_changes(before, self.policy)

    async def reload_by_watching(self):
        """Nobody tells the gateway that the file has changed."""
        before, self.policy = self.policy, next_policy(self.random, self.policy)
        self.begin(before, "change of the file")
        await self.work(self.gateway.write_policy, self.policy.text())
        await asyncio.sleep(self.random.uniform(0, 2))
        await self.work(self.gateway.set_policy, self.policy.text())
        self.finish(before)

    async def refused_reload(self):
        self.model.counts["refused reloads"] += 1
        self.model.event("a policy with an error is to be loaded")
        await self.work(self.gateway.write_policy, refused_text(self.policy))
        done = await self.work(lambda: self.gateway.sluice("reload"))
        assert done.returncode == 1, f"a policy with errors was not refused: {done.stdout}{done.stderr}"
        if self.random.random() < 0.5:
            await self.kill()
        await self.work(self.gateway.set_policy, self.policy.text())

    # --- crashes ---

    @contextlib.contextmanager
    def outage(self, what):
        self.model.counts["kills"] += 1
        self.model.event(what)
        self.model.outages.begin(time.monotonic())
        yield
        self.model.outages.finish(time.monotonic())
        self.model.event("the gateway is healthy again")

    async def kill(self):
        self.clients.barrage(10, 0.6)
        with self.outage("kill -9 of the worker"):
            await self.work(self.gateway.kill_worker)
            await self.work(self.gateway.wait_healthy)

    async def longer_outage(self):
        self.clients.barrage(20, 2)
        with self.outage("kill -9 of the worker, which stays away"):
            await self.work(self.gateway.kill_worker, True)
            await asyncio.sleep(self.random.uniform(0.5, 2.5))
            await self.work(self.gateway.release)
            await self.work(self.gateway.wait_healthy)

    async def kill_during_a_reload(self):
        before, self.policy = self.policy, next_policy(self.random, self.policy)
        self.clients.barrage(15, 0.6)
        self.begin(before, "reload that the worker does not survive")
        with self.outage("kill -9 of the worker soon after"):
            await self.work(self.reload_and_kill, self.random.uniform(0, 0.03))
            await self.work(self.gateway.wait_healthy)
        await self.work(self.gateway.set_policy, self.policy.text())
        self.finish(before)

    def reload_and_kill(self, delay):
        self.gateway.write_policy(self.policy.text())
        command = self.lab.gw.start([self.gateway.binary, "reload"], env=self.gateway.environment(), stdout=subprocess.DEVNULL,
                                    stderr=subprocess.DEVNULL)
        time.sleep(delay)
        self.gateway.kill_worker()
        command.wait(patience(20))
        self.lab.gw.processes.remove(command)

    # --- another container ---

    async def recreation(self):
        """What is left of a container when another takes its place is the volume. Meanwhile nothing is forwarded."""
        before = self.policy
        if self.random.random() < 0.5:
            self.policy = next_policy(self.random, self.policy)
        self.begin(before, "recreation")
        self.model.counts["reloads"] -= 1
        self.model.counts["recreations"] += 1
        self.model.recreations.begin(time.monotonic())
        self.clients.barrage(30, 2)
        await self.work(self.recreate, self.random.choice((0, 0, 0.5, 2)))
        self.model.recreations.finish(time.monotonic())
        self.clients.barrage(20, 0.5)
        self.finish(before)

    def recreate(self, seconds):
        gw = self.lab.gw
        self.gateway.stop()
        interfaces = ", ".join(f'"{name}"' for name in (*(f"{network}0" for network in self.lab.networks), "up0"))
        gw.nft(GAP.format(interfaces=interfaces))
        gw.nft("delete table inet sluice\n")
        gw.run(["conntrack", "--flush"], check=True)
        self.lab.release_addresses()
        time.sleep(seconds)
        self.gateway.start(self.policy.text(), wait=False)
        self.wait_for_table()
        gw.nft("delete table inet gap\n")
        self.gateway.wait_healthy()

    def wait_for_table(self):
        end = time.monotonic() + patience(20)
        while "inet sluice" not in self.lab.gw.nft_list("tables"):
            assert time.monotonic() < end and self.gateway.process.poll() is None, f"no table was made:\n{self.gateway.log.tail()}"
            time.sleep(0.01)

    # --- name servers ---

    async def upstream_failure(self):
        await self.fail((DNS, DNS_SECOND), self.random.choice(("drop", "servfail", "refused")))

    async def one_server_fails(self):
        await self.fail((self.random.choice((DNS, DNS_SECOND)),), self.random.choice(("drop", "servfail", "refused")))

    async def fail(self, servers, mode):
        await self.repair(True)
        self.model.counts["upstream failures"] += 1
        self.model.event(f"name servers {', '.join(servers)}: {mode}")
        self.model.upstream_failures.begin(time.monotonic())
        for server in servers:
            self.lab.names.server(server, mode)
        self.repair_at = time.monotonic() + self.random.uniform(2, 9)

    async def repair(self, now):
        if self.repair_at is None or not (now or time.monotonic() >= self.repair_at):
            return
        self.lab.names.reset()
        self.repair_at = None
        self.model.upstream_failures.finish(time.monotonic())
        self.model.event("the name servers work again")
