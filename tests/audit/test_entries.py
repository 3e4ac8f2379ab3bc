"""What the scripts write: numbered, in time, small, or nothing where the policy wants none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from recovery import audit, dispatch, metrics, producer, reconcile, records
from recovery.admission import ask
from recovery.audit.entries import as_line, read_entry, read_line
from recovery.conclusion import ADOPTED, conclude
from recovery.config import Policy, warnings
from recovery.events import Assignment, FailureEvent, Outcome, ProbeReport, Result, TargetRef
from recovery.lease import Lease, claim
from tests.policies import make_policy
from tests.stack import Stack

TARGET = TargetRef("redis")


def recover(stack: Stack, policy: Policy, identity: str, outcome: Outcome) -> None:
    """Everything between an event and its audit entry, without a remedy."""
    event = FailureEvent(id=identity, target=TARGET, failure_type="connection_error")
    ask(stack.control, policy, event, "reconnect", force=True)
    assignment = Assignment(recovery_id=identity, target=TARGET, strategy="reconnect")
    held = claim(stack.control, assignment, "test-host:1")
    assert isinstance(held, Lease)
    conclude(stack.control, policy, records.load(stack.control, identity), outcome, held.fence)


def stored(stack: Stack) -> list[dict[str, Any]]:
    page = stack.control.redis.xrange(stack.control.key("audit"))
    return [json.loads(fields["entry"]) for _, fields in page]


def report(healthy: bool, **figures: Any) -> ProbeReport:
    failure = None if healthy else "clients_exhausted"
    return ProbeReport(healthy=healthy, failure_type=failure, figures=figures)


def test_entries_are_numbered_without_a_gap(stack: Stack) -> None:
    for identity in "abc":
        recover(stack, stack.policy, identity, Outcome(result=Result.RECOVERED))
    ask(
        stack.control,
        stack.policy,
        FailureEvent(id="d", target=TARGET, failure_type="connection_error"),
        "reconnect",
    )

    assert [(entry["result"], entry["n"]) for entry in stored(stack)] == [
        ("recovered", 1),
        ("recovered", 2),
        ("recovered", 3),
        ("refused", 4),
    ]


def test_a_plain_entry_keeps_its_size_however_much_the_probes_read(stack: Stack) -> None:
    stack.control.redis.set(stack.control.key("audit", "n"), 999_999_998)
    many = {f"größe_{number}": number * 1000 for number in range(60)}
    outcome = Outcome(
        result=Result.RECOVERED,
        before=report(healthy=False, **many),
        after=report(healthy=True, **{name: value + 1 for name, value in many.items()}),
        attempts=3,
        duration=12.3456,
    )
    recover(stack, stack.policy, "3f2a7c1e-9d54-4b0e-8a61-2f6f0c9d1b77", outcome)

    ((_, fields),) = stack.control.redis.xrange(stack.control.key("audit"))

    assert 400 < len(fields["entry"].encode()) <= audit.ENTRY_BYTES
    assert len(stored(stack)[0]["before"]) > 3


def test_after_a_clock_that_ran_ahead_the_entry_says_its_own_time(stack: Stack) -> None:
    control = stack.control
    ahead = control.now_ms() + 86_400_000
    control.redis.xadd(control.key("audit"), {"entry": '{"n":0}'}, id=f"{ahead}-0")

    recover(stack, stack.policy, "a", Outcome(result=Result.RECOVERED))

    (entry,) = audit.history(control, since=audit.last_hours(1), component="redis", folder=None)
    assert entry.id.startswith(f"{ahead}-")
    assert abs(entry.at.timestamp() * 1000 - control.now_ms()) < 60_000
    assert (records.load(control, "a").outcome is not None, entry.n) == (True, 1)


def test_what_a_host_did_alone_is_dated_when_it_happened(stack: Stack) -> None:
    control, hours_ago = stack.control, stack.control.now_ms() - 3 * 3_600_000
    event = FailureEvent(id="a", target=TARGET, failure_type="connection_error")
    before = json.dumps(report(healthy=False).as_dict())
    control.run(
        *("adopt", "a", str(TARGET), "reconnect", json.dumps(event.as_dict())),
        *(hours_ago - 500, hours_ago, before, "web-1:1", 60),
    )

    conclude(
        control,
        stack.policy,
        records.load(control, "a"),
        Outcome(result=Result.RECOVERED),
        ADOPTED,
    )

    assert list(audit.history(control, since=audit.last_hours(2))) == []
    (entry,) = audit.history(control, since=audit.last_hours(4))
    assert entry.fields["at_ms"] == hours_ago
    assert entry.at.timestamp() * 1000 == hours_ago


@pytest.fixture
def unaudited(stack: Stack, tmp_path: Any) -> Policy:
    folder = tmp_path / "unaudited"
    folder.mkdir()
    target = {"url": stack.target.url}
    return make_policy(folder, {"default": target}, sections={"audit": {"enabled": False}})


def test_a_policy_without_an_audit_trail_counts_and_writes_no_entry(
    stack: Stack, unaudited: Policy
) -> None:
    recover(stack, unaudited, "a", Outcome(result=Result.RECOVERED))
    recover(stack, unaudited, "b", Outcome(result=Result.FAILED))
    for identity in "cd":
        ask(
            stack.control,
            unaudited,
            FailureEvent(id=identity, target=TARGET, failure_type="connection_error"),
            "reconnect",
        )
    dispatch.dispatch(stack.control, unaudited, "e", {"component": "nothing"})
    dispatch.dispatch(
        stack.control, unaudited, "f", {"component": "redis", "failure_type": "auth_failure"}
    )
    closed = stack.control.run("refused", 0, 0, 0)

    counted = metrics.snapshot(stack.control)
    assert (counted.recovered, counted.failed, sum(counted.refused.values())) == (1, 1, 4)
    assert closed == 3
    assert stored(stack) == []
    assert not stack.control.redis.exists(stack.control.key("audit", "n"))


def test_a_burst_that_is_over_leaves_its_line(stack: Stack) -> None:
    recover(stack, stack.policy, "a", Outcome(result=Result.FAILED))
    for number in range(5):
        event = FailureEvent(id=f"r{number}", target=TARGET, failure_type="connection_error")
        ask(stack.control, stack.policy, event, "reconnect")
    assert reconcile.close_refused_bursts(stack.control, stack.policy) == 0

    stack.control.run("refused", 0, 0, 1)

    assert stored(stack)[-1]["count"] == 5


def test_the_check_of_a_policy_without_an_audit_trail_says_so(
    stack: Stack, unaudited: Policy
) -> None:
    assert any("audit.enabled is false" in note for note in warnings(unaudited))
    assert not any("audit" in note for note in warnings(stack.policy))


texts = some.text(some.characters(exclude_categories=["Cs"]))
values = some.recursive(
    some.none() | some.booleans() | some.integers() | texts,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    entry_id=some.builds("{}-{}".format, some.integers(0, 1 << 60), some.integers(0, 1 << 60)),
    stored=some.one_of(
        some.dictionaries(texts, values).map(lambda fields: {"entry": json.dumps(fields)}),
        some.dictionaries(some.sampled_from(["entry", "other"]), texts),
    ),
)
def test_a_line_of_a_file_reads_as_the_entry_that_the_stream_had(
    entry_id: str, stored: dict[str, str]
) -> None:
    line = as_line(entry_id, stored)

    assert "\n" not in line
    assert read_line(line) == read_entry(entry_id, stored)


def test_where_the_files_lie_is_the_policys_choice(stack: Stack, tmp_path: Any) -> None:
    from recovery.config import Environment

    state = Environment(state_dir=tmp_path / "state")
    places = {
        None: tmp_path / "state" / "audit",
        "recovery_audit.json": tmp_path / "state" / "audit",
        "/var/lib/r/recovery_audit.json": "/var/lib/r/audit",
        "logs/recovery_audit.json": tmp_path / "policy" / "logs" / "audit",
    }
    (tmp_path / "policy").mkdir()
    for named, expected in places.items():
        section = {} if named is None else {"audit_file": named}
        target = {"url": stack.target.url}
        policy = make_policy(tmp_path / "policy", {"d": target}, sections={"audit": section})
        assert str(audit.folder_of(policy, state)) == str(expected)


def test_the_queue_of_one_hosts_upkeep_is_consumed_there() -> None:
    from recovery.cli.running import host_queues
    from recovery.config import Environment

    assert producer.maintenance_queue(Environment.read().host) in host_queues()
