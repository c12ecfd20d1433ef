# SPDX-License-Identifier: MIT
"""An app that wants data out by DNS, in messages that no resolver would send, or by other ways to ask."""

import socket
import struct

import dns.message
import pytest
from app import NoAnswer, data_of, family_of, rcode_of, read_tcp_message
from hellos import client_hello
from lab import POLICY
from namespaces import patience
from packets import Sniffer
from test_dns_leak import ask_all_udp

FORMERR, NXDOMAIN, NOTIMP = 1, 3, 4
MARK = b"leak"
ALLOWED = b"\6shared\7example\0"
DENIED = b"\4leak\4evil\7example\0"
# Each way to the forwarder: whatever server is asked, and the gateway's own addresses.
SERVERS = ["192.0.2.53", "10.201.1.1", "8.8.8.8", "2606:4700:4700::1111", "fdc9:1::1"]
EVERYBODY = POLICY.replace("deny   = **.bad", "allow  = *\ndeny   = **.bad")  # `web` may ask for all names


def question(name, kind=1, number=1):
    return name + struct.pack("!HH", kind, number)


def message(*sections, counts=(1, 0, 0, 0), flags=0x0100, ident=0x1EAC):
    return struct.pack("!HHHHHH", ident, flags, *counts) + b"".join(sections)


def record(name, kind, rdata, number=1, ttl=60):
    return name + struct.pack("!HHIH", kind, number, ttl, len(rdata)) + rdata


def opt(code, data):
    return record(b"\0", 41, struct.pack("!HH", code, len(data)) + data, number=1232, ttl=0)


@pytest.fixture
def nothing_leaves(lab, names):
    """The mark is in no packet of the uplink, no upstream server is asked anything, and the gateway goes on."""
    before = names.count()
    with Sniffer(lab.inet, "up0") as uplink:
        yield
        # What leaves later than this leaves before it, as packets of one process do.
        name, address = names.new("https.example")
        assert lab.web1.resolve(name) == [address]
        assert uplink.wait(dport=53)
        assert [packet for packet in uplink.packets() if MARK in packet.payload.lower() or MARK.hex().encode() in packet.payload.lower()] == []
    assert names.count() == before + 1
    assert lab.gateway.healthy()


# --- questions ---

def test_no_type_of_a_denied_name_leaves(nothing_leaves, web1):
    kinds = [*range(0, 300), *range(65270, 65536)]
    codes = ask_all_udp(web1, "192.0.2.53", [message(question(DENIED, kind), ident=kind) for kind in kinds])
    assert len(codes) == len(kinds)
    assert set(codes) == {NXDOMAIN, NOTIMP}


@pytest.mark.parametrize("suffix", [b"\7in-addr\4arpa\0", b"\3ip6\4arpa\0"], ids=["ipv4", "ipv6"])
def test_no_type_below_the_reverse_trees_leaves(nothing_leaves, web1, policy, suffix):
    """Also where every name is allowed by audit mode, and whole reverse names as well as halves and those with something in front."""
    policy(POLICY.replace("[network web]\n", "[network web]\nmode = audit\n"))
    names = [b"\4leak" + suffix, suffix, b"\4leak" + b"\0018" * 32 + suffix, b"\0018" * 31 + suffix, b"\0018" * 4 + suffix, b"\0018" * 32 + suffix]
    kinds = [1, 2, 6, 12, 16, 28, 33, 64, 65, 99, 65280]
    codes = ask_all_udp(web1, "8.8.8.8", [message(question(name, kind)) for name in names for kind in kinds])
    assert set(codes) == {NXDOMAIN}


SHAPES = {
    "an allowed question and a denied one": message(question(ALLOWED), question(DENIED), counts=(2, 0, 0, 0)),
    "a denied one and an allowed one": message(question(DENIED), question(ALLOWED), counts=(2, 0, 0, 0)),
    "a second question that is not counted": message(question(ALLOWED), question(DENIED)),
    "no question but an answer": message(record(DENIED, 1, b"leak"), counts=(0, 1, 0, 0)),
    "no question but an additional record": message(record(DENIED, 16, b"\4leak"), counts=(0, 0, 0, 1)),
    "a record in the answer": message(question(ALLOWED), record(DENIED, 1, b"leak"), counts=(1, 1, 0, 0)),
    "a record in the authority section": message(question(ALLOWED), record(ALLOWED, 16, b"\4leak"), counts=(1, 0, 1, 0)),
    "a record in the additional section": message(question(ALLOWED), record(ALLOWED, 16, b"\4leak"), counts=(1, 0, 0, 1)),
    "a signature (TSIG)": message(question(ALLOWED), record(DENIED, 250, b"leak", number=255, ttl=0), counts=(1, 0, 0, 1)),
    "a second OPT": message(question(ALLOWED), opt(8, b"leak"), opt(8, b"leak"), counts=(1, 0, 0, 2)),
    "an OPT with an owner": message(question(ALLOWED), DENIED[:-1] + opt(8, b"leak"), counts=(1, 0, 0, 1)),
    "options that end too late": message(question(ALLOWED), opt(8, b"leak")[:-4], b"\xff\xffleak", counts=(1, 0, 0, 1)),
    "IQUERY": message(record(b"\0", 1, b"leak"), counts=(0, 1, 0, 0), flags=0x0900),
    "NOTIFY of a denied zone": message(question(DENIED, 6), counts=(1, 0, 0, 0), flags=0x2400),
    "NOTIFY of an allowed name": message(question(ALLOWED, 6), record(ALLOWED, 6, DENIED * 2 + bytes(20)), counts=(1, 1, 0, 0), flags=0x2400),
    "UPDATE of an allowed name": message(question(ALLOWED, 6), record(DENIED, 16, b"\4leak"), counts=(1, 0, 1, 0), flags=0x2800),
    "DSO": message(b"\0\1\0\4leak", counts=(0, 0, 0, 0), flags=0x3000),
    "a class of its own": message(question(ALLOWED, 16, 0x6C65), b"leak"),
    "CHAOS": message(question(b"\7version\4bind\0", 16, 3)),
    "HESIOD": message(question(DENIED, 16, 4)),
    "class ANY": message(question(ALLOWED, 1, 255)),
    "a pointer in the question": message(b"\4leak\xc0\x0c\0\1\0\1"),
    "a pointer to the question": message(question(ALLOWED), b"\xc0\x0c\0\1\0\1", counts=(2, 0, 0, 0)),
    "a label of type 01": message(b"\x44leak\0\0\1\0\1"),
    "a bit-string label": message(b"\x41\x20leak\0\0\1\0\1"),
    "a name of 256 octets": message(b"\4leak" + b"\x3e" + b"x" * 62 + (b"\x3f" + b"y" * 63) * 2 + b"\x3c" + b"z" * 60 + b"\0", b"\0\1\0\1"),
    "a name without end": message((b"\4leak" * 300)[:1400]),
    "a response": message(question(ALLOWED), record(ALLOWED, 16, b"\4leak"), counts=(1, 1, 0, 0), flags=0x8180),
    "behind the message": message(question(ALLOWED)) + b"leak" * 200,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_what_is_no_plain_question_leaves_in_no_form(nothing_leaves, web1, shape, tcp):
    """Each is refused, or not answered at all; none is repaired and sent on."""
    try:
        assert web1.exchange(SHAPES[shape], "8.8.8.8", tcp=tcp, seconds=0.3)[3] & 15 in (FORMERR, NOTIMP)
    except NoAnswer:
        assert shape == "a response"


def labels_of(octets, label=63):
    """A name of labels that have so many octets together."""
    text = b"leak" + bytes(range(octets - 4))
    return b"".join(bytes([len(text[at:at + label])]) + text[at:at + label] for at in range(0, len(text), label))


def test_longest_and_binary_names_are_judged_like_others(nothing_leaves, web1):
    suffixes = [b"\4evil\7example\0", b"\6shared\7example\0", b"\7example\0"]
    wires = [message(question(labels_of(octets, label) + suffix)) for octets in (60, 120, 180) for label in (1, 20, 63) for suffix in suffixes
             if octets + octets // label + len(suffix) < 255]
    codes = ask_all_udp(web1, "192.0.2.53", wires)
    assert len(codes) == len(wires) and set(codes) == {NXDOMAIN}


def test_what_looks_like_an_allowed_name_is_none(nothing_leaves, web1):
    """A NUL, a dot, a space or a slash in a label; other alphabets; letters that some fold to ASCII ones."""
    forms = [b"\6shared\7example\4leak\0", b"\x0eshared.example\0", b"\x0fshared\0.example\0", b"\7shared\0\7example\0", b"\6shared\x08example\0\0",
             b"\7\xc5\xbfhared\7example\0", b"\6SHARE\xc4\7EXAMPLE\0", b"\6shared\7exampl\xe9\0", b"\6shared\7examp1e\0", b"\7shared \7example\0",
             b"\7shared\\\7example\0", b"\1*\6shared\7example\0", b"\1*\7example\0", b"\x0exn--shared-9d0\7example\0", b"\5https\7example\3com\0"]
    codes = ask_all_udp(web1, "192.0.2.53", [message(question(form)) for form in forms])
    assert set(codes) == {NXDOMAIN}


def test_flags_of_an_app_are_not_passed_on(names, web1):
    """AA, TC, RA, Z, AD and an rcode in a question are eight bits for whoever watches upstream; RD is always set."""
    before = names.count()
    for flags in (0x0000, 0x0400, 0x0200, 0x0080, 0x0040, 0x0020, 0x000F, 0x07EF):
        name, address = names.new("https.example")
        wire = dns.message.make_query(name, "A").to_wire()
        reply = dns.message.from_wire(web1.exchange(wire[:2] + struct.pack("!H", flags) + wire[4:]))
        assert data_of(reply, "A") == [address], hex(flags)
    assert {struct.unpack_from("!H", query["wire"], 2)[0] & ~0x0010 for query in names.queries(before)} == {0x0100}


@pytest.mark.parametrize("everybody", [False, True], ids=["by rules", "where every name is allowed"])
def test_an_app_does_not_find_the_upstreams_encrypted_resolver(nothing_leaves, web1, policy, everybody):
    """Discovery of Designated Resolvers (RFC 9462): the answer would be about the upstream, and lead apps past the forwarder."""
    if everybody:
        policy(EVERYBODY)
    for kind in (64, 65, 1, 28, 16):
        answer = web1.exchange(message(question(b"\4_dns\x08resolver\4arpa\0", kind)))
        assert answer[3] & 15 == NXDOMAIN and answer[6:8] == b"\0\0", kind


# --- transports ---

NO_DNS = {
    "HTTP": b"GET /leak HTTP/1.1\r\nHost: leak.evil.example\r\n\r\n" * 20,
    "HTTP with a body": b"POST /dns-query HTTP/1.1\r\nHost: leak\r\nContent-Length: 9999\r\n\r\n" + b"leak" * 2500,
    "a TLS ClientHello": client_hello("leak.evil.example", ["dot"]),
    "an SSH banner": b"SSH-2.0-leak\r\n",
    "a length without a message": b"\xff\xff" + b"leak" * 10,
    "half a length": b"\0",
    "a message of no octets": b"\0\0" * 500,
    "messages of one octet": b"\0\1x" * 500,
    "a header without a question": b"\0\x0c" + message(counts=(1, 0, 0, 0)),
    "garbage": bytes((number * 197 + 13) & 255 for number in range(60000)) + b"leak",
    "a SOCKS greeting": b"\5\1\0" + b"\5\1\0\3\x11leak.evil.example\0\x50",
}


@pytest.mark.parametrize("payload", NO_DNS)
@pytest.mark.parametrize("server", ["192.0.2.53", "8.8.8.8", "fdc9:1::1"])
def test_a_connection_to_port_53_carries_nothing_but_dns(nothing_leaves, names, web1, payload, server):
    """It leads to the forwarder, whatever is sent through it, and others are served meanwhile."""
    with web1.connect(server, 53) as sock:
        try:
            sock.sendall(NO_DNS[payload])
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        except OSError:
            pass  # closed by the gateway
    assert rcode_of(web1.ask("leak.evil.example", server=server, tcp=True)) == "NXDOMAIN"


@pytest.mark.parametrize("payload", NO_DNS)
def test_datagrams_to_port_53_carry_nothing_but_dns(nothing_leaves, web1, payload):
    for server in SERVERS:
        with web1.socket(family_of(server), socket.SOCK_DGRAM) as sock:
            sock.connect((server, 53))
            for size in (1, 11, 12, 13, 511, 1400, 9000, 60000):
                sock.send((NO_DNS[payload] * (size // len(NO_DNS[payload]) + 1))[:size])


def test_questions_in_thousands_of_small_segments(names, web1):
    """Each segment has one octet, so that every boundary falls everywhere; one connection of this kind does not hold up another."""
    pairs = [names.new("https.example") for _ in range(60)]
    stream = b""
    for ident, (name, _) in enumerate(pairs):
        query = dns.message.make_query(name, "A")
        query.id = ident
        stream += struct.pack("!H", len(query.to_wire())) + query.to_wire()
    got = {}
    with web1.connect("8.8.8.8", 53) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(stream)):
            sock.send(stream[at:at + 1])
            if at % 1000 == 0:
                name, address = names.new("https.example")
                assert web1.resolve(name, tcp=True) == [address]
        for _ in pairs:
            answer = dns.message.from_wire(read_tcp_message(sock))
            got[answer.id] = data_of(answer, "A")
    assert len(stream) > 2000
    assert got == {ident: [address] for ident, (_, address) in enumerate(pairs)}


# --- other ways to ask ---

RESOLVERS = ["1.1.1.1", "8.8.8.8", "9.9.9.9", "94.140.14.14", "2606:4700:4700::1111", "2001:4860:4860::8888"]


@pytest.mark.parametrize("port", [443, 784, 853, 5353, 8053, 8853])
def test_no_other_port_of_a_resolver_is_reached(lab, web1, port):
    """DNS over TLS, HTTPS and QUIC, by address: refused at once, so that clients fall back to port 53."""
    with Sniffer(lab.inet, "up0") as uplink:
        for address in RESOLVERS:
            assert web1.tcp_result(address, port) == "refused", address
            assert web1.udp_result(address, port) == "rejected", address
        assert [packet for packet in uplink.packets() if packet.dport == port] == []


@pytest.mark.parametrize("port", [137, 443, 853, 5300, 5353, 5355])
def test_the_gateway_itself_speaks_dns_on_port_53_only(web1, port):
    for address in ("10.201.1.1", "fdc9:1::1"):
        assert web1.tcp_result(address, port) != "open"
        assert web1.udp_result(address, port, seconds=0.3, payload=message(question(ALLOWED))) != "garbled"


@pytest.mark.parametrize("target, port", [("224.0.0.251", 5353), ("224.0.0.252", 5355), ("10.201.1.255", 137), ("255.255.255.255", 137),
                                          ("224.0.0.251", 53), ("10.201.1.255", 53), ("ff02::fb%eth0", 5353), ("ff02::1:3%eth0", 5355), ("ff05::fb%eth0", 53)],
                         ids=lambda value: str(value))
def test_link_local_name_resolution_goes_nowhere(lab, names, web1, target, port):
    """mDNS, LLMNR and NetBIOS: the gateway neither answers nor passes on what the link is asked."""
    before = names.count()
    family = family_of(target)
    with Sniffer(lab.inet, "up0") as uplink, Sniffer(lab.build1, "eth0") as neighbours, web1.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.settimeout(patience(0.2))
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(web1.ipv4))
        address, _, scope = target.partition("%")
        index = int(web1.run(["cat", f"/sys/class/net/{scope}/ifindex"]).stdout) if scope else 0
        sock.sendto(message(question(ALLOWED)), (address, port, 0, index) if scope else (address, port))
        with pytest.raises(TimeoutError):
            sock.recv(2000)
        for sniffer in (uplink, neighbours):
            assert [packet for packet in sniffer.packets() if packet.destination == address] == []
    assert names.count() == before
