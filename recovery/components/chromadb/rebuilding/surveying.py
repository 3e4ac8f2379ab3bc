"""The child process that says which indexes of a directory are damaged, by their files alone:
``python -m`` this module, order on stdin. It only reads, and never runs Chroma."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Any

from recovery.components.chromadb import database, index_files
from recovery.components.chromadb.database import Segment
from recovery.components.chromadb.findings import Budget
from recovery.components.chromadb.rebuilding import orders, stock
from recovery.components.chromadb.rebuilding.orders import SurveyOrder, say

ENOUGH = 0.5
"""The share of records that an index and a collection have in common when they belong together."""


def main() -> int:
    order = SurveyOrder(**orders.begin())
    try:
        say(verdict=survey(order))
    except sqlite3.DatabaseError as error:
        is_locked = "locked" in str(error) or "busy" in str(error)
        say(verdict={orders.LOCKED if is_locked else orders.UNREADABLE: str(error)})
    return 0


def survey(order: SurveyOrder) -> dict[str, Any]:
    """Every collection with its index; ``problem`` says what is wrong with its files."""
    path = Path(order.path)
    with stock.reading(path, order.patience) as connection:
        catalogue = database.read(connection, order.tenant, order.database)
        owners = dict(
            connection.execute("SELECT id, collection FROM segments WHERE scope = 'VECTOR'")
        )
        lost = _without_index(connection, order)
        recordless = _without_records(connection)
    budget = Budget(order.timeout)
    found = [
        {
            "id": owners[segment.id],
            "name": segment.collection,
            "segment": segment.id,
            "is_own": segment.is_own,
            "dimension": segment.dimension,
            "records": segment.records,
            "problem": _problem(path, segment, budget),
        }
        for segment in catalogue.segments
    ]
    return {"collections": found + lost, "recordless": recordless}


def _problem(path: Path, segment: Segment, budget: Budget) -> str | None:
    try:
        finding = index_files.examine(path, segment, budget)
    except index_files.UnknownFormat:
        return None
    return finding.summary if finding else None


def _without_index(connection: sqlite3.Connection, order: SurveyOrder) -> list[dict[str, Any]]:
    """Collections of which the database lost the line that names their index."""
    rows = connection.execute(
        "SELECT c.id, c.name, c.dimension, d.name = ? AND d.tenant_id = ?, m.id FROM collections c"
        " JOIN segments m ON m.collection = c.id AND m.scope = 'METADATA'"
        " LEFT JOIN segments v ON v.collection = c.id AND v.scope = 'VECTOR'"
        " LEFT JOIN databases d ON c.database_id = d.id WHERE v.id IS NULL",
        (order.database, order.tenant),
    ).fetchall()
    found = []
    for identity, name, dimension, is_own, metadata in rows:
        ids = {
            record
            for (record,) in connection.execute(
                "SELECT embedding_id FROM embeddings WHERE segment_id = ?", (metadata,)
            )
        }
        found.append(
            {
                "id": identity,
                "name": name,
                "segment": _ownerless(connection, Path(order.path), ids),
                "is_own": bool(is_own),
                "is_listed": False,
                "dimension": dimension,
                "records": len(ids),
                "problem": f"{name}: the database does not know its index any more",
            }
        )
    return found


def _without_records(connection: sqlite3.Connection) -> list[str]:
    """Collections of which the database lost the line that leads to their records."""
    found = connection.execute(
        "SELECT c.name FROM collections c LEFT JOIN segments m ON m.collection = c.id"
        " AND m.scope = 'METADATA' WHERE m.id IS NULL ORDER BY c.name"
    )
    return [name for (name,) in found]


def _ownerless(connection: sqlite3.Connection, path: Path, ids: set[str]) -> str | None:
    """The index that was saved once, belongs to nobody, and knows these records."""
    saved = connection.execute(
        "SELECT segment_id FROM max_seq_id WHERE segment_id NOT IN (SELECT id FROM segments)"
    ).fetchall()
    for (segment,) in saved:
        try:
            known = index_files.read_labels(path / segment).keys()
        except index_files.Broken:
            continue
        if len(known & ids) > ENOUGH * len(known | ids):
            return str(segment)
    return None


if __name__ == "__main__":
    sys.exit(main())
