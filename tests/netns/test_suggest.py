# SPDX-License-Identifier: MIT
"""sluice suggest: from what audit mode saw to a policy under which the same things work, and nothing else does. And advice for one denial."""

import json
import os
import socket

import pytest

from app import rcode_of
from lab import UPSTREAM, VIRTUAL, Lab

OTHERS = """
[network build]
subnet = 10.201.2.0/24

[network lan]
subnet = 10.201.3.0/24
"""
# Keys and rules of the network `web` follow.
ENFORCE = UPSTREAM + OTHERS + """
[network web]
subnet = 10.201.1.0/24
subnet = fdc9:1::/64
"""
AUDIT = ENFORCE + "mode = audit\n"
SHARDS = [f"s{number}.cdn.vendor.example" for number in range(5)]


def ask_control(gateway, **request):
    """What the page and other clients do."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(gateway.control)
        sock.sendall(json.dumps(request).encode() + b"\n")
        with sock.makefile() as file:
            return json.loads(file.readline())


def add_names(names):
    names.add("api.vendor.example", A="45.12.20.1", AAAA="2a0e:12::20")
    names.add("git.vendor.example", A="45.12.20.2")
    names.add("time.ntp.example", A="45.12.20.3")
    names.add("www.shop.example", CNAME="edge.provider.example.")
    names.add("edge.provider.example", A="45.12.20.4")
    names.add("idle.vendor.example", A="45.12.20.5")
    names.add("one.shared.example", A="45.12.20.6")
    names.add("two.shared.example", A="45.12.20.6")
    for number, name in enumerate(SHARDS):
        names.add(name, A=f"45.12.21.{number + 1}")
    names.add("other.vendor.example", A="45.12.22.1")


def use(app, name, *flows):
    """Ask for a name as libraries do, then open flows to what was answered. Return: those that did not work."""
    addresses = app.resolve(name) + app.resolve(name, "AAAA")
    assert addresses, f"{name} has no address"
    results = {}
    for address in addresses:
        for port, protocol in flows:
            results[name, address, port, protocol] = getattr(app, f"{protocol}_result")(address, port)
    return {key: result for key, result in results.items() if result != "open"}


def live(web1, web2):
    """What the apps do all day. Return: what did not work."""
    bad = {}
    bad |= use(web1, "api.vendor.example", (443, "tcp"), (443, "udp"))
    bad |= use(web2, "api.vendor.example", (443, "tcp"))
    bad |= use(web1, "git.vendor.example", (22, "tcp"), (443, "tcp"))
    bad |= use(web1, "time.ntp.example", (123, "udp"))
    bad |= use(web2, "www.shop.example", (443, "tcp"))
    bad |= use(web1, "one.shared.example")
    bad |= use(web1, "two.shared.example", (8443, "tcp"))
    bad |= use(web1, "idle.vendor.example")
    for name in SHARDS:
        bad |= use(web1, name, (443, "tcp"))
    web1.ask("api.vendor.example", "HTTPS")
    assert rcode_of(web1.ask("gone.vendor.example")) == "NXDOMAIN"
    for address, port, protocol in (("45.12.9.9", 5432, "tcp"), ("45.12.9.9", 443, "tcp"), ("2a0e:12:1::66", 443, "udp")):
        if getattr(web2, f"{protocol}_result")(address, port) != "open":
            bad[address, port, protocol] = "not open"
    return bad


def assert_others_are_denied(web1):
    assert rcode_of(web1.ask("other.vendor.example")) == "NXDOMAIN"
    assert web1.tcp_result("45.12.22.1") == "refused"
    assert web1.tcp_result("45.12.9.9", 22) == "refused"
    assert web1.udp_result("45.12.9.9", 443) == "rejected"
    address = web1.resolve("api.vendor.example")[0]
    assert web1.tcp_result(address, 80) == "refused"
    address = web1.resolve("time.ntp.example")[0]
    assert web1.tcp_result(address, 443) == "refused"


def suggest(lab, *options):
    """What is printed. A decision is counted when its container's name is known, which may take a moment."""
    lab.gateway.log.settle()
    done = lab.gateway.sluice("suggest", *options)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


def rules_of(text):
    """The rules of a printed section, without comments."""
    return [line.strip() for line in text.split("allow =\n")[1].splitlines() if line.startswith("    ") and not line.strip().startswith(";")]


@pytest.fixture
def audited():
    """A gateway that has seen what the apps do."""
    with Lab(AUDIT) as lab:
        add_names(lab.names)
        assert not live(lab.web1, lab.web2)
        lab.gateway.log.mark()
        yield lab


def enforce(lab, suggested):
    """As the text says: the section into a file of its own, the `use` line into the network's section."""
    with open(os.path.join(lab.gateway.policy_directory, "suggested.conf"), "w", encoding="ascii") as file:
        file.write(suggested)
    use_line = next(line.removeprefix(";").strip() for line in suggested.splitlines() if line.startswith(";   use = "))
    lab.gateway.set_policy(ENFORCE + use_line + "\n")
    lab.gateway.log.mark()


@pytest.mark.parametrize("options", [(), ("--wildcards",)])
def test_what_is_suggested_allows_what_was_seen_and_nothing_else(audited, options):
    gateway = audited.gateway
    enforce(audited, suggest(audited, "web", *options))
    assert not gateway.log.lines(event="message", level="error")
    assert not live(audited.web1, audited.web2)
    gateway.log.settle()
    assert gateway.log.lines(event="denied") == []
    assert gateway.log.lines(event="audit") == []
    assert_others_are_denied(audited.web1)
    assert gateway.log.wait(event="denied", qname="other.vendor.example")
    again = suggest(audited, "web")
    assert "Nothing to suggest" in again and "[rules" not in again


def test_the_whole_output_is_as_the_manual_shows(audited):
    text = suggest(audited, "web")
    assert text.startswith("; Network web (mode = audit).\n")
    assert ";   use = suggested-web\n" in text and "\n[rules suggested-web]\nallow =\n" in text
    assert set(rules_of(text)) == {
        "api.vendor.example:443", "git.vendor.example:22/tcp+443/tcp", "time.ntp.example:123/udp", "www.shop.example:443/tcp",
        "one.shared.example:8443/tcp", "two.shared.example:8443/tcp", "idle.vendor.example:443", "gone.vendor.example:443",
        "45.12.9.9:443/tcp+5432/tcp", "[2a0e:12:1::66]:443/udp", *(f"{name}:443/tcp" for name in SHARDS)}
    assert "leads through edge.provider.example" in text
    assert "; the next 5 could be one rule: *.cdn.vendor.example:443/tcp\n" in text
    comments = {line.strip(): comment.strip() for comment, line in zip(text.splitlines(), text.splitlines()[1:]) if line.startswith("    ")}
    assert "no flow seen" in comments["idle.vendor.example:443"]
    assert comments["45.12.9.9:443/tcp+5432/tcp"].endswith(": 2 flows")
    wild = suggest(audited, "--wildcards", "web")
    assert "*.cdn.vendor.example:443/tcp" in rules_of(wild)
    assert not set(rules_of(wild)) & {f"{name}:443/tcp" for name in SHARDS}


def test_pasted_into_the_one_file_it_loads_as_well(audited):
    text = suggest(audited)
    audited.gateway.set_policy(ENFORCE + "use = suggested-web\n\n" + text)
    audited.gateway.log.mark()
    assert not live(audited.web1, audited.web2)
    audited.gateway.log.settle()
    assert audited.gateway.log.lines(event="denied") == []
    # What is new gets a section of another name.
    audited.gateway.set_policy(AUDIT + "use = suggested-web\n\n" + text)
    assert not use(audited.web1, "other.vendor.example", (443, "tcp"))
    assert not use(audited.web1, "git.vendor.example", (8443, "tcp"))
    more = suggest(audited, "web")
    assert sorted(rules_of(more)) == ["git.vendor.example:8443/tcp", "other.vendor.example:443/tcp"]
    assert "[rules suggested-web-2]" in more
    audited.gateway.set_policy(ENFORCE + "use = suggested-web suggested-web-2\n\n" + text + "\n" + more)
    assert audited.web1.tcp_result(audited.web1.resolve("other.vendor.example")[0]) == "open"


def test_denied_flows_are_looked_at_when_asked_for():
    with Lab(ENFORCE + "deny = *.tracker.example\n") as lab:
        add_names(lab.names)
        assert rcode_of(lab.web1.ask("api.vendor.example")) == "NXDOMAIN"
        assert rcode_of(lab.web1.ask("a.tracker.example")) == "NXDOMAIN"
        assert lab.web1.tcp_result("45.12.9.9") == "refused"
        assert lab.web1.tcp_result("10.0.0.5", 5432) == "refused"
        assert lab.web1.tcp_result(lab.build1.ipv4, 80) == "refused"
        lab.gateway.log.wait(event="denied", reason="isolated")
        assert "[rules" not in suggest(lab, "web")
        text = suggest(lab, "web", "--denied")
        assert rules_of(text) == ["api.vendor.example:443", "45.12.9.9:443/tcp"]
        for what, why in (("10.0.0.5:5432/tcp", "private (RFC 1918)"), ("a.tracker.example", "deny = *.tracker.example"),
                          (f"{lab.build1.ipv4}:80/tcp", "internal network")):
            assert any(line.startswith(f";   {what} ") and why in line for line in text.splitlines()), text
        everything = suggest(lab)
        assert [line for line in everything.splitlines() if line.startswith("; Network ")] == [
            f"; Network {name} (mode = enforce)." for name in ("build", "lan", "web")]


def test_networks_with_virtual_addresses_go_round_as_well():
    section = VIRTUAL.format(network="web", number=1)
    with Lab(UPSTREAM + OTHERS + section + "mode = audit\n", internal=("web",)) as lab:
        add_names(lab.names)
        assert not use(lab.web1, "api.vendor.example", (443, "tcp"))
        assert not use(lab.web1, "git.vendor.example", (22, "tcp"), (443, "tcp"))
        assert not use(lab.web1, "one.shared.example", (443, "tcp"))
        assert not use(lab.web1, "two.shared.example", (8443, "tcp"))
        text = suggest(lab, "web")
        assert set(rules_of(text)) == {"api.vendor.example:443/tcp", "git.vendor.example:22/tcp+443/tcp", "one.shared.example:443/tcp",
                                       "two.shared.example:8443/tcp"}
        lab.gateway.set_policy(UPSTREAM + OTHERS + section + "use = suggested-web\n\n" + text)
        lab.gateway.log.mark()
        assert not use(lab.web1, "api.vendor.example", (443, "tcp"))
        assert not use(lab.web1, "git.vendor.example", (22, "tcp"), (443, "tcp"))
        assert not use(lab.web1, "one.shared.example", (443, "tcp"))
        lab.gateway.log.settle()
        assert lab.gateway.log.lines(event="denied") == []
        assert rcode_of(lab.web1.ask("other.vendor.example")) == "NXDOMAIN"


def test_an_address_that_another_network_was_shown_is_an_address_here(audited):
    """The name is only what build knows it by: a rule for it would open nothing for web."""
    gateway = audited.gateway
    gateway.set_policy(AUDIT.replace("[network build]\n", "[network build]\nmode = audit\n"))
    assert not use(audited.build1, "other.vendor.example", (443, "tcp"))
    assert audited.web1.tcp_result("45.12.22.1") == "open"
    text = suggest(audited, "web")
    assert "45.12.22.1:443/tcp" in rules_of(text) and "other.vendor.example:443/tcp" not in rules_of(text)
    assert "another network knows it as other.vendor.example" in text
    enforce(audited, text)
    assert audited.web1.tcp_result("45.12.22.1") == "open"


def test_json_and_the_protocol_say_the_same(audited):
    gateway = audited.gateway
    printed = json.loads(suggest(audited, "--json", "web"))
    answered = ask_control(gateway, command="suggest", network="web")
    assert printed == answered and printed["ok"]
    network, = printed["networks"]
    assert (network["network"], network["mode"], network["section"]) == ("web", "audit", "suggested-web")
    rule = next(rule for rule in network["rules"] if rule["name"] == "www.shop.example")
    assert rule["rule"] == "www.shop.example:443/tcp" and rule["ports"] == "443/tcp" and rule["address"] is None
    assert rule["flows"] == 1 and rule["questions"] >= 1 and rule["chain"] == ["edge.provider.example"]
    wildcard, = network["wildcards"]
    assert wildcard["rule"] == "*.cdn.vendor.example:443/tcp" and sorted(wildcard["names"]) == SHARDS
    assert [entry["network"] for entry in ask_control(gateway, command="suggest")["networks"]] == ["build", "lan", "web"]


@pytest.mark.parametrize("arguments, status, says", [(("web", "build"), 2, "usage"), (("--nope",), 2, "usage"), (("nope",), 1, "no such network")])
def test_wrong_use_says_so(lab, arguments, status, says):
    done = lab.gateway.sluice("suggest", *arguments)
    assert done.returncode == status and says in done.stderr and not done.stdout


def test_advice_for_a_denial_is_what_opens_it():
    with Lab(ENFORCE + "deny = *.tracker.example\n") as lab:
        add_names(lab.names)
        lab.web1.ask("api.vendor.example")
        lab.web1.tcp_result("45.12.9.9", 5432)
        lab.web1.ask("a.tracker.example")
        lines = []
        for wanted in ({"qname": "api.vendor.example"}, {"dst": "45.12.9.9"}):
            denied = lab.gateway.log.wait(event="denied", **wanted)[0]
            advice = ask_control(lab.gateway, command="advise", network="web", name=denied.get("qname"), address=denied.get("dst"),
                                 port=int(denied["port"]) if "port" in denied else None, proto=denied.get("proto"), reason=denied["reason"])
            assert advice["ok"] and advice["section"] == "network web" and advice["opens"].startswith("web may reach ")
            lines.append(advice["line"])
        assert lines == ["allow = api.vendor.example:443", "allow = 45.12.9.9:5432/tcp"]
        advice = ask_control(lab.gateway, command="advise", network="web", name="a.tracker.example", reason="denied-by-rule")
        assert advice["change"].startswith("deny = *.tracker.example (") and advice["line"] == "allow = a.tracker.example:443"
        assert not ask_control(lab.gateway, command="advise", network="web", name="database", reason="local-name")["ok"]
        lab.gateway.set_policy(ENFORCE + "\n".join(lines) + "\n")
        assert lab.web1.tcp_result(lab.web1.resolve("api.vendor.example")[0]) == "open"
        assert lab.web1.tcp_result("45.12.9.9", 5432) == "open"
