# SPDX-License-Identifier: MIT
"""What the design leans on in the kernel, each fact alone and without our program. A kernel that behaves otherwise is noticed here first."""

import contextlib
import errno
import random
import re
import socket
import struct
import subprocess
import threading
import time

import pytest

from app import talk
from lab import GATEWAY_SYSCTLS, Lab
from namespaces import patience
from netlink import NEWSETELEM, NF_ACCEPT, NF_REPEAT, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, Netfilter, PacketQueue, element_body
from packets import TCP_ACK, TCP_PSH, TCP_RST, IcmpErrors, Sniffer, send_frame, tcp_packet, udp_packet

SERVER4, SERVER6 = "45.12.1.10", "2a0e:12:1::10"
MASQUERADE = 'chain post { type nat hook postrouting priority srcnat; oifname "up0" masquerade; }'


@pytest.fixture(scope="module")
def facts():
    """A lab whose gateway has its addresses, and no rules."""
    with Lab(gateway=False, apps=["web1", "build1"]) as lab:
        lab.stand_in()
        lab.gw.nft("delete table inet stand_in")
        yield lab


@pytest.fixture
def rules(facts):
    """A function that loads the body of a table `t`."""
    def load(body):
        body = re.sub(r"\} (?=\}|chain |set |counter \w+ \{)", "}\n", body)  # nft wants a newline after each block
        facts.gw.nft("table inet t {\n" + body + "\n}")
    facts.gw.nft("table inet t; delete table inet t")
    facts.gw.run(["conntrack", "-F"])
    yield load
    facts.gw.nft("table inet t; delete table inet t")
    facts.gw.sysctl(**GATEWAY_SYSCTLS)


def counter_of(facts, name):
    text = facts.gw.nft_list("counter", "inet", "t", name)
    return int(re.search(r"packets (\d+)", text).group(1))


def set_of(facts, name):
    return facts.gw.nft_list("set", "inet", "t", name)


# --- questions ---

@pytest.mark.parametrize("family", [4, 6])
def test_redirect_picks_another_address_than_the_claimed_one_and_dnat_does_not(facts, rules, family):
    claimed, target = ("10.201.1.1", "192.0.2.53") if family == 4 else ("fdc9:1::1", "2001:db8::53")
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    proto, word = ("ipv4", "ip") if family == 4 else ("ipv6", "ip6")
    if family == 6:  # the newest address is taken: here, one that came after the claimed one
        facts.gw.ip("addr add fdc9:1::77/64 dev web0 nodad\n")
    with facts.gw.socket(kind, socket.SOCK_DGRAM) as server, facts.web1.socket(kind, socket.SOCK_DGRAM) as client:
        server.bind((claimed, 53))
        server.settimeout(0.5)
        rules(f"chain pre {{ type nat hook prerouting priority dstnat; meta nfproto {proto} udp dport 53 redirect; }}")
        client.sendto(b"redirected", (target, 53))
        with pytest.raises(TimeoutError):
            server.recv(100)
        facts.gw.nft("delete table inet t")
        facts.gw.run(["conntrack", "-F"])
        rules(f"chain pre {{ type nat hook prerouting priority dstnat; meta nfproto {proto} udp dport 53 dnat {word} to {claimed}; }}")
        server.settimeout(patience(3))
        client.sendto(b"dnatted", (target, 53))
        data, peer = server.recvfrom(100)
        assert data == b"dnatted"
        server.sendto(b"answer", peer)
        client.settimeout(patience(3))
        assert client.recvfrom(100)[1][0] == target, "the answer comes from the address that was asked"
    if family == 6:
        facts.gw.ip("addr del fdc9:1::77/64 dev web0\n")


def test_a_redirected_question_leaves_a_conntrack_entry_and_an_untracked_one_does_not(facts, rules):
    rules("""chain raw { type filter hook prerouting priority raw; ip daddr 10.201.1.1 udp dport 53 notrack; }
             chain out { type filter hook output priority raw; udp sport 53 notrack; }
             chain pre { type nat hook prerouting priority dstnat; meta nfproto ipv4 udp dport 53 dnat ip to 10.201.1.1; }""")
    with facts.web1.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", ("10.201.1.1", 53))
        client.sendto(b"x", ("192.0.2.53", 53))
    end = time.monotonic() + patience(3)
    while "dst=192.0.2.53" not in (listed := facts.gw.run(["conntrack", "-L", "-p", "udp"]).stdout):
        assert time.monotonic() < end
    assert "src=10.201.1.11 dst=10.201.1.1 " not in listed


# --- speaking with another's voice ---

@pytest.mark.parametrize("where, passes", [(None, True), ("raw", False)])
def test_a_frame_from_the_wrong_interface_matches_anothers_conntrack_entry_unless_dropped_before(facts, rules, where, passes):
    drop = f'chain spoof {{ type filter hook prerouting priority {where}; iifname "web0" ip saddr != 10.201.1.0/24 drop; }}' if where else ""
    rules(f"""{MASQUERADE} {drop}
              chain fwd2 {{ type filter hook forward priority 0; policy drop; ct state established,related accept
                           iifname "build0" ip daddr {SERVER4} accept; }}""")
    with facts.build1.udp(SERVER4, 443) as flow, Sniffer(facts.inet, "up0") as uplink:
        flow.settimeout(patience(3))
        flow.send(b"mine")
        assert flow.recv(100) == b"mine"
        source, port = flow.getsockname()
        send_frame(facts.web1, "eth0", facts.gw.mac("web0"), udp_packet(source, port, SERVER4, 443, b"forged"))
        flow.send(b"after")
        assert uplink.wait(contains=b"after")
        assert bool(uplink.matching(contains=b"forged")) == passes


# --- connections ---

@pytest.mark.parametrize("verdict, survives", [("reject with tcp reset", False), ("drop", True)])
def test_an_out_of_window_segment_is_invalid_and_rejecting_it_ends_the_flow(facts, rules, verdict, survives):
    rules(f"""counter invalid {{ }} {MASQUERADE}
              chain forward2 {{ type filter hook forward priority 0; ct state established,related accept
                               ct state invalid counter name invalid {verdict}; }}""")
    facts.gw.sysctl(net__netfilter__nf_conntrack_tcp_be_liberal=0)
    with Sniffer(facts.web1, "eth0") as wire, facts.web1.connect(SERVER4, 443) as flow:
        flow.settimeout(patience(3))
        source, port = flow.getsockname()
        assert talk(flow, "one") == "one"
        last = wire.wait(source=source, sport=port, flags=TCP_ACK)[-1]
        for distance in (1 << 30, 3 << 29):
            send_frame(facts.web1, "eth0", facts.gw.mac("web0"),
                       tcp_packet(source, port, SERVER4, 443, TCP_ACK | TCP_PSH, last.seq + distance, flow_ack(wire, port), b"x"))
        end = time.monotonic() + patience(3)
        while counter_of(facts, "invalid") == 0:
            assert time.monotonic() < end
        resets = [packet for packet in wire.matching(source=SERVER4, dport=port) if packet.flags & TCP_RST]
        assert bool(resets) != survives


def flow_ack(wire, port):
    return wire.matching(sport=port)[-1].ack


@pytest.mark.parametrize("policy, survives", [("accept", False), ("drop", True)])
def test_after_a_recreation_input_from_the_uplink_must_be_dropped_silently(facts, rules, policy, survives):
    """Conntrack is gone with the old namespace, and the server speaks first."""
    rules(f"""{MASQUERADE}
              chain in {{ type filter hook input priority 0; policy {policy}; iifname "up0" ct state established,related accept
                         iifname != "up0" accept; }}""")
    with facts.web1.connect(SERVER4, 25) as flow:
        flow.settimeout(patience(3))
        received = flow.recv(100)
        facts.gw.run(["conntrack", "-F"])
        outcome = True
        end = time.monotonic() + patience(5)
        try:
            while b"banner 8" not in received and time.monotonic() < end:
                time.sleep(0.7)  # the server speaks into the void meanwhile
                flow.sendall(b"app speaks\n")
                received += flow.recv(4096)
        except OSError:
            outcome = False
        assert outcome == survives


# --- rejects ---

@pytest.mark.parametrize("family, address", [(socket.AF_INET, "45.12.1.66"), (socket.AF_INET6, "2a0e:12:1::66")])
@pytest.mark.parametrize("mask_off, all_arrive", [(True, True), (False, False)])
def test_icmp_rejects_are_all_sent_only_without_the_rate_mask(facts, rules, family, address, mask_off, all_arrive):
    if not mask_off:
        facts.gw.sysctl(net__ipv4__icmp_ratemask=6168, net__ipv6__icmp__ratemask="0-1,3-127")
    rules('chain forward2 { type filter hook forward priority 0; meta l4proto udp reject with icmpx type admin-prohibited; }')
    with IcmpErrors(facts.web1, family) as errors, facts.web1.socket(family, socket.SOCK_DGRAM) as sock:
        for port in range(6000, 6300):
            with contextlib.suppress(OSError):
                sock.sendto(b"x", (address, port))
            with contextlib.suppress(OSError):
                sock.sendto(b"x", (address, port))
        errors.wait(300 if all_arrive else 1, seconds=3)
        time.sleep(0.2)
        distinct = {quoted.dport for quoted in errors.all()}
    assert (len(distinct) == 300) == all_arrive


@pytest.mark.parametrize("rule, arrives", [("", False), ("ct state established,related accept", True)])
def test_our_own_rejects_need_a_rule_in_the_output_chain(facts, rules, rule, arrives):
    rules(f"""chain forward2 {{ type filter hook forward priority 0; reject with icmpx type admin-prohibited; }}
              chain out {{ type filter hook output priority 0; policy drop; {rule}; }}""".replace("; ;", ";").replace("{ ;", "{"))
    assert facts.web1.udp_result("45.12.1.66", 443, seconds=0.5) == ("rejected" if arrives else "timeout")
    assert facts.web1.tcp_result("45.12.1.66", 443, seconds=0.5) in (("refused", "No route to host") if arrives else ("timeout",))


# --- the queue ---

@pytest.fixture
def queue(facts, rules):
    """A queue 77 in the forward hook, and a later base chain that rejects what has mark 5."""
    rules("""chain decide { type filter hook forward priority 0; }
             chain enforce { type filter hook forward priority 10; meta mark 5 meta l4proto tcp reject with tcp reset
                             meta mark 5 reject with icmpx type admin-prohibited; }""")
    with Netfilter(facts.gw) as netfilter:
        netfilter.add_queue_rule("t", "decide", 77)
    yield 77


def answer_queue(queue, stop, verdict, mark):
    """Until told to stop."""
    while not stop.is_set():
        ident = queue.packet(0.05)
        if ident is not None:
            queue.verdict(ident, verdict, mark)


@contextlib.contextmanager
def answered(facts, queue, verdict):
    """All packets get this verdict, and the mark 5."""
    stop = threading.Event()
    with PacketQueue(facts.gw, queue) as user:
        thread = threading.Thread(target=answer_queue, args=(user, stop, verdict, 5))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize("address", ["45.12.1.66", "2a0e:12:1::66"])
def test_a_queued_packet_that_comes_back_with_a_mark_is_rejected_by_a_later_chain(facts, queue, address):
    with answered(facts, queue, NF_ACCEPT):
        assert facts.web1.tcp_result(address, 443) == "refused"
        assert facts.web1.udp_result(address, 443) == "rejected"


@pytest.mark.parametrize("address", ["45.12.1.66", "2a0e:12:1::66"])
def test_a_queued_packet_that_is_to_repeat_its_chain_sees_it_with_its_mark(facts, rules, address):
    rules("""counter again { }
             chain decide { type filter hook forward priority 0; ct state established accept
                            meta mark 5 ct state new counter name again
                            meta mark 5 meta l4proto tcp reject with tcp reset
                            meta mark 5 reject with icmpx type admin-prohibited; }""")
    with Netfilter(facts.gw) as netfilter:
        netfilter.add_queue_rule("t", "decide", 77)
    with answered(facts, 77, NF_REPEAT):
        assert facts.web1.tcp_result(address, 443) == "refused"
        assert facts.web1.udp_result(address, 443) == "rejected"
    assert counter_of(facts, "again") >= 2, "it is new as it was before"


def test_a_queue_without_a_listener_drops(facts, queue):
    with Sniffer(facts.inet, "up0") as uplink:
        assert facts.web1.udp_result("45.12.1.66", 443, seconds=0.5) == "timeout"
        assert facts.web1.tcp_result("45.12.1.66", 443, seconds=0.5) == "timeout"
        assert uplink.matching(destination="45.12.1.66") == []


@pytest.mark.parametrize("change, arrives", [
    ("delete chain inet t other", False),
    ("flush chain inet t other; add rule inet t other counter", True)])
def test_deleting_any_base_chain_drops_queued_packets_and_replacing_rules_does_not(facts, queue, change, arrives):
    facts.gw.nft("table inet t {\nchain other { type filter hook input priority 5; counter; }\n" + MASQUERADE + "\n}")
    with PacketQueue(facts.gw, queue) as user, facts.web1.udp("45.12.1.10", 443) as app, Sniffer(facts.inet, "up0") as uplink:
        app.send(b"waiting in the queue")
        ident = user.packet(patience(3))
        assert ident is not None
        facts.gw.nft("\n".join(change.split("; ")))
        with contextlib.suppress(OSError):
            user.verdict(ident, NF_ACCEPT)
        found = uplink.wait(0.5 if not arrives else 3, contains=b"waiting in the queue")
        assert bool(found) == arrives


# --- sets ---

def test_update_from_the_packet_path_shortens_a_longer_timeout_and_adds_what_is_missing(facts, rules):
    rules("""set leases { type ipv4_addr; flags timeout, dynamic; timeout 60s; elements = { 45.12.1.10 timeout 600s } }
             chain forward2 { type filter hook forward priority 0; meta nfproto ipv4 update @leases { ip daddr }; }""")
    assert re.search(r"45.12.1.10 timeout 10m", set_of(facts, "leases"))
    facts.web1.udp_result("45.12.1.10", seconds=0.1)
    facts.web1.udp_result("45.12.1.11", seconds=0.1)
    listed = set_of(facts, "leases")
    assert not re.search(r"45.12.1.10 .*expires (9m|5[0-9]m|[2-9]m)", listed)
    assert "45.12.1.11" in listed


def test_adding_an_element_again_with_the_same_timeout_does_not_refresh_it(facts, rules):
    rules("set leases { type ipv4_addr; flags timeout; elements = { 45.12.1.10 timeout 30s } }")
    time.sleep(2)
    facts.gw.nft("add element inet t leases { 45.12.1.10 timeout 30s }")
    assert expires(facts) < 29
    facts.gw.nft("add element inet t leases { 45.12.1.10 timeout 30s }\ndelete element inet t leases { 45.12.1.10 }\n"
                 "add element inet t leases { 45.12.1.10 timeout 30s }")
    assert expires(facts) > 28.5, "add, delete, add in one transaction does"


def expires(facts):
    match = re.search(r"expires (?:(\d+)s)?(?:(\d+)ms)?", set_of(facts, "leases"))
    return int(match.group(1) or 0) + int(match.group(2) or 0) / 1000


def test_flushing_a_set_denies_what_was_allowed(facts, rules):
    rules(f"""set leases {{ type ipv4_addr; elements = {{ {SERVER4} }} }} {MASQUERADE}
              chain forward2 {{ type filter hook forward priority 0; ct state established accept; ip daddr @leases accept; reject; }}""")
    assert facts.web1.tcp_result(SERVER4) == "open"
    facts.gw.nft("flush set inet t leases")
    assert facts.web1.tcp_result(SERVER4) != "open"


def test_a_full_dynamic_set_falls_through_to_the_next_rule(facts, rules):
    rules("""set seen { type ipv4_addr; flags timeout, dynamic; timeout 60s; size 4; }
             counter fell { }
             chain forward2 { type filter hook forward priority 0; meta nfproto ipv4 ip daddr 45.38.0.0/16 add @seen { ip daddr } drop
                              ip daddr 45.38.0.0/16 counter name fell drop; }""")
    with facts.web1.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for number in range(10):
            sock.sendto(b"x", (f"45.38.0.{number}", 443))
    end = time.monotonic() + patience(3)
    while counter_of(facts, "fell") < 1:
        assert time.monotonic() < end
    assert len(re.findall(r"45\.38\.0\.\d+ ", set_of(facts, "seen"))) >= 4


def test_a_set_with_ranges_cannot_be_updated_from_the_packet_path(facts, rules):
    with pytest.raises(Exception, match="(?i)not supported|error|invalid"):
        rules("""set wide { type ipv4_addr . inet_service; flags interval, timeout, dynamic; timeout 60s; }
                 chain forward2 { type filter hook forward priority 0; update @wide { ip daddr . th dport }; }""")


def test_overlapping_ranges_abort_the_transaction(facts, rules):
    rules("set wide { type ipv4_addr; flags interval; elements = { 45.12.0.0/16 } }")
    done = subprocess.run(facts.gw.argv(["nft", "-f", "-"]), text=True, capture_output=True, check=False,
                          input="add element inet t wide { 45.50.0.0/16 }\nadd element inet t wide { 45.12.128.0-45.13.0.5 }\n")
    assert done.returncode != 0
    assert "45.50" not in set_of(facts, "wide")


def seconds_of(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def test_an_insert_into_a_hash_set_is_much_cheaper_than_into_a_set_of_ranges(facts, rules):
    """Why name sets are plain hash sets: a ratio, not a time."""
    rules("set plain { type ipv4_addr; flags timeout; timeout 1h; size 65536; }\nset wide { type ipv4_addr . inet_service; flags interval, timeout; timeout 1h; }")
    elements = ", ".join(f"46.{number >> 8}.{number & 255}.0-46.{number >> 8}.{number & 255}.9 . 443" for number in range(5000))
    facts.gw.nft(f"add element inet t wide {{ {elements} }}")
    keys = [socket.inet_aton(f"47.{number >> 8}.{number & 255}.1") for number in range(100)]
    port = struct.pack("!Hxx", 443)
    with Netfilter(facts.gw) as netfilter:
        plain = sorted(seconds_of(lambda key=key: netfilter.add_element("t", "plain", key)) for key in keys)[50]
        wide = sorted(seconds_of(lambda key=key: netfilter.add_element("t", "wide", key + port)) for key in keys)[50]
    assert wide > 4 * plain, (wide, plain)


def test_refilling_concatenated_ranges_is_much_slower_than_plain_ranges(facts, rules):
    """Why address rules are plain interval sets."""
    rules("set wide { type ipv4_addr . inet_service; flags interval; }\nset ranges { type ipv4_addr; flags interval; }")
    starts = [f"46.{number >> 8}.{number & 255}" for number in range(3000)]
    random.Random(1).shuffle(starts)
    ranges = ", ".join(f"{start}.3-{start}.201" for start in starts)
    wide = ", ".join(f"{start}.3-{start}.201 . 443-{444 + number % 1000}" for number, start in enumerate(starts))
    facts.gw.nft(f"add element inet t ranges {{ {ranges} }}\nadd element inet t wide {{ {wide} }}")
    plain_seconds = seconds_of(lambda: facts.gw.nft(f"flush set inet t ranges\nadd element inet t ranges {{ {ranges} }}"))
    wide_seconds = seconds_of(lambda: facts.gw.nft(f"flush set inet t wide\nadd element inet t wide {{ {wide} }}"))
    assert wide_seconds > 2 * plain_seconds, (wide_seconds, plain_seconds)


def test_creating_exclusively_what_is_there_aborts(facts, rules):
    rules("set plain { type ipv4_addr; elements = { 45.12.1.10 } }")
    with Netfilter(facts.gw) as netfilter:
        netfilter.add_element("t", "plain", socket.inet_aton("45.12.1.10"))
    done = subprocess.run(facts.gw.argv(["nft", "create", "element", "inet", "t", "plain", "{ 45.12.1.10 }"]), capture_output=True, check=False)
    assert done.returncode != 0


def test_the_last_acknowledgement_is_the_last_that_is_said_of_a_transaction(facts, rules):
    """Why netlink_transaction() stops reading at it. It waits in the socket when sending returns, and errors come before it."""
    rules("set plain { type ipv4_addr; elements = { 45.12.1.10 } }")
    there, new = (element_body("t", "plain", socket.inet_aton(address)) for address in ("45.12.1.10", "45.12.1.11"))
    with Netfilter(facts.gw) as netfilter:
        first = netfilter.send_batch((NEWSETELEM, NLM_F_CREATE, there), (NEWSETELEM, NLM_F_CREATE | NLM_F_ACK, new))
        assert netfilter.said() == [(first + 1, 0)]
        first = netfilter.send_batch((NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL, there), (NEWSETELEM, NLM_F_CREATE | NLM_F_ACK, new))
        assert netfilter.said()[0] == (first, errno.EEXIST)


# --- other ---

def test_an_apps_mark_does_not_cross_its_interface(facts, rules):
    rules("counter marked { }\nchain forward2 { type filter hook forward priority 0; meta mark 5 counter name marked; }")
    with facts.web1.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, Sniffer(facts.inet, "up0") as uplink:
        sock.setsockopt(socket.SOL_SOCKET, 36, 5)  # SO_MARK
        sock.sendto(b"marked", (SERVER4, 443))
        assert uplink.wait(contains=b"marked")
    assert counter_of(facts, "marked") == 0


def test_apps_learn_a_new_mac_at_once(facts, rules):
    """arp_notify and ndisc_notify: a recreated gateway is found without waiting for neighbour entries to age."""
    rules(MASQUERADE)
    for address in (SERVER4, SERVER6):
        assert facts.web1.udp_result(address) == "open"
    before = facts.gw.mac("web0")
    facts.gw.ip("link set web0 address 02:00:00:00:07:07\n")
    try:
        for address in (SERVER4, SERVER6):
            end = time.monotonic() + patience(3)
            while facts.web1.udp_result(address, seconds=0.2) != "open":
                assert time.monotonic() < end, f"{address} not reached after the MAC changed"
        assert "02:00:00:00:07:07" in facts.web1.run(["ip", "neigh", "show", "10.201.1.1"]).stdout
    finally:
        facts.gw.ip(f"link set web0 address {before.hex(':')}\n")


def test_deleting_a_conntrack_entry_ends_the_flow_where_its_address_is_no_longer_allowed(facts, rules):
    """How a removed rule or the end of audit mode ends flows."""
    rules(f"""set leases {{ type ipv4_addr; elements = {{ {SERVER4} }} }} {MASQUERADE}
              chain forward2 {{ type filter hook forward priority 0; ct state established,related accept; iifname "web0" ip daddr @leases accept; drop; }}""")
    with facts.web1.udp(SERVER4, 443) as flow:
        flow.settimeout(0.5)
        flow.send(b"one")
        assert flow.recv(100) == b"one"
        facts.gw.nft("flush set inet t leases")
        flow.send(b"two")
        assert flow.recv(100) == b"two"
        facts.gw.run(["conntrack", "-D", "-p", "udp", "-d", SERVER4])
        flow.send(b"three")
        with pytest.raises(TimeoutError):
            flow.recv(100)


def test_the_errno_of_a_missing_expression_is_enoent(facts, rules):
    """By which the program recognises a kernel without native queue."""
    rules("chain c { }")
    with Netfilter(facts.gw) as netfilter, pytest.raises(OSError) as caught:
        netfilter.add_rule("t", "c", "nosuchexpression", [])
    assert caught.value.errno == errno.ENOENT
