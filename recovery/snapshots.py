"""Snapshots of targets, as everybody sees them: asked for, due, listed, and told of.

Where they lie the host's disk is the truth; the control plane has a copy of what the disk says, and
is told anew at every round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from heapq import merge
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import structlog

from recovery import places
from recovery.admission import RECORD_TTL_SECONDS
from recovery.controlplane import reachable
from recovery.errors import ControlPlaneUnavailable, InvalidEvent, RemedyError, TargetBusy
from recovery.events import TargetRef
from recovery.messages import target_of

if TYPE_CHECKING:
    from recovery.components.chromadb.snapshots.manifest import Manifest
    from recovery.components.chromadb.target import ChromaTarget, Method
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane

COMPONENT = "chromadb"
"""The one component that has snapshots."""

QUIET_SECONDS = 6 * 3600
"""How long the same failure is not told of again."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One verified snapshot. ``bytes`` is what its archive takes on the disk of ``host``."""

    name: str
    target: str
    host: str
    taken_at: str
    records: int
    collections: int
    bytes: int
    method: str
    chroma: str
    stopped_seconds: float

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        return cls(**plain)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def take(
    control: ControlPlane,
    policy: Policy,
    ref: TargetRef,
    *,
    method: Method | None = None,
    by: str | None = None,
) -> Snapshot:
    """Take one now, on this host, and tell of it. Raises ``RemedyError`` and ``InvalidEvent``."""
    from recovery.components.chromadb.snapshots import taking

    target = _target(policy, ref)

    def note(text: str) -> None:
        log.info("snapshot", target=str(ref), what=text)

    try:
        made = taking.take(target, str(ref), method=method, note=note)
    except TargetBusy:
        # Nothing was begun: the schedule comes by again in a minute, and a person sees why.
        raise
    except RemedyError as error:
        _audit(control, policy, ref, by, result="failed", error=error.code, detail=error.message)
        _alert(control, policy, ref, error.message)
        raise
    figures = {"records": made.records, "bytes": made.archive_bytes, "name": made.name}
    _audit(control, policy, ref, by, result="taken", figures=figures)
    show(control, policy, ref)
    log.info("snapshot taken", target=str(ref), **figures)
    return _seen(made)


def take_if_due(control: ControlPlane, policy: Policy, ref: TargetRef) -> Snapshot | None:
    """What every round of the schedule does on the host that has the directory or its snapshots.

    Brings to an end what a killed process left, tells what there is, and takes one that is due.
    """
    from recovery.components.chromadb import leftovers
    from recovery.components.chromadb.snapshots import taking

    target = _target(policy, ref)
    leftovers.settle_alone(target)
    if target.snapshots.directory is None:
        return None
    show(control, policy, ref)
    if not taking.is_due(target, datetime.now(UTC)):
        return None
    return take(control, policy, ref)


def show(control: ControlPlane, policy: Policy, ref: TargetRef) -> None:
    """Tell the control plane what lies on this host's disk; one that is away learns it later."""
    from recovery.components.chromadb.snapshots import taking

    catalogue = taking.catalogue_of(_target(policy, ref))
    entries = [_seen(made).as_dict() for made in catalogue.snapshots()]
    try:
        with reachable():
            control.redis.hset(control.key("snapshots"), str(ref), json.dumps(entries))
    except ControlPlaneUnavailable as error:
        log.warning("the control plane learns later of snapshots", error=str(error))


def listed(control: ControlPlane) -> tuple[Snapshot, ...]:
    """All that are known, newest first; of one target the last one made, whatever its date.

    Raises ``ControlPlaneUnavailable``.
    """
    with reachable():
        stored = control.redis.hvals(control.key("snapshots"))
    of_targets = [[Snapshot.from_dict(plain) for plain in json.loads(text)] for text in stored]
    return tuple(merge(*of_targets, key=lambda one: (one.taken_at, one.name), reverse=True))


def refs(policy: Policy) -> tuple[TargetRef, ...]:
    """The targets of which snapshots could be taken."""
    return tuple(ref for ref in policy.target_refs() if ref.component == COMPONENT)


def ref_of(policy: Policy, component: str, name: str | None) -> TargetRef:
    """Raises ``InvalidEvent`` where there is no such target, or none that has snapshots."""
    if component != COMPONENT:
        raise InvalidEvent(
            f"{component} has no snapshots", {"field": "component", "allowed": [COMPONENT]}
        )
    return target_of(policy, component, name)


def _target(policy: Policy, ref: TargetRef) -> ChromaTarget:
    from recovery.components.chromadb.target import ChromaTarget

    found = policy.target(ref)
    if not isinstance(found, ChromaTarget):
        raise InvalidEvent(f"{ref} has no snapshots", {"field": "target", "value": str(ref)})
    return found


def _seen(made: Manifest) -> Snapshot:
    return Snapshot(
        name=made.name,
        target=made.target,
        host=places.host_name(),
        taken_at=made.taken_at.isoformat(timespec="seconds"),
        records=made.records,
        collections=len(made.collections),
        bytes=made.archive_bytes,
        method=made.method,
        chroma=made.chroma,
        stopped_seconds=made.stopped_seconds,
    )


def _audit(
    control: ControlPlane, policy: Policy, ref: TargetRef, by: str | None, **said: Any
) -> None:
    """It is no recovery: it counts in no limit and raises no level, and it is written down."""
    entry = {
        "id": str(uuid4()),
        "target": str(ref),
        "strategy": "snapshot",
        "by": by or "schedule",
        **said,
    }
    try:
        control.run(
            "note",
            entry["id"],
            json.dumps(entry, separators=(",", ":")),
            control.now_ms(),
            RECORD_TTL_SECONDS,
            int(policy.audit.enabled),
        )
    except ControlPlaneUnavailable as error:
        log.warning("a snapshot is missing in the audit trail", error=str(error), **entry)


def _alert(control: ControlPlane, policy: Policy, ref: TargetRef, why: str) -> None:
    fact = {
        "kind": "snapshot",
        "target": str(ref),
        "why": why,
        "severity": policy.severity(ref.component),
    }
    try:
        control.run("tell", json.dumps(fact), f"snapshot:{ref}", QUIET_SECONDS)
    except ControlPlaneUnavailable as error:
        log.warning("nobody is told that a snapshot failed", error=str(error))
