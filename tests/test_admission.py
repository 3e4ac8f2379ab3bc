"""The gate on a real control Redis: what is admitted, what is refused, and when to come again."""

from __future__ import annotations

from typing import Any

import pytest

from recovery import disabling, lease, records
from recovery.admission import Mode, ask
from recovery.conclusion import Conclusion, conclude
from recovery.dispatch import recent_outcomes
from recovery.events import Assignment, Decision, FailureEvent, Outcome, Refusal, Result, TargetRef
from tests.stack import Stack

TARGET = TargetRef("redis")


@pytest.fixture
def policy_options() -> dict[str, Any]:
    return {"recovery": {"max_attempts_per_hour": 3}}


def event(identity: str, **said: Any) -> FailureEvent:
    return FailureEvent(id=identity, target=TARGET, failure_type="connection_error", **said)


def admit(stack: Stack, identity: str, *, force: bool = False, mode: Mode = Mode.ADMIT) -> Decision:
    decision = ask(stack.control, stack.policy, event(identity), "reconnect", mode, force=force)
    assert isinstance(decision, Decision)
    return decision


def end(stack: Stack, identity: str, result: Result) -> Conclusion:
    assignment = Assignment(recovery_id=identity, target=TARGET, strategy="reconnect")
    held = lease.claim(stack.control, assignment, "test")
    assert isinstance(held, lease.Lease)
    record = records.load(stack.control, identity)
    return conclude(stack.control, stack.policy, record, Outcome(result=result), held.fence)


def test_the_first_event_is_admitted_and_the_second_finds_it_under_way(stack: Stack) -> None:
    assert admit(stack, "a").admitted

    second = admit(stack, "b")

    assert second.reason is Refusal.BUSY
    assert second.retry_after


def test_the_same_event_twice_is_one_recovery(stack: Stack) -> None:
    admit(stack, "a")

    assert admit(stack, "a").verdict == "duplicate"


def test_three_recoveries_an_hour_and_no_more(stack: Stack) -> None:
    for identity in "abc":
        assert admit(stack, identity).admitted
        end(stack, identity, Result.RECOVERED)

    refused = admit(stack, "d")

    assert refused.reason is Refusal.LIMIT
    assert refused.retry_after is not None
    assert 3500 < refused.retry_after <= 3600


def test_what_was_not_needed_gives_its_attempt_back(stack: Stack) -> None:
    for identity in "abcdef":
        assert admit(stack, identity).admitted
        end(stack, identity, Result.NOT_NEEDED)


def test_a_failure_cools_the_target_down_and_force_passes_it(stack: Stack) -> None:
    admit(stack, "a")
    end(stack, "a", Result.FAILED)

    assert admit(stack, "b").reason is Refusal.COOLDOWN
    assert admit(stack, "c", force=True).admitted


def test_force_never_passes_a_live_lease(stack: Stack) -> None:
    admit(stack, "a")

    assert admit(stack, "b", force=True).reason is Refusal.BUSY


@pytest.mark.parametrize("scope", ["all", "redis", "redis/default"])
def test_a_disabled_scope_refuses_with_who_and_why(stack: Stack, scope: str) -> None:
    disabling.disable(
        stack.control, stack.policy, scope, by="eva", reason="maintenance", seconds=60
    )

    refused = admit(stack, "a")

    assert refused.reason is Refusal.DISABLED
    assert "maintenance" in refused.detail
    disabling.enable(stack.control, stack.policy, scope, by="max")
    assert admit(stack, "b").admitted


def test_a_second_waiting_recovery_of_the_same_kind_is_refused(stack: Stack) -> None:
    assert admit(stack, "a", mode=Mode.HOLD).verdict == "awaiting_approval"

    assert admit(stack, "b", mode=Mode.HOLD).reason is Refusal.AWAITING_APPROVAL


def test_a_conclusion_said_twice_is_done_once(stack: Stack) -> None:
    admit(stack, "a")
    assignment = Assignment(recovery_id="a", target=TARGET, strategy="reconnect")
    held = lease.claim(stack.control, assignment, "test")
    assert isinstance(held, lease.Lease)
    record = records.load(stack.control, "a")
    outcome = Outcome(result=Result.FAILED)

    answers = [conclude(stack.control, stack.policy, record, outcome, held.fence) for _ in range(2)]

    assert answers == [Conclusion.CONCLUDED, Conclusion.ALREADY]
    assert stack.control.redis.xlen(stack.control.key("audit")) == 1


def test_three_failures_in_an_hour_call_a_person(stack: Stack) -> None:
    for number, identity in enumerate("abc", 1):
        admit(stack, identity, force=True)
        end(stack, identity, Result.FAILED)
        level = int(stack.control.redis.hget(stack.control.key("target", TARGET), "level"))
        assert level == (3 if number == 3 else 2)


def test_many_refused_events_leave_one_audit_entry(stack: Stack) -> None:
    admit(stack, "a")

    for number in range(500):
        admit(stack, f"r{number}")

    assert stack.control.redis.xlen(stack.control.key("audit")) == 1


def test_what_came_of_a_target_is_told_newest_first_with_the_time_it_is_judged_by(
    stack: Stack,
) -> None:
    assert recent_outcomes(stack.control, TARGET)[1] == ()
    results = [Result.FAILED, Result.RECOVERED, Result.NOT_NEEDED, Result.FAILED]
    for identity, result in zip("abcd", results, strict=True):
        admit(stack, identity, force=True)
        end(stack, identity, result)

    now_ms, past = recent_outcomes(stack.control, TARGET)

    # What was not needed says nothing of a strategy.
    assert [one.result for one in past] == [Result.FAILED, Result.RECOVERED, Result.FAILED]
    assert sorted((one.at_ms for one in past), reverse=True) == [one.at_ms for one in past]
    seconds, micros = stack.control.redis.time()
    assert past[0].at_ms <= now_ms <= seconds * 1000 + micros // 1000


def test_the_outcomes_of_another_target_are_not_told(stack: Stack) -> None:
    admit(stack, "a")
    end(stack, "a", Result.FAILED)

    assert recent_outcomes(stack.control, TargetRef("redis", "other"))[1] == ()
