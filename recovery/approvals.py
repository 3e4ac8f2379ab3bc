"""Recoveries that wait for a person: listed, approved, denied. The first word counts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recovery import records
from recovery.admission import Mode
from recovery.conclusion import NO_LEASE, conclude
from recovery.controlplane import reachable
from recovery.dispatch import Dispatched, admit
from recovery.errors import InvalidEvent, NotPending, UnknownRecovery
from recovery.events import Outcome, Result
from recovery.text import readable

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane

APPROVED = "approved"
DENIED = "denied"


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingApproval:
    """One recovery that waits. ``approved_by`` is set where the gate has not let it start yet."""

    id: str
    target: str
    strategy: str
    since: datetime
    expires: datetime
    failure_type: str | None
    asked_by: str | None
    reason: str | None
    approved_by: str | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "target": self.target,
            "strategy": self.strategy,
            "since": self.since.isoformat(timespec="seconds"),
            "expires": self.expires.isoformat(timespec="seconds"),
            "failure_type": self.failure_type,
            "asked_by": self.asked_by,
            "reason": self.reason,
            "approved_by": self.approved_by,
        }


def pending(control: ControlPlane) -> tuple[PendingApproval, ...]:
    """What waits now, oldest first."""
    with reachable():
        stored = control.redis.hgetall(control.key("pending"))
    found = []
    for recovery_id, text in stored.items():
        try:
            record = records.load(control, recovery_id)
        except UnknownRecovery:
            continue
        held = json.loads(text)
        found.append(
            PendingApproval(
                id=recovery_id,
                target=held["target"],
                strategy=held["strategy"],
                since=datetime.fromtimestamp(held["since"] / 1000, UTC),
                expires=datetime.fromtimestamp(held["expires"] / 1000, UTC),
                failure_type=record.event.failure_type,
                asked_by=record.event.by,
                reason=record.event.reason,
                approved_by=record.decided_by if record.decision == APPROVED else None,
            )
        )
    return tuple(sorted(found, key=lambda approval: approval.since))


def find(control: ControlPlane, prefix: str) -> str:
    """The full id of the one waiting recovery whose id begins so; raises ``InvalidEvent``."""
    with reachable():
        names = control.redis.hkeys(control.key("pending"))
    matching = sorted(name for name in names if name.startswith(prefix))
    if len(matching) > 1:
        raise InvalidEvent(
            f"{prefix!r} begins the ids of {len(matching)} waiting recoveries",
            {"allowed": matching},
        )
    return matching[0] if matching else prefix


def approve(
    control: ControlPlane,
    policy: Policy,
    recovery_id: str,
    *,
    by: str,
    reason: str = "",
    force: bool = False,
) -> None:
    """Write down the approval; ``follow`` then starts the recovery, now or when the gate opens.

    Raises ``UnknownRecovery``, ``NotPending`` where it was decided already, ``InvalidEvent`` where
    the policy wants another person than the one who asked, or a reason for force is missing.
    """
    if force and not reason:
        raise InvalidEvent("force needs a reason", {"field": "reason"})
    if policy.approvals.different_person:
        asked_by = records.load(control, recovery_id).event.by
        if asked_by == by:
            raise InvalidEvent(
                f"{by} asked for this recovery; the policy wants another person to approve it",
                {"field": "by"},
            )
    _decide(control, recovery_id, APPROVED, by, reason, force=force)


def deny(
    control: ControlPlane, policy: Policy, recovery_id: str, *, by: str, reason: str = ""
) -> None:
    """End a waiting recovery without running it; raises like ``approve``."""
    _decide(control, recovery_id, DENIED, by, reason, force=False)
    follow(control, policy, recovery_id)


def follow(control: ControlPlane, policy: Policy, recovery_id: str) -> Dispatched | None:
    """Carry out what was decided; None where it ends unrun. May be repeated: it runs once.

    An approved recovery passes the gate like any other. Where the gate refuses it now, the
    approval stands and the reconcile task asks again until it expires.
    """
    record = records.load(control, recovery_id)
    if record.decision == DENIED:
        why = f": {record.decided_why}" if record.decided_why else ""
        outcome = Outcome(
            result=Result.DENIED, error="denied", detail=f"denied by {record.decided_by}{why}"
        )
        conclude(control, policy, record, outcome, NO_LEASE)
        return None
    if not policy.serves(record.target, record.strategy):
        outcome = Outcome(
            result=Result.WITHDRAWN,
            error=Result.WITHDRAWN.value,
            detail=f"the policy no longer has {record.strategy} for {record.target}",
        )
        conclude(control, policy, record, outcome, NO_LEASE)
        return None
    force = record.event.force or record.forced
    return admit(control, policy, record.event, record.strategy, Mode.RESUME, force=force)


def _decide(
    control: ControlPlane, recovery_id: str, decision: str, by: str, reason: str, *, force: bool
) -> None:
    who, why = readable(by), readable(reason)
    answer, detail = control.run("decide", recovery_id, decision, who, why, int(force))
    if answer == "unknown":
        raise UnknownRecovery(f"no recovery has the id {recovery_id!r}", {"id": recovery_id})
    if answer == "decided":
        raise NotPending(f"recovery {recovery_id} was already {detail}", {"id": recovery_id})
    if answer == "not_pending":
        raise NotPending(
            f"recovery {recovery_id} does not wait for approval: it is {detail}",
            {"id": recovery_id, "state": detail},
        )
