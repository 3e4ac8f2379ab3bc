"""Looks by schedule on a real control Redis and real targets: each once, none twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recovery import observations, probing
from recovery.config import Policy
from recovery.controlplane import ControlPlane
from recovery.events import TargetRef
from recovery.observations import Depth, Follow, Observed
from recovery.probing import Look
from tests.policies import make_policy
from tests.servers import RedisServer
from tests.waiting import until

TARGET = TargetRef("redis")


@pytest.fixture
def control(control_redis: RedisServer) -> Iterator[ControlPlane]:
    control = ControlPlane(control_redis.client())
    yield control
    control.redis.close()


def policy_of(folder: Path, targets: dict[str, Any], **sections: Any) -> Policy:
    return make_policy(folder, targets, sections=sections)


def first_look(control: ControlPlane, policy: Policy, queue: str = "probe.redis") -> list[Look]:
    found: list[Look] = []

    def some() -> list[Look]:
        found.extend(probing.claim(control, policy, queue))
        return found

    return until(some, what="a look is due")


def test_every_target_is_probed_on_the_queue_where_it_can_be_seen(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, {"a": {}, "b": {"host": "web-1"}})

    assert probing.queues(policy) == ("probe.redis", "probe.redis.web-1")


def test_a_target_may_be_left_to_other_detectors_and_all_may(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, {"a": {"probe": {"enabled": False}}, "b": {}})
    assert policy.probing(TargetRef("redis", "a")) is None
    assert policy.probing(TargetRef("redis", "b")) is not None

    policy = policy_of(tmp_path, {"b": {}}, integration={"health_check_integration": False})
    assert probing.queues(policy) == ()


def test_a_target_has_its_own_interval_timeout_and_threshold(tmp_path: Path) -> None:
    own = {"every": "2s", "deep_every": "1h", "timeout": "500ms", "failures": 1, "of": 1}
    policy = policy_of(
        tmp_path, {"a": {"probe": own}, "b": {}}, detection={"every": 7, "failures": 3, "of": 5}
    )

    mine, everybodys = (policy.probing(TargetRef("redis", name)) for name in "ab")
    assert mine is not None
    assert everybodys is not None
    assert (mine.every, mine.timeout, mine.failures, mine.of) == (2, 0.5, 1, 1)
    assert (everybodys.every, everybodys.failures, everybodys.of) == (7, 3, 5)
    assert everybodys.deep_every is None, "the probe of a Redis is light enough"


def test_deep_looks_come_at_the_playbooks_interval_where_there_are_light_ones(
    tmp_path: Path,
) -> None:
    chroma = {"targets": {"default": {}, "own": {"probe": {"deep_every": "1h"}}}}
    policy = make_policy(
        tmp_path,
        {"default": {}},
        recovery={"chromadb": chroma},
        sections={"integration": {"health_check_interval_seconds": 40}},
    )

    looks = [policy.probing(TargetRef("chromadb", name)) for name in ("default", "own")]

    assert [look.deep_every for look in looks if look] == [40, 3600]


def test_a_look_is_given_away_once_however_many_ask(control: ControlPlane, tmp_path: Path) -> None:
    policy = policy_of(tmp_path, {"a": {}, "b": {}, "c": {}}, detection={"every": 1})

    claimed = [look.target.name for look in first_look(control, policy)]
    for _ in range(20):
        claimed += [look.target.name for look in probing.claim(control, policy, "probe.redis")]

    assert sorted(claimed) == ["a", "b", "c"]


def test_a_look_under_way_is_not_doubled_and_one_that_never_ended_is_taken_for_lost(
    control: ControlPlane, tmp_path: Path
) -> None:
    policy = policy_of(tmp_path, {"default": {}})
    first_look(control, policy)
    looks = control.key("looks", TARGET)
    control.redis.hset(looks, "light", 0)

    assert probing.claim(control, policy, "probe.redis") == ()

    control.redis.hset(looks, "light:until", 1)
    assert len(probing.claim(control, policy, "probe.redis")) == 1


def test_what_is_overdue_is_looked_at_once_and_not_made_up_for(
    control: ControlPlane, tmp_path: Path
) -> None:
    policy = policy_of(tmp_path, {"default": {}})
    first_look(control, policy)
    looks = control.key("looks", TARGET)
    control.redis.hset(looks, mapping={"light": 1, "light:until": 1})

    [late] = probing.claim(control, policy, "probe.redis")

    assert late.wait == 0
    due = int(control.redis.hget(looks, "light"))
    assert due >= control.now_ms() + 3000


def test_looks_are_spread_over_their_interval(control: ControlPlane, tmp_path: Path) -> None:
    policy = policy_of(tmp_path, {f"t{number}": {} for number in range(100)})

    waits = sorted(look.wait for look in probing.claim(control, policy, "probe.redis"))

    assert len(waits) > 90
    for quarter in (0, 1.25, 2.5, 3.75):
        assert sum(quarter <= wait < quarter + 1.25 for wait in waits) > 10


def test_a_hurried_target_is_due_at_once(control: ControlPlane, tmp_path: Path) -> None:
    policy = policy_of(tmp_path, {"default": {"probe": {"every": "1h"}}})
    assert probing.claim(control, policy, "probe.redis") == ()

    probing.hurry(control, [TARGET])

    assert [look.wait for look in probing.claim(control, policy, "probe.redis")] == [0]


def test_a_first_failure_is_looked_at_again_until_it_is_sure(
    control: ControlPlane, redis_server: RedisServer, tmp_path: Path
) -> None:
    policy = policy_of(
        tmp_path, {"default": {"url": redis_server.url}}, detection={"confirm_after": 0.25}
    )
    one = Look(target=TARGET, depth=Depth.LIGHT)
    pauses: list[float] = []
    suspected: list[TargetRef] = []
    assert probing.look(control, policy, one).judgement.state is Observed.HEALTHY

    redis_server.kill()
    found = probing.look(control, policy, one, pause=pauses.append, suspected=suspected.append)

    assert (found.judgement.state, found.judgement.follow) == (Observed.FAILING, Follow.FAILED)
    assert found.report.failure_type == "connection_error"
    assert found.judgement.event_id
    assert (pauses, suspected) == ([0.25], [TARGET])

    redis_server.start()
    assert probing.look(control, policy, one).judgement.state is Observed.FAILING
    assert probing.look(control, policy, one).judgement.follow is Follow.RECOVERED


def test_a_probe_that_crashes_is_no_healthy_target_and_no_event(
    control: ControlPlane, tmp_path: Path
) -> None:
    policy = policy_of(
        tmp_path, {"default": {"tls_ca_file": "/nowhere", "url": "rediss://127.0.0.1:1"}}
    )

    found = probing.look(
        control, policy, Look(target=TARGET, depth=Depth.LIGHT), pause=lambda _: None
    )

    assert found.judgement.state is Observed.FAILING
    assert observations.latest(control)[TARGET].failure_type in (
        "probe_crashed",
        "connection_error",
    )
