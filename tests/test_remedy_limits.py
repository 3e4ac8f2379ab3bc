"""How long and how often a remedy may try, where it runs, and what a lost control plane costs."""

from __future__ import annotations

from typing import Any

import pytest

from recovery import audit
from recovery.events import Result
from tests.fleet import Fleet
from tests.policies import write_policy
from tests.servers import RedisServer
from tests.stack import Stack
from tests.waiting import until


def entries(stack: Stack) -> list[Any]:
    return list(audit.history(stack.control, since=audit.last_hours(1)))


class TestShortTime:
    @pytest.fixture
    def policy_options(self) -> dict[str, Any]:
        return {"reconnect": {"timeout_seconds": 0.5}}

    def test_a_remedy_that_overstays_is_stopped_and_says_so(
        self, stack: Stack, fleet: Fleet
    ) -> None:
        fleet.start(app="tests.faulty_app", environ={"FAULT_AT": "act"})
        stack.exhaust_clients()

        record = stack.concluded(stack.trigger("connection_error"))

        assert record.outcome is not None
        assert record.outcome.result is Result.FAILED
        assert record.outcome.error == "deadline_exceeded", fleet.logs()
        assert len(entries(stack)) == 1


class TestRetries:
    @pytest.fixture
    def policy_options(self) -> dict[str, Any]:
        return {
            "reconnect": {"max_retries": 2, "backoff_seconds": 0.1, "backoff_multiplier": 3},
        }

    def test_a_remedy_is_retried_as_often_as_the_policy_says_and_later_each_time(
        self, stack: Stack, fleet: Fleet
    ) -> None:
        fleet.start()
        stack.target.kill()

        record = stack.concluded(stack.trigger("connection_error"))

        assert record.outcome is not None
        assert record.outcome.attempts == 3
        assert record.outcome.duration >= 0.1 + 0.3
        assert stack.control.redis.zcard(stack.control.key("attempts", record.target)) == 1


def test_a_target_of_one_host_is_repaired_on_that_hosts_queue(
    stack: Stack, fleet: Fleet, redis_server: RedisServer
) -> None:
    folder = stack.policy_file.parent
    write_policy(folder, {"default": {"url": redis_server.url, "host": "db-1"}})
    fleet.start(queues=("dispatch", "maintenance", "redis"))
    fleet.start(queues=("redis.db-1",), beat=False, environ={"RECOVERY_HOST": "db-1"})
    stack.exhaust_clients()

    record = stack.concluded(stack.trigger("connection_error"))

    assert record.outcome is not None
    assert record.outcome.result is Result.RECOVERED
    assert (record.holder or "").startswith("db-1:")


@pytest.mark.kill
def test_a_control_plane_that_dies_under_a_remedy_loses_nothing(
    stack: Stack, fleet: Fleet, control_redis: RedisServer
) -> None:
    fleet.start(app="tests.slow_app")
    stack.exhaust_clients()
    sent = stack.trigger("connection_error")
    until(lambda: (record := stack.record(sent)) and record.stage == "acting", what="it acts")

    control_redis.kill()
    until(stack.target.answers, what="the remedy goes on without the control plane")
    control_redis.start()

    record = stack.concluded(sent)
    assert record.outcome is not None
    assert record.outcome.result is Result.RECOVERED, fleet.logs()
    assert [entry.fields["result"] for entry in entries(stack)] == ["recovered"]


def test_a_rehearsal_that_cannot_be_gone_through_changes_nothing(
    stack: Stack, fleet: Fleet
) -> None:
    fleet.start()
    stack.target.kill()

    record = stack.concluded(stack.trigger("connection_error", dry_run=True))

    assert record.outcome is not None
    assert record.outcome.result is Result.DRY_RUN
    assert record.outcome.error == "target_unreachable"
    changed = ("cooldown", "failures", "attempts", "target")
    assert not [
        kind
        for kind in changed
        if stack.control.redis.exists(stack.control.key(kind, record.target))
    ]
    assert not stack.control.redis.exists(stack.control.key("degraded"))
