"""The audit trail: one short entry for every recovery that ended and every burst of refusals.

Entries live in a stream of the control Redis; its ids are the time of the conclusion.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from recovery.controlplane import reachable
from recovery.events import Figure, Figures, Outcome, ProbeReport

if TYPE_CHECKING:
    from recovery.controlplane import ControlPlane
    from recovery.records import Recovery

ENTRY_BYTES = 500
"""What a plain entry may weigh as JSON; figures that do not fit stay in the evidence."""

_RESERVED_FOR_LEVEL = len(',"level":3')
_PAGE = 500
_LONGEST_TEXT = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One line of the trail; ``fields`` as they were written."""

    id: str
    at: datetime
    fields: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        return {
            "audit_id": self.id,
            "at": self.at.isoformat(timespec="milliseconds"),
            **self.fields,
        }


def compose(recovery: Recovery, outcome: Outcome) -> str:
    """The entry of a concluded recovery as compact JSON, figures trimmed to ``ENTRY_BYTES``."""
    event = recovery.event
    entry: dict[str, Any] = {
        "id": recovery.id,
        "target": str(event.target),
        "strategy": recovery.strategy,
        "failure": event.failure_type,
        "undo_of": event.undo_of,
        "source": event.source.value,
        "result": outcome.result.value,
        "error": outcome.error,
        "attempts": outcome.attempts or None,
        "seconds": round(outcome.duration, 3),
        "by": _cut(event.by),
        "reason": _cut(event.reason),
        "decided": _cut(_decided(recovery)),
        "correlation": event.correlation_id if event.correlation_id != recovery.id else None,
        "holder": recovery.holder,
        "forced": event.force or recovery.forced or None,
        "detail": _cut(outcome.detail),
    }
    entry = {name: value for name, value in entry.items() if value is not None and value != ""}
    _add_figures(entry, outcome.before, outcome.after)
    return _compact(entry)


def history(
    control: ControlPlane,
    *,
    since: datetime,
    until: datetime | None = None,
    component: str | None = None,
    target: str | None = None,
) -> Iterator[AuditEntry]:
    """Entries between two times, oldest first; raises ``ControlPlaneUnavailable``."""
    first = str(int(since.timestamp() * 1000))
    last = "+" if until is None else str(int(until.timestamp() * 1000))
    while True:
        with reachable():
            page = control.redis.xrange(control.key("audit"), first, last, count=_PAGE)
        for entry_id, stored in page:
            entry = read_entry(entry_id, stored)
            if _concerns(entry, component, target):
                yield entry
        if len(page) < _PAGE:
            return
        first = f"({page[-1][0]}"


def latest(control: ControlPlane, count: int) -> tuple[AuditEntry, ...]:
    """The newest entries, newest first; raises ``ControlPlaneUnavailable``."""
    with reachable():
        page = control.redis.xrevrange(control.key("audit"), count=count)
    return tuple(read_entry(entry_id, stored) for entry_id, stored in page)


def last_hours(hours: float) -> datetime:
    return datetime.now(UTC) - timedelta(hours=hours)


def trim(control: ControlPlane, retention_days: float) -> int:
    """Drop entries older than that; returns how many."""
    oldest = int((datetime.now(UTC) - timedelta(days=retention_days)).timestamp() * 1000)
    with reachable():
        return int(control.redis.xtrim(control.key("audit"), minid=oldest, approximate=False))


def read_entry(entry_id: str, stored: Mapping[str, str]) -> AuditEntry:
    moment = datetime.fromtimestamp(int(entry_id.partition("-")[0]) / 1000, UTC)
    return AuditEntry(id=entry_id, at=moment, fields=json.loads(stored["entry"]))


def _concerns(entry: AuditEntry, component: str | None, target: str | None) -> bool:
    name = str(entry.fields.get("target", ""))
    if target is not None:
        return name == target
    return component is None or name.partition("/")[0] == component


def _decided(recovery: Recovery) -> str | None:
    if recovery.decision is None:
        return None
    why = f": {recovery.decided_why}" if recovery.decided_why else ""
    return f"{recovery.decision} by {recovery.decided_by}{why}"


def _add_figures(
    entry: dict[str, Any], before: ProbeReport | None, after: ProbeReport | None
) -> None:
    """Add each probe's finding, then the figures that changed, for as long as there is room."""
    for name, report in (("before", before), ("after", after)):
        if report is not None:
            entry[name] = {"found": report.failure_type or "healthy"}
    for figure in _telling(before, after):
        added = [
            (entry[name], report.figures[figure])
            for name, report in (("before", before), ("after", after))
            if report is not None and figure in report.figures
        ]
        for found, value in added:
            found[figure] = _short(value)
        if len(_compact(entry)) + _RESERVED_FOR_LEVEL > ENTRY_BYTES:
            for found, _ in added:
                del found[figure]
            return


def _telling(before: ProbeReport | None, after: ProbeReport | None) -> list[str]:
    """Names of figures, those that differ between the probes first."""
    first: Figures = before.figures if before else {}
    second: Figures = after.figures if after else {}
    names = list(dict.fromkeys([*first, *second]))
    return sorted(names, key=lambda name: first.get(name) == second.get(name))


def _short(value: Figure) -> Figure:
    return round(value, 3) if isinstance(value, float) else value


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= _LONGEST_TEXT:
        return text
    return text[: _LONGEST_TEXT - 1] + "…"


def _compact(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, separators=(",", ":"), ensure_ascii=False)
