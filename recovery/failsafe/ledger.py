"""What a host did while the control plane was away: a file of lines, each on disk before the deed.

``begun`` is written before a remedy starts and ``ended`` after; a begun one that never ended counts
as failed, so that a host that dies under a remedy does not start it again at once. ``merged`` marks
what the control plane knows by now.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recovery.events import FailureEvent, Outcome, PastOutcome, ProbeReport, Result, TargetRef

HOUR_MS = 3_600_000
ALONE = "failsafe"
"""Who asked for a recovery that a host ran by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One remedy that ran without the control plane. Times are this host's, epoch milliseconds."""

    id: str
    target: TargetRef
    strategy: str
    failure_type: str
    begun_ms: int
    before: ProbeReport
    holder: str
    outcome: Outcome | None = None
    ended_ms: int | None = None
    merged: bool = False

    @property
    def result(self) -> Result:
        return self.outcome.result if self.outcome else Result.FAILED

    def event(self) -> FailureEvent:
        return FailureEvent(
            id=self.id, target=self.target, failure_type=self.failure_type, by=ALONE
        )


class Ledger:
    """The file of one host. One process writes it; see ``recovery.failsafe.guard``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, Entry] = {}
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._read()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Oldest first."""
        return tuple(self._entries.values())

    @property
    def unmerged(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if not entry.merged)

    def begin(self, entry: Entry) -> None:
        """Raises ``OSError`` where it cannot be written: then nothing may be done either."""
        self._append(
            {
                "kind": "begun",
                "id": entry.id,
                "target": str(entry.target),
                "strategy": entry.strategy,
                "failure_type": entry.failure_type,
                "at_ms": entry.begun_ms,
                "before": entry.before.as_dict(),
                "holder": entry.holder,
            }
        )

    def end(self, entry_id: str, outcome: Outcome) -> None:
        at_ms = int(time.time() * 1000)
        self._append(
            {"kind": "ended", "id": entry_id, "at_ms": at_ms, "outcome": outcome.as_dict()}
        )

    def mark_merged(self, entry_id: str) -> None:
        self._append({"kind": "merged", "id": entry_id})

    def past(self, target: TargetRef, now_ms: int) -> tuple[PastOutcome, ...]:
        """A target's outcomes of the last hour, newest first.

        A clock that jumped back leaves entries in the future: they count as of now.
        """
        found = [
            PastOutcome(
                strategy=entry.strategy,
                failure_type=entry.failure_type,
                result=entry.result,
                at_ms=min(entry.ended_ms or entry.begun_ms, now_ms),
            )
            for entry in self.entries
            if entry.target == target and entry.begun_ms > now_ms - HOUR_MS
        ]
        return tuple(reversed(found))

    def forget(self, now_ms: int) -> None:
        """Write the file anew without what is merged and older than an hour."""
        kept = {
            entry.id
            for entry in self.entries
            if not entry.merged or entry.begun_ms > now_ms - HOUR_MS
        }
        if len(kept) == len(self._entries):
            return
        draft = self.path.with_suffix(".draft")
        with draft.open("w") as sink:
            for line in self._lines():
                if line["id"] in kept:
                    sink.write(_as_line(line))
            sink.flush()
            os.fsync(sink.fileno())
        draft.replace(self.path)
        self._entries = {name: self._entries[name] for name in self._entries if name in kept}

    def _append(self, line: dict[str, Any]) -> None:
        with self.path.open("a") as sink:
            sink.write(_as_line(line))
            sink.flush()
            os.fsync(sink.fileno())
        self._take(line)

    def _read(self) -> None:
        self._cut_torn_tail()
        for line in self._lines():
            self._take(line)

    def _cut_torn_tail(self) -> None:
        """A kill may have left half a line; what was not written whole was never said."""
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)

    def _lines(self) -> Iterator[dict[str, Any]]:
        if self.path.exists():
            for text in self.path.read_text().splitlines():
                yield json.loads(text)

    def _take(self, line: dict[str, Any]) -> None:
        known = self._entries.get(line["id"])
        if line["kind"] == "begun":
            self._entries[line["id"]] = Entry(
                id=line["id"],
                target=TargetRef.parse(line["target"]),
                strategy=line["strategy"],
                failure_type=line["failure_type"],
                begun_ms=line["at_ms"],
                before=ProbeReport.from_dict(line["before"]),
                holder=line["holder"],
            )
        elif known is not None:
            self._entries[known.id] = _advanced(known, line)


def _advanced(entry: Entry, line: dict[str, Any]) -> Entry:
    from dataclasses import replace

    if line["kind"] == "merged":
        return replace(entry, merged=True)
    return replace(entry, outcome=Outcome.from_dict(line["outcome"]), ended_ms=line["at_ms"])


def _as_line(line: dict[str, Any]) -> str:
    return json.dumps(line, separators=(",", ":")) + "\n"
