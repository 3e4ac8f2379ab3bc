"""The child process that carries what is newer than a snapshot from a damaged directory into the
restored one, before that takes its place: ``python -m`` this module, order on stdin.

It reads the damaged directory by its files alone, never with Chroma, and writes into the restored
one with Chroma. Where it dies, the restored one is thrown away and unpacked again.
"""

from __future__ import annotations

import json
import resource
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recovery.components.chromadb.database import NAME
from recovery.components.chromadb.rebuilding import stock
from recovery.components.chromadb.rebuilding.salvage import salvage
from recovery.components.chromadb.rebuilding.stock import DOCUMENT, Operation, Stock

PAGE = 500
_COLUMNS = ("string_value", "int_value", "float_value", "bool_value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    damaged: str
    restored: str
    timeout: float


@dataclass(slots=True)
class Carried:
    """``unreadable``: newer records of which something is nowhere; ``new_collections``: those that
    the snapshot does not know, which are left where they are."""

    records: int = 0
    unreadable: int = 0
    new_collections: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Record:
    row: int
    vector: Any = None
    document: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def main() -> int:
    order = Order(**json.load(sys.stdin))
    # Whoever asked may die; this process then ends by itself, and leaves no huge core file.
    signal.setitimer(signal.ITIMER_REAL, order.timeout)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    found = carry(Path(order.damaged), Path(order.restored))
    said = {
        "records": found.records,
        "unreadable": found.unreadable,
        "new_collections": found.new_collections[:20],
    }
    sys.stdout.write(f"{json.dumps({'carried': said})}\n")
    return 0


def carry(damaged: Path, restored: Path) -> Carried:
    found = Carried()
    known = dict(_ends(restored))
    with closing(_opened(damaged)) as connection:
        places = connection.execute(
            "SELECT c.id, c.name, d.tenant_id, d.name FROM collections c"
            " JOIN databases d ON c.database_id = d.id ORDER BY c.id"
        ).fetchall()
        for identity, name, tenant, database in places:
            if identity not in known:
                found.new_collections.append(name)
                continue
            held = stock.read(connection, identity)
            newer = _newer(connection, damaged, held, known[identity])
            found.unreadable += len(_undescribed(held, known[identity]) - set(newer))
            whole = {one: record for one, record in newer.items() if record.vector is not None}
            found.unreadable += len(newer) - len(whole)
            if whole:
                _write(restored, tenant, database, name, whole)
            found.records += len(whole)
    return found


def _opened(folder: Path) -> sqlite3.Connection:
    """Its server is stopped; what a crash left in a journal is rolled back as by any opener."""
    return sqlite3.connect(f"{(folder / NAME).as_uri()}?mode=rw", uri=True, timeout=5.0)


def _ends(folder: Path) -> Iterator[tuple[str, int]]:
    with closing(_opened(folder)) as connection:
        for (identity,) in connection.execute("SELECT id FROM collections").fetchall():
            held = stock.read(connection, identity)
            yield identity, max(held.end, held.described)


def _newer(
    connection: sqlite3.Connection, damaged: Path, held: Stock, since: int
) -> dict[str, Record]:
    """Records that were written after the snapshot, with whatever is readable of them."""
    rows = connection.execute(
        "SELECT id, embedding_id, seq_id FROM embeddings WHERE segment_id = ?",
        (held.metadata_segment,),
    )
    found = {name: Record(row) for row, name, at in rows if _position(at) > since}
    for entry in held.log:
        if entry.vector is not None and entry.id in found:
            found[entry.id].vector = np.frombuffer(entry.vector, dtype="<f4")
    missing = {name for name, record in found.items() if record.vector is None}
    if missing:
        for names, vectors in salvage(damaged, held).vectors(missing, PAGE):
            for name, vector in zip(names, vectors, strict=True):
                found[name].vector = vector
    for record in found.values():
        _describe(connection, record)
    return found


def _undescribed(held: Stock, since: int) -> set[str]:
    """Those of which only the log knows yet, and not what they say."""
    since = max(since, held.described)
    late = (entry for entry in held.log if entry.position > since)
    return {entry.id for entry in late if entry.operation is not Operation.DELETE}


def _describe(connection: sqlite3.Connection, record: Record) -> None:
    rows = connection.execute(
        f"SELECT key, {', '.join(_COLUMNS)} FROM embedding_metadata WHERE id = ?",  # noqa: S608 - constants
        (record.row,),
    )
    for key, text, whole, real, truth in rows:
        if key == DOCUMENT:
            record.document = text
        elif truth is not None:
            record.metadata[key] = bool(truth)
        else:
            values = (one for one in (text, whole, real) if one is not None)
            record.metadata[key] = next(values, None)


def _write(
    restored: Path, tenant: str, database: str, name: str, records: dict[str, Record]
) -> None:
    from recovery.components.chromadb import opened

    with opened.writing(restored, tenant, database, name) as collection:
        names = sorted(records)
        for start in range(0, len(names), PAGE):
            part = names[start : start + PAGE]
            chosen = [records[one] for one in part]
            collection.upsert(
                ids=part,
                embeddings=[record.vector for record in chosen],
                documents=[record.document for record in chosen],
                metadatas=[record.metadata or None for record in chosen],
            )
            if len(collection.get(ids=part, include=[])["ids"]) != len(part):
                raise RuntimeError(f"{name}: what was carried over is not there")


def _position(stored: int | bytes) -> int:
    return int.from_bytes(stored, "big") if isinstance(stored, bytes) else stored


if __name__ == "__main__":
    sys.exit(main())
