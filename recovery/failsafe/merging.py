"""Tell the control plane, once, what this host did while it was away."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import structlog

from recovery import audit, records
from recovery.admission import RECORD_TTL_SECONDS
from recovery.conclusion import ADOPTED, conclude
from recovery.errors import InvalidEvent
from recovery.events import Outcome, Result, State
from recovery.failsafe import foundation

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane
    from recovery.failsafe.ledger import Entry, Ledger

log = structlog.get_logger()


def merge(control: ControlPlane, policy: Policy, ledger: Ledger) -> int:
    """Bring every entry into attempts, audit and counters; returns how many were new.

    May be killed between any two steps and said again: the control plane takes each id once.
    Raises ``ControlPlaneUnavailable``.
    """
    merged = 0
    for entry in ledger.unmerged:
        if entry.target.component == foundation.COMPONENT:
            _note(control, policy, entry)
            ledger.mark_merged(entry.id)
            merged += 1
            continue
        try:
            policy.strategy(entry.target.component, entry.strategy)
            policy.target(entry.target)
        except InvalidEvent as error:
            # The policy changed meanwhile; the ledger keeps what happened to a target it dropped.
            log.warning("not merged", id=entry.id, why=error.message)
            continue
        _merge_one(control, policy, entry)
        ledger.mark_merged(entry.id)
        merged += 1
    return merged


def _merge_one(control: ControlPlane, policy: Policy, entry: Entry) -> None:
    answer = control.run(
        "adopt",
        entry.id,
        str(entry.target),
        entry.strategy,
        json.dumps(entry.event().as_dict(), separators=(",", ":")),
        entry.begun_ms,
        entry.ended_ms or entry.begun_ms,
        json.dumps(entry.before.as_dict(), separators=(",", ":")),
        entry.holder,
        RECORD_TTL_SECONDS,
    )
    if answer == "adopted":
        record = records.load(control, entry.id)
        conclude(control, policy, record, entry.outcome or _unended(entry), ADOPTED)


def _note(control: ControlPlane, policy: Policy, entry: Entry) -> None:
    """A restart of the control plane itself is in the audit; it is no recovery of a target."""
    record = records.Recovery(
        id=entry.id,
        event=entry.event(),
        strategy=entry.strategy,
        state=State.CONCLUDED,
        holder=entry.holder,
    )
    control.run(
        "note",
        entry.id,
        audit.compose(record, entry.outcome or _unended(entry)),
        entry.ended_ms or entry.begun_ms,
        RECORD_TTL_SECONDS,
        int(policy.audit.enabled),
    )


def _unended(entry: Entry) -> Outcome:
    return Outcome(
        result=Result.FAILED,
        error="worker_lost",
        detail="the host ended under it while the control plane was away",
        before=entry.before,
        attempts=1,
    )
