"""Targets and strategies that a new policy no longer has: nothing of theirs holds up the others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from recovery import approvals, audit, modes, reconcile, routing
from recovery.admission import Mode
from recovery.events import Result, TargetRef
from recovery.records import load
from recovery.routing import Road
from tests.test_policy_behaviour import TARGET, Gate, gate

__all__ = ["gate"]

GONE = TargetRef("redis", "gone")
AT_ONCE = {"queue_wait_seconds": 0.001}


@pytest.fixture
def left(gate: Gate) -> Gate:
    """As a target was in the policy, and before it is there no more."""
    gate.turn({"default": {}, "gone": {}})
    return gate


def run_out(gate: Gate, *targets: TargetRef) -> None:
    for target in targets:
        gate.control.redis.hset(gate.control.key("lease", target), "expires", 1)
        gate.control.redis.zadd(gate.control.key("leases"), {str(target): 1})


def test_a_lease_of_a_target_that_left_is_given_up_and_the_others_are_settled(left: Gate) -> None:
    left.ask("gone", GONE)
    left.ask("here")
    run_out(left, GONE, TARGET)
    left.turn({"default": {}}, recovery=AT_ONCE)

    settled = [reconcile.settle(left.control, left.policy, ref) for ref in (GONE, TARGET)]

    outcome = load(left.control, "gone").outcome
    assert outcome is not None
    assert (outcome.result, settled[0]) == (Result.WITHDRAWN, ())
    assert "no longer has reconnect for redis/gone" in outcome.detail
    assert not left.control.redis.exists(left.control.key("lease", GONE))


def test_whoever_reads_an_older_policy_withdraws_nothing_at_once(left: Gate) -> None:
    left.ask("new", GONE)
    run_out(left, GONE)
    left.turn({"default": {}})

    assert reconcile.settle(left.control, left.policy, GONE) == ()

    assert load(left.control, "new").outcome is None


@pytest.mark.parametrize("decide", ["approve", "expire"])
def test_what_waited_for_a_person_ends_whether_it_is_approved_or_not(
    left: Gate, decide: str
) -> None:
    left.ask("gone", GONE, Mode.HOLD)
    left.ask("here", TARGET, Mode.HOLD)
    left.turn({"default": {}})
    for identity in ("gone", "here"):
        if decide == "approve":
            approvals.approve(left.control, left.policy, identity, by="eva")
        else:
            pending = {"target": "x", "strategy": "reconnect", "since": 0, "expires": 1}
            left.control.redis.hset(left.control.key("pending"), identity, json.dumps(pending))

    followed = [
        approvals.follow(left.control, left.policy, record.id)
        for record in reconcile.decided(left.control)
    ]
    reconcile.expire_approvals(left.control, left.policy)

    outcome = load(left.control, "gone").outcome
    assert outcome is not None
    expected = Result.WITHDRAWN if decide == "approve" else Result.EXPIRED
    assert outcome.result is expected
    assert approvals.pending(left.control) == ()
    assert sum(one is not None for one in followed) == (1 if decide == "approve" else 0)


def test_modes_levels_and_routes_of_a_target_that_left_go_once_nobody_looks_at_it(
    left: Gate,
) -> None:
    left.ask("gone", GONE)
    left.end("gone", Result.FAILED, GONE)
    routing.change(left.control, GONE, road=Road.OPENWEBUI.value, base_url="http://gone")
    left.ask("here")
    left.end("here", Result.FAILED)
    left.turn({"default": {}})
    seen = left.control.key("observation", GONE)
    left.control.redis.hset(seen, "phase", "failing")
    assert reconcile.forget_departed(left.control, left.policy) == 0
    left.control.redis.delete(seen)
    left.alerts()

    assert reconcile.forget_departed(left.control, left.policy) == 1

    assert [mode.target for mode in modes.active(left.control, left.policy)] == [str(TARGET)]
    assert routing.routes(left.control) == {}
    assert not left.control.redis.exists(left.control.key("target", GONE))
    kinds = [alert["kind"] for alert in left.alerts()]
    assert {"resolved", "degraded_over"} <= set(kinds)
    assert audit.latest(left.control, 1, None)[0].fields["result"] == "departed"
    assert reconcile.forget_departed(left.control, left.policy) == 0


def test_a_target_that_nobody_can_repair_is_asked_about_once_a_minute(gate: Gate) -> None:
    seen = gate.control.key("observation", TARGET)
    gate.control.redis.hset(seen, "phase", "failing")
    gate.turn(recovery=AT_ONCE)
    gate.ask("1")
    run_out(gate, TARGET)

    reconcile.settle(gate.control, gate.policy, TARGET)

    found: dict[str, Any] = gate.control.redis.hgetall(seen)
    assert found["refused"] == "unclaimed"
    assert int(found["retry_ms"]) - gate.control.now_ms() > 50_000
