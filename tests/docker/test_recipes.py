# SPDX-License-Identifier: MIT
"""The other recipes, each as its README says."""

import os
import re
import shutil
import time
import urllib.request

import pytest

from apps import NO_SUCH_HOST, OK, REFUSED, TIMEOUT, blocks, fetch, h3get
from engine import ROOT, WORK
from world import CACHE, ELSEWHERE4, HOST4

@pytest.mark.matrix
def test_per_domain(project, engine):
    one = project("per-domain").up()
    assert fetch(one, "github-app", "https://github.com/") == OK, one.logs()
    assert fetch(one, "web-app", "https://example.com/") == OK
    assert fetch(one, "web-app", "http://example.com/") == OK
    assert one.python("quic-app", h3get(), "quic.nginx.org").stdout.strip() == "quic.nginx.org over HTTP/3.0"
    for app, name in (("github-app", "example.com"), ("web-app", "github.com"), ("quic-app", "github.com")):
        assert fetch(one, app, f"https://{name}/") == NO_SUCH_HOST
        one.wait_log("event=denied", f"network={app.removesuffix('-app')}", f"name={name}")
    # github.com and example.com have the same address here; only port 22 tells that the lease is the other network's.
    assert "SSH-2.0" in one.curl("github-app", "telnet://github.com:22", "--max-time", "2")[1]
    address = one.engine.inspect(one.container("web-app"), "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
    status, text, seconds = one.curl("github-app", f"http://{address}/", "--max-time", "5")
    if engine.version >= (28,):
        assert status == TIMEOUT, "Docker itself drops what goes to a container of another network, before the gateway sees it: " + text
    else:
        assert status == REFUSED and seconds < 3, text
        one.wait_log("event=denied", "network=github", f"dst={address}")


def test_self_hosted(project, world):
    one = project("self-hosted").up()
    assert fetch(one, "app", "https://gemini.google.com/") == OK, one.logs()
    assert fetch(one, "app", "https://example.org/") == NO_SUCH_HOST
    assert fetch(one, "app", f"https://{ELSEWHERE4}/") == REFUSED
    database = one.curl("app", "http://database:6379/", "-o", "/dev/null", "-w", "%{remote_ip}")
    assert "10.202.20." in database[1], database
    stored = one.exec("app", "python3", "-c", "import socket\ns = socket.create_connection(('database', 6379), 5)\ns.sendall(b'PING\\r\\n')\nprint(s.recv(9))")
    assert "PONG" in stored.stdout
    assert "default via 10.201.20.1" in one.exec("app", "ip", "route").stdout
    since = world.names.count()
    assert one.curl("database", f"http://{ELSEWHERE4}/", "--max-time", "5")[0] not in (OK, NO_SUCH_HOST)
    assert one.curl("database", "http://leak.evil.example/", "--max-time", "5")[0] != OK
    assert world.questions("evil.example", since) == 0


def clone(one, world, url):
    """`git clone` in the agent's container."""
    one.exec("agent", "sh", "-c", "umask 077; cat >/tmp/key; rm -rf /tmp/clone", input=world.ssh.user_key(), check=True)
    options = "-F none -i /tmp/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes -o ConnectTimeout=5"
    done = one.exec("agent", "timeout", "20", "git", "-c", f"core.sshCommand=ssh {options}", "clone", "--quiet", url, "/tmp/clone")
    return done.returncode == 0 and "first" in one.exec("agent", "git", "-C", "/tmp/clone", "log", "--format=%s").stdout, done.stdout


def test_ai_agent_works_with_git_over_ssh_and_https(project, world):
    one = project("ai-agent")
    one.edit("policy/sluice.conf", ("mode   = audit", ";mode  = audit"))
    one.up()
    for url in (f"ssh://root@github.com{world.repository}", "https://github.com/repository.git"):
        works, text = clone(one, world, url)
        assert works, text + one.logs()
    works, text = clone(one, world, f"ssh://root@example.net{world.repository}")
    assert not works and "Could not resolve" in text, text
    one.wait_log("event=denied", "qname=example.net")


def test_ai_agent_audits_first_and_enforces_then(project):
    one = project("ai-agent").up()
    assert fetch(one, "agent", "https://github.com/") == OK, one.logs()
    assert fetch(one, "agent", "https://api.anthropic.com/") == OK
    assert fetch(one, "agent", "https://example.net/") == OK, "audit mode lets it pass:\n" + one.logs()
    one.wait_log("event=audit ", "qname=example.net")
    pipe = next(block for block in blocks(os.path.join(ROOT, "compose", "ai-agent", "README.md")) if "uniq" in block)
    names = one.engine.run(["sh", "-c", pipe.replace("docker compose logs --no-color gateway", "docker logs " + one.container("gateway"))]).stdout
    assert "qname=example.net" in names
    one.edit("policy/sluice.conf", ("mode   = audit", ";mode  = audit"))
    one.wait_log("reloaded")
    assert fetch(one, "agent", "https://example.net/") == NO_SUCH_HOST
    assert fetch(one, "agent", "https://github.com/") == OK
    one.exec("agent", "sh", "-c", "echo seen >here")
    assert os.path.exists(os.path.join(one.directory, "work", "here"))


def visit(url, seconds=20):
    """As a visitor from outside of Docker. Return: the HTTP status, as soon as there is one that means something."""
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status
        except OSError as error:
            if time.monotonic() > end:
                return error
            time.sleep(0.5)


def test_behind_proxy(project):
    one = project("behind-proxy").up()
    assert visit("http://127.0.0.1:8080/") == 200
    assert fetch(one, "app", "https://api.vendor.example/") == OK, one.logs()
    assert fetch(one, "app", "https://example.org/") == NO_SUCH_HOST


def visit_site(world, *options):
    """A visitor out there asks the host for https://www.example.com/. Return: curl's exit status, and the page."""
    done = world.inet.run(["curl", "-sS", "--cacert", f"{CACHE}/ca.pem", "--resolve", f"www.example.com:443:{HOST4}", "--max-time", "5", *options,
                           "https://www.example.com/"])
    return done.returncode, done.stdout + done.stderr


def visit_site_over_http3(world):
    """The same over QUIC, with the client of the apps' image."""
    return world.inet.run(["chroot", f"{CACHE}/app", "python3", "-", "www.example.com", HOST4, "/usr/local/share/ca-certificates/sluice-tests.crt"],
                          input=h3get()).stdout


def wait_for_site(world, seconds=40):
    end = time.monotonic() + seconds
    while (found := visit_site(world))[0] != OK:
        assert time.monotonic() < end, found
        time.sleep(0.2)
    return found[1]


@pytest.mark.matrix
def test_reverse_proxy(project, world):
    one = project("reverse-proxy", SITE="www.example.com")
    for name in ("cert.pem", "key.pem"):
        shutil.copy(os.path.join(world.directory, name), os.path.join(one.directory, "caddy", name))
        os.chmod(os.path.join(one.directory, "caddy", name), 0o644)
    # Nobody here signs certificates for Caddy.
    one.edit("caddy/Caddyfile", ("\tlog\n", "\tlog\n\ttls /etc/caddy/cert.pem /etc/caddy/key.pem\n"))
    one.up()
    assert "Directory listing" in wait_for_site(world), one.logs()
    one.wait_log("event=inbound", "src=45.9.0.1", "app=caddy", "port=443", "proto=tcp", "action=allowed")
    assert '"remote_ip":"45.9.0.1"' in one.logs("caddy"), "Caddy sees the visitor's own address"
    assert "Directory listing" in visit_site_over_http3(world), one.logs()
    one.wait_log("event=inbound", "src=45.9.0.1", "app=caddy", "port=443", "proto=udp")
    assert fetch(one, "caddy", "https://example.org/") == NO_SUCH_HOST, "out it may not"
    assert fetch(one, "caddy", f"https://{ELSEWHERE4}/") == REFUSED
    assert fetch(one, "caddy", "http://app:8080/") == OK, "but to the app behind it"
    one.compose("up", "-d", "--force-recreate", "--no-deps", "caddy")
    assert "Directory listing" in wait_for_site(world), one.logs()
    one.compose("up", "-d", "--force-recreate", "--no-deps", "gateway")
    one.wait_healthy()
    assert "Directory listing" in wait_for_site(world), one.logs()


def test_monitoring(project):
    one = project("monitoring")
    # No registry can be reached: netns/test_monitoring.py asks with a real Prometheus. Here it is who may ask.
    asleep = "image: curlimages/curl:8.11.1\n    entrypoint: [sh, -c, exec sleep infinity]"  # whatever the command is
    one.edit("docker-compose.yml", ("image: ${PROMETHEUS_IMAGE:-prom/prometheus:v2.53.3}", asleep), ("image: ${GRAFANA_IMAGE:-grafana/grafana:11.2.2}", asleep))
    one.up()
    assert fetch(one, "app", "https://example.com/") == OK, one.logs()
    assert fetch(one, "app", "https://example.org/") == NO_SUCH_HOST
    status, text, _ = one.curl("prometheus", "http://gateway:9780/metrics")
    assert status == OK and re.search(r'^sluice_denied_total\{network="web",reason="name-not-allowed"\} [1-9]', text, re.M), text
    assert fetch(one, "app", "http://10.201.90.1:9780/metrics") == REFUSED
    one.wait_log("event=denied", "network=web", "dst=10.201.90.1", "port=9780", "reason=isolated")
    # Engines from 28 on drop themselves what comes over another bridge to an address of a container, before it reaches the gateway.
    assert fetch(one, "app", "http://10.200.90.2:9780/metrics") in (REFUSED, TIMEOUT)
    assert visit("http://127.0.0.1:9780/") == 200, "the page, for a browser on this host"
    assert fetch(one, "grafana", "http://prometheus:9090/") != NO_SUCH_HOST


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
        gateway.wait_log("reloaded: 3 networks")
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


@pytest.mark.matrix
def test_macvlan(project, parents):
    one = project("macvlan", **parents).up()
    assert fetch(one, "web-app", "https://example.com/") == OK, one.logs()
    assert one.python("web-app", h3get(), "example.com").stdout.strip() == "example.com over HTTP/3.0"
    assert fetch(one, "web-app", "https://github.com/") == NO_SUCH_HOST
    assert fetch(one, "build-app", "https://github.com/") == OK
    assert fetch(one, "web-app", f"https://{ELSEWHERE4}/") == REFUSED
    status, _, seconds = one.curl("web-app", "https://[2a0e:12:1::66]/")
    assert status == REFUSED and seconds < 3
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


@pytest.mark.modern  # before 27 engines masquerade IPv6 only as an experiment
def test_macvlan_ipv6_to_the_internet(project, parents):
    one = project("macvlan", **parents)
    one.edit("docker-compose.yml", ("  uplink:                               # leads", "  uplink:\n    enable_ipv6: true                   # leads"),
             ('{subnet: "${UPLINK_SUBNET:-10.200.50.0/24}"}', '{subnet: 10.200.50.0/24}, {subnet: "fdc9:200::/64"}'))
    one.up()
    assert fetch(one, "web-app", "https://example.com/") == OK, one.logs()
    status, page, _ = one.curl("web-app", "https://example.com/", "-6")
    assert (status, page) == (OK, "example.com over HTTP/2.0"), one.logs()
    assert one.curl("web-app", "https://[2a0e:12:1::66]/")[0] == REFUSED
    one.wait_log("event=denied", "network=web", "dst=2a0e:12:1::66")
