# SPDX-License-Identifier: MIT
"""The page, its data and the metrics over HTTP: what is served, to whom, and what a client cannot do."""

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import time

import pytest

from lab import DNS, GATEWAY_UPLINK4, GATEWAY_UPLINK6, POLICY
from namespaces import patience, wait_until

PORT = 9780
PATHS = ("/", "/page.css", "/page.js", "/api/stats", "/api/log", "/metrics", "/healthz")
OF_GATEWAY = ("10.201.1.1", "10.201.1.2", "fdc9:1::1", "fdc9:1::2", "10.201.2.1", GATEWAY_UPLINK4, GATEWAY_UPLINK6)


def with_http(value):
    return POLICY.replace("[gateway]\n", f"[gateway]\nhttp = {value}\n", 1)


@contextlib.contextmanager
def connection(namespace, address="127.0.0.1", seconds=5):
    client = http.client.HTTPConnection(address, PORT)
    client.sock = namespace.connect(address, PORT, seconds)
    try:
        yield client
    finally:
        client.close()


def fetch(namespace, path, address="127.0.0.1", method="GET", **headers):
    """Return: the answer, its body in `.body`. Keywords are headers, with `_` for the dash."""
    with connection(namespace, address) as client:
        client.request(method, path, headers={key.replace("_", "-"): value for key, value in headers.items()})
        answer = client.getresponse()
        answer.body = answer.read()
        return answer


def fetch_json(namespace, path):
    answer = fetch(namespace, path)
    assert answer.status == 200 and answer.getheader("Content-Type") == "application/json", answer.body
    return json.loads(answer.body)


class Events:
    """A stream of events. `source`: our address; `receive`: octets that the kernel takes for us while we do not read."""

    def __init__(self, namespace, source="127.0.0.1", receive=None):
        self.sock = namespace.socket(socket.AF_INET)
        self.sock.bind((source, 0))
        if receive:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        self.sock.settimeout(patience(10))
        self.sock.connect(("127.0.0.1", PORT))
        self.client = http.client.HTTPConnection("127.0.0.1", PORT)
        self.client.sock = self.sock
        self.client.request("GET", "/api/events", headers={"Accept": "text/event-stream"})
        self.answer = self.client.getresponse()

    def lines(self):
        """What the data is, as JSON, until the stream ends."""
        while line := self.answer.readline():
            if line.startswith(b"data: "):
                yield json.loads(line[6:])

    def wait(self, **wanted):
        end = time.monotonic() + patience(10)
        for event in self.lines():
            assert time.monotonic() < end, f"no event with {wanted}"
            if all(event.get(key) == value for key, value in wanted.items()):
                return event
        raise AssertionError(f"the stream has ended without {wanted}")

    def close(self):
        self.client.close()
        self.sock.close()


@pytest.fixture
def gw(lab):
    return lab.gw


@pytest.fixture
def events(gw):
    stream = Events(gw)
    yield stream
    stream.close()


@pytest.mark.parametrize("path, kind", [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript"), ("/api/stats", "application/json"),
                                        ("/api/log", "application/json"),
                                        ("/metrics", "text/plain"), ("/healthz", "text/plain"), ("/api/events", "text/event-stream")])
def test_each_path_has_its_type_and_the_security_headers(gw, path, kind):
    answer = fetch(gw, path, method="HEAD")
    assert answer.status == 200 and answer.body == b""
    assert answer.getheader("Content-Type").partition(";")[0] == kind
    policy = answer.getheader("Content-Security-Policy")
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert answer.getheader("X-Content-Type-Options") == "nosniff"
    assert answer.getheader("Referrer-Policy") == "no-referrer"
    assert answer.getheader("Cache-Control") == "no-store"
    assert answer.getheader("Access-Control-Allow-Origin") is None


def test_the_page_loads_nothing_from_elsewhere(gw):
    page = fetch(gw, "/").body.decode()
    found = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert found, page
    for link in found:
        assert not re.match(r"(?:[a-z]+:)?//", link), link
        if not link.startswith(("#", "data:")):
            assert fetch(gw, "/" + link.removeprefix("./").removeprefix("/")).status == 200, link


def test_the_data_is_what_the_control_socket_says(gw, lab, web1):
    assert web1.resolve("page.evil.example") == []
    lab.gateway.log.wait(event="denied", qname="page.evil.example")
    stats = fetch_json(gw, "/api/stats?network=web")
    assert stats["ok"] is True and [network["network"] for network in stats["networks"]] == ["web"]
    rows = [row for row in stats["networks"][0]["rows"] if row["name"] == "page.evil.example"]
    assert rows and rows[0]["denied"] >= 1
    assert {network["network"] for network in fetch_json(gw, "/api/stats")["networks"]} >= {"web", "build", "lan"}
    log = fetch_json(gw, "/api/log?lines=5&denied=1")
    assert len(log) <= 5 and log[-1]["event"] == "denied" and log[-1]["qname"] == "page.evil.example"


def test_advice_and_suggestions_come_too(gw):
    advice = fetch_json(gw, "/api/advise?network=web&name=page.evil.example&port=443&proto=tcp&reason=name-not-allowed")
    assert advice["ok"] is True and advice["rule"].startswith("page.evil.example"), advice
    assert fetch_json(gw, "/api/advise?network=nothere&name=a.example&port=443&proto=tcp&reason=name-not-allowed")["ok"] is False
    suggestion = fetch_json(gw, "/api/suggest?network=web&denied=1")
    assert [network["network"] for network in suggestion["networks"]] == ["web"]


@pytest.mark.parametrize("path", ["/api/log?lines=0", "/api/log?lines=x", "/api/log?lines=99999999", "/api/advise?port=70000", "/api/stats?network=%ff"])
def test_arguments_that_mean_nothing_are_400(gw, path):
    assert fetch(gw, path).status == 400


@pytest.mark.parametrize("path", ["/nothere", "//", "/../etc/passwd", "/page.html", "/api", "/api/reload", "/api/health", "/metrics/"])
def test_other_paths_are_404(gw, path):
    assert fetch(gw, path).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_nothing_but_get_and_head(gw, method):
    for path in PATHS:
        answer = fetch(gw, path, method=method)
        assert answer.status == 405 and answer.getheader("Allow") == "GET, HEAD", path


@pytest.mark.parametrize("host, status", [("127.0.0.1:9780", 200), ("[::1]:9780", 200), ("localhost", 200), ("gateway:9780", 200), ("192.0.2.1", 200),
                                          ("rebind.evil.example", 403), ("rebind.evil.example:9780", 403), ("localhost.evil.example", 403),
                                          ("127.0.0.1.evil.example", 403), ("gateway.", 403), ("", 403), ("a b", 403)])
def test_a_name_that_others_can_point_at_us_is_refused(gw, host, status):
    for path in ("/", "/page.js", "/api/stats", "/api/log"):
        assert fetch(gw, path, Host=host).status == status, path
    assert fetch(gw, "/metrics", Host=host).status == 200
    assert fetch(gw, "/healthz", Host=host).status == 200


def test_a_connection_serves_several_requests(gw):
    with connection(gw) as client:
        for path in PATHS:
            client.request("GET", path)
            answer = client.getresponse()
            assert (answer.status, bool(answer.read())) == (200, True), path


def test_what_is_too_large_is_refused(gw):
    assert fetch(gw, "/?" + "a" * 30000).status in (400, 414, 431)
    assert fetch(gw, "/", X_Large="a" * 30000).status in (400, 431)
    with connection(gw) as client:
        client.sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
        client.sock.settimeout(patience(5))
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                client.sock.sendall(b"x" * 10000)
    assert fetch(gw, "/healthz").status == 200


# --- metrics ---

def promtool(*arguments, text=None):
    if shutil.which("promtool") is None:
        pytest.fail("promtool is not installed: apt-get install prometheus")
    done = subprocess.run(["promtool", *arguments], input=text, capture_output=True, encoding="utf-8", check=False)
    return done.returncode, done.stdout + done.stderr


def samples(text):
    """{name with labels: value}"""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def metrics(gw):
    return samples(fetch(gw, "/metrics").body.decode())


def test_metrics_are_good_to_promtool(gw):
    text = fetch(gw, "/metrics").body.decode()
    status, said = promtool("check", "metrics", text=text)
    assert status == 0 and not said, said
    values = samples(text)
    assert len(values) == len([line for line in text.splitlines() if not line.startswith("#")]), "each sample is there once"
    assert values["sluice_networks"] == 3 and values["sluice_healthy"] == 1
    assert values["sluice_conntrack_limit"] > 0 and values["process_resident_memory_bytes"] > 1e6
    assert abs(values["process_start_time_seconds"] - time.time()) < 86400


def test_metrics_come_as_openmetrics_too(gw):
    answer = fetch(gw, "/metrics", Accept="application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
    text = answer.body.decode()
    assert answer.getheader("Content-Type") == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert text.endswith("# EOF\n")
    families = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M)
    assert len(families) == len(set(families)) > 20
    assert all(not name.endswith("_total") for name, _ in families)
    kinds = {"counter": "_total", "info": "_info", "gauge": ""}
    wanted = {name + kinds[kind] for name, kind in families}
    assert {name.partition("{")[0] for name in samples(text)} == wanted
    assert {name.partition("{")[0] for name in metrics(gw)} == wanted, "both formats tell the same"


def test_metrics_count_denials_by_network_and_reason(gw, web1, log):
    key = 'sluice_denied_total{network="web",reason="name-not-allowed"}'
    before = metrics(gw)
    assert web1.resolve("count.evil.example") == []
    log.wait(event="denied", qname="count.evil.example")
    after = metrics(gw)
    assert after[key] > before[key]
    assert after["sluice_dns_questions_total"] > before["sluice_dns_questions_total"]
    assert after["sluice_dns_denied_total"] > before["sluice_dns_denied_total"]
    assert after['sluice_denied_total{network="build",reason="name-not-allowed"}'] == before['sluice_denied_total{network="build",reason="name-not-allowed"}']


def test_no_label_comes_from_an_app(gw, web1, log):
    assert web1.resolve("label.evil.example") == []
    log.wait(event="denied", qname="label.evil.example")
    text = fetch(gw, "/metrics").body.decode()
    assert "evil" not in text and "web1" not in text and web1.ipv4 not in text
    labels = {label for name in samples(text) for label in re.findall(r"(\w+)=", name)}
    assert labels == {"version", "network", "reason", "direction", "cause"}


def test_metrics_count_reloads_that_failed(gw, lab):
    before = metrics(gw)["sluice_policy_reload_failures_total"]
    lab.gateway.write_policy("[gateway]\nhttp = nonsense\n")
    assert lab.gateway.sluice("reload").returncode == 1
    try:
        assert metrics(gw)["sluice_policy_reload_failures_total"] > before, "and the listener of before is still there"
        assert metrics(gw)["sluice_policy_last_reload_successful"] == 0
    finally:
        lab.gateway.set_policy(POLICY)
    assert metrics(gw)["sluice_policy_last_reload_successful"] == 1


def test_healthz_says_why_not(own_lab):
    assert fetch(own_lab.gw, "/healthz").body == b"ok\n"
    own_lab.gw.ip("link delete up0\n")
    wait_until(lambda: fetch(own_lab.gw, "/healthz").status == 503, "healthy without an uplink")
    assert b"uplink" in fetch(own_lab.gw, "/healthz").body
    assert metrics(own_lab.gw)["sluice_healthy"] == 0


# --- to whom ---

def reachable(namespace, addresses):
    return [address for address in addresses if namespace.tcp_result(address, PORT, 1) == "open"]


def test_by_default_only_loopback(gw, lab, web1):
    assert fetch(gw, "/healthz").status == 200
    assert reachable(lab.inet, (GATEWAY_UPLINK4, GATEWAY_UPLINK6)) == []
    assert reachable(web1, OF_GATEWAY) == []
    lab.gateway.log.wait(event="denied", network="web", port=PORT, reason="isolated")
    assert str(PORT) not in gw.nft_list("chain", "inet", "sluice", "uplink_input")


def test_open_to_the_uplink_and_to_no_app(gw, lab, policy, web1, build1):
    policy(with_http(f"0.0.0.0:{PORT} [::]:{PORT}"))
    for address in (GATEWAY_UPLINK4, GATEWAY_UPLINK6):
        assert fetch(lab.inet, "/healthz", address).status == 200
    for address in ("127.0.0.1", "::1"):
        assert fetch(gw, "/healthz", address).status == 200
    for app in (web1, build1):
        assert reachable(app, OF_GATEWAY) == []
    lab.gateway.log.wait(event="denied", network="build", port=PORT, reason="isolated")
    lab.inet.ip(f"route add 10.201.1.0/24 via {GATEWAY_UPLINK4}\n")
    try:
        assert reachable(lab.inet, ("10.201.1.1", "10.201.1.2")) == [], "an address of a network, from the uplink"
    finally:
        lab.inet.ip("route delete 10.201.1.0/24\n")
    assert lab.inet.tcp_result(GATEWAY_UPLINK4, PORT + 1, 1) == "timeout", "no other port"
    policy(with_http("off"))
    assert reachable(lab.inet, (GATEWAY_UPLINK4, GATEWAY_UPLINK6)) == []
    assert reachable(gw, ("127.0.0.1", "::1")) == []
    assert str(PORT) not in gw.nft_list("chain", "inet", "sluice", "uplink_input")


def test_one_address_of_the_uplink(gw, lab, policy):
    policy(with_http(f"{GATEWAY_UPLINK4}:{PORT}"))
    assert fetch(lab.inet, "/healthz", GATEWAY_UPLINK4).status == 200
    assert reachable(lab.inet, (GATEWAY_UPLINK6,)) == []
    assert reachable(gw, ("127.0.0.1",)) == []


def test_a_reload_keeps_the_connections_of_listeners_that_stay(gw, policy, web1, events):
    policy(with_http(f"127.0.0.1:{PORT} {GATEWAY_UPLINK4}:{PORT}"))
    assert web1.resolve("stays.evil.example") == []
    assert events.wait(qname="stays.evil.example")
    policy(with_http("off"))
    assert list(events.lines()) == [], "the stream ends with its listener"


def test_an_address_that_cannot_be_opened_is_said_and_tried_again(own_lab):
    own_lab.gateway.set_policy(with_http(f"127.0.0.1:{PORT} 45.9.0.99:{PORT}"))
    own_lab.gateway.log.wait(event="message", level="error")
    own_lab.gateway.set_policy(with_http(f"127.0.0.1:{PORT} 45.9.0.99:{PORT}") + "allow = more.example\n")
    said = [line["text"] for line in own_lab.gateway.log.lines(level="error")]
    assert len(said) == 1 and said[0].startswith(f"http: 45.9.0.99:{PORT} cannot be opened: Cannot assign requested address"), said
    assert fetch(own_lab.gw, "/healthz").status == 200
    own_lab.gw.ip("addr add 45.9.0.99/24 dev up0\n")
    wait_until(lambda: reachable(own_lab.inet, ("45.9.0.99",)), "not opened when the address came")


def test_a_gateway_starts_without_its_port(bare_lab):
    with bare_lab.gw.socket(socket.AF_INET) as taken:
        taken.bind(("127.0.0.1", PORT))
        taken.listen()
        bare_lab.gateway.start(POLICY)
        bare_lab.gateway.log.wait(event="message", level="error")
        assert "Address already in use" in bare_lab.gateway.log.lines(level="error")[0]["text"]


def test_the_page_comes_back_with_another_worker(own_lab):
    assert fetch(own_lab.gw, "/").status == 200
    own_lab.gateway.kill_worker()
    own_lab.gateway.wait_healthy()
    assert fetch(own_lab.gw, "/").status == 200
    assert metrics(own_lab.gw)["sluice_worker_restarts_total"] == 1


# --- events ---

def test_events_deliver_a_denial_as_it_happens(events, web1):
    assert events.answer.status == 200 and events.answer.getheader("Content-Type") == "text/event-stream"
    assert events.answer.readline() == b"retry: 3000\n"
    assert web1.resolve("now.evil.example") == []
    event = events.wait(event="denied", qname="now.evil.example")
    assert event["network"] == "web" and event["reason"] == "name-not-allowed"
    assert web1.tcp_result("45.12.1.67") == "refused"
    assert events.wait(event="denied", dst="45.12.1.67")["port"] == 443


def test_streams_are_bounded_and_those_of_clients_that_are_gone_do_not_count(gw, web1):
    streams = [Events(gw, f"127.0.0.{1 + i // 8}") for i in range(16)]
    try:
        assert [stream.answer.status for stream in streams] == [200] * 16
        refused = Events(gw, "127.0.0.9")
        assert refused.answer.status == 503 and refused.answer.getheader("Retry-After")
        refused.close()
        assert fetch(gw, "/healthz").status == 200
        streams.pop().close()
        streams.append(Events(gw, "127.0.0.9"))
        if streams[-1].answer.status == 503:  # the first try found out that it was gone
            streams.pop().close()
            streams.append(Events(gw, "127.0.0.9"))
        assert streams[-1].answer.status == 200
        assert web1.resolve("all.evil.example") == []
        for stream in streams:
            assert stream.wait(qname="all.evil.example")
    finally:
        for stream in streams:
            stream.close()


def flood(app, count):
    """Denied flows, each with a line of its own."""
    with app.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for i in range(count):
            sock.sendto(b"x", (f"45.31.{128 + (i >> 8)}.{i & 255}", 443))
            time.sleep(0.003)


def test_a_slow_reader_loses_lines_and_is_told(gw, web1):
    slow = Events(gw, receive=4096)
    try:
        before = metrics(gw)["process_resident_memory_bytes"]
        flood(web1, 3000)
        grown = metrics(gw)["process_resident_memory_bytes"] - before
        seen = 0
        for event in slow.lines():
            if event["event"] == "log-lost":
                break
            seen += event["event"] == "denied"
        assert event["count"] > 0 and 0 < seen < 3000
        assert web1.resolve("after.evil.example") == []
        assert slow.wait(qname="after.evil.example"), "what comes now arrives"
        assert grown < 32e6 or "asan" in os.environ.get("SLUICE_BINARY", ""), grown  # AddressSanitizer keeps what is freed
    finally:
        slow.close()


# --- bounds ---

def answered(sock):
    with contextlib.suppress(OSError):
        return sock.recv(4096).startswith(b"HTTP/1.1 200")
    return False


def serves(sock):
    """Is it a connection that is answered, or one that was closed at once?"""
    try:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return sock.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def open_from(gw, source):
    sock = gw.socket(socket.AF_INET)
    sock.bind((source, 0))
    sock.settimeout(patience(5))
    sock.connect(("127.0.0.1", PORT))
    return sock


def test_one_client_cannot_take_all_connections(gw):
    taken = [open_from(gw, "127.0.2.1") for _ in range(40)]
    try:
        assert sum(serves(sock) for sock in taken) == 16
        taken.append(open_from(gw, "127.0.2.2"))
        assert serves(taken[-1])
    finally:
        for sock in taken:
            sock.close()
    wait_until(lambda: metrics(gw), "not served after the flood")


def test_a_flood_of_connections_is_bounded_and_harms_no_app(gw, web1, names):
    name, address = names.new("https.example")
    taken = []
    try:
        for client in range(10):
            for _ in range(20):
                sock = gw.socket(socket.AF_INET)
                sock.bind((f"127.0.1.{client + 1}", 0))
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", PORT))
                taken.append(sock)
        assert web1.resolve(name) == [address]
        assert web1.tcp_result(address) == "open"
        for sock in taken:
            with contextlib.suppress(OSError):
                sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(1)
        assert 0 < sum(answered(sock) for sock in taken) <= 64
    finally:
        for sock in taken:
            sock.close()
    wait_until(lambda: metrics(gw), "not served after the flood")


def test_dns_is_asked_of_nobody_for_the_page(gw, names):
    before = names.count()
    for path in PATHS:
        fetch(gw, path)
    assert names.count() == before, f"{DNS} was asked"
