# SPDX-License-Identifier: MIT
"""False answers, from whoever can send packets to the gateway but does not see its questions; and true servers that answer nonsense."""

import ipaddress
import socket
import struct

import dns.message
import dns.name
import pytest
from app import NoAnswer, data_of, rcode_of
from lab import DNS, DNS_SECOND, GATEWAY_UPLINK4
from namespaces import patience, wait_until
from packets import Sniffer, checksum, send_frame, udp_packet

EVIL = "45.31.210.1"


class Race:
    """A question on its way to a server that takes its time. `query`: as the server got it, which an attacker does not see."""

    def __init__(self, lab, delay=1.0):
        self.lab = lab
        self.name, self.good = lab.names.new("abcdefghijklmnop.https.example")
        lab.names.behave(self.name, delay=delay)
        before = lab.names.count()
        self.socket = lab.web1.udp("192.0.2.53", 53)
        self.socket.send(dns.message.make_query(self.name, "A", use_edns=0).to_wire())
        wait_until(lambda: lab.names.count() > before, "the question does not leave")
        self.query = lab.names.queries(before)[0]
        self.mac = lab.gw.mac("up0")

    def answer(self, address=EVIL, flags=0x8180, owner=None, question=None, ident=None, more=b"", counts=(1, 1, 0, 0), ttl=3600):
        """The bytes of an answer that is right but for what is given."""
        wire = self.query["wire"]
        end = wire.index(b"\0\0\1\0\1", 12) + 5
        question = wire[12:end] if question is None else question
        rr = (owner or b"\xc0\x0c") + struct.pack("!HHIH", 1, 1, ttl, 4) + ipaddress.ip_address(address).packed
        return struct.pack("!HHHHHH", *struct.unpack("!H", wire[:2]) if ident is None else [ident], flags, *counts) + question + rr + more

    def forge(self, payload, source=DNS, sport=53, port=None):
        """From the uplink's side."""
        send_frame(self.lab.inet, "up0", self.mac, udp_packet(source, sport, GATEWAY_UPLINK4, port or self.query["port"], payload))

    def result(self):
        self.socket.settimeout(patience(6))
        with self.socket:
            return dns.message.from_wire(self.socket.recv(4096))

    def is_won(self):
        """The app got the true answer, and the false one opened nothing."""
        return data_of(self.result(), "A") == [self.good] and self.lab.web1.tcp_result(self.good) == "open" and self.lab.web1.tcp_result(EVIL) == "refused"


WRONG = {
    "id": lambda race: race.forge(race.answer(ident=(race.query["wire"][0] << 8 | race.query["wire"][1]) ^ 1)),
    "port": lambda race: race.forge(race.answer(), port=race.query["port"] ^ 1),
    "source": lambda race: race.forge(race.answer(), source="45.9.0.77"),
    "source, which is a server's but not this one's": lambda race: race.forge(race.answer(), source=DNS_SECOND),
    "source, which is the gateway's own": lambda race: race.forge(race.answer(), source=GATEWAY_UPLINK4),
    "source, which is an app's": lambda race: race.forge(race.answer(), source=race.lab.web1.ipv4),
    "source port": lambda race: race.forge(race.answer(), sport=5353),
    "letters": lambda race: race.forge(race.answer(question=race.query["wire"][12:-15].swapcase() + b"\0\1\0\1")),
    "question": lambda race: race.forge(race.answer(question=dns.name.from_text("other.https.example").to_wire() + b"\0\1\0\1")),
    "type": lambda race: race.forge(race.answer(question=race.query["wire"][12:-15] + b"\0\x1c\0\1")),
    "class": lambda race: race.forge(race.answer(question=race.query["wire"][12:-15] + b"\0\1\0\3")),
    "no question": lambda race: race.forge(race.answer(question=b"", owner=dns.name.from_text(race.name).to_wire(), counts=(0, 1, 0, 0))),
    "two questions": lambda race: race.forge(race.answer(question=race.query["wire"][12:-11] * 2, counts=(2, 1, 0, 0))),
    "a question that is compressed": lambda race: race.forge(race.answer(question=b"\xc0\x0c\0\1\0\1")),
    "no response": lambda race: race.forge(race.answer(flags=0x0100)),
    "opcode": lambda race: race.forge(race.answer(flags=0xA180)),
    "cut short": lambda race: race.forge(race.answer()[:-3]),
    "more records than there are": lambda race: race.forge(race.answer(counts=(1, 9, 0, 0))),
    "a name that leads to itself": lambda race: race.forge(race.answer(owner=b"\xc0" + bytes([16 + len(race.name) + 2]))),
    "only a header": lambda race: race.forge(race.answer()[:12]),
    "nothing": lambda race: race.forge(b""),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_answer_with_one_thing_wrong_is_not_believed(lab, wrong):
    """Everything else is right: id, port, source, question, letters."""
    race = Race(lab)
    assert race.query["wire"].endswith(b"\0\0\x29\x04\xd0\0\0\0\0\0\0"), "the question ends in its OPT"
    WRONG[wrong](race)
    assert race.is_won()


def test_the_same_with_nothing_wrong_is_believed(lab):
    """So the tests above show something."""
    race = Race(lab)
    race.forge(race.answer("45.31.211.1"))
    assert data_of(race.result(), "A") == ["45.31.211.1"]


@pytest.mark.parametrize("guess", ["ids", "ports", "both"])
def test_thousands_of_guesses_before_the_true_answer(lab, guess):
    """Two of the three things that have to be guessed are given away, or one; the letters' case is a fourth."""
    race = Race(lab, delay=2.0)
    ident = race.query["wire"][0] << 8 | race.query["wire"][1]
    guesses = {"ids": [(number, race.query["port"]) for number in range(65536) if number != ident][:20000],
               "ports": [(ident, port) for port in range(1024, 21024) if port != race.query["port"]],
               "both": [(number * 7919 & 0xFFFF, 32768 + number % 28000) for number in range(20000)]}[guess]
    folded = race.query["wire"][12:-15].lower() + b"\0\1\0\1"
    with lab.inet.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        raw.bind(("up0", 0))
        ethernet = race.mac + raw.getsockname()[4] + b"\x08\0"
        for number, port in guesses:
            raw.send(ethernet + udp_packet(DNS, 53, GATEWAY_UPLINK4, port, race.answer(ident=number, question=folded)))
    assert race.is_won()


def test_letters_alone_that_are_guessed_wrong_do_not_turn_0x20_off(lab):
    """Somebody with the right id and port, a thousand times with wrong letters: nothing of it is believed, and other questions go on as before."""
    race = Race(lab)
    folded = race.query["wire"][12:-15].lower() + b"\0\1\0\1"
    for _ in range(1000):
        race.forge(race.answer(question=folded))
    assert race.is_won()
    before = lab.names.count()
    name, address = lab.names.new("abcdefghijklmnopqrstuvwxyz.https.example")
    assert lab.web1.resolve(name) == [address]
    asked = dns.message.from_wire(lab.names.queries(before)[0]["wire"]).question[0].name.to_text()
    assert asked != asked.lower(), "the next question has random letters again"


@pytest.mark.parametrize("who", ["web1", "web2", "build1", "lan1"])
@pytest.mark.parametrize("source", [DNS, "its own"])
def test_an_app_cannot_forge_an_upstream_answer(lab, who, source):
    """It shares no wire with the upstream, but its packets arrive at the gateway, too: here with everything right that an app could ever guess."""
    race, app = Race(lab), getattr(lab, who)
    app.tcp_result("45.12.1.66")  # so that it knows its gateway's MAC
    sender = DNS if source == DNS else app.ipv4
    for destination in (GATEWAY_UPLINK4, f"10.201.{ {'web': 1, 'build': 2, 'lan': 3}[app.network] }.1"):
        send_frame(app, "eth0", lab.gw.mac(f"{app.network}0"), udp_packet(sender, 53, destination, race.query["port"], race.answer()))
    assert race.is_won()


def test_an_app_cannot_race_the_upstream_for_its_own_name(lab):
    """It asks for the same name many times over: the questions are joined, so that there is one id and port to guess and not a hundred (RFC 5452)."""
    race = Race(lab)
    before = lab.names.count()
    with lab.web2.udp("192.0.2.53", 53) as sock:
        for _ in range(300):
            sock.send(dns.message.make_query(race.name, "A").to_wire())
        assert race.is_won()
    asked = [query for query in lab.names.queries(before) if race.name.encode()[:16].upper() in query["wire"].upper()]
    assert len(asked) <= 3, "one, and what is asked again after 700 ms"


def test_fragments_of_a_guess(lab):
    """A false answer of 2000 octets in two fragments, the second one first, and one that never comes; ids are guessed, so nothing comes of it."""
    race = Race(lab)
    padding = b"\xc0\x0c" + struct.pack("!HHIH", 16, 1, 60, 1700) + (b"\xa9" + b"x" * 169) * 10
    packet = udp_packet(DNS, 53, GATEWAY_UPLINK4, race.query["port"], race.answer(ident=7, more=padding, counts=(1, 2, 0, 0)))
    for offset in (1000, 0):
        piece = packet[20 + offset:][:1000] if offset == 0 else packet[20 + offset:]
        header = bytearray(packet[:20])
        struct.pack_into("!HHH", header, 2, 20 + len(piece), 0x4242, (0x2000 if offset == 0 else 0) | offset // 8)
        header[10:12] = b"\0\0"
        header[10:12] = struct.pack("!H", checksum(bytes(header)))
        send_frame(lab.inet, "up0", race.mac, bytes(header) + piece)
        if offset == 1000:
            header[4:6] = b"\x43\x43"
            header[10:12] = b"\0\0"
            header[10:12] = struct.pack("!H", checksum(bytes(header)))
            send_frame(lab.inet, "up0", race.mac, bytes(header) + piece)
    assert race.is_won()


def test_an_answer_after_the_deadline_opens_nothing(lab, names):
    """The app was told SERVFAIL; what comes then is for nobody, and is not kept."""
    race = Race(lab, delay=4.0)
    assert rcode_of(race.result()) == "SERVFAIL"
    ignored = stats_ignored(lab)
    race.forge(race.answer())
    wait_until(lambda: stats_ignored(lab) > ignored, "the late answer is not counted")
    assert lab.web1.tcp_result(EVIL) == "refused"
    names.reset()
    assert lab.web1.resolve(race.name) == [race.good]
    assert lab.web1.tcp_result(EVIL) == "refused"


def stats_ignored(lab):
    for line in lab.gw.run(["curl", "-s", "http://127.0.0.1:9780/metrics"]).stdout.splitlines():
        if line.startswith("sluice_dns_ignored_total "):
            return int(float(line.split()[1]))
    raise AssertionError("no such metric")


# --- a true server that answers nonsense ---

STRANGE = {
    # rcode, and sections with an address that must not open
    "NXDOMAIN with an address": {"as_rcode": "NXDOMAIN", "answer": "own"},
    "SERVFAIL with an address": {"as_rcode": "SERVFAIL", "answer": "own"},
    "REFUSED with an address": {"as_rcode": "REFUSED", "answer": "own"},
    "NOTIMP with an address": {"as_rcode": "NOTIMP", "answer": "own"},
    "FORMERR with an address": {"as_rcode": "FORMERR", "answer": "own"},
    "an address of the parent": {"answer": "parent"},
    "an address of a child": {"answer": "child"},
    "an address of the root": {"answer": "root"},
    "a referral with glue": {"answer": None, "authority": "referral", "additional": "glue"},
    "authority with an address": {"answer": None, "authority": "own"},
    "additional with an address": {"answer": None, "additional": "own"},
    "a wildcard as it is written": {"answer": "star"},
    "AAAA of four octets": {"answer": "short"},
    "A of sixteen octets": {"answer": "long"},
    "an alias in a circle, with an address": {"answer": "circle"},
    "an alias that is deaf": {"answer": "two aliases"},
}


@pytest.mark.parametrize("strange", STRANGE)
def test_no_address_of_a_strange_answer_opens(lab, names, web1, strange):
    name = names.new("https.example")[0]
    evil = names.address()
    octets = ipaddress.ip_address(evil).packed.hex()
    records = {
        None: [], "own": [[name, "A", 60, evil]], "parent": [["https.example", "A", 60, evil]], "child": [["www." + name, "A", 60, evil]], "root": [[".", "A", 60, evil]],
        "referral": [["https.example", "NS", 60, "ns.https.example."]], "glue": [["ns.https.example", "A", 60, evil], [name, "A", 60, evil]],
        "star": [["*.https.example", "A", 60, evil]], "short": [[name, "AAAA", 60, "hex:" + octets]], "long": [[name, "A", 60, "hex:" + octets * 4]],
        "circle": [[name, "CNAME", 60, "b." + name + "."], ["b." + name, "CNAME", 60, name + "."], [name, "A", 60, evil], ["b." + name, "A", 60, evil]],
        "two aliases": [[name, "CNAME", 60, "x.cdn.example."], [name, "CNAME", 60, "y.cdn.example."], ["y.cdn.example", "A", 60, evil]],
    }
    how = {key: records.get(value, value) for key, value in STRANGE[strange].items()}
    names.behave(name, **how)
    for kind in ("A", "AAAA"):
        try:
            web1.ask(name, kind, seconds=6)
        except NoAnswer:
            pytest.fail("no answer, not even SERVFAIL")
    assert web1.tcp_result(evil) == "refused"
    assert lab.gateway.healthy()


@pytest.mark.parametrize("ttl, most", [(0, 0), (1, 1), (2**31 - 1, 86400 * 2), (2**31, 0), (2**32 - 1, 0)])
def test_no_ttl_is_too_odd(names, web1, ttl, most):
    """Beyond 31 bits it is zero (RFC 2181); the longest one is shown no longer than the lease lasts, and cached for a day at most."""
    name, address = names.new("https.example")[0], names.address()
    names.behave(name, answer=[[name, "A", ttl, address]])
    answer = web1.ask(name)
    assert data_of(answer, "A") == [address] and answer.answer[0].ttl <= most
    assert web1.tcp_result(address) == "open"


def test_a_truncated_forgery_only_makes_us_ask_over_tcp(lab, names):
    """Somebody who guesses all of it can have a question asked again, where guessing is of no use."""
    race = Race(lab, delay=0.5)
    before = names.count()
    race.forge(race.answer(flags=0x8380))
    assert race.is_won()
    assert "tcp" in {query["transport"] for query in names.queries(before)}


def test_a_hundred_records_for_other_names_fill_no_cache(names, web1, build1):
    """An answer for one name brings others along, allowed for this network or another one: they are asked for themselves."""
    name, evil = names.new("https.example")[0], names.address()
    targets = [names.new("https.example") for _ in range(5)] + [names.new("build.example") for _ in range(5)]
    names.behave(name, answer=[[name, "A", 60, names.address()]] + [[target, "A", 3600, evil] for target, _ in targets] * 10,
                 authority=[[target, "A", 3600, evil] for target, _ in targets], additional=[[target, "A", 3600, evil] for target, _ in targets])
    assert len(web1.resolve(name, tcp=True)) == 1
    for target, address in targets:
        app = web1 if target.endswith("https.example") else build1
        assert app.resolve(target) == [address]
        assert app.tcp_result(evil) == "refused"


def test_the_uplink_sees_no_error_for_guesses(lab):
    """Port unreachable for wrong ports and silence for right ones would tell an attacker which ports are open."""
    race = Race(lab, delay=0.5)
    closed = next(port for port in range(20000, 30000) if port != race.query["port"])
    with Sniffer(lab.inet, "up0") as uplink:
        for port in (closed, race.query["port"]):
            race.forge(race.answer(ident=race.query["wire"][0] << 8 | race.query["wire"][1] ^ 1), port=port, source="45.9.0.77")
        assert race.is_won()
        errors = [packet for packet in uplink.packets() if packet.protocol == 1 and packet.source == GATEWAY_UPLINK4]
    assert errors == []
