# SPDX-License-Identifier: MIT
"""compose/monitoring: its rules, its dashboard and a real Prometheus, against the metrics of a real gateway."""

import json
import os
import re
import shutil
import subprocess
import urllib.parse

import pytest
import yaml

from lab import GATEWAY_UPLINK4, ROOT
from namespaces import stop, wait_until
from test_http import PORT, fetch, promtool, samples, with_http

MONITORING = os.path.join(ROOT, "compose", "monitoring")
ALERTS = os.path.join(MONITORING, "prometheus", "alerts.yml")
TESTS = os.path.join(ROOT, "tests", "netns", "data", "alerts_test.yml")
DASHBOARD = os.path.join(MONITORING, "grafana", "dashboards", "sluice.json")
OWN = {"up"}  # that Prometheus makes itself


def read_yaml(path):
    with open(path, encoding="utf-8") as file:
        return yaml.safe_load(file)


def read_dashboard():
    with open(DASHBOARD, encoding="utf-8") as file:
        return json.load(file)


def panels():
    return [panel for panel in read_dashboard()["panels"] if panel["type"] != "row"]


def filled_in(expression):
    """A dashboard's expression as Grafana sends it."""
    return expression.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$network", ".*")


def expressions():
    found = [filled_in(target["expr"]) for panel in panels() for target in panel["targets"]]
    found += [re.match(r"label_values\((.*), \w+\)$", variable["query"]["query"]).group(1).replace("$instance", ".*")
              for variable in read_dashboard()["templating"]["list"]]
    return found


def alerts():
    return [rule for group in read_yaml(ALERTS)["groups"] for rule in group["rules"]]


def metric_names(expression):
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]', "", expression)
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", "", bare)
    return {word for word in re.findall(r"\b[a-z_]+\b(?!\s*\()", bare)} - {"offset", "d", "m", "h"}


def test_rules_and_configuration_are_good_to_promtool():
    for what, path in (("rules", ALERTS), ("config", os.path.join(MONITORING, "prometheus", "prometheus.yml"))):
        status, said = promtool("check", what, path)
        assert status == 0, said


def test_each_alert_fires_when_it_should():
    status, said = promtool("test", "rules", TESTS)
    assert status == 0, said
    tested = {entry["alertname"] for test in read_yaml(TESTS)["tests"] for entry in test["alert_rule_test"] if entry.get("exp_alerts")}
    assert tested == {rule["alert"] for rule in alerts()}


def test_each_alert_says_what_to_do():
    with open(os.path.join(MONITORING, "README.md"), encoding="utf-8") as file:
        readme = file.read()
    for rule in alerts():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]
        assert f"| `{rule['alert']}` | {rule['labels']['severity']} |" in readme, rule["alert"]


def test_every_expression_parses(tmp_path):
    rules = [{"record": f"dashboard:expression{number}", "expr": expression} for number, expression in enumerate(expressions())]
    assert len(rules) > 30
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    status, said = promtool("check", "rules", "--lint=none", str(path))
    assert status == 0, said


def test_every_metric_that_is_used_exists(lab):
    text = fetch(lab.gw, "/metrics").body.decode()
    there = {name.partition("{")[0] for name in samples(text)} | OWN
    used = set().union(*(metric_names(expression) for expression in expressions() + [rule["expr"] for rule in alerts()]))
    assert len(used) > 20
    assert used <= there, used - there


def test_the_documentation_lists_every_metric(lab):
    with open(os.path.join(ROOT, "docs", "metrics.md"), encoding="utf-8") as file:
        listed = set(re.findall(r"^\| `([a-z_]+)(?:\{[^`]*)?` \|", file.read(), re.M))
    there = {name.partition("{")[0] for name in samples(fetch(lab.gw, "/metrics").body.decode())}
    assert listed == there


def test_the_dashboard_is_whole():
    dashboard, seen = read_dashboard(), set()
    source = read_yaml(os.path.join(MONITORING, "grafana", "provisioning", "datasources", "prometheus.yml"))["datasources"][0]
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & seen and all(x < 24 for x, _ in cells), panel["title"]
        seen |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert dashboard["panels"][0]["title"] == "Is something wrong?"
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": source["uid"]}, panel["title"]


class Prometheus:
    """The recipe's, next to the gateway's uplink; faster, and told the gateway's address since there is no Docker that knows its name."""

    def __init__(self, host, directory):
        self.host = host
        shutil.copy(ALERTS, directory)
        config = read_yaml(os.path.join(MONITORING, "prometheus", "prometheus.yml"))
        assert config["scrape_configs"][0]["static_configs"][0]["targets"] == ["gateway:9780"]
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"{GATEWAY_UPLINK4}:{PORT}"]
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        path = directory / "prometheus.yml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        with open(directory / "log", "wb") as log:
            self.process = host.start(["prometheus", f"--config.file={path}", f"--storage.tsdb.path={directory}/data", "--web.listen-address=127.0.0.1:9090"],
                                      stdout=log, stderr=subprocess.STDOUT)

    def query(self, expression):
        url = "http://127.0.0.1:9090/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        text = self.host.run(["curl", "-s", url]).stdout
        answer = json.loads(text) if text.startswith("{") else {"status": "none", "error": text}
        return answer["data"]["result"] if answer["status"] == "success" else None


@pytest.fixture
def prometheus(lab, tmp_path):
    if shutil.which("prometheus") is None:
        pytest.fail("prometheus is not installed: apt-get install prometheus")
    server = Prometheus(lab.inet, tmp_path)
    yield server
    stop(server.process)
    lab.inet.processes.remove(server.process)


def test_a_real_prometheus_reads_it_and_fills_every_panel(lab, policy, prometheus, web1):
    policy(with_http(f"0.0.0.0:{PORT}"))
    wait_until(lambda: [row["value"][1] for row in prometheus.query('up{job="sluice"}') or []] == ["1"], "not scraped", 30)
    counted = 'sum(sluice_denied_total{network="web",reason="name-not-allowed"})'
    before = float(prometheus.query(counted)[0]["value"][1])
    assert web1.resolve("prometheus.evil.example") == []
    wait_until(lambda: float(prometheus.query(counted)[0]["value"][1]) > before, "the denial is not counted")
    for panel in panels():
        for target in panel["targets"]:
            expression = filled_in(target["expr"])
            wait_until(lambda wanted=expression: prometheus.query(wanted) or (wanted.endswith("> 0") and prometheus.query(wanted) is not None),
                       f"{panel['title']}: nothing for {expression}")
    assert prometheus.query("ALERTS") == [], "no alert of a gateway that is well"


def test_the_policy_of_the_recipe_opens_the_port_that_is_scraped():
    path = os.path.join(MONITORING, "policy", "sluice.conf")
    with open(path, encoding="utf-8") as file:
        assert re.search(rf"^http = 0\.0\.0\.0:{PORT}\b", file.read(), re.M)
