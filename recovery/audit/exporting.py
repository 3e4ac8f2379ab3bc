"""Writing entries for other programs, one at a time: as JSON lines or as a CSV table."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any, TextIO

from recovery.audit.entries import AuditEntry

COLUMNS = (
    "audit_id",
    "at",
    "n",
    "id",
    "target",
    "strategy",
    "failure",
    "source",
    "result",
    "error",
    "level",
    "attempts",
    "seconds",
    "by",
    "reason",
    "decided",
    "correlation",
    "holder",
    "forced",
    "detail",
    "count",
    "first_ms",
    "last_ms",
    "before",
    "after",
    "more",
)
"""Of the table; ``before`` and ``after`` are JSON, and so is ``more``: whatever has no column."""


class Format(StrEnum):
    JSONL = "jsonl"
    CSV = "csv"


def export(entries: Iterable[AuditEntry], sink: TextIO, form: Format) -> int:
    """Write every entry and return how many; raises what reading them raises, and ``OSError``."""
    table = csv.writer(sink)
    if form is Format.CSV:
        table.writerow(COLUMNS)
    count = 0
    for entry in entries:
        if form is Format.CSV:
            table.writerow(_cells(entry.as_dict()))
        else:
            sink.write(f"{_compact(entry.as_dict())}\n")
        count += 1
    return count


def _cells(fields: dict[str, Any]) -> Iterator[Any]:
    more = {name: fields.pop(name) for name in list(fields) if name not in COLUMNS}
    if more:
        fields["more"] = more
    for column in COLUMNS:
        value = fields.get(column)
        yield _compact(value) if isinstance(value, dict | list | bool) else value


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
