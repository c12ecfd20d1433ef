# SPDX-License-Identifier: MIT
"""`verify`: what an app asks for inside an allowed flow must be allowed as well. The same with real and with virtual addresses.

Several names lead to one address, as with a CDN; some of them are allowed. What was denied must not have reached the server: the tests look
at what the server received, or at the wire before it.
"""

import contextlib
import re
import socket
import threading
import time

import pytest

import quic_packets
from app import family_of, talk
from hellos import client_hello, large_hello
from lab import SITE4, SITE6, UPSTREAM, VIRTUAL, Lab
from namespaces import patience, wait_until
from packets import TCP_ACK, TCP_SYN, RawTcp, Sniffer, no_resets
from sites import Ssh, Web

FORMS = ("routed", "virtual")
FAMILIES = ("ipv4", "ipv6")
RECORD = {"ipv4": "A", "ipv6": "AAAA"}
GOOD, ALSO_GOOD, EVIL, DENIED = "good.shop.example", "also.shop.example", "evil.other.example", "bad.shop.example"
PORT = 4430  # of servers that note what they are sent
QUEUES = (54, 55, 56)  # of packets to be read: first ones, what may begin another QUIC connection, others
MARK_FLOW, MARK_DATAGRAMS = 0x51D00006, 0x51D00011
HELLO_SECONDS = 3  # a flow has this long to say its name
ROUTED = """
[network web]
subnet = 10.201.1.0/24
subnet = fdc9:1::/64
"""
RULES = f"""
allow = **.shop.example:22+25+80+443+{PORT}+9999 plain.any.example:80 **.only443.example:443
deny  = {DENIED}
"""
OTHERS = """
[network build]
subnet = 10.201.2.0/24
subnet = fdc9:2::/64
allow  = **.shop.example:443

[network lan]
subnet = 10.201.3.0/24
verify = enforce
allow  = **.shop.example:443 45.40.0.0/16:443
"""
ENFORCE = "verify = enforce\n"
families = pytest.mark.parametrize("family", FAMILIES)


def policy_text(form, keys=ENFORCE):
    return UPSTREAM + (ROUTED if form == "routed" else VIRTUAL.format(network="web", number=1)) + keys + RULES + OTHERS


@pytest.fixture(scope="module", params=FORMS)
def verify_lab(request):
    form = request.param
    with Lab(policy=policy_text(form), internal=["web"] if form == "virtual" else []) as lab:
        lab.form, lab.keys = form, ENFORCE
        no_resets(lab.web2)
        yield lab


@pytest.fixture
def lab(verify_lab):
    gateway = verify_lab.gateway
    gateway.log.mark()
    yield verify_lab
    verify_lab.names.reset()
    gateway.release()
    gateway.wait_healthy()
    if verify_lab.keys != ENFORCE:
        use(verify_lab, ENFORCE)
    garbage = [line for line in gateway.log.lines() if "garbage" in line]
    assert garbage == [], f"no log lines:\n{gateway.log.tail()}"


@pytest.fixture(scope="module")
def web(verify_lab):
    server = Web(verify_lab, sites=(GOOD, ALSO_GOOD, EVIL, DENIED))
    for name in (GOOD, ALSO_GOOD, EVIL, DENIED):
        verify_lab.names.add(name, AAAA=SITE6)
    return server


@pytest.fixture(scope="module")
def ssh(verify_lab):
    verify_lab.names.add("git.shop.example", A=SITE4)
    return Ssh(verify_lab)


def use(lab, keys):
    """The network `web` has these keys from now on."""
    lab.gateway.set_policy(policy_text(lab.form, keys))
    lab.keys = keys
    lab.gateway.log.mark()


# --- what servers receive ---

class Recorder:
    """A TCP server that notes what it is sent, and how connections end."""

    def __init__(self, namespace, address, greeting=b"", port=PORT):
        self.greeting = greeting
        self.data = []  # of each connection: a bytearray
        self.ends = []  # "closed", "reset"
        self.listener = namespace.socket(family_of(address))
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((address, port))
        self.listener.listen(64)
        self.open = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                data = bytearray()
                self.data.append(data)
                self.open.append(sock)
                threading.Thread(target=self.serve, args=(sock, data), daemon=True).start()

    def serve(self, sock, data):
        try:
            sock.sendall(self.greeting)
            while piece := sock.recv(65536):
                data += piece
                sock.sendall(b"%d\n" % len(data))
            self.ends.append("closed")
        except OSError:
            self.ends.append("reset")

    def received(self):
        """All octets of all connections."""
        return b"".join(bytes(data) for data in self.data)

    def wait(self, expected):
        wait_until(lambda: self.received() == expected, f"the server has {self.received()[:200]!r}... instead of {expected[:200]!r}...", seconds=8)

    def wait_for_reset(self):
        """The one connection was taken, brought nothing, and was reset."""
        wait_until(lambda: self.ends, "the server's side of the connection stays", seconds=HELLO_SECONDS + 5)
        assert (self.ends, self.received()) == (["reset"], b"")

    def close(self):
        # accept() in another thread wakes up by this only.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self.open:
            sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def new_name(lab, family="ipv4", suffix="shop.example", app=None):
    """A new allowed name. Return: it, the address that an app has of it, the server's own."""
    name, *reals = lab.names.new(suffix, ipv6=True)
    address, = (app or lab.web1).resolve(name, RECORD[family])
    return name, address, reals[FAMILIES.index(family)]


@contextlib.contextmanager
def recorded(lab, family="ipv4", greeting=b"", site=False, app=None):
    """Yields a new name, the address that an app has of it, and its server. `site`: it is a hop farther."""
    name, address, real = new_name(lab, family, app=app)
    if site:
        lab.names.remove(name)
        name = "far." + name
        real = SITE4 if family == "ipv4" else SITE6
        lab.names.add(name, **{RECORD[family]: real})
        address, = (app or lab.web1).resolve(name, RECORD[family])
    with Recorder(lab.site if site else lab.inet, real, greeting) as server:
        yield name, address, server


def connect(lab, address, port=PORT):
    sock = lab.web1.connect(address, port)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def send_in_parts(sock, parts, pause=0.02):
    """Each part is a segment of its own."""
    for part in parts:
        sock.sendall(part)
        time.sleep(pause)


def is_reset(sock, seconds=HELLO_SECONDS + 3):
    sock.settimeout(patience(seconds))
    try:
        while sock.recv(65536):
            pass
        return False
    except ConnectionResetError:
        return True


def queued_packets(lab):
    """How many packets have come to the program to be read, since it runs."""
    rows = [line.split() for line in lab.gw.run(["cat", "/proc/net/netfilter/nfnetlink_queue"], check=True).stdout.splitlines()]
    counts = [int(fields[7]) for fields in rows if int(fields[0]) in QUEUES]
    assert len(counts) == len(QUEUES), f"queues are missing: {rows}"
    return sum(counts)


def flow_mark(lab, sport):
    """The conntrack mark of the flow with an app's port."""
    listed = lab.gw.run(["conntrack", "-L"], check=True).stdout + lab.gw.run(["conntrack", "-L", "-f", "ipv6"], check=True).stdout
    found = [line for line in listed.splitlines() if re.search(rf"sport={sport} ", line)]
    assert len(found) == 1, f"one flow from port {sport} expected:\n{listed}"
    return int(re.search(r"mark=(\d+)", found[0]).group(1))


def denials(lab):
    """Lines about single flows, as soon as there will be no more of them. Counts come later, also those of other tests."""
    lab.gateway.log.settle()
    return [line for line in lab.gateway.log.lines(event="denied") if "what" not in line]


def denied(lab, **wanted):
    """The one line about a flow that was denied."""
    lab.gateway.log.wait(event="denied", network="web", seconds=HELLO_SECONDS + 3, **wanted)
    lines = denials(lab)
    assert len(lines) == 1, f"one line expected: {lines}"
    return lines[0]


def nothing_denied(lab):
    assert denials(lab) == []


# --- real clients and servers ---

def curl(lab, web, url, *more):
    return lab.web1.run(["curl", "--silent", "--show-error", "--cacert", web.certificate, "--max-time", "20", *more, url], timeout=25)


@pytest.mark.browser
@families
def test_curl_loads_the_allowed_site(lab, web, family):
    done = curl(lab, web, f"https://{GOOD}/", f"--{family}")
    assert (done.returncode, done.stdout) == (0, "proto=HTTP/2.0"), done.stderr
    done = curl(lab, web, f"https://{GOOD}/", f"--{family}", "--http1.1")
    assert (done.returncode, done.stdout) == (0, "proto=HTTP/1.1"), done.stderr
    nothing_denied(lab)


@pytest.mark.browser
@families
def test_curl_does_not_load_another_site_of_the_same_address(lab, web, family):
    with Sniffer(lab.site, "eth0") as wire:
        done = curl(lab, web, f"https://{EVIL}/", f"--{family}", "--connect-to", f"{EVIL}:443:{GOOD}:443")
        assert done.returncode == 35 and "reset" in done.stderr.lower(), done.stderr
        assert wire.matching(contains=EVIL.encode()) == []
        assert [packet for packet in wire.matching(dport=443) if packet.payload] == []
    line = denied(lab, reason="sni-mismatch")
    assert (line["sni"], line["name"], line["proto"], line["port"]) == (EVIL, GOOD, "tcp", "443")


@pytest.mark.browser
def test_curl_with_the_address_given_by_hand(lab, web):
    address, = lab.web1.resolve(GOOD)
    done = curl(lab, web, f"https://{EVIL}/", "--resolve", f"{EVIL}:443:{address}")
    assert done.returncode == 35 and "reset" in done.stderr.lower(), done.stderr
    assert denied(lab, reason="sni-mismatch")["sni"] == EVIL


@pytest.mark.browser
def test_another_allowed_name_of_the_same_address_passes(lab, web):
    done = curl(lab, web, f"https://{ALSO_GOOD}/", "--connect-to", f"{ALSO_GOOD}:443:{GOOD}:443")
    assert (done.returncode, done.stdout) == (0, "proto=HTTP/2.0"), done.stderr
    nothing_denied(lab)


@pytest.mark.browser
def test_a_name_that_a_deny_rule_takes_out_does_not_pass(lab, web):
    done = curl(lab, web, f"https://{DENIED}/", "--connect-to", f"{DENIED}:443:{GOOD}:443")
    assert done.returncode == 35, done.stderr
    assert denied(lab, reason="sni-mismatch")["sni"] == DENIED


@pytest.mark.browser
@pytest.mark.parametrize("name,reason,sni", [(EVIL, "sni-mismatch", EVIL), (None, "no-name", "-")], ids=["other", "none"])
def test_openssl_s_client(lab, web, name, reason, sni):
    address, = lab.web1.resolve(GOOD)
    words = ["-servername", name] if name else ["-noservername"]
    done = lab.web1.run(["openssl", "s_client", "-connect", f"{address}:443", *words], input="")
    assert done.returncode != 0 and "BEGIN CERTIFICATE" not in done.stdout
    assert denied(lab, reason=reason)["sni"] == sni


@pytest.mark.browser
def test_openssl_s_client_of_the_allowed_name(lab, web):
    address, = lab.web1.resolve(GOOD)
    for version in ("-tls1_2", "-tls1_3"):
        done = lab.web1.run(["openssl", "s_client", "-connect", f"{address}:443", "-servername", GOOD.upper(), version], input="")
        assert done.returncode == 0 and "BEGIN CERTIFICATE" in done.stdout, done.stderr


@pytest.mark.browser
def test_a_browser_loads_the_allowed_site(lab, web):
    assert "proto=HTTP/3.0" in web.browse(lab.web1, f"https://{GOOD}/")
    assert "proto=HTTP/2.0" in web.browse(lab.web1, f"https://{GOOD}/", quic=False)
    lab.gateway.log.settle()
    assert lab.gateway.log.lines(event="denied", reason="sni-mismatch") == []


@pytest.mark.browser
@pytest.mark.parametrize("quic", [True, False], ids=["http3", "http2"])
def test_a_browser_does_not_load_another_site_of_the_same_address(lab, web, quic):
    address, = lab.web1.resolve(GOOD)
    with Sniffer(lab.site, "eth0") as wire:
        assert "proto=" not in web.browse(lab.web1, f"https://{EVIL}/", quic, [f"--host-resolver-rules=MAP {EVIL} {address}"])
        assert wire.matching(contains=EVIL.encode()) == []
        assert wire.matching(protocol=socket.IPPROTO_UDP, dport=443) == []
    assert lab.gateway.log.wait(event="denied", reason="sni-mismatch", sni=EVIL, proto="udp" if quic else "tcp")


@pytest.mark.browser
def test_http_in_clear_is_read_as_well(lab, web):
    done = curl(lab, web, "http://plain.any.example/")
    assert (done.returncode, done.stdout) == (0, "plain"), done.stderr
    with Sniffer(lab.site, "eth0") as wire:
        done = curl(lab, web, "http://plain.any.example/", "--header", f"Host: {EVIL}")
        assert done.returncode == 56, done.stderr
        assert [packet for packet in wire.matching(dport=80) if packet.payload] == []
    line = denied(lab, reason="sni-mismatch")
    assert (line["sni"], line["port"]) == (EVIL, "80")


# --- what passes ---

@families
def test_a_hello_with_the_allowed_name_reaches_the_server(lab, family):
    with recorded(lab, family) as (name, address, server), connect(lab, address) as sock:
        hello = client_hello(name)
        sock.sendall(hello)
        server.wait(hello)
        sock.sendall(b"and more")
        server.wait(hello + b"and more")
    nothing_denied(lab)


def test_what_comes_after_the_name_does_not_come_to_the_program(lab):
    """Nor do the replies."""
    name, address, _ = new_name(lab)
    with lab.web1.connect(address, 443) as sock:
        sock.sendall(client_hello(name) + b"\n")
        sock.settimeout(patience(5))
        sock.recv(65536)
        time.sleep(0.2)
        while select_readable(sock):
            sock.recv(65536)
        before = queued_packets(lab)
        assert before > 0
        for number in range(100):
            assert talk(sock, f"line {number}") == f"line {number}"
        assert queued_packets(lab) == before
        assert flow_mark(lab, sock.getsockname()[1]) == MARK_FLOW


def select_readable(sock):
    sock.settimeout(0.1)
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False
    finally:
        sock.settimeout(patience(5))


def test_a_network_without_verify_is_left_alone(lab):
    _, address, _ = new_name(lab, app=lab.build1)
    before = queued_packets(lab)
    with lab.build1.connect(address, 443) as sock:
        assert talk(sock, "no name at all") == "no name at all"
    assert queued_packets(lab) == before


def test_what_an_address_rule_allows_is_not_read(lab):
    with lab.lan1.connect("45.40.7.7", 443) as sock:
        assert talk(sock, "no name at all") == "no name at all"


def test_a_name_that_is_not_allowed_on_this_port(lab):
    lab.names.add("www.only443.example", A="45.30.250.1")
    with recorded(lab) as (_, address, server), connect(lab, address) as sock:
        sock.sendall(client_hello("www.only443.example"))
        assert is_reset(sock)
        server.wait_for_reset()
    assert denied(lab, reason="sni-mismatch")["sni"] == "www.only443.example"


# --- denied: the server ---

@families
@pytest.mark.parametrize("what", ["tls", "http", "no-name", "other", "broken"])
def test_the_server_receives_nothing_and_is_reset(lab, family, what):
    octets, reason, sni = {
        "tls": (client_hello(EVIL), "sni-mismatch", EVIL),
        "http": (f"GET / HTTP/1.1\r\nHost: {EVIL}\r\n\r\n".encode(), "sni-mismatch", EVIL),
        "no-name": (client_hello(None), "no-name", "-"),
        "other": (b"SSH-2.0-OpenSSH_9.2\r\n", "no-name", "-"),
        "broken": (f"GET / HTTP/1.1\r\nHost: {EVIL}\r\nHost: {GOOD}\r\n\r\n".encode(), "malformed", "-"),
    }[what]
    with recorded(lab, family) as (name, address, server), connect(lab, address) as sock:
        sock.sendall(octets)
        assert is_reset(sock)
        server.wait_for_reset()
    line = denied(lab, reason=reason)
    assert (line["sni"], line["name"], line["port"]) == (sni, name, str(PORT))


def test_half_a_hello_is_denied_after_its_time(lab):
    with recorded(lab) as (name, address, server), connect(lab, address) as sock:
        sock.sendall(client_hello(name)[:100])
        assert is_reset(sock)
        server.wait_for_reset()
    assert denied(lab, reason="malformed")["name"] == name


def test_a_flow_that_says_nothing_stays(lab):
    with recorded(lab) as (name, address, server), connect(lab, address) as sock:
        time.sleep(HELLO_SECONDS + 1)
        assert server.ends == []
        hello = client_hello(name)
        sock.sendall(hello)
        server.wait(hello)
    nothing_denied(lab)


def test_a_client_that_leaves_without_a_word(lab):
    with recorded(lab) as (_, address, server):
        connect(lab, address).close()
        wait_until(lambda: server.ends == ["closed"], "the end does not come through")
    nothing_denied(lab)


# --- segments ---

def parts_of(how, octets, name):
    """A list of segments."""
    at = octets.index(name.encode())
    return {
        "halves": [octets[:len(octets) // 2], octets[len(octets) // 2:]],
        "in-the-name": [octets[:at + 3], octets[at + 3:]],
        "octets-first": [octets[i:i + 1] for i in range(8)] + [octets[8:]],
        "octets-around-the-name": [octets[:at + 2], *(octets[i:i + 1] for i in range(at + 2, at + 7)), octets[at + 7:]],
    }[how]


WAYS = ("halves", "in-the-name", "octets-first", "octets-around-the-name")


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("protocol", ["tls", "http"])
def test_a_hello_in_segments_passes(lab, protocol, how):
    with recorded(lab) as (name, address, server), connect(lab, address) as sock:
        octets = client_hello(name) if protocol == "tls" else f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()
        send_in_parts(sock, parts_of(how, octets, name), 0.2 if how == "halves" else 0.02)
        server.wait(octets)
    nothing_denied(lab)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("protocol", ["tls", "http"])
def test_a_hello_in_segments_does_not_slip_through(lab, protocol, how):
    octets = client_hello(EVIL) if protocol == "tls" else f"GET / HTTP/1.1\r\nHost: {EVIL}\r\n\r\n".encode()
    with recorded(lab) as (_, address, server), connect(lab, address) as sock:
        with contextlib.suppress(OSError):
            send_in_parts(sock, parts_of(how, octets, EVIL))
        assert is_reset(sock)
        server.wait_for_reset()
    denied(lab, reason="sni-mismatch")


def test_a_hello_of_single_octets_does_not_slip_through(lab):
    """A client's first window ends before: it is denied as broken, and nothing has passed."""
    with recorded(lab) as (_, address, server), connect(lab, address) as sock:
        with contextlib.suppress(OSError):
            send_in_parts(sock, [bytes([octet]) for octet in client_hello(EVIL)], 0.001)
        assert is_reset(sock)
        server.wait_for_reset()
    assert denied(lab)["reason"] in ("malformed", "sni-mismatch")


@pytest.mark.parametrize("size", [3000, 8000, 12000])
def test_a_large_hello(lab, size):
    with recorded(lab) as (name, address, server), connect(lab, address) as sock:
        hello = large_hello(name, size)
        assert len(hello) > size - 250
        sock.sendall(hello)
        server.wait(hello)
    nothing_denied(lab)
    with recorded(lab) as (_, address, server), connect(lab, address) as sock:
        sock.sendall(large_hello(EVIL, size))
        assert is_reset(sock)
        server.wait_for_reset()
    denied(lab, reason="sni-mismatch")


def test_a_hello_larger_than_is_read_is_denied(lab):
    with recorded(lab) as (name, address, server), connect(lab, address) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(f"GET / HTTP/1.1\r\nX: {'x' * 20000}\r\nHost: {name}\r\n\r\n".encode())
        assert is_reset(sock)
        server.wait_for_reset()
    denied(lab, reason="malformed")


# --- a client that makes its own segments ---

@contextlib.contextmanager
def raw(lab, family="ipv4", ack=True, site=False, port=PORT):
    """Yields the client after its handshake, the name that it has resolved, and the server."""
    lab.raw_port = getattr(lab, "raw_port", 20000) + 1
    with recorded(lab, family, site=site, app=lab.web2) as (name, address, server):
        with RawTcp(lab.web2, lab.gw.mac("web0"), address, port, lab.raw_port) as client:
            client.handshake(ack)
            yield client, name, server


def never_unread(server, octets=EVIL.encode(), seconds=1.5):
    """The server has not received these octets, and does not soon."""
    time.sleep(seconds)
    assert octets not in server.received(), "unread octets reached the server"


def test_a_raw_client_is_served_like_any_other(lab):
    with raw(lab) as (client, name, server):
        hello = client_hello(name)
        client.data(0, hello)
        server.wait(hello)
    nothing_denied(lab)


def test_segments_in_the_wrong_order(lab):
    with raw(lab) as (client, name, server):
        hello = client_hello(name)
        for start, end in ((200, None), (100, 200), (0, 100)):
            client.data(start, hello[start:end])
        server.wait(hello)
    nothing_denied(lab)
    with raw(lab) as (client, _, server):
        hello = client_hello(EVIL)
        for start, end in ((200, None), (100, 200), (0, 100)):
            client.data(start, hello[start:end])
        assert client.was_reset()
        server.wait_for_reset()
    denied(lab, reason="sni-mismatch")


@pytest.mark.parametrize("order", ["good-first", "evil-first"])
def test_overlapping_segments_that_differ(lab, order):
    """Which of the two a server takes is its own affair."""
    with raw(lab) as (client, name, server):
        hello = client_hello(name)
        at = hello.index(name.encode())
        other = hello[:at] + EVIL.encode().ljust(len(name), b"x")[:len(name)] + hello[at + len(name):]
        first, second = (hello, other) if order == "good-first" else (other, hello)
        client.data(at - 10, first[at - 10:-20])
        client.data(at - 10, second[at - 10:-20])
        client.data(0, first[:at])
        client.data(len(hello) - 20, first[-20:])
        assert client.was_reset()
        server.wait_for_reset()
    # What was still on its way when both were reset is, to conntrack, a flow without a beginning: refused for the same reason.
    lab.gateway.log.wait(event="denied", network="web", reason="malformed", seconds=HELLO_SECONDS + 3)
    assert {line["reason"] for line in denials(lab)} == {"malformed"}


def test_a_segment_sent_twice_is_not_a_conflict(lab):
    with raw(lab) as (client, name, server):
        hello = client_hello(name)
        client.data(0, hello[:100])
        client.data(0, hello[:150])
        client.data(100, hello[100:])
        server.wait(hello)
    nothing_denied(lab)


@pytest.mark.parametrize("ack", [True, False], ids=["a-false-acknowledgement", "no-acknowledgement"])
def test_an_allowed_name_behind_the_beginning_of_the_stream(lab, ack):
    """The server keeps it for later, and reads what comes in front of it as the beginning."""
    evil = client_hello(EVIL)
    with raw(lab, ack=False) as (client, name, server):
        if ack:
            client.send(TCP_ACK, len(evil))
        client.data(len(evil), client_hello(name))
        time.sleep(0.2)
        client.send(TCP_ACK, 0)
        client.data(0, evil)
        never_unread(server)


def test_an_allowed_name_that_never_arrives(lab):
    """Its packets end on their way: other octets in their place must not pass unread."""
    evil = client_hello(EVIL)
    with raw(lab, site=True) as (client, name, server):
        client.data(0, client_hello(name), ttl=2)
        time.sleep(0.2)
        client.data(0, evil)
        never_unread(server)


def test_an_allowed_name_that_the_server_ignores(lab):
    """It acknowledges octets that are older than the client's window is large (RFC 5961 section 5.2): valid for conntrack, not for a server."""
    evil = client_hello(EVIL)
    with raw(lab) as (client, name, server):
        client.answered -= 20000
        client.data(0, client_hello(name))
        client.answered += 20000
        time.sleep(0.2)
        client.data(0, evil)
        assert client.was_reset()
        server.wait_for_reset()
    denied(lab, reason="malformed")


def test_an_urgent_octet_in_the_hello(lab):
    """Not every server reads it at its place."""
    with raw(lab) as (client, name, server):
        hello = client_hello(name)
        client.data(0, hello, urgent=len(hello) - 10)
        assert client.was_reset()
        server.wait_for_reset()
    denied(lab, reason="malformed")


def test_an_allowed_name_at_the_numbers_of_another_syn(lab):
    """The server has answered the first one."""
    evil = client_hello(EVIL)
    with raw(lab, ack=False) as (client, name, server):
        client.send(TCP_SYN, offset=-1 - 5000)
        client.send(TCP_ACK, 0)
        client.data(-5000, client_hello(name))
        time.sleep(0.2)
        client.data(0, evil)
        assert client.was_reset()
        server.wait_for_reset()
    denied(lab, reason="sni-mismatch")


def test_an_octet_before_the_beginning_asks_only_whether_the_server_is_there(lab):
    with raw(lab) as (client, name, server):
        hello = client_hello(name)
        client.data(-1, b"?")
        client.data(0, hello)
        server.wait(hello)
    nothing_denied(lab)


def test_a_large_request_in_one_packet(lab):
    """As offload brings it."""
    with recorded(lab) as (name, address, server), connect(lab, address) as sock:
        octets = f"POST / HTTP/1.1\r\nHost: {name}\r\nContent-Length: 500000\r\n\r\n".encode() + b"x" * 500000
        sock.sendall(octets)
        wait_until(lambda: len(server.received()) == len(octets), "not all of it has come", seconds=10)
        assert flow_mark(lab, sock.getsockname()[1]) == MARK_FLOW
    nothing_denied(lab)


def test_an_allowed_name_with_a_wrong_checksum(lab):
    evil = client_hello(EVIL)
    with raw(lab) as (client, name, server):
        client.data(0, client_hello(name), wrong_sum=True)
        time.sleep(0.2)
        client.data(0, evil)
        never_unread(server)


def test_a_hello_in_the_syn(lab):
    """TCP fast open: the server would have it before anybody has read it."""
    _, address, real = new_name(lab, app=lab.web2)
    with Sniffer(lab.inet, "up0") as uplink, RawTcp(lab.web2, lab.gw.mac("web0"), address, 443, 19999) as client:
        client.send(TCP_SYN, payload=client_hello(EVIL))
        time.sleep(1)
        assert [packet for packet in uplink.matching(destination=real) if packet.payload] == []
        assert uplink.matching(contains=EVIL.encode()) == []


# --- other protocols ---

def test_ssh_needs_a_word_in_the_policy(lab, ssh):
    done = ssh.run(lab.web1, "git.shop.example", "echo through the gateway")
    assert done.returncode == 255
    assert lab.gateway.log.wait(event="denied", reason="no-name", port=22)[0]["sni"] == "-"
    for keys in (ENFORCE + "without_name = allow\n", ENFORCE + "verify_ports = 443 80\n"):
        use(lab, keys)
        done = ssh.run(lab.web1, "git.shop.example", "echo through the gateway")
        assert (done.returncode, done.stdout) == (0, "through the gateway\n"), done.stderr
        nothing_denied(lab)


def test_only_the_verify_ports_are_read(lab):
    use(lab, ENFORCE + "verify_ports = 443\n")
    name, address, _ = new_name(lab)
    with lab.web1.connect(address, 80) as sock:
        assert talk(sock, "no name at all") == "no name at all"
    with connect(lab, address, 443) as sock:
        sock.sendall(client_hello(EVIL))
        assert is_reset(sock)
    assert denied(lab, reason="sni-mismatch")["name"] == name


def test_a_server_that_speaks_first(lab):
    """SMTP, for example: the client's answer has no name."""
    with recorded(lab, greeting=b"220 mail.example ESMTP\r\n") as (_, address, server), connect(lab, address) as sock:
        assert sock.recv(100).startswith(b"220 ")
        sock.sendall(b"EHLO me\r\n")
        assert is_reset(sock)
        server.wait_for_reset()
    denied(lab, reason="no-name")
    use(lab, ENFORCE + "without_name = allow\n")
    with recorded(lab, greeting=b"220 mail.example ESMTP\r\n") as (_, address, server), connect(lab, address) as sock:
        assert sock.recv(100).startswith(b"220 ")
        sock.sendall(b"EHLO me\r\n")
        server.wait(b"EHLO me\r\n")
    nothing_denied(lab)


def test_without_name_does_not_lift_another_name(lab):
    use(lab, ENFORCE + "without_name = allow\n")
    with recorded(lab) as (_, address, server), connect(lab, address) as sock:
        sock.sendall(client_hello(EVIL))
        assert is_reset(sock)
        server.wait_for_reset()
    denied(lab, reason="sni-mismatch")
    with recorded(lab) as (_, address, server), connect(lab, address) as sock:
        hello = client_hello(None)
        sock.sendall(hello)
        server.wait(hello)


# --- QUIC ---

def exchange(sock, *datagrams, seconds=2):
    """Send datagrams from one socket. Return: those that come back, as a set; what is refused comes back never."""
    answers = set()
    sock.settimeout(patience(seconds))
    for datagram in datagrams:
        with contextlib.suppress(OSError):  # the error of an earlier one
            sock.send(datagram)
    end = time.monotonic() + patience(seconds)
    while len(answers) < len(datagrams) and time.monotonic() < end:
        try:
            answers.add(sock.recv(65535))
        except OSError:
            continue
    return answers


@families
def test_a_quic_hello_passes(lab, family):
    name, address, real = new_name(lab, family)
    with Sniffer(lab.inet, "up0") as uplink:
        assert lab.web1.udp_result(address, payload=quic_packets.hello(name)) == "open"
        assert len(uplink.matching(destination=real)) == 1
    nothing_denied(lab)


@families
def test_a_quic_hello_with_another_name_does_not(lab, family):
    name, address, real = new_name(lab, family)
    with Sniffer(lab.inet, "up0") as uplink:
        assert lab.web1.udp_result(address, payload=quic_packets.hello(EVIL)) == "rejected"
        assert uplink.matching(destination=real) == []
    line = denied(lab, reason="sni-mismatch")
    assert (line["sni"], line["name"], line["proto"], line["port"]) == (EVIL, name, "udp", "443")


@families
@pytest.mark.parametrize("order", [1, -1], ids=["in-order", "reversed"])
def test_a_quic_hello_in_two_datagrams(lab, family, order):
    """Both reach the server from the same port, and its answers come back."""
    name, address, real = new_name(lab, family)
    datagrams = quic_packets.hello_in_two(name)[::order]
    with Sniffer(lab.inet, "up0") as uplink, lab.web1.udp(address, 443) as sock:
        assert exchange(sock, *datagrams) == set(datagrams)
        seen = uplink.matching(destination=real)
        assert {packet.payload for packet in seen} == set(datagrams) and len(seen) == 2
        assert len({(packet.source, packet.sport) for packet in seen}) == 1
        short = b"\x40" + bytes(30)
        assert exchange(sock, short) == {short}
    nothing_denied(lab)


@pytest.mark.parametrize("order", [1, -1], ids=["in-order", "reversed"])
def test_another_name_in_two_datagrams(lab, order):
    _, address, real = new_name(lab)
    with Sniffer(lab.inet, "up0") as uplink, lab.web1.udp(address, 443) as sock:
        assert exchange(sock, *quic_packets.hello_in_two(EVIL)[::order]) == set()
        assert uplink.matching(destination=real) == []
    denied(lab, reason="sni-mismatch")


def test_a_quic_version_that_nobody_knows(lab):
    _, address, real = new_name(lab)
    datagram = quic_packets.initial(quic_packets.connection_id(), b"\0", version=quic_packets.VERSION_UNKNOWN)
    with Sniffer(lab.inet, "up0") as uplink:
        assert lab.web1.udp_result(address, payload=datagram) == "rejected"
        assert uplink.matching(destination=real) == []
    assert denied(lab, reason="no-name")["sni"] == "-"
    use(lab, ENFORCE + "without_name = allow\n")
    assert lab.web1.udp_result(address, payload=datagram) == "open"


@pytest.mark.parametrize("datagram", [b"ping", b"\x40" + bytes(40), b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12)], ids=["text", "short-header", "stun"])
def test_other_datagrams(lab, datagram):
    _, address, real = new_name(lab)
    with Sniffer(lab.inet, "up0") as uplink:
        assert lab.web1.udp_result(address, payload=datagram) == "rejected"
        assert uplink.matching(destination=real) == []
    denied(lab, reason="no-name")
    use(lab, ENFORCE + "without_name = allow\n")
    assert lab.web1.udp_result(address, payload=datagram) == "open"
    use(lab, ENFORCE + "verify_ports = 80\n")
    assert lab.web1.udp_result(address, payload=datagram) == "open"


def test_datagrams_after_the_hello(lab):
    """Short headers do not come to the program, and what cannot be read passes: 0-RTT, a packet with the server's connection ID."""
    name, address, _ = new_name(lab)
    dcid = quic_packets.connection_id()
    with lab.web1.udp(address, 443) as sock:
        first = quic_packets.hello(name, dcid)
        assert exchange(sock, first) == {first}
        before = queued_packets(lab)
        for number in range(50):
            short = b"\x40" + bytes([number]) * 40
            assert exchange(sock, short) == {short}
        assert queued_packets(lab) == before
        assert flow_mark(lab, sock.getsockname()[1]) == MARK_DATAGRAMS
        for datagram in (quic_packets.zero_rtt(dcid), quic_packets.zero_rtt(quic_packets.connection_id())):
            assert exchange(sock, datagram) == {datagram}
    nothing_denied(lab)


def test_early_data_in_front_of_the_hello(lab):
    name, address, _ = new_name(lab)
    dcid = quic_packets.connection_id()
    datagrams = quic_packets.zero_rtt(dcid), quic_packets.hello(name, dcid)
    with lab.web1.udp(address, 443) as sock:
        assert exchange(sock, *datagrams) == set(datagrams)
    nothing_denied(lab)


@pytest.mark.parametrize("halves", [False, True], ids=["one", "halves"])
@pytest.mark.parametrize("same", [False, True], ids=["another-connection", "the-same-connection"])
def test_another_name_after_the_first_was_read(lab, same, halves):
    """On the same ports. The first hello need not have reached the server."""
    name, address, real = new_name(lab)
    dcid = quic_packets.connection_id()
    other = dcid if same else quic_packets.connection_id()
    with Sniffer(lab.inet, "up0") as uplink, lab.web1.udp(address, 443) as sock:
        first = quic_packets.hello(name, dcid)
        assert exchange(sock, first) == {first}
        evil = quic_packets.hello_in_two(EVIL, other) if halves else (quic_packets.hello(EVIL, other),)
        assert exchange(sock, *evil) == set()
        assert {packet.payload for packet in uplink.matching(destination=real)} == {first}
    assert lab.gateway.log.wait(event="denied", proto="udp")[0]["reason"] in ("sni-mismatch", "malformed")


def test_another_allowed_connection_on_the_same_ports(lab):
    name, address, _ = new_name(lab)
    with lab.web1.udp(address, 443) as sock:
        for datagrams in ((quic_packets.hello(name),), (quic_packets.hello(GOOD),), quic_packets.hello_in_two(name)):
            assert exchange(sock, *datagrams) == set(datagrams)
    nothing_denied(lab)


@pytest.mark.parametrize("same", [False, True], ids=["another-connection", "the-same-connection"])
def test_two_hellos_in_one_datagram(lab, same):
    name, address, real = new_name(lab)
    dcid = quic_packets.connection_id()
    good = quic_packets.initial(dcid, quic_packets.crypto(0, quic_packets.handshake_message(name)), size=600)
    evil = quic_packets.initial(dcid if same else quic_packets.connection_id(), quic_packets.crypto(0, quic_packets.handshake_message(EVIL)), size=600, number=1)
    for datagram in (good + evil, evil + good):
        with Sniffer(lab.inet, "up0") as uplink:
            assert lab.web1.udp_result(address, payload=datagram) == "rejected"
            assert uplink.matching(destination=real) == []
    lab.gateway.log.wait(event="denied", proto="udp")


def test_another_name_behind_a_packet_that_nobody_can_read(lab):
    """A server takes each packet of a datagram for itself."""
    name, address, real = new_name(lab)
    other = quic_packets.connection_id()
    garbled = bytearray(quic_packets.initial(other, quic_packets.PING, size=200))
    garbled[-1] ^= 1
    evil = quic_packets.initial(other, quic_packets.crypto(0, quic_packets.handshake_message(EVIL)), size=1000)
    with Sniffer(lab.inet, "up0") as uplink, lab.web1.udp(address, 443) as sock:
        first = quic_packets.hello(name)
        assert exchange(sock, first) == {first}
        for before in (bytes(garbled), quic_packets.zero_rtt(other, 150), quic_packets.zero_rtt(quic_packets.connection_id(), 150)):
            assert exchange(sock, before + evil) == set()
        assert {packet.payload for packet in uplink.matching(destination=real)} == {first}


def test_what_is_sent_again_passes(lab):
    """The client has had no answer to one of two datagrams."""
    name, address, _ = new_name(lab)
    first, second = quic_packets.hello_in_two(name)
    with lab.web1.udp(address, 443) as sock:
        assert exchange(sock, first, second) == {first, second}
        assert exchange(sock, second) == {second}
        assert exchange(sock, first) == {first}
    nothing_denied(lab)


def several(sock, *datagrams):
    """The kernel carries them as one packet."""
    sock.setsockopt(socket.IPPROTO_UDP, 103, quic_packets.DATAGRAM_SIZE)  # UDP_SEGMENT
    sock.send(b"".join(datagrams))
    sock.setsockopt(socket.IPPROTO_UDP, 103, 0)


def test_several_datagrams_in_one_call(lab):
    name, address, _ = new_name(lab)
    datagrams = quic_packets.hello_in_two(name)
    with lab.web1.udp(address, 443) as sock:
        several(sock, *datagrams)
        sock.settimeout(patience(3))
        assert {sock.recv(2000), sock.recv(2000)} == set(datagrams)
    nothing_denied(lab)


@pytest.mark.parametrize("between", [b"\0", b"\x40"], ids=["padding", "short-header"])
def test_another_name_in_the_second_of_several_datagrams(lab, between):
    name, address, real = new_name(lab)
    good = quic_packets.initial(quic_packets.connection_id(), quic_packets.crypto(0, quic_packets.handshake_message(name)), size=1100) + between * 100
    evil = quic_packets.hello(EVIL)
    with Sniffer(lab.inet, "up0") as uplink, lab.web1.udp(address, 443) as sock:
        several(sock, good, evil)
        time.sleep(1)
        assert uplink.matching(destination=real) == []


@pytest.mark.parametrize("evil", [False, True], ids=["allowed", "other"])
def test_a_hello_in_ip_fragments(lab, evil):
    name, address, real = new_name(lab)
    datagram = quic_packets.initial(quic_packets.connection_id(), quic_packets.crypto(0, quic_packets.handshake_message(EVIL if evil else name)), size=3000)
    with Sniffer(lab.inet, "up0") as uplink, lab.web1.udp(address, 443) as sock:
        sock.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: fragments are fine
        assert exchange(sock, datagram) == (set() if evil else {datagram})
        assert bool(uplink.matching(destination=real)) == (not evil)


# --- modes ---

@pytest.mark.parametrize("keys", ["verify = log\n", ENFORCE + "mode = audit\n"], ids=["log", "audit"])
def test_what_is_only_said(lab, keys):
    use(lab, keys)
    with recorded(lab) as (name, address, server), connect(lab, address) as sock:
        hello = client_hello(EVIL)
        sock.sendall(hello)
        server.wait(hello)
        line, = lab.gateway.log.wait(event="audit", reason="sni-mismatch", proto="tcp")
        assert (line["action"], line["sni"], line["name"], line["network"]) == ("allowed", EVIL, name, "web")
    name, address, _ = new_name(lab)
    assert lab.web1.udp_result(address, payload=quic_packets.hello(EVIL)) == "open"
    assert lab.gateway.log.wait(event="audit", reason="sni-mismatch", proto="udp")[0]["sni"] == EVIL
    assert lab.web1.udp_result(new_name(lab)[1], payload=b"ping") == "open"
    assert lab.gateway.log.wait(event="audit", reason="no-name", proto="udp")
    nothing_denied(lab)


def test_verify_off_reads_nothing(lab):
    use(lab, "verify = off\n")
    with recorded(lab) as (_, address, server), connect(lab, address) as sock:
        hello = client_hello(EVIL)
        sock.sendall(hello)
        server.wait(hello)
    lab.gateway.log.settle()
    assert lab.gateway.log.lines(reason="sni-mismatch") == []


def test_a_reload_while_a_hello_is_held(lab):
    with recorded(lab) as (name, address, server), connect(lab, address) as sock:
        hello = client_hello(name)
        sock.sendall(hello[:100])
        time.sleep(0.2)
        use(lab, ENFORCE + "verify_ports = 443 80 4430\n")
        sock.sendall(hello[100:])
        server.wait(hello)
    with recorded(lab) as (_, address, server), connect(lab, address) as sock:
        hello = client_hello(EVIL)
        sock.sendall(hello[:100])
        time.sleep(0.2)
        use(lab, "verify = off\n")
        sock.sendall(hello[100:])
        server.wait(hello)


def test_verified_flows_stay_over_a_reload(lab):
    with recorded(lab) as (name, address, server), connect(lab, address) as sock:
        hello = client_hello(name)
        sock.sendall(hello)
        server.wait(hello)
        use(lab, ENFORCE + "without_name = allow\n")
        sock.sendall(b"more")
        server.wait(hello + b"more")


# --- HTTPS records ---

def test_encrypted_hellos_are_not_offered(lab):
    """ECH would hide the name: the records that offer it lose it, in networks that verify."""
    lab.names.add("ech.shop.example", A="45.30.251.1")
    lab.names.behave("ech.shop.example", types=[65], answer=[["ech.shop.example", "HTTPS", 60, "1 . alpn=h3,h2 ech=AEX+DQBB"]])
    text = lab.web1.ask("ech.shop.example", "HTTPS").to_text()
    assert "alpn=" in text and "ech=" not in text
    assert "ech=" in lab.build1.ask("ech.shop.example", "HTTPS").to_text()


# --- when something breaks ---

def wait_for_new_worker(lab, old):
    wait_until(lambda: lab.gateway.worker() != old and lab.gateway.healthy(), "no new worker")


@pytest.mark.parametrize("evil", [False, True], ids=["allowed", "other"])
def test_a_worker_killed_in_the_middle_of_a_hello(lab, evil):
    """What it held is lost and comes again. An allowed hello arrives whole, or the flow is denied; another one never arrives."""
    with recorded(lab) as (name, address, server), connect(lab, address) as sock:
        hello = client_hello(EVIL if evil else name)
        sock.sendall(hello[:150])
        time.sleep(0.1)
        worker = lab.gateway.kill_worker()
        with contextlib.suppress(OSError):
            sock.sendall(hello[150:])
        wait_for_new_worker(lab, worker)
        if evil:
            assert is_reset(sock, 15)
            assert server.received() == b""
        else:
            wait_until(lambda: server.received() == hello or server.ends, "neither passed nor denied", seconds=15)
            assert server.received() in (hello, b"")


@pytest.mark.parametrize("evil", [False, True], ids=["allowed", "other"])
def test_a_handshake_while_no_worker_runs(lab, evil):
    """It waits: where the client's stream begins must be seen."""
    with recorded(lab) as (name, address, server), lab.web1.socket() as sock:
        hello = client_hello(EVIL if evil else name)
        lab.gateway.kill_worker(hold=True)
        sock.settimeout(patience(15))
        threading.Timer(1, lab.gateway.release).start()
        started = time.monotonic()
        sock.connect((address, PORT))
        assert time.monotonic() - started > 0.9 and server.received() == b""
        sock.sendall(hello)
        if evil:
            assert is_reset(sock)
            server.wait_for_reset()
        else:
            server.wait(hello)


def test_datagrams_while_no_worker_runs(lab):
    name, address, real = new_name(lab)
    lab.gateway.kill_worker(hold=True)
    with Sniffer(lab.inet, "up0") as uplink:
        assert lab.web1.udp_result(address, payload=quic_packets.hello(EVIL), seconds=0.5) == "timeout"
        assert uplink.matching(destination=real) == []
    lab.gateway.release()
    lab.gateway.wait_healthy()
    assert lab.web1.udp_result(address, payload=quic_packets.hello(name)) == "open"


def test_verified_flows_go_on_while_no_worker_runs(lab):
    with recorded(lab) as (name, address, server), connect(lab, address) as sock:
        hello = client_hello(name)
        sock.sendall(hello)
        server.wait(hello)
        lab.gateway.kill_worker(hold=True)
        sock.sendall(b"more")
        server.wait(hello + b"more")


@pytest.mark.parametrize("segments", [1, 8])
def test_a_flood_of_half_hellos_leaves_other_networks_alone(lab, segments):
    """Each flow holds packets until its time is up. Another network's names pass meanwhile; the own network's do afterwards."""
    name, address, _ = new_name(lab)
    other, other_address, _ = new_name(lab, app=lab.lan1)
    hello = client_hello(name)
    with contextlib.ExitStack() as stack:
        started = time.monotonic()
        for _ in range(1500):
            with contextlib.suppress(OSError):
                sock = stack.enter_context(lab.web1.connect(address, 443, seconds=0.1))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for number in range(segments):
                    sock.send(hello[number * 10:number * 10 + 10])
            if time.monotonic() - started > HELLO_SECONDS - 1:
                break
        with lab.lan1.connect(other_address, 443) as sock:
            sock.settimeout(patience(1))
            good = client_hello(other)
            sock.sendall(good + b"\n")
            assert is_beginning(sock.recv(100), good)
    wait_until(lambda: passes(lab, name, address), "the network's own flows never pass again", seconds=HELLO_SECONDS + 10)


def is_beginning(answer, hello):
    """The server answers line by line, and a line may end anywhere in a hello."""
    return answer != b"" and hello.startswith(answer[:80])


def passes(lab, name, address):
    hello = client_hello(name)
    try:
        with lab.web1.connect(address, 443, seconds=1) as sock:
            sock.sendall(hello + b"\n")
            return is_beginning(sock.recv(100), hello)
    except OSError:
        return False
