"""What is kept on all hosts, as the control plane knows it; and the end of its retention.

The hash is a copy of what the hosts' disks say. A control plane that lost it is told again by the
next round of ``sweep``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from recovery.admission import RECORD_TTL_SECONDS
from recovery.controlplane import reachable
from recovery.errors import (
    ControlPlaneUnavailable,
    InvalidEvent,
    NothingKept,
    NotKept,
    RemedyError,
    UnknownRecovery,
)
from recovery.events import TargetRef
from recovery.finding import find_discard, find_undo
from recovery.keeping import KeptEntry, KeptFolder, KeptState, Shelf

if TYPE_CHECKING:
    from recovery.config import Environment, Policy
    from recovery.controlplane import ControlPlane

_NAMED = 5
"""How many ids an error names; the command lists all of them."""

log = structlog.get_logger()


def shelf(control: ControlPlane, policy: Policy, environment: Environment) -> Shelf:
    """Where this host keeps, by the policy, telling the control plane."""
    section = policy.undo
    return Shelf(
        directory=Path(section.directory) if section.directory else environment.state_dir / "kept",
        host=environment.host,
        retention_seconds=section.retention,
        budget_bytes=section.disk_budget_mb * 1024 * 1024,
        tell=lambda entry: _tell(control, entry),
    )


def held(control: ControlPlane) -> tuple[KeptEntry, ...]:
    """All that is known, oldest first; raises ``ControlPlaneUnavailable``."""
    with reachable():
        stored = control.redis.hvals(control.key("kept"))
    entries = [KeptEntry.from_dict(json.loads(text)) for text in stored]
    return tuple(sorted(entries, key=lambda entry: (entry.kept_ms, entry.recovery_id)))


def find(control: ControlPlane, recovery_id: str) -> KeptEntry:
    """What can be undone now. A unique beginning of the id is enough.

    Raises ``UnknownRecovery`` where nothing is kept under that id, ``NotKept`` where it was undone
    or discarded, or is nothing that could be brought back, ``InvalidEvent`` where several begin so.
    """
    entries = held(control)
    matching = [entry for entry in entries if entry.recovery_id == recovery_id] or [
        entry for entry in entries if entry.recovery_id.startswith(recovery_id)
    ]
    ready = [
        entry.recovery_id
        for entry in entries
        if entry.state is KeptState.AVAILABLE and can_be_undone(entry)
    ]
    if not matching:
        raise UnknownRecovery(
            f"nothing is kept of a recovery {recovery_id!r}; {_named(ready)}",
            {"id": recovery_id, "kept": ready},
        )
    if len(matching) > 1:
        names = [entry.recovery_id for entry in matching]
        raise InvalidEvent(
            f"{recovery_id!r} begins the ids of {len(matching)} recoveries", {"allowed": names}
        )
    (found,) = matching
    if not can_be_undone(found):
        raise NotKept(
            f"{found.strategy} cannot be undone; what it kept is to be read ({found.summary}), in"
            f" kept/{found.recovery_id} in the state directory of {found.host}; {_named(ready)}",
            {"id": found.recovery_id, "kept": ready},
        )
    if found.state is not KeptState.AVAILABLE:
        by = f" by {found.undone_by}" if found.undone_by else ""
        raise NotKept(
            f"recovery {found.recovery_id} was {found.state.value} already{by}; {_named(ready)}",
            {"id": found.recovery_id, "kept": ready},
        )
    return found


def can_be_undone(entry: KeptEntry) -> bool:
    """Whether its strategy brings anything back; some keep a list of what is gone."""
    try:
        return find_undo(TargetRef.parse(entry.target).component, entry.strategy) is not None
    except InvalidEvent:
        # Of a strategy that this release does not have.
        return False


def sweep(control: ControlPlane, policy: Policy, environment: Environment) -> int:
    """Tell the control plane what this host keeps, and discard what has expired.

    Returns how many folders were discarded. Raises ``ControlPlaneUnavailable``: without its clock
    nothing is discarded. May be killed anywhere and repeated.
    """
    here = shelf(control, policy, environment)
    now_ms = control.now_ms()
    here.sweep_trash()
    discarded = 0
    for recovery_id in here.ids():
        try:
            kept = here.open(recovery_id, patience=0)
        except (NotKept, NothingKept) as error:
            log.info("kept folder passed over", folder=recovery_id, why=error.message)
            continue
        try:
            discarded += _settle(policy, here, kept, now_ms)
        finally:
            kept.close()
    _forget(control, here, now_ms)
    return discarded


def _settle(policy: Policy, here: Shelf, kept: KeptFolder, now_ms: int) -> bool:
    if kept.state is not KeptState.DISCARDED and kept.expires_ms > now_ms:
        if kept.summary:
            here.tell(kept.entry())
        return False
    try:
        _give_up(policy, kept)
        here.discard(kept)
    except (InvalidEvent, RemedyError, OSError) as error:
        log.warning("not discarded; tried again later", folder=str(kept.folder), why=str(error))
        return False
    return True


def _give_up(policy: Policy, kept: KeptFolder) -> None:
    """Have the strategy give up what it keeps outside the folder."""
    if not kept.target:
        return
    target = TargetRef.parse(kept.target)
    discard = find_discard(target.component, kept.strategy)
    if discard is not None:
        parameters = policy.strategy(target.component, kept.strategy).parameters
        discard(policy.target(target), parameters, kept)


def _forget(control: ControlPlane, here: Shelf, now_ms: int) -> None:
    """Mark what is expired and gone from this disk; drop what expired long ago, of any host."""
    on_disk = set(here.ids())
    for entry in held(control):
        if entry.expires_ms > now_ms or entry.recovery_id in on_disk:
            continue
        if entry.expires_ms + RECORD_TTL_SECONDS * 1000 < now_ms:
            with reachable():
                control.redis.hdel(control.key("kept"), entry.recovery_id)
        elif entry.host == here.host and entry.state is not KeptState.DISCARDED:
            here.tell(replace(entry, state=KeptState.DISCARDED, bytes=0))


def _named(ready: list[str]) -> str:
    if not ready:
        return "nothing can be undone now"
    more = f" and {len(ready) - _NAMED} more" if len(ready) > _NAMED else ""
    return f"what can be undone: {', '.join(ready[-_NAMED:])}{more}"


def _tell(control: ControlPlane, entry: KeptEntry) -> None:
    try:
        with reachable():
            control.redis.hset(
                control.key("kept"),
                entry.recovery_id,
                json.dumps(asdict(entry), separators=(",", ":")),
            )
    except ControlPlaneUnavailable as error:
        log.warning("the control plane learns later what is kept", error=str(error))
