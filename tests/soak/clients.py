# SPDX-License-Identifier: MIT
"""The programs in the soak's apps: each kind keeps addresses for as long as the real one does, and opens flows as it would."""

import asyncio
import contextlib
import socket
import time
from dataclasses import replace

from flows import Network
from model import EDGE, Flow
from policies import HOSTS, LIFETIMES, NETWORKS, PORTS, ZONES, pool_address, virtual_address

FOR_EVER = float("inf")
# How long an address is used after it was resolved, in seconds.
CACHES = {"glibc/musl": 0, "Go": 0, "Node": 2, "JVM": 30, "JVM for ever": FOR_EVER, "nginx": FOR_EVER, "Chromium": 60}
RESTART = 8          # flows that went wrong one after the other until a program that caches for ever is started anew
UDP_TIMEOUT = 3      # seconds: conntrack's, as the soak sets it in the gateway
EDGE_PROBES_MAX = 6  # per app
EDGE_PROBE_SECONDS = 30  # that such a probe waits for the end of a lease which others keep alive
VIRTUAL_PROBED = 64  # of a pool of virtual addresses, the first ones
CHANGED_PROBES = 12  # per network, after a reload


class Clients(Network):
    def __init__(self, model, apps, random, speed):
        super().__init__(model)
        self.apps, self.random, self.speed = apps, random, speed
        self.by_network = {network: [app for app in apps if app.network == network] for network in LIFETIMES}

    def start(self):
        for app in self.apps:
            for client, keep in CACHES.items():
                self.spawn(self.caching(client, app, keep))
            for work in (self.connection_pool, self.quic, self.edges, self.trespasser):
                self.spawn(work(app))

    async def pause(self, seconds):
        await asyncio.sleep(self.random.uniform(0.4, 1.6) * seconds / self.speed)

    # --- choices ---

    def policy(self, network):
        return self.model.policies[-1][2].networks[network]

    def a_name(self, network):
        """Mostly one that is allowed."""
        allowed = [host for host in HOSTS if self.policy(network).ports(host)]
        return self.random.choice(allowed if allowed and self.random.random() < 0.9 else list(HOSTS))

    def a_port(self, network, name, protocol=None):
        """(protocol, port), mostly an allowed one."""
        allowed = sorted(port for port in self.policy(network).ports(name) if protocol in (None, port[0]))
        if allowed and self.random.random() < 0.9:
            return self.random.choice(allowed)
        return self.random.choice(sorted(port for port in PORTS if protocol in (None, port[0])))

    def a_kind(self, app):
        return self.random.choice(("A", "AAAA")) if app.ipv6 else "A"

    async def flow(self, client, app, name, address, protocol, port):
        return await (self.tcp if protocol == "tcp" else self.udp)(client, app, name, address, port)

    # --- programs that resolve and connect ---

    async def caching(self, client, app, keep):
        names = [self.a_name(app.network) for _ in range(6)]
        cache, wrong = {}, 0
        await self.pause(2)
        while True:
            if keep != FOR_EVER:
                names[self.random.randrange(len(names))] = self.a_name(app.network)
            name, kind = self.random.choice(names), self.a_kind(app)
            addresses = await self.look_up(app, name, kind, cache, keep)
            if addresses:
                went_well = await self.use(client, app, name, self.random.choice(addresses))
                wrong = 0 if went_well else wrong + 1
            if wrong == RESTART:
                names, cache, wrong = [self.a_name(app.network) for _ in range(6)], {}, 0
            await self.pause(3 if addresses else 1.5)

    async def look_up(self, app, name, kind, cache, keep):
        addresses, since = cache.get((name, kind), (None, 0))
        if addresses and time.monotonic() - since < keep:
            return addresses
        records = await self.resolve(app, name, kind)
        if records:
            addresses = [address for address, _ in records]
            cache[name, kind] = addresses, time.monotonic()
        return addresses

    async def use(self, client, app, name, address):
        """Return: True when the address could be used."""
        if client == "Chromium":  # QUIC and TCP race
            flows = await asyncio.gather(self.tcp(client, app, name, address), self.udp(client, app, name, address))
        else:
            flows = [await self.flow(client, app, name, address, *self.a_port(app.network, name))]
        return any(flow.outcome == "open" for flow in flows)

    # --- flows that last ---

    async def connection_pool(self, app):
        """TCP connections that are used now and then, for a minute or so."""
        while True:
            name = self.a_name(app.network)
            records = await self.resolve(app, name, self.a_kind(app))
            if records:
                await self.pooled(app, name, self.random.choice(records)[0])
            await self.pause(1)

    async def pooled(self, app, name, address):
        flow, sock = await self.tcp_open("connection pool", app, name, address, self.a_port(app.network, name, "tcp")[1])
        if not sock:
            return
        since, end = time.monotonic(), time.monotonic() + self.random.uniform(10, 60)
        use = self.model.connected(flow)
        with contextlib.closing(sock):
            while time.monotonic() < end:
                await self.pause(2)
                flow = replace(flow, start=time.monotonic(), outcome="", detail="")
                if not await self.exchange(flow, sock, since):
                    break
                since = flow.start
                if self.random.random() < 0.3:  # one more connection to the same address
                    await self.tcp("second connection", app, name, address, flow.port)
            self.model.disconnected(flow, use)

    async def quic(self, app):
        """UDP flows that are idle for longer than conntrack remembers them, and go on with the same socket."""
        while True:
            name = self.a_name(app.network)
            records = await self.resolve(app, name, self.a_kind(app))
            if records:
                await self.idle_flow(app, name, self.random.choice(records)[0])
            await self.pause(1)

    async def idle_flow(self, app, name, address):
        port = self.a_port(app.network, name, "udp")[1]
        with self.opened(app, address, port, socket.SOCK_DGRAM) as sock:
            before = None  # the exchange before
            for _ in range(self.random.randrange(2, 7)):
                flow = Flow("idle QUIC", app.short, app.network, name, address, "udp", port, time.monotonic(),
                            audited=bool(before and before.audited))
                flow.server = before.server if before else ""
                flow.fresh = before is None or flow.start - before.end > UDP_TIMEOUT + EDGE
                await self.datagram(flow, sock, None if flow.fresh else True)
                if flow.fresh:
                    self.model.judge(flow)
                else:
                    if flow.start - before.start < UDP_TIMEOUT - EDGE:
                        self.model.judge_further(flow, before.start)
                    if flow.outcome == "open":
                        self.model.passed(flow, flow.start, flow.end)
                if flow.outcome != "open":
                    return
                before = flow
                await asyncio.sleep(self.random.choice((0.3, 1, 1.5, 4.5, 5, 7, 12)))

    # --- probes ---

    async def edges(self, app):
        """Flows just before and just after the end of a lease."""
        running = set()
        while True:
            await self.pause(1)
            running = {task for task in running if not task.done()}
            recent = self.model.recent[app.network]
            if not recent or len(running) >= EDGE_PROBES_MAX:
                continue
            name, address, answer = self.random.choice(recent)
            if (":" in address and not app.ipv6) or not 1 < answer.sent + answer.least - time.monotonic() < 20:
                continue
            running.add(self.spawn(self.edge(app, name, address, answer)))

    async def edge(self, app, name, address, answer):
        protocol, port = self.a_port(app.network, name)
        await self.until(answer.sent + answer.least - 0.8 * EDGE)
        await self.flow("before the end", app, name, address, protocol, port)
        give_up = time.monotonic() + EDGE_PROBE_SECONDS
        while (end := self.model.ends_at(app.network, address, name)) > time.monotonic() < give_up:
            await self.until(min(end, give_up) + 0.05)
        await self.flow("after the end", app, name, address, protocol, port)

    @staticmethod
    async def until(moment):
        await asyncio.sleep(max(moment - time.monotonic(), 0))

    async def trespasser(self, app):
        """Tries what it was not shown: addresses of pools, of other networks, other ports."""
        while True:
            await self.pause(1)
            zone, family = self.random.choice(ZONES), 6 if app.ipv6 and self.random.random() < 0.5 else 4
            name, address = zone.hosts()[0], pool_address(zone, family, self.random.randrange(zone.count))
            policy = self.policy(app.network)
            if policy.virtual and self.random.random() < 0.5:
                known = virtual_address(NETWORKS[app.network], family, policy.small, self.random.randrange(VIRTUAL_PROBED))
                # An IPv6 address that is not there yet leaves the app's kernel waiting for a neighbour, also when it is there a moment later.
                address = known if family == 4 or self.model.shown[app.network, known] else address
            elsewhere = self.model.recent[self.random.choice(list(LIFETIMES))]
            if elsewhere and self.random.random() < 0.5:
                name, address, _ = self.random.choice(elsewhere)
            if ":" in address and not app.ipv6:
                continue
            await self.flow("trespasser", app, name, address, *self.random.choice(sorted(PORTS)))

    def barrage(self, count, seconds):
        """Flows that must pass, spread over the next moments: something is about to happen to the gateway."""
        for _ in range(count):
            app = self.random.choice(self.apps)
            if not self.model.recent[app.network]:
                continue
            name, address, _ = self.random.choice(self.model.recent[app.network])
            if ":" in address and not app.ipv6:
                continue
            self.spawn(self.later(self.random.uniform(0, seconds), "barrage", app, name, address, *self.a_port(app.network, name)))

    async def later(self, delay, client, app, name, address, protocol, port):
        await asyncio.sleep(delay)
        await self.flow(client, app, name, address, protocol, port)

    def moved(self, app, name, address, before):
        """A flow on a port that only the name of before had."""
        policy = self.policy(app.network)
        ports = sorted(policy.ports(before) - policy.ports(name))
        if policy.virtual and ports:
            self.spawn(self.flow("after a move", app, before, address, *self.random.choice(ports)))

    def probe_changes(self, before, after):
        """After a reload: flows to addresses of names whose ports have changed."""
        for network, apps in self.by_network.items():
            old, new = before.networks[network], after.networks[network]
            changed = [(name, address) for name, address, _ in self.model.recent[network] if old.ports(name) != new.ports(name)]
            self.random.shuffle(changed)
            for name, address in changed[:CHANGED_PROBES]:
                app = self.random.choice(apps)
                difference = sorted(old.ports(name) ^ new.ports(name))
                self.spawn(self.flow("after a reload", app, name, address, *self.random.choice(difference)))
