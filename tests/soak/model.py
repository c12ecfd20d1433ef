# SPDX-License-Identifier: MIT
"""What each network has been shown, and what follows from it: which flows must pass and which may not.

The model knows what the apps' answers said, when they asked, which flows they had, what the name servers handed out, and which policy was in
force; nothing of the gateway's state. docs/leases.md is what it follows. Where something happens at an unknown moment between two known
ones (an answer is granted between question and answer, a policy taken over between the writing of the file and the end of `sluice reload`)
both outcomes are right. All times are time.monotonic().
"""

import bisect
import collections
import threading
import time
from dataclasses import dataclass, field

from namespaces import SLOW
from policies import HOSTS, LIFETIMES, short

EDGE = 3 if SLOW else 1.0  # seconds at the ends of a lease in which both outcomes are right: clocks, scheduling, a TTL's fractions
NEEDED = 3.5         # a new flow without an answer counts as dropped when all its packets of so many seconds should have passed (SYN: 0, 1, 3 s)
LATE = 15.0          # a flow that looks wrong is decided about so much later: no answer that explains it is on its way any more
DELAY = 0.5          # from a name server's answer to the gateway's
PERIOD = 1.5         # the gateway looks for flows at least so often: half of the smallest grace or an eighth of the smallest max_age, rounded up
LINGER = 4.0         # conntrack's entries of ended flows, with the timeouts that the soak sets
STALE_AFTER = 7      # an answer from before a failure serves for so long after it: a name is asked for again every 5 s
REFRESH = 5          # seconds: a virtual address in use is looked up again at most so often ...
REFRESH_IDLE = 16    # ... and after this part of the time for which nobody used it
REFRESH_LATE = 4     # seconds: ticks, questions on their way, a name server's answer that was lost
NEIGHBOUR = 1.2      # seconds after a recreation in which an app may still wait for an IPv6 neighbour that was not there
STALE_TTL = 30       # TTL of an answer that serves while no upstream has a better one
RECENT = 400         # answers per network that probes choose from
ANSWERS = 400        # kept per network, address and name
HISTORY = 40         # entries per address
DISTURBED = 2        # seconds before and after it in which a disturbance counts
KNOWN = 60           # seconds before a fault of which its text has what name servers said
STRANGER = "the server is not one that a name of the virtual address had at that time"


@dataclass(frozen=True)
class Answer:
    """What one answer says about one address."""
    sent: float      # the question was
    received: float
    ttl: int
    least: float     # seconds that its lease lasts, by the policies that can have been in force
    most: float


@dataclass
class Use:
    """A TCP connection of a network to an address: conntrack has it all the time."""
    start: float
    port: tuple  # (protocol, port)
    end: float = None  # None: it goes on


@dataclass
class Flow:
    """A flow, or one exchange in it."""
    client: str    # its kind
    app: str
    network: str
    name: str      # that the app asked for
    address: str
    protocol: str
    port: int
    start: float
    fresh: bool = True    # a new flow, as the gateway sees it
    end: float = 0.0
    outcome: str = ""     # open, refused, timeout, garbled
    detail: str = ""
    server: str = ""      # the address under which the server was reached: with virtual addresses another one
    audited: bool = False  # audit mode may have let it in

    def text(self):
        what = "flow" if self.fresh else "further packet"
        server = f"at {self.server} " if self.server not in ("", self.address) else ""
        return (f"{self.client} on {self.app}: {what} for {self.name} to {self.address} {server}port {self.port}/{self.protocol}, "
                f"begun {self.start:.3f}, {self.outcome} at {self.end:.3f} {self.detail}").rstrip()


class Windows:
    """Stretches of time: [start, end], end None while it lasts."""

    def __init__(self):
        self.list = []

    def begin(self, at):
        self.list.append([at, None])

    def finish(self, at):
        self.list[-1][1] = at

    def overlapping(self, start, end, margin=0.0):
        """Those, with the margin added."""
        found = []
        for begin, finish in reversed(self.list):
            if finish is not None and finish + margin < start:
                break
            if begin - margin <= end:
                found.append((begin - margin, float("inf") if finish is None else finish + margin))
        return found

    def overlaps(self, start, end, margin=0.0):
        return bool(self.overlapping(start, end, margin))


@dataclass
class Fault:
    kind: str      # false drop, wrong pass
    flow: Flow
    why: str
    known: list = field(default_factory=list)  # lines: what the model knew then


class Model:
    def __init__(self, policy):
        self.policies = [(0.0, 0.0, policy)]  # (earliest start, latest start, policy)
        self.shown = collections.defaultdict(answers_by_name)  # (network, address) -> name -> [Answer]
        self.recent = collections.defaultdict(lambda: collections.deque(maxlen=RECENT))  # network -> [(name, address, Answer)]
        self.asked = {}  # (network, name) -> time of the first question
        self.uses = collections.defaultdict(list)  # (network, address) -> [(end, start)] of flows that passed and have ended
        self.steady_uses = collections.defaultdict(list)  # (network, address) -> [Use]
        self.handouts = collections.defaultdict(list)  # (name, family) -> [(time, addresses, TTL)]
        self.listed = collections.defaultdict(lambda: collections.defaultdict(list))  # address -> name -> [place in handouts]
        self.history = collections.defaultdict(lambda: collections.deque(maxlen=HISTORY))  # (network, address) -> [(time, text)]
        self.events = []  # (time, text)
        self.recreations, self.outages, self.upstream_failures = Windows(), Windows(), Windows()
        self.suspects = []  # flows that passed though they should not have, unless something shows up that allows them
        self.strangers = []  # flows to virtual addresses whose server is none that a name of the address had, as far as is known
        self.on_suspect = None  # called with a flow that has just become a suspect or a stranger
        self.latest = {}  # (network, address) -> name
        self.arrivals = []  # flows to virtual addresses whose server has not been looked at yet
        self.faults = []
        self.counts = collections.Counter()
        self.lock = threading.Lock()

    # --- what happens ---

    def event(self, text):
        self.events.append((time.monotonic(), text))

    def policy_begins(self, policy):
        """From now on it may be in force."""
        with self.lock:
            self.policies.append((time.monotonic(), None, policy))

    def policy_rules(self):
        """From now on it is."""
        with self.lock:
            start, _, policy = self.policies[-1]
            self.policies[-1] = (start, time.monotonic(), policy)

    def possible(self, network, start, end):
        """The network's policies that can have been in force at some moment from start to end."""
        found, replaced = [], None
        with self.lock:
            for earliest, latest, policy in reversed(self.policies):
                if replaced is not None and replaced < start:
                    break
                if earliest <= end and policy.networks[network] not in found:
                    found.append(policy.networks[network])
                replaced = latest
        return found

    def asks(self, network, name):
        self.asked.setdefault((network, name), time.monotonic())

    def answered(self, network, name, sent, received, records):
        """An app has got an answer. records: (address, TTL). Return: [(address, the other name that it was shown for last)]"""
        policies = self.possible(network, sent, received)
        moved = [(address, self.latest[network, address]) for address, _ in records if self.latest.get((network, address), name) != name]
        for address, ttl in records:
            self.latest[network, address] = name
            seconds = [policy.sure_seconds(ttl) for policy in policies]
            answer = Answer(sent, received, ttl, min(seconds), max(policy.lease_seconds(ttl) for policy in policies))
            self.shown[network, address][name].append(answer)
            self.recent[network].append((name, address, answer))
            self.note(network, address, f"shown for {name} with TTL {ttl}; asked {received - sent:.3f} s before; lease {min(seconds)} s")
        return moved

    def handed_out(self, rows):
        """Name servers have answered: (time, name, addresses, TTL)."""
        self.counts["handouts"] += len(rows)
        for at, name, addresses, ttl in rows:
            rows = self.handouts[name, ":" in addresses[0]]
            for address in addresses:
                self.listed[address][name].append(len(rows))
            rows.append((at, addresses, ttl))

    def connected(self, flow):
        """A connection that lasts has begun. Return: what to set the end of."""
        use = Use(flow.end, (flow.protocol, flow.port))
        self.steady_uses[flow.network, flow.address].append(use)
        return use

    def disconnected(self, flow, use):
        use.end = time.monotonic()
        self.passed(flow, use.start, use.end)

    def passed(self, flow, start, end):
        """Packets of a flow passed between these moments."""
        bisect.insort(self.uses[flow.network, flow.address], (end, start))

    def note(self, network, address, text):
        self.history[network, address].append((time.monotonic(), text))

    # --- at least ---

    def must_pass(self, flow, start, end):
        """Is a new flow's packet allowed at every moment from start to end, and does the app know the address?"""
        policies = self.possible(flow.network, start, end)
        port = (flow.protocol, flow.port)
        if any(policy.address_closed(flow.address) for policy in policies):
            return False
        if all(policy.address_opened(flow.address) for policy in policies):
            return True
        for name, answers in self.shown[flow.network, flow.address].items():
            if not all(port in policy.ports(name) or policy.address_opened(flow.address) for policy in policies):
                continue
            if self.lasts(flow.network, answers, start, end) or self.kept(flow, name, answers, start, end):
                return True
        return False

    def lasts(self, network, answers, start, end):
        """Does one of the answers, which the app had at the start, cover all of start to end?"""
        for one in reversed(answers):
            if one.received <= start and one.sent + min(one.least, self.shortest(network, one.sent, end)) - EDGE / 2 >= end:
                return True
        return False

    def shortest(self, network, start, end):
        """The shortest max_age in force from start to end: a shorter one holds at once."""
        if len(LIFETIMES[network].get("max_age", ())) < 2:
            return float("inf")
        return min(policy.lifetime("max_age") for policy in self.possible(network, start, end))

    def kept(self, flow, name, answers, start, end):
        """Has a connection that was there when the lease was alive kept it until the end?"""
        for use in self.steady_uses[flow.network, flow.address]:
            last = end if use.end is None else use.end
            if use.start > start or self.disturbed(use.start, end):
                continue
            policies = self.possible(flow.network, use.start, end)
            if not all(use.port in policy.ports(name) and not policy.address_closed(flow.address) for policy in policies):
                continue
            if not self.lasts(flow.network, answers, use.start, use.start + 2 * PERIOD):
                continue
            grace, max_age = min(policy.sure_grace() for policy in policies), min(policy.lifetime("max_age") for policy in policies)
            latest = max(one.sent for one in answers if one.received <= start)
            if last + grace - EDGE / 2 < end:
                continue
            if latest + max_age - EDGE / 2 >= end or (use.end is None and (policies[0].virtual or not HOSTS[name].moves())):
                return True  # before max_age; or the gateway has asked again, and the address is still the name's
        return False

    def disturbed(self, start, end):
        """Is there anything that keeps the gateway from looking at flows or from asking again?"""
        return bool(self.disturbances(start, end))

    def disturbances(self, start, end):
        return [window for windows in (self.recreations, self.outages, self.upstream_failures) for window in windows.overlapping(start, end, DISTURBED)]

    # --- at most ---

    def may_pass(self, flow, start, end):
        """Can a new flow's packet have been allowed at some moment from start to end?"""
        port = (flow.protocol, flow.port)
        for policy in self.possible(flow.network, start, end):
            if policy.address_closed(flow.address):
                continue
            if policy.address_opened(flow.address) or policy.audit:
                return True
            if any(port in policy.ports(name) and self.leased(flow.network, name, flow.address, start, end) for name in self.names(flow)):
                return True
        return False

    def is_virtual(self, network):
        return self.policies[-1][2].networks[network].virtual

    def names(self, flow):
        """All that the address can have stood for when the flow began."""
        policy = self.policies[-1][2].networks[flow.network]
        if policy.small or policy.virtual and not self.shown[flow.network, flow.address]:
            # A check may have given it to a name that has one already, and an answer may have been lost. The server says whose it is.
            asked = {name for network, name in self.asked if network == flow.network}
            return {name for name in asked if name in self.listed[flow.server]} if flow.server in self.listed else asked
        return set(self.shown[flow.network, flow.address]) | (set(self.listed[flow.address]) if flow.address in self.listed else set())

    def leased(self, network, name, address, start, end):
        """Can the lease have been alive at some moment from start to end?"""
        seen = ((one.sent, one.received, one.ttl) for one in reversed(self.shown[network, address].get(name, ())))
        return self.reaches(network, address, seen, start, end) or self.reaches(network, address, self.unseen(network, name, address, end),
                                                                                start, end)

    def reaches(self, network, address, showings, start, end):
        return any(begin <= end and self.reach(network, address, begin, finish, ttl, start, end) >= start for begin, finish, ttl in showings)

    def ends_at(self, network, address, name):
        """The moment from which the address cannot be open by the name any more, as far as is known now."""
        now = time.monotonic()
        seen = [(one.sent, one.received, one.ttl) for one in self.shown[network, address].get(name, ())]
        return max((self.reach(network, address, *one, now, now) for one in seen + self.unseen(network, name, address, now)), default=0.0)

    def reach(self, network, address, begin, finish, ttl, start, end):
        """The latest end of the lease that an answer made at some moment from begin to finish, and flows that began before the start kept."""
        policies = self.possible(network, begin, end)
        until = finish + max(policy.lease_seconds(ttl) for policy in policies)
        grace, max_age = (max(policy.lifetime(key) for policy in policies) for key in ("grace", "max_age"))
        if grace < max_age:
            until = self.used_until(network, address, begin, until, finish + max_age, LINGER + grace + PERIOD, start)
        return until + EDGE

    def used_until(self, network, address, begin, until, limit, more, start):
        """The end of a lease when flows keep it, each for `more`, up to the limit."""
        if any(use.start <= until + EDGE and use.end is None for use in self.steady_uses[network, address]):
            return max(until, limit)
        uses = self.uses[network, address]
        for last, first in uses[bisect.bisect_left(uses, (begin, 0)):]:
            if first < start and first <= until + EDGE:
                until = max(until, min(limit, last + more))
        return until

    def unseen(self, network, name, address, end):
        """Stretches of time in which the gateway could show the address to itself or in an answer that was lost: when it checks a lease in use,
        gives a second chance, or is killed. Return: [(begin, finish, TTL)]."""
        first, found = self.asked.get((network, name)), []
        if first is None or first > end:
            return found
        rows = self.handouts[name, ":" in address]
        if self.is_virtual(network):
            indices = range(len(rows))  # whatever an answer shows, it is for the name's virtual addresses
        else:
            indices = self.listed[address][name] if address in self.listed else ()
        for i in indices:
            at, _, ttl = rows[i]
            if at > end:
                break
            found.append((max(at, first), at + ttl + DELAY, ttl))
            until = rows[i + 1][0] + DELAY if i + 1 < len(rows) else end
            if until > at + ttl:  # the last answer serves on while name servers fail
                found += [(max(begin, at, first), min(finish, until), STALE_TTL) for begin, finish in
                          self.upstream_failures.overlapping(at, min(until, end), STALE_AFTER)]
        return found

    # --- established flows ---

    def stays(self, flow, start, end):
        """Must an established flow go on from start to end? Its lease may have ended."""
        policies = self.possible(flow.network, start, end)
        if flow.audited and not all(policy.audit for policy in policies):
            return False
        if all(policy.keep for policy in policies):
            return True
        if any(policy.address_closed(flow.address) for policy in policies):
            return False
        port = (flow.protocol, flow.port)
        names = self.names(flow) if policies[0].small else (flow.name,)  # a small pool's address may have been another name's
        return all(policy.address_opened(flow.address) for policy in policies) or all(port in policy.ports(name) for policy in policies for name in names)

    def forbidden(self, flow, start, end):
        """Does no policy from start to end allow the flow by any name that its address ever had?"""
        port = (flow.protocol, flow.port)
        for policy in self.possible(flow.network, start, end):
            if policy.keep or policy.audit:
                return False
            if not policy.address_closed(flow.address) and (
                    policy.address_opened(flow.address) or any(port in policy.ports(name) for name in self.names(flow))):
                return False
        return True

    # --- virtual addresses ---

    def arrived(self, flow):
        """Is the server one that a name of the virtual address had at that time, on a port of the name's?"""
        return any(self.leads(flow, name) for name in self.names(flow))

    def leads(self, flow, name):
        policies = self.possible(flow.network, flow.start, flow.end)
        if not any(policy.audit or (flow.protocol, flow.port) in policy.ports(name) for policy in policies):
            return False
        rows = self.handouts[name, ":" in flow.address]
        showings = [rows[i] for i in self.listed[flow.server].get(name, ()) if rows[i][0] <= flow.end] if flow.server in self.listed else ()
        if not showings:
            return False
        return flow.start <= self.left_by(flow, name, showings[-1])

    def left_by(self, flow, name, handout):
        """When the gateway must have asked for a name in use again, after an answer that showed the flow's server."""
        at, _, ttl = handout
        known = [one.received for one in self.shown[flow.network, flow.address].get(name, ()) if one.received <= flow.start]
        again = max(REFRESH, (flow.start - (known[-1] if known else at)) / REFRESH_IDLE)
        last = [at + ttl + max(ttl, again), self.forbidden_until(flow, name, at)]
        last += [end + again for _, end in self.disturbances(at, flow.start)]
        # The first question after a failure still gets the answer of before.
        last += [end + 2 * again for _, end in self.upstream_failures.overlapping(at, flow.start, DISTURBED)]
        return max(last) + REFRESH_LATE

    def forbidden_until(self, flow, name, since):
        """The last moment before a flow at which the gateway may not have asked for a name, because no rule allowed it."""
        replaced = float("inf")
        with self.lock:
            for earliest, latest, policy in reversed(self.policies):
                if earliest <= flow.start and replaced > since and not policy.networks[flow.network].answers(name):
                    return replaced
                replaced = float("inf") if latest is None else latest
        return 0.0

    def settle_arrivals(self, everything):
        new = [flow for flow in self.arrivals if not self.arrived(flow)]
        for flow in new:
            self.on_suspect(flow)
        waiting, now = [], time.monotonic()
        for flow in self.strangers + new:
            if self.arrived(flow):
                continue
            if not everything and now - flow.end < LATE:
                waiting.append(flow)
            else:
                self.fault("wrong pass", flow, STRANGER)
        self.counts["flows whose server was checked"] += len(self.arrivals) + len(self.strangers) - len(waiting)
        self.arrivals, self.strangers = [], waiting

    # --- verdicts ---

    def fault(self, kind, flow, why):
        self.counts[kind] += 1
        known = [f"policy: {self.rules_text(policy, flow)}" for policy in self.possible(flow.network, flow.start, flow.end)]
        known += [f"{at:.3f} {text}" for at, text in self.history[flow.network, flow.address]]
        for name in self.names(flow):
            known += self.name_lines(flow, name)
        self.faults.append(Fault(kind, flow, why, known))

    def name_lines(self, flow, name):
        """What the name servers said of a name in the minute before a flow, and what follows from it for a virtual address."""
        rows = self.handouts[name, ":" in flow.address]
        address = flow.server or flow.address
        last = [rows[i] for i in self.listed[address].get(name, ()) if rows[i][0] <= flow.end][-1:] if address in self.listed else []
        lines = [f"{at:.3f} handed out for {name} with TTL {ttl}: {', '.join(addresses)}" for at, addresses, ttl in rows
                 if flow.start - KNOWN < at <= flow.end or (at, addresses, ttl) in last]
        if flow.server and self.is_virtual(flow.network) and last:
            lines.append(f"{name}: its server of then, handed out last at {last[0][0]:.3f}, was to be left by {self.left_by(flow, name, last[0]):.3f}")
        return lines + self.port_lines(flow, name)

    def port_lines(self, flow, name):
        """Which ports the name had meanwhile; only the changes."""
        lines, before = [], None
        for earliest, latest, policy in self.policies:
            ports = short(policy.networks[flow.network].ports(name))
            if ports != before and earliest <= flow.end:
                lines.append((earliest, f"{earliest:.3f} {name} {ports}, from {'then on' if latest is None else f'{latest:.3f} at the latest'}"))
            before = ports
        return [line for at, line in lines if at > flow.start - KNOWN] or [line for _, line in lines[-1:]]

    def rules_text(self, policy, flow):
        names = sorted(self.names(flow) | ({flow.name} & set(HOSTS)))
        return (f"opened {policy.address_opened(flow.address)}, closed {policy.address_closed(flow.address)}, audit {policy.audit}, "
                f"keep {policy.keep}; " + ", ".join(f"{name}: {sorted(policy.ports(name))}" for name in names))

    def judge(self, flow):
        """A new flow has ended one way or the other."""
        self.note(flow.network, flow.address, flow.text())
        self.counts["flows opened" if flow.outcome == "open" else "flows refused" if flow.outcome == "refused" else "flows unanswered"] += 1
        self.counts["flows by " + flow.client] += 1
        if flow.outcome == "open":
            self.passed(flow, flow.start, flow.end)
            if self.is_virtual(flow.network):
                self.arrivals.append(flow)
        if self.recreations.overlaps(flow.start, flow.end, NEIGHBOUR if ":" in flow.address and self.is_virtual(flow.network) else 0.2):
            self.counts["flows during a recreation"] += 1
            return
        must, may = self.must_pass(flow, flow.start, flow.end), self.may_pass(flow, flow.start, flow.end)
        self.counts["flows that had to pass" if must else "flows that could go either way" if may else "flows that had to be refused"] += 1
        flow.audited = not must and any(policy.audit for policy in self.possible(flow.network, flow.start, flow.end))
        if flow.outcome == "garbled":
            self.fault("wrong pass", flow, "another flow's or server's content")
        elif flow.outcome == "refused" and must:
            self.fault("false drop", flow, "refused")
        elif flow.outcome == "timeout" and self.must_pass(flow, flow.start, max(flow.start + NEEDED, min(flow.end, flow.start + 8))):
            self.fault("false drop", flow, "no answer to any packet")
        elif flow.outcome == "open" and not may:
            self.suspect(flow)
        elif flow.outcome == "open" and not must and not self.seen_lease(flow):
            self.counts["second chances taken"] += 1

    def seen_lease(self, flow):
        """Is there an answer that an app got which explains why the flow passed?"""
        for policy in self.possible(flow.network, flow.start, flow.end):
            if policy.address_opened(flow.address) or policy.audit:
                return True
        return any(self.reaches(flow.network, flow.address, ((one.sent, one.received, one.ttl) for one in answers), flow.start, flow.end)
                   for answers in self.shown[flow.network, flow.address].values())

    def judge_answer(self, flow, shown):
        """A question got an answer: with addresses (open) or without (refused). shown: how many."""
        self.counts["answers" if flow.outcome == "open" else "answers that deny"] += 1
        policies = self.possible(flow.network, flow.start, flow.end)
        verdicts = {policy.answers(flow.name) for policy in policies}
        if len(verdicts) > 1 or self.recreations.overlaps(flow.start, flow.end, 0.2):
            return
        if verdicts == {True} and flow.outcome != "open":
            self.fault("false drop", flow, "the name is allowed, and the answer shows no address")
        elif verdicts == {False} and flow.outcome == "open":
            self.fault("wrong pass", flow, "the name is not allowed, and the answer shows addresses")
        elif shown > max(policy.addresses_max() for policy in policies):
            self.fault("wrong pass", flow, f"the answer shows {shown} addresses, more than max_addresses or per_name")

    def judge_silence(self, flow):
        """A question, repeated, got no answer, or only SERVFAIL (refused)."""
        if flow.outcome == "refused" and all(policy.small for policy in self.possible(flow.network, flow.start, flow.end)):
            self.counts["questions to a full pool"] += 1
            return
        self.counts["unanswered"] += 1
        if not self.disturbed(flow.start, flow.end):
            self.fault("false drop", flow, "the question had no answer, although nothing was wrong")

    def judge_further(self, flow, since):
        """An exchange in an established flow has ended; `since`: the last one that went well."""
        self.note(flow.network, flow.address, flow.text())
        self.counts["further exchanges"] += 1
        if self.recreations.overlaps(since, flow.end, 0.2):
            return
        if flow.outcome == "garbled":
            self.fault("wrong pass", flow, "another flow's or server's content")
        elif flow.outcome != "open" and self.stays(flow, since - EDGE, flow.end):
            self.fault("false drop", flow, f"an established flow that is still allowed; it last worked at {since:.3f}")
        elif flow.outcome == "open" and self.forbidden(flow, flow.start - EDGE, flow.end):
            self.suspect(flow)
        elif flow.outcome != "open":
            self.counts["established flows ended"] += 1

    def suspect(self, flow):
        self.suspects.append(flow)
        self.on_suspect(flow)

    def settle(self, everything=False):
        """Decide about suspects, when no answer is on its way that could explain them, and all handouts of that time are known."""
        self.settle_arrivals(everything)
        waiting, now = [], time.monotonic()
        for flow in self.suspects:
            if not everything and now - flow.end < LATE:
                waiting.append(flow)
            elif not flow.fresh:
                if self.forbidden(flow, flow.start - EDGE, flow.end):
                    self.fault("wrong pass", flow, "an established flow that a reload has forbidden")
            elif self.may_pass(flow, flow.start, flow.end):
                self.counts["second chances taken"] += 1
            else:
                self.fault("wrong pass", flow, "nothing that this network was shown for a name which is allowed covers this moment")
        self.suspects = waiting


def answers_by_name():
    return collections.defaultdict(lambda: collections.deque(maxlen=ANSWERS))
