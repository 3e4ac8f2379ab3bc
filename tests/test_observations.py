"""What probes found, on a real control Redis: how sure a failure is, and what is remembered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recovery import admission, audit, lease, metrics, modes, observations, records
from recovery.conclusion import conclude
from recovery.config import Policy
from recovery.controlplane import ControlPlane
from recovery.events import (
    Assignment,
    Decision,
    FailureEvent,
    Outcome,
    ProbeReport,
    Refusal,
    Result,
    Source,
    TargetRef,
)
from recovery.observations import Depth, Follow, Judgement, Observed
from tests.policies import make_policy
from tests.servers import RedisServer
from tests.waiting import until

TARGET = TargetRef("redis")


class Watcher:
    """Reports that a test makes up, in front of a real control plane."""

    def __init__(self, control: ControlPlane, folder: Path) -> None:
        self.control = control
        self.folder = folder
        self.policy = self.turn()

    def turn(self, recovery: dict[str, Any] | None = None, **detection: Any) -> Policy:
        self.policy = make_policy(
            self.folder,
            {"default": {}, "other": {}},
            recovery=recovery,
            sections={"detection": detection},
        )
        return self.policy

    def sees(
        self, failure: str | None = None, target: TargetRef = TARGET, **said: Any
    ) -> Judgement:
        report = ProbeReport(
            healthy=failure is None,
            failure_type=failure,
            summary=failure or "well",
            figures={"clients": 3},
        )
        return observations.record(
            self.control, self.policy, target, report, **{"latency_ms": 1.5, **said}
        )

    def fails(self, target: TargetRef = TARGET, times: int = 2, **said: Any) -> Judgement:
        return [self.sees("connection_error", target, **said) for _ in range(times)][-1]

    def recovers(self, target: TargetRef = TARGET) -> Judgement:
        return self.sees(target=target, proven=True)

    def ask(self, identity: str, **said: Any) -> Decision:
        event = FailureEvent(
            id=identity,
            target=TARGET,
            failure_type="connection_error",
            source=Source.PROBE,
        )
        decision = admission.ask(self.control, self.policy, event, "reconnect", **said)
        assert isinstance(decision, Decision)
        return decision

    def end(self, identity: str, result: Result) -> None:
        assignment = Assignment(recovery_id=identity, target=TARGET, strategy="reconnect")
        held = lease.claim(self.control, assignment, "test")
        assert isinstance(held, lease.Lease)
        record = records.load(self.control, identity)
        conclude(self.control, self.policy, record, Outcome(result=result), held.fence)

    def level(self) -> int:
        return int(self.control.redis.hget(self.control.key("target", TARGET), "level") or 1)

    def is_on_probation(self) -> bool:
        return bool(self.control.redis.hexists(self.control.key("target", TARGET), "trial"))

    def alerts(self) -> list[str]:
        stored = self.control.redis.xrange(self.control.key("outbox"))
        return [json.loads(fields["alert"])["kind"] for _, fields in stored]

    def audited(self) -> list[str]:
        return [str(entry.fields["result"]) for entry in audit.latest(self.control, 100, None)]

    def last(self, target: TargetRef = TARGET) -> observations.Observation:
        return observations.latest(self.control)[target]


@pytest.fixture
def watcher(control_redis: RedisServer, tmp_path: Path) -> Iterator[Watcher]:
    control = ControlPlane(control_redis.client())
    yield Watcher(control, tmp_path)
    control.redis.close()


def test_two_failing_looks_of_three_make_a_failure_and_one_a_suspicion(watcher: Watcher) -> None:
    watcher.sees()

    assert watcher.sees("connection_error") == Judgement(
        state=Observed.SUSPECT, follow=Follow.AGAIN
    )
    assert watcher.sees().state is Observed.HEALTHY
    assert watcher.sees("connection_error") == Judgement(
        state=Observed.FAILING, follow=Follow.FAILED
    )
    assert watcher.sees("connection_error").follow is Follow.NOTHING


def test_a_failure_is_over_when_too_few_of_the_last_looks_failed(watcher: Watcher) -> None:
    for _ in range(3):
        watcher.sees("connection_error")

    assert watcher.sees().state is Observed.FAILING
    assert watcher.sees() == Judgement(state=Observed.HEALTHY, follow=Follow.RECOVERED)


def test_what_a_recovery_has_proven_ends_a_failure_at_once(watcher: Watcher) -> None:
    for _ in range(3):
        watcher.sees("connection_error")

    assert watcher.sees(proven=True).state is Observed.HEALTHY
    assert watcher.sees("connection_error").state is Observed.SUSPECT


def test_the_policy_says_how_many_looks_of_how_many(watcher: Watcher) -> None:
    watcher.turn(failures=1, of=1)

    assert watcher.sees("connection_error").state is Observed.FAILING
    assert watcher.sees().state is Observed.HEALTHY


def test_a_light_look_does_not_take_back_what_a_deep_one_found(watcher: Watcher) -> None:
    for _ in range(2):
        watcher.sees("index_corrupted", depth=Depth.DEEP)
    for _ in range(3):
        watcher.sees()

    last = watcher.last()
    assert (last.state, last.healthy) == (Observed.FAILING, True)
    assert last.failure_type == "index_corrupted"
    for _ in range(2):
        watcher.sees(depth=Depth.DEEP)
    assert watcher.last().state is Observed.HEALTHY
    assert watcher.last().failure_type is None


def test_an_observation_says_since_when_and_what_was_read(watcher: Watcher) -> None:
    watcher.sees()
    first = watcher.last()
    watcher.sees(latency_ms=2.25)

    last = watcher.last()
    assert last.since_ms == first.since_ms
    assert last.at_ms >= first.at_ms
    assert (last.latency_ms, last.figures, last.summary) == (2.25, {"clients": 3}, "well")
    assert last.host == watcher.policy.host


def test_history_is_capped_and_oldest_first(watcher: Watcher) -> None:
    watcher.sees("connection_error")
    for number in range(observations.POINTS):
        watcher.sees(latency_ms=number)

    points = observations.history(watcher.control, TARGET)

    assert len(points) == observations.POINTS
    assert [points[0].latency_ms, points[-1].latency_ms] == [0, observations.POINTS - 1]
    assert all(point.healthy for point in points)


def test_a_target_that_is_no_longer_probed_vanishes(watcher: Watcher) -> None:
    watcher.sees()
    watcher.sees(target=TargetRef("redis", "other"))
    control = watcher.control
    for kind in ("observation", "observations"):
        assert 0 < control.redis.pttl(control.key(kind, TARGET)) <= 3_600_000

    control.redis.delete(control.key("observation", TARGET))
    control.redis.zadd(control.key("observed"), {str(TARGET): 1})
    watcher.sees(target=TargetRef("redis", "other"))

    assert set(observations.latest(control)) == {TargetRef("redis", "other")}
    assert control.redis.zcard(control.key("observed")) == 1


def test_probes_are_counted_by_what_they_found(watcher: Watcher) -> None:
    watcher.sees()
    watcher.sees("connection_error")
    watcher.sees("connection_error")

    counted = metrics.snapshot(watcher.control)

    assert counted.probes == {("redis", "healthy"): 1, ("redis", "connection_error"): 2}
    assert counted.strategies == ()


def test_a_failure_sends_one_event_and_none_while_it_is_being_decided(watcher: Watcher) -> None:
    assert watcher.sees("connection_error", wants_event=True).event_id is None
    sent = watcher.sees("connection_error", wants_event=True).event_id

    assert sent
    assert [watcher.fails(wants_event=True).event_id for _ in range(5)] == [None] * 5


def test_an_event_on_which_nobody_decided_is_sent_again_as_itself_and_ever_more_rarely(
    watcher: Watcher,
) -> None:
    seen = watcher.control.key("observation", TARGET)

    def after(seconds: float) -> str | None:
        event_ms = watcher.control.now_ms() - int(seconds * 1000)
        watcher.control.redis.hset(seen, "event_ms", event_ms)
        return watcher.fails(times=1, wants_event=True).event_id

    sent = watcher.fails(wants_event=True).event_id
    assert sent

    assert [after(5), after(12), after(12), after(25), after(25)] == [None, sent, None, sent, None]

    watcher.turn({"cooldown_seconds": 300, "max_attempts_per_hour": 1})
    watcher.control.redis.zadd(watcher.control.key("attempts", TARGET), {"x": 9e15})
    assert watcher.ask(sent).reason is Refusal.LIMIT
    assert after(500) is None, "the gate has decided"
    watcher.control.redis.hset(seen, "retry_ms", 1)
    assert after(1) not in (None, sent)


def test_no_event_is_sent_while_somebody_repairs_or_the_target_cools_down(watcher: Watcher) -> None:
    sent = watcher.fails(wants_event=True).event_id or ""
    assert watcher.ask(sent).admitted

    assert watcher.fails(wants_event=True).event_id is None
    watcher.end(sent, Result.FAILED)
    assert watcher.fails(wants_event=True).event_id is None
    watcher.control.redis.delete(watcher.control.key("cooldown", TARGET))
    assert watcher.fails(times=1, wants_event=True).event_id not in (None, sent)


def test_a_refused_event_is_sent_again_when_the_gate_said_so(watcher: Watcher) -> None:
    watcher.turn({"cooldown_seconds": 300, "max_attempts_per_hour": 1})
    watcher.ask("first")
    watcher.end("first", Result.RECOVERED)
    sent = watcher.fails(wants_event=True).event_id or ""

    assert watcher.ask(sent).reason is Refusal.LIMIT

    last = watcher.last()
    assert last.refused == "1 recoveries in the last hour"
    assert last.retry_ms is not None
    assert last.retry_ms - last.at_ms > 3_000_000
    assert watcher.fails(wants_event=True).event_id is None
    watcher.control.redis.hset(watcher.control.key("observation", TARGET), "retry_ms", 1)
    assert watcher.fails(times=1, wants_event=True).event_id


def test_nobody_is_asked_twice_while_a_person_has_not_decided(watcher: Watcher) -> None:
    sent = watcher.fails(wants_event=True).event_id or ""
    assert watcher.ask(sent, mode=admission.Mode.HOLD).verdict == "awaiting_approval"
    watcher.control.redis.hset(watcher.control.key("observation", TARGET), "event_ms", 1)

    assert watcher.fails(wants_event=True).event_id is None

    record = records.load(watcher.control, sent)
    conclude(watcher.control, watcher.policy, record, Outcome(result=Result.DENIED), "")
    assert watcher.fails(wants_event=True).event_id is None
    assert watcher.last().refused == "a person denied it"


def deny(watcher: Watcher, identity: str) -> None:
    record = records.load(watcher.control, identity)
    conclude(watcher.control, watcher.policy, record, Outcome(result=Result.DENIED), "")


def test_who_said_no_to_one_failure_has_said_nothing_of_another(watcher: Watcher) -> None:
    sent = watcher.fails(wants_event=True).event_id or ""
    watcher.ask(sent, mode=admission.Mode.HOLD)
    deny(watcher, sent)

    assert watcher.fails(wants_event=True).event_id is None
    assert watcher.sees("process_down", wants_event=True).event_id not in (None, sent)


def test_a_denial_ends_with_the_failure_and_means_nothing_where_nothing_fails(
    watcher: Watcher,
) -> None:
    sent = watcher.fails(wants_event=True).event_id or ""
    watcher.ask(sent, mode=admission.Mode.HOLD)
    watcher.recovers()
    deny(watcher, sent)
    assert watcher.last().refused is None

    assert watcher.fails(wants_event=True).event_id not in (None, sent)


def test_a_person_who_was_refused_while_nothing_failed_holds_up_no_failure(
    watcher: Watcher,
) -> None:
    watcher.turn({"cooldown_seconds": 300, "max_attempts_per_hour": 1})
    watcher.sees()
    watcher.ask("first")
    assert watcher.ask("second").reason is Refusal.BUSY
    watcher.end("first", Result.NOT_NEEDED)
    watcher.control.redis.zadd(watcher.control.key("attempts", TARGET), {"x": 9e15})
    assert watcher.ask("third").reason is Refusal.LIMIT
    assert watcher.last().retry_ms is not None

    assert watcher.fails(wants_event=True).event_id


def test_a_target_that_keeps_going_up_and_down_is_left_alone_and_a_person_is_called(
    watcher: Watcher,
) -> None:
    watcher.turn(flapping={"changes": 4, "window": "10m", "hold": "5m"})
    watcher.sees()
    for _ in range(2):
        watcher.fails()
        watcher.recovers()

    decision = watcher.ask("a")

    assert decision.reason is Refusal.FLAPPING
    assert decision.retry_after is not None
    assert 290 < decision.retry_after <= 300
    assert watcher.last().state is Observed.FLAPPING
    assert watcher.level() == 3
    assert watcher.audited().count("flapping") == 1
    assert watcher.alerts().count("level") == 1
    assert watcher.ask("b", force=True).admitted


def test_what_a_failed_recovery_found_is_taken_back_by_the_looks_that_there_are(
    watcher: Watcher,
) -> None:
    watcher.fails()
    ill = ProbeReport(healthy=False, failure_type="connection_error")
    outcome = Outcome(result=Result.FAILED, after=ill)
    observations.note_outcome(watcher.control, watcher.policy, TARGET, outcome)

    for _ in range(5):
        watcher.sees()

    assert watcher.last().state is Observed.HEALTHY
    assert watcher.control.redis.zscore(watcher.control.key("failing"), str(TARGET)) is None


def test_changes_that_lie_far_apart_are_no_flapping(watcher: Watcher) -> None:
    watcher.turn(flapping={"changes": 4, "window": 0.05, "hold": "5m"})
    watcher.sees()
    changes = watcher.control.key("changes", TARGET)
    for _ in range(3):
        watcher.fails()
        until(lambda: not watcher.control.redis.exists(changes), what="the window is over")
        watcher.recovers()

    assert watcher.last().state is Observed.HEALTHY


def test_health_that_lasts_clears_what_a_failed_recovery_left(watcher: Watcher) -> None:
    watcher.turn({"cooldown_seconds": 300, "probation_seconds": 0.05}, healthy_after=0.05)
    watcher.ask("a")
    watcher.end("a", Result.FAILED)
    watcher.fails()
    watcher.recovers()
    assert (watcher.level(), watcher.is_on_probation()) == (2, True)
    assert [mode.target for mode in modes.active(watcher.control, watcher.policy)] == [str(TARGET)]

    def is_clear() -> bool:
        watcher.sees()
        return (watcher.level(), watcher.is_on_probation()) == (1, False)

    until(is_clear, what="level and probation are cleared")

    assert modes.active(watcher.control, watcher.policy) == ()
    assert {"healthy", "probation_over"} <= set(watcher.audited())
    assert {"resolved", "degraded_over"} <= set(watcher.alerts())


def test_health_that_has_not_lasted_clears_nothing(watcher: Watcher) -> None:
    watcher.turn(healthy_after=3600)
    watcher.ask("a")
    watcher.end("a", Result.FAILED)
    for _ in range(5):
        watcher.sees()

    assert watcher.level() == 2


def test_times_to_detect_and_to_recover_are_counted(watcher: Watcher) -> None:
    watcher.sees()
    watcher.fails()
    watcher.recovers()

    counted = metrics.snapshot(watcher.control)

    for spread in (counted.to_detect["redis"], counted.outages["redis"]):
        assert sum(spread.buckets.values()) == 1
        assert 0 <= spread.seconds < 60


def test_a_look_confirms_another_one_only_while_it_is_recent(watcher: Watcher) -> None:
    assert not observations.is_seen_failing(watcher.control, TARGET)
    watcher.fails()
    assert observations.is_seen_failing(watcher.control, TARGET)
    watcher.control.redis.hset(watcher.control.key("observation", TARGET), "at_ms", 1)
    assert not observations.is_seen_failing(watcher.control, TARGET)
