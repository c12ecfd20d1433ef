# SPDX-License-Identifier: MIT
"""The commands: exit status 0 / 1 (the answer is no, or something is wrong) / 2 (usage), and what they print."""

import json
import os
import socket
import subprocess

import pytest

from lab import POLICY

COMMANDS = ("run", "check", "explain", "health", "reload", "suggest")


@pytest.fixture
def sluice(lab):
    return lab.gateway.sluice


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="policy.conf"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)
    return write_file


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(sluice, command):
    done = sluice(command, "--help")
    assert done.returncode == 0
    assert f"sluice {command}" in done.stdout


@pytest.mark.parametrize("arguments", [(), ("nosuchcommand",), ("check", "--nosuchoption"), ("health", "too", "many"), ("explain",), ("run", "--bad"),
                                       ("reload", "x")])
def test_wrong_usage_is_status_2(sluice, arguments):
    done = sluice(*arguments)
    assert done.returncode == 2
    assert done.stderr


def test_health_of_a_running_gateway(sluice):
    assert sluice("health").returncode == 0
    assert json.loads(sluice("health", "--json").stdout)["ok"] is True


def test_health_without_a_gateway_says_so(lab, tmp_path):
    done = lab.gateway.sluice("health", env=lab.gateway.environment(SLUICE_CONTROL=str(tmp_path / "none.sock")))
    assert done.returncode == 1
    assert "none.sock" in done.stderr


def test_reload_without_a_gateway_says_so(lab, tmp_path):
    done = lab.gateway.sluice("reload", env=lab.gateway.environment(SLUICE_CONTROL=str(tmp_path / "none.sock")))
    assert done.returncode == 1 and done.stderr


def test_check_of_a_good_policy_prints_it(sluice, write):
    done = sluice("check", write(POLICY))
    assert done.returncode == 0, done.stderr
    assert "web" in done.stdout and "**.https.example" in done.stdout and "10.201.1.0/24" in done.stdout


def test_check_prints_json(sluice, write):
    done = sluice("check", "--json", write(POLICY))
    assert done.returncode == 0, done.stderr
    assert [network["name"] for network in json.loads(done.stdout)["policy"]["networks"]] == ["web", "build", "lan"]


def test_check_prints_published_ports(sluice, write):
    path = write("[network web]\nsubnet = 10.201.1.0/24 fdc9:1::/64\npublish = 443 -> app:8443, 7000-7002/tcp -> app\n          53/udp -> [fdc9:1::5]\n")
    text = sluice("check", path).stdout
    for entry in (f"publish 443 -> app:8443  {path}:3", f"publish 7000-7002/tcp -> app:7000-7002  {path}:3", f"publish 53/udp -> [fdc9:1::5]:53  {path}:4"):
        assert entry in text
    entries = json.loads(sluice("check", "--json", path).stdout)["policy"]["networks"][0]["publish"]
    assert entries == [
        {"ports": "443", "target": "app", "by_name": True, "target_port": 8443, "file": path, "line": 3},
        {"ports": "7000-7002/tcp", "target": "app", "by_name": True, "target_port": 7000, "file": path, "line": 3},
        {"ports": "53/udp", "target": "fdc9:1::5", "by_name": False, "target_port": 53, "file": path, "line": 4}]


def test_check_prints_the_pool_of_virtual_addresses(sluice, write):
    path = write("[network web]\nsubnet = 10.201.1.0/24 fdc9:1::/64\naddresses = virtual\npool = fdc9:1::8:0/112\n[network db]\nsubnet = 10.201.2.0/24\n")
    text = sluice("check", path).stdout
    assert text.count("addresses: virtual") == 1
    assert "addresses: virtual, pool 10.201.1.128/25 fdc9:1::8:0/112, per_name 2\n" in text
    web, database = json.loads(sluice("check", "--json", path).stdout)["policy"]["networks"]
    assert web["virtual_addresses"] == {"pools": ["10.201.1.128/25", "fdc9:1::8:0/112"], "per_name": 2}
    assert database["virtual_addresses"] is None


def test_check_prints_what_is_verified(sluice, write):
    path = write("[network web]\nsubnet = 10.201.1.0/24\nverify = enforce\nverify_ports = 443 80/tcp\n[network db]\nsubnet = 10.201.2.0/24\n"
                 "[network log]\nsubnet = 10.201.3.0/24\nverify = log\nwithout_name = allow\n")
    text = sluice("check", path).stdout
    assert text.count("  verify: ") == 2
    assert "  verify: enforce, on ports 80/tcp+443, without a name: deny\n" in text
    assert "  verify: log, on ports all, without a name: allow (what does not fit is told, and passes)\n" in text
    networks = json.loads(sluice("check", "--json", path).stdout)["policy"]["networks"]
    assert [network["verify"] for network in networks] == [
        {"mode": "enforce", "ports": "80/tcp+443", "without_name": "deny"}, {"mode": "off", "ports": "all", "without_name": "deny"},
        {"mode": "log", "ports": "all", "without_name": "allow"}]


def test_check_warns_of_keys_without_verify(sluice, write):
    path = write("[network web]\nsubnet = 10.201.1.0/24\nverify_ports = 443\nwithout_name = allow\n")
    done = sluice("check", path)
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if "warning" in line] == [
        f"{path}:{line}: warning: '{key}' has no effect without 'verify': write 'verify = enforce' (or 'log') as well"
        for line, key in ((3, "verify_ports"), (4, "without_name"))]


def test_check_says_where_ports_default_to_all(sluice, write):
    done = sluice("check", write("[network web]\nsubnet = 10.201.1.0/24\nallow = every-port.example\n"))
    assert done.returncode == 0
    assert "all" in done.stdout + done.stderr


@pytest.mark.parametrize("text, line", [
    ("[network web]\nsubnet = 10.201.1.0/24\nallow = *.com:443\n", 3), ("[network web]\nsubnet = 10.201.1.0/24\nallow = a.example:22,443\n", 3),
    ("[network web]\nsubnet = 10.201.1.0/24\nallow = foo*.example\n", 3), ("[network web]\nsubnet = 10.201.1.0/24\nallow = 10.0.0.5/8\n", 3),
    ("[network web]\nsubnet = 10.201.1.0/24\nalow = a.example\n", 3), ("[network web]\nsubnet = 10.201.1.0/24\nmode = enforced\n", 3),
    ("[network web]\nsubnet = 10.201.1.0/24\nmode = audit\nmode = enforce\n", 4), ("[network web\nsubnet = 10.201.1.0/24\n", 1),
    ("[network web] x\nsubnet = 10.201.1.0/24\n", 1), ("[network web]\nsubnet = 10.201.1.0/24\nallow: a.example\n", 3),
    ("[network web]\nsubnet = 10.201.1.0/24\nallow = a.example # no\n", 3), ("[network web]\nsubnet = 10.201.1.0/24\nuse = nothere\n", 3),
    ("[network web]\nsubnet = 10.201.1.0/24\n[network web]\nsubnet = 10.201.2.0/24\n", 3), ("[network web]\nsubnet = 10.201.1.0/24\nallow = a.example:70000\n", 3),
    ("[network web]\nsubnet = 10.201.1.0/24\n[network b]\nsubnet = 10.201.1.128/25\n", 4),
    ("[network web]\nsubnet = 10.201.1.0/24\nallow = " + "a" * 64 + ".example\n", 3)])
def test_check_names_file_and_line_of_an_error(sluice, write, text, line):
    path = write(text)
    done = sluice("check", path)
    assert done.returncode == 1
    assert f"policy.conf:{line}: " in done.stdout + done.stderr


def test_check_of_a_missing_file(sluice, tmp_path):
    done = sluice("check", str(tmp_path / "missing.conf"))
    assert done.returncode == 1
    assert "missing.conf" in done.stderr + done.stdout


def test_check_reads_a_directory(sluice, tmp_path):
    (tmp_path / "10-first.conf").write_text("[network web]\nsubnet = 10.201.1.0/24\nuse = more\n", encoding="utf-8")
    (tmp_path / "20-second.conf").write_text("[rules more]\nallow = from-the-second-file.example:443\n", encoding="utf-8")
    done = sluice("check", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "from-the-second-file.example" in done.stdout


@pytest.mark.parametrize("question, status", [
    (("web", "x.https.example:443"), 0), (("web", "x.https.example:443/udp"), 0), (("web", "x.https.example:80"), 1), (("web", "x.https.example"), 0),
    (("web", "evil.example:443"), 1), (("web", "evil.example"), 1), (("build", "x.https.example:443"), 1), (("web", "x.bad.ok.example:443"), 1),
    (("web", "45.40.1.1:443"), 0), (("web", "45.40.1.1:80"), 1), (("web", "45.40.66.1:443"), 1), (("web", "[2a0e:1b::1]:443"), 0),
    (("web", "10.0.0.1:443"), 1), (("web", "x.tcp.example:443/tcp"), 0), (("web", "x.tcp.example:443/udp"), 1)])
def test_explain(sluice, write, question, status):
    done = sluice("explain", "-c", write(POLICY), *question)
    assert done.returncode == status, done.stdout + done.stderr
    assert ("allowed" if status == 0 else "denied") in done.stdout


def test_explain_names_the_rules_file_and_line(sluice, write):
    number = next(index for index, line in enumerate(POLICY.splitlines(), 1) if "**.https.example" in line)
    assert f"policy.conf:{number}" in sluice("explain", "-c", write(POLICY), "web", "x.https.example:443").stdout
    number = next(index for index, line in enumerate(POLICY.splitlines(), 1) if "**.bad.ok.example" in line)
    assert f"policy.conf:{number}" in sluice("explain", "-c", write(POLICY), "web", "x.bad.ok.example:443").stdout


def test_explain_without_a_port_says_which(sluice, write):
    done = sluice("explain", "-c", write(POLICY), "web", "git.ssh.example")
    assert done.returncode == 0
    assert "22" in done.stdout


def test_explain_agrees_with_what_happens(lab, sluice, names, web1):
    names.add("agree.https.example", A=(address := names.address()))
    web1.resolve("agree.https.example")
    for port in (22, 80, 443, 8443):
        said = sluice("explain", "-c", lab.gateway.policy_directory, "web", f"agree.https.example:{port}/tcp").returncode == 0
        assert said == (web1.tcp_result(address, port) == "open"), port


def test_explain_of_an_unknown_network(sluice, write):
    done = sluice("explain", "-c", write(POLICY), "wbe", "x.https.example")
    assert done.returncode in (1, 2)
    assert "wbe" in done.stderr and "web" in done.stderr


def test_explain_prints_json(sluice, write):
    answer = json.loads(sluice("explain", "--json", "-c", write(POLICY), "web", "evil.example:443").stdout)
    assert answer["allowed"] is False
    assert answer["reason"] == "name-not-allowed"


def test_the_control_socket_is_not_for_others(lab):
    """An app that shares the volume by mistake, or another user of the host."""
    assert os.stat(lab.gateway.control).st_mode & 0o777 == 0o600


def test_nonsense_on_the_control_socket_does_no_harm(lab):
    for text in (b"", b"\n", b"{\n", b"[]\n", b'{"command": 7}\n', b'{"command": "nosuch"}\n', b"\0" * 1000 + b"\n", b'{"a":' * 5000 + b"\n", b"x" * 200000):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(lab.gateway.control)
            try:
                client.sendall(text)
                client.shutdown(socket.SHUT_WR)
                client.recv(65536)
            except OSError:
                pass
    assert lab.gateway.healthy()


def test_a_client_that_says_nothing_does_not_block_others(lab):
    clients = []
    try:
        for _ in range(50):
            client = socket.socket(socket.AF_UNIX)
            clients.append(client)
            client.settimeout(2)
            client.connect(lab.gateway.control)
        assert lab.gateway.healthy()
    except OSError:
        pass  # refused above its limit: fine, as long as it recovers
    finally:
        for client in clients:
            client.close()
    assert lab.gateway.healthy()


def test_the_version_is_told(lab):
    done = subprocess.run([lab.gateway.binary, "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "0." in done.stdout
