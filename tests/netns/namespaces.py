# SPDX-License-Identifier: MIT
"""Network namespaces: make them, run programs in them, open sockets in them.

A socket belongs for its whole life to the namespace it was made in. So a test stays one process: it enters a namespace for the moment of
socket(), comes back, and uses the socket from where it is.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)

SLOW = os.environ.get("SLUICE_SLOW", "") not in ("", "0")


def patience(seconds):
    """How long to poll for something that takes `seconds` at most on an ordinary machine; an emulated one gets more."""
    return seconds * (12 if SLOW else 2)


def wait_until(condition, otherwise, seconds=10):
    """Poll until the condition holds; fails with the text `otherwise`."""
    end = time.monotonic() + patience(seconds)
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.05)


def setns(fd):
    if libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def die_with_parent():
    """Run in a child before exec: a test run that is killed leaves no programs behind."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Failed(Exception):
    """A command of the lab's own (not of a test) failed."""


def command(argv, **options):
    """Run a command that must succeed. Return: its standard output."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        raise Failed(f"{' '.join(argv)}: exit status {done.returncode}: {done.stdout.strip()}")
    return done.stdout


class Namespace:
    """One network namespace. `short` is its role ("web1"), `name` its name on this host ("s1a2-web1")."""

    def __init__(self, prefix, short):
        self.short = short
        self.name = prefix + short
        self.processes = []
        command(["ip", "netns", "add", self.name])
        self.fd = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)

    @contextlib.contextmanager
    def inside(self):
        """This thread is in the namespace for the length of the block."""
        back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(self.fd)
            yield
        finally:
            setns(back)
            os.close(back)

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM, protocol=0):
        with self.inside():
            return socket.socket(family, kind, protocol)

    def argv(self, argv):
        return ["ip", "netns", "exec", self.name, *argv]

    def run(self, argv, timeout=30, **options):
        """Run a program to its end. Return: CompletedProcess with stdout and stderr as text."""
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(self.argv(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=patience(timeout),
                              preexec_fn=die_with_parent, **options)

    def start(self, argv, **options):
        """Start a program; it is ended with the lab."""
        options.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.Popen(self.argv(argv), preexec_fn=die_with_parent, **options)
        self.processes.append(process)
        return process

    def ip(self, lines):
        """Lines for ip(8), without the leading word `ip`."""
        command(["ip", "-n", self.name, "-batch", "-"], input=lines)

    def nft(self, text):
        return command(self.argv(["nft", "-f", "-"]), input=text)

    def nft_list(self, *what):
        return command(self.argv(["nft", "list", *what]))

    def sysctl(self, **values):
        """Names with `__` for the dot: net__ipv4__ip_forward=1."""
        with self.inside():
            for key, value in values.items():
                with open("/proc/sys/" + key.replace("__", "/"), "w", encoding="ascii") as file:
                    file.write(str(value))

    def read_sysctl(self, path):
        with self.inside(), open("/proc/sys/" + path.replace(".", "/"), encoding="ascii") as file:
            return file.read().strip()

    def mac(self, interface):
        with self.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as packet:
            packet.bind((interface, 0))
            return packet.getsockname()[4]

    def close(self):
        for process in self.processes:
            stop(process)
        self.processes = []
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        subprocess.run(["ip", "netns", "delete", self.name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def stop(process, timeout=5):
    """End one process of ours: politely, then not."""
    if process.poll() is not None:
        return process.returncode
    process.terminate()
    try:
        return process.wait(patience(timeout))
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def children(pid):
    """Process ids of the direct children."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(entry))
    return found
