# SPDX-License-Identifier: MIT
"""The other recipes, each as its README says."""

import os
import re

import pytest

from engine import ROOT, WORK
from test_quickstart import h3get
from world import ELSEWHERE4

OK, NO_SUCH_HOST, REFUSED = 0, 6, 7  # curl's words


def fetch(project, service, url):
    return project.curl(service, url)[0]


def test_per_domain(project):
    one = project("per-domain").up()
    assert fetch(one, "github-app", "https://github.com/") == OK, one.logs()
    assert fetch(one, "web-app", "https://example.com/") == OK
    assert fetch(one, "web-app", "http://example.com/") == OK
    assert one.python("quic-app", h3get(), "quic.nginx.org").stdout.strip() == "quic.nginx.org over HTTP/3.0"
    for app, name in (("github-app", "example.com"), ("web-app", "github.com"), ("quic-app", "github.com")):
        assert fetch(one, app, f"https://{name}/") == NO_SUCH_HOST
        one.wait_log("event=denied", f"network={app.removesuffix('-app')}", f"name={name}")
    # github.com and example.com have the same address here; only port 22 tells that the lease is the other network's.
    assert fetch(one, "github-app", "telnet://github.com:22") != NO_SUCH_HOST
    address = one.engine.inspect(one.container("web-app"), "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
    status, text, seconds = one.curl("github-app", f"http://{address}/")
    assert status == REFUSED and seconds < 3, text
    one.wait_log("event=denied", "network=github", f"dst={address}")


def test_self_hosted(project):
    one = project("self-hosted").up()
    assert fetch(one, "app", "https://gemini.google.com/") == OK, one.logs()
    assert fetch(one, "app", "https://example.org/") == NO_SUCH_HOST
    assert fetch(one, "app", f"https://{ELSEWHERE4}/") == REFUSED
    database = one.exec("app", "sh", "-c", "curl -sS telnet://database:6379 </dev/null && echo connected")
    assert "connected" in database.stdout, database.stdout
    stored = one.exec("app", "python3", "-c", "import socket\ns = socket.create_connection(('database', 6379), 5)\ns.sendall(b'PING\\r\\n')\nprint(s.recv(9))")
    assert "PONG" in stored.stdout
    assert "default via 10.201.20.1" in one.exec("app", "ip", "route").stdout
    assert "default" not in one.exec("database", "ip", "route").stdout


def test_ai_agent_audits_first_and_enforces_then(project, world):
    one = project("ai-agent").up()
    assert fetch(one, "agent", "https://github.com/") == OK, one.logs()
    assert fetch(one, "agent", "https://api.anthropic.com/") == OK
    assert fetch(one, "agent", "https://example.net/") == OK, "audit mode lets it pass:\n" + one.logs()
    one.wait_log("event=audited", "name=example.net")
    names = one.engine.run(["sh", "-c", "docker logs " + one.container("gateway")
                            + " | grep -o 'event=audited .* name=[^ ]*' | grep -o 'name=.*' | sort | uniq -c | sort -rn"]).stdout
    assert "name=example.net" in names
    one.edit("policy/sluice.conf", ("mode   = audit", ";mode  = audit"))
    one.wait_log("reloaded")
    assert fetch(one, "agent", "https://example.net/") == NO_SUCH_HOST
    assert fetch(one, "agent", "https://github.com/") == OK
    one.exec("agent", "sh", "-c", "echo seen >/work/here")
    assert os.path.exists(os.path.join(one.directory, "work", "here"))


def test_behind_proxy(project):
    one = project("behind-proxy").up()
    page = one.engine.run(["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do exec 3<>/dev/tcp/127.0.0.1/8080 && break; sleep 1; done 2>/dev/null; true"]).stdout
    assert page == ""
    import urllib.request  # pylint: disable=import-outside-toplevel
    with urllib.request.urlopen("http://127.0.0.1:8080/", timeout=20) as answer:
        assert answer.status == 200
    assert fetch(one, "app", "https://api.vendor.example/") == OK, one.logs()
    assert fetch(one, "app", "https://example.org/") == NO_SUCH_HOST


def test_shared_gateway(project, engine):
    gateway = project("shared-gateway/gateway", "gateway").up()
    shop = project("shared-gateway/shop", "shop").up(healthy=())
    blog = project("shared-gateway/blog", "blog").up(healthy=())
    assert fetch(shop, "app", "https://example.com/") == OK, gateway.logs()
    assert fetch(blog, "app", "https://example.net/") == OK
    assert fetch(blog, "app", "https://example.com/") == NO_SUCH_HOST
    assert fetch(shop, "app", "https://example.net/") == NO_SUCH_HOST
    readme = os.path.join(ROOT, "compose", "shared-gateway", "README.md")
    commands = [text for text in blocks(readme) if "docker network create" in text]
    assert len(commands) == 1
    try:
        engine.run(["sh", "-ec", commands[0]], WORK)
        gateway.wait_log("wiki")
        engine.docker("run", "-d", "--name", "wiki", "--init", "--network", "sluice-wiki", "--dns", "192.0.2.53", "--cap-drop", "NET_RAW",
                      "--entrypoint", "sleep", "curlimages/curl:8.11.1", "infinity")
        done = engine.docker("exec", "wiki", "curl", "-sS", "--max-time", "15", "https://example.org/", check=False)
        assert done.returncode == OK, done.stdout + gateway.logs()
        done = engine.docker("exec", "wiki", "curl", "-sS", "--max-time", "15", "https://example.com/", check=False)
        assert done.returncode == NO_SUCH_HOST
        assert fetch(shop, "app", "https://example.com/") == OK
    finally:
        engine.docker("rm", "-f", "wiki", check=False)
        engine.docker("network", "disconnect", "-f", "sluice-wiki", "sluice-gateway", check=False)
        engine.docker("network", "rm", "sluice-wiki", check=False)


def blocks(path):
    """The indented blocks of a page, without the indentation."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.M)
    return [re.sub(r"^    ", "", block, flags=re.M).strip("\n") + "\n" for block in found]


def test_plain_docker_run(engine):
    """docs/docker.md, word for word."""
    text = next(block for block in blocks(os.path.join(ROOT, "docs", "docker.md")) if "docker network connect behind gateway" in block)
    lines = [line for line in text.splitlines() if not line.startswith(("docker exec", "docker logs"))]
    tries = [re.sub(r"\s*#.*", "", line) for line in text.splitlines() if line.startswith("docker exec")]
    directory = os.path.join(WORK, "plain")
    os.makedirs(directory, exist_ok=True)
    try:
        engine.run(["sh", "-ec", "\n".join(lines)], directory)
        engine.run(["sh", "-c", "for i in $(seq 60); do [ \"$(docker inspect -f '{{.State.Health.Status}}' gateway)\" = healthy ] && exit; sleep 0.5; done; "
                    "docker logs gateway; exit 1"])
        results = [engine.run(["sh", "-c", line], check=False).returncode for line in tries]
        assert results == [OK, NO_SUCH_HOST], engine.docker("logs", "gateway").stdout
    finally:
        engine.docker("rm", "-f", "gateway", "app", check=False)
        engine.docker("network", "rm", "behind", "uplink", check=False)


@pytest.fixture
def parents():
    """Two interfaces that lead nowhere, as compose/macvlan/README.md describes for kernels without 8021q."""
    import subprocess  # pylint: disable=import-outside-toplevel
    subprocess.run(["ip", "netns", "add", "nowhere"], check=True)
    for name in ("web", "build"):
        subprocess.run(["ip", "link", "add", f"sluice-{name}", "type", "veth", "peer", "name", f"{name}-end", "netns", "nowhere"], check=True)
        subprocess.run(["ip", "link", "set", f"sluice-{name}", "up"], check=True)
        subprocess.run(["ip", "-n", "nowhere", "link", "set", f"{name}-end", "up"], check=True)
    yield {"WEB_PARENT": "sluice-web", "BUILD_PARENT": "sluice-build"}
    subprocess.run(["ip", "netns", "delete", "nowhere"], check=True)
    for name in ("web", "build"):
        subprocess.run(["ip", "link", "delete", f"sluice-{name}"], check=False, stderr=subprocess.DEVNULL)


def test_macvlan(project, parents):
    one = project("macvlan", **parents).up()
    assert fetch(one, "web-app", "https://example.com/") == OK, one.logs()
    assert one.python("web-app", h3get(), "example.com").stdout.strip() == "example.com over HTTP/3.0"
    assert fetch(one, "web-app", "https://github.com/") == NO_SUCH_HOST
    assert fetch(one, "build-app", "https://github.com/") == OK
    assert fetch(one, "web-app", f"https://{ELSEWHERE4}/") == REFUSED
    status, _, seconds = one.curl("web-app", "https://[2a0e:12:1::66]/")
    assert status == REFUSED and seconds < 3
    one.wait_log("event=denied", "network=web", "dst=2a0e:12:1::66")
    assert "default via fdc9:50::1" in one.exec("web-app", "ip", "-6", "route").stdout
    # Without IPv6 on the uplink names have no IPv6 address.
    assert one.exec("web-app", "python3", "-c", "import dns.resolver as r\nx = r.Resolver()\n"
                    "try:\n print(x.resolve('example.com', 'AAAA').rrset)\nexcept r.NoAnswer:\n print('no answer')").stdout.strip() == "no answer"
    assert [line for line in one.log_lines() if "level=error" in line] == []
    old = one.container("gateway")
    one.compose("up", "-d", "--force-recreate", "--no-deps", "gateway")
    one.wait_healthy()
    assert one.container("gateway") != old
    assert fetch(one, "web-app", "https://example.com/") == OK


def test_macvlan_ipv6_to_the_internet(project, parents, modern):
    if not modern:
        pytest.skip("this engine masquerades IPv6 only as an experiment")
    one = project("macvlan", **parents)
    one.edit("docker-compose.yml", ("  uplink:                               # leads", "  uplink:\n    enable_ipv6: true                   # leads"),
             ('{subnet: "${UPLINK_SUBNET:-10.200.50.0/24}"}', '{subnet: 10.200.50.0/24}, {subnet: "fdc9:200::/64"}'))
    one.up()
    assert fetch(one, "web-app", "https://example.com/") == OK, one.logs()
    status, page, _ = one.curl("web-app", "https://example.com/", "-6")
    assert (status, page) == (OK, "example.com over HTTP/2.0"), one.logs()
    assert one.curl("web-app", "https://[2a0e:12:1::66]/")[0] == REFUSED
