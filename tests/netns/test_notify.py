# SPDX-License-Identifier: MIT
"""Notifications: what is denied for the first time is told to a server, seldom, and nothing waits for it."""

import http.server
import json
import os
import shutil
import socket
import ssl
import threading
import time

import pytest

from app import send_anyway
from certificates import Authority
from gateway import UID
from lab import POLICY
from namespaces import patience, wait_until

ADDRESS, ADDRESS6, PORT, OTHER_PORT = "45.9.0.1", "2a0e:9::1", 8080, 8081
URL = f"http://{ADDRESS}:{PORT}/hook/secret-path"
COLLECT, GAP, RETRY = 2, 10, 10  # seconds: as notify.h and notify_pace.h have them


def with_notify(*lines, policy=POLICY):
    return policy.replace("[gateway]\n", "[gateway]\n" + "".join(f"{line}\n" for line in lines))


class Handler(http.server.BaseHTTPRequestHandler):
    """Modes of the server: ok, 500, redirect, silent (no answer), endless (an answer without an end)."""

    def do_POST(self):
        receiver = self.server.receiver
        body = self.rfile.read(int(self.headers["Content-Length"]))
        receiver.requests.append({"path": self.path, "headers": dict(self.headers), "body": body.decode(), "time": time.monotonic()})
        mode = receiver.mode
        if mode == "silent":
            receiver.closing.wait(60)
            return
        self.send_response({"500": 500, "redirect": 302}.get(mode, 200))
        if mode == "redirect":
            self.send_header("Location", f"http://{ADDRESS}:{OTHER_PORT}/")
        self.send_header("Connection", "close")
        self.end_headers()
        while mode == "endless" and not receiver.closing.is_set():
            self.wfile.write(b"x" * 65536)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # the client has gone: it need not read on


class Receiver:
    """A web server in the Internet, in threads of the test."""

    def __init__(self, lab, address=ADDRESS, port=PORT, certificate=None):
        self.requests, self.mode, self.closing = [], "ok", threading.Event()
        self.server = Server((address, port), Handler, bind_and_activate=False)
        self.server.receiver = self
        self.server.socket.close()
        self.server.socket = lab.inet.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        self.server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.server.socket.bind((address, port))
        self.server.socket.listen(64)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def messages(self):
        return [json.loads(request["body"]) for request in self.requests]

    def wait(self, count=1, seconds=COLLECT + GAP + 3):
        wait_until(lambda: len(self.requests) >= count, f"fewer than {count} requests", seconds)
        return self.requests[-1]

    def close(self):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver(own_lab):
    made = Receiver(own_lab)
    yield made
    made.close()


@pytest.fixture
def use(own_lab):
    """A function that puts a policy with these keys of [gateway] into force."""
    def put(*lines):
        own_lab.gateway.set_policy(with_notify(*lines))
    return put


def deny(lab, name="denied.evil.example"):
    lab.web1.ask(name)


def elements(lab):
    """What the kernel is open for."""
    sets = json.loads(lab.gw.run(["nft", "-j", "list", "sets"], check=True).stdout)["nftables"]
    found = [entry["set"] for entry in sets if "set" in entry and entry["set"]["name"] in ("notify4", "notify6")]
    return None if not found else [element for one in found for element in one.get("elem", [])]


def can_leave(lab, address, port):
    """Can a program of the gateway's user connect there?"""
    script = f"import socket; socket.create_connection(('{address}', {port}), 1)"
    return lab.gw.run(["setpriv", f"--reuid={UID}", "--clear-groups", "/usr/bin/python3", "-c", script]).returncode == 0


def test_first_denials_come_as_one_message(own_lab, receiver, use):
    use(f"notify = {URL}")
    address = own_lab.names.address()
    with own_lab.web1.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        send_anyway(sock, (address, 8443))
    deny(own_lab)
    deny(own_lab)
    request = receiver.wait()
    assert request["path"] == "/hook/secret-path" and request["headers"]["Content-Type"] == "application/json"
    assert "Authorization" not in request["headers"]
    message = receiver.messages()[0]
    assert message["title"] == "Sluice: 2 new denials" and message["more"] == 0 and message["dropped"] == 0
    question, flow = sorted(message["denials"], key=lambda denial: "dst" in denial)
    assert (question["event"], question["network"], question["src"], question["qname"]) == ("denied", "web", own_lab.web1.ipv4, "denied.evil.example")
    assert (flow["dst"], flow["port"], flow["proto"], flow["reason"]) == (address, 8443, "udp", "address-not-allowed")
    assert "`denied.evil.example`" in message["text"] and message["content"] == message["text"] and f"`{address}` port 8443/udp" in message["message"]
    # Not told twice; something new is, in the next message.
    deny(own_lab)
    deny(own_lab, "other.evil.example")
    receiver.wait(2)
    assert [denial["qname"] for denial in receiver.messages()[1]["denials"]] == ["other.evil.example"]
    assert receiver.requests[1]["time"] - receiver.requests[0]["time"] >= GAP - 0.5
    assert "secret-path" not in own_lab.gateway.log.text()


def test_the_kernel_is_open_only_for_the_server_and_only_meanwhile(own_lab, receiver, use):
    other = Receiver(own_lab, port=OTHER_PORT)
    try:
        assert elements(own_lab) is None and not can_leave(own_lab, ADDRESS, PORT)
        receiver.mode = "silent"
        use(f"notify = {URL}")
        assert elements(own_lab) == [] and not can_leave(own_lab, ADDRESS, PORT)
        deny(own_lab)
        receiver.wait()
        assert len(elements(own_lab)) == 1
        assert can_leave(own_lab, ADDRESS, PORT) and not can_leave(own_lab, ADDRESS, OTHER_PORT) and not can_leave(own_lab, "45.9.0.53", PORT)
        own_lab.gateway.set_policy(POLICY)
        assert elements(own_lab) is None and not can_leave(own_lab, ADDRESS, PORT)
        rules = own_lab.gw.nft_list("table", "inet", "sluice")
        assert "notify" not in rules
        time.sleep(GAP + COLLECT)
        assert len(receiver.requests) == 1
    finally:
        other.close()


def test_a_name_is_looked_up_by_our_upstreams_and_its_certificate_decides(own_lab, use):
    directory = os.path.join(own_lab.directory, "certificates")
    os.mkdir(directory, 0o755)
    authority = Authority(directory)
    os.chmod(authority.file, 0o644)
    token = os.path.join(directory, "token")
    with open(token, "w", encoding="ascii") as file:
        file.write("tk_secret\n")
    os.chmod(token, 0o644)
    own_lab.names.add("alias.hook.example", CNAME="hook.example.")
    own_lab.names.add("hook.example", A=ADDRESS, AAAA="2a0e:9::1")
    receiver = Receiver(own_lab, certificate=authority.issue("alias.hook.example"))
    try:
        lines = [f"notify = https://alias.hook.example:{PORT}/topic", "notify_format = ntfy", f"notify_token_file = {token}"]
        use(*lines)
        deny(own_lab)
        said = own_lab.gateway.log.wait(seconds=COLLECT + 5, event="message", level="warning")
        assert any("alias.hook.example: " in line["text"] and "local issuer certificate" in line["text"] and "notify_ca = FILE" in line["text"]
                   for line in said), said
        assert not receiver.requests
        use(*lines, f"notify_ca = {authority.file}")
        request = receiver.wait()
        assert request["path"] == "/topic" and request["headers"]["Authorization"] == "Bearer tk_secret"
        assert request["headers"]["Title"] == "Sluice: 1 new denial" and request["headers"]["Tags"] == "no_entry"
        assert request["body"] == "shop_web1_1 (network web) -> denied.evil.example (DNS A): name-not-allowed"
        assert "tk_secret" not in own_lab.gateway.log.text()
        assert "hook.example." not in own_lab.names.asked_of_docker()
        checked = own_lab.gateway.sluice("check", own_lab.gateway.policy_directory)
        assert "notify: alias.hook.example, port 8080, https, format ntfy" in checked.stdout
        assert "topic" not in checked.stdout and "tk_secret" not in checked.stdout
    finally:
        receiver.close()


def test_the_systems_authorities_and_ipv6_will_do(own_lab):
    """What is below /etc/netns is seen by programs of the namespace in the place of /etc."""
    gateway = own_lab.gateway
    gateway.stop()
    certificates = os.path.join("/etc/netns", own_lab.gw.name, "ssl", "certs")
    os.makedirs(certificates)
    authority = Authority(own_lab.directory)
    shutil.copy(authority.file, os.path.join(certificates, "ca-certificates.crt"))
    os.chmod(os.path.join(certificates, "ca-certificates.crt"), 0o644)
    own_lab.names.add("hook.example", AAAA=ADDRESS6)
    receiver = Receiver(own_lab, ADDRESS6, certificate=authority.issue("hook.example"))
    try:
        gateway.start(with_notify(f"notify = https://hook.example:{PORT}/"))
        deny(own_lab)
        receiver.wait()
        assert os.listdir(f"/proc/{gateway.worker()}/task") == [str(gateway.worker())], "no thread was started"
    finally:
        receiver.close()


def test_a_container_is_asked_of_dockers_resolver(own_lab, receiver, use):
    own_lab.names.add("ntfy", A=ADDRESS)
    before = own_lab.names.count()
    use(f"notify = http://ntfy:{PORT}/topic")
    deny(own_lab)
    receiver.wait()
    assert "ntfy." in own_lab.names.asked_of_docker() and own_lab.names.count() == before


def test_a_server_where_apps_are_is_not_written_to(own_lab, receiver, use):
    own_lab.names.add("ntfy", A=own_lab.web2.ipv4)
    use(f"notify = http://ntfy:{PORT}/topic")
    deny(own_lab)
    said = own_lab.gateway.log.wait(seconds=COLLECT + 5, event="message", level="warning")
    assert any(f"{own_lab.web2.ipv4} is inside of [network web]" in line["text"] for line in said), said
    assert elements(own_lab) == [] and not receiver.requests


@pytest.mark.parametrize("mode,wanted", [("down", "connect"), ("500", "HTTP status 500"), ("redirect", "redirects are not followed"),
                                         ("silent", "timed out"), ("endless", None)])
def test_nothing_waits_for_the_server(own_lab, use, mode, wanted):
    """Questions are answered and health is told while the server is away, slow, or does not end. One line says what is wrong."""
    receiver = None if mode == "down" else Receiver(own_lab)
    if receiver:
        receiver.mode = mode

    def said():
        return [line["text"] for line in own_lab.gateway.log.lines(event="message", level="warning") if "notification" in line["text"]]

    try:
        use(f"notify = {URL}")
        deny(own_lab)
        slowest, start, end = 0, time.monotonic(), time.monotonic() + patience(COLLECT + GAP + 3)
        while time.monotonic() < start + COLLECT + 2 or (wanted and not said()):
            assert time.monotonic() < end, own_lab.gateway.log.tail()
            name, address = own_lab.names.new("https.example")
            before = time.monotonic()
            assert own_lab.web1.resolve(name) == [address] and own_lab.gateway.healthy()
            slowest = max(slowest, time.monotonic() - before)
            time.sleep(0.05)
        assert slowest < patience(1)
        if wanted:
            assert len(said()) == 1 and f"to {ADDRESS}: " in said()[0] and wanted in said()[0], said()
        else:
            assert len(receiver.requests) == 1 and not said()
    finally:
        if receiver:
            receiver.close()


@pytest.mark.slow
def test_a_message_is_given_up_after_three_tries_and_the_next_one_says_so(own_lab, receiver, use):
    receiver.mode = "500"
    use(f"notify = {URL}")
    deny(own_lab)
    receiver.wait(3, seconds=COLLECT + RETRY + 3 * RETRY + 10)
    assert len({request["body"] for request in receiver.requests}) == 1
    receiver.mode = "ok"
    deny(own_lab, "later.evil.example")
    receiver.wait(4)
    message = receiver.messages()[3]
    assert [denial["qname"] for denial in message["denials"]] == ["later.evil.example"] and message["dropped"] == 1
    assert "1 earlier ones could not be told" in message["text"]
    own_lab.gateway.log.wait(event="message", level="info", text=f"notifications reach {ADDRESS} again")


def test_a_flood_of_denials_is_few_messages_with_exact_sums(own_lab, receiver, use):
    use(f"notify = {URL}")
    with own_lab.web1.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for number in range(5000):
            send_anyway(sock, (f"45.31.{number >> 8}.{number & 255}", 9999))
            time.sleep(0.0025)  # below the rate at which the kernel hands packets to the worker
    own_lab.gateway.log.settle()
    count = len(own_lab.gateway.log.lines(event="denied", port=9999))
    assert count > 4000

    def told():
        return sum(len(message["denials"]) + message["more"] for message in receiver.messages())

    wait_until(lambda: told() == count, "the messages tell of too few or too many", COLLECT + 3 * GAP)
    span = receiver.requests[-1]["time"] - receiver.requests[0]["time"]
    assert len(receiver.requests) <= 2 + span / GAP
    for message in receiver.messages():
        assert len(message["denials"]) <= 50 and len(message["content"]) <= 2000 and message["dropped"] == 0
    assert any(message["more"] > 1000 and "more" in message["text"] for message in receiver.messages())


def test_a_new_worker_does_not_repeat_what_was_told(own_lab, receiver, use):
    use(f"notify = {URL}")
    deny(own_lab)
    receiver.wait()
    time.sleep(0.5)
    own_lab.gateway.kill_worker()
    own_lab.gateway.wait_healthy()
    deny(own_lab)
    deny(own_lab, "new.evil.example")
    receiver.wait(2)
    assert [denial["qname"] for denial in receiver.messages()[1]["denials"]] == ["new.evil.example"]


def test_a_denial_that_waits_goes_to_the_new_url(own_lab, receiver, use):
    other = Receiver(own_lab, port=OTHER_PORT)
    try:
        receiver.mode = "silent"
        use(f"notify = {URL}")
        deny(own_lab)
        receiver.wait()
        use(f"notify = http://{ADDRESS}:{OTHER_PORT}/")
        other.wait()
        assert [denial["qname"] for denial in other.messages()[0]["denials"]] == ["denied.evil.example"]
    finally:
        other.close()
