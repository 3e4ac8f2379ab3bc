"""Sealing killed anywhere: nothing lost, nothing twice, and the next run puts it right."""

from __future__ import annotations

import random
import signal
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from recovery.config.model import AuditSection
from recovery.controlplane import ControlPlane
from tests.audit.killing import seal_until_killed, start_sealing
from tests.audit.trails import FIRST_DAY, Trail
from tests.servers import RedisServer
from tests.waiting import until

pytestmark = pytest.mark.kill

Step = Callable[[Trail], object]


def writing(days_later: int, count: int) -> Step:
    return lambda trail: trail.write(trail.day_after(days_later), count)


def late_writing(days_earlier: int, count: int) -> Step:
    def write(trail: Trail) -> None:
        day = trail.day_after(0)
        trail.write(day, count, late_for=max(day - days_earlier, 0))

    return write


def killed_at(line: int) -> Step:
    return lambda trail: seal_until_killed(trail, line)


steps = some.lists(
    some.one_of(
        some.builds(writing, some.integers(0, 2), some.integers(1, 6)),
        some.builds(late_writing, some.integers(1, 5), some.integers(1, 3)),
        some.builds(killed_at, some.integers(1, 2500)),
        some.just(Trail.seal),
    ),
    min_size=4,
    max_size=12,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=steps, compressed=some.booleans())
def test_whatever_is_written_sealed_and_killed_in_any_order_every_entry_is_there_once(
    trail: Trail, steps: list[Step], compressed: bool
) -> None:
    trail.control.redis.flushdb()
    with tempfile.TemporaryDirectory() as folder:
        here = Trail(
            trail.control,
            Path(folder) / "audit",
            AuditSection(retention_days=36_500, compression_enabled=compressed),
        )
        for step in steps:
            step(here)
            assert here.read() == here.expected()
            assert here.verify().findings == []

        here.seal()

        assert here.waiting() == 0
        assert here.read() == here.expected()
        assert here.verify().findings == []
        moments = [entry.at for entry in here.history()]
        assert moments == sorted(moments)


def test_killed_at_one_line_after_the_other(trail: Trail, tmp_path: Path) -> None:
    line, was_killed = 1, True
    while was_killed:
        trail.control.redis.flushdb()
        here = replace(trail, folder=tmp_path / str(line), written=[], minutes=0)
        here.write(0, 2)
        here.write(1, 2)
        here.seal()
        here.write(2, 2)
        here.write(2, 1, late_for=0)
        was_killed = seal_until_killed(here, line)
        assert here.read() == here.expected(), line
        assert here.verify().findings == [], line
        here.seal()
        assert here.waiting() == 0
        assert here.read() == here.expected(), line
        assert here.verify().findings == [], line
        line += 37


def test_killed_while_files_past_their_retention_are_removed(trail: Trail, tmp_path: Path) -> None:
    line, was_killed = 1, True
    while was_killed:
        trail.control.redis.flushdb()
        here = replace(trail, folder=tmp_path / str(line), written=[], minutes=0)
        for day in range(4):
            here.write(day, 1)
        here.seal()
        here.settings = AuditSection(retention_days=0.001)
        was_killed = seal_until_killed(here, line)
        assert here.verify().findings == [], line
        here.seal()
        assert here.files() == []
        assert here.verify().findings == [], line
        line += 37


def test_killed_at_random_moments_again_and_again(trail: Trail) -> None:
    dice = random.Random(7)
    for day in range(40):
        trail.write(day, 50)
    for _ in range(25):
        child = start_sealing(trail)
        child.join(dice.uniform(0.02, 0.2))
        child.kill()
        child.join()
        assert child.exitcode in (0, -signal.SIGKILL)

    trail.seal()

    assert trail.waiting() == 0
    assert trail.read() == trail.expected()
    assert trail.verify().findings == []


def test_the_control_redis_killed_under_it_again_and_again(
    control_redis: RedisServer, tmp_path: Path
) -> None:
    dice = random.Random(11)
    with control_redis.client() as client:
        trail = Trail(ControlPlane(client), tmp_path / "audit")
        for day in range(30):
            trail.write(day, 40)
        for _ in range(6):
            child = start_sealing(trail)
            child.join(dice.uniform(0.02, 0.15))
            control_redis.kill()
            child.join()
            control_redis.start()
            assert trail.read() == trail.expected()
            assert trail.verify().findings == []

        trail.seal()

        assert trail.waiting() == 0
        assert trail.read() == trail.expected()
        assert trail.verify().findings == []


def test_two_hosts_and_two_processes_at_once_seal_each_entry_once(
    trail: Trail, tmp_path: Path
) -> None:
    for day in range(30):
        trail.write(day, 20)
    other = replace(trail, host="two", folder=tmp_path / "two")
    children = [start_sealing(who) for who in (trail, other, trail, other, trail)]
    for child in children:
        child.join()
        assert child.exitcode == 0
    owner = trail.control.redis.hget(trail.control.key("audit", "host"), "host")
    mine, others = (trail, other) if owner == "one" else (other, trail)

    mine.seal()

    assert not others.folder.exists()
    assert mine.read() == mine.expected()
    assert mine.verify().findings == []


def test_whoever_reads_while_it_is_sealed_sees_each_entry_once(trail: Trail) -> None:
    for day in range(30):
        trail.write(day, 60)
    child = start_sealing(trail)
    rounds = 0
    while child.is_alive() or rounds == 0:
        assert trail.read() == trail.expected()
        rounds += 1
    child.join()

    until(lambda: trail.waiting() == 0 or trail.seal().more, what="sealed")
    assert trail.history(FIRST_DAY)
    assert trail.verify().findings == []
