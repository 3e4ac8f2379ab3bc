"""From a flush to its undo, through real workers: one lifecycle for both directions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis

from recovery import audit, holdings, modes, producer, records
from recovery.admission import Mode, ask
from recovery.config import Environment
from recovery.dispatch import dispatch
from recovery.errors import InvalidEvent, NotKept, UnknownRecovery
from recovery.events import Decision, FailureEvent, Refusal, Result, State, TargetRef
from recovery.keeping import KeptState, Shelf
from recovery.messages import read_event
from tests.components.redis.flushing import holdings as everything
from tests.fleet import DEFAULT_QUEUES, Fleet
from tests.policies import make_policy
from tests.stack import Stack
from tests.waiting import until

QUEUES = (*DEFAULT_QUEUES, "redis.test-host")
TARGET = TargetRef("redis")


@pytest.fixture
def policy_options() -> dict[str, Any]:
    flush = {
        "name": "flush_corrupted",
        "key_patterns": [{"pattern": "cache:*", "no_ttl": True}],
        "conditions": ["corruption_detected", "memory_pressure"],
        "auto_trigger": False,
    }
    return {"extra_strategies": [flush], "recovery": {"max_attempts_per_hour": 2}}


def fill(stack: Stack, count: int = 500) -> dict[bytes, Any]:
    with stack.target.client() as client:
        pipe = client.pipeline(transaction=False)
        for number in range(count):
            pipe.set(f"cache:{number}", f"value {number}", ex=None if number % 2 else 10_000)
        pipe.execute()
    return held(stack)


def held(stack: Stack) -> dict[bytes, Any]:
    with redis.Redis.from_url(stack.target.url) as client:
        return everything(client)


def size(stack: Stack) -> int:
    with stack.target.client() as client:
        return int(client.dbsize())


def flush(stack: Stack, **said: Any) -> records.Recovery:
    said = {"strategy": "flush_corrupted", "source": "cli", "by": "eva", **said}
    return stack.concluded(stack.trigger(**said))


def undo(stack: Stack, of: str, **said: Any) -> records.Recovery:
    return stack.concluded(send_undo(stack, of, **said))


def send_undo(stack: Stack, of: str, **said: Any) -> str:
    kept = holdings.find(stack.control, of)
    return producer.undo(kept, by="max", app=stack.app, **said)


def result(record: records.Recovery) -> Result:
    assert record.outcome is not None
    return record.outcome.result


def make_trouble(stack: Stack) -> None:
    """A cooldown, a level, a degraded mode, and every attempt of the hour used up."""
    control = stack.control
    control.redis.set(control.key("cooldown", TARGET), "somebody", px=100_000)
    control.redis.hset(control.key("target", TARGET), mapping={"level": 2, "trial": 1})
    mode = {"mode": "redis_unavailable", "since": 1, "recovery_id": "x"}
    control.redis.hset(control.key("degraded"), str(TARGET), json.dumps(mode))
    control.redis.zadd(control.key("attempts", TARGET), {"other": control.now_ms()})


def trouble(stack: Stack) -> dict[str, Any]:
    redis_ = stack.control.redis
    key = stack.control.key
    return {
        "attempts": redis_.zrange(key("attempts", TARGET), 0, -1),
        "cools": redis_.pttl(key("cooldown", TARGET)) > 0,
        "target": redis_.hgetall(key("target", TARGET)),
        "modes": [mode.mode for mode in modes.active(stack.control, stack.policy)],
        "outcomes": redis_.lrange(key("outcomes", TARGET), 0, -1),
    }


def test_a_flush_is_proven_rehearsed_undone_once_and_audited(stack: Stack, fleet: Fleet) -> None:
    fleet.start(queues=QUEUES)
    before = fill(stack)

    flushed = flush(stack)
    assert result(flushed) is Result.RECOVERED, fleet.logs()
    after = held(stack)
    assert len(after) == len(before) / 2
    (kept,) = holdings.held(stack.control)
    assert (kept.recovery_id, kept.target) == (flushed.id, "redis/default")
    assert kept.summary == "250 corrupted keys of cache:*"
    make_trouble(stack)
    troubled = trouble(stack)

    rehearsed = undo(stack, flushed.id, dry_run=True)
    assert result(rehearsed) is Result.DRY_RUN
    assert held(stack) == after
    (planned,) = [s for s in records.steps(stack.control, rehearsed.id) if s.planned]
    assert planned.figures["keys"] == 250

    undone = undo(stack, flushed.id, reason="they were needed")
    assert result(undone) is Result.UNDONE, fleet.logs()
    assert held(stack) == before
    assert trouble(stack) == troubled
    assert undone.outcome is not None
    assert undone.outcome.before is not None
    assert undone.outcome.after is not None

    with pytest.raises(NotKept, match=f"was undone already by {undone.id}"):
        holdings.find(stack.control, flushed.id)
    late = producer.undo(kept, app=stack.app)
    decision = until(lambda: records.refusal(stack.control, late), what="refused")
    assert decision.reason is Refusal.NOT_KEPT
    assert undone.id in decision.detail

    entries = list(audit.history(stack.control, since=audit.last_hours(1)))
    results = [(entry.fields["result"], entry.fields.get("undo_of")) for entry in entries]
    assert results == [
        ("recovered", None),
        ("dry_run", flushed.id),
        ("undone", flushed.id),
        ("refused", None),
    ]
    assert (entries[2].fields["by"], entries[2].fields["reason"]) == ("max", "they were needed")


def test_newer_data_refuses_an_undo_and_overwriting_it_can_be_undone(
    stack: Stack, fleet: Fleet
) -> None:
    fleet.start(queues=QUEUES)
    before = fill(stack)
    flushed = flush(stack)
    with stack.target.client() as client:
        client.mset({"cache:1": "newer", "cache:3": "newer"})
    calm = trouble(stack)

    refused = undo(stack, flushed.id)
    assert result(refused) is Result.NOT_UNDONE
    assert refused.outcome is not None
    assert refused.outcome.error == "would_overwrite"
    assert refused.outcome.detail.startswith("2 of the keys")
    assert trouble(stack) == calm

    undone = undo(stack, flushed.id, overwrite=True)
    assert result(undone) is Result.UNDONE, fleet.logs()
    assert held(stack) == before
    assert holdings.find(stack.control, undone.id).summary.startswith("2 newer keys")

    again = undo(stack, undone.id, overwrite=True)
    assert result(again) is Result.UNDONE
    assert held(stack)[b"cache:1"][1] == b"newer"


def test_what_is_not_there_or_undone_already_is_left_alone(stack: Stack, fleet: Fleet) -> None:
    fleet.start(queues=QUEUES)

    assert result(flush(stack)) is Result.NOT_NEEDED
    assert holdings.held(stack.control) == ()

    with stack.target.client() as client:
        client.set("cache:1", "x")
    told = holdings.shelf(stack.control, stack.policy, Environment.read(stack.environ))
    silent = Shelf(directory=told.directory, host=told.host)
    flushed = flush(stack)
    kept = holdings.find(stack.control, flushed.id)
    # Killed after it had written down on the disk that all is back, and before it could say so.
    on_disk = silent.open(flushed.id)
    on_disk.mark(KeptState.UNDONE, "the-same")
    on_disk.close()
    late = stack.concluded(producer.undo(kept, app=stack.app, recovery_id="another"))
    assert result(late) is Result.NOT_UNDONE
    assert late.outcome is not None
    assert late.outcome.error == "not_kept"
    resumed = stack.concluded(producer.undo(kept, app=stack.app, recovery_id="the-same"))
    assert result(resumed) is Result.UNDONE
    holdings.sweep(stack.control, stack.policy, Environment.read(stack.environ))

    with pytest.raises(UnknownRecovery, match="nothing can be undone now"):
        holdings.find(stack.control, "never-was")
    message = {"component": "redis", "undo_of": "never-was"}
    sent = stack.app.send_task("recovery.recover", kwargs=message, queue="dispatch")
    decision = until(lambda: records.refusal(stack.control, sent.id), what="refused")
    assert decision.reason is Refusal.NOT_KEPT


def test_an_undo_waits_for_the_host_that_keeps(stack: Stack, fleet: Fleet) -> None:
    fleet.start(queues=QUEUES)
    fill(stack)
    flushed = flush(stack)
    fleet.stop()
    fleet.start(queues=DEFAULT_QUEUES, environ={"RECOVERY_HOST": "another-host"})
    sent = send_undo(stack, flushed.id)
    record = until(lambda: stack.record(sent), what="it is admitted")
    assert record.state is State.QUEUED
    assert record.bound_to == "test-host"

    fleet.start(queues=("redis.test-host",), beat=False)

    assert result(stack.concluded(sent)) is Result.UNDONE


def test_an_undo_never_passes_a_live_lease(stack: Stack) -> None:
    busy = FailureEvent(id="a", target=TARGET, failure_type="connection_error")
    ask(stack.control, stack.policy, busy, "reconnect")

    event = FailureEvent(id="b", target=TARGET, undo_of="x", strategy="flush_corrupted")
    answer = ask(stack.control, stack.policy, event, "flush_corrupted", Mode.UNDO, force=True)

    assert isinstance(answer, Decision)
    assert answer.reason is Refusal.BUSY


@pytest.mark.parametrize(
    "said",
    [
        {"strategy": "flush_corrupted"},
        {"failure_type": "connection_error"},
        {"context": {"pattern": "*"}},
        {"force": True, "reason": "because"},
        {"require_approval": True},
        {"source": "alertmanager"},
        {"source": "probe"},
        {"host": "elsewhere"},
    ],
)
def test_a_message_says_of_an_undo_only_which_one(stack: Stack, said: dict[str, Any]) -> None:
    with pytest.raises(InvalidEvent):
        read_event("1", {"component": "redis", "undo_of": "x", **said}, stack.policy)


def test_a_flush_without_key_patterns_is_no_remedy(stack: Stack, tmp_path: Path) -> None:
    target = {"default": {"url": stack.target.url}}
    flush_all = {"name": "flush_corrupted", "conditions": ["corruption_detected"]}
    policy = make_policy(tmp_path, target, extra_strategies=[flush_all])

    for number, said in enumerate(
        ({"strategy": "flush_corrupted"}, {"failure_type": "corruption_detected"})
    ):
        message = {"component": "redis", "source": "cli", **said}
        decision = dispatch(stack.control, policy, str(number), message).decision
        assert decision.reason is Refusal.NO_REMEDY
    assert stack.control.redis.exists(stack.control.key("lease", TARGET)) == 0


def test_overwrite_belongs_to_an_undo(stack: Stack) -> None:
    with pytest.raises(InvalidEvent, match="undo"):
        read_event(
            "1", {"component": "redis", "strategy": "reconnect", "overwrite": True}, stack.policy
        )
