# SPDX-License-Identifier: MIT
"""What the soak's networks, names and policies are: random policies as data, as the text that the gateway reads, and what they allow.

What a policy allows is said here from the manual page alone; nothing of the gateway's code is used.
"""

import functools
import ipaddress
from dataclasses import dataclass, field

from lab import DNS, DNS_SECOND

# All ports that the soak uses; the lab's servers listen on them.
PORTS = frozenset({("tcp", 443), ("tcp", 8443), ("tcp", 80), ("udp", 443), ("udp", 9999)})
SPECIFICATIONS = {
    "": PORTS,
    ":443": frozenset({("tcp", 443), ("udp", 443)}),
    ":443/tcp": frozenset({("tcp", 443)}),
    ":443+8443+9999": frozenset({("tcp", 443), ("udp", 443), ("tcp", 8443), ("udp", 9999)}),
    ":8443/tcp": frozenset({("tcp", 8443)}),
    ":80/tcp": frozenset({("tcp", 80)}),
    ":9000-9999/udp": frozenset({("udp", 9999)}),
}
DEFAULTS = {"min_ttl": 60, "grace": 86400, "max_age": 86400, "max_addresses": 64}

# Seconds. Some leases end within seconds, so that a short run sees thousands of ends; others never do. A network with several values for a
# key has one of them at a time.
LIFETIMES = {
    "swift": {"max_age": (8,)},
    "brief": {"min_ttl": (0,), "grace": (4,)},
    "floor": {"min_ttl": (6,), "grace": (3,)},
    "varied": {"max_age": (5, 9, 14)},
    "few": {"max_age": (30,), "max_addresses": (2,)},
    "long": {},
    "lan": {"min_ttl": (30,), "grace": (3600,)},
}
NETWORKS = {name: number for number, name in enumerate(LIFETIMES, 1)}
# With virtual addresses, these have a pool that is too small for all names, so that it is full at times: 16 addresses of a family. The lifetimes
# that they keep then: where `grace` goes, addresses go to other names long before their leases have ended.
SMALL_POOLS = {"brief": ("min_ttl",), "floor": ("min_ttl", "grace")}
SMALL_POOL_SIZE = 16
PER_NAME = 2
PERIODS = 1         # seconds: the shortest two of the gateway's looks at flows
AUDITED = ("lan",)         # these are in audit mode at times
KEEPING = ("few", "long")  # these keep established flows at times
CHANGE = 0.3        # of a network's zones change with a reload


@dataclass(frozen=True)
class Zone:
    """Names that walk through one pool of addresses. Two zones may have the same pool. An alias's names are CNAMEs to names of another zone."""
    name: str
    pool: int
    count: int
    show: int
    ttls: tuple
    period: float
    alias: str = ""

    def moves(self):
        return self.show < self.count

    def hosts(self):
        return [f"{label}.{self.name}" for label in ("a", "b")]


ZONES = (
    Zone("steady.example", 0, 40, 3, (5, 2, 4), 5),
    Zone("fixed.example", 1, 4, 4, (3,), 0),  # never moves
    Zone("zero.example", 2, 300, 2, (0,), 0),
    Zone("one.example", 3, 200, 3, (1, 0, 2), 0),
    Zone("five.example", 4, 400, 4, (5, 4), 3),
    Zone("mixed.example", 5, 250, 2, (0, 1, 2, 3, 4, 5), 1.5),
    Zone("slow.example", 6, 90, 3, (5, 3), 8),
    Zone("shared.example", 4, 400, 4, (2, 5, 0), 3),
    Zone("twin.example", 1, 4, 4, (1,), 0),
    Zone("alias.example", 5, 250, 2, (2,), 0, alias="mixed.example"),
)
HOSTS = {host: zone for zone in ZONES for host in zone.hosts()}


def pool(number, family):
    """First address of a pool."""
    return ipaddress.ip_address(f"45.{34 + number}.0.16" if family == 4 else f"2a0e:1a:{number + 1:x}::10")


def pool_address(zone, family, index):
    return str(pool(zone.pool, family) + index)


def matches(pattern, name):
    if pattern.startswith("**."):
        return name == pattern[3:] or name.endswith(pattern[2:])
    if pattern.startswith("*."):
        return name.endswith(pattern[1:])
    return name == pattern


def chain(name):
    """The name, and the one that it is an alias of."""
    alias = HOSTS[name].alias
    return [name] + ([f"{name.split('.')[0]}.{alias}"] if alias else [])


def ports_of(rules, name):
    return set().union(*(SPECIFICATIONS[specification] for some in rules.values() for pattern, specification in some if matches(pattern, name)))


@dataclass(frozen=True, eq=False)
class NetworkPolicy:
    """One [network] section. Rules are (pattern, specification), by zone. A network that a reload does not change keeps the same object."""
    allow: dict = field(default_factory=dict)
    deny: dict = field(default_factory=dict)
    opened: tuple = ()  # prefixes that address rules allow
    closed: tuple = ()  # and deny
    lifetimes: tuple = ()
    audit: bool = False
    keep: bool = False    # keep_established
    virtual: bool = False
    small: bool = False   # its pool of virtual addresses is
    shared: bool = False  # the rules are written as [rules], which the network uses

    @functools.cache
    def ports(self, name):
        """What a name may be reached on: the ports of all allow rules, less those of all deny rules. An alias on none when a deny rule
        is about the name that it leads to, also for flows to addresses that were known before."""
        if any(self.denies(one) for one in chain(name)[1:]):
            return set()
        return ports_of(self.allow, name) - ports_of(self.deny, name)

    def denies(self, name):
        """Does a deny rule leave nothing of it?"""
        whole = any(matches(pattern, name) and not specification for rules in self.deny.values() for pattern, specification in rules)
        return whole or bool(ports_of(self.allow, name) and not self.ports(name))

    def answers(self, name):
        """May it be asked for?"""
        if any(self.denies(one) for one in chain(name)):
            return False
        return self.audit or bool(self.ports(name))

    def address_opened(self, address):
        return any(ipaddress.ip_address(address) in prefix for prefix in self.opened)

    def address_closed(self, address):
        return any(ipaddress.ip_address(address) in prefix for prefix in self.closed)

    def lifetime(self, key):
        return dict(self.lifetimes).get(key, DEFAULTS[key])

    def lease_seconds(self, ttl):
        """What an answer gives."""
        return min(max(ttl, self.lifetime("min_ttl")) + self.lifetime("grace"), self.lifetime("max_age"))

    def sure_seconds(self, ttl):
        """For how long after an answer its addresses are surely open: in a small pool, they may soon stand for another name."""
        return min(self.lease_seconds(ttl), ttl + self.lifetime("min_ttl") + PERIODS) if self.small else self.lease_seconds(ttl)

    def sure_grace(self):
        """And after the end of a connection."""
        return min(self.lifetime("grace"), self.lifetime("min_ttl") + PERIODS) if self.small else self.lifetime("grace")

    def addresses_max(self):
        """How many an answer may show."""
        return min(self.lifetime("max_addresses"), PER_NAME) if self.virtual else self.lifetime("max_addresses")


def prefix_rule(prefix):
    return f"[{prefix}]" if prefix.version == 6 else str(prefix)


def small_pools(number):
    return f"10.201.{number}.64/28", f"fdc9:{number}::40/124"


def virtual_address(number, family, small, index):
    """One of a pool, which may stand for a name."""
    if small:
        return str(ipaddress.ip_network(small_pools(number)[0 if family == 4 else 1])[index % SMALL_POOL_SIZE])
    return str(ipaddress.ip_address(f"10.201.{number}.128" if family == 4 else f"fdc9:{number}:0:0:8000::") + index)


def network_text(name, number, policy):
    keys = [f"{key} = {value}s" if key != "max_addresses" else f"{key} = {value}" for key, value in policy.lifetimes]
    rules = [f"allow = {pattern}{specification}" for rules in policy.allow.values() for pattern, specification in rules]
    rules += [f"deny = {pattern}{specification}" for rules in policy.deny.values() for pattern, specification in rules]
    rules += [f"allow = {prefix_rule(prefix)}" for prefix in policy.opened]
    rules += [f"deny = {prefix_rule(prefix)}" for prefix in policy.closed]
    head = [f"[rules of-{name}]", *rules, ""] if policy.shared else []
    subnets = [f"subnet = 10.201.{number}.0/24"] + ([f"subnet = fdc9:{number}::/64"] if name != "lan" else [])
    if policy.virtual:
        gateways = [f"gateway = 10.201.{number}.2"] + ([f"gateway = fdc9:{number}::2"] if name != "lan" else [])
        subnets += [*gateways, "addresses = virtual", *(f"pool = {pool}" for pool in small_pools(number) if policy.small)]
    mode = (["mode = audit"] if policy.audit else []) + (["keep_established = yes"] if policy.keep else [])
    body = [f"use = of-{name}"] if policy.shared else rules
    return "\n".join([*head, f"[network {name}]", *subnets, *keys, *mode, *body, ""])


@dataclass(frozen=True)
class Policy:
    number: int
    networks: dict
    ballast: int = 0  # rules for names that nobody asks for

    def text(self):
        parts = [f"[gateway]\nuplink = auto\n\n[upstream]\nserver = {DNS} {DNS_SECOND}\n"]
        if self.ballast:
            parts.append("[rules ballast]\nallow =\n" + "".join(f"\tn{i}.ballast.example:{1 + i % 30}\n" for i in range(self.ballast)))
        for name, policy in self.networks.items():
            text = network_text(name, NETWORKS[name], policy)
            parts.append(text + ("use = ballast\n" if self.ballast and name in ("long", "swift") and not policy.shared else ""))
        return "\n".join(parts)

    def differences(self, before):
        """One line on each network that changed."""
        lines = []
        for name, policy in self.networks.items():
            old = before.networks[name]
            if policy is not old:
                hosts = [f"{host}: {short(old.ports(host))} -> {short(policy.ports(host))}" for host in HOSTS
                         if policy.ports(host) != old.ports(host)]
                lines.append(f"{name}: {', '.join(hosts) or 'the same names'}; audit {policy.audit}, keep {policy.keep}, "
                             f"opened {len(policy.opened)}, closed {len(policy.closed)}, {dict(policy.lifetimes)}")
        return lines


def short(ports):
    return "+".join(f"{port}/{protocol}" for protocol, port in sorted(ports)) or "no"


# --- random policies ---

def random_rules(random, zone):
    """Return: allow rules, deny rules of one zone."""
    kind = random.random()
    specification = random.choice(("", "", "", ":443", ":443+8443+9999"))
    if zone.name == "steady.example":
        return [(f"**.{zone.name}", random.choice(("", ":443+8443+9999")))], []
    if kind < 0.60:
        return [(random.choice(("**.", "*.")) + zone.name, specification)], []
    if kind < 0.72:
        return [(random.choice(zone.hosts()), specification)], []
    if kind < 0.80:
        return [(f"**.{zone.name}", random.choice((":443/tcp", ":8443/tcp", ":80/tcp", ":9000-9999/udp"))), (zone.hosts()[0], ":443")], []
    if kind < 0.88:
        return [], []
    if kind < 0.94:
        return [(f"**.{zone.name}", "")], [(random.choice(zone.hosts()), random.choice(("", "", ":443/tcp")))]
    return [(f"**.{zone.name}", specification)], [(f"**.{zone.name}", "")]


def random_prefixes(random, chance):
    """A sixteenth of some pool, in one family."""
    if random.random() > chance:
        return ()
    zone, family = random.choice(ZONES[1:]), random.choice((4, 6))
    base = int(pool(zone.pool, family)) + 16 * random.randrange(zone.count // 16 + 1)
    return (ipaddress.ip_network((base, 28 if family == 4 else 124)),)


def random_network(random, name, virtual, before=None):
    allow, deny = ({}, {}) if before is None else (dict(before.allow), dict(before.deny))
    for zone in ZONES:
        if before is None or random.random() < CHANGE:
            allow[zone.name], deny[zone.name] = random_rules(random, zone)
    small = virtual and name in SMALL_POOLS
    lifetimes = tuple((key, random.choice(values)) for key, values in LIFETIMES[name].items() if not small or key in SMALL_POOLS[name])
    opened, closed = random_prefixes(random, 0.3), random_prefixes(random, 0.2)
    if virtual:
        opened = closed = ()  # there are no address rules
    return NetworkPolicy(allow, deny, opened, closed, lifetimes, virtual=virtual, small=small,
                         audit=name in AUDITED and random.random() < 0.3, keep=name in KEEPING and random.random() < 0.5,
                         shared=random.random() < 0.5)


def virtual_networks(random, form):
    """Which networks have virtual addresses. Of those with small pools, `mixed` has one in each form."""
    if form == "mixed":
        return {random.choice(list(SMALL_POOLS))} | {name for name in NETWORKS if name not in SMALL_POOLS and random.random() < 0.5}
    return set(NETWORKS) if form == "virtual" else set()


def first_policy(random, virtual=()):
    return Policy(0, {name: random_network(random, name, name in virtual) for name in NETWORKS})


def next_policy(random, before):
    """Some networks change; others stay as they are."""
    networks = {name: random_network(random, name, policy.virtual, policy) if random.random() < 0.6 else policy for name, policy in before.networks.items()}
    return Policy(before.number + 1, networks, ballast=random.choice((0, 0, 0, 2000)))


def refused_text(policy):
    """The same with an error in it."""
    return policy.text() + "\n[network broken]\nsubnet = 10.201.1.0/24\nallow = *.com\n"
