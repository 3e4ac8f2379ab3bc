"""What probes found, on a real control Redis: how sure a failure is, and what is remembered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recovery import metrics, observations
from recovery.config import Policy
from recovery.controlplane import ControlPlane
from recovery.events import ProbeReport, TargetRef
from recovery.observations import Depth, Follow, Judgement, Observed
from tests.policies import make_policy
from tests.servers import RedisServer

TARGET = TargetRef("redis")


class Watcher:
    """Reports that a test makes up, in front of a real control plane."""

    def __init__(self, control: ControlPlane, folder: Path) -> None:
        self.control = control
        self.folder = folder
        self.policy = self.turn()

    def turn(self, **detection: Any) -> Policy:
        self.policy = make_policy(
            self.folder, {"default": {}, "other": {}}, sections={"detection": detection}
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
