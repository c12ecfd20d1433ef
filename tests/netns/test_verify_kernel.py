# SPDX-License-Identifier: MIT
"""The kernel's part of `verify`, without the program's own: what passes while nobody reads, and what becomes of each verdict."""

import contextlib
import os
import re
import select
import socket
import struct
import subprocess

import pytest

from app import family_of, talk
from gateway import UID
from lab import GATEWAY_UPLINK4, GATEWAY_UPLINK6, POLICY, UPSTREAM, VIRTUAL, Lab
from namespaces import patience, wait_until
from netlink import NF_DROP, NF_REPEAT, NFQA_CFG_F_GSO, PacketQueue
from packets import TCP_RST, TCP_SYN, Sniffer, parse_ip, send_frame, tcp_packet

VERIFY = "verify = enforce\nverify_ports = 443 444/tcp\n"
ROUTED = POLICY.replace("[network web]\n", "[network web]\n" + VERIFY)
VIRTUAL_VERIFY = UPSTREAM + VIRTUAL.format(network="web", number=1) + VERIFY + "allow = **.any.example\n" + POLICY[POLICY.index("[network build]"):]
QUEUE, QUEUE_AGAIN, QUEUE_BEGUN = 54, 55, 56
DENY, VERIFIED, UNREAD, SAID = 0x51D00001, 0x51D00007, 0x51D00010, 0x51D00014
TIMESTAMP = b"\x08\x0a"  # kind and size of the option
FAST_OPEN, MSG_FASTOPEN, UDP_SEGMENT, SOL_UDP = 34, 0x20000000, 103, 17
LONG, SHORT = b"\xc0" + b"L" * 1199, b"\x40" + b"S" * 1199
families = pytest.mark.parametrize("family", ["ipv4", "ipv6"])


@pytest.fixture(scope="module", params=["routed", "virtual"])
def still_lab(request):
    """The worker is gone after it has given names out, and none comes back. Nobody has the queues."""
    virtual = request.param == "virtual"
    with Lab(policy=VIRTUAL_VERIFY if virtual else ROUTED, internal=("web",) if virtual else ()) as lab:
        name, *reals = lab.names.new("any.example", ttl=600, ipv6=True)
        lab.real = dict(zip(("ipv4", "ipv6"), reals))
        lab.to = {"ipv4": lab.web1.resolve(name)[0], "ipv6": lab.web1.resolve(name, "AAAA")[0]}
        assert (lab.to != lab.real) == virtual
        name, lab.other = lab.names.new("build.example", ttl=600)
        assert lab.build1.resolve(name) == [lab.other]
        lab.gateway.kill_worker(hold=True)
        yield lab
        lab.gateway.release()


@pytest.fixture
def lab(still_lab):
    still_lab.gw.run(["conntrack", "-F"])
    return still_lab


@contextlib.contextmanager
def reader(lab, number=QUEUE, flags=NFQA_CFG_F_GSO):
    with PacketQueue(lab.gw, number, 65531, flags) as queue:
        yield queue


def take(queue, seconds=3):
    """The next packet: its id, and what it is."""
    found = queue.receive(patience(seconds))
    assert found, "nothing has come to the queue"
    return found[0], parse_ip(found[1])


def nothing_comes(queue):
    return queue.receive(0.3) is None


def begin(lab, family, port=443):
    """A connection that begins; it ends when the queue lets it."""
    sock = lab.web1.socket(family_of(lab.to[family]))
    sock.setblocking(False)
    sock.connect_ex((lab.to[family], port))
    return sock


def let(queue, mark, flags=None):
    """A verdict for the next packet. Return: the packet."""
    ident, packet = take(queue)
    assert flags is None or packet.flags & flags
    queue.verdict(ident, NF_REPEAT if mark else NF_DROP, mark)
    return packet


@contextlib.contextmanager
def connected(lab, family):
    """A connection whose handshake has passed, and the queue of its further packets."""
    with reader(lab) as first, reader(lab, QUEUE_BEGUN) as queue, begin(lab, family) as sock:
        let(first, UNREAD, TCP_SYN)
        finish_handshake(queue, sock)
        yield sock, queue


def finish_handshake(queue, sock):
    let(queue, UNREAD, TCP_SYN)
    let(queue, UNREAD)
    sock.settimeout(patience(3))


def let_all(queue, mark):
    """Those that have come by now."""
    while found := queue.receive(0.2):
        queue.verdict(found[0], NF_REPEAT, mark)


def sock_is_readable(sock):
    return bool(select.select([sock], [], [], 0.05)[0])


def allowed(lab, network="web"):
    return int(re.search(r"packets (\d+)", lab.gw.nft_list("counter", "inet", "sluice", f"allowed_{network}")).group(1))


def marks(lab, protocol):
    listed = lab.gw.run(["conntrack", "-L", "-p", protocol]).stdout
    return {int(mark) for mark in re.findall(r"mark=(\d+)", listed)} - {0}


# --- nobody reads ---

@families
def test_nothing_passes_unread_and_others_go_on(lab, family):
    with Sniffer(lab.inet, "up0") as uplink:
        with begin(lab, family), lab.web1.udp(lab.to[family], 443) as flow:
            flow.send(b"unread")
            assert lab.build1.hello(lab.other).startswith("from ")
            with lab.build1.udp(lab.other, 443) as other:
                other.settimeout(patience(3))
                other.send(b"other")
                assert other.recv(100) == b"other"
        assert uplink.matching(destination=lab.real[family]) == []


def test_other_ports_are_not_read(lab):
    """The ports of UDP are others than those of TCP here."""
    assert lab.web1.udp_result(lab.to["ipv4"], 444) == "open"
    assert lab.web1.hello(lab.to["ipv4"], 80).startswith("from ")
    assert lab.web1.tcp_result(lab.to["ipv4"], 444, seconds=0.5) == "timeout"


# --- TCP ---

@families
def test_a_verified_connection_is_read_no_more(lab, family):
    before = allowed(lab)
    with connected(lab, family) as (sock, queue), Sniffer(lab.inet, "up0") as uplink:
        sock.sendall(b"hello\n")
        ident, packet = take(queue)
        assert packet.payload == b"hello\n" and packet.destination == lab.real[family]
        assert uplink.matching(contains=b"hello") == [] and allowed(lab) == before
        queue.verdict(ident, NF_REPEAT, SAID)
        while (answer := let(queue, UNREAD)).source != lab.real[family]:  # on a slow machine the client has sent it again by now
            pass
        assert answer.ack == (packet.seq + 6) % 2**32
        assert marks(lab, "tcp") == {SAID} and allowed(lab) == before + 1
        wait_until(lambda: let_all(queue, VERIFIED) or sock_is_readable(sock), "the answer does not come")  # whatever the server sends until it is believed
        assert sock.recv(1000).startswith(b"from ")
        let_all(queue, VERIFIED)
        assert talk(sock, "more") == "more"
        assert nothing_comes(queue)
        assert marks(lab, "tcp") == {0x51D00006}
        assert allowed(lab) == before + 1


@families
def test_a_denied_connection_is_reset_and_stays_closed(lab, family):
    before = allowed(lab)
    with connected(lab, family) as (sock, queue), Sniffer(lab.inet, "up0") as uplink:
        port = sock.getsockname()[1]
        sock.sendall(b"hello\n")
        packet = let(queue, DENY)
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
        with Sniffer(lab.web1, "eth0") as app:
            source = lab.web1.ipv4 if family == "ipv4" else lab.web1.ipv6
            send_frame(lab.web1, "eth0", lab.gw.mac("web0"), tcp_packet(source, port, lab.to[family], 443, 24, packet.seq, packet.ack, b"again\n"))
            assert app.wait(source=lab.to[family], dport=port, flags=TCP_RST)
        assert nothing_comes(queue)
        assert uplink.matching(contains=b"hello") == uplink.matching(contains=b"again") == []
        assert allowed(lab) == before


def test_a_dropped_syn_is_no_flow(lab):
    before = allowed(lab)
    with reader(lab) as queue, reader(lab, QUEUE_BEGUN) as queue_begun, begin(lab, "ipv4") as sock:
        let(queue, 0, TCP_SYN)
        assert marks(lab, "tcp") == set() and allowed(lab) == before
        let(queue, UNREAD, TCP_SYN)  # it comes again
        finish_handshake(queue_begun, sock)
        sock.sendall(b"hello\n")
        let(queue_begun, VERIFIED)
        assert sock.recv(1000).startswith(b"from ")
        assert allowed(lab) == before + 1


def test_no_server_gives_out_a_cookie_for_fast_open(lab):
    with reader(lab) as queue, reader(lab, QUEUE_BEGUN) as queue_begun, lab.web1.socket() as sock:
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):  # without a cookie it only begins to connect
            sock.sendto(b"hello\n", MSG_FASTOPEN, (lab.to["ipv4"], 443))
        ident, data = queue.receive(patience(3))
        start = (data[0] & 15) * 4
        options = data[start + 20:start + (data[start + 12] >> 4) * 4]
        assert parse_ip(data).flags == TCP_SYN and parse_ip(data).payload == b""
        assert TIMESTAMP in options and bytes([FAST_OPEN, 2]) not in options
        queue.verdict(ident, NF_REPEAT, UNREAD)
        finish_handshake(queue_begun, sock)
        sock.sendall(b"hello\n")
        assert let(queue_begun, VERIFIED).payload == b"hello\n"
        assert sock.recv(1000).startswith(b"from ")


# --- UDP ---

@families
def test_a_verified_udp_flow_is_read_again_where_a_connection_may_begin(lab, family):
    before = allowed(lab)
    with reader(lab) as queue, reader(lab, QUEUE_AGAIN, 0) as again, lab.web1.udp(lab.to[family], 443) as flow:
        flow.settimeout(patience(3))
        flow.send(LONG)
        packet = let(queue, VERIFIED)
        assert packet.payload == LONG and packet.destination == lab.real[family]
        assert flow.recv(2000) == LONG
        flow.send(SHORT)
        assert flow.recv(2000) == SHORT
        flow.send(LONG[::-1].replace(b"L", b"M") + b"x")  # begins as a short one
        assert flow.recv(2000)
        assert nothing_comes(again) and nothing_comes(queue)
        flow.send(LONG)
        ident, packet = take(again)
        assert packet.payload == LONG
        again.verdict(ident, NF_REPEAT, VERIFIED)
        assert flow.recv(2000) == LONG
        assert marks(lab, "udp") == {0x51D00011}
        assert allowed(lab) == before + 1


def test_datagrams_that_come_as_one_packet_are_looked_at_one_by_one(lab):
    with reader(lab) as queue, reader(lab, QUEUE_AGAIN, 0) as again, lab.web1.udp(lab.to["ipv4"], 443) as flow, Sniffer(lab.inet, "up0") as uplink:
        flow.settimeout(patience(3))
        flow.send(SHORT)
        let(queue, VERIFIED)
        assert flow.recv(2000) == SHORT
        flow.setsockopt(SOL_UDP, UDP_SEGMENT, 1200)
        flow.send(SHORT + LONG)
        assert let(again, VERIFIED).payload == SHORT
        ident, packet = take(again)
        assert packet.payload == LONG
        again.verdict(ident, NF_DROP)
        assert flow.recv(2000) == SHORT
        assert uplink.matching(contains=LONG) == []


@families
def test_a_denied_datagram_is_refused_and_the_next_one_is_read(lab, family):
    before = allowed(lab)
    with reader(lab) as queue, lab.web1.udp(lab.to[family], 443) as flow, Sniffer(lab.inet, "up0") as uplink:
        flow.settimeout(patience(3))
        flow.send(LONG)
        let(queue, DENY)
        with pytest.raises(OSError, match="refused|Permission|unreachable|No route"):
            flow.recv(2000)
        assert uplink.matching(destination=lab.real[family]) == []
        assert allowed(lab) == before
        flow.send(SHORT)
        let(queue, VERIFIED)
        assert flow.recv(2000) == SHORT
        assert allowed(lab) == before + 1


# --- what the worker sends for an app ---

def transparent(lab, family, kind):
    """A socket of the worker's user that may have an app's address."""
    with lab.gw.inside():
        os.seteuid(UID)
        try:
            sock = socket.socket(family_of(lab.to[family]), kind)
        finally:
            os.seteuid(0)
    sock.setsockopt(*((socket.IPPROTO_IP, 19, 1) if family == "ipv4" else (socket.IPPROTO_IPV6, 75, 1)))
    return sock


@families
def test_a_held_datagram_can_be_sent_for_the_app(lab, family):
    """Before the server has answered, and as the flow's own: from the same port of the gateway."""
    own = GATEWAY_UPLINK4 if family == "ipv4" else GATEWAY_UPLINK6
    with reader(lab) as queue, lab.web1.udp(lab.to[family], 443) as flow, Sniffer(lab.inet, "up0") as uplink:
        lab.inet.nft("table inet mute { chain in { type filter hook input priority 0; udp dport 443 drop; }\n}")
        try:
            flow.send(b"one")
            let(queue, VERIFIED)
            with transparent(lab, family, socket.SOCK_DGRAM) as voice:
                voice.bind(flow.getsockname()[:2])
                voice.sendto(b"two", (lab.to[family], 443))
            assert uplink.wait(contains=b"two")
        finally:
            lab.inet.nft("delete table inet mute")
        first, second = uplink.matching(contains=b"one")[0], uplink.matching(contains=b"two")[0]
        assert first.source == second.source == own and first.sport == second.sport
        assert first.destination == second.destination == lab.real[family]


@families
def test_a_reset_can_be_sent_for_the_app(lab, family):
    repair, repair_queue, queue_seq = 19, 20, 21
    with connected(lab, family) as (sock, queue), Sniffer(lab.inet, "up0") as uplink:
        sock.sendall(b"hello\n")
        packet = let(queue, DENY)
        with transparent(lab, family, socket.SOCK_STREAM) as voice:
            voice.setsockopt(socket.IPPROTO_TCP, repair, 1)
            for which, number in ((2, packet.seq), (1, packet.ack)):
                voice.setsockopt(socket.IPPROTO_TCP, repair_queue, which)
                voice.setsockopt(socket.IPPROTO_TCP, queue_seq, struct.pack("=I", number))
            voice.setsockopt(socket.IPPROTO_TCP, repair_queue, 0)
            voice.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            voice.bind(sock.getsockname()[:2])
            voice.connect((lab.to[family], 443))
            voice.setsockopt(socket.IPPROTO_TCP, repair, 0)
            voice.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reset = uplink.wait(destination=lab.real[family], dport=443)
        reset = [packet for packet in reset if packet.flags & TCP_RST]
        assert len(reset) == 1 and reset[0].seq == packet.seq
        wait_until(lambda: lab.inet.run(["ss", "-Htn", f"sport = :443 and dport = :{reset[0].sport}"]).stdout == "", "the server goes on")


# --- the table ---

def chain(lab, name):
    return lab.gw.nft_list("chain", "inet", "sluice", name)


def test_the_table_can_be_printed_and_read_back(lab):
    listed = lab.gw.nft_list("table", "inet", "sluice")
    listed = listed[listed.index("table inet sluice {"):]
    assert "chain unread_web" in listed and "0x51d00010" in listed
    listed = re.sub(r"libxtables: .*\n(\s*queue num \d+|XT target NFQUEUE not found)|xt target .*", "drop", listed)  # the queue of a kernel without nft's own: printed, not read
    done = subprocess.run(lab.gw.argv(["nft", "-c", "-f", "-"]), input="flush ruleset\n" + listed, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_network_without_it_has_no_rule_more(own_lab):
    """And the hook is there only where it is wanted."""
    names = ("forward", "input", "net_build", "pass_build", "net_web", "deny_web")
    before = {name: chain(own_lab, name) for name in names}
    assert "chain verify" not in own_lab.gw.nft_list("table", "inet", "sluice")
    own_lab.gateway.set_policy(ROUTED)
    after = {name: chain(own_lab, name) for name in names}
    assert before["net_web"] != after["net_web"] and "goto direct_web" in after["net_web"]
    assert {name for name in names if before[name] != after[name]} == {"net_web"}
    assert chain(own_lab, "verify").count("goto") == 1
    assert chain(own_lab, "pass_web") != chain(own_lab, "pass_build").replace("build", "web")
    own_lab.gateway.set_policy(POLICY)
    assert {name: chain(own_lab, name) for name in names} == before
    listed = own_lab.gw.nft_list("table", "inet", "sluice")
    assert "goto" not in chain(own_lab, "verify") and "unread_web" not in listed and "chain reading" not in listed
