"""``recovery probe`` and what ``recovery status`` says of the looks by schedule."""

from __future__ import annotations

import json
from typing import Any

import pytest

from recovery import observations
from recovery.events import ProbeReport, TargetRef
from tests.cli.test_commands import recovery
from tests.policies import write_policy
from tests.stack import Stack


@pytest.fixture
def policy_options() -> dict[str, Any]:
    return {"sections": {}}


def test_targets_are_probed_from_here_and_the_exit_code_tells_of_one_that_fails(
    stack: Stack,
) -> None:
    targets = {
        "default": {"url": stack.target.url},
        "gone": {"url": "redis://127.0.0.1:1/0"},
        "elsewhere": {"url": "redis://127.0.0.1:1/0", "host": "web-9"},
    }
    write_policy(stack.policy_file.parent, targets)

    well = recovery(stack, "probe", "redis/default", "--json")
    everything = recovery(stack, "probe", "--deep", "--json")

    assert well.returncode == 0, well.stderr
    [found] = json.loads(well.stdout)
    assert (found["target"], found["healthy"]) == ("redis/default", True)
    assert found["figures"]["uptime_s"] >= 0
    assert everything.returncode == 1
    rows = {row["target"]: row["failure_type"] for row in json.loads(everything.stdout)}
    assert rows == {"redis/default": None, "redis/gone": "connection_error"}
    assert "redis/gone" in recovery(stack, "probe").stdout
    unknown = recovery(stack, "probe", "redis/nowhere")
    assert unknown.returncode == 2
    assert "known: default, elsewhere, gone" in unknown.stderr


def test_a_component_without_a_default_target_stands_for_all_of_its_targets(stack: Stack) -> None:
    targets = {name: {"url": stack.target.url} for name in ("cache", "queue")}
    write_policy(stack.policy_file.parent, targets)

    done = recovery(stack, "probe", "redis", "--json")

    assert done.returncode == 0, done.stderr
    assert [row["target"] for row in json.loads(done.stdout)] == ["redis/cache", "redis/queue"]


def test_the_status_shows_what_the_last_looks_found(stack: Stack) -> None:
    report = ProbeReport(healthy=False, failure_type="connection_error", summary="refused")
    assert "not probed" in recovery(stack, "status").stdout
    for _ in range(2):
        observations.record(stack.control, stack.policy, TargetRef("redis"), report, latency_ms=1)

    shown = recovery(stack, "status")

    assert "failing" in shown.stdout
    assert "connection_error, refused" in shown.stdout
    [target] = json.loads(recovery(stack, "status", "--json").stdout)["targets"]
    assert target["seen"]["state"] == "failing"
