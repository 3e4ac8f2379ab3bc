"""Bring to an end what a dead worker left: leases run out, approvals expired, bursts gone quiet.

A lease is renewed every second while a remedy runs. One that has run out is looked at by a script,
which says whether its recovery is sent again, resumed by another worker, or given up.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from recovery import records, registry
from recovery.admission import RESEND_SECONDS
from recovery.conclusion import NO_LEASE, STALE_LEASE, conclude
from recovery.controlplane import reachable
from recovery.errors import UnknownRecovery
from recovery.events import Assignment, Outcome, Result, TargetRef

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane

RESUMPTIONS = 2
"""How often a recovery is handed to another worker before it is taken to be what kills them."""

ABSENT_SECONDS = registry.DEAD_SECONDS
"""How long a recovery waits for a worker where none that lives consumes its queue: one that is
started again has time to come, and one that was killed just before counts as dead by then."""

QUIET_SECONDS = 60.0
LONGEST_BURST_SECONDS = 3600.0


def expired_leases(control: ControlPlane) -> tuple[TargetRef, ...]:
    """Targets whose lease has run out by the control plane's clock."""
    with reachable():
        names = control.redis.zrangebyscore(control.key("leases"), "-inf", control.now_ms())
    return tuple(TargetRef.parse(name) for name in names)


def settle(control: ControlPlane, policy: Policy, target: TargetRef) -> tuple[Assignment, ...]:
    """Settle one target's lease if it has run out; what must be sent is returned.

    A busy worker has ``queue_wait_seconds`` to take what waits; a queue that nobody consumes is
    given up after ``ABSENT_SECONDS``.
    """
    if (departed := _departed(control, policy, target)) is not None:
        _withdraw(control, policy, departed)
        return ()
    answer, recovery_id, strategy = _look(control, policy, target, ABSENT_SECONDS)
    if answer == "absent":
        if nobody := registry.complaint(control, _queue(control, policy, target, recovery_id)):
            _leave_unclaimed(control, policy, recovery_id, f"not taken: {nobody}")
            return ()
        answer, recovery_id, strategy = _look(control, policy, target, 0)
    if answer in ("resend", "resume"):
        host = records.load(control, recovery_id).bound_to
        return (Assignment(recovery_id=recovery_id, target=target, strategy=strategy, host=host),)
    if answer == "unclaimed":
        waited = policy.limits(target).queue_wait_seconds
        detail = f"no worker took it from its queue within {waited:g} s"
        if nobody := registry.complaint(control, _queue(control, policy, target, recovery_id)):
            detail = f"{detail}: {nobody}"
        _leave_unclaimed(control, policy, recovery_id, detail)
    elif answer == "dead":
        _give_up(
            control,
            policy,
            recovery_id,
            Outcome(
                result=Result.FAILED,
                error="worker_lost",
                detail=f"its worker died {RESUMPTIONS + 1} times",
            ),
        )
    return ()


def _departed(control: ControlPlane, policy: Policy, target: TargetRef) -> records.Recovery | None:
    """The recovery that holds a target's lease, where the policy has one of the two no longer."""
    with reachable():
        recovery_id = control.redis.hget(control.key("lease", target), "id")
    try:
        record = records.load(control, recovery_id) if recovery_id else None
    except UnknownRecovery:
        return None
    return record if record and not policy.serves(target, record.strategy) else None


def _withdraw(control: ControlPlane, policy: Policy, record: records.Recovery) -> None:
    """Whoever has read a newer policy, or an older one, gets the time to take it."""
    waited = (control.now_ms() - record.received_ms) / 1000
    if waited < policy.everybodys_limits.queue_wait_seconds:
        return
    outcome = Outcome(
        result=Result.WITHDRAWN,
        error=Result.WITHDRAWN.value,
        detail=f"the policy no longer has {record.strategy} for {record.target}",
    )
    _give_up(control, policy, record.id, outcome)


def forget_departed(control: ControlPlane, policy: Policy) -> int:
    """End the degraded modes, levels and routes of targets that left the policy; how many did."""
    known = {str(ref) for ref in policy.target_refs()}
    states = control.key("target", "")
    with reachable():
        held = {
            *control.redis.hkeys(control.key("degraded")),
            *control.redis.hkeys(control.key("routes")),
        }
        held |= {name.removeprefix(states) for name in control.redis.scan_iter(f"{states}*", 1000)}
    return sum(
        control.run("forget", name, int(policy.audit.enabled)) for name in sorted(held - known)
    )


def _look(
    control: ControlPlane, policy: Policy, target: TargetRef, absent_seconds: float
) -> tuple[str, str, str]:
    answer, recovery_id, strategy = control.run(
        "expire",
        str(target),
        int(RESEND_SECONDS * 1000),
        int(policy.limits(target).queue_wait_seconds * 1000),
        RESUMPTIONS,
        int(absent_seconds * 1000),
    )
    return answer, recovery_id, strategy


def _queue(control: ControlPlane, policy: Policy, target: TargetRef, recovery_id: str) -> str:
    host = records.load(control, recovery_id).bound_to
    return f"{target.component}.{host}" if host else policy.queue(target)


def _leave_unclaimed(control: ControlPlane, policy: Policy, recovery_id: str, detail: str) -> None:
    outcome = Outcome(result=Result.UNCLAIMED, error="unclaimed", detail=detail)
    _give_up(control, policy, recovery_id, outcome)


def decided(control: ControlPlane) -> tuple[records.Recovery, ...]:
    """Waiting recoveries that a person has decided on, and that have not followed it yet."""
    return tuple(record for record in _pending(control) if record.decision is not None)


def expire_approvals(control: ControlPlane, policy: Policy) -> int:
    """Conclude what nobody approved in time; returns how many."""
    now_ms = control.now_ms()
    with reachable():
        stored = control.redis.hgetall(control.key("pending"))
    late = [name for name, text in stored.items() if json.loads(text)["expires"] <= now_ms]
    for recovery_id in late:
        record = records.load(control, recovery_id)
        outcome = Outcome(
            result=Result.EXPIRED, error="expired", detail="nobody approved it in time"
        )
        conclude(control, policy, record, outcome, NO_LEASE)
    return len(late)


def close_refused_bursts(control: ControlPlane, policy: Policy) -> int:
    """Write the summary of each burst of refused events that is over; returns how many."""
    closed: int = control.run(
        "refused",
        int(QUIET_SECONDS * 1000),
        int(LONGEST_BURST_SECONDS * 1000),
        int(policy.audit.enabled),
    )
    return closed


def _pending(control: ControlPlane) -> tuple[records.Recovery, ...]:
    with reachable():
        names = control.redis.hkeys(control.key("pending"))
    found = []
    for name in names:
        try:
            found.append(records.load(control, name))
        except UnknownRecovery:
            continue
    return tuple(found)


def _give_up(control: ControlPlane, policy: Policy, recovery_id: str, outcome: Outcome) -> None:
    record = records.load(control, recovery_id)
    is_undo = record.event.undo_of is not None
    known_before = Outcome(
        result=Result.NOT_UNDONE if is_undo else outcome.result,
        error=outcome.error,
        detail=outcome.detail,
        before=record.before,
        attempts=record.attempts,
        duration=_age(control, record),
    )
    conclude(control, policy, record, known_before, STALE_LEASE)


def _age(control: ControlPlane, record: records.Recovery) -> float:
    if record.started_ms is None:
        return 0.0
    return (control.now_ms() - record.started_ms) / 1000
