# SPDX-License-Identifier: MIT
"""The program under test: started in its namespace, its log read line by line, its worker found and killed."""

import functools
import os
import shlex
import signal
import subprocess
import time

from namespaces import children, patience, stop

UID = 65532  # what the program becomes when it is started as root


@functools.lru_cache(maxsize=1 << 15)
def parse_once(text):
    """parse_line(), whose result is not to be changed: who waits for a line reads the others again and again."""
    return parse_line(text)


def parse_line(text):
    """One logfmt line -> dict. A line that is no logfmt (a crash, a sanitizer's report) has the key "garbage" only."""
    try:
        pairs = [word.partition("=") for word in shlex.split(text)]
    except ValueError:
        return {"garbage": text}
    if not pairs or any(not separator for _, separator, _ in pairs):
        return {"garbage": text}
    return {key: value for key, _, value in pairs}


class Log:
    """The program's standard output, as it grows."""

    def __init__(self, path):
        self.path = path
        self.start = 0

    def text(self):
        try:
            with open(self.path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def since_mark(self):
        """Whole lines since mark(), as text."""
        with open(self.path, "rb") as file:
            file.seek(self.start)
            return file.read().rpartition(b"\n")[0].decode("utf-8", "replace")

    def lines(self, **wanted):
        """Whole lines since mark(), parsed; those whose keys have these values."""
        # Under a flood there are thousands of others, and to parse them takes an emulated machine longer than the flood to write more.
        plain = [str(value) for value in wanted.values() if not set(str(value)) & set("\"\\'")]
        parsed = [parse_once(line) for line in self.since_mark().split("\n") if line and all(value in line for value in plain)]
        return [dict(line) for line in parsed if all(line.get(key) == str(value) for key, value in wanted.items())]

    def mark(self):
        """Forget what was written so far."""
        self.start = os.path.getsize(self.path)

    def wait(self, seconds=5, count=1, **wanted):
        """Lines with these values, as soon as there are `count`. Fails with the whole log when there are not in time."""
        end = time.monotonic() + patience(seconds)
        while True:
            found = self.lines(**wanted)
            if len(found) >= count:
                return found
            if time.monotonic() > end:
                raise AssertionError(f"{len(found)} of {count} log lines with {wanted} after {patience(seconds)} s; the log since then:\n"
                                     + self.tail())
            time.sleep(0.01)

    def settle(self, quiet=0.5):
        """Wait until nothing has been written for a while: before saying that a line is NOT there, or there just once."""
        size, since = os.path.getsize(self.path), time.monotonic()
        while time.monotonic() - since < quiet * (4 if patience(1) > 2 else 1):
            time.sleep(0.02)
            if os.path.getsize(self.path) != size:
                size, since = os.path.getsize(self.path), time.monotonic()

    def tail(self, lines=40):
        return "\n".join(self.text().splitlines()[-lines:])


class NotHealthy(Exception):
    """The gateway did not start; the message has its log."""


class Gateway:
    """`sluice run` in a namespace. Its policy is a directory with one file; its control socket is this lab's own."""

    def __init__(self, namespace, binary, directory):
        self.namespace, self.binary = namespace, binary
        self.policy_directory = os.path.join(directory, "policy")
        self.policy_file = os.path.join(self.policy_directory, "sluice.conf")
        self.control = os.path.join(directory, "control", "control.sock")
        self.state = os.path.join(directory, "state")
        self.log_path = os.path.join(directory, "gateway.log")
        self.process = None
        os.makedirs(self.policy_directory, exist_ok=True)
        for own in (os.path.dirname(self.control), self.state):
            os.makedirs(own, exist_ok=True)
            os.chown(own, UID, UID)
        self.log = Log(self.log_path)

    def environment(self, **more):
        return {**os.environ, "SLUICE_CONTROL": self.control, "SLUICE_STATE": self.state, **more}

    def write_policy(self, text):
        """Replace the policy file as a careful editor does."""
        with open(self.policy_file + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(self.policy_file + ".new", self.policy_file)

    def start(self, policy=None, wait=True, arguments=None, stdout=None, **environment):
        """Start the program and wait until it is healthy."""
        if policy is not None:
            self.write_policy(policy)
        output = stdout if stdout is not None else open(self.log_path, "ab")  # pylint: disable=consider-using-with
        try:
            arguments = ["run", "-c", self.policy_directory] if arguments is None else arguments
            self.process = self.namespace.start([self.binary, *arguments], stdout=output, stderr=subprocess.STDOUT,
                                                env=self.environment(**environment))
        finally:
            if stdout is None:
                output.close()
        if wait:
            self.wait_healthy()
        return self.process

    def wait_healthy(self, seconds=20):
        end = time.monotonic() + patience(seconds)
        while not self.healthy():
            if self.process.poll() is not None:
                raise NotHealthy(f"the gateway ended with status {self.process.returncode}; its log:\n{self.log.tail()}")
            if time.monotonic() > end:
                raise NotHealthy(f"the gateway is not healthy after {patience(seconds)} s; its log:\n{self.log.tail()}")
            time.sleep(0.02)

    def healthy(self):
        return self.sluice("health").returncode == 0

    def sluice(self, *arguments, **options):
        """Run a client command. Return: CompletedProcess."""
        options.setdefault("env", self.environment())
        return self.namespace.run([self.binary, *arguments], **options)

    def set_policy(self, text):
        """Write a policy and have it taken over. Fails when the program refuses it."""
        self.write_policy(text)
        done = self.sluice("reload")
        assert done.returncode == 0, f"reload refused the policy: {done.stdout}{done.stderr}\n{self.log.tail(10)}"

    def worker(self):
        """Process id of the worker."""
        end = time.monotonic() + patience(5)
        while not (found := children(self.process.pid)):
            assert self.process.poll() is None, f"the gateway ended with status {self.process.returncode}:\n{self.log.tail()}"
            assert time.monotonic() < end, f"no worker under the supervisor:\n{self.log.tail()}"
            time.sleep(0.01)
        assert len(found) == 1, f"one worker expected, found {found}"
        return found[0]

    def kill_worker(self, hold=False):
        """kill -9 the worker. `hold`: the supervisor is stopped first, so that none comes back until release()."""
        worker = self.worker()
        if hold:
            os.kill(self.process.pid, signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)
        end = time.monotonic() + patience(5)
        while worker in children(self.process.pid):
            assert time.monotonic() < end, "the worker survived kill -9"
            time.sleep(0.005)
        return worker

    def release(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self):
        """SIGTERM. Return: exit status."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.release()
        status = stop(self.process, 15)
        if self.process in self.namespace.processes:
            self.namespace.processes.remove(self.process)
        self.process = None
        return status
