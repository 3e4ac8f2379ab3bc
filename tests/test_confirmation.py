"""Two vantage points before harm: what a destructive remedy needs to see beside the event."""

from __future__ import annotations

from typing import Any

import pytest

from recovery import lifecycle, probing
from recovery.admission import Mode, ask
from recovery.confirmation import contradiction
from recovery.events import Assignment, FailureEvent, Outcome, Result, Source, TargetRef
from recovery.observations import Depth
from recovery.records import load
from tests.stack import Stack

TARGET = TargetRef("redis")


@pytest.fixture
def policy_options() -> dict[str, Any]:
    restart = {
        "name": "restart_container",
        "requires_approval": False,
        "conditions": ["persistence_error"],
    }
    return {"extra_strategies": [restart]}


def run(stack: Stack, failure: str, source: Source = Source.ALERTMANAGER) -> Outcome:
    event = FailureEvent(id=failure, target=TARGET, failure_type=failure, source=source)
    ask(stack.control, stack.policy, event, "restart_container", Mode.ADMIT)
    assignment = Assignment(recovery_id=failure, target=TARGET, strategy="restart_container")
    ending = lifecycle.run(stack.control, stack.policy, assignment, "test")
    assert isinstance(ending, Outcome)
    return ending


def test_a_failure_that_the_probe_finds_to_be_another_one_is_no_reason_to_restart(
    stack: Stack,
) -> None:
    stack.target.kill()

    ending = run(stack, "persistence_error")

    assert (ending.result, ending.error) == (Result.FAILED, "not_confirmed")
    assert ending.detail == "the event says persistence_error, the probe finds connection_error"
    assert ending.attempts == 0


def test_who_asked_as_a_person_is_believed(stack: Stack) -> None:
    stack.target.kill()

    ending = run(stack, "persistence_error", Source.CLI)

    assert ending.error == "not_configured", "the remedy was begun: the target has no runtime"


def test_a_named_strategy_is_not_measured_by_the_failure(stack: Stack) -> None:
    stack.target.kill()
    event = FailureEvent(id="a", target=TARGET, strategy="restart_container")
    ask(stack.control, stack.policy, event, "restart_container", Mode.ADMIT)
    strategy = stack.policy.strategy("redis", "restart_container")
    found, _ = probing.probe(stack.control, stack.policy, TARGET, Depth.LIGHT)

    assert contradiction(load(stack.control, "a"), strategy, found) is None
