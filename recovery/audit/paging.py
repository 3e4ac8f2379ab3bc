"""The trail from its newest entry backwards, a page at a time, for whoever shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from recovery.audit import chain, sealed
from recovery.audit.entries import AuditEntry, order, read_entry
from recovery.audit.reading import without_doubles
from recovery.controlplane import reachable
from recovery.errors import AuditDamaged, InvalidEvent, SetupError

if TYPE_CHECKING:
    from recovery.controlplane import ControlPlane

MOST_LOOKED_AT = 20_000
"""Entries that one page may cost; a page that found too few says where to go on."""

_READ_AT_ONCE = 500
_STREAM, _FILE = "s", "f"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which entries; None where all will do."""

    component: str | None = None
    target: str | None = None
    result: str | None = None
    since: datetime | None = None

    def has(self, entry: AuditEntry) -> bool:
        target = str(entry.fields.get("target", ""))
        return (
            self.component in (None, target.partition("/")[0])
            and self.target in (None, target)
            and self.result in (None, entry.fields.get("result"))
            and (self.since is None or entry.at >= self.since)
        )


@dataclass(frozen=True, slots=True)
class AuditPage:
    """``cursor`` is where the next page begins; None where there is no more."""

    entries: tuple[AuditEntry, ...]
    cursor: str | None


def page(
    control: ControlPlane,
    wanted: Wanted,
    *,
    count: int,
    cursor: str | None = None,
    folder: Path | None = None,
) -> AuditPage:
    """Newest first. Files that cannot be read are passed over: this is for showing.

    Raises ``ControlPlaneUnavailable``, and ``InvalidEvent`` where the cursor is not one of ours.
    """
    found: list[AuditEntry] = []
    for looked_at, (place, entry) in enumerate(_backwards(control, cursor, folder), 1):
        if wanted.since is not None and place.startswith(_FILE) and entry.at < wanted.since:
            return AuditPage(tuple(found), None)
        if wanted.has(entry):
            found.append(entry)
        if len(found) == count or looked_at == MOST_LOOKED_AT:
            return AuditPage(tuple(found), place)
    return AuditPage(tuple(found), None)


def _backwards(
    control: ControlPlane, cursor: str | None, folder: Path | None
) -> Iterator[tuple[str, AuditEntry]]:
    kind, day, entry_id = _parsed(cursor) if cursor else (_STREAM, "", "")
    files = _files(folder)
    if kind == _STREAM:
        for entry in _stream(control, entry_id, files):
            yield f"{_STREAM}:{entry.id}", entry
    for path in reversed(files):
        if not day or chain.day_of(path) <= day:
            yield from _file(path, entry_id if chain.day_of(path) == day else "")


def _parsed(cursor: str) -> tuple[str, str, str]:
    """Where to go on: stream or files, the file's day, and the entry before which."""
    kind, _, place = cursor.partition(":")
    day, _, entry_id = place.rpartition("/")
    try:
        order(entry_id)
    except ValueError:
        kind = ""
    if kind not in (_STREAM, _FILE) or (kind == _FILE) != bool(day):
        raise InvalidEvent("this cursor is none of ours", {"field": "cursor"})
    return kind, day, entry_id


def _stream(control: ControlPlane, before: str, files: list[Path]) -> Iterator[AuditEntry]:
    """What stands in a file as well is left to the file."""
    last = f"({before}" if before else "+"
    while True:
        with reachable():
            read = control.redis.xrevrange(
                control.key("audit"), max=last, min="-", count=_READ_AT_ONCE
            )
        for entry_id, stored in without_doubles(files, read) if files else read:
            yield read_entry(entry_id, stored)
        if len(read) < _READ_AT_ONCE:
            return
        last = f"({read[-1][0]}"


def _file(path: Path, before: str) -> Iterator[tuple[str, AuditEntry]]:
    limit = order(before) if before else None
    try:
        entries = [entry for _, entry in sealed.read(path)]
    except (AuditDamaged, OSError) as error:
        log.warning("audit file passed over", file=path.name, error=str(error))
        return
    for entry in sorted(entries, key=lambda one: order(one.id), reverse=True):
        if limit is None or order(entry.id) < limit:
            yield f"{_FILE}:{chain.day_of(path)}/{entry.id}", entry


def _files(folder: Path | None) -> list[Path]:
    try:
        return list(chain.paths(folder)) if folder else []
    except SetupError as error:
        log.warning("audit files not read", error=str(error))
        return []
