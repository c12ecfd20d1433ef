# SPDX-License-Identifier: MIT
"""Questions and flows of the soak's apps, in one asyncio loop: each is tried as a real program would, and told to the model."""

import asyncio
import contextlib
import errno
import itertools
import socket
import time

import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype

from app import family_of
from lab import GATEWAY_UPLINK4, GATEWAY_UPLINK6
from model import Flow
from namespaces import SLOW

CONNECT_SECONDS = 9       # SYN at 0, 1, 3, 7
CONNECT_SECONDS_IDLE = 2  # when the model does not say that it must work
TALK_SECONDS = 20         # for an answer within a TCP connection: the kernel repeats what gets lost
UDP_WAITS = (2, 3, 4, 5) if SLOW else (0.7, 1, 1.5, 2, 3)
UDP_WAITS_IDLE = (0.5, 1)
QUESTION_WAITS = (4, 4, 4) if SLOW else (2.5, 3.5, 4)
IMPATIENT = (asyncio.TimeoutError, TimeoutError)
REFUSALS = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM, errno.ECONNRESET)


class Network:
    """What clients use: the lab's apps, the model, the loop."""

    def __init__(self, model):
        self.model = model
        self.loop = asyncio.get_running_loop()
        self.tokens = itertools.count()
        self.idents = itertools.count(1)
        self.tasks = set()

    def spawn(self, coroutine):
        """A task of its own; an exception in it ends the run."""
        task = self.loop.create_task(coroutine)
        self.tasks.add(task)
        return task

    # --- DNS ---

    @staticmethod
    def question(app, name, start, outcome, detail=""):
        """A question as the model judges it."""
        return Flow("question", app.short, app.network, name, name, "udp", 53, start, end=time.monotonic(), outcome=outcome, detail=detail)

    async def resolve(self, app, name, kind):
        """Ask as a stub resolver does: some packets, some seconds. Return: [(address, TTL)], or None when there was no answer at all."""
        model = self.model
        begun = time.monotonic()
        model.counts["questions"] += 1
        model.asks(app.network, name)
        with self.opened(app, app.resolver, 53, socket.SOCK_DGRAM) as sock:
            sent, rcodes = {}, set()
            for wait in QUESTION_WAITS:
                ident = next(self.idents) & 0xffff
                query = dns.message.make_query(name, kind, use_edns=0)
                query.id = ident
                sent[ident] = time.monotonic()
                with contextlib.suppress(OSError):
                    await self.loop.sock_sendall(sock, query.to_wire())
                answer, received = await self.answer(sock, sent, time.monotonic() + wait)
                if answer is None or answer.rcode() == dns.rcode.SERVFAIL:
                    model.counts["servfail" if answer else "questions without answer"] += 1
                    rcodes.add(answer and answer.rcode())
                    if answer:
                        await asyncio.sleep(0.5)
                    continue
                return self.take_answer(app, name, kind, answer, sent[answer.id], received)
        model.judge_silence(self.question(app, name, begun, "timeout" if None in rcodes else "refused"))
        return None

    async def answer(self, sock, sent, deadline):
        """An answer to one of the packets sent, and when it came; or None, None."""
        while (left := deadline - time.monotonic()) > 0:
            try:
                wire = await asyncio.wait_for(self.loop.sock_recv(sock, 65535), left)
            except IMPATIENT:
                break
            except OSError:
                await asyncio.sleep(0.2)  # an ICMP error: the gateway has no listener at this moment
                continue
            received = time.monotonic()
            try:
                answer = dns.message.from_wire(wire)
            except dns.exception.DNSException:
                continue
            if answer.id in sent and answer.question:
                return answer, received
        return None, None

    def take_answer(self, app, name, kind, answer, sent, received):
        """Tell the model what an answer shows. Return: [(address, TTL)]"""
        kind = dns.rdatatype.from_text(kind)
        records = [(rdata.to_text(), rrset.ttl) for rrset in answer.answer if rrset.rdtype == kind for rdata in rrset]
        for address, before in self.model.answered(app.network, name, sent, received, records):
            self.moved(app, name, address, before)
        outcome = "open" if records else "refused"
        self.model.judge_answer(self.question(app, name, sent, outcome, dns.rcode.to_text(answer.rcode())), len(records))
        return records

    def moved(self, app, name, address, before):
        """An address stands for another name than before, or for one more."""

    # --- flows ---

    @contextlib.contextmanager
    def opened(self, app, address, port, kind):
        """A connected UDP socket, or a TCP socket to connect."""
        sock = app.socket(family_of(address), kind)
        try:
            sock.setblocking(False)
            if kind == socket.SOCK_DGRAM:
                sock.connect((address, port))
            yield sock
        finally:
            sock.close()

    async def tcp(self, client, app, name, address, port=443):
        """A new connection, used once. Return: the flow, judged."""
        flow, sock = await self.tcp_open(client, app, name, address, port)
        if sock:
            sock.close()
        return flow

    async def tcp_open(self, client, app, name, address, port=443):
        """A new connection. Return: the flow, judged; and the socket, or None."""
        flow = Flow(client, app.short, app.network, name, address, "tcp", port, time.monotonic())
        sock = app.socket(family_of(address))
        sock.setblocking(False)
        await self.tcp_try(flow, sock)
        if flow.outcome != "open":
            sock.close()
            sock = None
        self.model.judge(flow)
        return flow, sock

    async def tcp_try(self, flow, sock):
        expected = self.model.must_pass(flow, flow.start, flow.start + 1)
        flow.start = time.monotonic()
        try:
            await asyncio.wait_for(self.loop.sock_connect(sock, (flow.address, flow.port)), CONNECT_SECONDS if expected else CONNECT_SECONDS_IDLE)
        except IMPATIENT:
            flow.end, flow.outcome = time.monotonic(), "timeout"
            return
        except OSError as error:
            self.failed(flow, error)
            return
        flow.end = time.monotonic()
        await self.hello(flow, sock)

    @staticmethod
    def failed(flow, error):
        if error.errno not in REFUSALS:
            raise error
        flow.end, flow.outcome, flow.detail = time.monotonic(), "refused", error.strerror

    async def hello(self, flow, sock):
        """Is it the server that the app wanted, and does it see the gateway? The flow's end stays the moment at which it was connected."""
        mine = sock.getsockname()[1]
        end = flow.end
        answer = await self.line(flow, sock, "hello")
        if flow.outcome == "open":
            words = answer.split()
            gateway = GATEWAY_UPLINK6 if ":" in flow.address else GATEWAY_UPLINK4
            if len(words) != 6 or words[1] != gateway or words[5] != str(flow.port) or not self.found(flow, words[4]):
                flow.outcome, flow.detail = "garbled", answer
            else:
                await self.echo(flow, sock)
        flow.end = end if flow.outcome == "open" else flow.end
        flow.detail = f"{flow.detail} from port {mine}".strip()

    def found(self, flow, server):
        """Note the server. Return: False when it is not the one that was written to, though addresses are real."""
        flow.server = server
        return server == flow.address or self.model.is_virtual(flow.network)

    async def echo(self, flow, sock):
        """A line that nobody else sends must come back."""
        line = f"{flow.network} {flow.app} {next(self.tokens)}"
        answer = await self.line(flow, sock, line)
        if flow.outcome == "open" and answer != line:
            flow.outcome, flow.detail = "garbled", answer

    async def line(self, flow, sock, text):
        """One line there and one back. Sets the flow's end and outcome."""
        data = b""
        deadline = time.monotonic() + TALK_SECONDS
        flow.outcome = "open"
        try:
            await self.loop.sock_sendall(sock, text.encode() + b"\n")
            while not data.endswith(b"\n"):
                piece = await asyncio.wait_for(self.loop.sock_recv(sock, 4096), max(deadline - time.monotonic(), 0.01))
                if not piece:
                    flow.outcome, flow.detail = "refused", "the connection was closed"
                    break
                data += piece
        except IMPATIENT:
            flow.outcome = "timeout"
        except OSError as error:
            self.failed(flow, error)
        flow.end = time.monotonic()
        return data.decode(errors="replace").rstrip("\n")

    async def exchange(self, flow, sock, since):
        """One more exchange in an established TCP connection. Return: True when it went well."""
        flow.start, flow.fresh = time.monotonic(), False
        await self.echo(flow, sock)
        self.model.judge_further(flow, since)
        if flow.outcome == "open":
            self.model.passed(flow, flow.start, flow.end)
        return flow.outcome == "open"

    async def udp(self, client, app, name, address, port=443):
        """One datagram there and back, from a new socket. Return: the flow, judged."""
        flow = Flow(client, app.short, app.network, name, address, "udp", port, time.monotonic())
        try:
            with self.opened(app, address, port, socket.SOCK_DGRAM) as sock:
                await self.datagram(flow, sock)
        except OSError as error:
            self.failed(flow, error)  # there is no route
        self.model.judge(flow)
        return flow

    async def datagram(self, flow, sock, expected=None):
        """A datagram that nobody else sends must come back; it is repeated. Sets the flow's start, end and outcome."""
        data = f"hello {flow.network} {flow.app} {next(self.tokens)}".encode()
        if expected is None:
            expected = self.model.must_pass(flow, flow.start, flow.start + 1)
        flow.start = time.monotonic()
        flow.outcome = "timeout"
        for wait in UDP_WAITS if expected else UDP_WAITS_IDLE:
            try:
                await self.loop.sock_sendall(sock, data)
                if await self.came_back(flow, sock, data, time.monotonic() + wait):
                    break
            except OSError as error:
                self.failed(flow, error)
                break
        flow.end = time.monotonic()

    async def came_back(self, flow, sock, data, deadline):
        while (left := deadline - time.monotonic()) > 0:
            try:
                answer = await asyncio.wait_for(self.loop.sock_recv(sock, 4096), left)
            except IMPATIENT:
                return False
            own, _, server = answer.decode(errors="replace").rpartition(" to ")
            if own.encode() == data and self.found(flow, server):
                flow.outcome = "open"
                return True
            if own.encode() == data or not answer.startswith(f"hello {flow.network} {flow.app} ".encode()):  # else it is the echo of an earlier datagram
                flow.outcome, flow.detail = "garbled", repr(answer)
                return True
        return False
