"""Messages of Alertmanager's webhook against a real control plane."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from recovery import approvals, audit, dispatch
from recovery.alertmanager import Action, Reason, Receipt, receive
from recovery.audit import folder_of
from recovery.config import Environment, Policy
from recovery.controlplane import ControlPlane
from recovery.errors import ControlPlaneUnavailable, InvalidEvent
from recovery.events import Decision, Result, Source, State, Verdict
from recovery.messages import FIGURES
from tests.alertmanager.payloads import alert, message
from tests.policies import make_policy
from tests.stack import Stack

Receive = Callable[..., Receipt]


@pytest.fixture
def policy_options() -> dict[str, Any]:
    return {
        "extra_strategies": [{"name": "flush_corrupted", "auto_trigger": False, **_CORRUPTED}],
        "sections": {"alerting": {"receive": {"repeat_after": 3600, "max_alerts": 500}}},
    }


_CORRUPTED = {
    "key_patterns": [{"pattern": "cache:*", "no_ttl": True}],
    "conditions": ["corruption_detected"],
}


@pytest.fixture
def hear(stack: Stack) -> Receive:
    def hear(*alerts: Any, **more: Any) -> Receipt:
        return receive(stack.control, stack.policy, message(*alerts, **more), app=stack.app)

    return hear


def decide(stack: Stack, receipt: Receipt, policy: Policy | None = None) -> Decision:
    """What a dispatcher does with the message that is on the broker now."""
    (recovery_id,) = receipt.sent
    said = {"component": "redis", "target": "default", "source": Source.ALERTMANAGER.value}
    said["failure_type"] = receipt.taken[0].failure_type
    return dispatch.dispatch(stack.control, policy or stack.policy, recovery_id, said).decision


def queued(stack: Stack) -> int:
    length: int = stack.control.redis.llen("dispatch")
    return length


def test_a_firing_alert_becomes_an_event_of_its_target(stack: Stack, hear: Receive) -> None:
    receipt = hear(alert(severity="P0"))

    (taken,) = receipt.taken
    assert (taken.target, taken.failure_type) == ("redis/default", "connection_error")
    assert taken.action is Action.SENT
    assert not receipt.left
    assert queued(stack) == 1
    decision = decide(stack, receipt)
    assert decision.verdict is Verdict.ADMITTED


def test_what_the_event_says_came_from_the_alert(stack: Stack, hear: Receive, fleet: Any) -> None:
    fleet.start()
    receipt = hear(alert(severity="P0"))

    record = stack.concluded(receipt.sent[0], seconds=60)

    assert record.event.source is Source.ALERTMANAGER
    assert record.event.correlation_id == receipt.taken[0].fingerprint
    assert record.event.context[FIGURES] == {"alert": "TargetDown", "severity": "P0"}
    assert record.outcome is not None
    assert record.outcome.result is Result.NOT_NEEDED


def test_a_replayed_message_is_one_event(stack: Stack, hear: Receive) -> None:
    first, second = hear(alert()), hear(alert())

    assert second.taken[0].action is Action.KNOWN
    assert second.taken[0].recovery_id == first.taken[0].recovery_id
    assert queued(stack) == 1


def test_an_alert_whose_recovery_is_under_way_is_no_second_event(
    stack: Stack, hear: Receive
) -> None:
    decide(stack, hear(alert()))

    again = hear(alert(after=30))

    assert again.taken[0].action is Action.UNDER_WAY
    assert queued(stack) == 1


def test_what_was_sent_and_not_noted_is_sent_again_under_the_same_id(
    stack: Stack, hear: Receive
) -> None:
    first = hear(alert())
    held = stack.control.key("alerted", "redis/default|connection_error")
    stack.control.redis.hdel(held, "id", "n", "sent_since", "sent_ms")

    second = hear(alert())

    assert second.sent == first.sent
    assert decide(stack, first).verdict is Verdict.ADMITTED
    assert decide(stack, second).verdict is Verdict.DUPLICATE


def test_alerts_of_one_matter_are_one_event(stack: Stack, hear: Receive) -> None:
    receipt = hear(*(alert(instance=f"node-{i}") for i in range(50)))

    assert len(receipt.taken) == 50
    assert len(receipt.sent) == 1
    assert queued(stack) == 1


def test_an_alert_that_fires_again_later_is_a_new_event(stack: Stack, hear: Receive) -> None:
    first = hear(alert())
    hear(alert("resolved"))

    second = hear(alert(after=600))

    assert second.sent
    assert second.sent != first.sent


def test_a_firing_alert_that_arrives_after_its_end_is_left(stack: Stack, hear: Receive) -> None:
    assert hear(alert("resolved")).taken[0].action is Action.OVER

    receipt = hear(alert())

    assert not receipt.taken
    assert receipt.left[0].reason is Reason.STALE
    assert queued(stack) == 0


def test_an_end_that_arrives_after_the_next_beginning_changes_nothing(
    stack: Stack, hear: Receive
) -> None:
    hear(alert(after=600))

    late = hear(alert("resolved"))

    assert late.left[0].reason is Reason.STALE
    assert hear(alert(after=600)).taken[0].action is Action.KNOWN


def test_beginning_and_end_in_one_message_are_read_in_their_order(
    stack: Stack, hear: Receive
) -> None:
    receipt = hear(alert("resolved"), alert())

    assert [one.action for one in receipt.taken] == [Action.KNOWN, Action.OVER]
    assert queued(stack) == 0


def test_an_alert_that_still_fires_after_a_refusal_is_an_event_again(
    stack: Stack, hear: Receive
) -> None:
    first = hear(alert())
    held = stack.control.key("alerted", "redis/default|connection_error")
    assert hear(alert()).taken[0].action is Action.KNOWN

    stack.control.redis.hincrby(held, "sent_ms", -3_600_000)
    again = hear(alert())

    assert again.sent
    assert again.sent != first.sent


def test_a_wait_for_approval_ends_when_its_alert_is_over(stack: Stack, hear: Receive) -> None:
    corrupted = {"failure_type": "corruption_detected"}
    asked = hear(alert(**corrupted), alert(instance="other", **corrupted))
    assert decide(stack, asked).verdict is Verdict.AWAITING_APPROVAL

    assert hear(alert("resolved", **corrupted)).taken[0].action is Action.OVER
    assert approvals.pending(stack.control)

    ended = hear(alert("resolved", instance="other", **corrupted))

    assert ended.taken[0].action is Action.WITHDRAWN
    assert approvals.pending(stack.control) == ()
    record = stack.record(asked.sent[0])
    assert record is not None
    assert record.state is State.CONCLUDED
    (entry,) = audit.latest(stack.control, 1, folder_of(stack.policy, Environment.read()))
    assert entry.fields["result"] == "withdrawn"


def test_what_a_person_has_approved_is_not_withdrawn(stack: Stack, hear: Receive) -> None:
    corrupted = {"failure_type": "corruption_detected"}
    asked = hear(alert(**corrupted))
    decide(stack, asked)
    approvals.approve(stack.control, stack.policy, asked.sent[0], by="ann")

    assert hear(alert("resolved", **corrupted)).taken[0].action is Action.OVER

    assert approvals.pending(stack.control)


def test_an_approval_that_a_person_asked_for_is_not_withdrawn(stack: Stack, hear: Receive) -> None:
    said: dict[str, Any] = {
        "component": "redis",
        "strategy": "flush_corrupted",
        "source": "cli",
        "by": "ann",
    }
    said["require_approval"] = True
    dispatch.dispatch(stack.control, stack.policy, "asked-by-ann", said)
    corrupted = {"failure_type": "corruption_detected"}
    assert decide(stack, hear(alert(**corrupted))).verdict is Verdict.REFUSED

    hear(alert("resolved", **corrupted))

    assert [waiting.id for waiting in approvals.pending(stack.control)] == ["asked-by-ann"]


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"component": ""}, Reason.UNMAPPED),
        ({"failure_type": ""}, Reason.UNMAPPED),
        ({"component": "postgres"}, Reason.UNKNOWN),
        ({"component": "chromadb"}, Reason.UNKNOWN),
        ({"target": "nowhere"}, Reason.UNKNOWN),
        ({"target": "../../etc"}, Reason.UNKNOWN),
        ({"failure_type": "bad_mood"}, Reason.UNKNOWN),
        ({"source": "recovery"}, Reason.OUR_OWN),
    ],
)
def test_what_this_policy_does_not_know_is_left_and_says_why(
    stack: Stack, hear: Receive, labels: dict[str, str], reason: Reason
) -> None:
    receipt = hear(alert(**labels))

    assert [one.reason for one in receipt.left] == [reason]
    assert queued(stack) == 0


def test_one_alert_that_is_wrong_costs_the_others_nothing(stack: Stack, hear: Receive) -> None:
    wrong: list[Any] = [None, 7, {}, {**alert(), "startsAt": "yesterday"}, {**alert(), "labels": 1}]

    receipt = hear(*wrong, alert())

    assert [one.reason for one in receipt.left] == [Reason.MALFORMED] * len(wrong)
    assert len(receipt.sent) == 1


def test_fields_of_a_later_alertmanager_are_passed_over(stack: Stack, hear: Receive) -> None:
    assert hear({**alert(), "receivers": ["x"]}, notificationReason="new").sent


def test_without_a_fingerprint_the_labels_make_one(stack: Stack, hear: Receive) -> None:
    bare = {name: value for name, value in alert().items() if name != "fingerprint"}

    first, second = hear(bare), hear({**bare, "fingerprint": "../x"})

    assert first.taken[0].fingerprint == second.taken[0].fingerprint
    assert queued(stack) == 1


@pytest.mark.parametrize("payload", [{}, {"version": "3", "alerts": []}, {"alerts": {}}])
def test_what_is_no_message_of_alertmanager_is_refused(
    stack: Stack, payload: dict[str, Any]
) -> None:
    with pytest.raises(InvalidEvent):
        receive(stack.control, stack.policy, payload, app=stack.app)


def test_a_huge_batch_is_taken_up_to_the_limit_and_says_what_was_left(
    stack: Stack, hear: Receive
) -> None:
    receipt = hear(*(alert(instance=f"n{i}") for i in range(20_000)), truncatedAlerts=5)

    assert len(receipt.taken) == 500
    assert [(one.reason, one.count) for one in receipt.left] == [(Reason.BEYOND_LIMIT, 19_500)]
    assert receipt.truncated == 5
    assert queued(stack) == 1


def test_what_is_remembered_of_a_matter_is_bounded(stack: Stack, hear: Receive) -> None:
    for turn in range(8):
        hear(*(alert(instance=f"{turn}-{i}") for i in range(500)))

    held = stack.control.key("alerted", "redis/default|connection_error")
    assert stack.control.redis.hlen(held) <= 2004


def test_a_policy_may_want_no_alerts_from_outside(stack: Stack, tmp_path: Any) -> None:
    folder = tmp_path / "off"
    folder.mkdir()
    sections = {"alerting": {"receive": {"enabled": False}}}
    policy = make_policy(folder, {"default": {"url": stack.target.url}}, sections=sections)

    receipt = receive(stack.control, policy, message(alert()), app=stack.app)

    assert [one.reason for one in receipt.left] == [Reason.SWITCHED_OFF]
    assert queued(stack) == 0


def test_while_the_control_plane_is_away_the_message_is_refused_as_a_whole(
    stack: Stack, control_redis: Any, hear: Receive
) -> None:
    control_redis.stop()

    with pytest.raises(ControlPlaneUnavailable):
        hear(alert())


def test_a_receipt_is_plain_data(hear: Receive) -> None:
    shown = hear(alert(), alert(component="")).as_dict()

    assert shown["taken"][0]["action"] == "sent"
    assert shown["left"][0]["reason"] == "unmapped"


def test_two_control_planes_make_different_ids(stack: Stack, hear: Receive) -> None:
    other = ControlPlane(stack.control.redis, prefix="other:")

    elsewhere = receive(other, stack.policy, message(alert()), app=stack.app)

    assert elsewhere.sent != hear(alert()).sent
