"""``restart_container`` by real workers, one of which is killed in the middle of it."""

from __future__ import annotations

from typing import Any

import pytest

from recovery.events import Result
from tests.containers import RedisContainer
from tests.fleet import Fleet
from tests.policies import write_policy
from tests.stack import Stack
from tests.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.kill]


def aim(stack: Stack, container: RedisContainer) -> None:
    """Have the policy's target be the container."""
    runtime = {"kind": "docker", "container": container.name}
    restart: dict[str, Any] = {
        "name": "restart_container",
        "requires_approval": False,
        "stop_grace": 5,
        "conditions": ["all_else_failed"],
    }
    target = {"url": container.target.url, "runtime": runtime}
    write_policy(stack.policy_file.parent, {"default": target}, extra_strategies=[restart])


def steps(stack: Stack, recovery_id: str) -> str:
    return " ".join(stack.control.redis.lrange(stack.control.key("steps", recovery_id), 0, -1))


def test_a_hung_container_is_replaced(
    stack: Stack, fleet: Fleet, redis_container: RedisContainer
) -> None:
    aim(stack, redis_container)
    fleet.start()
    redis_container.api.pause(redis_container.name)

    record = stack.concluded(stack.trigger("unresponsive", strategy="restart_container"))

    assert record.outcome is not None
    assert record.outcome.result is Result.RECOVERED, fleet.logs()
    assert redis_container.is_filled()


def test_a_worker_killed_while_the_old_one_stops_is_followed_by_one_that_finishes(
    stack: Stack, fleet: Fleet, redis_container: RedisContainer
) -> None:
    aim(stack, redis_container)
    victim = fleet.start(beat=False)
    redis_container.api.pause(redis_container.name)
    recovery_id = stack.trigger("unresponsive", strategy="restart_container")
    until(lambda: "a copy of" in steps(stack, recovery_id), what="it is about to be stopped")

    victim.kill()
    fleet.start()
    record = stack.concluded(recovery_id, seconds=40)

    assert record.outcome is not None
    assert record.outcome.result is Result.RECOVERED, fleet.logs()
    assert redis_container.is_filled()
    running = [name for name, state in redis_container.family().items() if state == "running"]
    assert running == [redis_container.name]
