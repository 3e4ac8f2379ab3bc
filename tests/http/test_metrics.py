"""``/metrics``: the playbook's names, one source with the command line, cheap to scrape."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from recovery import approvals, registry
from recovery.config import Environment
from recovery.events import ProbeReport, TargetRef
from recovery.measurement import measure
from recovery.observations import record
from tests.cli.test_commands import recovery
from tests.fleet import Fleet
from tests.http.conftest import Site
from tests.stack import Stack
from tests.waiting import until

PLAYBOOK = {
    "infra_recovery_attempts_total": {"component", "strategy", "result"},
    "infra_recovery_success_total": set(),
    "infra_recovery_duration_seconds": {"component", "strategy"},
    "infra_recovery_cooldown_active": {"component"},
    "infra_degraded_mode_active": {"mode"},
}


def read(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(site: Site, name: str, **labels: str) -> float:
    return read(site.get("/metrics").text)[name, tuple(sorted(labels.items()))]


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None and os.environ.get("RECOVERY_REQUIRE_TOOLS"):
        pytest.fail("promtool is not installed (RECOVERY_REQUIRE_TOOLS=1)", pytrace=False)
    if found is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    return found


def happened(stack: Stack, fleet: Fleet) -> None:
    """A recovery that worked, one that failed, one refused, one rehearsed."""
    fleet.start()
    stack.exhaust_clients()
    stack.concluded(stack.trigger("clients_exhausted", strategy="reconnect"))
    stack.concluded(stack.trigger("connection_error", dry_run=True))
    stack.target.kill()
    stack.concluded(stack.trigger("connection_error"), seconds=40)
    refused = stack.trigger("connection_error")
    until(lambda: stack.control.redis.get(stack.control.key("decision", refused)), what="refused")


def test_what_happened_is_there_under_the_playbooks_names_and_as_the_command_says_it(
    stack: Stack, fleet: Fleet, site: Site, promtool: str
) -> None:
    happened(stack, fleet)
    record(
        stack.control,
        stack.policy,
        TargetRef("redis"),
        ProbeReport(healthy=False, failure_type="connection_error"),
        latency_ms=12.5,
    )

    text = until(lambda: settled(site), what="a measurement of all that")

    families = {family.name: family for family in text_string_to_metric_families(text)}
    for name, labels in PLAYBOOK.items():
        samples = families[name.removesuffix("_total")].samples
        assert {frozenset(s.labels) - {"le"} for s in samples} == {frozenset(labels)}, name
    reconnect = {"component": "redis", "strategy": "reconnect"}
    assert value(site, "infra_recovery_attempts_total", **reconnect, result="recovered") == 1
    assert value(site, "infra_recovery_attempts_total", **reconnect, result="failed") == 1
    assert value(site, "infra_recovery_attempts_total", **reconnect, result="dry_run") == 1
    assert value(site, "infra_recovery_success_total") == 1
    assert value(site, "infra_recovery_duration_seconds_count", **reconnect) == 2
    assert value(site, "infra_recovery_time_to_recover_seconds_count", component="redis") == 1
    assert value(site, "infra_recovery_cooldown_active", component="redis") == 1
    assert value(site, "infra_degraded_mode_active", mode="redis_unavailable") == 1
    assert value(site, "infra_recovery_refused_total", component="redis", reason="cooldown") == 1
    assert value(site, "infra_recovery_workers", state="alive") == 1
    assert value(site, "infra_recovery_queue_consumers", queue="redis") == 1
    target = {"component": "redis", "target": "default"}
    assert value(site, "infra_recovery_probe_latency_seconds", **target) == 0.0125
    assert value(site, "infra_recovery_probe_healthy", **target) == 0
    fleet.stop()
    agrees(stack, site)
    checked = subprocess.run([promtool, "check", "metrics"], input=text.encode(), check=False)
    assert checked.returncode == 0


def settled(site: Site) -> str | None:
    text = site.get("/metrics").text
    return (
        text
        if 'infra_recovery_refused_total{component="redis",reason="cooldown"}' in text
        else None
    )


MOVING = ("_age_seconds", "_remaining_seconds", "_lag_seconds")


def agrees(stack: Stack, site: Site) -> None:
    """Every series that does not move with the clock, to the digit."""
    said = json.loads(recovery(stack, "metrics", "--json").stdout)
    stable = {n: rows for n, rows in said["series"].items() if not n.endswith(MOVING)}
    wanted = {
        (name, tuple(sorted(labels.items()))): value
        for family, rows in stable.items()
        for row in rows
        for name, labels, value in samples(family, row)
    }
    assert len(wanted) > 40
    assert said["infra_recovery_success_total"] == 1

    def told() -> dict[Any, float]:
        found = read(site.get("/metrics").text)
        return {key: value for key, value in found.items() if not key[0].endswith(MOVING)}

    until(lambda: told() == wanted, what="a measurement that is as new as the command's")


def samples(family: str, row: dict[str, Any]) -> Iterator[tuple[str, dict[str, str], float]]:
    labels = row["labels"]
    if "count" not in row:
        yield family, labels, row["value"]
        return
    yield f"{family}_count", labels, row["count"]
    yield f"{family}_sum", labels, row["sum"]
    for bound, count in row["buckets"].items():
        le = "+Inf" if bound == "inf" else str(float(bound))
        yield f"{family}_bucket", {**labels, "le": le}, count


def test_what_waits_is_counted_and_has_an_age(stack: Stack, site: Site) -> None:
    for _ in range(3):
        stack.trigger("connection_error")

    assert value(site, "infra_recovery_queue_length", queue="dispatch") == 3
    age = value(site, "infra_recovery_queue_oldest_age_seconds", queue="dispatch")
    assert 0 <= age < 60
    environ = {**stack.environ, "RECOVERY_BROKER_URL": stack.environ["RECOVERY_REDIS_URL"]}
    beside = measure(stack.control, stack.policy, Environment.read(environ))
    (dispatch,) = [queue for queue in beside.queues if queue.name == "dispatch"]
    assert dispatch.length == 3
    assert dispatch.oldest_seconds is not None


def test_a_queue_whose_sender_gave_no_time_and_a_key_that_is_no_queue_do_no_harm(
    stack: Stack,
) -> None:
    stack.control.redis.lpush("dispatch", "no JSON at all")
    stack.control.redis.set("redis", "a string")

    queues = {queue.name: queue for queue in measure(stack.control, stack.policy).queues}

    assert (queues["dispatch"].length, queues["dispatch"].oldest_seconds) == (1, None)
    assert queues["redis"].length == 0


def test_a_control_plane_that_is_away_is_a_metric(stack: Stack, site: Site, control_redis) -> None:
    assert value(site, "infra_recovery_control_plane_up") == 1

    control_redis.kill()

    until(lambda: read(site.get("/metrics").text) == {("infra_recovery_control_plane_up", ()): 0})
    control_redis.start()
    until(lambda: value(site, "infra_recovery_control_plane_up") == 1, what="it is back")


def test_open_metrics_are_given_to_whoever_asks_for_them(site: Site) -> None:
    answer = site.get("/metrics", headers={"accept": "application/openmetrics-text"})

    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert list(openmetrics(answer.text))


def test_many_scrapes_at_once_cost_the_control_plane_a_few_measurements(
    stack: Stack, site: Site
) -> None:
    site.get("/metrics")
    before = stack.control.redis.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)

    for _ in range(50):
        assert site.get("/metrics").status_code == 200

    after = stack.control.redis.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert after - before < 25


@pytest.mark.parametrize(
    "policy_options", [{"sections": {"integration": {"export_recovery_metrics": False}}}]
)
def test_a_policy_may_export_no_metrics(serve: Callable[..., Site], tmp_path: Path) -> None:
    site = serve(metrics_textfile=tmp_path / "recovery.prom")

    answer = site.get("/metrics")

    assert (answer.status_code, answer.json()["error"]) == (404, "not_exported")
    assert not (tmp_path / "recovery.prom").exists()


@pytest.mark.parametrize(
    "policy_options", [{"sections": {"integration": {"metrics_export_interval_seconds": 0.2}}}]
)
def test_a_text_file_is_written_again_at_every_interval(
    serve: Callable[..., Site], stack: Stack, tmp_path: Path
) -> None:
    file = tmp_path / "recovery.prom"
    serve(metrics_textfile=file)
    until(file.exists, what="the file is there")
    assert read(file.read_text())["infra_recovery_approvals_waiting", ()] == 0
    assert file.stat().st_mode & 0o777 == 0o644

    waiting = json.dumps({"target": "redis/default", "strategy": "x", "since": 0, "expires": 1})
    stack.control.redis.hset(stack.control.key("pending"), "some-id", waiting)

    until(lambda: read(file.read_text())["infra_recovery_approvals_waiting", ()] == 1)
    assert approvals.pending(stack.control) == ()
    assert [path.name for path in tmp_path.glob(".recovery.prom*")] == []


def test_a_worker_that_died_is_not_counted_as_alive(stack: Stack, site: Site) -> None:
    worker = registry.Worker(
        node="a@b", host="b", pid=1, version="0", queues=("redis",), concurrency=1, active=0
    )
    registry.register(stack.control, worker)
    stack.control.redis.hset(stack.control.key("worker", "a@b"), "seen", 1)

    assert value(site, "infra_recovery_workers", state="dead") == 1
    assert value(site, "infra_recovery_queue_consumers", queue="redis") == 0
