"""From an event to a proven repair, through real workers and a really broken Redis."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from celery import Celery

from recovery import audit, modes
from recovery.events import Result
from tests.fleet import Fleet
from tests.stack import Stack
from tests.waiting import until


def test_a_redis_without_room_for_clients_is_repaired_and_proven(
    stack: Stack, fleet: Fleet
) -> None:
    fleet.start()
    stack.exhaust_clients()

    record = stack.concluded(stack.trigger("connection_error"))

    assert record.outcome is not None
    assert record.outcome.result is Result.RECOVERED, fleet.logs()
    assert record.outcome.before is not None
    assert record.outcome.before.failure_type == "clients_exhausted"
    assert record.outcome.after is not None
    assert record.outcome.after.healthy
    assert stack.target.answers()


def test_a_producer_that_has_only_celery_needs_no_queue_name(stack: Stack, fleet: Fleet) -> None:
    fleet.start()
    stack.exhaust_clients()
    bare = Celery("somebody", broker=stack.environ["RECOVERY_REDIS_URL"], set_as_current=False)

    sent = bare.send_task(
        "recovery.recover", kwargs={"component": "redis", "failure_type": "connection_error"}
    )

    record = stack.concluded(sent.id)
    assert record.outcome is not None
    assert record.outcome.result is Result.RECOVERED
    bare.close()


def test_a_dead_redis_ends_in_cooldown_and_degraded_mode(stack: Stack, fleet: Fleet) -> None:
    fleet.start()
    stack.target.kill()

    record = stack.concluded(stack.trigger("connection_error"))

    assert record.outcome is not None
    assert record.outcome.result is Result.FAILED
    assert record.level == 2
    assert stack.control.redis.pttl(stack.control.key("cooldown", record.target)) > 0
    (mode,) = modes.active(stack.control, stack.policy)
    assert mode.mode == "redis_unavailable"
    assert "long_term_memory" in mode.unavailable
    assert "basic_conversation" in mode.available


def test_fifty_triggers_at_once_run_one_recovery(stack: Stack, fleet: Fleet) -> None:
    fleet.start()
    stack.exhaust_clients()

    with ThreadPoolExecutor(10) as pool:
        ids = list(pool.map(lambda _: stack.trigger("connection_error"), range(50)))

    def all_decided() -> bool:
        return all(
            stack.record(sent) or stack.control.redis.exists(stack.control.key("decision", sent))
            for sent in ids
        )

    until(all_decided, seconds=20, what="every event is decided")
    ran = [record for sent in ids if (record := stack.record(sent)) is not None]
    for record in ran:
        stack.concluded(record.id)
    entries = list(audit.history(stack.control, since=audit.last_hours(1)))
    results = [entry.fields["result"] for entry in entries]
    assert results.count("recovered") == 1
    assert set(results) <= {"recovered", "not_needed", "refused"}


def test_a_message_that_names_a_path_is_refused_and_the_worker_lives(
    stack: Stack, fleet: Fleet
) -> None:
    fleet.start()

    refused = stack.app.send_task(
        "recovery.recover",
        kwargs={"component": "redis", "failure_type": "connection_error", "command": "/bin/sh"},
        queue="dispatch",
    )

    key = stack.control.key("decision", refused.id)
    decision = until(lambda: stack.control.redis.get(key), what="the event is refused")
    assert "unknown key 'command'" in str(decision)
    stack.exhaust_clients()
    assert stack.concluded(stack.trigger("connection_error")).outcome
