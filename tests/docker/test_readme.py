# SPDX-License-Identifier: MIT
"""The quickstart of README.md, word for word: in a clean directory, typed at a terminal, one line after the other."""

import json
import os
import re
import shutil
import subprocess

import pytest

from apps import NO_SUCH_HOST, OK, REFUSED
from engine import BUILD_PROXY, ROOT, WORK, chroot

pytestmark = pytest.mark.builder

DIRECTORY = os.path.join(WORK, "clone")
EXPECTED = {"https://example.com/": OK, "https://example.org/": NO_SUCH_HOST, "https://9.9.9.9/": REFUSED}


def quickstart(modern):
    """The commands, without their comments; for Compose 1.29 as the README says."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        section = file.read().partition("## Quickstart")[2].partition("```console\n")[2].partition("```")[0]
    lines = [re.sub(r"\s+#.*", "", line.removeprefix("$ ")) for line in section.splitlines() if line.startswith("$ ")]
    return [line if modern else line.replace("docker compose", "docker-compose") for line in lines]


def typed(line, directory, **environment):
    """Run a line as somebody at a terminal does. Return: exit status, what was shown."""
    master, terminal = os.openpty()
    with open(os.path.join(WORK, "shown"), "w+b") as shown:
        # The terminal is what programs ask about; what they write is read from a file.
        with subprocess.Popen(chroot(["sh", "-c", line], directory), stdin=terminal, stdout=shown, stderr=shown, env={**os.environ, "HOME": "/root", **environment}) as process:
            status = process.wait(timeout=900)
        os.close(master)
        os.close(terminal)
        shown.seek(0)
        return status, shown.read().decode(errors="replace")


def without_registry():
    """A Docker configuration with the proxy to the Debian archive: what takes the place of the Internet for `docker build`."""
    directory = os.path.join(WORK, "docker-config")
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "config.json"), "w", encoding="ascii") as file:
        json.dump({"proxies": {"default": {"httpProxy": BUILD_PROXY}}}, file)
    return {"DOCKER_CONFIG": directory}


def test_quickstart_word_for_word(engine, world, modern):
    engine.prepare_build()
    tag = engine.docker("image", "inspect", "--format", "{{.Id}}", "sluice").stdout.strip()
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    shutil.copytree(ROOT, DIRECTORY, symlinks=True, ignore=shutil.ignore_patterns("build*", ".git", "__pycache__"))
    lines, directory, tried = quickstart(modern), DIRECTORY, {}
    assert len(lines) > 6
    try:
        for line in lines:
            if line.startswith("cd "):
                directory = os.path.join(directory, line.removeprefix("cd "))
                continue
            status, shown = typed(line, directory, **(without_registry() if line.startswith("docker build") else {}))
            url = line.split()[-1]
            if url in EXPECTED:
                tried[url] = status
                assert status == EXPECTED[url], f"{line}: exit status {status}:\n{shown}"
            else:
                assert status == 0, f"{line}: exit status {status}:\n{shown}"
            if line.endswith("logs gateway"):
                assert "qname=example.org" in shown and "dst=9.9.9.9" in shown, shown
        assert tried.keys() == EXPECTED.keys()
        assert world.names.count() > 0 and engine.docker("ps", "-q").stdout == ""
    finally:
        typed(f"{'docker compose' if modern else 'docker-compose'} down -v", os.path.join(DIRECTORY, "compose", "quickstart"))
        engine.docker("tag", tag, "sluice")
        shutil.rmtree(DIRECTORY, ignore_errors=True)
