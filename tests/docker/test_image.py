# SPDX-License-Identifier: MIT
"""The image: built by each builder, small, with nothing in it but what the program needs, and not root."""

import json
import os
import re

import pytest

from engine import IMAGE, ROOT

SIZE_MAX = 30_000_000  # bytes


# The quickstart of README.md is a plain `docker build` as well: test_readme.py.


@pytest.mark.builder
def test_the_engines_own_builder_builds_it(engine):
    """The legacy builder of old engines, and BuildKit."""
    output = engine.build_image(tag="sluice-plain")
    assert ("Step 1/" in output) == (not engine.modern), output
    assert "sluice-plain" in engine.docker("image", "ls").stdout


@pytest.mark.modern  # old builders remove the stage that tells
def test_unit_tests_run_inside_the_build(engine):
    output = engine.build_image("--build-arg", "CHECK=1", "--progress", "plain", tag="sluice-checked", fresh=True)
    assert re.search(r"Fail:\s+0\b", output), output[-2000:]
    assert re.search(r"Ok:\s+[1-9]", output)


@pytest.mark.modern
def test_a_released_image_is_asked_for_its_health_sooner(engine):
    """Engines before 25 refuse the option, so it is not in the Dockerfile but comes with the release workflow."""
    interval = "{{.Config.Healthcheck.StartInterval}}"
    assert engine.docker("image", "inspect", "--format", interval, IMAGE).stdout.strip() == "500ms"
    engine.build_image(tag="sluice-plain")
    assert engine.docker("image", "inspect", "--format", interval, "sluice-plain").stdout.strip() in ("0s", "<nil>", "<no value>")


def test_image_is_small_and_holds_only_what_is_needed(engine):
    size = int(engine.docker("image", "inspect", "--format", "{{.Size}}", IMAGE).stdout)
    assert size < SIZE_MAX
    container = engine.docker("create", IMAGE).stdout.strip()
    try:
        listing = engine.run(["sh", "-c", f"docker export {container} | tar -tv"]).stdout.splitlines()
    finally:
        engine.docker("rm", container)
    files = [line for line in listing if not line.startswith("d")]
    allowed = re.compile(r" (usr/bin/sluice|lib(64)?/.*\.so\.[0-9.]+|usr/lib/.*\.so\.[0-9.]+|etc/ssl/certs/ca-certificates.crt|usr/lib/ssl/cert.pem -> /etc/ssl/certs/ca-certificates.crt|etc/passwd|etc/group|usr/share/doc/[^/]*/copyright|"
                         r"var/lib/dpkg/status.d/[a-z0-9.+-]+|"
                         r"\.dockerenv|dev/console|etc/(hostname|hosts|resolv.conf|mtab)( -> .*)?)$")
    assert [line for line in files if not allowed.search(line)] == []
    assert sum("status.d/" in line for line in files) > 10, "scanners find the packages"


@pytest.mark.matrix
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


@pytest.mark.matrix
def test_commands_start_without_any_capability(engine):
    """With an effective file capability the kernel would refuse to start the program at all."""
    done = engine.docker("run", "--rm", "--cap-drop", "ALL", "--read-only", IMAGE, "--version")
    assert done.stdout.startswith("sluice ")


@pytest.mark.matrix
def test_without_net_admin_the_error_says_what_to_add(engine):
    done = engine.docker("run", "--rm", "--cap-drop", "ALL", "--read-only", "-e", "SLUICE_CONFIG=[network a]\nsubnet = 10.201.1.0/24\n", IMAGE, check=False)
    assert done.returncode == 1
    assert "cap_add: [NET_ADMIN]" in done.stdout
