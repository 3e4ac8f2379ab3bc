"""Workers that live and no longer hear are replaced; those that are merely full are not."""

from __future__ import annotations

import os
import signal
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from recovery import registry
from recovery.events import Result
from tests.fleet import DEFAULT_QUEUES
from tests.servers import RedisServer
from tests.stack import Stack
from tests.supervising import Supervised, supervising
from tests.waiting import until

pytestmark = pytest.mark.kill

NODE = "w@test"
DEAF_SECONDS = 2.0


@pytest.fixture
def policy_options() -> dict[str, Any]:
    return {"reconnect": {"timeout_seconds": 20}}


@pytest.fixture
def begin(stack: Stack, tmp_path: Path) -> Any:
    """Start one supervised worker that consumes everything."""

    def start(**said: Any) -> AbstractContextManager[Supervised]:
        spec = {"node": NODE, "queues": list(DEFAULT_QUEUES), "concurrency": 2, "beat": True}
        worker = spec | {name: said.pop(name) for name in spec.keys() & said.keys()}
        worker |= {"app": said.pop("app", "workers.app")}
        environ = {
            **stack.environ,
            "DEAF_FILE": str(tmp_path / "deaf"),
            "SLOW_SECONDS": said.pop("slow", "0"),
        }
        return supervising(
            tmp_path, environ, workers=[worker], **{"deaf_after": DEAF_SECONDS} | said
        )

    return start


def pid_of_worker(stack: Stack) -> int | None:
    """Of the one that consumes now."""
    seen = registry.workers(stack.control)
    return next((one.worker.pid for one in seen if one.is_alive), None)


def working(stack: Stack) -> int:
    found = until(lambda: pid_of_worker(stack), seconds=30, what="a worker is registered")
    assert found is not None
    return found


def replaced(stack: Stack, first: int) -> int:
    def another() -> int | None:
        pid = pid_of_worker(stack)
        return pid if pid != first else None

    found = until(another, seconds=80, what=f"{first} is replaced")
    assert found is not None
    return found


def consumes(stack: Stack) -> None:
    assert stack.concluded(stack.trigger("connection_error")).outcome is not None


def test_a_worker_that_was_stopped_is_replaced_by_one_that_consumes(
    stack: Stack, begin: Any
) -> None:
    with begin():
        first = working(stack)

        os.kill(first, signal.SIGSTOP)

        replaced(stack, first)
        assert not psutil.pid_exists(first)
        consumes(stack)


def test_a_worker_whose_consumer_is_gone_is_replaced(
    stack: Stack, begin: Any, tmp_path: Path
) -> None:
    with begin(app="tests.deaf_app") as found:
        first = working(stack)

        (tmp_path / "deaf").touch()

        replaced(stack, first)
        assert "took no message" in found.said()
        consumes(stack)


def test_a_worker_that_lost_its_schedule_is_replaced(stack: Stack, begin: Any) -> None:
    with begin() as found:
        first = working(stack)
        (beat,) = until(lambda: alone(beats(first)), what="its beat runs")

        beat.kill()

        replaced(stack, first)
        assert "its beat process has ended" in found.said()


def beats(pid: int) -> list[psutil.Process]:
    """The one child that Celery forked beside its pool; pool processes ignore SIGINT, beat not."""
    children = psutil.Process(pid).children()
    return [child for child in children if catches(child.pid, signal.SIGINT)]


def alone(found: list[psutil.Process]) -> list[psutil.Process]:
    """A pool process that was forked a moment ago catches it still, too."""
    return found if len(found) == 1 else []


def catches(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) & 1 << (number - 1))


def test_a_worker_survives_lost_connections_and_a_silent_broker(
    stack: Stack, begin: Any, control_redis: RedisServer
) -> None:
    with begin() as found:
        first = working(stack)
        # One that is still starting may end of it, and is started again.
        consumes(stack)

        with redis.Redis.from_url(stack.environ["RECOVERY_REDIS_URL"]) as killer:
            assert killer.client_kill_filter(_type="normal", skipme=True)

        consumes(stack)
        control_redis.send_signal(signal.SIGSTOP)
        # What must not happen gets the time in which it would.
        time.sleep(3 * DEAF_SECONDS)
        control_redis.send_signal(signal.SIGCONT)
        consumes(stack)
        assert pid_of_worker(stack) == first
        assert "is deaf" not in found.said()


def test_a_full_worker_is_left_alone(stack: Stack, begin: Any) -> None:
    with begin(app="tests.slow_app", slow="3.5", concurrency=1, deaf_after=1.0) as found:
        first = working(stack)
        stack.exhaust_clients()

        record = stack.concluded(stack.trigger("connection_error"))

        assert record.outcome is not None
        assert record.outcome.result is Result.RECOVERED
        assert pid_of_worker(stack) == first
        assert "is deaf" not in found.said()


def test_a_worker_that_stays_full_for_longer_than_any_task_may_take_is_replaced(
    stack: Stack, begin: Any
) -> None:
    with begin(
        app="tests.slow_app", slow="60", concurrency=1, deaf_after=1.0, full_after=3.0
    ) as found:
        first = working(stack)
        stack.exhaust_clients()

        stack.trigger("connection_error")

        replaced(stack, first)
        assert "took no message" in found.said()
