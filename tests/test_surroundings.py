"""The gate sees the rest of the stack: what a target stands on, and how much fails at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recovery import admission, lease, observations, reconcile, records
from recovery.conclusion import conclude
from recovery.controlplane import ControlPlane
from recovery.errors import ConfigError
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
from recovery.observations import Observed
from tests.policies import make_policy
from tests.servers import RedisServer
from tests.waiting import until

ROOT, MIDDLE, TOP = (TargetRef("redis", name) for name in ("root", "middle", "top"))
STANDING = {
    "root": {},
    "middle": {"depends_on": ["redis/root"]},
    "top": {"depends_on": ["redis/middle"]},
    "apart": {},
}


class House:
    """Targets that stand on one another, seen by probes that a test makes up."""

    def __init__(self, control: ControlPlane, folder: Path) -> None:
        self.control = control
        self.folder = folder
        self.build(STANDING)

    def build(self, targets: dict[str, Any], **detection: Any) -> None:
        self.policy = make_policy(self.folder, targets, sections={"detection": detection})

    def sees(self, target: TargetRef, failure: str | None = None) -> observations.Judgement:
        report = ProbeReport(healthy=failure is None, failure_type=failure)
        return observations.record(
            self.control, self.policy, target, report, latency_ms=1, proven=failure is None
        )

    def fails(self, target: TargetRef) -> None:
        for _ in range(2):
            self.sees(target, "connection_error")

    def ask(
        self, target: TargetRef, *, source: Source = Source.PROBE, force: bool = False
    ) -> Decision:
        identity = f"{target}-{self.control.redis.incr('asked')}"
        event = FailureEvent(
            id=identity, target=target, failure_type="connection_error", source=source
        )
        decision = admission.ask(self.control, self.policy, event, "reconnect", force=force)
        assert isinstance(decision, Decision)
        return decision

    def end(self, decision: Decision, target: TargetRef, result: Result) -> None:
        assignment = Assignment(
            recovery_id=decision.recovery_id, target=target, strategy="reconnect"
        )
        held = lease.claim(self.control, assignment, "test")
        assert isinstance(held, lease.Lease)
        record = records.load(self.control, decision.recovery_id)
        conclude(self.control, self.policy, record, Outcome(result=result), held.fence)

    def told(self, kind: str) -> list[dict[str, Any]]:
        stored = self.control.redis.xrange(self.control.key("outbox"))
        alerts = [json.loads(fields["alert"]) for _, fields in stored]
        return [alert for alert in alerts if alert["kind"] == kind]


@pytest.fixture
def house(control_redis: RedisServer, tmp_path: Path) -> Iterator[House]:
    control = ControlPlane(control_redis.client())
    yield House(control, tmp_path)
    control.redis.close()


def test_what_stands_on_a_failing_root_is_held_and_the_root_is_repaired(house: House) -> None:
    for target in (TOP, MIDDLE, ROOT):
        house.fails(target)

    held = house.ask(TOP)

    assert held.reason is Refusal.DEPENDENCY
    assert held.detail == "it stands on redis/middle, which fails"
    assert held.retry_after
    assert house.ask(MIDDLE).detail == "it stands on redis/root, which fails"
    house.sees(TOP, "connection_error")
    assert observations.latest(house.control)[TOP].state is Observed.HELD
    assert house.ask(ROOT).admitted
    assert not house.told("level")


def test_a_suspected_root_is_enough_to_hold_what_stands_on_it(house: House) -> None:
    house.sees(ROOT, "connection_error")

    assert house.ask(MIDDLE).reason is Refusal.DEPENDENCY
    house.sees(ROOT)
    assert house.ask(MIDDLE).admitted


def test_what_stands_on_a_root_waits_until_it_is_repaired(house: House) -> None:
    repair = house.ask(ROOT)

    assert house.ask(MIDDLE).detail == "it stands on redis/root, which is being repaired"
    house.end(repair, ROOT, Result.RECOVERED)
    assert house.ask(MIDDLE).admitted


def test_a_root_that_could_not_be_repaired_holds_the_others_without_any_probe(house: House) -> None:
    house.end(house.ask(ROOT), ROOT, Result.FAILED)

    assert house.ask(TOP).reason is Refusal.DEPENDENCY


def test_force_passes_a_failing_root(house: House) -> None:
    house.fails(ROOT)

    assert house.ask(TOP, force=True).admitted


def test_a_policy_with_unknown_names_or_circles_is_refused_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        make_policy(tmp_path, {"a": {"depends_on": ["redis/b", "chromadb/x"]}})

    assert [problem["key"] for problem in caught.value.facts["problems"]] == [
        "recovery.redis.targets.a.depends_on[0]",
        "recovery.redis.targets.a.depends_on[1]",
    ]
    assert caught.value.facts["problems"][0]["allowed"] == ["redis/a"]

    with pytest.raises(ConfigError, match="redis/a → redis/b → redis/a"):
        make_policy(tmp_path, {"a": {"depends_on": ["redis/b"]}, "b": {"depends_on": ["redis/a"]}})
    with pytest.raises(ConfigError, match="redis/a → redis/a"):
        make_policy(tmp_path, {"a": {"depends_on": ["redis/a"]}})


def many(count: int, **more: Any) -> dict[str, Any]:
    return {f"t{number}": {} for number in range(count)} | more


def test_when_too_much_fails_at_once_only_foundations_are_repaired_and_one_call_goes_out(
    house: House,
) -> None:
    house.build(many(9, top={"depends_on": ["redis/t0"]}), storm={"share": 0.5, "least": 3})
    for number in range(5):
        house.fails(TargetRef("redis", f"t{number}"))
    assert house.ask(TargetRef("redis", "t4")).admitted

    house.fails(TargetRef("redis", "t5"))

    for number in (1, 2, 3):
        held = house.ask(TargetRef("redis", f"t{number}"))
        assert held.reason is Refusal.STORM
        assert held.retry_after
    assert house.ask(TargetRef("redis", "t0")).admitted
    assert house.ask(TargetRef("redis", "t5"), force=True).admitted
    [call] = house.told("storm")
    assert call["failing"] == 6
    assert not house.told("level")


def test_a_storm_is_over_only_when_it_has_been_calm_for_a_while(house: House) -> None:
    house.build(many(4), storm={"share": 0.5, "least": 3, "calm": 0.2})
    targets = [TargetRef("redis", f"t{number}") for number in range(4)]
    for target in targets:
        house.fails(target)
    for target in targets:
        house.sees(target)
    assert house.control.redis.pttl(house.control.key("storm")) > 0
    assert house.ask(targets[0]).reason is Refusal.STORM

    until(lambda: not house.control.redis.exists(house.control.key("storm")))
    reconcile.close_refused_bursts(house.control, house.policy)

    assert house.ask(targets[0]).admitted
    assert len(house.told("storm_over")) == 1


def test_alerts_of_other_detectors_make_a_storm_too(house: House) -> None:
    house.build(many(4), storm={"share": 0.5, "least": 3})
    decisions = [
        house.ask(TargetRef("redis", f"t{number}"), source=Source.ALERTMANAGER)
        for number in range(4)
    ]

    assert [decision.admitted for decision in decisions] == [True, True, False, False]
    assert len(house.told("storm")) == 1


def test_a_few_targets_are_never_a_storm(house: House) -> None:
    house.build(many(4))

    assert house.policy.storm_size == 0
    house.build(many(20))
    assert house.policy.storm_size == 11
    house.build(many(20), storm={"share": 0.1})
    assert house.policy.storm_size == 5
