"""Who lives and which queues they consume, as the control plane knows it."""

from __future__ import annotations

from typing import Any

import pytest

from recovery import modes, registry
from recovery.events import Result
from recovery.registry import Seen, Worker
from tests.fleet import DEFAULT_QUEUES, Fleet
from tests.stack import Stack
from tests.waiting import until

FAR = "redis.far-away"


@pytest.fixture
def policy_options() -> dict[str, Any]:
    return {"recovery": {"queue_wait_seconds": "1s"}}


@pytest.fixture
def far_target(stack: Stack) -> str:
    """A target that only the workers of another host can repair."""
    text = stack.policy_file.read_text()
    here = f"url: {stack.target.url}"
    assert here in text
    stack.policy_file.write_text(text.replace(here, f"{here}\n        host: far-away"))
    return FAR


def entry(**said: Any) -> Worker:
    facts = {"node": "w@here", "host": "here", "pid": 7, "version": "1", "concurrency": 2}
    return Worker(**{"queues": ("redis",), "active": 1, **facts, **said})


def alive(stack: Stack) -> tuple[Seen, ...]:
    return tuple(one for one in registry.workers(stack.control) if one.is_alive)


def test_a_worker_registers_itself_with_its_queues(stack: Stack, fleet: Fleet) -> None:
    started = fleet.start(queues=("redis", FAR), beat=False)

    (one,) = until(lambda: alive(stack), what="it is registered")

    assert one.worker.node == "w0@test"
    assert one.worker.host == "test-host"
    assert one.worker.pid == started.process.pid
    assert one.worker.queues == ("redis", FAR)
    assert (one.worker.active, one.worker.concurrency) == (0, 2)


def test_a_worker_is_registered_when_its_processes_are_prepared(stack: Stack, fleet: Fleet) -> None:
    fleet.start(app="tests.late_app", queues=("redis",), beat=False, wait=False)

    until(lambda: alive(stack), seconds=60, what="it is registered")

    prepared = stack.control.redis.lrange("prepared", 0, -1)
    assert len(set(prepared)) == 2


def test_a_worker_that_ends_takes_its_entry_away(stack: Stack, fleet: Fleet) -> None:
    started = fleet.start(beat=False)
    until(lambda: alive(stack), what="it is registered")

    started.stop()

    assert registry.workers(stack.control) == ()


def test_a_killed_worker_is_taken_for_dead_and_still_shown(stack: Stack, fleet: Fleet) -> None:
    started = fleet.start(beat=False)
    until(lambda: alive(stack), what="it is registered")

    started.kill()

    until(lambda: not alive(stack), seconds=20, what="it counts as dead")
    (one,) = registry.workers(stack.control)
    assert one.worker.node == "w0@test"


def test_a_worker_survives_a_registry_that_is_away(
    stack: Stack, fleet: Fleet, control_redis: Any
) -> None:
    started = fleet.start(beat=False)
    until(lambda: alive(stack), what="it is registered")

    control_redis.kill()
    until(lambda: "not registered" in started.log.read_text(), what="it notices")
    control_redis.start()
    stack.control.redis.delete(stack.control.key("workers"))

    until(lambda: alive(stack), what="it is registered again")


def test_an_old_process_cannot_take_away_the_entry_of_its_successor(stack: Stack) -> None:
    registry.register(stack.control, entry(pid=8))

    registry.unregister(stack.control, entry(pid=7))
    assert len(alive(stack)) == 1

    registry.unregister(stack.control, entry(pid=8))
    assert not alive(stack)


def test_whoever_was_silent_for_an_hour_is_forgotten(stack: Stack) -> None:
    control = stack.control
    registry.register(control, entry(node="old@here"))
    long_ago = control.now_ms() - int(registry.FORGET_SECONDS * 1000) - 1
    control.redis.zadd(control.key("workers"), {"old@here": long_ago})

    registry.register(control, entry())

    assert [one.worker.node for one in registry.workers(control)] == ["w@here"]
    assert control.redis.exists(control.key("worker", "old@here")) == 0


def test_queues_that_only_dead_workers_consumed_are_nobodys() -> None:
    living = Seen(worker=entry(queues=("dispatch", "redis")), age=registry.DEAD_SECONDS - 1)
    dead = Seen(worker=entry(queues=("notify",)), age=registry.DEAD_SECONDS)

    assert registry.unconsumed(("dispatch", "notify", "redis"), (living, dead)) == ("notify",)


def test_the_policys_queues_are_those_of_its_targets(stack: Stack) -> None:
    assert registry.queues_of(stack.policy) == ("dispatch", "maintenance", "notify", "redis")


def test_an_event_for_a_host_without_workers_says_so_at_once_and_at_the_end(
    stack: Stack, far_target: str, fleet: Fleet
) -> None:
    started = fleet.start(queues=DEFAULT_QUEUES)

    record = stack.concluded(stack.trigger("connection_error"))

    assert record.outcome is not None
    assert record.outcome.result is Result.UNCLAIMED
    assert f"no live worker consumes queue {far_target}" in record.outcome.detail
    decided = next(line for line in started.log.read_text().splitlines() if "=decided" in line)
    assert f"no live worker consumes queue {far_target}" in decided


def test_a_rehearsal_that_nobody_can_take_ends_clearly_and_changes_nothing(
    stack: Stack, far_target: str, fleet: Fleet
) -> None:
    fleet.start(queues=DEFAULT_QUEUES)

    record = stack.concluded(stack.trigger("connection_error", dry_run=True), seconds=60)

    assert record.outcome is not None
    assert record.outcome.result is Result.UNCLAIMED
    assert f"no live worker consumes queue {far_target}" in record.outcome.detail
    assert modes.active(stack.control, stack.policy) == ()
    assert not stack.control.redis.exists(stack.control.key("target", record.target))
    assert not stack.control.redis.exists(stack.control.key("rehearsals"))


def test_an_event_that_somebody_can_take_has_no_such_complaint(stack: Stack, fleet: Fleet) -> None:
    started = fleet.start()
    until(lambda: alive(stack), what="it is registered")

    stack.concluded(stack.trigger("connection_error"))

    assert "no live worker" not in started.log.read_text()
