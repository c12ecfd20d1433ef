# SPDX-License-Identifier: MIT
"""Data in names below an allowed wildcard: `wildcard_octets`, `wildcard_labels` and `wildcard_names`."""

import base64
import hashlib
import re
import secrets

import pytest
from app import data_of, extended_errors, rcode_of
from lab import POLICY, UPSTREAM
from namespaces import wait_until


def limited(keys, rules="allow = **.https.example:443 shared.example:443\n"):
    """A policy in which `web` has these keys; `build` has none."""
    return UPSTREAM + f"[network web]\nsubnet = 10.201.1.0/24\nsubnet = fdc9:1::/64\n{keys}{rules}" + POLICY[POLICY.index("\n[network build]"):]


def chunks(data, suffix, size=60):
    """A file as names, as tunnels do it."""
    text = base64.b32encode(data).decode().rstrip("=").lower()
    return [f"{number}.{text[at:at + size]}.{suffix}" for number, at in enumerate(range(0, len(text), size))]


def octets_out(names, since):
    """How many octets of names in front of https.example have left."""
    return sum(len(re.sub(rb".\x05https\x07example\0.*", b"", query["wire"][12:].lower(), flags=re.DOTALL)) for query in names.queries(since))


def test_without_limits_a_wildcard_is_a_channel(names, web1):
    """What docs/security.md says is open."""
    before = names.count()
    web1.resolve_many(chunks(secrets.token_bytes(3000), "https.example"))
    assert octets_out(names, before) > 4000


def test_a_file_in_names_gets_stuck(names, web1, policy, log):
    """The bucket is full at the beginning, and then lets one name out each six seconds."""
    policy(limited("wildcard_names = 10\n"))
    before = names.count()
    answers = web1.resolve_many(chunks(secrets.token_bytes(3000), "https.example"))
    left = names.count() - before
    assert 10 <= left <= 12
    assert [rcode_of(answer) for answer in answers.values()].count("SERVFAIL") == len(answers) - left
    assert octets_out(names, before) < 1000
    line = log.wait(event="denied", reason="too-many-names")[0]
    assert (line["action"], line["network"]) == ("servfail", "web") and line["qname"].endswith(".https.example") and "sluice.conf:" in line["rule"]


@pytest.mark.parametrize("how", ["tcp", "types", "letters", "both families", "servers", "another app"])
def test_no_detour_around_the_rate(names, lab, policy, how):
    """What counts is the network's question, whichever way it comes."""
    policy(limited("wildcard_names = 5\n"))
    before, app = names.count(), lab.web1
    for number in range(40):
        if how == "types":
            app.ask("one.https.example", f"TYPE{65300 + number}", seconds=6)
        elif how == "letters":
            app.ask(f"N{number}.HTTPS.eXaMpLe")
        elif how == "both families":
            app.ask(f"n{number}.https.example", server=("192.0.2.53", "2001:db8::53", "10.201.1.1", "fdc9:1::1")[number % 4])
        else:
            app.ask(f"n{number}.https.example", tcp=how == "tcp", server=f"192.0.2.{number + 1}" if how == "servers" else None)
        if how == "another app":
            app = lab.web2 if app is lab.web1 else lab.web1
    assert 5 <= names.count() - before <= 8


def test_what_is_known_costs_nothing(names, web1, policy):
    """TTL 0, every type of an address, NXDOMAIN, and after the limit is reached: an app that works with a few names never meets it."""
    policy(limited("wildcard_names = 5\n"))
    used = [names.new("https.example", ttl=0, ipv6=True) for _ in range(4)]
    for _ in range(30):
        for name, address, address6 in used:
            assert web1.resolve(name) == [address] and web1.resolve(name, "AAAA") == [address6]
            assert rcode_of(web1.ask(name, "HTTPS")) == "NOERROR"
    web1.resolve_many(chunks(secrets.token_bytes(500), "https.example"))
    assert rcode_of(web1.ask("yet-another.https.example")) == "SERVFAIL"
    for name, address, _ in used:
        assert web1.resolve(name) == [address] and web1.tcp_result(address) == "open"


def test_others_are_not_limited(names, lab, policy):
    """Names that a rule has itself, other wildcards, other networks."""
    policy(limited("wildcard_names = 5\n", "allow = **.https.example:443 *.fresh.example:443 shared.example:443\n"))
    lab.web1.resolve_many(chunks(secrets.token_bytes(500), "https.example"))
    assert lab.web1.resolve("shared.example") == ["45.12.1.10"]
    assert lab.web1.resolve("n61000.fresh.example") != []
    pairs = [names.new("build.example") for _ in range(30)]
    answers = lab.build1.resolve_many([name for name, _ in pairs])
    assert all(data_of(answers[name], "A") == [address] for name, address in pairs)


def test_it_ends_by_itself(names, web1, policy):
    policy(limited("wildcard_names = 60\n"))
    web1.resolve_many([f"w{number}.https.example" for number in range(80)])
    name, address = names.new("https.example")
    wait_until(lambda: web1.resolve(name) == [address], "the limit never ends")


def test_a_reload_does_not_fill_the_bucket(names, web1, policy):
    """An app may know when somebody edits the policy."""
    policy(limited("wildcard_names = 5\n"))
    web1.resolve_many([f"a{number}.https.example" for number in range(20)])
    policy(limited("wildcard_names = 5\ngrace = 2h\n"))
    before = names.count()
    web1.resolve_many([f"b{number}.https.example" for number in range(20)])
    assert names.count() - before <= 2


def test_a_long_name_does_not_leave(names, web1, policy, log):
    policy(limited("wildcard_octets = 20\nwildcard_labels = 3\n"))
    before = names.count()
    for name in ("a" * 21, "a" * 10 + "." + "b" * 11, "a.b.c.d", "leak." + "x" * 60 + "." + "y" * 60):
        answer = web1.ask(name + ".https.example")
        assert rcode_of(answer) == "NXDOMAIN" and extended_errors(answer) == [15], name
    assert names.count() == before
    lines = log.wait(event="denied", reason="name-too-long", count=4)
    assert {line["action"] for line in lines} == {"nxdomain"}
    for name in ("a" * 20, "a.b.c", ""):
        web1.ask((name + ".https.example").lstrip("."))
    assert names.count() == before + 3


HONEST = [
    "my-company-backup-eu-central-1-production-2026.s3.dualstack", "d111111abcdef8", "rr3---sn-4g5e6nsz", "cluster0-shard-00-00-pri.a1b2c",
    hashlib.sha256(b"cdn").hexdigest()[:63], hashlib.sha256(b"cdn").hexdigest()[:32] + "." + hashlib.sha256(b"cdn").hexdigest()[32:],
    "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi.ipfs", "internal-k8s-ingress-abcdef0123-1234567890.eu-central-1", "_8f3c2b.a1b2c3d4e5.acm-validations",
    "o447951.ingest.de", "selector1-example-com._domainkey", "xn--" + "a" * 50 + ".xn--" + "b" * 50,
]


@pytest.mark.parametrize("keys", ["", "wildcard_octets = 120\nwildcard_labels = 6\nwildcard_names = 60\n"], ids=["default", "as docs/security.md advises"])
def test_names_as_clouds_make_them_pass(names, web1, policy, keys):
    policy(limited(keys))
    for number, name in enumerate(HONEST):
        names.add(name + ".https.example", A=f"45.31.220.{number + 1}")
        assert web1.resolve(name + ".https.example") == [f"45.31.220.{number + 1}"]


def test_audit_mode_limits_nothing(names, web1, policy):
    """Every name may be asked for there."""
    policy(limited("mode = audit\nwildcard_octets = 5\nwildcard_names = 2\n"))
    pairs = [names.new("longer.https.example") for _ in range(10)]
    assert all(web1.resolve(name) == [address] for name, address in pairs)


def test_what_is_limited_is_shown(lab, web1, policy):
    """`check`, `explain`, metrics."""
    policy(limited("wildcard_octets = 20\nwildcard_names = 5\n"))
    sluice, where = lab.gateway.sluice, lab.gateway.policy_directory
    assert "wildcards: stand for at most 20 octets; at most 5 new names a minute below each" in sluice("check", where).stdout
    done = sluice("explain", "-c", where, "web", "x" * 21 + ".https.example:443")
    assert done.returncode == 1 and "reason name-too-long" in done.stdout and "it stands for 21 octets in 1 label here; at most 20" in done.stdout

    def limited_so_far():
        return int(float(re.search(r'sluice_dns_failed_total\{cause="limited"\} (\S+)', lab.gw.run(["curl", "-s", "http://127.0.0.1:9780/metrics"]).stdout).group(1)))
    before = limited_so_far()
    answers = web1.resolve_many([f"m{number}.https.example" for number in range(50)])
    assert limited_so_far() - before == [rcode_of(answer) for answer in answers.values()].count("SERVFAIL") > 0
