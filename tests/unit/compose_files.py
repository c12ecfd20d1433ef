#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""compose_files.py SLUICE DATA: what `sluice init` and `sluice lint` print, read as YAML. Exit status 77: PyYAML is not there.

A file of `sluice init` must pass `sluice check` and `sluice lint`. Of each finding of `sluice lint` on the projects under DATA, the lines to
write must make it go away. The recipes in compose/ must pass `sluice lint` and hold what CONTRIBUTING.md asks of a recipe."""

import copy
import glob
import ipaddress
import json
import os
import re
import subprocess
import sys

try:
    import yaml
except ImportError:
    sys.exit(77)

NAMES = ["api.vendor.example:443", "*.cdn.example", "**.bücher.example:8000-8100/tcp", "192.0.2.0/24:5432/tcp"]

DOCKER_POOLS = [ipaddress.ip_network(text) for text in ("172.16.0.0/12", "192.168.0.0/16")]

# Findings whose lines are to be written instead of others.
INSTEAD_OF = {"app-network-mode": "network_mode", "gateway-inline-config": "configs"}


def run(words, text=None):
    """Return: (exit status, standard output)."""
    done = subprocess.run(words, input=text, capture_output=True, encoding="utf-8", check=False)
    return done.returncode, done.stdout, done.stderr


def interpolate(text):
    """${VAR:-default}, as Compose does it without the variable."""
    return re.sub(r"\$\{[A-Z0-9_]+:-([^}]*)\}", r"\1", text)


def lint(sluice, project, options=None):
    """Return: the findings."""
    words = [sluice, "lint", "--json"]
    for key in ("gateway", "uplink"):
        if key in (options or {}):
            words += ["--" + key, options[key]]
    for network in (options or {}).get("networks", []):
        words += ["--network", network]
    status, out, errors = run(words, json.dumps(project))
    assert status in (0, 1), errors
    report = json.loads(out)
    assert (status == 0) == (report["errors"] == 0) == report["ok"], out
    return report["findings"]


def check_init(sluice, network):
    status, text, errors = run([sluice, "init", "--", network] + NAMES)
    assert status == 0, errors
    project = yaml.safe_load(interpolate(text))
    policy = project["services"]["gateway"]["environment"]["SLUICE_CONFIG"]
    status, out, errors = run([sluice, "check", "/dev/stdin"], policy)
    assert status == 0 and not errors, errors
    assert all(name.partition(":")[0] in out for name in NAMES), out
    assert lint(sluice, project) == [], lint(sluice, project)
    assert project["services"]["app"]["networks"] == [network]


def merge(into, patch, nulls_remove):
    """JSON merge patch; without nulls_remove as one adds lines to a Compose file."""
    for key, value in patch.items():
        if nulls_remove and value is None and key in into:
            del into[key]
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value, nulls_remove)
        else:
            into[key] = copy.deepcopy(value)
    return into


def load(folder, name):
    with open(os.path.join(folder, name + ".json"), encoding="utf-8") as file:
        project = json.load(file)
    if "x-base" in project:
        return merge(load(folder, project["x-base"]), project, True)
    return project


def same(one, other):
    return all(one[key] == other[key] for key in ("code", "service", "network", "text"))


def check_fixes(sluice, folder, name):
    """Return: the number of findings with lines to write."""
    project, fixes = load(folder, name), 0
    options = project.get("x-options")
    for finding in lint(sluice, project, options):
        if finding["fix"] is None:
            continue
        fixed = copy.deepcopy(project)
        if finding["code"] in INSTEAD_OF:
            del fixed["services"][finding["service"]][INSTEAD_OF[finding["code"]]]
        merge(fixed, yaml.safe_load(finding["fix"]), False)
        left = [other for other in lint(sluice, fixed, options) if same(other, finding)]
        assert not left, f"{name}: still there: {finding['text']}\nafter\n{finding['fix']}"
        fixes += 1
    return fixes


def subnets(text, project, where):
    """The subnets that a recipe gives to its networks. Each can be set by a variable."""
    found = [ipaddress.ip_network(config["subnet"]) for network in project.get("networks", {}).values()
             for config in network.get("ipam", {}).get("config", [])]
    assert len(found) == len(re.findall(r'subnet: "\$\{[A-Z0-9_]+:-[^}]+\}"', text)), f"{where}: a subnet that no variable sets"
    for subnet in found:
        assert not any(subnet.version == pool.version and subnet.overlaps(pool) for pool in DOCKER_POOLS), f"{where}: {subnet} is in Docker's pools"
    return found


def check_services(project, where):
    for name, service in project["services"].items():
        assert service["restart"] == "unless-stopped", f"{where}: {name}: restart"
        assert {"max-size", "max-file"} <= service["logging"]["options"].keys(), f"{where}: {name}: log rotation"
    gateway = project["services"].get("gateway")
    assert not gateway or "ipv4_address" in gateway["networks"]["uplink"], f"{where}: the uplink's address is not fixed"


def check_recipe(sluice, path):
    """Return: the recipe's subnets."""
    where, folder = path.partition("/compose/")[2], os.path.dirname(path)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    project = yaml.safe_load(interpolate(text))
    check_services(project, where)
    words = [sluice, "lint"]
    if os.path.isdir(folder + "/policy"):
        words += ["-c", folder + "/policy"]
    if "gateway" not in project["services"]:
        words += [word for network in project["networks"] for word in ("--network", network)]
    status, out, errors = run(words, json.dumps(project))
    assert status == 0, f"{where}: {out}{errors}"
    return subnets(text, project, where)


def check_recipes(sluice, folder):
    """Return: how many there are. They can all be up at once."""
    seen = []
    paths = sorted(glob.glob(folder + "/**/docker-compose.yml", recursive=True))
    for path in paths:
        for subnet in check_recipe(sluice, path):
            assert not any(subnet.version == other.version and subnet.overlaps(other) for other in seen), f"{path}: {subnet} is another recipe's"
            seen.append(subnet)
    return len(paths)


def main():
    sluice, data = sys.argv[1:]
    folder = os.path.join(data, "lint")
    for network in ("web", "no", "1e3", "null", "-x", "a_b-c"):
        check_init(sluice, network)
    fixes = sum(check_fixes(sluice, folder, name[:-5]) for name in sorted(os.listdir(folder)) if name.endswith(".json"))
    assert fixes > 40, fixes
    recipes = check_recipes(sluice, os.path.abspath(os.path.join(data, "..", "..", "..", "compose")))
    assert recipes >= 10, recipes
    print(f"{fixes} fixes, {recipes} recipes")


if __name__ == "__main__":
    main()
