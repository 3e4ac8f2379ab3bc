"""What an examination of a ChromaDB says: the failure it found, the figures it read, its time."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass, field
from typing import Any, Self

from recovery.events import Figure, ProbeReport
from recovery.text import readable

LONGEST_SUMMARY = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One failure, by the name under which the policy answers it, and a sentence for people.

    ``segment`` is the folder of the index that it was found in, where it is one index alone.
    """

    failure_type: str
    summary: str
    segment: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"failure_type": self.failure_type, "summary": self.summary[:LONGEST_SUMMARY]}


class Unreadable(sqlite3.DatabaseError):
    """A table of the database holds what Chroma never writes there; the text says which."""


@dataclass(slots=True, kw_only=True)
class Examined:
    """What one examination found. ``finding`` is None where all that was looked at is well."""

    finding: Finding | None = None
    figures: dict[str, Figure] = field(default_factory=dict)

    def add(self, of_one: Examined) -> None:
        """Take over what one collection showed: counts are summed, of times the longest holds."""
        self.finding = self.finding or of_one.finding
        for name, value in of_one.figures.items():
            self.figures[name] = _together(name, self.figures.get(name), value)

    def as_dict(self) -> dict[str, Any]:
        return {
            "finding": self.finding.as_dict() if self.finding else None,
            "figures": self.figures,
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        finding = plain["finding"]
        return cls(finding=Finding(**finding) if finding else None, figures=plain["figures"])

    def as_report(self, well: str) -> ProbeReport:
        """``well``: the sentence for a target that nothing is wrong with."""
        found = self.finding
        return ProbeReport(
            healthy=found is None,
            failure_type=found.failure_type if found else None,
            summary=readable(found.summary if found else well)[:LONGEST_SUMMARY],
            figures=self.figures,
        )


def _together(name: str, known: Figure, value: Figure) -> Figure:
    if not isinstance(value, int | float) or not isinstance(known, int | float):
        return value
    return max(known, value) if name.endswith("_ms") else known + value


class Budget:
    """The seconds that an examination may still take, by this process's monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._ends = time.monotonic() + seconds

    def left(self) -> float:
        return max(self._ends - time.monotonic(), 0.0)

    @property
    def is_over(self) -> bool:
        return self.left() <= 0


_KNOWN_TEXTS = (
    # SQLite's own numbers, as Chroma's messages carry them: 26 no database, 11 malformed, 14 gone.
    ("data_corruption", ("(code: 26)", "(code: 11)", "malformed", "file is not a database")),
    ("temporary_failure", ("(code: 5)", "(code: 6)", "database is locked", "timed out")),
    ("database_missing", ("(code: 14)", "no such table")),
    ("corrupted_metadata", ("Missing field", "Could not deserialize", "configuration")),
    (
        "index_corrupted",
        (
            "hnsw",
            "pickle",
            "Error finding id",
            "Error getting embedding",
            "Error querying knn",
            "Nothing found on disk",
            "dimensionality",
        ),
    ),
    ("collection_missing", ("NotFoundError", "does not exist")),
)


def from_message(text: str) -> Finding:
    """Which failure an error of Chroma's is. Order matters: what is wrong below comes first."""
    for failure_type, known in _KNOWN_TEXTS:
        if any(part in text for part in known):
            return Finding(failure_type=failure_type, summary=text)
    return Finding(failure_type="temporary_failure", summary=text)


_METADATA_TEXTS = ("no such column", "Could not decode")


def from_database(error: sqlite3.DatabaseError) -> Finding:
    """Which failure an error of SQLite's is."""
    text = str(error)
    known = from_message(text)
    is_metadata = isinstance(error, Unreadable) or any(part in text for part in _METADATA_TEXTS)
    if known.failure_type == "temporary_failure" and is_metadata:
        return Finding(failure_type="corrupted_metadata", summary=text)
    return known


def without_place(tenant: str, database: str) -> Finding:
    return Finding(
        failure_type="database_missing",
        summary=f"there is no database {database} of a tenant {tenant}",
    )


def from_names(expected: list[str], names: list[str], *, is_empty: bool) -> Finding | None:
    """What it means that an expected collection is not listed."""
    missing = sorted(set(expected) - set(names))
    if not missing:
        return None
    if is_empty:
        return Finding(
            failure_type="database_missing",
            summary=f"no collection at all; expected are {', '.join(missing)}",
        )
    return Finding(failure_type="collection_missing", summary=f"{', '.join(missing)}: not there")
