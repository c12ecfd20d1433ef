# SPDX-License-Identifier: MIT
"""What each network has been shown, and what follows from it: which flows must pass and which may not.

The model knows what the apps' answers said, when they asked, and which policy was in force; nothing of the gateway's state. Where something
happens at an unknown moment between two known ones (an answer is granted between question and answer, a policy taken over between the
writing of the file and the end of `sluice reload`) both outcomes are right. All times are time.monotonic().
"""

import collections
import threading
import time
from dataclasses import dataclass, field

from namespaces import SLOW

# A flow of a name that the policy of a reload forbids: is it ended? Until the gateway does that, such flows may go on.
ENDS_FORBIDDEN_FLOWS = False
# A new flow to an address whose lease has ended, but which the zone still lists: may it pass?
SECOND_CHANCE = False

EDGE = 3 if SLOW else 1.0  # seconds at the ends of a lease in which both outcomes are right: clocks, scheduling, a TTL's fractions
NEEDED = 3.5         # a new flow without an answer counts as dropped when all its packets of so many seconds should have passed (SYN: 0, 1, 3 s)
ANSWER_LIFE = 10.0   # after so long no answer to a question comes any more
HOLD = 2.0           # the longest time that a second chance holds a packet, and a look-up's delay
STALE_LIFE = 30      # TTL of an answer that serves while no upstream has a better one
RECENT = 400         # answers per network that probes choose from
HISTORY = 40         # entries per address


@dataclass(frozen=True)
class Answer:
    """What one answer says about one address."""
    sent: float      # the question was
    received: float
    ttl: int
    least: float     # seconds that its lease lasts, by the policies that can have been in force
    most: float


@dataclass
class Transmission:
    """One packet with a question."""
    sent: float
    received: float = None  # None: no answer has come (yet)
    lost: bool = False      # nor will it


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

    def text(self):
        what = "flow" if self.fresh else "further packet"
        return (f"{self.client} on {self.app}: {what} for {self.name} to {self.address} port {self.port}/{self.protocol}, begun {self.start:.3f}, "
                f"{self.outcome} at {self.end:.3f} {self.detail}").rstrip()


class Windows:
    """Stretches of time: (start, end), end None while it lasts."""

    def __init__(self):
        self.list = []

    def begin(self, at):
        self.list.append([at, None])

    def finish(self, at):
        self.list[-1][1] = at

    def overlaps(self, start, end, margin=0.0):
        return any(one[0] - margin <= end and (one[1] is None or one[1] + margin >= start) for one in reversed(self.list))


@dataclass
class Fault:
    kind: str      # false drop, wrong pass
    flow: Flow
    why: str
    at: float = field(default_factory=time.monotonic)


class Model:
    def __init__(self, policy):
        self.policies = [(0.0, 0.0, policy)]  # (earliest start, latest start, policy)
        self.shown = collections.defaultdict(lambda: collections.defaultdict(list))  # (network, address) -> name -> [Answer]
        self.recent = collections.defaultdict(lambda: collections.deque(maxlen=RECENT))  # network -> [(name, address, Answer)]
        self.asked = collections.defaultdict(list)  # (network, name) -> [Transmission]
        self.handouts = collections.defaultdict(lambda: collections.defaultdict(list))  # address -> name -> [(time, TTL)]
        self.history = collections.defaultdict(lambda: collections.deque(maxlen=HISTORY))  # (network, address) -> [(time, text)]
        self.events = []  # (time, text)
        self.recreations, self.outages, self.upstream_failures = Windows(), Windows(), Windows()
        self.suspects = []  # flows that passed though they should not have, unless something shows up that allows them
        self.faults = []
        self.counts = collections.Counter()
        self.lock = threading.Lock()

    # --- what happens ---

    def event(self, text):
        self.events.append((time.monotonic(), text))

    def policy_begins(self, policy):
        """From now on it may be in force."""
        self.policies.append((time.monotonic(), None, policy))

    def policy_rules(self):
        """From now on it is."""
        start, _, policy = self.policies[-1]
        self.policies[-1] = (start, time.monotonic(), policy)

    def policy_failed(self):
        """It is not, and never was. It can have been in force for a moment if the gateway undid it."""
        self.policies.pop()

    def possible(self, network, start, end):
        """The network's policies that can have been in force at some moment from start to end."""
        found = []
        with self.lock:
            policies = list(self.policies[-60:])
        for i, (earliest, _, policy) in enumerate(policies):
            replaced = policies[i + 1][1] if i + 1 < len(policies) else None
            if earliest <= end and (replaced is None or replaced >= start):
                one = policy.networks[network]
                if one not in found:
                    found.append(one)
        return found

    def answered(self, network, name, sent, received, records):
        """An app has got an answer. records: (address, TTL)."""
        policies = self.possible(network, sent, received)
        for address, ttl in records:
            seconds = [policy.lease_seconds(ttl) for policy in policies]
            answer = Answer(sent, received, ttl, min(seconds), max(seconds))
            self.shown[network, address][name].append(answer)
            self.recent[network].append((name, address, answer))
            self.note(network, address, f"shown for {name} with TTL {ttl}; asked {received - sent:.3f} s before; lease {min(seconds)} s")

    def note(self, network, address, text):
        self.history[network, address].append((time.monotonic(), text))

    # --- what follows ---

    def must_pass(self, flow, start, end):
        """Is a new flow's packet allowed at every moment from start to end, and does the app know the address?"""
        policies = self.possible(flow.network, start, end)
        port = (flow.protocol, flow.port)
        if any(policy.address_closed(flow.address) for policy in policies):
            return False
        if all(policy.address_opened(flow.address) for policy in policies):
            return True
        for name, answers in self.shown[flow.network, flow.address].items():
            if all(port in policy.ports(name) or policy.address_opened(flow.address) for policy in policies) and lasts(answers, start, end):
                return True
        return False

    def may_pass(self, flow, start, end):
        """Can a new flow's packet have been allowed at some moment from start to end?"""
        policies = self.possible(flow.network, start, end)
        for policy in policies:
            if policy.address_closed(flow.address):
                continue
            if policy.address_opened(flow.address) or policy.audit or self.leased_by(policy, flow, start, end):
                return True
        return False

    def leased_by(self, policy, flow, start, end):
        """A name that the policy allows, whose lease of the address can have been alive. Return: the name or None."""
        port = (flow.protocol, flow.port)
        for name, answers in self.shown[flow.network, flow.address].items():
            if port in policy.ports(name) and any(one.sent <= end and one.received + one.most + EDGE >= start for one in answers):
                return name
        for name in self.names_of(flow.address):
            if port in policy.ports(name) and self.unseen_lease(flow.network, name, flow.address, start, end):
                return name
        return None

    def names_of(self, address):
        """Those whose zone has handed the address out."""
        return list(self.handouts[address]) if address in self.handouts else []

    def unseen_lease(self, network, name, address, start, end):
        """Can the address have been granted by an answer that was lost on its way to the app?"""
        for one in self.asked[network, name]:
            if one.received is not None or one.sent > end:
                continue
            for at, ttl in self.handouts[address][name]:
                granted_at_most = one.sent + ANSWER_LIFE  # also an answer from long ago: it can serve stale
                if at <= granted_at_most and granted_at_most + self.longest(network, ttl, at, end) + EDGE >= start:
                    return True
        return False

    def longest(self, network, ttl, start, end):
        """The longest lease that an answer can have made from start to end, by any policy that the network has had."""
        if self.upstream_failures.overlaps(start, end, EDGE):
            ttl = max(ttl, STALE_LIFE)
        return max(policy.networks[network].lease_seconds(ttl) for _, _, policy in self.policies)

    def second_chance(self, flow):
        """Has the name been leased here once, and does its zone still list the address (or did so when it got a second chance before)?"""
        policies = self.possible(flow.network, flow.start, flow.end)
        for name in self.names_of(flow.address):
            if not self.asked[flow.network, name] or not any((flow.protocol, flow.port) in policy.ports(name) for policy in policies):
                continue
            for at, ttl in self.handouts[flow.address][name]:
                if at <= flow.end and at + ttl + HOLD + self.longest(flow.network, ttl, at, flow.end) + EDGE >= flow.start:
                    return True
        return False

    def stays_allowed(self, flow, start, end):
        """Is there a name for this address, or an address rule, that all policies from start to end allow? The lease may have ended."""
        policies = self.possible(flow.network, start, end)
        port = (flow.protocol, flow.port)
        if any(policy.address_closed(flow.address) for policy in policies):
            return False
        if all(policy.address_opened(flow.address) for policy in policies):
            return True
        return any(all(port in policy.ports(name) for policy in policies) for name in self.shown[flow.network, flow.address])

    def forbidden(self, flow, start, end):
        """Does no policy from start to end allow the flow by any name that its address ever had?"""
        port = (flow.protocol, flow.port)
        names = set(self.shown[flow.network, flow.address]) | set(self.names_of(flow.address))
        for policy in self.possible(flow.network, start, end):
            if policy.address_closed(flow.address):
                continue
            if policy.address_opened(flow.address) or policy.audit or any(port in policy.ports(name) for name in names):
                return False
        return True

    # --- verdicts ---

    def fault(self, kind, flow, why):
        self.counts[kind] += 1
        self.faults.append(Fault(kind, flow, why))
        self.note(flow.network, flow.address, f"{kind.upper()}: {why}")

    def judge(self, flow):
        """A new flow has ended one way or the other."""
        self.note(flow.network, flow.address, flow.text())
        self.counts["flows opened" if flow.outcome == "open" else "flows refused" if flow.outcome == "refused" else "flows unanswered"] += 1
        self.counts["flows by " + flow.client] += 1
        if self.recreations.overlaps(flow.start, flow.end, 0.2):
            self.counts["flows during a recreation"] += 1
            return
        must, may = self.must_pass(flow, flow.start, flow.end), self.may_pass(flow, flow.start, flow.end)
        self.counts["flows that had to pass" if must else "flows that could go either way" if may else "flows that had to be refused"] += 1
        if flow.outcome == "garbled":
            self.fault("wrong pass", flow, "another flow's or server's content")
        elif flow.outcome == "refused" and must:
            self.fault("false drop", flow, "refused")
        elif flow.outcome == "timeout" and self.must_pass(flow, flow.start, max(flow.start + NEEDED, min(flow.end, flow.start + 8))):
            self.fault("false drop", flow, "no answer to any packet")
        elif flow.outcome == "open" and not may:
            self.suspects.append(flow)

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
        elif shown > max(policy.lifetime("max_addresses") for policy in policies):
            self.fault("wrong pass", flow, f"the answer shows {shown} addresses, more than max_addresses")

    def judge_silence(self, flow):
        """A question, repeated, got no answer, or only SERVFAIL."""
        self.counts["unanswered"] += 1
        if any(windows.overlaps(flow.start, flow.end, 2) for windows in (self.recreations, self.outages, self.upstream_failures)):
            return
        self.fault("false drop", flow, "the question had no answer, although nothing was wrong")

    def judge_further(self, flow, since):
        """An exchange in an established flow has ended; `since`: the last one that went well."""
        self.note(flow.network, flow.address, flow.text())
        self.counts["further exchanges"] += 1
        if self.recreations.overlaps(since, flow.end, 0.2):
            return
        if flow.outcome == "garbled":
            self.fault("wrong pass", flow, "another flow's or server's content")
        elif flow.outcome != "open" and self.stays_allowed(flow, since - EDGE, flow.end):
            self.fault("false drop", flow, f"an established flow that is still allowed; it last worked at {since:.3f}")
        elif flow.outcome == "open" and self.forbidden(flow, flow.start - EDGE, flow.end):
            self.counts["forbidden flows that went on"] += 1
            if ENDS_FORBIDDEN_FLOWS:
                self.fault("wrong pass", flow, "an established flow that a reload has forbidden")

    def settle(self, handouts, everything=False):
        """Decide about suspects, when no answer is on its way that could explain them. handouts: Names.handouts()."""
        self.counts["handouts"] += len(handouts)
        for at, name, addresses, ttl in handouts:
            for address in addresses:
                self.handouts[address][name].append((at, ttl))
        waiting, now = [], time.monotonic()
        for flow in self.suspects:
            if not everything and now - flow.end < ANSWER_LIFE + 2:
                waiting.append(flow)
            elif self.may_pass(flow, flow.start, flow.end):
                self.counts["explained by a lost answer"] += 1
            elif SECOND_CHANCE and self.second_chance(flow):
                self.counts["second chances taken"] += 1
            else:
                self.fault("wrong pass", flow, "no answer that this network got for a name which is allowed covers this moment")
        self.suspects = waiting


def lasts(answers, start, end):
    """Does one of the answers, which the app had at the start, cover all of start to end?"""
    return any(one.received <= start and one.sent + one.least - EDGE / 2 >= end for one in reversed(answers))
