# SPDX-License-Identifier: MIT
"""What somebody who runs code of their own inside the gateway's process can do, and what not.

The program under attack is build/tests/attack/sluice-attacked: the same library as `sluice`, with an attacker's steps in a signal handler. A step runs
in the worker's (or the supervisor's) own context, after it has confined itself.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile

import pytest

from gateway import UID
from lab import POLICY, Lab, binary
from namespaces import children, wait_until

ATTACKED = os.path.join(os.path.dirname(os.path.dirname(binary())), "tests", "attack", "sluice-attacked")
NET_ADMIN = 1 << 12
LIBC = ctypes.CDLL(None, use_errno=True)
pytestmark = pytest.mark.confined


def landlock():
    """The kernel's ABI; 0 without."""
    return max(LIBC.syscall(444, None, 0, 1), 0)


def notify(path, url="https://45.12.1.20:8443/"):
    return POLICY.replace("[gateway]\n", f"[gateway]\nnotify = {url}\nnotify_token_file = {path}\n")


def own(path, text):
    """A file that the gateway's user may read and write."""
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    os.chown(path, UID, UID)


class Attack:
    """A lab whose gateway runs steps on demand."""

    def __init__(self, lab, outside):
        self.lab, self.gateway = lab, lab.gateway
        self.own_file = os.path.join(outside, "mine")
        own(self.own_file, "of the same user, but no business of the gateway\n")
        self.gateway.binary = ATTACKED
        self.steps = subprocess.run([ATTACKED, "steps"], capture_output=True, text=True, check=True).stdout.split()
        self.gateway.start(POLICY, ATTACK_OWN_FILE=self.own_file, ATTACK_POLICY_FILE=self.gateway.policy_file,
                           ATTACK_STATE_FILE=os.path.join(self.gateway.state, "by-an-attacker"))
        own(self.gateway.policy_file, POLICY)

    def send(self, step, pid=None):
        value = ctypes.c_void_p(self.steps.index(step))
        assert LIBC.sigqueue(pid or self.gateway.worker(), signal.SIGUSR1, value) == 0, os.strerror(ctypes.get_errno())

    def result(self, step, pid=None):
        """The error's name, or DONE."""
        self.gateway.log.mark()
        self.send(step, pid)
        wait_until(lambda: self.said(step), f"no result of {step}")
        return self.said(step)

    def said(self, step):
        lines = [line for line in self.gateway.log.since_mark().splitlines() if line.startswith(f"attack {step}: ")]
        return lines[0].rpartition(" ")[2] if lines else None

    def serves(self):
        name, address = self.lab.names.new("https.example")
        return self.lab.web1.resolve(name) == [address] and self.lab.web1.tcp_result(address) == "open" and \
            self.lab.web1.tcp_result(self.lab.names.address()) == "refused"


@pytest.fixture(scope="module")
def outside():
    path = tempfile.mkdtemp(prefix="sluice-outside-", dir="/run")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def attack(outside):
    with Lab(gateway=False) as lab:
        lab.attacked = True
        yield Attack(lab, outside)


def status(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def test_the_program_under_attack_is_built():
    assert os.access(ATTACKED, os.X_OK), f"there is no {ATTACKED}: ./dev build"


def test_supervisor_and_worker_have_one_capability_and_cannot_gain_any(attack):
    for pid, filters in ((attack.gateway.process.pid, 1), (attack.gateway.worker(), 3)):
        found = status(pid)
        assert int(found["CapEff"], 16) == int(found["CapPrm"], 16) == NET_ADMIN
        assert int(found["CapInh"], 16) == int(found["CapAmb"], 16) == int(found["CapBnd"], 16) == 0
        assert found["NoNewPrivs"] == "1" and found["Seccomp"] == "2" and int(found["Seccomp_filters"]) >= filters, found
        assert set(found["Uid"].split()) == set(found["Gid"].split()) == {str(UID)} and found["Groups"].strip() == ""


def test_the_log_says_what_is_in_force(attack):
    expected = f"confined: system calls yes, files yes (Landlock, ABI {landlock()})" if landlock() else "files not: "
    assert expected in attack.gateway.log.text()


# What fails in the worker, and lets it go on.
REFUSED = ["read-shadow", "change-mode", "raw-socket", "packet-socket", "local-socket", "signal-supervisor", "new-process", "executable-memory", "allow-more",
           "raise-limit", "read-supervisor-memory", "make-a-file"]
# Only the files of the gateway, although others belong to the same user.
REFUSED_BY_LANDLOCK = ["read-own-file", "write-own-file", "write-policy", "make-a-file", "read-supervisor-memory"]
KILLED = ["execute-shell", "trace-supervisor", "mount", "load-module", "load-bpf", "new-user-namespace", "enter-namespace", "kill-supervisor", "change-user"]
# docs/security.md names these.
POSSIBLE = ["read-policy", "write-state", "netlink-socket"]


def test_every_step_has_a_test(attack):
    assert set(attack.steps) == {*REFUSED, *REFUSED_BY_LANDLOCK, *KILLED, *POSSIBLE}


@pytest.mark.parametrize("step", [step for step in REFUSED if step not in REFUSED_BY_LANDLOCK])
def test_what_the_worker_cannot_do(attack, step):
    worker = attack.gateway.worker()
    absent = step == "read-shadow" and not os.path.exists("/etc/shadow")  # in the virtual machine
    assert attack.result(step) in (("ENOENT",) if absent else ("ENOSYS", "EACCES", "EPERM"))
    assert attack.gateway.worker() == worker and attack.serves()


@pytest.mark.parametrize("step", ["raw-socket", "change-mode"])
def test_a_refused_call_is_named_once(attack, step):
    attack.result(step)
    name = {"raw-socket": "socket", "change-mode": "chmod"}[step]
    assert attack.gateway.log.text().count(f"the system call {name} is not on the list") >= 1
    attack.gateway.log.mark()
    attack.result(step)
    assert "not on the list" not in attack.gateway.log.since_mark()


@pytest.mark.skipif(not landlock(), reason="no Landlock")
@pytest.mark.parametrize("step", REFUSED_BY_LANDLOCK)
def test_what_the_worker_cannot_do_with_files(attack, step):
    assert attack.result(step) == "EACCES"
    assert os.path.getsize(attack.own_file) > 0 and not os.path.exists("/tmp/sluice-attack") and attack.serves()


@pytest.mark.parametrize("step", KILLED)
def test_what_ends_the_worker(attack, step):
    """It was taken over. A new one is there at once, and says why."""
    worker = attack.gateway.worker()
    attack.gateway.log.mark()
    attack.send(step)
    wait_until(lambda: worker not in children(attack.gateway.process.pid), f"{step} did not end the worker: {attack.said(step)}")
    attack.gateway.wait_healthy()
    assert attack.said(step) is None and attack.gateway.process.poll() is None
    assert [line for line in attack.gateway.log.wait(event="message", level="error") if "had been taken over" in line["text"]]
    assert attack.serves()


@pytest.mark.parametrize("step", POSSIBLE)
def test_what_the_worker_still_can(attack, step):
    """Also a proof that steps run at all."""
    assert attack.result(step) == "DONE"


@pytest.mark.parametrize("step", ["raw-socket", "packet-socket", "change-mode"])
def test_what_the_supervisor_cannot_do(attack, step):
    assert attack.result(step, attack.gateway.process.pid) == "ENOSYS"


def test_a_supervisor_executes_nothing(attack):
    """It would end: then the container does, and is started anew. The table stays closed meanwhile."""
    attack.send("execute-shell", attack.gateway.process.pid)
    assert attack.gateway.process.wait(10) == -signal.SIGSYS
    attack.gateway.stop()
    attack.gateway.start(POLICY)
    assert attack.serves()


@pytest.mark.skipif(not landlock(), reason="no Landlock")
def test_a_reload_reads_where_files_were_at_the_start(own_lab, outside):
    """Files that a policy names: beside it at any time, elsewhere when the running worker knows the place."""
    gateway = own_lab.gateway
    beside, elsewhere, another = os.path.join(gateway.policy_directory, "token"), os.path.join(outside, "token"), os.path.join(outside, "another")
    for path in (beside, elsewhere, another):
        own(path, "secret\n")
    gateway.set_policy(notify(beside))
    gateway.write_policy(notify(elsewhere))
    done = gateway.sluice("reload")
    assert done.returncode != 0 and "start the gateway again" in gateway.log.text() and gateway.healthy()
    gateway.stop()
    gateway.start()
    gateway.set_policy(notify(another))
    gateway.set_policy(POLICY)


@pytest.mark.skipif(not landlock(), reason="no Landlock")
def test_a_policy_that_is_a_link(own_lab, outside):
    """The file behind it may be replaced, and so may the link."""
    gateway = own_lab.gateway
    real = os.path.join(outside, "policy-of-the-link")
    own(real, POLICY)
    os.remove(gateway.policy_file)
    os.symlink(real, gateway.policy_file)
    gateway.stop()
    gateway.start()
    own(real + ".new", POLICY + "\n; changed\n")
    os.replace(real + ".new", real)
    assert gateway.sluice("reload").returncode == 0, gateway.log.tail()
    os.symlink(real, gateway.policy_file + ".new")
    os.replace(gateway.policy_file + ".new", gateway.policy_file)
    assert gateway.sluice("reload").returncode == 0, gateway.log.tail()


def test_a_worker_that_was_killed_is_confined_again(attack):
    attack.gateway.kill_worker()
    attack.gateway.wait_healthy()
    assert int(status(attack.gateway.worker())["Seccomp_filters"]) >= 3
