"""One entry of the audit trail: composed when a recovery ends, and read from wherever it lies.

It is written as JSON by the scripts, which add the level, its number and, where the id cannot tell
it, the time. In a sealed file it is one line, the same text behind its id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recovery.events import Figure, Figures, Outcome, ProbeReport

if TYPE_CHECKING:
    from recovery.records import Recovery

ENTRY_BYTES = 500
"""What a plain entry may weigh as JSON; figures that do not fit stay in the evidence."""

_RESERVED_FOR_SCRIPTS = len(',"level":3,"n":1234567890,"at_ms":1735689600000')
_LONGEST_TEXT = 160
_LATEST_MS = 253_402_300_799_000  # the end of the year 9999, which is as far as datetime goes
_ID = "audit_id"
_FOREIGN = "stored"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One line of the trail; ``fields`` as they were written."""

    id: str
    at: datetime
    fields: Mapping[str, Any]

    @property
    def n(self) -> int | None:
        """Its place among all that were ever written; None where no script of ours wrote it."""
        said = self.fields.get("n")
        return said if isinstance(said, int) else None

    @property
    def day(self) -> str:
        """The UTC day, as 2025-01-31."""
        return self.at.date().isoformat()

    def as_dict(self) -> dict[str, Any]:
        return {
            _ID: self.id,
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
    if outcome.proof is not None:
        entry["other_road"] = _cut(outcome.proof.summary or outcome.proof.failure_type)
    _add_figures(entry, outcome.before, outcome.after)
    return _compact(entry)


def read_entry(entry_id: str, stored: Mapping[str, str]) -> AuditEntry:
    """An entry of the stream. What is none, because somebody else wrote there, is kept whole."""
    own = _own_fields(stored)
    return _entry(entry_id, {_FOREIGN: dict(stored)} if own is None else own)


def as_line(entry_id: str, stored: Mapping[str, str]) -> str:
    """An entry of the stream as a sealed file holds it, without the line's end."""
    if _own_fields(stored) is None:
        return _compact({_ID: entry_id, _FOREIGN: dict(stored)})
    return f'{{"{_ID}":"{entry_id}",{stored["entry"][1:]}'


def read_line(line: str) -> AuditEntry:
    """An entry of a sealed file; raises ``ValueError`` where the line is none."""
    try:
        fields = json.loads(line)
    except RecursionError as error:
        raise ValueError("the line is no audit entry") from error
    entry_id = fields.pop(_ID, None) if isinstance(fields, dict) else None
    if entry_id is None:
        raise ValueError("the line is no audit entry")
    return _entry(str(entry_id), fields)


def order(entry_id: str) -> tuple[int, int]:
    """A stream's id as what it is compared by; raises ``ValueError``."""
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence)


def _entry(entry_id: str, fields: Mapping[str, Any]) -> AuditEntry:
    said = fields.get("at_ms")
    at_ms = said if isinstance(said, int) and said >= 0 else order(entry_id)[0]
    at = datetime.fromtimestamp(min(at_ms, _LATEST_MS) / 1000, UTC)
    return AuditEntry(id=entry_id, at=at, fields=fields)


def _own_fields(stored: Mapping[str, str]) -> dict[str, Any] | None:
    """What our scripts wrote: one line, a JSON object that is not empty."""
    text = stored.get("entry", "")
    if stored.keys() != {"entry"} or not text.startswith('{"') or "\n" in text:
        return None
    try:
        fields: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return None if _ID in fields else fields


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
        if len(_compact(entry).encode()) + _RESERVED_FOR_SCRIPTS > ENTRY_BYTES:
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
