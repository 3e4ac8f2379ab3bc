"""What the policy's keys change: each test turns one key and sees another decision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from recovery import (
    alerts,
    approvals,
    audit,
    disabling,
    dispatch,
    lease,
    modes,
    reconcile,
    registry,
    rehearsals,
)
from recovery.admission import Mode, ask
from recovery.components.redis.probe import probe
from recovery.components.redis.target import RedisTarget
from recovery.conclusion import NO_LEASE, conclude
from recovery.config import Policy
from recovery.controlplane import ControlPlane
from recovery.errors import InvalidEvent, NotPending
from recovery.events import (
    Assignment,
    Decision,
    FailureEvent,
    Outcome,
    Refusal,
    Result,
    Source,
    TargetRef,
)
from recovery.lease import claim
from recovery.records import load
from recovery.registry import Worker
from tests.policies import make_policy
from tests.servers import RedisServer
from tests.waiting import until

TARGET = TargetRef("redis")


class Gate:
    """A control plane and a policy whose keys a test turns."""

    def __init__(self, control: ControlPlane, folder: Path) -> None:
        self.control = control
        self.folder = folder
        self.policy = self.turn()

    def turn(self, targets: dict[str, Any] | None = None, **said: Any) -> Policy:
        self.policy = make_policy(self.folder, targets or {"default": {}, "other": {}}, **said)
        return self.policy

    def ask(
        self, identity: str, target: TargetRef = TARGET, mode: Mode = Mode.ADMIT, **said: Any
    ) -> Decision:
        event = FailureEvent(id=identity, target=target, failure_type="connection_error", **said)
        decision = ask(self.control, self.policy, event, "reconnect", mode)
        assert isinstance(decision, Decision)
        return decision

    def dispatch(self, identity: str, **message: Any) -> dispatch.Dispatched:
        said = {"component": "redis", "target": "default", **message}
        return dispatch.dispatch(self.control, self.policy, identity, said)

    def end(self, identity: str, result: Result, target: TargetRef = TARGET) -> None:
        assignment = Assignment(recovery_id=identity, target=target, strategy="reconnect")
        held = claim(self.control, assignment, "test")
        assert isinstance(held, lease.Lease)
        record = load(self.control, identity)
        conclude(self.control, self.policy, record, Outcome(result=result), held.fence)

    def alerts(self) -> list[dict[str, Any]]:
        stored = [fields for _, fields in self.control.redis.xrange(self.control.key("outbox"))]
        self.control.redis.delete(self.control.key("outbox"))
        facts = [json.loads(fields["alert"]) for fields in stored]
        return [fact for fact in facts if alerts.is_wanted(self.policy, fact)]


@pytest.fixture
def gate(control_redis: RedisServer, tmp_path: Path) -> Any:
    control = ControlPlane(control_redis.client())
    yield Gate(control, tmp_path)
    control.redis.close()


def test_a_targets_own_limit_comes_before_the_components_and_everybodys(gate: Gate) -> None:
    gate.turn(
        {"default": {"max_attempts_per_hour": 1}, "other": {}},
        recovery={"max_attempts_per_hour": 3},
    )
    for target in (TARGET, TargetRef("redis", "other")):
        assert gate.ask(f"1{target}", target).admitted
        gate.end(f"1{target}", Result.RECOVERED, target)

    assert gate.ask("2", TARGET).reason is Refusal.LIMIT
    assert gate.ask("3", TargetRef("redis", "other")).admitted


def test_a_components_limit_comes_before_everybodys(gate: Gate) -> None:
    gate.turn(component={"max_attempts_per_hour": 1, "cooldown_seconds": 7})

    limits = gate.policy.limits(TARGET)

    assert (limits.max_attempts_per_hour, limits.cooldown_seconds) == (1, 7)


def test_a_targets_own_cooldown_is_the_one_that_is_set(gate: Gate) -> None:
    gate.turn({"default": {"cooldown_seconds": "90s"}})
    gate.ask("1")

    gate.end("1", Result.FAILED)

    left = gate.control.redis.pttl(gate.control.key("cooldown", TARGET))
    assert 60_000 < left <= 90_000


def test_probation_admits_one_trial_a_cooldown_until_it_ends(gate: Gate) -> None:
    gate.turn(recovery={"cooldown_seconds": 0.05, "probation_seconds": 3600})
    gate.ask("1")
    gate.end("1", Result.FAILED)
    until(lambda: not gate.control.redis.exists(gate.control.key("cooldown", TARGET)))
    gate.turn(recovery={"cooldown_seconds": 300, "probation_seconds": 3600})
    assert gate.ask("2").admitted
    gate.end("2", Result.RECOVERED)

    assert gate.ask("3").reason is Refusal.PROBATION
    gate.turn(recovery={"cooldown_seconds": 300, "probation_seconds": 0.001})
    assert gate.ask("4").admitted


def test_what_no_worker_takes_in_time_ends_with_an_alert_and_gives_its_attempt_back(
    gate: Gate,
) -> None:
    gate.turn(recovery={"queue_wait_seconds": 0.05})
    gate.ask("1")

    until(lambda: TARGET in reconcile.expired_leases(gate.control))
    reconcile.settle(gate.control, gate.policy, TARGET)

    outcome = load(gate.control, "1").outcome
    assert outcome is not None
    assert outcome.result is Result.UNCLAIMED
    assert gate.control.redis.zcard(gate.control.key("attempts", TARGET)) == 0
    assert "unclaimed" in {alert.get("result") for alert in gate.alerts()}


def test_a_queue_that_nobody_consumes_is_given_up_long_before_a_busy_worker_is(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "ABSENT_SECONDS", 0.2)
    worker = Worker(
        node="w@here", host="here", pid=7, version="1", queues=("redis",), concurrency=1, active=1
    )
    registry.register(gate.control, worker)
    gate.turn(recovery={"queue_wait_seconds": 600})
    gate.ask("1")

    def looked_at() -> tuple[Assignment, ...]:
        # As when the time until the next look is over.
        gate.control.redis.hset(gate.control.key("lease", TARGET), "expires", 1)
        return reconcile.settle(gate.control, gate.policy, TARGET)

    assert looked_at(), "nobody has waited for long yet"
    until(lambda: gate.control.now_ms() > load(gate.control, "1").received_ms + 200)
    assert looked_at(), "somebody who is busy will take it"
    registry.unregister(gate.control, worker)

    assert looked_at() == ()

    outcome = load(gate.control, "1").outcome
    assert outcome is not None
    assert outcome.result is Result.UNCLAIMED
    assert "no live worker consumes queue redis" in outcome.detail
    (level,) = [alert for alert in gate.alerts() if alert["kind"] == "level"]
    assert level["why"] == outcome.detail


def test_a_rehearsal_that_nobody_takes_or_finishes_ends(gate: Gate) -> None:
    gate.turn(recovery={"queue_wait_seconds": 0.001}, reconnect={"timeout_seconds": 0.001})
    for identity in ("killed", "waiting"):
        gate.ask(identity, mode=Mode.REHEARSE)
        gate.control.redis.zadd(gate.control.key("rehearsals"), {identity: 1})
    claim(gate.control, Assignment(recovery_id="killed", target=TARGET, strategy="reconnect"), "w")
    gate.control.redis.zadd(gate.control.key("rehearsals"), {"nobody's": 1})

    until(lambda: rehearsals.end_rehearsals(gate.control, gate.policy) == 0)

    killed, waiting = (load(gate.control, identity).outcome for identity in ("killed", "waiting"))
    assert killed is not None
    assert (killed.result, killed.error) == (Result.DRY_RUN, "worker_lost")
    assert waiting is not None
    assert waiting.result is Result.UNCLAIMED
    assert not gate.control.redis.exists(gate.control.key("rehearsals"))
    assert "level" not in {alert["kind"] for alert in gate.alerts()}


def test_a_target_may_let_a_strategy_run_without_a_person(gate: Gate) -> None:
    gate.turn(
        {"default": {}, "other": {"unattended": ["restart_container"]}},
        extra_strategies=[
            {"name": "restart_container", "auto_trigger": False, "conditions": ["all_else_failed"]}
        ],
    )
    said = {"failure_type": "process_down", "source": "probe"}

    attended = gate.dispatch("1", **said).decision
    unattended = gate.dispatch("2", target="other", **said).decision

    assert attended.verdict == "awaiting_approval"
    assert unattended.admitted
    asked = gate.dispatch("3", target="other", require_approval=True, **said).decision
    assert not asked.admitted


def test_an_approval_expires_after_the_policys_time(gate: Gate) -> None:
    gate.turn(sections={"approvals": {"expires_after": 0.01}})
    assert gate.ask("1", mode=Mode.HOLD).verdict == "awaiting_approval"

    until(lambda: reconcile.expire_approvals(gate.control, gate.policy) == 1)

    outcome = load(gate.control, "1").outcome
    assert outcome is not None
    assert outcome.result is Result.EXPIRED
    with pytest.raises(NotPending):
        approvals.approve(gate.control, gate.policy, "1", by="eva")


def test_a_policy_may_want_another_person_to_approve(gate: Gate) -> None:
    gate.turn(sections={"approvals": {"different_person": True}})
    gate.ask("1", mode=Mode.HOLD, by="eva")

    with pytest.raises(InvalidEvent, match="another person"):
        approvals.approve(gate.control, gate.policy, "1", by="eva")
    approvals.approve(gate.control, gate.policy, "1", by="max")

    decided = approvals.follow(gate.control, gate.policy, "1")
    assert decided is not None
    assert decided.decision.admitted


def test_a_denied_recovery_never_runs_and_the_audit_says_who(gate: Gate) -> None:
    gate.ask("1", mode=Mode.HOLD)

    approvals.deny(gate.control, gate.policy, "1", by="eva", reason="not tonight")

    (entry,) = audit.latest(gate.control, 1)
    assert entry.fields["result"] == "denied"
    assert entry.fields["decided"] == "denied by eva: not tonight"
    with pytest.raises(NotPending):
        approvals.approve(gate.control, gate.policy, "1", by="max")


def test_an_approval_in_cooldown_stands_and_runs_when_the_gate_opens(gate: Gate) -> None:
    gate.ask("1", mode=Mode.HOLD)
    gate.ask("2")
    gate.end("2", Result.FAILED)
    approvals.approve(gate.control, gate.policy, "1", by="eva")

    first = approvals.follow(gate.control, gate.policy, "1")
    gate.control.redis.delete(gate.control.key("cooldown", TARGET))
    second = approvals.follow(gate.control, gate.policy, "1")

    assert first is not None
    assert first.decision.reason is Refusal.COOLDOWN
    assert second is not None
    assert second.decision.admitted


def test_fewer_failures_call_a_person_where_the_policy_says_so(gate: Gate) -> None:
    gate.turn(sections={"escalation": {"failures_for_level_3": 1}})
    gate.ask("1")

    gate.end("1", Result.FAILED)

    assert load(gate.control, "1").level == 3


def test_an_event_in_a_second_failures_cooldown_calls_a_person(gate: Gate) -> None:
    for identity in "12":
        gate.ask(identity)
        gate.end(identity, Result.FAILED)
        if identity == "1":
            gate.control.redis.delete(gate.control.key("cooldown", TARGET))

    assert gate.ask("3").reason is Refusal.COOLDOWN

    assert max(alert["level"] for alert in gate.alerts() if alert["kind"] == "level") == 3


def test_what_must_not_start_by_itself_waits_for_a_person(gate: Gate) -> None:
    gate.turn(reconnect={"auto_trigger": False})

    automatic = gate.dispatch("1", failure_type="connection_error", source="probe")
    by_hand = gate.dispatch("2", strategy="reconnect", source="cli")

    assert automatic.decision.verdict == "awaiting_approval"
    assert by_hand.decision.admitted


def test_what_requires_approval_waits_even_when_a_person_asks(gate: Gate) -> None:
    gate.turn(reconnect={"requires_approval": True})

    asked = gate.dispatch("1", strategy="reconnect", source="cli")

    assert asked.decision.verdict == "awaiting_approval"


def test_conditions_decide_which_failure_a_strategy_answers(gate: Gate) -> None:
    gate.turn(reconnect={"conditions": ["high_latency"]})

    decided = gate.dispatch("1", failure_type="connection_error")

    assert decided.decision.reason is Refusal.NO_REMEDY
    assert gate.dispatch("2", failure_type="high_latency").decision.admitted


def test_a_strategys_priority_comes_before_its_components(gate: Gate) -> None:
    assert gate.policy.severity("redis", "reconnect") == "P0"

    gate.turn(reconnect={"priority": "low"})

    assert gate.policy.severity("redis", "reconnect") == "P3"
    assert gate.policy.severity("redis") == "P0"


def test_the_severity_of_an_alert_follows_the_policys_mapping(gate: Gate) -> None:
    gate.turn(sections={"alerting": {"severity_mapping": {"critical": "P2"}}})
    gate.ask("1")
    gate.end("1", Result.RECOVERED)

    (alert,) = [a for a in gate.alerts() if a["kind"] == "recovery"]

    assert alert["severity"] == "P2"


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("alert_on_recovery", "recovery"),
        ("alert_on_cooldown", "cooldown"),
        ("alert_on_degraded_mode", "degraded"),
        ("enabled", "level"),
    ],
)
def test_an_alert_that_the_policy_does_not_want_is_not_sent(
    gate: Gate, key: str, kind: str
) -> None:
    kinds = []
    for identity, wanted in (("1", True), ("2", False)):
        gate.turn(sections={"alerting": {key: wanted}})
        gate.control.redis.delete(
            gate.control.key("cooldown", TARGET),
            gate.control.key("degraded"),
            gate.control.key("target", TARGET),
        )
        gate.ask(identity)
        gate.end(identity, Result.FAILED)
        kinds.append({alert["kind"] for alert in gate.alerts()})

    assert kind in kinds[0]
    assert kind not in kinds[1]


def test_capabilities_are_what_the_mode_lists(gate: Gate) -> None:
    gate.ask("1")
    gate.end("1", Result.FAILED)

    (mode,) = modes.active(gate.control, gate.policy)

    assert mode.available == ("basic_conversation",)
    assert mode.unavailable == ("long_term_memory",)


def test_a_subscriber_hears_of_a_mode_that_begins_and_ends(gate: Gate) -> None:
    subscription = gate.control.redis.pubsub(ignore_subscribe_messages=True)
    subscription.subscribe(gate.control.key("degraded"))
    heard: list[Any] = []

    def hear() -> bool:
        message = subscription.get_message(timeout=0.1)
        if message is not None:
            heard.append(json.loads(message["data"])["active"])
        return len(heard) == 2

    gate.ask("1")
    gate.end("1", Result.FAILED)
    gate.control.redis.delete(gate.control.key("cooldown", TARGET))
    gate.ask("2")
    gate.end("2", Result.RECOVERED)

    until(hear)
    assert heard == [True, False]
    subscription.close()


def test_a_disabled_scope_ends_by_itself(gate: Gate) -> None:
    disabling.disable(gate.control, gate.policy, "redis", by="eva", reason="night", seconds=0.05)
    assert gate.ask("1").reason is Refusal.DISABLED

    assert until(lambda: gate.ask("2").admitted)


@pytest.mark.parametrize("said", [{"command": "/bin/sh"}, {"container": "x"}, {"password": "x"}])
def test_a_context_cannot_define_a_remedy(gate: Gate, said: dict[str, str]) -> None:
    decided = gate.dispatch("1", failure_type="connection_error", context=said)

    assert decided.decision.reason is Refusal.INVALID
    assert next(iter(said)) in decided.decision.detail
    assert not decided.assignments


def test_an_event_of_more_than_sixteen_kilobytes_is_refused(gate: Gate) -> None:
    decided = gate.dispatch("1", failure_type="connection_error", reason="x" * 17_000)

    assert decided.decision.reason is Refusal.INVALID
    assert "at most 16384" in decided.decision.detail


def test_a_context_picks_among_configured_targets_only(gate: Gate) -> None:
    gate.turn({"a": {"url": "redis://127.0.0.1:7001"}, "b": {"url": "redis://127.0.0.1:7002"}})
    said = {"component": "redis", "failure_type": "connection_error"}

    picked = dispatch.dispatch(
        gate.control, gate.policy, "1", {**said, "context": {"host": "localhost", "port": 7002}}
    )
    refused = dispatch.dispatch(
        gate.control, gate.policy, "2", {**said, "context": {"host": "evil.example", "port": 1}}
    )

    assert picked.event is not None
    assert str(picked.event.target) == "redis/b"
    assert refused.decision.reason is Refusal.INVALID


def test_the_sources_of_an_event_are_a_closed_set(gate: Gate) -> None:
    decided = gate.dispatch("1", failure_type="connection_error", source="nobody")

    assert decided.decision.reason is Refusal.INVALID
    assert all(source.value in decided.decision.detail for source in Source)


def test_conclude_without_a_lease_is_lost(gate: Gate) -> None:
    gate.ask("1")

    answer = conclude(
        gate.control,
        gate.policy,
        load(gate.control, "1"),
        Outcome(result=Result.RECOVERED),
        NO_LEASE,
    )

    assert answer == "lost"


def test_a_password_from_a_file_is_read_when_it_is_needed(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    target = RedisTarget(url=redis_server.url, password_file=secret)
    with redis_server.client() as client:
        client.config_set("requirepass", "hunter2")

    missing = probe(target, 1.0)
    secret.write_text("wrong\n")
    wrong = probe(target, 1.0)
    secret.write_text("hunter2\n")
    right = probe(target, 1.0)

    assert (missing.failure_type, wrong.failure_type) == ("auth_failure", "auth_failure")
    assert "cannot be read" in missing.summary
    assert right.healthy
    assert "hunter2" not in repr((missing, wrong, right, target))


def test_a_password_and_a_file_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not both"):
        RedisTarget(password=SecretStr("a"), password_file=tmp_path)
