"""What the database of a copy says of it, read from the file alone. It opens no Chroma."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from recovery.components.chromadb import sampling
from recovery.components.chromadb.database import NAME
from recovery.components.chromadb.orphans import is_index_name

_POSITION = (
    "SELECT max(coalesce((SELECT max(seq_id) FROM embeddings_queue), 0),"
    " coalesce((SELECT max(seq_id) FROM max_seq_id), 0))"
)

_METADATA = "SELECT id FROM segments WHERE collection = ? AND scope = 'METADATA'"
_RANGE = "SELECT min(id), max(id) FROM embeddings WHERE segment_id = ?"
# The plus keeps SQLite from an index that it would have to sort.
_FROM = "SELECT embedding_id FROM embeddings WHERE id >= ? AND +segment_id = ? ORDER BY id LIMIT 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """``segments``: the ids of all indexes, which are the names of their folders.

    ``position``: how far the log has come; it may go back when a collection is deleted.
    ``mark`` is another one when anything was written, and the same however much of the log was
    taken into the indexes meanwhile.
    """

    schema_versions: dict[str, int]
    position: int
    segments: frozenset[str]
    records: int
    names: tuple[str, ...]
    mark: str

    def is_orphan(self, folder: str) -> bool:
        """A folder of an index whose collection was deleted: Chroma leaves it behind."""
        return is_index_name(folder) and folder not in self.segments


def read(folder: Path) -> Contents:
    """Raises ``sqlite3.Error``. Takes SQLite's read lock for a moment."""
    with _opened(folder) as connection:
        return of(connection)


def drawn(folder: Path, collection: str) -> list[str]:
    """Ids of some records of a collection, from the first to the last; none where they are unknown.

    One from each of as many equal parts as a sample is large. Takes SQLite's read lock, too.
    """
    try:
        with _opened(folder) as connection:
            return [*dict.fromkeys(_drawn(connection, collection))]
    except sqlite3.Error:
        return []


def _drawn(connection: sqlite3.Connection, collection: str) -> Iterator[str]:
    segments = connection.execute(_METADATA, (collection,)).fetchall()
    for (segment,) in segments:
        first, last = connection.execute(_RANGE, (segment,)).fetchone()
        for offset in sampling.offsets(last - first + 1) if last else ():
            (identity,) = connection.execute(_FROM, (first + offset, segment)).fetchone()
            yield str(identity)


@contextmanager
def _opened(folder: Path) -> Iterator[sqlite3.Connection]:
    address = f"{(folder / NAME).as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=5.0)) as connection:
        yield connection


def of(connection: sqlite3.Connection) -> Contents:
    versions = connection.execute("SELECT dir, max(version) FROM migrations GROUP BY dir")
    position = connection.execute(_POSITION).fetchone()[0]
    segments = connection.execute("SELECT id FROM segments")
    records = connection.execute("SELECT count(*) FROM embeddings").fetchone()[0]
    collections = connection.execute("SELECT id, name FROM collections ORDER BY id").fetchall()
    return Contents(
        schema_versions={str(part): int(version) for part, version in versions},
        # Older versions stored positions as big-endian bytes.
        position=int.from_bytes(position, "big") if isinstance(position, bytes) else int(position),
        segments=frozenset(str(one) for (one,) in segments),
        records=int(records),
        names=tuple(str(name) for _, name in collections),
        mark=hashlib.sha256(repr((position, collections)).encode()).hexdigest()[:16],
    )
