"""The whole stack finds out by itself what broke, and repairs it: nobody sends an event."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from recovery import audit, observations
from recovery.events import TargetRef
from recovery.observations import Observation, Observed
from tests.fleet import Fleet
from tests.policies import write_policy
from tests.servers import RedisServer, black_hole, filled, redis_binary
from tests.stack import Stack
from tests.supervising import supervised
from tests.waiting import until

ROOT, LEAF, FULL = (TargetRef("redis", name) for name in ("root", "leaf", "full"))
UP = ("-c", "from recovery.cli import main; main(['up'])")
PATIENCE = 60.0


def seen(stack: Stack, target: TargetRef) -> Observation | None:
    return observations.latest(stack.control).get(target)


def await_state(stack: Stack, target: TargetRef, state: Observed) -> Observation:
    def found() -> Observation | None:
        now = seen(stack, target)
        return now if now and now.state is state else None

    last = until(found, seconds=PATIENCE, what=f"{target} is {state}")
    assert last is not None
    return last


def recovered(stack: Stack) -> list[tuple[str, str, str]]:
    """Target, strategy and failure of each recovery that a probe asked for, newest first."""
    return [
        (str(said["target"]), str(said["strategy"]), str(said["failure"]))
        for entry in audit.latest(stack.control, 100)
        if (said := entry.fields).get("result") == "recovered" and said["source"] == "probe"
    ]


def pid_of(server: RedisServer) -> int | None:
    with suppress(redis.RedisError), closing(server.client(socket_timeout=1)) as client:
        return int(client.info("server")["process_id"])
    return None


@pytest.fixture
def unstarted(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that nobody has started: the runtime of its target will."""
    server = RedisServer(tmp_path / "own")
    server.folder.mkdir()
    yield server
    pid = pid_of(server)
    if pid is not None:
        psutil.Process(pid).kill()


def write(stack: Stack, server: RedisServer) -> None:
    start = [redis_binary(), "--port", str(server.port), "--bind", "127.0.0.1", "--save", ""]
    root = {
        "url": server.url,
        "runtime": {"kind": "command", "name": "own", "start": start, "folder": str(server.folder)},
        "unattended": ["restart_container"],
    }
    restart = {
        "name": "restart_container",
        "stop_grace": 1,
        "conditions": ["unresponsive", "all_else_failed"],
    }
    write_policy(
        stack.policy_file.parent,
        {
            "root": root,
            "leaf": {"url": server.url, "depends_on": ["redis/root"]},
            "full": {"url": stack.target.url},
        },
        reconnect={"conditions": ["clients_exhausted"]},
        extra_strategies=[restart],
        recovery={"max_attempts_per_hour": 50},
        sections={
            "detection": {"every": 1, "confirm_after": 0.3, "flapping": {"changes": 100}},
            "http": {"enabled": False},
        },
    )


@pytest.mark.kill
@pytest.mark.slow
def test_what_is_killed_hung_or_full_is_back_without_anybody(
    stack: Stack, unstarted: RedisServer, tmp_path: Path
) -> None:
    write(stack, unstarted)
    with supervised(tmp_path, *UP, environ=stack.environ) as up:
        await_state(stack, ROOT, Observed.HEALTHY)
        await_state(stack, LEAF, Observed.HEALTHY)
        assert recovered(stack)[0] == ("redis/root", "restart_container", "process_down")

        first = pid_of(unstarted)
        assert first is not None
        psutil.Process(first).kill()
        second = until(lambda: pid_of(unstarted), seconds=PATIENCE, what="a new server serves")
        assert second != first
        until(lambda: len(recovered(stack)) == 2, seconds=PATIENCE, what="it is proven and told")
        await_state(stack, LEAF, Observed.HEALTHY)

        psutil.Process(second or 0).send_signal(signal.SIGSTOP)
        third = until(lambda: pid_of(unstarted), seconds=PATIENCE, what="the hung one is replaced")
        assert third != second
        until(lambda: len(recovered(stack)) == 3, seconds=PATIENCE, what="that is told, too")
        assert recovered(stack)[0] == ("redis/root", "restart_container", "unresponsive")

        stack.leaked += filled(stack.target)
        until(lambda: len(recovered(stack)) == 4, seconds=PATIENCE, what="there is room again")
        assert recovered(stack)[0][:2] == ("redis/full", "reconnect")
        assert stack.target.answers()
        assert {target for target, _, _ in recovered(stack)} == {"redis/root", "redis/full"}, (
            up.said()
        )


@pytest.mark.kill
@pytest.mark.slow
def test_two_schedules_and_a_hung_target_neither_double_nor_delay_the_looks_at_others(
    stack: Stack, fleet: Fleet
) -> None:
    good = TargetRef("redis", "good")
    with black_hole() as port:
        hung = {"url": f"redis://127.0.0.1:{port}/0"}
        targets: dict[str, Any] = {"good": {"url": stack.target.url}}
        targets |= {f"hung{number}": hung for number in range(4)}
        write_policy(
            stack.policy_file.parent,
            targets,
            sections={"detection": {"every": 1, "storm": {"least": 50}}},
        )
        queues = ("probe.redis",)
        victim = fleet.start(queues=queues, pool="threads", concurrency=8)
        fleet.start(queues=queues, pool="threads", concurrency=8)
        await_state(stack, TargetRef("redis", "hung0"), Observed.FAILING)
        victim.kill()
        fleet.start(queues=queues, pool="threads", concurrency=8)
        before = len(observations.history(stack.control, good))

        def looks() -> tuple[observations.Point, ...]:
            return observations.history(stack.control, good)

        until(lambda: len(looks()) >= before + 5, seconds=PATIENCE, what="good is looked at")

    points = looks()
    seconds = (points[-1].at_ms - points[0].at_ms) / 1000
    assert len(points) <= seconds / (1 - 0.05) + 3, fleet.logs()
    assert all(point.healthy for point in points)
