"""The shipped Prometheus, Alertmanager and Grafana files fit the system that they watch."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from recovery import measurement, series
from recovery.alertmanager.mapping import meaning
from recovery.alertmanager.receiving import OUR_SOURCE
from recovery.controlplane import ControlPlane
from recovery.finding import find_component
from tests.fleet import ROOT
from tests.monitoring import tool
from tests.policies import make_policy
from tests.servers import RedisServer

COMPOSE = ROOT / "compose"
RULES = COMPOSE / "prometheus" / "rules"
DASHBOARD = COMPOSE / "grafana" / "dashboards" / "recovery.json"


def rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def strings(part: Any) -> Iterator[str]:
    if isinstance(part, dict | list):
        for inner in part.values() if isinstance(part, dict) else part:
            yield from strings(inner)
    elif isinstance(part, str):
        yield part


def asked_for(text: str) -> set[str]:
    """Our metrics that an expression names, without what a histogram's series end in."""
    names = re.findall(r"\binfra_[a-z_]+", text)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}


@pytest.fixture
def published(control_redis: RedisServer, tmp_path: Path) -> dict[str, set[str]]:
    """Every metric that a control plane publishes, with its labels."""
    control = ControlPlane(control_redis.client())
    policy = make_policy(tmp_path, {"default": {}})
    families = series.families(measurement.measure(control, policy), policy)
    control.redis.close()
    return {family.name: set(family.labels) for family in families}


@pytest.mark.parametrize("name", ["recovery.yml", "targets.yml"])
def test_promtool_accepts_the_rules(name: str) -> None:
    subprocess.run([tool("promtool"), "check", "rules", RULES / name], check=True)


def test_promtool_accepts_the_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "prometheus"
    shutil.copytree(COMPOSE / "prometheus", folder)
    shutil.copy(folder / "targets" / "example.yml.txt", folder / "targets" / "stack.yml")
    config = folder / "prometheus.yml"
    (tmp_path / "token").write_text("token")
    secret = "/run/secrets/http_read_token"
    config.write_text(config.read_text().replace(secret, str(tmp_path / "token")))

    said = subprocess.run(
        [tool("promtool"), "check", "config", config], check=True, capture_output=True, text=True
    )

    assert "WARNING" not in said.stdout + said.stderr


def test_amtool_accepts_the_configuration() -> None:
    config = COMPOSE / "alertmanager" / "alertmanager.yml"
    subprocess.run([tool("amtool"), "check-config", config], check=True)


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=RedisDown", "component=redis", "failure_type=connection_error"], "recovery"),
        (["alertname=RecoveryTargetNeedsPerson", "source=recovery"], "people"),
        (["alertname=RecoveryConcluded", "source=recovery", "failure_type=x"], "people"),
        (["alertname=SomethingElse"], "people"),
    ],
)
def test_alertmanager_routes_back_to_us_what_we_can_repair(
    labels: list[str], receiver: str
) -> None:
    config = COMPOSE / "alertmanager" / "alertmanager.yml"
    command = [tool("amtool"), "config", "routes", "test", f"--config.file={config}", *labels]

    said = subprocess.run(command, check=True, capture_output=True, text=True)

    assert said.stdout.split() == [receiver]


@pytest.mark.parametrize("rule", rules("targets.yml"), ids=lambda rule: rule["alert"])
def test_what_the_rules_about_targets_fire_is_something_that_we_repair(
    rule: dict[str, Any],
) -> None:
    component = re.search(r'component="(\w+)"', rule["expr"])
    assert component is not None
    labels = {"component": component[1], "target": "default", **rule["labels"]}

    found = meaning(labels, ())

    assert found is not None
    assert find_component(found.component).failure_type(found.failure_type) is not None
    assert rule["labels"]["severity"] in {"P0", "P1", "P2"}


@pytest.mark.parametrize("rule", rules("recovery.yml"), ids=lambda rule: rule["alert"])
def test_what_we_say_of_ourselves_never_starts_a_remedy(rule: dict[str, Any]) -> None:
    assert rule["labels"]["source"] == OUR_SOURCE
    assert rule["labels"]["severity"] in {"P0", "P1", "P2"}


def test_every_metric_that_rules_and_dashboard_name_exists(published: dict[str, set[str]]) -> None:
    expressions = [rule["expr"] for rule in rules("recovery.yml")]
    expressions += strings(json.loads(DASHBOARD.read_text()))

    named = asked_for("\n".join(expressions))

    assert named
    assert named <= set(published)


def test_every_label_that_the_rules_show_exists(published: dict[str, set[str]]) -> None:
    for rule in rules("recovery.yml"):
        known = set().union(*(published[name] for name in asked_for(rule["expr"])))
        shown = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        assert shown <= known, rule["alert"]


def test_what_the_playbook_promises_is_on_the_dashboard(published: dict[str, set[str]]) -> None:
    promised = {
        "infra_recovery_attempts_total": {"component", "strategy", "result"},
        "infra_recovery_duration_seconds": {"component", "strategy"},
        "infra_recovery_cooldown_active": {"component"},
        "infra_degraded_mode_active": {"mode"},
    }

    assert {name: published[name] for name in promised} == promised
    assert set(promised) <= asked_for(DASHBOARD.read_text())


def test_the_dashboard_asks_the_data_source_that_is_provisioned() -> None:
    provisioned = COMPOSE / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    known = {one["uid"] for one in yaml.safe_load(provisioned.read_text())["datasources"]}
    dashboard = json.loads(DASHBOARD.read_text())

    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]

    assert {panel["datasource"]["uid"] for panel in panels} <= known
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in dashboard["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
