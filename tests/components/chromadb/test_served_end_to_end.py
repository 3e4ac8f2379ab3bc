"""A server that is reached by its API alone, repaired by workers, one of which is killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recovery import records
from recovery.components.chromadb.editing import ChromaEditor
from recovery.components.chromadb.target import ChromaTarget
from recovery.events import Result, State, TargetRef
from tests.chroma import COUNT, ManagedChroma
from tests.cli.test_commands import recovery
from tests.components.chromadb.serving import SECONDS, beside, names
from tests.fleet import Fleet
from tests.stack import Stack
from tests.waiting import until

pytestmark = pytest.mark.slow

REF = TargetRef("chromadb")
QUEUES = ("dispatch", "chromadb", "chromadb.test-host", "notify", "maintenance")


@pytest.fixture
def target(managed_chroma: ManagedChroma) -> ChromaTarget:
    return managed_chroma.target(path=None, answer_timeout=20)


@pytest.fixture
def policy_options(target: ChromaTarget, tmp_path: Path) -> dict[str, Any]:
    strategies = [
        # On a loaded machine a server takes long to start.
        {"name": "query_retry", "timeout_seconds": 90, "conditions": ["connection_timeout"]},
        {
            "name": "index_rebuild",
            "auto_trigger": True,
            "timeout_seconds": 90,
            "conditions": ["index_corrupted"],
        },
        {
            "name": "snapshot_rollback",
            "auto_trigger": False,
            "timeout_seconds": 200,
            "conditions": ["index_corrupted"],
        },
    ]
    block = {
        "targets": {"default": target.model_dump(mode="json", exclude_defaults=True)},
        "strategies": strategies,
    }
    block["cooldown_seconds"] = 1
    sections = {"integration": {"snapshot_dir": str(tmp_path / "snapshots")}}
    return {"recovery": {"chromadb": block}, "sections": sections}


def test_a_server_that_was_killed_is_back_without_anybody(
    managed_chroma: ManagedChroma, stack: Stack, fleet: Fleet
) -> None:
    fleet.start(queues=QUEUES)
    managed_chroma.kill()

    outcome = stack.concluded(
        stack.trigger("connection_timeout", component="chromadb"), seconds=150
    ).outcome

    assert outcome is not None
    assert outcome.result is Result.RECOVERED, fleet.logs()
    assert outcome.before is not None
    assert outcome.before.failure_type == "connection_error"
    assert outcome.after is not None
    assert outcome.after.figures["queried"]


def test_what_no_rebuild_can_read_is_handed_over_to_a_rollback_that_awaits_its_approval(
    managed_chroma: ManagedChroma, target: ChromaTarget, stack: Stack, fleet: Fleet
) -> None:
    fleet.start(queues=QUEUES)
    asked = recovery(stack, "snapshot", "chromadb", "--json", "--timeout", "200")
    assert asked.returncode == 0, asked.stdout + asked.stderr + fleet.logs()
    (managed_chroma.directory.segment / "header.bin").unlink()
    managed_chroma.process.restart(10)
    until(managed_chroma.served.answers, seconds=60, what="it answers")

    first = stack.concluded(
        stack.trigger("index_corrupted", component="chromadb", source="probe"), seconds=150
    )

    assert first.strategy == "index_rebuild"
    assert first.outcome is not None
    assert (first.outcome.result, first.outcome.error) == (Result.FAILED, "records_unreadable")
    assert "hnsw" in first.outcome.detail
    assert "only a snapshot can help" in first.outcome.detail
    control = stack.control
    until(lambda: not control.redis.exists(control.key("cooldown", REF)), what="the cooldown ends")
    second = stack.trigger("index_corrupted", component="chromadb", source="probe")
    waiting = until(lambda: awaiting_approval(stack, second), what="it awaits approval")
    assert waiting.strategy == "snapshot_rollback"
    approved = recovery(stack, "approve", second)
    assert approved.returncode == 0, approved.stderr
    outcome = stack.concluded(second, seconds=300).outcome
    assert outcome is not None
    assert outcome.result is Result.RECOVERED, fleet.logs()
    listed = json.loads(recovery(stack, "undo", "--list", "--json").stdout)
    assert [
        (one["recovery_id"], one["bytes"]) for one in listed if one["state"] == "available"
    ] == [(second, None)]

    undone = recovery(stack, "undo", second, "--wait", "--json", "--timeout", "150")
    assert undone.returncode == 0, undone.stdout + fleet.logs()
    again = recovery(stack, "undo", json.loads(undone.stdout)["id"], "--wait", "--json")

    assert again.returncode == 0, again.stdout + again.stderr + fleet.logs()
    assert json.loads(again.stdout)["after"]["healthy"]


def awaiting_approval(stack: Stack, recovery_id: str) -> records.Recovery | None:
    found = stack.record(recovery_id)
    return found if found and found.state is State.AWAITING_APPROVAL else None


@pytest.mark.kill
def test_a_worker_that_dies_while_a_name_is_nobodys_is_followed_by_one_that_goes_on(
    managed_chroma: ManagedChroma,
    target: ChromaTarget,
    stack: Stack,
    fleet: Fleet,
    tmp_path: Path,
) -> None:
    held = tmp_path / "held"
    victim = fleet.start(
        app="tests.renaming_app", queues=QUEUES, environ={"HELD_AT": str(held)}, beat=False
    )
    asked = recovery(stack, "snapshot", "chromadb", "--json", "--timeout", "200")
    assert asked.returncode == 0, asked.stdout + asked.stderr + fleet.logs()
    (managed_chroma.directory.segment / "header.bin").unlink()
    managed_chroma.process.restart(10)
    until(managed_chroma.served.answers, seconds=60, what="it answers")
    said = ("recover", "--component", "chromadb", "--strategy", "snapshot_rollback", "--json")
    begun = recovery(stack, *said)
    assert begun.returncode == 0, begun.stdout + begun.stderr
    recovery_id = json.loads(begun.stdout)["id"]
    until(held.exists, seconds=150, what="the old collection is aside")
    victim.kill()

    with ChromaEditor.of(target, 4 * SECONDS) as editor:
        assert "docs" not in names(editor)
        fleet.start(queues=QUEUES)
        outcome = stack.concluded(recovery_id, seconds=300).outcome
        assert outcome is not None
        assert outcome.result is Result.RECOVERED, fleet.logs()
        assert editor.count(names(editor)["docs"]) == COUNT
        (aside,) = beside(editor, "aside")
        damaged = names(editor)[aside]

        undone = recovery(stack, "undo", recovery_id, "--wait", "--json", "--timeout", "150")

        assert undone.returncode == 0, undone.stdout + undone.stderr + fleet.logs()
        assert json.loads(undone.stdout)["after"]["failure_type"] == "index_corrupted"
        assert names(editor)["docs"] == damaged
