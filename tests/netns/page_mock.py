#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The page without a gateway: a web server with the page's three files and made-up answers, for tests, screenshots and a look by hand.

    page_mock.py [PORT]    serve a small office that goes on working, until Ctrl-C
"""

import contextlib
import datetime
import http.server
import json
import os
import queue
import random
import sys
import threading
import time
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
PAGE = os.path.join(os.path.dirname(os.path.dirname(HERE)), "gateway", "report", "page")
FILES = {"": ("page.html", "text/html; charset=utf-8"), "page.css": ("page.css", "text/css; charset=utf-8"),
         "page.js": ("page.js", "text/javascript; charset=utf-8")}
CSP = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
       "frame-ancestors 'none'")
FIGURES = ("allowed", "denied", "audited", "open", "bytes_out", "bytes_in", "packets_out", "packets_in")


def stamp(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class World:
    """What a gateway would know: statistics that follow the events, and the log. `clock` is a constant for reproducible pictures."""

    def __init__(self, clock=None):
        self.clock = clock or time.time
        self.networks, self.rows, self.log, self.listeners = {}, {}, [], []
        self.advice, self.suggestions = {}, {}
        self.lock = threading.RLock()

    def network(self, name, mode="enforce"):
        return self.networks.setdefault(name, {"network": name, "mode": mode, **dict.fromkeys(FIGURES, 0), "reasons": []})

    def row(self, network, app, src, name, dst, port, proto, seconds):
        key = (network, app or src, name or dst, port, proto)
        return self.rows.setdefault(key, {
            "network": network, "app": app, "src": src, "name": name, "dst": dst, "port": port, "proto": proto, **dict.fromkeys(FIGURES, 0),
            "first_seen": seconds, "last_seen": seconds, "last_denied": None, "reason": None, "rule": None})

    def tell(self, event, network, app, src, name, dst=None, port=None, proto="tcp", reason=None, rule="default", ago=0, count=1, **more):
        """A decision. `proto` "dns": a question."""
        with self.lock:
            when = self.clock() - ago
            row = self.row(network, app, src, name, dst, port, proto, int(when))
            figure = {"denied": "denied", "audit": "audited", "allowed": "allowed"}[event]
            for place in (row, self.network(network)):
                place[figure] += count
                if event == "allowed":
                    for key in ("open", "bytes_out", "bytes_in"):
                        place[key] += more.pop(key, 0) if place is self.networks[network] else more.get(key, 0)
            row["last_seen"] = max(row["last_seen"], int(when))
            row["first_seen"] = min(row["first_seen"], int(when))
            if event != "allowed":
                row.update(last_denied=int(when), reason=reason, rule=rule)
            target = {"qname": name, "qtype": "A"} if proto == "dns" else {"dst": dst, "port": port, "proto": proto, "name": name}
            self.say({"ts": stamp(when), "event": event, "network": network, "src": src, "app": app, **target,
                      **({"reason": reason, "rule": rule} if reason else {}),
                      "action": "allowed" if event != "denied" else "nxdomain" if proto == "dns" else "reset", "count": 1, **more})

    def say(self, line):
        """A line of the log as it is."""
        with self.lock:
            self.log.append(line)
            for listener in self.listeners:
                listener.put(line)

    def stats(self):
        with self.lock:
            networks = [{**network, "rows": [{key: value for key, value in row.items() if key != "network"} for row in self.rows.values()
                                             if row["network"] == name]} for name, network in self.networks.items()]
            return {"ok": True, "now": int(self.clock()), "networks": networks}

    def advise(self, query):
        if query.get("reason") in self.advice:
            return self.advice[query["reason"]]
        target = query.get("name") or query.get("address") or ""
        ports = f":{query['port']}/{query['proto']}" if "port" in query else ""
        return {"ok": True, "section": f"network {query.get('network')}", "rule": target + ports, "line": f"allow = {target}{ports}",
                "opens": f"every app of network {query.get('network')} may reach {target}, on {'this port' if ports else 'every port'}", "change": None, "note": None}

    def suggest(self, network):
        return {"ok": True, "networks": [self.suggestions.get(network, {"network": network, "mode": "audit", "rules": [], "wildcards": [], "skipped": []})]}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):  # pylint: disable=redefined-builtin
        pass

    def reply(self, body, kind, status=200):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", CSP)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def json(self, value):
        self.reply(json.dumps(value).encode(), "application/json")

    def do_GET(self):
        mock, url = self.server.mock, urllib.parse.urlsplit(self.path)
        mock.requests.append(self.path)
        if not url.path.startswith(mock.prefix):
            return self.reply(b"not here", "text/plain", 404)
        path, query = url.path[len(mock.prefix):], dict(urllib.parse.parse_qsl(url.query))
        if path in FILES:
            with open(os.path.join(PAGE, FILES[path][0]), "rb") as file:
                return self.reply(file.read(), FILES[path][1])
        answers = {"api/stats": mock.world.stats, "api/log": lambda: mock.world.log[-int(query.get("lines", 100)):],
                   "api/advise": lambda: mock.world.advise(query), "api/suggest": lambda: mock.world.suggest(query.get("network"))}
        if mock.broken:
            return self.reply(b"too much at once", "text/plain", 503)
        if path in answers:
            return self.json(answers[path]())
        if path == "api/events" and mock.streams:
            return self.stream(mock.world)
        return self.reply(b"not here", "text/plain", 503 if path == "api/events" else 404)

    def stream(self, world):
        lines = queue.SimpleQueue()
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(b": hello\n\n")
        world.listeners.append(lines)
        try:
            while (line := lines.get()) is not None:
                self.wfile.write(f"data: {json.dumps(line)}\n\n".encode())
        except OSError:
            pass
        finally:
            world.listeners.remove(lines)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request, client_address):
        """The browser closes connections as it likes."""


class Mock:
    """Serves a world below `prefix` until the block is left; down() and up() as when a gateway is restarted."""

    def __init__(self, world, prefix="/", port=0, streams=True):
        self.world, self.prefix, self.port, self.streams = world, prefix, port, streams
        self.requests, self.server, self.broken = [], None, False

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    def up(self):
        self.server = Server(("127.0.0.1", self.port), Handler)
        self.server.mock = self
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def down(self):
        """Close the port; streams end, too."""
        self.server.shutdown()
        self.server.server_close()
        for listener in list(self.world.listeners):
            listener.put(None)

    def __enter__(self):
        self.up()
        return self

    def __exit__(self, *_):
        self.down()


# --- worlds ---

def office(clock=None):
    """Three networks of a small company at work."""
    world = World(clock)
    world.network("ci", "audit")
    world.network("mail")
    world.network("web")
    allowed = [
        ("web", "shop", "10.201.1.5", "api.payments.example", "203.0.113.20", 443, 1812, 3, 9_410_000, 31_800_000, 4),
        ("web", "shop", "10.201.1.5", "images.cdn.example", "203.0.113.41", 443, 2240, 6, 4_120_000, 812_000_000, 2),
        ("web", "search", "10.201.1.7", "packages.mirror.example", "198.51.100.8", 443, 34, 0, 210_000, 96_400_000, 5400),
        ("web", "worker", "10.201.1.6", "hooks.chat.example", "198.51.100.33", 443, 412, 0, 1_260_000, 940_000, 61),
        ("web", "worker", "10.201.1.6", "time.clock.example", "203.0.113.123", 123, 96, 0, 8_600, 8_600, 410),
        ("mail", "postfix", "10.201.2.4", "mx.relay.example", "203.0.113.25", 25, 318, 1, 48_200_000, 3_110_000, 18),
        ("mail", "rspamd", "10.201.2.5", "maps.filter.example", "198.51.100.61", 443, 58, 0, 166_000, 22_700_000, 1260),
    ]
    for network, app, src, name, dst, port, count, flows, sent, received, ago in allowed:
        world.tell("allowed", network, app, src, name, dst, port, "udp" if port == 123 else "tcp", ago=ago, count=count, open=flows, bytes_out=sent,
                   bytes_in=received)
        world.row(network, app, src, name, dst, port, "udp" if port == 123 else "tcp", 0)["first_seen"] = int(world.clock()) - 260_000
    refused = [
        ("denied", "web", "search", "10.201.1.7", None, "169.254.169.254", 80, "tcp", "special-address", "default", 42, 3, 170_000),
        ("denied", "web", "shop", "10.201.1.5", "metrics.tracker.example", None, None, "dns", "name-not-allowed", "default", 6, 1204, 260_000),
        ("denied", "web", "worker", "10.201.1.6", "ads.vendor.example", None, None, "dns", "denied-by-rule", "/etc/sluice/sluice.conf:31", 780, 44, 250_000),
        ("denied", "web", "worker", "10.201.1.6", "git.forge.example", "198.51.100.71", 22, "tcp", "port-not-allowed", "default", 233, 2, 233),
        ("denied", "web", "worker", "10.201.1.6", "git.forge.example", "198.51.100.71", 9418, "tcp", "port-not-allowed", "default", 231, 1, 231),
        ("denied", "mail", "rspamd", "10.201.2.5", None, "192.0.2.53", 53, "udp", "address-not-allowed", "default", 95, 61, 88_000),
        ("denied", "mail", "postfix", "10.201.2.4", None, "10.201.1.5", 5432, "tcp", "isolated", "default", 16_900, 2, 17_000),
        ("denied", "web", "search", "10.201.1.7", "q7f3k9x2m1.d4t4b8.exfil.example", None, None, "dns", "name-not-allowed", "default", 2, 7, 31),
        ("audit", "ci", "runner-2", "10.201.3.9", "registry.images.example", "203.0.113.77", 443, "tcp", "name-not-allowed", "default", 12, 86, 7_000),
        ("audit", "ci", "runner-1", "10.201.3.8", "proxy.modules.example", "203.0.113.78", 443, "tcp", "name-not-allowed", "default", 54, 312, 7_100),
        ("audit", "ci", "runner-1", "10.201.3.8", "deb.mirror.example", "198.51.100.9", 80, "tcp", "name-not-allowed", "default", 301, 40, 7_000),
    ]
    for event, network, app, src, name, dst, port, proto, reason, rule, ago, count, first in refused:
        world.tell(event, network, app, src, name, dst, port, proto, reason, rule, ago=ago, count=count)
        key = (network, app or src, name or dst, port, proto)
        world.rows[key]["first_seen"] = int(world.clock()) - first
    world.log.append({"ts": stamp(world.clock() - 21), "event": "ended", "network": "web", "src": "10.201.1.6", "app": "worker", "dst": "198.51.100.33", "port": 443,
                      "proto": "tcp", "name": "hooks.chat.example", "action": "allowed", "count": 1, "bytes_out": 3120, "bytes_in": 5840, "packets_out": 14,
                      "packets_in": 12, "duration": 412})
    world.log.append({"ts": stamp(world.clock() - 9), "event": "inbound", "network": "mail", "src": "198.51.100.201", "app": "postfix", "dst": "10.201.2.4", "port": 25,
                      "proto": "tcp", "published": 25, "rule": "/etc/sluice/sluice.conf:22", "action": "allowed", "count": 1})
    world.log.append({"ts": stamp(world.clock() - 3), "event": "denied", "network": "web", "src": "10.201.1.5", "app": "shop", "what": "questions",
                      "reason": "repeated", "action": "answered", "count": 19})
    world.log.sort(key=lambda line: line["ts"])
    world.advice = {
        "special-address": {"ok": True, "section": "network web", "rule": "169.254.169.254:80/tcp", "line": "allow = 169.254.169.254:80/tcp", "change": None,
                            "opens": "the metadata service of the host's cloud provider, with the credentials that it hands out, to every app of network web"},
        "isolated": {"ok": False, "error": "networks are isolated from each other; services that talk to each other need a network that they share"},
    }
    world.suggestions = {"ci": {
        "network": "ci", "mode": "audit",
        "rules": [
            {"rule": "deb.mirror.example:80/tcp", "name": "deb.mirror.example", "address": None, "ports": "80/tcp", "flows": 40, "questions": 12, "apps": ["runner-1"],
             "chain": ["edge-17.cdn.example"], "note": None, "more_apps": False, "known_as": None},
            {"rule": "proxy.modules.example:443/tcp", "name": "proxy.modules.example", "address": None, "ports": "443/tcp", "flows": 312, "questions": 40,
             "apps": ["runner-1", "runner-2"], "chain": [], "note": None, "more_apps": False, "known_as": None},
            {"rule": "registry.images.example:443/tcp", "name": "registry.images.example", "address": None, "ports": "443/tcp", "flows": 86, "questions": 9,
             "apps": ["runner-2"], "chain": [], "note": None, "more_apps": False, "known_as": None},
        ],
        "wildcards": [{"rule": "*.blobs.example:443/tcp", "parent": "blobs.example", "flows": 214, "names": [f"store-{number}.blobs.example" for number in range(1, 9)]}],
        "skipped": [{"what": "10.0.0.7:5432/tcp", "why": "special-purpose address"}]}}
    return world


def crowd(groups=2000):
    """More denials than a list shows."""
    world = World()
    world.network("web")
    for number in range(groups):
        world.tell("denied", "web", f"app-{number % 50}", f"10.201.1.{number % 50 + 2}", f"host-{number}.crowd.example", None, None, "dns", "name-not-allowed",
                   ago=1000 + number)
    return world


HOSTILE = ('<img src=x onerror="document.title=\'hurt\'">', "<script>document.title='hurt'</script>", "javascript:document.title='hurt'", "\"'><svg onload=alert(1)>",
           "__proto__", "constructor", "a" * 63 + "." + "b" * 63 + "." + "c" * 63 + ".evil.example", "\u202egnp.exe", "name\nallow = **.evil.example", "&lt;b&gt;&amp;")


def hostile():
    """Apps and names as an attacker would choose them, everywhere that text can come from."""
    world = World()
    world.network("web", "audit")
    for number, text in enumerate(HOSTILE):
        world.tell("denied", "web", text, f"10.201.1.{number + 2}", text, None, None, "dns", text, text, ago=number)
    world.advice = {text: {"ok": True, "section": text, "rule": text, "line": text, "opens": text, "change": text, "note": text} for text in HOSTILE}
    world.suggestions = {"web": {
        "network": "web", "mode": "audit", "skipped": [{"what": text, "why": text} for text in HOSTILE],
        "rules": [{"rule": text, "name": text, "address": None, "ports": text, "flows": 1, "questions": 1, "apps": [text], "chain": [text], "note": text, "more_apps": True,
                   "known_as": text} for text in HOSTILE],
        "wildcards": [{"rule": text, "parent": text, "names": [text], "flows": 1} for text in HOSTILE]}}
    return world


def go_on(world):
    """The office works: something happens every now and then."""
    rows = [row for row in world.rows.values() if row["app"]]
    while True:
        time.sleep(random.expovariate(3))
        row = random.choice(rows)
        event = "allowed" if row["allowed"] else "denied" if row["denied"] else "audit"
        world.tell(event, row["network"], row["app"], row["src"], row["name"], row["dst"], row["port"], row["proto"], row["reason"], row["rule"])
        if random.random() < 0.05:
            world.tell("denied", "web", "search", "10.201.1.7", f"{random.randrange(16 ** 8):08x}.exfil.example", None, None, "dns", "name-not-allowed")


def main():
    with Mock(office(), port=int(sys.argv[1]) if len(sys.argv) > 1 else 0) as mock, contextlib.suppress(KeyboardInterrupt):
        print(mock.url, flush=True)
        go_on(mock.world)


if __name__ == "__main__":
    main()
