"""What was copied of a collection so far, in a file: so that what is written meanwhile shows."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Records = dict[str, list[Any]]
AT_ONCE = 1_000


class Ledger:
    """One digest a record, with the round in which it was last seen."""

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(file, isolation_level=None)
        # It dies with its process, and so does what it is for.
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute(
            "CREATE TABLE seen (id TEXT PRIMARY KEY, digest BLOB, round INTEGER) WITHOUT ROWID"
        )
        self._round = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def begin(self) -> None:
        self._round += 1

    def changed(self, page: Records) -> list[int]:
        """The rows of a page that are not as they were, noted as they are now."""
        digests = [_digest(row) for row in zip(*page.values(), strict=True)]
        rows = []
        self._connection.execute("BEGIN")
        for number, (name, digest) in enumerate(zip(page["ids"], digests, strict=True)):
            known = self._connection.execute(
                "SELECT digest FROM seen WHERE id = ?", (name,)
            ).fetchone()
            if known is None or known[0] != digest:
                rows.append(number)
            self._connection.execute(
                "INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", (name, digest, self._round)
            )
        self._connection.execute("COMMIT")
        return rows

    def gone(self) -> Iterator[list[str]]:
        """What was not seen in this round, in parts, forgotten as they are given."""
        while True:
            rows = self._connection.execute(
                "SELECT id FROM seen WHERE round < ? LIMIT ?", (self._round, AT_ONCE)
            ).fetchall()
            if not rows:
                return
            self._connection.executemany("DELETE FROM seen WHERE id = ?", rows)
            yield [name for (name,) in rows]

    def count(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM seen").fetchone()[0])


def _digest(row: tuple[Any, ...]) -> bytes:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest()[:16]
