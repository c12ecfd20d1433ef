# SPDX-License-Identifier: MIT
"""The image: built by each builder, small, with nothing in it but what the program needs, and not root."""

import json
import os
import re

import pytest

from engine import IMAGE, ROOT

SIZE_MAX = 30_000_000  # bytes


@pytest.mark.parametrize("buildkit", [False, True], ids=["legacy builder", "BuildKit"])
def test_dockerfile_builds(bare_engine, buildkit):
    bare_engine.build_image(buildkit=buildkit)


def test_unit_tests_run_inside_the_build(bare_engine):
    output = bare_engine.build_image("--build-arg", "CHECK=1", "--tag", "sluice-checked")
    assert "sluice-checked" in bare_engine.docker("image", "ls").stdout
    assert re.search(r"Fail:\s+0|CACHED|Using cache|exporting", output)


def test_image_is_small_and_holds_only_what_is_needed(engine):
    size = int(engine.docker("image", "inspect", "--format", "{{.Size}}", IMAGE).stdout)
    assert size < SIZE_MAX
    container = engine.docker("create", IMAGE).stdout.strip()
    try:
        listing = engine.run(["sh", "-c", f"docker export {container} | tar -tv"]).stdout.splitlines()
    finally:
        engine.docker("rm", container)
    files = [line for line in listing if not line.startswith("d")]
    allowed = re.compile(r" (usr/bin/sluice|lib(64)?/.*\.so\.[0-9.]+|usr/lib/.*\.so\.[0-9.]+|etc/ssl/certs/ca-certificates.crt|etc/passwd|etc/group|usr/share/doc/[^/]*/copyright|"
                         r"var/lib/dpkg/status.d/[a-z0-9.+-]+|"
                         r"\.dockerenv|dev/console|etc/(hostname|hosts|resolv.conf|mtab)( -> .*)?)$")
    assert [line for line in files if not allowed.search(line)] == []
    assert sum("status.d/" in line for line in files) > 10, "scanners find the packages"


def test_image_says_who_it_is(engine):
    config = json.loads(engine.docker("image", "inspect", IMAGE).stdout)[0]["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/usr/bin/sluice"] and config["Cmd"] == ["run"]
    assert config["Healthcheck"]["Test"] == ["CMD", "/usr/bin/sluice", "health"]
    with open(os.path.join(ROOT, "meson.build"), encoding="utf-8") as file:
        version = re.search(r"version: '(.*)'", file.read()).group(1)
    assert config["Labels"]["org.opencontainers.image.title"] == "Sluice"
    assert config["Labels"]["org.opencontainers.image.version"] == version
    assert engine.docker("run", "--rm", IMAGE, "--version").stdout.strip() == f"sluice {version}"


def test_commands_start_without_any_capability(engine):
    """With an effective file capability the kernel would refuse to start the program at all."""
    done = engine.docker("run", "--rm", "--cap-drop", "ALL", "--read-only", IMAGE, "--version")
    assert done.stdout.startswith("sluice ")


def test_without_net_admin_the_error_says_what_to_add(engine):
    done = engine.docker("run", "--rm", "--cap-drop", "ALL", "--read-only", "-e", "SLUICE_CONFIG=[network a]\nsubnet = 10.201.1.0/24\n", IMAGE, check=False)
    assert done.returncode == 1
    assert "cap_add: [NET_ADMIN]" in done.stdout
