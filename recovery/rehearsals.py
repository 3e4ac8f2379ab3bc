"""Ends dry runs that nobody takes, or whose worker died: they hold no lease that runs out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recovery import records, registry
from recovery.conclusion import NO_LEASE, conclude
from recovery.controlplane import reachable
from recovery.errors import UnknownRecovery
from recovery.events import Outcome, Result

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane

ABSENT_SECONDS = registry.DEAD_SECONDS
"""By then a worker that was killed just before counts as dead, and one that starts has come."""


def end_rehearsals(control: ControlPlane, policy: Policy) -> int:
    """How many were concluded; raises ``ControlPlaneUnavailable``."""
    now_ms = control.now_ms()
    with reachable():
        names = control.redis.zrangebyscore(
            control.key("rehearsals"), "-inf", now_ms - int(ABSENT_SECONDS * 1000)
        )
    ended = 0
    for recovery_id in names:
        record = _load(control, recovery_id)
        outcome = _end(control, policy, record, now_ms) if record else None
        if record and outcome:
            conclude(control, policy, record, outcome, NO_LEASE)
            ended += 1
    return ended


def _load(control: ControlPlane, recovery_id: str) -> records.Recovery | None:
    try:
        return records.load(control, recovery_id)
    except UnknownRecovery:
        with reachable():
            control.redis.zrem(control.key("rehearsals"), recovery_id)
        return None


def _end(
    control: ControlPlane, policy: Policy, record: records.Recovery, now_ms: int
) -> Outcome | None:
    """None while it may still be taken, or still runs."""
    target, is_served = record.target, policy.serves(record.target, record.strategy)
    wait = (policy.limits(target) if is_served else policy.everybodys_limits).queue_wait_seconds
    if record.started_ms is not None:
        runs = (
            policy.strategy(target.component, record.strategy).timeout_seconds if is_served else 0
        )
        if now_ms - record.started_ms < (runs + wait) * 1000:
            return None
        return Outcome(result=Result.DRY_RUN, error="worker_lost", detail="its worker died")
    nobody = registry.complaint(control, _queue(policy, record)) if is_served else ""
    if nobody:
        return _unclaimed(f"not taken: {nobody}")
    if now_ms - record.received_ms >= wait * 1000:
        return _unclaimed(f"no worker took it from its queue within {wait:g} s")
    return None


def _queue(policy: Policy, record: records.Recovery) -> str:
    host, target = record.bound_to, record.target
    return f"{target.component}.{host}" if host else policy.queue(target)


def _unclaimed(detail: str) -> Outcome:
    return Outcome(result=Result.UNCLAIMED, error="unclaimed", detail=detail)
