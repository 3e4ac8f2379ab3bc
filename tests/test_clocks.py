"""Hosts whose clocks disagree: what is due is judged by the control plane's alone."""

from __future__ import annotations

from typing import Any

import pytest

from recovery.events import Result
from tests.fleet import Fleet
from tests.stack import Stack
from tests.waiting import until
from workers.schedule import MOST_WAITING

PATIENCE = 60.0


@pytest.fixture
def policy_options() -> dict[str, Any]:
    return {"recovery": {"queue_wait_seconds": "1s"}}


def test_a_worker_whose_clock_is_ahead_settles_leases_and_delivers_alerts(
    stack: Stack, fleet: Fleet
) -> None:
    fleet.start(queues=("dispatch",))
    ahead = fleet.start(app="tests.ahead_app", queues=("maintenance", "notify"), beat=False)

    record = stack.concluded(stack.trigger("connection_error"), seconds=PATIENCE)

    assert record.outcome is not None
    assert record.outcome.result is Result.UNCLAIMED
    until(lambda: "event=alert" in ahead.log.read_text(), seconds=PATIENCE, what="it is told")


def test_ticks_that_nobody_takes_do_not_pile_up(stack: Stack, fleet: Fleet) -> None:
    fleet.start(queues=("dispatch",))

    def waiting(queue: str) -> int:
        return int(stack.control.redis.llen(queue))

    until(lambda: waiting("maintenance") == MOST_WAITING, seconds=PATIENCE, what="it is full")
    seen = waiting("notify")
    until(lambda: waiting("notify") >= seen + 2, seconds=PATIENCE, what="the schedule goes on")
    assert waiting("maintenance") == MOST_WAITING
