"""Snapshots and rollbacks asked for on the command line and carried out by workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recovery import modes
from recovery.controlplane import ControlPlane
from tests.chroma import ManagedChroma, noise
from tests.cli.test_commands import recovery
from tests.fleet import Fleet
from tests.stack import Stack
from tests.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture
def policy_options(managed_chroma: ManagedChroma, tmp_path: Path) -> dict[str, Any]:
    target = managed_chroma.target().model_dump(mode="json", exclude_defaults=True)
    rollback = {
        "name": "snapshot_rollback",
        "timeout_seconds": 100,
        "conditions": ["index_corrupted"],
    }
    block = {"targets": {"default": target}, "strategies": [rollback]}
    unavailable = {"chromadb_unavailable": {"unavailable_capabilities": ["semantic_search"]}}
    sections = {
        "integration": {"snapshot_dir": str(tmp_path / "snapshots")},
        "degraded_modes": unavailable,
    }
    return {"recovery": {"chromadb": block}, "sections": sections}


def test_a_snapshot_is_taken_by_schedule_rolled_back_to_and_undone(
    managed_chroma: ManagedChroma, stack: Stack, fleet: Fleet
) -> None:
    heard = degraded(stack.control)
    fleet.start(queues=("dispatch", "chromadb", "chromadb.test-host", "notify", "maintenance"))
    asked = recovery(stack, "snapshot", "chromadb", "--json")
    assert asked.returncode == 0, asked.stdout + asked.stderr + fleet.logs()
    taken = json.loads(asked.stdout)
    (seen,) = json.loads(recovery(stack, "snapshots", "--json").stdout)
    assert seen == taken
    noise(managed_chroma.directory.segment / "data_level0.bin")

    said = ("recover", "--component", "chromadb", "--strategy", "snapshot_rollback", "--json")
    answer = recovery(stack, *said, "--wait", "--timeout", "100")

    assert answer.returncode == 0, answer.stdout + answer.stderr + fleet.logs()
    outcome = json.loads(answer.stdout)
    assert outcome["before"]["failure_type"] == "index_corrupted"
    assert outcome["after"]["healthy"]
    assert [change["active"] for change in heard(2)] == [True, False]
    assert modes.active(stack.control, stack.policy) == ()
    undone = recovery(stack, "undo", outcome["id"], "--wait", "--json", "--timeout", "100")
    assert undone.returncode == 0, undone.stdout + undone.stderr + fleet.logs()
    assert json.loads(undone.stdout)["after"]["failure_type"] == "index_corrupted"
    trail = json.loads(recovery(stack, "history", "--json").stdout)
    assert {entry["result"] for entry in trail} == {"taken", "recovered", "undone"}
    assert [change["active"] for change in heard(4)] == [True, False, True, False]


def degraded(control: ControlPlane) -> Any:
    """What applications hear of degraded modes from now on: call it with how many are awaited."""
    subscription = control.redis.pubsub(ignore_subscribe_messages=True)
    subscription.subscribe(control.key("degraded"))
    found: list[dict[str, Any]] = []

    def heard(count: int) -> list[dict[str, Any]]:
        def listen() -> bool:
            message = subscription.get_message(timeout=0.1)
            if message is not None:
                found.append(json.loads(message["data"]))
            return len(found) >= count

        until(listen, seconds=30, what=f"{count} changes of a degraded mode")
        return found

    return heard
