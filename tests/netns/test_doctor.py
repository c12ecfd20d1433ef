# SPDX-License-Identifier: MIT
"""`sluice doctor`, the form of a network, and `sluice idle`: what they see from inside."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest

from gateway import UID, parse_line
from lab import GATEWAY_SYSCTLS, POLICY, UPSTREAM, Lab
from namespaces import children, patience


@pytest.fixture(scope="module")
def doctor_lab():
    with Lab() as lab:
        yield lab


@pytest.fixture
def lab(doctor_lab):
    yield doctor_lab
    doctor_lab.gw.sysctl(**GATEWAY_SYSCTLS)


@pytest.fixture
def directory(lab):
    """A folder that the gateway's user may read and write; pytest's own are root's."""
    path = os.path.join(os.path.dirname(lab.gateway.control), "doctor")
    os.mkdir(path)
    os.chown(path, UID, UID)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def write(directory):
    def write_file(text):
        path = os.path.join(directory, "policy.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path
    return write_file


def doctor(lab, path=None, **environment):
    """Return: (exit status, {(check, status): [text]}, [cure])."""
    done = lab.gateway.sluice("doctor", "--json", "-c", path or lab.gateway.policy_directory, env=lab.gateway.environment(**environment))
    report = json.loads(done.stdout)
    assert (done.returncode == 0) == report["ok"] == (report["problems"] == 0), done.stdout
    found = {}
    for line in report["checks"]:
        found.setdefault((line["check"], line["status"]), []).append(line["text"])
    return done.returncode, found, [line["cure"] for line in report["checks"] if line["cure"]]


def test_a_running_gateway_has_no_problem(lab):
    status, found, _ = doctor(lab)
    assert status == 0, found
    assert found["daemon", "ok"][0].startswith("healthy")
    assert found["table", "ok"] == ["inet sluice is in force"]
    assert "up0" in found["uplink", "ok"][0]
    assert len(found["network", "ok"]) == 3 and "answered in" in found["upstream", "ok"][0]


def test_text_says_the_same(lab):
    _, found, _ = doctor(lab)
    warnings = sum(len(texts) for (_, status), texts in found.items() if status == "warning")
    done = lab.gateway.sluice("doctor", "-c", lab.gateway.policy_directory)
    assert done.returncode == 0
    assert done.stdout.endswith(f"0 problems, {warnings} warnings\n"), done.stdout
    assert done.stdout.count("\nwarning  ") == warnings


def test_the_state_directory_is_looked_at(lab, directory):
    """Whether it is on a volume depends on the machine that this runs on."""
    found = doctor(lab)[1]
    assert lab.gateway.state in (found.get(("state", "ok")) or found["state", "warning"])[0]
    status, found, cures = doctor(lab, SLUICE_STATE=os.path.join(directory, "nowhere"))
    assert status == 0 and found["state", "warning"] == [f"{directory}/nowhere: there is no such directory: nothing outlives the container"]
    assert any("/var/lib/sluice" in cure for cure in cures)
    os.chmod(directory, 0o500)
    status, found, _ = doctor(lab, SLUICE_STATE=directory)
    os.chmod(directory, 0o700)
    assert status == 0 and "Permission denied" in found["state", "warning"][0]


def test_the_table_of_flows_is_looked_at(lab):
    assert "of at most" in doctor(lab)[1]["conntrack", "ok"][0]
    lab.gw.sysctl(net__netfilter__nf_conntrack_events=0)
    try:
        status, found, cures = doctor(lab)
    finally:
        lab.gw.sysctl(net__netfilter__nf_conntrack_events=1)
    assert status == 0 and "events is 0" in found["conntrack", "warning"][0] and any('nf_conntrack_events: "1"' in cure for cure in cures)


def test_memory_is_no_volume(lab):
    assert "in memory" in doctor(lab, SLUICE_STATE="/dev/shm")[1]["state", "warning"][0]


def test_an_app_that_never_asks_for_names_is_named_until_it_does(lab):
    assert doctor(lab)[1]["dns", "ok"]
    lab.build1.tcp_result("45.12.1.66")  # no answer ever showed it
    lab.gateway.log.wait(event="denied", network="build", dst="45.12.1.66")
    _, found, cures = doctor(lab)
    text, = found["dns", "warning"]
    assert text.startswith("network build: ") and "never asked this gateway for a name" in text
    assert any("dns: 192.0.2.53" in cure for cure in cures)
    lab.build1.ask("denied.evil.example")
    assert ("dns", "warning") not in doctor(lab)[1]


def test_a_gateway_started_as_docker_does_is_left_as_it_was(lab):
    """doctor probes the kernel in a table of its own; nothing of the gateway's changes."""
    before = lab.gw.nft_list("ruleset")
    assert doctor(lab)[0] == 0
    assert "probe" not in lab.gw.nft_list("ruleset")
    assert len(lab.gw.nft_list("ruleset").splitlines()) == len(before.splitlines())


def test_a_sysctl_that_is_missing_is_a_problem_with_its_cure(lab):
    lab.gw.sysctl(**{**GATEWAY_SYSCTLS, "net__ipv4__ip_forward": 0})
    status, found, cures = doctor(lab)
    assert status == 1
    assert found["sysctl", "problem"] == ["net.ipv4.ip_forward is 0: no packet is forwarded"]
    assert any('net.ipv4.ip_forward: "1"' in cure for cure in cures)


def test_a_server_that_does_not_answer_is_a_problem_unless_another_one_does(lab, write):
    silent = POLICY.replace(UPSTREAM, "[upstream]\nserver = 45.9.0.99\n")
    status, found, _ = doctor(lab, write(silent))
    assert status == 1 and "45.9.0.99" in found["upstream", "problem"][0]
    status, found, _ = doctor(lab, write(silent.replace("server = ", "server = 45.9.0.53 ")))
    assert status == 0 and "45.9.0.99" in found["upstream", "warning"][0]


def test_a_bad_policy_is_a_problem_with_its_line(lab, write):
    status, found, _ = doctor(lab, write(POLICY + "[network bad]\nsubnt = 10.201.9.0/24\n"))
    assert status == 1
    assert "policy.conf:" in found["policy", "problem"][0] and "subnet" in found["policy", "problem"][0]
    assert ("sysctl", "ok") in found and ("upstream", "ok") not in found


def test_a_network_without_interface_is_a_problem(lab, write):
    status, found, _ = doctor(lab, write(POLICY + "[network more]\nsubnet = 10.201.9.0/24\n"))
    assert status == 1 and found["network", "problem"][0].startswith("more:")


def test_no_daemon_is_a_warning_and_a_dead_socket_a_problem(lab, directory):
    path = os.path.join(directory, "control.sock")
    status, found, _ = doctor(lab, SLUICE_CONTROL=path)
    assert status == 0 and "none runs here" in found["daemon", "warning"][0], found
    with open(path, "w", encoding="ascii"):
        pass
    status, found, _ = doctor(lab, SLUICE_CONTROL=path)
    assert status == 1 and ("daemon", "problem") in found


def test_without_the_capability_the_line_to_write_is_named(lab):
    done = subprocess.run(lab.gw.argv(["setpriv", "--reuid", "65532", "--regid", "65532", "--clear-groups", "--inh-caps=-all",
                                       lab.gateway.binary, "doctor", "-c", "/nowhere"]), capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    assert "CAP_NET_ADMIN is missing: write `cap_add: [NET_ADMIN]`" in done.stdout


def test_the_log_names_the_form_of_each_network(lab):
    texts = [line["text"] for line in map(parse_line, lab.gateway.log.text().splitlines()) if "form " in line.get("text", "")]
    for network in ("web", "build", "lan"):
        assert any(text.startswith(f"network {network}: form bridge: ") for text in texts), texts


def test_macvlan_is_told_from_bridge_and_its_carrier_is_seen(lab, write):
    made = subprocess.run(lab.gw.argv(["sh", "-c", "ip link add mvp type veth peer name mvq && ip link set mvp up && "
                                                   "ip link add link mvp name mv0 type macvlan mode bridge"]), capture_output=True, check=False)
    if made.returncode:
        lab.gw.run(["sh", "-c", "ip link del mvp || true"])
        pytest.skip("this kernel has no macvlan")
    try:
        lab.gw.ip("addr add 10.201.9.2/24 dev mv0\nlink set mv0 up\n")
        path = write(POLICY + "[network more]\nsubnet = 10.201.9.0/24\n")
        found = doctor(lab, path)[1]
        assert any(text.startswith("more: interface mv0, form macvlan") for text in found["network", "ok"])
        assert any("network more: no carrier" in text for text in found["form", "warning"])
        lab.gw.ip("link set mvq up\n")
        assert not any("more" in text for text in doctor(lab, path)[1].get(("form", "warning"), []))
    finally:
        lab.gw.run(["ip", "link", "del", "mvp"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_as_pid_1_waits_for_signals_without_capabilities(lab, number):
    argv = ["unshare", "--pid", "--fork", "--kill-child", lab.gateway.binary, "idle"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            end = time.monotonic() + patience(5)
            while not (status := idle_status(process.pid)):
                assert process.poll() is None and time.monotonic() < end, "no idle process"
                time.sleep(0.01)
            assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
            os.kill(children(process.pid)[0], number)
            assert process.wait(patience(5)) == 0
        finally:
            process.kill()  # and with it the one inside
        assert process.stdout.read() == b""


def idle_status(parent):
    """/proc/PID/status of the child once it has given everything up and sleeps, else None."""
    try:
        with open(f"/proc/{children(parent)[0]}/status", encoding="ascii") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    except (IndexError, FileNotFoundError):
        return None
    return status if status["NoNewPrivs"] == "1" and status["State"].startswith("S") else None


@pytest.mark.parametrize("command", ["init", "lint", "doctor", "idle"])
def test_help_and_wrong_usage(lab, command):
    done = lab.gateway.sluice(command, "--help")
    assert done.returncode == 0 and f"usage: sluice {command}" in done.stdout
    done = lab.gateway.sluice(command, "--nosuchoption")
    assert done.returncode == 2 and f"usage: sluice {command}" in done.stderr
