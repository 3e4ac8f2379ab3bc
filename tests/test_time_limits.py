"""What a task's time limit meets that was meant for the remedy."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from recovery import lifecycle
from recovery.admission import Mode, ask
from recovery.events import Assignment, FailureEvent, Outcome, ProbeReport, Result, TargetRef
from recovery.finding import find_probe
from tests.stack import Stack

TARGET = TargetRef("redis")


class TimeLimit(Exception):
    """As a task's soft limit is raised: once, in whatever runs at that moment."""


def broken_off(at: int) -> Callable[[str], Callable[[Any, float], ProbeReport]]:
    """The component's own probe, which the limit meets at its call of that number."""
    calls = count(1)

    def find(component: str) -> Callable[[Any, float], ProbeReport]:
        def probe(target: Any, timeout: float) -> ProbeReport:
            if next(calls) == at:
                raise TimeLimit
            return find_probe(component)(target, timeout)

        return probe

    return find


@pytest.mark.parametrize("is_alive", [True, False], ids=["alive", "dead"])
def test_a_last_probe_that_meets_the_limit_is_made_again(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, is_alive: bool
) -> None:
    monkeypatch.setattr(lifecycle, "find_probe", broken_off(at=2))
    if not is_alive:
        stack.target.kill()
    event = FailureEvent(id="a", target=TARGET, strategy="reconnect", force=True, reason="test")
    ask(stack.control, stack.policy, event, "reconnect", Mode.ADMIT)
    assignment = Assignment(recovery_id="a", target=TARGET, strategy="reconnect")

    ending = lifecycle.run(stack.control, stack.policy, assignment, "test", stopped_by=(TimeLimit,))

    if isinstance(ending, Outcome):
        assert ending.after is not None
        assert ending.after.healthy
        assert ending.result in (Result.RECOVERED, Result.NOT_NEEDED)
    else:
        assert isinstance(ending, lifecycle.RetryLater), "it is judged by what the target says"
        assert ending.error.code == "target_unreachable"
    assert isinstance(ending, Outcome) is is_alive
