"""The control Redis killed with SIGKILL while a worker repairs something, and started again."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from recovery import audit
from recovery.events import Result, Stage
from tests.fleet import Fleet, Worker
from tests.servers import RedisServer
from tests.stack import Stack
from tests.waiting import until

pytestmark = [pytest.mark.kill, pytest.mark.slow]


@pytest.fixture
def policy_options(redis_server: RedisServer) -> dict[str, Any]:
    """A second target, so that two recoveries never wait for one lease."""
    strategy = {"name": "reconnect", "timeout_seconds": 5, "conditions": ["connection_timeout"]}
    target = {"url": redis_server.url}
    targets = {"default": target, "second": target}
    return {"recovery": {"redis": {"targets": targets, "strategies": [strategy]}}}


def test_a_worker_outlives_its_broker_and_still_consumes(
    stack: Stack, fleet: Fleet, control_redis: RedisServer
) -> None:
    # One process repairs and the worker waits for a message for the other one: a Celery that
    # closes the lost connection a second time exits in this state and in no other.
    worker = fleet.start(concurrency=2)
    running = begin_a_recovery(stack)

    lose_broker(control_redis, worker)
    stack.target.send_signal(signal.SIGCONT)
    control_redis.start()

    assert result_of(stack, running) is Result.RECOVERED, fleet.logs()
    later = stack.trigger("connection_timeout", target="second")
    assert result_of(stack, later) is Result.NOT_NEEDED, fleet.logs()
    assert worker.process.poll() is None, fleet.logs()
    assert conclusions(stack, running) == 1


def test_a_recovery_queued_when_the_broker_dies_is_concluded_once(
    stack: Stack, fleet: Fleet, control_redis: RedisServer
) -> None:
    worker = fleet.start(concurrency=1)
    running = begin_a_recovery(stack)
    queued = stack.trigger("connection_timeout", target="second")
    assert stack.control.redis.llen("dispatch") == 1

    lose_broker(control_redis, worker)
    stack.target.send_signal(signal.SIGCONT)
    control_redis.start()

    assert result_of(stack, running) is Result.RECOVERED, fleet.logs()
    assert result_of(stack, queued) is Result.NOT_NEEDED, fleet.logs()
    # A queue keeps its order: when this one has ended, nothing of the others is left in it.
    later = stack.trigger("connection_timeout", target="second")
    assert result_of(stack, later) is Result.NOT_NEEDED, fleet.logs()
    assert [conclusions(stack, each) for each in (running, queued, later)] == [1, 1, 1]
    assert worker.process.poll() is None, fleet.logs()


def begin_a_recovery(stack: Stack) -> str:
    """Freeze the target, so that its remedy hangs; returns when the remedy has begun."""
    stack.target.send_signal(signal.SIGSTOP)
    recovery_id = stack.trigger("connection_timeout")

    def is_acting() -> bool:
        record = stack.record(recovery_id)
        return record is not None and record.stage is Stage.ACTING

    until(is_acting, what="the remedy has begun")
    return recovery_id


def lose_broker(broker: RedisServer, worker: Worker) -> None:
    """Kill it, and leave it away until the worker has failed to come back to it."""
    broker.kill()

    def is_shut_out() -> bool:
        log = worker.log.read_text()
        assert worker.process.poll() is None, log
        return "Cannot connect to" in log

    until(is_shut_out, what="the worker tries to reconnect")


def result_of(stack: Stack, recovery_id: str) -> Result:
    outcome = stack.concluded(recovery_id).outcome
    assert outcome is not None
    return outcome.result


def conclusions(stack: Stack, recovery_id: str) -> int:
    found = audit.history(stack.control, since=audit.last_hours(1))
    return sum(entry.fields.get("id") == recovery_id for entry in found)
