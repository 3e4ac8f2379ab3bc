"""Reading the trail, wherever its entries lie: sealed files, the stream, or on the way between."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from recovery.audit import chain, sealed
from recovery.audit.entries import AuditEntry, as_line, order, read_entry
from recovery.controlplane import reachable
from recovery.errors import AuditDamaged, SetupError

if TYPE_CHECKING:
    from recovery.controlplane import ControlPlane

Page = list[tuple[str, Mapping[str, str]]]

_PAGE = 500

log = structlog.get_logger()


def history(
    control: ControlPlane,
    *,
    since: datetime,
    until: datetime | None = None,
    component: str | None = None,
    target: str | None = None,
    folder: Path | None = None,
) -> Iterator[AuditEntry]:
    """Entries from ``since`` on and before ``until``, oldest first, each once, a page at a time.

    ``folder`` holds the sealed files; without it only the stream is read. What arrived late stands
    in its place once its day is sealed, until then where it arrived. Raises
    ``ControlPlaneUnavailable``, ``SetupError`` where the files may not be read, and behind the last
    entry ``AuditDamaged`` where a file was not what it should be.
    """
    damage: list[AuditDamaged] = []
    known = chain.paths(folder) if folder else []
    chosen = [path for path in known if _may_concern(path, since, until)]
    tail = _unsealed(control, folder, known, since, damage)
    for entry in heapq.merge(_sealed(chosen, damage), tail, key=_place):
        is_within = since <= entry.at and (until is None or entry.at < until)
        if is_within and _concerns(entry, component, target):
            yield entry
    if damage:
        raise damage[0]


def latest(control: ControlPlane, count: int, folder: Path | None = None) -> tuple[AuditEntry, ...]:
    """The newest entries, newest first; raises ``ControlPlaneUnavailable``.

    Files that cannot be read are passed over: this is for showing, not for proving.
    """
    known = []
    try:
        known = chain.paths(folder) if folder else []
    except SetupError as error:
        log.warning("audit files not read", error=str(error))
    with reachable():
        page = control.redis.xrevrange(control.key("audit"), count=count)
    found = {entry_id: read_entry(entry_id, stored) for entry_id, stored in page}
    while known and len(found) < count:
        for entry in _sealed([known.pop()], []):
            found.setdefault(entry.id, entry)
    return tuple(sorted(found.values(), key=_place, reverse=True)[:count])


def last_hours(hours: float) -> datetime:
    return datetime.now(UTC) - timedelta(hours=hours)


def read_page(control: ControlPlane, first: str) -> tuple[Page, str | None]:
    """Entries of the stream from an id on, and from where to go on, if there is more."""
    with reachable():
        page: Page = control.redis.xrange(control.key("audit"), first, "+", count=_PAGE)
    return page, f"({page[-1][0]}" if len(page) == _PAGE else None


def without_doubles(files: Iterable[Path], page: Page) -> Page:
    """The page without what stands in one of these files as well.

    That is what is being deleted, or what a killed run could not delete any more.
    """
    by_day: dict[str, dict[str, str]] = {}
    for entry_id, stored in page:
        day = read_entry(entry_id, stored).day
        by_day.setdefault(day, {})[entry_id] = as_line(entry_id, stored)
    doubles: set[str] = set()
    for day, lines in by_day.items():
        doubles |= chain.contained(files, day, lines)
    return [(entry_id, stored) for entry_id, stored in page if entry_id not in doubles]


def _sealed(paths: list[Path], damage: list[AuditDamaged]) -> Iterator[AuditEntry]:
    """The entries of files, day by day; the files of one day are merged."""
    for _, files in groupby(paths, key=chain.day_of):
        yield from heapq.merge(*(_entries(path, damage) for path in files), key=_place)


def _entries(path: Path, damage: list[AuditDamaged]) -> Iterator[AuditEntry]:
    try:
        for _, entry in sealed.read(path):
            yield entry
    except AuditDamaged as found:
        log.warning("damaged audit file", file=path.name, error=str(found))
        damage.append(found)
    except FileNotFoundError:
        log.info("audit file removed meanwhile", file=path.name)
    except OSError as error:
        raise SetupError(f"the audit files cannot be read: {error}") from error


def _unsealed(
    control: ControlPlane,
    folder: Path | None,
    known: Sequence[Path],
    since: datetime,
    damage: list[AuditDamaged],
) -> Iterator[AuditEntry]:
    """What is not in the files known: the stream, and files that are sealed while it is read.

    A file is in its place before its entries leave the stream. So where no file is new after a page
    was read, nothing had left the stream unseen before.
    """
    read = set(known)
    first: str | None = str(max(int(since.timestamp() * 1000), 0))
    seen = (0, 0)
    while first is not None:
        page, following = read_page(control, first)
        fresh = [path for path in chain.paths(folder) if path not in read] if folder else []
        if fresh:
            read.update(fresh)
            for entry in _sealed(fresh, damage):
                if order(entry.id) > seen:
                    yield entry
            continue
        for entry_id, stored in without_doubles(read, page):
            seen = order(entry_id)
            yield read_entry(entry_id, stored)
        first = following


def _may_concern(path: Path, since: datetime, until: datetime | None) -> bool:
    day = chain.day_of(path)
    first, last = _utc_day(since), _utc_day(until) if until else "9999-12-31"
    return first <= day <= last


def _utc_day(moment: datetime) -> str:
    return moment.astimezone(UTC).date().isoformat()


def _place(entry: AuditEntry) -> tuple[datetime, tuple[int, int]]:
    return entry.at, order(entry.id)


def _concerns(entry: AuditEntry, component: str | None, target: str | None) -> bool:
    name = str(entry.fields.get("target", ""))
    if target is not None:
        return name == target
    return component is None or name.partition("/")[0] == component
