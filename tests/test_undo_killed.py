"""Workers killed in the middle of a flush and of its undo: another one finishes, on that host."""

from __future__ import annotations

from typing import Any

import pytest

from recovery.events import Result
from tests.fleet import Fleet
from tests.stack import Stack
from tests.test_undo import QUEUES, fill, flush, held, result, send_undo, size, undo
from tests.waiting import until

pytestmark = pytest.mark.kill

MANY = 20_000


@pytest.fixture
def policy_options() -> dict[str, Any]:
    """A flush that takes its time, so that there is a middle to be killed in."""
    flush = {
        "name": "flush_corrupted",
        "key_patterns": [{"pattern": "cache:*", "no_ttl": True}],
        "server_share": 0.4,
    }
    return {"extra_strategies": [flush]}


def test_an_undo_survives_the_death_of_its_worker(stack: Stack, fleet: Fleet) -> None:
    victim = fleet.start(queues=QUEUES, beat=False)
    before = fill(stack, MANY)
    flushed = flush(stack)
    sent = send_undo(stack, flushed.id)
    until(lambda: size(stack) > MANY / 2, what="the first keys are back")

    victim.kill()
    assert size(stack) < MANY
    fleet.start(queues=QUEUES)

    undone = stack.concluded(sent, seconds=40)
    assert result(undone) is Result.UNDONE, fleet.logs()
    assert undone.resumed >= 1
    assert held(stack) == before


def test_a_flush_survives_the_death_of_its_worker(stack: Stack, fleet: Fleet) -> None:
    victim = fleet.start(queues=QUEUES, beat=False)
    before = fill(stack, MANY)
    sent = stack.trigger(strategy="flush_corrupted", source="cli")
    until(lambda: size(stack) < MANY, what="the first keys are gone")

    victim.kill()
    assert size(stack) > MANY / 2
    fleet.start(queues=QUEUES)

    record = stack.concluded(sent, seconds=40)
    assert result(record) is Result.RECOVERED, fleet.logs()
    assert size(stack) == MANY / 2
    assert result(undo(stack, sent)) is Result.UNDONE
    assert held(stack) == before
