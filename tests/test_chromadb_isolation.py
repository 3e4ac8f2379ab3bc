"""A ChromaDB worker that is busy with a rebuild is in nobody's way, and says how far it is."""

from __future__ import annotations

from typing import Any

import pytest

from recovery import records
from recovery.events import Result, Stage
from tests.chroma import ChromaDirectory
from tests.fleet import Fleet
from tests.stack import Stack
from tests.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture
def policy_options(chroma_directory: ChromaDirectory) -> dict[str, Any]:
    block = {
        "targets": {"default": {"path": str(chroma_directory.path), "collections": {"docs": 1}}},
        "strategies": [
            # The lock is what keeps the rebuild busy for as long as the test wants.
            {
                "name": "index_rebuild",
                "conditions": ["index_corrupted"],
                "lock_patience": 100,
                "max_retries": 0,
            }
        ],
    }
    return {"recovery": {"chromadb": block}}


@pytest.mark.timeout(240)
def test_a_redis_reconnect_does_not_wait_for_a_rebuild(
    chroma_directory: ChromaDirectory, stack: Stack, fleet: Fleet
) -> None:
    fleet.start(queues=("dispatch", "chromadb", "notify", "maintenance"))
    fleet.start(queues=("redis",), beat=False)
    (chroma_directory.segment / "header.bin").unlink()
    stack.exhaust_clients()

    rebuild = stack.trigger("index_corrupted", component="chromadb")
    until(lambda: is_acting(stack, rebuild), seconds=60, what="the rebuild has begun")
    with chroma_directory.locked():
        reconnect = stack.trigger("connection_error")
        outcome = stack.concluded(reconnect, seconds=60).outcome
        assert outcome is not None
        assert outcome.result is Result.RECOVERED, fleet.logs()
        still = stack.record(rebuild)
        assert still is not None
        assert still.outcome is None, "the rebuild was meant to be busy all the while"

    outcome = stack.concluded(rebuild, seconds=120).outcome
    assert outcome is not None
    assert outcome.result is Result.RECOVERED, outcome
    steps = records.steps(stack.control, rebuild)
    assert [step.figures["percent"] for step in steps if "percent" in step.figures][-1] == 100


def is_acting(stack: Stack, recovery_id: str) -> bool:
    record = stack.record(recovery_id)
    return record is not None and record.stage is Stage.ACTING
