"""Units of a real systemd, seen, stopped and started; where none is, ``test_booted`` runs these."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recovery.errors import NoSuchProcess, WontStart, WontStop
from recovery.runtime import Process
from tests.servers import RedisServer, redis_binary
from tests.units import Manager
from tests.waiting import until

SERVER = """
ExecStart={redis} --port {port} --bind 127.0.0.1 --save ""
TimeoutStopSec=60
"""
ONE_START = "StartLimitBurst=1\nStartLimitIntervalSec=600"
SLEEPER = "ExecStart=/bin/sleep 10000"
STUBBORN = """
ExecStart=/bin/sh -c 'trap "" TERM; while :; do sleep 0.2; done'
TimeoutStopSec=600
Restart=always
"""


@pytest.fixture
def redis_target(tmp_path: Path) -> RedisServer:
    """Where the unit's Redis will answer; systemd starts it."""
    return RedisServer(tmp_path)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Systemd sees a user who may only look."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def runs(unit: Process) -> bool:
    return unit.inspect().running


def test_a_unit_is_seen_started_and_stopped(systemd: Manager, redis_target: RedisServer) -> None:
    unit = systemd.open(systemd.write(server(redis_target)))
    assert not runs(unit)

    unit.start()
    until(redis_target.answers)

    state = unit.inspect()
    assert state.running
    with redis_target.client() as client:
        assert client.info("server")["process_id"] == state.pid
    unit.stop(grace=5)
    assert not runs(unit)
    assert not redis_target.answers()
    unit.stop(grace=5)


def test_one_that_stands_still_is_started_past_its_limit_of_starts(
    systemd: Manager, redis_target: RedisServer
) -> None:
    unit = systemd.open(systemd.write(server(redis_target), ONE_START))
    unit.start()
    until(redis_target.answers)
    frozen = unit.inspect()
    os.kill(frozen.pid or 0, signal.SIGSTOP)

    unit.restart(grace=0.5)

    until(redis_target.answers)
    assert unit.inspect().id != frozen.id


def test_one_that_does_not_heed_term_is_killed_and_stays_away_until_it_is_started(
    systemd: Manager,
) -> None:
    unit = systemd.open(systemd.write(STUBBORN))
    unit.start()
    first = until(lambda: unit.inspect().pid, what="it runs")

    with pytest.raises(WontStop, match="runs on"):
        unit.stop(grace=0.2, kill=False)
    assert unit.inspect().pid == first
    unit.stop(grace=0.2)

    assert not runs(unit)
    unit.start()
    assert until(lambda: unit.inspect().pid, what="it runs again") != first


def test_a_unit_that_is_not_there_is_said(systemd: Manager) -> None:
    unknown = systemd.open("recovery-test-unknown.service")

    assert not unknown.inspect().exists
    with pytest.raises(NoSuchProcess):
        unknown.start()


def test_a_masked_unit_that_runs_is_not_stopped_since_nothing_could_start_it(
    systemd: Manager,
) -> None:
    name = systemd.write(SLEEPER)
    unit = systemd.open(name)
    unit.start()
    until(lambda: runs(unit))
    systemd.mask(name)

    state = unit.inspect()

    assert state.running
    assert not state.exists
    assert "masked" in state.detail
    for act in (lambda: unit.stop(grace=1), unit.start):
        with pytest.raises(NoSuchProcess, match="masked"):
            act()
    assert unit.inspect().pid == state.pid


def test_a_unit_whose_file_was_broken_meanwhile_is_not_stopped(systemd: Manager) -> None:
    name = systemd.write(SLEEPER)
    unit = systemd.open(name)
    unit.start()
    until(lambda: runs(unit))
    systemd.write("ExecStart=not/absolute", name=name)

    with pytest.raises(NoSuchProcess, match="bad unit file setting"):
        unit.stop(grace=1)

    assert runs(unit)


def test_how_a_unit_failed_is_told(systemd: Manager) -> None:
    unit = systemd.open(systemd.write("ExecStart=/bin/sh -c 'exit 7'"))

    unit.start()

    until(lambda: not runs(unit), what="it has ended")
    assert unit.inspect().detail == "failed (failed): exit-code, status 7"


def test_one_that_dies_again_and_again_counts_its_starts(systemd: Manager) -> None:
    unit = systemd.open(
        systemd.write(
            "ExecStart=/bin/sh -c 'exit 7'\nRestart=always\nRestartSec=100ms",
            "StartLimitIntervalSec=0",
        )
    )

    unit.start()

    until(lambda: "status 7, started again " in unit.inspect().detail, what="it came and went")
    unit.stop(grace=5)
    assert not runs(unit)


def test_what_systemd_refuses_is_said_in_its_own_words(systemd: Manager) -> None:
    if systemd.scope != "system":
        pytest.skip("a user may do everything with units of its own")
    unit = systemd.open(systemd.write(SLEEPER))
    unit.start()
    until(lambda: runs(unit))

    with as_nobody():
        with pytest.raises(WontStop, match=r"Failed to stop .*(denied|authentication)"):
            unit.stop(grace=1)
        with pytest.raises(WontStart, match=r"Failed to start .*(denied|authentication)"):
            unit.start()

    assert runs(unit)


def server(redis: RedisServer) -> str:
    return SERVER.format(redis=redis_binary(), port=redis.port)
