# SPDX-License-Identifier: MIT
"""A Docker engine of our own, its Compose, and projects in it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time

from world import CACHE, DNS, PROXY, PROXY_PORT, Failed, command, stop

ONLY = os.environ.get("SLUICE_DOCKER_ONLY", "")  # "matrix": the tests with this mark
VERSION = os.environ.get("SLUICE_DOCKER_ENGINE", "")
LOGS = os.environ.get("SLUICE_DOCKER_LOGS", "/run")
BUILT = os.environ.get("SLUICE_DOCKER_IMAGE", "/run/sluice.tar")  # the image, once an engine of this run has built it
TREE = os.path.join(CACHE, f"engine-{VERSION}")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OUTPUT_LINES = 40  # of a failed command, in the test's report
WORK = "/run/work"  # seen by the tests and by the engine
IMAGE = "sluice"
APP_IMAGE = "sluice-test/app"
# Images that recipes name. No registry can be reached: one Debian tree with curl, git, ssh, caddy and valkey stands for all of them.
STAND_INS = ("curlimages/curl:8.11.1", "valkey/valkey:8", "caddy:2", "python:3.13-slim")
BUILD_BASE = "debian:trixie-slim"  # the Dockerfile's default
BUILD_PROXY = f"http://{PROXY}:{PROXY_PORT}"
RELEASE = os.path.join(ROOT, ".github", "workflows", "release.yml")


# The engine's tree becomes the root of a mount namespace. With chroot alone `docker exec` would enter this machine's root: the kernel puts a
# process that joins a mount namespace at the namespace's root, and pivot_root inside a chroot does not change that.
START = """
cd "$1"
shift
mkdir -p old-root
pivot_root . old-root
exec chroot . sh -c 'umount -l /old-root; exec "$@"' sh "$@"
"""


def chroot(argv, directory="/"):
    return ["chroot", TREE, "env", "-C", directory, *argv]


def builds_as_another():
    """The engine has the same kind of builder as one before it in this run, whose image is there."""
    return bool(ONLY) and not VERSION.startswith("20.") and os.path.exists(BUILT)


class Engine:
    """One dockerd."""

    def __init__(self):
        self.process = None
        self.log_path = os.path.join(LOGS, f"dockerd-{VERSION}.log")
        self.modern = not VERSION.startswith("20.")
        self.version = tuple(int(part) for part in VERSION.split("."))

    def start(self):
        os.makedirs(WORK, exist_ok=True)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-ec", START, "sh", TREE,
                                             "dockerd", "--data-root", "/var/lib/docker", "--cgroup-parent", "/sluice-test"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + 90
        while self.docker("version", check=False).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > end:
                raise Failed(f"dockerd {VERSION} did not start; its log is {self.log_path}")
            time.sleep(0.2)

    def stop(self):
        if self.process is not None:
            stop(self.process, 30)
            self.process = None

    def kill(self):
        """As in a power loss, but for the containers."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def run(self, argv, directory="/", check=True, timeout=300, environment=None, **options):
        """Run a program in the engine's tree. Return: CompletedProcess, output and errors in one text."""
        options.setdefault("stdin", None if "input" in options else subprocess.DEVNULL)
        if "input" in options:
            del options["stdin"]
        done = subprocess.run(chroot(argv, directory), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout,
                              env={**os.environ, "HOME": "/root", **(environment or {})}, check=False, **options)
        if check and done.returncode != 0:
            with open(os.path.join(LOGS, f"failed-{VERSION}.log"), "a", encoding="utf-8") as log:
                log.write(f"{' '.join(argv)}: exit status {done.returncode}:\n{done.stdout}\n")
            raise Failed(f"{' '.join(argv)}: exit status {done.returncode}:\n" + "\n".join(done.stdout.splitlines()[-OUTPUT_LINES:]))
        return done

    def popen(self, argv, text):
        """Start a program with this as its input."""
        process = subprocess.Popen(chroot(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        process.stdin.write(text)
        process.stdin.close()
        process.stdin = None  # communicate() does not write again
        return process

    def docker(self, *arguments, **options):
        return self.run(["docker", *arguments], **options)

    def compose(self, directory, *arguments, **options):
        program = ["docker", "compose"] if self.modern else ["docker-compose"]
        return self.run([*program, *arguments], directory, **options)

    def inspect(self, container, template):
        return self.docker("inspect", "--format", template, container).stdout.strip()

    def remove_everything(self):
        """Containers and networks of a run that was broken off; images and build layers stay."""
        containers = self.docker("ps", "-aq").stdout.split()
        if containers:
            self.docker("rm", "-f", "-v", *containers)
        self.docker("network", "prune", "-f")

    # --- images ---

    def load_images(self):
        self.load_tree("app", APP_IMAGE)
        for name in STAND_INS:
            self.docker("tag", APP_IMAGE, name)
        self.change_image("caddy:2", 'CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]', "ENV XDG_DATA_HOME=/data")

    def change_image(self, image, *changes):
        """Give an image what the one that it stands for has: its command, its environment."""
        container = self.docker("create", image).stdout.strip()
        try:
            self.docker("commit", *(word for change in changes for word in ("--change", change)), container, image)
        finally:
            self.docker("rm", container)

    def load_tree(self, name, image):
        """A Debian tree as an image, once for each version of the tree."""
        with open(os.path.join(CACHE, f"{name}.made"), encoding="ascii") as made:
            stamp = f"{made.read().strip()} {int(os.fstat(made.fileno()).st_mtime)}"
        label = '{{index .Config.Labels "sluice.test.tree"}}'
        have = self.docker("image", "inspect", "--format", label, image, check=False)
        if have.returncode == 0 and have.stdout.strip() == stamp:
            return
        with subprocess.Popen(["tar", "-C", os.path.join(CACHE, name), "-c", "."], stdout=subprocess.PIPE) as tar:
            self.run(["docker", "import", "--change", f"LABEL sluice.test.tree=\"{stamp}\"", "--change", "CMD [\"/bin/bash\"]", "-", image], stdin=tar.stdout)
        if tar.returncode != 0:
            raise Failed("tar failed")

    def prepare_build(self):
        """The image that the build starts from, without a registry."""
        self.load_tree("base", BUILD_BASE)

    def build_image(self, *arguments, tag=IMAGE, released=False, fresh=False):
        """`docker build` of the Dockerfile under test, or of that of a release; `fresh`: what a build before has compiled is of no use.
        Return: its output."""
        self.prepare_build()
        context = os.path.join(WORK, "context")
        copy_project(context, ("Dockerfile", ".dockerignore", "LICENSE", "meson.build", "meson.options", "common", "resolver", "gateway", "docs/lint.md", "docs/sluice.8",
                               "tests/unit", "tests/attack", "tests/faults", "tests/bench"))
        if released:
            self.run(["sh", "-ec", release_step("Dockerfile")], context)
        if fresh:
            with open(os.path.join(context, "LICENSE"), "a", encoding="utf-8") as file:
                file.write(f"{time.time()}\n")
        try:
            return self.docker("build", "--build-arg", f"http_proxy={BUILD_PROXY}", "--tag", tag, *arguments, context, timeout=1800).stdout
        finally:
            shutil.rmtree(context)

    def take_image(self):
        """The image under test: from the engine that built it, where a builder of this kind has been tried already, or built here."""
        if builds_as_another():
            self.run(["docker", "load"], stdin=open(BUILT, "rb"))  # pylint: disable=consider-using-with
            return
        self.build_image(released=self.modern)
        with open(BUILT, "wb") as file:
            subprocess.run(chroot(["docker", "save", IMAGE]), stdout=file, check=True)


def copy_project(directory, names):
    """Some of the project's files and folders."""
    shutil.rmtree(directory, ignore_errors=True)
    for name in names:
        source, target = os.path.join(ROOT, name), os.path.join(directory, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isdir(source):
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target, follow_symlinks=False)


def release_step(word):
    """The one command of the release workflow that changes this file."""
    with open(RELEASE, encoding="utf-8") as file:
        step, = [line.partition("run:")[2].strip() for line in file if "run: sed -i" in line and word in line]
    return step


class Project:
    """A recipe, copied to a directory of its own and started there. A context manager."""

    running = []  # all that are up, for the report of a test that fails

    def __init__(self, engine, recipe, name=None, environment=None):
        self.engine, self.recipe = engine, recipe
        self.name = name or recipe
        self.directory = os.path.join(WORK, self.name)
        self.environment = environment or {}

    def __enter__(self):
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.copytree(os.path.join(ROOT, "compose", self.recipe), self.directory)
        Project.running.append(self)
        return self

    def __exit__(self, *_):
        Project.running.remove(self)
        self.compose("down", "-v", "--remove-orphans", "-t", "2", check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def save_logs(self):
        """Keep what all its containers said. Return: it."""
        text = self.compose("ps", check=False).stdout + self.compose("logs", "--no-color", check=False).stdout
        with open(os.path.join(LOGS, f"{VERSION}-{self.name}.log"), "w", encoding="utf-8") as file:
            file.write(text)
        return text

    def compose(self, *arguments, **options):
        options.setdefault("environment", self.environment)
        return self.engine.compose(self.directory, *arguments, **options)

    def edit(self, file, *replacements):
        """Replace texts, each of which must be there, in one of the project's files."""
        path = os.path.join(self.directory, file)
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
        for old, new in replacements:
            assert old in text, f"{file} has no {old!r}"
            text = text.replace(old, new)
        with open(path + ".new", "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(path + ".new", path)

    def up(self, *arguments, healthy=("gateway",)):
        try:
            self.compose("up", "-d", *arguments)
            for service in healthy:
                self.wait_healthy(service)
        except Failed as error:
            raise Failed(f"{error}\n{self.save_logs()}") from None
        return self

    def container(self, service):
        """Its id, also when it has ended."""
        everything = ["-a"] if self.engine.modern else []
        return self.compose("ps", *everything, "-q", service).stdout.split()[-1]

    def wait_healthy(self, service="gateway", seconds=60):
        end = time.monotonic() + seconds
        while True:
            state = self.engine.inspect(self.container(service), "{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}")
            if state == "running healthy":
                return
            if time.monotonic() > end or "exited" in state:
                raise Failed(f"{self.name}: {service} is {state}:\n{self.logs(service)}")
            time.sleep(0.1)

    def logs(self, service="gateway"):
        return self.compose("logs", "--no-color", service, check=False).stdout

    def log_lines(self, service="gateway"):
        """What the gateway wrote, without Compose's prefix."""
        return self.engine.docker("logs", self.container(service)).stdout.splitlines()

    def wait_log(self, *words, service="gateway", seconds=10):
        """The first line that has all these words. Fails with the whole log."""
        end = time.monotonic() + seconds
        while True:
            for line in self.log_lines(service):
                if all(word in line for word in words):
                    return line
            if time.monotonic() > end:
                raise AssertionError(f"no log line with {words}:\n" + "\n".join(self.log_lines(service)[-40:]))
            time.sleep(0.2)

    # --- what apps do ---

    def exec(self, service, *argv, **options):
        options.setdefault("check", False)
        interactive = ["-i"] if "input" in options else []
        return self.engine.docker("exec", *interactive, self.container(service), *argv, **options)

    def python(self, service, text, *arguments, **options):
        return self.exec(service, "python3", "-", *arguments, input=text, **options)

    def curl(self, service, url, *options):
        """Return: curl's exit status, what it printed, seconds."""
        start = time.monotonic()
        done = self.exec(service, "curl", "-sS", "--max-time", "15", *options, url)
        return done.returncode, done.stdout.strip(), time.monotonic() - start


def resolver_of(engine, container):
    """The container's resolv.conf."""
    return engine.docker("exec", container, "cat", "/etc/resolv.conf").stdout


__all__ = ["Engine", "Project", "DNS", "Failed", "IMAGE", "VERSION", "WORK", "command", "contextlib", "json", "resolver_of"]
